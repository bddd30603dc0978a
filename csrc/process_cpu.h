/*
 * The CPU time of a tree of processes: a sum of increases, so it never falls.
 *
 * What a member used is counted as it is seen. What it used after that, and what
 * children used that lived and died unseen, arrives in its parent's waited_ticks
 * when that waits for it, together with what was counted already. So an increase
 * of waited_ticks counts less all that was last seen of those that ended: their
 * parent *owes* it. If it waits for nobody (SIGCHLD ignored), or somebody else
 * does, what was last seen stays, and the rest is not known.
 */
#ifndef SMN_PROCESS_CPU_H
#define SMN_PROCESS_CPU_H

#include "process_tree.h"

typedef struct {
    uint64_t ticks_per_second;
    uint64_t ticks;
    uint64_t begin_ticks; /* since boot; who started then or later counts from its birth */
    bool has_begun;
} smn_process_cpu;

/* Nothing was used yet, and nobody has been read. */
void smn_process_cpu_init(smn_process_cpu *cpu, uint64_t ticks_per_second);

/* After a reading, and before those who ended are forgotten. */
void smn_process_cpu_settle(smn_process_cpu *cpu, smn_process_tree *tree);

/* After a search: takes in the new members. */
void smn_process_cpu_welcome(smn_process_cpu *cpu, const smn_process_tree *tree);

#endif

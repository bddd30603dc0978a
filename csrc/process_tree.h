/*
 * A process and all that descends from it.
 *
 * Descendants are found through the lists of children that the kernel keeps for
 * each thread, so the other processes of the machine cost nothing. One that was
 * found stays a member until it ends, whoever its parent becomes: it is known by
 * pid and start, so a pid that is given to another process is not mistaken for
 * it, and an exec changes nothing. (Not found is who loses the last parent that
 * was a member before the next search.)
 *
 * No file of theirs stays open: there may be more of them than files that a
 * process may have.
 */
#ifndef SMN_PROCESS_TREE_H
#define SMN_PROCESS_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "pid_stat.h"
#include "source.h"

enum {
    SMN_MOST_PROCESSES = 65536,
    SMN_PROCESS_BUCKETS = 4096,
    SMN_MOST_GENERATIONS = 256 /* that end between two readings; what lies may show a circle */
};

typedef struct {
    smn_pid_stat now;    /* as last seen */
    uint64_t own_before; /* ticks at the reading before */
    uint64_t waited_before;
    bool is_new;    /* found by the last search, and not yet read */
    bool is_there;  /* at the last reading */
    bool is_orphan; /* its parent has ended, and it has not been read since */
    uint32_t next;  /* in its bucket: index + 1 */
    /* Of process_cpu.c: */
    uint64_t owed; /* ticks of ended ones that its waited_ticks will have, or have, in them */
    uint64_t debt; /* the part of `owed` that is from the reading before */
    bool was_checked;
    bool has_left; /* after it was read */
} smn_process;

typedef struct {
    int procfs;
    smn_text_buffer *text;
    const smn_clock *clock;
    bool is_alone; /* nobody is searched for */
    bool has_children_files;
    uint64_t due_ns;        /* the next search; not sooner */
    int search_error;       /* of the last one */
    smn_process *processes; /* address space for the most there can be, touched as needed */
    size_t count;
    uint32_t buckets[SMN_PROCESS_BUCKETS]; /* by pid: index + 1 of the first */
} smn_process_tree;

/*
 * Takes in the process itself. -ENODATA where there is none, or procfs does not
 * know it; -ENOMEM. May be released in either case.
 */
int smn_process_tree_init(smn_process_tree *tree, const smn_environment *environment);
void smn_process_tree_release(smn_process_tree *tree);

/*
 * Reads every member; who has ended is no longer `is_there`. An error is that of
 * the first one that is there and cannot be read: it stays as last seen.
 */
int smn_process_tree_read(smn_process_tree *tree);

/* Whether a member is still there. No reading: nothing else is taken from it. */
bool smn_process_tree_is_there(const smn_process_tree *tree, const smn_process *process);

/* The nearest ancestor that was there at the last reading; NULL where none was. */
smn_process *smn_process_tree_ancestor(smn_process_tree *tree, const smn_process *process);

/* Members that have ended, or left, are no members any more. */
void smn_process_tree_forget(smn_process_tree *tree);

/*
 * Looks for new members, if that is due; they come behind the others. An error,
 * until a search has none: there may be some that were not found.
 */
int smn_process_tree_search(smn_process_tree *tree);

#endif

/* Processes of a made-up /proc: a parent, its children, and what they use. */
#ifndef RELATIVES_H
#define RELATIVES_H

#include <stdint.h>

#include "tree.h"

/* Started before any test, and after it: in ticks since boot. */
#define LONG_AGO UINT64_C(7)
#define LATER (UINT64_C(1) << 50)

typedef struct {
    int pid;
    int parent;
    const char *name; /* NULL: python */
    char state;       /* 0: S */
    uint64_t user;    /* CPU time, in ticks */
    uint64_t system;
    uint64_t waited_user; /* that of children */
    uint64_t waited_system;
    uint64_t threads; /* 0: 1 */
    uint64_t start;   /* 0: LONG_AGO */
    uint64_t virtual_bytes;
    uint64_t resident_pages;
} relative;

/* Its stat file. */
void relative_write(const proc_tree *tree, const relative *it);

/* Gives a thread of a process its list of children: "2 3 ". */
void relative_have(const proc_tree *tree, int pid, int thread, const char *children);

/* So many open files. */
void relative_open_files(const proc_tree *tree, int pid, int count);

/* Takes away all that there is of it. */
void relative_end(const proc_tree *tree, int pid);

#endif

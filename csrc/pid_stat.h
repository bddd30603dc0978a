/*
 * 4242 (pt_main_thread) S 4200 4242 4200 0 -1 4194304 9876 0 0 0 1207 88 310 21 20 0 35 0 2356855 …
 *
 * /proc/<pid>/stat (proc_pid_stat(5)) as a scanner: no I/O, like scan.h. The
 * name in parentheses is the process's own and may be anything, blanks and
 * parentheses included; behind the last one the kernel alone writes.
 */
#ifndef SMN_PID_STAT_H
#define SMN_PID_STAT_H

#include <limits.h>

#include "scan.h"

enum {
    SMN_PID_STAT_BYTES = 1024 /* more than the fields that are read can take */
};

typedef struct {
    int pid;
    int parent;         /* 0: not of this pid namespace */
    char state;         /* R, S, D, Z … as ps(1) has it */
    uint64_t own_ticks; /* utime + stime */
    uint64_t
        waited_ticks; /* cutime + cstime: of ended children that were waited for, with theirs */
    uint64_t threads;
    uint64_t start_ticks; /* since boot: with the pid it tells a process from all others */
    uint64_t virtual_bytes;
    uint64_t resident_pages;
} smn_pid_stat;

/*
 * No machine reaches these. Sums of the former over all processes there can be
 * stay below 2^64, of the latter they are doubles anyway.
 */
static const uint64_t SMN_MOST_TICKS = UINT64_C(1) << 45;
static const uint64_t SMN_MOST_PAGES = UINT64_C(1) << 52;

/* Steps over fields of which some may be negative. */
static inline int smn_scan_skip_fields(smn_cursor *cursor, int count)
{
    for (; count > 0; count--) {
        smn_scan_spaces(cursor);
        const char *field = cursor->at;
        while (cursor->at < cursor->end && *cursor->at != ' ' && *cursor->at != '\n')
            cursor->at++;
        if (cursor->at == field)
            return -EBADMSG;
    }
    return 0;
}

static inline int smn_scan_pid(smn_cursor *cursor, int *pid)
{
    uint64_t number;
    int error = smn_scan_u64(cursor, &number);
    if (error == 0 && number > INT_MAX)
        error = -EBADMSG;
    if (error == 0)
        *pid = (int)number;
    return error;
}

/* Two counts of clock ticks, added. */
static inline int smn_scan_two_ticks(smn_cursor *cursor, uint64_t *sum)
{
    uint64_t first;
    uint64_t second;
    int error = smn_scan_u64(cursor, &first);
    if (error == 0)
        error = smn_scan_u64(cursor, &second);
    if (error == 0 && (first > SMN_MOST_TICKS || second > SMN_MOST_TICKS))
        error = -EBADMSG;
    if (error == 0)
        *sum = first + second;
    return error;
}

/* Steps behind "4242 (any name) S", of which it takes the first and the last. */
static inline int smn_scan_pid_and_state(smn_cursor *cursor, smn_pid_stat *stat)
{
    int error = smn_scan_pid(cursor, &stat->pid);
    if (error != 0)
        return error;
    size_t left = (size_t)(cursor->end - cursor->at);
    const char *closing = memrchr(cursor->at, ')', left);
    if (closing == NULL || cursor->end - closing < 3 || closing[1] != ' ')
        return -EBADMSG;
    if (!smn_scan_key(cursor, " ("))
        return -EBADMSG;
    stat->state = closing[2];
    cursor->at = closing + 3;
    return 0;
}

/* What is malformed is refused as a whole: -EBADMSG. */
static inline int smn_scan_pid_stat(smn_cursor text, smn_pid_stat *stat)
{
    int error = smn_scan_pid_and_state(&text, stat);
    if (error == 0)
        error = smn_scan_pid(&text, &stat->parent);
    if (error == 0)
        error = smn_scan_skip_fields(&text, 9); /* pgrp … cmajflt */
    if (error == 0)
        error = smn_scan_two_ticks(&text, &stat->own_ticks);
    if (error == 0)
        error = smn_scan_two_ticks(&text, &stat->waited_ticks);
    if (error == 0)
        error = smn_scan_skip_fields(&text, 2); /* priority, nice */
    if (error == 0)
        error = smn_scan_u64(&text, &stat->threads);
    if (error == 0)
        error = smn_scan_skip_fields(&text, 1); /* itrealvalue */
    if (error == 0)
        error = smn_scan_u64(&text, &stat->start_ticks);
    if (error == 0)
        error = smn_scan_u64(&text, &stat->virtual_bytes);
    if (error == 0)
        error = smn_scan_u64(&text, &stat->resident_pages);
    if (error == 0 && (stat->resident_pages > SMN_MOST_PAGES || stat->threads > INT_MAX))
        error = -EBADMSG;
    return error;
}

#endif

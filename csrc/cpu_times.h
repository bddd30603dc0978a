/*
 * cpu  1132 34 1441 3675 127 0 438 0 0 0
 *
 * The clocks of a CPU, or of all of them, in a line of /proc/stat
 * (proc_stat(5)): clock ticks since boot in user, nice, system, idle, iowait,
 * irq, softirq, steal, guest, guest_nice. user and nice already contain guest
 * and guest_nice.
 */
#ifndef SMN_CPU_TIMES_H
#define SMN_CPU_TIMES_H

#include "scan.h"

enum {
    SMN_CPU_USER,
    SMN_CPU_NICE,
    SMN_CPU_SYSTEM,
    SMN_CPU_IDLE,
    SMN_CPU_IOWAIT,
    SMN_CPU_IRQ,
    SMN_CPU_SOFTIRQ,
    SMN_CPU_STEAL,
    SMN_CPU_GUEST,
    SMN_CPU_GUEST_NICE,
    SMN_CPU_CLOCKS,
    SMN_CPU_OLDEST_CLOCKS = SMN_CPU_IDLE + 1 /* every kernel has had these */
};

/*
 * More than ten thousand CPUs count in twenty years: a larger number is none of
 * the kernel's, and would spoil the sums, which are exact doubles up to 2^53.
 */
#define SMN_CPU_MOST_TICKS (UINT64_C(1) << 48)

typedef struct {
    uint64_t ticks[SMN_CPU_CLOCKS];
} smn_cpu_times;

/* What follows the name in a line. Old kernels have fewer clocks; what they lack reads as 0. */
static inline int smn_scan_cpu_times(smn_cursor *line, smn_cpu_times *times)
{
    *times = (smn_cpu_times){0};
    for (int i = 0; i < SMN_CPU_CLOCKS; i++) {
        smn_scan_spaces(line);
        if (line->at < line->end && *line->at == '\n')
            return i >= SMN_CPU_OLDEST_CLOCKS ? 0 : -EBADMSG;
        int error = smn_scan_u64(line, &times->ticks[i]);
        if (error != 0)
            return error;
        if (times->ticks[i] > SMN_CPU_MOST_TICKS)
            return -EBADMSG;
    }
    return 0;
}

/* idle and iowait are known to step back now and then; a step back is no time at all. */
static inline smn_cpu_times smn_cpu_increase(const smn_cpu_times *before, const smn_cpu_times *now)
{
    smn_cpu_times increase = {0};
    for (int i = 0; i < SMN_CPU_CLOCKS; i++) {
        if (now->ticks[i] > before->ticks[i])
            increase.ticks[i] = now->ticks[i] - before->ticks[i];
    }
    return increase;
}

static inline uint64_t smn_cpu_total(const smn_cpu_times *times)
{
    uint64_t total = 0;
    for (int i = 0; i < SMN_CPU_GUEST; i++)
        total += times->ticks[i];
    return total;
}

/* A CPU that waits for a disk is idle. */
static inline uint64_t smn_cpu_busy(const smn_cpu_times *times)
{
    return smn_cpu_total(times) - times->ticks[SMN_CPU_IDLE] - times->ticks[SMN_CPU_IOWAIT];
}

#endif

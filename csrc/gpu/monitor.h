/*
 * The GPU thread, `smn-gpu`: finds the devices, reads them in time for the
 * sampling thread's ticks, and deals with what fails.
 *
 * A device's values go to the sampling thread through a mailbox for each group,
 * without a lock: each set of values is taken once, and a tick in which no new
 * one has come has none. So a call that lasts for seconds costs the values of
 * those seconds and nothing else.
 */
#ifndef SMN_GPU_MONITOR_H
#define SMN_GPU_MONITOR_H

#include <stdbool.h>
#include <stdint.h>

#include "device.h"

enum {
    SMN_GPU_SHORTEST_PERIOD_NS = 100000000 /* what drivers know changes no faster */
};

/* Another user of the handle, besides who opened it; let go of with smn_gpus_close. */
smn_gpus *smn_gpus_retain(smn_gpus *gpus);

/* How many devices there are, dropped ones included: their places count from 0. */
int smn_gpus_count(const smn_gpus *gpus);

/* Whether a device that is not dropped has, as far as one can know, a value of a group. */
bool smn_gpus_has(const smn_gpus *gpus, int place, smn_gpu_group group, int value);

/* Reads all devices once, from where counters start, and waits for it. -ETIMEDOUT: it goes on. */
int smn_gpus_take_first(smn_gpus *gpus, int64_t timeout_ns);

/*
 * From here on reads them a little before each multiple of period_ns behind
 * start_ns (CLOCK_MONOTONIC), and what is per window before those of window_ns.
 */
void smn_gpus_run(smn_gpus *gpus, uint64_t start_ns, uint64_t period_ns, uint64_t window_ns);

/*
 * From now on readings are at least so far apart, if any group wants it; 0: as
 * usual. Those that a window's end has come at the end of every so many-th one.
 */
void smn_gpus_slow_down(smn_gpus *gpus, smn_gpu_group group, uint64_t apart_ns);

/* Reads all devices a last time. As take_first. */
int smn_gpus_take_last(smn_gpus *gpus, int64_t timeout_ns);

/*
 * For the sampling thread alone. Copies the values that are new since the last
 * call (SMN_GPU_…_VALUES of them, of at most SMN_GPU_MAILBOX_VALUES) and returns true, or returns
 * false. Wait-free.
 */
bool smn_gpus_take(smn_gpus *gpus, int place, smn_gpu_group group, double *values);

/* How the readings of a group go: rounds, failed readings and the thread's time. */
void smn_gpus_group_stats(const smn_gpus *gpus, smn_gpu_group group, smn_source_stats *stats);

#endif

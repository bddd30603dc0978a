/*
 * A clock that stands still until a test moves it, in step with the sampling
 * thread: when fake_clock_advance returns, the thread has done its tick and
 * sleeps again. So no test of the sampler depends on how fast the machine is.
 */
#ifndef FAKE_CLOCK_H
#define FAKE_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"

typedef struct {
    smn_clock clock; /* what the sampler gets */
    _Atomic uint64_t now_ns;
    _Atomic int64_t wall_ahead_ns; /* of monotonic time */
    _Atomic uint64_t
        reading_cost_ns; /* CPU time that passes from one question for it to the next */
    _Atomic uint64_t cpu_ns;
    _Atomic bool deaf;       /* a sleeper that does not hear stop, as if stuck in the kernel */
    _Atomic uint32_t sleeps; /* futex: how often it fell asleep */
    _Atomic uint64_t deadline_ns;
    _Atomic(_Atomic uint32_t *) flag; /* of the sleeper */
} fake_clock;

/* Monotonic time begins at 1000 s, Unix time at 1,700,000,000 s. */
void fake_clock_init(fake_clock *clock);

/* Waits until the sampling thread has come to sleep for the first time. */
void fake_clock_settle(const fake_clock *clock);

/* Waits until the sampling thread sleeps, moves time and, if that is due, waits for its tick. */
void fake_clock_advance(fake_clock *clock, uint64_t ns);

/* Steps Unix time, as a person or NTP does. */
void fake_clock_step_wall(fake_clock *clock, int64_t ns);

double fake_clock_wall_seconds(const fake_clock *clock);

#endif

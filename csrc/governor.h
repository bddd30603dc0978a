/*
 * How often each source is read, so that all of them together stay inside a
 * budget of CPU time.
 *
 * What a reading costs is measured as sampling goes on. When the sources would
 * take more than the budget, the most expensive ones are read less often: each
 * of those gets the same share, and the cheap ones are left as they are. The
 * tick itself is the user's choice and stays outside.
 *
 * A source that was slowed down is read so many times a window, the last time
 * at its end, or at the end of every so many-th window.
 */
#ifndef SMN_GOVERNOR_H
#define SMN_GOVERNOR_H

#include <stdbool.h>
#include <stdint.h>

/* One source, as far as its pace is concerned. */
typedef struct {
    uint64_t
        usual_ticks; /* how far apart its readings are meant to be; each window ends with one */
    double cost_ns;  /* of one reading, as measured lately; 0: not known yet */
    uint64_t lately_calls; /* since the last decision */
    uint64_t lately_ns;
    uint32_t per_window;    /* readings in a window; 0: as usual */
    uint64_t every_windows; /* which windows have them; 1: each */
} smn_load;

typedef struct {
    double budget; /* nanoseconds of CPU time a nanosecond; 0: any */
    uint64_t interval_ns;
    uint64_t window_ticks;
    uint64_t decided_ns; /* when, of CLOCK_MONOTONIC */
    uint64_t spent_ns;   /* since then, on this thread */
} smn_governor;

void smn_governor_init(smn_governor *governor, double budget, uint64_t interval_ns,
                       uint64_t window_ticks);

/* A load that is read as usual. */
smn_load smn_load_of(uint64_t usual_ticks);

/* Counts a reading. */
static inline void smn_load_count(smn_load *load, uint64_t cost_ns)
{
    load->lately_calls++;
    load->lately_ns += cost_ns;
}

#define SMN_GOVERNOR_PERIOD_NS UINT64_C(1000000000)

/* Once a second, and sooner when what was spent since is a second's budget. */
bool smn_governor_is_due(const smn_governor *governor, uint64_t now_ns);

/* Gives every load its pace. */
void smn_governor_decide(smn_governor *governor, smn_load *loads, int count, uint64_t now_ns);

/* The multiple of its own interval that comes after `tick`. */
uint64_t smn_load_usual_tick(const smn_load *load, uint64_t tick);

/* The tick that a load is next read at, after `tick`, if not for the end of a window. */
uint64_t smn_load_next_tick(const smn_load *load, const smn_governor *governor, uint64_t tick);

/* How far apart its readings are, in ticks: a fraction where a window has a number of them. */
double smn_load_interval_ticks(const smn_load *load, const smn_governor *governor);

static inline bool smn_load_is_slowed(const smn_load *load)
{
    return load->per_window != 0;
}

#endif

#include "fake_clock.h"

#include <stddef.h>

#include "self.h"

static const uint64_t SECOND = 1000000000;

static uint64_t monotonic_ns(void *context)
{
    fake_clock *clock = context;
    return atomic_load(&clock->now_ns);
}

static int64_t wall_ns(void *context)
{
    fake_clock *clock = context;
    return (int64_t)atomic_load(&clock->now_ns) + atomic_load(&clock->wall_ahead_ns);
}

static uint64_t cpu_ns(void *context)
{
    fake_clock *clock = context;
    return atomic_fetch_add(&clock->cpu_ns, atomic_load(&clock->reading_cost_ns));
}

static void sleep_until(void *context, _Atomic uint32_t *flag, uint64_t deadline_ns)
{
    fake_clock *clock = context;
    atomic_store(&clock->deadline_ns, deadline_ns);
    atomic_store(&clock->flag, flag);
    atomic_fetch_add(&clock->sleeps, 1);
    smn_futex_wake(&clock->sleeps);
    while (atomic_load(&clock->now_ns) < deadline_ns) {
        bool stopping = atomic_load(flag) != 0;
        if (stopping && !atomic_load(&clock->deaf))
            break;
        if (stopping)
            self_breathe();
        else
            (void)smn_futex_wait(flag, 0, SMN_NEVER);
    }
}

void fake_clock_init(fake_clock *clock)
{
    *clock = (fake_clock){
        .clock = {.monotonic_ns = monotonic_ns,
                  .wall_ns = wall_ns,
                  .cpu_ns = cpu_ns,
                  .sleep_until = sleep_until,
                  .context = clock},
        .now_ns = 1000 * SECOND,
        .wall_ahead_ns = (int64_t)((1700000000 - 1000) * SECOND),
    };
}

void fake_clock_settle(const fake_clock *clock)
{
    while (atomic_load(&clock->sleeps) == 0)
        self_breathe();
}

void fake_clock_advance(fake_clock *clock, uint64_t ns)
{
    fake_clock_settle(clock);
    uint32_t sleeps = atomic_load(&clock->sleeps);
    uint64_t now_ns = atomic_fetch_add(&clock->now_ns, ns) + ns;
    if (now_ns < atomic_load(&clock->deadline_ns))
        return;
    /* Woken again and again: the first call may come before the thread really sleeps. */
    while (atomic_load(&clock->sleeps) == sleeps) {
        smn_futex_wake(atomic_load(&clock->flag));
        uint64_t soon_ns = smn_system_clock.monotonic_ns(NULL) + 1000000;
        (void)smn_futex_wait(&clock->sleeps, sleeps, soon_ns);
    }
}

void fake_clock_step_wall(fake_clock *clock, int64_t ns)
{
    atomic_fetch_add(&clock->wall_ahead_ns, ns);
}

double fake_clock_wall_seconds(const fake_clock *clock)
{
    return (double)((int64_t)atomic_load(&clock->now_ns) + atomic_load(&clock->wall_ahead_ns)) *
           1e-9;
}

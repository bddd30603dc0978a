#include "fake_clock.h"

#include <sched.h>

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

static void sleep_until(void *context, _Atomic uint32_t *flag, uint64_t deadline_ns)
{
    fake_clock *clock = context;
    atomic_store(&clock->deadline_ns, deadline_ns);
    atomic_store(&clock->flag, flag);
    atomic_fetch_add(&clock->sleeps, 1);
    atomic_store(&clock->asleep, true);
    while (atomic_load(&clock->now_ns) < deadline_ns) {
        bool stopping = atomic_load(flag) != 0;
        if (stopping && !atomic_load(&clock->deaf))
            break;
        if (stopping)
            self_breathe();
        else
            (void)smn_futex_wait(flag, 0, SMN_NEVER);
    }
    atomic_store(&clock->asleep, false);
}

void fake_clock_init(fake_clock *clock)
{
    *clock = (fake_clock){
        .clock = {.monotonic_ns = monotonic_ns,
                  .wall_ns = wall_ns,
                  .sleep_until = sleep_until,
                  .context = clock},
        .now_ns = 1000 * SECOND,
        .wall_ahead_ns = (int64_t)((1700000000 - 1000) * SECOND),
    };
}

void fake_clock_advance(fake_clock *clock, uint64_t ns)
{
    while (!atomic_load(&clock->asleep))
        self_breathe();
    uint64_t sleeps = atomic_load(&clock->sleeps);
    uint64_t now_ns = atomic_fetch_add(&clock->now_ns, ns) + ns;
    if (now_ns < atomic_load(&clock->deadline_ns))
        return;
    /* Woken again and again: the first call may come before the thread really sleeps. */
    while (atomic_load(&clock->sleeps) == sleeps || !atomic_load(&clock->asleep)) {
        smn_futex_wake(atomic_load(&clock->flag));
        sched_yield();
    }
}

void fake_clock_repeat(fake_clock *clock, uint64_t ns, int count)
{
    for (int i = 0; i < count; i++)
        fake_clock_advance(clock, ns);
}

void fake_clock_step_wall(fake_clock *clock, int64_t ns)
{
    atomic_fetch_add(&clock->wall_ahead_ns, ns);
}

double fake_clock_wall_seconds(const fake_clock *clock)
{
    fake_clock *self = (fake_clock *)(uintptr_t)clock;
    return (double)wall_ns(self) * 1e-9;
}

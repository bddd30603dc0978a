#include "clock.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(long) == 8, "the futex call below passes 64-bit times as they are");

static const uint64_t NS_PER_SECOND = 1000000000;

static uint64_t read_clock(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static uint64_t system_monotonic_ns(void *context)
{
    (void)context;
    return read_clock(CLOCK_MONOTONIC);
}

static int64_t system_wall_ns(void *context)
{
    (void)context;
    return (int64_t)read_clock(CLOCK_REALTIME);
}

static uint64_t system_cpu_ns(void *context)
{
    (void)context;
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

static void system_sleep_until(void *context, _Atomic uint32_t *flag, uint64_t deadline_ns)
{
    (void)context;
    while (atomic_load(flag) == 0 && smn_futex_wait(flag, 0, deadline_ns) != -ETIMEDOUT)
        continue;
}

const smn_clock smn_system_clock = {
    .monotonic_ns = system_monotonic_ns,
    .wall_ns = system_wall_ns,
    .cpu_ns = system_cpu_ns,
    .sleep_until = system_sleep_until,
};

/*
 * The bare system call, because it is the only one that sleeps until an
 * absolute time of CLOCK_MONOTONIC and can still be woken, without a lock.
 */
int smn_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns)
{
    struct timespec deadline = {
        .tv_sec = (time_t)(deadline_ns / NS_PER_SECOND),
        .tv_nsec = (long)(deadline_ns % NS_PER_SECOND),
    };
    long result = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected,
                          deadline_ns == SMN_NEVER ? NULL : &deadline, NULL,
                          FUTEX_BITSET_MATCH_ANY);
    if (result == 0 || errno == EAGAIN)
        return 0;
    return errno == ETIMEDOUT ? -ETIMEDOUT : -EINTR;
}

void smn_futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX);
}

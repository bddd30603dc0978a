/* Time, and waiting for it: a value, so that tests can bring their own. */
#ifndef SMN_CLOCK_H
#define SMN_CLOCK_H

#include <stdatomic.h>
#include <stdint.h>

#define SMN_NEVER UINT64_MAX

typedef struct {
    uint64_t (*monotonic_ns)(void *context); /* never steps; stands still in suspend */
    int64_t (*wall_ns)(void *context);       /* Unix time; may step either way */
    uint64_t (*cpu_ns)(void *context);       /* what the calling thread has used of a CPU */
    /* Returns at the deadline, or sooner when *flag is no longer 0 and was woken. */
    void (*sleep_until)(void *context, _Atomic uint32_t *flag, uint64_t deadline_ns);
    void *context;
} smn_clock;

extern const smn_clock smn_system_clock;

/*
 * Sleeps while *word is `expected`, until it is woken or the deadline of
 * CLOCK_MONOTONIC has come. 0, -ETIMEDOUT or -EINTR. May wake for no reason.
 */
int smn_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns);

/* Wakes everybody who sleeps on word. */
void smn_futex_wake(_Atomic uint32_t *word);

#endif

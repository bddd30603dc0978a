/*
 * What the bare programs share: arguments, clocks and wake-ups.
 *
 * They sleep as the native thread does, in a futex that nobody wakes until an
 * absolute time of CLOCK_MONOTONIC, so that both pay the kernel the same.
 */
#ifndef SMN_BENCHMARKS_PACE_H
#define SMN_BENCHMARKS_PACE_H

#include <linux/futex.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    NS_PER_SECOND = 1000000000
};

typedef struct {
    long long interval_ns;
    long long next_ns;
} pace;

static inline long long clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (long long)now.tv_sec * NS_PER_SECOND + now.tv_nsec;
}

static inline pace pace_start(double rate)
{
    return (pace){.interval_ns = (long long)(NS_PER_SECOND / rate),
                  .next_ns = clock_ns(CLOCK_MONOTONIC)};
}

/* Sleeps until the next deadline; a deadline that has passed is skipped. */
static inline void pace_wait(pace *self)
{
    long long late = clock_ns(CLOCK_MONOTONIC) - self->next_ns;
    self->next_ns += self->interval_ns * (late > 0 ? late / self->interval_ns + 1 : 1);
    struct timespec deadline = {.tv_sec = self->next_ns / NS_PER_SECOND,
                                .tv_nsec = self->next_ns % NS_PER_SECOND};
    static uint32_t never_woken;
    syscall(SYS_futex, &never_woken, FUTEX_WAIT_BITSET_PRIVATE, 0, &deadline, NULL,
            FUTEX_BITSET_MATCH_ANY);
}

/* A positive number from the command line, or the end of the program. */
static inline double positive(const char *text)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end != '\0' || !(number > 0.0)) {
        fprintf(stderr, "%s is not a number above 0\n", text);
        exit(2);
    }
    return number;
}

#endif

/* The system's clock and sleeping on it; nothing here asks how long something took. */
#include "clock.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "check.h"
#include "self.h"

static const uint64_t SECOND = 1000000000;

static uint64_t now(void)
{
    return smn_system_clock.monotonic_ns(smn_system_clock.context);
}

static void test_readings(void)
{
    uint64_t before = now();
    for (int i = 0; i < 1000; i++) {
        uint64_t after = now();
        CHECK(after >= before);
        before = after;
    }
    struct timespec monotonic;
    clock_gettime(CLOCK_MONOTONIC, &monotonic);
    CHECK((uint64_t)monotonic.tv_sec * SECOND + (uint64_t)monotonic.tv_nsec >= before);
    int64_t seconds = (int64_t)time(NULL);
    CHECK(smn_system_clock.wall_ns(NULL) / (int64_t)SECOND >= seconds - 3600);
}

/* A deadline may be past, at hand, or the very beginning of time; sleeping never ends before it. */
static void test_deadlines(void)
{
    _Atomic uint32_t flag = 0;
    smn_system_clock.sleep_until(NULL, &flag, 0);
    smn_system_clock.sleep_until(NULL, &flag, 1);
    CHECK(now() > 1);
    for (uint64_t ns = 0; ns < 3000000; ns = ns * 2 + 1) {
        uint64_t deadline = now() + ns;
        smn_system_clock.sleep_until(NULL, &flag, deadline);
        CHECK(now() >= deadline);
    }
    flag = 1; /* one who shall not sleep does not */
    smn_system_clock.sleep_until(NULL, &flag, SMN_NEVER);
    smn_system_clock.sleep_until(NULL, &flag, now() + 3600 * SECOND);
}

static void test_futex(void)
{
    _Atomic uint32_t word = 7;
    CHECK_INT(smn_futex_wait(&word, 8, SMN_NEVER), 0); /* it has changed already */
    CHECK_INT(smn_futex_wait(&word, 7, 0), -ETIMEDOUT);
    uint64_t deadline = now() + 1000000;
    int error;
    while ((error = smn_futex_wait(&word, 7, deadline)) == 0)
        CHECK(now() < deadline); /* woken for no reason, which is allowed */
    CHECK_INT(error, -ETIMEDOUT);
    CHECK(now() >= deadline);
    smn_futex_wake(&word); /* nobody is there */
}

typedef struct {
    _Atomic uint32_t flag;
    _Atomic uint32_t awake;
} sleepers;

static void *sleep_for_ever(void *opaque)
{
    sleepers *all = opaque;
    smn_system_clock.sleep_until(NULL, &all->flag, SMN_NEVER);
    atomic_fetch_add(&all->awake, 1);
    return NULL;
}

/* Set the flag, wake once: nobody sleeps on, whether already asleep or just about to be. */
static void test_all_are_woken(void)
{
    enum {
        SLEEPERS = 3,
        ROUNDS = 50
    };
    for (int round = 0; round < ROUNDS; round++) {
        sleepers all = {.flag = 0};
        pthread_t threads[SLEEPERS];
        for (int i = 0; i < SLEEPERS; i++)
            REQUIRE(pthread_create(&threads[i], NULL, sleep_for_ever, &all) == 0);
        if (round % 2 == 0)
            self_breathe();
        CHECK_U64(atomic_load(&all.awake), 0);
        atomic_store(&all.flag, 1);
        smn_futex_wake(&all.flag);
        for (int i = 0; i < SLEEPERS; i++)
            REQUIRE(pthread_join(threads[i], NULL) == 0);
        CHECK_U64(atomic_load(&all.awake), SLEEPERS);
    }
}

int main(void)
{
    test_readings();
    test_deadlines();
    test_futex();
    test_all_are_woken();
    return check_report();
}

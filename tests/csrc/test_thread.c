/* The real thread on the real clock. Nothing here depends on how fast it is. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "self.h"
#include "sysmetrics.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum {
    SANITIZED = 1
};
#else
enum {
    SANITIZED = 0
};
#endif

enum {
    SERIES = 8
};

static const char THREAD_NAME[] = "smn-host";
static const uint64_t MILLISECOND = 1000000;

static smn_sampler *create(uint32_t samples_per_window)
{
    const smn_options options = {
        .interval_ns = MILLISECOND,
        .samples_per_window = samples_per_window,
        .procfs_path = "/proc",
        .sysfs_path = "/sys",
        .sources = "cpu,memory,disk_space,network",
        .disk_paths = "/",
    };
    smn_sampler *sampler = NULL;
    char error[SMN_ERROR_TEXT_BYTES] = "";
    int code = smn_sampler_create(&options, &sampler, error);
    CHECK_TEXT(error, "");
    REQUIRE(code == 0 && smn_sampler_series_count(sampler) == SERIES);
    return sampler;
}

static void test_windows_of_this_machine(void)
{
    smn_sampler *sampler = create(20);
    CHECK_INT(smn_sampler_start(sampler), 0);
    smn_window window;
    smn_statistics statistics[SERIES];
    uint64_t samples = 0;
    uint64_t missed = 0;
    for (int w = 0; w < 20; w++) {
        CHECK_INT(smn_sampler_next_window(sampler, -1, 1, &window, statistics), 0);
        CHECK(window.samples >= 1);
        CHECK(window.start_seconds < window.end_seconds);
        samples += window.samples;
        missed += window.missed;
        for (int s = 0; s < SERIES; s++) {
            check_case("window %d, series %d", w, s);
            const smn_statistics *one = &statistics[s];
            if (s > 0) /* CPU time may stand still for 20 ms */
                CHECK(isfinite(one->mean));
            if (isnan(one->mean))
                continue;
            double near = 1e-9 * (1.0 + fabs(one->max));
            CHECK(one->min >= 0.0 && one->min <= one->mean + near && one->mean <= one->max + near);
            if (!isnan(one->p50)) /* absent if we were too late for the rows */
                CHECK(one->min <= one->p50 + near && one->p50 <= one->p95 + near &&
                      one->p95 <= one->p99 + near && one->p99 <= one->max + near);
            smn_series_info info;
            CHECK_INT(smn_sampler_series(sampler, s, &info), 0);
            if (strcmp(info.unit, "percentage") == 0)
                CHECK(one->max <= 100.0);
        }
    }
    check_case(NULL);
    CHECK_INT(smn_sampler_stop(sampler, -1), 0);
    while (smn_sampler_next_window(sampler, -1, 0, &window, statistics) == 0) {
        samples += window.samples;
        missed += window.missed;
    }
    smn_counters counters;
    CHECK_INT(smn_sampler_counters(sampler, &counters), 0);
    CHECK_U64(counters.ticks, samples);
    CHECK_U64(counters.missed, missed);
    smn_source_stats stats;
    for (int i = 0; i < smn_sampler_sources(sampler); i++) {
        CHECK_INT(smn_sampler_source_stats(sampler, i, &stats), 0);
        CHECK_U64(stats.errors, 0);
        CHECK(stats.calls >= 1);
        CHECK(stats.max_cost_ns > 0 && stats.max_cost_ns <= stats.total_cost_ns);
    }
    smn_sampler_destroy(sampler);
}

/* The thread has a name that people see in top, and handles no signal of the program. */
static void test_name_and_signals(void)
{
    sigset_t before;
    sigset_t after;
    REQUIRE(pthread_sigmask(SIG_SETMASK, NULL, &before) == 0);
    REQUIRE(self_thread_ends(THREAD_NAME));
    smn_sampler *sampler = create(10);
    CHECK_INT(self_find_thread(THREAD_NAME), 0); /* only start starts it */
    CHECK_INT(smn_sampler_start(sampler), 0);
    pid_t thread = self_find_thread(THREAD_NAME);
    REQUIRE(thread != 0);
    smn_window window;
    smn_statistics statistics[SERIES];
    /* Until it runs our code, glibc has all signals blocked in any case. */
    CHECK_INT(smn_sampler_next_window(sampler, -1, 0, &window, statistics), 0);
    uint64_t blocked = self_status(thread, "SigBlk", 16);
    for (int number = 1; number <= 64; number++) {
        /* Those two cannot be blocked; 32 and 33 glibc keeps for itself. */
        if (number == SIGKILL || number == SIGSTOP || number == 32 || number == 33)
            continue;
        check_case("signal %d", number);
        CHECK((blocked >> (number - 1) & 1) == 1);
    }
    check_case(NULL);
    REQUIRE(pthread_sigmask(SIG_SETMASK, NULL, &after) == 0);
    for (int number = 1; number < 32; number++)
        CHECK_INT(sigismember(&after, number), sigismember(&before, number));

    CHECK_INT(smn_sampler_stop(sampler, -1), 0);
    CHECK(self_thread_ends(THREAD_NAME));
    smn_sampler_destroy(sampler);
}

/* Started and stopped again and again, in every order, it leaves nothing behind. */
static void test_nothing_is_left(void)
{
    enum {
        WARM_UP = 20, /* glibc keeps a stack, the allocator its arenas */
        ROUNDS = 200
    };
    REQUIRE(self_thread_ends(THREAD_NAME));
    int open_files = self_open_files();
    int threads = self_threads();
    uint64_t size_kib = 0;
    for (int round = 0; round < WARM_UP + ROUNDS; round++) {
        if (round == WARM_UP)
            size_kib = self_status(0, "VmSize", 10);
        smn_sampler *sampler = create(1 + (uint32_t)round % 3);
        CHECK_INT(smn_sampler_start(sampler), 0);
        smn_window window;
        smn_statistics statistics[SERIES];
        if (round % 4 == 0)
            CHECK_INT(smn_sampler_next_window(sampler, -1, 1, &window, statistics), 0);
        if (round % 2 == 0)
            CHECK_INT(smn_sampler_stop(sampler, -1), 0);
        if (round % 8 == 0)
            CHECK_INT(smn_sampler_next_window(sampler, -1, 1, &window, statistics), 0);
        smn_sampler_destroy(sampler);
    }
    CHECK_INT(self_open_files(), open_files);
    CHECK(self_thread_ends(THREAD_NAME));
    CHECK_INT(self_threads(), threads);
    /*
     * The smallest thing that a sampler maps is 36 KiB; with none of 200 given
     * back that would be 7 MiB. Sanitizers keep freed memory for themselves.
     */
    if (!SANITIZED)
        CHECK(self_status(0, "VmSize", 10) < size_kib + 2048);
}

int main(void)
{
    test_windows_of_this_machine();
    test_name_and_signals();
    test_nothing_is_left();
    return check_report();
}

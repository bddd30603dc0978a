/* The sampler tick by tick, on a clock that the test moves. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "rig.h"
#include "self.h"

static const uint64_t SECOND = 1000000000;
static const uint64_t MILLISECOND = 1000000;

static const char CPU[] = "cpu_utilization_percentage";
static const char MEMORY[] = "system_memory_usage_percentage";
static const char DISK[] = "disk_usage_percentage";
static const char RECEIVED[] = "network_receive_megabytes";
static const char SENT[] = "network_transmit_megabytes";
static const char ALL[] = "cpu,memory,disk_space,network";

static void check_window(const sampler_rig *rig, uint64_t samples, uint64_t missed, double seconds)
{
    CHECK_U64(rig->window.samples, samples);
    CHECK_U64(rig->window.missed, missed);
    CHECK_U64(rig->window.merged, 0);
    CHECK_NEAR(rig->window.end_seconds - rig->window.start_seconds, seconds, 1e-6);
}

static void check_counters(const sampler_rig *rig, uint64_t ticks, uint64_t missed, uint64_t merged)
{
    smn_counters counters;
    CHECK_INT(smn_sampler_counters(rig->sampler, &counters), 0);
    CHECK_U64(counters.ticks, ticks);
    CHECK_U64(counters.missed, missed);
    CHECK_U64(counters.merged_windows, merged);
}

/* ---- what it offers ----------------------------------------------------- */

static void test_series(void)
{
    static const struct {
        const char *key;
        const char *unit;
        const char *source;
        int kind;
    } expected[] = {
        {CPU, "percentage", "cpu", SMN_RATIO},
        {"system_memory_usage_megabytes", "megabytes", "memory", SMN_GAUGE},
        {MEMORY, "percentage", "memory", SMN_GAUGE},
        {DISK, "percentage", "disk_space", SMN_GAUGE},
        {"disk_usage_megabytes", "megabytes", "disk_space", SMN_GAUGE},
        {"disk_available_megabytes", "megabytes", "disk_space", SMN_GAUGE},
        {RECEIVED, "megabytes", "network", SMN_TOTAL},
        {SENT, "megabytes", "network", SMN_TOTAL},
    };
    const int count = sizeof expected / sizeof *expected;
    sampler_rig rig;
    rig_open(&rig, ALL, SECOND, 1);
    CHECK_INT(smn_sampler_series_count(rig.sampler), count);
    smn_series_info info;
    for (int i = 0; i < count; i++) {
        CHECK_INT(smn_sampler_series(rig.sampler, i, &info), 0);
        CHECK_TEXT(info.key, expected[i].key);
        CHECK_TEXT(info.unit, expected[i].unit);
        CHECK_TEXT(info.source, expected[i].source);
        CHECK_INT(info.kind, expected[i].kind);
        CHECK(info.numerator >= 0 && info.numerator < smn_sampler_columns(rig.sampler));
        CHECK_INT(info.denominator, info.kind == SMN_RATIO ? info.numerator + 1 : -1);
        CHECK_DOUBLE(info.quantum, info.kind == SMN_RATIO ? 10.0 : 0.0);
    }
    CHECK_INT(smn_sampler_series(rig.sampler, -1, &info), -EINVAL);
    CHECK_INT(smn_sampler_series(rig.sampler, count, &info), -EINVAL);
    CHECK_INT(smn_sampler_sources(rig.sampler), 4);
    smn_source_stats stats;
    CHECK_INT(smn_sampler_source_stats(rig.sampler, -1, &stats), -EINVAL);
    CHECK_INT(smn_sampler_source_stats(rig.sampler, 4, &stats), -EINVAL);
    CHECK_INT(smn_sampler_source_stats(rig.sampler, 0, &stats), 0);
    CHECK_TEXT(stats.name, "cpu");
    CHECK_U64(stats.calls, 0);
    CHECK_U64(stats.interval_ns, SECOND);
    rig_close(&rig);

    /* Only what was asked for, in the order in which it was. */
    rig_open(&rig, "network,cpu", SECOND, 1);
    CHECK_INT(smn_sampler_series_count(rig.sampler), 3);
    CHECK_INT(smn_sampler_series(rig.sampler, 2, &info), 0);
    CHECK_TEXT(info.key, CPU);
    CHECK_INT(smn_sampler_sources(rig.sampler), 2);
    rig_close(&rig);
}

static smn_options options_of(uint64_t interval_ns, uint32_t samples, const char *procfs_path,
                              const char *sources, const char *disk_paths)
{
    return (smn_options){
        .interval_ns = interval_ns,
        .samples_per_window = samples,
        .procfs_path = procfs_path,
        .sysfs_path = "/sys",
        .sources = sources,
        .disk_paths = disk_paths,
    };
}

static void test_wrong_options(void)
{
    sampler_rig rig;
    rig_open(&rig, "cpu", SECOND, 1);
    char file[PATH_MAX + 8];
    snprintf(file, sizeof file, "%s/stat", rig.tree.path);
    char long_path[400];
    memset(long_path, 'x', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = '\0';
    const struct {
        const char *what;
        smn_options options;
        int error;
        const char *says[3];
    } cases[] = {
        {"no such folder",
         options_of(SECOND, 1, "/no/such/folder", "cpu", "/"),
         -ENOENT,
         {"procfs_path", "/no/such/folder", "No such file"}},
        {"a file as folder",
         options_of(SECOND, 1, file, "cpu", "/"),
         -ENOTDIR,
         {"procfs_path", "stat"}},
        {"an empty path", options_of(SECOND, 1, "", "cpu", "/"), -ENOENT, {"procfs_path"}},
        {"a very long path",
         options_of(SECOND, 1, long_path, "cpu", "/"),
         -ENAMETOOLONG,
         {"procfs_path", "xxx"}},
        {"unknown source",
         options_of(SECOND, 1, rig.tree.path, "bogus", "/"),
         -EINVAL,
         {"sources", "bogus"}},
        {"unknown source behind a known one",
         options_of(SECOND, 1, rig.tree.path, "cpu,bogus,memory", "/"),
         -EINVAL,
         {"sources", "bogus"}},
        {"the start of a name",
         options_of(SECOND, 1, rig.tree.path, "cp", "/"),
         -EINVAL,
         {"sources", "cp"}},
        {"more than a name",
         options_of(SECOND, 1, rig.tree.path, "cpus", "/"),
         -EINVAL,
         {"sources", "cpus"}},
        {"a blank in a name",
         options_of(SECOND, 1, rig.tree.path, "cpu, memory", "/"),
         -EINVAL,
         {"sources", " memory"}},
        {"nothing between commas",
         options_of(SECOND, 1, rig.tree.path, ",cpu", "/"),
         -EINVAL,
         {"sources"}},
        {"no source", options_of(SECOND, 1, rig.tree.path, "", "/"), -ENODATA, {"sources"}},
        {"no path, and so no source",
         options_of(SECOND, 1, rig.tree.path, "disk_space", ""),
         -ENODATA,
         {"sources", "disk_space"}},
        {"interval 0", options_of(0, 1, rig.tree.path, "cpu", "/"), -EINVAL, {"interval_ns", "0"}},
        {"0 samples",
         options_of(SECOND, 0, rig.tree.path, "cpu", "/"),
         -EINVAL,
         {"samples_per_window", "0"}},
    };
    int open_files = self_open_files();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        char error[SMN_ERROR_TEXT_BYTES];
        memset(error, '?', sizeof error);
        smn_sampler *sampler = (smn_sampler *)file;
        CHECK_INT(smn_sampler_create(&cases[i].options, &sampler, error), cases[i].error);
        CHECK(sampler == (smn_sampler *)file); /* left alone */
        if (CHECK(memchr(error, '\0', sizeof error) != NULL)) {
            for (size_t s = 0; s < 3 && cases[i].says[s] != NULL; s++)
                CHECK_CONTAINS(error, cases[i].says[s]);
        }
    }
    check_case(NULL);
    CHECK_INT(self_open_files(), open_files);

    /* A machine without /sys is good enough. */
    const smn_options without_sys = {
        .interval_ns = SECOND,
        .samples_per_window = 1,
        .procfs_path = rig.tree.path,
        .sysfs_path = "/no/such/folder",
        .sources = "cpu",
        .disk_paths = "/",
    };
    smn_sampler *sampler = NULL;
    char error[SMN_ERROR_TEXT_BYTES] = "";
    CHECK_INT(smn_sampler_create(&without_sys, &sampler, error), 0);
    CHECK_TEXT(error, "");
    smn_sampler_destroy(sampler);
    CHECK_INT(self_open_files(), open_files);
    rig_close(&rig);
}

/* ---- values ------------------------------------------------------------- */

/* The first window counts from the start of sampling, not from the boot of the machine. */
static void test_first_value(void)
{
    sampler_rig rig;
    rig_open(&rig, ALL, SECOND, 1);
    rig_set_cpu(&rig, 5000, 5000);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    rig_set_cpu(&rig, 5030, 5070);
    rig_set_memory(&rig, 750, 1000);
    rig_set_network(&rig, 1500000, 2000001);
    rig_tick(&rig, 1);
    CHECK_INT(rig_take(&rig), 0);
    check_window(&rig, 1, 0, 1.0);
    CHECK_DOUBLE(rig_statistics(&rig, CPU)->mean, 30.0);
    CHECK_DOUBLE(rig_statistics(&rig, MEMORY)->mean, 75.0); /* of the tick, not of the start */
    CHECK_DOUBLE(rig_statistics(&rig, "system_memory_usage_megabytes")->mean, 0.768);
    CHECK_NEAR(rig_statistics(&rig, RECEIVED)->last, 0.5, 1e-12);
    CHECK_NEAR(rig_statistics(&rig, SENT)->last, 1e-6, 1e-12);
    CHECK(rig_statistics(&rig, DISK)->mean > 0.0 && rig_statistics(&rig, DISK)->mean <= 100.0);
    rig_close(&rig);
}

/*
 * 30 ms of work and traffic in each second, at 1000 ticks a second. The kernel
 * counts CPU time in steps of 10 ms, so of this CPU a stretch of 100 ms is the
 * least that tells something; bytes it counts as they come.
 */
static void test_bursts(void)
{
    static const struct {
        int begin_ms; /* of the burst, in each window */
        double cpu_max;
    } cases[] = {
        {345, 30},
        {385, 20}, /* in two stretches: the busier one has two of the three steps */
    };
    static const char rate[] = "network_receive_megabytes_per_second";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("at %d ms", cases[i].begin_ms);
        static sampler_rig rig;
        rig_prepare(&rig);
        tree_write_text(&rig.tree, "class/net/eth0/device/uevent", "");
        rig_create(&rig, "cpu,network_rate", MILLISECOND, 1000);
        CHECK_INT(smn_sampler_start(rig.sampler), 0);
        uint64_t busy = 1000;
        uint64_t idle = 9000;
        uint64_t received = 1000000;
        for (int ms = 1; ms <= 2000; ms++) {
            int within = ms % 1000 - cases[i].begin_ms;
            bool is_burst = within > 0 && within <= 30;
            received += is_burst ? 5000 : 0;
            if (is_burst)
                rig_set_network(&rig, received, 2000000);
            if (ms % 10 == 0) {
                *(is_burst ? &busy : &idle) += 1;
                rig_set_cpu(&rig, busy, idle);
            }
            rig_tick(&rig, 1);
        }
        for (int w = 0; w < 2; w++) {
            CHECK_INT(rig_take(&rig), 0);
            const smn_statistics *cpu = rig_statistics(&rig, CPU);
            CHECK_DOUBLE(cpu->mean, 3.0);
            CHECK_DOUBLE(cpu->max, cases[i].cpu_max);
            CHECK_DOUBLE(cpu->min, 0.0);
            const smn_statistics *network = rig_statistics(&rig, rate);
            CHECK_NEAR(network->mean, 0.15, 1e-9);
            CHECK_NEAR(network->max, 5.0, 1e-6);
            CHECK_NEAR(network->p99, 5.0, 1e-6);
            CHECK_DOUBLE(network->p95, 0.0);
        }
        rig_close(&rig);
    }
    check_case(NULL);
}

static void test_statistics_of_windows(void)
{
    /* Ticks of 10 and more CPU time each: every tick is a span of its own. */
    static const struct {
        uint64_t busy;   /* of 20 */
        uint64_t memory; /* of 1000 */
    } ticks[3][5] = {
        {{2, 100}, {4, 100}, {6, 200}, {8, 100}, {20, 500}},
        {{0, 0}, {0, 0}, {0, 1000}, {0, 0}, {0, 0}},
        {{20, 10}, {0, 20}, {20, 30}, {0, 40}, {10, 50}},
    };
    static const smn_statistics cpu[] = {
        {40, 10, 100, 100, 30, 88, 97.6},
        {0, 0, 0, 0, 0, 0, 0},
        {50, 0, 100, 50, 50, 100, 100},
    };
    static const smn_statistics memory[] = {
        {20, 10, 50, 50, 10, 44, 48.8},
        {20, 0, 100, 0, 0, 80, 96},
        {3, 1, 5, 5, 3, 4.8, 4.96},
    };
    sampler_rig rig;
    rig_open(&rig, "memory,network,cpu", 200 * MILLISECOND, 5);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    uint64_t busy = 1000;
    uint64_t idle = 9000;
    uint64_t moved = 1000000;
    double end = fake_clock_wall_seconds(&rig.clock);
    for (int w = 0; w < 3; w++) {
        check_case("window %d", w);
        for (int t = 0; t < 5; t++) {
            CHECK_INT(rig_take(&rig), -ETIMEDOUT);
            busy += ticks[w][t].busy;
            idle += 20 - ticks[w][t].busy;
            rig_set_cpu(&rig, busy, idle);
            rig_set_memory(&rig, ticks[w][t].memory, 1000);
            moved += 1000000;
            rig_set_network(&rig, moved, 2000000);
            rig_tick(&rig, 1);
        }
        CHECK_INT(rig_take(&rig), 0);
        check_window(&rig, 5, 0, 1.0);
        CHECK_NEAR(rig.window.start_seconds, end, 1e-6); /* windows follow without a gap */
        end = rig.window.end_seconds;
        CHECK_NEAR(end, fake_clock_wall_seconds(&rig.clock), 1e-6);
        const smn_statistics *expected[] = {&cpu[w], &memory[w]};
        const smn_statistics *got[] = {rig_statistics(&rig, CPU), rig_statistics(&rig, MEMORY)};
        for (int s = 0; s < 2; s++) {
            CHECK_NEAR(got[s]->mean, expected[s]->mean, 1e-9);
            CHECK_NEAR(got[s]->min, expected[s]->min, 1e-9);
            CHECK_NEAR(got[s]->max, expected[s]->max, 1e-9);
            CHECK_NEAR(got[s]->last, expected[s]->last, 1e-9);
            CHECK_NEAR(got[s]->p50, expected[s]->p50, 1e-9);
            CHECK_NEAR(got[s]->p95, expected[s]->p95, 1e-9);
            CHECK_NEAR(got[s]->p99, expected[s]->p99, 1e-9);
        }
        CHECK_NEAR(rig_statistics(&rig, RECEIVED)->last, 5.0 * (w + 1), 1e-9);
        CHECK_NEAR(rig_statistics(&rig, RECEIVED)->max, 5.0 * (w + 1), 1e-9);
        CHECK_NEAR(rig_statistics(&rig, RECEIVED)->min, 5.0 * w + 1, 1e-9);
        CHECK_DOUBLE(rig_statistics(&rig, SENT)->max, 0.0);
    }
    check_case(NULL);
    check_counters(&rig, 15, 0, 0);
    rig_close(&rig);
}

/* One source that fails hides only itself, and is counted; what it missed is made up for. */
static void test_failing_source(void)
{
    sampler_rig rig;
    rig_open(&rig, ALL, SECOND, 2);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    tree_write_text(&rig.tree, "stat", "cpu  12");
    tree_write_text(&rig.tree, "net/dev", "");
    rig_tick(&rig, 2);
    CHECK_INT(rig_take(&rig), 0);
    CHECK_ABSENT(rig_statistics(&rig, CPU)->mean);
    CHECK_ABSENT(rig_statistics(&rig, CPU)->max);
    CHECK_ABSENT(rig_statistics(&rig, RECEIVED)->last);
    CHECK_DOUBLE(rig_statistics(&rig, MEMORY)->mean, 25.0);

    rig_set_cpu(&rig, 1075, 9025);
    tree_write_text(&rig.tree, "meminfo", "MemTotal:");
    rig_tick(&rig, 1);
    rig_set_network(&rig, 4000000, 2000000);
    rig_set_memory(&rig, 10, 1000);
    rig_tick(&rig, 1);
    CHECK_INT(rig_take(&rig), 0);
    CHECK_DOUBLE(rig_statistics(&rig, CPU)->mean, 75.0);   /* also of the time that was not seen */
    CHECK_DOUBLE(rig_statistics(&rig, MEMORY)->mean, 1.0); /* of the one reading there was */
    CHECK_NEAR(rig_statistics(&rig, RECEIVED)->last, 3.0, 1e-9);

    CHECK_U64(rig_source(&rig, "cpu").calls, 5);
    CHECK_U64(rig_source(&rig, "cpu").errors, 2);
    CHECK_U64(rig_source(&rig, "memory").errors, 1);
    CHECK_U64(rig_source(&rig, "network").errors, 3);
    CHECK_U64(rig_source(&rig, "disk_space").errors, 0);
    check_counters(&rig, 4, 0, 0);
    rig_close(&rig);
}

/* A file that is not there at the start may come. */
static void test_late_file(void)
{
    sampler_rig rig;
    rig_open(&rig, "cpu,memory", SECOND, 2);
    tree_remove(&rig.tree, "stat");
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    rig_tick(&rig, 2);
    CHECK_INT(rig_take(&rig), 0);
    CHECK_ABSENT(rig_statistics(&rig, CPU)->mean);
    CHECK_DOUBLE(rig_statistics(&rig, MEMORY)->mean, 25.0);
    rig_set_cpu(&rig, 700, 100);
    rig_tick(&rig, 1);
    rig_set_cpu(&rig, 705, 115);
    rig_tick(&rig, 1);
    CHECK_INT(rig_take(&rig), 0);
    CHECK_DOUBLE(rig_statistics(&rig, CPU)->mean, 25.0);
    CHECK_U64(rig_source(&rig, "cpu").errors, 3);
    rig_close(&rig);
}

/* ---- time --------------------------------------------------------------- */

typedef struct {
    uint64_t samples;
    uint64_t missed;
    double length; /* in intervals */
} expected_window;

/* Windows of five ticks; the clock jumps by tenths of an interval. */
static void test_missed_ticks(void)
{
    static const struct {
        const char *what;
        unsigned jumps[16]; /* ends with 0 */
        expected_window windows[4];
    } cases[] = {
        {"in time", {10, 10, 10, 10, 10, 10, 10, 10, 10, 10}, {{5, 0, 5}, {5, 0, 5}}},
        {"two missed inside", {10, 10, 30, 10, 10, 10, 10, 10}, {{3, 2, 5}, {5, 0, 5}}},
        {"missed at the beginning", {30, 10, 10, 10, 10, 10, 10, 10}, {{3, 2, 5}, {5, 0, 5}}},
        {"only the last is taken", {50, 50}, {{1, 4, 5}, {1, 4, 5}}},
        {"over the end", {10, 10, 50, 10, 10, 10}, {{3, 4, 7}, {3, 0, 3}}},
        {"a whole window missed", {10, 10, 120, 10, 10, 10}, {{3, 11, 14}, {1, 0, 1}}},
        {"to the end of a later window", {100, 10, 10, 10, 10, 10}, {{1, 9, 10}, {5, 0, 5}}},
        {"a day", {8640000, 10, 10, 10, 10, 10}, {{1, 863999, 864000}, {5, 0, 5}}},
        {"late, but in the same tick", {14, 6, 19, 1, 10}, {{5, 0, 5}}},
        {"late by nearly one, each time", {19, 10, 10, 10, 10, 10}, {{5, 0, 5.9}}},
        {"late by just one", {20, 10, 10, 10}, {{4, 1, 5}}},
        {"back on the grid after lateness",
         {10, 10, 10, 10, 17, 3, 10, 10, 10, 10},
         {{5, 0, 5.7}, {5, 0, 4.3}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        sampler_rig rig;
        rig_open(&rig, "cpu", SECOND, 5);
        CHECK_INT(smn_sampler_start(rig.sampler), 0);
        uint64_t busy = 1000;
        uint64_t idle = 9000;
        for (const unsigned *jump = cases[i].jumps; *jump != 0; jump++) {
            busy += *jump; /* 25 % all the time, seen or not */
            idle += 3 * *jump;
            rig_set_cpu(&rig, busy, idle);
            fake_clock_advance(&rig.clock, *jump * SECOND / 10);
        }
        uint64_t ticks = 0;
        uint64_t missed = 0;
        for (const expected_window *window = cases[i].windows; window->samples > 0; window++) {
            CHECK_INT(rig_take(&rig), 0);
            check_window(&rig, window->samples, window->missed, window->length);
            const smn_statistics *cpu = rig_statistics(&rig, CPU);
            CHECK_DOUBLE(cpu->mean, 25.0);
            CHECK_DOUBLE(cpu->min, 25.0);
            CHECK_DOUBLE(cpu->max, 25.0);
            ticks += window->samples;
            missed += window->missed;
        }
        CHECK_INT(rig_take(&rig), -ETIMEDOUT);
        smn_counters counters;
        CHECK_INT(smn_sampler_counters(rig.sampler, &counters), 0);
        CHECK(counters.ticks >= ticks);
        CHECK_U64(counters.missed, missed);
        rig_close(&rig);
    }
    check_case(NULL);
}

/* Whatever people do to the wall clock, windows keep their length and values. */
static void test_wall_clock_is_stepped(void)
{
    static const int64_t steps[] = {3600, -3600, 1, -1, 86400 * 365, -86400 * 365};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        check_case("stepped by %d s", (int)steps[i]);
        sampler_rig rig;
        rig_open(&rig, "cpu,network", SECOND, 4);
        CHECK_INT(smn_sampler_start(rig.sampler), 0);
        for (int w = 0; w < 3; w++) {
            for (int t = 1; t <= 4; t++) {
                uint64_t tick = (uint64_t)(4 * w + t);
                rig_set_cpu(&rig, 1000 + 10 * tick, 9000 + 30 * tick);
                rig_set_network(&rig, 1000000 + 1000000 * tick, 2000000);
                if (w == 1 && t == 3)
                    fake_clock_step_wall(&rig.clock, steps[i] * (int64_t)SECOND);
                rig_tick(&rig, 1);
            }
            CHECK_INT(rig_take(&rig), 0);
            check_window(&rig, 4, 0, 4.0);
            CHECK(rig.window.start_seconds <= rig.window.end_seconds);
            CHECK_NEAR(rig.window.end_seconds, fake_clock_wall_seconds(&rig.clock), 1e-6);
            CHECK_DOUBLE(rig_statistics(&rig, CPU)->mean, 25.0);
            CHECK_DOUBLE(rig_statistics(&rig, CPU)->max, 25.0);
            CHECK_NEAR(rig_statistics(&rig, RECEIVED)->last, 4.0 * (w + 1), 1e-9);
        }
        rig_close(&rig);
    }
    check_case(NULL);
}

static void test_intervals(void)
{
    static const struct {
        uint64_t interval_ns;
        uint32_t samples_per_window;
    } cases[] = {
        {1000000, 1000}, {1000000, 1},   {3600 * 1000000000ULL, 1}, {3600 * 1000000000ULL, 24},
        {1, 3},          {333333333, 3}, {10000000, 100},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%llu ns", (unsigned long long)cases[i].interval_ns);
        sampler_rig rig;
        uint64_t samples = cases[i].samples_per_window;
        rig_open(&rig, "cpu,memory", cases[i].interval_ns, cases[i].samples_per_window);
        CHECK_INT(smn_sampler_start(rig.sampler), 0);
        for (uint64_t w = 1; w <= 2; w++) {
            for (uint64_t t = 0; t + 1 < samples; t++)
                rig_tick(&rig, 1);
            CHECK_INT(rig_take(&rig), -ETIMEDOUT);
            rig_set_cpu(&rig, 1000 + 40 * w, 9000 + 60 * w);
            rig_tick(&rig, 1);
            CHECK_INT(rig_take(&rig), 0);
            check_window(&rig, samples, 0, (double)(samples * cases[i].interval_ns) / 1e9);
            CHECK_DOUBLE(rig_statistics(&rig, CPU)->mean, 40.0);
            CHECK_DOUBLE(rig_statistics(&rig, MEMORY)->mean, 25.0);
        }
        check_counters(&rig, 2 * samples, 0, 0);
        rig_close(&rig);
    }
    check_case(NULL);
}

/* Space is read once a second, and at the end of each window, so that none is without. */
static void test_slow_source(void)
{
    static const struct {
        uint64_t interval_ns;
        uint32_t samples_per_window;
        int ticks;
        uint64_t calls; /* the one at the start included */
        uint64_t source_interval_ns;
    } cases[] = {
        /* 10, 20, 25, 30, 40 and 50 */
        {100000000, 25, 50, 1 + 6, 1000000000},
        /* every window ends before the second does */
        {100000000, 3, 30, 1 + 10 + 2, 1000000000},
        {100000000, 10, 100, 1 + 10, 1000000000},
        {1000000, 1000, 2000, 1 + 2, 1000000000},
        {1000000, 500, 1000, 1 + 2, 1000000000},
        /* 0.3 s do not divide a second: every fourth tick */
        {300000000, 100, 20, 1 + 5, 1200000000},
        /* as slow as the source itself, or slower: every tick */
        {1000000000, 7, 20, 1 + 20, 1000000000},
        {10000000000, 1, 5, 1 + 5, 10000000000},
        {3600000000000, 1, 5, 1 + 5, 3600000000000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("case %zu", i);
        sampler_rig rig;
        rig_open(&rig, ALL, cases[i].interval_ns, cases[i].samples_per_window);
        CHECK_INT(smn_sampler_start(rig.sampler), 0);
        for (int t = 0; t < cases[i].ticks; t++) {
            rig_tick(&rig, 1);
            if (rig_take(&rig) == 0)
                CHECK(!isnan(rig_statistics(&rig, DISK)->mean));
        }
        smn_source_stats disk = rig_source(&rig, "disk_space");
        CHECK_U64(disk.calls, cases[i].calls);
        CHECK_U64(disk.interval_ns, cases[i].source_interval_ns);
        CHECK_U64(disk.errors, 0);
        CHECK_U64(rig_source(&rig, "cpu").calls, 1 + (uint64_t)cases[i].ticks);
        CHECK_U64(rig_source(&rig, "cpu").interval_ns, cases[i].interval_ns);
        rig_close(&rig);
    }
    check_case(NULL);

    /* Its turn was missed: then at the next tick there is. */
    sampler_rig rig;
    rig_open(&rig, ALL, 100 * MILLISECOND, 1000);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    rig_tick(&rig, 9);
    CHECK_U64(rig_source(&rig, "disk_space").calls, 1);
    fake_clock_advance(&rig.clock, 300 * MILLISECOND); /* tick 12 */
    CHECK_U64(rig_source(&rig, "disk_space").calls, 2);
    rig_tick(&rig, 7); /* tick 19 */
    CHECK_U64(rig_source(&rig, "disk_space").calls, 2);
    rig_tick(&rig, 1);
    CHECK_U64(rig_source(&rig, "disk_space").calls, 3);
    rig_close(&rig);
}

/* ---- the end ------------------------------------------------------------ */

static void test_last_window(void)
{
    static const struct {
        const char *what;
        int ticks;         /* of five a window */
        uint64_t ns_later; /* then stop */
        int whole_windows; /* before the last one */
        uint64_t samples;  /* of the last one */
        double seconds;
        double cpu;
    } cases[] = {
        {"right after the start", 0, 0, 0, 1, 0.0, CHECK_NAN},
        {"before the first tick", 0, 500000000, 0, 1, 0.5, 40.0},
        {"on a tick", 2, 0, 0, 3, 2.0, 40.0},
        {"between two ticks", 2, 300000000, 0, 3, 2.3, 40.0},
        {"right after a window", 5, 0, 1, 1, 0.0, CHECK_NAN},
        {"in the third window", 12, 700000000, 2, 3, 2.7, 40.0},
        {"just before the end of a window", 4, 999999999, 0, 5, 4.999999999, 40.0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        sampler_rig rig;
        rig_open(&rig, ALL, SECOND, 5);
        CHECK_INT(smn_sampler_start(rig.sampler), 0);
        uint64_t passed = 0;
        for (int t = 0; t < cases[i].ticks; t++) {
            passed += 100;
            rig_set_cpu(&rig, 1000 + 4 * passed / 10, 9000 + 6 * passed / 10);
            rig_tick(&rig, 1);
        }
        passed += cases[i].ns_later / 10000000;
        rig_set_cpu(&rig, 1000 + 4 * passed / 10, 9000 + 6 * passed / 10);
        fake_clock_advance(&rig.clock, cases[i].ns_later);
        CHECK_INT(smn_sampler_stop(rig.sampler, -1), 0);
        for (int w = 0; w < cases[i].whole_windows; w++) {
            CHECK_INT(rig_take(&rig), 0);
            check_window(&rig, 5, 0, 5.0);
            CHECK_DOUBLE(rig_statistics(&rig, CPU)->mean, 40.0);
        }
        CHECK_INT(rig_take(&rig), 0);
        check_window(&rig, cases[i].samples, 0, cases[i].seconds);
        CHECK_NEAR(rig_statistics(&rig, CPU)->mean, cases[i].cpu, 0.5);
        CHECK_DOUBLE(rig_statistics(&rig, MEMORY)->mean, 25.0);
        CHECK(!isnan(rig_statistics(&rig, DISK)->mean));
        CHECK_DOUBLE(rig_statistics(&rig, RECEIVED)->mean, 0.0);
        CHECK_INT(rig_take(&rig), -ESHUTDOWN);
        CHECK_INT(rig_take(&rig), -ESHUTDOWN);
        check_counters(&rig, (uint64_t)cases[i].ticks + 1, 0, 0);
        rig_close(&rig);
    }
    check_case(NULL);
}

/* A rest too short for a percentage has none, but its readings count. */
static void test_short_last_window(void)
{
    sampler_rig rig;
    rig_open(&rig, "cpu,memory", 10 * MILLISECOND, 100);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    rig_set_cpu(&rig, 1001, 9001);
    rig_tick(&rig, 2);
    CHECK_INT(smn_sampler_stop(rig.sampler, -1), 0);
    CHECK_INT(rig_take(&rig), 0);
    CHECK_ABSENT(rig_statistics(&rig, CPU)->mean);
    CHECK_ABSENT(rig_statistics(&rig, CPU)->p50);
    CHECK_DOUBLE(rig_statistics(&rig, MEMORY)->mean, 25.0);
    rig_close(&rig);

    /* Late and stopped: the tick that was missed is one that is missed. */
    rig_open(&rig, "cpu", SECOND, 100);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    rig_tick(&rig, 2);
    fake_clock_advance(&rig.clock, 2 * SECOND); /* tick 4 */
    fake_clock_advance(&rig.clock, SECOND / 2);
    CHECK_INT(smn_sampler_stop(rig.sampler, -1), 0);
    CHECK_INT(rig_take(&rig), 0);
    check_window(&rig, 4, 1, 4.5);
    check_counters(&rig, 4, 1, 0);
    rig_close(&rig);
}

static void test_order_of_calls(void)
{
    sampler_rig rig;
    smn_sampler_destroy(NULL);

    rig_open(&rig, ALL, SECOND, 1); /* never started */
    CHECK_INT(rig_take(&rig), -ESHUTDOWN);
    CHECK_INT(smn_sampler_next_window(rig.sampler, -1, 0, &rig.window, rig.statistics), -ESHUTDOWN);
    check_counters(&rig, 0, 0, 0);
    rig_close(&rig);

    rig_open(&rig, ALL, SECOND, 1);
    CHECK_INT(smn_sampler_stop(rig.sampler, 0), 0); /* there is nothing to stop yet */
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    CHECK_INT(smn_sampler_start(rig.sampler), -EALREADY);
    CHECK_INT(rig_take(&rig), -ETIMEDOUT);
    CHECK_INT(smn_sampler_next_window(rig.sampler, (int64_t)MILLISECOND, 0, &rig.window,
                                      rig.statistics),
              -ETIMEDOUT);
    rig_tick(&rig, 1);
    CHECK_INT(smn_sampler_stop(rig.sampler, -1), 0);
    CHECK_INT(smn_sampler_stop(rig.sampler, -1), 0);
    CHECK_INT(smn_sampler_stop(rig.sampler, 0), 0);
    CHECK_INT(smn_sampler_start(rig.sampler), -EALREADY);
    CHECK_INT(rig_take(&rig), 0); /* what was sampled can be had after the stop, too */
    CHECK_INT(rig_take(&rig), 0);
    CHECK_INT(smn_sampler_next_window(rig.sampler, -1, 0, &rig.window, rig.statistics), -ESHUTDOWN);
    check_counters(&rig, 2, 0, 0);
    rig_close(&rig);

    rig_open(&rig, ALL, SECOND, 1); /* destroyed at work, with windows that nobody took */
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    rig_tick(&rig, 100);
    rig_close(&rig);
}

/* A thread that is held up by the kernel: stop gives up in time, and can be called again. */
static void test_stop_in_vain(void)
{
    sampler_rig rig;
    rig_open(&rig, ALL, SECOND, 1);
    atomic_store(&rig.clock.deaf, true);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    fake_clock_settle(&rig.clock);
    CHECK_INT(smn_sampler_stop(rig.sampler, 0), -ETIMEDOUT);
    CHECK_INT(smn_sampler_stop(rig.sampler, (int64_t)MILLISECOND), -ETIMEDOUT);
    CHECK_INT(rig_take(&rig), -ETIMEDOUT); /* not at its end yet */
    atomic_store(&rig.clock.deaf, false);
    CHECK_INT(smn_sampler_stop(rig.sampler, -1), 0);
    CHECK_INT(rig_take(&rig), 0);
    CHECK_INT(rig_take(&rig), -ESHUTDOWN);
    rig_close(&rig);
}

/* ---- readers ------------------------------------------------------------ */

/* Nobody reads: the oldest windows merge, and no sample and no byte is lost. */
static void test_windows_merge(void)
{
    enum {
        KEPT = 64,
        WINDOWS = 100
    };
    sampler_rig rig;
    rig_open(&rig, ALL, SECOND, 2);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    for (uint64_t tick = 1; tick <= 2 * WINDOWS; tick++) {
        rig_set_cpu(&rig, 1000 + (tick <= 74 ? 10 : 5) * tick, 9000 + 10 * tick);
        rig_set_memory(&rig, tick, 1000);
        rig_tick(&rig, 1);
    }
    check_counters(&rig, 2 * WINDOWS, 0, WINDOWS - KEPT);
    const uint64_t folded = WINDOWS - KEPT + 1;
    for (uint64_t w = 0; w < KEPT; w++) {
        check_case("window %d", (int)w);
        CHECK_INT(rig_take(&rig), 0);
        uint64_t first = w == 0 ? 1 : 2 * (folded + w - 1) + 1;
        uint64_t last = 2 * (folded + w);
        CHECK_U64(rig.window.samples, last - first + 1);
        CHECK_U64(rig.window.merged, w == 0 ? folded - 1 : 0);
        CHECK_NEAR(rig.window.end_seconds - rig.window.start_seconds, (double)(last - first + 1),
                   1e-6);
        const smn_statistics *memory = rig_statistics(&rig, MEMORY);
        CHECK_NEAR(memory->mean, (double)(first + last) / 20.0, 1e-9);
        CHECK_NEAR(memory->min, (double)first / 10.0, 1e-9);
        CHECK_NEAR(memory->max, (double)last / 10.0, 1e-9);
        CHECK_NEAR(memory->last, (double)last / 10.0, 1e-9);
        CHECK_NEAR(memory->p50, w == 0 ? CHECK_NAN : (double)(first + last) / 20.0, 1e-9);
        if (w == 0)
            CHECK_DOUBLE(rig_statistics(&rig, CPU)->mean, 50.0);
    }
    check_case(NULL);
    CHECK_INT(rig_take(&rig), -ETIMEDOUT);
    rig_close(&rig);
}

/* Percentiles come from the rows, and only when asked for; a reader who is late goes without. */
static void test_late_reader(void)
{
    sampler_rig rig;
    rig_open(&rig, "memory", SECOND, 100); /* the last 400 rows are kept */
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    for (uint64_t tick = 1; tick <= 600; tick++) {
        rig_set_memory(&rig, tick, 1000);
        rig_tick(&rig, 1);
    }
    for (int w = 0; w < 6; w++) {
        check_case("window %d", w);
        bool asked = w != 4;
        CHECK_INT(smn_sampler_next_window(rig.sampler, 0, asked, &rig.window, rig.statistics), 0);
        const smn_statistics *memory = rig_statistics(&rig, MEMORY);
        bool is_there = asked && w >= 3; /* of the third, one row has just gone */
        CHECK_NEAR(memory->mean, 10.0 * w + 5.05, 1e-9);
        CHECK_NEAR(memory->p50, is_there ? 10.0 * w + 5.05 : CHECK_NAN, 1e-9);
        CHECK_NEAR(memory->p95, is_there ? 10.0 * w + 9.505 : CHECK_NAN, 1e-9);
        CHECK_NEAR(memory->p99, is_there ? 10.0 * w + 9.901 : CHECK_NAN, 1e-9);
    }
    check_case(NULL);
    rig_close(&rig);

    /* A window of more rows than any machine keeps: everything but percentiles. */
    rig_open(&rig, "cpu,memory", SECOND, UINT32_MAX);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    rig_tick(&rig, 10);
    fake_clock_advance(&rig.clock, UINT32_MAX * SECOND);
    CHECK_INT(rig_take(&rig), 0);
    check_window(&rig, 11, (uint64_t)UINT32_MAX - 1, UINT32_MAX + 10.0);
    CHECK_DOUBLE(rig_statistics(&rig, MEMORY)->mean, 25.0);
    rig_close(&rig);
}

typedef struct {
    sampler_rig *rig;
    smn_window window;
    smn_statistics statistics[RIG_MOST_SERIES];
    _Atomic int result;
    _Atomic uint32_t windows;
} waiting_reader;

enum {
    NO_RESULT = 1
};

static void *wait_for_windows(void *opaque)
{
    waiting_reader *reader = opaque;
    int error;
    while ((error = smn_sampler_next_window(reader->rig->sampler, -1, 1, &reader->window,
                                            reader->statistics)) == 0)
        atomic_fetch_add(&reader->windows, 1);
    atomic_store(&reader->result, error);
    return NULL;
}

/* Who waits gets the window when it closes, and an answer when all is over. */
static void test_waiting_reader(void)
{
    enum {
        READERS = 2
    };
    sampler_rig rig;
    rig_open(&rig, ALL, SECOND, 2);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    waiting_reader readers[READERS];
    pthread_t threads[READERS];
    for (int i = 0; i < READERS; i++) {
        readers[i] = (waiting_reader){.rig = &rig, .result = NO_RESULT};
        REQUIRE(pthread_create(&threads[i], NULL, wait_for_windows, &readers[i]) == 0);
    }
    for (uint32_t window = 1; window <= 50; window++) {
        rig_tick(&rig, 2);
        while (atomic_load(&readers[0].windows) + atomic_load(&readers[1].windows) < window)
            self_breathe();
    }
    CHECK_INT(atomic_load(&readers[0].result), NO_RESULT);
    CHECK_INT(smn_sampler_stop(rig.sampler, -1), 0);
    for (int i = 0; i < READERS; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
        CHECK_INT(atomic_load(&readers[i].result), -ESHUTDOWN);
    }
    CHECK_U64(atomic_load(&readers[0].windows) + atomic_load(&readers[1].windows), 51);
    rig_close(&rig);
}

static void ignore(int number)
{
    (void)number;
}

/* A signal ends the wait, so that Ctrl-C does not have to wait for a window. */
static void test_signal_ends_wait(void)
{
    sampler_rig rig;
    rig_open(&rig, ALL, SECOND, 1);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    struct sigaction action = {.sa_handler = ignore};
    struct sigaction before;
    REQUIRE(sigaction(SIGUSR1, &action, &before) == 0);
    waiting_reader reader = {.rig = &rig, .result = NO_RESULT};
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, wait_for_windows, &reader) == 0);
    /* Again and again: the first ones may come before it waits. */
    while (atomic_load(&reader.result) == NO_RESULT) {
        (void)pthread_kill(thread, SIGUSR1); /* it may just have ended */
        self_breathe();
    }
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK_INT(atomic_load(&reader.result), -EINTR);
    REQUIRE(sigaction(SIGUSR1, &before, NULL) == 0);
    rig_tick(&rig, 1);
    CHECK_INT(rig_take(&rig), 0); /* and nothing is broken by it */
    rig_close(&rig);
}

/* ---- several ------------------------------------------------------------ */

static void test_two_samplers(void)
{
    sampler_rig one;
    sampler_rig two;
    rig_open(&one, ALL, SECOND, 2);
    rig_open(&two, "network,cpu", MILLISECOND, 3);
    CHECK_INT(smn_sampler_start(one.sampler), 0);
    CHECK_INT(smn_sampler_start(two.sampler), 0);
    for (uint64_t round = 1; round <= 20; round++) {
        rig_set_cpu(&one, 1000 + 25 * round, 9000 + 75 * round);
        rig_set_cpu(&two, 1000 + 99 * round, 9000 + round);
        rig_set_network(&two, 1000000, 2000000 + 1000000 * round);
        rig_tick(&one, 2);
        rig_tick(&two, 3);
        CHECK_INT(rig_take(&two), 0);
        CHECK_INT(rig_take(&one), 0);
        check_window(&one, 2, 0, 2.0);
        check_window(&two, 3, 0, 0.003);
        CHECK_DOUBLE(rig_statistics(&one, CPU)->mean, 25.0);
        CHECK_DOUBLE(rig_statistics(&two, CPU)->mean, 99.0);
        CHECK_NEAR(rig_statistics(&one, SENT)->last, 0.0, 1e-9);
        CHECK_NEAR(rig_statistics(&two, SENT)->last, (double)round, 1e-9);
    }
    rig_close(&one);
    rig_tick(&two, 3);
    CHECK_INT(rig_take(&two), 0);
    rig_close(&two);
}

/* A procfs that does not know us is the host's: its network is that of its first process. */
static void test_whose_procfs(void)
{
    static const struct {
        const char *what;
        bool has_self;
        int pid_off; /* what its "self" is beside the truth */
        double received;
    } cases[] = {
        {"ours", true, 0, 1.0}, {"another's", true, 1, 100.0}, {"without self", false, 0, 100.0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        sampler_rig files; /* only its tree */
        rig_open(&files, "cpu", SECOND, 1);
        tree_write_text(&files.tree, "net/dev", "e: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
        tree_write_text(&files.tree, "1/net/dev", "e: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
        char self[32];
        snprintf(self, sizeof self, "%d", (int)getpid() + cases[i].pid_off);
        if (cases[i].has_self)
            REQUIRE(symlinkat(self, files.tree.root, "self") == 0);
        fake_clock clock;
        fake_clock_init(&clock);
        const smn_options options = {
            .interval_ns = SECOND,
            .samples_per_window = 1,
            .procfs_path = files.tree.path,
            .sysfs_path = "/sys",
            .sources = "network",
            .disk_paths = "/",
        };
        char error[SMN_ERROR_TEXT_BYTES];
        smn_sampler *sampler = NULL;
        REQUIRE(smn_sampler_create_with_clock(&options, &clock.clock, &sampler, error) == 0);
        CHECK_INT(smn_sampler_start(sampler), 0);
        tree_write_text(&files.tree, "net/dev", "e: 1000000 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
        tree_write_text(&files.tree, "1/net/dev", "e: 100000000 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
        fake_clock_advance(&clock, SECOND);
        smn_window window;
        smn_statistics statistics[2];
        CHECK_INT(smn_sampler_next_window(sampler, 0, 0, &window, statistics), 0);
        CHECK_NEAR(statistics[0].last, cases[i].received, 1e-9);
        smn_sampler_destroy(sampler);
        rig_close(&files);
    }
    check_case(NULL);
}

int main(void)
{
    test_series();
    test_wrong_options();
    test_first_value();
    test_bursts();
    test_statistics_of_windows();
    test_failing_source();
    test_late_file();
    test_missed_ticks();
    test_wall_clock_is_stepped();
    test_intervals();
    test_slow_source();
    test_last_window();
    test_short_last_window();
    test_order_of_calls();
    test_stop_in_vain();
    test_windows_merge();
    test_late_reader();
    test_waiting_reader();
    test_signal_ends_wait();
    test_two_samplers();
    test_whose_procfs();
    return check_report();
}

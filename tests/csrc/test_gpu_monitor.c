/* The GPU thread on the real clock, with a driver that may take its time. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "gpu/monitor.h"
#include "scripted_gpu.h"

enum {
    MOST_SERIES = 64,
    FOR_EVER = 3600000
};

static const int64_t SECOND = 1000000000;
static const int64_t MILLISECOND = 1000000;
static const char ALL_GPU[] = "gpu,gpu_detail,gpu_profiling";

static smn_gpus *open_gpus(int64_t patience_ns)
{
    smn_gpus *gpus = NULL;
    REQUIRE(smn_gpus_open("/sys", ALL_GPU, patience_ns, &gpus) == 0);
    return gpus;
}

static void wait_until_closed(void)
{
    for (int i = 0; i < 6000 && scripted.closed == 0; i++)
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    CHECK_INT(scripted.closed, 1);
}

/* ---- finding ------------------------------------------------------------ */

static void test_what_is_found(void)
{
    smn_gpu_attempt attempt;
    smn_gpu_info info;
    char text[SMN_GPU_MESSAGE_BYTES];
    scripted_reset(3);
    scripted.identify_error[1] = -ENODEV;
    scripted.instance_count = 2;
    smn_gpus *gpus = open_gpus(10 * SECOND);
    CHECK_TEXT(smn_gpus_vendor(gpus), "Test");
    CHECK_INT(smn_gpus_count(gpus), 2);
    CHECK_INT(smn_gpus_attempt(gpus, 0, &attempt), 0);
    CHECK_TEXT(attempt.outcome, "3 devices");
    CHECK_INT(smn_gpus_attempt(gpus, 1, &attempt), -EINVAL);
    CHECK_INT(smn_gpus_attempt(gpus, -1, &attempt), -EINVAL);
    CHECK_INT(smn_gpus_device(gpus, 1, &info), 0);
    CHECK_INT(info.index, 2); /* the driver's, though one is missing */
    CHECK_TEXT(info.name, "Model 2");
    CHECK_DOUBLE(info.memory_bytes, 4e9);
    CHECK_INT(smn_gpus_device(gpus, 2, &info), -EINVAL);
    CHECK_INT(smn_gpus_instance(gpus, 0, 0, text), 0);
    CHECK_TEXT(text, "MIG-0");
    CHECK_INT(smn_gpus_instance(gpus, 0, 1, text), 0);
    CHECK_TEXT(text, "");
    CHECK_INT(smn_gpus_instance(gpus, 0, 2, text), -EINVAL);
    CHECK_INT(smn_gpus_drop(gpus, 2, -1), -EINVAL);
    CHECK_INT(smn_gpus_next_message(gpus, text), 1);
    CHECK_CONTAINS(text, "GPU 1: the driver gives no access");
    CHECK_INT(smn_gpus_next_message(gpus, text), 0);
    smn_gpus_close(gpus);
    CHECK_INT(scripted.closed, 1);
}

static void test_nothing_is_found(void)
{
    smn_gpu_attempt attempt;
    for (int access = 0; access < 2; access++) {
        scripted_reset(access);
        scripted.identify_error[0] = -ENODEV;
        smn_gpus *gpus = open_gpus(10 * SECOND);
        CHECK(smn_gpus_vendor(gpus) == NULL);
        CHECK_INT(smn_gpus_count(gpus), 0);
        CHECK_INT(smn_gpus_attempt(gpus, 0, &attempt), 0);
        CHECK_CONTAINS(attempt.outcome, access ? "access to none" : "0 devices");
        CHECK_INT(smn_gpus_take_first(gpus, SECOND), 0);
        CHECK_INT(smn_gpus_take_last(gpus, SECOND), 0);
        smn_gpus_close(gpus);
    }
    smn_gpus_close(NULL);
}

static void test_a_driver_that_takes_too_long_to_find(void)
{
    smn_gpu_attempt attempt;
    scripted_reset(2);
    scripted.open_milliseconds = FOR_EVER;
    smn_gpus *gpus = open_gpus(20 * MILLISECOND);
    CHECK_INT(smn_gpus_count(gpus), 0);
    CHECK(smn_gpus_vendor(gpus) == NULL);
    CHECK_INT(smn_gpus_attempt(gpus, 0, &attempt), 0);
    CHECK_CONTAINS(attempt.outcome, "did not answer in time");
    CHECK_INT(smn_gpus_attempt(gpus, 1, &attempt), -EINVAL);
    smn_gpus_close(gpus); /* while it still looks */
    CHECK_INT(scripted.closed, 0);
    scripted.open_milliseconds = 0;
    wait_until_closed(); /* the thread cleans up when the driver lets it */
}

/* ---- with a sampler ----------------------------------------------------- */

typedef struct {
    smn_gpus *gpus;
    smn_sampler *sampler;
    smn_window window;
    smn_statistics statistics[MOST_SERIES];
} gpu_rig;

static void make_within(gpu_rig *rig, int64_t interval_ns, uint32_t samples_per_window,
                        double overhead_budget)
{
    rig->gpus = open_gpus(10 * SECOND);
    const smn_options options = {
        .interval_ns = (uint64_t)interval_ns,
        .samples_per_window = samples_per_window,
        .procfs_path = "/proc",
        .sysfs_path = "/sys",
        .sources = "memory,gpu,gpu_detail,gpu_profiling",
        .disk_paths = "/",
        .overhead_budget = overhead_budget,
        .gpus = rig->gpus,
    };
    char error[SMN_ERROR_TEXT_BYTES] = "";
    REQUIRE(smn_sampler_create(&options, &rig->sampler, error) == 0);
    REQUIRE(smn_sampler_series_count(rig->sampler) <= MOST_SERIES);
    CHECK_INT(smn_sampler_start(rig->sampler), 0);
}

static void make(gpu_rig *rig, int64_t interval_ns, uint32_t samples_per_window)
{
    make_within(rig, interval_ns, samples_per_window, 0.0);
}

static void destroy(gpu_rig *rig)
{
    smn_sampler_destroy(rig->sampler);
    smn_gpus_close(rig->gpus);
}

static bool next(gpu_rig *rig)
{
    return smn_sampler_next_window(rig->sampler, 10 * SECOND, 0, &rig->window, rig->statistics) ==
           0;
}

static int series_of(const gpu_rig *rig, const char *key)
{
    smn_series_info info;
    for (int i = 0; smn_sampler_series(rig->sampler, i, &info) == 0; i++) {
        if (strcmp(info.key, key) == 0)
            return i;
    }
    return -1;
}

static double mean_of(const gpu_rig *rig, const char *key)
{
    int series = series_of(rig, key);
    return CHECK(series >= 0) ? rig->statistics[series].mean : NAN;
}

/* The next window that has the key: on a busy machine one may pass without a reading. */
static bool next_with(gpu_rig *rig, const char *key)
{
    for (int w = 0; w < 60; w++) {
        if (!next(rig))
            return false;
        if (!isnan(mean_of(rig, key)))
            return true;
    }
    return false;
}

static void test_windows(void)
{
    gpu_rig rig;
    scripted_reset(2);
    scripted.reading[1][SMN_GPU_TEMPERATURE] = 61.0;
    make(&rig, 10 * MILLISECOND, 50);
    CHECK(series_of(&rig, "gpu_0_temperature_celsius") < 0); /* it has none */
    for (int w = 0; w < 3; w++) {
        REQUIRE(next_with(&rig, "gpu_0_power_usage_watts"));
        CHECK_DOUBLE(mean_of(&rig, "gpu_0_utilization_percentage"), 10.0);
        CHECK_DOUBLE(mean_of(&rig, "gpu_1_utilization_percentage"), 11.0);
        CHECK_NEAR(mean_of(&rig, "gpu_1_memory_usage_megabytes"), 1000.0, 1e-9);
        CHECK_NEAR(mean_of(&rig, "gpu_1_memory_usage_percentage"), 25.0, 1e-9);
        CHECK_DOUBLE(mean_of(&rig, "gpu_0_power_usage_watts"), 0.0);
    }
    smn_source_stats stats;
    CHECK_INT(smn_sampler_source_stats(rig.sampler, 1, &stats), 0);
    CHECK_TEXT(stats.name, "gpu");
    CHECK_U64(stats.interval_ns, 100 * MILLISECOND);
    CHECK(stats.calls >= 3 && stats.calls <= 100); /* of the GPU thread, not of ticks */
    CHECK_U64(stats.errors, 0);
    CHECK(stats.total_cost_ns > 0);
    destroy(&rig);
    CHECK_INT(scripted.closed, 1);
}

/* Some 20 ms of CPU time a round, ten rounds a second: 20 % of a core, where 5 % are allowed. */
static void test_a_driver_that_costs_too_much_is_asked_less_often(void)
{
    gpu_rig rig;
    smn_source_stats stats;
    scripted_reset(2);
    make_within(&rig, 10 * MILLISECOND, 100, 0.05);
    scripted.toil_milliseconds = 4;
    for (int w = 0; w < 3; w++)
        REQUIRE(next(&rig));
    int made = scripted.made[0][SCRIPTED_UTILIZATION];
    double begin = rig.window.end_seconds;
    for (int w = 0; w < 3; w++) {
        REQUIRE(next_with(&rig, "gpu_1_utilization_percentage"));
        CHECK_DOUBLE(mean_of(&rig, "gpu_1_utilization_percentage"), 11.0);
    }
    made = scripted.made[0][SCRIPTED_UTILIZATION] - made;
    /* Of ten a second; what was made until the window was taken belongs to no window yet. */
    CHECK(made >= 1 && made <= 5.0 * (rig.window.end_seconds - begin) + 5.0);
    CHECK_INT(smn_sampler_source_stats(rig.sampler, 1, &stats), 0);
    CHECK_U64(stats.usual_interval_ns, 100 * MILLISECOND);
    CHECK(stats.interval_ns >= 200 * MILLISECOND);
    CHECK_INT(smn_sampler_source_stats(rig.sampler, 0, &stats), 0);
    CHECK_TEXT(stats.name, "memory");
    CHECK_U64(stats.interval_ns, 10 * MILLISECOND);
    destroy(&rig);
}

/* The whole way from the first reading to the last, which is made when sampling stops. */
static void test_the_first_and_the_last_reading_count(void)
{
    gpu_rig rig;
    scripted_reset(1);
    make(&rig, 3600 * SECOND, 1);
    nanosleep(&(struct timespec){1, 0}, NULL);
    scripted.reading[0][SMN_GPU_ENERGY] = 200.0;
    CHECK_INT(smn_sampler_stop(rig.sampler, 30 * SECOND), 0);
    REQUIRE(next(&rig));
    CHECK_DOUBLE(mean_of(&rig, "gpu_0_utilization_percentage"), 10.0);
    double seconds = rig.window.end_seconds - rig.window.start_seconds;
    CHECK_NEAR(mean_of(&rig, "gpu_0_power_usage_watts"), 200.0 / seconds, 20.0);
    CHECK_NEAR(mean_of(&rig, "gpu_0_power_usage_percentage"), 50.0 / seconds, 5.0);
    CHECK_DOUBLE(rig.statistics[series_of(&rig, "gpu_0_energy_joules")].last, 200.0);
    destroy(&rig);
}

static void test_dropped_devices_are_not_touched(void)
{
    gpu_rig rig = {.gpus = NULL};
    scripted_reset(3);
    smn_gpus *gpus = open_gpus(10 * SECOND);
    CHECK_INT(smn_gpus_drop(gpus, 0, -1), 0);
    CHECK_INT(smn_gpus_drop(gpus, 2, -1), 0);
    const smn_options options = {
        .interval_ns = 10000000,
        .samples_per_window = 20,
        .procfs_path = "/proc",
        .sysfs_path = "/sys",
        .sources = "gpu",
        .disk_paths = "/",
        .gpus = gpus,
    };
    char error[SMN_ERROR_TEXT_BYTES] = "";
    REQUIRE(smn_sampler_create(&options, &rig.sampler, error) == 0);
    int found = scripted.made[0][SCRIPTED_UTILIZATION]; /* when it was found */
    smn_gpus_close(gpus);                               /* the sampler keeps them */
    CHECK_INT(scripted.closed, 0);
    CHECK_INT(smn_sampler_start(rig.sampler), 0);
    REQUIRE(next(&rig));
    CHECK(series_of(&rig, "gpu_0_utilization_percentage") < 0);
    REQUIRE(next_with(&rig, "gpu_1_utilization_percentage"));
    CHECK_DOUBLE(mean_of(&rig, "gpu_1_utilization_percentage"), 11.0);
    CHECK_INT(scripted.made[0][SCRIPTED_UTILIZATION], found);
    CHECK(scripted.made[1][SCRIPTED_UTILIZATION] > found);
    smn_sampler_destroy(rig.sampler);
    CHECK_INT(scripted.closed, 1);
}

static void next_that_begins_now(gpu_rig *rig)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    do
        REQUIRE(next(rig));
    while (rig->window.start_seconds < (double)now.tv_sec + (double)now.tv_nsec * 1e-9);
}

/* At the end of a process, which a sampler may live to see. */
static void test_halting_under_a_sampler(void)
{
    gpu_rig rig;
    scripted_reset(2);
    make(&rig, 10 * MILLISECOND, 20);
    REQUIRE(next_with(&rig, "gpu_1_utilization_percentage"));
    smn_gpus_halt(rig.gpus);
    CHECK_INT(scripted.closed, 1);
    int made = scripted.made[1][SCRIPTED_UTILIZATION];
    next_that_begins_now(&rig);
    CHECK_ABSENT(mean_of(&rig, "gpu_1_utilization_percentage"));
    CHECK(!isnan(mean_of(&rig, "system_memory_usage_megabytes")));
    CHECK_INT(scripted.made[1][SCRIPTED_UTILIZATION], made);
    CHECK_INT(smn_sampler_stop(rig.sampler, 30 * SECOND), 0);
    smn_gpus_halt(rig.gpus);
    destroy(&rig);
    CHECK_INT(scripted.closed, 1);
}

/* ---- a call that lasts -------------------------------------------------- */

static void check_inert_in_a_child(gpu_rig *rig)
{
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        char message[SMN_GPU_MESSAGE_BYTES];
        CHECK_INT(smn_gpus_take_first(rig->gpus, SECOND), -ECHILD);
        CHECK_INT(smn_gpus_take_last(rig->gpus, SECOND), -ECHILD);
        CHECK_INT(smn_gpus_next_message(rig->gpus, message), 0);
        smn_sampler_destroy(rig->sampler);
        smn_gpus_close(rig->gpus);
        CHECK_INT(scripted.closed, 0);
        _exit(check_report());
    }
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_INT(status, 0);
}

static void test_stop_and_fork_in_a_call_that_lasts(void)
{
    gpu_rig rig;
    char message[SMN_GPU_MESSAGE_BYTES] = "";
    scripted_reset(2);
    make(&rig, 10 * MILLISECOND, 20);
    REQUIRE(next(&rig));
    scripted.milliseconds[1][SCRIPTED_MEMORY] = FOR_EVER;
    while (smn_gpus_next_message(rig.gpus, message) == 0) {
        REQUIRE(next(&rig));
        CHECK(!isnan(mean_of(&rig, "system_memory_usage_megabytes")));
        CHECK(rig.window.samples > 0);
    }
    next_that_begins_now(&rig);
    CHECK_ABSENT(mean_of(&rig, "gpu_0_utilization_percentage"));
    CHECK_CONTAINS(message, "GPU 1: getMemory has not returned for 2 s");
    CHECK_INT(smn_gpus_next_message(rig.gpus, message), 0); /* once */
    check_inert_in_a_child(&rig);
    CHECK_INT(smn_sampler_stop(rig.sampler, 30 * SECOND), 0);
    destroy(&rig);
    CHECK_INT(scripted.closed, 0);
    scripted.milliseconds[1][SCRIPTED_MEMORY] = 0;
    wait_until_closed();
}

static void test_a_call_that_lasts_at_the_start(void)
{
    gpu_rig rig;
    scripted_reset(1);
    rig.gpus = open_gpus(10 * SECOND);
    scripted.milliseconds[0][SCRIPTED_UTILIZATION] = FOR_EVER;
    CHECK_INT(smn_gpus_take_first(rig.gpus, 20 * MILLISECOND), -ETIMEDOUT);
    scripted.milliseconds[0][SCRIPTED_UTILIZATION] = 0;
    smn_gpus_close(rig.gpus);
    wait_until_closed();
}

int main(void)
{
    test_what_is_found();
    test_nothing_is_found();
    test_a_driver_that_takes_too_long_to_find();
    test_windows();
    test_a_driver_that_costs_too_much_is_asked_less_often();
    test_the_first_and_the_last_reading_count();
    test_dropped_devices_are_not_touched();
    test_halting_under_a_sampler();
    test_stop_and_fork_in_a_call_that_lasts();
    test_a_call_that_lasts_at_the_start();
    return check_report();
}

/* The source `cpu_detail` on made-up files of small and big machines. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chance.h"
#include "check.h"
#include "cpu_times.h"
#include "probe.h"
#include "rig.h"

static const char USER[] = "cpu_user_percentage";
static const char SYSTEM[] = "cpu_system_percentage";
static const char IOWAIT[] = "cpu_iowait_percentage";
static const char STEAL[] = "cpu_steal_percentage";
static const char CORE_MAX[] = "cpu_core_max_percentage";
static const char LOAD[] = "load_average_1m";
static const char SWITCHES[] = "context_switches_per_second";
static const char FREQUENCY[] = "cpu_frequency_megahertz";

static const char *const keys[] = {USER,     SYSTEM, IOWAIT,   STEAL,
                                   CORE_MAX, LOAD,   SWITCHES, FREQUENCY};

enum {
    KEYS = sizeof keys / sizeof *keys,
    MOST_CORES = 512
};

/* A machine as its files have it. */
typedef struct {
    proc_tree tree;
    fake_clock clock;
    source_probe probe;
    int core_count;
    bool offline[MOST_CORES];
    smn_cpu_times cores[MOST_CORES];
    smn_cpu_times all;
    uint64_t switches;
    char *text; /* of /proc/stat */
    size_t length;
} machine;

static const smn_cpu_times boot = {{1132, 34, 1441, 367500, 127, 3, 438, 12, 100, 20}};

static size_t add_line(machine *it, const char *name, const smn_cpu_times *times)
{
    it->length += (size_t)sprintf(it->text + it->length, "%s", name);
    for (int i = 0; i < SMN_CPU_CLOCKS; i++)
        it->length += (size_t)sprintf(it->text + it->length, " %llu",
                                      (unsigned long long)times->ticks[i]);
    it->length += (size_t)sprintf(it->text + it->length, "\n");
    return it->length;
}

static void write_stat(machine *it)
{
    it->length = 0;
    add_line(it, "cpu ", &it->all);
    for (int i = 0; i < it->core_count; i++) {
        char name[16];
        snprintf(name, sizeof name, "cpu%d", i);
        if (!it->offline[i])
            add_line(it, name, &it->cores[i]);
    }
    it->length += (size_t)sprintf(it->text + it->length, "intr 114930548");
    for (int i = 0; i < it->core_count * 10; i++)
        it->length += (size_t)sprintf(it->text + it->length, " %d", i);
    it->length += (size_t)sprintf(it->text + it->length,
                                  "\nctxt %llu\nbtime 1062191376\nprocesses 2915\n",
                                  (unsigned long long)it->switches);
    tree_write(&it->tree, "stat", it->text, it->length);
}

static void set_frequency(const machine *it, int index, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq", index);
    if (text != NULL)
        tree_write_text(&it->tree, path, text);
    else
        tree_remove(&it->tree, path);
}

static void machine_make(machine *it, int core_count)
{
    memset(it, 0, sizeof *it);
    tree_create(&it->tree);
    fake_clock_init(&it->clock);
    it->text = malloc(1 << 20);
    REQUIRE(it->text != NULL);
    it->core_count = core_count;
    it->switches = 1990473;
    for (int i = 0; i < core_count; i++) {
        it->cores[i] = boot;
        for (int clock = 0; clock < SMN_CPU_CLOCKS; clock++)
            it->all.ticks[clock] += boot.ticks[clock];
    }
    write_stat(it);
    tree_write_text(&it->tree, "loadavg", "1.26 0.50 0.47 3/91 26778\n");
}

static int machine_try(machine *it)
{
    smn_environment environment = {.procfs = it->tree.root,
                                   .sysfs = it->tree.root,
                                   .clock = &it->clock.clock,
                                   .disk_paths = "/"};
    return probe_open_in(&it->probe, "cpu_detail", &environment);
}

static void machine_open(machine *it)
{
    REQUIRE(machine_try(it) == 0);
}

static void machine_destroy(machine *it)
{
    free(it->text);
    tree_destroy(&it->tree);
}

static void machine_close(machine *it)
{
    probe_close(&it->probe);
    machine_destroy(it);
}

/* Lets a core pass time. */
static void pass(machine *it, int index, smn_cpu_times increase)
{
    for (int clock = 0; clock < SMN_CPU_CLOCKS; clock++) {
        it->cores[index].ticks[clock] += increase.ticks[clock];
        it->all.ticks[clock] += increase.ticks[clock];
    }
}

static smn_cpu_times ticks(uint64_t busy, uint64_t idle)
{
    return (smn_cpu_times){.ticks = {[SMN_CPU_USER] = busy, [SMN_CPU_IDLE] = idle}};
}

static int sample(machine *it)
{
    write_stat(it);
    return probe_sample(&it->probe);
}

static double value(const machine *it, const char *key)
{
    return probe_value(&it->probe, key);
}

static double total(const machine *it)
{
    return it->probe.columns[it->probe.schema.series[0].spec.denominator];
}

static void test_schema(void)
{
    static const char *const units[] = {"percentage",          "percentage", "percentage",
                                        "percentage",          "percentage", "tasks",
                                        "switches per second", "megahertz"};
    static const int kinds[] = {SMN_RATIO, SMN_RATIO, SMN_RATIO, SMN_RATIO,
                                SMN_GAUGE, SMN_GAUGE, SMN_RATE,  SMN_GAUGE};
    machine it;
    machine_make(&it, 2);
    set_frequency(&it, 0, "2600000\n");
    machine_open(&it);
    CHECK(!it.probe.source->by_default);
    CHECK_U64(it.probe.source->min_interval_ns, 100000000);
    if (CHECK_INT(it.probe.schema.series_count, KEYS)) {
        for (int i = 0; i < KEYS; i++) {
            const smn_series_spec *spec = &it.probe.schema.series[i].spec;
            CHECK_TEXT(spec->key, keys[i]);
            CHECK_TEXT(spec->unit, units[i]);
            CHECK_INT(spec->kind, kinds[i]);
            if (spec->kind == SMN_RATIO)
                CHECK_DOUBLE(spec->quantum, 10.0);
        }
    }
    machine_close(&it);
}

/* ---- shares of time ----------------------------------------------------- */

static void test_shares(void)
{
    static const struct {
        const char *what;
        smn_cpu_times increase;
        double user, system, iowait, steal, total;
    } cases[] = {
        {"one of each", {{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}}, 2, 1, 1, 1, 8},
        {"user", {{30, 0, 0, 70}}, 30, 0, 0, 0, 100},
        {"nice is user", {{10, 30, 0, 60}}, 40, 0, 0, 0, 100},
        {"guests are in user", {{40, 0, 0, 60, 0, 0, 0, 0, 40}}, 40, 0, 0, 0, 100},
        {"nice guests are in nice", {{0, 40, 0, 60, 0, 0, 0, 0, 0, 40}}, 40, 0, 0, 0, 100},
        {"interrupts are neither", {{0, 0, 10, 60, 0, 20, 10}}, 0, 10, 0, 0, 100},
        {"waiting", {{0, 0, 0, 60, 40}}, 0, 0, 40, 0, 100},
        {"stolen", {{0, 0, 0, 60, 0, 0, 0, 40}}, 0, 0, 0, 40, 100},
        {"nothing passed", {{0}}, 0, 0, 0, 0, 0},
    };
    machine it;
    machine_make(&it, 1);
    machine_open(&it);
    CHECK_INT(sample(&it), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        const double before[] = {value(&it, USER), value(&it, SYSTEM), value(&it, IOWAIT),
                                 value(&it, STEAL), total(&it)};
        pass(&it, 0, cases[i].increase);
        CHECK_INT(sample(&it), 0);
        CHECK_DOUBLE(value(&it, USER) - before[0], 100.0 * cases[i].user);
        CHECK_DOUBLE(value(&it, SYSTEM) - before[1], 100.0 * cases[i].system);
        CHECK_DOUBLE(value(&it, IOWAIT) - before[2], 100.0 * cases[i].iowait);
        CHECK_DOUBLE(value(&it, STEAL) - before[3], 100.0 * cases[i].steal);
        CHECK_DOUBLE(total(&it) - before[4], cases[i].total);
    }
    check_case(NULL);

    /* A clock that steps back passed no time, and the others count. */
    double user = value(&it, USER);
    double iowait = value(&it, IOWAIT);
    double sum = total(&it);
    it.all.ticks[SMN_CPU_IOWAIT] -= 5;
    it.all.ticks[SMN_CPU_USER] += 10;
    it.all.ticks[SMN_CPU_IDLE] += 30;
    CHECK_INT(sample(&it), 0);
    CHECK_DOUBLE(value(&it, IOWAIT), iowait);
    CHECK_DOUBLE(value(&it, USER) - user, 1000.0);
    CHECK_DOUBLE(total(&it) - sum, 40.0);
    machine_close(&it);
}

/* Through windows: 224 cores, each with its own share of time. */
static void test_exact_rates(void)
{
    sampler_rig rig;
    machine it;
    machine_make(&it, 224);
    rig_prepare(&rig);
    proc_tree own = it.tree;
    it.tree = rig.tree;
    write_stat(&it);
    tree_write_text(&it.tree, "loadavg", "1.25 0.50 0.47 3/91 26778\n");
    for (int i = 0; i < it.core_count; i++)
        set_frequency(&it, i, i % 2 == 0 ? "2000000\n" : "3000000\n");
    rig_create(&rig, "cpu_detail", 100000000, 10);
    REQUIRE(smn_sampler_start(rig.sampler) == 0);
    for (int window = 0; window < 3; window++) {
        check_case("window %d", window);
        for (int tick = 0; tick < 10; tick++) {
            for (int i = 0; i < it.core_count; i++)
                pass(&it, i, (smn_cpu_times){{i == 17 ? 4 : 2, 0, 1, i == 17 ? 3 : 5, 1, 0, 0, 1}});
            it.switches += 12345;
            write_stat(&it);
            rig_tick(&rig, 1);
        }
        REQUIRE(rig_take(&rig) == 0);
        CHECK_NEAR(rig_statistics(&rig, USER)->mean, 100.0 * (223 * 2 + 4) / 2240.0, 1e-9);
        CHECK_NEAR(rig_statistics(&rig, SYSTEM)->mean, 10.0, 1e-9);
        CHECK_NEAR(rig_statistics(&rig, IOWAIT)->mean, 10.0, 1e-9);
        CHECK_NEAR(rig_statistics(&rig, STEAL)->mean, 10.0, 1e-9);
        CHECK_NEAR(rig_statistics(&rig, CORE_MAX)->mean, 60.0, 1e-9);
        CHECK_NEAR(rig_statistics(&rig, CORE_MAX)->max, 60.0, 1e-9);
        CHECK_NEAR(rig_statistics(&rig, LOAD)->mean, 1.25, 1e-12);
        CHECK_NEAR(rig_statistics(&rig, SWITCHES)->mean, 123450.0, 1e-3);
        CHECK_NEAR(rig_statistics(&rig, FREQUENCY)->mean, 2500.0, 1e-9);
    }
    check_case(NULL);
    it.tree = own;
    machine_destroy(&it);
    rig_close(&rig);
}

/* A sampler of 1 kHz has the busiest core in every window of a second, as a share of 100 ms. */
static void test_core_max_at_a_thousand_hertz(void)
{
    sampler_rig rig;
    machine it;
    machine_make(&it, 4);
    rig_prepare(&rig);
    proc_tree own = it.tree;
    it.tree = rig.tree;
    write_stat(&it);
    rig_create(&rig, "cpu_detail", 1000000, 1000);
    REQUIRE(smn_sampler_start(rig.sampler) == 0);
    for (int tick = 1; tick <= 1000; tick++) {
        if (tick % 10 == 0) { /* core 2 is busy in the first half second, half of the time */
            bool is_busy = tick <= 500 && tick % 20 == 0;
            for (int i = 0; i < it.core_count; i++)
                pass(&it, i, i == 2 && is_busy ? ticks(1, 0) : ticks(0, 1));
            write_stat(&it);
        }
        rig_tick(&rig, 1);
    }
    REQUIRE(rig_take(&rig) == 0);
    CHECK_U64(rig_source(&rig, "cpu_detail").calls, 11);
    CHECK_NEAR(rig_statistics(&rig, CORE_MAX)->mean, 25.0, 1e-9);
    CHECK_NEAR(rig_statistics(&rig, CORE_MAX)->max, 50.0, 1e-9);
    CHECK_NEAR(rig_statistics(&rig, CORE_MAX)->min, 0.0, 1e-9);
    it.tree = own;
    machine_destroy(&it);
    rig_close(&rig);
}

/* ---- the busiest core --------------------------------------------------- */

/* A core's share is that of its last ten ticks or more, however often it is asked. */
static void test_spans(void)
{
    machine it;
    machine_make(&it, 3);
    machine_open(&it);
    CHECK_INT(sample(&it), 0);
    CHECK_ABSENT(value(&it, CORE_MAX)); /* nothing has passed */
    for (int i = 0; i < 9; i++) {
        pass(&it, 0, ticks(1, 0));
        CHECK_INT(sample(&it), 0);
        CHECK_ABSENT(value(&it, CORE_MAX));
    }
    pass(&it, 0, ticks(0, 1));
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, CORE_MAX), 90.0, 1e-9);
    CHECK_INT(sample(&it), 0);
    CHECK_ABSENT(value(&it, CORE_MAX)); /* no new span: the same again would count twice */

    /* The span of another core ends: the first one's share still holds. */
    pass(&it, 0, ticks(0, 9));
    pass(&it, 1, ticks(5, 5));
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, CORE_MAX), 90.0, 1e-9);
    /* Then its own: what it did since is less than the other's. */
    pass(&it, 0, ticks(0, 1));
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, CORE_MAX), 50.0, 1e-9);

    /* A long time passes between two readings: one span. */
    pass(&it, 0, ticks(100, 300));
    pass(&it, 1, ticks(100, 900));
    pass(&it, 2, (smn_cpu_times){.ticks = {[SMN_CPU_IOWAIT] = 1000}});
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, CORE_MAX), 25.0, 1e-9);

    /* Ticks that step back are none. */
    it.cores[0].ticks[SMN_CPU_IDLE] -= 7;
    it.cores[0].ticks[SMN_CPU_USER] += 10;
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, CORE_MAX), 100.0, 1e-9);
    machine_close(&it);
}

/* A core that goes takes its share with it; one that comes has none before ten ticks. */
static void test_hot_plug(void)
{
    machine it;
    machine_make(&it, 224);
    it.offline[200] = true; /* from the beginning */
    write_stat(&it);
    machine_open(&it);
    for (int i = 0; i < 224; i++)
        pass(&it, i, i == 100 ? ticks(10, 0) : ticks(3, 7));
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, CORE_MAX), 100.0, 1e-9);

    it.offline[100] = true;
    for (int i = 0; i < 224; i++)
        pass(&it, i, ticks(2, 8));
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, CORE_MAX), 20.0, 1e-9);

    /* What it counts while it is away is nobody's, and what it had pending is forgotten. */
    it.cores[100] = ticks(1000000, 0);
    it.offline[100] = it.offline[200] = false;
    for (int i = 0; i < 224; i++)
        pass(&it, i, ticks(1, 9));
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, CORE_MAX), 10.0, 1e-9);
    for (int i = 0; i < 224; i++)
        pass(&it, i, i == 100 || i == 200 ? ticks(6, 4) : ticks(1, 9));
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, CORE_MAX), 60.0, 1e-9);

    /* The machine grows. */
    for (int i = 224; i < 300; i++)
        it.cores[i] = boot;
    it.core_count = 300;
    CHECK_INT(sample(&it), 0);
    for (int i = 0; i < 300; i++)
        pass(&it, i, i == 299 ? ticks(9, 1) : ticks(0, 10));
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, CORE_MAX), 90.0, 1e-9);
    machine_close(&it);
}

/* ---- what is missing or bad --------------------------------------------- */

static void test_what_there_is(void)
{
    machine it;
    machine_make(&it, 2);
    tree_remove(&it.tree, "loadavg");
    machine_open(&it); /* no load, no frequency */
    CHECK_INT(it.probe.schema.series_count, 6);
    CHECK(!probe_has(&it.probe, LOAD) && !probe_has(&it.probe, FREQUENCY));
    CHECK_INT(sample(&it), 0);
    probe_close(&it.probe);

    tree_remove(&it.tree, "stat");
    CHECK_INT(machine_try(&it), -ENODATA);

    tree_write_text(&it.tree, "loadavg", "7.00 0.50 0.47 3/91 26778\n");
    machine_open(&it);
    CHECK_INT(it.probe.schema.series_count, 1);
    CHECK_INT(probe_sample(&it.probe), 0);
    CHECK_DOUBLE(value(&it, LOAD), 7.0);
    probe_close(&it.probe);

    tree_write_text(&it.tree, "stat", "cpu  1 2 3 4\nctxt 5\n"); /* no line of a core */
    machine_open(&it);
    CHECK(!probe_has(&it.probe, CORE_MAX) && probe_has(&it.probe, USER));
    CHECK_INT(probe_sample(&it.probe), 0);
    probe_close(&it.probe);
    machine_destroy(&it);
}

static void check_stat_absent(const machine *it, int error)
{
    CHECK(error < 0);
    for (int i = 0; i < 5; i++)
        CHECK_ABSENT(value(it, keys[i]));
    CHECK_ABSENT(value(it, SWITCHES));
    CHECK_DOUBLE(value(it, LOAD), 1.26);
}

static void test_garbage(void)
{
    static const char *const files[] = {
        "",
        "\n",
        "cpu  1 2 3 4\n",
        "cpu  1 2 3 4\ncpu0 1 2 3 4\n",
        "cpu0 1 2 3 4\nctxt 5\n",
        "cpu  1 2 3\nctxt 5\n",
        "cpu  1 2 3 x\nctxt 5\n",
        "cpu  1 2 3 4\ncpu0 1 2 3\nctxt 5\n",
        "cpu  1 2 3 4\ncpu0 1 2 3 -4\nctxt 5\n",
        "cpu  1 2 3 4\ncpux 1 2 3 4\nctxt 5\n",
        "cpu  1 2 3 4\ncpu8192 1 2 3 4\nctxt 5\n",
        "cpu  1 2 3 4\ncpu18446744073709551616 1 2 3 4\nctxt 5\n",
        "cpu  1 2 3 4\ncpu0 1 2 3 4\nctxt x\n",
        "cpu  1 2 3 4\ncpu0 1 2 3 4\nctxt 5",
        "cpu  1 2 3 4\ncpu0 1 2 3 4\nctxt 9007199254740993\n",
        "\xff\xfe\x80garbage\n",
    };
    machine it;
    machine_make(&it, 2);
    machine_open(&it);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        check_case("%s", files[i]);
        tree_write_text(&it.tree, "stat", files[i]);
        check_stat_absent(&it, probe_sample(&it.probe));
        pass(&it, 0, ticks(1, 9)); /* the next whole reading covers the gap */
        pass(&it, 1, ticks(6, 4));
        CHECK_INT(sample(&it), 0);
        CHECK_DOUBLE(value(&it, USER), 100.0 * 7.0 * (double)(i + 1));
        CHECK_DOUBLE(total(&it), 20.0 * (double)(i + 1));
        CHECK_NEAR(value(&it, CORE_MAX), 60.0, 1e-9);
    }
    check_case(NULL);

    static const char *const loads[] = {"", "\n", "1.26", "x\n", "-1.0 0 0\n", "1,26 0 0\n"};
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) {
        check_case("%s", loads[i]);
        tree_write_text(&it.tree, "loadavg", loads[i]);
        CHECK_INT(sample(&it), -EBADMSG);
        CHECK_ABSENT(value(&it, LOAD));
        CHECK_DOUBLE(value(&it, SWITCHES), 1990473.0);
    }
    check_case(NULL);
    machine_close(&it);
}

/* Cut anywhere, a reading is absent or the same, and the next whole one covers the gap. */
static void test_cut_anywhere(void)
{
    machine it;
    machine_make(&it, 3);
    machine_open(&it);
    write_stat(&it);
    const char *context = strstr(it.text, "\nctxt ") + 1;
    size_t needed = (size_t)(strchr(context, '\n') - it.text) + 1;
    for (size_t length = 0; length <= it.length; length++) {
        check_case("%zu bytes", length);
        double before = length > 0 ? total(&it) : 0.0;
        for (int i = 0; i < 3; i++)
            pass(&it, i, i == 1 ? ticks(5, 5) : ticks(1, 9));
        write_stat(&it);
        tree_write(&it.tree, "stat", it.text, length);
        int error = probe_sample(&it.probe);
        if (length < needed) {
            check_stat_absent(&it, error);
            CHECK_INT(sample(&it), 0);
        }
        CHECK_DOUBLE(total(&it) - before, 30.0);
        CHECK_NEAR(value(&it, CORE_MAX), 50.0, 1e-9);
        needed = (size_t)(strchr(strstr(it.text, "\nctxt ") + 1, '\n') - it.text) + 1;
    }
    check_case(NULL);
    machine_close(&it);
}

static void test_mutations(void)
{
    machine it;
    machine_make(&it, 4);
    machine_open(&it);
    write_stat(&it);
    char *whole = strdup(it.text);
    char *mutated = malloc(2 * it.length + 16);
    REQUIRE(whole != NULL && mutated != NULL);
    chance_state chance = {20240512};
    double before[4] = {0};
    for (int i = 0; i < 3000; i++) {
        check_case("mutation %d", i);
        size_t damaged = chance_mutate(&chance, whole, strlen(whole), mutated);
        tree_write(&it.tree, "stat", mutated, damaged);
        int error = probe_sample(&it.probe);
        if (error < 0) {
            check_stat_absent(&it, error);
            continue;
        }
        double most = value(&it, CORE_MAX);
        CHECK(isnan(most) || (most >= 0.0 && most <= 100.0));
        double shares = 0.0;
        for (int s = 0; s < 4; s++) {
            CHECK(value(&it, keys[s]) >= before[s]); /* sums never fall */
            before[s] = value(&it, keys[s]);
            shares += before[s];
        }
        CHECK(shares <= 100.0 * total(&it));
    }
    check_case(NULL);
    free(mutated);
    free(whole);
    machine_close(&it);
}

/* ---- frequencies -------------------------------------------------------- */

static void advance(machine *it, uint64_t milliseconds)
{
    atomic_fetch_add(&it->clock.now_ns, milliseconds * 1000000);
}

/* The mean of the cores that are online and say something, once a second. */
static void test_cpufreq(void)
{
    machine it;
    machine_make(&it, 224);
    for (int i = 0; i < 224; i++) {
        char text[32];
        snprintf(text, sizeof text, "%d\n", 1000000 + i * 1000);
        set_frequency(&it, i, text);
    }
    machine_open(&it);
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, FREQUENCY), 1000.0 + 223.0 / 2.0, 1e-9);
    for (int i = 0; i < 8; i++) {
        advance(&it, 100);
        CHECK_INT(sample(&it), 0);
        CHECK_ABSENT(value(&it, FREQUENCY));
    }
    for (int i = 0; i < 224; i++)
        set_frequency(&it, i, "3000000\n");
    static const char *const silent[] = {NULL, "", "\n", "<unknown>\n", "0\n", "300", "-1\n"};
    for (size_t i = 0; i < sizeof silent / sizeof *silent; i++)
        set_frequency(&it, (int)i * 30, silent[i]);
    set_frequency(&it, 7, "9999999\n");
    it.offline[7] = true;
    advance(&it, 200);
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, FREQUENCY), 3000.0, 1e-9);

    for (int i = 0; i < 224; i++)
        set_frequency(&it, i, NULL);
    advance(&it, 1000);
    CHECK_INT(sample(&it), -ENODATA);
    CHECK_ABSENT(value(&it, FREQUENCY));
    CHECK_DOUBLE(value(&it, LOAD), 1.26);
    advance(&it, 1000);
    set_frequency(&it, 223, "1500000\n");
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, FREQUENCY), 1500.0, 1e-9);
    machine_close(&it);
}

static uint64_t slow_ns(void *context)
{
    fake_clock *clock = context;
    return atomic_fetch_add(&clock->now_ns, 400000); /* each look at the clock: 0.4 ms */
}

/* Where the kernel lets its readers wait, a round takes several readings. */
static void test_slow_cpufreq(void)
{
    machine it;
    machine_make(&it, 10);
    for (int i = 0; i < 10; i++)
        set_frequency(&it, i, i % 2 == 0 ? "2000000\n" : "4000000\n");
    it.clock.clock.monotonic_ns = slow_ns;
    machine_open(&it);
    int rounds = 0;
    for (int reading = 1; reading <= 8; reading++) {
        check_case("reading %d", reading);
        CHECK_INT(sample(&it), 0);
        if (isnan(value(&it, FREQUENCY)))
            continue;
        CHECK_NEAR(value(&it, FREQUENCY), 3000.0, 1e-9);
        CHECK_INT(reading, 4); /* three cores in each reading */
        rounds++;
    }
    check_case(NULL);
    CHECK_INT(rounds, 1);
    machine_close(&it);
}

static void test_cpuinfo(void)
{
    static const struct {
        const char *text;
        int error;
        double megahertz; /* NaN: unknown */
    } cases[] = {
        {"processor\t: 0\ncpu MHz\t\t: 2600.000\n\nprocessor\t: 1\ncpu MHz\t\t: 3400.500\n", 0,
         3000.25},
        {"cpu MHz : 1000\n", 0, 1000.0},
        {"cpu MHz static : 5200\ncpu MHz dynamic : 5100\n", 0, CHECK_NAN}, /* s390 */
        {"processor : 0\nBogoMIPS : 100.00\n", 0, CHECK_NAN},              /* arm64 */
        {"cpu MHz\t\t: 0.000\n", 0, CHECK_NAN},
        {"cpu MHz\t\t: unknown\n", 0, CHECK_NAN},
        {"cpu MHz\t\t: 2600.000", 0, CHECK_NAN},
        {"", 0, CHECK_NAN},
    };
    machine it;
    machine_make(&it, 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].text);
        tree_write_text(&it.tree, "cpuinfo", cases[i].text);
        machine_open(&it);
        CHECK(probe_has(&it.probe, FREQUENCY) == !isnan(cases[i].megahertz));
        CHECK_INT(sample(&it), 0);
        if (probe_has(&it.probe, FREQUENCY))
            CHECK_NEAR(value(&it, FREQUENCY), cases[i].megahertz, 1e-9);
        probe_close(&it.probe);
    }
    check_case(NULL);

    /* Once a second; then it went bad, which hides nothing else. */
    tree_write_text(&it.tree, "cpuinfo", "cpu MHz\t\t: 2600.000\n");
    machine_open(&it);
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, FREQUENCY), 2600.0, 1e-9);
    CHECK_INT(sample(&it), 0);
    CHECK_ABSENT(value(&it, FREQUENCY));
    advance(&it, 1000);
    tree_write_text(&it.tree, "cpuinfo", "cpu MHz\t\t: 2600.000\ncpu MHz\t\t: 26");
    CHECK_INT(sample(&it), -EBADMSG);
    CHECK_ABSENT(value(&it, FREQUENCY));
    CHECK_DOUBLE(value(&it, LOAD), 1.26);
    probe_close(&it.probe);

    /* cpufreq comes first. */
    set_frequency(&it, 1, "1800000\n");
    machine_open(&it);
    CHECK_INT(sample(&it), 0);
    CHECK_NEAR(value(&it, FREQUENCY), 1800.0, 1e-9);
    machine_close(&it);
}

static void test_without_sysfs(void)
{
    machine it;
    machine_make(&it, 2);
    probe_open(&it.probe, "cpu_detail", &it.tree);
    CHECK_INT(it.probe.schema.series_count, KEYS - 1);
    CHECK_INT(sample(&it), 0);
    machine_close(&it);
}

static void test_real_files(void)
{
    static const char *const files[] = {"stat", "loadavg", "cpuinfo"};
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char target[32];
        snprintf(target, sizeof target, "/proc/%s", files[i]);
        REQUIRE(symlinkat(target, tree.root, files[i]) == 0);
    }
    probe_open(&probe, "cpu_detail", &tree);
    CHECK_INT(probe_sample(&probe), 0);
    CHECK(probe_value(&probe, LOAD) >= 0.0);
    CHECK(probe_value(&probe, SWITCHES) > 0.0);
    while (isnan(probe_value(&probe, CORE_MAX))) {
        usleep(20000);
        REQUIRE(probe_sample(&probe) == 0);
    }
    CHECK(probe_value(&probe, CORE_MAX) >= 0.0 && probe_value(&probe, CORE_MAX) <= 100.0);
    probe_close(&probe);
    tree_destroy(&tree);
}

int main(void)
{
    test_schema();
    test_shares();
    test_exact_rates();
    test_core_max_at_a_thousand_hertz();
    test_spans();
    test_hot_plug();
    test_what_there_is();
    test_garbage();
    test_cut_anywhere();
    test_mutations();
    test_cpufreq();
    test_slow_cpufreq();
    test_cpuinfo();
    test_without_sysfs();
    test_real_files();
    return check_report();
}

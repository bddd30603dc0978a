/* The source `memory_detail` on made-up /proc/meminfo and /proc/vmstat files. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chance.h"
#include "check.h"
#include "probe.h"
#include "rig.h"

static const char SWAP[] = "swap_usage_megabytes";
static const char DIRTY[] = "memory_dirty_megabytes";
static const char FAULTS[] = "major_page_faults_per_second";

static const char meminfo[] = "MemTotal:       24689764 kB\n"
                              "MemAvailable:   23722844 kB\n"
                              "SwapCached:         4711 kB\n"
                              "SwapTotal:       8388604 kB\n"
                              "SwapFree:        8123904 kB\n"
                              "Zswap:                 0 kB\n"
                              "Dirty:               108 kB\n"
                              "Writeback:             5 kB\n"
                              "HugePages_Total:       0\n";

static const char vmstat[] = "nr_free_pages 5499598\n"
                             "nr_dirty 27\n"
                             "pgfault 1298340217\n"
                             "pgmajfault 50427\n"
                             "pgrefill 0\n";

enum {
    SWAP_USED_KIB = 8388604 - 8123904,
    DIRTY_KIB = 108,
    MAJOR_FAULTS = 50427
};

static void write_both(const proc_tree *tree)
{
    tree_write_text(tree, "meminfo", meminfo);
    tree_write_text(tree, "vmstat", vmstat);
}

static int open_source(source_probe *probe, const proc_tree *tree)
{
    smn_environment environment = {.procfs = tree->root, .sysfs = -1, .disk_paths = "/"};
    return probe_open_in(probe, "memory_detail", &environment);
}

static double megabytes(double kib)
{
    return kib * 1024.0 / 1e6;
}

static void check_healthy(const source_probe *probe, int error)
{
    CHECK_INT(error, 0);
    CHECK_NEAR(probe_value(probe, SWAP), megabytes(SWAP_USED_KIB), 1e-9);
    CHECK_NEAR(probe_value(probe, DIRTY), megabytes(DIRTY_KIB), 1e-12);
    CHECK_DOUBLE(probe_value(probe, FAULTS), MAJOR_FAULTS);
}

static void test_schema(void)
{
    static const char *const keys[] = {SWAP, DIRTY, FAULTS};
    static const char *const units[] = {"megabytes", "megabytes", "faults per second"};
    static const int kinds[] = {SMN_GAUGE, SMN_GAUGE, SMN_RATE};
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    write_both(&tree);
    probe_open(&probe, "memory_detail", &tree);
    CHECK(!probe.source->by_default);
    CHECK_U64(probe.source->min_interval_ns, 100000000);
    if (CHECK_INT(probe.schema.series_count, 3)) {
        for (int i = 0; i < 3; i++) {
            CHECK_TEXT(probe.schema.series[i].spec.key, keys[i]);
            CHECK_TEXT(probe.schema.series[i].spec.unit, units[i]);
            CHECK_INT(probe.schema.series[i].spec.kind, kinds[i]);
        }
    }
    check_healthy(&probe, probe_sample(&probe));
    probe_close(&probe);
    tree_destroy(&tree);
}

static void write_counts(const proc_tree *tree, int dirty_kib, int faults)
{
    char text[256];
    snprintf(text, sizeof text, "SwapTotal: 1000 kB\nSwapFree: 250 kB\nDirty: %d kB\n", dirty_kib);
    tree_write_text(tree, "meminfo", text);
    snprintf(text, sizeof text, "pgfault 1\npgmajfault %d\n", faults);
    tree_write_text(tree, "vmstat", text);
}

/* 7 faults in each tenth of a second; a counter that falls adds neither faults nor time. */
static void test_exact_rate(void)
{
    sampler_rig rig;
    rig_prepare(&rig);
    write_counts(&rig.tree, 0, 1000);
    rig_create(&rig, "memory_detail", 50000000, 20);
    REQUIRE(smn_sampler_start(rig.sampler) == 0);
    int faults = 1000;
    for (int window = 0; window < 3; window++) {
        check_case("window %d", window);
        for (int tick = 1; tick <= 20; tick++) { /* every second one is read */
            faults += tick % 2 == 0 ? 7 : 0;
            if (window == 1 && tick == 10)
                faults = 3;
            write_counts(&rig.tree, tick, faults);
            rig_tick(&rig, 1);
        }
        REQUIRE(rig_take(&rig) == 0);
        CHECK_NEAR(rig_statistics(&rig, FAULTS)->mean, 70.0, 1e-6);
        CHECK_NEAR(rig_statistics(&rig, FAULTS)->max, 70.0, 1e-6);
        CHECK_NEAR(rig_statistics(&rig, SWAP)->mean, megabytes(750), 1e-9);
        CHECK_NEAR(rig_statistics(&rig, DIRTY)->mean, megabytes(11), 1e-9);
        CHECK_NEAR(rig_statistics(&rig, DIRTY)->max, megabytes(20), 1e-9);
    }
    check_case(NULL);
    CHECK_U64(rig_source(&rig, "memory_detail").calls, 31);
    rig_close(&rig);
}

/* What a machine has from the beginning decides which series it has. */
static void test_what_there_is(void)
{
    static const struct {
        const char *meminfo; /* NULL: no such file */
        const char *vmstat;
        double swap_kib; /* NaN: no such series */
        double dirty_kib;
        double faults;
    } cases[] = {
        {"SwapTotal: 0 kB\nSwapFree: 0 kB\nDirty: 0 kB\n", "pgmajfault 0\n", 0, 0, 0},
        {"SwapTotal: 9 kB\nSwapFree: 9 kB\nDirty: 3 kB\n", NULL, 0, 3, CHECK_NAN},
        {NULL, "pgmajfault 4\n", CHECK_NAN, CHECK_NAN, 4},
        {NULL, "xpgmajfault 4\npgmajfault_s 5\nPGMAJFAULT 6\npgmajfault 7\n", CHECK_NAN, CHECK_NAN,
         7},
        {"Dirty: 3 kB\n", "pgfault 1\n", CHECK_NAN, 3, CHECK_NAN},
        {"SwapTotal: 9 kB\nDirty: 3 kB\n", NULL, CHECK_NAN, 3, CHECK_NAN},
        {"SwapFree: 9 kB\nSwapTotal: 10 kB\n", NULL, 1, CHECK_NAN, CHECK_NAN},
        {"SwapTotal: 9 kB\nSwapFree: 10 kB\nDirty: 3 kB\n", NULL, CHECK_NAN, 3, CHECK_NAN},
        {"Dirty: 3 kB\nDirty: 4 kB\n", NULL, CHECK_NAN, 3, CHECK_NAN},
        {NULL, "pgmajfault 9007199254740992\n", CHECK_NAN, CHECK_NAN, 0x1p53},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s %s", cases[i].meminfo, cases[i].vmstat);
        proc_tree tree;
        source_probe probe;
        tree_create(&tree);
        if (cases[i].meminfo != NULL)
            tree_write_text(&tree, "meminfo", cases[i].meminfo);
        if (cases[i].vmstat != NULL)
            tree_write_text(&tree, "vmstat", cases[i].vmstat);
        probe_open(&probe, "memory_detail", &tree);
        CHECK_INT(probe_sample(&probe), 0);
        const char *const keys[] = {SWAP, DIRTY, FAULTS};
        const double expected[] = {megabytes(cases[i].swap_kib), megabytes(cases[i].dirty_kib),
                                   cases[i].faults};
        for (int s = 0; s < 3; s++) {
            CHECK(probe_has(&probe, keys[s]) == !isnan(expected[s]));
            if (probe_has(&probe, keys[s]))
                CHECK_NEAR(probe_value(&probe, keys[s]), expected[s], 1e-9);
        }
        probe_close(&probe);
        tree_destroy(&tree);
    }
    check_case(NULL);
}

static void test_nothing_there(void)
{
    static const char *const nothing[] = {
        "",
        "\n",
        "pgmajfault",
        "pgmajfault 5",
        "pgmajfault\n",
        "pgmajfault x\n",
        "pgmajfault 9007199254740993\n",
        "SwapTotal: 9 kB\n",
        "Dirty: 5",
        "Dirty: -5 kB\n",
        "Dirty: 1e2 kB\n",
        "Dirty: 18446744073709551616 kB\n",
        " Dirty: 5 kB\n",
        "dirty: 5 kB\n",
        "\xff\xfe\n",
    };
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    CHECK_INT(open_source(&probe, &tree), -ENODATA);
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) {
        check_case("%s", nothing[i]);
        tree_write_text(&tree, "meminfo", nothing[i]);
        tree_write_text(&tree, "vmstat", nothing[i]);
        CHECK_INT(open_source(&probe, &tree), -ENODATA);
    }
    check_case(NULL);
    tree_destroy(&tree);
}

/* A bad file hides only its own values, until it is well again. */
static void test_files_fail_alone(void)
{
    static const char *const bad[] = {
        "",
        "\xff\xfe\n",
        "SwapTotal: 8388604 kB\nSwapFree: many kB\nDirty: 1 kB\npgmajfault many\n",
        "SwapTotal: 8388604 kB\nSwapFree: 9 kB\nDirty: 1\npgmajfault 1",
        "SwapTotal: 18446744073709551616 kB\npgmajfault 18446744073709551616\n",
    };
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    write_both(&tree);
    probe_open(&probe, "memory_detail", &tree);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_case("%s", bad[i]);
        bool is_half_good = strstr(bad[i], "Dirty: 1\n") != NULL; /* the newline ends it */
        CHECK_INT(probe_sample_text(&probe, &tree, "meminfo", bad[i]), is_half_good ? 0 : -EBADMSG);
        if (!is_half_good) {
            CHECK_ABSENT(probe_value(&probe, SWAP));
            CHECK_ABSENT(probe_value(&probe, DIRTY));
        }
        CHECK_DOUBLE(probe_value(&probe, FAULTS), MAJOR_FAULTS);
        write_both(&tree);
        CHECK_INT(probe_sample_text(&probe, &tree, "vmstat", bad[i]), -EBADMSG);
        CHECK_ABSENT(probe_value(&probe, FAULTS));
        CHECK_NEAR(probe_value(&probe, SWAP), megabytes(SWAP_USED_KIB), 1e-9);
        write_both(&tree);
        check_healthy(&probe, probe_sample(&probe));
    }
    check_case(NULL);

    /* A container's SwapFree beside the host's SwapTotal, for a while. */
    CHECK_INT(probe_sample_text(&probe, &tree, "meminfo",
                                "SwapTotal: 9 kB\nSwapFree: 10 kB\nDirty: 108 kB\n"),
              -EBADMSG);
    CHECK_ABSENT(probe_value(&probe, SWAP));
    CHECK_NEAR(probe_value(&probe, DIRTY), megabytes(DIRTY_KIB), 1e-12);
    probe_close(&probe);
    tree_destroy(&tree);
}

/* Absent, or the same as of the whole file. */
static void test_cut_anywhere(void)
{
    const size_t dirty = (size_t)(strstr(meminfo, "Writeback:") - meminfo);
    const size_t faults = (size_t)(strstr(vmstat, "pgrefill") - vmstat);
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    write_both(&tree);
    probe_open(&probe, "memory_detail", &tree);
    for (size_t length = 0; length <= strlen(meminfo); length++) {
        check_case("%zu bytes of meminfo", length);
        tree_write(&tree, "meminfo", meminfo, length);
        CHECK_INT(probe_sample(&probe), length < dirty ? -EBADMSG : 0);
        double used = probe_value(&probe, SWAP);
        CHECK(isnan(used) ? length < dirty : fabs(used - megabytes(SWAP_USED_KIB)) < 1e-9);
        if (length < dirty)
            CHECK_ABSENT(probe_value(&probe, DIRTY));
        else
            CHECK_NEAR(probe_value(&probe, DIRTY), megabytes(DIRTY_KIB), 1e-12);
    }
    for (size_t length = 0; length <= strlen(vmstat); length++) {
        check_case("%zu bytes of vmstat", length);
        tree_write(&tree, "vmstat", vmstat, length);
        CHECK_INT(probe_sample(&probe), length < faults ? -EBADMSG : 0);
        CHECK_DOUBLE(probe_value(&probe, FAULTS), length < faults ? CHECK_NAN : MAJOR_FAULTS);
    }
    check_case(NULL);
    probe_close(&probe);
    tree_destroy(&tree);
}

static void test_mutations(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    write_both(&tree);
    probe_open(&probe, "memory_detail", &tree);
    char mutated[2 * sizeof meminfo + 16];
    chance_state chance = {20240511};
    for (int i = 0; i < 3000; i++) {
        check_case("mutation %d", i);
        bool of_meminfo = i % 2 == 0;
        const char *text = of_meminfo ? meminfo : vmstat;
        size_t damaged = chance_mutate(&chance, text, strlen(text), mutated);
        tree_write(&tree, of_meminfo ? "meminfo" : "vmstat", mutated, damaged);
        int error = probe_sample(&probe);
        const char *const keys[] = {SWAP, DIRTY, FAULTS};
        for (int s = 0; s < 3; s++) {
            double value = probe_value(&probe, keys[s]);
            CHECK(isnan(value) ? error < 0 : isfinite(value) && value >= 0.0);
        }
        write_both(&tree);
    }
    check_case(NULL);
    check_healthy(&probe, probe_sample(&probe));
    probe_close(&probe);
    tree_destroy(&tree);
}

static void test_large_vmstat(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    write_both(&tree);
    probe_open(&probe, "memory_detail", &tree);
    size_t before = 50000;
    char *text = malloc(before * 12 + sizeof vmstat);
    REQUIRE(text != NULL);
    size_t length = 0;
    for (size_t i = 0; i < before; i++)
        length += (size_t)sprintf(text + length, "k%zu 1\n", i);
    memcpy(text + length, vmstat, sizeof vmstat);
    check_healthy(&probe, probe_sample_text(&probe, &tree, "vmstat", text));
    free(text);
    probe_close(&probe);
    tree_destroy(&tree);
}

static void test_real_files(void)
{
    proc_tree machine;
    source_probe probe;
    tree_create(&machine);
    REQUIRE(symlinkat("/proc/meminfo", machine.root, "meminfo") == 0);
    REQUIRE(symlinkat("/proc/vmstat", machine.root, "vmstat") == 0);
    probe_open(&probe, "memory_detail", &machine);
    CHECK_INT(probe_sample(&probe), 0);
    CHECK(probe_value(&probe, DIRTY) >= 0.0);
    CHECK(!probe_has(&probe, SWAP) || probe_value(&probe, SWAP) >= 0.0);
    probe_close(&probe);
    tree_destroy(&machine);
}

int main(void)
{
    test_schema();
    test_exact_rate();
    test_what_there_is();
    test_nothing_there();
    test_files_fail_alone();
    test_cut_anywhere();
    test_mutations();
    test_large_vmstat();
    test_real_files();
    return check_report();
}

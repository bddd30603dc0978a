/* The source `pressure` on made-up /proc/pressure files. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chance.h"
#include "check.h"
#include "probe.h"
#include "rig.h"

enum {
    CPU_SOME,
    MEMORY_SOME,
    MEMORY_FULL,
    IO_SOME,
    IO_FULL,
    TOTALS
};

static const char *const keys[TOTALS] = {
    "pressure_cpu_some_percentage",    "pressure_memory_some_percentage",
    "pressure_memory_full_percentage", "pressure_io_some_percentage",
    "pressure_io_full_percentage",
};

typedef struct {
    uint64_t total[TOTALS];
} stall_times;

static const stall_times base = {{1075775383, 1540805, 1478244, 157123495, 122690280}};

static const char *const paths[] = {"pressure/cpu", "pressure/memory", "pressure/io"};

static void write_file(const proc_tree *tree, const char *path, uint64_t some, uint64_t full)
{
    char text[256];
    snprintf(text, sizeof text,
             "some avg10=31.86 avg60=13.36 avg300=4.27 total=%llu\n"
             "full avg10=0.00 avg60=0.00 avg300=0.00 total=%llu\n",
             (unsigned long long)some, (unsigned long long)full);
    tree_write_text(tree, path, text);
}

static void write_all(const proc_tree *tree, const stall_times *times)
{
    write_file(tree, paths[0], times->total[CPU_SOME], 0);
    write_file(tree, paths[1], times->total[MEMORY_SOME], times->total[MEMORY_FULL]);
    write_file(tree, paths[2], times->total[IO_SOME], times->total[IO_FULL]);
}

static int open_source(source_probe *probe, const proc_tree *tree)
{
    smn_environment environment = {.procfs = tree->root, .sysfs = -1, .disk_paths = "/"};
    return probe_open_in(probe, "pressure", &environment);
}

/* What the column says, in microseconds. */
static double total(const source_probe *probe, int which)
{
    return probe_value(probe, keys[which]) * 1e4;
}

static void check_totals(const source_probe *probe, const stall_times *times)
{
    for (int i = 0; i < TOTALS; i++)
        CHECK_NEAR(total(probe, i), (double)times->total[i], 1e-3);
}

static void test_schema(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    write_all(&tree, &base);
    probe_open(&probe, "pressure", &tree);
    CHECK(!probe.source->by_default);
    CHECK_U64(probe.source->min_interval_ns, 10000000);
    if (CHECK_INT(probe.schema.series_count, TOTALS)) {
        for (int i = 0; i < TOTALS; i++) {
            const smn_series_spec *spec = &probe.schema.series[i].spec;
            CHECK_TEXT(spec->key, keys[i]);
            CHECK_TEXT(spec->unit, "percentage");
            CHECK_INT(spec->kind, SMN_RATE);
            CHECK_DOUBLE(spec->scale, 1e-4);
        }
    }
    CHECK_INT(probe_sample(&probe), 0);
    check_totals(&probe, &base);
    probe_close(&probe);
    tree_destroy(&tree);
}

/* Each total grows by a known share of each second; one that falls adds neither stall nor time. */
static void test_exact_rates(void)
{
    static const uint64_t per_tick[TOTALS] = {100000, 25000, 12500, 50, 0}; /* in 100 ms */
    static const double percentages[TOTALS] = {100.0, 25.0, 12.5, 0.05, 0.0};
    sampler_rig rig;
    rig_prepare(&rig);
    stall_times now = base;
    write_all(&rig.tree, &now);
    rig_create(&rig, "pressure", 100000000, 10);
    REQUIRE(smn_sampler_start(rig.sampler) == 0);
    for (int window = 0; window < 3; window++) {
        check_case("window %d", window);
        for (int tick = 0; tick < 10; tick++) {
            for (int i = 0; i < TOTALS; i++)
                now.total[i] += per_tick[i];
            if (window == 1 && tick == 4) /* as after a restore from a snapshot */
                now = base;
            write_all(&rig.tree, &now);
            rig_tick(&rig, 1);
        }
        REQUIRE(rig_take(&rig) == 0);
        for (int i = 0; i < TOTALS; i++) {
            const smn_statistics *statistics = rig_statistics(&rig, keys[i]);
            CHECK_NEAR(statistics->mean, percentages[i], 1e-6);
            CHECK_NEAR(statistics->min, percentages[i], 1e-6);
            CHECK_NEAR(statistics->max, percentages[i], 1e-6);
        }
    }
    check_case(NULL);
    rig_close(&rig);
}

/* A stall of 30 ms in a second shows in the largest span, and thinly in the mean. */
static void test_short_stall(void)
{
    sampler_rig rig;
    rig_prepare(&rig);
    stall_times now = base;
    write_all(&rig.tree, &now);
    rig_create(&rig, "pressure", 1000000, 1000);
    REQUIRE(smn_sampler_start(rig.sampler) == 0);
    for (int tick = 0; tick < 1000; tick++) {
        if (tick >= 500 && tick < 530)
            now.total[IO_SOME] += 1000;
        write_file(&rig.tree, paths[2], now.total[IO_SOME], now.total[IO_FULL]);
        rig_tick(&rig, 1);
    }
    REQUIRE(rig_take(&rig) == 0);
    CHECK_NEAR(rig_statistics(&rig, keys[IO_SOME])->mean, 3.0, 1e-6);
    CHECK_NEAR(rig_statistics(&rig, keys[IO_SOME])->max, 100.0, 1e-6);
    CHECK_U64(rig_source(&rig, "pressure").calls, 101); /* every tenth tick and the first */
    rig_close(&rig);
}

/* What the kernel does not have is unknown, and no failure. */
static void test_missing_files(void)
{
    for (int missing = 0; missing < 8; missing++) {
        check_case("without files %d", missing);
        proc_tree tree;
        source_probe probe;
        tree_create(&tree);
        write_all(&tree, &base);
        for (int file = 0; file < 3; file++) {
            if ((missing & 1 << file) != 0)
                tree_remove(&tree, paths[file]);
        }
        int error = open_source(&probe, &tree);
        CHECK_INT(error, missing == 7 ? -ENODATA : 0);
        if (error == 0) {
            CHECK(probe_has(&probe, keys[CPU_SOME]) == ((missing & 1) == 0));
            CHECK(probe_has(&probe, keys[MEMORY_SOME]) == ((missing & 2) == 0));
            CHECK(probe_has(&probe, keys[MEMORY_FULL]) == ((missing & 2) == 0));
            CHECK(probe_has(&probe, keys[IO_SOME]) == ((missing & 4) == 0));
            CHECK(probe_has(&probe, keys[IO_FULL]) == ((missing & 4) == 0));
            CHECK_INT(probe_sample(&probe), 0);
            for (int i = 0; i < TOTALS; i++) {
                if (probe_has(&probe, keys[i]))
                    CHECK_NEAR(total(&probe, i), (double)base.total[i], 1e-3);
            }
            probe_close(&probe);
        }
        tree_destroy(&tree);
    }
    check_case(NULL);
}

/* With psi=0 the files can be opened, but not read; here they are folders. */
static void test_unreadable_files(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    write_all(&tree, &base);
    for (int file = 0; file < 3; file++) {
        tree_remove(&tree, paths[file]);
        REQUIRE(mkdirat(tree.root, paths[file], 0755) == 0);
    }
    CHECK_INT(open_source(&probe, &tree), -ENODATA);
    tree_remove(&tree, paths[1]);
    write_file(&tree, paths[1], 5, 3);
    REQUIRE(open_source(&probe, &tree) == 0);
    CHECK_INT(probe.schema.series_count, 2);
    CHECK_INT(probe_sample(&probe), 0);
    CHECK_NEAR(total(&probe, MEMORY_SOME), 5.0, 1e-9);
    CHECK_NEAR(total(&probe, MEMORY_FULL), 3.0, 1e-9);
    probe_close(&probe);
    tree_destroy(&tree);
}

/* Kernels before 5.13 have no "full" for the CPU. */
static void test_old_kernel(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    tree_write_text(&tree, paths[0], "some avg10=0.00 avg60=0.00 avg300=0.00 total=17\n");
    probe_open(&probe, "pressure", &tree);
    CHECK_INT(probe.schema.series_count, 1);
    CHECK_INT(probe_sample(&probe), 0);
    CHECK_NEAR(total(&probe, CPU_SOME), 17.0, 1e-9);
    probe_close(&probe);
    tree_destroy(&tree);
}

/* One file that is gone or bad hides only its own values, until it is back. */
static void test_files_fail_alone(void)
{
    static const char *const bad[] = {
        "",
        "\n",
        "some\nfull\n",
        "some avg10=0.00 avg60=0.00 avg300=0.00\nfull avg10=0.00\n",
        "some avg10=0.00 total=\nfull total= 5\n",
        "some total=-1\nfull total=-1\n",
        "some total=1.5\nfull total=x\n",
        "some total=18446744073709551616\nfull total=18446744073709551616\n",
        "some total=9007199254740993\nfull total=9007199254740993\n",
        "some total=5",
        "SOME total=5\nFULL total=5\n",
        "some subtotal=5\nfull subtotal=5\n",
        "\xff\xfe\x80garbage\n",
    };
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    write_all(&tree, &base);
    probe_open(&probe, "pressure", &tree);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_case("%s", bad[i]);
        CHECK(probe_sample_text(&probe, &tree, paths[2], bad[i]) < 0);
        CHECK_ABSENT(probe_value(&probe, keys[IO_SOME]));
        CHECK_ABSENT(probe_value(&probe, keys[IO_FULL]));
        CHECK_NEAR(total(&probe, CPU_SOME), (double)base.total[CPU_SOME], 1e-3);
        CHECK_NEAR(total(&probe, MEMORY_FULL), (double)base.total[MEMORY_FULL], 1e-3);
        write_all(&tree, &base);
        CHECK_INT(probe_sample(&probe), 0);
        check_totals(&probe, &base);
    }
    check_case(NULL);
    probe_close(&probe);

    probe_open(&probe, "pressure", &tree);
    tree_remove(&tree, paths[1]);
    tree_remove(&tree, paths[2]);
    CHECK_INT(probe_sample(&probe), 0); /* still open, from the look at what is there */
    check_totals(&probe, &base);
    probe_close(&probe);
    tree_destroy(&tree);
}

/* Cut anywhere, each total is absent or the same. */
static void test_cut_anywhere(void)
{
    static const char text[] = "some avg10=0.00 avg60=0.68 avg300=0.36 total=157123495\n"
                               "full avg10=0.00 avg60=0.46 avg300=0.26 total=122690280\n";
    const size_t some = (size_t)(strchr(text, '\n') - text) + 1;
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    tree_write_text(&tree, paths[2], text);
    probe_open(&probe, "pressure", &tree);
    for (size_t length = 0; length < sizeof text; length++) {
        check_case("%zu bytes", length);
        tree_write(&tree, paths[2], text, length);
        CHECK_INT(probe_sample(&probe), length == sizeof text - 1 ? 0 : -EBADMSG);
        if (length < some)
            CHECK_ABSENT(probe_value(&probe, keys[IO_SOME]));
        else
            CHECK_NEAR(total(&probe, IO_SOME), 157123495.0, 1e-3);
        if (length < sizeof text - 1)
            CHECK_ABSENT(probe_value(&probe, keys[IO_FULL]));
        else
            CHECK_NEAR(total(&probe, IO_FULL), 122690280.0, 1e-3);
    }
    check_case(NULL);
    probe_close(&probe);
    tree_destroy(&tree);
}

static void test_mutations(void)
{
    static const char text[] = "some avg10=0.00 avg60=0.68 avg300=0.36 total=157123495\n"
                               "full avg10=0.00 avg60=0.46 avg300=0.26 total=122690280\n";
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    write_all(&tree, &base);
    probe_open(&probe, "pressure", &tree);
    char mutated[2 * sizeof text + 16];
    chance_state chance = {20240510};
    for (int i = 0; i < 3000; i++) {
        check_case("mutation %d", i);
        size_t damaged = chance_mutate(&chance, text, sizeof text - 1, mutated);
        tree_write(&tree, paths[1], mutated, damaged);
        int error = probe_sample(&probe);
        for (int which = MEMORY_SOME; which <= MEMORY_FULL; which++) {
            double value = total(&probe, which);
            CHECK(isnan(value) ? error < 0 : value >= 0.0 && value <= 0x1p53);
        }
        CHECK_NEAR(total(&probe, IO_SOME), (double)base.total[IO_SOME], 1e-3);
    }
    check_case(NULL);
    probe_close(&probe);
    tree_destroy(&tree);
}

static void test_real_files(void)
{
    proc_tree machine;
    source_probe probe;
    tree_create(&machine);
    REQUIRE(symlinkat("/proc/pressure", machine.root, "pressure") == 0);
    int error = open_source(&probe, &machine);
    if (error != 0) {
        CHECK_INT(error, -ENODATA);
        tree_destroy(&machine);
        return;
    }
    double before[TOTALS] = {0};
    for (int reading = 0; reading < 3; reading++) {
        CHECK_INT(probe_sample(&probe), 0);
        for (int i = 0; i < TOTALS; i++) {
            if (!probe_has(&probe, keys[i]))
                continue;
            CHECK(total(&probe, i) >= before[i]);
            before[i] = total(&probe, i);
        }
    }
    probe_close(&probe);
    tree_destroy(&machine);
}

int main(void)
{
    test_schema();
    test_exact_rates();
    test_short_stall();
    test_missing_files();
    test_unreadable_files();
    test_old_kernel();
    test_files_fail_alone();
    test_cut_anywhere();
    test_mutations();
    test_real_files();
    return check_report();
}

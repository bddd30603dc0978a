/* The source `memory` on made-up /proc/meminfo files. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chance.h"
#include "check.h"
#include "probe.h"

static const char USED[] = "system_memory_usage_megabytes";
static const char PERCENTAGE[] = "system_memory_usage_percentage";

static const char modern[] = "MemTotal:       24689764 kB\n"
                             "MemFree:        21998392 kB\n"
                             "MemAvailable:   23722844 kB\n"
                             "Buffers:           25680 kB\n"
                             "Cached:          1803204 kB\n"
                             "SwapCached:            0 kB\n"
                             "Active:           451808 kB\n"
                             "Inactive:        1878752 kB\n"
                             "Active(anon):       1552 kB\n"
                             "Shmem:              8856 kB\n"
                             "KReclaimable:     201332 kB\n"
                             "Slab:             231288 kB\n"
                             "SReclaimable:     201332 kB\n"
                             "SUnreclaim:        29956 kB\n"
                             "VmallocTotal:   34359738367 kB\n"
                             "HugePages_Total:       0\n"
                             "Hugepagesize:       2048 kB\n"
                             "DirectMap1G:    25165824 kB\n";

/* Before Linux 3.14. */
static const char old[] = "MemTotal:       24689764 kB\n"
                          "MemFree:        21998392 kB\n"
                          "Buffers:           25680 kB\n"
                          "Cached:          1803204 kB\n"
                          "SwapCached:         4711 kB\n"
                          "Slab:             231288 kB\n"
                          "SReclaimable:     201332 kB\n"
                          "SUnreclaim:        29956 kB\n";

enum {
    TOTAL_KIB = 24689764,
    MODERN_USED_KIB = TOTAL_KIB - 23722844,
    OLD_USED_KIB = TOTAL_KIB - 21998392 - 25680 - 1803204 - 201332
};

static void check_absent(const source_probe *probe, int error)
{
    CHECK(error < 0);
    CHECK_ABSENT(probe_value(probe, USED));
    CHECK_ABSENT(probe_value(probe, PERCENTAGE));
}

static void check_used(const source_probe *probe, int error, double used_kib, double total_kib)
{
    CHECK_INT(error, 0);
    CHECK_NEAR(probe_value(probe, USED), used_kib * 1024.0 / 1e6, 1e-9 * used_kib);
    CHECK_NEAR(probe_value(probe, PERCENTAGE), used_kib / total_kib * 100.0, 1e-12);
}

static void test_schema(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "memory", &tree);
    CHECK(probe.source->by_default);
    if (CHECK_INT(probe.schema.series_count, 2)) {
        const smn_series *series = probe.schema.series;
        CHECK_TEXT(series[0].spec.key, USED);
        CHECK_TEXT(series[0].spec.unit, "megabytes");
        CHECK_INT(series[0].spec.kind, SMN_GAUGE);
        CHECK_TEXT(series[1].spec.key, PERCENTAGE);
        CHECK_TEXT(series[1].spec.unit, "percentage");
        CHECK_INT(series[1].spec.kind, SMN_GAUGE);
    }
    probe_close(&probe);
    tree_destroy(&tree);
}

static void test_formulas(void)
{
    static const struct {
        const char *text;
        double used_kib;
        double total_kib;
    } cases[] = {
        {modern, MODERN_USED_KIB, TOTAL_KIB},
        {old, OLD_USED_KIB, TOTAL_KIB},
        /* Every key where the eye expects it, in another order, in tight columns. */
        {"MemAvailable: 30 kB\nMemTotal: 100 kB\n", 70, 100},
        {"Cached: 4 kB\nBuffers: 3 kB\nMemFree: 2 kB\nMemTotal: 100 kB\n", 91, 100},
        {"MemTotal:100 kB\nMemAvailable:30 kB\n", 70, 100},
        {"MemTotal:\t100\tkB\nMemAvailable:\t30\tkB\n", 70, 100},
        {"MemTotal: 100\nMemAvailable: 30\n", 70, 100},
        /* The ends of the scale. */
        {"MemTotal: 100 kB\nMemAvailable: 100 kB\n", 0, 100},
        {"MemTotal: 100 kB\nMemAvailable: 0 kB\n", 100, 100},
        {"MemTotal: 17592186044416 kB\nMemAvailable: 1 kB\n", 17592186044415, 17592186044416},
        /* A container's own MemTotal beside the host's MemAvailable, which then says nothing. */
        {"MemTotal: 100 kB\nMemFree: 50 kB\nMemAvailable: 101 kB\nBuffers: 3 kB\nCached: 7 kB\n",
         40, 100},
        {"MemTotal: 100 kB\nMemFree: 50 kB\nMemAvailable: 999 kB\nBuffers: 3 kB\nCached: 7 kB\n"
         "SReclaimable: 5 kB\n",
         35, 100},
        /* Before 2.6.19 there was no SReclaimable. */
        {"MemTotal: 100 kB\nMemFree: 50 kB\nBuffers: 3 kB\nCached: 7 kB\nSlab: 9 kB\n", 40, 100},
        /* Keys that only end like ours. */
        {"XMemTotal: 1 kB\nMemTotal: 100 kB\nMemFree: 50 kB\nBuffers: 3 kB\nSwapCached: 8 kB\n"
         "Cached: 7 kB\nKReclaimable: 6 kB\n",
         40, 100},
        /* The first of two counts. */
        {"MemTotal: 100 kB\nMemTotal: 200 kB\nMemAvailable: 30 kB\n", 70, 100},
        /* A line that nobody needs may be as odd as it likes. */
        {"\n\xff\nnonsense\nMemTotal: 100 kB\nActive: x kB\nMemAvailable: 30 kB\nCached: y", 70,
         100},
    };
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "memory", &tree);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].text);
        int error = probe_sample_text(&probe, &tree, "meminfo", cases[i].text);
        check_used(&probe, error, cases[i].used_kib, cases[i].total_kib);
    }
    check_case(NULL);
    probe_close(&probe);
    tree_destroy(&tree);
}

static void test_garbage(void)
{
    static const char *const files[] = {
        "",
        "\n",
        "\xff\xfe\n",
        "MemTotal",
        "MemTotal:\n",
        "MemTotal: 100 kB\n",
        "MemAvailable: 30 kB\n",
        "MemTotal: 0 kB\nMemAvailable: 0 kB\n",
        "MemTotal: 0 kB\nMemFree: 0 kB\nBuffers: 0 kB\nCached: 0 kB\n",
        "MemTotal: 100 kB\nMemAvailable: 30",
        "MemTotal: 100 kB\nMemAvailable: -30 kB\n",
        "MemTotal: -100 kB\nMemAvailable: 30 kB\n",
        "MemTotal: 1e2 kB\nMemAvailable: 30 kB\n",
        "MemTotal: 100kB\nMemAvailable: 30kB\n",
        "MemTotal: 100 kB\nMemAvailable: 18446744073709551616 kB\n",
        "MemTotal: 99999999999999999999999 kB\nMemAvailable: 30 kB\n",
        "MemTotal: 100 kB\nMemAvailable: 101 kB\n",
        "MemTotal: 100 kB\nMemFree: 50 kB\nCached: 7 kB\n",
        "MemTotal: 100 kB\nMemFree: 50 kB\nBuffers: 7 kB\n",
        "MemTotal: 100 kB\nBuffers: 50 kB\nCached: 7 kB\n",
        "MemFree: 50 kB\nBuffers: 3 kB\nCached: 7 kB\n",
        "MemTotal: 100 kB\nMemFree: 90 kB\nBuffers: 7 kB\nCached: 4 kB\n",
        "MemTotal: 100 kB\nMemFree: 50 kB\nBuffers: 3 kB\nCached: 7 kB\nSReclaimable: 41 kB\n",
        "MemTotal: 100 kB\nMemFree: 50 kB\nBuffers: 3 kB\nCached: 7 kB\nSReclaimable: x kB\n",
        "MemTotal: 100 kB\nMemFree: 50 kB\nBuffers: 3 kB\nCached: 7 kB\nSReclaimable: 4",
        "MemTotal: 100 kB\nMemFree: 18446744073709551615 kB\nBuffers: 3 kB\nCached: 7 kB\n",
        "MemTotal: 100 kB\nMemAvailable: many kB\nMemFree: 50 kB\nBuffers: 3 kB\nCached: 7 kB\n",
        "memtotal: 100 kB\nmemavailable: 30 kB\n",
        " MemTotal: 100 kB\n MemAvailable: 30 kB\n",
    };
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "memory", &tree);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        check_case("%s", files[i]);
        check_absent(&probe, probe_sample_text(&probe, &tree, "meminfo", files[i]));
        int error = probe_sample_text(&probe, &tree, "meminfo", modern);
        check_used(&probe, error, MODERN_USED_KIB, TOTAL_KIB);
    }
    check_case(NULL);
    probe_close(&probe);
    tree_destroy(&tree);
}

static size_t end_of_line_with(const char *text, const char *key)
{
    return (size_t)(strchr(strstr(text, key) + 1, '\n') - text) + 1;
}

/* Absent, or the same as of the whole file. */
static void test_cut_anywhere(void)
{
    size_t available = end_of_line_with(modern, "MemAvailable:");
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "memory", &tree);
    for (size_t length = 0; length <= strlen(modern); length++) {
        check_case("%zu of %zu bytes", length, strlen(modern));
        tree_write(&tree, "meminfo", modern, length);
        int error = probe_sample(&probe);
        if (length < available)
            check_absent(&probe, error);
        else
            check_used(&probe, error, MODERN_USED_KIB, TOTAL_KIB);
    }
    check_case(NULL);
    probe_close(&probe);
    tree_destroy(&tree);
}

/* Without MemAvailable all lines are needed, so that any half line makes it absent. */
static void test_old_file_cut_anywhere(void)
{
    size_t cached = end_of_line_with(old, "\nCached:");
    size_t reclaimable = end_of_line_with(old, "SReclaimable:");
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "memory", &tree);
    for (size_t length = 0; length <= strlen(old); length++) {
        check_case("%zu of %zu bytes", length, strlen(old));
        tree_write(&tree, "meminfo", old, length);
        int error = probe_sample(&probe);
        if (length < cached || old[length - 1] != '\n')
            check_absent(&probe, error);
        else if (length < reclaimable) /* just what a kernel without SReclaimable writes */
            check_used(&probe, error, OLD_USED_KIB + 201332, TOTAL_KIB);
        else
            check_used(&probe, error, OLD_USED_KIB, TOTAL_KIB);
    }
    check_case(NULL);
    probe_close(&probe);
    tree_destroy(&tree);
}

static void test_file_comes_and_goes(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "memory", &tree);
    for (int i = 0; i < 3; i++) {
        int error = probe_sample(&probe);
        CHECK_INT(error, -ENOENT);
        check_absent(&probe, error);
    }
    check_used(&probe, probe_sample_text(&probe, &tree, "meminfo", modern), MODERN_USED_KIB,
               TOTAL_KIB);
    check_absent(&probe, probe_sample_text(&probe, &tree, "meminfo", ""));
    check_used(&probe, probe_sample_text(&probe, &tree, "meminfo", old), OLD_USED_KIB, TOTAL_KIB);
    probe_close(&probe);
    tree_destroy(&tree);
}

static void test_large_file(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "memory", &tree);
    size_t before = 100000;
    char *text = malloc(before * 12 + sizeof old);
    REQUIRE(text != NULL);
    size_t length = 0;
    for (size_t i = 0; i < before; i++)
        length += (size_t)sprintf(text + length, "K%zu: 1\n", i);
    memcpy(text + length, old, sizeof old);
    check_used(&probe, probe_sample_text(&probe, &tree, "meminfo", text), OLD_USED_KIB, TOTAL_KIB);
    free(text);
    probe_close(&probe);
    tree_destroy(&tree);
}

static void test_real_file(void)
{
    proc_tree machine;
    source_probe probe;
    tree_create(&machine);
    REQUIRE(symlinkat("/proc/meminfo", machine.root, "meminfo") == 0);
    probe_open(&probe, "memory", &machine);
    CHECK_INT(probe_sample(&probe), 0);
    double percentage = probe_value(&probe, PERCENTAGE);
    double used = probe_value(&probe, USED);
    CHECK(percentage > 0.0 && percentage < 100.0);
    FILE *meminfo = fopen("/proc/meminfo", "re");
    unsigned long long total_kib = 0;
    REQUIRE(meminfo != NULL && fscanf(meminfo, "MemTotal: %llu kB", &total_kib) == 1);
    fclose(meminfo);
    CHECK_NEAR(used / percentage * 100.0, (double)total_kib * 1024.0 / 1e6, 1e-3);
    probe_close(&probe);
    tree_destroy(&machine);
}

static void test_mutations(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "memory", &tree);
    char mutated[2 * sizeof modern + 16];
    chance_state chance = {20240502};
    for (int i = 0; i < 6000; i++) {
        check_case("mutation %d", i);
        const char *text = i % 2 == 0 ? modern : old;
        size_t damaged = chance_mutate(&chance, text, strlen(text), mutated);
        tree_write(&tree, "meminfo", mutated, damaged);
        int error = probe_sample(&probe);
        if (error != 0) {
            check_absent(&probe, error);
            continue;
        }
        double used = probe_value(&probe, USED);
        double percentage = probe_value(&probe, PERCENTAGE);
        CHECK(isfinite(used) && used >= 0.0);
        CHECK(percentage >= 0.0 && percentage <= 100.0);
    }
    check_case(NULL);
    check_used(&probe, probe_sample_text(&probe, &tree, "meminfo", modern), MODERN_USED_KIB,
               TOTAL_KIB);
    probe_close(&probe);
    tree_destroy(&tree);
}

int main(void)
{
    test_schema();
    test_formulas();
    test_garbage();
    test_cut_anywhere();
    test_old_file_cut_anywhere();
    test_file_comes_and_goes();
    test_large_file();
    test_real_file();
    test_mutations();
    return check_report();
}

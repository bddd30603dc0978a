/* The source `disk_io` on made-up /proc/diskstats files. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chance.h"
#include "check.h"
#include "fake_clock.h"
#include "probe.h"
#include "rig.h"

static const uint64_t MS = 1000000;
static const uint64_t TURN = UINT64_C(1) << 32;

static const char BUSY[] = "disk_busy_percentage";
static const char *const RATES[] = {
    "disk_read_megabytes_per_second",
    "disk_write_megabytes_per_second",
    "disk_read_operations_per_second",
    "disk_write_operations_per_second",
};

typedef struct {
    const char *name; /* NULL ends a list */
    uint64_t reads;
    uint64_t read_sectors;
    uint64_t writes;
    uint64_t written_sectors;
    uint64_t io_ms;
} disk_line;

typedef struct {
    proc_tree tree;
    fake_clock clock;
    source_probe probe;
} fake_disks;

/* ---- files -------------------------------------------------------------- */

static size_t append_disk(char *text, size_t room, const disk_line *disk, int columns)
{
    static const char *const behind[] = {"", " 1 2 3 4", " 1 2 3 4 5 6"};
    int more = columns == 20 ? 2 : columns == 18;
    return (size_t)snprintf(text, room,
                            " 259       1 %s %llu 11 %llu 12 %llu 13 %llu 14 0 %llu 15%s\n",
                            disk->name, (unsigned long long)disk->reads,
                            (unsigned long long)disk->read_sectors,
                            (unsigned long long)disk->writes,
                            (unsigned long long)disk->written_sectors,
                            (unsigned long long)disk->io_ms, behind[more]);
}

static size_t describe(char *text, size_t room, const disk_line *disks, int columns)
{
    size_t length = 0;
    for (*text = '\0'; disks->name != NULL; disks++)
        length += append_disk(text + length, room - length, disks, columns);
    REQUIRE(length < room);
    return length;
}

static void write_disks(const fake_disks *bench, const disk_line *disks)
{
    char text[16384];
    describe(text, sizeof text, disks, 20);
    tree_write_text(&bench->tree, "diskstats", text);
}

static void add_to_sysfs(const fake_disks *bench, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "block/%s/size", name);
    tree_write_text(&bench->tree, path, "1\n");
}

/* ---- readings ----------------------------------------------------------- */

static int open_disks(fake_disks *bench, bool with_sysfs)
{
    smn_environment environment = {.procfs = bench->tree.root,
                                   .sysfs = with_sysfs ? bench->tree.root : -1,
                                   .clock = &bench->clock.clock};
    return probe_open_in(&bench->probe, "disk_io", &environment);
}

static void setup(fake_disks *bench)
{
    tree_create(&bench->tree);
    fake_clock_init(&bench->clock);
}

static void pass(fake_disks *bench, uint64_t ns)
{
    atomic_fetch_add(&bench->clock.now_ns, ns);
}

static int read_disks(fake_disks *bench, const disk_line *disks)
{
    write_disks(bench, disks);
    return probe_sample(&bench->probe);
}

/* In sectors and operations: read, written, reads, writes. */
static void check_totals(const fake_disks *bench, int error, const double expected[4])
{
    CHECK_INT(error, 0);
    for (int i = 0; i < 4; i++) {
        double scale = i < 2 ? 512e-6 : 1.0;
        CHECK_NEAR(probe_value(&bench->probe, RATES[i]), expected[i] * scale, 1e-9);
    }
}

#define TOTALS(...) ((const double[4]){__VA_ARGS__})

static void check_absent(const fake_disks *bench, int error)
{
    CHECK(error < 0);
    for (int i = 0; i < 4; i++)
        CHECK_ABSENT(probe_value(&bench->probe, RATES[i]));
    CHECK_ABSENT(probe_value(&bench->probe, BUSY));
}

static double busy(const fake_disks *bench)
{
    return probe_value(&bench->probe, BUSY);
}

/* ---- tests -------------------------------------------------------------- */

static void test_schema(void)
{
    static const char *const units[] = {"megabytes per second", "megabytes per second",
                                        "operations per second", "operations per second"};
    fake_disks bench;
    setup(&bench);
    write_disks(&bench, (const disk_line[]){{"sda", 1, 1, 1, 1, 1}, {NULL}});
    REQUIRE(open_disks(&bench, false) == 0);
    CHECK(!bench.probe.source->by_default);
    if (CHECK_INT(bench.probe.schema.series_count, 5)) {
        for (int i = 0; i < 4; i++) {
            const smn_series_spec *spec = &bench.probe.schema.series[i].spec;
            CHECK_TEXT(spec->key, RATES[i]);
            CHECK_TEXT(spec->unit, units[i]);
            CHECK_INT(spec->kind, SMN_RATE);
        }
        const smn_series_spec *spec = &bench.probe.schema.series[4].spec;
        CHECK_TEXT(spec->key, BUSY);
        CHECK_TEXT(spec->unit, "percentage");
        CHECK_INT(spec->kind, SMN_GAUGE);
    }
    probe_close(&bench.probe);
    tree_destroy(&bench.tree);
}

/* No disk is not a disk that does nothing. */
static void test_no_disk(void)
{
    fake_disks bench;
    setup(&bench);
    CHECK_INT(open_disks(&bench, true), -ENODATA);
    tree_write_text(&bench.tree, "diskstats", "");
    CHECK_INT(open_disks(&bench, true), -ENODATA);
    write_disks(&bench, (const disk_line[]){{"loop0", 1, 1, 1, 1, 1},
                                            {"ram0", 1, 1, 1, 1, 1},
                                            {"zram0", 1, 1, 1, 1, 1},
                                            {NULL}});
    for (int with_sysfs = 0; with_sysfs < 2; with_sysfs++)
        CHECK_INT(open_disks(&bench, with_sysfs), -ENODATA);
    tree_destroy(&bench.tree);
}

/* What two readings of one device add to the totals. */
static void test_increases(void)
{
    static const struct {
        const char *what;
        disk_line before;
        disk_line after;
        double expected[4];
    } cases[] = {
        {"nothing", {"sda", 5, 6, 7, 8, 9}, {"sda", 5, 6, 7, 8, 9}, {0, 0, 0, 0}},
        {"some", {"sda", 5, 6, 7, 8, 9}, {"sda", 15, 106, 1007, 10008, 9}, {100, 10000, 10, 1000}},
        {"beyond 32 bits",
         {"sda", TURN - 1, TURN - 1, 0, 0, 0},
         {"sda", TURN + 1, TURN + 9, 0, 0, 0},
         {10, 0, 2, 0}},
        {"reset", {"sda", 100, 100, 100, 100, 9}, {"sda", 1, 1, 1, 1, 1}, {0, 0, 0, 0}},
        {"reset, one has grown", {"sda", 9, 9, 9, 9, 9}, {"sda", 1, 99, 9, 9, 9}, {0, 0, 0, 0}},
        {"another counter",
         {"sda", 1, 1, 1, 1, 1},
         {"sda", 2, UINT64_C(1) << 60, 2, 2, 1},
         {0, 1, 1, 1}},
        {"another device", {"sda", 1, 1, 1, 1, 1}, {"sdb", 9, 9, 9, 9, 9}, {0, 0, 0, 0}},
    };
    fake_disks bench;
    setup(&bench);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        disk_line disks[] = {{"nvme0n1", 1, 2, 3, 4, 5}, cases[i].before, {NULL}};
        write_disks(&bench, disks);
        REQUIRE(open_disks(&bench, false) == 0);
        check_totals(&bench, read_disks(&bench, disks), TOTALS(0, 0, 0, 0));
        disks[1] = cases[i].after;
        check_totals(&bench, read_disks(&bench, disks), cases[i].expected);
        disks[0].reads += 5;
        disks[0].read_sectors += 50;
        disks[1].writes += 6;
        disks[1].written_sectors += 60;
        const double *before = cases[i].expected;
        check_totals(&bench, read_disks(&bench, disks),
                     TOTALS(before[0] + 50, before[1] + 60, before[2] + 5, before[3] + 6));
        probe_close(&bench.probe);
    }
    check_case(NULL);
    tree_destroy(&bench.tree);
}

static void test_layouts(void)
{
    static const int layouts[] = {14, 18, 20};
    fake_disks bench;
    setup(&bench);
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        check_case("%d columns", layouts[i]);
        char text[512];
        describe(text, sizeof text, (const disk_line[]){{"sda", 1, 2, 3, 4, 5}, {NULL}},
                 layouts[i]);
        tree_write_text(&bench.tree, "diskstats", text);
        REQUIRE(open_disks(&bench, false) == 0);
        check_totals(&bench, probe_sample(&bench.probe), TOTALS(0, 0, 0, 0));
        pass(&bench, 100 * MS);
        describe(text, sizeof text, (const disk_line[]){{"sda", 11, 22, 33, 44, 55}, {NULL}},
                 layouts[i]);
        check_totals(&bench, probe_sample_text(&bench.probe, &bench.tree, "diskstats", text),
                     TOTALS(20, 40, 10, 30));
        CHECK_NEAR(busy(&bench), 50.0, 1e-9);
        probe_close(&bench.probe);
    }
    check_case(NULL);
    tree_destroy(&bench.tree);
}

/* Which names count: one read each, so the total says how many did. */
static void test_names(void)
{
    static const struct {
        const char *names; /* parted by blanks */
        const char *in_sysfs;
        int counted;
        int counted_without_sysfs;
    } cases[] = {
        {"sda sda1 sda2 sda15", "sda", 1, 1},
        {"sdaa sdaa1 sda sda1", "sda sdaa", 2, 2},
        {"vda vda1 xvdb xvdb1", "vda xvdb", 2, 2},
        {"xvda1", "xvda1", 1, 1}, /* a whole one that has a partition's name */
        {"nvme0n1 nvme0n1p1 nvme0n1p12 nvme1n1", "nvme0n1 nvme1n1", 2, 2},
        {"nvme0n1 nvme0n11", "nvme0n1 nvme0n11", 2, 2},
        {"mmcblk0 mmcblk0p1 mmcblk0boot0", "mmcblk0 mmcblk0boot0", 2, 2},
        {"nbd1 nbd1p1 nbd11", "nbd1 nbd11", 2, 2},
        {"cciss/c0d0 cciss/c0d0p1", "cciss!c0d0", 1, 1},
        {"sda loop0 ram0 zram0 dm-0 dm-12 md0 md127 md_d0 md_home drbd1 bcache0 zd16",
         "sda loop0 ram0 zram0 dm-0 dm-12 md0 md127 md_d0 md_home drbd1 bcache0 zd16", 1, 1},
        {"rbd0 rbd0p1 sr0 pmem0", "rbd0 sr0 pmem0", 3, 3},
        {"sda sda1", "other", 1, 1}, /* the sysfs of another machine */
    };
    fake_disks bench;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int with_sysfs = 0; with_sysfs < 2; with_sysfs++) {
            check_case("%s, sysfs %d", cases[i].names, with_sysfs);
            disk_line disks[16] = {0};
            char names[256];
            char in_sysfs[256];
            setup(&bench);
            strcpy(names, cases[i].names);
            strcpy(in_sysfs, cases[i].in_sysfs);
            size_t count = 0;
            for (char *rest = names, *name; (name = strsep(&rest, " ")) != NULL;)
                disks[count++].name = name;
            for (char *rest = in_sysfs, *name; (name = strsep(&rest, " ")) != NULL;)
                add_to_sysfs(&bench, name);
            write_disks(&bench, disks);
            REQUIRE(open_disks(&bench, with_sysfs) == 0);
            CHECK_INT(read_disks(&bench, disks), 0);
            for (size_t d = 0; d < count; d++)
                disks[d].reads++;
            int counted = with_sysfs ? cases[i].counted : cases[i].counted_without_sysfs;
            check_totals(&bench, read_disks(&bench, disks), TOTALS(0, 0, counted, 0));
            probe_close(&bench.probe);
            tree_destroy(&bench.tree);
        }
    }
    check_case(NULL);
}

/* A namespace with two paths: older kernels count only on these, others on all three. */
static void test_nvme_multipath(void)
{
    for (int on_head = 0; on_head < 2; on_head++) {
        check_case("on the namespace: %d", on_head);
        fake_disks bench;
        disk_line disks[] = {{"nvme0c0n1", 10, 10, 10, 10, 10}, {"nvme0c1n1", 20, 20, 20, 20, 20},
                             {"nvme0n1", 0, 0, 0, 0, 0},        {"nvme0n1p1", 5, 5, 5, 5, 5},
                             {"nvme1n1", 7, 7, 7, 7, 7},        {NULL}};
        if (on_head)
            disks[2].reads = 30;
        setup(&bench);
        for (int d = 0; d < 5; d++) {
            if (d != 3)
                add_to_sysfs(&bench, disks[d].name);
        }
        write_disks(&bench, disks);
        REQUIRE(open_disks(&bench, true) == 0);
        check_totals(&bench, read_disks(&bench, disks), TOTALS(0, 0, 0, 0));
        disks[0].reads += 3;
        disks[1].reads += 4;
        disks[3].reads += 7;
        if (on_head)
            disks[2].reads += 7;
        check_totals(&bench, read_disks(&bench, disks), TOTALS(0, 0, 7, 0));
        probe_close(&bench.probe);
        tree_destroy(&bench.tree);
    }
    check_case(NULL);
}

/* 24 NVMe with three partitions each, an array of them, and 8 volumes on that. */
static void test_big_machine(void)
{
    enum {
        DISKS = 24,
        PARTITIONS = 3,
        VOLUMES = 8,
        ALL = DISKS * (1 + PARTITIONS) + 1 + VOLUMES
    };
    static char names[ALL][16];
    disk_line disks[ALL + 1] = {0};
    fake_disks bench;
    size_t count = 0;
    setup(&bench);
    for (int d = 0; d < DISKS; d++) {
        snprintf(names[count], sizeof *names, "nvme%dn1", d);
        add_to_sysfs(&bench, names[count++]);
        for (int p = 1; p <= PARTITIONS; p++)
            snprintf(names[count++], sizeof *names, "nvme%dn1p%d", d, p);
    }
    snprintf(names[count], sizeof *names, "md127");
    add_to_sysfs(&bench, names[count++]);
    for (int v = 0; v < VOLUMES; v++) {
        snprintf(names[count], sizeof *names, "dm-%d", v);
        add_to_sysfs(&bench, names[count++]);
    }
    for (size_t i = 0; i < ALL; i++)
        disks[i] = (disk_line){names[i], 1000 * i, 2000 * i, 3000 * i, 4000 * i, 5000 * i};
    write_disks(&bench, disks);
    REQUIRE(open_disks(&bench, true) == 0);
    for (int reading = 0; reading < 4; reading++) {
        check_case("reading %d", reading);
        check_totals(&bench, read_disks(&bench, disks),
                     TOTALS(reading * DISKS * 80, reading * DISKS * 160, reading * DISKS * 10,
                            reading * DISKS * 20));
        if (reading > 0)
            CHECK_NEAR(busy(&bench), 40.0, 1e-9); /* partitions and volumes say more */
        pass(&bench, 100 * MS);
        for (size_t i = 0; i < ALL; i++) {
            bool whole = i < DISKS * (1 + PARTITIONS) && i % (1 + PARTITIONS) == 0;
            disks[i].reads += 10;
            disks[i].read_sectors += 80;
            disks[i].writes += 20;
            disks[i].written_sectors += 160;
            disks[i].io_ms += whole ? 40 : 90;
        }
    }
    check_case(NULL);
    probe_close(&bench.probe);
    tree_destroy(&bench.tree);
}

static void test_busy(void)
{
    disk_line disks[] = {{"sda", 1, 1, 1, 1, 1000}, {"sdb", 1, 1, 1, 1, 5}, {NULL}};
    fake_disks bench;
    setup(&bench);
    write_disks(&bench, disks);
    REQUIRE(open_disks(&bench, false) == 0);
#define NEXT(passed_ns, a, b)                                                                      \
    (pass(&bench, (passed_ns)), disks[0].io_ms += (a), disks[1].io_ms += (b),                      \
     read_disks(&bench, disks), busy(&bench))
    CHECK_ABSENT(NEXT(0, 0, 0)); /* over which time? */
    CHECK_NEAR(NEXT(100 * MS, 25, 75), 75.0, 1e-9);
    CHECK_NEAR(NEXT(100 * MS, 30, 10), 30.0, 1e-9);
    CHECK_NEAR(NEXT(1000 * MS, 0, 0), 0.0, 1e-9);
    CHECK_NEAR(NEXT(100 * MS, 104, 0), 100.0, 1e-9); /* never more */
    CHECK_ABSENT(NEXT(4 * MS, 4, 0));                /* too short: told with the next one */
    CHECK_ABSENT(NEXT(5 * MS, 0, 0));
    CHECK_NEAR(NEXT(1 * MS, 1, 2), 50.0, 1e-9);
    CHECK_NEAR(NEXT(10 * MS, 2, 0), 20.0, 1e-9);
    /* Its 32 bits turn over. */
    disks[1].io_ms = TURN - 30;
    (void)NEXT(100 * MS, 0, 0);
    disks[1].io_ms = 20;
    CHECK_NEAR(NEXT(100 * MS, 0, 0), 50.0, 1e-9);
    /* Back by more than half a turn: no time at all. */
    disks[1].io_ms = 5;
    CHECK_NEAR(NEXT(100 * MS, 7, 0), 7.0, 1e-9);
    /* A missed reading makes the span longer. */
    CHECK_INT(probe_sample_text(&bench.probe, &bench.tree, "diskstats", "x\n"), -EBADMSG);
    check_absent(&bench, -EBADMSG);
    CHECK_NEAR(NEXT(200 * MS, 50, 0), 25.0, 1e-9);
    /* Reset: its time is not known, the other's is. */
    disks[0] = (disk_line){"sda", 0, 0, 0, 0, 0};
    CHECK_NEAR(NEXT(100 * MS, 0, 9), 9.0, 1e-9);
    CHECK_NEAR(NEXT(100 * MS, 12, 0), 12.0, 1e-9);
#undef NEXT
    probe_close(&bench.probe);
    tree_destroy(&bench.tree);
}

static void test_hot_plug(void)
{
    fake_disks bench;
    setup(&bench);
    add_to_sysfs(&bench, "sda");
#define READ(...)                                                                                  \
    (pass(&bench, 100 * MS), read_disks(&bench, (const disk_line[]){__VA_ARGS__, {NULL}}))
    write_disks(&bench, (const disk_line[]){{"sda", 10, 10, 10, 10, 10}, {NULL}});
    REQUIRE(open_disks(&bench, true) == 0);
    check_totals(&bench, READ({"sda", 10, 10, 10, 10, 10}), TOTALS(0, 0, 0, 0));
    /* Sysfs has the new one a moment later; it counts from when it does. */
    check_totals(&bench, READ({"sda", 11, 11, 11, 11, 11}, {"sdb", 500, 500, 500, 500, 500}),
                 TOTALS(1, 1, 1, 1));
    check_totals(&bench, READ({"sda", 11, 11, 11, 11, 11}, {"sdb", 600, 600, 600, 600, 600}),
                 TOTALS(1, 1, 1, 1));
    add_to_sysfs(&bench, "sdb");
    check_totals(&bench, READ({"sda", 11, 11, 11, 11, 11}, {"sdb", 602, 603, 604, 605, 646}),
                 TOTALS(4, 6, 3, 5));
    CHECK_NEAR(busy(&bench), 46.0, 1e-9);
    /* Another order, and a partition. */
    check_totals(&bench,
                 READ({"sdb", 603, 604, 605, 606, 646}, {"sdb1", 9, 9, 9, 9, 9},
                      {"sda", 11, 11, 11, 11, 14}),
                 TOTALS(5, 7, 4, 6));
    CHECK_NEAR(busy(&bench), 3.0, 1e-9);
    /* Unplugged, and back with counters that are lower, and higher. */
    check_totals(&bench, READ({"sda", 12, 11, 11, 11, 14}), TOTALS(5, 7, 5, 6));
    check_totals(&bench, READ({"sda", 12, 11, 11, 11, 14}, {"sdb", 3, 3, 3, 3, 3}),
                 TOTALS(5, 7, 5, 6));
    check_totals(&bench, READ({"sda", 12, 11, 11, 11, 14}, {"sdb", 4, 5, 6, 7, 8}),
                 TOTALS(7, 11, 6, 9));
    check_totals(&bench, READ({"sda", 12, 11, 11, 11, 14}), TOTALS(7, 11, 6, 9));
    check_totals(&bench, READ({"sda", 12, 11, 11, 11, 14}, {"sdb", 9000, 9000, 9000, 9000, 9000}),
                 TOTALS(7, 11, 6, 9));
    /* One that is shown twice counts once. */
    check_totals(&bench,
                 READ({"sda", 13, 11, 11, 11, 14}, {"sda", 13, 11, 11, 11, 14},
                      {"sdb", 9000, 9000, 9000, 9000, 9000}),
                 TOTALS(7, 11, 7, 9));
    /* None is left: nothing is known. */
    check_absent(&bench, READ({"loop0", 1, 1, 1, 1, 1}));
    check_totals(&bench, READ({"sda", 50, 50, 50, 50, 50}), TOTALS(7, 11, 7, 9));
    check_totals(&bench, READ({"sda", 51, 50, 50, 50, 50}), TOTALS(7, 11, 8, 9));
#undef READ
    probe_close(&bench.probe);
    tree_destroy(&bench.tree);
}

static void test_garbage(void)
{
    static const char *const files[] = {
        "",
        "\n",
        "nonsense\n",
        "\xff\xfe\n",
        "8 0\n",
        "8 0 sda\n",
        "8 0 sda 1 2 3 4\n", /* of a partition, before 2.6.25 */
        "8 0 sda 1 2 3 4 5 6 7 8 9 10\n",
        "8 0 sda 1 2 3 4 5 6 7 8 9 10 11",
        "8 0 sda 1 2 x 4 5 6 7 8 9 10 11\n",
        "8 0 sda -1 2 3 4 5 6 7 8 9 10 11\n",
        "8 0 sda 18446744073709551616 2 3 4 5 6 7 8 9 10 11\n",
        "x 0 sda 1 2 3 4 5 6 7 8 9 10 11\n",
        "8 0 1 2 3 4 5 6 7 8 9 10 11\n",
        "8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n\n",
        "8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n8 16 sdb",
        "8 0 a-name-of-sixty-four-characters-is-longer-than-the-kernel-lets-it-b "
        "1 2 3 4 5 6 7 8 9 10 11\n",
    };
    static const disk_line start[] = {{"sda", 10, 20, 30, 40, 50}, {NULL}};
    static const disk_line later[] = {{"sda", 11, 22, 33, 44, 55}, {NULL}};
    fake_disks bench;
    setup(&bench);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        check_case("%s", files[i]);
        write_disks(&bench, start);
        REQUIRE(open_disks(&bench, false) == 0);
        check_absent(&bench, probe_sample_text(&bench.probe, &bench.tree, "diskstats", files[i]));
        check_totals(&bench, read_disks(&bench, start), TOTALS(0, 0, 0, 0));
        check_absent(&bench, probe_sample_text(&bench.probe, &bench.tree, "diskstats", files[i]));
        check_totals(&bench, read_disks(&bench, later), TOTALS(2, 4, 1, 3));
        probe_close(&bench.probe);
    }
    check_case("not there for a while");
    write_disks(&bench, start);
    REQUIRE(open_disks(&bench, false) == 0);
    check_totals(&bench, read_disks(&bench, start), TOTALS(0, 0, 0, 0));
    probe_close(&bench.probe);
    check_case("understood only later");
    tree_write_text(&bench.tree, "diskstats", "nonsense\n");
    REQUIRE(open_disks(&bench, false) == 0);
    check_absent(&bench, probe_sample(&bench.probe));
    check_totals(&bench, read_disks(&bench, start), TOTALS(0, 0, 0, 0));
    check_totals(&bench, read_disks(&bench, later), TOTALS(2, 4, 1, 3));
    probe_close(&bench.probe);
    check_case(NULL);
    tree_destroy(&bench.tree);
}

/* Wherever a reading is cut: the totals never fall, and never are above the truth. */
static void test_cut_anywhere(void)
{
    static const disk_line start[] = {
        {"sda", 100, 1000, 10000, 100000, 7}, {"sdb", 5, 6, 7, 8, 9}, {NULL}};
    static const disk_line end[] = {
        {"sda", 110, 1020, 10030, 100040, 17}, {"sdb", 6, 8, 10, 12, 19}, {NULL}};
    char text[1024];
    size_t whole = describe(text, sizeof text, end, 20);
    fake_disks bench;
    setup(&bench);
    for (size_t length = 0; length <= whole; length++) {
        check_case("%zu of %zu bytes", length, whole);
        write_disks(&bench, start);
        REQUIRE(open_disks(&bench, false) == 0);
        check_totals(&bench, read_disks(&bench, start), TOTALS(0, 0, 0, 0));
        tree_write(&bench.tree, "diskstats", text, length);
        int error = probe_sample(&bench.probe);
        bool whole_lines = length > 0 && text[length - 1] == '\n';
        if (whole_lines)
            CHECK_INT(error, 0);
        else
            check_absent(&bench, error);
        if (!whole_lines || length == whole)
            check_totals(&bench, read_disks(&bench, end), TOTALS(22, 44, 11, 33));
        probe_close(&bench.probe);
    }
    check_case(NULL);
    tree_destroy(&bench.tree);
}

/* Whatever the bytes: totals that never fall, a share of at most 100 %, and the truth again after.
 */
static void test_mutations(void)
{
    static const disk_line start[] = {{"nvme0n1", 1472080, 83724322, 2118968, 96990272, 265556},
                                      {"nvme0n1p1", 1472000, 83724000, 2118900, 96990000, 265000},
                                      {"dm-0", 1472080, 83724322, 2118968, 96990272, 265556},
                                      {"nvme0c0n1", 5, 5, 5, 5, 5},
                                      {NULL}};
    disk_line later[5];
    memcpy(later, start, sizeof later);
    later[0] = (disk_line){"nvme0n1", 1472081, 83724324, 2118971, 96990276, 265600};
    char text[2048];
    char mutated[2 * sizeof text + 16];
    size_t length = describe(text, sizeof text, start, 18);
    chance_state chance = {20240901};
    fake_disks bench;
    setup(&bench);
    add_to_sysfs(&bench, "nvme0n1");
    add_to_sysfs(&bench, "nvme0c0n1");
    add_to_sysfs(&bench, "dm-0");
    for (int i = 0; i < 3000; i++) {
        check_case("mutation %d", i);
        double totals[4] = {0};
        write_disks(&bench, start);
        REQUIRE(open_disks(&bench, true) == 0);
        for (int reading = 0; reading < 4; reading++) {
            size_t damaged = chance_mutate(&chance, text, length, mutated);
            pass(&bench, chance_below(&chance, 100) * MS);
            tree_write(&bench.tree, "diskstats", mutated, damaged);
            int error = reading < 3 ? probe_sample(&bench.probe) : read_disks(&bench, start);
            if (error != 0) {
                check_absent(&bench, error);
                continue;
            }
            CHECK(isnan(busy(&bench)) || (busy(&bench) >= 0.0 && busy(&bench) <= 100.0));
            for (int t = 0; t < 4; t++) {
                CHECK(bench.probe.columns[t] >= totals[t]);
                totals[t] = bench.probe.columns[t];
            }
        }
        check_totals(&bench, read_disks(&bench, later),
                     TOTALS(totals[0] + 2, totals[1] + 4, totals[2] + 1, totals[3] + 3));
        probe_close(&bench.probe);
    }
    check_case(NULL);
    tree_destroy(&bench.tree);
}

static void write_first(const proc_tree *tree)
{
    char text[256];
    describe(text, sizeof text, (const disk_line[]){{"sda", 0, 0, 0, 0, 0}, {NULL}}, 20);
    tree_write_text(tree, "diskstats", text);
}

/* What users see: counters that advance by known amounts, over a known time. */
static void test_rates(void)
{
    static sampler_rig rig;
    rig_prepare(&rig);
    write_first(&rig.tree);
    rig_create(&rig, "disk_io", 100 * MS, 10);
    REQUIRE(smn_sampler_start(rig.sampler) == 0);
    for (uint64_t tick = 1; tick <= 20; tick++) {
        uint64_t turn = tick > 10; /* twice the reads, and less of the time */
        char text[256];
        disk_line disks[] = {{"sda", 5 * tick + turn * 5 * (tick - 10), 1000 * tick, 2 * tick,
                              500 * tick, 60 * tick - turn * 20 * (tick - 10)},
                             {NULL}};
        describe(text, sizeof text, disks, 20);
        tree_write_text(&rig.tree, "diskstats", text);
        rig_tick(&rig, 1);
    }
    for (int window = 0; window < 2; window++) {
        check_case("window %d", window);
        CHECK_INT(rig_take(&rig), 0);
        CHECK_NEAR(rig_statistics(&rig, RATES[0])->mean, 5.12, 1e-9);
        CHECK_NEAR(rig_statistics(&rig, RATES[1])->mean, 2.56, 1e-9);
        CHECK_NEAR(rig_statistics(&rig, RATES[2])->mean, window ? 100.0 : 50.0, 1e-9);
        CHECK_NEAR(rig_statistics(&rig, RATES[3])->mean, 20.0, 1e-9);
        CHECK_NEAR(rig_statistics(&rig, BUSY)->mean, window ? 40.0 : 60.0, 1e-9);
        CHECK_NEAR(rig_statistics(&rig, BUSY)->max, window ? 40.0 : 60.0, 1e-9);
    }
    check_case(NULL);
    CHECK_U64(rig_source(&rig, "disk_io").errors, 0);
    rig_close(&rig);
}

static void test_this_machine(void)
{
    proc_tree machine;
    source_probe probe;
    tree_create(&machine);
    REQUIRE(symlinkat("/proc/diskstats", machine.root, "diskstats") == 0);
    REQUIRE(symlinkat("/sys/block", machine.root, "block") == 0);
    smn_environment environment = {.procfs = machine.root, .sysfs = machine.root};
    int error = probe_open_in(&probe, "disk_io", &environment);
    CHECK(error == 0 || error == -ENODATA);
    double before = 0;
    for (int i = 0; i < 20 && error == 0; i++) {
        CHECK_INT(probe_sample(&probe), 0);
        CHECK(probe_value(&probe, RATES[3]) >= before);
        before = probe_value(&probe, RATES[3]);
    }
    if (error == 0)
        probe_close(&probe);
    tree_destroy(&machine);
}

int main(void)
{
    test_schema();
    test_no_disk();
    test_increases();
    test_layouts();
    test_names();
    test_nvme_multipath();
    test_big_machine();
    test_busy();
    test_hot_plug();
    test_garbage();
    test_cut_anywhere();
    test_mutations();
    test_rates();
    test_this_machine();
    return check_report();
}

/* The source `disk_space` on this machine's own file systems. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "check.h"
#include "probe.h"
#include "self.h"

static const char PERCENTAGE[] = "disk_usage_percentage";
static const char USED[] = "disk_usage_megabytes";
static const char AVAILABLE[] = "disk_available_megabytes";

static int procfs; /* this machine's */

static void open_paths(source_probe *probe, const char *paths)
{
    smn_environment environment = {.procfs = procfs, .sysfs = -1, .disk_paths = paths};
    REQUIRE(probe_open_in(probe, "disk_space", &environment) == 0);
}

static double value(const source_probe *probe, const char *key, const char *suffix)
{
    char suffixed[256];
    snprintf(suffixed, sizeof suffixed, "%s%s", key, suffix);
    return probe_value(probe, suffixed);
}

static void check_absent(const source_probe *probe, const char *suffix)
{
    CHECK_ABSENT(value(probe, PERCENTAGE, suffix));
    CHECK_ABSENT(value(probe, USED, suffix));
    CHECK_ABSENT(value(probe, AVAILABLE, suffix));
}

static void check_space(const source_probe *probe, const char *suffix, const struct statvfs *space)
{
    double used = (double)(space->f_blocks - space->f_bfree) * (double)space->f_frsize;
    double available = (double)space->f_bavail * (double)space->f_frsize;
    CHECK_NEAR(value(probe, USED, suffix), used / 1e6, used * 1e-12);
    CHECK_NEAR(value(probe, AVAILABLE, suffix), available / 1e6, available * 1e-12);
    CHECK_NEAR(value(probe, PERCENTAGE, suffix), 100.0 * used / (used + available), 1e-9);
}

static bool is_same(const struct statvfs *one, const struct statvfs *two)
{
    return one->f_blocks == two->f_blocks && one->f_bfree == two->f_bfree &&
           one->f_bavail == two->f_bavail;
}

/* Others write to the disk at any time: repeats until nobody did during the reading. */
static void check_against_statvfs(const char *path)
{
    struct statvfs before;
    struct statvfs after;
    for (bool is_quiet = false; !is_quiet;) {
        source_probe probe;
        REQUIRE(statvfs(path, &before) == 0);
        open_paths(&probe, path);
        CHECK_INT(probe_sample(&probe), 0);
        REQUIRE(statvfs(path, &after) == 0);
        is_quiet = is_same(&before, &after);
        if (is_quiet)
            check_space(&probe, "", &after);
        probe_close(&probe);
    }
}

static void test_real_file_systems(void)
{
    static const char *const paths[] = {"/", "/dev/shm", "/tmp", "/etc/passwd", "/run", "."};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        check_case("%s", paths[i]);
        struct statvfs space;
        if (statvfs(paths[i], &space) == 0 && space.f_blocks > 0)
            check_against_statvfs(paths[i]);
    }
    check_case(NULL);
}

static void test_schema(void)
{
    source_probe probe;
    open_paths(&probe, "/\n/data/scratch\n/var/lib/x y/\nrelative/path\n//twice");
    CHECK(probe.source->by_default);
    CHECK_U64(probe.source->min_interval_ns, 1000000000);
    static const char *const suffixes[] = {"", "_data_scratch", "_var_lib_x_y_", "_relative_path",
                                           "_twice"};
    static const char *const keys[] = {PERCENTAGE, USED, AVAILABLE};
    static const char *const units[] = {"percentage", "megabytes", "megabytes"};
    if (CHECK_INT(probe.schema.series_count, 15)) {
        for (int i = 0; i < 15; i++) {
            const smn_series_spec *spec = &probe.schema.series[i].spec;
            char key[128];
            snprintf(key, sizeof key, "%s%s", keys[i % 3], suffixes[i / 3]);
            CHECK_TEXT(spec->key, key);
            CHECK_TEXT(spec->unit, units[i % 3]);
            CHECK_INT(spec->kind, SMN_GAUGE);
            CHECK_INT(spec->numerator, i); /* a column of its own */
        }
    }
    CHECK_INT(probe.schema.columns, 15);
    probe_close(&probe);

    open_paths(&probe, "/data\n/");
    CHECK(probe_has(&probe, PERCENTAGE));
    CHECK(probe_has(&probe, "disk_usage_percentage_root"));
    probe_close(&probe);

    open_paths(&probe, "\n\n/data\n\n");
    CHECK_INT(probe.schema.series_count, 3);
    CHECK(probe_has(&probe, PERCENTAGE));
    probe_close(&probe);
}

static void test_no_path(void)
{
    static const char *const none[] = {"", "\n", "\n\n\n"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        source_probe probe;
        smn_environment environment = {.procfs = procfs, .sysfs = -1, .disk_paths = none[i]};
        CHECK_INT(probe_open_in(&probe, "disk_space", &environment), -ENODATA);
    }
}

/* Until a path that was missing has values, or again has none. */
static void sample_until(source_probe *probe, bool is_there)
{
    do {
        self_breathe();
        CHECK(probe_sample(probe) < 0); /* of the others that are missing */
        CHECK(value(probe, PERCENTAGE, "_root") > 0.0);
        check_absent(probe, "_no_such_path");
    } while (isnan(value(probe, PERCENTAGE, "")) == is_there);
}

/* What is missing hides only itself, and is back when it is back. */
static void test_missing_paths(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    char paths[2 * sizeof tree.path];
    snprintf(paths, sizeof paths, "%s/later\n/\n/proc\n/no/such/path\n/", tree.path);
    open_paths(&probe, paths);
    CHECK_INT(probe_sample(&probe), -ENOENT);
    check_absent(&probe, "");
    check_absent(&probe, "_proc"); /* no blocks: neither 0 % nor 100 % */
    check_absent(&probe, "_no_such_path");
    CHECK(value(&probe, PERCENTAGE, "_root") > 0.0);
    CHECK(value(&probe, USED, "_root") > 0.0);
    CHECK(value(&probe, AVAILABLE, "_root") >= 0.0);

    REQUIRE(mkdirat(tree.root, "later", 0755) == 0);
    sample_until(&probe, true);
    tree_remove(&tree, "later");
    sample_until(&probe, false);
    check_absent(&probe, "");
    probe_close(&probe);
    tree_destroy(&tree);
}

/* One that was there when sampling began is known to be local, and missed at once. */
static void test_path_that_goes(void)
{
    proc_tree tree;
    source_probe probe;
    char path[sizeof tree.path + 8];
    tree_create(&tree);
    snprintf(path, sizeof path, "%s/now", tree.path);
    REQUIRE(mkdirat(tree.root, "now", 0755) == 0);
    open_paths(&probe, path);
    bool is_local = self_find_thread("smn-disk") == 0;
    CHECK_INT(probe_sample(&probe), 0);
    CHECK(value(&probe, PERCENTAGE, "") >= 0.0);
    tree_remove(&tree, "now");
    while (!is_local && probe_sample(&probe) == 0)
        self_breathe();
    CHECK_INT(probe_sample(&probe), -ENOENT);
    check_absent(&probe, "");
    probe_close(&probe);
    tree_destroy(&tree);
}

static void test_virtual_file_system(void)
{
    source_probe probe;
    open_paths(&probe, "/proc");
    CHECK_INT(probe_sample(&probe), -ENODATA);
    check_absent(&probe, "");
    probe_close(&probe);
}

int main(void)
{
    procfs = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(procfs >= 0);
    test_schema();
    test_no_path();
    test_real_file_systems();
    test_missing_paths();
    test_path_that_goes();
    test_virtual_file_system();
    close(procfs);
    return check_report();
}

/* Control groups: their files as text, and where they are found on made-up trees. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cgroup.h"
#include "chance.h"
#include "check.h"
#include "tree.h"

static smn_cursor bytes_of(const char *text)
{
    return smn_scan_bytes(text, strlen(text));
}

/* ---- text --------------------------------------------------------------- */

static void check_line(const smn_cgroup_line *line, int version, const char *path)
{
    char text[256] = "";
    CHECK_INT(line->version, version);
    if (line->version != 0)
        snprintf(text, sizeof text, "%.*s", (int)(line->path.end - line->path.at), line->path.at);
    CHECK_TEXT(text, path);
}

static void test_lines(void)
{
    static const struct {
        const char *text;
        int error;
        struct {
            int version;
            const char *path;
        } lines[SMN_CGROUP_CONTROLLERS];
    } cases[] = {
        {"0::/\n", 0, {{2, "/"}, {2, "/"}, {2, "/"}, {2, "/"}}},
        {"0::/a:b/c d\n", 0, {{2, "/a:b/c d"}, {2, "/a:b/c d"}, {2, "/a:b/c d"}, {2, "/a:b/c d"}}},
        {"12:cpuset:/s\n4:cpu,cpuacct:/c\n3:memory:/m\n1:name=systemd:/n\n",
         0,
         {{1, "/c"}, {1, "/c"}, {1, "/s"}, {1, "/m"}}},
        {"4:cpuacct,cpu:/c\n", 0, {{1, "/c"}, {1, "/c"}, {0, ""}, {0, ""}}},
        /* Some controllers of version 1, the others of version 2, whatever the order. */
        {"0::/two\n4:memory:/one\n", 0, {{2, "/two"}, {2, "/two"}, {2, "/two"}, {1, "/one"}}},
        {"4:memory:/one\n0::/two\n", 0, {{2, "/two"}, {2, "/two"}, {2, "/two"}, {1, "/one"}}},
        /* Whole names. */
        {"4:cpus,xcpu,cpu2,,memory2:/x\n", 0, {{0, ""}, {0, ""}, {0, ""}, {0, ""}}},
        {"", 0, {{0, ""}, {0, ""}, {0, ""}, {0, ""}}},
        {"0::/\n4:cpu:", -EBADMSG, {{0}}},
        {"0:/\n", -EBADMSG, {{0}}},
        {"0\n", -EBADMSG, {{0}}},
        {"\n", -EBADMSG, {{0}}},
        {"0::\n", -EBADMSG, {{0}}},
        {"0::relative\n", -EBADMSG, {{0}}},
        {"::/\n", -EBADMSG, {{0}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        smn_cgroup_line lines[SMN_CGROUP_CONTROLLERS];
        check_case("lines %zu: %s", i, cases[i].text);
        int error = smn_cgroup_parse_lines(bytes_of(cases[i].text), lines);
        CHECK_INT(error, cases[i].error);
        for (int c = 0; c < SMN_CGROUP_CONTROLLERS && error == 0; c++)
            check_line(&lines[c], cases[i].lines[c].version, cases[i].lines[c].path);
    }
    static const char with_nul[] = "0::/a\0b\n";
    smn_cgroup_line lines[SMN_CGROUP_CONTROLLERS];
    CHECK_INT(smn_cgroup_parse_lines(smn_scan_bytes(with_nul, sizeof with_nul - 1), lines),
              -EBADMSG);
    check_case(NULL);
}

/* What a text gives; NaN where it is refused. */
typedef struct {
    const char *text;
    double value;
} reading;

static void check_readings(const char *name, int (*parse)(smn_cursor, double *),
                           const reading *readings)
{
    for (; readings->text != NULL; readings++) {
        double value = -1.0;
        check_case("%s: %s", name, readings->text);
        int error = parse(bytes_of(readings->text), &value);
        CHECK_INT(error, isnan(readings->value) ? -EBADMSG : 0);
        CHECK_DOUBLE(value, isnan(readings->value) ? -1.0 : readings->value);
    }
    check_case(NULL);
}

static void test_limits(void)
{
    static const reading cpu_max[] = {
        {"max 100000\n", INFINITY},
        {"50000 100000\n", 0.5},
        {"400000 100000\n", 4.0},
        {"1000 1000\n", 1.0},
        {"250000 1000000\n", 0.25},
        {"max\n", NAN},
        {"max100000\n", NAN},
        {"max 100000", NAN},
        {"50000\n", NAN},
        {"50000 100000 1\n", NAN},
        {"50000 0\n", NAN},
        {"0 100000\n", NAN},
        {"999 100000\n", NAN},
        {"50000 999\n", NAN},
        {"50000 1000001\n", NAN},
        {"-1 100000\n", NAN},
        {"", NAN},
        {"\n", NAN},
        {"99999999999999999999 1000\n", NAN},
        {"maximum 100000\n", NAN},
        {NULL, 0.0},
    };
    static const reading quota[] = {
        {"-1\n", INFINITY}, {"50000\n", 50000.0}, {"-2\n", NAN}, {"0\n", NAN},   {"-1", NAN},
        {"-10\n", NAN},     {"50000 1\n", NAN},   {"x\n", NAN},  {"max\n", NAN}, {NULL, 0.0},
    };
    static const reading period[] = {
        {"100000\n", 100000.0}, {"0\n", NAN}, {"-1\n", NAN}, {"10000000\n", NAN}, {NULL, 0.0},
    };
    static const reading bytes[] = {
        {"max\n", INFINITY},
        {"536870912\n", 536870912.0},
        {"9223372036854771712\n", INFINITY}, /* version 1, pages of 4 KiB */
        {"9223372036854710272\n", INFINITY}, /* … and of 64 KiB */
        {"18446744073709551615\n", INFINITY},
        {"18446744073709551616\n", NAN},
        {"0\n", NAN},
        {"-1\n", NAN},
        {"maxi\n", NAN},
        {"max", NAN},
        {"1024 kB\n", NAN},
        {"1024", NAN},
        {"", NAN},
        {NULL, 0.0},
    };
    check_readings("cpu.max", smn_cgroup_parse_cpu_max, cpu_max);
    check_readings("cpu.cfs_quota_us", smn_cgroup_parse_cfs_quota, quota);
    check_readings("cpu.cfs_period_us", smn_cgroup_parse_cfs_period, period);
    check_readings("memory", smn_cgroup_parse_bytes, bytes);
}

static int count_cpus(smn_cursor text, double *count)
{
    uint32_t number;
    int error = smn_cgroup_parse_cpu_list(text, &number);
    if (error == 0)
        *count = number;
    return error;
}

static void test_cpu_lists(void)
{
    static const reading lists[] = {
        {"0\n", 1.0},
        {"0-3,8\n", 5.0},
        {"0-223\n", 224.0},
        {"1,3,5-6\n", 4.0},
        {"\n", 0.0},
        {"5-5\n", 1.0},
        {"", NAN},
        {"0", NAN},
        {"0-\n", NAN},
        {"-3\n", NAN},
        {"3-1\n", NAN},
        {"0,0\n", NAN},
        {"0-3,2\n", NAN},
        {"0,\n", NAN},
        {",0\n", NAN},
        {"0-3 8\n", NAN},
        {"0-3", NAN},
        {"all\n", NAN},
        {"0--3\n", NAN},
        {"0-1-2\n", NAN},
        {"0-99999999999999\n", NAN},
        {"4294967296\n", NAN},
        {NULL, 0.0},
    };
    check_readings("list", count_cpus, lists);
}

static void test_fields(void)
{
    static const char stat[] = "usage_usec 12\nuser_usec 7\nnr_periods 3\nnr_throttled x\n";
    uint64_t value = 0;
    CHECK_INT(smn_cgroup_parse_field(bytes_of(stat), "usage_usec ", &value), 0);
    CHECK_U64(value, 12);
    CHECK_INT(smn_cgroup_parse_field(bytes_of(stat), "nr_periods ", &value), 0);
    CHECK_U64(value, 3);
    CHECK_INT(smn_cgroup_parse_field(bytes_of(stat), "nr_throttled ", &value), -EBADMSG);
    CHECK_INT(smn_cgroup_parse_field(bytes_of(stat), "usec ", &value), -ENODATA);
    CHECK_INT(smn_cgroup_parse_field(bytes_of("usage_usec 1"), "usage_usec ", &value), -EBADMSG);
    CHECK_INT(smn_cgroup_parse_field(bytes_of("usage_usec 1 2\n"), "usage_usec ", &value),
              -EBADMSG);
    CHECK_INT(smn_cgroup_parse_field(bytes_of("usage_usec -1\n"), "usage_usec ", &value), -EBADMSG);
    CHECK_INT(smn_cgroup_parse_field(bytes_of("4711\n"), "", &value), 0);
    CHECK_U64(value, 4711);
    static const char control[] = "oom_kill_disable 0\nunder_oom 1\noom_kill 5\n";
    CHECK_INT(smn_cgroup_parse_field(bytes_of(control), "oom_kill ", &value), 0);
    CHECK_U64(value, 5);
    static const char memory[] = "inactive_file 1\ntotal_inactive_file 2\n";
    CHECK_INT(smn_cgroup_parse_field(bytes_of(memory), "total_inactive_file ", &value), 0);
    CHECK_U64(value, 2);
}

/* Damaged text is refused or understood; no sanitizer has anything to say. */
static void test_mutations(void)
{
    static const char lines[] = "12:cpuset:/s\n4:cpu,cpuacct:/docker/f00\n3:memory:/m\n0::/\n";
    static const char list[] = "0-3,8,10-127\n";
    chance_state chance = {20251124};
    char mutated[2 * sizeof lines + 16];
    for (int i = 0; i < 5000; i++) {
        smn_cgroup_line found[SMN_CGROUP_CONTROLLERS];
        uint32_t count = 0;
        double value = 1.0;
        check_case("mutation %d", i);
        size_t length = chance_mutate(&chance, lines, sizeof lines - 1, mutated);
        smn_cursor text = smn_scan_bytes(mutated, length);
        if (smn_cgroup_parse_lines(text, found) == 0) {
            for (int c = 0; c < SMN_CGROUP_CONTROLLERS; c++)
                CHECK(found[c].version == 0 || *found[c].path.at == '/');
        }
        length = chance_mutate(&chance, list, sizeof list - 1, mutated);
        if (smn_cgroup_parse_cpu_list(smn_scan_bytes(mutated, length), &count) == 0)
            CHECK(count <= (1 << 20) + 1);
        length = chance_mutate(&chance, "50000 100000\n", 13, mutated);
        if (smn_cgroup_parse_cpu_max(smn_scan_bytes(mutated, length), &value) == 0)
            CHECK(value >= 0.001);
    }
    check_case(NULL);
}

/* ---- places ------------------------------------------------------------- */

typedef struct {
    proc_tree tree;
    smn_text_buffer text;
    smn_procfile lines;
    smn_cgroup_place places[SMN_CGROUP_CONTROLLERS];
} finder;

enum {
    PID = 4711
};

static void setup(finder *it)
{
    memset(it, 0, sizeof *it);
    tree_create(&it->tree);
    REQUIRE(smn_text_buffer_init(&it->text) == 0);
    smn_procfile_init(&it->lines, it->tree.root, "cgroup", &it->text);
}

static void release(finder *it)
{
    smn_procfile_release(&it->lines);
    smn_text_buffer_release(&it->text);
    tree_destroy(&it->tree);
}

static int find(finder *it, const char *lines)
{
    tree_write_text(&it->tree, "cgroup", lines);
    return smn_cgroup_find_places(&it->lines, it->tree.root, PID, it->places);
}

/* Where the memory's group is; "" where it is not found. */
static const char *memory_path(const finder *it)
{
    const smn_cgroup_place *place = &it->places[SMN_CGROUP_MEMORY];
    return place->version != 0 ? place->path : "";
}

static void test_places_of_version_2(void)
{
    static const struct {
        const char *lines;
        const char *path;
        int error;
    } cases[] = {
        {"0::/\n", "fs/cgroup", 0},
        {"0::/pod/main\n", "fs/cgroup/pod/main", 0},
        {"0::/pod\n", "fs/cgroup/pod", 0},
        {"0::/with: colon\n", "fs/cgroup/with: colon", 0},
        {"0::/pod/gone\n", "", -ENOENT},
        {"0::/pod/main (deleted)\n", "", -ENOENT},
        {"0::/main (deleted)\n", "", -ENOENT},
        /* The mount begins at the group, or above it, but below the root. */
        {"0::/slice/of/host\n", "fs/cgroup", 0},
        {"0::/slice/of/host/pod/main\n", "fs/cgroup/pod/main", 0},
        {"0::/slice/of/host/pod/gone\n", "", -ENOENT},
        /* Outside of our namespace: found where the mount shows it, and never taken for ours. */
        {"0::/../pod/main\n", "fs/cgroup/pod/main", 0},
        {"0::/../../pod\n", "fs/cgroup/pod", 0},
        {"0::/../other\n", "", -ENOENT},
        {"0::/../other/pod\n", "", -ENOENT},
        {"0::/..\n", "", -ENOENT},
        {"0::/../..\n", "", -ENOENT},
        {"0::/..a\n", "fs/cgroup", 0},
        {"0::/pod/../../../etc\n", "", -EBADMSG},
        {"0::/pod/..\n", "", -EBADMSG},
    };
    finder it;
    setup(&it);
    tree_write_text(&it.tree, "fs/cgroup/cgroup.controllers", "cpu memory\n");
    tree_write_text(&it.tree, "fs/cgroup/pod/main/memory.max", "max\n");
    tree_write_text(&it.tree, "fs/cgroup/with: colon/memory.max", "max\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].lines);
        CHECK_INT(find(&it, cases[i].lines), 0);
        CHECK_TEXT(memory_path(&it), cases[i].path);
        CHECK_INT(it.places[SMN_CGROUP_MEMORY].error, cases[i].error);
        CHECK_TEXT(it.places[SMN_CGROUP_CPU].version != 0 ? it.places[SMN_CGROUP_CPU].path : "",
                   cases[i].path);
    }
    char line[PATH_MAX + 16];
    memset(line, 'x', sizeof line);
    memcpy(line, "0::/", 4);
    memcpy(line + sizeof line - 2, "\n", 2);
    check_case("a path that is too long");
    CHECK_INT(find(&it, line), 0);
    CHECK_INT(it.places[SMN_CGROUP_MEMORY].error, -ENAMETOOLONG);
    check_case(NULL);
    release(&it);
}

static void check_place(const finder *it, smn_cgroup_controller controller, int version,
                        const char *path)
{
    const smn_cgroup_place *place = &it->places[controller];
    if (CHECK_INT(place->version, version) && version != 0)
        CHECK_TEXT(place->path, path);
}

static void test_places_of_version_1(void)
{
    finder it;
    setup(&it);
    tree_write_text(&it.tree, "fs/cgroup/cpu,cpuacct/docker/f00/cpu.stat", "");
    tree_write_text(&it.tree, "fs/cgroup/memory/docker/f00/memory.stat", "");
    tree_write_text(&it.tree, "fs/cgroup/cpuset/cpuset.cpus", "0-1\n");
    CHECK_INT(find(&it, "5:memory:/docker/f00\n4:cpuset:/docker/f00\n3:cpu,cpuacct:/docker/f00\n"),
              0);
    check_place(&it, SMN_CGROUP_CPU, 1, "fs/cgroup/cpu,cpuacct/docker/f00");
    check_place(&it, SMN_CGROUP_CPUACCT, 1, "fs/cgroup/cpu,cpuacct/docker/f00");
    check_place(&it, SMN_CGROUP_MEMORY, 1, "fs/cgroup/memory/docker/f00");
    check_place(&it, SMN_CGROUP_CPUSET, 1, "fs/cgroup/cpuset"); /* shows the container's only */

    /* The kernel's order of names is not that of the mount. */
    CHECK_INT(find(&it, "3:cpuacct,cpu:/docker/f00\n"), 0);
    check_place(&it, SMN_CGROUP_CPU, 1, "fs/cgroup/cpu,cpuacct/docker/f00");
    check_place(&it, SMN_CGROUP_MEMORY, 0, NULL);

    /* Links, as systemd and Docker make them. */
    REQUIRE(symlinkat("cpu,cpuacct", it.tree.root, "fs/cgroup/cpu") == 0);
    CHECK_INT(find(&it, "3:cpuacct,cpu:/docker/f00\n"), 0);
    check_place(&it, SMN_CGROUP_CPU, 1, "fs/cgroup/cpu/docker/f00");
    release(&it);
}

static void test_places_of_both(void)
{
    finder it;
    setup(&it);
    tree_write_text(&it.tree, "fs/cgroup/unified/cgroup.controllers", "memory\n");
    tree_write_text(&it.tree, "fs/cgroup/unified/job/memory.max", "max\n");
    tree_write_text(&it.tree, "fs/cgroup/cpu/job/cpu.stat", "");
    CHECK_INT(find(&it, "3:cpu:/job\n2:cpuset:/job\n0::/job\n"), 0);
    check_place(&it, SMN_CGROUP_CPU, 1, "fs/cgroup/cpu/job");
    check_place(&it, SMN_CGROUP_MEMORY, 2, "fs/cgroup/unified/job");
    check_place(&it, SMN_CGROUP_CPUSET, 0, NULL); /* it is not mounted */

    CHECK_INT(find(&it, "3:cpu:/job\n0::job\n"), -EBADMSG);
    tree_remove(&it.tree, "cgroup");
    smn_procfile_release(&it.lines);
    CHECK_INT(smn_cgroup_find_places(&it.lines, it.tree.root, PID, it.places), -ENOENT);
    release(&it);
}

/* The mount of a container beside ours, as /proc/<pid>/root shows it. */
static void test_places_beside_ours(void)
{
    static const struct {
        const char *lines;
        const char *processes;
        const char *path;
    } cases[] = {
        {"0::/../main\n", "4711\n", "fs/cgroup"},
        {"0::/../../pod/main\n", "1\n4711\n4712\n", "fs/cgroup"},
        {"0::/../main\n", "471\n47110\n", ""},
        {"0::/../main\n", "4711", ""},
        {"0::/../main\n", "0\n", ""}, /* nobody whom our own namespace knows */
        {"0::/../main\n", "", ""},
    };
    finder it;
    setup(&it);
    tree_write_text(&it.tree, "fs/cgroup/cgroup.controllers", "cpu memory\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s%s", cases[i].lines, cases[i].processes);
        tree_write_text(&it.tree, "fs/cgroup/cgroup.procs", cases[i].processes);
        CHECK_INT(find(&it, cases[i].lines), 0);
        CHECK_TEXT(memory_path(&it), cases[i].path);
        CHECK_INT(it.places[SMN_CGROUP_MEMORY].error, *cases[i].path != '\0' ? 0 : -ENOENT);
    }
    check_case("a process of another view of the machine");
    tree_write_text(&it.tree, "fs/cgroup/cgroup.procs", "0\n");
    CHECK_INT(smn_cgroup_find_places(&it.lines, it.tree.root, 0, it.places), 0);
    CHECK_TEXT(memory_path(&it), "");
    check_case("no such file");
    tree_remove(&it.tree, "fs/cgroup/cgroup.procs");
    CHECK_INT(find(&it, "0::/../main\n"), 0);
    CHECK_TEXT(memory_path(&it), "");
    check_case(NULL);
    release(&it);
}

/* ---- limits ------------------------------------------------------------- */

static const smn_cgroup_machine machine = {.cpus = 8.0, .memory_bytes = 1e9};

static smn_cgroup_limit tightest(finder *it, smn_cgroup_limit_kind kind, int error)
{
    smn_cgroup_limit limit;
    const smn_cgroup_place *place = &it->places[smn_cgroup_controller_of(kind)];
    CHECK_INT(smn_cgroup_find_tightest(place, kind, &machine, it->tree.root, &it->text, &limit),
              error);
    return limit;
}

static void check_limit(finder *it, smn_cgroup_limit_kind kind, double value, const char *folder)
{
    smn_cgroup_limit limit = tightest(it, kind, 0);
    if (CHECK_DOUBLE(limit.value, value) && folder != NULL) {
        char path[PATH_MAX];
        memcpy(path, it->places[smn_cgroup_controller_of(kind)].path, limit.length);
        path[limit.length] = '\0';
        CHECK_TEXT(path, folder);
    }
}

static void test_tightest(void)
{
    finder it;
    setup(&it);
    tree_write_text(&it.tree, "fs/cgroup/cgroup.controllers", "");
    tree_write_text(&it.tree, "fs/cgroup/a/memory.max", "800000000\n");
    tree_write_text(&it.tree, "fs/cgroup/a/b/memory.max", "300000000\n");
    tree_write_text(&it.tree, "fs/cgroup/a/b/c/memory.max", "max\n");
    tree_write_text(&it.tree, "fs/cgroup/a/cpu.max", "200000 100000\n");
    tree_write_text(&it.tree, "fs/cgroup/a/b/cpu.max", "400000 100000\n");
    tree_write_text(&it.tree, "fs/cgroup/a/b/c/cpu.max", "200000 100000\n");
    tree_write_text(&it.tree, "fs/cgroup/cpuset.cpus.effective", "0-7\n");
    tree_write_text(&it.tree, "fs/cgroup/a/cpuset.cpus.effective", "0-3\n");
    tree_write_text(&it.tree, "fs/cgroup/a/b/cpuset.cpus.effective", "0-3\n");
    REQUIRE(find(&it, "0::/a/b/c\n") == 0);
    check_limit(&it, SMN_CGROUP_MAX_MEMORY, 300000000.0, "fs/cgroup/a/b");
    /* Of equal quotas the nearest; CPUs belong to the group that has passed them on. */
    check_limit(&it, SMN_CGROUP_QUOTA, 2.0, "fs/cgroup/a/b/c");
    check_limit(&it, SMN_CGROUP_CPUS, 4.0, "fs/cgroup/a");

    /* What cannot be understood anywhere on the way makes the tightest unknown. */
    tree_write_text(&it.tree, "fs/cgroup/a/memory.max", "lots\n");
    tightest(&it, SMN_CGROUP_MAX_MEMORY, -EBADMSG);
    tree_write_text(&it.tree, "fs/cgroup/a/memory.max", "1000000000\n");

    /* The machine is smaller than these: they limit nothing. */
    tree_write_text(&it.tree, "fs/cgroup/a/b/memory.max", "1000000000\n");
    check_limit(&it, SMN_CGROUP_MAX_MEMORY, INFINITY, NULL);
    tree_write_text(&it.tree, "fs/cgroup/a/b/memory.max", "999999999\n");
    check_limit(&it, SMN_CGROUP_MAX_MEMORY, 999999999.0, "fs/cgroup/a/b");
    tree_write_text(&it.tree, "fs/cgroup/a/cpu.max", "800001 100000\n");
    tree_write_text(&it.tree, "fs/cgroup/a/b/cpu.max", "max 100000\n");
    tree_write_text(&it.tree, "fs/cgroup/a/b/c/cpu.max", "max 100000\n");
    check_limit(&it, SMN_CGROUP_QUOTA, INFINITY, NULL);
    tree_write_text(&it.tree, "fs/cgroup/a/cpu.max", "800000 100000\n");
    check_limit(&it, SMN_CGROUP_QUOTA, 8.0, "fs/cgroup/a");

    /* Nor does a list of all CPUs, or an empty one. */
    tree_write_text(&it.tree, "fs/cgroup/a/cpuset.cpus.effective", "0-7\n");
    tree_write_text(&it.tree, "fs/cgroup/a/b/cpuset.cpus.effective", "\n");
    check_limit(&it, SMN_CGROUP_CPUS, INFINITY, NULL);

    /* A group that goes while it is looked at. */
    snprintf(it.places[SMN_CGROUP_MEMORY].path, PATH_MAX, "fs/cgroup/a/b/c/d");
    tightest(&it, SMN_CGROUP_MAX_MEMORY, -ENOENT);
    release(&it);
}

static void test_limits_of_version_1(void)
{
    finder it;
    setup(&it);
    tree_write_text(&it.tree, "fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    tree_write_text(&it.tree, "fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    tree_write_text(&it.tree, "fs/cgroup/cpu/a/cpu.cfs_quota_us", "75000\n");
    tree_write_text(&it.tree, "fs/cgroup/cpu/a/cpu.cfs_period_us", "50000\n");
    tree_write_text(&it.tree, "fs/cgroup/cpuset/a/cpuset.cpus", "0,2\n");
    tree_write_text(&it.tree, "fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    tree_write_text(&it.tree, "fs/cgroup/memory/a/memory.limit_in_bytes", "536870912\n");
    REQUIRE(find(&it, "3:cpu:/a\n2:cpuset:/a\n1:memory:/a\n") == 0);
    check_limit(&it, SMN_CGROUP_QUOTA, 1.5, "fs/cgroup/cpu/a");
    check_limit(&it, SMN_CGROUP_CPUS, 2.0, "fs/cgroup/cpuset/a");
    check_limit(&it, SMN_CGROUP_MAX_MEMORY, 536870912.0, "fs/cgroup/memory/a");
    tree_write_text(&it.tree, "fs/cgroup/cpuset/a/cpuset.effective_cpus", "2\n");
    check_limit(&it, SMN_CGROUP_CPUS, 1.0, "fs/cgroup/cpuset/a");
    tree_remove(&it.tree, "fs/cgroup/cpu/a/cpu.cfs_period_us");
    check_limit(&it, SMN_CGROUP_QUOTA, INFINITY, NULL);
    release(&it);
}

/* ---- the machine -------------------------------------------------------- */

static void check_machine(const proc_tree *tree, smn_text_buffer *text, double cpus, double bytes)
{
    smn_cgroup_machine found;
    smn_cgroup_read_machine(&found, tree->root, tree->root, text);
    CHECK_DOUBLE(found.cpus, cpus);
    CHECK_DOUBLE(found.memory_bytes, bytes);
}

static void test_machine(void)
{
    finder it;
    setup(&it);
    check_machine(&it.tree, &it.text, 0.0, 0.0);
    tree_write_text(&it.tree, "stat", "cpu  1 2\ncpu0 1 2\ncpu1 1 2\ncpu7 1 2\nintr 5\n");
    tree_write_text(&it.tree, "meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\n");
    check_machine(&it.tree, &it.text, 3.0, 1024000.0);
    tree_write_text(&it.tree, "devices/system/cpu/online", "0-3,8\n");
    check_machine(&it.tree, &it.text, 5.0, 1024000.0);
    tree_write_text(&it.tree, "devices/system/cpu/online", "rubbish\n");
    tree_write_text(&it.tree, "meminfo", "MemTotal: much kB\n");
    check_machine(&it.tree, &it.text, 3.0, 0.0);
    release(&it);
}

int main(void)
{
    test_lines();
    test_limits();
    test_cpu_lists();
    test_fields();
    test_mutations();
    test_places_of_version_2();
    test_places_of_version_1();
    test_places_of_both();
    test_places_beside_ours();
    test_tightest();
    test_limits_of_version_1();
    test_machine();
    return check_report();
}

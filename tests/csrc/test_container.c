/* The source `container` on made-up trees of control groups, as container engines make them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chance.h"
#include "check.h"
#include "fake_clock.h"
#include "probe.h"
#include "rig.h"
#include "self.h"

static const uint64_t SECOND = 1000000000;
static const uint64_t MS = 1000000;

static const char CPU[] = "container_cpu_utilization_percentage";
static const char THROTTLED[] = "container_cpu_throttled_percentage";
static const char MEMORY[] = "container_memory_usage_megabytes";
static const char MEMORY_SHARE[] = "container_memory_usage_percentage";
static const char OOM_KILLS[] = "container_oom_kills";

static const char *const KEYS[] = {CPU, THROTTLED, MEMORY, MEMORY_SHARE, OOM_KILLS};

enum {
    PID = 4242
};

typedef struct {
    proc_tree tree; /* of both file systems */
    fake_clock clock;
    source_probe probe;
    double cpu[2]; /* the last two readings: numerator and denominator */
    double cpu_before[2];
    double throttled[2];
    double throttled_before[2];
} container;

/* ---- files -------------------------------------------------------------- */

static void put_in(const proc_tree *tree, const char *folder, const char *name, const char *text)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "fs/cgroup%s/%s", folder, name);
    tree_write_text(tree, path, text);
}

static void put(const container *it, const char *folder, const char *name, const char *text)
{
    put_in(&it->tree, folder, name, text);
}

static void put_number(const container *it, const char *folder, const char *name, uint64_t number)
{
    char text[64];
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)number);
    put(it, folder, name, text);
}

static void drop(const container *it, const char *folder, const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "fs/cgroup%s/%s", folder, name);
    tree_remove(&it->tree, path);
}

/* Eight CPUs, 16 GiB. */
static void put_machine(const proc_tree *tree)
{
    tree_write_text(tree, "devices/system/cpu/online", "0-7\n");
    tree_write_text(tree, "meminfo", "MemTotal:       16777216 kB\n");
}

static void put_process(const container *it, const char *lines)
{
    tree_write_text(&it->tree, "4242/cgroup", lines);
}

static void setup(container *it, const char *lines)
{
    memset(it, 0, sizeof *it);
    tree_create(&it->tree);
    fake_clock_init(&it->clock);
    put_machine(&it->tree);
    put_process(it, lines);
}

static void put_cpu_stat(const proc_tree *tree, const char *folder, uint64_t usec, uint64_t periods,
                         uint64_t throttled)
{
    char text[256];
    snprintf(text, sizeof text,
             "usage_usec %llu\nuser_usec 1\nsystem_usec 2\nnr_periods %llu\nnr_throttled %llu\n"
             "throttled_usec 3\nnr_bursts 0\nburst_usec 0\n",
             (unsigned long long)usec, (unsigned long long)periods, (unsigned long long)throttled);
    put_in(tree, folder, "cpu.stat", text);
}

static void put_cpu_time(const container *it, const char *folder, uint64_t usec)
{
    put_cpu_stat(&it->tree, folder, usec, 10, 5);
}

static void put_memory(const container *it, const char *folder, uint64_t current, uint64_t inactive)
{
    char text[256];
    put_number(it, folder, "memory.current", current);
    snprintf(text, sizeof text,
             "anon 1\nfile 2\ninactive_anon 3\nactive_anon 4\ninactive_file %llu\nactive_file 5\n",
             (unsigned long long)inactive);
    put(it, folder, "memory.stat", text);
}

static void put_oom_kills(const container *it, const char *folder, uint64_t kills)
{
    char text[128];
    snprintf(text, sizeof text, "low 0\nhigh 0\nmax 7\noom 8\noom_kill %llu\noom_group_kill 9\n",
             (unsigned long long)kills);
    put(it, folder, "memory.events", text);
}

/* A group of version 2 with both limits, which has used nothing so far. */
static void put_group(const container *it, const char *folder, const char *cpu_max,
                      const char *memory_max)
{
    put(it, folder, "cpu.max", cpu_max);
    put(it, folder, "memory.max", memory_max);
    put_cpu_time(it, folder, 0);
    put_memory(it, folder, 0, 0);
    put_oom_kills(it, folder, 0);
}

static void put_second(const container *it)
{
    put(it, "", "cgroup.controllers", "cpuset cpu io memory pids\n");
}

/* ---- readings ----------------------------------------------------------- */

static int try_open(container *it)
{
    smn_environment environment = {
        .procfs = it->tree.root, .sysfs = it->tree.root, .pid = PID, .clock = &it->clock.clock};
    return probe_open_in(&it->probe, "container", &environment);
}

static void release(container *it)
{
    probe_close(&it->probe);
    tree_destroy(&it->tree);
}

static void get_counters(const container *it, const char *key, double counters[2])
{
    for (int i = 0; i < it->probe.schema.series_count; i++) {
        const smn_series_spec *spec = &it->probe.schema.series[i].spec;
        if (strcmp(spec->key, key) == 0) {
            counters[0] = it->probe.columns[spec->numerator];
            counters[1] = it->probe.columns[spec->denominator];
        }
    }
}

static int read_all(container *it)
{
    int error = probe_sample(&it->probe);
    memcpy(it->cpu_before, it->cpu, sizeof it->cpu);
    memcpy(it->throttled_before, it->throttled, sizeof it->throttled);
    get_counters(it, CPU, it->cpu);
    get_counters(it, THROTTLED, it->throttled);
    return error;
}

static void pass(container *it, uint64_t ns)
{
    atomic_fetch_add(&it->clock.now_ns, ns);
}

static void start(container *it)
{
    REQUIRE(try_open(it) == 0);
    CHECK_INT(read_all(it), 0);
}

static int read_after(container *it, uint64_t ns)
{
    pass(it, ns);
    return read_all(it);
}

/* Of the last two readings. */
static double cpu_percentage(const container *it)
{
    return 100.0 * (it->cpu[0] - it->cpu_before[0]) / (it->cpu[1] - it->cpu_before[1]);
}

static double throttled_percentage(const container *it)
{
    return 100.0 * (it->throttled[0] - it->throttled_before[0]) /
           (it->throttled[1] - it->throttled_before[1]);
}

/* Takes a second in which so much CPU time is used in the group. */
static double use_cpu(container *it, const char *folder, uint64_t *usec, uint64_t more_usec)
{
    *usec += more_usec;
    put_cpu_time(it, folder, *usec);
    CHECK_INT(read_after(it, SECOND), 0);
    return cpu_percentage(it);
}

static void check_keys(const container *it, bool cpu, bool throttled, bool memory)
{
    CHECK(probe_has(&it->probe, CPU) == cpu);
    CHECK(probe_has(&it->probe, THROTTLED) == throttled);
    CHECK(probe_has(&it->probe, MEMORY) == memory);
    CHECK(probe_has(&it->probe, MEMORY_SHARE) == memory);
    CHECK(probe_has(&it->probe, OOM_KILLS) == memory);
}

/* ---- version 2 ---------------------------------------------------------- */

static const char POD[] = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1f.slice";
static const char MAIN[] = "/kubepods.slice/kubepods-burstable.slice/"
                           "kubepods-burstable-pod1f.slice/cri-containerd-0a.scope";

/* A pod of two containers, seen from the host or without a namespace of its own. */
static void put_pod(const container *it)
{
    put_second(it);
    put_cpu_time(it, "", 999);
    put_group(it, "/kubepods.slice", "max 100000\n", "15000000000\n");
    put_group(it, "/kubepods.slice/kubepods-burstable.slice", "max 100000\n", "max\n");
    put_group(it, POD, "300000 100000\n", "3000000000\n");
    put_group(it, MAIN, "200000 100000\n", "2000000000\n");
}

static void put_pods_process(const container *it)
{
    char line[256];
    snprintf(line, sizeof line, "0::%s\n", MAIN);
    put_process(it, line);
}

static void test_schema(void)
{
    static const char *const units[] = {"percentage", "percentage", "megabytes", "percentage",
                                        "kills"};
    static const int kinds[] = {SMN_RATIO, SMN_RATIO, SMN_GAUGE, SMN_GAUGE, SMN_TOTAL};
    container it;
    setup(&it, "0::/\n");
    put_pods_process(&it);
    put_pod(&it);
    start(&it);
    CHECK(it.probe.source->by_default);
    CHECK_U64(it.probe.source->min_interval_ns, 10 * MS);
    if (CHECK_INT(it.probe.schema.series_count, 5)) {
        for (int i = 0; i < 5; i++) {
            const smn_series_spec *spec = &it.probe.schema.series[i].spec;
            CHECK_TEXT(spec->key, KEYS[i]);
            CHECK_TEXT(spec->unit, units[i]);
            CHECK_INT(spec->kind, kinds[i]);
        }
    }
    release(&it);
}

static void test_pod(void)
{
    container it;
    setup(&it, "0::/\n");
    put_pods_process(&it);
    put_pod(&it);
    start(&it);
    put_cpu_stat(&it.tree, MAIN, 1500000, 20, 8);
    put_cpu_stat(&it.tree, POD, 2500000, 20, 0);
    put_memory(&it, MAIN, 1000000000, 400000000);
    put_memory(&it, POD, 2500000000, 0);
    put_oom_kills(&it, MAIN, 2);
    CHECK_INT(read_after(&it, SECOND), 0);
    CHECK_NEAR(cpu_percentage(&it), 75.0, 1e-9); /* of two cores */
    CHECK_NEAR(throttled_percentage(&it), 30.0, 1e-9);
    CHECK_NEAR(probe_value(&it.probe, MEMORY), 600.0, 1e-9);
    CHECK_NEAR(probe_value(&it.probe, MEMORY_SHARE), 30.0, 1e-9);
    CHECK_DOUBLE(probe_value(&it.probe, OOM_KILLS), 2.0);
    release(&it);
}

/* The namespace hides the path, and its group is the root of the mount. */
static void test_private_namespace(void)
{
    container it;
    setup(&it, "0::/\n");
    put_second(&it);
    put_group(&it, "", "50000 100000\n", "1000000000\n");
    start(&it);
    check_keys(&it, true, true, true);
    uint64_t usec = 0;
    put_memory(&it, "", 250000000, 0);
    CHECK_NEAR(use_cpu(&it, "", &usec, 250000), 50.0, 1e-9);
    CHECK_NEAR(probe_value(&it.probe, MEMORY_SHARE), 25.0, 1e-9);
    release(&it);

    /* systemd within moves everything into groups of its own, which have no limits. */
    setup(&it, "0::/init.scope\n");
    put_second(&it);
    put_group(&it, "", "50000 100000\n", "1000000000\n");
    put_group(&it, "/init.scope", "max 100000\n", "max\n");
    start(&it);
    usec = 0;
    CHECK_NEAR(use_cpu(&it, "", &usec, 500000), 100.0, 1e-9);
    release(&it);
}

/* What is beside or above our namespace is not limited by what limits ours. */
static void test_outside_of_the_namespace(void)
{
    container it;
    setup(&it, "0::/../cri-containerd-0b.scope\n");
    put_second(&it);
    put_group(&it, "", "50000 100000\n", "1000000000\n");
    CHECK_INT(try_open(&it), -ENODATA);
    put_process(&it, "0::/../..\n");
    CHECK_INT(try_open(&it), -ENODATA);
    tree_destroy(&it.tree);
}

/* The one in the middle is the tightest, for memory; for CPU time the outermost. */
static void test_nested(void)
{
    container it;
    setup(&it, "0::/a/b/c\n");
    put_second(&it);
    put_group(&it, "/a", "100000 100000\n", "4000000000\n");
    put_group(&it, "/a/b", "max 100000\n", "1000000000\n");
    put_group(&it, "/a/b/c", "400000 100000\n", "2000000000\n");
    start(&it);
    uint64_t usec = 0;
    put_memory(&it, "/a", 1, 0);
    put_memory(&it, "/a/b", 900000000, 0);
    put_memory(&it, "/a/b/c", 2, 0);
    put_cpu_time(&it, "/a/b/c", 10);
    put_oom_kills(&it, "/a/b", 3);
    put_oom_kills(&it, "/a", 9);
    CHECK_NEAR(use_cpu(&it, "/a", &usec, 800000), 80.0, 1e-9);
    CHECK_NEAR(probe_value(&it.probe, MEMORY_SHARE), 90.0, 1e-9);
    CHECK_DOUBLE(probe_value(&it.probe, OOM_KILLS), 3.0);
    release(&it);
}

/* ---- which keys there are ----------------------------------------------- */

static void test_cpuset_alone(void)
{
    container it;
    setup(&it, "0::/a/b\n");
    put_second(&it);
    put(&it, "", "cpuset.cpus.effective", "0-7\n");
    put(&it, "/a", "cpuset.cpus.effective", "0,2,4-5\n");
    put(&it, "/a/b", "cpuset.cpus.effective", "0,2,4-5\n");
    put(&it, "/a", "cpu.max", "max 100000\n");
    put_cpu_time(&it, "/a", 0);
    put_cpu_time(&it, "/a/b", 0);
    start(&it);
    check_keys(&it, true, false, false);
    uint64_t usec = 0;
    CHECK_NEAR(use_cpu(&it, "/a", &usec, 3000000), 75.0, 1e-9); /* of four CPUs */
    release(&it);
}

/* Whichever is tighter: two CPUs of a quota of four cores, whose periods count all the same. */
static void test_cpuset_and_quota(void)
{
    container it;
    setup(&it, "0::/a/b\n");
    put_second(&it);
    put(&it, "/a", "cpuset.cpus.effective", "6-7\n");
    put(&it, "/a/b", "cpuset.cpus.effective", "6-7\n");
    put(&it, "/a/b", "cpu.max", "400000 100000\n");
    put_cpu_stat(&it.tree, "/a", 0, 0, 0);
    put_cpu_stat(&it.tree, "/a/b", 0, 0, 0);
    start(&it);
    check_keys(&it, true, true, false);
    put_cpu_stat(&it.tree, "/a", 1000000, 0, 0);
    put_cpu_stat(&it.tree, "/a/b", 5, 10, 1);
    CHECK_INT(read_after(&it, SECOND), 0);
    CHECK_NEAR(cpu_percentage(&it), 50.0, 1e-9);
    CHECK_NEAR(throttled_percentage(&it), 10.0, 1e-9);

    put(&it, "/a/b", "cpu.max", "100000 100000\n");
    CHECK_INT(read_after(&it, SECOND), 0);
    uint64_t usec = 5;
    CHECK_NEAR(use_cpu(&it, "/a/b", &usec, 500000), 50.0, 1e-9);
    release(&it);
}

static void test_one_kind_of_limit(void)
{
    container it;
    setup(&it, "0::/a\n");
    put_second(&it);
    put_group(&it, "/a", "max 100000\n", "1000000000\n");
    put(&it, "/a", "cpu.stat", "rubbish\n"); /* nobody asks */
    start(&it);
    check_keys(&it, false, false, true);
    release(&it);

    setup(&it, "0::/a\n");
    put_second(&it);
    put_group(&it, "/a", "50000 100000\n", "max\n");
    put(&it, "/a", "memory.current", "rubbish\n");
    start(&it);
    check_keys(&it, true, true, false);
    release(&it);
}

static void test_nothing_limits(void)
{
    static const struct {
        const char *name;
        const char *file;
        const char *text;
    } cases[] = {
        {"max", "memory.max", "max\n"},
        {"as much as there is", "memory.max", "17179869184\n"},
        {"more than there is", "memory.max", "99999999999999\n"},
        {"a sentinel", "memory.max", "9223372036854771712\n"},
        {"no quota", "cpu.max", "max 100000\n"},
        {"more cores than there are", "cpu.max", "900000 100000\n"},
        {"all CPUs", "cpuset.cpus.effective", "0-7\n"},
        {"none of these files", "pids.max", "5\n"},
        {"a quota that cannot be understood", "cpu.max", "much 100000\n"},
        {"memory that cannot be understood", "memory.max", "\n"},
    };
    container it;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].name);
        setup(&it, "0::/a\n");
        put_second(&it);
        put(&it, "/a", cases[i].file, cases[i].text);
        put_cpu_time(&it, "/a", 0);
        put_memory(&it, "/a", 0, 0);
        CHECK_INT(try_open(&it), -ENODATA);
        CHECK_INT(it.probe.schema.columns, 0);
        tree_destroy(&it.tree);
    }
    check_case(NULL);
}

static void test_no_process(void)
{
    container it;
    setup(&it, "0::/\n");
    put_second(&it);
    put_group(&it, "", "50000 100000\n", "1000000000\n");
    smn_environment environment = {
        .procfs = it.tree.root, .sysfs = it.tree.root, .clock = &it.clock.clock};
    CHECK_INT(probe_open_in(&it.probe, "container", &environment), -ENODATA);
    environment.pid = PID + 1;
    CHECK_INT(probe_open_in(&it.probe, "container", &environment), -ENODATA);
    environment.pid = PID;
    environment.sysfs = -1;
    CHECK_INT(probe_open_in(&it.probe, "container", &environment), -ENODATA);
    put_process(&it, "0::relative\n");
    CHECK_INT(try_open(&it), -ENODATA);
    tree_destroy(&it.tree);
}

/* Some kernels do not count all of it: what they lack is not missed at each reading. */
static void test_old_kernel(void)
{
    container it;
    setup(&it, "0::/\n");
    put_second(&it);
    put_group(&it, "", "50000 100000\n", "1000000000\n");
    put(&it, "", "memory.events", "low 0\nhigh 0\nmax 0\noom 0\n");
    put(&it, "", "cpu.stat", "usage_usec 1\nuser_usec 1\nsystem_usec 0\n");
    start(&it);
    CHECK(probe_has(&it.probe, CPU));
    CHECK(!probe_has(&it.probe, THROTTLED));
    CHECK(probe_has(&it.probe, MEMORY));
    CHECK(!probe_has(&it.probe, OOM_KILLS));
    CHECK_INT(read_after(&it, 20 * SECOND), 0);
    release(&it);
}

/* ---- version 1 ---------------------------------------------------------- */

/* Docker's: 1.5 cores, 500 MB; where the CPU's hierarchies are, and where the group is in each. */
static void put_first(const container *it, const char *cpu, const char *cpuacct, const char *below)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "/%s%s", cpu, below);
    put(it, folder, "cpu.cfs_quota_us", "75000\n");
    put(it, folder, "cpu.cfs_period_us", "50000\n");
    put(it, folder, "cpu.stat", "nr_periods 10\nnr_throttled 5\nthrottled_time 77\n");
    snprintf(folder, sizeof folder, "/%s%s", cpuacct, below);
    put_number(it, folder, "cpuacct.usage", 1000000000);
    snprintf(folder, sizeof folder, "/memory%s", below);
    put_number(it, folder, "memory.limit_in_bytes", 500000000);
    put_number(it, folder, "memory.usage_in_bytes", 300000000);
    put(it, folder, "memory.stat", "inactive_file 1\ntotal_inactive_file 50000000\n");
    put(it, folder, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n");
}

static void check_first(container *it, const char *cpu, const char *cpuacct, const char *below)
{
    char folder[PATH_MAX];
    start(it);
    check_keys(it, true, true, true);
    CHECK_NEAR(probe_value(&it->probe, MEMORY), 250.0, 1e-9);
    CHECK_NEAR(probe_value(&it->probe, MEMORY_SHARE), 50.0, 1e-9);
    CHECK_DOUBLE(probe_value(&it->probe, OOM_KILLS), 0.0);
    snprintf(folder, sizeof folder, "/%s%s", cpu, below);
    put(it, folder, "cpu.stat", "nr_periods 30\nnr_throttled 20\nthrottled_time 77\n");
    snprintf(folder, sizeof folder, "/%s%s", cpuacct, below);
    put_number(it, folder, "cpuacct.usage", 2200000000);
    snprintf(folder, sizeof folder, "/memory%s", below);
    put(it, folder, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n");
    CHECK_INT(read_after(it, SECOND), 0);
    CHECK_NEAR(cpu_percentage(it), 80.0, 1e-9);
    CHECK_NEAR(throttled_percentage(it), 75.0, 1e-9);
    CHECK_DOUBLE(probe_value(&it->probe, OOM_KILLS), 1.0);
    release(it);
}

static const char DOCKER_LINES[] = "9:memory:/docker/f00\n8:cpuset:/docker/f00\n"
                                   "4:cpu,cpuacct:/docker/f00\n1:name=systemd:/docker/f00\n"
                                   "0::/system.slice/containerd.service\n";

static void put_root_of_first(const container *it)
{
    put(it, "/memory", "memory.limit_in_bytes", "9223372036854771712\n");
    put(it, "/cpuset", "cpuset.cpus", "0-7\n");
    put(it, "/cpuset", "cpuset.effective_cpus", "0-7\n");
}

static void test_version_1(void)
{
    static const char apart[] = "9:memory:/docker/f00\n4:cpuacct:/docker/f00\n3:cpu:/docker/f00\n";
    container it;
    check_case("the path is visible");
    setup(&it, DOCKER_LINES);
    put_root_of_first(&it);
    put(&it, "/cpu,cpuacct", "cpu.cfs_quota_us", "-1\n");
    put(&it, "/cpu,cpuacct", "cpu.cfs_period_us", "100000\n");
    put_first(&it, "cpu,cpuacct", "cpu,cpuacct", "/docker/f00");
    check_first(&it, "cpu,cpuacct", "cpu,cpuacct", "/docker/f00");

    check_case("the mount shows nothing but the container's own group");
    setup(&it, DOCKER_LINES);
    put_root_of_first(&it);
    put_first(&it, "cpu,cpuacct", "cpu,cpuacct", "");
    check_first(&it, "cpu,cpuacct", "cpu,cpuacct", "");

    check_case("links");
    setup(&it, "4:cpuacct,cpu:/docker/f00\n3:memory:/docker/f00\n");
    put_first(&it, "cpu,cpuacct", "cpu,cpuacct", "");
    REQUIRE(symlinkat("cpu,cpuacct", it.tree.root, "fs/cgroup/cpu") == 0);
    REQUIRE(symlinkat("cpu,cpuacct", it.tree.root, "fs/cgroup/cpuacct") == 0);
    check_first(&it, "cpu", "cpuacct", "");

    check_case("CPU time has a hierarchy of its own");
    setup(&it, apart);
    put_first(&it, "cpu", "cpuacct", "/docker/f00");
    check_first(&it, "cpu", "cpuacct", "/docker/f00");

    check_case("hybrid");
    setup(&it, DOCKER_LINES);
    put(&it, "/unified", "cgroup.controllers", "\n");
    put_cpu_time(&it, "/unified", 1);
    put_first(&it, "cpu,cpuacct", "cpu,cpuacct", "/docker/f00");
    check_first(&it, "cpu,cpuacct", "cpu,cpuacct", "/docker/f00");
    check_case(NULL);
}

/* The process is not below the limited group where CPU time is counted: nobody knows it. */
static void test_cpu_time_counted_elsewhere(void)
{
    container it;
    setup(&it, "9:memory:/a\n4:cpuacct:/\n3:cpu:/a\n");
    put_first(&it, "cpu", "cpuacct", "/a");
    start(&it);
    CHECK(!probe_has(&it.probe, CPU));
    CHECK(probe_has(&it.probe, THROTTLED));
    put_process(&it, "9:memory:/a\n4:cpuacct:/ab\n3:cpu:/a\n");
    put_number(&it, "/cpuacct/ab", "cpuacct.usage", 1);
    CHECK_INT(read_after(&it, 20 * SECOND), 0);
    release(&it);

    setup(&it, "9:memory:/a\n4:cpuacct:/a/b\n3:cpu:/a\n");
    put_first(&it, "cpu", "cpuacct", "/a");
    put_number(&it, "/cpuacct/a/b", "cpuacct.usage", 1);
    start(&it);
    CHECK(probe_has(&it.probe, CPU));
    put_number(&it, "/cpuacct/a", "cpuacct.usage", 1750000000);
    CHECK_INT(read_after(&it, SECOND), 0);
    CHECK_NEAR(cpu_percentage(&it), 50.0, 1e-9);
    release(&it);
}

/* CPU time of version 1, memory of version 2. */
static void test_hybrid_with_controllers(void)
{
    container it;
    setup(&it, "4:cpu,cpuacct:/job\n0::/job\n");
    put_first(&it, "cpu,cpuacct", "cpu,cpuacct", "/job");
    put(&it, "/unified", "cgroup.controllers", "memory\n");
    put(&it, "/unified/job", "memory.max", "1000000000\n");
    put_memory(&it, "/unified/job", 100000000, 0);
    put_oom_kills(&it, "/unified/job", 0);
    start(&it);
    check_keys(&it, true, true, true);
    CHECK_NEAR(probe_value(&it.probe, MEMORY_SHARE), 10.0, 1e-9);
    put_number(&it, "/cpu,cpuacct/job", "cpuacct.usage", 2500000000);
    CHECK_INT(read_after(&it, SECOND), 0);
    CHECK_NEAR(cpu_percentage(&it), 100.0, 1e-9);
    release(&it);
}

/* ---- change ------------------------------------------------------------- */

static void test_limits_change(void)
{
    container it;
    uint64_t usec = 0;
    setup(&it, "0::/a\n");
    put_second(&it);
    put_group(&it, "/a", "100000 100000\n", "1000000000\n");
    start(&it);
    CHECK_NEAR(use_cpu(&it, "/a", &usec, 500000), 50.0, 1e-9);
    /* It grows: what was used until the reading that shows it may have been used under either. */
    put(&it, "/a", "cpu.max", "200000 100000\n");
    put(&it, "/a", "memory.max", "2000000000\n");
    put_memory(&it, "/a", 500000000, 0);
    CHECK_NEAR(use_cpu(&it, "/a", &usec, 2000000), 100.0, 1e-9);
    CHECK_NEAR(probe_value(&it.probe, MEMORY_SHARE), 25.0, 1e-9);
    CHECK_NEAR(use_cpu(&it, "/a", &usec, 1000000), 50.0, 1e-9);
    /* It shrinks. */
    put(&it, "/a", "cpu.max", "50000 100000\n");
    CHECK_NEAR(use_cpu(&it, "/a", &usec, 2000000), 100.0, 1e-9);
    CHECK_NEAR(use_cpu(&it, "/a", &usec, 250000), 50.0, 1e-9);
    release(&it);
}

/* What was used without a limit says nothing about one. */
static void test_limit_goes_and_comes(void)
{
    container it;
    uint64_t usec = 0;
    setup(&it, "0::/a\n");
    put_second(&it);
    put_group(&it, "/a", "100000 100000\n", "1000000000\n");
    start(&it);
    CHECK_NEAR(use_cpu(&it, "/a", &usec, 500000), 50.0, 1e-9);
    double share = it.cpu[0];
    put(&it, "/a", "cpu.max", "max 100000\n");
    put(&it, "/a", "memory.max", "max\n");
    put_cpu_time(&it, "/a", usec += 8000000);
    CHECK_INT(read_after(&it, SECOND), 0); /* nothing has failed */
    CHECK_ABSENT(it.cpu[0]);
    CHECK_ABSENT(it.throttled[0]);
    CHECK_ABSENT(probe_value(&it.probe, MEMORY));
    CHECK_ABSENT(probe_value(&it.probe, MEMORY_SHARE));
    CHECK_ABSENT(probe_value(&it.probe, OOM_KILLS));
    put(&it, "/a", "cpu.max", "100000 100000\n");
    put(&it, "/a", "memory.max", "1000000000\n");
    put_cpu_time(&it, "/a", usec += 8000000);
    CHECK_INT(read_after(&it, 10 * SECOND), 0);
    CHECK_DOUBLE(it.cpu[0], share); /* begins anew, and none of it counts */
    CHECK_DOUBLE(it.cpu[1], 1.0);
    CHECK_NEAR(use_cpu(&it, "/a", &usec, 250000), 25.0, 1e-9);
    release(&it);
}

/* A tighter one elsewhere on the way is found after ten seconds. */
static void test_another_group_becomes_the_tightest(void)
{
    container it;
    uint64_t inner = 0;
    uint64_t outer = 70000000;
    setup(&it, "0::/a/b\n");
    put_second(&it);
    put_group(&it, "/a", "max 100000\n", "max\n");
    put_group(&it, "/a/b", "200000 100000\n", "1000000000\n");
    put_cpu_time(&it, "/a", outer);
    start(&it);
    put(&it, "/a", "cpu.max", "100000 100000\n");
    for (int i = 0; i < 9; i++)
        CHECK_NEAR(use_cpu(&it, "/a/b", &inner, 1000000), 50.0, 1e-9);
    double sums[] = {it.cpu[0], it.cpu[1]};
    put_cpu_time(&it, "/a/b", inner += 1000000);
    CHECK_INT(read_after(&it, SECOND), 0);
    CHECK_DOUBLE(it.cpu[0], sums[0]); /* another counter: its first reading adds nothing */
    CHECK_DOUBLE(it.cpu[1], sums[1]);
    CHECK_NEAR(use_cpu(&it, "/a", &outer, 1000000), 100.0, 1e-9);
    release(&it);
}

static void test_process_moves(void)
{
    container it;
    uint64_t usec = 0;
    setup(&it, "0::/a\n");
    put_second(&it);
    put_group(&it, "/a", "100000 100000\n", "1000000000\n");
    put_group(&it, "/b", "400000 100000\n", "2000000000\n");
    put_cpu_stat(&it.tree, "/b", 900000000, 5000, 4000);
    put_oom_kills(&it, "/a", 5);
    put_oom_kills(&it, "/b", 500);
    put_memory(&it, "/b", 1000000000, 0);
    start(&it);
    put_oom_kills(&it, "/a", 6);
    CHECK_NEAR(use_cpu(&it, "/a", &usec, 500000), 50.0, 1e-9);
    CHECK_DOUBLE(probe_value(&it.probe, OOM_KILLS), 1.0);
    double periods = it.throttled[1];
    put_process(&it, "0::/b\n");
    CHECK_INT(read_after(&it, 10 * SECOND), 0);
    CHECK_DOUBLE(it.cpu[0], 0.5); /* neither a spike nor a fall */
    CHECK_DOUBLE(it.cpu[1], 1.0);
    CHECK_DOUBLE(it.throttled[1], periods);
    CHECK_DOUBLE(probe_value(&it.probe, OOM_KILLS), 1.0);
    CHECK_NEAR(probe_value(&it.probe, MEMORY_SHARE), 50.0, 1e-9);
    put_oom_kills(&it, "/b", 502);
    put_cpu_stat(&it.tree, "/b", 901000000, 5010, 4001);
    CHECK_INT(read_after(&it, SECOND), 0);
    CHECK_NEAR(cpu_percentage(&it), 25.0, 1e-9);
    CHECK_NEAR(throttled_percentage(&it), 10.0, 1e-9);
    CHECK_DOUBLE(probe_value(&it.probe, OOM_KILLS), 3.0);
    release(&it);
}

static const char *const GROUP_FILES[] = {"cpu.max",        "memory.max",  "cpu.stat",
                                          "memory.current", "memory.stat", "memory.events"};

/* A reading of a file in a folder that is gone fails; in a tree it is emptied, and then removed. */
static void remove_group(const container *it, const char *folder)
{
    for (size_t i = 0; i < sizeof GROUP_FILES / sizeof *GROUP_FILES; i++) {
        put(it, folder, GROUP_FILES[i], "");
        drop(it, folder, GROUP_FILES[i]);
    }
    drop(it, folder, "");
}

static void check_all_absent(const container *it)
{
    CHECK_ABSENT(it->cpu[0]);
    CHECK_ABSENT(it->throttled[0]);
    for (size_t i = 2; i < sizeof KEYS / sizeof *KEYS; i++)
        CHECK_ABSENT(probe_value(&it->probe, KEYS[i]));
}

static void test_group_vanishes_and_comes_back(void)
{
    container it;
    uint64_t usec = 60000000;
    setup(&it, "0::/a/b\n");
    put_second(&it);
    put_group(&it, "/a/b", "100000 100000\n", "1000000000\n");
    put_cpu_time(&it, "/a/b", usec);
    put_oom_kills(&it, "/a/b", 5);
    start(&it);
    CHECK_NEAR(use_cpu(&it, "/a/b", &usec, 500000), 50.0, 1e-9);
    remove_group(&it, "/a/b");
    for (int i = 0; i < 20; i++) {
        CHECK(read_after(&it, SECOND) < 0);
        check_all_absent(&it);
    }
    put_group(&it, "/a/b", "200000 100000\n", "1000000000\n");
    CHECK_INT(read_after(&it, SECOND), 0);
    CHECK_DOUBLE(it.cpu[0], 0.5);
    CHECK_DOUBLE(it.cpu[1], 1.0);
    CHECK_DOUBLE(probe_value(&it.probe, OOM_KILLS), 0.0);
    usec = 0;
    CHECK_NEAR(use_cpu(&it, "/a/b", &usec, 500000), 25.0, 1e-9);
    release(&it);
}

/* Between two looks that are due: looking again and again would cost more than reading. */
static void test_failures_do_not_hurry(void)
{
    container it;
    setup(&it, "0::/a\n");
    put_second(&it);
    put_group(&it, "/a", "100000 100000\n", "1000000000\n");
    start(&it);
    put(&it, "/a", "memory.max", "rubbish\n");
    CHECK_INT(read_after(&it, 100 * MS), -EBADMSG);
    CHECK(!isnan(it.cpu[0]));
    CHECK_ABSENT(probe_value(&it.probe, MEMORY));
    put(&it, "/a", "memory.max", "1000000000\n");
    CHECK_INT(read_after(&it, 100 * MS), 0); /* the group is still known */
    CHECK_DOUBLE(probe_value(&it.probe, MEMORY), 0.0);
    put(&it, "/a", "memory.max", "rubbish\n");
    CHECK_INT(read_after(&it, SECOND), -EBADMSG); /* it is looked for, and not found */
    put(&it, "/a", "memory.max", "1000000000\n");
    CHECK_INT(read_after(&it, 500 * MS), -EBADMSG);
    CHECK_INT(read_after(&it, 500 * MS), 0);
    release(&it);
}

/* The process ends: its number may be another's, its folder is not. */
static void test_process_ends(void)
{
    container it;
    setup(&it, "0::/a\n");
    put_second(&it);
    put_group(&it, "/a", "100000 100000\n", "1000000000\n");
    start(&it);
    put_process(&it, "");
    tree_remove(&it.tree, "4242/cgroup");
    CHECK_INT(read_after(&it, SECOND), 0);
    tree_remove(&it.tree, "4242");
    put_process(&it, "0::/a\n"); /* somebody else */
    CHECK(read_after(&it, 10 * SECOND) == 0 || isnan(it.cpu[0]));
    release(&it);
}

/* ---- bad data ----------------------------------------------------------- */

static void test_counters_fall(void)
{
    container it;
    setup(&it, "0::/a\n");
    put_second(&it);
    put_group(&it, "/a", "100000 100000\n", "1000000000\n");
    put_cpu_stat(&it.tree, "/a", 9000000, 100, 50);
    put_oom_kills(&it, "/a", 7);
    start(&it);
    put_cpu_stat(&it.tree, "/a", 1000000, 10, 5);
    put_oom_kills(&it, "/a", 1);
    CHECK_INT(read_after(&it, SECOND), 0);
    CHECK_DOUBLE(it.cpu[0], it.cpu_before[0]);
    CHECK_DOUBLE(it.cpu[1], it.cpu_before[1]);
    CHECK_DOUBLE(it.throttled[0], it.throttled_before[0]);
    CHECK_DOUBLE(it.throttled[1], it.throttled_before[1]);
    CHECK_DOUBLE(probe_value(&it.probe, OOM_KILLS), 0.0);
    put_cpu_stat(&it.tree, "/a", 1250000, 20, 6);
    put_oom_kills(&it, "/a", 2);
    CHECK_INT(read_after(&it, SECOND), 0);
    CHECK_NEAR(cpu_percentage(&it), 25.0, 1e-9);
    CHECK_NEAR(throttled_percentage(&it), 10.0, 1e-9);
    CHECK_DOUBLE(probe_value(&it.probe, OOM_KILLS), 1.0);
    /* Of two numbers that are not read at one moment the second may be ahead. */
    put_cpu_stat(&it.tree, "/a", 1250000, 21, 8);
    CHECK_INT(read_after(&it, SECOND), 0);
    CHECK_NEAR(throttled_percentage(&it), 100.0, 1e-9);
    release(&it);
}

/* More than all CPUs can have used in that time is none of the kernel's. */
static void test_impossible_values(void)
{
    container it;
    uint64_t usec = 0;
    setup(&it, "0::/a\n");
    put_second(&it);
    put_group(&it, "/a", "100000 100000\n", "1000000000\n");
    start(&it);
    put_cpu_time(&it, "/a", UINT64_C(1) << 50);
    CHECK_INT(read_after(&it, SECOND), -EBADMSG);
    CHECK_ABSENT(it.cpu[0]);
    put_cpu_time(&it, "/a", UINT64_MAX);
    CHECK_INT(read_after(&it, SECOND), -EBADMSG);
    put_cpu_time(&it, "/a", usec);
    CHECK_INT(read_after(&it, SECOND), 0);
    CHECK_DOUBLE(it.cpu[0], 0.0);
    CHECK_NEAR(use_cpu(&it, "/a", &usec, 500000), 50.0, 1e-9);

    put_memory(&it, "/a", 100, 200); /* not read at one moment */
    CHECK_INT(read_after(&it, SECOND), 0);
    CHECK_DOUBLE(probe_value(&it.probe, MEMORY), 0.0);
    put_memory(&it, "/a", UINT64_MAX, 0);
    CHECK_INT(read_after(&it, SECOND), -EBADMSG);
    CHECK_ABSENT(probe_value(&it.probe, MEMORY));
    CHECK_DOUBLE(probe_value(&it.probe, OOM_KILLS), 0.0);
    put_memory(&it, "/a", 0, 0);
    put_oom_kills(&it, "/a", UINT64_MAX);
    CHECK_INT(read_after(&it, SECOND), -EBADMSG);
    CHECK_ABSENT(probe_value(&it.probe, OOM_KILLS));
    CHECK_DOUBLE(probe_value(&it.probe, MEMORY), 0.0);
    release(&it);
}

/* What a file that is not understood hides: its own values. */
static void test_garbage_hides_its_own(void)
{
    static const struct {
        const char *file;
        const char *text;
        bool has_cpu;
        bool has_memory;
        bool has_kills;
    } cases[] = {
        {"cpu.stat", "usage_usec x\n", false, true, true},
        {"cpu.stat", "", false, true, true},
        {"cpu.max", "rubbish\n", false, true, true},
        {"memory.current", "\n", true, false, true},
        {"memory.stat", "inactive_file", true, false, true},
        {"memory.stat", "active_file 1\n", true, false, true},
        {"memory.events", "oom_kill -1\n", true, true, false},
        {"memory.max", "0\n", true, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        container it;
        check_case("%s: %s", cases[i].file, cases[i].text);
        setup(&it, "0::/a\n");
        put_second(&it);
        put_group(&it, "/a", "100000 100000\n", "1000000000\n");
        start(&it);
        put(&it, "/a", cases[i].file, cases[i].text);
        CHECK(read_after(&it, SECOND) < 0);
        CHECK(isnan(it.cpu[0]) == !cases[i].has_cpu);
        CHECK(isnan(it.throttled[0]) == !cases[i].has_cpu);
        CHECK(isnan(probe_value(&it.probe, MEMORY)) == !cases[i].has_memory);
        CHECK(isnan(probe_value(&it.probe, MEMORY_SHARE)) == !cases[i].has_memory);
        CHECK(isnan(probe_value(&it.probe, OOM_KILLS)) == !cases[i].has_kills);
        release(&it);
    }
    check_case(NULL);
}

/* A FIFO where a file should be holds nobody up, and a folder is no file. */
static void test_strange_files(void)
{
    container it;
    setup(&it, "0::/a\n");
    put_second(&it);
    put_group(&it, "/a", "100000 100000\n", "1000000000\n");
    drop(&it, "/a", "memory.current");
    REQUIRE(mkfifoat(it.tree.root, "fs/cgroup/a/memory.current", 0600) == 0);
    drop(&it, "/a", "memory.events");
    put(&it, "/a/memory.events", "file", "");
    REQUIRE(try_open(&it) == 0);
    CHECK(read_all(&it) < 0);
    CHECK(!isnan(it.cpu[0]));
    CHECK_ABSENT(probe_value(&it.probe, MEMORY));
    CHECK_ABSENT(probe_value(&it.probe, OOM_KILLS));
    release(&it);
}

static void test_mutations(void)
{
    static const struct {
        const char *path;
        const char *text;
    } files[] = {
        {"4242/cgroup", "0::/a/b\n"},
        {"fs/cgroup/a/cpu.max", "100000 100000\n"},
        {"fs/cgroup/a/b/memory.max", "1000000000\n"},
        {"fs/cgroup/a/b/cpuset.cpus.effective", "0-3,6\n"},
        {"fs/cgroup/a/cpu.stat", "usage_usec 9\nnr_periods 10\nnr_throttled 5\n"},
        {"fs/cgroup/a/b/memory.current", "500000000\n"},
        {"fs/cgroup/a/b/memory.stat", "anon 1\ninactive_file 7\n"},
        {"fs/cgroup/a/b/memory.events", "oom 1\noom_kill 3\n"},
        {"devices/system/cpu/online", "0-7\n"},
        {"meminfo", "MemTotal:       16777216 kB\n"},
    };
    enum {
        FILES = sizeof files / sizeof *files
    };
    container it;
    setup(&it, "0::/a/b\n");
    put_second(&it);
    put_group(&it, "/a/b", "max 100000\n", "1000000000\n");
    for (int i = 0; i < FILES; i++)
        tree_write_text(&it.tree, files[i].path, files[i].text);
    start(&it);
    char mutated[256];
    chance_state chance = {20251124};
    double kills = 0.0;
    for (int i = 0; i < 3000; i++) {
        int which = (int)chance_below(&chance, FILES);
        size_t length = chance_mutate(&chance, files[which].text, strlen(files[which].text),
                                      mutated);
        check_case("mutation %d of %s", i, files[which].path);
        tree_write(&it.tree, files[which].path, mutated, length);
        (void)read_after(&it, 1 + chance_below(&chance, 3) * 5 * SECOND);
        CHECK(!(it.cpu[0] < 0.0) && !(it.cpu[1] < 0.0) && !isinf(it.cpu[0]));
        CHECK(!(it.throttled[0] > it.throttled[1]));
        CHECK(!(probe_value(&it.probe, MEMORY) < 0.0));
        CHECK(!isinf(probe_value(&it.probe, MEMORY_SHARE)));
        CHECK(!(probe_value(&it.probe, OOM_KILLS) < kills));
        if (!isnan(probe_value(&it.probe, OOM_KILLS)))
            kills = probe_value(&it.probe, OOM_KILLS);
        tree_write_text(&it.tree, files[which].path, files[which].text);
    }
    check_case(NULL);
    CHECK_INT(read_after(&it, 20 * SECOND), 0);
    CHECK_NEAR(probe_value(&it.probe, MEMORY_SHARE), 100.0 * (500000000 - 7) / 1e9, 1e-9);
    release(&it);
}

/* ---- windows ------------------------------------------------------------ */

static void put_rigs_group(const sampler_rig *rig)
{
    put_machine(&rig->tree);
    REQUIRE(symlinkat("4242", rig->tree.root, "self") == 0);
    tree_write_text(&rig->tree, "4242/cgroup", "0::/a\n");
    put_in(&rig->tree, "", "cgroup.controllers", "cpu\n");
    put_in(&rig->tree, "/a", "cpu.max", "50000 100000\n");
    put_cpu_stat(&rig->tree, "/a", 0, 0, 0);
}

/*
 * A container that is busy all the time runs half of each period, and waits for
 * the other half: all of its share is used, at no time more. In every third
 * window it does nothing, and no period counts.
 */
static void test_exact_rates(void)
{
    sampler_rig rig;
    rig_prepare(&rig);
    put_rigs_group(&rig);
    rig_create(&rig, "container", 10 * MS, 300);
    REQUIRE(smn_sampler_start(rig.sampler) == 0);
    uint64_t usec = 0;
    uint64_t periods = 0;
    uint64_t throttled = 0;
    for (int window = 0; window < 6; window++) {
        bool is_busy = window % 3 != 2;
        for (int tick = 0; tick < 300; tick++) {
            if (is_busy && tick % 10 < 5)
                usec += 10000;
            periods += is_busy && tick % 10 == 9;
            throttled += is_busy && tick % 40 == 9;
            put_cpu_stat(&rig.tree, "/a", usec, periods, throttled);
            rig_tick(&rig, 1);
        }
        check_case("window %d", window);
        REQUIRE(rig_take(&rig) == 0);
        const smn_statistics *cpu = rig_statistics(&rig, CPU);
        CHECK_NEAR(cpu->mean, is_busy ? 100.0 : 0.0, 1e-6);
        CHECK_NEAR(cpu->max, is_busy ? 100.0 : 0.0, 1e-6);
        CHECK_NEAR(cpu->min, is_busy ? 100.0 : 0.0, 1e-6);
        const smn_statistics *waited = rig_statistics(&rig, THROTTLED);
        CHECK_NEAR(waited->mean, is_busy ? 100.0 * 8 / 30 : NAN, 1e-6);
    }
    check_case(NULL);
    CHECK_U64(rig_source(&rig, "container").errors, 0);
    rig_close(&rig);
}

/* While the group is away there is nothing: neither is that time idle, nor is there a spike. */
static void test_time_without_a_group(void)
{
    sampler_rig rig;
    rig_prepare(&rig);
    put_rigs_group(&rig);
    rig_create(&rig, "container", 100 * MS, 100);
    REQUIRE(smn_sampler_start(rig.sampler) == 0);
    uint64_t usec = 0;
    for (int tick = 0; tick < 100; tick++) {
        bool is_away = tick >= 30 && tick < 60;
        usec += 25000;
        put_cpu_stat(&rig.tree, "/a", is_away ? 0 : usec, 0, 0);
        put_in(&rig.tree, "/a", "cpu.max", is_away ? "?\n" : "50000 100000\n");
        rig_tick(&rig, 1);
    }
    REQUIRE(rig_take(&rig) == 0);
    const smn_statistics *cpu = rig_statistics(&rig, CPU);
    CHECK_NEAR(cpu->mean, 50.0, 1e-6);
    CHECK_NEAR(cpu->min, 50.0, 1e-6);
    CHECK_NEAR(cpu->max, 50.0, 1e-6);
    CHECK(rig_source(&rig, "container").errors >= 30);
    rig_close(&rig);
}

/* ---- files of this program ---------------------------------------------- */

static void test_files_are_given_back(void)
{
    container it;
    int before = self_open_files();
    setup(&it, DOCKER_LINES);
    put_first(&it, "cpu,cpuacct", "cpu,cpuacct", "/docker/f00");
    put_first(&it, "cpu,cpuacct", "cpu,cpuacct", "/docker/f01");
    start(&it);
    CHECK_INT(read_after(&it, SECOND), 0); /* opens what shows whether a limit changes */
    int open = self_open_files();
    for (int i = 0; i < 50; i++) {
        put_process(&it, "9:memory:/docker/f01\n4:cpu,cpuacct:/docker/f01\n");
        CHECK_INT(read_after(&it, 10 * SECOND), 0);
        put_process(&it, DOCKER_LINES);
        CHECK_INT(read_after(&it, 10 * SECOND), 0);
        CHECK_INT(read_after(&it, SECOND), 0);
        CHECK_INT(self_open_files(), open);
    }
    put_process(&it, "rubbish\n");
    CHECK(read_after(&it, 10 * SECOND) < 0);
    CHECK(self_open_files() < open);
    release(&it);
    CHECK_INT(self_open_files(), before);
}

int main(void)
{
    test_schema();
    test_pod();
    test_private_namespace();
    test_outside_of_the_namespace();
    test_nested();
    test_cpuset_alone();
    test_cpuset_and_quota();
    test_one_kind_of_limit();
    test_nothing_limits();
    test_no_process();
    test_old_kernel();
    test_version_1();
    test_cpu_time_counted_elsewhere();
    test_hybrid_with_controllers();
    test_limits_change();
    test_limit_goes_and_comes();
    test_another_group_becomes_the_tightest();
    test_process_moves();
    test_group_vanishes_and_comes_back();
    test_failures_do_not_hurry();
    test_process_ends();
    test_counters_fall();
    test_impossible_values();
    test_garbage_hides_its_own();
    test_strange_files();
    test_mutations();
    test_exact_rates();
    test_time_without_a_group();
    test_files_are_given_back();
    return check_report();
}

/* The source `process` on made-up trees of processes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chance.h"
#include "check.h"
#include "fake_clock.h"
#include "probe.h"
#include "process_cpu.h"
#include "process_tree.h"
#include "relatives.h"
#include "rig.h"

enum {
    ROOT = 4242,
    PAGE_KIB = 4
};

static const char CPU[] = "process_cpu_percentage";
static const char RSS[] = "process_memory_rss_megabytes";
static const char VMS[] = "process_memory_vms_megabytes";
static const char SHARE[] = "process_memory_percentage";
static const char THREADS[] = "process_threads";
static const char FILES[] = "process_open_files";

/* A source on a tree, with a clock that the test moves. */
typedef struct {
    proc_tree tree;
    fake_clock clock;
    source_probe probe;
    double first_ticks;
} scene;

static void scene_prepare(scene *it)
{
    tree_create(&it->tree);
    fake_clock_init(&it->clock);
    tree_write_text(&it->tree, "meminfo", "MemTotal:        4000000 kB\nMemFree: 1 kB\n");
}

static int scene_open(scene *it, int pid, bool alone)
{
    const smn_environment environment = {
        .procfs = it->tree.root,
        .sysfs = -1,
        .disk_paths = "/",
        .foreign_procfs = true,
        .pid = pid,
        .process_alone = alone,
        .clock = &it->clock.clock,
    };
    return probe_open_in(&it->probe, "process", &environment);
}

static void pass_time(scene *it, uint64_t ns)
{
    atomic_fetch_add(&it->clock.now_ns, ns);
}

/* 100 ms later. */
static int look(scene *it)
{
    pass_time(it, 100000000);
    return probe_sample(&it->probe);
}

/* Ticks of CPU time since the first reading; NaN where there is none. */
static double ticks(const scene *it)
{
    return probe_value(&it->probe, CPU) * (double)sysconf(_SC_CLK_TCK) / 100.0 - it->first_ticks;
}

static void scene_begin(scene *it)
{
    REQUIRE(scene_open(it, ROOT, false) == 0);
    CHECK_INT(probe_sample(&it->probe), 0);
    it->first_ticks = 0.0;
    it->first_ticks = ticks(it);
}

static void scene_close(scene *it)
{
    probe_close(&it->probe);
    tree_destroy(&it->tree);
}

static double threads(const scene *it)
{
    return probe_value(&it->probe, THREADS);
}

static void lone_root(scene *it, relative *root)
{
    scene_prepare(it);
    *root = (relative){.pid = ROOT, .parent = 1, .user = 1000, .system = 200};
    relative_write(&it->tree, root);
    relative_have(&it->tree, ROOT, ROOT, "");
}

/* Looks once more, and checks what CPU time there was since the first reading. */
#define CHECK_TICKS(it, expected)                                                                  \
    do {                                                                                           \
        CHECK_INT(look(it), 0);                                                                    \
        CHECK_NEAR(ticks(it), (double)(expected), 1e-6);                                           \
    } while (0)

/* ---- schema and sums ---------------------------------------------------- */

static void test_schema(void)
{
    static const struct {
        const char *key;
        const char *unit;
        int kind;
    } expected[] = {
        {CPU, "percentage", SMN_RATE},   {RSS, "megabytes", SMN_GAUGE},
        {VMS, "megabytes", SMN_GAUGE},   {SHARE, "percentage", SMN_GAUGE},
        {THREADS, "threads", SMN_GAUGE}, {FILES, "files", SMN_GAUGE},
    };
    scene it;
    relative root;
    lone_root(&it, &root);
    scene_begin(&it);
    CHECK(!it.probe.source->by_default);
    CHECK_U64(it.probe.source->min_interval_ns, 100000000);
    if (CHECK_INT(it.probe.schema.series_count, 6)) {
        for (int i = 0; i < 6; i++) {
            const smn_series_spec *spec = &it.probe.schema.series[i].spec;
            CHECK_TEXT(spec->key, expected[i].key);
            CHECK_TEXT(spec->unit, expected[i].unit);
            CHECK_INT(spec->kind, expected[i].kind);
        }
    }
    scene_close(&it);
}

static void test_no_such_process(void)
{
    scene it;
    relative root;
    lone_root(&it, &root);
    CHECK_INT(scene_open(&it, 0, false), -ENODATA); /* procfs does not know us */
    CHECK_INT(scene_open(&it, ROOT + 1, false), -ENODATA);
    tree_write_text(&it.tree, "77/stat", "nonsense\n");
    CHECK_INT(scene_open(&it, 77, false), -ENODATA);
    tree_destroy(&it.tree);
}

/* A training process with eight workers, as PyTorch starts them. */
static void data_loader(scene *it, relative *root, relative workers[8])
{
    char children[128] = "";
    scene_prepare(it);
    *root = (relative){.pid = ROOT,
                       .parent = 1,
                       .user = 1000,
                       .threads = 3,
                       .virtual_bytes = 4000000000,
                       .resident_pages = 1000};
    for (int i = 0; i < 8; i++) {
        workers[i] = (relative){.pid = 5000 + i,
                                .parent = ROOT,
                                .name = "pt_data_worker",
                                .user = 500,
                                .virtual_bytes = 1000000000,
                                .resident_pages = 100};
        relative_write(&it->tree, &workers[i]);
        relative_have(&it->tree, workers[i].pid, workers[i].pid, "");
        relative_open_files(&it->tree, workers[i].pid, 3);
        snprintf(children + strlen(children), sizeof children - strlen(children), "%d ",
                 workers[i].pid);
    }
    relative_write(&it->tree, root);
    relative_open_files(&it->tree, ROOT, 10);
    relative_have(&it->tree, ROOT, ROOT, "");
    relative_have(&it->tree, ROOT, 4300, children); /* a thread of its own starts them */
    relative_have(&it->tree, ROOT, 4301, "");
}

static void test_sums(void)
{
    scene it;
    relative root;
    relative workers[8];
    data_loader(&it, &root, workers);
    scene_begin(&it);
    CHECK_NEAR(probe_value(&it.probe, RSS), 1800 * PAGE_KIB * 1.024e-3, 1e-9);
    CHECK_NEAR(probe_value(&it.probe, VMS), 12000.0, 1e-9);
    CHECK_NEAR(probe_value(&it.probe, SHARE), 1800.0 * PAGE_KIB / 4000000.0 * 100.0, 1e-9);
    CHECK_DOUBLE(threads(&it), 11.0);
    CHECK_DOUBLE(probe_value(&it.probe, FILES), 34.0);
    for (int round = 1; round <= 3; round++) {
        root.user += 3;
        root.system += 1;
        relative_write(&it.tree, &root);
        for (int i = 0; i < 8; i++) {
            workers[i].user += 9;
            workers[i].system += (uint64_t)i;
            relative_write(&it.tree, &workers[i]);
        }
        CHECK_TICKS(&it, round * (4 + 8 * 9 + 28));
        CHECK_ABSENT(probe_value(&it.probe, FILES)); /* once a second */
    }
    scene_close(&it);
}

/* Only the process itself, as MLFLOW_SYSTEM_METRICS_INCLUDE_CHILD_PROCESSES=false wants it. */
static void test_alone(void)
{
    scene it;
    relative root;
    relative workers[8];
    data_loader(&it, &root, workers);
    REQUIRE(scene_open(&it, ROOT, true) == 0);
    CHECK_INT(probe_sample(&it.probe), 0);
    it.first_ticks = 0.0;
    it.first_ticks = ticks(&it);
    CHECK_DOUBLE(threads(&it), 3.0);
    CHECK_DOUBLE(probe_value(&it.probe, FILES), 10.0);
    CHECK_NEAR(probe_value(&it.probe, VMS), 4000.0, 1e-9);
    relative_end(&it.tree, 5000);
    root.user += 4;
    root.waited_user += 600;
    relative_write(&it.tree, &root);
    CHECK_TICKS(&it, 4);
    scene_close(&it);
}

/* 100 ms of one core in each 100 ms are 100 %; the first value counts from the start. */
static void test_exact_rates(void)
{
    sampler_rig rig;
    rig_prepare(&rig);
    relative root = {.pid = ROOT, .parent = 1, .user = 1000};
    relative child = {.pid = 5000, .parent = ROOT, .user = 90000};
    REQUIRE(symlinkat("4242", rig.tree.root, "self") == 0);
    relative_write(&rig.tree, &root);
    relative_write(&rig.tree, &child);
    relative_have(&rig.tree, ROOT, ROOT, "5000 ");
    relative_have(&rig.tree, 5000, 5000, "");
    rig_create(&rig, "process", 1000000, 1000);
    REQUIRE(smn_sampler_start(rig.sampler) == 0);
    for (int tick = 1; tick <= 1000; tick++) {
        if (tick % 10 == 0) {
            child.user += 1;
            root.system += tick > 500;
            relative_write(&rig.tree, &root);
            relative_write(&rig.tree, &child);
        }
        rig_tick(&rig, 1);
    }
    REQUIRE(rig_take(&rig) == 0);
    CHECK_NEAR(rig_statistics(&rig, CPU)->mean, 150.0, 1e-6);
    CHECK_NEAR(rig_statistics(&rig, CPU)->min, 100.0, 1e-6);
    CHECK_NEAR(rig_statistics(&rig, CPU)->max, 200.0, 1e-6);
    CHECK_DOUBLE(rig_statistics(&rig, FILES)->mean, CHECK_NAN); /* there is no such folder */
    CHECK_U64(rig_source(&rig, "process").calls, 11); /* every hundredth tick and the first */
    rig_close(&rig);
}

/* ---- who belongs to it -------------------------------------------------- */

static void test_born_later_counts_from_its_birth(void)
{
    scene it;
    relative root;
    lone_root(&it, &root);
    scene_begin(&it);
    relative child = {.pid = 5000, .parent = ROOT, .user = 7, .waited_system = 2, .start = LATER};
    relative old = {.pid = 5001, .parent = ROOT, .user = 7000};
    relative_write(&it.tree, &child);
    relative_write(&it.tree, &old); /* there before, but not found then */
    relative_have(&it.tree, 5000, 5000, "");
    relative_have(&it.tree, 5001, 5001, "");
    relative_have(&it.tree, ROOT, ROOT, "5000 5001 ");
    CHECK_TICKS(&it, 9);
    CHECK_DOUBLE(threads(&it), 3.0);
    old.user += 5;
    relative_write(&it.tree, &old);
    CHECK_TICKS(&it, 14);
    scene_close(&it);
}

static void test_grandchildren_of_threads(void)
{
    scene it;
    relative root;
    lone_root(&it, &root);
    relative child = {.pid = 5000, .parent = ROOT, .threads = 2};
    relative grandchild = {.pid = 5002, .parent = 5000, .name = ") Z 1 (", .user = 50};
    relative_write(&it.tree, &child);
    relative_write(&it.tree, &grandchild);
    relative_have(&it.tree, ROOT, ROOT, "5000 ");
    relative_have(&it.tree, 5000, 5000, "");
    relative_have(&it.tree, 5000, 5001, "5002 ");
    relative_have(&it.tree, 5002, 5002, "");
    scene_begin(&it);
    CHECK_DOUBLE(threads(&it), 4.0);
    grandchild.system += 6;
    relative_write(&it.tree, &grandchild);
    CHECK_TICKS(&it, 6);
    scene_close(&it);
}

/* Its parent ends and init takes it over: it is ours as before, and so are its children. */
static void test_orphan(void)
{
    scene it;
    relative root;
    lone_root(&it, &root);
    relative child = {.pid = 5000, .parent = ROOT, .user = 10};
    relative orphan = {.pid = 5001, .parent = 5000, .user = 10};
    relative late = {.pid = 5002, .parent = 5001, .user = 3, .start = LATER};
    relative_write(&it.tree, &child);
    relative_write(&it.tree, &orphan);
    relative_have(&it.tree, ROOT, ROOT, "5000 ");
    relative_have(&it.tree, 5000, 5000, "5001 ");
    relative_have(&it.tree, 5001, 5001, "");
    scene_begin(&it);
    relative_end(&it.tree, 5000);
    relative_have(&it.tree, ROOT, ROOT, "");
    root.waited_user += 10;
    relative_write(&it.tree, &root);
    orphan.parent = 1;
    orphan.user += 4;
    relative_write(&it.tree, &orphan);
    relative_have(&it.tree, 5001, 5001, "5002 ");
    relative_have(&it.tree, 5002, 5002, "");
    relative_write(&it.tree, &late);
    CHECK_TICKS(&it, 7);
    CHECK_DOUBLE(threads(&it), 3.0);
    /* Init waits for it, and nobody of us: what was last seen stays. */
    relative_end(&it.tree, 5001);
    CHECK_TICKS(&it, 7);
    CHECK_DOUBLE(threads(&it), 2.0);
    scene_close(&it);
}

static void test_reused_pid(void)
{
    scene it;
    relative root;
    lone_root(&it, &root);
    relative child = {.pid = 5000, .parent = ROOT, .user = 10, .start = 100};
    relative_write(&it.tree, &child);
    relative_have(&it.tree, ROOT, ROOT, "5000 ");
    relative_have(&it.tree, 5000, 5000, "");
    scene_begin(&it);
    relative stranger = {.pid = 5000, .parent = 1, .user = 100000, .threads = 50, .start = LATER};
    relative_write(&it.tree, &stranger);
    relative_have(&it.tree, ROOT, ROOT, "");
    root.waited_user += 11;
    relative_write(&it.tree, &root);
    CHECK_TICKS(&it, 1);
    CHECK_DOUBLE(threads(&it), 1.0);
    stranger.user += 100;
    relative_write(&it.tree, &stranger);
    CHECK_TICKS(&it, 1);
    /* Of our own, it is a new one. */
    relative next = {.pid = 5000, .parent = ROOT, .user = 2, .start = LATER + 5};
    relative_write(&it.tree, &next);
    relative_have(&it.tree, ROOT, ROOT, "5000 ");
    CHECK_TICKS(&it, 3);
    CHECK_DOUBLE(threads(&it), 2.0);
    next.start += 1;
    next.user = 1;
    relative_write(&it.tree, &next);
    root.waited_user += 2;
    relative_write(&it.tree, &root);
    CHECK_TICKS(&it, 4);
    scene_close(&it);
}

static void test_exec(void)
{
    scene it;
    relative root;
    lone_root(&it, &root);
    relative child = {.pid = 5000, .parent = ROOT, .name = "bash", .user = 10};
    relative_write(&it.tree, &child);
    relative_have(&it.tree, ROOT, ROOT, "5000 ");
    relative_have(&it.tree, 5000, 5000, "");
    scene_begin(&it);
    child.name = "a (really) long) name";
    child.user += 5;
    relative_write(&it.tree, &child);
    root.name = "python (2)";
    relative_write(&it.tree, &root);
    CHECK_TICKS(&it, 5);
    CHECK_DOUBLE(threads(&it), 2.0);
    scene_close(&it);
}

/* It has its CPU time until somebody waits for it, however long that takes, and nothing else. */
static void test_zombie(void)
{
    scene it;
    relative root;
    lone_root(&it, &root);
    relative child = {.pid = 5000, .parent = ROOT, .user = 10, .resident_pages = 100};
    relative_write(&it.tree, &child);
    relative_have(&it.tree, ROOT, ROOT, "5000 ");
    relative_have(&it.tree, 5000, 5000, "");
    relative_open_files(&it.tree, ROOT, 1);
    relative_open_files(&it.tree, 5000, 2);
    scene_begin(&it);
    CHECK_DOUBLE(probe_value(&it.probe, FILES), 3.0);
    child.state = 'Z';
    child.user += 3;
    child.resident_pages = 0;
    relative_write(&it.tree, &child);
    for (int i = 0; i < 3; i++) {
        CHECK_TICKS(&it, 3);
        CHECK_DOUBLE(threads(&it), 1.0);
        CHECK_DOUBLE(probe_value(&it.probe, RSS), 0.0);
    }
    pass_time(&it, 1000000000);
    CHECK_TICKS(&it, 3);
    CHECK_DOUBLE(probe_value(&it.probe, FILES), 1.0);
    relative_end(&it.tree, 5000);
    root.waited_user += 13;
    relative_write(&it.tree, &root);
    CHECK_TICKS(&it, 3);
    scene_close(&it);
}

/* ---- the end of the root ------------------------------------------------ */

static void test_root_ends(void)
{
    scene it;
    relative root;
    lone_root(&it, &root);
    relative child = {.pid = 5000, .parent = ROOT, .user = 10, .resident_pages = 1000};
    relative_write(&it.tree, &child);
    relative_have(&it.tree, ROOT, ROOT, "5000 ");
    relative_have(&it.tree, 5000, 5000, "");
    scene_begin(&it);
    relative_end(&it.tree, ROOT);
    child.user += 2;
    child.parent = 1;
    relative_write(&it.tree, &child);
    CHECK_TICKS(&it, 2);
    CHECK_NEAR(probe_value(&it.probe, RSS), 1000 * PAGE_KIB * 1.024e-3, 1e-9);
    relative_end(&it.tree, 5000);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(look(&it), -ESRCH);
        CHECK_ABSENT(probe_value(&it.probe, CPU));
        CHECK_ABSENT(probe_value(&it.probe, RSS));
        CHECK_ABSENT(probe_value(&it.probe, THREADS));
        CHECK_ABSENT(probe_value(&it.probe, FILES));
    }
    relative_write(&it.tree, &root); /* another one, of this pid or not, is nobody we know */
    CHECK_INT(look(&it), -ESRCH);
    scene_close(&it);
}

/* ---- what others do does not matter ------------------------------------- */

/* Nothing of a process that is not ours is opened: its files are watched. */
static void test_strangers_are_left_alone(void)
{
    scene it;
    relative root;
    char path[PATH_MAX + 32];
    lone_root(&it, &root);
    int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    REQUIRE(watch >= 0);
    for (int pid = 100; pid < 120; pid++) {
        relative stranger = {.pid = pid, .parent = 1, .user = 5};
        relative_write(&it.tree, &stranger);
        relative_have(&it.tree, pid, pid, "");
        relative_open_files(&it.tree, pid, 1);
        snprintf(path, sizeof path, "%s/%d", it.tree.path, pid);
        REQUIRE(inotify_add_watch(watch, path, IN_OPEN | IN_ACCESS) >= 0);
    }
    scene_begin(&it);
    for (int i = 0; i < 15; i++)
        CHECK_INT(look(&it), 0);
    char event[4096];
    CHECK(read(watch, event, sizeof event) < 0);
    CHECK_INT(errno, EAGAIN);
    snprintf(path, sizeof path, "%d/stat", 100);
    int fd = openat(it.tree.root, path, O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    close(fd);
    CHECK(read(watch, event, sizeof event) > 0); /* the watch works */
    close(watch);
    scene_close(&it);
}

/*
 * A kernel without lists of children: everybody is asked, once a second at most,
 * in the order of the folder. In a real one that is the order of pids.
 */
static void test_without_children_files(void)
{
    scene it;
    scene_prepare(&it);
    relative root = {.pid = ROOT, .parent = 1};
    relative child = {.pid = 5000, .parent = ROOT, .user = 10};
    relative grandchild = {.pid = 6000, .parent = 5000, .user = 10};
    relative stranger = {.pid = 100, .parent = 1, .user = 10, .threads = 9};
    relative_write(&it.tree, &root);
    relative_write(&it.tree, &child);
    relative_write(&it.tree, &grandchild);
    relative_write(&it.tree, &stranger);
    tree_write_text(&it.tree, "200/stat", "garbage\n");
    scene_begin(&it);
    for (int i = 0; i < 2; i++) {
        pass_time(&it, 1000000000);
        CHECK_TICKS(&it, 0);
    }
    CHECK_DOUBLE(threads(&it), 3.0);
    relative late = {.pid = 6001, .parent = 6000, .user = 4, .start = LATER};
    relative_write(&it.tree, &late);
    grandchild.user += 1;
    relative_write(&it.tree, &grandchild);
    CHECK_TICKS(&it, 1);
    pass_time(&it, 1000000000);
    CHECK_TICKS(&it, 5);
    CHECK_DOUBLE(threads(&it), 4.0);
    scene_close(&it);
}

/* ---- failures ----------------------------------------------------------- */

/* What cannot be read makes the sum a lie; nothing is lost by it. */
static void test_garbage(void)
{
    static const char *const bad[] = {
        "",
        "\n",
        "5000 (python) S 4242",
        "5000 (py",
        "4999 (python) S 4242 1 1 0 -1 0 0 0 0 0 1 2 "
        "3 4 20 0 1 0 7 6 7 8\n",
        "\xff\xfe\n",
    };
    scene it;
    relative root;
    lone_root(&it, &root);
    relative child = {.pid = 5000, .parent = ROOT, .user = 10};
    relative_write(&it.tree, &child);
    relative_have(&it.tree, ROOT, ROOT, "5000 ");
    relative_have(&it.tree, 5000, 5000, "");
    scene_begin(&it);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_case("%s", bad[i]);
        tree_write_text(&it.tree, "5000/stat", bad[i]);
        CHECK_INT(look(&it), -EBADMSG);
        CHECK_ABSENT(probe_value(&it.probe, CPU));
        CHECK_ABSENT(probe_value(&it.probe, RSS));
        child.user += 5;
        relative_write(&it.tree, &child);
        CHECK_TICKS(&it, 5 * (i + 1));
        CHECK_DOUBLE(threads(&it), 2.0);
    }
    check_case(NULL);
    scene_close(&it);
}

static void test_garbage_in_lists(void)
{
    static const char *const bad[] = {"5000 50", "x", "5000 -1 ", "99999999999999999999 ", "5000,"};
    scene it;
    relative root;
    lone_root(&it, &root);
    relative child = {.pid = 5000, .parent = ROOT, .user = 10};
    relative_write(&it.tree, &child);
    relative_have(&it.tree, 5000, 5000, "5000 4242 "); /* a circle */
    scene_begin(&it);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_case("%s", bad[i]);
        relative_have(&it.tree, ROOT, ROOT, bad[i]);
        CHECK_INT(look(&it), -EBADMSG);
        CHECK_ABSENT(probe_value(&it.probe, CPU));
    }
    check_case(NULL);
    /* Listed twice, or gone before it could be read. */
    relative_have(&it.tree, ROOT, ROOT, "5000 5000 5001 4242 0 \n");
    CHECK_TICKS(&it, 0);
    CHECK_DOUBLE(threads(&it), 2.0);
    scene_close(&it);
}

/* A stat that lies about parents must not send anybody in circles. */
static void test_circles(void)
{
    scene it;
    relative root;
    lone_root(&it, &root);
    relative one = {.pid = 5000, .parent = 5001, .user = 10};
    relative two = {.pid = 5001, .parent = 5000, .user = 10};
    relative self = {.pid = 5002, .parent = 5002, .user = 10};
    relative_write(&it.tree, &one);
    relative_write(&it.tree, &two);
    relative_write(&it.tree, &self);
    for (int pid = 5000; pid < 5003; pid++)
        relative_have(&it.tree, pid, pid, "");
    relative_have(&it.tree, ROOT, ROOT, "5000 5001 5002 ");
    scene_begin(&it);
    one.waited_user += 50;
    self.waited_user += 20;
    relative_write(&it.tree, &one);
    relative_write(&it.tree, &self);
    CHECK_TICKS(&it, 70);
    relative_end(&it.tree, 5000);
    relative_end(&it.tree, 5001);
    relative_end(&it.tree, 5002);
    CHECK_TICKS(&it, 70);
    CHECK_DOUBLE(threads(&it), 1.0);
    scene_close(&it);
}

static void test_files_that_cannot_be_counted(void)
{
    scene it;
    relative root;
    lone_root(&it, &root);
    relative_open_files(&it.tree, ROOT, 2);
    tree_write_text(&it.tree, "5000/fd", "no folder");
    relative child = {.pid = 5000, .parent = ROOT, .user = 10};
    relative_write(&it.tree, &child);
    relative_have(&it.tree, 5000, 5000, "");
    relative_have(&it.tree, ROOT, ROOT, "5000 ");
    REQUIRE(scene_open(&it, ROOT, false) == 0);
    it.first_ticks = 0.0;
    CHECK_INT(probe_sample(&it.probe), -ENOTDIR);
    CHECK_ABSENT(probe_value(&it.probe, FILES));
    CHECK(ticks(&it) >= 0.0);
    CHECK_DOUBLE(threads(&it), 2.0);
    tree_remove(&it.tree, "5000/fd"); /* as if it had just ended */
    pass_time(&it, 1000000000);
    CHECK_INT(look(&it), 0);
    CHECK_DOUBLE(probe_value(&it.probe, FILES), 2.0);
    scene_close(&it);
}

/* Without the size of the memory there is no share of it. */
static void test_memory_size(void)
{
    scene it;
    relative root;
    lone_root(&it, &root);
    tree_write_text(&it.tree, "meminfo", "MemFree: 5 kB\n");
    REQUIRE(scene_open(&it, ROOT, false) == 0);
    CHECK_INT(probe_sample(&it.probe), -EBADMSG);
    CHECK_ABSENT(probe_value(&it.probe, SHARE));
    CHECK_DOUBLE(threads(&it), 1.0);
    tree_write_text(&it.tree, "meminfo", "MemTotal:        4000000 kB\n");
    CHECK_INT(look(&it), 0);
    CHECK_DOUBLE(probe_value(&it.probe, SHARE), 0.0);
    scene_close(&it);
}

static void test_mutations(void)
{
    scene it;
    relative root;
    lone_root(&it, &root);
    relative child = {.pid = 5000, .parent = ROOT, .user = 10};
    relative_write(&it.tree, &child);
    relative_have(&it.tree, ROOT, ROOT, "5000 5001 ");
    relative_have(&it.tree, 5000, 5000, "");
    scene_begin(&it);
    static const char stat[] =
        "5000 (python) S 4242 1 1 0 -1 0 0 0 0 0 10 2 3 4 20 0 1 0 7 6 7 8\n";
    static const char list[] = "5000 5001 5002 ";
    char mutated[2 * sizeof stat + 16];
    chance_state chance = {20261124};
    double before = 0.0;
    for (int i = 0; i < 3000; i++) {
        check_case("mutation %d", i);
        size_t length = chance_mutate(&chance, stat, sizeof stat - 1, mutated);
        tree_write(&it.tree, "5000/stat", mutated, length);
        length = chance_mutate(&chance, list, sizeof list - 1, mutated);
        tree_write(&it.tree, "4242/task/4242/children", mutated, length);
        int error = look(&it);
        double now = ticks(&it);
        CHECK(isnan(now) ? error < 0 : now >= before);
        before = isnan(now) ? before : now;
    }
    check_case(NULL);
    scene_close(&it);
}

/* ---- many --------------------------------------------------------------- */

/* More than files that may be open; and who ends makes room. */
static void test_thousands(void)
{
    enum {
        MANY = 3000
    };
    static char list[MANY * 8];
    scene it;
    relative root;
    lone_root(&it, &root);
    size_t at = 0;
    for (int i = 0; i < MANY; i++) {
        relative child = {.pid = 10000 + i, .parent = ROOT, .user = 1};
        relative_write(&it.tree, &child);
        at += (size_t)snprintf(list + at, sizeof list - at, "%d ", child.pid);
    }
    relative_have(&it.tree, ROOT, ROOT, list);
    scene_begin(&it);
    CHECK_DOUBLE(threads(&it), MANY + 1);
    for (int i = 0; i < MANY; i += 2)
        relative_end(&it.tree, 10000 + i);
    root.waited_user += MANY / 2 + 7;
    relative_write(&it.tree, &root);
    relative_have(&it.tree, ROOT, ROOT, "");
    CHECK_TICKS(&it, 7);
    CHECK_DOUBLE(threads(&it), MANY / 2 + 1);
    scene_close(&it);
}

/* A real process: this one, which has no children but may have anything else. */
static void test_real_process(void)
{
    source_probe probe;
    const smn_environment environment = {
        .procfs = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
        .sysfs = -1,
        .pid = (int)getpid(),
    };
    REQUIRE(environment.procfs >= 0);
    REQUIRE(probe_open_in(&probe, "process", &environment) == 0);
    double before = 0.0;
    for (int reading = 0; reading < 3; reading++) {
        CHECK_INT(probe_sample(&probe), 0);
        CHECK(probe_value(&probe, CPU) >= before);
        before = probe_value(&probe, CPU);
        CHECK(probe_value(&probe, RSS) > 0.0);
        CHECK(probe_value(&probe, VMS) >= probe_value(&probe, RSS));
        CHECK(probe_value(&probe, SHARE) > 0.0 && probe_value(&probe, SHARE) < 100.0);
        CHECK(probe_value(&probe, THREADS) >= 1.0);
    }
    probe_close(&probe);
    close(environment.procfs);
}

int main(void)
{
    test_schema();
    test_no_such_process();
    test_sums();
    test_alone();
    test_exact_rates();
    test_born_later_counts_from_its_birth();
    test_grandchildren_of_threads();
    test_orphan();
    test_reused_pid();
    test_exec();
    test_zombie();
    test_root_ends();
    test_strangers_are_left_alone();
    test_without_children_files();
    test_garbage();
    test_garbage_in_lists();
    test_circles();
    test_files_that_cannot_be_counted();
    test_memory_size();
    test_mutations();
    test_thousands();
    test_real_process();
    return check_report();
}

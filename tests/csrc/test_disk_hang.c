/*
 * The source `disk_space` on paths that do not answer: statvfs(3) is defined
 * here, so that the linker takes this one, and comes back when a test lets it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "probe.h"
#include "self.h"
#include "sysmetrics.h"

static const char LOCAL_ROOT[] = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n";
static const char THREAD[] = "smn-disk";

enum {
    SERVERS = 2,
    MOST_SERIES = 16
};

/* Paths of servers: nobody has such a folder, so all that is known is that they may hang. */
static struct {
    const char *path;
    _Atomic uint32_t is_dead; /* futex */
    _Atomic int waiting;
    _Atomic uint64_t used;
    _Atomic int error;
} servers[SERVERS] = {{.path = "/no-such-server/a"}, {.path = "/no-such-server/b"}};

int statvfs(const char *path, struct statvfs *space)
{
    uint64_t used = 25;
    for (int i = 0; i < SERVERS; i++) {
        if (strcmp(path, servers[i].path) != 0)
            continue;
        servers[i].waiting++;
        while (servers[i].is_dead != 0)
            (void)smn_futex_wait(&servers[i].is_dead, 1, SMN_NEVER);
        servers[i].waiting--;
        used = servers[i].used;
        if (servers[i].error != 0) {
            errno = servers[i].error;
            return -1;
        }
    }
    *space = (struct statvfs){.f_bsize = 1000000,
                              .f_frsize = 1000000,
                              .f_blocks = 100,
                              .f_bfree = 100 - used,
                              .f_bavail = 100 - used};
    return 0;
}

static void die(int server)
{
    servers[server].is_dead = 1;
}

static void revive(int server)
{
    servers[server].is_dead = 0;
    smn_futex_wake(&servers[server].is_dead);
}

static void wait_until_it_hangs(int server)
{
    while (servers[server].waiting == 0)
        self_breathe();
}

/* ---- the source alone --------------------------------------------------- */

typedef struct {
    proc_tree tree;
    source_probe probe;
} disk_probe;

static void open_paths(disk_probe *disk, const char *paths)
{
    tree_create(&disk->tree);
    tree_write_text(&disk->tree, "self/mountinfo", LOCAL_ROOT);
    for (int i = 0; i < SERVERS; i++) {
        servers[i].used = 50;
        servers[i].error = 0;
    }
    smn_environment environment = {.procfs = disk->tree.root, .sysfs = -1, .disk_paths = paths};
    REQUIRE(probe_open_in(&disk->probe, "disk_space", &environment) == 0);
}

static void release(disk_probe *disk)
{
    probe_close(&disk->probe);
    tree_destroy(&disk->tree);
}

/* Readings until this is what a path has; what is local has its values in each of them. */
static int sample_until(disk_probe *disk, const char *key, double expected)
{
    int error;
    double value;
    do {
        self_breathe();
        error = probe_sample(&disk->probe);
        value = probe_value(&disk->probe, key);
        CHECK_DOUBLE(probe_value(&disk->probe, "disk_usage_percentage"), 25.0);
    } while (isnan(expected) ? !isnan(value) : !(value == expected));
    return error;
}

static void test_no_thread_for_what_is_local(void)
{
    disk_probe disk;
    open_paths(&disk, "/\n/proc");
    CHECK_INT(self_find_thread(THREAD), 0);
    CHECK_INT(probe_sample(&disk.probe), 0);
    CHECK_INT(self_find_thread(THREAD), 0);
    CHECK_DOUBLE(probe_value(&disk.probe, "disk_usage_percentage"), 25.0);
    release(&disk);
}

/* The first reading has the values, and later ones those that came since. */
static void test_server_that_answers(void)
{
    disk_probe disk;
    open_paths(&disk, "/\n/no-such-server/a");
    CHECK(self_find_thread(THREAD) != 0);
    CHECK_INT(probe_sample(&disk.probe), 0);
    CHECK_DOUBLE(probe_value(&disk.probe, "disk_usage_percentage_no-such-server_a"), 50.0);
    CHECK_DOUBLE(probe_value(&disk.probe, "disk_usage_megabytes_no-such-server_a"), 50.0);
    CHECK_DOUBLE(probe_value(&disk.probe, "disk_available_megabytes_no-such-server_a"), 50.0);
    CHECK_INT(probe_sample(&disk.probe), 0);
    CHECK_DOUBLE(probe_value(&disk.probe, "disk_usage_percentage_no-such-server_a"), 50.0);

    servers[0].used = 75;
    CHECK_INT(sample_until(&disk, "disk_usage_percentage_no-such-server_a", 75.0), 0);
    servers[0].error = ESTALE;
    CHECK_INT(sample_until(&disk, "disk_usage_percentage_no-such-server_a", CHECK_NAN), -ESTALE);
    CHECK_ABSENT(probe_value(&disk.probe, "disk_usage_megabytes_no-such-server_a"));
    servers[0].error = 0;
    CHECK_INT(sample_until(&disk, "disk_usage_percentage_no-such-server_a", 75.0), 0);
    release(&disk);
    CHECK(self_thread_ends(THREAD));
}

static void test_server_that_dies(void)
{
    disk_probe disk;
    die(1);
    open_paths(&disk, "/\n/no-such-server/a\n/no-such-server/b");
    CHECK_INT(probe_sample(&disk.probe), -ETIMEDOUT);
    CHECK_DOUBLE(probe_value(&disk.probe, "disk_usage_percentage"), 25.0);
    CHECK_DOUBLE(probe_value(&disk.probe, "disk_usage_percentage_no-such-server_a"), 50.0);
    CHECK_ABSENT(probe_value(&disk.probe, "disk_usage_percentage_no-such-server_b"));
    CHECK_ABSENT(probe_value(&disk.probe, "disk_usage_megabytes_no-such-server_b"));
    CHECK_ABSENT(probe_value(&disk.probe, "disk_available_megabytes_no-such-server_b"));

    /* The other one goes on meanwhile: it is read again, and again. */
    servers[0].used = 60;
    CHECK_INT(sample_until(&disk, "disk_usage_percentage_no-such-server_a", 60.0), -ETIMEDOUT);
    servers[0].used = 61;
    CHECK_INT(sample_until(&disk, "disk_usage_percentage_no-such-server_a", 61.0), -ETIMEDOUT);
    CHECK_INT(servers[1].waiting, 1); /* in one call, and not in one more each time */

    revive(1);
    CHECK_INT(sample_until(&disk, "disk_usage_percentage_no-such-server_b", 50.0), 0);
    die(1);
    CHECK_INT(sample_until(&disk, "disk_usage_percentage_no-such-server_b", CHECK_NAN), -ETIMEDOUT);
    servers[1].used = 70;
    revive(1);
    CHECK_INT(sample_until(&disk, "disk_usage_percentage_no-such-server_b", 70.0), 0);
    release(&disk);
    CHECK(self_thread_ends(THREAD));
}

/* Nobody waits for the thread, and it gives back what is left when it comes back. */
static void test_close_while_it_hangs(void)
{
    for (int is_known = 0; is_known < 2; is_known++) {
        disk_probe disk;
        die(0);
        die(1);
        open_paths(&disk, "/no-such-server/a\n/no-such-server/b");
        wait_until_it_hangs(0);
        wait_until_it_hangs(1);
        if (is_known) {
            CHECK_INT(probe_sample(&disk.probe), -ETIMEDOUT);
            CHECK_INT(probe_sample(&disk.probe), -ETIMEDOUT);
        }
        release(&disk);
        CHECK_INT(servers[0].waiting, 1);
        CHECK_INT(servers[1].waiting, 1);
        revive(0);
        revive(1);
        CHECK(self_thread_ends(THREAD));
    }
}

/* ---- in a sampler ------------------------------------------------------- */

static smn_sampler *create(void)
{
    const smn_options options = {
        .interval_ns = 1000000,
        .samples_per_window = 20,
        .procfs_path = "/proc",
        .sysfs_path = "/sys",
        .sources = "memory,disk_space",
        .disk_paths = "/no-such-server/a\n/no-such-server/b",
    };
    smn_sampler *sampler = NULL;
    char error[SMN_ERROR_TEXT_BYTES] = "";
    REQUIRE(smn_sampler_create(&options, &sampler, error) == 0);
    return sampler;
}

static double take(smn_sampler *sampler, const char *key)
{
    smn_window window;
    smn_statistics statistics[MOST_SERIES];
    smn_series_info info;
    REQUIRE(smn_sampler_series_count(sampler) <= MOST_SERIES);
    CHECK_INT(smn_sampler_next_window(sampler, -1, 0, &window, statistics), 0);
    for (int i = 0; i < smn_sampler_series_count(sampler); i++) {
        REQUIRE(smn_sampler_series(sampler, i, &info) == 0);
        if (strcmp(info.key, key) == 0)
            return statistics[i].last;
    }
    REQUIRE(!"a series of this key");
    return CHECK_NAN;
}

static uint64_t errors(const smn_sampler *sampler)
{
    smn_source_stats stats;
    CHECK_INT(smn_sampler_source_stats(sampler, 1, &stats), 0);
    CHECK_TEXT(stats.name, "disk_space");
    return stats.errors;
}

static void test_sampling_goes_on(void)
{
    servers[0].used = 50;
    servers[1].used = 50;
    smn_sampler *sampler = create();
    CHECK_INT(smn_sampler_start(sampler), 0);
    while (isnan(take(sampler, "disk_usage_percentage")))
        continue;
    die(0);
    wait_until_it_hangs(0);
    while (!isnan(take(sampler, "disk_usage_percentage")))
        continue;
    int others = 0;
    for (int i = 0; i < 20; i++) {
        CHECK_ABSENT(take(sampler, "disk_usage_percentage"));
        CHECK_ABSENT(take(sampler, "disk_usage_megabytes"));
        CHECK(take(sampler, "system_memory_usage_megabytes") > 0.0);
        others += take(sampler, "disk_usage_percentage_no-such-server_b") == 50.0;
    }
    CHECK(others > 0);
    CHECK(errors(sampler) >= 20);
    revive(0);
    while (isnan(take(sampler, "disk_usage_percentage")))
        continue;
    die(0);
    wait_until_it_hangs(0);
    CHECK_INT(smn_sampler_stop(sampler, -1), 0);
    smn_sampler_destroy(sampler);
    CHECK_INT(servers[0].waiting, 1);
    revive(0);
    CHECK(self_thread_ends(THREAD));
}

/* A child has the memory, but neither thread: it gives back what it has and waits for nobody. */
static void test_children(void)
{
    die(0);
    smn_sampler *sampler = create();
    CHECK_INT(smn_sampler_start(sampler), 0);
    wait_until_it_hangs(0);
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            smn_sampler_destroy(sampler);
            _exit(self_threads() == 1 ? 0 : 1);
        }
        int status = 0;
        REQUIRE(waitpid(pid, &status, 0) == pid);
        if (CHECK(WIFEXITED(status)))
            CHECK_INT(WEXITSTATUS(status), 0);
    }
    revive(0);
    while (isnan(take(sampler, "disk_usage_percentage")))
        continue;
    smn_sampler_destroy(sampler);
    CHECK(self_thread_ends(THREAD));
}

int main(void)
{
    test_no_thread_for_what_is_local();
    test_server_that_answers();
    test_server_that_dies();
    test_close_while_it_hangs();
    test_sampling_goes_on();
    test_children();
    return check_report();
}

/* Children of a program that samples: what they inherited is inert, what is the parent's goes on.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "self.h"
#include "sysmetrics.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum {
    /* A lock that another thread holds in the allocator of the sanitizer is held for ever. */
    HEAP_SURVIVES_FORK = 0
};
#else
enum {
    HEAP_SURVIVES_FORK = 1
};
#endif

enum {
    FORKS = 200,
    MOST_SERIES = 8
};

static smn_sampler *create(void)
{
    const smn_options options = {
        .interval_ns = 1000000,
        .samples_per_window = 2,
        .procfs_path = "/proc",
        .sysfs_path = "/sys",
        .sources = "cpu,memory,disk_space,network",
        .disk_paths = "/",
    };
    smn_sampler *sampler = NULL;
    char error[SMN_ERROR_TEXT_BYTES] = "";
    REQUIRE(smn_sampler_create(&options, &sampler, error) == 0);
    return sampler;
}

static int take(smn_sampler *sampler, int64_t timeout_ns)
{
    smn_window window;
    smn_statistics statistics[MOST_SERIES];
    return smn_sampler_next_window(sampler, timeout_ns, 1, &window, statistics);
}

/* Every call returns at once, whatever its timeout. The exit status says which did not. */
static int call_inherited(smn_sampler *sampler)
{
    int wrong = 0;
    wrong |= (take(sampler, -1) != -ECHILD) << 0;
    wrong |= (take(sampler, 0) != -ECHILD) << 1;
    wrong |= (smn_sampler_start(sampler) != -ECHILD) << 2;
    wrong |= (smn_sampler_stop(sampler, 0) != -ECHILD) << 3;
    wrong |= (smn_sampler_stop(sampler, -1) != -ECHILD) << 4;
    return wrong;
}

static int destroy_inherited(smn_sampler *sampler)
{
    int wrong = call_inherited(sampler);
    int open_files = self_open_files();
    smn_sampler_destroy(sampler);
    wrong |= (self_open_files() >= open_files) << 5; /* its own ends are closed … */
    wrong |= (self_find_thread("smn-host") != 0) << 6;
    return wrong;
}

#ifndef __SANITIZE_THREAD__ /* TSan starts no thread in the child of a program with threads */
static int use_its_own(smn_sampler *inherited)
{
    smn_sampler_destroy(inherited);
    smn_sampler *own = create();
    int wrong = 0;
    wrong |= (smn_sampler_start(own) != 0) << 0;
    wrong |= (take(own, -1) != 0) << 1;
    wrong |= (smn_sampler_stop(own, -1) != 0) << 2;
    smn_sampler_destroy(own);
    return wrong;
}
#endif

static void check_child(smn_sampler *sampler, int (*child)(smn_sampler *sampler))
{
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0)
        _exit(child(sampler));
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    if (CHECK(WIFEXITED(status)))
        CHECK_INT(WEXITSTATUS(status), 0);
}

static void test_children_of_a_running_sampler(void)
{
    smn_sampler *sampler = create();
    CHECK_INT(smn_sampler_start(sampler), 0);
    int open_files = self_open_files();
    for (int i = 0; i < FORKS; i++) {
        check_case("fork %d", i);
        check_child(sampler, destroy_inherited);
        if (i % 10 == 0)
            CHECK_INT(take(sampler, -1), 0); /* … and the parent's still work */
    }
    check_case(NULL);
#ifndef __SANITIZE_THREAD__
    for (int i = 0; i < 5; i++)
        check_child(sampler, use_its_own);
#endif
    CHECK_INT(self_open_files(), open_files);
    while (take(sampler, 0) == 0)
        continue;
    CHECK_INT(take(sampler, -1), 0); /* one that was closed after the last child was gone */
    smn_source_stats stats;
    for (int i = 0; i < smn_sampler_sources(sampler); i++) {
        CHECK_INT(smn_sampler_source_stats(sampler, i, &stats), 0);
        CHECK_U64(stats.errors, 0);
    }
    CHECK_INT(smn_sampler_stop(sampler, -1), 0);
    smn_sampler_destroy(sampler);
}

typedef struct {
    smn_sampler *sampler;
    _Atomic int result;
} window_waiter;

static void *wait_for_windows(void *opaque)
{
    window_waiter *self = opaque;
    int error;
    while ((error = take(self->sampler, -1)) == 0)
        continue;
    self->result = error;
    return NULL;
}

/* At the fork another thread is inside the library, with whatever that holds at the moment. */
static void test_children_beside_a_reader(void)
{
    window_waiter waiter = {.sampler = create()};
    pthread_t thread;
    CHECK_INT(smn_sampler_start(waiter.sampler), 0);
    REQUIRE(pthread_create(&thread, NULL, wait_for_windows, &waiter) == 0);
    for (int i = 0; i < FORKS; i++)
        check_child(waiter.sampler, HEAP_SURVIVES_FORK ? destroy_inherited : call_inherited);
    CHECK_INT(smn_sampler_stop(waiter.sampler, -1), 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK_INT(waiter.result, -ESHUTDOWN);
    smn_sampler_destroy(waiter.sampler);
}

/* Made but not started, or stopped: just as inert. */
static void test_children_of_an_idle_sampler(void)
{
    smn_sampler *sampler = create();
    check_child(sampler, destroy_inherited);
    CHECK_INT(smn_sampler_start(sampler), 0);
    CHECK_INT(take(sampler, -1), 0);
    CHECK_INT(smn_sampler_stop(sampler, -1), 0);
    check_child(sampler, destroy_inherited);
    int error;
    while ((error = take(sampler, -1)) == 0)
        continue;
    CHECK_INT(error, -ESHUTDOWN);
    smn_sampler_destroy(sampler);
}

int main(void)
{
    test_children_of_an_idle_sampler();
    test_children_of_a_running_sampler();
    test_children_beside_a_reader();
    return check_report();
}

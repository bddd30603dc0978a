/* SIGTERM in processes of its own: what a parent sees, and who gets to do what before that. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "self.h"
#include "sysmetrics.h"

static const int64_t MILLISECOND = 1000000;
static const int64_t MINUTE = INT64_C(60000000000);

enum {
    OWN_STATUS = 77, /* what a handler of the program exits with */
    PATIENCE_SECONDS = 60
};

/* ---- children ----------------------------------------------------------- */

/* The status of a child that ran this; it is killed with SIGALRM if it hangs. */
static int status_of(void (*child)(void))
{
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        alarm(PATIENCE_SECONDS);
        child();
        _exit(EXIT_SUCCESS);
    }
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    return status;
}

static void check_exit(const char *name, void (*child)(void), int expected)
{
    check_case("%s", name);
    int status = status_of(child);
    if (CHECK(WIFEXITED(status)))
        CHECK_INT(WEXITSTATUS(status), expected);
}

static void check_death(const char *name, void (*child)(void), int signal)
{
    check_case("%s", name);
    int status = status_of(child);
    if (CHECK(WIFSIGNALED(status)))
        CHECK_INT(WTERMSIG(status), signal);
}

#define CHECK_EXIT(child, expected) check_exit(#child, child, expected)
#define CHECK_DEATH(child, signal) check_death(#child, child, signal)

/* In a child: what does not hold is printed, and seen in the exit status. */
static void demand(bool holds)
{
    if (!holds)
        _exit(check_report());
}
#define DEMAND(condition) demand(CHECK(condition))

static int install(int64_t bound_ns)
{
    int number = smn_termination_install(bound_ns);
    DEMAND(number > 0);
    return number;
}

static void send_sigterm(void)
{
    DEMAND(kill(getpid(), SIGTERM) == 0);
}

static void sleep_for_ever(void)
{
    for (;;)
        pause();
}

static void own_handler(int number)
{
    (void)number;
    _exit(OWN_STATUS);
}

static void *disposition(void)
{
    struct sigaction current;
    DEMAND(sigaction(SIGTERM, NULL, &current) == 0);
    return (void *)current.sa_handler;
}

/* ---- SIGTERM ------------------------------------------------------------ */

static void *wait_for_it(void *number)
{
    return (void *)(intptr_t)smn_termination_wait((int)(intptr_t)number);
}

static void *wait_for_it_and_hang(void *number)
{
    DEMAND(wait_for_it(number) == NULL);
    sleep_for_ever();
    return NULL;
}

static pthread_t start_waiter(void *(*waiter)(void *), int number)
{
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, waiter, (void *)(intptr_t)number) == 0);
    return thread;
}

/* What smn_termination_wait gave it. */
static int result_of(pthread_t waiter)
{
    void *result;
    DEMAND(pthread_join(waiter, &result) == 0);
    return (int)(intptr_t)result;
}

static void wakes_the_waiter(void)
{
    pthread_t waiter = start_waiter(wait_for_it, install(MINUTE));
    send_sigterm();
    DEMAND(result_of(waiter) == 0);
    _exit(EXIT_SUCCESS); /* still alive, and free to end in another way */
}

static void dies_when_finished(void)
{
    int number = install(MINUTE);
    send_sigterm();
    DEMAND(smn_termination_wait(number) == 0); /* it came before anybody waited */
    smn_termination_finish();
}

static void finishes_against_a_block_and_a_handler(void)
{
    sigset_t sigterm;
    sigemptyset(&sigterm);
    sigaddset(&sigterm, SIGTERM);
    int number = install(MINUTE);
    send_sigterm();
    DEMAND(smn_termination_wait(number) == 0);
    pthread_sigmask(SIG_BLOCK, &sigterm, NULL);
    signal(SIGTERM, own_handler);
    smn_termination_finish();
}

static void never_finishes(void)
{
    install(50 * MILLISECOND);
    send_sigterm();
    sleep_for_ever();
}

/* The main thread takes no signal any more: the waiter is there to die in. */
static void never_finishes_with_sigterm_blocked(void)
{
    start_waiter(wait_for_it_and_hang, install(50 * MILLISECOND));
    send_sigterm();
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, SIGALRM);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    sleep_for_ever();
}

static void is_told_twice(void)
{
    install(MINUTE);
    send_sigterm();
    send_sigterm();
    sleep_for_ever();
}

static void lengthens_the_bound(void)
{
    int number = install(MILLISECOND);
    DEMAND(smn_termination_install(MINUTE) == number);
    uint64_t before = smn_system_clock.monotonic_ns(NULL);
    send_sigterm();
    while (smn_system_clock.monotonic_ns(NULL) < before + 200 * (uint64_t)MILLISECOND)
        self_breathe();
    _exit(EXIT_SUCCESS);
}

static void reads_on(void)
{
    int ends[2];
    char byte = 0;
    REQUIRE(pipe(ends) == 0);
    install(MINUTE);
    pid_t reader = getpid();
    pid_t helper = fork();
    if (helper == 0) { /* a helper of the test: dies with its parent's pipe */
        for (int i = 0; i < 1000; i++)
            self_breathe();
        kill(reader, SIGTERM);
        for (int i = 0; i < 1000; i++)
            self_breathe();
        _exit(write(ends[1], "x", 1) == 1 ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    /* No EINTR in a call that could be restarted: the program need not notice. */
    DEMAND(read(ends[0], &byte, 1) == 1);
    DEMAND(byte == 'x');
    DEMAND(disposition() == (void *)SIG_DFL); /* it did come */
    DEMAND(waitpid(helper, NULL, 0) == helper);
}

static void keeps_errno(void)
{
    pthread_t waiter = start_waiter(wait_for_it, install(MINUTE));
    errno = E2BIG;
    raise(SIGTERM); /* the handler runs before this returns, and so do its system calls */
    DEMAND(errno == E2BIG);
    DEMAND(result_of(waiter) == 0);
}

static void test_sigterm(void)
{
    CHECK_EXIT(wakes_the_waiter, EXIT_SUCCESS);
    CHECK_DEATH(dies_when_finished, SIGTERM);
    CHECK_DEATH(finishes_against_a_block_and_a_handler, SIGTERM);
    CHECK_DEATH(never_finishes, SIGTERM);
    CHECK_DEATH(never_finishes_with_sigterm_blocked, SIGTERM);
    CHECK_DEATH(is_told_twice, SIGTERM);
    CHECK_EXIT(lengthens_the_bound, EXIT_SUCCESS);
    CHECK_EXIT(reads_on, EXIT_SUCCESS);
    CHECK_EXIT(keeps_errno, EXIT_SUCCESS);
}

/* ---- what belongs to others --------------------------------------------- */

static void leaves_a_handler(void)
{
    signal(SIGTERM, own_handler);
    DEMAND(smn_termination_install(MINUTE) == -EBUSY);
    send_sigterm();
}

static void leaves_sigterm_ignored(void)
{
    signal(SIGTERM, SIG_IGN);
    DEMAND(smn_termination_install(MINUTE) == -EBUSY);
    send_sigterm();
}

static void leaves_sigterm_blocked(void)
{
    sigset_t sigterm;
    sigemptyset(&sigterm);
    sigaddset(&sigterm, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &sigterm, NULL);
    DEMAND(smn_termination_install(MINUTE) == -EBUSY);
    send_sigterm();
    int number = 0;
    DEMAND(sigwait(&sigterm, &number) == 0 && number == SIGTERM);
}

static void leaves_a_handler_that_replaced_it(void)
{
    install(MINUTE);
    signal(SIGTERM, own_handler);
    DEMAND(smn_termination_install(MINUTE) == -EBUSY);
    DEMAND(smn_termination_uninstall() == 0);
    send_sigterm();
}

static void comes_back_after_the_default(void)
{
    int number = install(MINUTE);
    signal(SIGTERM, own_handler);
    signal(SIGTERM, SIG_DFL);
    DEMAND(smn_termination_install(MINUTE) == number);
    send_sigterm();
    DEMAND(smn_termination_wait(number) == 0);
}

static void refuses_no_bound(void)
{
    DEMAND(smn_termination_install(0) == -EINVAL);
    DEMAND(smn_termination_install(-1) == -EINVAL);
    DEMAND(disposition() == (void *)SIG_DFL);
}

/* The kernel lets no default disposition kill it, so nor could smn_termination_finish. */
static void is_first_of_its_namespace(void)
{
    if (unshare(CLONE_NEWPID) != 0)
        _exit(EXIT_SUCCESS); /* this takes rights that few have */
    pid_t first = fork();
    REQUIRE(first >= 0);
    if (first == 0) {
        DEMAND(getpid() == 1);
        DEMAND(smn_termination_install(MINUTE) == -ENOTSUP);
        _exit(EXIT_SUCCESS);
    }
    int status = 0;
    DEMAND(waitpid(first, &status, 0) == first);
    DEMAND(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS);
}

static void test_what_belongs_to_others(void)
{
    CHECK_EXIT(leaves_a_handler, OWN_STATUS);
    CHECK_EXIT(leaves_sigterm_ignored, EXIT_SUCCESS);
    CHECK_EXIT(leaves_sigterm_blocked, EXIT_SUCCESS);
    CHECK_EXIT(leaves_a_handler_that_replaced_it, OWN_STATUS);
    CHECK_EXIT(comes_back_after_the_default, EXIT_SUCCESS);
    CHECK_EXIT(refuses_no_bound, EXIT_SUCCESS);
    CHECK_EXIT(is_first_of_its_namespace, EXIT_SUCCESS);
}

/* ---- the end of a watch ------------------------------------------------- */

static void ends_without_a_trace(void)
{
    for (int round = 0; round < 100; round++) {
        int number = install(MINUTE);
        pthread_t waiter = start_waiter(wait_for_it, number);
        DEMAND(smn_termination_uninstall() == 0);
        DEMAND(result_of(waiter) == -ECANCELED);
        DEMAND(disposition() == (void *)SIG_DFL);
        DEMAND(smn_termination_uninstall() == 0);
        /* A waiter that comes late, or when the next watch has begun, waits for neither. */
        DEMAND(install(MINUTE) != number);
        DEMAND(result_of(start_waiter(wait_for_it, number)) == -ECANCELED);
        DEMAND(smn_termination_uninstall() == 0);
    }
    send_sigterm();
    sleep_for_ever();
}

/* What has begun cannot be taken back: the process has been told to end. */
static void cannot_end_after_sigterm(void)
{
    int number = install(100 * MILLISECOND);
    send_sigterm();
    DEMAND(smn_termination_uninstall() == -EINPROGRESS);
    DEMAND(smn_termination_install(MINUTE) == -EINPROGRESS);
    DEMAND(smn_termination_wait(number) == 0);
    sleep_for_ever();
}

#ifndef __SANITIZE_THREAD__ /* TSan runs handlers late, and none that has been replaced by then */
static void *end_watches(void *unused)
{
    (void)unused;
    while (smn_termination_uninstall() == 0)
        (void)smn_termination_install(MILLISECOND);
    return NULL;
}

static int moment;

/* A SIGTERM at whatever moment of install and uninstall: never lost. */
static void is_told_in_between(void)
{
    pthread_t thread;
    install(MILLISECOND);
    REQUIRE(pthread_create(&thread, NULL, end_watches, NULL) == 0);
    for (int i = 0; i < moment; i++)
        self_breathe();
    send_sigterm();
    sleep_for_ever();
}
#endif

static void test_the_end_of_a_watch(void)
{
    CHECK_DEATH(ends_without_a_trace, SIGTERM);
    CHECK_DEATH(cannot_end_after_sigterm, SIGTERM);
#ifndef __SANITIZE_THREAD__
    for (moment = 0; moment < 50; moment++)
        CHECK_DEATH(is_told_in_between, SIGTERM);
#endif
}

/* ---- children of the watched process ------------------------------------ */

static void is_told(void)
{
    send_sigterm();
    sleep_for_ever();
}

/* Timers are not inherited, but their ids begin anew: this one has that of the parent's. */
static void is_told_with_a_timer_of_its_own(void)
{
    timer_t timer;
    REQUIRE(timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0);
    is_told();
}

static void uninstalls(void)
{
    DEMAND(smn_termination_uninstall() == -ECHILD);
}

static void watches_by_itself(void)
{
    int number = install(50 * MILLISECOND);
    send_sigterm();
    DEMAND(smn_termination_wait(number) == 0);
    sleep_for_ever();
}

/* The status of a child that its parent terminates. */
static int status_of_terminated(void)
{
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        alarm(PATIENCE_SECONDS);
        sleep_for_ever();
    }
    DEMAND(kill(pid, SIGTERM) == 0);
    int status = 0;
    DEMAND(waitpid(pid, &status, 0) == pid);
    return status;
}

static void has_children(void)
{
    int number = install(MINUTE);
    for (int i = 0; i < 20; i++) {
        int status = status_of_terminated();
        DEMAND(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    }
    CHECK_DEATH(is_told, SIGTERM);
    CHECK_DEATH(is_told_with_a_timer_of_its_own, SIGTERM);
    CHECK_EXIT(uninstalls, EXIT_SUCCESS);
    CHECK_DEATH(watches_by_itself, SIGTERM);
    send_sigterm(); /* none of which is the parent's end */
    DEMAND(smn_termination_wait(number) == 0);
    CHECK_DEATH(is_told, SIGTERM); /* nor does a child live on that was made after its SIGTERM */
    CHECK_DEATH(watches_by_itself, SIGTERM);
    _exit(check_report());
}

int main(void)
{
    test_sigterm();
    test_what_belongs_to_others();
    test_the_end_of_a_watch();
    CHECK_EXIT(has_children, EXIT_SUCCESS);
    return check_report();
}

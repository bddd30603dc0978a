/*
 * SIGTERM that leaves time for the last windows, and no more than that.
 *
 * The handler does nothing that needs the interpreter: a main thread that never
 * returns to it (a hung collective, a kernel that runs for minutes) must not
 * make a job immune to SIGTERM. It wakes a thread that waits here, and arms a
 * timer whose SIGTERM meets the default disposition, because SA_RESETHAND has
 * put that back before the handler ran. So the process dies of the timer, of a
 * second SIGTERM, or of smn_termination_finish, whichever comes first.
 *
 * A disposition belongs to the process and a handler has no argument, so this
 * is the one file of the core whose state is static.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "sysmetrics.h"

enum {
    IDLE = 0,
    WATCHING = 1, /* the handler is installed, a thread waits */
    ARRIVED = 2,  /* SIGTERM came: from here on there is no way back */
    PHASES = 4,
    LAST_NUMBER = INT32_MAX / PHASES
};

static const int64_t NS_PER_SECOND = 1000000000;

static struct {
    _Atomic uint32_t word;    /* futex: the number of the watch and its phase; see word_of */
    _Atomic pid_t owner;      /* who began the watch; not a child, though it inherits all this */
    _Atomic int64_t bound_ns; /* how long the process may live after SIGTERM */
    timer_t timer;            /* written before the word says WATCHING */
} termination;

static uint32_t word_of(uint32_t number, uint32_t phase)
{
    return number * PHASES + phase;
}

static bool is_ours(void)
{
    return atomic_load(&termination.owner) == getpid();
}

/* ---- the handler -------------------------------------------------------- */

static int arm_timer(void)
{
    int64_t bound_ns = atomic_load(&termination.bound_ns);
    const struct itimerspec once = {
        .it_value =
            {
                .tv_sec = (time_t)(bound_ns / NS_PER_SECOND),
                .tv_nsec = (long)(bound_ns % NS_PER_SECOND),
            },
    };
    return timer_settime(termination.timer, 0, &once, NULL);
}

/* Whether this SIGTERM is the one that the watch waits for. */
static bool is_taken(void)
{
    uint32_t seen = atomic_load(&termination.word);
    return seen % PHASES == WATCHING && is_ours() &&
           atomic_compare_exchange_strong(&termination.word, &seen, seen - WATCHING + ARRIVED);
}

/*
 * Async-signal-safe. In a forked child, in a process whose watch has just ended,
 * or without a timer that bounds it, it is as if there were no handler.
 */
static void on_sigterm(int number)
{
    int saved_errno = errno;
    if (is_taken() && arm_timer() == 0)
        smn_futex_wake(&termination.word);
    else
        raise(number);
    errno = saved_errno;
}

/* ---- the disposition ---------------------------------------------------- */

static void set_disposition(void (*handler)(int), struct sigaction *before)
{
    struct sigaction action = {
        .sa_handler = handler,
        .sa_flags = SA_RESTART | SA_ONSTACK | (int)SA_RESETHAND,
    };
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, before);
}

static void get_disposition(struct sigaction *current)
{
    sigaction(SIGTERM, NULL, current);
}

static bool is_blocked(void)
{
    sigset_t blocked;
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    return sigismember(&blocked, SIGTERM) == 1;
}

/* Whether nobody else has made SIGTERM their business. */
static bool is_free(void)
{
    struct sigaction current;
    get_disposition(&current);
    return (current.sa_handler == SIG_DFL || current.sa_handler == on_sigterm) && !is_blocked();
}

/* Puts the default back, unless the program has a handler of its own by now. */
static void restore_disposition(void)
{
    struct sigaction current;
    get_disposition(&current);
    if (current.sa_handler != on_sigterm)
        return;
    struct sigaction replaced;
    set_disposition(SIG_DFL, &replaced);
    if (replaced.sa_handler != on_sigterm) /* set between the two calls */
        sigaction(SIGTERM, &replaced, NULL);
}

/* ---- the public API ----------------------------------------------------- */

static int create_timer(void)
{
    struct sigevent event = {
        .sigev_notify = SIGEV_SIGNAL,
        .sigev_signo = SIGTERM,
    };
    return timer_create(CLOCK_MONOTONIC, &event, &termination.timer) == 0 ? 0 : -errno;
}

/* A new watch; what a child has inherited of its parent's is forgotten. */
static int begin_watch(uint32_t *number)
{
    uint32_t last = atomic_load(&termination.word) / PHASES;
    atomic_store(&termination.word, word_of(last, IDLE));
    int error = create_timer();
    if (error != 0)
        return error;
    *number = last < LAST_NUMBER ? last + 1 : 1;
    atomic_store(&termination.owner, getpid());
    atomic_store(&termination.word, word_of(*number, WATCHING));
    return 0;
}

int smn_termination_install(int64_t bound_ns)
{
    if (bound_ns <= 0)
        return -EINVAL;
    if (getpid() == 1) /* the kernel lets no SIGTERM kill the first process of a namespace */
        return -ENOTSUP;
    if (!is_free())
        return -EBUSY;
    uint32_t word = atomic_load(&termination.word);
    uint32_t number = word / PHASES;
    uint32_t phase = is_ours() ? word % PHASES : IDLE;
    if (phase == ARRIVED)
        return -EINPROGRESS;
    atomic_store(&termination.bound_ns, bound_ns);
    int error = phase == IDLE ? begin_watch(&number) : 0;
    if (error != 0)
        return error;
    set_disposition(on_sigterm, NULL);
    return (int)number;
}

/* In this thread, so that there is one in which the process can die of it. */
static void unblock_sigterm(void)
{
    sigset_t sigterm;
    sigemptyset(&sigterm);
    sigaddset(&sigterm, SIGTERM);
    pthread_sigmask(SIG_UNBLOCK, &sigterm, NULL);
}

int smn_termination_wait(int number)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    uint32_t watching = word_of((uint32_t)number, WATCHING);
    while (atomic_load(&termination.word) == watching)
        (void)smn_futex_wait(&termination.word, watching, SMN_NEVER);
    if (atomic_load(&termination.word) != word_of((uint32_t)number, ARRIVED))
        return -ECANCELED;
    unblock_sigterm();
    return 0;
}

int smn_termination_uninstall(void)
{
    if (!is_ours())
        return -ECHILD;
    restore_disposition();
    uint32_t seen = atomic_load(&termination.word);
    if (seen % PHASES == WATCHING &&
        atomic_compare_exchange_strong(&termination.word, &seen, seen - WATCHING + IDLE)) {
        timer_delete(termination.timer);
        smn_futex_wake(&termination.word);
        return 0;
    }
    return seen % PHASES == ARRIVED ? -EINPROGRESS : 0;
}

void smn_termination_finish(void)
{
    set_disposition(SIG_DFL, NULL);
    unblock_sigterm();
    raise(SIGTERM);
}

#include "disk_thread.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "clock.h"
#include "thread.h"

enum {
    STACK_BYTES = 256 << 10
};

static const char THREAD_NAME[] = "smn-disk";

/* What is under way for longer hangs. */
static const uint64_t PATIENCE_NS = 200 * UINT64_C(1000000);
/* Readings are made so much ahead that one that hangs is known to when its values are wanted. */
static const uint64_t LEAD_NS = 250 * UINT64_C(1000000);
static const uint64_t SHORTEST_PAUSE_NS = 750 * UINT64_C(1000000);
static const uint64_t FIRST_PAUSE_NS = 1000 * UINT64_C(1000000); /* before there was one */
static const uint64_t OLD_NS = 1500 * UINT64_C(1000000);

/* Numbers of requests count up from 1. */
enum {
    END = UINT32_MAX
};

typedef struct {
    double values[SMN_DISK_VALUES];
    int error;
    uint64_t time_ns; /* when it was there; 0: never */
} disk_reading;

static const disk_reading NO_READING = {.values = {NAN, NAN, NAN}, .error = -ETIMEDOUT};

struct smn_disk_thread {
    /* Constant once it runs. */
    pid_t owner;
    pthread_t thread;
    bool is_started;

    /* The sampling thread's, and after it of whoever ends all this. */
    disk_reading last;
    uint64_t wanted_ns;  /* when its values were wanted last */
    uint64_t give_up_ns; /* from when on nobody waits for its end */

    /* Written by whoever has the turn: the thread while `answered` is behind `asked`, else not. */
    disk_reading reading;

    /* Shared. */
    _Atomic uint64_t due_ns;       /* when the reading that is asked for is to begin */
    _Atomic uint32_t asked;        /* futex: the thread sleeps on it */
    _Atomic uint32_t answered;     /* futex: who asks sleeps on it */
    _Atomic uint32_t is_half_gone; /* the thread has ended, or its owner has left it alone */

    char path[];
};

static uint64_t now_ns(void)
{
    return smn_system_clock.monotonic_ns(NULL);
}

/* ---- a reading ---------------------------------------------------------- */

int smn_disk_read(const char *path, double values[SMN_DISK_VALUES])
{
    struct statvfs space;
    if (statvfs(path, &space) != 0)
        return -errno;
    if (space.f_blocks == 0 || space.f_bfree > space.f_blocks)
        return -ENODATA; /* a file system that is not made of blocks, like proc */
    double block = (double)(space.f_frsize != 0 ? space.f_frsize : space.f_bsize);
    double used = (double)(space.f_blocks - space.f_bfree) * block;
    double available = (double)space.f_bavail * block;
    if (used + available > 0.0)
        values[SMN_DISK_PERCENTAGE] = used / (used + available) * 100.0;
    values[SMN_DISK_USED_BYTES] = used;
    values[SMN_DISK_AVAILABLE_BYTES] = available;
    return 0;
}

/* ---- the thread --------------------------------------------------------- */

static void read_space(smn_disk_thread *self)
{
    disk_reading reading = NO_READING;
    reading.error = smn_disk_read(self->path, reading.values);
    reading.time_ns = now_ns();
    self->reading = reading;
}

static void answer(smn_disk_thread *self, uint32_t number)
{
    atomic_store(&self->answered, number);
    smn_futex_wake(&self->answered);
}

/* What is left is for whoever comes second. */
static void leave(smn_disk_thread *self)
{
    if (atomic_exchange(&self->is_half_gone, 1) == 1)
        free(self);
}

static void *run(void *opaque)
{
    smn_disk_thread *self = opaque;
    uint32_t answered = 0;
    uint32_t asked;
    while ((asked = atomic_load(&self->asked)) != END) {
        uint64_t due_ns = asked == answered ? SMN_NEVER : atomic_load(&self->due_ns);
        if (now_ns() < due_ns) {
            (void)smn_futex_wait(&self->asked, asked, due_ns);
            continue;
        }
        read_space(self);
        answered = asked;
        answer(self, answered);
    }
    answer(self, END);
    leave(self);
    return NULL;
}

/* ---- what is asked of it ------------------------------------------------ */

static void ask(smn_disk_thread *self, uint64_t due_ns)
{
    atomic_store(&self->due_ns, due_ns);
    uint32_t number = atomic_load(&self->asked) + 1;
    atomic_store(&self->asked, number < END ? number : 1);
    smn_futex_wake(&self->asked);
}

static bool is_answered(const smn_disk_thread *self)
{
    return atomic_load(&self->answered) == atomic_load(&self->asked);
}

/* Takes the reading that was asked for, or returns false: until it is there it is the thread's. */
static bool collect(smn_disk_thread *self)
{
    if (!is_answered(self))
        return false;
    self->last = self->reading;
    return true;
}

/* When a reading that began as it was due hangs. */
static uint64_t deadline_ns(const smn_disk_thread *self)
{
    return atomic_load(&self->due_ns) + PATIENCE_NS;
}

static bool is_old(const smn_disk_thread *self)
{
    return self->last.time_ns == 0 || now_ns() - self->last.time_ns > OLD_NS;
}

static void wait_for(smn_disk_thread *self, uint32_t number, uint64_t until_ns)
{
    uint32_t answered;
    while ((answered = atomic_load(&self->answered)) != number) {
        if (smn_futex_wait(&self->answered, answered, until_ns) == -ETIMEDOUT)
            return;
    }
}

/* When it should begin, so that its values are there if the pauses are all as the last one. */
static uint64_t next_due_ns(const smn_disk_thread *self, uint64_t pause_ns)
{
    uint64_t lead_ns = pause_ns / 2 < LEAD_NS ? pause_ns / 2 : LEAD_NS;
    uint64_t due_ns = self->wanted_ns + pause_ns - lead_ns;
    uint64_t earliest_ns = self->last.time_ns + SHORTEST_PAUSE_NS;
    return due_ns > earliest_ns ? due_ns : earliest_ns;
}

void smn_disk_thread_prepare(smn_disk_thread *self)
{
    if (!self->is_started)
        return;
    bool is_there = collect(self);
    /* What has begun must end before another can; what is only planned is brought forward. */
    if (is_old(self) && (is_there || atomic_load(&self->due_ns) > now_ns()))
        ask(self, now_ns());
}

int smn_disk_thread_take(smn_disk_thread *self, double values[SMN_DISK_VALUES])
{
    if (!self->is_started)
        return -EAGAIN; /* the system gave no thread */
    if (is_old(self))
        wait_for(self, atomic_load(&self->asked), deadline_ns(self));
    bool is_there = collect(self);
    uint64_t now = now_ns();
    uint64_t pause_ns = self->wanted_ns != 0 ? now - self->wanted_ns : FIRST_PAUSE_NS;
    self->wanted_ns = now;
    if (is_there)
        ask(self, next_due_ns(self, pause_ns));
    else if (now >= deadline_ns(self))
        return -ETIMEDOUT; /* what is known is no longer so */
    memcpy(values, self->last.values, sizeof self->last.values);
    return self->last.error;
}

/* ---- beginning and end -------------------------------------------------- */

int smn_disk_thread_create(const char *path, smn_disk_thread **out)
{
    size_t length = strlen(path) + 1;
    smn_disk_thread *self = calloc(1, sizeof *self + length);
    if (self == NULL)
        return -ENOMEM;
    self->owner = getpid();
    self->last = NO_READING;
    memcpy(self->path, path, length);
    *out = self;
    return 0;
}

int smn_disk_thread_start(smn_disk_thread *self)
{
    ask(self, now_ns());
    int error = smn_thread_start(&self->thread, THREAD_NAME, STACK_BYTES, run, self);
    self->is_started = error == 0;
    return error;
}

void smn_disk_thread_halt(smn_disk_thread *self)
{
    if (!self->is_started || self->owner != getpid())
        return;
    bool has_begun = !is_answered(self) && now_ns() >= atomic_load(&self->due_ns);
    self->give_up_ns = has_begun ? deadline_ns(self) : now_ns() + PATIENCE_NS;
    atomic_store(&self->asked, END);
    smn_futex_wake(&self->asked);
}

void smn_disk_thread_destroy(smn_disk_thread *self)
{
    /* A forked child has the memory, but no thread that uses it. */
    if (!self->is_started || self->owner != getpid()) {
        free(self);
        return;
    }
    wait_for(self, END, self->give_up_ns);
    if (atomic_load(&self->answered) == END)
        pthread_join(self->thread, NULL);
    else
        pthread_detach(self->thread);
    leave(self);
}

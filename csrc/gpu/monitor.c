#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../clock.h"
#include "../thread.h"

enum {
    MOST_ATTEMPTS = 8,
    MOST_STALLS_SAID = 3
};

static const char THREAD_NAME[] = "smn-gpu";

static const uint64_t MS = 1000000;
static const uint64_t NS_PER_SECOND = 1000000000;
static const uint64_t STALL_NS = 2 * UINT64_C(1000000000); /* a call that lasts longer is said */
static const uint64_t RETRY_LOST_NS = 30 * UINT64_C(1000000000);
static const uint64_t HALT_PATIENCE_NS = 100 * UINT64_C(1000000);
static const uint64_t CLOSE_PATIENCE_NS = 500 * UINT64_C(1000000);

/* What the thread is asked to do, and what it has done: both only ever grow. */
enum {
    FOUND = 1, /* devices, or none */
    FIRST,     /* reading */
    RUN,
    LAST, /* reading */
    CLOSE
};

/* Written by the GPU thread, read by anybody. */
typedef struct {
    _Atomic uint64_t rounds;
    _Atomic uint64_t errors;
    _Atomic uint64_t total_cost_ns;
    _Atomic uint64_t max_cost_ns;
} group_counters;

struct smn_gpus {
    /* Constant from open on. */
    pid_t owner;
    pthread_t thread;
    int sysfs;
    bool is_asked_for[SMN_GPU_GROUPS]; /* by the names of sources */
    bool is_late; /* nobody waited long enough: for others there are no devices */

    /* The thread's until it has FOUND them; then constant, but for drops before FIRST. */
    const smn_gpu_driver *driver; /* NULL: no device */
    void *state;
    smn_gpu_device *devices;
    int device_count;
    smn_gpu_attempt attempts[MOST_ATTEMPTS];
    int attempt_count;

    /* Written before RUN is asked for, constant from then on. */
    uint64_t start_ns;
    uint64_t period_ns;
    uint64_t window_ns;

    /* The thread's. */
    double readings[SMN_GPU_READINGS];
    bool is_said[SMN_GPU_MOST_CALLS]; /* that a call failed on some device */
    uint64_t last_target_ns;
    uint64_t next_slow_ns;
    uint64_t next_span_ns;
    uint64_t usual_cost_ns; /* of a round */

    /* Shared; each synchronises itself. */
    _Atomic uint32_t asked;    /* futex: the thread sleeps on it */
    _Atomic uint32_t answered; /* futex: those who ask sleep on it */
    _Atomic uint32_t users;
    _Atomic uint32_t is_half_gone; /* the thread has ended, or the last user has left it alone */
    smn_gpu_activity activity;
    group_counters counters[SMN_GPU_GROUPS];
    _Atomic uint64_t apart_ns[SMN_GPU_GROUPS]; /* as the sampling thread wants it */
    smn_gpu_messages messages;

    _Atomic uint64_t said_stall_ns; /* of those who take messages */
    _Atomic int stalls_said;
};

static uint64_t now_ns(void)
{
    return smn_system_clock.monotonic_ns(NULL);
}

static bool is_inherited(const smn_gpus *gpus)
{
    return gpus->owner != getpid();
}

/* ---- finding devices ---------------------------------------------------- */

static void find_device(smn_gpus *gpus, int index)
{
    smn_gpu_device *device = &gpus->devices[gpus->device_count];
    device->driver = gpus->driver;
    device->state = gpus->state;
    device->index = index;
    device->messages = &gpus->messages;
    device->activity = &gpus->activity;
    device->readings = gpus->readings;
    device->is_said = gpus->is_said;
    device->retry_lost_ns = RETRY_LOST_NS;
    /* The energy counter, which the detail needs, is among the basic readings. */
    bool wanted[SMN_GPU_GROUPS];
    memcpy(wanted, gpus->is_asked_for, sizeof wanted);
    wanted[SMN_GPU_BASIC] |= wanted[SMN_GPU_DETAIL];
    if (smn_gpu_device_find(device, wanted) == 0)
        gpus->device_count++;
    else
        smn_gpu_messages_post(&gpus->messages,
                              "GPU %d: the driver gives no access to it, so it is left out", index);
}

static int try_driver(smn_gpus *gpus, const smn_gpu_driver *driver)
{
    int count = 0;
    smn_gpu_attempt *attempt = &gpus->attempts[gpus->attempt_count++];
    int error = driver->open(gpus->sysfs, &gpus->state, &count, attempt);
    if (error != 0)
        return error;
    gpus->driver = driver;
    gpus->devices = calloc((size_t)count, sizeof *gpus->devices);
    for (int i = 0; i < count && gpus->devices != NULL; i++)
        find_device(gpus, i);
    if (gpus->device_count > 0)
        return 0;
    snprintf(attempt->outcome, sizeof attempt->outcome, "%d devices, but access to none", count);
    driver->close(gpus->state);
    free(gpus->devices);
    gpus->devices = NULL;
    gpus->driver = NULL;
    return -ENODATA;
}

static void find_devices(smn_gpus *gpus)
{
    for (int i = 0; smn_gpu_drivers[i] != NULL && i < MOST_ATTEMPTS; i++) {
        if (try_driver(gpus, smn_gpu_drivers[i]) == 0)
            return;
    }
}

/* ---- rounds ------------------------------------------------------------- */

/* The counters have one writer, so a load and a store are enough. */
static void count_up(_Atomic uint64_t *counter, uint64_t by)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + by, memory_order_relaxed);
}

/* What calls took is measured call by call, what they took of a CPU once a round: a clock costs. */
static void count_round(smn_gpus *gpus, const smn_gpu_round *round, double cpu_share)
{
    for (int g = 0; g < SMN_GPU_GROUPS; g++) {
        group_counters *counters = &gpus->counters[g];
        uint64_t cost_ns = round->cost_ns[g];
        if (cost_ns == 0)
            continue; /* no call of the group was due */
        cost_ns = (uint64_t)((double)cost_ns * cpu_share);
        count_up(&counters->rounds, 1);
        count_up(&counters->errors, round->errors[g]);
        count_up(&counters->total_cost_ns, cost_ns);
        if (cost_ns > atomic_load_explicit(&counters->max_cost_ns, memory_order_relaxed))
            atomic_store_explicit(&counters->max_cost_ns, cost_ns, memory_order_relaxed);
    }
}

static void read_devices(smn_gpus *gpus, smn_gpu_round *round)
{
    uint64_t before_ns = now_ns();
    uint64_t cpu_before_ns = smn_system_clock.cpu_ns(NULL);
    for (int i = 0; i < gpus->device_count; i++) {
        if (!gpus->devices[i].is_dropped)
            smn_gpu_device_read(&gpus->devices[i], round);
    }
    uint64_t cpu_ns = smn_system_clock.cpu_ns(NULL) - cpu_before_ns;
    uint64_t cost_ns = now_ns() - before_ns;
    gpus->usual_cost_ns += cost_ns / 4;
    gpus->usual_cost_ns -= gpus->usual_cost_ns / 4;
    count_round(gpus, round, cpu_ns < cost_ns ? (double)cpu_ns / (double)cost_ns : 1.0);
}

static void read_everything(smn_gpus *gpus)
{
    smn_gpu_round round = {.is_due = {[SMN_GPU_FAST] = true,
                                      [SMN_GPU_SLOW] = true,
                                      [SMN_GPU_PER_WINDOW] = true,
                                      [SMN_GPU_PER_SPAN] = true}};
    read_devices(gpus, &round);
}

/* A step as it is, or the multiple of it that is as long as the sampling thread wants it. */
static uint64_t stretched(const smn_gpus *gpus, uint64_t step_ns)
{
    uint64_t apart_ns = 0;
    for (int g = 0; g < SMN_GPU_GROUPS; g++) {
        uint64_t wanted_ns = atomic_load_explicit(&gpus->apart_ns[g], memory_order_relaxed);
        apart_ns = wanted_ns > apart_ns ? wanted_ns : apart_ns;
    }
    return apart_ns <= step_ns ? step_ns : (apart_ns + step_ns - 1) / step_ns * step_ns;
}

static uint64_t next_multiple(const smn_gpus *gpus, uint64_t step_ns, uint64_t after_ns)
{
    return gpus->start_ns + ((after_ns - gpus->start_ns) / step_ns + 1) * step_ns;
}

/*
 * Readings are made a little ahead, so that they are there when the sampling
 * thread comes: twice as long as they usually take, and some time to wake up.
 */
static uint64_t lead_ns(const smn_gpus *gpus)
{
    uint64_t to_wake_ns = gpus->period_ns / 50 < 50 * MS ? gpus->period_ns / 50 : 50 * MS;
    uint64_t lead = 2 * gpus->usual_cost_ns + 3 * MS + to_wake_ns;
    return lead < gpus->period_ns / 2 ? lead : gpus->period_ns / 2;
}

/* Windows shorter than the period cannot each have a reading; then each reading ends one. */
static void run_round(smn_gpus *gpus, uint64_t target_ns, uint64_t period_ns, uint64_t window_ns)
{
    bool is_period = (target_ns - gpus->start_ns) % period_ns == 0;
    bool is_window = window_ns < period_ns || (target_ns - gpus->start_ns) % window_ns == 0;
    bool is_slow = is_period && target_ns >= gpus->next_slow_ns;
    bool is_span = is_window || target_ns >= gpus->next_span_ns;
    smn_gpu_round round = {.is_due = {[SMN_GPU_FAST] = is_period,
                                      [SMN_GPU_SLOW] = is_slow,
                                      [SMN_GPU_PER_WINDOW] = is_window,
                                      [SMN_GPU_PER_SPAN] = is_span}};
    if (is_slow)
        gpus->next_slow_ns = target_ns + NS_PER_SECOND;
    if (is_span)
        gpus->next_span_ns = target_ns + NS_PER_SECOND / 2;
    read_devices(gpus, &round);
}

/* Sleeps until the next round is due and makes it, or returns when something else is asked for. */
static void wait_and_read(smn_gpus *gpus)
{
    uint64_t lead = lead_ns(gpus);
    uint64_t after_ns = now_ns() + lead;
    if (after_ns < gpus->last_target_ns)
        after_ns = gpus->last_target_ns;
    uint64_t period_ns = stretched(gpus, gpus->period_ns);
    uint64_t window_ns = stretched(gpus, gpus->window_ns);
    uint64_t target_ns = next_multiple(gpus, period_ns, after_ns);
    uint64_t window_end_ns = next_multiple(gpus, window_ns, after_ns);
    if (window_ns >= period_ns && window_end_ns < target_ns)
        target_ns = window_end_ns;
    while (atomic_load(&gpus->asked) == RUN) {
        if (smn_futex_wait(&gpus->asked, RUN, target_ns - lead) != -ETIMEDOUT)
            continue;
        gpus->last_target_ns = target_ns;
        run_round(gpus, target_ns, period_ns, window_ns);
        return;
    }
}

/* ---- the thread --------------------------------------------------------- */

static void answer(smn_gpus *gpus, uint32_t phase)
{
    atomic_store(&gpus->answered, phase);
    smn_futex_wake(&gpus->answered);
}

/* Waits until that phase or a later one is asked for, and returns which. */
static uint32_t await(smn_gpus *gpus, uint32_t phase)
{
    uint32_t asked;
    while ((asked = atomic_load(&gpus->asked)) < phase)
        (void)smn_futex_wait(&gpus->asked, asked, SMN_NEVER);
    return asked;
}

static void release(smn_gpus *gpus)
{
    free(gpus->devices);
    if (gpus->sysfs >= 0)
        close(gpus->sysfs);
    free(gpus);
}

/* What is left is for whoever comes second: the thread's end, or the last user. */
static void leave(smn_gpus *gpus)
{
    if (atomic_exchange(&gpus->is_half_gone, 1) == 1)
        release(gpus);
}

static void *run(void *opaque)
{
    smn_gpus *gpus = opaque;
    find_devices(gpus);
    answer(gpus, FOUND);
    if (await(gpus, FIRST) < LAST) {
        read_everything(gpus);
        answer(gpus, FIRST);
    }
    while (await(gpus, RUN) == RUN)
        wait_and_read(gpus);
    if (await(gpus, LAST) == LAST) {
        read_everything(gpus);
        answer(gpus, LAST);
    }
    (void)await(gpus, CLOSE);
    if (gpus->driver != NULL)
        gpus->driver->close(gpus->state);
    answer(gpus, CLOSE);
    leave(gpus);
    return NULL;
}

/* ---- what others ask of it ---------------------------------------------- */

static void ask(smn_gpus *gpus, uint32_t phase)
{
    uint32_t asked = atomic_load(&gpus->asked);
    while (asked < phase && !atomic_compare_exchange_weak(&gpus->asked, &asked, phase))
        continue;
    smn_futex_wake(&gpus->asked);
}

static int wait_for(smn_gpus *gpus, uint32_t phase, uint64_t patience_ns)
{
    uint64_t deadline_ns = now_ns() + patience_ns;
    uint32_t answered;
    while ((answered = atomic_load(&gpus->answered)) < phase) {
        if (smn_futex_wait(&gpus->answered, answered, deadline_ns) == -ETIMEDOUT)
            return atomic_load(&gpus->answered) < phase ? -ETIMEDOUT : 0;
    }
    return 0;
}

static int take(smn_gpus *gpus, uint32_t phase, int64_t timeout_ns)
{
    if (is_inherited(gpus))
        return -ECHILD;
    if (smn_gpus_count(gpus) == 0)
        return 0;
    ask(gpus, phase);
    return wait_for(gpus, phase, (uint64_t)timeout_ns);
}

int smn_gpus_take_first(smn_gpus *gpus, int64_t timeout_ns)
{
    return take(gpus, FIRST, timeout_ns);
}

void smn_gpus_run(smn_gpus *gpus, uint64_t start_ns, uint64_t period_ns, uint64_t window_ns)
{
    if (is_inherited(gpus) || smn_gpus_count(gpus) == 0 || atomic_load(&gpus->asked) >= RUN)
        return;
    gpus->start_ns = start_ns;
    gpus->period_ns = period_ns;
    gpus->window_ns = window_ns;
    gpus->last_target_ns = start_ns;
    gpus->next_slow_ns = start_ns + NS_PER_SECOND;
    gpus->next_span_ns = start_ns + NS_PER_SECOND / 2;
    ask(gpus, RUN);
}

void smn_gpus_slow_down(smn_gpus *gpus, smn_gpu_group group, uint64_t apart_ns)
{
    atomic_store_explicit(&gpus->apart_ns[group], apart_ns, memory_order_relaxed);
}

int smn_gpus_take_last(smn_gpus *gpus, int64_t timeout_ns)
{
    return take(gpus, LAST, timeout_ns);
}

bool smn_gpus_take(smn_gpus *gpus, int place, smn_gpu_group group, double *values)
{
    return smn_gpu_mailbox_take(&gpus->devices[place].mailboxes[group], values);
}

/* ---- open and close ----------------------------------------------------- */

static bool is_named(const char *names, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = names; *at != '\0';) {
        size_t part = strcspn(at, ",");
        if (part == length && memcmp(at, name, length) == 0)
            return true;
        at += part + (at[part] == ',');
    }
    return false;
}

int smn_gpus_open(const char *sysfs_path, const char *sources, int64_t patience_ns, smn_gpus **out)
{
    smn_gpus *gpus = calloc(1, sizeof *gpus);
    if (gpus == NULL)
        return -ENOMEM;
    gpus->owner = getpid();
    gpus->sysfs = open(sysfs_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    gpus->is_asked_for[SMN_GPU_BASIC] = is_named(sources, "gpu");
    gpus->is_asked_for[SMN_GPU_DETAIL] = is_named(sources, "gpu_detail");
    gpus->is_asked_for[SMN_GPU_PROFILING] = is_named(sources, "gpu_profiling");
    smn_gpu_messages_init(&gpus->messages);
    atomic_init(&gpus->users, 1);
    /* Of the usual stack: a driver library may need much. */
    int error = smn_thread_start(&gpus->thread, THREAD_NAME, 0, run, gpus);
    if (error != 0) {
        release(gpus);
        return error;
    }
    gpus->is_late = wait_for(gpus, FOUND, (uint64_t)patience_ns) != 0;
    if (gpus->is_late)
        smn_gpu_messages_post(&gpus->messages,
                              "No GPU is read: the driver did not answer within %g s",
                              (double)patience_ns * 1e-9);
    *out = gpus;
    return 0;
}

smn_gpus *smn_gpus_retain(smn_gpus *gpus)
{
    atomic_fetch_add(&gpus->users, 1);
    return gpus;
}

void smn_gpus_halt(smn_gpus *gpus)
{
    if (is_inherited(gpus))
        return;
    ask(gpus, CLOSE);
    (void)wait_for(gpus, CLOSE, HALT_PATIENCE_NS);
}

void smn_gpus_close(smn_gpus *gpus)
{
    if (gpus == NULL || atomic_fetch_sub(&gpus->users, 1) != 1 || is_inherited(gpus))
        return; /* in a forked child the driver's memory is not to be touched, nor anything of ours
                 */
    ask(gpus, CLOSE);
    /* A thread that a driver holds up is left alone, and cleans up when it comes back. */
    if (wait_for(gpus, CLOSE, CLOSE_PATIENCE_NS) == 0)
        pthread_join(gpus->thread, NULL);
    else
        pthread_detach(gpus->thread);
    leave(gpus);
}

/* ---- what they are ------------------------------------------------------ */

int smn_gpus_count(const smn_gpus *gpus)
{
    return gpus->is_late ? 0 : gpus->device_count;
}

const char *smn_gpus_vendor(const smn_gpus *gpus)
{
    return smn_gpus_count(gpus) > 0 ? gpus->driver->vendor : NULL;
}

int smn_gpus_attempt(const smn_gpus *gpus, int place, smn_gpu_attempt *attempt)
{
    if (gpus->is_late && place == 0) {
        *attempt = (smn_gpu_attempt){.name = "the driver"};
        snprintf(attempt->outcome, sizeof attempt->outcome, "it did not answer in time");
        return 0;
    }
    if (gpus->is_late || place < 0 || place >= gpus->attempt_count)
        return -EINVAL;
    *attempt = gpus->attempts[place];
    return 0;
}

static smn_gpu_device *device_at(const smn_gpus *gpus, int place)
{
    return place >= 0 && place < smn_gpus_count(gpus) ? &gpus->devices[place] : NULL;
}

int smn_gpus_device(const smn_gpus *gpus, int place, smn_gpu_info *info)
{
    const smn_gpu_device *device = device_at(gpus, place);
    if (device == NULL)
        return -EINVAL;
    const smn_gpu_identity *identity = &device->identity;
    *info = (smn_gpu_info){
        .index = device->index,
        .memory_bytes = identity->memory_bytes,
        .instances = identity->instance_count,
    };
    memcpy(info->uuid, identity->uuid, sizeof info->uuid);
    memcpy(info->pci_id, identity->pci_id, sizeof info->pci_id);
    memcpy(info->name, identity->name, sizeof info->name);
    return 0;
}

int smn_gpus_instance(const smn_gpus *gpus, int place, int instance, char *uuid)
{
    const smn_gpu_device *device = device_at(gpus, place);
    if (device == NULL || instance < 0 || instance >= device->identity.instance_count)
        return -EINVAL;
    memcpy(uuid, device->identity.instance_uuids[instance], SMN_GPU_TEXT_BYTES);
    return 0;
}

int smn_gpus_drop(smn_gpus *gpus, int place, int instance)
{
    smn_gpu_device *device = device_at(gpus, place);
    if (device == NULL || instance >= SMN_GPU_MOST_INSTANCES)
        return -EINVAL;
    if (instance < 0)
        device->is_dropped = true;
    else
        device->instance_is_dropped[instance] = true;
    return 0;
}

bool smn_gpus_has(const smn_gpus *gpus, int place, smn_gpu_group group, int value)
{
    const smn_gpu_device *device = device_at(gpus, place);
    return device != NULL && !device->is_dropped && smn_gpu_device_has(device, group, value);
}

void smn_gpus_group_stats(const smn_gpus *gpus, smn_gpu_group group, smn_source_stats *stats)
{
    const group_counters *counters = &gpus->counters[group];
    stats->calls = atomic_load_explicit(&counters->rounds, memory_order_relaxed);
    stats->errors = atomic_load_explicit(&counters->errors, memory_order_relaxed);
    stats->total_cost_ns = atomic_load_explicit(&counters->total_cost_ns, memory_order_relaxed);
    stats->max_cost_ns = atomic_load_explicit(&counters->max_cost_ns, memory_order_relaxed);
}

/* ---- messages ----------------------------------------------------------- */

/* The thread cannot say itself that it does not come back. */
static bool tells_of_stall(smn_gpus *gpus, char *message)
{
    uint64_t since_ns = atomic_load(&gpus->activity.since_ns);
    if (since_ns == 0 || now_ns() - since_ns < STALL_NS || gpus->stalls_said >= MOST_STALLS_SAID ||
        atomic_exchange(&gpus->said_stall_ns, since_ns) == since_ns)
        return false;
    const char *function = atomic_load(&gpus->activity.function);
    int index = atomic_load(&gpus->activity.index);
    atomic_fetch_add(&gpus->stalls_said, 1);
    snprintf(message, SMN_GPU_MESSAGE_BYTES,
             "GPU %d: %s has not returned for %d s; until it does, there are no values of GPUs",
             index, function, (int)(STALL_NS / NS_PER_SECOND));
    return true;
}

int smn_gpus_next_message(smn_gpus *gpus, char *message)
{
    if (is_inherited(gpus))
        return 0;
    if (smn_gpu_messages_take(&gpus->messages, message))
        return 1;
    return tells_of_stall(gpus, message);
}

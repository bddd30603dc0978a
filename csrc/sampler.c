/* The sampling thread: deadlines, ticks, start and stop. */
#include "sampler.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu/monitor.h"
#include "recorder.h"
#include "row_ring.h"
#include "source_set.h"
#include "thread.h"
#include "window.h"
#include "window_queue.h"

enum {
    WINDOWS_KEPT = 64,         /* closed windows that wait for a reader before they merge */
    WINDOWS_OF_ROWS = 4,       /* how late a reader may be and still get percentiles */
    FEWEST_ROWS = 256,         /* so that short windows may wait longer */
    MOST_ROW_BYTES = 64 << 20, /* address space; longer windows have no percentiles */
    STACK_BYTES = 256 << 10,
    DESTROY_PATIENCE_SECONDS = 5
};

/* How long the first and the last row wait for the GPUs: more than any that is well takes. */
static const int64_t GPU_PATIENCE_NS = 200000000;

static const char THREAD_NAME[] = "smn-host";

struct smn_sampler {
    /* Set by create, constant from then on. */
    smn_clock clock;
    uint64_t interval_ns;
    uint32_t samples_per_window;
    pid_t owner;
    char *disk_paths;
    char *network_interfaces;
    smn_text_buffer text; /* the sampling thread's alone while it runs */
    smn_environment environment;
    smn_schema schema;

    /* The sampling thread's alone while it runs, but for what statistics are taken from. */
    smn_source_set sources;
    double *columns;
    smn_recorder recorder;
    smn_open_window window;
    smn_window_record *closed;
    smn_row_time start; /* of row 0 */
    uint64_t window_end_tick;

    /* Shared; each synchronises itself. */
    smn_row_ring rows;
    smn_window_queue windows;
    _Atomic uint64_t ticks;
    _Atomic uint64_t missed;
    _Atomic uint32_t stopping; /* futex: the thread sleeps on it */
    _Atomic uint32_t finished; /* the thread has pushed its last window */

    /* Of whoever calls start and stop; the caller keeps those apart. */
    pthread_t thread;
    bool started;
    bool joined;
};

static bool is_inherited(const smn_sampler *sampler)
{
    return sampler->owner != getpid();
}

/* ---- one tick ----------------------------------------------------------- */

/* The counters below have one writer, so a load and a store are enough. */
static void count_up(_Atomic uint64_t *counter, uint64_t by)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + by, memory_order_relaxed);
}

static void read_sources(smn_sampler *sampler, uint64_t tick, smn_tick_place place)
{
    for (int i = 0; i < sampler->schema.columns; i++)
        sampler->columns[i] = NAN;
    smn_source_set_read(&sampler->sources, tick, place, sampler->columns);
}

static uint64_t tick_at(const smn_sampler *sampler, uint64_t now_ns)
{
    return (now_ns - sampler->start.monotonic_ns) / sampler->interval_ns;
}

static smn_row_time time_of_row(const smn_sampler *sampler, uint64_t now_ns)
{
    return (smn_row_time){
        .tick = tick_at(sampler, now_ns),
        .monotonic_ns = now_ns,
        .wall_ns = sampler->clock.wall_ns(sampler->clock.context),
    };
}

static void close_window(smn_sampler *sampler, const smn_row_time *time, bool partial)
{
    smn_open_window_close(&sampler->window, time, partial, sampler->closed);
    count_up(&sampler->missed, sampler->closed->head.missed);
    smn_window_queue_push(&sampler->windows, sampler->closed);
    sampler->window_end_tick = (time->tick / sampler->samples_per_window + 1) *
                               (uint64_t)sampler->samples_per_window;
}

static void take_tick(smn_sampler *sampler, bool last)
{
    uint64_t now_ns = sampler->clock.monotonic_ns(sampler->clock.context);
    smn_row_time time = time_of_row(sampler, now_ns);
    bool closes = time.tick >= sampler->window_end_tick;
    smn_tick_place place = closes ? SMN_TICK_CLOSES : SMN_TICK_WITHIN;
    read_sources(sampler, time.tick, last ? SMN_TICK_LAST : place);
    smn_row_ring_append(&sampler->rows, &time, sampler->columns);
    smn_recorder_append(&sampler->recorder, &time, sampler->columns);
    smn_open_window_add(&sampler->window, &time, sampler->columns);
    count_up(&sampler->ticks, 1);
    if (closes || last)
        close_window(sampler, &time, !closes);
    smn_source_set_govern(&sampler->sources, time.tick, now_ns);
}

/* The reading that counters start from: row 0, part of no window. */
static void take_first_reading(smn_sampler *sampler)
{
    sampler->start.monotonic_ns = sampler->clock.monotonic_ns(sampler->clock.context);
    sampler->start = time_of_row(sampler, sampler->start.monotonic_ns);
    for (int i = 0; i < sampler->schema.columns; i++)
        sampler->columns[i] = NAN;
    smn_source_set_read_first(&sampler->sources, sampler->columns, sampler->start.monotonic_ns);
    smn_row_ring_append(&sampler->rows, &sampler->start, sampler->columns);
    smn_open_window_start(&sampler->window, &sampler->start, sampler->columns);
    sampler->window_end_tick = sampler->samples_per_window;
}

static void *run(void *opaque)
{
    smn_sampler *sampler = opaque;
    /* Not where the reading is taken: a disk that hangs may hold up this thread only. */
    smn_recorder_append(&sampler->recorder, &sampler->start, sampler->columns);
    while (atomic_load(&sampler->stopping) == 0) {
        /* The next deadline on the grid: those that passed while we were late are skipped. */
        uint64_t now_ns = sampler->clock.monotonic_ns(sampler->clock.context);
        uint64_t deadline_ns = sampler->start.monotonic_ns +
                               (tick_at(sampler, now_ns) + 1) * sampler->interval_ns;
        sampler->clock.sleep_until(sampler->clock.context, &sampler->stopping, deadline_ns);
        if (atomic_load(&sampler->stopping) == 0)
            take_tick(sampler, false);
    }
    if (sampler->environment.gpus != NULL)
        (void)smn_gpus_take_last(sampler->environment.gpus, GPU_PATIENCE_NS);
    take_tick(sampler, true);
    atomic_store(&sampler->finished, 1);
    smn_window_queue_notify(&sampler->windows);
    return NULL;
}

/* ---- create ------------------------------------------------------------- */

static int fail(char *error, int code, const char *option, const char *value)
{
    snprintf(error, SMN_ERROR_TEXT_BYTES, "%s: %s: '%.160s'", option, strerror(-code), value);
    return code;
}

/* By which pid this procfs knows us; 0: it does not. */
static int own_pid(int procfs)
{
    char self[32];
    ssize_t length = readlinkat(procfs, "self", self, sizeof self - 1);
    if (length < 0)
        return 0;
    self[length] = '\0';
    long pid = strtol(self, NULL, 10);
    return pid > 0 && pid <= INT_MAX ? (int)pid : 0;
}

static char *copy_or(const char *text, const char *otherwise)
{
    return strdup(text != NULL ? text : otherwise);
}

static int open_environment(smn_sampler *sampler, const smn_options *options, char *error)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    smn_environment *environment = &sampler->environment;
    environment->procfs = open(options->procfs_path, flags);
    if (environment->procfs < 0)
        return fail(error, -errno, "procfs_path", options->procfs_path);
    environment->sysfs = open(options->sysfs_path, flags); /* some containers have none */
    int self = own_pid(environment->procfs);
    environment->foreign_procfs = self != (int)getpid();
    environment->pid = options->pid != 0 ? options->pid : self;
    environment->process_alone = options->process_alone != 0;
    environment->text = &sampler->text;
    environment->clock = &sampler->clock;
    environment->gpus = options->gpus != NULL ? smn_gpus_retain(options->gpus) : NULL;
    if (smn_text_buffer_init(&sampler->text) != 0)
        return fail(error, -ENOMEM, "sampler", "no address space for readings");
    environment->disk_paths = sampler->disk_paths = strdup(options->disk_paths);
    environment->network_interfaces = sampler->network_interfaces =
        copy_or(options->network_interfaces, "physical");
    if (sampler->disk_paths == NULL || sampler->network_interfaces == NULL)
        return fail(error, -ENOMEM, "sampler", "no memory for its options");
    return 0;
}

static int open_sources(smn_sampler *sampler, const smn_options *options, char *error)
{
    const char *wrong;
    smn_governor governor;
    smn_governor_init(&governor, options->overhead_budget, options->interval_ns,
                      options->samples_per_window);
    int code = smn_source_set_open(&sampler->sources, options->sources, &sampler->environment,
                                   &governor, &sampler->schema, &wrong);
    return code != 0 ? fail(error, code, "sources", wrong) : 0;
}

static uint64_t rows_to_keep(const smn_sampler *sampler)
{
    uint64_t record_bytes = sizeof(smn_row_time) +
                            (uint64_t)sampler->schema.columns * sizeof(double);
    uint64_t most = MOST_ROW_BYTES / record_bytes;
    uint64_t rows = (uint64_t)sampler->samples_per_window * WINDOWS_OF_ROWS;
    if (rows < FEWEST_ROWS)
        rows = FEWEST_ROWS;
    return rows < most ? rows : most;
}

static int lay_out(smn_sampler *sampler)
{
    int error = smn_row_ring_create(&sampler->rows, sampler->schema.columns, rows_to_keep(sampler));
    if (error == 0)
        error = smn_window_queue_init(&sampler->windows, &sampler->schema, WINDOWS_KEPT);
    if (error == 0)
        error = smn_open_window_init(&sampler->window, &sampler->schema);
    sampler->columns = calloc((size_t)sampler->schema.columns, sizeof *sampler->columns);
    sampler->closed = calloc(1, smn_window_record_bytes(&sampler->schema));
    if (error == 0 && (sampler->columns == NULL || sampler->closed == NULL))
        error = -ENOMEM;
    return error;
}

static void release(smn_sampler *sampler)
{
    smn_source_set_release(&sampler->sources);
    free(sampler->columns);
    free(sampler->closed);
    smn_open_window_release(&sampler->window);
    smn_window_queue_release(&sampler->windows);
    smn_row_ring_release(&sampler->rows);
    smn_recorder_release(&sampler->recorder);
    smn_schema_release(&sampler->schema);
    smn_text_buffer_release(&sampler->text);
    free(sampler->disk_paths);
    free(sampler->network_interfaces);
    smn_gpus_close(sampler->environment.gpus);
    if (sampler->environment.sysfs >= 0)
        close(sampler->environment.sysfs);
    if (sampler->environment.procfs >= 0)
        close(sampler->environment.procfs);
    free(sampler);
}

int smn_sampler_create_with_clock(const smn_options *options, const smn_clock *clock,
                                  smn_sampler **out, char *error)
{
    smn_sampler *sampler = calloc(1, sizeof *sampler);
    if (sampler == NULL)
        return fail(error, -ENOMEM, "sampler", "");
    sampler->clock = *clock;
    sampler->interval_ns = options->interval_ns;
    sampler->samples_per_window = options->samples_per_window;
    sampler->owner = getpid();
    sampler->environment.procfs = -1;
    sampler->environment.sysfs = -1;
    smn_recorder_init(&sampler->recorder);
    int code = 0;
    if (options->interval_ns == 0 || options->samples_per_window == 0)
        code = fail(error, -EINVAL, "interval_ns, samples_per_window", "0");
    if (code == 0)
        code = open_environment(sampler, options, error);
    if (code == 0)
        code = open_sources(sampler, options, error);
    if (code == 0 && (code = lay_out(sampler)) != 0)
        fail(error, code, "samples_per_window", "no address space for its rows");
    if (code != 0) {
        release(sampler);
        return code;
    }
    *out = sampler;
    return 0;
}

int smn_sampler_create(const smn_options *options, smn_sampler **sampler, char *error)
{
    return smn_sampler_create_with_clock(options, &smn_system_clock, sampler, error);
}

/* ---- record, start, stop, destroy --------------------------------------- */

int smn_sampler_record(smn_sampler *sampler, int fd, uint64_t data_offset, uint64_t capacity)
{
    if (is_inherited(sampler))
        return -ECHILD;
    if (sampler->started || sampler->recorder.fd >= 0)
        return -EALREADY;
    return smn_recorder_open(&sampler->recorder, fd, data_offset, capacity,
                             sampler->schema.columns);
}

/* The multiple of the interval at which the GPUs' sources are sampled. */
static uint64_t gpu_period_ns(const smn_sampler *sampler)
{
    uint64_t interval_ns = sampler->interval_ns;
    return (SMN_GPU_SHORTEST_PERIOD_NS + interval_ns - 1) / interval_ns * interval_ns;
}

int smn_sampler_start(smn_sampler *sampler)
{
    if (is_inherited(sampler))
        return -ECHILD;
    if (sampler->started)
        return -EALREADY;
    smn_gpus *gpus = sampler->environment.gpus;
    if (gpus != NULL)
        (void)smn_gpus_take_first(gpus, GPU_PATIENCE_NS);
    take_first_reading(sampler);
    if (gpus != NULL)
        smn_gpus_run(gpus, sampler->start.monotonic_ns, gpu_period_ns(sampler),
                     sampler->interval_ns * sampler->samples_per_window);
    int error = smn_thread_start(&sampler->thread, THREAD_NAME, STACK_BYTES, run, sampler);
    sampler->started = error == 0;
    return error;
}

static uint64_t deadline_after(int64_t timeout_ns)
{
    if (timeout_ns < 0)
        return SMN_NEVER;
    return smn_system_clock.monotonic_ns(NULL) + (uint64_t)timeout_ns;
}

int smn_sampler_stop(smn_sampler *sampler, int64_t timeout_ns)
{
    if (is_inherited(sampler))
        return -ECHILD;
    if (!sampler->started || sampler->joined)
        return 0;
    uint64_t deadline_ns = deadline_after(timeout_ns);
    atomic_store(&sampler->stopping, 1);
    smn_futex_wake(&sampler->stopping);
    for (;;) {
        uint32_t seen = atomic_load(&sampler->windows.changes);
        if (atomic_load(&sampler->finished) != 0)
            break;
        if (smn_window_queue_wait(&sampler->windows, seen, deadline_ns) == -ETIMEDOUT)
            return -ETIMEDOUT;
    }
    pthread_join(sampler->thread, NULL);
    sampler->joined = true;
    return 0;
}

void smn_sampler_destroy(smn_sampler *sampler)
{
    if (sampler == NULL)
        return;
    /* A thread that hangs in the kernel still uses this memory: better lost than reused. */
    if (smn_sampler_stop(sampler, DESTROY_PATIENCE_SECONDS * INT64_C(1000000000)) == -ETIMEDOUT)
        return;
    release(sampler);
}

/* ---- what readers call -------------------------------------------------- */

int smn_sampler_series_count(const smn_sampler *sampler)
{
    return sampler->schema.series_count;
}

int smn_sampler_series(const smn_sampler *sampler, int index, smn_series_info *info)
{
    if (index < 0 || index >= sampler->schema.series_count)
        return -EINVAL;
    const smn_series *series = &sampler->schema.series[index];
    *info = (smn_series_info){
        .key = series->spec.key,
        .unit = series->spec.unit,
        .source = series->source,
        .kind = series->spec.kind,
        .numerator = series->spec.numerator,
        .denominator = series->spec.kind == SMN_RATIO ? series->spec.denominator : -1,
        .scale = series->spec.scale,
        .quantum = series->spec.quantum,
    };
    return 0;
}

int smn_sampler_columns(const smn_sampler *sampler)
{
    return sampler->schema.columns;
}

static int wait_for_record(smn_sampler *sampler, uint64_t deadline_ns, smn_window_record *record)
{
    for (;;) {
        uint32_t seen = atomic_load(&sampler->windows.changes);
        /* Read before the queue is: nothing is pushed after it is set. */
        bool finished = atomic_load(&sampler->finished) != 0 || !sampler->started;
        if (smn_window_queue_pop(&sampler->windows, record) == 0)
            return 0;
        if (finished)
            return -ESHUTDOWN;
        int error = smn_window_queue_wait(&sampler->windows, seen, deadline_ns);
        if (error == -EINTR)
            return error;
        if (error == -ETIMEDOUT) /* one came at the last moment, or none */
            return smn_window_queue_pop(&sampler->windows, record) == 0 ? 0 : -ETIMEDOUT;
    }
}

static void describe(const smn_window_head *head, smn_window *window)
{
    double end_seconds = (double)head->end_wall_ns * 1e-9;
    *window = (smn_window){
        .start_seconds = end_seconds - (double)head->length_ns * 1e-9,
        .end_seconds = end_seconds,
        .samples = head->samples,
        .missed = head->missed,
        .merged = head->merged,
    };
}

int smn_sampler_next_window(smn_sampler *sampler, int64_t timeout_ns, int percentiles,
                            smn_window *window, smn_statistics *statistics)
{
    if (is_inherited(sampler))
        return -ECHILD;
    smn_window_record *record = malloc(smn_window_record_bytes(&sampler->schema));
    if (record == NULL)
        return -ENOMEM;
    int error = wait_for_record(sampler, deadline_after(timeout_ns), record);
    if (error == 0) {
        describe(&record->head, window);
        smn_window_statistics(&sampler->schema, record, statistics);
        if (percentiles) /* where they cannot be had they stay NaN */
            (void)smn_window_percentiles(&sampler->schema, record, &sampler->rows, statistics);
    }
    free(record);
    return error;
}

int smn_sampler_counters(const smn_sampler *sampler, smn_counters *counters)
{
    counters->ticks = atomic_load_explicit(&sampler->ticks, memory_order_relaxed);
    counters->missed = atomic_load_explicit(&sampler->missed, memory_order_relaxed);
    counters->merged_windows = atomic_load_explicit(&sampler->windows.merged, memory_order_relaxed);
    const smn_recorder *recorder = &sampler->recorder;
    counters->recorded_rows = atomic_load_explicit(&recorder->rows, memory_order_relaxed);
    counters->record_errors = atomic_load_explicit(&recorder->errors, memory_order_relaxed);
    counters->last_record_error = atomic_load_explicit(&recorder->last_error, memory_order_relaxed);
    counters->slowed_sources = atomic_load_explicit(&sampler->sources.slowed, memory_order_relaxed);
    counters->overhead_share = atomic_load_explicit(&sampler->sources.share, memory_order_relaxed);
    return 0;
}

int smn_sampler_sources(const smn_sampler *sampler)
{
    return sampler->sources.count;
}

int smn_sampler_source_stats(const smn_sampler *sampler, int index, smn_source_stats *stats)
{
    return smn_source_set_stats(&sampler->sources, index, stats);
}

/*
 * The public C API, in the subset of C that cffi reads: no #include, no #if.
 * sysmetrics.h includes this file and the Python extension is generated from
 * it, so the two cannot drift apart.
 *
 * Every function that can fail returns 0 or a negative errno. Handles are not
 * shared across fork: in a child every call on an inherited handle returns
 * -ECHILD and smn_sampler_destroy only gives memory back.
 */

enum {
    SMN_GAUGE = 0, /* a reading; a window's mean is the mean of its readings */
    SMN_TOTAL = 1, /* a running total since the start; never falls */
    SMN_RATE = 2,  /* increase of a counter over the time that passed */
    SMN_RATIO = 3  /* increase of one counter over the increase of another */
};

enum {
    SMN_ERROR_TEXT_BYTES = 256,
    SMN_GPU_TEXT_BYTES = 96,
    SMN_GPU_OUTCOME_BYTES = 192,
    SMN_GPU_MESSAGE_BYTES = 320
};

typedef struct smn_sampler smn_sampler;
typedef struct smn_gpus smn_gpus;

typedef struct {
    uint64_t interval_ns;        /* base tick */
    uint32_t samples_per_window; /* ticks that make one window */
    const char *procfs_path;     /* root of procfs, normally "/proc" */
    const char *sysfs_path;      /* root of sysfs, normally "/sys" */
    const char *sources;         /* names separated by commas */
    const char *disk_paths;      /* mount points, one a line; the first has the plain keys */
    /* Of the rates: NULL or "physical", "all", or names, one a line. */
    const char *network_interfaces;
    int pid;                /* whose processes and container are meant; 0: the caller's */
    int process_alone;      /* 1: the source `process` leaves out the descendants of pid */
    double overhead_budget; /* the share of one core that the sources may take; 0: any */
    smn_gpus *gpus; /* for the sources that read them, or NULL; the sampler keeps them alive */
} smn_options;

typedef struct {
    const char *key;    /* as in the catalogue, e.g. "cpu_utilization_percentage" */
    const char *unit;   /* e.g. "percentage", "megabytes" */
    const char *source; /* name of the source that reads it */
    int kind;           /* SMN_GAUGE … SMN_RATIO */
    int numerator;      /* column of the row that is read, or whose increase is taken */
    int denominator;    /* SMN_RATIO: the column to divide by; else -1 */
    double scale;       /* from the column's unit to the series' */
    double quantum;     /* smallest increase of the denominator that gives a meaningful value */
} smn_series_info;

typedef struct {
    double start_seconds; /* Unix time; the end minus the monotonic length */
    double end_seconds;   /* Unix time of the last tick */
    uint64_t samples;     /* ticks taken */
    uint64_t missed;      /* ticks skipped because the machine was late */
    uint64_t merged;      /* windows that were folded into this one */
} smn_window;

/* Statistics of one series in one window; NaN where there is no value. */
typedef struct {
    double mean;
    double min;
    double max;
    double last;
    double p50;
    double p95;
    double p99;
} smn_statistics;

typedef struct {
    uint64_t ticks;
    uint64_t missed;
    uint64_t merged_windows;
    uint64_t recorded_rows;
    uint64_t record_errors; /* rows that could not be recorded */
    int last_record_error;  /* why the last of them could not: a negative errno, or 0 */
    int slowed_sources;     /* that are read less often than they would be, for overhead_budget */
    double
        overhead_share; /* of one core, that the sources took in the last second; NaN: not known */
} smn_counters;

typedef struct {
    const char *name;
    uint64_t calls;
    uint64_t errors;      /* calls that failed, each an absent value */
    uint64_t interval_ns; /* how far apart its readings are; at windows' ends there are more */
    uint64_t usual_interval_ns; /* the same without overhead_budget */
    uint64_t total_cost_ns;     /* CPU time of the thread that makes the calls */
    uint64_t max_cost_ns;
} smn_source_stats;

/* A series that a source knows, whether or not this machine has it. */
typedef struct {
    const char *key; /* {i}, {j} and {_path} stand for what tells devices and paths apart */
    const char *unit;
    int kind;            /* SMN_GAUGE … SMN_RATIO */
    const char *meaning; /* what its value tells people */
    const char *reads;   /* the kernel's file, or the call of a driver, that it is made from … */
    const char *formula; /* … and how; Δ is the increase of a counter, Δt the time that passed */
} smn_known_series;

/* The table of sources: 0 ≤ index < smn_source_count(). */
int smn_source_count(void);
const char *smn_source_name(int index);
int smn_source_is_default(int index);

/* How far apart its readings are at least; 0: as often as there are ticks. */
uint64_t smn_source_min_interval_ns(int index);

/* The series of a source, in order: 0, or -EINVAL behind the last. */
int smn_source_series(int index, int place, smn_known_series *series);

/*
 * Opens the sources and lays out the rings; no thread runs yet. On failure
 * error (of SMN_ERROR_TEXT_BYTES) says in one sentence what is wrong.
 */
int smn_sampler_create(const smn_options *options, smn_sampler **sampler, char *error);

/*
 * Makes the sampling thread append every row to a file, to a ring of `capacity`
 * records that begins at data_offset (docs/recording-format.md). For between
 * create and start. On success the sampler owns fd and closes it when it is
 * destroyed and its thread has ended: a number that was given to another file
 * is never written to. -EINVAL, -EALREADY, -ENOMEM, -ECHILD: then fd is the
 * caller's as before.
 */
int smn_sampler_record(smn_sampler *sampler, int fd, uint64_t data_offset, uint64_t capacity);

/* Takes the first reading on the calling thread, then starts `smn-host`. */
int smn_sampler_start(smn_sampler *sampler);

/*
 * Takes a last reading, closes the open window and ends the thread. Waits at
 * most timeout_ns for it; -ETIMEDOUT when a kernel call holds it up.
 */
int smn_sampler_stop(smn_sampler *sampler, int64_t timeout_ns);

/* Stops if need be and gives everything back. NULL is allowed. */
void smn_sampler_destroy(smn_sampler *sampler);

int smn_sampler_series_count(const smn_sampler *sampler);
int smn_sampler_series(const smn_sampler *sampler, int index, smn_series_info *info);

/* How many doubles a row has. */
int smn_sampler_columns(const smn_sampler *sampler);

/*
 * Takes the oldest window that nobody has taken: 0 and *window and
 * statistics[series_count] filled; -ETIMEDOUT when none came within timeout_ns
 * (< 0: no limit); -EINTR after a signal; -ESHUTDOWN when the sampler has
 * stopped and all windows were taken. Percentiles cost a sort of the window's
 * rows on the calling thread; they are left NaN unless asked for.
 */
int smn_sampler_next_window(smn_sampler *sampler, int64_t timeout_ns, int percentiles,
                            smn_window *window, smn_statistics *statistics);

int smn_sampler_counters(const smn_sampler *sampler, smn_counters *counters);
int smn_sampler_sources(const smn_sampler *sampler);
int smn_sampler_source_stats(const smn_sampler *sampler, int index, smn_source_stats *stats);

/*
 * The GPUs of this machine, on a thread of their own, `smn-gpu`: a call of a
 * driver library may take seconds, and then nothing but the GPUs' own readings
 * waits for it.
 */

/* What became of looking for one library; for people. */
typedef struct {
    char name[SMN_GPU_TEXT_BYTES];       /* as it was found, or as it was looked for */
    char outcome[SMN_GPU_OUTCOME_BYTES]; /* "2 devices", or why there are none */
    char version[SMN_GPU_TEXT_BYTES];    /* "" where it is not known */
    char driver_version[SMN_GPU_TEXT_BYTES];
} smn_gpu_attempt;

/* Texts are empty, and the number is NaN, where the driver does not tell. */
typedef struct {
    int index; /* the driver's */
    char uuid[SMN_GPU_TEXT_BYTES];
    char pci_id[SMN_GPU_TEXT_BYTES];
    char name[SMN_GPU_TEXT_BYTES];
    double memory_bytes;
    int instances; /* MIG devices; an index without one counts, too */
} smn_gpu_info;

/*
 * Starts the thread and looks for devices: at most patience_ns long, then the
 * driver may go on, but there are none. `sysfs_path` as in smn_options;
 * `sources` as there: what is not among them is not read. 0, -EAGAIN, -ENOMEM.
 */
int smn_gpus_open(const char *sysfs_path, const char *sources, int64_t patience_ns,
                  smn_gpus **gpus);

/* Lets go of them; the thread ends when no sampler needs it and no call of a driver lasts. */
void smn_gpus_close(smn_gpus *gpus);

/*
 * Ends the thread though samplers may need it, at the end of the process: driver
 * libraries take themselves apart there, and must not be in use. Waits a moment
 * for a call that lasts.
 */
void smn_gpus_halt(smn_gpus *gpus);

/* "NVIDIA" or "AMD"; NULL where there is no device. */
const char *smn_gpus_vendor(const smn_gpus *gpus);

/* What was looked for, in that order: 0, or -EINVAL behind the last. */
int smn_gpus_attempt(const smn_gpus *gpus, int place, smn_gpu_attempt *attempt);

/* The devices, in the driver's order: 0, or -EINVAL behind the last. */
int smn_gpus_device(const smn_gpus *gpus, int place, smn_gpu_info *info);

/* The UUID of one MIG device: 0, or -EINVAL; "" where the driver has none of this index. */
int smn_gpus_instance(const smn_gpus *gpus, int place, int instance, char *uuid);

/* For between open and the sampler's create: drops a device, or one of its MIG devices (≥ 0). */
int smn_gpus_drop(smn_gpus *gpus, int place, int instance);

/*
 * Takes the oldest thing that is worth a line in the log, of SMN_GPU_MESSAGE_BYTES:
 * 1, or 0 when there is none. There are a few a device, however long it runs.
 */
int smn_gpus_next_message(smn_gpus *gpus, char *message);

/*
 * SIGTERM, for the process as a whole. Where its default disposition is in
 * force, a handler takes its place that wakes whoever waits here. The process
 * goes on for at most bound_ns, then dies of SIGTERM, or sooner: at a second
 * SIGTERM, or when smn_termination_finish is called. A forked child dies at once.
 *
 * smn_termination_install returns the number (> 0) of a watch. Called again
 * while that lasts it sets a new bound, puts the handler back where the default
 * is in force again, and returns the same number. -EBUSY where the program has a
 * handler of its own, ignores SIGTERM or blocks it in this thread; -ENOTSUP in
 * the first process of a pid namespace, which SIGTERM cannot kill; -EINPROGRESS
 * after SIGTERM; -EINVAL, -EAGAIN, -ENOMEM.
 *
 * Install and uninstall are not called at the same time: the caller sees to it.
 */
int smn_termination_install(int64_t bound_ns);

/*
 * Waits for SIGTERM: 0, or -ECANCELED when the watch is over without one. For a
 * thread of our own: from here on it takes no signal but, after SIGTERM, that.
 */
int smn_termination_wait(int number);

/*
 * Ends the watch, and puts the default disposition back unless the program has
 * replaced it. -EINPROGRESS after SIGTERM: what has begun goes on; -ECHILD where
 * this process has installed nothing.
 */
int smn_termination_uninstall(void);

/* Dies of SIGTERM, so that a parent sees what it would have seen without us. */
void smn_termination_finish(void);

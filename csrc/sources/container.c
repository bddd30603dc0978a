/*
 * usage_usec 4711000      cpu.stat, or cpuacct.usage: CPU time
 * nr_periods 120          cpu.stat: periods of the quota in which something ran,
 * nr_throttled 30         and those of them in which it was used up
 * inactive_file 4096      memory.stat: what the kernel gives back first
 * oom_kill 1              memory.events, or memory.oom_control
 *
 * How near a container is to its limits: those of the control groups that a
 * process is in, wherever on the way up they are set. What is used is used by
 * everything in the group that carries the limit. Where nothing limits there is
 * nothing to say.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../cgroup.h"
#include "../source.h"

enum {
    CPU_SHARE_SECONDS, /* used, as a share of the limit at that time */
    CPU_SECONDS,       /* in which it was used, as far as that is known */
    THROTTLED,
    PERIODS,
    WORKING_SET_BYTES,
    MEMORY_PERCENTAGE,
    OOM_KILLS,
    COLUMNS
};

/* Each limit has the group that carries it; the CPU time may be another hierarchy's. */
enum {
    QUOTA = SMN_CGROUP_QUOTA,
    CPUS = SMN_CGROUP_CPUS,
    MEMORY = SMN_CGROUP_MAX_MEMORY,
    LIMITS = SMN_CGROUP_LIMITS,
    USAGE = LIMITS,
    GROUPS
};

enum {
    MOST_FILES = 3,
    MOST_FILE_BYTES = 16384 /* many times what any of them has */
};

/* What is read of each group, by version. */
static const char *const file_names[GROUPS][2][MOST_FILES] = {
    [QUOTA] = {{"cpu.stat"}, {"cpu.stat"}},
    [CPUS] = {{NULL}, {NULL}},
    [MEMORY] = {{"memory.usage_in_bytes", "memory.stat", "memory.oom_control"},
                {"memory.current", "memory.stat", "memory.events"}},
    [USAGE] = {{"cpuacct.usage"}, {"cpu.stat"}},
};

/* Groups and limits are looked for anew this often; after a failure sooner. */
static const uint64_t PLACES_LAST_NS = UINT64_C(10000000000);
static const uint64_t RETRY_NS = UINT64_C(1000000000);

/*
 * The kernel hands out a quota in periods, of 100 ms unless told otherwise: for
 * shorter than that a container may use far more than its share. A little less,
 * because ticks come a little early or late.
 */
static const double QUANTUM_SECONDS = 0.095;
static const double QUANTUM_PERIODS = 10.0;

/* A CPU that is left to one task counts its time once a second. */
static const double LATE_SECONDS = 1.0;

/* Sums are exact doubles up to here. */
static const uint64_t MOST_BYTES = UINT64_C(1) << 53;

typedef struct {
    int folder; /* of the group; -1: nothing limits, or it is not known */
    int version;
    dev_t device;
    ino_t inode;
    int error; /* why nothing is known of it now */
    size_t path_length;
    double limit; /* INFINITY: none */
    smn_cgroup_limit_files limit_files;
    smn_procfile files[MOST_FILES];
    bool is_new; /* its counter was not read yet */
} watched_group;

typedef struct {
    uint64_t ns;
    uint64_t at_ns; /* when it was read */
    double limit;
} cpu_reading;

typedef struct {
    uint64_t periods;
    uint64_t throttled;
} throttle_reading;

typedef struct {
    int procfs;
    int sysfs;
    const smn_clock *clock;
    smn_text_buffer *text;
    int process; /* its folder in procfs: a number may be given to another process later */
    int pid;     /* 0: it is that of another view of the machine */
    smn_procfile lines;
    smn_cgroup_place places[SMN_CGROUP_CONTROLLERS];
    smn_cgroup_machine machine;
    uint64_t looked_ns;
    watched_group groups[GROUPS];
    bool has_failed; /* at the last reading */
    bool is_declared[COLUMNS];
    cpu_reading cpu; /* of the group USAGE, and so on: good unless the group is new */
    throttle_reading throttle;
    uint64_t oom_kills;
    double sums[COLUMNS];
} container_state;

static const smn_series_spec series[] = {
    {"container_cpu_utilization_percentage", "percentage", SMN_RATIO, CPU_SHARE_SECONDS,
     CPU_SECONDS, 100.0, QUANTUM_SECONDS,
     "CPU time of the control group that carries the limit, of that limit",
     "cpu.stat, or cpuacct.usage, below /sys/fs/cgroup",
     "100 · Δ(usage / cores) / Δt; cores: the tightest of quota / period and cpuset, of all groups "
     "above"},
    {"container_cpu_throttled_percentage", "percentage", SMN_RATIO, THROTTLED, PERIODS, 100.0,
     QUANTUM_PERIODS, "periods in which the quota was used up, of those in which something ran",
     "cpu.stat of the group that carries the quota", "100 · Δnr_throttled / Δnr_periods"},
    {"container_memory_usage_megabytes", "megabytes", SMN_GAUGE, WORKING_SET_BYTES, 0, 1e-6, 0.0,
     "working set of the control group that carries the limit, as Kubernetes counts it",
     "memory.current and memory.stat, or memory.usage_in_bytes", "(current − inactive_file) / 1e6"},
    {"container_memory_usage_percentage", "percentage", SMN_GAUGE, MEMORY_PERCENTAGE, 0, 1.0, 0.0,
     "working set of the control group that carries the limit, of that limit",
     "memory.current and memory.stat, or memory.usage_in_bytes",
     "100 · (current − inactive_file) / the tightest limit of all groups above"},
    {"container_oom_kills", "kills", SMN_TOTAL, OOM_KILLS, 0, 1.0, 0.0,
     "processes of that group that the kernel killed for want of memory, since the start",
     "memory.events, or memory.oom_control", "Δoom_kill, summed"},
};

/* ---- groups ------------------------------------------------------------- */

static void forget(container_state *state, int which, int error)
{
    watched_group *group = &state->groups[which];
    if (group->folder >= 0) {
        if (which < LIMITS)
            smn_cgroup_limit_release(&group->limit_files);
        for (int i = 0; i < MOST_FILES; i++)
            smn_procfile_release(&group->files[i]);
        close(group->folder);
    }
    group->folder = -1;
    group->limit = INFINITY;
    group->error = error;
}

static bool is_same(const watched_group *group, int version, const struct stat *status)
{
    return group->folder >= 0 && group->version == version && group->device == status->st_dev &&
           group->inode == status->st_ino;
}

/* The group is that of the first bytes of the place's path; files stay open if it was before. */
static void watch(container_state *state, int which, const smn_cgroup_place *place, size_t length)
{
    watched_group *group = &state->groups[which];
    struct stat status;
    int folder = smn_cgroup_open_folder(place, length, state->sysfs);
    if (folder < 0) {
        forget(state, which, folder);
        return;
    }
    if (fstat(folder, &status) != 0) {
        forget(state, which, -errno);
        close(folder);
        return;
    }
    group->path_length = length;
    if (is_same(group, place->version, &status)) {
        group->error = 0;
        close(folder);
        return;
    }
    forget(state, which, 0);
    group->folder = folder;
    group->version = place->version;
    group->device = status.st_dev;
    group->inode = status.st_ino;
    group->is_new = true;
    if (which < LIMITS)
        smn_cgroup_limit_init(&group->limit_files, (smn_cgroup_limit_kind)which, group->version,
                              folder, state->text);
    for (int i = 0; i < MOST_FILES; i++)
        smn_procfile_init(&group->files[i], folder, file_names[which][group->version - 1][i],
                          state->text);
}

static void look_for_limit(container_state *state, int which)
{
    watched_group *group = &state->groups[which];
    smn_cgroup_limit_kind kind = (smn_cgroup_limit_kind)which;
    const smn_cgroup_place *place = &state->places[smn_cgroup_controller_of(kind)];
    smn_cgroup_limit limit;
    int error = smn_cgroup_find_tightest(place, kind, &state->machine, state->sysfs, state->text,
                                         &limit);
    if (error != 0 || limit.value == INFINITY) {
        forget(state, which, error);
        return;
    }
    watch(state, which, place, limit.length);
    if (group->error == 0)
        group->limit = limit.value;
}

/* Whichever limits CPU time most; where both do so the quota, which tells more. */
static int cpu_limit(const container_state *state)
{
    return state->groups[QUOTA].limit <= state->groups[CPUS].limit ? QUOTA : CPUS;
}

/*
 * Version 1 may count CPU time in another hierarchy: that of the same path is
 * meant, if the process is below it there, too.
 */
static void look_for_usage(container_state *state)
{
    int which = cpu_limit(state);
    const watched_group *carrier = &state->groups[which];
    const smn_cgroup_place *limited =
        &state->places[smn_cgroup_controller_of((smn_cgroup_limit_kind)which)];
    const smn_cgroup_place *counted = &state->places[SMN_CGROUP_CPUACCT];
    if (carrier->folder < 0) {
        forget(state, USAGE, 0);
    } else if (limited->version == 2) {
        watch(state, USAGE, limited, carrier->path_length);
    } else {
        size_t below = carrier->path_length - limited->mount_length;
        size_t length = counted->mount_length + below;
        if (counted->version == 1 && strlen(counted->path) >= length &&
            memcmp(counted->path + counted->mount_length, limited->path + limited->mount_length,
                   below) == 0 &&
            (counted->path[length] == '\0' || counted->path[length] == '/'))
            watch(state, USAGE, counted, length);
        else
            forget(state, USAGE, counted->error != 0 ? counted->error : -ENOENT);
    }
}

static bool is_wanted(const container_state *state, int which)
{
    if (which == MEMORY)
        return state->is_declared[WORKING_SET_BYTES] || state->is_declared[OOM_KILLS];
    return state->is_declared[CPU_SHARE_SECONDS] || state->is_declared[THROTTLED];
}

static void look_for_groups(container_state *state, uint64_t now_ns)
{
    state->looked_ns = now_ns;
    smn_cgroup_read_machine(&state->machine, state->procfs, state->sysfs, state->text);
    int error = smn_cgroup_find_places(&state->lines, state->sysfs, state->pid, state->places);
    for (int which = 0; which < GROUPS && error != 0; which++)
        forget(state, which, error);
    if (error != 0)
        return;
    if (is_wanted(state, USAGE)) {
        look_for_limit(state, QUOTA);
        look_for_limit(state, CPUS);
        look_for_usage(state);
    }
    if (is_wanted(state, MEMORY))
        look_for_limit(state, MEMORY);
}

/* Whether a limit is another than before, as far as the groups that carry them tell. */
static bool has_changed(container_state *state)
{
    bool changed = false;
    for (int which = 0; which < LIMITS; which++) {
        watched_group *group = &state->groups[which];
        double limit;
        if (group->folder < 0)
            continue;
        group->error = smn_cgroup_limit_read(&group->limit_files, &state->machine, &limit);
        if (group->error != 0)
            state->has_failed = true;
        else if (limit != group->limit)
            changed = true;
    }
    return changed;
}

static void look_if_due(container_state *state)
{
    uint64_t now_ns = state->clock->monotonic_ns(state->clock->context);
    uint64_t age_ns = now_ns - state->looked_ns;
    if (age_ns >= PLACES_LAST_NS || has_changed(state) || (state->has_failed && age_ns >= RETRY_NS))
        look_for_groups(state, now_ns);
}

/* ---- one reading -------------------------------------------------------- */

static int read_field(smn_procfile *file, const char *key, uint64_t *value)
{
    int error = smn_procfile_read_start(file, MOST_FILE_BYTES);
    return error != 0 ? error : smn_cgroup_parse_field(smn_procfile_text(file), key, value);
}

static int read_cpu_time(watched_group *group, uint64_t *ns)
{
    uint64_t usec;
    smn_procfile *file = &group->files[0];
    if (group->version == 1)
        return read_field(file, "", ns);
    int error = read_field(file, "usage_usec ", &usec);
    if (error == 0 && __builtin_mul_overflow(usec, 1000, ns))
        error = -EBADMSG;
    return error;
}

/*
 * Adds what was used since the last reading. Where the limit has changed the
 * higher one counts: when it changed is not known, and nothing was above both.
 */
static int add_cpu_time(container_state *state, const cpu_reading *now)
{
    cpu_reading before = state->cpu;
    bool is_first = state->groups[USAGE].is_new;
    state->cpu = *now;
    state->groups[USAGE].is_new = false;
    if (is_first || now->ns < before.ns)
        return 0;
    double used = (double)(now->ns - before.ns) * 1e-9;
    double passed = (double)(now->at_ns - before.at_ns) * 1e-9;
    if (state->machine.cpus > 0.0 && used > state->machine.cpus * (passed + LATE_SECONDS))
        return -EBADMSG;
    double limit = before.limit > now->limit ? before.limit : now->limit;
    state->sums[CPU_SHARE_SECONDS] += used / limit;
    state->sums[CPU_SECONDS] += passed;
    return 0;
}

static int take_cpu_time(container_state *state, double *columns)
{
    watched_group *usage = &state->groups[USAGE];
    const int errors[] = {state->groups[QUOTA].error, state->groups[CPUS].error, usage->error};
    for (int i = 0; i < 3; i++) {
        if (errors[i] != 0)
            return errors[i];
    }
    if (usage->folder < 0)
        return 0;
    cpu_reading now = {.limit = state->groups[cpu_limit(state)].limit};
    int error = read_cpu_time(usage, &now.ns);
    now.at_ns = state->clock->monotonic_ns(state->clock->context);
    if (error == 0)
        error = add_cpu_time(state, &now);
    for (int i = CPU_SHARE_SECONDS; i <= CPU_SECONDS && error == 0; i++)
        columns[i] = state->sums[i];
    return error;
}

/* A period that is counted between the two numbers is in one of them only. */
static void add_periods(container_state *state, const throttle_reading *now)
{
    throttle_reading before = state->throttle;
    bool is_first = state->groups[QUOTA].is_new;
    state->throttle = *now;
    state->groups[QUOTA].is_new = false;
    if (is_first || now->periods < before.periods || now->throttled < before.throttled)
        return;
    uint64_t periods = now->periods - before.periods;
    uint64_t throttled = now->throttled - before.throttled;
    state->sums[PERIODS] += (double)periods;
    state->sums[THROTTLED] += (double)(throttled < periods ? throttled : periods);
}

static int take_periods(container_state *state, smn_cursor stat, double *columns)
{
    throttle_reading now;
    int error = smn_cgroup_parse_field(stat, "nr_periods ", &now.periods);
    if (error == 0)
        error = smn_cgroup_parse_field(stat, "nr_throttled ", &now.throttled);
    if (error != 0)
        return error;
    add_periods(state, &now);
    columns[THROTTLED] = state->sums[THROTTLED];
    columns[PERIODS] = state->sums[PERIODS];
    return 0;
}

/* In version 2 the file that has just been read for the CPU time usually has these, too. */
static int take_throttling(container_state *state, bool has_read, double *columns)
{
    watched_group *quota = &state->groups[QUOTA];
    const watched_group *usage = &state->groups[USAGE];
    if (quota->error != 0 || quota->folder < 0)
        return quota->error;
    if (has_read && usage->version == 2 && usage->device == quota->device &&
        usage->inode == quota->inode)
        return take_periods(state, smn_procfile_text(&usage->files[0]), columns);
    int error = smn_procfile_read_start(&quota->files[0], MOST_FILE_BYTES);
    return error != 0 ? error : take_periods(state, smn_procfile_text(&quota->files[0]), columns);
}

/* As Kubernetes counts it, which evicts by it. */
static int take_working_set(container_state *state, double *columns)
{
    watched_group *memory = &state->groups[MEMORY];
    uint64_t current;
    uint64_t inactive;
    if (memory->error != 0 || memory->folder < 0)
        return memory->error;
    int error = read_field(&memory->files[0], "", &current);
    if (error == 0)
        error = read_field(&memory->files[1],
                           memory->version == 1 ? "total_inactive_file " : "inactive_file ",
                           &inactive);
    if (error == 0 && (current > MOST_BYTES || inactive > MOST_BYTES))
        error = -EBADMSG;
    if (error != 0)
        return error;
    columns[WORKING_SET_BYTES] = current > inactive ? (double)(current - inactive) : 0.0;
    columns[MEMORY_PERCENTAGE] = columns[WORKING_SET_BYTES] / memory->limit * 100.0;
    return 0;
}

static int take_oom_kills(container_state *state, double *columns)
{
    watched_group *memory = &state->groups[MEMORY];
    uint64_t now;
    if (memory->error != 0 || memory->folder < 0)
        return memory->error;
    int error = read_field(&memory->files[2], "oom_kill ", &now);
    if (error == 0 && now > UINT32_MAX) /* there are not so many pids */
        error = -EBADMSG;
    if (error != 0)
        return error;
    if (!memory->is_new && now > state->oom_kills)
        state->sums[OOM_KILLS] += (double)(now - state->oom_kills);
    state->oom_kills = now;
    memory->is_new = false;
    columns[OOM_KILLS] = state->sums[OOM_KILLS];
    return 0;
}

/* Takes what is declared; the error of each column that has one. */
static void take_all(container_state *state, double *columns, int errors[COLUMNS])
{
    bool has_read = false;
    if (state->is_declared[CPU_SHARE_SECONDS]) {
        errors[CPU_SHARE_SECONDS] = take_cpu_time(state, columns);
        has_read = !isnan(columns[CPU_SHARE_SECONDS]);
    }
    if (state->is_declared[THROTTLED])
        errors[THROTTLED] = take_throttling(state, has_read, columns);
    if (state->is_declared[WORKING_SET_BYTES])
        errors[WORKING_SET_BYTES] = take_working_set(state, columns);
    if (state->is_declared[OOM_KILLS])
        errors[OOM_KILLS] = take_oom_kills(state, columns);
}

static int container_sample(void *opaque, double *columns)
{
    container_state *state = opaque;
    int errors[COLUMNS] = {0};
    int first_error = 0;
    look_if_due(state);
    take_all(state, columns, errors);
    for (int i = 0; i < COLUMNS && first_error == 0; i++)
        first_error = errors[i];
    state->has_failed = first_error != 0;
    return first_error;
}

/* ---- open and close ----------------------------------------------------- */

static void container_close(void *opaque)
{
    container_state *state = opaque;
    for (int which = 0; which < GROUPS; which++)
        forget(state, which, 0);
    smn_procfile_release(&state->lines);
    if (state->process >= 0)
        close(state->process);
    free(state);
}

/* A kernel that is too old for it, or is not to tell us. */
static bool is_lacking(int error)
{
    return error == -ENODATA || error == -ENOENT || error == -EACCES || error == -EPERM ||
           error == -EOPNOTSUPP;
}

/* What a limit makes known, though it may not be understood at the moment. */
static void find_out_what_there_is(container_state *state)
{
    static const int group_of[COLUMNS] = {
        [CPU_SHARE_SECONDS] = USAGE, [CPU_SECONDS] = USAGE,        [THROTTLED] = QUOTA,
        [PERIODS] = QUOTA,           [WORKING_SET_BYTES] = MEMORY, [MEMORY_PERCENTAGE] = MEMORY,
        [OOM_KILLS] = MEMORY,
    };
    double first[COLUMNS];
    int errors[COLUMNS] = {0};
    for (int i = 0; i < COLUMNS; i++) {
        first[i] = NAN;
        state->is_declared[i] = true;
    }
    look_for_groups(state, state->clock->monotonic_ns(state->clock->context));
    take_all(state, first, errors);
    errors[MEMORY_PERCENTAGE] = errors[WORKING_SET_BYTES];
    for (int i = 0; i < COLUMNS; i++)
        state->is_declared[i] = state->groups[group_of[i]].folder >= 0 && !is_lacking(errors[i]);
    for (int which = 0; which < GROUPS; which++) {
        state->groups[which].is_new = true; /* sums begin with the first reading proper */
        if (!is_wanted(state, which))
            forget(state, which, 0);
    }
}

static int declare(container_state *state, smn_schema *schema)
{
    int error = 0;
    int declared = 0;
    for (size_t i = 0; i < sizeof series / sizeof *series && error == 0; i++) {
        if (!state->is_declared[series[i].numerator])
            continue;
        error = smn_schema_add_series(schema, &series[i]);
        declared++;
    }
    return error == 0 && declared == 0 ? -ENODATA : error;
}

static int open_process(container_state *state, int pid)
{
    char number[16];
    snprintf(number, sizeof number, "%d", pid);
    state->process = openat(state->procfs, number, O_PATH | O_DIRECTORY | O_CLOEXEC);
    smn_procfile_init(&state->lines, state->process, "cgroup", state->text);
    return state->process >= 0 ? 0 : -ENODATA;
}

static int container_open(const smn_environment *environment, smn_schema *schema, void **opaque)
{
    if (environment->pid == 0 || environment->sysfs < 0)
        return -ENODATA;
    container_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    state->procfs = environment->procfs;
    state->sysfs = environment->sysfs;
    state->clock = environment->clock;
    state->text = environment->text;
    state->pid = environment->foreign_procfs ? 0 : environment->pid;
    for (int which = 0; which < GROUPS; which++) {
        state->groups[which].folder = -1;
        state->groups[which].limit = INFINITY;
    }
    int error = open_process(state, environment->pid);
    if (error == 0) {
        find_out_what_there_is(state);
        error = declare(state, schema);
    }
    if (error != 0) {
        container_close(state);
        return error;
    }
    smn_schema_add_columns(schema, COLUMNS);
    *opaque = state;
    return 0;
}

const smn_source smn_source_container = {
    .name = "container",
    .by_default = true,
    /* The kernel adds up what every CPU has counted, and counts CPU time in ticks of some ms. */
    .min_interval_ns = 10000000,
    .open = container_open,
    .sample = container_sample,
    .close = container_close,
    .series = series,
    .series_count = sizeof series / sizeof *series,
};

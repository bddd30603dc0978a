/*
 * cpu  2255 34 2290 22625563 6290 127 456 0 0 0     /proc/stat (proc_stat(5)): clock
 * cpu0 1132 34 1441 11311718 3675 127 438 0 0 0     ticks of all CPUs, of each that is
 * intr 114930548 113199788 3 0 5 263 0 4 …          online, …
 * ctxt 1990473                                      … and context switches since boot
 * 0.45 0.39 0.37 1/612 21377                        /proc/loadavg (proc_loadavg(5))
 * 2600000                                           …/cpu0/cpufreq/scaling_cur_freq, in kHz
 * cpu MHz         : 2600.000                        /proc/cpuinfo, where there is no cpufreq
 *
 * The busiest core. The kernel counts CPU time in ticks of 10 ms, so between
 * two readings 1 ms apart a core is either 0 % or 100 % busy, and of many cores
 * the busiest would be at 100 % always. Therefore each core has spans of its
 * own, of as many readings as it takes until ten of its ticks have passed, and
 * its share is that of its last whole span. A reading gives the largest of these
 * shares, if the span of any core ended there; else it has nothing new to tell,
 * and the value is absent. However fast the sampler is, it gets a new value
 * about every 100 ms, and each value is the share of some 100 ms.
 */
#include <errno.h>
#include <stdlib.h>

#include "../cpu_times.h"
#include "../procfile.h"
#include "../reserve.h"
#include "../source.h"

enum {
    MOST_CORES = 8192, /* that is what kernels are built for at most */
    SPAN_TICKS = 10,
    PATH_BYTES = 80,
    FREQUENCY_BYTES = 32
};

enum {
    USER,
    SYSTEM,
    IOWAIT,
    STEAL,
    TOTAL,
    CORE_MAX,
    LOAD,
    SWITCHES,
    FREQUENCY,
    COLUMNS
};

/* A counter is an exact double up to here. */
static const uint64_t MOST_SWITCHES = UINT64_C(1) << 53;

/* Half of min_interval_ns: the rest of a window is joined to the stretch before it. */
static const double QUANTUM_SECONDS = 0.05;

/*
 * Frequencies cost a file a core, so they are read once a second; a little less,
 * so that a window of a second has one. Some kernels (x86 before 5.19) let the
 * reader of one that was not asked for a second sleep for 10 ms: a round over
 * all cores ends early then, and the next reading goes on with it.
 */
static const uint64_t FREQUENCY_PERIOD_NS = 900000000;
static const uint64_t FREQUENCY_PATIENCE_NS = 1000000;

static const char FIRST_LINE[] = "/proc/stat, first line";

static const smn_series_spec series[] = {
    {"cpu_user_percentage", "percentage", SMN_RATIO, USER, TOTAL, 100.0, SPAN_TICKS,
     "share of the time of all CPUs in programs, nice ones and guests included", FIRST_LINE,
     "100 · Δ(user + nice) / Δtotal; total as in cpu_utilization_percentage"},
    {"cpu_system_percentage", "percentage", SMN_RATIO, SYSTEM, TOTAL, 100.0, SPAN_TICKS,
     "share of the time of all CPUs in the kernel, interrupts not included", FIRST_LINE,
     "100 · Δsystem / Δtotal"},
    {"cpu_iowait_percentage", "percentage", SMN_RATIO, IOWAIT, TOTAL, 100.0, SPAN_TICKS,
     "share of the time of all CPUs without work, while a task waited for a disk", FIRST_LINE,
     "100 · Δiowait / Δtotal"},
    {"cpu_steal_percentage", "percentage", SMN_RATIO, STEAL, TOTAL, 100.0, SPAN_TICKS,
     "share of the time of all CPUs that a hypervisor gave to others", FIRST_LINE,
     "100 · Δsteal / Δtotal"},
    {"cpu_core_max_percentage", "percentage", SMN_GAUGE, CORE_MAX, 0, 100.0, 0.0,
     "how busy the busiest CPU was", "/proc/stat, lines cpu0, cpu1, …",
     "the largest of 100 · Δbusy / Δtotal, each CPU over a stretch of its own of 10 clock ticks "
     "(0.1 s) or more"},
    {"load_average_1m", "tasks", SMN_GAUGE, LOAD, 0, 1.0, 0.0,
     "tasks that ran or waited to, or for a disk: the kernel's mean over a minute",
     "/proc/loadavg, first number", "as it is"},
    {"context_switches_per_second", "switches per second", SMN_RATE, SWITCHES, 0, 1.0,
     QUANTUM_SECONDS, "switches from one task to another, on all CPUs", "/proc/stat, line ctxt",
     "Δctxt / Δt"},
    {"cpu_frequency_megahertz", "megahertz", SMN_GAUGE, FREQUENCY, 0, 1.0, 0.0,
     "mean frequency of the CPUs that are online",
     "/sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq, else /proc/cpuinfo",
     "mean of kHz / 1000, else of \"cpu MHz\"; about once a second"},
};

/* All zero: a core that was never online. */
typedef struct {
    smn_cpu_times now;
    smn_cpu_times previous;
    bool is_listed; /* in the reading that is being parsed */
    bool is_online; /* in the last good one */
    uint64_t busy;  /* of the pending span */
    uint64_t total;
    double share; /* of the last whole span; NaN: there is none since the core came online */
} core;

/* Where frequencies come from. */
typedef enum {
    NOWHERE,
    CPUFREQ,
    CPUINFO
} frequency_origin;

/* One round over the cores. */
typedef struct {
    frequency_origin origin;
    bool is_open;
    uint64_t due_ns; /* not sooner */
    int next_core;
    int count; /* of the cores that said something */
    double megahertz;
} frequency_round;

typedef struct {
    smn_environment environment;
    smn_procfile stat;
    smn_procfile loadavg;
    smn_procfile cpuinfo;
    bool has_stat; /* when the source was opened */
    bool has_loadavg;
    core *cores; /* address space for MOST_CORES, touched as needed */
    int core_count;
    bool has_previous;
    smn_cpu_times previous;
    smn_cpu_times sums; /* of increases since the first reading, so that they never fall */
    frequency_round round;
} detail_state;

enum {
    CORES_BYTES = MOST_CORES * sizeof(core)
};

/* ---- /proc/stat --------------------------------------------------------- */

/* Behind "cpu": the core's number, then its clocks. */
static int parse_core(detail_state *state, smn_cursor line)
{
    uint64_t index;
    int error = smn_scan_u64(&line, &index);
    if (error != 0)
        return error;
    if (index >= MOST_CORES)
        return -EFBIG;
    core *it = &state->cores[index];
    error = smn_scan_cpu_times(&line, &it->now);
    if (error != 0)
        return error;
    it->is_listed = true;
    if ((int)index >= state->core_count)
        state->core_count = (int)index + 1;
    return 0;
}

/* "ctxt" comes behind the cores: a text that has it has them all. */
static int parse_stat(detail_state *state, smn_cursor text, smn_cpu_times *all, uint64_t *switches)
{
    smn_cursor line;
    for (int i = 0; i < state->core_count; i++)
        state->cores[i].is_listed = false;
    if (!smn_scan_line(&text, &line) || !smn_scan_key(&line, "cpu "))
        return -EBADMSG;
    int error = smn_scan_cpu_times(&line, all);
    while (error == 0 && smn_scan_line(&text, &line)) {
        if (smn_scan_key(&line, "cpu"))
            error = parse_core(state, line);
        else if (smn_scan_key(&line, "ctxt "))
            return smn_scan_u64(&line, switches);
    }
    return error != 0 ? error : -EBADMSG;
}

/* Returns whether a span ended. */
static bool pass_time(core *it)
{
    smn_cpu_times increase = smn_cpu_increase(&it->previous, &it->now);
    it->previous = it->now;
    it->busy += smn_cpu_busy(&increase);
    it->total += smn_cpu_total(&increase);
    if (it->total < SPAN_TICKS)
        return false;
    it->share = (double)it->busy / (double)it->total;
    it->busy = it->total = 0;
    return true;
}

/* A core that comes online, or again, starts from what it says then; one that went has no share. */
static void take_cores(detail_state *state, double *column)
{
    bool is_news = false;
    double most = NAN;
    for (int i = 0; i < state->core_count; i++) {
        core *it = &state->cores[i];
        if (it->is_listed && !it->is_online) {
            it->previous = it->now;
            it->busy = it->total = 0;
            it->share = NAN;
        }
        it->is_online = it->is_listed;
        if (!it->is_online)
            continue;
        is_news = pass_time(it) || is_news;
        if (!(most >= it->share)) /* true for the NaN of the beginning, too */
            most = isnan(it->share) ? most : it->share;
    }
    if (is_news)
        *column = most;
}

static void take_sums(detail_state *state, const smn_cpu_times *all, double *columns)
{
    if (state->has_previous) {
        smn_cpu_times increase = smn_cpu_increase(&state->previous, all);
        for (int i = 0; i < SMN_CPU_CLOCKS; i++)
            state->sums.ticks[i] += increase.ticks[i];
    }
    state->previous = *all;
    state->has_previous = true;
    const uint64_t *sums = state->sums.ticks;
    columns[USER] = (double)(sums[SMN_CPU_USER] + sums[SMN_CPU_NICE]);
    columns[SYSTEM] = (double)sums[SMN_CPU_SYSTEM];
    columns[IOWAIT] = (double)sums[SMN_CPU_IOWAIT];
    columns[STEAL] = (double)sums[SMN_CPU_STEAL];
    columns[TOTAL] = (double)smn_cpu_total(&state->sums);
}

static int read_stat(detail_state *state, double *columns)
{
    smn_cpu_times all;
    uint64_t switches = 0;
    int error = smn_procfile_read(&state->stat);
    if (error == 0)
        error = parse_stat(state, smn_procfile_text(&state->stat), &all, &switches);
    if (error == 0 && switches > MOST_SWITCHES)
        error = -EBADMSG;
    if (error != 0)
        return error;
    take_sums(state, &all, columns);
    take_cores(state, &columns[CORE_MAX]);
    columns[SWITCHES] = (double)switches;
    return 0;
}

/* ---- /proc/loadavg ------------------------------------------------------ */

static int read_loadavg(detail_state *state, double *columns)
{
    int error = smn_procfile_read(&state->loadavg);
    smn_cursor text = smn_procfile_text(&state->loadavg);
    return error == 0 ? smn_scan_decimal(&text, &columns[LOAD]) : error;
}

/* ---- frequencies -------------------------------------------------------- */

/* snprintf may allocate, and asks for the locale. */
static void write_path(char path[PATH_BYTES], int index)
{
    static const char before[] = "devices/system/cpu/cpu";
    static const char after[] = "/cpufreq/scaling_cur_freq";
    char *at = path + sizeof before - 1;
    memcpy(path, before, sizeof before - 1);
    int unit = 1;
    while (index / unit >= 10)
        unit *= 10;
    for (; unit > 0; unit /= 10)
        *at++ = (char)('0' + index / unit % 10);
    memcpy(at, after, sizeof after);
}

/* Opened each time: hundreds of files kept open would be too many. */
static int read_core_frequency(const detail_state *state, int index, double *megahertz)
{
    char path[PATH_BYTES];
    smn_procfile file;
    uint64_t kilohertz = 0;
    write_path(path, index);
    smn_procfile_init(&file, state->environment.sysfs, path, state->environment.text);
    int error = smn_procfile_read_start(&file, FREQUENCY_BYTES);
    smn_cursor text = smn_procfile_text(&file);
    if (error == 0)
        error = smn_scan_u64(&text, &kilohertz);
    smn_procfile_release(&file);
    if (error == 0 && kilohertz == 0)
        error = -ENODATA; /* the driver does not know */
    *megahertz = (double)kilohertz * 1e-3;
    return error;
}

/* Of all cores, at once. */
static int read_cpuinfo(detail_state *state, frequency_round *round)
{
    int error = smn_procfile_read(&state->cpuinfo);
    smn_cursor text = smn_procfile_text(&state->cpuinfo);
    smn_cursor line;
    while (error == 0 && smn_scan_line(&text, &line)) {
        double megahertz;
        if (!smn_scan_key(&line, "cpu MHz"))
            continue;
        smn_scan_spaces(&line);
        if (!smn_scan_key(&line, ":"))
            continue;
        error = smn_scan_decimal(&line, &megahertz);
        if (error == 0 && megahertz > 0.0) {
            round->megahertz += megahertz;
            round->count++;
        }
    }
    return error == 0 && text.at != text.end ? -EBADMSG : error;
}

static uint64_t now_ns(const detail_state *state)
{
    const smn_clock *clock = state->environment.clock;
    return clock->monotonic_ns(clock->context);
}

/* Goes on with the round over the cores; returns whether it has come to its end. */
static bool ask_cores(detail_state *state, frequency_round *round, uint64_t start_ns)
{
    while (round->next_core < state->core_count) {
        int index = round->next_core++;
        double megahertz;
        if (!state->cores[index].is_online)
            continue;
        /* One that goes offline at this moment has no frequency. */
        if (read_core_frequency(state, index, &megahertz) == 0) {
            round->megahertz += megahertz;
            round->count++;
        }
        if (now_ns(state) - start_ns > FREQUENCY_PATIENCE_NS)
            break;
    }
    return round->next_core == state->core_count;
}

static int read_frequencies(detail_state *state, double *columns)
{
    frequency_round *round = &state->round;
    uint64_t start_ns = now_ns(state);
    if (!round->is_open) {
        if (start_ns < round->due_ns)
            return 0;
        *round = (frequency_round){
            .origin = round->origin, .is_open = true, .due_ns = start_ns + FREQUENCY_PERIOD_NS};
    }
    int error = 0;
    if (round->origin == CPUINFO)
        error = read_cpuinfo(state, round);
    else if (!ask_cores(state, round, start_ns))
        return 0;
    round->is_open = false;
    if (error == 0 && round->count == 0)
        error = -ENODATA;
    if (error == 0)
        columns[FREQUENCY] = round->megahertz / round->count;
    return error;
}

/* cpufreq, if any core that is online has it. */
static frequency_origin find_frequencies(detail_state *state)
{
    double megahertz;
    for (int i = 0; i < state->core_count; i++) {
        if (state->cores[i].is_online && read_core_frequency(state, i, &megahertz) == 0)
            return CPUFREQ;
    }
    frequency_round round = {0};
    return read_cpuinfo(state, &round) == 0 && round.count > 0 ? CPUINFO : NOWHERE;
}

/* ---- the source --------------------------------------------------------- */

static void detail_close(void *opaque)
{
    detail_state *state = opaque;
    smn_procfile_release(&state->stat);
    smn_procfile_release(&state->loadavg);
    smn_procfile_release(&state->cpuinfo);
    smn_unreserve(state->cores, CORES_BYTES);
    free(state);
}

/* Gives `first` a value for what this machine has. */
static void look_around(detail_state *state, double *first)
{
    for (int i = 0; i < COLUMNS; i++)
        first[i] = NAN;
    state->has_stat = read_stat(state, first) == 0;
    state->has_loadavg = read_loadavg(state, first) == 0;
    if (state->has_stat && state->core_count > 0)
        first[CORE_MAX] = 0.0; /* it has one from the second reading on */
    state->round.origin = find_frequencies(state);
    if (state->round.origin != NOWHERE)
        first[FREQUENCY] = 0.0;
}

static int detail_open(const smn_environment *environment, smn_schema *schema, void **opaque)
{
    detail_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    state->environment = *environment;
    state->cores = smn_reserve(CORES_BYTES);
    smn_procfile_init(&state->stat, environment->procfs, "stat", environment->text);
    smn_procfile_init(&state->loadavg, environment->procfs, "loadavg", environment->text);
    smn_procfile_init(&state->cpuinfo, environment->procfs, "cpuinfo", environment->text);
    int error = state->cores != NULL ? 0 : -ENOMEM;
    if (error == 0) {
        double first[COLUMNS];
        look_around(state, first);
        error = smn_schema_add_present(schema, series, sizeof series / sizeof *series, first);
    }
    if (error != 0) {
        detail_close(state);
        return error;
    }
    smn_schema_add_columns(schema, COLUMNS);
    *opaque = state;
    return 0;
}

static int detail_sample(void *opaque, double *columns)
{
    detail_state *state = opaque;
    const int errors[] = {
        state->has_stat ? read_stat(state, columns) : 0,
        state->has_loadavg ? read_loadavg(state, columns) : 0,
        state->round.origin != NOWHERE ? read_frequencies(state, columns) : 0,
    };
    /* What fails hides only its own values. */
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        if (errors[i] != 0)
            return errors[i];
    }
    return 0;
}

const smn_source smn_source_cpu_detail = {
    .name = "cpu_detail",
    /*
     * For /proc/stat as a whole the kernel adds up every interrupt of every
     * core and writes them all, which on a big machine takes milliseconds. And
     * in less time not even ten ticks of a core pass.
     */
    .min_interval_ns = 100000000,
    .open = detail_open,
    .sample = detail_sample,
    .close = detail_close,
    .series = series,
    .series_count = sizeof series / sizeof *series,
};

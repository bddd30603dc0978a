/*
 * SwapTotal:       8388604 kB          of /proc/meminfo (proc_meminfo(5)), in KiB
 * SwapFree:        8123904 kB          whatever the unit says
 * Dirty:               108 kB
 * pgmajfault 50427                     of /proc/vmstat (proc_vmstat(5))
 *
 * A machine without swap uses 0 of it. Dirty is what waits to be written to a
 * disk. A major page fault is a process that waited for a disk to get its
 * memory back, or its file.
 */
#include <errno.h>
#include <stdlib.h>

#include "../procfile.h"
#include "../source.h"

enum {
    SWAP_TOTAL,
    SWAP_FREE,
    DIRTY,
    KEYS
};

enum {
    SWAP_USED_BYTES = 0,
    DIRTY_BYTES,
    MAJOR_FAULTS,
    COLUMNS
};

/* In the order of the kernel's file, so that one pass without backtracking finds them. */
static const char *const keys[KEYS] = {
    [SWAP_TOTAL] = "SwapTotal:",
    [SWAP_FREE] = "SwapFree:",
    [DIRTY] = "Dirty:",
};

/* A counter is an exact double up to here. */
static const uint64_t MOST_FAULTS = UINT64_C(1) << 53;

/* Half of min_interval_ns: the rest of a window is joined to the stretch before it. */
static const double QUANTUM_SECONDS = 0.05;

static const smn_series_spec series[COLUMNS] = {
    {"swap_usage_megabytes", "megabytes", SMN_GAUGE, SWAP_USED_BYTES, 0, 1e-6, 0.0,
     "swap space that is used", "/proc/meminfo", "(SwapTotal − SwapFree) · 1024 / 1e6"},
    {"memory_dirty_megabytes", "megabytes", SMN_GAUGE, DIRTY_BYTES, 0, 1e-6, 0.0,
     "memory that waits to be written to a disk", "/proc/meminfo", "Dirty · 1024 / 1e6"},
    {"major_page_faults_per_second", "faults per second", SMN_RATE, MAJOR_FAULTS, 0, 1.0,
     QUANTUM_SECONDS, "how often a task waited for a disk to have its memory back, or its file",
     "/proc/vmstat, line pgmajfault", "Δpgmajfault / Δt"},
};

typedef struct {
    bool present[KEYS];
    uint64_t kib[KEYS];
} meminfo;

typedef struct {
    smn_procfile meminfo;
    smn_procfile vmstat;
    bool known[COLUMNS]; /* there when the source was opened */
} detail_state;

/* ---- one reading -------------------------------------------------------- */

static int parse_line(smn_cursor line, meminfo *info)
{
    for (int key = 0; key < KEYS; key++) {
        if (info->present[key] || !smn_scan_key(&line, keys[key]))
            continue;
        info->present[key] = true;
        return smn_scan_u64(&line, &info->kib[key]);
    }
    return 0;
}

static bool has_all(const meminfo *info)
{
    return info->present[SWAP_TOTAL] && info->present[SWAP_FREE] && info->present[DIRTY];
}

static int parse_meminfo(smn_cursor text, meminfo *info)
{
    smn_cursor line;
    while (!has_all(info) && smn_scan_line(&text, &line)) {
        int error = parse_line(line, info);
        if (error != 0)
            return error;
    }
    return has_all(info) || text.at == text.end ? 0 : -EBADMSG;
}

static int read_meminfo(detail_state *state, double *columns)
{
    int error = smn_procfile_read(&state->meminfo);
    meminfo info = {0};
    if (error == 0)
        error = parse_meminfo(smn_procfile_text(&state->meminfo), &info);
    if (error != 0)
        return error;
    if (info.present[DIRTY])
        columns[DIRTY_BYTES] = (double)info.kib[DIRTY] * 1024.0;
    /* In some containers one of the two is that of the host, and the difference of no use. */
    if (info.present[SWAP_TOTAL] && info.present[SWAP_FREE] &&
        info.kib[SWAP_FREE] <= info.kib[SWAP_TOTAL])
        columns[SWAP_USED_BYTES] = (double)(info.kib[SWAP_TOTAL] - info.kib[SWAP_FREE]) * 1024.0;
    return 0;
}

static int read_vmstat(detail_state *state, double *columns)
{
    int error = smn_procfile_read(&state->vmstat);
    smn_cursor text = smn_procfile_text(&state->vmstat);
    smn_cursor line;
    while (error == 0 && smn_scan_line(&text, &line)) {
        if (!smn_scan_key(&line, "pgmajfault "))
            continue;
        uint64_t faults;
        error = smn_scan_u64(&line, &faults);
        if (error == 0 && faults > MOST_FAULTS)
            error = -EBADMSG;
        if (error == 0)
            columns[MAJOR_FAULTS] = (double)faults;
        return error;
    }
    return error;
}

/* A file that fails hides only its own values. */
static int read_both(detail_state *state, double *columns)
{
    int error = 0;
    if (state->known[SWAP_USED_BYTES] || state->known[DIRTY_BYTES])
        error = read_meminfo(state, columns);
    if (state->known[MAJOR_FAULTS]) {
        int vmstat_error = read_vmstat(state, columns);
        if (error == 0)
            error = vmstat_error;
    }
    return error;
}

/* ---- the source --------------------------------------------------------- */

static void detail_close(void *opaque)
{
    detail_state *state = opaque;
    smn_procfile_release(&state->meminfo);
    smn_procfile_release(&state->vmstat);
    free(state);
}

static void look_around(detail_state *state, double *first)
{
    for (int i = 0; i < COLUMNS; i++) {
        first[i] = NAN;
        state->known[i] = true;
    }
    (void)read_both(state, first);
    for (int i = 0; i < COLUMNS; i++)
        state->known[i] = !isnan(first[i]);
}

static int detail_open(const smn_environment *environment, smn_schema *schema, void **opaque)
{
    detail_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    smn_procfile_init(&state->meminfo, environment->procfs, "meminfo", environment->text);
    smn_procfile_init(&state->vmstat, environment->procfs, "vmstat", environment->text);
    double first[COLUMNS];
    look_around(state, first);
    int error = smn_schema_add_present(schema, series, COLUMNS, first);
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
    int error = read_both(state, columns);
    for (int i = 0; i < COLUMNS && error == 0; i++) {
        if (state->known[i] && isnan(columns[i]))
            error = -EBADMSG; /* it was there before */
    }
    return error;
}

const smn_source smn_source_memory_detail = {
    .name = "memory_detail",
    /* For /proc/vmstat the kernel adds up some hundred counters of every CPU. */
    .min_interval_ns = 100000000,
    .open = detail_open,
    .sample = detail_sample,
    .close = detail_close,
    .series = series,
    .series_count = COLUMNS,
};

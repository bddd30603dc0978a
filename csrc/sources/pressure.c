/*
 * some avg10=0.00 avg60=0.68 avg300=0.36 total=157123495
 * full avg10=0.00 avg60=0.46 avg300=0.26 total=122690280
 *
 * /proc/pressure/{cpu,memory,io} (the kernel's Documentation/accounting/psi.rst):
 * microseconds since boot in which some task, or every task that was not idle,
 * waited for it. The averages are the kernel's own, over windows that are not
 * ours; the totals are exact over any window. For the CPU "full" says nothing:
 * of all tasks of the machine, one always runs.
 */
#include <errno.h>
#include <stdlib.h>

#include "../procfile.h"
#include "../source.h"

enum {
    CPU_SOME,
    MEMORY_SOME,
    MEMORY_FULL,
    IO_SOME,
    IO_FULL,
    COLUMNS
};

/* "some" and "full" of each file: the column that gets it, or -1. */
static const struct {
    const char *path;
    int some;
    int full;
} files[] = {
    {"pressure/cpu", CPU_SOME, -1},
    {"pressure/memory", MEMORY_SOME, MEMORY_FULL},
    {"pressure/io", IO_SOME, IO_FULL},
};

enum {
    FILES = sizeof files / sizeof *files,
    FILE_BYTES = 512 /* two lines of the longest numbers are less than half of it */
};

/* The sums are exact doubles up to here: in 285 years. */
static const uint64_t MOST_MICROSECONDS = UINT64_C(1) << 53;

/* A stalled second is a million microseconds, and 100 %. */
static const double PERCENTAGE = 1e-4;

/*
 * Half of min_interval_ns, for the reading at the end of a window, which may
 * come right after another: how long the kernel took to answer would tell there.
 */
static const double QUANTUM_SECONDS = 0.005;

static const char FORMULA[] = "100 · Δtotal (µs) / 1e6 / Δt";

static const smn_series_spec series[COLUMNS] = {
    {"pressure_cpu_some_percentage", "percentage", SMN_RATE, CPU_SOME, 0, PERCENTAGE,
     QUANTUM_SECONDS, "share of time in which some task waited for a CPU",
     "/proc/pressure/cpu, some", FORMULA},
    {"pressure_memory_some_percentage", "percentage", SMN_RATE, MEMORY_SOME, 0, PERCENTAGE,
     QUANTUM_SECONDS, "share of time in which some task waited for memory",
     "/proc/pressure/memory, some", FORMULA},
    {"pressure_memory_full_percentage", "percentage", SMN_RATE, MEMORY_FULL, 0, PERCENTAGE,
     QUANTUM_SECONDS, "share of time in which every task that was not idle waited for memory",
     "/proc/pressure/memory, full", FORMULA},
    {"pressure_io_some_percentage", "percentage", SMN_RATE, IO_SOME, 0, PERCENTAGE, QUANTUM_SECONDS,
     "share of time in which some task waited for I/O", "/proc/pressure/io, some", FORMULA},
    {"pressure_io_full_percentage", "percentage", SMN_RATE, IO_FULL, 0, PERCENTAGE, QUANTUM_SECONDS,
     "share of time in which every task that was not idle waited for I/O",
     "/proc/pressure/io, full", FORMULA},
};

typedef struct {
    smn_procfile files[FILES];
    bool known[COLUMNS]; /* there when the source was opened */
} pressure_state;

/* Steps from word to word, to behind "total=". */
static bool find_total(smn_cursor *line)
{
    const char *blank;
    while ((blank = memchr(line->at, ' ', (size_t)(line->end - line->at))) != NULL) {
        line->at = blank + 1;
        if (smn_scan_key(line, "total="))
            return true;
    }
    return false;
}

static int take_total(smn_cursor line, double *column)
{
    uint64_t microseconds;
    if (!find_total(&line) || line.at == line.end || *line.at == ' ')
        return -EBADMSG;
    int error = smn_scan_u64(&line, &microseconds);
    if (error == 0 && microseconds > MOST_MICROSECONDS)
        error = -EBADMSG;
    if (error == 0)
        *column = (double)microseconds;
    return error;
}

static int parse(smn_cursor text, int file, double *columns)
{
    smn_cursor line;
    int error = 0;
    while (error == 0 && smn_scan_line(&text, &line)) {
        if (smn_scan_key(&line, "some"))
            error = take_total(line, &columns[files[file].some]);
        else if (files[file].full >= 0 && smn_scan_key(&line, "full"))
            error = take_total(line, &columns[files[file].full]);
    }
    return error;
}

static bool is_known(const pressure_state *state, int column)
{
    return column >= 0 && state->known[column];
}

/* Whether the reading has what the file had at first. */
static bool is_complete(const pressure_state *state, int file, const double *columns)
{
    const int wanted[] = {files[file].some, files[file].full};
    for (int i = 0; i < 2; i++) {
        if (is_known(state, wanted[i]) && isnan(columns[wanted[i]]))
            return false;
    }
    return true;
}

static int read_file(pressure_state *state, int file, double *columns)
{
    int error = smn_procfile_read_start(&state->files[file], FILE_BYTES);
    if (error == 0)
        error = parse(smn_procfile_text(&state->files[file]), file, columns);
    if (error == 0 && !is_complete(state, file, columns))
        error = -EBADMSG;
    return error;
}

static void pressure_close(void *opaque)
{
    pressure_state *state = opaque;
    for (int file = 0; file < FILES; file++)
        smn_procfile_release(&state->files[file]);
    free(state);
}

/* Kernels without it have no such file, or one whose reading fails with EOPNOTSUPP (psi=0). */
static void look_around(pressure_state *state, double *first)
{
    for (int i = 0; i < COLUMNS; i++)
        first[i] = NAN;
    for (int file = 0; file < FILES; file++)
        (void)read_file(state, file, first);
    for (int i = 0; i < COLUMNS; i++)
        state->known[i] = !isnan(first[i]);
}

static int pressure_open(const smn_environment *environment, smn_schema *schema, void **opaque)
{
    pressure_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    for (int file = 0; file < FILES; file++)
        smn_procfile_init(&state->files[file], environment->procfs, files[file].path,
                          environment->text);
    double first[COLUMNS];
    look_around(state, first);
    int error = smn_schema_add_present(schema, series, COLUMNS, first);
    if (error != 0) {
        pressure_close(state);
        return error;
    }
    smn_schema_add_columns(schema, COLUMNS);
    *opaque = state;
    return 0;
}

static int pressure_sample(void *opaque, double *columns)
{
    pressure_state *state = opaque;
    int first_error = 0;
    /* A file that fails hides only its own values. */
    for (int file = 0; file < FILES; file++) {
        if (!is_known(state, files[file].some) && !is_known(state, files[file].full))
            continue;
        int error = read_file(state, file, columns);
        if (first_error == 0)
            first_error = error;
    }
    return first_error;
}

const smn_source smn_source_pressure = {
    .name = "pressure",
    /* At each reading the kernel adds up what every CPU has counted, under a lock. */
    .min_interval_ns = 10000000,
    .open = pressure_open,
    .sample = pressure_sample,
    .close = pressure_close,
    .series = series,
    .series_count = COLUMNS,
};

/*
 * cpu  1132 34 1441 3675 127 0 438 0 0 0
 *
 * The first line of /proc/stat (proc_stat(5)): clock ticks since boot, summed
 * over all CPUs.
 */
#include <errno.h>
#include <stdlib.h>

#include "../cpu_times.h"
#include "../procfile.h"
#include "../source.h"

enum {
    FIRST_LINE_BYTES = 512, /* ten numbers of twenty digits are less than half of it */
    BUSY = 0,
    TOTAL,
    COLUMNS
};

typedef struct {
    smn_procfile stat;
    bool has_previous;
    smn_cpu_times previous;
    /* Sums of increases since the first reading, so that they never fall. */
    uint64_t busy;
    uint64_t total;
} cpu_state;

static const smn_series_spec series[] = {
    {"cpu_utilization_percentage", "percentage", SMN_RATIO, BUSY, TOTAL, 100.0, 10.0,
     "share of the time of all CPUs in which they worked", "/proc/stat, first line",
     "100 · Δbusy / Δtotal; total: all fields but guest and guest_nice, which user and nice "
     "contain; busy: total − idle − iowait"},
};

static void cpu_close(void *opaque)
{
    cpu_state *state = opaque;
    smn_procfile_release(&state->stat);
    free(state);
}

static int cpu_open(const smn_environment *environment, smn_schema *schema, void **opaque)
{
    cpu_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    smn_procfile_init(&state->stat, environment->procfs, "stat", environment->text);
    smn_schema_add_columns(schema, COLUMNS);
    int error = smn_schema_add_all(schema, series, sizeof series / sizeof *series);
    if (error != 0) {
        cpu_close(state);
        return error;
    }
    *opaque = state;
    return 0;
}

static int parse(smn_cursor text, smn_cpu_times *times)
{
    smn_cursor line;
    if (!smn_scan_line(&text, &line) || !smn_scan_key(&line, "cpu "))
        return -EBADMSG;
    return smn_scan_cpu_times(&line, times);
}

static int cpu_sample(void *opaque, double *columns)
{
    cpu_state *state = opaque;
    /* One CPU line is all we need, and the rest can be half a megabyte. */
    int error = smn_procfile_read_start(&state->stat, FIRST_LINE_BYTES);
    smn_cpu_times now;
    if (error == 0)
        error = parse(smn_procfile_text(&state->stat), &now);
    if (error != 0)
        return error;

    if (state->has_previous) {
        smn_cpu_times increase = smn_cpu_increase(&state->previous, &now);
        state->busy += smn_cpu_busy(&increase);
        state->total += smn_cpu_total(&increase);
    }
    state->previous = now;
    state->has_previous = true;
    columns[BUSY] = (double)state->busy;
    columns[TOTAL] = (double)state->total;
    return 0;
}

const smn_source smn_source_cpu = {
    .name = "cpu",
    .by_default = true,
    .open = cpu_open,
    .sample = cpu_sample,
    .close = cpu_close,
    .series = series,
    .series_count = sizeof series / sizeof *series,
};

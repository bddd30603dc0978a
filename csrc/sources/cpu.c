/*
 * cpu  1132 34 1441 3675 127 0 438 0 0 0
 *
 * The first line of /proc/stat (proc_stat(5)): clock ticks since boot in user,
 * nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice, summed
 * over all CPUs. user and nice already contain guest and guest_nice.
 */
#include <errno.h>
#include <stdlib.h>

#include "../procfile.h"
#include "../source.h"

enum {
    USER,
    NICE,
    SYSTEM,
    IDLE,
    IOWAIT,
    IRQ,
    SOFTIRQ,
    STEAL,
    GUEST,
    GUEST_NICE,
    FIELDS
};

enum {
    OLDEST_FIELDS = IDLE + 1, /* every kernel has had these */
    FIRST_LINE_BYTES = 512,   /* ten numbers of twenty digits are less than half of it */
    BUSY = 0,
    TOTAL,
    COLUMNS
};

/*
 * More than ten thousand CPUs count in twenty years: a larger number is none of
 * the kernel's, and would spoil the sums, which are exact doubles up to 2^53.
 */
static const uint64_t MOST_TICKS = UINT64_C(1) << 48;

typedef struct {
    smn_procfile stat;
    bool has_previous;
    uint64_t previous[FIELDS];
    /* Sums of increases since the first reading, so that they never fall. */
    uint64_t busy;
    uint64_t total;
} cpu_state;

static const smn_series_spec series[] = {
    {"cpu_utilization_percentage", "percentage", SMN_RATIO, BUSY, TOTAL, 100.0, 10.0},
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

/* Old kernels have fewer fields; what they lack reads as 0 ticks. */
static int parse(smn_cursor text, uint64_t fields[FIELDS])
{
    smn_cursor line;
    if (!smn_scan_line(&text, &line) || !smn_scan_key(&line, "cpu "))
        return -EBADMSG;
    for (int i = 0; i < FIELDS; i++)
        fields[i] = 0;
    for (int i = 0; i < FIELDS; i++) {
        smn_scan_spaces(&line);
        if (*line.at == '\n')
            return i >= OLDEST_FIELDS ? 0 : -EBADMSG;
        int error = smn_scan_u64(&line, &fields[i]);
        if (error != 0)
            return error;
        if (fields[i] > MOST_TICKS)
            return -EBADMSG;
    }
    return 0;
}

static int cpu_sample(void *opaque, double *columns)
{
    cpu_state *state = opaque;
    /* One CPU line is all we need, and the rest can be half a megabyte. */
    int error = smn_procfile_read_start(&state->stat, FIRST_LINE_BYTES);
    uint64_t fields[FIELDS];
    if (error == 0)
        error = parse(smn_procfile_text(&state->stat), fields);
    if (error != 0)
        return error;

    /* idle and iowait are known to step back now and then; a step back is no time at all. */
    uint64_t increase[FIELDS] = {0};
    uint64_t total = 0;
    for (int i = 0; i < FIELDS; i++) {
        if (state->has_previous && fields[i] > state->previous[i])
            increase[i] = fields[i] - state->previous[i];
        state->previous[i] = fields[i];
        if (i != GUEST && i != GUEST_NICE)
            total += increase[i];
    }
    state->has_previous = true;
    state->total += total;
    state->busy += total - increase[IDLE] - increase[IOWAIT];
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
};

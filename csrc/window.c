#include "window.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- one series --------------------------------------------------------- */

/* Receives the values of spans, for percentiles; NULL when nobody wants them. */
typedef struct {
    double *values;
    size_t count;
} value_list;

static bool is_counter(const smn_series_spec *spec)
{
    return spec->kind == SMN_RATE || spec->kind == SMN_RATIO;
}

/* A fold at the start of a window whose counters start from these readings. */
static void fold_begin(smn_fold *fold, double numerator, double denominator)
{
    *fold = (smn_fold){
        .summary = {.first_numerator = numerator,
                    .first_denominator = denominator,
                    .min = NAN,
                    .max = NAN,
                    .last = NAN},
        .previous_numerator = numerator,
        .previous_denominator = denominator,
    };
}

static void take_value(smn_fold *fold, double value, value_list *list)
{
    smn_summary *summary = &fold->summary;
    if (!(summary->min <= value)) /* true for the NaN of the beginning, too */
        summary->min = value;
    if (!(summary->max >= value))
        summary->max = value;
    summary->last = value;
    summary->values++;
    if (list != NULL)
        list->values[list->count++] = value;
}

/* Takes the stretch from the start of the pending span up to the given sums as one value. */
static void take_span(smn_fold *fold, const smn_series_spec *spec, double numerator,
                      double denominator, value_list *list)
{
    double length = denominator - fold->span_denominator;
    if (length > 0.0)
        take_value(fold, spec->scale * (numerator - fold->span_numerator) / length, list);
    fold->span_numerator = numerator;
    fold->span_denominator = denominator;
}

/* Adds the increase since the previous reading to the sums; a counter that fell adds nothing. */
static void add_increase(smn_fold *fold, double numerator, double denominator)
{
    double gained = numerator - fold->previous_numerator;
    double passed = denominator - fold->previous_denominator;
    fold->previous_numerator = numerator;
    fold->previous_denominator = denominator;
    if (gained >= 0.0 && passed >= 0.0) { /* false for the NaN before the first reading, too */
        fold->summary.numerator += gained;
        fold->summary.denominator += passed;
    }
}

/*
 * The newest span stays pending until another one is long enough, so that a
 * short rest at the window's end can be joined to it.
 */
static void fold_add(smn_fold *fold, const smn_series_spec *spec, const smn_row_time *time,
                     const double *columns, value_list *list)
{
    smn_summary *summary = &fold->summary;
    double numerator = columns[spec->numerator];
    if (isnan(numerator))
        return;
    if (!is_counter(spec)) {
        summary->numerator += numerator;
        summary->denominator += 1.0;
        take_value(fold, spec->scale * numerator, list);
        return;
    }
    double denominator = spec->kind == SMN_RATIO ? columns[spec->denominator]
                                                 : (double)time->monotonic_ns * 1e-9;
    if (isnan(denominator))
        return;
    add_increase(fold, numerator, denominator);
    double unmarked = summary->denominator - fold->mark_denominator;
    if (unmarked <= 0.0 || unmarked < spec->quantum)
        return;
    take_span(fold, spec, fold->mark_numerator, fold->mark_denominator, list);
    fold->mark_numerator = summary->numerator;
    fold->mark_denominator = summary->denominator;
}

/* A window cut short by the end of sampling may be too short to tell anything. */
static void fold_end(smn_fold *fold, const smn_series_spec *spec, bool partial, value_list *list)
{
    smn_summary *summary = &fold->summary;
    if (!is_counter(spec))
        return;
    if (partial && summary->denominator < spec->quantum)
        summary->numerator = summary->denominator = 0.0;
    else
        take_span(fold, spec, summary->numerator, summary->denominator, list);
}

/* ---- the open window ---------------------------------------------------- */

size_t smn_window_record_bytes(const smn_schema *schema)
{
    return sizeof(smn_window_record) + (size_t)schema->series_count * sizeof(smn_summary);
}

int smn_open_window_init(smn_open_window *window, const smn_schema *schema)
{
    *window = (smn_open_window){.schema = schema};
    window->folds = calloc((size_t)schema->series_count, sizeof *window->folds);
    return window->folds != NULL ? 0 : -ENOMEM;
}

void smn_open_window_release(smn_open_window *window)
{
    free(window->folds);
    window->folds = NULL;
}

void smn_open_window_start(smn_open_window *window, const smn_row_time *time, const double *columns)
{
    for (int i = 0; i < window->schema->series_count; i++) {
        const smn_series_spec *spec = &window->schema->series[i].spec;
        double denominator = spec->kind == SMN_RATIO ? columns[spec->denominator]
                                                     : (double)time->monotonic_ns * 1e-9;
        fold_begin(&window->folds[i], columns[spec->numerator], denominator);
    }
    window->start_monotonic_ns = time->monotonic_ns;
    window->last_tick = time->tick;
    window->first_row = 1; /* row 0 is this one */
    window->samples = 0;
    window->missed = 0;
}

void smn_open_window_add(smn_open_window *window, const smn_row_time *time, const double *columns)
{
    for (int i = 0; i < window->schema->series_count; i++)
        fold_add(&window->folds[i], &window->schema->series[i].spec, time, columns, NULL);
    window->samples++;
    /* A last reading between two ticks has the number of the one before: none was missed. */
    if (time->tick > window->last_tick)
        window->missed += time->tick - window->last_tick - 1;
    window->last_tick = time->tick;
}

void smn_open_window_close(smn_open_window *window, const smn_row_time *time, bool partial,
                           smn_window_record *record)
{
    record->head = (smn_window_head){
        .end_wall_ns = time->wall_ns,
        .length_ns = time->monotonic_ns - window->start_monotonic_ns,
        .samples = window->samples,
        .missed = window->missed,
        .first_row = window->first_row,
        .partial = partial,
    };
    for (int i = 0; i < window->schema->series_count; i++) {
        smn_fold *fold = &window->folds[i];
        fold_end(fold, &window->schema->series[i].spec, partial, NULL);
        record->summaries[i] = fold->summary;
        fold_begin(fold, fold->previous_numerator, fold->previous_denominator);
    }
    window->start_monotonic_ns = time->monotonic_ns;
    window->first_row += window->samples;
    window->samples = 0;
    window->missed = 0;
}

/* ---- closed windows ----------------------------------------------------- */

static void merge_summary(const smn_summary *older, smn_summary *newer)
{
    newer->first_numerator = older->first_numerator;
    newer->first_denominator = older->first_denominator;
    newer->numerator += older->numerator;
    newer->denominator += older->denominator;
    newer->min = fmin(older->min, newer->min);
    newer->max = fmax(older->max, newer->max);
    if (newer->values == 0)
        newer->last = older->last;
    newer->values += older->values;
}

void smn_window_merge(const smn_window_record *older, smn_window_record *newer, int series_count)
{
    newer->head.length_ns += older->head.length_ns;
    newer->head.samples += older->head.samples;
    newer->head.missed += older->head.missed;
    newer->head.merged += older->head.merged + 1;
    newer->head.first_row = older->head.first_row;
    for (int i = 0; i < series_count; i++)
        merge_summary(&older->summaries[i], &newer->summaries[i]);
}

void smn_window_statistics(const smn_schema *schema, const smn_window_record *record,
                           smn_statistics *statistics)
{
    for (int i = 0; i < schema->series_count; i++) {
        const smn_summary *summary = &record->summaries[i];
        double scale = schema->series[i].spec.scale;
        statistics[i] = (smn_statistics){
            .mean = summary->denominator > 0.0 ? scale * summary->numerator / summary->denominator
                                               : NAN,
            .min = summary->min,
            .max = summary->max,
            .last = summary->last,
            .p50 = NAN,
            .p95 = NAN,
            .p99 = NAN,
        };
    }
}

/* ---- percentiles -------------------------------------------------------- */

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Between the two nearest ranks, as NumPy's default. */
static double percentile(const double *sorted, size_t count, double share)
{
    double rank = share * (double)(count - 1);
    size_t below = (size_t)rank;
    size_t above = below + 1 < count ? below + 1 : below;
    return sorted[below] + (rank - (double)below) * (sorted[above] - sorted[below]);
}

/* Folds the window's rows once more, this time keeping the value of each span. */
static int replay(const smn_schema *schema, const smn_window_record *record,
                  const smn_row_ring *ring, smn_fold *folds, value_list *lists, double *columns)
{
    for (uint64_t i = 0; i < record->head.samples; i++) {
        smn_row_time time;
        int error = smn_row_ring_read(ring, record->head.first_row + i, &time, columns);
        if (error != 0)
            return error;
        for (int s = 0; s < schema->series_count; s++)
            fold_add(&folds[s], &schema->series[s].spec, &time, columns, &lists[s]);
    }
    for (int s = 0; s < schema->series_count; s++)
        fold_end(&folds[s], &schema->series[s].spec, record->head.partial != 0, &lists[s]);
    return 0;
}

static void rank_values(value_list *list, smn_statistics *statistics)
{
    if (list->count == 0)
        return;
    qsort(list->values, list->count, sizeof *list->values, compare_doubles);
    statistics->p50 = percentile(list->values, list->count, 0.50);
    statistics->p95 = percentile(list->values, list->count, 0.95);
    statistics->p99 = percentile(list->values, list->count, 0.99);
}

int smn_window_percentiles(const smn_schema *schema, const smn_window_record *record,
                           const smn_row_ring *ring, smn_statistics *statistics)
{
    size_t series_count = (size_t)schema->series_count;
    if (record->head.merged > 0)
        return -ENODATA;
    if (record->head.samples > ring->capacity)
        return -ESTALE;

    /* At most one value a row, and one for the rest at the end. */
    size_t most_values = (size_t)record->head.samples + 1;
    smn_fold *folds = calloc(series_count, sizeof *folds);
    value_list *lists = calloc(series_count, sizeof *lists);
    double *columns = calloc((size_t)schema->columns, sizeof *columns);
    double *values = calloc(series_count * most_values, sizeof *values);
    int error = -ENOMEM;
    if (folds == NULL || lists == NULL || columns == NULL || values == NULL)
        goto out;
    for (size_t s = 0; s < series_count; s++) {
        const smn_summary *summary = &record->summaries[s];
        fold_begin(&folds[s], summary->first_numerator, summary->first_denominator);
        lists[s].values = values + s * most_values;
    }
    error = replay(schema, record, ring, folds, lists, columns);
    for (size_t s = 0; s < series_count && error == 0; s++)
        rank_values(&lists[s], &statistics[s]);
out:
    free(values);
    free(columns);
    free(lists);
    free(folds);
    return error;
}

/*
 * Folding rows into windows.
 *
 * A window begins at the last row of the one before and ends at its own last
 * row, so windows tile time without a gap. For a series made of counters the
 * mean is the sum of increases over the sum of time (or of the denominator's
 * increases): exact however many ticks were missed. A counter that fell gives
 * no increase for that tick.
 *
 * min, max and percentiles come from *spans*: stretches of the window long
 * enough to give a meaningful value (one tick for most series; see quantum in
 * schema.h). Spans cover the window without gap or overlap, hence
 * min ≤ mean ≤ max.
 */
#ifndef SMN_WINDOW_H
#define SMN_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "row_ring.h"
#include "schema.h"

/* What a window knows of one series. Everything that merging needs and no more. */
typedef struct {
    double first_numerator; /* reading that the window starts from; NaN if none */
    double first_denominator;
    double numerator; /* sum of increases; of readings for a gauge or total */
    double denominator;
    double min;
    double max;
    double last;
    uint64_t values; /* spans, or readings */
} smn_summary;

/* A closed window, as it waits to be read. `summaries` follow in memory. */
typedef struct {
    int64_t end_wall_ns;
    uint64_t length_ns; /* monotonic */
    uint64_t samples;
    uint64_t missed;
    uint64_t merged;
    uint64_t first_row; /* rows [first_row, first_row + samples) of the ring */
    uint64_t partial;   /* 1: closed early, by the end of sampling */
} smn_window_head;

typedef struct {
    smn_window_head head;
    smn_summary summaries[];
} smn_window_record;

size_t smn_window_record_bytes(const smn_schema *schema);

/* One series of the open window. */
typedef struct {
    smn_summary summary;
    double previous_numerator; /* last reading there was */
    double previous_denominator;
    double span_numerator; /* where the pending span starts and ends, in sums of the summary */
    double span_denominator;
    double mark_numerator;
    double mark_denominator;
} smn_fold;

/* The window being filled. */
typedef struct {
    const smn_schema *schema;
    smn_fold *folds;
    uint64_t start_monotonic_ns;
    uint64_t samples;
    uint64_t missed;
    uint64_t first_row;
    uint64_t last_tick; /* of the newest row */
} smn_open_window;

/* -ENOMEM. */
int smn_open_window_init(smn_open_window *window, const smn_schema *schema);
void smn_open_window_release(smn_open_window *window);

/* The reading before the first window: where counters start from. */
void smn_open_window_start(smn_open_window *window, const smn_row_time *time,
                           const double *columns);

/* Takes in one row. */
void smn_open_window_add(smn_open_window *window, const smn_row_time *time, const double *columns);

/* Writes the closed window to *record and opens the next one at `time`, its last row. */
void smn_open_window_close(smn_open_window *window, const smn_row_time *time, bool partial,
                           smn_window_record *record);

/* Folds the older window into the newer one that follows it. */
void smn_window_merge(const smn_window_record *older, smn_window_record *newer, int series_count);

/* Everything but the percentiles. */
void smn_window_statistics(const smn_schema *schema, const smn_window_record *record,
                           smn_statistics *statistics);

/*
 * The percentiles, from the window's rows: -ESTALE when those were overwritten,
 * -ENODATA for a merged window, -ENOMEM. Then they stay as they are.
 */
int smn_window_percentiles(const smn_schema *schema, const smn_window_record *record,
                           const smn_row_ring *ring, smn_statistics *statistics);

#endif

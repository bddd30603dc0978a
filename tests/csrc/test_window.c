/* Windows against a second opinion: the same numbers, worked out from the list of rows. */
#include "window.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "chance.h"
#include "check.h"

enum {
    GAUGE,
    TOTAL,
    RATE,
    RATIO,         /* of the same counters with a quantum … */
    RATIO_BY_TICK, /* … and without */
    SERIES
};

enum {
    GAUGE_COLUMN,
    TOTAL_COLUMN,
    RATE_COLUMN,
    BUSY_COLUMN,
    TIME_COLUMN,
    COLUMNS
};

enum {
    MOST_ROWS = 400,
    RING_ROWS = 512
};

static const smn_series_spec specs[SERIES] = {
    [GAUGE] = {"gauge", "u", SMN_GAUGE, GAUGE_COLUMN, 0, 0.5, 0.0, "", "", ""},
    [TOTAL] = {"total", "u", SMN_TOTAL, TOTAL_COLUMN, 0, 2.0, 0.0, "", "", ""},
    [RATE] = {"rate", "u", SMN_RATE, RATE_COLUMN, 0, 4.0, 0.0, "", "", ""},
    [RATIO] = {"ratio", "u", SMN_RATIO, BUSY_COLUMN, TIME_COLUMN, 100.0, 10.0, "", "", ""},
    [RATIO_BY_TICK] = {"ratio_by_tick", "u", SMN_RATIO, BUSY_COLUMN, TIME_COLUMN, 100.0, 0.0, "",
                       "", ""},
};

typedef struct {
    smn_row_time time;
    double columns[COLUMNS];
} sampled_row;

/* A schema, a ring of its rows and the window that is open. */
typedef struct {
    smn_schema schema;
    smn_row_ring ring;
    smn_open_window window;
    smn_window_record *record;
    smn_statistics statistics[SERIES];
} workbench;

static smn_window_record *new_record(const smn_schema *schema)
{
    smn_window_record *record = malloc(smn_window_record_bytes(schema));
    REQUIRE(record != NULL);
    return record;
}

static void bench_open(workbench *bench, uint64_t ring_rows)
{
    memset(bench, 0, sizeof *bench);
    smn_schema_begin_source(&bench->schema, "test");
    smn_schema_add_columns(&bench->schema, COLUMNS);
    REQUIRE(smn_schema_add_all(&bench->schema, specs, SERIES) == 0);
    REQUIRE(smn_row_ring_create(&bench->ring, COLUMNS, ring_rows) == 0);
    REQUIRE(smn_open_window_init(&bench->window, &bench->schema) == 0);
    bench->record = new_record(&bench->schema);
}

static void bench_close(workbench *bench)
{
    free(bench->record);
    smn_open_window_release(&bench->window);
    smn_row_ring_release(&bench->ring);
    smn_schema_release(&bench->schema);
}

static void start(workbench *bench, const sampled_row *row)
{
    smn_row_ring_append(&bench->ring, &row->time, row->columns);
    smn_open_window_start(&bench->window, &row->time, row->columns);
}

static void add(workbench *bench, const sampled_row *row)
{
    smn_row_ring_append(&bench->ring, &row->time, row->columns);
    smn_open_window_add(&bench->window, &row->time, row->columns);
}

/* Closes the window; its statistics then have percentiles, too, if `error` is 0. */
static int close_window(workbench *bench, const sampled_row *last, bool partial)
{
    smn_open_window_close(&bench->window, &last->time, partial, bench->record);
    smn_window_statistics(&bench->schema, bench->record, bench->statistics);
    return smn_window_percentiles(&bench->schema, bench->record, &bench->ring, bench->statistics);
}

/* ---- the second opinion ------------------------------------------------- */

typedef struct {
    double numerator;
    double denominator;
    double values[MOST_ROWS];
    size_t count;
} second_opinion;

static double denominator_of(const sampled_row *row, const smn_series_spec *spec)
{
    return spec->kind == SMN_RATIO ? row->columns[spec->denominator]
                                   : (double)row->time.monotonic_ns / 1e9;
}

static bool is_present(const sampled_row *row, const smn_series_spec *spec)
{
    return !isnan(row->columns[spec->numerator]) && !isnan(denominator_of(row, spec));
}

/* Lists the increases of a counter in rows [first, end), then groups them into spans. */
static void judge_counter(second_opinion *opinion, const smn_series_spec *spec,
                          const sampled_row *rows, size_t first, size_t end, bool partial)
{
    double gained[MOST_ROWS];
    double passed[MOST_ROWS];
    size_t increases = 0;
    const sampled_row *previous = NULL;
    for (size_t i = 0; i < end; i++) {
        if (!is_present(&rows[i], spec))
            continue;
        if (previous != NULL && i >= first) {
            double gain = rows[i].columns[spec->numerator] - previous->columns[spec->numerator];
            double pass = denominator_of(&rows[i], spec) - denominator_of(previous, spec);
            if (gain >= 0.0 && pass >= 0.0) {
                gained[increases] = gain;
                passed[increases++] = pass;
                opinion->numerator += gain;
                opinion->denominator += pass;
            }
        }
        previous = &rows[i];
    }
    if (partial && opinion->denominator < spec->quantum) {
        opinion->numerator = opinion->denominator = 0.0;
        return;
    }
    for (size_t from = 0; from < increases;) {
        double gain = 0.0;
        double pass = 0.0;
        size_t to = from;
        while (to < increases && (pass <= 0.0 || pass < spec->quantum)) {
            gain += gained[to];
            pass += passed[to++];
        }
        double left = 0.0; /* what is behind this span, if it makes no span of its own */
        for (size_t i = to; i < increases; i++)
            left += passed[i];
        if (to < increases && (left <= 0.0 || left < spec->quantum)) {
            for (; to < increases; to++) {
                gain += gained[to];
                pass += passed[to];
            }
        }
        if (pass > 0.0)
            opinion->values[opinion->count++] = spec->scale * gain / pass;
        from = to;
    }
}

static void judge_readings(second_opinion *opinion, const smn_series_spec *spec,
                           const sampled_row *rows, size_t first, size_t end)
{
    for (size_t i = first; i < end; i++) {
        double reading = rows[i].columns[spec->numerator];
        if (isnan(reading))
            continue;
        opinion->numerator += reading;
        opinion->denominator += 1.0;
        opinion->values[opinion->count++] = spec->scale * reading;
    }
}

static second_opinion judge(int series, const sampled_row *rows, size_t first, size_t end,
                            bool partial)
{
    second_opinion opinion = {0};
    const smn_series_spec *spec = &specs[series];
    if (spec->kind == SMN_GAUGE || spec->kind == SMN_TOTAL)
        judge_readings(&opinion, spec, rows, first, end);
    else
        judge_counter(&opinion, spec, rows, first, end, partial);
    return opinion;
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;
    return (a > b) - (a < b);
}

/* numpy.percentile(values, 100 * share), method "linear". */
static double percentile(const second_opinion *opinion, double share)
{
    if (opinion->count == 0)
        return NAN;
    double sorted[MOST_ROWS];
    memcpy(sorted, opinion->values, opinion->count * sizeof *sorted);
    qsort(sorted, opinion->count, sizeof *sorted, by_value);
    double at = share * (double)(opinion->count - 1);
    double low = floor(at);
    double high = ceil(at);
    return sorted[(size_t)low] * (1.0 - (at - low)) + sorted[(size_t)high] * (at - low);
}

static double near(double value)
{
    return isnan(value) ? 0.0 : 1e-9 * (1.0 + fabs(value));
}

static void check_series(const workbench *bench, int series, const second_opinion *expected,
                         bool percentiles)
{
    const smn_summary *summary = &bench->record->summaries[series];
    const smn_statistics *got = &bench->statistics[series];
    double min = NAN;
    double max = NAN;
    for (size_t i = 0; i < expected->count; i++) {
        min = fmin(min, expected->values[i]);
        max = fmax(max, expected->values[i]);
    }
    double last = expected->count > 0 ? expected->values[expected->count - 1] : NAN;
    double mean = expected->denominator > 0.0
                      ? specs[series].scale * expected->numerator / expected->denominator
                      : NAN;
    CHECK_U64(summary->values, expected->count);
    CHECK_NEAR(summary->numerator, expected->numerator, near(expected->numerator));
    CHECK_NEAR(summary->denominator, expected->denominator, near(expected->denominator));
    CHECK_NEAR(got->mean, mean, near(mean));
    CHECK_NEAR(got->min, min, near(min));
    CHECK_NEAR(got->max, max, near(max));
    CHECK_NEAR(got->last, last, near(last));
    CHECK_NEAR(got->p50, percentiles ? percentile(expected, 0.50) : NAN, near(max));
    CHECK_NEAR(got->p95, percentiles ? percentile(expected, 0.95) : NAN, near(max));
    CHECK_NEAR(got->p99, percentiles ? percentile(expected, 0.99) : NAN, near(max));
    if (!isnan(mean)) {
        CHECK(got->min <= mean + near(mean) && mean <= got->max + near(mean));
        CHECK(got->min <= got->last && got->last <= got->max);
    }
}

static void check_window(const workbench *bench, const sampled_row *rows, size_t first, size_t end,
                         bool partial, bool percentiles)
{
    for (int series = 0; series < SERIES; series++) {
        second_opinion expected = judge(series, rows, first, end, partial);
        check_series(bench, series, &expected, percentiles);
    }
}

/* ---- made-up rows ------------------------------------------------------- */

/* What may happen on the way from one row to the next, in thousandths. */
typedef struct {
    unsigned missed_tick;
    unsigned reset;
    unsigned absent;
    unsigned stands_still;
} weather_report;

static void make_rows(sampled_row *rows, size_t count, chance_state *chance,
                      const weather_report *weather)
{
    sampled_row now = {.time = {0, UINT64_C(5000000000), INT64_C(1700000000000000000)}};
    double busy_share = (double)chance_below(chance, 5);
    for (size_t i = 0; i < count; i++) {
        rows[i] = now;
        for (int c = 0; c < COLUMNS; c++) {
            if (chance_below(chance, 1000) < weather->absent)
                rows[i].columns[c] = NAN;
        }
        uint64_t ticks = 1;
        while (chance_below(chance, 1000) < weather->missed_tick)
            ticks++;
        now.time.tick += ticks;
        now.time.monotonic_ns += ticks * 1000000 + chance_below(chance, 1000) - 500;
        now.time.wall_ns += (int64_t)(ticks * 1000000);
        now.columns[GAUGE_COLUMN] = (double)chance_below(chance, 1000);
        now.columns[TOTAL_COLUMN] += (double)chance_below(chance, 100);
        now.columns[RATE_COLUMN] += (double)chance_below(chance, 5000);
        if (chance_below(chance, 1000) >= weather->stands_still) {
            double passed = (double)chance_below(chance, 5 * ticks);
            now.columns[TIME_COLUMN] += passed;
            now.columns[BUSY_COLUMN] += floor(passed * busy_share / 4.0);
        }
        for (int c = RATE_COLUMN; c < COLUMNS; c++) {
            if (chance_below(chance, 1000) < weather->reset)
                now.columns[c] = (double)chance_below(chance, 10);
        }
    }
}

static void test_random_rows(void)
{
    static const weather_report weathers[] = {
        {0, 0, 0, 0},   {100, 0, 0, 0}, {0, 50, 0, 0},       {0, 0, 200, 0},       {0, 0, 950, 0},
        {0, 0, 0, 900}, {900, 0, 0, 0}, {100, 50, 200, 300}, {300, 300, 300, 300}, {0, 0, 1000, 0},
    };
    chance_state chance = {20240601};
    static sampled_row rows[MOST_ROWS];
    for (unsigned round = 0; round < 400; round++) {
        const weather_report *weather = &weathers[round % (sizeof weathers / sizeof *weathers)];
        size_t count = 2 + (size_t)chance_below(&chance, MOST_ROWS - 2);
        size_t most = 1 + (size_t)chance_below(&chance, 60);
        make_rows(rows, count, &chance, weather);
        workbench bench;
        bench_open(&bench, RING_ROWS);
        start(&bench, &rows[0]);
        for (size_t first = 1; first < count;) {
            size_t end = first + 1 + (size_t)chance_below(&chance, most);
            bool partial = end >= count;
            end = partial ? count : end;
            check_case("round %u, rows %zu to %zu of %zu", round, first, end, count);
            for (size_t i = first; i < end; i++)
                add(&bench, &rows[i]);
            CHECK_INT(close_window(&bench, &rows[end - 1], partial), 0);
            check_window(&bench, rows, first, end, partial, true);
            const smn_window_head *head = &bench.record->head;
            CHECK_U64(head->samples, end - first);
            CHECK_U64(head->first_row, first);
            CHECK_U64(head->missed,
                      rows[end - 1].time.tick - rows[first - 1].time.tick - (end - first));
            CHECK_U64(head->length_ns,
                      rows[end - 1].time.monotonic_ns - rows[first - 1].time.monotonic_ns);
            CHECK_INT(head->end_wall_ns, rows[end - 1].time.wall_ns);
            CHECK_U64(head->merged, 0);
            CHECK_U64(head->partial, partial);
            first = end;
        }
        bench_close(&bench);
    }
    check_case(NULL);
}

/* ---- by hand ------------------------------------------------------------ */

enum {
    MOST_STEPS = 12
};

typedef struct {
    double busy; /* increase since the row before */
    double time;
} step;

/* Rows 1 ms apart, whose counters make these steps; NaN: the source was not read. */
static void make_steps(sampled_row *rows, const step *steps, size_t count)
{
    double busy = 1000.0;
    double time = 9000.0;
    rows[0] = (sampled_row){.time = {0, 1000000, 1000000}, .columns = {0, 0, 0, busy, time}};
    for (size_t i = 0; i < count; i++) {
        rows[i + 1] = rows[i];
        rows[i + 1].time.tick++;
        rows[i + 1].time.monotonic_ns += 1000000;
        rows[i + 1].time.wall_ns += 1000000;
        if (!isnan(steps[i].busy)) {
            busy += steps[i].busy;
            time += steps[i].time;
        }
        rows[i + 1].columns[BUSY_COLUMN] = isnan(steps[i].busy) ? NAN : busy;
        rows[i + 1].columns[TIME_COLUMN] = isnan(steps[i].busy) ? NAN : time;
    }
}

static void test_spans(void)
{
    static const struct {
        const char *what;
        size_t count;
        step steps[MOST_STEPS];
        bool partial;
        smn_statistics expected; /* of the ratio with a quantum of 10 */
    } cases[] = {
        {"one long step", 1, {{25, 100}}, false, {25, 25, 25, 25, 25, 25, 25}},
        {"two steps, each a span", 2, {{10, 10}, {0, 10}}, false, {50, 0, 100, 0, 50, 95, 99}},
        {"short steps make one span",
         3,
         {{4, 4}, {0, 4}, {2, 4}},
         false,
         {50, 50, 50, 50, 50, 50, 50}},
        {"and another one",
         6,
         {{4, 4}, {0, 4}, {1, 2}, {4, 4}, {4, 4}, {2, 2}},
         false,
         {75, 50, 100, 100, 75, 97.5, 99.5}},
        {"a short rest is joined to the last span",
         4,
         {{0, 10}, {5, 10}, {4, 4}, {6, 6}},
         false,
         {50, 0, 100, 100, 50, 95, 99}},
        {"a shorter rest, too",
         3,
         {{0, 10}, {5, 10}, {5, 5}},
         false,
         {40, 0, 66.666666666666667, 66.666666666666667, 33.333333333333333, 63.333333333333333,
          66}},
        {"a whole window below the quantum has what there is",
         2,
         {{1, 2}, {0, 2}},
         false,
         {25, 25, 25, 25, 25, 25, 25}},
        {"a partial one has nothing",
         2,
         {{1, 2}, {0, 2}},
         true,
         {CHECK_NAN, CHECK_NAN, CHECK_NAN, CHECK_NAN, CHECK_NAN, CHECK_NAN, CHECK_NAN}},
        {"unless it is long enough", 2, {{1, 4}, {5, 6}}, true, {60, 60, 60, 60, 60, 60, 60}},
        {"no time passed",
         3,
         {{0, 0}, {0, 0}, {0, 0}},
         false,
         {CHECK_NAN, CHECK_NAN, CHECK_NAN, CHECK_NAN, CHECK_NAN, CHECK_NAN, CHECK_NAN}},
        {"a counter that fell",
         3,
         {{10, 20}, {-5000, 10}, {15, 20}},
         false,
         {62.5, 50, 75, 75, 62.5, 73.75, 74.75}},
        {"time that fell",
         3,
         {{10, 20}, {5, -10}, {15, 20}},
         false,
         {62.5, 50, 75, 75, 62.5, 73.75, 74.75}},
        {"readings left out in the middle",
         4,
         {{5, 10}, {CHECK_NAN, 0}, {CHECK_NAN, 0}, {10, 10}},
         false,
         {75, 50, 100, 100, 75, 97.5, 99.5}},
        {"no reading at all",
         2,
         {{CHECK_NAN, 0}, {CHECK_NAN, 0}},
         false,
         {CHECK_NAN, CHECK_NAN, CHECK_NAN, CHECK_NAN, CHECK_NAN, CHECK_NAN, CHECK_NAN}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        sampled_row rows[MOST_STEPS + 1];
        make_steps(rows, cases[i].steps, cases[i].count);
        workbench bench;
        bench_open(&bench, RING_ROWS);
        start(&bench, &rows[0]);
        for (size_t r = 1; r <= cases[i].count; r++)
            add(&bench, &rows[r]);
        CHECK_INT(close_window(&bench, &rows[cases[i].count], cases[i].partial), 0);
        const smn_statistics *got = &bench.statistics[RATIO];
        const smn_statistics *expected = &cases[i].expected;
        CHECK_NEAR(got->mean, expected->mean, 1e-12);
        CHECK_NEAR(got->min, expected->min, 1e-12);
        CHECK_NEAR(got->max, expected->max, 1e-12);
        CHECK_NEAR(got->last, expected->last, 1e-12);
        CHECK_NEAR(got->p50, expected->p50, 1e-12);
        CHECK_NEAR(got->p95, expected->p95, 1e-12);
        CHECK_NEAR(got->p99, expected->p99, 1e-12);
        /* And the second opinion is of the same opinion. */
        check_window(&bench, rows, 1, cases[i].count + 1, cases[i].partial, true);
        bench_close(&bench);
    }
    check_case(NULL);
}

/* Windows of one tick at 1 kHz: most have no CPU time in them, and none is lost. */
static void test_windows_of_one_tick(void)
{
    workbench bench;
    bench_open(&bench, RING_ROWS);
    sampled_row rows[101];
    step steps[100];
    double busy = 0.0;
    double time = 0.0;
    for (size_t i = 0; i < 100; i++)
        steps[i] = i % 10 == 9 ? (step){1, 2} : (step){0, 0};
    make_steps(rows, steps, 100);
    start(&bench, &rows[0]);
    for (size_t i = 1; i <= 100; i++) {
        check_case("tick %zu", i);
        add(&bench, &rows[i]);
        CHECK_INT(close_window(&bench, &rows[i], false), 0);
        CHECK_DOUBLE(bench.statistics[RATIO].mean, i % 10 == 0 ? 50.0 : CHECK_NAN);
        CHECK_DOUBLE(bench.statistics[GAUGE].mean, 0.0);
        CHECK_U64(bench.record->head.samples, 1);
        busy += bench.record->summaries[RATIO].numerator;
        time += bench.record->summaries[RATIO].denominator;
    }
    check_case(NULL);
    CHECK_DOUBLE(busy, 10.0);
    CHECK_DOUBLE(time, 20.0);
    bench_close(&bench);
}

/* A source that is read only now and then, or for the first time late. */
static void test_first_reading_comes_late(void)
{
    workbench bench;
    bench_open(&bench, RING_ROWS);
    const step steps[] = {{CHECK_NAN, 0}, {CHECK_NAN, 0}, {700, 800}, {5, 10},
                          {CHECK_NAN, 0}, {CHECK_NAN, 0}, {10, 30},   {20, 20}};
    sampled_row rows[9];
    make_steps(rows, steps, 8);
    rows[0].columns[BUSY_COLUMN] = rows[0].columns[TIME_COLUMN] = NAN;
    const double means[] = {CHECK_NAN, 50.0, CHECK_NAN, 60.0}; /* of two ticks each */
    start(&bench, &rows[0]);
    for (size_t window = 0; window < 4; window++) {
        check_case("window %zu", window);
        add(&bench, &rows[2 * window + 1]);
        add(&bench, &rows[2 * window + 2]);
        CHECK_INT(close_window(&bench, &rows[2 * window + 2], false), 0);
        CHECK_NEAR(bench.statistics[RATIO].mean, means[window], 1e-12);
        check_window(&bench, rows, 2 * window + 1, 2 * window + 3, false, true);
    }
    check_case(NULL);
    bench_close(&bench);
}

static void test_rates(void)
{
    workbench bench;
    bench_open(&bench, RING_ROWS);
    sampled_row rows[4] = {{.time = {0, 1000000000, 0}, .columns = {[RATE_COLUMN] = 50}}};
    rows[1] = (sampled_row){.time = {1, 2000000000, 0}, .columns = {[RATE_COLUMN] = 150}};
    rows[2] = (sampled_row){.time = {2, 3000000000, 0},
                            .columns = {[RATE_COLUMN] = 10}}; /* reset */
    rows[3] = (sampled_row){.time = {6, 7000000000, 0}, .columns = {[RATE_COLUMN] = 410}};
    start(&bench, &rows[0]);
    for (int i = 1; i < 4; i++)
        add(&bench, &rows[i]);
    CHECK_INT(close_window(&bench, &rows[3], false), 0);
    /* 100 in one second, 400 in four; nothing is known of the second in which it was reset. */
    CHECK_NEAR(bench.statistics[RATE].mean, 4.0 * 100.0, 1e-9);
    CHECK_NEAR(bench.statistics[RATE].max, 4.0 * 100.0, 1e-9);
    CHECK_NEAR(bench.record->summaries[RATE].denominator, 5.0, 1e-9);
    CHECK_U64(bench.record->head.missed, 3);
    bench_close(&bench);
}

/* A last reading between two ticks is none of them, and makes up for none that was missed. */
static void test_reading_between_ticks(void)
{
    static const uint64_t ticks[] = {1, 2, 4, 5, 5};
    workbench bench;
    bench_open(&bench, RING_ROWS);
    sampled_row row = {.time = {0, 1000000, 0}};
    start(&bench, &row);
    for (size_t i = 0; i < sizeof ticks / sizeof *ticks; i++) {
        row.time.tick = ticks[i];
        row.time.monotonic_ns += 1000000;
        add(&bench, &row);
    }
    CHECK_INT(close_window(&bench, &row, true), 0);
    CHECK_U64(bench.record->head.samples, 5);
    CHECK_U64(bench.record->head.missed, 1);
    row.time.tick = 5; /* and none after it */
    add(&bench, &row);
    row.time.tick = 9;
    add(&bench, &row);
    CHECK_INT(close_window(&bench, &row, true), 0);
    CHECK_U64(bench.record->head.samples, 2);
    CHECK_U64(bench.record->head.missed, 3);
    bench_close(&bench);
}

/* Nothing between two windows is lost or counted twice. */
static void test_windows_tile(void)
{
    static const weather_report weathers[] = {{0, 0, 0, 0}, {200, 0, 0, 0}, {100, 0, 400, 200}};
    chance_state chance = {7};
    static sampled_row rows[MOST_ROWS];
    for (size_t w = 0; w < sizeof weathers / sizeof *weathers; w++) {
        for (size_t length = 1; length < 60; length += 7) {
            check_case("weather %zu, windows of %zu", w, length);
            make_rows(rows, MOST_ROWS, &chance, &weathers[w]);
            workbench bench;
            bench_open(&bench, RING_ROWS);
            start(&bench, &rows[0]);
            double busy = 0.0;
            double time = 0.0;
            double moved = 0.0;
            double seconds = 0.0;
            uint64_t length_ns = 0;
            for (size_t i = 1; i < MOST_ROWS; i++) {
                add(&bench, &rows[i]);
                if (i % length != 0 && i + 1 < MOST_ROWS)
                    continue;
                CHECK_INT(close_window(&bench, &rows[i], false), 0);
                busy += bench.record->summaries[RATIO].numerator;
                time += bench.record->summaries[RATIO].denominator;
                moved += bench.record->summaries[RATE].numerator;
                seconds += bench.record->summaries[RATE].denominator;
                length_ns += bench.record->head.length_ns;
            }
            second_opinion ratio = judge(RATIO, rows, 1, MOST_ROWS, false);
            second_opinion rate = judge(RATE, rows, 1, MOST_ROWS, false);
            CHECK_DOUBLE(busy, ratio.numerator);
            CHECK_DOUBLE(time, ratio.denominator);
            CHECK_NEAR(moved, rate.numerator, 1e-6);
            CHECK_NEAR(seconds, rate.denominator, 1e-6);
            CHECK_U64(length_ns, rows[MOST_ROWS - 1].time.monotonic_ns - rows[0].time.monotonic_ns);
            bench_close(&bench);
        }
    }
    check_case(NULL);
}

/* ---- merging ------------------------------------------------------------ */

/* Two or three windows merged are the window of all their rows, up to how it is cut into spans. */
static void test_merged_windows(void)
{
    static const weather_report weathers[] = {
        {0, 0, 0, 0},   {100, 50, 0, 0}, {0, 0, 600, 0},
        {0, 0, 950, 0}, {0, 0, 1000, 0}, {0, 0, 0, 950},
    };
    chance_state chance = {99};
    static sampled_row rows[MOST_ROWS];
    for (unsigned round = 0; round < 300; round++) {
        size_t ends[3] = {1 + 1 + (size_t)chance_below(&chance, 20)};
        ends[1] = ends[0] + 1 + (size_t)chance_below(&chance, 20);
        ends[2] = ends[1] + 1 + (size_t)chance_below(&chance, 20);
        make_rows(rows, ends[2], &chance, &weathers[round % (sizeof weathers / sizeof *weathers)]);
        workbench bench;
        bench_open(&bench, RING_ROWS);
        smn_window_record *merged = new_record(&bench.schema);
        start(&bench, &rows[0]);
        size_t first = 1;
        for (size_t w = 0; w < 3; w++) {
            check_case("round %u, window %zu, rows to %zu", round, w, ends[w]);
            for (; first < ends[w]; first++)
                add(&bench, &rows[first]);
            close_window(&bench, &rows[first - 1], false);
            if (w > 0)
                smn_window_merge(merged, bench.record, SERIES);
            memcpy(merged, bench.record, smn_window_record_bytes(&bench.schema));
            for (int series = 0; series < SERIES; series++) {
                second_opinion expected = judge(series, rows, 1, ends[w], false);
                const smn_summary *summary = &merged->summaries[series];
                CHECK_NEAR(summary->numerator, expected.numerator, near(expected.numerator));
                CHECK_NEAR(summary->denominator, expected.denominator, near(expected.denominator));
            }
            const smn_window_head *head = &merged->head;
            CHECK_U64(head->samples, ends[w] - 1);
            CHECK_U64(head->missed, rows[first - 1].time.tick - (ends[w] - 1));
            CHECK_U64(head->merged, w);
            CHECK_U64(head->first_row, 1);
            CHECK_U64(head->length_ns,
                      rows[first - 1].time.monotonic_ns - rows[0].time.monotonic_ns);
            CHECK_INT(head->end_wall_ns, rows[first - 1].time.wall_ns);
        }
        /* Where every tick is a span of its own, all the rest is the same, too. */
        smn_window_statistics(&bench.schema, merged, bench.statistics);
        memcpy(bench.record, merged, smn_window_record_bytes(&bench.schema));
        for (int series = 0; series < SERIES; series++) {
            second_opinion expected = judge(series, rows, 1, ends[2], false);
            if (series != RATIO && series != RATIO_BY_TICK)
                check_series(&bench, series, &expected, false);
            const smn_statistics *got = &bench.statistics[series];
            if (!isnan(got->mean))
                CHECK(got->min <= got->mean + near(got->mean) &&
                      got->mean <= got->max + near(got->mean));
        }
        CHECK_INT(smn_window_percentiles(&bench.schema, merged, &bench.ring, bench.statistics),
                  -ENODATA);
        CHECK_ABSENT(bench.statistics[GAUGE].p50);
        free(merged);
        bench_close(&bench);
    }
    check_case(NULL);
}

static void test_merging_by_hand(void)
{
    size_t bytes = sizeof(smn_window_record) + 2 * sizeof(smn_summary);
    smn_window_record *older = malloc(bytes);
    smn_window_record *newer = malloc(bytes);
    REQUIRE(older != NULL && newer != NULL);
    older->head = (smn_window_head){.end_wall_ns = 100,
                                    .length_ns = 10,
                                    .samples = 3,
                                    .missed = 1,
                                    .merged = 2,
                                    .first_row = 50,
                                    .partial = 0};
    newer->head = (smn_window_head){.end_wall_ns = 90, /* the wall clock was stepped back */
                                    .length_ns = 7,
                                    .samples = 4,
                                    .missed = 5,
                                    .merged = 1,
                                    .first_row = 53,
                                    .partial = 1};
    older->summaries[0] = (smn_summary){1, 2, 30, 40, -5, 9, 3, 6};
    newer->summaries[0] = (smn_summary){31, 42, 5, 6, -4, 8, 7, 2};
    older->summaries[1] = (smn_summary){1, 2, 30, 40, -5, 9, 3, 6};
    newer->summaries[1] = (smn_summary){31, 42, 0, 0, CHECK_NAN, CHECK_NAN, CHECK_NAN, 0};
    smn_window_merge(older, newer, 2);
    CHECK_INT(newer->head.end_wall_ns, 90);
    CHECK_U64(newer->head.length_ns, 17);
    CHECK_U64(newer->head.samples, 7);
    CHECK_U64(newer->head.missed, 6);
    CHECK_U64(newer->head.merged, 4);
    CHECK_U64(newer->head.first_row, 50);
    CHECK_U64(newer->head.partial, 1);
    for (int i = 0; i < 2; i++) {
        const smn_summary *sum = &newer->summaries[i];
        CHECK_DOUBLE(sum->first_numerator, 1);
        CHECK_DOUBLE(sum->first_denominator, 2);
        CHECK_DOUBLE(sum->numerator, i == 0 ? 35 : 30);
        CHECK_DOUBLE(sum->denominator, i == 0 ? 46 : 40);
        CHECK_DOUBLE(sum->min, -5);
        CHECK_DOUBLE(sum->max, 9);
        CHECK_DOUBLE(sum->last, i == 0 ? 7 : 3);
        CHECK_U64(sum->values, i == 0 ? 8 : 6);
    }
    /* Nothing before, something after. */
    older->summaries[0] = (smn_summary){NAN, NAN, 0, 0, NAN, NAN, NAN, 0};
    newer->summaries[0] = (smn_summary){31, 42, 5, 6, -4, 8, 7, 2};
    smn_window_merge(older, newer, 1);
    CHECK_ABSENT(newer->summaries[0].first_numerator);
    CHECK_DOUBLE(newer->summaries[0].min, -4);
    CHECK_DOUBLE(newer->summaries[0].max, 8);
    CHECK_DOUBLE(newer->summaries[0].last, 7);
    free(older);
    free(newer);
}

/* ---- percentiles -------------------------------------------------------- */

static void test_known_percentiles(void)
{
    static const struct {
        size_t count;
        double readings[6];
        double p50;
        double p95;
        double p99;
    } cases[] = {
        {1, {7}, 7, 7, 7},
        {2, {3, 1}, 2, 2.9, 2.98},
        {4, {4, 1, 3, 2}, 2.5, 3.85, 3.97},
        {5, {5, 5, 5, 5, 5}, 5, 5, 5},
        {6, {-1, 100, -1, 0, CHECK_NAN, 50}, 0, 90, 98}, /* of -1 -1 0 50 100 */
        {3, {CHECK_NAN, CHECK_NAN, CHECK_NAN}, CHECK_NAN, CHECK_NAN, CHECK_NAN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("case %zu", i);
        workbench bench;
        bench_open(&bench, RING_ROWS);
        sampled_row row = {.time = {0, 1000000, 0}};
        start(&bench, &row);
        for (size_t r = 0; r < cases[i].count; r++) {
            row.time.tick++;
            row.time.monotonic_ns += 1000000;
            row.columns[GAUGE_COLUMN] = cases[i].readings[r] / specs[GAUGE].scale;
            add(&bench, &row);
        }
        CHECK_INT(close_window(&bench, &row, false), 0);
        CHECK_NEAR(bench.statistics[GAUGE].p50, cases[i].p50, 1e-12);
        CHECK_NEAR(bench.statistics[GAUGE].p95, cases[i].p95, 1e-12);
        CHECK_NEAR(bench.statistics[GAUGE].p99, cases[i].p99, 1e-12);
        bench_close(&bench);
    }
    check_case(NULL);
}

/* Rows that the ring no longer has: no percentiles, and those that were there stay. */
static void test_percentiles_of_old_rows(void)
{
    enum {
        CAPACITY = 16
    };
    /* A window of `length` rows is asked for when `later` more have come. */
    for (uint64_t length = 1; length < 24; length++) {
        for (uint64_t later = 0; later < 24; later++) {
            check_case("%d rows, then %d", (int)length, (int)later);
            workbench bench;
            bench_open(&bench, CAPACITY);
            sampled_row row = {.time = {0, 1000000, 0}, .columns = {2, 2, 2, 2, 2}};
            start(&bench, &row);
            for (uint64_t i = 0; i < length; i++) {
                row.time.tick++;
                row.time.monotonic_ns += 1000000;
                add(&bench, &row);
            }
            smn_open_window_close(&bench.window, &row.time, false, bench.record);
            for (uint64_t i = 0; i < later; i++)
                smn_row_ring_append(&bench.ring, &row.time, row.columns);
            smn_window_statistics(&bench.schema, bench.record, bench.statistics);
            CHECK_ABSENT(bench.statistics[GAUGE].p95);
            bench.statistics[GAUGE].p95 = 4711.0;
            int error = smn_window_percentiles(&bench.schema, bench.record, &bench.ring,
                                               bench.statistics);
            /* The oldest row that can be read is the last but CAPACITY - 2. */
            bool is_there = length + later < CAPACITY;
            CHECK_INT(error, is_there ? 0 : -ESTALE);
            CHECK_DOUBLE(bench.statistics[GAUGE].p95, is_there ? 1.0 : 4711.0);
            CHECK_DOUBLE(bench.statistics[GAUGE].mean, 1.0);
            bench_close(&bench);
        }
    }
    check_case(NULL);
}

int main(void)
{
    test_random_rows();
    test_spans();
    test_windows_of_one_tick();
    test_first_reading_comes_late();
    test_rates();
    test_reading_between_ticks();
    test_windows_tile();
    test_merged_windows();
    test_merging_by_hand();
    test_known_percentiles();
    test_percentiles_of_old_rows();
    return check_report();
}

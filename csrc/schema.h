/*
 * What a row holds and which series are made from it.
 *
 * A column is one double of the row: a reading, or a counter that is kept as a
 * counter. A series is what users see: a key with a unit, made from one column
 * (gauge, total, rate) or from two (ratio).
 */
#ifndef SMN_SCHEMA_H
#define SMN_SCHEMA_H

#include <stddef.h>

#include "sysmetrics.h"

typedef struct {
    const char *key; /* of one of several devices or paths: with {i}, {j} or {_path} in it */
    const char *unit;
    int kind;        /* SMN_GAUGE … SMN_RATIO */
    int numerator;   /* column that is read, or whose increase is taken */
    int denominator; /* SMN_RATIO: the column to divide by; else unused */
    double scale;    /* from the column's unit to the series' */
    /*
     * Smallest increase of the denominator that gives a meaningful ratio. The
     * kernel counts CPU time in ticks of 10 ms: between two readings 1 ms apart
     * a CPU is either 0 % or 100 % busy, which says nothing.
     */
    double quantum;
    /* For docs/metrics.md: what the value tells, which file or call it is made from, and how. */
    const char *meaning;
    const char *reads;
    const char *formula;
} smn_series_spec;

typedef struct {
    /* Its key and unit belong to the schema, its columns count within the row. */
    smn_series_spec spec;
    const char *source;
} smn_series;

typedef struct {
    smn_series *series;
    int series_count;
    int columns;
    int open_column;         /* first column of the source being opened */
    const char *open_source; /* its name */
} smn_schema;

/* From here on, columns and series belong to `source`. */
void smn_schema_begin_source(smn_schema *schema, const char *source);

/* Gives the open source `count` columns. */
void smn_schema_add_columns(smn_schema *schema, int count);

/* Adds a copy of spec, whose columns count from the source's first. -ENOMEM. */
int smn_schema_add_series(smn_schema *schema, const smn_series_spec *spec);

/* The same for device i, or j of device i: the numbers take the places of {i} and {j}. */
int smn_schema_add_numbered(smn_schema *schema, const smn_series_spec *spec, int i, int j);

/* The first for a list. */
int smn_schema_add_all(smn_schema *schema, const smn_series_spec *specs, size_t count);

/*
 * Those of the list whose numerator has a value in `columns`, the first reading
 * of the open source: what a machine does not have at all is unknown, not
 * absent at each reading. -ENODATA when that leaves none.
 */
int smn_schema_add_present(smn_schema *schema, const smn_series_spec *specs, size_t count,
                           const double *columns);

void smn_schema_release(smn_schema *schema);

#endif

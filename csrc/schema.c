#include "schema.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void smn_schema_begin_source(smn_schema *schema, const char *source)
{
    schema->open_column = schema->columns;
    schema->open_source = source;
}

void smn_schema_add_columns(smn_schema *schema, int count)
{
    schema->columns += count;
}

int smn_schema_add_series(smn_schema *schema, const smn_series_spec *spec)
{
    size_t count = (size_t)schema->series_count;
    smn_series *grown = realloc(schema->series, (count + 1) * sizeof *grown);
    if (grown == NULL)
        return -ENOMEM;
    schema->series = grown;

    char *key = strdup(spec->key);
    char *unit = strdup(spec->unit);
    if (key == NULL || unit == NULL) {
        free(key);
        free(unit);
        return -ENOMEM;
    }
    smn_series *series = &grown[count];
    *series = (smn_series){.spec = *spec, .source = schema->open_source};
    series->spec.key = key;
    series->spec.unit = unit;
    series->spec.numerator += schema->open_column;
    series->spec.denominator += schema->open_column;
    schema->series_count++;
    return 0;
}

int smn_schema_add_all(smn_schema *schema, const smn_series_spec *specs, size_t count)
{
    int error = 0;
    for (size_t i = 0; i < count && error == 0; i++)
        error = smn_schema_add_series(schema, &specs[i]);
    return error;
}

int smn_schema_add_present(smn_schema *schema, const smn_series_spec *specs, size_t count,
                           const double *columns)
{
    int before = schema->series_count;
    int error = 0;
    for (size_t i = 0; i < count && error == 0; i++) {
        if (!isnan(columns[specs[i].numerator]))
            error = smn_schema_add_series(schema, &specs[i]);
    }
    return error == 0 && schema->series_count == before ? -ENODATA : error;
}

void smn_schema_release(smn_schema *schema)
{
    for (int i = 0; i < schema->series_count; i++) {
        free((char *)schema->series[i].spec.key);
        free((char *)schema->series[i].spec.unit);
    }
    free(schema->series);
    *schema = (smn_schema){0};
}

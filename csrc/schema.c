#include "schema.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
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

enum {
    KEY_BYTES = 128 /* more than any key of a device */
};

/* Appends text of `length` bytes; what has no place is cut. */
static void append(char key[KEY_BYTES], const char *text, size_t length)
{
    size_t used = strlen(key);
    snprintf(key + used, KEY_BYTES - used, "%.*s", (int)length, text);
}

static void put_numbers(char key[KEY_BYTES], const char *pattern, int i, int j)
{
    *key = '\0';
    while (*pattern != '\0') {
        size_t length = strcspn(pattern, "{");
        append(key, pattern, length);
        pattern += length;
        bool is_first = strncmp(pattern, "{i}", 3) == 0;
        if (is_first || strncmp(pattern, "{j}", 3) == 0) {
            char number[16];
            snprintf(number, sizeof number, "%d", is_first ? i : j);
            append(key, number, strlen(number));
            pattern += 3;
        } else if (*pattern != '\0') {
            append(key, pattern++, 1);
        }
    }
}

int smn_schema_add_numbered(smn_schema *schema, const smn_series_spec *spec, int i, int j)
{
    char key[KEY_BYTES];
    put_numbers(key, spec->key, i, j);
    smn_series_spec numbered = *spec;
    numbered.key = key;
    return smn_schema_add_series(schema, &numbered);
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

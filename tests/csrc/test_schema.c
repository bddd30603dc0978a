/* Series and columns of schema.h, and the table of sources. */
#include "schema.h"

#include <errno.h>
#include <string.h>

#include "check.h"
#include "source.h"

static void test_sources_count_from_their_own_column(void)
{
    static const smn_series_spec one[] = {
        {"a", "percentage", SMN_RATIO, 0, 1, 100.0, 10.0},
        {"b", "megabytes", SMN_GAUGE, 2, 0, 1e-6, 0.0},
    };
    static const smn_series_spec two[] = {
        {"c", "megabytes", SMN_TOTAL, 1, 0, 1e-6, 0.0},
        {"d", "watts", SMN_RATE, 0, 0, 0.1, 0.0},
    };
    smn_schema schema = {0};
    smn_schema_begin_source(&schema, "first");
    smn_schema_add_columns(&schema, 3);
    CHECK_INT(smn_schema_add_all(&schema, one, 2), 0);
    smn_schema_begin_source(&schema, "empty");
    smn_schema_begin_source(&schema, "second");
    smn_schema_add_columns(&schema, 1);
    smn_schema_add_columns(&schema, 1);
    CHECK_INT(smn_schema_add_all(&schema, two, 2), 0);

    CHECK_INT(schema.columns, 5);
    if (CHECK_INT(schema.series_count, 4)) {
        CHECK_INT(schema.series[0].spec.numerator, 0);
        CHECK_INT(schema.series[0].spec.denominator, 1);
        CHECK_INT(schema.series[1].spec.numerator, 2);
        CHECK_INT(schema.series[2].spec.numerator, 4);
        CHECK_INT(schema.series[3].spec.numerator, 3);
        CHECK_TEXT(schema.series[1].source, "first");
        CHECK_TEXT(schema.series[2].source, "second");
        CHECK(schema.series[0].spec.key != one[0].key); /* a copy: the caller may free its own */
        CHECK_TEXT(schema.series[0].spec.key, "a");
        CHECK_TEXT(schema.series[3].spec.unit, "watts");
        CHECK_DOUBLE(schema.series[0].spec.quantum, 10.0);
    }
    smn_schema_release(&schema);
    CHECK_INT(schema.series_count, 0);
    smn_schema_release(&schema);
}

static void test_only_what_is_present(void)
{
    static const smn_series_spec specs[] = {
        {"a", "percentage", SMN_RATIO, 0, 2, 100.0, 10.0},
        {"b", "megabytes", SMN_GAUGE, 1, 0, 1e-6, 0.0},
        {"c", "watts", SMN_RATE, 2, 0, 0.1, 0.0},
    };
    const double some[] = {CHECK_NAN, 0.0, 7.0};
    const double none[] = {CHECK_NAN, CHECK_NAN, CHECK_NAN};
    smn_schema schema = {0};
    smn_schema_begin_source(&schema, "first");
    smn_schema_add_columns(&schema, 3);
    CHECK_INT(smn_schema_add_present(&schema, specs, 3, some), 0);
    smn_schema_begin_source(&schema, "second");
    smn_schema_add_columns(&schema, 3);
    CHECK_INT(smn_schema_add_present(&schema, specs, 3, none), -ENODATA);
    if (CHECK_INT(schema.series_count, 2)) {
        CHECK_TEXT(schema.series[0].spec.key, "b"); /* 0 is a value */
        CHECK_INT(schema.series[0].spec.numerator, 1);
        CHECK_TEXT(schema.series[1].spec.key, "c");
        CHECK_INT(schema.series[1].spec.numerator, 2);
    }
    smn_schema_release(&schema);
}

static void test_table_of_sources(void)
{
    static const char *const names[] = {"cpu", "memory", "disk_space", "network"};
    int count = 0;
    while (smn_sources[count] != NULL)
        count++;
    CHECK_INT(smn_source_count(), count);
    for (int i = 0; i < count; i++) {
        CHECK_TEXT(smn_source_name(i), smn_sources[i]->name);
        CHECK_INT(smn_source_is_default(i), smn_sources[i]->by_default);
        CHECK(smn_sources[i]->open != NULL && smn_sources[i]->sample != NULL &&
              smn_sources[i]->close != NULL);
        for (int other = 0; other < i; other++)
            CHECK(strcmp(smn_sources[i]->name, smn_sources[other]->name) != 0);
    }
    CHECK(smn_source_name(-1) == NULL);
    CHECK(smn_source_name(count) == NULL);
    CHECK_INT(smn_source_is_default(-1), 0);
    CHECK_INT(smn_source_is_default(count), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        check_case("%s", names[i]);
        bool found = false;
        for (int s = 0; s < count; s++)
            found = found ||
                    (strcmp(names[i], smn_source_name(s)) == 0 && smn_source_is_default(s));
        CHECK(found);
    }
    check_case(NULL);
}

int main(void)
{
    test_sources_count_from_their_own_column();
    test_only_what_is_present();
    test_table_of_sources();
    return check_report();
}

/* Series and columns of schema.h, and the table of sources. */
#include "schema.h"

#include <errno.h>
#include <string.h>

#include "check.h"
#include "source.h"

static void test_sources_count_from_their_own_column(void)
{
    static const smn_series_spec one[] = {
        {"a", "percentage", SMN_RATIO, 0, 1, 100.0, 10.0, "", "", ""},
        {"b", "megabytes", SMN_GAUGE, 2, 0, 1e-6, 0.0, "", "", ""},
    };
    static const smn_series_spec two[] = {
        {"c", "megabytes", SMN_TOTAL, 1, 0, 1e-6, 0.0, "", "", ""},
        {"d", "watts", SMN_RATE, 0, 0, 0.1, 0.0, "", "", ""},
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
        {"a", "percentage", SMN_RATIO, 0, 2, 100.0, 10.0, "", "", ""},
        {"b", "megabytes", SMN_GAUGE, 1, 0, 1e-6, 0.0, "", "", ""},
        {"c", "watts", SMN_RATE, 2, 0, 0.1, 0.0, "", "", ""},
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

static void test_numbers_take_the_places_of_letters(void)
{
    static const struct {
        const char *pattern;
        int i;
        int j;
        const char *key;
    } cases[] = {
        {"plain", 1, 2, "plain"},
        {"", 1, 2, ""},
        {"gpu_{i}_watts", 12, 0, "gpu_12_watts"},
        {"gpu_{i}_mig_{j}_megabytes", 0, 7, "gpu_0_mig_7_megabytes"},
        {"{j}{i}", 1, 2, "21"},
        {"{i", 1, 2, "{i"},
        {"{k}{", 1, 2, "{k}{"},
    };
    smn_schema schema = {0};
    smn_schema_begin_source(&schema, "first");
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        check_case("%s", cases[c].pattern);
        smn_series_spec spec = {.key = cases[c].pattern, .unit = "watts", .numerator = (int)c};
        REQUIRE(smn_schema_add_numbered(&schema, &spec, cases[c].i, cases[c].j) == 0);
        CHECK_TEXT(schema.series[c].spec.key, cases[c].key);
        CHECK_INT(schema.series[c].spec.numerator, (int)c);
    }
    check_case(NULL);
    smn_schema_release(&schema);
}

static bool is_text(const char *text)
{
    return text != NULL && *text != '\0' && strchr(text, '\n') == NULL;
}

/* What docs/metrics.md is made of: no source without series, no series without words. */
static void test_series_of_sources(void)
{
    for (int s = 0; s < smn_source_count(); s++) {
        smn_known_series known;
        check_case("%s", smn_source_name(s));
        CHECK(smn_sources[s]->series_count > 0);
        CHECK_U64(smn_source_min_interval_ns(s), smn_sources[s]->min_interval_ns);
        CHECK_INT(smn_source_series(s, -1, &known), -EINVAL);
        CHECK_INT(smn_source_series(s, smn_sources[s]->series_count, &known), -EINVAL);
        for (int i = 0; i < smn_sources[s]->series_count; i++) {
            const smn_series_spec *spec = &smn_sources[s]->series[i];
            REQUIRE(smn_source_series(s, i, &known) == 0);
            check_case("%s of %s", known.key, smn_source_name(s));
            CHECK_TEXT(known.key, spec->key);
            CHECK_TEXT(known.unit, spec->unit);
            CHECK_INT(known.kind, spec->kind);
            CHECK(is_text(known.key) && is_text(known.unit));
            CHECK(is_text(known.meaning) && is_text(known.reads) && is_text(known.formula));
        }
    }
    smn_known_series known;
    check_case(NULL);
    CHECK_INT(smn_source_series(-1, 0, &known), -EINVAL);
    CHECK_INT(smn_source_series(smn_source_count(), 0, &known), -EINVAL);
    CHECK_U64(smn_source_min_interval_ns(-1), 0);
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
    test_numbers_take_the_places_of_letters();
    test_table_of_sources();
    test_series_of_sources();
    return check_report();
}

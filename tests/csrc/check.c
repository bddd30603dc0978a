#include "check.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_PRINTED = 50 /* failures; a broken loop must not drown the first one */
};

static _Atomic uint64_t checks;
static _Atomic uint64_t failures;
static _Thread_local char current_case[200];

__attribute__((format(printf, 4, 5))) static void
fail(const char *file, int line, const char *expression, const char *format, ...)
{
    uint64_t before = atomic_fetch_add(&failures, 1);
    if (before == MOST_PRINTED)
        fprintf(stderr, "(and more)\n");
    if (before >= MOST_PRINTED)
        return;
    char detail[512];
    va_list values;
    va_start(values, format);
    vsnprintf(detail, sizeof detail, format, values);
    va_end(values);
    fprintf(stderr, "%s:%d: %s: %s%s%s\n", file, line, expression, detail,
            *current_case != '\0' ? "; case: " : "", current_case);
}

static bool count(bool holds)
{
    atomic_fetch_add(&checks, 1);
    return holds;
}

bool check_true(const char *file, int line, const char *expression, bool holds)
{
    if (!count(holds))
        fail(file, line, expression, "is false");
    return holds;
}

bool check_int(const char *file, int line, const char *expression, int64_t actual, int64_t expected)
{
    bool holds = count(actual == expected);
    if (!holds)
        fail(file, line, expression, "is %" PRId64 ", not %" PRId64, actual, expected);
    return holds;
}

bool check_u64(const char *file, int line, const char *expression, uint64_t actual,
               uint64_t expected)
{
    bool holds = count(actual == expected);
    if (!holds)
        fail(file, line, expression, "is %" PRIu64 ", not %" PRIu64, actual, expected);
    return holds;
}

bool check_near(const char *file, int line, const char *expression, double actual, double expected,
                double tolerance)
{
    bool holds = isnan(expected) ? isnan(actual)
                                 : actual >= expected - tolerance && actual <= expected + tolerance;
    if (!count(holds))
        fail(file, line, expression, "is %.17g, not %.17g (within %g)", actual, expected,
             tolerance);
    return holds;
}

bool check_text(const char *file, int line, const char *expression, const char *actual,
                const char *expected)
{
    bool holds = count(actual != NULL && strcmp(actual, expected) == 0);
    if (!holds)
        fail(file, line, expression, "is \"%s\", not \"%s\"", actual != NULL ? actual : "(NULL)",
             expected);
    return holds;
}

bool check_contains(const char *file, int line, const char *expression, const char *actual,
                    const char *part)
{
    bool holds = count(actual != NULL && strstr(actual, part) != NULL);
    if (!holds)
        fail(file, line, expression, "is \"%s\", without \"%s\"",
             actual != NULL ? actual : "(NULL)", part);
    return holds;
}

void check_give_up(const char *file, int line, const char *expression)
{
    fprintf(stderr, "%s:%d: cannot go on without %s (%s)\n", file, line, expression,
            strerror(errno));
    exit(EXIT_FAILURE);
}

void check_case(const char *format, ...)
{
    *current_case = '\0';
    if (format == NULL)
        return;
    va_list values;
    va_start(values, format);
    vsnprintf(current_case, sizeof current_case, format, values);
    va_end(values);
}

int check_report(void)
{
    uint64_t failed = atomic_load(&failures);
    printf("%" PRIu64 " checks, %" PRIu64 " failed\n", atomic_load(&checks), failed);
    return failed == 0 && atomic_load(&checks) > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

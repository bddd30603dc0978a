/*
 * Assertions of the C tests: functions, so that NDEBUG takes none of them away.
 * A failure is printed and counted, and the test goes on; any thread may check.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stdint.h>

#define CHECK(condition) check_true(__FILE__, __LINE__, #condition, (condition))
#define CHECK_INT(actual, expected)                                                                \
    check_int(__FILE__, __LINE__, #actual, (int64_t)(actual), (int64_t)(expected))
#define CHECK_U64(actual, expected)                                                                \
    check_u64(__FILE__, __LINE__, #actual, (uint64_t)(actual), (uint64_t)(expected))
/* The very same number, or both absent (NaN). */
#define CHECK_DOUBLE(actual, expected)                                                             \
    check_near(__FILE__, __LINE__, #actual, (actual), (expected), 0.0)
#define CHECK_NEAR(actual, expected, tolerance)                                                    \
    check_near(__FILE__, __LINE__, #actual, (actual), (expected), (tolerance))
#define CHECK_ABSENT(actual) check_near(__FILE__, __LINE__, #actual, (actual), CHECK_NAN, 0.0)
#define CHECK_TEXT(actual, expected) check_text(__FILE__, __LINE__, #actual, (actual), (expected))
#define CHECK_CONTAINS(actual, part) check_contains(__FILE__, __LINE__, #actual, (actual), (part))

#define CHECK_NAN __builtin_nan("")

/* For what a test stands on but does not test: says what is missing and ends the program. */
#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            check_give_up(__FILE__, __LINE__, #condition);                                         \
    } while (0)

/* All return whether the check holds. */
bool check_true(const char *file, int line, const char *expression, bool holds);
bool check_int(const char *file, int line, const char *expression, int64_t actual,
               int64_t expected);
bool check_u64(const char *file, int line, const char *expression, uint64_t actual,
               uint64_t expected);
bool check_near(const char *file, int line, const char *expression, double actual, double expected,
                double tolerance);
bool check_text(const char *file, int line, const char *expression, const char *actual,
                const char *expected);
bool check_contains(const char *file, int line, const char *expression, const char *actual,
                    const char *part);

_Noreturn void check_give_up(const char *file, int line, const char *expression);

/* Says which case of a table or loop this thread is at; printed with every failure. NULL: none. */
void check_case(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints the sum of it all; returns what main shall return. */
int check_report(void);

#endif

/* Scanners of scan.h: numbers, keys and lines in bytes that may end anywhere. */
#include "scan.h"

#include <stdlib.h>

#include "check.h"

/* Puts the bytes in a block of exactly their size, so that ASan sees a step beyond. */
static char *exact_copy(const char *text, size_t length)
{
    char *copy = malloc(length > 0 ? length : 1);
    REQUIRE(copy != NULL);
    memcpy(copy, text, length);
    return copy;
}

static void test_numbers(void)
{
    static const struct {
        const char *text;
        int error;
        uint64_t value;
        size_t taken; /* bytes that the cursor moved */
    } cases[] = {
        {"0\n", 0, 0, 1},
        {"7 ", 0, 7, 1},
        {"42\t", 0, 42, 2},
        {"  \t 42 17", 0, 42, 6},
        {"007 ", 0, 7, 3},
        {"4294967296\n", 0, UINT64_C(1) << 32, 10},
        {"18446744073709551615\n", 0, UINT64_MAX, 20},
        {"0018446744073709551615\n", 0, UINT64_MAX, 22},
        {"18446744073709551616\n", -EBADMSG, 0, 0},
        {"18446744073709551620\n", -EBADMSG, 0, 0},
        {"99999999999999999999\n", -EBADMSG, 0, 0},
        {"184467440737095516150\n", -EBADMSG, 0, 0},
        {"340282366920938463463374607431768211456\n", -EBADMSG, 0, 0},
        {"", -EBADMSG, 0, 0},
        {" ", -EBADMSG, 0, 0},
        {" \t  ", -EBADMSG, 0, 0},
        {"\n", -EBADMSG, 0, 0},
        {"\n5\n", -EBADMSG, 0, 0}, /* a number of the next line is none of this one */
        {"5", -EBADMSG, 0, 0},     /* perhaps 50 */
        {"  123", -EBADMSG, 0, 0},
        {"-1\n", -EBADMSG, 0, 0},
        {"+1\n", -EBADMSG, 0, 0},
        {"12kB\n", -EBADMSG, 0, 0},
        {"1.5\n", -EBADMSG, 0, 0},
        {"1e3\n", -EBADMSG, 0, 0},
        {"0x10\n", -EBADMSG, 0, 0},
        {"1,000\n", -EBADMSG, 0, 0},
        {"12\r\n", -EBADMSG, 0, 0},
        {"12\v", -EBADMSG, 0, 0},
        {"kB\n", -EBADMSG, 0, 0},
        {"\xff\n", -EBADMSG, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].text);
        size_t length = strlen(cases[i].text);
        char *bytes = exact_copy(cases[i].text, length);
        smn_cursor cursor = smn_scan_bytes(bytes, length);
        uint64_t value = 4711;
        CHECK_INT(smn_scan_u64(&cursor, &value), cases[i].error);
        CHECK_U64(value, cases[i].error == 0 ? cases[i].value : 4711);
        CHECK_INT(cursor.at - bytes, cases[i].taken);
        free(bytes);
    }
    check_case(NULL);

    smn_cursor zero = smn_scan_bytes("1\0002\n", 4);
    uint64_t value;
    CHECK_INT(smn_scan_u64(&zero, &value), -EBADMSG);
}

static void test_number_cut_anywhere(void)
{
    static const char text[] = " 18446744073709551615\n";
    size_t whole = sizeof text - 1;
    for (size_t length = 0; length <= whole; length++) {
        check_case("%zu bytes", length);
        char *bytes = exact_copy(text, length);
        smn_cursor cursor = smn_scan_bytes(bytes, length);
        uint64_t value = 0;
        CHECK_INT(smn_scan_u64(&cursor, &value), length == whole ? 0 : -EBADMSG);
        CHECK_U64(value, length == whole ? UINT64_MAX : 0);
        free(bytes);
    }
    check_case(NULL);
}

static void test_decimals(void)
{
    static const struct {
        const char *text;
        int error;
        double value;
        size_t taken;
    } cases[] = {
        {"1.26 0.50", 0, 1.26, 4},
        {"\t0.00\n", 0, 0.0, 5},
        {"2600.000\n", 0, 2600.0, 8},
        {"42\n", 0, 42.0, 2},
        {"0.123456789 ", 0, 0.123456789, 11},
        {"123456.123456789\n", 0, 123456.123456789, 16},
        {"0.1234567890 ", -EBADMSG, 0, 0},
        {"123456789012345 ", 0, 123456789012345.0, 15},
        {"1234567890123456 ", -EBADMSG, 0, 0},
        {"1.26", -EBADMSG, 0, 0},
        {"1.2", -EBADMSG, 0, 0},
        {"1.", -EBADMSG, 0, 0},
        {"1. ", -EBADMSG, 0, 0},
        {"1", -EBADMSG, 0, 0},
        {".5\n", -EBADMSG, 0, 0},
        {".\n", -EBADMSG, 0, 0},
        {"1.2.3\n", -EBADMSG, 0, 0},
        {"-1.0\n", -EBADMSG, 0, 0},
        {"1e3\n", -EBADMSG, 0, 0},
        {"1,5\n", -EBADMSG, 0, 0},
        {"nan\n", -EBADMSG, 0, 0},
        {"", -EBADMSG, 0, 0},
        {"\n1.0\n", -EBADMSG, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].text);
        size_t length = strlen(cases[i].text);
        char *bytes = exact_copy(cases[i].text, length);
        smn_cursor cursor = smn_scan_bytes(bytes, length);
        double value = 4711.0;
        CHECK_INT(smn_scan_decimal(&cursor, &value), cases[i].error);
        CHECK_DOUBLE(value, cases[i].error == 0 ? cases[i].value : 4711.0);
        CHECK_INT(cursor.at - bytes, cases[i].taken);
        free(bytes);
    }
    check_case(NULL);
}

static void test_skipping(void)
{
    static const char text[] = "1 22  333\t4444\n5";
    smn_cursor cursor = smn_scan_bytes(text, sizeof text - 1);
    CHECK_INT(smn_scan_skip_numbers(&cursor, 0), 0);
    CHECK_INT(cursor.at - text, 0);
    CHECK_INT(smn_scan_skip_numbers(&cursor, 3), 0);
    uint64_t value = 0;
    CHECK_INT(smn_scan_u64(&cursor, &value), 0);
    CHECK_U64(value, 4444);
    CHECK_INT(smn_scan_skip_numbers(&cursor, 1), -EBADMSG);

    cursor = smn_scan_bytes(text, sizeof text - 1);
    CHECK_INT(smn_scan_skip_numbers(&cursor, 5), -EBADMSG);
}

static void test_keys(void)
{
    static const struct {
        const char *text;
        const char *key;
        bool matches;
    } cases[] = {
        {"Cached:  12 kB\n", "Cached:", true},
        {"SwapCached:  12 kB\n", "Cached:", false},
        {"Cached", "Cached:", false},
        {"CachedMore: 1", "Cached:", false},
        {"cached:", "Cached:", false},
        {" Cached:", "Cached:", false},
        {"", "Cached:", false},
        {"cpu0 1", "cpu ", false},
        {"cpu  1", "cpu ", true},
        {"cpu ", "cpu ", true},
        {"anything", "", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s in \"%s\"", cases[i].key, cases[i].text);
        size_t length = strlen(cases[i].text);
        char *bytes = exact_copy(cases[i].text, length);
        smn_cursor cursor = smn_scan_bytes(bytes, length);
        CHECK(smn_scan_key(&cursor, cases[i].key) == cases[i].matches);
        CHECK_INT(cursor.at - bytes, cases[i].matches ? strlen(cases[i].key) : 0);
        free(bytes);
    }
    check_case(NULL);
}

static void test_lines(void)
{
    static const char text[] = "first 1\n\nthird 3\nno newline 4";
    smn_cursor cursor = smn_scan_bytes(text, sizeof text - 1);
    smn_cursor line;
    uint64_t value = 0;

    CHECK(smn_scan_line(&cursor, &line));
    CHECK(smn_scan_key(&line, "first"));
    CHECK_INT(smn_scan_u64(&line, &value), 0); /* the newline ends the number */
    CHECK_U64(value, 1);
    CHECK_INT(smn_scan_u64(&line, &value), -EBADMSG); /* and nothing runs on into the next line */

    CHECK(smn_scan_line(&cursor, &line));
    CHECK_INT(line.end - line.at, 1);
    CHECK_INT(smn_scan_u64(&line, &value), -EBADMSG);

    CHECK(smn_scan_line(&cursor, &line));
    CHECK(smn_scan_key(&line, "third"));

    const char *rest = cursor.at;
    CHECK(!smn_scan_line(&cursor, &line));
    CHECK(cursor.at == rest); /* what is not a whole line stays, to be seen */
    CHECK(smn_scan_key(&cursor, "no newline"));

    smn_cursor empty = smn_scan_bytes(text, 0);
    CHECK(!smn_scan_line(&empty, &line));
    smn_cursor newline = smn_scan_bytes("\n", 1);
    CHECK(smn_scan_line(&newline, &line));
    CHECK(!smn_scan_line(&newline, &line));
    smn_cursor nothing = smn_scan_bytes(NULL, 0);
    CHECK(!smn_scan_line(&nothing, &line));
}

static void test_blanks(void)
{
    static const char text[] = " \t \t\n x";
    smn_cursor cursor = smn_scan_bytes(text, sizeof text - 1);
    smn_scan_spaces(&cursor);
    CHECK_INT(cursor.at - text, 4);
    smn_scan_spaces(&cursor);
    CHECK_INT(cursor.at - text, 4);
    smn_cursor blanks = smn_scan_bytes("   ", 3);
    smn_scan_spaces(&blanks);
    CHECK(blanks.at == blanks.end);
}

int main(void)
{
    test_numbers();
    test_number_cut_anywhere();
    test_decimals();
    test_skipping();
    test_keys();
    test_lines();
    test_blanks();
    return check_report();
}

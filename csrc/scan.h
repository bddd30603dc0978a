/*
 * Scanners over the text of kernel files. They do no I/O: a cursor over bytes
 * in, a value out, so they run on a string in a test and in a fuzzer.
 *
 * A number that touches the end of the bytes may have been cut there, so it is
 * refused like any other malformed one: -EBADMSG, and the cursor stays.
 */
#ifndef SMN_SCAN_H
#define SMN_SCAN_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const char *at;
    const char *end;
} smn_cursor;

static inline smn_cursor smn_scan_bytes(const char *bytes, size_t length)
{
    return (smn_cursor){bytes, bytes + length};
}

static inline void smn_scan_spaces(smn_cursor *cursor)
{
    while (cursor->at < cursor->end && (*cursor->at == ' ' || *cursor->at == '\t'))
        cursor->at++;
}

/* Skips blanks, then takes one unsigned decimal number that a blank or the end of line follows. */
static inline int smn_scan_u64(smn_cursor *cursor, uint64_t *value)
{
    smn_cursor scan = *cursor;
    smn_scan_spaces(&scan);
    const char *digits = scan.at;
    uint64_t number = 0;
    for (; scan.at < scan.end && *scan.at >= '0' && *scan.at <= '9'; scan.at++) {
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*scan.at - '0'), &number))
            return -EBADMSG;
    }
    if (scan.at == digits || scan.at == scan.end)
        return -EBADMSG;
    if (*scan.at != ' ' && *scan.at != '\t' && *scan.at != '\n')
        return -EBADMSG;
    *cursor = scan;
    *value = number;
    return 0;
}

/* The same for a number that may have a fraction of up to nine digits: "0.45". */
static inline int smn_scan_decimal(smn_cursor *cursor, double *value)
{
    static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9};
    enum {
        MOST_DIGITS = 15, /* of both parts: a double holds them exactly */
        MOST_PLACES = sizeof powers / sizeof *powers - 1
    };
    smn_cursor scan = *cursor;
    smn_scan_spaces(&scan);
    uint64_t number = 0;
    int digits = 0;
    int places = -1; /* behind the point; -1: before it */
    for (; scan.at < scan.end; scan.at++) {
        if (*scan.at == '.' && places < 0 && digits > 0) {
            places = 0;
            continue;
        }
        if (*scan.at < '0' || *scan.at > '9')
            break;
        number = number * 10 + (uint64_t)(*scan.at - '0');
        if (places >= 0)
            places++;
        if (++digits > MOST_DIGITS || places > MOST_PLACES)
            return -EBADMSG;
    }
    if (digits == 0 || places == 0 || scan.at == scan.end)
        return -EBADMSG;
    if (*scan.at != ' ' && *scan.at != '\t' && *scan.at != '\n')
        return -EBADMSG;
    *cursor = scan;
    *value = (double)number / powers[places > 0 ? places : 0];
    return 0;
}

/* Steps over count numbers that nobody wants. */
static inline int smn_scan_skip_numbers(smn_cursor *cursor, int count)
{
    uint64_t ignored;
    int error = 0;
    while (count-- > 0 && error == 0)
        error = smn_scan_u64(cursor, &ignored);
    return error;
}

/*
 * Takes key if the cursor stands right before it: "Cached:" does not match in "SwapCached:". Most
 * lines differ in the first character already: a loop, then, and no calls of strlen and memcmp.
 */
static inline bool smn_scan_key(smn_cursor *cursor, const char *key)
{
    const char *at = cursor->at;
    for (; *key != '\0'; key++, at++) {
        if (at == cursor->end || *at != *key)
            return false;
    }
    cursor->at = at;
    return true;
}

/* Splits off the next whole line, without its newline. A last line that has none is not whole. */
static inline bool smn_scan_line(smn_cursor *cursor, smn_cursor *line)
{
    size_t left = (size_t)(cursor->end - cursor->at);
    const char *newline = left > 0 ? memchr(cursor->at, '\n', left) : NULL;
    if (newline == NULL)
        return false;
    /* The newline stays visible behind the line: it ends the line's last number. */
    *line = (smn_cursor){cursor->at, newline + 1};
    cursor->at = newline + 1;
    return true;
}

#endif

/* Paths put together without stdio. */
#ifndef SMN_PATH_H
#define SMN_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SMN_PATH_NUMBER_BYTES = 24
};

/* Joins texts, of which NULL ends the list. False, and "", when they do not fit. */
bool smn_path_join(char *path, size_t size, const char *const texts[]);

#define SMN_PATH_JOIN(path, size, ...)                                                             \
    smn_path_join(path, size, (const char *const[]){__VA_ARGS__, NULL})

/* The number's digits, somewhere in `text`: what a process is called in /proc. */
const char *smn_path_number(char text[SMN_PATH_NUMBER_BYTES], uint64_t number);

#endif

#include "path.h"

#include <string.h>

bool smn_path_join(char *path, size_t size, const char *const texts[])
{
    size_t at = 0;
    for (; *texts != NULL; texts++) {
        size_t length = strlen(*texts);
        if (length >= size - at) {
            *path = '\0';
            return false;
        }
        memcpy(path + at, *texts, length);
        at += length;
    }
    path[at] = '\0';
    return true;
}

const char *smn_path_number(char text[SMN_PATH_NUMBER_BYTES], uint64_t number)
{
    char *at = text + SMN_PATH_NUMBER_BYTES - 1;
    *at = '\0';
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return at;
}

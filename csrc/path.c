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

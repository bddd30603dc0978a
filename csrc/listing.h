/* The names in a folder, without the memory that opendir(3) allocates. */
#ifndef SMN_LISTING_H
#define SMN_LISTING_H

#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int fd;
    size_t at;
    size_t length; /* of what the kernel gave last */
    alignas(uint64_t) char entries[2048];
} smn_listing;

/* A negative errno where there is no such folder; then there is nothing to close. */
int smn_listing_open(smn_listing *listing, int root, const char *path);

/* The next name, "." and ".." left out; good until the next call. NULL at the end. */
const char *smn_listing_next(smn_listing *listing);

void smn_listing_close(smn_listing *listing);

#endif

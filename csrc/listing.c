#include "listing.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* One entry of getdents64(2), which glibc has no declaration for before 2.30. */
typedef struct {
    uint64_t inode;
    int64_t offset;
    uint16_t bytes; /* of the whole entry */
    uint8_t type;
    char name[];
} directory_entry;

int smn_listing_open(smn_listing *listing, int root, const char *path)
{
    listing->at = 0;
    listing->length = 0;
    listing->fd = openat(root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return listing->fd >= 0 ? 0 : -errno;
}

const char *smn_listing_next(smn_listing *listing)
{
    for (;;) {
        if (listing->at == listing->length) {
            long got = syscall(SYS_getdents64, listing->fd, listing->entries,
                               sizeof listing->entries);
            if (got <= 0) /* the end; or the folder is gone, which is one, too */
                return NULL;
            listing->at = 0;
            listing->length = (size_t)got;
        }
        const directory_entry *entry = (const void *)(listing->entries + listing->at);
        listing->at += entry->bytes;
        if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0)
            return entry->name;
    }
}

void smn_listing_close(smn_listing *listing)
{
    close(listing->fd);
    listing->fd = -1;
}

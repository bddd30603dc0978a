#include "procfile.h"

#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#include "reserve.h"

/*
 * The largest kernel file that we read whole is far below this: /proc/net/dev
 * of 10,000 interfaces is 1.3 MB.
 */
enum {
    RESERVED_BYTES = 16 << 20
};

int smn_text_buffer_init(smn_text_buffer *buffer)
{
    buffer->data = smn_reserve(RESERVED_BYTES);
    buffer->reserved = buffer->data != NULL ? RESERVED_BYTES : 0;
    return buffer->data != NULL ? 0 : -ENOMEM;
}

void smn_text_buffer_release(smn_text_buffer *buffer)
{
    smn_unreserve(buffer->data, buffer->reserved);
    *buffer = (smn_text_buffer){0};
}

void smn_procfile_init(smn_procfile *file, int root, const char *path, smn_text_buffer *buffer)
{
    *file = (smn_procfile){.root = root, .path = path, .fd = -1, .buffer = buffer};
}

static int ensure_open(smn_procfile *file)
{
    if (file->fd >= 0)
        return 0;
    /* O_NONBLOCK: a FIFO put where the file should be must not hold the thread. */
    file->fd = openat(file->root, file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    return file->fd >= 0 ? 0 : -errno;
}

/* A file that fails is closed, so that the next reading finds what has come in its place. */
static int read_at_most(smn_procfile *file, size_t limit, bool to_end)
{
    file->length = 0;
    int error = ensure_open(file);
    while (error == 0 && file->length < limit) {
        ssize_t got = pread(file->fd, file->buffer->data + file->length, limit - file->length,
                            (off_t)file->length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            error = -errno;
        if (got <= 0)
            break;
        file->length += (size_t)got;
        if (!to_end) /* a short reading is not the end of file, but it is enough here */
            break;
    }
    if (error != 0) {
        file->length = 0;
        if (file->fd >= 0)
            close(file->fd);
        file->fd = -1;
    }
    return error;
}

int smn_procfile_read(smn_procfile *file)
{
    int error = read_at_most(file, file->buffer->reserved, true);
    if (error == 0 && file->length == file->buffer->reserved) {
        file->length = 0;
        error = -EFBIG;
    }
    return error;
}

int smn_procfile_read_start(smn_procfile *file, size_t bytes)
{
    return read_at_most(file, bytes < file->buffer->reserved ? bytes : file->buffer->reserved,
                        false);
}

smn_cursor smn_procfile_text(const smn_procfile *file)
{
    return smn_scan_bytes(file->buffer->data, file->length);
}

void smn_procfile_release(smn_procfile *file)
{
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
    file->length = 0;
}

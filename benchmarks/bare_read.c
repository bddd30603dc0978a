/*
 * bare_read RATE SECONDS READ...
 *
 * The floor under one reading of one source: at every wake-up the same system
 * calls, and nothing is made of what they give. They are timed as the native
 * thread times its sources. Prints the summed CPU time in nanoseconds and the
 * number of wake-ups that it is of.
 *
 * A READ is KIND,BYTES,SECONDS,PATH. SECONDS is how far apart they are at least;
 * 0: it is made at every wake-up. PATH is ROOT//REST where the native thread, too,
 * looks for REST from ROOT on, which it keeps open. KIND is
 *     start   one pread of the first BYTES of a file that is kept open
 *     whole   preads of a file that is kept open, up to its end
 *     once    the same as `start`, but opened and closed each time
 *     once_whole   the same as `whole`, likewise
 *     list    a folder, opened, listed and closed
 *     stat    fstatat
 *     space   statvfs
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "pace.h"

enum {
    BUFFER_BYTES = 16 << 20,
    LISTING_BYTES = 2048, /* as csrc/listing.h */
    WARM_UP_WAKE_UPS = 2, /* or those of a tenth of a second, as the sampler's */
    WARM_UPS_A_SECOND = 10
};

static const char *const kinds[] = {"start", "whole", "once", "once_whole",
                                    "list",  "stat",  "space"};

typedef enum {
    START,
    WHOLE,
    ONCE,
    ONCE_WHOLE,
    LIST,
    STAT,
    SPACE,
    KINDS
} read_kind;

typedef struct {
    read_kind kind;
    size_t bytes;
    long long period_ns;
    long long due_ns;
    int root;
    const char *path;
    int fd; /* of a file that is kept open */
} bare_read;

static char buffer[BUFFER_BYTES];

static void fail(const char *path)
{
    perror(path);
    exit(1);
}

static int open_or_fail(int root, const char *path, int flags)
{
    int fd = openat(root, path, O_RDONLY | O_CLOEXEC | flags);
    if (fd < 0)
        fail(path);
    return fd;
}

static void read_start(int fd, size_t bytes)
{
    if (pread(fd, buffer, bytes, 0) < 0)
        fail("pread");
}

static void read_whole(int fd)
{
    off_t at = 0;
    ssize_t got;
    while ((got = pread(fd, buffer + at, (size_t)(BUFFER_BYTES - at), at)) > 0)
        at += got;
    if (got < 0)
        fail("pread");
}

static void list(const bare_read *it)
{
    int fd = open_or_fail(it->root, it->path, O_DIRECTORY);
    while (syscall(SYS_getdents64, fd, buffer, LISTING_BYTES) > 0)
        continue;
    close(fd);
}

static void read_once(const bare_read *it)
{
    int fd = open_or_fail(it->root, it->path, O_NONBLOCK);
    if (it->kind == ONCE)
        read_start(fd, it->bytes);
    else
        read_whole(fd);
    close(fd);
}

static void make(const bare_read *it)
{
    struct stat status;
    struct statvfs space;
    if (it->kind == START)
        read_start(it->fd, it->bytes);
    else if (it->kind == WHOLE)
        read_whole(it->fd);
    else if (it->kind == ONCE || it->kind == ONCE_WHOLE)
        read_once(it);
    else if (it->kind == LIST)
        list(it);
    else if ((it->kind == STAT && fstatat(it->root, it->path, &status, 0) != 0) ||
             (it->kind == SPACE && statvfs(it->path, &space) != 0))
        fail(it->path);
}

static bare_read parse(char *text)
{
    bare_read it = {.root = AT_FDCWD, .fd = -1};
    char *rest = text;
    const char *kind = strsep(&rest, ",");
    while (it.kind < KINDS && strcmp(kind, kinds[it.kind]) != 0)
        it.kind++;
    const char *bytes = strsep(&rest, ",");
    const char *seconds = strsep(&rest, ",");
    if (it.kind == KINDS || rest == NULL) {
        fprintf(stderr, "not a READ: %s\n", text);
        exit(2);
    }
    it.bytes = (size_t)strtoul(bytes, NULL, 10);
    it.period_ns = (long long)(strtod(seconds, NULL) * NS_PER_SECOND);
    it.path = rest;
    char *below = strstr(rest, "//");
    if (below != NULL) {
        *below = '\0';
        it.root = open_or_fail(AT_FDCWD, rest, O_DIRECTORY);
        it.path = below + 2;
    }
    if (it.bytes > BUFFER_BYTES)
        it.bytes = BUFFER_BYTES;
    if (it.kind == START || it.kind == WHOLE)
        it.fd = open_or_fail(it.root, it.path, 0);
    return it;
}

static void make_due(bare_read *reads, int count, long long now_ns)
{
    for (int i = 0; i < count; i++) {
        if (reads[i].period_ns > 0 && now_ns < reads[i].due_ns)
            continue;
        reads[i].due_ns = now_ns + reads[i].period_ns;
        make(&reads[i]);
    }
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: bare_read RATE SECONDS KIND,BYTES,SECONDS,PATH...\n");
        return 2;
    }
    double rate = positive(argv[1]);
    long long wanted = (long long)(rate * positive(argv[2]));
    long long warm_ups = (long long)(rate / WARM_UPS_A_SECOND);
    if (warm_ups < WARM_UP_WAKE_UPS)
        warm_ups = WARM_UP_WAKE_UPS;
    int count = argc - 3;
    bare_read *reads = calloc((size_t)count, sizeof *reads);
    if (reads == NULL)
        return 1;
    for (int i = 0; i < count; i++)
        reads[i] = parse(argv[i + 3]);

    long long total = 0;
    pace clock = pace_start(rate);
    for (long long i = -warm_ups; i < wanted; i++) {
        pace_wait(&clock);
        long long before = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        make_due(reads, count, clock.next_ns);
        if (i >= 0)
            total += clock_ns(CLOCK_THREAD_CPUTIME_ID) - before;
    }
    printf("%lld %lld\n", total, wanted);
    return 0;
}

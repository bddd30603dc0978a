/*
 * bare_read FILE BYTES RATE SECONDS
 *
 * The floor under one sample of one file: at every wake-up, a pread of the
 * first BYTES of FILE (0: of all of it, up to its end), timed as the native
 * thread times its sources. Prints the summed CPU time in nanoseconds and the
 * number of reads.
 */
#define _GNU_SOURCE
#include <fcntl.h>

#include "pace.h"

enum {
    BUFFER_BYTES = 16 << 20
};

static char buffer[BUFFER_BYTES];

static void read_first(int fd, size_t bytes)
{
    if (pread(fd, buffer, bytes, 0) <= 0)
        exit(1);
}

static void read_whole(int fd)
{
    off_t at = 0;
    ssize_t got;
    while ((got = pread(fd, buffer + at, (size_t)(BUFFER_BYTES - at), at)) > 0)
        at += got;
    if (at == 0)
        exit(1);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: bare_read FILE BYTES RATE SECONDS\n");
        return 2;
    }
    int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        perror(argv[1]);
        return 1;
    }
    size_t bytes = (size_t)strtoul(argv[2], NULL, 10);
    double rate = positive(argv[3]);
    long long wanted = (long long)(rate * positive(argv[4]));
    if (bytes > BUFFER_BYTES)
        bytes = BUFFER_BYTES;

    long long total = 0;
    pace clock = pace_start(rate);
    for (long long i = 0; i < wanted; i++) {
        pace_wait(&clock);
        long long before = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        if (bytes > 0)
            read_first(fd, bytes);
        else
            read_whole(fd);
        total += clock_ns(CLOCK_THREAD_CPUTIME_ID) - before;
    }
    printf("%lld %lld\n", total, wanted);
    return 0;
}

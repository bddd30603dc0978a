/*
 * bare_loop RATE SECONDS
 *
 * The floor under a sampling thread: the same wake-ups and the same raw reads
 * as the native thread's default sources on files that are kept open, and
 * nothing else. It parses and stores nothing. Prints the CPU time of its
 * thread in nanoseconds and the number of wake-ups that it took.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/statvfs.h>

#include "pace.h"

enum {
    FIRST_LINE_BYTES = 512,
    BUFFER_BYTES = 1 << 20,
    WARM_UP_WAKE_UPS = 20
};

static char buffer[BUFFER_BYTES];

static int open_or_exit(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        perror(path);
        exit(1);
    }
    return fd;
}

static void read_start(int fd)
{
    if (pread(fd, buffer, FIRST_LINE_BYTES, 0) <= 0)
        exit(1);
}

static void read_to_end(int fd)
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
    if (argc != 3) {
        fprintf(stderr, "usage: bare_loop RATE SECONDS\n");
        return 2;
    }
    double rate = positive(argv[1]);
    long long wanted = (long long)(rate * positive(argv[2]));
    int stat = open_or_exit("/proc/stat");
    int meminfo = open_or_exit("/proc/meminfo");
    int net_dev = open_or_exit("/proc/net/dev");

    struct statvfs space;
    long long started = 0;
    long long next_space = 0;
    pace clock = pace_start(rate);
    for (long long i = -WARM_UP_WAKE_UPS; i < wanted; i++) {
        pace_wait(&clock);
        if (i == 0)
            started = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        read_start(stat);
        read_to_end(meminfo);
        read_to_end(net_dev);
        if (clock.next_ns >= next_space) {
            next_space = clock.next_ns + NS_PER_SECOND;
            if (statvfs("/", &space) != 0)
                return 1;
        }
    }
    printf("%lld %lld\n", clock_ns(CLOCK_THREAD_CPUTIME_ID) - started, wanted);
    return 0;
}

/*
 * Preloaded, makes every read of /proc/stat take SMN_FAKE_STAT_MS milliseconds of
 * CPU time, as on a host with hundreds of cores, whose kernel sums up each
 * interrupt of each of them before it returns the first byte.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static int is_stat(int fd)
{
    char link[64];
    char path[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = '\0';
    return strcmp(path, "/proc/stat") == 0;
}

static double cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static void toil(void)
{
    const char *text = getenv("SMN_FAKE_STAT_MS");
    double end_ms = cpu_ms() + (text != NULL ? atof(text) : 0.0);
    while (cpu_ms() < end_ms)
        continue;
}

EXPORT ssize_t pread(int fd, void *buffer, size_t bytes, off_t offset)
{
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (real == NULL)
        real = (ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread");
    if (is_stat(fd))
        toil();
    return real(fd, buffer, bytes, offset);
}

EXPORT ssize_t pread64(int fd, void *buffer, size_t bytes, off_t offset)
{
    return pread(fd, buffer, bytes, offset);
}

/* What this process holds of the machine, as the kernel sees it. */
#ifndef SELF_H
#define SELF_H

#include <stdint.h>
#include <sys/types.h>

int self_open_files(void);
int self_threads(void);

/* Thread id of the one thread with this name; 0 when there is none. */
pid_t self_find_thread(const char *name);

/* A number of /proc/self/status or of a thread's status: self_status(0, "VmSize", 10). */
uint64_t self_status(pid_t thread, const char *key, int base);

/* A moment of doing nothing, for loops that wait until something has become true. */
void self_breathe(void);

#endif

/* What this process holds of the machine, as the kernel sees it. */
#ifndef SELF_H
#define SELF_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

int self_open_files(void);
int self_threads(void);

/* Thread id of a thread with this name; 0 when there is none. */
pid_t self_find_thread(const char *name);

/*
 * Waits until there is none: the kernel lists a thread for a moment after it
 * has been joined. False if that takes a minute.
 */
bool self_thread_ends(const char *name);

/* A number of /proc/self/status or of a thread's status: self_status(0, "VmSize", 10). */
uint64_t self_status(pid_t thread, const char *key, int base);

/* A moment of doing nothing, for loops that wait until something has become true. */
void self_breathe(void);

#endif

/*
 * How much space there is where a path leads, and a thread, `smn-disk`, that
 * finds out for paths that may not answer.
 *
 * A call that asks a dead server for it lasts until that is back, for days if it
 * must, and cannot be called off. So the sampling thread only says when it will
 * want the next values and takes them if they are there. Nobody waits for longer
 * than a moment, not at the end either: a thread that hangs is left alone, and
 * cleans up when it comes back.
 */
#ifndef SMN_DISK_THREAD_H
#define SMN_DISK_THREAD_H

#include <stdint.h>

enum {
    SMN_DISK_PERCENTAGE,
    SMN_DISK_USED_BYTES,
    SMN_DISK_AVAILABLE_BYTES,
    SMN_DISK_VALUES
};

/* statvfs(3): what has no value is left as it is. */
int smn_disk_read(const char *path, double values[SMN_DISK_VALUES]);

typedef struct smn_disk_thread smn_disk_thread;

/* -ENOMEM. Nothing runs yet. */
int smn_disk_thread_create(const char *path, smn_disk_thread **out);

/* Starts it, with a first reading. */
int smn_disk_thread_start(smn_disk_thread *thread);

/*
 * These two are the sampling thread's, in this order. The first asks for a
 * reading now where the last one is old, as at the start, or at the end of long
 * intervals. The second waits a moment for that one, takes what was read last and
 * asks for the next, ahead of when it is likely to be called again. -ETIMEDOUT:
 * the path does not answer.
 */
void smn_disk_thread_prepare(smn_disk_thread *thread);
int smn_disk_thread_take(smn_disk_thread *thread, double values[SMN_DISK_VALUES]);

/* The first says that it shall end; the second waits a moment for that, unless it hangs. */
void smn_disk_thread_halt(smn_disk_thread *thread);
void smn_disk_thread_destroy(smn_disk_thread *thread);

#endif

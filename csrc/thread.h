/* Threads of our own: they take no signal of the program's, and carry a name. */
#ifndef SMN_THREAD_H
#define SMN_THREAD_H

#include <pthread.h>
#include <stddef.h>

/*
 * Starts `run(argument)` on a thread with a stack of stack_bytes (0: as much as
 * the program's threads have). 0 or a negative errno.
 */
int smn_thread_start(pthread_t *thread, const char *name, size_t stack_bytes,
                     void *(*run)(void *argument), void *argument);

#endif

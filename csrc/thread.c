#include "thread.h"

#include <errno.h>
#include <signal.h>

/* Where a process has much thread-local storage a small stack is refused; then take the default. */
static int create(pthread_t *thread, size_t stack_bytes, void *(*run)(void *), void *argument)
{
    if (stack_bytes == 0)
        return pthread_create(thread, NULL, run, argument);
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error != 0)
        return error;
    pthread_attr_setstacksize(&attributes, stack_bytes);
    error = pthread_create(thread, &attributes, run, argument);
    pthread_attr_destroy(&attributes);
    if (error == EINVAL)
        error = pthread_create(thread, NULL, run, argument);
    return error;
}

int smn_thread_start(pthread_t *thread, const char *name, size_t stack_bytes,
                     void *(*run)(void *argument), void *argument)
{
    /* The thread inherits the mask: no signal of the program is ever handled on it. */
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = create(thread, stack_bytes, run, argument);
    if (error == 0)
        pthread_setname_np(*thread, name);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}

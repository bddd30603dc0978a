/* What is worth a line in the log, until somebody who can log takes it. */
#ifndef SMN_GPU_MESSAGES_H
#define SMN_GPU_MESSAGES_H

#include <pthread.h>

#include "../sysmetrics.h"

enum {
    SMN_GPU_MESSAGES_KEPT = 32
};

/* The lock is held for a copy of a line, by the GPU thread and whoever takes lines. */
typedef struct {
    pthread_mutex_t lock;
    char lines[SMN_GPU_MESSAGES_KEPT][SMN_GPU_MESSAGE_BYTES];
    unsigned int posted;
    unsigned int taken;
} smn_gpu_messages;

void smn_gpu_messages_init(smn_gpu_messages *messages);

/* What comes while all places are taken is lost: nobody reads so much. */
__attribute__((format(printf, 2, 3))) void smn_gpu_messages_post(smn_gpu_messages *messages,
                                                                 const char *format, ...);

/* Copies the oldest: 1, or 0 when there is none. */
int smn_gpu_messages_take(smn_gpu_messages *messages, char *line);

#endif

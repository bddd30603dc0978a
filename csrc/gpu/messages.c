#include "messages.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void smn_gpu_messages_init(smn_gpu_messages *messages)
{
    memset(messages, 0, sizeof *messages);
    pthread_mutex_init(&messages->lock, NULL);
}

void smn_gpu_messages_post(smn_gpu_messages *messages, const char *format, ...)
{
    pthread_mutex_lock(&messages->lock);
    if (messages->posted - messages->taken < SMN_GPU_MESSAGES_KEPT) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(messages->lines[messages->posted % SMN_GPU_MESSAGES_KEPT], SMN_GPU_MESSAGE_BYTES,
                  format, arguments);
        va_end(arguments);
        messages->posted++;
    }
    pthread_mutex_unlock(&messages->lock);
}

int smn_gpu_messages_take(smn_gpu_messages *messages, char *line)
{
    int found = 0;
    pthread_mutex_lock(&messages->lock);
    if (messages->taken != messages->posted) {
        memcpy(line, messages->lines[messages->taken % SMN_GPU_MESSAGES_KEPT],
               SMN_GPU_MESSAGE_BYTES);
        messages->taken++;
        found = 1;
    }
    pthread_mutex_unlock(&messages->lock);
    return found;
}

#include "recorder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TIME_WORDS = sizeof(smn_row_time) / sizeof(uint64_t),
    FIRST_COLUMN = 1 + TIME_WORDS, /* behind the sequence number */
    OTHER_WORDS = FIRST_COLUMN + 1 /* the checksum, too */
};

static size_t record_bytes(const smn_recorder *recorder)
{
    return (OTHER_WORDS + recorder->columns) * sizeof(uint64_t);
}

void smn_recorder_init(smn_recorder *recorder)
{
    *recorder = (smn_recorder){.fd = -1};
}

int smn_recorder_open(smn_recorder *recorder, int fd, uint64_t data_offset, uint64_t capacity,
                      int columns)
{
    smn_recorder opened = {.fd = fd, .data_offset = data_offset, .capacity = capacity};
    opened.columns = (size_t)columns;
    if (fd < 0 || capacity == 0 || data_offset > INT64_MAX ||
        capacity > (INT64_MAX - data_offset) / record_bytes(&opened))
        return -EINVAL;
    opened.record = calloc(1, record_bytes(&opened));
    if (opened.record == NULL)
        return -ENOMEM;
    *recorder = opened;
    return 0;
}

/*
 * FNV-1a by words, with a shift that plain FNV lacks: there the highest bit of
 * a word, the sign of a double, would reach the highest bit of the sum only.
 */
static uint64_t checksum(const uint64_t *words, size_t count)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < count; i++) {
        sum = (sum ^ words[i]) * UINT64_C(0x100000001b3);
        sum ^= sum >> 32;
    }
    return sum;
}

/* The counters have one writer, so a load and a store are enough. */
static void count(_Atomic uint64_t *counter)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + 1, memory_order_relaxed);
}

void smn_recorder_append(smn_recorder *recorder, const smn_row_time *time, const double *columns)
{
    if (recorder->fd < 0)
        return;
    size_t bytes = record_bytes(recorder);
    size_t last = FIRST_COLUMN + recorder->columns;
    uint64_t slot = recorder->sequence % recorder->capacity;
    recorder->record[0] = recorder->sequence++;
    memcpy(recorder->record + 1, time, sizeof *time);
    memcpy(recorder->record + FIRST_COLUMN, columns, recorder->columns * sizeof *columns);
    recorder->record[last] = checksum(recorder->record, last);
    ssize_t written = pwrite(recorder->fd, recorder->record, bytes,
                             (off_t)(recorder->data_offset + slot * bytes));
    if (written == (ssize_t)bytes) {
        count(&recorder->rows);
        return;
    }
    /* A part of a record is none: its checksum does not fit. */
    int error = written < 0 ? -errno : -ENOSPC;
    atomic_store_explicit(&recorder->last_error, error, memory_order_relaxed);
    count(&recorder->errors);
}

void smn_recorder_release(smn_recorder *recorder)
{
    if (recorder->fd >= 0)
        close(recorder->fd);
    free(recorder->record);
    smn_recorder_init(recorder);
}

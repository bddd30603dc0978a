/*
 * Closed windows on their way from the sampling thread to whoever reads them.
 *
 * One writer, which never waits: when the queue is full it merges the two
 * oldest windows, so that time stays covered. Readers copy the oldest window
 * and claim it by moving `tail` with compare-and-swap; a copy whose claim fails
 * is thrown away. While the writer merges it holds `tail` with the MERGING bit,
 * which makes claims fail for these few hundred nanoseconds.
 */
#ifndef SMN_WINDOW_QUEUE_H
#define SMN_WINDOW_QUEUE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "window.h"

typedef struct {
    int series_count;
    size_t record_words;
    uint64_t capacity;
    _Atomic uint64_t *slots;
    size_t slots_bytes;
    smn_window_record *scratch[2]; /* the writer's, for merging */
    _Atomic uint64_t head;         /* windows ever pushed; the writer's to change */
    _Atomic uint64_t tail;         /* windows ever taken or merged away, and the MERGING bit */
    _Atomic uint64_t merged;
    _Atomic uint32_t changes; /* futex: counts up when something happened that readers wait for */
    _Atomic uint32_t waiters;
} smn_window_queue;

/* -ENOMEM. */
int smn_window_queue_init(smn_window_queue *queue, const smn_schema *schema, uint64_t capacity);
void smn_window_queue_release(smn_window_queue *queue);

/* The writer's. Wait-free. */
void smn_window_queue_push(smn_window_queue *queue, const smn_window_record *record);

/* Takes the oldest window: 0 or -EAGAIN. */
int smn_window_queue_pop(smn_window_queue *queue, smn_window_record *record);

/* Makes waiting readers look again. */
void smn_window_queue_notify(smn_window_queue *queue);

/*
 * Waits for a change after `seen`, a value of `changes`, until the deadline
 * (CLOCK_MONOTONIC; UINT64_MAX: none). 0, -ETIMEDOUT or -EINTR.
 */
int smn_window_queue_wait(smn_window_queue *queue, uint32_t seen, uint64_t deadline_ns);

#endif

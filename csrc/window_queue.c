#include "window_queue.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "reserve.h"

static const uint64_t MERGING = UINT64_C(1) << 63;

int smn_window_queue_init(smn_window_queue *queue, const smn_schema *schema, uint64_t capacity)
{
    size_t bytes = smn_window_record_bytes(schema);
    queue->series_count = schema->series_count;
    queue->record_words = bytes / sizeof(uint64_t);
    queue->capacity = capacity;
    queue->slots_bytes = bytes * (size_t)capacity;
    queue->slots = smn_reserve(queue->slots_bytes);
    queue->scratch[0] = calloc(1, bytes);
    queue->scratch[1] = calloc(1, bytes);
    if (queue->slots != NULL && queue->scratch[0] != NULL && queue->scratch[1] != NULL)
        return 0;
    smn_window_queue_release(queue);
    return -ENOMEM;
}

void smn_window_queue_release(smn_window_queue *queue)
{
    smn_unreserve((void *)queue->slots, queue->slots_bytes);
    free(queue->scratch[0]);
    free(queue->scratch[1]);
    queue->slots = NULL;
    queue->scratch[0] = queue->scratch[1] = NULL;
}

static _Atomic uint64_t *slot_of(const smn_window_queue *queue, uint64_t index)
{
    return queue->slots + (size_t)(index % queue->capacity) * queue->record_words;
}

static void store_record(smn_window_queue *queue, uint64_t index, const smn_window_record *record)
{
    _Atomic uint64_t *slot = slot_of(queue, index);
    for (size_t i = 0; i < queue->record_words; i++) {
        uint64_t word;
        memcpy(&word, (const char *)record + i * sizeof word, sizeof word);
        atomic_store_explicit(&slot[i], word, memory_order_relaxed);
    }
}

static void load_record(const smn_window_queue *queue, uint64_t index, smn_window_record *record)
{
    const _Atomic uint64_t *slot = slot_of(queue, index);
    for (size_t i = 0; i < queue->record_words; i++) {
        uint64_t word = atomic_load_explicit(&slot[i], memory_order_relaxed);
        memcpy((char *)record + i * sizeof word, &word, sizeof word);
    }
}

static void merge_two_oldest(smn_window_queue *queue, uint64_t oldest)
{
    load_record(queue, oldest, queue->scratch[0]);
    load_record(queue, oldest + 1, queue->scratch[1]);
    smn_window_merge(queue->scratch[0], queue->scratch[1], queue->series_count);
    store_record(queue, oldest + 1, queue->scratch[1]);
}

void smn_window_queue_push(smn_window_queue *queue, const smn_window_record *record)
{
    uint64_t head = atomic_load_explicit(&queue->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&queue->tail, memory_order_acquire);
    /* When the exchange fails a reader has just taken the oldest window, and there is room. */
    if (head - tail == queue->capacity &&
        atomic_compare_exchange_strong_explicit(&queue->tail, &tail, tail | MERGING,
                                                memory_order_acq_rel, memory_order_acquire)) {
        merge_two_oldest(queue, tail);
        atomic_fetch_add_explicit(&queue->merged, 1, memory_order_relaxed);
        atomic_store_explicit(&queue->tail, tail + 1, memory_order_release);
    }
    store_record(queue, head, record);
    atomic_store_explicit(&queue->head, head + 1, memory_order_release);
    smn_window_queue_notify(queue);
}

int smn_window_queue_pop(smn_window_queue *queue, smn_window_record *record)
{
    for (;;) {
        uint64_t tail = atomic_load_explicit(&queue->tail, memory_order_acquire);
        if ((tail & MERGING) != 0) {
            sched_yield();
            continue;
        }
        if (tail == atomic_load_explicit(&queue->head, memory_order_acquire))
            return -EAGAIN;
        load_record(queue, tail, record);
        /* Release: the copy is complete before the writer may use the slot again. */
        if (atomic_compare_exchange_strong_explicit(&queue->tail, &tail, tail + 1,
                                                    memory_order_acq_rel, memory_order_acquire))
            return 0;
    }
}

void smn_window_queue_notify(smn_window_queue *queue)
{
    atomic_fetch_add(&queue->changes, 1);
    if (atomic_load(&queue->waiters) > 0)
        smn_futex_wake(&queue->changes);
}

int smn_window_queue_wait(smn_window_queue *queue, uint32_t seen, uint64_t deadline_ns)
{
    atomic_fetch_add(&queue->waiters, 1);
    int error = smn_futex_wait(&queue->changes, seen, deadline_ns);
    atomic_fetch_sub(&queue->waiters, 1);
    return error;
}

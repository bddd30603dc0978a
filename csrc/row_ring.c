#include "row_ring.h"

#include <errno.h>
#include <string.h>

#include "reserve.h"

enum {
    TIME_WORDS = sizeof(smn_row_time) / sizeof(uint64_t)
};

static size_t record_words(const smn_row_ring *ring)
{
    return TIME_WORDS + ring->columns;
}

static size_t ring_bytes(const smn_row_ring *ring)
{
    return (size_t)ring->capacity * record_words(ring) * sizeof(uint64_t);
}

int smn_row_ring_create(smn_row_ring *ring, int columns, uint64_t capacity)
{
    *ring = (smn_row_ring){.capacity = capacity, .columns = (size_t)columns};
    if (capacity > SIZE_MAX / (record_words(ring) * sizeof(uint64_t)))
        return -ENOMEM;
    ring->records = smn_reserve(ring_bytes(ring));
    return ring->records != NULL ? 0 : -ENOMEM;
}

void smn_row_ring_release(smn_row_ring *ring)
{
    smn_unreserve((void *)ring->records, ring_bytes(ring));
    ring->records = NULL;
}

static _Atomic uint64_t *slot_of(const smn_row_ring *ring, uint64_t index)
{
    return ring->records + (size_t)(index % ring->capacity) * record_words(ring);
}

/*
 * The words are stored with release and loaded with acquire so that a reader
 * who sees one word of a newer row also sees the head that allowed it to be
 * written, and knows that its copy is stale. On x86 both are plain moves.
 */
static void store_words(_Atomic uint64_t *to, const void *from, size_t words)
{
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, (const char *)from + i * sizeof word, sizeof word);
        atomic_store_explicit(&to[i], word, memory_order_release);
    }
}

static void load_words(void *to, const _Atomic uint64_t *from, size_t words)
{
    for (size_t i = 0; i < words; i++) {
        uint64_t word = atomic_load_explicit(&from[i], memory_order_acquire);
        memcpy((char *)to + i * sizeof word, &word, sizeof word);
    }
}

void smn_row_ring_append(smn_row_ring *ring, const smn_row_time *time, const double *columns)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    _Atomic uint64_t *slot = slot_of(ring, head);
    store_words(slot, time, TIME_WORDS);
    store_words(slot + TIME_WORDS, columns, ring->columns);
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
}

int smn_row_ring_read(const smn_row_ring *ring, uint64_t index, smn_row_time *time, double *columns)
{
    if (index >= smn_row_ring_head(ring))
        return -ENOENT;
    const _Atomic uint64_t *slot = slot_of(ring, index);
    load_words(time, slot, TIME_WORDS);
    load_words(columns, slot + TIME_WORDS, ring->columns);
    return smn_row_ring_head(ring) - index < ring->capacity ? 0 : -ESTALE;
}

uint64_t smn_row_ring_head(const smn_row_ring *ring)
{
    return atomic_load_explicit(&ring->head, memory_order_acquire);
}

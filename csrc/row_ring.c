#include "row_ring.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "reserve.h"

enum {
    TIME_WORDS = sizeof(smn_row_time) / sizeof(uint64_t),
    PAGE = 4096
};

static void describe(smn_row_header *header, const smn_schema *schema, size_t schema_bytes)
{
    memcpy(header->magic, SMN_ROW_MAGIC, sizeof header->magic);
    header->version = SMN_ROW_VERSION;
    header->byte_order = 0x01020304;
    header->schema_bytes = (uint32_t)schema_bytes;
    header->columns = (uint32_t)schema->columns;
    header->writer_pid = (uint64_t)getpid();
    /* One byte more than the text, for the terminating zero of snprintf. */
    smn_schema_text(schema, (char *)(header + 1), schema_bytes + 1);
}

int smn_row_ring_create(smn_row_ring *ring, const smn_schema *schema, uint64_t capacity,
                        uint64_t interval_ns, uint32_t samples_per_window)
{
    size_t schema_bytes = smn_schema_text(schema, NULL, 0);
    size_t data_offset = (sizeof *ring->header + schema_bytes + PAGE) / PAGE * PAGE;
    ring->record_words = TIME_WORDS + (size_t)schema->columns;
    size_t record_bytes = ring->record_words * sizeof(uint64_t);
    if (capacity > (SIZE_MAX - data_offset) / record_bytes)
        return -ENOMEM;
    ring->bytes = data_offset + (size_t)capacity * record_bytes;
    void *memory = smn_reserve(ring->bytes);
    if (memory == NULL)
        return -ENOMEM;
    ring->header = memory;
    ring->records = (_Atomic uint64_t *)(void *)((char *)memory + data_offset);
    describe(ring->header, schema, schema_bytes);
    ring->header->data_offset = data_offset;
    ring->header->record_bytes = (uint32_t)record_bytes;
    ring->header->samples_per_window = samples_per_window;
    ring->header->capacity = capacity;
    ring->header->interval_ns = interval_ns;
    return 0;
}

void smn_row_ring_release(smn_row_ring *ring)
{
    smn_unreserve(ring->header, ring->bytes);
    ring->header = NULL;
}

static _Atomic uint64_t *slot_of(const smn_row_ring *ring, uint64_t index)
{
    return ring->records + (size_t)(index % ring->header->capacity) * ring->record_words;
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
    uint64_t head = atomic_load_explicit(&ring->header->head, memory_order_relaxed);
    _Atomic uint64_t *slot = slot_of(ring, head);
    store_words(slot, time, TIME_WORDS);
    store_words(slot + TIME_WORDS, columns, ring->header->columns);
    atomic_store_explicit(&ring->header->head, head + 1, memory_order_release);
}

int smn_row_ring_read(const smn_row_ring *ring, uint64_t index, smn_row_time *time, double *columns)
{
    if (index >= smn_row_ring_head(ring))
        return -ENOENT;
    const _Atomic uint64_t *slot = slot_of(ring, index);
    load_words(time, slot, TIME_WORDS);
    load_words(columns, slot + TIME_WORDS, ring->header->columns);
    return smn_row_ring_head(ring) - index < ring->header->capacity ? 0 : -ESTALE;
}

uint64_t smn_row_ring_head(const smn_row_ring *ring)
{
    return atomic_load_explicit(&ring->header->head, memory_order_acquire);
}

/*
 * The last rows, in a ring with one writer and any number of readers.
 *
 * The memory is laid out as a file would be: a header that describes itself,
 * then records of a fixed size. All numbers are in the machine's byte order.
 *
 *   offset 0                     smn_row_header
 *   offset sizeof header         schema_bytes of text, see smn_schema_text
 *   offset header.data_offset    capacity records of record_bytes each
 *
 * The writer fills slot head % capacity and only then counts head up. So row i
 * is whole while head - capacity < i < head, also after the writer was killed
 * at any instruction: the slot it may have been writing is not in that range.
 */
#ifndef SMN_ROW_RING_H
#define SMN_ROW_RING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "schema.h"

#define SMN_ROW_MAGIC "SMNROWS"

enum {
    SMN_ROW_VERSION = 1
};

typedef struct {
    char magic[8];
    uint32_t version;
    uint32_t byte_order; /* 0x01020304 as written */
    uint64_t data_offset;
    uint32_t schema_bytes;
    uint32_t columns;
    uint32_t record_bytes;
    uint32_t samples_per_window;
    uint64_t capacity;
    uint64_t interval_ns;
    uint64_t writer_pid;
    _Atomic uint64_t head; /* rows ever written; the writer's alone to change */
    uint64_t reserved[8];  /* zero */
} smn_row_header;

/* One tick. As a record: these words, then `columns` doubles. */
typedef struct {
    uint64_t tick;         /* deadlines since the start, missed ones included */
    uint64_t monotonic_ns; /* CLOCK_MONOTONIC, for differences */
    int64_t wall_ns;       /* CLOCK_REALTIME, for people */
} smn_row_time;

typedef struct {
    smn_row_header *header;
    _Atomic uint64_t *records;
    size_t bytes;
    size_t record_words;
} smn_row_ring;

/* -ENOMEM. */
int smn_row_ring_create(smn_row_ring *ring, const smn_schema *schema, uint64_t capacity,
                        uint64_t interval_ns, uint32_t samples_per_window);
void smn_row_ring_release(smn_row_ring *ring);

/* The writer's: publishes one row. Wait-free. */
void smn_row_ring_append(smn_row_ring *ring, const smn_row_time *time, const double *columns);

/* Copies row `index`; -ESTALE when it was overwritten, -ENOENT when it is yet to come. */
int smn_row_ring_read(const smn_row_ring *ring, uint64_t index, smn_row_time *time,
                      double *columns);

uint64_t smn_row_ring_head(const smn_row_ring *ring);

#endif

/*
 * The last rows, in memory, in a ring with one writer and any number of
 * readers: what percentiles are computed from.
 *
 * The writer fills slot head % capacity and only then counts head up. So row i
 * is whole while head - capacity < i < head.
 */
#ifndef SMN_ROW_RING_H
#define SMN_ROW_RING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* One tick. As a record: these words, then the columns. */
typedef struct {
    uint64_t tick;         /* deadlines since the start, missed ones included */
    uint64_t monotonic_ns; /* CLOCK_MONOTONIC, for differences */
    int64_t wall_ns;       /* CLOCK_REALTIME, for people */
} smn_row_time;

typedef struct {
    _Atomic uint64_t head; /* rows ever written; the writer's alone to change */
    _Atomic uint64_t *records;
    uint64_t capacity; /* records */
    size_t columns;
} smn_row_ring;

/* -ENOMEM. */
int smn_row_ring_create(smn_row_ring *ring, int columns, uint64_t capacity);
void smn_row_ring_release(smn_row_ring *ring);

/* The writer's: publishes one row. Wait-free. */
void smn_row_ring_append(smn_row_ring *ring, const smn_row_time *time, const double *columns);

/* Copies row `index`; -ESTALE when it was overwritten, -ENOENT when it is yet to come. */
int smn_row_ring_read(const smn_row_ring *ring, uint64_t index, smn_row_time *time,
                      double *columns);

uint64_t smn_row_ring_head(const smn_row_ring *ring);

#endif

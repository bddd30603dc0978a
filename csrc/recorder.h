/*
 * The flight recorder: every row, in a file that outlives the process. The
 * format is described in docs/recording-format.md.
 *
 * A row is written with one pwrite, not stored through a mapping: a mapped file
 * that somebody truncates, or whose disk is full or gone, is a SIGBUS that ends
 * the program we are a guest in; here the same is an error code, the row is not
 * in the file, and the next one is tried again. What was written stays, however
 * the process ends. Each record carries a checksum, so that a reader can tell a
 * whole one from one that is half written.
 */
#ifndef SMN_RECORDER_H
#define SMN_RECORDER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "row_ring.h"

typedef struct {
    int fd; /* owned; -1: nothing is recorded */
    uint64_t data_offset;
    uint64_t capacity; /* records */
    uint64_t sequence; /* of the next row, which has its slot whether it can be written or not */
    uint64_t *record;  /* the row on its way */
    size_t columns;
    /* Statistics: written by the sampling thread, read by anybody. */
    _Atomic uint64_t rows;
    _Atomic uint64_t errors;
    _Atomic int last_error;
} smn_recorder;

/* One that records nothing. */
void smn_recorder_init(smn_recorder *recorder);

/*
 * From now on rows go into fd, which must be open for writing: into a ring of
 * `capacity` records that begins at data_offset. On success the recorder owns
 * fd. -EINVAL when the ring does not fit into any file, -ENOMEM.
 */
int smn_recorder_open(smn_recorder *recorder, int fd, uint64_t data_offset, uint64_t capacity,
                      int columns);

/* Appends a row, or counts an error. Does not allocate; a hanging disk holds it up. */
void smn_recorder_append(smn_recorder *recorder, const smn_row_time *time, const double *columns);

void smn_recorder_release(smn_recorder *recorder);

#endif

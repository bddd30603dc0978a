/*
 * Hands sets of values from one thread to another without a lock: three slots,
 * one the writer's, one the reader's, and one in between that they exchange
 * theirs for.
 */
#ifndef SMN_GPU_MAILBOX_H
#define SMN_GPU_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    SMN_GPU_MAILBOX_VALUES = 32
};

typedef struct {
    double slots[3][SMN_GPU_MAILBOX_VALUES];
    _Atomic uint32_t between; /* the number of a slot, and whether it was not taken yet */
    uint32_t writers;         /* the number of a slot: the writer's alone */
    uint32_t readers;         /* the reader's alone */
    int count;
} smn_gpu_mailbox;

void smn_gpu_mailbox_init(smn_gpu_mailbox *mailbox, int count);

/*
 * The writer's. A set that was not taken is replaced; where the new one has NaN
 * and the old one a value, that goes on waiting.
 */
void smn_gpu_mailbox_put(smn_gpu_mailbox *mailbox, const double *values);

/* The reader's: copies the set that waits, or returns false. Each set is taken once. */
bool smn_gpu_mailbox_take(smn_gpu_mailbox *mailbox, double *values);

#endif

#include "mailbox.h"

#include <math.h>
#include <string.h>

enum {
    SLOT = 3, /* bits of `between` */
    WAITS = 4
};

void smn_gpu_mailbox_init(smn_gpu_mailbox *mailbox, int count)
{
    memset(mailbox, 0, sizeof *mailbox);
    mailbox->count = count;
    mailbox->writers = 0;
    atomic_init(&mailbox->between, 1);
    mailbox->readers = 2;
}

static void write_values(smn_gpu_mailbox *mailbox, const double *values, const double *older)
{
    double *slot = mailbox->slots[mailbox->writers];
    for (int i = 0; i < mailbox->count; i++)
        slot[i] = isnan(values[i]) && older != NULL ? older[i] : values[i];
}

void smn_gpu_mailbox_put(smn_gpu_mailbox *mailbox, const double *values)
{
    uint32_t mine = mailbox->writers | WAITS;
    uint32_t seen = atomic_load_explicit(&mailbox->between, memory_order_acquire);
    /* The slot in between is written by nobody, so it may be read even while it is being taken. */
    write_values(mailbox, values, (seen & WAITS) != 0 ? mailbox->slots[seen & SLOT] : NULL);
    if (!atomic_compare_exchange_strong_explicit(&mailbox->between, &seen, mine,
                                                 memory_order_acq_rel, memory_order_acquire)) {
        /* It was taken just now: then its values must not come a second time. */
        write_values(mailbox, values, NULL);
        seen = atomic_exchange_explicit(&mailbox->between, mine, memory_order_acq_rel);
    }
    mailbox->writers = seen & SLOT;
}

bool smn_gpu_mailbox_take(smn_gpu_mailbox *mailbox, double *values)
{
    if ((atomic_load_explicit(&mailbox->between, memory_order_relaxed) & WAITS) == 0)
        return false;
    uint32_t taken = atomic_exchange_explicit(&mailbox->between, mailbox->readers,
                                              memory_order_acq_rel);
    mailbox->readers = taken & SLOT;
    memcpy(values, mailbox->slots[mailbox->readers], (size_t)mailbox->count * sizeof *values);
    return true;
}

/* Address space that costs memory only where it is touched. */
#ifndef SMN_RESERVE_H
#define SMN_RESERVE_H

#include <stddef.h>

/* Zeroed, page aligned; NULL when the address space is used up. */
void *smn_reserve(size_t bytes);

void smn_unreserve(void *memory, size_t bytes);

#endif

#include "reserve.h"

#include <sys/mman.h>

void *smn_reserve(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    /* Where huge pages are always on, the first byte would cost 2 MiB. Old kernels refuse: no harm.
     */
    (void)madvise(memory, bytes, MADV_NOHUGEPAGE);
    return memory;
}

void smn_unreserve(void *memory, size_t bytes)
{
    if (memory != NULL)
        munmap(memory, bytes);
}

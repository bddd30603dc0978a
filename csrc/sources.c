#include "source.h"

#include "sysmetrics.h"

extern const smn_source smn_source_cpu;
extern const smn_source smn_source_memory;
extern const smn_source smn_source_disk_space;
extern const smn_source smn_source_network;

const smn_source *const smn_sources[] = {
    &smn_source_cpu,        /* /proc/stat */
    &smn_source_memory,     /* /proc/meminfo */
    &smn_source_disk_space, /* statvfs */
    &smn_source_network,    /* /proc/net/dev */
    NULL,
};

enum {
    SOURCE_COUNT = sizeof smn_sources / sizeof *smn_sources - 1
};

int smn_source_count(void)
{
    return SOURCE_COUNT;
}

const char *smn_source_name(int index)
{
    return index >= 0 && index < SOURCE_COUNT ? smn_sources[index]->name : NULL;
}

int smn_source_is_default(int index)
{
    return index >= 0 && index < SOURCE_COUNT && smn_sources[index]->by_default;
}

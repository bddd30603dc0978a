#include "source.h"

#include "sysmetrics.h"

/*
 * The table: one line a source, in the order of the row. Each is the object
 * smn_source_<name> of sources/<name>.c; those of GPUs share sources/gpu.c.
 */
#define SOURCES(ADD)                                                                               \
    ADD(cpu)                                                                                       \
    ADD(memory)                                                                                    \
    ADD(disk_space)                                                                                \
    ADD(network)                                                                                   \
    ADD(container)                                                                                 \
    ADD(cpu_detail)                                                                                \
    ADD(memory_detail)                                                                             \
    ADD(process)                                                                                   \
    ADD(disk_io)                                                                                   \
    ADD(network_rate)                                                                              \
    ADD(rdma)                                                                                      \
    ADD(pressure)                                                                                  \
    ADD(energy)                                                                                    \
    ADD(gpu)                                                                                       \
    ADD(gpu_detail)                                                                                \
    ADD(gpu_profiling)

#define DECLARE(name) extern const smn_source smn_source_##name;
#define ENTRY(name) &smn_source_##name,

SOURCES(DECLARE)

const smn_source *const smn_sources[] = {SOURCES(ENTRY) NULL};

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

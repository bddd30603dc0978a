#include "source.h"

#include <errno.h>

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

static const smn_source *source_at(int index)
{
    return index >= 0 && index < SOURCE_COUNT ? smn_sources[index] : NULL;
}

const char *smn_source_name(int index)
{
    const smn_source *source = source_at(index);
    return source != NULL ? source->name : NULL;
}

int smn_source_is_default(int index)
{
    const smn_source *source = source_at(index);
    return source != NULL && source->by_default;
}

uint64_t smn_source_min_interval_ns(int index)
{
    const smn_source *source = source_at(index);
    return source != NULL ? source->min_interval_ns : 0;
}

int smn_source_series(int index, int place, smn_known_series *series)
{
    const smn_source *source = source_at(index);
    if (source == NULL || place < 0 || place >= source->series_count)
        return -EINVAL;
    const smn_series_spec *spec = &source->series[place];
    *series = (smn_known_series){
        .key = spec->key,
        .unit = spec->unit,
        .kind = spec->kind,
        .meaning = spec->meaning,
        .reads = spec->reads,
        .formula = spec->formula,
    };
    return 0;
}

/*
 * What a source of numbers is. Adding one takes a file in sources/, a line in
 * the table of sources.c and a test; nothing else needs to know its name.
 */
#ifndef SMN_SOURCE_H
#define SMN_SOURCE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "procfile.h"
#include "schema.h"

/* What a source may need to know of its surroundings. Outlives every source. */
typedef struct {
    int procfs;            /* directory, e.g. of /proc */
    int sysfs;             /* directory, e.g. of /sys; -1 if there is none */
    bool foreign_procfs;   /* procfs belongs to another view of the machine, e.g. /host/proc */
    smn_text_buffer *text; /* for the readings of kernel files */
    int pid; /* whose processes and container are meant, as procfs numbers it; 0: it does not */
    bool process_alone;             /* without its descendants */
    const char *disk_paths;         /* one a line */
    const char *network_interfaces; /* "physical", "all", or names, one a line */
    smn_gpus *gpus;                 /* NULL: none */
    const smn_clock *clock; /* for what is not done at every reading, or is measured in time */
} smn_environment;

typedef struct {
    const char *name;
    bool by_default;          /* part of `default` */
    uint64_t min_interval_ns; /* reading it more often tells nothing new; 0: every tick */
    /*
     * Declares columns and series and returns the source's state. -ENODATA when
     * the machine has no such thing: its series are then unknown, not zero.
     * May allocate.
     */
    int (*open)(const smn_environment *environment, smn_schema *schema, void **state);
    /*
     * Writes its columns, which come in as NaN: what it does not write is absent
     * this time. Neither allocates nor locks nor calls stdio. A negative errno
     * is counted as an error of the source.
     */
    int (*sample)(void *state, double *columns);
    void (*close)(void *state);
    /*
     * Where another thread does the reading: what that costs, and how often it
     * failed, in place of what `sample` does. NULL otherwise.
     */
    void (*stats)(const void *state, smn_source_stats *stats);
    /* … and how far apart its readings have to be, in time; 0: as usual. NULL where nobody cares.
     */
    void (*slow_down)(void *state, uint64_t apart_ns);
    /* Every series that it may declare, on whatever machine; docs/metrics.md is made of them. */
    const smn_series_spec *series;
    int series_count;
} smn_source;

/* All sources, in the order of the row; ends with NULL. */
extern const smn_source *const smn_sources[];

#endif

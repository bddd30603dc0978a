/* The sources of one sampler at work: each read at its pace, its cost and its failures counted. */
#ifndef SMN_SOURCE_SET_H
#define SMN_SOURCE_SET_H

#include <stdatomic.h>

#include "governor.h"
#include "source.h"

/* Which tick of its window a reading is made at. */
typedef enum {
    SMN_TICK_WITHIN,
    SMN_TICK_CLOSES, /* the window: no source may lack a value because the window is short */
    SMN_TICK_LAST    /* of all: everybody has the last word */
} smn_tick_place;

typedef struct smn_active_source smn_active_source;

typedef struct {
    const smn_clock *clock;
    smn_active_source *sources;
    smn_load *loads; /* of the sources, in their order */
    int count;
    smn_governor governor;
    uint64_t spent_ns;      /* by all of them on their threads … */
    uint64_t spent_from_ns; /* … since then */
    _Atomic double
        share;          /* of one core that they took in the last second or more; NaN: not known */
    _Atomic int slowed; /* how many the governor has slowed down */
} smn_source_set;

/*
 * Opens the sources that `names` has, with commas between them, and declares
 * their series. On failure *wrong is the place in names that is to blame.
 * -EINVAL: no such source, or twice; -ENODATA: the machine has none of them. To
 * be released in either case.
 */
int smn_source_set_open(smn_source_set *set, const char *names, const smn_environment *environment,
                        const smn_governor *governor, smn_schema *schema, const char **wrong);
void smn_source_set_release(smn_source_set *set);

/* The first reading, part of no window: all of them, at tick 0. */
void smn_source_set_read_first(smn_source_set *set, double *columns, uint64_t now_ns);

/* Those that are due at the tick. Columns of others are left alone. */
void smn_source_set_read(smn_source_set *set, uint64_t tick, smn_tick_place place, double *columns);

/* After a reading: decides anew, when it is time, who is read how often. */
void smn_source_set_govern(smn_source_set *set, uint64_t tick, uint64_t now_ns);

/* For any thread. -EINVAL: no such source. */
int smn_source_set_stats(const smn_source_set *set, int index, smn_source_stats *stats);

#endif

#include "source_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Statistics are written by the sampling thread, read by anybody; the rest is that thread's alone.
 */
struct smn_active_source {
    const smn_source *source;
    void *state;
    int first_column;
    uint64_t next_tick;
    smn_source_stats seen;        /* at the last decision, where another thread does the reading */
    _Atomic uint64_t interval_ns; /* how far apart its readings are */
    _Atomic uint64_t calls;
    _Atomic uint64_t errors;
    _Atomic uint64_t total_cost_ns;
    _Atomic uint64_t max_cost_ns;
};

/* ---- open and release --------------------------------------------------- */

static const smn_source *find_source(const char *name, size_t length)
{
    for (const smn_source *const *source = smn_sources; *source != NULL; source++) {
        if (strlen((*source)->name) == length && memcmp((*source)->name, name, length) == 0)
            return *source;
    }
    return NULL;
}

static uint64_t usual_ticks(const smn_governor *governor, const smn_source *source)
{
    uint64_t ticks = (source->min_interval_ns + governor->interval_ns - 1) / governor->interval_ns;
    return ticks > 0 ? ticks : 1;
}

static int open_source(smn_source_set *set, const smn_source *source,
                       const smn_environment *environment, smn_schema *schema)
{
    smn_active_source *active = &set->sources[set->count];
    smn_schema_begin_source(schema, source->name);
    active->source = source;
    active->first_column = schema->columns;
    set->loads[set->count] = smn_load_of(usual_ticks(&set->governor, source));
    int error = source->open(environment, schema, &active->state);
    if (error == -ENODATA)
        return 0; /* the machine has no such thing */
    if (error == 0)
        set->count++;
    return error;
}

static void publish_interval(smn_source_set *set, int i)
{
    double ticks = smn_load_interval_ticks(&set->loads[i], &set->governor);
    atomic_store_explicit(&set->sources[i].interval_ns,
                          (uint64_t)(ticks * (double)set->governor.interval_ns + 0.5),
                          memory_order_relaxed);
}

int smn_source_set_open(smn_source_set *set, const char *names, const smn_environment *environment,
                        const smn_governor *governor, smn_schema *schema, const char **wrong)
{
    *set = (smn_source_set){.clock = environment->clock, .governor = *governor};
    atomic_init(&set->share, NAN);
    *wrong = names;
    set->sources = calloc((size_t)smn_source_count(), sizeof *set->sources);
    set->loads = calloc((size_t)smn_source_count(), sizeof *set->loads);
    if (set->sources == NULL || set->loads == NULL)
        return -ENOMEM;
    for (const char *name = names; *name != '\0';) {
        size_t length = strcspn(name, ",");
        const smn_source *source = find_source(name, length);
        int error = -EINVAL;
        if (source != NULL && set->count < smn_source_count())
            error = open_source(set, source, environment, schema);
        if (error != 0) {
            *wrong = name;
            return error;
        }
        name += length + (name[length] == ',');
    }
    for (int i = 0; i < set->count; i++)
        publish_interval(set, i);
    return set->count > 0 ? 0 : -ENODATA;
}

void smn_source_set_release(smn_source_set *set)
{
    for (int i = 0; i < set->count; i++)
        set->sources[i].source->close(set->sources[i].state);
    free(set->sources);
    free(set->loads);
    *set = (smn_source_set){0};
}

/* ---- readings ----------------------------------------------------------- */

/* The counters below have one writer, so a load and a store are enough. */
static void count_up(_Atomic uint64_t *counter, uint64_t by)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + by, memory_order_relaxed);
}

static void count_reading(smn_active_source *active, uint64_t cost_ns, int error)
{
    count_up(&active->calls, 1);
    count_up(&active->total_cost_ns, cost_ns);
    if (error != 0)
        count_up(&active->errors, 1);
    if (cost_ns > atomic_load_explicit(&active->max_cost_ns, memory_order_relaxed))
        atomic_store_explicit(&active->max_cost_ns, cost_ns, memory_order_relaxed);
}

/* Where another thread does the reading that is what is slowed down: to take values costs nothing.
 */
static bool is_slowed_here(const smn_active_source *active, const smn_load *load)
{
    return smn_load_is_slowed(load) && active->source->slow_down == NULL;
}

/* What one that was slowed down lacks at the end of a window is the price of the budget. */
static bool is_due(const smn_active_source *active, const smn_load *load, uint64_t tick,
                   smn_tick_place place)
{
    return tick >= active->next_tick || place == SMN_TICK_LAST ||
           (place == SMN_TICK_CLOSES && !is_slowed_here(active, load));
}

static void plan_next(smn_source_set *set, int i, uint64_t tick)
{
    smn_active_source *active = &set->sources[i];
    const smn_load *load = &set->loads[i];
    active->next_tick = is_slowed_here(active, load)
                            ? smn_load_next_tick(load, &set->governor, tick)
                            : smn_load_usual_tick(load, tick);
}

/*
 * A cost is CPU time, not time: a machine that is busy, which makes everything
 * take longer, is no reason to see less of it.
 */
void smn_source_set_read(smn_source_set *set, uint64_t tick, smn_tick_place place, double *columns)
{
    uint64_t first_ns = set->clock->cpu_ns(set->clock->context);
    uint64_t before_ns = first_ns;
    for (int i = 0; i < set->count; i++) {
        smn_active_source *active = &set->sources[i];
        smn_load *load = &set->loads[i];
        if (!is_due(active, load, tick, place))
            continue;
        int error = active->source->sample(active->state, columns + active->first_column);
        uint64_t after_ns = set->clock->cpu_ns(set->clock->context);
        count_reading(active, after_ns - before_ns, error);
        smn_load_count(load, after_ns - before_ns);
        plan_next(set, i, tick);
        before_ns = after_ns;
    }
    set->governor.spent_ns += before_ns - first_ns;
}

/* What was spent elsewhere since the last decision. */
static uint64_t count_elsewhere(smn_source_set *set, int i)
{
    smn_active_source *active = &set->sources[i];
    smn_source_stats now = {0};
    if (active->source->stats == NULL)
        return 0;
    active->source->stats(active->state, &now);
    uint64_t spent_ns = now.total_cost_ns - active->seen.total_cost_ns;
    set->loads[i].lately_calls = now.calls - active->seen.calls;
    set->loads[i].lately_ns = spent_ns;
    active->seen = now;
    return spent_ns;
}

/* With cold caches, and files that are opened: it tells nothing of what readings will cost. */
void smn_source_set_read_first(smn_source_set *set, double *columns, uint64_t now_ns)
{
    smn_source_set_read(set, 0, SMN_TICK_LAST, columns);
    for (int i = 0; i < set->count; i++) {
        (void)count_elsewhere(set, i);
        set->loads[i].lately_calls = set->loads[i].lately_ns = 0;
    }
    set->governor.spent_ns = 0;
    set->governor.decided_ns = now_ns;
    set->spent_from_ns = now_ns;
}

/* ---- the governor ------------------------------------------------------- */

static void note_share(smn_source_set *set, uint64_t now_ns)
{
    uint64_t passed_ns = now_ns - set->spent_from_ns;
    if (passed_ns < SMN_GOVERNOR_PERIOD_NS)
        return;
    atomic_store_explicit(&set->share, (double)set->spent_ns / (double)passed_ns,
                          memory_order_relaxed);
    set->spent_ns = 0;
    set->spent_from_ns = now_ns;
}

/* A new pace holds at once: the next reading was planned by the old one. */
static void set_pace(smn_source_set *set, int i, uint64_t tick)
{
    smn_active_source *active = &set->sources[i];
    publish_interval(set, i);
    plan_next(set, i, tick);
    if (active->source->slow_down != NULL)
        active->source->slow_down(active->state, smn_load_is_slowed(&set->loads[i])
                                                     ? atomic_load(&active->interval_ns)
                                                     : 0);
}

void smn_source_set_govern(smn_source_set *set, uint64_t tick, uint64_t now_ns)
{
    if (!smn_governor_is_due(&set->governor, now_ns))
        return;
    set->spent_ns += set->governor.spent_ns;
    for (int i = 0; i < set->count; i++)
        set->spent_ns += count_elsewhere(set, i);
    note_share(set, now_ns);
    smn_governor_decide(&set->governor, set->loads, set->count, now_ns);
    int slowed = 0;
    for (int i = 0; i < set->count; i++) {
        set_pace(set, i, tick);
        slowed += smn_load_is_slowed(&set->loads[i]);
    }
    atomic_store_explicit(&set->slowed, slowed, memory_order_relaxed);
}

/* ---- what readers call -------------------------------------------------- */

int smn_source_set_stats(const smn_source_set *set, int index, smn_source_stats *stats)
{
    if (index < 0 || index >= set->count)
        return -EINVAL;
    const smn_active_source *active = &set->sources[index];
    *stats = (smn_source_stats){
        .name = active->source->name,
        .calls = atomic_load_explicit(&active->calls, memory_order_relaxed),
        .errors = atomic_load_explicit(&active->errors, memory_order_relaxed),
        .interval_ns = atomic_load_explicit(&active->interval_ns, memory_order_relaxed),
        .usual_interval_ns = set->loads[index].usual_ticks * set->governor.interval_ns,
        .total_cost_ns = atomic_load_explicit(&active->total_cost_ns, memory_order_relaxed),
        .max_cost_ns = atomic_load_explicit(&active->max_cost_ns, memory_order_relaxed),
    };
    if (active->source->stats != NULL)
        active->source->stats(active->state, stats);
    return 0;
}

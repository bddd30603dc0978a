/* A sampler on a fake /proc and a fake clock, so that a test says what happens at which tick. */
#ifndef RIG_H
#define RIG_H

#include "fake_clock.h"
#include "sampler.h"
#include "tree.h"

enum {
    RIG_MOST_SERIES = 8
};

typedef struct {
    proc_tree tree;
    fake_clock clock;
    smn_sampler *sampler;
    double overhead_budget; /* for rig_create; none unless set */
    uint64_t interval_ns;
    int series_count;
    /* What the last rig_take took. */
    smn_window window;
    smn_statistics statistics[RIG_MOST_SERIES];
} sampler_rig;

/* Made, not started. The tree has a stat, meminfo and net/dev to begin with. */
void rig_open(sampler_rig *rig, const char *sources, uint64_t interval_ns,
              uint32_t samples_per_window);

/* The same in two steps, for sources that look for their files when they are opened. */
void rig_prepare(sampler_rig *rig);
void rig_create(sampler_rig *rig, const char *sources, uint64_t interval_ns,
                uint32_t samples_per_window);

/* Destroys the sampler, too, unless the test has done so and set it to NULL. */
void rig_close(sampler_rig *rig);

/* What the files say from now on. */
void rig_set_cpu(const sampler_rig *rig, uint64_t busy, uint64_t idle);
void rig_set_memory(const sampler_rig *rig, uint64_t used_kib, uint64_t total_kib);
void rig_set_network(const sampler_rig *rig, uint64_t received, uint64_t sent);

/* Lets `count` ticks come, one after the other. */
void rig_tick(sampler_rig *rig, int count);

/* Takes the oldest window, without waiting; percentiles included. */
int rig_take(sampler_rig *rig);

/* Of the window that was taken last. */
const smn_statistics *rig_statistics(const sampler_rig *rig, const char *key);

/* Of the source with that name. */
smn_source_stats rig_source(const sampler_rig *rig, const char *name);

#endif

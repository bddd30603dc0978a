/* One source at work on a fake /proc, without a sampler. */
#ifndef PROBE_H
#define PROBE_H

#include "source.h"
#include "tree.h"

typedef struct {
    const smn_source *source;
    smn_text_buffer text;
    smn_environment environment;
    smn_schema schema;
    void *state;
    double *columns;
} source_probe;

/* The source of that name in the table. */
const smn_source *probe_source(const char *name);

/*
 * Returns what the source's open does; if that is not 0 there is nothing to
 * close. Where the environment has no clock it is the system's.
 */
int probe_open_in(source_probe *probe, const char *source, const smn_environment *environment);

/* The same, in a tree where it must succeed. */
void probe_open(source_probe *probe, const char *source, const proc_tree *tree);
void probe_close(source_probe *probe);

/* Takes a reading, as the sampler does: what the source does not write is NaN. */
int probe_sample(source_probe *probe);

/* Gives the file this content, then takes a reading. */
int probe_sample_text(source_probe *probe, const proc_tree *tree, const char *name,
                      const char *text);

/* The last reading of a series, in its unit; of a ratio, that of its numerator. */
double probe_value(const source_probe *probe, const char *key);

/* Whether there is such a series. */
bool probe_has(const source_probe *probe, const char *key);

#endif

#include "probe.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

const smn_source *probe_source(const char *name)
{
    for (int i = 0; smn_sources[i] != NULL; i++) {
        if (strcmp(smn_sources[i]->name, name) == 0)
            return smn_sources[i];
    }
    REQUIRE(!"a source of this name");
    return NULL;
}

int probe_open_in(source_probe *probe, const char *source, const smn_environment *environment)
{
    memset(probe, 0, sizeof *probe);
    probe->source = probe_source(source);
    REQUIRE(smn_text_buffer_init(&probe->text) == 0);
    probe->environment = *environment;
    probe->environment.text = &probe->text;
    if (probe->environment.clock == NULL)
        probe->environment.clock = &smn_system_clock;
    smn_schema_begin_source(&probe->schema, source);
    int error = probe->source->open(&probe->environment, &probe->schema, &probe->state);
    if (error != 0) {
        smn_schema_release(&probe->schema);
        smn_text_buffer_release(&probe->text);
        return error;
    }
    REQUIRE(probe->schema.columns > 0);
    probe->columns = calloc((size_t)probe->schema.columns, sizeof *probe->columns);
    REQUIRE(probe->columns != NULL);
    return 0;
}

void probe_open(source_probe *probe, const char *source, const proc_tree *tree)
{
    smn_environment environment = {.procfs = tree->root, .sysfs = -1, .disk_paths = "/"};
    REQUIRE(probe_open_in(probe, source, &environment) == 0);
}

void probe_close(source_probe *probe)
{
    probe->source->close(probe->state);
    smn_schema_release(&probe->schema);
    smn_text_buffer_release(&probe->text);
    free(probe->columns);
}

int probe_sample(source_probe *probe)
{
    for (int i = 0; i < probe->schema.columns; i++)
        probe->columns[i] = NAN;
    return probe->source->sample(probe->state, probe->columns);
}

int probe_sample_text(source_probe *probe, const proc_tree *tree, const char *name,
                      const char *text)
{
    tree_write_text(tree, name, text);
    return probe_sample(probe);
}

static const smn_series_spec *find(const source_probe *probe, const char *key)
{
    for (int i = 0; i < probe->schema.series_count; i++) {
        if (strcmp(probe->schema.series[i].spec.key, key) == 0)
            return &probe->schema.series[i].spec;
    }
    return NULL;
}

double probe_value(const source_probe *probe, const char *key)
{
    const smn_series_spec *spec = find(probe, key);
    REQUIRE(spec != NULL);
    return probe->columns[spec->numerator] * spec->scale;
}

bool probe_has(const source_probe *probe, const char *key)
{
    return find(probe, key) != NULL;
}

/*
 * statvfs(3) of each path of `disk_paths`.
 *
 * The percentage is that of df(1): what is used, of what is used or can still
 * be had without being root.
 *
 * Paths on file systems of this machine are read here. One that leads, or may
 * lead, to a server or a process that may not answer has a thread of its own,
 * and no values while it hangs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../disk_thread.h"
#include "../mounts.h"
#include "../source.h"

typedef struct {
    const char *path;
    bool is_local;
    smn_disk_thread *thread; /* runs from when the path is not local on */
} disk_place;

typedef struct {
    char *text; /* the paths, cut apart */
    disk_place *places;
    int count;
    smn_mounts mounts;
} disk_state;

static const smn_series_spec series[] = {
    {"disk_usage_percentage{_path}", "percentage", SMN_GAUGE, SMN_DISK_PERCENTAGE, 0, 1.0, 0.0,
     "share of the space that is used, as df tells it", "statvfs of each path",
     "100 · used / (used + available)"},
    {"disk_usage_megabytes{_path}", "megabytes", SMN_GAUGE, SMN_DISK_USED_BYTES, 0, 1e-6, 0.0,
     "space that is used", "statvfs of each path", "(blocks − bfree) · frsize / 1e6"},
    {"disk_available_megabytes{_path}", "megabytes", SMN_GAUGE, SMN_DISK_AVAILABLE_BYTES, 0, 1e-6,
     0.0, "space that is left to who is not root", "statvfs of each path", "bavail · frsize / 1e6"},
};

enum {
    SERIES_PER_PATH = sizeof series / sizeof *series
};

/* ---- open and close ----------------------------------------------------- */

static void disk_close(void *opaque)
{
    disk_state *state = opaque;
    for (int i = 0; i < state->count; i++)
        smn_disk_thread_halt(state->places[i].thread);
    for (int i = 0; i < state->count; i++)
        smn_disk_thread_destroy(state->places[i].thread);
    smn_mounts_release(&state->mounts);
    free(state->places);
    free(state->text);
    free(state);
}

static int split_paths(disk_state *state, const char *lines)
{
    state->text = strdup(lines);
    state->places = calloc(strlen(lines) + 1, sizeof *state->places);
    if (state->text == NULL || state->places == NULL)
        return -ENOMEM;
    char *rest = state->text;
    for (char *path; (path = strsep(&rest, "\n")) != NULL;) {
        if (*path == '\0')
            continue;
        disk_place *place = &state->places[state->count];
        int error = smn_disk_thread_create(path, &place->thread);
        if (error != 0)
            return error;
        place->path = path;
        place->is_local = true;
        state->count++;
    }
    return state->count > 0 ? 0 : -ENODATA;
}

/*
 * What was local may no longer be; then a thread is started even in a tick. The
 * other way round nobody minds. A thread that cannot be had leaves its path
 * without values, and the others alone.
 */
static void tell_places_apart(disk_state *state)
{
    int error = smn_mounts_read(&state->mounts);
    for (int i = 0; i < state->count; i++) {
        disk_place *place = &state->places[i];
        if (!place->is_local ||
            (error == 0 && smn_mounts_lead_locally(&state->mounts, place->path)))
            continue;
        place->is_local = false;
        (void)smn_disk_thread_start(place->thread);
    }
}

/* The portable ones of those that MLflow allows in a key. */
static const char KEY_CHARACTERS[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                     "0123456789_.-";

/* "/data/scratch" is "_data_scratch" in the place of {_path}; "/" beside other paths is "_root". */
static char *suffixed_key(const char *pattern, const char *path)
{
    char *suffixed = NULL;
    while (*path == '/')
        path++;
    int plain = (int)strcspn(pattern, "{");
    if (asprintf(&suffixed, "%.*s_%s", plain, pattern, *path != '\0' ? path : "root") < 0)
        return NULL;
    for (char *at = suffixed; *at != '\0'; at++) {
        if (strchr(KEY_CHARACTERS, *at) == NULL)
            *at = '_';
    }
    return suffixed;
}

static int declare_path(smn_schema *schema, const char *path, int index)
{
    for (int i = 0; i < SERIES_PER_PATH; i++) {
        smn_series_spec spec = series[i];
        spec.numerator += index * SMN_DISK_VALUES;
        char *key = index > 0 ? suffixed_key(spec.key, path)
                              : strndup(spec.key, strcspn(spec.key, "{"));
        if (key == NULL)
            return -ENOMEM;
        spec.key = key;
        int error = smn_schema_add_series(schema, &spec);
        free(key);
        if (error != 0)
            return error;
    }
    return 0;
}

static int disk_open(const smn_environment *environment, smn_schema *schema, void **opaque)
{
    disk_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    smn_mounts_init(&state->mounts, environment->procfs, environment->text);
    int error = split_paths(state, environment->disk_paths);
    if (error == 0)
        smn_schema_add_columns(schema, state->count * SMN_DISK_VALUES);
    for (int i = 0; i < state->count && error == 0; i++)
        error = declare_path(schema, state->places[i].path, i);
    if (error != 0) {
        disk_close(state);
        return error;
    }
    tell_places_apart(state);
    *opaque = state;
    return 0;
}

/* ---- a tick ------------------------------------------------------------- */

static int disk_sample(void *opaque, double *columns)
{
    disk_state *state = opaque;
    int first_error = 0;
    if (smn_mounts_have_changed(&state->mounts))
        tell_places_apart(state);
    for (int i = 0; i < state->count; i++) {
        if (!state->places[i].is_local)
            smn_disk_thread_prepare(state->places[i].thread);
    }
    /* A path that is gone, or does not answer, hides only its own values. */
    for (int i = 0; i < state->count; i++) {
        const disk_place *place = &state->places[i];
        double *values = columns + (size_t)i * SMN_DISK_VALUES;
        int error = place->is_local ? smn_disk_read(place->path, values)
                                    : smn_disk_thread_take(place->thread, values);
        if (first_error == 0)
            first_error = error;
    }
    return first_error;
}

const smn_source smn_source_disk_space = {
    .name = "disk_space",
    .by_default = true,
    .min_interval_ns = 1000000000, /* space does not change a thousand times a second */
    .open = disk_open,
    .sample = disk_sample,
    .close = disk_close,
    .series = series,
    .series_count = SERIES_PER_PATH,
};

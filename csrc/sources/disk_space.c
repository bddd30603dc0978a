/*
 * statvfs(3) of each path of `disk_paths`.
 *
 * The percentage is that of df(1): what is used, of what is used or can still
 * be had without being root.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "../source.h"

enum {
    PERCENTAGE = 0,
    USED_BYTES,
    AVAILABLE_BYTES,
    COLUMNS_PER_PATH
};

typedef struct {
    char *text; /* the paths, cut apart */
    char **paths;
    int count;
} disk_state;

static const smn_series_spec series[] = {
    {"disk_usage_percentage{_path}", "percentage", SMN_GAUGE, PERCENTAGE, 0, 1.0, 0.0,
     "share of the space that is used, as df tells it", "statvfs of each path",
     "100 · used / (used + available)"},
    {"disk_usage_megabytes{_path}", "megabytes", SMN_GAUGE, USED_BYTES, 0, 1e-6, 0.0,
     "space that is used", "statvfs of each path", "(blocks − bfree) · frsize / 1e6"},
    {"disk_available_megabytes{_path}", "megabytes", SMN_GAUGE, AVAILABLE_BYTES, 0, 1e-6, 0.0,
     "space that is left to who is not root", "statvfs of each path", "bavail · frsize / 1e6"},
};

enum {
    SERIES_PER_PATH = sizeof series / sizeof *series
};

static void disk_close(void *opaque)
{
    disk_state *state = opaque;
    free(state->paths);
    free(state->text);
    free(state);
}

static int split_paths(disk_state *state, const char *lines)
{
    state->text = strdup(lines);
    state->paths = calloc(strlen(lines) + 1, sizeof *state->paths);
    if (state->text == NULL || state->paths == NULL)
        return -ENOMEM;
    char *rest = state->text;
    for (char *path; (path = strsep(&rest, "\n")) != NULL;) {
        if (*path != '\0')
            state->paths[state->count++] = path;
    }
    return state->count > 0 ? 0 : -ENODATA;
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
        spec.numerator += index * COLUMNS_PER_PATH;
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
    int error = split_paths(state, environment->disk_paths);
    if (error == 0)
        smn_schema_add_columns(schema, state->count * COLUMNS_PER_PATH);
    for (int i = 0; i < state->count && error == 0; i++)
        error = declare_path(schema, state->paths[i], i);
    if (error != 0) {
        disk_close(state);
        return error;
    }
    *opaque = state;
    return 0;
}

static int sample_path(const char *path, double *columns)
{
    struct statvfs space;
    if (statvfs(path, &space) != 0)
        return -errno;
    if (space.f_blocks == 0 || space.f_bfree > space.f_blocks)
        return -ENODATA; /* a file system that is not made of blocks, like proc */
    double block = (double)(space.f_frsize != 0 ? space.f_frsize : space.f_bsize);
    double used = (double)(space.f_blocks - space.f_bfree) * block;
    double available = (double)space.f_bavail * block;
    if (used + available > 0.0)
        columns[PERCENTAGE] = used / (used + available) * 100.0;
    columns[USED_BYTES] = used;
    columns[AVAILABLE_BYTES] = available;
    return 0;
}

static int disk_sample(void *opaque, double *columns)
{
    disk_state *state = opaque;
    int first_error = 0;
    /* A path that is gone hides only its own values. */
    for (int i = 0; i < state->count; i++) {
        int error = sample_path(state->paths[i], columns + (size_t)i * COLUMNS_PER_PATH);
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

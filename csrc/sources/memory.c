/*
 * MemTotal:       24689764 kB
 * MemAvailable:   23922516 kB
 *
 * Lines of /proc/meminfo (proc_meminfo(5)), in KiB whatever the unit says.
 * Kernels before 3.14 and some containers have no MemAvailable.
 */
#include <errno.h>
#include <stdlib.h>

#include "../procfile.h"
#include "../source.h"

enum {
    MEM_TOTAL,
    MEM_FREE,
    MEM_AVAILABLE,
    BUFFERS,
    CACHED,
    SRECLAIMABLE,
    KEYS
};

enum {
    START_BYTES = 256, /* three lines of the longest numbers are less than half of it */
    USED_BYTES = 0,
    USED_PERCENTAGE,
    COLUMNS
};

/* In the order of the kernel's file, so that one pass without backtracking finds them. */
static const char keys[KEYS][16] = {
    [MEM_TOTAL] = "MemTotal:", [MEM_FREE] = "MemFree:", [MEM_AVAILABLE] = "MemAvailable:",
    [BUFFERS] = "Buffers:",    [CACHED] = "Cached:",    [SRECLAIMABLE] = "SReclaimable:",
};

typedef struct {
    smn_procfile meminfo;
} memory_state;

typedef struct {
    bool present[KEYS];
    uint64_t kib[KEYS];
} meminfo;

static const smn_series_spec series[] = {
    {"system_memory_usage_megabytes", "megabytes", SMN_GAUGE, USED_BYTES, 0, 1e-6, 0.0,
     "memory that is neither free nor can be freed without swapping", "/proc/meminfo",
     "used · 1024 / 1e6; used: MemTotal − MemAvailable, or, without that, MemTotal − MemFree − "
     "Buffers − Cached − SReclaimable"},
    {"system_memory_usage_percentage", "percentage", SMN_GAUGE, USED_PERCENTAGE, 0, 1.0, 0.0,
     "share of all memory that is used so", "/proc/meminfo", "100 · used / MemTotal"},
};

static void memory_close(void *opaque)
{
    memory_state *state = opaque;
    smn_procfile_release(&state->meminfo);
    free(state);
}

static int memory_open(const smn_environment *environment, smn_schema *schema, void **opaque)
{
    memory_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    smn_procfile_init(&state->meminfo, environment->procfs, "meminfo", environment->text);
    smn_schema_add_columns(schema, COLUMNS);
    int error = smn_schema_add_all(schema, series, sizeof series / sizeof *series);
    if (error != 0) {
        memory_close(state);
        return error;
    }
    *opaque = state;
    return 0;
}

static int parse_line(smn_cursor line, meminfo *info)
{
    for (int key = 0; key < KEYS; key++) {
        if (info->present[key] || !smn_scan_key(&line, keys[key]))
            continue;
        info->present[key] = true;
        return smn_scan_u64(&line, &info->kib[key]);
    }
    return 0;
}

/* In some containers MemAvailable is that of the host: more than there is, and of no use. */
static bool has_available(const meminfo *info)
{
    return info->present[MEM_TOTAL] && info->present[MEM_AVAILABLE] &&
           info->kib[MEM_AVAILABLE] <= info->kib[MEM_TOTAL];
}

/* MemAvailable is all that is wanted; without it the whole file is searched, to its true end. */
static int parse(smn_cursor text, meminfo *info)
{
    smn_cursor line;
    while (!has_available(info) && smn_scan_line(&text, &line)) {
        int error = parse_line(line, info);
        if (error != 0)
            return error;
    }
    return has_available(info) || text.at == text.end ? 0 : -EBADMSG;
}

/* MemAvailable stands in the third line: where it is of use, one short reading is enough. */
static int read_meminfo(smn_procfile *file, meminfo *info)
{
    int error = smn_procfile_read_start(file, START_BYTES);
    *info = (meminfo){0};
    if (error != 0 || (parse(smn_procfile_text(file), info) == 0 && has_available(info)))
        return error;
    error = smn_procfile_read(file);
    *info = (meminfo){0};
    return error == 0 ? parse(smn_procfile_text(file), info) : error;
}

/* What is neither free nor can be freed without swapping. */
static int used_kib(const meminfo *info, uint64_t *used)
{
    *used = info->kib[MEM_TOTAL];
    if (has_available(info)) {
        *used -= info->kib[MEM_AVAILABLE];
        return 0;
    }
    if (!info->present[MEM_FREE] || !info->present[BUFFERS] || !info->present[CACHED])
        return -EBADMSG;
    /* SReclaimable came with 2.6.19: absent, it is 0 here. */
    static const int unused[] = {MEM_FREE, BUFFERS, CACHED, SRECLAIMABLE};
    for (size_t i = 0; i < sizeof unused / sizeof *unused; i++) {
        if (info->kib[unused[i]] > *used)
            return -EBADMSG;
        *used -= info->kib[unused[i]];
    }
    return 0;
}

static int memory_sample(void *opaque, double *columns)
{
    memory_state *state = opaque;
    meminfo info;
    int error = read_meminfo(&state->meminfo, &info);
    if (error != 0)
        return error;
    if (!info.present[MEM_TOTAL] || info.kib[MEM_TOTAL] == 0)
        return -EBADMSG;
    uint64_t used;
    error = used_kib(&info, &used);
    if (error != 0)
        return error;
    columns[USED_BYTES] = (double)used * 1024.0;
    columns[USED_PERCENTAGE] = (double)used / (double)info.kib[MEM_TOTAL] * 100.0;
    return 0;
}

const smn_source smn_source_memory = {
    .name = "memory",
    .by_default = true,
    .open = memory_open,
    .sample = memory_sample,
    .close = memory_close,
    .series = series,
    .series_count = sizeof series / sizeof *series,
};

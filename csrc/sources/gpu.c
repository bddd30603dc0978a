/*
 * GPUs, as the GPU thread reads them (gpu/monitor.h): three sources, because
 * their calls cost a driver more and more. A tick takes what is new and leaves
 * the rest absent, so every reading counts once.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "../gpu/monitor.h"
#include "../source.h"

/*
 * A driver refreshes its counter about ten times a second: a much shorter stretch
 * tells of that alone. A little less than the half second between two readings.
 */
static const double ENERGY_SECONDS = 0.4;

enum {
    KEY_BYTES = 96,
    MOST_COLUMNS = SMN_GPU_MAILBOX_VALUES
};

/* A series of each device that has its value. %d: the driver's index, and that of a MIG device. */
typedef struct {
    const char *key;
    const char *unit;
    int kind;
    int numerator;   /* values of the group */
    int denominator; /* SMN_RATIO */
    double scale;
    double quantum;
    int instances; /* so many of them, at the values that follow; 0: one of the device itself */
} gpu_series;

typedef struct {
    smn_gpu_group group;
    const gpu_series *series;
    int series_count;
} gpu_catalogue;

typedef struct {
    int place;
    int columns[MOST_COLUMNS]; /* by value: where it goes in the row, or -1 */
} gpu_columns;

typedef struct {
    smn_gpus *gpus;
    smn_gpu_group group;
    gpu_columns *devices;
    int device_count;
} gpu_state;

/* ---- open --------------------------------------------------------------- */

static int column_of(gpu_columns *device, int value, smn_schema *schema)
{
    if (device->columns[value] < 0) {
        device->columns[value] = schema->columns - schema->open_column;
        smn_schema_add_columns(schema, 1);
    }
    return device->columns[value];
}

static int declare_one(smn_gpus *gpus, gpu_columns *device, const gpu_series *series, int instance,
                       smn_gpu_group group, smn_schema *schema)
{
    smn_gpu_info info;
    int numerator = series->numerator + instance;
    bool has = smn_gpus_has(gpus, device->place, group, numerator) &&
               (series->kind != SMN_RATIO ||
                smn_gpus_has(gpus, device->place, group, series->denominator));
    if (!has || smn_gpus_device(gpus, device->place, &info) != 0)
        return 0;
    char key[KEY_BYTES];
    snprintf(key, sizeof key, series->key, info.index, instance);
    smn_series_spec spec = {
        .key = key,
        .unit = series->unit,
        .kind = series->kind,
        .numerator = column_of(device, numerator, schema),
        .denominator = 0,
        .scale = series->scale,
        .quantum = series->quantum,
    };
    if (series->kind == SMN_RATIO)
        spec.denominator = column_of(device, series->denominator, schema);
    return smn_schema_add_series(schema, &spec);
}

static int declare_device(gpu_state *state, int place, const gpu_catalogue *catalogue,
                          smn_schema *schema)
{
    gpu_columns *device = &state->devices[state->device_count++];
    device->place = place;
    for (int i = 0; i < MOST_COLUMNS; i++)
        device->columns[i] = -1;
    int error = 0;
    for (int s = 0; s < catalogue->series_count && error == 0; s++) {
        const gpu_series *series = &catalogue->series[s];
        int count = series->instances > 0 ? series->instances : 1;
        for (int i = 0; i < count && error == 0; i++)
            error = declare_one(state->gpus, device, series, i, catalogue->group, schema);
    }
    return error;
}

static void gpu_close(void *opaque)
{
    gpu_state *state = opaque;
    free(state->devices);
    free(state);
}

static int open_group(const smn_environment *environment, const gpu_catalogue *catalogue,
                      smn_schema *schema, void **opaque)
{
    smn_gpus *gpus = environment->gpus;
    int count = gpus != NULL ? smn_gpus_count(gpus) : 0;
    int columns_before = schema->columns;
    if (count == 0)
        return -ENODATA;
    gpu_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    state->gpus = gpus;
    state->group = catalogue->group;
    state->devices = calloc((size_t)count, sizeof *state->devices);
    int error = state->devices != NULL ? 0 : -ENOMEM;
    for (int place = 0; place < count && error == 0; place++)
        error = declare_device(state, place, catalogue, schema);
    if (error == 0 && schema->columns == columns_before)
        error = -ENODATA;
    if (error != 0) {
        gpu_close(state);
        return error;
    }
    *opaque = state;
    return 0;
}

/* ---- a tick ------------------------------------------------------------- */

static int gpu_sample(void *opaque, double *columns)
{
    gpu_state *state = opaque;
    double values[SMN_GPU_MAILBOX_VALUES];
    for (int d = 0; d < state->device_count; d++) {
        const gpu_columns *device = &state->devices[d];
        if (!smn_gpus_take(state->gpus, device->place, state->group, values))
            continue;
        for (int i = 0; i < MOST_COLUMNS; i++) {
            if (device->columns[i] >= 0)
                columns[device->columns[i]] = values[i];
        }
    }
    return 0;
}

static void gpu_stats(const void *opaque, smn_source_stats *stats)
{
    const gpu_state *state = opaque;
    smn_gpus_group_stats(state->gpus, state->group, stats);
}

static void gpu_slow_down(void *opaque, uint64_t apart_ns)
{
    gpu_state *state = opaque;
    smn_gpus_slow_down(state->gpus, state->group, apart_ns);
}

/* ---- the sources -------------------------------------------------------- */

static const gpu_series basic[] = {
    {"gpu_%d_utilization_percentage", "percentage", SMN_GAUGE, SMN_GPU_VALUE_UTILIZATION, 0, 1.0,
     0.0, 0},
    {"gpu_%d_memory_usage_megabytes", "megabytes", SMN_GAUGE, SMN_GPU_VALUE_MEMORY_USED, 0, 1e-6,
     0.0, 0},
    {"gpu_%d_memory_usage_percentage", "percentage", SMN_GAUGE, SMN_GPU_VALUE_MEMORY_SHARE, 0,
     100.0, 0.0, 0},
    {"gpu_%d_power_usage_watts", "watts", SMN_RATIO, SMN_GPU_VALUE_ENERGY,
     SMN_GPU_VALUE_ENERGY_SECONDS, 1.0, ENERGY_SECONDS, 0},
    {"gpu_%d_power_usage_percentage", "percentage", SMN_RATIO, SMN_GPU_VALUE_LIMIT_SECONDS,
     SMN_GPU_VALUE_LIMITED_SECONDS, 100.0, ENERGY_SECONDS, 0},
    /* One or the other: a device with an energy counter does not have these. */
    {"gpu_%d_power_usage_watts", "watts", SMN_GAUGE, SMN_GPU_VALUE_POWER, 0, 1.0, 0.0, 0},
    {"gpu_%d_power_usage_percentage", "percentage", SMN_GAUGE, SMN_GPU_VALUE_POWER_SHARE, 0, 100.0,
     0.0, 0},
    {"gpu_%d_mig_%d_memory_usage_megabytes", "megabytes", SMN_GAUGE, SMN_GPU_VALUE_INSTANCE_USED, 0,
     1e-6, 0.0, SMN_GPU_MOST_INSTANCES},
    {"gpu_%d_mig_%d_memory_usage_percentage", "percentage", SMN_GAUGE, SMN_GPU_VALUE_INSTANCE_SHARE,
     0, 100.0, 0.0, SMN_GPU_MOST_INSTANCES},
};

#define TRAFFIC(key, way)                                                                          \
    {key,                                                                                          \
     "megabytes per second",                                                                       \
     SMN_RATIO,                                                                                    \
     SMN_GPU_VALUE_TRAFFIC + (way),                                                                \
     SMN_GPU_VALUE_TRAFFIC_SECONDS,                                                                \
     1e-6,                                                                                         \
     0.0,                                                                                          \
     0},                                                                                           \
        {key, "megabytes per second", SMN_GAUGE, SMN_GPU_VALUE_TRAFFIC_RATE + (way), 0, 1e-6, 0.0, \
         0}

static const gpu_series detail[] = {
    {"gpu_%d_temperature_celsius", "celsius", SMN_GAUGE, SMN_GPU_VALUE_TEMPERATURE, 0, 1.0, 0.0, 0},
    {"gpu_%d_energy_joules", "joules", SMN_TOTAL, SMN_GPU_VALUE_ENERGY_TOTAL, 0, 1.0, 0.0, 0},
    {"gpu_%d_sm_clock_megahertz", "megahertz", SMN_GAUGE, SMN_GPU_VALUE_SM_CLOCK, 0, 1.0, 0.0, 0},
    {"gpu_%d_memory_clock_megahertz", "megahertz", SMN_GAUGE, SMN_GPU_VALUE_MEMORY_CLOCK, 0, 1.0,
     0.0, 0},
    {"gpu_%d_throttled_percentage", "percentage", SMN_GAUGE, SMN_GPU_VALUE_THROTTLED, 0, 100.0, 0.0,
     0},
    {"gpu_%d_ecc_errors", "errors", SMN_TOTAL, SMN_GPU_VALUE_ECC_ERRORS, 0, 1.0, 0.0, 0},
    TRAFFIC("gpu_%d_pcie_receive_megabytes_per_second", 0),
    TRAFFIC("gpu_%d_pcie_transmit_megabytes_per_second", 1),
    TRAFFIC("gpu_%d_nvlink_receive_megabytes_per_second", 2),
    TRAFFIC("gpu_%d_nvlink_transmit_megabytes_per_second", 3),
};

#define PROFILING(key, reading)                                                                    \
    {key, "percentage", SMN_GAUGE, (reading) - SMN_GPU_SM_ACTIVE, 0, 1.0, 0.0, 0}

static const gpu_series profiling[] = {
    PROFILING("gpu_%d_sm_active_percentage", SMN_GPU_SM_ACTIVE),
    PROFILING("gpu_%d_sm_occupancy_percentage", SMN_GPU_SM_OCCUPANCY),
    PROFILING("gpu_%d_tensor_active_percentage", SMN_GPU_TENSOR_ACTIVE),
    PROFILING("gpu_%d_dram_active_percentage", SMN_GPU_DRAM_ACTIVE),
    PROFILING("gpu_%d_fp16_active_percentage", SMN_GPU_FP16_ACTIVE),
    PROFILING("gpu_%d_fp32_active_percentage", SMN_GPU_FP32_ACTIVE),
    PROFILING("gpu_%d_fp64_active_percentage", SMN_GPU_FP64_ACTIVE),
};

#define SOURCE(source, is_default, which, catalogue)                                               \
    static int source##_open(const smn_environment *environment, smn_schema *schema, void **state) \
    {                                                                                              \
        static const gpu_catalogue all = {which, catalogue,                                        \
                                          sizeof(catalogue) / sizeof *catalogue};                  \
        return open_group(environment, &all, schema, state);                                       \
    }                                                                                              \
    const smn_source smn_source_##source = {                                                       \
        .name = #source,                                                                           \
        .by_default = is_default,                                                                  \
        .min_interval_ns = SMN_GPU_SHORTEST_PERIOD_NS,                                             \
        .open = source##_open,                                                                     \
        .sample = gpu_sample,                                                                      \
        .close = gpu_close,                                                                        \
        .stats = gpu_stats,                                                                        \
        .slow_down = gpu_slow_down,                                                                \
    };

SOURCE(gpu, true, SMN_GPU_BASIC, basic)
SOURCE(gpu_detail, false, SMN_GPU_DETAIL, detail)
SOURCE(gpu_profiling, false, SMN_GPU_PROFILING, profiling)

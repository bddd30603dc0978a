/*
 * GPUs, as the GPU thread reads them (gpu/monitor.h): three sources, because
 * their calls cost a driver more and more. A tick takes what is new and leaves
 * the rest absent, so every reading counts once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../gpu/monitor.h"
#include "../source.h"

/*
 * A driver refreshes its counter about ten times a second: a much shorter stretch
 * tells of that alone. A little less than the half second between two readings.
 */
static const double ENERGY_SECONDS = 0.4;

enum {
    MOST_COLUMNS = SMN_GPU_MAILBOX_VALUES
};

/* Its columns are values of the group; each device that has them has the series. */
typedef struct {
    smn_gpu_group group;
    const smn_series_spec *series;
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

static int declare_one(smn_gpus *gpus, gpu_columns *device, const smn_series_spec *series,
                       int instance, smn_gpu_group group, smn_schema *schema)
{
    smn_gpu_info info;
    int numerator = series->numerator + instance;
    bool has = smn_gpus_has(gpus, device->place, group, numerator) &&
               (series->kind != SMN_RATIO ||
                smn_gpus_has(gpus, device->place, group, series->denominator));
    if (!has || smn_gpus_device(gpus, device->place, &info) != 0)
        return 0;
    smn_series_spec spec = *series;
    spec.numerator = column_of(device, numerator, schema);
    if (series->kind == SMN_RATIO)
        spec.denominator = column_of(device, series->denominator, schema);
    return smn_schema_add_numbered(schema, &spec, info.index, instance);
}

/* Of those of MIG devices: one each, at the values that follow. */
static int count_of(const smn_series_spec *series)
{
    return strstr(series->key, "{j}") != NULL ? SMN_GPU_MOST_INSTANCES : 1;
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
        const smn_series_spec *series = &catalogue->series[s];
        for (int i = 0; i < count_of(series) && error == 0; i++)
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

/* What NVML has; AMD's libraries tell the same by other names, as far as they do. */
static const char MEMORY[] = "nvmlDeviceGetMemoryInfo";
static const char ENERGY[] = "nvmlDeviceGetTotalEnergyConsumption";
static const char POWER[] = "nvmlDeviceGetPowerUsage";
static const char FIELDS[] = "nvmlDeviceGetFieldValues";
static const char GPM[] = "nvmlGpmMetricsGet";

static const smn_series_spec basic[] = {
    {"gpu_{i}_utilization_percentage", "percentage", SMN_GAUGE, SMN_GPU_VALUE_UTILIZATION, 0, 1.0,
     0.0, "share of time in which a kernel ran, however small", "nvmlDeviceGetUtilizationRates",
     "as it is; the driver counts it over 1/6 to 1 s"},
    {"gpu_{i}_memory_usage_megabytes", "megabytes", SMN_GAUGE, SMN_GPU_VALUE_MEMORY_USED, 0, 1e-6,
     0.0, "memory that is used", MEMORY, "used / 1e6"},
    {"gpu_{i}_memory_usage_percentage", "percentage", SMN_GAUGE, SMN_GPU_VALUE_MEMORY_SHARE, 0,
     100.0, 0.0, "share of its memory that is used", MEMORY, "100 · used / total"},
    {"gpu_{i}_power_usage_watts", "watts", SMN_RATIO, SMN_GPU_VALUE_ENERGY,
     SMN_GPU_VALUE_ENERGY_SECONDS, 1.0, ENERGY_SECONDS,
     "mean power, where the device counts its energy", ENERGY,
     "Δjoules / Δt, between readings of the counter"},
    {"gpu_{i}_power_usage_percentage", "percentage", SMN_RATIO, SMN_GPU_VALUE_LIMIT_SECONDS,
     SMN_GPU_VALUE_LIMITED_SECONDS, 100.0, ENERGY_SECONDS,
     "mean power, of the limit that is enforced",
     "nvmlDeviceGetTotalEnergyConsumption, nvmlDeviceGetEnforcedPowerLimit",
     "100 · Δjoules / limit / Δt"},
    /* One or the other: a device with an energy counter does not have these. */
    {"gpu_{i}_power_usage_watts", "watts", SMN_GAUGE, SMN_GPU_VALUE_POWER, 0, 1.0, 0.0,
     "power, where the device does not count its energy", POWER, "as it is"},
    {"gpu_{i}_power_usage_percentage", "percentage", SMN_GAUGE, SMN_GPU_VALUE_POWER_SHARE, 0, 100.0,
     0.0, "power, of the limit that is enforced",
     "nvmlDeviceGetPowerUsage, nvmlDeviceGetEnforcedPowerLimit", "100 · power / limit"},
    {"gpu_{i}_mig_{j}_memory_usage_megabytes", "megabytes", SMN_GAUGE, SMN_GPU_VALUE_INSTANCE_USED,
     0, 1e-6, 0.0, "memory that is used of a MIG device", MEMORY, "used / 1e6"},
    {"gpu_{i}_mig_{j}_memory_usage_percentage", "percentage", SMN_GAUGE,
     SMN_GPU_VALUE_INSTANCE_SHARE, 0, 100.0, 0.0, "share of a MIG device's memory that is used",
     MEMORY, "100 · used / total"},
};

#define TRAFFIC(key, way, where, of)                                                               \
    {key,                                                                                          \
     "megabytes per second",                                                                       \
     SMN_RATIO,                                                                                    \
     SMN_GPU_VALUE_TRAFFIC + (way),                                                                \
     SMN_GPU_VALUE_TRAFFIC_SECONDS,                                                                \
     1e-6,                                                                                         \
     0.0,                                                                                          \
     where ", where the device counts it",                                                         \
     FIELDS,                                                                                       \
     "Δ" of " / 1e6 / Δt, between readings of the counter"},                                       \
        {key,       "megabytes per second",                                                        \
         SMN_GAUGE, SMN_GPU_VALUE_TRAFFIC_RATE + (way),                                            \
         0,         1e-6,                                                                          \
         0.0,       where ", where it does not",                                                   \
         GPM,       "MiB/s · 1.048576, over the time since the reading before"}

static const smn_series_spec detail[] = {
    {"gpu_{i}_temperature_celsius", "celsius", SMN_GAUGE, SMN_GPU_VALUE_TEMPERATURE, 0, 1.0, 0.0,
     "temperature; on AMD that of the hottest spot, where there is a sensor",
     "nvmlDeviceGetTemperature", "as it is"},
    {"gpu_{i}_energy_joules", "joules", SMN_TOTAL, SMN_GPU_VALUE_ENERGY_TOTAL, 0, 1.0, 0.0,
     "energy since the start", ENERGY, "Δjoules, summed; a reset adds nothing"},
    {"gpu_{i}_sm_clock_megahertz", "megahertz", SMN_GAUGE, SMN_GPU_VALUE_SM_CLOCK, 0, 1.0, 0.0,
     "clock of the multiprocessors; on AMD of the graphics engine", "nvmlDeviceGetClockInfo",
     "as it is"},
    {"gpu_{i}_memory_clock_megahertz", "megahertz", SMN_GAUGE, SMN_GPU_VALUE_MEMORY_CLOCK, 0, 1.0,
     0.0, "clock of the memory", "nvmlDeviceGetClockInfo", "as it is"},
    {"gpu_{i}_throttled_percentage", "percentage", SMN_GAUGE, SMN_GPU_VALUE_THROTTLED, 0, 100.0,
     0.0, "share of readings in which power, heat or hardware slowed its clocks",
     "nvmlDeviceGetCurrentClocksEventReasons",
     "100 if any of the bits is set: software power cap, hardware or thermal slowdown, power "
     "brake; else 0"},
    {"gpu_{i}_ecc_errors", "errors", SMN_TOTAL, SMN_GPU_VALUE_ECC_ERRORS, 0, 1.0, 0.0,
     "memory errors since the start, corrected ones included", "nvmlDeviceGetTotalEccErrors",
     "Δ(corrected + uncorrected), summed; a reset adds nothing"},
    TRAFFIC("gpu_{i}_pcie_receive_megabytes_per_second", 0, "received over PCIe", "bytes"),
    TRAFFIC("gpu_{i}_pcie_transmit_megabytes_per_second", 1, "sent over PCIe", "bytes"),
    TRAFFIC("gpu_{i}_nvlink_receive_megabytes_per_second", 2, "received over all its NVLinks",
            "KiB · 1024"),
    TRAFFIC("gpu_{i}_nvlink_transmit_megabytes_per_second", 3, "sent over all its NVLinks",
            "KiB · 1024"),
};

#define PROFILING(key, reading, meaning)                                                           \
    {key,       "percentage",                                                                      \
     SMN_GAUGE, (reading) - SMN_GPU_SM_ACTIVE,                                                     \
     0,         1.0,                                                                               \
     0.0,       meaning,                                                                           \
     GPM,       "as it is, over the time since the reading before"}

static const smn_series_spec profiling[] = {
    PROFILING("gpu_{i}_sm_active_percentage", SMN_GPU_SM_ACTIVE,
              "multiprocessors that had work, of all"),
    PROFILING("gpu_{i}_sm_occupancy_percentage", SMN_GPU_SM_OCCUPANCY,
              "warps at work, of the most that fit"),
    PROFILING("gpu_{i}_tensor_active_percentage", SMN_GPU_TENSOR_ACTIVE,
              "time in which tensor cores worked"),
    PROFILING("gpu_{i}_dram_active_percentage", SMN_GPU_DRAM_ACTIVE,
              "memory bandwidth, of the most there is"),
    PROFILING("gpu_{i}_fp16_active_percentage", SMN_GPU_FP16_ACTIVE,
              "time in which 16-bit floats were computed with, outside of tensor cores"),
    PROFILING("gpu_{i}_fp32_active_percentage", SMN_GPU_FP32_ACTIVE,
              "time in which 32-bit floats were computed with, outside of tensor cores"),
    PROFILING("gpu_{i}_fp64_active_percentage", SMN_GPU_FP64_ACTIVE,
              "time in which 64-bit floats were computed with, outside of tensor cores"),
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
        .series = catalogue,                                                                       \
        .series_count = sizeof(catalogue) / sizeof *catalogue,                                     \
    };

SOURCE(gpu, true, SMN_GPU_BASIC, basic)
SOURCE(gpu_detail, false, SMN_GPU_DETAIL, detail)
SOURCE(gpu_profiling, false, SMN_GPU_PROFILING, profiling)

/*
 * NVIDIA's management library, libnvidia-ml.so.1, which comes with the driver.
 *
 * https://docs.nvidia.com/deploy/nvml-api: its units are milliwatts,
 * millijoules, KiB of NVLink traffic and MiB a second of GPM's.
 */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../clock.h"
#include "driver.h"
#include "nvml_abi.h"

enum {
    GPM_MOST_METRICS = 8
};

static const uint64_t GPM_SHORTEST_NS = 100000000; /* below that its numbers mean nothing */

/*
 * GPM's metrics are differences between two samples. The newer one becomes the
 * older one of the next pair, so that pairs span time without a gap.
 */
typedef struct {
    smn_nvml_gpm_sample older;
    smn_nvml_gpm_sample newer;
    bool has_older;
    uint64_t older_ns;
} gpm_pair;

typedef struct {
    smn_nvml_device handle; /* NULL: the driver does not give it out */
    char uuid[SMN_GPU_TEXT_BYTES];
    bool has_traffic_counters; /* all of them, and needs no GPM for these */
    int instance_count;
    smn_nvml_device instances[SMN_GPU_MOST_INSTANCES]; /* NULL where there is none */
    gpm_pair profiling;
    gpm_pair traffic;
} nvml_device;

#define POINTER(name, arguments) int(*name) arguments;

typedef struct {
    SMN_NVML_REQUIRED(POINTER)
    SMN_NVML_OPTIONAL(POINTER)
    smn_nvml_gpm_metrics_get *metrics; /* room for GPM_MOST_METRICS */
    int device_count;
    nvml_device devices[SMN_GPU_MOST_DEVICES];
} nvml_state;

/* ---- results ------------------------------------------------------------ */

static int errno_of(int code)
{
    switch (code) {
    case SMN_NVML_SUCCESS:
        return 0;
    case SMN_NVML_ERROR_NOT_SUPPORTED:
    case SMN_NVML_ERROR_FUNCTION_NOT_FOUND:
    case SMN_NVML_ERROR_ARGUMENT_VERSION_MISMATCH:
    case SMN_NVML_ERROR_DEPRECATED:
        return -ENOTSUP;
    case SMN_NVML_ERROR_NO_PERMISSION:
        return -EACCES;
    case SMN_NVML_ERROR_GPU_IS_LOST:
    case SMN_NVML_ERROR_RESET_REQUIRED:
    case SMN_NVML_ERROR_GPU_NOT_FOUND:
        return -ENODEV;
    case SMN_NVML_ERROR_UNINITIALIZED:
        return -ENOTCONN;
    case SMN_NVML_ERROR_TIMEOUT:
        return -ETIMEDOUT;
    default:
        return -EIO;
    }
}

static const char *reason_of(int code)
{
    switch (code) {
    case SMN_NVML_ERROR_NO_PERMISSION:
        return "no permission";
    case SMN_NVML_ERROR_DRIVER_NOT_LOADED:
        return "the driver is not loaded";
    case SMN_NVML_ERROR_LIBRARY_NOT_FOUND:
        return "a library of the driver is missing";
    case SMN_NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return "library and driver are of different versions";
    default:
        return "it failed";
    }
}

/* The result of a function that an older library may not have. */
#define CALL(state, name, ...)                                                                     \
    ((state)->name == NULL ? -ENOTSUP : errno_of((state)->name(__VA_ARGS__)))

/* ---- readings ----------------------------------------------------------- */

static nvml_device *device_of(void *opaque, int index)
{
    return &((nvml_state *)opaque)->devices[index];
}

static int read_utilization(void *opaque, int index, double *readings)
{
    nvml_state *state = opaque;
    smn_nvml_utilization utilization = {0};
    int error = CALL(state, nvmlDeviceGetUtilizationRates, state->devices[index].handle,
                     &utilization);
    if (error == 0)
        readings[SMN_GPU_UTILIZATION] = utilization.gpu;
    return error;
}

static int read_memory_of(nvml_state *state, smn_nvml_device handle, double *used, double *total)
{
    smn_nvml_memory memory = {0};
    int error = CALL(state, nvmlDeviceGetMemoryInfo, handle, &memory);
    if (error == 0) {
        *used = (double)memory.used;
        *total = (double)memory.total;
    }
    return error;
}

static int read_memory(void *opaque, int index, double *readings)
{
    return read_memory_of(opaque, device_of(opaque, index)->handle, &readings[SMN_GPU_MEMORY_USED],
                          &readings[SMN_GPU_MEMORY_TOTAL]);
}

static int read_energy(void *opaque, int index, double *readings)
{
    nvml_state *state = opaque;
    unsigned long long millijoules = 0;
    int error = CALL(state, nvmlDeviceGetTotalEnergyConsumption, state->devices[index].handle,
                     &millijoules);
    if (error == 0)
        readings[SMN_GPU_ENERGY] = (double)millijoules * 1e-3;
    return error;
}

static int read_power(void *opaque, int index, double *readings)
{
    nvml_state *state = opaque;
    unsigned int milliwatts = 0;
    int error = CALL(state, nvmlDeviceGetPowerUsage, state->devices[index].handle, &milliwatts);
    if (error == 0)
        readings[SMN_GPU_POWER] = milliwatts * 1e-3;
    return error;
}

static int read_power_limit(void *opaque, int index, double *readings)
{
    nvml_state *state = opaque;
    unsigned int milliwatts = 0;
    int error = CALL(state, nvmlDeviceGetEnforcedPowerLimit, state->devices[index].handle,
                     &milliwatts);
    if (error == 0 && milliwatts > 0)
        readings[SMN_GPU_POWER_LIMIT] = milliwatts * 1e-3;
    return error;
}

static int read_instances(void *opaque, int index, double *readings)
{
    nvml_device *device = device_of(opaque, index);
    int first_error = device->instance_count > 0 ? 0 : -ENOTSUP;
    for (int i = 0; i < device->instance_count; i++) {
        if (device->instances[i] == NULL)
            continue;
        int error = read_memory_of(opaque, device->instances[i],
                                   &readings[SMN_GPU_INSTANCE_MEMORY_USED + i],
                                   &readings[SMN_GPU_INSTANCE_MEMORY_TOTAL + i]);
        if (first_error == 0)
            first_error = error;
    }
    return first_error;
}

static int read_temperature(void *opaque, int index, double *readings)
{
    nvml_state *state = opaque;
    unsigned int celsius = 0;
    int error = CALL(state, nvmlDeviceGetTemperature, state->devices[index].handle,
                     SMN_NVML_TEMPERATURE_GPU, &celsius);
    if (error == 0)
        readings[SMN_GPU_TEMPERATURE] = celsius;
    return error;
}

static int read_clock(void *opaque, int index, unsigned int clock, double *reading)
{
    nvml_state *state = opaque;
    unsigned int megahertz = 0;
    int error = CALL(state, nvmlDeviceGetClockInfo, state->devices[index].handle, clock,
                     &megahertz);
    if (error == 0)
        *reading = megahertz;
    return error;
}

static int read_sm_clock(void *opaque, int index, double *readings)
{
    return read_clock(opaque, index, SMN_NVML_CLOCK_SM, &readings[SMN_GPU_SM_CLOCK]);
}

static int read_memory_clock(void *opaque, int index, double *readings)
{
    return read_clock(opaque, index, SMN_NVML_CLOCK_MEM, &readings[SMN_GPU_MEMORY_CLOCK]);
}

/* Idleness and clocks that somebody has set are reasons, too, but no throttling. */
static int read_throttling(void *opaque, int index, double *readings)
{
    const unsigned long long throttling = SMN_NVML_CLOCKS_SW_POWER_CAP |
                                          SMN_NVML_CLOCKS_HW_SLOWDOWN |
                                          SMN_NVML_CLOCKS_SW_THERMAL_SLOWDOWN |
                                          SMN_NVML_CLOCKS_HW_THERMAL_SLOWDOWN |
                                          SMN_NVML_CLOCKS_HW_POWER_BRAKE_SLOWDOWN;
    nvml_state *state = opaque;
    unsigned long long reasons = 0;
    smn_nvml_device handle = state->devices[index].handle;
    int error = CALL(state, nvmlDeviceGetCurrentClocksEventReasons, handle, &reasons);
    if (error == -ENOTSUP) /* its name until driver 535 */
        error = CALL(state, nvmlDeviceGetCurrentClocksThrottleReasons, handle, &reasons);
    if (error == 0)
        readings[SMN_GPU_THROTTLED] = (reasons & throttling) != 0;
    return error;
}

static int read_ecc(void *opaque, int index, double *readings)
{
    nvml_state *state = opaque;
    unsigned long long corrected = 0;
    unsigned long long uncorrected = 0;
    smn_nvml_device handle = state->devices[index].handle;
    int error = CALL(state, nvmlDeviceGetTotalEccErrors, handle,
                     SMN_NVML_MEMORY_ERROR_TYPE_CORRECTED, SMN_NVML_VOLATILE_ECC, &corrected);
    if (error == 0)
        error = CALL(state, nvmlDeviceGetTotalEccErrors, handle,
                     SMN_NVML_MEMORY_ERROR_TYPE_UNCORRECTED, SMN_NVML_VOLATILE_ECC, &uncorrected);
    if (error == 0)
        readings[SMN_GPU_ECC_ERRORS] = (double)corrected + (double)uncorrected;
    return error;
}

/* A 32-bit counter of bytes may wrap many times a second: only a wide one is of use. */
static double wide_value(const smn_nvml_field_value *field)
{
    bool wide = field->valueType == SMN_NVML_VALUE_TYPE_UNSIGNED_LONG ||
                field->valueType == SMN_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
    return field->nvmlReturn == SMN_NVML_SUCCESS && wide ? (double)field->value.ullVal : NAN;
}

static int read_traffic_counters(void *opaque, int index, double *readings)
{
    nvml_state *state = opaque;
    smn_nvml_field_value fields[] = {
        {.fieldId = SMN_NVML_FI_DEV_PCIE_COUNT_RX_BYTES},
        {.fieldId = SMN_NVML_FI_DEV_PCIE_COUNT_TX_BYTES},
        {.fieldId = SMN_NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, .scopeId = UINT_MAX},
        {.fieldId = SMN_NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, .scopeId = UINT_MAX},
    };
    const int count = sizeof fields / sizeof *fields;
    int error = CALL(state, nvmlDeviceGetFieldValues, state->devices[index].handle, count, fields);
    if (error != 0)
        return error;
    readings[SMN_GPU_PCIE_RECEIVED] = wide_value(&fields[0]);
    readings[SMN_GPU_PCIE_TRANSMITTED] = wide_value(&fields[1]);
    readings[SMN_GPU_NVLINK_RECEIVED] = wide_value(&fields[2]) * 1024.0;
    readings[SMN_GPU_NVLINK_TRANSMITTED] = wide_value(&fields[3]) * 1024.0;
    for (int i = 0; i < count; i++) {
        int failure = errno_of(fields[i].nvmlReturn);
        if (failure != 0 && failure != -ENOTSUP)
            error = failure; /* what is not supported is just not there */
    }
    bool all = true;
    for (int i = SMN_GPU_PCIE_RECEIVED; i <= SMN_GPU_NVLINK_TRANSMITTED; i++)
        all &= !isnan(readings[i]);
    state->devices[index].has_traffic_counters |= all;
    return error;
}

/* ---- GPM, of Hopper and later ------------------------------------------- */

typedef struct {
    unsigned int metric;
    int reading;
    double scale;
} gpm_item;

static const gpm_item profiling_items[] = {
    {SMN_NVML_GPM_METRIC_SM_UTIL, SMN_GPU_SM_ACTIVE, 1.0},
    {SMN_NVML_GPM_METRIC_SM_OCCUPANCY, SMN_GPU_SM_OCCUPANCY, 1.0},
    {SMN_NVML_GPM_METRIC_ANY_TENSOR_UTIL, SMN_GPU_TENSOR_ACTIVE, 1.0},
    {SMN_NVML_GPM_METRIC_DRAM_BW_UTIL, SMN_GPU_DRAM_ACTIVE, 1.0},
    {SMN_NVML_GPM_METRIC_FP16_UTIL, SMN_GPU_FP16_ACTIVE, 1.0},
    {SMN_NVML_GPM_METRIC_FP32_UTIL, SMN_GPU_FP32_ACTIVE, 1.0},
    {SMN_NVML_GPM_METRIC_FP64_UTIL, SMN_GPU_FP64_ACTIVE, 1.0},
};

static const gpm_item traffic_items[] = {
    {SMN_NVML_GPM_METRIC_PCIE_RX_PER_SEC, SMN_GPU_PCIE_RECEIVE_RATE, 0x1p20},
    {SMN_NVML_GPM_METRIC_PCIE_TX_PER_SEC, SMN_GPU_PCIE_TRANSMIT_RATE, 0x1p20},
    {SMN_NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC, SMN_GPU_NVLINK_RECEIVE_RATE, 0x1p20},
    {SMN_NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC, SMN_GPU_NVLINK_TRANSMIT_RATE, 0x1p20},
};

static void gpm_free(nvml_state *state, gpm_pair *pair)
{
    if (pair->older != NULL)
        state->nvmlGpmSampleFree(pair->older);
    if (pair->newer != NULL)
        state->nvmlGpmSampleFree(pair->newer);
    *pair = (gpm_pair){0};
}

/* All or nothing; asks for support first, because a sample costs memory of the driver's. */
static int gpm_allocate(nvml_state *state, smn_nvml_device handle, gpm_pair *pair)
{
    if (state->nvmlGpmSampleFree == NULL || state->nvmlGpmMetricsGet == NULL)
        return -ENOTSUP;
    smn_nvml_gpm_support support = {.version = SMN_NVML_GPM_SUPPORT_VERSION};
    int error = CALL(state, nvmlGpmQueryDeviceSupport, handle, &support);
    if (error == 0 && support.isSupportedDevice == 0)
        error = -ENOTSUP;
    if (error == 0)
        error = CALL(state, nvmlGpmSampleAlloc, &pair->older);
    if (error == 0)
        error = CALL(state, nvmlGpmSampleAlloc, &pair->newer);
    if (error != 0)
        gpm_free(state, pair);
    return error;
}

static int gpm_metrics(nvml_state *state, const gpm_pair *pair, const gpm_item *items,
                       unsigned int count, double *readings)
{
    smn_nvml_gpm_metrics_get *get = state->metrics;
    get->version = SMN_NVML_GPM_METRICS_GET_VERSION;
    get->numMetrics = count;
    get->sample1 = pair->older;
    get->sample2 = pair->newer;
    for (unsigned int i = 0; i < count; i++)
        get->metrics[i] = (smn_nvml_gpm_metric){.metricId = items[i].metric};
    int error = CALL(state, nvmlGpmMetricsGet, get);
    for (unsigned int i = 0; i < count && error == 0; i++) {
        if (get->metrics[i].nvmlReturn == SMN_NVML_SUCCESS)
            readings[items[i].reading] = get->metrics[i].value * items[i].scale;
    }
    return error;
}

static int gpm_read(nvml_state *state, smn_nvml_device handle, gpm_pair *pair,
                    const gpm_item *items, unsigned int count, double *readings)
{
    int error = pair->older != NULL ? 0 : gpm_allocate(state, handle, pair);
    if (error != 0)
        return error;
    uint64_t now_ns = smn_system_clock.monotonic_ns(NULL);
    if (pair->has_older && now_ns - pair->older_ns < GPM_SHORTEST_NS)
        return -EAGAIN;
    error = CALL(state, nvmlGpmSampleGet, handle, pair->newer);
    if (error != 0)
        return error;
    error = pair->has_older ? gpm_metrics(state, pair, items, count, readings) : -EAGAIN;
    smn_nvml_gpm_sample spare = pair->older;
    pair->older = pair->newer;
    pair->newer = spare;
    pair->has_older = true;
    pair->older_ns = now_ns;
    return error;
}

static int read_profiling(void *opaque, int index, double *readings)
{
    nvml_device *device = device_of(opaque, index);
    return gpm_read(opaque, device->handle, &device->profiling, profiling_items,
                    sizeof profiling_items / sizeof *profiling_items, readings);
}

static int read_traffic(void *opaque, int index, double *readings)
{
    nvml_device *device = device_of(opaque, index);
    if (device->has_traffic_counters)
        return -ENOTSUP;
    return gpm_read(opaque, device->handle, &device->traffic, traffic_items,
                    sizeof traffic_items / sizeof *traffic_items, readings);
}

/* ---- devices ------------------------------------------------------------ */

static void find_instances(nvml_state *state, nvml_device *device)
{
    unsigned int current = 0;
    unsigned int pending = 0;
    unsigned int most = 0;
    device->instance_count = 0;
    if (CALL(state, nvmlDeviceGetMigMode, device->handle, &current, &pending) != 0 ||
        current != SMN_NVML_DEVICE_MIG_ENABLE ||
        CALL(state, nvmlDeviceGetMaxMigDeviceCount, device->handle, &most) != 0)
        return;
    for (unsigned int i = 0; i < most && i < SMN_GPU_MOST_INSTANCES; i++) {
        smn_nvml_device *instance = &device->instances[i];
        if (CALL(state, nvmlDeviceGetMigDeviceHandleByIndex, device->handle, i, instance) != 0)
            *instance = NULL;
        else
            device->instance_count = (int)i + 1;
    }
}

static void get_uuid(nvml_state *state, smn_nvml_device handle, char *uuid)
{
    if (CALL(state, nvmlDeviceGetUUID, handle, uuid, SMN_GPU_TEXT_BYTES) != 0)
        uuid[0] = '\0';
    uuid[SMN_GPU_TEXT_BYTES - 1] = '\0';
}

static int nvml_identify(void *opaque, int index, smn_gpu_identity *identity)
{
    nvml_state *state = opaque;
    nvml_device *device = &state->devices[index];
    if (device->handle == NULL)
        return -ENODEV;
    *identity = (smn_gpu_identity){.memory_bytes = NAN};
    get_uuid(state, device->handle, identity->uuid);
    memcpy(device->uuid, identity->uuid, sizeof device->uuid);
    if (CALL(state, nvmlDeviceGetName, device->handle, identity->name, SMN_GPU_TEXT_BYTES) != 0)
        identity->name[0] = '\0';
    smn_nvml_pci_info pci = {0};
    if (CALL(state, nvmlDeviceGetPciInfo_v3, device->handle, &pci) == 0)
        snprintf(identity->pci_id, sizeof identity->pci_id, "%.*s", (int)sizeof pci.busId,
                 pci.busId);
    double used;
    (void)read_memory_of(state, device->handle, &used, &identity->memory_bytes);
    identity->instance_count = device->instance_count;
    for (int i = 0; i < device->instance_count; i++) {
        if (device->instances[i] != NULL)
            get_uuid(state, device->instances[i], identity->instance_uuids[i]);
    }
    return 0;
}

static int get_handle(nvml_state *state, int index, smn_nvml_device *handle)
{
    return CALL(state, nvmlDeviceGetHandleByIndex_v2, (unsigned int)index, handle);
}

/* Another device may have the index by now: it must not continue this one's series. */
static int nvml_recover(void *opaque, int index)
{
    nvml_state *state = opaque;
    nvml_device *device = &state->devices[index];
    smn_nvml_device handle = NULL;
    int error = get_handle(state, index, &handle);
    if (error == -ENOTCONN) {
        error = CALL(state, nvmlInit_v2);
        if (error == 0)
            error = get_handle(state, index, &handle);
    }
    if (error != 0)
        return error;
    char uuid[SMN_GPU_TEXT_BYTES];
    get_uuid(state, handle, uuid);
    if (strcmp(uuid, device->uuid) != 0)
        return -ENODEV;
    device->handle = handle;
    device->profiling.has_older = false;
    device->traffic.has_older = false;
    find_instances(state, device);
    return 0;
}

/* ---- open and close ----------------------------------------------------- */

static int find_symbols(nvml_state *state, void *library)
{
    bool complete = true;
#define REQUIRE(name, arguments) complete &= smn_gpu_symbol(library, #name, &state->name);
#define LOOK_FOR(name, arguments) (void)smn_gpu_symbol(library, #name, &state->name);
    SMN_NVML_REQUIRED(REQUIRE)
    SMN_NVML_OPTIONAL(LOOK_FOR)
    return complete ? 0 : -ENODATA;
}

static void find_versions(nvml_state *state, smn_gpu_attempt *attempt)
{
    char *library = attempt->version;
    char *driver = attempt->driver_version;
    if (CALL(state, nvmlSystemGetNVMLVersion, library, sizeof attempt->version) != 0)
        library[0] = '\0';
    if (CALL(state, nvmlSystemGetDriverVersion, driver, sizeof attempt->driver_version) != 0)
        driver[0] = '\0';
}

static int find_devices(nvml_state *state, smn_gpu_attempt *attempt)
{
    unsigned int count = 0;
    int code = state->nvmlDeviceGetCount_v2(&count);
    if (code != SMN_NVML_SUCCESS) {
        snprintf(attempt->outcome, sizeof attempt->outcome, "nvmlDeviceGetCount_v2: %s (code %d)",
                 reason_of(code), code);
        return -ENODATA;
    }
    if (count > SMN_GPU_MOST_DEVICES)
        count = SMN_GPU_MOST_DEVICES;
    state->device_count = (int)count;
    for (int i = 0; i < state->device_count; i++) {
        nvml_device *device = &state->devices[i];
        if (get_handle(state, i, &device->handle) == 0)
            find_instances(state, device);
        else
            device->handle = NULL;
    }
    snprintf(attempt->outcome, sizeof attempt->outcome, "%u device%s", count,
             count == 1 ? "" : "s");
    return count > 0 ? 0 : -ENODATA;
}

static void nvml_close(void *opaque)
{
    nvml_state *state = opaque;
    for (int i = 0; i < state->device_count; i++) {
        gpm_free(state, &state->devices[i].profiling);
        gpm_free(state, &state->devices[i].traffic);
    }
    (void)state->nvmlShutdown();
    free(state->metrics);
    free(state);
}

static int nvml_open(int sysfs, void **opaque, int *device_count, smn_gpu_attempt *attempt)
{
    static const char *const names[] = {"libnvidia-ml.so.1", NULL};
    static const char *const folders[] = {"/usr/lib/wsl/lib", NULL};
    (void)sysfs;
    void *library = smn_gpu_load(names, folders, attempt);
    if (library == NULL)
        return -ENODATA;
    nvml_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    state->metrics =
        calloc(1, sizeof *state->metrics + GPM_MOST_METRICS * sizeof *state->metrics->metrics);
    int error = state->metrics != NULL ? 0 : -ENOMEM;
    if (error == 0 && (error = find_symbols(state, library)) != 0)
        snprintf(attempt->outcome, sizeof attempt->outcome, "it lacks NVML's basic functions");
    int code = error == 0 ? state->nvmlInit_v2() : SMN_NVML_SUCCESS;
    if (code != SMN_NVML_SUCCESS) {
        snprintf(attempt->outcome, sizeof attempt->outcome, "nvmlInit_v2: %s (code %d)",
                 reason_of(code), code);
        error = -ENODATA;
    }
    if (error != 0) {
        free(state->metrics);
        free(state);
        return error;
    }
    find_versions(state, attempt);
    error = find_devices(state, attempt);
    if (error != 0) {
        nvml_close(state);
        return error;
    }
    *opaque = state;
    *device_count = state->device_count;
    return 0;
}

/* Counters of traffic before its rates: see read_traffic. */
static const smn_gpu_call calls[] = {
    {"nvmlDeviceGetUtilizationRates", SMN_GPU_BASIC, SMN_GPU_FAST, read_utilization,
     SMN_GPU_UTILIZATION, SMN_GPU_UTILIZATION},
    {"nvmlDeviceGetMemoryInfo", SMN_GPU_BASIC, SMN_GPU_FAST, read_memory, SMN_GPU_MEMORY_USED,
     SMN_GPU_MEMORY_TOTAL},
    {"nvmlDeviceGetTotalEnergyConsumption", SMN_GPU_BASIC, SMN_GPU_PER_SPAN, read_energy,
     SMN_GPU_ENERGY, SMN_GPU_ENERGY},
    {"nvmlDeviceGetPowerUsage", SMN_GPU_BASIC, SMN_GPU_FAST, read_power, SMN_GPU_POWER,
     SMN_GPU_POWER},
    {"nvmlDeviceGetEnforcedPowerLimit", SMN_GPU_BASIC, SMN_GPU_SLOW, read_power_limit,
     SMN_GPU_POWER_LIMIT, SMN_GPU_POWER_LIMIT},
    {"nvmlDeviceGetMemoryInfo of a MIG device", SMN_GPU_BASIC, SMN_GPU_FAST, read_instances,
     SMN_GPU_INSTANCE_MEMORY_USED, SMN_GPU_END_OF_BASIC - 1},
    {"nvmlDeviceGetTemperature", SMN_GPU_DETAIL, SMN_GPU_SLOW, read_temperature,
     SMN_GPU_TEMPERATURE, SMN_GPU_TEMPERATURE},
    {"nvmlDeviceGetClockInfo", SMN_GPU_DETAIL, SMN_GPU_SLOW, read_sm_clock, SMN_GPU_SM_CLOCK,
     SMN_GPU_SM_CLOCK},
    {"nvmlDeviceGetClockInfo of the memory", SMN_GPU_DETAIL, SMN_GPU_SLOW, read_memory_clock,
     SMN_GPU_MEMORY_CLOCK, SMN_GPU_MEMORY_CLOCK},
    {"nvmlDeviceGetCurrentClocksEventReasons", SMN_GPU_DETAIL, SMN_GPU_FAST, read_throttling,
     SMN_GPU_THROTTLED, SMN_GPU_THROTTLED},
    {"nvmlDeviceGetTotalEccErrors", SMN_GPU_DETAIL, SMN_GPU_SLOW, read_ecc, SMN_GPU_ECC_ERRORS,
     SMN_GPU_ECC_ERRORS},
    {"nvmlDeviceGetFieldValues", SMN_GPU_DETAIL, SMN_GPU_SLOW, read_traffic_counters,
     SMN_GPU_PCIE_RECEIVED, SMN_GPU_NVLINK_TRANSMITTED},
    {"nvmlGpmMetricsGet of traffic", SMN_GPU_DETAIL, SMN_GPU_PER_WINDOW, read_traffic,
     SMN_GPU_PCIE_RECEIVE_RATE, SMN_GPU_NVLINK_TRANSMIT_RATE},
    {"nvmlGpmMetricsGet", SMN_GPU_PROFILING, SMN_GPU_PER_WINDOW, read_profiling, SMN_GPU_SM_ACTIVE,
     SMN_GPU_FP64_ACTIVE},
};

_Static_assert(sizeof calls / sizeof *calls <= SMN_GPU_MOST_CALLS, "the monitor has room for them");

const smn_gpu_driver smn_gpu_nvml = {
    .vendor = "NVIDIA",
    .open = nvml_open,
    .identify = nvml_identify,
    .calls = calls,
    .call_count = sizeof calls / sizeof *calls,
    .recover = nvml_recover,
    .close = nvml_close,
};

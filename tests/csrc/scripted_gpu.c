#include "scripted_gpu.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "clock.h"

scripted_gpus scripted;

/* A test may end it early: it looks every millisecond how long it is to last. */
static void sleep_milliseconds(const _Atomic int *milliseconds)
{
    for (int passed = 0; passed < *milliseconds; passed++)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
}

static void toil(int milliseconds)
{
    const uint64_t enough_ns = smn_system_clock.cpu_ns(NULL) + (uint64_t)milliseconds * 1000000;
    while (milliseconds > 0 && smn_system_clock.cpu_ns(NULL) < enough_ns)
        continue;
}

void scripted_reset(int device_count)
{
    scripted.device_count = device_count;
    scripted.instance_count = 0;
    scripted.open_milliseconds = 0;
    scripted.toil_milliseconds = 0;
    scripted.opened = scripted.closed = 0;
    for (int d = 0; d < SCRIPTED_DEVICES; d++) {
        scripted.identify_error[d] = scripted.recover_error[d] = 0;
        for (int c = 0; c < SCRIPTED_CALLS; c++)
            scripted.error[d][c] = scripted.milliseconds[d][c] = scripted.made[d][c] = 0;
        for (int r = 0; r < SMN_GPU_READINGS; r++)
            scripted.reading[d][r] = NAN;
        scripted.reading[d][SMN_GPU_UTILIZATION] = 10.0 + d;
        scripted.reading[d][SMN_GPU_MEMORY_USED] = 1e9;
        scripted.reading[d][SMN_GPU_MEMORY_TOTAL] = 4e9;
        scripted.reading[d][SMN_GPU_ENERGY] = 0.0;
        scripted.reading[d][SMN_GPU_POWER_LIMIT] = 400.0;
    }
}

static int scripted_open(int sysfs, void **state, int *device_count, smn_gpu_attempt *attempt)
{
    (void)sysfs;
    scripted.opened++;
    sleep_milliseconds(&scripted.open_milliseconds);
    snprintf(attempt->name, sizeof attempt->name, "the test's");
    snprintf(attempt->outcome, sizeof attempt->outcome, "%d devices", (int)scripted.device_count);
    *state = &scripted;
    *device_count = scripted.device_count;
    return *device_count > 0 ? 0 : -ENODATA;
}

static int scripted_identify(void *state, int index, smn_gpu_identity *identity)
{
    (void)state;
    *identity = (smn_gpu_identity){.memory_bytes = 4e9};
    snprintf(identity->uuid, sizeof identity->uuid, "GPU-%d", index);
    snprintf(identity->name, sizeof identity->name, "Model %d", index);
    identity->instance_count = index == 0 ? scripted.instance_count : 0;
    for (int i = 0; i < identity->instance_count; i++) {
        if (i != 1) /* the driver has holes between its MIG devices */
            snprintf(identity->instance_uuids[i], SMN_GPU_TEXT_BYTES, "MIG-%d", i);
    }
    return scripted.identify_error[index];
}

static int read_range(int call, int index, double *readings, int first, int last)
{
    scripted.made[index][call]++;
    sleep_milliseconds(&scripted.milliseconds[index][call]);
    toil(scripted.toil_milliseconds);
    int error = scripted.error[index][call];
    for (int r = first; r <= last && error == 0; r++)
        readings[r] = scripted.reading[index][r];
    return error;
}

#define CALL(name, number, first, last)                                                            \
    static int read_##name(void *state, int index, double *readings)                               \
    {                                                                                              \
        (void)state;                                                                               \
        return read_range(number, index, readings, first, last);                                   \
    }

CALL(utilization, SCRIPTED_UTILIZATION, SMN_GPU_UTILIZATION, SMN_GPU_UTILIZATION)
CALL(memory, SCRIPTED_MEMORY, SMN_GPU_MEMORY_USED, SMN_GPU_MEMORY_TOTAL)
CALL(energy, SCRIPTED_ENERGY, SMN_GPU_ENERGY, SMN_GPU_ENERGY)
CALL(limit, SCRIPTED_LIMIT, SMN_GPU_POWER_LIMIT, SMN_GPU_POWER_LIMIT)
CALL(instances, SCRIPTED_INSTANCES, SMN_GPU_INSTANCE_MEMORY_USED, SMN_GPU_END_OF_BASIC - 1)
CALL(temperature, SCRIPTED_TEMPERATURE, SMN_GPU_TEMPERATURE, SMN_GPU_TEMPERATURE)
CALL(traffic, SCRIPTED_TRAFFIC, SMN_GPU_PCIE_RECEIVED, SMN_GPU_NVLINK_TRANSMITTED)
CALL(profiling, SCRIPTED_PROFILING, SMN_GPU_SM_ACTIVE, SMN_GPU_FP64_ACTIVE)

static int scripted_recover(void *state, int index)
{
    (void)state;
    return scripted.recover_error[index];
}

static void scripted_close(void *state)
{
    (void)state;
    scripted.closed++;
}

static const smn_gpu_call calls[] = {
    {"getUtilization", SMN_GPU_BASIC, SMN_GPU_FAST, read_utilization, SMN_GPU_UTILIZATION,
     SMN_GPU_UTILIZATION},
    {"getMemory", SMN_GPU_BASIC, SMN_GPU_FAST, read_memory, SMN_GPU_MEMORY_USED,
     SMN_GPU_MEMORY_TOTAL},
    {"getEnergy", SMN_GPU_BASIC, SMN_GPU_PER_SPAN, read_energy, SMN_GPU_ENERGY, SMN_GPU_ENERGY},
    {"getLimit", SMN_GPU_BASIC, SMN_GPU_SLOW, read_limit, SMN_GPU_POWER_LIMIT, SMN_GPU_POWER_LIMIT},
    {"getInstances", SMN_GPU_BASIC, SMN_GPU_FAST, read_instances, SMN_GPU_INSTANCE_MEMORY_USED,
     SMN_GPU_END_OF_BASIC - 1},
    {"getTemperature", SMN_GPU_DETAIL, SMN_GPU_SLOW, read_temperature, SMN_GPU_TEMPERATURE,
     SMN_GPU_TEMPERATURE},
    {"getTraffic", SMN_GPU_DETAIL, SMN_GPU_SLOW, read_traffic, SMN_GPU_PCIE_RECEIVED,
     SMN_GPU_NVLINK_TRANSMITTED},
    {"getProfile", SMN_GPU_PROFILING, SMN_GPU_PER_WINDOW, read_profiling, SMN_GPU_SM_ACTIVE,
     SMN_GPU_FP64_ACTIVE},
};

static const smn_gpu_driver scripted_driver = {
    .vendor = "Test",
    .open = scripted_open,
    .identify = scripted_identify,
    .calls = calls,
    .call_count = sizeof calls / sizeof *calls,
    .recover = scripted_recover,
    .close = scripted_close,
};

const smn_gpu_driver *const smn_gpu_drivers[] = {&scripted_driver, NULL};

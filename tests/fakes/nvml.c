/*
 * A stand-in for NVIDIA's driver library, libnvidia-ml.so.1: what a scenario says
 * (scenario.h), by the rules of the real one. A device is a GPU, an instance is a
 * MIG device. -DSMN_FAKE_OLD_DRIVER leaves out what an old driver has not.
 *
 * Values and their units (`none`: not supported):
 *     utilization, memory_utilization          %
 *     memory_used, memory_total, memory_reserved  bytes (reserved is part of used)
 *     power, power_limit                       watts
 *     energy_start, energy_update              joules at second 0 (more than the integral of
 *                                              power); seconds between updates, 0: none
 *     energy                                   joules: the counter itself, not the integral
 *     temperature; sm_clock, memory_clock      degrees Celsius; megahertz
 *     throttle_reasons                         bits, decimal or 0x…
 *     ecc_corrected, ecc_uncorrected           counters
 *     pcie_receive_rate, pcie_transmit_rate    bytes a second; their counters are the integrals,
 *     pcie_wrap                                … and start at 0 again after so many bytes
 *     nvlink_receive_rate, nvlink_transmit_rate  the same, of all links together
 *     nvlinks                                  how many share them equally
 *     gpm                                      1: supported, 0: not
 *     sm_active, sm_occupancy, tensor_active, dram_active, fp64_active, fp32_active,
 *     fp16_active                              %: GPM tells their mean between two samples
 *     mig, mig_most                            1: on; how many instances there can be
 *     name, uuid, pci_id                       texts
 *     driver_version, nvml_version             texts, of device 0
 *
 * A MIG device has memory, texts and GPM; the rest only if the scenario gives it
 * a value. Its parent has no utilization while MIG is on.
 *
 * Where the real library's answer is not documented: GPM samples that are less
 * than 100 ms apart yield NVML_ERROR_NO_DATA here, and with no device at all
 * nvmlInit succeeds here (a scenario can make it fail).
 */
#include "../../csrc/gpu/nvml_abi.h"
#include "scenario.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))

/* ---- what the engine must know ------------------------------------------ */

enum {
    UTILIZATION,
    MEMORY_UTILIZATION,
    MEMORY_USED,
    MEMORY_TOTAL,
    MEMORY_RESERVED,
    POWER,
    POWER_LIMIT,
    ENERGY_START,
    ENERGY_UPDATE,
    ENERGY,
    TEMPERATURE,
    SM_CLOCK,
    MEMORY_CLOCK,
    THROTTLE_REASONS,
    ECC_CORRECTED,
    ECC_UNCORRECTED,
    PCIE_RECEIVE_RATE,
    PCIE_TRANSMIT_RATE,
    PCIE_WRAP,
    NVLINK_RECEIVE_RATE,
    NVLINK_TRANSMIT_RATE,
    NVLINKS,
    GPM,
    SM_ACTIVE,
    SM_OCCUPANCY,
    TENSOR_ACTIVE,
    DRAM_ACTIVE,
    FP64_ACTIVE,
    FP32_ACTIVE,
    FP16_ACTIVE,
    MIG,
    MIG_MOST,
    NAME,
    UUID,
    PCI_ID,
    DRIVER_VERSION,
    NVML_VERSION,
    ITEMS
};

const char *const smn_fake_library = "nvidia";

/* No two readings of no two devices are alike, so that none passes for another. */
const smn_fake_item smn_fake_items[ITEMS + 1] = {
    [UTILIZATION] = {"utilization", 0, 30, 1, 0, 0},
    [MEMORY_UTILIZATION] = {"memory_utilization", 0, 10, 1, 0, 0},
    [MEMORY_USED] = {"memory_used", 0, 10e9, 1e9, 1e9, 0.25e9},
    [MEMORY_TOTAL] = {"memory_total", 0, 80e9, 0.5e9, 9e9, 0.125e9},
    [MEMORY_RESERVED] = {"memory_reserved", 0, 0.5e9, 1e6, 0, 0},
    [POWER] = {"power", 0, 200, 5, 0, 0},
    [POWER_LIMIT] = {"power_limit", 0, 600, 10, 0, 0},
    [ENERGY_START] = {"energy_start", 0, 1e6, 1e5, 0, 0},
    [ENERGY_UPDATE] = {"energy_update", 0, 0, 0, 0, 0},
    [ENERGY] = {"energy", 0, 0, 0, 0, 0},
    [TEMPERATURE] = {"temperature", 0, 50, 1, 0, 0},
    [SM_CLOCK] = {"sm_clock", 0, 1500, 15, 0, 0},
    [MEMORY_CLOCK] = {"memory_clock", 0, 2600, 10, 0, 0},
    [THROTTLE_REASONS] = {"throttle_reasons", 0, 0, 0, 0, 0},
    [ECC_CORRECTED] = {"ecc_corrected", 0, 3, 1, 0, 0},
    [ECC_UNCORRECTED] = {"ecc_uncorrected", 0, 0, 0, 0, 0},
    [PCIE_RECEIVE_RATE] = {"pcie_receive_rate", 0, 1e9, 1e7, 0, 0},
    [PCIE_TRANSMIT_RATE] = {"pcie_transmit_rate", 0, 2e9, 1e7, 0, 0},
    [PCIE_WRAP] = {"pcie_wrap", 0, NAN, 0, NAN, 0},
    [NVLINK_RECEIVE_RATE] = {"nvlink_receive_rate", 0, 30e9, 1e8, 0, 0},
    [NVLINK_TRANSMIT_RATE] = {"nvlink_transmit_rate", 0, 40e9, 1e8, 0, 0},
    [NVLINKS] = {"nvlinks", 0, 4, 0, 0, 0},
    [GPM] = {"gpm", 0, 1, 0, 1, 0},
    [SM_ACTIVE] = {"sm_active", 0, 70, 0.5, 20, 1},
    [SM_OCCUPANCY] = {"sm_occupancy", 0, 40, 0.5, 21, 1},
    [TENSOR_ACTIVE] = {"tensor_active", 0, 60, 0.5, 22, 1},
    [DRAM_ACTIVE] = {"dram_active", 0, 50, 0.5, 23, 1},
    [FP64_ACTIVE] = {"fp64_active", 0, 1, 0.5, 24, 1},
    [FP32_ACTIVE] = {"fp32_active", 0, 12, 0.5, 25, 1},
    [FP16_ACTIVE] = {"fp16_active", 0, 25, 0.5, 26, 1},
    [MIG] = {"mig", 0, 0, 0, 0, 0},
    [MIG_MOST] = {"mig_most", 0, 7, 0, 0, 0},
    [NAME] = {"name", 1, 0, 0, 0, 0},
    [UUID] = {"uuid", 1, 0, 0, 0, 0},
    [PCI_ID] = {"pci_id", 1, 0, 0, 0, 0},
    [DRIVER_VERSION] = {"driver_version", 1, 0, 0, 0, 0},
    [NVML_VERSION] = {"nvml_version", 1, 0, 0, 0, 0},
};

const smn_fake_code smn_fake_codes[] = {
    {"UNINITIALIZED", SMN_NVML_ERROR_UNINITIALIZED},
    {"INVALID_ARGUMENT", SMN_NVML_ERROR_INVALID_ARGUMENT},
    {"NOT_SUPPORTED", SMN_NVML_ERROR_NOT_SUPPORTED},
    {"NO_PERMISSION", SMN_NVML_ERROR_NO_PERMISSION},
    {"NOT_FOUND", SMN_NVML_ERROR_NOT_FOUND},
    {"INSUFFICIENT_SIZE", SMN_NVML_ERROR_INSUFFICIENT_SIZE},
    {"DRIVER_NOT_LOADED", SMN_NVML_ERROR_DRIVER_NOT_LOADED},
    {"TIMEOUT", SMN_NVML_ERROR_TIMEOUT},
    {"LIBRARY_NOT_FOUND", SMN_NVML_ERROR_LIBRARY_NOT_FOUND},
    {"FUNCTION_NOT_FOUND", SMN_NVML_ERROR_FUNCTION_NOT_FOUND},
    {"GPU_IS_LOST", SMN_NVML_ERROR_GPU_IS_LOST},
    {"RESET_REQUIRED", SMN_NVML_ERROR_RESET_REQUIRED},
    {"LIB_RM_VERSION_MISMATCH", SMN_NVML_ERROR_LIB_RM_VERSION_MISMATCH},
    {"NO_DATA", SMN_NVML_ERROR_NO_DATA},
    {"ARGUMENT_VERSION_MISMATCH", SMN_NVML_ERROR_ARGUMENT_VERSION_MISMATCH},
    {"DEPRECATED", SMN_NVML_ERROR_DEPRECATED},
    {"GPU_NOT_FOUND", SMN_NVML_ERROR_GPU_NOT_FOUND},
    {"UNKNOWN", SMN_NVML_ERROR_UNKNOWN},
    {NULL, 0},
};

/* Of these only the calls are of interest: nobody should make any. */
#define PROCESS_LISTS(ADD)                                                                         \
    ADD(nvmlDeviceGetComputeRunningProcesses)                                                      \
    ADD(nvmlDeviceGetComputeRunningProcesses_v2)                                                   \
    ADD(nvmlDeviceGetGraphicsRunningProcesses)                                                     \
    ADD(nvmlDeviceGetGraphicsRunningProcesses_v2)                                                  \
    ADD(nvmlDeviceGetMPSComputeRunningProcesses)                                                   \
    ADD(nvmlDeviceGetMPSComputeRunningProcesses_v2)

#define NEW_PROCESS_LISTS(ADD)                                                                     \
    ADD(nvmlDeviceGetComputeRunningProcesses_v3)                                                   \
    ADD(nvmlDeviceGetGraphicsRunningProcesses_v3)                                                  \
    ADD(nvmlDeviceGetMPSComputeRunningProcesses_v3)

#define NAME_OF_DECLARED(name, arguments) #name,
#define NAME_OF(name) #name,

const char *const smn_fake_functions[] = {
    SMN_NVML_REQUIRED(NAME_OF_DECLARED) SMN_NVML_OPTIONAL(NAME_OF_DECLARED) PROCESS_LISTS(NAME_OF)
        NEW_PROCESS_LISTS(NAME_OF) "nvmlInitWithFlags",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetIndex",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetPowerManagementLimit",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceIsMigDeviceHandle",
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle",
    "nvmlDeviceGetProcessUtilization",
    "nvmlSystemGetProcessName",
    NULL,
};

#define DECLARE(name, arguments) API int name arguments;
SMN_NVML_REQUIRED(DECLARE)
SMN_NVML_OPTIONAL(DECLARE)

/* ---- handles ------------------------------------------------------------ */

enum {
    SLOTS = SMN_FAKE_MOST_INSTANCES + 1
};

typedef struct {
    int device, instance;
} place;

/* A handle is the address of one of these: of a device, then of its instances. */
static char handles[SMN_FAKE_MOST_DEVICES][SLOTS];

static smn_nvml_device handle_of(int device, int instance)
{
    return &handles[device][instance + 1];
}

static int has_mig(int device)
{
    return smn_fake_value(MIG, device, SMN_FAKE_NO_INSTANCE) == 1;
}

/* {SMN_FAKE_NO_DEVICE, …}: there is no such device, or no longer. */
static place place_of(smn_nvml_device handle)
{
    uintptr_t offset = (uintptr_t)handle - (uintptr_t)handles;
    place none = {SMN_FAKE_NO_DEVICE, SMN_FAKE_NO_INSTANCE};
    if (offset >= sizeof handles)
        return none;
    place at = {(int)(offset / SLOTS), (int)(offset % SLOTS) - 1};
    if (at.device >= smn_fake_devices())
        return none;
    if (at.instance >= 0 && (!has_mig(at.device) || !smn_fake_has_instance(at.device, at.instance)))
        return none;
    return at;
}

static int begin(smn_fake_function *self, const char *function, smn_nvml_device handle,
                 const void *result, place *at)
{
    *at = place_of(handle);
    int code = smn_fake_enter(self, function, at->device, at->instance);
    if (code != 0)
        return code;
    if (!smn_fake_is_open())
        return SMN_NVML_ERROR_UNINITIALIZED;
    if (at->device < 0 || result == NULL)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    return 0;
}

/* The beginning of every function that is for a device and writes to `result`. */
#define BEGIN(handle, result)                                                                      \
    static smn_fake_function self;                                                                 \
    place at;                                                                                      \
    int failure = begin(&self, __func__, handle, result, &at);                                     \
    if (failure != 0)                                                                              \
    return failure

/* The beginning of every function that is for no device. */
#define BEGIN_ALONE(device)                                                                        \
    static smn_fake_function self;                                                                 \
    int failure = smn_fake_enter(&self, __func__, device, SMN_FAKE_NO_INSTANCE);                   \
    if (failure != 0)                                                                              \
    return failure

/* ---- values ------------------------------------------------------------- */

static double value_at(place at, int item)
{
    return smn_fake_value(item, at.device, at.instance);
}

/* Whether there is such a value. Instances have few by themselves. */
static int has(place at, int item)
{
    if (at.instance >= 0 && !smn_fake_is_set(item, at.device, at.instance) &&
        smn_fake_items[item].instance_base == 0)
        return 0;
    return !isnan(value_at(at, item));
}

static int read_u32(place at, int item, double scale, unsigned int *result)
{
    if (!has(at, item))
        return SMN_NVML_ERROR_NOT_SUPPORTED;
    *result = smn_fake_u32(value_at(at, item) * scale);
    return SMN_NVML_SUCCESS;
}

static int read_u64(place at, int item, unsigned long long *result)
{
    if (!has(at, item))
        return SMN_NVML_ERROR_NOT_SUPPORTED;
    *result = smn_fake_u64(value_at(at, item));
    return SMN_NVML_SUCCESS;
}

static int write_text(const char *text, char *result, unsigned int length)
{
    if (result == NULL)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(text) >= length)
        return SMN_NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(result, text, strlen(text) + 1);
    return SMN_NVML_SUCCESS;
}

/* ---- the library -------------------------------------------------------- */

API int nvmlInit_v2(void)
{
    BEGIN_ALONE(SMN_FAKE_NO_DEVICE);
    smn_fake_open();
    return SMN_NVML_SUCCESS;
}

API int nvmlInitWithFlags(unsigned int flags);
API int nvmlInitWithFlags(unsigned int flags)
{
    BEGIN_ALONE(SMN_FAKE_NO_DEVICE);
    (void)flags;
    smn_fake_open();
    return SMN_NVML_SUCCESS;
}

API int nvmlShutdown(void)
{
    BEGIN_ALONE(SMN_FAKE_NO_DEVICE);
    return smn_fake_close() == 0 ? SMN_NVML_SUCCESS : SMN_NVML_ERROR_UNINITIALIZED;
}

API const char *nvmlErrorString(int code);
API const char *nvmlErrorString(int code)
{
    if (code == SMN_NVML_SUCCESS)
        return "SUCCESS";
    for (const smn_fake_code *known = smn_fake_codes; known->name != NULL; known++)
        if (known->code == code)
            return known->name;
    return "?";
}

API int nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    BEGIN_ALONE(SMN_FAKE_NO_DEVICE);
    const char *text = smn_fake_text(DRIVER_VERSION, 0, SMN_FAKE_NO_INSTANCE);
    if (!smn_fake_is_open())
        return SMN_NVML_ERROR_UNINITIALIZED;
    return write_text(text != NULL ? text : "580.00.01", version, length);
}

/* Also without nvmlInit. */
API int nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    BEGIN_ALONE(SMN_FAKE_NO_DEVICE);
    const char *text = smn_fake_text(NVML_VERSION, 0, SMN_FAKE_NO_INSTANCE);
    return write_text(text != NULL ? text : "13.580.00.01", version, length);
}

/* ---- finding devices ---------------------------------------------------- */

API int nvmlDeviceGetCount_v2(unsigned int *count)
{
    BEGIN_ALONE(SMN_FAKE_NO_DEVICE);
    if (!smn_fake_is_open())
        return SMN_NVML_ERROR_UNINITIALIZED;
    if (count == NULL)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    *count = (unsigned int)smn_fake_devices();
    return SMN_NVML_SUCCESS;
}

API int nvmlDeviceGetHandleByIndex_v2(unsigned int index, smn_nvml_device *device)
{
    int exists = index < (unsigned int)smn_fake_devices();
    BEGIN_ALONE(exists ? (int)index : SMN_FAKE_NO_DEVICE);
    if (!smn_fake_is_open())
        return SMN_NVML_ERROR_UNINITIALIZED;
    if (device == NULL || !exists)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    *device = handle_of((int)index, SMN_FAKE_NO_INSTANCE);
    return SMN_NVML_SUCCESS;
}

static void uuid_of(place at, char *uuid, size_t length)
{
    const char *text = smn_fake_text(UUID, at.device, at.instance);
    if (text != NULL)
        snprintf(uuid, length, "%s", text);
    else if (at.instance < 0)
        snprintf(uuid, length, "GPU-%08x-fa4e-4000-8000-%012x", 0xc0de0000U + (unsigned)at.device,
                 (unsigned)at.device);
    else
        snprintf(uuid, length, "MIG-%08x-fa4e-5000-8000-%012x", 0xc0de0000U + (unsigned)at.device,
                 (unsigned)at.instance);
}

API int nvmlDeviceGetHandleByUUID(const char *uuid, smn_nvml_device *device);
API int nvmlDeviceGetHandleByUUID(const char *uuid, smn_nvml_device *device)
{
    BEGIN_ALONE(SMN_FAKE_NO_DEVICE);
    if (!smn_fake_is_open())
        return SMN_NVML_ERROR_UNINITIALIZED;
    if (uuid == NULL || device == NULL)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    for (int d = 0; d < smn_fake_devices(); d++) {
        for (int i = SMN_FAKE_NO_INSTANCE; i < SMN_FAKE_MOST_INSTANCES; i++) {
            char own[SMN_NVML_DEVICE_UUID_V2_BUFFER_SIZE];
            place at = place_of(handle_of(d, i));
            uuid_of(at, own, sizeof own);
            if (at.device >= 0 && strcmp(own, uuid) == 0) {
                *device = handle_of(d, i);
                return SMN_NVML_SUCCESS;
            }
        }
    }
    return SMN_NVML_ERROR_NOT_FOUND;
}

API int nvmlDeviceGetIndex(smn_nvml_device handle, unsigned int *index);
API int nvmlDeviceGetIndex(smn_nvml_device handle, unsigned int *index)
{
    BEGIN(handle, index);
    *index = (unsigned int)(at.instance < 0 ? at.device : at.instance);
    return SMN_NVML_SUCCESS;
}

API int nvmlDeviceGetName(smn_nvml_device handle, char *name, unsigned int length)
{
    char own[SMN_NVML_DEVICE_NAME_V2_BUFFER_SIZE];
    BEGIN(handle, name);
    const char *text = smn_fake_text(NAME, at.device, at.instance);
    if (text != NULL)
        return write_text(text, name, length);
    if (at.instance < 0)
        snprintf(own, sizeof own, "Fake GPU %d", at.device);
    else
        snprintf(own, sizeof own, "Fake GPU %d MIG 1g.10gb", at.device);
    return write_text(own, name, length);
}

API int nvmlDeviceGetUUID(smn_nvml_device handle, char *uuid, unsigned int length)
{
    char own[SMN_NVML_DEVICE_UUID_V2_BUFFER_SIZE];
    BEGIN(handle, uuid);
    uuid_of(at, own, sizeof own);
    return write_text(own, uuid, length);
}

API int nvmlDeviceGetPciInfo_v3(smn_nvml_device handle, smn_nvml_pci_info *pci)
{
    BEGIN(handle, pci);
    unsigned int domain = 0, bus = 0x10U + (unsigned int)at.device, device = 0;
    const char *text = smn_fake_text(PCI_ID, at.device, SMN_FAKE_NO_INSTANCE);
    if (text != NULL && sscanf(text, "%x:%x:%x", &domain, &bus, &device) != 3) {
        fprintf(stderr, "fake GPUs: '%s' is no PCI id\n", text);
        abort();
    }
    memset(pci, 0, sizeof *pci);
    pci->domain = domain;
    pci->bus = bus & 0xff;
    pci->device = device & 0x1f;
    pci->pciDeviceId = 0x233010de;
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", domain & 0xffff,
             pci->bus, pci->device);
    snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", domain, pci->bus, pci->device);
    return SMN_NVML_SUCCESS;
}

/* ---- readings ----------------------------------------------------------- */

API int nvmlDeviceGetMemoryInfo(smn_nvml_device handle, smn_nvml_memory *memory)
{
    BEGIN(handle, memory);
    if (!has(at, MEMORY_USED) || !has(at, MEMORY_TOTAL))
        return SMN_NVML_ERROR_NOT_SUPPORTED;
    double used = value_at(at, MEMORY_USED), total = value_at(at, MEMORY_TOTAL);
    memory->used = smn_fake_u64(used);
    memory->total = smn_fake_u64(total);
    memory->free = smn_fake_u64(total > used ? total - used : 0);
    return SMN_NVML_SUCCESS;
}

/* What the system reserves is not counted as used here, other than in the first version. */
typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} memory_v2;

API int nvmlDeviceGetMemoryInfo_v2(smn_nvml_device handle, memory_v2 *memory);
API int nvmlDeviceGetMemoryInfo_v2(smn_nvml_device handle, memory_v2 *memory)
{
    BEGIN(handle, memory);
    if (memory->version != (sizeof *memory | 2U << 24))
        return SMN_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (!has(at, MEMORY_USED) || !has(at, MEMORY_TOTAL))
        return SMN_NVML_ERROR_NOT_SUPPORTED;
    double used = value_at(at, MEMORY_USED), total = value_at(at, MEMORY_TOTAL);
    double reserved = has(at, MEMORY_RESERVED) ? value_at(at, MEMORY_RESERVED) : 0;
    memory->total = smn_fake_u64(total);
    memory->reserved = smn_fake_u64(reserved);
    memory->used = smn_fake_u64(used > reserved ? used - reserved : 0);
    memory->free = smn_fake_u64(total > used ? total - used : 0);
    return SMN_NVML_SUCCESS;
}

API int nvmlDeviceGetUtilizationRates(smn_nvml_device handle, smn_nvml_utilization *utilization)
{
    BEGIN(handle, utilization);
    if (at.instance >= 0 || has_mig(at.device) || !has(at, UTILIZATION))
        return SMN_NVML_ERROR_NOT_SUPPORTED;
    utilization->gpu = smn_fake_u32(value_at(at, UTILIZATION));
    utilization->memory = smn_fake_u32(value_at(at, MEMORY_UTILIZATION));
    return SMN_NVML_SUCCESS;
}

API int nvmlDeviceGetPowerUsage(smn_nvml_device handle, unsigned int *milliwatts)
{
    BEGIN(handle, milliwatts);
    return read_u32(at, POWER, 1000, milliwatts);
}

API int nvmlDeviceGetEnforcedPowerLimit(smn_nvml_device handle, unsigned int *milliwatts)
{
    BEGIN(handle, milliwatts);
    return read_u32(at, POWER_LIMIT, 1000, milliwatts);
}

API int nvmlDeviceGetPowerManagementLimit(smn_nvml_device handle, unsigned int *milliwatts);
API int nvmlDeviceGetPowerManagementLimit(smn_nvml_device handle, unsigned int *milliwatts)
{
    BEGIN(handle, milliwatts);
    return read_u32(at, POWER_LIMIT, 1000, milliwatts);
}

API int nvmlDeviceGetTemperature(smn_nvml_device handle, unsigned int sensor, unsigned int *celsius)
{
    BEGIN(handle, celsius);
    if (sensor != SMN_NVML_TEMPERATURE_GPU)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    return read_u32(at, TEMPERATURE, 1, celsius);
}

API int nvmlDeviceGetClockInfo(smn_nvml_device handle, unsigned int clock, unsigned int *megahertz)
{
    BEGIN(handle, megahertz);
    if (clock == SMN_NVML_CLOCK_SM)
        return read_u32(at, SM_CLOCK, 1, megahertz);
    if (clock == SMN_NVML_CLOCK_MEM)
        return read_u32(at, MEMORY_CLOCK, 1, megahertz);
    return SMN_NVML_ERROR_INVALID_ARGUMENT;
}

API int nvmlDeviceGetTotalEccErrors(smn_nvml_device handle, unsigned int type, unsigned int kind,
                                    unsigned long long *errors)
{
    BEGIN(handle, errors);
    if (kind != SMN_NVML_VOLATILE_ECC || type > SMN_NVML_MEMORY_ERROR_TYPE_UNCORRECTED)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    return read_u64(at,
                    type == SMN_NVML_MEMORY_ERROR_TYPE_CORRECTED ? ECC_CORRECTED : ECC_UNCORRECTED,
                    errors);
}

/* ---- processes ---------------------------------------------------------- */

#define PROCESS_LIST(name)                                                                         \
    API int name(smn_nvml_device handle, unsigned int *count, void *processes);                    \
    API int name(smn_nvml_device handle, unsigned int *count, void *processes)                     \
    {                                                                                              \
        BEGIN(handle, count);                                                                      \
        (void)processes;                                                                           \
        *count = 0;                                                                                \
        return SMN_NVML_SUCCESS;                                                                   \
    }

PROCESS_LISTS(PROCESS_LIST)

API int nvmlDeviceGetProcessUtilization(smn_nvml_device handle, void *samples, unsigned int *count,
                                        unsigned long long since);
API int nvmlDeviceGetProcessUtilization(smn_nvml_device handle, void *samples, unsigned int *count,
                                        unsigned long long since)
{
    BEGIN(handle, count);
    (void)samples;
    (void)since;
    *count = 0;
    return SMN_NVML_ERROR_NOT_FOUND;
}

API int nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length);
API int nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    BEGIN_ALONE(SMN_FAKE_NO_DEVICE);
    (void)pid;
    (void)name;
    (void)length;
    return SMN_NVML_ERROR_NOT_FOUND;
}

#ifndef SMN_FAKE_OLD_DRIVER

NEW_PROCESS_LISTS(PROCESS_LIST)

/* ---- energy, throttling, traffic ---------------------------------------- */

API int nvmlDeviceGetTotalEnergyConsumption(smn_nvml_device handle, unsigned long long *millijoules)
{
    BEGIN(handle, millijoules);
    if (smn_fake_is_set(ENERGY, at.device, at.instance)) {
        failure = read_u64(at, ENERGY, millijoules);
        if (failure == SMN_NVML_SUCCESS)
            *millijoules = smn_fake_u64(value_at(at, ENERGY) * 1000);
        return failure;
    }
    if (!has(at, POWER))
        return SMN_NVML_ERROR_NOT_SUPPORTED;
    double now = smn_fake_now(), every = value_at(at, ENERGY_UPDATE);
    if (every > 0)
        now = floor(now / every) * every;
    double joules = value_at(at, ENERGY_START) +
                    smn_fake_integral(POWER, at.device, at.instance, now);
    *millijoules = smn_fake_u64(joules * 1000);
    return SMN_NVML_SUCCESS;
}

API int nvmlDeviceGetCurrentClocksThrottleReasons(smn_nvml_device handle,
                                                  unsigned long long *reasons)
{
    BEGIN(handle, reasons);
    return read_u64(at, THROTTLE_REASONS, reasons);
}

API int nvmlDeviceGetCurrentClocksEventReasons(smn_nvml_device handle, unsigned long long *reasons);
API int nvmlDeviceGetCurrentClocksEventReasons(smn_nvml_device handle, unsigned long long *reasons)
{
    BEGIN(handle, reasons);
    return read_u64(at, THROTTLE_REASONS, reasons);
}

static int read_pcie(place at, int rate, smn_nvml_value *value)
{
    double bytes = smn_fake_integral(rate, at.device, at.instance, smn_fake_now());
    double wrap = value_at(at, PCIE_WRAP);
    if (!has(at, rate))
        return SMN_NVML_ERROR_NOT_SUPPORTED;
    value->ullVal = smn_fake_u64(isnan(wrap) ? bytes : fmod(bytes, wrap));
    return SMN_NVML_SUCCESS;
}

static int read_nvlink(place at, int rate, unsigned int scope, smn_nvml_value *value)
{
    double kib = smn_fake_integral(rate, at.device, at.instance, smn_fake_now()) / 1024;
    double links = has(at, NVLINKS) ? value_at(at, NVLINKS) : 0;
    if (!has(at, rate) || links < 1)
        return SMN_NVML_ERROR_NOT_SUPPORTED;
    if (scope != UINT32_MAX && scope >= links)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    value->ullVal = smn_fake_u64(scope == UINT32_MAX ? kib : kib / links);
    return SMN_NVML_SUCCESS;
}

static int read_field(place at, const smn_nvml_field_value *field, smn_nvml_value *value)
{
    switch (field->fieldId) {
    case SMN_NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX:
        return read_nvlink(at, NVLINK_TRANSMIT_RATE, field->scopeId, value);
    case SMN_NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX:
        return read_nvlink(at, NVLINK_RECEIVE_RATE, field->scopeId, value);
    case SMN_NVML_FI_DEV_PCIE_COUNT_TX_BYTES:
        return read_pcie(at, PCIE_TRANSMIT_RATE, value);
    case SMN_NVML_FI_DEV_PCIE_COUNT_RX_BYTES:
        return read_pcie(at, PCIE_RECEIVE_RATE, value);
    default:
        return SMN_NVML_ERROR_NOT_SUPPORTED;
    }
}

API int nvmlDeviceGetFieldValues(smn_nvml_device handle, int count, smn_nvml_field_value *fields)
{
    BEGIN(handle, fields);
    if (count < 1)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    for (int i = 0; i < count; i++) {
        memset(&fields[i].value, 0, sizeof fields[i].value);
        fields[i].timestamp = (long long)(smn_fake_now() * 1e6);
        fields[i].latencyUsec = 1;
        fields[i].valueType = SMN_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        fields[i].nvmlReturn = read_field(at, &fields[i], &fields[i].value);
    }
    return SMN_NVML_SUCCESS;
}

/* ---- MIG ---------------------------------------------------------------- */

API int nvmlDeviceGetMigMode(smn_nvml_device handle, unsigned int *now, unsigned int *pending)
{
    BEGIN(handle, now);
    if (pending == NULL)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    failure = read_u32(at, MIG, 1, now);
    if (failure == SMN_NVML_SUCCESS)
        *pending = *now;
    return failure;
}

API int nvmlDeviceGetMaxMigDeviceCount(smn_nvml_device handle, unsigned int *count)
{
    BEGIN(handle, count);
    *count = has_mig(at.device) && at.instance < 0 ? smn_fake_u32(value_at(at, MIG_MOST)) : 0;
    return SMN_NVML_SUCCESS;
}

API int nvmlDeviceGetMigDeviceHandleByIndex(smn_nvml_device handle, unsigned int index,
                                            smn_nvml_device *device)
{
    BEGIN(handle, device);
    if (at.instance >= 0 || isnan(value_at(at, MIG)))
        return SMN_NVML_ERROR_NOT_SUPPORTED;
    if (!has_mig(at.device))
        return SMN_NVML_ERROR_NOT_FOUND;
    if (index >= smn_fake_u32(value_at(at, MIG_MOST)))
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    if (index >= SMN_FAKE_MOST_INSTANCES || !smn_fake_has_instance(at.device, (int)index))
        return SMN_NVML_ERROR_NOT_FOUND;
    *device = handle_of(at.device, (int)index);
    return SMN_NVML_SUCCESS;
}

API int nvmlDeviceIsMigDeviceHandle(smn_nvml_device handle, unsigned int *is_instance);
API int nvmlDeviceIsMigDeviceHandle(smn_nvml_device handle, unsigned int *is_instance)
{
    BEGIN(handle, is_instance);
    *is_instance = at.instance >= 0;
    return SMN_NVML_SUCCESS;
}

API int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(smn_nvml_device handle,
                                                     smn_nvml_device *parent);
API int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(smn_nvml_device handle,
                                                     smn_nvml_device *parent)
{
    BEGIN(handle, parent);
    if (at.instance < 0)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    *parent = handle_of(at.device, SMN_FAKE_NO_INSTANCE);
    return SMN_NVML_SUCCESS;
}

/* ---- GPM ---------------------------------------------------------------- */

static const double MIB = 1048576;

static const struct {
    unsigned int metric;
    int item;
    double unit;
} gpm_metrics[] = {
    {SMN_NVML_GPM_METRIC_SM_UTIL, SM_ACTIVE, 1},
    {SMN_NVML_GPM_METRIC_SM_OCCUPANCY, SM_OCCUPANCY, 1},
    {SMN_NVML_GPM_METRIC_ANY_TENSOR_UTIL, TENSOR_ACTIVE, 1},
    {SMN_NVML_GPM_METRIC_DRAM_BW_UTIL, DRAM_ACTIVE, 1},
    {SMN_NVML_GPM_METRIC_FP64_UTIL, FP64_ACTIVE, 1},
    {SMN_NVML_GPM_METRIC_FP32_UTIL, FP32_ACTIVE, 1},
    {SMN_NVML_GPM_METRIC_FP16_UTIL, FP16_ACTIVE, 1},
    {SMN_NVML_GPM_METRIC_PCIE_TX_PER_SEC, PCIE_TRANSMIT_RATE, MIB},
    {SMN_NVML_GPM_METRIC_PCIE_RX_PER_SEC, PCIE_RECEIVE_RATE, MIB},
    {SMN_NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC, NVLINK_RECEIVE_RATE, MIB},
    {SMN_NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC, NVLINK_TRANSMIT_RATE, MIB},
};

enum {
    GPM_METRICS = sizeof gpm_metrics / sizeof *gpm_metrics,
    MOST_GPM_METRICS = 477 /* that one call may ask for */
};

/* What the integrals were at a time; NaN where the device has no such value. */
typedef struct {
    int is_taken;
    place at;
    double time;
    double integrals[GPM_METRICS];
} gpm_sample;

API int nvmlGpmQueryDeviceSupport(smn_nvml_device handle, smn_nvml_gpm_support *support)
{
    BEGIN(handle, support);
    if (support->version != SMN_NVML_GPM_SUPPORT_VERSION)
        return SMN_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    support->isSupportedDevice = has(at, GPM) && value_at(at, GPM) == 1;
    return SMN_NVML_SUCCESS;
}

API int nvmlGpmSampleAlloc(smn_nvml_gpm_sample *sample)
{
    BEGIN_ALONE(SMN_FAKE_NO_DEVICE);
    if (!smn_fake_is_open())
        return SMN_NVML_ERROR_UNINITIALIZED;
    if (sample == NULL)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    *sample = calloc(1, sizeof(gpm_sample));
    return *sample != NULL ? SMN_NVML_SUCCESS : SMN_NVML_ERROR_UNKNOWN;
}

API int nvmlGpmSampleFree(smn_nvml_gpm_sample sample)
{
    BEGIN_ALONE(SMN_FAKE_NO_DEVICE);
    if (sample == NULL)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    free(sample);
    return SMN_NVML_SUCCESS;
}

API int nvmlGpmSampleGet(smn_nvml_device handle, smn_nvml_gpm_sample sample)
{
    BEGIN(handle, sample);
    gpm_sample *taken = sample;
    if (!has(at, GPM) || value_at(at, GPM) != 1)
        return SMN_NVML_ERROR_NOT_SUPPORTED;
    taken->is_taken = 1;
    taken->at = at;
    taken->time = smn_fake_now();
    for (int i = 0; i < GPM_METRICS; i++)
        taken->integrals[i] = has(at, gpm_metrics[i].item)
                                  ? smn_fake_integral(gpm_metrics[i].item, at.device, at.instance,
                                                      taken->time)
                                  : NAN;
    return SMN_NVML_SUCCESS;
}

static void compute(const gpm_sample *first, const gpm_sample *second, smn_nvml_gpm_metric *metric)
{
    metric->nvmlReturn = SMN_NVML_ERROR_NOT_SUPPORTED;
    metric->value = 0;
    memset(&metric->metricInfo, 0, sizeof metric->metricInfo);
    for (int i = 0; i < GPM_METRICS; i++) {
        double mean = (second->integrals[i] - first->integrals[i]) / (second->time - first->time);
        if (gpm_metrics[i].metric == metric->metricId && !isnan(mean)) {
            metric->nvmlReturn = SMN_NVML_SUCCESS;
            metric->value = mean / gpm_metrics[i].unit;
        }
    }
}

static int device_of(const smn_nvml_gpm_metrics_get *get)
{
    const gpm_sample *sample = get != NULL ? get->sample1 : NULL;
    return sample != NULL && sample->is_taken ? sample->at.device : SMN_FAKE_NO_DEVICE;
}

API int nvmlGpmMetricsGet(smn_nvml_gpm_metrics_get *get)
{
    BEGIN_ALONE(device_of(get));
    if (!smn_fake_is_open())
        return SMN_NVML_ERROR_UNINITIALIZED;
    if (get == NULL || get->sample1 == NULL || get->sample2 == NULL ||
        get->numMetrics > MOST_GPM_METRICS)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    if (get->version != SMN_NVML_GPM_METRICS_GET_VERSION)
        return SMN_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    const gpm_sample *first = get->sample1, *second = get->sample2;
    if (!first->is_taken || !second->is_taken || first->at.device != second->at.device ||
        first->at.instance != second->at.instance)
        return SMN_NVML_ERROR_INVALID_ARGUMENT;
    if (second->time - first->time < 0.1)
        return SMN_NVML_ERROR_NO_DATA;
    for (unsigned int i = 0; i < get->numMetrics; i++)
        compute(first, second, &get->metrics[i]);
    return SMN_NVML_SUCCESS;
}

#endif

/* AMD GPUs by way of libamd_smi, the library of ROCm 6 and later. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amd.h"
#include "amd_smi_abi.h"

typedef struct {
    smn_amd_device common; /* first, so that an array of these is one of those */
    smn_amdsmi_processor handle;
} amd_device;

typedef struct {
#define DECLARE(name, arguments) smn_amdsmi_status(*name) arguments;
    SMN_AMDSMI_REQUIRED(DECLARE)
    SMN_AMDSMI_OPTIONAL(DECLARE)
#undef DECLARE
    unsigned version; /* the first word of it: which structures the library speaks */
    int count;
    amd_device devices[SMN_GPU_MOST_DEVICES];
    smn_amdsmi_buffer buffer; /* what the library writes into */
} amd_state;

enum {
    ACTIVITY,
    MEMORY_TOTAL, /* before what is used of it, which it is compared with */
    MEMORY_USED,
    POWER,
    ENERGY,
    POWER_CAP,
    TEMPERATURE,
    GFX_CLOCK,
    MEMORY_CLOCK,
    ECC
};

static const char *const names[] = {"libamd_smi.so",    "libamd_smi.so.26", "libamd_smi.so.25",
                                    "libamd_smi.so.24", "libamd_smi.so.23", NULL};

static int error_of(smn_amdsmi_status status)
{
    switch (status) {
    case SMN_AMDSMI_STATUS_SUCCESS:
        return 0;
    case SMN_AMDSMI_STATUS_NOT_SUPPORTED:
    case SMN_AMDSMI_STATUS_NOT_YET_IMPLEMENTED:
        return -ENOTSUP;
    case SMN_AMDSMI_STATUS_NO_PERM:
        return -EACCES;
    case SMN_AMDSMI_STATUS_NOT_FOUND:
    case SMN_AMDSMI_STATUS_DRIVER_NOT_LOADED:
    case SMN_AMDSMI_STATUS_NO_DRV:
        return -ENODEV;
    case SMN_AMDSMI_STATUS_NOT_INIT:
        return -ENOTCONN;
    case SMN_AMDSMI_STATUS_TIMEOUT:
        return -ETIMEDOUT;
    case SMN_AMDSMI_STATUS_BUSY:
    case SMN_AMDSMI_STATUS_RETRY:
        return -EBUSY;
    case SMN_AMDSMI_STATUS_NO_DATA:
        return -ENOMSG;
    default:
        return -EIO;
    }
}

/* ---- what is called, and what it says ----------------------------------- */

/* The buffer with no trace of what it held: a library may fill less of it than it could. */
static smn_amdsmi_buffer *cleared(amd_state *amd)
{
    memset(&amd->buffer, 0, sizeof amd->buffer);
    return &amd->buffer;
}

#define HANDLE(index) (amd->devices[index].handle)

/*
 * "Not found" may be the device or what was to be read of it. It is the latter
 * if the handle is still one: then nothing else of the device is lost.
 */
static int error_of_call(const amd_state *amd, smn_amdsmi_processor handle,
                         smn_amdsmi_status status)
{
    unsigned type;
    if (status == SMN_AMDSMI_STATUS_NOT_FOUND &&
        amd->amdsmi_get_processor_type(handle, &type) == SMN_AMDSMI_STATUS_SUCCESS)
        return -ENOTSUP;
    return error_of(status);
}

/*
 * The error of a call of `function` for a device, by its handle, with the other
 * arguments; -ENOTSUP where the library has no such function.
 */
#define CALL(function, handle, ...)                                                                \
    (amd->function != NULL ? error_of_call(amd, handle, amd->function(handle, __VA_ARGS__))        \
                           : -ENOTSUP)

/* What a read function returns: the error, in the light of the device's past. */
static int outcome(amd_state *amd, int index, int call, int error)
{
    return smn_amd_outcome(&amd->devices[index].common, call, error);
}

static int read_activity(void *state, int index, double *readings)
{
    amd_state *amd = state;
    smn_amdsmi_engine_usage *usage = &cleared(amd)->engine_usage;
    int error = CALL(amdsmi_get_gpu_activity, HANDLE(index), usage);
    if (error == 0)
        readings[SMN_GPU_UTILIZATION] = smn_amd_percentage(usage->gfx_activity);
    return outcome(amd, index, ACTIVITY, error);
}

static int read_memory_used(void *state, int index, double *readings)
{
    amd_state *amd = state;
    uint64_t used = UINT64_MAX;
    int error = CALL(amdsmi_get_gpu_memory_usage, HANDLE(index), SMN_AMDSMI_MEM_TYPE_VRAM, &used);
    if (error == 0)
        readings[SMN_GPU_MEMORY_USED] = smn_amd_bytes(used);
    return outcome(amd, index, MEMORY_USED, error);
}

static int total_memory(amd_state *amd, int index, double *bytes)
{
    uint64_t total = UINT64_MAX;
    int error = CALL(amdsmi_get_gpu_memory_total, HANDLE(index), SMN_AMDSMI_MEM_TYPE_VRAM, &total);
    if (error == 0 && total > 0)
        *bytes = smn_amd_bytes(total);
    return error;
}

static int read_memory_total(void *state, int index, double *readings)
{
    return outcome(state, index, MEMORY_TOTAL,
                   total_memory(state, index, &readings[SMN_GPU_MEMORY_TOTAL]));
}

/* The current power where the device has it (MI300 and later), else the average. */
static double power_of(unsigned version, const smn_amdsmi_buffer *buffer)
{
    double current, average;
    if (version < 25) {
        current = smn_amd_watts(buffer->power_info_23.current_socket_power);
        average = smn_amd_watts(buffer->power_info_23.average_socket_power);
    } else { /* up to here, 25 and 26 are the same */
        current = smn_amd_watts(buffer->power_info_25.current_socket_power);
        average = smn_amd_watts(buffer->power_info_25.average_socket_power);
        if (isnan(average))
            average = smn_amd_watts(buffer->power_info_25.socket_power);
    }
    return isnan(current) ? average : current;
}

static int read_power(void *state, int index, double *readings)
{
    amd_state *amd = state;
    if (!amd->devices[index].common.has_sensors)
        return -ENOTSUP;
    int error = CALL(amdsmi_get_power_info, HANDLE(index), cleared(amd));
    if (error == 0)
        readings[SMN_GPU_POWER] = power_of(amd->version, &amd->buffer);
    return outcome(amd, index, POWER, error);
}

static int read_energy(void *state, int index, double *readings)
{
    amd_state *amd = state;
    uint64_t count = UINT64_MAX;
    float resolution = 0;
    uint64_t timestamp;
    if (!amd->devices[index].common.has_sensors)
        return -ENOTSUP;
    int error = CALL(amdsmi_get_energy_count, HANDLE(index), &count, &resolution, &timestamp);
    if (error == 0)
        readings[SMN_GPU_ENERGY] = smn_amd_joules(count, (double)resolution);
    return outcome(amd, index, ENERGY, error);
}

static int read_power_cap(void *state, int index, double *readings)
{
    amd_state *amd = state;
    smn_amdsmi_power_cap_info *cap = &cleared(amd)->power_cap_info;
    if (!amd->devices[index].common.has_sensors)
        return -ENOTSUP;
    int error = CALL(amdsmi_get_power_cap_info, HANDLE(index), 0, cap);
    if (error == 0)
        readings[SMN_GPU_POWER_LIMIT] = smn_amd_power_limit(cap->power_cap);
    return outcome(amd, index, POWER_CAP, error);
}

static int temperature_of(amd_state *amd, int index, unsigned sensor, double *celsius)
{
    int64_t value = INT64_MAX;
    int error = CALL(amdsmi_get_temp_metric, HANDLE(index), sensor, SMN_AMDSMI_TEMP_CURRENT,
                     &value);
    if (error == 0)
        *celsius = smn_amd_degrees(value);
    return error;
}

/* The hottest place, which is what throttles; older chips have only the edge. */
static int read_temperature(void *state, int index, double *readings)
{
    amd_state *amd = state;
    double *celsius = &readings[SMN_GPU_TEMPERATURE];
    int error = temperature_of(amd, index, SMN_AMDSMI_TEMPERATURE_TYPE_HOTSPOT, celsius);
    if (error == -ENOTSUP || error == -ENOMSG || (error == 0 && isnan(*celsius)))
        error = temperature_of(amd, index, SMN_AMDSMI_TEMPERATURE_TYPE_EDGE, celsius);
    return outcome(amd, index, TEMPERATURE, error);
}

static int clock_of(amd_state *amd, int index, unsigned type, double *megahertz)
{
    smn_amdsmi_clk_info *clock = &cleared(amd)->clk_info;
    int error = CALL(amdsmi_get_clock_info, HANDLE(index), type, clock);
    if (error == 0)
        *megahertz = smn_amd_megahertz(clock->clk);
    return error;
}

static int read_gfx_clock(void *state, int index, double *readings)
{
    return outcome(state, index, GFX_CLOCK,
                   clock_of(state, index, SMN_AMDSMI_CLK_TYPE_GFX, &readings[SMN_GPU_SM_CLOCK]));
}

static int read_memory_clock(void *state, int index, double *readings)
{
    return outcome(state, index, MEMORY_CLOCK,
                   clock_of(state, index, SMN_AMDSMI_CLK_TYPE_MEM,
                            &readings[SMN_GPU_MEMORY_CLOCK]));
}

static int read_ecc(void *state, int index, double *readings)
{
    amd_state *amd = state;
    smn_amdsmi_error_count *errors = &cleared(amd)->error_count;
    int error = CALL(amdsmi_get_gpu_total_ecc_count, HANDLE(index), errors);
    if (error == 0)
        readings[SMN_GPU_ECC_ERRORS] = smn_amd_errors(errors->correctable_count,
                                                      errors->uncorrectable_count);
    return outcome(amd, index, ECC, error);
}

/* A call that reads one value. */
#define READS(value, function, group, pace, read)                                                  \
    {function, SMN_GPU_##group, SMN_GPU_##pace, read, SMN_GPU_##value, SMN_GPU_##value}

static const smn_gpu_call calls[] = {
    [ACTIVITY] = READS(UTILIZATION, "amdsmi_get_gpu_activity", BASIC, FAST, read_activity),
    [MEMORY_TOTAL] = READS(MEMORY_TOTAL, "amdsmi_get_gpu_memory_total", BASIC, FAST,
                           read_memory_total),
    [MEMORY_USED] = READS(MEMORY_USED, "amdsmi_get_gpu_memory_usage", BASIC, FAST,
                          read_memory_used),
    [POWER] = READS(POWER, "amdsmi_get_power_info", BASIC, FAST, read_power),
    [ENERGY] = READS(ENERGY, "amdsmi_get_energy_count", BASIC, PER_SPAN, read_energy),
    [POWER_CAP] = READS(POWER_LIMIT, "amdsmi_get_power_cap_info", BASIC, SLOW, read_power_cap),
    [TEMPERATURE] = READS(TEMPERATURE, "amdsmi_get_temp_metric", DETAIL, SLOW, read_temperature),
    [GFX_CLOCK] = READS(SM_CLOCK, "amdsmi_get_clock_info", DETAIL, SLOW, read_gfx_clock),
    [MEMORY_CLOCK] = READS(MEMORY_CLOCK, "amdsmi_get_clock_info of the memory", DETAIL, SLOW,
                           read_memory_clock),
    [ECC] = READS(ECC_ERRORS, "amdsmi_get_gpu_total_ecc_count", DETAIL, SLOW, read_ecc),
};

#undef READS

/* ---- devices ------------------------------------------------------------ */

static uint64_t address_of(amd_state *amd, smn_amdsmi_processor handle)
{
    uint64_t address = SMN_AMD_NO_ADDRESS;
    return CALL(amdsmi_get_gpu_device_bdf, handle, &address) == 0 ? address : SMN_AMD_NO_ADDRESS;
}

static bool is_gpu(amd_state *amd, smn_amdsmi_processor handle)
{
    unsigned type = 0;
    return amd->amdsmi_get_processor_type(handle, &type) == SMN_AMDSMI_STATUS_SUCCESS &&
           type == SMN_AMDSMI_PROCESSOR_TYPE_AMD_GPU;
}

/* Appends the GPUs of one socket to handles[SMN_GPU_MOST_DEVICES]. */
static void list_socket(amd_state *amd, smn_amdsmi_socket socket, smn_amdsmi_processor *handles,
                        int *count)
{
    enum {
        MOST = 256
    };
    smn_amdsmi_processor found[MOST] = {NULL};
    uint32_t number = MOST;
    if (amd->amdsmi_get_processor_handles(socket, &number, found) != SMN_AMDSMI_STATUS_SUCCESS)
        return; /* that of a CPU, most likely */
    for (uint32_t i = 0; i < number && i < MOST && *count < SMN_GPU_MOST_DEVICES; i++)
        if (found[i] != NULL && is_gpu(amd, found[i]))
            handles[(*count)++] = found[i];
}

static int list_gpus(amd_state *amd, smn_amdsmi_processor *handles, int *count)
{
    enum {
        MOST = 256
    };
    smn_amdsmi_socket sockets[MOST] = {NULL};
    uint32_t number = MOST;
    *count = 0;
    smn_amdsmi_status status = amd->amdsmi_get_socket_handles(&number, sockets);
    for (uint32_t i = 0; status == SMN_AMDSMI_STATUS_SUCCESS && i < number && i < MOST; i++)
        if (sockets[i] != NULL)
            list_socket(amd, sockets[i], handles, count);
    return error_of(status);
}

/*
 * The handle of the device at the same PCI address as before, or, where there
 * are none, at the same place.
 */
static int amd_recover(void *state, int index)
{
    amd_state *amd = state;
    amd_device *device = &amd->devices[index];
    smn_amdsmi_processor handles[SMN_GPU_MOST_DEVICES];
    int count = 0;
    int error = error_of(amd->amdsmi_init(SMN_AMDSMI_INIT_AMD_GPUS));
    if (error == 0)
        error = list_gpus(amd, handles, &count);
    for (int n = 0; error == 0 && n < count; n++) {
        int i = (index + n) % count; /* its old place first: partitions may share an address */
        bool is_it = device->common.address == SMN_AMD_NO_ADDRESS
                         ? i == index
                         : address_of(amd, handles[i]) == device->common.address;
        if (is_it) {
            device->handle = handles[i];
            return 0;
        }
    }
    return error != 0 ? error : -ENODEV;
}

/* ---- who a device is ---------------------------------------------------- */

/* The number of a chip is the one in the UUID that ROCm's other libraries use. */
static void read_uuid(amd_state *amd, int index, const char *serial, char *uuid)
{
    char *end;
    unsigned long long number = strtoull(serial, &end, 16);
    if (*serial != '\0' && *end == '\0')
        smn_amd_format_uuid(number, uuid);
    if (*uuid != '\0')
        return;
    char own[256] = "GPU-";
    unsigned length = sizeof own - 4;
    if (CALL(amdsmi_get_gpu_device_uuid, HANDLE(index), &length, own + 4) == 0)
        smn_amd_copy_text(uuid, own, sizeof own);
}

/*
 * ROCm 6.1 and 6.2 share a version and not this structure: the right layout is
 * the one in which the vendor is AMD.
 */
static void read_asic(amd_state *amd, int index, smn_gpu_identity *identity)
{
    smn_amdsmi_buffer *buffer = cleared(amd);
    char serial[SMN_GPU_TEXT_BYTES] = "";
    if (CALL(amdsmi_get_gpu_asic_info, HANDLE(index), buffer) == 0) {
        if (amd->version >= 25) {
            smn_amd_copy_text(identity->name, buffer->asic_info_25.market_name, 256);
            smn_amd_copy_text(serial, buffer->asic_info_25.asic_serial, 256);
        } else if (buffer->asic_info_24.vendor_id == SMN_AMDSMI_VENDOR) {
            smn_amd_copy_text(identity->name, buffer->asic_info_24.market_name, 256);
            smn_amd_copy_text(serial, buffer->asic_info_24.asic_serial, 32);
        } else if (buffer->asic_info_23.vendor_id == SMN_AMDSMI_VENDOR) {
            smn_amd_copy_text(identity->name, buffer->asic_info_23.market_name, 64);
            smn_amd_copy_text(serial, buffer->asic_info_23.asic_serial, 32);
        }
    }
    read_uuid(amd, index, serial, identity->uuid);
}

static int amd_identify(void *state, int index, smn_gpu_identity *identity)
{
    amd_state *amd = state;
    unsigned type;
    *identity = (smn_gpu_identity){.memory_bytes = (double)NAN};
    smn_amd_format_address(amd->devices[index].common.address, identity->pci_id);
    if (error_of(amd->amdsmi_get_processor_type(HANDLE(index), &type)) == -ENODEV)
        return -ENODEV;
    read_asic(amd, index, identity);
    total_memory(amd, index, &identity->memory_bytes);
    return 0;
}

static void read_driver_version(amd_state *amd, char *text)
{
    smn_amdsmi_buffer *buffer = cleared(amd);
    if (CALL(amdsmi_get_gpu_driver_info, HANDLE(0), buffer) != 0)
        return;
    if (amd->version < 24)
        smn_amd_copy_text(text, buffer->driver_info_23.driver_version, 64);
    else if (amd->version < 25)
        smn_amd_copy_text(text, buffer->driver_info_24.driver_version, 64);
    else
        smn_amd_copy_text(text, buffer->driver_info_25.driver_version, 256);
}

/* ---- opening ------------------------------------------------------------ */

/* Returns the name of what the library should have and has not, or NULL. */
static const char *look_up(amd_state *amd, void *library)
{
    const char *missing = NULL;
#define REQUIRE(name, arguments)                                                                   \
    if (!smn_gpu_symbol(library, #name, &amd->name))                                               \
        missing = #name;
#define TRY(name, arguments) smn_gpu_symbol(library, #name, &amd->name);
    SMN_AMDSMI_REQUIRED(REQUIRE)
    SMN_AMDSMI_OPTIONAL(TRY)
#undef REQUIRE
#undef TRY
    return missing;
}

/* Asked first: of a library that we do not know, nothing else is called. */
static int read_version(amd_state *amd, smn_gpu_attempt *attempt)
{
    const smn_amdsmi_version_23 *old = &cleared(amd)->version_23;
    const smn_amdsmi_version_26 *new = &amd->buffer.version_26;
    char *text = attempt->version;
    smn_amdsmi_status status = amd->amdsmi_get_lib_version(&amd->buffer);
    if (status != SMN_AMDSMI_STATUS_SUCCESS) {
        snprintf(attempt->outcome, sizeof attempt->outcome,
                 "amdsmi_get_lib_version failed with status %u", status);
        return -ENODATA;
    }
    amd->version = old->year;
    if (amd->version < SMN_AMDSMI_NEWEST_VERSION)
        snprintf(text, SMN_GPU_TEXT_BYTES, "%u.%u.%u.%u", old->year, old->major, old->minor,
                 old->release);
    else
        snprintf(text, SMN_GPU_TEXT_BYTES, "%u.%u.%u", new->major, new->minor, new->release);
    if (amd->version >= SMN_AMDSMI_OLDEST_VERSION && amd->version <= SMN_AMDSMI_NEWEST_VERSION)
        return 0;
    snprintf(attempt->outcome, sizeof attempt->outcome,
             "version %s is not known here (known are %d to %d): not used", text,
             SMN_AMDSMI_OLDEST_VERSION, SMN_AMDSMI_NEWEST_VERSION);
    return -ENODATA;
}

static int initialise(amd_state *amd, smn_gpu_attempt *attempt)
{
    smn_amdsmi_processor handles[SMN_GPU_MOST_DEVICES];
    smn_amdsmi_status status = amd->amdsmi_init(SMN_AMDSMI_INIT_AMD_GPUS);
    int error = error_of(status);
    if (error == 0)
        error = list_gpus(amd, handles, &amd->count);
    if (status == SMN_AMDSMI_STATUS_DRIVER_NOT_LOADED || status == SMN_AMDSMI_STATUS_NO_DRV)
        snprintf(attempt->outcome, sizeof attempt->outcome, "the driver amdgpu is not loaded");
    else if (status != SMN_AMDSMI_STATUS_SUCCESS)
        snprintf(attempt->outcome, sizeof attempt->outcome, "amdsmi_init failed with status %u",
                 status);
    else if (error != 0 || amd->count == 0)
        snprintf(attempt->outcome, sizeof attempt->outcome, "no device");
    if (error != 0 || amd->count == 0)
        return -ENODATA;
    for (int i = 0; i < amd->count; i++) {
        amd->devices[i].handle = handles[i];
        smn_amd_device_init(&amd->devices[i].common, address_of(amd, handles[i]), amd->devices, i,
                            sizeof *amd->devices);
    }
    snprintf(attempt->outcome, sizeof attempt->outcome, "%d device%s", amd->count,
             amd->count == 1 ? "" : "s");
    read_driver_version(amd, attempt->driver_version);
    return 0;
}

static int start(amd_state *amd, void *library, smn_gpu_attempt *attempt)
{
    const char *missing = look_up(amd, library);
    if (missing != NULL) {
        snprintf(attempt->outcome, sizeof attempt->outcome, "lacks the function %s", missing);
        return -ENODATA;
    }
    int error = read_version(amd, attempt);
    return error != 0 ? error : initialise(amd, attempt);
}

static int amd_open(int sysfs, void **state, int *device_count, smn_gpu_attempt *attempt)
{
    (void)sysfs;
    const char *folders[SMN_AMD_MOST_FOLDERS];
    char rocm[SMN_AMD_FOLDER_BYTES];
    *attempt = (smn_gpu_attempt){0};
    void *library = smn_gpu_load(names, smn_amd_folders(folders, rocm), attempt);
    if (library == NULL)
        return -ENODATA;
    amd_state *amd = calloc(1, sizeof *amd);
    if (amd == NULL)
        return -ENOMEM;
    int error = start(amd, library, attempt);
    if (error != 0) {
        free(amd);
        return error;
    }
    *state = amd;
    *device_count = amd->count;
    return 0;
}

/*
 * Not shut down: the library does not count who has initialised it, so that
 * would take it away from whoever else uses it in this process.
 */
static void amd_close(void *state)
{
    free(state);
}

const smn_gpu_driver smn_gpu_amd_smi = {
    .vendor = "AMD",
    .open = amd_open,
    .identify = amd_identify,
    .calls = calls,
    .call_count = sizeof calls / sizeof *calls,
    .recover = amd_recover,
    .close = amd_close,
};

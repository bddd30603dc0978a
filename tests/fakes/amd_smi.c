/*
 * A stand-in for AMD's libamd_smi.so: what a scenario says (scenario.h, amd.h), by
 * the rules of the real one, in the structures of the release that the scenario
 * names. -DSMN_FAKE_OLD_ROCM leaves out what need not be there.
 *
 * As with the real one, initialising is not counted, and a handle is only good
 * if it is one of those that are handed out. They are small numbers here: pyrsmi
 * 1.1 passes them as 32-bit integers, which the real library's pointers are not.
 */
#include "amd.h"

enum {
    SOCKETS = 0x10000, /* the first handles of each kind */
    PROCESSORS = 0x20000
};

const smn_fake_code smn_fake_codes[] = {
    {"INVAL", SMN_AMDSMI_STATUS_INVAL},
    {"NOT_SUPPORTED", SMN_AMDSMI_STATUS_NOT_SUPPORTED},
    {"NOT_YET_IMPLEMENTED", SMN_AMDSMI_STATUS_NOT_YET_IMPLEMENTED},
    {"DRM_ERROR", SMN_AMDSMI_STATUS_DRM_ERROR},
    {"TIMEOUT", SMN_AMDSMI_STATUS_TIMEOUT},
    {"RETRY", SMN_AMDSMI_STATUS_RETRY},
    {"NO_PERM", SMN_AMDSMI_STATUS_NO_PERM},
    {"INIT_ERROR", SMN_AMDSMI_STATUS_INIT_ERROR},
    {"BUSY", SMN_AMDSMI_STATUS_BUSY},
    {"NOT_FOUND", SMN_AMDSMI_STATUS_NOT_FOUND},
    {"NOT_INIT", SMN_AMDSMI_STATUS_NOT_INIT},
    {"DRIVER_NOT_LOADED", SMN_AMDSMI_STATUS_DRIVER_NOT_LOADED},
    {"NO_DATA", SMN_AMDSMI_STATUS_NO_DATA},
    {"UNKNOWN_ERROR", -1},
    {NULL, 0},
};

/* ---- versions ----------------------------------------------------------- */

/* The first word of the version: a year up to 6.4, the release and 19 since. */
static unsigned version(void)
{
    double release = rocm();
    if (release < 6.1)
        return 23;
    if (release < 6.4)
        return 24;
    return release < 7 ? 25 : (unsigned)release + 19;
}

API smn_amdsmi_status amdsmi_get_lib_version(void *structure)
{
    static smn_fake_function self;
    int code = smn_fake_enter(&self, __func__, SMN_FAKE_NO_DEVICE, SMN_FAKE_NO_INSTANCE);
    if (code != 0)
        return (smn_amdsmi_status)code;
    if (version() < 26)
        *(smn_amdsmi_version_23 *)structure = (smn_amdsmi_version_23){version(), 6, 2, 0,
                                                                      "stand-in"};
    else
        *(smn_amdsmi_version_26 *)structure = (smn_amdsmi_version_26){version(), 1, 0, "stand-in"};
    return SMN_AMDSMI_STATUS_SUCCESS;
}

/* ---- handles ------------------------------------------------------------ */

API smn_amdsmi_status amdsmi_init(uint64_t flags)
{
    static smn_fake_function self;
    int code = smn_fake_enter(&self, __func__, SMN_FAKE_NO_DEVICE, SMN_FAKE_NO_INSTANCE);
    if (code != 0)
        return (smn_amdsmi_status)code;
    if ((flags & SMN_AMDSMI_INIT_AMD_GPUS) == 0)
        return SMN_AMDSMI_STATUS_INVAL;
    if (!smn_fake_is_open())
        smn_fake_open();
    return SMN_AMDSMI_STATUS_SUCCESS;
}

API smn_amdsmi_status amdsmi_shut_down(void)
{
    static smn_fake_function self;
    int code = smn_fake_enter(&self, __func__, SMN_FAKE_NO_DEVICE, SMN_FAKE_NO_INSTANCE);
    if (code == 0)
        smn_fake_close();
    return (smn_amdsmi_status)code;
}

/* -1: no handle of ours. */
static int device_of(smn_amdsmi_processor handle)
{
    uintptr_t number = (uintptr_t)handle - PROCESSORS;
    return number < (uintptr_t)smn_fake_devices() ? (int)number : -1;
}

static int starts_card(int device)
{
    return device == 0 || address(device - 1) >> 3 != address(device) >> 3;
}

/* The first device of a socket, whose number is its card's. -1: none. */
static int first_of(smn_amdsmi_socket handle)
{
    uintptr_t number = (uintptr_t)handle - SOCKETS;
    for (int d = 0; d < smn_fake_devices(); d++)
        if (starts_card(d) && number-- == 0)
            return d;
    return -1;
}

/* Without room for handles, only their number is asked for. */
static void hand_out(uint32_t *count, void **handles, uintptr_t first, int there_are)
{
    if (handles == NULL || *count > (uint32_t)there_are)
        *count = (uint32_t)there_are;
    for (uint32_t i = 0; handles != NULL && i < *count; i++)
        handles[i] = (void *)(first + i);
}

static smn_amdsmi_status enter_any(smn_fake_function *self, const char *function)
{
    int code = smn_fake_enter(self, function, SMN_FAKE_NO_DEVICE, SMN_FAKE_NO_INSTANCE);
    if (code != 0)
        return (smn_amdsmi_status)code;
    return smn_fake_is_open() ? SMN_AMDSMI_STATUS_SUCCESS : SMN_AMDSMI_STATUS_NOT_INIT;
}

API smn_amdsmi_status amdsmi_get_socket_handles(uint32_t *count, smn_amdsmi_socket *handles)
{
    static smn_fake_function self;
    smn_amdsmi_status status = enter_any(&self, __func__);
    int cards = 0;
    for (int d = 0; d < smn_fake_devices(); d++)
        cards += starts_card(d);
    if (status == SMN_AMDSMI_STATUS_SUCCESS)
        hand_out(count, handles, SOCKETS, cards);
    return status;
}

API smn_amdsmi_status amdsmi_get_processor_handles(smn_amdsmi_socket socket, uint32_t *count,
                                                   smn_amdsmi_processor *handles)
{
    static smn_fake_function self;
    smn_amdsmi_status status = enter_any(&self, __func__);
    if (status != SMN_AMDSMI_STATUS_SUCCESS)
        return status;
    int first = first_of(socket);
    if (first < 0)
        return SMN_AMDSMI_STATUS_NOT_FOUND;
    int end = first + 1;
    while (end < smn_fake_devices() && !starts_card(end))
        end++;
    hand_out(count, handles, PROCESSORS + (uintptr_t)first, end - first);
    return SMN_AMDSMI_STATUS_SUCCESS;
}

/*
 * Whoever calls this without the socket, as pyrsmi 1.1 does, has the other
 * arguments in the wrong places: nothing may be written to them.
 */
API smn_amdsmi_status amdsmi_get_processor_handles_by_type(smn_amdsmi_socket socket, unsigned type,
                                                           smn_amdsmi_processor *handles,
                                                           uint32_t *count)
{
    static smn_fake_function self;
    smn_amdsmi_status status = enter_any(&self, __func__);
    if (status != SMN_AMDSMI_STATUS_SUCCESS)
        return status;
    if (first_of(socket) < 0)
        return SMN_AMDSMI_STATUS_INVAL;
    if (type != SMN_AMDSMI_PROCESSOR_TYPE_AMD_GPU)
        return SMN_AMDSMI_STATUS_NOT_SUPPORTED;
    return amdsmi_get_processor_handles(socket, count, handles);
}

/* What every function of a device begins with; *device is only good after a success. */
static smn_amdsmi_status enter(smn_fake_function *self, const char *function,
                               smn_amdsmi_processor handle, int *device)
{
    *device = device_of(handle);
    int code = smn_fake_enter(self, function, *device, SMN_FAKE_NO_INSTANCE);
    *device = device_of(handle); /* a scenario that is read anew may have fewer */
    if (code != 0)
        return (smn_amdsmi_status)code;
    if (!smn_fake_is_open())
        return SMN_AMDSMI_STATUS_NOT_INIT;
    return *device >= 0 ? SMN_AMDSMI_STATUS_SUCCESS : SMN_AMDSMI_STATUS_NOT_FOUND;
}

#define ENTER(handle)                                                                              \
    static smn_fake_function self;                                                                 \
    int device;                                                                                    \
    smn_amdsmi_status status = enter(&self, __func__, handle, &device);                            \
    if (status != SMN_AMDSMI_STATUS_SUCCESS)                                                       \
        return status;

API smn_amdsmi_status amdsmi_get_processor_type(smn_amdsmi_processor handle, unsigned *type)
{
    ENTER(handle)
    *type = smn_fake_u32(value(PROCESSOR_TYPE, device));
    return SMN_AMDSMI_STATUS_SUCCESS;
}

/* ---- who a device is ---------------------------------------------------- */

API smn_amdsmi_status amdsmi_get_gpu_device_bdf(smn_amdsmi_processor handle, uint64_t *bdf)
{
    ENTER(handle)
    *bdf = address(device);
    return SMN_AMDSMI_STATUS_SUCCESS;
}

API smn_amdsmi_status amdsmi_get_gpu_device_uuid(smn_amdsmi_processor handle, unsigned *length,
                                                 char *uuid)
{
    ENTER(handle)
    const char *given = text(UUID, device);
    if (*length < 38)
        return SMN_AMDSMI_STATUS_INVAL;
    snprintf(uuid, *length, "%s", given != NULL ? given : "abff74a0-0000-1000-80cd-000000001000");
    return SMN_AMDSMI_STATUS_SUCCESS;
}

API smn_amdsmi_status amdsmi_get_gpu_asic_info(smn_amdsmi_processor handle, void *structure)
{
    ENTER(handle)
    char name[256];
    char serial[32] = ""; /* empty as the real one leaves it, where the scenario says 0 */
    write_name(device, name, sizeof name);
    if (unique_id(device) != 0)
        snprintf(serial, sizeof serial, "0x%llX", (unsigned long long)unique_id(device));
#define FILL(type)                                                                                 \
    do {                                                                                           \
        type *info = structure;                                                                    \
        memset(info, 0, sizeof *info);                                                             \
        snprintf(info->market_name, sizeof info->market_name, "%.63s", name);                      \
        snprintf(info->vendor_name, sizeof info->vendor_name, "Advanced Micro Devices Inc");       \
        snprintf(info->asic_serial, sizeof info->asic_serial, "%s", serial);                       \
        info->vendor_id = SMN_AMDSMI_VENDOR;                                                       \
        info->device_id = 0x74a0;                                                                  \
        info->rev_id = 1;                                                                          \
    } while (0)
    if (rocm() < 6.2)
        FILL(smn_amdsmi_asic_info_23);
    else if (rocm() < 6.4)
        FILL(smn_amdsmi_asic_info_24);
    else
        FILL(smn_amdsmi_asic_info_25);
#undef FILL
    return SMN_AMDSMI_STATUS_SUCCESS;
}

API smn_amdsmi_status amdsmi_get_gpu_driver_info(smn_amdsmi_processor handle, void *structure)
{
    ENTER(handle)
#define FILL(type)                                                                                 \
    do {                                                                                           \
        type *info = structure;                                                                    \
        memset(info, 0, sizeof *info);                                                             \
        snprintf(info->driver_version, sizeof info->driver_version, "%s", driver_version());       \
        snprintf(info->driver_date, sizeof info->driver_date, "2026/01/01");                       \
        snprintf(info->driver_name, sizeof info->driver_name, "amdgpu");                           \
    } while (0)
    if (version() < 24)
        FILL(smn_amdsmi_driver_info_23);
    else if (version() < 25)
        FILL(smn_amdsmi_driver_info_24);
    else
        FILL(smn_amdsmi_driver_info_25);
#undef FILL
    return SMN_AMDSMI_STATUS_SUCCESS;
}

/* ---- readings ----------------------------------------------------------- */

API smn_amdsmi_status amdsmi_get_gpu_activity(smn_amdsmi_processor handle,
                                              smn_amdsmi_engine_usage *usage)
{
    ENTER(handle)
    double percentage = value(UTILIZATION, device);
    if (isnan(percentage))
        return SMN_AMDSMI_STATUS_NOT_SUPPORTED;
    memset(usage, 0, sizeof *usage);
    usage->gfx_activity = smn_fake_u32(percentage);
    usage->umc_activity = 7;
    usage->mm_activity = UINT16_MAX;
    return SMN_AMDSMI_STATUS_SUCCESS;
}

static smn_amdsmi_status tell(double amount, uint64_t *to)
{
    if (isnan(amount))
        return SMN_AMDSMI_STATUS_NOT_SUPPORTED;
    *to = smn_fake_u64(amount);
    return SMN_AMDSMI_STATUS_SUCCESS;
}

API smn_amdsmi_status amdsmi_get_gpu_memory_usage(smn_amdsmi_processor handle, unsigned type,
                                                  uint64_t *used)
{
    ENTER(handle)
    return type == SMN_AMDSMI_MEM_TYPE_VRAM ? tell(value(MEMORY_USED, device), used)
                                            : SMN_AMDSMI_STATUS_NOT_SUPPORTED;
}

API smn_amdsmi_status amdsmi_get_gpu_memory_total(smn_amdsmi_processor handle, unsigned type,
                                                  uint64_t *total)
{
    ENTER(handle)
    return type == SMN_AMDSMI_MEM_TYPE_VRAM ? tell(value(MEMORY_TOTAL, device), total)
                                            : SMN_AMDSMI_STATUS_NOT_SUPPORTED;
}

/* Of the two, a chip has one; the other is "not available" by its largest value. */
static uint32_t power_field(double watts)
{
    return isnan(watts) ? UINT32_MAX : smn_fake_u32(watts);
}

API smn_amdsmi_status amdsmi_get_power_info(smn_amdsmi_processor handle, void *structure)
{
    ENTER(handle)
    double current = value(POWER, device);
    double average = value(AVERAGE_POWER, device);
    if (isnan(current) && isnan(average))
        return SMN_AMDSMI_STATUS_NOT_SUPPORTED;
#define FILL(type)                                                                                 \
    do {                                                                                           \
        type *info = structure;                                                                    \
        memset(info, 0xff, sizeof *info); /* voltages and the like are not available */            \
        info->current_socket_power = power_field(current);                                         \
        info->average_socket_power = power_field(average);                                         \
    } while (0)
    if (version() < 25)
        FILL(smn_amdsmi_power_info_23);
    else if (version() < 26)
        FILL(smn_amdsmi_power_info_25);
    else
        FILL(smn_amdsmi_power_info_26);
#undef FILL
    return SMN_AMDSMI_STATUS_SUCCESS;
}

API smn_amdsmi_status amdsmi_get_power_cap_info(smn_amdsmi_processor handle, uint32_t sensor,
                                                smn_amdsmi_power_cap_info *cap)
{
    ENTER(handle)
    double watts = value(POWER_LIMIT, device);
    if (sensor != 0 || isnan(watts))
        return SMN_AMDSMI_STATUS_NOT_SUPPORTED;
    double factor = value(LIMIT_IN_WATTS, device) > 0 ? 1 : 1e6;
    memset(cap, 0, sizeof *cap);
    cap->power_cap = smn_fake_u64(in_units(watts, factor));
    cap->default_power_cap = cap->max_power_cap = (uint64_t)(1000 * factor);
    return SMN_AMDSMI_STATUS_SUCCESS;
}

API smn_amdsmi_status amdsmi_get_energy_count(smn_amdsmi_processor handle, uint64_t *count,
                                              float *resolution, uint64_t *timestamp)
{
    ENTER(handle)
    double now = smn_fake_now();
    *resolution = (float)value(ENERGY_RESOLUTION, device);
    *timestamp = (uint64_t)(now * 1e9);
    return tell(energy_count(device, now), count);
}

API smn_amdsmi_status amdsmi_get_temp_metric(smn_amdsmi_processor handle, unsigned sensor,
                                             unsigned metric, int64_t *temperature)
{
    ENTER(handle)
    double degrees = NAN;
    if (metric == SMN_AMDSMI_TEMP_CURRENT && sensor <= SMN_AMDSMI_TEMPERATURE_TYPE_HOTSPOT)
        degrees = value(sensor == SMN_AMDSMI_TEMPERATURE_TYPE_EDGE ? EDGE_TEMPERATURE : TEMPERATURE,
                        device);
    if (isnan(degrees))
        return SMN_AMDSMI_STATUS_NOT_SUPPORTED;
    *temperature = (int64_t)(value(IN_MILLIDEGREES, device) > 0 ? degrees * 1000 : degrees);
    return SMN_AMDSMI_STATUS_SUCCESS;
}

API smn_amdsmi_status amdsmi_get_clock_info(smn_amdsmi_processor handle, unsigned type,
                                            smn_amdsmi_clk_info *clock)
{
    ENTER(handle)
    double megahertz = NAN;
    if (type == SMN_AMDSMI_CLK_TYPE_GFX || type == SMN_AMDSMI_CLK_TYPE_MEM)
        megahertz = value(type == SMN_AMDSMI_CLK_TYPE_GFX ? SM_CLOCK : MEMORY_CLOCK, device);
    if (isnan(megahertz))
        return SMN_AMDSMI_STATUS_NOT_SUPPORTED;
    memset(clock, 0, sizeof *clock);
    clock->clk = smn_fake_u32(megahertz);
    clock->min_clk = 132;
    clock->max_clk = 2100;
    return SMN_AMDSMI_STATUS_SUCCESS;
}

#ifndef SMN_FAKE_OLD_ROCM
API smn_amdsmi_status amdsmi_get_gpu_total_ecc_count(smn_amdsmi_processor handle,
                                                     smn_amdsmi_error_count *errors)
{
    ENTER(handle)
    double corrected = value(ECC_CORRECTED, device);
    if (isnan(corrected))
        return SMN_AMDSMI_STATUS_NOT_SUPPORTED;
    memset(errors, 0, rocm() < 6.1 ? 32 : sizeof *errors);
    errors->correctable_count = smn_fake_u64(corrected);
    errors->uncorrectable_count = smn_fake_u64(value(ECC_UNCORRECTED, device));
    errors->deferred_count = 1000; /* no error yet, and not to be counted as one */
    return SMN_AMDSMI_STATUS_SUCCESS;
}
#endif

/* For pyrsmi, which asks what a status means. */
API smn_amdsmi_status amdsmi_status_code_to_string(smn_amdsmi_status status, const char **meaning)
{
    *meaning = "an error of the stand-in";
    for (const smn_fake_code *code = smn_fake_codes; code->name != NULL; code++)
        if ((smn_amdsmi_status)code->code == status)
            *meaning = code->name;
    return SMN_AMDSMI_STATUS_SUCCESS;
}

/*
 * A stand-in for AMD's librocm_smi64.so: what a scenario says (scenario.h, amd.h),
 * by the rules of the real one, in the structures of the release that the
 * scenario names. -DSMN_FAKE_OLD_ROCM leaves out what came with ROCm 6.
 *
 * As with the real one, initialising is counted, and without it there are no
 * devices: then any number of one is an invalid argument.
 */
#include "amd.h"

const smn_fake_code smn_fake_codes[] = {
    {"INVAL", SMN_RSMI_STATUS_INVALID_ARGS},
    {"NOT_SUPPORTED", SMN_RSMI_STATUS_NOT_SUPPORTED},
    {"NOT_YET_IMPLEMENTED", SMN_RSMI_STATUS_NOT_YET_IMPLEMENTED},
    {"NO_PERM", SMN_RSMI_STATUS_PERMISSION},
    {"INIT_ERROR", SMN_RSMI_STATUS_INIT_ERROR},
    {"BUSY", SMN_RSMI_STATUS_BUSY},
    {"NOT_FOUND", SMN_RSMI_STATUS_NOT_FOUND},
    {"NOT_INIT", SMN_RSMI_STATUS_INIT_ERROR},
    /* the library has no codes of its own for these of amd_smi */
    {"DRM_ERROR", -1},
    {"TIMEOUT", -1},
    {"RETRY", -1},
    {"DRIVER_NOT_LOADED", SMN_RSMI_STATUS_INIT_ERROR},
    {"NO_DATA", 14},
    {"UNKNOWN_ERROR", -1},
    {NULL, 0},
};

/* ---- the library as a whole --------------------------------------------- */

#define ENTER_ANY()                                                                                \
    static smn_fake_function self;                                                                 \
    int code = smn_fake_enter(&self, __func__, SMN_FAKE_NO_DEVICE, SMN_FAKE_NO_INSTANCE);          \
    if (code != 0)                                                                                 \
        return (smn_rsmi_status)code;

API smn_rsmi_status rsmi_init(uint64_t flags)
{
    ENTER_ANY()
    (void)flags;
    smn_fake_open();
    return SMN_RSMI_STATUS_SUCCESS;
}

API smn_rsmi_status rsmi_shut_down(void)
{
    ENTER_ANY()
    return smn_fake_close() == 0 ? SMN_RSMI_STATUS_SUCCESS : SMN_RSMI_STATUS_INIT_ERROR;
}

static int devices(void)
{
    return smn_fake_is_open() ? smn_fake_devices() : 0;
}

API smn_rsmi_status rsmi_num_monitor_devices(uint32_t *count)
{
    ENTER_ANY()
    *count = (uint32_t)devices();
    return SMN_RSMI_STATUS_SUCCESS;
}

API smn_rsmi_status rsmi_version_get(smn_rsmi_version *version)
{
    ENTER_ANY()
    *version = (smn_rsmi_version){(uint32_t)rocm(), 2, 3, "stand-in"};
    return SMN_RSMI_STATUS_SUCCESS;
}

API smn_rsmi_status rsmi_version_str_get(unsigned component, char *to, uint32_t size)
{
    ENTER_ANY()
    if (component != SMN_RSMI_SW_COMP_DRIVER)
        return SMN_RSMI_STATUS_INVALID_ARGS;
    snprintf(to, size, "%s", driver_version());
    return SMN_RSMI_STATUS_SUCCESS;
}

/* ---- who a device is ---------------------------------------------------- */

/* What every function of a device begins with. */
static smn_rsmi_status enter(smn_fake_function *self, const char *function, uint32_t number)
{
    int device = number < SMN_FAKE_MOST_DEVICES ? (int)number : SMN_FAKE_NO_DEVICE;
    int code = smn_fake_enter(self, function, device, SMN_FAKE_NO_INSTANCE);
    if (code != 0)
        return (smn_rsmi_status)code;
    return number < (uint32_t)devices() ? SMN_RSMI_STATUS_SUCCESS : SMN_RSMI_STATUS_INVALID_ARGS;
}

#define ENTER(number)                                                                              \
    static smn_fake_function self;                                                                 \
    int device = (int)number;                                                                      \
    smn_rsmi_status status = enter(&self, __func__, number);                                       \
    if (status != SMN_RSMI_STATUS_SUCCESS)                                                         \
        return status;

API smn_rsmi_status rsmi_dev_pci_id_get(uint32_t number, uint64_t *id)
{
    ENTER(number)
    *id = address(device) >> 16 << 32 | (address(device) & 0xffff);
    return SMN_RSMI_STATUS_SUCCESS;
}

API smn_rsmi_status rsmi_dev_unique_id_get(uint32_t number, uint64_t *id)
{
    ENTER(number)
    *id = unique_id(device);
    return *id != 0 ? SMN_RSMI_STATUS_SUCCESS : SMN_RSMI_STATUS_NOT_SUPPORTED;
}

API smn_rsmi_status rsmi_dev_name_get(uint32_t number, char *name, size_t size)
{
    ENTER(number)
    write_name(device, name, size);
    return SMN_RSMI_STATUS_SUCCESS;
}

/* ---- readings ----------------------------------------------------------- */

static smn_rsmi_status tell(double amount, uint64_t *to)
{
    if (isnan(amount))
        return SMN_RSMI_STATUS_NOT_SUPPORTED;
    *to = smn_fake_u64(amount);
    return SMN_RSMI_STATUS_SUCCESS;
}

API smn_rsmi_status rsmi_dev_busy_percent_get(uint32_t number, uint32_t *percentage)
{
    ENTER(number)
    if (isnan(value(UTILIZATION, device)))
        return SMN_RSMI_STATUS_NOT_SUPPORTED;
    *percentage = smn_fake_u32(value(UTILIZATION, device));
    return SMN_RSMI_STATUS_SUCCESS;
}

API smn_rsmi_status rsmi_dev_memory_usage_get(uint32_t number, unsigned type, uint64_t *used)
{
    ENTER(number)
    return type == SMN_RSMI_MEM_TYPE_VRAM ? tell(value(MEMORY_USED, device), used)
                                          : SMN_RSMI_STATUS_NOT_SUPPORTED;
}

API smn_rsmi_status rsmi_dev_memory_total_get(uint32_t number, unsigned type, uint64_t *total)
{
    ENTER(number)
    return type == SMN_RSMI_MEM_TYPE_VRAM ? tell(value(MEMORY_TOTAL, device), total)
                                          : SMN_RSMI_STATUS_NOT_SUPPORTED;
}

/* Without rsmi_dev_power_get, the average is whatever power there is. */
API smn_rsmi_status rsmi_dev_power_ave_get(uint32_t number, uint32_t sensor, uint64_t *power)
{
    ENTER(number)
    double watts = value(AVERAGE_POWER, device);
#ifdef SMN_FAKE_OLD_ROCM
    if (isnan(watts))
        watts = value(POWER, device);
#endif
    return sensor == 0 ? tell(in_units(watts, 1e6), power) : SMN_RSMI_STATUS_NOT_SUPPORTED;
}

#ifndef SMN_FAKE_OLD_ROCM
API smn_rsmi_status rsmi_dev_power_get(uint32_t number, uint64_t *power, unsigned *type)
{
    ENTER(number)
    double watts = value(POWER, device);
    *type = isnan(watts) ? 0U : 1U;
    if (isnan(watts))
        watts = value(AVERAGE_POWER, device);
    return tell(in_units(watts, 1e6), power);
}
#endif

API smn_rsmi_status rsmi_dev_power_cap_get(uint32_t number, uint32_t sensor, uint64_t *cap)
{
    ENTER(number)
    return sensor == 0 ? tell(in_units(value(POWER_LIMIT, device), 1e6), cap)
                       : SMN_RSMI_STATUS_NOT_SUPPORTED;
}

API smn_rsmi_status rsmi_dev_energy_count_get(uint32_t number, uint64_t *count, float *resolution,
                                              uint64_t *timestamp)
{
    ENTER(number)
    double now = smn_fake_now();
    *resolution = (float)value(ENERGY_RESOLUTION, device);
    *timestamp = (uint64_t)(now * 1e9);
    return tell(energy_count(device, now), count);
}

API smn_rsmi_status rsmi_dev_temp_metric_get(uint32_t number, uint32_t sensor, unsigned metric,
                                             int64_t *temperature)
{
    ENTER(number)
    double degrees = NAN;
    if (metric == SMN_RSMI_TEMP_CURRENT && sensor <= SMN_RSMI_TEMP_TYPE_JUNCTION)
        degrees = value(sensor == SMN_RSMI_TEMP_TYPE_EDGE ? EDGE_TEMPERATURE : TEMPERATURE, device);
    if (isnan(degrees))
        return SMN_RSMI_STATUS_NOT_SUPPORTED;
    *temperature = (int64_t)(degrees * 1000);
    return SMN_RSMI_STATUS_SUCCESS;
}

/* Three to choose from, the last in force; below 0: an index that is none. */
API smn_rsmi_status rsmi_dev_gpu_clk_freq_get(uint32_t number, unsigned type,
                                              smn_rsmi_frequencies *frequencies)
{
    ENTER(number)
    double megahertz = NAN;
    if (type == SMN_RSMI_CLK_TYPE_SYS || type == SMN_RSMI_CLK_TYPE_MEM)
        megahertz = value(type == SMN_RSMI_CLK_TYPE_SYS ? SM_CLOCK : MEMORY_CLOCK, device);
    if (isnan(megahertz))
        return SMN_RSMI_STATUS_NOT_SUPPORTED;
#define FILL(type)                                                                                 \
    do {                                                                                           \
        type *list = (void *)frequencies;                                                          \
        memset(list, 0, sizeof *list);                                                             \
        list->num_supported = 3;                                                                   \
        list->current = megahertz < 0 ? UINT32_MAX : 2;                                            \
        list->frequency[0] = 132000000;                                                            \
        list->frequency[1] = 500000000;                                                            \
        list->frequency[2] = (uint64_t)(fabs(megahertz) * 1e6);                                    \
    } while (0)
    if (rocm() < 6) {
        FILL(smn_rsmi_frequencies);
    } else {
        FILL(smn_rsmi_frequencies_6);
        ((smn_rsmi_frequencies_6 *)(void *)frequencies)->has_deep_sleep = device % 2 == 1;
    }
#undef FILL
    return SMN_RSMI_STATUS_SUCCESS;
}

/* Two blocks count: corrected errors the first, the others the second. */
API smn_rsmi_status rsmi_dev_ecc_enabled_get(uint32_t number, uint64_t *blocks)
{
    ENTER(number)
    return tell(isnan(value(ECC_CORRECTED, device)) ? (double)NAN : 0x5, blocks);
}

API smn_rsmi_status rsmi_dev_ecc_count_get(uint32_t number, uint64_t block,
                                           smn_rsmi_error_count *errors)
{
    ENTER(number)
    if (block != 1 && block != 4)
        return SMN_RSMI_STATUS_NOT_SUPPORTED;
    *errors = (smn_rsmi_error_count){0, 0};
    if (block == 1)
        errors->correctable_err = smn_fake_u64(value(ECC_CORRECTED, device));
    else
        errors->uncorrectable_err = smn_fake_u64(value(ECC_UNCORRECTED, device));
    return SMN_RSMI_STATUS_SUCCESS;
}

/* AMD GPUs by way of librocm_smi64, the library before libamd_smi. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amd.h"
#include "rocm_smi_abi.h"

typedef struct {
    smn_amd_device common; /* first, so that an array of these is one of those */
    uint32_t number;       /* the library's own */
} rocm_device;

typedef struct {
#define DECLARE(name, arguments) smn_rsmi_status(*name) arguments;
    SMN_RSMI_REQUIRED(DECLARE)
    SMN_RSMI_OPTIONAL(DECLARE)
    SMN_RSMI_LATER(DECLARE)
#undef DECLARE
    bool opened; /* once by us: the library counts */
    bool knows_frequencies;
    int count;
    rocm_device devices[SMN_GPU_MOST_DEVICES];
    smn_rsmi_buffer buffer; /* what the library writes into */
} rocm_state;

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

static const char *const names[] = {"librocm_smi64.so",   "librocm_smi64.so.7",
                                    "librocm_smi64.so.6", "librocm_smi64.so.5",
                                    "librocm_smi64.so.1", NULL};

/*
 * "Invalid arguments" and "not found" may be about the number of the device or
 * about what was to be read of it. It is the latter if the library has a device
 * of that number, whose address it knows. Without any devices, somebody has shut
 * it down.
 */
static int error_of_arguments(const rocm_state *rocm, uint32_t number)
{
    uint32_t count = 0;
    uint64_t address;
    if (rocm->rsmi_num_monitor_devices(&count) != SMN_RSMI_STATUS_SUCCESS || count == 0)
        return -ENOTCONN;
    if (number >= count)
        return -ENODEV;
    bool is_there = rocm->rsmi_dev_pci_id_get != NULL &&
                    rocm->rsmi_dev_pci_id_get(number, &address) == SMN_RSMI_STATUS_SUCCESS;
    return is_there ? -ENOTSUP : -ENODEV;
}

static int error_of(const rocm_state *rocm, uint32_t number, smn_rsmi_status status)
{
    switch (status) {
    case SMN_RSMI_STATUS_SUCCESS:
        return 0;
    case SMN_RSMI_STATUS_NOT_SUPPORTED:
    case SMN_RSMI_STATUS_NOT_YET_IMPLEMENTED:
        return -ENOTSUP;
    case SMN_RSMI_STATUS_PERMISSION:
        return -EACCES;
    case SMN_RSMI_STATUS_INIT_ERROR:
        return -ENOTCONN;
    case SMN_RSMI_STATUS_INVALID_ARGS:
    case SMN_RSMI_STATUS_NOT_FOUND:
    case SMN_RSMI_STATUS_INPUT_OUT_OF_BOUNDS:
        return error_of_arguments(rocm, number);
    case SMN_RSMI_STATUS_BUSY:
        return -EBUSY;
    default:
        return -EIO;
    }
}

/* ---- what is called, and what it says ----------------------------------- */

/* The buffer with no trace of what it held: a library may fill less of it than it could. */
static smn_rsmi_buffer *cleared(rocm_state *rocm)
{
    memset(&rocm->buffer, 0, sizeof rocm->buffer);
    return &rocm->buffer;
}

#define NUMBER(index) (rocm->devices[index].number)

/*
 * The error of a call of `function` for a device, by the library's number, with
 * the other arguments; -ENOTSUP where the library has no such function.
 */
#define CALL(function, number, ...)                                                                \
    (rocm->function != NULL ? error_of(rocm, number, rocm->function(number, __VA_ARGS__))          \
                            : -ENOTSUP)

/* What a read function returns: the error, in the light of the device's past. */
static int outcome(rocm_state *rocm, int index, int call, int error)
{
    return smn_amd_outcome(&rocm->devices[index].common, call, error);
}

static int read_activity(void *state, int index, double *readings)
{
    rocm_state *rocm = state;
    uint32_t percentage = UINT32_MAX;
    int error = CALL(rsmi_dev_busy_percent_get, NUMBER(index), &percentage);
    if (error == 0)
        readings[SMN_GPU_UTILIZATION] = smn_amd_percentage(percentage);
    return outcome(rocm, index, ACTIVITY, error);
}

static int read_memory_used(void *state, int index, double *readings)
{
    rocm_state *rocm = state;
    uint64_t used = UINT64_MAX;
    int error = CALL(rsmi_dev_memory_usage_get, NUMBER(index), SMN_RSMI_MEM_TYPE_VRAM, &used);
    if (error == 0)
        readings[SMN_GPU_MEMORY_USED] = smn_amd_bytes(used);
    return outcome(rocm, index, MEMORY_USED, error);
}

static int total_memory(rocm_state *rocm, int index, double *bytes)
{
    uint64_t total = UINT64_MAX;
    int error = CALL(rsmi_dev_memory_total_get, NUMBER(index), SMN_RSMI_MEM_TYPE_VRAM, &total);
    if (error == 0 && total > 0)
        *bytes = smn_amd_bytes(total);
    return error;
}

static int read_memory_total(void *state, int index, double *readings)
{
    return outcome(state, index, MEMORY_TOTAL,
                   total_memory(state, index, &readings[SMN_GPU_MEMORY_TOTAL]));
}

/* Newer chips have no average; rsmi_dev_power_get gives whichever there is. */
static int read_power(void *state, int index, double *readings)
{
    rocm_state *rocm = state;
    uint64_t power = 0;
    unsigned type;
    if (!rocm->devices[index].common.has_sensors)
        return -ENOTSUP;
    int error = CALL(rsmi_dev_power_get, NUMBER(index), &power, &type);
    if (error == -ENOTSUP)
        error = CALL(rsmi_dev_power_ave_get, NUMBER(index), 0, &power);
    if (error == 0)
        readings[SMN_GPU_POWER] = smn_amd_microwatts(power);
    return outcome(rocm, index, POWER, error);
}

static int read_energy(void *state, int index, double *readings)
{
    rocm_state *rocm = state;
    uint64_t count = UINT64_MAX;
    float resolution = 0;
    uint64_t timestamp;
    if (!rocm->devices[index].common.has_sensors)
        return -ENOTSUP;
    int error = CALL(rsmi_dev_energy_count_get, NUMBER(index), &count, &resolution, &timestamp);
    if (error == 0)
        readings[SMN_GPU_ENERGY] = smn_amd_joules(count, (double)resolution);
    return outcome(rocm, index, ENERGY, error);
}

static int read_power_cap(void *state, int index, double *readings)
{
    rocm_state *rocm = state;
    uint64_t cap = 0;
    if (!rocm->devices[index].common.has_sensors)
        return -ENOTSUP;
    int error = CALL(rsmi_dev_power_cap_get, NUMBER(index), 0, &cap);
    if (error == 0)
        readings[SMN_GPU_POWER_LIMIT] = smn_amd_microwatts(cap);
    return outcome(rocm, index, POWER_CAP, error);
}

static int temperature_of(rocm_state *rocm, int index, uint32_t sensor, double *celsius)
{
    int64_t value = INT64_MAX;
    int error = CALL(rsmi_dev_temp_metric_get, NUMBER(index), sensor, SMN_RSMI_TEMP_CURRENT,
                     &value);
    if (error == 0)
        *celsius = smn_amd_millidegrees(value);
    return error;
}

/* The hottest place, which is what throttles; older chips have only the edge. */
static int read_temperature(void *state, int index, double *readings)
{
    rocm_state *rocm = state;
    double *celsius = &readings[SMN_GPU_TEMPERATURE];
    int error = temperature_of(rocm, index, SMN_RSMI_TEMP_TYPE_JUNCTION, celsius);
    if (error == -ENOTSUP || (error == 0 && isnan(*celsius)))
        error = temperature_of(rocm, index, SMN_RSMI_TEMP_TYPE_EDGE, celsius);
    return outcome(rocm, index, TEMPERATURE, error);
}

/* NaN for what cannot be a clock, above all for an index that is none. */
static double chosen(const uint64_t *frequencies, uint32_t most, uint32_t count, uint32_t current)
{
    if (count == 0 || count > most || current >= count)
        return (double)NAN;
    double hertz = (double)frequencies[current];
    return hertz >= 1e6 && hertz <= 20e9 ? hertz / 1e6 : (double)NAN;
}

/*
 * ROCm 6 has put a flag in front of the structure, and the numbers of versions
 * do not tell it for sure (Debian's 5.2 calls itself 1). But in a buffer that
 * was empty the two cannot be mistaken for each other: the older starts with a
 * number of clocks above the index that follows; where the newer has a flag of
 * 0 or 1, that number follows, which is at least as large.
 */
static double clock_in(const smn_rsmi_buffer *buffer)
{
    const smn_rsmi_frequencies *old = &buffer->frequencies;
    const smn_rsmi_frequencies_6 *new = &buffer->frequencies_6;
    if (old->num_supported > old->current)
        return chosen(old->frequency, SMN_RSMI_MAX_NUM_FREQUENCIES, old->num_supported,
                      old->current);
    if (old->num_supported <= 1)
        return chosen(new->frequency, SMN_RSMI_MAX_NUM_FREQUENCIES + 1, new->num_supported,
                      new->current);
    return (double)NAN;
}

static int clock_of(rocm_state *rocm, int index, unsigned type, double *megahertz)
{
    smn_rsmi_buffer *buffer = cleared(rocm);
    if (!rocm->knows_frequencies)
        return -ENOTSUP;
    int error = CALL(rsmi_dev_gpu_clk_freq_get, NUMBER(index), type, &buffer->frequencies);
    if (error == 0)
        *megahertz = clock_in(buffer);
    return error;
}

static int read_gfx_clock(void *state, int index, double *readings)
{
    return outcome(state, index, GFX_CLOCK,
                   clock_of(state, index, SMN_RSMI_CLK_TYPE_SYS, &readings[SMN_GPU_SM_CLOCK]));
}

static int read_memory_clock(void *state, int index, double *readings)
{
    return outcome(state, index, MEMORY_CLOCK,
                   clock_of(state, index, SMN_RSMI_CLK_TYPE_MEM, &readings[SMN_GPU_MEMORY_CLOCK]));
}

/* The sum over the blocks of the chip that count; -ENOTSUP where none does. */
static int count_errors(rocm_state *rocm, int index, uint64_t enabled, double *sum)
{
    int answer = -ENOTSUP;
    double total = 0;
    for (uint64_t block = SMN_RSMI_GPU_BLOCK_FIRST; block <= SMN_RSMI_GPU_BLOCK_LAST; block <<= 1) {
        smn_rsmi_error_count *errors = &cleared(rocm)->error_count;
        if ((enabled & block) == 0)
            continue;
        int error = CALL(rsmi_dev_ecc_count_get, NUMBER(index), block, errors);
        if (error == -ENOTSUP)
            continue;
        if (error != 0)
            return error;
        answer = 0;
        total += smn_amd_errors(errors->correctable_err, errors->uncorrectable_err);
    }
    if (answer == 0)
        *sum = total;
    return answer;
}

static int read_ecc(void *state, int index, double *readings)
{
    rocm_state *rocm = state;
    uint64_t enabled = 0;
    int error = CALL(rsmi_dev_ecc_enabled_get, NUMBER(index), &enabled);
    if (error == 0)
        error = count_errors(rocm, index, enabled, &readings[SMN_GPU_ECC_ERRORS]);
    return outcome(rocm, index, ECC, error);
}

/* A call that reads one value. */
#define READS(value, function, group, pace, read)                                                  \
    {function, SMN_GPU_##group, SMN_GPU_##pace, read, SMN_GPU_##value, SMN_GPU_##value}

static const smn_gpu_call calls[] = {
    [ACTIVITY] = READS(UTILIZATION, "rsmi_dev_busy_percent_get", BASIC, FAST, read_activity),
    [MEMORY_TOTAL] = READS(MEMORY_TOTAL, "rsmi_dev_memory_total_get", BASIC, FAST,
                           read_memory_total),
    [MEMORY_USED] = READS(MEMORY_USED, "rsmi_dev_memory_usage_get", BASIC, FAST, read_memory_used),
    [POWER] = READS(POWER, "rsmi_dev_power_get", BASIC, FAST, read_power),
    [ENERGY] = READS(ENERGY, "rsmi_dev_energy_count_get", BASIC, PER_SPAN, read_energy),
    [POWER_CAP] = READS(POWER_LIMIT, "rsmi_dev_power_cap_get", BASIC, SLOW, read_power_cap),
    [TEMPERATURE] = READS(TEMPERATURE, "rsmi_dev_temp_metric_get", DETAIL, SLOW, read_temperature),
    [GFX_CLOCK] = READS(SM_CLOCK, "rsmi_dev_gpu_clk_freq_get", DETAIL, SLOW, read_gfx_clock),
    [MEMORY_CLOCK] = READS(MEMORY_CLOCK, "rsmi_dev_gpu_clk_freq_get of the memory", DETAIL, SLOW,
                           read_memory_clock),
    [ECC] = READS(ECC_ERRORS, "rsmi_dev_ecc_count_get", DETAIL, SLOW, read_ecc),
};

#undef READS

/* ---- devices ------------------------------------------------------------ */

/* The lower 16 bits are those of amd_smi; the domain is in the upper half. */
static uint64_t address_of(rocm_state *rocm, uint32_t number)
{
    uint64_t id = 0;
    if (CALL(rsmi_dev_pci_id_get, number, &id) != 0)
        return SMN_AMD_NO_ADDRESS;
    return (id >> 32) << 16 | (id & 0xffff);
}

static int count_devices(rocm_state *rocm, uint32_t *count)
{
    *count = 0;
    int error = error_of(rocm, 0, rocm->rsmi_num_monitor_devices(count));
    if (*count > SMN_GPU_MOST_DEVICES)
        *count = SMN_GPU_MOST_DEVICES;
    return error;
}

static int initialise(rocm_state *rocm)
{
    smn_rsmi_status status = rocm->rsmi_init(0);
    if (status != SMN_RSMI_STATUS_SUCCESS)
        return -ENODEV;
    rocm->opened = true; /* again, where somebody else has taken our first time back */
    return 0;
}

/*
 * The device at the same PCI address as before, or, where there are none, of
 * the same number. A library that knows of no devices was shut down.
 */
static int rocm_recover(void *state, int index)
{
    rocm_state *rocm = state;
    rocm_device *device = &rocm->devices[index];
    uint32_t count;
    int error = count_devices(rocm, &count);
    if (error != 0 || count == 0) {
        error = initialise(rocm);
        if (error == 0)
            error = count_devices(rocm, &count);
    }
    for (uint32_t n = 0; error == 0 && n < count; n++) {
        uint32_t i = ((uint32_t)index + n) %
                     count; /* its old place first: partitions may share an address */
        bool is_it = device->common.address == SMN_AMD_NO_ADDRESS
                         ? i == (uint32_t)index
                         : address_of(rocm, i) == device->common.address;
        if (is_it) {
            device->number = i;
            return 0;
        }
    }
    return error != 0 ? error : -ENODEV;
}

static int rocm_identify(void *state, int index, smn_gpu_identity *identity)
{
    rocm_state *rocm = state;
    uint64_t unique_id = 0;
    char name[256] = "";
    *identity = (smn_gpu_identity){.memory_bytes = (double)NAN};
    smn_amd_format_address(rocm->devices[index].common.address, identity->pci_id);
    if (CALL(rsmi_dev_unique_id_get, NUMBER(index), &unique_id) == 0)
        smn_amd_format_uuid(unique_id, identity->uuid);
    if (CALL(rsmi_dev_name_get, NUMBER(index), name, sizeof name) == 0)
        smn_amd_copy_text(identity->name, name, sizeof name);
    return total_memory(rocm, index, &identity->memory_bytes) == -ENODEV ? -ENODEV : 0;
}

/* ---- opening ------------------------------------------------------------ */

/* Returns the name of what the library should have and has not, or NULL. */
static const char *look_up(rocm_state *rocm, void *library)
{
    const char *missing = NULL;
#define REQUIRE(name, arguments)                                                                   \
    if (!smn_gpu_symbol(library, #name, &rocm->name))                                              \
        missing = #name;
#define TRY(name, arguments) smn_gpu_symbol(library, #name, &rocm->name);
    SMN_RSMI_REQUIRED(REQUIRE)
    SMN_RSMI_OPTIONAL(TRY)
    SMN_RSMI_LATER(TRY)
#undef REQUIRE
#undef TRY
    return missing;
}

static void read_versions(rocm_state *rocm, smn_gpu_attempt *attempt)
{
    smn_rsmi_version *version = &cleared(rocm)->version;
    if (rocm->rsmi_version_get != NULL &&
        rocm->rsmi_version_get(version) == SMN_RSMI_STATUS_SUCCESS) {
        snprintf(attempt->version, sizeof attempt->version, "%u.%u.%u", version->major,
                 version->minor, version->patch);
        /* 1 is Debian's; 2 to 4 were never released. */
        rocm->knows_frequencies = version->major == 1 ||
                                  (version->major >= 5 && version->major <= 7);
    }
    char driver[256] = "";
    if (rocm->rsmi_version_str_get != NULL &&
        rocm->rsmi_version_str_get(SMN_RSMI_SW_COMP_DRIVER, driver, sizeof driver) ==
            SMN_RSMI_STATUS_SUCCESS)
        smn_amd_copy_text(attempt->driver_version, driver, sizeof driver);
}

static int start(rocm_state *rocm, void *library, smn_gpu_attempt *attempt)
{
    uint32_t count = 0;
    const char *missing = look_up(rocm, library);
    if (missing != NULL) {
        snprintf(attempt->outcome, sizeof attempt->outcome, "lacks the function %s", missing);
        return -ENODATA;
    }
    smn_rsmi_status status = rocm->rsmi_init(0);
    if (status != SMN_RSMI_STATUS_SUCCESS) {
        snprintf(attempt->outcome, sizeof attempt->outcome,
                 "no device: rsmi_init failed with status %u", status);
        return -ENODATA;
    }
    rocm->opened = true;
    read_versions(rocm, attempt);
    if (count_devices(rocm, &count) != 0 || count == 0) {
        snprintf(attempt->outcome, sizeof attempt->outcome, "no device");
        return -ENODATA;
    }
    rocm->count = (int)count;
    for (uint32_t i = 0; i < count; i++) {
        rocm->devices[i].number = i;
        smn_amd_device_init(&rocm->devices[i].common, address_of(rocm, i), rocm->devices, (int)i,
                            sizeof *rocm->devices);
    }
    snprintf(attempt->outcome, sizeof attempt->outcome, "%u device%s", count,
             count == 1 ? "" : "s");
    return 0;
}

/* The library counts, and so it stays with whoever else uses it. */
static void rocm_close(void *state)
{
    rocm_state *rocm = state;
    if (rocm->opened)
        rocm->rsmi_shut_down();
    free(rocm);
}

static int rocm_open(int sysfs, void **state, int *device_count, smn_gpu_attempt *attempt)
{
    (void)sysfs;
    const char *folders[SMN_AMD_MOST_FOLDERS];
    char rocm_path[SMN_AMD_FOLDER_BYTES];
    *attempt = (smn_gpu_attempt){0};
    void *library = smn_gpu_load(names, smn_amd_folders(folders, rocm_path), attempt);
    if (library == NULL)
        return -ENODATA;
    rocm_state *rocm = calloc(1, sizeof *rocm);
    if (rocm == NULL)
        return -ENOMEM;
    int error = start(rocm, library, attempt);
    if (error != 0) {
        rocm_close(rocm);
        return error;
    }
    *state = rocm;
    *device_count = rocm->count;
    return 0;
}

const smn_gpu_driver smn_gpu_rocm_smi = {
    .vendor = "AMD",
    .open = rocm_open,
    .identify = rocm_identify,
    .calls = calls,
    .call_count = sizeof calls / sizeof *calls,
    .recover = rocm_recover,
    .close = rocm_close,
};

/*
 * What the three ways to an AMD GPU have in common: amd_smi.c, rocm_smi.c and
 * amdgpu_sysfs.c.
 *
 * All of them say "not available" in numbers, too: a field's largest value, of
 * 16, 32 or 64 bits. And none of them can be relied on for units, which have
 * changed from release to release where the functions below look at the size of
 * a value.
 */
#ifndef SMN_GPU_AMD_H
#define SMN_GPU_AMD_H

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "driver.h"

/*
 * A PCI address as one number, in the order of bus, device and function: the
 * function in the lowest three bits, five of the device, eight of the bus, and
 * the domain. As amd_smi has it.
 */
#define SMN_AMD_NO_ADDRESS UINT64_MAX

/* "0000:c1:00.0"; "" for none. */
void smn_amd_format_address(uint64_t address, char *text);

/* "0000:c1:00.0", and nothing after it; else SMN_AMD_NO_ADDRESS. */
uint64_t smn_amd_parse_address(const char *text);

/* The UUID that ROCR_VISIBLE_DEVICES takes: "GPU-" and 16 hexadecimal digits. "" for no ID. */
void smn_amd_format_uuid(uint64_t unique_id, char *text);

/*
 * Copies what a library has written into a field of `size` bytes, which need
 * not end in it. What is no printable ASCII is left out.
 */
void smn_amd_copy_text(char *to, const char *field, size_t size);

enum {
    SMN_AMD_MOST_FOLDERS = 3,
    SMN_AMD_FOLDER_BYTES = 512
};

/* Where ROCm's libraries are when the loader does not know: "$ROCM_PATH/lib", "/opt/rocm/lib". */
const char *const *smn_amd_folders(const char *folders[SMN_AMD_MOST_FOLDERS],
                                   char rocm[SMN_AMD_FOLDER_BYTES]);

/* Where a reading of a device stands among those of its card and its past. */
typedef struct {
    uint64_t address;
    /*
     * Compute partitions of one card share a power sensor. What it says is
     * reported of the first of them: of each it would be counted several times.
     */
    bool has_sensors;
    uint32_t worked; /* a bit for each call that has succeeded */
} smn_amd_device;

/* Of a device that is about to follow `count` others, `stride` bytes apart. */
void smn_amd_device_init(smn_amd_device *device, uint64_t address, const void *others, int count,
                         size_t stride);

/*
 * What a call makes of its error. While a GPU is reset, the kernel refuses
 * everything, and libraries call that "not supported" or "no permission": of a
 * call that has worked before, it is no more than "not this time".
 */
int smn_amd_outcome(smn_amd_device *device, int call, int error);

/* ---- values, absent (NaN) where they are none --------------------------- */

static inline bool smn_amd_is_number(uint64_t value)
{
    return value != UINT16_MAX && value != UINT32_MAX && value != UINT64_MAX;
}

/* What is above the largest that it can be is nonsense, "not available" included. */
static inline double smn_amd_up_to(double most, uint64_t value)
{
    return smn_amd_is_number(value) && (double)value <= most ? (double)value : (double)NAN;
}

static inline double smn_amd_percentage(uint64_t value)
{
    return smn_amd_up_to(100, value);
}

static inline double smn_amd_bytes(uint64_t value)
{
    return smn_amd_up_to(0x1p60, value);
}

/* No part of a chip that runs draws nothing, and no limit is nothing: zero is "unknown", too. */
static inline double smn_amd_watts(uint64_t watts)
{
    return watts > 0 ? smn_amd_up_to(50000, watts) : (double)NAN;
}

static inline double smn_amd_microwatts(uint64_t microwatts)
{
    return microwatts > 0 ? smn_amd_up_to(50e9, microwatts) / 1e6 : (double)NAN;
}

/* In microwatts or, from some releases of amd_smi, in watts: no card has a limit of 0.1 W. */
static inline double smn_amd_power_limit(uint64_t value)
{
    return value > 100000 ? smn_amd_microwatts(value) : smn_amd_watts(value);
}

/* A counter in units of so many microjoules. Zero: it does not count. */
static inline double smn_amd_joules(uint64_t count, double microjoules)
{
    bool counts = count > 0 && count != UINT64_MAX && isfinite(microjoules) && microjoules > 0;
    return counts ? (double)count * microjoules / 1e6 : (double)NAN;
}

static inline double smn_amd_millidegrees(int64_t value)
{
    bool is_one = smn_amd_is_number((uint64_t)value) && value > -100000 && value < 300000;
    return is_one ? (double)value / 1000 : (double)NAN;
}

/* In degrees or, from some releases of amd_smi, in thousandths. */
static inline double smn_amd_degrees(int64_t value)
{
    bool in_thousandths = value > 1000 || value < -100;
    if (!smn_amd_is_number((uint64_t)value))
        return (double)NAN;
    return smn_amd_millidegrees(in_thousandths ? value : value * 1000);
}

static inline double smn_amd_megahertz(uint64_t value)
{
    return smn_amd_up_to(20000, value);
}

static inline double smn_amd_errors(uint64_t correctable, uint64_t uncorrectable)
{
    bool are_numbers = correctable < UINT32_MAX && uncorrectable < UINT32_MAX;
    return are_numbers ? (double)correctable + (double)uncorrectable : (double)NAN;
}

#endif

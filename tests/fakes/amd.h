/*
 * What the stand-ins for AMD's two libraries share: a scenario for AMD says the
 * same to both. Devices that have all but the function of their PCI address in
 * common are compute partitions of one card.
 *
 * Values and their units. `none`: not supported; -1: the largest that the field
 * can hold, which is AMD's "not available":
 *     rocm                                     of device 0: the release whose structures and
 *                                              version the library has: 6, 6.1 … 7; 8: unknown
 *     utilization                              %
 *     memory_used, memory_total                bytes
 *     power, average_power                     watts; chips have one of them, or both
 *     power_limit                              watts
 *     limit_in_watts                           1: amd_smi gives it in watts, not microwatts
 *     energy_start                             joules at second 0, more than the integral of power
 *     energy                                   joules: the counter itself, not the integral
 *     energy_resolution                        microjoules that the counter counts
 *     temperature, edge_temperature            degrees Celsius, of the hottest place, of the edge
 *     in_millidegrees                          1: amd_smi gives them so
 *     sm_clock, memory_clock                   megahertz
 *     ecc_corrected, ecc_uncorrected           counters
 *     processor_type                           of amd_smi: 1 is an AMD GPU
 *     name, uuid, unique_id, pci_id            texts; unique_id in hexadecimal
 *     driver_version                           text, of device 0
 */
#ifndef SMN_FAKES_AMD_H
#define SMN_FAKES_AMD_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/gpu/amd_smi_abi.h"
#include "../../csrc/gpu/rocm_smi_abi.h"
#include "scenario.h"

#define API __attribute__((visibility("default")))

enum {
    ROCM,
    UTILIZATION,
    MEMORY_USED,
    MEMORY_TOTAL,
    POWER,
    AVERAGE_POWER,
    POWER_LIMIT,
    LIMIT_IN_WATTS,
    ENERGY_START,
    ENERGY,
    ENERGY_RESOLUTION,
    TEMPERATURE,
    EDGE_TEMPERATURE,
    IN_MILLIDEGREES,
    SM_CLOCK,
    MEMORY_CLOCK,
    ECC_CORRECTED,
    ECC_UNCORRECTED,
    PROCESSOR_TYPE,
    NAME,
    UUID,
    UNIQUE_ID,
    PCI_ID,
    DRIVER_VERSION,
    ITEMS
};

const char *const smn_fake_library = "amd";

/* No two readings of no two devices are alike, so that none passes for another. */
const smn_fake_item smn_fake_items[ITEMS + 1] = {
    [ROCM] = {"rocm", 0, 7, 0, 0, 0},
    [UTILIZATION] = {"utilization", 0, 40, 1, 0, 0},
    [MEMORY_USED] = {"memory_used", 0, 20e9, 1e9, 0, 0},
    [MEMORY_TOTAL] = {"memory_total", 0, 192e9, 0.5e9, 0, 0},
    [POWER] = {"power", 0, 300, 5, 0, 0},
    [AVERAGE_POWER] = {"average_power", 0, NAN, 0, 0, 0},
    [POWER_LIMIT] = {"power_limit", 0, 750, 10, 0, 0},
    [LIMIT_IN_WATTS] = {"limit_in_watts", 0, 0, 0, 0, 0},
    [ENERGY_START] = {"energy_start", 0, 2e6, 1e5, 0, 0},
    [ENERGY] = {"energy", 0, 0, 0, 0, 0},
    [ENERGY_RESOLUTION] = {"energy_resolution", 0, 15.25, 0, 0, 0},
    [TEMPERATURE] = {"temperature", 0, 60, 1, 0, 0},
    [EDGE_TEMPERATURE] = {"edge_temperature", 0, 30, 1, 0, 0},
    [IN_MILLIDEGREES] = {"in_millidegrees", 0, 0, 0, 0, 0},
    [SM_CLOCK] = {"sm_clock", 0, 1700, 15, 0, 0},
    [MEMORY_CLOCK] = {"memory_clock", 0, 900, 10, 0, 0},
    [ECC_CORRECTED] = {"ecc_corrected", 0, 3, 1, 0, 0},
    [ECC_UNCORRECTED] = {"ecc_uncorrected", 0, 0, 0, 0, 0},
    [PROCESSOR_TYPE] = {"processor_type", 0, SMN_AMDSMI_PROCESSOR_TYPE_AMD_GPU, 0, 0, 0},
    [NAME] = {"name", 1, 0, 0, 0, 0},
    [UUID] = {"uuid", 1, 0, 0, 0, 0},
    [UNIQUE_ID] = {"unique_id", 1, 0, 0, 0, 0},
    [PCI_ID] = {"pci_id", 1, 0, 0, 0, 0},
    [DRIVER_VERSION] = {"driver_version", 1, 0, 0, 0, 0},
};

/* Of both libraries: a scenario may be about either. */
#define NAME_OF(name, arguments) #name,
const char *const smn_fake_functions[] = {
    SMN_AMDSMI_REQUIRED(NAME_OF) SMN_AMDSMI_OPTIONAL(NAME_OF) "amdsmi_shut_down",
    "amdsmi_get_processor_handles_by_type",
    SMN_RSMI_REQUIRED(NAME_OF) SMN_RSMI_OPTIONAL(NAME_OF) SMN_RSMI_LATER(NAME_OF) NULL,
};

static double value(int item, int device)
{
    return smn_fake_value(item, device, SMN_FAKE_NO_INSTANCE);
}

static const char *text(int item, int device)
{
    return smn_fake_text(item, device, SMN_FAKE_NO_INSTANCE);
}

static double rocm(void)
{
    return smn_fake_devices() > 0 ? value(ROCM, 0) : smn_fake_items[ROCM].base;
}

/* In the order of amd_smi: domain, bus, device, function. One card a bus, unless said. */
static uint64_t address(int device)
{
    unsigned domain = 0, bus = 0, slot = 0, function = 0;
    const char *given = text(PCI_ID, device);
    if (given == NULL)
        return (uint64_t)(device * 16 + 5) << 8;
    if (sscanf(given, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
        abort();
    return (uint64_t)domain << 16 | bus << 8 | slot << 3 | function;
}

static uint64_t unique_id(int device)
{
    const char *given = text(UNIQUE_ID, device);
    return given != NULL ? strtoull(given, NULL, 16) : 0xabcd000000001000U + (uint64_t)device;
}

static void write_name(int device, char *to, size_t size)
{
    const char *given = text(NAME, device);
    if (given != NULL)
        snprintf(to, size, "%s", given);
    else
        snprintf(to, size, "AMD Instinct Fake %d", device);
}

static const char *driver_version(void)
{
    const char *given = text(DRIVER_VERSION, 0);
    return given != NULL ? given : "6.14.14";
}

/* In units of the resolution; NaN where there is no such counter. */
static double energy_count(int device, double now)
{
    double joules = value(ENERGY, device);
    if (!smn_fake_is_set(ENERGY, device, SMN_FAKE_NO_INSTANCE)) {
        int item = isnan(value(POWER, device)) ? AVERAGE_POWER : POWER;
        joules = value(ENERGY_START, device) +
                 smn_fake_integral(item, device, SMN_FAKE_NO_INSTANCE, now);
    }
    return joules < 0 ? -1 : joules * 1e6 / value(ENERGY_RESOLUTION, device);
}

/* `value` in a unit so many times smaller; -1 stays what it is. */
static double in_units(double value, double factor)
{
    return value < 0 ? value : value * factor;
}

#endif

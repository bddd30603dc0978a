/*
 * The part of libamd_smi that we call, declared anew: nobody should need ROCm
 * to build this package. Constants are the library's own with SMN_ in front,
 * and members have its own names, so that a test can compare them with other
 * people's declarations.
 *
 * The library keeps its symbols and changes its structures. Which ones it
 * speaks, the first word of its version tells: 23 is ROCm 6.0, 24 is 6.1 to
 * 6.3, 25 is 6.4, 26 is 7. A structure whose name ends in a number is laid out
 * so from that version on; the others are the same in all of them, as far as
 * they are declared here.
 */
#ifndef SMN_AMD_SMI_ABI_H
#define SMN_AMD_SMI_ABI_H

#include <stdint.h>

typedef void *smn_amdsmi_socket;
typedef void *smn_amdsmi_processor;
typedef unsigned int smn_amdsmi_status;

enum {
    SMN_AMDSMI_OLDEST_VERSION = 23,
    SMN_AMDSMI_NEWEST_VERSION = 26
};

enum {
    SMN_AMDSMI_STATUS_SUCCESS = 0,
    SMN_AMDSMI_STATUS_INVAL = 1,
    SMN_AMDSMI_STATUS_NOT_SUPPORTED = 2,
    SMN_AMDSMI_STATUS_NOT_YET_IMPLEMENTED = 3,
    SMN_AMDSMI_STATUS_DRM_ERROR = 6,
    SMN_AMDSMI_STATUS_TIMEOUT = 8,
    SMN_AMDSMI_STATUS_RETRY = 9,
    SMN_AMDSMI_STATUS_NO_PERM = 10,
    SMN_AMDSMI_STATUS_INIT_ERROR = 18,
    SMN_AMDSMI_STATUS_BUSY = 30,
    SMN_AMDSMI_STATUS_NOT_FOUND = 31,
    SMN_AMDSMI_STATUS_NOT_INIT = 32,
    SMN_AMDSMI_STATUS_DRIVER_NOT_LOADED = 34,
    SMN_AMDSMI_STATUS_NO_DATA = 40,
    SMN_AMDSMI_STATUS_NO_DRV = 51
};

enum {
    SMN_AMDSMI_INIT_AMD_GPUS = 2,
    SMN_AMDSMI_PROCESSOR_TYPE_AMD_GPU = 1,
    SMN_AMDSMI_MEM_TYPE_VRAM = 0,
    SMN_AMDSMI_TEMPERATURE_TYPE_EDGE = 0,
    SMN_AMDSMI_TEMPERATURE_TYPE_HOTSPOT = 1,
    SMN_AMDSMI_TEMP_CURRENT = 0,
    SMN_AMDSMI_CLK_TYPE_GFX = 0,
    SMN_AMDSMI_CLK_TYPE_MEM = 4,
    SMN_AMDSMI_VENDOR = 0x1002 /* AMD's PCI vendor */
};

/* Up to 25, the year comes first; both forms have 24 bytes. */
typedef struct {
    uint32_t year;
    uint32_t major;
    uint32_t minor;
    uint32_t release;
    const char *build;
} smn_amdsmi_version_23;

typedef struct {
    uint32_t major;
    uint32_t minor;
    uint32_t release;
    const char *build;
} smn_amdsmi_version_26;

typedef struct {
    uint32_t gfx_activity; /* percentages */
    uint32_t umc_activity;
    uint32_t mm_activity;
    uint32_t reserved[13];
} smn_amdsmi_engine_usage;

/* Watts and millivolts. */
typedef struct {
    uint32_t current_socket_power;
    uint32_t average_socket_power;
    uint32_t gfx_voltage;
    uint32_t soc_voltage;
    uint32_t mem_voltage;
    uint32_t power_limit;
    uint32_t reserved[11];
} smn_amdsmi_power_info_23;

typedef struct {
    uint64_t socket_power;
    uint32_t current_socket_power;
    uint32_t average_socket_power;
    uint32_t gfx_voltage;
    uint32_t soc_voltage;
    uint32_t mem_voltage;
    uint32_t power_limit;
    uint32_t reserved[2];
} smn_amdsmi_power_info_25;

typedef struct {
    uint64_t socket_power;
    uint32_t current_socket_power;
    uint32_t average_socket_power;
    uint64_t gfx_voltage;
    uint64_t soc_voltage;
    uint64_t mem_voltage;
    uint32_t power_limit;
    uint64_t reserved[18];
} smn_amdsmi_power_info_26;

typedef struct {
    uint64_t power_cap;
    uint64_t default_power_cap;
    uint64_t dpm_cap;
    uint64_t min_power_cap;
    uint64_t max_power_cap;
    uint64_t reserved[3];
} smn_amdsmi_power_cap_info;

typedef struct {
    uint32_t clk; /* megahertz */
    uint32_t min_clk;
    uint32_t max_clk;
    uint8_t clk_locked; /* ROCm 6.0 and 6.1: sleep_clk begins here */
    uint8_t clk_deep_sleep;
    uint32_t reserved[4];
} smn_amdsmi_clk_info;

typedef struct {
    uint64_t correctable_count;
    uint64_t uncorrectable_count;
    uint64_t deferred_count; /* ROCm 6.0: reserved, and the end two words later */
    uint64_t reserved[5];
} smn_amdsmi_error_count;

/* ROCm 6.0 and 6.1. From 6.2 on, which is 24 like 6.1, market_name is longer. */
typedef struct {
    char market_name[64];
    uint32_t vendor_id;
    char vendor_name[64];
    uint32_t subvendor_id;
    uint64_t device_id;
    uint32_t rev_id;
    char asic_serial[32];
    uint16_t oam_id;
    uint16_t reserved[37];
} smn_amdsmi_asic_info_23;

typedef struct {
    char market_name[256];
    uint32_t vendor_id;
    char vendor_name[64];
    uint32_t subvendor_id;
    uint64_t device_id;
    uint32_t rev_id;
    char asic_serial[32];
    uint32_t oam_id;
    uint32_t reserved[20];
} smn_amdsmi_asic_info_24;

typedef struct {
    char market_name[256];
    uint32_t vendor_id;
    char vendor_name[256];
    uint32_t subvendor_id;
    uint64_t device_id;
    uint32_t rev_id;
    char asic_serial[256];
    uint32_t oam_id;
    uint32_t num_of_compute_units;
    uint64_t target_graphics_version;
    uint32_t subsystem_id; /* reserved in 25 */
    uint32_t reserved[21];
} smn_amdsmi_asic_info_25;

typedef struct {
    char driver_name[64];
    char driver_version[64];
    char driver_date[64];
} smn_amdsmi_driver_info_23;

typedef struct {
    char driver_version[64];
    char driver_date[64];
    char driver_name[64];
} smn_amdsmi_driver_info_24;

typedef struct {
    char driver_version[256];
    char driver_date[256];
    char driver_name[256];
} smn_amdsmi_driver_info_25;

/*
 * What a library writes into: far more than any of them needs, because one of
 * the same version may still have a longer structure than its headers had when
 * this was written.
 */
enum {
    SMN_AMDSMI_MOST_BYTES = 8192
};

typedef union {
    smn_amdsmi_version_23 version_23;
    smn_amdsmi_version_26 version_26;
    smn_amdsmi_engine_usage engine_usage;
    smn_amdsmi_power_info_23 power_info_23;
    smn_amdsmi_power_info_25 power_info_25;
    smn_amdsmi_power_info_26 power_info_26;
    smn_amdsmi_power_cap_info power_cap_info;
    smn_amdsmi_clk_info clk_info;
    smn_amdsmi_error_count error_count;
    smn_amdsmi_asic_info_23 asic_info_23;
    smn_amdsmi_asic_info_24 asic_info_24;
    smn_amdsmi_asic_info_25 asic_info_25;
    smn_amdsmi_driver_info_23 driver_info_23;
    smn_amdsmi_driver_info_24 driver_info_24;
    smn_amdsmi_driver_info_25 driver_info_25;
    unsigned char bytes[SMN_AMDSMI_MOST_BYTES];
} smn_amdsmi_buffer;

/*
 * The functions; each returns a smn_amdsmi_status. Those of the first list must
 * be there; of the second, each may be missing, and then what it reads is
 * absent. A void pointer is to a structure that depends on the version.
 *
 * The address of amdsmi_get_gpu_device_bdf has the function in its lowest three
 * bits, then five of the device, eight of the bus, and the domain.
 */
#define SMN_AMDSMI_REQUIRED(ADD)                                                                   \
    ADD(amdsmi_get_lib_version, (void *))                                                          \
    ADD(amdsmi_init, (uint64_t))                                                                   \
    ADD(amdsmi_get_socket_handles, (uint32_t *, smn_amdsmi_socket *))                              \
    ADD(amdsmi_get_processor_handles, (smn_amdsmi_socket, uint32_t *, smn_amdsmi_processor *))     \
    ADD(amdsmi_get_processor_type, (smn_amdsmi_processor, unsigned int *))

#define SMN_AMDSMI_OPTIONAL(ADD)                                                                   \
    ADD(amdsmi_get_gpu_device_bdf, (smn_amdsmi_processor, uint64_t *))                             \
    ADD(amdsmi_get_gpu_device_uuid, (smn_amdsmi_processor, unsigned int *, char *))                \
    ADD(amdsmi_get_gpu_asic_info, (smn_amdsmi_processor, void *))                                  \
    ADD(amdsmi_get_gpu_driver_info, (smn_amdsmi_processor, void *))                                \
    ADD(amdsmi_get_gpu_activity, (smn_amdsmi_processor, smn_amdsmi_engine_usage *))                \
    ADD(amdsmi_get_gpu_memory_usage, (smn_amdsmi_processor, unsigned int, uint64_t *))             \
    ADD(amdsmi_get_gpu_memory_total, (smn_amdsmi_processor, unsigned int, uint64_t *))             \
    ADD(amdsmi_get_power_info, (smn_amdsmi_processor, void *))                                     \
    ADD(amdsmi_get_energy_count, (smn_amdsmi_processor, uint64_t *, float *, uint64_t *))          \
    ADD(amdsmi_get_power_cap_info, (smn_amdsmi_processor, uint32_t, smn_amdsmi_power_cap_info *))  \
    ADD(amdsmi_get_temp_metric, (smn_amdsmi_processor, unsigned int, unsigned int, int64_t *))     \
    ADD(amdsmi_get_clock_info, (smn_amdsmi_processor, unsigned int, smn_amdsmi_clk_info *))        \
    ADD(amdsmi_get_gpu_total_ecc_count, (smn_amdsmi_processor, smn_amdsmi_error_count *))

#endif

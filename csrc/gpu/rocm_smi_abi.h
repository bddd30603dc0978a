/*
 * The part of librocm_smi64 that we call, declared anew. Constants are the
 * library's own with SMN_ in front, and members have its own names, so that a
 * test can include the real rocm_smi.h beside this file and compare sizes,
 * offsets, values and prototypes.
 */
#ifndef SMN_ROCM_SMI_ABI_H
#define SMN_ROCM_SMI_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef unsigned int smn_rsmi_status;

enum {
    SMN_RSMI_STATUS_SUCCESS = 0,
    SMN_RSMI_STATUS_INVALID_ARGS = 1,
    SMN_RSMI_STATUS_NOT_SUPPORTED = 2,
    SMN_RSMI_STATUS_PERMISSION = 4,
    SMN_RSMI_STATUS_INPUT_OUT_OF_BOUNDS = 7,
    SMN_RSMI_STATUS_INIT_ERROR = 8,
    SMN_RSMI_STATUS_NOT_YET_IMPLEMENTED = 9,
    SMN_RSMI_STATUS_NOT_FOUND = 10,
    SMN_RSMI_STATUS_BUSY = 16
};

enum {
    SMN_RSMI_MEM_TYPE_VRAM = 0,
    SMN_RSMI_TEMP_TYPE_EDGE = 0,
    SMN_RSMI_TEMP_TYPE_JUNCTION = 1,
    SMN_RSMI_TEMP_CURRENT = 0,
    SMN_RSMI_CLK_TYPE_SYS = 0,
    SMN_RSMI_CLK_TYPE_MEM = 4,
    SMN_RSMI_SW_COMP_DRIVER = 0,
    SMN_RSMI_GPU_BLOCK_FIRST = 1,
    SMN_RSMI_GPU_BLOCK_LAST = 0x2000, /* there are more since; none of them in the first headers */
    SMN_RSMI_MAX_NUM_FREQUENCIES = 32
};

typedef struct {
    uint32_t major;
    uint32_t minor;
    uint32_t patch;
    const char *build;
} smn_rsmi_version;

typedef struct {
    uint32_t num_supported;
    uint32_t current; /* index of the one that is in force */
    uint64_t frequency[SMN_RSMI_MAX_NUM_FREQUENCIES];
} smn_rsmi_frequencies;

/* Since ROCm 6. */
typedef struct {
    bool has_deep_sleep;
    uint32_t num_supported;
    uint32_t current;
    uint64_t frequency[SMN_RSMI_MAX_NUM_FREQUENCIES + 1];
} smn_rsmi_frequencies_6;

typedef struct {
    uint64_t correctable_err;
    uint64_t uncorrectable_err;
} smn_rsmi_error_count;

/* What a library writes into; newer ones have longer structures. */
typedef union {
    smn_rsmi_version version;
    smn_rsmi_frequencies frequencies;
    smn_rsmi_frequencies_6 frequencies_6;
    smn_rsmi_error_count error_count;
    unsigned char bytes[4096];
} smn_rsmi_buffer;

/*
 * The functions; each returns a smn_rsmi_status. Those of the first list must
 * be there; of the second, each may be missing, and then what it reads is absent.
 */
#define SMN_RSMI_REQUIRED(ADD)                                                                     \
    ADD(rsmi_init, (uint64_t))                                                                     \
    ADD(rsmi_shut_down, (void))                                                                    \
    ADD(rsmi_num_monitor_devices, (uint32_t *))

#define SMN_RSMI_OPTIONAL(ADD)                                                                     \
    ADD(rsmi_version_get, (smn_rsmi_version *))                                                    \
    ADD(rsmi_version_str_get, (unsigned int, char *, uint32_t))                                    \
    ADD(rsmi_dev_pci_id_get, (uint32_t, uint64_t *))                                               \
    ADD(rsmi_dev_unique_id_get, (uint32_t, uint64_t *))                                            \
    ADD(rsmi_dev_name_get, (uint32_t, char *, size_t))                                             \
    ADD(rsmi_dev_busy_percent_get, (uint32_t, uint32_t *))                                         \
    ADD(rsmi_dev_memory_usage_get, (uint32_t, unsigned int, uint64_t *))                           \
    ADD(rsmi_dev_memory_total_get, (uint32_t, unsigned int, uint64_t *))                           \
    ADD(rsmi_dev_power_ave_get, (uint32_t, uint32_t, uint64_t *))                                  \
    ADD(rsmi_dev_power_cap_get, (uint32_t, uint32_t, uint64_t *))                                  \
    ADD(rsmi_dev_energy_count_get, (uint32_t, uint64_t *, float *, uint64_t *))                    \
    ADD(rsmi_dev_temp_metric_get, (uint32_t, uint32_t, unsigned int, int64_t *))                   \
    ADD(rsmi_dev_gpu_clk_freq_get, (uint32_t, unsigned int, smn_rsmi_frequencies *))               \
    ADD(rsmi_dev_ecc_enabled_get, (uint32_t, uint64_t *))                                          \
    ADD(rsmi_dev_ecc_count_get, (uint32_t, uint64_t, smn_rsmi_error_count *))

/* Of ROCm 6 and later; the last argument says whether it is an average. */
#define SMN_RSMI_LATER(ADD) ADD(rsmi_dev_power_get, (uint32_t, uint64_t *, unsigned int *))

#endif

/*
 * The part of NVML that we call, declared anew: nobody should need CUDA's
 * headers to build this package. Constants are NVML's own with SMN_ in front,
 * and members have NVML's own names, so that a test can include the real nvml.h
 * beside this file and compare sizes, offsets, values and prototypes.
 *
 * Only versioned symbols (…_v2) are used, or those that never had a second
 * version: a program that asks for an old name of a newer library may get the
 * newer structure.
 */
#ifndef SMN_NVML_ABI_H
#define SMN_NVML_ABI_H

typedef void *smn_nvml_device;
typedef void *smn_nvml_gpm_sample;

enum {
    SMN_NVML_SUCCESS = 0,
    SMN_NVML_ERROR_UNINITIALIZED = 1,
    SMN_NVML_ERROR_INVALID_ARGUMENT = 2,
    SMN_NVML_ERROR_NOT_SUPPORTED = 3,
    SMN_NVML_ERROR_NO_PERMISSION = 4,
    SMN_NVML_ERROR_NOT_FOUND = 6,
    SMN_NVML_ERROR_INSUFFICIENT_SIZE = 7,
    SMN_NVML_ERROR_DRIVER_NOT_LOADED = 9,
    SMN_NVML_ERROR_TIMEOUT = 10,
    SMN_NVML_ERROR_LIBRARY_NOT_FOUND = 12,
    SMN_NVML_ERROR_FUNCTION_NOT_FOUND = 13,
    SMN_NVML_ERROR_GPU_IS_LOST = 15,
    SMN_NVML_ERROR_RESET_REQUIRED = 16,
    SMN_NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
    SMN_NVML_ERROR_NO_DATA = 21,
    SMN_NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
    SMN_NVML_ERROR_DEPRECATED = 26,
    SMN_NVML_ERROR_GPU_NOT_FOUND = 28,
    SMN_NVML_ERROR_UNKNOWN = 999
};

enum {
    SMN_NVML_TEMPERATURE_GPU = 0,
    SMN_NVML_CLOCK_SM = 1,
    SMN_NVML_CLOCK_MEM = 2,
    SMN_NVML_MEMORY_ERROR_TYPE_CORRECTED = 0,
    SMN_NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1,
    SMN_NVML_VOLATILE_ECC = 0,
    SMN_NVML_DEVICE_MIG_ENABLE = 1,
    SMN_NVML_VALUE_TYPE_UNSIGNED_LONG = 2,
    SMN_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG = 3
};

/* Sizes of the texts that NVML writes. */
enum {
    SMN_NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE = 80,
    SMN_NVML_SYSTEM_NVML_VERSION_BUFFER_SIZE = 80,
    SMN_NVML_DEVICE_NAME_V2_BUFFER_SIZE = 96,
    SMN_NVML_DEVICE_UUID_V2_BUFFER_SIZE = 96
};

/* What slows the clocks: bits of nvmlDeviceGetCurrentClocksEventReasons. */
enum {
    SMN_NVML_CLOCKS_SW_POWER_CAP = 0x4,
    SMN_NVML_CLOCKS_HW_SLOWDOWN = 0x8,
    SMN_NVML_CLOCKS_SW_THERMAL_SLOWDOWN = 0x20,
    SMN_NVML_CLOCKS_HW_THERMAL_SLOWDOWN = 0x40,
    SMN_NVML_CLOCKS_HW_POWER_BRAKE_SLOWDOWN = 0x80
};

/* Fields of nvmlDeviceGetFieldValues. */
enum {
    SMN_NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX = 138, /* KiB; scope: the link, or all */
    SMN_NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX = 139,
    SMN_NVML_FI_DEV_PCIE_COUNT_TX_BYTES = 197,
    SMN_NVML_FI_DEV_PCIE_COUNT_RX_BYTES = 198
};

/* Metrics of nvmlGpmMetricsGet: percentages; traffic in MiB a second. */
enum {
    SMN_NVML_GPM_METRIC_SM_UTIL = 2,
    SMN_NVML_GPM_METRIC_SM_OCCUPANCY = 3,
    SMN_NVML_GPM_METRIC_ANY_TENSOR_UTIL = 5,
    SMN_NVML_GPM_METRIC_DRAM_BW_UTIL = 10,
    SMN_NVML_GPM_METRIC_FP64_UTIL = 11,
    SMN_NVML_GPM_METRIC_FP32_UTIL = 12,
    SMN_NVML_GPM_METRIC_FP16_UTIL = 13,
    SMN_NVML_GPM_METRIC_PCIE_TX_PER_SEC = 20,
    SMN_NVML_GPM_METRIC_PCIE_RX_PER_SEC = 21,
    SMN_NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC = 60,
    SMN_NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC = 61,
    SMN_NVML_GPM_METRICS_GET_VERSION = 1,
    SMN_NVML_GPM_SUPPORT_VERSION = 1
};

typedef struct {
    unsigned int gpu;
    unsigned int memory;
} smn_nvml_utilization;

/* Of nvmlDeviceGetMemoryInfo, not …_v2: the value that MLflow logs. */
typedef struct {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
} smn_nvml_memory;

/* Of nvmlDeviceGetPciInfo_v3. */
typedef struct {
    char busIdLegacy[16];
    unsigned int domain;
    unsigned int bus;
    unsigned int device;
    unsigned int pciDeviceId;
    unsigned int pciSubSystemId;
    char busId[32];
} smn_nvml_pci_info;

typedef union {
    double dVal;
    int siVal;
    unsigned int uiVal;
    unsigned long ulVal;
    unsigned long long ullVal;
    signed long long sllVal;
    unsigned short usVal;
} smn_nvml_value;

typedef struct {
    unsigned int fieldId;
    unsigned int scopeId;
    long long timestamp;
    long long latencyUsec;
    int valueType;
    int nvmlReturn;
    smn_nvml_value value;
} smn_nvml_field_value;

typedef struct {
    unsigned int metricId;
    int nvmlReturn;
    double value;
    struct {
        char *shortName;
        char *longName;
        char *unit;
    } metricInfo;
} smn_nvml_gpm_metric;

/*
 * The head of nvmlGpmMetricsGet_t. The real one ends in an array whose length
 * grows with each release of the header; the library reads numMetrics of it.
 */
typedef struct {
    unsigned int version;
    unsigned int numMetrics;
    smn_nvml_gpm_sample sample1;
    smn_nvml_gpm_sample sample2;
    smn_nvml_gpm_metric metrics[];
} smn_nvml_gpm_metrics_get;

typedef struct {
    unsigned int version;
    unsigned int isSupportedDevice;
} smn_nvml_gpm_support;

/*
 * The functions, by the symbols that the library exports, with their result and
 * arguments. Those of the first list must be there; of the second, each may be
 * missing in an older library, and then what it reads is absent.
 */
#define SMN_NVML_REQUIRED(ADD)                                                                     \
    ADD(nvmlInit_v2, (void))                                                                       \
    ADD(nvmlShutdown, (void))                                                                      \
    ADD(nvmlDeviceGetCount_v2, (unsigned int *))                                                   \
    ADD(nvmlDeviceGetHandleByIndex_v2, (unsigned int, smn_nvml_device *))

#define SMN_NVML_OPTIONAL(ADD)                                                                     \
    ADD(nvmlSystemGetDriverVersion, (char *, unsigned int))                                        \
    ADD(nvmlSystemGetNVMLVersion, (char *, unsigned int))                                          \
    ADD(nvmlDeviceGetName, (smn_nvml_device, char *, unsigned int))                                \
    ADD(nvmlDeviceGetUUID, (smn_nvml_device, char *, unsigned int))                                \
    ADD(nvmlDeviceGetPciInfo_v3, (smn_nvml_device, smn_nvml_pci_info *))                           \
    ADD(nvmlDeviceGetMemoryInfo, (smn_nvml_device, smn_nvml_memory *))                             \
    ADD(nvmlDeviceGetUtilizationRates, (smn_nvml_device, smn_nvml_utilization *))                  \
    ADD(nvmlDeviceGetPowerUsage, (smn_nvml_device, unsigned int *))                                \
    ADD(nvmlDeviceGetEnforcedPowerLimit, (smn_nvml_device, unsigned int *))                        \
    ADD(nvmlDeviceGetTotalEnergyConsumption, (smn_nvml_device, unsigned long long *))              \
    ADD(nvmlDeviceGetTemperature, (smn_nvml_device, unsigned int, unsigned int *))                 \
    ADD(nvmlDeviceGetClockInfo, (smn_nvml_device, unsigned int, unsigned int *))                   \
    ADD(nvmlDeviceGetCurrentClocksEventReasons, (smn_nvml_device, unsigned long long *))           \
    ADD(nvmlDeviceGetCurrentClocksThrottleReasons, (smn_nvml_device, unsigned long long *))        \
    ADD(nvmlDeviceGetTotalEccErrors,                                                               \
        (smn_nvml_device, unsigned int, unsigned int, unsigned long long *))                       \
    ADD(nvmlDeviceGetFieldValues, (smn_nvml_device, int, smn_nvml_field_value *))                  \
    ADD(nvmlDeviceGetMigMode, (smn_nvml_device, unsigned int *, unsigned int *))                   \
    ADD(nvmlDeviceGetMaxMigDeviceCount, (smn_nvml_device, unsigned int *))                         \
    ADD(nvmlDeviceGetMigDeviceHandleByIndex, (smn_nvml_device, unsigned int, smn_nvml_device *))   \
    ADD(nvmlGpmQueryDeviceSupport, (smn_nvml_device, smn_nvml_gpm_support *))                      \
    ADD(nvmlGpmSampleAlloc, (smn_nvml_gpm_sample *))                                               \
    ADD(nvmlGpmSampleFree, (smn_nvml_gpm_sample))                                                  \
    ADD(nvmlGpmSampleGet, (smn_nvml_device, smn_nvml_gpm_sample))                                  \
    ADD(nvmlGpmMetricsGet, (smn_nvml_gpm_metrics_get *))

#endif

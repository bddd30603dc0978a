/*
 * The table of drivers, in the order in which they are tried: as in MLflow,
 * AMD's where there is no NVIDIA GPU. Each is the object smn_gpu_<name> of
 * gpu/<name>.c.
 */
#include "driver.h"

#define DRIVERS(ADD) ADD(nvml) ADD(amd_smi) ADD(rocm_smi) ADD(amdgpu_sysfs)

#define DECLARE(name) extern const smn_gpu_driver smn_gpu_##name;
#define ENTRY(name) &smn_gpu_##name,

DRIVERS(DECLARE)

const smn_gpu_driver *const smn_gpu_drivers[] = {DRIVERS(ENTRY) NULL};

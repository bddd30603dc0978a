/*
 * What a GPU driver library is to us: a way to list devices, and a table of
 * calls that read them. Everything here happens on the GPU thread (monitor.c),
 * because any of it may take seconds.
 *
 * A driver says what it read or why not, and no more: which call is due, what
 * is tried again and what is said about it is the monitor's business, the same
 * for all drivers.
 */
#ifndef SMN_GPU_DRIVER_H
#define SMN_GPU_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include "../sysmetrics.h"

enum {
    SMN_GPU_MOST_DEVICES = 64,
    SMN_GPU_MOST_INSTANCES = 8, /* MIG divides a GPU into seven at most */
    SMN_GPU_MOST_CALLS = 16
};

/* What can be read of a device, in these units. NaN: not now, or not at all. */
enum {
    /* of the source `gpu` */
    SMN_GPU_UTILIZATION,          /* percentage of time in which a kernel ran */
    SMN_GPU_MEMORY_USED,          /* bytes */
    SMN_GPU_MEMORY_TOTAL,         /* bytes */
    SMN_GPU_POWER,                /* watts */
    SMN_GPU_POWER_LIMIT,          /* watts, the one that is enforced */
    SMN_GPU_ENERGY,               /* joules, a counter that may be reset */
    SMN_GPU_INSTANCE_MEMORY_USED, /* bytes, so many of these … */
    SMN_GPU_INSTANCE_MEMORY_TOTAL = SMN_GPU_INSTANCE_MEMORY_USED + SMN_GPU_MOST_INSTANCES,
    SMN_GPU_END_OF_BASIC = SMN_GPU_INSTANCE_MEMORY_TOTAL + SMN_GPU_MOST_INSTANCES,

    /* of the source `gpu_detail` */
    SMN_GPU_TEMPERATURE = SMN_GPU_END_OF_BASIC, /* degrees Celsius */
    SMN_GPU_SM_CLOCK,                           /* megahertz */
    SMN_GPU_MEMORY_CLOCK,                       /* megahertz */
    SMN_GPU_THROTTLED,                          /* 1 while something slows the clocks, else 0 */
    SMN_GPU_ECC_ERRORS,                         /* corrected and uncorrected, a counter */
    SMN_GPU_PCIE_RECEIVED,                      /* bytes, a counter; so are the next three */
    SMN_GPU_PCIE_TRANSMITTED,
    SMN_GPU_NVLINK_RECEIVED,
    SMN_GPU_NVLINK_TRANSMITTED,
    SMN_GPU_PCIE_RECEIVE_RATE, /* bytes a second, where there is no counter; and the next three */
    SMN_GPU_PCIE_TRANSMIT_RATE,
    SMN_GPU_NVLINK_RECEIVE_RATE,
    SMN_GPU_NVLINK_TRANSMIT_RATE,
    SMN_GPU_END_OF_DETAIL,

    /* of the source `gpu_profiling`: percentages over the time since the reading before */
    SMN_GPU_SM_ACTIVE = SMN_GPU_END_OF_DETAIL,
    SMN_GPU_SM_OCCUPANCY,
    SMN_GPU_TENSOR_ACTIVE,
    SMN_GPU_DRAM_ACTIVE,
    SMN_GPU_FP16_ACTIVE,
    SMN_GPU_FP32_ACTIVE,
    SMN_GPU_FP64_ACTIVE,
    SMN_GPU_READINGS
};

/* Which source a call is made for. */
typedef enum {
    SMN_GPU_BASIC,
    SMN_GPU_DETAIL,
    SMN_GPU_PROFILING,
    SMN_GPU_GROUPS
} smn_gpu_group;

/* How often a call is worth its price. */
typedef enum {
    SMN_GPU_FAST,       /* at every reading: ten times a second at most */
    SMN_GPU_SLOW,       /* once a second at most */
    SMN_GPU_PER_WINDOW, /* at the end of each window: what it reads spans the time between */
    SMN_GPU_PER_SPAN,   /* the same, and twice a second in between: for counters */
    SMN_GPU_PACES
} smn_gpu_pace;

typedef struct {
    const char *function; /* of the driver library, as its manual calls it: for messages */
    smn_gpu_group group;
    smn_gpu_pace pace;
    /*
     * Writes what it reads of device `index` into readings[SMN_GPU_READINGS],
     * which hold NaN. Never reads a value that it then has to guess. Returns
     *   0           all is well (what is still NaN does not exist on this device)
     *   -EAGAIN     nothing yet: the first of two readings that make one
     *   -ENOTSUP    not on this device or with this library: never ask again
     *   -EACCES     not for this user: never ask again
     *   -ENODEV     the device is lost, or must be reset
     *   -ENOTCONN   the library was shut down by somebody else in this process
     *   other       not this time
     */
    int (*read)(void *state, int index, double *readings);
    int first; /* of the readings that it may write … */
    int last;  /* … which lie side by side */
} smn_gpu_call;

/* Who a device is. Empty text and NaN where the driver does not tell. */
typedef struct {
    char uuid[SMN_GPU_TEXT_BYTES];
    char pci_id[SMN_GPU_TEXT_BYTES]; /* domain:bus:device.function in hexadecimal */
    char name[SMN_GPU_TEXT_BYTES];
    double memory_bytes;
    int instance_count; /* MIG devices, by the driver's index; 0 where MIG is off */
    char instance_uuids[SMN_GPU_MOST_INSTANCES][SMN_GPU_TEXT_BYTES]; /* "" where there is none */
} smn_gpu_identity;

typedef struct {
    const char *vendor; /* "NVIDIA", "AMD" */
    /*
     * Loads and initialises. On success *state is the driver's and *device_count
     * (1 … SMN_GPU_MOST_DEVICES) is known. -ENODATA when there is no library, no
     * driver or no device: no reason to worry. Fills *attempt in any case.
     * `sysfs` is a directory, or -1.
     */
    int (*open)(int sysfs, void **state, int *device_count, smn_gpu_attempt *attempt);
    /* -ENODEV when the device cannot be used at all. Fills what there is. */
    int (*identify)(void *state, int index, smn_gpu_identity *identity);
    const smn_gpu_call *calls;
    int call_count;
    /* Looks a lost device up anew; after -ENOTCONN, initialises the library first. 0: try it. */
    int (*recover)(void *state, int index);
    void (*close)(void *state);
} smn_gpu_driver;

/* In the order in which they are tried; the first that has a device is used. */
extern const smn_gpu_driver *const smn_gpu_drivers[];

/* ---- for drivers -------------------------------------------------------- */

/*
 * Opens the first library of `names` (ends with NULL) that the loader finds by
 * itself, or in one of `folders` (ends with NULL; may be NULL itself). Fills
 * attempt->name. NULL: attempt->outcome says that there is none.
 */
void *smn_gpu_load(const char *const *names, const char *const *folders, smn_gpu_attempt *attempt);

/*
 * Looks up `name` in a library and stores it in the function pointer at `slot`
 * (NULL if it is not there). Returns whether it is there.
 */
int smn_gpu_symbol(void *library, const char *name, void *slot);

#endif

/*
 * One device at work: which calls are made for it, what becomes of those that
 * fail, and the values that are made of what was read.
 */
#ifndef SMN_GPU_DEVICE_H
#define SMN_GPU_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "driver.h"
#include "mailbox.h"
#include "messages.h"

/* What is made of readings: the columns of a row, in these units. NaN: absent. */
enum {
    SMN_GPU_VALUE_UTILIZATION,  /* percentage */
    SMN_GPU_VALUE_MEMORY_USED,  /* bytes */
    SMN_GPU_VALUE_MEMORY_SHARE, /* used over total, 0 … 1 */
    SMN_GPU_VALUE_POWER,        /* watts, where there is no energy counter */
    SMN_GPU_VALUE_POWER_SHARE,  /* of the enforced limit, likewise */
    SMN_GPU_VALUE_ENERGY,       /* joules since the start, and in how many seconds … */
    SMN_GPU_VALUE_ENERGY_SECONDS,
    SMN_GPU_VALUE_LIMIT_SECONDS, /* … and the same as seconds at the limit, and of how many */
    SMN_GPU_VALUE_LIMITED_SECONDS,
    SMN_GPU_VALUE_INSTANCE_USED, /* bytes; of each MIG device */
    SMN_GPU_VALUE_INSTANCE_SHARE = SMN_GPU_VALUE_INSTANCE_USED + SMN_GPU_MOST_INSTANCES,
    SMN_GPU_BASIC_VALUES = SMN_GPU_VALUE_INSTANCE_SHARE + SMN_GPU_MOST_INSTANCES
};

enum {
    SMN_GPU_VALUE_TEMPERATURE,  /* degrees Celsius */
    SMN_GPU_VALUE_ENERGY_TOTAL, /* joules since the start */
    SMN_GPU_VALUE_SM_CLOCK,     /* megahertz */
    SMN_GPU_VALUE_MEMORY_CLOCK, /* megahertz */
    SMN_GPU_VALUE_THROTTLED,    /* 0 or 1 */
    SMN_GPU_VALUE_ECC_ERRORS,   /* since the start */
    SMN_GPU_VALUE_TRAFFIC,      /* bytes, counters: PCIe in and out, NVLink in and out … */
    SMN_GPU_VALUE_TRAFFIC_RATE = SMN_GPU_VALUE_TRAFFIC + 4,         /* … or bytes a second … */
    SMN_GPU_VALUE_TRAFFIC_SECONDS = SMN_GPU_VALUE_TRAFFIC_RATE + 4, /* … and when that was */
    SMN_GPU_DETAIL_VALUES
};

/* Percentages, in the order of the readings from SMN_GPU_SM_ACTIVE on. */
enum {
    SMN_GPU_PROFILING_VALUES = SMN_GPU_READINGS - SMN_GPU_SM_ACTIVE
};

/* A counter that may be reset, as a total that never falls. */
typedef struct {
    double previous; /* NaN before the first reading */
    double total;
} smn_gpu_meter;

/* The call that is under way, for others to see that it does not return. */
typedef struct {
    _Atomic uint64_t since_ns; /* 0: none */
    _Atomic int index;
    _Atomic(const char *) function;
} smn_gpu_activity;

/*
 * What a round touches comes first and lies together: it starts with cold
 * caches, and there may be many devices.
 */
typedef struct {
    /* Constant once readings begin. */
    const smn_gpu_driver *driver;
    void *state;
    int index;
    bool is_dropped;
    bool has_detail; /* somebody wants it */
    smn_gpu_activity *activity;
    double *readings; /* [SMN_GPU_READINGS], for all devices in turn; NaN between rounds */

    /* The GPU thread's. */
    bool is_lost;
    bool is_made[SMN_GPU_MOST_CALLS]; /* the call's group is wanted and the device has it */
    uint64_t energy_read_ns;
    uint64_t energy_before_ns;
    smn_gpu_meter energy;
    double energy_seconds;
    double power_limit; /* the last one read */
    double limit_seconds;
    double limited_seconds; /* of those, in which there was a limit */
    uint64_t traffic_read_ns;
    smn_gpu_meter ecc;
    uint64_t retry_ns;
    int messages_left;
    bool has_found_nonsense;

    smn_gpu_mailbox mailboxes[SMN_GPU_GROUPS];

    /* Constant once readings begin, and seldom looked at. */
    smn_gpu_identity identity;
    bool instance_is_dropped[SMN_GPU_MOST_INSTANCES];
    bool has[SMN_GPU_READINGS];
    smn_gpu_messages *messages;
    bool *is_said;          /* [SMN_GPU_MOST_CALLS], of all devices: that a call failed */
    uint64_t retry_lost_ns; /* how long a lost device is left alone */
} smn_gpu_device;

/* Which calls are due, and what they cost. */
typedef struct {
    bool is_due[SMN_GPU_PACES]; /* by pace */
    uint64_t cost_ns[SMN_GPU_GROUPS];
    uint64_t errors[SMN_GPU_GROUPS]; /* readings that failed or cannot be true */
} smn_gpu_round;

/*
 * Asks who the device is and tries every call of the wanted groups once, to
 * learn what it has. -ENODEV when it cannot be used. Set before: driver, state,
 * index, messages, activity, readings, is_said, retry_lost_ns; the rest is zero.
 */
int smn_gpu_device_find(smn_gpu_device *device, const bool *wanted);

/* Whether it has, as far as one can know, a value of a group. */
bool smn_gpu_device_has(const smn_gpu_device *device, smn_gpu_group group, int value);

/* Makes the calls that are due and puts what comes of them into the mailboxes. */
void smn_gpu_device_read(smn_gpu_device *device, smn_gpu_round *round);

#endif

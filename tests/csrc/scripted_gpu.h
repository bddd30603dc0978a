/*
 * A driver that does what the test says: it takes the place of the real table of
 * drivers in programs that link it, so nothing here depends on a library.
 */
#ifndef SCRIPTED_GPU_H
#define SCRIPTED_GPU_H

#include <stdatomic.h>

#include "gpu/driver.h"

/* Its calls, in the order in which they are made. */
enum {
    SCRIPTED_UTILIZATION,
    SCRIPTED_MEMORY,
    SCRIPTED_ENERGY,
    SCRIPTED_LIMIT,
    SCRIPTED_INSTANCES,
    SCRIPTED_TEMPERATURE,
    SCRIPTED_TRAFFIC,
    SCRIPTED_PROFILING,
    SCRIPTED_CALLS,
    SCRIPTED_DEVICES = 4
};

/* What happens from now on; may be changed while threads run. */
typedef struct {
    _Atomic int device_count;
    _Atomic int instance_count;                                 /* of device 0 */
    _Atomic int open_milliseconds;                              /* that finding takes */
    _Atomic int identify_error[SCRIPTED_DEVICES];               /* 0 or -errno */
    _Atomic int error[SCRIPTED_DEVICES][SCRIPTED_CALLS];        /* 0 or -errno */
    _Atomic int recover_error[SCRIPTED_DEVICES];                /* 0 or -errno */
    _Atomic int milliseconds[SCRIPTED_DEVICES][SCRIPTED_CALLS]; /* that a call lasts */
    _Atomic int toil_milliseconds; /* of CPU time that any call takes */
    _Atomic double reading[SCRIPTED_DEVICES][SMN_GPU_READINGS]; /* NaN: does not exist */
    _Atomic int made[SCRIPTED_DEVICES][SCRIPTED_CALLS];         /* counted by the driver */
    _Atomic int opened;
    _Atomic int closed;
} scripted_gpus;

extern scripted_gpus scripted;

/* Devices that are well: utilization 10 + index, 1 of 4 GB used, 100 W of 400, and no more. */
void scripted_reset(int device_count);

#endif

/* A GPU driver without the thread that it has in real life: each call by hand. */
#ifndef DRIVER_PROBE_H
#define DRIVER_PROBE_H

#include "gpu/driver.h"

typedef struct {
    const smn_gpu_driver *driver;
    void *state; /* NULL while it is not open */
    int count;
    smn_gpu_attempt attempt;
    double readings[SMN_GPU_READINGS]; /* of the device that was read last */
    int errors[SMN_GPU_MOST_CALLS];    /* of each call then */
} driver_probe;

/* What the driver's own open returns. */
int driver_open(driver_probe *probe, const smn_gpu_driver *driver, int sysfs);

/* Makes all calls for one device. */
void driver_read(driver_probe *probe, int index);

/* Of the call by that name; its name must begin so. */
int driver_error(const driver_probe *probe, const char *function);

void driver_close(driver_probe *probe);

#endif

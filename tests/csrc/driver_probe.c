#include "driver_probe.h"

#include <math.h>
#include <string.h>

#include "check.h"

int driver_open(driver_probe *probe, const smn_gpu_driver *driver, int sysfs)
{
    *probe = (driver_probe){.driver = driver};
    memset(&probe->attempt, 'x', sizeof probe->attempt); /* all of it is filled, in any case */
    int error = driver->open(sysfs, &probe->state, &probe->count, &probe->attempt);
    CHECK(memchr(probe->attempt.outcome, '\0', sizeof probe->attempt.outcome) != NULL);
    CHECK(*probe->attempt.name != '\0' && *probe->attempt.outcome != '\0');
    CHECK(error == 0 ? probe->state != NULL && probe->count > 0 : probe->state == NULL);
    return error;
}

void driver_read(driver_probe *probe, int index)
{
    REQUIRE(probe->state != NULL && index < probe->count);
    REQUIRE(probe->driver->call_count <= SMN_GPU_MOST_CALLS);
    for (int i = 0; i < SMN_GPU_READINGS; i++)
        probe->readings[i] = CHECK_NAN;
    for (int i = 0; i < probe->driver->call_count; i++) {
        double readings[SMN_GPU_READINGS];
        const smn_gpu_call *call = &probe->driver->calls[i];
        for (int r = 0; r < SMN_GPU_READINGS; r++)
            readings[r] = CHECK_NAN;
        probe->errors[i] = call->read(probe->state, index, readings);
        for (int r = 0; r < SMN_GPU_READINGS; r++) {
            if (isnan(readings[r]))
                continue;
            CHECK(r >= call->first && r <= call->last); /* as it has said */
            CHECK_INT(probe->errors[i], 0);
            probe->readings[r] = readings[r];
        }
    }
}

int driver_error(const driver_probe *probe, const char *function)
{
    int i = 0;
    while (i < probe->driver->call_count &&
           strncmp(probe->driver->calls[i].function, function, strlen(function)) != 0)
        i++;
    REQUIRE(i < probe->driver->call_count);
    return probe->errors[i];
}

void driver_close(driver_probe *probe)
{
    if (probe->state != NULL)
        probe->driver->close(probe->state);
    probe->state = NULL;
}

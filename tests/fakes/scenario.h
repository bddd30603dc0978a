/*
 * What the stand-ins for GPU driver libraries share: the scenario that a test
 * has written, the clock that it goes by, and the count of the calls.
 *
 * A scenario is a text file named by the environment variable SMN_FAKE_GPUS.
 * It is read when the library is loaded, which is second 0. A mistake in it
 * ends the process with a message: no test may pass on a scenario it has not.
 *
 *     # Words are separated by spaces; the order of lines matters where said.
 *     devices 2                    first of all lines about devices
 *     seed 7                       for `chance`; 1 unless said
 *     count /tmp/x/calls           where calls are counted (below)
 *     live                         the file is read again when it was replaced (below)
 *     for nvidia                   what follows is only for this library's stand-in; also
 *                                  `for amd`, `for all`
 *
 *     * utilization 50             a value of all devices; a later line overrides it
 *     0 utilization 37 @2.5 90     37, and from second 2.5 on 90
 *     1 power none                 this device does not have it
 *     1 name Some Model 80GB       a text: the rest of the line
 *     0:1 memory_used 5e9          of instance 1 (MIG) of device 0; an instance exists
 *                                  where a line gives it a value; with `*` before the
 *                                  colon it does on all devices
 *
 *     1 fail nvmlDeviceGetPowerUsage GPU_IS_LOST from 2 until 5
 *     * fail nvmlInit_v2 9 times 3
 *     0:* sleep nvmlDeviceGetMemoryInfo 30 from 1 times 1
 *     * fail * UNKNOWN chance 0.01
 *
 * Which calls a line with `fail` or `sleep` is about: `0` those for device 0, not
 * for its instances; `0:1` and `0:*` those for instances; `*` all, those that are
 * for no device, too. The function is a whole name, a beginning and `*`, or `*`.
 * The code is a number or a name that the stand-in knows. All lines that match
 * sleep; the first that matches fails. `times` counts the calls of this line, over
 * all its devices. Sleeping ends with its time and with nothing else.
 *
 * `live`: looked at in every call, so a benchmark should do without it. Replace
 * the file by rename; the new values hold from the first call that finds them.
 * Seconds go on counting from the load; counters go on from where they are;
 * `times` and `chance` start anew; `count` stays as it was.
 *
 * The file of counts holds records that smn_fake_enter() increments, readable at
 * any time by any process, also after SIGKILL: see struct record in scenario.c.
 * Their names are "FUNCTION", "FUNCTION 0", "FUNCTION 0:1"; with "forked " in
 * front for calls of a process while the library was initialised in another. The
 * record "loaded" holds the CLOCK_MONOTONIC nanosecond that is second 0.
 *
 * A stand-in is one C file that is compiled together with scenario.c, with hidden
 * visibility, and defines the five constants below. Its functions begin with
 *
 *     static smn_fake_function self;
 *     int code = smn_fake_enter(&self, __func__, device, instance);
 *     if (code != 0)
 *         return code;
 */
#ifndef SMN_FAKES_SCENARIO_H
#define SMN_FAKES_SCENARIO_H

#include <stdint.h>

enum {
    SMN_FAKE_MOST_DEVICES = 64,
    SMN_FAKE_MOST_INSTANCES = 8,
    SMN_FAKE_NO_DEVICE = -1,
    SMN_FAKE_NO_INSTANCE = -1
};

/*
 * A value that a scenario may give. Unless it does, a device has base + step ·
 * its index; an instance has instance_base + instance_step · its index.
 */
typedef struct {
    const char *name;
    int is_text;
    double base, step;
    double instance_base, instance_step;
} smn_fake_item;

typedef struct {
    const char *name;
    int code;
} smn_fake_code;

/* ---- defined by the stand-in -------------------------------------------- */

extern const char *const smn_fake_library;     /* "nvidia", "amd" */
extern const smn_fake_item smn_fake_items[];   /* ends with one without a name */
extern const smn_fake_code smn_fake_codes[];   /* ends with one without a name */
extern const char *const smn_fake_functions[]; /* all that can fail or sleep; ends with NULL */

/* ---- calls -------------------------------------------------------------- */

/* One for each function, static: remembers where its calls are counted. */
typedef struct {
    void *_Atomic records[SMN_FAKE_MOST_DEVICES + 1];
} smn_fake_function;

/*
 * Counts a call, then sleeps and fails as the scenario says: returns 0 or the
 * code to fail with. `device` may be SMN_FAKE_NO_DEVICE.
 */
int smn_fake_enter(smn_fake_function *self, const char *function, int device, int instance);

/*
 * How often the library was initialised and not shut down since. To tell calls of
 * forked children, the engine must know: a stand-in says it here. close returns -1
 * if it was not open.
 */
void smn_fake_open(void);
int smn_fake_close(void);
int smn_fake_is_open(void);

/* ---- what the scenario says --------------------------------------------- */

int smn_fake_devices(void);
int smn_fake_has_instance(int device, int instance);

/* Seconds since the library was loaded. */
double smn_fake_now(void);

/* `item` is an index in smn_fake_items; `instance` may be SMN_FAKE_NO_INSTANCE. NaN: none. */
double smn_fake_value(int item, int device, int instance);

/* Whether a line gave the value. */
int smn_fake_is_set(int item, int device, int instance);

/* The integral of the value over time from second 0 to `now`; `none` adds nothing. */
double smn_fake_integral(int item, int device, int instance, double now);

/* NULL: no line gave it. Valid for good. */
const char *smn_fake_text(int item, int device, int instance);

/* As C casts them if the value fits, else the nearest that does: -1 is the largest, as in drivers.
 */
uint32_t smn_fake_u32(double value);
uint64_t smn_fake_u64(double value);

#endif

#include "device.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "../clock.h"

enum {
    MOST_MESSAGES = 6 /* of one device, however long it runs */
};

static const uint64_t RETRY_LIBRARY_NS = 1000000000;
static const double MOST_WATTS = 20000.0;

static uint64_t now_ns(void)
{
    return smn_system_clock.monotonic_ns(NULL);
}

/* ---- what is said ------------------------------------------------------- */

static void say(smn_gpu_device *device, const char *function, const char *what)
{
    if (device->messages_left == 0)
        return;
    device->messages_left--;
    smn_gpu_messages_post(device->messages, "GPU %d (%s): %s%s%s%s", device->index,
                          device->identity.name, function, *function != '\0' ? ": " : "", what,
                          device->messages_left == 0 ? " (no more is said of this GPU)" : "");
}

/* ---- one call ----------------------------------------------------------- */

/* A device is back once it answers; it may give out a new handle and still not. */
static void take_success(smn_gpu_device *device)
{
    if (!device->is_lost)
        return;
    device->is_lost = false;
    say(device, "", "it is back");
}

static void take_loss(smn_gpu_device *device, const char *function, int error)
{
    bool library_is_gone = error == -ENOTCONN;
    device->retry_ns = now_ns() + (library_is_gone ? RETRY_LIBRARY_NS : device->retry_lost_ns);
    if (!device->is_lost)
        say(device, function,
            library_is_gone ? "the driver library was shut down by another part of this program; "
                              "it is started again"
                            : "the device is lost or must be reset; it is tried again every 30 s");
    device->is_lost = true;
}

/* What one GPU's call does the others' do as well, as a rule: one line is for all. */
static void say_once(smn_gpu_device *device, int place, const char *what)
{
    if (device->is_said[place])
        return;
    device->is_said[place] = true;
    say(device, device->driver->calls[place].function, what);
}

static void settle(smn_gpu_device *device, int place, int error, smn_gpu_round *round)
{
    const smn_gpu_call *call = &device->driver->calls[place];
    switch (error) {
    case 0:
    case -EAGAIN:
        take_success(device);
        break;
    case -ENOTSUP:
        device->is_made[place] = false;
        break;
    case -EACCES:
        device->is_made[place] = false;
        say_once(device, place,
                 "no permission; where that is so its values are left out without a word");
        break;
    case -ENODEV:
    case -ENOTCONN:
        round->errors[call->group]++;
        take_loss(device, call->function, error);
        break;
    default:
        round->errors[call->group]++;
        say_once(device, place,
                 error == -ETIMEDOUT
                     ? "it timed out; where that happens its values are left out without a word"
                     : "it failed; where that happens its values are left out without a word");
    }
}

/* When the counters were read matters as much as what they say. */
static void note_times(smn_gpu_device *device, const smn_gpu_call *call, uint64_t after_ns)
{
    if (call->first <= SMN_GPU_ENERGY && call->last >= SMN_GPU_ENERGY)
        device->energy_read_ns = after_ns;
    if (call->first <= SMN_GPU_PCIE_RECEIVED && call->last >= SMN_GPU_PCIE_RECEIVED)
        device->traffic_read_ns = after_ns;
}

static void forget(smn_gpu_device *device, const smn_gpu_call *call)
{
    for (int r = call->first; r <= call->last; r++)
        device->readings[r] = NAN;
}

/* *at_ns is the time at its beginning, then that at its end: a clock costs as much as some calls.
 */
static int make_call(smn_gpu_device *device, int place, uint64_t *at_ns, smn_gpu_round *round)
{
    const smn_gpu_call *call = &device->driver->calls[place];
    smn_gpu_activity *activity = device->activity;
    uint64_t before_ns = *at_ns;
    atomic_store_explicit(&activity->function, call->function, memory_order_relaxed);
    atomic_store_explicit(&activity->index, device->index, memory_order_relaxed);
    atomic_store_explicit(&activity->since_ns, before_ns, memory_order_release);
    int error = call->read(device->state, device->index, device->readings);
    atomic_store_explicit(&activity->since_ns, 0, memory_order_release);
    uint64_t after_ns = now_ns();
    round->cost_ns[call->group] += after_ns - before_ns;
    *at_ns = after_ns;
    note_times(device, call, after_ns);
    settle(device, place, error, round);
    return error;
}

/* ---- what cannot be true ------------------------------------------------ */

typedef struct {
    double least;
    double most;
} range;

/* Of what a reading may be; counters and traffic are looked at by their increases, or not at all.
 */
static range range_of(int reading)
{
    switch (reading) {
    case SMN_GPU_UTILIZATION:
        return (range){0.0, 100.0};
    case SMN_GPU_POWER:
        return (range){0.0, MOST_WATTS};
    case SMN_GPU_POWER_LIMIT:
        return (range){1.0, MOST_WATTS};
    case SMN_GPU_TEMPERATURE:
        return (range){-50.0, 200.0};
    case SMN_GPU_SM_CLOCK:
    case SMN_GPU_MEMORY_CLOCK:
        return (range){0.0, 20000.0};
    default: /* GPM rounds a little above 100 % now and then */
        return reading >= SMN_GPU_SM_ACTIVE ? (range){0.0, 101.0} : (range){0.0, 0x1p60};
    }
}

static void refuse(smn_gpu_device *device, smn_gpu_group group, int reading, smn_gpu_round *round)
{
    device->readings[reading] = NAN;
    round->errors[group]++;
    if (device->has_found_nonsense)
        return;
    device->has_found_nonsense = true;
    say(device, "", "the driver gave a value that cannot be true; such values are left out");
}

static void refuse_nonsense(smn_gpu_device *device, const smn_gpu_call *call, smn_gpu_round *round)
{
    double *readings = device->readings;
    for (int r = call->first; r <= call->last; r++) {
        range allowed = range_of(r);
        if (readings[r] < allowed.least || readings[r] > allowed.most || isinf(readings[r]))
            refuse(device, call->group, r, round);
    }
    if (call->first == SMN_GPU_MEMORY_USED &&
        readings[SMN_GPU_MEMORY_USED] > readings[SMN_GPU_MEMORY_TOTAL])
        refuse(device, call->group, SMN_GPU_MEMORY_USED, round);
    for (int i = 0; call->first == SMN_GPU_INSTANCE_MEMORY_USED && i < SMN_GPU_MOST_INSTANCES;
         i++) {
        if (readings[SMN_GPU_INSTANCE_MEMORY_USED + i] >
            readings[SMN_GPU_INSTANCE_MEMORY_TOTAL + i])
            refuse(device, call->group, SMN_GPU_INSTANCE_MEMORY_USED + i, round);
    }
}

/* ---- from readings to values -------------------------------------------- */

/* The increase since the reading before, which it adds; NaN where that is not known. */
static double meter_add(smn_gpu_meter *meter, double reading, double most_increase)
{
    if (isnan(reading))
        return NAN;
    double increase = reading - meter->previous;
    meter->previous = reading;
    if (!(increase >= 0.0 && increase <= most_increase)) /* the first reading, or a reset */
        return NAN;
    meter->total += increase;
    return increase;
}

static void add_energy(smn_gpu_device *device)
{
    double joules = device->readings[SMN_GPU_ENERGY];
    if (isnan(joules))
        return;
    double seconds = (double)(device->energy_read_ns - device->energy_before_ns) * 1e-9;
    double increase = meter_add(&device->energy, joules, MOST_WATTS * (seconds + 1.0));
    device->energy_before_ns = device->energy_read_ns;
    if (isnan(increase))
        return;
    device->energy_seconds += seconds;
    if (isnan(device->power_limit))
        return;
    device->limit_seconds += increase / device->power_limit;
    device->limited_seconds += seconds;
}

static void make_basic_values(smn_gpu_device *device, double *values)
{
    const double *readings = device->readings;
    if (!isnan(readings[SMN_GPU_POWER_LIMIT]))
        device->power_limit = readings[SMN_GPU_POWER_LIMIT];
    add_energy(device);
    values[SMN_GPU_VALUE_UTILIZATION] = readings[SMN_GPU_UTILIZATION];
    values[SMN_GPU_VALUE_MEMORY_USED] = readings[SMN_GPU_MEMORY_USED];
    values[SMN_GPU_VALUE_MEMORY_SHARE] = readings[SMN_GPU_MEMORY_USED] /
                                         readings[SMN_GPU_MEMORY_TOTAL];
    values[SMN_GPU_VALUE_POWER] = readings[SMN_GPU_POWER];
    values[SMN_GPU_VALUE_POWER_SHARE] = readings[SMN_GPU_POWER] / device->power_limit;
    if (!isnan(readings[SMN_GPU_ENERGY])) {
        values[SMN_GPU_VALUE_ENERGY] = device->energy.total;
        values[SMN_GPU_VALUE_ENERGY_SECONDS] = device->energy_seconds;
        values[SMN_GPU_VALUE_LIMIT_SECONDS] = device->limit_seconds;
        values[SMN_GPU_VALUE_LIMITED_SECONDS] = device->limited_seconds;
    }
    for (int i = 0; i < device->identity.instance_count; i++) {
        double used = readings[SMN_GPU_INSTANCE_MEMORY_USED + i];
        values[SMN_GPU_VALUE_INSTANCE_USED + i] = used;
        values[SMN_GPU_VALUE_INSTANCE_SHARE + i] = used /
                                                   readings[SMN_GPU_INSTANCE_MEMORY_TOTAL + i];
    }
}

static void make_detail_values(smn_gpu_device *device, double *values)
{
    const double *readings = device->readings;
    values[SMN_GPU_VALUE_TEMPERATURE] = readings[SMN_GPU_TEMPERATURE];
    values[SMN_GPU_VALUE_SM_CLOCK] = readings[SMN_GPU_SM_CLOCK];
    values[SMN_GPU_VALUE_MEMORY_CLOCK] = readings[SMN_GPU_MEMORY_CLOCK];
    values[SMN_GPU_VALUE_THROTTLED] = readings[SMN_GPU_THROTTLED];
    if (!isnan(readings[SMN_GPU_ENERGY]))
        values[SMN_GPU_VALUE_ENERGY_TOTAL] = device->energy.total;
    if (!isnan(readings[SMN_GPU_ECC_ERRORS])) {
        (void)meter_add(&device->ecc, readings[SMN_GPU_ECC_ERRORS], 0x1p60);
        values[SMN_GPU_VALUE_ECC_ERRORS] = device->ecc.total;
    }
    for (int i = 0; i < 4; i++) {
        values[SMN_GPU_VALUE_TRAFFIC + i] = readings[SMN_GPU_PCIE_RECEIVED + i];
        values[SMN_GPU_VALUE_TRAFFIC_RATE + i] = readings[SMN_GPU_PCIE_RECEIVE_RATE + i];
        if (!isnan(values[SMN_GPU_VALUE_TRAFFIC + i]))
            values[SMN_GPU_VALUE_TRAFFIC_SECONDS] = (double)device->traffic_read_ns * 1e-9;
    }
}

static void hand_over(smn_gpu_device *device, smn_gpu_group group)
{
    smn_gpu_mailbox *mailbox = &device->mailboxes[group];
    double values[SMN_GPU_MAILBOX_VALUES];
    for (int i = 0; i < mailbox->count; i++)
        values[i] = NAN;
    if (group == SMN_GPU_BASIC)
        make_basic_values(device, values);
    else if (group == SMN_GPU_DETAIL)
        make_detail_values(device, values);
    else
        memcpy(values, &device->readings[SMN_GPU_SM_ACTIVE],
               SMN_GPU_PROFILING_VALUES * sizeof *values);
    smn_gpu_mailbox_put(mailbox, values);
}

/* ---- a round ------------------------------------------------------------ */

static bool is_there(smn_gpu_device *device)
{
    if (!device->is_lost)
        return true;
    if (now_ns() < device->retry_ns)
        return false;
    int error = device->driver->recover(device->state, device->index);
    if (error != 0)
        take_loss(device, "", error);
    return error == 0;
}

/* Makes the calls that are due, until one finds that the device is lost. */
static void make_calls(smn_gpu_device *device, bool *was_made, uint64_t *at_ns,
                       smn_gpu_round *round)
{
    const smn_gpu_driver *driver = device->driver;
    for (int i = 0; i < driver->call_count; i++) {
        if (!device->is_made[i] || !round->is_due[driver->calls[i].pace])
            continue;
        was_made[i] = true;
        int error = make_call(device, i, at_ns, round);
        refuse_nonsense(device, &driver->calls[i], round);
        if (error == -ENODEV || error == -ENOTCONN)
            return;
    }
}

/* Between rounds all readings are NaN: what is not read in one is not there for its values. */
void smn_gpu_device_read(smn_gpu_device *device, smn_gpu_round *round)
{
    const smn_gpu_call *calls = device->driver->calls;
    bool was_made[SMN_GPU_MOST_CALLS] = {false};
    bool is_new[SMN_GPU_GROUPS] = {false};
    if (!is_there(device))
        return;
    uint64_t at_ns = now_ns();
    make_calls(device, was_made, &at_ns, round);
    for (int i = 0; i < device->driver->call_count; i++)
        is_new[calls[i].group] |= was_made[i];
    /* The joules since the start are among the detail, but read with the basic values. */
    is_new[SMN_GPU_DETAIL] |= device->has_detail && is_new[SMN_GPU_BASIC];
    for (smn_gpu_group g = 0; g < SMN_GPU_GROUPS; g++) {
        if (is_new[g])
            hand_over(device, g);
    }
    for (int i = 0; i < device->driver->call_count; i++) {
        if (was_made[i])
            forget(device, &calls[i]);
    }
    for (smn_gpu_group g = 0; g < SMN_GPU_GROUPS; g++) {
        if (is_new[g]) { /* what the last lines took, of the first */
            round->cost_ns[g] += now_ns() - at_ns;
            break;
        }
    }
}

/* ---- finding a device --------------------------------------------------- */

/* A call that fails for a moment may have everything; one that succeeds has what it gave. */
static void try_call(smn_gpu_device *device, int place)
{
    smn_gpu_round ignored = {0};
    uint64_t at_ns = now_ns();
    const smn_gpu_call *call = &device->driver->calls[place];
    device->is_made[place] = true;
    int error = make_call(device, place, &at_ns, &ignored);
    bool has_any = false;
    for (int r = call->first; r <= call->last; r++) {
        device->has[r] = device->is_made[place] && (error != 0 || !isnan(device->readings[r]));
        has_any |= device->has[r];
    }
    device->is_made[place] = has_any;
    refuse_nonsense(device, call, &ignored); /* it may be better the next time */
}

static void forget_all(smn_gpu_device *device)
{
    for (int r = 0; r < SMN_GPU_READINGS; r++)
        device->readings[r] = NAN;
}

/* The energy counter gives exact means; where there is one, nobody needs readings of power. */
static void do_without_power(smn_gpu_device *device)
{
    device->has[SMN_GPU_POWER] = false;
    for (int i = 0; i < device->driver->call_count; i++) {
        const smn_gpu_call *call = &device->driver->calls[i];
        if (call->first == SMN_GPU_POWER && call->last == SMN_GPU_POWER)
            device->is_made[i] = false;
    }
}

int smn_gpu_device_find(smn_gpu_device *device, const bool *wanted)
{
    int error = device->driver->identify(device->state, device->index, &device->identity);
    if (error != 0)
        return error;
    device->messages_left = MOST_MESSAGES;
    device->has_detail = wanted[SMN_GPU_DETAIL];
    forget_all(device);
    for (int i = 0; i < device->driver->call_count; i++) {
        if (wanted[device->driver->calls[i].group])
            try_call(device, i);
    }
    if (device->has[SMN_GPU_ENERGY])
        do_without_power(device);
    device->power_limit = device->readings[SMN_GPU_POWER_LIMIT];
    forget_all(device);
    device->energy.previous = NAN;
    device->ecc.previous = NAN;
    smn_gpu_mailbox_init(&device->mailboxes[SMN_GPU_BASIC], device->identity.instance_count > 0
                                                                ? SMN_GPU_BASIC_VALUES
                                                                : SMN_GPU_VALUE_INSTANCE_USED);
    smn_gpu_mailbox_init(&device->mailboxes[SMN_GPU_DETAIL], SMN_GPU_DETAIL_VALUES);
    smn_gpu_mailbox_init(&device->mailboxes[SMN_GPU_PROFILING], SMN_GPU_PROFILING_VALUES);
    return 0;
}

static bool has_basic(const smn_gpu_device *device, int value)
{
    const bool *has = device->has;
    int instance = (value - SMN_GPU_VALUE_INSTANCE_USED) % SMN_GPU_MOST_INSTANCES;
    switch (value) {
    case SMN_GPU_VALUE_UTILIZATION:
        return has[SMN_GPU_UTILIZATION];
    case SMN_GPU_VALUE_MEMORY_USED:
    case SMN_GPU_VALUE_MEMORY_SHARE:
        return has[SMN_GPU_MEMORY_USED];
    case SMN_GPU_VALUE_POWER:
        return has[SMN_GPU_POWER];
    case SMN_GPU_VALUE_POWER_SHARE:
        return has[SMN_GPU_POWER] && has[SMN_GPU_POWER_LIMIT];
    case SMN_GPU_VALUE_ENERGY:
    case SMN_GPU_VALUE_ENERGY_SECONDS:
        return has[SMN_GPU_ENERGY];
    case SMN_GPU_VALUE_LIMIT_SECONDS:
    case SMN_GPU_VALUE_LIMITED_SECONDS:
        return has[SMN_GPU_ENERGY] && has[SMN_GPU_POWER_LIMIT];
    default:
        return instance < device->identity.instance_count &&
               !device->instance_is_dropped[instance] &&
               has[SMN_GPU_INSTANCE_MEMORY_USED + instance] &&
               device->identity.instance_uuids[instance][0] != '\0';
    }
}

static bool has_detail(const smn_gpu_device *device, int value)
{
    const bool *has = device->has;
    switch (value) {
    case SMN_GPU_VALUE_TEMPERATURE:
        return has[SMN_GPU_TEMPERATURE];
    case SMN_GPU_VALUE_ENERGY_TOTAL:
        return has[SMN_GPU_ENERGY];
    case SMN_GPU_VALUE_SM_CLOCK:
        return has[SMN_GPU_SM_CLOCK];
    case SMN_GPU_VALUE_MEMORY_CLOCK:
        return has[SMN_GPU_MEMORY_CLOCK];
    case SMN_GPU_VALUE_THROTTLED:
        return has[SMN_GPU_THROTTLED];
    case SMN_GPU_VALUE_ECC_ERRORS:
        return has[SMN_GPU_ECC_ERRORS];
    case SMN_GPU_VALUE_TRAFFIC_SECONDS:
        return true; /* not a series by itself */
    default:
        break;
    }
    int way = (value - SMN_GPU_VALUE_TRAFFIC) % 4;
    bool has_counter = has[SMN_GPU_PCIE_RECEIVED + way];
    if (value < SMN_GPU_VALUE_TRAFFIC_RATE)
        return has_counter;
    return has[SMN_GPU_PCIE_RECEIVE_RATE + way] && !has_counter;
}

bool smn_gpu_device_has(const smn_gpu_device *device, smn_gpu_group group, int value)
{
    if (group == SMN_GPU_BASIC)
        return has_basic(device, value);
    if (group == SMN_GPU_DETAIL)
        return has_detail(device, value);
    return device->has[SMN_GPU_SM_ACTIVE + value];
}

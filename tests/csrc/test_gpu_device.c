/* What a device's failing calls cost, and what is made of the readings of those that work. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "clock.h"
#include "gpu/device.h"
#include "scripted_gpu.h"

typedef struct {
    smn_gpu_device device;
    smn_gpu_messages messages;
    smn_gpu_activity activity;
    double readings[SMN_GPU_READINGS];
    bool is_said[SMN_GPU_MOST_CALLS];
    smn_gpu_round round; /* the last one */
    double basic[SMN_GPU_MAILBOX_VALUES];
    double detail[SMN_GPU_MAILBOX_VALUES];
    double profiling[SMN_GPU_MAILBOX_VALUES];
} device_rig;

static const bool EVERYTHING[SMN_GPU_GROUPS] = {true, true, true};

static void make(device_rig *rig)
{
    memset(rig, 0, sizeof *rig);
    smn_gpu_messages_init(&rig->messages);
    rig->device.driver = smn_gpu_drivers[0];
    rig->device.messages = &rig->messages;
    rig->device.activity = &rig->activity;
    rig->device.readings = rig->readings;
    rig->device.is_said = rig->is_said;
}

static void find(device_rig *rig)
{
    make(rig);
    CHECK_INT(smn_gpu_device_find(&rig->device, EVERYTHING), 0);
}

static bool take(device_rig *rig, smn_gpu_group group, double *values)
{
    for (int i = 0; i < SMN_GPU_MAILBOX_VALUES; i++)
        values[i] = NAN;
    return smn_gpu_mailbox_take(&rig->device.mailboxes[group], values);
}

static void read_all(device_rig *rig)
{
    rig->round = (smn_gpu_round){.is_due = {true, true, true, true}};
    smn_gpu_device_read(&rig->device, &rig->round);
    take(rig, SMN_GPU_BASIC, rig->basic);
    take(rig, SMN_GPU_DETAIL, rig->detail);
    take(rig, SMN_GPU_PROFILING, rig->profiling);
}

static int messages_of(device_rig *rig, char *last)
{
    int count = 0;
    char line[SMN_GPU_MESSAGE_BYTES];
    while (smn_gpu_messages_take(&rig->messages, line)) {
        count++;
        memcpy(last, line, sizeof line);
    }
    return count;
}

static bool has_basic(const device_rig *rig, int value)
{
    return smn_gpu_device_has(&rig->device, SMN_GPU_BASIC, value);
}

static void set(int reading, double value)
{
    scripted.reading[0][reading] = value;
}

/* ---- values ------------------------------------------------------------- */

static void test_values_of_a_device_that_is_well(void)
{
    device_rig rig;
    char line[SMN_GPU_MESSAGE_BYTES];
    scripted_reset(1);
    set(SMN_GPU_TEMPERATURE, 55.0);
    set(SMN_GPU_SM_ACTIVE, 33.0);
    find(&rig);
    read_all(&rig);
    CHECK_DOUBLE(rig.basic[SMN_GPU_VALUE_UTILIZATION], 10.0);
    CHECK_DOUBLE(rig.basic[SMN_GPU_VALUE_MEMORY_USED], 1e9);
    CHECK_DOUBLE(rig.basic[SMN_GPU_VALUE_MEMORY_SHARE], 0.25);
    CHECK_ABSENT(rig.basic[SMN_GPU_VALUE_POWER]);
    CHECK_DOUBLE(rig.detail[SMN_GPU_VALUE_TEMPERATURE], 55.0);
    CHECK_ABSENT(rig.detail[SMN_GPU_VALUE_SM_CLOCK]);
    CHECK_DOUBLE(rig.profiling[0], 33.0);
    CHECK_U64(rig.round.errors[SMN_GPU_BASIC], 0);
    CHECK_INT(messages_of(&rig, line), 0);
}

static void test_power_from_the_energy_counter(void)
{
    device_rig rig;
    scripted_reset(1);
    set(SMN_GPU_ENERGY, 1e6);
    find(&rig);
    CHECK(has_basic(&rig, SMN_GPU_VALUE_ENERGY));
    CHECK(!has_basic(&rig, SMN_GPU_VALUE_POWER));
    read_all(&rig);
    CHECK_DOUBLE(rig.basic[SMN_GPU_VALUE_ENERGY], 0.0); /* since the start */
    CHECK_DOUBLE(rig.basic[SMN_GPU_VALUE_ENERGY_SECONDS], 0.0);
    set(SMN_GPU_ENERGY, 1e6 + 30.0);
    read_all(&rig);
    double seconds = rig.basic[SMN_GPU_VALUE_ENERGY_SECONDS];
    CHECK_NEAR(rig.basic[SMN_GPU_VALUE_ENERGY], 30.0, 1e-6);
    CHECK(seconds > 0.0);
    CHECK_NEAR(rig.basic[SMN_GPU_VALUE_LIMIT_SECONDS], 30.0 / 400.0, 1e-9);
    CHECK_DOUBLE(rig.basic[SMN_GPU_VALUE_LIMITED_SECONDS], seconds);
    /* A counter that was reset says nothing of the time before: neither joules nor seconds. */
    set(SMN_GPU_ENERGY, 5.0);
    read_all(&rig);
    CHECK_NEAR(rig.basic[SMN_GPU_VALUE_ENERGY], 30.0, 1e-6);
    CHECK_DOUBLE(rig.basic[SMN_GPU_VALUE_ENERGY_SECONDS], seconds);
    /* So does a leap that no device can have made. */
    set(SMN_GPU_ENERGY, 5e12);
    read_all(&rig);
    CHECK_NEAR(rig.basic[SMN_GPU_VALUE_ENERGY], 30.0, 1e-6);
    set(SMN_GPU_ENERGY, 5e12 + 7.0);
    set(SMN_GPU_POWER_LIMIT, 700.0); /* somebody has raised it */
    read_all(&rig);
    CHECK_NEAR(rig.basic[SMN_GPU_VALUE_ENERGY], 37.0, 1e-3);
    CHECK_NEAR(rig.basic[SMN_GPU_VALUE_LIMIT_SECONDS], 30.0 / 400.0 + 7.0 / 700.0, 1e-5);
    CHECK_NEAR(rig.detail[SMN_GPU_VALUE_ENERGY_TOTAL], 37.0, 1e-3);
}

static void test_a_limit_that_cannot_be_true_at_the_start(void)
{
    device_rig rig;
    scripted_reset(1);
    set(SMN_GPU_POWER_LIMIT, 1e9);
    find(&rig);
    CHECK(has_basic(&rig, SMN_GPU_VALUE_LIMIT_SECONDS)); /* it may be better the next time */
    read_all(&rig);
    set(SMN_GPU_ENERGY, 40.0);
    read_all(&rig);
    CHECK_DOUBLE(rig.basic[SMN_GPU_VALUE_LIMITED_SECONDS], 0.0);
    set(SMN_GPU_POWER_LIMIT, 400.0);
    read_all(&rig);
    set(SMN_GPU_ENERGY, 80.0);
    read_all(&rig);
    CHECK_NEAR(rig.basic[SMN_GPU_VALUE_LIMIT_SECONDS], 40.0 / 400.0, 1e-9);
    CHECK(rig.basic[SMN_GPU_VALUE_LIMITED_SECONDS] > 0.0);
}

static void test_power_without_the_energy_counter(void)
{
    device_rig rig;
    scripted_reset(1);
    set(SMN_GPU_ENERGY, NAN);
    set(SMN_GPU_POWER, 120.0);
    find(&rig);
    CHECK(!has_basic(&rig, SMN_GPU_VALUE_ENERGY));
    CHECK(!has_basic(&rig, SMN_GPU_VALUE_POWER)); /* this driver has no call for it */
}

static void test_instances(void)
{
    device_rig rig;
    scripted_reset(1);
    scripted.instance_count = 3;
    scripted.error[0][SCRIPTED_UTILIZATION] = -ENOTSUP;
    for (int i = 0; i < 3; i++) {
        set(SMN_GPU_INSTANCE_MEMORY_USED + i, 1e9 * (i + 1));
        set(SMN_GPU_INSTANCE_MEMORY_TOTAL + i, 1e10);
    }
    find(&rig);
    rig.device.instance_is_dropped[2] = true;
    CHECK(!has_basic(&rig, SMN_GPU_VALUE_UTILIZATION));
    CHECK(has_basic(&rig, SMN_GPU_VALUE_INSTANCE_USED));
    CHECK(!has_basic(&rig, SMN_GPU_VALUE_INSTANCE_USED + 1));  /* a hole */
    CHECK(!has_basic(&rig, SMN_GPU_VALUE_INSTANCE_SHARE + 2)); /* dropped */
    CHECK(!has_basic(&rig, SMN_GPU_VALUE_INSTANCE_USED + 3));
    read_all(&rig);
    CHECK_DOUBLE(rig.basic[SMN_GPU_VALUE_INSTANCE_USED], 1e9);
    CHECK_NEAR(rig.basic[SMN_GPU_VALUE_INSTANCE_SHARE], 0.1, 1e-12);
    set(SMN_GPU_INSTANCE_MEMORY_USED, 2e10);
    read_all(&rig);
    CHECK_ABSENT(rig.basic[SMN_GPU_VALUE_INSTANCE_USED]);
}

static void test_traffic(void)
{
    device_rig rig;
    scripted_reset(1);
    set(SMN_GPU_PCIE_RECEIVED, 1e9);
    find(&rig);
    CHECK(smn_gpu_device_has(&rig.device, SMN_GPU_DETAIL, SMN_GPU_VALUE_TRAFFIC));
    CHECK(!smn_gpu_device_has(&rig.device, SMN_GPU_DETAIL, SMN_GPU_VALUE_TRAFFIC_RATE));
    CHECK(!smn_gpu_device_has(&rig.device, SMN_GPU_DETAIL, SMN_GPU_VALUE_TRAFFIC + 1));
    read_all(&rig);
    CHECK_DOUBLE(rig.detail[SMN_GPU_VALUE_TRAFFIC], 1e9);
    CHECK(rig.detail[SMN_GPU_VALUE_TRAFFIC_SECONDS] > 0.0);
    CHECK_ABSENT(rig.detail[SMN_GPU_VALUE_TRAFFIC + 1]);
}

static void test_what_is_due(void)
{
    device_rig rig;
    scripted_reset(1);
    set(SMN_GPU_TEMPERATURE, 55.0);
    set(SMN_GPU_SM_ACTIVE, 33.0);
    find(&rig);
    int made[SCRIPTED_CALLS];
    for (int c = 0; c < SCRIPTED_CALLS; c++)
        made[c] = scripted.made[0][c];
    rig.round = (smn_gpu_round){.is_due = {[SMN_GPU_FAST] = true}};
    smn_gpu_device_read(&rig.device, &rig.round);
    CHECK_INT(scripted.made[0][SCRIPTED_UTILIZATION] - made[SCRIPTED_UTILIZATION], 1);
    CHECK_INT(scripted.made[0][SCRIPTED_TEMPERATURE] - made[SCRIPTED_TEMPERATURE], 0);
    CHECK_INT(scripted.made[0][SCRIPTED_ENERGY] - made[SCRIPTED_ENERGY], 0);
    CHECK_INT(scripted.made[0][SCRIPTED_PROFILING] - made[SCRIPTED_PROFILING], 0);
    CHECK(rig.round.cost_ns[SMN_GPU_BASIC] > 0);
    CHECK_U64(rig.round.cost_ns[SMN_GPU_DETAIL], 0);
    /* What it does not have is not asked for again. */
    CHECK_INT(scripted.made[0][SCRIPTED_INSTANCES], 1);
    CHECK_INT(scripted.made[0][SCRIPTED_TRAFFIC], 1);
}

/* ---- failures ----------------------------------------------------------- */

static void test_failing_at_every_code(void)
{
    static const struct {
        int error;
        bool goes_on;
        int messages;
        const char *says;
    } cases[] = {
        {-ENOTSUP, false, 0, ""},
        {-EACCES, false, 1, "GPU 0 (Model 0): getUtilization: no permission"},
        {-ETIMEDOUT, true, 1, "timed out"},
        {-EIO, true, 1, "getUtilization: it failed"},
        {-EINVAL, true, 1, "it failed"},
        {-EAGAIN, true, 0, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        device_rig rig;
        char line[SMN_GPU_MESSAGE_BYTES] = "";
        check_case("errno %d", -cases[i].error);
        scripted_reset(1);
        find(&rig);
        scripted.error[0][SCRIPTED_UTILIZATION] = cases[i].error;
        int before = scripted.made[0][SCRIPTED_UTILIZATION];
        for (int r = 0; r < 20; r++) {
            read_all(&rig);
            CHECK_ABSENT(rig.basic[SMN_GPU_VALUE_UTILIZATION]);
            CHECK_DOUBLE(rig.basic[SMN_GPU_VALUE_MEMORY_USED], 1e9);
        }
        CHECK_INT(scripted.made[0][SCRIPTED_UTILIZATION] - before, cases[i].goes_on ? 20 : 1);
        CHECK_INT(messages_of(&rig, line), cases[i].messages);
        CHECK_CONTAINS(line, cases[i].says);
        scripted.error[0][SCRIPTED_UTILIZATION] = 0;
        read_all(&rig);
        CHECK_DOUBLE(rig.basic[SMN_GPU_VALUE_UTILIZATION], cases[i].goes_on ? 10.0 : NAN);
    }
    check_case(NULL);
}

static void test_nonsense(void)
{
    static const struct {
        int reading;
        int value;
        double nonsense;
    } cases[] = {
        {SMN_GPU_UTILIZATION, SMN_GPU_VALUE_UTILIZATION, 250.0},
        {SMN_GPU_UTILIZATION, SMN_GPU_VALUE_UTILIZATION, -1.0},
        {SMN_GPU_UTILIZATION, SMN_GPU_VALUE_UTILIZATION, INFINITY},
        {SMN_GPU_MEMORY_USED, SMN_GPU_VALUE_MEMORY_USED, 5e9},
        {SMN_GPU_MEMORY_TOTAL, SMN_GPU_VALUE_MEMORY_SHARE, 0.0},
        {SMN_GPU_MEMORY_USED, SMN_GPU_VALUE_MEMORY_USED, -1.0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        device_rig rig;
        char line[SMN_GPU_MESSAGE_BYTES] = "";
        check_case("case %zu", i);
        scripted_reset(1);
        find(&rig);
        set(cases[i].reading, cases[i].nonsense);
        for (int r = 0; r < 5; r++) {
            read_all(&rig);
            CHECK_ABSENT(rig.basic[cases[i].value]);
            CHECK_U64(rig.round.errors[SMN_GPU_BASIC], 1);
        }
        CHECK_INT(messages_of(&rig, line), 1);
        CHECK_CONTAINS(line, "cannot be true");
    }
    check_case(NULL);
}

static void test_a_device_is_lost_and_comes_back(void)
{
    device_rig rig;
    char line[SMN_GPU_MESSAGE_BYTES] = "";
    scripted_reset(1);
    find(&rig);
    scripted.error[0][SCRIPTED_MEMORY] = -ENODEV;
    rig.device.retry_lost_ns = UINT64_C(3600000000000);
    uint64_t before = smn_system_clock.monotonic_ns(NULL);
    read_all(&rig);
    CHECK_DOUBLE(rig.basic[SMN_GPU_VALUE_UTILIZATION], 10.0); /* read before it went */
    CHECK_INT(messages_of(&rig, line), 1);
    CHECK_CONTAINS(line, "getMemory: the device is lost");
    int made = scripted.made[0][SCRIPTED_UTILIZATION];
    for (int r = 0; r < 5; r++) {
        read_all(&rig);
        CHECK_ABSENT(rig.basic[SMN_GPU_VALUE_UTILIZATION]);
    }
    CHECK_INT(scripted.made[0][SCRIPTED_UTILIZATION], made); /* it is left alone */

    CHECK(rig.device.retry_ns > before + rig.device.retry_lost_ns);
    scripted.recover_error[0] = -ENODEV;
    rig.device.retry_ns = 0; /* the time is over */
    read_all(&rig);
    CHECK_INT(scripted.made[0][SCRIPTED_UTILIZATION], made);
    CHECK_INT(messages_of(&rig, line), 0);

    scripted.recover_error[0] = 0;
    scripted.error[0][SCRIPTED_MEMORY] = 0;
    CHECK(rig.device.retry_ns > 0); /* it began anew */
    rig.device.retry_ns = 0;
    read_all(&rig);
    CHECK_DOUBLE(rig.basic[SMN_GPU_VALUE_UTILIZATION], 10.0);
    CHECK_INT(messages_of(&rig, line), 1);
    CHECK_CONTAINS(line, "it is back");
}

static void test_a_device_that_flaps_says_little(void)
{
    device_rig rig;
    char line[SMN_GPU_MESSAGE_BYTES] = "";
    scripted_reset(1);
    find(&rig);
    for (int r = 0; r < 100; r++) {
        scripted.error[0][SCRIPTED_UTILIZATION] = r % 2 == 0 ? -ENODEV : 0;
        read_all(&rig);
    }
    CHECK_INT(messages_of(&rig, line), 6);
    CHECK_CONTAINS(line, "no more is said");
}

static void test_finding(void)
{
    device_rig rig;
    scripted_reset(1);
    scripted.identify_error[0] = -ENODEV;
    make(&rig);
    CHECK_INT(smn_gpu_device_find(&rig.device, EVERYTHING), -ENODEV);

    /* A call that fails for a moment is not taken for one that is not there. */
    scripted_reset(1);
    scripted.error[0][SCRIPTED_UTILIZATION] = -ETIMEDOUT;
    find(&rig);
    CHECK(has_basic(&rig, SMN_GPU_VALUE_UTILIZATION));
    scripted.error[0][SCRIPTED_UTILIZATION] = 0;
    read_all(&rig);
    CHECK_DOUBLE(rig.basic[SMN_GPU_VALUE_UTILIZATION], 10.0);

    /* Nor is a device that is lost just then. */
    scripted_reset(1);
    for (int c = 0; c < SCRIPTED_CALLS; c++)
        scripted.error[0][c] = -ENODEV;
    find(&rig);
    CHECK(has_basic(&rig, SMN_GPU_VALUE_UTILIZATION));

    /* Of groups that nobody wants no call is made. */
    static const bool only_basic[SMN_GPU_GROUPS] = {true, false, false};
    scripted_reset(1);
    set(SMN_GPU_TEMPERATURE, 50.0);
    make(&rig);
    CHECK_INT(smn_gpu_device_find(&rig.device, only_basic), 0);
    read_all(&rig);
    CHECK_INT(scripted.made[0][SCRIPTED_TEMPERATURE], 0);
    CHECK(!smn_gpu_device_has(&rig.device, SMN_GPU_DETAIL, SMN_GPU_VALUE_TEMPERATURE));
}

int main(void)
{
    test_values_of_a_device_that_is_well();
    test_power_from_the_energy_counter();
    test_a_limit_that_cannot_be_true_at_the_start();
    test_power_without_the_energy_counter();
    test_instances();
    test_traffic();
    test_what_is_due();
    test_failing_at_every_code();
    test_nonsense();
    test_a_device_is_lost_and_comes_back();
    test_a_device_that_flaps_says_little();
    test_finding();
    return check_report();
}

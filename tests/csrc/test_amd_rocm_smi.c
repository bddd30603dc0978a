/* The driver for librocm_smi64, on a stand-in that speaks both forms of its list of clocks. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "driver_probe.h"
#include "scenario_file.h"

extern const smn_gpu_driver smn_gpu_rocm_smi;

static const struct {
    const char *release;
    const char *version; /* of the library */
} releases[] = {{"5", "5.2.3"}, {"6", "6.2.3"}, {"7", "7.2.3"}};

enum {
    RELEASES = sizeof releases / sizeof *releases
};

/* With the lines of `more`, in the structures of a release. */
static void open_on(driver_probe *probe, const char *release, const char *devices, const char *more)
{
    char scenario[2048];
    snprintf(scenario, sizeof scenario, "devices %s\n* rocm %s\n%s", devices, release, more);
    scenario_write(scenario);
    REQUIRE(driver_open(probe, &smn_gpu_rocm_smi, -1) == 0);
}

static void check_calls_are_well(const driver_probe *probe)
{
    for (int i = 0; i < probe->driver->call_count; i++) {
        if (probe->errors[i] != 0)
            fprintf(stderr, "%s: ", probe->driver->calls[i].function);
        CHECK_INT(probe->errors[i], 0);
    }
}

static void test_readings(void)
{
    static const char more[] = "1 utilization 91\n1 memory_used 5e9\n1 memory_total 64e9\n"
                               "1 power 543.5\n1 power_limit 560\n1 energy 12345\n"
                               "1 temperature 88.5\n1 sm_clock 2100\n1 memory_clock 1300\n"
                               "1 ecc_corrected 4\n1 ecc_uncorrected 3\n"
                               "1 name AMD Instinct MI250X\n1 unique_id 1a2b3c4d5e6f7081\n"
                               "1 pci_id 0001:c3:00.0";
    for (int i = 0; i < RELEASES; i++) {
        driver_probe probe;
        smn_gpu_identity identity;
        check_case("ROCm %s", releases[i].release);
        open_on(&probe, releases[i].release, "3", more);
        CHECK_INT(probe.count, 3);
        CHECK_TEXT(probe.attempt.name, "librocm_smi64.so");
        CHECK_TEXT(probe.attempt.outcome, "3 devices");
        CHECK_TEXT(probe.attempt.version, releases[i].version);
        CHECK_TEXT(probe.attempt.driver_version, "6.14.14");
        CHECK_INT(probe.driver->identify(probe.state, 1, &identity), 0);
        CHECK_TEXT(identity.name, "AMD Instinct MI250X");
        CHECK_TEXT(identity.uuid, "GPU-1a2b3c4d5e6f7081");
        CHECK_TEXT(identity.pci_id, "0001:c3:00.0");
        CHECK_DOUBLE(identity.memory_bytes, 64e9);
        driver_read(&probe, 1);
        check_calls_are_well(&probe);
        CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 91);
        CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_USED], 5e9);
        CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_TOTAL], 64e9);
        CHECK_DOUBLE(probe.readings[SMN_GPU_POWER], 543.5);
        CHECK_DOUBLE(probe.readings[SMN_GPU_POWER_LIMIT], 560);
        CHECK_NEAR(probe.readings[SMN_GPU_ENERGY], 12345, 1e-3);
        CHECK_DOUBLE(probe.readings[SMN_GPU_TEMPERATURE], 88.5);
        CHECK_DOUBLE(probe.readings[SMN_GPU_SM_CLOCK], 2100);
        CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_CLOCK], 1300);
        CHECK_DOUBLE(probe.readings[SMN_GPU_ECC_ERRORS], 7);
        /* Without and with the flag in front of its clocks. */
        driver_read(&probe, 2);
        check_calls_are_well(&probe);
        CHECK_DOUBLE(probe.readings[SMN_GPU_SM_CLOCK], 1730);
        CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_CLOCK], 920);
        driver_close(&probe);
    }
    check_case(NULL);
}

/* A release whose structures nobody knows yet: everything but the clocks. */
static void test_unknown_release(void)
{
    driver_probe probe;
    open_on(&probe, "8", "1", "");
    driver_read(&probe, 0);
    CHECK_INT(driver_error(&probe, "rsmi_dev_gpu_clk_freq_get"), -ENOTSUP);
    CHECK_ABSENT(probe.readings[SMN_GPU_SM_CLOCK]);
    CHECK_DOUBLE(probe.readings[SMN_GPU_POWER], 300);
    driver_close(&probe);
}

static void test_older_chips(void)
{
    driver_probe probe;
    open_on(&probe, "6", "1", "* power none\n* average_power 222\n* temperature none");
    driver_read(&probe, 0);
    CHECK_DOUBLE(probe.readings[SMN_GPU_POWER], 222);
    CHECK_DOUBLE(probe.readings[SMN_GPU_TEMPERATURE], 30);
    /* With a library that has no other. */
    scenario_write("devices 1\n* average_power 222\n* fail rsmi_dev_power_get NOT_SUPPORTED");
    driver_read(&probe, 0);
    CHECK_DOUBLE(probe.readings[SMN_GPU_POWER], 222);
    driver_close(&probe);
}

static void test_not_available(void)
{
    for (int i = 0; i < RELEASES; i++) {
        driver_probe probe;
        check_case("ROCm %s", releases[i].release);
        open_on(&probe, releases[i].release, "1",
                "* utilization -1\n* memory_used -1\n* memory_total -1\n* power -1\n"
                "* average_power -1\n* power_limit -1\n* energy -1\n* temperature 65.535\n"
                "* edge_temperature 65.535\n* sm_clock -1\n* memory_clock -1\n* ecc_corrected -1");
        driver_read(&probe, 0);
        check_calls_are_well(&probe);
        for (int reading = 0; reading < SMN_GPU_READINGS; reading++)
            CHECK_ABSENT(probe.readings[reading]);
        driver_close(&probe);
    }
    check_case(NULL);
}

static void test_each_call_fails_alone(void)
{
    static const struct {
        const char *code;
        int error;
    } codes[] = {
        {"NOT_SUPPORTED", -ENOTSUP},
        {"NOT_YET_IMPLEMENTED", -ENOTSUP},
        {"NO_PERM", -EACCES},
        {"INVAL", -ENOTSUP},
        {"NOT_FOUND", -ENOTSUP},
        {"NOT_INIT", -ENOTCONN},
        {"BUSY", -EBUSY},
        {"UNKNOWN_ERROR", -EIO},
        {"99", -EIO},
    };
    for (int c = 0; c < smn_gpu_rocm_smi.call_count; c++) {
        char function[64];
        sscanf(smn_gpu_rocm_smi.calls[c].function, "%63s", function);
        for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
            char more[256];
            driver_probe probe;
            check_case("%s: %s", function, codes[i].code);
            snprintf(more, sizeof more, "1 fail %s %s\n1 fail rsmi_dev_power_ave_get NOT_SUPPORTED",
                     function, codes[i].code);
            open_on(&probe, "6", "3", more);
            driver_read(&probe, 1);
            for (int other = 0; other < probe.driver->call_count; other++) {
                char name[64];
                sscanf(probe.driver->calls[other].function, "%63s", name);
                bool fails = strcmp(name, function) == 0;
                CHECK_INT(probe.errors[other], fails ? codes[i].error : 0);
            }
            driver_read(&probe, 2);
            check_calls_are_well(&probe);
            driver_close(&probe);
        }
    }
    check_case(NULL);
}

static void test_partitions(void)
{
    driver_probe probe;
    open_on(&probe, "6", "3",
            "0 pci_id 0000:0c:00.0\n1 pci_id 0000:0c:00.1\n2 pci_id 0000:0d:00.0");
    for (int device = 0; device < 3; device++) {
        bool first = device != 1;
        check_case("device %d", device);
        driver_read(&probe, device);
        CHECK_INT(driver_error(&probe, "rsmi_dev_power_get"), first ? 0 : -ENOTSUP);
        CHECK_INT(driver_error(&probe, "rsmi_dev_power_cap_get"), first ? 0 : -ENOTSUP);
        CHECK_INT(driver_error(&probe, "rsmi_dev_energy_count_get"), first ? 0 : -ENOTSUP);
        CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 40 + device);
    }
    check_case(NULL);
    driver_close(&probe);
}

static void test_no_use(void)
{
    static const struct {
        const char *scenario;
        const char *outcome;
    } cases[] = {
        {"devices 0", "no device"},
        {"devices 1\n* fail rsmi_init INIT_ERROR", "no device: rsmi_init failed with status 8"},
        {"devices 1\n* fail rsmi_num_monitor_devices UNKNOWN_ERROR", "no device"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        driver_probe probe;
        check_case("%s", cases[i].scenario);
        scenario_write(cases[i].scenario);
        CHECK_INT(driver_open(&probe, &smn_gpu_rocm_smi, -1), -ENODATA);
        CHECK_TEXT(probe.attempt.outcome, cases[i].outcome);
    }
    check_case(NULL);
}

/* Of the library that the driver has loaded. */
static void look_up(const char *name, void *slot)
{
    static const char *const names[] = {"librocm_smi64.so", NULL};
    smn_gpu_attempt attempt = {0};
    REQUIRE(smn_gpu_symbol(smn_gpu_load(names, NULL, &attempt), name, slot));
}

/* The library counts who has initialised it; whoever shuts it down too often takes it away. */
static void test_shut_down(void)
{
    driver_probe probe;
    open_on(&probe, "6", "2", "");
    int (*shut_down)(void);
    int (*initialise)(uint64_t);
    look_up("rsmi_shut_down", &shut_down);
    look_up("rsmi_init", &initialise);
    REQUIRE(shut_down() == 0);
    driver_read(&probe, 1);
    for (int i = 0; i < probe.driver->call_count; i++)
        CHECK_INT(probe.errors[i], -ENOTCONN);
    CHECK_INT(probe.driver->recover(probe.state, 1), 0);
    driver_read(&probe, 1);
    check_calls_are_well(&probe);
    REQUIRE(initialise(0) == 0);
    driver_close(&probe);
    CHECK_INT(shut_down(), 0); /* it was still there for the other … */
    CHECK(shut_down() != 0);   /* … who was the last */
}

/* Nothing of it is found: then it is the device, and only that one. */
static void test_lost_device(void)
{
    driver_probe probe;
    open_on(&probe, "7", "2", "");
    scenario_write("devices 2\n1 fail rsmi_dev_* NOT_FOUND");
    driver_read(&probe, 1);
    for (int i = 0; i < probe.driver->call_count; i++)
        CHECK_INT(probe.errors[i], -ENODEV);
    driver_read(&probe, 0);
    check_calls_are_well(&probe);
    CHECK(probe.driver->recover(probe.state, 1) != 0);
    scenario_write("devices 2");
    CHECK_INT(probe.driver->recover(probe.state, 1), 0);
    driver_read(&probe, 1);
    check_calls_are_well(&probe);
    driver_close(&probe);
}

static void test_vanishing_device(void)
{
    driver_probe probe;
    scenario_write("devices 2\n0 pci_id 0000:05:00.0\n1 pci_id 0000:15:00.0\n");
    REQUIRE(driver_open(&probe, &smn_gpu_rocm_smi, -1) == 0);
    scenario_write("devices 1\n0 pci_id 0000:05:00.0");
    driver_read(&probe, 1);
    for (int i = 0; i < probe.driver->call_count; i++)
        CHECK_INT(probe.errors[i], -ENODEV);
    CHECK_INT(probe.driver->recover(probe.state, 1), -ENODEV);
    driver_read(&probe, 0);
    check_calls_are_well(&probe);
    scenario_write("devices 3\n0 pci_id 0000:05:00.0\n1 pci_id 0000:0a:00.0\n"
                   "2 pci_id 0000:15:00.0\n2 utilization 77");
    CHECK_INT(probe.driver->recover(probe.state, 1), 0);
    driver_read(&probe, 1);
    check_calls_are_well(&probe);
    CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 77);
    driver_close(&probe);
}

int main(void)
{
    test_readings();
    test_unknown_release();
    test_older_chips();
    test_not_available();
    test_each_call_fails_alone();
    test_partitions();
    test_no_use();
    test_shut_down();
    test_lost_device();
    test_vanishing_device();
    scenario_remove();
    return check_report();
}

/* The driver for libamd_smi, on a stand-in that speaks the structures of each release. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "driver_probe.h"
#include "scenario_file.h"

extern const smn_gpu_driver smn_gpu_amd_smi;

static const struct {
    const char *release;
    const char *version; /* of the library */
} releases[] = {
    {"6", "23.6.2.0"},   {"6.1", "24.6.2.0"}, {"6.2", "24.6.2.0"},
    {"6.3", "24.6.2.0"}, {"6.4", "25.6.2.0"}, {"7", "26.1.0"},
};

/* With the lines of `more`, in the structures of a release. */
static void open_on(driver_probe *probe, const char *release, const char *devices, const char *more)
{
    char scenario[2048];
    snprintf(scenario, sizeof scenario, "devices %s\n* rocm %s\n%s", devices, release, more);
    scenario_write(scenario);
    REQUIRE(driver_open(probe, &smn_gpu_amd_smi, -1) == 0);
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
                               "1 power 543\n1 power_limit 560\n1 energy 12345\n"
                               "1 energy_resolution 15.25\n1 temperature 88\n1 sm_clock 2100\n"
                               "1 memory_clock 1300\n1 ecc_corrected 4\n1 ecc_uncorrected 3\n";
    for (size_t i = 0; i < sizeof releases / sizeof *releases; i++) {
        driver_probe probe;
        check_case("ROCm %s", releases[i].release);
        open_on(&probe, releases[i].release, "2", more);
        CHECK_INT(probe.count, 2);
        CHECK_TEXT(probe.attempt.name, "libamd_smi.so");
        CHECK_TEXT(probe.attempt.outcome, "2 devices");
        CHECK_TEXT(probe.attempt.version, releases[i].version);
        CHECK_TEXT(probe.attempt.driver_version, "6.14.14");
        driver_read(&probe, 1);
        check_calls_are_well(&probe);
        CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 91);
        CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_USED], 5e9);
        CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_TOTAL], 64e9);
        CHECK_DOUBLE(probe.readings[SMN_GPU_POWER], 543);
        CHECK_DOUBLE(probe.readings[SMN_GPU_POWER_LIMIT], 560);
        CHECK_NEAR(probe.readings[SMN_GPU_ENERGY], 12345, 1e-3);
        CHECK_DOUBLE(probe.readings[SMN_GPU_TEMPERATURE], 88);
        CHECK_DOUBLE(probe.readings[SMN_GPU_SM_CLOCK], 2100);
        CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_CLOCK], 1300);
        CHECK_DOUBLE(probe.readings[SMN_GPU_ECC_ERRORS], 7);
        /* The other device's are its own. */
        driver_read(&probe, 0);
        check_calls_are_well(&probe);
        CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 40);
        CHECK_DOUBLE(probe.readings[SMN_GPU_POWER], 300);
        driver_close(&probe);
    }
    check_case(NULL);
}

static void test_identity(void)
{
    static const char more[] = "1 name AMD Instinct MI300X\n1 unique_id 1a2b3c4d5e6f7081\n"
                               "1 pci_id 0001:c3:00.0\n1 memory_total 64e9\n";
    for (size_t i = 0; i < sizeof releases / sizeof *releases; i++) {
        driver_probe probe;
        smn_gpu_identity identity;
        check_case("ROCm %s", releases[i].release);
        open_on(&probe, releases[i].release, "2", more);
        CHECK_INT(probe.driver->identify(probe.state, 1, &identity), 0);
        CHECK_TEXT(identity.name, "AMD Instinct MI300X");
        CHECK_TEXT(identity.uuid, "GPU-1a2b3c4d5e6f7081");
        CHECK_TEXT(identity.pci_id, "0001:c3:00.0");
        CHECK_DOUBLE(identity.memory_bytes, 64e9);
        CHECK_INT(identity.instance_count, 0);
        CHECK_INT(probe.driver->identify(probe.state, 0, &identity), 0);
        CHECK_TEXT(identity.name, "AMD Instinct Fake 0");
        CHECK_TEXT(identity.uuid, "GPU-abcd000000001000");
        driver_close(&probe);
    }
    check_case(NULL);

    /* Whatever fails: the rest of it is there. */
    driver_probe probe;
    smn_gpu_identity identity;
    open_on(
        &probe, "7", "1",
        "* fail amdsmi_get_gpu_asic_info NOT_SUPPORTED\n"
        "* fail amdsmi_get_gpu_memory_total NO_PERM\n* uuid 12ff74a0-0000-1000-8034-567890abcdef");
    CHECK_INT(probe.driver->identify(probe.state, 0, &identity), 0);
    CHECK_TEXT(identity.name, "");
    CHECK_TEXT(identity.uuid, "GPU-12ff74a0-0000-1000-8034-567890abcdef");
    CHECK_TEXT(identity.pci_id, "0000:05:00.0");
    CHECK_ABSENT(identity.memory_bytes);
    driver_close(&probe);
}

/* Units that have changed from release to release. */
static void test_units(void)
{
    driver_probe probe;
    open_on(&probe, "6.1", "1", "* limit_in_watts 1\n* in_millidegrees 1\n* temperature 71.5");
    driver_read(&probe, 0);
    CHECK_DOUBLE(probe.readings[SMN_GPU_POWER_LIMIT], 750);
    CHECK_DOUBLE(probe.readings[SMN_GPU_TEMPERATURE], 71.5);
    driver_close(&probe);
}

/* Older chips have only an average power and only the temperature of the edge. */
static void test_older_chips(void)
{
    for (size_t i = 0; i < sizeof releases / sizeof *releases; i++) {
        driver_probe probe;
        check_case("ROCm %s", releases[i].release);
        open_on(&probe, releases[i].release, "3",
                "0 power none\n1 power 65535\n* average_power 222\n* temperature none\n"
                "2 power 333");
        for (int device = 0; device < 2; device++) {
            driver_read(&probe, device);
            CHECK_DOUBLE(probe.readings[SMN_GPU_POWER], 222);
            CHECK_DOUBLE(probe.readings[SMN_GPU_TEMPERATURE], 30 + device);
        }
        driver_read(&probe, 2); /* has both: the current power is what it draws */
        CHECK_DOUBLE(probe.readings[SMN_GPU_POWER], 333);
        driver_close(&probe);
    }
    check_case(NULL);
}

static void test_not_available(void)
{
    for (size_t i = 0; i < sizeof releases / sizeof *releases; i++) {
        driver_probe probe;
        check_case("ROCm %s", releases[i].release);
        open_on(&probe, releases[i].release, "1",
                "* utilization 65535\n* memory_used -1\n* memory_total -1\n* power -1\n"
                "* average_power -1\n* power_limit -1\n* energy -1\n* temperature 65535\n"
                "* edge_temperature 65535\n* sm_clock -1\n* memory_clock 65535\n"
                "* ecc_corrected -1");
        driver_read(&probe, 0);
        check_calls_are_well(&probe);
        for (int reading = 0; reading < SMN_GPU_READINGS; reading++)
            CHECK_ABSENT(probe.readings[reading]);
        driver_close(&probe);
    }
    check_case(NULL);
}

static void test_nonsense(void)
{
    driver_probe probe;
    open_on(&probe, "7", "1",
            "* utilization 3000000000\n* power 999999\n* power_limit 0\n* temperature -1e9\n"
            "* edge_temperature 1e15\n* sm_clock 3e9\n* energy_resolution 0\n");
    driver_read(&probe, 0);
    check_calls_are_well(&probe);
    CHECK_ABSENT(probe.readings[SMN_GPU_UTILIZATION]);
    CHECK_ABSENT(probe.readings[SMN_GPU_POWER]);
    CHECK_ABSENT(probe.readings[SMN_GPU_POWER_LIMIT]);
    CHECK_ABSENT(probe.readings[SMN_GPU_TEMPERATURE]);
    CHECK_ABSENT(probe.readings[SMN_GPU_SM_CLOCK]);
    CHECK_ABSENT(probe.readings[SMN_GPU_ENERGY]);
    CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_USED], 20e9);
    driver_close(&probe);
}

/* One call fails: all others read what they would have read. */
static void test_each_call_fails_alone(void)
{
    static const struct {
        const char *code;
        int error;
    } codes[] = {
        {"NOT_SUPPORTED", -ENOTSUP}, {"NOT_YET_IMPLEMENTED", -ENOTSUP}, {"NO_PERM", -EACCES},
        {"NOT_FOUND", -ENOTSUP},     {"NOT_INIT", -ENOTCONN},           {"BUSY", -EBUSY},
        {"RETRY", -EBUSY},           {"TIMEOUT", -ETIMEDOUT},           {"DRM_ERROR", -EIO},
        {"NO_DATA", -ENOMSG},        {"UNKNOWN_ERROR", -EIO},           {"999", -EIO},
    };
    for (int c = 0; c < smn_gpu_amd_smi.call_count; c++) {
        char function[64];
        sscanf(smn_gpu_amd_smi.calls[c].function, "%63s", function);
        for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
            char more[256];
            driver_probe probe;
            check_case("%s: %s", function, codes[i].code);
            snprintf(more, sizeof more, "1 fail %s %s", function, codes[i].code);
            open_on(&probe, "7", "3", more);
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

/* While a GPU is reset, everything that worked is refused: for that time only. */
static void test_reset(void)
{
    driver_probe probe;
    open_on(&probe, "7", "1", "* ecc_corrected none");
    driver_read(&probe, 0);
    CHECK_INT(driver_error(&probe, "amdsmi_get_gpu_total_ecc_count"), -ENOTSUP);
    scenario_write("devices 1\n* fail amdsmi_get_* NO_PERM");
    driver_read(&probe, 0);
    CHECK_INT(driver_error(&probe, "amdsmi_get_power_info"), -EIO);
    CHECK_INT(driver_error(&probe, "amdsmi_get_gpu_total_ecc_count"), -EACCES);
    scenario_write("devices 1");
    driver_read(&probe, 0);
    check_calls_are_well(&probe);
    driver_close(&probe);
}

/* Of the partitions of a card, the first tells the power of the card. */
static void test_partitions(void)
{
    driver_probe probe;
    open_on(&probe, "6.4", "4",
            "0 pci_id 0000:0c:00.0\n1 pci_id 0000:0c:00.1\n2 pci_id 0000:0c:00.2\n"
            "3 pci_id 0000:0d:00.0");
    CHECK_INT(probe.count, 4);
    for (int device = 0; device < 4; device++) {
        bool first = device == 0 || device == 3;
        check_case("device %d", device);
        driver_read(&probe, device);
        CHECK_INT(driver_error(&probe, "amdsmi_get_power_info"), first ? 0 : -ENOTSUP);
        CHECK_INT(driver_error(&probe, "amdsmi_get_power_cap_info"), first ? 0 : -ENOTSUP);
        CHECK_INT(driver_error(&probe, "amdsmi_get_energy_count"), first ? 0 : -ENOTSUP);
        CHECK_DOUBLE(probe.readings[SMN_GPU_POWER], first ? 300 + 5.0 * device : CHECK_NAN);
        CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 40 + device);
        CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_USED], 20e9 + 1e9 * device);
    }
    check_case(NULL);
    driver_close(&probe);
}

/* Only GPUs, and only AMD's. */
static void test_other_processors(void)
{
    driver_probe probe;
    open_on(&probe, "7", "4", "0 processor_type 2\n2 processor_type 3");
    CHECK_INT(probe.count, 2);
    driver_read(&probe, 0);
    CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 41);
    driver_read(&probe, 1);
    CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 43);
    driver_close(&probe);
}

static void test_many_devices(void)
{
    driver_probe probe;
    open_on(&probe, "7", "64", "");
    CHECK_INT(probe.count, 64);
    driver_read(&probe, 63);
    check_calls_are_well(&probe);
    CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_USED], 83e9);
    driver_close(&probe);
}

/* Why there is nothing, in words. */
static void test_no_use(void)
{
    static const struct {
        const char *scenario;
        const char *outcome;
    } cases[] = {
        {"devices 0", "no device"},
        {"devices 1\n* processor_type 2", "no device"},
        {"devices 1\n* rocm 8", "version 27.1.0 is not known"},
        {"devices 1\n* rocm 9.5", "version 28.1.0 is not known"},
        {"devices 1\n* fail amdsmi_init DRIVER_NOT_LOADED", "amdgpu is not loaded"},
        {"devices 1\n* fail amdsmi_init INIT_ERROR", "amdsmi_init failed with status 18"},
        {"devices 1\n* fail amdsmi_get_lib_version 7", "amdsmi_get_lib_version failed"},
        {"devices 1\n* fail amdsmi_get_socket_handles NOT_SUPPORTED", "no device"},
        {"devices 1\n* fail amdsmi_get_processor_handles UNKNOWN_ERROR", "no device"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        driver_probe probe;
        check_case("%s", cases[i].scenario);
        scenario_write(cases[i].scenario);
        CHECK_INT(driver_open(&probe, &smn_gpu_amd_smi, -1), -ENODATA);
        CHECK_CONTAINS(probe.attempt.outcome, cases[i].outcome);
    }
    check_case(NULL);
}

/* Somebody else shuts the library down: it is not counted, so it is gone for us, too. */
static void test_shut_down_by_others(void)
{
    driver_probe probe;
    open_on(&probe, "7", "2", "");
    smn_gpu_attempt attempt = {0};
    int (*shut_down)(void);
    const char *const names[] = {"libamd_smi.so", NULL};
    REQUIRE(smn_gpu_symbol(smn_gpu_load(names, NULL, &attempt), "amdsmi_shut_down", &shut_down));
    REQUIRE(shut_down() == 0);
    driver_read(&probe, 1);
    for (int i = 0; i < probe.driver->call_count; i++)
        CHECK_INT(probe.errors[i], -ENOTCONN);
    CHECK_INT(probe.driver->recover(probe.state, 1), 0);
    driver_read(&probe, 1);
    check_calls_are_well(&probe);
    CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 41);
    driver_close(&probe);
}

/* Nothing of it is found: then it is the device, and only that one. */
static void test_lost_device(void)
{
    driver_probe probe;
    open_on(&probe, "7", "2", "");
    scenario_write("devices 2\n1 fail amdsmi_get_* NOT_FOUND");
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
    static const char both[] = "devices 2\n0 pci_id 0000:05:00.0\n1 pci_id 0000:15:00.0\n";
    driver_probe probe;
    scenario_write(both);
    REQUIRE(driver_open(&probe, &smn_gpu_amd_smi, -1) == 0);
    driver_read(&probe, 1);
    check_calls_are_well(&probe);
    scenario_write("devices 1\n0 pci_id 0000:05:00.0");
    driver_read(&probe, 1);
    for (int i = 0; i < probe.driver->call_count; i++)
        CHECK_INT(probe.errors[i], -ENODEV);
    CHECK_INT(probe.driver->recover(probe.state, 1), -ENODEV);
    driver_read(&probe, 0);
    check_calls_are_well(&probe);
    /* It is back in another place. */
    scenario_write("devices 3\n0 pci_id 0000:05:00.0\n1 pci_id 0000:0a:00.0\n"
                   "2 pci_id 0000:15:00.0\n2 utilization 77");
    CHECK_INT(probe.driver->recover(probe.state, 1), 0);
    driver_read(&probe, 1);
    check_calls_are_well(&probe);
    CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 77);
    driver_close(&probe);
}

static void test_without_addresses(void)
{
    driver_probe probe;
    smn_gpu_identity identity;
    open_on(&probe, "7", "2", "* fail amdsmi_get_gpu_device_bdf NOT_SUPPORTED");
    CHECK_INT(probe.driver->identify(probe.state, 1, &identity), 0);
    CHECK_TEXT(identity.pci_id, "");
    CHECK_TEXT(identity.uuid, "GPU-abcd000000001001");
    CHECK_INT(probe.driver->recover(probe.state, 1), 0);
    driver_read(&probe, 1);
    check_calls_are_well(&probe);
    CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 41);
    driver_close(&probe);
}

int main(void)
{
    test_readings();
    test_identity();
    test_units();
    test_older_chips();
    test_not_available();
    test_nonsense();
    test_each_call_fails_alone();
    test_reset();
    test_partitions();
    test_other_processors();
    test_many_devices();
    test_no_use();
    test_shut_down_by_others();
    test_lost_device();
    test_vanishing_device();
    test_without_addresses();
    scenario_remove();
    return check_report();
}

/* What AMD's drivers have in common: values, addresses, and what an error means. */
#include <errno.h>
#include <string.h>

#include "check.h"
#include "gpu/amd.h"

static void test_not_available(void)
{
    static const uint64_t none[] = {0xFFFF, 0xFFFFFFFF, UINT64_MAX};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        check_case("%llx", (unsigned long long)none[i]);
        CHECK_ABSENT(smn_amd_percentage(none[i]));
        CHECK_ABSENT(smn_amd_bytes(none[i]));
        CHECK_ABSENT(smn_amd_watts(none[i]));
        CHECK_ABSENT(smn_amd_microwatts(none[i]));
        CHECK_ABSENT(smn_amd_power_limit(none[i]));
        CHECK_ABSENT(smn_amd_megahertz(none[i]));
        CHECK_ABSENT(smn_amd_millidegrees((int64_t)none[i]));
        CHECK_ABSENT(smn_amd_degrees((int64_t)none[i]));
    }
    check_case(NULL);
    CHECK_ABSENT(smn_amd_errors(UINT64_MAX, 0));
    CHECK_ABSENT(smn_amd_errors(0, UINT64_MAX));
    CHECK_ABSENT(smn_amd_joules(UINT64_MAX, 15.3));
}

static void test_zero(void)
{
    CHECK_DOUBLE(smn_amd_percentage(0), 0);
    CHECK_DOUBLE(smn_amd_bytes(0), 0);
    CHECK_DOUBLE(smn_amd_megahertz(0), 0);
    CHECK_DOUBLE(smn_amd_errors(0, 0), 0);
    CHECK_DOUBLE(smn_amd_degrees(0), 0);
    /* What nothing that runs can have. */
    CHECK_ABSENT(smn_amd_watts(0));
    CHECK_ABSENT(smn_amd_microwatts(0));
    CHECK_ABSENT(smn_amd_power_limit(0));
    CHECK_ABSENT(smn_amd_joules(0, 15.3));
}

static void test_units(void)
{
    CHECK_DOUBLE(smn_amd_watts(750), 750);
    CHECK_DOUBLE(smn_amd_microwatts(750000000), 750);
    CHECK_DOUBLE(smn_amd_microwatts(1500), 0.0015);
    CHECK_DOUBLE(smn_amd_power_limit(750), 750);
    CHECK_DOUBLE(smn_amd_power_limit(750000000), 750);
    CHECK_DOUBLE(smn_amd_degrees(63), 63);
    CHECK_DOUBLE(smn_amd_degrees(-5), -5);
    CHECK_DOUBLE(smn_amd_degrees(63500), 63.5);
    CHECK_DOUBLE(smn_amd_millidegrees(63500), 63.5);
    CHECK_DOUBLE(smn_amd_millidegrees(900), 0.9);
    CHECK_DOUBLE(smn_amd_joules(1000000, 15.5), 15.5);
    CHECK_DOUBLE(smn_amd_errors(5, 2), 7);
}

static void test_nonsense(void)
{
    CHECK_DOUBLE(smn_amd_percentage(100), 100);
    CHECK_ABSENT(smn_amd_percentage(101));
    CHECK_ABSENT(smn_amd_watts(60000));
    CHECK_ABSENT(smn_amd_microwatts(60000000000));
    CHECK_ABSENT(smn_amd_degrees(INT64_MAX));
    CHECK_ABSENT(smn_amd_degrees(INT64_MIN));
    CHECK_ABSENT(smn_amd_degrees(500));
    CHECK_ABSENT(smn_amd_millidegrees(-200000));
    CHECK_ABSENT(smn_amd_megahertz(30000));
    CHECK_ABSENT(smn_amd_bytes(UINT64_MAX - 1));
    CHECK_ABSENT(smn_amd_joules(5, 0));
    CHECK_ABSENT(smn_amd_joules(5, -1));
    CHECK_ABSENT(smn_amd_joules(5, (double)NAN));
    CHECK_ABSENT(smn_amd_joules(5, (double)INFINITY));
}

static void test_addresses(void)
{
    static const char *const good[] = {"0000:c1:00.0", "0001:03:1f.7", "0000:00:00.0",
                                       "10000:05:00.3"};
    static const char *const bad[] = {
        "", "usb1", "0000:c1:00", "0000:c1:00.0x", "0000:c1:20.0", "0000:c1:00.8"};
    char text[SMN_GPU_TEXT_BYTES];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        smn_amd_format_address(smn_amd_parse_address(good[i]), text);
        CHECK_TEXT(text, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_case("%s", bad[i]);
        CHECK_U64(smn_amd_parse_address(bad[i]), SMN_AMD_NO_ADDRESS);
    }
    check_case(NULL);
    smn_amd_format_address(SMN_AMD_NO_ADDRESS, text);
    CHECK_TEXT(text, "");
    CHECK_U64(smn_amd_parse_address("0001:03:1f.7"), 0x103ff);
}

static void test_texts(void)
{
    char text[SMN_GPU_TEXT_BYTES];
    char field[300];
    smn_amd_format_uuid(0x1a2b, text);
    CHECK_TEXT(text, "GPU-0000000000001a2b");
    smn_amd_format_uuid(0, text);
    CHECK_TEXT(text, "");
    smn_amd_format_uuid(UINT64_MAX, text);
    CHECK_TEXT(text, "");

    smn_amd_copy_text(text, "  AMD\x01 Instinct\xff MI300X \n", 64);
    CHECK_TEXT(text, "AMD Instinct MI300X");
    memset(field, 'a', sizeof field); /* that nothing ends */
    smn_amd_copy_text(text, field, 8);
    CHECK_TEXT(text, "aaaaaaaa");
    smn_amd_copy_text(text, field, sizeof field);
    CHECK_INT(strlen(text), SMN_GPU_TEXT_BYTES - 1);
}

static void test_partitions(void)
{
    static const struct {
        const char *address;
        bool has_sensors;
    } cases[] = {{"0000:c1:00.0", true},
                 {"0000:c1:00.1", false},
                 {"0000:c1:00.2", false},
                 {"0000:c2:00.0", true},
                 {"0001:c1:00.0", true},
                 {"0000:c1:01.0", true},
                 {"0000:c2:00.1", false},
                 {"", true},
                 {"", true}};
    smn_amd_device devices[sizeof cases / sizeof *cases];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%zu: %s", i, cases[i].address);
        smn_amd_device_init(&devices[i], smn_amd_parse_address(cases[i].address), devices, (int)i,
                            sizeof *devices);
        CHECK_INT(devices[i].has_sensors, cases[i].has_sensors);
    }
    check_case(NULL);
}

/* What never worked is not there; what did is only not there right now. */
static void test_outcome(void)
{
    smn_amd_device device;
    smn_amd_device_init(&device, 0, &device, 0, sizeof device);
    CHECK_INT(smn_amd_outcome(&device, 1, -ENOTSUP), -ENOTSUP);
    CHECK_INT(smn_amd_outcome(&device, 1, -EACCES), -EACCES);
    CHECK_INT(smn_amd_outcome(&device, 1, 0), 0);
    CHECK_INT(smn_amd_outcome(&device, 1, -ENOTSUP), -EIO);
    CHECK_INT(smn_amd_outcome(&device, 1, -EACCES), -EIO);
    CHECK_INT(smn_amd_outcome(&device, 1, -ENODEV), -ENODEV);
    CHECK_INT(smn_amd_outcome(&device, 1, -ENOTCONN), -ENOTCONN);
    CHECK_INT(smn_amd_outcome(&device, 2, -ENOTSUP), -ENOTSUP);
}

int main(void)
{
    test_not_available();
    test_zero();
    test_units();
    test_nonsense();
    test_addresses();
    test_texts();
    test_partitions();
    test_outcome();
    return check_report();
}

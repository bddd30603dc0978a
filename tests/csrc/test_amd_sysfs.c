/* The driver for amdgpu's files in sysfs, on made-up trees. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chance.h"
#include "check.h"
#include "driver_probe.h"
#include "tree.h"

extern const smn_gpu_driver smn_gpu_amdgpu_sysfs;

static const char *const all_files[] = {
    "gpu_busy_percent",           "mem_info_vram_total",
    "mem_info_vram_used",         "hwmon/hwmon3/power1_average",
    "hwmon/hwmon3/energy1_input", "hwmon/hwmon3/power1_cap",
    "hwmon/hwmon3/temp2_input",   "hwmon/hwmon3/freq1_input",
    "hwmon/hwmon3/freq2_input",
};

/* A file of the device at this PCI address. */
static void write_file(const proc_tree *tree, const char *address, const char *name,
                       const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "devices/pci0000:00/%s/%s", address, name);
    tree_write_text(tree, path, text);
}

static void remove_file(const proc_tree *tree, const char *address, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "devices/pci0000:00/%s/%s", address, name);
    tree_remove(tree, path);
}

/* class/drm/card<N>/device, which is a link to the device. */
static void write_link(const proc_tree *tree, const char *card, const char *address)
{
    char path[256];
    char target[256];
    snprintf(path, sizeof path, "class/drm/%s/dev", card);
    tree_write_text(tree, path, "226:0\n"); /* makes the folders */
    snprintf(path, sizeof path, "class/drm/%s/device", card);
    snprintf(target, sizeof target, "../../../devices/pci0000:00/%s", address);
    REQUIRE(symlinkat(target, tree->root, path) == 0);
}

static void add_card(const proc_tree *tree, const char *card, const char *address)
{
    static const char *const files[][2] = {
        {"vendor", "0x1002\n"},
        {"gpu_busy_percent", "37\n"},
        {"mem_info_vram_used", "5000000000\n"},
        {"mem_info_vram_total", "64000000000\n"},
        {"unique_id", "1a2b3c4d5e6f7081\n"},
        {"product_name", "AMD Instinct MI210\n"},
        {"hwmon/hwmon3/name", "amdgpu\n"},
        {"hwmon/hwmon3/power1_average", "123000000\n"},
        {"hwmon/hwmon3/power1_cap", "300000000\n"},
        {"hwmon/hwmon3/energy1_input", "45600000\n"},
        {"hwmon/hwmon3/temp1_label", "edge\n"},
        {"hwmon/hwmon3/temp1_input", "41000\n"},
        {"hwmon/hwmon3/temp2_label", "junction\n"},
        {"hwmon/hwmon3/temp2_input", "52000\n"},
        {"hwmon/hwmon3/temp3_label", "mem\n"},
        {"hwmon/hwmon3/temp3_input", "63000\n"},
        {"hwmon/hwmon3/freq1_label", "sclk\n"},
        {"hwmon/hwmon3/freq1_input", "1700000000\n"},
        {"hwmon/hwmon3/freq2_label", "mclk\n"},
        {"hwmon/hwmon3/freq2_input", "1600000000\n"},
    };
    write_link(tree, card, address);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        write_file(tree, address, files[i][0], files[i][1]);
}

static void remove_card(const proc_tree *tree, const char *card)
{
    char path[256];
    snprintf(path, sizeof path, "class/drm/%s/device", card);
    tree_remove(tree, path);
    snprintf(path, sizeof path, "class/drm/%s/dev", card);
    tree_remove(tree, path);
    snprintf(path, sizeof path, "class/drm/%s", card);
    tree_remove(tree, path);
}

static void open_tree(driver_probe *probe, const proc_tree *tree)
{
    REQUIRE(driver_open(probe, &smn_gpu_amdgpu_sysfs, tree->root) == 0);
}

static void check_calls(const driver_probe *probe, int error)
{
    for (int i = 0; i < probe->driver->call_count; i++) {
        if (probe->errors[i] != error)
            fprintf(stderr, "%s: ", probe->driver->calls[i].function);
        CHECK_INT(probe->errors[i], error);
    }
}

static int open_files(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void test_healthy(void)
{
    proc_tree tree;
    driver_probe probe;
    smn_gpu_identity identity;
    tree_create(&tree);
    add_card(&tree, "card1", "0000:c1:00.0");
    tree_write_text(&tree, "module/amdgpu/version", "6.14.14\n");
    int before = open_files();
    open_tree(&probe, &tree);
    CHECK_INT(probe.count, 1);
    CHECK_TEXT(probe.attempt.name, "class/drm in sysfs");
    CHECK_TEXT(probe.attempt.outcome, "1 device");
    CHECK_TEXT(probe.attempt.version, "");
    CHECK_TEXT(probe.attempt.driver_version, "6.14.14");

    CHECK_INT(probe.driver->identify(probe.state, 0, &identity), 0);
    CHECK_TEXT(identity.name, "AMD Instinct MI210");
    CHECK_TEXT(identity.uuid, "GPU-1a2b3c4d5e6f7081");
    CHECK_TEXT(identity.pci_id, "0000:c1:00.0");
    CHECK_DOUBLE(identity.memory_bytes, 64e9);
    for (int i = 0; i < 3; i++) {
        driver_read(&probe, 0);
        check_calls(&probe, 0);
        CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 37);
        CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_USED], 5e9);
        CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_TOTAL], 64e9);
        CHECK_DOUBLE(probe.readings[SMN_GPU_POWER], 123);
        CHECK_DOUBLE(probe.readings[SMN_GPU_POWER_LIMIT], 300);
        CHECK_DOUBLE(probe.readings[SMN_GPU_ENERGY], 45.6);
        CHECK_DOUBLE(probe.readings[SMN_GPU_TEMPERATURE], 52);
        CHECK_DOUBLE(probe.readings[SMN_GPU_SM_CLOCK], 1700);
        CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_CLOCK], 1600);
    }
    write_file(&tree, "0000:c1:00.0", "gpu_busy_percent", "99\n");
    driver_read(&probe, 0);
    CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 99);
    CHECK_INT(probe.driver->recover(probe.state, 0), 0);
    driver_read(&probe, 0);
    CHECK_INT(open_files(), before + 1 + probe.driver->call_count);
    driver_close(&probe);
    CHECK_INT(open_files(), before);
    tree_destroy(&tree);
}

/* Cards of AMD only, by address; and nothing that is no card. */
static void test_which_cards(void)
{
    proc_tree tree;
    driver_probe probe;
    smn_gpu_identity identity;
    tree_create(&tree);
    add_card(&tree, "card0", "0000:c2:00.0");
    add_card(&tree, "card12", "0000:03:00.0");
    add_card(&tree, "card1", "0001:01:00.0");
    add_card(&tree, "card2", "0000:41:00.0");
    write_file(&tree, "0000:41:00.0", "vendor", "0x10de\n");
    add_card(&tree, "card3", "0000:42:00.0");
    remove_file(&tree, "0000:42:00.0", "vendor");
    write_link(&tree, "card0-DP-1", "0000:c2:00.0");
    write_link(&tree, "renderD128", "0000:c2:00.0");
    write_link(&tree, "card", "0000:c2:00.0");
    tree_write_text(&tree, "class/drm/version", "drm 1.1.0 20060810\n");
    open_tree(&probe, &tree);
    static const char *const addresses[] = {"0000:03:00.0", "0000:c2:00.0", "0001:01:00.0"};
    if (CHECK_INT(probe.count, 3)) {
        for (int i = 0; i < 3; i++) {
            CHECK_INT(probe.driver->identify(probe.state, i, &identity), 0);
            CHECK_TEXT(identity.pci_id, addresses[i]);
        }
    }
    driver_close(&probe);
    tree_destroy(&tree);
}

static void test_no_cards(void)
{
    proc_tree tree;
    driver_probe probe;
    CHECK_INT(driver_open(&probe, &smn_gpu_amdgpu_sysfs, -1), -ENODATA);
    tree_create(&tree);
    CHECK_INT(driver_open(&probe, &smn_gpu_amdgpu_sysfs, tree.root), -ENODATA);
    add_card(&tree, "card0", "0000:c2:00.0");
    write_file(&tree, "0000:c2:00.0", "vendor", "0x8086\n");
    CHECK_INT(driver_open(&probe, &smn_gpu_amdgpu_sysfs, tree.root), -ENODATA);
    CHECK_TEXT(probe.attempt.outcome, "no AMD GPU");
    tree_destroy(&tree);
}

/* Without each of the files, the others are read. */
static void test_missing_files(void)
{
    for (size_t i = 0; i < sizeof all_files / sizeof *all_files; i++) {
        proc_tree tree;
        driver_probe probe;
        check_case("without %s", all_files[i]);
        tree_create(&tree);
        add_card(&tree, "card0", "0000:c1:00.0");
        remove_file(&tree, "0000:c1:00.0", all_files[i]);
        if (strstr(all_files[i], "temp2") != NULL)
            remove_file(&tree, "0000:c1:00.0", "hwmon/hwmon3/temp1_input");
        open_tree(&probe, &tree);
        driver_read(&probe, 0);
        for (int other = 0; other < probe.driver->call_count; other++)
            CHECK_INT(probe.errors[other], other == (int)i ? -ENOTSUP : 0);
        driver_close(&probe);
        tree_destroy(&tree);
    }
    check_case(NULL);
}

/* Chips differ in what they have and in how it is numbered. */
static void test_other_chips(void)
{
    static const char address[] = "0000:c1:00.0";
    proc_tree tree;
    driver_probe probe;
    smn_gpu_identity identity;
    tree_create(&tree);
    add_card(&tree, "card0", address);
    remove_file(&tree, address, "hwmon/hwmon3/power1_average");
    write_file(&tree, address, "hwmon/hwmon3/power1_input", "99000000\n");
    remove_file(&tree, address, "hwmon/hwmon3/temp2_label");
    remove_file(&tree, address, "hwmon/hwmon3/temp2_input");
    write_file(&tree, address, "hwmon/hwmon3/freq1_label", "mclk\n");
    write_file(&tree, address, "hwmon/hwmon3/freq2_label", "sclk\n");
    write_file(&tree, address, "unique_id", "\n");
    remove_file(&tree, address, "product_name");
    open_tree(&probe, &tree);
    CHECK_INT(probe.driver->identify(probe.state, 0, &identity), 0);
    CHECK_TEXT(identity.uuid, "");
    CHECK_TEXT(identity.name, "");
    driver_read(&probe, 0);
    CHECK_DOUBLE(probe.readings[SMN_GPU_POWER], 99);
    CHECK_DOUBLE(probe.readings[SMN_GPU_TEMPERATURE], 41);
    CHECK_DOUBLE(probe.readings[SMN_GPU_SM_CLOCK], 1600);
    CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_CLOCK], 1700);
    driver_close(&probe);

    /* An APU: its second clock is no memory's, and it has no labels of temperatures. */
    write_file(&tree, address, "hwmon/hwmon3/freq1_label", "sclk\n");
    write_file(&tree, address, "hwmon/hwmon3/freq2_label", "vclk\n");
    remove_file(&tree, address, "hwmon/hwmon3/temp1_label");
    open_tree(&probe, &tree);
    driver_read(&probe, 0);
    CHECK_DOUBLE(probe.readings[SMN_GPU_SM_CLOCK], 1700);
    CHECK_INT(driver_error(&probe, "hwmon/freq2_input"), -ENOTSUP);
    CHECK_DOUBLE(probe.readings[SMN_GPU_TEMPERATURE], 41);
    driver_close(&probe);
    tree_destroy(&tree);
}

static void test_not_available(void)
{
    static const char *const values[] = {"65535\n", "4294967295\n", "18446744073709551615\n"};
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        proc_tree tree;
        driver_probe probe;
        check_case("%s", values[v]);
        tree_create(&tree);
        add_card(&tree, "card0", "0000:c1:00.0");
        for (size_t i = 0; i < sizeof all_files / sizeof *all_files; i++)
            if (strstr(all_files[i], "energy") == NULL || v == 2)
                write_file(&tree, "0000:c1:00.0", all_files[i], values[v]);
        open_tree(&probe, &tree);
        driver_read(&probe, 0);
        check_calls(&probe, 0);
        for (int reading = 0; reading < SMN_GPU_READINGS; reading++)
            if (reading != SMN_GPU_ENERGY || v == 2)
                CHECK_ABSENT(probe.readings[reading]);
        driver_close(&probe);
        tree_destroy(&tree);
    }
    check_case(NULL);
}

/* Absent, and right again after. */
static void test_garbage(void)
{
    static const char *const texts[] = {
        "", "\n", "x\n", "-1\n", "0x10\n", "1.5\n", "37", "99999999999999999999999\n", "N/A\n"};
    proc_tree tree;
    driver_probe probe;
    tree_create(&tree);
    add_card(&tree, "card0", "0000:c1:00.0");
    open_tree(&probe, &tree);
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
        check_case("%s", texts[t]);
        for (size_t i = 0; i < sizeof all_files / sizeof *all_files; i++)
            write_file(&tree, "0000:c1:00.0", all_files[i], texts[t]);
        driver_read(&probe, 0);
        check_calls(&probe, -EBADMSG);
        for (int reading = 0; reading < SMN_GPU_READINGS; reading++)
            CHECK_ABSENT(probe.readings[reading]);
        for (size_t i = 0; i < sizeof all_files / sizeof *all_files; i++)
            write_file(&tree, "0000:c1:00.0", all_files[i], "88\n");
        driver_read(&probe, 0);
        check_calls(&probe, 0);
        CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 88);
    }
    check_case(NULL);
    driver_close(&probe);
    tree_destroy(&tree);
}

static void test_mutations(void)
{
    static const char *const texts[] = {"37\n", "5000000000\n", "123000000\n", "52000\n"};
    proc_tree tree;
    driver_probe probe;
    char mutated[64];
    chance_state chance = {20240807};
    tree_create(&tree);
    add_card(&tree, "card0", "0000:c1:00.0");
    open_tree(&probe, &tree);
    for (int i = 0; i < 1000; i++) {
        const char *text = texts[i % 4];
        char path[256];
        size_t length = chance_mutate(&chance, text, strlen(text), mutated);
        snprintf(path, sizeof path, "devices/pci0000:00/0000:c1:00.0/%s",
                 all_files[(size_t)i % (sizeof all_files / sizeof *all_files)]);
        tree_write(&tree, path, mutated, length);
        driver_read(&probe, 0);
        double busy = probe.readings[SMN_GPU_UTILIZATION];
        CHECK(isnan(busy) || (busy >= 0 && busy <= 100));
        CHECK(!(probe.readings[SMN_GPU_POWER] < 0));
        CHECK(!isinf(probe.readings[SMN_GPU_MEMORY_USED]));
    }
    driver_close(&probe);
    tree_destroy(&tree);
}

/* Gone before its files were ever read, and back with another number. */
static void test_vanishing_card(void)
{
    proc_tree tree;
    driver_probe probe;
    smn_gpu_identity identity;
    tree_create(&tree);
    add_card(&tree, "card0", "0000:03:00.0");
    add_card(&tree, "card1", "0000:c1:00.0");
    open_tree(&probe, &tree);
    driver_read(&probe, 0);
    check_calls(&probe, 0);
    remove_card(&tree, "card1");
    driver_read(&probe, 1);
    check_calls(&probe, -ENODEV);
    CHECK_INT(probe.driver->identify(probe.state, 1, &identity), -ENODEV);
    CHECK_TEXT(identity.pci_id, "0000:c1:00.0");
    CHECK_INT(probe.driver->recover(probe.state, 1), -ENODEV);
    driver_read(&probe, 0);
    check_calls(&probe, 0);

    add_card(&tree, "card2", "0000:41:00.0");
    CHECK_INT(probe.driver->recover(probe.state, 1), -ENODEV);
    add_card(&tree, "card3", "0000:c1:00.0");
    write_file(&tree, "0000:c1:00.0", "gpu_busy_percent", "78\n");
    CHECK_INT(probe.driver->recover(probe.state, 1), 0);
    driver_read(&probe, 1);
    check_calls(&probe, 0);
    CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 78);
    driver_close(&probe);
    tree_destroy(&tree);
}

/* A file that goes while its card stays had worked: it may come again, and is opened anew. */
static void test_file_comes_again(void)
{
    proc_tree tree;
    driver_probe probe;
    tree_create(&tree);
    add_card(&tree, "card0", "0000:c1:00.0");
    open_tree(&probe, &tree);
    remove_file(&tree, "0000:c1:00.0", "gpu_busy_percent");
    driver_read(&probe, 0);
    CHECK_INT(driver_error(&probe, "gpu_busy_percent"), -ENOTSUP);
    write_file(&tree, "0000:c1:00.0", "gpu_busy_percent", "12\n");
    driver_read(&probe, 0);
    CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 12);
    /* What cannot be read closes it, as when the kernel says that the device is no more. */
    remove_file(&tree, "0000:c1:00.0", "gpu_busy_percent");
    CHECK_INT(probe.driver->recover(probe.state, 0), 0);
    driver_read(&probe, 0);
    CHECK_INT(driver_error(&probe, "gpu_busy_percent"), -EIO);
    driver_close(&probe);
    tree_destroy(&tree);
}

static void test_partitions(void)
{
    proc_tree tree;
    driver_probe probe;
    tree_create(&tree);
    add_card(&tree, "card0", "0000:c1:00.0");
    add_card(&tree, "card1", "0000:c1:00.1");
    open_tree(&probe, &tree);
    driver_read(&probe, 0);
    check_calls(&probe, 0);
    driver_read(&probe, 1);
    CHECK_INT(driver_error(&probe, "hwmon/power1_average"), -ENOTSUP);
    CHECK_INT(driver_error(&probe, "hwmon/power1_cap"), -ENOTSUP);
    CHECK_INT(driver_error(&probe, "hwmon/energy1_input"), -ENOTSUP);
    CHECK_ABSENT(probe.readings[SMN_GPU_POWER]);
    CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 37);
    driver_close(&probe);
    tree_destroy(&tree);
}

/* Where "device" is a folder, and not a link, nobody knows an address. */
static void test_without_addresses(void)
{
    proc_tree tree;
    driver_probe probe;
    smn_gpu_identity identity;
    tree_create(&tree);
    tree_write_text(&tree, "class/drm/card0/device/vendor", "0x1002\n");
    tree_write_text(&tree, "class/drm/card0/device/gpu_busy_percent", "5\n");
    tree_write_text(&tree, "class/drm/card10/device/vendor", "0x1002\n");
    tree_write_text(&tree, "class/drm/card10/device/gpu_busy_percent", "15\n");
    open_tree(&probe, &tree);
    CHECK_INT(probe.count, 2);
    CHECK_INT(probe.driver->identify(probe.state, 1, &identity), 0);
    CHECK_TEXT(identity.pci_id, "");
    CHECK_INT(probe.driver->recover(probe.state, 1), 0);
    driver_read(&probe, 1);
    CHECK_DOUBLE(probe.readings[SMN_GPU_UTILIZATION], 15);
    CHECK_INT(driver_error(&probe, "hwmon/power1_average"), -ENOTSUP);
    driver_close(&probe);
    tree_destroy(&tree);
}

/* A FIFO or a folder in the place of a file holds nobody up. */
static void test_no_files(void)
{
    proc_tree tree;
    driver_probe probe;
    tree_create(&tree);
    add_card(&tree, "card0", "0000:c1:00.0");
    remove_file(&tree, "0000:c1:00.0", "gpu_busy_percent");
    remove_file(&tree, "0000:c1:00.0", "mem_info_vram_used");
    REQUIRE(mkfifoat(tree.root, "devices/pci0000:00/0000:c1:00.0/gpu_busy_percent", 0600) == 0);
    REQUIRE(mkdirat(tree.root, "devices/pci0000:00/0000:c1:00.0/mem_info_vram_used", 0700) == 0);
    open_tree(&probe, &tree);
    driver_read(&probe, 0);
    CHECK(driver_error(&probe, "gpu_busy_percent") < 0);
    CHECK(driver_error(&probe, "mem_info_vram_used") < 0);
    CHECK_DOUBLE(probe.readings[SMN_GPU_MEMORY_TOTAL], 64e9);
    driver_close(&probe);
    tree_destroy(&tree);
}

int main(void)
{
    test_healthy();
    test_which_cards();
    test_no_cards();
    test_missing_files();
    test_other_chips();
    test_not_available();
    test_garbage();
    test_mutations();
    test_vanishing_card();
    test_file_comes_again();
    test_partitions();
    test_without_addresses();
    test_no_files();
    return check_report();
}

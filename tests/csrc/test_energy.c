/* The source `energy` on made-up /sys/class/powercap and /sys/class/hwmon. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chance.h"
#include "check.h"
#include "probe.h"
#include "rig.h"

static const char TEMPERATURE[] = "cpu_temperature_celsius";
static const char POWER_0[] = "cpu_package_0_power_watts";
static const char ENERGY_0[] = "cpu_package_0_energy_joules";
static const char POWER_1[] = "cpu_package_1_power_watts";
static const char ENERGY_1[] = "cpu_package_1_energy_joules";

static const uint64_t RANGE = 262143328850; /* of a common unit: 2^32 times 61 microjoules */

typedef struct {
    proc_tree tree;
    fake_clock clock;
    source_probe probe;
} machine;

static void write_zone(const proc_tree *tree, const char *zone, const char *file, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "class/powercap/%s/%s", zone, file);
    if (text != NULL)
        tree_write_text(tree, path, text);
    else
        tree_remove(tree, path);
}

static void set_energy(const proc_tree *tree, const char *zone, uint64_t microjoules)
{
    char text[32];
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)microjoules);
    write_zone(tree, zone, "energy_uj", text);
}

static void add_zone(const proc_tree *tree, const char *zone, const char *name,
                     uint64_t microjoules)
{
    char text[64];
    snprintf(text, sizeof text, "%s\n", name);
    write_zone(tree, zone, "name", text);
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)RANGE);
    write_zone(tree, zone, "max_energy_range_uj", text);
    set_energy(tree, zone, microjoules);
}

static void set_sensor(const proc_tree *tree, int folder, const char *file, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "class/hwmon/hwmon%d/%s", folder, file);
    if (text != NULL)
        tree_write_text(tree, path, text);
    else
        tree_remove(tree, path);
}

static void machine_make(machine *it)
{
    memset(it, 0, sizeof *it);
    tree_create(&it->tree);
    fake_clock_init(&it->clock);
}

static int machine_try(machine *it)
{
    smn_environment environment = {
        .procfs = -1, .sysfs = it->tree.root, .clock = &it->clock.clock, .disk_paths = "/"};
    return probe_open_in(&it->probe, "energy", &environment);
}

static void machine_open(machine *it)
{
    REQUIRE(machine_try(it) == 0);
}

static void machine_close(machine *it)
{
    probe_close(&it->probe);
    tree_destroy(&it->tree);
}

static int sample_after(machine *it, uint64_t milliseconds)
{
    atomic_fetch_add(&it->clock.now_ns, milliseconds * 1000000);
    return probe_sample(&it->probe);
}

static double value(const machine *it, const char *key)
{
    return probe_value(&it->probe, key);
}

static void test_schema(void)
{
    static const char *const keys[] = {POWER_0, ENERGY_0, POWER_1, ENERGY_1, TEMPERATURE};
    static const char *const units[] = {"watts", "joules", "watts", "joules", "celsius"};
    static const int kinds[] = {SMN_RATE, SMN_TOTAL, SMN_RATE, SMN_TOTAL, SMN_GAUGE};
    machine it;
    machine_make(&it);
    /* The second domain is the first package's, as it comes on some boards. */
    add_zone(&it.tree, "intel-rapl:0", "package-1", 1000);
    add_zone(&it.tree, "intel-rapl:1", "package-0", 2000);
    add_zone(&it.tree, "intel-rapl:2", "psys", 3000);
    add_zone(&it.tree, "intel-rapl:0:0", "core", 4000);
    add_zone(&it.tree, "intel-rapl:0:1", "package-7", 4000);
    add_zone(&it.tree, "intel-rapl-mmio:0", "package-0", 5000);
    add_zone(&it.tree, "intel-rapl:", "package-8", 5000);
    add_zone(&it.tree, "intel-rapl:x", "package-9", 5000);
    add_zone(&it.tree, "dtpm:0", "package-5", 5000);
    set_sensor(&it.tree, 3, "name", "coretemp\n");
    set_sensor(&it.tree, 3, "temp1_input", "47000\n");
    machine_open(&it);
    CHECK(!it.probe.source->by_default);
    CHECK_U64(it.probe.source->min_interval_ns, 100000000);
    if (CHECK_INT(it.probe.schema.series_count, 5)) {
        for (int i = 0; i < 5; i++) {
            CHECK_TEXT(it.probe.schema.series[i].spec.key, keys[i]);
            CHECK_TEXT(it.probe.schema.series[i].spec.unit, units[i]);
            CHECK_INT(it.probe.schema.series[i].spec.kind, kinds[i]);
        }
    }
    CHECK_INT(probe_sample(&it.probe), 0);
    CHECK_DOUBLE(value(&it, ENERGY_0), 0.0); /* since the start */
    set_energy(&it.tree, "intel-rapl:0", 11000);
    set_energy(&it.tree, "intel-rapl:1", 3500);
    CHECK_INT(sample_after(&it, 100), 0);
    CHECK_NEAR(value(&it, ENERGY_1), 0.01, 1e-12);
    CHECK_NEAR(value(&it, ENERGY_0), 0.0015, 1e-12);
    CHECK_DOUBLE(value(&it, POWER_0), value(&it, ENERGY_0)); /* of the same counter */
    machine_close(&it);
}

/* Four packages of 120, 240 … watts, through windows and wraps. */
static void test_exact_rates(void)
{
    enum {
        PACKAGES = 4
    };
    sampler_rig rig;
    rig_prepare(&rig);
    uint64_t energy[PACKAGES];
    char zone[32];
    for (int p = 0; p < PACKAGES; p++) {
        char name[32];
        energy[p] = RANGE - 500000000 * (uint64_t)(p + 1); /* soon at its end */
        snprintf(zone, sizeof zone, "intel-rapl:%d", p);
        snprintf(name, sizeof name, "package-%d", p);
        add_zone(&rig.tree, zone, name, energy[p]);
    }
    rig_create(&rig, "energy", 100000000, 10);
    REQUIRE(smn_sampler_start(rig.sampler) == 0);
    for (int window = 1; window <= 8; window++) {
        check_case("window %d", window);
        for (int tick = 0; tick < 10; tick++) {
            for (int p = 0; p < PACKAGES; p++) {
                energy[p] = (energy[p] + 12000000 * (uint64_t)(p + 1)) % RANGE;
                snprintf(zone, sizeof zone, "intel-rapl:%d", p);
                set_energy(&rig.tree, zone, energy[p]);
            }
            rig_tick(&rig, 1);
        }
        REQUIRE(rig_take(&rig) == 0);
        for (int p = 0; p < PACKAGES; p++) {
            char key[64];
            snprintf(key, sizeof key, "cpu_package_%d_power_watts", p);
            CHECK_NEAR(rig_statistics(&rig, key)->mean, 120.0 * (p + 1), 1e-6);
            CHECK_NEAR(rig_statistics(&rig, key)->min, 120.0 * (p + 1), 1e-6);
            CHECK_NEAR(rig_statistics(&rig, key)->max, 120.0 * (p + 1), 1e-6);
            snprintf(key, sizeof key, "cpu_package_%d_energy_joules", p);
            CHECK_NEAR(rig_statistics(&rig, key)->last, 120.0 * (p + 1) * window, 1e-6);
        }
    }
    check_case(NULL);
    rig_close(&rig);
}

/* A wrap is counted once and whole; what cannot be one adds nothing. */
static void test_wraps_and_resets(void)
{
    static const struct {
        const char *what;
        uint64_t before, after, milliseconds;
        double joules;
    } cases[] = {
        {"no change", 500, 500, 100, 0.0},
        {"a second's worth", 0, 400000000, 1000, 400.0},
        {"a wrap", 262143328850 - 1000000, 2000000, 100, 3.0},
        {"a wrap at the last number", 262143328850, 1000000, 100, 1.0},
        {"a wrap to 0", 262143328850 - 1000000, 0, 100, 1.0},
        {"a wrap in minutes", 100000000000, 40000000000, 600000, 202143.32885},
        {"a reset", 100000000000, 5000000, 1000, 0.0},
        {"a reset of a young counter", 3000000000, 5000000, 1000, 0.0},
        {"a leap", 1000000, 200000000000, 1000, 0.0},
        {"beyond the range, then back", 262143328851, 5, 1000, 0.0},
        {"far beyond the range", 5, 18446744073709551615u, 1000, 0.0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        machine it;
        machine_make(&it);
        add_zone(&it.tree, "intel-rapl:0", "package-0", 77);
        machine_open(&it);
        set_energy(&it.tree, "intel-rapl:0", cases[i].before);
        CHECK_INT(probe_sample(&it.probe), 0);
        CHECK_DOUBLE(value(&it, ENERGY_0), 0.0);
        set_energy(&it.tree, "intel-rapl:0", cases[i].after);
        CHECK_INT(sample_after(&it, cases[i].milliseconds), 0);
        CHECK_NEAR(value(&it, ENERGY_0), cases[i].joules, 1e-6);
        if (cases[i].after < RANGE) { /* and it goes on from there */
            set_energy(&it.tree, "intel-rapl:0", cases[i].after + 7000000);
            CHECK_INT(sample_after(&it, 100), 0);
            CHECK_NEAR(value(&it, ENERGY_0), cases[i].joules + 7.0, 1e-6);
        }
        machine_close(&it);
    }
    check_case(NULL);
}

/* The dies of a package are added up; without one of them the package is absent. */
static void test_dies(void)
{
    machine it;
    machine_make(&it);
    add_zone(&it.tree, "intel-rapl:0", "package-0-die-0", 1000000);
    add_zone(&it.tree, "intel-rapl:1", "package-0-die-1", 2000000);
    add_zone(&it.tree, "intel-rapl:2", "package-1-die-0", 3000000);
    add_zone(&it.tree, "intel-rapl:3", "package-1-die-1", 4000000);
    machine_open(&it);
    CHECK_INT(it.probe.schema.series_count, 4);
    CHECK_INT(probe_sample(&it.probe), 0);
    set_energy(&it.tree, "intel-rapl:0", 2000000);
    set_energy(&it.tree, "intel-rapl:1", 4000000);
    set_energy(&it.tree, "intel-rapl:3", 9000000);
    CHECK_INT(sample_after(&it, 100), 0);
    CHECK_NEAR(value(&it, ENERGY_0), 3.0, 1e-9);
    CHECK_NEAR(value(&it, ENERGY_1), 5.0, 1e-9);

    write_zone(&it.tree, "intel-rapl:0", "energy_uj", "");
    set_energy(&it.tree, "intel-rapl:1", 5000000);
    CHECK(sample_after(&it, 100) < 0);
    CHECK_ABSENT(value(&it, ENERGY_0));
    CHECK_NEAR(value(&it, ENERGY_1), 5.0, 1e-9);
    set_energy(&it.tree, "intel-rapl:0", 7000000);
    CHECK_INT(sample_after(&it, 100), 0);
    CHECK_NEAR(value(&it, ENERGY_0), 9.0, 1e-9); /* the gap is covered */
    machine_close(&it);
}

/* A package that goes and comes back goes on; its counter may have begun again. */
static void test_hot_plug(void)
{
    machine it;
    machine_make(&it);
    add_zone(&it.tree, "intel-rapl:0", "package-0", 1000000);
    add_zone(&it.tree, "intel-rapl:1", "package-1", 90000000000);
    machine_open(&it);
    CHECK_INT(probe_sample(&it.probe), 0);
    write_zone(&it.tree, "intel-rapl:1", "energy_uj", "");
    set_energy(&it.tree, "intel-rapl:0", 3000000);
    CHECK(sample_after(&it, 100) < 0);
    CHECK_ABSENT(value(&it, POWER_1));
    CHECK_NEAR(value(&it, ENERGY_0), 2.0, 1e-9);
    set_energy(&it.tree, "intel-rapl:1", 50);
    CHECK_INT(sample_after(&it, 100), 0);
    CHECK_DOUBLE(value(&it, ENERGY_1), 0.0);
    set_energy(&it.tree, "intel-rapl:1", 6000050);
    CHECK_INT(sample_after(&it, 100), 0);
    CHECK_NEAR(value(&it, ENERGY_1), 6.0, 1e-9);
    machine_close(&it);
}

/* What must not be read, as energy mostly by others than root, is as good as not there. */
static void test_what_there_is(void)
{
    machine it;
    machine_make(&it);
    CHECK_INT(machine_try(&it), -ENODATA);
    add_zone(&it.tree, "intel-rapl:0", "package-0", 5);
    write_zone(&it.tree, "intel-rapl:0", "energy_uj", NULL);
    CHECK_INT(machine_try(&it), -ENODATA);
    REQUIRE(mkdirat(it.tree.root, "class/powercap/intel-rapl:0/energy_uj", 0755) == 0);
    CHECK_INT(machine_try(&it), -ENODATA); /* even root cannot read a folder */
    add_zone(&it.tree, "intel-rapl:1", "package-1", 5);
    write_zone(&it.tree, "intel-rapl:1", "max_energy_range_uj", NULL);
    CHECK_INT(machine_try(&it), -ENODATA);
    static const char *const names[] = {"package",   "package-", "package-x",
                                        "Package-0", "psys",     "package-1x",
                                        "core",      "",         "package-99999999999"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        check_case("%s", names[i]);
        add_zone(&it.tree, "intel-rapl:1", names[i], 5);
        CHECK_INT(machine_try(&it), -ENODATA);
    }
    check_case(NULL);
    write_zone(&it.tree, "intel-rapl:1", "name", "package-1"); /* cut: perhaps package-10 */
    CHECK_INT(machine_try(&it), -ENODATA);
    add_zone(&it.tree, "intel-rapl:1", "package-1", 5);
    machine_open(&it);
    CHECK_INT(it.probe.schema.series_count, 2);
    CHECK(probe_has(&it.probe, POWER_1) && probe_has(&it.probe, ENERGY_1));
    CHECK_INT(probe_sample(&it.probe), 0);
    machine_close(&it);

    source_probe probe;
    smn_environment environment = {.procfs = -1, .sysfs = -1, .disk_paths = "/"};
    CHECK_INT(probe_open_in(&probe, "energy", &environment), -ENODATA);
}

static void test_garbage(void)
{
    static const char *const bad[] = {"",           "\n",   "5",     "-5\n",
                                      "5.5\n",      "x\n",  "0x5\n", "18446744073709551616\n",
                                      "\xff\xfe\n", "N/A\n"};
    machine it;
    machine_make(&it);
    add_zone(&it.tree, "intel-rapl:0", "package-0", 1000000);
    set_sensor(&it.tree, 0, "name", "k10temp\n");
    set_sensor(&it.tree, 0, "temp1_input", "61500\n");
    machine_open(&it);
    CHECK_INT(probe_sample(&it.probe), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_case("%s", bad[i]);
        write_zone(&it.tree, "intel-rapl:0", "energy_uj", bad[i]);
        CHECK_INT(sample_after(&it, 1000), -EBADMSG);
        CHECK_ABSENT(value(&it, POWER_0));
        CHECK_NEAR(value(&it, TEMPERATURE), 61.5, 1e-9);
        set_energy(&it.tree, "intel-rapl:0", 1000000 + 2000000 * (i + 1));
        CHECK_INT(sample_after(&it, 100), 0);
        CHECK_NEAR(value(&it, ENERGY_0), 2.0 * (double)(i + 1), 1e-9);
    }
    check_case(NULL);

    chance_state chance = {20240513};
    char mutated[64];
    double before = value(&it, ENERGY_0);
    for (int i = 0; i < 2000; i++) {
        check_case("mutation %d", i);
        size_t damaged = chance_mutate(&chance, "210492718253\n", 13, mutated);
        tree_write(&it.tree, "class/powercap/intel-rapl:0/energy_uj", mutated, damaged);
        int error = sample_after(&it, 100);
        double joules = value(&it, ENERGY_0);
        CHECK(isnan(joules) ? error < 0 : joules >= before && joules - before <= 6000.0 * (i + 2));
        before = isnan(joules) ? before : joules;
    }
    check_case(NULL);
    machine_close(&it);
}

/* ---- temperature -------------------------------------------------------- */

/* Two sockets of 56 cores beside the sensors of a disk, a network card and the board. */
static void test_hottest(void)
{
    machine it;
    machine_make(&it);
    set_sensor(&it.tree, 0, "name", "nvme\n");
    set_sensor(&it.tree, 0, "temp1_input", "99000\n");
    set_sensor(&it.tree, 1, "name", "coretemp_of_another\n");
    set_sensor(&it.tree, 1, "temp1_input", "98000\n");
    for (int socket = 0; socket < 2; socket++) {
        set_sensor(&it.tree, 2 + socket, "name", "coretemp\n");
        for (int core = 1; core <= 57; core++) {
            char file[32];
            char text[32];
            snprintf(file, sizeof file, "temp%d_input", core);
            snprintf(text, sizeof text, "%d\n", 30000 + core * 100);
            set_sensor(&it.tree, 2 + socket, file, text);
        }
        set_sensor(&it.tree, 2 + socket, "temp1_max", "97000\n");
        set_sensor(&it.tree, 2 + socket, "temp1_crit", "100000\n");
        set_sensor(&it.tree, 2 + socket, "temp_input", "96000\n");
        set_sensor(&it.tree, 2 + socket, "temp1_inputs", "96000\n");
        set_sensor(&it.tree, 2 + socket, "in1_input", "96000\n");
    }
    machine_open(&it);
    CHECK_INT(it.probe.schema.series_count, 1);
    CHECK_INT(probe_sample(&it.probe), 0);
    CHECK_NEAR(value(&it, TEMPERATURE), 35.7, 1e-9);

    /* Once a second. */
    set_sensor(&it.tree, 3, "temp20_input", "88125\n");
    for (int i = 0; i < 8; i++) {
        CHECK_INT(sample_after(&it, 100), 0);
        CHECK_ABSENT(value(&it, TEMPERATURE));
    }
    CHECK_INT(sample_after(&it, 200), 0);
    CHECK_NEAR(value(&it, TEMPERATURE), 88.125, 1e-9);

    /* Cores that are offline have no sensor; the others have. */
    set_sensor(&it.tree, 3, "temp20_input", NULL);
    set_sensor(&it.tree, 3, "temp21_input", "");
    set_sensor(&it.tree, 2, "temp57_input", "99");
    set_sensor(&it.tree, 3, "temp57_input", "hot\n");
    CHECK_INT(sample_after(&it, 1000), 0);
    CHECK_NEAR(value(&it, TEMPERATURE), 35.6, 1e-9);
    machine_close(&it);
}

static void test_sensors(void)
{
    static const struct {
        const char *name;
        const char *text;
        double celsius; /* NaN: unknown */
    } cases[] = {
        {"coretemp\n", "47000\n", 47.0},    {"k10temp\n", "61500\n", 61.5},
        {"zenpower\n", "0\n", 0.0},         {"coretemp\n", "-5250\n", -5.25},
        {"coretemp\n", "-\n", CHECK_NAN},   {"coretemp\n", "47000", CHECK_NAN},
        {"coretemp\n", "", CHECK_NAN},      {"coretemp", "47000\n", CHECK_NAN},
        {"acpitz\n", "47000\n", CHECK_NAN}, {"", "47000\n", CHECK_NAN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s %s", cases[i].name, cases[i].text);
        machine it;
        machine_make(&it);
        set_sensor(&it.tree, 12, "name", cases[i].name);
        set_sensor(&it.tree, 12, "temp1_input", cases[i].text);
        if (isnan(cases[i].celsius)) {
            CHECK_INT(machine_try(&it), -ENODATA);
            tree_destroy(&it.tree);
            continue;
        }
        machine_open(&it);
        CHECK_INT(probe_sample(&it.probe), 0);
        CHECK_NEAR(value(&it, TEMPERATURE), cases[i].celsius, 1e-9);
        set_sensor(&it.tree, 12, "temp1_input", NULL);
        CHECK_INT(sample_after(&it, 1000), -ENOENT);
        CHECK_ABSENT(value(&it, TEMPERATURE));
        machine_close(&it);
    }
    check_case(NULL);
}

int main(void)
{
    test_schema();
    test_exact_rates();
    test_wraps_and_resets();
    test_dies();
    test_hot_plug();
    test_what_there_is();
    test_garbage();
    test_hottest();
    test_sensors();
    return check_report();
}

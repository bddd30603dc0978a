/* The source `rdma` on made-up /sys/class/infiniband folders. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chance.h"
#include "check.h"
#include "fake_clock.h"
#include "probe.h"
#include "rig.h"

static const uint64_t SECOND = 1000000000;
static const uint64_t PETABYTE = UINT64_C(1) << 50;

static const char *const KEYS[] = {
    "rdma_receive_megabytes_per_second",
    "rdma_transmit_megabytes_per_second",
    "rdma_errors_per_second",
};

static const char *const FILES[] = {
    "port_rcv_data",
    "port_xmit_data",
    "port_rcv_errors",
    "port_xmit_discards",
};

typedef struct {
    proc_tree tree;
    fake_clock clock;
    source_probe probe;
} fake_ports;

/* ---- files -------------------------------------------------------------- */

static void set_text(const proc_tree *tree, const char *port, const char *file, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "class/infiniband/%s/counters/%s", port, file);
    tree_write_text(tree, path, text);
}

static void set_number(const proc_tree *tree, const char *port, const char *file, uint64_t number)
{
    char text[32];
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)number);
    set_text(tree, port, file, text);
}

/* In words and events; port is "mlx5_0/ports/1". */
static void set_port(const proc_tree *tree, const char *port, uint64_t received, uint64_t sent,
                     uint64_t errors, uint64_t discards)
{
    const uint64_t numbers[] = {received, sent, errors, discards};
    for (int i = 0; i < 4; i++)
        set_number(tree, port, FILES[i], numbers[i]);
}

static void remove_port(const proc_tree *tree, const char *port)
{
    char path[256];
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "class/infiniband/%s/counters/%s", port, FILES[i]);
        tree_remove(tree, path);
    }
    snprintf(path, sizeof path, "class/infiniband/%s/counters", port);
    tree_remove(tree, path);
    snprintf(path, sizeof path, "class/infiniband/%s", port);
    tree_remove(tree, path);
}

/* ---- readings ----------------------------------------------------------- */

static void setup(fake_ports *fake)
{
    tree_create(&fake->tree);
    fake_clock_init(&fake->clock);
}

static int open_ports(fake_ports *fake)
{
    smn_environment environment = {
        .procfs = -1, .sysfs = fake->tree.root, .clock = &fake->clock.clock};
    return probe_open_in(&fake->probe, "rdma", &environment);
}

static void release(fake_ports *fake)
{
    probe_close(&fake->probe);
    tree_destroy(&fake->tree);
}

static void pass(fake_ports *fake, uint64_t seconds)
{
    atomic_fetch_add(&fake->clock.now_ns, seconds * SECOND);
}

/* Takes a reading; NaN stands for a key that must be absent. */
static void check_sample(fake_ports *fake, int expected_error, double received, double sent,
                         double errors)
{
    CHECK_INT(probe_sample(&fake->probe), expected_error);
    CHECK_NEAR(probe_value(&fake->probe, KEYS[0]), received * 4e-6, 1e-9);
    CHECK_NEAR(probe_value(&fake->probe, KEYS[1]), sent * 4e-6, 1e-9);
    CHECK_NEAR(probe_value(&fake->probe, KEYS[2]), errors, 0.0);
}

/* ---- tests -------------------------------------------------------------- */

static void test_schema(void)
{
    static const char *const units[] = {"megabytes per second", "megabytes per second",
                                        "errors per second"};
    fake_ports fake;
    setup(&fake);
    set_port(&fake.tree, "mlx5_0/ports/1", 1, 2, 3, 4);
    REQUIRE(open_ports(&fake) == 0);
    CHECK(!fake.probe.source->by_default);
    CHECK_U64(fake.probe.source->min_interval_ns, SECOND);
    if (CHECK_INT(fake.probe.schema.series_count, 3)) {
        for (int i = 0; i < 3; i++) {
            const smn_series_spec *spec = &fake.probe.schema.series[i].spec;
            CHECK_TEXT(spec->key, KEYS[i]);
            CHECK_TEXT(spec->unit, units[i]);
            CHECK_INT(spec->kind, SMN_RATE);
        }
    }
    release(&fake);
}

static void test_no_port(void)
{
    fake_ports fake;
    source_probe probe;
    setup(&fake);
    CHECK_INT(open_ports(&fake), -ENODATA);
    tree_write_text(&fake.tree, "class/infiniband/mlx5_0/node_type", "1: CA\n");
    CHECK_INT(open_ports(&fake), -ENODATA);
    tree_write_text(&fake.tree, "class/infiniband/mlx5_0/ports/1/state", "4: ACTIVE\n");
    CHECK_INT(open_ports(&fake), -ENODATA);
    /* A software adapter has no counters but its own. */
    tree_write_text(&fake.tree, "class/infiniband/rxe0/ports/1/hw_counters/sent_pkts", "1\n");
    CHECK_INT(open_ports(&fake), -ENODATA);
    smn_environment no_sysfs = {.procfs = -1, .sysfs = -1};
    CHECK_INT(probe_open_in(&probe, "rdma", &no_sysfs), -ENODATA);
    tree_destroy(&fake.tree);
}

static void test_increases(void)
{
    static const struct {
        const char *what;
        uint64_t before[4];
        uint64_t after[4];
        double expected[3]; /* of the reading after */
    } cases[] = {
        {"nothing", {1, 2, 3, 4}, {1, 2, 3, 4}, {0, 0, 0}},
        {"all", {1, 2, 3, 4}, {101, 1002, 13, 24}, {100, 1000, 30}},
        {"beyond 32 bits",
         {UINT32_MAX - 1, UINT32_MAX - 2, 0, 0},
         {UINT64_C(1) + UINT32_MAX, UINT64_C(2) + UINT32_MAX, 0, 0},
         {2, 4, 0}},
        {"reset", {1000, 1000, 100, 100}, {1, 2, 3, 4}, {0, 0, 0}},
        {"one of them reset", {1000, 1000, 100, 100}, {1, 1001, 101, 4}, {0, 1, 1}},
        {"another counter", {1, 1, 1, 1}, {PETABYTE, 2, 2, 2}, {0, 1, 2}},
        {"counters of 32 bits that reach their end",
         {UINT32_MAX - 1000, 5, 65535, 65535},
         {UINT32_MAX, 6, 65535, 65535},
         {CHECK_NAN, 1, 0}},
        {"and stick there",
         {UINT32_MAX, UINT32_MAX, 1, 1},
         {UINT32_MAX, UINT32_MAX, 2, 2},
         {CHECK_NAN, CHECK_NAN, 2}},
        {"and are reset", {UINT32_MAX, UINT32_MAX, 1, 1}, {1000, 2000, 2, 2}, {0, 0, 2}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        fake_ports fake;
        const uint64_t *at = cases[i].before;
        setup(&fake);
        set_port(&fake.tree, "mlx4_0/ports/2", at[0], at[1], at[2], at[3]);
        REQUIRE(open_ports(&fake) == 0);
        (void)probe_sample(&fake.probe);
        at = cases[i].after;
        set_port(&fake.tree, "mlx4_0/ports/2", at[0], at[1], at[2], at[3]);
        check_sample(&fake, 0, cases[i].expected[0], cases[i].expected[1], cases[i].expected[2]);
        release(&fake);
    }
    check_case(NULL);
}

/* A counter that is not there hides only itself, and only on its port. */
static void test_missing_counters(void)
{
    static const char *const missing[] = {
        "N/A (no PMA)\n", NULL, "", "x\n", "12", "-5\n", "18446744073709551616\n", "\xff\xff\n"};
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
        check_case("%s", missing[i] != NULL ? missing[i] : "no file");
        bool is_known_absence = i < 2;
        int error = is_known_absence ? 0 : -EBADMSG;
        for (int counter = 0; counter < 4; counter++) {
            fake_ports fake;
            char path[256];
            setup(&fake);
            set_port(&fake.tree, "mlx5_0/ports/1", 10, 10, 10, 10);
            snprintf(path, sizeof path, "class/infiniband/mlx5_0/ports/1/counters/%s",
                     FILES[counter]);
            if (missing[i] != NULL)
                tree_write_text(&fake.tree, path, missing[i]);
            else
                tree_remove(&fake.tree, path);
            REQUIRE(open_ports(&fake) == 0);
            double gone = CHECK_NAN;
            check_sample(&fake, error, counter == 0 ? gone : 0, counter == 1 ? gone : 0, 0);

            /* There it is: it counts from now on. */
            set_port(&fake.tree, "mlx5_0/ports/1", 11, 12, 13, 14);
            check_sample(&fake, 0, counter != 0, counter == 1 ? 0 : 2,
                         (counter != 2) * 3 + (counter != 3) * 4);
            release(&fake);
        }
    }
    check_case("of one port of two");
    fake_ports fake;
    setup(&fake);
    set_port(&fake.tree, "mlx5_0/ports/1", 10, 10, 10, 10);
    set_port(&fake.tree, "mlx5_1/ports/1", 10, 10, 10, 10);
    set_text(&fake.tree, "mlx5_1/ports/1", FILES[0], "N/A (no PMA)\n");
    REQUIRE(open_ports(&fake) == 0);
    check_sample(&fake, 0, 0, 0, 0);
    set_port(&fake.tree, "mlx5_0/ports/1", 15, 15, 15, 15);
    check_sample(&fake, 0, 5, 5, 10);
    check_case("for a while: what moved meanwhile is not lost");
    set_text(&fake.tree, "mlx5_0/ports/1", FILES[0], "nonsense\n");
    check_sample(&fake, -EBADMSG, CHECK_NAN, 5, 10);
    set_port(&fake.tree, "mlx5_0/ports/1", 25, 15, 15, 15);
    check_sample(&fake, 0, 15, 5, 10);
    check_case("all of them");
    for (int i = 0; i < 4; i++) {
        set_text(&fake.tree, "mlx5_0/ports/1", FILES[i], "N/A (no PMA)\n");
        set_text(&fake.tree, "mlx5_1/ports/1", FILES[i], "N/A (no PMA)\n");
    }
    check_sample(&fake, -ENODATA, CHECK_NAN, CHECK_NAN, CHECK_NAN);
    check_case(NULL);
    release(&fake);
}

/* Eight adapters, two ports each. */
static void test_big_machine(void)
{
    enum {
        ADAPTERS = 8,
        PORTS = 2 * ADAPTERS
    };
    fake_ports fake;
    setup(&fake);
    for (int reading = 0; reading < 5; reading++) {
        check_case("reading %d", reading);
        for (uint64_t i = 0; i < PORTS; i++) {
            char port[64];
            uint64_t n = (uint64_t)reading;
            snprintf(port, sizeof port, "mlx5_%d/ports/%d", (int)i / 2, (int)i % 2 + 1);
            set_port(&fake.tree, port, (i << 40) + n * 1000, (i << 41) + n * 2000, i + n * 3,
                     i + n * 4);
        }
        if (reading == 0)
            REQUIRE(open_ports(&fake) == 0);
        check_sample(&fake, 0, reading * 1000.0 * PORTS, reading * 2000.0 * PORTS,
                     reading * 7.0 * PORTS);
        pass(&fake, 4); /* in between they are looked for again */
    }
    check_case(NULL);
    release(&fake);
}

static void test_life(void)
{
    fake_ports fake;
    setup(&fake);
    set_port(&fake.tree, "mlx5_0/ports/1", 100, 100, 100, 100);
    REQUIRE(open_ports(&fake) == 0);
    check_sample(&fake, 0, 0, 0, 0);

    check_case("a port comes");
    set_port(&fake.tree, "mlx5_1/ports/1", 5000, 5000, 5000, 5000);
    pass(&fake, 9);
    check_sample(&fake, 0, 0, 0, 0);
    set_port(&fake.tree, "mlx5_1/ports/1", 6000, 6000, 6000, 6000);
    pass(&fake, 1); /* ten seconds: here it is found */
    set_port(&fake.tree, "mlx5_0/ports/1", 101, 102, 103, 104);
    check_sample(&fake, 0, 1, 2, 7);
    set_port(&fake.tree, "mlx5_1/ports/1", 6010, 6020, 6030, 6040);
    check_sample(&fake, 0, 11, 22, 77);

    check_case("one goes");
    remove_port(&fake.tree, "mlx5_0/ports/1");
    check_sample(&fake, 0, 11, 22, 77);
    pass(&fake, 10);
    set_port(&fake.tree, "mlx5_1/ports/1", 6011, 6022, 6033, 6044);
    check_sample(&fake, 0, 12, 24, 84);

    check_case("it comes back");
    set_port(&fake.tree, "mlx5_0/ports/1", 9000, 9000, 9000, 9000);
    pass(&fake, 10);
    check_sample(&fake, 0, 12, 24, 84);
    set_port(&fake.tree, "mlx5_0/ports/1", 9001, 9001, 9001, 9001);
    check_sample(&fake, 0, 13, 25, 86);

    check_case("all go");
    remove_port(&fake.tree, "mlx5_0/ports/1");
    remove_port(&fake.tree, "mlx5_1/ports/1");
    check_sample(&fake, -ENODATA, CHECK_NAN, CHECK_NAN, CHECK_NAN);
    pass(&fake, 10);
    check_sample(&fake, -ENODATA, CHECK_NAN, CHECK_NAN, CHECK_NAN);

    check_case("a new one");
    set_port(&fake.tree, "bnxt_re0/ports/1", 7, 7, 7, 7);
    pass(&fake, 10);
    check_sample(&fake, 0, 13, 25, 86);
    set_port(&fake.tree, "bnxt_re0/ports/1", 8, 8, 8, 8);
    check_sample(&fake, 0, 14, 26, 88);
    check_case(NULL);
    release(&fake);
}

/* More entries than one call of the kernel lists, links as in the real sysfs, and other things. */
static void test_listing(void)
{
    enum {
        ADAPTERS = 150
    };
    fake_ports fake;
    setup(&fake);
    tree_write_text(&fake.tree, "class/infiniband/a-file", "1\n");
    tree_write_text(&fake.tree, "class/infiniband/mlx5_0/ports/a-file", "1\n");
    REQUIRE(mkdirat(fake.tree.root, "devices", 0755) == 0);
    for (int reading = 0; reading < 2; reading++) {
        for (int i = 0; i < ADAPTERS; i++) {
            char port[96];
            snprintf(port, sizeof port, "an-adapter-with-a-very-long-name-%d/ports/1", i);
            set_port(&fake.tree, port, 1 + (uint64_t)reading, 1, 1, 1);
        }
        if (reading == 0) {
            REQUIRE(renameat(fake.tree.root, "class/infiniband/an-adapter-with-a-very-long-name-7",
                             fake.tree.root, "devices/adapter") == 0);
            REQUIRE(symlinkat("../../devices/adapter", fake.tree.root,
                              "class/infiniband/an-adapter-with-a-very-long-name-7") == 0);
            REQUIRE(open_ports(&fake) == 0);
        }
        check_sample(&fake, 0, reading * (double)ADAPTERS, 0, 0);
    }
    release(&fake);
}

/* Whatever the bytes: totals that never fall. */
static void test_mutations(void)
{
    static const char text[] = "185473921004\n";
    char mutated[2 * sizeof text + 16];
    chance_state chance = {20240903};
    fake_ports fake;
    setup(&fake);
    for (int i = 0; i < 1000; i++) {
        check_case("mutation %d", i);
        double totals[3] = {0};
        set_port(&fake.tree, "mlx5_0/ports/1", 185473921004, 1, 1, 1);
        REQUIRE(open_ports(&fake) == 0);
        for (int reading = 0; reading < 4; reading++) {
            int file = (int)chance_below(&chance, 4);
            size_t damaged = chance_mutate(&chance, text, strlen(text), mutated);
            char path[256];
            snprintf(path, sizeof path, "class/infiniband/mlx5_0/ports/1/counters/%s", FILES[file]);
            tree_write(&fake.tree, path, mutated, damaged);
            (void)probe_sample(&fake.probe);
            for (int t = 0; t < 3; t++) {
                double value = fake.probe.columns[t];
                CHECK(isnan(value) || value >= totals[t]);
                totals[t] = isnan(value) ? totals[t] : value;
            }
        }
        probe_close(&fake.probe);
    }
    check_case(NULL);
    tree_destroy(&fake.tree);
}

static void write_first(const proc_tree *tree)
{
    set_port(tree, "mlx5_0/ports/1", 0, 0, 0, 0);
}

/* What users see: counters that advance by known amounts, over a known time. */
static void test_rates(void)
{
    static sampler_rig rig;
    rig_prepare(&rig);
    write_first(&rig.tree);
    rig_create(&rig, "rdma", SECOND, 10);
    REQUIRE(smn_sampler_start(rig.sampler) == 0);
    for (uint64_t tick = 1; tick <= 10; tick++) {
        set_port(&rig.tree, "mlx5_0/ports/1", 3000000000 * tick, 1500000000 * tick, 2 * tick,
                 3 * tick);
        rig_tick(&rig, 1);
    }
    CHECK_INT(rig_take(&rig), 0);
    CHECK_NEAR(rig_statistics(&rig, KEYS[0])->mean, 12000.0, 1e-6);
    CHECK_NEAR(rig_statistics(&rig, KEYS[1])->mean, 6000.0, 1e-6);
    CHECK_NEAR(rig_statistics(&rig, KEYS[2])->mean, 5.0, 1e-9);
    CHECK_U64(rig_source(&rig, "rdma").errors, 0);
    rig_close(&rig);
}

int main(void)
{
    test_schema();
    test_no_port();
    test_increases();
    test_missing_counters();
    test_big_machine();
    test_life();
    test_listing();
    test_mutations();
    test_rates();
    return check_report();
}

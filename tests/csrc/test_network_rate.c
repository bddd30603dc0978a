/* The source `network_rate` on made-up /proc/net/dev files and /sys/class/net folders. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chance.h"
#include "check.h"
#include "fake_clock.h"
#include "probe.h"
#include "rig.h"

static const uint64_t MS = 1000000;

static const char *const KEYS[] = {
    "network_receive_megabytes_per_second",
    "network_transmit_megabytes_per_second",
    "network_errors_per_second",
    "network_drops_per_second",
};

enum {
    MOST_LINKS = 64
};

/* An interface, and what sysfs says of it. */
typedef struct {
    const char *name;    /* NULL ends a list */
    const char *entries; /* files in its folder, parted by blanks; NULL: it has no folder */
    uint64_t received;
    uint64_t sent;
    uint64_t packets; /* each way */
    uint64_t receive_errors;
    uint64_t receive_drops;
    uint64_t transmit_errors;
    uint64_t transmit_drops;
} link_state;

typedef struct {
    proc_tree tree;
    fake_clock clock;
    source_probe probe;
    const char *chosen; /* the option network_interfaces */
    link_state links[MOST_LINKS + 1];
} fake_links;

/* ---- files -------------------------------------------------------------- */

static size_t describe(char *text, size_t room, const link_state *links)
{
    size_t length = (size_t)snprintf(text, room, "Inter-|   Receive  |  Transmit\n");
    for (; links->name != NULL; links++)
        length += (size_t)snprintf(
            text + length, room - length,
            "%6s: %llu %llu %llu %llu 91 92 93 94 %llu %llu %llu %llu 95 96 97 98\n", links->name,
            (unsigned long long)links->received, (unsigned long long)links->packets,
            (unsigned long long)links->receive_errors, (unsigned long long)links->receive_drops,
            (unsigned long long)links->sent, (unsigned long long)links->packets,
            (unsigned long long)links->transmit_errors, (unsigned long long)links->transmit_drops);
    REQUIRE(length < room);
    return length;
}

static void write_links(const fake_links *fake)
{
    char text[MOST_LINKS * 256];
    describe(text, sizeof text, fake->links);
    tree_write_text(&fake->tree, "net/dev", text);
}

static void add_entry(const fake_links *fake, const char *name, const char *entry)
{
    char path[256];
    const char *is = strchr(entry, '=');
    int length = is != NULL ? (int)(is - entry) : (int)strlen(entry);
    snprintf(path, sizeof path, "class/net/%s/%.*s", name, length, entry);
    char text[32];
    snprintf(text, sizeof text, "%s\n", is != NULL ? is + 1 : "");
    tree_write_text(&fake->tree, path, text);
}

static void add_to_sysfs(const fake_links *fake, const link_state *link)
{
    char entries[256];
    if (link->entries == NULL)
        return;
    add_entry(fake, link->name, "uevent");
    REQUIRE(strlen(link->entries) < sizeof entries);
    strcpy(entries, link->entries);
    for (char *rest = entries, *entry; (entry = strsep(&rest, " ")) != NULL;) {
        if (*entry != '\0')
            add_entry(fake, link->name, entry);
    }
}

/* ---- readings ----------------------------------------------------------- */

static void setup(fake_links *fake, const link_state *links)
{
    memset(fake, 0, sizeof *fake);
    tree_create(&fake->tree);
    fake_clock_init(&fake->clock);
    for (size_t i = 0; links[i].name != NULL; i++) {
        REQUIRE(i < MOST_LINKS);
        fake->links[i] = links[i];
        add_to_sysfs(fake, &links[i]);
    }
    write_links(fake);
}

static int open_links(fake_links *fake, bool with_sysfs)
{
    smn_environment environment = {.procfs = fake->tree.root,
                                   .sysfs = with_sysfs ? fake->tree.root : -1,
                                   .network_interfaces = fake->chosen,
                                   .clock = &fake->clock.clock};
    return probe_open_in(&fake->probe, "network_rate", &environment);
}

static void release(fake_links *fake)
{
    probe_close(&fake->probe);
    tree_destroy(&fake->tree);
}

static void pass(fake_links *fake, uint64_t ns)
{
    atomic_fetch_add(&fake->clock.now_ns, ns);
}

static int read_links(fake_links *fake)
{
    write_links(fake);
    return probe_sample(&fake->probe);
}

static double received(const fake_links *fake)
{
    return fake->probe.columns[0];
}

static void check_totals(const fake_links *fake, int error, double in, double out, double errors,
                         double drops)
{
    CHECK_INT(error, 0);
    CHECK_NEAR(probe_value(&fake->probe, KEYS[0]), in * 1e-6, 1e-9);
    CHECK_NEAR(probe_value(&fake->probe, KEYS[1]), out * 1e-6, 1e-9);
    CHECK_NEAR(probe_value(&fake->probe, KEYS[2]), errors, 0.0);
    CHECK_NEAR(probe_value(&fake->probe, KEYS[3]), drops, 0.0);
}

static void check_absent(const fake_links *fake, int error)
{
    CHECK(error < 0);
    for (int i = 0; i < 4; i++)
        CHECK_ABSENT(probe_value(&fake->probe, KEYS[i]));
}

/*
 * Lets the i-th interface receive 2^i bytes, and says as a text which of them
 * were counted.
 */
static const char *counted(fake_links *fake)
{
    static char names[1024];
    double before = received(fake);
    for (size_t i = 0; fake->links[i].name != NULL; i++) {
        fake->links[i].received += UINT64_C(1) << i;
        fake->links[i].packets++;
    }
    CHECK_INT(read_links(fake), 0);
    uint64_t gained = (uint64_t)(received(fake) - before);
    size_t length = 0;
    *names = '\0';
    for (size_t i = 0; fake->links[i].name != NULL; i++) {
        if (gained >> i & 1)
            length += (size_t)snprintf(names + length, sizeof names - length, "%s%s",
                                       length > 0 ? " " : "", fake->links[i].name);
    }
    return names;
}

/* ---- tests -------------------------------------------------------------- */

static void test_schema(void)
{
    static const char *const units[] = {"megabytes per second", "megabytes per second",
                                        "errors per second", "packets per second"};
    fake_links fake;
    setup(&fake, (const link_state[]){{.name = "eth0", .entries = "device"}, {.name = NULL}});
    REQUIRE(open_links(&fake, true) == 0);
    CHECK(!fake.probe.source->by_default);
    if (CHECK_INT(fake.probe.schema.series_count, 4)) {
        for (int i = 0; i < 4; i++) {
            const smn_series_spec *spec = &fake.probe.schema.series[i].spec;
            CHECK_TEXT(spec->key, KEYS[i]);
            CHECK_TEXT(spec->unit, units[i]);
            CHECK_INT(spec->kind, SMN_RATE);
        }
    }
    release(&fake);
}

/* No network is not a network on which nothing happens. */
static void test_no_network(void)
{
    fake_links fake;
    setup(&fake, (const link_state[]){{.name = "lo", .entries = "type=772"},
                                      {.name = "dummy0", .entries = "type=1"},
                                      {.name = "ifb0", .entries = "type=1"},
                                      {.name = NULL}});
    for (int with_sysfs = 0; with_sysfs < 2; with_sysfs++)
        CHECK_INT(open_links(&fake, with_sysfs), -ENODATA);
    tree_remove(&fake.tree, "net/dev");
    CHECK_INT(open_links(&fake, true), -ENODATA);
    tree_destroy(&fake.tree);
}

static void test_increases(void)
{
    static const uint64_t turn = UINT64_C(1) << 32;
    static const struct {
        const char *what;
        link_state before;
        link_state after;
        double expected[4];
    } cases[] = {
        {"nothing",
         {"eth0", "device", 1, 2, 3, 4, 5, 6, 7},
         {"eth0", "device", 1, 2, 3, 4, 5, 6, 7},
         {0, 0, 0, 0}},
        {"both directions of all",
         {"eth0", "device", 1, 2, 3, 4, 5, 6, 7},
         {"eth0", "device", 101, 1002, 4, 14, 25, 36, 47},
         {100, 1000, 40, 60}},
        {"a 32-bit counter wrapped",
         {"eth0", "device", turn - 100, 0, 1, 0, 0, 0, 0},
         {"eth0", "device", 50, 0, 2, 0, 0, 0, 0},
         {150, 0, 0, 0}},
        {"reset",
         {"eth0", "device", 1000, 1000, 9, 9, 9, 9, 9},
         {"eth0", "device", 2000, 2000, 1, 19, 19, 19, 19},
         {0, 0, 0, 0}},
        {"errors that fell",
         {"eth0", "device", 1000, 1000, 9, 9, 9, 9, 9},
         {"eth0", "device", 1001, 1002, 10, 2, 3, 10, 11},
         {1, 2, 1, 2}},
        {"another",
         {"eth0", "device", 1, 1, 1, 1, 1, 1, 1},
         {"eth1", "", 9, 9, 9, 9, 9, 9, 9},
         {0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        fake_links fake;
        setup(&fake, (const link_state[]){{.name = "eth7", .entries = "device"},
                                          cases[i].before,
                                          {.name = "lo", .entries = "type=772"},
                                          {.name = NULL}});
        REQUIRE(open_links(&fake, true) == 0);
        check_totals(&fake, read_links(&fake), 0, 0, 0, 0);
        fake.links[1] = cases[i].after;
        fake.links[2].received += 1000; /* of lo: not on this page */
        fake.links[2].receive_errors += 10;
        const double *expected = cases[i].expected;
        check_totals(&fake, read_links(&fake), expected[0], expected[1], expected[2], expected[3]);
        fake.links[0].received += 5;
        fake.links[0].packets++;
        check_totals(&fake, read_links(&fake), expected[0] + 5, expected[1], expected[2],
                     expected[3]);
        release(&fake);
    }
    check_case(NULL);
}

/* Which interfaces count, on machines of many kinds. */
static void test_what_counts(void)
{
    static const struct {
        const char *what;
        const char *counted;
        const char *counted_by_name; /* without sysfs */
        link_state links[12];
    } cases[] = {
        {"a laptop",
         "eth0 wlan0",
         "eth0 wlan0",
         {{.name = "lo", .entries = "type=772"},
          {.name = "eth0", .entries = "device type=1"},
          {.name = "wlan0", .entries = "device type=1"},
          {.name = "docker0", .entries = "bridge/x type=1"},
          {.name = "tun0", .entries = "type=65534 tun_flags"}}},
        {"a bond of two cards with VLANs and a bridge",
         "eno1 eno2",
         "eno1 eno2",
         {{.name = "lo", .entries = "type=772"},
          {.name = "eno1", .entries = "device master/bonding/x upper_bond0 type=1"},
          {.name = "eno2", .entries = "device master/bonding/x upper_bond0 type=1"},
          {.name = "bond0", .entries = "bonding/x lower_eno1 lower_eno2 type=1"},
          {.name = "bond0.100", .entries = "lower_bond0 type=1"},
          {.name = "bond0.200", .entries = "lower_bond0 type=1"},
          {.name = "br0", .entries = "bridge/x lower_bond0.100 type=1"},
          {.name = "vnet0", .entries = "brport/x master/bridge/x tun_flags type=1"}}},
        {"a host of containers",
         "ens5",
         "ens5",
         {{.name = "lo", .entries = "type=772"},
          {.name = "ens5", .entries = "device type=1"},
          {.name = "docker0", .entries = "bridge/x lower_veth12 type=1"},
          {.name = "veth12", .entries = "brport/x type=1"},
          {.name = "dummy0", .entries = "type=1"},
          {.name = "ifb0", .entries = "type=1"}}},
        {"a container",
         "eth0",
         "eth0",
         {{.name = "lo", .entries = "type=772"}, {.name = "eth0", .entries = "type=1"}}},
        {"a container with tunnels that nobody uses",
         "eth0 eth1",
         "eth0 eth1",
         {{.name = "lo", .entries = "type=772"},
          {.name = "tunl0", .entries = "type=768"},
          {.name = "sit0", .entries = "type=776"},
          {.name = "eth0", .entries = "type=1"},
          {.name = "eth1", .entries = "type=1"}}},
        {"a container with a bond, a VLAN and a bridge of its own",
         "eth0 eth1 eth2",
         "eth0 eth1 eth2",
         {{.name = "lo", .entries = "type=772"},
          {.name = "eth0", .entries = "master/bonding/x type=1"},
          {.name = "eth1", .entries = "master/bonding/x type=1"},
          {.name = "eth2", .entries = "brport/x type=1"},
          {.name = "bond0", .entries = "bonding/x lower_eth0 lower_eth1 type=1"},
          {.name = "bond0.7", .entries = "lower_bond0 type=1"},
          {.name = "br0", .entries = "bridge/x lower_eth2 type=1"}}},
        {"containers in a container",
         "eth0",
         "eth0",
         {{.name = "lo", .entries = "type=772"},
          {.name = "eth0", .entries = "type=1"},
          {.name = "docker0", .entries = "bridge/x lower_veth12 type=1"},
          {.name = "veth12", .entries = "brport/x type=1"}}},
        {"a container that was given a VLAN",
         "eth0.5",
         "eth0.5",
         {{.name = "lo", .entries = "type=772"}, {.name = "eth0.5", .entries = "type=1"}}},
        {"only a tunnel",
         "tun0",
         "tun0",
         {{.name = "lo", .entries = "type=772"}, {.name = "tun0", .entries = "type=65534"}}},
        {"a container without root",
         "tap0",
         "tap0",
         {{.name = "lo", .entries = "type=772"}, {.name = "tap0", .entries = "type=1 tun_flags"}}},
        {"a virtual function behind the hypervisor's card",
         "eth0",
         "eth0 enP1s2",
         {{.name = "lo", .entries = "type=772"},
          {.name = "eth0", .entries = "device lower_enP1s2 type=1"},
          {.name = "enP1s2", .entries = "device master/device type=1"}}},
        {"InfiniBand cards beside Ethernet",
         "eth0 ib0 ib1",
         "eth0 ib0 ib1",
         {{.name = "eth0", .entries = "device type=1"},
          {.name = "ib0", .entries = "device type=32"},
          {.name = "ib1", .entries = "device type=32"},
          {.name = "lo", .entries = "type=772"}}},
        {"the sysfs of another network",
         "eth0",
         "eth0",
         {{.name = "lo"}, {.name = "eth0"}, {.name = "docker0"}, {.name = "veth12"}}},
        {"a type that cannot be read",
         "eth0",
         "eth0",
         {{.name = "lo", .entries = ""}, {.name = "eth0", .entries = "type=x"}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int with_sysfs = 0; with_sysfs < 2; with_sysfs++) {
            check_case("%s, sysfs %d", cases[i].what, with_sysfs);
            fake_links fake;
            setup(&fake, cases[i].links);
            REQUIRE(open_links(&fake, with_sysfs) == 0);
            check_totals(&fake, read_links(&fake), 0, 0, 0, 0);
            const char *expected = with_sysfs ? cases[i].counted : cases[i].counted_by_name;
            for (int reading = 0; reading < 3; reading++) {
                CHECK_TEXT(counted(&fake), expected);
                pass(&fake, 11000 * MS); /* so that sysfs is asked anew */
            }
            release(&fake);
        }
    }
    check_case(NULL);
}

/* Interfaces come and go, and change what they are. */
static void test_life(void)
{
    fake_links fake;
    setup(&fake, (const link_state[]){{.name = "lo", .entries = "type=772"},
                                      {.name = "eth0", .entries = "type=1"},
                                      {.name = NULL}});
    REQUIRE(open_links(&fake, true) == 0);
    CHECK_INT(read_links(&fake), 0);
    CHECK_TEXT(counted(&fake), "eth0");

    check_case("a card comes");
    fake.links[2] = (link_state){.name = "eth1", .entries = "device", .received = 1000};
    add_to_sysfs(&fake, &fake.links[2]);
    CHECK_TEXT(counted(&fake), ""); /* from its first reading on, and instead of the pair */
    CHECK_TEXT(counted(&fake), "eth1");

    check_case("it goes");
    link_state card = fake.links[2];
    fake.links[2].name = NULL;
    CHECK_TEXT(counted(&fake), "eth0");

    check_case("it comes back, with counters that are lower");
    fake.links[2] = card;
    fake.links[2].received = 1;
    fake.links[2].packets = 0;
    CHECK_TEXT(counted(&fake), "");
    CHECK_TEXT(counted(&fake), "eth1");

    check_case("it goes, after sysfs was asked anew");
    pass(&fake, 1100 * MS);
    CHECK_TEXT(counted(&fake), "eth1");
    fake.links[2].name = NULL;
    check_absent(&fake, read_links(&fake)); /* what is the other? */
    CHECK_INT(read_links(&fake), 0);
    CHECK_TEXT(counted(&fake), "eth0");
    fake.links[2].name = "eth1";
    CHECK_TEXT(counted(&fake), "");

    check_case("another order");
    fake.links[2] = fake.links[1];
    fake.links[1] = card;
    fake.links[1].received = 5000000;
    CHECK_INT(read_links(&fake), 0);
    CHECK_TEXT(counted(&fake), "eth1");

    check_case("the other one turns out to be a card");
    pass(&fake, 1100 * MS);
    CHECK_TEXT(counted(&fake), "eth1");
    add_entry(&fake, "eth0", "device");
    pass(&fake, 9900 * MS);
    CHECK_TEXT(counted(&fake), "eth1");
    pass(&fake, 100 * MS);
    CHECK_TEXT(counted(&fake), "eth1 eth0");

    check_case("only lo is left");
    fake.links[1].name = NULL;
    check_absent(&fake, read_links(&fake));
    fake.links[1].name = "eth1";
    CHECK_TEXT(counted(&fake), "");
    CHECK_TEXT(counted(&fake), "eth1 eth0");

    check_case("one is shown twice");
    double before = received(&fake);
    fake.links[1].received += 100;
    fake.links[1].packets++;
    fake.links[3] = fake.links[1];
    CHECK_INT(read_links(&fake), 0);
    CHECK_DOUBLE(received(&fake), before + 100);
    check_case(NULL);
    release(&fake);
}

static const link_state bonded[] = {
    {.name = "lo", .entries = "type=772"},
    {.name = "eno1", .entries = "device master/bonding/x upper_bond0 type=1"},
    {.name = "eno2", .entries = "device master/bonding/x upper_bond0 type=1"},
    {.name = "bond0", .entries = "bonding/x lower_eno1 lower_eno2 type=1"},
    {.name = "bond0.100", .entries = "lower_bond0 type=1"},
    {.name = "vetha", .entries = "brport/x type=1"},
    {.name = "dummy0", .entries = "type=1"},
    {.name = "tun0", .entries = "type=65534"},
    {.name = NULL},
};

/* The option: all of them, or exactly those that are named, whatever they are. */
static void test_choice(void)
{
    static const struct {
        const char *chosen;
        const char *counted;
    } cases[] = {
        {NULL, "eno1 eno2"},
        {"physical", "eno1 eno2"},
        {"all", "lo eno1 eno2 bond0 bond0.100 vetha dummy0 tun0"},
        {"lo", "lo"},
        {"lo\neno2", "lo eno2"},
        {"eno2\nlo\n", "lo eno2"},
        {"bond0.100", "bond0.100"},
        {"bond0\nbond0.100\nvetha\ndummy0\ntun0", "bond0 bond0.100 vetha dummy0 tun0"},
        {"eno1\nmissing", "eno1"},
        {"eno", NULL},
        {"eno11", NULL},
        {"physical\neno", NULL},
        {"missing", NULL},
        {"ALL", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int with_sysfs = 0; with_sysfs < 2; with_sysfs++) {
            const char *chosen = cases[i].chosen;
            check_case("%s, %s sysfs", chosen != NULL ? chosen : "NULL",
                       with_sysfs ? "with" : "without");
            fake_links fake;
            setup(&fake, bonded);
            fake.chosen = chosen;
            REQUIRE(open_links(&fake, with_sysfs) == 0);
            for (int reading = 0; reading < 3; reading++) {
                if (cases[i].counted == NULL) {
                    CHECK_INT(read_links(&fake), -ENODATA);
                    check_absent(&fake, -ENODATA);
                } else if (reading == 0) {
                    check_totals(&fake, read_links(&fake), 0, 0, 0, 0);
                } else {
                    CHECK_TEXT(counted(&fake), cases[i].counted);
                }
                pass(&fake, 11000 * MS);
            }
            release(&fake);
        }
    }
    check_case(NULL);
}

/* One that is named and not there is nothing wrong: it may come, and go, at any time. */
static void test_choice_that_comes_and_goes(void)
{
    fake_links fake;
    setup(&fake, (const link_state[]){{.name = "lo"}, {.name = NULL}});
    fake.chosen = "eth7\neth8";
    REQUIRE(open_links(&fake, true) == 0);
    check_absent(&fake, read_links(&fake));

    fake.links[1] = (link_state){.name = "eth7", .received = 1000, .packets = 1};
    check_totals(&fake, read_links(&fake), 0, 0, 0, 0); /* from its first reading on */
    CHECK_TEXT(counted(&fake), "eth7");
    fake.links[2] = (link_state){.name = "eth8", .received = 5000, .packets = 1};
    CHECK_TEXT(counted(&fake), "eth7");
    CHECK_TEXT(counted(&fake), "eth7 eth8");
    double before = received(&fake);

    fake.links[1].name = NULL;
    check_absent(&fake, read_links(&fake));
    fake.links[1].name = "eth7";
    CHECK_INT(read_links(&fake), 0);
    CHECK_DOUBLE(received(&fake), before);
    CHECK_TEXT(counted(&fake), "eth7 eth8");
    release(&fake);

    check_case("a machine without any network");
    tree_create(&fake.tree);
    CHECK_INT(open_links(&fake, true), -ENODATA);
    tree_destroy(&fake.tree);
    check_case(NULL);
}

static void test_garbage(void)
{
    static const char *const files[] = {
        "",
        "nonsense\n",
        "eth0:\n",
        "eth0: 1 2 0 0 0 0 0 0 3\n",
        "eth0: 1 2 0 0 0 0 0 0 3 4 5\n",
        "eth0: 1 2 x 0 0 0 0 0 3 4 0 0 0 0 0 0\n",
        "eth0: 1 2 0 -1 0 0 0 0 3 4 0 0 0 0 0 0\n",
        "eth0: 1 2 0 0 0 0 0 0 3 4 18446744073709551616 0 0 0 0 0\n",
        "eth0: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\neth1: 1",
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        check_case("%s", files[i]);
        fake_links fake;
        setup(&fake, (const link_state[]){{.name = "eth0", .entries = "device", .received = 10},
                                          {.name = NULL}});
        REQUIRE(open_links(&fake, true) == 0);
        check_absent(&fake, probe_sample_text(&fake.probe, &fake.tree, "net/dev", files[i]));
        check_totals(&fake, read_links(&fake), 0, 0, 0, 0);
        check_absent(&fake, probe_sample_text(&fake.probe, &fake.tree, "net/dev", files[i]));
        fake.links[0].received += 7;
        check_totals(&fake, read_links(&fake), 7, 0, 0, 0);
        release(&fake);
    }
    check_case(NULL);
}

/* Wherever a reading is cut: absent, or whole lines only. */
static void test_cut_anywhere(void)
{
    fake_links fake;
    setup(&fake, (const link_state[]){{"lo", "type=772", 10, 10, 10, 10, 10, 10, 10},
                                      {"eth0", "device", 100, 200, 300, 400, 500, 600, 700},
                                      {"eth1", "device", 1, 2, 3, 4, 5, 6, 7},
                                      {.name = NULL}});
    char text[1024];
    fake.links[1].received += 10;
    size_t whole = describe(text, sizeof text, fake.links);
    for (size_t length = 0; length <= whole; length++) {
        check_case("%zu of %zu bytes", length, whole);
        fake.links[1].received = 100;
        write_links(&fake);
        REQUIRE(open_links(&fake, true) == 0);
        check_totals(&fake, read_links(&fake), 0, 0, 0, 0);
        tree_write(&fake.tree, "net/dev", text, length);
        int error = probe_sample(&fake.probe);
        if (length == whole)
            check_totals(&fake, error, 10, 0, 0, 0);
        else if (length == 0 || text[length - 1] != '\n')
            check_absent(&fake, error);
        else if (error == 0)
            CHECK(received(&fake) <= 10);
        probe_close(&fake.probe);
    }
    check_case(NULL);
    tree_destroy(&fake.tree);
}

/* Whatever the bytes: totals that never fall. */
static void test_mutations(void)
{
    fake_links fake;
    setup(&fake, (const link_state[]){{"lo", "type=772", 11444, 11444, 146, 0, 0, 0, 0},
                                      {"eth0", "device", 670760791, 972136, 16935, 1, 2, 3, 4},
                                      {"bond0", "bonding/x", 670760791, 972136, 16935, 1, 2, 3, 4},
                                      {.name = NULL}});
    char text[1024];
    char mutated[2 * sizeof text + 16];
    size_t length = describe(text, sizeof text, fake.links);
    chance_state chance = {20240902};
    for (int i = 0; i < 2000; i++) {
        check_case("mutation %d", i);
        double totals[4] = {0};
        write_links(&fake);
        REQUIRE(open_links(&fake, i % 2 == 0) == 0);
        for (int reading = 0; reading < 4; reading++) {
            size_t damaged = chance_mutate(&chance, text, length, mutated);
            tree_write(&fake.tree, "net/dev", mutated, damaged);
            pass(&fake, chance_below(&chance, 5000) * MS);
            int error = probe_sample(&fake.probe);
            if (error != 0) {
                check_absent(&fake, error);
                continue;
            }
            for (int t = 0; t < 4; t++) {
                CHECK(isfinite(fake.probe.columns[t]) && fake.probe.columns[t] >= totals[t]);
                totals[t] = fake.probe.columns[t];
            }
        }
        probe_close(&fake.probe);
    }
    check_case(NULL);
    tree_destroy(&fake.tree);
}

/* "net" is that of who looks; in a procfs of the host it is the host's only through its init. */
static void test_foreign_procfs(void)
{
    for (int foreign = 0; foreign < 2; foreign++) {
        check_case("foreign %d", foreign);
        fake_links fake;
        setup(&fake, (const link_state[]){{.name = "eth0", .entries = "device"}, {.name = NULL}});
        tree_write_text(&fake.tree, "1/net/dev", "eth0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n");
        smn_environment environment = {.procfs = fake.tree.root,
                                       .sysfs = fake.tree.root,
                                       .foreign_procfs = foreign,
                                       .clock = &fake.clock.clock};
        REQUIRE(probe_open_in(&fake.probe, "network_rate", &environment) == 0);
        check_totals(&fake, probe_sample(&fake.probe), 0, 0, 0, 0);
        tree_write_text(&fake.tree, "1/net/dev", "eth0: 101 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n");
        fake.links[0].received += 7;
        check_totals(&fake, read_links(&fake), foreign ? 100 : 7, 0, 0, 0);
        release(&fake);
    }
    check_case(NULL);
}

/* A thousand containers beside two cards. */
static void test_many_interfaces(void)
{
    enum {
        PAIRS = 1000,
        ROOM = 128 * (PAIRS + 2)
    };
    fake_links fake;
    setup(&fake, (const link_state[]){{.name = "eth0", .entries = "device"},
                                      {.name = "eth1", .entries = "device"},
                                      {.name = NULL}});
    char *text = malloc(ROOM);
    REQUIRE(text != NULL);
    for (int reading = 0; reading < 4; reading++) {
        size_t length = 0;
        for (int i = 0; i < PAIRS + 2; i++) {
            if (reading == 2 && i < PAIRS && i % 2 == 1)
                continue;
            char name[16];
            snprintf(name, sizeof name, i < PAIRS ? "veth%d" : "eth%d", i < PAIRS ? i : i - PAIRS);
            length += (size_t)snprintf(text + length, ROOM - length,
                                       "%s: %d %d 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n", name,
                                       reading * 10, reading);
        }
        tree_write(&fake.tree, "net/dev", text, length);
        if (reading == 0)
            REQUIRE(open_links(&fake, true) == 0);
        check_totals(&fake, probe_sample(&fake.probe), reading * 20, 0, 0, 0);
    }
    free(text);
    release(&fake);
}

static void write_first(const proc_tree *tree)
{
    tree_write_text(tree, "class/net/eth0/device/x", "");
    tree_write_text(tree, "net/dev", "eth0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
}

/* What users see: counters that advance by known amounts, over a known time. */
static void test_rates(void)
{
    static sampler_rig rig;
    rig_prepare(&rig);
    write_first(&rig.tree);
    rig_create(&rig, "network_rate", 100 * MS, 10);
    REQUIRE(smn_sampler_start(rig.sampler) == 0);
    for (int tick = 1; tick <= 10; tick++) {
        char text[256];
        snprintf(text, sizeof text,
                 "eth0: %d %d %d %d 0 0 0 0 %d %d %d %d 0 0 0 0\nlo: %d 1 1 1 0 0 0 0 1 1 1 1 0 0 "
                 "0 0\n",
                 1000000 * tick, tick, 2 * tick, 3 * tick, 250000 * tick, tick, tick, 2 * tick,
                 tick);
        tree_write_text(&rig.tree, "net/dev", text);
        rig_tick(&rig, 1);
    }
    CHECK_INT(rig_take(&rig), 0);
    CHECK_NEAR(rig_statistics(&rig, KEYS[0])->mean, 10.0, 1e-9);
    CHECK_NEAR(rig_statistics(&rig, KEYS[1])->mean, 2.5, 1e-9);
    CHECK_NEAR(rig_statistics(&rig, KEYS[2])->mean, 30.0, 1e-9);
    CHECK_NEAR(rig_statistics(&rig, KEYS[3])->mean, 50.0, 1e-9);
    CHECK_NEAR(rig_statistics(&rig, KEYS[0])->max, 10.0, 1e-9);
    CHECK_U64(rig_source(&rig, "network_rate").errors, 0);
    rig_close(&rig);
}

static void test_this_machine(void)
{
    proc_tree machine;
    source_probe probe;
    tree_create(&machine);
    REQUIRE(symlinkat("/proc/net", machine.root, "net") == 0);
    REQUIRE(symlinkat("/sys/class", machine.root, "class") == 0);
    smn_environment environment = {.procfs = machine.root, .sysfs = machine.root};
    int error = probe_open_in(&probe, "network_rate", &environment);
    CHECK(error == 0 || error == -ENODATA);
    double before = 0;
    for (int i = 0; i < 20 && error == 0; i++) {
        CHECK_INT(probe_sample(&probe), 0);
        CHECK(probe.columns[0] >= before);
        before = probe.columns[0];
    }
    if (error == 0)
        probe_close(&probe);
    tree_destroy(&machine);
}

int main(void)
{
    test_schema();
    test_no_network();
    test_increases();
    test_what_counts();
    test_life();
    test_choice();
    test_choice_that_comes_and_goes();
    test_garbage();
    test_cut_anywhere();
    test_mutations();
    test_foreign_procfs();
    test_many_interfaces();
    test_rates();
    test_this_machine();
    return check_report();
}

/* The source `network` on made-up /proc/net/dev files. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chance.h"
#include "check.h"
#include "probe.h"

static const char HEADINGS[] =
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop "
    "fifo colls carrier compressed\n";

typedef struct {
    const char *name; /* NULL ends a list */
    uint64_t received;
    uint64_t received_packets;
    uint64_t sent;
    uint64_t sent_packets;
} link_counters;

static const uint64_t TURN = UINT64_C(1) << 32;
static const uint64_t HUGE_BYTES = UINT64_C(5000000000000000000);

static size_t append_link(char *text, size_t room, const link_counters *link)
{
    return (size_t)snprintf(
        text, room,
        "%6s: %7llu %7llu    1    2    3     4          5         6 %8llu %7llu    1    2    3     "
        "4       5          6\n",
        link->name, (unsigned long long)link->received, (unsigned long long)link->received_packets,
        (unsigned long long)link->sent, (unsigned long long)link->sent_packets);
}

static size_t describe(char *text, size_t room, const link_counters *links)
{
    size_t length = (size_t)snprintf(text, room, "%s", HEADINGS);
    for (; links->name != NULL; links++)
        length += append_link(text + length, room - length, links);
    REQUIRE(length < room);
    return length;
}

static int sample_links(source_probe *probe, const proc_tree *tree, const link_counters *links)
{
    char text[4096];
    describe(text, sizeof text, links);
    return probe_sample_text(probe, tree, "net/dev", text);
}

static double received(const source_probe *probe)
{
    return probe->columns[probe->schema.series[0].spec.numerator];
}

static double sent(const source_probe *probe)
{
    return probe->columns[probe->schema.series[1].spec.numerator];
}

static void check_totals(const source_probe *probe, int error, double in, double out)
{
    CHECK_INT(error, 0);
    CHECK_DOUBLE(received(probe), in);
    CHECK_DOUBLE(sent(probe), out);
}

static void check_absent(const source_probe *probe, int error)
{
    CHECK(error < 0);
    CHECK_ABSENT(received(probe));
    CHECK_ABSENT(sent(probe));
}

static void test_schema(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "network", &tree);
    CHECK(probe.source->by_default);
    if (CHECK_INT(probe.schema.series_count, 2)) {
        const smn_series *series = probe.schema.series;
        CHECK_TEXT(series[0].spec.key, "network_receive_megabytes");
        CHECK_TEXT(series[1].spec.key, "network_transmit_megabytes");
        for (int i = 0; i < 2; i++) {
            CHECK_TEXT(series[i].spec.unit, "megabytes");
            CHECK_INT(series[i].spec.kind, SMN_TOTAL);
            CHECK_DOUBLE(series[i].spec.scale, 1e-6);
        }
    }
    probe_close(&probe);
    tree_destroy(&tree);
}

/* What two readings of one interface add to the totals. */
static void test_increases(void)
{
    static const struct {
        const char *what;
        link_counters before;
        link_counters after;
        double received;
        double sent;
    } cases[] = {
        {"nothing", {"eth0", 5, 1, 7, 1}, {"eth0", 5, 1, 7, 1}, 0, 0},
        {"some", {"eth0", 5, 1, 7, 1}, {"eth0", 105, 2, 1007, 3}, 100, 1000},
        {"from zero", {"eth0", 0, 0, 0, 0}, {"eth0", 1, 1, 2, 1}, 1, 2},
        {"beyond 32 bits",
         {"eth0", TURN - 1, 9, 0, 0},
         {"eth0", 3 * TURN, 10, 0, 0},
         8589934593,
         0},
        {"a busy hour",
         {"eth0", 1, 1, 1, 1},
         {"eth0", 180000000000001, 9, 360000000000001, 9},
         1.8e14,
         3.6e14},
        {"a 32-bit counter wrapped",
         {"eth0", TURN - 100, 10, TURN - 1, 10},
         {"eth0", 50, 11, 0, 11},
         150,
         1},
        {"wrapped in one direction",
         {"eth0", TURN - 100, 10, 1000, 10},
         {"eth0", 50, 11, 1500, 12},
         150,
         500},
        {"just below half a turn",
         {"eth0", TURN - 1000, 10, 0, 0},
         {"eth0", TURN / 2 - 1001, 11, 0, 0},
         2147483647,
         0},
        {"half a turn is a reset",
         {"eth0", TURN - 1000, 10, 0, 0},
         {"eth0", TURN / 2, 11, 0, 0},
         0,
         0},
        {"reset, with the packets",
         {"eth0", TURN - 100, 10, TURN - 100, 10},
         {"eth0", 50, 1, 50, 1},
         0,
         0},
        {"reset of counters that were small",
         {"eth0", 1000, 10, 1000, 10},
         {"eth0", 5, 11, 5, 11},
         0,
         0},
        {"reset of 64-bit counters",
         {"eth0", TURN, 10, TURN + 7, 10},
         {"eth0", 5, 11, 5, 11},
         0,
         0},
        {"reset of huge counters",
         {"eth0", UINT64_MAX, 10, UINT64_MAX, 10},
         {"eth0", 5, 11, 5, 11},
         0,
         0},
        {"reset, and more bytes than before",
         {"eth0", 1000, 10, 1000, 10},
         {"eth0", 9000, 9, 8000, 9},
         0,
         0},
        {"another counter", {"eth0", 1000, 10, 5, 1}, {"eth0", HUGE_BYTES, 11, 6, 2}, 0, 1},
        {"another interface", {"eth0", 1000, 10, 1000, 10}, {"eth1", 5000, 20, 5000, 20}, 0, 0},
        {"a longer name", {"eth0", 1000, 10, 1000, 10}, {"eth00", 5000, 20, 5000, 20}, 0, 0},
        {"a shorter name", {"eth0", 1000, 10, 1000, 10}, {"eth", 5000, 20, 5000, 20}, 0, 0},
        {"an alias", {"eth0:1", 10, 1, 10, 1}, {"eth0:1", 40, 2, 30, 2}, 30, 20},
        {"another alias", {"eth0:1", 10, 1, 10, 1}, {"eth0:2", 40, 2, 30, 2}, 0, 0},
        {"an IPv6 address for a name",
         {"fe80::1", 10, 1, 10, 1},
         {"fe80::1", 40, 2, 30, 2},
         30,
         20},
        {"a bar in the name", {"a|b", 10, 1, 10, 1}, {"a|b", 40, 2, 30, 2}, 30, 20},
        {"signs and digits", {"1-2.3_@%x", 10, 1, 10, 1}, {"1-2.3_@%x", 40, 2, 30, 2}, 30, 20},
        {"bytes beyond ASCII",
         {"\xc3\xa4\xff", 10, 1, 10, 1},
         {"\xc3\xa4\xff", 40, 2, 30, 2},
         30,
         20},
        {"the longest name there is",
         {"fifteen-letters", 10, 1, 10, 1},
         {"fifteen-letters", 40, 2, 30, 2},
         30,
         20},
        {"twice as long",
         {"abcdefghijklmnopqrstuvwxyz012345", 10, 1, 10, 1},
         {"abcdefghijklmnopqrstuvwxyz012345", 40, 2, 30, 2},
         30,
         20},
    };
    proc_tree tree;
    tree_create(&tree);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        source_probe probe;
        probe_open(&probe, "network", &tree);
        link_counters links[] = {{"lo", 70, 7, 70, 7}, cases[i].before, {NULL}};
        check_totals(&probe, sample_links(&probe, &tree, links), 0, 0);
        links[1] = cases[i].after;
        check_totals(&probe, sample_links(&probe, &tree, links), cases[i].received, cases[i].sent);
        links[0].received += 5; /* of lo, on top */
        links[0].sent += 5;
        links[1].received += 20;
        links[1].sent += 30;
        check_totals(&probe, sample_links(&probe, &tree, links), cases[i].received + 25,
                     cases[i].sent + 35);
        probe_close(&probe);
    }
    check_case(NULL);
    tree_destroy(&tree);
}

static void test_layouts(void)
{
    /* Each pair is one interface's line before and after 30 bytes in and 20 out. */
    static const char *const lines[][2] = {
        /* Kernels before 2.6.38 put no blank behind the colon. */
        {"  eth0:123 4 0 0 0 0 0 0 567 8 0 0 0 0 0 0\n",
         "  eth0:153 5 0 0 0 0 0 0 587 9 0 0 0 0 0 0\n"},
        {"eth0:1:123 4 0 0 0 0 0 0 567 8 0 0 0 0 0 0\n",
         "eth0:1:153 5 0 0 0 0 0 0 587 9 0 0 0 0 0 0\n"},
        {"eth0: 123 4 0 0 0 0 0 0 567 8 0 0 0 0 0 0\n",
         "  eth0: 153 5 0 0 0 0 0 0 587 9 0 0 0 0 0 0\n"},
        {"\teth0:\t123\t4 0 0 0 0 0 0\t567\t8 0 0 0 0 0 0 \n",
         "\teth0:\t153\t5 0 0 0 0 0 0\t587\t9 0 0 0 0 0 0 \n"},
        /* A later kernel may have more columns at the end. */
        {"eth0: 123 4 0 0 0 0 0 0 567 8 0 0 0 0 0 0 17\n",
         "eth0: 153 5 0 0 0 0 0 0 587 9 0 0 0 0 0 0 18\n"},
    };
    proc_tree tree;
    tree_create(&tree);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        for (int headings = 0; headings < 2; headings++) {
            check_case("%s", lines[i][0]);
            source_probe probe;
            probe_open(&probe, "network", &tree);
            for (int reading = 0; reading < 2; reading++) {
                char text[1024];
                snprintf(text, sizeof text, "%s%s", headings ? HEADINGS : "", lines[i][reading]);
                int error = probe_sample_text(&probe, &tree, "net/dev", text);
                check_totals(&probe, error, reading * 30.0, reading * 20.0);
            }
            probe_close(&probe);
        }
    }
    check_case(NULL);
    tree_destroy(&tree);
}

/* Interfaces come, go, and change places. */
static void test_life(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "network", &tree);
#define READ(...) sample_links(&probe, &tree, (const link_counters[]){__VA_ARGS__, {NULL}})
    check_totals(&probe, READ({"lo", 10, 1, 10, 1}, {"eth0", 1000, 5, 2000, 5}), 0, 0);
    /* A new one has counted before we knew it. */
    check_totals(&probe,
                 READ({"lo", 10, 1, 10, 1}, {"eth0", 1100, 6, 2200, 6},
                      {"wg0", HUGE_BYTES, 9, HUGE_BYTES, 9}),
                 100, 200);
    check_totals(&probe,
                 READ({"lo", 10, 1, 10, 1}, {"eth0", 1100, 6, 2200, 6},
                      {"wg0", HUGE_BYTES + 1024, 10, HUGE_BYTES + 2048, 10}),
                 1124, 2248);
    /* Another order. */
    check_totals(&probe,
                 READ({"wg0", HUGE_BYTES + 1024, 10, HUGE_BYTES + 2048, 10},
                      {"eth0", 1101, 7, 2202, 7}, {"lo", 13, 2, 14, 2}),
                 1128, 2254);
    /* One is unplugged … */
    check_totals(&probe, READ({"lo", 14, 3, 15, 3}, {"eth0", 1101, 7, 2202, 7}), 1129, 2255);
    /* … and back, with counters that are lower, */
    check_totals(&probe,
                 READ({"lo", 14, 3, 15, 3}, {"eth0", 1101, 7, 2202, 7}, {"wg0", 500, 1, 500, 1}),
                 1129, 2255);
    check_totals(&probe,
                 READ({"lo", 14, 3, 15, 3}, {"eth0", 1101, 7, 2202, 7}, {"wg0", 600, 2, 800, 2}),
                 1229, 2555);
    check_totals(&probe, READ({"lo", 14, 3, 15, 3}, {"eth0", 1101, 7, 2202, 7}), 1229, 2555);
    /* … or higher than they were. */
    check_totals(&probe,
                 READ({"lo", 14, 3, 15, 3}, {"eth0", 1101, 7, 2202, 7},
                      {"wg0", 90000, 70, 90000, 70}),
                 1229, 2555);
    check_totals(&probe,
                 READ({"lo", 14, 3, 15, 3}, {"eth0", 1101, 7, 2202, 7},
                      {"wg0", 90001, 71, 90002, 71}),
                 1230, 2557);
    /* All of them at once. */
    check_totals(&probe, READ({"eth7", 1, 1, 1, 1}), 1230, 2557);
    check_totals(&probe, READ({"eth7", 2, 2, 3, 2}), 1231, 2559);
    probe_close(&probe);

    /* A kernel that is asked while an interface goes may show another one twice. */
    probe_open(&probe, "network", &tree);
    check_totals(&probe, READ({"lo", 10, 1, 10, 1}, {"eth0", 1000, 5, 2000, 5}), 0, 0);
    check_totals(&probe,
                 READ({"lo", 10, 1, 10, 1}, {"eth0", 1100, 6, 2200, 6}, {"eth0", 1100, 6, 2200, 6}),
                 100, 200);
    check_totals(&probe, READ({"lo", 10, 1, 10, 1}, {"eth0", 1110, 7, 2220, 7}), 110, 220);
    probe_close(&probe);
#undef READ
    tree_destroy(&tree);
}

static void test_garbage(void)
{
    static const struct {
        const char *text;
        bool with_headings;
    } files[] = {
        {"", false},
        {"", true},
        {"\n", false},
        {"\n", true},
        {"nonsense\n", true},
        {"\xff\xfe\n", true},
        {"eth0\n", true},
        {"eth0:\n", true},
        {": 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n", true},
        {"   : 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n", true},
        {"eth0 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n", true},
        {"eth0: 1 2 0 0 0 0 0 0 3\n", true},
        {"eth0: 1 2 0 0 0 0 0 0\n", true},
        {"eth0: x 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n", true},
        {"eth0: -1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n", true},
        {"eth0: 1 2 0 0 0 ? 0 0 3 4 0 0 0 0 0 0\n", true},
        {"eth0: 1 2 0 0 0 0 0 0 3 4.5 0 0 0 0 0 0\n", true},
        {"eth0: 18446744073709551616 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n", true},
        {"eth0: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n\n", true},
        {"eth0: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\nbad\n", true},
        {"eth0: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\neth1: 1", true},
        {"abcdefghijklmnopqrstuvwxyz0123456: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n", true},
        {"a name of more than thirty-two characters: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n", true},
    };
    static const link_counters start[] = {{"lo", 1, 1, 1, 1}, {"eth0", 1000, 5, 2000, 5}, {NULL}};
    static const link_counters later[] = {{"lo", 2, 2, 2, 2}, {"eth0", 1100, 6, 2200, 6}, {NULL}};
    proc_tree tree;
    tree_create(&tree);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        check_case("%s", files[i].text);
        char text[1024];
        snprintf(text, sizeof text, "%s%s", files[i].with_headings ? HEADINGS : "", files[i].text);
        source_probe probe;
        probe_open(&probe, "network", &tree);
        check_absent(&probe, probe_sample_text(&probe, &tree, "net/dev", text));
        check_totals(&probe, sample_links(&probe, &tree, start), 0, 0);
        check_absent(&probe, probe_sample_text(&probe, &tree, "net/dev", text));
        check_absent(&probe, probe_sample_text(&probe, &tree, "net/dev", text));
        /* The bytes that moved meanwhile are not lost. */
        check_totals(&probe, sample_links(&probe, &tree, later), 101, 201);
        probe_close(&probe);
    }
    check_case(NULL);
    tree_destroy(&tree);
}

/* Wherever a reading is cut: the total never falls, and never is above the truth. */
static void test_cut_anywhere(void)
{
    static const link_counters start[] = {{"lo", 11444, 146, 11444, 146},
                                          {"eth0", 600000, 100, 70000, 90},
                                          {"eth1", 5, 1, 6, 1},
                                          {NULL}};
    static const link_counters middle[] = {{"lo", 11544, 147, 11544, 147},
                                           {"eth0", 601000, 101, 72000, 91},
                                           {"eth1", 15, 2, 26, 2},
                                           {NULL}};
    static const link_counters end[] = {{"lo", 11545, 148, 11545, 148},
                                        {"eth0", 601001, 102, 72001, 92},
                                        {"eth1", 16, 3, 27, 3},
                                        {NULL}};
    const double middle_in = 1110;
    const double middle_out = 2120;
    char text[2048];
    size_t whole = describe(text, sizeof text, middle);
    proc_tree tree;
    tree_create(&tree);
    for (size_t length = 0; length <= whole; length++) {
        check_case("%zu of %zu bytes", length, whole);
        source_probe probe;
        probe_open(&probe, "network", &tree);
        check_totals(&probe, sample_links(&probe, &tree, start), 0, 0);
        tree_write(&tree, "net/dev", text, length);
        int error = probe_sample(&probe);
        bool whole_lines = length > strlen(HEADINGS) && text[length - 1] == '\n';
        if (whole_lines) {
            CHECK_INT(error, 0);
            CHECK(received(&probe) >= 0 && received(&probe) <= middle_in);
            CHECK(sent(&probe) >= 0 && sent(&probe) <= middle_out);
        } else {
            check_absent(&probe, error);
        }
        double in = whole_lines ? received(&probe) : 0;
        double out = whole_lines ? sent(&probe) : 0;
        CHECK_INT(sample_links(&probe, &tree, end), 0);
        CHECK(received(&probe) >= in && received(&probe) <= middle_in + 3);
        CHECK(sent(&probe) >= out && sent(&probe) <= middle_out + 3);
        if (!whole_lines || length == whole)
            check_totals(&probe, 0, middle_in + 3, middle_out + 3);
        probe_close(&probe);
    }
    check_case(NULL);
    tree_destroy(&tree);
}

/* Two thousand interfaces, as with containers: in order, turned round, and with some gone. */
static void test_many_interfaces(void)
{
    enum {
        COUNT = 2000,
        ROOM = 400 * COUNT
    };
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "network", &tree);
    char *text = malloc(ROOM);
    REQUIRE(text != NULL);
    double expected_in = 0;
    double expected_out = 0;
    for (unsigned reading = 0; reading < 5; reading++) {
        check_case("reading %u", reading);
        size_t length = (size_t)snprintf(text, ROOM, "%s", HEADINGS);
        for (unsigned i = 0; i < COUNT; i++) {
            unsigned number = reading == 3 ? COUNT - 1 - i : i;
            if (reading == 4 && number % 2 == 1)
                continue;
            char name[16];
            snprintf(name, sizeof name, "veth%x", number);
            link_counters link = {name, 1000 * number + reading * (number + 1), reading,
                                  UINT64_C(3000000000) + number + reading * 10, reading};
            length += append_link(text + length, ROOM - length, &link);
            expected_in += reading > 0 ? number + 1 : 0;
            expected_out += reading > 0 ? 10 : 0;
        }
        check_totals(&probe, probe_sample_text(&probe, &tree, "net/dev", text), expected_in,
                     expected_out);
    }
    check_case(NULL);
    free(text);
    probe_close(&probe);
    tree_destroy(&tree);
}

/* There is room for 65,536 of them; what does not fit is refused, not cut. */
static void test_too_many_interfaces(void)
{
    enum {
        MOST = 1 << 16,
        ROOM = 48 * (MOST + 1)
    };
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "network", &tree);
    char *text = malloc(ROOM);
    REQUIRE(text != NULL);
    for (int extra = 0; extra < 2; extra++) {
        for (unsigned reading = 0; reading < 2; reading++) {
            size_t length = 0;
            for (int i = 0; i < MOST + extra; i++)
                length += (size_t)snprintf(text + length, ROOM - length,
                                           "e%x: %u 0 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n", i, reading);
            int error = probe_sample_text(&probe, &tree, "net/dev", text);
            if (extra)
                check_absent(&probe, error);
            else
                check_totals(&probe, error, reading * (double)MOST, 0);
        }
    }
    free(text);
    probe_close(&probe);
    tree_destroy(&tree);
}

/* "net" is that of who looks; in a procfs of the host it is the host's only through its init. */
static void test_foreign_procfs(void)
{
    static const struct {
        bool foreign;
        bool has_init;
        double received;
    } cases[] = {{false, false, 1}, {false, true, 1}, {true, false, 1}, {true, true, 100}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("case %zu", i);
        proc_tree tree;
        source_probe probe;
        tree_create(&tree);
        tree_write_text(&tree, "net/dev", "lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n");
        if (cases[i].has_init)
            tree_write_text(&tree, "1/net/dev", "lo: 100 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n");
        smn_environment environment = {
            .procfs = tree.root, .sysfs = -1, .foreign_procfs = cases[i].foreign};
        REQUIRE(probe_open_in(&probe, "network", &environment) == 0);
        check_totals(&probe, probe_sample(&probe), 0, 0);
        tree_write_text(&tree, "net/dev", "lo: 2 2 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n");
        if (cases[i].has_init)
            tree_write_text(&tree, "1/net/dev", "lo: 200 2 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n");
        check_totals(&probe, probe_sample(&probe), cases[i].received, 0);
        probe_close(&probe);
        tree_destroy(&tree);
    }
    check_case(NULL);
}

static void test_file_comes_and_goes(void)
{
    static const link_counters links[] = {{"lo", 1, 1, 1, 1}, {NULL}};
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "network", &tree);
    for (int i = 0; i < 3; i++) {
        int error = probe_sample(&probe);
        CHECK_INT(error, -ENOENT);
        check_absent(&probe, error);
    }
    check_totals(&probe, sample_links(&probe, &tree, links), 0, 0);
    probe_close(&probe);
    tree_destroy(&tree);
}

static void test_real_file(void)
{
    proc_tree machine;
    source_probe probe;
    tree_create(&machine);
    REQUIRE(symlinkat("/proc/net", machine.root, "net") == 0);
    probe_open(&probe, "network", &machine);
    check_totals(&probe, probe_sample(&probe), 0, 0);
    double before = 0;
    for (int i = 0; i < 100; i++) {
        CHECK_INT(probe_sample(&probe), 0);
        CHECK(received(&probe) >= before && sent(&probe) >= 0);
        before = received(&probe);
    }
    probe_close(&probe);
    tree_destroy(&machine);
}

/* Whatever the bytes: totals that never fall, and that are right again after. */
static void test_mutations(void)
{
    static const link_counters links[] = {{"lo", 11444, 146, 11444, 146},
                                          {"eth0", 670760791, 16935, 972136, 9119},
                                          {"eth0:1", 4294967000, 5, 4294967295, 7},
                                          {NULL}};
    static const link_counters later[] = {{"lo", 11544, 147, 11544, 147},
                                          {"eth0", 670761791, 16936, 974136, 9120},
                                          {"eth0:1", 4294967010, 6, 19, 8},
                                          {NULL}};
    proc_tree tree;
    tree_create(&tree);
    char text[2048];
    char mutated[2 * sizeof text + 16];
    size_t length = describe(text, sizeof text, links);
    chance_state chance = {20240503};
    for (int i = 0; i < 3000; i++) {
        check_case("mutation %d", i);
        source_probe probe;
        probe_open(&probe, "network", &tree);
        if (i % 2 == 0)
            check_totals(&probe, sample_links(&probe, &tree, links), 0, 0);
        double in = 0;
        double out = 0;
        for (int reading = 0; reading < 3; reading++) {
            size_t damaged = chance_mutate(&chance, text, length, mutated);
            tree_write(&tree, "net/dev", mutated, damaged);
            int error = probe_sample(&probe);
            if (error != 0) {
                check_absent(&probe, error);
                continue;
            }
            CHECK(isfinite(received(&probe)) && received(&probe) >= in);
            CHECK(isfinite(sent(&probe)) && sent(&probe) >= out);
            in = received(&probe);
            out = sent(&probe);
        }
        CHECK_INT(sample_links(&probe, &tree, links), 0);
        CHECK(received(&probe) >= in && sent(&probe) >= out);
        in = received(&probe);
        out = sent(&probe);
        check_totals(&probe, sample_links(&probe, &tree, later), in + 1110, out + 2120);
        probe_close(&probe);
    }
    check_case(NULL);
    tree_destroy(&tree);
}

int main(void)
{
    test_schema();
    test_increases();
    test_layouts();
    test_life();
    test_garbage();
    test_cut_anywhere();
    test_many_interfaces();
    test_too_many_interfaces();
    test_foreign_procfs();
    test_file_comes_and_goes();
    test_real_file();
    test_mutations();
    return check_report();
}

/* The source `cpu` on made-up /proc/stat files. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chance.h"
#include "check.h"
#include "probe.h"

enum {
    USER,
    NICE,
    SYSTEM,
    IDLE,
    IOWAIT,
    IRQ,
    SOFTIRQ,
    STEAL,
    GUEST,
    GUEST_NICE,
    FIELDS
};

typedef struct {
    uint64_t fields[FIELDS];
} cpu_times;

static const cpu_times base = {{1132, 34, 1441, 3675, 127, 3, 438, 12, 100, 20}};

/* What follows the first line; a reader of the first line must not be led astray by it. */
static const char rest[] = "cpu0 1132 34 1441 3675 127 0 438 0 0 0\n"
                           "intr 114930548 113199788 3 0 5 263 0 4 0 1 0 0\n"
                           "ctxt 1990473\n"
                           "btime 1062191376\n";

static size_t write_line(char *text, size_t room, const cpu_times *times, int fields)
{
    size_t length = (size_t)snprintf(text, room, "cpu ");
    for (int i = 0; i < fields; i++)
        length += (size_t)snprintf(text + length, room - length, " %llu",
                                   (unsigned long long)times->fields[i]);
    length += (size_t)snprintf(text + length, room - length, "\n");
    return length;
}

static int sample_times(source_probe *probe, const proc_tree *tree, const cpu_times *times)
{
    char text[1024];
    size_t length = write_line(text, sizeof text, times, FIELDS);
    snprintf(text + length, sizeof text - length, "%s", rest);
    return probe_sample_text(probe, tree, "stat", text);
}

typedef struct {
    double busy;
    double total;
} sums;

static sums last_sums(const source_probe *probe)
{
    const smn_series_spec *spec = &probe->schema.series[0].spec;
    return (sums){probe->columns[spec->numerator], probe->columns[spec->denominator]};
}

static double percentage(sums before, sums after)
{
    return (after.busy - before.busy) / (after.total - before.total) * 100.0;
}

static void check_absent(const source_probe *probe, int error)
{
    CHECK(error < 0);
    CHECK_ABSENT(last_sums(probe).busy);
    CHECK_ABSENT(last_sums(probe).total);
}

static cpu_times sum_of(cpu_times times, cpu_times increase)
{
    for (int i = 0; i < FIELDS; i++)
        times.fields[i] += increase.fields[i];
    return times;
}

static void test_schema(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "cpu", &tree);
    CHECK(probe.source->by_default);
    CHECK_U64(probe.source->min_interval_ns, 0);
    if (CHECK_INT(probe.schema.series_count, 1)) {
        const smn_series *series = &probe.schema.series[0];
        CHECK_TEXT(series->spec.key, "cpu_utilization_percentage");
        CHECK_TEXT(series->spec.unit, "percentage");
        CHECK_TEXT(series->source, "cpu");
        CHECK_INT(series->spec.kind, SMN_RATIO);
        CHECK_DOUBLE(series->spec.scale, 100.0);
        CHECK_DOUBLE(series->spec.quantum, 10.0);
    }
    probe_close(&probe);
    tree_destroy(&tree);
}

static void test_percentages(void)
{
    static const struct {
        const char *what;
        cpu_times increase;
        double percentage;
    } cases[] = {
        {"idle", {.fields = {[IDLE] = 100}}, 0.0},
        {"waiting for a disk is idle", {.fields = {[IDLE] = 60, [IOWAIT] = 40}}, 0.0},
        {"only waiting for a disk", {.fields = {[IOWAIT] = 7}}, 0.0},
        {"user", {.fields = {[USER] = 25, [IDLE] = 75}}, 25.0},
        {"nice", {.fields = {[NICE] = 25, [IDLE] = 75}}, 25.0},
        {"system", {.fields = {[SYSTEM] = 25, [IDLE] = 75}}, 25.0},
        {"interrupts are busy", {.fields = {[IRQ] = 25, [IDLE] = 75}}, 25.0},
        {"soft interrupts are busy", {.fields = {[SOFTIRQ] = 25, [IDLE] = 75}}, 25.0},
        {"stolen time is busy", {.fields = {[STEAL] = 25, [IDLE] = 75}}, 25.0},
        {"guests are part of user", {.fields = {[USER] = 40, [GUEST] = 40, [IDLE] = 60}}, 40.0},
        {"nice guests are part of nice",
         {.fields = {[NICE] = 40, [GUEST_NICE] = 40, [IDLE] = 60}},
         40.0},
        {"a guest beside other work",
         {.fields = {[USER] = 50, [GUEST] = 30, [NICE] = 10, [GUEST_NICE] = 10, [IDLE] = 140}},
         30.0},
        {"full", {.fields = {[USER] = 64, [SYSTEM] = 36}}, 100.0},
        {"one of each", {.fields = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}}, 75.0},
        {"long", {.fields = {[USER] = 1000000000000, [IDLE] = 3000000000000}}, 25.0},
    };
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "cpu", &tree);
    cpu_times times = base;
    CHECK_INT(sample_times(&probe, &tree, &times), 0);
    CHECK_DOUBLE(last_sums(&probe).busy, 0.0); /* counted from the first reading on */
    CHECK_DOUBLE(last_sums(&probe).total, 0.0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case("%s", cases[i].what);
        sums before = last_sums(&probe);
        times = sum_of(times, cases[i].increase);
        CHECK_INT(sample_times(&probe, &tree, &times), 0);
        CHECK_DOUBLE(percentage(before, last_sums(&probe)), cases[i].percentage);
    }
    check_case(NULL);

    sums before = last_sums(&probe); /* no time passed: no increase, and no failure */
    CHECK_INT(sample_times(&probe, &tree, &times), 0);
    CHECK_DOUBLE(last_sums(&probe).busy, before.busy);
    CHECK_DOUBLE(last_sums(&probe).total, before.total);
    probe_close(&probe);
    tree_destroy(&tree);
}

/* A field that steps back passed no time; the others count. */
static void test_steps_back(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    for (int field = 0; field < FIELDS; field++) {
        check_case("field %d", field);
        probe_open(&probe, "cpu", &tree);
        cpu_times times = base;
        CHECK_INT(sample_times(&probe, &tree, &times), 0);
        times.fields[field] -= 2;
        times.fields[field == USER ? NICE : USER] += 50;
        times.fields[field == IDLE ? IOWAIT : IDLE] += 150;
        CHECK_INT(sample_times(&probe, &tree, &times), 0);
        CHECK_DOUBLE(last_sums(&probe).busy, 50.0);
        CHECK_DOUBLE(last_sums(&probe).total, 200.0);
        times.fields[field == USER ? NICE : USER] += 10;
        CHECK_INT(sample_times(&probe, &tree, &times), 0);
        CHECK_DOUBLE(last_sums(&probe).busy, 60.0);
        CHECK_DOUBLE(last_sums(&probe).total, 210.0);
        probe_close(&probe);
    }
    check_case(NULL);

    /* All of them at once, as on another machine's file: nothing passed, nothing falls. */
    probe_open(&probe, "cpu", &tree);
    cpu_times times = sum_of(base, base);
    CHECK_INT(sample_times(&probe, &tree, &times), 0);
    times.fields[USER] += 5;
    CHECK_INT(sample_times(&probe, &tree, &times), 0);
    CHECK_INT(sample_times(&probe, &tree, &base), 0);
    CHECK_DOUBLE(last_sums(&probe).busy, 5.0);
    CHECK_DOUBLE(last_sums(&probe).total, 5.0);
    times = sum_of(base, (cpu_times){{10, 0, 0, 30}});
    CHECK_INT(sample_times(&probe, &tree, &times), 0);
    CHECK_DOUBLE(last_sums(&probe).busy, 15.0);
    CHECK_DOUBLE(last_sums(&probe).total, 45.0);
    probe_close(&probe);
    tree_destroy(&tree);
}

/* Linux 2.4 had four fields, each later version one or two more; newer ones may have more yet. */
static void test_field_counts(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    char text[512];
    for (int fields = 0; fields <= FIELDS; fields++) {
        check_case("%d fields", fields);
        probe_open(&probe, "cpu", &tree);
        write_line(text, sizeof text, &base, fields);
        int error = probe_sample_text(&probe, &tree, "stat", text);
        if (fields <= IDLE) {
            check_absent(&probe, error);
            probe_close(&probe);
            continue;
        }
        CHECK_INT(error, 0);
        cpu_times times = sum_of(base, (cpu_times){{25, 0, 0, 75}});
        write_line(text, sizeof text, &times, fields);
        CHECK_INT(probe_sample_text(&probe, &tree, "stat", text), 0);
        CHECK_DOUBLE(last_sums(&probe).busy, 25.0);
        CHECK_DOUBLE(last_sums(&probe).total, 100.0);
        probe_close(&probe);
    }
    check_case(NULL);

    probe_open(&probe, "cpu", &tree);
    CHECK_INT(probe_sample_text(&probe, &tree, "stat", "cpu  0 0 0 0 0 0 0 0 0 0 0 0\n"), 0);
    CHECK_INT(probe_sample_text(&probe, &tree, "stat", "cpu  1 0 0 3 0 0 0 0 0 0 9 9\n"), 0);
    CHECK_DOUBLE(last_sums(&probe).busy, 1.0);
    CHECK_DOUBLE(last_sums(&probe).total, 4.0);
    CHECK_INT(probe_sample_text(&probe, &tree, "stat", "cpu 1  1\t0   6  \t\n"), 0);
    CHECK_DOUBLE(last_sums(&probe).busy, 2.0);
    CHECK_DOUBLE(last_sums(&probe).total, 8.0);
    probe_close(&probe);
    tree_destroy(&tree);
}

/* Cut anywhere, a reading is absent or the same, and the next whole one covers the gap. */
static void test_cut_anywhere(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    char text[1024];
    cpu_times later = sum_of(base, (cpu_times){{25, 0, 0, 75}});
    size_t line = write_line(text, sizeof text, &later, FIELDS);
    snprintf(text + line, sizeof text - line, "%s", rest);
    size_t whole = strlen(text);
    for (size_t length = 0; length <= whole; length++) {
        check_case("%zu of %zu bytes", length, whole);
        probe_open(&probe, "cpu", &tree);
        CHECK_INT(sample_times(&probe, &tree, &base), 0);
        tree_write(&tree, "stat", text, length);
        int error = probe_sample(&probe);
        if (length < line) {
            check_absent(&probe, error);
        } else {
            CHECK_INT(error, 0);
            CHECK_DOUBLE(last_sums(&probe).busy, 25.0);
            CHECK_DOUBLE(last_sums(&probe).total, 100.0);
        }
        CHECK_INT(sample_times(&probe, &tree, &later), 0);
        CHECK_DOUBLE(last_sums(&probe).busy, 25.0);
        CHECK_DOUBLE(last_sums(&probe).total, 100.0);
        probe_close(&probe);
    }
    check_case(NULL);
    tree_destroy(&tree);
}

static void test_garbage(void)
{
    static const char *const files[] = {
        "",
        "\n",
        "\n\n\n",
        "cpu",
        "cpu\n",
        "cpu \n",
        "cpu  \n",
        "cpu0 1 2 3 4 5 6 7 8 9 10\n",
        "cpu\t1 2 3 4\n",
        " cpu  1 2 3 4\n",
        "CPU  1 2 3 4\n",
        "intr 1 2 3 4\ncpu  1 2 3 4\n",
        "\ncpu  1 2 3 4\n",
        "cpu  a b c d\n",
        "cpu  1 2 3 -4\n",
        "cpu  1 2 3 4.5\n",
        "cpu  1 2 3 4 five\n",
        "cpu  1 2 3 4 5 6 7 8 9 10%\n",
        "cpu  1 2 3 4\r\n",
        "cpu  1 2 3 18446744073709551616\n",
        "cpu  1 2 3 999999999999999999999999999999999999999999\n",
        "cpu  18446744073709551615 18446744073709551615 18446744073709551615 4\n",
        "cpu  9223372036854775808 0 0 9223372036854775808\n",
        "cpu  1 2 3 4 9223372036854775807\n",
        "\xff\xfe\x80garbage\n",
    };
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        check_case("%s", files[i]);
        probe_open(&probe, "cpu", &tree);
        check_absent(&probe, probe_sample_text(&probe, &tree, "stat", files[i]));
        CHECK_INT(sample_times(&probe, &tree, &base), 0);
        CHECK_DOUBLE(last_sums(&probe).total, 0.0); /* what was bad is no start either */
        check_absent(&probe, probe_sample_text(&probe, &tree, "stat", files[i]));
        cpu_times later = sum_of(base, (cpu_times){{10, 0, 0, 30}});
        CHECK_INT(sample_times(&probe, &tree, &later), 0);
        CHECK_DOUBLE(last_sums(&probe).busy, 10.0);
        CHECK_DOUBLE(last_sums(&probe).total, 40.0);
        probe_close(&probe);
    }
    check_case(NULL);

    static const char zeros[600] = "cpu  1 2 3 4";
    probe_open(&probe, "cpu", &tree);
    tree_write(&tree, "stat", zeros, sizeof zeros);
    check_absent(&probe, probe_sample(&probe));
    char blanks[4096];
    memset(blanks, ' ', sizeof blanks);
    memcpy(blanks, "cpu ", 4);
    memcpy(blanks + sizeof blanks - 8, "1 2 3 4\n", 8);
    tree_write(&tree, "stat", blanks, sizeof blanks);
    check_absent(&probe, probe_sample(&probe));
    probe_close(&probe);
    tree_destroy(&tree);
}

/* Thousands of CPUs and interrupts behind the first line change nothing. */
static void test_large_machine(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    size_t room = 4 << 20;
    char *text = malloc(room);
    REQUIRE(text != NULL);
    probe_open(&probe, "cpu", &tree);
    cpu_times times = base;
    for (int reading = 0; reading < 3; reading++) {
        size_t length = write_line(text, room, &times, FIELDS);
        for (int cpu = 0; cpu < 4096; cpu++)
            length += (size_t)snprintf(text + length, room - length,
                                       "cpu%d 28690 0 6511 481886 863 0 232 2191 0 0\n", cpu);
        length += (size_t)snprintf(text + length, room - length, "intr 114930548");
        for (int interrupt = 0; interrupt < 20000; interrupt++)
            length += (size_t)snprintf(text + length, room - length, " %d", interrupt);
        snprintf(text + length, room - length, "\nctxt 1990473\n");
        CHECK_INT(probe_sample_text(&probe, &tree, "stat", text), 0);
        CHECK_DOUBLE(last_sums(&probe).busy, reading * 3.0);
        CHECK_DOUBLE(last_sums(&probe).total, reading * 4.0);
        times = sum_of(times, (cpu_times){{1, 0, 1, 1, 0, 1}});
    }
    probe_close(&probe);
    free(text);
    tree_destroy(&tree);
}

static void test_file_comes_and_goes(void)
{
    proc_tree tree;
    source_probe probe;
    tree_create(&tree);
    probe_open(&probe, "cpu", &tree);
    for (int i = 0; i < 3; i++) {
        int error = probe_sample(&probe);
        CHECK_INT(error, -ENOENT);
        check_absent(&probe, error);
    }
    CHECK_INT(sample_times(&probe, &tree, &base), 0);
    CHECK_DOUBLE(last_sums(&probe).total, 0.0);

    tree_write(&tree, "stat", "", 0);
    check_absent(&probe, probe_sample(&probe));
    cpu_times later = sum_of(base, (cpu_times){{10, 0, 0, 30}});
    CHECK_INT(sample_times(&probe, &tree, &later), 0);
    CHECK_DOUBLE(last_sums(&probe).busy, 10.0);
    CHECK_DOUBLE(last_sums(&probe).total, 40.0);
    probe_close(&probe);
    tree_destroy(&tree);
}

static void test_real_file(void)
{
    proc_tree machine;
    source_probe probe;
    smn_environment environment = {.sysfs = -1, .disk_paths = "/"};
    tree_create(&machine);
    REQUIRE(symlinkat("/proc/stat", machine.root, "stat") == 0);
    environment.procfs = machine.root;
    REQUIRE(probe_open_in(&probe, "cpu", &environment) == 0);
    CHECK_INT(probe_sample(&probe), 0);
    sums before = last_sums(&probe);
    while (probe_sample(&probe) == 0 && last_sums(&probe).total < before.total + 3.0)
        continue;
    double percent = percentage(before, last_sums(&probe));
    CHECK(percent >= 0.0 && percent <= 100.0);
    probe_close(&probe);
    tree_destroy(&machine);
}

/* Whatever the bytes: sums that never fall, never more busy than time, and right again after. */
static void test_mutations(void)
{
    proc_tree tree;
    tree_create(&tree);
    char text[1024];
    char mutated[2 * sizeof text + 16];
    size_t length = write_line(text, sizeof text, &base, FIELDS);
    length += (size_t)snprintf(text + length, sizeof text - length, "%s", rest);
    chance_state chance = {20240501};
    for (int i = 0; i < 4000; i++) {
        check_case("mutation %d", i);
        source_probe probe;
        probe_open(&probe, "cpu", &tree);
        CHECK_INT(sample_times(&probe, &tree, &base), 0);
        size_t line = i % 4 == 0 ? length : (size_t)(strchr(text, '\n') - text) + 1;
        size_t damaged = chance_mutate(&chance, text, line, mutated);
        tree_write(&tree, "stat", mutated, damaged);
        int error = probe_sample(&probe);
        sums bad = last_sums(&probe);
        if (error != 0) {
            check_absent(&probe, error);
            bad = (sums){0.0, 0.0};
        }
        CHECK(isfinite(bad.busy) && isfinite(bad.total));
        CHECK(bad.busy >= 0.0 && bad.total >= bad.busy);
        CHECK_INT(sample_times(&probe, &tree, &base), 0);
        sums before = last_sums(&probe);
        CHECK(before.total - bad.total >= before.busy - bad.busy && before.busy >= bad.busy);
        cpu_times later = sum_of(base, (cpu_times){{10, 0, 0, 30}});
        CHECK_INT(sample_times(&probe, &tree, &later), 0);
        CHECK_DOUBLE(percentage(before, last_sums(&probe)), 25.0);
        probe_close(&probe);
    }
    check_case(NULL);
    tree_destroy(&tree);
}

int main(void)
{
    test_schema();
    test_percentages();
    test_steps_back();
    test_field_counts();
    test_cut_anywhere();
    test_garbage();
    test_large_machine();
    test_file_comes_and_goes();
    test_real_file();
    test_mutations();
    return check_report();
}

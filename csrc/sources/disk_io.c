/*
 *  259  0 nvme0n1 1472080 154581 83724322 1619264 2118968 990552 96990272 722658 0 265556 2439408
 *
 * /proc/diskstats (Documentation/admin-guide/iostats.rst): numbers and name of
 * a device; then reads, merged reads, sectors read and time of reads; the same
 * four of writes; requests under way, time doing I/O, weighted time. Sectors
 * are 512 bytes and times are milliseconds. Kernels since 4.18 have 4 more
 * columns, of discards, and since 5.5 two, of flushes.
 *
 * A device's I/O is counted once: where it leaves the machine. So partitions do
 * not count, nor what the kernel makes of other devices or of memory.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "../path.h"
#include "../procfile.h"
#include "../roster.h"
#include "../source.h"

enum {
    READ_SECTORS,
    WRITTEN_SECTORS,
    READS,
    WRITES,
    COUNTERS,
    BUSY_PERCENTAGE = COUNTERS,
    COLUMNS
};

enum {
    MOST_DEVICES = 1 << 16,
    NAME_BYTES = 64, /* the kernel's own limit is 32, and a partition's number */
    PATH_BYTES = NAME_BYTES + 16
};

/* The time doing I/O is counted in steps of up to 10 ms: in less a device is 0 % or 100 % busy. */
static const uint64_t SHORTEST_SPAN_NS = 10000000;

/* No device moves a petabyte between two readings: so large a leap is another counter. */
static const uint64_t MOST_INCREASE = UINT64_C(1) << 41;

typedef enum {
    UNKNOWN, /* not in sysfs, or not yet */
    WHOLE,
    NVME_PATH, /* one of the ways to a namespace that has several */
    NOT_COUNTED
} device_kind;

typedef struct {
    char name[NAME_BYTES]; /* padded with zeros, at least one */
    uint64_t counters[COUNTERS];
    uint64_t io_ms;
    uint64_t span_start_ns;
    uint64_t span_busy_ms;
    device_kind kind;
} device;

typedef struct {
    smn_procfile diskstats;
    smn_roster devices;
    int sysfs; /* -1: names have to do */
    const smn_clock *clock;
    uint64_t totals[COUNTERS];
} disk_io_state;

static const char DISKSTATS[] = "/proc/diskstats; /sys/block tells whole disks";

static const smn_series_spec series[] = {
    {"disk_read_megabytes_per_second", "megabytes per second", SMN_RATE, READ_SECTORS, 0, 512e-6,
     0.0, "read from whole disks: each byte once, where it enters the machine", DISKSTATS,
     "512 · Δsectors read / 1e6 / Δt, summed over disks"},
    {"disk_write_megabytes_per_second", "megabytes per second", SMN_RATE, WRITTEN_SECTORS, 0,
     512e-6, 0.0, "written to whole disks", DISKSTATS,
     "512 · Δsectors written / 1e6 / Δt, summed over disks"},
    {"disk_read_operations_per_second", "operations per second", SMN_RATE, READS, 0, 1.0, 0.0,
     "reads that whole disks completed", DISKSTATS, "Δreads / Δt, summed over disks"},
    {"disk_write_operations_per_second", "operations per second", SMN_RATE, WRITES, 0, 1.0, 0.0,
     "writes that whole disks completed", DISKSTATS, "Δwrites / Δt, summed over disks"},
    {"disk_busy_percentage", "percentage", SMN_GAUGE, BUSY_PERCENTAGE, 0, 1.0, 0.0,
     "share of time in which the busiest disk had something to do", DISKSTATS,
     "the largest of 100 · Δ(time doing I/O) / Δt, over stretches of 10 ms or more; at most 100"},
};

/* ---- names -------------------------------------------------------------- */

static bool is_digit(char character)
{
    return character >= '0' && character <= '9';
}

/* Made of other devices, whose I/O it is, or of memory. */
static bool is_virtual(smn_cursor name)
{
    static const char kinds[][8] = {"loop", "ram", "zram", "dm-", "md", "drbd", "bcache", "zd"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        smn_cursor rest = name;
        if (smn_scan_key(&rest, kinds[i]) && rest.at < rest.end && is_digit(*rest.at))
            return true;
    }
    return smn_scan_key(&name, "md_"); /* arrays may have names */
}

/* ---- the file ----------------------------------------------------------- */

static bool is_in_name(char character)
{
    return character != ' ' && character != '\t' && character != '\n' && character != '\0';
}

static int parse_name(smn_cursor *line, smn_cursor *name)
{
    smn_scan_spaces(line);
    name->at = line->at;
    while (line->at < line->end && is_in_name(*line->at))
        line->at++;
    name->end = line->at;
    size_t length = (size_t)(name->end - name->at);
    if (length == 0 || length >= NAME_BYTES || line->at == line->end || *line->at == '\0')
        return -EBADMSG;
    return 0;
}

/* Behind the name. */
static int parse_counters(smn_cursor line, device *out)
{
    uint64_t ignored;
    uint64_t *const fields[] = {
        &out->counters[READS],
        &ignored,
        &out->counters[READ_SECTORS],
        &ignored,
        &out->counters[WRITES],
        &ignored,
        &out->counters[WRITTEN_SECTORS],
        &ignored,
        &ignored,
        &out->io_ms,
        &ignored,
    };
    int error = 0;
    for (size_t i = 0; i < sizeof fields / sizeof *fields && error == 0; i++)
        error = smn_scan_u64(&line, fields[i]);
    return error;
}

/* What never counts is not looked at: many machines have more loop devices than disks. */
static int parse_device(smn_cursor line, smn_roster *devices)
{
    smn_cursor name;
    int error = smn_scan_skip_numbers(&line, 2);
    if (error == 0)
        error = parse_name(&line, &name);
    if (error != 0 || is_virtual(name))
        return error;
    device *out = smn_roster_add(devices);
    if (out == NULL)
        return -EFBIG;
    memcpy(out->name, name.at, (size_t)(name.end - name.at));
    return parse_counters(line, out);
}

/* One bad line makes the whole reading bad: the sums must not lose a device for a tick. */
static int parse(smn_cursor text, smn_roster *devices)
{
    smn_cursor line;
    bool any = false;
    smn_roster_begin(devices);
    while (smn_scan_line(&text, &line)) {
        any = true;
        int error = parse_device(line, devices);
        if (error != 0)
            return error;
    }
    if (text.at != text.end)
        return -EBADMSG; /* cut in the last line */
    return any ? 0 : -ENODATA;
}

static int read_devices(disk_io_state *state)
{
    int error = smn_procfile_read(&state->diskstats);
    return error == 0 ? parse(smn_procfile_text(&state->diskstats), &state->devices) : error;
}

/* ---- which devices count ------------------------------------------------ */

/* "sda1" of "sda", "nvme0n1p1" of "nvme0n1": as the kernel names partitions. */
static bool is_partition(const smn_roster *devices, const char *name)
{
    char whole[NAME_BYTES] = "";
    size_t length = strlen(name);
    size_t digits = 0;
    while (digits < length && is_digit(name[length - 1 - digits]))
        digits++;
    size_t stem = length - digits;
    if (digits == 0 || stem == 0)
        return false;
    if (stem > 1 && name[stem - 1] == 'p' && is_digit(name[stem - 2]))
        stem--;
    memcpy(whole, name, stem);
    return smn_roster_find(devices, whole) != NULL;
}

static bool is_in_sysfs(int sysfs, const char *name)
{
    char path[PATH_BYTES];
    if (!SMN_PATH_JOIN(path, sizeof path, "block/", name))
        return false;
    for (char *at = path + strlen("block/"); *at != '\0'; at++) {
        if (*at == '/') /* cciss/c0d0 */
            *at = '!';
    }
    return faccessat(sysfs, path, F_OK, 0) == 0;
}

static size_t skip_number(const char *name, size_t at, char prefix)
{
    if (name[at] != prefix || !is_digit(name[at + 1]))
        return 0;
    at++;
    while (is_digit(name[at]))
        at++;
    return at;
}

/* Of "nvme0c1n2", a path, the namespace "nvme0n2"; false for all other names. */
static bool namespace_of(const char *name, char *head)
{
    size_t path = strncmp(name, "nvme", 4) == 0 ? skip_number(name, 3, 'e') : 0;
    size_t rest = path > 0 ? skip_number(name, path, 'c') : 0;
    size_t end = rest > 0 ? skip_number(name, rest, 'n') : 0;
    if (end == 0 || name[end] != '\0')
        return false;
    memset(head, 0, NAME_BYTES);
    memcpy(head, name, path);
    memcpy(head + path, name + rest, end - rest);
    return true;
}

static device_kind kind_of(const disk_io_state *state, const char *name)
{
    char head[NAME_BYTES];
    bool in_sysfs = state->sysfs >= 0 && is_in_sysfs(state->sysfs, name);
    if (!in_sysfs && is_partition(&state->devices, name))
        return NOT_COUNTED;
    if (!in_sysfs && state->sysfs >= 0)
        return UNKNOWN; /* a new device is here a moment before it is there */
    return namespace_of(name, head) ? NVME_PATH : WHOLE;
}

static bool is_unused(const device *now)
{
    return now->counters[READS] == 0 && now->counters[WRITES] == 0;
}

/* Kernels before 6.3 count the I/O of a namespace with several paths only on these, others on both.
 */
static bool is_counted(const disk_io_state *state, const device *now)
{
    char head[NAME_BYTES];
    if (now->kind != NVME_PATH)
        return now->kind == WHOLE;
    if (!namespace_of(now->name, head))
        return false;
    const device *namespace = smn_roster_find(&state->devices, head);
    return namespace == NULL || is_unused(namespace);
}

/* ---- open and close ----------------------------------------------------- */

static void disk_io_close(void *opaque)
{
    disk_io_state *state = opaque;
    smn_procfile_release(&state->diskstats);
    smn_roster_release(&state->devices);
    free(state);
}

static size_t count_wholes(const disk_io_state *state)
{
    size_t count = 0;
    for (size_t i = 0; i < state->devices.count; i++) {
        const device *candidate = smn_roster_at(&state->devices, i);
        device_kind kind = kind_of(state, candidate->name);
        count += kind == WHOLE || kind == NVME_PATH;
    }
    return count;
}

/* -ENODATA where there is no disk. What cannot be understood now may be later. */
static int look_for_disks(disk_io_state *state)
{
    int error = read_devices(state);
    if (error == -EBADMSG)
        return 0;
    if (error != 0)
        return -ENODATA;
    if (count_wholes(state) == 0)
        state->sysfs = -1; /* that of another machine, or none that knows of disks */
    return count_wholes(state) > 0 ? 0 : -ENODATA;
}

static int disk_io_open(const smn_environment *environment, smn_schema *schema, void **opaque)
{
    disk_io_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    state->sysfs = environment->sysfs;
    state->clock = environment->clock;
    smn_procfile_init(&state->diskstats, environment->procfs, "diskstats", environment->text);
    int error = smn_roster_init(&state->devices, NAME_BYTES, sizeof(device), MOST_DEVICES);
    if (error == 0)
        error = look_for_disks(state);
    if (error == 0) {
        smn_schema_add_columns(schema, COLUMNS);
        error = smn_schema_add_all(schema, series, sizeof series / sizeof *series);
    }
    if (error != 0) {
        disk_io_close(state);
        return error;
    }
    *opaque = state;
    return 0;
}

/* ---- one reading -------------------------------------------------------- */

/* Reads and writes tell a reset; the time of I/O has 32 bits and may turn over. */
static uint64_t busy_since(const device *before, const device *now)
{
    const uint64_t turn = UINT64_C(1) << 32;
    if (now->io_ms >= before->io_ms)
        return now->io_ms - before->io_ms;
    uint64_t increase = turn - before->io_ms + now->io_ms;
    return before->io_ms < turn && increase < turn / 2 ? increase : 0;
}

static bool was_reset(const device *before, const device *now)
{
    for (int i = 0; i < COUNTERS; i++) {
        if (now->counters[i] < before->counters[i])
            return true;
    }
    return false;
}

static void add_increases(const device *before, const device *now, uint64_t *totals)
{
    for (int i = 0; i < COUNTERS; i++) {
        uint64_t increase = now->counters[i] - before->counters[i];
        totals[i] += increase < MOST_INCREASE ? increase : 0;
    }
}

/* Ends the device's span, if that is long enough: its share of busy time, else NaN. */
static double close_span(device *now, uint64_t now_ns)
{
    uint64_t span_ns = now_ns - now->span_start_ns;
    if (span_ns < SHORTEST_SPAN_NS)
        return NAN;
    double percentage = 100.0 * (double)now->span_busy_ms * 1e6 / (double)span_ns;
    now->span_start_ns = now_ns;
    now->span_busy_ms = 0;
    return percentage < 100.0 ? percentage : 100.0;
}

/* What the device has done since the reading before, if it was there: into the totals. */
static double take_device(const device *before, device *now, uint64_t now_ns, uint64_t *totals)
{
    now->span_start_ns = now_ns;
    if (before == NULL || was_reset(before, now))
        return NAN;
    now->span_start_ns = before->span_start_ns;
    now->span_busy_ms = before->span_busy_ms + busy_since(before, now);
    add_increases(before, now, totals);
    return close_span(now, now_ns);
}

static int disk_io_sample(void *opaque, double *columns)
{
    disk_io_state *state = opaque;
    int error = read_devices(state);
    if (error != 0)
        return error;
    uint64_t now_ns = state->clock->monotonic_ns(state->clock->context);
    uint64_t of_no_interest[COUNTERS] = {0};
    size_t counted = 0;
    for (size_t i = 0; i < state->devices.count; i++) {
        device *now = smn_roster_at(&state->devices, i);
        const device *before = smn_roster_take_before(&state->devices, now);
        now->kind = before != NULL ? before->kind : UNKNOWN;
        if (now->kind == UNKNOWN)
            now->kind = kind_of(state, now->name);
        bool counts = is_counted(state, now);
        double busy = take_device(before, now, now_ns, counts ? state->totals : of_no_interest);
        counted += counts;
        if (counts && !isnan(busy) && !(columns[BUSY_PERCENTAGE] >= busy)) /* it comes in as NaN */
            columns[BUSY_PERCENTAGE] = busy;
    }
    smn_roster_keep(&state->devices);
    for (int i = 0; i < COUNTERS && counted > 0; i++)
        columns[i] = (double)state->totals[i];
    return counted > 0 ? 0 : -ENODATA;
}

const smn_source smn_source_disk_io = {
    .name = "disk_io",
    .min_interval_ns = 10000000, /* = SHORTEST_SPAN_NS */
    .open = disk_io_open,
    .sample = disk_io_sample,
    .close = disk_io_close,
    .series = series,
    .series_count = sizeof series / sizeof *series,
};

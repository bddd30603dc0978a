/*
 * 185473921
 *
 * /sys/class/infiniband/<adapter>/ports/<n>/counters/port_rcv_data and its like
 * (Documentation/ABI/stable/sysfs-class-infiniband): one number a file; data in
 * words of 4 bytes. Each reading is a question to the adapter, so a second lies
 * between two. What an adapter does not count says "N/A (no PMA)".
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "../listing.h"
#include "../path.h"
#include "../procfile.h"
#include "../roster.h"
#include "../source.h"

enum {
    RECEIVED_WORDS,
    SENT_WORDS,
    ERRORS,
    COLUMNS
};

enum {
    RECEIVE_DATA,
    TRANSMIT_DATA,
    RECEIVE_ERRORS,
    TRANSMIT_DISCARDS,
    COUNTERS
};

enum {
    MOST_PORTS = 1024,
    NAME_BYTES = 96, /* the kernel's limit for that of an adapter is 64 */
    PATH_BYTES = 192,
    NUMBER_BYTES = 64
};

static const char CLASS[] = "class/infiniband";

static const struct {
    const char *file;
    int column;
    bool sticks; /* at 2^32 - 1, on adapters that count data in 32 bits */
} counters[COUNTERS] = {
    [RECEIVE_DATA] = {"port_rcv_data", RECEIVED_WORDS, true},
    [TRANSMIT_DATA] = {"port_xmit_data", SENT_WORDS, true},
    [RECEIVE_ERRORS] = {"port_rcv_errors", ERRORS, false},
    [TRANSMIT_DISCARDS] = {"port_xmit_discards", ERRORS, false},
};

/* No port moves a petabyte between two readings: so large a leap is another counter. */
static const uint64_t MOST_INCREASE = UINT64_C(1) << 48;

static const uint64_t PORTS_LAST_NS = UINT64_C(10000000000);

typedef struct {
    char name[NAME_BYTES]; /* "mlx5_0/ports/1", padded with zeros */
    bool is_known[COUNTERS];
    uint64_t values[COUNTERS]; /* of the last reading that was good */
} port;

typedef struct {
    int sysfs;
    smn_text_buffer *text;
    const smn_clock *clock;
    uint64_t scanned_ns;
    smn_roster ports; /* the current ones are those of the last scan */
    uint64_t totals[COLUMNS];
} rdma_state;

static const char WORDS[] = "4 · Δwords / 1e6 / Δt, summed over ports";

static const smn_series_spec series[] = {
    {"rdma_receive_megabytes_per_second", "megabytes per second", SMN_RATE, RECEIVED_WORDS, 0, 4e-6,
     0.0, "received by all ports of InfiniBand and RoCE adapters, which /proc/net/dev never shows",
     "/sys/class/infiniband/*/ports/*/counters/port_rcv_data", WORDS},
    {"rdma_transmit_megabytes_per_second", "megabytes per second", SMN_RATE, SENT_WORDS, 0, 4e-6,
     0.0, "sent by all ports of InfiniBand and RoCE adapters",
     "/sys/class/infiniband/*/ports/*/counters/port_xmit_data", WORDS},
    {"rdma_errors_per_second", "errors per second", SMN_RATE, ERRORS, 0, 1.0, 0.0,
     "packets that came broken, or were thrown away before they left",
     "port_rcv_errors and port_xmit_discards beside these",
     "Δ(errors + discards) / Δt, summed over ports"},
};

/* ---- which ports there are ---------------------------------------------- */

static bool has_counters(const rdma_state *state, const char *name)
{
    char path[PATH_BYTES];
    return SMN_PATH_JOIN(path, sizeof path, CLASS, "/", name, "/counters") &&
           faccessat(state->sysfs, path, F_OK, 0) == 0;
}

static int add_port(rdma_state *state, const char *adapter, const char *number)
{
    char name[NAME_BYTES] = "";
    if (!SMN_PATH_JOIN(name, sizeof name, adapter, "/ports/", number) || !has_counters(state, name))
        return 0;
    port *found = smn_roster_add(&state->ports);
    if (found == NULL)
        return -EFBIG;
    memcpy(found->name, name, sizeof found->name);
    return 0;
}

static int scan_adapter(rdma_state *state, const char *adapter)
{
    char path[PATH_BYTES];
    smn_listing numbers;
    int error = 0;
    if (!SMN_PATH_JOIN(path, sizeof path, CLASS, "/", adapter, "/ports") ||
        smn_listing_open(&numbers, state->sysfs, path) != 0)
        return 0;
    for (const char *number; error == 0 && (number = smn_listing_next(&numbers)) != NULL;)
        error = add_port(state, adapter, number);
    smn_listing_close(&numbers);
    return error;
}

/* A port that was there before goes on from its last reading. */
static void join_previous(smn_roster *ports)
{
    for (size_t i = 0; i < ports->count; i++) {
        port *now = smn_roster_at(ports, i);
        const port *before = smn_roster_take_before(ports, now);
        for (int c = 0; c < COUNTERS && before != NULL; c++) {
            now->is_known[c] = before->is_known[c];
            now->values[c] = before->values[c];
        }
    }
}

static int scan_adapters(rdma_state *state)
{
    smn_listing adapters;
    int error = smn_listing_open(&adapters, state->sysfs, CLASS);
    if (error != 0)
        return error == -ENOENT ? 0 : error; /* the last adapter's driver may be gone */
    for (const char *name; error == 0 && (name = smn_listing_next(&adapters)) != NULL;)
        error = scan_adapter(state, name);
    smn_listing_close(&adapters);
    return error;
}

static int scan(rdma_state *state)
{
    smn_roster_keep(&state->ports);
    smn_roster_begin(&state->ports);
    int error = scan_adapters(state);
    join_previous(&state->ports);
    state->scanned_ns = state->clock->monotonic_ns(state->clock->context);
    return error;
}

/* ---- one reading -------------------------------------------------------- */

/* -ENODATA for what is not counted, or is not there any more. */
static int read_counter(const rdma_state *state, const char *port_name, int counter,
                        uint64_t *value)
{
    char path[PATH_BYTES];
    smn_procfile file;
    if (!SMN_PATH_JOIN(path, sizeof path, CLASS, "/", port_name, "/counters/",
                       counters[counter].file))
        return -ENODATA;
    smn_procfile_init(&file, state->sysfs, path, state->text);
    int error = smn_procfile_read_start(&file, NUMBER_BYTES);
    smn_cursor text = smn_procfile_text(&file);
    smn_procfile_release(&file);
    if (error == -ENOENT || error == -ENODEV || (error == 0 && smn_scan_key(&text, "N/A")))
        return -ENODATA;
    if (error == 0)
        error = smn_scan_u64(&text, value);
    if (error == 0 && counters[counter].sticks && *value == UINT32_MAX)
        error = -ENODATA; /* what was added since cannot be known */
    return error;
}

/* A counter that fell was reset, and adds nothing. */
static uint64_t increase(uint64_t before, uint64_t now)
{
    return now >= before && now - before < MOST_INCREASE ? now - before : 0;
}

/* Adds what the port's counters have gained; a bad one hides only itself. */
static int sample_port(rdma_state *state, port *now, bool is_read[COLUMNS])
{
    int first_error = 0;
    for (int c = 0; c < COUNTERS; c++) {
        uint64_t value;
        int column = counters[c].column;
        int error = read_counter(state, now->name, c, &value);
        if (error != 0) {
            if (error != -ENODATA && first_error == 0)
                first_error = error;
            continue;
        }
        if (now->is_known[c])
            state->totals[column] += increase(now->values[c], value);
        now->is_known[c] = true;
        now->values[c] = value;
        is_read[column] = true;
    }
    return first_error;
}

static int rdma_sample(void *opaque, double *columns)
{
    rdma_state *state = opaque;
    bool is_read[COLUMNS] = {false};
    bool any = false;
    int first_error = 0;
    uint64_t now_ns = state->clock->monotonic_ns(state->clock->context);
    if (now_ns - state->scanned_ns >= PORTS_LAST_NS)
        first_error = scan(state);
    for (size_t i = 0; i < state->ports.count; i++) {
        int error = sample_port(state, smn_roster_at(&state->ports, i), is_read);
        if (first_error == 0)
            first_error = error;
    }
    for (int i = 0; i < COLUMNS; i++) {
        any = any || is_read[i];
        if (is_read[i])
            columns[i] = (double)state->totals[i];
    }
    return first_error == 0 && !any ? -ENODATA : first_error;
}

/* ---- open and close ----------------------------------------------------- */

static void rdma_close(void *opaque)
{
    rdma_state *state = opaque;
    smn_roster_release(&state->ports);
    free(state);
}

static int rdma_open(const smn_environment *environment, smn_schema *schema, void **opaque)
{
    if (environment->sysfs < 0)
        return -ENODATA;
    rdma_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    state->sysfs = environment->sysfs;
    state->text = environment->text;
    state->clock = environment->clock;
    int error = smn_roster_init(&state->ports, NAME_BYTES, sizeof(port), MOST_PORTS);
    if (error == 0)
        error = scan(state);
    if (error == 0 && state->ports.count == 0)
        error = -ENODATA;
    if (error == 0) {
        smn_schema_add_columns(schema, COLUMNS);
        error = smn_schema_add_all(schema, series, sizeof series / sizeof *series);
    }
    if (error != 0) {
        rdma_close(state);
        return error;
    }
    *opaque = state;
    return 0;
}

const smn_source smn_source_rdma = {
    .name = "rdma",
    .min_interval_ns = 1000000000,
    .open = rdma_open,
    .sample = rdma_sample,
    .close = rdma_close,
    .series = series,
    .series_count = sizeof series / sizeof *series,
};

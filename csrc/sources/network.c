/*
 *   eth0: 60879590    1650    0    0    0     0          0         0   124484    1269 …
 *
 * /proc/net/dev (proc_pid_net(5)): two lines of headings, then one line an
 * interface with eight receive and eight transmit counters, the first two of
 * each being bytes and packets. A name may hold colons ("eth0:1"), so it ends
 * at the last one; old kernels put no blank behind it.
 *
 * The totals are sums of the increases of each interface, so they never fall:
 * an interface that is reset, re-plugged or gone adds nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "../procfile.h"
#include "../reserve.h"
#include "../source.h"

enum {
    RECEIVE,
    TRANSMIT,
    DIRECTIONS
};

enum {
    MOST_INTERFACES = 1 << 16,
    NAME_BYTES = 32, /* the kernel's own limit is 16 */
    OTHER_RECEIVE_COUNTERS = 6
};

/* No link moves a petabyte between two readings: so large a leap is another counter. */
static const uint64_t MOST_INCREASE = UINT64_C(1) << 50;

typedef struct {
    uint64_t bytes;
    uint64_t packets;
} flow;

typedef struct {
    char name[NAME_BYTES]; /* padded with zeros */
    flow flows[DIRECTIONS];
} interface;

typedef struct {
    smn_procfile dev;
    interface *previous; /* address space for MOST_INTERFACES, touched as needed */
    interface *current;
    size_t previous_count;
    uint64_t total[DIRECTIONS];
} network_state;

static const smn_series_spec series[] = {
    {"network_receive_megabytes", "megabytes", SMN_TOTAL, RECEIVE, 0, 1e-6, 0.0},
    {"network_transmit_megabytes", "megabytes", SMN_TOTAL, TRANSMIT, 0, 1e-6, 0.0},
};

enum {
    TABLE_BYTES = MOST_INTERFACES * sizeof(interface)
};

static void network_close(void *opaque)
{
    network_state *state = opaque;
    smn_procfile_release(&state->dev);
    smn_unreserve(state->previous, TABLE_BYTES);
    smn_unreserve(state->current, TABLE_BYTES);
    free(state);
}

/*
 * "net" in procfs is that of the process that looks. In the host's procfs,
 * mounted elsewhere, that would still be our own network; the host's is init's.
 */
static const char *dev_path(const smn_environment *environment)
{
    static const char of_init[] = "1/net/dev";
    if (environment->foreign_procfs && faccessat(environment->procfs, of_init, R_OK, 0) == 0)
        return of_init;
    return "net/dev";
}

static int network_open(const smn_environment *environment, smn_schema *schema, void **opaque)
{
    network_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    smn_procfile_init(&state->dev, environment->procfs, dev_path(environment), environment->text);
    state->previous = smn_reserve(TABLE_BYTES);
    state->current = smn_reserve(TABLE_BYTES);
    int error = state->previous != NULL && state->current != NULL ? 0 : -ENOMEM;
    smn_schema_add_columns(schema, DIRECTIONS);
    if (error == 0)
        error = smn_schema_add_all(schema, series, sizeof series / sizeof *series);
    if (error != 0) {
        network_close(state);
        return error;
    }
    *opaque = state;
    return 0;
}

static int parse_flow(smn_cursor *line, flow *out)
{
    int error = smn_scan_u64(line, &out->bytes);
    return error == 0 ? smn_scan_u64(line, &out->packets) : error;
}

/* A name may hold the bar, too, but no line of an interface is without a colon. */
static bool is_heading(smn_cursor line)
{
    size_t length = (size_t)(line.end - line.at);
    return memchr(line.at, ':', length) == NULL && memchr(line.at, '|', length) != NULL;
}

static int parse_interface(smn_cursor line, interface *out)
{
    smn_scan_spaces(&line);
    const char *colon = memrchr(line.at, ':', (size_t)(line.end - line.at));
    if (colon == NULL || colon == line.at)
        return -EBADMSG;
    size_t length = (size_t)(colon - line.at);
    if (length > sizeof out->name)
        return -EBADMSG;
    memset(out->name, 0, sizeof out->name);
    memcpy(out->name, line.at, length);
    line.at = colon + 1;
    int error = parse_flow(&line, &out->flows[RECEIVE]);
    if (error == 0)
        error = smn_scan_skip_numbers(&line, OTHER_RECEIVE_COUNTERS);
    if (error == 0)
        error = parse_flow(&line, &out->flows[TRANSMIT]);
    return error;
}

/* One bad line makes the whole reading bad: the sums must not lose an interface for a tick. */
static int parse(smn_cursor text, interface *table, size_t *count)
{
    smn_cursor line;
    *count = 0;
    while (smn_scan_line(&text, &line)) {
        if (is_heading(line))
            continue;
        if (*count == MOST_INTERFACES)
            return -EFBIG;
        int error = parse_interface(line, &table[*count]);
        if (error != 0)
            return error;
        ++*count;
    }
    if (text.at != text.end)
        return -EBADMSG; /* cut in the last line */
    return *count > 0 ? 0 : -ENODATA;
}

/* The kernel keeps the order of interfaces, so the place of the last one found is the best hint. */
static interface *find_previous(const network_state *state, const char *name, size_t *hint)
{
    for (size_t step = 0; step < state->previous_count; step++) {
        size_t index = (*hint + step) % state->previous_count;
        interface *candidate = &state->previous[index];
        if (memcmp(candidate->name, name, sizeof candidate->name) == 0) {
            *hint = index + 1;
            return candidate;
        }
    }
    return NULL;
}

/*
 * A byte counter that fell was reset, unless it is one of 32 bits that wrapped:
 * then the packets went on counting, and the increase is less than half a turn.
 */
static uint64_t bytes_since(const flow *before, const flow *now)
{
    const uint64_t turn = UINT64_C(1) << 32;
    if (now->packets < before->packets)
        return 0;
    if (now->bytes >= before->bytes) {
        uint64_t increase = now->bytes - before->bytes;
        return increase < MOST_INCREASE ? increase : 0;
    }
    if (before->bytes >= turn)
        return 0;
    uint64_t increase = turn - before->bytes + now->bytes;
    return increase < turn / 2 ? increase : 0;
}

static int network_sample(void *opaque, double *columns)
{
    network_state *state = opaque;
    size_t count;
    int error = smn_procfile_read(&state->dev);
    if (error == 0)
        error = parse(smn_procfile_text(&state->dev), state->current, &count);
    if (error != 0)
        return error;

    size_t hint = 0;
    for (size_t i = 0; i < count; i++) {
        const interface *now = &state->current[i];
        interface *before = find_previous(state, now->name, &hint);
        if (before == NULL)
            continue;
        for (int d = 0; d < DIRECTIONS; d++)
            state->total[d] += bytes_since(&before->flows[d], &now->flows[d]);
        /* Counted once: a kernel that is asked while interfaces go may show one twice. */
        before->name[0] = '\0';
    }
    interface *spare = state->previous;
    state->previous = state->current;
    state->current = spare;
    state->previous_count = count;
    columns[RECEIVE] = (double)state->total[RECEIVE];
    columns[TRANSMIT] = (double)state->total[TRANSMIT];
    return 0;
}

const smn_source smn_source_network = {
    .name = "network",
    .by_default = true,
    .open = network_open,
    .sample = network_sample,
    .close = network_close,
};

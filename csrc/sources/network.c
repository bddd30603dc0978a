/*
 * Bytes received and sent since the start, by all interfaces of /proc/net/dev.
 *
 * The totals are sums of the increases of each interface, so they never fall:
 * an interface that is reset, re-plugged or gone adds nothing.
 */
#include <errno.h>
#include <stdlib.h>

#include "../net_dev.h"
#include "../source.h"

typedef struct {
    smn_net_dev dev;
    uint64_t total[SMN_NET_DIRECTIONS];
} network_state;

static const char FORMULA[] = "Δbytes / 1e6, summed over interfaces; one that is reset or gone "
                              "adds nothing, 32-bit counters may wrap";

static const smn_series_spec series[] = {
    {"network_receive_megabytes", "megabytes", SMN_TOTAL, SMN_NET_RECEIVE, 0, 1e-6, 0.0,
     "received since the start by all interfaces, loopback included", "/proc/net/dev", FORMULA},
    {"network_transmit_megabytes", "megabytes", SMN_TOTAL, SMN_NET_TRANSMIT, 0, 1e-6, 0.0,
     "sent since the start by all interfaces, loopback included", "/proc/net/dev", FORMULA},
};

static void network_close(void *opaque)
{
    network_state *state = opaque;
    smn_net_dev_release(&state->dev);
    free(state);
}

static int network_open(const smn_environment *environment, smn_schema *schema, void **opaque)
{
    network_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    int error = smn_net_dev_init(&state->dev, environment);
    smn_schema_add_columns(schema, SMN_NET_DIRECTIONS);
    if (error == 0)
        error = smn_schema_add_all(schema, series, sizeof series / sizeof *series);
    if (error != 0) {
        network_close(state);
        return error;
    }
    *opaque = state;
    return 0;
}

static int network_sample(void *opaque, double *columns)
{
    network_state *state = opaque;
    smn_roster *interfaces = &state->dev.interfaces;
    int error = smn_net_dev_read(&state->dev);
    if (error != 0)
        return error;
    for (size_t i = 0; i < interfaces->count; i++) {
        const smn_net_interface *now = smn_roster_at(interfaces, i);
        const smn_net_interface *before = smn_roster_take_before(interfaces, now);
        for (int d = 0; d < SMN_NET_DIRECTIONS && before != NULL; d++)
            state->total[d] += smn_net_flow_since(&before->flows[d], &now->flows[d]).bytes;
    }
    smn_roster_keep(interfaces);
    for (int d = 0; d < SMN_NET_DIRECTIONS; d++)
        columns[d] = (double)state->total[d];
    return 0;
}

const smn_source smn_source_network = {
    .name = "network",
    .by_default = true,
    .open = network_open,
    .sample = network_sample,
    .close = network_close,
    .series = series,
    .series_count = sizeof series / sizeof *series,
};

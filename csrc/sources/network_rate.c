/*
 * Bytes, errors and drops a second of the interfaces that lead out of here, or
 * of those that are chosen with `network_interfaces`.
 *
 * A byte counts once, though a machine may show it on a VLAN, on the bond below
 * it and on a card of that: the cards count. /sys/class/net tells which they
 * are (Documentation/ABI/testing/sysfs-class-net). In a container, whose eth0 is
 * one end of a pair and no card, the best of what there is counts.
 */
#include <errno.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <unistd.h>

#include "../listing.h"
#include "../net_dev.h"
#include "../path.h"
#include "../source.h"

enum {
    RECEIVED_BYTES = SMN_NET_RECEIVE,
    SENT_BYTES = SMN_NET_TRANSMIT,
    ERRORS,
    DROPS,
    COLUMNS
};

enum {
    PATH_BYTES = 128
};

/* Those of the best rank that occurs are counted, the others not. */
typedef enum {
    UNRANKED,
    CARD,
    PLAIN,   /* the end of a pair, macvlan, tap … */
    TUNNEL,  /* what goes through it leaves by another, too, if there is another */
    STACKED, /* bond, bridge, VLAN … on top of what is counted itself */
    NEVER,
    RANKS
} interface_rank;

/* Sysfs is asked anew this often, and sooner when interfaces came or went. */
static const uint64_t RANKS_LAST_NS = UINT64_C(10000000000);
static const uint64_t RANKS_LAST_AT_LEAST_NS = UINT64_C(1000000000);

typedef struct {
    smn_net_dev dev;
    const char *chosen; /* names, one a line; NULL: none is chosen by its name */
    bool takes_all;
    int sysfs; /* -1: names have to do */
    smn_text_buffer *text;
    const smn_clock *clock;
    uint64_t ranked_ns; /* when sysfs was asked about all of them */
    bool has_changed;   /* interfaces came or went since */
    bool has_cards;     /* at the last reading */
    uint64_t totals[COLUMNS];
} network_rate_state;

static const char DEV[] = "/proc/net/dev; /sys/class/net tells what counts";

static const char BYTES[] = "Δbytes / 1e6 / Δt, summed over the interfaces that count";

static const smn_series_spec series[] = {
    {"network_receive_megabytes_per_second", "megabytes per second", SMN_RATE, RECEIVED_BYTES, 0,
     1e-6, 0.0,
     "received by what leads out of here: network cards, or the best that a container has", DEV,
     BYTES},
    {"network_transmit_megabytes_per_second", "megabytes per second", SMN_RATE, SENT_BYTES, 0, 1e-6,
     0.0, "sent by what leads out of here", DEV, BYTES},
    {"network_errors_per_second", "errors per second", SMN_RATE, ERRORS, 0, 1.0, 0.0,
     "packets that went wrong, in both directions", DEV,
     "Δ(receive errs + transmit errs) / Δt, summed over the interfaces that count"},
    {"network_drops_per_second", "packets per second", SMN_RATE, DROPS, 0, 1.0, 0.0,
     "packets that were dropped, in both directions", DEV,
     "Δ(receive drop + transmit drop) / Δt, summed over the interfaces that count"},
};

/* ---- ranks -------------------------------------------------------------- */

static bool begins(const char *name, const char *start)
{
    return strncmp(name, start, strlen(start)) == 0;
}

/* Without sysfs: what such interfaces are usually called. */
static interface_rank rank_of_name(const char *name)
{
    static const struct {
        const char *start;
        interface_rank rank;
    } usual[] = {
        {"bond", STACKED}, {"team", STACKED}, {"br", STACKED},     {"vlan", STACKED},
        {"veth", STACKED}, {"vnet", STACKED}, {"docker", STACKED}, {"virbr", STACKED},
        {"cni", STACKED},  {"tun", TUNNEL},   {"wg", TUNNEL},      {"ip6tnl", TUNNEL},
        {"sit", TUNNEL},   {"gre", TUNNEL},   {"vxlan", TUNNEL},   {"flannel", TUNNEL},
    };
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        if (begins(name, usual[i].start))
            return usual[i].rank;
    }
    return strchr(name, '.') != NULL ? STACKED : PLAIN; /* eth0.100 is a VLAN */
}

static bool exists(const network_rate_state *state, const char *name, const char *entry)
{
    char path[PATH_BYTES];
    return SMN_PATH_JOIN(path, sizeof path, "class/net/", name, entry) &&
           faccessat(state->sysfs, path, F_OK, 0) == 0;
}

/*
 * A card may be part of another, as a virtual function is of the card that a
 * hypervisor shows beside it: that one's counters have both.
 */
static bool is_card(const network_rate_state *state, const char *name)
{
    return exists(state, name, "/device") && !exists(state, name, "/master/device");
}

/* The number in class/net/<name>/type; that of Ethernet where it cannot be had. */
static uint64_t type_of(const network_rate_state *state, const char *name)
{
    char path[PATH_BYTES];
    uint64_t type;
    smn_procfile file;
    if (!SMN_PATH_JOIN(path, sizeof path, "class/net/", name, "/type"))
        return ARPHRD_ETHER;
    smn_procfile_init(&file, state->sysfs, path, state->text);
    int error = smn_procfile_read_start(&file, 32);
    smn_cursor text = smn_procfile_text(&file);
    if (error == 0)
        error = smn_scan_u64(&text, &type);
    smn_procfile_release(&file);
    return error == 0 ? type : ARPHRD_ETHER;
}

static interface_rank rank_of_type(uint64_t type)
{
    if (type == ARPHRD_LOOPBACK)
        return NEVER;
    return type == ARPHRD_ETHER || type == ARPHRD_INFINIBAND ? PLAIN : TUNNEL;
}

/* Of one that is no card. */
static interface_rank rank_of_virtual(const network_rate_state *state, const char *name)
{
    char path[PATH_BYTES];
    smn_listing listing;
    if (state->sysfs < 0 || !SMN_PATH_JOIN(path, sizeof path, "class/net/", name) ||
        smn_listing_open(&listing, state->sysfs, path) != 0)
        return rank_of_name(name);
    bool is_stacked = false;
    bool is_port = false;
    for (const char *entry; (entry = smn_listing_next(&listing)) != NULL;) {
        /* Links to what it is made of, as far as that is in the same network. */
        if (begins(entry, "lower_") || strcmp(entry, "bridge") == 0 ||
            strcmp(entry, "bonding") == 0)
            is_stacked = true;
        is_port = is_port || strcmp(entry, "brport") == 0;
    }
    smn_listing_close(&listing);
    if (is_stacked)
        return STACKED;
    /* Our end of another container's pair: what leaves the machine does so by another. */
    if (is_port && begins(name, "veth"))
        return NEVER;
    return rank_of_type(type_of(state, name));
}

static bool is_chosen(const network_rate_state *state, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = state->chosen; *line != '\0';) {
        size_t end = strcspn(line, "\n");
        if (end == length && memcmp(line, name, length) == 0)
            return true;
        line += end + (line[end] == '\n');
    }
    return false;
}

static interface_rank rank_of(const network_rate_state *state, const smn_net_interface *interface)
{
    char name[SMN_NET_NAME_BYTES + 1] = "";
    memcpy(name, interface->name, SMN_NET_NAME_BYTES);
    /* What the user wants to be counted is counted, be it of the best or of the worst. */
    if (state->takes_all)
        return CARD;
    if (state->chosen != NULL)
        return is_chosen(state, name) ? CARD : NEVER;
    if (strcmp(name, "lo") == 0 || begins(name, "ifb") || begins(name, "dummy"))
        return NEVER;
    if (*name == '.' || strchr(name, '/') != NULL) /* no name that the kernel gives */
        return NEVER;
    if (state->sysfs >= 0 && is_card(state, name))
        return CARD;
    /* Where there are cards nobody asks what exactly it is. */
    return state->has_cards ? NEVER : rank_of_virtual(state, name);
}

/* ---- one reading -------------------------------------------------------- */

typedef struct {
    size_t count;
    uint64_t increases[COLUMNS];
} rank_sum;

static void add_interface(rank_sum *sum, const smn_net_interface *before,
                          const smn_net_interface *now)
{
    sum->count++;
    for (int d = 0; d < SMN_NET_DIRECTIONS && before != NULL; d++) {
        smn_net_flow flow = smn_net_flow_since(&before->flows[d], &now->flows[d]);
        sum->increases[d] += flow.bytes;
        sum->increases[ERRORS] += flow.errors;
        sum->increases[DROPS] += flow.drops;
    }
}

static bool ranks_are_old(const network_rate_state *state, uint64_t now_ns)
{
    uint64_t age_ns = now_ns - state->ranked_ns;
    return age_ns >= (state->has_changed ? RANKS_LAST_AT_LEAST_NS : RANKS_LAST_NS);
}

/* Sums up the reading, by rank. */
static void sum_up(network_rate_state *state, uint64_t now_ns, rank_sum sums[RANKS])
{
    smn_roster *interfaces = &state->dev.interfaces;
    bool anew = ranks_are_old(state, now_ns);
    size_t known = 0;
    for (size_t i = 0; i < interfaces->count; i++) {
        smn_net_interface *now = smn_roster_at(interfaces, i);
        const smn_net_interface *before = smn_roster_take_before(interfaces, now);
        known += before != NULL;
        now->rank = before != NULL && !anew ? before->rank : (int)rank_of(state, now);
        add_interface(&sums[now->rank], before, now);
    }
    if (anew) {
        state->ranked_ns = now_ns;
        state->has_changed = false;
    }
    if (known != interfaces->count || known != interfaces->previous_count)
        state->has_changed = true;
    smn_roster_keep(interfaces);
}

/* NULL where there is none that counts. */
static const rank_sum *best(const rank_sum sums[RANKS])
{
    for (int rank = CARD; rank < NEVER; rank++) {
        if (sums[rank].count > 0)
            return &sums[rank];
    }
    return NULL;
}

static int network_rate_sample(void *opaque, double *columns)
{
    network_rate_state *state = opaque;
    rank_sum sums[RANKS] = {0};
    int error = smn_net_dev_read(&state->dev);
    if (error != 0)
        return error;
    uint64_t now_ns = state->clock->monotonic_ns(state->clock->context);
    sum_up(state, now_ns, sums);
    bool had_cards = state->has_cards;
    state->has_cards = sums[CARD].count > 0;
    if (had_cards && !state->has_cards)
        state->ranked_ns = now_ns - RANKS_LAST_NS; /* what the others are was not asked till now */
    const rank_sum *counted = best(sums);
    if (counted == NULL)
        return -ENODATA;
    for (int i = 0; i < COLUMNS; i++) {
        state->totals[i] += counted->increases[i];
        columns[i] = (double)state->totals[i];
    }
    return 0;
}

/* ---- open and close ----------------------------------------------------- */

static void network_rate_close(void *opaque)
{
    network_rate_state *state = opaque;
    smn_net_dev_release(&state->dev);
    free(state);
}

static void choose(network_rate_state *state, const char *interfaces)
{
    if (interfaces == NULL || strcmp(interfaces, "physical") == 0)
        return;
    state->takes_all = strcmp(interfaces, "all") == 0;
    if (!state->takes_all)
        state->chosen = interfaces;
}

/*
 * -ENODATA where nothing leads out of here. What cannot be understood now may be
 * later, and what is wanted by its name may come later.
 */
static int look_for_interfaces(network_rate_state *state)
{
    const smn_roster *interfaces = &state->dev.interfaces;
    int error = smn_net_dev_read(&state->dev);
    if (error == -EBADMSG || (error == 0 && state->chosen != NULL))
        return 0;
    for (size_t i = 0; i < interfaces->count && error == 0; i++) {
        if (rank_of(state, smn_roster_at(interfaces, i)) != NEVER)
            return 0;
    }
    return -ENODATA;
}

static int network_rate_open(const smn_environment *environment, smn_schema *schema, void **opaque)
{
    network_rate_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return -ENOMEM;
    choose(state, environment->network_interfaces);
    state->sysfs = environment->sysfs;
    state->text = environment->text;
    state->clock = environment->clock;
    state->ranked_ns = state->clock->monotonic_ns(state->clock->context);
    int error = smn_net_dev_init(&state->dev, environment);
    if (error == 0)
        error = look_for_interfaces(state);
    if (error == 0) {
        smn_schema_add_columns(schema, COLUMNS);
        error = smn_schema_add_all(schema, series, sizeof series / sizeof *series);
    }
    if (error != 0) {
        network_rate_close(state);
        return error;
    }
    *opaque = state;
    return 0;
}

const smn_source smn_source_network_rate = {
    .name = "network_rate",
    .open = network_rate_open,
    .sample = network_rate_sample,
    .close = network_rate_close,
    .series = series,
    .series_count = sizeof series / sizeof *series,
};

#include "net_dev.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum {
    MOST_INTERFACES = 1 << 16,
    OTHER_RECEIVE_COUNTERS = 4
};

/* No link moves a petabyte between two readings: so large a leap is another counter. */
static const uint64_t MOST_INCREASE = UINT64_C(1) << 50;

/*
 * "net" in procfs is that of the process that looks. In the host's procfs,
 * mounted elsewhere, that would still be our own network; the host's is init's.
 */
const char *smn_net_dev_path(const smn_environment *environment)
{
    static const char of_init[] = "1/net/dev";
    if (environment->foreign_procfs && faccessat(environment->procfs, of_init, R_OK, 0) == 0)
        return of_init;
    return "net/dev";
}

int smn_net_dev_init(smn_net_dev *dev, const smn_environment *environment)
{
    smn_procfile_init(&dev->file, environment->procfs, smn_net_dev_path(environment),
                      environment->text);
    return smn_roster_init(&dev->interfaces, SMN_NET_NAME_BYTES, sizeof(smn_net_interface),
                           MOST_INTERFACES);
}

void smn_net_dev_release(smn_net_dev *dev)
{
    smn_procfile_release(&dev->file);
    smn_roster_release(&dev->interfaces);
}

static int parse_flow(smn_cursor *line, smn_net_flow *out)
{
    uint64_t *const fields[] = {&out->bytes, &out->packets, &out->errors, &out->drops};
    int error = 0;
    for (size_t i = 0; i < sizeof fields / sizeof *fields && error == 0; i++)
        error = smn_scan_u64(line, fields[i]);
    return error;
}

/* A name may hold the bar, too, but no line of an interface is without a colon. */
static bool is_heading(smn_cursor line)
{
    size_t length = (size_t)(line.end - line.at);
    return memchr(line.at, ':', length) == NULL && memchr(line.at, '|', length) != NULL;
}

static int parse_interface(smn_cursor line, smn_net_interface *out)
{
    smn_scan_spaces(&line);
    const char *colon = memrchr(line.at, ':', (size_t)(line.end - line.at));
    if (colon == NULL || colon == line.at)
        return -EBADMSG;
    size_t length = (size_t)(colon - line.at);
    if (length > sizeof out->name)
        return -EBADMSG;
    memcpy(out->name, line.at, length);
    line.at = colon + 1;
    int error = parse_flow(&line, &out->flows[SMN_NET_RECEIVE]);
    if (error == 0)
        error = smn_scan_skip_numbers(&line, OTHER_RECEIVE_COUNTERS);
    if (error == 0)
        error = parse_flow(&line, &out->flows[SMN_NET_TRANSMIT]);
    return error;
}

static int parse(smn_cursor text, smn_roster *interfaces)
{
    smn_cursor line;
    smn_roster_begin(interfaces);
    while (smn_scan_line(&text, &line)) {
        if (is_heading(line))
            continue;
        smn_net_interface *interface = smn_roster_add(interfaces);
        int error = interface != NULL ? parse_interface(line, interface) : -EFBIG;
        if (error != 0)
            return error;
    }
    if (text.at != text.end)
        return -EBADMSG; /* cut in the last line */
    return interfaces->count > 0 ? 0 : -ENODATA;
}

int smn_net_dev_read(smn_net_dev *dev)
{
    int error = smn_procfile_read(&dev->file);
    return error == 0 ? parse(smn_procfile_text(&dev->file), &dev->interfaces) : error;
}

static uint64_t increase(uint64_t before, uint64_t now)
{
    return now >= before && now - before < MOST_INCREASE ? now - before : 0;
}

/*
 * A byte counter that fell was reset, unless it is one of 32 bits that wrapped:
 * then the packets went on counting, and the increase is less than half a turn.
 */
static uint64_t bytes_since(uint64_t before, uint64_t now)
{
    const uint64_t turn = UINT64_C(1) << 32;
    if (now >= before || before >= turn)
        return increase(before, now);
    uint64_t wrapped = turn - before + now;
    return wrapped < turn / 2 ? wrapped : 0;
}

smn_net_flow smn_net_flow_since(const smn_net_flow *before, const smn_net_flow *now)
{
    if (now->packets < before->packets)
        return (smn_net_flow){0};
    return (smn_net_flow){
        .bytes = bytes_since(before->bytes, now->bytes),
        .packets = increase(before->packets, now->packets),
        .errors = increase(before->errors, now->errors),
        .drops = increase(before->drops, now->drops),
    };
}

/*
 *   eth0: 60879590    1650    0    0    0     0          0         0   124484    1269 …
 *
 * /proc/net/dev (proc_pid_net(5)): two lines of headings, then one line an
 * interface with eight receive and eight transmit counters, the first four of
 * each being bytes, packets, errors and drops. A name may hold colons
 * ("eth0:1"), so it ends at the last one; old kernels put no blank behind it.
 */
#ifndef SMN_NET_DEV_H
#define SMN_NET_DEV_H

#include <stdint.h>

#include "procfile.h"
#include "roster.h"
#include "source.h"

enum {
    SMN_NET_RECEIVE,
    SMN_NET_TRANSMIT,
    SMN_NET_DIRECTIONS
};

enum {
    SMN_NET_NAME_BYTES = 32 /* the kernel's own limit is 16 */
};

typedef struct {
    uint64_t bytes;
    uint64_t packets;
    uint64_t errors;
    uint64_t drops;
} smn_net_flow;

typedef struct {
    char name[SMN_NET_NAME_BYTES]; /* padded with zeros; one of full length has no zero behind it */
    smn_net_flow flows[SMN_NET_DIRECTIONS];
    int rank; /* the reader's own; 0 at first */
} smn_net_interface;

typedef struct {
    smn_procfile file;
    smn_roster interfaces; /* of smn_net_interface */
} smn_net_dev;

/* -ENOMEM. May be released in either case. */
int smn_net_dev_init(smn_net_dev *dev, const smn_environment *environment);
void smn_net_dev_release(smn_net_dev *dev);

/* The file that this environment's network is read from, below its procfs. */
const char *smn_net_dev_path(const smn_environment *environment);

/*
 * Reads the current interfaces. One bad line makes the whole reading bad: sums
 * must not lose an interface for a tick.
 */
int smn_net_dev_read(smn_net_dev *dev);

/*
 * How much was added between two readings of one interface. A counter that fell
 * was reset and adds nothing, except a byte counter of 32 bits that wrapped.
 */
smn_net_flow smn_net_flow_since(const smn_net_flow *before, const smn_net_flow *now);

#endif

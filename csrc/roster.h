/*
 * What was there at the last reading, and what is there now: two tables of
 * records that are known by name, for things that come and go. A record begins
 * with its name, padded with zeros; an empty one is nobody's.
 */
#ifndef SMN_ROSTER_H
#define SMN_ROSTER_H

#include <stddef.h>

typedef struct {
    size_t name_bytes;
    size_t record_bytes;
    size_t most;
    char *previous; /* address space for `most` records each, touched as needed */
    char *current;
    size_t previous_count;
    size_t count; /* of the current ones */
    size_t hint;  /* where in `previous` the next one is looked for first */
} smn_roster;

/* -ENOMEM. May be released in either case. */
int smn_roster_init(smn_roster *roster, size_t name_bytes, size_t record_bytes, size_t most);
void smn_roster_release(smn_roster *roster);

/* A new reading: there are no current records yet. */
void smn_roster_begin(smn_roster *roster);

/* A current record more, all zeros; NULL when there is no room. */
void *smn_roster_add(smn_roster *roster);

/* Of index < count. */
void *smn_roster_at(const smn_roster *roster, size_t index);

/* The current record of that name; NULL where there is none. */
void *smn_roster_find(const smn_roster *roster, const char *name);

/*
 * What the current record was at the last reading, for once: a kernel that is
 * asked while things go may show one twice, and it must not be counted twice.
 * NULL where it is new.
 */
void *smn_roster_take_before(smn_roster *roster, const void *record);

/* The current records become the previous ones. */
void smn_roster_keep(smn_roster *roster);

#endif

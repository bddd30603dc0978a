#include "roster.h"

#include <errno.h>
#include <string.h>

#include "reserve.h"

int smn_roster_init(smn_roster *roster, size_t name_bytes, size_t record_bytes, size_t most)
{
    *roster = (smn_roster){.name_bytes = name_bytes, .record_bytes = record_bytes, .most = most};
    roster->previous = smn_reserve(most * record_bytes);
    roster->current = smn_reserve(most * record_bytes);
    return roster->previous != NULL && roster->current != NULL ? 0 : -ENOMEM;
}

void smn_roster_release(smn_roster *roster)
{
    smn_unreserve(roster->previous, roster->most * roster->record_bytes);
    smn_unreserve(roster->current, roster->most * roster->record_bytes);
    *roster = (smn_roster){0};
}

void smn_roster_begin(smn_roster *roster)
{
    roster->count = 0;
    roster->hint = 0;
}

void *smn_roster_add(smn_roster *roster)
{
    if (roster->count == roster->most)
        return NULL;
    void *record = smn_roster_at(roster, roster->count++);
    memset(record, 0, roster->record_bytes);
    return record;
}

void *smn_roster_at(const smn_roster *roster, size_t index)
{
    return roster->current + index * roster->record_bytes;
}

void *smn_roster_find(const smn_roster *roster, const char *name)
{
    for (size_t i = 0; i < roster->count; i++) {
        char *candidate = smn_roster_at(roster, i);
        if (strncmp(candidate, name, roster->name_bytes) == 0)
            return candidate;
    }
    return NULL;
}

/* The kernel keeps the order of things, so the place behind the last one found is the best hint. */
void *smn_roster_take_before(smn_roster *roster, const void *record)
{
    for (size_t step = 0; step < roster->previous_count; step++) {
        size_t index = (roster->hint + step) % roster->previous_count;
        char *candidate = roster->previous + index * roster->record_bytes;
        if (memcmp(candidate, record, roster->name_bytes) == 0) {
            roster->hint = index + 1;
            *candidate = '\0';
            return candidate;
        }
    }
    return NULL;
}

void smn_roster_keep(smn_roster *roster)
{
    char *spare = roster->previous;
    roster->previous = roster->current;
    roster->current = spare;
    roster->previous_count = roster->count;
}

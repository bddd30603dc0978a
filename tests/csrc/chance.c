#include "chance.h"

#include <string.h>

enum {
    FLIP,
    REPLACE,
    INSERT,
    DELETE,
    TRUNCATE,
    DUPLICATE,
    OPERATIONS
};

/* What parsers look at. */
static const char telling[] = "0123456789 \t\n:|-+.cpuMem\0\xff";

static char telling_byte(chance_state *chance)
{
    return telling[chance_below(chance, sizeof telling - 1)];
}

static size_t damage(chance_state *chance, char *text, size_t length, size_t room)
{
    if (length == 0) {
        text[0] = telling_byte(chance);
        return 1;
    }
    size_t at = (size_t)chance_below(chance, length);
    size_t span = 1 + (size_t)chance_below(chance, length - at < 80 ? length - at : 80);
    switch (chance_below(chance, OPERATIONS)) {
    case FLIP:
        text[at] = (char)(text[at] ^ (1 << chance_below(chance, 8)));
        return length;
    case REPLACE:
        text[at] = telling_byte(chance);
        return length;
    case INSERT:
        if (length == room)
            return length;
        memmove(text + at + 1, text + at, length - at);
        text[at] = telling_byte(chance);
        return length + 1;
    case DELETE:
        memmove(text + at, text + at + span, length - at - span);
        return length - span;
    case TRUNCATE:
        return at;
    default: /* DUPLICATE */
        if (room - length < span)
            return length;
        memmove(text + at + span, text + at, length - at);
        return length + span;
    }
}

size_t chance_mutate(chance_state *chance, const char *text, size_t length, char *mutated)
{
    memcpy(mutated, text, length);
    size_t room = length * 2 + 16;
    size_t damaged = length;
    for (uint64_t left = 1 + chance_below(chance, 4); left > 0; left--)
        damaged = damage(chance, mutated, damaged, room);
    return damaged;
}

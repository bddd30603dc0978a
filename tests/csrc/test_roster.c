/* Things that come and go, known by name. */
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "roster.h"

enum {
    NAME_BYTES = 8,
    MOST = 5
};

typedef struct {
    char name[NAME_BYTES];
    int value;
} thing;

static void add(smn_roster *roster, const char *name, int value)
{
    thing *added = smn_roster_add(roster);
    REQUIRE(added != NULL);
    CHECK_INT(added->value, 0);
    CHECK_INT(added->name[0], 0);
    strncpy(added->name, name, sizeof added->name);
    added->value = value;
}

/* The value that the index-th current one had before; -1 where it is new. */
static int value_before(smn_roster *roster, size_t index)
{
    const thing *before = smn_roster_take_before(roster, smn_roster_at(roster, index));
    return before != NULL ? before->value : -1;
}

static void test_readings(void)
{
    smn_roster roster;
    REQUIRE(smn_roster_init(&roster, NAME_BYTES, sizeof(thing), MOST) == 0);
    smn_roster_begin(&roster);
    add(&roster, "a", 1);
    add(&roster, "b", 2);
    add(&roster, "12345678", 3); /* of full length */
    for (size_t i = 0; i < roster.count; i++)
        CHECK_INT(value_before(&roster, i), -1);
    smn_roster_keep(&roster);

    /* Another order, one is gone, one is new, one is there twice. */
    smn_roster_begin(&roster);
    add(&roster, "12345678", 30);
    add(&roster, "a", 10);
    add(&roster, "ab", 40);
    add(&roster, "a", 11);
    CHECK_INT(value_before(&roster, 0), 3);
    CHECK_INT(value_before(&roster, 1), 1);
    CHECK_INT(value_before(&roster, 2), -1);
    CHECK_INT(value_before(&roster, 3), -1);
    smn_roster_keep(&roster);

    /* A reading that fails half way leaves the last one as it was. */
    smn_roster_begin(&roster);
    add(&roster, "a", 100);
    smn_roster_begin(&roster);
    add(&roster, "ab", 400);
    CHECK_INT(value_before(&roster, 0), 40);
    smn_roster_release(&roster);
}

static void test_find(void)
{
    smn_roster roster;
    REQUIRE(smn_roster_init(&roster, NAME_BYTES, sizeof(thing), MOST) == 0);
    smn_roster_begin(&roster);
    CHECK(smn_roster_find(&roster, "a") == NULL);
    add(&roster, "a", 1);
    add(&roster, "ab", 2);
    CHECK(smn_roster_find(&roster, "a") == smn_roster_at(&roster, 0));
    CHECK(smn_roster_find(&roster, "ab") == smn_roster_at(&roster, 1));
    CHECK(smn_roster_find(&roster, "b") == NULL);
    smn_roster_release(&roster);
}

static void test_room(void)
{
    smn_roster roster;
    REQUIRE(smn_roster_init(&roster, NAME_BYTES, sizeof(thing), MOST) == 0);
    for (int reading = 0; reading < 3; reading++) {
        smn_roster_begin(&roster);
        for (int i = 0; i < MOST; i++) {
            char name[NAME_BYTES];
            snprintf(name, sizeof name, "%d", i);
            add(&roster, name, i);
            CHECK_INT(value_before(&roster, (size_t)i), reading == 0 ? -1 : i);
        }
        CHECK(smn_roster_add(&roster) == NULL);
        smn_roster_keep(&roster);
    }
    smn_roster_release(&roster);
}

int main(void)
{
    test_readings();
    test_find();
    test_room();
    return check_report();
}

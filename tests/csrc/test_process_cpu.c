/* What a tree of processes has used, when its members end in every way there is. */
#include <errno.h>

#include "chance.h"
#include "check.h"
#include "path.h"
#include "process_cpu.h"
#include "process_tree.h"
#include "relatives.h"

enum {
    ROOT = 10
};

/* Time stands: a search is made whenever the test says so. */
static uint64_t no_time(void *context)
{
    (void)context;
    return 1;
}

typedef struct {
    proc_tree tree;
    smn_text_buffer text;
    smn_clock clock;
    smn_process_tree members;
    smn_process_cpu cpu;
    uint64_t first_ticks;
} family;

static void search(family *it)
{
    it->members.due_ns = 0;
    CHECK_INT(smn_process_tree_search(&it->members), 0);
    smn_process_cpu_welcome(&it->cpu, &it->members);
}

static void settle(family *it)
{
    smn_process_cpu_settle(&it->cpu, &it->members);
    smn_process_tree_forget(&it->members);
    search(it);
}

static void look(family *it)
{
    CHECK_INT(smn_process_tree_read(&it->members), 0);
    settle(it);
}

static uint64_t used(const family *it)
{
    return it->cpu.ticks - it->first_ticks;
}

/* All are there, with their lists of children; the first is the root. */
static void begin(family *it, const relative *members, size_t count)
{
    tree_create(&it->tree);
    REQUIRE(smn_text_buffer_init(&it->text) == 0);
    it->clock = (smn_clock){.monotonic_ns = no_time};
    char list[16];
    for (size_t i = 0; i < count; i++) {
        relative_write(&it->tree, &members[i]);
        relative_have(&it->tree, members[i].pid, members[i].pid, "");
    }
    for (size_t i = 1; i < count; i++) { /* a thread for each child, whatever it says of threads */
        char digits[SMN_PATH_NUMBER_BYTES];
        const char *number = smn_path_number(digits, (uint64_t)members[i].pid);
        REQUIRE(SMN_PATH_JOIN(list, sizeof list, number, " "));
        relative_have(&it->tree, members[i].parent, members[i].pid, list);
    }
    const smn_environment environment = {
        .procfs = it->tree.root, .text = &it->text, .clock = &it->clock, .pid = ROOT};
    REQUIRE(smn_process_tree_init(&it->members, &environment) == 0);
    smn_process_cpu_init(&it->cpu, 100);
    look(it);
    CHECK_U64(it->members.count, count);
    it->first_ticks = it->cpu.ticks;
}

static void end(family *it)
{
    smn_process_tree_release(&it->members);
    smn_text_buffer_release(&it->text);
    tree_destroy(&it->tree);
}

#define BEGIN(it, members) begin(it, members, sizeof(members) / sizeof *(members))

/* ---- a child that ends -------------------------------------------------- */

/* What it used after it was last seen comes by way of its parent, once. */
static void test_waited_for(void)
{
    relative all[] = {
        {.pid = ROOT, .parent = 1, .user = 100, .threads = 2},
        {.pid = 20, .parent = ROOT, .user = 500, .system = 100, .waited_user = 50},
    };
    family it;
    BEGIN(&it, all);
    all[1].user += 8;
    relative_write(&it.tree, &all[1]);
    look(&it);
    CHECK_U64(used(&it), 8);
    relative_end(&it.tree, 20);
    all[0].waited_user = 561; /* 3 more than was seen */
    all[0].waited_system = 100;
    relative_write(&it.tree, &all[0]);
    look(&it);
    CHECK_U64(used(&it), 11);
    CHECK_U64(it.members.count, 1);
    look(&it);
    CHECK_U64(used(&it), 11);
    end(&it);
}

/* Children that lived and died between two looks are known by their parent alone. */
static void test_unseen_children(void)
{
    relative all[] = {
        {.pid = ROOT, .parent = 1, .threads = 2},
        {.pid = 20, .parent = ROOT, .threads = 2},
    };
    family it;
    BEGIN(&it, all);
    all[0].waited_user += 30;
    all[1].waited_system += 4;
    relative_write(&it.tree, &all[0]);
    relative_write(&it.tree, &all[1]);
    look(&it);
    CHECK_U64(used(&it), 34);
    /* Another one and a member that is waited for, in one interval. */
    relative_end(&it.tree, 20);
    all[0].waited_user += 7 + 4 + 2;
    relative_write(&it.tree, &all[0]);
    look(&it);
    CHECK_U64(used(&it), 34 + 7 + 2);
    end(&it);
}

/* A parent that ignores SIGCHLD never has the time of its children: what was seen stays. */
static void test_sigchld_ignored(void)
{
    relative all[] = {
        {.pid = ROOT, .parent = 1, .threads = 3},
        {.pid = 20, .parent = ROOT, .user = 500},
        {.pid = 21, .parent = ROOT, .user = 500},
    };
    family it;
    BEGIN(&it, all);
    all[1].user += 9;
    relative_write(&it.tree, &all[1]);
    look(&it);
    CHECK_U64(used(&it), 9);
    relative_end(&it.tree, 20);
    look(&it);
    CHECK_U64(used(&it), 9);
    look(&it);
    /* It changes its mind: what the first one had is not charged to the second for ever. */
    relative_end(&it.tree, 21);
    all[0].waited_user += 503;
    relative_write(&it.tree, &all[0]);
    look(&it);
    CHECK_U64(used(&it), 12);
    end(&it);
}

/* Its parent is read first and waits for it then: the time is there at the next reading only. */
static void test_waited_for_after_the_parent_was_read(void)
{
    relative all[] = {
        {.pid = ROOT, .parent = 1, .threads = 2},
        {.pid = 20, .parent = ROOT, .user = 500},
    };
    family it;
    BEGIN(&it, all);
    relative_end(&it.tree, 20);
    look(&it);
    CHECK_U64(used(&it), 0);
    all[0].waited_user += 504;
    relative_write(&it.tree, &all[0]);
    look(&it);
    CHECK_U64(used(&it), 4);
    all[0].waited_user += 6;
    relative_write(&it.tree, &all[0]);
    look(&it);
    CHECK_U64(used(&it), 10);
    end(&it);
}

/* It is read, then it ends and is waited for, and then its parent is read: counted once. */
static void test_waited_for_before_the_parent_is_read(void)
{
    relative all[] = {
        {.pid = ROOT, .parent = 1, .threads = 3},
        {.pid = 20, .parent = ROOT, .user = 500},
        {.pid = 21, .parent = ROOT, .user = 360000},
    };
    family it;
    BEGIN(&it, all);
    all[1].user += 5;
    relative_write(&it.tree, &all[1]);
    all[0].waited_user += 506;
    relative_write(&it.tree, &all[0]);
    CHECK_INT(smn_process_tree_read(&it.members), 0);
    relative_end(&it.tree, 20);
    settle(&it);
    CHECK_U64(used(&it), 6);
    CHECK_U64(it.members.count, 2);
    look(&it);
    CHECK_U64(used(&it), 6);
    end(&it);
}

/* The same with a parent that ends, too: the grandparent has all of it. */
static void test_generations_end_while_they_are_read(void)
{
    relative all[] = {
        {.pid = ROOT, .parent = 1, .threads = 2},
        {.pid = 20, .parent = ROOT, .user = 50, .threads = 2},
        {.pid = 30, .parent = 20, .user = 700},
    };
    family it;
    BEGIN(&it, all);
    all[0].waited_user += 752;
    relative_write(&it.tree, &all[0]);
    CHECK_INT(smn_process_tree_read(&it.members), 0);
    relative_end(&it.tree, 30);
    relative_end(&it.tree, 20);
    settle(&it);
    CHECK_U64(used(&it), 2);
    CHECK_U64(it.members.count, 1);
    look(&it);
    CHECK_U64(used(&it), 2);
    end(&it);
}

/* The child was waited for before its parent was read, and that before its own parent was. */
static void test_generations_end_one_after_the_other(void)
{
    relative all[] = {
        {.pid = ROOT, .parent = 1, .threads = 2},
        {.pid = 20, .parent = ROOT, .user = 50, .threads = 2},
        {.pid = 30, .parent = 20, .user = 700},
    };
    family it;
    BEGIN(&it, all);
    all[1].waited_user = 701;
    all[1].user += 1;
    all[0].waited_user = 754;
    relative_write(&it.tree, &all[0]);
    relative_write(&it.tree, &all[1]);
    CHECK_INT(smn_process_tree_read(&it.members), 0);
    relative_end(&it.tree, 30);
    relative_end(&it.tree, 20);
    settle(&it);
    CHECK_U64(used(&it), 4); /* 54 and 700, of which 750 were there before */
    look(&it);
    CHECK_U64(used(&it), 4);
    end(&it);
}

/* Gone in one interval, from the point of view of who reads: the same. */
static void test_parent_and_child_end_in_one_interval(void)
{
    relative all[] = {
        {.pid = ROOT, .parent = 1, .threads = 2},
        {.pid = 20, .parent = ROOT, .user = 50, .threads = 2},
        {.pid = 30, .parent = 20, .user = 700},
    };
    family it;
    BEGIN(&it, all);
    relative_end(&it.tree, 30);
    relative_end(&it.tree, 20);
    all[0].waited_user += 755;
    relative_write(&it.tree, &all[0]);
    look(&it);
    CHECK_U64(used(&it), 5);
    look(&it);
    CHECK_U64(used(&it), 5);
    end(&it);
}

/* A debt that its parent had when it ended is the grandparent's. */
static void test_debt_of_one_that_ends(void)
{
    relative all[] = {
        {.pid = ROOT, .parent = 1, .threads = 2},
        {.pid = 20, .parent = ROOT, .user = 50, .threads = 2},
        {.pid = 30, .parent = 20, .user = 700},
    };
    family it;
    BEGIN(&it, all);
    relative_end(&it.tree, 30);
    look(&it);
    CHECK_U64(used(&it), 0);
    relative_end(&it.tree, 20);
    all[0].waited_user += 753;
    relative_write(&it.tree, &all[0]);
    look(&it);
    CHECK_U64(used(&it), 3);
    end(&it);
}

/* ---- orphans ------------------------------------------------------------ */

/* Taken over by a reaper of ours (PR_SET_CHILD_SUBREAPER), which waits for it in the end. */
static void test_reaper_of_ours(void)
{
    relative all[] = {
        {.pid = ROOT, .parent = 1, .threads = 2},
        {.pid = 20, .parent = ROOT, .user = 50, .threads = 2},
        {.pid = 30, .parent = 20, .user = 700},
    };
    family it;
    BEGIN(&it, all);
    relative_end(&it.tree, 20);
    all[0].waited_user += 50;
    all[2].parent = ROOT;
    all[2].user += 4;
    relative_write(&it.tree, &all[0]);
    relative_write(&it.tree, &all[2]);
    look(&it);
    CHECK_U64(used(&it), 4);
    relative_end(&it.tree, 30);
    all[0].waited_user += 706;
    relative_write(&it.tree, &all[0]);
    look(&it);
    CHECK_U64(used(&it), 6);
    end(&it);
}

/* Read before its parent ended, and gone before it was read again. */
static void test_orphan_that_ends_before_it_says_whose_it_is(void)
{
    relative all[] = {
        {.pid = ROOT, .parent = 1, .threads = 2},
        {.pid = 20, .parent = ROOT, .user = 50, .threads = 2},
        {.pid = 30, .parent = 20, .user = 700},
    };
    family it;
    BEGIN(&it, all);
    relative_end(&it.tree, 20);
    all[0].waited_user += 50;
    relative_write(&it.tree, &all[0]);
    look(&it); /* 30 still says that its parent is 20 */
    CHECK_U64(used(&it), 0);
    relative_end(&it.tree, 30);
    all[0].waited_user += 708;
    relative_write(&it.tree, &all[0]);
    look(&it);
    CHECK_U64(used(&it), 8);
    end(&it);
}

/* ---- births ------------------------------------------------------------- */

/* It counts from its birth; and not again when it is waited for. */
static void test_born_and_waited_for(void)
{
    relative all[] = {{.pid = ROOT, .parent = 1, .threads = 2}};
    relative child = {.pid = 20, .parent = ROOT, .user = 12, .waited_user = 3, .start = LATER};
    family it;
    BEGIN(&it, all);
    relative_write(&it.tree, &child);
    relative_have(&it.tree, 20, 20, "");
    relative_have(&it.tree, ROOT, 20, "20 ");
    look(&it);
    CHECK_U64(used(&it), 15);
    relative_end(&it.tree, 20);
    relative_have(&it.tree, ROOT, 20, "");
    all[0].waited_user += 16;
    relative_write(&it.tree, &all[0]);
    look(&it);
    CHECK_U64(used(&it), 16);
    end(&it);
}

/* One that was there before, but is found late, brings none of its past along. */
static void test_found_late_and_waited_for(void)
{
    relative all[] = {{.pid = ROOT, .parent = 1, .threads = 2}};
    relative child = {.pid = 20, .parent = ROOT, .user = 100000};
    family it;
    BEGIN(&it, all);
    relative_write(&it.tree, &child);
    relative_have(&it.tree, 20, 20, "");
    relative_have(&it.tree, ROOT, 20, "20 ");
    look(&it);
    CHECK_U64(used(&it), 0);
    relative_end(&it.tree, 20);
    all[0].waited_user += 100002;
    relative_write(&it.tree, &all[0]);
    look(&it);
    CHECK_U64(used(&it), 2);
    end(&it);
}

/* On its way out it is listed for a moment: as good as gone. */
static void test_dead_state(void)
{
    relative all[] = {
        {.pid = ROOT, .parent = 1, .threads = 2},
        {.pid = 20, .parent = ROOT, .user = 500},
    };
    family it;
    BEGIN(&it, all);
    all[1].state = 'X';
    all[1].user += 2;
    all[0].waited_user += 502;
    relative_write(&it.tree, &all[0]);
    relative_write(&it.tree, &all[1]);
    look(&it);
    CHECK_U64(used(&it), 2);
    CHECK_U64(it.members.count, 1);
    end(&it);
}

/* A counter that falls is no time; it goes on from there. */
static void test_counter_that_falls(void)
{
    relative all[] = {{.pid = ROOT, .parent = 1, .user = 500, .waited_user = 90}};
    family it;
    BEGIN(&it, all);
    all[0].user = 10;
    all[0].waited_user = 5;
    relative_write(&it.tree, &all[0]);
    look(&it);
    CHECK_U64(used(&it), 0);
    all[0].user = 13;
    all[0].waited_user = 6;
    relative_write(&it.tree, &all[0]);
    look(&it);
    CHECK_U64(used(&it), 4);
    end(&it);
}

/* ---- by chance ---------------------------------------------------------- */

enum {
    LIVES = 24
};

/*
 * Processes that work, multiply, end and are waited for at random moments, a
 * reading falling anywhere in between: in the end the sum is all that they did.
 */
typedef struct {
    relative all[LIVES];
    bool is_alive[LIVES];
    int count;
    uint64_t done;
} tribe;

static void write_lists(family *it, const tribe *world)
{
    for (int parent = 0; parent < world->count; parent++) {
        if (!world->is_alive[parent])
            continue;
        char list[LIVES * 16] = "";
        char digits[SMN_PATH_NUMBER_BYTES];
        for (int child = 1; child < world->count; child++) {
            if (!world->is_alive[child] || world->all[child].parent != world->all[parent].pid)
                continue;
            size_t at = strlen(list);
            uint64_t pid = (uint64_t)world->all[child].pid;
            REQUIRE(SMN_PATH_JOIN(list + at, sizeof list - at, smn_path_number(digits, pid), " "));
        }
        relative_write(&it->tree, &world->all[parent]);
        relative_have(&it->tree, world->all[parent].pid, world->all[parent].pid, list);
    }
}

static int index_of(const tribe *world, int pid)
{
    for (int i = 0; i < world->count; i++) {
        if (world->all[i].pid == pid)
            return i;
    }
    return 0;
}

/* Ends one: its parent waits for it, and its children are the root's, which is their reaper. */
static void wait_for(family *it, tribe *world, int index)
{
    relative *gone = &world->all[index];
    relative *parent = &world->all[index_of(world, gone->parent)];
    parent->waited_user += gone->user + gone->waited_user;
    world->is_alive[index] = false;
    relative_end(&it->tree, gone->pid);
    for (int i = 1; i < world->count; i++) {
        if (world->is_alive[i] && world->all[i].parent == gone->pid)
            world->all[i].parent = ROOT;
    }
}

static void live(family *it, tribe *world, chance_state *chance)
{
    int index = (int)chance_below(chance, (uint64_t)world->count);
    if (!world->is_alive[index])
        return;
    uint64_t what = chance_below(chance, 10);
    if (what == 0 && world->count < LIVES) {
        int child = world->count++;
        world->all[child] = (relative){.pid = ROOT + 10 + child,
                                       .parent = world->all[index].pid,
                                       .start = LATER + (uint64_t)child};
        world->is_alive[child] = true;
    } else if (what == 1 && index > 0) {
        wait_for(it, world, index);
    } else {
        uint64_t ticks = chance_below(chance, 50);
        world->all[index].user += ticks;
        world->done += ticks;
    }
    write_lists(it, world);
}

/* As if the reading of some members had been made only now. */
static void read_some_later(family *it, const tribe *world, chance_state *chance)
{
    for (size_t i = 0; i < it->members.count; i++) {
        smn_process *member = &it->members.processes[i];
        int index = index_of(world, member->now.pid);
        if (chance_below(chance, 2) == 0)
            continue;
        member->is_there = world->is_alive[index];
        if (member->is_there) {
            member->now.own_ticks = world->all[index].user;
            member->now.waited_ticks = world->all[index].waited_user;
            member->now.parent = world->all[index].parent;
        } else { /* nothing was read of it in this reading */
            member->now.own_ticks = member->own_before;
            member->now.waited_ticks = member->waited_before;
        }
    }
}

static void read_while_they_live(family *it, tribe *world, chance_state *chance)
{
    CHECK_INT(smn_process_tree_read(&it->members), 0);
    for (uint64_t events = chance_below(chance, 4); events > 0; events--) {
        live(it, world, chance);
        read_some_later(it, world, chance);
    }
    live(it, world, chance);
    settle(it);
}

static void test_random_lives(void)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        check_case("seed %llu", (unsigned long long)seed);
        chance_state chance = {seed};
        tribe world = {.all = {{.pid = ROOT, .parent = 1}}, .is_alive = {true}, .count = 1};
        family it;
        begin(&it, world.all, 1);
        uint64_t before = 0;
        for (int step = 0; step < 120; step++) {
            live(&it, &world, &chance);
            if (chance_below(&chance, 3) == 0)
                read_while_they_live(&it, &world, &chance);
            CHECK(used(&it) >= before && used(&it) <= world.done);
            before = used(&it);
        }
        look(&it);
        look(&it);
        CHECK_U64(used(&it), world.done);
        end(&it);
    }
    check_case(NULL);
}

int main(void)
{
    test_waited_for();
    test_unseen_children();
    test_sigchld_ignored();
    test_waited_for_after_the_parent_was_read();
    test_waited_for_before_the_parent_is_read();
    test_generations_end_while_they_are_read();
    test_generations_end_one_after_the_other();
    test_parent_and_child_end_in_one_interval();
    test_debt_of_one_that_ends();
    test_reaper_of_ours();
    test_orphan_that_ends_before_it_says_whose_it_is();
    test_born_and_waited_for();
    test_found_late_and_waited_for();
    test_dead_state();
    test_counter_that_falls();
    test_random_lives();
    return check_report();
}

#include "governor.h"

#include <math.h>

#include "check.h"
#include "rig.h"

static const uint64_t SECOND = 1000000000;
static const uint64_t MS = 1000000;

/* The share of a core that loads take at their pace. */
static double share_of(const smn_governor *governor, const smn_load *loads, int count)
{
    double share = 0.0;
    for (int i = 0; i < count; i++)
        share += loads[i].cost_ns / smn_load_interval_ticks(&loads[i], governor) /
                 (double)governor->interval_ns;
    return share;
}

static void count_readings(smn_load *load, int readings, uint64_t cost_ns)
{
    for (int i = 0; i < readings; i++)
        smn_load_count(load, cost_ns);
}

static void test_inside_the_budget_nothing_changes(void)
{
    smn_governor governor;
    smn_governor_init(&governor, 0.05, MS, 1000);
    smn_load loads[] = {smn_load_of(1), smn_load_of(1000)};
    count_readings(&loads[0], 1000, 49000);
    count_readings(&loads[1], 1, 500000);
    smn_governor_decide(&governor, loads, 2, SECOND);
    CHECK(!smn_load_is_slowed(&loads[0]));
    CHECK(!smn_load_is_slowed(&loads[1]));
    CHECK_INT(smn_load_next_tick(&loads[0], &governor, 7), 8);
    CHECK_INT(smn_load_next_tick(&loads[1], &governor, 7), 1000);
    CHECK_DOUBLE(smn_load_interval_ticks(&loads[1], &governor), 1000.0);
}

static void test_the_most_expensive_give_way(void)
{
    smn_governor governor;
    smn_governor_init(&governor, 0.05, MS, 1000);
    /* 50 %, 20 % and 1 % of a core. */
    smn_load loads[] = {smn_load_of(1), smn_load_of(10), smn_load_of(1)};
    count_readings(&loads[0], 100, 500000);
    count_readings(&loads[1], 100, 2000000);
    count_readings(&loads[2], 100, 10000);
    smn_governor_decide(&governor, loads, 3, SECOND);
    CHECK(!smn_load_is_slowed(&loads[2]));
    /* The other two share what is left, 4 %: 20 ms a second each. */
    CHECK_INT(loads[0].per_window, 40);
    CHECK_INT(loads[1].per_window, 10);
    CHECK_DOUBLE(share_of(&governor, loads, 3), 0.05);
}

static void test_it_comes_back(void)
{
    smn_governor governor;
    smn_governor_init(&governor, 0.05, MS, 1000);
    smn_load load = smn_load_of(1);
    count_readings(&load, 100, 500000);
    smn_governor_decide(&governor, &load, 1, SECOND);
    CHECK(smn_load_is_slowed(&load));
    count_readings(&load, 100, 10000);
    smn_governor_decide(&governor, &load, 1, 2 * SECOND);
    CHECK(!smn_load_is_slowed(&load));
    /* A second without a reading tells nothing new. */
    smn_governor_decide(&governor, &load, 1, 3 * SECOND);
    CHECK_DOUBLE(load.cost_ns, 10000.0);
}

static void test_a_single_reading_moves_the_estimate_a_little(void)
{
    smn_governor governor;
    smn_governor_init(&governor, 0.05, MS, 1000);
    smn_load load = smn_load_of(1);
    count_readings(&load, 1, 1000);
    smn_governor_decide(&governor, &load, 1, SECOND);
    CHECK_DOUBLE(load.cost_ns, 1000.0);
    count_readings(&load, 1, 9000);
    smn_governor_decide(&governor, &load, 1, 2 * SECOND);
    CHECK_DOUBLE(load.cost_ns, 3000.0);
}

/* The ticks of one pace, over some windows: how many there are, and that each is a window's end. */
static void test_readings_are_spread_and_end_the_window(void)
{
    smn_governor governor;
    smn_governor_init(&governor, 0.05, MS, 10);
    for (uint32_t per_window = 1; per_window <= 10; per_window++) {
        smn_load load = {.usual_ticks = 1, .per_window = per_window, .every_windows = 1};
        check_case("%u readings in ten ticks", per_window);
        uint64_t tick = 0;
        uint64_t longest = 0;
        for (uint32_t i = 1; i <= 3 * per_window; i++) {
            uint64_t next = smn_load_next_tick(&load, &governor, tick);
            CHECK(next > tick);
            longest = next - tick > longest ? next - tick : longest;
            tick = next;
            if (i % per_window == 0)
                CHECK_INT(tick, 10 * (i / per_window));
        }
        CHECK(longest <= (10 + per_window - 1) / per_window + 1);
    }
    check_case(NULL);
    smn_load rare = {.usual_ticks = 1, .per_window = 1, .every_windows = 3};
    CHECK_INT(smn_load_next_tick(&rare, &governor, 0), 30);
    CHECK_INT(smn_load_next_tick(&rare, &governor, 29), 30);
    CHECK_INT(smn_load_next_tick(&rare, &governor, 30), 60);
    CHECK_INT(smn_load_next_tick(&rare, &governor, 65), 90); /* late, as ticks may be */
    CHECK_DOUBLE(smn_load_interval_ticks(&rare, &governor), 30.0);
}

static void test_any_costs_stay_inside_the_budget(void)
{
    static const double costs[] = {1.0, 1e3, 1e5, 5e6, 1e9};
    static const uint64_t ticks[] = {1, 7, 1000, 5000};
    static const uint64_t windows[] = {1, 2, 10, 1000};
    enum {
        COSTS = sizeof costs / sizeof *costs,
        TICKS = sizeof ticks / sizeof *ticks
    };
    for (int w = 0; w < 4; w++) {
        for (int i = 0; i < COSTS * TICKS * COSTS * TICKS; i++) {
            smn_governor governor;
            smn_governor_init(&governor, 0.05, MS, windows[w]);
            smn_load loads[] = {smn_load_of(ticks[i % TICKS]),
                                smn_load_of(ticks[i / TICKS / COSTS % TICKS])};
            loads[0].cost_ns = costs[i / TICKS % COSTS];
            loads[1].cost_ns = costs[i / TICKS / COSTS / TICKS];
            smn_governor_decide(&governor, loads, 2, SECOND);
            bool slowed = smn_load_is_slowed(&loads[0]) || smn_load_is_slowed(&loads[1]);
            if (slowed && share_of(&governor, loads, 2) > 0.05 * (1.0 + 1e-8)) {
                check_case("window %d, case %d", (int)windows[w], i);
                CHECK(!"inside the budget");
            }
        }
    }
    check_case(NULL);
}

static void test_when_it_is_time(void)
{
    smn_governor governor;
    smn_governor_init(&governor, 0.05, MS, 10);
    CHECK(!smn_governor_is_due(&governor, SECOND - 1));
    CHECK(smn_governor_is_due(&governor, SECOND));
    governor.spent_ns = 50 * MS - 1;
    CHECK(!smn_governor_is_due(&governor, 10 * MS));
    governor.spent_ns = 50 * MS;
    CHECK(smn_governor_is_due(&governor, 10 * MS));
    smn_governor_init(&governor, 0.0, MS, 10);
    governor.spent_ns = SECOND;
    CHECK(!smn_governor_is_due(&governor, 10 * SECOND)); /* no budget: as it was wanted */
}

/* ---- in the sampler ----------------------------------------------------- */

static smn_counters counters_of(const sampler_rig *rig)
{
    smn_counters counters;
    CHECK_INT(smn_sampler_counters(rig->sampler, &counters), 0);
    return counters;
}

/* cpu and memory, each of which takes 1 ms of CPU time at a tick of 10 ms. */
static void test_a_sampler_slows_down_and_comes_back(void)
{
    sampler_rig rig;
    rig_prepare(&rig);
    rig.overhead_budget = 0.05;
    rig_create(&rig, "cpu,memory", 10 * MS, 100);
    CHECK(isnan(counters_of(&rig).overhead_share));
    atomic_store(&rig.clock.reading_cost_ns, MS);
    REQUIRE(smn_sampler_start(rig.sampler) == 0);
    rig_tick(&rig, 25); /* 50 ms of CPU time are spent by then */
    CHECK_INT(counters_of(&rig).slowed_sources, 2);
    CHECK_INT(rig_source(&rig, "cpu").calls, 26);
    CHECK_INT(rig_source(&rig, "cpu").usual_interval_ns, 10 * MS);
    CHECK_INT(rig_source(&rig, "cpu").interval_ns, 40 * MS); /* 2.5 % of a core for each */
    rig_tick(&rig, 75);
    CHECK_INT(rig_source(&rig, "cpu").calls, 26 + 19); /* at ticks 28, 32 … 100 */
    CHECK_INT(rig_take(&rig), 0);
    CHECK_INT(rig.window.samples, 100);
    CHECK_DOUBLE(rig_statistics(&rig, "system_memory_usage_percentage")->last, 25.0);
    rig_tick(&rig, 125); /* decisions come at ticks 125 and 225 */
    CHECK_DOUBLE(counters_of(&rig).overhead_share, 0.05);

    atomic_store(&rig.clock.reading_cost_ns, MS / 100);
    rig_tick(&rig, 100);
    CHECK_INT(counters_of(&rig).slowed_sources, 0);
    CHECK_INT(rig_source(&rig, "cpu").interval_ns, 10 * MS);
    uint64_t calls = rig_source(&rig, "cpu").calls;
    rig_tick(&rig, 10);
    CHECK_INT(rig_source(&rig, "cpu").calls, calls + 10);
    rig_close(&rig);
}

/* Windows of a tick: what is slowed down is absent from most of them, and in the last. */
static void test_short_windows_go_without(void)
{
    sampler_rig rig;
    rig_prepare(&rig);
    rig.overhead_budget = 0.05;
    rig_create(&rig, "memory", 10 * MS, 1);
    atomic_store(&rig.clock.reading_cost_ns, 5 * MS);
    REQUIRE(smn_sampler_start(rig.sampler) == 0);
    rig_tick(&rig, 20);
    for (int tick = 1; tick <= 20; tick++) {
        check_case("tick %d", tick);
        CHECK_INT(rig_take(&rig), 0);
        bool has_value = tick <= 10 || tick == 20; /* every tenth, from the tenth on */
        CHECK(isnan(rig_statistics(&rig, "system_memory_usage_percentage")->mean) == !has_value);
    }
    check_case(NULL);
    rig_tick(&rig, 1);
    CHECK_INT(rig_take(&rig), 0);
    CHECK_INT(smn_sampler_stop(rig.sampler, -1), 0);
    CHECK_INT(rig_source(&rig, "memory").calls, 1 + 10 + 1 + 1);
    rig_close(&rig);
}

int main(void)
{
    test_inside_the_budget_nothing_changes();
    test_the_most_expensive_give_way();
    test_it_comes_back();
    test_a_single_reading_moves_the_estimate_a_little();
    test_readings_are_spread_and_end_the_window();
    test_any_costs_stay_inside_the_budget();
    test_when_it_is_time();
    test_a_sampler_slows_down_and_comes_back();
    test_short_windows_go_without();
    return check_report();
}

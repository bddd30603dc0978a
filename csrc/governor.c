#include "governor.h"

#include <math.h>

/* So that five readings are not four because of what a division lost. */
static const double ROUNDING = 1e-9;

/* So many readings tell what one costs; fewer move the estimate a little. */
static const double READINGS_THAT_TELL = 4.0;

void smn_governor_init(smn_governor *governor, double budget, uint64_t interval_ns,
                       uint64_t window_ticks)
{
    *governor = (smn_governor){
        .budget = budget,
        .interval_ns = interval_ns,
        .window_ticks = window_ticks,
    };
}

smn_load smn_load_of(uint64_t usual_ticks)
{
    return (smn_load){.usual_ticks = usual_ticks, .every_windows = 1};
}

/* ---- when a load is read ------------------------------------------------ */

/* As usual: at multiples of its own interval, and at the end of each window. */
static double usual_readings_a_tick(const smn_load *load, uint64_t window_ticks)
{
    if (load->usual_ticks >= window_ticks)
        return 1.0 / (double)window_ticks;
    double ends = window_ticks % load->usual_ticks != 0 ? 1.0 / (double)window_ticks : 0.0;
    return 1.0 / (double)load->usual_ticks + ends;
}

uint64_t smn_load_usual_tick(const smn_load *load, uint64_t tick)
{
    return (tick / load->usual_ticks + 1) * load->usual_ticks;
}

uint64_t smn_load_next_tick(const smn_load *load, const smn_governor *governor, uint64_t tick)
{
    uint64_t window = governor->window_ticks;
    if (!smn_load_is_slowed(load))
        return smn_load_usual_tick(load, tick);
    if (load->every_windows > 1)
        return (tick / (window * load->every_windows) + 1) * window * load->every_windows;
    /* The k-th of n readings is at the first tick that is not before k/n of the window. */
    uint64_t in_window = tick % window;
    uint64_t k = in_window * load->per_window / window + 1;
    return tick - in_window + (window * k + load->per_window - 1) / load->per_window;
}

double smn_load_interval_ticks(const smn_load *load, const smn_governor *governor)
{
    if (!smn_load_is_slowed(load))
        return (double)load->usual_ticks;
    double windows = (double)load->every_windows / (double)load->per_window;
    return windows * (double)governor->window_ticks;
}

/* ---- decisions ---------------------------------------------------------- */

bool smn_governor_is_due(const smn_governor *governor, uint64_t now_ns)
{
    if (governor->budget <= 0.0)
        return false;
    return now_ns - governor->decided_ns >= SMN_GOVERNOR_PERIOD_NS ||
           (double)governor->spent_ns >= governor->budget * (double)SMN_GOVERNOR_PERIOD_NS;
}

static void estimate(smn_load *load)
{
    if (load->lately_calls == 0)
        return;
    double mean_ns = (double)load->lately_ns / (double)load->lately_calls;
    double weight = fmin(1.0, (double)load->lately_calls / READINGS_THAT_TELL);
    load->cost_ns += (mean_ns - load->cost_ns) * (load->cost_ns > 0.0 ? weight : 1.0);
    load->lately_calls = 0;
    load->lately_ns = 0;
}

/* The share of a core that a load takes when it is read as usual. */
static double usual_share(const smn_load *load, const smn_governor *governor)
{
    return load->cost_ns * usual_readings_a_tick(load, governor->window_ticks) /
           (double)governor->interval_ns;
}

/*
 * The largest share that a load may have, such that all of them take the budget:
 * those that need less leave the rest to the others. INFINITY: there is enough.
 */
static double fair_share(const smn_governor *governor, const smn_load *loads, int count)
{
    double fair = 0.0;
    for (int round = 0; round <= count; round++) {
        double left = governor->budget;
        int above = 0;
        for (int i = 0; i < count; i++) {
            double share = usual_share(&loads[i], governor);
            if (share > fair)
                above++;
            else
                left -= share;
        }
        if (above == 0)
            return INFINITY;
        if (left / above <= fair)
            break;
        fair = left / above;
    }
    return fair;
}

static void set_pace(smn_load *load, const smn_governor *governor, double share)
{
    double a_window = share * (double)governor->interval_ns / load->cost_ns *
                      (double)governor->window_ticks * (1.0 + ROUNDING);
    load->per_window = a_window >= 1.0 ? (uint32_t)a_window : 1;
    load->every_windows = a_window >= 1.0 ? 1 : (uint64_t)ceil(fmin(1.0 / a_window, 1e9));
}

void smn_governor_decide(smn_governor *governor, smn_load *loads, int count, uint64_t now_ns)
{
    for (int i = 0; i < count; i++)
        estimate(&loads[i]);
    double fair = fair_share(governor, loads, count);
    for (int i = 0; i < count; i++) {
        loads[i].per_window = 0;
        loads[i].every_windows = 1;
        if (usual_share(&loads[i], governor) > fair)
            set_pace(&loads[i], governor, fair);
    }
    governor->decided_ns = now_ns;
    governor->spent_ns = 0;
}

"""CPU of the sampling thread for one wake-up, at 100 Hz and at 1 kHz.

The floor is bare_loop.c: the same wake-ups and the same raw reads, nothing parsed or stored. Ours
is the thread `smn-host` of a sampler with the four host sources whose windows are drained. The
psutil backend, psutil called directly and stock MLflow (its thread `SystemMetricsMonitor`, SQLite
store) are Python threads that do the same. All of it is the scheduler's count of the thread's CPU
time, divided by the wake-ups that there were: stock makes fewer than asked, so a note gives the CPU
time per second too.
"""

from __future__ import annotations

from functools import partial

from benchmarks.bench import Bench
from benchmarks.programs import compile_program, run_program
from benchmarks.report import COLUMNS, Result, Row, at_most, number
from benchmarks.rounds import (
    BARE,
    NATIVE,
    PSUTIL,
    PSUTIL_BACKEND,
    STOCK,
    Figures,
    Samples,
    Turn,
    back_and_forth,
)

RATES = (100.0, 1000.0)
SOURCES = "cpu,memory,disk_space,network"
FIGURE = "cpu_us_per_tick"
TARGET = at_most(1.15)
TURN_SECONDS = 1.0
"""Short, so that neighbours see the same machine, yet the end of a window is in every turn."""


def bare_loop(bench: Bench, rate: float, seconds: float) -> Figures:
    """One run of the floor."""
    program = compile_program("bare_loop", bench.folder)
    cpu_ns, wake_ups = run_program(program, rate, seconds, seconds=seconds)
    microseconds = cpu_ns / wake_ups / 1e3
    return {FIGURE: microseconds, "core_percent": microseconds * rate / 1e4, "ticks": wake_ups}


def sampler(bench: Bench, backend: str, rate: float) -> Figures:
    """One run of our sampler."""
    child = bench.serving("sampler", backend, SOURCES)
    return child.ask(rate, TURN_SECONDS, seconds=TURN_SECONDS)


def stock(bench: Bench, rate: float, seconds: float) -> Figures:
    """One run of MLflow's monitor."""
    settings = bench.on_sqlite(STOCK, rate, round(rate))
    return bench.child("stock_monitor", seconds, seconds=seconds, settings=settings)


def turns(bench: Bench, rate: float) -> list[Turn]:
    """A round: bare and native next to each other, again and again, the others in between."""
    pair = back_and_forth(
        (BARE, partial(bare_loop, bench, rate, TURN_SECONDS)),
        (NATIVE, partial(sampler, bench, "native", rate)),
    )
    direct = partial(bench.child, "psutil_loop", rate, TURN_SECONDS, seconds=TURN_SECONDS)
    others: list[Turn] = [
        (PSUTIL, direct),
        (PSUTIL_BACKEND, partial(sampler, bench, "psutil", rate)),
        (STOCK, partial(stock, bench, rate, TURN_SECONDS)),
    ]
    if bench.quick:
        return [*pair, *others]
    return [turn for other in others for turn in (*pair, other)]


def row(rate: float, samples: Samples) -> Row:
    """The line of one rate."""
    ratio = samples.ratio(NATIVE, BARE, FIGURE)
    figures = samples.medians(FIGURE, COLUMNS)
    name = f"sampling thread, {rate:g} Hz"
    return Row(name, "µs/wake-up", figures, ratio, TARGET, ratio)


def note(rate: float, samples: Samples) -> str:
    """What the table can't show: CPU time per second, where stock makes fewer wake-ups."""
    shares = samples.medians("core_percent", COLUMNS)
    text = ", ".join(f"{name} {number(share)} %" for name, share in shares.items())
    if STOCK in shares and BARE in shares:
        text += f"; stock is {number(shares[STOCK] / shares[BARE])} times the bare loop"
    return f"at {rate:g} Hz, of a core: {text}"


def run(bench: Bench) -> Result:
    """Measures both rates."""
    samples = {f"{rate:g} Hz": bench.alternate(turns(bench, rate)) for rate in RATES}
    by_rate = list(zip(RATES, samples.values(), strict=True))
    rows = [row(rate, found) for rate, found in by_rate]
    return Result(rows, samples, [note(rate, found) for rate, found in by_rate])

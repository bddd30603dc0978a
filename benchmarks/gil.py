"""What sampling at 100 Hz with 1 s windows does to a pure-Python training loop.

The main thread of a run iterates over about 0.1 ms of pure Python, with the monitor off, on and off
again, in one process that logs to the MLflow server. Compared are p99.9 of the time of an
iteration, where waits for the GIL show, and the iterations a second. The waits themselves are
counted too: how often the thread went to sleep, which a loop that only computes does for the GIL.
"""

from __future__ import annotations

from functools import partial

from benchmarks.bench import Bench
from benchmarks.report import Result, Row, at_least, at_most
from benchmarks.rounds import NATIVE, Figures, named
from benchmarks.variants import MONITORED, check_monitor

SLOWEST = at_most(1.1)
THROUGHPUT = at_least(0.98)
WAITS = "waits_per_second"


def loop(bench: Bench, variant: str, seconds: float) -> Figures:
    """One process: off, on, off."""
    settings = bench.on_server(variant)
    figures = bench.child("gil_loop", seconds, seconds=2 * seconds, settings=settings)
    return check_monitor(variant, figures)


def run(bench: Bench) -> Result:
    """Measures each monitor against itself switched off."""
    # Long enough for the second batch of a monitor that sends one every five seconds.
    seconds = bench.seconds(6.5, 2.5)
    turns = {name: partial(loop, bench, name, seconds) for name in MONITORED}
    samples = bench.alternate(named(turns))
    slowest = samples.medians("p999_ratio", MONITORED)
    throughput = samples.medians("throughput_ratio", MONITORED)
    ours = slowest.get(NATIVE), throughput.get(NATIVE)
    rows = [
        Row("Python loop, p99.9", "on ÷ off", slowest, ours[0], SLOWEST, ours[0]),
        Row("Python loop, throughput", "on ÷ off", throughput, ours[1], THROUGHPUT, ours[1]),
        Row("Python loop, waits for the GIL", "1/s", samples.medians(WAITS, MONITORED)),
    ]
    return Result(rows, {"loops": samples})

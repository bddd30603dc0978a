"""Windows that arrive at 1 kHz with 1 s windows, on MLflow's embedded SQLite store.

A run of unmodified MLflow code sleeps for ten seconds; afterwards its history is read back. A
window counts if it covers at least half a second, so a rest at the end is not one of the ten, and
windows that ran together count once.
"""

from __future__ import annotations

from functools import partial

from benchmarks.bench import WINDOW_SECONDS, Bench
from benchmarks.report import Result, Row, Target
from benchmarks.rounds import NATIVE, Figures, alternate, named
from benchmarks.variants import MONITORED, check_monitor

RATE = 1000.0
MOST_ROUNDS = 2
"""It is counted, not timed: two rounds say what five would."""


def sampled_run(bench: Bench, variant: str, seconds: float) -> Figures:
    """One run on a store of its own."""
    settings = bench.on_sqlite(variant, RATE, round(RATE * WINDOW_SECONDS))
    arguments = (seconds, WINDOW_SECONDS)
    figures = bench.child("mlflow_run", *arguments, seconds=seconds, settings=settings)
    return check_monitor(variant, figures)


def run(bench: Bench) -> Result:
    """Counts for each monitor."""
    seconds = bench.seconds(10.0, 4.0)
    expected = round(seconds / WINDOW_SECONDS)
    turns = named({name: partial(sampled_run, bench, name, seconds) for name in MONITORED})
    samples = alternate(min(bench.rounds, MOST_ROUNDS), turns, bench.announce)
    figures = samples.medians("full_windows", MONITORED)
    target = Target(expected, False, f"{expected} of {expected}")
    measure = "windows that arrive, 1 kHz"
    row = Row(measure, f"of {expected}", figures, None, target, figures.get(NATIVE))
    return Result([row], {"runs": samples})

"""CPU that monitoring adds to the training process: 100 Hz, 1 s windows, MLflow server over HTTP.

The process does nothing but `with mlflow.start_run(): time.sleep(…)`. Measured is all its CPU time
from the moment `start_run` has returned to the moment the run has ended, so the thread that
samples, the requests and the end of the run are in it. The same with metrics off is subtracted.
"""

from __future__ import annotations

from functools import partial

from benchmarks.bench import WINDOW_SECONDS, Bench
from benchmarks.report import Result, Row, at_least
from benchmarks.rounds import NATIVE, OFF, STOCK, Figures, Samples, named
from benchmarks.variants import MONITORED, VARIANTS, check_monitor

TARGET = at_least(10)
SMALLEST_PERCENT = 0.01
"""Less than that of a core can't be told from nothing, so nothing is divided by less."""


def sampled_run(bench: Bench, variant: str, seconds: float) -> Figures:
    """One run against the server."""
    figures = bench.child(
        "mlflow_run",
        *(seconds, WINDOW_SECONDS, bench.server.access_log),
        seconds=seconds,
        settings=bench.on_server(variant),
    )
    check_monitor(variant, figures)
    figures["core_percent"] = figures["cpu_seconds"] / seconds * 100
    return figures


def server_runs(bench: Bench) -> Samples:
    """Runs of all variants; `requests_per_window` looks at the same ones."""

    def measure() -> Samples:
        seconds = bench.seconds(10.0, 5.0)
        turns = {name: partial(sampled_run, bench, name, seconds) for name in VARIANTS}
        return bench.alternate(named(turns))

    return bench.server_runs(measure)


def added(sampled: Figures, off: Figures) -> float:
    """What a monitor added, in percent of a core."""
    return sampled["core_percent"] - off["core_percent"]


def run(bench: Bench) -> Result:
    """Measures what each monitor adds."""
    samples = server_runs(bench)
    found = {name: samples.paired(name, OFF, added) for name in MONITORED}
    figures = {name: value for name, value in found.items() if value is not None}
    ratio = None
    if STOCK in figures and NATIVE in figures:
        ratio = figures[STOCK] / max(figures[NATIVE], SMALLEST_PERCENT)
    row = Row("CPU added, 100 Hz, server", "% of a core", figures, ratio, TARGET, ratio)
    off = samples.median(OFF, "core_percent")
    notes = [] if off is None else [f"ratio is stock ÷ ours; metrics off: {off:.2f} % of a core"]
    return Result([row], {"server runs": samples}, notes)

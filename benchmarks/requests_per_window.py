"""Requests that reach the MLflow server for each window that is logged: 100 Hz, 1 s windows.

Counted in the server's access log, from the moment `start_run` has returned to the moment the run
has ended; the request that ends the run is in it. The runs are those of `mlflow_overhead`.
"""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.mlflow_overhead import server_runs
from benchmarks.report import Result, Row, at_most
from benchmarks.rounds import NATIVE, OFF, Samples
from benchmarks.variants import MONITORED

TARGET = at_most(1)


def per_window(samples: Samples, variant: str) -> float | None:
    """Requests for each window; a run without a window counts as one."""
    return samples.paired(
        variant, variant, lambda turn, _: turn["requests"] / max(turn["windows"], 1)
    )


def note(samples: Samples) -> str:
    """What was divided by what."""
    requests = samples.medians("requests", (OFF, *MONITORED))
    windows = samples.medians("windows", MONITORED)
    parts = [f"{name} {count:g} / {windows.get(name, 0):g}" for name, count in requests.items()]
    return "requests / windows of a run: " + ", ".join(parts)


def run(bench: Bench) -> Result:
    """Divides requests by windows, run by run."""
    samples = server_runs(bench)
    found = {name: per_window(samples, name) for name in MONITORED}
    figures = {name: value for name, value in found.items() if value is not None}
    row = Row("requests per window", "count", figures, None, TARGET, figures.get(NATIVE))
    return Result([row], {}, [note(samples)] if figures else [])

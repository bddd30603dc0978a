"""mlflow_run SECONDS WINDOW_SECONDS [ACCESS_LOG]: a run of unmodified MLflow code that sleeps.

Which monitor samples is decided by the environment alone. Prints the CPU time of the process from
the moment `start_run` has returned to the moment `end_run` has, the requests that the server's
access log gained in between, and the windows that can be read back afterwards.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import mlflow
from mlflow.tracking import MlflowClient

from benchmarks.children.monitor import monitor_of

KEY = "system/cpu_utilization_percentage"


def requests_in(access_log: Path | None) -> int:
    """Requests to the tracking API that the server has written to its log."""
    return access_log.read_bytes().count(b"/api/") if access_log else 0


def windows_of(run_id: str, start: float, window_seconds: float) -> dict[str, float]:
    """Windows that arrived, and those of them that cover at least half of a window's time.

    A metric has the time of its window's end. A late monitor has few windows, each long; a rest at
    the end of a run is a window but not one of those that were asked for.
    """
    history = MlflowClient().get_metric_history(run_id, KEY)
    ends = sorted(metric.timestamp / 1e3 for metric in history)
    gaps = [end - before for before, end in zip([start, *ends], ends, strict=False)]
    return {
        "windows": len(ends),
        "full_windows": sum(gap >= window_seconds / 2 for gap in gaps),
        "longest_gap_seconds": max(gaps, default=0.0),
    }


def main(seconds: float, window_seconds: float, access_log: Path | None) -> None:
    """Runs, sleeps, ends, and prints what it took."""
    with mlflow.start_run() as run:
        run_id = run.info.run_id
        requests, wall = requests_in(access_log), time.time()
        cpu = time.process_time()
        time.sleep(seconds)
        look = time.process_time()
        figures = monitor_of(run_id)
        look, end = time.process_time() - look, time.monotonic()
    figures["cpu_seconds"] = time.process_time() - cpu - look
    figures["end_seconds"] = time.monotonic() - end
    figures["requests"] = requests_in(access_log) - requests
    figures.update(windows_of(run_id, wall, window_seconds))
    print(json.dumps(figures))


if __name__ == "__main__":
    log = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    main(float(sys.argv[1]), float(sys.argv[2]), log)

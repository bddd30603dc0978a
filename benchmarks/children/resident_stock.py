"""resident_stock SECONDS INTERVAL SAMPLES: memory that MLflow's monitor adds beside a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlflow
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from benchmarks.children.resident import report


@contextmanager
def monitoring(run_id: str, interval: float, samples: int) -> Iterator[Callable[[float], None]]:
    """The monitor of a run, as `start_run` would start it."""
    stock: Any = SystemMetricsMonitor  # MLflow's own code has no types
    monitor = stock(run_id, interval, samples)
    monitor.start()
    yield time.sleep
    monitor.finish()


def main(seconds: float, interval: float, samples: int) -> None:
    """Uses the store before, so that only the monitor is measured."""
    with mlflow.start_run(log_system_metrics=False) as run:
        mlflow.log_metric("warm_up", 1.0)
        report(monitoring(run.info.run_id, interval, samples), seconds)


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))

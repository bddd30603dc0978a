"""stock_monitor SECONDS: the thread of MLflow's own monitor, in a run that only sleeps.

Store, rate and window come from MLflow's environment variables. Prints the CPU time of the thread
and the samples that it managed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import mlflow
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from benchmarks.children import own_process

THREAD = "SystemMetricsMonitor"
WARM_UP_SECONDS = 1.0


def counted_samples(counter: list[int]) -> AbstractContextManager[object]:
    """Makes the monitor's class count how often it samples."""
    stock: Any = SystemMetricsMonitor  # MLflow's own code has no types
    collect = stock.collect_metrics

    def counted(monitor: object) -> object:
        counter[0] += 1
        return collect(monitor)

    return patch.object(SystemMetricsMonitor, "collect_metrics", counted)


def monitor_thread() -> int:
    """Kernel thread id of the monitor's thread."""
    for thread in threading.enumerate():
        if thread.name == THREAD and thread.native_id is not None:
            return thread.native_id
    sys.exit("MLflow's monitor runs no thread")


def main(seconds: float) -> None:
    """Sleeps in a run and prints what the monitor took meanwhile."""
    counter = [0]
    with counted_samples(counter), mlflow.start_run():
        time.sleep(WARM_UP_SECONDS)
        thread = monitor_thread()
        cpu, ticks, start = own_process.cpu_ns([thread]), counter[0], time.monotonic()
        time.sleep(seconds)
        cpu, ticks = own_process.cpu_ns([thread]) - cpu, counter[0] - ticks
        elapsed = time.monotonic() - start
    figures = {
        "cpu_us_per_tick": cpu / max(ticks, 1) / 1e3,
        "core_percent": cpu / elapsed / 1e7,
        "ticks": ticks,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(float(sys.argv[1]))

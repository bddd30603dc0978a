"""What a tracking server has of a run."""

from __future__ import annotations

import time

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
from mlflow.tracking.fluent import run_id_to_system_metrics_monitor

from sysmetrics_native import SystemMetricsMonitor
from tests import support

PATIENCE_SECONDS = 60.0

MEMORY = "system_memory_usage_megabytes"

DEFAULT_NAMES = [name for names in support.DEFAULT_KEYS.values() for name in names]
DEFAULT_KEYS = {f"system/{name}" for name in DEFAULT_NAMES}


def monitor_of(run_id: str) -> SystemMetricsMonitor:
    """The monitor that `mlflow.start_run` has started."""
    monitor = run_id_to_system_metrics_monitor[run_id]
    assert isinstance(monitor, SystemMetricsMonitor)
    return monitor


def wait_for_ticks(run_id: str, ticks: int) -> None:
    """Wait until the monitor that `mlflow.start_run` has started has sampled so often."""
    stats = monitor_of(run_id)._sampler.stats
    support.wait_until(lambda: stats()["ticks"] >= ticks, f"{ticks} ticks")


class Logged:
    """A run's system metrics, read anew each time.

    The key is that of the memory by default: a reading, which every window has.
    """

    def __init__(self, run_id: str, tracking_uri: str | None = None) -> None:
        self.run_id = run_id
        self._client = MlflowClient(tracking_uri)

    def metrics(self) -> set[str]:
        metrics = self._client.get_run(self.run_id).data.metrics
        return {key for key in metrics if key.startswith("system/")}

    def history(self, key: str = MEMORY) -> list[Metric]:
        """Every entry of a metric, by its steps."""
        entries = self._client.get_metric_history(self.run_id, f"system/{key}")
        return sorted(entries, key=lambda entry: (entry.step, entry.timestamp))

    def values(self, key: str) -> list[float]:
        return [entry.value for entry in self.history(key)]

    def steps(self, key: str = MEMORY) -> list[int]:
        return [entry.step for entry in self.history(key)]

    def windows(self, key: str = MEMORY, first_step: int = 0) -> int:
        """How many there are, each of them once, in the order of time."""
        entries = self.history(key)
        steps = [entry.step for entry in entries]
        assert steps == list(range(first_step, first_step + len(steps)))
        timestamps = [entry.timestamp for entry in entries]
        assert timestamps == sorted(timestamps)
        return len(steps)

    def ends(self, key: str = MEMORY) -> list[float]:
        """When each window ended, in Unix seconds."""
        return [entry.timestamp / 1000 for entry in self.history(key)]

    def wait_for(self, windows: int) -> None:
        """Wait until there are so many."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found := self.steps()) < windows:
            assert time.monotonic() < deadline, f"gave up waiting for {windows} windows: {found}"
            time.sleep(0.05)

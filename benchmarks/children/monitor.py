"""Whose monitor watches a run, so that a benchmark never takes one for the other."""

from __future__ import annotations

from mlflow.tracking import fluent

from benchmarks.children import own_process


def monitor_of(run_id: str) -> dict[str, float]:
    """1 or 0: the run has a monitor; it is ours; a native thread samples."""
    monitor = fluent.run_id_to_system_metrics_monitor.get(run_id)
    ours = type(monitor).__module__.startswith("sysmetrics_native")
    native = own_process.threads_named(own_process.NATIVE_THREAD)
    return {"monitored": monitor is not None, "ours": ours, "native": bool(native)}

"""Steps and timestamps: of a run, of a run that goes on, of a node among others."""

from __future__ import annotations

import os
import time

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from sysmetrics_native import SystemMetricsMonitor
from tests.mlflow.logged import DEFAULT_NAMES, Logged, wait_for_ticks
from tests.mlflow.proxy import Proxy
from tests.support import retry, wait_until

WINDOW_SECONDS = 0.2


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "4")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")


def monitored_run(windows: int, run_id: str | None = None) -> Logged:
    """A run, new or old, of about so many windows."""
    with mlflow.start_run(run_id=run_id) as run:
        time.sleep(windows * WINDOW_SECONDS - WINDOW_SECONDS / 2)
        wait_for_ticks(run.info.run_id, 4 * (windows - 1) + 1)
    return Logged(run.info.run_id)


def test_steps_count_windows_and_timestamps_are_their_ends(uses_database, uses_backend) -> None:
    def check() -> None:
        before = time.time()
        run = monitored_run(5)
        after = time.time()
        assert run.windows() == 5
        ends = run.ends()
        assert before + WINDOW_SECONDS - 0.01 <= ends[0]
        assert ends[:4] == pytest.approx([ends[0] + i * WINDOW_SECONDS for i in range(4)], abs=0.1)
        assert ends[4] <= after
        assert ends[4] - ends[3] == pytest.approx(WINDOW_SECONDS / 2, abs=0.1), "it is cut short"
        for name in DEFAULT_NAMES:
            assert run.windows(name) == 5
            assert run.ends(name) == ends

    retry(6, check)


def test_a_resumed_run_counts_on(uses_database, uses_backend) -> None:
    run_id = monitored_run(2).run_id
    first = Logged(run_id).windows()
    assert monitored_run(3, run_id).windows() >= first + 2


def test_a_run_resumed_by_the_variable_counts_on(
    uses_database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = monitored_run(2).run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    first = Logged(run_id).windows()
    assert monitored_run(2).windows() >= first + 2


def test_it_counts_on_from_the_largest_step_of_any_system_metric(uses_database) -> None:
    with mlflow.start_run(log_system_metrics=False) as run:
        mlflow.log_metric("system/gone_percentage", 1.0, step=6)
        mlflow.log_metric("system/node_3/cpu_utilization_percentage", 1.0, step=41)
        mlflow.log_metric("system/node_3/cpu_utilization_percentage", 2.0, step=2)
        mlflow.log_metric("loss", 1.0, step=1000)
        mlflow.log_metric("systematic_error", 1.0, step=2000)
    assert monitored_run(2, run.info.run_id).windows(first_step=42) >= 2


def test_a_node_counts_on_from_its_own_steps(uses_database) -> None:
    with mlflow.start_run(log_system_metrics=False) as run:
        mlflow.log_metric("system/0/cpu_utilization_percentage", 1.0, step=41)
        mlflow.log_metric("system/1/cpu_utilization_percentage", 1.0, step=4)
        for _ in range(2):
            monitor = SystemMetricsMonitor(run.info.run_id, node_id="1", resume_logging=True)
            monitor.start()
            time.sleep(1.5 * WINDOW_SECONDS)
            monitor.finish()
    logged = Logged(run.info.run_id)
    assert logged.windows("1/disk_usage_percentage", first_step=5) >= 4


def test_a_resumed_run_without_system_metrics_counts_from_zero(uses_database) -> None:
    with mlflow.start_run(log_system_metrics=False) as run:
        mlflow.log_metric("loss", 1.0, step=7)
    assert monitored_run(2, run.info.run_id).windows() >= 2


def test_a_step_may_be_the_largest_there_is_and_long_ago(uses_database) -> None:
    with mlflow.start_run(log_system_metrics=False) as run:
        MlflowClient().log_metric(run.info.run_id, "system/a", 1.0, timestamp=1, step=2**40)
    assert monitored_run(1, run.info.run_id).windows(first_step=2**40 + 1) >= 1


def test_each_node_of_a_run_has_its_own_series(uses_database) -> None:
    with mlflow.start_run(log_system_metrics=False) as run:
        monitors = [SystemMetricsMonitor(run.info.run_id, node_id=f"node_{i}") for i in range(2)]
        for monitor in monitors:
            monitor.start()
        time.sleep(2.5 * WINDOW_SECONDS)
        for monitor in monitors:
            stats = monitor._sampler.stats
            wait_until(lambda: stats()["ticks"] >= 5, "five ticks")  # noqa: B023
            monitor.finish()
    logged = Logged(run.info.run_id)
    assert logged.metrics() == {
        f"system/node_{i}/{name}" for name in DEFAULT_NAMES for i in range(2)
    }
    for i in range(2):
        assert logged.windows(f"node_{i}/disk_usage_percentage") >= 2


def test_no_history_is_ever_asked_for(proxy: Proxy) -> None:
    mlflow.set_tracking_uri(proxy.uri)
    run_id = monitored_run(2).run_id
    monitored_run(2, run_id)
    assert "log-batch" in proxy.names()
    assert not any("history" in name for name in proxy.names())
    assert "MLFLOW_RUN_ID" not in os.environ

"""The stores that are not a server and not SQLite, and MLflow's own way to log later."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from tests.mlflow.logged import DEFAULT_KEYS, Logged, wait_for_ticks


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "2")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")


def test_the_file_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer releases want to be asked
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    with mlflow.start_run() as run:
        wait_for_ticks(run.info.run_id, 3)
    first = Logged(run.info.run_id).windows()
    assert first >= 2
    with mlflow.start_run(run_id=run.info.run_id):
        wait_for_ticks(run.info.run_id, 3)
    assert Logged(run.info.run_id).metrics() == DEFAULT_KEYS
    assert Logged(run.info.run_id).windows() >= first + 2
    assert warnings == []


def test_everything_is_there_at_the_end_where_mlflow_logs_asynchronously(
    uses_database, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 1.0)
        wait_for_ticks(run.info.run_id, 3)
    logged = Logged(run.info.run_id)
    assert logged.metrics() == DEFAULT_KEYS
    assert logged.windows() >= 2
    assert warnings == []

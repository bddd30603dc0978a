"""A run that is recorded: the file knows the run, and whether all of it was logged."""

from __future__ import annotations

import time
from pathlib import Path

import mlflow
import pytest

from sysmetrics_native import SystemMetricsMonitor, catalog, configure
from sysmetrics_native.recording import RecordedRun, Recording
from tests.mlflow.logged import MEMORY, Logged, monitor_of
from tests.mlflow.proxy import Proxy


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uses_backend: str) -> Path:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.02")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "5")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    path = tmp_path / "run.smnrec"
    monkeypatch.setenv("SYSMETRICS_NATIVE_RECORDER", str(path))
    return path


def test_what_is_logged_is_what_the_recording_holds(recorded, uses_database, warnings):
    configure(statistics="mean,max", node_id="a node")
    with mlflow.start_run() as run:
        assert monitor_of(run.info.run_id)._sampler.recording_path == str(recorded)
        time.sleep(0.5)
    host = "system/a node/host"
    with Recording(recorded) as recording:
        assert recording.state == "delivered"
        assert recording.run == RecordedRun(
            run_id=run.info.run_id,
            tracking_uri=uses_database,
            key_prefix="system/a node/",
            statistics=("mean", "max"),
            first_step=0,
            tags={host: mlflow.get_run(run.info.run_id).data.tags[host]},
        )
        windows = list(recording.windows())
        schema = [series.info for series in recording.series]
    logged = Logged(run.info.run_id)
    for key in (MEMORY, f"{MEMORY}_max", "network_receive_megabytes"):
        entries = logged.history(f"a node/{key}")
        assert [entry.step for entry in entries] == list(range(len(windows)))
        assert [entry.timestamp for entry in entries] == [round(w.end * 1000) for w in windows]
        metrics = [dict(catalog.metrics_of(w, schema, ("mean", "max"))) for w in windows]
        assert [entry.value for entry in entries] == pytest.approx([m[key] for m in metrics])
    assert warnings == []


def test_a_resumed_run_has_no_first_step_of_its_own(recorded, uses_database):
    with mlflow.start_run() as run:
        time.sleep(0.15)
    with mlflow.start_run(run_id=run.info.run_id):
        time.sleep(0.15)
    with Recording(recorded) as recording:  # the first one was delivered, and made room
        assert recording.run is not None
        assert recording.run.first_step is None


@pytest.mark.parametrize(
    ("spool_dir", "state"),
    [
        pytest.param(None, "delivered", id="the spool has what is left"),
        pytest.param("/proc/self/no", "ended", id="only the recording has it"),
    ],
)
def test_whether_a_recording_is_needed_to_complete_its_run(
    recorded: Path, proxy: Proxy, warnings: list[str], spool_dir: str | None, state: str
) -> None:
    configure(shutdown_timeout=0.5, spool_dir=spool_dir)
    mlflow.set_tracking_uri(proxy.uri)
    run_id = mlflow.MlflowClient().create_run("0").info.run_id
    monitor = SystemMetricsMonitor(run_id)
    proxy.refuse()
    monitor.start()
    time.sleep(0.2)
    monitor.finish()
    with Recording(recorded) as recording:
        assert recording.state == state
        assert recording.run is not None
        assert recording.run.tracking_uri == proxy.uri
        assert sum(window.samples for window in recording.windows()) > 0
    assert (str(recorded) in warnings[-1]) == (state == "ended")

"""From `start` to `finish`, and what goes wrong in between."""

from __future__ import annotations

import errno
import json
import logging
import threading
import time
import urllib.request

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from sysmetrics_native import Sampler, SystemMetricsMonitor, delivery
from tests.mlflow.logged import DEFAULT_KEYS, Logged, monitor_of
from tests.mlflow.server import Server
from tests.support import sampling_threads, wait_until

NAME = "SystemMetricsMonitor"


def monitoring_threads() -> int:
    return sum(thread.name == NAME for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "2")


@pytest.fixture
def quick_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows go at once, and whether the run goes on is asked for often."""
    monkeypatch.setenv("SYSMETRICS_NATIVE_DELIVERY_INTERVAL", "0.1")
    monkeypatch.setattr(delivery, "STATUS_CHECK_SECONDS", (0.3, 0.3))


@pytest.fixture
def client(uses_database) -> MlflowClient:
    return MlflowClient()


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    """A run that nobody but the client knows."""
    return str(client.create_run("0").info.run_id)


# ---- threads ------------------------------------------------------------------------------------


def test_the_thread_that_users_look_for_is_there_while_it_runs(uses_database, uses_backend) -> None:
    with mlflow.start_run(log_system_metrics=True):
        assert monitoring_threads() == 1
        assert sampling_threads() == 1
    assert monitoring_threads() == 0
    assert sampling_threads() == 0


def end_elsewhere(server: Server, run_id: str) -> None:
    """What any other client does, without a word to MLflow in this process."""
    body = json.dumps({"run_id": run_id, "status": "KILLED", "end_time": 1}).encode()
    request = urllib.request.Request(
        f"{server.uri}/api/2.0/mlflow/runs/update",
        data=body,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        assert response.status == 200


def test_a_run_that_is_ended_elsewhere_is_noticed_within_seconds(server: Server) -> None:
    client = MlflowClient(server.uri)
    run_id = client.create_run("0").info.run_id
    monitor = SystemMetricsMonitor(run_id, tracking_uri=server.uri)
    monitor.start()
    logged = Logged(run_id, server.uri)
    logged.wait_for(1)
    end_elsewhere(server, run_id)
    ended = time.time()
    wait_until(lambda: monitoring_threads() + sampling_threads() == 0, "the end of monitoring")
    assert time.time() - ended < 8
    # All that was sampled until then is there, the window that was open included.
    wait_until(lambda: logged.ends()[-1] > ended, "the windows that waited")
    until_then = logged.windows()
    monitor.finish()
    assert logged.windows() == until_then


# ---- start and finish ---------------------------------------------------------------------------


def test_finish_twice(run_id: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sysmetrics_native")
    monitor = SystemMetricsMonitor(run_id)
    monitor.start()
    time.sleep(0.15)
    monitor.finish()
    windows = Logged(run_id).windows()
    monitor.finish()
    assert Logged(run_id).windows() == windows >= 2
    gpus, started, ended = caplog.messages
    assert "GPU" in gpus
    assert started == "Started monitoring system metrics."
    assert ended.startswith(f"System metrics of run {run_id}: {windows} windows logged, ")


def test_finish_by_several_threads_at_once(run_id: str, warnings: list[str]) -> None:
    monitor = SystemMetricsMonitor(run_id)
    monitor.start()
    time.sleep(0.15)
    threads = [threading.Thread(target=monitor.finish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: monitoring_threads() + sampling_threads() == 0, "the end of monitoring")
    assert Logged(run_id).windows() >= 2
    assert warnings == []


def test_finish_without_start(run_id: str, warnings: list[str]) -> None:
    SystemMetricsMonitor(run_id).finish()
    assert Logged(run_id).metrics() == set()
    assert warnings == []


def test_start_after_a_finish_without_start(run_id: str) -> None:
    monitor = SystemMetricsMonitor(run_id)
    monitor.finish()
    monitor.start()
    time.sleep(0.15)
    monitor.finish()
    assert Logged(run_id).windows() >= 2


def test_start_twice_is_one_monitor(run_id: str, warnings: list[str]) -> None:
    monitor = SystemMetricsMonitor(run_id)
    monitor.start()
    monitor.start()
    assert monitoring_threads() == 1
    assert sampling_threads() == 1
    time.sleep(0.15)
    monitor.finish()
    monitor.start()
    assert monitoring_threads() == 0
    assert Logged(run_id).windows() >= 2
    assert warnings == []


def test_a_monitor_that_nobody_keeps_goes_on(run_id: str, quick_requests) -> None:
    SystemMetricsMonitor(run_id).start()
    Logged(run_id).wait_for(4)
    MlflowClient().set_terminated(run_id)
    wait_until(lambda: monitoring_threads() + sampling_threads() == 0, "the end of monitoring")


# ---- failures to start --------------------------------------------------------------------------


def fails_to_sample(monkeypatch: pytest.MonkeyPatch) -> str:
    def start(sampler: Sampler) -> None:
        raise OSError(errno.EAGAIN, "no further thread")

    monkeypatch.setattr(Sampler, "start", start)
    return "no further thread"


def fails_to_start_a_thread(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    start = threading.Thread.start

    def start_others(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_others)
    return "can't start new thread"


@pytest.mark.parametrize("what", ["Sampler", NAME, "SystemMetricsDelivery"])
def test_a_failure_to_start_is_logged_and_the_run_unharmed(
    uses_database, warnings: list[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with monkeypatch.context() as patch:
        error = (
            fails_to_sample(patch) if what == "Sampler" else fails_to_start_a_thread(what, patch)
        )
        run = mlflow.start_run(log_system_metrics=True)
    mlflow.log_metric("loss", 1.0)
    monitor = monitor_of(run.info.run_id)
    wait_until(
        lambda: all("SystemMetrics" not in thread.name for thread in threading.enumerate()),
        "the end of every thread of ours",
    )
    assert sampling_threads() == 0
    mlflow.end_run()
    monitor.finish()
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"
    (warning,) = warnings
    assert warning.startswith("Failed to start monitoring system metrics: ")
    assert error in warning


# ---- runs that take no metrics ------------------------------------------------------------------


def test_an_unknown_run_costs_one_warning(uses_database, uses_backend, warnings: list[str]) -> None:
    monitor = SystemMetricsMonitor("0" * 32)
    monitor.start()
    wait_until(lambda: monitoring_threads() + sampling_threads() == 0, "the end of monitoring")
    monitor.finish()
    (warning,) = warnings
    assert warning.startswith(f"Stopped monitoring system metrics of run {'0' * 32}: ")


def test_to_resume_an_unknown_run_costs_one_warning(uses_database, warnings: list[str]) -> None:
    monitor = SystemMetricsMonitor("0" * 32, resume_logging=True)
    monitor.start()
    wait_until(lambda: monitoring_threads() == 0, "the end of monitoring")
    monitor.finish()
    assert len(warnings) == 1
    assert "0" * 32 in warnings[0]


def test_an_unknown_kind_of_server_costs_one_warning(warnings: list[str]) -> None:
    monitor = SystemMetricsMonitor("0" * 32, tracking_uri="nonsense://host")
    monitor.start()
    wait_until(lambda: monitoring_threads() == 0, "the end of monitoring")
    monitor.finish()
    (warning,) = warnings
    assert warning.startswith(f"Stopped monitoring system metrics of run {'0' * 32}: ")
    assert "nonsense" in warning


def test_a_deleted_run_costs_one_warning_and_others_go_on(
    client: MlflowClient, run_id: str, quick_requests, warnings: list[str]
) -> None:
    other = str(client.create_run("0").info.run_id)
    monitors = [SystemMetricsMonitor(run) for run in (run_id, other)]
    for monitor in monitors:
        monitor.start()
    for run in (run_id, other):
        Logged(run).wait_for(2)
    client.delete_run(run_id)
    wait_until(lambda: monitoring_threads() == 1, "the end of monitoring")
    seen = len(Logged(other).steps())
    Logged(other).wait_for(seen + 3)
    for monitor in monitors:
        monitor.finish()
    (warning,) = warnings
    assert warning.startswith(f"Stopped monitoring system metrics of run {run_id}: ")
    assert Logged(other).windows() >= seen + 3


# ---- several runs -------------------------------------------------------------------------------


def test_a_run_that_only_a_client_knows(client: MlflowClient, run_id: str, uses_backend) -> None:
    monitor = SystemMetricsMonitor(run_id, sampling_interval=0.05, samples_before_logging=2)
    monitor.start()
    time.sleep(0.25)
    monitor.finish()
    assert Logged(run_id).metrics() == DEFAULT_KEYS
    assert Logged(run_id).windows() >= 2
    assert client.get_run(run_id).info.status == "RUNNING"


def test_two_runs_on_two_servers_do_not_mix(
    uses_database: str, server: Server, uses_backend
) -> None:
    elsewhere = MlflowClient(server.uri)
    far = elsewhere.create_run("0").info.run_id
    monitor = SystemMetricsMonitor(far, node_id="far", tracking_uri=server.uri)
    with mlflow.start_run(log_system_metrics=True) as run:
        near = run.info.run_id
        monitor.start()
        mlflow.set_tracking_uri("http://127.0.0.1:1")  # both began before this
        time.sleep(0.25)
        monitor.finish()
        mlflow.set_tracking_uri(uses_database)
    assert Logged(near, uses_database).metrics() == DEFAULT_KEYS
    far_keys = Logged(far, server.uri).metrics()
    assert far_keys == {key.replace("system/", "system/far/") for key in DEFAULT_KEYS}
    assert Logged(far, server.uri).windows("far/disk_usage_percentage") >= 2


def test_the_server_is_the_one_that_was_set_when_the_monitor_was_made(
    run_id: str, uses_database: str
) -> None:
    monitor = SystemMetricsMonitor(run_id)
    mlflow.set_tracking_uri("http://127.0.0.1:1")
    monitor.start()
    time.sleep(0.15)
    monitor.finish()
    assert Logged(run_id, uses_database).windows() >= 2


def test_nested_runs_have_their_own_windows(uses_database, uses_backend) -> None:
    with mlflow.start_run(log_system_metrics=True) as parent:
        time.sleep(0.15)
        with mlflow.start_run(nested=True, log_system_metrics=True) as child:
            assert monitoring_threads() == 2
            time.sleep(0.15)
        assert monitoring_threads() == 1
        time.sleep(0.15)
    windows = Logged(child.info.run_id).windows()
    assert windows >= 2
    assert Logged(parent.info.run_id).windows() > windows
    assert Logged(parent.info.run_id).ends()[0] < Logged(child.info.run_id).ends()[0]


@pytest.fixture
def runs_in_threads(uses_database) -> list[str]:
    """Two runs at once, each in a thread of its own; ended there."""
    client = MlflowClient()
    ids = [str(client.create_run("0").info.run_id) for _ in range(2)]
    errors: list[BaseException] = []

    def work(run_id: str) -> None:
        try:
            monitor = SystemMetricsMonitor(run_id)
            monitor.start()
            time.sleep(0.25)
            monitor.finish()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(run_id,)) for run_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    return ids


def test_runs_in_threads(runs_in_threads: list[str]) -> None:
    for run_id in runs_in_threads:
        assert Logged(run_id).metrics() == DEFAULT_KEYS
        assert Logged(run_id).windows() >= 2


def test_a_run_of_mlflow_in_a_thread(uses_database) -> None:
    ids: list[str] = []

    def train() -> None:
        with mlflow.start_run(log_system_metrics=True) as run:
            time.sleep(0.25)
        ids.append(run.info.run_id)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert Logged(ids[0]).windows() >= 2

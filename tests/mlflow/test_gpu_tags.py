"""A run says which GPUs its keys belong to: once, without a request more, whatever fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from sysmetrics_native import SystemMetricsMonitor, configure
from sysmetrics_native.backends.psutil import PsutilBackend
from sysmetrics_native.delivery import Delivery
from sysmetrics_native.gpus import Gpu, GpuInstance
from sysmetrics_native.private_files import Writer
from sysmetrics_native.recording import Recording
from sysmetrics_native.spool import Origin, Spool, SpoolFile, WaitingWindow
from tests.fake_gpus import FakeGpus
from tests.installed_command import COMMAND
from tests.mlflow.conftest import Programs
from tests.mlflow.logged import Logged
from tests.mlflow.proxy import Proxy
from tests.mlflow.server import Server
from tests.support import wait_until

UUID = "GPU-01234567-89ab-cdef-0123-456789abcdef"
GPUS = (
    Gpu(1, UUID, "00000000:07:00.0", "NVIDIA H100", 80e9, (GpuInstance(2, "MIG-1"),)),
    Gpu(3, "", "", "", None),
)
TOLD = {
    "gpu_1": {
        "name": "NVIDIA H100",
        "memory_megabytes": 80000.0,
        "uuid": UUID,
        "pci_id": "00000000:07:00.0",
        "mig": {"2": "MIG-1"},
    },
    "gpu_3": {},
}
GONE = Writer("elsewhere", "", 1, 0.0)


def tags_of(run_id: str, tracking_uri: str | None = None) -> dict[str, Any]:
    """What a run is told of GPUs."""
    tags = MlflowClient(tracking_uri).get_run(run_id).data.tags
    return {
        key.removeprefix("system/"): json.loads(value)
        for key, value in tags.items()
        if key.startswith("system/") and "gpu_" in key
    }


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Monitors of this process have two GPUs, as far as names go."""
    configure(backend="psutil", sources="memory", shutdown_timeout=5)
    monkeypatch.setattr(PsutilBackend, "gpus", GPUS)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "4")


# ---- while all is well --------------------------------------------------------------------------


def test_tags_come_with_the_first_metrics(two_gpus: None, proxy: Proxy, server: Server) -> None:
    mlflow.set_tracking_uri(proxy.uri)
    run = mlflow.start_run(log_system_metrics=True)
    started = len(proxy.requests)
    Logged(run.info.run_id, server.uri).wait_for(1)
    wait_until(lambda: tags_of(run.info.run_id, server.uri) == TOLD, "the tags")
    names = proxy.names()[started:]
    assert names == ["log-batch"]
    MlflowClient(server.uri).set_tag(run.info.run_id, "system/gpu_3", '"mine"')
    mlflow.end_run()
    assert tags_of(run.info.run_id, server.uri)["gpu_3"] == "mine", "they are set once"


def test_tags_in_a_database(two_gpus: None, uses_database: str) -> None:
    with mlflow.start_run(log_system_metrics=True) as run:
        Logged(run.info.run_id).wait_for(1)
        # A database has the metrics of a request a moment before it has its tags.
        wait_until(lambda: tags_of(run.info.run_id) == TOLD, "the tags")


def test_tags_of_a_node(two_gpus: None, uses_database: str) -> None:
    configure(node_id="node-7")
    with mlflow.start_run(log_system_metrics=True) as run:
        pass
    told = tags_of(run.info.run_id)
    assert set(told) == {"node-7/gpu_1", "node-7/gpu_3"}


def test_a_run_without_gpus_has_no_such_tag(uses_database: str) -> None:
    configure(gpus="none")
    with mlflow.start_run(log_system_metrics=True) as run:
        pass
    assert tags_of(run.info.run_id) == {}


# ---- what MLflow refuses ------------------------------------------------------------------------


@pytest.fixture(params=["database", "server"])
def tracking_uri(request: pytest.FixtureRequest) -> str:
    """Both ways to MLflow: its client, and requests of our own."""
    if request.param == "database":
        return str(request.getfixturevalue("database"))
    server: Server = request.getfixturevalue("server")
    return server.uri


def test_refused_tags_take_no_metric_with_them(tracking_uri: str, warnings: list[str]) -> None:
    run_id = MlflowClient(tracking_uri).create_run("0").info.run_id
    made = Delivery(
        run_id,
        tracking_uri,
        spool_dir=None,
        window_seconds=1.0,
        delivery_interval=5.0,
        resume=False,
        on_run_over=lambda: None,
        tags={"system/../gpu_0": "{}", "system/gpu_1": "{}"},
    )
    made.start()
    made.put(1764000000000, {"system/good": 1.0, "system/../bad": 2.0})
    wait_until(lambda: made.counts().logged == 1, "the first window")
    made.put(1764000001000, {"system/good": 3.0})
    made.put_last()
    made.close(time.monotonic() + 30)
    made.wait(time.monotonic() + 30)
    logged = Logged(run_id, tracking_uri)
    assert logged.metrics() == {"system/good"}
    assert logged.values("good") == [1.0, 3.0]
    assert tags_of(run_id, tracking_uri) == {}
    refused_metric, refused_tags = warnings
    assert "does not take the metric 'system/../bad'" in refused_metric
    assert "does not take the tags system/../gpu_0, system/gpu_1" in refused_tags


# ---- outages and kills --------------------------------------------------------------------------


def test_tags_wait_for_a_server_that_is_away(two_gpus: None, proxy: Proxy, server: Server) -> None:
    mlflow.set_tracking_uri(proxy.uri)
    run = mlflow.start_run()
    proxy.fail(503, "TEMPORARILY_UNAVAILABLE", only="log-batch")
    monitor = SystemMetricsMonitor(run.info.run_id)
    monitor.start()
    wait_until(lambda: proxy.names().count("log-batch") >= 2, "two attempts")
    assert tags_of(run.info.run_id, server.uri) == {}
    proxy.work()
    Logged(run.info.run_id, server.uri).wait_for(1)
    monitor.finish()
    mlflow.end_run()
    assert tags_of(run.info.run_id, server.uri) == TOLD
    Logged(run.info.run_id, server.uri).windows()


def recover() -> str:
    done = subprocess.run(
        [str(COMMAND), "recover"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


MONITORS = """
import os, time
from sysmetrics_native import SystemMetricsMonitor, configure, delivery

configure(backend="psutil", sources="memory,gpu")
delivery.SLOW_REQUEST_SECONDS = 0.1
SystemMetricsMonitor(os.environ["RUN"], 0.05, 4).start()
print("started", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("kept", ["spool", "recording"])
def test_tags_survive_a_kill_in_an_outage(
    start_program: Programs,
    proxy: Proxy,
    server: Server,
    gpus: FakeGpus,
    tmp_path: Path,
    kept: str,
) -> None:
    gpus.write(f"devices 1\n0 uuid {UUID}")
    run_id = MlflowClient(server.uri).create_run("0").info.run_id
    proxy.fail(503, "TEMPORARILY_UNAVAILABLE", only="log-batch")
    program = start_program(
        MONITORS,
        **{**gpus.environment, "RUN": run_id, "MLFLOW_TRACKING_URI": proxy.uri},
        SYSMETRICS_NATIVE_RECORDER="on" if kept == "recording" else "off",
    )
    program.wait_for_output("started")
    state = tmp_path / "state"
    wait_until(lambda: list(state.rglob("*.smnspool")), "the spool")
    time.sleep(0.5)
    program.send(signal.SIGKILL)
    program.outcome()
    assert tags_of(run_id, server.uri) == {}
    if kept == "recording":
        for path in state.rglob("*.smnspool"):
            path.unlink()
    proxy.work()
    recover()
    told = tags_of(run_id, server.uri)
    assert told == {
        "gpu_0": {
            "name": "Fake GPU 0",
            "memory_megabytes": 80000.0,
            "uuid": UUID,
            "pci_id": "00000000:10:00.0",
        }
    }
    before = Logged(run_id, server.uri).history()
    assert recover() == "There is nothing to recover.\n"
    assert Logged(run_id, server.uri).history() == before
    assert tags_of(run_id, server.uri) == told


def test_a_spool_that_knows_of_no_tags_is_sent(database: str, tmp_path: Path) -> None:
    """As a release without them has left it."""
    run_id = MlflowClient(database).create_run("0").info.run_id
    path = tmp_path / "state" / "sysmetrics-native" / "spool" / "old.smnspool"
    old = Origin(run_id, database, 0, GONE, 1.0, {})._asdict()
    del old["tags"]
    kept = Spool(str(path), _Old(old))  # type: ignore[arg-type]  # it is asked for these alone
    kept.append(WaitingWindow(0, 1764000000000, {"system/x": 1.0}))
    left = SpoolFile(str(path))
    assert left.origin.tags == {}
    left.close()
    recover()
    assert Logged(run_id, database).values("x") == [1.0]


class _Old:
    """What a spool asks of its origin, without tags."""

    writer = GONE

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def _asdict(self) -> dict[str, Any]:
        return self._fields


def test_a_recording_names_the_gpus(two_gpus: None, uses_database: str, tmp_path: Path) -> None:
    configure(recorder=str(tmp_path / "run.smnrec"))
    with mlflow.start_run(log_system_metrics=True):
        pass
    with Recording(tmp_path / "run.smnrec") as recording:
        assert recording.run is not None
        told = {key: json.loads(value) for key, value in recording.run.tags.items()}
    assert told.pop("system/host")["logical_cores"] == os.cpu_count()
    assert told == {f"system/{key}": value for key, value in TOLD.items()}

"""Folders that take nothing, and what must never be in a file: one warning, and nothing else."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from sysmetrics_native import SystemMetricsMonitor, configure
from tests.mlflow.conftest import Programs
from tests.mlflow.logged import Logged
from tests.mlflow.proxy import Proxy
from tests.mlflow.server import Server
from tests.support import wait_until


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.02")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("SYSMETRICS_NATIVE_DELIVERY_INTERVAL", "0.2")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 32 KiB."""
    folder = tmp_path / "small"
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k,mode=0700", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs to mount a tmpfs, which only root may")
    yield folder
    # Lazily: a sampler that is not collected yet still has its recording open.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def read_only(tmp_path: Path) -> Path:
    """A folder where not even root can make one."""
    return Path("/proc/self/no")


def shared(tmp_path: Path) -> Path:
    """A folder that everybody can write to."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "shared" / "spool").mkdir(mode=0o777)
    (tmp_path / "shared" / "spool").chmod(0o777)
    return tmp_path / "shared"


def link(tmp_path: Path) -> Path:
    """A folder whose own are links to elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").mkdir()
    for name in ("spool", "recordings"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "elsewhere")
    return tmp_path / "linked"


def survive_an_outage(server: Server, proxy: Proxy, seconds: float) -> Logged:
    """A run whose server is away for so long; it must have every window in the end."""
    run_id = str(MlflowClient(server.uri).create_run("0").info.run_id)
    monitor = SystemMetricsMonitor(run_id, tracking_uri=proxy.uri)
    monitor.start()
    logged = Logged(run_id, server.uri)
    logged.wait_for(1)
    proxy.fail(503)
    time.sleep(seconds)
    proxy.work()
    monitor.finish()
    stats = monitor._sampler.stats()
    assert stats["merged_windows"] == 0
    assert abs(logged.windows() - (stats["ticks"] + stats["missed"]) / 2) <= 1
    return logged


@pytest.mark.parametrize("make", [read_only, shared, link])
def test_a_folder_that_takes_no_spool(
    server: Server, proxy: Proxy, warnings: list[str], tmp_path: Path, make
) -> None:
    configure(spool_dir=make(tmp_path))
    survive_an_outage(server, proxy, 2)
    (about_disk,) = [warning for warning in warnings if "wait in memory only" in warning]
    assert "because they cannot be written down: " in about_disk
    assert len(warnings) == 2, "the other one is about the server"
    if make is link:
        assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_disk_that_is_full(
    server: Server, proxy: Proxy, warnings: list[str], small_disk: Path
) -> None:
    configure(spool_dir=small_disk)
    # 50 windows a second of some 450 bytes: full within two seconds.
    survive_an_outage(server, proxy, 5)
    (about_disk,) = [warning for warning in warnings if "wait in memory only" in warning]
    assert "No space left on device" in about_disk
    assert len(warnings) == 2
    assert list(small_disk.rglob("*.smnspool")) == [], "all was sent"


@pytest.mark.native
def test_a_disk_that_is_too_small_for_the_recording(
    uses_database, warnings: list[str], small_disk: Path
) -> None:
    configure(recorder=small_disk / "job.smnrec")
    mlflow.set_system_metrics_sampling_interval(0.002)
    mlflow.set_system_metrics_samples_before_logging(50)
    with mlflow.start_run(log_system_metrics=True) as run:
        time.sleep(1.5)
    assert Logged(run.info.run_id).windows() >= 10
    (warning,) = warnings
    assert "No space left on device" in warning


@pytest.mark.parametrize("make", [read_only, link])
def test_a_folder_that_takes_no_recording(
    uses_database, uses_backend, warnings: list[str], tmp_path: Path, make
) -> None:
    configure(recorder="on", spool_dir=make(tmp_path))
    with mlflow.start_run(log_system_metrics=True) as run:
        time.sleep(0.3)
    assert Logged(run.info.run_id).windows() >= 3
    (warning,) = warnings
    assert "goes on without a recording" in warning


# ---- what must never be in a file ---------------------------------------------------------------

SECRETIVE = """
import logging, time
from sysmetrics_native import SystemMetricsMonitor

logging.basicConfig(level=logging.INFO)
monitor = SystemMetricsMonitor({run_id!r})
monitor.start()
print("started", flush=True)
time.sleep(3)
monitor.finish()
"""


def test_passwords_and_tokens_reach_no_file_and_no_log_line(
    start_program: Programs, proxy: Proxy, server: Server, tmp_path: Path
) -> None:
    run_id = MlflowClient(server.uri).create_run("0").info.run_id
    proxy.fail(503)
    secrets = ["s3cr3t-word", "s3cr3t-token"]
    program = start_program(
        SECRETIVE.format(run_id=run_id),
        MLFLOW_TRACKING_URI=proxy.uri.replace("://", f"://ann:{secrets[0]}@"),
        MLFLOW_TRACKING_TOKEN=secrets[1],
        SYSMETRICS_NATIVE_RECORDER="on",
        SYSMETRICS_NATIVE_SHUTDOWN_TIMEOUT="0.5",
    )
    program.wait_for_output("started")
    state = tmp_path / "state"
    wait_until(lambda: list(state.rglob("*.smnspool")), "the spool")
    proxy.refuse()  # so that errors have the address in them
    outcome = program.outcome()
    assert outcome.status == 0
    assert "Cannot log system metrics" in outcome.errors
    assert "were not logged" in outcome.errors
    files = [path for path in state.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".smnspool", ".smnrec"}
    for secret in secrets:
        assert secret not in outcome.errors + outcome.output
        for path in files:
            assert secret.encode() not in path.read_bytes()
    for path in files:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert os.fsencode(proxy.uri) in path.read_bytes(), "but where to send it to is there"

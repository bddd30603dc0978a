"""What `sysmetrics-native doctor` says of MLflow: what a program would find; no server is asked."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tests.support import PATIENCE_SECONDS, run_python

COMMAND = """
import sys
sys.path.remove("")  # which the installed command has not
from sysmetrics_native import checkup, cli
checkup._LONGEST_SECONDS = 120.0  # a busy machine may need longer than a user would wait
cli.main()
"""

OF_MLFLOW = """
import json, sys
from sysmetrics_native import fresh_import
with fresh_import.FreshImport() as imported:
    print(json.dumps(fresh_import.mlflow_facts(imported, float(sys.argv[1]))))
"""


def doctor(**variables: str) -> tuple[int, Any]:
    """The command's status, and what it found."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "doctor", "--json"],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
        env={**os.environ, **variables},
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def facts(patience: float = PATIENCE_SECONDS) -> Any:
    done = run_python(OF_MLFLOW, str(patience))
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_the_plugin_is_active_and_no_server_is_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        uri = f"http://ann:secret@127.0.0.1:{port}/path"
        status, found = doctor(MLFLOW_TRACKING_URI=uri)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert status == 0
    assert found["mlflow"] == {
        "problem": None,
        "version": mlflow.__version__,
        "is_new_enough": True,
        "has_entry_point": True,
        "is_active": True,
        "tracking_uri": f"http://127.0.0.1:{port}/path",
        "reason": "",
    }
    assert not [warning for warning in found["warnings"] if "MLflow" in warning]
    assert "secret" not in json.dumps(found)


@pytest.mark.once
@pytest.mark.parametrize(
    ("value", "status", "reason"),
    [
        ("false", 0, "SYSMETRICS_NATIVE_ENABLED is false"),
        ("perhaps", 1, "SYSMETRICS_NATIVE_ENABLED must be true or false, got 'perhaps'"),
    ],
)
def test_it_says_why_mlflow_keeps_its_own_monitor(value: str, status: int, reason: str) -> None:
    code, found = doctor(SYSMETRICS_NATIVE_ENABLED=value)
    assert code == status
    assert (found["mlflow"]["is_active"], found["mlflow"]["reason"]) == (False, reason)
    assert f"runs of MLflow are not monitored by this package: {reason}" in found["warnings"]


def put_in_front(monkeypatch: pytest.MonkeyPatch, folder: Path, source: str) -> None:
    """A module `mlflow` that is found before MLflow."""
    (folder / "mlflow.py").write_text(source, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.once
def test_an_mlflow_that_is_broken_is_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_in_front(monkeypatch, tmp_path, "raise ImportError('no numpy; https://ann:pw@host')")
    status, found = doctor()
    assert (status, found["mlflow"]["problem"]) == (0, None)
    assert found["mlflow"]["is_active"] is None
    assert found["mlflow"]["reason"] == (
        "MLflow cannot be imported: ImportError: no numpy; https://host"
    )


@pytest.mark.once
def test_an_mlflow_that_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_in_front(
        monkeypatch,
        tmp_path,
        f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(1000)",
    )
    found = facts(3.0)
    assert (found["is_active"], found["reason"]) == (None, "importing MLflow took too long")
    pid = (tmp_path / "pid").read_text(encoding="ascii")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while Path("/proc", pid).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path("/proc", pid).exists()


def test_an_mlflow_that_is_too_old_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from sysmetrics_native import fresh_import

    monkeypatch.setattr(fresh_import, "installed_version", lambda _: "2.8.1")
    with fresh_import.FreshImport() as imported:
        found = fresh_import.mlflow_facts(imported, PATIENCE_SECONDS)
    assert (found["version"], found["is_new_enough"]) == ("2.8.1", False)


@pytest.mark.once
def test_the_current_folder_is_no_place_for_modules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As for a script that lies elsewhere."""
    (tmp_path / "mlflow.py").write_text("raise SystemExit('wrong one')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    status, found = doctor()
    assert (status, found["mlflow"]["is_active"]) == (0, True)

"""A real `mlflow server`, a process of its own with one worker, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.programs import environment
from benchmarks.rounds import ParticipantFailedError

HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 10.0


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class TrackingServer:
    """Started by the constructor, ended by `close`.

    Its access log, one line a request, written before the request is answered, is what requests
    are counted from: it is exact, and nothing stands between the run and the server.
    """

    def __init__(self, folder: Path, store: str, **variables: str) -> None:
        folder.mkdir()
        port = free_port()
        self.uri = f"http://{HOST}:{port}"
        self.access_log = folder / "access.log"
        command = [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", HOST, "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", store),
            *("--default-artifact-root", str(folder / "artifacts")),
        ]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONUNBUFFERED": "1"}
        settings.update(variables)
        with self.access_log.open("ab") as output, (folder / "errors.log").open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                env=environment(settings),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process that is the parent of all others."""
        return self._process.pid

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ParticipantFailedError("mlflow server did not start")
            time.sleep(0.2)
        if b"/health HTTP/" not in self.access_log.read_bytes():
            raise ParticipantFailedError("mlflow server wrote no access log to count requests in")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def close(self) -> None:
        """Ends the server and its workers, which share its process group."""
        if not self._ends_after(signal.SIGTERM):
            self._ends_after(signal.SIGKILL)

    def _ends_after(self, signal_number: signal.Signals) -> bool:
        try:
            os.killpg(self._process.pid, signal_number)
            self._process.wait(STOP_SECONDS)
        except ProcessLookupError:
            self._process.wait()
        except subprocess.TimeoutExpired:
            return False
        return True

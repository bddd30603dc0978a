"""A real tracking server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from tests.support import wait_until

HOST = "127.0.0.1"
START_SECONDS = 90.0  # on a machine where much else starts
STOP_SECONDS = 10.0


class Server:
    """A real `mlflow server` on loopback, in a process group of its own.

    Args:
        folder: where it runs.
        store: where it keeps runs; a SQLite database by its path, any other by its URI.
    """

    def __init__(self, folder: Path, store: Path | str) -> None:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port = int(probe.getsockname()[1])
        self.uri = f"http://{HOST}:{self.port}"
        self._folder = folder
        self._store = store if isinstance(store, str) else f"sqlite:///{store}"
        self._log = folder / "server.log"
        self.start()

    def start(self) -> None:
        """Start it, at the beginning or after `kill`, at the same address."""
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self.port)),
            *("--workers", "1", "--backend-store-uri", self._store),
            *("--default-artifact-root", str(self._folder / "artifacts")),
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_it_answers(self) -> None:
        """Wait for its first answer."""
        wait_until(self._answers, "the tracking server", START_SECONDS)

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def close(self) -> None:
        """End it and its workers, which share its process group."""
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill it and its workers at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

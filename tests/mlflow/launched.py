"""Jobs that a real launcher starts, which these tests need of the system."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow.tracking import MlflowClient

from tests.mlflow.logged import MEMORY, Logged

PATIENCE_SECONDS = 60.0
"""Several ranks import MLflow at the same time, on a machine that may be busy."""

WINDOW_SECONDS = 1.0
SHORT_WINDOWS = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.2",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "5",
}
ONE_LONG_WINDOW = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.2",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "10000",
}

_REPOSITORY = Path(__file__).parent.parent.parent
_OF_LAUNCHERS = ("SLURM", "SBATCH_", "SRUN_", "OMPI_", "PMIX_", "PMI_", "PRTE_")
_DAEMONS = "/usr/local/sbin:/usr/sbin:/sbin"


def require(programs: Iterable[str], packages: str) -> None:
    """Skip the test where the system has not all of them; fail where CI says that it has."""
    missing = [name for name in programs if find(name) is None]
    if missing:
        reason = f"needs {', '.join(missing)} (Debian: apt install {packages})"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)


def require_namespaces(kinds: Iterable[str]) -> None:
    """Skip the test where a process cannot be given those: a host name of its own, say."""
    tried = subprocess.run(["unshare", *kinds, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"needs namespaces, as root has them: {tried.stderr.strip()}")


def find(program: str) -> str | None:
    """Where it is; daemons are not on everybody's path."""
    return shutil.which(program, path=f"{os.environ['PATH']}:{_DAEMONS}")


def clean_environment() -> dict[str, str]:
    """The environment of a login shell, though these tests may run in a job themselves."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OF_LAUNCHERS)}


class Rank(NamedTuple):
    """What a rank has told of itself."""

    name: str
    host: str
    samples: bool


class LaunchedJob:
    """A run, and a launcher whose ranks take part in it.

    Args:
        folder: a new one, where ranks find what they shall do.
        uri: the tracking server.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        folder.mkdir()
        self.run_id = str(MlflowClient(uri).create_run("0").info.run_id)
        self.logged = Logged(self.run_id, uri)
        self.folder = folder
        self._uri = uri
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def rank(self, way: str) -> list[str]:
        """The command of a rank that takes part by `start_run` or `monitor_run`."""
        module = "tests.mlflow.rank"
        return [sys.executable, "-m", module, str(self.folder), self.run_id, way]

    def start(self, *command: str, **variables: str) -> None:
        """Start the launcher, in a process group of its own."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={
                    **clean_environment(),
                    "MLFLOW_TRACKING_URI": self._uri,
                    "PYTHONPATH": str(_REPOSITORY),
                    **SHORT_WINDOWS,
                    **variables,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    # ---- its ranks ------------------------------------------------------------------------------

    def ranks(self) -> list[Rank]:
        """Those that have begun, whether or not they have ended since."""
        files = sorted(self.folder.glob("*.rank"))
        return [Rank(*json.loads(file.read_text(encoding="utf-8"))) for file in files]

    def sampling(self) -> list[Rank]:
        return [rank for rank in self.ranks() if rank.samples]

    def wait_for_ranks(self, ranks: int, sampling: int) -> list[Rank]:
        """Wait until so many have begun, and so many of them sample, which are returned."""
        self.wait_until(lambda: len(self.ranks()) == ranks, f"{ranks} ranks")
        self.wait_until(lambda: len(self.sampling()) == sampling, f"{sampling} that sample")
        return self.sampling()

    def tell(self, rank: Rank, order: str) -> None:
        """Let it ``kill`` itself or ``fail``; it says nothing from then on."""
        (self.folder / f"{rank.name}.{order}").touch()

    # ---- its windows ----------------------------------------------------------------------------

    def wait_for_further_windows(self, windows: int, *keys: str) -> None:
        """Wait until each key has so many more of them."""
        for key in keys or (MEMORY,):
            aim = len(self.logged.steps(key)) + windows
            self.wait_until(
                lambda key=key, aim=aim: len(self.logged.steps(key)) >= aim,  # type: ignore[misc]
                f"{windows} further windows of {key}",
            )

    def windows(self, key: str = MEMORY) -> int:
        """How many there are, each of them once.

        Whoever begins goes on behind the largest step that the run has, so where other nodes are
        ahead there are steps that this one does not have.
        """
        history = self.logged.history(key)
        for before, after in itertools.pairwise(history):
            assert before.step < after.step
            assert before.timestamp < after.timestamp
        return len(history)

    def assert_has_no_gap(self, key: str, windows: float = 2.0) -> None:
        for before, after in itertools.pairwise(self.logged.ends(key)):
            # A machine that is busy takes its time to start a thread, too.
            assert after - before < (windows + 1) * WINDOW_SECONDS

    # ---- its end --------------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for the condition, while the launcher runs."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert self._process is not None
            has_ended = self._process.poll() is not None
            if has_ended and condition():
                break
            assert not has_ended, f"the launcher has ended before {what}: {self.log}"
            assert time.monotonic() < deadline, f"gave up waiting for {what}: {self.log}"
            time.sleep(0.02)

    def end(self, ranks: int) -> None:
        """Let all ranks end in an orderly way; so many are left."""
        (self.folder / "end").touch()
        self.wait_until(lambda: len(list(self.folder.glob("*.left"))) == ranks, "their end")
        assert "Traceback" not in self.log

    def status(self) -> int:
        """Wait for the end of the launcher."""
        assert self._process is not None
        return self._process.wait(PATIENCE_SECONDS)

    @property
    def log(self) -> str:
        """What the launcher and the ranks have printed."""
        return self._log.read_text(encoding="utf-8")

    def close(self) -> None:
        """End what is left of it. Ranks end when their launcher has."""
        if self._process is None:
            return
        (self.folder / "end").touch()
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(10.0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

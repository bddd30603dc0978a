"""A rank of a job that some launcher starts: ``python -m tests.mlflow.rank FOLDER RUN_ID WAY``.

It writes what it does into a file of its own in the folder, and finds there what it shall do: it
may be in a namespace where its process id says nothing to the test.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow

from sysmetrics_native import configure, monitor_run
from tests.support import sampling_threads

LONGEST_SECONDS = 110.0
"""If nobody ends it."""

FAILURE = 3
"""Its exit status if it is told to fail."""


def main(folder: Path, run_id: str, way: str) -> None:
    """Take part in the run until the file ``end`` is there."""
    configure(delivery_interval=0)  # so that what is missing after a kill is one window
    rank = _Rank(folder)
    with _monitored(run_id, way):
        rank.train()
    rank.leave()


@contextlib.contextmanager
def _monitored(run_id: str, way: str) -> Iterator[None]:
    if way == "start_run":
        with mlflow.start_run(run_id=run_id, log_system_metrics=True):
            yield
    else:
        with monitor_run(run_id):
            yield


class _Rank:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._host = socket.gethostname()
        self._name = f"{self._host}-{os.getpid()}"
        self._launcher = os.getppid()
        self._samples: bool | None = None

    def train(self) -> None:
        """Say what it does, and do what it is told."""
        give_up_at = time.monotonic() + LONGEST_SECONDS
        while not (self._folder / "end").exists():
            self._tell(samples=sampling_threads() > 0)
            if self._is_told("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            if self._is_told("fail"):
                sys.exit(FAILURE)
            if os.getppid() != self._launcher or time.monotonic() > give_up_at:
                sys.exit("nobody has ended this rank")
            time.sleep(0.05)

    def leave(self) -> None:
        """Say that it has finished in an orderly way."""
        (self._folder / f"{self._name}.left").touch()

    def _tell(self, *, samples: bool) -> None:
        if samples == self._samples:
            return
        self._samples = samples
        draft = self._folder / f"{self._name}.draft"
        draft.write_text(json.dumps([self._name, self._host, samples]), encoding="utf-8")
        draft.replace(self._folder / f"{self._name}.rank")

    def _is_told(self, order: str) -> bool:
        return (self._folder / f"{self._name}.{order}").exists()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

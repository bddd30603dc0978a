"""Programs in processes of their own: what a user's script does, from its first import on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

PATIENCE_SECONDS = 150.0


class Outcome(NamedTuple):
    """What a program that has ended leaves."""

    status: int
    output: str
    errors: str

    @property
    def answer(self) -> Any:
        """The last line that it printed, as JSON."""
        lines = self.output.splitlines()
        assert self.status == 0, self.errors
        assert lines, self.errors
        return json.loads(lines[-1])


class Program:
    """A Python program that runs, in a process group of its own.

    Args:
        source: its text.
        folder: where it runs, and where its text and its output lie.
        variables: environment variables in addition to those of the tests.
        switches: for the interpreter.
    """

    def __init__(
        self, source: str, folder: Path, variables: dict[str, str], switches: tuple[str, ...]
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        script = folder / "program.py"
        script.write_text(source, encoding="utf-8")
        self._output = folder / "output"
        self._errors = folder / "errors"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *switches, str(script)],
                cwd=folder,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of its process, and of the group."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text(encoding="utf-8")

    def is_running(self) -> bool:
        return self._process.poll() is None

    def outcome(self, timeout: float = PATIENCE_SECONDS) -> Outcome:
        """Wait for its end."""
        status = self._process.wait(timeout)
        return Outcome(status, self.output, self._errors.read_text(encoding="utf-8"))

    def wait_for_output(self, text: str, timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until it has printed the text."""
        deadline = time.monotonic() + timeout
        while text not in self.output:
            assert self._process.poll() is None, self.outcome()
            assert time.monotonic() < deadline, f"no {text!r} within {timeout:g} s"
            time.sleep(0.02)

    def send(self, signal_number: signal.Signals) -> None:
        """Send it a signal; not to its children."""
        self._process.send_signal(signal_number)

    def kill(self) -> None:
        """End it, and the children that it left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

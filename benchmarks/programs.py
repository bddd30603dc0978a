"""Runs the programs that are measured: bare C loops and Python children, each a fresh process."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import cast

from benchmarks.rounds import Figures, ParticipantFailedError

SOURCES = Path(__file__).parent
COMPILE_FLAGS = ("-O2", "-std=gnu11")
GRACE_SECONDS = 60.0
"""How much longer than its nominal time a program may run; stock's end of a run is slow."""

_numbers = count()
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "GIT_PYTHON_REFRESH": "quiet"}
_OWN_PREFIXES = ("MLFLOW_", "SYSMETRICS_NATIVE_")


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Our own environment without settings of MLflow and of this package, plus `extra`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_OWN_PREFIXES)}
    path = [str(SOURCES.parent), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, **_QUIET, **extra, "PYTHONPATH": os.pathsep.join(path)}


def compile_program(name: str, folder: Path) -> Path:
    """Compiles benchmarks/<name>.c with $CC, or cc, into the folder."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise ParticipantFailedError(f"no C compiler: {compiler[0]} not found (set CC)")
    program = folder / name
    if not program.exists():
        source = str(SOURCES / f"{name}.c")
        command = [*compiler, *COMPILE_FLAGS, "-o", str(program), source, "-ldl"]
        _output_of(command, GRACE_SECONDS)
    return program


def run_program(
    program: Path,
    *arguments: object,
    seconds: float,
    settings: Mapping[str, str] | None = None,
) -> tuple[int, int]:
    """Runs a bare program; each prints a sum of nanoseconds and how many it is of."""
    command = [str(program), *map(str, arguments)]
    output = _output_of(command, seconds + GRACE_SECONDS, environment(settings or {}))
    total_ns, count = output.split()
    return int(total_ns), int(count)


def run_child(
    module: str,
    *arguments: object,
    folder: Path,
    seconds: float,
    settings: Mapping[str, str] | None = None,
) -> Figures:
    """Runs benchmarks.children.<module>; its last line of output is its figures as JSON."""
    command = [sys.executable, "-m", f"benchmarks.children.{module}", *map(str, arguments)]
    output = _output_of(command, seconds + GRACE_SECONDS, environment(settings or {}), folder)
    return cast("Figures", json.loads(output.splitlines()[-1]))


class ServingChild:
    """A child that is asked again and again, so that its turns can be short and close to others'.

    It answers each line of arguments with a line of figures; `close` ends it.
    """

    def __init__(self, module: str, *arguments: object, folder: Path) -> None:
        command = [sys.executable, "-m", f"benchmarks.children.{module}", *map(str, arguments)]
        self._errors = (folder / f"{module}-{next(_numbers)}.errors").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            command,
            env=environment({}),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, *arguments: object, seconds: float) -> Figures:
        """One turn."""
        answer = ""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(" ".join(map(str, arguments)) + "\n")
            self._process.stdin.flush()
            if select.select([self._process.stdout], [], [], seconds + GRACE_SECONDS)[0]:
                answer = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not answer:
            self._process.kill()
            raise ParticipantFailedError(self._why())
        return cast("Figures", json.loads(answer))

    def _why(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else f"exit status {status}"

    def close(self) -> None:
        """Lets the child end by itself: its input is over."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def _output_of(
    command: list[str],
    timeout: float,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    try:
        done = subprocess.run(
            command,
            env=env,
            cwd=folder,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ParticipantFailedError(str(error)) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ParticipantFailedError(lines[-1])
    return done.stdout

"""Runs the programs that are measured: bare C loops and Python children, each a fresh process."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from benchmarks.rounds import Figures, ParticipantFailedError

SOURCES = Path(__file__).parent
COMPILE_FLAGS = ("-O2", "-std=gnu11")
GRACE_SECONDS = 60.0
"""How much longer than its nominal time a program may run; stock's end of a run is slow."""

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
        command = [*compiler, *COMPILE_FLAGS, "-o", str(program), str(SOURCES / f"{name}.c")]
        _output_of(command, GRACE_SECONDS)
    return program


def run_program(program: Path, *arguments: object, seconds: float) -> tuple[int, int]:
    """Runs a bare program; both print a sum of nanoseconds and how many it is of."""
    output = _output_of([str(program), *map(str, arguments)], seconds + GRACE_SECONDS)
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


def _output_of(
    command: list[str],
    timeout: float,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    try:
        done = subprocess.run(
            command, env=env, cwd=folder, timeout=timeout, capture_output=True, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ParticipantFailedError(str(error)) from error
    if done.returncode != 0 or not done.stdout.strip() and command[0] == sys.executable:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ParticipantFailedError(lines[-1])
    return done.stdout

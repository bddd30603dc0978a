"""Libraries that stand in for those of GPU drivers, for programs that a test starts.

What a scenario can say is described in tests/fakes/scenario.h; which values there are, at the
beginning of each library's file beside it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import shlex
import struct
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import PATIENCE_SECONDS

_SOURCES = Path(__file__).parent / "fakes"
_BUILT = Path(__file__).parent.parent / "build" / "fakes"
_FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-fvisibility=hidden"]
_FLAGS += ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
_RECORD = struct.Struct("=112sQQ")
_IN_USE = 2


class Library(NamedTuple):
    """How a stand-in is compiled."""

    file: str
    """The name that programs load it by."""
    sources: tuple[str, ...]
    definitions: tuple[str, ...] = ()


NVML = Library("libnvidia-ml.so.1", ("nvml.c", "scenario.c"))
OLD_NVML = NVML._replace(definitions=("SMN_FAKE_OLD_DRIVER",))
EMPTY_NVML = Library("libnvidia-ml.so.1", ("empty.c",))


def compiler() -> list[str]:
    """The C compiler and its first arguments."""
    return shlex.split(os.environ.get("CC") or "cc")


@functools.cache
def build(library: Library) -> Path:
    """Compile the library unless that was done, and return the folder that holds only it."""
    command = [*compiler(), *_FLAGS, f"-Wl,-soname,{library.file}"]
    command += [f"-D{definition}" for definition in library.definitions]
    digest = hashlib.sha256(repr((library, command)).encode())
    for source in [*sorted(_SOURCES.iterdir()), *sorted(_SOURCES.glob("../../csrc/gpu/*.h"))]:
        digest.update(source.read_bytes())
    folder = _BUILT / digest.hexdigest()[:16]
    if not (folder / library.file).exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Others may be building the same: each has a file of its own, and the last one stays.
        with tempfile.TemporaryDirectory(dir=_BUILT) as unfinished:
            output = Path(unfinished, library.file)
            sources = [str(_SOURCES / source) for source in library.sources]
            subprocess.run([*command, "-o", str(output), *sources, "-lm", "-pthread"], check=True)
            output.replace(folder / library.file)
    return folder


class FakeGpus:
    """A scenario, and programs that find the stand-ins where they look for the driver."""

    def __init__(self, folder: Path, *libraries: Library) -> None:
        """Use the folder for the scenario and the counts, and NVIDIA's library unless told."""
        self._folder = folder
        self._scenario = folder / "scenario"
        self._counts = folder / "counts"
        self._paths = [str(build(library)) for library in libraries or (NVML,)]
        self.write("devices 1")

    def write(self, scenario: str) -> None:
        """Replace the scenario at one stroke; the calls are counted in any case."""
        new = self._folder / "scenario.new"
        new.write_text(f"count {self._counts}\n{textwrap.dedent(scenario)}\n", encoding="utf-8")
        new.replace(self._scenario)

    @property
    def scenario_path(self) -> Path:
        return self._scenario

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that has these GPUs: it counts from its start on."""
        inherited = os.environ.get("LD_LIBRARY_PATH")
        paths = [*self._paths, inherited] if inherited else self._paths
        return {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(paths),
            "SMN_FAKE_GPUS": str(self._scenario),
        }

    def start(self, program: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """A fresh interpreter that runs the program, with pipes."""
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), *arguments],
            env={**self.environment, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, program: str, *arguments: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the program in a fresh interpreter to its end."""
        process = self.start(program, *arguments, **variables)
        try:
            output, errors = process.communicate(timeout=2 * PATIENCE_SECONDS)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def answer(self, program: str, *arguments: str, **variables: str) -> Any:
        """What the program prints, as a Python literal (`print(repr(…))`), which must succeed."""
        outcome = self.run(program, *arguments, **variables)
        assert outcome.returncode == 0, outcome.stderr
        return ast.literal_eval(outcome.stdout)

    def records(self) -> dict[str, int]:
        """Everything in the file of counts: of all processes so far, also of running ones."""
        if not self._counts.exists():
            return {}
        records = _RECORD.iter_unpack(self._counts.read_bytes())
        return {
            name.partition(b"\0")[0].decode(): count
            for name, state, count in records
            if state == _IN_USE
        }

    def calls(self, beginning: str = "") -> dict[str, int]:
        """How often each function that begins so was called; not by forked children.

        The names are "FUNCTION", "FUNCTION DEVICE" and "FUNCTION DEVICE:INSTANCE".
        """
        return {
            name: count
            for name, count in self.records().items()
            if name.startswith(beginning) and name != "loaded" and not name.startswith("forked ")
        }

    def forked_calls(self) -> dict[str, int]:
        """Calls of processes that were forked from one that had initialised the library."""
        return {name: count for name, count in self.records().items() if name.startswith("forked ")}

    def loaded_ns(self) -> int:
        """Second 0 of the scenario, on CLOCK_MONOTONIC, of the first process with this folder."""
        return self.records()["loaded"]

"""CPU that `sysmetrics-native top` takes while somebody looks at it, in percent of a core.

The installed command runs on a pseudo-terminal whose other end is read as it comes. It follows a
recording that this process writes at 100 Hz, of all that most machines have, or samples the machine
itself. What it takes is the scheduler's count of all its threads, from when it has started on. No
other participant does the same.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.bench import RATE, Bench
from benchmarks.programs import environment
from benchmarks.report import Result, Row, at_most, number
from benchmarks.rounds import NATIVE, Figures, ParticipantFailedError, Turn
from sysmetrics_native import Sampler

FIGURE = "core_percent"
TARGET = at_most(5, " %")
SIZES = ((80, 24), (200, 50))
SOURCES = ("default", "cpu_detail", "memory_detail", "disk_io", "network_rate", "pressure")
FEWEST_SERIES = 15
COMMAND = Path(sys.executable).with_name("sysmetrics-native")
WARM_UP_SECONDS = 3.0
LONGEST_READ_SECONDS = 0.1
END_SECONDS = 10.0
BYTES_AT_ONCE = 1 << 16


class Screen(NamedTuple):
    """A program on a pseudo-terminal."""

    pid: int
    file: int


def start(arguments: Sequence[str], columns: int, lines: int, folder: Path) -> Screen:
    """Runs the command on a terminal of this size."""
    variables = {**environment({}), "TERM": "xterm-256color"}
    pid, file = pty.fork()
    if pid == 0:
        try:
            os.chdir(folder)
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.execve(COMMAND, [str(COMMAND), "top", *arguments], variables)
        finally:
            os._exit(127)
    return Screen(pid, file)


def read_for(screen: Screen, seconds: float) -> int:
    """Reads what it writes, so that it never waits; how many bytes that were."""
    end = time.monotonic() + seconds
    count = 0
    while (left := end - time.monotonic()) > 0:
        if select.select([screen.file], [], [], min(left, LONGEST_READ_SECONDS))[0]:
            try:
                count += len(os.read(screen.file, BYTES_AT_ONCE))
            except OSError:  # it has ended
                raise ParticipantFailedError("sysmetrics-native top ended by itself") from None
    return count


def cpu_seconds(pid: int) -> float:
    """Of all its threads that are there."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total / 1e9


def end(screen: Screen) -> None:
    """Presses q, and waits."""
    os.write(screen.file, b"q")
    deadline = time.monotonic() + END_SECONDS
    while os.waitpid(screen.pid, os.WNOHANG)[0] == 0:
        with suppress(OSError):
            if select.select([screen.file], [], [], LONGEST_READ_SECONDS)[0]:
                os.read(screen.file, BYTES_AT_ONCE)
        if time.monotonic() > deadline:
            os.kill(screen.pid, 9)
            os.waitpid(screen.pid, 0)
            break
    os.close(screen.file)


def look(bench: Bench, size: tuple[int, int], *arguments: str) -> Figures:
    """Somebody looks for a while."""
    seconds = bench.seconds(10.0, 4.0)
    screen = start(arguments, *size, bench.folder)
    try:
        read_for(screen, WARM_UP_SECONDS)
        begin, before = time.monotonic(), cpu_seconds(screen.pid)
        written = read_for(screen, seconds)
        passed, took = time.monotonic() - begin, cpu_seconds(screen.pid) - before
    finally:
        end(screen)
    return {
        FIGURE: 100.0 * took / passed,
        "bytes_per_second": written / passed,
        "cpu_before": before,
    }


def name(what: str, size: tuple[int, int]) -> str:
    """Of a participant."""
    return f"{what}, {size[0]}×{size[1]}"  # noqa: RUF001  # a sign of times


def recorder(bench: Bench) -> Sampler:
    """What is looked at; sources that this machine lacks are left out."""
    sources = []
    for source in SOURCES:
        with suppress(ValueError):
            Sampler(sources=source)
            sources.append(source)
    return Sampler(1.0 / RATE, round(RATE), sources=sources, recorder=bench.folder / "top.smnrec")


def run(bench: Bench) -> Result:
    """Measures both sizes of a terminal."""
    sampler = recorder(bench)
    count = len(sampler.schema)
    with sampler:
        path = sampler.recording_path
        if path is None or count < FEWEST_SERIES:
            raise ParticipantFailedError(f"no recording of {FEWEST_SERIES} series can be made here")
        followed = f"top on {count} series at {RATE:g} Hz"
        turns: list[Turn] = [
            (name(followed, size), partial(look, bench, size, path)) for size in SIZES
        ]
        turns.append((name("top on this machine", SIZES[0]), partial(look, bench, SIZES[0])))
        samples = bench.alternate(turns)
    rows, notes = [], []
    for participant, _ in turns:
        share = samples.median(participant, FIGURE)
        figures = {} if share is None else {NATIVE: share}
        rows.append(Row(participant, "% of a core", figures, None, TARGET, share))
        written = samples.median(participant, "bytes_per_second")
        started = samples.median(participant, "cpu_before")
        notes.append(
            f"{participant}: {number(None if written is None else written / 1e3)} kB/s to the "
            f"terminal; {number(started)} s of CPU until it runs"
        )
    return Result(rows, {"top": samples}, notes)

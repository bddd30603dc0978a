"""CPU time of a program with all its processes, from /proc/<pid>/stat."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """One line of /proc/<pid>/stat, as far as it is needed."""

    parent: int
    ticks: int
    """User and system time, its own and that of the children that have ended."""


def _read(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has ended since the folder was listed
        return None
    fields = text[text.rindex(")") + 2 :].split()  # from the state on, which proc(5) counts as 3
    return Process(int(fields[1]), sum(map(int, fields[11:15])))


def _all() -> dict[int, Process]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return {pid: process for pid in pids if (process := _read(pid)) is not None}


def _tree(root: int, processes: dict[int, Process]) -> Iterable[int]:
    yield root
    for pid, process in processes.items():
        if process.parent == root:
            yield from _tree(pid, processes)


def cpu_seconds(root: int) -> float:
    """Of a process and all its descendants, those that have ended included.

    Descendants and not a process group: PostgreSQL gives every process of its own one.
    """
    processes = _all()
    if root not in processes:
        raise ProcessLookupError(f"process {root} has ended")
    return sum(processes[pid].ticks for pid in _tree(root, processes)) / TICKS_PER_SECOND

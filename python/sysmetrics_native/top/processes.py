"""Processes of a job, or of the machine: those that take the most CPU time."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

import psutil

SHORTEST_PERIOD_SECONDS = 2.0
_SHARE_OF_A_CORE = 0.01
"""That looking at them may take: where there are many it is done less often."""
MOST_ROWS = 40
_HIGHEST_TREE = 8


class ProcessRow(NamedTuple):
    """One process."""

    pid: int
    cpu: float | None
    """In percent of a core since the last look; `None` at the first."""
    memory_bytes: int
    """Resident."""
    command: str
    depth: int
    """Below the root, where it is a tree."""


class _Seen(NamedTuple):
    process: psutil.Process
    parent: int
    cpu_seconds: float
    memory_bytes: int
    share: float | None


class Processes:
    """Looked at now and then.

    Args:
        root: a process that is shown with its descendants, as a tree; `None` for all that there
            are, the busiest first.
    """

    def __init__(self, root: int | None = None) -> None:
        self._root = root
        self._before: dict[tuple[int, float], float] = {}
        self._looked = 0.0
        self._next = 0.0
        self.rows: list[ProcessRow] = []

    def look(self, now: float) -> bool:
        """Look again if it is time for it, by a monotonic clock; whether anything was looked at."""
        if now < self._next:
            return False
        begin = time.thread_time()
        self.rows = self._rows(now)
        cost = time.thread_time() - begin
        self._next = now + max(SHORTEST_PERIOD_SECONDS, cost / _SHARE_OF_A_CORE)
        self._looked = now
        return True

    def look_soon(self, now: float) -> None:
        """Have the next look after so short a time that shares can be told."""
        self._next = min(self._next, now)

    def _rows(self, now: float) -> list[ProcessRow]:
        seen = [found for process in self._candidates() if (found := self._see(process, now))]
        self._before = {_identity(one.process): one.cpu_seconds for one in seen}
        busiest = sorted(seen, key=_busy, reverse=True)[:MOST_ROWS]
        if self._root is None:
            return [_row(one, 0) for one in busiest]
        return list(_tree(busiest, self._root))

    def _candidates(self) -> Iterable[psutil.Process]:
        if self._root is None:
            return psutil.process_iter()
        try:
            root = psutil.Process(self._root)
            return [root, *root.children(recursive=True)]
        except psutil.Error:
            return []

    def _see(self, process: psutil.Process, now: float) -> _Seen | None:
        try:
            with process.oneshot():
                times = process.cpu_times()
                parent, memory = process.ppid(), process.memory_info().rss
                used = times.user + times.system
                before = self._before.get(_identity(process))
        except psutil.Error:
            return None
        passed = now - self._looked
        share = None if before is None or passed <= 0 else 100.0 * (used - before) / passed
        return _Seen(process, parent, used, memory, share)


def _identity(process: psutil.Process) -> tuple[int, float]:
    try:
        return process.pid, process.create_time()
    except psutil.Error:
        return process.pid, 0.0


def _busy(one: _Seen) -> tuple[float, int]:
    return one.share or 0.0, one.memory_bytes


def _tree(seen: list[_Seen], root: int) -> Iterable[ProcessRow]:
    """Parents before their children; whose parent is not shown stands below the root."""
    pids = {one.process.pid for one in seen}
    below: dict[int, list[_Seen]] = {}
    first = [one for one in seen if one.process.pid == root]
    for one in seen:
        if one.process.pid != root:
            below.setdefault(one.parent if one.parent in pids else root, []).append(one)
    waiting = [(one, 0) for one in reversed(first)] or [
        (one, 0) for one in reversed(below.pop(root, []))
    ]
    while waiting:
        one, depth = waiting.pop()
        yield _row(one, min(depth, _HIGHEST_TREE))
        children = below.pop(one.process.pid, [])
        waiting += [(child, depth + 1) for child in reversed(children)]


def _row(one: _Seen, depth: int) -> ProcessRow:
    try:
        command = " ".join(one.process.cmdline()) or f"[{one.process.name()}]"
    except psutil.Error:
        command = ""
    return ProcessRow(one.process.pid, one.share, one.memory_bytes, command, depth)

"""How a run's process ended, as far as that can be known afterwards.

A process that was killed says nothing. What is left are its traces: whether it is still there,
whether the machine has been started since, and the kernel's count of processes that were killed for
want of memory in its control group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sysmetrics_native.private_files import Writer

_CGROUP_ROOT = "/sys/fs/cgroup"
_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def surroundings() -> dict[str, Any]:
    """What to note at the start, so that the end can be explained: the count of OOM kills so far.

    Read from ``memory.events`` (cgroup v2) or ``memory.oom_control`` (v1) of this process's group.

    Returns:
        ``{"oom_kill_file", "oom_kills"}``, or nothing where there is no such file.
    """
    for path in _oom_kill_files():
        count = _oom_kills(path)
        if count is not None:
            return {"oom_kill_file": path, "oom_kills": count}
    return {}


class OomWatch:
    """Counts processes that the kernel kills for want of memory beside one that is still there.

    A process may move to another group, as a job does that makes its own; so `look` is to be called
    now and then. Version 1 of control groups does not say where a process was that has ended.

    Args:
        pid: the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._counts: dict[str, tuple[int, int]] = {}  # by file: the first and the last

    def look(self) -> None:
        """Read the counts of the groups that it is in and was in."""
        for path in self._counts:
            self._note(path)
        # The first that is there, as in `surroundings`: the group above counts for others, too.
        any(self._note(path) for path in _oom_kill_files(str(self._pid)))

    def _note(self, path: str) -> bool:
        count = _oom_kills(path)
        if count is None:  # the group is gone, and what it had counted stays
            return False
        first, _ = self._counts.get(path, (count, count))
        self._counts[path] = first, count
        return True

    @property
    def kills(self) -> int:
        """How many there were since its group was first seen."""
        return max((last - first for first, last in self._counts.values()), default=0)


def _oom_kill_files(process: str = "self") -> list[str]:
    """Where the count may be: in the group itself, and where a container sees its own group."""
    try:
        with open(f"/proc/{process}/cgroup", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except (OSError, UnicodeDecodeError):
        return []
    paths = []
    for _, controllers, group in (line for line in lines if len(line) == 3):  # noqa: PLR2004  # its columns
        if "memory" in controllers.split(","):
            folder, name = f"{_CGROUP_ROOT}/memory", "memory.oom_control"
        elif not controllers:
            folder, name = _CGROUP_ROOT, "memory.events"
        else:
            continue
        paths += [f"{folder}{group.rstrip('/')}/{name}", f"{folder}/{name}"]
    return paths


def _oom_kills(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            found = _OOM_KILLS.search(file.read())
    except (OSError, UnicodeDecodeError):
        return None
    return int(found.group(1)) if found else None


def how_it_ended(writer: Writer, noted: Mapping[str, Any]) -> str:
    """In words, for a process that did not say goodbye.

    Args:
        writer: the process.
        noted: what `surroundings` was at its start.
    """
    is_alive = writer.is_alive()
    if is_alive is None:
        return f"unknown: it ran on {writer.host}"
    if is_alive:
        return f"still running (process {writer.pid})"
    if not writer.is_of_this_boot():
        return "the machine was restarted"
    path, before = noted.get("oom_kill_file"), noted.get("oom_kills")
    if isinstance(path, str) and path.startswith(f"{_CGROUP_ROOT}/") and isinstance(before, int):
        now = _oom_kills(path)
        if now is not None and now > before:
            return f"out of memory: the kernel killed {now - before} in its control group"
    return "killed by a signal, crashed, or os._exit"

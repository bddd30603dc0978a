"""What a process can read about itself: CPU time of its threads, resident memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

NATIVE_THREAD = "smn-host"
"""Name of the thread that our native backend samples on."""

_SELF = Path("/proc/self")
_KIB_PER_MIB = 1024


def thread_ids() -> set[int]:
    """Kernel thread ids of all threads, those that Python doesn't know included."""
    return {int(task.name) for task in (_SELF / "task").iterdir()}


def thread_name(thread_id: int) -> str:
    """The name that the kernel has for a thread; empty once the thread is gone."""
    try:
        return (_SELF / "task" / str(thread_id) / "comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def threads_named(name: str) -> set[int]:
    """Ids of the threads with that name."""
    return {thread_id for thread_id in thread_ids() if thread_name(thread_id) == name}


def cpu_ns(threads: Iterable[int]) -> int:
    """Nanoseconds of CPU that the threads have had, from the scheduler's own count."""
    files = [_SELF / "task" / str(thread_id) / "schedstat" for thread_id in threads]
    return sum(int(file.read_text(encoding="ascii").split()[0]) for file in files)


def resident_mib() -> float:
    """Resident memory, counted page by page; VmRSS may lag behind by many pages."""
    for line in (_SELF / "smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) / _KIB_PER_MIB
    raise OSError("/proc/self/smaps_rollup has no line Rss")

"""What a process can read about itself: CPU time of its threads, resident memory."""

from __future__ import annotations

import os
from collections.abc import Iterable

NATIVE_THREAD = "smn-host"
"""Name of the thread that our native backend samples on."""

_TASKS = "/proc/self/task"


def thread_ids() -> set[int]:
    """Kernel thread ids of all threads, those that Python doesn't know included."""
    return {int(name) for name in os.listdir(_TASKS)}


def thread_name(thread_id: int) -> str:
    """The name that the kernel has for a thread; empty once the thread is gone."""
    try:
        with open(f"{_TASKS}/{thread_id}/comm", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def threads_named(name: str) -> set[int]:
    """Ids of the threads with that name."""
    return {thread_id for thread_id in thread_ids() if thread_name(thread_id) == name}


def cpu_ns(threads: Iterable[int]) -> int:
    """Nanoseconds of CPU that the threads have had, from the scheduler's own count."""
    total = 0
    for thread_id in threads:
        with open(f"{_TASKS}/{thread_id}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total


def resident_bytes() -> int:
    """Resident memory, counted page by page (VmRSS lags behind by some pages for each CPU)."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    raise OSError("/proc/self/smaps_rollup has no line Rss")

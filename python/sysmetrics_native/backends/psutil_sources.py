"""The host sources by way of psutil. A new one is a class here and an entry in `SOURCES`."""

from __future__ import annotations

import errno
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

import psutil

from sysmetrics_native import catalog
from sysmetrics_native.backends import SamplingOptions
from sysmetrics_native.backends.fold import Reading, SeriesSpec
from sysmetrics_native.threads import Thread
from sysmetrics_native.window import SeriesInfo

_IS_LINUX = sys.platform.startswith("linux")
_COUNTER_TURN = 1 << 32
_DISK_PATIENCE_SECONDS = 0.2
_HAS_FILES = hasattr(psutil.Process, "num_fds")  # Windows has handles, which are more than files

_LEAST_SECONDS = 0.005
"""Less than what CPU time is counted in: a rest of float arithmetic."""
_TICKS_LOST = 0.025
"""What rounding may take from the CPU time of a process when its parent waits for it."""
_CLOCK_SLACK = 2.0
"""Seconds: psutil dates processes by the second in which the machine was started."""
_MOST_GENERATIONS = 256

T = TypeVar("T")


class Source(Protocol):
    """Something to read once a tick."""

    @property
    def specs(self) -> Sequence[SeriesSpec]:
        """The series that it reads."""

    @property
    def min_interval(self) -> float:
        """Seconds; reading it more often tells nothing new."""

    def sample(self) -> Mapping[str, Reading]:
        """What there is this time, by key.

        Raises:
            IncompleteError: a part of it could not be read. Whatever else it raises: nothing could.
        """

    def close(self) -> None:
        """End what runs for it. There are no further readings."""


class IncompleteError(Exception):
    """A part of a source could not be read; `readings` has the rest."""

    def __init__(self, readings: Mapping[str, Reading]) -> None:
        super().__init__("a part of the source could not be read")
        self.readings = readings


def _spec(
    source: str, key: str, unit: str, kind: str, scale: float = 1.0, quantum: float = 0.0
) -> SeriesSpec:
    return SeriesSpec(SeriesInfo(key, unit, source, kind), scale, quantum)


class Cpu:
    """`psutil.cpu_times`, in seconds; steal, irq and softirq are busy, iowait is not."""

    min_interval = 0.0
    # The system counts CPU time in steps of about 10 ms, on each CPU: ten of them, less what floats
    # lose when they are added up.
    specs = (_spec("cpu", "cpu_utilization_percentage", "percentage", "ratio", 100.0, 0.0999),)

    def __init__(self) -> None:
        self._previous: Mapping[str, float] | None = None
        self._busy = 0.0
        self._total = 0.0

    def sample(self) -> Mapping[str, Reading]:
        times: Mapping[str, float] = psutil.cpu_times()._asdict()
        previous = times if self._previous is None else self._previous
        gained = {name: max(0.0, value - previous[name]) for name, value in times.items()}
        # user and nice already contain these two
        total = sum(gained.values()) - gained.get("guest", 0.0) - gained.get("guest_nice", 0.0)
        self._previous = times
        self._total += total
        self._busy += total - gained["idle"] - gained.get("iowait", 0.0)
        return {"cpu_utilization_percentage": (self._busy, self._total)}

    def close(self) -> None:
        """Nothing runs for it."""


class Memory:
    """`psutil.virtual_memory`."""

    min_interval = 0.0
    specs = (
        _spec("memory", "system_memory_usage_megabytes", "megabytes", "gauge", 1e-6),
        _spec("memory", "system_memory_usage_percentage", "percentage", "gauge"),
    )

    def sample(self) -> Mapping[str, Reading]:
        memory = psutil.virtual_memory()
        # psutil before 7.1 counted `used` on Linux in a way of its own.
        used = memory.total - memory.available if _IS_LINUX else memory.used
        return {
            "system_memory_usage_megabytes": float(used),
            "system_memory_usage_percentage": used / memory.total * 100.0,
        }

    def close(self) -> None:
        """Nothing runs for it."""


class _DiskPath:
    """One path, asked on a thread of its own: a dead network mount does not answer for days."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._requests: SimpleQueue[bool] = SimpleQueue()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._is_started = False
        self._is_asked = False
        # With the last reference, wherever that is dropped; until then the thread waits.
        self.close = weakref.finalize(self, self._requests.put, False)
        self.close.atexit = False

    def ask(self) -> bool:
        """Ask how much space there is, unless an answer is still due; whether it was not."""
        if self._is_asked:
            return False
        if not self._is_started:
            thread = Thread("smn-disk", _answer, (self._path, self._requests, self._answers))
            try:
                thread.start()
            except RuntimeError:  # the system gives none now: no answer
                return False
            self._is_started = True
        self._requests.put(True)
        self._is_asked = True
        return True

    def take(self, patience: float) -> Any:
        """What `psutil.disk_usage` returns.

        Raises:
            OSError: what it raised, or that there is no answer.
        """
        try:
            answer = self._answers.get(timeout=max(0.0, patience))
        except Empty:
            raise OSError(errno.ETIMEDOUT, "the path does not answer") from None
        self._is_asked = False
        if isinstance(answer, Exception):
            raise answer
        return answer


def _answer(path: str, requests: SimpleQueue[bool], answers: SimpleQueue[Any]) -> None:
    while requests.get():
        try:
            answers.put(psutil.disk_usage(path))
        except Exception as error:  # noqa: BLE001, PERF203  # for who asked
            answers.put(error)


class DiskSpace:
    """`psutil.disk_usage` of each path; one that does not answer has no values while it hangs."""

    min_interval = 1.0

    def __init__(self, disk_paths: Sequence[str]) -> None:
        suffixes = ["", *map(catalog.disk_key_suffix, disk_paths[1:])]
        self._paths = [
            (_DiskPath(path), suffix) for path, suffix in zip(disk_paths, suffixes, strict=True)
        ]
        self.specs = [spec for suffix in suffixes for spec in self._specs_with(suffix)]

    @staticmethod
    def _specs_with(suffix: str) -> list[SeriesSpec]:
        return [
            _spec("disk_space", f"disk_usage_percentage{suffix}", "percentage", "gauge"),
            _spec("disk_space", f"disk_usage_megabytes{suffix}", "megabytes", "gauge", 1e-6),
            _spec("disk_space", f"disk_available_megabytes{suffix}", "megabytes", "gauge", 1e-6),
        ]

    def sample(self) -> Mapping[str, Reading]:
        readings: dict[str, Reading] = {}
        failures = 0
        asked = [path.ask() for path, _ in self._paths]
        deadline = time.monotonic() + _DISK_PATIENCE_SECONDS
        for (path, suffix), is_new in zip(self._paths, asked, strict=True):
            try:
                # Waited for once: from then on it is looked whether it has come.
                space = path.take(deadline - time.monotonic() if is_new else 0.0)
            except Exception:  # noqa: BLE001  # a path that is gone hides only its own values
                failures += 1
                continue
            if space.used + space.free > 0:
                share = space.used / (space.used + space.free)
                readings[f"disk_usage_percentage{suffix}"] = share * 100.0
                readings[f"disk_usage_megabytes{suffix}"] = float(space.used)
                readings[f"disk_available_megabytes{suffix}"] = float(space.free)
        if failures:
            raise IncompleteError(readings)
        return readings

    def close(self) -> None:
        """End the threads; one that hangs ends when it comes back."""
        for path, _ in self._paths:
            path.close()


class Network:
    """`psutil.net_io_counters`: sums of each interface's increases, so they never fall."""

    min_interval = 0.0
    specs = (
        _spec("network", "network_receive_megabytes", "megabytes", "total", 1e-6),
        _spec("network", "network_transmit_megabytes", "megabytes", "total", 1e-6),
    )

    def __init__(self) -> None:
        self._previous: Mapping[str, Any] = {}
        self._received = 0
        self._sent = 0

    def sample(self) -> Mapping[str, Reading]:
        interfaces = psutil.net_io_counters(pernic=True, nowrap=False)
        if not interfaces:
            return {}
        for name, now in interfaces.items():
            before = self._previous.get(name)
            if before is not None:
                self._received += _increase(
                    before.bytes_recv, now.bytes_recv, before.packets_recv, now.packets_recv
                )
                self._sent += _increase(
                    before.bytes_sent, now.bytes_sent, before.packets_sent, now.packets_sent
                )
        self._previous = interfaces
        return {
            "network_receive_megabytes": float(self._received),
            "network_transmit_megabytes": float(self._sent),
        }

    def close(self) -> None:
        """Nothing runs for it."""


def _increase(before: int, now: int, packets_before: int, packets_now: int) -> int:
    """Bytes gained: none by an interface that was reset, a turn's rest by a 32-bit counter."""
    if packets_now < packets_before:
        return 0
    if now >= before:
        return now - before
    wrapped = _COUNTER_TURN - before + now
    return wrapped if before < _COUNTER_TURN and wrapped < _COUNTER_TURN // 2 else 0


class _Member:
    """A process of the run, as it was last seen."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process
        self.parent = 0
        self.is_there = True
        self.is_zombie = False
        self._has_begun = False
        self.has_cpu = False
        """Whether the last reading told its CPU time; the times below are in seconds."""
        self.own = self.waited = 0.0
        self.own_before = self.waited_before = 0.0
        self.owed = self.debt = 0.0
        """What ended children of its had used, which its `waited` has, or will have, in it; and
        the part that it owes from the reading before."""
        self.resident: int | None = None
        self.virtual: int | None = None
        self.threads: int | None = None
        self.files: int | None = None

    @property
    def used(self) -> float:
        return self.own + self.waited

    @property
    def unseen(self) -> float:
        """Of what it waited for since the last reading, what was not seen before."""
        return max(0.0, self.waited - self.waited_before - self.owed)

    def read(self) -> None:
        """Read it anew; whether it has ended is in `is_there` then."""
        self.own_before, self.waited_before = self.own, self.waited
        self.owed = self.debt
        try:
            with self.process.oneshot():
                self._read()
        except psutil.ZombieProcess:  # some systems tell nothing more of one
            self.is_zombie = True
        except psutil.NoSuchProcess:
            self.is_there = False

    def _read(self) -> None:
        if not self.process.is_running():  # or its pid is another's by now
            raise psutil.NoSuchProcess(self.process.pid)
        self.parent = self.process.ppid()
        self.is_zombie = _ask(self.process.status) == psutil.STATUS_ZOMBIE
        times = _ask(self.process.cpu_times)
        self.has_cpu = times is not None
        if times is not None:
            self.own = times.user + times.system
            # Not every system has these, or anything in them.
            self.waited = getattr(times, "children_user", 0.0)
            self.waited += getattr(times, "children_system", 0.0)
            if not self._has_begun:
                self.own_before, self.waited_before = self.own, self.waited
            self._has_begun = True
        if self.is_zombie:
            return
        memory = _ask(self.process.memory_info)
        self.resident = None if memory is None else memory.rss
        self.virtual = None if memory is None else memory.vms
        self.threads = _ask(self.process.num_threads)
        self.files = _ask(self.process.num_fds) if _HAS_FILES else None

    def settle_debt(self) -> None:
        """What it owes is due at the next reading, too: it may wait only after it was read."""
        unpaid = self.owed - max(0.0, self.waited - self.waited_before)
        self.debt = min(max(0.0, unpaid), self.owed - self.debt)


def _ask(function: Callable[[], T]) -> T | None:
    """What it tells; `None` where this user may not know."""
    try:
        return function()
    except psutil.AccessDenied:
        return None


class Process:
    """`psutil.Process` and its descendants, summed.

    Found with `children(recursive=True)`, which asks every process of the machine for its parent:
    hence once a second. One that was found stays ours when its parent ends. CPU time is a sum of
    increases. What an ended one used after it was last seen comes from `children_user` and
    `children_system` of who waited for it (Linux); elsewhere it is not known. A process that this
    user may not read makes the sum a lie: then there is none.
    """

    min_interval = 1.0

    def __init__(self, root: psutil.Process, *, with_children: bool) -> None:
        self._root = root
        self._with_children = with_children
        self._members = {root: _Member(root)}
        self._begin: float | None = None
        """Unix time of the first reading, less what dates of processes may be off."""
        self._cpu = 0.0
        # Steps of 10 ms, in readings a second apart: the last of a window may come sooner.
        self.specs = [
            _spec("process", "process_cpu_percentage", "percentage", "rate", 100.0, 0.09),
            _spec("process", "process_memory_rss_megabytes", "megabytes", "gauge", 1e-6),
            _spec("process", "process_memory_vms_megabytes", "megabytes", "gauge", 1e-6),
            _spec("process", "process_memory_percentage", "percentage", "gauge"),
            _spec("process", "process_threads", "threads", "gauge"),
        ]
        if _HAS_FILES:
            self.specs.append(_spec("process", "process_open_files", "files", "gauge"))

    def sample(self) -> Mapping[str, Reading]:
        for member in self._members.values():
            member.read()
        self._settle()
        self._members = {key: it for key, it in self._members.items() if it.is_there}
        if self._with_children:
            self._search()
        if self._begin is None:
            self._begin = time.time() - _CLOCK_SLACK
        if not self._members:
            raise psutil.NoSuchProcess(self._root.pid)
        return self._sums()

    def close(self) -> None:
        """Nothing runs for it."""

    # ---- CPU time -------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Count what was used since the last reading."""
        by_pid = {process.pid: member for process, member in self._members.items()}
        for member in self._members.values():
            if not member.is_there:
                _charge(member, by_pid, member.used + member.debt)
        # Read, then ended and waited for before its parent was read: it must not count twice.
        for member in self._members.values():
            holder = _ancestor(member, by_pid) if member.is_there else None
            if (
                holder is not None
                and holder.unseen + _TICKS_LOST >= member.used
                and holder.unseen > _LEAST_SECONDS
                and not member.process.is_running()
            ):
                member.is_there = False
                _charge(member, by_pid, member.used)
        for member in self._members.values():
            self._cpu += max(0.0, member.own - member.own_before)
            if self._with_children:
                self._cpu += member.unseen
            member.settle_debt()

    # ---- who belongs to it ----------------------------------------------------------------------

    def _search(self) -> None:
        roots = list(self._members)
        seen: set[psutil.Process] = set()
        for process in roots:  # the first one has all the others below it, but orphans
            if process in seen:
                continue
            try:
                found = process.children(recursive=True)
            except psutil.NoSuchProcess:
                continue
            seen.update(found)
            for child in found:
                if child not in self._members:
                    self._welcome(child)

    def _welcome(self, process: psutil.Process) -> None:
        """Take in one that was born since: it counts from its birth. From before: from now on."""
        member = _Member(process)
        member.read()
        if not member.is_there:
            return
        self._members[process] = member
        if self._begin is not None and process.create_time() >= self._begin:
            self._cpu += member.used

    # ---- sums -----------------------------------------------------------------------------------

    def _sums(self) -> Mapping[str, Reading]:
        living = [member for member in self._members.values() if not member.is_zombie]
        resident = _sum([member.resident for member in living])
        sums = {
            "process_cpu_percentage": self._cpu
            if all(member.has_cpu or member.is_zombie for member in self._members.values())
            else None,
            "process_memory_rss_megabytes": resident,
            "process_memory_vms_megabytes": _sum([member.virtual for member in living]),
            "process_memory_percentage": None
            if resident is None
            else resident / psutil.virtual_memory().total * 100.0,
            "process_threads": _sum([member.threads for member in living]),
        }
        if _HAS_FILES:
            sums["process_open_files"] = _sum([member.files for member in living])
        return {key: value for key, value in sums.items() if value is not None}


def _sum(values: Sequence[int | None]) -> float | None:
    """`None` where one is not known."""
    known = [value for value in values if value is not None]
    return float(sum(known)) if len(known) == len(values) else None


def _ancestor(member: _Member, by_pid: Mapping[int, _Member]) -> _Member | None:
    """The nearest one that is there."""
    for _ in range(_MOST_GENERATIONS):
        parent = by_pid.get(member.parent)
        if parent is None or parent is member or parent.is_there:
            return None if parent is member else parent
        member = parent
    return None


def _charge(member: _Member, by_pid: Mapping[int, _Member], seconds: float) -> None:
    """What was seen of one that has ended is, or will be, in what its parent has waited for."""
    holder = _ancestor(member, by_pid)
    if holder is not None:
        holder.owed += seconds


def _open_process(options: SamplingOptions) -> Process | None:
    try:
        root = psutil.Process(options.pid or None)
    except psutil.NoSuchProcess:
        return None
    return Process(root, with_children=options.process_children)


SOURCES: Mapping[str, Callable[[SamplingOptions], Source | None]] = {
    "cpu": lambda _: Cpu(),
    "memory": lambda _: Memory(),
    "disk_space": lambda options: DiskSpace(options.disk_paths),
    "network": lambda _: Network(),
    "process": _open_process,
}
"""Each makes a source, or says with `None` that this machine has no such thing."""

NOT_BY_DEFAULT = {"process"}

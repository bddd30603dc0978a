"""The host sources by way of psutil. A new one is a class here and an entry in `SOURCES`."""

from __future__ import annotations

import errno
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import psutil

from sysmetrics_native import catalog
from sysmetrics_native.backends import SamplingOptions
from sysmetrics_native.backends.fold import Reading, SeriesSpec
from sysmetrics_native.threads import Thread
from sysmetrics_native.window import SeriesInfo

_IS_LINUX = sys.platform.startswith("linux")
_COUNTER_TURN = 1 << 32
_DISK_PATIENCE_SECONDS = 0.2


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


SOURCES: Mapping[str, Callable[[SamplingOptions], Source]] = {
    "cpu": lambda _: Cpu(),
    "memory": lambda _: Memory(),
    "disk_space": lambda options: DiskSpace(options.disk_paths),
    "network": lambda _: Network(),
}

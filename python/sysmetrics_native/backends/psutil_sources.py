"""The host sources by way of psutil. A new one is a class here and an entry in `SOURCES`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import psutil

from sysmetrics_native import catalog
from sysmetrics_native.backends import SamplingOptions
from sysmetrics_native.backends.fold import Reading, SeriesSpec
from sysmetrics_native.window import SeriesInfo

_IS_LINUX = sys.platform.startswith("linux")
_COUNTER_TURN = 1 << 32


class Source(Protocol):
    """Something to read once a tick."""

    @property
    def specs(self) -> Sequence[SeriesSpec]:
        """The series that it reads."""

    @property
    def min_interval(self) -> float:
        """Seconds; reading it more often tells nothing new."""

    def sample(self) -> Mapping[str, Reading]:
        """What there is this time, by key."""


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


class DiskSpace:
    """`psutil.disk_usage` of each path."""

    min_interval = 1.0

    def __init__(self, disk_paths: Sequence[str]) -> None:
        suffixes = ["", *map(catalog.disk_key_suffix, disk_paths[1:])]
        self._suffix_of = dict(zip(disk_paths, suffixes, strict=True))
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
        failure: OSError | None = None
        for path, suffix in self._suffix_of.items():
            try:
                space = psutil.disk_usage(path)
            except OSError as error:  # a path that is gone hides only its own values
                failure = error
                continue
            if space.used + space.free > 0:
                share = space.used / (space.used + space.free)
                readings[f"disk_usage_percentage{suffix}"] = share * 100.0
                readings[f"disk_usage_megabytes{suffix}"] = float(space.used)
                readings[f"disk_available_megabytes{suffix}"] = float(space.free)
        if failure is not None and not readings:
            raise failure
        return readings


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

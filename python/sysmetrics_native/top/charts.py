"""Which charts there are of a machine or a recording, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sysmetrics_native.recording_file import RecordedSeries
from sysmetrics_native.top.history import Combination
from sysmetrics_native.top.stretches import Floats, is_shown_as_rate
from sysmetrics_native.units import PER_SECOND, SYMBOLS

OVERVIEW = "overview"
"""The group of charts that comes first; the others have the names of sources."""

_UNIT_IN_KEY = re.compile(
    r"_(percentage|megabytes_per_second|megabytes|watts|joules|celsius|megahertz|per_second)"
)
_OF_ONE_CORE = "process_cpu_percentage"
_GPU = re.compile(r"gpu_(\d+)_utilization_percentage")


class Part(NamedTuple):
    """A number that stands beside the chart that it is a part of."""

    label: str
    key: str
    unit: str
    """Short; empty where it is that of the chart."""


class Chart(NamedTuple):
    """One chart."""

    key: str
    """Of the series, or combination, that is drawn."""
    label: str
    unit: str
    """Short."""
    parts: tuple[Part, ...] = ()
    top: float | None = None
    """The largest value that there can be, where that is known."""


class Charts(NamedTuple):
    """All charts, by the groups that can be chosen, and what must be combined for them."""

    groups: dict[str, tuple[Chart, ...]]
    combinations: tuple[Combination, ...]


def unit_of(series: RecordedSeries) -> str:
    """As it is shown."""
    if is_shown_as_rate(series):
        return "MB/s"
    # What is counted is in the label.
    counted = "/s" if series.unit.endswith(PER_SECOND) else series.unit
    return SYMBOLS.get(series.unit, counted)


def label_of(series: RecordedSeries) -> str:
    """The key in words, without the unit."""
    return _UNIT_IN_KEY.sub("", series.key).replace("_", " ")


def top_of(series: RecordedSeries) -> float | None:
    """The largest value that a series can have: shares are 100 at most, but those of one core."""
    is_share = series.unit == "percentage" and series.key != _OF_ONE_CORE
    return 100.0 if is_share else None


def charts_of(series: Sequence[RecordedSeries]) -> Charts:
    """The charts that can be made of these series."""
    by_key = {one.key: one for one in series}
    overview = _Overview(by_key)
    groups = {OVERVIEW: overview.charts()}
    for one in series:
        chart = Chart(one.key, label_of(one), unit_of(one), top=top_of(one))
        groups[one.source] = (*groups.get(one.source, ()), chart)
    if not groups[OVERVIEW]:
        del groups[OVERVIEW]
    return Charts(groups, tuple(overview.combinations))


def _sum(parts: Sequence[Floats]) -> Floats:
    total: Floats = np.sum(parts, axis=0)
    return total


def _largest(parts: Sequence[Floats]) -> Floats:
    largest: Floats = np.max(parts, axis=0)
    return largest


class _Overview:
    """What one wants to see of a machine at first sight."""

    def __init__(self, series: dict[str, RecordedSeries]) -> None:
        self._series = series
        self.combinations: list[Combination] = []

    def charts(self) -> tuple[Chart, ...]:
        candidates = [
            self._one(
                "cpu_utilization_percentage", "CPU", ("busiest core", "cpu_core_max_percentage")
            ),
            self._one(
                "system_memory_usage_percentage", "memory", ("", "system_memory_usage_megabytes")
            ),
            *self._gpus(),
            self._disk(),
            self._network(),
            self._pressure(),
            self._one(
                "process_cpu_percentage", "job CPU", ("memory", "process_memory_rss_megabytes")
            ),
            self._one(
                "container_cpu_utilization_percentage",
                "container CPU",
                ("throttled", "container_cpu_throttled_percentage"),
            ),
            self._one(
                "container_memory_usage_percentage",
                "container memory",
                ("", "container_memory_usage_megabytes"),
            ),
        ]
        return tuple(chart for chart in candidates if chart is not None)

    def _one(self, key: str, label: str, *parts: tuple[str, str]) -> Chart | None:
        if key not in self._series:
            return None
        series = self._series[key]
        unit = unit_of(series)
        return Chart(key, label, unit, self._parts(parts, unit), top_of(series))

    def _parts(self, parts: Iterable[tuple[str, str]], unit: str) -> tuple[Part, ...]:
        found = []
        for label, key in parts:
            if key in self._series:
                own = unit_of(self._series[key])
                found.append(Part(label, key, "" if own == unit else own))
        return tuple(found)

    def _gpus(self) -> list[Chart | None]:
        indices = [int(found[1]) for found in map(_GPU.fullmatch, self._series) if found]
        return [
            self._one(
                f"gpu_{i}_utilization_percentage",
                f"GPU {i}",
                ("memory", f"gpu_{i}_memory_usage_percentage"),
                ("", f"gpu_{i}_power_usage_watts"),
            )
            for i in sorted(indices)
        ]

    def _combined(
        self, key: str, label: str, parts: Sequence[tuple[str, str]], *, is_sum: bool
    ) -> Chart | None:
        there = [(name, one) for name, one in parts if one in self._series]
        if not there:
            return None
        of = tuple(one for _, one in there)
        self.combinations.append(Combination(key, of, _sum if is_sum else _largest))
        first = self._series[of[0]]
        unit = unit_of(first)
        return Chart(key, label, unit, self._parts(there, unit), top_of(first))

    def _disk(self) -> Chart | None:
        rates = [(name, f"disk_{name}_megabytes_per_second") for name in ("read", "write")]
        chart = self._combined("disk", "disk", rates, is_sum=True)
        return chart or self._one(
            "disk_usage_percentage", "disk space", ("free", "disk_available_megabytes")
        )

    def _network(self) -> Chart | None:
        for unit in ("megabytes_per_second", "megabytes"):
            rates = [("in", f"network_receive_{unit}"), ("out", f"network_transmit_{unit}")]
            chart = self._combined("network", "network", rates, is_sum=True)
            if chart is not None:
                return chart
        return None

    def _pressure(self) -> Chart | None:
        names = [(name, f"pressure_{name}_some_percentage") for name in ("cpu", "memory", "io")]
        return self._combined("pressure", "pressure", names, is_sum=False)

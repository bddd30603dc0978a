"""What sampling yields: windows, and the statistics of each series in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple


class SeriesInfo(NamedTuple):
    """What a source says of one of its series."""

    key: str
    """Name in the catalogue, such as ``cpu_utilization_percentage``."""
    unit: str
    """``percentage``, ``megabytes``, …"""
    source: str
    """Name of the source that reads it."""
    kind: str
    """``gauge`` (a reading), ``total`` (a running total since the start, never falling),
    ``rate`` (increase of a counter a second) or ``ratio`` (increase of a counter over that of
    another)."""


class Series(NamedTuple):
    """Statistics of one series over one window, in the unit that its key names.

    Each is ``None`` where there was no value. For a rate or ratio the mean is the difference over
    the whole window, exact however many ticks were missed; the others come from stretches of the
    window that are long enough to give a meaningful value (100 ms of CPU time for shares of it,
    0.4 s for the power of a GPU, 50 ms for that of a CPU, page faults and context switches, 5 ms
    for pressure, else one tick). Percentiles interpolate between the two nearest ranks.
    """

    mean: float | None = None
    min: float | None = None
    max: float | None = None
    last: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Window(Mapping[str, Series]):
    """One window: a read-only mapping from every key of the schema to its `Series`.

    Attributes:
        start: Unix time in seconds at which the window begins: its end minus its length by the
            monotonic clock, so a step of the wall clock never makes it end before it starts.
        end: Unix time in seconds of its last tick.
        samples: ticks taken.
        missed: ticks skipped because the machine was late.
        merged: how many older windows were folded into this one because nobody took them in time;
            a merged window has no percentiles.
    """

    __slots__ = ("_series", "end", "merged", "missed", "samples", "start")

    def __init__(
        self,
        series: Mapping[str, Series],
        *,
        start: float,
        end: float,
        samples: int,
        missed: int = 0,
        merged: int = 0,
    ) -> None:
        self._series = series
        self.start = start
        self.end = end
        self.samples = samples
        self.missed = missed
        self.merged = merged

    def __getitem__(self, key: str) -> Series:
        """The series' statistics; a key that the schema does not have is a `KeyError`."""
        return self._series[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._series)

    def __len__(self) -> int:
        return len(self._series)

    def __repr__(self) -> str:
        return (
            f"Window(start={self.start:.3f}, end={self.end:.3f}, samples={self.samples}, "
            f"missed={self.missed}, merged={self.merged}, series={len(self)})"
        )

"""Windows for backends without the C core: the arithmetic of csrc/window.c, in Python."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sysmetrics_native.window import Series, SeriesInfo, Window

_SECONDS_PER_NS = 1e-9

Reading = float | tuple[float, float]
"""What a source reads: one number for a gauge or total, a counter for a rate, (numerator,
denominator) counters for a ratio."""


class RowTime(NamedTuple):
    """When a row was read."""

    tick: int
    """Deadlines since the start, missed ones included."""
    monotonic_ns: int
    """For differences."""
    wall_ns: int
    """Unix time, for people."""


class SeriesSpec(NamedTuple):
    """A series and how its values are made."""

    info: SeriesInfo
    scale: float = 1.0
    """From the unit of the reading to the unit of the series."""
    quantum: float = 0.0
    """Smallest increase of a ratio's denominator that gives a meaningful value."""


class Fold:
    """One series of one window, while the window is open and until it is read.

    Spans (the stretches that min, max and percentiles come from) partition the window; the newest
    stays pending, so that a short rest at the end can be joined to it.
    """

    def __init__(self, spec: SeriesSpec, previous: Reading | None = None) -> None:
        self.spec = spec
        self.previous = previous
        self.numerator = 0.0
        self.denominator = 0.0
        self.values: list[float] = []
        self.merged = False
        self._span = (0.0, 0.0)
        self._mark = (0.0, 0.0)

    def add(self, reading: Reading) -> None:
        """Take in one reading."""
        if not isinstance(reading, tuple):
            self.numerator += reading
            self.denominator += 1.0
            self.values.append(self.spec.scale * reading)
            return
        self._add_increase(reading)
        unmarked = self.denominator - self._mark[1]
        if unmarked <= 0.0 or unmarked < self.spec.quantum:
            return
        self._take_span(self._mark)
        self._mark = (self.numerator, self.denominator)

    def _add_increase(self, reading: tuple[float, float]) -> None:
        """Add what the counters gained; one that fell gives nothing this time."""
        if isinstance(self.previous, tuple):
            gained = reading[0] - self.previous[0]
            passed = reading[1] - self.previous[1]
            if gained >= 0.0 and passed >= 0.0:
                self.numerator += gained
                self.denominator += passed
        self.previous = reading

    def _take_span(self, end: tuple[float, float]) -> None:
        length = end[1] - self._span[1]
        if length > 0.0:
            self.values.append(self.spec.scale * (end[0] - self._span[0]) / length)
        self._span = end

    def close(self, *, partial: bool) -> None:
        """End the window; one cut short may be too short for its ratio to tell anything."""
        if self.spec.info.kind not in ("rate", "ratio"):
            return
        if partial and self.denominator < self.spec.quantum:
            self.numerator = self.denominator = 0.0
        else:
            self._take_span((self.numerator, self.denominator))

    def merge_older(self, older: Fold) -> None:
        """Fold in the same series of the window before."""
        self.numerator += older.numerator
        self.denominator += older.denominator
        values = older.values + self.values
        # What min, max and last need; percentiles of a merged window are absent.
        self.values = [min(values), max(values), values[-1]] if values else []
        self.merged = True

    def series(self, *, percentiles: bool) -> Series:
        """The statistics."""
        mean = self.spec.scale * self.numerator / self.denominator if self.denominator else None
        if not self.values:
            return Series(mean=mean)
        ranks: list[float | None] = [None, None, None]
        if percentiles and not self.merged:
            ordered = sorted(self.values)
            ranks = [_percentile(ordered, share) for share in (0.50, 0.95, 0.99)]
        return Series(mean, min(self.values), max(self.values), self.values[-1], *ranks)


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Between the two nearest ranks."""
    rank = share * (len(ordered) - 1)
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (rank - below) * (ordered[above] - ordered[below])


class OpenWindow:
    """A window being filled. It begins at the last row of the one before.

    It ends with the first row that reaches its last deadline, or early, with sampling itself.
    """

    def __init__(self, folds: Mapping[str, Fold], start: RowTime, samples_per_window: int) -> None:
        self._folds = folds
        self._start = start
        self._last = start
        self._samples_per_window = samples_per_window
        self._end_tick = (start.tick // samples_per_window + 1) * samples_per_window
        self.samples = 0
        self._missed = 0

    @classmethod
    def first(
        cls,
        specs: Iterable[SeriesSpec],
        time: RowTime,
        readings: Mapping[str, Reading],
        samples_per_window: int,
    ) -> OpenWindow:
        """The window that begins with a reading which counters start from."""
        folds = {spec.info.key: Fold(spec) for spec in specs}
        for key, reading in readings.items():
            folds[key].previous = _at(folds[key].spec, reading, time)
        return cls(folds, time, samples_per_window)

    def ends_at(self, tick: int) -> bool:
        """Whether a row of that tick is this window's last."""
        return tick >= self._end_tick

    def add(self, time: RowTime, readings: Mapping[str, Reading]) -> None:
        """Take in a row; a series that it lacks is absent this time."""
        for key, reading in readings.items():
            fold = self._folds[key]
            fold.add(_at(fold.spec, reading, time))
        self.samples += 1
        # A last reading between two ticks has the number of the one before: none was missed.
        self._missed += max(0, time.tick - self._last.tick - 1)
        self._last = time

    def close(self) -> ClosedWindow:
        """End the window with the row that was added last."""
        for fold in self._folds.values():
            fold.close(partial=not self.ends_at(self._last.tick))
        length_ns = self._last.monotonic_ns - self._start.monotonic_ns
        return ClosedWindow(self._folds, length_ns, self._last.wall_ns, self.samples, self._missed)

    def next(self) -> OpenWindow:
        """The window that follows."""
        folds = {key: Fold(fold.spec, fold.previous) for key, fold in self._folds.items()}
        return OpenWindow(folds, self._last, self._samples_per_window)


def _at(spec: SeriesSpec, reading: Reading, time: RowTime) -> Reading:
    """The reading with what its increase is divided by: for a rate, the time that passes."""
    if spec.info.kind == "rate" and not isinstance(reading, tuple):
        return reading, time.monotonic_ns * _SECONDS_PER_NS
    return reading


class ClosedWindow:
    """A window that waits to be read."""

    def __init__(
        self, folds: Mapping[str, Fold], length_ns: int, end_ns: int, samples: int, missed: int
    ) -> None:
        self.folds = folds
        self.length_ns = length_ns
        self.end_ns = end_ns
        self.samples = samples
        self.missed = missed
        self.merged = 0

    def merge_older(self, older: ClosedWindow) -> None:
        """Fold in the window before, so that no time is lost."""
        for key, fold in self.folds.items():
            fold.merge_older(older.folds[key])
        self.length_ns += older.length_ns
        self.samples += older.samples
        self.missed += older.missed
        self.merged += older.merged + 1

    def window(self, *, percentiles: bool) -> Window:
        """As users see it."""
        end = self.end_ns * _SECONDS_PER_NS
        return Window(
            {key: fold.series(percentiles=percentiles) for key, fold in self.folds.items()},
            start=end - self.length_ns * _SECONDS_PER_NS,
            end=end,
            samples=self.samples,
            missed=self.missed,
            merged=self.merged,
        )

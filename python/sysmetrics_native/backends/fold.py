"""Windows for backends without the C core: the arithmetic of csrc/window.c, in Python."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sysmetrics_native.window import Series, SeriesInfo, Window

Reading = float | tuple[float, float]
"""What a source reads: one number for a gauge or total, (numerator, denominator) counters for a
ratio."""


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

    def __init__(self, spec: SeriesSpec, previous: Reading | None) -> None:
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
        if self.spec.info.kind != "ratio":
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
    """A window being filled. It begins at the last reading of the one before."""

    def __init__(self, folds: Mapping[str, Fold], first_tick: int, start: float) -> None:
        self.folds = folds
        self.first_tick = first_tick
        self.start = start
        self.samples = 0

    def add(self, readings: Mapping[str, Reading]) -> None:
        """Take in what one tick read; a series that it lacks is absent this time."""
        for key, reading in readings.items():
            self.folds[key].add(reading)
        self.samples += 1

    def close(self, tick: int, now: float, wall: float, *, partial: bool) -> ClosedWindow:
        """End the window at a tick, `now` by the monotonic clock and `wall` by the other."""
        for fold in self.folds.values():
            fold.close(partial=partial)
        missed = max(0, tick - self.first_tick - self.samples)
        return ClosedWindow(self.folds, now - self.start, wall, self.samples, missed)

    def next(self, tick: int, now: float) -> OpenWindow:
        """The window that follows."""
        folds = {key: Fold(fold.spec, fold.previous) for key, fold in self.folds.items()}
        return OpenWindow(folds, tick, now)


class ClosedWindow:
    """A window that waits to be read."""

    def __init__(
        self, folds: Mapping[str, Fold], length: float, end: float, samples: int, missed: int
    ) -> None:
        self.folds = folds
        self.length = length
        self.end = end
        self.samples = samples
        self.missed = missed
        self.merged = 0

    def merge_older(self, older: ClosedWindow) -> None:
        """Fold in the window before, so that no time is lost."""
        for key, fold in self.folds.items():
            fold.merge_older(older.folds[key])
        self.length += older.length
        self.samples += older.samples
        self.missed += older.missed
        self.merged += older.merged + 1

    def window(self, *, percentiles: bool) -> Window:
        """As users see it."""
        return Window(
            {key: fold.series(percentiles=percentiles) for key, fold in self.folds.items()},
            start=self.end - self.length,
            end=self.end,
            samples=self.samples,
            missed=self.missed,
            merged=self.merged,
        )

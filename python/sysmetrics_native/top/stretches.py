"""From rows of counters to values, each of which stands for a stretch of time."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sysmetrics_native.recording_file import RecordedSeries

Floats = NDArray[np.float64]

_PATIENCE = 2.5
"""A reading that comes later than so many times the usual leaves a gap before it."""
_COUNTERS_PATIENCE_SECONDS = 1.0
"""Over a short gap a counter still tells the mean."""
SHORTEST_PATIENCE_SECONDS = 2.5
"""So long a value is the current one at least: some are read once a second."""
_DISTANCES_KEPT = 63
_SMALLEST = 1e-9


class Stretches(NamedTuple):
    """Values, and the time that each describes: behind `begins`, up to and including `ends`."""

    begins: Floats
    """In seconds, as `ends`; it increases."""
    ends: Floats
    values: Floats

    @classmethod
    def none(cls) -> Stretches:
        """None at all."""
        empty = np.empty(0)
        return cls(empty, empty, empty)


class Pace:
    """How far apart the readings of a series usually are; some sources are read seldom."""

    def __init__(self, interval: float) -> None:
        self._distances: deque[float] = deque(maxlen=_DISTANCES_KEPT)
        self.usual = interval

    def see(self, distances: Floats) -> None:
        """Take in the distances between readings, in seconds."""
        self._distances.extend(distances[-_DISTANCES_KEPT:].tolist())
        if self._distances:
            self.usual = statistics.median(self._distances)

    @property
    def patience(self) -> float:
        """After so many seconds without a reading one is missing."""
        return _PATIENCE * self.usual


class StretchReader:
    """Makes the values of one series from rows, batch by batch.

    Args:
        series: how they are made. A running total in megabytes becomes its increase a second, which
            is what people want to see of it; any other total is shown as it is.
        interval: seconds between two ticks.
    """

    def __init__(self, series: RecordedSeries, interval: float) -> None:
        self._series = series
        self._pace = Pace(interval)
        self._is_counter = series.kind in ("rate", "ratio") or is_shown_as_rate(series)
        self._last: tuple[float, float, float] | None = None
        self._pending = (0.0, 0.0)
        self._span_begin = 0.0
        self._last_reading: float | None = None

    @property
    def patience(self) -> float:
        """Seconds after which a value is no longer the current one."""
        return max(SHORTEST_PATIENCE_SECONDS, self._pace.patience)

    def take(self, times: Floats, columns: Floats) -> Stretches:
        """The values of some rows.

        Args:
            times: of the rows, in seconds of a clock that never goes back.
            columns: a row for each, NaN where there was no reading.
        """
        readings = columns[:, self._series.numerator]
        divisors = times
        if self._series.denominator is not None:
            divisors = columns[:, self._series.denominator]
        is_there = np.isfinite(readings) & np.isfinite(divisors)
        times, readings, divisors = times[is_there], readings[is_there], divisors[is_there]
        if len(times) == 0:
            return Stretches.none()
        take = self._take_counter if self._is_counter else self._take_gauge
        with np.errstate(all="ignore"):  # of a file that somebody made up
            begins, ends, values = take(times, readings, divisors)
        is_number = np.isfinite(values)
        return Stretches(begins[is_number], ends[is_number], values[is_number])

    def _take_gauge(self, times: Floats, readings: Floats, _: Floats) -> Stretches:
        before = times[0] if self._last_reading is None else self._last_reading
        distances = steps(times, before)
        self._pace.see(distances[distances > 0.0])
        if self._last_reading is None:
            distances[0] = self._pace.usual
        self._last_reading = float(times[-1])
        lengths = np.minimum(distances, self._pace.patience)
        return Stretches(times - lengths, times, self._series.scale * readings)

    def _take_counter(self, times: Floats, readings: Floats, divisors: Floats) -> Stretches:
        if self._last is None:
            self._last = (float(times[0]), float(readings[0]), float(divisors[0]))
            self._span_begin = self._last[0]
        gained = steps(readings, self._last[1])
        passed = steps(divisors, self._last[2])
        was_reset = (gained < 0.0) | (passed < 0.0)
        gained[was_reset] = passed[was_reset] = 0.0
        self._last = (float(times[-1]), float(readings[-1]), float(divisors[-1]))
        sums = self._pending[0] + np.cumsum(gained)
        divisor_sums = self._pending[1] + np.cumsum(passed)
        at = span_ends(divisor_sums, self._series.quantum)
        if len(at) == 0:
            self._pending = (float(sums[-1]), float(divisor_sums[-1]))
            return Stretches.none()
        self._pending = (
            float(sums[-1] - sums[at[-1]]),
            float((divisor_sums - divisor_sums[at[-1]])[-1]),
        )
        shares = steps(sums[at], 0.0) / steps(divisor_sums[at], 0.0)
        ends = times[at]
        lengths = steps(ends, self._span_begin)
        self._span_begin = float(ends[-1])
        self._pace.see(lengths)
        longest = max(_COUNTERS_PATIENCE_SECONDS, self._pace.patience)
        lengths = np.minimum(lengths, longest)
        return Stretches(ends - lengths, ends, self._series.scale * shares)


def steps(values: Floats, before: float) -> Floats:
    """What each value is more than the one before it: `numpy.diff` in a third of its time."""
    found = np.empty_like(values)
    if len(values) > 0:
        found[0] = values[0] - before
        np.subtract(values[1:], values[:-1], out=found[1:])
    return found


def is_shown_as_rate(series: RecordedSeries) -> bool:
    """Whether a running total is shown as what it grows by in a second."""
    return series.kind == "total" and series.unit == "megabytes"


def span_ends(sums: Floats, quantum: float) -> NDArray[np.intp]:
    """Where spans end whose divisor has grown by the quantum, and by something at least.

    Args:
        sums: what the divisor has grown by since the last span ended; it never falls.
        quantum: see `RecordedSeries`.
    """
    least = max(quantum, _SMALLEST)
    if len(sums) > 0 and steps(sums, 0.0).min() >= least:
        return np.arange(len(sums))
    return np.fromiter(_span_ends(sums.tolist(), least), np.intp)


def _span_ends(sums: list[float], least: float) -> Iterable[int]:
    at = bisect_left(sums, least)
    while at < len(sums):
        yield at
        at = bisect_left(sums, sums[at] + least, at + 1)

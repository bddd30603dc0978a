"""What has been seen: every value of the last minutes, and summaries of what was before that.

All times are seconds of a clock that never goes back; `WallClock` turns them into Unix time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sysmetrics_native.recording_file import RecordedSeries
from sysmetrics_native.top.stretches import (
    SHORTEST_PATIENCE_SECONDS,
    Floats,
    Pace,
    Stretches,
    StretchReader,
    steps,
)

FINE = 1 << 15
"""Values of a series that are kept as they are."""
COARSE = 1 << 13
"""Summaries of older ones; then each is made of twice as much time."""
_FIRST_COARSE_SECONDS = 1.0
_FIRST_ROOM = 256
_STEP_SECONDS = 0.05
"""Of the wall clock: smaller differences are what it takes to read two clocks."""
_MOST_STEPS = 1000

_BEGINS, _ENDS, _WEIGHTS, _LOWS, _MEANS, _HIGHS, _PEAKS = range(7)


class Columns(NamedTuple):
    """Stretches of equal length side by side, as a chart has them; NaN where there is a gap."""

    lows: Floats
    means: Floats
    highs: Floats


class Summary(NamedTuple):
    """Some time of a series in numbers."""

    current: float | None
    """The value at its end; `None` where there is none any more."""
    low: float
    mean: float
    high: float
    peak: float
    """When the largest value was there."""


class _Table:
    """Rows of numbers that grow at the end and are dropped at the beginning."""

    def __init__(self, rows: int) -> None:
        self._data = np.empty((rows, _FIRST_ROOM))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def data(self) -> Floats:
        """A view: it is good until something changes."""
        return self._data[:, : self._count]

    def append(self, block: Floats) -> None:
        count = self._count + block.shape[1]
        if count > self._data.shape[1]:
            larger = np.empty((len(self._data), max(count, 2 * self._data.shape[1])))
            larger[:, : self._count] = self.data
            self._data = larger
        self._data[:, self._count : count] = block
        self._count = count

    def drop(self, count: int) -> None:
        self._data[:, : self._count - count] = self._data[:, count : self._count].copy()
        self._count -= count


class SeriesHistory:
    """One series.

    Args:
        fine: values that are kept as they are, at least.
        coarse: summaries that are kept, at most.
    """

    def __init__(self, fine: int = FINE, coarse: int = COARSE) -> None:
        self._fine_room = fine
        self._coarse_room = coarse
        self._fine = _Table(3)
        self._coarse = _Table(7)
        self._coarse_seconds = _FIRST_COARSE_SECONDS
        self.patience = 0.0
        """Seconds after which its last value is no longer the current one."""

    def add(self, stretches: Stretches) -> None:
        """Append values; they are behind all that are there."""
        self._fine.append(np.array(stretches))
        excess = len(self._fine) - self._fine_room
        if excess > self._fine_room:
            self._coarse.append(
                merged(_as_summaries(self._fine.data[:, :excess]), self._coarse_seconds)
            )
            self._fine.drop(excess)
        while len(self._coarse) > self._coarse_room:
            self._coarse_seconds *= 2.0
            block = merged(self._coarse.data, self._coarse_seconds)
            if block.shape[1] == len(self._coarse):  # gaps all over
                self._coarse.drop(len(self._coarse) - self._coarse_room)
                break
            self._coarse.drop(len(self._coarse))
            self._coarse.append(block)

    @property
    def last(self) -> tuple[float, float] | None:
        """The newest value and the end of its stretch."""
        if len(self._fine) == 0:
            return None
        return float(self._fine.data[2, -1]), float(self._fine.data[1, -1])

    def between(self, begin: float, end: float) -> Floats:
        """Summaries of all that ends behind `begin` and up to `end`, oldest first."""
        fine = _as_summaries(_between(self._fine.data, begin, end))
        if len(self._coarse) == 0 or self._coarse.data[_ENDS, -1] <= begin:
            return fine
        return np.concatenate([_between(self._coarse.data, begin, end), fine], axis=1)

    def columns(self, begin: float, width: float, count: int) -> Columns:
        """So many stretches of `width` seconds each, the first from `begin` on."""
        block = self.between(begin, begin + width * count)
        ahead = self.between(begin + width * count, np.inf)[:, :1]
        return _columns(np.concatenate([block, ahead], axis=1), begin, width, count)

    def current(self, end: float) -> float | None:
        """The newest value at a moment; `None` where it is too old by then, or there is none."""
        data = self._fine.data
        at = int(np.searchsorted(data[1], end, side="right")) - 1
        if at < 0 or end - data[1, at] > self.patience:
            return None
        return float(data[2, at])

    def summary(self, begin: float, end: float) -> Summary | None:
        """Of what ends between the two; `None` if nothing does."""
        block = self.between(begin, end)
        if block.shape[1] == 0:
            return None
        whole = merged(block, np.inf)[:, 0]
        is_current = end - block[_ENDS, -1] <= self.patience
        return Summary(
            float(block[_MEANS, -1]) if is_current else None,
            float(whole[_LOWS]),
            float(whole[_MEANS]),
            float(whole[_HIGHS]),
            float(whole[_PEAKS]),
        )


def _between(data: Floats, begin: float, end: float) -> Floats:
    first, behind = np.searchsorted(data[1], (begin, end), side="right")
    return data[:, first:behind]


def _as_summaries(fine: Floats) -> Floats:
    begins, ends, values = fine
    return np.stack([begins, ends, ends - begins, values, values, values, ends])


def merged(block: Floats, seconds: float) -> Floats:
    """Summaries of so many seconds each, from smaller ones; infinite seconds make one of all."""
    if block.shape[1] == 0:
        return block
    numbers = np.ceil(block[_ENDS] / seconds)
    starts = np.flatnonzero(steps(numbers, -np.inf))
    counts = np.diff(starts, append=block.shape[1])
    weights = np.maximum(block[_WEIGHTS], 1e-9)
    totals = np.add.reduceat(weights, starts)
    highs = np.maximum.reduceat(block[_HIGHS], starts)
    is_peak = block[_HIGHS] == np.repeat(highs, counts)
    return np.stack(
        [
            block[_BEGINS][starts],
            np.maximum.reduceat(block[_ENDS], starts),
            totals,
            np.minimum.reduceat(block[_LOWS], starts),
            np.add.reduceat(weights * block[_MEANS], starts) / totals,
            highs,
            np.minimum.reduceat(np.where(is_peak, block[_PEAKS], np.inf), starts),
        ]
    )


def _columns(block: Floats, begin: float, width: float, count: int) -> Columns:
    found = Columns(*np.full((3, count), np.nan))
    at = column_of(block[_ENDS], begin, width)
    # What ends behind the last column may have begun in it.
    inside = int(np.searchsorted(at, count))
    if inside > 0:
        numbers = at[:inside]
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        weights = np.maximum(block[_WEIGHTS, :inside], 1e-9)
        here = numbers[starts]
        found.lows[here] = np.minimum.reduceat(block[_LOWS, :inside], starts)
        found.highs[here] = np.maximum.reduceat(block[_HIGHS, :inside], starts)
        means = np.add.reduceat(weights * block[_MEANS, :inside], starts)
        found.means[here] = means / np.add.reduceat(weights, starts)
    _fill(found, block, begin, width)
    return found


def _fill(found: Columns, block: Floats, begin: float, width: float) -> None:
    """Columns in which nothing ends, but which lie in a stretch that ends later."""
    empty = np.flatnonzero(np.isnan(found.highs))
    if len(empty) == 0 or block.shape[1] == 0:
        return
    middles = begin + (empty + 0.5) * width
    following = np.searchsorted(block[_ENDS], middles)
    is_before_one = following < block.shape[1]
    empty, middles, following = (
        empty[is_before_one],
        middles[is_before_one],
        following[is_before_one],
    )
    is_covered = block[_BEGINS, following] <= middles
    empty, following = empty[is_covered], following[is_covered]
    found.lows[empty] = block[_LOWS, following]
    found.means[empty] = block[_MEANS, following]
    found.highs[empty] = block[_HIGHS, following]


def column_of(times: Floats, begin: float, width: float) -> NDArray[np.int64]:
    """In which column each moment is; a column has its end and not its beginning."""
    numbers = np.ceil((times - begin) / width) - 1.0
    return np.clip(numbers, 0.0, 1e15).astype(np.int64)


# ---- clocks -------------------------------------------------------------------------------------


class WallClock:
    """Unix time, of a clock that may be set while we look."""

    def __init__(self) -> None:
        self._since: list[float] = []
        self._offsets: list[float] = []

    def see(self, times: Floats, walls: Floats) -> None:
        """Take in when something was, by both clocks."""
        offsets = walls - times
        if self._offsets and np.abs(offsets - self._offsets[-1]).max() <= _STEP_SECONDS:
            return
        for time, offset in zip(times.tolist(), offsets.tolist(), strict=True):
            is_step = not self._offsets or abs(offset - self._offsets[-1]) > _STEP_SECONDS
            if is_step and len(self._offsets) < _MOST_STEPS:
                self._since.append(time)
                self._offsets.append(offset)

    def at(self, time: float) -> float:
        """Unix time of a moment; before the first that is known as if the clock were right."""
        if not self._offsets:
            return time
        return time + self._offsets[max(0, bisect_right(self._since, time) - 1)]


# ---- all of it ----------------------------------------------------------------------------------


class Combination(NamedTuple):
    """A series that is made of others, value by value."""

    key: str
    of: tuple[str, ...]
    by: Callable[[Sequence[Floats]], Floats]


class Readings(NamedTuple):
    """Values of one moment, from a sampler's window."""

    begin: float
    end: float
    wall: float
    """The end in Unix time."""
    values: Mapping[str, float]


class History:
    """All series of a machine or a recording.

    Args:
        series: what rows are made of.
        combinations: what is made of these.
        interval: seconds between two ticks.
    """

    def __init__(
        self,
        series: Iterable[RecordedSeries],
        combinations: Iterable[Combination] = (),
        interval: float = 1.0,
    ) -> None:
        self._readers = {one.key: StretchReader(one, interval) for one in series}
        self._combinations = tuple(combinations)
        keys = [*self._readers, *(one.key for one in self._combinations)]
        self._series = {key: SeriesHistory() for key in keys}
        self.clock = WallClock()
        self.begin: float | None = None
        """The first moment that is known, `None` if none is."""
        self.end: float | None = None
        """The last."""
        self._interval = interval
        self._paces: dict[str, Pace] = {}

    def __getitem__(self, key: str) -> SeriesHistory:
        return self._series[key]

    def add_rows(
        self, monotonic_ns: NDArray[np.uint64], wall_ns: NDArray[np.int64], columns: Floats
    ) -> None:
        """Take in rows of a recording; those that do not follow in time are left out."""
        times: Floats = monotonic_ns.astype(np.float64) * 1e-9
        before = -np.inf if self.end is None else self.end
        follows = times > np.maximum.accumulate(np.concatenate([[before], times[:-1]]))
        times, columns = times[follows], columns[follows]
        if len(times) == 0:
            return
        self._note(times, wall_ns[follows].astype(np.float64) * 1e-9)
        self._add({key: one.take(times, columns) for key, one in self._readers.items()})
        for key, reader in self._readers.items():
            self._series[key].patience = reader.patience

    def add_readings(self, readings: Sequence[Readings]) -> None:
        """Take in values that somebody else has made."""
        if not readings:
            return
        self._note(
            np.array([one.end for one in readings]), np.array([one.wall for one in readings])
        )
        found = {}
        for key in self._readers:
            mine = [(one.begin, one.end, one.values[key]) for one in readings if key in one.values]
            if mine:
                found[key] = self._paced(key, Stretches(*np.array(mine).T))
        self._add(found)

    def _paced(self, key: str, stretches: Stretches) -> Stretches:
        """With stretches that meet, where a source is read less often than values are made."""
        pace = self._paces.setdefault(key, Pace(self._interval))
        last = self._series[key].last
        before = stretches.begins[0] if last is None else last[1]
        distances = steps(stretches.ends, float(before))
        pace.see(distances)
        self._series[key].patience = max(SHORTEST_PATIENCE_SECONDS, pace.patience)
        lengths = np.where(distances <= pace.patience, distances, stretches.ends - stretches.begins)
        return stretches._replace(begins=stretches.ends - lengths)

    def _note(self, times: Floats, walls: Floats) -> None:
        self.clock.see(times, walls)
        self.begin = float(times[0]) if self.begin is None else self.begin
        self.end = float(times[-1])

    def _add(self, found: Mapping[str, Stretches]) -> None:
        with np.errstate(all="ignore"):  # of a file that somebody made up
            self._add_each(found)

    def _add_each(self, found: Mapping[str, Stretches]) -> None:
        for key, stretches in found.items():
            if len(stretches.ends) > 0:
                self._series[key].add(stretches)
        for one in self._combinations:
            parts = [found.get(key, Stretches.none()) for key in one.of]
            stretches = combined(parts, one.by)
            if len(stretches.ends) > 0:
                self._series[one.key].add(stretches)
                self._series[one.key].patience = max(self._series[key].patience for key in one.of)


def combined(parts: Sequence[Stretches], by: Callable[[Sequence[Floats]], Floats]) -> Stretches:
    """Where all parts have a value that ends at the same moment."""
    ends = parts[0].ends
    for part in parts[1:]:
        if not np.array_equal(ends, part.ends):
            ends = np.intersect1d(ends, part.ends)
    chosen = [part if len(part.ends) == len(ends) else _at(part, ends) for part in parts]
    return Stretches(chosen[0].begins, ends, by([part.values for part in chosen]))


def _at(part: Stretches, ends: Floats) -> Stretches:
    is_there = np.isin(part.ends, ends)
    return Stretches(part.begins[is_there], part.ends[is_there], part.values[is_there])

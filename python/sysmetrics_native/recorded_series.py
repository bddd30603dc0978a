"""What the series of a recording were, stretch by stretch: csrc/window.c for arrays.

The values are those that the windows' min, max and percentiles come from: a gauge or a total has
one for each row; a rate or a ratio one for each stretch in which its denominator has grown enough,
and stretches end with their window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from sysmetrics_native.recording import Recording
from sysmetrics_native.recording_file import RecordedSeries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sysmetrics_native.recording import Mask, Rows

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_SECONDS_PER_NS = 1e-9


class Stretches(NamedTuple):
    """The values of one series in some rows, in the order of time."""

    ends: Integers
    """Index of the row with which each stretch ends."""
    begins_ns: Integers
    """When it began, in Unix nanoseconds; for a gauge or total the moment of the reading."""
    values: Floats


class Part(NamedTuple):
    """Some rows of a recording, and what was made of them."""

    rows: Rows
    series: tuple[Stretches, ...]
    """In the order of `Recording.series`. Values that are absent are not there."""


def read_parts(recording: Recording) -> Iterator[Part]:
    """All of a recording, oldest first, in parts that end where a window does.

    A part takes some megabytes, or a window where that is more.
    """
    folds = [_fold(series) for series in recording.series]
    for rows in _whole_windows(recording.row_chunks(), recording.samples_per_window):
        with np.errstate(all="ignore"):  # what overflows is no value
            yield Part(rows.rows, tuple(fold.take(rows) for fold in folds))


# ---- windows ------------------------------------------------------------------------------------


class _Windows(NamedTuple):
    """Some rows, and the window that each of them belongs to."""

    rows: Rows
    windows: Integers
    """Numbers, from 0 in every part."""
    is_cut_short: bool
    """Whether the last one has not come to its end."""


def _whole_windows(chunks: Iterable[Rows], samples_per_window: int) -> Iterator[_Windows]:
    """The rows, cut where a window ends; what comes behind the last end is cut short.

    A window ends with the first row at or behind its last deadline, which is the next multiple of
    its length behind the row before the window.
    """
    waiting: list[Rows] = []
    waiting_ends: list[Mask] = []
    before: int | None = None
    for rows in chunks:
        blocks = rows["tick"] // np.uint64(samples_per_window)
        ends = np.empty(len(rows), bool)
        ends[0] = before is not None and int(blocks[0]) > before
        np.greater(blocks[1:], blocks[:-1], out=ends[1:])
        before = int(blocks[-1])
        cut = len(rows) - int(np.argmax(ends[::-1])) if ends.any() else 0
        if cut > 0:
            yield _number([*waiting, rows[:cut]], [*waiting_ends, ends[:cut]], is_cut_short=False)
            waiting, waiting_ends = [], []
        if cut < len(rows):
            waiting.append(rows[cut:])
            waiting_ends.append(ends[cut:])
    if waiting:
        yield _number(waiting, waiting_ends, is_cut_short=True)


def _number(rows: list[Rows], ends: list[Mask], *, is_cut_short: bool) -> _Windows:
    are_ends = np.concatenate(ends)
    numbers: Integers = np.cumsum(are_ends) - are_ends
    return _Windows(rows[0] if len(rows) == 1 else np.concatenate(rows), numbers, is_cut_short)


# ---- one series ---------------------------------------------------------------------------------


class _Fold(Protocol):
    def take(self, part: _Windows) -> Stretches:
        """What the series was in the next rows."""


def _fold(series: RecordedSeries) -> _Fold:
    return _Counter(series) if series.kind in ("rate", "ratio") else _Gauge(series)


class _Gauge:
    """A column that is read as it is: of gauges and totals."""

    def __init__(self, series: RecordedSeries) -> None:
        self._series = series

    def take(self, part: _Windows) -> Stretches:
        values = part.rows["columns"][:, self._series.numerator] * self._series.scale
        ends = np.flatnonzero(np.isfinite(values))
        return Stretches(ends, part.rows["wall_ns"][ends], values[ends])


class _Reading(NamedTuple):
    """One of a counter."""

    numerator: float
    denominator: float
    wall_ns: int


class _Counter:
    """Columns whose increase counts: of rates and ratios."""

    def __init__(self, series: RecordedSeries) -> None:
        self._series = series
        self._previous: _Reading | None = None

    def take(self, part: _Windows) -> Stretches:
        rows, series = part.rows, self._series
        numerators = rows["columns"][:, series.numerator]
        denominators = (
            rows["monotonic_ns"] * _SECONDS_PER_NS
            if series.denominator is None
            else rows["columns"][:, series.denominator]
        )
        at = np.flatnonzero(np.isfinite(numerators) & np.isfinite(denominators))
        numerators, denominators, wall_ns = numerators[at], denominators[at], rows["wall_ns"][at]
        previous = self._previous
        if previous is not None:  # it is what the first increase counts from
            at = np.insert(at, 0, -1)
            numerators = np.insert(numerators, 0, previous.numerator)
            denominators = np.insert(denominators, 0, previous.denominator)
            wall_ns = np.insert(wall_ns, 0, previous.wall_ns)
        if len(at) > 0:
            self._previous = _Reading(numerators[-1], denominators[-1], wall_ns[-1])
        if len(at) <= 1:
            return Stretches(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
        gained, passed = _sums(numerators, denominators)
        windows = part.windows[at[1:]]
        is_open = part.is_cut_short and windows[-1] == part.windows[-1]
        ends = _ends_of_spans(passed, windows, series.quantum, is_open=bool(is_open))
        begins = np.insert(ends, 0, 0)[:-1]
        lengths = passed[ends] - passed[begins]
        told = lengths > 0.0
        values = series.scale * (gained[ends] - gained[begins])[told] / lengths[told]
        # Readings behind its last increase add nothing to a stretch.
        last = np.searchsorted(passed, passed[ends[told]], side="left")
        return Stretches(at[last], wall_ns[begins[told]], values)


def _sums(numerators: Floats, denominators: Floats) -> tuple[Floats, Floats]:
    """What both counters have gained up to each reading; where one fell there is no increase."""
    gained, passed = np.diff(numerators), np.diff(denominators)
    rose = (gained >= 0.0) & (passed >= 0.0) & np.isfinite(gained) & np.isfinite(passed)
    return (
        np.insert(np.cumsum(np.where(rose, gained, 0.0)), 0, 0.0),
        np.insert(np.cumsum(np.where(rose, passed, 0.0)), 0, 0.0),
    )


def _ends_of_spans(passed: Floats, windows: Integers, quantum: float, *, is_open: bool) -> Integers:
    """The readings at which stretches end, each beginning where the one before ends.

    Args:
        passed: what the denominator has gained up to each reading, the one before the first window
            included.
        windows: that each reading but the first belongs to.
        quantum: what a stretch must have of it, unless its window has less.
        is_open: whether the last window has been cut short.
    """
    window_ends = np.flatnonzero(np.append(windows[1:] != windows[:-1], True)) + 1
    increases = np.diff(passed)
    grown = increases > 0.0
    if quantum <= 0.0 or bool((increases[grown] >= quantum).all()):
        ends = np.union1d(np.flatnonzero(grown) + 1, window_ends)
    else:
        ends = _strides(passed, window_ends, quantum)
    lengths = np.diff(passed[ends], prepend=0.0)
    is_last = np.isin(ends, window_ends, assume_unique=True)
    # A rest at the end of a window, too short to tell anything, is joined to the stretch before.
    is_rest = is_last & ((lengths <= 0.0) | (lengths < quantum))
    joined = np.append(is_rest[1:], False) & ~is_last
    ends = ends[~joined]
    if is_open and passed[ends[-1]] - (passed[ends[-2]] if len(ends) > 1 else 0.0) < quantum:
        ends = ends[:-1]
    return ends


def _strides(passed: Floats, window_ends: Integers, quantum: float) -> Integers:
    """Where one gets by going on, again and again, until enough has passed or the window ends."""
    here = np.arange(len(passed) - 1)
    enough = np.searchsorted(passed, passed[:-1] + quantum, side="left")
    window_end = window_ends[np.searchsorted(window_ends, here, side="right")]
    following = np.minimum(np.maximum(enough, here + 1), window_end).tolist()
    ends = []
    reading = 0
    while reading < len(following):
        reading = following[reading]
        ends.append(reading)
    return np.array(ends, np.int64)

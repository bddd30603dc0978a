"""A recording or a run as one table: a row for each moment, a column for each series.

A recording is read some megabytes at a time, whatever its size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sysmetrics_native.recorded_series import read_parts
from sysmetrics_native.recording import Recording
from sysmetrics_native.timeline import Timeline, Track, facts_of, node_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_ROWS_AT_ONCE = 1 << 16
_NS_PER_MS = 1_000_000
_MS_PER_SECOND = 1000


class Column(NamedTuple):
    """One series."""

    name: str
    """Its key without ``system/`` and node; of a run with the statistic that it was logged with."""
    unit: str
    kind: str
    source: str
    """These three are empty where they are not known."""


class Batch(NamedTuple):
    """Some rows, in the order of time."""

    time_ns: Integers
    """Unix nanoseconds of the end of the stretch that the values of a row describe."""
    nodes: list[str | None]
    values: list[Floats]
    """For each column; NaN where there is no value."""


class Table(NamedTuple):
    """What there is to export."""

    title: str
    origin: str
    """``run`` or ``recording``."""
    interval: float
    """Usual seconds between two rows; 0 where there are less than two."""
    facts: Mapping[str, str]
    columns: tuple[Column, ...]
    has_nodes: bool
    """Whether rows belong to nodes."""
    batches: Iterator[Batch]
    """To be read once; none of them is empty."""


def table_of_recording(recording: Recording) -> Table:
    """Every row of a recording, the first one included, which has no rates yet.

    A value stands in the row that ends its stretch. The recording must stay open while the batches
    are read.
    """
    return Table(
        title=os.path.basename(recording.path),
        origin="recording",
        interval=recording.interval,
        facts=facts_of(recording),
        columns=tuple(
            Column(series.key, series.unit, series.kind, series.source)
            for series in recording.series
        ),
        has_nodes=node_of(recording) is not None,
        batches=_batches_of_recording(recording),
    )


def _batches_of_recording(recording: Recording) -> Iterator[Batch]:
    node = node_of(recording)
    for part in read_parts(recording):
        columns = []
        for stretches in part.series:
            column = np.full(len(part.rows), np.nan)
            column[stretches.ends] = stretches.values
            columns.append(column)
        yield Batch(part.rows["wall_ns"], [node] * len(part.rows), columns)


# ---- runs ---------------------------------------------------------------------------------------


def table_of_run(timeline: Timeline) -> Table:
    """Every value of a run: a row for each node and timestamp, by time.

    The mean has the plain key; min and max, where they were logged, have columns of their own.
    """
    columns: dict[str, Column] = {}
    for track in timeline.tracks:
        for name, _ in columns_of(track):
            columns.setdefault(name, Column(name, track.unit, track.kind, ""))
    return Table(
        title=timeline.title,
        origin="run",
        interval=timeline.interval,
        facts=timeline.facts,
        columns=tuple(columns.values()),
        has_nodes=any(track.node is not None for track in timeline.tracks),
        batches=_batches_of_run(timeline.tracks, list(columns)),
    )


def columns_of(track: Track) -> Iterator[tuple[str, Floats]]:
    """The columns that a track makes, by name."""
    yield track.key, track.values
    if track.low is not None:
        yield f"{track.key}_min", track.low
    if track.high is not None:
        yield f"{track.key}_max", track.high


def _batches_of_run(tracks: tuple[Track, ...], names: list[str]) -> Iterator[Batch]:
    nodes = sorted({track.node for track in tracks}, key=lambda node: node or "")
    parts = [_of_node([track for track in tracks if track.node == node], names) for node in nodes]
    if not parts:
        return
    stamps = np.concatenate([part.stamps for part in parts])
    node_numbers = np.repeat(np.arange(len(parts)), [len(part.stamps) for part in parts])
    columns = zip(*(part.values for part in parts), strict=True)
    values = [np.concatenate(column) for column in columns]
    order = np.argsort(stamps, kind="stable")
    for begin in range(0, len(order), _ROWS_AT_ONCE):
        some = order[begin : begin + _ROWS_AT_ONCE]
        yield Batch(
            time_ns=stamps[some] * _NS_PER_MS,
            nodes=[nodes[number] for number in node_numbers[some]],
            values=[column[some] for column in values],
        )


class _NodePart(NamedTuple):
    """What there is of one node."""

    stamps: Integers
    """Unix milliseconds, which MLflow counts in."""
    values: list[Floats]


def _of_node(tracks: list[Track], names: list[str]) -> _NodePart:
    there = {}
    for track in tracks:
        stamps = np.rint(track.times * _MS_PER_SECOND).astype(np.int64)
        for name, values in columns_of(track):
            is_value = np.isfinite(values)  # a gap is no row
            there[name] = stamps[is_value], values[is_value]
    rows = np.unique(np.concatenate([stamps for stamps, _ in there.values()]))
    columns = []
    for name in names:
        column = np.full(len(rows), np.nan)
        if name in there:
            stamps, values = there[name]
            column[np.searchsorted(rows, stamps)] = values
        columns.append(column)
    return _NodePart(rows, columns)

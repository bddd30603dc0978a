"""Recordings made row by row, without a sampler, and what was written into them."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sysmetrics_native import Window
from sysmetrics_native.backends.fold import RowTime
from sysmetrics_native.private_files import Writer
from sysmetrics_native.recording_file import (
    Description,
    RecordedRun,
    RecordedSeries,
    Row,
    RowFormat,
    RowLayout,
    RowWriter,
    encode_header,
    write_state,
)

SERIES = (
    RecordedSeries("share", "percentage", "test", "ratio", 0, 1, 100.0, 10.0),
    RecordedSeries("level", "megabytes", "test", "gauge", 2, None, 1e-6, 0.0),
    RecordedSeries("sum", "megabytes", "test", "total", 3, None, 1e-6, 0.0),
    RecordedSeries("speed", "megabytes", "test", "rate", 3, None, 1e-6, 0.0),
)
LAYOUT = RowLayout(4, SERIES)
RUN = RecordedRun("a1b2c3", "http://tracking:5000", "system/node-7/", ("mean", "p99"), 0)
DEAD = Writer("nowhere", "", 1, 0.0)
RECORD_BYTES = RowFormat(LAYOUT.columns).record_bytes
DATA_OFFSET = 65536


def describe(**changes: Any) -> Description:
    """A description of these series; the changes are fields of it."""
    description = Description(
        package="0.1.0",
        backend="native",
        interval=0.5,
        samples_per_window=4,
        started=1_700_000_000.0,
        writer=DEAD,
        layout=LAYOUT,
        run=RUN,
        surroundings=None,
    )
    return description._replace(**changes)


def make_rows(count: int, seed: int = 1) -> list[Row]:
    """Rows with missed ticks, absent values, and counters that fall now and then."""
    chance = random.Random(seed)
    rows = []
    tick = busy = total = sent = 0
    for number in range(count):
        columns = [float(busy), float(total), chance.random() * 1e9, float(sent)]
        for column in range(len(columns)):
            if number > 0 and chance.random() < 0.1:
                columns[column] = math.nan
        passed_ns = tick * 500_000_000 + chance.randrange(10_000_000)
        time = RowTime(tick, 5_000_000_000 + passed_ns, 1_700_000_000_000_000_000 + passed_ns)
        rows.append(Row(number, time, tuple(columns)))
        tick += chance.choice((1, 1, 1, 1, 1, 2, 3, 9))
        gained = chance.randrange(30)
        busy, total = busy + chance.randint(0, gained), total + gained
        sent = 0 if chance.random() < 0.05 else sent + chance.randrange(10**6)
    return rows


def write_recording(
    path: Path,
    rows: Iterable[Row],
    *,
    capacity: int = 1024,
    description: Description | None = None,
    state: int = 1,
) -> None:
    """A file as a sampler would have written it."""
    text = (description or describe()).encode()
    path.write_bytes(encode_header(text, LAYOUT.columns, DATA_OFFSET, capacity))
    with path.open("r+b") as file:
        writer = RowWriter(file.fileno(), DATA_OFFSET, capacity, LAYOUT.columns)
        for row in rows:
            writer.append(row.time, row.columns)
        write_state(file.fileno(), state)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def damage_row(path: Path, slot: int) -> None:
    """Another sign for one of its values."""
    offset = DATA_OFFSET + slot * RECORD_BYTES + 4 * 8
    with path.open("r+b") as file:
        file.seek(offset)
        (value,) = struct.unpack("=d", file.read(8))
        file.seek(offset)
        file.write(struct.pack("=d", 1.5 if math.isnan(value) or value == 0 else -value))


def same_rows(one: Sequence[Row], other: Sequence[Row]) -> bool:
    """Bit for bit, NaN included."""
    encode = RowFormat(LAYOUT.columns).encode
    return [encode(row) for row in one] == [encode(row) for row in other]


def assert_same_windows(live: Sequence[Window], replayed: Sequence[Window]) -> None:
    """The same stretches of time to the bit, the same values but for the rounding of floats."""
    assert len(live) == len(replayed)
    for one, other in zip(live, replayed, strict=True):
        assert (one.end, one.samples, one.missed) == (other.end, other.samples, other.missed)
        assert abs(one.start - other.start) < 1e-6
        assert list(one) == list(other)
        for key in one:
            for value, again in zip(one[key], other[key], strict=True):
                assert (value is None) == (again is None), key
                if value is not None and again is not None:
                    assert math.isclose(value, again, rel_tol=1e-9, abs_tol=1e-9), key

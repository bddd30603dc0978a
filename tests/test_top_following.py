"""Following a recording while it is written: what is new comes once, whatever else happens."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysmetrics_native.backends.fold import RowTime
from sysmetrics_native.recording import Recording
from sysmetrics_native.recording_file import RowWriter, encode_header
from tests.recordings import (
    DATA_OFFSET,
    LAYOUT,
    RECORD_BYTES,
    damage_row,
    describe,
    make_rows,
    overwrite,
    write_recording,
)


class Growing:
    """A recording that is written row by row; row n has n in every column."""

    def __init__(self, path: Path, capacity: int = 64) -> None:
        self.path = path
        path.write_bytes(encode_header(describe().encode(), LAYOUT.columns, DATA_OFFSET, capacity))
        self._file = os.open(path, os.O_RDWR)
        self._writer = RowWriter(self._file, DATA_OFFSET, capacity, LAYOUT.columns)
        self.count = 0

    def append(self, count: int) -> None:
        for _ in range(count):
            time = RowTime(self.count, self.count * 1_000_000_000, self.count * 1_000_000_000)
            self._writer.append(time, [float(self.count)] * LAYOUT.columns)
            self.count += 1

    def lose(self, count: int) -> None:
        """Rows that could not be written, as on a full disk."""
        self._writer._sequence += count
        self.count += count

    def close(self) -> None:
        self._writer.close()


@pytest.fixture
def growing(tmp_path):
    file = Growing(tmp_path / "a.smnrec")
    yield file
    file.close()


def numbers(recording: Recording, after: int, *, thoroughly: bool = False) -> list[int]:
    found = []
    for rows in recording.rows_after(after, thoroughly=thoroughly):
        assert rows["columns"][:, 0].tolist() == rows["sequence"].tolist()
        found += rows["sequence"].tolist()
    return found


def test_only_what_is_new_comes(growing):
    with Recording(growing.path) as recording:
        assert numbers(recording, -1) == []
        growing.append(5)
        assert numbers(recording, -1) == [0, 1, 2, 3, 4]
        assert numbers(recording, 4) == []
        growing.append(2)
        assert numbers(recording, 4) == [5, 6]


def test_the_ring_goes_on_at_its_beginning(growing):
    growing.append(60)
    with Recording(growing.path) as recording:
        assert numbers(recording, 55) == [56, 57, 58, 59]
        growing.append(10)
        assert numbers(recording, 59) == list(range(60, 70))
        assert numbers(recording, 69) == []


def test_rows_that_were_overwritten_are_left_out(growing):
    growing.append(10)
    with Recording(growing.path) as recording:
        assert len(numbers(recording, -1)) == 10
        growing.append(500)
        assert numbers(recording, 9) == list(range(446, 510))
        assert numbers(recording, -1) == list(range(446, 510))


@given(st.lists(st.integers(0, 100), max_size=12), st.integers(4, 40))
def test_every_row_comes_once_if_there_was_time_to_read_it(tmp_path_factory, steps, capacity):
    file = Growing(tmp_path_factory.mktemp("ring") / "a.smnrec", capacity)
    found: list[int] = []
    with Recording(file.path) as recording:
        for step in steps:
            file.append(step)
            new = numbers(recording, found[-1] if found else -1)
            assert new == list(range(max(file.count - min(step, capacity), 0), file.count))
            found += new
    file.close()
    assert found == sorted(set(found))


def test_rows_that_could_not_be_written_are_skipped(growing):
    growing.append(5)
    growing.lose(20)
    growing.append(3)
    with Recording(growing.path) as recording:
        assert numbers(recording, -1) == [0, 1, 2, 3, 4, 25, 26, 27]
        growing.append(33)
        growing.lose(8)  # over the end of the ring
        growing.append(2)
        assert numbers(recording, 27)[-3:] == [60, 69, 70]


def test_a_long_gap_is_crossed_when_asked(growing, monkeypatch):
    monkeypatch.setattr("sysmetrics_native.recording._BYTES_TO_FOLLOW", 4 * RECORD_BYTES)
    growing.append(5)
    growing.lose(20)
    growing.append(3)
    with Recording(growing.path) as recording:
        assert numbers(recording, 4) == []
        assert numbers(recording, 4, thoroughly=True) == [25, 26, 27]
        assert numbers(recording, 27, thoroughly=True) == []


def test_damaged_rows_are_left_out(tmp_path):
    path = tmp_path / "a.smnrec"
    rows = make_rows(50)
    write_recording(path, rows)
    damage_row(path, 0)
    damage_row(path, 17)
    damage_row(path, 49)
    with Recording(path) as recording:
        found = np.concatenate(list(recording.rows_after(-1)))
    assert found["sequence"].tolist() == [*range(1, 17), *range(18, 49)]
    for row, expected in zip(found[:3], rows[1:4], strict=True):
        for value, other in zip(row["columns"], expected.columns, strict=True):
            assert value == other or (math.isnan(value) and math.isnan(other))


def test_a_file_that_is_cut_off_or_overwritten_gives_nothing_more(growing):
    growing.append(20)
    with Recording(growing.path) as recording:
        os.truncate(growing.path, DATA_OFFSET + 10 * RECORD_BYTES + 7)
        assert numbers(recording, 5) == [6, 7, 8, 9]
        os.truncate(growing.path, 10)
        assert numbers(recording, 5, thoroughly=True) == []
        os.truncate(growing.path, DATA_OFFSET + 64 * RECORD_BYTES)
        overwrite(growing.path, DATA_OFFSET, os.urandom(64 * RECORD_BYTES))
        assert numbers(recording, -1, thoroughly=True) == []


def test_of_a_large_file_only_the_end_is_read(growing):
    with Recording(growing.path) as recording:
        assert recording.number_before_last(10**9) == -1
        growing.append(200)
        assert recording.number_before_last(10**9) == -1
        before = recording.number_before_last(10 * RECORD_BYTES)
        assert numbers(recording, before) == list(range(190, 200))


def test_rows_are_copies(growing):
    growing.append(3)
    with Recording(growing.path) as recording:
        (rows,) = recording.rows_after(-1)
        growing.append(100)
        assert rows["sequence"].tolist() == [0, 1, 2]

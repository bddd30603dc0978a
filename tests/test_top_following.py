"""Following a recording while it is written: what is new comes once, whatever else happens."""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysmetrics_native.backends.fold import RowTime
from sysmetrics_native.recording import Recording
from sysmetrics_native.recording_file import Row, RowWriter, encode_header
from sysmetrics_native.top.app import View
from sysmetrics_native.top.drawing import Glyphs, draw
from sysmetrics_native.top.feeds import RecordingFeed
from sysmetrics_native.top.history import History
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


# ---- as the live view does it -------------------------------------------------------------------

ANY_ROW = st.tuples(
    st.integers(0, (1 << 64) - 1),
    st.integers(0, (1 << 64) - 1) | st.integers(0, 10**12),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.tuples(*[st.floats() | st.floats(0, 1e9)] * LAYOUT.columns),
)


@given(st.lists(ANY_ROW, max_size=20), st.sampled_from([10.0, 60.0, 1e7]))
def test_nothing_that_rows_can_say_breaks_the_view(tmp_path_factory, rows, seconds):
    """A file that somebody made up, with checksums that are right."""
    path = tmp_path_factory.mktemp("made_up") / "a.smnrec"
    time_of = [(RowTime(tick, mono, wall), columns) for tick, mono, wall, columns in rows]
    write_recording(path, [Row(n, *row) for n, row in enumerate(time_of)], state=0)
    feed = RecordingFeed(str(path))
    with contextlib.closing(feed):
        view = View(feed, seconds)
        feed.poll(view.history)
        for key in ("-", "left", "s", "+"):
            view.press(key)
            lines = draw(view.history, view.look(None), 80, 24, Glyphs.of("utf-8"))
            assert len(lines) == 24
    assert view.history.end is not None or not rows


def test_a_recording_of_which_another_has_the_name(growing):
    """Somebody removed it, and began another one."""
    growing.append(5)
    feed = RecordingFeed(str(growing.path))
    with contextlib.closing(feed):
        history = History(feed.series, (), feed.interval)
        feed.poll(history)
        assert history.end == 4.0
        growing.path.unlink()
        other = Growing(growing.path)
        other.append(50)
        feed.poll(history)
        other.close()
        assert history.end == 4.0


def test_silence_is_told(growing, monkeypatch):
    growing.append(5)
    feed = RecordingFeed(str(growing.path))
    with contextlib.closing(feed):
        history = History(feed.series, (), feed.interval)
        assert feed.poll(history)
        assert feed.status == "live, every 0.5 s"
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 100.0)
        assert feed.poll(history)
        assert feed.status == "no rows for 100 s"
        growing.append(1)
        monkeypatch.setattr(time, "monotonic", lambda: now + 102.0)
        assert feed.poll(history)
        assert feed.status == "live, every 0.5 s"

"""The reader of recordings: what it makes of rows, and of files that are no recordings."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sysmetrics_native import Series
from sysmetrics_native.backends.fold import RowTime
from sysmetrics_native.private_files import Writer
from sysmetrics_native.recording import RecordedRun, Recording, RecordingError
from sysmetrics_native.recording_file import MAGIC, VERSION, Row, RowFormat, plan_ring
from tests.recordings import (
    DATA_OFFSET,
    LAYOUT,
    RECORD_BYTES,
    RUN,
    SERIES,
    damage_row,
    describe,
    make_rows,
    overwrite,
    same_rows,
    write_recording,
)
from tests.support import open_files, run_python

on_posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.smnrec"


def refusal(path: Path) -> str:
    """What the reader says of a file that it does not take."""
    with pytest.raises(RecordingError) as caught:
        Recording(path)
    message = str(caught.value)
    assert str(path) in message
    assert isinstance(caught.value, ValueError)
    return message


def rows_of(recording: Recording) -> list[Row]:
    """The rows of the array, one by one."""
    return [
        Row(
            int(row["sequence"]),
            RowTime(int(row["tick"]), int(row["monotonic_ns"]), int(row["wall_ns"])),
            tuple(row["columns"].tolist()),
        )
        for row in recording.rows
    ]


# ---- what it says -------------------------------------------------------------------------------


def test_it_says_what_its_writer_said(path):
    surroundings = {"gpus": ["one", "two"], "note": None}
    write_recording(path, make_rows(3), description=describe(surroundings=surroundings))
    with Recording(path) as recording:
        assert recording.path == str(path)
        assert recording.version == VERSION == 1
        assert recording.package == "0.1.0"
        assert recording.backend == "native"
        assert recording.state == "ended"
        assert recording.writer == Writer("nowhere", "", 1, 0.0)
        assert recording.run == RUN
        assert recording.series == SERIES
        assert recording.columns == 4
        assert (recording.interval, recording.samples_per_window) == (0.5, 4)
        assert recording.started == 1_700_000_000.0
        assert recording.surroundings == surroundings
        assert recording.damaged_rows == 0
        assert recording.is_being_written() is False


def test_a_recording_may_belong_to_no_run_or_to_one_that_is_resumed(path):
    for run in (None, RUN._replace(first_step=None)):
        write_recording(path, [], description=describe(run=run))
        with Recording.open(path) as recording:
            assert recording.run == run


def test_tags_come_back(path):
    tags = {"system/gpu_0": '{"name":"one"}', "system/gpu_1": "{}"}
    write_recording(path, [], description=describe(run=RUN._replace(tags=tags)))
    with Recording(path) as recording:
        assert recording.run == RUN._replace(tags=tags)


def test_a_run_of_an_older_writer_has_no_tags(path):
    write_recording(path, make_rows(5))
    change_description(path, lambda fields: fields["run"].pop("tags"))
    with Recording(path) as recording:
        assert recording.run == RUN


@pytest.mark.parametrize("tags", [[], "x", 5, {"a": 1}, {"a": None}, {"a": "\x1b[2J"}])
def test_tags_that_are_none_are_damage(path, tags):
    write_recording(path, make_rows(5))
    change_description(path, lambda fields: fields["run"].update(tags=tags))
    with pytest.raises(RecordingError, match="is damaged: its run"):
        Recording(path)


def test_what_a_later_writer_may_add_is_ignored(path):
    write_recording(path, make_rows(5))
    change_description(path, lambda fields: fields.update(more={"of": "this"}))
    with Recording(path) as recording:
        assert len(list(recording.windows())) > 0


# ---- windows ------------------------------------------------------------------------------------


def at(tick: int, *columns: float) -> Row:
    return Row(0, RowTime(tick, tick * 500_000_000, 10**18 + tick * 500_000_000), columns)


def test_windows_close_as_the_sampler_closed_them(path):
    rows = [
        at(0, 0, 0, 9e6, 0),
        *(at(1, 5, 20, 1e6, 1e6), at(2, 10, 40, 3e6, 1e6), at(4, 20, 80, 2e6, 4e6)),
        at(9, 20, 81, math.nan, 4e6),  # late, and closes the next one alone
        *(at(10, 20, 82, 5e6, 5e6), at(10, 20, 83, 7e6, 5e6)),  # a last reading between two ticks
    ]
    write_recording(path, rows)
    with Recording(path) as recording:
        one, two, three = recording.windows()
    assert [(w.samples, w.missed, w.merged) for w in (one, two, three)] == [
        (3, 1, 0),
        (1, 4, 0),
        (2, 0, 0),
    ]
    assert [w.end for w in (one, two, three)] == [(10**18 + t * 10**8) * 1e-9 for t in (20, 45, 50)]
    assert (one.start, two.start, three.start) == (one.end - 2.0, two.end - 2.5, three.end - 0.5)
    assert one["share"] == Series(25.0, 25.0, 25.0, 25.0, 25.0, 25.0, 25.0)
    assert list(one["level"]) == pytest.approx([2.0, 1.0, 3.0, 2.0, 2.0, 2.9, 2.98])
    assert one["sum"].last == 4.0
    assert (one["speed"].mean, one["speed"].max) == (2.0, 3.0)
    assert two["share"].mean == 0.0  # of little CPU time, but the window is whole
    assert two["level"] == Series()
    assert three["share"] == Series()  # cut short, and too short to tell
    assert three["level"].mean == 6.0
    assert three["speed"].mean == 2.0


def test_percentiles_are_for_those_who_ask(path):
    write_recording(path, make_rows(20))
    with Recording(path) as recording:
        for window in recording.windows(percentiles=False):
            assert window["level"].p50 is None


def test_without_rows_there_are_no_windows(path):
    for rows in ([], make_rows(1)):
        write_recording(path, rows)
        with Recording(path) as recording:
            assert list(recording.windows()) == []


@pytest.mark.parametrize("count", [8, 9, 16, 17, 20, 23, 100])
def test_where_the_ring_lost_the_beginning_the_rest_is_as_it_was(path, tmp_path, count):
    rows = make_rows(count)
    write_recording(path, rows, capacity=8)
    whole = tmp_path / "whole.smnrec"
    write_recording(whole, rows)
    with Recording(path) as ring, Recording(whole) as all_of_it:
        left = list(ring.windows())
        windows = list(all_of_it.windows())[-len(left) :]
    # The first one may have lost rows; the others have not.
    assert left
    for one, other in zip(left[1:], windows[1:], strict=True):
        assert (one.start, one.end, dict(one)) == (other.start, other.end, dict(other))
    assert (left[0].end, left[-1].end) == (windows[0].end, windows[-1].end)
    assert left[0].samples <= windows[0].samples


def test_a_damaged_row_counts_as_missed(path):
    rows = [at(tick, 0, 0, 1e6 * tick, 0) for tick in range(9)]
    write_recording(path, rows)
    damage_row(path, 3)
    with Recording(path) as recording:
        assert recording.damaged_rows == 1
        one, two = recording.windows()
    assert (one.samples, one.missed) == (3, 1)
    assert one["level"].mean == pytest.approx((1 + 2 + 4) / 3)
    assert (two.samples, two.missed) == (4, 0)


def test_windows_need_no_more_memory_than_one(tmp_path):
    """A hundred times as many of them, the same memory."""
    peaks = []
    for count in (2_000, 40_000):
        path = tmp_path / f"{count}.smnrec"
        write_recording(path, (at(tick, 0, 0, 1.0, 0) for tick in range(count)), capacity=count)
        with Recording(path) as recording:
            tracemalloc.start()
            windows = sum(1 for _ in recording.windows())
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert windows == pytest.approx(count / 4, abs=1)
    assert peaks[1] < 8 << 20  # a chunk of the file and what is made of it


def test_rows_want_numpy_and_say_so_and_windows_do_not(path):
    write_recording(path, make_rows(20))
    done = run_python(
        """
        import sys
        sys.modules["numpy"] = None  # as if it were not installed
        from sysmetrics_native.recording import Recording
        with Recording(sys.argv[1]) as recording:
            assert list(recording.windows()) and recording.damaged_rows == 0
            try:
                recording.rows
            except ModuleNotFoundError as error:
                print(error.name, error)
        """,
        str(path),
    )
    assert done.stderr == ""
    assert done.stdout.startswith("numpy ")
    assert "pip install numpy" in done.stdout


# ---- rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [8192, 64, 50])
@pytest.mark.parametrize("count", [1, 49, 64, 8191, 8192, 8193, 20000])
@pytest.mark.parametrize("state", [0, 1])
def test_rows_are_what_was_written_in_its_order(path, capacity, count, state):
    """Of 64 rows the ring ends at no page, of 8192 it does; the next slot of a live one is out."""
    rows = make_rows(count)
    write_recording(path, rows, capacity=capacity, state=state)
    with Recording(path) as recording:
        array = recording.rows
        left = min(count, capacity)
        # A copy is nobody's to overwrite.
        is_mapped = os.name == "posix" and (capacity == 8192 or count <= capacity)
        if is_mapped and state == 0 and count >= capacity:
            left -= 1
        assert same_rows(rows_of(recording), rows[-left:])
    assert array.dtype.names == (
        *("sequence", "tick", "monotonic_ns", "wall_ns", "columns", "checksum"),
    )
    assert array["columns"].shape == (left, 4)
    assert bool(Recording.is_intact(array).all())


def test_no_rows_are_an_empty_array(path):
    write_recording(path, [])
    with Recording(path) as recording:
        assert len(recording.rows) == 0
        assert recording.rows["columns"].shape == (0, 4)


@on_posix
@pytest.mark.parametrize("count", [100, 8192, 8200, 20000])
def test_rows_are_the_file_itself(path, count):
    """Also where the ring has begun again: what changes in the file changes in the array."""
    write_recording(path, make_rows(count), capacity=8192)
    with Recording(path) as recording:
        array: Any = recording.rows
        again: Any = recording.rows
    assert not array.flags.owndata
    assert not array.flags.writeable
    assert not np.shares_memory(array, again)  # two mappings, not one array handed out twice
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    assert isinstance(root.base, memoryview)
    for place in (0, len(array) // 2, len(array) - 1):
        assert bool(Recording.is_intact(array[place : place + 1]).all())
        slot = int(array[place]["sequence"]) % 8192
        overwrite(path, DATA_OFFSET + slot * RECORD_BYTES + 4 * 8, struct.pack("=d", 4321.5))
        assert array[place]["columns"][0] == again[place]["columns"][0] == 4321.5
        assert not Recording.is_intact(array[place : place + 1]).any()
    with pytest.raises(ValueError, match="read-only"):
        array["tick"][0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def test_a_slice_of_rows_keeps_them_mapped(path):
    write_recording(path, make_rows(9000), capacity=8192)
    with Recording(path) as recording:
        ticks = recording.rows["tick"][::100]
    path.unlink()
    assert (np.diff(ticks.astype(np.int64)) > 0).all()


def test_damaged_rows_are_left_out(path):
    rows = make_rows(50)
    write_recording(path, rows)
    for slot, left in ((0, rows[1:]), (49, rows[1:49])):  # at the edges the array stays the file
        damage_row(path, slot)
        with Recording(path) as recording:
            assert same_rows(rows_of(recording), left)
            assert not recording.rows.flags.owndata
    damage_row(path, 20)
    with Recording(path) as recording:
        assert same_rows(rows_of(recording), rows[1:20] + rows[21:49])
        assert recording.damaged_rows == 3
        assert recording.rows.flags.owndata


def test_a_hole_is_no_row_and_no_damage(path):
    """A disk that was full for a while leaves one."""
    rows = make_rows(50)
    write_recording(path, rows)
    overwrite(path, DATA_OFFSET + 10 * RECORD_BYTES, bytes(RECORD_BYTES))
    with Recording(path) as recording:
        assert same_rows(rows_of(recording), rows[:10] + rows[11:])
        assert recording.damaged_rows == 0


def test_a_file_that_ends_within_a_row(path):
    rows = make_rows(50)
    write_recording(path, rows)
    for bytes_left in (RECORD_BYTES - 1, 1):
        os.truncate(path, DATA_OFFSET + 40 * RECORD_BYTES + bytes_left)
        with Recording(path) as recording:
            assert same_rows(rows_of(recording), rows[:40])
            assert recording.damaged_rows == 0


def test_a_whole_row_in_a_place_that_is_not_its_own_is_damage(path):
    """As a copy with a hole in it has them."""
    rows = make_rows(50)
    write_recording(path, rows)
    data = path.read_bytes()
    path.write_bytes(data[: DATA_OFFSET + 10 * RECORD_BYTES] + data[-30 * RECORD_BYTES :])
    with Recording(path) as recording:
        assert same_rows(rows_of(recording), rows[:10])
        assert recording.damaged_rows == 30


def test_a_ring_whose_end_was_never_written(path):
    """The disk was full, then it was not: the newest rows are at the beginning again."""
    rows = make_rows(20)
    write_recording(path, rows, capacity=16)
    os.truncate(path, DATA_OFFSET + 10 * RECORD_BYTES)
    with Recording(path) as recording:
        expected = rows[4:10] + rows[16:20]
        assert same_rows(rows_of(recording), expected)
        windows = list(recording.windows())
    assert sum(window.samples for window in windows) == len(expected) - 1


# ---- files that are none ------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"SMN", b"\x7fELF" + bytes(100), bytes(100), b"{}" * 99])
def test_a_file_that_is_no_recording(path, content):
    path.write_bytes(content)
    message = refusal(path)
    assert "is not a recording" in message
    assert "name a file" in message


def test_a_newer_version(path):
    write_recording(path, make_rows(3))
    overwrite(path, 8, struct.pack("=I", VERSION + 1))
    message = refusal(path)
    assert "newer version" in message
    assert "upgrade" in message
    assert f"format {VERSION + 1}" in message


def test_another_byte_order(path):
    write_recording(path, make_rows(3))
    other = ">" if sys.byteorder == "little" else "<"
    overwrite(path, 8, struct.pack(f"{other}II", VERSION, 0x01020304))
    assert "another byte order" in refusal(path)


def test_a_header_that_was_cut_off(path):
    write_recording(path, make_rows(3))
    data = path.read_bytes()
    length = 64 + len(describe().encode())
    for end in itertools.chain(range(8, 80), range(80, length, 37), [length - 1]):
        path.write_bytes(data[:end])
        message = refusal(path)
        assert "is damaged" in message
        assert "delete it" in message
    path.write_bytes(data[:length])
    with Recording(path) as recording:
        assert list(recording.windows()) == []


@pytest.mark.parametrize(
    ("offset", "code", "value"),
    [
        *((8, "I", 0), (12, "I", 7)),
        *((16, "Q", 0), (16, "Q", 4096), (16, "Q", 65537), (16, "Q", 1 << 63)),
        *((24, "Q", 0), (24, "Q", 1 << 60), (24, "Q", (1 << 64) - 1)),
        *((32, "I", 0), (32, "I", 8), (32, "I", RECORD_BYTES + 8), (32, "I", (1 << 32) - 1)),
        *((36, "I", 0), (36, "I", 1), (36, "I", 65536), (36, "I", (1 << 32) - 1)),
        *((40, "Q", 3), (40, "Q", (1 << 64) - 1)),
        (48, "I", 0),
    ],
)
def test_numbers_that_cannot_be(path, offset, code, value):
    write_recording(path, make_rows(3))
    overwrite(path, offset, struct.pack(f"={code}", value))
    assert "is damaged" in refusal(path)


def change_description(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Another description, with a checksum that fits."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("=I", data, 36)
    fields = json.loads(data[64 : 64 + length])
    changed = change(fields)
    text = changed if isinstance(changed, bytes) else json.dumps(fields).encode()
    header = bytearray(data[:64])
    struct.pack_into("=I", header, 36, len(text))
    struct.pack_into("=I", header, 48, zlib.crc32(text))
    path.write_bytes((bytes(header) + text).ljust(DATA_OFFSET, b"\0") + data[DATA_OFFSET:])


WRONG: dict[str, tuple[Any, ...]] = {
    "package": (None, 1, "\x1b[2J", "x" * 5000),
    "interval_seconds": (None, "1", 0, -1.0, math.nan, math.inf, True),
    "samples_per_window": (None, 0, 1.0, 1_000_001, True),
    "started_seconds": (None, -1, math.nan, 1e300),
    "columns": (None, 0, -1, 3, 5, 1 << 40, 4.0),
    "writer": (None, [], {}),
    "series": (None, {}, [None], [{}]),
    "run": (1, {}, []),
    "surroundings": (1, [], "text"),
    "writer.pid": (None, -1, 1 << 40, "1"),
    "writer.host": (None, "a\nb", 1),
    "run.run_id": (None, 7, "a\x07"),
    "run.statistics": (None, [], ["mode"], [[]], "mean"),
    "run.first_step": (-1, 0.5, "0", 1 << 70),
    "series.0.kind": (None, "sum", "gauge", 0),
    "series.0.denominator": (None, -1, 4),
    "series.1.denominator": (0,),
    "series.1.key": (None, "share", 3, "\x9b"),
    "series.1.numerator": (None, -1, 4, 1 << 70, 0.0),
    "series.1.scale": (None, math.nan, math.inf, "1"),
    "series.1.quantum": (None, math.nan, -1.0),
}
"""By the place in the description, with numbers for those in a list."""


def setter(place: str, value: object) -> Callable[[Any], None]:
    def change(fields: Any) -> None:
        *outer, last = (int(key) if key.isdigit() else key for key in place.split("."))
        for key in outer:
            fields = fields[key]
        fields[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda _: b"no JSON",
        lambda _: b"\xff\xfe",
        lambda _: b"[]",
        lambda _: b"null",
        lambda _: b"[" * 50_000,
        lambda fields: fields.clear(),
        lambda fields: fields["series"].append(fields["series"][0]),
        *(setter(place, value) for place, values in WRONG.items() for value in values),
    ],
)
def test_descriptions_of_the_wrong_shape(path, change):
    write_recording(path, make_rows(3))
    change_description(path, change)
    assert "is damaged" in refusal(path)


def test_sizes_that_a_file_only_claims_take_no_memory(path):
    """A sparse file of a terabyte with a description of all of it."""
    write_recording(path, make_rows(3))
    overwrite(path, 36, struct.pack("=I", (1 << 32) - 1))
    os.truncate(path, 1 << 34)
    tracemalloc.start()
    refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_row_from_the_far_future_takes_no_time(path):
    """Whole, but of a number that its ring, which the file does not fill, cannot have come to."""
    far = (1 << 63) + 2
    write_recording(path, make_rows(5), capacity=1 << 40)
    rows = make_rows(3)
    slot = far % (1 << 40)
    assert slot == 2
    record = RowFormat(LAYOUT.columns).encode(Row(far, rows[2].time, rows[2].columns))
    overwrite(path, DATA_OFFSET + slot * RECORD_BYTES, record)
    with Recording(path) as recording:
        assert [row.sequence for row in rows_of(recording)] == [far]
        assert list(recording.windows()) == []


@given(
    st.lists(
        st.tuples(st.integers(0, DATA_OFFSET + 40 * RECORD_BYTES - 1), st.integers(1, 255)),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
@example([(DATA_OFFSET + 4 * 8 + 7, 0x80), (DATA_OFFSET + 5 * 8 + 7, 0x80)], False)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_flipped_bits_are_refused_or_found(tmp_path, flips, in_header):
    """Whatever is damaged, every row that is handed out is one that was written."""
    path = tmp_path / "a.smnrec"
    rows = make_rows(90)
    write_recording(path, rows, capacity=40)
    header_bytes = 64 + len(describe().encode())
    with path.open("r+b") as file:
        for place, bits in flips:
            offset = place % header_bytes if in_header else place
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ bits]))
    try:
        recording = Recording(path)
    except RecordingError:
        return
    written = {row.sequence: row for row in rows}
    with recording:
        found = rows_of(recording)
        again = list(recording._rows_in_order())
        assert sum(1 for _ in recording.windows()) <= len(again)
        assert recording.damaged_rows <= 40
    for read in (found, again):
        assert same_rows(read, [written[row.sequence] for row in read])
        assert [row.sequence for row in read] == sorted({row.sequence for row in read})


@given(st.binary(max_size=300), st.booleans())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_is_refused(tmp_path, garbage, has_magic):
    path = tmp_path / "a.smnrec"
    path.write_bytes(MAGIC * has_magic + garbage)
    refusal(path)


# ---- files of others ----------------------------------------------------------------------------


def test_a_file_that_is_not_there(path):
    with pytest.raises(FileNotFoundError):
        Recording(path)


@on_posix
def test_links_folders_and_pipes_are_refused(tmp_path, path):
    write_recording(path, make_rows(3))
    link = tmp_path / "link.smnrec"
    link.symlink_to(path)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        Recording(link)
    pipe = tmp_path / "pipe.smnrec"
    os.mkfifo(pipe)
    for other in (pipe, tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            Recording(other)  # and does not wait for ever


@on_posix
def test_a_file_with_a_second_name_may_be_read(tmp_path, path):
    write_recording(path, make_rows(3))
    os.link(path, tmp_path / "b.smnrec")
    with Recording(path) as recording:
        assert recording.state == "ended"


# ---- its state ----------------------------------------------------------------------------------


def test_mark_delivered(path):
    write_recording(path, make_rows(3))
    before = path.read_bytes()
    with Recording(path) as recording:
        recording.mark_delivered()
        assert recording.state == "delivered"
        recording.mark_delivered()
    after = path.read_bytes()
    assert (before[:40] + after[40:48] + before[48:]) == after
    assert struct.unpack("=Q", after[40:48]) == (2,)


def test_mark_delivered_of_a_file_that_was_replaced(tmp_path, path):
    write_recording(path, make_rows(3))
    other = tmp_path / "b.smnrec"
    write_recording(other, make_rows(3))
    with Recording(path) as recording:
        other.replace(path)
        with pytest.raises(OSError, match="another file"):
            recording.mark_delivered()
        path.unlink()
        with pytest.raises(FileNotFoundError):
            recording.mark_delivered()


def test_the_state_is_that_of_now(path):
    write_recording(path, make_rows(3), state=0)
    with Recording(path) as recording, Recording(path) as other:
        assert recording.state == "writing"
        assert recording.is_being_written() is False  # its process is dead
        other.mark_delivered()
        assert recording.state == "delivered"


def test_a_living_writer_is_writing_unless_it_has_ended(path):
    description = describe(writer=Writer.this_process())
    for state, writes in ((0, True), (1, False), (2, False)):
        write_recording(path, make_rows(3), description=description, state=state)
        with Recording(path) as recording:
            assert recording.is_being_written() is writes


def test_a_closed_recording_reads_nothing(path):
    write_recording(path, make_rows(3))
    recording = Recording(path)
    recording.close()
    recording.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        list(recording.windows())
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        _ = recording.state


def test_recordings_give_their_files_back(path):
    if not sys.platform.startswith("linux"):
        pytest.skip("counts what /proc/self/fd lists")
    write_recording(path, make_rows(3))
    before = open_files()
    for _ in range(20):
        Recording(path)  # nobody closes it
    overwrite(path, 8, b"\xff")
    for _ in range(20):
        refusal(path)
    assert open_files() == before


# ---- sizes --------------------------------------------------------------------------------------


@given(st.integers(1, 2000), st.integers(10, 10**6), st.floats(0.1, 65536.0))
def test_a_file_keeps_its_size_and_has_room_for_a_few_rows(columns, description_bytes, megabytes):
    data_offset, capacity = plan_ring(columns, description_bytes, megabytes * 1e6)
    record_bytes = 8 * (5 + columns)
    assert data_offset % 65536 == 0
    assert data_offset >= 64 + description_bytes
    assert capacity >= 4
    size = data_offset + capacity * record_bytes
    assert size <= megabytes * 1e6 or capacity == 4
    if megabytes * 1e6 - data_offset > 65536 * record_bytes:
        assert capacity * record_bytes % 65536 == 0  # it can be mapped on any machine
        assert size > megabytes * 1e6 - 65536 * record_bytes


def test_the_run_is_what_the_reader_names():
    assert RecordedRun._fields == (
        *("run_id", "tracking_uri", "key_prefix", "statistics", "first_step", "tags"),
    )

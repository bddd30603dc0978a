"""Recordings of the flight recorder: what is in them, as rows and as windows.

```python
from sysmetrics_native.recording import Recording

with Recording(path) as recording:
    print(recording.run, [series.key for series in recording.series])
    for window in recording.windows():
        print(window["cpu_utilization_percentage"].mean)
    rows = recording.rows  # a NumPy array
    print((rows["wall_ns"] * 1e-9).max(), rows["columns"].shape)
```

docs/recording-format.md describes the file for readers that are not this one.
"""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sysmetrics_native import private_files
from sysmetrics_native.backends.fold import OpenWindow, Reading, SeriesSpec
from sysmetrics_native.mapping import map_file
from sysmetrics_native.private_files import Writer
from sysmetrics_native.recorder import close_file, is_own
from sysmetrics_native.recording_file import (
    DELIVERED,
    FNV_OFFSET,
    FNV_PRIME,
    WRITING,
    RecordedRun,
    RecordedSeries,
    RecordingError,
    Row,
    RowFormat,
    read_header,
    read_state,
    write_state,
)
from sysmetrics_native.window import Window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.void]
    Mask = NDArray[np.bool_]

__all__ = ["RecordedRun", "RecordedSeries", "Recording", "RecordingError", "Writer"]

_STATES = ("writing", "ended", "delivered")
_BYTES_AT_ONCE = 1 << 20
_BYTES_OF_ROWS_AT_ONCE = 1 << 24
_ROWS_AT_ONCE = 1 << 16


class Recording:
    """A recording, open for reading; it may be one that is being written.

    Attributes:
        path: where it is.
        version: of the format.
        package: version of the package that wrote it.
        backend: ``native`` or ``psutil``.
        writer: the process that wrote it, or does so now.
        run: the MLflow run that its windows belong to; `None` for a sampler without one.
        series: its series, and how each is made from the columns of a row.
        columns: how many columns a row has.
        interval: seconds between two ticks.
        samples_per_window: ticks that make one window.
        started: when it was begun, in Unix seconds.
        surroundings: whatever else the writer said of the machine.

    Raises:
        RecordingError: the file is no recording, damaged, or of a newer version.
        OSError: it cannot be read; a link is not followed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._file = private_files.open_file(self.path, of_anybody=True)
        self._close = weakref.finalize(self, close_file, self._file)
        self._close.atexit = False
        try:
            header = read_header(self._file, self.path)
        except BaseException:
            self.close()
            raise
        description = header.description
        self.version = header.version
        self.package = description.package
        self.backend = description.backend
        self.writer = description.writer
        self.run = description.run
        self.series = description.layout.series
        self.columns = description.layout.columns
        self.interval = description.interval
        self.samples_per_window = description.samples_per_window
        self.started = description.started
        self.surroundings: Mapping[str, Any] | None = description.surroundings
        self._data_offset = header.data_offset
        self._capacity = header.capacity
        self._format = RowFormat(self.columns)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Recording:
        """The same as the constructor, for those who look for an `open`."""
        return cls(path)

    def close(self) -> None:
        """Give the file back. Arrays of `rows` stay good."""
        self._close()
        self._file = -1

    def __enter__(self) -> Recording:  # noqa: PYI034  # typing.Self came with Python 3.11
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ---- what has become of it ------------------------------------------------------------------

    @property
    def state(self) -> str:
        """``writing``, ``ended`` (the sampler has stopped) or ``delivered`` (nobody needs it).

        As the file says now. It says ``writing`` also after its process was killed: see
        `is_being_written`.
        """
        return _STATES[read_state(self._file, self.path)]

    def is_being_written(self) -> bool:
        """Whether rows may still come: its process runs, or somebody holds its lock."""
        if read_state(self._file, self.path) != WRITING:
            return False
        if is_own(os.fstat(self._file)):
            return True
        return bool(self.writer.is_alive()) or private_files.is_locked(self._file)

    def mark_delivered(self) -> None:
        """Say that all its windows are where they should be: it may be removed.

        Raises:
            OSError: it cannot be written, or another file is in its place now.
        """
        file = private_files.open_file(self.path, writable=True, of_anybody=True)
        try:
            if not os.path.samestat(os.fstat(file), os.fstat(self._file)):
                raise OSError(errno.ESTALE, f"{self.path} is another file now")
            write_state(file, DELIVERED)
        finally:
            close_file(file)

    # ---- windows --------------------------------------------------------------------------------

    def windows(self, *, percentiles: bool = True) -> Iterator[Window]:
        """The windows that the sampler closed, made from the rows once more; oldest first.

        They end at the same ticks and have the same timestamps. The last one is there, too, if it
        was cut short. Where the ring has lost the beginning, the first window begins at the oldest
        row that is left; rows that are damaged or lost count as missed. Needs no NumPy, and no more
        memory than one window.

        Args:
            percentiles: whether to compute them, which sorts each window's rows.
        """
        specs = [SeriesSpec(series.info, series.scale, series.quantum) for series in self.series]
        window: OpenWindow | None = None
        for row in self._rows_in_order():
            readings = self._readings(row.columns)
            if window is None:
                window = OpenWindow.first(specs, row.time, readings, self.samples_per_window)
                continue
            window.add(row.time, readings)
            if window.ends_at(row.time.tick):
                yield window.close().window(percentiles=percentiles)
                window = window.next()
        if window is not None and window.samples > 0:
            yield window.close().window(percentiles=percentiles)

    def _readings(self, columns: Sequence[float]) -> dict[str, Reading]:
        """What was there, by key, as the sources of a backend give it."""
        readings: dict[str, Reading] = {}
        for series in self.series:
            value = columns[series.numerator]
            divisor = 0.0 if series.denominator is None else columns[series.denominator]
            if value == value and divisor == divisor:  # noqa: PLR0124  # NaN differs from itself
                readings[series.key] = value if series.denominator is None else (value, divisor)
        return readings

    def _rows_in_order(self) -> Iterator[Row]:
        newest = self._newest()
        if newest is None:
            return
        first = (newest + 1) % self._capacity
        slots = self._slots()
        for begin, end in ((first, slots), (0, min(first, slots))):
            for slot, record in self._records(begin, end):
                row = self._format.decode(record)
                # By its slot it has one number. With another it is a newer one, which came
                # since, or left from before a gap.
                if row is not None and row.sequence == newest - (newest - slot) % self._capacity:
                    yield row

    @property
    def damaged_rows(self) -> int:
        """Records that are neither whole nor empty; in a live file one may be on its way.

        Reads the whole file.
        """
        empty = bytes(self._format.record_bytes)
        return sum(
            not self._is_whole(slot, record) and record != empty
            for slot, record in self._records(0, self._slots())
        )

    def _is_whole(self, slot: int, record: memoryview) -> bool:
        row = self._format.decode(record)
        return row is not None and row.sequence % self._capacity == slot

    def _slots(self) -> int:
        """How many records the file has by now."""
        size = os.fstat(self._file).st_size
        return max(0, min(self._capacity, (size - self._data_offset) // self._format.record_bytes))

    def _chunks(self, begin: int, end: int, at_once: int) -> Iterator[tuple[int, memoryview]]:
        """Bytes of the slots from `begin` up to `end`, so many at a time; whole records only."""
        record_bytes = self._format.record_bytes
        step = max(1, at_once // record_bytes)
        for slot in range(begin, end, step):
            count = min(step, end - slot) * record_bytes
            chunk = private_files.read_at(
                self._file, self._data_offset + slot * record_bytes, count
            )
            yield slot, memoryview(chunk)[: len(chunk) // record_bytes * record_bytes]

    def _records(self, begin: int, end: int) -> Iterator[tuple[int, memoryview]]:
        record_bytes = self._format.record_bytes
        for first, chunk in self._chunks(begin, end, _BYTES_AT_ONCE):
            for number in range(len(chunk) // record_bytes):
                yield first + number, chunk[number * record_bytes :][:record_bytes]

    def _newest(self) -> int | None:
        """Number of the newest whole row."""
        words = self._format.record_bytes // 8
        newest = -1
        for first, chunk in self._chunks(0, self._slots(), _BYTES_AT_ONCE):
            sequences = chunk.cast("Q")[::words].tolist()
            for number in _largest_first(sequences):
                if sequences[number] <= newest:
                    break
                if self._is_whole(first + number, chunk[number * 8 * words :][: 8 * words]):
                    newest = sequences[number]
                    break
        return newest if newest >= 0 else None

    # ---- rows -----------------------------------------------------------------------------------

    @property
    def rows(self) -> Rows:
        """The rows that are there now, oldest first, as a structured NumPy array.

        Its fields are ``sequence`` (the number of the row, from 0), ``tick`` (deadlines since the
        start), ``monotonic_ns``, ``wall_ns`` (Unix time), ``columns`` (NaN where there was no
        value; `series` says what they mean) and ``checksum``.

        The array is the file itself, mapped and read-only: nothing is copied, also where the ring
        has begun again, because it is mapped twice in a row. It is a copy only where damaged rows
        had to be left out of the middle, or where the file cannot be mapped so (on Windows, or
        where the ring is too small to end at a page).

        While the file is being written, its oldest rows are overwritten below you; the one that is
        next is left out from the beginning. Take a copy then, and from it what is intact:
        ``rows = recording.rows.copy(); rows = rows[Recording.is_intact(rows)]``.

        Raises:
            ModuleNotFoundError: NumPy is not installed.
        """
        np = _import_numpy()
        dtype = self._dtype()
        newest = self._newest()
        if newest is None:
            return np.empty(0, dtype)  # type: ignore[no-any-return]  # NumPy is here when needed
        has_wrapped = newest >= self._capacity
        is_live = read_state(self._file, self.path) == WRITING
        oldest = max(0, newest - self._capacity + (2 if is_live else 1))
        mapped = self._map(has_wrapped)
        if mapped is None:
            rows, expected = self._copy(dtype, newest)
        else:
            first = oldest % self._capacity
            ring: Rows = np.frombuffer(mapped, dtype)
            rows = ring[first : first + newest - oldest + 1]
            expected = np.arange(len(rows), dtype=np.uint64) + np.uint64(oldest)
        return _whole_part(rows, _are_whole(rows) & (rows["sequence"] == expected))

    def row_chunks(self) -> Iterator[Rows]:
        """The same rows, some megabytes at a time: for recordings larger than memory.

        Each chunk is a copy with at least one row. While the file is being written, what is
        overwritten before it was read is left out, and what came since this was called, too.

        Raises:
            ModuleNotFoundError: NumPy is not installed.
        """
        np = _import_numpy()
        dtype = self._dtype()
        newest = self._newest()
        if newest is None:
            return
        first = (newest + 1) % self._capacity
        slots = self._slots()
        for begin, end in ((first, slots), (0, min(first, slots))):
            for slot, chunk in self._chunks(begin, end, _BYTES_OF_ROWS_AT_ONCE):
                rows = np.frombuffer(chunk, dtype)
                whole = _are_whole(rows) & (rows["sequence"] == self._expected(newest, slot, rows))
                if whole.any():
                    yield rows if whole.all() else rows[whole]

    def _expected(self, newest: int, slot: int, rows: Rows) -> Any:
        """The number that each row must have, from the slot of the first of them."""
        np = _import_numpy()
        back = (newest % self._capacity - slot - np.arange(len(rows))) % self._capacity
        return np.uint64(newest) - back.astype(np.uint64)

    def _dtype(self) -> Any:
        return _import_numpy().dtype(
            [
                *(("sequence", "u8"), ("tick", "u8"), ("monotonic_ns", "u8"), ("wall_ns", "i8")),
                ("columns", "f8", (self.columns,)),
                ("checksum", "u8"),
            ]
        )

    def _map(self, twice: bool) -> memoryview | None:
        slots = self._slots()
        if twice and slots < self._capacity:  # its end was never written
            return None
        length = slots * self._format.record_bytes
        return map_file(self._file, self._data_offset, length, times=2 if twice else 1)

    def _copy(self, dtype: Any, newest: int) -> tuple[Any, Any]:
        """All records, oldest first, and the number that each has if it is whole."""
        np = _import_numpy()
        records = b"".join(chunk for _, chunk in self._chunks(0, self._slots(), _BYTES_AT_ONCE))
        ring = np.frombuffer(records, dtype)
        first = min((newest + 1) % self._capacity, len(ring))
        slots = np.concatenate([np.arange(first, len(ring)), np.arange(first)])
        back = (newest % self._capacity - slots) % self._capacity
        return ring[slots], np.uint64(newest) - back.astype(np.uint64)

    @staticmethod
    def is_intact(rows: Rows) -> Mask:
        """Which rows of an array from `rows`, or of a copy, still are the ones they were.

        One that is half overwritten has a wrong checksum; one that is overwritten has a larger
        number than those behind it.
        """
        np = _import_numpy()
        whole = _are_whole(rows)
        numbers = np.where(whole, rows["sequence"], np.iinfo(np.uint64).max)
        smallest_behind = np.minimum.accumulate(numbers[::-1])[::-1]
        intact: Mask = whole & (numbers == smallest_behind)
        return intact


def _are_whole(rows: Rows) -> Mask:
    """Which rows have the checksum that they must have."""
    np = _import_numpy()
    whole: Mask = np.empty(len(rows), bool)
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        some = np.ascontiguousarray(rows[begin : begin + _ROWS_AT_ONCE])
        words = some.view(np.uint64).reshape(len(some), -1)
        total = np.full(len(some), FNV_OFFSET, np.uint64)
        for column in range(words.shape[1] - 1):
            total ^= words[:, column]
            total *= np.uint64(FNV_PRIME)
            total ^= total >> np.uint64(32)
        whole[begin : begin + len(some)] = total == words[:, -1]
    return whole


def _whole_part(rows: Rows, whole: Mask) -> Rows:
    """The rows that are whole: a part of the array if nothing between them is damaged."""
    numbers = whole.nonzero()[0]
    if len(numbers) == 0:
        return rows[:0]
    begin, end = int(numbers[0]), int(numbers[-1]) + 1
    return rows[begin:end] if len(numbers) == end - begin else rows[whole]


def _largest_first(numbers: list[int]) -> Iterator[int]:
    """Indices of the numbers; they are sorted only if the first one is not what was sought."""
    if numbers:
        yield numbers.index(max(numbers))
        yield from sorted(range(len(numbers)), key=numbers.__getitem__, reverse=True)


def _import_numpy() -> Any:
    try:
        import numpy as np
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise ModuleNotFoundError(
            "the rows of a recording come as a NumPy array, and NumPy is not installed: "
            "pip install numpy (windows() does without)",
            name="numpy",
        ) from None
    return np

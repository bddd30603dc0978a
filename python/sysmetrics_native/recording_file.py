"""A recording as bytes: what its writer and its readers share.

docs/recording-format.md describes it for others. Whatever is read here may be damaged or made by
somebody who means harm: no number is used before it was compared with what it can be.
"""

from __future__ import annotations

import errno
import json
import math
import os
import struct
import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sysmetrics_native import catalog, private_files, settings
from sysmetrics_native.backends.fold import RowTime
from sysmetrics_native.private_files import Writer
from sysmetrics_native.tracking import NO_TAGS
from sysmetrics_native.window import SeriesInfo

MAGIC = b"SMNREC\x1a\n"
VERSION = 1
SUFFIX = ".smnrec"

WRITING, ENDED, DELIVERED = range(3)
"""States: being written; the sampler has stopped; every window is where it should be."""
_STATES = (WRITING, ENDED, DELIVERED)

_PREAMBLE = struct.Struct("=8sIIQQIIQI12x")
_STATE = struct.Struct("=Q")
_STATE_OFFSET = 40
_BYTE_ORDER = 0x01020304
_OTHER_BYTE_ORDER = 0x04030201

ALIGNMENT = 65536
"""No page of any machine is larger: what begins and ends at its multiples can be mapped."""
_PAGE = 4096
_FEWEST_ROWS = 4

_MOST_DESCRIPTION_BYTES = 1 << 24
_MOST_COLUMNS = 1 << 16
_MOST_BYTES = 1 << 62
_LONGEST_TEXT = 4096
_KINDS = ("gauge", "total", "rate", "ratio")


class RecordingError(ValueError):
    """A file is no recording, a damaged one, or one of a newer version."""


# ---- what a recording says of itself ------------------------------------------------------------


class RecordedSeries(NamedTuple):
    """One series, and how its values are made from the columns of a row."""

    key: str
    unit: str
    source: str
    kind: str
    """These four as in `SeriesInfo`."""
    numerator: int
    """The column that is read (gauge, total), or whose increase is taken (rate, ratio)."""
    denominator: int | None
    """Of a ratio, the column whose increase divides; of a rate it is time."""
    scale: float
    """From the unit of the columns to that of the series."""
    quantum: float
    """Smallest increase of the denominator that gives a meaningful value."""

    @property
    def info(self) -> SeriesInfo:
        """What users of a window know of it."""
        return SeriesInfo(self.key, self.unit, self.source, self.kind)


class RowLayout(NamedTuple):
    """What a row holds."""

    columns: int
    """How many doubles."""
    series: tuple[RecordedSeries, ...]


class RecordedRun(NamedTuple):
    """The MLflow run that a recording belongs to, and how its windows are logged."""

    run_id: str
    tracking_uri: str
    """Without credentials."""
    key_prefix: str
    """What stands before every key: ``system/``, or ``system/<node>/``."""
    statistics: tuple[str, ...]
    first_step: int | None
    """Step of the first window; `None` where it follows those that the run had before."""
    tags: Mapping[str, str] = NO_TAGS
    """To be set on the run."""


class Description(NamedTuple):
    """Everything that a recording says of itself in words."""

    package: str
    """Version of the package that wrote it."""
    backend: str
    interval: float
    """Seconds between two ticks."""
    samples_per_window: int
    started: float
    """Unix time in seconds."""
    writer: Writer
    layout: RowLayout
    run: RecordedRun | None
    surroundings: Mapping[str, Any] | None
    """Whatever else the writer said of the machine; for people."""

    def encode(self) -> bytes:
        """As JSON."""
        fields = {
            "package": self.package,
            "backend": self.backend,
            "interval_seconds": self.interval,
            "samples_per_window": self.samples_per_window,
            "started_seconds": self.started,
            "writer": self.writer._asdict(),
            "columns": self.layout.columns,
            "series": [series._asdict() for series in self.layout.series],
            "run": None if self.run is None else self.run._asdict(),
            "surroundings": self.surroundings,
        }
        return json.dumps(fields, allow_nan=False).encode()

    @classmethod
    def decode(cls, text: bytes) -> Description:
        """From JSON; a `ValueError` says what is wrong with it."""
        fields = _Fields("the description", _parse_json(text))
        columns = fields.whole("columns", 1, _MOST_COLUMNS)
        run = fields.value("run")
        return cls(
            package=fields.text("package"),
            backend=fields.text("backend"),
            interval=fields.number("interval_seconds", 1e-9, 1e9),
            samples_per_window=fields.whole(
                "samples_per_window", 1, settings.MAX_SAMPLES_PER_WINDOW
            ),
            started=fields.number("started_seconds", 0.0, 1e12),
            writer=_decode_writer(_Fields("its writer", fields.value("writer"))),
            layout=RowLayout(columns, _decode_series(fields.value("series"), columns)),
            run=None if run is None else _decode_run(_Fields("its run", run)),
            surroundings=fields.mapping("surroundings"),
        )


class _Fields:
    """The fields of a JSON object, each taken out as what it must be."""

    def __init__(self, where: str, value: object) -> None:
        self._where = where
        if not isinstance(value, dict):
            raise _wrong(f"{where} is no JSON object")
        self._fields = value

    def value(self, name: str) -> object:
        return self._fields.get(name)

    def _refuse(self, name: str) -> ValueError:
        return _wrong(f"{self._where} has an impossible {name!r}")

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        value = self.value(name)
        if value is not None and not isinstance(value, dict):
            raise self._refuse(name)
        return value

    def text(self, name: str) -> str:
        """Text that can be shown on a terminal without harm."""
        value = self.value(name)
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not value.isprintable():
            raise self._refuse(name)
        return value

    def texts(self, name: str) -> Mapping[str, str]:
        """Texts by their names; none where there is no such field."""
        names = self.mapping(name)
        if not names:
            return NO_TAGS
        texts = _Fields(f"{self._where}'s {name}", names)
        return {one: texts.text(one) for one in names}

    def whole(self, name: str, low: int, high: int) -> int:
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._refuse(name)
        return value

    def number(self, name: str, low: float, high: float) -> float:
        value = self.value(name)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self._refuse(name)
        if not low <= value <= high:  # false for NaN, too
            raise self._refuse(name)
        return float(value)


def _wrong(what: str) -> ValueError:
    return ValueError(what)


def _parse_json(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _wrong("the description is no JSON") from None


def _decode_writer(fields: _Fields) -> Writer:
    return Writer(
        host=fields.text("host"),
        boot_id=fields.text("boot_id"),
        pid=fields.whole("pid", 0, 1 << 32),
        started=fields.number("started", 0.0, 1e12),
    )


def _decode_run(fields: _Fields) -> RecordedRun:
    statistics = fields.value("statistics")
    if (
        not isinstance(statistics, list)
        or not statistics
        or not all(statistic in catalog.STATISTICS for statistic in statistics)
    ):
        raise _wrong("its run has impossible 'statistics'")
    return RecordedRun(
        run_id=fields.text("run_id"),
        tracking_uri=fields.text("tracking_uri"),
        key_prefix=fields.text("key_prefix"),
        statistics=tuple(statistics),
        first_step=None
        if fields.value("first_step") is None
        else fields.whole("first_step", 0, 1 << 63),
        tags=fields.texts("tags"),
    )


def _decode_series(value: object, columns: int) -> tuple[RecordedSeries, ...]:
    if not isinstance(value, list):
        raise _wrong("the description has no list of series")
    found: dict[str, RecordedSeries] = {}
    for one in value:
        fields = _Fields("a series", one)
        kind = fields.text("kind")
        is_ratio = kind == "ratio"
        if kind not in _KINDS or (fields.value("denominator") is None) == is_ratio:
            raise _wrong("a series is of no kind that there is")
        series = RecordedSeries(
            key=fields.text("key"),
            unit=fields.text("unit"),
            source=fields.text("source"),
            kind=kind,
            numerator=fields.whole("numerator", 0, columns - 1),
            denominator=fields.whole("denominator", 0, columns - 1) if is_ratio else None,
            scale=fields.number("scale", -math.inf, math.inf),
            quantum=fields.number("quantum", 0.0, math.inf),
        )
        if series.key in found or math.isinf(series.scale):
            raise _wrong(f"the series {series.key!r} is there twice, or has no finite scale")
        found[series.key] = series
    return tuple(found.values())


# ---- the header ---------------------------------------------------------------------------------


class Header(NamedTuple):
    """What comes before the rows."""

    version: int
    state: int
    data_offset: int
    """Where the ring of rows begins."""
    capacity: int
    """How many rows it holds."""
    description: Description


def plan_ring(columns: int, description_bytes: int, most_bytes: float) -> tuple[int, int]:
    """Where the ring of a file of at most so many bytes begins, and its capacity.

    The ring ends at a page where there is room for that, so that readers can map it twice in a row.
    A file always has room for a few rows.
    """
    header_bytes = _PREAMBLE.size + description_bytes
    data_offset = math.ceil(header_bytes / ALIGNMENT) * ALIGNMENT
    record_bytes = RowFormat(columns).record_bytes
    most_rows = int(most_bytes - data_offset) // record_bytes
    for unit in (ALIGNMENT, _PAGE):
        step = unit // math.gcd(unit, record_bytes)
        if most_rows >= step:
            return data_offset, most_rows // step * step
    return data_offset, max(most_rows, _FEWEST_ROWS)


def encode_header(description: bytes, columns: int, data_offset: int, capacity: int) -> bytes:
    """Everything before the rows, of a recording that is being written."""
    preamble = _PREAMBLE.pack(
        MAGIC,
        VERSION,
        _BYTE_ORDER,
        data_offset,
        capacity,
        RowFormat(columns).record_bytes,
        len(description),
        WRITING,
        zlib.crc32(description),
    )
    return preamble + description


def read_header(file: int, path: str) -> Header:
    """Read and check it.

    Raises:
        OSError: the file cannot be read.
        RecordingError: it is no recording, a damaged one, or one of a newer version.
    """
    start = private_files.read_at(file, 0, _PREAMBLE.size)
    if not start.startswith(MAGIC):
        raise RecordingError(
            f"{path} is not a recording: name a file that the option `recorder` made"
        )
    if len(start) < _PREAMBLE.size:
        raise _damaged(path, "it ends within its header")
    fields = _PREAMBLE.unpack(start)
    _, version, byte_order, data_offset, capacity, record_bytes, length, state, crc = fields
    _check_format(path, version, byte_order)
    room = min(data_offset, os.fstat(file).st_size) - _PREAMBLE.size
    if data_offset % ALIGNMENT != 0 or length > min(room, _MOST_DESCRIPTION_BYTES):
        raise _damaged(path, "its header does not fit into the file")
    description = _read_description(file, path, length, crc)
    if record_bytes != RowFormat(description.layout.columns).record_bytes:
        raise _damaged(path, "its rows are of another size than its columns")
    if not 1 <= capacity <= (_MOST_BYTES - data_offset) // record_bytes:
        raise _damaged(path, "its ring has an impossible size")
    if state not in _STATES:
        raise _damaged(path, "its state is none that there is")
    return Header(version, state, data_offset, capacity, description)


def _check_format(path: str, version: int, byte_order: int) -> None:
    """Where these two stand, and the magic number, is the same in every version."""
    if byte_order == _OTHER_BYTE_ORDER:
        raise RecordingError(
            f"{path} was written on a machine with another byte order: read it on one like that"
        )
    if byte_order != _BYTE_ORDER or version == 0:
        raise _damaged(path, "its header makes no sense")
    if version > VERSION:
        raise RecordingError(
            f"{path} was written by a newer version of sysmetrics-native (format {version}, this "
            f"one knows {VERSION}): upgrade with pip install --upgrade sysmetrics-native"
        )


def _read_description(file: int, path: str, length: int, crc: int) -> Description:
    text = private_files.read_at(file, _PREAMBLE.size, length)
    if len(text) < length or zlib.crc32(text) != crc:
        raise _damaged(path, "its description has a wrong checksum")
    try:
        return Description.decode(text)
    except ValueError as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: str, what: str) -> RecordingError:
    return RecordingError(f"{path} is damaged: {what}. Take another copy of it, or delete it")


def read_state(file: int, path: str) -> int:
    """What has become of a recording by now.

    Raises:
        RecordingError: nothing that there is.
    """
    data = private_files.read_at(file, _STATE_OFFSET, _STATE.size)
    state = int.from_bytes(data, sys.byteorder)
    if len(data) < _STATE.size or state not in _STATES:
        raise _damaged(path, "its state is none that there is")
    return state


def write_state(file: int, state: int) -> None:
    """Say what has become of a recording."""
    private_files.write_at(file, _STATE_OFFSET, _STATE.pack(state))


# ---- rows ---------------------------------------------------------------------------------------

FNV_OFFSET = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3
_WORD = (1 << 64) - 1


def checksum(words: Sequence[int]) -> int:
    """Of a record's words before the last: FNV-1a by words, with a shift after each."""
    total = FNV_OFFSET
    for word in words:
        total = (total ^ word) * FNV_PRIME & _WORD
        total ^= total >> 32
    return total


class Row(NamedTuple):
    """One reading of everything."""

    sequence: int
    """Its number, from 0, which is the reading that counters start from."""
    time: RowTime
    columns: tuple[float, ...]
    """NaN where there was no value."""


class RowFormat:
    """Rows with so many columns, as records of the file."""

    def __init__(self, columns: int) -> None:
        self._values = struct.Struct(f"=QQQq{columns}d")
        self._words = struct.Struct(f"={4 + columns}Q")
        self._checksum = struct.Struct("=Q")
        self.record_bytes = self._values.size + self._checksum.size

    def encode(self, row: Row) -> bytes:
        """As a record."""
        values = self._values.pack(row.sequence, *row.time, *row.columns)
        return values + self._checksum.pack(checksum(self._words.unpack(values)))

    def decode(self, record: bytes | memoryview) -> Row | None:
        """From a record; `None` if it is not whole."""
        (expected,) = self._checksum.unpack_from(record, self._values.size)
        if checksum(self._words.unpack_from(record)) != expected:
            return None
        sequence, tick, monotonic_ns, wall_ns, *columns = self._values.unpack_from(record)
        return Row(sequence, RowTime(tick, monotonic_ns, wall_ns), tuple(columns))


class Recorded(NamedTuple):
    """How recording has gone so far."""

    rows: int = 0
    errors: int = 0
    """Rows that could not be written."""
    last_error: int = 0
    """Why the last of them could not, an `errno`; 0 if all could."""


class RowWriter:
    """Appends rows to a file: csrc/recorder.c in Python. Owns the descriptor."""

    def __init__(self, file: int, data_offset: int, capacity: int, columns: int) -> None:
        self._file = file
        self._data_offset = data_offset
        self._capacity = capacity
        self._format = RowFormat(columns)
        self._sequence = 0
        self.recorded = Recorded()

    def append(self, time: RowTime, columns: Sequence[float]) -> None:
        """Write a row, or count an error."""
        sequence = self._sequence
        self._sequence += 1
        record = self._format.encode(Row(sequence, time, tuple(columns)))
        offset = self._data_offset + sequence % self._capacity * len(record)
        rows, errors, last_error = self.recorded
        try:
            private_files.write_at(self._file, offset, record)
        except OSError as error:
            self.recorded = Recorded(rows, errors + 1, error.errno or errno.EIO)
        else:
            self.recorded = Recorded(rows + 1, errors, last_error)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._file)

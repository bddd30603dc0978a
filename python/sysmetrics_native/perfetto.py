"""A recording or a run as a trace of counters that opens in ui.perfetto.dev and chrome://tracing.

The file has the Trace Event Format, as the traces of PyTorch's profiler have, and their clock: in
both, `ts` is microseconds of the wall clock since `baseTimeNanoseconds`. PyTorch (Kineto) takes for
that the time at which the process was started, rounded down to a multiple of 7 889 238 s, a quarter
of a year; before PyTorch 2.4 there was no base, and `ts` was Unix time. So what this writes lines
up with a trace of the same quarter by itself, and `Companion` makes it line up with any.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from sysmetrics_native.export_table import columns_of
from sysmetrics_native.recorded_series import read_parts
from sysmetrics_native.recording import Recording
from sysmetrics_native.timeline import GAP, Timeline, Track, find_gaps, node_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sysmetrics_native.recording import Rows

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_NS_PER_SECOND = 1_000_000_000
_NS_PER_MS = 1_000_000
_NS_PER_US = 1000
_MS_PER_SECOND = 1000
_BASE_UNIT_NS = 7_889_238 * _NS_PER_SECOND
# No process has a number that large, and no GPU, which Kineto counts among the processes.
_FIRST_PID = 1 << 23

_BYTES_AT_ONCE = 1 << 20
_MOST_HEAD_BYTES = 1 << 26
_BASE = re.compile(rb'"baseTimeNanoseconds"\s*:\s*(\d{1,19})\D')
_LONGEST_BASE = 256
_EVENTS = re.compile(rb'"traceEvents"\s*:\s*\[')


def base_of(unix_seconds: float) -> int:
    """The base, in Unix nanoseconds, that PyTorch's profiler takes in a process of that time."""
    return int(unix_seconds * _NS_PER_SECOND) // _BASE_UNIT_NS * _BASE_UNIT_NS


def write_trace(
    source: Recording | Timeline, file: BinaryIO, companion: Companion | None = None
) -> int:
    """Write a trace.

    A counter has the key of a series for its name, the unit for that of its value, and changes
    where the stretch begins that a value describes. Slices named ``no data`` stand where nothing is
    known, since a counter cannot be absent for a while.

    Args:
        source: a recording, which is read some megabytes at a time, or a run.
        file: where to.
        companion: another trace, whose events are to be in the file, too.

    Returns:
        How many values it has.
    """
    if companion is None:
        base_ns = base_of(source.started if isinstance(source, Recording) else source.start)
        head = b'{"displayTimeUnit": "ms", "baseTimeNanoseconds": %d, "traceEvents": [' % base_ns
        rest = iter([b"]}\n"])
    else:
        base_ns = companion.base_ns
        head, rest = companion.split()
    trace = _Trace(base_ns)
    file.write(head)
    separator = b"\n"
    events = trace.of_recording(source) if isinstance(source, Recording) else trace.of_run(source)
    for lines in events:
        if lines:
            file.write(separator + ",\n".join(lines).encode())
            separator = b",\n"
    following = _until_a_sign(rest)
    file.write(b"\n" if following.lstrip().startswith(b"]") else separator)
    file.write(following)
    file.writelines(rest)
    return trace.values


def _until_a_sign(chunks: Iterator[bytes]) -> bytes:
    """The first of the chunks, so many that there is more than white space."""
    text = b""
    while not text.strip():
        chunk = next(chunks, None)
        if chunk is None:
            break
        text += chunk
    return text


# ---- another trace ------------------------------------------------------------------------------


class Companion:
    """A trace of PyTorch's profiler, or another of its format, as JSON; it may be compressed.

    It is copied as it is and never held in memory.

    Attributes:
        base_ns: Unix nanoseconds at which its clock says 0.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such trace.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.split()  # so that a wrong file is refused before anything is written
        self.base_ns = self._find_base()

    def split(self) -> tuple[bytes, Iterator[bytes]]:
        """What comes before its first event, and everything from there on."""
        chunks = self._chunks()
        head = b""
        for chunk in chunks:
            head += chunk
            found = _EVENTS.search(head)
            if found is not None:
                return head[: found.end()], itertools.chain([head[found.end() :]], chunks)
            if len(head) > _MOST_HEAD_BYTES:
                break
        raise ValueError(
            f"{self._path} is no trace to put metrics into: it has no list of traceEvents"
        )

    def _find_base(self) -> int:
        before = b""
        for chunk in self._chunks():
            text = before + chunk
            found = _BASE.search(text)
            if found is not None:
                return int(found.group(1))
            before = text[-_LONGEST_BASE:]
        return 0  # PyTorch before 2.4

    def _chunks(self) -> Iterator[bytes]:
        with open(self._path, "rb") as file:
            is_compressed = file.read(2) == b"\x1f\x8b"
        opener = gzip.open if is_compressed else open
        try:
            with opener(self._path, "rb") as file:
                while chunk := file.read(_BYTES_AT_ONCE):
                    yield chunk
        except (EOFError, zlib.error):
            raise ValueError(f"{self._path} is damaged: it cannot be decompressed") from None


# ---- events -------------------------------------------------------------------------------------


class _Trace:
    """Makes events, as lines of JSON."""

    def __init__(self, base_ns: int) -> None:
        self._base_ns = base_ns
        self.values = 0
        """How many have been made."""

    def of_recording(self, recording: Recording) -> Iterator[list[str]]:
        name = node_of(recording) or recording.writer.host
        pid = _pid(name)
        yield _process(pid, name)
        gaps = _RowGaps(GAP * recording.interval)
        for part in read_parts(recording):
            for series, stretches in zip(recording.series, part.series, strict=True):
                unit = series.unit
                yield self._counter(pid, series.key, unit, stretches.begins_ns, stretches.values)
            yield self._gaps(pid, *gaps.find(part.rows))

    def of_run(self, timeline: Timeline) -> Iterator[list[str]]:
        for node in sorted({track.node for track in timeline.tracks}, key=lambda node: node or ""):
            name = node or timeline.title
            pid = _pid(name)
            yield _process(pid, name)
            tracks = [track for track in timeline.tracks if track.node == node]
            for track in tracks:
                is_value = ~np.isnan(track.values)
                begins_ns = _ns(_begins(track, timeline.interval))[is_value]
                for key, values in columns_of(track):
                    yield self._counter(pid, key, track.unit, begins_ns, values[is_value])
            times = np.unique(
                np.concatenate([track.times[~np.isnan(track.values)] for track in tracks])
            )
            behind, _ = find_gaps(times)
            lengths = _ns(times[behind]) - _ns(times[behind - 1])
            yield self._gaps(pid, _ns(times[behind - 1]), lengths)

    def _counter(
        self, pid: int, name: str, unit: str, times_ns: Integers, values: Floats
    ) -> list[str]:
        before = f'{{"ph":"C","pid":{pid},"name":{json.dumps(name)},"ts":'
        between = f',"args":{{{json.dumps(unit or "value")}:'
        # What was before the companion's clock began it cannot show.
        there = np.isfinite(values) & (times_ns >= self._base_ns)
        self.values += int(there.sum())
        times = (times_ns[there] - self._base_ns).tolist()
        return [
            f"{before}{_us(time)}{between}{value!r}}}}}"
            for time, value in zip(times, values[there].tolist(), strict=True)
        ]

    def _gaps(self, pid: int, times_ns: Integers, lengths_ns: Integers) -> list[str]:
        before = f'{{"ph":"X","pid":{pid},"tid":0,"name":"no data","ts":'
        times = (times_ns - self._base_ns).tolist()
        return [
            f'{before}{_us(time)},"dur":{_us(length)}}}'
            for time, length in zip(times, lengths_ns.tolist(), strict=True)
            if time >= 0
        ]


class _RowGaps:
    """Finds where rows of a recording are missing."""

    def __init__(self, longest_seconds: float) -> None:
        self._longest_ns = longest_seconds * _NS_PER_SECOND
        self._before: Rows | None = None

    def find(self, rows: Rows) -> tuple[Integers, Integers]:
        """When each gap in the next rows begins, in Unix nanoseconds, and how long it is."""
        ends = rows[["sequence", "monotonic_ns", "wall_ns"]]
        if self._before is not None:
            ends = np.concatenate([self._before, ends])
        self._before = ends[-1:].copy()
        lengths = np.diff(ends["monotonic_ns"].astype(np.int64))
        is_gap = (lengths > int(self._longest_ns)) | (np.diff(ends["sequence"]) != 1)
        return ends["wall_ns"][:-1][is_gap], lengths[is_gap]


def _pid(name: str) -> int:
    """Of its own for each node, so that the traces of several can be put together."""
    return _FIRST_PID + zlib.crc32(name.encode()) % _FIRST_PID


def _process(pid: int, name: str) -> list[str]:
    metadata: list[tuple[str, dict[str, object]]] = [
        ("process_name", {"name": f"System metrics of {name}"}),
        ("process_sort_index", {"sort_index": -1}),  # above the rest
        ("thread_name", {"name": "gaps"}),
    ]
    return [
        json.dumps({"ph": "M", "pid": pid, "tid": 0, "ts": 0, "name": kind, "args": arguments})
        for kind, arguments in metadata
    ]


def _begins(track: Track, usual: float) -> Floats:
    """When the stretch began that each value describes: at the value before it, or behind a gap."""
    if track.kind == "total" or len(track.times) == 0:
        return track.times
    before = np.insert(track.times[:-1], 0, np.nan)
    is_gap = np.insert(np.isnan(track.values[:-1]), 0, True)
    begins: Floats = np.where(is_gap, track.times - usual, before)
    return begins


def _ns(times: Floats) -> Integers:
    """MLflow counts in milliseconds."""
    nanoseconds: Integers = np.rint(times * _MS_PER_SECOND).astype(np.int64) * _NS_PER_MS
    return nanoseconds


def _us(nanoseconds: int) -> str:
    return f"{nanoseconds // _NS_PER_US}.{nanoseconds % _NS_PER_US:03}"

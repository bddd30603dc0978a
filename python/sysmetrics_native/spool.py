"""Windows on disk that wait for the tracking server.

A spool is a text file of one run of a monitor, to which lines are only ever added:

    58c9e1f0 {"format": "sysmetrics-native spool", "version": 1, "run_id": …, "tracking_uri": …, …}
    9b2d7a31 {"window": 17, "timestamp_ms": 1764000000123, "metrics": {"system/…": 12.3, …}}
    03fe6611 {"sent": 18}

Each line is the CRC-32 of its JSON text, a space, and that text. The first says whose windows these
are. ``sent`` is how many of the run's windows, counted from its first, have reached the server.
``first_step``, alone on a line, is the step of window 0, where that was not known at the start.
``ended`` is the last line of a monitor that ended before all were sent, and why.

A process may be killed at any instruction: a last line without its end is none.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any, NamedTuple

from sysmetrics_native import private_files
from sysmetrics_native.private_files import Writer
from sysmetrics_native.tracking import NO_TAGS

FORMAT = "sysmetrics-native spool"
VERSION = 1
SUFFIX = ".smnspool"

MAX_BYTES = 256 << 20
"""Most that one spool takes of the disk: with MLflow's own metrics, six days of windows of 1 s."""

_MAX_LINE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
_CRC_DIGITS = 8


class SpoolError(ValueError):
    """A file that is no spool, or none that this version can read."""


class WaitingWindow(NamedTuple):
    """The metrics of one window on their way to the server."""

    number: int
    """Windows of this monitor before it."""
    timestamp_ms: int
    """Its end, in Unix milliseconds."""
    metrics: Mapping[str, float]


class Origin(NamedTuple):
    """Whose windows a spool holds."""

    run_id: str
    tracking_uri: str
    """Without secrets."""
    first_step: int | None
    """The step of window 0; `None` while only the server can tell."""
    writer: Writer
    created: float
    """Unix seconds."""
    surroundings: Mapping[str, Any]
    """See `endings.surroundings`."""
    tags: Mapping[str, str] = NO_TAGS
    """To be set on the run."""


def spool_folder(spool_dir: str | None) -> str:
    """Where spools lie; the argument is the option of that name."""
    return os.path.join(private_files.state_folder(spool_dir), "spool")


# ---- lines --------------------------------------------------------------------------------------


def _line(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _content(line: bytes) -> Any:
    """What a line says; `None` where it is damaged."""
    try:
        if int(line[:_CRC_DIGITS], 16) != zlib.crc32(line[_CRC_DIGITS + 1 :]):
            return None
        return json.loads(line[_CRC_DIGITS + 1 :])
    except (ValueError, RecursionError):
        return None


def _window(content: Any) -> WaitingWindow | None:
    """The window of a line; `None` where it is none, or not one that we would have written."""
    try:
        number, timestamp_ms, metrics = (
            content["window"],
            content["timestamp_ms"],
            content["metrics"],
        )
        is_sound = (
            _is_count(number)
            and _is_count(timestamp_ms)
            and all(
                type(value) in (int, float) and math.isfinite(value) for value in metrics.values()
            )
        )
    except (AttributeError, KeyError, TypeError, OverflowError):
        return None
    return WaitingWindow(number, timestamp_ms, metrics) if is_sound else None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _origin(content: Any, path: str) -> Origin:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SpoolError(
            f"{path} is not a spool of sysmetrics-native, or its first line is damaged"
        )
    if content.get("version") != VERSION:
        raise SpoolError(
            f"{path} was written by another version of sysmetrics-native (format "
            f"{content.get('version')}, this one reads {VERSION}): upgrade the package"
        )
    try:
        writer = Writer(
            str(content["writer"]["host"]),
            str(content["writer"]["boot_id"]),
            int(content["writer"]["pid"]),
            float(content["writer"]["started"]),
        )
        origin = Origin(
            str(content["run_id"]),
            str(content["tracking_uri"]),
            content["first_step"],
            writer,
            float(content["created"]),
            dict(content["surroundings"]),
            _tags(content.get("tags")),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SpoolError(f"{path} does not say whose windows it holds: {error!r}") from None
    if origin.first_step is not None and not _is_count(origin.first_step):
        raise SpoolError(f"{path} has an impossible first step: {origin.first_step!r}")
    return origin


def _tags(content: Any) -> Mapping[str, str]:
    """The tags of a first line; none where it has none, as it was once written."""
    if not isinstance(content, dict):
        return NO_TAGS
    return {key: value for key, value in content.items() if isinstance(value, str)}


def _lines(file: int, offset: int) -> Iterator[tuple[int, bytes]]:
    """Every complete line from an offset on, and the offset behind it."""
    rest = b""
    while True:
        chunk = private_files.read_at(file, offset + len(rest), _CHUNK_BYTES)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            offset += len(line) + 1
            yield offset, line
        if len(rest) > _MAX_LINE_BYTES:  # no line of ours: skip to where the next may begin
            offset, rest = offset + len(rest), b""


# ---- while its run goes on ----------------------------------------------------------------------


class Spool:
    """A spool that one monitor writes, and reads back. Not for several threads at once."""

    def __init__(self, path: str, origin: Origin) -> None:
        """Create the file.

        Raises:
            OSError: it cannot be created, or its folder is not ours alone.
        """
        self.path = path
        private_files.make_folder(os.path.dirname(path))
        self._file = private_files.create_file(path)
        self._size = 0
        self._unsent = 0
        self._ahead: deque[WaitingWindow] = deque()  # the oldest of them, read and not yet sent
        self._ahead_offset = 0  # what was read ends here
        try:
            private_files.lock(self._file)
            whose = origin._asdict() | {"writer": origin.writer._asdict()}
            self._append({"format": FORMAT, "version": VERSION, **whose})
        except BaseException:
            self.remove()
            raise

    def __len__(self) -> int:
        """How many windows have not been sent."""
        return self._unsent

    def append(self, window: WaitingWindow) -> None:
        """Add a window behind those there are.

        Raises:
            OSError: the disk is full, or the spool is; the file is as it was.
        """
        self._append(
            {
                "window": window.number,
                "timestamp_ms": window.timestamp_ms,
                # What is no number has no place in JSON, nor in MLflow.
                "metrics": {k: v for k, v in window.metrics.items() if math.isfinite(v)},
            }
        )
        self._unsent += 1

    def unsent(self) -> Iterator[WaitingWindow]:
        """The windows that have not been sent, oldest first.

        Those that were looked at stay in memory until they are sent, so look at few.
        """
        yield from self._ahead
        for end, line in _lines(self._file, self._ahead_offset):
            self._ahead_offset = end
            window = _window(_content(line))
            if window is not None:
                self._ahead.append(window)
                yield window

    def mark_sent(self, through: int) -> None:
        """Say that the server has every window before number `through`."""
        sent = sum(1 for _ in takewhile(lambda window: window.number < through, self.unsent()))
        for _ in range(sent):
            self._ahead.popleft()
        self._unsent -= sent
        self._append({"sent": through})

    def mark_first_step(self, step: int) -> None:
        """Say which step window 0 has."""
        self._append({"first_step": step})

    def release(self, reason: str) -> None:
        """Leave the rest to `recover`, and say why it was not sent."""
        self._append({"ended": time.time(), "reason": reason})
        private_files.unlock(self._file)

    def remove(self) -> None:
        """Take the file away."""
        os.close(self._file)
        os.unlink(self.path)

    def _append(self, content: Mapping[str, Any]) -> None:
        line = _line(content)
        if self._size + len(line) > MAX_BYTES:
            raise OSError(errno.EFBIG, f"the spool has reached its limit of {MAX_BYTES >> 20} MiB")
        try:
            private_files.write_at(self._file, self._size, line)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(line)


# ---- afterwards ---------------------------------------------------------------------------------


class SpoolFile:
    """A spool that somebody else has left: what it holds, to be sent by `recover`.

    Attributes:
        path: of the file.
        origin: whose windows it holds.
        first_step: the step of window 0, or `None` where only the server can tell.
        sent: windows, counted from the first of the run, that the server has for sure.
        unsent: how many others it holds.
        ended: when its monitor ended, in Unix seconds; `None` if it was killed.
        reason: why the monitor could not send them; empty if it was killed.
        damaged_lines: lines that are not as they were written, and are left out.
    """

    def __init__(self, path: str) -> None:
        """Open and read it.

        Raises:
            OSError: it cannot be opened, or is not ours.
            SpoolError: it is no spool, or a newer one.
        """
        self.path = path
        self._file = private_files.open_file(path, writable=True)
        try:
            self._read()
        except BaseException:
            os.close(self._file)
            raise

    def _read(self) -> None:
        lines = _lines(self._file, 0)
        self._start, first_line = next(lines, (0, b""))
        self.origin = _origin(_content(first_line), self.path)
        self.first_step = self.origin.first_step
        self.sent = 0
        self.ended: float | None = None
        self.reason = ""
        self.damaged_lines = 0
        self._end = self._start
        for self._end, line in lines:
            self._take_mark(_content(line))
        self.unsent = sum(1 for _ in self.windows())

    def _take_mark(self, content: Any) -> None:
        if not isinstance(content, dict):
            self.damaged_lines += 1
        elif _is_count(content.get("sent")):
            self.sent = max(self.sent, content["sent"])
        elif _is_count(content.get("first_step")):
            self.first_step = content["first_step"]
        elif isinstance(content.get("ended"), float):
            self.ended, self.reason = content["ended"], str(content.get("reason", ""))
        elif _window(content) is None:
            self.damaged_lines += 1

    def windows(self) -> Iterator[WaitingWindow]:
        """The windows that the server may not have, oldest first, each once."""
        following = self.sent
        for _, line in _lines(self._file, self._start):
            window = _window(_content(line))
            if window is not None and window.number >= following:
                following = window.number + 1
                yield window

    def lock(self) -> bool:
        """Keep others away until `close`; False if somebody is at work on it."""
        return private_files.lock(self._file)

    def mark_sent(self, through: int) -> None:
        """Say that the server has every window before number `through`."""
        self._append({"sent": through})

    def mark_first_step(self, step: int) -> None:
        """Say which step window 0 has."""
        self._append({"first_step": step})
        self.first_step = step

    def _append(self, content: Mapping[str, Any]) -> None:
        # A line that was cut short by a kill is overwritten.
        line = _line(content)
        private_files.write_at(self._file, self._end, line)
        self._end += len(line)

    def remove(self) -> None:
        """Take the file away: everything in it was sent."""
        self.close()
        os.unlink(self.path)

    def close(self) -> None:
        """Close it, and let others at it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

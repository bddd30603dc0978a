"""Where the live view has its values from: a sampler of its own, or the recording of a job."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import psutil

from sysmetrics_native import private_files
from sysmetrics_native.endings import how_it_ended
from sysmetrics_native.recorder import recordings_folder
from sysmetrics_native.recording import Recording
from sysmetrics_native.recording_file import SUFFIX, RecordedSeries, RecordingError
from sysmetrics_native.sampler import Sampler
from sysmetrics_native.top.history import History, Readings
from sysmetrics_native.top.stretches import is_shown_as_rate

EXTRA_SOURCES = ("cpu_detail", "pressure", "disk_io", "network_rate")
"""That a view of this machine has beyond the default, where the machine has them."""
MOST_BYTES = 256_000_000
"""Of a recording that are read at the start: its end."""

_STATUS_SECONDS = 1.0
_SILENCE_SECONDS = 3.0
_SILENCE_TICKS = 10
_LOOK_THROUGH_SECONDS = 30.0
_MOST_NAMED = 5


class Feed(Protocol):
    """Something that values come from."""

    title: str
    series: Sequence[RecordedSeries]
    interval: float
    """Seconds between two ticks."""
    root: int | None
    """The process whose tree belongs to it; `None` where there is none to be seen from here."""
    is_of_machine: bool
    """Whether it is about all processes of this machine."""
    status: str
    """How it is, in words."""
    is_over: bool
    """Whether nothing will come any more."""

    def poll(self, history: History) -> bool:
        """Put what is new into the history; whether there was anything, or another status."""

    def close(self) -> None:
        """Let go of everything."""


# ---- this machine -------------------------------------------------------------------------------


class SamplerFeed:
    """Samples this machine.

    Args:
        interval: seconds between two ticks.
        pid: a process whose own metrics are wanted, too; 0 for none.

    Raises:
        ValueError: an option, or a variable of the environment, is not allowed.
    """

    def __init__(self, interval: float, pid: int = 0) -> None:
        self.interval = interval
        self.root: int | None = pid or None
        self.is_of_machine = not pid
        self.is_over = False
        sources = ["default", *EXTRA_SOURCES, *(["process"] if pid else [])]
        chosen = [name for name in sources if name == "default" or _has(name, pid)]
        self._sampler = Sampler(interval, 1, sources=chosen, pid=pid, recorder=False)
        self.series: Sequence[RecordedSeries] = tuple(
            RecordedSeries(*info, 0, None, 1.0, 0.0) for info in self._sampler.schema
        )
        host = private_files.Writer.this_process().host
        self.title = f"{host}, process {pid}" if pid else host
        self.status = f"live, every {interval:g} s"
        self._is_total = {one.key for one in self.series if one.kind == "total"}
        self._shown_as_rate = {one.key for one in self.series if is_shown_as_rate(one)}
        self._process = _find_process(pid)
        self._totals: dict[str, float] = {}
        self._time = 0.0
        self._sampler.start()

    def poll(self, history: History) -> bool:
        found = []
        while (window := self._sampler.next_window(0.0, percentiles=False)) is not None:
            length = max(window.end - window.start, 0.0)
            begin, self._time = self._time, self._time + length
            values = {}
            for key, series in window.items():
                value = series.last if key in self._is_total else series.mean
                if value is not None and key in self._shown_as_rate:
                    value = self._increase(key, value, length)
                if value is not None:
                    values[key] = value
            if length > 0.0:
                found.append(Readings(begin, self._time, window.end, values))
        history.add_readings(found)
        if self._process is not None and not self._process.is_running():
            self._process = None
            self.status = f"process {self.root} has ended"
        return bool(found)

    def _increase(self, key: str, total: float, seconds: float) -> float | None:
        before = self._totals.get(key, 0.0)
        self._totals[key] = total
        return (total - before) / seconds if seconds > 0.0 and total >= before else None

    def close(self) -> None:
        self._sampler.stop(timeout=1.0)


def _find_process(pid: int) -> psutil.Process | None:
    """To be asked whether it still runs; `None` where there is none to ask."""
    try:
        return psutil.Process(pid) if pid else None
    except psutil.Error:
        return None


def _has(source: str, pid: int) -> bool:
    """Whether this machine has it, and the backend knows it."""
    try:
        Sampler(sources=source, pid=pid, recorder=False)
    except ValueError:
        return False
    return True


# ---- a recording --------------------------------------------------------------------------------


class RecordingFeed:
    """Follows a recording, and says what becomes of its writer. Writes nothing.

    Raises:
        OSError: it cannot be read.
        RecordingError: it is no recording.
    """

    def __init__(self, path: str) -> None:
        self._recording = Recording(path)
        self._identity = _identity(path)
        recording = self._recording
        self.series: Sequence[RecordedSeries] = recording.series
        self.interval = recording.interval
        name = os.path.basename(path)
        run = recording.run
        self.title = name if run is None else f"run {run.run_id}"
        self.title += f" on {recording.writer.host}"
        self.is_of_machine = False
        self.is_over = False
        self.status = "reading"
        self._number = -1
        self._last_row = time.monotonic()
        self._next_status = 0.0
        self._next_search = 0.0
        self.root: int | None = None

    def poll(self, history: History) -> bool:
        if self.is_over:
            return False
        now = time.monotonic()
        before = self.status
        try:
            has_come = self._read(history, now)
            if now >= self._next_status:
                self._next_status = now + _STATUS_SECONDS
                self.status, has_ended = self._state(now)
                if has_ended:  # it may have written until just now
                    has_come |= self._read(history, now)
                    self.is_over = True
        except OSError as error:
            self.status = f"cannot be read: {error.strerror or error}"
            has_come = False
        return has_come or self.status != before

    def _read(self, history: History, now: float) -> bool:
        has_come = False
        is_first = self._number < 0
        search = now - self._last_row > self._patience and now >= self._next_search
        if search:
            self._next_search = now + _LOOK_THROUGH_SECONDS
        after = self._recording.number_before_last(MOST_BYTES) if is_first else self._number
        for rows in self._recording.rows_after(after, thoroughly=search or is_first):
            history.add_rows(rows["monotonic_ns"], rows["wall_ns"], rows["columns"])
            self._number = int(rows["sequence"][-1])
            has_come = True
        if has_come:
            self._last_row = now
        return has_come

    @property
    def _patience(self) -> float:
        return max(_SILENCE_SECONDS, _SILENCE_TICKS * self.interval)

    def _state(self, now: float) -> tuple[str, bool]:
        """How it is, and whether nothing will come any more."""
        recording = self._recording
        try:
            state = recording.state
        except RecordingError:
            return "its file is damaged", False
        is_alive = recording.writer.is_alive()
        self.root = recording.writer.pid if is_alive else None
        if state != "writing":
            return "ended", True
        if is_alive is not None and not recording.is_being_written():
            how = how_it_ended(recording.writer, recording.surroundings or {})
            return f"killed: {how.removeprefix('killed by a signal, ')}", True
        return self._liveliness(now), False

    def _liveliness(self, now: float) -> str:
        """Of a recording that somebody writes, as far as that can be seen from here."""
        silence = now - self._last_row
        if silence > self._patience:
            return f"no rows for {silence:.0f} s"
        if _identity(self._recording.path) != self._identity:
            return "live, but its file is gone"
        return f"live, every {self.interval:g} s"

    def close(self) -> None:
        self._recording.close()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


# ---- which recording ----------------------------------------------------------------------------


def find_recording(path: str) -> str:
    """The recording that a path leads to: itself, or the one in it that is being written.

    Raises:
        ValueError: a folder with none, or with more than one, that is being written.
    """
    if not os.path.isdir(path):
        return path
    live = [one for one in _recordings_below(path) if _is_live(one)]
    if len(live) == 1:
        return live[0]
    if not live:
        raise ValueError(
            f"no recording in {path} is being written: name a file to look at an old one"
        )
    raise ValueError(f"several recordings in {path} are being written; name one: {_named(live)}")


def find_run(run_id: str, spool_dir: str | None) -> str:
    """The recording of a run, in the folder of recordings; the newest of those being written.

    Args:
        run_id: the run.
        spool_dir: the option of this name, which says where the folder is.

    Raises:
        ValueError: there is none, or several processes of the run record.
    """
    folder = recordings_folder(spool_dir)
    found = [one for one in _recordings_below(folder) if _run_of(one) == run_id]
    live = [one for one in found if _is_live(one)]
    if len(live) > 1:
        raise ValueError(
            f"several processes record for run {run_id}; name one as PATH: {_named(live)}"
        )
    if not found:
        raise ValueError(
            f"no recording of run {run_id} is in {folder}: start the job with "
            "SYSMETRICS_NATIVE_RECORDER=on, or give the PATH of its recording"
        )
    return live[0] if live else found[-1]


def _recordings_below(folder: str) -> Iterator[str]:
    """By their names, which sort by time in the default folder."""
    for top, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith(SUFFIX):
                yield os.path.join(top, name)


def _run_of(path: str) -> str | None:
    try:
        with Recording(path) as recording:
            return None if recording.run is None else recording.run.run_id
    except (OSError, RecordingError):
        return None


def _is_live(path: str) -> bool:
    try:
        with Recording(path) as recording:
            return recording.is_being_written()
    except (OSError, RecordingError):
        return False


def _named(paths: Sequence[str]) -> str:
    more = len(paths) - _MOST_NAMED
    return ", ".join(paths[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")

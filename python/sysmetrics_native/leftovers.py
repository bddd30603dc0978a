"""What runs leave behind, one file each: windows that their server may not have.

A spool holds windows that waited for the server; a recording holds the rows of a process that was
killed, from which its windows are made once more.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from sysmetrics_native import catalog, private_files
from sysmetrics_native.endings import how_it_ended
from sysmetrics_native.recorder import close_file, recordings_folder
from sysmetrics_native.recording import Recording
from sysmetrics_native.recording_file import DELIVERED, WRITING, RecordingError, read_header
from sysmetrics_native.recording_file import SUFFIX as RECORDING_SUFFIX
from sysmetrics_native.spool import SUFFIX as SPOOL_SUFFIX
from sysmetrics_native.spool import SpoolError, SpoolFile, spool_folder


class LeftoverWindow(NamedTuple):
    """A window, and where it stands among those of its file's run."""

    number: int
    start_ms: int | None
    """Unix milliseconds; `None` where only the end is known."""
    end_ms: int
    metrics: Mapping[str, float]


class Leftover(Protocol):
    """One file."""

    path: str
    run_id: str
    """The run that its windows belong to."""
    tracking_uri: str
    """The server, without secrets."""
    first_step: int | None
    """The step of window 0, where the file says it."""
    tags: Mapping[str, str]
    """To be set on the run with the first of them."""
    counts_all_windows: bool
    """Whether window 0 is the run's first, and not the first that is still there."""
    ending: str
    """How the process ended, in words."""
    is_in_use: bool
    """Whether somebody is still at work on it, so that it must be left alone."""
    damage: str
    """What of it cannot be read, in words; empty if nothing."""

    def windows(self) -> Iterator[LeftoverWindow]:
        """Every window that the server may not have, oldest first."""

    def mark_first_step(self, step: int) -> None:
        """Note the step of window 0."""

    def mark_sent(self, through: int) -> None:
        """Note that the server has every window before number `through`."""

    def mark_done(self) -> None:
        """Note that the server has all of them."""

    def close(self) -> None:
        """Let others at the file."""


class SpoolLeftover:
    """Windows that waited for the server."""

    def __init__(self, path: str) -> None:
        self._file = SpoolFile(path)
        origin = self._file.origin
        self.path = path
        self.run_id = origin.run_id
        self.tracking_uri = origin.tracking_uri
        self.first_step = self._file.first_step
        self.tags = origin.tags
        self.counts_all_windows = True
        self.is_in_use = not self._file.lock() or (
            self._file.ended is None and origin.writer.is_alive() is True
        )
        self.damage = _counted(self._file.damaged_lines, "damaged line")
        if self._file.ended is None:
            self.ending = how_it_ended(origin.writer, origin.surroundings)
        else:
            self.ending = f"ended; not all was sent: {self._file.reason}"

    def windows(self) -> Iterator[LeftoverWindow]:
        for window in self._file.windows():
            yield LeftoverWindow(window.number, None, window.timestamp_ms, window.metrics)

    def mark_first_step(self, step: int) -> None:
        if self._file.first_step != step:
            self._file.mark_first_step(step)

    def mark_sent(self, through: int) -> None:
        self._file.mark_sent(through)

    def mark_done(self) -> None:
        self._file.remove()

    def close(self) -> None:
        self._file.close()


class RecordingLeftover:
    """The rows of a process, folded into windows as it would have done."""

    def __init__(self, recording: Recording) -> None:
        assert recording.run is not None  # _open() has looked
        self._recording = recording
        self._run = recording.run
        self.path = recording.path
        self.run_id = self._run.run_id
        self.tracking_uri = self._run.tracking_uri
        self.first_step = self._run.first_step
        self.tags = self._run.tags
        self.counts_all_windows = False
        self.is_in_use = recording.is_being_written()
        self.damage = _counted(recording.damaged_rows, "damaged row")
        self.ending = how_it_ended(recording.writer, recording.surroundings or {})
        if recording.state == "ended":
            self.ending = "ended; not all could be sent or written down"

    def windows(self) -> Iterator[LeftoverWindow]:
        statistics = self._run.statistics
        schema = [series.info for series in self._recording.series]
        percentiles = any(name.startswith("p") for name in statistics)
        for number, window in enumerate(self._recording.windows(percentiles=percentiles)):
            metrics = {
                self._run.key_prefix + key: value
                for key, value in catalog.metrics_of(window, schema, statistics)
            }
            yield LeftoverWindow(
                number, round(window.start * 1000), catalog.timestamp_ms(window), metrics
            )

    def mark_first_step(self, step: int) -> None:
        """It is not noted: the windows are numbered anew each time."""

    def mark_sent(self, through: int) -> None:
        """It is not noted: the server is asked each time."""

    def mark_done(self) -> None:
        self._recording.mark_delivered()

    def close(self) -> None:
        self._recording.close()


def _counted(count: int, what: str) -> str:
    if count == 0:
        return ""
    return f"{count} {what}{'' if count == 1 else 's'} left out"


# ---- where they are -----------------------------------------------------------------------------


class Unreadable(NamedTuple):
    """A file that is refused."""

    path: str
    reason: str


def find_leftovers(path: str | None, spool_dir: str | None) -> Iterator[Leftover | Unreadable]:
    """Every leftover, those with windows ready to be sent first; close each.

    Args:
        path: a spool, a recording, or a folder with some; `None` for where they are by default.
        spool_dir: the option of this name, which says where that is.

    Raises:
        FileNotFoundError: there is nothing at the path.
    """
    if path is not None and not os.path.lexists(path):
        raise FileNotFoundError(f"{path} does not exist")
    for file, suffix in _files(path, spool_dir):
        try:
            leftover = _open(file, suffix)
        except (OSError, SpoolError, RecordingError) as error:
            yield Unreadable(file, getattr(error, "strerror", None) or str(error))
            continue
        if leftover is not None:
            yield leftover


class Found(NamedTuple):
    """A file that a run has left, or is still writing; not read, but for its header."""

    path: str
    kind: str
    """``spool`` or ``recording``."""
    size: int
    """Bytes."""
    state: str
    """``waiting`` (for `recover`), ``in use``, ``done`` (nobody needs it), or ``unreadable``."""


def look_around(spool_dir: str | None) -> Iterator[Found]:
    """What lies in the folders of spools and recordings, at the cost of opening each file.

    For a process that writes none of them: to look at a lock of its own would open it.

    Args:
        spool_dir: the option of this name.
    """
    for path, suffix in _files(None, spool_dir):
        is_spool = suffix == SPOOL_SUFFIX
        try:
            file = private_files.open_file(path)
        except OSError:
            yield Found(path, "spool" if is_spool else "recording", 0, "unreadable")
            continue
        try:
            size = os.fstat(file).st_size
            state = _state_of_spool(file) if is_spool else _state_of_recording(file, path)
        except (OSError, RecordingError):
            state = "unreadable"
        finally:
            close_file(file)
        yield Found(path, "spool" if is_spool else "recording", size, state if size else "done")


def _state_of_spool(file: int) -> str:
    """It is removed when all of it was sent, and locked while somebody is at work on it."""
    return "in use" if private_files.is_locked(file) else "waiting"


def _state_of_recording(file: int, path: str) -> str:
    if os.fstat(file).st_size == 0:  # its process was killed before it wrote a word
        return "done"
    header = read_header(file, path)
    if header.state == WRITING and (
        header.description.writer.is_alive() or private_files.is_locked(file)
    ):
        return "in use"
    is_done = header.state == DELIVERED or header.description.run is None
    return "done" if is_done else "waiting"


def _files(path: str | None, spool_dir: str | None) -> Iterator[tuple[str, str]]:
    """Each file and the suffix of its kind; in folders by their names, which sort by time."""
    if path is not None and not os.path.isdir(path):
        # A recording has the name that the user has given it.
        yield path, SPOOL_SUFFIX if path.endswith(SPOOL_SUFFIX) else RECORDING_SUFFIX
        return
    folders = [spool_folder(spool_dir), recordings_folder(spool_dir)] if path is None else [path]
    for suffix in (SPOOL_SUFFIX, RECORDING_SUFFIX):
        for top in folders:
            for folder, _, names in os.walk(top):
                for name in sorted(names):
                    if name.endswith(suffix):
                        yield os.path.join(folder, name), suffix


def _open(path: str, suffix: str) -> Leftover | None:
    """The leftover in a file; `None` if the server has all that is in it, or is not to have it."""
    status = os.lstat(path)
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        return None  # its process was killed before it wrote a word
    if suffix == SPOOL_SUFFIX:
        return SpoolLeftover(path)
    # What a file says decides where requests go, and with whose credentials.
    os.close(private_files.open_file(path))
    recording = Recording.open(path)
    if recording.run is None or recording.state == "delivered":
        recording.close()
        return None
    return RecordingLeftover(recording)

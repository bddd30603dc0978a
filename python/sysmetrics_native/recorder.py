"""The flight recorder: finds a safe place for a recording, and says what has become of it.

The rows are written by the sampling thread of the backend. Nothing here may stop sampling: what
fails is one warning.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import NamedTuple

from sysmetrics_native import private_files, settings
from sysmetrics_native.backends import Backend
from sysmetrics_native.endings import surroundings
from sysmetrics_native.gpus import identity_tags
from sysmetrics_native.private_files import Writer
from sysmetrics_native.recording_file import (
    DELIVERED,
    ENDED,
    MAGIC,
    SUFFIX,
    WRITING,
    Description,
    Header,
    Recorded,
    RecordedRun,
    RecordingError,
    encode_header,
    plan_ring,
    read_header,
    write_state,
)

_logger = logging.getLogger("sysmetrics_native")

RECORDINGS_KEPT = 20
"""In the default folder, of those that nobody needs for `sysmetrics-native recover`."""

_ATTEMPTS = 8
_MOST_NAMES = 10


class _InUseError(OSError):
    """Another sampler records to this file."""


# ---- what this process writes -------------------------------------------------------------------

# POSIX locks do not keep a process from itself, and go when it closes any descriptor of the file.
# So it remembers its files: by device and inode, with the descriptors to close when all is over.
_own_files: dict[tuple[int, int], list[int]] = {}


class _Locks:
    """Of this process; a child has its own, because another thread may hold these at the fork."""

    def __init__(self) -> None:
        self.creating = threading.Lock()  # a recording, so that two do not take the same place
        # Taken again by the thread that has it where the garbage collector closes a recording.
        self.own_files = threading.RLock()


_locks = _Locks()


def _forget_in_child() -> None:
    """In a child of a fork: what its parent writes is not its own."""
    _locks.__init__()  # type: ignore[misc]  # whoever holds the old ones is not in this process
    _own_files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


def is_own(status: os.stat_result) -> bool:
    """Whether this process is recording to the file."""
    return (status.st_dev, status.st_ino) in _own_files


def close_file(file: int) -> None:
    """Close a descriptor of a recording; later, if it is one that this process is writing."""
    status = os.fstat(file)
    with _locks.own_files:
        kept = _own_files.get((status.st_dev, status.st_ino))
        if kept is not None:
            kept.append(file)
            return
    os.close(file)


def _own(file: int) -> tuple[int, int]:
    status = os.fstat(file)
    identity = status.st_dev, status.st_ino
    with _locks.own_files:
        _own_files[identity] = [file]
    return identity


def _disown(identity: tuple[int, int], file: int) -> None:
    with _locks.own_files:
        files = _own_files.pop(identity, [file])
    for one in files:
        os.close(one)


# ---- one recording ------------------------------------------------------------------------------


class Recorder:
    """A recording that a sampler of this process writes."""

    def __init__(self, path: str, file: int) -> None:
        self.path = path
        self._file = file
        self._state = WRITING
        self._pid = os.getpid()
        self._has_warned = False
        self._close = weakref.finalize(self, _disown, _own(file), file)
        self._close.atexit = False  # the end of the process closes all there is

    def duplicate(self) -> int:
        """Another descriptor of the file, for the thread that writes the rows."""
        return os.dup(self._file)

    def mark_ended(self) -> None:
        """Say that the sampler has stopped."""
        self._mark(ENDED)

    def mark_delivered(self) -> None:
        """Say that nobody needs the recording to complete its run."""
        self._mark(DELIVERED)
        if os.getpid() == self._pid:
            self._close()

    def _mark(self, state: int) -> None:
        if os.getpid() != self._pid or not self._close.alive or state <= self._state:
            return
        self._state = state
        try:
            write_state(self._file, state)
        except OSError as error:
            self._warn(error)

    def look_at(self, recorded: Recorded) -> None:
        """Warn, once, if rows could not be written."""
        if recorded.errors > 0 and os.getpid() == self._pid:
            self._warn(OSError(recorded.last_error, os.strerror(recorded.last_error)))

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            _logger.warning(
                "The recording %s cannot be written: %s. Sampling goes on, and it is tried again "
                "with every row; what fails is absent from it.",
                self.path,
                error.strerror,
            )


class Plan(NamedTuple):
    """What to record and where."""

    where: bool | str
    """On or off, a file, or a folder; on means the user's own folder of recordings."""
    megabytes: float
    """Largest size of a file."""
    interval: float
    samples_per_window: int
    run: RecordedRun | None
    """The MLflow run that the windows are logged to."""


def begin(plan: Plan, backend: Backend) -> Recorder | None:
    """Create the file and make the backend, which has not started, record to it.

    Returns:
        The recorder, or `None` after a warning that says why there is none.
    """
    try:
        return _begin(plan, backend)
    except Exception as error:  # noqa: BLE001  # first law: no recording is no reason to fail
        _logger.warning("Sampling goes on without a recording: %s", error)
        return None


def _begin(plan: Plan, backend: Backend) -> Recorder:
    layout = backend.layout
    run = plan.run
    if run is not None:
        run = run._replace(tags={**run.tags, **identity_tags(backend.gpus, run.key_prefix)})
    description = Description(
        package=importlib.metadata.version("sysmetrics-native"),
        backend=backend.name,
        interval=plan.interval,
        samples_per_window=plan.samples_per_window,
        started=time.time(),
        writer=Writer.this_process(),
        layout=layout,
        run=run,
        surroundings=surroundings(),
    ).encode()
    data_offset, capacity = plan_ring(layout.columns, len(description), plan.megabytes * 1e6)
    header = encode_header(description, layout.columns, data_offset, capacity)
    with _locks.creating:
        recorder = _create(plan, header)
    file = recorder.duplicate()
    try:
        backend.record(file, data_offset, capacity)
    except BaseException:
        os.close(file)
        os.unlink(recorder.path)
        raise
    return recorder


# ---- where it goes ------------------------------------------------------------------------------


def _create(plan: Plan, header: bytes) -> Recorder:
    name = private_files.new_name("sampler" if plan.run is None else plan.run.run_id, SUFFIX)
    if isinstance(plan.where, bool):
        folder = recordings_folder(settings.option("spool_dir"))
        private_files.make_folder(folder)
        _look_over(folder)
        return _create_at(os.path.join(folder, name), header)
    if os.path.isdir(plan.where):
        return _create_at(os.path.join(plan.where, name), header)
    os.makedirs(os.path.dirname(plan.where), mode=0o700, exist_ok=True)
    return _create_at(plan.where, header)


def recordings_folder(spool_dir: str | None) -> str:
    """Where recordings go unless a path is given; the argument is the option of that name."""
    return os.path.join(private_files.state_folder(spool_dir), "recordings")


def _create_at(path: str, header: bytes) -> Recorder:
    """Create the file, beside the path if a recording is there that must be kept."""
    wanted = path
    for _ in range(_ATTEMPTS):
        try:
            file = private_files.create_file(path)
        except FileExistsError:
            if not _make_room(path):
                path = _beside(wanted)
            continue
        recorder = _write_header(path, file, header)
        if recorder is None:
            continue
        if path != wanted:
            _logger.warning(
                "%s holds another recording, which is kept: recording to %s instead.",
                wanted,
                path,
            )
        return recorder
    raise _InUseError(f"other samplers begin to record to {wanted}, too")


def _write_header(path: str, file: int, header: bytes) -> Recorder | None:
    """Make a new file a recording; `None` if another process took it for an abandoned one."""
    try:
        if private_files.lock(file) and _is_at(path, file):
            private_files.write_at(file, 0, header)
            return Recorder(path, file)
    except BaseException:
        if _is_at(path, file):
            os.unlink(path)
        os.close(file)
        raise
    os.close(file)
    return None


def _beside(path: str) -> str:
    stem, suffix = os.path.splitext(path)
    return f"{stem}-{os.urandom(4).hex()}{suffix}"


def _make_room(path: str) -> bool:
    """Remove the recording that is there if nobody needs it; whether the name is free now.

    Raises:
        OSError: it is being written, or is not ours.
        RecordingError: it is something else, which must not be overwritten.
    """
    try:
        if is_own(os.lstat(path)):
            raise _InUseError(f"this process records to {path} already")
        file = private_files.open_file(path, writable=True)
    except FileNotFoundError:
        return True
    try:
        if not private_files.lock(file):
            raise _InUseError(f"another process records to {path}")
        if not _is_at(path, file):
            return True
        if os.fstat(file).st_size > 0 and not _may_be_replaced(path, file):
            return False
        # Ours by the lock: nobody else who keeps these rules removes it or begins another here.
        os.unlink(path)
    except PermissionError:  # Windows does not remove what is open
        return False
    finally:
        os.close(file)
    return True


def _may_be_replaced(path: str, file: int) -> bool:
    if private_files.read_at(file, 0, len(MAGIC)) != MAGIC:
        raise RecordingError(f"{path} is there, is no recording, and is not overwritten")
    try:
        header = read_header(file, path)
    except RecordingError:  # damaged, or of a newer version: to be kept all the same
        return False
    if header.state == WRITING and header.description.writer.is_alive():
        raise _InUseError(f"process {header.description.writer.pid} records to {path}")
    return header.state == DELIVERED


def _is_at(path: str, file: int) -> bool:
    """Whether the path still leads to this very file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(file))
    except FileNotFoundError:
        return False


# ---- what others left behind --------------------------------------------------------------------

_named: set[str] = set()
"""Recordings that this process has named already."""


def _look_over(folder: str) -> None:
    """Remove old recordings that nobody needs, and name those that somebody may."""
    unneeded: list[str] = []
    stale: list[str] = []
    for path, header in _recordings_in(folder):
        has_run = header.description.run is not None
        is_left = header.description.writer.is_alive() is False
        if header.state == DELIVERED or (not has_run and (is_left or header.state == ENDED)):
            unneeded.append(path)
        elif has_run and is_left:
            stale.append(path)
    for path in unneeded[:-RECORDINGS_KEPT]:
        with contextlib.suppress(FileNotFoundError):  # another process does the same
            os.unlink(path)
    _name(stale)


def _name(stale: list[str]) -> None:
    new = [path for path in stale if path not in _named]
    _named.update(new)
    if new:
        _logger.warning(
            "Recordings of runs that were not logged in full: %s%s. What is missing is logged by: "
            "sysmetrics-native recover",
            ", ".join(new[:_MOST_NAMES]),
            f" and {len(new) - _MOST_NAMES} more" if len(new) > _MOST_NAMES else "",
        )


def _recordings_in(folder: str) -> Iterator[tuple[str, Header]]:
    """The whole ones that others write or have written, oldest first."""
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        try:
            if not name.endswith(SUFFIX) or is_own(os.lstat(path)):
                continue
            file = private_files.open_file(path)
        except OSError:
            continue
        try:
            yield path, read_header(file, path)
        except (OSError, RecordingError):
            continue
        finally:
            os.close(file)

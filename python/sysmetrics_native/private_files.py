"""Files that are this user's alone: the spool and the recordings.

Both lie where others may have write access to the folders above them, on machines that many people
share. So folders get mode 0700 and files 0600, no link is followed, and what belongs to somebody
else is refused, read or written. A file that is in use is locked by its process; the kernel frees
the lock when that process dies.
"""

from __future__ import annotations

import os
import re
import stat
import time
from contextlib import suppress
from typing import NamedTuple

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# A FIFO that lies where a file should must not block us for ever.
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_OWNER_IN_NAME = 64
_HAS_OWNERS = hasattr(os, "getuid")


class UnsafeFileError(OSError):
    """A file or folder that is not ours alone, or not what it should be."""


# ---- folders ------------------------------------------------------------------------------------


def state_folder(configured: str | None) -> str:
    """Where the spool and the recordings are kept: the option ``spool_dir``, or the user's own.

    The default is the state folder of the platform (``$XDG_STATE_HOME/sysmetrics-native``, which is
    ``~/.local/state/sysmetrics-native`` unless set).
    """
    if configured is not None:
        return configured
    import platformdirs

    return platformdirs.user_state_dir("sysmetrics-native", appauthor=False)


def make_folder(path: str) -> None:
    """Make sure that the folder is there and ours alone; makes those above it, too.

    Raises:
        OSError: it cannot be made.
        UnsafeFileError: it is a link, or others own it or can write to it.
    """
    if not os.path.isabs(path):  # "~/.local/…", of a user whom the system does not know
        raise UnsafeFileError(f"this user has no home folder for {path}: set the option spool_dir")
    os.makedirs(path, mode=0o700, exist_ok=True)
    check_folder(path)


def check_folder(path: str) -> None:
    """See that a folder that is there is ours alone.

    Raises:
        OSError: it is not there.
        UnsafeFileError: it is a link, or others own it or can write to it.
    """
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeFileError(f"{path} is not a folder of its own, but a link or a file")
    _check_owner(path, status)
    if _HAS_OWNERS and status.st_mode & 0o022:
        raise UnsafeFileError(f"others can write to {path}: chmod go-w {path}")


def _check_owner(path: str, status: os.stat_result) -> None:
    if _HAS_OWNERS and status.st_uid != os.getuid():
        raise UnsafeFileError(f"{path} belongs to user {status.st_uid}, not to {os.getuid()}")


# ---- files --------------------------------------------------------------------------------------


def create_file(path: str) -> int:
    """Create a file that nobody else can read, and open it for reading and writing.

    Raises:
        FileExistsError: something is there, a dangling link included.
        OSError: it cannot be created.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BINARY
    return os.open(path, flags, 0o600)


def new_name(whose: str, suffix: str) -> str:
    """A name for a file that sorts by time, tells whose it is, and is nobody else's."""
    cleaned = _NOT_IN_NAME.sub("_", whose)[:_LONGEST_OWNER_IN_NAME]
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return f"{moment}-{cleaned}-{os.urandom(4).hex()}{suffix}"


def open_file(path: str, *, writable: bool = False, of_anybody: bool = False) -> int:
    """Open a file of ours, or one of anybody's that a person has named.

    Raises:
        OSError: it cannot be opened; a link is refused (``ELOOP``).
        UnsafeFileError: it is no regular file or, unless it may be anybody's, belongs to somebody
            else or has a second name.
    """
    flags = (os.O_RDWR if writable else os.O_RDONLY) | _NO_FOLLOW | _NO_WAIT | _BINARY
    file = os.open(path, flags)
    try:
        _check_file(path, os.fstat(file), of_anybody=of_anybody)
    except BaseException:
        os.close(file)
        raise
    return file


def _check_file(path: str, status: os.stat_result, *, of_anybody: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeFileError(f"{path} is not a regular file")
    if of_anybody:
        return
    _check_owner(path, status)
    if status.st_nlink > 1:
        raise UnsafeFileError(f"{path} has a second name elsewhere")


def lock(file: int) -> bool:
    """Lock the file for this process until it closes it or dies; False if another one has it.

    A lock that children do not inherit, so one that outlives its parent holds up nobody. It goes,
    too, when this process closes *any* descriptor of the file. Where there are no such locks
    (Windows) it is ours at once.
    """
    return _try_lock(file, "LOCK_EX")


def is_locked(file: int) -> bool:
    """Whether another process has locked the file; not for a file that this one has locked."""
    if not _try_lock(file, "LOCK_SH"):
        return True
    unlock(file)
    return False


def unlock(file: int) -> None:
    """Let others lock the file again."""
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_UN)


def _try_lock(file: int, kind: str) -> bool:
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.lockf(file, getattr(fcntl, kind) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks: that names are unique must do
        return True
    return True


def read_at(file: int, offset: int, count: int) -> bytes:
    """Up to so many bytes from an offset on; fewer only at the end of the file."""
    if hasattr(os, "pread"):
        return os.pread(file, count, offset)
    os.lseek(file, offset, os.SEEK_SET)
    return os.read(file, count)


def write_at(file: int, offset: int, data: bytes) -> None:
    """Write all of it at an offset.

    Raises:
        OSError: not all of it could be written.
    """
    while data:
        if hasattr(os, "pwrite"):
            written = os.pwrite(file, data, offset)
        else:
            os.lseek(file, offset, os.SEEK_SET)
            written = os.write(file, data)
        data, offset = data[written:], offset + written


# ---- who writes a file --------------------------------------------------------------------------


class Writer(NamedTuple):
    """The process that writes a file, told from a later one with the same number."""

    host: str
    """Name of the machine."""
    boot_id: str
    """Of its kernel, from ``/proc/sys/kernel/random/boot_id``; empty where there is none."""
    pid: int
    started: float
    """When the process began, in Unix seconds."""

    @classmethod
    def this_process(cls) -> Writer:
        """Of whoever asks."""
        pid = os.getpid()
        return cls(_host(), _boot_id(), pid, _started(pid) or 0.0)

    def is_alive(self) -> bool | None:
        """Whether it still runs; `None` where that cannot be seen from here."""
        if self.host != _host():
            return None
        if not self.is_of_this_boot():
            return False
        started = _started(self.pid)
        return started is not None and abs(started - self.started) < 1.0

    def is_of_this_boot(self) -> bool:
        """Whether the machine has not been started anew since."""
        return self.boot_id == _boot_id()


def this_machine() -> str:
    """What tells this machine from others: its kernel's boot, else its name."""
    return _boot_id() or _host()


def _host() -> str:
    import socket  # it is loaded by everybody who talks to a server, and by nobody else

    return socket.gethostname()


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _started(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.Error:
        return None

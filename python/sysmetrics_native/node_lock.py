"""One sampler on each node of a run: a lock that the kernel frees when its holder dies.

The lock is one byte, at an offset made from the run, of one empty file that all runs of a user
share: so nothing is left to be cleaned up, however many runs there were. It is a record lock of
`fcntl`, which belongs to the process and not to the descriptor: no forked child has it, and neither
has a program that is executed, so a data loader that outlives its rank holds up nobody. (That of
`flock`, and the name of a socket, would be kept by every child that has inherited the descriptor.)

The file lies where this machine alone can see it and where every process of the user looks,
whatever its environment: ``/dev/shm``, else the folder for temporary files. A home folder may be
the same on all nodes, ``XDG_RUNTIME_DIR`` may differ from rank to rank. Containers are one node to
us where they share that folder, as those of one pod do unless a volume is mounted there in one.
Where there are no such locks (Windows) each process samples for itself.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress

from sysmetrics_native import private_files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_logger = logging.getLogger("sysmetrics_native")

_SHARED_MEMORY = "/dev/shm"  # what is there is looked at before it is used
_OFFSET_BITS = 62
"""Of 63 that there are: two runs that meet by chance are no concern."""


class _Locks:
    """Of this process, which the kernel does not keep from its own locks."""

    def __init__(self) -> None:
        # A signal handler of the program may end one run while another one begins.
        self.guard = threading.RLock()  # guards what follows
        self.holders: dict[int, NodeLock] = {}  # by offset
        self.file: int | None = None  # to close it would free all of them
        self.has_told = False


_locks = _Locks()


def _forget_in_child() -> None:
    """In a child of a fork: it holds none of them, and its descriptor frees nothing."""
    global _locks  # noqa: PLW0603  # whoever has the guard may not be in this process
    if _locks.file is not None:
        os.close(_locks.file)
    _locks = _Locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


class NodeLock:
    """The right to sample this node for one run.

    Args:
        tracking_uri: the server, as files name it.
        run_id: the run.
        node_id: which node this is; two that run on one machine are two.
    """

    def __init__(self, tracking_uri: str, run_id: str, node_id: str | None) -> None:
        import hashlib  # not above: a Sampler alone must not pay for it

        whose = json.dumps([tracking_uri.rstrip("/"), run_id, node_id])
        digest = hashlib.sha256(whose.encode()).digest()
        self._offset = int.from_bytes(digest[:8], "big") >> (64 - _OFFSET_BITS)

    def take(self) -> bool:
        """Take it unless somebody has it; true if it is ours. Waits for nobody."""
        with _locks.guard:
            holder = _locks.holders.get(self._offset)
            if holder is not None:
                return holder is self
            if not _lock_byte(self._offset):
                _close_if_unused()
                return False
            _locks.holders[self._offset] = self
            return True

    def release(self) -> None:
        """Leave it to others; harmless where it is not ours, as in a forked child."""
        with _locks.guard:
            if _locks.holders.get(self._offset) is not self:
                return
            del _locks.holders[self._offset]
            if _locks.file is not None:
                with suppress(OSError):  # a file system without locks
                    fcntl.lockf(_locks.file, fcntl.LOCK_UN, 1, self._offset)
            _close_if_unused()


def _lock_byte(offset: int) -> bool:
    """Whether nobody else has the byte, which is this process's from now on."""
    try:
        if _locks.file is None:
            _locks.file = _open_file()
        return _try_lock(_locks.file, offset)
    except OSError as error:
        if not _locks.has_told:
            _locks.has_told = True
            _logger.info("Each process of a run samples this node for itself: %s", error)
        return True


def _try_lock(file: int, offset: int) -> bool:
    """Whether nobody else has the byte.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _close_if_unused() -> None:
    if _locks.file is not None and not _locks.holders:
        file, _locks.file = _locks.file, None
        os.close(file)


# ---- the file -----------------------------------------------------------------------------------


def _open_file() -> int:
    """The file of this user, made where there is none.

    Raises:
        OSError: there is no place for it, or no such locks.
    """
    if fcntl is None:
        raise OSError("this system has no record locks")
    failure = OSError("there is no folder for the lock file")
    for folder in _folders():
        try:
            return _open_in(folder)
        except OSError as error:  # noqa: PERF203  # not there, full, not ours: so for all ranks
            failure = error
    raise failure


def _folders() -> Iterator[str]:
    yield _SHARED_MEMORY
    import tempfile  # where there is the other one it need not be loaded

    yield tempfile.gettempdir()


def _open_in(folder: str) -> int:
    path = os.path.join(folder, f"sysmetrics-native-{os.getuid()}.lock")
    try:
        return private_files.open_file(path, writable=True)
    except FileNotFoundError:
        pass
    try:
        return private_files.create_file(path)
    except FileExistsError:  # another rank was faster
        return private_files.open_file(path, writable=True)

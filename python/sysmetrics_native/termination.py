"""SIGTERM: what monitors hold is logged before the process dies of it.

Python's default for SIGTERM is to die at once, and a handler in Python would run only when the main
thread comes back to the interpreter, which one in a hung collective never does. So the C core
catches the signal and wakes a thread of ours, which finishes the monitors; the process then dies of
SIGTERM as it would have without us. A timer of the kernel bounds all this, even if nobody can take
the GIL. Until then the program goes on, and a second SIGTERM ends it at once.

None of it happens where the program has a handler of its own, ignores SIGTERM or blocks it: such a
program ends in a way of its own, and the monitors at the exit of the interpreter. To Python all
this is invisible: `signal.getsignal` says `SIG_DFL`, and `signal.signal` replaces our handler. A
program that does so and then restores the default has taken ours away until the next monitor
starts. In the first process of a container SIGTERM has no effect, and keeps none.

Without the C core, so on macOS and Windows, nothing here does anything. Nor does it in a forked
child, which dies of SIGTERM at once, until a monitor starts there.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Sequence

from sysmetrics_native.backends import is_native_built

_logger = logging.getLogger("sysmetrics_native")

THREAD_NAME = "SystemMetricsTermination"

GRACE_SECONDS = 1.0
"""What the process may take beyond the monitors' own time, before the timer ends it."""

_NS_PER_SECOND = 1_000_000_000

_NOT_OURS = frozenset({-errno.EBUSY, -errno.ENOTSUP, -errno.EINPROGRESS})
"""The program deals with SIGTERM, nobody can, or it has come already."""


class _Watch:
    """What this process watches over."""

    def __init__(self) -> None:
        # A handler of the program, which Python runs between any two lines, may end a run, too.
        self.lock = threading.RLock()  # guards what follows
        self.seconds_of: dict[Callable[[], None], float] = {}
        self.number = 0  # the C core's, of the thread that waits; 0 for none


_watch = _Watch()


def _forget() -> None:
    """In a child: the thread is the parent's, and the lock may have been held at the fork."""
    global _watch  # noqa: PLW0603  # a process has one disposition of SIGTERM
    _watch = _Watch()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def watch(finish: Callable[[], None], seconds: float) -> None:
    """Call `finish` on a thread of ours when SIGTERM comes.

    Args:
        finish: ends a monitor; raises nothing.
        seconds: the most that it takes, on the whole.
    """
    if not is_native_built():
        return
    with _watch.lock:
        _watch.seconds_of[finish] = seconds
        try:
            _install()
        except (OSError, RuntimeError) as error:
            _logger.warning("SIGTERM will end this process without its last window: %s", error)


def unwatch(finish: Callable[[], None]) -> None:
    """Take back a `watch`; harmless without one. After the last nothing of ours stays behind."""
    with _watch.lock:
        known = _watch.seconds_of.pop(finish, None) is not None
        if known and not _watch.seconds_of:
            _uninstall()


# ---- with the C core ----------------------------------------------------------------------------


def _install() -> None:
    """Install the handler and start the thread, where that has not been done and SIGTERM is free.

    Raises:
        OSError: the system has no further timer.
        RuntimeError: it has no further thread.
    """
    from sysmetrics_native._native import lib

    bound = max(_watch.seconds_of.values()) + GRACE_SECONDS
    number = lib.smn_termination_install(round(bound * _NS_PER_SECOND))
    if number in _NOT_OURS:
        return
    if number < 0:
        raise OSError(-number, os.strerror(-number))
    if number == _watch.number:  # only the bound is new
        return
    thread = threading.Thread(target=_wait, args=(number,), name=THREAD_NAME, daemon=True)
    try:
        thread.start()
    except BaseException:  # Ctrl-C included
        lib.smn_termination_uninstall()
        raise
    _watch.number = number


def _uninstall() -> None:
    from sysmetrics_native._native import lib

    lib.smn_termination_uninstall()  # which also ends the thread
    _watch.number = 0


def _wait(number: int) -> None:
    """The thread."""
    from sysmetrics_native._native import lib

    if lib.smn_termination_wait(number) != 0:
        return
    try:
        # Without the lock: whoever holds it may be what hangs.
        _finish_all(list(_watch.seconds_of))
    finally:
        lib.smn_termination_finish()


def _finish_all(finishes: Sequence[Callable[[], None]]) -> None:
    """Finish all at the same time, each of which may take all the time there is."""
    threads = [
        threading.Thread(target=finish, name=THREAD_NAME, daemon=True) for finish in finishes[1:]
    ]
    for thread in threads:
        thread.start()
    for finish in finishes[:1]:
        finish()
    for thread in threads:
        thread.join()

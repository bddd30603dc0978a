"""What all Python threads of this package are: daemons, and no concern of the program's signals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any

_OF_THE_THREAD_ITSELF = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"}
"""Faults: `faulthandler` must see them on the thread that they happen on."""


class Thread(threading.Thread):
    """A daemon thread to which the kernel delivers no signal.

    A program may block SIGTERM in its own threads while it writes a checkpoint. One of ours that
    did not block it would take it all the same.
    """

    def __init__(self, name: str, target: Callable[..., object], args: Iterable[Any] = ()) -> None:
        super().__init__(target=target, name=name, args=args, daemon=True)

    def run(self) -> None:
        """Do what the thread is for."""
        _block_signals()
        super().run()


def _block_signals() -> None:
    # On the thread itself: its creator's mask is the program's.
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where the main thread gets them anyway
        return
    faults = {getattr(signal, name, None) for name in _OF_THE_THREAD_ITSELF}
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - faults)

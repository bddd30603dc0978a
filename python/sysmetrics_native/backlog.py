"""Windows that wait for the tracking server: in memory, and on disk once a request has failed.

While the server answers, nothing touches the disk, unless windows are to wait for long. From
the first failure on every window is written down before it is sent, so whatever happens to this
process, `recover` finds it; when all have been sent the file is taken away. What cannot be written
(a full disk, a folder that is not ours) waits in memory, which is bounded.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from sysmetrics_native.spool import Spool, WaitingWindow

_logger = logging.getLogger("sysmetrics_native")

MAX_WINDOWS_IN_MEMORY = 4096


class Backlog:
    """The windows of one run that have not been sent, oldest first.

    Args:
        make_spool: creates the file, when one is needed.
        run_id: for log lines.
        keeps_on_disk: write every window down at once, because it will wait for long.
    """

    def __init__(
        self, make_spool: Callable[[], Spool], run_id: str, keeps_on_disk: bool = False
    ) -> None:
        self._make_spool = make_spool
        self._run_id = run_id
        # Held while the disk is busy, so whoever must not wait for a disk must not take it.
        self._lock = threading.Lock()
        self._memory: deque[WaitingWindow] = deque()  # behind those of the spool
        self._spool: Spool | None = None
        self._always_keeps_on_disk = self._keeps_on_disk = keeps_on_disk
        self._has_failed = False  # it could not be written, and the windows in it are not all sent
        self._has_warned = False
        self._is_released = False

    def __len__(self) -> int:
        """How many there are. Waits for nobody."""
        spool = self._spool
        return len(self._memory) + (len(spool) if spool is not None else 0)

    def is_full(self) -> bool:
        """Whether the memory has no room, which matters only where the disk has none. No wait."""
        return len(self._memory) >= MAX_WINDOWS_IN_MEMORY

    def on_disk(self) -> tuple[int, str]:
        """How many of them are in a file, and its path. Waits for nobody."""
        spool = self._spool
        return (len(spool), spool.path) if spool is not None else (0, "")

    def put(self, window: WaitingWindow) -> None:
        """Add the newest window."""
        with self._lock:
            self._memory.append(window)
            if self._keeps_on_disk:
                self._write_down()

    def oldest(self, most_metrics: int) -> list[WaitingWindow]:
        """As many windows as have so many metrics together; one at least, if there is one."""
        with self._lock:
            batch: list[WaitingWindow] = []
            metrics = 0
            for window in self._all():
                metrics += len(window.metrics)
                if batch and metrics > most_metrics:
                    break
                batch.append(window)
            return batch

    def _all(self) -> Iterator[WaitingWindow]:
        if self._spool is not None:
            yield from self._spool.unsent()
        yield from self._memory

    def drop_sent(self, batch: list[WaitingWindow]) -> None:
        """Forget the oldest windows: the server has them."""
        if not batch:
            return
        through = batch[-1].number + 1
        with self._lock:
            while self._memory and self._memory[0].number < through:
                self._memory.popleft()
            if self._spool is not None:
                with suppress(OSError):  # then `recover` asks the server what it has
                    self._spool.mark_sent(through)
            if len(self) == 0:
                self._forget_spool()

    def keep_on_disk(self) -> None:
        """Write down what waits, and what comes until all has been sent."""
        with self._lock:
            self._keeps_on_disk = True
            self._write_down()

    def note_first_step(self, step: int) -> None:
        """The step of window 0, for whoever sends the rest."""
        with self._lock, suppress(OSError):
            if self._spool is not None:
                self._spool.mark_first_step(step)

    def release(self, reason: str) -> None:
        """Write down what is left and leave it to `recover`."""
        with self._lock:
            self._write_down()
            if self._spool is not None and not self._is_released:
                self._is_released = True
                with suppress(OSError):
                    self._spool.release(reason)

    def clear(self) -> None:
        """Throw everything away: nobody will ever take it."""
        with self._lock:
            self._memory.clear()
            if self._spool is not None:
                self._forget_spool()

    def _write_down(self) -> None:
        if self._has_failed or not self._memory:
            return
        try:
            if self._spool is None:
                self._spool = self._make_spool()
            while self._memory:
                self._spool.append(self._memory[0])
                self._memory.popleft()
        except Exception as error:  # noqa: BLE001  # the disk's troubles are never the run's
            self._has_failed = True
            if not self._has_warned:
                self._has_warned = True
                _logger.warning(
                    "System metrics of run %s that cannot be sent now wait in memory only, "
                    "because they cannot be written down: %s",
                    self._run_id,
                    error,
                )

    def _forget_spool(self) -> None:
        spool, self._spool = self._spool, None
        self._keeps_on_disk = self._always_keeps_on_disk
        self._has_failed = False
        if spool is not None:
            with suppress(OSError):
                spool.remove()

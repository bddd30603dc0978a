"""The fallback where the C core is not built: psutil, read by a Python thread."""

from __future__ import annotations

import errno
import logging
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from queue import Empty, SimpleQueue
from typing import Any

from sysmetrics_native.backends import (
    SamplingOptions,
    describe_slowed,
    next_wait,
    overhead_stats,
    python_gpus,
    source_stats,
)
from sysmetrics_native.backends.fold import ClosedWindow, OpenWindow, Reading, RowTime, SeriesSpec
from sysmetrics_native.backends.governor import Governor, Load
from sysmetrics_native.backends.gpu_reader import GpuReader, GpuSource
from sysmetrics_native.backends.psutil_sources import (
    NOT_BY_DEFAULT,
    SOURCES,
    IncompleteError,
    Source,
)
from sysmetrics_native.gpus import Gpu
from sysmetrics_native.recording_file import Recorded, RecordedSeries, RowLayout, RowWriter
from sysmetrics_native.settings import resolve_sources
from sysmetrics_native.threads import Thread
from sysmetrics_native.window import SeriesInfo, Window

_logger = logging.getLogger("sysmetrics_native")

_WINDOWS_KEPT = 64
"""Closed windows that wait for a reader before the oldest merge."""


class _ActiveSource:
    """A source at work, and what it costs."""

    def __init__(self, source: Source, interval: float) -> None:
        self.source = source
        self.specs = source.specs
        self.load = Load(max(1, math.ceil(source.min_interval / interval)))
        self.interval = interval
        self.next_tick = 0
        self.last_cost = 0.0
        self.calls = 0
        self.errors = 0
        self.total_cost = 0.0
        self.max_cost = 0.0

    def sample(self) -> dict[str, Reading]:
        # CPU time, not time: a machine that is busy is no reason to see less of it.
        before = time.thread_time()
        readings: dict[str, Reading] = {}
        try:
            readings.update(self.source.sample())
        except IncompleteError as error:
            readings.update(error.readings)
            self.errors += 1
        except Exception:  # noqa: BLE001  # whatever psutil raises is an absent value, counted
            self.errors += 1
        self.last_cost = time.thread_time() - before
        self.load.count(self.last_cost)
        self.calls += 1
        self.total_cost += self.last_cost
        self.max_cost = max(self.max_cost, self.last_cost)
        return readings

    def close(self) -> None:
        self.source.close()

    def stats(self, window_ticks: int) -> Mapping[str, int | float]:
        return source_stats(
            self.calls,
            self.errors,
            self.load.interval_ticks(window_ticks) * self.interval,
            self.load.usual_ticks * self.interval,
            self.total_cost,
            self.max_cost,
        )


def known_sources() -> dict[str, bool]:
    """Every source of this backend, and whether it is part of `default`."""
    return {**{name: name not in NOT_BY_DEFAULT for name in SOURCES}, **python_gpus.SOURCES}


def _lay_out(specs: Iterable[SeriesSpec]) -> RowLayout:
    """Two columns next to each other for a ratio, one for any other series."""
    columns = 0
    series = []
    for spec in specs:
        is_ratio = spec.info.kind == "ratio"
        denominator = columns + 1 if is_ratio else None
        series.append(RecordedSeries(*spec.info, columns, denominator, spec.scale, spec.quantum))
        columns += 2 if is_ratio else 1
    return RowLayout(columns, tuple(series))


class PsutilBackend:
    """A sampler that reads through psutil. See `Backend`."""

    name = "psutil"
    schema: tuple[SeriesInfo, ...]
    gpus: tuple[Gpu, ...] = ()

    def __init__(self, options: SamplingOptions) -> None:
        for name, value, usual in (
            ("procfs_path", options.procfs_path, "/proc"),
            ("sysfs_path", options.sysfs_path, "/sys"),
        ):
            if value != usual:
                raise ValueError(
                    f"{options.spelling[name]} must be {usual} with the psutil backend, which "
                    f"reads the live system only, got {value!r}"
                )
        self._interval = options.interval
        self._samples_per_window = options.samples_per_window
        self._gpu_reader: GpuReader | None = None
        self._sources = self._open_sources(options)
        self._hosts = [one for one in self._sources.values() if isinstance(one, _ActiveSource)]
        self._governor = Governor(
            options.overhead_budget, options.interval, options.samples_per_window
        )
        self._budget = options.overhead_budget
        self._budget_name = options.spelling["overhead_budget"]
        self._has_said_slowed = False
        self._specs = [spec for active in self._sources.values() for spec in active.specs]
        self.schema = tuple(spec.info for spec in self._specs)
        self.layout = _lay_out(self._specs)
        self._writer: RowWriter | None = None
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        # Not an Event, whose lock is held in a wait: the garbage collector may run on any thread,
        # this one included, find a sampler that nobody stopped, and stop it.
        self._stop_requests: SimpleQueue[None] = SimpleQueue()
        self._windows: deque[ClosedWindow] = deque()
        self._changed = threading.Condition()  # guards _windows and _finished
        self._finished = False
        self._ticks = 0
        self._missed = 0
        self._merged = 0

    def _open_sources(self, options: SamplingOptions) -> dict[str, _ActiveSource | GpuSource]:
        """Those that are chosen and that this machine has, by their names."""
        known = known_sources()
        names = resolve_sources(options.sources, known, options.spelling["sources"])
        of_gpus = [name for name in names if name in python_gpus.SOURCES]
        if of_gpus:
            self._gpu_reader = python_gpus.open_gpus(
                of_gpus,
                options.gpus,
                options.spelling["gpus"],
                options.interval,
            )
        sources: dict[str, _ActiveSource | GpuSource] = {
            name: _ActiveSource(source, options.interval)
            for name in names
            if name in SOURCES and (source := SOURCES[name](options)) is not None
        }
        if self._gpu_reader is not None:
            self.gpus = self._gpu_reader.gpus
            sources |= self._gpu_reader.sources
        if not sources:
            raise ValueError(
                f"{options.spelling['sources']} must leave a source that this machine has, got "
                f"{','.join(options.sources)!r}"
            )
        return sources

    def record(self, file: int, data_offset: int, capacity: int) -> None:
        if self._thread is not None or self._writer is not None:
            raise OSError(errno.EALREADY, "cannot record: the sampler runs, or records, already")
        self._writer = RowWriter(file, data_offset, capacity, self.layout.columns)
        # The thread keeps its backend alive, so never under a row that is being written.
        weakref.finalize(self, self._writer.close).atexit = False

    def recorded(self) -> Recorded:
        return Recorded() if self._writer is None else self._writer.recorded

    # ---- the thread -----------------------------------------------------------------------------

    def start(self) -> None:
        if os.getpid() != self._pid or self._thread is not None:
            return
        if self._gpu_reader is not None:
            self._gpu_reader.begin()
        # Where the thread's own clocks start; the monotonic clock of a backend never steps.
        start = RowTime(0, time.monotonic_ns(), time.time_ns())
        self._start_ns = start.monotonic_ns
        readings = self._read(0, closes=True, last=True)
        for active in self._hosts:
            active.load.forget()
        self._governor.start(start.monotonic_ns * 1e-9)
        self._open = OpenWindow.first(self._specs, start, readings, self._samples_per_window)
        # Known before it starts: Ctrl-C may come in between, and stop() must still find it.
        self._thread = Thread("smn-host", self._run, (start, readings))
        try:
            self._thread.start()
        except RuntimeError as error:
            self._thread = None
            raise OSError(errno.EAGAIN, f"cannot start the sampling thread: {error}") from error
        if self._gpu_reader is not None:
            self._gpu_reader.follow(start.monotonic_ns)

    def _run(self, start: RowTime, readings: dict[str, Reading]) -> None:
        try:
            # Not where it was taken: a disk that hangs may hold up this thread only.
            self._record(start, readings)
            while True:
                # The next deadline on the grid: those that passed while we were late are skipped.
                next_tick = self._tick_at(time.monotonic_ns()) + 1
                stopping = self._sleep_until(next_tick)
                if stopping and self._gpu_reader is not None:
                    self._gpu_reader.finish()
                self._take_tick(last=stopping)
                if stopping:
                    break
        finally:  # nobody waits for ever, whatever went wrong here
            for active in self._sources.values():
                if isinstance(active, _ActiveSource):
                    active.close()
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def _sleep_until(self, tick: int) -> bool:
        """Wait for the tick, or for the end of sampling; whether it is the latter.

        A wait may end early: where timers are coarse, or, with Python 3.10, when the wall clock
        steps.
        """
        while True:
            passed = (time.monotonic_ns() - self._start_ns) * 1e-9
            if self._is_stop_asked_for(tick * self._interval - passed):
                return True
            if self._tick_at(time.monotonic_ns()) >= tick:
                return False

    def _is_stop_asked_for(self, seconds: float) -> bool:
        """Whether it is, or will be within so many seconds."""
        try:
            self._stop_requests.get(timeout=max(0.0, seconds))
        except Empty:
            return False
        return True

    def _tick_at(self, now_ns: int) -> int:
        # A deadline that is a fraction of a microsecond ahead has come: sleeps end there.
        return int((now_ns - self._start_ns + 1000) * 1e-9 / self._interval)

    def _read(self, tick: int, *, closes: bool, last: bool) -> dict[str, Reading]:
        """What is due at a tick, which may close a window, or be the last of all.

        Every source is read at a window's last tick, so that no short window lacks a value, unless
        it was slowed down.
        """
        readings: dict[str, Reading] = {}
        for active in self._sources.values():
            if isinstance(active, GpuSource):
                readings.update(active.sample())
            elif tick >= active.next_tick or last or (closes and not active.load.is_slowed):
                readings.update(active.sample())
                active.next_tick = active.load.next_tick(tick, self._samples_per_window)
                self._governor.spend(active.last_cost)
        return readings

    def _govern(self, row: RowTime) -> None:
        now = row.monotonic_ns * 1e-9
        if not self._governor.is_due(now):
            return
        self._governor.decide([active.load for active in self._hosts], now)
        for active in self._hosts:
            active.next_tick = active.load.next_tick(row.tick, self._samples_per_window)

    def _take_tick(self, *, last: bool) -> None:
        now_ns = time.monotonic_ns()
        row = RowTime(self._tick_at(now_ns), now_ns, time.time_ns())
        closes = self._open.ends_at(row.tick) or last
        readings = self._read(row.tick, closes=closes, last=last)
        self._record(row, readings)
        self._open.add(row, readings)
        self._ticks += 1
        if closes:
            self._push(self._open.close())
            self._open = self._open.next()
        self._govern(row)

    def _record(self, row: RowTime, readings: Mapping[str, Reading]) -> None:
        if self._writer is None:
            return
        columns = [math.nan] * self.layout.columns
        for series in self.layout.series:
            reading = readings.get(series.key)
            if isinstance(reading, tuple):
                columns[series.numerator : series.numerator + 2] = reading
            elif reading is not None:
                columns[series.numerator] = reading
        self._writer.append(row, columns)

    def _push(self, window: ClosedWindow) -> None:
        self._missed += window.missed
        with self._changed:
            if len(self._windows) == _WINDOWS_KEPT:
                oldest = self._windows.popleft()
                self._windows[0].merge_older(oldest)
                self._merged += 1
            self._windows.append(window)
            self._changed.notify_all()

    # ---- what others call -----------------------------------------------------------------------

    def stop(self, timeout: float) -> bool:
        if os.getpid() != self._pid or self._thread is None:
            return True
        self._stop_requests.put(None)
        if self._thread.ident is None:  # it never ran, and would end at once
            return True
        if self._thread is threading.current_thread():  # in the garbage collector: see above
            return False
        self._thread.join(min(timeout, threading.TIMEOUT_MAX))
        return not self._thread.is_alive()

    def next_window(self, timeout: float | None, *, percentiles: bool) -> Window | None:
        if os.getpid() != self._pid:  # before the lock, which may have been held at the fork
            return None
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._windows:
                if self._finished or (deadline is not None and not time.monotonic() < deadline):
                    return None
                self._changed.wait(next_wait(deadline))
            closed = self._windows.popleft()
        if self._gpu_reader is not None:
            self._gpu_reader.say_if_stalled()
        self._say_if_slowed()
        return closed.window(percentiles=percentiles)

    def _say_if_slowed(self) -> None:
        if self._has_said_slowed or not any(active.load.is_slowed for active in self._hosts):
            return
        line = describe_slowed(self._source_stats(), self._budget, self._budget_name)
        self._has_said_slowed = bool(line)
        if line:
            _logger.warning("%s", line)

    def stats(self) -> dict[str, Any]:
        return {
            "ticks": self._ticks,
            "missed": self._missed,
            "merged_windows": self._merged,
            "overhead": overhead_stats(self._budget, self._governor.share),
            "sources": self._source_stats(),
        }

    def _source_stats(self) -> dict[str, Mapping[str, int | float]]:
        return {
            name: active.stats(self._samples_per_window) for name, active in self._sources.items()
        }

"""GPUs of the psutil backend, read on a thread of their own, `smn-gpu`.

A call of a driver library may take seconds, or never return. So nothing else ever waits for one,
but for a moment at the start and at the end of sampling; what is read lies ready for the sampling
thread, which takes each reading once.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import NamedTuple

from sysmetrics_native.backends import source_stats
from sysmetrics_native.backends.fold import Reading, SeriesSpec
from sysmetrics_native.backends.gpu_device import Device, LiveCall
from sysmetrics_native.backends.gpu_driver import (
    Driver,
    ForbiddenError,
    LostError,
    ShutDownError,
    UnsupportedError,
)
from sysmetrics_native.threads import Thread

_logger = logging.getLogger("sysmetrics_native")

THREAD_NAME = "smn-gpu"
MOMENT_SECONDS = 0.2
"""How long the first and the last reading are waited for."""
STALL_SECONDS = 2.0
"""A call that lasts longer is worth a line in the log."""

_MOST_STALLS_SAID = 3

_LEAST_LEAD_SECONDS = 0.005
_COSTS_REMEMBERED = 16


class _Spent:
    """What one round has cost one source: the calls for it on all devices."""

    def __init__(self) -> None:
        self.cost = 0.0
        self.errors = 0  # readings that failed or cannot be true


class GpuSource:
    """One source as the sampling thread sees it: whatever lies ready."""

    def __init__(self, specs: Sequence[SeriesSpec], interval: float) -> None:
        self.specs = specs
        self._interval = interval
        self._ready: dict[str, Reading] = {}
        self._lock = threading.Lock()  # guards _ready; never held over a call
        self._keys = {spec.info.key for spec in specs}
        self._rounds = 0
        self._errors = 0
        self._total_cost = 0.0
        self._max_cost = 0.0

    def sample(self) -> dict[str, Reading]:
        """What was read since this was called last."""
        with self._lock:
            ready, self._ready = self._ready, {}
        return ready

    def put(self, readings: Mapping[str, Reading]) -> None:
        """Lay ready what is this source's; what was not taken before gives way to what is newer."""
        ours = {key: reading for key, reading in readings.items() if key in self._keys}
        with self._lock:
            self._ready |= ours

    def count(self, spent: _Spent) -> None:
        """Note a round that was made on the thread of the GPUs."""
        self._rounds += 1
        self._errors += spent.errors
        self._total_cost += spent.cost
        self._max_cost = max(self._max_cost, spent.cost)

    def stats(self, window_ticks: int) -> Mapping[str, int | float]:  # noqa: ARG002  # as others
        """Its entry in `Sampler.stats`: rounds of calls, and what they cost that thread."""
        return source_stats(
            self._rounds,
            self._errors,
            self._interval,
            self._interval,
            self._total_cost,
            self._max_cost,
        )


class _CallAtWork(NamedTuple):
    """A call that is under way."""

    index: int  # type: ignore[assignment]  # a tuple's own `index` is of no use here
    function: str
    since: float  # of the monotonic clock


class GpuReader:
    """Reads GPUs on a thread of its own.

    Attributes:
        gpus: those that are read.
        sources: what the sampling thread takes from, by their names; only those with a series.
    """

    def __init__(self, driver: Driver, devices: Sequence[Device], interval: float) -> None:
        self.gpus = tuple(device.gpu for device in devices)
        self._driver = driver
        self._devices = devices
        self._interval = interval
        specs = [spec for device in devices for spec in device.specs()]
        lives = [live for device in devices for live in device.calls]
        self._divisor = min((live.divisor for live in lives), default=1)
        self.sources: dict[str, GpuSource] = {}
        for name in dict.fromkeys(spec.info.source for spec in specs):
            divisors = [live.divisor for live in lives if live.source == name]
            of_it = [spec for spec in specs if spec.info.source == name]
            self.sources[name] = GpuSource(of_it, min(divisors, default=self._divisor) * interval)
        self._costs: deque[float] = deque(maxlen=_COSTS_REMEMBERED)
        self._at_work: _CallAtWork | None = None
        self._stalls: list[_CallAtWork] = []
        self._thread: Thread | None = None
        # What the thread is to do: start its clock, at a time of the monotonic clock; or read a
        # last time, and answer. Not a Condition: the garbage collector may run on any thread.
        self._requests: SimpleQueue[int | SimpleQueue[None]] = SimpleQueue()

    # ---- for the backend ------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the thread and take the first reading, which counters start from."""
        if self._thread is not None:
            return
        first: SimpleQueue[None] = SimpleQueue()
        thread = Thread(THREAD_NAME, self._run, (first,))
        try:
            thread.start()
        except RuntimeError as error:
            _logger.warning("No GPU is read: %s", error)
            return
        self._thread = thread
        _wait_a_moment(first)

    def follow(self, start_ns: int) -> None:
        """Read from now on, in time for ticks that count from a time of the monotonic clock."""
        self._requests.put(start_ns)

    def finish(self) -> None:
        """Take a last reading; the thread ends as soon as no call lasts."""
        if self._thread is None:
            return
        last: SimpleQueue[None] = SimpleQueue()
        self._requests.put(last)
        _wait_a_moment(last)

    def say_if_stalled(self) -> None:
        """Say that a call does not return: its own thread cannot."""
        at_work = self._at_work
        if at_work is None or time.monotonic() - at_work.since < STALL_SECONDS:
            return
        if at_work in self._stalls or len(self._stalls) == _MOST_STALLS_SAID:
            return
        self._stalls.append(at_work)
        _logger.warning(
            "GPU %d: %s has not returned for %g s; until it does, there are no values of GPUs",
            at_work.index,
            at_work.function,
            STALL_SECONDS,
        )

    # ---- the thread -----------------------------------------------------------------------------

    def _run(self, first: SimpleQueue[None]) -> None:
        try:
            self._read_round(None)
            first.put(None)
            request = self._requests.get()
            if isinstance(request, int):
                request = self._read_on_time(request)
            self._read_round(None)
            request.put(None)
        except Exception:  # a bug of ours must end the GPUs' metrics with a trace, and nothing else
            _logger.exception("Stopped reading GPUs")
        finally:
            self._driver.close()

    def _read_on_time(self, start_ns: int) -> SimpleQueue[None]:
        """Read a little before each tick that is due, until there is another request."""
        period = self._divisor * self._interval
        number = 0
        while True:
            passed = (time.monotonic_ns() - start_ns) * 1e-9
            number = max(number, math.floor(passed / period)) + 1
            lead = min(2.0 * max(self._costs) + _LEAST_LEAD_SECONDS, period / 2.0)
            request = self._wait(start_ns * 1e-9 + number * period - lead)
            if request is not None:
                return request
            self._read_round(number * self._divisor)

    def _wait(self, deadline: float) -> SimpleQueue[None] | None:
        """The request that comes before a time of the monotonic clock."""
        while (left := deadline - time.monotonic()) > 0.0:
            try:
                request = self._requests.get(timeout=left)
            except Empty:
                continue  # a wait may end early
            if not isinstance(request, int):
                return request
        return None

    def _read_round(self, tick: int | None) -> None:
        """Read what is due at a tick, or everything."""
        before = time.monotonic()
        spent: defaultdict[str, _Spent] = defaultdict(_Spent)
        for device in self._devices:
            due = [live for live in device.calls if tick is None or tick >= live.next_tick]
            if due and device.is_back():
                self._read_device(device, due, spent)
            for live in due:
                live.next_tick = ((tick or 0) // live.divisor + 1) * live.divisor
        self._costs.append(time.monotonic() - before)
        for name, source in self.sources.items():
            if name in spent:
                source.count(spent[name])

    def _read_device(
        self, device: Device, due: Sequence[LiveCall], spent: defaultdict[str, _Spent]
    ) -> None:
        for live in due:
            before = time.monotonic()
            if before < live.retry_at:
                continue
            cpu_before = time.thread_time()
            self._at_work = _CallAtWork(device.gpu.index, live.call.function, before)
            errors = 1
            try:
                readings, errors = device.read(live)
                for source in self.sources.values():
                    source.put(readings)
                live.complaints = 0
            except (LostError, ShutDownError) as error:
                device.lose(live.call.function, error)
                break
            except (UnsupportedError, ForbiddenError) as error:
                errors = 0  # it has never had it, or never will again: nothing failed
                device.drop(live, error)
            except Exception as error:  # noqa: BLE001  # whatever a binding raises is absent now
                device.complain(live, error)
            finally:
                self._at_work = None
                spent[live.source].errors += errors
                spent[live.source].cost += time.thread_time() - cpu_before


def _wait_a_moment(answer: SimpleQueue[None]) -> None:
    try:
        answer.get(timeout=MOMENT_SECONDS)
    except Empty:
        return  # a call lasts: sampling goes on without

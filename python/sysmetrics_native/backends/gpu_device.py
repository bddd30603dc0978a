"""One GPU of the psutil backend: its calls, its series, and what becomes of readings."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from sysmetrics_native.backends.fold import Reading, SeriesSpec
from sysmetrics_native.backends.gpu_driver import (
    Call,
    Driver,
    ForbiddenError,
    LostError,
    ShutDownError,
    UnsupportedError,
)
from sysmetrics_native.gpus import Gpu
from sysmetrics_native.window import SeriesInfo

_logger = logging.getLogger("sysmetrics_native")

RETRY_SECONDS = 30.0
"""After which a lost device, or a call of which a binding complains loudly, is tried again."""
RETRY_LIBRARY_SECONDS = 1.0
"""After which a library that somebody else has shut down is initialised again."""
_MOST_COMPLAINTS = 3
_MOST_LINES = 6
"""Of one GPU in the log, however long it is read."""

_MOST_WATTS = 20_000.0
_MOST = float(1 << 60)
LIMITS: Mapping[str, tuple[float, float]] = {
    "utilization": (0.0, 100.0),  # percentage of time in which a kernel ran
    "memory_used": (0.0, _MOST),  # bytes
    "memory_total": (0.0, _MOST),
    "power": (0.0, _MOST_WATTS),
    "power_limit": (1.0, _MOST_WATTS),
    "energy": (0.0, _MOST),  # joules, a counter that may be reset
    "temperature": (-50.0, 200.0),  # degrees Celsius
    "sm_clock": (0.0, 20_000.0),  # megahertz
    "memory_clock": (0.0, 20_000.0),
    "throttled": (0.0, 1.0),  # 1 while something slows the clocks
    "ecc_errors": (0.0, _MOST),  # corrected and uncorrected, a counter
}
"""What a reading can be; beyond that it is nonsense, and absent."""
_MIG_PART = re.compile(r"^mig_\d+_")

_SHORTEST_SPAN_SECONDS = 0.4
"""Of energy: drivers count it in steps of about 0.1 s, so over less power means little."""

_DETAIL: Mapping[str, tuple[str, str, str, float]] = {
    "temperature": ("temperature_celsius", "celsius", "gauge", 1.0),
    "energy": ("energy_joules", "joules", "total", 1.0),
    "sm_clock": ("sm_clock_megahertz", "megahertz", "gauge", 1.0),
    "memory_clock": ("memory_clock_megahertz", "megahertz", "gauge", 1.0),
    "throttled": ("throttled_percentage", "percentage", "gauge", 100.0),
    "ecc_errors": ("ecc_errors", "errors", "total", 1.0),
}
"""Of each quantity the end of its key, the unit, the kind and the scale."""


def _spec(
    source: str, key: str, unit: str, kind: str, scale: float = 1.0, quantum: float = 0.0
) -> SeriesSpec:
    return SeriesSpec(SeriesInfo(key, unit, source, kind), scale, quantum)


def _specs(prefix: str, has: AbstractSet[str], instances: Iterable[int]) -> Iterator[SeriesSpec]:
    """Those of a device that has these quantities and MIG devices."""
    if "utilization" in has:
        yield _spec("gpu", f"{prefix}utilization_percentage", "percentage", "gauge")
    if "memory_used" in has:
        yield from _memory_specs(prefix)
    yield from _power_specs(prefix, has)
    for index in instances:
        if f"mig_{index}_memory_used" in has:
            yield from _memory_specs(f"{prefix}mig_{index}_")
    for quantity, (name, unit, kind, scale) in _DETAIL.items():
        if quantity in has:
            yield _spec("gpu_detail", f"{prefix}{name}", unit, kind, scale)


def _memory_specs(prefix: str) -> Iterator[SeriesSpec]:
    yield _spec("gpu", f"{prefix}memory_usage_megabytes", "megabytes", "gauge", 1e-6)
    yield _spec("gpu", f"{prefix}memory_usage_percentage", "percentage", "gauge", 100.0)


def _power_specs(prefix: str, has: AbstractSet[str]) -> Iterator[SeriesSpec]:
    if not has & {"energy", "power"}:
        return
    kind, quantum = ("ratio", _SHORTEST_SPAN_SECONDS) if "energy" in has else ("gauge", 0.0)
    yield _spec("gpu", f"{prefix}power_usage_watts", "watts", kind, 1.0, quantum)
    if "power_limit" in has:
        key = f"{prefix}power_usage_percentage"
        yield _spec("gpu", key, "percentage", kind, 100.0, quantum)


def known_series() -> set[SeriesInfo]:
    """Every series that a GPU 0 and its MIG device 0 can have."""
    everything = {*LIMITS, "mig_0_memory_used"}
    without_counter = everything - {"energy"}
    return {
        spec.info for has in (everything, without_counter) for spec in _specs("gpu_0_", has, [0])
    }


def _sane(raw: Mapping[str, float]) -> dict[str, float]:
    """What of some readings can be."""
    sane = {}
    for quantity, value in raw.items():
        low, high = LIMITS[_MIG_PART.sub("", quantity)]
        if quantity.endswith("memory_used"):
            high = raw.get(quantity.removesuffix("used") + "total", high)
        if low <= value <= high:
            sane[quantity] = value
    return sane


class _Meter:
    """A counter that may be reset, as a total that never falls."""

    def __init__(self) -> None:
        self._previous: float | None = None
        self.total = 0.0

    def add(self, value: float, most: float) -> float | None:
        """The increase, which it adds; `None` where that is not known or more than it can be."""
        increase = None if self._previous is None else value - self._previous
        self._previous = value
        if increase is None or not 0.0 <= increase <= most:
            return None
        self.total += increase
        return increase


class LiveCall:
    """A call that is made again and again."""

    def __init__(self, call: Call, source: str, interval: float) -> None:
        self.call = call
        self.source = source
        self.divisor = max(1, math.ceil(call.interval / interval))
        self.next_tick = 0
        self.complaints = 0
        self.retry_at = 0.0  # of the monotonic clock


class Device:
    """One GPU that is read: its calls, its series, and what becomes of readings.

    Args:
        gpu: the one.
        driver: reads it.
        sources: those that are wanted.
        interval: seconds between two ticks of the sampling thread.
        said: functions of which it was said, for all devices, that they fail.
    """

    def __init__(
        self, gpu: Gpu, driver: Driver, sources: Sequence[str], interval: float, said: set[str]
    ) -> None:
        self.gpu = gpu
        self._driver = driver
        self._sources = sources
        self._prefix = f"gpu_{gpu.index}_"
        self.calls = [
            LiveCall(call, call.source if call.source in sources else "gpu_detail", interval)
            for call in driver.calls(gpu)
            if call.source in sources or ("gpu_detail" in sources and "energy" in call.quantities)
        ]
        self.retry_at: float | None = None  # while it is lost
        self._said = said
        self._lines_left = _MOST_LINES
        self._has_found_nonsense = False
        self._limit: float | None = None  # watts, the last one that was read
        self._energy = _Meter()  # joules, and in how many seconds …
        self._energy_seconds = 0.0
        self._energy_read_at = 0.0  # of the monotonic clock
        self._limit_seconds = 0.0  # … and the same as seconds at the limit, and of how many
        self._limited_seconds = 0.0
        self._ecc_errors = _Meter()

    # ---- at the start ---------------------------------------------------------------------------

    def probe(self) -> None:
        """Make each call once, and keep those that this device has."""
        kept: dict[str, LiveCall] = {}
        for live in self.calls:
            name = live.call.quantities[0]
            if name == "power" and "energy" in kept:
                continue  # it comes from the counter
            if self.retry_at is not None:
                # What it has is not known before it is back; a counter it need not have.
                if name != "energy":
                    kept[name] = live
                continue
            if self._try(live):
                kept[name] = live
        self.calls = list(kept.values())

    def _try(self, live: LiveCall) -> bool:
        """Whether to make a call again and again."""
        try:
            raw = live.call.read()
        except (LostError, ShutDownError) as error:
            self.lose(live.call.function, error)
            return True
        except (UnsupportedError, ForbiddenError) as error:
            self._say_why(live, error)
            return False
        except Exception as error:  # noqa: BLE001  # not this time; the next may do
            if not self._driver.is_noisy:
                self._say_failure(live, error)
            return not self._driver.is_noisy
        sane = _sane(raw)
        self._limit = sane.get("power_limit", self._limit)
        return bool(sane if self._driver.is_noisy else raw)

    def specs(self) -> Iterator[SeriesSpec]:
        """The series of what it has, in the catalogue's order."""
        has = {quantity for live in self.calls for quantity in live.call.quantities}
        every = _specs(self._prefix, has, [instance.index for instance in self.gpu.instances])
        return (spec for spec in every if spec.info.source in self._sources)

    # ---- while it is read -----------------------------------------------------------------------

    def read(self, live: LiveCall) -> tuple[dict[str, Reading], int]:
        """Make one call: what became of it, by key, and how many readings cannot be true.

        Raises what the call raises.
        """
        before = time.monotonic()
        raw = live.call.read()
        now = (before + time.monotonic()) / 2
        self._find()
        sane = _sane(raw)
        if len(sane) < len(raw) and not self._has_found_nonsense:
            self._has_found_nonsense = True
            self._say("", "the driver gave a value that cannot be true; such values are left out")
        return self._derive(sane, now), len(raw) - len(sane)

    def _derive(self, raw: Mapping[str, float], now: float) -> dict[str, Reading]:
        readings: dict[str, Reading] = {}
        for quantity, value in raw.items():
            if quantity == "power_limit":
                self._limit = value
            elif quantity == "utilization":
                readings[f"{self._prefix}utilization_percentage"] = value
            elif quantity.endswith("memory_used"):
                readings |= self._memory(quantity.removesuffix("memory_used"), raw)
            elif quantity == "power":
                readings |= self._power(value)
            elif quantity == "energy":
                readings |= self._add_energy(value, now)
            elif quantity == "ecc_errors":
                self._ecc_errors.add(value, _MOST)
                readings[self._prefix + _DETAIL[quantity][0]] = self._ecc_errors.total
            elif quantity in _DETAIL:
                readings[self._prefix + _DETAIL[quantity][0]] = value
        return readings

    def _memory(self, part: str, raw: Mapping[str, float]) -> dict[str, Reading]:
        used, total = raw[f"{part}memory_used"], raw.get(f"{part}memory_total")
        key = f"{self._prefix}{part}memory_usage_"
        readings: dict[str, Reading] = {f"{key}megabytes": used}
        if total:
            readings[f"{key}percentage"] = used / total
        return readings

    def _power(self, watts: float) -> dict[str, Reading]:
        readings: dict[str, Reading] = {f"{self._prefix}power_usage_watts": watts}
        if self._limit is not None:
            readings[f"{self._prefix}power_usage_percentage"] = watts / self._limit
        return readings

    def _add_energy(self, joules: float, now: float) -> dict[str, Reading]:
        """Counters: joules and seconds, and both as seconds at the limit."""
        seconds = now - self._energy_read_at
        self._energy_read_at = now
        increase = self._energy.add(joules, _MOST_WATTS * (seconds + 1.0))
        if increase is not None:
            self._energy_seconds += seconds
            if self._limit is not None:
                self._limit_seconds += increase / self._limit
                self._limited_seconds += seconds
        power = f"{self._prefix}power_usage_"
        return {
            f"{power}watts": (self._energy.total, self._energy_seconds),
            f"{power}percentage": (self._limit_seconds, self._limited_seconds),
            self._prefix + _DETAIL["energy"][0]: self._energy.total,
        }

    # ---- what goes wrong ------------------------------------------------------------------------

    def _say(self, function: str, what: str) -> None:
        if self._lines_left == 0:
            return
        self._lines_left -= 1
        _logger.warning(
            "GPU %d%s: %s%s%s",
            self.gpu.index,
            f" ({self.gpu.name})" if self.gpu.name else "",
            f"{function}: " if function else "",
            what,
            "" if self._lines_left else " (no more is said of this GPU)",
        )

    def _say_once(self, live: LiveCall, what: str) -> None:
        """What one GPU's call does the others' do as well, as a rule: one line is for all."""
        function = live.call.function
        if function in self._said:
            return
        self._said.add(function)
        self._say(function, what)

    def _say_failure(self, live: LiveCall, error: Exception) -> None:
        """A line about a call that has failed and is made again."""
        what = str(error) or type(error).__name__
        self._say_once(live, f"{what}; where that happens its values are left out without a word")

    def _say_why(self, live: LiveCall, error: Exception) -> None:
        """A line about a call that is not made again, where the user can do something about it."""
        if isinstance(error, ForbiddenError):
            self._say_once(
                live, "no permission; where that is so its values are left out without a word"
            )

    def drop(self, live: LiveCall, error: Exception) -> None:
        """Never make a call again."""
        self.calls = [other for other in self.calls if other is not live]
        self._say_why(live, error)

    def complain(self, live: LiveCall, error: Exception) -> None:
        """Note a call that has failed; one that fills the log is left alone for a while."""
        self._say_failure(live, error)
        live.complaints += 1
        if self._driver.is_noisy and live.complaints >= _MOST_COMPLAINTS:
            live.retry_at = time.monotonic() + RETRY_SECONDS

    def lose(self, function: str, error: Exception) -> None:
        """Leave it alone for a while."""
        is_shut_down = isinstance(error, ShutDownError)
        wait = RETRY_LIBRARY_SECONDS if is_shut_down else RETRY_SECONDS
        if self.retry_at is None and is_shut_down:
            self._say(
                function,
                "the driver library was shut down by another part of this program; "
                "it is started again",
            )
        elif self.retry_at is None:
            self._say(
                function,
                f"the device is lost or must be reset; it is tried again every {RETRY_SECONDS:g} s",
            )
        self.retry_at = time.monotonic() + wait

    def is_back(self) -> bool:
        """Whether it can be read, as far as that is known without trying too often."""
        if self.retry_at is None:
            return True
        if time.monotonic() < self.retry_at:
            return False
        try:
            self._driver.recover(self.gpu.index)
        except Exception as error:  # noqa: BLE001  # whatever a binding raises
            self.lose("", error)
            return False
        return True

    def _find(self) -> None:
        """A device is back once it answers; it may give out a new handle and still not."""
        if self.retry_at is not None:
            self.retry_at = None
            self._say("", "it is back")

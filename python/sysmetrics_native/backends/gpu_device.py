"""One GPU of the psutil backend: its calls, its series, and what becomes of readings."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence

from sysmetrics_native.backends.fold import Reading, SeriesSpec
from sysmetrics_native.backends.gpu_driver import (
    Call,
    Driver,
    ForbiddenError,
    LostError,
    MissedError,
    UnsupportedError,
)
from sysmetrics_native.gpus import Gpu
from sysmetrics_native.window import SeriesInfo

_logger = logging.getLogger("sysmetrics_native")

RETRY_SECONDS = 30.0
"""After which a lost device, or a call of which a binding complains loudly, is tried again."""
_MOST_COMPLAINTS = 3

LIMITS: Mapping[str, tuple[float, float]] = {
    "utilization": (0.0, 100.0),  # percentage of time in which a kernel ran
    "memory_used": (0.0, 1e15),  # bytes
    "memory_total": (1.0, 1e15),
    "power": (0.0, 1e5),  # watts
    "power_limit": (1e-3, 1e5),
    "energy": (0.0, math.inf),  # joules, a counter
    "temperature": (-100.0, 250.0),  # degrees Celsius
    "energy_total": (0.0, math.inf),  # joules, the same counter for the sum since the start
    "sm_clock": (0.0, 1e5),  # megahertz
    "memory_clock": (0.0, 1e5),
    "throttled": (0.0, 1.0),  # 1 while something slows the clocks
    "ecc_errors": (0.0, 1e18),  # corrected and uncorrected, a counter
}
"""What a reading can be; beyond that it is nonsense, and absent."""
_MIG_PART = re.compile(r"^mig_\d+_")

_SHORTEST_SPAN_SECONDS = 0.5
"""Of energy: drivers count it in steps of about 0.1 s, so over less power means little."""

_DETAIL: Mapping[str, tuple[str, str, str, float]] = {
    "temperature": ("temperature_celsius", "celsius", "gauge", 1.0),
    "energy_total": ("energy_joules", "joules", "total", 1.0),
    "sm_clock": ("sm_clock_megahertz", "megahertz", "gauge", 1.0),
    "memory_clock": ("memory_clock_megahertz", "megahertz", "gauge", 1.0),
    "throttled": ("throttled_percentage", "percentage", "gauge", 100.0),
    "ecc_errors": ("ecc_errors", "errors", "total", 1.0),
}
"""Of each quantity the end of its key, the unit, the kind and the scale."""


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


def _spec(
    source: str, key: str, unit: str, kind: str, scale: float = 1.0, quantum: float = 0.0
) -> SeriesSpec:
    return SeriesSpec(SeriesInfo(key, unit, source, kind), scale, quantum)


class _Total:
    """The sum of a counter's increases; where it fell there was none."""

    def __init__(self) -> None:
        self._previous: float | None = None
        self._sum = 0.0

    def add(self, value: float) -> float:
        if self._previous is not None:
            self._sum += max(0.0, value - self._previous)
        self._previous = value
        return self._sum


class LiveCall:
    """A call that is made again and again."""

    def __init__(self, call: Call, interval: float) -> None:
        self.call = call
        self.divisor = max(1, math.ceil(call.interval / interval))
        self.next_tick = 0
        self.complaints = 0
        self.retry_at = 0.0  # of the monotonic clock


class Device:
    """One GPU that is read: its calls, its series, and what becomes of readings."""

    def __init__(self, gpu: Gpu, driver: Driver, sources: Sequence[str], interval: float) -> None:
        self.gpu = gpu
        self._driver = driver
        self._prefix = f"gpu_{gpu.index}_"
        self.calls = [
            LiveCall(call, interval) for call in driver.calls(gpu) if call.source in sources
        ]
        self.retry_at: float | None = None  # while it is lost
        self._limit: float | None = None  # watts, from the last call for it
        self._limit_joules = 0.0  # integral of the limit, where energy was read
        self._energy_read_at: float | None = None
        self._totals = {"energy_total": _Total(), "ecc_errors": _Total()}

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
            if self._try(live.call):
                kept[name] = live
        self.calls = list(kept.values())

    def _try(self, call: Call) -> bool:
        """Whether to make a call again and again."""
        try:
            readings = _sane(call.read())
        except LostError as error:
            self.lose(error)
            return True
        except (UnsupportedError, ForbiddenError) as error:
            self.say_why(call, error)
            return False
        except Exception:  # noqa: BLE001  # not this time; the next may do
            readings = {}
        self._limit = readings.get("power_limit", self._limit)
        return bool(readings) or not self._driver.is_noisy

    def specs(self) -> Iterator[SeriesSpec]:
        """The series of what it has, in the catalogue's order."""
        has = {quantity for live in self.calls for quantity in live.call.quantities}
        key = self._prefix
        if "utilization" in has:
            yield _spec("gpu", f"{key}utilization_percentage", "percentage", "gauge")
        if "memory_used" in has:
            yield from self._memory_specs("")
        yield from self._power_specs(has)
        for instance in self.gpu.instances:
            if f"mig_{instance.index}_memory_used" in has:
                yield from self._memory_specs(f"mig_{instance.index}_")
        for quantity, (name, unit, kind, scale) in _DETAIL.items():
            if quantity in has:
                yield _spec("gpu_detail", f"{key}{name}", unit, kind, scale)

    def _memory_specs(self, part: str) -> Iterator[SeriesSpec]:
        key = f"{self._prefix}{part}memory_usage_"
        yield _spec("gpu", f"{key}megabytes", "megabytes", "gauge", 1e-6)
        yield _spec("gpu", f"{key}percentage", "percentage", "gauge")

    def _power_specs(self, has: set[str]) -> Iterator[SeriesSpec]:
        kind, scale = ("ratio", 100.0) if "energy" in has else ("gauge", 1.0)
        quantum = _SHORTEST_SPAN_SECONDS if kind == "ratio" else 0.0
        key = f"{self._prefix}power_usage_"
        if has & {"energy", "power"}:
            yield _spec("gpu", f"{key}watts", "watts", kind, 1.0, quantum)
            if "power_limit" in has:
                yield _spec(
                    *("gpu", f"{key}percentage", "percentage", kind, scale),
                    quantum * (self._limit or 0.0),
                )

    # ---- while it is read -----------------------------------------------------------------------

    def read(self, live: LiveCall) -> dict[str, Reading]:
        """Make one call; what became of it, by key. Raises what the call raises."""
        before = time.monotonic()
        raw = live.call.read()
        now = (before + time.monotonic()) / 2
        sane = _sane(raw)
        self.find()
        if len(sane) < len(raw):
            raise MissedError(f"{live.call.function} has answered what cannot be")
        return self._derive(sane, now)

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
                readings |= self._energy(value, now)
            elif quantity in self._totals:
                readings[self._prefix + _DETAIL[quantity][0]] = self._totals[quantity].add(value)
            elif quantity in _DETAIL:
                readings[self._prefix + _DETAIL[quantity][0]] = value
        return readings

    def _memory(self, part: str, raw: Mapping[str, float]) -> dict[str, Reading]:
        used, total = raw[f"{part}memory_used"], raw[f"{part}memory_total"]
        key = f"{self._prefix}{part}memory_usage_"
        return {f"{key}megabytes": used, f"{key}percentage": 100.0 * used / total}

    def _power(self, watts: float) -> dict[str, Reading]:
        readings: dict[str, Reading] = {f"{self._prefix}power_usage_watts": watts}
        if self._limit is not None:
            readings[f"{self._prefix}power_usage_percentage"] = 100.0 * watts / self._limit
        return readings

    def _energy(self, joules: float, now: float) -> dict[str, Reading]:
        """Counters: joules over seconds, and joules over what the limit would have allowed."""
        readings: dict[str, Reading] = {f"{self._prefix}power_usage_watts": (joules, now)}
        if self._limit is not None:
            if self._energy_read_at is not None:
                self._limit_joules += self._limit * (now - self._energy_read_at)
            readings[f"{self._prefix}power_usage_percentage"] = (joules, self._limit_joules)
        self._energy_read_at = now
        return readings

    # ---- what goes wrong ------------------------------------------------------------------------

    def say_why(self, call: Call, error: Exception) -> None:
        """A line about a call that is not made again, where the user can do something about it."""
        if isinstance(error, ForbiddenError):
            _logger.warning(
                "GPU %d: %s is not allowed, so what it reads is left out: %s",
                self.gpu.index,
                call.function,
                error,
            )

    def drop(self, live: LiveCall, error: Exception) -> None:
        """Never make a call again."""
        self.calls = [other for other in self.calls if other is not live]
        if "power_limit" in live.call.quantities:
            self._limit = None
        self.say_why(live.call, error)

    def complain(self, live: LiveCall) -> None:
        """Note a call that has failed; one that fills the log is left alone for a while."""
        live.complaints += 1
        if self._driver.is_noisy and live.complaints >= _MOST_COMPLAINTS:
            live.retry_at = time.monotonic() + RETRY_SECONDS

    def lose(self, error: object) -> None:
        """Leave it alone for a while."""
        if self.retry_at is None:
            _logger.warning(
                "GPU %d cannot be read: %s. It is tried again every %g s; all else goes on.",
                self.gpu.index,
                error,
                RETRY_SECONDS,
            )
        self.retry_at = time.monotonic() + RETRY_SECONDS

    def is_back(self) -> bool:
        """Whether it can be read, as far as that is known without trying too often."""
        if self.retry_at is None:
            return True
        if time.monotonic() < self.retry_at:
            return False
        try:
            self._driver.recover(self.gpu.index)
        except Exception as error:  # noqa: BLE001  # whatever a binding raises
            self.lose(error)
            return False
        return True

    def find(self) -> None:
        """Note that a call has succeeded."""
        if self.retry_at is not None:
            self.retry_at = None
            _logger.info("GPU %d is read again.", self.gpu.index)

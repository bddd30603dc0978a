"""What is said of a command that has ended: in a run's tags and metrics, and to people."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from typing import NamedTuple

from sysmetrics_native.command import Ended
from sysmetrics_native.window import Window

MEMORY_KEY = "process_memory_rss_megabytes"

_ENERGY = re.compile(r"(?:cpu_package|gpu)_\d+_energy_joules")
_GPU = re.compile(r"gpu_(\d+)_(utilization_percentage|memory_usage_megabytes)")

_FAULTS = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")
"""Signals that a program brings upon itself: it has failed. All others come from somebody."""

_LONGEST_TAG = 4000
"""Characters; MLflow takes 5000 and more."""


class GpuUse(NamedTuple):
    """What the GPUs were used for, each `None` where it is not known."""

    utilization: float | None
    """Mean, in percent."""
    peak_megabytes: float | None
    """Most memory in use, by whomever."""


class _Mean:
    """A mean over windows that differ in length."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0

    def add(self, value: float, weight: float) -> None:
        self._sum += value * weight
        self._weight += weight

    def value(self) -> float | None:
        return self._sum / self._weight if self._weight > 0 else None


class Tally:
    """Peaks, means and sums over all windows of a command."""

    def __init__(self) -> None:
        self.peak_memory_megabytes: float | None = None
        """Most resident memory of all its processes together, as sampled."""
        self._energy: dict[str, float] = {}
        self._gpu_utilization: dict[int, _Mean] = {}
        self._gpu_memory: dict[int, float] = {}

    def add(self, window: Window) -> None:
        """Count one window in."""
        for key, series in window.items():
            if key == MEMORY_KEY and series.max is not None:
                self.peak_memory_megabytes = max(self.peak_memory_megabytes or 0.0, series.max)
            elif _ENERGY.fullmatch(key) and series.last is not None:
                self._energy[key] = series.last  # counted from the start of sampling
            elif (found := _GPU.fullmatch(key)) is not None:
                index = int(found.group(1))
                if found.group(2) == "memory_usage_megabytes" and series.max is not None:
                    self._gpu_memory[index] = max(self._gpu_memory.get(index, 0.0), series.max)
                elif found.group(2) == "utilization_percentage" and series.mean is not None:
                    mean = self._gpu_utilization.setdefault(index, _Mean())
                    mean.add(series.mean, window.end - window.start)

    @property
    def energy_joules(self) -> float | None:
        """Of all CPU packages and GPUs that count it, whoever used it; `None` if none does."""
        return sum(self._energy.values()) if self._energy else None

    def gpus(self) -> dict[int, GpuUse]:
        """Those that were read, by their indices."""
        uses = {}
        for index in sorted({*self._gpu_utilization, *self._gpu_memory}):
            mean = self._gpu_utilization.get(index)
            use = GpuUse(None if mean is None else mean.value(), self._gpu_memory.get(index))
            uses[index] = use
        return uses


class Outcome(NamedTuple):
    """All that is known of a command that has ended."""

    command_line: str
    """Without secrets; empty if nothing is to be said of it."""
    ended: Ended
    oom_kills: int
    """Processes that the kernel has killed in its control group for want of memory."""
    peak_memory_megabytes: float | None
    energy_joules: float | None
    gpus: Mapping[int, GpuUse]

    @property
    def run_status(self) -> str:
        """MLflow's word for it."""
        number = self.ended.signal_number
        if number is None:
            return "FINISHED" if self.ended.exit_code == 0 else "FAILED"
        return "FAILED" if signal_name(number) in _FAULTS else "KILLED"

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        number = self.ended.signal_number
        if number is not None and signal_name(number) == "SIGKILL" and self.oom_kills:
            return "out of memory: the kernel killed it"
        text = f"exit {self.ended.exit_code}"
        if number is not None:
            text = f"killed by {signal_name(number)}"
        if self.oom_kills:
            text += f"; out of memory: the kernel killed {self.oom_kills} in its control group"
        return text

    def tags(self, prefix: str) -> dict[str, str]:
        """The tags of the run; the prefix is that of its system metrics."""
        tags = {
            f"{prefix}exit": self.ending,
            f"{prefix}exit_code": str(self.ended.status),
        }
        return {**command_tags(self.command_line, prefix), **tags}

    def metrics(self, prefix: str) -> dict[str, float]:
        """The metrics of the run, one value each; what is not known is absent."""
        values = {
            "run_wall_seconds": self.ended.wall_seconds,
            "run_cpu_seconds": self.ended.cpu_seconds,
            "run_peak_memory_megabytes": self.peak_memory_megabytes,
            "run_energy_joules": self.energy_joules,
        }
        return {prefix + key: round(value, 3) for key, value in values.items() if value is not None}

    def rows(self) -> list[tuple[str, str]]:
        """What people are told: a heading and a text each."""
        ended = self.ended
        rows = [("ended", self.ending), ("wall time", _duration(ended.wall_seconds))]
        if ended.cpu_seconds is not None:
            text = _duration(ended.cpu_seconds)
            if ended.wall_seconds > 0:
                text += f" ({ended.cpu_seconds / ended.wall_seconds:.2f} cores)"
            rows.append(("CPU time", text))
        if self.peak_memory_megabytes is not None:
            rows.append(("peak memory", _megabytes(self.peak_memory_megabytes)))
        for index, use in self.gpus.items():
            parts = []
            if use.utilization is not None:
                parts.append(f"{use.utilization:.0f} % busy")
            if use.peak_megabytes is not None:
                parts.append(f"at most {_megabytes(use.peak_megabytes)}")
            rows.append((f"GPU {index}", ", ".join(parts)))
        if self.energy_joules is not None:
            rows.append(("energy", f"{self.energy_joules:,.0f} J"))
        return rows


def command_tags(command_line: str, prefix: str) -> dict[str, str]:
    """The tag that names the command, if it is to be named."""
    if not command_line:
        return {}
    if len(command_line) > _LONGEST_TAG:
        command_line = f"{command_line[:_LONGEST_TAG]}…"
    return {f"{prefix}command": command_line}


def largest(*values: float | None) -> float | None:
    """The largest that is known."""
    return max((value for value in values if value is not None), default=None)


def signal_name(number: int) -> str:
    """``SIGKILL``, or ``signal 40`` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _duration(seconds: float) -> str:
    if seconds < 60:  # noqa: PLR2004  # a minute
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min {rest:02} s" if hours else f"{minutes} min {rest:02} s"


def _megabytes(value: float) -> str:
    return f"{value / 1000:,.2f} GB" if value >= 1000 else f"{value:.1f} MB"  # noqa: PLR2004  # a GB

"""Where windows come from: the native core, or psutil where that is not built."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sysmetrics_native.gpus import Choice, Gpu
from sysmetrics_native.window import SeriesInfo, Window

if TYPE_CHECKING:
    from sysmetrics_native.recording_file import Recorded, RowLayout

_SIGNAL_CHECK_SECONDS = 0.5


class SamplingOptions(NamedTuple):
    """What a backend is built from; validated by `settings`."""

    interval: float
    samples_per_window: int
    sources: tuple[str, ...]
    """Names as the user gave them, groups and drops included."""
    disk_paths: tuple[str, ...]
    network_interfaces: tuple[str, ...]
    """For the rates: ``physical`` or ``all`` alone, or names."""
    procfs_path: str
    sysfs_path: str
    spelling: Mapping[str, str]
    """What users set an option with: its own name, or an environment variable; for messages."""
    gpus: Choice
    """Which GPUs are to be read."""
    overhead_budget: float
    """The share of one core that the sources may take."""
    pid: int
    """Whose processes and container are meant; 0: this process."""
    process_children: bool
    """Whether the source ``process`` counts its descendants, too."""


class Backend(Protocol):
    """One sampling thread and the windows it has closed.

    In a process forked from the one that made it every method returns at once and does nothing.
    """

    name: str
    schema: tuple[SeriesInfo, ...]
    gpus: tuple[Gpu, ...]
    """Those that are read, by their indices; see `gpus.Selection`."""

    def __init__(self, options: SamplingOptions) -> None:
        """Opens the sources; raises `ValueError` for what this machine or backend cannot do."""

    @property
    def layout(self) -> RowLayout:
        """What a row of this backend holds."""

    def record(self, file: int, data_offset: int, capacity: int) -> None:
        """Makes the thread, before it starts, append every row to a file, in a ring of records.

        From then on the backend owns the descriptor. An `OSError` where that cannot be done.
        """

    def recorded(self) -> Recorded:
        """How that goes."""

    def start(self) -> None:
        """Takes the first reading and starts the thread."""

    def stop(self, timeout: float) -> bool:
        """Takes a last reading, closes the open window, ends the thread; False if it hangs."""

    def next_window(self, timeout: float | None, *, percentiles: bool) -> Window | None:
        """The oldest window not yet taken; `None` after the timeout (seconds) or after stop."""

    def stats(self) -> dict[str, Any]:
        """See `Sampler.stats`."""


def overhead_stats(budget: float, share: float | None) -> Mapping[str, float | None]:
    """The entry `overhead` in `Sampler.stats`."""
    return {"budget": budget, "share": share}


def describe_slowed(
    sources: Mapping[str, Mapping[str, int | float]], budget: float, budget_name: str
) -> str:
    """What is said once, when sources were slowed down for the budget; "" if none is.

    Args:
        sources: their entries in `Sampler.stats`.
        budget: of them all, as a share of one core.
        budget_name: what users set it with.
    """
    paces = [
        f"{name} every {stats['interval_seconds']:.3g} s instead of "
        f"{stats['usual_interval_seconds']:.3g} s"
        for name, stats in sources.items()
        if stats["interval_seconds"] > stats["usual_interval_seconds"]
    ]
    if not paces:
        return ""
    return (
        f"Some sources are read less often, so that sampling takes at most {budget:.0%} of a core "
        f"({budget_name}={budget:g}): {', '.join(paces)}"
    )


def is_native_built() -> bool:
    """Whether this installation has the C extension and it can be loaded here."""
    try:
        importlib.import_module("sysmetrics_native._native")
    except ImportError:
        return False
    return True


def choose_backend(name: str, option_name: str = "backend") -> type[Backend]:
    """The backend class that `auto`, `native` or `psutil` means here.

    Args:
        name: one of these.
        option_name: what users set it with, for the message.

    Raises:
        ValueError: native was asked for, and this installation has no C extension.
    """
    if name == "auto":
        name = "native" if is_native_built() else "psutil"
    if name == "native":
        if not is_native_built():
            raise ValueError(
                f"{option_name} must be psutil or auto here, got 'native': this installation has "
                f"no C extension for {sys.platform}"
            )
        from sysmetrics_native.backends.native import NativeBackend

        return NativeBackend
    from sysmetrics_native.backends.psutil import PsutilBackend

    return PsutilBackend


def next_wait(deadline: float | None) -> float | None:
    """Seconds that a waiting reader may block at a stretch.

    Signal handlers are Python code that only the main thread runs, and only between two calls: a
    signal that comes just before a wait begins does not interrupt it, and on Windows none does. So
    the main thread waits in slices.

    Args:
        deadline: of `time.monotonic`; `None` for none.
    """
    left = None if deadline is None else min(deadline - time.monotonic(), threading.TIMEOUT_MAX)
    if threading.current_thread() is threading.main_thread():
        return _SIGNAL_CHECK_SECONDS if left is None else min(left, _SIGNAL_CHECK_SECONDS)
    return left


def source_stats(
    calls: int,
    errors: int,
    interval: float,
    usual_interval: float,
    total_cost: float,
    max_cost: float,
) -> Mapping[str, int | float]:
    """The entry of one source in `Sampler.stats`."""
    return {
        "calls": calls,
        "errors": errors,
        "interval_seconds": interval,
        "usual_interval_seconds": usual_interval,
        "mean_cost_seconds": total_cost / calls if calls else 0.0,
        "max_cost_seconds": max_cost,
    }

"""What a GPU driver is to the psutil backend: a way to list devices, and calls that read them.

Everything a driver does happens on a thread of its own (`gpu_reader`), because any of it may take
seconds. A driver says what it read or why not, and no more: which call is due, what is tried again
and what is said about it is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from sysmetrics_native.gpus import Gpu, LibraryAttempt

FAST_SECONDS = 0.1
"""Between two calls for utilization, memory or power: the driver has nothing newer."""
SLOW_SECONDS = 1.0
"""Between two calls for anything else."""


class UnsupportedError(Exception):
    """Not on this device or with this library: never ask again."""


class ForbiddenError(Exception):
    """Not for this user: never ask again."""


class LostError(Exception):
    """The device is lost, or must be reset."""


class ShutDownError(Exception):
    """The library was shut down by somebody else in this process."""


class MissedError(Exception):
    """Not this time."""


class Call(NamedTuple):
    """One call of a driver, for one device."""

    function: str
    """Of the driver library, as its manual calls it: for messages."""
    source: str
    """The source that it is made for; a counter of energy is for ``gpu_detail`` as well."""
    interval: float
    """Seconds; `FAST_SECONDS` or `SLOW_SECONDS`."""
    quantities: tuple[str, ...]
    """What it reads: names in `gpu_device.LIMITS`, of MIG devices with ``mig_<index>_`` before."""
    read: Callable[[], Mapping[str, float]]
    """Reads them, in the units there; raises the errors above. What is missing is not there now."""


class Driver(Protocol):
    """One driver library, by way of its Python binding."""

    vendor: str
    """``NVIDIA`` or ``AMD``."""
    name: str
    """The binding and the file that it loads: for messages."""
    is_noisy: bool
    """Whether the binding writes to the log by itself whenever a call fails."""

    def open(self) -> tuple[LibraryAttempt, int]:
        """Loads and initialises the library: what became of that, and how many devices there are.

        Raises nothing; where there is no device the attempt says why.
        """

    def identify(self, index: int) -> Gpu:
        """Who a device is. `LostError` and `ForbiddenError` where nobody can tell."""

    def calls(self, gpu: Gpu) -> Sequence[Call]:
        """All that can be read of a device. Of several that tell the power the first counts."""

    def recover(self, index: int) -> None:
        """Looks a lost device up anew, after a library that was shut down is initialised again.

        Raises what `identify` does, and `LostError` where another device has its place by now.
        """

    def close(self) -> None:
        """Lets go of the library. Raises nothing."""

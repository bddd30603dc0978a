"""Finds GPUs for the psutil backend, by way of Python bindings of driver libraries.

What may take seconds happens on a thread of its own, as does all reading (`gpu_reader`).
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from sysmetrics_native import gpus
from sysmetrics_native.backends.gpu_device import Device
from sysmetrics_native.backends.gpu_driver import Driver, ForbiddenError, UnsupportedError
from sysmetrics_native.backends.gpu_reader import THREAD_NAME, GpuReader
from sysmetrics_native.backends.pynvml_driver import NvmlDriver
from sysmetrics_native.backends.pyrsmi_driver import RocmDriver
from sysmetrics_native.gpus import Choice, Gpu, Inventory, LibraryAttempt
from sysmetrics_native.threads import Thread

_logger = logging.getLogger("sysmetrics_native")

SOURCES: Mapping[str, bool] = {"gpu": True, "gpu_detail": False}
"""What can be read of GPUs, and whether it is part of `default`."""

OPEN_PATIENCE_SECONDS = 10.0
"""How long driver libraries may take before there are no GPUs."""


# ---- which there are ----------------------------------------------------------------------------


class _Binding(NamedTuple):
    module: str
    package: str
    driver: Callable[[Any], Driver]


_BINDINGS = (
    _Binding("pynvml", "nvidia-ml-py", NvmlDriver),
    _Binding("pyrsmi.rocml", "pyrsmi", RocmDriver),
)


def _load_bindings() -> list[Driver | LibraryAttempt]:
    """A driver for each binding that is installed, imported here: our threads import nothing."""
    drivers: list[Driver | LibraryAttempt] = []
    with contextlib.suppress(Exception):  # pyrsmi would import it later, if it is there
        importlib.import_module("amdsmi")
    for module, package, driver in _BINDINGS:
        try:
            drivers.append(driver(importlib.import_module(module)))
        except Exception as error:  # noqa: BLE001, PERF203  # a broken one is as good as none
            outcome = f"not installed (pip install {package})"
            if not isinstance(error, ModuleNotFoundError):
                outcome = f"cannot be imported: {error}"
            drivers.append(LibraryAttempt(module.partition(".")[0], outcome))
    return drivers


class _Search:
    """Looks for GPUs with one driver after the other; the first that has some is used."""

    def __init__(self, drivers: Sequence[Driver | LibraryAttempt]) -> None:
        self._drivers = drivers
        self.driver: Driver | None = None
        self.attempts: list[LibraryAttempt] = []
        self.at_work = "the driver libraries"
        self.is_given_up = False
        self.lost: dict[int, Exception] = {}
        """Devices that cannot tell who they are now, and why."""
        self.left_out: dict[int, Exception] = {}

    def run(self) -> Inventory:
        """On a thread of its own: how long it takes is for the drivers to decide."""
        for driver in self._drivers:
            if isinstance(driver, LibraryAttempt):
                self.attempts.append(driver)
                continue
            self.at_work = driver.name
            attempt, count = driver.open()
            found = tuple(self._identify(driver, count))
            if count > 0 and not found:
                attempt = attempt._replace(outcome=f"{attempt.outcome}, but access to none")
            self.attempts.append(attempt)
            if found:
                self.driver = driver
                return Inventory(driver.vendor, tuple(self.attempts), found)
            driver.close()
        return Inventory(attempts=tuple(self.attempts))

    def _identify(self, driver: Driver, count: int) -> Iterator[Gpu]:
        for index in range(count):
            gpu = self._identify_one(driver, index)
            if gpu is not None:
                yield gpu

    def _identify_one(self, driver: Driver, index: int) -> Gpu | None:
        try:
            return driver.identify(index)
        except (ForbiddenError, UnsupportedError) as error:
            self.left_out[index] = error
            return None
        except Exception as error:  # noqa: BLE001  # whatever a binding raises
            self.lost[index] = error
            return Gpu(index, "", "", "", None)

    def devices(
        self, chosen: Sequence[Gpu], sources: Sequence[str], interval: float
    ) -> list[Device]:
        """Those that are chosen, after each was asked what it has. On the same thread."""
        if self.driver is None:
            return []
        said: set[str] = set()
        devices = [Device(gpu, self.driver, sources, interval, said) for gpu in chosen]
        for device in devices:
            if device.gpu.index in self.lost:
                device.lose("", self.lost[device.gpu.index])
            device.probe()
        if not any(spec for device in devices for spec in device.specs()):
            devices = []
        if self.is_given_up or not devices:
            self.driver.close()
        return devices

    def say(self, inventory: Inventory) -> None:
        """What was found, in the log."""
        _logger.info("%s", gpus.describe_inventory(inventory))
        for index, error in self.left_out.items():
            _logger.warning(
                "GPU %d: the driver gives no access to it, so it is left out: %s", index, error
            )

    def unfinished(self, why: str) -> Inventory:
        """What is known when nobody waits any longer."""
        return Inventory(attempts=(*self.attempts, LibraryAttempt(self.at_work, why)))


def gpu_inventory() -> Inventory:
    """The GPUs that the Python bindings find, and what was looked for.

    Takes as long as the driver libraries need, at most `OPEN_PATIENCE_SECONDS`.
    """
    search = _Search(_load_bindings())

    def look() -> Inventory:
        inventory = search.run()
        if search.driver is not None:
            search.driver.close()
        return inventory

    inventory, why_not = _on_a_thread(look)
    return search.unfinished(why_not) if inventory is None else inventory


def _on_a_thread(work: Callable[[], Any]) -> tuple[Any, str]:
    """What the work returns, or raises; `None` and why when it takes too long."""
    outcome: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put((work(), None))
        except Exception as error:  # noqa: BLE001  # raised below, where somebody waits for it
            outcome.put((None, error))

    try:
        Thread(THREAD_NAME, run).start()
    except RuntimeError as reason:
        return None, str(reason)
    try:
        result, error = outcome.get(timeout=OPEN_PATIENCE_SECONDS)
    except Empty:
        return None, f"it did not answer within {OPEN_PATIENCE_SECONDS:g} s"
    if error is not None:
        raise error
    return result, ""


# ---- which of them are read ---------------------------------------------------------------------


def open_gpus(
    sources: Sequence[str], choice: Choice, option_name: str, interval: float
) -> GpuReader | None:
    """Find the GPUs that are chosen and what they have; says in the log why there are none.

    Args:
        sources: names in `SOURCES`.
        choice: the option `gpus`.
        option_name: what users set it with, for messages.
        interval: seconds between two ticks of the sampling thread.

    Raises:
        ValueError: a GPU that is chosen is not there.
    """
    if choice == gpus.NONE:
        return None
    search = _Search(_load_bindings())
    environ = dict(os.environ)

    def look() -> list[Device]:
        inventory = search.run()
        if not search.is_given_up:
            search.say(inventory)
        try:
            selection = gpus.select(choice, inventory, environ, option_name)
        except ValueError:
            search.devices((), sources, interval)
            raise
        if selection.remark and not search.is_given_up:
            _logger.warning("%s.", selection.remark)
        return search.devices(selection.gpus, sources, interval)

    devices, why_not = _on_a_thread(look)
    if devices is None:
        search.is_given_up = True
        _logger.warning("%s", gpus.describe_inventory(search.unfinished(why_not)))
        return None
    if search.driver is None or not devices:
        return None
    return GpuReader(search.driver, devices, interval)

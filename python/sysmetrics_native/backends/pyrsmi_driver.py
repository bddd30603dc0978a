"""AMD's GPUs by way of `pyrsmi`.

Releases from 1.1 on load ``libamd_smi.so``, older ones ``librocm_smi64.so``; the functions have the
same names. They answer -1, or an empty text, where something is wrong, and say no more about it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sysmetrics_native.backends.gpu_driver import FAST_SECONDS, Call, MissedError
from sysmetrics_native.gpus import Gpu, LibraryAttempt


class RocmDriver:
    """See `gpu_driver.Driver`.

    Args:
        module: the imported `pyrsmi.rocml`.
    """

    vendor = "AMD"
    is_noisy = True

    def __init__(self, module: Any) -> None:
        self._rocml = module
        self.name = f"pyrsmi, {getattr(module, 'LIBROCM_NAME', 'libamd_smi.so')}"
        self._is_open = False

    def open(self) -> tuple[LibraryAttempt, int]:
        try:
            self._rocml.smi_initialize()
            self._is_open = True
            count = int(self._rocml.smi_get_device_count())
        except Exception as error:  # noqa: BLE001  # whatever it is, there are no GPUs then
            return LibraryAttempt(self.name, str(error) or type(error).__name__), 0
        outcome = f"{count} device{'' if count == 1 else 's'}"
        version = self._driver_version()
        return LibraryAttempt(self.name, outcome, driver_version=version), count

    def _driver_version(self) -> str:
        with contextlib.suppress(Exception):  # 1.1 asks its new library for a function of the old
            return str(self._rocml.smi_get_kernel_version())
        return ""

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(Exception):
                self._rocml.smi_shutdown()

    # ---- who they are ---------------------------------------------------------------------------

    def identify(self, index: int) -> Gpu:
        memory = self._number(self._rocml.smi_get_device_memory_total, index)
        return Gpu(
            index,
            self._text("smi_get_device_uuid", index),
            self._pci_id(index),
            self._text("smi_get_device_name", index),
            memory if memory and memory > 0 else None,
        )

    def _text(self, function: str, index: int) -> str:
        with contextlib.suppress(Exception):  # older releases lack some
            value = getattr(self._rocml, function)(index)
            return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        return ""

    def _pci_id(self, index: int) -> str:
        value = self._number(getattr(self._rocml, "smi_get_device_pci_id", None), index)
        if value is None or value < 0:
            return ""
        place = int(value)
        # amd_smi's own union has the domain right before the bus; everybody else in bits 32 to 63.
        is_amd_smi = getattr(self._rocml, "LIBROCM_NAME", "").startswith("libamd_smi")
        is_union = is_amd_smi and not getattr(self._rocml, "_using_amdsmi_package", False)
        domain = place >> 16 if is_union else place >> 32
        return f"{domain:04x}:{place >> 8 & 0xFF:02x}:{place >> 3 & 0x1F:02x}.{place & 0x7:x}"

    def recover(self, index: int) -> None:
        """It has no word for a device that is lost."""

    # ---- what they read -------------------------------------------------------------------------

    def calls(self, gpu: Gpu) -> Sequence[Call]:
        return [
            self._call("smi_get_device_utilization", gpu.index, "utilization"),
            self._memory_call(gpu.index),
            # Partitions of one card share its sensor, and all but the first answer -1.
            self._call("smi_get_device_average_power", gpu.index, "power"),
        ]

    def _call(self, function: str, index: int, quantity: str) -> Call:
        def read() -> Mapping[str, float]:
            return {quantity: self._present(getattr(self._rocml, function), index)}

        return Call(function, "gpu", FAST_SECONDS, (quantity,), read)

    def _memory_call(self, index: int) -> Call:
        present = partial(self._present, index=index)

        def read() -> Mapping[str, float]:
            return {
                "memory_used": present(self._rocml.smi_get_device_memory_used),
                "memory_total": present(self._rocml.smi_get_device_memory_total),
            }

        name = "smi_get_device_memory_used"
        return Call(name, "gpu", FAST_SECONDS, ("memory_used", "memory_total"), read)

    def _present(self, function: Callable[[int], Any], index: int) -> float:
        value = self._number(function, index)
        if value is None or value < 0:
            raise MissedError("no value")
        return value

    @staticmethod
    def _number(function: Callable[[int], Any] | None, index: int) -> float | None:
        """What a function answers; `None` where it fails."""
        with contextlib.suppress(Exception):  # it may be missing, or raise whatever it likes
            return float(function(index))  # type: ignore[misc]  # None is among what is suppressed
        return None

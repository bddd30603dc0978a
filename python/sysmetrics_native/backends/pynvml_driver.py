"""NVIDIA's GPUs by way of `pynvml`, which is the package nvidia-ml-py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from sysmetrics_native.backends.gpu_driver import (
    FAST_SECONDS,
    SLOW_SECONDS,
    Call,
    ForbiddenError,
    LostError,
    MissedError,
    UnsupportedError,
)
from sysmetrics_native.gpus import Gpu, GpuInstance, LibraryAttempt

LIBRARY = "pynvml (NVML)"

_UNINITIALIZED = 1
_ERRORS: Mapping[int, type[Exception]] = {
    3: UnsupportedError,  # NOT_SUPPORTED
    4: ForbiddenError,  # NO_PERMISSION
    13: UnsupportedError,  # FUNCTION_NOT_FOUND: an older library
    15: LostError,  # GPU_IS_LOST
    16: LostError,  # RESET_REQUIRED
    25: UnsupportedError,  # ARGUMENT_VERSION_MISMATCH: the same
    26: UnsupportedError,  # DEPRECATED
    28: LostError,  # GPU_NOT_FOUND
}
"""What NVML's error codes mean to us; all others: not this time."""

_THROTTLES = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""Software power cap, hardware slowdown, thermal slowdown by software and by hardware, power
brake: reasons that slow a GPU which has work to do."""

_TEMPERATURE_GPU = 0
_CLOCK_SM, _CLOCK_MEMORY = 1, 2
_CORRECTED, _UNCORRECTED = 0, 1
_VOLATILE = 0


class NvmlDriver:
    """See `gpu_driver.Driver`.

    Args:
        module: the imported `pynvml`.
    """

    vendor = "NVIDIA"
    is_noisy = False

    def __init__(self, module: Any) -> None:
        self._nvml = module
        self._is_open = False
        self._handles: dict[int, Any] = {}
        self._instances: dict[tuple[int, int], Any] = {}

    def open(self) -> tuple[LibraryAttempt, int]:
        versions = ("", "")
        try:
            self._nvml.nvmlInit()
            self._is_open = True
            versions = (
                self._text(self._nvml.nvmlSystemGetNVMLVersion),
                self._text(self._nvml.nvmlSystemGetDriverVersion),
            )
            count = int(self._nvml.nvmlDeviceGetCount())
        except Exception as error:  # noqa: BLE001  # whatever it is, there are no GPUs then
            return LibraryAttempt(LIBRARY, str(error), *versions), 0
        outcome = f"{count} device{'' if count == 1 else 's'}" if count else "no device"
        return LibraryAttempt(LIBRARY, outcome, *versions), count

    def close(self) -> None:
        if self._is_open:  # once for each time that it was initialised: others count, too
            self._is_open = False
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    # ---- who they are ---------------------------------------------------------------------------

    def identify(self, index: int) -> Gpu:
        self.recover(index)
        handle = self._handles[index]
        nvml = self._nvml
        memory_bytes = None
        with contextlib.suppress(nvml.NVMLError):
            memory_bytes = float(nvml.nvmlDeviceGetMemoryInfo(handle).total)
        return Gpu(
            index,
            self._text(nvml.nvmlDeviceGetUUID, handle),
            self._text(lambda: nvml.nvmlDeviceGetPciInfo(handle).busId),
            self._text(nvml.nvmlDeviceGetName, handle),
            memory_bytes,
            tuple(
                GpuInstance(part, self._text(nvml.nvmlDeviceGetUUID, handle))
                for (of, part), handle in self._instances.items()
                if of == index
            ),
        )

    def recover(self, index: int) -> None:
        with self._translated():
            self._handles[index] = self._nvml.nvmlDeviceGetHandleByIndex(index)
        for part in range(self._most_instances(self._handles[index])):
            with contextlib.suppress(self._nvml.NVMLError):  # not every index need be in use
                self._instances[index, part] = self._nvml.nvmlDeviceGetMigDeviceHandleByIndex(
                    self._handles[index], part
                )

    def _most_instances(self, handle: Any) -> int:
        """How far the indices of MIG devices go; 0 where MIG is off or unknown."""
        try:
            current, _ = self._nvml.nvmlDeviceGetMigMode(handle)
            return int(self._nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) if current else 0
        except self._nvml.NVMLError:
            return 0

    def _text(self, function: Any, *arguments: Any) -> str:
        """What a function says; empty where it does not."""
        try:
            value = function(*arguments)
        except (self._nvml.NVMLError, UnicodeDecodeError):
            return ""
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    # ---- what they read -------------------------------------------------------------------------

    def calls(self, gpu: Gpu) -> Sequence[Call]:
        device = partial(self._read, gpu.index)
        fast = [
            ("nvmlDeviceGetUtilizationRates", ("utilization",), self._utilization),
            ("nvmlDeviceGetMemoryInfo", ("memory_used", "memory_total"), self._memory),
            ("nvmlDeviceGetEnforcedPowerLimit", ("power_limit",), self._power_limit),
            ("nvmlDeviceGetTotalEnergyConsumption", ("energy",), self._energy),
            ("nvmlDeviceGetPowerUsage", ("power",), self._power),
        ]
        slow = [
            ("nvmlDeviceGetTemperature", ("temperature",), self._temperature),
            ("nvmlDeviceGetTotalEnergyConsumption", ("energy_total",), self._energy_total),
            ("nvmlDeviceGetClockInfo", ("sm_clock",), self._sm_clock),
            ("nvmlDeviceGetClockInfo", ("memory_clock",), self._memory_clock),
            ("nvmlDeviceGetCurrentClocksThrottleReasons", ("throttled",), self._throttled),
            ("nvmlDeviceGetTotalEccErrors", ("ecc_errors",), self._ecc_errors),
        ]
        return [
            *(
                Call(name, "gpu", FAST_SECONDS, of, partial(device, read))
                for name, of, read in fast
            ),
            *(self._instance_call(gpu.index, instance.index) for instance in gpu.instances),
            *(
                Call(name, "gpu_detail", SLOW_SECONDS, of, partial(device, read))
                for name, of, read in slow
            ),
        ]

    def _instance_call(self, index: int, part: int) -> Call:
        used, total = f"mig_{part}_memory_used", f"mig_{part}_memory_total"

        def read() -> Mapping[str, float]:
            with self._translated():
                memory = self._nvml.nvmlDeviceGetMemoryInfo(self._instances[index, part])
            return {used: float(memory.used), total: float(memory.total)}

        return Call("nvmlDeviceGetMemoryInfo", "gpu", FAST_SECONDS, (used, total), read)

    def _read(self, index: int, read: Any) -> Mapping[str, float]:
        with self._translated():
            readings: Mapping[str, float] = read(self._handles[index])
        return readings

    def _utilization(self, handle: Any) -> Mapping[str, float]:
        return {"utilization": float(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu)}

    def _memory(self, handle: Any) -> Mapping[str, float]:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        return {"memory_used": float(memory.used), "memory_total": float(memory.total)}

    def _power_limit(self, handle: Any) -> Mapping[str, float]:
        return {"power_limit": self._nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000}

    def _energy(self, handle: Any) -> Mapping[str, float]:
        return {"energy": self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000}

    def _energy_total(self, handle: Any) -> Mapping[str, float]:
        return {"energy_total": self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000}

    def _power(self, handle: Any) -> Mapping[str, float]:
        return {"power": self._nvml.nvmlDeviceGetPowerUsage(handle) / 1000}

    def _temperature(self, handle: Any) -> Mapping[str, float]:
        return {"temperature": float(self._nvml.nvmlDeviceGetTemperature(handle, _TEMPERATURE_GPU))}

    def _sm_clock(self, handle: Any) -> Mapping[str, float]:
        return {"sm_clock": float(self._nvml.nvmlDeviceGetClockInfo(handle, _CLOCK_SM))}

    def _memory_clock(self, handle: Any) -> Mapping[str, float]:
        return {"memory_clock": float(self._nvml.nvmlDeviceGetClockInfo(handle, _CLOCK_MEMORY))}

    def _throttled(self, handle: Any) -> Mapping[str, float]:
        reasons = self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        return {"throttled": 1.0 if reasons & _THROTTLES else 0.0}

    def _ecc_errors(self, handle: Any) -> Mapping[str, float]:
        counts = (
            self._nvml.nvmlDeviceGetTotalEccErrors(handle, kind, _VOLATILE)
            for kind in (_CORRECTED, _UNCORRECTED)
        )
        return {"ecc_errors": float(sum(counts))}

    # ---- what went wrong ------------------------------------------------------------------------

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._nvml.NVMLError as error:
            if error.value == _UNINITIALIZED:
                self._initialize_again()
            raise _ERRORS.get(error.value, MissedError)(str(error)) from None

    def _initialize_again(self) -> None:
        """Somebody else in this process has shut the library down once too often."""
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlInit()
            for index in list(self._handles):
                self._handles[index] = self._nvml.nvmlDeviceGetHandleByIndex(index)
            for index, part in list(self._instances):
                self._instances[index, part] = self._nvml.nvmlDeviceGetMigDeviceHandleByIndex(
                    self._handles[index], part
                )

"""NVIDIA's GPUs by way of `pynvml`, which is the package nvidia-ml-py."""

from __future__ import annotations

import contextlib
import sys
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
    ShutDownError,
    UnsupportedError,
)
from sysmetrics_native.gpus import Gpu, GpuInstance, LibraryAttempt

_UNINITIALIZED = 1
_ERRORS: Mapping[int, type[Exception]] = {
    _UNINITIALIZED: ShutDownError,
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
brake: reasons that slow a GPU which has work to do. Idleness and clocks that somebody has set are
reasons, too, but no throttling."""
_REASON_FUNCTIONS = (
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",  # its name until driver 535
)

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
    name = f"pynvml, {'nvml.dll' if sys.platform == 'win32' else 'libnvidia-ml.so.1'}"
    is_noisy = False

    def __init__(self, module: Any) -> None:
        self._nvml = module
        self._is_open = False
        self._handles: dict[int, Any] = {}
        self._uuids: dict[int, str] = {}
        self._instances: dict[tuple[int, int], Any] = {}

    def open(self) -> tuple[LibraryAttempt, int]:
        versions = ("", "")
        asked = "nvmlInit"
        try:
            self._nvml.nvmlInit()
            self._is_open = True
            versions = (
                self._text(self._nvml.nvmlSystemGetNVMLVersion),
                self._text(self._nvml.nvmlSystemGetDriverVersion),
            )
            asked = "nvmlDeviceGetCount"
            count = int(self._nvml.nvmlDeviceGetCount())
        except Exception as error:  # noqa: BLE001  # whatever it is, there are no GPUs then
            code = f" (code {error.value})" if isinstance(error, self._nvml.NVMLError) else ""
            return LibraryAttempt(self.name, f"{asked}: {error}{code}", *versions), 0
        outcome = f"{count} device{'' if count == 1 else 's'}"
        return LibraryAttempt(self.name, outcome, *versions), count

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
            self._uuids[index],
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
            handle = self._handle(index)
        # Another device may have the index by now: it must not continue this one's series.
        uuid = self._text(self._nvml.nvmlDeviceGetUUID, handle)
        if self._uuids.setdefault(index, uuid) != uuid:
            raise LostError("another device has its place")
        self._handles[index] = handle
        self._find_instances(index)

    def _handle(self, index: int) -> Any:
        try:
            return self._nvml.nvmlDeviceGetHandleByIndex(index)
        except self._nvml.NVMLError as error:
            if error.value != _UNINITIALIZED:
                raise
            # Somebody else in this process has shut the library down once too often.
            self._nvml.nvmlInit()
            return self._nvml.nvmlDeviceGetHandleByIndex(index)

    def _find_instances(self, index: int) -> None:
        for key in [key for key in self._instances if key[0] == index]:
            del self._instances[key]
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
        nvml = "nvmlDeviceGet"
        # The limit comes first: what is read after it is compared with it.
        basic = [
            (f"{nvml}UtilizationRates", FAST_SECONDS, ("utilization",), self._utilization),
            (f"{nvml}MemoryInfo", FAST_SECONDS, ("memory_used", "memory_total"), self._memory),
            (f"{nvml}EnforcedPowerLimit", SLOW_SECONDS, ("power_limit",), self._power_limit),
            (f"{nvml}TotalEnergyConsumption", FAST_SECONDS, ("energy",), self._energy),
            (f"{nvml}PowerUsage", FAST_SECONDS, ("power",), self._power),
        ]
        detail = [
            (f"{nvml}Temperature", SLOW_SECONDS, ("temperature",), self._temperature),
            (f"{nvml}ClockInfo", SLOW_SECONDS, ("sm_clock",), self._sm_clock),
            (f"{nvml}ClockInfo of the memory", SLOW_SECONDS, ("memory_clock",), self._memory_clock),
            (_REASON_FUNCTIONS[0], FAST_SECONDS, ("throttled",), self._throttled),
            (f"{nvml}TotalEccErrors", SLOW_SECONDS, ("ecc_errors",), self._ecc_errors),
        ]
        return [
            *(
                Call(name, "gpu", interval, of, partial(device, read))
                for name, interval, of, read in basic
            ),
            *(self._instance_call(gpu.index, instance.index) for instance in gpu.instances),
            *(
                Call(name, "gpu_detail", interval, of, partial(device, read))
                for name, interval, of, read in detail
            ),
        ]

    def _instance_call(self, index: int, part: int) -> Call:
        used, total = f"mig_{part}_memory_used", f"mig_{part}_memory_total"

        def read() -> Mapping[str, float]:
            handle = self._instances.get((index, part))
            if handle is None:  # it was there once
                return {}
            with self._translated():
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
            return {used: float(memory.used), total: float(memory.total)}

        name = "nvmlDeviceGetMemoryInfo of a MIG device"
        return Call(name, "gpu", FAST_SECONDS, (used, total), read)

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
        watts = self._nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000
        return {"power_limit": watts} if watts > 0 else {}

    def _energy(self, handle: Any) -> Mapping[str, float]:
        return {"energy": self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000}

    def _power(self, handle: Any) -> Mapping[str, float]:
        return {"power": self._nvml.nvmlDeviceGetPowerUsage(handle) / 1000}

    def _temperature(self, handle: Any) -> Mapping[str, float]:
        return {"temperature": float(self._nvml.nvmlDeviceGetTemperature(handle, _TEMPERATURE_GPU))}

    def _sm_clock(self, handle: Any) -> Mapping[str, float]:
        return {"sm_clock": float(self._nvml.nvmlDeviceGetClockInfo(handle, _CLOCK_SM))}

    def _memory_clock(self, handle: Any) -> Mapping[str, float]:
        return {"memory_clock": float(self._nvml.nvmlDeviceGetClockInfo(handle, _CLOCK_MEMORY))}

    def _throttled(self, handle: Any) -> Mapping[str, float]:
        for name in _REASON_FUNCTIONS:
            try:
                reasons = getattr(self._nvml, name)(handle)
            except AttributeError:  # an older binding
                continue
            except self._nvml.NVMLError as error:
                if _ERRORS.get(error.value) is not UnsupportedError:
                    raise
                continue
            return {"throttled": 1.0 if reasons & _THROTTLES else 0.0}
        raise UnsupportedError(f"{self.name} lacks {_REASON_FUNCTIONS[0]}")

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
            raise _ERRORS.get(error.value, MissedError)(str(error)) from None

"""The GPUs as the C core finds and reads them: the Python side of csrc/gpu."""

from __future__ import annotations

import logging
import math
import os
import weakref
from collections.abc import Collection, Iterator
from typing import Any

from sysmetrics_native._native import ffi, lib
from sysmetrics_native.gpus import Gpu, GpuInstance, Inventory, LibraryAttempt, Selection

_logger = logging.getLogger("sysmetrics_native")

SOURCES = ("gpu", "gpu_detail", "gpu_profiling")

FIND_PATIENCE_SECONDS = 10.0
"""A driver that has to wake eight GPUs takes seconds; one that takes longer hangs."""

_NS_PER_SECOND = 1_000_000_000
_MOST_PLACES = 64


def _text(array: Any) -> str:
    return str(ffi.string(array).decode(errors="replace"))


class NativeGpus:
    """The devices of this machine and the thread that reads them.

    Args:
        sysfs_path: root of sysfs, for AMD's devices without a library.
        sources: names of the sources that are read; what is not for one of them is not asked for.
    """

    def __init__(self, sysfs_path: str, sources: Collection[str]) -> None:
        out = ffi.new("smn_gpus **")
        code = lib.smn_gpus_open(
            os.fsencode(sysfs_path),
            ",".join(sources).encode(),
            round(FIND_PATIENCE_SECONDS * _NS_PER_SECOND),
            out,
        )
        if code != 0:
            raise OSError(-code, f"cannot start the GPU thread: {os.strerror(-code)}")
        self.handle = ffi.gc(out[0], lib.smn_gpus_close)
        # Also at the interpreter's exit, behind which driver libraries take themselves apart.
        self._halt = weakref.finalize(self, lib.smn_gpus_halt, self.handle)
        self.inventory = Inventory(
            vendor=self._vendor(), attempts=tuple(self._attempts()), gpus=tuple(self._devices())
        )

    def _vendor(self) -> str | None:
        vendor = lib.smn_gpus_vendor(self.handle)
        return None if vendor == ffi.NULL else _text(vendor)

    def _attempts(self) -> Iterator[LibraryAttempt]:
        attempt = ffi.new("smn_gpu_attempt *")
        for place in range(_MOST_PLACES):
            if lib.smn_gpus_attempt(self.handle, place, attempt) != 0:
                return
            yield LibraryAttempt(
                _text(attempt.name),
                _text(attempt.outcome),
                _text(attempt.version),
                _text(attempt.driver_version),
            )

    def _devices(self) -> Iterator[Gpu]:
        info = ffi.new("smn_gpu_info *")
        for place in range(_MOST_PLACES):
            if lib.smn_gpus_device(self.handle, place, info) != 0:
                return
            yield Gpu(
                info.index,
                _text(info.uuid),
                _text(info.pci_id),
                _text(info.name),
                None if math.isnan(info.memory_bytes) else info.memory_bytes,
                tuple(self._instances(place, info.instances)),
            )

    def _instances(self, place: int, count: int) -> Iterator[GpuInstance]:
        uuid = ffi.new("char[]", lib.SMN_GPU_TEXT_BYTES)
        for index in range(count):
            if lib.smn_gpus_instance(self.handle, place, index, uuid) == 0 and _text(uuid):
                yield GpuInstance(index, _text(uuid))

    def keep(self, selection: Selection) -> None:
        """Leave alone what is not selected. For before the sampler is made."""
        chosen = {gpu.index: {one.index for one in gpu.instances} for gpu in selection.gpus}
        for place, gpu in enumerate(self.inventory.gpus):
            if gpu.index not in chosen:
                lib.smn_gpus_drop(self.handle, place, -1)
                continue
            for instance in gpu.instances:
                if instance.index not in chosen[gpu.index]:
                    lib.smn_gpus_drop(self.handle, place, instance.index)

    def log_messages(self) -> None:
        """Log what the GPU thread has to say: a few lines a device, however long it runs."""
        message = ffi.new("char[]", lib.SMN_GPU_MESSAGE_BYTES)
        while lib.smn_gpus_next_message(self.handle, message):
            _logger.warning("%s", _text(message))

    def close(self) -> None:
        """End the thread. For before a sampler needs it."""
        self._halt.detach()
        ffi.release(self.handle)


def gpu_inventory(sysfs_path: str = "/sys") -> Inventory:
    """The GPUs of this machine and how they were found; waits for their drivers."""
    gpus = NativeGpus(sysfs_path, ())
    gpus.close()
    return gpus.inventory

"""`describe`: what this installation is, and what it finds on this machine."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from sysmetrics_native import gpus, settings
from sysmetrics_native.backends import is_native_built
from sysmetrics_native.gpus import Gpu, Inventory, LibraryAttempt


def describe() -> dict[str, Any]:
    """What this installation is, and what it finds on this machine; for people and for reports.

    Looks for GPUs, which takes as long as their driver libraries need to answer, at most 10 s.

    Returns:
        ``{"version", "backend": {"name", "reason"}, "platform": {"system", "machine", "python"},
        "sources": {"known", "default"}, "gpu": {"vendor", "libraries": [{"library", "outcome",
        "library_version", "driver_version"}], "devices": [{"index", "name", "memory_megabytes",
        "uuid", "pci_id", "instances": [{"index", "uuid"}], "is_read"}], "problem"}}``: the backend
        that a sampler would have and why; names of sources; each library that was looked for and
        what became of that; each GPU, and whether the option `gpus` chooses it; and in ``problem``
        why not, where the option names what is not there. What is not known is empty or `None`.

    Raises:
        ValueError: the option `backend`, `gpus` or `sysfs_path` is not allowed.
    """
    # Not above: these two are half of what the import of this package would cost.
    import importlib.metadata
    import platform

    name, reason = chosen_backend()
    known = known_sources(name)
    return {
        "version": importlib.metadata.version("sysmetrics-native"),
        "backend": {"name": name, "reason": reason},
        "platform": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "python": platform.python_version(),
        },
        "sources": {
            "known": list(known),
            "default": [source for source, is_default in known.items() if is_default],
        },
        "gpu": gpu_facts(find_gpus(name)),
    }


# ---- its parts, for those who have only some of them -------------------------------------------


def chosen_backend() -> tuple[str, str]:
    """The backend that a sampler would have, and why.

    Raises:
        ValueError: the option `backend` is not allowed.
    """
    choice: str = settings.option("backend")
    if choice == "psutil":
        return "psutil", f"{settings.spelling('backend')} is psutil"
    if is_native_built():
        return "native", "the C core is there"
    return "psutil", f"the C core is not there: {_why_not_native()}"


def _why_not_native() -> str:
    try:
        importlib.import_module("sysmetrics_native._native")
    except ImportError as error:
        return str(error)
    return ""


def known_sources(backend: str) -> Mapping[str, bool]:
    """Every source of a backend, and whether it is part of `default`."""
    if backend == "native":
        from sysmetrics_native.backends import native

        return native.known_sources()
    from sysmetrics_native.backends import psutil

    return psutil.known_sources()


def find_gpus(backend: str) -> Inventory:
    """The GPUs as a backend finds them; at most 10 s.

    Raises:
        ValueError: the option `sysfs_path` is not allowed.
    """
    if backend == "native":
        from sysmetrics_native.backends import native_gpus

        return native_gpus.gpu_inventory(settings.option("sysfs_path"))
    from sysmetrics_native.backends import python_gpus

    return python_gpus.gpu_inventory()


def gpu_facts(inventory: Inventory) -> dict[str, Any]:
    """The entry ``gpu`` of `describe`.

    Raises:
        ValueError: the option `gpus` is not allowed.
    """
    choice: gpus.Choice = settings.option("gpus")
    problem = None
    try:
        selection = gpus.select(choice, inventory, os.environ, settings.spelling("gpus"))
        problem = selection.remark or None
    except ValueError as error:
        selection, problem = gpus.Selection(), str(error)
    chosen = {gpu.index for gpu in selection.gpus}
    return {
        "vendor": inventory.vendor,
        "libraries": [_library(attempt) for attempt in inventory.attempts],
        "devices": [_device(gpu) | {"is_read": gpu.index in chosen} for gpu in inventory.gpus],
        "problem": problem,
    }


def _library(attempt: LibraryAttempt) -> dict[str, str]:
    return {
        "library": attempt.name,
        "outcome": attempt.outcome,
        "library_version": attempt.version,
        "driver_version": attempt.driver_version,
    }


def _device(gpu: Gpu) -> dict[str, Any]:
    return {
        "index": gpu.index,
        "name": gpu.name,
        "memory_megabytes": None if gpu.memory_bytes is None else round(gpu.memory_bytes / 1e6, 1),
        "uuid": gpu.uuid,
        "pci_id": gpu.pci_id,
        "instances": [instance._asdict() for instance in gpu.instances],
    }

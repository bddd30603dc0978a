"""What a run is told, once, of the machine that it is sampled on."""

from __future__ import annotations

import functools
import json
import os

HOST_TAG = "host"
CLOCK_TAG = "clock_offset_seconds"

_MAX_TAG_LENGTH = 500
"""What the oldest release of MLflow takes."""
_LONGEST_TEXTS = (80, 40, 10)
"""Of one fact: the first with which all of them fit."""
_ENOUGH_BYTES = 4096
_GPU_DRIVERS = ("nvidia", "amdgpu")
"""Modules of the kernel."""


def host_tag(prefix: str, procfs_path: str, sysfs_path: str) -> dict[str, str]:
    """The tag that says which machine the keys of a run belong to.

    Args:
        prefix: what stands before every key of the run.
        procfs_path: root of the kernel's own file system; a container's may be the host's.
        sysfs_path: likewise.

    Returns:
        For ``<prefix>host`` compact JSON with ``cpu`` (the model), ``logical_cores``,
        ``memory_megabytes``, ``gpu_driver`` (version), ``kernel`` (release) and ``os`` (of the
        image that this process runs in), without what is unknown. The GPUs have tags of their own,
        see `gpus.identity_tags`.
    """
    return {f"{prefix}{HOST_TAG}": _encode(_facts(procfs_path, sysfs_path))}


@functools.lru_cache(maxsize=4)
def _facts(procfs_path: str, sysfs_path: str) -> tuple[tuple[str, str | int | float | None], ...]:
    """Asked for once: none of it changes while a process lives."""
    import platform  # not above: `import mlflow` must not pay for it

    return (
        ("cpu", _cpu_model(procfs_path)),
        ("logical_cores", os.cpu_count()),
        ("memory_megabytes", _memory_megabytes(procfs_path)),
        ("gpu_driver", _gpu_driver(sysfs_path)),
        ("kernel", platform.release()),
        ("os", _os_name()),
    )


def _encode(facts: tuple[tuple[str, str | int | float | None], ...]) -> str:
    for longest in _LONGEST_TEXTS:
        known = {
            name: value[:longest].strip() if isinstance(value, str) else value
            for name, value in facts
            if value not in (None, "")
        }
        text = json.dumps(known, separators=(",", ":"))
        if len(text) <= _MAX_TAG_LENGTH:
            return text
    return "{}"


def _cpu_model(procfs_path: str) -> str:
    """``model name`` of the first CPU; some architectures have none, then what Python knows."""
    import platform

    lines = _read(os.path.join(procfs_path, "cpuinfo")).splitlines()
    named = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return next(named, "").strip() or platform.machine()


def _memory_megabytes(procfs_path: str) -> float | None:
    for line in _read(os.path.join(procfs_path, "meminfo")).splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal" and value.split()[:1] and value.split()[0].isdecimal():
            return round(int(value.split()[0]) * 1024 / 1e6, 1)
    try:
        import psutil

        return round(psutil.virtual_memory().total / 1e6, 1)
    except Exception:  # noqa: BLE001  # it is told of, not needed
        return None


def _gpu_driver(sysfs_path: str) -> str:
    paths = (os.path.join(sysfs_path, "module", name, "version") for name in _GPU_DRIVERS)
    return next(filter(None, (_read(path).strip() for path in paths)), "")


def _os_name() -> str:
    import platform

    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return f"{platform.system()} {platform.version()}"


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:  # what is asked for is at the beginning
            return file.read(_ENOUGH_BYTES).decode(errors="replace")
    except OSError:
        return ""

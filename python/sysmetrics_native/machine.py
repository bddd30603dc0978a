"""What a machine is like, as far as sampling is concerned: for `doctor`, and for people.

Everything is optional: what a system lacks, or does not tell this user, is `None` or empty.
"""

from __future__ import annotations

import glob
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import psutil

_LATENESS_TICK_SECONDS = 0.001
_LATENESS_TICKS = 300

_CGROUP_ROOT = "fs/cgroup"
_NO_LIMIT_BYTES = 1 << 62
"""What version 1 says where there is no limit is more than this."""


def _read(*path: str) -> str | None:
    """The file without the white space around it."""
    try:
        with open(os.path.join(*path), encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def is_linux() -> bool:
    """Whether there are /proc and /sys as Linux has them."""
    return sys.platform.startswith("linux")


# ---- the machine itself -------------------------------------------------------------------------


def identity(procfs: str, sysfs: str) -> dict[str, Any]:
    """What it is: kernel, processor, Python, and whether it is a container or a virtual machine.

    Returns:
        ``{"system", "kernel", "machine", "python", "python_path", "cpus", "memory_megabytes",
        "container", "virtual_machine", "batch_system"}``; the last three are lists of hints, in
        words, which are empty on bare metal.
    """
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "python_path": sys.executable,
        "cpus": os.cpu_count(),
        "memory_megabytes": psutil.virtual_memory().total / 1e6,
        "container": list(_container_hints(procfs)),
        "virtual_machine": list(_virtual_machine_hints(procfs, sysfs)),
        "batch_system": list(_batch_hints(os.environ)),
    }


def _container_hints(procfs: str) -> Iterator[str]:
    if not is_linux():
        return
    for path in ("/.dockerenv", "/run/.containerenv"):
        if os.path.exists(path):
            yield path
    named = _read("/run/systemd/container")
    if named:
        yield f"/run/systemd/container: {named}"
    for name in ("KUBERNETES_SERVICE_HOST", "APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        if name in os.environ:
            yield f"{name} is set"
    engines = re.findall(
        r"docker|kubepods|containerd|libpod|lxc", _read(procfs, "self", "cgroup") or ""
    )
    for engine in dict.fromkeys(engines):
        yield f"control group: {engine}"


def _virtual_machine_hints(procfs: str, sysfs: str) -> Iterator[str]:
    if not is_linux():
        return
    if re.search(r"^flags\s*:.*\bhypervisor\b", _read(procfs, "cpuinfo") or "", re.MULTILINE):
        yield "the processor says hypervisor"
    named = [_read(sysfs, "class/dmi/id", name) for name in ("sys_vendor", "product_name")]
    text = " ".join(filter(None, named))
    if re.search(r"QEMU|KVM|VMware|VirtualBox|Xen|Virtual|Google|Amazon|Bochs|Parallels", text):
        yield f"firmware: {text}"
    kind = _read(sysfs, "hypervisor/type")
    if kind:
        yield f"hypervisor: {kind}"
    if "microsoft" in platform.release().lower():
        yield "Windows Subsystem for Linux"


def _batch_hints(environ: Mapping[str, str]) -> Iterator[str]:
    for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID"):
        if name in environ:
            yield f"{name}={environ[name]}"


# ---- what this user may -------------------------------------------------------------------------


def permissions(procfs: str, sysfs: str) -> dict[str, Any]:
    """Who asks, and what of the kernel's files can be read.

    Returns:
        ``{"user", "is_root", "procfs": {"path", "is_readable", "hidepid"}, "sysfs": {"path",
        "is_readable"}, "children_files", "pressure_files", "rapl"}``: the number of the user; for
        the roots whether they are there to be read, and the mount option ``hidepid``; whether the
        kernel has lists of children (without them the source ``process`` walks all of /proc) and
        /proc/pressure; of the energy counters ``readable``, ``forbidden`` or ``absent``. `None`
        where it makes no sense.
    """
    user = os.getuid() if hasattr(os, "getuid") else None
    found: dict[str, Any] = {
        "user": user,
        "is_root": None if user is None else user == 0,
        "procfs": {"path": procfs, "is_readable": None, "hidepid": None},
        "sysfs": {"path": sysfs, "is_readable": None},
        "children_files": None,
        "pressure_files": None,
        "rapl": None,
    }
    if not is_linux():
        return found
    found["procfs"]["is_readable"] = os.access(os.path.join(procfs, "stat"), os.R_OK)
    found["procfs"]["hidepid"] = _hidepid(procfs)
    found["sysfs"]["is_readable"] = os.access(os.path.join(sysfs, "devices"), os.R_OK | os.X_OK)
    found["children_files"] = os.path.exists(os.path.join(procfs, "thread-self", "children"))
    found["pressure_files"] = os.access(os.path.join(procfs, "pressure", "cpu"), os.R_OK)
    found["rapl"] = _rapl(sysfs)
    return found


def _hidepid(procfs: str) -> str | None:
    """The option of the mount; `None` where it has none, so that all processes are seen."""
    for line in (_read(procfs, "self", "mounts") or "").splitlines():
        fields = line.split(" ")
        if len(fields) > 3 and fields[1:3] == [procfs, "proc"]:  # noqa: PLR2004  # its columns
            found = re.search(r"(?:^|,)hidepid=([^,]+)", fields[3])
            return found and found[1]
    return None


def _rapl(sysfs: str) -> str:
    files = glob.glob(os.path.join(glob.escape(sysfs), "class/powercap/*/energy_uj"))
    if not files:
        return "absent"
    return "readable" if any(os.access(file, os.R_OK) for file in files) else "forbidden"


# ---- control groups -----------------------------------------------------------------------------


def control_groups(procfs: str, sysfs: str) -> dict[str, Any]:
    """Which control groups this process is in, and the tightest limits on the way up.

    The source ``container`` reads the same files in C; this is for people.

    Returns:
        ``{"groups": [{"version", "controllers", "path"}], "limits": {"cpu_cores", "cpuset_cpus",
        "memory_megabytes"}}``, each limit ``{"value", "group"}`` or `None` where nothing limits.
    """
    groups = list(_groups(procfs))
    limits = {
        "cpu_cores": _tightest(_limits(groups, sysfs, "cpu", _cpu_quota)),
        "cpuset_cpus": _tightest(_limits(groups, sysfs, "cpuset", _cpuset)),
        "memory_megabytes": _tightest(_limits(groups, sysfs, "memory", _memory_megabytes)),
    }
    cpus = limits["cpuset_cpus"]
    if cpus is not None and cpus["value"] >= (os.cpu_count() or 0):
        limits["cpuset_cpus"] = None
    return {"groups": groups, "limits": limits}


def _groups(procfs: str) -> Iterator[dict[str, Any]]:
    for line in (_read(procfs, "self", "cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        version = 2 if number == "0" and not controllers else 1
        yield {
            "version": version,
            "controllers": [name for name in controllers.split(",") if name],
            "path": path,
        }


def _limits(
    groups: Iterable[Mapping[str, Any]],
    sysfs: str,
    controller: str,
    limit_of: Callable[[str, int], float | None],
) -> Iterator[tuple[float, str]]:
    """The limit of each group from that of this process up to the root, where it has one."""
    groups = list(groups)
    first = [one for one in groups if controller in one["controllers"]]
    for group in first or [one for one in groups if one["version"] == 2]:  # noqa: PLR2004  # of cgroup
        folder = _mount(sysfs, group, controller)
        parts = [part for part in group["path"].split("/") if part not in ("", "..")]
        # A group whose path is another namespace's is not below our mount, which is its own then.
        while folder and parts and not os.path.isdir(os.path.join(folder, *parts)):
            parts.pop(0)
        for length in range(len(parts), -1, -1):
            place = os.path.join(folder, *parts[:length])
            value = limit_of(place, group["version"])
            if value is not None:
                yield value, "/" + "/".join(parts[:length])


def _mount(sysfs: str, group: Mapping[str, Any], controller: str) -> str:
    names = [controller, ",".join(group["controllers"]), "cpu,cpuacct"]
    if group["version"] == 2:  # noqa: PLR2004  # of cgroup
        names = ["", "unified"]
    for name in names:
        folder = os.path.join(sysfs, _CGROUP_ROOT, name)
        if os.path.isdir(folder) and (
            group["version"] == 1 or os.path.exists(os.path.join(folder, "cgroup.controllers"))
        ):
            return folder
    return os.path.join(sysfs, _CGROUP_ROOT, "not mounted")


def _tightest(limits: Iterable[tuple[float, str]]) -> dict[str, Any] | None:
    value, group = min(limits, default=(None, ""))
    return None if value is None else {"value": value, "group": group}


def _cpu_quota(folder: str, version: int) -> float | None:
    """In cores."""
    if version == 1:
        quota = _read(folder, "cpu.cfs_quota_us") or ""
        period = _read(folder, "cpu.cfs_period_us") or ""
    else:
        quota, _, period = (_read(folder, "cpu.max") or "").partition(" ")
    if not (quota.isdecimal() and period.isdecimal()) or int(period) == 0:
        return None  # "-1" and "max" are no limit
    return int(quota) / int(period)


def _cpuset(folder: str, version: int) -> float | None:
    names = ["cpuset.cpus.effective"]
    if version == 1:
        names = ["cpuset.effective_cpus", "cpuset.cpus"]
    text = next(filter(None, (_read(folder, name) for name in names)), "")
    ranges = re.findall(r"(\d+)(?:-(\d+))?", text)
    return float(sum(int(last or first) - int(first) + 1 for first, last in ranges)) or None


def _memory_megabytes(folder: str, version: int) -> float | None:
    text = _read(folder, "memory.limit_in_bytes" if version == 1 else "memory.max") or ""
    if not text.isdecimal() or int(text) >= _NO_LIMIT_BYTES:
        return None
    return int(text) / 1e6


# ---- clocks -------------------------------------------------------------------------------------


def clocks(sysfs: str) -> dict[str, Any]:
    """Which clock the kernel goes by, and how late this process wakes up. Takes 0.3 s.

    Returns:
        ``{"clock_source", "available_clock_sources", "monotonic_resolution_seconds",
        "wakeup_lateness": {"interval_seconds", "wakeups", "p50_seconds", "p99_seconds",
        "max_seconds"}}``; the lateness is that of a Python thread that sleeps to deadlines 1 ms
        apart, as the sampling thread does in C.
    """
    folder = os.path.join(sysfs, "devices/system/clocksource/clocksource0")
    return {
        "clock_source": _read(folder, "current_clocksource"),
        "available_clock_sources": (_read(folder, "available_clocksource") or "").split(),
        "monotonic_resolution_seconds": time.get_clock_info("monotonic").resolution,
        "wakeup_lateness": _wakeup_lateness(),
    }


def _wakeup_lateness() -> dict[str, Any]:
    late = []
    deadline = time.perf_counter()
    for _ in range(_LATENESS_TICKS):
        deadline += _LATENESS_TICK_SECONDS
        time.sleep(max(0.0, deadline - time.perf_counter()))
        now = time.perf_counter()
        late.append(max(0.0, now - deadline))
        deadline = max(deadline, now - _LATENESS_TICK_SECONDS)  # missed ones are not made up for
    late.sort()
    return {
        "interval_seconds": _LATENESS_TICK_SECONDS,
        "wakeups": len(late),
        "p50_seconds": late[len(late) // 2],
        "p99_seconds": late[len(late) * 99 // 100],
        "max_seconds": late[-1],
    }


def wall_clock_offset() -> float:
    """Unix time less monotonic time, in seconds: it changes when the wall clock is set."""
    return time.time() - time.monotonic()

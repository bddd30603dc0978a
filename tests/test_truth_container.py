"""Limits of real control groups, compared with the kernel's own files under real load."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sysmetrics_native import Sampler, Window
from tests.support import DEFAULT_KEYS, default_as_in_mlflow, retry, wait_until

pytestmark = [
    pytest.mark.native,
    pytest.mark.usefixtures("alone"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's control groups"),
]

CPU = "container_cpu_utilization_percentage"
THROTTLED = "container_cpu_throttled_percentage"
MEMORY = "container_memory_usage_megabytes"
MEMORY_SHARE = "container_memory_usage_percentage"
OOM_KILLS = "container_oom_kills"

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000

IDLE = "print(flush=True); input()"
BUSY = "print(flush=True)\nwhile True: pass"
HOLDS_MEMORY = """
import mmap, sys
kept = b"x" * 100_000_000
with open(sys.argv[1], "rb") as file:
    while file.read(1 << 20): pass
print(flush=True)
input()
"""
TAKES_MEMORY = "kept = [b'x' * 1_000_000 for _ in range(500)]"


# ---- groups -------------------------------------------------------------------------------------


class Group(NamedTuple):
    """A control group of this test's own, in each hierarchy that it needs."""

    version: int
    folders: dict[str, Path]
    """By controller."""

    def write(self, controller: str, name: str, text: object) -> None:
        (self.folders[controller] / name).write_text(str(text), encoding="ascii")

    def read(self, controller: str, name: str) -> str:
        return (self.folders[controller] / name).read_text(encoding="ascii")

    def fields(self, controller: str, name: str) -> dict[str, int]:
        lines = self.read(controller, name).splitlines()
        return {key: int(value) for key, value in (line.split() for line in lines)}

    def add(self, pid: int) -> None:
        for controller in self.folders:
            self.write(controller, "cgroup.procs", pid)

    def limit_cpu(self, cores: float) -> None:
        quota = round(cores * PERIOD_US)
        if self.version == 2:
            self.write("cpu", "cpu.max", f"{quota} {PERIOD_US}")
        else:
            self.write("cpu", "cpu.cfs_period_us", PERIOD_US)
            self.write("cpu", "cpu.cfs_quota_us", quota)

    def limit_memory(self, size: int) -> None:
        self.write("memory", "memory.max" if self.version == 2 else "memory.limit_in_bytes", size)
        swap = "memory.swap.max" if self.version == 2 else "memory.memsw.limit_in_bytes"
        with contextlib.suppress(OSError):  # where there is no swap
            self.write("memory", swap, 0 if self.version == 2 else size)

    def cpu_seconds(self) -> float:
        if self.version == 2:
            return self.fields("cpu", "cpu.stat")["usage_usec"] * 1e-6
        return int(self.read("cpuacct", "cpuacct.usage")) * 1e-9

    def periods(self) -> tuple[int, int]:
        """All, and the throttled ones."""
        stat = self.fields("cpu", "cpu.stat")
        return stat["nr_periods"], stat["nr_throttled"]

    def working_set(self) -> int:
        name = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        key = "inactive_file" if self.version == 2 else "total_inactive_file"
        return int(self.read("memory", name)) - self.fields("memory", "memory.stat")[key]

    def oom_kills(self) -> int:
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return self.fields("memory", name)["oom_kill"]


def read_words(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").split()


def mounted(controllers: tuple[str, ...]) -> tuple[int, dict[str, Path]]:
    """Where groups with these controllers can be made; skips the test where they cannot."""
    if (ROOT / "cgroup.controllers").exists():
        missing = (
            set(controllers)
            - {"cpuacct"}
            - set((ROOT / "cgroup.controllers").read_text(encoding="ascii").split())
        )
        if missing:
            pytest.skip(f"control groups have no {', '.join(sorted(missing))} here")
        return 2, dict.fromkeys((c for c in controllers if c != "cpuacct"), ROOT)
    folders = {controller: ROOT / controller for controller in controllers}
    for controller, folder in folders.items():
        if not (folder / "cgroup.procs").exists():
            pytest.skip(f"the controller {controller} is not mounted here")
    return 1, folders


@contextlib.contextmanager
def group_with(*controllers: str) -> Iterator[Group]:
    """A new group below the root of each mount, empty again when it is removed."""
    version, parents = mounted(controllers)
    name = f"sysmetrics-test-{os.getpid()}"
    group = Group(version, {controller: folder / name for controller, folder in parents.items()})
    made: list[Path] = []
    handed_down: list[str] = []
    try:
        try:
            for controller, folder in group.folders.items():
                if version == 2 and controller not in read_words(ROOT / "cgroup.subtree_control"):
                    (ROOT / "cgroup.subtree_control").write_text(f"+{controller}")
                    handed_down.append(controller)
                if folder not in made:
                    folder.mkdir()
                    made.append(folder)
        except OSError as error:
            pytest.skip(f"no control group can be made here: {error}")
        yield group
    finally:
        for folder in made:
            remove(folder)
        for controller in handed_down:
            with contextlib.suppress(OSError):  # others use it by now
                (ROOT / "cgroup.subtree_control").write_text(f"-{controller}")


def remove(folder: Path) -> None:
    """The kernel lets go of processes that have ended a moment later."""

    def is_gone() -> bool:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    wait_until(is_gone, f"{folder} to be empty")


@contextlib.contextmanager
def child(
    program: str, *arguments: str, group: Group | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is in the group before it does anything; it has begun, and ends with us."""
    waits = f"import sys; sys.stdin.readline()\n{program}"
    process = subprocess.Popen(
        [sys.executable, "-c", waits, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        if group is not None:
            group.add(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def sampler_of(process: subprocess.Popen[bytes], **options: object) -> Sampler:
    return Sampler(
        0.02, 1_000_000, backend="native", sysfs_path="/sys", pid=process.pid,
        **{"sources": "container", **options},  # type: ignore[arg-type]
    )  # fmt: skip


def only_window(sampler: Sampler) -> Window:
    (window,) = sampler.windows(timeout=0)
    return window


def mean(window: Window, key: str) -> float:
    value = window[key].mean
    assert value is not None
    return value


def last(window: Window, key: str) -> float:
    value = window[key].last
    assert value is not None
    return value


def assert_keys(window: Window, *keys: str) -> None:
    """These and no others, unless what these tests run in has limits of its own."""
    if default_as_in_mlflow("native") == "default":
        assert list(window) == list(keys)
    else:
        assert set(keys) <= set(window)


def errors_of(sampler: Sampler) -> int:
    return int(sampler.stats()["sources"]["container"]["errors"])


# ---- CPU ----------------------------------------------------------------------------------------


def share(before: tuple[int, int], after: tuple[int, int]) -> float:
    return 100.0 * (after[1] - before[1]) / (after[0] - before[0])


def test_a_busy_process_uses_all_of_its_quota_and_is_throttled():
    def check() -> None:
        with group_with("cpu", "cpuacct") as group:
            group.limit_cpu(0.5)
            with child(BUSY, group=group) as process:
                sampler = sampler_of(process)
                outer = group.cpu_seconds(), group.periods()
                sampler.start()
                inner = group.cpu_seconds(), group.periods()
                time.sleep(2.0)
                inner_after = group.cpu_seconds(), group.periods()
                sampler.stop()
                outer_after = group.cpu_seconds(), group.periods()
        window = only_window(sampler)
        assert_keys(window, CPU, THROTTLED)
        used = mean(window, CPU) / 100.0 * 0.5 * (window.end - window.start)
        # The window's ends are known to some microseconds, if nobody else wants the CPU.
        assert (inner_after[0] - inner[0]) * 0.99 <= used <= (outer_after[0] - outer[0]) * 1.01
        got = 100.0 * (outer_after[0] - outer[0]) / 0.5 / (window.end - window.start)
        assert mean(window, CPU) == pytest.approx(got, abs=12.0)
        assert mean(window, THROTTLED) == pytest.approx(share(outer[1], outer_after[1]), abs=12.0)
        assert mean(window, THROTTLED) == pytest.approx(share(inner[1], inner_after[1]), abs=12.0)
        assert mean(window, THROTTLED) > 80.0 or got < 95.0, "a busy machine gives less than that"
        # A period in which all of it is used is full, and not twice as full as may be.
        busiest = window[CPU].max
        assert busiest is not None
        assert busiest < 170.0
        assert errors_of(sampler) == 0

    retry(5, check)


def test_an_idle_process_uses_nothing_of_its_quota():
    with group_with("cpu", "cpuacct") as group:
        group.limit_cpu(0.5)
        with child(IDLE, group=group) as process, sampler_of(process) as sampler:
            time.sleep(0.5)
    window = only_window(sampler)
    assert mean(window, CPU) < 20.0
    assert errors_of(sampler) == 0


def test_a_limit_that_changes_shows_at_once():
    def check() -> None:
        with group_with("cpu", "cpuacct") as group:
            group.limit_cpu(0.25)
            with child(BUSY, group=group) as process, sampler_of(process) as sampler:
                begin, used = time.monotonic(), group.cpu_seconds()
                time.sleep(1.0)
                group.limit_cpu(0.75)
                change = time.monotonic()
                time.sleep(1.0)
                end, used = time.monotonic(), group.cpu_seconds() - used
        window = only_window(sampler)
        allowed = 0.25 * (change - begin) + 0.75 * (end - change)
        assert mean(window, CPU) == pytest.approx(100.0 * used / allowed, abs=12.0)
        assert errors_of(sampler) == 0

    retry(5, check)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two CPUs")
def test_a_set_of_cpus_is_a_limit():
    def check() -> None:
        with group_with("cpu", "cpuacct", "cpuset") as group:
            allowed = str(min(os.sched_getaffinity(0)))
            group.write("cpuset", "cpuset.cpus", allowed)
            if group.version == 1:
                group.write("cpuset", "cpuset.mems", (ROOT / "cpuset/cpuset.mems").read_text())
            with child(BUSY, group=group) as process, sampler_of(process) as sampler:
                before = group.cpu_seconds()
                time.sleep(1.0)
                used = group.cpu_seconds() - before
        window = only_window(sampler)
        assert_keys(window, CPU)
        length = window.end - window.start
        assert mean(window, CPU) / 100.0 * length == pytest.approx(used, rel=0.1)
        assert 0.0 < mean(window, CPU) < 105.0
        assert errors_of(sampler) == 0

    retry(5, check)


# ---- memory -------------------------------------------------------------------------------------


def test_memory_is_the_working_set(tmp_path):
    read_once = tmp_path / "file"
    read_once.write_bytes(os.urandom(50_000_000))
    with read_once.open("rb") as file:  # so that the group that reads it has its pages
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def check() -> None:
        with group_with("memory") as group:
            group.limit_memory(400_000_000)
            limit = 400_000_000 // os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PAGE_SIZE")
            with (
                child(HOLDS_MEMORY, str(read_once), group=group) as process,
                sampler_of(process) as sampler,
            ):
                time.sleep(0.2)
                known = group.working_set() / 1e6
        window = only_window(sampler)
        assert_keys(window, MEMORY, MEMORY_SHARE, OOM_KILLS)
        assert last(window, MEMORY) >= 100.0
        assert last(window, MEMORY) == pytest.approx(known, abs=5.0)
        megabytes = last(window, MEMORY)
        assert last(window, MEMORY_SHARE) == pytest.approx(100.0 * megabytes / (limit / 1e6))
        assert last(window, OOM_KILLS) == 0.0
        assert errors_of(sampler) == 0

    retry(3, check)


def test_an_oom_kill_counts():
    with group_with("memory") as group:
        group.limit_memory(60_000_000)
        with child(IDLE, group=group) as process:
            with child(TAKES_MEMORY, group=group) as earlier:
                assert earlier.wait() == -9
            before = group.oom_kills()
            assert before >= 1
            with sampler_of(process) as sampler:
                with child(TAKES_MEMORY, group=group) as victim:
                    assert victim.wait() == -9
                counted = group.oom_kills() - before
            assert counted >= 1
            assert process.poll() is None
    window = only_window(sampler)
    assert last(window, OOM_KILLS) == counted, "those before the start are not ours"
    assert 0.0 < last(window, MEMORY_SHARE) <= 100.0
    assert errors_of(sampler) == 0


# ---- on by itself -------------------------------------------------------------------------------


def test_it_is_on_where_a_limit_applies():
    with group_with("cpu", "cpuacct", "memory") as group:
        group.limit_cpu(0.5)
        group.limit_memory(400_000_000)
        with child(IDLE, group=group) as process:
            sampler = sampler_of(process, sources="default")
    keys = [info.key for info in sampler.schema if info.source == "container"]
    assert keys == [CPU, THROTTLED, MEMORY, MEMORY_SHARE, OOM_KILLS]
    assert list(sampler.stats()["sources"])[: len(DEFAULT_KEYS) + 1] == [*DEFAULT_KEYS, "container"]


def test_limits_that_nobody_reaches_are_none():
    cpus = os.cpu_count() or 1
    with group_with("cpu", "cpuacct", "memory") as group:
        group.limit_cpu(cpus + 1)
        group.limit_memory(1 << 50)
        with child(IDLE, group=group) as process:
            sampler = sampler_of(process, sources="cpu,container")
            if list(sampler.stats()["sources"]) != ["cpu"]:
                pytest.skip("this test runs in a container that has limits itself")
    assert [info.source for info in sampler.schema] == ["cpu"]


def test_a_group_that_is_gone_leaves_nothing_behind():
    with group_with("cpu", "cpuacct") as group:
        group.limit_cpu(0.5)
        with child(IDLE, group=group) as process:
            sampler = sampler_of(process)
            with sampler:
                process.kill()
                process.wait()
                for folder in group.folders.values():
                    remove(folder)
                before = errors_of(sampler)
                wait_until(lambda: errors_of(sampler) > before, "the source to notice")
    window = only_window(sampler)
    assert window[CPU].mean is None or 0.0 <= mean(window, CPU) < 100.0

"""The fallback: what it makes of psutil's answers, and of a machine that is late."""

from __future__ import annotations

import contextlib
import gc
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, NamedTuple

import psutil
import pytest

from sysmetrics_native import Sampler, Series, Window, catalog
from sysmetrics_native.backends import psutil as backend_module
from sysmetrics_native.backends import psutil_sources as sources_module
from tests.support import (
    DEFAULT_KEYS,
    PATIENCE_SECONDS,
    assert_on_the_grid,
    busy_processes,
    position_after,
    retry,
    sampling_threads,
    wait_until,
)

CPU = "cpu_utilization_percentage"
PROCESS_CPU = "process_cpu_percentage"
PROCESS_KEYS = [
    PROCESS_CPU,
    "process_memory_rss_megabytes",
    "process_memory_vms_megabytes",
    "process_memory_percentage",
    "process_threads",
    *(["process_open_files"] if hasattr(psutil.Process, "num_fds") else []),
]
RECEIVED = "network_receive_megabytes"
SENT = "network_transmit_megabytes"


class CpuTimes(NamedTuple):
    """As psutil gives them on Linux."""

    user: float = 0.0
    nice: float = 0.0
    system: float = 0.0
    idle: float = 0.0
    iowait: float = 0.0
    irq: float = 0.0
    softirq: float = 0.0
    steal: float = 0.0
    guest: float = 0.0
    guest_nice: float = 0.0


class WindowsCpuTimes(NamedTuple):
    user: float = 0.0
    system: float = 0.0
    idle: float = 0.0
    interrupt: float = 0.0
    dpc: float = 0.0


class MacCpuTimes(NamedTuple):
    user: float = 0.0
    nice: float = 0.0
    system: float = 0.0
    idle: float = 0.0


class Flow(NamedTuple):
    bytes_sent: int = 0
    bytes_recv: int = 0
    packets_sent: int = 0
    packets_recv: int = 0


class Answers:
    """Stands in for one function of psutil; an exception among the answers is raised."""

    def __init__(self, answers: Sequence[Any]) -> None:
        self.answers = answers
        self.calls = 0

    def __call__(self, *_: object, **__: object) -> Any:
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def script(monkeypatch) -> Callable[..., list[Window]]:
    """Runs a sampler until psutil has given all its answers; every reading is a window."""

    def run(function: str, answers: Sequence[Any], source: str) -> list[Window]:
        fake = Answers(answers)
        monkeypatch.setattr(psutil, function, fake)
        sampler = Sampler(interval=0.02, backend="psutil", sources=source)
        with sampler:
            wait_until(lambda: fake.calls >= len(answers), "all answers")
        windows = list(sampler.windows(timeout=0))
        assert len(windows) == fake.calls - 1, "the first reading is before the first window"
        return windows[: len(answers) - 1]

    return run


def interfaces(**counted: tuple[int, int]) -> Mapping[str, Flow]:
    """Bytes received and packets received of each."""
    return {name: Flow(0, octets, 0, packets) for name, (octets, packets) in counted.items()}


# ---- sources and roots --------------------------------------------------------------------------


def test_it_has_the_sources_of_the_catalogue():
    everything = {**DEFAULT_KEYS, "process": PROCESS_KEYS}
    assert list(sources_module.SOURCES) == list(everything)
    for choice, expected in (("default", DEFAULT_KEYS), ("all", everything)):
        sampler = Sampler(backend="psutil", sources=choice)
        assert list(sampler.stats()["sources"]) == list(expected)
        assert [info.key for info in sampler.schema] == list(itertools.chain(*expected.values()))


# ---- CPU ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (CpuTimes(), CpuTimes(user=0.25, idle=0.75), 25.0),
        (CpuTimes(user=9e6, idle=9e7), CpuTimes(user=9e6 + 30, idle=9e7 + 70), 30.0),
        (CpuTimes(), CpuTimes(nice=10, system=10, irq=10, softirq=10, steal=10, idle=50), 50.0),
        (CpuTimes(), CpuTimes(iowait=40, idle=40, user=20), 20.0),
        (CpuTimes(), CpuTimes(user=40, guest=40, idle=60), 40.0),
        (CpuTimes(), CpuTimes(nice=40, guest_nice=40, idle=60), 40.0),
        (CpuTimes(idle=1000), CpuTimes(idle=990, user=5), 100.0),
        (CpuTimes(user=1000, idle=1000), CpuTimes(user=1, idle=1), None),
        (CpuTimes(user=5), CpuTimes(user=5), None),
        (WindowsCpuTimes(), WindowsCpuTimes(user=10, system=10, idle=80), 20.0),
        (MacCpuTimes(), MacCpuTimes(user=10, nice=5, system=5, idle=80), 20.0),
    ],
)
def test_cpu_utilization_is_exact(script, before, after, expected):
    (window,) = script("cpu_times", [before, after], "cpu")
    if expected is None:
        assert window[CPU] == Series()
    else:
        assert window[CPU].mean == pytest.approx(expected)
        assert window[CPU].min == window[CPU].max == window[CPU].last == window[CPU].mean


def test_cpu_spans_are_long_enough_to_mean_something(monkeypatch):
    """Extremes come from stretches of 100 ms of CPU time, as with the C core."""
    answers = [CpuTimes(user=step // 2 * 0.01, idle=(step + 1) // 2 * 0.01) for step in range(61)]
    fake = Answers(answers)
    monkeypatch.setattr(psutil, "cpu_times", fake)
    sampler = Sampler(0.002, 1_000_000, backend="psutil", sources="cpu")
    with sampler:
        wait_until(lambda: fake.calls >= len(answers), "all answers")
    (window,) = sampler.windows(timeout=0)
    assert window[CPU].mean == pytest.approx(50.0)
    assert window[CPU].min == pytest.approx(50.0)
    assert window[CPU].max == pytest.approx(50.0)


# ---- memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("on_linux", "used"), [(True, 750), (False, 600)])
def test_memory_formula(monkeypatch, script, on_linux, used):
    """On Linux as the C core has it, whatever psutil means by `used` there."""
    monkeypatch.setattr(sources_module, "_IS_LINUX", on_linux)
    answer = SimpleNamespace(total=1000 * 10**6, available=250 * 10**6, used=600 * 10**6)
    (window,) = script("virtual_memory", [answer, answer], "memory")
    assert window["system_memory_usage_megabytes"].mean == pytest.approx(used)
    assert window["system_memory_usage_percentage"].mean == pytest.approx(used / 10)


# ---- network ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "totals"),
    [
        (
            [interfaces(lo=(0, 0)), interfaces(lo=(10**6, 9)), interfaces(lo=(3 * 10**6, 20))],
            [1.0, 3.0],
        ),
        # Reset: bytes and packets fall. Nothing is added, and it goes on from there.
        (
            [interfaces(a=(9 * 10**6, 90)), interfaces(a=(5, 1)), interfaces(a=(10**6 + 5, 2))],
            [0.0, 1.0],
        ),
        # A 32-bit counter that wrapped: packets went on.
        (
            [interfaces(a=(2**32 - 10**6, 10)), interfaces(a=(10**6, 20))],
            [2.0],
        ),
        # Packets fell with it, or it was more than half a turn, or never of 32 bits: a reset.
        ([interfaces(a=(2**32 - 10**6, 10)), interfaces(a=(10**6, 5))], [0.0]),
        ([interfaces(a=(10**6, 10)), interfaces(a=(9 * 10**5, 20))], [0.0]),
        ([interfaces(a=(2**33, 10)), interfaces(a=(10**6, 20))], [0.0]),
        # Interfaces that come and go bring nothing along and take nothing away.
        (
            [
                interfaces(lo=(0, 0)),
                interfaces(lo=(10**6, 1), tun=(10**12, 10**9)),
                interfaces(tun=(10**12 + 10**6, 10**9 + 1)),
                interfaces(lo=(7 * 10**6, 8), tun=(10**12 + 10**6, 10**9 + 1)),
                interfaces(lo=(8 * 10**6, 9)),
            ],
            [1.0, 2.0, 2.0, 3.0],
        ),
        # No interface at all is no value; nothing is lost by it.
        (
            [interfaces(lo=(0, 0)), {}, interfaces(lo=(5 * 10**6, 5))],
            [None, 5.0],
        ),
        # Nor by an answer that failed.
        (
            [interfaces(lo=(0, 0)), OSError("no"), interfaces(lo=(5 * 10**6, 5))],
            [None, 5.0],
        ),
    ],
)
def test_network_totals_are_sums_of_increases(script, answers, totals):
    windows = script("net_io_counters", answers, "network")
    assert [window[RECEIVED].last for window in windows] == pytest.approx(totals)


def test_both_directions_are_counted_by_themselves(script):
    answers = [{"lo": Flow(0, 0, 0, 0)}, {"lo": Flow(10**6, 2 * 10**6, 1, 1)}]
    (window,) = script("net_io_counters", answers, "network")
    assert (window[SENT].last, window[RECEIVED].last) == (1.0, 2.0)


# ---- processes ----------------------------------------------------------------------------------


class Times(NamedTuple):
    """As psutil gives them on Linux and macOS."""

    user: float = 0.0
    system: float = 0.0
    children_user: float = 0.0
    children_system: float = 0.0


class WindowsTimes(NamedTuple):
    user: float = 0.0
    system: float = 0.0


class FakeProcess:
    """Stands in for `psutil.Process`; `denied` are the functions that this user may not call."""

    def __init__(self, pid: int, parent: FakeProcess | None = None, born: float = 0.0) -> None:
        self.pid = pid
        self.parent = parent
        self.born = born
        self.below: list[FakeProcess] = []
        self.times: NamedTuple = Times()
        self.denied: set[str] = set()
        self.is_there = True
        self.state = psutil.STATUS_RUNNING
        self.on_read: Callable[[], None] = lambda: None
        if parent is not None:
            parent.below.append(self)

    @contextlib.contextmanager
    def oneshot(self) -> Iterator[None]:
        yield

    def _answer(self, function: str, value: Any) -> Any:
        if not self.is_there:
            raise psutil.NoSuchProcess(self.pid)
        if function in self.denied:
            raise psutil.AccessDenied(self.pid)
        return value

    def end(self, waited_for: bool = True) -> None:
        """Its parent waits for it; or nobody does, or somebody else."""
        self.is_there = False
        if self.parent is None:
            return
        self.parent.below.remove(self)
        if waited_for:
            times = self.parent.times
            assert isinstance(times, Times)
            more = times.children_user + sum(self.times)
            self.parent.times = times._replace(children_user=more)
        for child in self.below:
            child.parent = None

    def work(self, seconds: float) -> None:
        self.times = self.times._replace(user=self.times[0] + seconds)

    def is_running(self) -> bool:
        return self.is_there

    def create_time(self) -> float:
        return self.born

    def ppid(self) -> int:
        return int(self._answer("ppid", 1 if self.parent is None else self.parent.pid))

    def status(self) -> Any:
        return self._answer("status", self.state)

    def cpu_times(self) -> Any:
        times = self._answer("cpu_times", self.times)
        self.on_read()
        return times

    def memory_info(self) -> Any:
        return self._answer("memory_info", SimpleNamespace(rss=10**6, vms=10**9))

    def num_threads(self) -> Any:
        return self._answer("num_threads", 2)

    def num_fds(self) -> Any:
        return self._answer("num_fds", 3)

    def children(self, recursive: bool) -> list[FakeProcess]:
        assert recursive
        self._answer("children", None)
        found = list(self.below)
        for child in self.below:
            found += child.children(recursive=True)
        return found


def source_of(root: FakeProcess, with_children: bool = True) -> sources_module.Process:
    return sources_module.Process(root, with_children=with_children)  # type: ignore[arg-type]


def used(source: sources_module.Process) -> float | None:
    """CPU seconds."""
    value = source.sample().get(PROCESS_CPU)
    return None if value is None else float(value)  # type: ignore[arg-type]


def test_processes_are_summed():
    root = FakeProcess(10)
    FakeProcess(30, parent=FakeProcess(20, parent=root))
    source = source_of(root)
    readings = source.sample()
    assert list(readings) == PROCESS_KEYS
    assert readings["process_memory_rss_megabytes"] == 3 * 10**6
    assert readings["process_memory_vms_megabytes"] == 3 * 10**9
    total = psutil.virtual_memory().total
    assert readings["process_memory_percentage"] == pytest.approx(3 * 10**8 / total)
    assert readings["process_threads"] == 6
    assert [spec.info.key for spec in source.specs] == PROCESS_KEYS


def test_cpu_time_of_processes_never_falls_and_counts_once():
    root = FakeProcess(10)
    old = FakeProcess(20, parent=root)
    root.work(1000)
    old.work(500)
    source = source_of(root)
    first = used(source)
    assert first is not None
    old.work(2)
    root.work(1)
    assert used(source) == pytest.approx(first + 3)
    # What it does until its parent waits for it counts; what was seen does so once.
    old.work(4)
    old.end()
    assert used(source) == pytest.approx(first + 7)
    assert used(source) == pytest.approx(first + 7)
    # Born since: from its birth. Born and gone unseen: by its parent.
    young = FakeProcess(21, parent=root, born=time.time() + 60)
    young.work(5)
    unseen = FakeProcess(22, parent=root, born=time.time() + 60)
    unseen.work(2)
    unseen.end()
    assert used(source) == pytest.approx(first + 14)
    young.work(1)
    young.end()
    assert used(source) == pytest.approx(first + 15)


def test_processes_that_nobody_of_ours_waits_for_keep_what_was_seen():
    root = FakeProcess(10)
    child = FakeProcess(20, parent=root)
    orphan = FakeProcess(30, parent=child)
    source = source_of(root)
    first = used(source)
    assert first is not None
    orphan.work(3)
    child.end()
    assert used(source) == pytest.approx(first + 3)
    FakeProcess(40, parent=orphan, born=time.time() + 60).work(1)
    assert used(source) == pytest.approx(first + 4)
    orphan.end(waited_for=False)
    root.end()
    assert used(source) == pytest.approx(first + 4)


def test_a_process_that_is_waited_for_while_it_is_read_counts_once():
    root = FakeProcess(10)
    child = FakeProcess(20, parent=root)
    child.work(3600)
    source = source_of(root)
    first = used(source)
    assert first is not None
    source._members = dict(reversed(source._members.items()))  # the child is read first
    child.on_read = child.end
    child.work(1)
    assert used(source) == pytest.approx(first + 1)
    assert used(source) == pytest.approx(first + 1)


def test_one_process_without_its_children():
    root = FakeProcess(10)
    child = FakeProcess(20, parent=root)
    source = source_of(root, with_children=False)
    first = used(source)
    assert first is not None
    child.work(50)
    child.end()
    root.work(1)
    readings = source.sample()
    assert readings[PROCESS_CPU] == pytest.approx(first + 1)
    assert readings["process_threads"] == 2


def test_a_process_that_vanishes_hides_only_itself():
    root = FakeProcess(10)
    child = FakeProcess(20, parent=root)
    source = source_of(root)
    assert source.sample()["process_threads"] == 4
    root.end()
    child.parent = None
    assert source.sample()["process_threads"] == 2
    child.end()
    with pytest.raises(psutil.NoSuchProcess):
        source.sample()


@pytest.mark.parametrize(
    ("function", "hidden"),
    [
        ("cpu_times", [PROCESS_CPU]),
        ("memory_info", [key for key in PROCESS_KEYS if "memory" in key]),
        ("num_threads", ["process_threads"]),
        ("num_fds", [key for key in PROCESS_KEYS if "files" in key]),
    ],
)
def test_what_may_not_be_read_of_one_process_is_absent(function, hidden):
    root = FakeProcess(10)
    child = FakeProcess(20, parent=root)
    child.work(100)
    source = source_of(root)
    child.denied = {function}
    assert list(source.sample()) == [key for key in PROCESS_KEYS if key not in hidden]
    child.denied = set()
    assert list(source.sample()) == PROCESS_KEYS


def test_a_zombie_has_its_cpu_time_and_nothing_else():
    root = FakeProcess(10)
    child = FakeProcess(20, parent=root)
    source = source_of(root)
    first = used(source)
    assert first is not None
    child.work(2)
    child.state = psutil.STATUS_ZOMBIE
    child.denied = {"memory_info", "num_fds"}
    readings = source.sample()
    assert readings[PROCESS_CPU] == pytest.approx(first + 2)
    assert readings["process_threads"] == 2
    assert readings["process_memory_rss_megabytes"] == 10**6
    child.end()
    assert used(source) == pytest.approx(first + 2)


def test_processes_where_the_system_knows_nothing_of_children(monkeypatch):
    """As on Windows: no times of children, no open files."""
    monkeypatch.setattr(sources_module, "_HAS_FILES", False)
    root = FakeProcess(10)
    root.times = WindowsTimes(user=5.0)
    source = source_of(root)
    first = used(source)
    assert first is not None
    root.work(1)
    readings = source.sample()
    assert readings[PROCESS_CPU] == pytest.approx(first + 1)
    assert "process_open_files" not in readings
    assert "process_open_files" not in [spec.info.key for spec in source.specs]


def test_a_process_that_is_not_there_is_a_source_that_this_machine_lacks():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    sampler = Sampler(backend="psutil", sources="cpu,process", pid=child.pid)
    assert list(sampler.stats()["sources"]) == ["cpu"]


def test_a_real_busy_child_is_one_core():
    def check() -> None:
        others = psutil.Process().children()  # as a tracking server of other tests
        with busy_processes(1), Sampler(backend="psutil", sources="process") as sampler:
            (child,) = set(psutil.Process().children()) - set(others)
            before = child.cpu_times()
            begin = time.monotonic()
            time.sleep(1.5)
            after = child.cpu_times()
            passed = time.monotonic() - begin
        (window,) = sampler.windows(timeout=0)
        cpu = window[PROCESS_CPU].mean
        assert cpu is not None
        expected = (after.user + after.system - before.user - before.system) / passed * 100
        assert cpu == pytest.approx(expected, abs=10)
        threads = window["process_threads"].last
        assert threads is not None
        assert threads >= 2

    retry(5, check)


# ---- answers that are none ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "source"),
    [
        ("cpu_times", "cpu"),
        ("virtual_memory", "memory"),
        ("disk_usage", "disk_space"),
        ("net_io_counters", "network"),
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        OSError("gone"),
        PermissionError(13, "no"),
        RuntimeError("psutil is unwell"),
        psutil.AccessDenied(),
        NotImplementedError(),
        ValueError("garbage in /proc"),
    ],
)
def test_a_function_that_raises_is_an_absent_value(monkeypatch, function, source, error):
    monkeypatch.setattr(psutil, function, Answers([error]))
    sampler = Sampler(interval=3600, backend="psutil")
    with sampler:
        pass
    (window,) = sampler.windows(timeout=0)
    stats = sampler.stats()["sources"]
    for other, keys in DEFAULT_KEYS.items():
        if other == source:
            assert all(window[key] == Series() for key in keys)
            assert (stats[other]["calls"], stats[other]["errors"]) == (2, 2)
        else:
            assert all(window[key].last is not None for key in keys if key != CPU)
            assert stats[other]["errors"] == 0


def test_a_function_that_recovers_is_heard_again(script):
    answers = [OSError(), CpuTimes(user=5, idle=5), OSError(), CpuTimes(user=15, idle=35)]
    windows = script("cpu_times", answers, "cpu")
    means = [window[CPU].mean for window in windows]
    # Nothing to compare with, nothing, and all the time since the reading that there was.
    assert means == [None, None, 25.0]


def test_memory_of_nothing_is_no_value(script):
    empty = SimpleNamespace(total=0, available=0, used=0)
    (window,) = script("virtual_memory", [empty, empty], "memory")
    assert window["system_memory_usage_percentage"] == Series()


# ---- clocks -------------------------------------------------------------------------------------


class Clocks:
    """The module `time` as the backend sees it, with a wall clock that can be set."""

    monotonic = staticmethod(time.monotonic)
    monotonic_ns = staticmethod(time.monotonic_ns)
    thread_time = staticmethod(time.thread_time)

    def __init__(self) -> None:
        self.step = 0.0

    def time_ns(self) -> int:
        return time.time_ns() + round(self.step * 1e9)


def test_a_wall_clock_that_steps_breaks_no_window(monkeypatch):
    clocks = Clocks()
    monkeypatch.setattr(backend_module, "time", clocks)
    sampler = Sampler(interval=0.005, samples_per_window=4, backend="psutil")
    begun = time.monotonic()
    windows: list[Window] = []
    steps = [3600.0, -7200.0, 1e9, -1e6]
    with sampler:
        for step in [0.0, *steps]:
            clocks.step = step
            for _ in range(3):
                window = sampler.next_window(timeout=PATIENCE_SECONDS)
                assert window is not None
                windows.append(window)
    windows += sampler.windows(timeout=0)
    passed = time.monotonic() - begun
    lengths = [window.end - window.start for window in windows]
    assert min(lengths) > 0
    assert sum(lengths) <= passed + 0.001
    assert position_after(windows) <= passed / 0.005 + 1
    # Each tells the wall clock of its end, whatever it said before.
    for step in steps:
        assert any(abs(window.end - step - time.time()) < 60 for window in windows), step
    for window in windows:
        assert window["system_memory_usage_percentage"].mean is not None
        cpu = window[CPU].mean
        assert cpu is None or 0 <= cpu <= 100


class HastyQueue(SimpleQueue[None]):
    """Its waits end early, as they do where timers are coarse."""

    def get(self, block: bool = True, timeout: float | None = None) -> None:
        return super().get(block, None if timeout is None else timeout * 0.4)


def test_waits_that_end_early_make_no_ticks(monkeypatch):
    monkeypatch.setattr(backend_module, "SimpleQueue", HastyQueue)
    sampler = Sampler(interval=0.02, samples_per_window=5, backend="psutil")
    begun = time.monotonic()
    with sampler:
        windows = [sampler.next_window(timeout=PATIENCE_SECONDS) for _ in range(4)]
        passed = time.monotonic() - begun
    due = 0
    for window in windows:
        assert window is not None
        assert window.samples <= 5
        due += window.samples + window.missed
    assert due <= passed / 0.02 + 1


def test_a_slow_reading_costs_ticks_that_are_counted(monkeypatch):
    real = psutil.cpu_times

    def slow() -> Any:
        time.sleep(0.03)
        return real()

    monkeypatch.setattr(psutil, "cpu_times", slow)
    sampler = Sampler(interval=0.01, samples_per_window=10, backend="psutil")
    begun = time.monotonic()
    with sampler:
        started = time.monotonic()
        windows = list(itertools.islice(sampler.windows(timeout=PATIENCE_SECONDS), 4))
        before_stop = time.monotonic()
    windows += sampler.windows(timeout=0)
    passed = time.monotonic() - begun
    stats = sampler.stats()
    assert stats["missed"] == sum(window.missed for window in windows)
    assert stats["missed"] >= 2 * stats["ticks"] - 4, "about three of four"
    assert (before_stop - started) / 0.01 - 1 <= position_after(windows) <= passed / 0.01 + 1
    assert stats["sources"]["cpu"]["mean_cost_seconds"] < 0.03, "a wait takes no CPU time"
    for window in windows[:-1]:
        assert window[CPU].mean is not None


def test_windows_that_end_late_make_the_next_ones_shorter(monkeypatch):
    real = psutil.cpu_times
    numbers = itertools.count(1)

    def stall() -> Any:
        if next(numbers) % 13 == 0:
            time.sleep(0.034)
        return real()

    monkeypatch.setattr(psutil, "cpu_times", stall)
    with Sampler(interval=0.01, samples_per_window=5, backend="psutil") as sampler:
        windows = list(itertools.islice(sampler.windows(timeout=PATIENCE_SECONDS), 16))
    assert sum(window.missed for window in windows) > 0
    assert_on_the_grid(windows, 5)


def test_a_reading_that_hangs_holds_nobody_for_ever(monkeypatch):
    release = threading.Event()
    entered = threading.Event()
    real = psutil.virtual_memory

    def hang() -> Any:
        if threading.current_thread().name == "smn-host":
            entered.set()
            release.wait()
        return real()

    monkeypatch.setattr(psutil, "virtual_memory", hang)
    sampler = Sampler(interval=0.005, backend="psutil")
    sampler.start()
    assert entered.wait(PATIENCE_SECONDS)
    assert sampler.next_window(timeout=0.01) is None
    assert sampler.stop(timeout=0.01) is False
    assert sampler.stats()["ticks"] == 0
    release.set()
    assert sampler.stop(timeout=PATIENCE_SECONDS) is True
    assert sampler.next_window() is not None


def disk_threads() -> int:
    return sum(thread.name == "smn-disk" for thread in threading.enumerate())


def test_a_disk_path_that_hangs_is_absent_and_holds_up_nothing(monkeypatch, tmp_path):
    release = threading.Event()
    hanging = str(tmp_path)
    real = psutil.disk_usage

    def hang(path: str) -> Any:
        if path == hanging:
            release.wait()
        return real(path)

    monkeypatch.setattr(psutil, "disk_usage", hang)
    sampler = Sampler(
        interval=0.005, backend="psutil", sources="memory,disk_space", disk_paths=["/", hanging]
    )
    suffix = catalog.disk_key_suffix(hanging)
    with sampler:
        for _ in range(20):
            window = sampler.next_window(timeout=PATIENCE_SECONDS)
            assert window is not None
            assert window["system_memory_usage_percentage"].last is not None
            assert window["disk_usage_percentage"].last is not None
            for key in DEFAULT_KEYS["disk_space"]:
                assert window[key + suffix] == Series()
        stats = sampler.stats()["sources"]["disk_space"]
        assert stats["errors"] >= 20
        assert stats["calls"] >= stats["errors"]
        release.set()
        back = f"disk_usage_percentage{suffix}"
        wait_until(lambda: next(sampler.windows())[back].last is not None, "values")
        release.clear()
        wait_until(lambda: next(sampler.windows())[back].last is None, "no values")
    wait_until(lambda: disk_threads() == 1, "the end of the one that did not hang")
    release.set()
    wait_until(lambda: disk_threads() == 0, "the end of the one that hung")


def test_threads_of_disk_paths_end_with_their_sampler():
    sampler = Sampler(interval=0.005, backend="psutil", sources="disk_space")
    assert disk_threads() == 0
    with sampler:
        assert disk_threads() == 1
    wait_until(lambda: disk_threads() == 0, "the end of the thread")


# ---- the thread ---------------------------------------------------------------------------------


def test_a_system_without_threads_to_give_is_an_os_error(monkeypatch):
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    sampler = Sampler(backend="psutil")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="cannot start the sampling thread: can't start new"):
            sampler.start()
    assert sampler.stop() is True
    with pytest.raises(RuntimeError, match="not running"):
        sampler.next_window()
    with sampler:
        pass
    assert len(list(sampler.windows())) == 1, "it can be tried again"


@pytest.mark.parametrize("is_running", [True, False])
def test_ctrl_c_while_the_thread_starts_leaves_nothing_behind(monkeypatch, is_running):
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if is_running:
            start(thread)
        raise KeyboardInterrupt

    sampler = Sampler(interval=0.01, backend="psutil")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sampler.start()
    assert sampler.stop() is True
    assert sampling_threads() == 0


def test_the_sampling_thread_may_be_the_one_that_collects_the_garbage(monkeypatch):
    """A sampler in a cycle is found by whatever thread the collector happens to run on."""
    real = psutil.cpu_times
    collected = threading.Event()

    def collect() -> Any:
        if threading.current_thread().name == "smn-host":
            gc.collect()
            collected.set()
        return real()

    sampler = Sampler(interval=0.05, backend="psutil")
    sampler.myself = sampler  # type: ignore[attr-defined]
    gc.disable()
    try:
        monkeypatch.setattr(psutil, "cpu_times", collect)
        sampler.start()
        del sampler
        assert collected.wait(PATIENCE_SECONDS)
        wait_until(lambda: sampling_threads() == 0, "the thread to end")
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_ends_the_windows(monkeypatch):
    """A bug of ours: nobody may wait for ever for a window that never comes."""

    def die(*_: object) -> None:
        raise LookupError("a bug")

    sampler = Sampler(interval=0.01, backend="psutil")
    sampler.start()
    monkeypatch.setattr(backend_module.PsutilBackend, "_take_tick", die)
    for _ in sampler.windows():
        pass  # those from before
    assert sampler.next_window() is None
    assert sampler.stop() is True


def test_it_samples_on_one_daemon_thread():
    with Sampler(interval=0.01, backend="psutil"):
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "smn-host"]
        assert thread.daemon

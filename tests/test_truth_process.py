"""The source `process` compared with the kernel's own account of real processes."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sysmetrics_native import Sampler, Window
from tests.support import retry, wait_until

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="compares with files of the Linux kernel"
    ),
]

CPU = "process_cpu_percentage"
RSS = "process_memory_rss_megabytes"
VMS = "process_memory_vms_megabytes"
SHARE = "process_memory_percentage"
THREADS = "process_threads"
FILES = "process_open_files"

TICK = 1 / os.sysconf("SC_CLK_TCK")
TICKS = 4 * TICK
"""What rounding to ticks may do to both ends of a stretch of CPU time."""


class Program:
    """A Python program that does one thing after the other, a line of input each."""

    def __init__(self, source: str) -> None:
        prelude = """
            import os, signal, subprocess, sys, threading, time

            def burn(seconds):
                end = time.process_time() + seconds
                while time.process_time() < end:
                    pass

            def say(*words):
                print(*words, flush=True)

            def wait():
                sys.stdin.readline()
        """
        text = textwrap.dedent(prelude) + textwrap.dedent(source)
        self.process = subprocess.Popen(
            [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid

    def heard(self) -> list[str]:
        """The next line that it says, in words."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@pytest.fixture
def start() -> Iterator[type[Program]]:
    """Starts programs, and ends them and what they have started."""
    programs: list[Program] = []

    class Started(Program):
        def __init__(self, source: str) -> None:
            super().__init__(source)
            programs.append(self)

    yield Started
    for program in programs:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(program.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        program.process.kill()
        program.process.communicate()


def sampler_of(pid: int, interval: float = 0.1, samples: int = 1_000_000) -> Sampler:
    return Sampler(interval, samples, backend="native", sources="process", pid=pid)


def only_window(sampler: Sampler) -> Window:
    (window,) = sampler.windows(timeout=0)
    return window


def last(window: Window, key: str) -> float:
    value = window[key].last
    assert value is not None, key
    return value


def cpu_seconds(window: Window) -> float:
    """What was used in the window."""
    mean = window[CPU].mean
    assert mean is not None
    return mean / 100 * (window.end - window.start)


def stat_seconds(pid: int) -> float:
    """What a process itself has used, as the kernel has it."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def wait_for_readings(sampler: Sampler, count: int = 3) -> None:
    """Until it has been read so many times more."""

    def calls() -> int:
        return int(sampler.stats()["sources"]["process"]["calls"])

    reached = calls() + count
    wait_until(lambda: calls() >= reached, "readings of processes")


# ---- CPU time -----------------------------------------------------------------------------------


def test_a_busy_child_is_what_the_kernel_says_it_is(start):
    program = start(
        """
        child = os.fork()
        if child == 0:
            while True:
                pass
        say(child)
        wait()
        """
    )
    (child,) = program.heard()
    sampler = sampler_of(program.pid)
    outer_before = stat_seconds(int(child))
    sampler.start()
    inner_before = stat_seconds(int(child))
    time.sleep(1.0)
    inner_after = stat_seconds(int(child))
    sampler.stop()
    outer_after = stat_seconds(int(child))
    window = only_window(sampler)
    used = cpu_seconds(window)
    assert inner_after - inner_before - TICKS <= used <= outer_after - outer_before + TICKS
    assert sampler.stats()["sources"]["process"]["errors"] == 0


@pytest.mark.usefixtures("alone")
def test_a_child_that_is_always_busy_reads_100_percent(start):
    """As far as the machine lets it: on a busy one it waits for a core now and then."""
    program = start(
        """
        try:
            os.nice(-20)
        except PermissionError:
            pass
        say()
        while True:
            pass
        """
    )
    program.heard()

    def check() -> None:
        with sampler_of(program.pid, 0.001) as sampler:
            before = stat_seconds(program.pid)
            begin = time.monotonic()
            time.sleep(1.0)
            used = stat_seconds(program.pid) - before
            passed = time.monotonic() - begin
        cpu = only_window(sampler)[CPU]
        assert cpu.mean == pytest.approx(used / passed * 100, abs=4.0)
        assert cpu.max is not None
        # Spans of 100 ms: a tick of 10 ms at either end.
        assert cpu.max <= 125.0

    retry(10, check)


def test_this_process_is_what_it_says_of_itself():
    sampler = Sampler(0.1, 1_000_000, backend="native", sources="process")
    children = resource.RUSAGE_CHILDREN

    def all_seconds() -> float:
        own = os.times()
        waited = resource.getrusage(children)
        return own.user + own.system + waited.ru_utime + waited.ru_stime

    outer_before = all_seconds()
    sampler.start()
    inner_before = all_seconds()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    program = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", program], check=True)
    inner_after = all_seconds()
    sampler.stop()
    used = cpu_seconds(only_window(sampler))
    outer_after = all_seconds()
    assert inner_after - inner_before >= 0.4 - TICKS
    assert inner_after - inner_before - TICKS <= used <= outer_after - outer_before + TICKS


def test_children_that_live_between_two_readings_count(start):
    """Thirty of them, each over before anybody has seen it."""
    program = start(
        """
        say()
        wait()
        before = os.times()
        for _ in range(30):
            if os.fork() == 0:
                burn(0.01)
                os._exit(0)
            os.wait()
        after = os.times()
        say(sum(after[:4]) - sum(before[:4]))
        wait()
        """
    )
    program.heard()
    with sampler_of(program.pid) as sampler:
        program.go_on()
        (used,) = map(float, program.heard())
    assert used >= 0.3
    assert cpu_seconds(only_window(sampler)) == pytest.approx(used, abs=TICKS)


def test_grandchildren_of_other_threads_count(start):
    program = start(
        """
        def start_child():
            child = os.fork()
            if child == 0:
                grandchild = os.fork()
                if grandchild == 0:
                    burn(0.3)
                    say(os.getpid())
                    time.sleep(600)
                time.sleep(600)
            done.wait()

        done = threading.Event()
        wait()
        threading.Thread(target=start_child, daemon=True).start()
        time.sleep(600)
        """
    )
    with sampler_of(program.pid) as sampler:
        program.go_on()
        (grandchild,) = program.heard()
        wait_for_readings(sampler)
        expected = stat_seconds(int(grandchild))
    window = only_window(sampler)
    assert expected >= 0.3 - TICK
    assert cpu_seconds(window) == pytest.approx(expected, abs=0.1)
    assert last(window, THREADS) == 2 + 1 + 1


def test_an_orphan_still_counts(start):
    program = start(
        """
        child = os.fork()
        if child == 0:
            orphan = os.fork()
            if orphan == 0:
                say(os.getpid())
                time.sleep(0.5)
                burn(0.3)
                say("done", os.getppid())
                time.sleep(600)
            time.sleep(0.4)
            os._exit(0)
        os.waitpid(child, 0)
        wait()
        """
    )
    (orphan,) = program.heard()
    try:
        with sampler_of(program.pid) as sampler:
            before = stat_seconds(int(orphan))
            _, parent = program.heard()
            wait_for_readings(sampler)
            after = stat_seconds(int(orphan))
        window = only_window(sampler)
        assert int(parent) != program.pid
        assert after - before >= 0.3 - TICK
        assert cpu_seconds(window) == pytest.approx(after - before, abs=TICKS + 0.02)
        assert last(window, THREADS) == 2
    finally:
        os.kill(int(orphan), signal.SIGKILL)


def test_an_exec_is_survived(start):
    program = start(
        """
        child = os.fork()
        if child == 0:
            burn(0.2)
            again = [
                "import time",
                "while time.process_time() < 0.4: pass",
                "print(flush=True)",
                "time.sleep(600)",
            ]
            os.execv(sys.executable, ["a (strange) name", "-c", "\\n".join(again)])
        wait()
        """
    )
    with sampler_of(program.pid) as sampler:
        assert program.heard() == []
        (child,) = psutil.Process(program.pid).children()
        wait_for_readings(sampler)
        expected = stat_seconds(child.pid)
    window = only_window(sampler)
    assert expected >= 0.4 - TICK
    # It began before the sampler, perhaps: by that much it may be less.
    assert expected - 0.25 <= cpu_seconds(window) <= expected + 0.1
    assert last(window, THREADS) == 2


def test_children_of_a_parent_that_ignores_them_keep_what_was_seen(start):
    program = start(
        """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        wait()
        child = os.fork()
        if child == 0:
            burn(0.3)
            say(os.getpid())
            wait()
            os._exit(0)
        time.sleep(600)
        """
    )
    sampler = sampler_of(program.pid)
    with sampler:
        program.go_on()
        (child,) = program.heard()
        wait_for_readings(sampler)
        program.go_on()
        wait_until(lambda: not Path(f"/proc/{child}").exists(), "the end of the child")
        wait_for_readings(sampler)
    window = only_window(sampler)
    assert cpu_seconds(window) == pytest.approx(0.3, abs=0.1)
    assert last(window, THREADS) == 1


# ---- memory, threads, files ---------------------------------------------------------------------


def family(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


QUIET_FAMILY = """
children = []
files = [open(os.devnull) for _ in range(20)]
memory = bytearray(os.urandom(1000)) * 20_000
for _ in range(3):
    child = os.fork()
    if child == 0:
        more = bytearray(os.urandom(1000)) * 10_000
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        time.sleep(600)
time.sleep(0.5)
say()
time.sleep(600)
"""


def test_memory_threads_and_files_are_those_of_all(start):
    program = start(QUIET_FAMILY)
    program.heard()
    wait_until(
        lambda: sum(process.num_threads() for process in family(program.pid)) == 7, "all threads"
    )
    with sampler_of(program.pid) as sampler:
        processes = family(program.pid)
        memory = [process.memory_info() for process in processes]
        files = sum(len(os.listdir(f"/proc/{process.pid}/fd")) for process in processes)  # noqa: PTH208
    window = only_window(sampler)
    assert len(processes) == 4
    rss = sum(each.rss for each in memory)
    # Each CPU keeps back some pages before it adds them to the sum that the kernel shows.
    assert last(window, RSS) == pytest.approx(rss / 1e6, rel=0.05)
    assert last(window, VMS) == pytest.approx(sum(each.vms for each in memory) / 1e6, rel=1e-3)
    total = psutil.virtual_memory().total
    assert last(window, SHARE) == pytest.approx(last(window, RSS) * 1e8 / total, rel=1e-6)
    assert last(window, THREADS) == 7
    assert last(window, FILES) == files
    assert files >= 4 * 20


def test_open_files_of_this_process():
    with Sampler(0.1, 1_000_000, backend="native", sources="process", pid=os.getpid()) as sampler:
        wait_for_readings(sampler)
        files = len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208  # less the folder itself
        children = psutil.Process().children(recursive=True)
        sampler.stop()
    files += sum(child.num_fds() for child in children)
    assert last(only_window(sampler), FILES) == files


@contextlib.contextmanager
def sleeping_strangers(count: int) -> Iterator[None]:
    """Processes that are not ours: their parent is init, or whoever stands in for it."""
    program = f"""
import os, signal
for _ in range({count}):
    if os.fork() == 0:
        signal.pause()
print(os.getpid(), flush=True)
signal.pause()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    try:
        yield
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


def test_other_processes_do_not_show(start):
    program = start(QUIET_FAMILY)
    program.heard()
    with sleeping_strangers(300):
        with sampler_of(program.pid) as sampler:
            wait_for_readings(sampler)
        window = only_window(sampler)
        assert len(psutil.pids()) > 300
    assert last(window, THREADS) == 7
    assert last(window, FILES) < 300
    assert cpu_seconds(window) <= TICKS


# ---- which process ------------------------------------------------------------------------------


def test_without_children_it_is_the_process_alone(start, monkeypatch):
    program = start(QUIET_FAMILY)
    program.heard()
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_INCLUDE_CHILD_PROCESSES", "false")
    with sampler_of(program.pid) as sampler:
        wait_for_readings(sampler)
    window = only_window(sampler)
    assert last(window, THREADS) == 1
    assert last(window, RSS) == pytest.approx(
        psutil.Process(program.pid).memory_info().rss / 1e6, rel=0.05
    )


def test_a_process_that_ends_is_absent(start):
    program = start("say()\nwait()")
    program.heard()
    with sampler_of(program.pid, 0.1, 1) as sampler:
        program.process.kill()
        program.process.wait()
        wait_for_readings(sampler)
        while sampler.next_window(timeout=0) is not None:
            pass
        window = sampler.next_window()
    assert window is not None
    assert all(series.last is None for series in window.values())
    assert sampler.stats()["sources"]["process"]["errors"] > 0


def test_a_process_that_is_not_there_is_a_source_that_this_machine_lacks():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    sampler = Sampler(backend="native", sources="cpu,process", pid=child.pid)
    assert list(sampler.stats()["sources"]) == ["cpu"]

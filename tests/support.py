"""Small tools that several test files share."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sysmetrics_native import Sampler, Window
from sysmetrics_native.backends import is_native_built

T = TypeVar("T")

PATIENCE_SECONDS = 90.0
"""How long a test waits for what must happen: long, because the machine may be busy."""

DEFAULT_KEYS = {
    "cpu": ["cpu_utilization_percentage"],
    "memory": ["system_memory_usage_megabytes", "system_memory_usage_percentage"],
    "disk_space": ["disk_usage_percentage", "disk_usage_megabytes", "disk_available_megabytes"],
    "network": ["network_receive_megabytes", "network_transmit_megabytes"],
}


@functools.cache
def default_as_in_mlflow(backend: str) -> str:
    """What to choose so that there are `DEFAULT_KEYS`, though these tests run in a container."""
    if backend == "psutil" or not is_native_built():
        return "default"
    try:
        Sampler(backend="native", sources="container")
    except ValueError:  # nothing limits
        return "default"
    return "default,-container"


STATISTICS = ("mean", "min", "max", "last", "p50", "p95", "p99")


def wait_until(
    condition: Callable[[], T], what: str, patience_seconds: float = PATIENCE_SECONDS
) -> T:
    """Wait for the condition to be true, and return what it gave."""
    deadline = time.monotonic() + patience_seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"gave up waiting for {what}"
        time.sleep(0.001)
    return result


def retry(attempts: int, check: Callable[[], None]) -> None:
    """Run a comparison with live reality again if it fails.

    A busy machine disturbs one now and then, a wrong formula disturbs them all.
    """
    for attempt in range(1, attempts + 1):
        try:
            check()
        except AssertionError:  # noqa: PERF203  # it is what this loop is for
            if attempt == attempts:
                raise
        else:
            break


def run_python(
    program: str, *arguments: str, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter to its end."""
    return subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
        check=False,
    )


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Children that do nothing but use up CPU time."""
    program = "print(flush=True)\nwhile True: pass"
    children = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        for _ in range(count)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        yield
    finally:
        for child in children:
            child.kill()
            child.communicate()


def threads_named(name: str) -> int:
    """How many threads of this process: Python's, and those that Python does not know."""
    python = sum(thread.name == name for thread in threading.enumerate())
    native_ids = {thread.native_id for thread in threading.enumerate()}
    native = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended just now
            comm = (task / "comm").read_text(encoding="ascii").strip()
            native += comm == name and int(task.name) not in native_ids
    return python + native


def sampling_threads() -> int:
    """How many threads of this process sample."""
    return threads_named("smn-host")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def position_after(windows: list[Window]) -> int:
    """How many deadlines there were from the start of sampling to the end of these windows."""
    return sum(window.samples + window.missed for window in windows)


def assert_on_the_grid(windows: list[Window], per_window: int) -> None:
    """Each window ends at the first tick that is due: a late one makes the next one shorter."""
    position = 0
    for window in windows:
        due = (position // per_window + 1) * per_window
        position += window.samples + window.missed
        assert position >= due
        if window.missed == 0:
            assert position == due

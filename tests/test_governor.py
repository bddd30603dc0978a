"""The governor: sources that cost more than their budget are read less often, and that is said."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysmetrics_native.backends.governor import Governor, Load
from tests.fake_gpus import Library, build
from tests.support import PATIENCE_SECONDS

EXPENSIVE_STAT = Library("libexpensive_stat.so", ("expensive_stat.c",))
COST_SECONDS = 0.003
SECONDS = 4.0
INTERVALS = {"native": 0.005, "psutil": 0.01}
"""At which only what is expensive takes more than the budget, also on a machine that is busy."""

PROGRAM = """
import logging, os, sys, time
from pathlib import Path

lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append((record.levelname, record.getMessage()))
logging.getLogger("sysmetrics_native").addHandler(handler)

import psutil
from sysmetrics_native import Sampler

backend, seconds, cost, options = sys.argv[1], *map(eval, sys.argv[2:])
real = psutil.cpu_times

def expensive():
    end = time.thread_time() + cost
    while time.thread_time() < end:
        pass
    return real()

if backend == "psutil":
    psutil.cpu_times = expensive

def thread_cpu():
    if backend == "psutil":  # whose thread has no name before Python 3.14
        return time.process_time()
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text() == "smn-host\\n":
            return int((task / "schedstat").read_text().split()[0]) * 1e-9

windows = []
with Sampler(backend=backend, **options) as sampler:
    began, cpu_before = time.monotonic(), thread_cpu()
    while time.monotonic() < began + seconds:
        window = sampler.next_window(0.1)
        if window is not None:
            windows.append((window.samples, window["cpu_utilization_percentage"].mean))
    cpu, length = thread_cpu() - cpu_before, time.monotonic() - began
    stats = sampler.stats()
print(repr({"windows": windows, "stats": stats, "lines": lines, "share": cpu / length}))
"""


class Governed(NamedTuple):
    """What the program told."""

    windows: list[tuple[int, float | None]]
    stats: dict[str, Any]
    lines: list[tuple[str, str]]
    share: float
    """Of one core, that the sampling thread took, wake-ups included; with psutil the process."""


def sample(backend: str, cost: float = COST_SECONDS, **options: object) -> Governed:
    """A sampler in a process of its own in which to read CPU times costs so much."""
    interval = INTERVALS[backend]
    samples = round(0.5 / interval)
    usual = {"interval": interval, "samples_per_window": samples, "sources": "cpu,memory"}
    options = {**usual, **options}
    environment = {**os.environ, "SMN_FAKE_STAT_MS": str(cost * 1e3)}
    del environment["SYSMETRICS_NATIVE_OVERHEAD_BUDGET"]  # which the tests have for the others
    if backend == "native":
        environment["LD_PRELOAD"] = str(build(EXPENSIVE_STAT) / EXPENSIVE_STAT.file)
    outcome = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(PROGRAM),
            backend,
            repr(SECONDS),
            repr(cost),
            repr(options),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    return Governed(**ast.literal_eval(outcome.stdout))


on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads what a thread took from /proc"
)


@on_linux
@pytest.mark.parametrize("budget", [0.05, 0.2])
def test_the_budget_is_kept_where_proc_stat_is_expensive(backend: str, budget: float) -> None:
    """Read at each tick it would take a third of a core or more."""
    governed = sample(backend, overhead_budget=budget)
    cpu, memory = (governed.stats["sources"][name] for name in ("cpu", "memory"))
    assert cpu["mean_cost_seconds"] >= COST_SECONDS
    spent = cpu["calls"] * cpu["mean_cost_seconds"] + memory["calls"] * memory["mean_cost_seconds"]
    # Until the first decision a second's budget may be spent, and the first reading is nobody's.
    assert (spent - budget - 2 * COST_SECONDS) / SECONDS <= 1.2 * budget
    assert governed.stats["overhead"]["budget"] == budget
    assert 0.0 < governed.stats["overhead"]["share"] <= 1.2 * budget
    # The cheap one is left alone, and so are the ticks.
    assert cpu["usual_interval_seconds"] == memory["interval_seconds"] == INTERVALS[backend]
    assert cpu["interval_seconds"] >= COST_SECONDS / budget
    # Nor is it read less often than need be, by what it has cost here.
    assert cpu["interval_seconds"] <= 2.5 * cpu["max_cost_seconds"] / budget
    assert memory["calls"] >= governed.stats["ticks"]
    # Each window goes on having the value.
    assert len(governed.windows) >= 4
    assert all(mean is not None for _, mean in governed.windows)


@on_linux
@pytest.mark.native
def test_what_the_thread_takes_is_the_budget_and_its_ticks() -> None:
    """By the scheduler's own count: at 10 Hz ticks cost next to nothing."""
    governed = sample("native", interval=0.1, samples_per_window=10, cost=0.02)
    # A second's budget for the first decision, over the whole time.
    assert governed.share <= 1.2 * 0.05 + (0.05 + 2 * 0.02) / SECONDS
    calls = governed.stats["sources"]["cpu"]["calls"]
    assert 0 < calls * 0.02 <= 1.2 * 0.05 * SECONDS + 0.05 + 2 * 0.02  # 40 of them would be 0.8


@on_linux
def test_it_is_said_once(backend: str) -> None:
    governed = sample(backend)
    (line,) = [text for level, text in governed.lines if level == "WARNING"]
    assert line.startswith(
        "Some sources are read less often, so that sampling takes at most 5% of a core "
        "(overhead_budget=0.05): cpu every 0."
    )
    assert f" s instead of {INTERVALS[backend]:g} s" in line
    assert "memory" not in line


@on_linux
def test_nothing_is_said_or_done_inside_the_budget(backend: str) -> None:
    governed = sample(backend, interval=0.1, samples_per_window=10, cost=0.001)
    assert governed.lines == []
    assert governed.stats["sources"]["cpu"]["calls"] == governed.stats["ticks"] + 1
    assert 0.0 < governed.stats["overhead"]["share"] <= 0.05
    for source in governed.stats["sources"].values():
        assert source["interval_seconds"] == source["usual_interval_seconds"]


# ---- decisions, in Python -----------------------------------------------------------------------

costs = st.floats(1e-7, 2.0)


def shares(loads: list[Load], interval: float, window: int) -> float:
    return sum(load.cost / (load.interval_ticks(window) * interval) for load in loads)


@given(
    st.lists(st.tuples(costs, st.sampled_from([1, 7, 1000])), min_size=1, max_size=6),
    st.sampled_from([0.001, 0.1]),
    st.sampled_from([1, 10, 1000]),
    st.floats(0.001, 1.0),
)
def test_any_sources_stay_inside_any_budget(
    given_loads: list[tuple[float, int]], interval: float, window: int, budget: float
) -> None:
    governor = Governor(budget, interval, window)
    governor.start(0.0)
    loads = [Load(ticks) for _, ticks in given_loads]
    for load, (cost, _) in zip(loads, given_loads, strict=True):
        load.count(cost)
    governor.decide(loads, 1.0)
    if any(load.is_slowed for load in loads):
        assert shares(loads, interval, window) <= budget * (1 + 1e-8)
        cheapest_slowed = min(load.cost for load in loads if load.is_slowed)
        untouched = [load for load in loads if not load.is_slowed and load.usual_ticks == 1]
        assert all(load.cost <= cheapest_slowed for load in untouched)


def next_ticks(load: Load, window: int, count: int) -> list[int]:
    ticks = [0]
    for _ in range(count):
        ticks.append(load.next_tick(ticks[-1], window))
    return ticks[1:]


def slowed(per_window: int, every_windows: int = 1) -> Load:
    load = Load(1)
    load.per_window, load.every_windows = per_window, every_windows
    return load


@pytest.mark.parametrize(
    ("load", "ticks"),
    [
        (Load(1), [1, 2, 3, 4]),
        (Load(4), [4, 8, 12, 16]),
        (slowed(1), [10, 20, 30, 40]),
        (slowed(3), [4, 7, 10, 14]),
        (slowed(10), [1, 2, 3, 4]),
        (slowed(1, 3), [30, 60, 90, 120]),
    ],
)
def test_readings_are_spread_and_end_the_window(load: Load, ticks: list[int]) -> None:
    assert next_ticks(load, 10, 4) == ticks


def test_a_source_that_became_cheap_is_read_as_before() -> None:
    governor = Governor(0.05, 0.001, 1000)
    governor.start(0.0)
    load = Load(1)
    decide: Callable[[float], None] = lambda now: governor.decide([load], now)  # noqa: E731
    for _ in range(100):
        load.count(0.01)
        governor.spend(0.01)
    assert governor.is_due(0.5)
    decide(1.0)
    assert load.per_window == 5
    assert governor.share == pytest.approx(1.0)
    assert not governor.is_due(1.5)
    for _ in range(5):
        load.count(1e-6)
        governor.spend(1e-6)
    assert governor.is_due(2.0)
    for second in range(2, 22):
        load.count(1e-6)
        decide(float(second))
    assert not load.is_slowed
    assert load.next_tick(7, 1000) == 8

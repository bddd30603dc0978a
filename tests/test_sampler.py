"""What `Sampler` promises, with either backend."""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sysmetrics_native import Sampler, Series, Window
from sysmetrics_native.backends import next_wait
from tests.support import (
    DEFAULT_KEYS,
    PATIENCE_SECONDS,
    STATISTICS,
    assert_on_the_grid,
    open_files,
    position_after,
    retry,
    run_python,
    sampling_threads,
    wait_until,
)

ALL_KEYS = [key for keys in DEFAULT_KEYS.values() for key in keys]


def drain(sampler: Sampler) -> list[Window]:
    """Every window that nobody has taken, of a sampler that was stopped."""
    return list(sampler.windows(timeout=0))


# ---- windows ------------------------------------------------------------------------------------


def test_a_with_block_samples_and_windows_iterates(make_sampler):
    with make_sampler(interval=0.01, samples_per_window=10) as sampler:
        windows = list(itertools.islice(sampler.windows(timeout=PATIENCE_SECONDS), 3))
    assert len(windows) == 3
    for window in windows:
        assert isinstance(window, Window)
        assert window.samples > 0
        assert window.start < window.end <= time.time() + 1
        assert window["system_memory_usage_percentage"].mean is not None


def test_every_series_has_all_statistics_in_order(make_sampler):
    with make_sampler(interval=0.01, samples_per_window=50) as sampler:
        window = sampler.next_window(timeout=PATIENCE_SECONDS)
    assert window is not None
    for key in ALL_KEYS:
        series = window[key]
        assert isinstance(series, Series)
        values = dict(
            zip(STATISTICS, (value for value in series if value is not None), strict=True)
        )
        slack = 1e-9 * values["max"]
        for name, value in values.items():
            assert values["min"] - slack <= value <= values["max"] + slack, (key, name)
        assert values["p50"] <= values["p95"] <= values["p99"]


def test_a_window_is_a_read_only_mapping_of_the_schema(make_sampler):
    with make_sampler(interval=0.01) as sampler:
        window = sampler.next_window(timeout=PATIENCE_SECONDS)
        schema = sampler.schema
    assert window is not None
    assert list(window) == [info.key for info in schema] == ALL_KEYS
    assert len(window) == len(ALL_KEYS)
    assert ALL_KEYS[0] in window
    assert "gpu_0_utilization_percentage" not in window
    with pytest.raises(KeyError, match="gpu_0_utilization_percentage"):
        window["gpu_0_utilization_percentage"]
    with pytest.raises(TypeError):
        window[ALL_KEYS[0]] = Series()
    with pytest.raises(TypeError):
        del window[ALL_KEYS[0]]
    with pytest.raises(AttributeError):
        window[ALL_KEYS[0]].mean = 0.0


def test_a_window_can_be_sent_to_another_process(make_sampler):
    with make_sampler(interval=0.01) as sampler:
        window = sampler.next_window(timeout=PATIENCE_SECONDS)
    assert window is not None
    copy = pickle.loads(pickle.dumps(window))
    assert dict(copy) == dict(window)
    assert (copy.start, copy.end, copy.samples) == (window.start, window.end, window.samples)


def test_the_schema_is_the_same_with_every_backend(make_sampler):
    described = [tuple(info) for info in make_sampler().schema]
    assert described == [
        ("cpu_utilization_percentage", "percentage", "cpu", "ratio"),
        ("system_memory_usage_megabytes", "megabytes", "memory", "gauge"),
        ("system_memory_usage_percentage", "percentage", "memory", "gauge"),
        ("disk_usage_percentage", "percentage", "disk_space", "gauge"),
        ("disk_usage_megabytes", "megabytes", "disk_space", "gauge"),
        ("disk_available_megabytes", "megabytes", "disk_space", "gauge"),
        ("network_receive_megabytes", "megabytes", "network", "total"),
        ("network_transmit_megabytes", "megabytes", "network", "total"),
    ]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ("default", list(DEFAULT_KEYS)),
        (["network", "cpu"], ["cpu", "network"]),
        ("-disk_space", ["cpu", "memory", "network"]),
    ],
)
def test_sources_choose_the_keys(make_sampler, sources, expected):
    with make_sampler(interval=0.01, sources=sources) as sampler:
        window = sampler.next_window(timeout=PATIENCE_SECONDS)
        assert window is not None
        assert list(window) == [key for source in expected for key in DEFAULT_KEYS[source]]
        assert list(sampler.stats()["sources"]) == expected


def test_further_disk_paths_have_a_suffix_and_hide_only_themselves(make_sampler, short_path):
    gone = short_path / "not: there"
    suffix = "_" + "".join(c if c.isalnum() or c in "_.-" else "_" for c in str(gone).strip("/"))
    paths = ["/", str(short_path), str(gone), "/proc"]
    sampler = make_sampler(sources="disk_space", disk_paths=paths)
    with sampler:
        pass
    (window,) = drain(sampler)
    assert len(window) == 12
    assert window["disk_usage_percentage"].mean is not None
    assert window[f"disk_usage_percentage_{str(short_path).strip('/').replace('/', '_')}"].mean
    for key in DEFAULT_KEYS["disk_space"]:
        assert window[key + suffix] == Series()  # it does not exist
        assert window[f"{key}_proc"] == Series()  # it has no blocks


def test_percentiles_can_be_left_out(make_sampler):
    with make_sampler(interval=0.01, samples_per_window=5) as sampler:
        window = sampler.next_window(timeout=PATIENCE_SECONDS, percentiles=False)
    assert window is not None
    series = window["system_memory_usage_megabytes"]
    assert series[:4].count(None) == 0
    assert series[4:] == (None, None, None)


def test_windows_tile_time(make_sampler):
    def check() -> None:
        with make_sampler(interval=0.01, samples_per_window=3) as sampler:
            windows = list(itertools.islice(sampler.windows(timeout=PATIENCE_SECONDS), 10))
        windows += drain(sampler)
        gaps = [later.start - earlier.end for earlier, later in itertools.pairwise(windows)]
        # `start` is the end minus the monotonic length: between the readings of the two clocks
        # the thread may have been interrupted.
        assert max(map(abs, gaps)) < 0.001, gaps

    retry(5, check)


def test_windows_end_on_the_grid_whatever_was_missed(make_sampler):
    with make_sampler(interval=0.005, samples_per_window=5) as sampler:
        windows = list(itertools.islice(sampler.windows(timeout=PATIENCE_SECONDS), 30))
    assert_on_the_grid(windows, 5)


HALTED = """
    import json, sys, threading, time
    from sysmetrics_native import Sampler

    sampler = Sampler(interval=0.01, samples_per_window=5, backend=sys.argv[1])
    before = time.monotonic()
    sampler.start()
    print("sampling", flush=True)
    sys.stdin.read()
    sampler.stop()
    passed = time.monotonic() - before
    windows = [(w.samples, w.missed, w.end - w.start) for w in sampler.windows(timeout=0)]
    print(json.dumps([passed, sampler.stats()["missed"], windows]))
"""


def test_a_process_that_is_halted_misses_ticks_and_stays_on_the_grid(backend):
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HALTED), backend],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "sampling\n"
        for _ in range(6):
            child.send_signal(signal.SIGSTOP)
            time.sleep(0.034)
            child.send_signal(signal.SIGCONT)
            time.sleep(0.13)
        out, _ = child.communicate(timeout=PATIENCE_SECONDS)
    finally:
        child.kill()
        child.communicate()
    passed, missed, numbers = json.loads(out)
    windows = [
        Window({}, start=0.0, end=length, samples=samples, missed=late)
        for samples, late, length in numbers
    ]
    assert missed == sum(window.missed for window in windows) >= 6
    assert position_after(windows) <= passed / 0.01 + 1
    assert_on_the_grid(windows[:-1], 5)
    assert passed - 2 <= sum(window.end for window in windows) <= passed + 0.001


def test_a_window_has_as_many_ticks_as_asked_for(make_sampler):
    """And is as long as they take, where the machine is not too busy for them."""
    windows: list[Window] = []

    def whole() -> list[Window]:
        return [window for window in windows if (window.samples, window.missed) == (5, 0)]

    def has_five() -> bool:
        window = sampler.next_window(timeout=PATIENCE_SECONDS)
        assert window is not None
        windows.append(window)
        return len(whole()) >= 5

    with make_sampler(interval=0.02, samples_per_window=5) as sampler:
        wait_until(has_five, "windows without a missed tick")
    assert_on_the_grid(windows, 5)
    # A tick that is later than the next one is due was missed.
    lengths = sorted(window.end - window.start for window in whole())
    assert lengths[len(lengths) // 2] == pytest.approx(0.1, abs=0.02)


def test_ticks_keep_to_the_grid(make_sampler):
    """Counted against the time that passed, so there is no drift."""
    interval = 0.01
    sampler = make_sampler(interval=interval, samples_per_window=7)
    before_start = time.monotonic()
    sampler.start()
    after_start = time.monotonic()
    windows = list(itertools.islice(sampler.windows(timeout=PATIENCE_SECONDS), 10))
    before_stop = time.monotonic()
    sampler.stop()
    after_stop = time.monotonic()
    windows += drain(sampler)
    least = int((before_stop - after_start) / interval)
    # The last tick is taken at the stop, off the grid; it counts when its window had no other.
    most = int((after_stop - before_start) / interval) + 1
    assert least <= position_after(windows) <= most
    covered = windows[-1].end - windows[0].start
    assert before_stop - after_start - 0.001 <= covered <= after_stop - before_start + 0.001


# ---- the ends of sampling -----------------------------------------------------------------------


def test_stop_closes_the_open_window(make_sampler):
    sampler = make_sampler(interval=0.01, samples_per_window=1_000_000)
    with sampler:
        wait_until(lambda: sampler.stats()["ticks"] >= 20, "20 ticks")
        assert sampler.next_window(timeout=0) is None
    (window,) = drain(sampler)
    assert window.samples == sampler.stats()["ticks"] >= 21
    for key in ALL_KEYS:
        assert window[key].mean is not None
    assert sampler.next_window() is None


def test_stop_right_after_start_gives_a_short_window(make_sampler):
    sampler = make_sampler()
    sampler.start()
    assert sampler.stop() is True
    (window,) = drain(sampler)
    assert (window.samples, window.missed, window.merged) == (1, 0, 0)
    assert 0 <= window.end - window.start < PATIENCE_SECONDS
    assert window["system_memory_usage_megabytes"].mean
    assert window["disk_usage_megabytes"].mean
    assert window["network_receive_megabytes"].last is not None


def test_a_window_too_short_to_tell_the_cpu_leaves_it_out(make_sampler):
    """In a millisecond the kernel has counted no time, or 10 ms: both would be a lie."""

    def short_window() -> Window | None:
        sampler = make_sampler()
        with sampler:
            pass
        (window,) = drain(sampler)
        return window if window.end - window.start < 0.02 else None

    window = wait_until(short_window, "a start and a stop within a moment")
    assert window is not None
    assert window["cpu_utilization_percentage"] == Series()


def test_a_short_run_at_the_default_interval_has_data(make_sampler):
    sampler = make_sampler()
    with sampler:
        time.sleep(0.3)
    (window,) = drain(sampler)
    assert window.end - window.start >= 0.3
    for key in ALL_KEYS:
        assert window[key].mean is not None, key
    cpu = window["cpu_utilization_percentage"].mean
    assert cpu is not None
    assert 0 <= cpu <= 100


def test_stop_is_harmless_twice_and_before_start(make_sampler):
    sampler = make_sampler(interval=0.01)
    assert sampler.stop() is True
    with sampler:
        assert sampler.next_window(timeout=PATIENCE_SECONDS) is not None
        assert sampler.stop() is True
        assert sampler.stop() is True
    assert sampler.stop() is True
    assert sampling_threads() == 0


@pytest.mark.parametrize("use", [lambda s: s.next_window(timeout=0), lambda s: next(s.windows())])
def test_use_before_start_is_an_error(make_sampler, use):
    sampler = make_sampler()
    with pytest.raises(RuntimeError, match=r"not running: use it in `with`, or call start\(\)"):
        use(sampler)


def test_start_while_running_is_harmless(make_sampler):
    with make_sampler(interval=0.01, samples_per_window=3) as sampler:
        first = sampler.next_window(timeout=PATIENCE_SECONDS)
        sampler.start()
        assert sampling_threads() == 1
        second = sampler.next_window(timeout=PATIENCE_SECONDS)
    assert first is not None
    assert second is not None
    assert second.start == pytest.approx(first.end, abs=0.1)


def test_a_stopped_sampler_does_not_start_again(make_sampler):
    sampler = make_sampler(interval=3600)
    with sampler:
        pass
    with pytest.raises(RuntimeError, match="stopped and cannot start again: make a new one"):
        sampler.start()
    with pytest.raises(RuntimeError, match="make a new one"), sampler:
        pass
    assert len(drain(sampler)) == 1, "its windows are still there"


@pytest.mark.parametrize("interval", [0.001, 3600])
def test_stop_is_prompt_at_any_interval(make_sampler, interval):
    sampler = make_sampler(interval=interval)
    sampler.start()
    reader = threading.Thread(target=lambda: list(sampler.windows()))
    reader.start()
    before = time.monotonic()
    assert sampler.stop() is True
    assert time.monotonic() - before < 20
    reader.join(PATIENCE_SECONDS)
    assert not reader.is_alive(), "the reader was not woken"


def test_stop_from_another_thread_hands_the_reader_the_last_window(make_sampler):
    sampler = make_sampler(interval=3600)
    sampler.start()
    stopper = threading.Timer(0.05, sampler.stop)
    stopper.start()
    window = sampler.next_window()
    assert window is not None
    assert window.samples == 1
    assert sampler.next_window() is None
    stopper.join()


# ---- waiting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.05, -1.0, float("nan")])
def test_a_timeout_gives_none_and_ends_nothing(make_sampler, timeout):
    with make_sampler(interval=3600) as sampler:
        before = time.monotonic()
        assert sampler.next_window(timeout=timeout) is None
        waited = time.monotonic() - before
        assert sampler.next_window(timeout=timeout) is None
    if timeout == 0.05:
        assert waited >= 0.05
    assert waited < 20
    assert sampler.next_window(timeout=timeout) is not None


def test_a_timeout_may_be_infinite(make_sampler):
    with make_sampler(interval=0.01) as sampler:
        assert sampler.next_window(timeout=float("inf")) is not None
        taken: list[Window | None] = []
        reader = threading.Thread(target=lambda: taken.append(sampler.next_window(float("inf"))))
        reader.start()
        reader.join(PATIENCE_SECONDS)
        assert taken[0] is not None
        assert sampler.stop(timeout=float("inf")) is True


def test_windows_ends_when_none_came_in_time(make_sampler):
    with make_sampler(interval=3600) as sampler:
        assert list(sampler.windows(timeout=0.02)) == []
        assert list(sampler.windows(timeout=0.02)) == []


def test_windows_ends_when_the_sampler_stops(make_sampler):
    sampler = make_sampler(interval=0.005)
    sampler.start()
    seen = 0
    for _ in sampler.windows():
        seen += 1
        if seen == 3:
            sampler.stop()
    assert seen >= 3


def test_python_runs_while_a_reader_waits(make_sampler):
    sampler = make_sampler(interval=3600)
    sampler.start()
    reader = threading.Thread(target=sampler.next_window)
    reader.start()
    before = time.monotonic()
    for _ in range(100):  # each gives the GIL away and needs it back
        time.sleep(0.0001)
    assert time.monotonic() - before < 20
    assert reader.is_alive(), "it should still wait"
    sampler.stop()
    reader.join(PATIENCE_SECONDS)
    assert not reader.is_alive()


def test_several_readers_share_the_windows(make_sampler):
    sampler = make_sampler(interval=0.001)
    taken: list[list[Window]] = [[] for _ in range(4)]

    def read(mine: list[Window]) -> None:
        mine.extend(sampler.windows())

    with sampler:
        readers = [threading.Thread(target=read, args=(mine,)) for mine in taken]
        for reader in readers:
            reader.start()
        wait_until(lambda: sampler.stats()["ticks"] >= 300, "300 ticks")
    for reader in readers:
        reader.join(PATIENCE_SECONDS)
        assert not reader.is_alive()
    everything = sorted(itertools.chain(*taken), key=lambda window: window.end)
    stats = sampler.stats()
    assert sum(window.samples for window in everything) == stats["ticks"]
    assert sum(window.missed for window in everything) == stats["missed"]
    ends = [window.end for window in everything]
    assert len(set(ends)) == len(ends), "a window was given out twice"


def test_a_late_reader_gets_merged_windows_that_cover_all_the_time(make_sampler):
    interval = 0.001
    sampler = make_sampler(interval=interval, samples_per_window=1)
    before = time.monotonic()
    sampler.start()
    after_start = time.monotonic()
    wait_until(lambda: sampler.stats()["merged_windows"] >= 30, "30 merges")
    before_stop = time.monotonic()
    sampler.stop()
    after = time.monotonic()
    windows = drain(sampler)
    stats = sampler.stats()
    assert len(windows) == 64, "the bound on windows that wait"
    assert sum(window.merged for window in windows) == stats["merged_windows"] >= 30
    assert sum(window.samples for window in windows) == stats["ticks"]
    assert sum(window.missed for window in windows) == stats["missed"]
    assert (before_stop - after_start) / interval - 1 <= position_after(windows)
    assert position_after(windows) <= (after - before) / interval + 1
    covered = windows[-1].end - windows[0].start
    assert before_stop - after_start - 0.01 <= covered <= after - before + 0.01
    oldest = windows[0]
    assert oldest.merged > 0
    assert oldest.samples > 1
    for key in DEFAULT_KEYS["memory"]:
        assert None not in oldest[key][:4]
        assert oldest[key][4:] == (None, None, None), "percentiles cannot be merged"
    assert windows[-1].merged == 0
    assert None not in windows[-2]["system_memory_usage_megabytes"]


# ---- stats --------------------------------------------------------------------------------------


def test_stats_say_what_happened(make_sampler):
    sampler = make_sampler(interval=0.01, samples_per_window=5)
    fresh = sampler.stats()
    assert (fresh["ticks"], fresh["missed"], fresh["merged_windows"]) == (0, 0, 0)
    assert fresh["overhead"] == {"budget": 1.0, "share": None}
    before = time.monotonic()
    with sampler:
        windows = list(itertools.islice(sampler.windows(timeout=PATIENCE_SECONDS), 4))
    seconds = time.monotonic() - before
    windows += drain(sampler)
    stats = sampler.stats()
    if (share := stats["overhead"]["share"]) is not None:  # it took a second
        assert 0 < share < 1
    assert set(stats) == {
        "ticks",
        "missed",
        "merged_windows",
        "overhead",
        "sources",
        "recorder",
    }
    assert stats["recorder"] is None
    assert stats["ticks"] == sum(window.samples for window in windows)
    assert stats["missed"] == sum(window.missed for window in windows)
    assert stats["merged_windows"] == 0
    assert list(stats["sources"]) == list(DEFAULT_KEYS)
    for name, source in stats["sources"].items():
        assert list(source) == [
            "calls",
            "errors",
            "interval_seconds",
            "usual_interval_seconds",
            "mean_cost_seconds",
            "max_cost_seconds",
        ]
        assert source["errors"] == 0
        assert 0 < source["mean_cost_seconds"] <= source["max_cost_seconds"] < PATIENCE_SECONDS
        if name == "disk_space":  # the first reading, one at the end of each window, one a second
            assert len(windows) + 1 <= source["calls"] <= len(windows) + 1 + seconds
            assert source["interval_seconds"] == 1.0
        else:
            assert source["calls"] == stats["ticks"] + 1
            assert source["interval_seconds"] == 0.01


def test_a_source_without_a_value_is_counted(make_sampler, tmp_path):
    sampler = make_sampler(sources="disk_space", disk_paths=str(tmp_path / "missing"))
    with sampler:
        pass
    (window,) = drain(sampler)
    assert all(series == Series() for series in window.values())
    assert sampler.stats()["sources"]["disk_space"]["errors"] == 2


# ---- many of them, and their end ----------------------------------------------------------------


def test_many_samplers_live_side_by_side(make_sampler):
    samplers = [make_sampler(interval=0.02, samples_per_window=i % 3 + 1) for i in range(20)]
    for sampler in samplers:
        sampler.start()
    wait_until(lambda: sampling_threads() == 20, "all threads to have their name")
    for sampler in samplers:
        window = sampler.next_window(timeout=PATIENCE_SECONDS)
        assert window is not None
        assert window["system_memory_usage_megabytes"].mean
    for sampler in samplers:
        assert sampler.stop() is True
    assert sampling_threads() == 0


def start_and_drop(backend: str) -> None:
    Sampler(interval=0.01, backend=backend).start()


def start_and_drop_iterator(backend: str) -> None:
    sampler = Sampler(interval=0.01, backend=backend)
    sampler.start()
    windows = sampler.windows(timeout=PATIENCE_SECONDS)
    next(windows)


def make_and_drop(backend: str) -> None:
    Sampler(interval=0.01, backend=backend)


def drop_in_a_cycle(backend: str) -> None:
    sampler = Sampler(interval=0.01, backend=backend)
    sampler.start()
    sampler.myself = sampler  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "leave", [start_and_drop, start_and_drop_iterator, make_and_drop, drop_in_a_cycle]
)
def test_a_sampler_nobody_stopped_leaves_nothing_behind(backend, leave):
    leave(backend)  # what is loaded once stays
    gc.collect()
    wait_until(lambda: sampling_threads() == 0, "the thread to end")
    files = open_files()
    for _ in range(5):
        leave(backend)
    gc.collect()
    wait_until(lambda: sampling_threads() == 0, "the threads to end")
    assert open_files() == files


def test_samplers_come_and_go_without_a_trace(make_sampler, backend):
    with make_sampler(interval=0.001):
        pass
    files = open_files()
    for _ in range(30):
        with Sampler(interval=0.001, backend=backend) as sampler:
            sampler.next_window(timeout=0)
        del sampler
    gc.collect()
    assert open_files() == files
    assert sampling_threads() == 0


@pytest.mark.native
def test_the_native_thread_has_a_name_and_takes_no_signals():
    with Sampler(interval=0.01, backend="native"):
        wait_until(lambda: sampling_threads() == 1, "the thread to have its name")
        python = {thread.native_id for thread in threading.enumerate()}
        (ours,) = [
            task
            for task in Path("/proc/self/task").iterdir()
            if int(task.name) not in python
            and (task / "comm").read_text(encoding="ascii") == "smn-host\n"
        ]
        status = (ours / "status").read_text(encoding="ascii")
        (line,) = [line for line in status.splitlines() if line.startswith("SigBlk:")]
        blocked = int(line.split()[1], 16)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            assert blocked >> (number - 1) & 1, f"signal {number} is not blocked"


# ---- signals ------------------------------------------------------------------------------------


@pytest.fixture
def on_alarm() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Has a handler called 50 ms from now."""

    def arrange(handler: Callable[[], None]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: handler())
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    before = signal.getsignal(signal.SIGALRM)
    yield arrange
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_signal_is_handled_while_waiting_and_the_wait_goes_on(make_sampler, on_alarm):
    handled: list[float] = []
    with make_sampler(interval=3600) as sampler:
        before = time.monotonic()
        on_alarm(lambda: handled.append(time.monotonic()))
        stopper = threading.Timer(1.5, sampler.stop)
        stopper.start()
        assert sampler.next_window() is not None
        after = time.monotonic()
        stopper.join()
    assert len(handled) == 1
    assert handled[0] < after - 0.1, "only handled once the wait was over"
    assert after - before >= 1.4


def test_a_signal_handler_that_raises_ends_the_wait(make_sampler, on_alarm):
    class AlarmError(Exception):
        pass

    def fail() -> None:
        raise AlarmError

    # On a busy machine the signal may come before the wait begins.
    with make_sampler(interval=3600) as sampler, pytest.raises(AlarmError):  # noqa: PT012
        on_alarm(fail)
        sampler.next_window()
    assert len(drain(sampler)) == 1


def test_the_main_thread_waits_in_slices_so_that_signals_are_handled():
    """On Windows nothing interrupts a wait, and anywhere a signal may come just before it."""
    assert next_wait(None) == 0.5
    assert next_wait(time.monotonic() + 100) == 0.5
    assert 0 < (next_wait(time.monotonic() + 0.3) or 0) <= 0.3
    waits: list[float | None] = []

    def look() -> None:
        waits.extend([next_wait(None), next_wait(time.monotonic() + 100), next_wait(math.inf)])

    other = threading.Thread(target=look)
    other.start()
    other.join()
    assert waits == [None, pytest.approx(100, abs=10), threading.TIMEOUT_MAX]


INTERRUPTED = """
    import sys
    from sysmetrics_native import Sampler

    with Sampler(interval=3600, backend=sys.argv[1]) as sampler:
        try:
            print("waiting", flush=True)
            sampler.next_window()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    print(sampler.next_window() is not None)
"""


@pytest.mark.parametrize("moment", ["before the wait begins, perhaps", "while it sleeps"])
def test_ctrl_c_ends_a_wait_without_limit(backend, moment):
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        if moment == "while it sleeps":
            stat = Path(f"/proc/{child.pid}/stat")
            wait_until(lambda: ") S " in stat.read_text(encoding="ascii"), "the child to sleep")
        before = time.monotonic()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE_SECONDS)
        assert time.monotonic() - before < 20
        assert (out, err, child.returncode) == ("interrupted\nTrue\n", "", 0)
    finally:
        child.kill()
        child.communicate()


# ---- other processes ----------------------------------------------------------------------------


def child_exit_code(pid: int) -> int:
    """Waits for a forked child, which must not hang."""

    def ended() -> tuple[int, ...]:
        found, status = os.waitpid(pid, os.WNOHANG)
        return (found, status) if found else ()

    try:
        _, status = wait_until(ended, "the forked child to exit")
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    return os.waitstatus_to_exitcode(status)


def behave_as_a_child(sampler: Sampler, backend: str) -> None:
    assert sampler.next_window() is None
    assert list(sampler.windows()) == []
    assert sampler.stats()["sources"]
    sampler.stop()
    assert sampler.stop() is True
    assert sampler.next_window(timeout=None) is None
    assert sampling_threads() == 0
    with Sampler(interval=0.01, backend=backend) as mine:
        window = mine.next_window(timeout=PATIENCE_SECONDS)
        assert window is not None
        assert window["system_memory_usage_megabytes"].mean


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("state", ["running", "stopped", "not started"])
def test_a_forked_child_has_no_sampler_and_the_parent_keeps_its_own(make_sampler, backend, state):
    sampler = make_sampler(interval=0.005)
    unstarted = make_sampler(interval=0.005)
    if state != "not started":
        sampler.start()
        assert sampler.next_window(timeout=PATIENCE_SECONDS) is not None
    if state == "stopped":
        sampler.stop()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if state == "not started":
                sampler.start()
                sampler.next_window()
            else:
                behave_as_a_child(sampler, backend)
            del sampler, unstarted
            gc.collect()
            code = 0
        finally:
            os._exit(code)
    assert child_exit_code(pid) == 0
    if state == "not started":
        sampler.start()
    if state != "stopped":
        taken = sampler.stats()["ticks"]
        wait_until(lambda: sampler.stats()["ticks"] > taken, "the parent to sample on")
        assert sampler.next_window(timeout=PATIENCE_SECONDS) is not None
    assert sampler.stop() is True


FORKED = """
    import os, sys
    from sysmetrics_native import Sampler

    sampler = Sampler(interval=0.002, backend=sys.argv[1])
    sampler.start()
    for _ in range(5):
        assert sampler.next_window(timeout=30) is not None
        pid = os.fork()
        if pid == 0:
            break
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    else:
        assert sampler.next_window(timeout=30) is not None
        print("parent")
    # Both end like any program, with everything still there.
"""


def test_a_forked_child_exits_like_any_program(backend):
    # Newer Pythons warn of every fork beside threads.
    result = run_python(FORKED, backend, options=("-W", "ignore::DeprecationWarning"))
    assert (result.stdout, result.stderr, result.returncode) == ("parent\n", "", 0)


MULTIPROCESSING = """
    import multiprocessing, sys, warnings
    from sysmetrics_native import Sampler

    warnings.simplefilter("ignore", DeprecationWarning)
    inherited = None

    def work(backend):
        if inherited is not None:
            assert inherited.next_window() is None
        with Sampler(interval=0.005, backend=backend) as mine:
            return mine.next_window(timeout=30)["system_memory_usage_megabytes"].mean

    if __name__ == "__main__":
        method, backend = sys.argv[1:]
        context = multiprocessing.get_context(method)
        with Sampler(interval=0.005, backend=backend) as sampler:
            if method == "fork":
                inherited = sampler
            with context.Pool(2) as pool:
                results = pool.map(work, [backend] * 4)
            assert sampler.next_window(timeout=30) is not None
        print(len(results), all(value > 0 for value in results))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_worker_processes_have_samplers_of_their_own(backend, method, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(MULTIPROCESSING), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, str(program), method, backend],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
        check=False,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("4 True\n", "", 0)


EXITS = {
    "while sampling": """
        sampler.next_window(timeout=30)
    """,
    "while a thread waits": """
        import threading
        threading.Thread(target=lambda: list(sampler.windows()), daemon=True).start()
        sampler.next_window(timeout=30)
    """,
    "inside with": """
        with sampler:
            sampler.next_window(timeout=30)
            sys.exit(0)
    """,
    "with a slow tick ahead": """
        slow = Sampler(interval=3600, backend=sys.argv[1])
        slow.start()
    """,
    "in a reference cycle": """
        sampler.windows_ahead = sampler.windows()
        next(sampler.windows_ahead)
    """,
}


@pytest.mark.parametrize("moment", EXITS)
def test_the_interpreter_exits_while_sampling(backend, moment):
    program = """
        import sys, time
        from sysmetrics_native import Sampler
        sampler = Sampler(interval=0.001, backend=sys.argv[1])
        sampler.start()
    """
    end = """
        print(time.time(), flush=True)
    """
    lines = [textwrap.dedent(part) for part in (program, EXITS[moment], end)]
    if moment == "inside with":
        lines[1:] = ["print(time.time(), flush=True)", lines[1]]
    result = run_python("\n".join(lines), backend, options=("-X", "dev"))
    assert (result.stderr, result.returncode) == ("", 0)
    assert time.time() - float(result.stdout) < 20

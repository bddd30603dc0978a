"""The arithmetic of windows: against a recomputation, and Python's against C's."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sysmetrics_native import Series
from sysmetrics_native.backends.fold import (
    ClosedWindow,
    Fold,
    OpenWindow,
    Reading,
    RowTime,
    SeriesSpec,
)
from sysmetrics_native.window import SeriesInfo
from tests.procfs_tree import (
    ProcfsTree,
    calls,
    only_window,
    wait_for_next_reading,
    wait_for_reading,
    windows_of,
)
from tests.support import wait_until

QUANTUM = 10.0
RATIO = SeriesSpec(SeriesInfo("share", "percentage", "test", "ratio"), 100.0, QUANTUM)
PLAIN_RATIO = SeriesSpec(SeriesInfo("share", "percentage", "test", "ratio"), 100.0)
GAUGE = SeriesSpec(SeriesInfo("level", "megabytes", "test", "gauge"), 1e-6)
TOTAL = SeriesSpec(SeriesInfo("sum", "megabytes", "test", "total"), 1e-6)

Counters = tuple[float, float]


# ---- the same once more, without any state ------------------------------------------------------


def naive_increases(readings: Sequence[Counters]) -> list[Counters]:
    """From each reading to the next; where one of the counters fell, none."""
    pairs = itertools.pairwise(readings)
    gained = [(now[0] - before[0], now[1] - before[1]) for before, now in pairs]
    return [one for one in gained if min(one) >= 0]


def naive_spans(increases: Iterable[Counters], quantum: float) -> list[float]:
    """Stretches just long enough to mean something; a rest at the end belongs to the last."""
    stretches: list[Counters] = []
    top = bottom = 0.0
    for numerator, denominator in increases:
        top, bottom = top + numerator, bottom + denominator
        if bottom > 0 and bottom >= quantum:
            stretches.append((top, bottom))
            top = bottom = 0.0
    if stretches:
        last = stretches.pop()
        top, bottom = top + last[0], bottom + last[1]
    if bottom > 0:
        stretches.append((top, bottom))
    return [100.0 * numerator / denominator for numerator, denominator in stretches]


def naive_statistics(mean: float | None, values: Sequence[float]) -> Series:
    if not values:
        return Series(mean)
    ranks = [values[0]] * 3
    if len(values) > 1:
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        ranks = [cuts[49], cuts[94], cuts[98]]
    return Series(mean, min(values), max(values), values[-1], *ranks)


def naive_ratio(readings: Sequence[Counters], quantum: float, *, partial: bool = False) -> Series:
    increases = naive_increases(readings)
    top = sum(numerator for numerator, _ in increases)
    bottom = sum(denominator for _, denominator in increases)
    if bottom == 0 or (partial and bottom < quantum):
        return Series()
    return naive_statistics(100.0 * top / bottom, naive_spans(increases, quantum))


def assert_same(found: Series, expected: Series) -> None:
    for name, value, wanted in zip(Series._fields, found, expected, strict=True):
        if wanted is None:
            assert value is None, name
        else:
            assert value == pytest.approx(wanted, rel=1e-9, abs=1e-9), name


def assert_ordered(series: Series) -> None:
    """Everything lies between the extremes."""
    if series.min is None or series.max is None:
        return
    slack = 1e-9 * max(abs(series.min), abs(series.max))
    for value in series:
        if value is not None:
            assert series.min - slack <= value <= series.max + slack


def fold_of(spec: SeriesSpec, readings: Sequence[Reading], *, partial: bool = False) -> Fold:
    """A window whose first reading is the last one of the window before."""
    fold = Fold(spec, readings[0])
    for reading in readings[1:]:
        fold.add(reading)
    fold.close(partial=partial)
    return fold


# ---- one window ---------------------------------------------------------------------------------

LEVELS = st.lists(st.integers(0, 2**50).map(float), max_size=40)
STEPS = st.tuples(st.integers(0, 60), st.integers(0, 60))
"""What two counters gain; the second may be less than the first, as no real one is."""
COUNTERS = st.lists(st.one_of(STEPS, STEPS, STEPS, st.just("reset")), max_size=40)
SHARES = st.lists(
    st.one_of(STEPS.map(lambda step: (min(step), max(step))), st.just("reset")), max_size=40
)
"""Counters of which the first is a part of the second, as real ones are."""


def counted(steps: Iterable[tuple[int, int] | str], start: Counters = (0.0, 0.0)) -> list[Counters]:
    """Readings of two counters; a reset puts both back to nothing."""
    readings = [start]
    for step in steps:
        if isinstance(step, str):
            readings.append((0.0, 0.0))
        else:
            readings.append((readings[-1][0] + step[0], readings[-1][1] + step[1]))
    return readings


@given(LEVELS)
@pytest.mark.parametrize("spec", [GAUGE, TOTAL])
def test_readings_are_summed_up(spec, levels):
    fold = Fold(spec, None)
    for level in levels:
        fold.add(level)
    fold.close(partial=False)
    scaled = [level * 1e-6 for level in levels]
    mean = sum(levels) / len(levels) * 1e-6 if levels else None
    series = fold.series(percentiles=True)
    assert_same(series, naive_statistics(mean, scaled))
    assert_ordered(series)


@given(COUNTERS, st.booleans())
@example([], False)
@example([(1, 0)], False)
@example([(1, 9)], True)
@example([(1, 9)], False)
@example([(0, 10), (5, 1)], False)
@example([(50, 60), "reset", (1, 10), (60, 60)], False)
@pytest.mark.parametrize("spec", [RATIO, PLAIN_RATIO])
def test_counters_are_divided(spec, steps, partial):
    readings = counted(steps, start=(1e6, 1e7))
    series = fold_of(spec, readings, partial=partial).series(percentiles=True)
    assert_same(series, naive_ratio(readings, spec.quantum, partial=partial))
    assert_ordered(series)


@given(SHARES)
def test_a_ratio_of_what_is_part_of_a_whole_stays_within_its_bounds(steps):
    series = fold_of(RATIO, counted(steps)).series(percentiles=True)
    assert all(value is None or 0.0 <= value <= 100.0 for value in series)


@given(COUNTERS, st.lists(st.integers(0, 40), max_size=10))
def test_readings_that_say_nothing_new_change_nothing(steps, again):
    readings = counted(steps)
    repeated = list(readings)
    for place in sorted(again, reverse=True):
        if place < len(repeated):
            repeated.insert(place, repeated[place])
    once = fold_of(RATIO, readings).series(percentiles=True)
    assert_same(fold_of(RATIO, repeated).series(percentiles=True), once)


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        # One of them is reset: nothing of that tick counts, and the next starts from there.
        ([(0.0, 0.0), (50.0, 100.0), (3.0, 5.0), (13.0, 105.0)], 30.0),
        ([(0.0, 0.0), (50.0, 100.0), (10.0, 200.0), (110.0, 300.0)], 75.0),
        ([(0.0, 0.0), (50.0, 100.0), (60.0, 20.0), (160.0, 120.0)], 75.0),
        ([(9.0, 9.0), (0.0, 0.0)], None),
    ],
)
def test_a_counter_that_fell_is_no_spike(readings, expected):
    series = fold_of(PLAIN_RATIO, readings).series(percentiles=True)
    assert series.mean == expected
    assert expected is None or (series.max is not None and series.max <= 100.0)


def test_the_first_reading_ever_has_nothing_to_compare_with():
    fold = Fold(RATIO, None)
    fold.add((1e9, 2e9))
    fold.close(partial=False)
    assert fold.series(percentiles=True) == Series()
    fold = Fold(RATIO, None)
    fold.add((1e9, 2e9))
    fold.add((1e9 + 5, 2e9 + 20))
    fold.close(partial=False)
    assert fold.series(percentiles=True).mean == 25.0


def test_percentiles_are_absent_where_nobody_wants_them():
    fold = Fold(GAUGE, None)
    fold.add(3e6)
    assert fold.series(percentiles=False) == Series(3.0, 3.0, 3.0, 3.0)


# ---- windows in a row, and merged ---------------------------------------------------------------


class Script:
    """Windows of one series, closed one after the other."""

    def __init__(self, spec: SeriesSpec, first: Reading | None) -> None:
        spec = spec._replace(info=spec.info._replace(key="key"))
        readings = {} if first is None else {"key": first}
        self.tick = 0
        self.open = OpenWindow.first([spec], self.time(), readings, samples_per_window=1)

    def time(self) -> RowTime:
        passed_ns = self.tick * 500_000_000
        return RowTime(self.tick, passed_ns, 1_000_000_000_000 + passed_ns)

    def window(self, readings: Iterable[Reading | None], skipped: int = 0) -> ClosedWindow:
        self.tick += skipped
        for reading in readings:
            self.tick += 1
            self.open.add(self.time(), {} if reading is None else {"key": reading})
        closed = self.open.close()
        self.open = self.open.next()
        return closed


@given(st.lists(COUNTERS, min_size=1, max_size=6))
def test_windows_share_their_boundary_so_nothing_is_lost_between_them(parts):
    readings = counted(itertools.chain(*parts), start=(5.0, 50.0))
    script = Script(PLAIN_RATIO, readings[0])
    place = 0
    top = bottom = 0.0
    for part in parts:
        closed = script.window(readings[place + 1 : place + 1 + len(part)])
        mine = readings[place : place + 1 + len(part)]
        assert_same(closed.window(percentiles=True)["key"], naive_ratio(mine, 0.0))
        top += closed.folds["key"].numerator
        bottom += closed.folds["key"].denominator
        place += len(part)
    increases = naive_increases(readings)
    assert (top, bottom) == (sum(i[0] for i in increases), sum(i[1] for i in increases))


@given(st.lists(st.tuples(SHARES, st.integers(0, 5)), min_size=2, max_size=6))
@example([([(1, 2)], 0), ([], 3), ([], 0)])
def test_merged_windows_tell_what_one_long_window_would(parts):
    parts = [*parts, ([(1, 2)], 0)]  # ticks are missed when there is one again
    readings = counted(itertools.chain(*(part for part, _ in parts)))
    script = Script(PLAIN_RATIO, readings[0])
    windows = []
    place = 1
    for part, skipped in parts:
        windows.append(script.window(readings[place : place + len(part)], skipped))
        place += len(part)
    for older, newer in itertools.pairwise(windows):
        newer.merge_older(older)
    merged = windows[-1].window(percentiles=True)
    whole = naive_ratio(readings, 0.0)
    assert_same(merged["key"], whole._replace(p50=None, p95=None, p99=None))
    assert_ordered(merged["key"])
    assert merged.merged == len(parts) - 1
    assert merged.samples == len(readings) - 1
    assert merged.missed == sum(skipped for _, skipped in parts)
    assert merged.start == pytest.approx(1000.0)
    assert merged.end == pytest.approx(1000.0 + (merged.samples + merged.missed) * 0.5)


@given(st.lists(LEVELS, min_size=2, max_size=6))
def test_merged_gauges_keep_mean_extremes_and_the_last_value(parts):
    script = Script(GAUGE, None)
    windows = [script.window(part) for part in parts]
    for older, newer in itertools.pairwise(windows):
        newer.merge_older(older)
    levels = [level * 1e-6 for part in parts for level in part]
    series = windows[-1].window(percentiles=True)["key"]
    expected = naive_statistics(statistics.fmean(levels) if levels else None, levels)
    assert_same(series, expected._replace(p50=None, p95=None, p99=None))
    assert_ordered(series)


def test_ticks_without_a_value_count_as_ticks():
    script = Script(GAUGE, None)
    window = script.window([None, 4e6, None, None, 2e6], skipped=3).window(percentiles=True)
    assert window["key"] == Series(3.0, 2.0, 4.0, 2.0, 3.0, 3.9, 3.98)
    assert (window.samples, window.missed) == (5, 3)
    assert script.window([None, None]).window(percentiles=True)["key"] == Series()


def test_a_last_reading_between_two_ticks_hides_no_missed_one():
    spec = SeriesSpec(SeriesInfo("key", "u", "s", "gauge"))
    window = OpenWindow.first([spec], RowTime(0, 0, 0), {}, samples_per_window=10)
    for tick in (2, 4, 4):
        window.add(RowTime(tick, tick, tick), {"key": 1.0})
    closed = window.close().window(percentiles=True)
    assert (closed.samples, closed.missed) == (3, 2)


def test_a_rate_is_the_increase_over_the_time_that_passed():
    """However many rows lack it, and in the last, cut short window, too."""
    spec = SeriesSpec(SeriesInfo("key", "u", "s", "rate"), scale=0.5)
    time = RowTime(0, 5_000_000_000, 0)
    window = OpenWindow.first([spec], time, {"key": 100.0}, samples_per_window=4)
    for tick, counter in ((1, 104.0), (2, None), (3, 104.0), (4, 124.0), (5, 120.0), (6, 130.0)):
        time = RowTime(tick, time.monotonic_ns + 2_000_000_000, 0)
        window.add(time, {} if counter is None else {"key": counter})
        if window.ends_at(tick):
            whole = window.close().window(percentiles=True)["key"]
            window = window.next()
    assert list(whole) == pytest.approx([1.5, 0.0, 5.0, 5.0, 1.0, 4.6, 4.92])
    # The counter fell once: that stretch tells nothing, the one after it does.
    cut_short = window.close().window(percentiles=False)["key"]
    assert list(cut_short) == [*[pytest.approx(2.5)] * 4, None, None, None]


# ---- the two implementations agree --------------------------------------------------------------


def stat_fields(reading: Counters) -> list[int]:
    """Fields of /proc/stat of which the C core makes these counters, busy and total."""
    busy, total = (int(value) for value in reading)
    return [busy // 2, 0, busy - busy // 2, total - busy, 0, 0, 0, 0, 0, 0]


def cpu_script(seed: int, steps: int, most: int) -> list[Counters]:
    chance = random.Random(seed)
    readings = [(1000.0, 5000.0)]
    for _ in range(steps):
        total = chance.randint(1, most)
        readings.append((readings[-1][0] + chance.randint(0, total), readings[-1][1] + total))
    return readings


@pytest.mark.native
@pytest.mark.parametrize(("seed", "most"), [(1, 4), (2, 25), (3, 400), (4, 9)])
def test_c_and_python_agree_on_a_ratio(tree: ProcfsTree, seed, most):
    """How often the C core reads each value is the machine's affair, and must not matter."""
    readings = cpu_script(seed, 40, most)
    tree.write_stat(stat_fields(readings[0]))
    sampler = tree.sampler(interval=0.001, samples_per_window=1_000_000, sources="cpu")
    with sampler:
        for reading in readings[1:]:
            tree.write_stat(stat_fields(reading))
            wait_for_reading(sampler, "cpu")
    native = only_window(sampler)["cpu_utilization_percentage"]
    ours = fold_of(RATIO, readings, partial=True).series(percentiles=True)
    assert_same(native, ours)
    assert_same(native, naive_ratio(readings, QUANTUM, partial=True))


@pytest.mark.native
@pytest.mark.parametrize("total", [0, 9, 10, 11])
def test_c_and_python_agree_on_what_is_too_short(tree: ProcfsTree, total):
    readings = [(0.0, 0.0), (5.0, float(total))] if total else [(0.0, 0.0)]
    tree.write_stat(stat_fields(readings[0]))
    sampler = tree.sampler(interval=3600, sources="cpu")
    with sampler:
        tree.write_stat(stat_fields(readings[-1]))
    native = only_window(sampler)["cpu_utilization_percentage"]
    assert_same(native, fold_of(RATIO, readings, partial=True).series(percentiles=True))
    assert (native.mean is None) == (total < 10)


@pytest.mark.native
def test_c_and_python_agree_on_merged_windows(tree: ProcfsTree):
    readings = cpu_script(7, 30, 50)
    tree.write_stat(stat_fields(readings[0]))
    sampler = tree.sampler(interval=0.001, samples_per_window=1, sources="cpu")
    with sampler:
        for reading in readings[1:]:
            tree.write_stat(stat_fields(reading))
            wait_for_reading(sampler, "cpu")
        # Until every window that saw a change has been merged into the oldest.
        merges = sampler.stats()["ticks"] + 1
        wait_until(lambda: sampler.stats()["merged_windows"] >= merges, "the windows to merge")
    native, *later = windows_of(sampler)
    script = Script(RATIO, readings[0])
    windows = [script.window([reading]) for reading in readings[1:]]
    for older, newer in itertools.pairwise(windows):
        newer.merge_older(older)
    ours = windows[-1].window(percentiles=True)["key"]
    assert_same(native["cpu_utilization_percentage"], ours)
    assert all(window["cpu_utilization_percentage"] == Series() for window in later)


@pytest.mark.native
def test_c_and_python_agree_on_gauges_and_totals(tree: ProcfsTree):
    """Here each value must be read exactly once: tried again where a tick came in between."""
    chance = random.Random(5)
    used = [chance.randrange(1, 1000) for _ in range(12)]

    def write(kib: int) -> None:
        tree.write_meminfo(MemTotal=1000, MemAvailable=1000 - kib)

    def feed() -> Series | None:
        write(0)
        sampler = tree.sampler(interval=0.02, samples_per_window=1_000_000, sources="memory")
        in_step = True
        with sampler:
            for place, kib in enumerate(used):
                write(kib)
                in_step = in_step and calls(sampler, "memory") == place + 1
                if place < len(used) - 1:  # the last one is read by the stop
                    wait_for_next_reading(sampler, "memory")
        in_step = in_step and calls(sampler, "memory") == len(used) + 1
        return only_window(sampler)["system_memory_usage_megabytes"] if in_step else None

    native = wait_until(feed, "an undisturbed second")
    assert native is not None
    fold = Fold(GAUGE, None)
    for kib in used:
        fold.add(kib * 1024.0)
    fold.close(partial=True)
    assert_same(native, fold.series(percentiles=True))

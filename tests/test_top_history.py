"""The live view's values: from rows, kept, summed up, put into columns."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysmetrics_native.recording_file import RecordedSeries
from sysmetrics_native.top.history import (
    Combination,
    History,
    Readings,
    SeriesHistory,
    WallClock,
    combined,
    merged,
)
from sysmetrics_native.top.stretches import Floats, Stretches, StretchReader, span_ends

NAN = math.nan


def series(
    kind: str, quantum: float = 0.0, scale: float = 1.0, unit: str = "percentage"
) -> RecordedSeries:
    denominator = 1 if kind == "ratio" else None
    return RecordedSeries("x", unit, "test", kind, 0, denominator, scale, quantum)


def rows(*values: float | tuple[float, float]) -> Floats:
    """Columns of rows: numbers, or pairs."""
    return np.array([value if isinstance(value, tuple) else (value, NAN) for value in values])


def seconds(*values: float) -> Floats:
    return np.array(values, float)


def stretches(*values: float, begin: float = 0.0, length: float = 1.0) -> Stretches:
    ends: Floats = begin + length * np.arange(1.0, len(values) + 1)
    return Stretches(ends - length, ends, np.array(values, float))


# ---- from rows ----------------------------------------------------------------------------------


def test_a_gauge_is_its_reading_and_stands_for_the_time_before_it():
    found = StretchReader(series("gauge", scale=2.0), 1.0).take(seconds(1, 2, 3), rows(5, 6, 7))
    assert found.values.tolist() == [10, 12, 14]
    assert found.begins.tolist() == [0, 1, 2]
    assert found.ends.tolist() == [1, 2, 3]


def test_a_missing_gauge_leaves_a_gap():
    reader = StretchReader(series("gauge"), 1.0)
    times = seconds(*range(1, 31))
    values = [1.0] * 10 + [NAN] * 10 + [1.0] * 10
    found = reader.take(times, rows(*values))
    assert len(found.values) == 20
    assert found.ends[10] == 21.0
    assert found.begins[10] >= 18.0


def test_what_is_read_seldom_has_no_gaps():
    """A source that is read every second, in a recording of 100 rows a second."""
    reader = StretchReader(series("gauge"), 0.01)
    times: Floats = np.arange(1.0, 1001.0) * 0.01
    values = np.where(np.arange(1, 1001) % 100 == 0, 5.0, NAN)
    found = [reader.take(times[i : i + 25], rows(*values[i : i + 25])) for i in range(0, 1000, 25)]
    later = [one for one in found if len(one.ends) > 0][1:]
    assert len(later) == 9
    for one in later:
        assert one.ends[0] - one.begins[0] == pytest.approx(1.0)


def test_a_rate_is_the_increase_of_a_counter():
    reader = StretchReader(series("rate", scale=10.0), 1.0)
    assert reader.take(seconds(1), rows(100)).values.tolist() == []
    found = reader.take(seconds(2, 4), rows(103, 109))
    assert found.values.tolist() == [30, 30]
    assert found.begins.tolist() == [1, 2]


def test_a_counter_that_falls_gives_nothing():
    found = StretchReader(series("rate"), 1.0).take(seconds(1, 2, 3, 4), rows(5, 8, 0, 4))
    assert found.values.tolist() == [3, 4]
    assert found.ends.tolist() == [2, 4]


def test_a_total_in_megabytes_is_shown_as_what_it_grows_by():
    reader = StretchReader(series("total", scale=1e-6, unit="megabytes"), 1.0)
    found = reader.take(seconds(1, 2, 3), rows(0, 5e6, 5e6))
    assert found.values.tolist() == [5, 0]
    others = StretchReader(series("total", unit="kills"), 1.0)
    assert others.take(seconds(1, 2), rows(3, 4)).values.tolist() == [3, 4]


def test_a_ratio_waits_until_its_divisor_has_grown_enough():
    """Between two ticks of 10 ms a CPU is either 0 % or 100 % busy."""
    reader = StretchReader(series("ratio", quantum=10.0, scale=100.0), 0.01)
    busy, found = 0, []
    for i in range(100):
        busy += 2 * (i % 2)
        one = reader.take(seconds(i * 0.01), rows((busy, i * 2.0)))
        found += one.values.tolist()
    assert 18 <= len(found) <= 20
    assert all(30 <= value <= 70 for value in found)


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=50),
    st.floats(0, 200),
    st.lists(st.integers(1, 50), max_size=5),
)
def test_batches_make_no_difference(steps, quantum, cuts):
    """The same values come of rows one by one, in batches, and all at once."""
    sums = np.cumsum([0.0, *steps])
    columns = rows(*zip(np.cumsum(sums).tolist(), sums.tolist(), strict=True))
    times = np.arange(1.0, len(columns) + 1)
    whole = StretchReader(series("ratio", quantum=quantum), 1.0).take(times, columns)
    reader = StretchReader(series("ratio", quantum=quantum), 1.0)
    edges = sorted({0, len(times), *(cut for cut in cuts if cut < len(times))})
    parts = [reader.take(times[a:b], columns[a:b]) for a, b in itertools.pairwise(edges)]
    ends = np.concatenate([part.ends for part in parts])
    values = np.concatenate([part.values for part in parts])
    # A sum that is just at the quantum may be on either side of it.
    if len(ends) == len(whole.ends) and np.array_equal(ends, whole.ends):
        assert np.allclose(values, whole.values, rtol=1e-6, atol=1e-6)
    else:
        assert abs(len(ends) - len(whole.ends)) <= len(edges)


def test_span_ends():
    assert span_ends(seconds(1, 2, 3), 0.0).tolist() == [0, 1, 2]
    assert span_ends(seconds(0, 0, 3, 3, 4), 0.0).tolist() == [2, 4]
    assert span_ends(seconds(4, 9, 11, 19, 21, 22), 10.0).tolist() == [2, 4]
    assert span_ends(seconds(), 10.0).tolist() == []


def test_numbers_that_are_none_are_left_out():
    found = StretchReader(series("gauge", scale=1e300), 1.0).take(
        seconds(1, 2, 3), rows(math.inf, 1e300, 1e-300)
    )
    assert found.values.tolist() == [pytest.approx(1.0)]


# ---- kept ---------------------------------------------------------------------------------------


def test_a_burst_of_one_tick_is_seen_however_much_time_is_shown():
    kept = SeriesHistory()
    values = np.ones(6000)
    values[1234] = 98.0
    kept.add(stretches(*values, length=0.01))
    columns = kept.columns(0.0, 1.0, 60)
    assert columns.highs[12] == 98.0
    assert np.delete(columns.highs, 12).tolist() == [1.0] * 59
    assert columns.lows.tolist() == [1.0] * 60
    assert columns.means[12] == pytest.approx(1.97)
    summary = kept.summary(0.0, 60.0)
    assert summary is not None
    assert (summary.low, summary.high) == (1.0, 98.0)
    assert summary.peak == pytest.approx(12.35)


def test_gaps_are_gaps_and_long_stretches_are_not():
    kept = SeriesHistory()
    kept.add(Stretches(seconds(0, 1, 7), seconds(1, 2, 10), seconds(5, 6, 7)))
    highs = kept.columns(0.0, 1.0, 11).highs
    assert highs[:2].tolist() == [5, 6]
    assert np.isnan(highs[2:7]).all()
    assert highs[7:10].tolist() == [7, 7, 7]
    assert np.isnan(highs[10])


def test_a_stretch_that_ends_behind_the_view_is_seen_in_it():
    kept = SeriesHistory()
    kept.add(Stretches(seconds(0), seconds(10), seconds(5)))
    assert kept.columns(2.0, 1.0, 3).highs.tolist() == [5, 5, 5]


def test_what_is_old_is_summed_up_and_keeps_its_extremes():
    kept = SeriesHistory(fine=100, coarse=50)
    values = np.sin(np.arange(20_000)) + 1.0
    values[777] = 50.0
    values[778] = -50.0
    for begin in range(0, len(values), 37):
        part = values[begin : begin + 37]
        kept.add(stretches(*part, begin=begin * 0.1, length=0.1))
    whole = kept.between(-1.0, 2001.0)
    assert whole.shape[1] < 500
    summary = kept.summary(-1.0, 2001.0)
    assert summary is not None
    assert (summary.high, summary.low) == (50.0, -50.0)
    assert summary.peak == pytest.approx(77.8)
    assert summary.mean == pytest.approx(values.mean(), rel=1e-6)
    recent = kept.between(1995.05, 2001.0)
    assert recent.shape[1] == 50, "the last ones are there one by one"
    assert (np.diff(whole[1]) > 0).all()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.floats(0.5, 50))
def test_merging_keeps_extremes_and_the_mean(values, width):
    kept = SeriesHistory()
    kept.add(stretches(*values))
    block = merged(kept.between(-1.0, 1e9), width)
    one = merged(block, math.inf)[:, 0]
    assert one[3] == min(values)
    assert one[5] == max(values)
    assert one[4] == pytest.approx(np.mean(values), rel=1e-6, abs=1e-3)
    assert one[6] == 1.0 + values.index(max(values))


def test_the_current_value_is_none_when_it_is_old():
    kept = SeriesHistory()
    assert kept.current(1.0) is None
    kept.patience = 2.0
    kept.add(stretches(1, 2, 3))
    assert kept.current(3.5) == 3
    assert kept.current(2.5) == 2
    assert kept.current(5.5) is None
    assert kept.current(0.5) is None
    summary = kept.summary(0.0, 6.0)
    assert summary is not None
    assert summary.current is None
    assert kept.summary(10.0, 20.0) is None


# ---- clocks -------------------------------------------------------------------------------------


def test_the_wall_clock_may_be_set():
    clock = WallClock()
    assert clock.at(5.0) == 5.0
    clock.see(seconds(1, 2), seconds(1001, 2 + 1000.001))
    clock.see(seconds(3, 4), seconds(503, 504))
    assert clock.at(0.5) == pytest.approx(1000.5)
    assert clock.at(2.5) == pytest.approx(1002.5)
    assert clock.at(3.0) == pytest.approx(503.0)
    assert clock.at(10.0) == pytest.approx(510.0)


# ---- all of it ----------------------------------------------------------------------------------


def both() -> History:
    pair = (
        RecordedSeries("a", "megabytes per second", "test", "rate", 0, None, 1.0, 0.0),
        RecordedSeries("b", "megabytes per second", "test", "rate", 1, None, 1.0, 0.0),
    )
    total = Combination("sum", ("a", "b"), lambda parts: np.sum(parts, axis=0))
    return History(pair, [total], 1.0)


def add(history: History, *ticks: tuple[float, float, float]) -> None:
    """Rows of (seconds, a, b); the wall clock is 1000 s ahead."""
    table = np.array(ticks, float)
    times = np.round(table[:, 0] * 1e9)
    history.add_rows(
        times.astype(np.uint64), (times + 1_000_000_000_000).astype(np.int64), table[:, 1:]
    )


def test_a_combination_is_made_where_all_its_parts_are():
    history = both()
    add(history, (1, 0, 0), (2, 1, 10), (3, 2, NAN), (4, 3, 30))
    assert history["a"].between(0, 9)[4].tolist() == [1, 1, 1]
    assert history["b"].between(0, 9)[4].tolist() == [10, 10]
    assert history["sum"].between(0, 9)[4].tolist() == [11, 11]
    assert (history.begin, history.end) == (1.0, 4.0)
    assert history.clock.at(2.0) == pytest.approx(1002.0)


def test_rows_that_go_back_in_time_are_left_out():
    history = both()
    add(history, (10, 0, 0), (11, 1, 1), (5, 2, 2), (11, 3, 3), (12, 4, 4))
    add(history, (12, 9, 9), (13, 5, 5))
    assert history["a"].between(0, 99)[1].tolist() == [11, 12, 13]
    assert history.end == 13.0


def test_combining_takes_what_ends_together():
    one, other = stretches(1, 2, 3), stretches(10, 20, begin=1.0)
    found = combined([one, other], lambda parts: np.max(parts, axis=0))
    assert found.ends.tolist() == [2, 3]
    assert found.values.tolist() == [10, 20]
    assert combined([one, Stretches.none()], lambda parts: parts[0]).ends.tolist() == []


def test_windows_that_lack_a_value_now_and_then_make_no_gap():
    history = History([series("gauge")], interval=0.1)
    readings = [
        Readings(i * 0.1, (i + 1) * 0.1, 500.0 + i * 0.1, {"x": 5.0} if i % 10 == 9 else {})
        for i in range(100)
    ]
    for begin in range(0, 100, 3):
        history.add_readings(readings[begin : begin + 3])
    highs = history["x"].columns(2.0, 0.1, 80).highs
    assert (highs == 5.0).all()
    assert history["x"].current(10.4) == 5.0
    assert history["x"].current(19.0) is None

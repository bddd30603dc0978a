"""Recordings as series over time, fewer values of them, and what the keys of runs say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sysmetrics_native import Sampler, recording
from sysmetrics_native.backends.fold import RowTime
from sysmetrics_native.logged_series import sort_out, unit_and_kind
from sysmetrics_native.recorded_series import read_parts
from sysmetrics_native.recording import Recording
from sysmetrics_native.recording_file import Row
from sysmetrics_native.timeline import (
    Timeline,
    Track,
    downsample,
    duration,
    find_recording,
    open_timeline,
)
from tests.recordings import RUN, damage_row, describe, make_rows, write_recording

SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.smnrec"


@pytest.fixture(params=[1 << 24, 1000, 1])
def chunks(request, monkeypatch) -> int:
    """How many bytes of rows are read at once: all, some rows, one."""
    size = int(request.param)
    monkeypatch.setattr(recording, "_BYTES_OF_ROWS_AT_ONCE", size)
    return size


def tracks_of(path: Path) -> dict[str, Track]:
    return {track.key: track for track in open_timeline(str(path)).tracks}


def row(number: int, columns: tuple[float, ...], *, tick: int | None = None) -> Row:
    """A row at its tick, of half a second each."""
    passed = (number if tick is None else tick) * SECOND_NS // 2
    return Row(
        number,
        RowTime(number if tick is None else tick, 10**12 + passed, START_NS + passed),
        columns,
    )


# ---- the arithmetic is that of windows ----------------------------------------------------------


@pytest.mark.parametrize("samples_per_window", [1, 3, 4, 50])
@pytest.mark.parametrize("capacity", [64, 1024], ids=["the ring has begun again", "all there"])
def test_the_values_are_those_that_windows_are_made_of(path, chunks, capacity, samples_per_window):
    for seed in range(12):
        description = describe(samples_per_window=samples_per_window)
        write_recording(path, make_rows(150, seed), capacity=capacity, description=description)
        with Recording(path) as recorded:
            windows = list(recorded.windows())
            found = list(values_by_window(recorded, samples_per_window))
        compared = 0
        for window, values in zip(windows, found, strict=True):
            for key, series in window.items():
                of_window = values[key]
                assert (series.min is None) == (not of_window), (seed, key)
                if of_window:
                    compared += 1
                    expected = (series.min, series.max, series.last, series.p95)
                    assert (
                        min(of_window),
                        max(of_window),
                        of_window[-1],
                        float(np.percentile(of_window, 95)),
                    ) == pytest.approx(expected, rel=1e-9, abs=1e-9), (seed, key)
        assert compared > 10


def values_by_window(
    recorded: Recording, samples_per_window: int
) -> Iterator[dict[str, list[float]]]:
    """The values in the rows of each window, found by walking through the rows one by one."""
    keys = [series.key for series in recorded.series]
    values: dict[str, list[float]] = {key: [] for key in keys}
    block: int | None = None
    for part in read_parts(recorded):
        columns = []
        for stretches in part.series:
            column = np.full(len(part.rows), np.nan)
            column[stretches.ends] = stretches.values
            columns.append(column.tolist())
        for number, tick in enumerate(part.rows["tick"].tolist()):
            is_first, is_end = (
                block is None,
                block is not None and tick // samples_per_window > block,
            )
            block = tick // samples_per_window
            if is_first:
                continue  # it is part of no window
            for key, column in zip(keys, columns, strict=True):
                if not math.isnan(column[number]):
                    values[key].append(column[number])
            if is_end:
                yield values
                values = {key: [] for key in keys}
    if any(values.values()):
        yield values


def test_each_row_gives_what_its_columns_say(path, chunks):
    nan = math.nan
    write_recording(
        path,
        [
            row(0, (0.0, 0.0, 5e6, 1e6)),
            row(1, (6.0, 12.0, 7e6, 3e6)),
            row(2, (6.0, 32.0, nan, 3e6)),
            row(3, (6.0, 32.0, 9e6, nan)),
            row(4, (16.0, 52.0, 1e6, 7e6)),
        ],
        description=describe(samples_per_window=100),
    )
    tracks = tracks_of(path)
    # Absent readings are no values: a gap of one tick is not shown as one.
    assert tracks["level"].values.tolist() == [5.0, 7.0, 9.0, 1.0]
    assert tracks["level"].times.tolist() == [1.7e9, 1.7e9 + 0.5, 1.7e9 + 1.5, 1.7e9 + 2.0]
    assert tracks["sum"].values.tolist() == [1.0, 3.0, 3.0, 7.0]
    assert tracks["speed"].values.tolist() == pytest.approx([4.0, 0.0, 4.0])
    assert tracks["speed"].times.tolist() == [1.7e9 + 0.5, 1.7e9 + 1.0, 1.7e9 + 2.0]
    assert tracks["share"].values.tolist() == pytest.approx([50.0, 0.0, 50.0])
    assert {track.node for track in tracks.values()} == {"node-7"}
    assert (tracks["speed"].unit, tracks["speed"].kind) == ("megabytes", "rate")
    assert all(track.low is None and track.high is None for track in tracks.values())


def test_a_counter_that_falls_gives_no_value_and_never_a_negative_one(path, chunks):
    sent = [0.0, 1e6, 2e6, 0.0, 1e6, 2e6]
    rows = [row(number, (0.0, 0.0, 0.0, value)) for number, value in enumerate(sent)]
    write_recording(path, rows, description=describe(samples_per_window=1))
    track = tracks_of(path)["speed"]
    assert track.times.tolist() == [1.7e9 + 0.5, 1.7e9 + 1.0, 1.7e9 + 2.0, 1.7e9 + 2.5]
    assert track.values.tolist() == pytest.approx([2.0, 2.0, 2.0, 2.0])
    write_recording(path, make_rows(500))
    assert all(
        (track.values[~np.isnan(track.values)] >= 0).all() for track in tracks_of(path).values()
    )


def test_a_ratio_waits_until_its_denominator_has_grown_enough(path, chunks):
    rows = [row(number, (number, number * 2.0, 0.0, 0.0)) for number in range(13)]
    write_recording(path, rows, description=describe(samples_per_window=12))  # its quantum is 10
    track = tracks_of(path)["share"]
    # Ten steps of two in five rows; the rest of the window, too short, is joined to them.
    assert track.times.tolist() == [1.7e9 + 2.5, 1.7e9 + 6.0]
    assert track.values.tolist() == [50.0, 50.0]


def test_what_is_no_number_is_no_value(path):
    rows = [row(number, (1.0, number * 20.0, math.inf, number * 1e308)) for number in range(4)]
    write_recording(path, rows)
    tracks = tracks_of(path)
    assert set(tracks) == {"share", "sum", "speed"}
    assert np.isfinite(tracks["speed"].values).all()


# ---- time ---------------------------------------------------------------------------------------


def test_missed_ticks_are_a_gap_in_what_was_read_each_tick(path, chunks):
    ticks = [0, 1, 2, 5, 6, 20, 21, 22, 23]
    rows = [row(n, (0.0, 0.0, 1e6, 0.0), tick=tick) for n, tick in enumerate(ticks)]
    write_recording(path, rows)
    track = tracks_of(path)["level"]
    # Up to three intervals are nothing: a busy machine is late now and then.
    assert np.flatnonzero(np.isnan(track.values)).tolist() == [5]
    assert track.times[5] == 1.7e9 + 13 * 0.5
    assert (np.diff(track.times) > 0).all()


def test_rows_that_are_lost_are_a_gap(path, chunks):
    write_recording(path, [row(n, (0.0, 0.0, 1e6, 0.0)) for n in range(10)])
    damage_row(path, 4)
    track = tracks_of(path)["level"]
    assert np.flatnonzero(np.isnan(track.values)).tolist() == [4]
    assert track.times[4] == pytest.approx(1.7e9 + 2.0)


def test_a_source_that_is_read_less_often_has_no_gaps_for_that(path):
    rows = [row(n, (0.0, 0.0, 1e6 if n % 10 == 0 else math.nan, 0.0)) for n in range(100)]
    damage_after = [*rows[:55], *(one for one in rows[56:])]
    write_recording(path, damage_after)
    assert tracks_of(path)["level"].values.tolist() == [1.0] * 10


def test_times_increase_where_the_clock_was_set_back(path):
    rows = []
    for number in range(6):
        one = row(number, (0.0, 0.0, 1e6, 0.0))
        back = 3600 * SECOND_NS if number >= 3 else 0
        rows.append(one._replace(time=one.time._replace(wall_ns=one.time.wall_ns - back)))
    write_recording(path, rows)
    track = tracks_of(path)["level"]
    assert track.times.tolist() == [1.7e9 + number / 2 for number in range(6)]


def test_series_without_a_hole_share_their_times(path):
    write_recording(path, [row(n, (0.0, n * 20.0, 1e6, n * 1e6)) for n in range(5)])
    tracks = tracks_of(path)
    assert tracks["level"].times is tracks["sum"].times


# ---- chunks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [16, 100])
def test_chunks_have_the_rows_that_there_are(path, chunks, capacity):
    write_recording(path, make_rows(60), capacity=capacity)
    damage_row(path, 5)
    with Recording(path) as recorded:
        found = list(recorded.row_chunks())
        assert all(len(rows) > 0 for rows in found)
        together = np.concatenate(found)
        assert together.tobytes() == recorded.rows.tobytes()
    assert chunks > 1 or {len(rows) for rows in found} == {1}


def test_chunks_leave_out_what_is_overwritten_meanwhile(path, monkeypatch):
    monkeypatch.setattr(recording, "_BYTES_OF_ROWS_AT_ONCE", 1)
    rows = make_rows(30)
    write_recording(path, rows[:20], capacity=16)
    with Recording(path) as recorded:
        found = recorded.row_chunks()
        first = [next(found)["sequence"].tolist() for _ in range(3)]
        write_recording(path, rows[:27], capacity=16)  # the same file, with newer rows in the ring
        rest = [chunk["sequence"].tolist() for chunk in found]
    assert first == [[4], [5], [6]]
    assert rest == [[number] for number in range(11, 20)]


def test_an_empty_recording_has_no_tracks(path):
    write_recording(path, [])
    timeline = open_timeline(str(path))
    assert timeline.tracks == ()
    assert (timeline.start, timeline.end) == (1.7e9, 1.7e9)


def test_a_recording_that_is_being_written(tmp_path):
    with Sampler(0.01, 10, recorder=tmp_path) as sampler:
        window = sampler.next_window(timeout=30)
        timeline = open_timeline(str(tmp_path))
        assert timeline.facts["how it ended"] == "still being written"
    by_key = {track.key: track for track in timeline.tracks}
    memory = by_key["system_memory_usage_megabytes"]
    assert window is not None
    assert len(memory.values) >= 1 + window.samples  # one before the first window
    assert np.nanmin(memory.values) > 0
    assert timeline.start == memory.times[0]
    assert timeline.end == memory.times[-1]


# ---- what is said of it -------------------------------------------------------------------------


def test_what_a_recording_says_of_itself(path):
    run = RUN._replace(
        tracking_uri="http://ann:secret@tracking:5000",
        tags={"system/node-7/gpu_0": '{"name":"H100"}', "system/node-7/gpu_1": "[", "note": "x"},
    )
    write_recording(path, make_rows(50), description=describe(run=run))
    timeline = open_timeline(str(path))
    assert (timeline.title, timeline.origin, timeline.interval) == ("a.smnrec", "recording", 0.5)
    facts = dict(timeline.facts)
    assert facts.pop("started").startswith("2023-11-1")
    assert facts.pop("lasted") == duration(timeline.end - timeline.start)
    assert facts == {
        "run": "a1b2c3",
        "tracking server": "http://tracking:5000",
        "host": "nowhere",
        "how it ended": "the sampler was stopped",
        "package": "sysmetrics-native 0.1.0 (native backend)",
        "sampling": "every 0.5 s, 4 in a window",
        "GPU 0 of node-7": "H100",
    }
    assert next(iter(timeline.facts)) == "run"


def test_a_process_that_was_killed_is_said(path):
    write_recording(path, make_rows(5), state=0)
    assert open_timeline(str(path)).facts["how it ended"] == "unknown: it ran on nowhere"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (4.56, "4.56 s"), (60.0, "0:01:00"), (90_000, "1 day, 1:00:00")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_which_recording_is_meant(tmp_path):
    assert find_recording("4f1d0c3a5b6e4c0f9b1a7d2e8c6f5a90") is None
    with pytest.raises(ValueError, match="has no recording"):
        find_recording(str(tmp_path))
    one = tmp_path / "one.smnrec"
    one.write_bytes(b"")
    assert find_recording(str(tmp_path)) == str(one)
    assert find_recording(str(one)) == str(one)
    (tmp_path / "two.smnrec").write_bytes(b"")
    with pytest.raises(ValueError, match="2 recordings: name one"):
        find_recording(str(tmp_path))
    for missing in (str(Path("no", "such")), "missing.smnrec"):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            find_recording(missing)
    with pytest.raises(ValueError, match="not a recording"):
        open_timeline(__file__)


# ---- fewer values -------------------------------------------------------------------------------


def track_of(
    values: list[float], *, kind: str = "gauge", times: list[float] | None = None
) -> Track:
    return Track(
        *("key", None, "unit", kind),
        np.array(range(1, len(values) + 1) if times is None else times, float),
        np.array(values, float),
        *(None, None),
    )


@pytest.mark.parametrize("most", [2, 3, 10, 99, 100, 999])
@pytest.mark.parametrize("holes", [0, 1, 40, 400])
@pytest.mark.parametrize("kind", ["gauge", "total", "rate", "ratio", ""])
def test_fewer_values_keep_the_extremes_and_the_gaps(most, holes, kind):
    chance = np.random.default_rng(most * 1000 + holes)
    values = chance.random(1000)
    values[chance.choice(np.arange(1, 999), holes, replace=False)] = np.nan
    times = np.cumsum(chance.random(1000) + 0.01)
    track = track_of(values.tolist(), kind=kind, times=times.tolist())
    few = downsample(track, most)
    assert 1 <= len(few.times) <= most
    assert (np.diff(few.times) > 0).all()
    assert few.times[0] >= track.times[0]
    assert few.times[-1] <= track.times[-1]
    assert few.low is not None
    assert few.high is not None
    assert np.nanmin(few.low) == np.nanmin(values)
    assert np.nanmax(few.high) == np.nanmax(values)
    there = ~np.isnan(few.values)
    assert (few.low[there] <= few.values[there] + 1e-12).all()
    assert (few.values[there] <= few.high[there] + 1e-12).all()
    assert np.isnan(few.values).any() == (holes > 0)
    assert np.array_equal(np.isnan(few.low), ~there)


def test_few_values_stay_as_they_are():
    track = track_of([1.0, 2.0, 3.0])
    assert downsample(track, 3) is track
    with pytest.raises(ValueError, match="most must be at least 2, got 1"):
        downsample(track, 1)


def test_buckets_are_those_of_the_common_axis():
    track = track_of([4.0, 0.0, 2.0, 6.0], times=[1.0, 2.0, 3.0, 4.0])
    few = downsample(track, 3, (0.0, 6.0))  # each is two seconds long; the last has none
    assert few.times.tolist() == [2.0, 4.0]
    assert few.values.tolist() == [2.0, 4.0]
    assert few.low is not None
    assert few.low.tolist() == [0.0, 2.0]
    assert few.high is not None
    assert few.high.tolist() == [4.0, 6.0]


def test_rates_are_weighted_and_totals_are_those_of_the_end():
    times = [1.0, 2.0, 5.0, 6.0]
    values = [1.0, 1.0, 5.0, 9.0]
    rate = downsample(track_of(values, kind="rate", times=times), 2, (0.0, 10.0))
    assert rate.values.tolist() == [(1 + 1 + 3 * 5) / 5, 9.0]
    total = downsample(track_of(values, kind="total", times=times), 2, (0.0, 10.0))
    assert total.values.tolist() == [5.0, 9.0]
    gauge = downsample(track_of(values, times=times), 2, (0.0, 10.0))
    assert gauge.values.tolist() == [7 / 3, 9.0]


def test_extremes_that_are_known_already_are_kept():
    track = track_of([2.0] * 10)._replace(
        low=np.array([np.nan] * 5 + [1.0] + [np.nan] * 4), high=np.full(10, 3.0)
    )
    few = downsample(track, 2)
    assert few.low is not None
    assert few.low.tolist() == [2.0, 1.0]
    assert few.high is not None
    assert few.high.tolist() == [3.0, 3.0]


def test_a_gap_stands_where_it_is():
    nan = math.nan
    values = [1.0, 1.0, 1.0, nan, 2.0, 2.0, 2.0, 2.0]
    behind = downsample(track_of(values), 4, (0.0, 8.0))  # two buckets, the gap ends the first
    assert np.array_equal(behind.values, [1.0, nan, 2.0], equal_nan=True)
    values = [1.0, 1.0, 1.0, 1.0, nan, 2.0, 2.0, 2.0]
    before = downsample(track_of(values), 4, (0.0, 8.0))
    assert np.array_equal(before.values, [1.0, nan, 2.0], equal_nan=True)
    nothing = downsample(track_of([nan] * 8), 4)
    assert np.isnan(nothing.values).all()


# ---- what the keys of a run say -----------------------------------------------------------------


def test_keys_say_what_the_sources_say(backend):
    with Sampler(0.01, backend=backend, sources="all", disk_paths="/,/tmp") as sampler:
        schema = sampler.schema
    assert len(schema) > 10
    for info in schema:
        unit, kind = unit_and_kind(info.key)
        assert unit == info.unit, info.key
        assert kind in ("", info.kind), info.key


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("gpu_0_utilization_percentage", ("percentage", "")),
        ("gpu_1_mig_2_memory_usage_megabytes", ("megabytes", "gauge")),
        ("gpu_0_power_usage_watts", ("watts", "")),
        ("gpu_0_energy_joules", ("joules", "total")),
        ("gpu_0_ecc_errors", ("errors", "total")),
        ("gpu_0_nvlink_receive_megabytes_per_second", ("megabytes per second", "rate")),
        ("container_oom_kills", ("kills", "total")),
        ("process_threads", ("threads", "gauge")),
        ("disk_usage_megabytes_data_percentage", ("megabytes", "gauge")),
        ("something_of_tomorrow", ("", "")),
        ("tokens_per_second", ("per second", "rate")),
    ],
)
def test_units(key, expected):
    assert unit_and_kind(key) == expected


def test_what_metrics_are_of():
    sorted_out = sort_out(
        [
            "loss",
            "system/cpu_core_max_percentage",
            "system/cpu_core_max_percentage_max",
            "system/a/b/cpu_utilization_percentage",
            "system/a/b/cpu_utilization_percentage_max",
            "system/a/b/cpu_utilization_percentage_p99",
            "system/disk_usage_percentage_data_max",
            "system/disk_usage_percentage_home",
            "system/disk_usage_percentage_home_min",
            "system/alone_megabytes_last",
            "system/odd_max",
        ]
    )
    assert sorted_out == {
        (None, "cpu_core_max_percentage"): {
            "mean": "system/cpu_core_max_percentage",
            "max": "system/cpu_core_max_percentage_max",
        },
        ("a/b", "cpu_utilization_percentage"): {
            "mean": "system/a/b/cpu_utilization_percentage",
            "max": "system/a/b/cpu_utilization_percentage_max",
            "p99": "system/a/b/cpu_utilization_percentage_p99",
        },
        (None, "disk_usage_percentage_data_max"): {"mean": "system/disk_usage_percentage_data_max"},
        (None, "disk_usage_percentage_home"): {
            "mean": "system/disk_usage_percentage_home",
            "min": "system/disk_usage_percentage_home_min",
        },
        (None, "alone_megabytes"): {"last": "system/alone_megabytes_last"},
        (None, "odd_max"): {"mean": "system/odd_max"},
    }


def test_a_timeline_is_a_value():
    assert Timeline._fields == ("title", "origin", "start", "end", "interval", "facts", "tracks")

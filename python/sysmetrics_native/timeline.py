"""A run or a recording as series over time, for pages, files and whoever wants to compute.

```python
from sysmetrics_native.timeline import downsample, open_timeline

timeline = open_timeline("job.smnrec")  # or the id of a run
for track in timeline.tracks:
    print(track.key, track.unit, np.nanmax(track.values))
    few = downsample(track, 1000, (timeline.start, timeline.end))
```

Needs NumPy; runs need MLflow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sysmetrics_native.catalog import METRIC_PREFIX
from sysmetrics_native.endings import how_it_ended
from sysmetrics_native.recorded_series import Stretches, read_parts
from sysmetrics_native.recording import Recording
from sysmetrics_native.recording_file import SUFFIX
from sysmetrics_native.redaction import without_secrets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sysmetrics_native.recording import Mask

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_NS_PER_SECOND = 1_000_000_000
_SECONDS_PER_NS = 1e-9
GAP = 3.0
"""Longer than so many times what is usual between two values, nothing is known in between."""
_SHORTEST_GAP = 1.5
"""The same where rows are known to be missing."""


class Track(NamedTuple):
    """One series of one node over time."""

    key: str
    """As in the catalogue, without ``system/``, node and statistic."""
    node: str | None
    """The node part of MLflow's keys; `None` where there is none."""
    unit: str
    """``percentage``, ``megabytes``, …; empty where it is not known."""
    kind: str
    """``gauge``, ``total``, ``rate``, ``ratio``; empty where it is not known."""
    times: Floats
    """Unix seconds of the end of the stretch that each value describes; increasing."""
    values: Floats
    """The mean over the stretch; of a single reading, and of a total, the reading. NaN stands in
    the middle of each gap."""
    low: Floats | None
    """The smallest value within the stretch, where that is known."""
    high: Floats | None
    """The largest."""


class Timeline(NamedTuple):
    """All series of a run or of a recording."""

    title: str
    """Name of the run or of the file."""
    origin: str
    """``run`` or ``recording``."""
    start: float
    end: float
    """Unix seconds."""
    interval: float
    """Usual seconds between two values; 0 where there are none."""
    facts: Mapping[str, str]
    """What is known of it, for people, in order; without secrets."""
    tracks: tuple[Track, ...]
    """Those that have a value."""


def open_timeline(
    what: str, tracking_uri: str | None = None, *, percentiles: bool = False
) -> Timeline:
    """A run or a recording as series over time; it is read to its end.

    Args:
        what: path of a recording, or of a folder with exactly one; or the id of a run.
        tracking_uri: the server or store of the run; MLflow's own choice unless given.
        percentiles: of a run, whether p50, p95, p99 and last are tracks, too, with the keys that
            they were logged under; min and max are always part of their series.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no whole recording, the folder has none or several, or the server has no
            such run; `what` as it was given is in the message.
        OSError: the file cannot be read; a `ConnectionError`: the server did not answer.
        ModuleNotFoundError: a run is asked for, and MLflow is not installed.
    """
    path = find_recording(what)
    if path is None:
        from sysmetrics_native import logged_series

        return logged_series.timeline_of_run(what, tracking_uri, percentiles=percentiles)
    with Recording(path) as recording:
        return timeline_of_recording(recording)


def find_recording(what: str) -> str | None:
    """The path of the recording that is meant; `None` if it must be the id of a run.

    Raises:
        FileNotFoundError: it is a path, and nothing is there.
        ValueError: it is a folder that has not exactly one recording.
    """
    if os.path.isdir(what):
        names = sorted(name for name in os.listdir(what) if name.endswith(SUFFIX))
        if len(names) != 1:
            have = f"{len(names)} recordings" if names else f"no recording (*{SUFFIX})"
            raise ValueError(f"the folder {what} has {have}: name one file")
        return os.path.join(what, names[0])
    if os.path.lexists(what):
        return what
    if os.path.basename(what) != what or what.endswith(SUFFIX):
        raise FileNotFoundError(f"{what} does not exist")
    return None


# ---- recordings ---------------------------------------------------------------------------------


def timeline_of_recording(recording: Recording) -> Timeline:
    """The rows of a recording as series: those that are there by now."""
    clock = _RowClock()
    found: list[list[tuple[Integers, Floats]]] = [[] for _ in recording.series]
    for part in read_parts(recording):
        for stretches, pieces in zip(part.series, found, strict=True):
            pieces.append(_from_row(stretches, clock.rows))
        clock.add(part.rows)
    times, losses = clock.times(), clock.losses()
    node = node_of(recording)
    tracks = []
    for series, pieces in zip(recording.series, found, strict=True):
        rows = _joined([rows for rows, _ in pieces], np.int64)
        values = _joined([values for _, values in pieces], np.float64)
        pieces.clear()
        if len(values) > 0:
            # A series without a hole shares the times of all the rows.
            own = times if len(rows) == len(times) else times[rows]
            lost = losses[rows[1:]] > losses[rows[:-1]]
            own, (values,) = with_gaps(own, (values,), recording.interval, lost)
            tracks.append(
                Track(series.key, node, series.unit, series.kind, own, values, None, None)
            )
    return Timeline(
        title=os.path.basename(recording.path),
        origin="recording",
        start=float(times[0]) if len(times) else recording.started,
        end=float(times[-1]) if len(times) else recording.started,
        interval=recording.interval,
        facts=facts_of(recording, float(times[-1] - times[0]) if len(times) else 0.0),
        tracks=tuple(tracks),
    )


def node_of(recording: Recording) -> str | None:
    """The node part of the keys that its windows are logged under."""
    if recording.run is None:
        return None
    return recording.run.key_prefix.removeprefix(METRIC_PREFIX).rstrip("/") or None


def facts_of(recording: Recording, seconds: float | None = None) -> dict[str, str]:
    """What a recording says of itself, for people.

    Args:
        recording: it.
        seconds: from its first row to its last, where that is known.
    """
    if recording.is_being_written():
        ending = "still being written"
    elif recording.state == "writing":
        ending = how_it_ended(recording.writer, recording.surroundings or {})
    else:
        ending = "the sampler was stopped"
    run = recording.run
    facts = {
        "run": "" if run is None else run.run_id,
        "tracking server": "" if run is None else run.tracking_uri,
        "started": local_time(recording.started),
        "lasted": "" if seconds is None else duration(seconds),
        "host": recording.writer.host,
        "how it ended": ending,
        "package": f"sysmetrics-native {recording.package} ({recording.backend} backend)",
        "sampling": f"every {recording.interval:g} s, {recording.samples_per_window} in a window",
        **gpu_facts({} if run is None else run.tags),
    }
    return cleaned(facts)


def gpu_facts(tags: Mapping[str, str]) -> dict[str, str]:
    """Which GPU is which, from the tags that say so."""
    facts = {}
    for tag, text in sorted(tags.items()):
        prefix, _, name = tag.rpartition("/")
        if not tag.startswith(METRIC_PREFIX) or not name.startswith("gpu_"):
            continue
        try:
            about = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(about, dict) and isinstance(about.get("name"), str):
            node = prefix[len(METRIC_PREFIX) :]
            facts[f"GPU {name[4:]}{f' of {node}' if node else ''}"] = about["name"]
    return facts


def cleaned(facts: Mapping[str, str]) -> dict[str, str]:
    """The facts that are known, without secrets and without what harms a terminal."""
    return {
        name: "".join(sign if sign.isprintable() else "?" for sign in without_secrets(text))
        for name, text in facts.items()
        if text
    }


def local_time(seconds: float) -> str:
    """Unix time as people here read it."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


def duration(seconds: float) -> str:
    """``1:02:03``, with days where it takes them; below a minute ``4.5 s``."""
    if seconds < 60.0:  # noqa: PLR2004
        return f"{seconds:.3g} s"
    return str(timedelta(seconds=round(seconds)))


class _RowClock:
    """When the rows of a recording were read, and where some are missing."""

    def __init__(self) -> None:
        self.rows = 0
        self._wall_ns: list[Integers] = []
        self._monotonic_ns: list[Integers] = []
        self._sequences: list[Integers] = []

    def add(self, rows: Any) -> None:
        """Note the next rows."""
        self.rows += len(rows)
        self._wall_ns.append(rows["wall_ns"].copy())
        self._monotonic_ns.append(rows["monotonic_ns"].astype(np.int64))
        self._sequences.append(rows["sequence"].astype(np.int64))

    def times(self) -> Floats:
        """Unix seconds: the wall clock's, and where that was set back, on by what really passed."""
        wall_ns = _joined(self._wall_ns, np.int64)
        if len(wall_ns) == 0:
            return np.empty(0)
        steps = np.diff(wall_ns)
        really = np.maximum(np.diff(_joined(self._monotonic_ns, np.int64)), 1)
        passed = np.insert(np.cumsum(np.where(steps > 0, steps, really)), 0, 0)
        # Apart, because whole nanoseconds since 1970 are more than a double holds.
        seconds, rest = divmod(int(wall_ns[0]), _NS_PER_SECOND)
        times: Floats = seconds + (passed + rest) * _SECONDS_PER_NS
        return times

    def losses(self) -> Integers:
        """For each row, how many times rows were missing before it."""
        steps = np.diff(_joined(self._sequences, np.int64))
        return np.insert(np.cumsum(steps != 1), 0, 0)


def _from_row(stretches: Stretches, first: int) -> tuple[Integers, Floats]:
    return stretches.ends + first, stretches.values


def _joined(pieces: list[Any], dtype: type) -> Any:
    return np.concatenate(pieces) if pieces else np.empty(0, dtype)


# ---- gaps ---------------------------------------------------------------------------------------


def with_gaps(
    times: Floats, columns: Sequence[Floats], interval: float = 0.0, lost: Mask | None = None
) -> tuple[Floats, list[Floats]]:
    """The times and what belongs to them, with a NaN in the middle of each gap."""
    at, middles = find_gaps(times, interval, lost)
    if len(at) == 0:
        return times, list(columns)
    return np.insert(times, at, middles), [np.insert(column, at, np.nan) for column in columns]


def find_gaps(
    times: Floats, interval: float = 0.0, lost: Mask | None = None
) -> tuple[Integers, Floats]:
    """Between which values nothing is known for longer than is usual.

    Args:
        times: of the values.
        interval: shortest time that is usual between two; the median of them unless it is longer.
        lost: whether something is known to be missing between each value and the next.

    Returns:
        Index of the value behind each gap, and the middle of the gap.
    """
    passed = np.diff(times)
    if len(passed) == 0:
        return np.empty(0, np.int64), np.empty(0)
    usual = max(interval, float(np.median(passed)))
    is_gap = passed > GAP * usual
    if lost is not None:
        is_gap |= lost & (passed > _SHORTEST_GAP * usual)
    at = np.flatnonzero(is_gap) + 1
    return at, (times[at - 1] + times[at]) / 2


# ---- fewer values -------------------------------------------------------------------------------


def downsample(track: Track, most: int, span: tuple[float, float] | None = None) -> Track:
    """The same with at most so many points, each of them with its extremes.

    Time is cut into equal buckets. The values of a bucket become one point: their mean (of a rate
    or ratio weighted with the length of the stretches; of a total the last one), at the time of
    the last of them, with the smallest low and the largest high. Where a gap lies in a bucket a
    NaN stands behind that point, so gaps stay visible.

    Args:
        track: it; returned as it is if it has no more points than that.
        most: points, at least 2.
        span: Unix seconds at which the first bucket begins and the last one ends: the same for all
            tracks that are shown on one axis. Those of the track itself unless given.

    Raises:
        ValueError: `most` is less than 2.
    """
    if most < 2:  # noqa: PLR2004  # a bucket with a gap makes two
        raise ValueError(f"most must be at least 2, got {most!r}")
    if len(track.times) <= most:
        return track
    is_value = ~np.isnan(track.values)
    buckets = most if bool(is_value.all()) else most // 2
    first, last = (float(track.times[0]), float(track.times[-1])) if span is None else span
    width = max(last - first, _SECONDS_PER_NS) / buckets
    # A value is at the end of its stretch: one at the very edge belongs to the bucket before.
    places = np.ceil((track.times - first) / width) - 1
    bucket = np.clip(places, 0, buckets - 1).astype(np.int64)
    merged = _merged(track, bucket[is_value], is_value)
    return merged if bool(is_value.all()) else _with_breaks(merged, track, bucket, is_value)


def _starts(sorted_numbers: Integers) -> Integers:
    """Where each number begins."""
    return np.flatnonzero(np.diff(sorted_numbers, prepend=-1))


def _merged(track: Track, bucket: Integers, is_value: Mask) -> Track:
    """The values of each bucket as one point."""
    times, values = track.times[is_value], track.values[is_value]
    if len(values) == 0:
        return track._replace(times=times, values=values, low=values, high=values)
    starts = _starts(bucket)
    ends = np.append(starts[1:], len(values)) - 1
    if track.kind == "total":
        means = values[ends]
    else:
        passed = np.diff(track.times)
        lengths = np.insert(passed, 0, np.median(passed))[is_value]
        weights = lengths if track.kind in ("rate", "ratio") else np.ones(len(values))
        means = np.add.reduceat(values * weights, starts) / np.add.reduceat(weights, starts)
    low = values if track.low is None else np.fmin(track.low[is_value], values)
    high = values if track.high is None else np.fmax(track.high[is_value], values)
    return track._replace(
        times=times[ends],
        values=means,
        low=np.fmin.reduceat(low, starts),
        high=np.fmax.reduceat(high, starts),
    )


def _with_breaks(merged: Track, track: Track, bucket: Integers, is_value: Mask) -> Track:
    """The points, and a NaN for each bucket with a gap.

    It stands before the bucket's point if the gap comes first, or if no other point follows.
    """
    in_use = bucket[is_value][_starts(bucket[is_value])]
    gap_starts = _starts(bucket[~is_value])
    gap_bucket = bucket[~is_value][gap_starts]
    gap_times = track.times[~is_value][gap_starts]
    comes_first = ~is_value[np.searchsorted(bucket, gap_bucket)]
    if len(in_use) > 0:  # behind the last point nobody would see it
        comes_first |= (gap_bucket == in_use[-1]) & (gap_times < merged.times[-1])
    # In each bucket there is a place before, one for its point, and one behind.
    points, gaps = in_use * 3 + 1, gap_bucket * 3 + np.where(comes_first, 0, 2)
    places = np.union1d(points, gaps)
    at = np.searchsorted(places, points)

    def spread(values: Floats | None) -> Floats | None:
        if values is None:
            return None
        spaced = np.full(len(places), np.nan)
        spaced[at] = values
        return spaced

    times = np.empty(len(places))
    times[at] = merged.times
    behind = np.searchsorted(places, gaps)
    times[behind] = gap_times
    late = behind[~comes_first & (behind > 0)]  # the point before it is its bucket's last value
    times[late] = np.maximum(times[late], np.nextafter(times[late - 1], np.inf))
    values = spread(merged.values)
    assert values is not None  # because there were some
    return merged._replace(
        times=times, values=values, low=spread(merged.low), high=spread(merged.high)
    )

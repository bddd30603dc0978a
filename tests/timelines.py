"""Timelines made up for tests: what a run would look like that was so and so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sysmetrics_native.timeline import Timeline, Track

START = 1_700_000_000.0


def make_track(
    key: str,
    values: Any,
    *,
    node: str | None = None,
    interval: float = 1.0,
    unit: str = "percentage",
    kind: str = "gauge",
    spread: float | None = None,
) -> Track:
    """A track from its values, or from one value for all of 100 times."""
    array: NDArray[np.float64] = np.asarray(values, np.float64)
    if array.ndim == 0:
        array = np.full(100, array)
    times: NDArray[np.float64] = START + interval * np.arange(1.0, len(array) + 1)
    low = None if spread is None else array - spread
    high = None if spread is None else array + spread
    return Track(key, node, unit, kind, times, array, low, high)


def make_timeline(
    tracks: Iterable[Track] | Mapping[str, Any], *, interval: float = 1.0, **changes: Any
) -> Timeline:
    """A timeline of tracks, or of values by key."""
    if isinstance(tracks, Mapping):
        tracks = [make_track(key, values, interval=interval) for key, values in tracks.items()]
    tracks = tuple(tracks)
    timeline = Timeline(
        title="a run",
        origin="run",
        start=START,
        end=max((float(track.times[-1]) for track in tracks), default=START),
        interval=interval,
        facts={"run": "0123456789abcdef", "status": "FINISHED"},
        tracks=tracks,
    )
    return timeline._replace(**changes)

"""What running totals tell: how much came together, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sysmetrics_native.timeline import Track


def increase(track: Track) -> float | None:
    """What a running total counted in all, in its unit; `None` where it has no value.

    A total counts from 0 at the start, so its first value is an increase, too. One that falls has
    begun again (a run that was resumed): what it has then is new.
    """
    import numpy as np

    values = track.values[~np.isnan(track.values)]
    if len(values) == 0:
        return None
    steps = np.diff(values, prepend=0.0)
    return float(np.where(steps < 0, values, steps).sum())


def rate(track: Track, unit: str) -> Track:
    """A running total as its increase a second, under the same key.

    The first value has nothing before it, and where the total begins again nothing is known of the
    stretch: both are gaps.
    """
    import numpy as np

    values = np.full(len(track.values), np.nan)
    if len(values) > 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            values[1:] = np.diff(track.values) / np.diff(track.times)
    values[~(values >= 0) | np.isinf(values)] = np.nan
    return track._replace(unit=unit, kind="rate", values=values, low=None, high=None)


def integral(track: Track, longest_step: float) -> float | None:
    """The area below a line in its unit times seconds, such as joules from watts.

    Args:
        track: each value stands for the stretch up to its time.
        longest_step: no value stands for more seconds than this: what lies further back is a gap.

    Returns:
        `None` where it has no value.
    """
    import numpy as np

    known = ~np.isnan(track.values)
    if not known.any():
        return None
    steps = np.diff(track.times, prepend=track.times[0] - longest_step)
    usual = float(np.median(steps[1:])) if len(steps) > 1 else longest_step
    steps[0] = min(usual, longest_step)
    return float((track.values[known] * np.minimum(steps[known], longest_step)).sum())

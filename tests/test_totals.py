"""Running totals: increases, rates, and areas below lines."""

from __future__ import annotations

import pytest

pytest.importorskip("numpy", reason="NumPy is not installed")

import numpy as np

from sysmetrics_native import totals
from tests.timelines import make_track

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 5.0, 9.0], 9.0),
        ([3.0, NAN, 9.0], 9.0),
        ([3.0, 5.0, 2.0, 4.0], 9.0),  # it began again after 5
        ([0.0, 0.0], 0.0),
        ([NAN, NAN], None),
    ],
)
def test_what_a_total_counted(values, expected):
    assert totals.increase(make_track("key", values)) == expected


def test_the_rate_of_a_total():
    track = make_track("key", [10.0, 30.0, NAN, 70.0, 90.0, 4.0, 8.0], interval=2.0, spread=1.0)
    rate = totals.rate(track, "megabytes per second")
    np.testing.assert_array_equal(rate.values, [NAN, 10.0, NAN, NAN, 10.0, NAN, 2.0])
    assert (rate.unit, rate.kind) == ("megabytes per second", "rate")
    assert rate.low is None
    assert rate.high is None


def test_the_energy_of_a_power():
    track = make_track("key", [100.0, 100.0, 200.0], interval=10.0)
    assert totals.integral(track, 30.0) == 4000.0


def test_a_gap_takes_no_energy():
    track = make_track("key", [100.0, 100.0, NAN, 100.0], interval=10.0)
    times = track.times.copy()
    times[2:] += 1000.0
    track = track._replace(times=times)
    assert totals.integral(track, 30.0) == 3000.0
    assert totals.integral(make_track("key", [NAN]), 30.0) is None

"""From windows to the metrics that MLflow is to log."""

from __future__ import annotations

import math

import pytest

from sysmetrics_native import Series, Window
from sysmetrics_native.catalog import METRIC_PREFIX, STATISTICS, metric_prefix, metrics_of
from sysmetrics_native.window import SeriesInfo
from tests.support import DEFAULT_KEYS

CPU = SeriesInfo("cpu_utilization_percentage", "percentage", "cpu", "ratio")
MEMORY = SeriesInfo("system_memory_usage_megabytes", "megabytes", "memory", "gauge")
TOTAL = SeriesInfo("network_receive_megabytes", "megabytes", "network", "total")
SCHEMA = [CPU, MEMORY, TOTAL]

SERIES = {
    CPU.key: Series(mean=12.3456, min=1.04, max=99.96, last=50.05, p50=11.11, p95=95.55, p99=99.0),
    MEMORY.key: Series(
        mean=1234.56, min=1000.0, max=2000.25, last=1500.75, p50=1200.04, p95=1999.99, p99=2000.2
    ),
    TOTAL.key: Series(
        mean=1.5, min=0.000001, max=3.123456, last=3.123456, p50=1.4, p95=3.0, p99=3.1
    ),
}


def window_of(series: dict[str, Series]) -> Window:
    return Window(series, start=1.0, end=2.0, samples=10)


def test_means_have_the_plain_keys_and_one_decimal():
    assert dict(metrics_of(window_of(SERIES), SCHEMA, ["mean"])) == {
        "cpu_utilization_percentage": 12.3,
        "system_memory_usage_megabytes": 1234.6,
        "network_receive_megabytes": 3.123456,  # a total: its last value, not rounded
    }


def test_other_statistics_have_their_name_behind_the_key():
    metrics = dict(metrics_of(window_of(SERIES), SCHEMA, ["min", "max", "last", "p50"]))
    assert metrics == {
        "cpu_utilization_percentage_min": 1.0,
        "cpu_utilization_percentage_max": 100.0,
        "cpu_utilization_percentage_last": 50.0,
        "cpu_utilization_percentage_p50": 11.1,
        "system_memory_usage_megabytes_min": 1000.0,
        "system_memory_usage_megabytes_max": 2000.2,
        "system_memory_usage_megabytes_last": 1500.8,
        "system_memory_usage_megabytes_p50": 1200.0,
        # Those of a total are not rounded either.
        "network_receive_megabytes_min": 0.000001,
        "network_receive_megabytes_max": 3.123456,
        "network_receive_megabytes_last": 3.123456,
        "network_receive_megabytes_p50": 1.4,
    }


def test_without_mean_the_plain_key_is_not_logged():
    assert [key for key, _ in metrics_of(window_of(SERIES), SCHEMA, ["p99", "p95"])] == [
        f"{info.key}_{statistic}" for info in SCHEMA for statistic in ("p99", "p95")
    ]


def test_all_statistics_of_all_series_come_in_order():
    metrics = list(metrics_of(window_of(SERIES), iter(SCHEMA), iter(STATISTICS)))
    assert len(metrics) == len(SCHEMA) * len(STATISTICS)
    assert [key for key, _ in metrics][:3] == [CPU.key, f"{CPU.key}_min", f"{CPU.key}_max"]
    assert len({key for key, _ in metrics}) == len(metrics)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_what_is_absent_is_left_out(statistic):
    absent = {**SERIES, CPU.key: Series()}
    keys = [key for key, _ in metrics_of(window_of(absent), SCHEMA, [statistic])]
    assert len(keys) == 2
    assert not any(key.startswith(CPU.key) for key in keys)
    nothing = dict.fromkeys(SERIES, Series())
    assert list(metrics_of(window_of(nothing), SCHEMA, STATISTICS)) == []


def test_percentiles_that_are_absent_hide_nothing_else():
    merged = {CPU.key: SERIES[CPU.key]._replace(p50=None, p95=None, p99=None)}
    metrics = dict(metrics_of(window_of(merged), [CPU], ["mean", "p50", "p95", "p99"]))
    assert metrics == {CPU.key: 12.3}


def test_zero_is_a_value():
    zero = {CPU.key: Series(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)}
    assert list(metrics_of(window_of(zero), [CPU], ["mean", "max"])) == [
        (CPU.key, 0.0),
        (f"{CPU.key}_max", 0.0),
    ]


def test_a_real_window_gives_the_keys_that_mlflow_logs(make_sampler):
    with make_sampler(interval=0.15) as sampler:
        window = sampler.next_window(timeout=30)
    assert window is not None
    metrics = dict(metrics_of(window, sampler.schema, ["mean"]))
    assert list(metrics) == [key for keys in DEFAULT_KEYS.values() for key in keys]
    for key, value in metrics.items():
        assert math.isfinite(value)
        assert value >= 0
        if not key.startswith("network"):
            assert value == round(value, 1)


def test_prefixes():
    assert METRIC_PREFIX == "system/"
    assert metric_prefix(None) == "system/"
    assert metric_prefix("node-1") == "system/node-1/"
    assert metric_prefix("rack/7") == "system/rack/7/"

"""A setting that is wrong is named in the log, and never breaks a run."""

from __future__ import annotations

import os

import mlflow
import pytest

import sysmetrics_native
from sysmetrics_native import SystemMetricsMonitor
from tests.mlflow.logged import Logged

INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
SAMPLES = "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING"
SECONDS = "a number of seconds from 0.001 to 3600"
COUNT = "a whole number from 1 to 1000000"


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        (INTERVAL, "abc", SECONDS),
        (INTERVAL, "0", SECONDS),
        (INTERVAL, "-1", SECONDS),
        (INTERVAL, "nan", SECONDS),
        (INTERVAL, "inf", SECONDS),
        (INTERVAL, "3601", SECONDS),
        (INTERVAL, "0.0001", SECONDS),
        (INTERVAL, "", SECONDS),
        (SAMPLES, "0", COUNT),
        (SAMPLES, "-3", COUNT),
        (SAMPLES, "2.5", COUNT),
        (SAMPLES, "many", COUNT),
        ("SYSMETRICS_NATIVE_BACKEND", "foo", "one of auto, native, psutil"),
        ("SYSMETRICS_NATIVE_SOURCES", "foo", "any of default, all, cpu, memory"),
        ("SYSMETRICS_NATIVE_SOURCES", "cpu,-all", "names that leave at least one source"),
        ("SYSMETRICS_NATIVE_STATISTICS", "foo", "any of mean, min, max, p50, p95, p99, last"),
        ("SYSMETRICS_NATIVE_DISK_PATHS", "data", "absolute paths of mount points"),
        ("SYSMETRICS_NATIVE_PROCFS_PATH", "/no/such", "a directory that exists"),
        ("SYSMETRICS_NATIVE_SHUTDOWN_TIMEOUT", "soon", "a number of seconds from 0 to 3600"),
        ("SYSMETRICS_NATIVE_ENABLED", "perhaps", "true or false"),
        ("SYSMETRICS_NATIVE_NODE_ID", "..", "text with at least one letter or digit"),
    ],
)
def test_a_bad_variable_is_named_and_the_run_unharmed(
    uses_database, warnings: list[str], variable: str, value: str, allowed: str
) -> None:
    os.environ[variable] = value
    with mlflow.start_run(log_system_metrics=True) as run:
        mlflow.log_metric("loss", 1.0)
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"
    assert Logged(run.info.run_id).metrics() == set()
    (warning,) = warnings
    assert warning.startswith("Failed to start system metrics monitoring: ")
    assert f"{variable} must be {allowed}" in warning
    assert repr(value) in warning


def test_the_next_run_is_monitored_once_it_is_mended(uses_database, warnings: list[str]) -> None:
    os.environ["SYSMETRICS_NATIVE_STATISTICS"] = "foo"
    mlflow.start_run(log_system_metrics=True)
    mlflow.end_run()
    assert len(warnings) == 1
    os.environ["SYSMETRICS_NATIVE_STATISTICS"] = "max"
    with mlflow.start_run(log_system_metrics=True) as run:
        pass
    assert Logged(run.info.run_id).metrics() > {"system/system_memory_usage_percentage_max"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling_interval": 0}, f"sampling_interval must be {SECONDS}, got 0"),
        ({"sampling_interval": "abc"}, f"sampling_interval must be {SECONDS}, got 'abc'"),
        ({"sampling_interval": None}, f"sampling_interval must be {SECONDS}, got None"),
        ({"samples_before_logging": 0}, f"samples_before_logging must be {COUNT}, got 0"),
        ({"samples_before_logging": 1.5}, f"samples_before_logging must be {COUNT}, got 1.5"),
        ({"node_id": ":"}, "node_id must be text with at least one letter or digit, got ':'"),
    ],
)
def test_a_bad_argument_is_named(uses_database, arguments, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole message follows
        SystemMetricsMonitor("run", **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("setter", "value", "message"),
    [
        ("sampling_interval", 0, f"interval must be {SECONDS}, got 0"),
        ("sampling_interval", float("nan"), f"interval must be {SECONDS}, got nan"),
        ("samples_before_logging", 0, f"samples must be {COUNT}, got 0"),
        ("node_id", "..", "node_id must be text with at least one letter or digit, got '..'"),
    ],
)
def test_our_setters_refuse_what_a_run_would(setter: str, value: object, message: str) -> None:
    before = dict(os.environ)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole message follows
        getattr(sysmetrics_native, f"set_system_metrics_{setter}")(value)
    assert str(caught.value) == message
    assert dict(os.environ) == before

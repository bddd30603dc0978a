"""What is logged: the keys of MLflow's own monitor, with values that are true of their window."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import mlflow
import psutil
import pytest

import sysmetrics_native
from tests.bursts import loopback_bursts
from tests.mlflow.conftest import Programs
from tests.mlflow.logged import DEFAULT_KEYS, DEFAULT_NAMES, MEMORY, Logged
from tests.support import busy_processes, default_as_in_mlflow, retry

CPU = "cpu_utilization_percentage"

A_RUN = """
import json, time
import mlflow

with mlflow.start_run(log_system_metrics=True) as run:
    time.sleep(2)
print(json.dumps(mlflow.get_run(run.info.run_id).data.metrics))
"""


@pytest.mark.usefixtures("alone")
def test_keys_and_values_are_those_of_mlflow(start_program: Programs) -> None:
    variables = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.5"}
    ours_program = start_program(A_RUN, **variables)
    stock = start_program(A_RUN, SYSMETRICS_NATIVE_ENABLED="false", **variables).outcome().answer
    ours = ours_program.outcome().answer
    assert set(ours) == set(stock) == DEFAULT_KEYS
    for key in (key for key in stock if "disk" in key):
        assert ours[key] == pytest.approx(stock[key], rel=0.02, abs=0.5), key
    for key in (key for key in stock if "network" in key):
        assert ours[key] == pytest.approx(stock[key], abs=5), key
    key = "system/system_memory_usage_percentage"
    assert ours[key] == pytest.approx(stock[key], abs=4)
    key = f"system/{MEMORY}"  # older releases of psutil counted otherwise
    assert ours[key] == pytest.approx(stock[key], rel=0.25, abs=500)
    assert 0 <= ours[f"system/{CPU}"] <= 100


# ---- values describe their own window -----------------------------------------------------------


class Reading(NamedTuple):
    time: float
    busy_seconds: float
    all_seconds: float


class Witness:
    """Reads CPU times with psutil, all the time, for what windows must have seen."""

    def __init__(self) -> None:
        self._readings: list[Reading] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            times = psutil.cpu_times()
            all_seconds = sum(times) - times.guest - times.guest_nice
            busy_seconds = all_seconds - times.idle - times.iowait
            self._readings.append(Reading(time.time(), busy_seconds, all_seconds))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def cpu_percentage(self, start: float, end: float) -> float:
        first, last = self._near(start), self._near(end)
        busy = last.busy_seconds - first.busy_seconds
        return 100 * busy / (last.all_seconds - first.all_seconds)

    def _near(self, moment: float) -> Reading:
        return min(self._readings, key=lambda reading: abs(reading.time - moment))


@pytest.fixture
def witness() -> Iterator[Witness]:
    witness = Witness()
    yield witness
    witness.close()


def spans(run: Logged, start: float) -> list[tuple[float, float]]:
    """Where each window starts and ends."""
    ends = run.ends()
    return list(zip([start, *ends], ends, strict=False))


def monitored(seconds: float, windows: int, work: Callable[[], None]) -> tuple[Logged, float]:
    """A run of some windows, with work in its first; and when it started."""
    mlflow.set_system_metrics_sampling_interval(seconds / 10)
    mlflow.set_system_metrics_samples_before_logging(10)
    with mlflow.start_run(log_system_metrics=True) as run:
        start = time.time()
        work()
        time.sleep(max(0.0, start + windows * seconds + 0.02 - time.time()))
    return Logged(run.info.run_id), start


def test_the_first_cpu_value_is_right(uses_database, uses_backend, witness: Witness) -> None:
    def check() -> None:
        with busy_processes(1):
            run, start = monitored(0.5, 1, lambda: None)
        span = spans(run, start)[0]
        assert run.values(CPU)[0] == pytest.approx(witness.cpu_percentage(*span), abs=5)
        assert run.values(CPU)[0] >= 90 / (os.cpu_count() or 1)

    retry(6, check)


def test_load_shows_in_the_window_that_it_was_in(
    uses_database, uses_backend, witness: Witness
) -> None:
    def work() -> None:
        with busy_processes(os.cpu_count() or 1):
            time.sleep(0.45)

    def check() -> None:
        run, start = monitored(0.6, 2, work)
        expected = [witness.cpu_percentage(*span) for span in spans(run, start)[:2]]
        assert run.values(CPU)[:2] == pytest.approx(expected, abs=6)
        assert run.values(CPU)[0] > 60

    retry(6, check)


# ---- windows at the end of a run ----------------------------------------------------------------


def test_the_window_that_is_open_at_the_end_is_logged(uses_database, uses_backend) -> None:
    def check() -> None:
        run, start = monitored(0.4, 2, lambda: time.sleep(1.0))
        assert run.steps() == [0, 1, 2]
        assert [end - start for end in run.ends()] == pytest.approx([0.4, 0.8, 1.0], abs=0.15)
        assert run.steps(CPU) == [0, 1, 2]

    retry(6, check)


def test_a_run_much_shorter_than_its_window_has_data(uses_database, uses_backend) -> None:
    with busy_processes(1), mlflow.start_run(log_system_metrics=True) as run:
        time.sleep(0.5)
    logged = Logged(run.info.run_id)
    assert logged.metrics() == DEFAULT_KEYS
    values = {name: logged.values(name) for name in DEFAULT_NAMES}
    assert all(len(entries) == 1 for entries in values.values())
    used, size = psutil.disk_usage("/").used / 1e6, psutil.virtual_memory().total / 1e6
    assert 60 / (os.cpu_count() or 1) <= values[CPU][0] <= 100
    assert values["disk_usage_megabytes"][0] == pytest.approx(used, rel=0.05)
    assert 0 < values[MEMORY][0] < size
    assert 0 < values["system_memory_usage_percentage"][0] < 100


# ---- options ------------------------------------------------------------------------------------


def test_other_statistics_have_keys_of_their_own(uses_database, uses_backend) -> None:
    sysmetrics_native.configure(statistics="mean,max,p95")
    run, _ = monitored(0.4, 1, lambda: None)
    expected = {f"{key}{ending}" for key in DEFAULT_KEYS for ending in ("", "_max", "_p95")}
    assert run.metrics() == expected
    mean, p95, peak = (run.values(f"{MEMORY}{ending}")[0] for ending in ("", "_p95", "_max"))
    assert mean <= peak
    assert p95 <= peak
    assert run.steps(f"{MEMORY}_max") == run.steps()


@pytest.mark.native
def test_a_burst_is_logged_as_the_maximum(uses_database) -> None:
    """30 ms of each second; a thousand samples are one metric, and one key more keeps the spike."""
    sysmetrics_native.configure(
        backend="native",
        statistics="mean,max",
        sources="memory,network_rate",
        network_interfaces="lo",
    )
    key = "network_transmit_megabytes_per_second"

    def check() -> None:
        mlflow.set_system_metrics_sampling_interval(0.001)
        mlflow.set_system_metrics_samples_before_logging(1000)
        with loopback_bursts(), mlflow.start_run(log_system_metrics=True) as run:
            time.sleep(2.2)
        logged = Logged(run.info.run_id)
        means, peaks = logged.values(key)[:2], logged.values(f"{key}_max")[:2]
        assert len(means) == len(peaks) == 2
        for mean, peak in zip(means, peaks, strict=True):
            assert peak >= 10 * mean > 0

    retry(6, check)


def test_without_the_mean_there_are_no_plain_keys(uses_database, uses_backend) -> None:
    sysmetrics_native.configure(statistics=["max", "last"])
    run, _ = monitored(0.4, 1, lambda: None)
    assert run.metrics() == {
        f"{key}{ending}" for key in DEFAULT_KEYS for ending in ("_max", "_last")
    }


def test_every_disk_path_has_its_keys(uses_database, uses_backend) -> None:
    sysmetrics_native.configure(disk_paths=["/", "/dev/shm"])
    run, _ = monitored(0.4, 1, lambda: None)
    disk = {key for key in DEFAULT_KEYS if "disk" in key}
    assert run.metrics() == DEFAULT_KEYS | {f"{key}_dev_shm" for key in disk}
    size = psutil.disk_usage("/dev/shm").free / 1e6
    assert run.values("disk_available_megabytes_dev_shm")[0] == pytest.approx(size, rel=0.05, abs=5)


def test_a_source_can_be_left_out(uses_database, uses_backend) -> None:
    sources = default_as_in_mlflow(uses_backend)
    os.environ["SYSMETRICS_NATIVE_SOURCES"] = f"{sources},-disk_space"
    run, _ = monitored(0.4, 1, lambda: None)
    assert run.metrics() == {key for key in DEFAULT_KEYS if "disk" not in key}

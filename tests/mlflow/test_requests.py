"""How many requests reach the tracking server, and when."""

from __future__ import annotations

import time

import mlflow
import pytest

from sysmetrics_native import SystemMetricsMonitor, delivery, tracking
from tests.mlflow.logged import DEFAULT_KEYS, Logged, monitor_of
from tests.mlflow.proxy import Proxy
from tests.support import wait_until

Requests = tuple[Logged, list[str], list[str]]


def requests_of_a_run(
    proxy: Proxy, interval: float, samples: int, seconds: float, windows: int = 0
) -> Requests:
    """The run, what it asked for while it went on, and what `finish` asked for.

    What MLflow asks for to start and to end the run is left out. It goes on for so long at least,
    and until there was time for so many windows and a request.
    """
    mlflow.set_tracking_uri(proxy.uri)
    mlflow.set_system_metrics_sampling_interval(interval)
    mlflow.set_system_metrics_samples_before_logging(samples)
    run = mlflow.start_run(log_system_metrics=True)
    started = len(proxy.requests)
    monitor = monitor_of(run.info.run_id)
    time.sleep(seconds)
    if windows:
        stats = monitor._sampler.stats
        wait_until(lambda: stats()["ticks"] >= windows * samples, f"{windows} windows")
        wait_until(lambda: "log-batch" in proxy.names()[started:], "the first request")
    before_the_end = len(proxy.requests)
    monitor.finish()
    paths = proxy.names()
    mlflow.end_run()
    return Logged(run.info.run_id), paths[started:before_the_end], paths[before_the_end:]


def test_at_most_one_request_for_a_window(proxy: Proxy) -> None:
    begin = time.monotonic()
    run, requests, at_the_end = requests_of_a_run(proxy, 0.01, 100, 6.3, windows=4)
    passed = time.monotonic() - begin
    assert set(requests) == {"log-batch", "get"}
    asked = requests.count("get")
    assert 1 <= asked <= passed / 5, "whether the run goes on is asked for every five seconds"
    # Five seconds of windows share a request; the first goes alone, and so may the last.
    assert len(requests) - asked + len(at_the_end) <= min(run.windows(), 2 + passed / 5)


def test_the_first_window_goes_at_once(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not wait for others, as all after it do."""
    monkeypatch.setattr("sysmetrics_native.delivery.LINGER_SECONDS", 100.0)
    _, requests, at_the_end = requests_of_a_run(proxy, 0.02, 10, 0.0, windows=2)
    assert requests == ["log-batch"]
    assert at_the_end == ["log-batch"]


def test_windows_that_are_short_share_requests(proxy: Proxy, uses_backend) -> None:
    begin = time.monotonic()
    run, requests, at_the_end = requests_of_a_run(proxy, 0.01, 10, 0.0, windows=9)
    passed = time.monotonic() - begin
    assert run.windows() >= 8
    assert requests.count("log-batch") <= 1 + passed / delivery.LINGER_SECONDS
    assert at_the_end == ["log-batch"]


def test_a_slow_server_is_not_asked_more_often(proxy: Proxy) -> None:
    proxy.delay(0.25)
    begin = time.monotonic()
    _, requests, _ = requests_of_a_run(proxy, 0.01, 10, 1.0, windows=10)
    passed = time.monotonic() - begin
    assert 1 <= requests.count("log-batch") <= 1 + passed / delivery.LINGER_SECONDS


def test_a_request_goes_when_it_is_full(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysmetrics_native.delivery.MAX_METRICS_PER_BATCH", 5 * len(DEFAULT_KEYS))
    monkeypatch.setattr("sysmetrics_native.delivery.LINGER_SECONDS", 100.0)
    run, requests, at_the_end = requests_of_a_run(proxy, 0.05, 1, 0.0, windows=20)
    windows = run.windows()
    assert windows >= 15
    # The first is alone in its request; a request may still be on its way, or not be asked for yet.
    assert len(requests) + len(at_the_end) <= windows // 5 + 3
    assert len(requests) >= 2


def test_windows_of_a_millisecond_go_in_batches_of_what_mlflow_takes(proxy: Proxy) -> None:
    run, _, at_the_end = requests_of_a_run(proxy, 0.001, 1, 0.5, windows=400)
    windows = run.windows()
    assert windows >= 100
    per_request = tracking.MAX_METRICS_PER_BATCH // 8
    assert len(at_the_end) <= -(-windows // per_request) + 1


def test_a_run_that_is_shorter_than_a_window_makes_one_request(proxy: Proxy) -> None:
    _, requests, at_the_end = requests_of_a_run(proxy, 10, 1, 0.3)
    assert requests == []
    assert at_the_end == ["log-batch"]


def test_resuming_takes_one_request_more(proxy: Proxy) -> None:
    run, _, _ = requests_of_a_run(proxy, 10, 1, 0.2)
    before = len(proxy.requests)
    monitor = SystemMetricsMonitor(run.run_id, resume_logging=True)
    monitor.start()
    time.sleep(0.2)
    monitor.finish()
    assert proxy.names()[before:] == ["get", "log-batch"]


@pytest.mark.parametrize("interval", [0.5, 20, 3600])
def test_building_and_starting_a_monitor_makes_no_request(proxy: Proxy, interval: float) -> None:
    monitor = SystemMetricsMonitor("run", interval, tracking_uri=proxy.uri)
    assert proxy.requests == []
    proxy.fail(404, "RESOURCE_DOES_NOT_EXIST")
    monitor.start()
    assert proxy.requests == []
    monitor.finish()

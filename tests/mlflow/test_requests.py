"""How many requests reach the tracking server, and when."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from sysmetrics_native import SystemMetricsMonitor, configure, delivery, settings, tracking
from tests.mlflow.logged import DEFAULT_KEYS, MEMORY, Logged, monitor_of
from tests.mlflow.proxy import Proxy
from tests.mlflow.server import Server
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


def test_the_first_window_goes_at_once(proxy: Proxy) -> None:
    """And does not wait for others, as all after it do."""
    configure(delivery_interval=100)
    _, requests, at_the_end = requests_of_a_run(proxy, 0.02, 10, 0.0, windows=2)
    assert requests == ["log-batch"]
    assert at_the_end == ["log-batch"]


def test_windows_that_are_short_share_requests(proxy: Proxy, uses_backend) -> None:
    begin = time.monotonic()
    run, requests, at_the_end = requests_of_a_run(proxy, 0.01, 10, 0.0, windows=9)
    passed = time.monotonic() - begin
    assert run.windows() >= 8
    assert requests.count("log-batch") <= 1 + passed / settings.option("delivery_interval")
    assert at_the_end == ["log-batch"]


def test_a_slow_server_is_not_asked_more_often(proxy: Proxy) -> None:
    proxy.delay(0.25)
    begin = time.monotonic()
    _, requests, _ = requests_of_a_run(proxy, 0.01, 10, 1.0, windows=10)
    passed = time.monotonic() - begin
    assert 1 <= requests.count("log-batch") <= 1 + passed / settings.option("delivery_interval")


def test_a_request_goes_when_it_is_full(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysmetrics_native.delivery.MAX_METRICS_PER_BATCH", 5 * len(DEFAULT_KEYS))
    configure(delivery_interval=100)
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


# ---- runs of many nodes -------------------------------------------------------------------------


@pytest.fixture
def node(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemMetricsMonitor]:
    """The monitor of one of several nodes, which has a first window; checks are frequent."""
    monkeypatch.setattr(delivery, "STATUS_CHECK_SECONDS", (0.3, 0.3))
    configure(delivery_interval=0.2)
    run_id = str(MlflowClient(proxy.uri).create_run("0").info.run_id)
    made = SystemMetricsMonitor(run_id, 0.1, 2, node_id="1", tracking_uri=proxy.uri)
    proxy.requests.clear()
    made.start()
    wait_until(lambda: "log-batch" in proxy.names(), "the first window")
    yield made
    made.finish()


def test_the_long_answer_is_asked_for_once(node: SystemMetricsMonitor, proxy: Proxy) -> None:
    """While it is short: before the node has logged anything."""
    wait_until(lambda: proxy.names().count("search") >= 3, "three looks at the run")
    assert proxy.names()[0] == "get"
    assert proxy.names().count("get") == 1


@pytest.mark.parametrize("status", ["FINISHED", "KILLED"])
def test_a_search_finds_that_the_run_has_ended(
    node: SystemMetricsMonitor, proxy: Proxy, server: Server, status: str
) -> None:
    wait_until(lambda: "search" in proxy.names(), "a look at the run")
    MlflowClient(server.uri).set_terminated(node._run_id, status)
    wait_until(node._delivery.is_done, "the end")
    assert proxy.names().count("get") == 2, "what the search has found is looked at"


@pytest.mark.parametrize(
    ("status", "code"), [(403, "PERMISSION_DENIED"), (400, "INVALID_PARAMETER_VALUE")]
)
def test_where_a_search_is_refused_the_run_is_asked_for(
    node: SystemMetricsMonitor, proxy: Proxy, status: int, code: str
) -> None:
    proxy.fail(status, code, only="search")
    wait_until(lambda: "search" in proxy.names(), "a look at the run")
    searches = proxy.names().count("search")
    wait_until(lambda: proxy.names().count("get") >= 4, "other looks at the run")
    assert proxy.names().count("search") <= searches + 1
    assert not node._delivery.was_refused


def test_where_a_search_takes_long_it_is_not_repeated(
    node: SystemMetricsMonitor, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some times: a store of files reads every run of the experiment."""
    monkeypatch.setattr(tracking, "SLOW_SEARCH_SECONDS", 0.0)
    monkeypatch.setattr(tracking, "SLOW_SEARCH_RATIO", 0.0)
    wait_until(lambda: proxy.names().count("get") >= 3, "looks at the run")
    assert proxy.names().count("search") == tracking.SLOW_SEARCHES


def test_a_run_of_one_node_with_many_metrics_is_searched_for_too(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "STATUS_CHECK_SECONDS", (0.2, 0.2))
    client = MlflowClient(proxy.uri)
    run_id = str(client.create_run("0").info.run_id)
    client.log_batch(run_id, metrics=[Metric(f"loss_{n}", 1.0, 0, 0) for n in range(120)])
    monitor = SystemMetricsMonitor(run_id, 0.1, 2, tracking_uri=proxy.uri)
    proxy.requests.clear()
    monitor.start()
    wait_until(lambda: proxy.names().count("search") >= 2, "looks at the run")
    monitor.finish()
    assert proxy.names().count("get") == 1


def test_nodes_ask_at_moments_of_their_own(proxy: Proxy) -> None:
    """Those that have begun in the same second; what they seed their programs with is no matter."""
    configure(delivery_interval=100)
    shifts = []
    for node_id in range(64):
        random.seed(0)
        monitor = SystemMetricsMonitor("run", 10, node_id=str(node_id), tracking_uri=proxy.uri)
        shifts.append(monitor._delivery._shift)
    assert all(0.0 <= shift <= 100.0 for shift in shifts)
    # That a quarter of the time has none of 64 has a chance of one in ten million.
    assert {int(shift // 25) for shift in shifts} == {0, 1, 2, 3}
    alone = SystemMetricsMonitor("run", 10, tracking_uri=proxy.uri)
    assert alone._delivery._shift == 0.0


def test_a_window_waits_for_the_moment_of_its_node(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_random_share", lambda: 0.75)
    configure(delivery_interval=2.0)
    run_id = str(MlflowClient(proxy.uri).create_run("0").info.run_id)
    monitor = SystemMetricsMonitor(run_id, 1.0, 2, node_id="1", tracking_uri=proxy.uri)
    proxy.requests.clear()
    begun = time.monotonic()
    monitor.start()
    logged = Logged(run_id, proxy.uri)
    key = f"1/{MEMORY}"
    wait_until(lambda: proxy.names().count("log-batch") >= 2, "two windows")
    looked, first, second = (r.time - begun for r in proxy.requests if r.name != "search")
    assert looked >= 0.75 * 1.0, "while nobody has a window yet: within half of one"
    assert first >= 2.0 + 1.5, (
        "a window is two seconds, and three quarters of the interval are more"
    )
    assert second >= 4.0 + 1.5
    monitor.finish()
    assert logged.windows(key) == len(logged.steps(key)) >= 3


@pytest.mark.parametrize("hurried", [False, True])
def test_nodes_that_end_together_do_not_ask_together(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, hurried: bool
) -> None:
    """At SIGTERM they do: a moment later there may be nobody to ask."""
    monkeypatch.setattr(delivery, "_random_share", lambda: 0.9)
    monkeypatch.setattr(delivery, "USUAL_NODES", 80)  # two seconds
    run_id = str(MlflowClient(proxy.uri).create_run("0").info.run_id)
    monitor = SystemMetricsMonitor(run_id, 10, node_id="1", tracking_uri=proxy.uri)
    proxy.requests.clear()
    monitor.start()
    begun = time.monotonic()
    end = monitor._finish_at_signal if hurried else monitor.finish
    end()
    (last,) = (request for request in proxy.requests if request.name == "log-batch")
    if not hurried:
        assert last.time - begun >= 0.9 * 2.0
    assert Logged(run_id, proxy.uri).windows(f"1/{MEMORY}") == 1


def test_the_last_window_is_written_down_before_its_moment_comes(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(delivery, "_random_share", lambda: 1.0)
    configure(spool_dir=tmp_path, shutdown_timeout=60)
    monkeypatch.setattr(delivery, "END_SPREAD_SECONDS", 15.0)
    monkeypatch.setattr(delivery, "USUAL_NODES", 1000)
    run_id = str(MlflowClient(proxy.uri).create_run("0").info.run_id)
    monitor = SystemMetricsMonitor(run_id, 10, node_id="1", tracking_uri=proxy.uri)
    proxy.requests.clear()
    monitor.start()
    ending = threading.Thread(target=monitor.finish)
    ending.start()
    wait_until(lambda: list(tmp_path.rglob("*.smnspool")), "the spool")
    assert "log-batch" not in proxy.names()
    monitor._delivery.hurry()
    ending.join()
    assert Logged(run_id, proxy.uri).windows(f"1/{MEMORY}") == 1
    assert not list(tmp_path.rglob("*.smnspool"))


def test_windows_share_requests_for_as_long_as_one_says(proxy: Proxy) -> None:
    configure(delivery_interval=3.0)
    run, requests, at_the_end = requests_of_a_run(proxy, 0.5, 1, 2.2)
    assert run.windows() >= 3
    assert requests == ["log-batch"], "the first window goes at once"
    assert at_the_end == ["log-batch"]


def test_windows_need_not_share_requests(proxy: Proxy) -> None:
    configure(delivery_interval=0)
    run, requests, at_the_end = requests_of_a_run(proxy, 0.25, 1, 1.6)
    assert requests.count("log-batch") + len(at_the_end) >= run.windows()

"""A tracking server that fails: sampling goes on, and every window arrives, in order, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from sysmetrics_native import SystemMetricsMonitor, configure, delivery
from tests.mlflow.logged import Logged, monitor_of
from tests.mlflow.proxy import Proxy
from tests.mlflow.server import Server
from tests.support import wait_until

WINDOW_SECONDS = 0.2
OUTAGE_SECONDS = 1.0

Break = Callable[[Proxy], None]


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short windows that go soon; and failures that MLflow's own client reports at once."""
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "4")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(delivery, "LINGER_SECONDS", 0.3)


@pytest.fixture
def run_id(server: Server) -> str:
    """A run that nobody but its monitor will write to."""
    return str(MlflowClient(server.uri).create_run("0").info.run_id)


@pytest.fixture
def logged(server: Server, run_id: str) -> Logged:
    """What the server has of it, asked for past the proxy."""
    return Logged(run_id, server.uri)


@pytest.fixture
def monitor(proxy: Proxy, run_id: str) -> SystemMetricsMonitor:
    return SystemMetricsMonitor(run_id, tracking_uri=proxy.uri)


def assert_no_gap(logged: Logged) -> None:
    """Every window is there once, and follows the one before."""
    ends = logged.ends()
    assert logged.steps() == list(range(len(ends)))
    assert ends == sorted(set(ends))
    apart = [later - earlier for earlier, later in zip(ends, ends[1:-1], strict=False)]
    assert apart == pytest.approx([WINDOW_SECONDS] * len(apart), abs=0.15)
    whole = ends[-2] - ends[0]
    assert whole == pytest.approx(WINDOW_SECONDS * (len(ends) - 2), abs=0.15)


# ---- in the middle of a run ---------------------------------------------------------------------

BREAKS: dict[str, Break] = {
    "refuses": Proxy.refuse,
    "hangs": Proxy.hang,
    "loses answers": Proxy.lose_answers,
    "429": lambda proxy: proxy.fail(429, "RESOURCE_EXHAUSTED"),
    "500": lambda proxy: proxy.fail(500, "INTERNAL_ERROR"),
    "500 page": lambda proxy: proxy.fail(500),
    "502 page": lambda proxy: proxy.fail(502),
    "503": lambda proxy: proxy.fail(503, "TEMPORARILY_UNAVAILABLE"),
    "504 page": lambda proxy: proxy.fail(504),
}


@pytest.mark.parametrize("break_it", BREAKS.values(), ids=BREAKS)
def test_every_window_arrives_in_order_and_once(
    proxy: Proxy,
    logged: Logged,
    monitor: SystemMetricsMonitor,
    warnings: list[str],
    break_it: Break,
) -> None:
    monitor.start()
    logged.wait_for(1)
    break_it(proxy)
    wait_until(lambda: warnings, "the first failure")
    broken = time.time()
    time.sleep(OUTAGE_SECONDS)
    proxy.work()
    wait_until(lambda: logged.ends()[-1] > broken + OUTAGE_SECONDS, "a window from after")
    monitor.finish()
    assert_no_gap(logged)
    (warning,) = warnings
    assert "will keep them and try again" in warning


def test_a_slow_server_gets_every_window(
    proxy: Proxy, logged: Logged, monitor: SystemMetricsMonitor, warnings: list[str]
) -> None:
    monitor.start()
    proxy.delay(0.7)
    logged.wait_for(8)
    monitor.finish()
    assert_no_gap(logged)
    assert warnings == []


def test_each_outage_has_one_warning(
    proxy: Proxy, logged: Logged, monitor: SystemMetricsMonitor, warnings: list[str]
) -> None:
    monitor.start()
    for outage in (1, 2):
        logged.wait_for(len(logged.steps()) + 1)
        before = len(proxy.requests)
        proxy.fail(503)
        wait_until(lambda before=before: len(proxy.requests) >= before + 3, "further attempts")
        proxy.work()
        seen = len(logged.steps())
        logged.wait_for(seen + 1)
        assert len(warnings) == outage
    monitor.finish()
    assert_no_gap(logged)


def test_a_run_can_begin_and_resume_while_the_server_is_down(
    proxy: Proxy, logged: Logged, run_id: str, server: Server, warnings: list[str]
) -> None:
    MlflowClient(server.uri).log_metric(run_id, "system/before", 1.0, step=9)
    proxy.refuse()
    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=proxy.uri)
    monitor.start()
    wait_until(lambda: warnings, "the first failure")
    proxy.work()
    logged.wait_for(3)
    monitor.finish()
    assert logged.steps()[:3] == [10, 11, 12]


def test_what_waits_is_bounded_and_no_time_is_lost(
    proxy: Proxy, logged: Logged, run_id: str, uses_backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "MAX_WAITING_WINDOWS", 5)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "1")
    monitor = SystemMetricsMonitor(run_id, tracking_uri=proxy.uri)
    monitor.start()
    logged.wait_for(1)
    proxy.refuse()
    sampler = monitor._sampler
    wait_until(lambda: sampler.stats()["merged_windows"] >= 20, "windows that merge")
    assert len(monitor._delivery._waiting) == 5
    proxy.work()
    wait_until(lambda: not monitor._delivery._waiting, "the windows that waited")
    monitor.finish()
    stats = sampler.stats()
    # With one tick a window: each tick is in a window that was logged.
    assert len(logged.steps()) + stats["merged_windows"] == stats["ticks"]
    assert logged.steps() == list(range(len(logged.steps())))
    ends = logged.ends()
    assert ends == sorted(ends)


# ---- failures that do not heal ------------------------------------------------------------------

REFUSALS: dict[str, Break] = {
    "403": lambda proxy: proxy.fail(403, "PERMISSION_DENIED"),
    "403 page": lambda proxy: proxy.fail(403),
    "401 page": lambda proxy: proxy.fail(401),
    "404": lambda proxy: proxy.fail(404, "RESOURCE_DOES_NOT_EXIST"),
    "404 page": lambda proxy: proxy.fail(404),
    "400": lambda proxy: proxy.fail(400, "INVALID_PARAMETER_VALUE"),
}


@pytest.mark.parametrize("break_it", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_stops_monitoring_with_one_warning(
    proxy: Proxy,
    logged: Logged,
    monitor: SystemMetricsMonitor,
    run_id: str,
    warnings: list[str],
    break_it: Break,
) -> None:
    monitor.start()
    logged.wait_for(1)
    break_it(proxy)
    wait_until(lambda: warnings, "the refusal")
    refused = len(proxy.requests)
    wait_until(_nobody_monitors, "the end of monitoring")
    monitor.finish()
    (warning,) = warnings
    assert warning.startswith(f"Stopped monitoring system metrics of run {run_id}: ")
    assert len(proxy.requests) == refused


def _nobody_monitors() -> bool:
    return all("SystemMetrics" not in thread.name for thread in threading.enumerate())


# ---- at the end of a run ------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.0, 1.5])
def test_a_server_that_hangs_at_the_end_holds_up_no_longer_than_the_option(
    proxy: Proxy, server: Server, warnings: list[str], timeout: float
) -> None:
    configure(shutdown_timeout=timeout)
    mlflow.set_tracking_uri(proxy.uri)
    run = mlflow.start_run(log_system_metrics=True)
    logged = Logged(run.info.run_id, server.uri)
    logged.wait_for(1)
    monitor = monitor_of(run.info.run_id)
    proxy.hang(only="log-batch")
    time.sleep(3 * WINDOW_SECONDS)
    started = time.monotonic()
    mlflow.end_run()
    took = time.monotonic() - started
    assert took < timeout + 0.7
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"
    left = [warning for warning in warnings if "were not logged" in warning]
    total = monitor._delivery._logged + len(monitor._delivery._waiting)
    assert total >= 4 or timeout == 0.0
    assert left == [
        f"System metrics of run {run.info.run_id}: {total - len(logged.steps())} windows were not "
        "logged, because the tracking server did not take them within "
        f"{timeout:g} s."
    ]


def test_a_server_that_is_back_before_the_time_is_over_gets_everything(
    proxy: Proxy, logged: Logged, monitor: SystemMetricsMonitor, warnings: list[str]
) -> None:
    monitor.start()
    logged.wait_for(1)
    proxy.refuse()
    wait_until(lambda: warnings, "the first failure")
    time.sleep(2 * WINDOW_SECONDS)
    back = threading.Timer(1.0, proxy.work)
    back.start()
    started = time.monotonic()
    monitor.finish()
    assert 0.9 < time.monotonic() - started < 3.0
    assert_no_gap(logged)
    assert len(warnings) == 1
    back.join()

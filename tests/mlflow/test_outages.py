"""A tracking server that fails: sampling goes on, and every window arrives, in order, once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from sysmetrics_native import SystemMetricsMonitor, backlog, configure
from tests.mlflow.logged import Logged, monitor_of
from tests.mlflow.proxy import Proxy
from tests.mlflow.server import Server
from tests.support import wait_until

WINDOW_SECONDS = 0.2
OUTAGE_SECONDS = 1.0

Break = Callable[[Proxy], None]


def use_settings(patch: pytest.MonkeyPatch) -> None:
    """Short windows that go soon; and failures that MLflow's own client reports at once."""
    patch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    patch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "4")
    patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    patch.setenv("SYSMETRICS_NATIVE_DELIVERY_INTERVAL", "0.3")


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    use_settings(monkeypatch)


class Monitored:
    """A run that a monitor logs to through a proxy, which can fail."""

    def __init__(self, server: Server, *, resume: bool = False) -> None:
        self.run_id = str(MlflowClient(server.uri).create_run("0").info.run_id)
        self.logged = Logged(self.run_id, server.uri)  # asks past the proxy
        self.proxy = Proxy(server.uri)
        self.monitor = SystemMetricsMonitor(
            self.run_id, resume_logging=resume, tracking_uri=self.proxy.uri
        )
        self._record = _Record(self.run_id)
        self.warnings = self._record.warnings
        logging.getLogger("sysmetrics_native").addHandler(self._record)

    def wait_for_batches(self, count: int) -> None:
        """Wait until the server has taken so many more."""
        wanted = self.proxy.batches_served() + count
        wait_until(lambda: self.proxy.batches_served() >= wanted, f"{count} further requests")

    def wait_for_failure(self) -> None:
        wait_until(lambda: self.warnings, "the first failure")

    def close(self) -> None:
        self.monitor.finish()
        self.proxy.close()
        logging.getLogger("sysmetrics_native").removeHandler(self._record)

    def assert_no_gap(self) -> None:
        """Every window is there once, and follows the one before."""
        ends = self.logged.ends()
        assert self.logged.windows() == len(set(ends))
        stats = self.monitor._sampler.stats()
        assert stats["merged_windows"] == 0
        # A machine that is busy skips deadlines, and with them windows; nothing else does.
        expected = (ends[-1] - ends[0]) / WINDOW_SECONDS
        skipped = stats["missed"] / 4
        assert expected - skipped - 1 <= len(ends) <= expected + 3


class _Record(logging.Handler):
    """Keeps what is logged of a run as a warning or worse."""

    def __init__(self, run_id: str) -> None:
        super().__init__(logging.WARNING)
        self._run_id = run_id
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if self._run_id in record.getMessage():
            self.warnings.append(record.getMessage())


@pytest.fixture
def run(server: Server) -> Iterator[Monitored]:
    run = Monitored(server)
    yield run
    run.close()


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


def survive(server: Server, break_it: Break) -> Monitored:
    """Monitor a run over an outage."""
    run = Monitored(server)
    run.monitor.start()
    run.wait_for_batches(1)
    break_it(run.proxy)
    run.wait_for_failure()
    time.sleep(OUTAGE_SECONDS)
    run.proxy.work()
    run.wait_for_batches(2)
    run.close()
    return run


@pytest.fixture(scope="module")
def outages(server: Server) -> dict[str, Future[Monitored]]:
    """One run for each way to fail, all at the same time."""
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(len(BREAKS)) as pool:
        use_settings(patch)
        runs = {name: pool.submit(survive, server, break_it) for name, break_it in BREAKS.items()}
        pool.shutdown()
    return runs


@pytest.mark.parametrize("name", BREAKS)
def test_every_window_arrives_in_order_and_once(
    outages: dict[str, Future[Monitored]], name: str
) -> None:
    run = outages[name].result()
    run.assert_no_gap()
    (warning,) = run.warnings
    assert "will keep them and try again" in warning


def test_a_slow_server_gets_every_window(run: Monitored) -> None:
    run.monitor.start()
    run.proxy.delay(0.6)
    run.wait_for_batches(3)
    run.monitor.finish()
    run.assert_no_gap()
    assert run.warnings == []


def test_each_outage_has_one_warning(run: Monitored) -> None:
    run.monitor.start()
    for outage in (1, 2):
        run.wait_for_batches(1)
        run.proxy.requests.clear()
        run.proxy.fail(503)
        wait_until(lambda: len(run.proxy.requests) >= 2, "two attempts")
        run.proxy.work()
        run.wait_for_batches(1)
        assert len(run.warnings) == outage
    run.monitor.finish()
    run.assert_no_gap()


def test_a_run_can_begin_and_resume_while_the_server_is_down(server: Server) -> None:
    run = Monitored(server, resume=True)
    MlflowClient(server.uri).log_metric(run.run_id, "system/before", 1.0, step=9)
    run.proxy.refuse()
    run.monitor.start()
    run.wait_for_failure()
    run.proxy.work()
    run.wait_for_batches(1)
    run.close()
    assert run.logged.windows(first_step=10) >= 1


def test_what_waits_is_bounded_and_no_time_is_lost(
    server: Server, uses_backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MAX_WINDOWS_IN_MEMORY", 5)
    monkeypatch.setenv("SYSMETRICS_NATIVE_SPOOL_DIR", "/proc/nowhere")  # not even root can write
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "1")
    run = Monitored(server)
    run.monitor.start()
    run.wait_for_batches(1)
    run.proxy.refuse()
    sampler = run.monitor._sampler
    wait_until(lambda: sampler.stats()["merged_windows"] >= 20, "windows that merge")
    assert run.monitor._delivery.counts().left == 5
    run.proxy.work()
    run.wait_for_batches(1)
    run.close()
    stats = sampler.stats()
    windows = run.logged.windows()
    assert windows + stats["merged_windows"] == stats["ticks"], "a window here is one tick"


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
    run: Monitored, break_it: Break, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run.monitor.start()
    run.wait_for_batches(1)
    break_it(run.proxy)
    run.wait_for_failure()
    refused = len(run.proxy.requests)
    wait_until(_nobody_monitors, "the end of monitoring")
    run.monitor.finish()
    (warning,) = run.warnings
    assert warning.startswith(f"Stopped monitoring system metrics of run {run.run_id}: ")
    assert len(run.proxy.requests) == refused
    # Only MLflow's own word that there is no such run is reason to throw its windows away.
    is_gone = request.node.callspec.id == "404"
    assert (list((tmp_path / "state").rglob("*.smnspool")) == []) == is_gone
    assert ("sysmetrics-native recover" in warning) != is_gone


def _nobody_monitors() -> bool:
    return all("SystemMetrics" not in thread.name for thread in threading.enumerate())


# ---- at the end of a run ------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.0, 1.5])
def test_a_server_that_hangs_at_the_end_holds_up_no_longer_than_the_option(
    proxy: Proxy,
    server: Server,
    warnings: list[str],
    monkeypatch: pytest.MonkeyPatch,
    timeout: float,
) -> None:
    configure(shutdown_timeout=timeout)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
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
    assert took < timeout + 1.5
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"
    left = [warning for warning in warnings if "were not logged" in warning]
    counts = monitor._delivery.counts()
    total = counts.logged + counts.left
    assert total >= 4 or timeout == 0.0
    (warning,) = left
    assert f" {total - len(logged.steps())} windows were not logged" in warning
    assert f"within {timeout:g} s" in warning


def test_a_server_that_is_back_before_the_time_is_over_gets_everything(run: Monitored) -> None:
    run.monitor.start()
    run.wait_for_batches(1)
    run.proxy.refuse()
    run.wait_for_failure()
    time.sleep(2 * WINDOW_SECONDS)
    back = threading.Timer(1.0, run.proxy.work)
    back.start()
    started = time.monotonic()
    run.monitor.finish()
    assert 0.9 < time.monotonic() - started < 5.0
    back.join()
    run.assert_no_gap()
    assert len(run.warnings) == 1

"""MLflow's own pages, on a real server: what its tab "System metrics" shows of ours."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

pytest.importorskip("mlflow", reason="MLflow is not installed")

import mlflow
from mlflow.tracking import MlflowClient

from sysmetrics_native import SystemMetricsMonitor
from tests.browser.chromium import DESKTOP, Browser
from tests.mlflow.server import Server
from tests.support import DEFAULT_KEYS

NODES = ("node-0", "node-1")
NAMES = [name for names in DEFAULT_KEYS.values() for name in names]
TEXT = "document.body.innerText"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    server = Server(folder, folder / "mlflow.db")
    server.wait_until_it_answers()
    yield server
    server.close()


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "10")
    # A machine with a limit has more.
    monkeypatch.setenv("SYSMETRICS_NATIVE_SOURCES", ",".join(DEFAULT_KEYS))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server.uri)
    yield MlflowClient(server.uri)
    mlflow.set_tracking_uri(before)


def open_system_metrics(browser: Browser, server: Server, run_id: str) -> None:
    browser.set_screen((DESKTOP[0], 3000))  # it draws what is in sight
    browser.open(f"{server.uri}/#/experiments/0/runs/{run_id}/system-metrics")


def wait_for_lines(browser: Browser) -> None:
    """Each chart has its line."""
    lines = "document.querySelectorAll('.js-plotly-plot path.js-line').length"
    browser.wait_for(f"return {lines} >= {len(NAMES)}", "a line in each chart")


def test_the_tab_shows_every_metric_of_an_unchanged_program(
    browser: Browser, server: Server, client: MlflowClient
) -> None:
    with mlflow.start_run(log_system_metrics=True) as run:
        time.sleep(2.5)
    logged = client.get_run(run.info.run_id).data.metrics
    assert {f"system/{name}" for name in NAMES} <= set(logged)
    open_system_metrics(browser, server, run.info.run_id)
    for name in NAMES:
        browser.wait_for(f"return {TEXT}.includes({name!r})", f"the chart of {name}")
    wait_for_lines(browser)


def test_nodes_have_sections_of_their_own(
    browser: Browser, server: Server, client: MlflowClient
) -> None:
    run_id = client.create_run("0").info.run_id
    monitors = [SystemMetricsMonitor(run_id, node_id=node) for node in NODES]
    for monitor in monitors:
        monitor.start()
    time.sleep(2.5)
    for monitor in monitors:
        monitor.finish()
    client.set_terminated(run_id)
    open_system_metrics(browser, server, run_id)
    for node in NODES:
        browser.wait_for(f"return {TEXT}.includes('system/{node}')", f"the section of {node}")
        count = f"/system\\/{node}\\s*\\({len(NAMES)}\\)/.test({TEXT})"
        browser.wait_for(f"return {count}", f"all {len(NAMES)} charts of {node}")
    wait_for_lines(browser)

"""A tracking server that is away for a minute of a run of a minute and a half."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from sysmetrics_native import SystemMetricsMonitor
from tests.mlflow.logged import Logged
from tests.mlflow.proxy import Proxy
from tests.mlflow.server import Server

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

BEFORE_SECONDS = 15.0
OUTAGE_SECONDS = 60.0
AFTER_SECONDS = 15.0


class Outage:
    """A run of its own server that is away for a while."""

    def __init__(self, server: Server, proxy: Proxy | None) -> None:
        self.run_id = str(MlflowClient(server.uri).create_run("0").info.run_id)
        self._server = server
        self._proxy = proxy
        uri = server.uri if proxy is None else proxy.uri
        self._monitor = SystemMetricsMonitor(self.run_id, 0.1, 10, tracking_uri=uri)

    def live_through(self, way: str) -> tuple[dict[str, int], float]:
        """Monitor the run; returns how often it was sampled, and how long `finish` took."""
        self._monitor.start()
        time.sleep(BEFORE_SECONDS)
        if self._proxy is None:
            self._server.kill()
            time.sleep(OUTAGE_SECONDS)
            self._server.start()
        else:
            self._break(self._proxy, way)
            time.sleep(OUTAGE_SECONDS)
            self._proxy.work()
        time.sleep(AFTER_SECONDS)
        started = time.monotonic()
        self._monitor.finish()
        took = time.monotonic() - started
        stats = self._monitor._sampler.stats()
        assert stats["merged_windows"] == 0
        return {name: stats[name] for name in ("ticks", "missed")}, took

    @staticmethod
    def _break(proxy: Proxy, way: str) -> None:
        if way == "refuses":
            proxy.refuse()
        elif way == "hangs":
            proxy.hang()
        else:
            proxy.fail(503, "TEMPORARILY_UNAVAILABLE")


@pytest.fixture
def own_server(empty_database: Path, tmp_path: Path) -> Iterator[Server]:
    """A server that this test may kill."""
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    server = Server(tmp_path, tmp_path / "mlflow.db")
    server.wait_until_it_answers()
    yield server
    server.close()


def test_every_window_of_a_run_that_was_cut_off_for_a_minute_arrives(
    server: Server, own_server: Server, tmp_path: Path
) -> None:
    proxies = {way: Proxy(server.uri) for way in ("refuses", "503", "hangs")}
    outages = {way: Outage(server, proxy) for way, proxy in proxies.items()}
    outages["is killed and started again"] = Outage(own_server, None)
    with ThreadPoolExecutor(len(outages)) as pool:
        futures = {way: pool.submit(outage.live_through, way) for way, outage in outages.items()}
    for way, outage in outages.items():
        stats, took = futures[way].result()
        uri = (own_server if way not in proxies else server).uri
        logged = Logged(outage.run_id, uri)
        ends = logged.ends()
        # Steps from 0 without a gap, each once, in the order of time; and as many as there were.
        assert logged.windows() == len(ends) == len(set(ends)), way
        assert stats["ticks"] / 10 <= len(ends) <= (stats["ticks"] + stats["missed"]) / 10 + 1, way
        assert max(later - earlier for earlier, later in itertools.pairwise(ends)) < 5, way
        assert took < 20, way
    for proxy in proxies.values():
        proxy.close()
    assert list((tmp_path / "state").rglob("*.smnspool")) == [], "all was sent"

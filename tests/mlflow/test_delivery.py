"""Delivery by itself, on a real store: metrics that MLflow refuses, and a day of windows."""

from __future__ import annotations

import math
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from sysmetrics_native import delivery
from sysmetrics_native.delivery import Delivery
from sysmetrics_native.tracking import NO_TAGS, Entry, RunState, Tracking, connect
from tests.mlflow.logged import Logged
from tests.support import wait_until

DAY = 86_400


def deliver(run_id: str, windows: Sequence[dict[str, float]]) -> Delivery:
    """Deliver windows to their end."""
    made = make_delivery(run_id)
    made.start()
    for number, metrics in enumerate(windows):
        made.put(1764000000000 + number, metrics)
    made.put_last()
    made.close(time.monotonic() + 30)
    made.wait(time.monotonic() + 30)
    return made


def make_delivery(run_id: str) -> Delivery:
    return Delivery(
        run_id,
        None,
        spool_dir=None,
        window_seconds=1.0,
        delivery_interval=5.0,
        resume=False,
        on_run_over=lambda: None,
    )


def test_metrics_that_mlflow_refuses_harm_no_other(uses_database: str, warnings: list[str]) -> None:
    run_id = str(MlflowClient().create_run("0").info.run_id)
    bad = {
        "system/a//b": 1.0,
        "system/../b": 1.0,
        "system/tab\there": 1.0,
        "system/" + "x" * 300: 1.0,
        "system/nan": math.nan,
        "system/infinite": math.inf,
    }
    made = deliver(run_id, [{"system/good": float(n), **bad} for n in range(20)])
    assert made.counts().logged == 20
    logged = Logged(run_id, uses_database)
    assert logged.metrics() == {"system/good"}
    assert logged.values("good") == [float(n) for n in range(20)]
    assert len(warnings) == 4, "one for each key; a value that is no number is just absent"
    assert all("does not take the metric" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("uri", "is_ours"),
    [
        ("http://127.0.0.1:1", True),
        ("https://ann:word@127.0.0.1:1/base", True),
        ("databricks", False),
        ("databricks://profile", False),
        ("sqlite:///{folder}/mlflow.db", False),
    ],
)
def test_only_plain_servers_get_requests_that_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, is_ours: bool
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", "https://127.0.0.1:1")
    monkeypatch.setenv("DATABRICKS_TOKEN", "no-such-token")
    assert (type(connect(uri.format(folder=tmp_path))) is not Tracking) == is_ours


class Day(Tracking):
    """A server that is away until it is told to be back; it keeps the steps that it was sent."""

    def __init__(self) -> None:
        self.is_back = False
        self.steps: list[int] = []

    def log(self, run_id: str, entries: Sequence[Entry], tags: Mapping[str, str] = NO_TAGS) -> None:
        assert len(entries) + len(tags) <= 1000
        if not self.is_back:
            raise ConnectionError(f"{run_id} cannot be reached")
        self.steps += [entry.step for entry in entries if entry.key == "system/metric_0"]

    def run(self, run_id: str) -> RunState:
        if not self.is_back:
            raise ConnectionError(f"{run_id} cannot be reached")
        return RunState("RUNNING", False, {})


def test_a_day_without_a_server_takes_no_memory_and_little_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = Day()
    monkeypatch.setattr(delivery, "connect", lambda _: server)
    made = make_delivery("run")
    made.start()
    metrics = {f"system/metric_{n}": n * 1.7 for n in range(8)}
    made.put(1764000000000, metrics)
    wait_until(lambda: list(tmp_path.rglob("*.smnspool")), "the spool")
    (path,) = tmp_path.rglob("*.smnspool")
    tracemalloc.start()
    for second in range(1, DAY):
        made.put(1764000000000 + 1000 * second, metrics)
    assert made.counts().left == DAY
    assert path.stat().st_size < 40e6
    server.is_back = True
    made.put_last()
    made.close(time.monotonic() + 60)
    made.wait(time.monotonic() + 60)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert server.steps == list(range(DAY))
    # The list of steps is the test's own; what is ours is a batch.
    assert peak < 8e6
    assert made.counts() == (DAY, 0, 0, "")
    assert not path.exists()

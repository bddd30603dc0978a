"""Each value once, on stores that would have it twice; and refused metrics that harm no other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from sysmetrics_native.run_log import RunDeletedError, RunLog
from sysmetrics_native.spool import WaitingWindow
from sysmetrics_native.tracking import (
    MAX_METRICS_PER_BATCH,
    NO_TAGS,
    Entry,
    RunState,
    Tracking,
    absolute_uri,
    is_permanent,
)


class Refused(Exception):  # noqa: N818  # as MLflow's exceptions carry their code
    error_code = "INVALID_PARAMETER_VALUE"


class AppendingStore(Tracking):
    """Keeps whatever it is told, as MLflow's file store does, and fails as the test says."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.requests: list[str] = []
        self.tags: dict[str, str] = {}
        self.bad_keys: set[str] = set()
        self.is_deleted = False
        self.fail_before: list[int] = []  # of the next requests, so many entries arrive
        self.failures: list[Exception] = []  # of the next requests, before anything else

    def log(self, run_id: str, entries: Sequence[Entry], tags: Mapping[str, str] = NO_TAGS) -> None:
        self.requests.append("log and set" if tags else "log")
        assert run_id == "run"
        assert entries or tags, "a request for nothing"
        assert len(entries) + len(tags) <= MAX_METRICS_PER_BATCH
        if self.failures:
            raise self.failures.pop(0)
        if self.bad_keys & ({entry.key for entry in entries} | set(tags)):
            raise Refused(f"no {self.bad_keys}")
        arriving = self.fail_before.pop(0) if self.fail_before else None
        self.entries += entries[:arriving]
        if arriving is None or arriving > len(entries):
            self.tags.update(tags)  # as MLflow's stores do: behind the metrics
        if arriving is not None:
            raise ConnectionError("the answer was lost")

    def run(self, run_id: str) -> RunState:
        self.requests.append("run")
        assert run_id == "run"
        latest: dict[str, Entry] = {}
        for entry in self.entries:
            if entry.key not in latest or entry.step >= latest[entry.key].step:
                latest[entry.key] = entry
        return RunState("RUNNING", self.is_deleted, latest)

    def steps(self, key: str) -> list[int]:
        return [entry.step for entry in self.entries if entry.key == key]


@pytest.fixture
def store() -> AppendingStore:
    return AppendingStore()


def windows(first: int, count: int, **metrics: float) -> list[WaitingWindow]:
    values = {f"system/{key}": value for key, value in (metrics or {"a": 1.0, "b": 2.0}).items()}
    return [WaitingWindow(n, 1000 + n, values) for n in range(first, first + count)]


def test_all_is_well_and_nothing_is_asked(store: AppendingStore) -> None:
    log = RunLog(store, "run", 0)
    log.send(windows(0, 3))
    log.send(windows(3, 1))
    assert store.requests == ["log", "log"]
    assert store.entries[-1] == Entry("system/b", 2.0, 1003, 3)
    assert store.steps("system/a") == [0, 1, 2, 3]


@pytest.mark.parametrize("arrived", range(9))
def test_what_arrived_of_a_failed_request_is_not_sent_again(
    store: AppendingStore, arrived: int
) -> None:
    log = RunLog(store, "run", 5)
    log.send(windows(0, 2))
    store.fail_before = [arrived]
    with pytest.raises(ConnectionError):
        log.send(windows(2, 4))
    log.send(windows(2, 4))
    assert store.steps("system/a") == store.steps("system/b") == [5, 6, 7, 8, 9, 10]
    assert store.requests == ["log", "log", "run", "log"][: 3 + (arrived < 8)]
    log.send(windows(6, 1))
    assert store.requests.count("run") == 1, "all is well again, so nothing is asked"


def test_several_failures_on_end(store: AppendingStore) -> None:
    log = RunLog(store, "run", 0)
    store.fail_before = [1, 2, 0, 3]
    for _ in range(4):
        with pytest.raises(ConnectionError):
            log.send(windows(0, 5))
    log.send(windows(0, 5))
    assert store.steps("system/a") == store.steps("system/b") == [0, 1, 2, 3, 4]


def test_values_of_others_under_the_same_key_hide_nothing(store: AppendingStore) -> None:
    store.entries = [Entry("system/a", 9.0, 50, 99)]
    log = RunLog(store, "run", 0)
    store.fail_before = [0]
    with pytest.raises(ConnectionError):
        log.send(windows(0, 2))
    log.send(windows(0, 2))
    assert store.steps("system/a") == [99, 0, 1]


def test_resuming_goes_on_behind_the_largest_step_of_any_system_metric(
    store: AppendingStore,
) -> None:
    store.entries = [Entry("system/z", 1.0, 1, 7), Entry("loss", 1.0, 1, 100)]
    log = RunLog(store, "run", None)
    log.send(windows(0, 2))
    assert log.first_step == 8
    assert store.steps("system/a") == [8, 9]


def test_more_metrics_than_a_request_may_have(store: AppendingStore) -> None:
    many = {f"m{i}": float(i) for i in range(2500)}
    log = RunLog(store, "run", 0)
    store.fail_before = [1000]
    with pytest.raises(ConnectionError):
        log.send(windows(0, 1, **many))
    log.send(windows(0, 1, **many))
    assert sorted(entry.key for entry in store.entries) == sorted(
        f"system/m{i}" for i in range(2500)
    )


# ---- what MLflow refuses ------------------------------------------------------------------------


def test_a_refused_metric_is_found_and_only_it_is_left_out(
    store: AppendingStore, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = {f"m{i}": 1.0 for i in range(30)}
    store.bad_keys = {"system/m3", "system/m17"}
    log = RunLog(store, "run", 0)
    log.send(windows(0, 4, **metrics))
    log.send(windows(4, 4, **metrics))
    assert {entry.key for entry in store.entries} == {
        f"system/m{i}" for i in range(30) if i not in (3, 17)
    }
    assert store.steps("system/m0") == store.steps("system/m29") == list(range(8))
    assert len(caplog.records) == 2
    assert all("does not take the metric" in record.getMessage() for record in caplog.records)
    assert store.requests[-1] == "log"
    assert store.requests.count("run") == 1, "the second time it is not even tried"


def test_a_failure_while_a_refused_metric_is_looked_for(store: AppendingStore) -> None:
    metrics = {f"m{i}": 1.0 for i in range(8)}
    store.bad_keys = {"system/m5"}
    store.fail_before = [2]
    log = RunLog(store, "run", 0)
    with pytest.raises(ConnectionError):
        log.send(windows(0, 3, **metrics))
    log.send(windows(0, 3, **metrics))
    for i in range(8):
        assert store.steps(f"system/m{i}") == ([] if i == 5 else [0, 1, 2])


def test_a_run_that_refuses_everything_is_no_fault_of_a_key(
    store: AppendingStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.bad_keys = {"system/a", "system/b"}
    with pytest.raises(Refused):
        RunLog(store, "run", 0).send(windows(0, 2))
    assert caplog.records == []


def test_a_deleted_run_is_said_to_be_deleted(store: AppendingStore) -> None:
    store.bad_keys = {"system/a"}
    store.is_deleted = True
    with pytest.raises(RunDeletedError, match="deleted"):
        RunLog(store, "run", 0).send(windows(0, 2))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_sent(store: AppendingStore, value: float) -> None:
    log = RunLog(store, "run", 0)
    log.send([*windows(0, 1, a=value, b=2.0), *windows(1, 1, a=1.0, b=2.0)])
    assert store.steps("system/a") == [1]
    assert store.steps("system/b") == [0, 1]


def test_a_key_that_is_too_long_is_never_sent(
    store: AppendingStore, caplog: pytest.LogCaptureFixture
) -> None:
    log = RunLog(store, "run", 0)
    log.send(windows(0, 3, a=1.0, **{"x" * 250: 1.0}))
    assert {entry.key for entry in store.entries} == {"system/a"}
    (record,) = caplog.records
    assert "250 characters" in record.getMessage()


# ---- tags ---------------------------------------------------------------------------------------

TAGS = {"system/gpu_0": '{"name":"one"}', "system/gpu_1": '{"name":"two"}'}


def test_tags_go_with_the_first_metrics_and_never_again(store: AppendingStore) -> None:
    log = RunLog(store, "run", 0, TAGS)
    log.send(windows(0, 2))
    log.send(windows(2, 2))
    assert store.requests == ["log and set", "log"]
    assert store.tags == TAGS
    assert store.steps("system/a") == [0, 1, 2, 3]


def test_tags_and_metrics_share_what_a_request_may_have(store: AppendingStore) -> None:
    log = RunLog(store, "run", 0, TAGS)
    log.send(windows(0, 1, **{f"m{i}": 1.0 for i in range(MAX_METRICS_PER_BATCH)}))
    assert store.requests == ["log and set", "log"]
    assert len(store.entries) == MAX_METRICS_PER_BATCH
    assert store.tags == TAGS


@pytest.mark.parametrize("arrived", range(6))
def test_tags_of_a_failed_request_are_set_by_the_next(store: AppendingStore, arrived: int) -> None:
    """Also where every metric has arrived, and there is nothing else to send."""
    log = RunLog(store, "run", 0, TAGS)
    store.fail_before = [arrived]
    with pytest.raises(ConnectionError):
        log.send(windows(0, 2))
    log.send(windows(0, 2))
    assert store.requests == ["log and set", "run", "log and set"]
    assert store.tags == TAGS
    assert store.steps("system/a") == store.steps("system/b") == [0, 1]


def test_refused_tags_take_no_metric_with_them(
    store: AppendingStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.bad_keys = {"system/gpu_1"}
    log = RunLog(store, "run", 0, TAGS)
    log.send(windows(0, 2))
    log.send(windows(2, 1))
    assert store.steps("system/a") == store.steps("system/b") == [0, 1, 2]
    assert store.tags == {}
    (record,) = caplog.records
    assert "does not take the tags system/gpu_0, system/gpu_1" in record.getMessage()
    assert store.requests == ["log and set", "run", "log", "log"]


def test_a_refused_metric_takes_no_tags_with_it(
    store: AppendingStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.bad_keys = {"system/b"}
    log = RunLog(store, "run", 0, TAGS)
    log.send(windows(0, 2))
    assert store.tags == TAGS
    assert store.steps("system/a") == [0, 1]
    (record,) = caplog.records
    assert "does not take the metric 'system/b'" in record.getMessage()


def test_a_metric_and_a_tag_that_are_refused_at_once(
    store: AppendingStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.bad_keys = {"system/b", "system/gpu_0"}
    log = RunLog(store, "run", 0, TAGS)
    log.send(windows(0, 2))
    log.send(windows(2, 1))
    assert store.steps("system/a") == [0, 1, 2]
    assert store.tags == {}
    assert len(caplog.records) == 2


def test_a_failure_while_it_is_asked_for_the_run_keeps_the_tags(
    store: AppendingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RunLog(store, "run", 0, TAGS)
    store.bad_keys = {"system/gpu_0"}
    with monkeypatch.context() as patch:
        patch.setattr(store, "is_deleted", True)
        with pytest.raises(RunDeletedError):
            log.send(windows(0, 2))
    store.bad_keys = set()
    log.send(windows(0, 2))
    assert store.tags == TAGS
    assert store.steps("system/a") == [0, 1]


# ---- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://host", "http://host"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
        ("sqlite:////abs/x.db", "sqlite:////abs/x.db"),
        ("sqlite:///x.db", "sqlite:///{here}/x.db"),
        ("sqlite:///sub/x.db?timeout=5", "sqlite:///{here}/sub/x.db?timeout=5"),
        ("sqlite+pysqlite:///x.db", "sqlite+pysqlite:///{here}/x.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("file:///abs/mlruns", "file:///abs/mlruns"),
        ("./mlruns", "{here}/mlruns"),
        ("/abs/mlruns", "/abs/mlruns"),
        ("postgresql://db/x", "postgresql://db/x"),
    ],
)
def test_an_address_means_the_same_in_every_folder(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, uri: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_uri(uri) == expected.format(here=tmp_path)


def test_a_server_without_a_connection_to_its_database_is_tried_again(
    store: AppendingStore,
) -> None:
    """MLflow calls that a bad request; nothing of it is to be left out for it."""
    busy = Refused("QueuePool limit of size 5 overflow 10 reached, connection timed out")
    busy.error_code = "BAD_REQUEST"
    assert not is_permanent(busy)
    store.failures = [busy]
    log = RunLog(store, "run", 0)
    with pytest.raises(Refused):
        log.send(windows(0, 2))
    assert store.requests == ["log"], "not in parts"
    log.send(windows(0, 2))
    assert store.steps("system/a") == store.steps("system/b") == [0, 1]


@pytest.mark.parametrize(("prefix", "first"), [("system/", 8), ("system/1/", 5), ("system/2/", 0)])
def test_steps_of_a_node_go_on_behind_its_own(
    store: AppendingStore, prefix: str, first: int
) -> None:
    store.entries = [Entry("system/1/a", 1.0, 1, 4), Entry("system/0/a", 1.0, 1, 7)]
    log = RunLog(store, "run", None, key_prefix=prefix)
    log.send(windows(0, 1))
    assert log.first_step == first


class LargeStore(AppendingStore):
    """One that can be asked for less."""

    surely = True

    def is_surely_running(self, run_id: str, experiment_id: str) -> bool:
        assert run_id == "run"
        assert experiment_id == ""
        self.requests.append("search")
        return self.surely


@pytest.mark.parametrize(("metrics", "prefix"), [(101, "system/"), (1, "system/node/")])
def test_the_status_of_a_large_run_is_asked_for_in_a_short_way(metrics: int, prefix: str) -> None:
    store = LargeStore()
    store.entries = [Entry(f"loss_{n}", 1.0, 1, 1) for n in range(metrics)]
    log = RunLog(store, "run", 0, key_prefix=prefix)
    log.state()
    store.requests.clear()
    assert log.status() == "RUNNING"
    assert store.requests == ["search"]
    store.surely = False
    store.is_deleted = True
    with pytest.raises(RunDeletedError):
        log.status()
    assert store.requests == ["search", "search", "run"]


def test_the_status_of_a_run_with_few_metrics_is_asked_for_as_it_is() -> None:
    store = LargeStore()
    log = RunLog(store, "run", 0)
    log.state()
    assert log.status() == "RUNNING"
    assert store.requests == ["run", "run"]

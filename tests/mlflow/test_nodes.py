"""Several processes of one node monitor a run: one series, whoever of them lives."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

import sysmetrics_native
from sysmetrics_native import Sampler, SystemMetricsMonitor, Window, monitor_run
from sysmetrics_native.nodes import VARIABLES
from tests.mlflow.conftest import Programs
from tests.mlflow.logged import DEFAULT_KEYS, Logged, monitor_of
from tests.mlflow.programs import Program
from tests.mlflow.proxy import Proxy
from tests.mlflow.server import Server
from tests.support import sampling_threads, wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs record locks")

WINDOW_SECONDS = 0.5
SHORT_WINDOWS = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "5",
}

RANK = """
import os, sys, threading, time
import mlflow
import sysmetrics_native
from sysmetrics_native import SystemMetricsMonitor, configure

configure(delivery_interval=0)  # so that what is missing after a kill is one window
run_id = os.environ["RUN"]

def samples():
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as file:
                if file.read().strip() == "smn-host":
                    return True
        except OSError:
            pass
    return any(thread.name == "smn-host" for thread in threading.enumerate())

def train():
    print("ready", flush=True)
    was_sampling = False
    while not os.path.exists(os.environ["END"]):
        if samples() and not was_sampling:
            was_sampling = True
            print("samples", flush=True)
        time.sleep(0.02)
"""
BY_START_RUN = """
with mlflow.start_run(run_id=run_id, log_system_metrics=True):
    train()
"""
BY_CLASS = """
monitor = SystemMetricsMonitor(run_id)
monitor.start()
train()
monitor.finish()
"""
BY_BLOCK = """
with sysmetrics_native.monitor_run(run_id):
    train()
"""
AND_ITS_DATA_LOADER = """
pid = os.fork()
if pid == 0:
    time.sleep(600)
print("loader", pid, flush=True)
"""


class Job:
    """Ranks of one run."""

    def __init__(self, start_program: Programs, uri: str, end: Path) -> None:
        self._start_program = start_program
        self.uri = uri
        self._end = end
        self.run_id = str(MlflowClient(uri).create_run("0").info.run_id)
        self.logged = Logged(self.run_id, uri)

    def start(self, way: str, **variables: str) -> Program:
        settings = {"MLFLOW_TRACKING_URI": self.uri, "RUN": self.run_id, "END": str(self._end)}
        return self._start_program(RANK + way, **{**settings, **SHORT_WINDOWS, **variables})

    def end(self, ranks: list[Program]) -> None:
        """Let ranks end in an orderly way, all at the same time."""
        self._end.touch()
        for rank in ranks:
            outcome = rank.outcome()
            assert outcome.status == 0, outcome.errors
            assert "Traceback" not in outcome.errors
        self._end.unlink()

    def assert_has_no_gap(self, windows: float = 2.0) -> None:
        for before, after in itertools.pairwise(self.logged.ends()):
            # A machine that is busy takes its time to start a thread, too.
            assert after - before < (windows + 1) * WINDOW_SECONDS


@pytest.fixture
def job(start_program: Programs, server: Server, tmp_path: Path) -> Job:
    return Job(start_program, server.uri, tmp_path / "end")


def sampling(ranks: list[Program]) -> list[Program]:
    return [rank for rank in ranks if "samples" in rank.output]


def wait_for_ready(ranks: list[Program]) -> None:
    for rank in ranks:
        rank.wait_for_output("ready")


# ---- ranks of one node --------------------------------------------------------------------------


@pytest.mark.parametrize("way", [BY_START_RUN, BY_CLASS, BY_BLOCK], ids=["run", "class", "block"])
def test_four_ranks_have_one_series(job: Job, way: str, uses_backend: str) -> None:
    ranks = [job.start(way) for _ in range(4)]
    wait_for_ready(ranks)
    job.logged.wait_for(3)
    assert len(sampling(ranks)) == 1
    job.end(ranks)
    assert job.logged.windows() >= 3
    assert job.logged.metrics() == DEFAULT_KEYS
    job.assert_has_no_gap()


@pytest.mark.parametrize("way", [BY_START_RUN, BY_CLASS], ids=["run", "class"])
def test_another_rank_goes_on_when_the_one_that_samples_is_killed(job: Job, way: str) -> None:
    ranks = [job.start(AND_ITS_DATA_LOADER + way) for _ in range(3)]
    wait_for_ready(ranks)
    for left in (2, 1):
        wait_until(lambda: len(sampling(ranks)) == 1, "one that samples")
        job.logged.wait_for(len(job.logged.steps()) + 3)
        (victim,) = sampling(ranks)
        victim.send(signal.SIGKILL)
        assert victim.outcome().status == -signal.SIGKILL
        ranks.remove(victim)  # its data loader, a forked child, lives on
        assert len(ranks) == left
    wait_until(lambda: len(sampling(ranks)) == 1, "the last one")
    job.logged.wait_for(len(job.logged.steps()) + 3)
    job.end(ranks)
    assert job.logged.windows() >= 9
    job.assert_has_no_gap()


def test_another_rank_goes_on_when_the_one_that_samples_finishes(job: Job, tmp_path: Path) -> None:
    first = job.start(BY_CLASS)
    first.wait_for_output("samples")
    others = [job.start(BY_CLASS, END=str(tmp_path / "later")) for _ in range(2)]
    wait_for_ready(others)
    job.logged.wait_for(2)
    assert sampling(others) == []
    job.end([first])
    wait_until(lambda: len(sampling(others)) == 1, "another one")
    job.logged.wait_for(len(job.logged.steps()) + 3)
    (tmp_path / "later").touch()
    for rank in others:
        assert rank.outcome().status == 0
    assert job.logged.windows() >= 5
    job.assert_has_no_gap()


def test_a_rank_that_is_started_anew_goes_on(job: Job) -> None:
    """As an agent does with all ranks when one has failed."""
    for round_ in range(2):
        ranks = [job.start(BY_BLOCK) for _ in range(2)]
        wait_for_ready(ranks)
        job.logged.wait_for(len(job.logged.steps()) + 2)
        for rank in ranks:
            rank.send(signal.SIGKILL if round_ == 0 else signal.SIGTERM)
        for rank in ranks:
            rank.outcome()
    assert job.logged.windows() >= 4


def test_nobody_goes_on_with_a_run_that_has_ended(job: Job, server: Server, proxy: Proxy) -> None:
    mlflow.set_tracking_uri(proxy.uri)
    for name, value in SHORT_WINDOWS.items():
        os.environ[name] = value
    first = SystemMetricsMonitor(job.run_id)
    first.start()
    second = SystemMetricsMonitor(job.run_id)
    second.start()
    job.logged.wait_for(2)
    MlflowClient(server.uri).set_terminated(job.run_id)
    first.finish()
    ended = job.logged.windows()
    before = len(proxy.requests)
    wait_until(lambda: proxy.names()[before:] == ["get"], "the question whether it goes on")
    wait_until(lambda: sampling_threads() == 0, "the end of sampling")
    second.finish()
    assert job.logged.windows() == ended
    assert proxy.names()[before:] == ["get"]


def test_who_waits_asks_the_server_nothing_and_leaves_at_once(job: Job, proxy: Proxy) -> None:
    mlflow.set_tracking_uri(proxy.uri)
    first = SystemMetricsMonitor(job.run_id, 0.1, 2, tracking_uri=proxy.uri)
    first.start()
    job.logged.wait_for(1)
    before = len(proxy.requests)
    waiting = [SystemMetricsMonitor(job.run_id, 10, 1) for _ in range(8)]
    for monitor in waiting:
        monitor.start()
    assert sampling_threads() == 1
    for monitor in waiting:
        monitor.finish()
    first.finish()
    assert "get" not in proxy.names()[before:]
    assert job.logged.windows() >= 1


def test_a_monitor_that_cannot_go_on_leaves_it_to_others(
    job: Job, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Sampler) -> None:
        raise OSError("no further thread")

    first = SystemMetricsMonitor(job.run_id, 0.1, 2, tracking_uri=job.uri)
    first.start()
    second = SystemMetricsMonitor(job.run_id, 0.1, 2, tracking_uri=job.uri)
    second.start()
    job.logged.wait_for(1)
    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "start", fail)
        first.finish()
        wait_until(lambda: warnings, "the attempt")
    with monitor_run(job.run_id, 0.1, 2, tracking_uri=job.uri):
        job.logged.wait_for(len(job.logged.steps()) + 2)
    before = time.monotonic()
    second.finish()
    assert time.monotonic() - before < 5, "it waits for nothing that was not begun"
    assert warnings == ["Failed to start monitoring system metrics: no further thread"]
    assert job.logged.windows() >= 3


def test_a_forked_child_of_one_that_waits(job: Job) -> None:
    """Does not go on, and is not held up."""
    rank = job.start("""
first, second = (SystemMetricsMonitor(run_id) for _ in range(2))
first.start()
second.start()
pid = os.fork()
if pid == 0:
    second.finish()
    second.start()
    assert len(os.listdir("/proc/self/task")) == 1
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
time.sleep(0.6)
first.finish()
second.finish()
""")
    outcome = rank.outcome()
    assert (outcome.output, outcome.status) == ("7\n", 0), outcome.errors
    assert job.logged.windows() >= 1


def note_end(ends: list[float], window: Window) -> None:
    ends.append(window.end)


def test_a_command_that_is_monitored_from_outside_by_two(job: Job) -> None:
    """Both are looked at, and one of them is logged."""
    seen: list[list[float]] = [[], []]
    monitors = [
        SystemMetricsMonitor(
            job.run_id,
            0.1,
            2,
            tracking_uri=job.uri,
            pid=os.getpid(),
            on_window=partial(note_end, ends),
        )
        for ends in seen
    ]
    for monitor in monitors:
        monitor.start()
    job.logged.wait_for(3)
    monitors[0].finish()
    wait_until(lambda: len(seen[1]) > len(seen[0]) + 5, "windows of the other one")
    monitors[1].finish()
    assert len(seen[0]) >= 2
    assert job.logged.windows() >= len(seen[0]) + 5
    assert abs(job.logged.ends()[-1] - seen[1][-1]) < 0.01


# ---- blocks -------------------------------------------------------------------------------------


def test_a_block_that_raises_finishes(uses_database: str) -> None:
    run_id = MlflowClient().create_run("0").info.run_id

    def fail() -> None:
        with monitor_run(run_id, 0.1, 2):
            time.sleep(0.5)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert sampling_threads() == 0
    windows = Logged(run_id).windows()
    with monitor_run(run_id, 0.1, 2, node_id="other", tracking_uri=uses_database):
        time.sleep(0.3)
    assert Logged(run_id).steps("other/system_memory_usage_megabytes")[0] == windows


def test_a_block_goes_on_without_system_metrics(
    uses_database: str, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "often")
    with monitor_run("run"):
        done = True
    assert done
    (warning,) = warnings
    assert warning.startswith("Run run goes on without system metrics: MLFLOW_SYSTEM_METRICS_SAM")


# ---- node ids -----------------------------------------------------------------------------------


def test_each_node_of_a_job_has_a_series(job: Job) -> None:
    ranks = [
        job.start(
            BY_BLOCK,
            GROUP_RANK=str(node),
            GROUP_WORLD_SIZE="2",
            LOCAL_RANK=str(local),
            LOCAL_WORLD_SIZE="2",
            WORLD_SIZE="4",
        )
        for node in range(2)
        for local in range(2)
    ]
    wait_for_ready(ranks)
    wait_until(lambda: len(job.logged.metrics()) == 2 * len(DEFAULT_KEYS), "both nodes")
    assert len(sampling(ranks)) == 2
    job.end(ranks)
    assert job.logged.metrics() == {
        key.replace("system/", f"system/{node}/") for key in DEFAULT_KEYS for node in range(2)
    }
    for node in range(2):
        steps = job.logged.steps(f"{node}/system_memory_usage_megabytes")
        assert steps == list(range(steps[0], steps[0] + len(steps)))
    tags = MlflowClient(job.uri).get_run(job.run_id).data.tags
    assert {"system/0/host", "system/1/host"} < tags.keys()
    assert "system/host" not in tags


def test_launchers_of_these_tests_are_not_seen() -> None:
    assert not set(VARIABLES) & set(os.environ)


# ---- tags ---------------------------------------------------------------------------------------


def tags_of(run_id: str, tracking_uri: str | None = None) -> dict[str, str]:
    return dict(MlflowClient(tracking_uri).get_run(run_id).data.tags)


def test_a_run_is_told_of_its_host(uses_database: str, uses_backend: str) -> None:
    with mlflow.start_run(log_system_metrics=True) as run:
        pass
    tags = tags_of(run.info.run_id)
    told = json.loads(tags["system/host"])
    assert told["logical_cores"] == os.cpu_count()
    assert told["kernel"] == os.uname().release
    assert told["sysmetrics_native"] == sysmetrics_native.describe()["version"]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert told["memory_megabytes"] == pytest.approx(pages / 1e6, rel=0.01)
    assert told["cpu"]
    if sys.platform.startswith("linux") and Path("/etc/os-release").exists():
        assert told["os"] in Path("/etc/os-release").read_text(encoding="utf-8")
    assert "system/clock_offset_seconds" not in tags, "nobody has told the time"


@pytest.fixture
def at_another_time(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes the server's clock differ by so many seconds."""

    def shift(seconds: float) -> None:
        monkeypatch.setattr(
            "tests.mlflow.proxy._Exchange.date_time_string",
            lambda *_: formatdate(time.time() + seconds, usegmt=True),
        )

    return shift


def offset_of_a_run(proxy: Proxy) -> float | None:
    mlflow.set_tracking_uri(proxy.uri)
    with mlflow.start_run(log_system_metrics=True) as run:
        started = len(proxy.requests)
        wait_until(lambda: "log-batch" in proxy.names()[started:], "the first window")
        monitor_of(run.info.run_id).finish()
        assert set(proxy.names()[started:]) == {"log-batch"}, "no request for it"
    text = tags_of(run.info.run_id, proxy.uri).get("system/clock_offset_seconds")
    return None if text is None else float(text)


@pytest.mark.parametrize("server_ahead", [0.0, 3600.0, -86400.0])
def test_the_offset_of_the_clock(
    proxy: Proxy,
    at_another_time: Callable[[float], None],
    server_ahead: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in SHORT_WINDOWS.items():
        monkeypatch.setenv(name, value)
    at_another_time(server_ahead)
    offset = offset_of_a_run(proxy)
    assert offset is not None
    assert offset == pytest.approx(-server_ahead, abs=1.5)


def test_a_server_that_does_not_tell_the_time(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SHORT_WINDOWS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tests.mlflow.proxy._Exchange.date_time_string", lambda *_: "soon")
    assert offset_of_a_run(proxy) is None

"""A run on a Ray cluster of several nodes, which are raylets of this machine."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from tests.mlflow.conftest import Programs
from tests.mlflow.logged import MEMORY, Logged
from tests.mlflow.proxy import Proxy
from tests.mlflow.server import Server

ray = pytest.importorskip("ray", reason="Ray is not installed")

from sysmetrics_native.ray import (  # noqa: E402  # it needs Ray when it is imported
    ClusterMonitor,
    monitor_cluster,
    name_nodes,
)

INTERVAL_SECONDS = 0.25
SAMPLES = 4  # so windows of a second
PATIENCE_SECONDS = 60.0
SAMPLER = "ray::SystemMetricsSampler"
WATCH = "ray::SystemMetricsWatch"


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Ray takes its time, and to look into a run is no small thing, so not too often."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"gave up waiting for {what}"
        time.sleep(0.1)


# ---- the cluster --------------------------------------------------------------------------------


def _read(pid: int | str, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has just ended
        return b""


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


class Nodes:
    """A Ray cluster on this machine, at first of a head alone."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        # Not in the folder of the tests: the path of a Unix socket must be short.
        self.folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
        self._before = {
            name: os.environ.get(name) for name in ("RAY_TMPDIR", "RAY_USAGE_STATS_ENABLED")
        }
        os.environ.update(RAY_TMPDIR=self.folder, RAY_USAGE_STATS_ENABLED="0")
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1,
                "include_dashboard": False,
                "object_store_memory": 80_000_000,
            },
        )
        self.head = self._cluster.head_node
        self.address = str(self._cluster.address)

    def add(self, name: str | None = None) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=80_000_000, node_name=name)

    def remove(self, node: Any) -> None:
        self._cluster.remove_node(node)

    def kill(self, node: Any) -> None:
        """As when a machine loses its power."""
        process = node.all_processes["raylet"][0].process
        process.kill()
        process.wait()  # to Ray a raylet is alive while it is a zombie

    @staticmethod
    def raylet(node: Any) -> int:
        return int(node.all_processes["raylet"][0].process.pid)

    def actors(self, title: str, node: Any = None) -> list[int]:
        """Their processes, on one node or on all."""
        pids = [p for p in self._of_cluster() if _read(p, "cmdline").startswith(title.encode())]
        return pids if node is None else [p for p in pids if _parent(p) == self.raylet(node)]

    def sampling(self, node: Any = None) -> list[int]:
        """Samplers that have begun, which the name of a thread tells."""
        return [
            pid
            for pid in self.actors(SAMPLER, node)
            if any(_read(f"{pid}/task/{task}", "comm") == b"smn-host\n" for task in _threads(pid))
        ]

    def _of_cluster(self) -> list[int]:
        mark = f"RAY_TMPDIR={self.folder}".encode()
        return [
            pid
            for pid in _processes()
            if pid != os.getpid() and mark in _read(pid, "environ").split(b"\0")
        ]

    def close(self) -> None:
        """End it, and what is left of it."""
        try:
            ray.shutdown()
            self._cluster.shutdown()
        finally:
            for pid in self._of_cluster():
                os.kill(pid, signal.SIGKILL)
            for name, value in self._before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            shutil.rmtree(self.folder, ignore_errors=True)


def _parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _threads(pid: int) -> list[str]:
    try:
        return [path.name for path in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    handler = signal.getsignal(signal.SIGTERM)
    nodes = Nodes()
    yield nodes
    nodes.close()
    signal.signal(signal.SIGTERM, handler)  # Ray has set its own


class Three:
    """The cluster with two nodes more, one of which has a name, and this process as a driver."""

    def __init__(self, nodes: Nodes) -> None:
        # Before the others are there, so that it is on the head.
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        self.box = nodes.add("box")
        self.other = nodes.add()
        host = os.uname().nodename
        self.name_of_head = f"{host}-{nodes.head.node_id[:8]}"
        self.name_of_other = f"{host}-{self.other.node_id[:8]}"
        self.names = {"box", self.name_of_head, self.name_of_other}


@pytest.fixture(scope="module")
def three(nodes: Nodes) -> Three:
    return Three(nodes)


class Run:
    """A run, and its series of each node."""

    def __init__(self, uri: str, run_id: str | None = None) -> None:
        self.uri = uri
        self.run_id = run_id or str(MlflowClient(uri).create_run("0").info.run_id)
        self.logged = Logged(self.run_id, uri)

    def nodes(self) -> set[str]:
        """Their names; empty of the one whose keys are plain."""
        keys = [key.split("/") for key in self.logged.metrics()]
        return {"/".join(parts[1:-1]) for parts in keys}

    def steps(self, node: str) -> list[int]:
        return self.logged.steps(f"{node}/{MEMORY}".lstrip("/"))

    def assert_has_each_once(self, node: str) -> None:
        entries = self.logged.history(f"{node}/{MEMORY}".lstrip("/"))
        steps = [entry.step for entry in entries]
        assert len(set(steps)) == len(steps)
        ends = [entry.timestamp for entry in entries]
        # Two that sample at the same time would have two windows in one second.
        # The last one may be short.
        assert all(after - before > 500 for before, after in itertools.pairwise(ends[:-1]))

    def wait_for_more(self, *nodes: str, windows: int = 2) -> None:
        before = {node: len(self.steps(node)) for node in nodes}
        wait_until(
            lambda: all(len(self.steps(node)) >= before[node] + windows for node in nodes),
            f"{windows} further windows of {nodes}",
        )


# ---- names --------------------------------------------------------------------------------------


def entry(node_id: str, host: str, name: str = "10.0.0.1") -> dict[str, Any]:
    return {
        "NodeID": node_id * 16,
        "NodeName": name,
        "NodeManagerAddress": "10.0.0.1",
        "NodeManagerHostname": host,
    }


def test_a_node_has_the_name_of_its_host_or_its_own() -> None:
    alive = [entry("aa", "one"), entry("bb", "two"), entry("cc", "three", "gpu/box: 3")]
    names = name_nodes(alive, {})
    assert names == {"aa" * 16: "one", "bb" * 16: "two", "cc" * 16: "gpu/box_ 3"}


def test_nodes_keep_their_names_while_they_are_there() -> None:
    first, second = entry("aa", "one"), entry("bb", "one")
    names = name_nodes([first], {})
    names = name_nodes([first, second], names)
    assert names == {"aa" * 16: "one", "bb" * 16: "one-bbbbbbbb"}
    names = name_nodes([second], names)
    assert names == {"bb" * 16: "one-bbbbbbbb"}
    assert name_nodes([second, entry("cc", "one")], names)["cc" * 16] == "one"


def test_nodes_that_are_new_at_the_same_time_share_no_name() -> None:
    names = name_nodes([entry("aa", "one"), entry("bb", "one"), entry("cc", "..", "")], {})
    assert names == {
        "aa" * 16: "one-aaaaaaaa",
        "bb" * 16: "one-bbbbbbbb",
        "cc" * 16: "10.0.0.1",
    }


def test_the_node_with_plain_keys_keeps_them() -> None:
    names = name_nodes([entry("aa", "one"), entry("bb", "two")], {"aa" * 16: ""})
    assert names == {"aa" * 16: "", "bb" * 16: "two"}


# ---- without a cluster --------------------------------------------------------------------------


def test_without_a_cluster_there_is_a_warning(warnings: list[str]) -> None:
    with monitor_cluster("run") as monitor:
        assert not ray.is_initialized()
    monitor.close()
    (warning,) = warnings
    assert warning == (
        "Run run goes on without system metrics: Ray is not connected to a cluster: "
        "call ray.init() before"
    )


# ---- a cluster of one node ----------------------------------------------------------------------

DRIVER = """
import os, time, ray, sysmetrics_native
from sysmetrics_native.ray import monitor_cluster

ray.init(address=os.environ["ADDRESS"], log_to_driver=False, logging_level="ERROR")
sysmetrics_native.configure(sources="memory")
monitor_cluster(os.environ["RUN"], 0.2, 1000)
print("ready", flush=True)
while not os.path.exists(os.environ["END"]):
    time.sleep(0.05)
"""


def test_the_actors_go_with_their_driver(
    nodes: Nodes, server: Server, start_program: Programs, tmp_path: Path
) -> None:
    """At a regular exit what is left is logged. A driver that is killed leaves no actor, either."""
    runs = [Run(server.uri) for _ in range(2)]
    regular, killed = (
        start_program(
            DRIVER,
            ADDRESS=nodes.address,
            MLFLOW_TRACKING_URI=server.uri,
            RUN=run.run_id,
            END=str(tmp_path / "end"),
            MLFLOW_SYSTEM_METRICS_NODE_ID="of the driver",
        )
        for run in runs
    )
    wait_until(lambda: len(nodes.sampling()) == 2, "a sampler of each driver")
    killed.send(signal.SIGKILL)
    wait_until(lambda: len(nodes.actors(SAMPLER)) == 1, "the end of its sampler")
    (tmp_path / "end").touch()
    assert regular.outcome().status == 0, regular.outcome().errors
    wait_until(lambda: not nodes.actors(SAMPLER) + nodes.actors(WATCH), "the end of all actors")
    assert runs[0].logged.metrics() == {
        "system/system_memory_usage_megabytes",
        "system/system_memory_usage_percentage",
    }
    assert runs[0].logged.windows() == 1, "the one that was open"
    assert runs[1].logged.metrics() == set()


# ---- a cluster of several nodes -----------------------------------------------------------------


@pytest.fixture(scope="module")
def watched_proxy(starting_server: Server | None) -> Iterator[Proxy]:
    assert starting_server is not None
    starting_server.wait_until_it_answers()
    proxy = Proxy(starting_server.uri)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def handles() -> list[ClusterMonitor]:
    return []


@pytest.fixture(scope="module")
def watched(
    three: Three, starting_server: Server, watched_proxy: Proxy, handles: list[ClusterMonitor]
) -> Iterator[Run]:
    """A run that two callers have put under watch."""
    run = Run(starting_server.uri)
    handles += [
        monitor_cluster(run.run_id, INTERVAL_SECONDS, SAMPLES, tracking_uri=watched_proxy.uri)
        for _ in range(2)
    ]
    yield run
    for handle in handles:
        handle.close()


def test_each_node_has_a_series(
    nodes: Nodes, three: Three, server: Server, watched: Run, handles: list[ClusterMonitor]
) -> None:
    wait_until(lambda: watched.nodes() == three.names, "a series of each node")
    handles[0].close()
    handles[0].close()
    watched.wait_for_more(*three.names)
    for name in three.names:
        watched.assert_has_each_once(name)
    assert len(nodes.sampling()) == 3
    assert len(nodes.actors(WATCH)) == 1
    assert ray.available_resources()["CPU"] == 3, "they take nothing of the job's"
    tags = MlflowClient(server.uri).get_run(watched.run_id).data.tags
    assert {f"system/{name}/host" for name in three.names} <= tags.keys()


def test_a_sampler_that_is_killed_is_replaced(
    nodes: Nodes, three: Three, server: Server, watched: Run
) -> None:
    wait_until(lambda: len(nodes.sampling()) == 3, "all samplers")
    before = set(nodes.sampling())
    (victim,) = nodes.sampling(three.box)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: set(nodes.sampling()) - before, "another one")
    assert set(nodes.sampling()) & before == before - {victim}
    watched.wait_for_more(*three.names)
    for name in three.names:
        watched.assert_has_each_once(name)


def test_a_watch_that_is_killed_is_started_anew(
    nodes: Nodes, three: Three, server: Server, watched: Run
) -> None:
    """Its samplers go with it, and others come."""
    wait_until(lambda: len(nodes.sampling()) == 3, "all samplers")
    before = set(nodes.sampling())
    (victim,) = nodes.actors(WATCH)
    os.kill(victim, signal.SIGKILL)
    wait_until(
        lambda: len(set(nodes.sampling()) - before) == 3 and not set(nodes.sampling()) & before,
        "others",
    )
    watched.wait_for_more(*three.names)
    assert watched.nodes() == three.names
    for name in three.names:
        watched.assert_has_each_once(name)


def test_the_server_is_not_there_for_a_while(
    nodes: Nodes, three: Three, server: Server, watched: Run, watched_proxy: Proxy
) -> None:
    watched.wait_for_more(*three.names, windows=1)
    watched_proxy.refuse()
    time.sleep(3 * INTERVAL_SECONDS * SAMPLES)
    watched_proxy.work()
    before = {name: watched.steps(name)[-1] for name in three.names}
    watched.wait_for_more(*three.names, windows=3)
    for name in three.names:
        steps = [step for step in watched.steps(name) if step >= before[name]]
        assert steps == list(range(steps[0], steps[0] + len(steps)))
        watched.assert_has_each_once(name)


def test_nodes_come_and_go(nodes: Nodes, three: Three, server: Server, watched: Run) -> None:
    late = nodes.add("late")
    wait_until(lambda: "late" in watched.nodes(), "the series of a node that joined later")
    wait_until(lambda: len(nodes.sampling()) == 4, "all samplers")
    nodes.kill(three.box)
    nodes.remove(late)
    wait_until(lambda: len(nodes.sampling()) == 2, "the end of theirs")
    ended = {name: watched.steps(name) for name in ("box", "late")}
    watched.wait_for_more(three.name_of_head, three.name_of_other)
    assert watched.nodes() == three.names | {"late"}
    for name in watched.nodes():
        watched.assert_has_each_once(name)
    assert {name: watched.steps(name) for name in ended} == ended


def test_close_logs_what_is_left(
    nodes: Nodes, three: Three, server: Server, watched: Run, handles: list[ClusterMonitor]
) -> None:
    """With windows that last an hour, so all that is logged is what was open; in another run."""
    run = Run(server.uri)
    with monitor_cluster(run.run_id, 1, 3600, tracking_uri=server.uri):
        wait_until(lambda: len(nodes.sampling()) == 4, "two samplers of each run")
        handles[-1].close()
        wait_until(lambda: len(nodes.actors(SAMPLER)) == 2, "the end of one run's samplers")
    here = {three.name_of_head, three.name_of_other}
    assert run.nodes() == here
    for name in here:
        assert len(run.steps(name)) == 1
    wait_until(lambda: not nodes.actors(SAMPLER) + nodes.actors(WATCH), "the end of all actors")


def test_it_ends_with_a_run_that_ends_elsewhere(
    nodes: Nodes,
    three: Three,
    server: Server,
    warnings: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a run that the driver monitors itself, its node keeps the keys that it has."""
    other = os.uname().nodename  # which is its alone, since the head's has no name
    mlflow.set_tracking_uri(server.uri)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", str(INTERVAL_SECONDS))
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", str(SAMPLES))
    with mlflow.start_run(log_system_metrics=True) as active:
        run = Run(server.uri, active.info.run_id)
        monitor = monitor_cluster(run.run_id)
        wait_until(lambda: {"", other} <= run.nodes(), "a series of each node")
        run.wait_for_more("", other)
        MlflowClient(server.uri).set_terminated(run.run_id)
        wait_until(lambda: not nodes.actors(SAMPLER) + nodes.actors(WATCH), "the end of all")
        monitor.close()
    assert run.nodes() <= {"", other, "box"}
    for name in run.nodes():
        run.assert_has_each_once(name)
    assert warnings == []


def test_a_setting_that_is_not_allowed_is_a_warning(
    nodes: Nodes, three: Three, warnings: list[str]
) -> None:
    before = nodes.actors(WATCH)
    with monitor_cluster("run", sampling_interval=0, tracking_uri="http://127.0.0.1:9"):
        assert nodes.actors(WATCH) == before
    (warning,) = warnings
    assert warning.startswith("Run run goes on without system metrics: sampling_interval must be")


def test_close_does_not_connect_to_ray_anew(
    nodes: Nodes, three: Three, server: Server, warnings: list[str]
) -> None:
    monitor = monitor_cluster(Run(server.uri).run_id, tracking_uri=server.uri)
    ray.shutdown()
    monitor.close()
    assert not ray.is_initialized()
    wait_until(lambda: not nodes.actors(SAMPLER) + nodes.actors(WATCH), "the end of all actors")
    assert warnings == []

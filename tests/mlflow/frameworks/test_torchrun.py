"""Real `torchrun`: each node of a job has one series, whatever happens to its ranks."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from mlflow.tracking import MlflowClient

from tests.mlflow.conftest import Programs
from tests.mlflow.logged import DEFAULT_KEYS, MEMORY, Logged
from tests.mlflow.programs import Program
from tests.mlflow.server import HOST, Server

pytest.importorskip("torch", reason="PyTorch is not installed")

WINDOW_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
"""To import these libraries takes many seconds of CPU time, and the machine may be busy."""
RANKS_PER_NODE = 4

RANK = """
import json, os, time
import mlflow
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import sysmetrics_native
from sysmetrics_native import configure

configure(delivery_interval=0)  # so that what is missing after a kill is one window
rank = int(os.environ["RANK"])

def note(what):
    about = [what, int(os.environ["GROUP_RANK"]), rank, os.getpid(), time.time()]
    path = os.path.join(os.environ["NOTES"], f"{what}-{os.getpid()}")
    with open(path + ".new", "w") as file:
        json.dump(about, file)
    os.rename(path + ".new", path + ".json")

def samples():
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as file:
                if file.read().strip() == "smn-host":
                    return True
        except OSError:
            pass
    return False

def train():
    note("monitored")
    network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    is_over = torch.zeros(1)
    was_sampling = False
    while not is_over.item():
        optimizer.zero_grad()
        model(torch.randn(32, 8)).square().mean().backward()
        optimizer.step()
        is_over[0] = os.path.exists(os.environ["END"])
        dist.all_reduce(is_over, dist.ReduceOp.MAX)  # all of them stop in the same step
        if samples() and not was_sampling:
            was_sampling = True
            note("samples")
        time.sleep(0.05)

dist.init_process_group("gloo")
"""
EVERY_RANK_STARTS_THE_RUN = """
with mlflow.start_run(run_id=os.environ["RUN"], log_system_metrics=True):
    train()
dist.destroy_process_group()
"""
RANK_0_STARTS_THE_RUN = """
run_ids = [None]
if rank == 0:
    run_ids = [mlflow.start_run(run_id=os.environ["RUN"], log_system_metrics=True).info.run_id]
dist.broadcast_object_list(run_ids)
with sysmetrics_native.monitor_run(run_ids[0]):
    train()
dist.barrier()
mlflow.end_run()
dist.destroy_process_group()
"""


class Note(NamedTuple):
    """What a rank has written down."""

    what: str
    node: int
    rank: int
    pid: int
    time: float


class Job:
    """Agents that start the ranks of one run, each on a node of its own."""

    def __init__(self, start_program: Programs, uri: str, folder: Path) -> None:
        self._start_program = start_program
        self._folder = folder
        self._end = folder / "end"
        self._uri = uri
        self._client = MlflowClient(uri)
        self.run_id = str(self._client.create_run("0").info.run_id)
        self.logged = Logged(self.run_id, uri)
        self.agents: list[Program] = []

    def start(self, way: str, *options: str, ranks: int = RANKS_PER_NODE) -> None:
        notes = self._folder / "notes"
        notes.mkdir(exist_ok=True)
        self.agents.append(
            self._start_program(
                RANK + way,
                *("-m", "torch.distributed.run", f"--nproc-per-node={ranks}", *options),
                MLFLOW_TRACKING_URI=self._uri,
                RUN=self.run_id,
                NOTES=str(notes),
                END=str(self._end),
                OMP_NUM_THREADS="1",
                GLOO_SOCKET_IFNAME="lo",
                # Else what ranks of the round before have told where they listen is still there.
                TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1",
                MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.25",
                MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING="4",
            )
        )

    def start_two_nodes(self, way: str, *options: str, ranks: int = RANKS_PER_NODE) -> None:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            endpoint = f"{HOST}:{probe.getsockname()[1]}"
        for _ in range(2):
            self.start(
                way,
                "--nnodes=2",
                "--rdzv-backend=c10d",
                f"--rdzv-endpoint={endpoint}",
                f"--rdzv-id={self.run_id}",
                f"--local-addr={HOST}",
                *options,
                ranks=ranks,
            )

    def notes(self, what: str, after: float = 0.0) -> list[Note]:
        """Of ranks that live or are dead."""
        files = (self._folder / "notes").glob(f"{what}-*.json")
        notes = [Note(*json.loads(file.read_text(encoding="utf-8"))) for file in files]
        return sorted(note for note in notes if note.time > after)

    def wait_for_notes(self, what: str, count: int, after: float = 0.0) -> list[Note]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(notes := self.notes(what, after)) < count:
            for agent in self.agents:
                assert agent.is_running(), agent.outcome()
            assert time.monotonic() < deadline, f"only {notes}"
            time.sleep(0.05)
        return notes

    def wait_for_windows(self, key: str, windows: int, after: float = 0.0) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(ends := [end for end in self.logged.ends(key) if end > after]) < windows:
            assert time.monotonic() < deadline, f"only {ends}"
            time.sleep(0.1)

    def end(self) -> None:
        """Let all ranks end in an orderly way."""
        assert self._client.get_run(self.run_id).info.status == "RUNNING"
        self._end.touch()
        for agent in self.agents:
            outcome = agent.outcome(PATIENCE_SECONDS)
            assert outcome.status == 0, outcome.errors
        assert self._client.get_run(self.run_id).info.status == "FINISHED"

    def kill_ranks(self) -> None:
        """They are in sessions of their own, and would outlive an agent that is killed."""
        for agent in self.agents:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in psutil.Process(agent.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()

    def assert_complete(
        self, node: str = "", *, restart: tuple[float, float] | None = None
    ) -> None:
        """Each window of a node is there once, and time goes on from each to the next.

        Args:
            node: its part in the keys.
            restart: when a rank was killed, and when the first of the node was there again.
        """
        self.logged.windows(node + MEMORY)
        windows = set(self.logged.steps(node + MEMORY))
        for name in DEFAULT_KEYS:
            steps = self.logged.steps(name.replace("system/", node))
            assert len(set(steps)) == len(steps)
            # A rank that takes over and then ends at once leaves a window of a single sample, which
            # has no rates.
            assert set(steps) <= windows
            assert len(windows) - len(steps) < RANKS_PER_NODE
        ends = self.logged.ends(node + MEMORY)
        assert len(set(ends)) == len(ends)
        for before, after in itertools.pairwise(ends):
            seconds = after - before
            if restart is not None and before < restart[1] and after > restart[0]:
                seconds -= max(0.0, restart[1] - max(before, restart[0]))
            # A machine that is busy takes its time to start a thread, too.
            assert seconds < 3 * WINDOW_SECONDS, ends


@pytest.fixture
def job(start_program: Programs, server: Server, tmp_path: Path) -> Iterator[Job]:
    job = Job(start_program, server.uri, tmp_path)
    yield job
    job.kill_ranks()


def keys_of_nodes(*nodes: int) -> set[str]:
    return {key.replace("system/", f"system/{node}/") for key in DEFAULT_KEYS for node in nodes}


@pytest.mark.timeout(400)
def test_two_nodes_have_two_series(job: Job) -> None:
    job.start_two_nodes(EVERY_RANK_STARTS_THE_RUN)
    job.wait_for_notes("monitored", 2 * RANKS_PER_NODE)
    for node in range(2):
        job.wait_for_windows(f"{node}/{MEMORY}", 3)
    assert [note.node for note in job.wait_for_notes("samples", 2)] == [0, 1]
    job.end()
    assert job.logged.metrics() == keys_of_nodes(0, 1)
    for node in range(2):
        job.assert_complete(f"{node}/")


@pytest.mark.timeout(400)
def test_a_rank_that_samples_is_killed_and_all_are_started_anew(job: Job) -> None:
    ranks = 2  # enough, and to start them twice takes long
    job.start_two_nodes(RANK_0_STARTS_THE_RUN, "--max-restarts=3", ranks=ranks)
    job.wait_for_notes("monitored", 2 * ranks)
    for node in range(2):
        job.wait_for_windows(f"{node}/{MEMORY}", 3)
    victim = next(note for note in job.wait_for_notes("samples", 2) if note.node == 1)
    killed_at = time.time()
    os.kill(victim.pid, signal.SIGKILL)
    there_again = job.wait_for_notes("monitored", 2 * ranks, after=killed_at)
    for node in range(2):
        job.wait_for_windows(f"{node}/{MEMORY}", 3, after=there_again[-1].time)
    job.end()
    assert job.logged.metrics() == keys_of_nodes(0, 1)
    for node in range(2):
        again_at = min(note.time for note in there_again if note.node == node)
        job.assert_complete(f"{node}/", restart=(killed_at, again_at))


@pytest.mark.timeout(400)
def test_one_node_keeps_plain_keys_when_a_rank_that_waits_is_killed(job: Job) -> None:
    job.start(EVERY_RANK_STARTS_THE_RUN, "--standalone", "--max-restarts=3")
    job.wait_for_notes("monitored", RANKS_PER_NODE)
    job.wait_for_windows(MEMORY, 2)
    (sampling,) = job.wait_for_notes("samples", 1)
    victim = next(note for note in job.notes("monitored") if note.pid != sampling.pid)
    killed_at = time.time()
    os.kill(victim.pid, signal.SIGKILL)
    there_again = job.wait_for_notes("monitored", RANKS_PER_NODE, after=killed_at)
    job.wait_for_windows(MEMORY, 2, after=there_again[-1].time)
    job.end()
    assert job.logged.metrics() == DEFAULT_KEYS
    again_at = min(note.time for note in there_again)
    job.assert_complete(restart=(killed_at, again_at))

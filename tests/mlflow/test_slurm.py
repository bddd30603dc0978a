"""Jobs of a real Slurm: one machine that is three nodes."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mlflow import slurm
from tests.mlflow.launched import (
    ONE_LONG_WINDOW,
    SHORT_WINDOWS,
    LaunchedJob,
    find,
    require,
    require_namespaces,
)
from tests.mlflow.logged import DEFAULT_KEYS, MEMORY
from tests.mlflow.server import Server
from tests.mlflow.slurm import SlurmCluster
from tests.support import wait_until

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tested with Linux"),
]


@pytest.fixture(scope="module")
def whole_cluster() -> Iterator[SlurmCluster]:
    require(slurm.PROGRAMS, slurm.PACKAGES)
    require_namespaces(slurm.NAMESPACES)
    # The path of a socket must be short, and munge wants it to be open to all.
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        cluster = SlurmCluster(folder, nodes=3)
        yield cluster
        cluster.close()


@pytest.fixture
def cluster(whole_cluster: SlurmCluster) -> Iterator[SlurmCluster]:
    """It, without jobs."""
    yield whole_cluster
    whole_cluster.cancel_all()


@pytest.fixture
def job(cluster: SlurmCluster, server: Server, tmp_path: Path) -> Iterator[LaunchedJob]:
    job = LaunchedJob(tmp_path / "job", server.uri)
    yield job
    job.close()


def keys_of(*nodes: str) -> set[str]:
    return {key.replace("system/", f"system/{node}/") for key in DEFAULT_KEYS for node in nodes}


def memory_of(node: str) -> str:
    return f"{node}/{MEMORY}"


# ---- runs ---------------------------------------------------------------------------------------


def test_a_job_of_one_node_has_one_series_with_plain_keys(
    cluster: SlurmCluster, job: LaunchedJob
) -> None:
    job.start("srun", "-N1", "-n4", *job.rank("start_run"), **cluster.variables)
    job.wait_for_ranks(4, sampling=1)
    job.wait_for_further_windows(2)
    job.end(ranks=4)
    assert job.status() == 0
    assert job.logged.metrics() == DEFAULT_KEYS
    assert job.logged.windows() >= 2
    job.assert_has_no_gap(MEMORY)


def test_nodes_have_a_series_each_and_lose_nothing_when_their_job_is_cancelled(
    cluster: SlurmCluster, job: LaunchedJob
) -> None:
    command = ["srun", "-N2", "-n4", f"--job-name={job.run_id}", *job.rank("start_run")]
    job.start(*command, **ONE_LONG_WINDOW, **cluster.variables)
    samplers = job.wait_for_ranks(4, sampling=2)
    assert [rank.host for rank in samplers] == ["node0", "node1"]
    before = time.time()
    cluster.run("scancel", f"--name={job.run_id}")
    assert job.status() != 0
    assert job.logged.metrics() == keys_of("0", "1")
    for node in ("0", "1"):
        # Of two ranks that end, the one that has waited may take over for a moment.
        assert job.windows(memory_of(node)) >= 1
        assert job.logged.ends(memory_of(node))[0] > before - 0.001  # milliseconds are rounded


def test_a_batch_job_goes_on_with_its_series_when_it_is_requeued(
    cluster: SlurmCluster, job: LaunchedJob, tmp_path: Path
) -> None:
    """Its script starts Python without `srun`, on the first of its nodes."""
    batch = tmp_path / "batch"
    batch.write_text(f"#!/bin/sh\n{' '.join(job.rank('start_run'))}\n", encoding="utf-8")
    job.start(
        *("sbatch", "--wait", "-N2", "--requeue", f"--job-name={job.run_id}"),
        *("--open-mode=append", f"--output={tmp_path}/output", str(batch)),
        **{**SHORT_WINDOWS, **cluster.variables},
    )
    (first,) = job.wait_for_ranks(1, sampling=1)
    job.wait_for_further_windows(2, memory_of("0"))
    number = cluster.run("squeue", "--noheader", f"--name={job.run_id}", "--format=%A")
    cluster.run("scontrol", "requeue", number)
    job.wait_until(
        lambda: any(rank.samples and rank.name != first.name for rank in job.ranks()),
        "the rank that is started anew",
    )
    job.wait_for_further_windows(2, memory_of("0"))
    job.end(ranks=1)
    assert job.logged.metrics() == keys_of("0")
    assert job.logged.windows(memory_of("0")) >= 4


# ---- node ids -----------------------------------------------------------------------------------

TELL = """
import os, pathlib, socket, sys
from sysmetrics_native import nodes
host, name = socket.gethostname(), sys.argv[1]
text = f"{name} {host} {nodes.node_id(os.environ, socket.gethostname)}"
pathlib.Path(f"{name}-{host}-{os.getpid()}.told").write_text(text)
"""


def told(cluster: SlurmCluster, folder: Path, script: str, *switches: str) -> list[str]:
    """What the processes of a batch script say: `tell NAME` in it says who and where it is."""
    (folder / "tell.py").write_text(TELL, encoding="utf-8")
    tell = f"{sys.executable} {folder}/tell.py"
    lines = ["#!/bin/sh", f"cd {folder}", script.replace("tell", tell), "touch finished"]
    (folder / "batch").write_text("\n".join(lines), encoding="utf-8")
    cluster.run("sbatch", f"--output={folder}/output", *switches, str(folder / "batch"))
    wait_until((folder / "finished").exists, "the end of the batch script")
    return sorted(file.read_text(encoding="utf-8") for file in folder.glob("*.told"))


def test_node_ids_of_steps(cluster: SlurmCluster, tmp_path: Path) -> None:
    script = """
        tell script
        srun tell all
        srun -N1 -n1 -w node1 tell one
        srun -N2 -n2 -w node1,node2 tell some
        srun --mpi=pmi2 tell pmi
    """
    assert told(cluster, tmp_path, script, "-N3", "-n3") == [
        *(f"all node{number} {number}" for number in range(3)),
        "one node1 node1",
        *(f"pmi node{number} {number}" for number in range(3)),
        "script node0 0",
        "some node1 node1",
        "some node2 node2",
    ]


def test_node_ids_of_mpirun_in_a_job(cluster: SlurmCluster, tmp_path: Path) -> None:
    """It starts its daemons with `srun`, one step for all nodes but the first."""
    if find("mpirun") is None:
        pytest.skip("needs mpirun (Debian: apt install openmpi-bin)")
    script = """
        mpirun --allow-run-as-root tell all
        mpirun --allow-run-as-root -np 2 tell first
    """
    assert told(cluster, tmp_path, script, "-N2", "-n4") == [
        *["all node0 node0", "all node0 node0", "all node1 node1", "all node1 node1"],
        *["first node0 None", "first node0 None"],
    ]


def test_node_ids_of_a_heterogeneous_job(cluster: SlurmCluster, tmp_path: Path) -> None:
    script = """
        tell script
        srun --het-group=0,1 tell all
        srun tell first
        srun --het-group=1 tell second
    """
    assert told(cluster, tmp_path, script, "-N1", "-n1", ":", "-N2", "-n2") == [
        *(f"all node{number} {number}" for number in range(3)),
        "first node0 node0",
        "script node0 0",
        "second node1 node1",
        "second node2 node2",
    ]

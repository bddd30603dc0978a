"""Jobs of a real `mpirun`, of Open MPI: on this machine, and on hosts that it takes for others."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mlflow.launched import ONE_LONG_WINDOW, LaunchedJob, require, require_namespaces
from tests.mlflow.logged import DEFAULT_KEYS, MEMORY
from tests.mlflow.server import Server

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tested with Linux"),
]

MPIRUN = ("mpirun", "--allow-run-as-root", "--oversubscribe")

REMOTE_SHELL = """#!/bin/sh
# What mpirun takes for rsh: runs a command on a "host", which is this machine by another name.
host=$1
shift
exec unshare --uts sh -c 'hostname "$1"; shift; eval "$*"' sh "$host" "$@"
"""

GO_ON = ("--mca", "orte_abort_on_non_zero_status", "0")
"""Ranks live on when one of them has died."""

PATIENT = ("--mca", "odls_base_sigkill_timeout", "5")
"""Seconds from SIGTERM to SIGKILL, of which there is one by default; as many go before SIGTERM."""


@pytest.fixture
def job(server: Server, tmp_path: Path) -> Iterator[LaunchedJob]:
    require(["mpirun"], "openmpi-bin")
    job = LaunchedJob(tmp_path / "job", server.uri)
    yield job
    job.close()


@pytest.fixture
def hosts(tmp_path: Path) -> tuple[str, ...]:
    """The switches for two hosts, `left` and `right`; the first has three ranks of four."""
    require_namespaces(["--uts"])
    agent = tmp_path / "remote-shell"
    agent.write_text(REMOTE_SHELL, encoding="utf-8")
    agent.chmod(0o700)
    return (
        *("--mca", "plm", "rsh", "--mca", "plm_rsh_agent", str(agent)),
        *("--mca", "plm_rsh_no_tree_spawn", "1", "--mca", "oob_tcp_if_include", "lo"),
        *("--host", "left:3,right:1", "--map-by", "node"),
    )


def test_ranks_of_one_node_have_one_series_with_plain_keys(job: LaunchedJob) -> None:
    job.start(*MPIRUN, "-np", "4", *job.rank("start_run"))
    job.wait_for_ranks(4, sampling=1)
    job.wait_for_further_windows(2)
    job.end(ranks=4)
    assert job.status() == 0
    assert job.logged.metrics() == DEFAULT_KEYS
    assert job.logged.windows() >= 2
    job.assert_has_no_gap(MEMORY)


def test_hosts_have_a_series_each_which_outlives_the_rank_that_samples(
    job: LaunchedJob, hosts: tuple[str, ...]
) -> None:
    keys = {host: f"{host}/{MEMORY}" for host in ("left", "right")}
    job.start(*MPIRUN, *hosts, *GO_ON, "-np", "4", *job.rank("monitor_run"))
    samplers = {rank.host: rank for rank in job.wait_for_ranks(4, sampling=2)}
    assert samplers.keys() == keys.keys()
    assert [rank.host for rank in job.ranks()].count("left") == 3
    job.wait_for_further_windows(2, *keys.values())

    job.tell(samplers["left"], "kill")
    job.wait_until(lambda: len(job.sampling()) == 3, "another one that samples")  # the dead one too
    job.wait_for_further_windows(2, *keys.values())
    job.end(ranks=3)  # and this mpirun may wait for ever for the fourth one

    assert job.logged.metrics() == {
        key.replace("system/", f"system/{host}/") for key in DEFAULT_KEYS for host in keys
    }
    for key in keys.values():
        assert job.windows(key) >= 4
        job.assert_has_no_gap(key)


def test_ranks_that_mpirun_ends_because_one_has_failed_lose_nothing(job: LaunchedJob) -> None:
    job.start(*MPIRUN, *PATIENT, "-np", "2", *job.rank("start_run"), **ONE_LONG_WINDOW)
    (sampler,) = job.wait_for_ranks(2, sampling=1)
    (other,) = set(job.ranks()) - {sampler}
    before = time.time()
    job.tell(other, "fail")
    assert job.status() != 0
    assert job.windows() >= 1
    assert job.logged.ends()[0] > before - 0.001  # milliseconds are rounded

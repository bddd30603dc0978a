"""The manifests of examples/kubernetes at work: their own text, in real namespaces."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests import manifests
from tests.mlflow.logged import DEFAULT_KEYS, Logged
from tests.mlflow.pod import PATIENCE_SECONDS, RunningPod, skip_unless_possible
from tests.mlflow.server import Server
from tests.test_truth_container import group_with

pytestmark = [pytest.mark.native, pytest.mark.once]

POD = "train-0-x7k2f"
MEMORY = f"{POD}/system_memory_usage_megabytes"
SHORT_WINDOWS = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "5",
}

TRAINING = """
import os, time
import mlflow

with mlflow.start_run():
    print("training", flush=True)
    while not os.path.exists("/tmp/end"):
        time.sleep(0.05)
"""
WITHOUT_MLFLOW = """
import os, time

kept = b"x" * 200_000_000
print("training", flush=True)
while not os.path.exists("/tmp/end"):
    time.sleep(0.05)
os.unlink("/tmp/end")
"""


@pytest.fixture
def run(server: Server) -> Logged:
    return Logged(str(MlflowClient(server.uri).create_run("0").info.run_id), server.uri)


MakePod = Callable[[str, str], RunningPod]


@pytest.fixture
def make_pod(tmp_path: Path, server: Server, run: Logged) -> Iterator[MakePod]:
    """Makes a pod of a manifest, with a training program."""
    skip_unless_possible()
    made: list[RunningPod] = []
    config = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_RUN_ID": run.run_id, **SHORT_WINDOWS}

    def make(manifest: str, program: str) -> RunningPod:
        pod = manifests.pods(manifest)[0]
        made.append(RunningPod(tmp_path / f"pod-{len(made)}", pod, POD, config, program))
        return made[-1]

    yield make
    for pod in made:
        pod.kill()


def wait_for_windows(run: Logged, count: int, key: str = MEMORY, above: float = 0.0) -> None:
    """Wait until there are so many, the last with a value above that."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(values := run.values(key)) < count or values[-1] <= above:
        assert time.monotonic() < deadline, f"gave up waiting for {count} windows: {values}"
        time.sleep(0.1)


def keys_of(run: Logged) -> set[str]:
    """Without what limits of this machine add."""
    return {key for key in run.metrics() if "/container_" not in key}


POD_KEYS = {key.replace("system/", f"system/{POD}/") for key in DEFAULT_KEYS}


# ---- in the process -----------------------------------------------------------------------------


def test_a_container_that_is_killed_and_starts_anew(make_pod: MakePod, run: Logged) -> None:
    pod = make_pod("in-process.yaml", TRAINING)
    recover = pod.start("recover")
    for attempt in range(2):
        before = len(run.steps(MEMORY))
        training = pod.start("train")
        training.wait_for("training")
        nothing = "There is nothing to recover." in training.text
        assert nothing == (attempt == 0), training.text
        wait_for_windows(run, before + 3)
        time.sleep(1.0)  # for windows that wait for a shared request
        killed = time.time()
        training.send(signal.SIGKILL)
        training.status()
    recover.send(signal.SIGTERM)
    assert recover.status() == 0, recover.text
    assert run.run_id in recover.text
    assert run.windows(MEMORY) >= 6
    assert killed - run.ends(MEMORY)[-1] < 3.0, "all windows but the one that was open"
    assert keys_of(run) == POD_KEYS


def test_a_pod_that_is_deleted(make_pod: MakePod, run: Logged) -> None:
    """SIGTERM for the training, then for the other one: nothing is left to do for that."""
    pod = make_pod("in-process.yaml", TRAINING)
    recover = pod.start("recover")
    training = pod.start("train")
    wait_for_windows(run, 2)
    deleted = time.time()
    training.send(signal.SIGTERM)
    assert training.status() == -signal.SIGTERM, training.text
    assert run.ends(MEMORY)[-1] >= deleted - 0.1, "the window that was open, too"
    windows = run.windows(MEMORY)
    recover.send(signal.SIGTERM)
    assert recover.status() == 0, recover.text
    assert run.windows(MEMORY) == windows


def test_two_containers_of_a_pod_have_one_series(make_pod: MakePod, run: Logged) -> None:
    pod = make_pod("in-process.yaml", TRAINING)
    containers = [pod.start("train") for _ in range(2)]
    for container in containers:
        container.wait_for("training")
    wait_for_windows(run, len(run.steps(MEMORY)) + 4)
    (pod.volume("tmp") / "end").touch()
    for container in containers:
        assert container.status() == 0, container.text
    assert run.windows(MEMORY) >= 4
    assert [path.name for path in pod.volume("shm").iterdir()] == ["sysmetrics-native-1000.lock"]


# ---- from a sidecar -----------------------------------------------------------------------------


def test_a_sidecar(make_pod: MakePod, run: Logged) -> None:
    """It follows the training through a restart, and shows its memory and its limit."""
    pod = make_pod("sidecar.yaml", WITHOUT_MLFLOW)
    sidecar = pod.start("sysmetrics")
    with group_with("memory") as group:
        group.limit_memory(1_000_000_000)
        limit = f"{POD}/container_memory_usage_percentage"
        for _ in range(2):
            before = len(run.steps(MEMORY))
            training = pod.start("train", group.folders["memory"])
            training.wait_for("training")
            wait_for_windows(run, before + 3)
            wait_for_windows(run, 1, limit, above=19.0)
            (pod.volume("tmp") / "end").touch()
            assert training.status() == 0, training.text
        assert all(value < 60.0 for value in run.values(limit))
    sidecar.send(signal.SIGTERM)
    assert sidecar.status() == 0, sidecar.text
    assert "Traceback" not in sidecar.text
    assert run.windows(MEMORY) >= 6
    assert max(run.values(f"{POD}/process_memory_rss_megabytes")) > 200.0
    assert keys_of(run) > POD_KEYS


def test_a_sidecar_of_another_user(make_pod: MakePod, run: Logged) -> None:
    """Sees less of the training, and says nothing of its limit."""
    pod = make_pod("sidecar.yaml", WITHOUT_MLFLOW)
    train = pod.container("train")
    train["securityContext"] = {**train["securityContext"], "runAsUser": 1001}
    sidecar = pod.start("sysmetrics")
    with group_with("memory") as group:
        group.limit_memory(1_000_000_000)
        training = pod.start("train", group.folders["memory"])
        wait_for_windows(run, 2)
        sidecar.send(signal.SIGTERM)
        assert sidecar.status() == 0, sidecar.text
        (pod.volume("tmp") / "end").touch()
        assert training.status() == 0, training.text
    assert "Traceback" not in sidecar.text
    assert max(run.values(f"{POD}/process_memory_rss_megabytes")) > 200.0
    assert f"system/{POD}/container_memory_usage_percentage" not in run.metrics()


def test_a_sidecar_without_a_training_to_look_at(make_pod: MakePod, run: Logged) -> None:
    sidecar = make_pod("sidecar.yaml", WITHOUT_MLFLOW).start("sysmetrics")
    sidecar.wait_for("nothing to recover")
    sidecar.send(signal.SIGTERM)
    assert sidecar.status() == 0, sidecar.text
    assert run.metrics() == set()


def test_a_sidecar_that_looks_at_the_node(make_pod: MakePod, run: Logged) -> None:
    """It is the first process of its container, which SIGTERM reaches all the same."""
    pod = make_pod("node-sidecar.yaml", TRAINING)
    sidecar = pod.start("sysmetrics")
    training = pod.start("train")
    training.wait_for("training")
    wait_for_windows(run, 3)
    deleted = time.time()
    sidecar.send(signal.SIGTERM)
    assert sidecar.status() == 0, sidecar.text
    assert run.ends(MEMORY)[-1] >= deleted - 0.1, "the window that was open, too"
    assert run.windows(MEMORY) >= 3
    assert run.metrics() > POD_KEYS
    assert not any("/container_" in key for key in run.metrics())
    (pod.volume("tmp") / "end").touch()
    assert training.status() == 0, training.text


# ---- before all that ----------------------------------------------------------------------------


def test_the_first_step_of_the_page(tmp_path: Path, server: Server) -> None:
    """It makes a run, and tells kubectl of it."""
    page = (manifests.FOLDER.parent.parent / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    (step,) = re.findall(r"```sh\n(export MLFLOW_TRACKING_URI=.*?)```", page, re.DOTALL)
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    kubectl.chmod(0o755)
    step = re.sub(r"(?<=MLFLOW_TRACKING_URI=)http\S+", server.uri, step, count=1)
    done = subprocess.run(
        ["sh", "-ec", f'PATH="{tmp_path}:{_folder_of_python()}:$PATH"\n{step}'],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.split()
    assert said[:3] == ["create", "configmap", "train-run"]
    assert said[3] == f"--from-literal=MLFLOW_TRACKING_URI={server.uri}"
    run_id = said[4].removeprefix("--from-literal=MLFLOW_RUN_ID=")
    assert MlflowClient(server.uri).get_run(run_id).info.status == "RUNNING"


def _folder_of_python() -> str:
    return str(Path(sys.executable).parent)

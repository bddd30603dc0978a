"""Hugging Face's `Trainer` on a real server: the run that its `MLflowCallback` starts."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from mlflow.tracking import MlflowClient

from tests.mlflow.conftest import Programs
from tests.mlflow.logged import DEFAULT_KEYS, MEMORY, Logged
from tests.mlflow.programs import Program
from tests.mlflow.server import HOST, Server
from tests.support import run_python, sampling_threads

pytest.importorskip("transformers", reason="transformers is not installed")

WINDOW_SECONDS = 1.0
PATIENCE_SECONDS = 180.0
"""To import these libraries takes many seconds of CPU time, and the machine may be busy."""

TRAINING = """
import json, os, time
import mlflow
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 1000

    def __getitem__(self, _):
        tokens = torch.randint(0, 32, (8,))
        return {"input_ids": tokens, "labels": tokens}

class Clock(TrainerCallback):
    starts_at = ends_at = run_id = None

    def on_step_begin(self, args, state, control, **kwargs):
        self.starts_at = self.starts_at or time.time()
        run = mlflow.active_run()
        self.run_id = run and run.info.run_id

    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(0.1)
        self.ends_at = time.time()
        if state.global_step == fails_at:
            print(json.dumps([self.run_id, self.starts_at, self.ends_at]), flush=True)
            raise RuntimeError("it diverges")

def train(folder, callback, steps=25, report_to="mlflow", **options):
    clock = Clock()
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    arguments = TrainingArguments(
        folder, max_steps=steps, per_device_train_batch_size=1, use_cpu=True, report_to=report_to,
        save_strategy="no", logging_steps=5, disable_tqdm=True, **options,
    )
    callbacks = [clock] if callback is None else [callback, clock]
    Trainer(model, arguments, train_dataset=Data(), callbacks=callbacks).train()
    return clock

fails_at = None
"""
PROGRAM = """
from sysmetrics_native.transformers import SystemMetricsCallback

fails_at = int(os.environ["FAILS_AT"])
backend = "gloo" if "RANK" in os.environ else None
clock = train(".", SystemMetricsCallback(0.25, 4), ddp_backend=backend)
print(json.dumps([clock.run_id, clock.starts_at, clock.ends_at]), flush=True)
"""


def train(folder: Path, **options: Any) -> Any:
    """In this process; the same text as in the programs, so that both train alike."""
    from sysmetrics_native.transformers import SystemMetricsCallback

    names: dict[str, Any] = {}
    exec(TRAINING, names)
    return names["train"](str(folder), SystemMetricsCallback(0.25, 4), **options)


def assert_is_complete(logged: Logged, starts_at: float, ends_at: float, node: str = "") -> None:
    """From the beginning of training to its end."""
    assert logged.windows(node + MEMORY) >= 2
    ends = logged.ends(node + MEMORY)
    assert ends[0] < starts_at + 2 * WINDOW_SECONDS
    assert ends[-1] >= ends_at - 0.001, "what was open at the end was sent, too"
    assert all(after - before < 3 * WINDOW_SECONDS for before, after in itertools.pairwise(ends))


@pytest.mark.parametrize("also_by_switch", [False, True], ids=["callback", "and_switch"])
def test_the_run_of_the_callback(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, also_by_switch: bool
) -> None:
    mlflow.set_tracking_uri(server.uri)
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", str(also_by_switch))
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.25")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "4")
    clock = train(tmp_path)
    assert sampling_threads() == 0
    assert "SystemMetricsMonitor" not in [thread.name for thread in threading.enumerate()]
    logged = Logged(clock.run_id)
    assert logged.metrics() == DEFAULT_KEYS
    assert_is_complete(logged, clock.starts_at, clock.ends_at)
    assert MlflowClient().get_run(clock.run_id).info.status == "FINISHED"


def test_a_trainer_without_a_run_trains(tmp_path: Path, warnings: list[str]) -> None:
    clock = train(tmp_path, steps=1, report_to="none")
    assert clock.ends_at
    assert warnings == ["Training goes on without system metrics: MLflow has no active run."]


@pytest.mark.timeout(240)
def test_training_that_raises(start_program: Programs, server: Server) -> None:
    program = start_program(TRAINING + PROGRAM, MLFLOW_TRACKING_URI=server.uri, FAILS_AT="20")
    outcome = program.outcome(PATIENCE_SECONDS)
    assert outcome.status == 1
    assert outcome.errors.rstrip().endswith("RuntimeError: it diverges")
    (answer,) = [line for line in outcome.output.splitlines() if line.startswith("[")]
    run_id, starts_at, ends_at = json.loads(answer)  # MLflow's farewell comes behind it
    assert_is_complete(Logged(run_id, server.uri), starts_at, ends_at)


@pytest.fixture
def agents() -> Iterator[list[Program]]:
    agents: list[Program] = []
    yield agents
    for agent in agents:  # their ranks are in sessions of their own
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(agent.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


@pytest.mark.timeout(240)
def test_two_nodes_have_two_series(
    start_program: Programs, server: Server, agents: list[Program]
) -> None:
    """Only rank 0 has a run, and tells the other node."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        endpoint = f"{HOST}:{probe.getsockname()[1]}"
    agents += [
        start_program(
            TRAINING + PROGRAM,
            *("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
            *("--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", f"--local-addr={HOST}"),
            MLFLOW_TRACKING_URI=server.uri,
            FAILS_AT="-1",
            OMP_NUM_THREADS="1",
            GLOO_SOCKET_IFNAME="lo",
        )
        for _ in range(2)
    ]
    answers = [agent.outcome(PATIENCE_SECONDS).answer for agent in agents]
    (run_id,) = {answer[0] for answer in answers} - {None}
    logged = Logged(run_id, server.uri)
    assert logged.metrics() == {
        key.replace("system/", f"system/{node}/") for key in DEFAULT_KEYS for node in range(2)
    }
    starts_at, ends_at = max(answer[1] for answer in answers), min(answer[2] for answer in answers)
    for node in range(2):
        assert_is_complete(logged, starts_at, ends_at, f"{node}/")


def test_without_the_library() -> None:
    outcome = run_python("""
        import sys
        sys.modules["transformers"] = None
        import sysmetrics_native.transformers
    """)
    assert outcome.returncode == 1
    assert outcome.stderr.endswith(
        "ModuleNotFoundError: sysmetrics_native.transformers needs Hugging Face's transformers, "
        "which is not installed: pip install transformers\n"
    )

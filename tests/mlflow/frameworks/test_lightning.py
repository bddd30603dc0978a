"""PyTorch Lightning on a real server: the run of its logger, and runs of `mlflow.start_run`."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from tests.mlflow.conftest import Programs
from tests.mlflow.logged import DEFAULT_KEYS, Logged
from tests.mlflow.server import Server
from tests.support import run_python, sampling_threads

pytest.importorskip("lightning", reason="PyTorch Lightning is not installed")

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger
from torch.utils.data import DataLoader, TensorDataset

from sysmetrics_native.lightning import SystemMetricsCallback

WINDOW_SECONDS = 1.0
PATIENCE_SECONDS = 180.0
"""To import these libraries takes many seconds of CPU time, and the machine may be busy."""
SHORT_WINDOWS = (0.25, 4)

PROGRAM = """
import json, os, sys, threading, time
import torch
from {lightning} import Callback, LightningModule, Trainer
from {lightning}.loggers import MLFlowLogger
from torch.utils.data import DataLoader, TensorDataset
from sysmetrics_native.lightning import SystemMetricsCallback

class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch, _):
        time.sleep(0.1)
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)

    def on_fit_end(self):
        names = [thread.name for thread in threading.enumerate()]
        with open(f"rank-{{self.global_rank}}", "w") as file:
            file.write(str(names.count("SystemMetricsMonitor")))

callback = SystemMetricsCallback(0.25, 4)
logger = MLFlowLogger(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
trainer = Trainer(
    accelerator="cpu", max_epochs=1, logger=logger, callbacks=[callback],
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **{options},
)
data = DataLoader(TensorDataset(torch.randn(20 * trainer.world_size, 8)), batch_size=1)
trainer.fit(Model(), data)
if trainer.is_global_zero:
    is_ours = isinstance(callback, Callback)
    print(json.dumps([logger.run_id, is_ours, "lightning" in sys.modules]))
"""


class Model(LightningModule):  # type: ignore[misc]  # its type is not known to the type checker
    """Trains for some seconds, and then maybe fails."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)
        self.fails = fails
        self.ends_at = 0.0

    def on_train_start(self) -> None:
        self.starts_at = time.time()

    def training_step(self, batch: Any, index: int) -> Any:
        time.sleep(0.1)
        self.ends_at = time.time()
        if self.fails and index == 19:
            raise RuntimeError("it diverges")
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


def trainer(folder: Path, **options: Any) -> Any:
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def data() -> Any:
    return DataLoader(TensorDataset(torch.randn(25, 8)), batch_size=1)


def status_of(run_id: str, uri: str) -> str:
    return str(MlflowClient(uri).get_run(run_id).info.status)


def assert_is_complete(logged: Logged, model: Model) -> None:
    """From the beginning of training to its end, and nothing is left that monitors."""
    assert sampling_threads() == 0
    assert "SystemMetricsMonitor" not in [thread.name for thread in threading.enumerate()]
    assert logged.metrics() == DEFAULT_KEYS
    assert logged.windows() >= 2
    ends = logged.ends()
    assert ends[0] < model.starts_at + 2 * WINDOW_SECONDS
    assert ends[-1] >= model.ends_at - 0.001, "what was open at the end was sent, too"
    assert all(after - before < 3 * WINDOW_SECONDS for before, after in itertools.pairwise(ends))


@pytest.mark.parametrize("fails", [False, True], ids=["trains", "fails"])
def test_the_run_of_the_logger(server: Server, tmp_path: Path, fails: bool) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/another.db")
    logger = MLFlowLogger(tracking_uri=server.uri)
    model = Model(fails)
    fitting = trainer(tmp_path, logger=logger, callbacks=[SystemMetricsCallback(*SHORT_WINDOWS)])
    if fails:
        with pytest.raises(RuntimeError, match="it diverges"):
            fitting.fit(model, data())
    else:
        fitting.fit(model, data())
    assert_is_complete(Logged(logger.run_id, server.uri), model)
    assert status_of(logger.run_id, server.uri) == ("FAILED" if fails else "FINISHED")


@pytest.mark.parametrize("failing", [False, True], ids=["none", "failing"])
def test_a_trainer_without_a_run_trains(
    tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    if failing:
        logger = MLFlowLogger(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
        monkeypatch.setattr(MlflowClient, "tracking_uri", property(lambda _: 1 / 0))
    model = Model()
    trainer(
        tmp_path,
        logger=logger if failing else False,
        callbacks=[SystemMetricsCallback()],
        limit_train_batches=1,
        log_every_n_steps=10,
    ).fit(model, data())
    assert model.ends_at
    why = "division by zero" if failing else "the trainer has no MLFlowLogger."
    assert warnings == [f"Training goes on without system metrics: {why}"]


@pytest.mark.timeout(240)
def test_two_processes_have_one_series(start_program: Programs, server: Server) -> None:
    options = {"strategy": "ddp", "devices": 2}
    program = start_program(
        PROGRAM.format(lightning="lightning.pytorch", options=options),
        MLFLOW_TRACKING_URI=server.uri,
        OMP_NUM_THREADS="1",
        GLOO_SOCKET_IFNAME="lo",
        MASTER_ADDR="127.0.0.1",
    )
    run_id, is_ours, _ = program.outcome(PATIENCE_SECONDS).answer
    assert is_ours
    ranks = [(program.folder / f"rank-{rank}").read_text(encoding="utf-8") for rank in range(2)]
    assert ranks == ["1", "1"], "each is ready to sample"
    logged = Logged(run_id, server.uri)
    assert logged.metrics() == DEFAULT_KEYS
    assert logged.windows() >= 2
    ends = logged.ends()
    assert all(after - before < 3 * WINDOW_SECONDS for before, after in itertools.pairwise(ends))


@pytest.mark.timeout(240)
def test_the_library_by_its_other_name(start_program: Programs, server: Server) -> None:
    source = PROGRAM.format(lightning="pytorch_lightning", options={})
    program = start_program(source, MLFLOW_TRACKING_URI=server.uri)
    run_id, is_ours, has_loaded_both = program.outcome(PATIENCE_SECONDS).answer
    assert is_ours
    assert not has_loaded_both
    assert Logged(run_id, server.uri).windows() >= 2


def test_autolog_needs_nothing(server: Server, tmp_path: Path) -> None:
    mlflow.set_tracking_uri(server.uri)
    mlflow.pytorch.autolog(log_models=False, checkpoint=False)
    mlflow.set_system_metrics_sampling_interval(SHORT_WINDOWS[0])
    mlflow.set_system_metrics_samples_before_logging(SHORT_WINDOWS[1])
    model = Model()
    try:
        with mlflow.start_run(log_system_metrics=True) as run:
            trainer(tmp_path, logger=False, log_every_n_steps=5).fit(model, data())
    finally:
        mlflow.pytorch.autolog(disable=True)
        mlflow.set_system_metrics_sampling_interval(None)
        mlflow.set_system_metrics_samples_before_logging(None)
    assert_is_complete(Logged(run.info.run_id), model)
    assert "optimizer_name" in MlflowClient().get_run(run.info.run_id).data.params


def test_without_the_library() -> None:
    outcome = run_python("""
        import sys
        sys.modules["lightning"] = sys.modules["pytorch_lightning"] = None
        import sysmetrics_native.lightning
    """)
    assert outcome.returncode == 1
    assert outcome.stderr.endswith(
        "ModuleNotFoundError: sysmetrics_native.lightning needs PyTorch Lightning, which is not "
        "installed: pip install lightning\n"
    )

"""`make demo`: trains a small model under MLflow and shows which system metrics it got.

The store is the embedded SQLite file, so no server is needed. Sampling is at 100 Hz, in windows of
one second, by nothing but MLflow's own switches. Then a second training is killed with SIGKILL, and
`sysmetrics-native recover` sends what it could not.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
from rich.console import Console
from rich.table import Table

from examples.train_digits import train

STORE = Path("build/demo/mlflow.db")
STATE = Path("build/demo/state")
SECONDS = 10.0
SECONDS_TO_LIVE = 3.5

SETTINGS = {
    "MLFLOW_TRACKING_URI": f"sqlite:///{STORE.absolute()}",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.01",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "100",
    "SYSMETRICS_NATIVE_RECORDER": "on",
    "SYSMETRICS_NATIVE_SPOOL_DIR": str(STATE.absolute()),
}


class LastMessage(logging.Handler):
    """Keeps what the monitor says of itself at the end of the run."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def run_training() -> tuple[str, str]:
    """Train with system metrics on; the run's id, and the monitor's own summary."""
    summary = LastMessage()
    logger = logging.getLogger("sysmetrics_native")
    logger.addHandler(summary)
    logger.setLevel(logging.INFO)
    mlflow.enable_system_metrics_logging()
    mlflow.set_system_metrics_sampling_interval(0.01)
    mlflow.set_system_metrics_samples_before_logging(100)
    os.environ["SYSMETRICS_NATIVE_STATISTICS"] = "mean,max"
    return train(SECONDS), summary.text


def table_of(run_id: str) -> Table:
    """What the store has of the run, read back through MLflow."""
    client = mlflow.MlflowClient()
    logged = client.get_run(run_id).data.metrics
    table = Table("metric", title=f"System metrics of run {run_id}")
    for heading in ("windows", "mean", "max"):
        table.add_column(heading, justify="right")
    for key in sorted(key for key in logged if key.startswith("system/")):
        if key.endswith("_max"):
            continue
        means = [metric.value for metric in client.get_metric_history(run_id, key)]
        peaks = [metric.value for metric in client.get_metric_history(run_id, f"{key}_max")]
        table.add_row(key, str(len(means)), f"{sum(means) / len(means):,.1f}", f"{max(peaks):,.1f}")
    return table


def kill_a_training() -> None:
    """Start one in a process of its own, and kill it as the kernel does when memory runs out."""
    program = [sys.executable, "-c", "from examples.train_digits import train; train(60)"]
    training = subprocess.Popen(
        program, env=os.environ | SETTINGS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list(STATE.rglob("*.smnrec")):  # until its run has begun
        time.sleep(0.1)
    time.sleep(SECONDS_TO_LIVE)
    training.kill()
    training.wait()


def recover() -> None:
    """What a user types."""
    command = Path(sys.executable).with_name("sysmetrics-native")
    subprocess.run([command, "recover"], env=os.environ | SETTINGS, check=True)


def main() -> None:
    """Run the demo in the current folder."""
    STORE.parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{STORE}")
    console = Console()
    console.print(f"Training on scikit-learn's digits for {SECONDS:g} s, sampling at 100 Hz …")
    run_id, summary = run_training()
    console.print(table_of(run_id))
    console.print(summary, soft_wrap=True, highlight=False)
    if hasattr(signal, "SIGKILL"):
        console.print("\nAnother training, with the flight recorder on, is killed with SIGKILL …")
        shutil.rmtree(STATE, ignore_errors=True)
        kill_a_training()
        console.print("$ sysmetrics-native recover", highlight=False)
        recover()
    command = f".venv/bin/mlflow ui --backend-store-uri sqlite:///{STORE}"
    console.print(f"Look at it: {command}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()

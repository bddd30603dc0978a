"""Every example of MLflow's guide to system metrics runs unchanged, as in a notebook.

Only the clock is not the reader's: fifteen seconds of sleep take less here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.mlflow.conftest import Programs
from tests.mlflow.logged import DEFAULT_KEYS, Logged
from tests.mlflow.server import Server

SET_VARIABLE = """\
import os
os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"] = "true"
"""

DELETE_VARIABLE = """\
import os
del os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"]
"""

PLAIN = """\
import mlflow
import time
with mlflow.start_run() as run:
    time.sleep(15)
print(mlflow.MlflowClient().get_run(run.info.run_id).data)
"""

ENABLE = """\
import mlflow
mlflow.enable_system_metrics_logging()
with mlflow.start_run() as run:
    time.sleep(15)
print(mlflow.MlflowClient().get_run(run.info.run_id).data)
"""

SINGLE_RUN = """\
with mlflow.start_run(log_system_metrics=True) as run:
    time.sleep(15)
print(mlflow.MlflowClient().get_run(run.info.run_id).data)
"""

USER_INTERFACE = """\
import mlflow
import time
mlflow.set_tracking_uri("http://127.0.0.1:5000")
with mlflow.start_run() as run:
    time.sleep(15)
"""

FREQUENCY = """\
import mlflow
mlflow.set_system_metrics_sampling_interval(1)
mlflow.set_system_metrics_samples_before_logging(3)
with mlflow.start_run(log_system_metrics=True) as run:
    time.sleep(15)
metric_history = mlflow.MlflowClient().get_metric_history(
    run.info.run_id,
    "system/cpu_utilization_percentage",
)
print(metric_history)
"""

DISABLE = "mlflow.disable_system_metrics_logging()"

NOTEBOOK = """
import contextlib, io, json, socket, time

sleep = time.sleep

class Socket(socket.socket):
    # The guide's server is at port 5000, which may be taken.
    def connect(self, address):
        super().connect(("127.0.0.1", PORT) if address == ("127.0.0.1", 5000) else address)

socket.socket = Socket
notebook = {}
answers = []
for cell, seconds in CELLS:
    time.sleep = lambda asked: sleep(seconds if asked == 15 else asked)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(cell, notebook)
    run = notebook.get("run")
    answers.append([printed.getvalue(), run and run.info.run_id])
print(json.dumps(answers))
"""

SHORT = 0.5

Cell = tuple[str, float]


class Guide:
    """Runs cells in a notebook each, all notebooks at once."""

    def __init__(self, start_program: Programs, port: int) -> None:
        self._start_program = start_program
        self._port = port

    def open(self, *cells: str | Cell, **variables: str) -> Callable[[], list[Any]]:
        """Start a notebook; what comes back waits for what each cell has printed and its run."""
        timed = [(cell, SHORT) if isinstance(cell, str) else cell for cell in cells]
        source = f"CELLS = {timed!r}\nPORT = {self._port}\n{NOTEBOOK}"
        program = self._start_program(source, **variables)
        return lambda: list(program.outcome().answer)


def printed_keys(text: str) -> set[str]:
    """The metrics in what the guide prints of a run."""
    assert text.startswith("<RunData: metrics={")
    return set(re.findall(r"'(system/[^']+)': [0-9.]+", text))


def test_every_example_runs_unchanged(start_program: Programs, server: Server) -> None:
    guide = Guide(start_program, server.port)
    exported = guide.open(PLAIN, (FREQUENCY, 7.2), MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING="true")
    exported_off = guide.open(PLAIN, SINGLE_RUN, MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING="false")
    notebook = guide.open(
        PLAIN,
        SET_VARIABLE,
        PLAIN,
        DELETE_VARIABLE,
        PLAIN,
        ENABLE,
        DISABLE,
        PLAIN,
        SINGLE_RUN,
        SET_VARIABLE,
        USER_INTERFACE,
    )

    (on, _), (history, _) = exported()
    assert printed_keys(on) == DEFAULT_KEYS
    steps = [int(step) for step in re.findall(r"\bstep=(\d+)", history)]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 3, "a few times"
    assert "key='system/cpu_utilization_percentage'" in history

    (off, _), (single, _) = exported_off()
    assert printed_keys(off) == set()
    assert printed_keys(single) == DEFAULT_KEYS

    cells = notebook()
    logged = [printed_keys(cells[i][0]) for i in (0, 2, 4, 5, 7, 8)]
    assert logged == [set(), DEFAULT_KEYS, set(), DEFAULT_KEYS, set(), DEFAULT_KEYS]
    assert Logged(cells[10][1], server.uri).metrics() == DEFAULT_KEYS

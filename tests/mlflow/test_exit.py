"""The end of the process: nothing is lost, nothing hangs."""

from __future__ import annotations

import signal
import time

from mlflow.tracking import MlflowClient

from sysmetrics_native.backends import is_native_built
from tests.mlflow.conftest import Programs
from tests.mlflow.logged import DEFAULT_KEYS, Logged
from tests.mlflow.proxy import Proxy
from tests.mlflow.server import Server

TIMEOUT_SECONDS = 1.5
SHORT_WINDOWS = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.05",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "4",
}

IN_A_RUN = """
import sys, time
import mlflow

with mlflow.start_run(log_system_metrics=True) as run:
    print(run.info.run_id, flush=True)
    time.sleep(0.7)
    print("end", time.time(), flush=True)
    {last_line}
"""

SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
ENDINGS = {
    "the end of the script": ("pass", 0, "FINISHED"),
    "an exception": ("raise RuntimeError('as the test says')", 1, "FAILED"),
    "sys.exit": ("sys.exit(3)", 3, "FAILED"),
    "SIGINT": ("time.sleep(60)", -signal.SIGINT, "FAILED"),
    "SIGTERM": ("time.sleep(60)", -signal.SIGTERM, "RUNNING"),
}


def test_every_way_to_end_a_process(start_program: Programs, database: str) -> None:
    programs = {
        ending: start_program(IN_A_RUN.format(last_line=last_line), **SHORT_WINDOWS)
        for ending, (last_line, _, _) in ENDINGS.items()
    }
    for ending, program in programs.items():
        program.wait_for_output("end")
        if ending in SIGNALS:
            program.send(SIGNALS[ending])
        outcome = program.outcome()
        _, status, run_status = ENDINGS[ending]
        assert outcome.status == status, (ending, outcome)
        assert "were not logged" not in outcome.errors
        logged = Logged(outcome.output.split()[0], database)
        assert MlflowClient(database).get_run(logged.run_id).info.status == run_status, ending
        assert logged.metrics() == DEFAULT_KEYS, ending
        windows = logged.windows()
        if ending != "SIGTERM" or is_native_built():
            said = float(outcome.output.split()[-1]) - 0.001  # milliseconds are rounded
            assert logged.ends()[-1] >= said, f"{ending}: the window that was open is missing"
            assert windows >= 2, ending


UNFINISHED = """
import time
from pathlib import Path
from sysmetrics_native import SystemMetricsMonitor

SystemMetricsMonitor({run_id!r}).start()
while not Path("end").exists():
    time.sleep(0.02)
print(time.monotonic(), flush=True)
"""


def test_a_server_that_hangs_holds_up_the_exit_no_longer_than_the_option(
    start_program: Programs, proxy: Proxy, server: Server
) -> None:
    run_id = MlflowClient(server.uri).create_run("0").info.run_id
    program = start_program(
        UNFINISHED.format(run_id=run_id),
        MLFLOW_TRACKING_URI=proxy.uri,
        SYSMETRICS_NATIVE_SHUTDOWN_TIMEOUT=str(TIMEOUT_SECONDS),
        **SHORT_WINDOWS,
    )
    Logged(run_id, server.uri).wait_for(1)
    proxy.hang()
    time.sleep(0.5)
    (program.folder / "end").touch()
    outcome = program.outcome()
    assert time.monotonic() - float(outcome.output) < TIMEOUT_SECONDS + 15
    assert outcome.status == 0
    assert f"did not take them within {TIMEOUT_SECONDS:g} s" in outcome.errors


IMPORTS_NOTHING = """
import sys, threading, time
import mlflow

mlflow.set_experiment("a request of the program, as every program makes some")
late = []

def watch(event, arguments):
    if event == "import" and arguments[0] not in sys.modules and armed:
        late.append([threading.current_thread().name, arguments[0]])

armed = False
sys.addaudithook(watch)
run = mlflow.start_run(log_system_metrics=True)
armed = True
time.sleep(0.6)
print(run.info.run_id, flush=True)
time.sleep(1)
mlflow.end_run()
print([one for one in late if one[1] in sys.modules])  # not what MLflow only looks for
"""


def test_nothing_is_imported_while_it_runs_or_at_its_end(
    start_program: Programs, proxy: Proxy, server: Server
) -> None:
    """A child that is forked meanwhile would wait for ever when it imports the same module."""
    program = start_program(
        IMPORTS_NOTHING,
        MLFLOW_TRACKING_URI=proxy.uri,
        SYSMETRICS_NATIVE_SHUTDOWN_TIMEOUT="0.5",
        SYSMETRICS_NATIVE_RECORDER="on",
        **SHORT_WINDOWS,
    )
    program.wait_for_output("\n")
    proxy.fail(503, only="log-batch")
    outcome = program.outcome()
    assert outcome.status == 0
    assert "were not logged" in outcome.errors, "the way through the disk was taken, too"
    assert outcome.output.splitlines()[-1] == "[]"

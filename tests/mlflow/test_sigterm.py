"""SIGTERM in a run: the open window is logged, and the process dies of it within its bound."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest
from mlflow.tracking import MlflowClient

from sysmetrics_native import termination
from tests.mlflow.conftest import Programs
from tests.mlflow.logged import DEFAULT_KEYS, Logged
from tests.mlflow.programs import Program
from tests.mlflow.proxy import Proxy
from tests.mlflow.server import Server
from tests.support import wait_until

pytestmark = pytest.mark.native

TIMEOUT_SECONDS = 1.5
ONE_LONG_WINDOW = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.05",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "10000",
}

MONITORS = """
import ctypes, multiprocessing, os, signal, sys, time
from sysmetrics_native import SystemMetricsMonitor

def monitor(run_id):
    monitor = SystemMetricsMonitor(run_id)
    monitor.start()
    time.sleep(0.3)
    return monitor

monitors = [monitor(run_id) for run_id in {run_ids!r}]
print("ready", time.time(), flush=True)
"""

IN_A_LONG_C_CALL = """
reading, _ = os.pipe()
ctypes.CDLL(None).read(reading, ctypes.create_string_buffer(1), 1)  # which no signal ends
"""

WITH_A_HANDLER_OF_ITS_OWN = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
print("set", flush=True)
time.sleep(60)
"""


def create_run(server: Server) -> Logged:
    return Logged(MlflowClient(server.uri).create_run("0").info.run_id, server.uri)


def check_that_the_open_window_was_logged(program: Program, runs: list[Logged]) -> None:
    ready = float(program.output.split()[1]) - 0.001  # milliseconds are rounded
    for run in runs:
        assert run.metrics() == DEFAULT_KEYS
        assert run.windows() == 1
        assert run.ends()[0] >= ready


def test_the_open_window_is_logged(start_program: Programs, server: Server, uses_backend) -> None:
    runs = {way: [create_run(server)] for way in ("in C", "handler")}
    runs["in C"].append(create_run(server))
    rests = {"in C": IN_A_LONG_C_CALL, "handler": WITH_A_HANDLER_OF_ITS_OWN}
    programs = {
        way: start_program(
            MONITORS.format(run_ids=[run.run_id for run in runs[way]]) + rests[way],
            MLFLOW_TRACKING_URI=server.uri,
            **ONE_LONG_WINDOW,
        )
        for way in rests
    }
    programs["in C"].wait_for_output("ready")
    programs["handler"].wait_for_output("set")
    for way, status in (("in C", -signal.SIGTERM), ("handler", 3)):
        programs[way].send(signal.SIGTERM)
        assert programs[way].outcome().status == status
        check_that_the_open_window_was_logged(programs[way], runs[way])


def test_a_server_that_hangs_delays_it_no_longer_than_the_option(
    start_program: Programs, proxy: Proxy, server: Server
) -> None:
    run = create_run(server)
    program = start_program(
        MONITORS.format(run_ids=[run.run_id]) + IN_A_LONG_C_CALL,
        MLFLOW_TRACKING_URI=proxy.uri,
        SYSMETRICS_NATIVE_SHUTDOWN_TIMEOUT=str(TIMEOUT_SECONDS),
        **ONE_LONG_WINDOW,
    )
    program.wait_for_output("ready")
    proxy.hang()
    program.send(signal.SIGTERM)
    asked = time.monotonic()
    outcome = program.outcome()
    assert time.monotonic() - asked < TIMEOUT_SECONDS + termination.GRACE_SECONDS + 20
    assert outcome.status == -signal.SIGTERM
    assert run.steps() == []


FINISHING = """
monitors[0].finish()
time.sleep(60)
"""
ENDING_IT_IN_A_HANDLER = """
signal.signal(signal.SIGTERM, lambda *_: (monitors[0].finish(), sys.exit(3)))
"""


@pytest.mark.parametrize(
    ("preparation", "number", "status"),
    [
        pytest.param("", signal.SIGTERM, -signal.SIGTERM, id="SIGTERM"),
        pytest.param("", signal.SIGINT, -signal.SIGINT, id="Ctrl-C"),
        pytest.param(ENDING_IT_IN_A_HANDLER, signal.SIGTERM, 3, id="a handler that ends the run"),
    ],
)
def test_a_signal_at_the_end_of_a_run_loses_nothing(
    start_program: Programs,
    proxy: Proxy,
    server: Server,
    preparation: str,
    number: signal.Signals,
    status: int,
) -> None:
    run = create_run(server)
    proxy.delay(1.0)
    program = start_program(
        MONITORS.format(run_ids=[run.run_id]) + preparation + FINISHING,
        MLFLOW_TRACKING_URI=proxy.uri,
        **ONE_LONG_WINDOW,
    )
    wait_until(lambda: "log-batch" in proxy.names(), "the last request")
    program.send(number)
    assert program.outcome().status == status
    check_that_the_open_window_was_logged(program, [run])


WITH_A_POOL = """
pool = multiprocessing.get_context("fork").Pool(3)
work = pool.map_async(time.sleep, [60] * 3)
time.sleep(0.2)
print("working", flush=True)
work.wait()
"""


def test_sent_to_the_whole_group_it_leaves_nobody_behind(
    start_program: Programs, server: Server
) -> None:
    run = create_run(server)
    program = start_program(
        MONITORS.format(run_ids=[run.run_id]) + WITH_A_POOL,
        MLFLOW_TRACKING_URI=server.uri,
        **ONE_LONG_WINDOW,
    )
    program.wait_for_output("working")
    os.killpg(program.pid, signal.SIGTERM)
    assert program.outcome().status == -signal.SIGTERM
    check_that_the_open_window_was_logged(program, [run])
    # The pool replaces workers as long as it lives; without it they find their pipe closed.
    wait_until(lambda: not is_there(program.pid), "the end of the pool's workers")


def is_there(group: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False

"""Processes that are forked while a run is monitored: one series, and children that end at once."""

from __future__ import annotations

import os

import pytest

from tests.mlflow.conftest import Programs
from tests.mlflow.logged import DEFAULT_KEYS, DEFAULT_NAMES, Logged
from tests.mlflow.server import Server

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

A_RUN_WITH_CHILDREN = """
import gc, json, multiprocessing, os, sys, time
from mlflow.tracking import MlflowClient
from sysmetrics_native import SystemMetricsMonitor, configure

configure(delivery_interval=0)  # so that forks happen while requests are on their way
client = MlflowClient()
run_id, childs_run_id = (client.create_run("0").info.run_id for _ in range(2))
monitor = SystemMetricsMonitor(run_id)
monitor.start()

def is_alone():
    assert len(os.listdir("/proc/self/task")) == 1

def finishes():
    monitor.finish()

def starts():
    monitor.start()
    is_alone()

def collects():
    del globals()["monitor"]
    gc.collect()

def exits():
    sys.exit(0)

def monitors_a_run_of_its_own():
    own = SystemMetricsMonitor(childs_run_id)
    own.start()
    time.sleep(0.5)
    own.finish()

def in_child(work):
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return [work.__name__, status, time.monotonic() - started]

ways = [is_alone, finishes, starts, collects, exits, monitors_a_run_of_its_own]
children = [in_child(way) for way in ways + [exits]]
with multiprocessing.get_context("fork").Pool(2) as pool:
    sums = pool.map(sum, [range(3_000_000)] * 4)
last_child = time.time()
time.sleep(0.3)
monitor.finish()
print(json.dumps([run_id, childs_run_id, children, len(set(sums)), last_child]))
"""


def test_forks_in_a_run(start_program: Programs, server: Server, uses_backend) -> None:
    program = start_program(
        A_RUN_WITH_CHILDREN,
        MLFLOW_TRACKING_URI=server.uri,
        MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.05",
        MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING="2",
    )
    run_id, childs_run_id, children, different_sums, last_child = program.outcome().answer
    for name, status, seconds in children:
        assert status == 0, name
        assert seconds < 10, name
    assert different_sums == 1
    logged = Logged(run_id, server.uri)
    for name in DEFAULT_NAMES:
        steps = logged.steps(name)
        assert steps == sorted(set(steps)), f"{name}: each window once"
    assert logged.windows() == len(set(logged.ends()))
    assert logged.ends()[-1] > last_child
    childs = Logged(childs_run_id, server.uri)
    assert childs.metrics() == DEFAULT_KEYS
    assert childs.windows() >= 2

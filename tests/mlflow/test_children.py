"""Processes that come out of a monitored one, in every way there is: one series, and no hang."""

from __future__ import annotations

import itertools
import json
import os

import pytest
from mlflow.tracking import MlflowClient

from tests.mlflow.conftest import Programs
from tests.mlflow.logged import DEFAULT_KEYS, DEFAULT_NAMES, Logged
from tests.mlflow.server import Server

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

QUICK_WINDOWS = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.001",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "5",
}
SHORT_WINDOWS = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.02",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "4",
}


def create_run(server: Server) -> Logged:
    return Logged(MlflowClient(server.uri).create_run("0").info.run_id, server.uri)


# ---- fork ---------------------------------------------------------------------------------------

FORKS = 200

FORKING = """
import atexit, gc, json, os, signal, sys, threading, time, weakref
from sysmetrics_native import SystemMetricsMonitor, catalog, configure

configure(delivery_interval=0)  # so that a request is always on its way
made, metrics_of = [], catalog.metrics_of

def note_window(window, *rest):
    made.append((window.start, window.end))
    return metrics_of(window, *rest)

catalog.metrics_of = note_window
monitor = SystemMetricsMonitor({run_id!r})
unstarted = SystemMetricsMonitor({run_id!r})
monitor.start()
time.sleep(0.2)

def is_alone():
    assert len(os.listdir("/proc/self/task")) == 1

def use_what_is_inherited():
    is_alone()
    monitor.start()
    monitor.finish()
    monitor._sampler.stop()
    assert monitor._sampler.next_window(timeout=60) is None
    is_alone()

def start_what_is_inherited():
    unstarted.start()
    is_alone()
    unstarted.finish()

def forget_what_is_inherited():
    global monitor, unstarted
    del monitor, unstarted
    gc.collect()

def fork_again():
    use_what_is_inherited()
    assert status_of(use_what_is_inherited, None) == 0

def leave_connections_alone():
    # At the exit urllib3 takes the lock of its pool, which is held for a moment in each request:
    # a child forked from a program in which any thread makes requests may find it so.
    atexit.unregister(weakref.finalize._exitfunc)

def status_of(work, end):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        leave_connections_alone()
        status = 1
        try:
            work()
            if end is not None:
                end()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

WAYS = [use_what_is_inherited, start_what_is_inherited, forget_what_is_inherited, fork_again]
statuses = []

def fork_often(first):
    for number in range(first, {forks}, 4):
        # Half of them run what is registered with atexit.
        end = atexit._run_exitfuncs if number % 8 < 4 else None
        statuses.append(status_of(WAYS[number % 3 if number % 9 else 3], end))

threads = [threading.Thread(target=fork_often, args=(first,)) for first in range(1, 4)]
for thread in threads:
    thread.start()
fork_often(0)
for thread in threads:
    thread.join()
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    leave_connections_alone()
    use_what_is_inherited()
    sys.exit(3)  # the whole way out of the interpreter
statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
last_child = time.time()
time.sleep(0.1)
monitor.finish()
print(json.dumps([statuses, made, last_child]))
"""


def test_forks_from_several_threads_while_windows_close(
    start_program: Programs, server: Server, uses_backend
) -> None:
    run = create_run(server)
    program = start_program(
        FORKING.format(run_id=run.run_id, forks=FORKS),
        MLFLOW_TRACKING_URI=server.uri,
        **QUICK_WINDOWS,
    )
    outcome = program.outcome()
    statuses, made, last_child = outcome.answer
    assert statuses == [0] * FORKS + [3], outcome.errors
    assert "Stopped" not in outcome.errors
    # No time is missing between the windows that were made, and all of them have arrived once.
    for (_, end), (start, _) in itertools.pairwise(made):
        assert abs(start - end) < 0.05
    assert run.windows() == len(made)
    assert run.ends()[-1] > last_child
    for name in DEFAULT_NAMES:
        steps = run.steps(name)
        assert steps == sorted(set(steps)), name


RESUMING = """
import os, sys, time
from sysmetrics_native import SystemMetricsMonitor

monitor = SystemMetricsMonitor({run_id!r})
monitor.start()
time.sleep(0.5)
reading, writing = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(writing)
    os.read(reading, 1)  # until the parent has finished
    again = SystemMetricsMonitor({run_id!r}, resume_logging=True)
    again.start()
    time.sleep(0.5)
    sys.exit(3)
monitor.finish()
finished = time.time()
os.close(writing)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(status, finished)
"""


def test_a_child_goes_on_where_its_parent_has_finished(
    start_program: Programs, server: Server, uses_backend
) -> None:
    run = create_run(server)
    program = start_program(
        RESUMING.format(run_id=run.run_id), MLFLOW_TRACKING_URI=server.uri, **SHORT_WINDOWS
    )
    status, finished = program.outcome().output.split()
    assert status == "3"
    assert run.windows() == len(run.steps())  # in the order of time, with no step twice
    ends = run.ends()
    assert sum(end <= float(finished) for end in ends) >= 2
    assert sum(end > float(finished) for end in ends) >= 2


# ---- multiprocessing ----------------------------------------------------------------------------

POOLS = """
import json, multiprocessing, os, sys, threading, time
from pathlib import Path
import mlflow, sysmetrics_native

mlflow.enable_system_metrics_logging()

def threads_of_ours(_):
    time.sleep(0.05)
    names = {thread.name for thread in threading.enumerate()}
    names |= {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    return os.getpid(), [name for name in names if name.startswith(("smn-", "SystemMetrics"))]

def load(indices, batches):
    for index in iter(indices.get, None):
        batches.put((index, bytes(100_000)))

def load_data(context):
    indices, batches = context.Queue(), context.Queue()
    workers = [
        context.Process(target=load, args=(indices, batches), daemon=True) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for index in range(100):
        indices.put(index)
    loaded = sorted(batches.get(timeout=30)[0] for _ in range(100))
    for _ in workers:
        indices.put(None)
    for worker in workers:
        worker.join(30)
    return loaded, [worker.exitcode for worker in workers]

if __name__ == "__main__":
    multiprocessing.set_forkserver_preload(["mlflow", "sysmetrics_native"])
    with mlflow.start_run() as run:
        found = {}
        for method in ("fork", "spawn", "forkserver"):
            with multiprocessing.get_context(method).Pool(2) as pool:
                found[method] = pool.map(threads_of_ours, range(8), chunksize=1)
        loaded, exit_codes = load_data(multiprocessing.get_context("fork"))
        last_child = time.time()
        time.sleep(0.2)
    print(json.dumps([run.info.run_id, found, loaded, exit_codes, last_child]))
"""


def test_workers_of_a_run_monitor_nothing(
    start_program: Programs, database: str, uses_backend
) -> None:
    program = start_program(POOLS, **SHORT_WINDOWS)
    run_id, found, loaded, exit_codes, last_child = program.outcome().answer
    for method, answers in found.items():
        assert len(answers) == 8
        assert all(names == [] for _, names in answers), method
    assert loaded == list(range(100))
    assert exit_codes == [0] * 3
    client = MlflowClient(database)
    assert [run.info.run_id for run in client.search_runs(["0"])] == [run_id]
    logged = Logged(run_id, database)
    assert logged.metrics() == DEFAULT_KEYS
    assert logged.windows() >= 2
    assert logged.ends()[-1] > last_child


# ---- exec ---------------------------------------------------------------------------------------

WHAT_A_NEW_PROGRAM_HAS = """
import json, os, signal
inherited = []
for name in os.listdir("/proc/self/fd"):
    try:
        inherited.append(os.readlink("/proc/self/fd/" + name)) if int(name) > 2 else None
    except FileNotFoundError:
        pass  # that of the listing itself
blocked = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
print(json.dumps([inherited, blocked, is_default, len(os.listdir("/proc/self/task"))]), flush=True)
"""

EXECUTING = """
import os, subprocess, sys, time
from sysmetrics_native import SystemMetricsMonitor

monitor = SystemMetricsMonitor({run_id!r})
monitor.start()
time.sleep(0.5)
command = [sys.executable, "-c", {program!r}]
subprocess.Popen(command, close_fds=False).wait()
subprocess.Popen(command, close_fds=False, preexec_fn=lambda: None).wait()  # by way of fork
os.execv(command[0], command)
"""


def test_a_new_program_inherits_nothing(
    start_program: Programs, server: Server, uses_backend
) -> None:
    run = create_run(server)
    program = start_program(
        EXECUTING.format(run_id=run.run_id, program=WHAT_A_NEW_PROGRAM_HAS),
        MLFLOW_TRACKING_URI=server.uri,
        **SHORT_WINDOWS,
    )
    outcome = program.outcome()
    assert outcome.status == 0, outcome.errors
    answers = [json.loads(line) for line in outcome.output.splitlines()]
    assert answers == [[[], [], True, 1]] * 3
    assert run.windows() >= 1

"""`sysmetrics-native run` with MLflow: the run that a command gets, and that it shares."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from sysmetrics_native import SystemMetricsMonitor, monitored_run
from tests.installed_command import COMMAND
from tests.mlflow.logged import DEFAULT_KEYS, MEMORY, Logged
from tests.mlflow.proxy import HOST, Proxy
from tests.support import wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_spawn"), reason="needs POSIX")

RUN = [str(COMMAND), "run"]
QUICK = ["--interval", "0.1", "--samples", "2"]
SHELL = ["/bin/sh", "-c"]
PATIENCE_SECONDS = 100.0


class Done(NamedTuple):
    """What the command did."""

    status: int
    output: str
    errors: str


def run(*arguments: str, **variables: str) -> Done:
    """Run the installed command to its end."""
    done = subprocess.run(
        [*RUN, *QUICK, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def python(program: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(program)]


def runs(tracking_uri: str, experiment: str = "Default") -> list[Run]:
    client = MlflowClient(tracking_uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id]))


def only_run(tracking_uri: str, experiment: str = "Default") -> Run:
    (one,) = runs(tracking_uri, experiment)
    return one


def new_run(tracking_uri: str) -> str:
    return str(MlflowClient(tracking_uri).create_run("0").info.run_id)


# ---- the run ------------------------------------------------------------------------------------


def test_a_run_is_opened_and_says_all(database: str) -> None:
    switches = ["--tracking-uri", database, "--experiment", "nightly", "--run-name", "big"]
    done = run(*switches, "--", *SHELL, "sleep 1; exit 3", "--token=abc")
    assert (done.status, done.output) == (3, "")
    one = only_run(database, "nightly")
    assert (one.info.run_name, one.info.status) == ("big", "FAILED")
    assert one.info.end_time is not None
    tags = one.data.tags
    assert tags["system/command"] == "/bin/sh -c 'sleep 1; exit 3' '--token=***'"
    assert (tags["system/exit"], tags["system/exit_code"]) == ("exit 3", "3")
    assert tags["mlflow.source.name"] == "/bin/sh"
    assert tags["mlflow.user"]
    metrics = one.data.metrics
    assert metrics["system/run_wall_seconds"] >= 1.0
    assert metrics["system/run_cpu_seconds"] < 1.0
    assert 0 < metrics["system/run_peak_memory_megabytes"] < 100
    assert set(metrics) >= DEFAULT_KEYS
    assert Logged(one.info.run_id, database).windows() >= 2
    assert f"big ({one.info.run_id})" in done.errors


@pytest.mark.once
def test_the_command_line_can_stay_away(database: str) -> None:
    run("--no-command", "--tracking-uri", database, "--", "true")
    tags = only_run(database).data.tags
    assert "system/command" not in tags
    assert tags["mlflow.source.name"] != "true"
    assert tags["system/exit"] == "exit 0"


def test_on_a_server_the_page_of_the_run_is_named(proxy: Proxy) -> None:
    done = run("--tracking-uri", proxy.uri, "--experiment", "pages", "--", "sleep", "0.5")
    one = only_run(proxy.uri, "pages")
    page = f"{proxy.uri}/#/experiments/{one.info.experiment_id}/runs/{one.info.run_id}"
    assert page in done.errors
    assert done.output == ""
    assert one.info.status == "FINISHED"


def test_killed(database: str) -> None:
    done = run("--tracking-uri", database, "--", *SHELL, "kill -TERM $$")
    assert done.status == -signal.SIGTERM
    one = only_run(database)
    assert one.info.status == "KILLED"
    assert one.data.tags["system/exit"] == "killed by SIGTERM"
    assert one.data.tags["system/exit_code"] == "143"


def test_a_command_that_is_not_there(database: str) -> None:
    assert run("--tracking-uri", database, "--", "no-such-command").status == 127
    assert only_run(database).info.status == "FAILED"


def test_a_run_is_joined(database: str) -> None:
    """Steps go on behind those there are."""
    run_id = new_run(database)
    MlflowClient(database).log_metric(run_id, f"system/{MEMORY}", 1.0, step=6)
    done = run("--", "sleep", "1", MLFLOW_RUN_ID=run_id, MLFLOW_TRACKING_URI=database)
    assert done.status == 0
    one = only_run(database)
    assert (one.info.run_id, one.info.status) == (run_id, "FINISHED")
    assert one.data.tags["system/command"] == "sleep 1"
    steps = Logged(run_id, database).steps()
    assert steps == list(range(6, 6 + len(steps)))
    assert len(steps) > 2


@pytest.mark.once
def test_a_joined_run_cannot_be_named_anew(database: str) -> None:
    variables = {"MLFLOW_RUN_ID": new_run(database), "MLFLOW_TRACKING_URI": database}
    done = run("--run-name", "x", "--", "true", **variables)
    assert done.status == 2
    assert "MLFLOW_RUN_ID is set" in done.errors


# ---- one series ---------------------------------------------------------------------------------

LOGS = """
    import time, mlflow
    with mlflow.start_run(log_system_metrics=True) as run:
        print(run.info.run_id, flush=True)
        mlflow.log_param("depth", 3)
        time.sleep(1)
    print("ended", flush=True)
    time.sleep(1.5)
    raise SystemExit(4)
"""

PACED = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "2",
}


@pytest.mark.parametrize("ours", ["true", "false"], ids=["ours", "MLflow's"])
def test_a_command_that_logs_system_metrics_itself(ours: str, database: str) -> None:
    """One run and one series, from before its start_run() to after its end_run()."""
    variables = {**PACED, "MLFLOW_TRACKING_URI": database, "SYSMETRICS_NATIVE_ENABLED": ours}
    began = time.time()
    done = run("--", *python(LOGS), **variables)
    assert done.status == 4
    run_id, ended = done.output.split()
    assert ended == "ended"
    one = only_run(database)
    assert one.info.run_id == run_id
    assert one.data.params == {"depth": "3"}
    logged = Logged(run_id, database)
    assert logged.windows() > 2  # each step once, times in order
    ends = logged.ends()
    # It said FINISHED, and then failed.
    assert one.info.status == "FAILED"
    assert one.info.end_time / 1000 > ends[-1] > began + 2.5


def test_further_runs_of_the_command_are_monitored_as_usual(database: str) -> None:
    program = """
        import time, mlflow
        with mlflow.start_run() as outer:
            with mlflow.start_run(nested=True) as inner:
                time.sleep(1)
        print(outer.info.run_id, inner.info.run_id)
    """
    variables = {
        **PACED,
        "MLFLOW_TRACKING_URI": database,
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
    }
    done = run("--", *python(program), **variables)
    outer, inner = done.output.split()
    assert {one.info.run_id for one in runs(database)} == {outer, inner}
    for run_id in (outer, inner):
        assert Logged(run_id, database).windows() > 2


def test_the_command_need_not_join(database: str) -> None:
    program = """
        import mlflow
        with mlflow.start_run() as run:
            print(run.info.run_id)
    """
    done = run("--no-join", "--", *python(program), MLFLOW_TRACKING_URI=database)
    own = done.output.strip()
    ids = {one.info.run_id for one in runs(database)}
    assert own in ids
    assert len(ids) == 2


@pytest.mark.once
def test_run_within_run_logs_once(database: str) -> None:
    done = run("--tracking-uri", database, "--", *RUN, *QUICK, "--", *SHELL, "sleep 1; exit 7")
    assert done.status == 7
    one = only_run(database)
    assert one.info.status == "FAILED"
    assert one.data.tags["system/command"].startswith(RUN[0])
    assert Logged(one.info.run_id, database).windows() > 2
    assert f"Run {one.info.run_id} is monitored already" in done.errors


def test_a_monitor_of_that_run_is_inert_here_and_nowhere_else(
    uses_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = new_run(uses_database)
    monkeypatch.setenv(monitored_run.VARIABLE, f"{run_id}@another machine")
    assert not monitored_run.is_monitored_outside(run_id)
    for name, value in monitored_run.announce(run_id).items():
        monkeypatch.setenv(name, value)
    assert monitored_run.is_monitored_outside(run_id)
    assert not monitored_run.is_monitored_outside(run_id[:-1])
    assert not monitored_run.is_monitored_outside("")
    monitor = SystemMetricsMonitor(run_id, 0.01)
    monitor.start()
    monitor.finish()
    assert monitor.recording_path is None
    assert Logged(run_id).metrics() == set()


# ---- out of memory ------------------------------------------------------------------------------

_MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with 60 MB."""
    group = _MEMORY_GROUPS / f"sysmetrics-native-{os.getpid()}"
    if not (_MEMORY_GROUPS / "memory.limit_in_bytes").exists():
        pytest.skip("needs version 1 of the memory controller at /sys/fs/cgroup/memory")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a control group: {error}")
    (group / "memory.limit_in_bytes").write_text("60000000")
    with contextlib.suppress(OSError):  # without swap accounting there is no such file
        (group / "memory.memsw.limit_in_bytes").write_text("60000000")
    yield group

    def remove() -> bool:
        with contextlib.suppress(OSError):
            group.rmdir()
        return not group.exists()

    wait_until(remove, "the end of the control group")


JOINS_GROUP = 'echo $$ > "$0/cgroup.procs"; '


@pytest.mark.once
def test_the_kernel_kills_the_command_for_want_of_memory(database: str, small_group: Path) -> None:
    """The command alone is in the group; who monitors it lives on, and says what happened."""
    eats = f"exec {sys.executable} -c \"import time; time.sleep(1.5); x = b'x' * 200_000_000\""
    command = [*SHELL, JOINS_GROUP + eats, str(small_group)]
    done = run("--tracking-uri", database, "--", *command)
    assert done.status == -signal.SIGKILL
    assert "out of memory: the kernel killed it" in done.errors
    one = only_run(database)
    assert one.info.status == "KILLED"
    assert one.data.tags["system/exit"] == "out of memory: the kernel killed it"
    assert one.data.tags["system/exit_code"] == "137"
    assert Logged(one.info.run_id, database).windows() > 1


@pytest.mark.once
def test_the_kernel_kills_a_child_of_the_command(database: str, small_group: Path) -> None:
    eats = f"{sys.executable} -c \"x = b'x' * 200_000_000\"; echo $?; exit 9"
    command = [*SHELL, f"{JOINS_GROUP} sleep 0.5; {eats}", str(small_group)]
    done = run("--tracking-uri", database, "--", *command)
    assert (done.status, done.output) == (9, "137\n")
    ending = only_run(database).data.tags["system/exit"]
    assert ending == "exit 9; out of memory: the kernel killed 1 in its control group"


# ---- servers that fail --------------------------------------------------------------------------

PATIENT_ENOUGH = {"SYSMETRICS_NATIVE_SHUTDOWN_TIMEOUT": "2"}


@pytest.fixture
def dead_uri() -> Iterator[str]:
    """The address of a server that is down."""
    with socket.socket() as reserved:
        reserved.bind((HOST, 0))
        yield f"http://{HOST}:{reserved.getsockname()[1]}"


@pytest.mark.once
def test_a_server_that_is_down(dead_uri: str) -> None:
    """The command runs all the same, and its samples are in the recording."""
    program = "import os; print('MLFLOW_RUN_ID' in os.environ)"
    line = f'{sys.executable} -c "{program}"; sleep 0.5; exit 3'
    done = run("--tracking-uri", dead_uri, "--", *SHELL, line, **PATIENT_ENOUGH)
    assert (done.status, done.output) == (3, "False\n")
    assert "No run can be opened now, so the command runs without one" in done.errors
    assert "could not be logged" in done.errors
    path = re.search(r"recording +(\S+)", done.errors)
    assert path is not None
    assert Path(path[1]).stat().st_size > 0


@pytest.mark.once
def test_a_server_that_hangs(proxy: Proxy) -> None:
    proxy.hang()
    variables = {**PATIENT_ENOUGH, "MLFLOW_HTTP_REQUEST_TIMEOUT": "100"}
    done = run("--tracking-uri", proxy.uri, "--", *SHELL, "echo out; exit 3", **variables)
    assert (done.status, done.output) == (3, "out\n")
    assert "the tracking server did not answer within 10 s" in done.errors


@pytest.mark.once
def test_a_server_that_comes_back_gets_everything(proxy: Proxy, tmp_path: Path) -> None:
    proxy.refuse()
    mark = tmp_path / "mark"
    line = f"echo begun; while ! [ -e {mark} ]; do sleep 0.1; done; sleep 4"
    switches = ["--tracking-uri", proxy.uri, "--experiment", "late"]
    process = subprocess.Popen(
        [*RUN, *QUICK, *switches, "--", *SHELL, line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(2.0)
    back = time.time()
    proxy.work()
    mark.touch()
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, errors
    one = only_run(proxy.uri, "late")
    assert one.info.status == "FINISHED"
    logged = Logged(one.info.run_id, proxy.uri)
    assert logged.windows() > 5
    assert logged.ends()[0] < back


@pytest.mark.once
def test_a_joined_run_whose_server_is_down_is_kept_in_a_file(proxy: Proxy, tmp_path: Path) -> None:
    run_id = new_run(proxy.uri)
    proxy.refuse()
    variables = {**PATIENT_ENOUGH, "MLFLOW_RUN_ID": run_id, "MLFLOW_TRACKING_URI": proxy.uri}
    done = run("--", *SHELL, "sleep 1; exit 3", **variables)
    assert done.status == 3
    assert f"could not be logged to run {run_id}" in done.errors
    assert "sysmetrics-native recover" in done.errors
    proxy.work()
    recovered = subprocess.run(
        [RUN[0], "recover"], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert recovered.returncode == 0, recovered.stdout + recovered.stderr
    assert Logged(run_id, proxy.uri).windows() > 2


@pytest.mark.once
def test_a_server_that_refuses(proxy: Proxy) -> None:
    proxy.fail(403, "PERMISSION_DENIED")
    done = run("--tracking-uri", proxy.uri, "--", *SHELL, "sleep 0.5; exit 3")
    assert done.status == 3
    assert "it will not be logged" in done.errors
    assert "recording" in done.errors


@pytest.mark.once
def test_ctrl_c_while_the_run_is_opened(proxy: Proxy, tmp_path: Path) -> None:
    proxy.hang()
    mark = tmp_path / "mark"
    process = subprocess.Popen(
        [*RUN, "--tracking-uri", proxy.uri, "--", "touch", str(mark)], stderr=subprocess.PIPE
    )
    wait_until(lambda: proxy.requests, "the first request")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == -signal.SIGINT
    assert errors == b""
    assert not mark.exists()


@pytest.mark.once
def test_ctrl_c_while_the_last_windows_are_sent(proxy: Proxy) -> None:
    """The command has ended: nobody needs to wait for a server."""
    process = subprocess.Popen(
        [*RUN, *QUICK, "--tracking-uri", proxy.uri, "--", *SHELL, "echo begun; read word; exit 3"],
        env={**os.environ, "SYSMETRICS_NATIVE_SHUTDOWN_TIMEOUT": "300"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    wait_until(lambda: "log-batch" in proxy.names(), "the first windows")
    proxy.hang()
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    time.sleep(1.0)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60.0)
    assert process.returncode == 3
    assert b"could not be logged" in errors


@pytest.mark.once
def test_the_command_outlives_its_monitor_and_what_was_recorded_is_recovered(database: str) -> None:
    command = [*SHELL, "echo begun; read word; echo $word"]
    process = subprocess.Popen(
        [*RUN, *QUICK, "--tracking-uri", database, "--", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    time.sleep(2.0)
    process.kill()
    process.wait()
    process.stdin.write(b"on\n")
    process.stdin.flush()
    assert process.stdout.read() == b"on\n"
    recovered = subprocess.run(
        [RUN[0], "recover"], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert recovered.returncode == 0, recovered.stdout + recovered.stderr
    assert Logged(only_run(database).info.run_id, database).windows() > 1


def test_without_mlflow_the_command_runs(tmp_path: Path) -> None:
    (tmp_path / "mlflow.py").write_text("raise ModuleNotFoundError('no', name='mlflow')")
    done = run("--", *SHELL, "sleep 0.5; exit 3", PYTHONPATH=str(tmp_path))
    assert done.status == 3
    assert "The command runs without a run: logging system metrics needs MLflow" in done.errors

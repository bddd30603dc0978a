"""`sysmetrics-native recover`: after every kind of death every window is there, once, in order."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow.tracking import MlflowClient

from sysmetrics_native import Sampler
from sysmetrics_native.private_files import Writer
from sysmetrics_native.recording import RecordedRun, Recording
from sysmetrics_native.spool import Origin, Spool, WaitingWindow
from tests.installed_command import COMMAND
from tests.mlflow.conftest import Programs
from tests.mlflow.logged import DEFAULT_KEYS, Logged
from tests.mlflow.programs import Program
from tests.mlflow.proxy import Proxy
from tests.mlflow.server import Server
from tests.support import wait_until

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")

INTERVAL_SECONDS = 0.1
TICKS = 4
WINDOW_SECONDS = INTERVAL_SECONDS * TICKS

SETTINGS = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": str(INTERVAL_SECONDS),
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": str(TICKS),
}

MONITORS = """
import logging, os, sys, time
from sysmetrics_native import SystemMetricsMonitor, configure

logging.basicConfig(level=logging.INFO)
configure(delivery_interval=0.3)
SystemMetricsMonitor(sys.argv[1] if len(sys.argv) > 1 else os.environ["RUN"],
                     resume_logging="RESUME" in os.environ).start()
print("started", flush=True)
time.sleep(float(os.environ.get("SECONDS", "60")))
"""


class Outcome(NamedTuple):
    """What the command did."""

    status: int
    output: str
    errors: str

    def result_of(self, run_id: str) -> str:
        """The lines of the table about a run."""
        return "\n".join(line for line in self.output.splitlines() if run_id in line)


def recover(*arguments: str | Path) -> Outcome:
    """Run the installed command."""
    done = subprocess.run(
        [str(COMMAND), "recover", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def assert_recovers(*arguments: str | Path) -> None:
    """All that is left is sent."""
    outcome = recover(*arguments)
    assert outcome.status == 0, "\n".join(re.sub("  +", "  ", text) for text in outcome[1:])


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The folder of spools and recordings, of programs too."""
    return tmp_path / "state" / "sysmetrics-native"


def leftovers(state: Path, kind: str) -> list[Path]:
    return sorted(state.rglob(f"*.{kind}"))


def wait_for_spool(state: Path) -> None:
    """Wait until what waited in memory is written down."""
    wait_until(lambda: leftovers(state, "smnspool"), "the spool")
    time.sleep(0.3)


def wait_for_more(logged: Logged, windows: int, what: str) -> None:
    wait_until(lambda: len(logged.steps()) > windows, what)


def kill(program: Program) -> float:
    """Kill it as the kernel does; returns when."""
    moment = time.time()
    program.send(signal.SIGKILL)
    assert program.outcome().status == -signal.SIGKILL
    return moment


def assert_whole(logged: Logged, first_step: int = 0) -> list[float]:
    """Every window once, in order, without a gap, with every metric; returns their ends."""
    for key in DEFAULT_KEYS - {"system/cpu_utilization_percentage"}:
        assert logged.windows(key.removeprefix("system/"), first_step) > 0
    ends = logged.ends()
    assert len(set(ends)) == len(ends)
    for earlier, later in itertools.pairwise(ends):
        # A busy machine may be late for one deadline; a window that is missing is more than that.
        assert later - earlier < 1.9 * WINDOW_SECONDS, ends
    return ends


# ---- killed while all is well -------------------------------------------------------------------


def test_twenty_kills_at_random_moments(
    start_program: Programs, server: Server, state: Path
) -> None:
    client = MlflowClient(server.uri)
    chance = random.Random(7)
    # Behind the first window: disk space is read once a second, and at the end of each.
    moments = [chance.uniform(1.5 * WINDOW_SECONDS, 2.5) for _ in range(20)]

    def live_and_die(seconds: float) -> tuple[str, float]:
        run_id = str(client.create_run("0").info.run_id)
        program = start_program(
            MONITORS,
            RUN=run_id,
            MLFLOW_TRACKING_URI=server.uri,
            SYSMETRICS_NATIVE_RECORDER="on",
            **SETTINGS,
        )
        program.wait_for_output("started")
        time.sleep(seconds)
        return run_id, kill(program)

    with ThreadPoolExecutor(3) as pool:
        deaths = list(pool.map(live_and_die, moments))
    newest = {}
    for path in leftovers(state, "smnrec"):
        with Recording(path) as recording:
            assert recording.run is not None
            newest[recording.run.run_id] = int(recording.rows["wall_ns"][-1]) / 1e9
            assert not recording.is_being_written()
    outcome = recover()
    assert outcome.status == 0, outcome
    for run_id, killed in deaths:
        ends = assert_whole(Logged(run_id, server.uri))
        # To the tick: what the recording has last is what the run has last …
        assert ends[-1] == pytest.approx(newest[run_id], abs=0.001)
        # … and the sampling thread, which a busy machine may hold up, wrote it just before.
        assert killed - newest[run_id] <= 2 * INTERVAL_SECONDS + 0.05
        assert "killed by a signal" in outcome.result_of(run_id)
    before = {run_id: Logged(run_id, server.uri).history() for run_id, _ in deaths}
    again = recover()
    assert (again.status, again.output) == (0, "There is nothing to recover.\n")
    for run_id, _ in deaths:
        assert Logged(run_id, server.uri).history() == before[run_id]


def test_os_exit(start_program: Programs, database: str, state: Path) -> None:
    run_id = MlflowClient(database).create_run("0").info.run_id
    program = start_program(
        MONITORS + "print(time.time(), flush=True)\nos._exit(5)",
        RUN=run_id,
        SECONDS="1.1",
        SYSMETRICS_NATIVE_RECORDER="on",
        **SETTINGS,
    )
    outcome = program.outcome()
    assert outcome.status == 5
    assert_recovers()
    ends = assert_whole(Logged(run_id, database))
    assert float(outcome.output.split()[-1]) - ends[-1] < 2 * INTERVAL_SECONDS + 0.05
    with Recording(leftovers(state, "smnrec")[0]) as recording:
        assert recording.state == "delivered"


def make_group(megabytes: int) -> Path | None:
    """A control group with a limit of memory; `None` where none can be made."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    for _, controllers, group in (line.split(":", 2) for line in lines):
        root = "/sys/fs/cgroup/memory" if controllers == "memory" else "/sys/fs/cgroup"
        limit = "memory.limit_in_bytes" if controllers == "memory" else "memory.max"
        if controllers in ("memory", ""):
            folder = Path(f"{root}{group.rstrip('/')}/sysmetrics-native-test-{os.getpid()}")
            with contextlib.suppress(OSError):
                folder.mkdir()
                (folder / limit).write_text(str(megabytes << 20))
                return folder
    return None


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group whose processes may have 600 MB together."""
    folder = make_group(600)
    if folder is None:
        pytest.skip("needs to make a control group with a limit of memory")
    yield folder
    wait_until(lambda: not (folder / "cgroup.procs").read_text(), "the end of its processes")
    folder.rmdir()


EATS = """
import os
with open(os.environ["GROUP"] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
"""


def test_an_end_for_want_of_memory_is_told_from_others(
    start_program: Programs, database: str, state: Path, small_group: Path
) -> None:
    run_id = MlflowClient(database).create_run("0").info.run_id
    program = start_program(
        EATS + MONITORS + "eaten = []\nwhile True: eaten.append(bytearray(b'x' * (8 << 20)))",
        RUN=run_id,
        SECONDS="0.8",
        GROUP=str(small_group),
        SYSMETRICS_NATIVE_RECORDER="on",
        **SETTINGS,
    )
    assert program.outcome().status == -signal.SIGKILL
    outcome = recover()
    assert outcome.status == 0
    assert "out of memory: the kernel killed 1 in its control group" in outcome.result_of(run_id)
    assert len(assert_whole(Logged(run_id, database))) >= 2


def test_windows_that_wait_for_a_shared_request_outlive_a_kill(
    start_program: Programs, server: Server, state: Path
) -> None:
    """Without a recorder: with a long interval they are written down while they wait."""
    logged = Logged(str(MlflowClient(server.uri).create_run("0").info.run_id), server.uri)
    program = start_program(
        MONITORS.replace("configure(delivery_interval=0.3)", "configure(delivery_interval=60)"),
        RUN=logged.run_id,
        MLFLOW_TRACKING_URI=server.uri,
        **SETTINGS,
    )
    logged.wait_for(1)
    wait_for_spool(state)
    time.sleep(5 * WINDOW_SECONDS)
    killed = kill(program)
    assert logged.windows() == 1
    assert_recovers()
    ends = assert_whole(logged)
    assert killed - ends[-1] < 2 * WINDOW_SECONDS + 0.1, "but the window that was open"
    assert not leftovers(state, "smnspool")


# ---- killed in an outage ------------------------------------------------------------------------


def cut_off(start_program: Programs, proxy: Proxy, server: Server, **variables: str) -> Program:
    """A program whose server answers once and then no more."""
    run_id = variables["RUN"]
    program = start_program(
        MONITORS,
        MLFLOW_TRACKING_URI=proxy.uri,
        **SETTINGS,
        **variables,
    )
    logged = Logged(run_id, server.uri)
    first = len(logged.steps())
    wait_until(lambda: len(logged.steps()) > first, "the first windows")
    return program


OUTAGES: dict[str, Callable[[Proxy], None]] = {
    "503": lambda proxy: proxy.fail(503),
    "refuses": Proxy.refuse,
    "hangs": Proxy.hang,
}


@pytest.mark.parametrize(
    ("outage", "recorder"), [("503", "on"), ("refuses", "off"), ("hangs", "off")]
)
def test_a_kill_in_an_outage(
    start_program: Programs, proxy: Proxy, server: Server, state: Path, outage: str, recorder: str
) -> None:
    run_id = MlflowClient(server.uri).create_run("0").info.run_id
    program = cut_off(start_program, proxy, server, RUN=run_id, SYSMETRICS_NATIVE_RECORDER=recorder)
    OUTAGES[outage](proxy)
    wait_for_spool(state)
    time.sleep(5 * WINDOW_SECONDS)
    killed = kill(program)
    if outage != "hangs":  # there the command waits as long as MLflow allows
        refused = recover()
        assert refused.status == 1
        assert "not sent" in refused.result_of(run_id)
    proxy.work()
    outcome = recover("--dry-run")
    assert outcome.status == 0
    assert "to be sent" in outcome.result_of(run_id)
    assert_recovers()
    ends = assert_whole(Logged(run_id, server.uri))
    # Without the recorder the window that was open is lost, and nothing else.
    slack = WINDOW_SECONDS if recorder == "off" else INTERVAL_SECONDS
    assert killed - ends[-1] < slack + INTERVAL_SECONDS + 0.1
    assert leftovers(state, "smnspool") == []
    assert recover().output == "There is nothing to recover.\n"


def test_a_kill_before_the_server_was_ever_reached(
    start_program: Programs, proxy: Proxy, server: Server, state: Path
) -> None:
    client = MlflowClient(server.uri)
    run_id = client.create_run("0").info.run_id
    client.log_metric(run_id, "system/before", 1.0, step=41)
    proxy.refuse()
    program = start_program(
        MONITORS, RUN=run_id, RESUME="1", MLFLOW_TRACKING_URI=proxy.uri, **SETTINGS
    )
    wait_for_spool(state)
    time.sleep(3 * WINDOW_SECONDS)
    kill(program)
    proxy.work()
    assert_recovers("--run-id", run_id)
    assert_whole(Logged(run_id, server.uri), first_step=42)


def test_an_answer_that_was_lost_before_the_kill(
    start_program: Programs, proxy: Proxy, server: Server, state: Path
) -> None:
    run_id = MlflowClient(server.uri).create_run("0").info.run_id
    program = start_program(MONITORS, RUN=run_id, MLFLOW_TRACKING_URI=proxy.uri, **SETTINGS)
    logged = Logged(run_id, server.uri)
    logged.wait_for(1)
    proxy.lose_answers(only="log-batch")
    before = len(logged.steps())
    wait_until(lambda: len(logged.steps()) > before, "windows whose answer was lost")
    wait_for_spool(state)
    kill(program)
    proxy.work()
    assert_recovers()
    assert_whole(logged)


# ---- the end of the time at exit ----------------------------------------------------------------


def test_what_a_black_hole_did_not_take_is_kept_and_the_log_says_how_to_send_it(
    start_program: Programs, proxy: Proxy, server: Server, state: Path
) -> None:
    run_id = MlflowClient(server.uri).create_run("0").info.run_id
    program = start_program(
        MONITORS + "print(time.time(), flush=True)",
        RUN=run_id,
        SECONDS="2",
        MLFLOW_TRACKING_URI=proxy.uri,
        SYSMETRICS_NATIVE_SHUTDOWN_TIMEOUT="1.5",
        **SETTINGS,
    )
    Logged(run_id, server.uri).wait_for(1)
    proxy.hang()
    outcome = program.outcome()
    assert time.time() - float(outcome.output.split()[-1]) < 1.5 + 1.5
    assert outcome.status == 0
    last_line = outcome.errors.strip().splitlines()[-1]
    said = re.search(r": (\d+) windows were not logged.* recover (\S+)$", last_line)
    assert said is not None, outcome.errors
    (path,) = leftovers(state, "smnspool")
    assert said[2] == str(path)
    proxy.work()
    shown = recover(said[2])
    assert shown.status == 0
    assert f" {said[1]} " in shown.result_of(run_id) or "sent" in shown.result_of(run_id)
    assert "ended; not all was sent: " in shown.result_of(run_id)
    ends = assert_whole(Logged(run_id, server.uri))
    assert ends[-1] >= float(outcome.output.split()[-1]) - 0.01, "the open window is there, too"


# ---- what is left alone, and what is refused ----------------------------------------------------


def test_a_run_that_goes_on_is_left_alone(
    start_program: Programs, proxy: Proxy, server: Server, state: Path
) -> None:
    run_id = MlflowClient(server.uri).create_run("0").info.run_id
    program = cut_off(start_program, proxy, server, RUN=run_id, SYSMETRICS_NATIVE_RECORDER="on")
    proxy.fail(503)
    wait_for_spool(state)
    outcome = recover()
    assert outcome.status == 0
    assert outcome.result_of(run_id).count("left alone") == 2
    assert "still running (process " in outcome.output
    proxy.work()
    wait_until(lambda: not leftovers(state, "smnspool"), "the spool's end")
    kill(program)
    assert_recovers()
    assert_whole(Logged(run_id, server.uri))


def spool_of(state: Path, run_id: str, uri: str, windows: int) -> Path:
    """A spool as a process that is gone leaves it."""
    gone = Writer.this_process()._replace(started=1.0)
    path = state / "spool" / f"{run_id}.smnspool"
    kept = Spool(str(path), Origin(run_id, uri, 0, gone, 1.0, {}))
    for number in range(windows):
        kept.append(
            WaitingWindow(number, 1764000000000 + number * 1000, {"system/a": 1.0 + number})
        )
    kept.release("the test says so")
    return path


def test_a_deleted_run_fails_and_can_be_discarded(server: Server, state: Path) -> None:
    client = MlflowClient(server.uri)
    runs = [str(client.create_run("0").info.run_id) for _ in range(2)]
    for run_id in runs:
        spool_of(state, run_id, server.uri, 3)
    client.delete_run(runs[0])
    outcome = recover()
    assert outcome.status == 1
    assert "not sent: the run was deleted" in outcome.result_of(runs[0])
    assert "sent" in outcome.result_of(runs[1])
    assert Logged(runs[1], server.uri).steps("a") == [0, 1, 2]
    assert recover("--discard").status == 2
    assert "discarded" in recover("--discard", "--run-id", runs[0]).output
    assert leftovers(state, "smnspool") == []


def test_files_that_are_refused_keep_nobody_from_the_rest(
    server: Server, state: Path, tmp_path: Path
) -> None:
    run_id = str(MlflowClient(server.uri).create_run("0").info.run_id)
    spool_of(state, run_id, server.uri, 3)
    (state / "recordings").mkdir(mode=0o700)
    (state / "spool" / "empty.smnspool").touch()
    (state / "recordings" / "empty.smnrec").touch()
    (state / "spool" / "garbage.smnspool").write_bytes(os.urandom(5000))
    (state / "recordings" / "garbage.smnrec").write_bytes(os.urandom(100_000))
    secret = tmp_path / "secret"
    secret.write_text("precious")
    (state / "spool" / "link.smnspool").symlink_to(secret)
    (state / "recordings" / "link.smnrec").symlink_to(secret)
    os.mkfifo(state / "recordings" / "pipe.smnrec")
    outcome = recover()
    assert outcome.status == 1
    assert outcome.output.count("refused: ") == 5
    assert "empty" not in outcome.output, "killed before it wrote anything: there is nothing in it"
    assert Logged(run_id, server.uri).steps("a") == [0, 1, 2]
    assert "Traceback" not in outcome.errors
    assert secret.read_text() == "precious"


def test_a_password_comes_from_mlflows_own_setting(
    server: Server, proxy: Proxy, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = str(MlflowClient(server.uri).create_run("0").info.run_id)
    spool_of(state, run_id, proxy.uri, 3)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri.replace("://", "://ann:word@"))
    assert_recovers()
    assert {header.get("Authorization") for header in proxy.headers} == {
        "Basic " + base64.b64encode(b"ann:word").decode()
    }
    assert Logged(run_id, server.uri).steps("a") == [0, 1, 2]


def test_wrong_usage_is_said_in_one_line(tmp_path: Path) -> None:
    outcome = recover(tmp_path / "nowhere")
    assert outcome.status == 2
    assert "does not exist" in outcome.errors
    assert recover("--no-such-option").status == 2
    assert recover("--help").status == 0


def test_two_at_once_and_in_the_middle_of_a_failure(
    proxy: Proxy, server: Server, state: Path
) -> None:
    run_id = str(MlflowClient(server.uri).create_run("0").info.run_id)
    spool_of(state, run_id, proxy.uri, 5000)
    proxy.delay(0.2)
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda _: recover(), range(2)))
    assert {outcome.status for outcome in outcomes} == {0}
    assert Logged(run_id, server.uri).steps("a") == list(range(5000))


# ---- a store that would have everything twice ---------------------------------------------------


@pytest.fixture(scope="module")
def appending_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on the file store, which appends whatever it is sent."""
    folder = tmp_path_factory.mktemp("file-store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer releases want to be asked
        server = Server(folder, (folder / "mlruns").as_uri())
    server.wait_until_it_answers()
    yield server
    server.close()


def test_nothing_is_twice_where_answers_are_lost_and_the_store_appends(
    start_program: Programs, appending_server: Server, state: Path
) -> None:
    proxy = Proxy(appending_server.uri)
    run_id = MlflowClient(appending_server.uri).create_run("0").info.run_id
    program = start_program(MONITORS, RUN=run_id, MLFLOW_TRACKING_URI=proxy.uri, **SETTINGS)
    logged = Logged(run_id, appending_server.uri)
    logged.wait_for(1)
    for _ in range(3):
        before = len(logged.steps())
        proxy.lose_answers(only="log-batch")
        wait_for_more(logged, before, "a lost answer")
        proxy.work()
        before = len(logged.steps())
        wait_for_more(logged, before, "the next window")
    proxy.lose_answers(only="log-batch")
    wait_for_spool(state)
    time.sleep(0.5)
    kill(program)
    proxy.work()
    assert_recovers()
    assert_whole(logged)
    proxy.close()


# ---- several lives of one run -------------------------------------------------------------------


def test_a_run_that_was_killed_and_resumed_before_anybody_recovered_it(
    start_program: Programs, server: Server, state: Path
) -> None:
    run_id = MlflowClient(server.uri).create_run("0").info.run_id
    settings = {"MLFLOW_TRACKING_URI": server.uri, "SYSMETRICS_NATIVE_RECORDER": "on", **SETTINGS}
    first = start_program(MONITORS, RUN=run_id, **settings)
    logged = Logged(run_id, server.uri)
    logged.wait_for(3)
    time.sleep(0.3)
    kill(first)
    (path,) = leftovers(state, "smnrec")
    second = start_program(MONITORS, RUN=run_id, RESUME="1", SECONDS="1", **settings)
    assert second.outcome().status == 0
    assert "were not logged in full" in second.outcome().errors, "the stale recording is named"
    assert path.name in second.outcome().errors
    assert_recovers()
    with Recording(path) as recording:
        expected = {round(window.end * 1000) for window in recording.windows()}
    timestamps = [entry.timestamp for entry in logged.history()]
    assert expected <= set(timestamps)
    assert len(timestamps) == len(set(timestamps))


@pytest.mark.native  # which fills the ring within seconds
def test_time_that_the_recording_has_lost_is_said(
    server: Server, state: Path, tmp_path: Path
) -> None:
    run_id = str(MlflowClient(server.uri).create_run("0").info.run_id)
    run = RecordedRun(run_id, server.uri, "system/", ("mean",), 0)
    sampler = Sampler(
        0.001, 10, backend="native", recorder=tmp_path / "a.name-of-mine", recorder_megabytes=0.1,
        recorded_run=run,
    )  # fmt: skip
    with sampler:
        first = sampler.next_window()
        assert first is not None
        time.sleep(3)
    MlflowClient(server.uri).log_metric(
        run_id,
        "system/system_memory_usage_megabytes",
        1.0,
        timestamp=round(first.end * 1000),
        step=0,
    )
    outcome = recover(tmp_path / "a.name-of-mine")
    assert outcome.status == 0, outcome
    lost = re.search(r"; ([\d.]+) s before it are in no file", outcome.output)
    assert lost is not None, outcome.output
    assert 0.5 < float(lost[1]) < 4
    steps = Logged(run_id, server.uri).steps()
    assert steps == list(range(len(steps)))

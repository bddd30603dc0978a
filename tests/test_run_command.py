"""`sysmetrics-native run` without MLflow: the command's status, signals, terminal and streams."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from sysmetrics_native.recording import Recording
from tests.installed_command import COMMAND
from tests.support import PATIENCE_SECONDS, assert_on_the_grid, wait_until

if sys.platform == "win32":
    pytest.skip("needs POSIX", allow_module_level=True)

import fcntl
import pty
import struct
import termios

RUN = [str(COMMAND), "run"]
UNLOGGED = [*RUN, "--no-log"]
SHELL = ["/bin/sh", "-c"]


def run(
    *arguments: str,
    text: str | None = None,
    folder: Path | None = None,
    files: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Run the installed command to its end, with a text as its standard input."""
    return subprocess.run(
        [*UNLOGGED, *arguments],
        input=text,
        cwd=folder,
        pass_fds=files,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
        check=False,
    )


def python(program: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(program)]


def summary(text: str) -> dict[str, str]:
    """The table at the end, as programs see it."""
    rows = {}
    for line in text.splitlines():
        head, _, rest = line.removeprefix("sysmetrics-native: ").partition("  ")
        rows[head.strip()] = rest.strip()
    return rows


# ---- how it ends --------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 3, 127, 255])
def test_the_status_is_that_of_the_command(code: int) -> None:
    done = run("--", *SHELL, f"exit {code}")
    assert done.returncode == code
    assert summary(done.stderr)["ended"] == f"exit {code}"
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGSEGV", "SIGHUP", "SIGUSR1"])
def test_it_dies_of_the_signal_that_the_command_died_of(name: str, tmp_path: Path) -> None:
    number = getattr(signal, name)
    done = run("--", *SHELL, f"ulimit -c unlimited; kill -{int(number)} $$", folder=tmp_path)
    assert done.returncode == -number
    assert summary(done.stderr)["ended"] == f"killed by {name}"
    # The dump of its memory is the command's to leave.
    assert len(list(tmp_path.glob("core*"))) <= (name == "SIGSEGV")


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    done = run("--", "no-such-command-here")
    assert done.returncode == 127
    assert done.stderr == "sysmetrics-native: no-such-command-here: command not found\n"


@pytest.mark.parametrize("kind", ["folder", "text"])
def test_a_command_that_cannot_be_executed(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    else:
        path.write_text("text")
    done = run("--", str(path))
    assert done.returncode == 126
    assert done.stderr == f"sysmetrics-native: {path}: cannot be executed: Permission denied\n"


def test_a_script_that_does_not_say_what_it_is_for(tmp_path: Path) -> None:
    """As a shell would, and execvp."""
    path = tmp_path / "script"
    path.write_text('echo "$1"; exit 4\n')
    path.chmod(0o700)
    done = run("--", str(path), "an argument")
    assert (done.returncode, done.stdout) == (4, "an argument\n")


def test_as_the_first_process_of_a_container(tmp_path: Path) -> None:
    """Its kernel lets it die of no signal, so it has a shell's status; and it reaps orphans."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare")
    box = [unshare, "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*box, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("may not make a pid namespace")
    script = """
        (sleep 0.01 & true)
        for i in 1 2 3 4 5 6 7 8 9 10; do
            sleep 0.2
            if ! grep -q '^State:.Z' /proc/[0-9]*/status; then echo none; break; fi
        done
        kill -9 $$
    """
    done = subprocess.run(
        [*box, *UNLOGGED, "--", *SHELL, script],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (137, "none\n"), done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--interval", "0", "--", "true"],
        ["--samples", "x", "--", "true"],
        ["--sources", "cpu,nonsense", "--", "true"],
        ["--experiment", "e", "--", "true"],
        ["--nonsense", "--", "true"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: ")


# ---- what it inherits ---------------------------------------------------------------------------


def test_standard_streams_are_the_commands_own() -> None:
    done = run("-q", "--", *SHELL, "cat; echo wrong >&2", text="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "wrong\n")


def test_other_open_files_are_inherited(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    with path.open() as file:
        number = file.fileno()
        program = f"import os; print(os.read({number}, 9).decode(), end='')"
        done = run("-q", "--", *python(program), files=[number])
    assert done.stdout == "text"


def test_arguments_are_passed_on_as_they_are() -> None:
    strange = ["--no-log", "a b", "", "*", "--", "-q", os.fsdecode(b"\xff")]
    program = "import os, sys; print([os.fsencode(one) for one in sys.argv[1:]])"
    done = run("-q", sys.executable, "-c", program, *strange)
    assert done.stdout == f"{[os.fsencode(one) for one in strange]}\n"


SIGNAL_STATE = r"grep -E '^Sig(Blk|Ign|Cgt)|^Cpus' /proc/self/status; umask"


def without_library(state: str) -> str:
    """Without the C library's own two signals, 32 and 33, which posix_spawn leaves ignored."""
    own = 0b11 << 31
    return re.sub(r"(?<=SigIgn:\t)\w+", lambda found: f"{int(found[0], 16) & ~own:016x}", state)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("before", ["", "trap '' HUP INT; "])
def test_dispositions_and_masks_of_signals_are_inherited(before: str) -> None:
    """Ours are blocked; the command's are not. What nohup has made ignored is ignored."""
    direct = subprocess.run(
        [*SHELL, before + SIGNAL_STATE], capture_output=True, text=True, check=True
    )
    line = f'{before} exec "$@"'
    done = subprocess.run(
        [*SHELL, line, "sh", *UNLOGGED, "-q", "--", *SHELL, SIGNAL_STATE],
        capture_output=True,
        text=True,
        check=True,
    )
    assert without_library(done.stdout) == without_library(direct.stdout)


def test_the_environment_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "7")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    done = run("--interval", "0.1", "--samples", "2", "--", *python(program))
    expected = subprocess.run(python(program), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(expected.stdout)


# ---- signals ------------------------------------------------------------------------------------

NOTES_SIGNALS = """
    import os, signal, sys, time
    names = sys.argv[1].split(",")
    for name in names:
        signal.signal(getattr(signal, name), lambda number, _: os.write(
            1, signal.Signals(number).name.encode() + b"\\n"))
    print("ready", flush=True)
    while True:
        time.sleep(0.1)  # soon, for a signal that came just before
"""

PASSED_ON = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGWINCH", "SIGCONT"]


class Started:
    """The command, while it runs, in a session of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*UNLOGGED, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def end(self) -> None:
        """End it and its command, if need be."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def make(*arguments: str) -> Started:
        started.append(Started(*arguments))
        return started[-1]

    yield make
    for one in started:
        one.end()


def test_signals_are_passed_on(start: Callable[..., Started]) -> None:
    one = start("-q", "--", *python(NOTES_SIGNALS), ",".join(PASSED_ON))
    assert one.line() == "ready"
    for name in PASSED_ON:
        one.process.send_signal(getattr(signal, name))
        assert one.line() == name
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(PATIENCE_SECONDS) == -signal.SIGTERM


def test_what_the_command_sends_to_its_group_does_not_come_back(
    start: Callable[..., Started],
) -> None:
    program = """
        import os, signal, time
        signal.signal(signal.SIGUSR1, lambda *_: print("USR1", flush=True))
        os.kill(0, signal.SIGUSR1)
        time.sleep(0.5)
        print("done", flush=True)
    """
    one = start("-q", "--", *python(program))
    assert [one.line(), one.line()] == ["USR1", "done"]
    assert one.process.wait(PATIENCE_SECONDS) == 0


def test_a_stop_of_the_command_alone_does_not_stop_us(start: Callable[..., Started]) -> None:
    """Whoever stops it alone lets it alone go on: somebody must still see it end."""
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(1); print('done')"
    one = start("-q", "--", *python(program))
    pid = int(one.line())
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state_of(pid) == "T", "the stop")
    time.sleep(0.2)
    assert state_of(one.process.pid) != "T"
    os.kill(pid, signal.SIGCONT)
    assert one.line() == "done"
    assert one.process.wait(PATIENCE_SECONDS) == 0


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_ctrl_c_before_the_command_starts_keeps_it_from_starting(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    # The signal is pending from the first moment on, because it is blocked.
    program = """
        import os, signal, sys
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        os.kill(os.getpid(), signal.SIGINT)
        os.execv(sys.argv[1], sys.argv[1:])
    """
    done = subprocess.run(
        [*python(program), *UNLOGGED, "--", "touch", str(mark)],
        capture_output=True,
        timeout=2 * PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == -signal.SIGINT
    assert not mark.exists()


# ---- the terminal -------------------------------------------------------------------------------

# A shell with job control, as small as it can be: it runs its arguments as the foreground job, says
# when that stops, and has it go on.
JOB_SHELL = """
    import os, signal, sys
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.execv(sys.argv[1], sys.argv[1:])
    while True:
        _, status = os.waitpid(pid, os.WUNTRACED)
        os.tcsetpgrp(0, os.getpgrp())
        if not os.WIFSTOPPED(status):
            break
        print("[stopped by", signal.Signals(os.WSTOPSIG(status)).name + "]", flush=True)
        os.tcsetpgrp(0, pid)
        os.killpg(pid, signal.SIGCONT)
    print("[ended with", os.waitstatus_to_exitcode(status), "]", flush=True)
"""


class Terminal:
    """A terminal with a shell that runs the command as its foreground job."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            shell = [*python(JOB_SHELL), *UNLOGGED, *arguments]
            os.execv(shell[0], shell)
        self.text = ""

    def type(self, text: bytes) -> None:
        os.write(self._file, text)

    def resize(self, rows: int) -> None:
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 99, 0, 0))

    def wait_for(self, text: str) -> None:
        """Read until there is this text."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.text:
            assert time.monotonic() < deadline, f"no {text!r} in {self.text!r}"
            if select.select([self._file], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self._file, 4096).decode(errors="replace")
                except OSError:  # Linux's end of a terminal that nobody has open
                    break
        assert text in self.text, self.text

    def close(self) -> None:
        os.close(self._file)  # hangs up
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    terminals: list[Terminal] = []

    def make(*arguments: str) -> Terminal:
        terminals.append(Terminal(*arguments))
        return terminals[-1]

    yield make
    for one in terminals:
        one.close()


def test_ctrl_c_reaches_the_command_once_and_us_not(terminal: Callable[..., Terminal]) -> None:
    program = """
        import select, signal, sys, time
        signal.signal(signal.SIGINT, lambda *_: print("<INT>", flush=True))
        print("ready", flush=True)
        # Python runs no handler for a signal that comes just before a call that waits.
        while not select.select([sys.stdin], [], [], 0.05)[0]:
            pass
        print("read", sys.stdin.readline(), flush=True)
        time.sleep(0.3)
        sys.exit(5)
    """
    one = terminal("--", *python(program))
    one.wait_for("ready")
    one.type(b"\x03")
    one.wait_for("<INT>")
    one.type(b"word\n")
    one.wait_for("read word")
    one.wait_for("[ended with 5 ]")
    assert one.text.count("<INT>") == 1


def test_ctrl_c_that_kills_the_command(terminal: Callable[..., Terminal]) -> None:
    one = terminal("--", *SHELL, "echo ready; exec sleep 60")
    one.wait_for("ready")
    one.type(b"\x03")
    one.wait_for("[ended with -2 ]")
    assert "killed by SIGINT" in one.text


def test_ctrl_z_and_on_again(terminal: Callable[..., Terminal]) -> None:
    # No shell: one that is stopped between vfork and exec of its child cannot stop itself.
    program = """
        import time
        print("ready", flush=True)
        time.sleep(1)
        print("still here", flush=True)
        print(input())
    """
    one = terminal("--", *python(program))
    one.wait_for("ready")
    one.type(b"\x1a")
    one.wait_for("[stopped by SIGTSTP]")
    one.wait_for("still here")
    one.type(b"more\n")
    one.wait_for("[ended with 0 ]")
    assert one.text.count("[stopped") == 1


def test_ctrl_z_of_a_command_that_tidies_up_first(terminal: Callable[..., Terminal]) -> None:
    """As an editor does: it is asked once, stops itself, and only then does the shell go on."""
    program = """
        import os, signal, time
        def stop(*_):
            print("<tidy>", flush=True)
            time.sleep(0.3)
            print("<tidied>", flush=True)
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(0, signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, stop)
            print("<back>", flush=True)
        signal.signal(signal.SIGTSTP, stop)
        print("ready", flush=True)
        time.sleep(1)
    """
    one = terminal("-q", "--", *python(program))
    one.wait_for("ready")
    one.type(b"\x1a")
    one.wait_for("[ended with 0 ]")
    marks = re.findall(r"<\w+>|\[\w+", one.text)
    assert marks == ["<tidy>", "<tidied>", "[stopped", "<back>", "[ended"], one.text


def test_a_command_that_is_deaf_to_ctrl_z(terminal: Callable[..., Terminal]) -> None:
    one = terminal("-q", "--", *SHELL, "trap '' TSTP; echo ready; sleep 1; echo done")
    one.wait_for("ready")
    one.type(b"\x1a")
    one.wait_for("[ended with 0 ]")
    assert "[stopped" not in one.text


def test_a_new_size_of_the_terminal_is_told_once(terminal: Callable[..., Terminal]) -> None:
    program = """
        import os, signal, time
        def tell(*_):
            print("<size", os.get_terminal_size().lines, end=">", flush=True)
        signal.signal(signal.SIGWINCH, tell)
        print("ready", flush=True)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            time.sleep(0.1)
    """
    one = terminal("-q", "--", *python(program))
    one.wait_for("ready")
    one.resize(33)
    one.wait_for("[ended with 0 ]")
    assert one.text.count("<size 33>") == 1


def test_a_terminal_that_hangs_up(tmp_path: Path) -> None:
    """The command hears of it, once, and may go on for a while; it is waited for."""
    mark = tmp_path / "mark"
    program = f"""
        import pathlib, signal, time
        hangups = []
        signal.signal(signal.SIGHUP, lambda *_: hangups.append(1))
        print("ready", flush=True)
        while not hangups:
            time.sleep(0.1)
        time.sleep(0.5)
        pathlib.Path({str(mark)!r}).write_text(str(len(hangups)))
        time.sleep(0.5)
        raise SystemExit(8)
    """
    one = Terminal("--recorder", str(tmp_path / "it.smnrec"), "--", *python(program))
    one.wait_for("ready\r\n")  # else the hangup meets it while it still writes
    one.close()
    wait_until(lambda: mark.exists() and mark.read_text(), "the command's last word")
    assert mark.read_text() == "1"

    def state() -> str:
        with Recording(str(tmp_path / "it.smnrec")) as recording:
            return recording.state

    wait_until(lambda: state() == "ended", "the end of the recording")


def test_the_table_on_a_terminal(terminal: Callable[..., Terminal]) -> None:
    one = terminal("--", "true")
    one.wait_for("[ended with 0 ]")
    assert "│" in one.text
    assert "exit 0" in one.text


def test_a_terminal_that_is_gone_does_not_change_the_status() -> None:
    """The table cannot be printed: what matters is the status."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*UNLOGGED, "--", *SHELL, "exit 6"], stderr=write, timeout=PATIENCE_SECONDS, check=False
    )
    os.close(write)
    assert done.returncode == 6


# ---- what is measured ---------------------------------------------------------------------------

WORKS = """
    import time
    memory = b"x" * 300_000_000
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    time.sleep(0.5)
"""


@pytest.fixture
def uses_backend(backend: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SYSMETRICS_NATIVE_BACKEND", backend)
    return backend


def test_time_and_memory_of_the_command(uses_backend: str) -> None:
    done = run("--interval", "0.1", "--", *python(WORKS))
    rows = summary(done.stderr)
    assert done.returncode == 0
    assert float(rows["wall time"].split()[0]) >= 1.0
    assert 0.5 <= float(rows["CPU time"].split()[0]) < 30
    assert 300 < float(rows["peak memory"].split()[0]) < 400


def test_memory_of_all_processes_together(uses_backend: str) -> None:
    """No process is large; all of them are, as sampled."""
    program = """
        import subprocess, sys
        child = [sys.executable, "-c", "x = b'x' * 100_000_000; import time; time.sleep(1.5)"]
        for process in [subprocess.Popen(child) for _ in range(3)]:
            process.wait()
    """
    done = run("--interval", "0.1", "--samples", "3", "--", *python(program))
    assert 300 < float(summary(done.stderr)["peak memory"].split()[0]) < 450


def test_a_small_command_has_not_our_memory() -> None:
    """Before it is executed the new process shares ours, and the kernel counts that."""
    done = run("--", *SHELL, "sleep 0.5")
    assert 0 < float(summary(done.stderr)["peak memory"].split()[0]) < 15


def test_every_sample_is_recorded(uses_backend: str, tmp_path: Path) -> None:
    path = tmp_path / "it.smnrec"
    arguments = ("--interval", "0.05", "--samples", "4", "--recorder", str(path))
    done = run(*arguments, "--", *SHELL, "sleep 1")
    assert summary(done.stderr)["recording"] == str(path)
    with Recording(str(path)) as recording:
        windows = list(recording.windows())
    assert sum(window.samples for window in windows) >= 10
    assert_on_the_grid(windows[:-1], 4)
    assert windows[0]["cpu_utilization_percentage"].mean is not None


def test_the_recording_is_in_the_usual_folder_unless_it_is_off(tmp_path: Path) -> None:
    path = summary(run("--", "sleep", "0.5").stderr)["recording"]
    assert Path(path).is_relative_to(tmp_path / "state")
    assert "recording" not in summary(run("--recorder", "off", "--", "sleep", "0.5").stderr)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SYSMETRICS_NATIVE_SOURCES", "nonsense"),
        ("SYSMETRICS_NATIVE_BACKEND", "nonsense"),
        ("SYSMETRICS_NATIVE_RECORDER_MEGABYTES", "nonsense"),
        ("SYSMETRICS_NATIVE_STATISTICS", "nonsense"),
        ("SYSMETRICS_NATIVE_SHUTDOWN_TIMEOUT", "nonsense"),
        ("SYSMETRICS_NATIVE_NODE_ID", "//"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "nonsense"),
        ("SYSMETRICS_NATIVE_PROCFS_PATH", "/nowhere"),
    ],
)
def test_whatever_is_wrong_with_the_monitoring_the_command_runs(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    done = run("--", *SHELL, "sleep 0.5; echo out; exit 3")
    assert (done.returncode, done.stdout) == (3, "out\n")
    assert "Traceback" not in done.stderr
    assert summary(done.stderr)["ended"] == "exit 3"


def test_a_disk_that_is_full_does_not_stop_the_command() -> None:
    done = run("--recorder", "/dev/full/it.smnrec", "--", *SHELL, "sleep 0.5; exit 3")
    assert done.returncode == 3
    assert "Sampling goes on without a recording" in done.stderr


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="needs Linux")
def test_the_kernel_is_asked_to_take_the_command_before_us() -> None:
    """The command's own score is the caller's; ours is lower where that is allowed."""
    before = int(Path("/proc/self/oom_score_adj").read_text())
    lower = "echo -500 > /proc/self/oom_score_adj"
    is_allowed = subprocess.run([*SHELL, lower], capture_output=True, check=False).returncode == 0
    script = "cat /proc/self/oom_score_adj; sleep 0.3; cat /proc/$PPID/oom_score_adj"
    done = run("-q", "--", *SHELL, script)
    of_command, of_us = map(int, done.stdout.split())
    assert of_command == before
    assert of_us == (min(before, -500) if is_allowed else before)


# ---- elsewhere ----------------------------------------------------------------------------------


def without(names: str, *arguments: str) -> list[str]:
    """The command line in an interpreter that lacks what some systems lack."""
    program = f"""
        import os, signal, sys
        for name in {names!r}.split():
            module, _, function = name.partition(".")
            delattr(sys.modules[module], function)
        from sysmetrics_native.cli import main
        main()
    """
    return [*python(program), "run", "--no-log", *arguments]


def test_where_the_sender_of_a_signal_is_not_known() -> None:
    """As on macOS: what a terminal sends is not passed on, and the rest is."""
    command = [*python(NOTES_SIGNALS), "SIGINT,SIGUSR1"]
    process = subprocess.Popen(
        without("signal.sigtimedwait", "-q", "--", *command),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == b"SIGUSR1\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == -signal.SIGTERM
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_without_posix_the_status_is_passed_on_all_the_same() -> None:
    """As on Windows."""
    arguments = ("os.posix_spawn", "--", *SHELL, "cat; exit 3")
    done = subprocess.run(
        without(*arguments), input="in\n", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, "in\n")
    assert summary(done.stderr)["ended"] == "exit 3"
    assert subprocess.run(without("os.posix_spawn", "--", "nothing"), check=False).returncode == 127


# ---- completion ---------------------------------------------------------------------------------


def complete(before: str, begun: str) -> list[str]:
    done = subprocess.run(
        [RUN[0]],
        env={
            **os.environ,
            "_SYSMETRICS_NATIVE_COMPLETE": "bash_complete",
            "COMP_WORDS": f"{before} {begun}",
            "COMP_CWORD": str(len(before.split())),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_completion_knows_options_sources_and_commands() -> None:
    assert "plain,--experiment" in complete("sysmetrics-native run", "--expe")
    assert "plain,cpu,memory" in complete("sysmetrics-native run --sources", "cpu,mem")
    assert "plain,sleep" in complete("sysmetrics-native run --", "slee")

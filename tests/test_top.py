"""`sysmetrics-native top`: the installed command, on terminals and without one."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from sysmetrics_native import Sampler
from sysmetrics_native.private_files import Writer
from sysmetrics_native.recording_file import RecordedRun
from sysmetrics_native.top.processes import Processes
from tests.recordings import DATA_OFFSET, describe, make_rows, write_recording
from tests.support import busy_processes, wait_until

COMMAND = Path(sys.executable).with_name("sysmetrics-native")

WRITER = """
import sys
from sysmetrics_native import Sampler
with Sampler(0.02, 10, recorder=sys.argv[1]) as sampler:
    print(sampler.recording_path, flush=True)
    for window in sampler.windows(timeout=60):
        pass
"""


def top(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it with its output in a pipe."""
    return subprocess.run(
        [str(COMMAND), "top", *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=100,
        check=False,
        env={**os.environ, "COLUMNS": "80", "LINES": "24", **variables},
    )


def one_line(text: str) -> str:
    (line,) = text.strip().splitlines()[-1:]
    return line


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that records to live.smnrec."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "live.smnrec")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == str(tmp_path / "live.smnrec")
    yield process
    process.kill()
    process.communicate()


# ---- once ---------------------------------------------------------------------------------------


def test_a_pipe_gets_one_frame_of_this_machine():
    done = top()
    assert (done.stderr, done.returncode) == ("", 0)
    lines = done.stdout.splitlines()
    assert len(lines) == 24
    assert "\x1b" not in done.stdout
    assert lines[0].startswith("sysmetrics-native top: ")
    assert lines[0].endswith("live, every 0.1 s")
    assert re.search(r"^CPU [\d.]+ %.* memory [\d.]+ %", lines[1])
    assert re.search(r"min [\d.]+ +mean [\d.]+ +max [\d.]+ (at )?\d\d:\d\d:\d\d", done.stdout)
    assert re.search(r"^ +PID +CPU % +MB +processes$", done.stdout, re.MULTILINE)


def test_of_a_process_its_tree_is_shown():
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'while True: pass # busy child'])\n"
        "print(child.pid, flush=True)\n"
        "try: sys.stdin.read()\n"
        "finally: child.kill()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        done = top("--pid", str(parent.pid), COLUMNS="120", LINES="40")
        parent.communicate()
    assert (done.stderr, done.returncode) == ("", 0)
    assert f"process {parent.pid} and its descendants" in done.stdout
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.split()[:1] == [str(parent.pid)])
    assert lines[at + 1].split()[0] == str(child)
    assert "busy child" in lines[at + 1]
    assert float(lines[at + 1].split()[1]) > 1.0


def test_a_job_is_seen_through_its_recording(writer, tmp_path):
    def look() -> str:
        done = top("--once", tmp_path / "live.smnrec")
        assert (done.stderr, done.returncode) == ("", 0)
        return done.stdout if "max" in done.stdout else ""

    text = wait_until(look, "values")
    assert text.splitlines()[0].startswith("sysmetrics-native top: live.smnrec on ")
    assert "live, every 0.02 s" in text.splitlines()[0]
    assert f"process {writer.pid} and its descendants" in text
    assert re.search(r"memory [\d.]+ %  [\d.]+ MB", text)


def test_of_a_job_that_was_killed_the_end_is_seen(writer, tmp_path):
    path = tmp_path / "live.smnrec"
    wait_until(lambda: path.stat().st_size > DATA_OFFSET + 20_000, "some rows")
    writer.kill()
    writer.wait()
    before = path.read_bytes()
    text = top("--once", path).stdout
    assert "killed: " in text.splitlines()[0]
    assert re.search(r"^CPU ", text, re.MULTILINE)
    assert "descendants" not in text
    assert path.read_bytes() == before


def test_a_recording_that_ended_says_so(tmp_path):
    path = tmp_path / "a.smnrec"
    with Sampler(0.02, 5, recorder=path) as sampler:
        sampler.next_window(30)
    assert top(path).stdout.splitlines()[0].endswith(" ended")


def test_a_recording_of_another_machine(tmp_path):
    path = tmp_path / "a.smnrec"
    write_recording(path, make_rows(50), state=0)
    done = top(path)
    assert done.returncode == 0
    assert "on nowhere" in done.stdout.splitlines()[0]
    assert "max" in done.stdout
    assert "PID" not in done.stdout


def test_a_recording_without_a_row(tmp_path):
    path = tmp_path / "a.smnrec"
    write_recording(path, [])
    done = top(path)
    assert (done.stderr, done.returncode) == ("", 0)
    assert "nothing has come yet" in done.stdout


def test_ascii_for_those_who_have_no_more(tmp_path):
    path = tmp_path / "a.smnrec"
    write_recording(path, make_rows(200))
    done = top(path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "#" in done.stdout


def test_the_reader_of_a_pipe_may_go_away(tmp_path):
    path = tmp_path / "a.smnrec"
    write_recording(path, make_rows(200))
    done = subprocess.run(
        ["sh", "-c", f"exec 3>&1; {COMMAND} top {path} 2>&3 | true"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == ""


def test_gpus_have_charts(gpus):
    gpus.write("devices 2")
    lines = gpus.answer("""
        from sysmetrics_native.top.app import once
        from sysmetrics_native.top.feeds import SamplerFeed
        feed = SamplerFeed(0.1)
        print(repr(once(feed, 10.0, 80, 60, "utf-8")))
        feed.close()
    """)
    titles = [title for line in lines for title in re.findall(r"GPU \d [\d.]+ %", line)]
    assert [title[:5] for title in titles] == ["GPU 0", "GPU 1"]


# ---- which recording ----------------------------------------------------------------------------


def record(folder: Path, run_id: str | None = None, **options: Any) -> Sampler:
    run = run_id and RecordedRun(run_id, "http://tracking", "system/", ("mean",), 0)
    folder.mkdir(parents=True, exist_ok=True)
    sampler = Sampler(0.05, 10, recorder=folder, recorded_run=run or None, **options)
    sampler.start()
    return sampler


def test_of_a_folder_the_one_that_is_being_written_is_taken(tmp_path):
    write_recording(tmp_path / "old.smnrec", make_rows(20))
    refused = top(tmp_path)
    assert refused.returncode == 2
    assert "being written" in one_line(refused.stderr)
    first = record(tmp_path)
    second = None
    try:
        assert top(tmp_path).returncode == 0
        second = record(tmp_path)
        refused = top(tmp_path)
        assert refused.returncode == 2
        assert Path(second.recording_path or "").name in refused.stderr
    finally:
        for one in filter(None, (first, second)):
            one.stop()


def test_a_run_is_found_by_its_id(tmp_path, monkeypatch):
    monkeypatch.setenv("SYSMETRICS_NATIVE_SPOOL_DIR", str(tmp_path / "spool"))
    refused = top("--run-id", "abc123")
    assert refused.returncode == 2
    assert "SYSMETRICS_NATIVE_RECORDER=on" in refused.stderr
    folder = tmp_path / "spool" / "recordings"
    other = record(folder, "other")
    sampler = record(folder, "abc123")
    try:
        text = top("--run-id", "abc123").stdout
        assert text.startswith("sysmetrics-native top: run abc123 on ")
        assert "live" in text.splitlines()[0]
    finally:
        sampler.stop()
        other.stop()
    assert "ended" in top("--run-id", "abc123").stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nothing.smnrec"], 1, "No such file"),
        (["garbage.smnrec"], 1, "is not a recording"),
        (["short.smnrec"], 1, "is damaged"),
        (["--pid", "2147483646"], 2, "there is no process"),
        (["--pid", "1", "a.smnrec"], 2, "give one of"),
        (["--interval", "1", "a.smnrec"], 2, "a recording has its own"),
        (["--interval", "0.001"], 2, "0.05"),
    ],
)
def test_what_cannot_be_shown_is_one_line(tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    Path("garbage.smnrec").write_bytes(os.urandom(5000))
    write_recording(Path("a.smnrec"), make_rows(5))
    Path("short.smnrec").write_bytes(Path("a.smnrec").read_bytes()[:100])
    done = top(*arguments)
    assert (done.stdout, done.returncode) == ("", status)
    assert message in one_line(done.stderr)
    assert "Traceback" not in done.stderr


def test_without_numpy_it_says_what_to_install(tmp_path):
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError('x', name='numpy')")
    done = top("--once", PYTHONPATH=str(tmp_path))
    assert (done.stdout, done.returncode) == ("", 1)
    assert "pip install 'sysmetrics-native[top]'" in one_line(done.stderr)


# ---- on a terminal ------------------------------------------------------------------------------

_MOVE = re.compile(r"\x1b\[(\d+);1H([^\x1b]*(?:\x1b\[[\d;]*m[^\x1b]*)*)(\x1b\[K)?")
_STYLE = re.compile(r"\x1b\[[\d;]*m")


# What a shell does for a command: a group of its own, in the foreground of the terminal. Only then
# can it be stopped.
SHELL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
told = int(sys.argv[1])
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.close(told)
    os.execv(sys.argv[2], sys.argv[2:])
os.write(told, f"{pid}\\n".encode())
_, status = os.waitpid(pid, 0)
os.write(told, f"{os.waitstatus_to_exitcode(status)}\\n".encode())
"""


class Terminal:
    """The command on a terminal of its own, and what is to be seen there."""

    def __init__(
        self,
        *arguments: str | Path,
        columns: int = 80,
        lines: int = 24,
        command: Sequence[str] = (str(COMMAND), "top"),
        **variables: str,
    ) -> None:
        self._file, other = pty.openpty()
        self.resize(columns, lines, tell=False)
        self.mode = termios.tcgetattr(other)
        variables = {"TERM": "xterm-256color", **variables}
        unwanted = ("NO_COLOR", "COLUMNS", "LINES")
        kept = {name: text for name, text in os.environ.items() if name not in unwanted}
        self._other = other
        self._told, told = os.pipe()
        self._shell = subprocess.Popen(
            [sys.executable, "-c", SHELL, str(told), *command, *map(str, arguments)],
            stdin=other,
            stdout=other,
            stderr=other,
            env={**kept, **variables},
            start_new_session=True,
            pass_fds=(told,),
        )
        os.close(told)
        self._answers = os.fdopen(self._told)
        self.pid = int(self._answers.readline())
        self.written = ""
        self._lines: dict[int, str] = {}

    def resize(self, columns: int, lines: int, *, tell: bool = True) -> None:
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, size)
        if tell:
            os.kill(self.pid, signal.SIGWINCH)

    def press(self, keys: str) -> None:
        os.write(self._file, keys.encode())

    def _read(self) -> None:
        while select.select([self._file], [], [], 0.0)[0]:
            try:
                data = os.read(self._file, 1 << 16)
            except OSError:
                return
            if not data:
                return
            self.written += data.decode(errors="replace")
        for part in self.written.split("\x1b[2J")[-1:]:
            self._lines = {}
            for row, text, _ in _MOVE.findall(part):
                self._lines[int(row)] = _STYLE.sub("", text)

    @property
    def screen(self) -> list[str]:
        self._read()
        return [text for _, text in sorted(self._lines.items())]

    def wait_for(self, condition: Callable[[list[str]], object] | str, what: str = "") -> list[str]:
        """The screen once it has this text, or fulfils this."""

        def look() -> list[str]:
            screen = self.screen
            if isinstance(condition, str):
                return screen if any(condition in line for line in screen) else []
            return screen if condition(screen) else []

        return wait_until(look, what or str(condition))

    def wait(self) -> int:
        """Its exit status, while what it writes is read."""

        def has_ended() -> bool:
            self._read()
            return self._shell.poll() is not None

        wait_until(has_ended, "its end")
        self._read()
        return int(self._answers.readline())

    def is_given_back(self) -> bool:
        """Whether the terminal is as it was."""
        self._read()
        is_same = termios.tcgetattr(self._other) == self.mode
        return is_same and self.written.rstrip().endswith("\x1b[?25h\x1b[?1049l")

    def close(self) -> None:
        if self._shell.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._shell.wait()
        self._answers.close()
        os.close(self._other)
        os.close(self._file)


@pytest.fixture
def start() -> Iterator[Callable[..., Terminal]]:
    """Starts it on a terminal."""
    terminals = []

    def begin(*arguments: str | Path, **options: Any) -> Terminal:
        terminals.append(Terminal(*arguments, **options))
        return terminals[-1]

    yield begin
    for terminal in terminals:
        terminal.close()


def shows_values(screen: Sequence[str]) -> bool:
    return any("max" in line for line in screen)


def test_keys(writer, tmp_path, start):
    terminal = start(tmp_path / "live.smnrec")
    screen = terminal.wait_for(shows_values, "values")
    assert len(screen) == 24
    assert "live, every 0.02 s" in screen[0]
    assert "q quit" in screen[-1]
    assert "(60 s)" in screen[-1]
    terminal.press("+")
    terminal.wait_for("(30 s)")
    terminal.press("-")
    terminal.wait_for("(60 s)")
    terminal.press("p")
    terminal.wait_for("paused")

    def stands_still() -> bool:
        before: list[str] = terminal.wait_for("paused")[1:16]
        time.sleep(0.6)
        after: list[str] = terminal.wait_for("paused")[1:16]
        return after == before

    wait_until(stands_still, "the rest of that frame, and no other")
    terminal.press("p")
    terminal.wait_for(lambda screen: "live" in screen[0], "that it goes on")
    terminal.press("\x1b[D")
    terminal.wait_for("paused")
    terminal.press("\x1b[F")
    terminal.wait_for(lambda screen: "live" in screen[0], "the end")
    terminal.press("s")
    terminal.wait_for("s)  cpu")
    terminal.press("S")
    terminal.wait_for("overview")
    terminal.press("?")
    terminal.wait_for("the view stands still")
    terminal.press("x")
    terminal.wait_for("overview")
    terminal.press("q")
    assert terminal.wait() == 0
    assert terminal.is_given_back()


def test_this_machine_is_live(start):
    terminal = start(columns=100, lines=30)
    screen = terminal.wait_for(shows_values, "values")
    assert any(re.match(r" +PID +CPU %", line) for line in screen)
    before = screen[-1]
    terminal.wait_for(lambda screen: screen[-1] != before, "another frame")
    terminal.press("\x03")
    assert terminal.wait() == 0
    assert terminal.is_given_back()


def test_that_the_process_ends_is_seen(start):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        terminal = start("--pid", str(process.pid), columns=120)
        terminal.wait_for(shows_values, "values")
        terminal.wait_for(f"process {process.pid} and its descendants")
        process.communicate(b"\n")
    terminal.wait_for(f"process {process.pid} has ended")
    terminal.press("q")
    assert terminal.wait() == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT"])
def test_a_signal_ends_it_and_the_terminal_is_given_back(name, writer, tmp_path, start):
    terminal = start(tmp_path / "live.smnrec")
    terminal.wait_for(shows_values, "values")
    os.kill(terminal.pid, getattr(signal, name))
    assert terminal.wait() == -getattr(signal, name)
    assert terminal.is_given_back()


BROKEN = """
from rich.console import Console
from sysmetrics_native.top import app
class Feed:
    title, status, series, root, interval = "x", "y", (), 1, 1.0
    is_of_machine = is_over = False
    def poll(self, history):
        raise ZeroDivisionError("as if we were wrong")
app.run(Feed(), 60.0, Console())
"""


def test_a_mistake_of_ours_gives_the_terminal_back_before_it_is_told(start):
    terminal = start(command=(sys.executable, "-c", BROKEN))
    assert terminal.wait() == 1
    screen, _, told = terminal.written.rpartition("\x1b[?1049l")
    assert "sysmetrics-native top: x" in screen
    assert "as if we were wrong" in told
    assert termios.tcgetattr(terminal._other) == terminal.mode


def test_without_a_keyboard_it_ends_by_ctrl_c(tmp_path, start):
    path = tmp_path / "a.smnrec"
    write_recording(path, make_rows(200))
    terminal = start("-c", f"exec {COMMAND} top {path} </dev/null", command=("/bin/sh",))
    screen = terminal.wait_for("ended")
    assert "quit" not in screen[-1]
    terminal.press("\x03")
    assert terminal.wait() == 0


def test_it_can_be_stopped_and_continued(writer, tmp_path, start):
    terminal = start(tmp_path / "live.smnrec")
    terminal.wait_for(shows_values, "values")
    terminal.press("\x1a")
    wait_until(terminal.is_given_back, "the terminal")
    wait_until(lambda: psutil.Process(terminal.pid).status() == psutil.STATUS_STOPPED, "its stop")
    terminal.written = ""
    os.kill(terminal.pid, signal.SIGCONT)
    terminal.wait_for(lambda screen: len(screen) == 24 and shows_values(screen), "a whole frame")
    assert "\x1b[?1049h" in terminal.written
    terminal.press("q")
    assert terminal.wait() == 0
    assert terminal.is_given_back()


def test_it_follows_the_size_of_the_terminal(writer, tmp_path, start):
    terminal = start(tmp_path / "live.smnrec")
    terminal.wait_for(shows_values, "values")
    for columns, lines in ((200, 50), (20, 5), (1, 1), (80, 24)):
        terminal.written = ""
        terminal.resize(columns, lines)
        screen = terminal.wait_for(lambda screen, n=lines: len(screen) == n, f"{lines} lines")
        assert max(len(line.rstrip()) for line in screen) <= columns
        assert max(len(line.rstrip()) for line in screen) > columns // 2
    terminal.press("q")
    assert terminal.wait() == 0


def test_colours_and_none(tmp_path, start):
    path = tmp_path / "a.smnrec"
    write_recording(path, make_rows(200))
    coloured, plain = start(path), start(path, NO_COLOR="1")
    for terminal in (coloured, plain):
        terminal.wait_for("ended")
    colour = re.compile(r"\x1b\[[\d;]*\b(3\d|9\d|4\d)m")
    assert colour.search(coloured.written)
    assert not colour.search(plain.written)
    assert "\x1b[1m" in plain.written


def test_a_terminal_that_cannot_be_redrawn(start):
    terminal = start(TERM="dumb")
    assert terminal.wait() == 1
    assert "TERM=dumb" in terminal.written
    assert "--once" in terminal.written
    assert "\x1b" not in terminal.written


def test_that_the_writer_dies_is_seen(writer, tmp_path, start):
    terminal = start(tmp_path / "live.smnrec")
    terminal.wait_for(shows_values, "values")
    writer.kill()
    writer.wait()
    screen = terminal.wait_for("killed:")
    assert shows_values(screen)
    terminal.press("q")
    assert terminal.wait() == 0


def test_a_file_that_is_spoiled_meanwhile_is_survived(writer, tmp_path, start):
    path = tmp_path / "live.smnrec"
    terminal = start(path)
    terminal.wait_for(shows_values, "values")
    os.kill(writer.pid, signal.SIGSTOP)
    with path.open("r+b") as file:
        file.seek(DATA_OFFSET)
        file.write(os.urandom(100_000))
    os.truncate(path, 50)
    with path.open("r+b") as file:
        file.seek(40)
        file.write(b"\xff" * 8)
    terminal.wait_for("its file is damaged")
    path.unlink()
    time.sleep(0.3)
    terminal.press("s")
    assert shows_values(terminal.wait_for("s)  cpu"))
    terminal.press("q")
    assert terminal.wait() == 0


def test_a_writer_that_hangs_is_named(writer, tmp_path, start):
    terminal = start(tmp_path / "live.smnrec")
    terminal.wait_for(shows_values, "values")
    os.kill(writer.pid, signal.SIGSTOP)
    terminal.wait_for("no rows for")
    os.kill(writer.pid, signal.SIGCONT)
    terminal.wait_for("live, every")


# ---- processes ----------------------------------------------------------------------------------


def test_shares_are_those_of_the_time_between_two_looks():
    with busy_processes(1):
        table = Processes(os.getpid())
        assert table.look(time.monotonic())
        assert not table.look(time.monotonic())
        assert table.rows[0].pid == os.getpid()
        assert all(row.cpu is None for row in table.rows)
        begin = time.monotonic()
        while time.monotonic() < begin + 1.0:
            time.sleep(0.1)
        table.look_soon(time.monotonic())
        assert table.look(time.monotonic())
        busy = max(row.cpu or 0.0 for row in table.rows if row.depth == 1)
    assert 0.0 < busy < 120.0


def test_a_process_that_is_gone_has_no_rows():
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        pass
    table = Processes(process.pid)
    assert table.look(time.monotonic())
    assert table.rows == []


def test_a_writer_without_a_number_is_nobody(tmp_path):
    path = tmp_path / "a.smnrec"
    me = Writer.this_process()
    write_recording(path, make_rows(5), description=describe(writer=me._replace(pid=0)), state=0)
    done = top(path)
    assert done.returncode == 0
    assert "killed" in done.stdout.splitlines()[0]

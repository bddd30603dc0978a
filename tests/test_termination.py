"""SIGTERM, in programs that put a line on their output where a monitor would log its windows."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sysmetrics_native import termination
from tests.mlflow.programs import Outcome, Program

pytestmark = pytest.mark.native

Start = Callable[[str], Program]

START = """
import ctypes, multiprocessing, os, signal, sys, threading, time
from sysmetrics_native import termination

def say(*words):
    os.write(1, (" ".join(map(str, words)) + chr(10)).encode())

def finish():
    say("finished")

def status_of(child):
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def terminate_self():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

"""
WATCH = "termination.watch(finish, {seconds})\n"
READY = "say('ready')\n"
SLEEP = "time.sleep(60)\n"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts programs of one test."""
    programs: list[Program] = []

    def start(source: str) -> Program:
        programs.append(Program(START + source, tmp_path / str(len(programs)), {}, ()))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()


def end(program: Program, times: int = 1) -> Outcome:
    """Send SIGTERM to a program that is ready, and wait for its end."""
    program.wait_for_output("ready")
    program.send(signal.SIGTERM)
    for _ in range(times - 1):
        program.wait_for_output("begun")
        program.send(signal.SIGTERM)
    return program.outcome(timeout=30)


def lines(outcome: Outcome) -> list[str]:
    assert "Traceback" not in outcome.errors, outcome.errors
    return outcome.output.split()


def test_the_process_dies_of_it_once_it_has_finished(start: Start) -> None:
    say = "say(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"
    outcome = end(start(WATCH.format(seconds=60) + say + READY + SLEEP))
    assert lines(outcome) == ["True", "ready", "finished"]
    assert outcome.status == -signal.SIGTERM


STUCK = """
reading, _ = os.pipe()
byte = ctypes.create_string_buffer(1)
ctypes.{library}(None).read(reading, byte, 1)  # which no signal ends
"""


def test_a_main_thread_that_never_comes_back_to_the_interpreter(start: Start) -> None:
    without_gil = start(WATCH.format(seconds=60) + READY + STUCK.format(library="CDLL"))
    with_gil = start(WATCH.format(seconds=0.5) + READY + STUCK.format(library="PyDLL"))
    outcome = end(without_gil)
    assert lines(outcome) == ["ready", "finished"]
    assert outcome.status == -signal.SIGTERM
    with_gil.wait_for_output("ready")
    time.sleep(0.2)  # so that it is in there
    outcome = end(with_gil)
    assert lines(outcome) == ["ready"]  # nobody could take the GIL, and yet it has ended
    assert outcome.status == -signal.SIGTERM


HANGING = """
def hang():
    say("begun")
    time.sleep(60)

termination.watch(hang, {seconds})
"""


def test_what_hangs_is_cut_short(start: Start) -> None:
    bounded = start(HANGING.format(seconds=0.1) + READY + SLEEP)
    patient = start(HANGING.format(seconds=60) + READY + SLEEP)
    assert end(bounded).status == -signal.SIGTERM
    assert end(patient, times=2).status == -signal.SIGTERM  # the second is not waited for


TOGETHER = """
together = threading.Barrier(3)

def meet():
    together.wait()
    say("met")

def fail():
    meet()
    raise RuntimeError("as the test says")

for finish in (lambda: meet(), lambda: meet(), fail):
    termination.watch(finish, 30)
"""


def test_several_finish_at_the_same_time(start: Start) -> None:
    outcome = end(start(TOGETHER + READY + SLEEP))
    assert outcome.output.split() == ["ready", "met", "met", "met"]
    assert outcome.status == -signal.SIGTERM


OWN_HANDLER = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
IGNORED = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
BLOCKED = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
REPLACED = OWN_HANDLER + "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"


@pytest.mark.parametrize(
    ("source", "status", "finishes"),
    [
        pytest.param(OWN_HANDLER + "{watch}" + READY + SLEEP, 3, False, id="handler before"),
        pytest.param("{watch}" + OWN_HANDLER + READY + SLEEP, 3, False, id="handler after"),
        pytest.param(
            "{watch}" + REPLACED + "{watch}" + READY + SLEEP, -signal.SIGTERM, True, id="restored"
        ),
        pytest.param(IGNORED + "{watch}" + READY + "time.sleep(0.5)", 0, False, id="ignored"),
        pytest.param(BLOCKED + "{watch}" + READY + "time.sleep(0.5)", 0, False, id="blocked"),
    ],
)
def test_what_the_program_has_decided_stays(
    start: Start, source: str, status: int, finishes: bool
) -> None:
    outcome = end(start(source.replace("{watch}", WATCH.format(seconds=30))))
    assert outcome.status == status, outcome
    assert ("finished" in lines(outcome)) == finishes


CHILDREN = """
termination.watch(finish, 30)
held, release = threading.Event(), threading.Event()

def hold_the_lock():
    with termination._watch.lock:
        held.set()
        release.wait()

def watches_by_itself():
    termination.watch(lambda: say("child"), 30)
    terminate_self()

def unwatches():
    termination.unwatch(finish)
    os._exit(len(os.listdir("/proc/self/task")))

threading.Thread(target=hold_the_lock).start()
held.wait()
statuses = [status_of(child) for child in (terminate_self, watches_by_itself, unwatches)]
release.set()
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
child.start()
child.terminate()
child.join()
grandchild = status_of(lambda: os._exit(-status_of(terminate_self)))
say(*statuses, child.exitcode, grandchild)
"""


def test_children_die_at_once_unless_they_watch_by_themselves(start: Start) -> None:
    outcome = end(start(CHILDREN + READY + SLEEP))
    sigterm = str(-signal.SIGTERM)
    assert lines(outcome) == ["child", sigterm, sigterm, "1", sigterm, "15", "ready", "finished"]
    assert outcome.status == -signal.SIGTERM


UNWATCHED = """
def catches():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("SigCgt")]
    return int(line.split()[1], 16) >> signal.SIGTERM - 1 & 1

def watch_for_a_while():
    for _ in range(200):
        mine = lambda: say("not")
        termination.watch(mine, 30)
        termination.unwatch(mine)
        termination.unwatch(mine)

termination.watch(finish, 30)
say(*(thread.name for thread in threading.enumerate()), catches())
threads = [threading.Thread(target=watch_for_a_while) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
say(catches())
termination.unwatch(finish)
say(catches())
watch_for_a_while()
while threading.active_count() > 1:
    time.sleep(0.01)
say(catches())
"""


def test_nothing_stays_behind_the_last_unwatch(start: Start) -> None:
    outcome = end(start(UNWATCHED + READY + SLEEP))
    threads = ["MainThread", termination.THREAD_NAME]
    assert lines(outcome) == [*threads, "1", "1", "0", "0", "ready"]
    assert outcome.status == -signal.SIGTERM


def test_the_exit_of_the_interpreter_does_not_wait_for_the_thread(start: Start) -> None:
    outcome = start(WATCH.format(seconds=60) + READY).outcome(timeout=30)
    assert (lines(outcome), outcome.status) == (["ready"], 0)


NO_TIMER = """
import logging, resource
logging.basicConfig(format="%(message)s", stream=sys.stdout)
resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, 0))
"""


def test_a_system_without_a_timer_is_told_of(start: Start) -> None:
    outcome = end(start(NO_TIMER + WATCH.format(seconds=30) + READY + SLEEP))
    said, ready = outcome.output.splitlines()
    assert said.startswith("SIGTERM will end this process without its last window: ")
    assert (ready, outcome.status) == ("ready", -signal.SIGTERM)


def test_without_the_core_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sysmetrics_native._native", None)
    termination.watch(print, 1.0)
    assert all(thread.name != termination.THREAD_NAME for thread in threading.enumerate())
    termination.unwatch(print)

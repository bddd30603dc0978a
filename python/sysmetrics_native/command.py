"""A command that is run as if nobody stood before it: its terminal, its signals, its end.

It inherits everything: standard streams, other open files, environment, process group. So what a
terminal sends to the foreground group (Ctrl-C, Ctrl-Z, a changed size, the hangup) reaches it
without us, and is not passed on a second time; what somebody sends to this process is.
All of it is waited for with the signals blocked, so that none can come between two lines.

Where there is no POSIX the command is a plain child process, and Ctrl-C is left to it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, Protocol

NOT_FOUND = 127
NOT_EXECUTABLE = 126
SIGNAL_STATUS = 128
"""A shell's status of a command that a signal has killed is this and the signal's number."""

OOM_SCORE_ADJUSTMENT = -500
"""Half of the memory there is, in the eyes of the kernel's OOM killer: it takes the job first."""

_FIRST_LOOK_SECONDS = 0.02
_LONGEST_LOOK_SECONDS = 1.0
_STOP_SECONDS = 10.0
"""How long after Ctrl-Z a command that stops is taken to have stopped for it."""

_SI_KERNEL = 0x80
"""Linux's `si_code` of a signal that the kernel itself has sent, such as a terminal's."""


class Ended(NamedTuple):
    """How a command ended, and what it used."""

    exit_code: int | None
    """`None` if a signal has killed it."""
    signal_number: int | None
    wall_seconds: float
    cpu_seconds: float | None
    """Of it and of all descendants that were waited for; `getrusage(2)`."""
    largest_megabytes: float | None
    """Most memory that it or one of these descendants had at a time; not their sum."""

    @property
    def status(self) -> int:
        """As a shell has it in ``$?``."""
        if self.signal_number is not None:
            return SIGNAL_STATUS + self.signal_number
        return self.exit_code or 0


class NotStartedError(Exception):
    """There is no such command, or it cannot be executed.

    Attributes:
        status: what a shell would exit with.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Command(Protocol):
    """A command, from before its start to its end."""

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start it; returns its process id, or raises `NotStartedError`."""

    def wait(self, look: Callable[[], object]) -> Ended:
        """Wait for its end; calls `look` now and then meanwhile, at most once a second."""

    def fatal_signal(self) -> int | None:
        """A signal that has come for this process and would have ended it, if any."""

    def leave(self, ended: Ended) -> NoReturn:
        """End this process as the command has ended."""


def make_command() -> Command:
    """A command as this system can run it. To be made before any thread, on the main one."""
    return PosixCommand() if hasattr(os, "posix_spawn") else _PlainCommand()


def _not_started(name: str, error: OSError) -> NotStartedError:
    if isinstance(error, FileNotFoundError):
        return NotStartedError(f"{name}: command not found", NOT_FOUND)
    reason = os.strerror(error.errno) if error.errno else str(error)
    return NotStartedError(f"{name}: cannot be executed: {reason}", NOT_EXECUTABLE)


# ---- POSIX --------------------------------------------------------------------------------------

_NAMES_OF_TAKEN = (
    *("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGXCPU"),
    *("SIGTSTP", "SIGCONT", "SIGWINCH"),
)
_NAMES_OF_HARMLESS = ("SIGTSTP", "SIGCONT", "SIGWINCH", "SIGCHLD")
_NAMES_FROM_TERMINAL = ("SIGINT", "SIGQUIT", "SIGTSTP", "SIGWINCH")
"""Taken to be a terminal's where the system does not tell who has sent them."""


def _numbers(names: Sequence[str]) -> set[int]:
    return {int(getattr(signal, name)) for name in names if hasattr(signal, name)}


class _Arrival(NamedTuple):
    """A signal for this process."""

    number: int
    is_from_terminal: bool
    sender: int
    """Its process; 0 where that is not known."""


class PosixCommand:
    """A command on Linux or macOS. See `Command`."""

    def __init__(self) -> None:
        # What this process was told to ignore, as by nohup, the command ignores, too.
        taken = {
            number
            for number in _numbers(_NAMES_OF_TAKEN)
            if signal.getsignal(number) != signal.SIG_IGN
        }
        self._waited_for = taken | {int(signal.SIGCHLD)}
        self._mask_before = signal.pthread_sigmask(signal.SIG_BLOCK, self._waited_for)
        # Some systems throw away what would be ignored, even while it is blocked.
        for number in _numbers(_NAMES_OF_HARMLESS) - _numbers(["SIGTSTP"]):
            signal.signal(number, lambda *_: None)
        self._pid = 0
        self._started = 0.0
        self._own_megabytes = 0.0
        self._stop_asked = -_STOP_SECONDS  # when somebody wanted all of us stopped
        self._is_stopped = False

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        self._started = time.monotonic()
        try:
            self._pid = self._spawn(arguments[0], arguments, environment)
        except OSError as error:
            path = shutil.which(arguments[0])
            if error.errno != errno.ENOEXEC or path is None:
                raise _not_started(arguments[0], error) from None
            # As execvp(3) does with a script that does not say what it is for.
            script = ["/bin/sh", path, *arguments[1:]]
            self._pid = self._spawn(script[0], script, environment)
        self._own_megabytes = _largest_megabytes(_usage_of_this_process())
        _spare_this_process()
        return self._pid

    def _spawn(self, file: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        return os.posix_spawnp(
            file,
            list(arguments),
            dict(environment),
            setsigmask=self._mask_before,
            setsigdef=_numbers(("SIGPIPE", "SIGXFSZ")),  # which Python ignores
        )

    def wait(self, look: Callable[[], object]) -> Ended:
        pause = _FIRST_LOOK_SECONDS
        while True:
            look()
            arrival = self._next_signal(pause)
            if arrival is not None and arrival.number != signal.SIGCHLD:
                self._pass_on(arrival)
            ended = self._look_at_command()
            if ended is not None:
                return ended
            pause = min(2 * pause, _LONGEST_LOOK_SECONDS)

    # ---- signals --------------------------------------------------------------------------------

    def _next_signal(self, seconds: float) -> _Arrival | None:
        if not hasattr(signal, "sigtimedwait"):  # macOS, which does not tell who has sent it
            number = int(signal.sigwait(self._waited_for))
            return _Arrival(number, number in _numbers(_NAMES_FROM_TERMINAL), 0)
        info = signal.sigtimedwait(self._waited_for, seconds)
        if info is None:
            return None
        is_from_terminal = info.si_code == _SI_KERNEL
        return _Arrival(info.si_signo, is_from_terminal, 0 if is_from_terminal else info.si_pid)

    def _pass_on(self, arrival: _Arrival) -> None:
        if arrival.number == signal.SIGTSTP:
            self._stop_asked = time.monotonic()
        # What it sends to its whole group it has sent to itself already.
        if not arrival.is_from_terminal and arrival.sender != self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, arrival.number)

    def fatal_signal(self) -> int | None:
        pending = signal.sigpending() & self._waited_for
        return min(pending - _numbers(_NAMES_OF_HARMLESS), default=None)

    # ---- states of the command ------------------------------------------------------------------

    def _look_at_command(self) -> Ended | None:
        # The first process of a container inherits what others leave behind.
        whom = -1 if os.getpid() == 1 else self._pid
        while True:
            pid, status, usage = os.wait4(whom, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            if pid == 0:
                break
            if pid != self._pid:
                continue
            if not os.WIFSTOPPED(status) and not os.WIFCONTINUED(status):
                return self._ended(status, usage)
            self._is_stopped = os.WIFSTOPPED(status)
        if self._is_stopped and time.monotonic() - self._stop_asked < _STOP_SECONDS:
            self._stop()
        return None

    def _stop(self) -> None:
        """Stop, as the command has for Ctrl-Z, so that the shell takes the terminal back.

        Not for any other stop: whoever stops the command alone may let it alone go on, and nobody
        would see it end.
        """
        self._stop_asked = -_STOP_SECONDS
        # One that is pending already and this one are one, and meet the default together.
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})

    def _ended(self, status: int, usage: Any) -> Ended:
        is_killed = os.WIFSIGNALED(status)
        largest = _largest_megabytes(usage)
        return Ended(
            exit_code=None if is_killed else os.WEXITSTATUS(status),
            signal_number=os.WTERMSIG(status) if is_killed else None,
            wall_seconds=time.monotonic() - self._started,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            # Until it executes the command the new process shares our memory, which counts.
            largest_megabytes=largest if largest > self._own_megabytes else None,
        )

    def leave(self, ended: Ended) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if ended.signal_number is not None:
            _die_of(ended.signal_number)
        # No thread that waits for a server, of ours or of MLflow's, has a say in this.
        os._exit(ended.status)


def _die_of(number: int) -> None:
    """Die of a signal, and leave the dump of its memory to the command."""
    import resource

    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        # To Linux 0 means none in a file, and 1 neither in a file nor to a program; core(5).
        resource.setrlimit(resource.RLIMIT_CORE, (min(hard, 1) if hard >= 0 else 1, hard))
    with contextlib.suppress(OSError, ValueError):  # SIGKILL has no other disposition
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    # Only the first process of a container comes here: its kernel spares it.


def _usage_of_this_process() -> Any:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF)


def _largest_megabytes(usage: Any) -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2), on either
    return float(usage.ru_maxrss * unit / 1e6)


def _spare_this_process() -> None:
    """Where that is allowed, which it is to root, make the OOM killer take the job before us.

    The job's own score, so its fate among all other processes, stays as it is.
    """
    path = "/proc/self/oom_score_adj"
    try:
        with open(path, encoding="ascii") as file:
            if int(file.read()) <= OOM_SCORE_ADJUSTMENT:
                return
        with open(path, "w", encoding="ascii") as file:
            file.write(str(OOM_SCORE_ADJUSTMENT))
    except (OSError, ValueError):
        return


# ---- without POSIX ------------------------------------------------------------------------------


class _PlainCommand:
    """A command on Windows. See `Command`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        self._started = time.monotonic()
        try:
            self._process = subprocess.Popen(list(arguments), env=dict(environment))
        except OSError as error:
            raise _not_started(arguments[0], error) from None
        signal.signal(signal.SIGINT, lambda *_: None)  # the console tells the command, too
        return self._process.pid

    def wait(self, look: Callable[[], object]) -> Ended:
        assert self._process is not None
        while True:
            look()
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(_LONGEST_LOOK_SECONDS)
                return Ended(code, None, time.monotonic() - self._started, None, None)

    def fatal_signal(self) -> int | None:
        return None

    def leave(self, ended: Ended) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(ended.status)

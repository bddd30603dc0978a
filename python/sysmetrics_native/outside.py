"""Monitors a command from outside: what `sysmetrics-native run` does, but for the words.

Nothing here may break, slow or hang the command. Whatever may wait (for a tracking server, for the
driver of a GPU, for a disk) does so on a thread that the command's end does not wait for, or not
for long; whatever fails is a warning.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sysmetrics_native import catalog, settings
from sysmetrics_native.backends import choose_backend
from sysmetrics_native.command import Command, Ended
from sysmetrics_native.describe import known_sources
from sysmetrics_native.endings import OomWatch
from sysmetrics_native.monitor import SystemMetricsMonitor
from sysmetrics_native.opening import Opening, OpenRun
from sysmetrics_native.outcome import Outcome, Tally, largest
from sysmetrics_native.redaction import error_text
from sysmetrics_native.run_log import RunLog
from sysmetrics_native.sampler import Sampler
from sysmetrics_native.spool import WaitingWindow
from sysmetrics_native.threads import Thread
from sysmetrics_native.tracking import Entry, connect
from sysmetrics_native.window import Window

_logger = logging.getLogger("sysmetrics_native")

OPEN_SECONDS = 10.0
"""How long the command waits for its run; then it runs without knowing it."""
LAST_WORD_SECONDS = 2.0
"""What there is at least for the outcome, when the last windows have taken the time at the end."""
WINDOWS_KEPT = 10_000
"""Windows that wait in memory for a run that could not be opened."""

SOURCES_OF_COMMAND = (
    *("process", "container"),
    *("cpu_detail", "disk_io", "pressure"),
    *("energy", "gpu_detail"),
)
"""What tells of the command itself, what limited it, and the energy; where the backend has it."""

_LOOK_SECONDS = 0.05
_PEAK_OF_PROCESS = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)


class Sampling(NamedTuple):
    """How the command is sampled."""

    interval: float
    samples_per_window: int


def choose_sources(*further: str) -> tuple[str, ...]:
    """The sources of the option `sources`, and further ones that the backend has.

    One that the option drops, as with ``-process``, stays away.

    Raises:
        ValueError: the option is not allowed here, or the option `backend`.
    """
    names: list[str] = list(settings.option("sources"))
    if all(name.startswith("-") for name in names):
        names.insert(0, "default")
    known = known_sources(choose_backend(settings.option("backend")).name)
    names += [name for name in further if name in known and f"-{name}" not in names]
    return settings.resolve_sources(names, known, settings.spelling("sources"))


class Result(NamedTuple):
    """What is left of a command."""

    ended: Ended
    outcome: Outcome
    run: OpenRun | None
    recording_path: str | None


def run_outside(
    command: Command,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    command_line: str,
    opening: Opening | None,
    sampling: Sampling,
    joins: bool,
) -> Result | None:
    """Run a command and monitor it.

    Args:
        command: made, and not started.
        arguments: the command's name, and its arguments.
        environment: of the command, without what the run adds.
        command_line: the command for people, without secrets; empty if it is not to be named.
        opening: of its run, not started; `None` for none.
        sampling: how it is sampled.
        joins: whether the command is to log into the same run.

    Returns:
        What is left of it; `None` if a signal came before it was started.

    Raises:
        NotStartedError: it cannot be run. A run that was opened for it has failed.
    """
    run = _wait_for_run(opening, command)
    if command.fatal_signal() is not None:
        _close(opening, "KILLED")
        return None
    if run is not None and joins:
        environment = {**environment, **run.environment()}
    try:
        pid = command.start(arguments, environment)
    except BaseException:
        _close(opening, "FAILED")
        raise
    attempt = _Attempt(pid, run, sampling, opening)
    attempt.begin()
    ended = command.wait(attempt.look)
    try:
        return attempt.end(command, ended, command_line)
    except Exception as error:  # noqa: BLE001  # the command has ended, and how is what matters
        _logger.warning("The outcome could not be logged: %s", error_text(error))
        return Result(ended, _outcome(command_line, ended, 0, None, Tally()), run, None)


class _Attempt:
    """The monitoring of a command, which may fail at any point, and must not fail the command."""

    def __init__(
        self, pid: int, run: OpenRun | None, sampling: Sampling, opening: Opening | None
    ) -> None:
        self._opening = opening
        self._traces = _Traces(pid)
        self._monitoring = _Monitoring(pid, run, sampling, keeps=opening is not None)

    def begin(self) -> None:
        try:
            self._monitoring.start()
        except Exception as error:  # noqa: BLE001  # there is no further thread, say
            _logger.warning("The command is not monitored: %s", error_text(error))

    def look(self) -> None:
        with contextlib.suppress(Exception):  # another look comes soon
            self._traces.look()

    def end(self, command: Command, ended: Ended, command_line: str) -> Result:
        """Log what is left, and say what became of the command."""
        self._traces.look_again()
        deadline = time.monotonic() + _patience()
        monitoring = self._monitoring
        _wait_for(monitoring.finish, deadline, command)
        outcome = _outcome(
            command_line,
            ended,
            self._traces.oom_kills,
            self._traces.peak_megabytes,
            monitoring.tally,
        )
        run = None
        if self._opening is not None:
            self._opening.stop()
            run = self._opening.run
            last_word = _LastWord(self._opening, outcome, _key_prefix(), monitoring.kept)
            deadline = max(deadline, time.monotonic() + LAST_WORD_SECONDS)
            _wait_for(last_word.say, deadline, command)
            last_word.report()
        return Result(ended, outcome, run, monitoring.recording_path)


def _wait_for_run(opening: Opening | None, command: Command) -> OpenRun | None:
    if opening is None:
        return None
    opening.start()
    run = opening.wait(OPEN_SECONDS, lambda: command.fatal_signal() is not None)
    if run is None and command.fatal_signal() is None:
        _logger.warning(
            "No run can be opened now, so the command runs without one; %s: %s",
            "it will not be logged" if opening.is_refused else "it will be logged if one can later",
            opening.error or f"the tracking server did not answer within {OPEN_SECONDS:g} s",
        )
    return run


def _close(opening: Opening | None, status: str) -> None:
    """End the run of a command that was never started, without waiting for long."""
    if opening is None:
        return
    opening.stop()
    run = opening.run
    if run is None or run.is_joined:
        return
    thread = Thread("SystemMetricsOutcome", _terminate, (run, status))
    thread.start()
    thread.join(LAST_WORD_SECONDS)


def _terminate(run: OpenRun, status: str) -> None:
    from mlflow.tracking import MlflowClient

    try:
        MlflowClient(run.tracking_uri).set_terminated(run.run_id, status)
    except Exception as error:  # noqa: BLE001  # MLflow's and everybody's: the command has ended
        _logger.warning(
            "Run %s could not be ended as %s: %s", run.run_id, status, error_text(error)
        )


def _patience() -> float:
    try:
        return float(settings.option("shutdown_timeout"))
    except ValueError:
        return LAST_WORD_SECONDS


def _key_prefix() -> str:
    try:
        return catalog.metric_prefix(settings.mlflow_node_id(None))
    except ValueError:  # whoever makes a monitor says so
        return catalog.metric_prefix(None)


def _wait_for(work: Callable[[], object], deadline: float, command: Command) -> None:
    """Wait for work, but not beyond the deadline, nor when Ctrl-C or SIGTERM comes."""
    thread = Thread("SystemMetricsOutcome", work)
    thread.start()
    while thread.is_alive() and time.monotonic() < deadline and command.fatal_signal() is None:
        thread.join(_LOOK_SECONDS)


# ---- while the command runs ---------------------------------------------------------------------


class _Traces:
    """What can be seen of the command while it is there, and no longer when it has ended."""

    def __init__(self, pid: int) -> None:
        self._path = f"/proc/{pid}/status"
        self._oom = OomWatch(pid)
        self.peak_megabytes: float | None = None
        """Of the command itself, since it was executed."""

    def look(self) -> None:
        """Look now."""
        try:
            self._oom.look()
            with open(self._path, encoding="utf-8", errors="replace") as file:
                found = _PEAK_OF_PROCESS.search(file.read())
        except OSError:
            return
        if found is not None:
            self.peak_megabytes = int(found.group(1)) * 1024 / 1e6

    def look_again(self) -> None:
        """Look when it has ended."""
        self._oom.look()

    @property
    def oom_kills(self) -> int:
        return self._oom.kills


class _Monitoring:
    """Samples the command, on threads; to a run where there is one.

    Opening the sources asks drivers, which may take seconds or hang, so that is on a thread, too.
    """

    def __init__(self, pid: int, run: OpenRun | None, sampling: Sampling, *, keeps: bool) -> None:
        self._target = pid
        self._run = run
        self._sampling = sampling
        self._keeps = keeps
        self._lock = threading.Lock()  # guards what follows, up to the blank line
        self._is_over = False
        self._monitor: SystemMetricsMonitor | None = None
        self._sampler: Sampler | None = None

        self._drainer: Thread | None = None
        self.tally = Tally()
        self.kept: list[WaitingWindow] = []
        """Windows that no run has, because there was none."""
        self.recording_path: str | None = None

    def start(self) -> None:
        """Begin; returns at once."""
        self._starter = Thread("SystemMetricsMonitor", self._begin)
        self._starter.start()

    def _begin(self) -> None:
        try:
            if self._run is None:
                self._begin_sampler()
            else:
                self._begin_monitor(self._run)
        except Exception as error:  # noqa: BLE001  # first law: the command runs on
            _logger.warning("The command is not monitored: %s", error_text(error))

    def _begin_monitor(self, run: OpenRun) -> None:
        monitor = SystemMetricsMonitor(
            run.run_id,
            self._sampling.interval,
            self._sampling.samples_per_window,
            resume_logging=run.is_joined,
            tracking_uri=run.tracking_uri,
            pid=self._target,
            on_window=self.tally.add,
        )
        with self._lock:
            if self._is_over:
                return
            monitor.start()
            self._monitor = monitor
            self.recording_path = monitor.recording_path

    def _begin_sampler(self) -> None:
        sampler = Sampler(
            settings.mlflow_interval(self._sampling.interval),
            settings.mlflow_samples(self._sampling.samples_per_window),
            pid=self._target,
        )
        statistics: tuple[str, ...] = settings.option("statistics")
        with self._lock:
            if self._is_over:
                return
            sampler.start()
            self._sampler = sampler
            self.recording_path = sampler.recording_path
            self._drainer = Thread("SystemMetricsWindows", self._drain, (sampler, statistics))
            self._drainer.start()

    def _drain(self, sampler: Sampler, statistics: Sequence[str]) -> None:
        percentiles = any(name.startswith("p") for name in statistics)
        prefix = _key_prefix()
        for number, window in enumerate(sampler.windows(percentiles=percentiles)):
            self.tally.add(window)
            if self._keeps and number < WINDOWS_KEPT:
                self.kept.append(_waiting(number, window, sampler, statistics, prefix))

    def finish(self) -> None:
        """End sampling; what there is has reached the run or a file, or waits in `kept`."""
        with self._lock:
            self._is_over = True
        if self._monitor is not None:
            self._monitor.finish()
        if self._sampler is not None:
            self._sampler.stop()
        if self._drainer is not None:
            self._drainer.join()


def _waiting(
    number: int, window: Window, sampler: Sampler, statistics: Sequence[str], prefix: str
) -> WaitingWindow:
    metrics = catalog.metrics_of(window, sampler.schema, statistics)
    values = {prefix + key: value for key, value in metrics}
    return WaitingWindow(number, catalog.timestamp_ms(window), values)


# ---- when it has ended --------------------------------------------------------------------------


def _outcome(
    command_line: str, ended: Ended, oom_kills: int, peak_megabytes: float | None, tally: Tally
) -> Outcome:
    return Outcome(
        command_line=command_line,
        ended=ended,
        oom_kills=oom_kills,
        peak_memory_megabytes=largest(
            tally.peak_memory_megabytes, ended.largest_megabytes, peak_megabytes
        ),
        energy_joules=tally.energy_joules,
        gpus=tally.gpus(),
    )


class _LastWord:
    """Logs the outcome to the run: its tags, its metrics, its status."""

    def __init__(
        self, opening: Opening, outcome: Outcome, prefix: str, late: Sequence[WaitingWindow]
    ) -> None:
        self._run = opening.run
        self._outcome = outcome
        self._prefix = prefix
        self._late = late
        self._error = "the tracking server did not answer in time"
        if self._run is None and opening.error:
            self._error = opening.error
        self._is_said = False

    def say(self) -> None:
        """Log it, with one attempt."""
        run = self._run
        if run is None:
            return
        try:
            self._log(run)
        except Exception as error:  # noqa: BLE001  # MLflow's and everybody's: the command has ended
            self._error = error_text(error)
        else:
            self._is_said = True
        # As the command ended, whatever it has said itself; also if the rest was refused.
        _terminate(run, self._outcome.run_status)

    def _log(self, run: OpenRun) -> None:
        tracking = connect(run.tracking_uri)
        now_ms = round(time.time() * 1000)
        metrics = self._outcome.metrics(self._prefix)
        entries = [Entry(key, value, now_ms, 0) for key, value in metrics.items()]
        tracking.log(run.run_id, entries, self._outcome.tags(self._prefix))
        if self._late:
            first_step = None if run.is_joined else 0
            log = RunLog(tracking, run.run_id, first_step, key_prefix=self._prefix)
            log.send(self._late)

    def report(self) -> None:
        """Say what was not logged."""
        if self._is_said:
            return
        _logger.warning(
            "The outcome%s could not be logged%s: %s",
            " and the system metrics" if self._run is None or self._late else "",
            f" to run {self._run.run_id}" if self._run is not None else "",
            self._error,
        )

"""From windows to the tracking server: when requests are made, and what happens if they fail.

One thread makes all requests, so a server that hangs holds up nothing else. Windows that cannot be
sent wait in the `Backlog`, and are tried again with growing, random pauses.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

from sysmetrics_native.backlog import Backlog
from sysmetrics_native.endings import surroundings
from sysmetrics_native.private_files import Writer, new_name
from sysmetrics_native.redaction import error_text, without_secrets
from sysmetrics_native.run_log import RunDeletedError, RunLog
from sysmetrics_native.spool import SUFFIX, Origin, Spool, WaitingWindow, spool_folder
from sysmetrics_native.threads import Thread
from sysmetrics_native.tracking import (
    MAX_METRICS_PER_BATCH,
    NO_SUCH_RUN,
    NO_TAGS,
    RUNNING,
    SYSTEM_PREFIX,
    Tracking,
    absolute_uri,
    connect,
    error_code,
    is_permanent,
    load_modules,
)

_logger = logging.getLogger("sysmetrics_native")

T = TypeVar("T")

STATUS_CHECK_SECONDS = (5.0, 15.0)
"""The run's status is asked for once a window, but within these bounds; and not more often than
windows are sent."""
CHECKS_OF_NODES = 3
"""Of several nodes each asks after so many windows, and within bounds so many times as long."""
LONGEST_SHIFT_SECONDS = 10.0
"""Requests of nodes are spread over a window, but over no longer time, or over the interval."""
LOOK_SPREAD_SECONDS = 5.0
"""The first look at the run comes earlier than any metrics of nodes that began together."""
LONG_WAIT_SECONDS = 5.0
"""Windows that wait longer for one another are written down meanwhile."""
LONGEST_BACKOFF_SECONDS = 30.0
SLOW_REQUEST_SECONDS = 5.0
"""A request that takes longer may fail, too, so what waits behind it is written down."""
PAUSE_AT_EXIT_SECONDS = 0.5
END_SECONDS_PER_NODE = 0.025
END_SPREAD_SECONDS = 5.0
"""Nodes end in the same second, too. Their last requests are spread so that each has twice the time
that a server takes for one; over so long at most, and over half of what they have."""
USUAL_NODES = 100
"""Where nobody says how many there are."""
PATIENCE_AT_EXIT_SECONDS = 1.0
"""How long a server that answered so far may take at the end before the rest is written down."""
WRITE_DOWN_SECONDS = 0.25
"""What is kept of the time at the end for that."""


ATTEMPTS_BEFORE_WARNING = 2
"""A request that fails once may have met a connection that the server had just closed."""


class Counts(NamedTuple):
    """What became of the windows of a run."""

    logged: int
    """The server has them."""
    left: int
    """It does not, or did not say so."""
    kept: int
    """So many of those are in a file …"""
    path: str
    """… which is this one; empty if there is none."""


class _RunOverError(Exception):
    """There is nothing more to send, or nobody to send it to."""


class Delivery:
    """Logs windows to one run, in order, and finds out when the run is over.

    Args:
        run_id: the run.
        tracking_uri: the server; see `resolve_uri`.
        spool_dir: the option of this name.
        window_seconds: how long a window is, which decides how many share a request.
        delivery_interval: the option of this name: seconds from one request with metrics to the
            next.
        resume: count steps on from the largest that a system metric of the run has.
        tags: set on the run with its first metrics, in the same request.
        on_run_over: called on the delivery thread when the run has ended or takes no more.
        heeds_status: whether the run has ended when the server says so. Not so where it is
            somebody else who knows.
        clock_tag: the tag that says how far this machine's clock is ahead of the server's; it goes
            with the first metrics after an answer that told. Empty for none.
        key_prefix: of all its metrics; the steps of others do not count for `resume`. Where it
            names one of several nodes, requests are shifted by a random time, because the others
            began at the same moment.
        nodes: how many there are at most; `None` if that is not known.
    """

    def __init__(
        self,
        run_id: str,
        tracking_uri: str | None,
        *,
        spool_dir: str | None,
        window_seconds: float,
        delivery_interval: float,
        resume: bool,
        on_run_over: Callable[[], object],
        tags: Mapping[str, str] = NO_TAGS,
        heeds_status: bool = True,
        clock_tag: str = "",
        key_prefix: str = SYSTEM_PREFIX,
        nodes: int | None = None,
    ) -> None:
        self._run_id = run_id
        self._tracking_uri = resolve_uri(tracking_uri)
        self._recorded_uri = uri_for_files(self._tracking_uri)
        self._tags = tags
        self._clock_tag = clock_tag
        self._key_prefix = key_prefix
        self._spool_dir = spool_dir
        self._place: tuple[str, Writer] | None = None
        self._surroundings = surroundings()
        self._linger = delivery_interval if window_seconds < delivery_interval else 0.0
        self._has_other_nodes = key_prefix != SYSTEM_PREFIX
        shortest, longest = STATUS_CHECK_SECONDS
        windows = CHECKS_OF_NODES if self._has_other_nodes else 1
        seconds = min(max(windows * window_seconds, shortest), windows * longest)
        self._check_seconds = max(seconds, delivery_interval)
        spread = max(delivery_interval, min(window_seconds, LONGEST_SHIFT_SECONDS))
        self._share = _random_share() if self._has_other_nodes else 0.0
        self._shift = self._share * spread
        self._look_after = self._share * min(window_seconds / 2, LOOK_SPREAD_SECONDS)
        self._end_spread = min((nodes or USUAL_NODES) * END_SECONDS_PER_NODE, END_SPREAD_SECONDS)
        self._on_run_over = on_run_over
        self._heeds_status = heeds_status
        self._first_step: int | None = None if resume else 0
        self._succeeds_another = False
        self.was_refused = False
        """Whether the server took no more, and that was said."""
        self._last_error = ""
        self._asking_since = math.inf  # when the request began that is under way
        self._windows_put = 0  # of the thread that puts
        waits_for_long = max(self._linger, self._shift) > LONG_WAIT_SECONDS
        self._backlog = Backlog(self._make_spool, run_id, waits_for_long)
        self._thread = Thread("SystemMetricsDelivery", self._run)
        # Guards what follows. Never held while something else is waited for: a request, the disk.
        self._changed = threading.Condition()
        self._logged = 0
        self._metrics_per_window = 0
        self._send_at = 0.0  # when windows that wait are sent; past for at once
        self._is_hurried = False
        self._last_at = 0.0  # the same, of those that are there when all are
        self._is_complete = False  # no further put
        self._is_over = False  # no further request
        self._discards = False  # nobody will ever take a window of this run
        self._exit_deadline: float | None = None
        self._is_done = False  # the thread has ended

    # ---- for the monitor ------------------------------------------------------------------------

    def prepare(self) -> None:
        """Load what the thread needs, for a `start` on a thread of ours."""
        # Here and not there: a child that is forked while another thread imports a module waits for
        # ever when it imports it, too. Nor may anything be imported at the interpreter's exit.
        importlib.import_module("tenacity")
        load_modules()
        self._find_place()

    def start(self) -> None:
        """Start the thread."""
        self.prepare()
        self._thread.start()

    def succeed_another(self) -> None:
        """Go on where another process has stopped, if the run has not ended; before `start`."""
        self._first_step = None
        self._succeeds_another = True

    def put(self, timestamp_ms: int, metrics: Mapping[str, float]) -> None:
        """Hand over a window; waits while there is room for it neither on disk nor in memory."""
        with self._changed:
            self._changed.wait_for(lambda: not self._backlog.is_full() or self._is_exiting())
            if self._discards:
                return
            if self._windows_put == 0 or not (self._linger or self._backlog):
                self._send_at = time.monotonic() + self._shift
        self._backlog.put(WaitingWindow(self._windows_put, timestamp_ms, metrics))
        self._windows_put += 1
        if time.monotonic() - self._asking_since > SLOW_REQUEST_SECONDS:
            self._backlog.keep_on_disk()
        with self._changed:
            self._metrics_per_window = len(metrics)
            # Else the thread knows when to wake.
            if len(self._backlog) == 1 or self._fills_a_request():
                self._changed.notify_all()

    def hurry(self) -> None:
        """Let the last windows go at once, whatever other nodes do: we may not live for long."""
        with self._changed:
            self._is_hurried = True
            self._last_at = 0.0
            self._changed.notify_all()

    def put_last(self) -> None:
        """Say that no further window will come: what waits is sent now.

        Waits for that, a little and no longer than `close` allows, and then writes down the rest.
        """
        if self._has_other_nodes:  # a server that many ask at once may have no time for us
            self._backlog.keep_on_disk()
        with self._changed:
            self._is_complete = True
            if not self._is_hurried:
                self._last_at = time.monotonic() + self._share * self._seconds_for_last()
            self._changed.notify_all()
            if self._thread.is_alive():
                self._changed.wait_for(lambda: self._is_done, self._seconds_before_writing_down())
        if self._is_exiting():
            self._leave_the_rest()
        elif self._backlog:
            self._backlog.keep_on_disk()

    def _seconds_for_last(self) -> float:
        if self._exit_deadline is None:
            return self._end_spread
        return max(0.0, min(self._end_spread, (self._exit_deadline - time.monotonic()) / 2))

    def _seconds_before_writing_down(self) -> float:
        seconds = PATIENCE_AT_EXIT_SECONDS
        if self._exit_deadline is not None:
            seconds = min(seconds, self._exit_deadline - time.monotonic() - WRITE_DOWN_SECONDS)
        return max(0.0, seconds)

    def _leave_the_rest(self) -> None:
        if self._backlog:
            self._backlog.release(self._last_error or "the server did not answer in time")

    def close(self, deadline: float) -> None:
        """Make no request after a time of the monotonic clock."""
        with self._changed:
            self._exit_deadline = deadline
            self._changed.notify_all()

    def wait(self, deadline: float) -> None:
        """Wait until everything was sent, at most to the deadline; from then on nothing is."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_done, max(0.0, deadline - time.monotonic()))
            self._is_over = True
            self._changed.notify_all()

    def counts(self) -> Counts:
        """What became of the windows so far. Waits for nobody."""
        kept, path = self._backlog.on_disk()
        return Counts(self._logged, len(self._backlog), kept, path)

    def is_done(self) -> bool:
        """Whether there will be no further request. Waits for nobody."""
        return self._is_done

    def _is_exiting(self) -> bool:
        return self._is_over or self._exit_deadline is not None

    def _find_place(self) -> tuple[str, Writer]:
        """The folder of a spool, and who writes there."""
        self._place = spool_folder(self._spool_dir), Writer.this_process()
        return self._place

    def _make_spool(self) -> Spool:
        folder, writer = self._place or self._find_place()
        origin = Origin(
            self._run_id,
            self._recorded_uri,
            self._first_step,
            writer,
            time.time(),
            self._surroundings,
            self._tags,
        )
        return Spool(os.path.join(folder, new_name(self._run_id, SUFFIX)), origin)

    # ---- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._serve()
        except _RunOverError:
            pass
        except Exception:  # a bug of ours must end delivery with a trace, and nothing else
            _logger.exception("Stopped logging system metrics of run %s", self._run_id)
        with self._changed:
            self._is_over = True
            self._is_done = True
            self._changed.notify_all()
        self._on_run_over()
        self._leave_the_rest()

    def _serve(self) -> None:
        tracking = self._request(partial(connect, self._tracking_uri))
        log = RunLog(
            tracking, self._run_id, self._first_step, self._tags, key_prefix=self._key_prefix
        )
        if self._has_other_nodes and not self._succeeds_another:
            self._look_early(log)
        next_check = time.monotonic() + self._check_seconds
        while True:
            batch = self._next_batch(next_check, MAX_METRICS_PER_BATCH - log.waiting_tags())
            if batch:
                if self._succeeds_another and log.first_step is None:
                    self._go_on(log)
                self._request(partial(log.send, batch))
                self._note_clock(tracking, log)
                self._take_off(batch, log.first_step)
            elif self._has_sent_all():
                return
            if not self._is_complete and time.monotonic() >= next_check:
                next_check = time.monotonic() + self._check_seconds
                self._request(partial(self._check_status, log))

    def _look_early(self, log: RunLog) -> None:
        """Ask for the run while its state is short: before the other nodes have logged to it."""
        with self._changed:
            seconds = self._look_after
            if self._changed.wait_for(lambda: self._is_complete or self._is_exiting(), seconds):
                return
        state = self._request(log.state)
        if log.first_step is None:
            log.first_step = log.next_step(state)

    def _go_on(self, log: RunLog) -> None:
        """Find out where the process before has stopped.

        Raises:
            _RunOverError: it has stopped because the run has ended.
        """
        state = self._request(log.state)
        if state.status != RUNNING and self._heeds_status:
            self._discards = True
            self._backlog.clear()
            raise _RunOverError
        log.first_step = log.next_step(state)

    def _note_clock(self, tracking: Tracking, log: RunLog) -> None:
        """Once; no request is made for it."""
        if self._clock_tag and tracking.clock_offset_seconds is not None:
            log.add_tags({self._clock_tag: f"{tracking.clock_offset_seconds:.1f}"})
            self._clock_tag = ""

    def _next_batch(self, next_check: float, most_metrics: int) -> list[WaitingWindow]:
        """Windows to be sent now; none when it is time to look at the run, or at the end."""
        with self._changed:
            while not (self._is_over or self._is_due() or self._has_sent_all()):
                seconds = self._wake_at(next_check) - time.monotonic()
                if seconds <= 0.0:
                    break
                self._changed.wait(seconds)
            if self._is_over:
                raise _RunOverError
            is_due = self._is_due()
        return self._backlog.oldest(most_metrics) if is_due else []

    def _wake_at(self, next_check: float) -> float:
        if self._is_complete:
            return self._last_at
        return min(self._send_at, next_check) if self._backlog else next_check

    def _has_sent_all(self) -> bool:
        return self._is_complete and not self._backlog

    def _is_due(self) -> bool:
        """Whether there are windows that need not linger."""
        if not self._backlog:
            return False
        if self._is_complete:
            return time.monotonic() >= self._last_at
        return time.monotonic() >= self._send_at or self._fills_a_request()

    def _fills_a_request(self) -> bool:
        return len(self._backlog) * self._metrics_per_window >= MAX_METRICS_PER_BATCH

    def _take_off(self, batch: list[WaitingWindow], first_step: int | None) -> None:
        """Only now that the server has them."""
        if first_step is not None and self._first_step is None:
            self._first_step = first_step
            self._backlog.note_first_step(first_step)
        self._backlog.drop_sent(batch)
        with self._changed:
            self._logged += len(batch)
            self._send_at = time.monotonic() + self._linger
            self._changed.notify_all()

    def _check_status(self, log: RunLog) -> None:
        status = log.status()  # raises if the run is gone
        if status != RUNNING and self._heeds_status:
            _logger.info("Run %s is %s: its system metrics end here.", self._run_id, status)
            self._on_run_over()  # stops the sampling; the windows there are still reach the run

    # ---- requests that may fail -----------------------------------------------------------------

    def _request(self, request: Callable[[], T]) -> T:
        """Make a request until it succeeds, fails for good, or the time at exit is over.

        Raises:
            _RunOverError: it failed for good, or time is over.
        """
        import tenacity  # not above: a Sampler alone must not pay for it

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: not _is_final(error)),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_BACKOFF_SECONDS),
            stop=lambda _: self._is_time_over(),
            sleep=self._back_off,
            before_sleep=self._take_failure,
            reraise=True,
        )
        self._asking_since = time.monotonic()
        try:
            answer = retrying(request)
        except Exception as error:
            self._last_error = error_text(error)
            if _is_final(error):
                self._take_refusal(error)
            raise _RunOverError from error
        finally:
            self._asking_since = math.inf
        if retrying.statistics.get("attempt_number", 1) > ATTEMPTS_BEFORE_WARNING:
            _logger.info("System metrics of run %s are logged again.", self._run_id)
        return answer

    def _is_time_over(self) -> bool:
        deadline = self._exit_deadline
        return self._is_over or (deadline is not None and time.monotonic() >= deadline)

    def _back_off(self, seconds: float) -> None:
        """Sleep between two attempts; when the exit begins the next one comes at once."""
        with self._changed:
            if self._is_exiting():
                self._changed.wait_for(lambda: self._is_over, min(seconds, PAUSE_AT_EXIT_SECONDS))
            else:
                self._changed.wait_for(self._is_exiting, seconds)

    def _take_failure(self, state: Any) -> None:
        """From the first on nothing waits in memory alone; one that heals at once is no news."""
        self._last_error = error_text(state.outcome.exception())
        self._backlog.keep_on_disk()
        if state.attempt_number == ATTEMPTS_BEFORE_WARNING:
            _logger.warning(
                "Cannot log system metrics of run %s now, will keep them and try again: %s",
                self._run_id,
                self._last_error,
            )

    def _take_refusal(self, error: BaseException) -> None:
        consequence = ""
        if isinstance(error, RunDeletedError) or error_code(error) == NO_SUCH_RUN:
            self._discards = True
            self._backlog.clear()
        else:  # with other credentials, or behind a proxy that is mended, it may be taken
            self._backlog.keep_on_disk()
            consequence = " What was not logged is kept; once it may be logged, send it with: "
            consequence += recover_command(self.counts().path)
        self.was_refused = True
        _logger.warning(
            "Stopped monitoring system metrics of run %s: %s.%s",
            self._run_id,
            self._last_error.rstrip("."),
            consequence,
        )


def _random_share() -> float:
    """From 0 to 1, whatever seed the program has set for all its ranks."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


def recover_command(path: str) -> str:
    """What a user types to have a file sent."""
    return shlex.join(["sysmetrics-native", "recover", *([path] if path else [])])


def _is_final(error: BaseException) -> bool:
    return isinstance(error, RunDeletedError) or is_permanent(error)


def uri_for_files(tracking_uri: str) -> str:
    """A tracking URI for files, which others may see and which may be read in another folder."""
    return without_secrets(absolute_uri(tracking_uri))


def resolve_uri(tracking_uri: str | None) -> str:
    """A tracking URI, where none is given the one that is set in MLflow now.

    MlflowClient would find it when it is made, but that must not wait for a thread.

    Raises:
        ModuleNotFoundError: MLflow is not installed, and it is the one to ask.
    """
    if tracking_uri:
        return tracking_uri
    try:
        import mlflow
    except ModuleNotFoundError as error:
        if error.name != "mlflow":
            raise
        raise ModuleNotFoundError(
            "logging system metrics needs MLflow, which is not installed: "
            "pip install 'mlflow>=2.9'",
            name="mlflow",
        ) from None
    return str(mlflow.get_tracking_uri())

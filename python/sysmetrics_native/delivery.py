"""From windows to the tracking server: order, batches, retries, bounded memory.

One thread makes all requests, so a server that hangs holds up nothing else. While windows cannot be
delivered they wait here; when there are too many `put` waits, and the windows that close meanwhile
merge in the sampler's own queue, whose memory is bounded too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_logger = logging.getLogger("sysmetrics_native")

T = TypeVar("T")

MAX_METRICS_PER_BATCH = 1000
"""MLflow's own limit of a `log_batch`."""
MAX_WAITING_WINDOWS = 4096
LINGER_SECONDS = 5.0
"""Windows that are shorter than this share requests: as many as one may hold, or this long."""
STATUS_CHECK_SECONDS = (5.0, 15.0)
"""The run's status is asked for once a window, but within these bounds."""
LONGEST_BACKOFF_SECONDS = 30.0
PAUSE_AT_EXIT_SECONDS = 0.5

_PERMANENT_ERRORS = frozenset(
    {
        "BAD_REQUEST",
        "ENDPOINT_NOT_FOUND",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "PERMISSION_DENIED",
        "RESOURCE_DOES_NOT_EXIST",
        "UNAUTHENTICATED",
    }
)
"""Error codes of MLflow that do not heal by trying again."""


class _Waiting(NamedTuple):
    """A window's metrics on their way."""

    timestamp_ms: int
    values: Sequence[tuple[str, float]]


class _RunOverError(Exception):
    """The run takes no more metrics."""


class Delivery:
    """Logs windows to one run, in order, and finds out when the run is over.

    Args:
        run_id: the run.
        tracking_uri: the server, or `None` for the one that is set in MLflow now.
        window_seconds: how long a window is, which decides how many share a request.
        resume: count steps on from the largest that a system metric of the run has.
        on_run_over: called on the delivery thread when the run has ended or takes no more.
    """

    def __init__(
        self,
        run_id: str,
        tracking_uri: str | None,
        *,
        window_seconds: float,
        resume: bool,
        on_run_over: Callable[[], object],
    ) -> None:
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

        self._run_id = run_id
        # MlflowClient resolves None when it is made; that must not wait for the thread.
        self._tracking_uri = tracking_uri or mlflow.get_tracking_uri()
        self._linger = LINGER_SECONDS if window_seconds < LINGER_SECONDS else 0.0
        shortest, longest = STATUS_CHECK_SECONDS
        self._check_seconds = min(max(window_seconds, shortest), longest)
        self._on_run_over = on_run_over
        self._next_step: int | None = None if resume else 0
        self._thread = threading.Thread(target=self._run, name="SystemMetricsDelivery", daemon=True)
        self._changed = threading.Condition()  # guards what follows
        self._waiting: deque[_Waiting] = deque()
        self._send_at = 0.0  # the first window goes at once
        self._is_complete = False  # no further put
        self._is_over = False  # no further request
        self._exit_deadline: float | None = None
        self._is_done = False  # the thread has ended
        self._logged = 0

    # ---- for the monitor ------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, timestamp_ms: int, values: Sequence[tuple[str, float]]) -> None:
        """Hand over a window; waits while too many are on their way."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._waiting) < MAX_WAITING_WINDOWS or self._is_exiting()
            )
            if self._is_over:
                return
            self._waiting.append(_Waiting(timestamp_ms, values))
            # Else the thread knows when to wake.
            if len(self._waiting) == 1 or self._fills_a_request():
                self._changed.notify_all()

    def put_last(self) -> None:
        """Say that no further window will come: what waits is sent now."""
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()

    def close(self, deadline: float) -> None:
        """Be done by a time of the monotonic clock."""
        with self._changed:
            self._exit_deadline = deadline
            self._changed.notify_all()

    def wait(self, deadline: float) -> tuple[int, int]:
        """Wait for the thread, at most to the deadline.

        Returns:
            How many windows were logged, and how many could not be.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_done, max(0.0, deadline - time.monotonic()))
            self._is_over = True
            self._changed.notify_all()
            return self._logged, len(self._waiting)

    def _is_exiting(self) -> bool:
        return self._is_over or self._exit_deadline is not None

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

    def _serve(self) -> None:
        from mlflow.tracking import MlflowClient

        client = self._request(partial(MlflowClient, self._tracking_uri))
        next_check = time.monotonic() + self._check_seconds
        while True:
            batch = self._next_batch(next_check)
            if batch:
                self._request(partial(self._log, client, batch))
            elif self._is_complete and not self._waiting:
                return
            if not self._is_complete and time.monotonic() >= next_check:
                next_check = time.monotonic() + self._check_seconds
                self._request(partial(self._check_status, client))

    def _next_batch(self, next_check: float) -> list[_Waiting]:
        """Windows to be sent now; none when it is time to look at the run, or at the end."""
        with self._changed:
            while not self._is_complete and not self._is_over and not self._is_due():
                wake_at = min(self._send_at, next_check) if self._waiting else next_check
                seconds = wake_at - time.monotonic()
                if seconds <= 0.0:
                    break
                self._changed.wait(seconds)
            if self._is_over:
                raise _RunOverError
            return self._first_waiting() if self._is_due() else []

    def _is_due(self) -> bool:
        """Whether there are windows that need not linger."""
        if not self._waiting:
            return False
        is_late = time.monotonic() >= self._send_at
        return self._is_complete or is_late or self._fills_a_request()

    def _fills_a_request(self) -> bool:
        return len(self._waiting) * len(self._waiting[0].values) >= MAX_METRICS_PER_BATCH

    def _first_waiting(self) -> list[_Waiting]:
        """As many windows as one request may hold, and one at least. They stay in the queue."""
        batch: list[_Waiting] = []
        metrics = 0
        for window in self._waiting:
            metrics += len(window.values)
            if batch and metrics > MAX_METRICS_PER_BATCH:
                break
            batch.append(window)
        return batch

    def _log(self, client: MlflowClient, batch: list[_Waiting]) -> None:
        """Send a batch, and only then take it off the queue."""
        from mlflow.entities import Metric

        if self._next_step is None:
            self._next_step = _step_to_resume_at(client, self._run_id)
        metrics = [
            Metric(key, value, window.timestamp_ms, self._next_step + index)
            for index, window in enumerate(batch)
            for key, value in window.values
        ]
        for first in range(0, len(metrics), MAX_METRICS_PER_BATCH):
            chunk = metrics[first : first + MAX_METRICS_PER_BATCH]
            client.log_batch(self._run_id, metrics=chunk, synchronous=True)
        self._next_step += len(batch)
        with self._changed:
            self._logged += len(batch)
            for _ in batch:
                self._waiting.popleft()
            self._send_at = time.monotonic() + self._linger
            self._changed.notify_all()

    def _check_status(self, client: MlflowClient) -> None:
        status = client.get_run(self._run_id).info.status
        if status != "RUNNING":
            _logger.info("Run %s is %s: its system metrics end here.", self._run_id, status)
            self._on_run_over()  # stops the sampling; the windows there are still reach the run

    # ---- requests that may fail -----------------------------------------------------------------

    def _request(self, request: Callable[[], T]) -> T:
        """Make a request until it succeeds, fails for good, or the time at exit is over.

        Raises:
            _RunOverError: it failed for good, or time is over.
        """
        # Imported here: a Sampler alone must not pay for it.
        import tenacity

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: not _is_permanent(error)),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_BACKOFF_SECONDS),
            stop=lambda _: self._is_time_over(),
            sleep=self._back_off,
            before_sleep=self._report_first_failure,
            reraise=True,
        )
        try:
            answer = retrying(request)
        except Exception as error:
            if _is_permanent(error):
                _logger.warning(
                    "Stopped monitoring system metrics of run %s: %s", self._run_id, error
                )
                with self._changed:
                    self._waiting.clear()
            raise _RunOverError from error
        if retrying.statistics.get("attempt_number", 1) > 1:
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

    def _report_first_failure(self, state: Any) -> None:
        if state.attempt_number == 1:
            _logger.warning(
                "Cannot log system metrics of run %s now, will keep them and try again: %s",
                self._run_id,
                state.outcome.exception(),
            )


def _is_permanent(error: BaseException) -> bool:
    return getattr(error, "error_code", None) in _PERMANENT_ERRORS


def _step_to_resume_at(client: MlflowClient, run_id: str) -> int:
    """One more than the largest step of any system metric of the run."""
    # The run carries the latest entry of each metric; asking for histories could mean gigabytes.
    latest = client.get_run(run_id).data._metric_objs
    steps = [metric.step for metric in latest if metric.key.startswith("system/")]
    return max(steps, default=-1) + 1

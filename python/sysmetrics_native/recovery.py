"""Sends what runs have left behind: spools, and recordings of processes that were killed.

What is missing is found by asking the server for what it has. So it can be stopped at any moment
and repeated without harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from sysmetrics_native.leftovers import Leftover, LeftoverWindow
from sysmetrics_native.redaction import without_secrets
from sysmetrics_native.run_log import RunDeletedError, RunLog
from sysmetrics_native.tracking import (
    MAX_METRICS_PER_BATCH,
    Entry,
    Tracking,
    absolute_uri,
    connect,
    is_permanent,
)

Report = Callable[[int, int], object]
"""Told how many windows were sent, and of how many."""

ATTEMPTS = 4
LONGEST_PAUSE_SECONDS = 10.0
_ROUNDING_MS = 2


class Plan(NamedTuple):
    """What the server lacks of a leftover."""

    windows: int
    """How many windows are to be sent."""
    first_ms: int
    last_ms: int
    """When the first and the last of them ended, in Unix milliseconds."""
    gap_seconds: float
    """Time before the first that is in no file and not on the server either."""
    first_step: int
    """The step of window 0."""
    arrived: Mapping[str, int]
    """Of each metric the number of the last window that the server has."""

    def entries(self, window: LeftoverWindow) -> list[Entry]:
        """What of a window is to be sent."""
        step = self.first_step + window.number
        return [
            Entry(key, value, window.end_ms, step)
            for key, value in window.metrics.items()
            if window.number > self.arrived.get(key, -1)
        ]


def connect_for(leftover: Leftover, tracking_uri: str | None) -> Tracking:
    """The server that a leftover is to be sent to.

    Args:
        leftover: says which server it was.
        tracking_uri: says otherwise. Without it the one that is set in MLflow now is taken if it is
            the same but for what files do not say: a user name, a password, a token.
    """
    if tracking_uri is None:
        import mlflow

        current = str(mlflow.get_tracking_uri())
        is_same = without_secrets(absolute_uri(current)) == leftover.tracking_uri
        tracking_uri = current if is_same else leftover.tracking_uri
    return connect(tracking_uri)


def make_plan(leftover: Leftover, tracking: Tracking) -> Plan:
    """Ask the server what it has of a leftover. Sends nothing.

    Raises:
        Exception: what MLflow raises.
        RunDeletedError: the run was deleted.
    """
    state = RunLog(tracking, leftover.run_id, None).state()
    keys = {key for window in leftover.windows() for key in window.metrics}
    stored = {
        key: {entry.timestamp_ms: entry.step for entry in tracking.history(leftover.run_id, key)}
        for key in sorted(keys & state.latest.keys())
    }
    arrived: dict[str, int] = {}
    last_arrived: LeftoverWindow | None = None
    first_step = leftover.first_step
    for window in leftover.windows():
        for key in window.metrics:
            step = stored.get(key, {}).get(window.end_ms)
            if step is not None:
                # Windows arrive in order, so the server has all of this metric up to here.
                arrived[key] = window.number
                last_arrived = window
                first_step = step - window.number
    if first_step is None or (stored and not arrived and not leftover.counts_all_windows):
        first_step = state.next_step()
    latest_ms = max((state.latest[key].timestamp_ms for key in stored), default=None)
    return _measure(
        leftover,
        Plan(0, 0, 0, 0.0, first_step, arrived),
        latest_ms if last_arrived is None else last_arrived.end_ms,
    )


def _measure(leftover: Leftover, plan: Plan, before_ms: int | None) -> Plan:
    """Count what is to be sent; the server has everything up to `before_ms`."""
    for window in leftover.windows():
        if not plan.entries(window):
            continue
        if plan.windows == 0:
            gap = 0.0
            if before_ms is not None and window.start_ms is not None:
                gap = max(0.0, (window.start_ms - before_ms - _ROUNDING_MS) / 1000)
            plan = plan._replace(first_ms=window.end_ms, gap_seconds=gap)
        plan = plan._replace(windows=plan.windows + 1, last_ms=window.end_ms)
    return plan


def send(leftover: Leftover, tracking: Tracking, plan: Plan, report: Report) -> None:
    """Send what the plan says and mark the leftover as done.

    Args:
        leftover: where the windows are.
        tracking: the server.
        plan: made just before, by `make_plan`.
        report: told how many windows were sent, and of how many.

    Raises:
        Exception: what MLflow raises. What arrived until then is not sent again the next time.
    """
    log = RunLog(tracking, leftover.run_id, plan.first_step, leftover.tags)
    leftover.mark_first_step(plan.first_step)
    sent = 0
    report(sent, plan.windows)
    for batch, windows, through in _batches(leftover, plan):
        log.send_entries(batch)
        leftover.mark_sent(through)
        sent += windows
        report(sent, plan.windows)
    leftover.mark_done()


def _batches(leftover: Leftover, plan: Plan) -> Iterator[tuple[list[Entry], int, int]]:
    """Entries for one request, of how many windows they are, and the number behind the last."""
    batch: list[Entry] = []
    windows = 0
    through = 0
    for window in leftover.windows():
        entries = plan.entries(window)
        if batch and len(batch) + len(entries) > MAX_METRICS_PER_BATCH:
            yield batch, windows, through
            batch, windows = [], 0
        batch += entries
        windows += bool(entries)
        through = window.number + 1
    if batch:
        yield batch, windows, through


def recover(leftover: Leftover, tracking_uri: str | None, report: Report) -> Plan:
    """Send one leftover, and try again where that may help.

    Args:
        leftover: what is to be sent.
        tracking_uri: the server; the one that the run was logged to unless given.
        report: told how many windows were sent, and of how many.

    Returns:
        What there was to be sent.

    Raises:
        Exception: what MLflow raises, after several attempts or where they would be to no avail.
    """
    import tenacity

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(
            lambda error: not (isinstance(error, RunDeletedError) or is_permanent(error))
        ),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE_SECONDS),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        reraise=True,
    )
    first: Plan | None = None
    for attempt in retrying:
        with attempt:
            tracking = connect_for(leftover, tracking_uri)
            plan = make_plan(leftover, tracking)
            first = first or plan
            send(leftover, tracking, plan, report)
    assert first is not None  # else the last attempt has raised
    return first

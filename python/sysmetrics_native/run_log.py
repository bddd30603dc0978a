"""Logs windows to one run, each value once, whatever fails in between."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence

from sysmetrics_native.redaction import error_text
from sysmetrics_native.spool import WaitingWindow
from sysmetrics_native.tracking import (
    MAX_METRICS_PER_BATCH,
    NO_TAGS,
    REFUSED_CONTENT,
    RUNNING,
    Entry,
    RunState,
    Tracking,
    error_code,
    why_no_key,
)

_logger = logging.getLogger("sysmetrics_native")


MANY_METRICS = 100
"""From so many on the state of a run is long."""


class RunDeletedError(Exception):
    """The run was deleted, so it takes no metrics."""


class RunLog:
    """One run on one tracking server.

    A request that failed may have arrived all the same, and a store that appends would have its
    values twice if they were sent again. So after a failure the server is asked for the latest
    entry of each metric first, and what it has is not sent again.

    Args:
        tracking: the server.
        run_id: the run.
        first_step: the step of window 0; `None` to go on behind the largest step of any system
            metric, which the server is asked for when it is needed.
        tags: set on the run with the first request that logs something. To set them twice does no
            harm.
        is_shared: whether other nodes log to the run as well, so that it has many metrics.
    """

    def __init__(
        self,
        tracking: Tracking,
        run_id: str,
        first_step: int | None,
        tags: Mapping[str, str] = NO_TAGS,
        *,
        is_shared: bool = False,
    ) -> None:
        self._tracking = tracking
        self._run_id = run_id
        self.first_step = first_step
        self._tags = tags  # that the server may not have
        self._experiment_id = ""
        self._is_large = is_shared  # or will be, once the others have logged
        self._in_doubt = False
        self._keys: dict[str, bool] = {}  # whether MLflow takes it

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Set these, too, with the next request that logs something."""
        self._tags = {**self._tags, **tags}

    def waiting_tags(self) -> int:
        """How many tags the next request that logs something will set."""
        return len(self._tags)

    def send(self, windows: Sequence[WaitingWindow]) -> None:
        """Log windows that follow those sent before.

        Raises:
            Exception: what MLflow raises; where that can heal, send the same windows again.
            RunDeletedError: it cannot.
        """
        if self.first_step is None:
            self.first_step = self.state().next_step()
        entries = list(_entries(windows, self.first_step))
        if self._in_doubt:
            entries = _not_yet_there(entries, self.state().latest)
        self._in_doubt = True  # until it is known what became of them
        self.send_entries(entries)
        self._in_doubt = False

    def state(self) -> RunState:
        """The run as the server sees it.

        Raises:
            RunDeletedError: there is none any more.
        """
        state = self._tracking.run(self._run_id)
        if state.is_deleted:
            raise RunDeletedError("the run was deleted")
        self._experiment_id = state.experiment_id
        self._is_large = self._is_large or len(state.latest) > MANY_METRICS
        return state

    def status(self) -> str:
        """The run's status, for which no more is asked than is needed.

        Raises:
            RunDeletedError: there is none any more.
        """
        if self._is_large and self._tracking.is_surely_running(self._run_id, self._experiment_id):
            return RUNNING
        return self.state().status

    def send_entries(self, entries: Sequence[Entry]) -> None:
        """Log entries as they are, but for those that MLflow refuses; and set the tags."""
        sound = [entry for entry in entries if self._is_sound(entry)]
        while sound or self._tags:
            room = MAX_METRICS_PER_BATCH - len(self._tags)
            self._send_batch(sound[:room])
            sound = sound[room:]

    # ---- what MLflow refuses --------------------------------------------------------------------

    def _is_sound(self, entry: Entry) -> bool:
        if entry.key not in self._keys:
            self._keys[entry.key] = True
            reason = why_no_key(entry.key)
            if reason is not None:
                self._refuse(entry.key, reason)
        return self._keys[entry.key] and math.isfinite(entry.value)

    def _refuse(self, key: str, reason: str) -> None:
        self._keys[key] = False
        _logger.warning(
            "MLflow does not take the metric %r, so it is not logged to run %s: %s",
            key,
            self._run_id,
            reason,
        )

    def _send_batch(self, batch: Sequence[Entry]) -> None:
        try:
            self._tracking.log(self._run_id, batch, self._tags)
        except Exception as error:
            if error_code(error) not in REFUSED_CONTENT:
                raise
            self.state()  # a run that is gone refuses everything, and nothing is wrong with a key
            if self._tags:
                self._send_without_tags(batch, error)
            else:
                self._send_in_parts(batch, error)
        else:
            self._tags = NO_TAGS

    def _send_in_parts(self, batch: Sequence[Entry], error: Exception) -> None:
        """Log what can be of a batch of metrics that was refused."""
        refused = self._send_what_is_taken(batch, error)
        if len(refused) == len({entry.key for entry in batch}):
            raise error
        for key, reason in refused.items():
            self._refuse(key, error_text(reason))

    def _send_without_tags(self, batch: Sequence[Entry], error: Exception) -> None:
        """Log a batch that was refused with tags; they are to blame if it is taken without."""
        try:
            if batch:
                self._tracking.log(self._run_id, batch)
        except Exception as reason:
            if error_code(reason) not in REFUSED_CONTENT:
                raise
            self._send_in_parts(batch, reason)  # and the tags with another batch
            return
        _logger.warning(
            "MLflow does not take the tags %s, so they are not set on run %s: %s",
            ", ".join(self._tags),
            self._run_id,
            error_text(error),
        )
        self._tags = NO_TAGS

    def _send_what_is_taken(self, batch: Sequence[Entry], error: Exception) -> dict[str, Exception]:
        """Log the metrics of a refused batch that are not to blame; returns those that are."""
        keys = sorted({entry.key for entry in batch})
        if len(keys) == 1:
            return {keys[0]: error}
        refused: dict[str, Exception] = {}
        for some in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
            half = [entry for entry in batch if entry.key in some]
            try:
                self._tracking.log(self._run_id, half)
            except Exception as reason:
                if error_code(reason) not in REFUSED_CONTENT:
                    raise
                refused |= self._send_what_is_taken(half, reason)
        return refused


def _entries(windows: Sequence[WaitingWindow], first_step: int) -> Iterator[Entry]:
    for window in windows:
        for key, value in window.metrics.items():
            yield Entry(key, value, window.timestamp_ms, first_step + window.number)


def _not_yet_there(entries: Sequence[Entry], latest: Mapping[str, Entry]) -> list[Entry]:
    """What the server lacks of entries of which it may have taken a part, in order."""
    # Where the latest entry of a metric is one of these, it has all before it, too.
    arrived = {
        entry.key: entry.step
        for entry in entries
        if entry.key in latest and latest[entry.key][2:] == (entry.timestamp_ms, entry.step)
    }
    return [entry for entry in entries if entry.step > arrived.get(entry.key, -1)]

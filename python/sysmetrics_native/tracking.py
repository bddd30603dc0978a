"""What this package asks of a tracking server, and how its refusals are told from its outages.

For `http` and `https` the requests are MLflow's own (`mlflow.utils.rest_utils.http_request`, so its
credentials, headers and certificates apply), but each is made once: MLflow's client would send a
batch again after a failure that may well have been a success, and for minutes. Everything else,
`databricks` included, goes through `MlflowClient` untouched.
"""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

MAX_METRICS_PER_BATCH = 1000
"""MLflow's own limit of a `log_batch`; tags count, too."""
MAX_KEY_LENGTH = 250
"""MLflow's own limit of a metric's key."""

NO_TAGS: Mapping[str, str] = {}

SYSTEM_PREFIX = "system/"

_REQUEST_TIMEOUT_SECONDS = 30.0
"""Of one request, unless ``MLFLOW_HTTP_REQUEST_TIMEOUT`` says otherwise."""
SLOW_SEARCH_RATIO = 8.0
SLOW_SEARCH_SECONDS = 0.5
"""A search that takes so many times as long as the request before it, and that long, is not done
again."""
_MODULES = (
    "email.utils",
    "mlflow.entities",
    "mlflow.environment_variables",
    "mlflow.store.tracking.rest_store",
    "mlflow.utils.rest_utils",
    "mlflow.utils.validation",
)
_LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
_GET_RUN = "/api/2.0/mlflow/runs/get"
_SEARCH_RUNS = "/api/2.0/mlflow/runs/search"

_NAMES_OF_SERVERS = ("databricks", "databricks-uc", "uc")
"""Tracking URIs of one word that are no folder."""

RUNNING = "RUNNING"
"""The status of a run that goes on."""
REFUSED_CONTENT = frozenset({"BAD_REQUEST", "INVALID_PARAMETER_VALUE"})
"""Error codes for what was sent, or for a run that takes nothing."""
NO_SUCH_RUN = "RESOURCE_DOES_NOT_EXIST"
"""Error code of MLflow itself for a run that it does not know."""
_PERMANENT = REFUSED_CONTENT | {
    "ENDPOINT_NOT_FOUND",
    "INVALID_STATE",
    NO_SUCH_RUN,
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
}


class Entry(NamedTuple):
    """One value of a metric as MLflow stores it."""

    key: str
    value: float
    timestamp_ms: int
    step: int


class RunState(NamedTuple):
    """What a server says of a run."""

    status: str
    """`RUNNING`, ``FINISHED``, …"""
    is_deleted: bool
    latest: Mapping[str, Entry]
    """Of every metric the entry with the largest step."""
    experiment_id: str = ""
    """Where the run is; empty if that was not said."""

    def next_step(self) -> int:
        """One more than the largest step of any system metric."""
        steps = [
            entry.step for entry in self.latest.values() if entry.key.startswith(SYSTEM_PREFIX)
        ]
        return max(steps, default=-1) + 1


# ---- refusals -----------------------------------------------------------------------------------


def error_code(error: BaseException) -> str | None:
    """MLflow's name for what went wrong, where it has one."""
    code = getattr(error, "error_code", None)
    return code if isinstance(code, str) else None


def is_permanent(error: BaseException) -> bool:
    """Whether to try again would be to no avail."""
    return error_code(error) in _PERMANENT


def why_no_key(key: str) -> str | None:
    """What MLflow would refuse in a metric's key, or `None`.

    One refused metric makes the server refuse the whole batch, so it must not be in one.
    """
    if len(key) > MAX_KEY_LENGTH:
        return f"it has more than {MAX_KEY_LENGTH} characters"
    try:
        from mlflow.utils.validation import _validate_metric_name
    except ImportError:  # an MLflow that keeps it elsewhere: then the server will tell
        return None
    try:
        _validate_metric_name(key)
    except Exception as error:  # noqa: BLE001  # MlflowException, whose import would cost a second
        return str(error)
    return None


# ---- where --------------------------------------------------------------------------------------

_RELATIVE_DATABASE = re.compile(r"(sqlite(?:\+\w+)?:///)(?![/:]|$|[A-Za-z]:)(.*)", re.DOTALL)


def absolute_uri(tracking_uri: str) -> str:
    """The tracking URI so that it means the same in every folder.

    A SQLite file and a folder of the file store may be named from the current folder; whoever
    sends what a process has left is in another one.
    """
    found = _RELATIVE_DATABASE.fullmatch(tracking_uri)
    if found is not None:
        path, mark, query = found.group(2).partition("?")
        return f"{found.group(1)}{os.path.abspath(path)}{mark}{query}"
    if ":" not in tracking_uri and tracking_uri not in _NAMES_OF_SERVERS:
        return os.path.abspath(tracking_uri)
    return tracking_uri


# ---- clocks -------------------------------------------------------------------------------------


def clock_offset_seconds(server_date: str, before: float, after: float) -> float | None:
    """How far this machine's clock is ahead of a server's, from one of its answers.

    The header ``Date`` (RFC 9110) has whole seconds, cut off: it means half a second later, give or
    take half a second; and it was made at some moment of the request, whose middle is taken. So the
    result is right to within half a second and half of what the request took.

    Args:
        server_date: that header.
        before: this machine's Unix time when the request was made.
        after: and when the answer was there.

    Returns:
        Seconds, negative where this clock is behind; `None` if that is no date.
    """
    from email.utils import parsedate_to_datetime  # loaded by everybody who talks to a server

    try:
        server = parsedate_to_datetime(server_date).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return round((before + after) / 2 - (server + 0.5), 1)


# ---- servers ------------------------------------------------------------------------------------


class Tracking:
    """A tracking server or store, through MLflow's client.

    Its methods raise what MLflow raises; see `is_permanent`.
    """

    clock_offset_seconds: float | None = None
    """How far this machine's clock is ahead of the server's, once an answer has told."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def log(self, run_id: str, entries: Sequence[Entry], tags: Mapping[str, str] = NO_TAGS) -> None:
        """Log entries and set tags, at most `MAX_METRICS_PER_BATCH` of both, with one request."""
        from mlflow.entities import Metric, RunTag

        self._client.log_batch(
            run_id,
            metrics=[Metric(*entry) for entry in entries],
            tags=[RunTag(*tag) for tag in tags.items()],
            synchronous=True,
        )

    def run(self, run_id: str) -> RunState:
        """The run's state, with one request. Its metrics' histories are not loaded."""
        run = self._client.get_run(run_id)
        metrics = run.data._metric_objs
        latest = {m.key: Entry(m.key, m.value, m.timestamp, m.step) for m in metrics}
        is_deleted = run.info.lifecycle_stage == "deleted"
        return RunState(run.info.status, is_deleted, latest, run.info.experiment_id)

    def is_surely_running(self, run_id: str, experiment_id: str) -> bool:  # noqa: ARG002
        """Whether that was found out with less than what `run` asks for; else it may be anything.

        A run has the latest value of every metric in it, so of a job of many nodes its state is
        long and takes the server long. This takes it as long as a run without metrics.
        """
        return False

    def history(self, run_id: str, key: str) -> Iterator[Entry]:
        """Every entry of a metric. For `recover`; a monitor never needs it."""
        for metric in self._client.get_metric_history(run_id, key):
            yield Entry(metric.key, metric.value, metric.timestamp, metric.step)


class _RestTracking(Tracking):
    """A server that speaks MLflow's REST API; every request is made once."""

    def __init__(self, client: MlflowClient, credentials: Callable[[], Any]) -> None:
        super().__init__(client)
        self._credentials = credentials
        self._searches = True
        self._seconds = 0.0  # that the last request took

    def log(self, run_id: str, entries: Sequence[Entry], tags: Mapping[str, str] = NO_TAGS) -> None:
        batch: dict[str, Any] = {
            "run_id": run_id,
            "metrics": [
                {"key": key, "value": value, "timestamp": timestamp_ms, "step": step}
                for key, value, timestamp_ms, step in entries
            ],
        }
        if tags:
            batch["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
        self._call("POST", _LOG_BATCH, json=batch)

    def run(self, run_id: str) -> RunState:
        run = self._call("GET", _GET_RUN, params={"run_id": run_id, "run_uuid": run_id})["run"]
        latest = {
            metric["key"]: Entry(
                metric["key"],
                float(metric.get("value", 0.0)),
                int(metric.get("timestamp", 0)),
                int(metric.get("step", 0)),
            )
            for metric in run.get("data", {}).get("metrics", [])
        }
        info = run["info"]
        is_deleted = info.get("lifecycle_stage") == "deleted"
        return RunState(info["status"], is_deleted, latest, info.get("experiment_id", ""))

    def is_surely_running(self, run_id: str, experiment_id: str) -> bool:
        if not self._searches or not experiment_id:
            return False
        usual_seconds = self._seconds
        has_ended = f"attributes.run_id = '{run_id}' and attributes.status != 'RUNNING'"
        query = {
            "experiment_ids": [experiment_id],
            "filter": has_ended,
            "run_view_type": "ALL",
            "max_results": 1,
        }
        try:
            found = self._call("POST", _SEARCH_RUNS, json=query)
        except Exception as error:
            if not is_permanent(error):
                raise
            self._searches = False  # another server, or a user who may not
            return False
        # A store of files reads every run of the experiment, and a server that is busy takes its
        # time for anything.
        slow = max(SLOW_SEARCH_RATIO * usual_seconds, SLOW_SEARCH_SECONDS)
        self._searches = self._seconds < slow
        return not found.get("runs")

    def _call(self, method: str, endpoint: str, **arguments: Any) -> Any:
        from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
        from mlflow.utils.rest_utils import http_request, verify_rest_response

        timeout = _REQUEST_TIMEOUT_SECONDS
        if MLFLOW_HTTP_REQUEST_TIMEOUT.name in os.environ:
            timeout = MLFLOW_HTTP_REQUEST_TIMEOUT.get()
        before = time.time()
        began = time.monotonic()
        response = http_request(
            self._credentials(),
            endpoint,
            method,
            max_retries=0,
            raise_on_status=False,
            timeout=timeout,
            **arguments,
        )
        self._seconds = time.monotonic() - began
        if self.clock_offset_seconds is None:
            date = response.headers.get("Date", "")
            self.clock_offset_seconds = clock_offset_seconds(date, before, time.time())
        return verify_rest_response(response, endpoint).json()


def load_modules() -> None:
    """Import what requests need of MLflow, which is not to be imported while they are made."""
    importlib.import_module("mlflow.tracking")
    for name in _MODULES:
        with suppress(ImportError):  # of another MLflow, which keeps it elsewhere
            importlib.import_module(name)


def connect(tracking_uri: str) -> Tracking:
    """The server or store of a tracking URI. Makes no request to a server."""
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri)
    if tracking_uri.startswith(("http://", "https://")):
        store = client._tracking_client.store
        # Not one of its children, and not that of a plugin: those have ways of their own.
        if type(store) is RestStore:
            return _RestTracking(client, store.get_host_creds)
    return Tracking(client)

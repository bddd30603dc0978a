"""Opens the run of a command, or joins the one that it is to be part of.

A server that does not answer is no reason to keep a command waiting: it is asked on a thread, and
again and again while the command runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from sysmetrics_native import monitored_run
from sysmetrics_native.redaction import error_text, without_secrets
from sysmetrics_native.threads import Thread
from sysmetrics_native.tracking import absolute_uri, is_permanent

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_logger = logging.getLogger("sysmetrics_native")

RUN_ID = "MLFLOW_RUN_ID"

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_LOOK_SECONDS = 0.05


class Wanted(NamedTuple):
    """Which run."""

    run_id: str
    """One to join; empty for a new one."""
    tracking_uri: str
    experiment: str | None
    """Name of the experiment, which is made if there is none; else what MLflow's variables say."""
    run_name: str | None
    tags: Mapping[str, str]
    """Of a new run."""


class OpenRun(NamedTuple):
    """A run that is open."""

    run_id: str
    tracking_uri: str
    name: str
    experiment_id: str
    experiment: str | None
    """Its name, where that was asked for."""
    is_joined: bool
    """Somebody else has opened it."""

    def environment(self) -> dict[str, str]:
        """What makes the command's own `mlflow.start_run()` log into this run."""
        variables = {
            RUN_ID: self.run_id,
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            **monitored_run.announce(self.run_id),
        }
        if self.experiment is not None:
            variables["MLFLOW_EXPERIMENT_NAME"] = self.experiment
            variables["MLFLOW_EXPERIMENT_ID"] = self.experiment_id
        return variables

    def describe(self) -> str:
        """Its page in MLflow's UI where that is known, else its id."""
        if self.tracking_uri.startswith(("http://", "https://")) and self.experiment_id:
            root = without_secrets(self.tracking_uri).rstrip("/")
            return f"{root}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return f"{self.name} ({self.run_id})" if self.name else self.run_id


class Opening:
    """Opens a run in the background.

    Args:
        wanted: which.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._over = threading.Event()
        self.run: OpenRun | None = None
        """The run, from the moment on at which there is one."""
        self.error = ""
        """Why there is none, as of the last attempt."""
        self.is_refused = False
        """Whether there will never be one."""
        self._thread = Thread("SystemMetricsOpening", self._open)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wait(self, seconds: float, is_cut_short: Callable[[], bool]) -> OpenRun | None:
        """The run, if there is one in time. An attempt that fails is not waited out."""
        deadline = time.monotonic() + seconds
        while self._is_at_work() and time.monotonic() < deadline and not is_cut_short():
            self._thread.join(_LOOK_SECONDS)
        return self.run

    def _is_at_work(self) -> bool:
        return self._thread.is_alive() and not self.error

    def stop(self) -> None:
        """Make no further attempt."""
        self._over.set()

    def _open(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._over.is_set():
            try:
                self.run = open_run(self._wanted)
            except Exception as error:  # noqa: BLE001  # whatever it is, the command runs
                self.error = error_text(error)
                self.is_refused = is_permanent(error) or isinstance(error, ValueError)
            if self.run is not None or self.is_refused:
                return
            self._over.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def open_run(wanted: Wanted) -> OpenRun:
    """Open or join a run now.

    Raises:
        Exception: what MLflow raises.
    """
    from mlflow.tracking import MlflowClient

    client = MlflowClient(wanted.tracking_uri)
    uri = absolute_uri(wanted.tracking_uri)
    if wanted.run_id:  # whether the server knows it is seen when something is logged
        return OpenRun(wanted.run_id, uri, "", "", None, is_joined=True)
    experiment_id = _experiment_id(client, wanted.experiment)
    created = client.create_run(
        experiment_id, tags=_with_context(wanted.tags), run_name=wanted.run_name
    )
    name = created.info.run_name or ""
    return OpenRun(
        created.info.run_id, uri, name, experiment_id, wanted.experiment, is_joined=False
    )


def _experiment_id(client: MlflowClient, name: str | None) -> str:
    if name is None:
        from mlflow.tracking.fluent import _get_experiment_id

        return str(_get_experiment_id())
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except Exception:
        found = client.get_experiment_by_name(name)  # somebody else was faster
        if found is None:
            raise
        return str(found.experiment_id)


def _with_context(tags: Mapping[str, str]) -> dict[str, str]:
    """With what MLflow says of every run: the user, the kind of its source."""
    with contextlib.suppress(Exception):  # plugins of others have a part in it
        from mlflow.tracking.context.registry import resolve_tags

        return dict(resolve_tags(dict(tags)))
    return dict(tags)


def run_to_join() -> str:
    """The run of ``MLFLOW_RUN_ID``; empty if there is none to join."""
    return os.environ.get(RUN_ID, "").strip()

"""What a process sees of its own HTTP requests, and a connection for each thread.

Many simulated nodes live in one process, where MLflow's client would share its connections among
them; nodes on machines of their own can't. So every thread has a session of its own here.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import mlflow.utils.request_utils as client
import requests


class Asked(NamedTuple):
    """One request. Times are Unix seconds."""

    began: float
    ended: float
    path: str
    status: int
    """Of HTTP; 0 if there was no answer."""
    windows: dict[tuple[str, int], int]
    """Of a `log_batch` the windows in it: series of which node and when, and how many metrics."""


class Requests:
    """Every request that this process makes from `watch` on, in the order of their ends."""

    def __init__(self) -> None:
        self.all: list[Asked] = []

    def watch(self) -> None:
        """Begins to look at requests; gives every thread a session of its own."""
        send: Callable[..., requests.Response] = requests.Session.send

        def watched(session: requests.Session, request: Any, **options: Any) -> requests.Response:
            began, status = time.time(), 0
            try:
                response = send(session, request, **options)
                status = response.status_code
            finally:
                found = Asked(began, time.time(), request.path_url, status, _windows(request))
                self.all.append(found)
            return response

        requests.Session.send = watched  # type: ignore[method-assign,assignment]
        _session_for_each_thread()


def _session_for_each_thread() -> None:
    module: Any = client
    make = module._cached_get_request_session.__wrapped__
    mine = threading.local()

    def session(*arguments: Any, **options: Any) -> Any:
        made = mine.__dict__.setdefault("sessions", {})
        key = (arguments, *sorted(options.items()))
        if key not in made:
            made[key] = make(*arguments, **options)
        return made[key]

    module._cached_get_request_session = session


def _windows(request: Any) -> dict[tuple[str, int], int]:
    if not request.path_url.endswith("/log-batch"):
        return {}
    found: dict[tuple[str, int], int] = {}
    for metric in json.loads(request.body).get("metrics", []):
        key = (metric["key"].split("/")[1], int(metric["timestamp"]))
        found[key] = found.get(key, 0) + 1
    return found

"""Whether MLflow uses this package, as a fresh interpreter finds it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from typing import Any

from sysmetrics_native import settings
from sysmetrics_native.plugin import OLDEST_MLFLOW
from sysmetrics_native.redaction import error_text, without_secrets

_FROM_CHILD = "sysmetrics-native:"
"""Begins what is said by us, not by MLflow."""

_PROGRAM = f"""
import sys
sys.path[:] = [path for path in sys.path if path]
import json, logging
handler = logging.StreamHandler()
handler.setFormatter(logging.Formatter("{_FROM_CHILD}%(message)s"))
logger = logging.getLogger("sysmetrics_native")
logger.addHandler(handler)
logger.setLevel(logging.WARNING)
logger.propagate = False
import mlflow
from sysmetrics_native import is_installed
print(json.dumps([is_installed(), mlflow.get_tracking_uri()]))
"""


class FreshImport:
    """MLflow, imported by a fresh interpreter as a program would; meanwhile we go on.

    It costs a second or more, may hang, and changes the process that does it. No server is asked.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._why_not = ""

    def __enter__(self) -> FreshImport:  # noqa: PYI034  # typing.Self came with Python 3.11
        try:
            if importlib.util.find_spec("mlflow") is None:
                self._why_not = "there is no module mlflow"
                return self
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
            )
        except Exception as error:  # noqa: BLE001  # some systems start no process
            self._why_not = error_text(error)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()

    def wait(self, patience: float) -> None:
        """Wait for its end, for so many seconds at most."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, patience))

    def outcome(self, patience: float) -> tuple[bool | None, str | None, str]:
        """Whether a run would be monitored by us, the tracking URI, and why it would not."""
        if self._process is None:
            return None, None, self._why_not
        try:
            output, errors = self._process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            return None, None, "importing MLflow took too long"
        said = [line.removeprefix(_FROM_CHILD) for line in errors.splitlines()]
        try:
            is_active, tracking_uri = json.loads(output.splitlines()[-1])
        except (IndexError, ValueError):
            last = said[-1] if said else f"status {self._process.returncode}"
            return None, None, f"MLflow cannot be imported: {without_secrets(last)}"
        ours = [line for line in errors.splitlines() if line.startswith(_FROM_CHILD)]
        reason = without_secrets(ours[-1].removeprefix(_FROM_CHILD)) if ours else ""
        return bool(is_active), without_secrets(str(tracking_uri)), reason


def mlflow_facts(imported: FreshImport, patience: float) -> dict[str, Any]:
    """The entry ``mlflow`` of `checkup.check`; waits for the import, so many seconds at most."""
    version = installed_version("mlflow") or installed_version("mlflow-skinny")
    entry_points = importlib.metadata.entry_points(
        group="mlflow.run_context_provider", name="sysmetrics_native"
    )
    facts: dict[str, Any] = {
        "version": version,
        "is_new_enough": None,
        "has_entry_point": bool(tuple(entry_points)),
        "is_active": None,
        "tracking_uri": None,
        "reason": "",
    }
    if version is None:
        return facts | {"reason": "MLflow is not installed: pip install 'mlflow>=2.9'"}
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    facts["is_new_enough"] = numbers >= OLDEST_MLFLOW
    is_active, tracking_uri, reason = imported.outcome(patience)
    if is_active is False and not reason:
        reason = f"{settings.spelling('enabled')} is false"
    reason = reason.removeprefix("MLflow keeps its own system metrics: ")
    if not facts["has_entry_point"]:
        reason = "MLflow is not told of it: install the package anew, with pip"
    return facts | {"is_active": is_active, "tracking_uri": tracking_uri, "reason": reason}


def installed_version(package: str) -> str | None:
    """Of a distribution; `None` where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

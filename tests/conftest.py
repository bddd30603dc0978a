"""What all tests share: a clean configuration, and both backends where both exist."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sysmetrics_native import settings
from sysmetrics_native.backends import is_native_built

# A pure wheel has no native backend: there this variable says so, and that the rest must pass.
_ONLY_BACKEND = os.environ.get("SYSMETRICS_NATIVE_TEST_BACKEND")
BACKENDS = [_ONLY_BACKEND] if _ONLY_BACKEND else ["native", "psutil"]


@pytest.fixture(autouse=True)
def clean_configuration(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No option and no variable of one test reaches the next, or comes from outside."""
    for name in list(os.environ):
        if name.startswith(("SYSMETRICS_NATIVE_", "MLFLOW_SYSTEM_METRICS_")) or name in (
            "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING",
            "MLFLOW_TRACKING_URI",
            "MLFLOW_RUN_ID",
        ):
            monkeypatch.delenv(name)
    before = dict(os.environ)
    settings.reset()
    yield
    settings.reset()
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a backend that this installation must have."""
    name = str(request.param)
    if name == "native":
        assert is_native_built(), "the C core is missing from this installation"
    return name

"""The same MLflow code under one monitor or another: the environment alone decides."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.rounds import NATIVE, OFF, PSUTIL_BACKEND, STOCK, Figures, ParticipantFailedError

_ON = {"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true"}

VARIANTS: Mapping[str, Mapping[str, str]] = {
    OFF: {"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false"},
    STOCK: {**_ON, "SYSMETRICS_NATIVE_ENABLED": "false"},
    NATIVE: {**_ON, "SYSMETRICS_NATIVE_BACKEND": "native"},
    PSUTIL_BACKEND: {**_ON, "SYSMETRICS_NATIVE_BACKEND": "psutil"},
}

MONITORED = (STOCK, NATIVE, PSUTIL_BACKEND)
"""Those with a monitor."""


def sampling(rate: float, samples_per_window: int) -> dict[str, str]:
    """MLflow's own settings for a sampling rate and the length of a window."""
    return {
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": repr(1.0 / rate),
        "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": str(samples_per_window),
    }


def check_monitor(variant: str, figures: Figures) -> Figures:
    """The figures, unless they are of another monitor than the one that was asked for."""
    expected = {
        "monitored": variant != OFF,
        "ours": variant in (NATIVE, PSUTIL_BACKEND),
        "native": variant == NATIVE,
    }
    for name, wanted in expected.items():
        if figures[name] != wanted:
            found = "was not" if wanted else "was"
            raise ParticipantFailedError(f"another monitor ran than asked for: it {found} {name}")
    return figures

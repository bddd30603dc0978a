"""Keeps passwords and tokens out of files and log lines."""

from __future__ import annotations

import os
import re

_USER_INFO = re.compile(r"(\w[\w+.-]*://)[^/\s'\"]*@")
_SECRET_PARAMETER = re.compile(
    r"([?&;][^=&;\s'\"]*(?:pass|pwd|token|secret|key|auth|cred|sig)[^=&;\s'\"]*=)[^&;\s'\"]*",
    re.IGNORECASE,
)
# Where MLflow itself takes secrets from: an error text may repeat them.
_SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN")
_SHORTEST_SECRET = 4
_LONGEST_ERROR = 500


def without_secrets(text: str) -> str:
    """The text, most often a URI, with user names, passwords and tokens taken out.

    ``https://ann:pw@host/x?token=t`` becomes ``https://host/x?token=***``.
    """
    text = _USER_INFO.sub(r"\1", text)
    text = _SECRET_PARAMETER.sub(r"\1***", text)
    for variable in _SECRET_VARIABLES:
        secret = os.environ.get(variable, "")
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text


def error_text(error: BaseException) -> str:
    """What an error says, fit for a log line: no secrets, one line, not a whole HTML page."""
    text = " ".join(without_secrets(str(error)).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}…"

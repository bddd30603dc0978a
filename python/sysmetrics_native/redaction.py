"""Keeps passwords and tokens out of files and log lines."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable

_USER_INFO = re.compile(r"(\w[\w+.-]*://)[^/\s'\"]*@")
_SECRET_PARAMETER = re.compile(
    r"([?&;][^=&;\s'\"]*(?:pass|pwd|token|secret|key|auth|cred|sig)[^=&;\s'\"]*=)[^&;\s'\"]*",
    re.IGNORECASE,
)
_SECRET_WORD = (
    r"(?:pass|passwd|password|passphrase|pwd|token|secret|credentials?|auth|"
    r"(?:api|access|private|secret|auth|encryption)[-_.]?key)"
)
# ``--api-key``, ``-Dpassword``, ``MY_TOKEN``, but not ``--tokenizer`` or ``--max-tokens``.
_SECRET_NAME = rf"[\w.-]*?{_SECRET_WORD}"
_VALUE = r"(?:\"[^\"]*\"|'[^']*'|[^\s'\";&]+)"
_SECRET_OPTION = re.compile(_SECRET_NAME, re.IGNORECASE)
_SECRET_ASSIGNED = re.compile(
    rf"((?<![\w.-]){_SECRET_NAME}[\"']?\s*[=:]\s*){_VALUE}", re.IGNORECASE
)
_SECRET_BEHIND_OPTION = re.compile(rf"((?<!\S)-{_SECRET_NAME}\s+)(?!-){_VALUE}", re.IGNORECASE)
_AUTHORIZATION = re.compile(r"((?:authorization|x-api-key)\s*:\s*)[^'\"]+", re.IGNORECASE)
# Where MLflow itself takes secrets from: an error text may repeat them.
_SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN")
_SHORTEST_SECRET = 4
_LONGEST_ERROR = 500
_LONGEST_COMMAND = 5000
_LONGEST_NAME = 200


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


def command_line(arguments: Iterable[str]) -> str:
    """A command line as a shell would read it, with what looks like a secret replaced by ``***``.

    That is what is given to options, variables and parameters whose names say so
    (``--password x``, ``API_KEY=x``, ``token=x``), user names and passwords in URIs, and
    authorization headers, also within an argument, as of ``sh -c``. A secret under another name
    is not seen. A long one has only its beginning.
    """
    words: list[str] = []
    hides_next = False
    for argument in arguments:
        if sum(map(len, words)) > _LONGEST_COMMAND:
            words.append("...")
            break
        is_option = argument.startswith("-")
        words.append("***" if hides_next and not is_option else _hide(argument))
        hides_next = is_option and _SECRET_OPTION.fullmatch(argument[:_LONGEST_NAME]) is not None
    line = shlex.join(words).replace("'***'", "***")
    return line.encode("utf-8", "replace").decode()  # file names need not be text


def _hide(argument: str) -> str:
    if len(argument) > _LONGEST_COMMAND:  # the patterns would take long, and for nothing
        argument = f"{argument[:_LONGEST_COMMAND]}…"
    argument = _AUTHORIZATION.sub(r"\1***", argument)
    argument = _SECRET_ASSIGNED.sub(r"\1***", argument)
    argument = _SECRET_BEHIND_OPTION.sub(r"\1***", argument)
    return without_secrets(argument)


def error_text(error: BaseException) -> str:
    """What an error says, fit for a log line: no secrets, one line, not a whole HTML page."""
    text = " ".join(without_secrets(str(error)).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}…"

"""Passwords and tokens reach no file and no log line."""

from __future__ import annotations

import pytest

from sysmetrics_native.redaction import error_text, without_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://host:5000", "http://host:5000"),
        ("https://ann:pw@host/path", "https://host/path"),
        ("https://token@host", "https://host"),
        ("https://ann:p@ss@host/x", "https://host/x"),
        ("postgresql+psycopg2://ann:pw@db:5432/mlflow", "postgresql+psycopg2://db:5432/mlflow"),
        ("mysql://db/x?ssl=1&password=pw", "mysql://db/x?ssl=1&password=***"),
        ("https://host/?access_token=t&run=1", "https://host/?access_token=***&run=1"),
        ("https://host/?X-Amz-Signature=abc", "https://host/?X-Amz-Signature=***"),
        ("sqlite:////home/ann@lab/mlflow.db", "sqlite:////home/ann@lab/mlflow.db"),
        ("databricks://profile", "databricks://profile"),
        (
            "API request to http://ann:pw@host/api failed: HTTPConnectionPool(host='host')",
            "API request to http://host/api failed: HTTPConnectionPool(host='host')",
        ),
    ],
)
def test_secrets_in_addresses(text: str, expected: str) -> None:
    assert without_secrets(text) == expected


def test_secrets_of_mlflows_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "tr0ub4dor")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "eyJhbGciOi")
    said = without_secrets("the server repeats: Basic tr0ub4dor, Bearer eyJhbGciOi")
    assert said == "the server repeats: Basic ***, Bearer ***"


def test_an_error_is_one_line_and_not_a_whole_page() -> None:
    assert error_text(ValueError("one\n  two")) == "one two"
    assert error_text(ValueError()) == "ValueError"
    assert len(error_text(ValueError("x" * 10_000))) < 600

"""Passwords and tokens reach no file and no log line."""

from __future__ import annotations

import pytest

from sysmetrics_native.redaction import command_line, error_text, without_secrets


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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["python", "train.py", "--lr", "0.1"], "python train.py --lr 0.1"),
        (["a b", "c'd"], """'a b' 'c'"'"'d'"""),
        (["x", "--password", "hunter2", "--epochs", "3"], "x --password *** --epochs 3"),
        (["x", "--api-key", "--dry-run"], "x --api-key --dry-run"),
        (["x", "--hf_token=abc"], "x '--hf_token=***'"),
        (["env", "WANDB_API_KEY=abc", "x"], "env 'WANDB_API_KEY=***' x"),
        (["x", "db.password=abc", "lr=1"], "x 'db.password=***' lr=1"),
        (["x", "--tokenizer", "bert", "--max-tokens=512"], "x --tokenizer bert --max-tokens=512"),
        (["x", "--author", "ann", "--keys", "3"], "x --author ann --keys 3"),
        (["curl", "https://ann:pw@host/x?token=t"], "curl 'https://host/x?token=***'"),
        (["curl", "-H", "Authorization: Bearer abc"], "curl -H 'Authorization: ***'"),
        (["sh", "-c", "x --secret abc; y"], "sh -c 'x --secret ***; y'"),
        (["sh", "-c", "TOKEN='a b' x"], "sh -c 'TOKEN=*** x'"),
        (["x", '{"password": "abc", "n": 1}'], """x '{"password": ***, "n": 1}'"""),
        (["x", "\udcff"], "x '?'"),
    ],
)
def test_secrets_in_command_lines(arguments: list[str], expected: str) -> None:
    assert command_line(arguments) == expected


def test_a_long_command_line_is_cut_before_it_is_searched() -> None:
    line = command_line(["a_" * 1_000_000, "-" * 1_000_000, *["b"] * 100_000])
    assert line.startswith("'a_a_")
    assert line.endswith("…' ...")
    assert len(line) < 6000
    assert command_line(["sh", "token " * 1_000_000]).endswith("…'")

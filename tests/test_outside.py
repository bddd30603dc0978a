"""The monitoring of a command fails, and the command does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import pytest

from sysmetrics_native import configure, outside
from sysmetrics_native.command import Ended
from sysmetrics_native.outside import Sampling, choose_sources, run_outside

ENDED = Ended(3, None, 1.0, 0.5, None)


class FakeCommand:
    """A command that is this very process, and ends when it is waited for."""

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        assert (list(arguments), dict(environment)) == (["it"], {})
        return os.getpid()

    def wait(self, look: Callable[[], object]) -> Ended:
        look()
        return ENDED

    def fatal_signal(self) -> int | None:
        return None

    def leave(self, ended: Ended) -> NoReturn:
        raise SystemExit(ended.status)


def run_it() -> outside.Result | None:
    return run_outside(
        FakeCommand(),
        ["it"],
        {},
        command_line="it",
        opening=None,
        sampling=Sampling(0.1, 1),
        joins=True,
    )


def fail(*_: object) -> NoReturn:
    raise RuntimeError("can't start new thread")


@pytest.fixture
def ends_monitoring() -> Iterator[None]:
    """Where its monitoring has failed a program goes on to its end, and samples until then."""
    made: list[outside._Monitoring] = []
    real, finish = outside._Monitoring.__init__, outside._Monitoring.finish

    def init(self: outside._Monitoring, *arguments: Any, **options: Any) -> None:
        made.append(self)
        real(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outside._Monitoring, "__init__", init)
        yield
    for one in made:
        finish(one)


@pytest.mark.usefixtures("ends_monitoring")
@pytest.mark.parametrize(
    "part",
    ["_Monitoring.start", "_Monitoring._begin", "_Monitoring.finish", "_Traces.look", "_wait_for"],
)
def test_whatever_fails_the_end_of_the_command_is_known(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"sysmetrics_native.outside.{part}", fail)
    if part in ("_Monitoring._begin", "_Monitoring.finish"):  # these are on threads
        monkeypatch.setattr("threading.excepthook", lambda _: None)
    result = run_it()
    assert result is not None
    assert result.ended == ENDED
    assert result.outcome.ending == "exit 3"


def test_the_sources_of_a_command(backend: str) -> None:
    configure(backend=backend)
    usual = choose_sources()
    assert "process" not in usual
    chosen = choose_sources("process", "no such source")
    assert set(chosen) == {*usual, "process"}
    configure(sources="-memory,-process")
    assert set(choose_sources("process")) == set(usual) - {"memory"}
    configure(sources="cpu")
    assert choose_sources("process") == ("cpu", "process")
    configure(sources="nonsense")
    with pytest.raises(ValueError, match="sources must be any of default, all, cpu"):
        choose_sources("process")

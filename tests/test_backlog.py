"""Windows that wait: in memory while all is well, on disk from the first failure on."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sysmetrics_native import spool
from sysmetrics_native.backlog import Backlog
from sysmetrics_native.private_files import Writer
from sysmetrics_native.spool import Origin, Spool, SpoolFile, WaitingWindow

ORIGIN = Origin("run", "http://host", 0, Writer.this_process(), 1.0, {})


def window(number: int) -> WaitingWindow:
    return WaitingWindow(number, number + 1, {"a": number / 3, "b": 1.0})


class Spools:
    """Makes spools in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    def __call__(self) -> Spool:
        self.made += 1
        return Spool(str(self.folder / f"{self.made}.smnspool"), ORIGIN)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*")) if self.folder.exists() else []


@pytest.fixture
def spools(tmp_path: Path) -> Spools:
    return Spools(tmp_path / "spool")


@pytest.fixture
def backlog(spools: Spools) -> Backlog:
    return Backlog(spools, "run")


def put(backlog: Backlog, *numbers: int) -> None:
    for number in numbers:
        backlog.put(window(number))


def numbers(backlog: Backlog, most_metrics: int = 1000) -> list[int]:
    return [one.number for one in backlog.oldest(most_metrics)]


def send(backlog: Backlog, most_metrics: int) -> list[int]:
    batch = backlog.oldest(most_metrics)
    backlog.drop_sent(batch)
    return [one.number for one in batch]


def test_while_all_is_well_nothing_touches_the_disk(backlog: Backlog, spools: Spools) -> None:
    put(backlog, 0, 1, 2)
    assert send(backlog, 4) == [0, 1]
    put(backlog, 3)
    assert send(backlog, 1000) == [2, 3]
    assert len(backlog) == 0
    assert spools.made == 0


def test_a_window_that_is_larger_than_a_request_comes_alone(backlog: Backlog) -> None:
    put(backlog, 0, 1)
    assert numbers(backlog, 1) == [0]


def test_from_a_failure_on_all_is_on_disk_until_all_was_sent(
    backlog: Backlog, spools: Spools
) -> None:
    put(backlog, 0, 1)
    backlog.keep_on_disk()
    put(backlog, 2, 3)
    kept, path = backlog.on_disk()
    assert kept == len(backlog) == 4
    left = SpoolFile(path)
    assert [one.number for one in left.windows()] == [0, 1, 2, 3]
    left.close()
    assert send(backlog, 4) == [0, 1]
    put(backlog, 4)
    assert send(backlog, 1000) == [2, 3, 4]
    assert spools.files() == []
    put(backlog, 5)
    assert backlog.on_disk() == (0, "")
    assert spools.made == 1
    backlog.keep_on_disk()  # the next outage
    assert spools.made == 2
    assert send(backlog, 1000) == [5]
    assert spools.files() == []


def test_windows_in_flight_are_dropped_wherever_they_are_by_now(
    backlog: Backlog, spools: Spools
) -> None:
    put(backlog, 0, 1, 2)
    batch = backlog.oldest(4)
    backlog.keep_on_disk()
    backlog.drop_sent(backlog.oldest(4))
    assert [one.number for one in batch] == [0, 1]
    assert numbers(backlog) == [2]
    assert len(backlog) == 1


def refuse(error: int) -> Callable[[], Spool]:
    def make() -> Spool:
        raise OSError(error, os.strerror(error))

    return make


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO])
def test_without_a_disk_they_wait_in_memory_with_one_warning(
    error: int, caplog: pytest.LogCaptureFixture
) -> None:
    backlog = Backlog(refuse(error), "the-run")
    put(backlog, 0)
    for _ in range(3):
        backlog.keep_on_disk()
        put(backlog, 1)
    assert len(backlog) == 4
    assert backlog.on_disk() == (0, "")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "the-run" in record.getMessage()
    assert os.strerror(error) in record.getMessage()
    assert send(backlog, 1000) == [0, 1, 1, 1]


def test_what_no_longer_fits_on_the_disk_comes_behind_what_does(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spool, "MAX_BYTES", 600)
    backlog.keep_on_disk()
    put(backlog, *range(20))
    kept, path = backlog.on_disk()
    assert 1 <= kept < 20
    assert len(backlog) == 20
    assert Path(path).stat().st_size <= 600
    assert len(caplog.records) == 1
    sent: list[int] = []
    while backlog:
        sent += send(backlog, 6)
    assert sent == list(range(20))
    assert not Path(path).exists()


def test_memory_is_full_only_where_the_disk_is_not_there(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysmetrics_native.backlog.MAX_WINDOWS_IN_MEMORY", 3)
    put(backlog, 0, 1, 2)
    assert backlog.is_full()
    backlog.keep_on_disk()
    assert not backlog.is_full()
    put(backlog, *range(3, 50))
    assert not backlog.is_full()
    assert len(backlog) == 50


def test_released_windows_are_there_for_others(backlog: Backlog) -> None:
    put(backlog, 0, 1)
    backlog.note_first_step(3)
    backlog.release("no route to host")
    _, path = backlog.on_disk()
    left = SpoolFile(path)
    assert [one.number for one in left.windows()] == [0, 1]
    assert left.reason == "no route to host"
    left.close()


def test_a_request_that_arrives_after_all_takes_the_file_away(
    backlog: Backlog, spools: Spools
) -> None:
    put(backlog, 0, 1)
    batch = backlog.oldest(1000)
    backlog.release("too late")
    assert len(spools.files()) == 1
    backlog.drop_sent(batch)
    assert numbers(backlog) == []
    assert len(backlog) == 0
    assert spools.files() == []


def test_nothing_is_written_where_nothing_waits(backlog: Backlog, spools: Spools) -> None:
    backlog.keep_on_disk()
    backlog.release("for no reason")
    backlog.clear()
    backlog.drop_sent([])
    assert spools.made == 0


def test_clear_takes_everything_away(backlog: Backlog, spools: Spools) -> None:
    put(backlog, 0, 1)
    backlog.keep_on_disk()
    backlog.clear()
    assert len(backlog) == 0
    assert spools.files() == []

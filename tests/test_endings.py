"""How a process ended, from the traces that it left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sysmetrics_native import endings
from sysmetrics_native.private_files import Writer

HERE = Writer.this_process()
GONE = HERE._replace(started=HERE.started - 1000.0)


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of /sys/fs/cgroup."""
    monkeypatch.setattr(endings, "_CGROUP_ROOT", str(tmp_path))
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_process_that_runs() -> None:
    assert endings.how_it_ended(HERE, {}) == f"still running (process {os.getpid()})"


def test_a_process_of_another_machine() -> None:
    assert endings.how_it_ended(HERE._replace(host="gpu7"), {}) == "unknown: it ran on gpu7"


def test_a_process_that_is_gone() -> None:
    assert endings.how_it_ended(GONE, {}).startswith("killed by a signal, crashed")


@pytest.mark.skipif(not HERE.boot_id, reason="needs the kernel's boot id")
def test_a_machine_that_was_restarted() -> None:
    ended = endings.how_it_ended(HERE._replace(boot_id="before"), {})
    assert ended == "the machine was restarted"


V2 = "low 0\nhigh 0\nmax 3\noom 2\noom_kill {}\noom_group_kill 0\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


@pytest.mark.parametrize(("name", "text"), [("memory.events", V2), ("memory.oom_control", V1)])
def test_the_kernel_killed_for_want_of_memory(cgroups: Path, name: str, text: str) -> None:
    file = write(cgroups / "job" / name, text.format(3))
    noted = {"oom_kill_file": str(file), "oom_kills": 1}
    ended = endings.how_it_ended(GONE, noted)
    assert ended == "out of memory: the kernel killed 2 in its control group"
    write(file, text.format(1))
    assert endings.how_it_ended(GONE, noted).startswith("killed by a signal, crashed")
    file.unlink()
    assert endings.how_it_ended(GONE, noted).startswith("killed by a signal, crashed")


@pytest.mark.parametrize(
    "noted",
    [
        {"oom_kill_file": "/etc/passwd", "oom_kills": 0},
        {"oom_kill_file": 1, "oom_kills": 0},
        {"oom_kill_file": None},
        {"oom_kills": 0},
        {"oom_kill_file": "", "oom_kills": "0"},
    ],
)
def test_what_a_file_says_is_not_followed_anywhere(noted: dict[str, Any]) -> None:
    assert endings.how_it_ended(GONE, noted).startswith("killed by a signal, crashed")


def test_what_is_noted_at_the_start(cgroups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        endings,
        "_oom_kill_files",
        lambda: [str(cgroups / "not" / "there"), str(cgroups / "job" / "memory.events")],
    )
    assert endings.surroundings() == {}
    file = write(cgroups / "job" / "memory.events", V2.format(7))
    assert endings.surroundings() == {"oom_kill_file": str(file), "oom_kills": 7}


@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="needs control groups")
def test_the_files_are_those_of_this_process() -> None:
    for path in endings._oom_kill_files():
        assert path.startswith("/sys/fs/cgroup/")
        assert path.endswith(("memory.events", "memory.oom_control"))


# ---- counts beside a process that runs ----------------------------------------------------------


def test_kills_are_counted_in_every_group_that_a_process_was_in(
    cgroups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write(cgroups / "shell" / "memory.events", V2.format(5))
    after = write(cgroups / "job" / "memory.events", V2.format(2))
    places = [str(before)]
    monkeypatch.setattr(endings, "_oom_kill_files", lambda _: places)
    watch = endings.OomWatch(os.getpid())
    assert watch.kills == 0
    watch.look()
    assert watch.kills == 0
    places = [str(after)]
    watch.look()
    write(after, V2.format(4))
    write(before, V2.format(6))
    watch.look()
    assert watch.kills == 2
    after.unlink()  # the group goes with its last process; what it had counted stays
    watch.look()
    assert watch.kills == 2


def test_no_counts_no_kills(cgroups: Path) -> None:
    watch = endings.OomWatch(2**22)
    watch.look()
    assert watch.kills == 0

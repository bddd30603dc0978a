"""Windows on disk: written and read back, whole after a kill, refused when they are not ours."""

from __future__ import annotations

import collections
import json
import math
import os
import signal
import stat
import subprocess
import sys
import textwrap
import zlib
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from sysmetrics_native import spool
from sysmetrics_native.private_files import Writer
from sysmetrics_native.spool import Origin, Spool, SpoolError, SpoolFile, WaitingWindow

ORIGIN = Origin("run", "http://host", 5, Writer("host", "boot", 1, 2.5), 1764000000.0, {"a": 1})


def window(number: int, **metrics: float) -> WaitingWindow:
    return WaitingWindow(number, 1764000000000 + number, metrics or {"system/x": number / 3})


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "spool" / "one.smnspool")


def line(content: Any) -> bytes:
    """A line as a spool has it."""
    text = json.dumps(content).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


# ---- while its run goes on ----------------------------------------------------------------------


def test_windows_come_back_in_order_and_as_they_were(path: str) -> None:
    written = [window(0), window(1, a=1.5, b=-0.0), window(2, **{"system/ü/🚀": 1e308})]
    kept = Spool(path, ORIGIN)
    for one in written:
        kept.append(one)
    assert list(kept.unsent()) == written
    assert list(kept.unsent()) == written
    assert len(kept) == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_takes_no_other_with_it(path: str, value: float) -> None:
    kept = Spool(path, ORIGIN)
    kept.append(window(0, a=value, b=1.0))
    assert [one.metrics for one in kept.unsent()] == [{"b": 1.0}]


def test_what_was_sent_does_not_come_back(path: str) -> None:
    kept = Spool(path, ORIGIN)
    for number in range(5):
        kept.append(window(number))
    assert [one.number for one in islice(kept.unsent(), 2)] == [0, 1]
    kept.mark_sent(2)
    kept.append(window(5))
    assert [one.number for one in kept.unsent()] == [2, 3, 4, 5]
    assert len(kept) == 4
    left = SpoolFile(path)
    assert [one.number for one in left.windows()] == [2, 3, 4, 5]
    left.close()


def test_nobody_else_can_read_it(path: str) -> None:
    before = os.umask(0)
    try:
        Spool(path, ORIGIN)
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700


def test_remove_takes_the_file_away(path: str) -> None:
    kept = Spool(path, ORIGIN)
    kept.remove()
    assert not Path(path).exists()


def test_a_spool_that_cannot_begin_leaves_nothing(path: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(spool, "MAX_BYTES", 10)
    with pytest.raises(OSError, match="limit"):
        Spool(path, ORIGIN)
    assert not Path(path).exists()


def test_its_size_is_bounded_and_what_is_in_it_stays(path: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(spool, "MAX_BYTES", 2000)
    kept = Spool(path, ORIGIN)
    with pytest.raises(OSError, match="reached its limit"):
        collections.deque(map(kept.append, map(window, range(100))))
    count = len(kept)
    assert 5 < count < 100
    assert Path(path).stat().st_size <= 2000
    assert [one.number for one in kept.unsent()] == list(range(count))


def test_a_disk_that_is_full_leaves_no_half_line(path: str) -> None:
    """The kernel refuses what goes beyond the limit of a file's size, in the middle of a line."""
    program = f"""
        import resource, signal
        from sysmetrics_native.private_files import Writer
        from sysmetrics_native.spool import Origin, Spool, WaitingWindow

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        kept = Spool({path!r}, Origin("run", "http://host", 0, Writer("h", "b", 1, 2.0), 1.0, {{}}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        count = 0
        try:
            while True:
                kept.append(WaitingWindow(count, 1, {{"system/x": 1.0}}))
                count += 1
        except OSError as error:
            print(count, error.errno)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        kept.append(WaitingWindow(count, 1, {{"system/x": 1.0}}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    count, error = map(int, done.stdout.split())
    assert error == 27  # EFBIG
    assert count > 3
    left = SpoolFile(path)
    assert left.unsent == count + 1
    assert left.damaged_lines == 0
    left.close()


# ---- tags ---------------------------------------------------------------------------------------


def test_tags_come_back(path: str) -> None:
    tags = {"system/gpu_0": '{"name":"Ä"}', "system/gpu_1": "{}"}
    Spool(path, ORIGIN._replace(tags=tags))
    left = SpoolFile(path)
    assert left.origin.tags == tags
    left.close()


@pytest.mark.parametrize("tags", [None, [], "x", 5, {"a": 1, "b": None, "c": ["x"]}])
def test_tags_that_are_none_hide_no_window(tmp_path: Path, tags: Any) -> None:
    path = tmp_path / "old.smnspool"
    content = line({"window": 0, "timestamp_ms": 1, "metrics": {"system/x": 1.0}})
    path.write_bytes(header(tags=tags) + content)
    left = SpoolFile(str(path))
    assert left.origin.tags == {}
    assert left.unsent == 1
    left.close()


# ---- afterwards ---------------------------------------------------------------------------------


def test_what_a_spool_says_of_itself(path: str) -> None:
    kept = Spool(path, ORIGIN._replace(first_step=None))
    kept.append(window(7))
    kept.mark_first_step(30)
    kept.release("no route to host")
    left = SpoolFile(path)
    assert left.origin == ORIGIN._replace(first_step=None)
    assert left.first_step == 30
    assert left.reason == "no route to host"
    assert left.ended is not None
    assert left.unsent == 1
    assert left.lock()
    left.mark_sent(8)
    left.close()
    again = SpoolFile(path)
    assert again.unsent == 0
    assert again.sent == 8
    again.remove()
    assert not Path(path).exists()


WRITES = """
import sys
from sysmetrics_native.private_files import Writer
from sysmetrics_native.spool import Origin, Spool, WaitingWindow

kept = Spool(sys.argv[1], Origin("run", "http://host", 0, Writer.this_process(), 1.0, {}))
number = 0
while True:
    kept.append(WaitingWindow(number, number + 1, {f"system/{i}": i / 7 for i in range(8)}))
    number += 1
    if number % 50 == 0:
        print(number, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_writer_that_is_killed_leaves_every_window_that_it_wrote(tmp_path: Path) -> None:
    for kill in range(10):
        path = str(tmp_path / "spool" / f"{kill}.smnspool")
        child = subprocess.Popen(
            [sys.executable, "-c", WRITES, path], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        said = 0
        for _ in range(kill + 1):
            said = int(child.stdout.readline())
        child.kill()
        child.communicate()
        left = SpoolFile(path)
        assert left.lock()
        assert left.origin.writer.is_alive() is False
        numbers = [one.number for one in left.windows()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= said
        assert left.damaged_lines == 0
        left.close()


def test_a_line_that_was_cut_short_is_written_over(path: str) -> None:
    Spool(path, ORIGIN).append(window(0))
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole + line({"window": 1, "timestamp_ms": 1, "metrics": {}})[:-9])
    left = SpoolFile(path)
    assert (left.unsent, left.damaged_lines) == (1, 0)
    left.mark_sent(1)
    left.close()
    again = SpoolFile(path)
    assert (again.sent, again.unsent, again.damaged_lines) == (1, 0, 0)
    again.close()


BAD_WINDOWS: list[Any] = [
    *(None, [], 7, "text", {}, {"window": 1}, {"sent": -1}, {"sent": 1.5}, {"sent": True}),
    {"window": -1, "timestamp_ms": 1, "metrics": {}},
    {"window": 1 << 64, "timestamp_ms": 1, "metrics": {}},
    {"window": 1, "timestamp_ms": "1", "metrics": {}},
    {"window": 1, "timestamp_ms": 1, "metrics": [1]},
    {"window": 1, "timestamp_ms": 1, "metrics": {"a": "1"}},
    {"window": 1, "timestamp_ms": 1, "metrics": {"a": None}},
    {"window": 1, "timestamp_ms": 1, "metrics": {"a": True}},
    {"window": 1, "timestamp_ms": 1, "metrics": {"a": math.nan}},
    {"window": 1, "timestamp_ms": 1, "metrics": {"a": math.inf}},
    {"window": 1, "timestamp_ms": 1, "metrics": {"a": 10**400}},
]


@pytest.mark.parametrize("content", BAD_WINDOWS, ids=repr)
def test_a_line_that_we_would_not_have_written_is_left_out_and_counted(
    path: str, content: Any
) -> None:
    kept = Spool(path, ORIGIN)
    kept.append(window(0))
    with Path(path).open("ab") as file:
        file.write(line(content))
        file.write(line(window(2)._asdict() | {"number": 0, "window": 2}))
    left = SpoolFile(path)
    assert [one.number for one in left.windows()] == [0, 2]
    assert left.damaged_lines == 1
    left.close()


def header(**changes: Any) -> bytes:
    whose = ORIGIN._asdict() | {"writer": ORIGIN.writer._asdict()}
    return line({"format": spool.FORMAT, "version": 1, **whose} | changes)


NO_SPOOLS = {
    "empty": (b"", "not a spool"),
    "text": (b"hello\n", "not a spool"),
    "another format": (line({"format": "x"}), "not a spool"),
    "a list": (line([1]), "not a spool"),
    "a window first": (line({"window": 1, "timestamp_ms": 1, "metrics": {}}), "not a spool"),
    "newer": (header(version=2), "upgrade"),
    "no run": (header()[:9] + b"{}\n", "not a spool"),
    "a step below 0": (header(first_step=-1), "first step"),
    "no writer": (header(writer=None), "does not say whose"),
    "a process number that is none": (
        header(writer={"host": "", "boot_id": "", "pid": "x"}),
        "whose",
    ),
    "endless": (b"x" * (3 << 20), "not a spool"),
    "deep": (b"%08x %s\n" % (zlib.crc32(b"[" * 100_000), b"[" * 100_000), "not a spool"),
    "a pickle": (
        b"\x80\x04\x95\x17\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system",
        "not",
    ),
}


@pytest.mark.parametrize("name", NO_SPOOLS)
def test_what_is_no_spool_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    content, message = NO_SPOOLS[name]
    path = tmp_path / "file.smnspool"
    path.write_bytes(content)
    with pytest.raises(SpoolError, match=message) as caught:
        SpoolFile(str(path))
    assert str(path) in str(caught.value)


@examples(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.booleans())
def test_damage_anywhere_never_yields_a_window_that_was_not_written(
    tmp_path: Path, at: int, byte: int, cut: bool
) -> None:
    path = tmp_path / "spool" / "one.smnspool"
    path.unlink(missing_ok=True)
    written = [window(number) for number in range(20)]
    kept = Spool(str(path), ORIGIN)
    for one in written:
        kept.append(one)
    content = bytearray(path.read_bytes())
    at %= len(content)
    content[at] = byte
    path.write_bytes(content[:at] if cut else content)
    try:
        left = SpoolFile(str(path))
    except SpoolError:
        return
    found = list(left.windows())
    left.close()
    assert [one for one in found if one not in written] == []
    assert len(found) >= (0 if cut else 18)
    assert sorted(found) == found

"""docs/recording-format.md: its reader runs as it stands there, its numbers are the real ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sysmetrics_native import Sampler
from sysmetrics_native.recording import Recording
from sysmetrics_native.recording_file import MAGIC, VERSION
from tests.recordings import damage_row, make_rows, overwrite, write_recording

PAGE = (Path(__file__).parent.parent / "docs" / "recording-format.md").read_text(encoding="utf-8")

HANDS_OUT = """
import json
print(json.dumps([rows[:, 0].tolist(), columns.view("u8").tolist(), about]))
"""


def reader() -> str:
    (program,) = re.findall(
        r"<!-- test: reads a recording -->\n```python\n(.*?)```", PAGE, re.DOTALL
    )
    return str(program)


def run_reader(path: Path, more: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", reader() + more, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


@pytest.mark.parametrize(("count", "capacity"), [(50, 64), (64, 64), (65, 64), (300, 64)])
def test_the_reader_of_the_page_reads_what_ours_reads(tmp_path, count, capacity):
    path = tmp_path / "a.smnrec"
    write_recording(path, make_rows(count), capacity=capacity)
    damage_row(path, 7)
    said = run_reader(path, HANDS_OUT).splitlines()
    sequences, columns, about = json.loads(said[-1])
    with Recording(path) as recording:
        ours = recording.rows
        assert sequences == ours["sequence"].tolist()
        assert columns == ours["columns"].view("u8").tolist()
        assert about["run"]["run_id"] == recording.run.run_id if recording.run else False
    assert said[0].startswith("level ")


def test_it_reads_what_a_sampler_wrote(backend, tmp_path):
    with Sampler(interval=0.01, backend=backend, recorder=tmp_path) as sampler:
        window = sampler.next_window(timeout=30)
    assert window is not None
    assert sampler.recording_path is not None
    said = dict(line.split() for line in run_reader(Path(sampler.recording_path)).splitlines())
    memory = window["system_memory_usage_megabytes"].mean
    assert memory is not None
    assert 0.5 * memory < float(said["system_memory_usage_megabytes"]) < 2 * memory


def test_it_refuses_a_newer_version(tmp_path):
    path = tmp_path / "a.smnrec"
    write_recording(path, make_rows(3))
    overwrite(path, 8, b"\x09")
    done = subprocess.run(
        [sys.executable, "-c", reader(), str(path)], capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.returncode) == (
        "not a recording of version 1 and of this byte order\n",
        1,
    )


def test_the_page_describes_the_version_that_is_written():
    assert f"version {VERSION}," in PAGE
    assert f'magic != b"{MAGIC.decode()[:6]}' in PAGE
    assert "`SMNREC` and the bytes 1a 0a" in PAGE
    assert MAGIC == b"SMNREC\x1a\n"


@pytest.mark.native
def test_the_table_of_sizes_is_by_the_formula(tmp_path):
    with Sampler(interval=10, backend="native", recorder=tmp_path) as sampler:
        pass
    assert sampler.recording_path is not None
    with Recording(sampler.recording_path) as recording:
        record_bytes = 8 * (5 + recording.columns)
    assert f"have {recording.columns} columns, so {record_bytes} bytes a row" in PAGE
    table = re.findall(
        r"^\| ([\d.]+) \| ([\d.]+) MB \| ([\d.]+) (days|hours|minutes) \|$", PAGE, re.MULTILINE
    )
    assert len(table) == 5
    for rate, megabytes, length, unit in table:
        seconds = float(length) * {"days": 86400, "hours": 3600, "minutes": 60}[unit]
        assert float(megabytes) == pytest.approx(record_bytes * float(rate) * 3600 / 1e6, rel=0.02)
        assert seconds == pytest.approx(64e6 / record_bytes / float(rate), rel=0.01)

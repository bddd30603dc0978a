"""`sysmetrics-native export`, of recordings: what other programs read in its files."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import subprocess
import tracemalloc
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from sysmetrics_native import Sampler, recording
from sysmetrics_native.export_formats import write_csv
from sysmetrics_native.export_table import table_of_recording
from sysmetrics_native.perfetto import Companion, base_of, write_trace
from sysmetrics_native.recording import Recording
from sysmetrics_native.recording_file import Row
from tests.installed_command import COMMAND
from tests.recordings import damage_row, describe, make_rows, write_recording
from tests.support import run_python

KEYS = ["share", "level", "sum", "speed"]

QUARTER_NS = 1_696_186_170_000_000_000
"""The base that PyTorch's profiler has around 1 700 000 000 s: 215 quarters of 7 889 238 s."""


class Outcome(NamedTuple):
    status: int
    output: bytes
    errors: str


def export(*arguments: str | Path) -> Outcome:
    """Run the installed command."""
    done = subprocess.run(
        [str(COMMAND), "export", *map(str, arguments)],
        capture_output=True,
        timeout=100,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.smnrec"
    write_recording(path, make_rows(200), description=describe(run=None))
    return path


@pytest.fixture
def node_path(tmp_path: Path) -> Path:
    path = tmp_path / "node.smnrec"
    write_recording(path, make_rows(40))
    return path


def expected(path: Path) -> list[list[float | None]]:
    """Seconds and values of each row, by the reader's rows and windows.

    A gauge and a total are their columns; of the counters only what a window says is compared, see
    `assert_windows`.
    """
    with Recording(path) as recorded:
        return [
            [
                row["wall_ns"].item() / 1e9,
                *(
                    None if math.isnan(value) else value * 1e-6
                    for value in row["columns"][2:].tolist()
                ),
            ]
            for row in recorded.rows
        ]


def assert_equal(path: Path, times: list[float], columns: dict[str, list[float | None]]) -> None:
    """The exported values are those of the rows and of the windows."""
    rows = expected(path)
    assert times == pytest.approx([row[0] for row in rows], abs=2e-6)
    assert columns["level"] == pytest.approx([row[1] for row in rows])
    assert columns["sum"] == pytest.approx([row[2] for row in rows])
    with Recording(path) as recorded:
        windows = list(recorded.windows())
    begin = times[0]
    compared = 0
    for window in windows:
        inside = [n for n, time in enumerate(times) if begin < time <= window.end + 2e-6]
        begin = times[inside[-1]]
        for key, series in window.items():
            values = [value for n in inside if (value := columns[key][n]) is not None]
            assert (min(values, default=None), max(values, default=None)) == (
                pytest.approx((series.min, series.max))
            ), (key, window)
            compared += len(values)
    assert compared > len(rows)


# ---- tables -------------------------------------------------------------------------------------


def test_csv(path):
    outcome = export(path, "--format", "csv")
    assert (outcome.status, outcome.errors) == (0, "")
    assert b"\r" not in outcome.output
    header, *lines = csv.reader(io.StringIO(outcome.output.decode()))
    assert header == ["time", *KEYS]
    times = [datetime.fromisoformat(line[0].replace("Z", "+00:00")).timestamp() for line in lines]
    columns = {
        key: [float(line[number]) if line[number] else None for line in lines]
        for number, key in enumerate(header[1:], 1)
    }
    assert_equal(path, times, columns)


def test_json(path):
    outcome = export(path, "--format", "json")
    assert (outcome.status, outcome.errors) == (0, "")
    document = json.loads(outcome.output, parse_constant=pytest.fail)
    assert document["columns"] == ["time", *KEYS]
    assert document["series"][0] == {
        "name": "share",
        "unit": "percentage",
        "kind": "ratio",
        "source": "test",
    }
    assert (document["title"], document["origin"]) == ("a.smnrec", "recording")
    assert document["interval_seconds"] == 0.5
    assert document["facts"]["host"] == "nowhere"
    times, *columns = map(list, zip(*document["rows"], strict=True))
    assert_equal(path, times, dict(zip(KEYS, columns, strict=True)))
    assert outcome.output.count(b"\n") == len(times) + 2  # a row in a line: for grep, and for head


def test_parquet(path, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "a.parquet"
    outcome = export(path, "-o", file)
    assert outcome == (0, b"", f"{file}: 200 rows\n")
    table = parquet.read_table(file)
    assert table.column_names == ["time", *KEYS]
    assert str(table.schema.field("time").type) == "timestamp[ns, tz=UTC]"
    assert table.schema.field("level").metadata == {
        b"unit": b"megabytes",
        b"kind": b"gauge",
        b"source": b"test",
    }
    about = json.loads(table.schema.metadata[b"sysmetrics_native"])
    assert about["facts"]["how it ended"] == "the sampler was stopped"
    nanoseconds = table["time"].cast("int64").to_pylist()
    with Recording(path) as recorded:
        assert nanoseconds == recorded.rows["wall_ns"].tolist()
    assert not any(table.column(key).to_pandas().isna().all() for key in KEYS)
    assert_equal(
        path, [time / 1e9 for time in nanoseconds], {key: table[key].to_pylist() for key in KEYS}
    )


def test_the_node_has_a_column_where_there_is_one(node_path, tmp_path):
    header, *lines = export(node_path, "--format", "csv").output.decode().splitlines()
    assert header == "time,node,share,level,sum,speed"
    assert {line.split(",")[1] for line in lines} == {"node-7"}
    document = json.loads(export(node_path, "--format", "json").output)
    assert {row[1] for row in document["rows"]} == {"node-7"}
    parquet = pytest.importorskip("pyarrow.parquet")
    export(node_path, "-o", tmp_path / "n.parquet")
    assert set(parquet.read_table(tmp_path / "n.parquet")["node"].to_pylist()) == {"node-7"}


def test_damaged_rows_are_left_out(path):
    damage_row(path, 7)
    assert len(export(path, "--format", "csv").output.splitlines()) == 1 + 199


def test_a_recording_that_is_being_written(tmp_path):
    with Sampler(0.01, 10, recorder=tmp_path) as sampler:
        window = sampler.next_window(timeout=30)
        assert window is not None
        outcome = export(tmp_path, "--format", "json")
    document = json.loads(outcome.output)
    assert document["facts"]["how it ended"] == "still being written"
    number = document["columns"].index("system_memory_usage_megabytes")
    values = [
        row[number] for row in document["rows"] if window.start + 1e-4 < row[0] <= window.end + 1e-4
    ]
    memory = window["system_memory_usage_megabytes"]
    assert (min(values), max(values)) == pytest.approx((memory.min, memory.max))


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_BYTES_OF_ROWS_AT_ONCE", 1 << 16)
    monkeypatch.setattr(recording, "_BYTES_AT_ONCE", 1 << 16)
    rows = make_rows(20_000)
    most = {}
    for count in (10_000, 20_000):
        path = tmp_path / f"{count}.smnrec"
        write_recording(path, rows[:count], capacity=1 << 16)
        with Recording(path) as recorded, Path(os.devnull).open("wb") as file:
            tracemalloc.start()
            written = write_csv(table_of_recording(recorded), file)
            most[count] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert written == count
    assert most[20_000] < 1.1 * most[10_000]


# ---- traces -------------------------------------------------------------------------------------

TORCH = """{
  "schemaVersion": 1,
  "deviceProperties": [{"id": 0, "name": "one"}],
  "displayTimeUnit": "ms",%s
  "traceEvents": [
  {
    "ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 71, "tid": 71,
    "ts": %s, "dur": 250.000, "args": {"External id": 1}
  }%s
  ],
  "traceName": "torch.pt.trace.json"
}
"""

MORE = """,
  {"ph": "M", "name": "process_name", "pid": 71, "tid": 0, "ts": 0, "args": {"name": "python"}}"""


def of_phase(trace: Any, phase: str) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event["ph"] == phase]


def test_the_base_is_that_of_pytorch():
    # As traces of PyTorch 2.4 and later have it.
    assert base_of(1_700_000_000.0) == QUARTER_NS
    assert base_of(1_743_521_597.9) == 1_735_632_360_000_000_000
    assert base_of(1_743_521_598.0) == 1_743_521_598_000_000_000
    assert base_of(1_765_217_844.7) == 1_759_300_074_000_000_000


def test_a_trace_has_every_value_at_its_time(node_path):
    outcome = export(node_path, "--format", "perfetto")
    assert (outcome.status, outcome.errors) == (0, "")
    trace = json.loads(outcome.output)
    assert trace["baseTimeNanoseconds"] == QUARTER_NS
    names = [event["args"] for event in of_phase(trace, "M") if event["name"] == "process_name"]
    assert names == [{"name": "System metrics of node-7"}]
    counters = of_phase(trace, "C")
    assert {event["pid"] for event in counters} == {trace["traceEvents"][0]["pid"]}
    found = {
        key: [
            (event["ts"] * 1e-6 + QUARTER_NS / 1e9, *event["args"].items())
            for event in counters
            if event["name"] == key
        ]
        for key in KEYS
    }
    rows = expected(node_path)
    for key, number in (("level", 1), ("sum", 2)):
        there = [row for row in rows if row[number] is not None]
        assert [time for time, _ in found[key]] == pytest.approx(
            [row[0] for row in there], abs=1e-6
        )
        assert [value for _, (_, value) in found[key]] == [row[number] for row in there]
        assert {unit for _, (unit, _) in found[key]} == {"megabytes"}
    # A counter changes where the stretch begins that its value describes: at the reading before.
    times = [row[0] for row in rows]
    with Recording(node_path) as recorded:
        table = table_of_recording(recorded)
        (batch,) = table.batches
    ends = [times[row] for row in np.flatnonzero(~np.isnan(batch.values[3]))]
    begins = [time for time, _ in found["speed"]]
    assert len(begins) == len(ends) > 20
    assert all(begin < end for begin, end in zip(begins, ends, strict=True))
    assert all(min(abs(begin - time) for time in times) < 1e-6 for begin in begins)
    assert found["share"][0][1][0] == "percentage"


def test_gaps_are_slices(tmp_path):
    path = tmp_path / "a.smnrec"
    rows = make_rows(60)
    write_recording(path, rows)
    trace = json.loads(export(path, "--format", "perfetto").output)
    slices = {(event["ts"], event["dur"]) for event in of_phase(trace, "X")}
    assert slices == set(gaps_of(rows))
    assert len(slices) > 3


def gaps_of(rows: list[Row]) -> Iterator[tuple[float, float]]:
    """Microseconds of more than three ticks between two rows."""
    for i in range(1, len(rows)):
        passed_ns = rows[i].time.monotonic_ns - rows[i - 1].time.monotonic_ns
        if passed_ns > 1_500_000_000:
            yield (rows[i - 1].time.wall_ns - QUARTER_NS) / 1000, passed_ns / 1000


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("more", ["", MORE], ids=["one event", "two events"])
@pytest.mark.parametrize("base", [QUARTER_NS, QUARTER_NS + 7_000_000_000, 0])
def test_events_of_a_profiler_are_in_the_same_trace_on_the_same_clock(
    node_path, tmp_path, base, more, compressed
):
    # The multiplication begins with the tenth row, to the microsecond.
    with Recording(node_path) as recorded:
        begin_ns = recorded.rows["wall_ns"][10].item()
    microseconds = f"{(begin_ns - base) // 1000}.{(begin_ns - base) % 1000:03}"
    about_base = f'\n  "baseTimeNanoseconds": {base},' if base else ""
    text = (TORCH % (about_base, microseconds, more)).encode()
    torch = tmp_path / "torch.json"
    torch.write_bytes(gzip.compress(text) if compressed else text)
    both = tmp_path / "both.json"

    outcome = export(node_path, "--format", "perfetto", "--with-trace", torch, "-o", both)

    assert (outcome.status, outcome.output) == (0, b"")
    trace = json.loads(both.read_bytes())
    original = json.loads(text)
    assert [event for event in trace["traceEvents"] if event["pid"] == 71] == original[
        "traceEvents"
    ]
    assert {**trace, "traceEvents": []} == {**original, "traceEvents": []}
    (multiplication,) = (event for event in of_phase(trace, "X") if event["pid"] == 71)
    sums = [event for event in of_phase(trace, "C") if event["name"] == "sum"]
    assert outcome.errors == f"{both}: {len(of_phase(trace, 'C'))} values\n"
    row_10 = expected(node_path)[10]
    at_once = [event for event in sums if event["ts"] == multiplication["ts"]]
    assert [event["args"]["megabytes"] for event in at_once] == [row_10[2]]


def test_a_profiler_that_has_seen_nothing_and_one_that_began_in_the_middle(node_path, tmp_path):
    torch = tmp_path / "torch.json"
    with Recording(node_path) as recorded:
        base = recorded.rows["wall_ns"][20].item()
        torch.write_text(f'{{"baseTimeNanoseconds": {base}, "traceEvents": [ \n ]}}', "utf-8")
        file = io.BytesIO()
        write_trace(recorded, file, Companion(str(torch)))
    trace = json.loads(file.getvalue())
    assert min(event["ts"] for event in of_phase(trace, "C")) == 0
    assert all(event["ts"] >= 0 for event in trace["traceEvents"])


def test_the_parts_of_a_trace_may_be_cut_anywhere(node_path, tmp_path, monkeypatch):
    torch = tmp_path / "torch.json"
    torch.write_text(TORCH % (f'"baseTimeNanoseconds": {QUARTER_NS},', 1.5, MORE), "utf-8")
    with Recording(node_path) as recorded:
        whole, in_parts = io.BytesIO(), io.BytesIO()
        write_trace(recorded, whole, Companion(str(torch)))
        monkeypatch.setattr("sysmetrics_native.perfetto._BYTES_AT_ONCE", 3)
        write_trace(recorded, in_parts, Companion(str(torch)))
    assert in_parts.getvalue() == whole.getvalue()
    assert json.loads(whole.getvalue())["baseTimeNanoseconds"] == QUARTER_NS


# ---- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PATH"], "say which one: --format parquet|csv|json|perfetto"),
        (["PATH", "-o", "file.txt"], "say which one: --format"),
        (["PATH", "--format", "xml"], "'xml' is not one of 'parquet', 'csv', 'json', 'perfetto'"),
        (["PATH", "--format", "csv", "--with-trace", "PATH"], "--with-trace goes with --format"),
        (["PATH", "--format", "perfetto", "--with-trace", "PATH"], "it has no list of traceEvents"),
        (["gone.smnrec", "--format", "csv"], "gone.smnrec does not exist"),
        (["README", "--format", "csv"], "README is not a recording"),
        ([], "Missing argument 'RUN_ID|PATH'"),
    ],
)
def test_wrong_usage_is_said_in_one_line(path, tmp_path, arguments, message):
    (tmp_path / "README").write_text("x", encoding="utf-8")
    places = {"PATH": str(path), "README": str(tmp_path / "README")}
    outcome = export(*(places.get(argument, argument) for argument in arguments))
    assert (outcome.status, outcome.output) == (2, b"")
    (line,) = (line for line in outcome.errors.splitlines() if line.startswith("Error: "))
    assert message in line


def test_a_recording_without_rows(tmp_path):
    path = tmp_path / "a.smnrec"
    write_recording(path, [])
    outcome = export(path, "-o", tmp_path / "a.csv")
    assert outcome == (1, b"", f"Error: {path} has no rows\n")
    assert not (tmp_path / "a.csv").exists()


def test_a_file_that_cannot_be_written(path, tmp_path):
    outcome = export(path, "-o", tmp_path / "no" / "a.csv")
    assert (outcome.status, outcome.output) == (1, b"")
    file = f"{tmp_path / 'no' / 'a.csv'}.unfinished"
    assert outcome.errors == f"Error: Could not open file '{file}': No such file or directory\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk(path):
    outcome = export(path, "--format", "csv", "-o", "/dev/full")
    assert outcome.status == 1
    assert "No space left on device" in outcome.errors
    assert "Traceback" not in outcome.errors


def test_a_file_is_replaced_only_by_a_whole_one(path, tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("old", encoding="utf-8")
    program = """
        import sys
        from sysmetrics_native.cli import export
        try:
            with export._open(sys.argv[1]) as file:
                file.write(b"half of it")
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            print("interrupted")
    """
    done = run_python(program, str(file))
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
    assert file.read_text(encoding="utf-8") == "old"
    assert export(path, "-o", file).status == 0
    assert file.read_bytes().startswith(b"time,share,")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.csv", "a.smnrec"]


def test_whoever_reads_only_the_beginning_sees_no_error(tmp_path):
    path = tmp_path / "long.smnrec"
    write_recording(path, make_rows(10_000), capacity=1 << 14)
    process = subprocess.Popen(
        [str(COMMAND), "export", str(path), "--format", "csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"time,node,share,level,sum,speed\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_parquet_is_not_written_to_a_terminal(path):
    terminal, other_end = os.openpty()
    done = subprocess.run(
        [str(COMMAND), "export", str(path), "--format", "parquet"],
        stdout=other_end,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(other_end)
    os.close(terminal)
    assert done.returncode == 2
    assert b"name a file with -o" in done.stderr


@pytest.mark.parametrize(
    ("module", "form", "name"),
    [("numpy", "csv", "NumPy"), ("numpy", "perfetto", "NumPy"), ("pyarrow", "parquet", "PyArrow")],
)
def test_what_is_missing_is_said(path, tmp_path, module, form, name):
    program = """
        import sys
        sys.modules[sys.argv[1]] = None  # as if it were not installed
        from sysmetrics_native.cli import main
        main(["export", sys.argv[2], "--format", sys.argv[3], "-o", sys.argv[4]])
    """
    done = run_python(program, module, str(path), form, str(tmp_path / "file"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: this needs {name}, which is not installed: "
        "pip install 'sysmetrics-native[export]'\n"
    )
    assert not (tmp_path / "file").exists()


def test_a_run_without_mlflow_says_what_is_missing():
    program = """
        import sys
        sys.modules["mlflow"] = None  # as if it were not installed
        from sysmetrics_native.cli import main
        main(["export", "4f1d0c3a5b6e4c0f", "--format", "csv"])
    """
    done = run_python(program)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: 4f1d0c3a5b6e4c0f is no file, and to ask a tracking server for the run needs "
        "MLflow, which is not installed: pip install 'mlflow>=2.9'\n"
    )


def test_help_has_examples():
    outcome = export("--help")
    assert outcome.status == 0
    for text in (b"Examples:", b"Exit status:", b"sysmetrics-native[export]", b"--with-trace"):
        assert text in outcome.output


def test_csv_times_are_utc(path):
    first = export(path, "--format", "csv").output.splitlines()[1].split(b",")[0].decode()
    with Recording(path) as recorded:
        microseconds = recorded.rows["wall_ns"][0].item() // 1000
    moment = datetime.fromtimestamp(microseconds / 1e6, timezone.utc)
    assert first == f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"

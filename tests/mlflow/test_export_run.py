"""`sysmetrics-native export` and timelines, of runs: what a tracking server has, in files."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

import sysmetrics_native
from sysmetrics_native import SystemMetricsMonitor
from sysmetrics_native.timeline import open_timeline
from tests.installed_command import run_command
from tests.mlflow.logged import DEFAULT_NAMES, Logged
from tests.mlflow.server import Server

CPU = "cpu_utilization_percentage"
START_MS = 1_700_000_000_000


def export(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    return run_command("export", *arguments)


def monitored_run(tracking_uri: str, node_id: str | None = None) -> str:
    """A run that our monitor has logged a few windows of."""
    client = MlflowClient(tracking_uri)
    run_id = str(client.create_run("0").info.run_id)
    monitor = SystemMetricsMonitor(
        run_id,
        sampling_interval=0.02,
        samples_before_logging=5,
        tracking_uri=tracking_uri,
        node_id=node_id,
    )
    monitor.start()
    time.sleep(0.55)
    monitor.finish()
    client.set_terminated(run_id)
    return run_id


@pytest.fixture
def made_up_run(database: str) -> str:
    """A run with two nodes, statistics, a gap, and a value that was logged twice."""
    client = MlflowClient(database)
    run_id = str(client.create_run("0", run_name="made up").info.run_id)
    client.set_tag(run_id, "system/a/b/gpu_0", '{"name":"H100","uuid":"GPU-1"}')
    metrics = [Metric("loss", 1.0, START_MS, 0)]
    for step in (0, 1, 2, 3, 10, 11):
        stamp = START_MS + step * 1000
        metrics += [
            Metric(f"system/a/b/{CPU}", step, stamp, step),
            Metric(f"system/a/b/{CPU}_min", step - 1, stamp, step),
            Metric(f"system/a/b/{CPU}_max", step + 2, stamp, step),
            Metric(f"system/a/b/{CPU}_p99", step + 1, stamp, step),
            Metric("system/c/network_receive_megabytes", step * 0.5, stamp + 500, step),
        ]
    metrics.append(Metric(f"system/a/b/{CPU}", 30.0, START_MS + 3000, 4))
    client.log_batch(run_id, metrics=metrics)
    client.set_terminated(run_id)
    return run_id


# ---- a timeline ---------------------------------------------------------------------------------


def test_a_timeline_of_a_run(made_up_run, database):
    timeline = open_timeline(made_up_run, database)
    assert (timeline.title, timeline.origin, timeline.interval) == ("made up", "run", 1.0)
    assert timeline.start == START_MS / 1000
    assert list(timeline.facts)[:3] == ["run", "experiment", "status"]
    assert timeline.facts["experiment"] == "Default"
    assert timeline.facts["status"] == "FINISHED"
    assert timeline.facts["GPU 0 of a/b"] == "H100"
    cpu, network = timeline.tracks
    assert (cpu.key, cpu.node, cpu.unit, cpu.kind) == (CPU, "a/b", "percentage", "")
    nan = np.nan
    assert (cpu.times - 1.7e9).tolist() == [0, 1, 2, 3, 6.5, 10, 11]
    assert np.array_equal(cpu.values, [0, 1, 2, 30, nan, 10, 11], equal_nan=True)
    assert cpu.low is not None
    assert np.array_equal(cpu.low, [-1, 0, 1, 2, nan, 9, 10], equal_nan=True)
    assert cpu.high is not None
    assert np.array_equal(cpu.high, [2, 3, 4, 5, nan, 12, 13], equal_nan=True)
    assert (network.key, network.node) == ("network_receive_megabytes", "c")
    assert (network.unit, network.kind) == ("megabytes", "total")
    assert (network.low, network.high) == (None, None)


@pytest.mark.once
def test_percentiles_are_tracks_where_they_are_asked_for(made_up_run, database):
    tracks = {
        track.key: track for track in open_timeline(made_up_run, database, percentiles=True).tracks
    }
    assert set(tracks) == {CPU, f"{CPU}_p99", "network_receive_megabytes"}
    assert tracks[f"{CPU}_p99"].unit == "percentage"
    assert np.nanmax(tracks[f"{CPU}_p99"].values) == 12.0


@pytest.mark.once
def test_a_series_without_its_mean_is_known_by_what_comes_closest(database):
    client = MlflowClient(database)
    run_id = client.create_run("0").info.run_id
    client.log_metric(run_id, f"system/{CPU}_max", 7.0, START_MS, 0)
    client.log_metric(run_id, f"system/{CPU}_p95", 6.0, START_MS, 0)
    (track,) = open_timeline(run_id, database).tracks
    assert (track.key, track.values.tolist()) == (CPU, [6.0])
    assert track.low is None
    assert track.high is not None
    assert track.high.tolist() == [7.0]


def test_a_run_that_is_not_there(database):
    with pytest.raises(ValueError, match=r"there is no run 12345678 to be had: .*not found"):
        open_timeline("12345678", database)


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.once
def test_a_run_of_ours_has_in_every_format_what_was_logged(database, tmp_path):
    sysmetrics_native.configure(statistics="mean,min,max,p99")
    run_id = monitored_run(database)
    logged = Logged(run_id, database)
    keys = sorted(metric.removeprefix("system/") for metric in logged.metrics())
    assert set(DEFAULT_NAMES) < set(keys)

    done = export(run_id, "--format", "csv", "--tracking-uri", database)
    assert (done.returncode, done.stderr) == (0, "")
    lines = list(csv.DictReader(io.StringIO(done.stdout)))
    assert sorted(lines[0]) == sorted(["time", *keys])
    document = json.loads(export(run_id, "--format", "json", "--tracking-uri", database).stdout)
    assert (document["title"], document["origin"]) == (mlflow_name(run_id, database), "run")
    for key in keys:
        values = logged.values(key)
        assert [float(line[key]) for line in lines if line[key]] == values
        number = document["columns"].index(key)
        assert [row[number] for row in document["rows"] if row[number] is not None] == values
    times = [row[0] for row in document["rows"]]
    assert times == pytest.approx(logged.ends(), abs=1e-6)
    units = {series["name"]: series["unit"] for series in document["series"]}
    assert units[f"{CPU}_max"] == "percentage"

    parquet = pytest.importorskip(
        "pyarrow.parquet", reason="pyarrow, of the extra `export`, is not installed"
    )
    file = tmp_path / "run.parquet"
    done = export(run_id, "-o", file, "--tracking-uri", database)
    assert done.returncode == 0
    table = parquet.read_table(file)
    assert [value for value in table[f"{CPU}_p99"].to_pylist() if value is not None] == (
        logged.values(f"{CPU}_p99")
    )
    assert table.schema.field(CPU).metadata[b"unit"] == b"percentage"


def mlflow_name(run_id: str, tracking_uri: str) -> str:
    return str(MlflowClient(tracking_uri).get_run(run_id).info.run_name)


@pytest.mark.once
def test_nodes_have_rows_of_their_own(made_up_run, database):
    done = export(made_up_run, "--format", "csv", "--tracking-uri", database)
    lines = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(lines) == 12
    assert lines[0] == {
        "time": "2023-11-14T22:13:20.000000Z",
        "node": "a/b",
        CPU: "0.0",
        f"{CPU}_min": "-1.0",
        f"{CPU}_max": "2.0",
        f"{CPU}_p99": "1.0",
        "network_receive_megabytes": "",
    }
    assert (lines[1]["node"], lines[1][CPU]) == ("c", "")
    assert lines[1]["network_receive_megabytes"] == "0.0"
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)


@pytest.mark.once
def test_a_trace_of_a_run(made_up_run, database):
    done = export(made_up_run, "--format", "perfetto", "--tracking-uri", database)
    trace = json.loads(done.stdout)
    base = trace["baseTimeNanoseconds"] / 1e9
    names = {
        event["pid"]: event["args"]["name"]
        for event in trace["traceEvents"]
        if event["name"] == "process_name"
    }
    assert sorted(names.values()) == ["System metrics of a/b", "System metrics of c"]
    counters = [event for event in trace["traceEvents"] if event["ph"] == "C"]
    cpu = [event for event in counters if event["name"] == CPU]
    assert {names[event["pid"]] for event in cpu} == {"System metrics of a/b"}
    # A mean is that of the window before its timestamp; behind a gap of a usual one.
    begins = [round(event["ts"] * 1e-6 + base - 1.7e9, 3) for event in cpu]
    assert begins == [-1, 0, 1, 2, 9, 10]
    assert [event["args"] for event in cpu[:2]] == [{"percentage": 0.0}, {"percentage": 1.0}]
    network = [event for event in counters if event["name"] == "network_receive_megabytes"]
    totals = [round(event["ts"] * 1e-6 + base - 1.7e9, 3) for event in network]
    assert totals == [0.5, 1.5, 2.5, 3.5, 10.5, 11.5]
    gaps = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [event["dur"] for event in gaps] == [7e6, 7e6]


def test_a_run_of_a_server(server: Server):
    run_id = monitored_run(server.uri, node_id="rank-0")
    done = export(run_id, "--format", "json", "--tracking-uri", server.uri)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert {row[1] for row in document["rows"]} == {"rank-0"}
    assert {series["name"] for series in document["series"]} == set(DEFAULT_NAMES)
    history = MlflowClient(server.uri).get_metric_history(run_id, f"system/rank-0/{CPU}")
    number = document["columns"].index(CPU)
    values = [row[number] for row in document["rows"] if row[number] is not None]
    assert values == [entry.value for entry in sorted(history, key=lambda entry: entry.timestamp)]


def test_a_run_of_mlflows_own_monitor(uses_database):
    sysmetrics_native.configure(enabled=False)
    mlflow.set_system_metrics_sampling_interval(0.3)
    try:
        with mlflow.start_run(log_system_metrics=True) as run:
            time.sleep(1)
    finally:
        mlflow.set_system_metrics_sampling_interval(None)
    run_id = run.info.run_id
    timeline = open_timeline(run_id)
    assert {track.key for track in timeline.tracks} == set(DEFAULT_NAMES)
    assert all(track.unit for track in timeline.tracks)
    done = export(run_id, "--format", "csv", "--tracking-uri", uses_database)
    lines = list(csv.DictReader(io.StringIO(done.stdout)))
    values = Logged(run_id).values(CPU)
    assert [float(line[CPU]) for line in lines if line[CPU]] == pytest.approx(values)
    assert len(values) > 0


@pytest.mark.once
def test_a_run_without_system_metrics(database, tmp_path):
    run_id = MlflowClient(database).create_run("0").info.run_id
    done = export(run_id, "-o", tmp_path / "a.csv", "--tracking-uri", database)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: the run {run_id} has no system metrics\n"
    assert not (tmp_path / "a.csv").exists()


def test_a_run_that_is_not_there_is_wrong_usage(database):
    done = export("12345678", "--format", "csv", "--tracking-uri", database)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("Error: "))
    assert "there is no run 12345678 to be had" in line


def test_a_server_that_does_not_answer_is_no_wrong_usage(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = "http://ann:a-secret@127.0.0.1:9"  # the discard port: nobody listens
    done = export("12345678", "--format", "csv", "--tracking-uri", uri)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: the tracking server could not be asked for run 12345678: ")
    assert "a-secret" not in line

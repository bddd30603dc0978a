"""`sysmetrics-native report` of real runs in a real database; the page among their artifacts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

pytest.importorskip("plotly", reason="plotly, of the extra `report`, is not installed")

import numpy as np

from sysmetrics_native import SystemMetricsMonitor, configure
from tests.installed_command import run_command
from tests.mlflow.logged import Logged
from tests.pages import Page

ARTIFACT = "system_metrics/report.html"


def report(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    return run_command("report", *arguments, folder=folder)


def make_run(name: str, artifacts: Path, **options: object) -> str:
    """A run with some windows of this machine's metrics."""
    configure(statistics="mean,min,max", **options)
    experiment = mlflow.create_experiment("pictures", artifacts.as_uri())
    with mlflow.start_run(experiment_id=experiment, run_name=name) as run:
        monitor = SystemMetricsMonitor(
            run.info.run_id, sampling_interval=0.05, samples_before_logging=3
        )
        monitor.start()
        Logged(run.info.run_id).wait_for(windows=3)
        monitor.finish()
    return str(run.info.run_id)


def artifacts_of(run_id: str, uri: str) -> list[str]:
    return [file.path for file in MlflowClient(uri).list_artifacts(run_id, "system_metrics")]


def test_a_run_becomes_a_page_and_the_page_an_artifact(uses_database, tmp_path):
    run_id = make_run("a <b>bold</b> run", tmp_path / "artifacts")
    done = report(run_id, "--log-artifact", "--tracking-uri", uses_database, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"report-{run_id}.html\n"
    text = (tmp_path / f"report-{run_id}.html").read_text(encoding="utf-8")
    assert artifacts_of(run_id, uses_database) == [ARTIFACT]
    stored = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=ARTIFACT)
    assert Path(stored).read_text(encoding="utf-8") == text

    page = Page(text)
    assert "a <b>bold</b> run" in page.text
    assert f"run\n{run_id}" in page.text
    assert "experiment\npictures" in page.text
    assert "status\nFINISHED" in page.text
    logged = Logged(run_id, uses_database)
    line = page.line("all cores")
    for name, key in (("y", ""), ("low", "_min"), ("high", "_max")):
        values = logged.values(f"cpu_utilization_percentage{key}")
        np.testing.assert_allclose(line[name], values, rtol=1e-6)


@pytest.mark.once
def test_the_recording_of_a_run_puts_its_page_on_that_run(uses_database, tmp_path):
    path = tmp_path / "job.smnrec"
    run_id = make_run("recorded", tmp_path / "artifacts", recorder=str(path))
    done = report(path, "-o", "page.html", "--log-artifact", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "page.html\n"), done.stderr
    assert artifacts_of(run_id, uses_database) == [ARTIFACT]
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "job.smnrec" in page.text
    assert run_id in page.text


@pytest.mark.once
def test_a_run_that_is_not_there(uses_database, tmp_path):
    done = report("0" * 32, "--tracking-uri", uses_database, folder=tmp_path)
    assert done.returncode == 2
    assert "there is no run" in done.stderr
    assert not list(tmp_path.glob("report-*"))

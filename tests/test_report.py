"""The page of a run or recording: complete in itself, true to the numbers, safe to open."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("plotly", reason="plotly, of the extra `report`, is not installed")

import numpy as np

from sysmetrics_native import Sampler
from sysmetrics_native.report import charts
from sysmetrics_native.report.page import MOST_POINTS, energy_text, make_page
from tests.installed_command import run_command
from tests.pages import Page, numbers
from tests.support import run_python
from tests.timelines import make_timeline, make_track

MOST_BYTES = 8_000_000
NASTY = "<script>alert('\"&</script><img src=x onerror=alert(1)>"


def page_of(tracks: object, **changes: object) -> Page:
    return Page(make_page(make_timeline(tracks, **changes)))  # type: ignore[arg-type]


def report(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    return run_command("report", *arguments, folder=folder)


# ---- nothing leaves, nothing gets in ------------------------------------------------------------


def test_it_refers_to_nothing_outside():
    page = page_of({"cpu_utilization_percentage": 40, "gpu_0_power_usage_watts": 300})
    loading = {"src", "href", "srcset", "action", "data", "poster", "background", "ping"}
    for tag, attributes in page.elements:
        assert not loading & set(attributes), tag
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "a")
    for style in page.styles:
        assert "url(" not in style
        assert "@import" not in style


def test_its_policy_allows_no_request_and_only_its_own_scripts():
    page = page_of({"cpu_utilization_percentage": 40})
    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert rules.pop("style-src") == "'unsafe-inline'"
    assert rules.pop("img-src") == "data:"  # which are in the page
    assert rules.pop("default-src") == rules.pop("base-uri") == rules.pop("form-action") == "'none'"
    hashes = rules.pop("script-src").split()
    assert rules == {}
    run = [
        script
        for attributes, script in zip(page.all("script"), page.scripts, strict=True)
        if attributes.get("type") is None
    ]
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in run]
    assert hashes == [f"'sha256-{digest}'" for digest in digests]
    assert len(run) == 2


def test_text_cannot_become_markup():
    tracks = [
        make_track("cpu_utilization_percentage", 99, node=NASTY),
        make_track("cpu_utilization_percentage", 99, node="b"),
        make_track(NASTY, 3, node=NASTY, unit=NASTY),
        make_track(f"disk_usage_percentage{NASTY}", 99, node="b"),
    ]
    page = page_of(tracks, title=NASTY, facts={"run": NASTY, NASTY: "x"})
    assert len(page.all("script")) == 3
    assert not page.all("img")
    assert "onerror" not in " ".join(name for _, attrs in page.elements for name in attrs)
    assert page.text.count(NASTY) >= 4
    assert page.data["charts"]


# ---- true to the numbers ------------------------------------------------------------------------


def test_the_lines_are_the_values_with_their_bands():
    values = np.linspace(10, 60, 50)
    page = page_of([make_track("cpu_utilization_percentage", values, spread=5.0)])
    line = page.line("all cores")
    np.testing.assert_allclose(line["y"], values, rtol=1e-6)
    np.testing.assert_allclose(line["low"], values - 5, rtol=1e-6)
    np.testing.assert_allclose(line["high"], values + 5, rtol=1e-6)
    np.testing.assert_allclose(line["x"], np.arange(1, 51))  # seconds after the start


def test_a_gap_stays_a_gap_and_is_told():
    values = np.full(100, 40.0)
    values[50] = np.nan
    page = page_of({"cpu_utilization_percentage": values})
    assert np.flatnonzero(np.isnan(page.line("all cores")["y"])).tolist() == [50]
    assert re.search(r"gaps\n1, 2 s in all, the longest 2 s", page.text)


def test_a_gap_of_one_source_is_no_gap_of_the_run():
    values = np.full(100, 40.0)
    values[50] = np.nan
    page = page_of({"cpu_utilization_percentage": values, "system_memory_usage_percentage": 40})
    assert "\ngaps\n" not in page.text


def test_a_million_rows_keep_their_extremes_and_the_page_its_size():
    chance = np.random.default_rng(7)
    values = chance.uniform(20, 30, 1_000_000)
    values[123_456], values[765_432] = 99.5, 0.5
    values[500_000:600_000] = np.nan
    tracks = [
        make_track("cpu_utilization_percentage", values, interval=0.001),
        *(make_track(f"gpu_{n}_utilization_percentage", values, interval=0.001) for n in range(4)),
    ]
    page = page_of(tracks, interval=0.001)
    assert len(page.html.encode()) < MOST_BYTES
    line = page.line("all cores")
    assert len(line["y"]) <= MOST_POINTS
    assert np.nanmax(line["high"]) == 99.5
    assert np.nanmin(line["low"]) == 0.5
    assert np.isnan(line["y"]).any()
    assert "0.50\n" in page.text  # in the table of numbers
    assert "99.5\n" in page.text


def test_a_big_cluster_gets_a_page_that_can_be_opened():
    tracks = [
        make_track(f"gpu_{gpu}_{key}", np.linspace(1, 90, 2000), node=f"node-{node}", spread=1.0)
        for node in range(16)
        for gpu in range(8)
        for key in ("utilization_percentage", "memory_usage_percentage", "power_usage_watts")
    ]
    page = page_of(tracks)
    assert len(page.html.encode()) < MOST_BYTES
    assert page.text.count("More of") == 0
    assert "node-15, GPU 7" in page.text


def test_traffic_is_derived_from_totals_where_there_are_no_rates():
    page = page_of({"network_receive_megabytes": np.cumsum([5.0] * 20)})
    line = page.line("received")
    np.testing.assert_allclose(line["y"][1:], 5.0, rtol=1e-5)
    assert np.isnan(line["y"][0])


# ---- which charts -------------------------------------------------------------------------------


def test_subjects_and_what_none_of_them_claims():
    timeline = make_timeline(
        {
            "cpu_utilization_percentage": 1,
            "system_memory_usage_percentage": 1,
            "disk_usage_percentage": 1,
            "disk_usage_percentage_data": 2,
            "network_receive_megabytes_per_second": 1,
            "rdma_receive_megabytes_per_second": 1,
            "pressure_io_some_percentage": 1,
            "gpu_0_utilization_percentage": 1,
            "gpu_0_mig_2_memory_usage_percentage": 1,
            "cpu_package_0_power_watts": 1,
            "load_average_1m": 1,
        }
    )
    sections = {section.name: section for section in charts.sections(timeline)}
    assert list(sections) == [
        *("cpu", "memory", "disk", "network", "pressure", "gpu", "energy", "others")
    ]
    (disk,) = sections["disk"].rows[0].panels
    assert [line.label for line in disk.lines] == ["file system", "file system data"]
    labels = [line.label for panel in sections["gpu"].rows[0].panels for line in panel.lines]
    assert labels == ["utilization", "memory of instance 2"]
    assert [row.title for row in sections["others"].rows] == ["load_average_1m"]


def test_each_gpu_of_each_node_has_a_row_with_the_same_axes():
    tracks = [
        make_track(f"gpu_{gpu}_power_usage_watts", 100.0 * gpu + 100, node=node)
        for node in ("a", "b")
        for gpu in (0, 10, 2)
    ]
    (section,) = charts.sections(make_timeline(tracks))
    assert [row.title for row in section.rows] == [
        *("a, GPU 0", "a, GPU 2", "a, GPU 10", "b, GPU 0", "b, GPU 2", "b, GPU 10")
    ]
    assert {row.panels[0].top for row in section.rows} == {1100 * 1.05}


def test_the_limit_of_the_container_is_drawn():
    page = page_of(
        {
            "container_memory_usage_megabytes": [1000.0, 2000.0, 4000.0],
            "container_memory_usage_percentage": [12.5, 25.0, 50.0],
        }
    )
    line = page.line("limit of the container")
    assert line["limit"] is True
    np.testing.assert_allclose(line["y"], [8000.0, 8000.0])


def test_large_amounts_are_in_gigabytes():
    page = page_of({"system_memory_usage_megabytes": 64_000.0, "swap_usage_megabytes": 500.0})
    (chart,) = page.data["charts"]
    assert chart["unit"] == "GB"
    np.testing.assert_allclose(page.line("machine")["y"], 64.0)
    np.testing.assert_allclose(page.line("swap")["y"], 0.5)


# ---- facts and words ----------------------------------------------------------------------------


def test_energy_is_summed_from_counters_and_else_from_power():
    timeline = make_timeline(
        [
            make_track("cpu_package_0_energy_joules", np.linspace(0, 3600, 100), kind="total"),
            make_track("gpu_0_energy_joules", np.linspace(0, 7200, 100), kind="total"),
            make_track("gpu_0_power_usage_watts", 999.0),  # the counter knows better
            make_track("gpu_1_power_usage_watts", 72.0),
        ]
    )
    assert energy_text(timeline) == (
        "5 Wh (18 kJ): CPU packages 1 Wh (3.60 kJ), GPUs 4 Wh (14.4 kJ)"
    )
    assert energy_text(make_timeline({"cpu_utilization_percentage": 1})) == ""


def test_verdict_and_facts_are_readable_without_charts():
    page = page_of({"cpu_utilization_percentage": 97}, facts={"host": "box", "status": "FAILED"})
    assert "The CPUs were the limit: all of them busy for 100 % of the time." in page.text
    assert "utilization of all cores: mean 97 %, highest 97 %" in page.text
    assert "no GPU metrics in this run" in page.text
    assert "host\nbox" in page.text
    (button,) = [one for one in page.all("button") if "data-from" in one]
    assert (button["data-from"], button["data-to"]) == ("0", "100000")


def test_a_run_without_metrics_has_a_page_too():
    page = page_of([])
    assert "There are no system metrics to judge." in page.text
    assert page.data["charts"] == []


def test_units():
    assert [charts.unit_text(unit) for unit in ("percentage", "megabytes per second", "")] == [
        *("%", "MB/s", "")
    ]
    assert charts.unit_text("packets per second") == "packets/s"
    assert charts.unit_text("per second") == "/s"


# ---- the command --------------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path: Path, backend: str) -> Path:
    """A real one."""
    path = tmp_path / "job one.smnrec"
    with Sampler(0.02, samples_per_window=5, recorder=path, backend=backend) as sampler:
        for _ in range(3):
            sampler.next_window(timeout=30)
    return path


def test_a_recording_becomes_a_page_in_the_current_folder(recording, tmp_path):
    done = report(recording, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "report-job-one.html\n"
    page = Page((tmp_path / "report-job-one.html").read_text(encoding="utf-8"))
    assert "job one.smnrec" in page.text
    assert "sysmetrics-native" in page.text
    assert all(0 <= value <= 100 for value in page.line("all cores")["y"])
    ticks = max((numbers(times) for times in page.data["times"]), key=len)
    assert len(ticks) > 10
    assert (np.diff(ticks) > 0).all()


def test_the_page_on_the_standard_output(recording, tmp_path):
    done = report(recording, "-o", "-", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("<!DOCTYPE html>")
    assert done.stdout.endswith("</html>\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job one.smnrec"]


def test_a_folder_with_one_recording_and_a_name_of_ones_own(recording, tmp_path):
    done = report(tmp_path, "-o", "page.html", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "page.html\n")
    assert (tmp_path / "page.html").stat().st_size < MOST_BYTES


def test_a_page_that_cannot_be_written(recording, tmp_path):
    done = report(recording, "-o", tmp_path / "no" / "page.html", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the page could not be written: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_recording_of_no_run_cannot_go_on_one(recording, tmp_path):
    done = report(recording, "--log-artifact", folder=tmp_path)
    assert done.returncode == 2
    assert "belongs to no run: leave out --log-artifact" in done.stderr
    assert not list(tmp_path.glob("*.html"))


def test_a_path_that_is_not_there(tmp_path):
    done = report(tmp_path / "none.smnrec", folder=tmp_path)
    assert done.returncode == 2
    assert "none.smnrec does not exist" in done.stderr


def test_help_has_examples_and_exit_statuses(tmp_path):
    done = report("--help", folder=tmp_path)
    assert done.returncode == 0
    assert "sysmetrics-native report job.smnrec -o job.html" in done.stdout
    assert "Exit status:" in done.stdout


def test_without_plotly_it_says_what_to_install(tmp_path):
    done = run_python(
        """
        import sys
        sys.modules["plotly"] = None  # as if it were not installed
        from sysmetrics_native.cli import main
        main(["report", "x.smnrec"])
        """
    )
    assert done.returncode == 1
    assert done.stderr == (
        "Error: report needs plotly, which is not installed: "
        "pip install 'sysmetrics-native[report]'\n"
    )

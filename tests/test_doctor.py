"""`sysmetrics-native doctor`: what it finds is true, and whatever is broken is a line of it."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from click.testing import CliRunner

from sysmetrics_native import Sampler, checkup, leftovers, machine, settings, trial
from sysmetrics_native.checkup import ORDER
from sysmetrics_native.cli import main as command
from sysmetrics_native.describe import known_sources
from sysmetrics_native.fresh_import import FreshImport
from sysmetrics_native.private_files import Writer
from sysmetrics_native.spool import Origin, Spool, WaitingWindow
from tests.fake_gpus import FakeGpus
from tests.procfs_tree import ProcfsTree
from tests.recordings import write_recording
from tests.support import DEFAULT_KEYS, PATIENCE_SECONDS
from tests.test_other_platforms import loaded, run_elsewhere
from tests.test_truth_container import group_with

__all__ = ["loaded"]  # a fixture

COMMAND = Path(sys.executable).with_name("sysmetrics-native")
IS_LINUX = sys.platform.startswith("linux")

needs_linux = pytest.mark.skipif(not IS_LINUX, reason="needs /proc and /sys")


class Outcome(NamedTuple):
    """What the command did."""

    status: int
    output: str
    errors: str

    @property
    def found(self) -> Any:
        """Of `--json`, whose keys are always there."""
        assert self.errors == ""
        found = json.loads(self.output)
        assert list(found) == list(ORDER)
        assert found["works"] == (self.status == 0) == (not found["problems"])
        return found


def doctor(
    *arguments: str, environment: Mapping[str, str] | None = None, **variables: str
) -> Outcome:
    """Run the installed command."""
    done = subprocess.run(
        [str(COMMAND), "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
        env={**(environment or os.environ), **variables},
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


class NoImport(FreshImport):
    """Where MLflow is not what the test is about, its import need not be waited for."""

    def __enter__(self) -> NoImport:  # noqa: PYI034  # typing.Self came with Python 3.11
        return self


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Runs the command in this process."""
    monkeypatch.setattr(checkup, "FreshImport", NoImport)

    def run(*arguments: str) -> Outcome:
        result = CliRunner().invoke(command, ["doctor", *arguments])
        return Outcome(result.exit_code, result.output, "")

    return run


# ---- what it finds ------------------------------------------------------------------------------


def test_the_installed_command_finds_that_sampling_works(backend: str) -> None:
    outcome = doctor("--json", SYSMETRICS_NATIVE_BACKEND=backend)
    assert outcome.status == 0
    found = outcome.found
    for name in ORDER[ORDER.index("backend") :]:
        assert found[name]["problem"] is None, name
    assert found["backend"]["name"] == backend
    assert found["machine"]["python"] == platform.python_version()
    assert found["machine"]["kernel"] == platform.release()
    assert found["machine"]["cpus"] == os.cpu_count()
    assert found["machine"]["memory_megabytes"] == psutil.virtual_memory().total / 1e6
    late = found["clock"]["wakeup_lateness"]
    assert 0 <= late["p50_seconds"] <= late["p99_seconds"] <= late["max_seconds"]
    sampling = found["sampling"]
    assert sampling["ticks"] + sampling["missed"] > 0
    assert list(sampling["sources"]) == list(known_sources(backend)) == found["backend"]["sources"]
    for name, keys in DEFAULT_KEYS.items():
        source = sampling["sources"][name]
        assert source["is_here"]
        assert source["is_default"]
        assert source["is_chosen"]
        assert source["errors"] == 0
        assert 0 < source["mean_cost_seconds"] <= source["max_cost_seconds"]
        assert [series["key"] for series in source["series"]] == keys
        assert all(series["value"] is not None for series in source["series"])
    process = sampling["sources"]["process"]
    assert process["is_here"]
    assert not process["is_chosen"]
    shares = sampling["governor"]["shares_of_a_core"]
    for rate in ("at_1_hz", "at_100_hz"):
        assert 0 < shares["chosen"][rate] < shares["all"][rate]
    assert shares["chosen"]["at_1_hz"] < shares["chosen"]["at_100_hz"]


@pytest.mark.native
def test_each_value_comes_with_its_meaning(look: Callable[..., Outcome]) -> None:
    sources = look("--json").found["sampling"]["sources"]
    memory = {series["key"]: series for series in sources["memory"]["series"]}
    used = memory["system_memory_usage_megabytes"]
    assert used["unit"] == "megabytes"
    assert 0 < used["value"] < psutil.virtual_memory().total / 1e6
    assert used["meaning"]
    for name, source in sources.items():
        assert source["is_here"] == (source["reason"] is None) == bool(source["series"]), name
        assert all(series["meaning"] for series in source["series"])
        keys = {series["key"] for series in source["series"]}
        assert keys.isdisjoint(source["missing_series"])
    assert sources["memory"]["missing_series"] == []


@pytest.mark.native
def test_series_that_are_not_here_are_named(
    look: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tree: ProcfsTree
) -> None:
    monkeypatch.setenv("SYSMETRICS_NATIVE_PROCFS_PATH", str(tree.root))
    tree.write("loadavg", "0.25 0.5 1.0 1/100 4711\n")
    monkeypatch.setenv("SYSMETRICS_NATIVE_SYSFS_PATH", str(tree.root))
    detail = look("--json").found["sampling"]["sources"]["cpu_detail"]
    assert "load_average_1m" in [series["key"] for series in detail["series"]]
    assert "cpu_frequency_megahertz" in detail["missing_series"]


def test_the_page_is_for_people(look: Callable[..., Outcome]) -> None:
    outcome = look()
    assert outcome.status == 0
    assert re.search(
        r"^✓ Sampling works: \d+ ticks in \d\.\d s, \d+ values$", outcome.output, re.MULTILINE
    )
    for heading in ("Sources", "Machine", "GPUs", "Clock", "MLflow", "Waiting files", "Settings"):
        assert f"\n{heading}\n" in outcome.output
    assert re.search(r"^  cpu +by default +\d+ µs +0.05 s  cpu_util", outcome.output, re.MULTILINE)
    assert re.search(r"^  process +on request +\d+ µs", outcome.output, re.MULTILINE)
    assert max(map(len, outcome.output.splitlines())) <= 80
    assert "\x1b" not in outcome.output


@needs_linux
def test_permissions_are_those_of_this_process() -> None:
    found = machine.permissions("/proc", "/sys")
    assert (found["user"], found["is_root"]) == (os.getuid(), os.getuid() == 0)
    assert found["procfs"]["is_readable"]
    assert found["children_files"] == Path("/proc/thread-self/children").exists()
    assert found["pressure_files"] == Path("/proc/pressure/cpu").exists()
    files = list(Path("/sys/class/powercap").glob("*/energy_uj"))
    readable = any(os.access(file, os.R_OK) for file in files)
    assert found["rapl"] == ("readable" if readable else "forbidden" if files else "absent")


@needs_linux
def test_hidepid_and_counters_for_root_alone_are_seen(tmp_path: Path) -> None:
    procfs, sysfs = tmp_path / "proc", tmp_path / "sys"
    (procfs / "self").mkdir(parents=True)
    mount = f"proc {procfs} proc rw,nosuid,hidepid=invisible,gid=27 0 0\n"
    (procfs / "self" / "mounts").write_text(f"proc /other proc hidepid=1 0 0\n{mount}")
    (sysfs / "class/powercap/intel-rapl:0").mkdir(parents=True)
    counter = sysfs / "class/powercap/intel-rapl:0/energy_uj"
    counter.write_text("1\n")
    found = machine.permissions(str(procfs), str(sysfs))
    assert found["procfs"] == {"path": str(procfs), "is_readable": False, "hidepid": "invisible"}
    assert found["rapl"] == "readable"


# ---- control groups -----------------------------------------------------------------------------


def write_files(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")


TREES = {
    "version 2, limits of different groups": (
        "0::/a/b\n",
        {
            "cgroup.controllers": "cpu memory\n",
            "a/cpu.max": "150000 100000\n",
            "a/b/cpu.max": "max 100000\n",
            "a/memory.max": "max\n",
            "a/b/memory.max": "2000000\n",
        },
        {"cpu_cores": (1.5, "/a"), "memory_megabytes": (2.0, "/a/b")},
    ),
    "version 2, a namespace of our own": (
        "0::/../../outside\n",
        {"cgroup.controllers": "memory\n", "memory.max": "3000000\n"},
        {"memory_megabytes": (3.0, "/")},
    ),
    "version 1, the tightest on the way up": (
        "4:memory:/docker/f00\n3:cpu,cpuacct:/docker/f00\n",
        {
            "memory/docker/memory.limit_in_bytes": "1000000\n",
            "memory/docker/f00/memory.limit_in_bytes": "9000000\n",
            "cpu,cpuacct/docker/f00/cpu.cfs_quota_us": "50000\n",
            "cpu,cpuacct/docker/f00/cpu.cfs_period_us": "100000\n",
        },
        {"cpu_cores": (0.5, "/docker/f00"), "memory_megabytes": (1.0, "/docker")},
    ),
    "version 1, no limit": (
        "4:memory:/\n3:cpu:/\n",
        {
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        },
        {},
    ),
    "nonsense": ("what\n4:memory\n", {"memory/memory.limit_in_bytes": "-9\n"}, {}),
}


@needs_linux
@pytest.mark.parametrize(("lines", "files", "expected"), TREES.values(), ids=TREES)
def test_the_tightest_limit_and_its_group(
    lines: str, files: Mapping[str, str], expected: Any, tmp_path: Path
) -> None:
    write_files(tmp_path / "proc", {"self/cgroup": lines})
    write_files(tmp_path / "sys" / "fs" / "cgroup", files)
    limits = machine.control_groups(str(tmp_path / "proc"), str(tmp_path / "sys"))["limits"]
    assert {
        name: (limit["value"], limit["group"]) for name, limit in limits.items() if limit
    } == expected


@needs_linux
@pytest.mark.native
def test_a_real_limit_is_found_by_both() -> None:
    """By the source in C and by what is read for people."""
    program = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); "
    program += "os.execv(sys.argv[2], sys.argv[2:])"
    with group_with("memory") as group:
        group.limit_memory(1_000_000_000)
        limit = int(
            group.read("memory", "memory.limit_in_bytes" if group.version == 1 else "memory.max")
        )
        folder = group.folders["memory"]
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                program,
                str(folder / "cgroup.procs"),
                str(COMMAND),
                "doctor",
                "--json",
            ],
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_SECONDS,
            check=False,
        )
    found = Outcome(done.returncode, done.stdout, done.stderr).found
    assert found["control_groups"]["limits"]["memory_megabytes"] == {
        "value": limit / 1e6,
        "group": f"/{folder.name}",
    }
    container = found["sampling"]["sources"]["container"]
    assert container["is_here"]
    values = {series["key"]: series["value"] for series in container["series"]}
    assert 0 < values["container_memory_usage_megabytes"] < limit / 1e6


# ---- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "prefix"),
    [
        ({}, "system/"),
        ({"GROUP_RANK": "3", "GROUP_WORLD_SIZE": "4"}, "system/3/"),
        ({"MLFLOW_SYSTEM_METRICS_NODE_ID": "a"}, "system/a/"),
        ({"MLFLOW_SYSTEM_METRICS_NODE_ID": "///"}, None),
    ],
)
def test_which_keys_a_run_would_have_here(
    look: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    prefix: str | None,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert look("--json").found["settings"]["key_prefix"] == prefix
    assert (f"{prefix}…" in look().output) == (prefix is not None)


def test_settings_say_where_they_come_from(
    look: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SYSMETRICS_NATIVE_STATISTICS", "mean,max")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.5")
    settings.configure(spool_dir=tmp_path)
    options = {one["name"]: one for one in look("--json").found["settings"]["options"]}
    assert options["statistics"]["value"] == ["mean", "max"]
    assert options["statistics"]["origin"] == "SYSMETRICS_NATIVE_STATISTICS"
    assert options["spool_dir"]["value"] == str(tmp_path)
    assert options["spool_dir"]["origin"] == "configure()"
    assert options["shutdown_timeout"]["origin"] == "default"
    interval = options["MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"]
    assert (interval["value"], interval["origin"]) == (0.5, interval["name"])
    assert all(one["problem"] is None for one in options.values())


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SYSMETRICS_NATIVE_BACKEND", "fast"),
        ("SYSMETRICS_NATIVE_PROCFS_PATH", "/no/such/folder"),
        ("SYSMETRICS_NATIVE_SYSFS_PATH", "/no/such/folder"),
        ("SYSMETRICS_NATIVE_GPUS", "first"),
        ("SYSMETRICS_NATIVE_SOURCES", "cpu,,memory"),
        ("SYSMETRICS_NATIVE_ENABLED", "perhaps"),
        ("SYSMETRICS_NATIVE_SPOOL_DIR", ""),
        ("MLFLOW_SYSTEM_METRICS_INCLUDE_CHILD_PROCESSES", "some"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "-1"),
    ],
)
def test_a_value_that_is_not_allowed_is_said_and_the_rest_is_looked_at(
    look: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    outcome = look("--json")
    found = outcome.found
    assert outcome.status == 1
    (problem,) = found["problems"]
    assert problem.startswith(f"{variable} must be ")
    (wrong,) = [one for one in found["settings"]["options"] if one["problem"]]
    assert (wrong["problem"], wrong["value"], wrong["origin"]) == (problem, None, variable)
    assert found["sampling"]["problem"] is None
    assert found["sampling"]["sources"]["cpu"]["series"][0]["value"] is not None
    assert os.environ[variable] == value
    page = look()
    assert page.status == 1
    assert "✗ Sampling does not work: " + variable in page.output


def test_a_source_that_there_is_not_is_a_problem(
    look: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSMETRICS_NATIVE_SOURCES", "cpu,bogus")
    found = look("--json").found
    assert found["problems"] == [found["sampling"]["problem"]]
    assert "got 'bogus'" in found["sampling"]["problem"]
    assert found["sampling"]["sources"]["cpu"]["is_here"]


def test_a_variable_that_is_no_option_is_a_warning(
    look: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSMETRICS_NATIVE_SOURCE", "cpu")
    monkeypatch.setenv("SYSMETRICS_NATIVE_DEBUG", "0")
    found = look("--json").found
    assert found["works"]
    assert found["settings"]["unknown_variables"] == ["SYSMETRICS_NATIVE_SOURCE"]
    said = "SYSMETRICS_NATIVE_SOURCE is no option: did you mean SYSMETRICS_NATIVE_SOURCES?"
    assert said in found["warnings"]


@pytest.mark.native
def test_a_source_that_is_chosen_and_not_here_is_a_warning(
    look: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SYSMETRICS_NATIVE_SYSFS_PATH", str(tmp_path))
    monkeypatch.setenv("SYSMETRICS_NATIVE_SOURCES", "default,rdma")
    found = look("--json").found
    assert found["works"]
    assert [warning for warning in found["warnings"] if "rdma" in warning] == [
        "the source rdma is chosen, and not here: no InfiniBand or RoCE device"
    ]


@pytest.mark.native
def test_a_procfs_that_says_nothing_leaves_sources_without_values(
    look: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tree: ProcfsTree
) -> None:
    tree.write("stat", "")
    monkeypatch.setenv("SYSMETRICS_NATIVE_PROCFS_PATH", str(tree.root))
    found = look("--json").found
    sources = found["sampling"]["sources"]
    assert sources["cpu"]["errors"] == sources["cpu"]["readings"] > 0
    assert [series["value"] for series in sources["cpu"]["series"]] == [None]
    assert any("the source cpu had no value" in warning for warning in found["warnings"])
    assert sources["memory"]["series"][0]["value"] == 750 * 1024 / 1e6
    assert found["works"]
    monkeypatch.setenv("SYSMETRICS_NATIVE_SOURCES", "cpu")
    found = look("--json").found
    assert found["problems"] == ["a window came, but no source that is chosen had a value"]


def test_what_the_backend_refuses_is_why_it_does_not_work(
    look: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SYSMETRICS_NATIVE_BACKEND", "psutil")
    monkeypatch.setenv("SYSMETRICS_NATIVE_PROCFS_PATH", str(tmp_path))
    outcome = look()
    assert outcome.status == 1
    assert "✗ Sampling does not work: SYSMETRICS_NATIVE_PROCFS_PATH must be /proc" in outcome.output
    assert "\nMachine\n" in outcome.output


# ---- whatever is broken -------------------------------------------------------------------------


def explode(*_: object, **__: object) -> Any:
    raise ZeroDivisionError("not a number")


PARTS = {
    "backend": (checkup, "_backend"),
    "machine": (machine, "identity"),
    "permissions": (machine, "permissions"),
    "sampling": (checkup, "sample_everything"),
    "gpu": (checkup, "_gpu"),
    "control_groups": (machine, "control_groups"),
    "clock": (machine, "clocks"),
    "mlflow": (checkup, "mlflow_facts"),
    "files": (checkup, "_files"),
    "extras": (checkup, "_extras"),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_fails_is_a_line(
    look: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(*PARTS[part], explode)
    found = look("--json").found
    said = "ZeroDivisionError: not a number"
    assert found[part]["problem"] == said
    assert any(said in line for line in (*found["problems"], *found["warnings"]))
    assert found["works"] == (part != "sampling")
    for other in PARTS:
        assert other == part or found[other]["problem"] is None, other
    assert said in look().output


def test_nothing_works_and_still_there_is_a_page(
    look: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in PARTS.values():
        monkeypatch.setattr(module, name, explode)
    outcome = look()
    assert outcome.status == 1
    assert outcome.output.count("ZeroDivisionError: not a number") >= len(PARTS)
    assert "Traceback" not in outcome.output


def test_what_hangs_is_not_waited_for() -> None:
    def hang() -> dict[str, Any]:
        time.sleep(60)
        return {}

    found = checkup._part(hang, 0.05)
    assert found == {"problem": "it did not answer within 0.05 s"}


def test_no_window_is_no_sampling(
    look: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_WINDOW_PATIENCE_SECONDS", 0.01)
    outcome = look("--json")
    assert outcome.status == 1
    assert outcome.found["problems"] == ["no window came within 0.01 s"]


# ---- GPUs ---------------------------------------------------------------------------------------


def test_gpus_are_found_and_read(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 2\n0 driver_version 575.1")
    outcome = doctor(
        "--json",
        environment=gpus.environment,
        SYSMETRICS_NATIVE_BACKEND=backend,
        SYSMETRICS_NATIVE_GPUS="1",
    )
    found = outcome.found
    assert outcome.status == 0
    assert found["gpu"]["vendor"] == "NVIDIA"
    assert found["gpu"]["libraries"][-1]["driver_version"] == "575.1"
    assert [device["is_read"] for device in found["gpu"]["devices"]] == [False, True]
    values = {one["key"]: one["value"] for one in found["sampling"]["sources"]["gpu"]["series"]}
    assert values["gpu_1_utilization_percentage"] is not None
    assert "gpu_0_utilization_percentage" not in values


def test_a_gpu_that_is_named_in_vain_is_a_problem(gpus: FakeGpus, backend: str) -> None:
    outcome = doctor(
        "--json",
        environment=gpus.environment,
        SYSMETRICS_NATIVE_BACKEND=backend,
        SYSMETRICS_NATIVE_GPUS="7",
    )
    found = outcome.found
    assert outcome.status == 1
    (problem,) = found["problems"]
    assert problem.startswith("SYSMETRICS_NATIVE_GPUS must be all, visible, none, or ")
    assert found["sampling"]["sources"]["cpu"]["series"][0]["value"] is not None


@pytest.mark.long
def test_a_driver_that_hangs_hides_gpus_only(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 2\n* sleep nvmlInit* 100000")
    outcome = doctor("--json", environment=gpus.environment, SYSMETRICS_NATIVE_BACKEND=backend)
    found = outcome.found
    assert outcome.status == 0
    assert any(line.startswith("GPUs were not sampled") for line in found["warnings"])
    assert "it did not answer " in json.dumps(found["gpu"])
    assert found["sampling"]["sources"]["cpu"]["series"][0]["value"] is not None
    reason = found["sampling"]["sources"]["gpu"]["reason"]
    assert reason == "not tried: the GPU driver is too slow to answer"


# ---- what waits ---------------------------------------------------------------------------------


def make_spool(folder: Path, *, is_left: bool) -> Spool:
    origin = Origin("run", "http://host", 0, Writer.this_process(), 1764000000.0, {})
    spool = Spool(str(folder / "spool" / f"{is_left}.smnspool"), origin)
    spool.append(WaitingWindow(0, 1764000000000, {"system/x": 1.0}))
    if is_left:
        spool.release("the server is away")
    return spool


def test_what_waits_for_recover_is_counted(
    look: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "left"
    recordings = folder / "recordings"
    folder.mkdir(mode=0o700)
    recordings.mkdir(mode=0o700)
    make_spool(folder, is_left=True)
    write_recording(recordings / "killed.smnrec", [], state=0)
    write_recording(recordings / "ended.smnrec", [], state=1)
    write_recording(recordings / "sent.smnrec", [], state=2)
    (recordings / "damaged.smnrec").write_bytes(b"x" * 100)
    (recordings / "empty.smnrec").touch()
    monkeypatch.setenv("SYSMETRICS_NATIVE_SPOOL_DIR", str(folder))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.smn*")}
    found = look("--json").found
    files = found["files"]
    assert files["folder"] == str(folder)
    assert files["why_not_writable"] is None
    assert files["free_megabytes"] > 0
    assert files["spools"]["waiting"]["count"] == 1
    counts = {state: one["count"] for state, one in files["recordings"].items()}
    sizes = [(recordings / f"{name}.smnrec").stat().st_size for name in ("killed", "ended")]
    assert files["recordings"]["waiting"]["megabytes"] == sum(sizes) / 1e6
    assert counts == {"waiting": 2, "in_use": 0, "done": 2, "unreadable": 1}
    said = "1 spool and 2 recordings wait to be sent: sysmetrics-native recover"
    assert said in found["warnings"]
    assert found["works"]
    assert "2 waiting" in look().output
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.smn*")} == before


def test_what_a_living_process_writes_does_not_wait(tmp_path: Path, backend: str) -> None:
    """Asked by another process: this one holds the locks."""
    folder = tmp_path / "state" / "sysmetrics-native"
    folder.mkdir(parents=True, mode=0o700)
    spool = make_spool(folder, is_left=False)
    with Sampler(0.01, backend=backend, recorder=True):
        found = doctor("--json").found
    spool.remove()
    for kind in ("spools", "recordings"):
        counts = {state: one["count"] for state, one in found["files"][kind].items()}
        assert counts == {"waiting": 0, "in_use": 1, "done": 0, "unreadable": 0}, kind


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs owners of files")
def test_a_folder_that_others_can_write_to_is_said(
    look: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("SYSMETRICS_NATIVE_SPOOL_DIR", str(folder))
    found = look("--json").found
    assert found["files"]["why_not_writable"].startswith(f"others can write to {folder}")
    assert any("have no place to wait" in warning for warning in found["warnings"])
    monkeypatch.setenv("SYSMETRICS_NATIVE_SPOOL_DIR", "/dev/null/folder")
    assert look("--json").found["files"]["why_not_writable"] == "/dev/null is no folder"


def test_looking_makes_no_folder(look: Callable[..., Outcome], tmp_path: Path) -> None:
    assert look("--json").found["files"]["why_not_writable"] is None
    assert not (tmp_path / "state").exists()
    assert list(leftovers.look_around(None)) == []


# ---- where much is missing ----------------------------------------------------------------------


def test_without_mlflow_it_says_how_to_install_it(
    look: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysmetrics_native.fresh_import.installed_version", lambda _: None)
    monkeypatch.setattr(checkup, "installed_version", lambda _: None)
    found = look("--json").found
    assert found["works"]
    assert found["mlflow"]["version"] is None
    assert found["mlflow"]["reason"] == "MLflow is not installed: pip install 'mlflow>=2.9'"
    assert found["extras"]["extras"]["mlflow"] == {
        "packages": {"mlflow": None},
        "missing": ["mlflow"],
    }
    page = look().output
    assert "pip install 'mlflow>=2.9'" in page
    assert "pip install 'sysmetrics-native[mlflow]'" in " ".join(page.split())


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_it_works_where_there_is_no_posix(system: str, loaded: list[str]) -> None:
    program = """
        # These are POSIX's here: the standard library's way to start processes, and platformdirs.
        sys.modules["mlflow"] = None
        os.environ["SYSMETRICS_NATIVE_SPOOL_DIR"] = os.path.abspath("nowhere")
        from sysmetrics_native.cli import main
        main(["doctor", *sys.argv[2:]])
    """
    out, err, code = run_elsewhere(system, loaded, program, arguments=("--json",))
    assert err == ""
    found = json.loads(out)
    assert (code, found["works"]) == (0, True), found["problems"]
    assert found["backend"]["name"] == "psutil"
    assert found["backend"]["reason"].startswith("the C core is not there: ")
    assert found["permissions"]["user"] is None
    for name in ORDER[ORDER.index("backend") :]:
        assert found[name]["problem"] is None, name
    out, err, code = run_elsewhere(system, loaded, program)
    assert (err, code) == ("", 0)
    assert "Sampling works" in out

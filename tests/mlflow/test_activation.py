"""Installing the package is all it takes; and how to do without it."""

from __future__ import annotations

import importlib
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking.fluent import run_id_to_system_metrics_monitor

import sysmetrics_native
from tests.mlflow.conftest import Programs
from tests.mlflow.logged import DEFAULT_KEYS, Logged
from tests.mlflow.programs import Outcome

STOCK = "mlflow.system_metrics.system_metrics_monitor"
OURS = "sysmetrics_native.plugin"

PLAIN_MLFLOW_CODE = """
import json, threading, time
from pathlib import Path
import mlflow
from mlflow.tracking.fluent import run_id_to_system_metrics_monitor

with mlflow.start_run(log_system_metrics=True) as run:
    threads = [thread.name for thread in threading.enumerate()]
    threads += [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    monitor = type(run_id_to_system_metrics_monitor[run.info.run_id]).__module__
    time.sleep(0.3)
logged = sorted(mlflow.get_run(run.info.run_id).data.metrics)
print(json.dumps([monitor, threads, logged]))
"""


def monitor_module() -> str:
    """Whose monitor a run that starts now gets."""
    with mlflow.start_run(log_system_metrics=True) as run:
        return type(run_id_to_system_metrics_monitor[run.info.run_id]).__module__


# ---- the plugin ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain_runs(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Outcome]]:
    """What plain MLflow code does, with some variables; all at once, for each takes seconds."""
    folder = tmp_path_factory.mktemp("plain")
    database = shutil.copyfile(empty_database, folder / "mlflow.db")
    start = Programs(folder, f"sqlite:///{database}")
    variables: dict[str, dict[str, str]] = {
        "on": {},
        "off": {"SYSMETRICS_NATIVE_ENABLED": "false"},
        "bad": {"SYSMETRICS_NATIVE_ENABLED": "maybe"},
    }
    programs = {name: start(PLAIN_MLFLOW_CODE, **variables[name]) for name in variables}
    yield {name: program.outcome() for name, program in programs.items()}
    start.kill()


def test_plain_mlflow_code_is_monitored_by_this_package(plain_runs: dict[str, Outcome]) -> None:
    monitor, threads, logged = plain_runs["on"].answer
    assert monitor == OURS
    assert "SystemMetricsMonitor" in threads
    assert "smn-host" in threads
    assert set(logged) == DEFAULT_KEYS


def test_a_variable_leaves_mlflow_its_own_monitor(plain_runs: dict[str, Outcome]) -> None:
    monitor, threads, logged = plain_runs["off"].answer
    assert monitor == STOCK
    assert "SystemMetricsMonitor" in threads
    assert "smn-host" not in threads
    assert logged == []  # the default window is 10 s long


def test_a_bad_variable_is_named_and_breaks_nothing(plain_runs: dict[str, Outcome]) -> None:
    assert plain_runs["bad"].answer[0] == STOCK
    message = "SYSMETRICS_NATIVE_ENABLED must be true or false, got 'maybe'"
    assert message in plain_runs["bad"].errors


COMING_AND_GOING = f"""
import importlib, json, sys
import mlflow
from sysmetrics_native import install, is_installed, uninstall

states = [{STOCK!r} in sys.modules, is_installed()]
for change in (uninstall, uninstall, install, install, uninstall):
    change()
    states.append(is_installed())
states.append({STOCK!r} in sys.modules)
module = importlib.import_module({STOCK!r})
for change in (uninstall, install, install, uninstall, uninstall, install):
    states.append([is_installed(), module.SystemMetricsMonitor.__module__])
    change()
print(json.dumps(states))
"""


def test_it_comes_and_goes_before_and_after_mlflow_has_imported_its_monitor(
    start_program: Programs,
) -> None:
    states = start_program(COMING_AND_GOING).outcome().answer
    assert states[:2] == [False, True], "the plugin is in place, and has imported nothing for it"
    assert states[2:8] == [False, False, True, True, False, False]
    assert states[8:] == [
        [False, STOCK],
        [False, STOCK],
        [True, OURS],
        [True, OURS],
        [False, STOCK],
        [False, STOCK],
    ]


def test_uninstalled_and_installed_between_runs(uses_database) -> None:
    assert monitor_module() == OURS
    sysmetrics_native.uninstall()
    try:
        assert monitor_module() == STOCK
    finally:
        sysmetrics_native.install()
    assert monitor_module() == OURS


# ---- the option `enabled` -----------------------------------------------------------------------


def test_configured_off_and_on_between_runs(uses_database) -> None:
    sysmetrics_native.configure(enabled=False)
    assert not sysmetrics_native.is_installed()
    assert monitor_module() == STOCK
    sysmetrics_native.configure(enabled=None)
    assert sysmetrics_native.is_installed()
    assert monitor_module() == OURS


def test_the_variable_is_read_when_a_run_starts(
    uses_database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSMETRICS_NATIVE_ENABLED", "false")
    assert monitor_module() == STOCK
    sysmetrics_native.configure(enabled=True)
    assert monitor_module() == OURS
    sysmetrics_native.configure(enabled=None)
    monkeypatch.setenv("SYSMETRICS_NATIVE_ENABLED", "true")
    assert monitor_module() == OURS


def test_a_variable_that_turns_bad_is_named_and_breaks_no_run(
    uses_database, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSMETRICS_NATIVE_ENABLED", "maybe")
    with mlflow.start_run(log_system_metrics=True) as run:
        mlflow.log_metric("loss", 1.0)
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"
    (warning,) = warnings
    assert "SYSMETRICS_NATIVE_ENABLED must be true or false, got 'maybe'" in warning


def test_the_plugin_says_nothing_about_a_run(uses_database) -> None:
    with mlflow.start_run() as run:
        pass
    tags = mlflow.get_run(run.info.run_id).data.tags
    assert all(name.startswith("mlflow.") for name in tags)


def test_who_imports_the_class_from_mlflow_gets_ours(uses_database) -> None:
    stock = importlib.import_module(STOCK)
    with mlflow.start_run() as run:
        monitor = stock.SystemMetricsMonitor(run.info.run_id, sampling_interval=0.1)
        monitor.start()
        Logged(run.info.run_id).wait_for(1)
        monitor.finish()
    assert isinstance(monitor, sysmetrics_native.SystemMetricsMonitor)
    assert Logged(run.info.run_id).metrics() == DEFAULT_KEYS


# ---- other surroundings -------------------------------------------------------------------------


def packages_without(folder: Path, *prefixes: str) -> str:
    """A folder with links to all that is installed but what begins so; for PYTHONPATH."""
    for kind in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for package in Path(kind).iterdir():
            if not package.name.startswith(prefixes) and package.suffix != ".pth":
                (folder / package.name).symlink_to(package)
    return str(folder)


LOADED_MODULES = """
import json, sys
import mlflow
print(json.dumps(sorted(sys.modules)))
"""


def test_the_plugin_loads_little_more_than_itself(start_program: Programs, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "less").mkdir()
    all_packages = packages_without(tmp_path / "all", "no such")
    less = packages_without(tmp_path / "less", "sysmetrics_native")
    with_plugin = start_program(LOADED_MODULES, "-S", PYTHONPATH=all_packages)
    without = start_program(LOADED_MODULES, "-S", PYTHONPATH=less)
    added = set(with_plugin.outcome().answer) - set(without.outcome().answer)
    assert "sysmetrics_native.plugin" in added
    assert "sysmetrics_native._native" not in added
    others = {name for name in added if not name.startswith("sysmetrics_native")}
    foreign = {name for name in others if name.partition(".")[0] not in sys.stdlib_module_names}
    assert not foreign, "psutil, tenacity and cffi cost more than the plugin"
    assert len(others) < 10, others


INSTALL = """
import json
import sysmetrics_native
try:
    sysmetrics_native.install()
except (ModuleNotFoundError, RuntimeError) as error:
    print(json.dumps([type(error).__name__, str(error), sysmetrics_native.is_installed()]))
"""


def test_without_mlflow_install_says_so(start_program: Programs, tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    packages = packages_without(tmp_path / "packages", "mlflow")
    kind, message, installed = start_program(INSTALL, "-S", PYTHONPATH=packages).outcome().answer
    assert kind == "ModuleNotFoundError"
    assert message == "install() needs MLflow, which is not installed: pip install 'mlflow>=2.9'"
    assert not installed


def fake_mlflow(folder: Path, version: str) -> str:
    """A package that says it is MLflow of this version; for PYTHONPATH."""
    package = folder / "mlflow"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "version.py").write_text(f'VERSION = "{version}"\n', encoding="utf-8")
    return str(folder)


def test_a_too_old_mlflow_is_refused_in_a_sentence(start_program: Programs, tmp_path: Path) -> None:
    path = fake_mlflow(tmp_path / "fake", "2.8.1")
    kind, message, installed = start_program(INSTALL, PYTHONPATH=path).outcome().answer
    assert kind == "RuntimeError"
    assert message == (
        "sysmetrics-native needs MLflow 2.9 or newer, found 2.8.1: pip install --upgrade mlflow"
    )
    assert not installed


def test_a_too_old_mlflow_is_not_broken_by_the_plugin(
    start_program: Programs, tmp_path: Path
) -> None:
    source = "from sysmetrics_native.plugin import Activation\nprint(Activation().in_context())"
    outcome = start_program(source, PYTHONPATH=fake_mlflow(tmp_path / "fake", "2.8.1")).outcome()
    assert outcome.output == "False\n"
    assert outcome.errors.count("\n") == 1
    assert "MLflow 2.9 or newer, found 2.8.1" in outcome.errors


@pytest.mark.parametrize("version", ["2.9.0", "2.10.0rc1", "3.0.0.dev0", "10.1"])
def test_newer_versions_are_taken(start_program: Programs, tmp_path: Path, version: str) -> None:
    source = INSTALL + "\nprint(sysmetrics_native.is_installed())"
    path = fake_mlflow(tmp_path / "fake", version)
    assert start_program(source, PYTHONPATH=path).outcome().output == "True\n"

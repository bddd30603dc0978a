"""What importing the package costs, and what an installation holds."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import json
import re
import shutil
import subprocess
import types
from pathlib import Path

import pytest

import sysmetrics_native
from tests.support import run_python

PROJECT = Path(__file__).parent.parent / "pyproject.toml"

PUBLIC = [
    "Sampler",
    "Series",
    "SystemMetricsMonitor",
    "Window",
    "configure",
    "describe",
    "disable_process_metrics",
    "disable_system_metrics_logging",
    "enable_process_metrics",
    "enable_system_metrics_logging",
    "install",
    "is_installed",
    "monitor_run",
    "set_system_metrics_node_id",
    "set_system_metrics_samples_before_logging",
    "set_system_metrics_sampling_interval",
    "uninstall",
]


def test_importing_loads_nothing_heavy():
    """It happens with every `import mlflow`, whether system metrics are wanted or not."""
    program = """
        import json, sys
        before = set(sys.modules)
        import sysmetrics_native
        print(json.dumps(sorted(set(sys.modules) - before)))
    """
    result = run_python(program)
    assert result.stderr == ""
    loaded = json.loads(result.stdout)
    roots = {name.partition(".")[0] for name in loaded}
    heavy = {"mlflow", "psutil", "tenacity", "numpy", "pynvml", "cffi", "_cffi_backend", "asyncio"}
    assert not roots & heavy
    assert "sysmetrics_native._native" not in loaded
    assert "sysmetrics_native.backends.native" not in loaded
    assert "sysmetrics_native.backends.psutil" not in loaded


def test_importing_takes_well_under_50_ms():
    program = """
        import time
        before = time.thread_time()
        import sysmetrics_native
        print(time.thread_time() - before)
    """
    # CPU time, and the least of some runs: a busy machine must not count.
    fastest = min(float(run_python(program).stdout) for _ in range(5))
    assert fastest < 0.050


def test_importing_starts_no_thread_and_opens_no_file():
    program = """
        import os, threading
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        import sysmetrics_native
        after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        print(threading.active_count(), after - before)
    """
    assert run_python(program).stdout == "1 0\n"


def test_the_public_names_are_those_of_all():
    public = {
        name
        for name, value in vars(sysmetrics_native).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert sysmetrics_native.__all__ == PUBLIC
    assert public == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name):
    value = getattr(sysmetrics_native, name)
    assert value.__doc__
    assert not value.__doc__.startswith(f"{name}(")
    for attribute, member in vars(value).items() if isinstance(value, type) else ():
        if not attribute.startswith("_") and callable(member):
            assert member.__doc__, f"{name}.{attribute}"


def test_types_are_shipped():
    files = importlib.resources.files("sysmetrics_native")
    assert files.joinpath("py.typed").is_file()
    assert files.joinpath("_native.pyi").is_file()


def test_the_metadata_is_that_of_the_project():
    metadata = importlib.metadata.metadata("sysmetrics-native")
    found = re.search(r'^version = "(.+)"$', PROJECT.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    assert metadata["Version"] == found[1]
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    required = importlib.metadata.requires("sysmetrics-native") or []
    always = {re.split(r"[<>=; ]", one)[0] for one in required if "extra ==" not in one}
    assert always == {"cffi", "click", "platformdirs", "psutil", "rich", "tenacity"}, (
        "MLflow is the user's to install"
    )


def test_mlflow_is_told_of_us():
    (entry,) = importlib.metadata.entry_points(
        group="mlflow.run_context_provider", name="sysmetrics_native"
    )
    sysmetrics_native.configure(enabled=False)  # so that it changes nothing in this process
    activation = entry.load()()
    assert activation.in_context() is False
    assert activation.tags() == {}


def test_without_mlflow_a_sampler_works_and_the_rest_says_what_is_missing():
    program = """
        import logging, sys
        logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
        sys.modules["mlflow"] = None  # as if it were not installed
        import sysmetrics_native
        from sysmetrics_native.plugin import Activation

        with sysmetrics_native.Sampler() as sampler:
            pass
        print(len(list(sampler.windows())))
        for use in (sysmetrics_native.install, lambda: sysmetrics_native.SystemMetricsMonitor("1")):
            try:
                use()
            except ModuleNotFoundError as error:
                print(error.name, "install() needs MLflow" in str(error))
        print(sysmetrics_native.is_installed())
        sysmetrics_native.uninstall()
        Activation()
    """
    result = run_python(program)
    assert (result.stderr, result.returncode) == ("", 0)
    *said, warning = result.stdout.splitlines()
    assert said == ["1", "mlflow True", "mlflow False", "False"]
    assert warning == (
        "WARNING MLflow keeps its own system metrics: install() needs MLflow, which is not "
        "installed: pip install 'mlflow>=2.9'"
    )


@pytest.mark.native
def test_the_extension_exports_one_symbol():
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("needs nm, which is not installed here")
    native = importlib.import_module("sysmetrics_native._native")
    assert native.__file__ is not None
    listed = subprocess.run(
        [nm, "--dynamic", "--defined-only", "--format=posix", native.__file__],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["PyInit__native"]


@pytest.mark.native
def test_the_extension_is_for_every_python_from_3_10():
    native = importlib.import_module("sysmetrics_native._native")
    assert native.__file__ is not None
    assert native.__file__.endswith(".abi3.so")


def test_a_monitor_without_mlflow_says_what_to_install() -> None:
    done = run_python(
        """
        import sys
        sys.modules["mlflow"] = None  # as if it were not installed
        from sysmetrics_native import SystemMetricsMonitor
        try:
            SystemMetricsMonitor("a run")
        except ModuleNotFoundError as error:
            print(error)
        """
    )
    assert done.stderr == ""
    assert done.stdout.strip() == (
        "logging system metrics needs MLflow, which is not installed: pip install 'mlflow>=2.9'"
    )

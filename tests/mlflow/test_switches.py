"""MLflow's own switches: variables, functions, arguments, and which of them wins."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import mlflow
import pytest
from mlflow.tracking.fluent import run_id_to_system_metrics_monitor

import sysmetrics_native
from sysmetrics_native import SystemMetricsMonitor
from tests.mlflow.logged import DEFAULT_KEYS, Logged, monitor_of, wait_for_ticks

ENABLE = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
SAMPLES = "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING"
NODE_ID = "MLFLOW_SYSTEM_METRICS_NODE_ID"

Switch = Callable[[], object]


def set_variable(value: str) -> Switch:
    """What a notebook does."""
    return lambda: os.environ.update({ENABLE: value})


ON: dict[str, Switch] = {
    "variable": set_variable("true"),
    "mlflow": mlflow.enable_system_metrics_logging,
    "ours": sysmetrics_native.enable_system_metrics_logging,
}
OFF: dict[str, Switch] = {
    "nothing": lambda: None,
    "variable": set_variable("false"),
    "mlflow": mlflow.disable_system_metrics_logging,
    "ours": sysmetrics_native.disable_system_metrics_logging,
}


def keys_of_a_run(log_system_metrics: bool | None = None) -> set[str]:
    """The system metrics of a short run, at the default interval of 10 s."""
    with mlflow.start_run(log_system_metrics=log_system_metrics) as run:
        is_monitored = run.info.run_id in run_id_to_system_metrics_monitor
        if is_monitored:
            time.sleep(0.2)
    keys = Logged(run.info.run_id).metrics()
    assert bool(keys) == is_monitored
    return keys


# ---- on and off ---------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", ON.values(), ids=ON)
def test_switched_on(uses_database, switch: Switch) -> None:
    switch()
    assert keys_of_a_run() == DEFAULT_KEYS


@pytest.mark.parametrize("switch", OFF.values(), ids=OFF)
def test_switched_off(uses_database, switch: Switch) -> None:
    assert keys_of_a_run() == set()
    if switch is not OFF["nothing"]:
        mlflow.enable_system_metrics_logging()
    switch()
    assert keys_of_a_run() == set()


def test_the_variable_deleted_is_off_again(uses_database) -> None:
    os.environ[ENABLE] = "true"
    del os.environ[ENABLE]
    assert keys_of_a_run() == set()


@pytest.mark.parametrize("switch", OFF.values(), ids=OFF)
def test_a_run_that_asks_for_it_wins_over_off(uses_database, switch: Switch) -> None:
    switch()
    assert keys_of_a_run(log_system_metrics=True) == DEFAULT_KEYS


@pytest.mark.parametrize("switch", ON.values(), ids=ON)
def test_a_run_that_declines_wins_over_on(uses_database, switch: Switch) -> None:
    switch()
    assert keys_of_a_run(log_system_metrics=False) == set()


# ---- processes ----------------------------------------------------------------------------------

PROCESS = "MLFLOW_SYSTEM_METRICS_INCLUDE_PROCESS"
PROCESS_CHILDREN = "MLFLOW_SYSTEM_METRICS_INCLUDE_CHILD_PROCESSES"
PROCESS_KEYS = {
    f"system/process_{name}"
    for name in (
        "cpu_percentage",
        "memory_rss_megabytes",
        "memory_vms_megabytes",
        "memory_percentage",
        "threads",
        *(["open_files"] if os.name == "posix" else []),
    )
}


def test_process_metrics_by_variable(uses_database, uses_backend) -> None:
    os.environ[PROCESS] = "true"
    assert keys_of_a_run(log_system_metrics=True) == DEFAULT_KEYS | PROCESS_KEYS
    del os.environ[PROCESS]
    assert keys_of_a_run(log_system_metrics=True) == DEFAULT_KEYS


def test_process_metrics_by_function(uses_database) -> None:
    sysmetrics_native.enable_process_metrics()
    assert keys_of_a_run(log_system_metrics=True) == DEFAULT_KEYS | PROCESS_KEYS
    sysmetrics_native.disable_process_metrics()
    assert keys_of_a_run(log_system_metrics=True) == DEFAULT_KEYS


def test_process_metrics_that_the_option_drops(uses_database) -> None:
    os.environ[PROCESS] = "true"
    sysmetrics_native.configure(sources="memory,-process")
    assert keys_of_a_run(log_system_metrics=True) == {
        "system/system_memory_usage_megabytes",
        "system/system_memory_usage_percentage",
    }


def threads_of_a_run() -> float:
    with mlflow.start_run(log_system_metrics=True) as run:
        time.sleep(0.2)
    return Logged(run.info.run_id).values("process_threads")[-1]


def test_process_metrics_with_and_without_children(uses_database, uses_backend) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"],
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        sysmetrics_native.enable_process_metrics(include_children=False)
        alone = threads_of_a_run()
        sysmetrics_native.enable_process_metrics()
        # A server of these tests may be a child, too, and start and end threads.
        assert threads_of_a_run() > alone
    finally:
        child.kill()
        child.communicate()


def test_a_bad_variable_about_processes_is_named(uses_database, warnings: list[str]) -> None:
    os.environ[PROCESS_CHILDREN] = "some"
    assert keys_of_a_run(log_system_metrics=True) == set()
    (warning,) = warnings
    assert f"{PROCESS_CHILDREN} must be true or false, got 'some'" in warning


# ---- interval and samples -----------------------------------------------------------------------


def interval_and_samples() -> tuple[float, int]:
    """What a run that starts now is monitored with."""
    with mlflow.start_run(log_system_metrics=True) as run:
        monitor = monitor_of(run.info.run_id)
    return monitor.sampling_interval, monitor.samples_before_logging


def test_the_defaults_are_those_of_mlflow(uses_database) -> None:
    assert interval_and_samples() == (10, 1)


def test_interval_and_samples_by_variables(uses_database) -> None:
    os.environ[INTERVAL] = "0.5"
    os.environ[SAMPLES] = "3"
    assert interval_and_samples() == (0.5, 3)


@pytest.mark.parametrize("package", [mlflow, sysmetrics_native])
def test_interval_and_samples_by_functions_and_none_unsets(uses_database, package) -> None:
    package.set_system_metrics_sampling_interval(2)
    package.set_system_metrics_samples_before_logging(5)
    assert interval_and_samples() == (2, 5)
    package.set_system_metrics_sampling_interval(None)
    assert interval_and_samples() == (10, 5)
    package.set_system_metrics_samples_before_logging(None)
    assert interval_and_samples() == (10, 1)
    assert INTERVAL not in os.environ
    assert SAMPLES not in os.environ


def test_they_decide_when_windows_end(uses_database, uses_backend) -> None:
    mlflow.set_system_metrics_sampling_interval(0.05)
    mlflow.set_system_metrics_samples_before_logging(8)
    before = time.time()
    with mlflow.start_run(log_system_metrics=True) as run:
        wait_for_ticks(run.info.run_id, 17)
    first, second, *_ = Logged(run.info.run_id).ends()
    # By default it would be ten seconds; a busy machine may be late for a deadline.
    assert 0.35 < first - before < 8.0
    assert 0.0 < second - first < 5.0


def test_arguments_count_where_no_variable_is(uses_database) -> None:
    monitor = SystemMetricsMonitor("run", 3, 4, False, "worker", "http://127.0.0.1:1")
    assert (monitor.sampling_interval, monitor.samples_before_logging) == (3, 4)
    assert monitor.node_id == "worker"


def test_variables_beat_arguments(uses_database) -> None:
    os.environ.update({INTERVAL: "0.5", SAMPLES: "6", NODE_ID: "from the variable"})
    monitor = SystemMetricsMonitor(
        "run", sampling_interval=3, samples_before_logging=4, node_id="from the argument"
    )
    assert (monitor.sampling_interval, monitor.samples_before_logging) == (0.5, 6)
    assert monitor.node_id == "from the variable"


def test_a_run_in_progress_keeps_what_it_began_with(uses_database) -> None:
    with mlflow.start_run(log_system_metrics=True) as run:
        os.environ[INTERVAL] = "0.01"
        assert monitor_of(run.info.run_id).sampling_interval == 10


# ---- the node id --------------------------------------------------------------------------------


def prefixes_of_a_run() -> set[str]:
    """What stands before the names of a run's metrics."""
    with mlflow.start_run(log_system_metrics=True) as run:
        pass
    return {key.rpartition("/")[0] for key in Logged(run.info.run_id).metrics()}


def test_without_a_node_id_keys_have_no_part_for_it(uses_database) -> None:
    assert prefixes_of_a_run() == {"system"}


def by_variable(node_id: str) -> None:
    os.environ[NODE_ID] = node_id


def by_option(node_id: str) -> None:
    sysmetrics_native.configure(node_id=node_id)


def by_option_variable(node_id: str) -> None:
    os.environ["SYSMETRICS_NATIVE_NODE_ID"] = node_id


def by_mlflow(node_id: str) -> None:
    if not hasattr(mlflow, "set_system_metrics_node_id"):
        pytest.skip("this MLflow has no node ids; this package has")
    mlflow.set_system_metrics_node_id(node_id)


WAYS = [
    by_variable,
    by_option,
    by_option_variable,
    by_mlflow,
    sysmetrics_native.set_system_metrics_node_id,
]


@pytest.mark.parametrize("tell", WAYS)
def test_the_node_id_is_part_of_the_keys(uses_database, tell: Callable[[str], None]) -> None:
    tell("node_7")
    assert prefixes_of_a_run() == {"system/node_7"}


def test_which_node_id_wins(uses_database) -> None:
    def node_id() -> str | None:
        return SystemMetricsMonitor("run", node_id="argument").node_id

    sysmetrics_native.configure(node_id="option")
    assert SystemMetricsMonitor("run").node_id == "option"
    assert node_id() == "argument"
    sysmetrics_native.set_system_metrics_node_id("variable")
    assert node_id() == "variable"
    sysmetrics_native.set_system_metrics_node_id(None)
    assert node_id() == "argument"


@pytest.mark.parametrize(
    ("node_id", "part"),
    [
        ("rack 3/node:7", "rack 3/node_7"),
        ("a//b/", "a/b"),
        ("/etc/../passwd", "etc/passwd"),
        ("./node", "node"),
        ("Knoten-ü", "Knoten-ü"),
        ("计算节点", "计算节点"),
        ("🚀 gpu", "_ gpu"),
        ('a\tb\n"c"', "a_b__c_"),
        ("%41", "_41"),
        ("node.example.org", "node.example.org"),
        ("x" * 300, "x" * 128),
        ("0", "0"),
    ],
)
def test_odd_node_ids_are_cleaned_and_logged(
    uses_database, warnings: list[str], node_id: str, part: str
) -> None:
    os.environ[NODE_ID] = node_id
    assert prefixes_of_a_run() == {f"system/{part}"}
    assert warnings == []


def test_an_empty_node_id_is_none(uses_database, warnings: list[str]) -> None:
    os.environ[NODE_ID] = ""
    assert prefixes_of_a_run() == {"system"}
    assert warnings == []


@pytest.mark.parametrize("node_id", ["..", "/", "   ", ":", "-"])
def test_a_node_id_of_which_nothing_is_left_is_named(
    uses_database, warnings: list[str], node_id: str
) -> None:
    os.environ[NODE_ID] = node_id
    assert keys_of_a_run(log_system_metrics=True) == set()
    (warning,) = warnings
    expected = f"{NODE_ID} must be text with at least one letter or digit, got {node_id!r}"
    assert expected in warning

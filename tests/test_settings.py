"""Every setting: what is allowed, what is said of the rest, and what beats what."""

from __future__ import annotations

import importlib
import math
import os
import posixpath
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import sysmetrics_native
from sysmetrics_native import Sampler, catalog, configure, settings
from sysmetrics_native.backends import choose_backend

SOURCES = "{sources}"  # those of the backend
OPTIONS = (
    "backend, delivery_interval, disk_paths, enabled, gpus, network_interfaces, node_id, "
    "overhead_budget, procfs_path, recorder, recorder_megabytes, shutdown_timeout, sources, "
    "spool_dir, statistics, sysfs_path"
)

SECONDS = "a number of seconds from 0.001 to 3600"
WHOLE = "a whole number from 1 to 1000000"
BACKEND = "one of auto, native, psutil"
NAMES = "a list of names, or text with commas between them"
ABSOLUTE = "absolute paths of mount points"
DIRECTORY = "a directory that exists"
STATISTICS = "any of mean, min, max, p50, p95, p99, last"
TIMEOUT = "a number of seconds from 0 to 3600"
NODE = "text with at least one letter or digit"
BOOLEAN = "true or false"
LONG = "/" + "x" * 80
INTERFACES = "physical, all, or names of network interfaces"
BUDGET = "a share of one core, above 0 and up to 1"
PROCESS = "the number of a process, from 0 (this one) to 4194304"
TOO_LONG = "paths that make keys which MLflow takes: at most 80 bytes after the first path"


def refusal(call: Callable[[], object]) -> str:
    """The whole message with which a call refuses a value."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # whoever calls compares all of it
        call()
    return str(caught.value)


def outcome(call: Callable[[], object]) -> tuple[Any, str]:
    """What a call returned, or the message with which it refused."""
    try:
        return call(), ""
    except ValueError as error:
        return None, str(error)


def with_sources(allowed: str, backend: str) -> str:
    """What is allowed, with the names of the backend's sources."""
    module = importlib.import_module(f"sysmetrics_native.backends.{backend}")
    return allowed.replace(SOURCES, ", ".join(module.known_sources()))


# ---- refused ------------------------------------------------------------------------------------

BAD_INTERVALS: list[Any] = [
    *(0, 0.0, -1, 0.0009999, 3600.001, 1e300, -math.inf, math.inf, math.nan),
    *("abc", "", "nan", "inf", "0", "1 s", "1,5", True, False, None, [], [1], {}, 1j, object),
    10**400,  # more than a float can hold
]
BAD_SAMPLES: list[Any] = [
    *(0, -1, 2.5, 1_000_001, 10**400, math.nan, math.inf, Fraction(5, 2)),
    *("x", "", "0", "2.5", "1e3", True, False, None, [], b"5", 1j),
]
BAD_BACKENDS: list[Any] = ["cuda", "", "Native", "native ", 1, [], True]
BAD_NAMES: list[Any] = [
    *("", ",", "cpu,", "cpu,,memory", [], (), [""], ["cpu", 1], [None], 5, b"cpu"),
]
BAD_DIRECTORIES: list[Any] = [
    *("/not/there", "", "/\0", "/etc/passwd", 5, b"/proc", [], Path("/no")),
]
BAD_INTERFACES: list[Any] = [
    *("eth 0", "eth/0", "a" * 16, "ä" * 8, ".", "..", "eth\n0", "a\0b", "eth\u20030"),
]
BAD_BUDGETS: list[Any] = [
    *(0, 0.0, -0.01, 1.01, 5, math.nan, math.inf, "", "5 %", "0", True, [], b"x"),
]
BAD_PIDS: list[Any] = [-1, 2**22 + 1, 1.0, "1", True, None, []]
REFUSED_ARGUMENTS: list[tuple[str, Any, str]] = [
    *(("interval", value, SECONDS) for value in BAD_INTERVALS),
    *(("samples_per_window", value, WHOLE) for value in BAD_SAMPLES),
    *(("backend", value, BACKEND) for value in BAD_BACKENDS),
    *(("sources", value, NAMES) for value in BAD_NAMES),
    *(("disk_paths", value, NAMES) for value in ("", [], 7, [Path("/")])),
    *(("procfs_path", value, DIRECTORY) for value in BAD_DIRECTORIES),
    *(("sysfs_path", value, DIRECTORY) for value in BAD_DIRECTORIES),
    *(("network_interfaces", value, NAMES) for value in ("", "eth0,", [], 7, [None], b"eth0")),
    *(("network_interfaces", value, INTERFACES) for value in BAD_INTERFACES),
    *(
        ("network_interfaces", value, f"{INTERFACES} without these words")
        for value in ("all,eth0", "eth0,physical", ("physical", "all"))
    ),
    *(("overhead_budget", value, BUDGET) for value in BAD_BUDGETS),
    *(("pid", value, PROCESS) for value in BAD_PIDS),
]


@pytest.mark.parametrize(("name", "value", "allowed"), REFUSED_ARGUMENTS)
def test_an_argument_that_is_not_allowed(name, value, allowed):
    message = refusal(lambda: Sampler(**{name: value}))
    assert message == f"{name} must be {allowed}, got {value!r}"


# Here one of several names is at fault: it is the one that is shown.
REFUSED_PARTS = [
    ("sources", "cpu,gpux", f"any of default, all, {SOURCES}", "gpux"),
    ("sources", ["CPU"], f"any of default, all, {SOURCES}", "CPU"),
    ("sources", "-", f"any of default, all, {SOURCES}", "-"),
    ("sources", "--cpu", f"any of default, all, {SOURCES}", "--cpu"),
    ("sources", "-none", f"any of default, all, {SOURCES}", "-none"),
    ("sources", "cpu,-cpu", "names that leave at least one source", "cpu,-cpu"),
    ("sources", "-all", "names that leave at least one source", "default,-all"),
    ("disk_paths", "data", ABSOLUTE, "data"),
    ("disk_paths", ["/", "./data"], ABSOLUTE, "./data"),
    ("disk_paths", ["/", "/a\nb"], ABSOLUTE, "/a\nb"),
    ("disk_paths", ["/", "/a\0b"], ABSOLUTE, "/a\0b"),
    ("disk_paths", ["/", LONG], TOO_LONG, LONG),
    (
        "disk_paths",
        ["/", "/data/a", "/data_a"],
        "paths that differ in more than punctuation ('/data/a' is there)",
        "/data_a",
    ),
    (
        "disk_paths",
        "/,/ä,/ö",
        "paths that differ in more than punctuation ('/ä' is there)",
        "/ö",
    ),
]


@pytest.mark.parametrize(("name", "value", "allowed", "shown"), REFUSED_PARTS)
def test_a_part_of_an_argument_that_is_not_allowed(backend, name, value, allowed, shown):
    message = refusal(lambda: Sampler(backend=backend, **{name: value}))
    assert message == f"{name} must be {with_sources(allowed, backend)}, got {shown!r}"


BAD_TIMEOUTS: list[Any] = [-1, 3601, math.nan, "soon", True, []]
BAD_NODE_IDS: list[Any] = ["", "/", "..", " ", "///", "?!", ". / -", "\n"]
BAD_STATISTICS: list[Any] = ["", [], "mean,", 1]
BAD_TRUTHS: list[Any] = ["yes", "", 2, 1.0, "on", []]
BAD_RECORDERS: list[Any] = ["", 2, 1.5, b"x", "a\0b", []]
BAD_MEGABYTES: list[Any] = [0, 0.09, 65537, "much", True, []]
BAD_GPUS: list[Any] = [
    *(
        "",
        ",",
        "0,",
        "0,,1",
        "-1",
        "64",
        "0,-1",
        "1.5",
        "0x1",
        "²",
        "All",
        "all,0",
        "0,none",
        "gpu0",
    ),
    *(
        "GPU-",
        "GPU-a b",
        "MIG-;",
        "gpu-1",
        -1,
        64,
        1.5,
        True,
        False,
        [],
        (),
        {},
        [True],
        [-1],
        [64],
    ),
    *([0, None], [0, ""], ["all"], [[0]], [1.0], b"0", b"", math.nan, object),
]
BAD_PATHS: list[Any] = ["", 1, b"x", "a\0b", True, []]
RECORDER = "off, on, or a path"
GPUS = (
    "all, visible, none, or a list of indices from 0 to 63 and of UUIDs (GPU-…, MIG-…), or text "
    "with commas between them"
)
MEGABYTES = "a number of megabytes from 0.1 to 65536"
PATH = "a path"
REFUSED_OPTIONS: list[tuple[str, Any, str]] = [
    *(refused for refused in REFUSED_ARGUMENTS if refused[2] not in (SECONDS, WHOLE, PROCESS)),
    *(("statistics", value, NAMES) for value in BAD_STATISTICS),
    *(("shutdown_timeout", value, TIMEOUT) for value in BAD_TIMEOUTS),
    *(("delivery_interval", value, TIMEOUT) for value in BAD_TIMEOUTS),
    *(("node_id", value, NODE) for value in BAD_NODE_IDS),
    *(("enabled", value, BOOLEAN) for value in BAD_TRUTHS),
    *(("recorder", value, RECORDER) for value in BAD_RECORDERS),
    *(("recorder_megabytes", value, MEGABYTES) for value in BAD_MEGABYTES),
    *(("spool_dir", value, PATH) for value in BAD_PATHS),
    *(("gpus", value, GPUS) for value in BAD_GPUS),
]


@pytest.mark.parametrize(("name", "value", "allowed"), REFUSED_OPTIONS)
def test_an_option_that_is_not_allowed(name, value, allowed):
    message = refusal(lambda: configure(**{name: value}))
    assert message == f"{name} must be {allowed}, got {value!r}"


def test_a_statistic_that_there_is_not():
    message = refusal(lambda: configure(statistics=["mean", "median"]))
    assert message == f"statistics must be {STATISTICS}, got 'median'"


@pytest.mark.parametrize("name", ["interval", "Backend", "gpu", "samples_per_window"])
def test_an_option_that_there_is_not(name):
    message = refusal(lambda: configure(**{name: 1}))
    assert message == f"configure() has no option {name!r}; there are {OPTIONS}"


REFUSED_VARIABLES = [
    ("BACKEND", "cuda", BACKEND, "cuda"),
    ("BACKEND", "", BACKEND, ""),
    ("SOURCES", "cpu,gpux", f"any of default, all, {SOURCES}", "gpux"),
    ("SOURCES", "cpu,-cpu", "names that leave at least one source", "cpu,-cpu"),
    ("SOURCES", " , ", NAMES, " , "),
    ("DISK_PATHS", "/,data", ABSOLUTE, "data"),
    ("PROCFS_PATH", "/not/there", DIRECTORY, "/not/there"),
    ("SYSFS_PATH", "/not/there", DIRECTORY, "/not/there"),
]


@pytest.mark.parametrize(("name", "text", "allowed", "shown"), REFUSED_VARIABLES)
def test_a_variable_that_is_not_allowed_is_named(monkeypatch, name, text, allowed, shown):
    monkeypatch.setenv(f"SYSMETRICS_NATIVE_{name}", text)
    message = refusal(Sampler)
    allowed = with_sources(allowed, choose_backend("auto").name)
    assert message == f"SYSMETRICS_NATIVE_{name} must be {allowed}, got {shown!r}"


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("statistics", "median", STATISTICS),
        ("enabled", "yes", BOOLEAN),
        ("shutdown_timeout", "soon", TIMEOUT),
        ("shutdown_timeout", "-1", TIMEOUT),
        ("delivery_interval", "3601", TIMEOUT),
        ("node_id", "///", NODE),
        ("gpus", "0,x", GPUS),
        ("gpus", "", GPUS),
        ("network_interfaces", "eth 0", INTERFACES),
        ("overhead_budget", "5 %", BUDGET),
    ],
)
def test_a_variable_of_the_monitor_that_is_not_allowed_is_named(monkeypatch, name, text, allowed):
    variable = f"SYSMETRICS_NATIVE_{name.upper()}"
    monkeypatch.setenv(variable, text)
    message = refusal(lambda: settings.option(name))
    assert message == f"{variable} must be {allowed}, got {text!r}"


@pytest.mark.parametrize("name", ["procfs_path", "sysfs_path"])
@pytest.mark.parametrize("way", ["argument", "configure", "variable"])
def test_the_psutil_backend_refuses_other_roots(monkeypatch, tmp_path, name, way):
    arguments = {}
    said = name
    if way == "argument":
        arguments = {name: tmp_path}
    elif way == "configure":
        configure(**{name: tmp_path})
    else:
        said = f"SYSMETRICS_NATIVE_{name.upper()}"
        monkeypatch.setenv(said, str(tmp_path))
    usual = {"procfs_path": "/proc", "sysfs_path": "/sys"}[name]
    message = refusal(lambda: Sampler(backend="psutil", **arguments))
    assert message == (
        f"{said} must be {usual} with the psutil backend, which reads the live system only, "
        f"got {str(tmp_path)!r}"
    )


# ---- allowed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0.001, 0.001),
        (3600, 3600.0),
        ("0.5", 0.5),
        (" 10 ", 10.0),
        ("1e-2", 0.01),
        (Decimal("0.25"), 0.25),
        (Fraction(1, 8), 0.125),
    ],
)
def test_intervals(value, seconds):
    assert settings.parse_interval("interval", value) == seconds


@pytest.mark.parametrize(
    ("value", "samples"),
    [(1, 1), (1_000_000, 1_000_000), ("10", 10), (" 7 ", 7), (5.0, 5), (Decimal(3), 3)],
)
def test_samples(value, samples):
    parsed = settings.parse_samples("samples", value)
    assert parsed == samples
    assert type(parsed) is int


ANYTHING = st.one_of(
    st.floats(),
    st.integers(),
    st.text(),
    st.booleans(),
    st.none(),
    st.binary(),
    st.fractions(),
    st.lists(st.integers(), max_size=2),
    st.decimals(),
)


@given(ANYTHING)
def test_an_interval_is_in_its_range_or_refused(value):
    parsed, message = outcome(lambda: settings.parse_interval("interval", value))
    if parsed is None:
        assert message == f"interval must be {SECONDS}, got {value!r}"
    else:
        assert 0.001 <= parsed <= 3600


@given(ANYTHING)
def test_samples_are_in_their_range_or_refused(value):
    parsed, message = outcome(lambda: settings.parse_samples("samples", value))
    if parsed is None:
        assert message == f"samples must be {WHOLE}, got {value!r}"
    else:
        assert 1 <= parsed <= 1_000_000
        assert isinstance(value, str) or parsed == value


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        (True, True),
        ("true", True),
        ("TRUE ", True),
        ("1", True),
        (1, True),
        (False, False),
        ("false", False),
        ("False", False),
        ("0", False),
        (0, False),
    ],
)
def test_truth(value, parsed):
    configure(enabled=value)
    assert settings.option("enabled") is parsed


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        *((word, word) for word in ("all", "visible", "none")),
        ("0", (0,)),
        (" 1 , 0 ", (1, 0)),
        ("0,1,0", (0, 1)),
        ([0, 1], (0, 1)),
        ((1, "0", "1"), (1, 0)),
        (range(2), (0, 1)),
        (7, (7,)),
        ("63", (63,)),
        (np.int64(3), (3,)),
        (np.array([2, 3]), (2, 3)),
        ("GPU-8932", ("GPU-8932",)),
        ("MIG-GPU-8932f937-d72c/7/0", ("MIG-GPU-8932f937-d72c/7/0",)),
        (["GPU-8932", 1], ("GPU-8932", 1)),
    ],
)
def test_gpus(monkeypatch, value, choice):
    configure(gpus=value)
    assert settings.option("gpus") == choice
    assert settings.option("gpus", choice) == choice, "it is its own value, too"
    if isinstance(value, str):
        configure(gpus=None)
        monkeypatch.setenv("SYSMETRICS_NATIVE_GPUS", value)
        assert settings.option("gpus") == choice


@given(value=st.one_of(st.text(), st.integers(), st.lists(st.one_of(st.text(), st.integers()))))
def test_gpus_are_a_word_or_a_list_or_refused(value):
    choice, message = outcome(lambda: settings.option("gpus", value))
    if message:
        assert message == f"gpus must be {GPUS}, got {value!r}"
        return
    if choice not in ("all", "visible", "none"):
        assert isinstance(choice, tuple)
        assert choice
        assert len(set(choice)) == len(choice)
        for entry in choice:
            assert str(entry).startswith(("GPU-", "MIG-")) or 0 <= entry <= 63


def test_further_disk_paths_are_normalised_and_told_apart():
    paths = settings.option("disk_paths", ["/data/", "/data/.", "//data/a/../b", "/", LONG[:-1]])
    assert paths == ("/data", "//data/b", "/", LONG[:-1])
    assert settings.option("disk_paths", LONG) == (LONG,), "the first has the plain keys"


def test_the_psutil_backend_takes_the_usual_roots_by_name():
    Sampler(backend="psutil", procfs_path="/proc", sysfs_path=Path("/sys"))


# ---- sources ------------------------------------------------------------------------------------

KNOWN = {"cpu": True, "memory": True, "gpu": True, "process": False, "energy": False}


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ("default", "cpu memory gpu"),
        ("all", "cpu memory gpu process energy"),
        ("cpu", "cpu"),
        ("energy,cpu", "cpu energy"),
        ("cpu,cpu", "cpu"),
        ("default,energy", "cpu memory gpu energy"),
        ("default,cpu", "cpu memory gpu"),
        ("-cpu", "memory gpu"),
        ("-cpu,-gpu", "memory"),
        ("-energy", "cpu memory gpu"),
        ("all,-gpu", "cpu memory process energy"),
        ("all,-default", "process energy"),
        # In order: what was dropped can come back.
        ("default,-cpu,cpu", "cpu memory gpu"),
        ("cpu,-default,energy", "energy"),
        ("cpu,-memory", "cpu"),
        ("process,-process,memory", "memory"),
        ("-all,energy", "energy"),
    ],
)
def test_the_grammar_of_sources(names, chosen):
    names = settings.option("sources", names)
    assert settings.resolve_sources(names, KNOWN) == tuple(chosen.split())


@given(st.lists(st.sampled_from([*KNOWN, "default", "all", "-cpu", "-energy", "-all"])))
def test_sources_come_in_the_order_of_the_table_and_once(names):
    chosen, message = outcome(lambda: settings.resolve_sources(names, KNOWN))
    if chosen is None:
        assert message.startswith("sources must be names that leave at least one source, got ")
    else:
        assert chosen
        assert list(chosen) == [name for name in KNOWN if name in chosen]


# ---- precedence ---------------------------------------------------------------------------------


def test_an_argument_beats_configure_beats_the_environment_beats_the_default(monkeypatch):
    assert settings.option("shutdown_timeout") == 10.0
    monkeypatch.setenv("SYSMETRICS_NATIVE_SHUTDOWN_TIMEOUT", "20")
    assert settings.option("shutdown_timeout") == 20.0
    configure(shutdown_timeout=30)
    assert settings.option("shutdown_timeout") == 30.0
    assert settings.option("shutdown_timeout", 40) == 40.0
    configure(shutdown_timeout=None)
    assert settings.option("shutdown_timeout") == 20.0
    monkeypatch.delenv("SYSMETRICS_NATIVE_SHUTDOWN_TIMEOUT")
    assert settings.option("shutdown_timeout") == 10.0


def test_a_sampler_follows_that_order(monkeypatch, backend):
    def sources(**arguments: object) -> list[str]:
        return list(Sampler(backend=backend, **arguments).stats()["sources"])  # type: ignore[arg-type]

    default = [name for name in sources() if name != "container"]  # which we may be in
    assert default == ["cpu", "memory", "disk_space", "network"]
    monkeypatch.setenv("SYSMETRICS_NATIVE_SOURCES", "cpu")
    assert sources() == ["cpu"]
    configure(sources="memory")
    assert sources() == ["memory"]
    assert sources(sources=["network"]) == ["network"]


def test_what_is_beaten_is_not_looked_at(monkeypatch, backend):
    for name in ("SOURCES", "DISK_PATHS", "PROCFS_PATH", "BACKEND"):
        monkeypatch.setenv(f"SYSMETRICS_NATIVE_{name}", "")
    configure(sources="cpu", disk_paths="/", procfs_path="/proc")
    assert list(Sampler(backend=backend).stats()["sources"]) == ["cpu"]


def test_the_variable_is_named_only_where_it_counts(monkeypatch):
    monkeypatch.setenv("SYSMETRICS_NATIVE_SOURCES", "memory")
    assert refusal(lambda: Sampler(sources="gpux")).startswith("sources must be")
    configure(sources="gpux")
    assert refusal(Sampler).startswith("sources must be")


def test_the_backend_is_chosen_by_variable_and_configure(monkeypatch):
    monkeypatch.setenv("SYSMETRICS_NATIVE_BACKEND", "psutil")
    assert type(Sampler()._backend).__name__ == "PsutilBackend"
    configure(backend="auto")
    automatic = type(Sampler()._backend).__name__
    configure(backend=None)
    assert type(Sampler()._backend).__name__ == "PsutilBackend"
    assert automatic in ("NativeBackend", "PsutilBackend")


@pytest.mark.native
def test_the_native_backend_is_chosen_where_it_is_built():
    assert type(Sampler()._backend).__name__ == "NativeBackend"


def test_variables_are_read_when_a_sampler_is_made(monkeypatch):
    monkeypatch.setenv("SYSMETRICS_NATIVE_SOURCES", "cpu")
    sampler = Sampler()
    monkeypatch.setenv("SYSMETRICS_NATIVE_SOURCES", "memory")
    assert list(sampler.stats()["sources"]) == ["cpu"]
    assert list(Sampler().stats()["sources"]) == ["memory"]


@pytest.mark.parametrize(
    "wrong", [{"statistics": "median"}, {"nothing": 1}, {"procfs_path": "/not/there"}]
)
def test_configure_sets_all_or_nothing(wrong):
    configure(sources="cpu", shutdown_timeout=5)
    refusal(lambda: configure(sources="memory", shutdown_timeout=None, backend="psutil", **wrong))
    assert settings.option("sources") == ("cpu",)
    assert settings.option("shutdown_timeout") == 5
    assert settings.option("backend") == "auto"
    refusal(lambda: configure(**wrong, sources="memory"))
    assert settings.option("sources") == ("cpu",)


def test_configure_keeps_what_it_is_not_told():
    configure(sources="cpu")
    configure(statistics=["p99", "mean", "p99"])
    assert settings.option("sources") == ("cpu",)
    assert settings.option("statistics") == ("p99", "mean")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, True) for value in (True, "on", "ON", "true", "1")),
        *((value, False) for value in (False, "off", "Off", "false", "0")),
        ("/scratch/job.smnrec", str(Path("/scratch/job.smnrec").absolute())),
        (Path("/scratch"), str(Path("/scratch").absolute())),
        ("job.smnrec", str(Path("job.smnrec").absolute())),
    ],
)
def test_what_the_recorder_can_be(monkeypatch, value, expected):
    configure(recorder=value)
    assert settings.option("recorder") == expected
    configure(recorder=None)
    monkeypatch.setenv("SYSMETRICS_NATIVE_RECORDER", str(value))
    assert settings.option("recorder") == expected


def test_a_folder_may_begin_with_the_home_folder(monkeypatch):
    monkeypatch.setenv("SYSMETRICS_NATIVE_SPOOL_DIR", "~/windows")
    assert settings.option("spool_dir") == str(Path("~/windows").expanduser())


def test_defaults_are_those_of_the_table(monkeypatch):
    monkeypatch.delenv("SYSMETRICS_NATIVE_OVERHEAD_BUDGET")
    assert {name: settings.option(name) for name in OPTIONS.split(", ")} == {
        "enabled": True,
        "backend": "auto",
        "sources": ("default",),
        "statistics": ("mean",),
        "disk_paths": (os.sep,),
        "gpus": "all",
        "network_interfaces": ("physical",),
        "overhead_budget": 0.05,
        "procfs_path": "/proc",
        "sysfs_path": "/sys",
        "recorder": False,
        "recorder_megabytes": 64.0,
        "spool_dir": None,
        "delivery_interval": 5.0,
        "shutdown_timeout": 10.0,
        "node_id": None,
    }


# ---- MLflow's own switches ----------------------------------------------------------------------

INCLUDE_PROCESS = "MLFLOW_SYSTEM_METRICS_INCLUDE_PROCESS"
INCLUDE_CHILDREN = "MLFLOW_SYSTEM_METRICS_INCLUDE_CHILD_PROCESSES"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (None, "cpu memory gpu process"),
        ("default", "cpu memory gpu process"),
        ("cpu", "cpu process"),
        ("-cpu", "memory gpu process"),
        ("process", "process"),
        ("all", "cpu memory gpu process energy"),
        ("-all,energy", "process energy"),
        ("default,-process", "cpu memory gpu"),
        ("-process", "cpu memory gpu"),
        ("all,-process", "cpu memory gpu energy"),
    ],
)
@pytest.mark.parametrize("way", ["configure", "variable"])
def test_mlflows_variable_adds_the_process(monkeypatch, names, chosen, way):
    monkeypatch.setenv(INCLUDE_PROCESS, "true")
    if way == "configure":
        configure(sources=names)
    elif names is not None:
        monkeypatch.setenv("SYSMETRICS_NATIVE_SOURCES", names)
    assert settings.resolve_sources(settings.chosen_sources(), KNOWN) == tuple(chosen.split())
    monkeypatch.setenv(INCLUDE_PROCESS, "false")
    assert settings.chosen_sources() == settings.option("sources")


def test_an_argument_beats_mlflows_variable(monkeypatch, backend):
    monkeypatch.setenv(INCLUDE_PROCESS, "true")
    assert "process" in Sampler(backend=backend).stats()["sources"]
    names = iter(["cpu"])
    assert list(Sampler(backend=backend, sources=names).stats()["sources"]) == ["cpu"]
    monkeypatch.setenv(INCLUDE_PROCESS, "beaten, so not looked at")
    assert list(Sampler(backend=backend, sources="cpu").stats()["sources"]) == ["cpu"]


@pytest.mark.parametrize("variable", [INCLUDE_PROCESS, INCLUDE_CHILDREN])
@pytest.mark.parametrize("text", ["yes", "", "on", "2"])
def test_a_bad_variable_of_mlflow_about_processes_is_named(monkeypatch, variable, text):
    monkeypatch.setenv(variable, text)
    assert refusal(Sampler) == f"{variable} must be {BOOLEAN}, got {text!r}"


def test_the_switches_of_process_metrics_set_mlflows_variables():
    assert settings.mlflow_process_children() is True
    sysmetrics_native.enable_process_metrics()
    assert (os.environ[INCLUDE_PROCESS], os.environ[INCLUDE_CHILDREN]) == ("true", "true")
    sysmetrics_native.enable_process_metrics(include_children=False)
    assert (os.environ[INCLUDE_PROCESS], os.environ[INCLUDE_CHILDREN]) == ("true", "false")
    assert settings.mlflow_process_children() is False
    sysmetrics_native.disable_process_metrics()
    assert os.environ[INCLUDE_PROCESS] == "false"
    assert os.environ[INCLUDE_PROCESS] == "false"


@pytest.mark.parametrize("value", ["maybe", None, 2, ""])
def test_a_bad_argument_of_that_switch_is_named(value):
    message = refusal(lambda: sysmetrics_native.enable_process_metrics(value))
    assert message == f"include_children must be {BOOLEAN}, got {value!r}"
    assert INCLUDE_PROCESS not in os.environ


def test_mlflows_variables_beat_its_constructors_arguments(monkeypatch):
    assert settings.mlflow_interval(10) == 10
    assert settings.mlflow_samples(1) == 1
    assert settings.mlflow_node_id("argument") == "argument"
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.25")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "4")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_NODE_ID", "variable")
    assert settings.mlflow_interval(10) == 0.25
    assert settings.mlflow_samples(1) == 4
    assert settings.mlflow_node_id("argument") == "variable"
    assert settings.mlflow_interval("beaten, so not looked at") == 0.25


@pytest.mark.parametrize(
    ("variable", "text", "allowed", "read"),
    [
        ("SAMPLING_INTERVAL", "0", SECONDS, settings.mlflow_interval),
        ("SAMPLING_INTERVAL", "often", SECONDS, settings.mlflow_interval),
        ("SAMPLING_INTERVAL", "nan", SECONDS, settings.mlflow_interval),
        ("SAMPLES_BEFORE_LOGGING", "0", WHOLE, settings.mlflow_samples),
        ("SAMPLES_BEFORE_LOGGING", "2.5", WHOLE, settings.mlflow_samples),
        ("NODE_ID", "??", NODE, settings.mlflow_node_id),
    ],
)
def test_a_bad_variable_of_mlflow_is_named(monkeypatch, variable, text, allowed, read):
    monkeypatch.setenv(f"MLFLOW_SYSTEM_METRICS_{variable}", text)
    message = refusal(lambda: read("10"))
    said = f"MLFLOW_SYSTEM_METRICS_{variable} must be {allowed}, got {text!r}"
    assert message == said


@pytest.mark.parametrize(
    ("name", "allowed", "read"),
    [
        ("sampling_interval", SECONDS, settings.mlflow_interval),
        ("samples_before_logging", WHOLE, settings.mlflow_samples),
    ],
)
@pytest.mark.parametrize("value", [0, -1, None, "abc", True, math.nan])
def test_a_bad_argument_of_the_monitor_is_named(name, allowed, read, value):
    message = refusal(lambda: read(value))
    assert message == f"{name} must be {allowed}, got {value!r}"


def test_the_node_id_comes_from_mlflow_then_the_argument_then_the_option(monkeypatch):
    assert settings.mlflow_node_id(None) is None
    monkeypatch.setenv("SYSMETRICS_NATIVE_NODE_ID", "ours")
    assert settings.mlflow_node_id(None) == "ours"
    assert settings.mlflow_node_id("") == "ours"
    configure(node_id="rack/1")
    assert settings.mlflow_node_id(None) == "rack/1"
    assert settings.mlflow_node_id("argument") == "argument"
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_NODE_ID", "")
    assert settings.mlflow_node_id("argument") == "argument"
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_NODE_ID", "theirs")
    assert settings.mlflow_node_id("argument") == "theirs"


def test_the_switches_set_mlflows_variables():
    sysmetrics_native.enable_system_metrics_logging()
    assert os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"] == "true"
    sysmetrics_native.disable_system_metrics_logging()
    assert os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"] == "false"


@pytest.mark.parametrize(
    ("setter", "variable", "value", "text"),
    [
        ("sampling_interval", "SAMPLING_INTERVAL", 0.01, "0.01"),
        ("sampling_interval", "SAMPLING_INTERVAL", "5", "5.0"),
        ("samples_before_logging", "SAMPLES_BEFORE_LOGGING", 100, "100"),
        ("samples_before_logging", "SAMPLES_BEFORE_LOGGING", "7", "7"),
        ("node_id", "NODE_ID", "node-0", "node-0"),
    ],
)
def test_the_setters_set_and_unset(setter, variable, value, text):
    set_it = getattr(sysmetrics_native, f"set_system_metrics_{setter}")
    name = f"MLFLOW_SYSTEM_METRICS_{variable}"
    set_it(None)
    assert name not in os.environ
    set_it(value)
    assert os.environ[name] == text
    set_it(None)
    assert name not in os.environ


@pytest.mark.parametrize(
    ("setter", "value", "message"),
    [
        ("sampling_interval", 0, f"interval must be {SECONDS}, got 0"),
        ("sampling_interval", True, f"interval must be {SECONDS}, got True"),
        ("samples_before_logging", 0, f"samples must be {WHOLE}, got 0"),
        ("samples_before_logging", 1.5, f"samples must be {WHOLE}, got 1.5"),
        ("node_id", "", f"node_id must be {NODE}, got ''"),
        ("node_id", "//", f"node_id must be {NODE}, got '//'"),
    ],
)
def test_the_setters_refuse_and_change_nothing(setter, value, message):
    set_it = getattr(sysmetrics_native, f"set_system_metrics_{setter}")
    before = dict(os.environ)
    assert refusal(lambda: set_it(value)) == message
    assert dict(os.environ) == before


# ---- keys that MLflow takes ---------------------------------------------------------------------

LONGEST_KEY = "disk_available_megabytes"
KEY_LENGTH = 250


def assert_mlflow_takes(key: str) -> None:
    """MLflow's own rule for a metric's name."""
    assert re.match(r"^[/\w.\- :]*$", key), key
    assert "\n" not in key
    assert posixpath.normpath(key) == key
    assert not key.startswith(("/", ".."))
    assert len(key) <= KEY_LENGTH


@given(st.text(max_size=300))
@example("node-1.cluster.example")
@example("../../etc/passwd")
@example("a//b/./../c")
@example(" / . / .. ")
@example("é漢字٣")
@example("a:b")
@example("x" * 127 + "/y")
@example("x" * 126 + " /" + "y")
@example("ﬁ\u0301\u200d\u2028")
def test_a_node_id_makes_keys_that_mlflow_takes(text):
    node_id = catalog.clean_node_id(text)
    assert catalog.clean_node_id(node_id) == node_id or len(node_id) < 128, (
        "cleaning what is clean changes nothing"
    )
    if node_id:
        suffix = catalog.disk_key_suffix("/" + "d" * 79)
        for key in ("cpu_utilization_percentage", f"{LONGEST_KEY}{suffix}_last"):
            assert_mlflow_takes(catalog.metric_prefix(node_id) + key)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("node-0", "node-0"),
        ("rack 3/node_7", "rack 3/node_7"),
        ("a//b", "a/b"),
        ("../a", "a"),
        ("/a/", "a"),
        (" a ", "a"),
        ("host:8080", "host_8080"),
        ("größe", "größe"),
        ("a\nb", "a_b"),
        ("...", ""),
        ("", ""),
    ],
)
def test_cleaning_a_node_id(text, cleaned):
    assert catalog.clean_node_id(text) == cleaned


PATHS = st.text(
    st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), max_size=60
).map(lambda text: "/" + text)


@given(PATHS)
@example("/data/scratch")
@example("/mnt/größe (alt)/…")
@example("//")
@example("/.. /a")
def test_a_disk_path_makes_keys_that_mlflow_takes(path):
    paths, message = outcome(lambda: settings.option("disk_paths", ["/", path]))
    if paths is None:
        assert "at most 80 bytes" in message
        return
    suffix = catalog.disk_key_suffix(paths[-1])
    assert suffix.startswith("_")
    assert len(suffix) > 1
    assert_mlflow_takes(f"system/{LONGEST_KEY}{suffix}")
    assert_mlflow_takes(f"system/{'n' * 128}/{LONGEST_KEY}{suffix}_mean")


@given(PATHS)
@example("/ä")
@example("//double")
def test_both_backends_give_a_disk_path_the_same_keys(path):
    try:
        settings.option("disk_paths", ["/", path])
        samplers = [
            Sampler(backend=name, sources="disk_space", disk_paths=["/", path])
            for name in ("auto", "psutil")
        ]
    except (ValueError, UnicodeEncodeError):
        return
    first, second = (sampler.schema for sampler in samplers)
    assert first == second


@pytest.mark.parametrize(
    ("path", "suffix"),
    [
        ("/data/scratch", "_data_scratch"),
        ("/", "_root"),
        ("/mnt/ssd-1_a.b", "_mnt_ssd-1_a.b"),
        ("/a b", "_a_b"),
        ("/é", "___"),
    ],
)
def test_the_suffix_of_a_disk_path(path, suffix):
    assert catalog.disk_key_suffix(path) == suffix

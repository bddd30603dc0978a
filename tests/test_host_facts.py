"""What a run is told of a machine, from files that stand in for the kernel's; and of its clock."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sysmetrics_native.host_facts import host_tag
from sysmetrics_native.tracking import clock_offset_seconds

CPU = "processor\t: {}\nvendor_id\t: GenuineIntel\nmodel name\t: {}\n\n"


class Machine:
    """Folders that stand in for /proc and /sys."""

    def __init__(self, folder: Path) -> None:
        self.procfs, self.sysfs = folder / "proc", folder / "sys"
        self.procfs.mkdir()
        self.sysfs.mkdir()

    def has_driver(self, name: str, version: str) -> None:
        folder = self.sysfs / "module" / name
        folder.mkdir(parents=True)
        (folder / "version").write_text(f"{version}\n", encoding="utf-8")

    def told(self) -> dict[str, Any]:
        (tag,) = host_tag("system/", str(self.procfs), str(self.sysfs)).items()
        key, text = tag
        assert key == "system/host"
        assert len(text) <= 500
        told = json.loads(text)
        assert isinstance(told, dict)
        return told


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_is_told(machine: Machine) -> None:
    (machine.procfs / "cpuinfo").write_text(
        "".join(CPU.format(i, "AMD EPYC 9654 96-Core Processor") for i in range(400)),
        encoding="ascii",
    )
    (machine.procfs / "meminfo").write_text("MemTotal:       2113467868 kB\n", encoding="ascii")
    machine.has_driver("nvidia", "550.54.15")
    told = machine.told()
    assert told["cpu"] == "AMD EPYC 9654 96-Core Processor"
    assert told["memory_megabytes"] == 2164191.1
    assert told["gpu_driver"] == "550.54.15"
    assert told["logical_cores"] == os.cpu_count()
    assert told.keys() == {"cpu", "logical_cores", "memory_megabytes", "gpu_driver", "kernel", "os"}


def test_the_driver_of_amd(machine: Machine) -> None:
    machine.has_driver("amdgpu", "6.7.0")
    assert machine.told()["gpu_driver"] == "6.7.0"


def test_what_is_not_known_is_absent(machine: Machine) -> None:
    assert "gpu_driver" not in machine.told()


@pytest.mark.parametrize("line", ["", "MemTotal:\n", "MemTotal: much kB\n", "\xff\n"])
def test_a_memory_that_is_not_told_is_asked_for_elsewhere(machine: Machine, line: str) -> None:
    (machine.procfs / "meminfo").write_text(line, encoding="latin-1")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.told()["memory_megabytes"] == pytest.approx(pages / 1e6, rel=0.01)


@pytest.mark.parametrize("name", ["x" * 1000, "ü" * 3000, '"\\' * 200])
def test_mlflow_takes_it_whatever_the_cpu_is_called(machine: Machine, name: str) -> None:
    (machine.procfs / "cpuinfo").write_text(CPU.format(0, name), encoding="utf-8")
    machine.has_driver("nvidia", name)
    told = machine.told()
    assert len(told["cpu"]) >= 10
    assert name.startswith(told["cpu"])
    assert told["logical_cores"] == os.cpu_count()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(1000.0, 1001.0, 0.0), (1003.0, 1003.2, 2.6), (900.0, 901.0, -100.0)],
)
def test_the_offset_of_a_clock(before: float, after: float, expected: float) -> None:
    date = "Thu, 01 Jan 1970 00:16:40 GMT"  # 1000, and up to a second more
    assert clock_offset_seconds(date, before, after) == pytest.approx(expected)


@pytest.mark.parametrize(
    "date",
    ["", "soon", "Thu, 99 Jan 1970 00:16:40 GMT", "Thu, 01 Jan 99999999999 00:16:40 GMT", "\0"],
)
def test_no_offset_without_a_date(date: str) -> None:
    assert clock_offset_seconds(date, 1000.0, 1001.0) is None

"""AMD's drivers (csrc/gpu) and the libraries that they find: none, the real one, and stand-ins."""

from __future__ import annotations

import ast
import ctypes
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fake_gpus import (
    AMD_SMI,
    EMPTY_AMD_SMI,
    OLD_AMD_SMI,
    OLD_ROCM_SMI,
    ROCM_SMI,
    FakeGpus,
    build,
    compiler,
)
from tests.test_amd_abi import ROOT, rocm_smi_root

PROGRAM = r"""
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "gpu/driver.h"

extern const smn_gpu_driver smn_gpu_amd_smi, smn_gpu_rocm_smi;

int main(int count, char **arguments)
{
    const smn_gpu_driver *driver =
        count > 1 && strcmp(arguments[1], "rocm_smi") == 0 ? &smn_gpu_rocm_smi : &smn_gpu_amd_smi;
    double readings[SMN_GPU_READINGS];
    int devices = 0;
    void *state = NULL;
    smn_gpu_attempt attempt;
    int error = driver->open(-1, &state, &devices, &attempt);
    printf("(%d, %d, '%s', '%s', '%s', {", error, devices, attempt.name, attempt.outcome,
           attempt.version);
    for (int i = 0; state != NULL && i < driver->call_count; i++) {
        for (int r = 0; r < SMN_GPU_READINGS; r++)
            readings[r] = NAN;
        int failed = driver->calls[i].read(state, 0, readings);
        printf("'%s': %d, ", driver->calls[i].function, failed);
    }
    printf("})\n");
    if (state != NULL)
        driver->close(state);
    return 0;
}
"""

ENODATA = -61
ENOTSUP = -95


class Opened(NamedTuple):
    """What became of opening a driver, and of its calls for device 0."""

    error: int
    devices: int
    name: str
    outcome: str
    version: str
    errors: dict[str, int]


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Opens a driver of the core without the rest of it."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(PROGRAM, encoding="utf-8")
    core = ROOT / "csrc"
    sources = [core / "gpu" / f"{name}.c" for name in ("amd", "amd_smi", "rocm_smi", "library")]
    command = [*compiler(), "-std=c11", "-D_GNU_SOURCE", "-O1", f"-I{core}"]
    output = folder / "driver"
    subprocess.run(
        [*command, "-o", output, folder / "driver.c", *sources, "-ldl", "-lm"], check=True
    )
    return output


@pytest.fixture
def open_driver(program: Path, tmp_path: Path) -> Open:
    """Opens the driver by that name in a process of its own."""

    def run(name: str, environment: dict[str, str] | None = None, **variables: str) -> Opened:
        inherited = {
            key: value
            for key, value in (environment or os.environ).items()
            if environment or key not in ("LD_LIBRARY_PATH", "ROCM_PATH")
        }
        answer = subprocess.run(
            [program, name],
            env={**inherited, **variables},
            check=True,
            capture_output=True,
            text=True,
        )
        return Opened(*ast.literal_eval(answer.stdout.splitlines()[-1]))

    return run


def is_there(library: str) -> bool:
    """Whether this machine has it without any help."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return Path("/opt/rocm/lib", library).exists()
    return True


# ---- none, or no device -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "library"), [("amd_smi", "libamd_smi.so"), ("rocm_smi", "librocm_smi64.so")]
)
def test_without_a_library_there_is_no_reason_to_worry(
    name: str, library: str, open_driver: Open
) -> None:
    if is_there(library):
        pytest.skip(f"this machine has {library}")
    opened = open_driver(name)
    assert opened.error == ENODATA
    assert opened.name == library
    assert opened.outcome == "not found"


def test_the_real_rocm_smi_says_that_there_is_no_device(open_driver: Open) -> None:
    folder = rocm_smi_root() / "usr/lib"
    if folder == Path("/usr/lib"):
        pytest.skip("of the library that the system has, nobody knows the version")
    if any(Path("/sys/class/kfd/kfd/topology/nodes").glob("*/gpu_id")):
        pytest.skip("this machine may have a GPU")
    opened = open_driver("rocm_smi", LD_LIBRARY_PATH=str(folder))
    assert opened.error == ENODATA
    assert opened.name == "librocm_smi64.so"
    assert opened.outcome.startswith("no device")


# ---- where a library is found -------------------------------------------------------------------


def test_the_library_in_rocm_path_is_found(
    gpus: FakeGpus, open_driver: Open, tmp_path: Path
) -> None:
    if is_there("libamd_smi.so"):
        pytest.skip("this machine has the library where the loader finds it first")
    (tmp_path / "rocm").mkdir()
    (tmp_path / "rocm" / "lib").symlink_to(build(AMD_SMI))
    scenario = str(gpus.scenario_path)
    opened = open_driver("amd_smi", ROCM_PATH=str(tmp_path / "rocm"), SMN_FAKE_GPUS=scenario)
    assert (opened.error, opened.devices) == (0, 1)
    assert opened.name.startswith(str(tmp_path)[:40])
    relative = open_driver("amd_smi", ROCM_PATH="rocm", SMN_FAKE_GPUS=scenario)
    assert relative.error == ENODATA


@pytest.mark.parametrize("suffix", ["", ".26", ".25", ".24", ".23"])
def test_each_name_of_amd_smi_is_found(suffix: str, gpus: FakeGpus, open_driver: Open) -> None:
    library = AMD_SMI._replace(file=f"libamd_smi.so{suffix}")
    folder = str(build(library))
    opened = open_driver("amd_smi", LD_LIBRARY_PATH=folder, SMN_FAKE_GPUS=str(gpus.scenario_path))
    assert (opened.error, opened.name) == (0, library.file)
    assert set(opened.errors.values()) == {0}


@pytest.mark.parametrize("suffix", ["", ".7", ".6", ".5", ".1"])
def test_each_name_of_rocm_smi_is_found(suffix: str, gpus: FakeGpus, open_driver: Open) -> None:
    library = ROCM_SMI._replace(file=f"librocm_smi64.so{suffix}")
    folder = str(build(library))
    opened = open_driver("rocm_smi", LD_LIBRARY_PATH=folder, SMN_FAKE_GPUS=str(gpus.scenario_path))
    assert (opened.error, opened.name) == (0, library.file)
    assert set(opened.errors.values()) == {0}


# ---- libraries that lack something --------------------------------------------------------------


def test_a_library_without_the_functions_is_not_used(gpus: FakeGpus, open_driver: Open) -> None:
    opened = open_driver("amd_smi", LD_LIBRARY_PATH=str(build(EMPTY_AMD_SMI)))
    assert opened.error == ENODATA
    assert opened.outcome.startswith("lacks the function amdsmi_")


def test_a_function_that_is_missing_costs_what_it_reads(gpus: FakeGpus, open_driver: Open) -> None:
    scenario = str(gpus.scenario_path)
    amd_smi = open_driver(
        "amd_smi", LD_LIBRARY_PATH=str(build(OLD_AMD_SMI)), SMN_FAKE_GPUS=scenario
    )
    assert amd_smi.errors.pop("amdsmi_get_gpu_total_ecc_count") == ENOTSUP
    assert set(amd_smi.errors.values()) == {0}
    # What came later has an older function in its place.
    rocm_smi = open_driver(
        "rocm_smi", LD_LIBRARY_PATH=str(build(OLD_ROCM_SMI)), SMN_FAKE_GPUS=scenario
    )
    assert set(rocm_smi.errors.values()) == {0}


def test_a_version_that_is_not_known_is_not_used(gpus: FakeGpus, open_driver: Open) -> None:
    gpus.write("devices 1\n* rocm 8")
    opened = open_driver(
        "amd_smi",
        LD_LIBRARY_PATH=str(build(AMD_SMI)),
        SMN_FAKE_GPUS=str(gpus.scenario_path),
    )
    assert opened.error == ENODATA
    assert opened.version == "27.1.0"
    assert "not known" in opened.outcome
    assert gpus.calls() == {"amdsmi_get_lib_version": 1}


# ---- pyrsmi on the same library -----------------------------------------------------------------

READ = """
from pyrsmi import rocml

rocml._driver_initialized = lambda: True  # it looks into /sys
rocml.smi_initialize()
names = "name id utilization memory_used memory_total memory_busy average_power unique_id uuid"
print([{name: getattr(rocml, f"smi_get_device_{name}")(i) for name in names.split()}
       for i in range(rocml.smi_get_device_count())])
rocml.smi_shutdown()
"""


@pytest.fixture
def read_with_pyrsmi(amd_gpus: FakeGpus, rocm_path: Path) -> Callable[[], list[dict[str, Any]]]:
    pytest.importorskip("pyrsmi")
    return lambda: amd_gpus.answer(READ, ROCM_PATH=str(rocm_path))


def test_pyrsmi_reads_what_the_scenario_says(
    amd_gpus: FakeGpus, read_with_pyrsmi: Callable[[], list[dict[str, Any]]]
) -> None:
    amd_gpus.write("""
        devices 3
        1 utilization 91
        1 memory_used 5e9
        1 memory_total 64e9
        1 power 543
        1 name AMD Instinct MI300X
        1 pci_id 0001:c3:1f.0
        1 uuid 12ff74a0-0000-1000-8034-567890abcdef
        2 power 0
        2 average_power 222
    """)
    first, second, third = read_with_pyrsmi()
    assert second == {
        "name": "AMD Instinct MI300X",
        "id": 0x74A0,
        "utilization": 91,
        "memory_used": 5_000_000_000,
        "memory_total": 64_000_000_000,
        "memory_busy": 7,
        "average_power": 543.0,
        "unique_id": 0x1C3F8,
        "uuid": "GPU-12ff74a0-0000-1000-8034-567890abcdef",
    }
    assert first["utilization"] == 40
    assert third["average_power"] == 222


def test_pyrsmi_says_minus_one_of_what_fails(
    amd_gpus: FakeGpus, read_with_pyrsmi: Callable[[], list[dict[str, Any]]]
) -> None:
    amd_gpus.write("devices 1\n* utilization none\n* power none\n* memory_used none")
    (device,) = read_with_pyrsmi()
    assert device["utilization"] == device["average_power"] == device["memory_used"] == -1
    assert device["memory_total"] == 192_000_000_000


def test_where_pyrsmi_is_wrong(
    amd_gpus: FakeGpus, read_with_pyrsmi: Callable[[], list[dict[str, Any]]]
) -> None:
    """So that nobody doubts the stand-in, nor our driver, which is tested with both in C.

    pyrsmi 1.1 takes "not available" for a number; and it has the structures of ROCm 7 alone, so
    that of libraries before 6.4 it takes voltages for the power.
    """
    amd_gpus.write("devices 1\n* utilization 65535\n* power -1\n* average_power 222")
    (device,) = read_with_pyrsmi()
    assert device["utilization"] == 65535
    assert device["average_power"] == 0xFFFFFFFF
    amd_gpus.write("devices 1\n* rocm 6.3\n* power 300")
    (device,) = read_with_pyrsmi()
    assert device["average_power"] != 300

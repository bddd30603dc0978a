"""Drivers that fail, lie, hang and come back: what that costs, and what it does not."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest

from tests.fake_gpus import EMPTY_NVML, FakeGpus
from tests.sampled import Sampled, SampledWindow, sample, sample_once

CPU_AND_GPU: dict[str, Any] = {
    "sources": "cpu,memory,gpu",
    "interval": 0.02,
    "samples_per_window": 10,
}
"""Windows of 0.2 s, of which two readings are."""
HALF_SECONDS = {**CPU_AND_GPU, "samples_per_window": 25}

UTILIZATION = "utilization_percentage"
MEMORY = "memory_usage_megabytes"
WATTS = "power_usage_watts"
SHARE = "power_usage_percentage"


def assert_host_is_unharmed(sampled: Sampled) -> None:
    """Every tick was taken, on a machine that may be busy; none lacks what is not of a GPU."""
    ticks, missed = sampled.stats["ticks"], sampled.stats["missed"]
    assert missed <= ticks // 2
    for window in sampled.whole:
        assert window.mean("system_memory_usage_megabytes") is not None
        assert window.mean("cpu_utilization_percentage") is not None


def has(windows: Iterable[SampledWindow], key: str) -> list[bool]:
    return [window.mean(key) is not None for window in windows]


# ---- codes --------------------------------------------------------------------------------------

FROM, UNTIL = 0.6, 1.1
FAULTS = f"""
devices 9
1 fail nvmlDeviceGetUtilizationRates TIMEOUT from {FROM} until {UNTIL}
2 fail nvmlDeviceGetUtilizationRates UNKNOWN from {FROM} until {UNTIL}
3 fail nvmlDeviceGetMemoryInfo NO_DATA from {FROM} until {UNTIL}
4 fail nvmlDeviceGetTotalEnergyConsumption INVALID_ARGUMENT from {FROM} until {UNTIL}
5 fail nvmlDeviceGetEnforcedPowerLimit UNKNOWN from {FROM}
6 utilization 36 @{FROM} 250 @{UNTIL} 36
7 memory_used 7e9 @{FROM} 999e9 @{UNTIL} 7e9
8 power_limit 680 @{FROM} 1e6 @{UNTIL} 680
"""
ABSENT = {
    *(f"gpu_{i}_{UTILIZATION}" for i in (1, 2, 6)),
    *(f"gpu_{i}_memory_usage_{unit}" for i in (3, 7) for unit in ("megabytes", "percentage")),
    *(f"gpu_4_{key}" for key in (WATTS, SHARE)),
}
"""In the meantime. Of a limit that cannot be read the last one is in force."""


@pytest.fixture
def faults(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Sampled:
    """Every device but the first has one that goes by: a call that fails, or a lie."""
    return sample_once(tmp_path_factory, FAULTS, 9, backend=backend, **CPU_AND_GPU)


def test_a_reading_that_fails_or_lies_costs_itself(faults: Sampled) -> None:
    assert_host_is_unharmed(faults)
    for key in ABSENT:
        assert all(has(faults.within(-1.0, FROM), key)), key
        assert not any(has(faults.within(FROM + 0.1, UNTIL), key)), key
        assert all(has(faults.within(UNTIL + 0.1), key)), key
    others = {key for key in faults.units if key.startswith("gpu_")} - ABSENT
    assert len(others) == 9 * 5 - len(ABSENT)
    for key in others:
        assert all(has(faults.whole, key)), key


def test_what_is_there_is_true(faults: Sampled) -> None:
    """The energy counter goes on while it cannot be read: means hold what it has counted."""
    for window in faults.whole:
        for i in range(9):
            assert window.mean(f"gpu_{i}_{UTILIZATION}") in (None, 30.0 + i)
            memory = 7000.0 if i == 7 else 10_000.0 + 1000.0 * i
            assert window.mean(f"gpu_{i}_{MEMORY}") in (None, memory)
            watts, share = window.mean(f"gpu_{i}_{WATTS}"), window.mean(f"gpu_{i}_{SHARE}")
            if watts is not None:
                assert watts == pytest.approx(200 + 5 * i, rel=0.05)
                assert share == pytest.approx(100 * (200 + 5 * i) / (600 + 10 * i), rel=0.05)


def test_a_call_that_fails_is_said_once_and_counted(faults: Sampled) -> None:
    said = sorted(faults.warnings)
    word = "; where that happens its values are left out without a word"
    functions = ("UtilizationRates", "MemoryInfo", "TotalEnergyConsumption", "EnforcedPowerLimit")
    for function in functions:
        (line,) = (line for line in said if f": nvmlDeviceGet{function}: " in line)
        assert line.endswith(word)
    lies = [line for line in said if "a value that cannot be true" in line]
    assert {line.partition(":")[0] for line in lies} <= {
        f"GPU {i} (Fake GPU {i})" for i in (6, 7, 8)
    }
    assert 2 <= len(lies) == len(said) - len(functions)  # the limit is read once a second
    assert faults.stats["sources"]["gpu"]["errors"] > 15


NONSENSE = {
    "utilization 250": {UTILIZATION},
    "utilization -1": {UTILIZATION},
    "memory_used 900e9": {MEMORY, "memory_usage_percentage"},
    "memory_total 0": {MEMORY, "memory_usage_percentage"},
    "power_limit 0": {SHARE},
    "temperature 1000": {"temperature_celsius"},
    "sm_clock -1": {"sm_clock_megahertz"},
    "memory_clock 1e9": {"memory_clock_megahertz"},
    "power 1e6": {WATTS, SHARE},
}
"""The last one's device has no counter of energy."""


def test_nonsense_is_absent_and_counted(gpus: FakeGpus, backend: str) -> None:
    lines = [f"{index} {value}" for index, value in enumerate(NONSENSE)]
    gpus.write("\n".join([f"devices {len(lines)}", *lines, f"{len(lines) - 1} energy none"]))
    options = {**CPU_AND_GPU, "sources": "cpu,memory,gpu,gpu_detail"}
    sampled = sample(gpus, 1, backend=backend, **options)
    assert_host_is_unharmed(sampled)
    for index, names in enumerate(NONSENSE.values()):
        prefix = f"gpu_{index}_"
        there = {
            key.removeprefix(prefix)
            for window in sampled.windows
            for key in window.means
            if key.startswith(prefix)
        }
        lacking = names | ({"energy_joules"} if index == len(NONSENSE) - 1 else set())
        assert NAMES - there == lacking, list(NONSENSE)[index]
    errors = {name: of["errors"] for name, of in sampled.stats["sources"].items()}
    assert errors["cpu"] == errors["memory"] == 0
    assert errors["gpu"] >= 2 * 5
    assert errors["gpu_detail"] >= 3
    # One line a device, but for a limit of 0: that is none.
    assert [line.split(" ")[1] for line in sampled.warnings] == [*"01235678"]


CALLS = {
    "nvmlDeviceGetUtilizationRates": {UTILIZATION},
    "nvmlDeviceGetMemoryInfo": {MEMORY, "memory_usage_percentage"},
    "nvmlDeviceGetTotalEnergyConsumption": {"energy_joules"},
    "nvmlDeviceGetEnforcedPowerLimit": {SHARE},
    "nvmlDeviceGetTemperature": {"temperature_celsius"},
    "nvmlDeviceGetClockInfo": {"sm_clock_megahertz", "memory_clock_megahertz"},
    "nvmlDeviceGetCurrentClocksEventReasons": {"throttled_percentage"},
    "nvmlDeviceGetTotalEccErrors": {"ecc_errors"},
}
NAMES = {
    *(UTILIZATION, MEMORY, "memory_usage_percentage", WATTS, SHARE, "temperature_celsius"),
    *("energy_joules", "sm_clock_megahertz", "memory_clock_megahertz", "throttled_percentage"),
    "ecc_errors",
}
"""Of a device that has everything that both backends read."""
KEPT_TO_ITSELF, NO_LONGER_SUPPORTED, NO_LONGER_ALLOWED, WELL = 16, 17, 18, 19


def refusals() -> str:
    """Of each function a device on which it is not supported, and one where it is not allowed."""
    functions = [function.replace("EventReasons", "*") for function in CALLS]
    return "\n".join(
        [
            "devices 20",
            *(f"{i} fail {function} NOT_SUPPORTED" for i, function in enumerate(functions)),
            *(f"{8 + i} fail {function} NO_PERMISSION" for i, function in enumerate(functions)),
            f"{KEPT_TO_ITSELF} fail nvmlDeviceGetHandleByIndex_v2 NO_PERMISSION",
            f"{NO_LONGER_SUPPORTED} fail nvmlDeviceGetUtilizationRates NOT_SUPPORTED from {FROM}",
            f"{NO_LONGER_ALLOWED} fail nvmlDeviceGetMemoryInfo NO_PERMISSION from {FROM}",
        ]
    )


def test_what_is_refused_is_left_out_and_not_asked_for_again(gpus: FakeGpus, backend: str) -> None:
    gpus.write(refusals())
    options = {**CPU_AND_GPU, "sources": "cpu,memory,gpu,gpu_detail"}
    sampled = sample(gpus, 6, backend=backend, **options)
    assert_host_is_unharmed(sampled)

    for i in range(16):
        function, names = list(CALLS.items())[i % 8]
        assert NAMES - sampled.keys_of(i) == names, function
        # A name is two calls at most, and the memory is also asked for who it is.
        assert gpus.calls(function)[f"{function} {i}"] <= 2
    assert sampled.keys_of(WELL) >= NAMES

    # One that the driver keeps to itself; the others keep their indices.
    assert [gpu[0] for gpu in sampled.gpus] == [i for i in range(20) if i != KEPT_TO_ITSELF]
    assert sampled.whole[0].mean(f"gpu_{WELL}_{UTILIZATION}") == 30.0 + WELL

    # What worked at first is absent from then on.
    for i, key in ((NO_LONGER_SUPPORTED, UTILIZATION), (NO_LONGER_ALLOWED, MEMORY)):
        assert sampled.keys_of(i) >= NAMES
        assert all(has(sampled.within(-1.0, FROM), f"gpu_{i}_{key}"))
        assert not any(has(sampled.within(FROM + 0.1), f"gpu_{i}_{key}"))

    # Nothing failed, so nothing counts as an error; the user may do something about permissions.
    errors = {name: of["errors"] for name, of in sampled.stats["sources"].items()}
    assert errors == {"cpu": 0, "memory": 0, "gpu": 0, "gpu_detail": 0}
    said = [line for line in sampled.warnings if "no permission" in line]
    functions = {*CALLS, "nvmlDeviceGetClockInfo of the memory"}
    assert sorted(line.split(": ")[1] for line in said) == sorted(functions)
    (left_out,) = set(sampled.warnings) - set(said)
    assert left_out.startswith(f"GPU {KEPT_TO_ITSELF}: the driver gives no access to it")


def test_a_lost_device_costs_itself(gpus: FakeGpus, backend: str) -> None:
    gpus.write(f"devices 4\n1 fail * GPU_IS_LOST from {FROM}\n2 fail * RESET_REQUIRED from {FROM}")
    sampled = sample(gpus, 8, backend=backend, **CPU_AND_GPU)
    assert_host_is_unharmed(sampled)
    for key in sampled.units:
        if key.startswith(("gpu_1_", "gpu_2_")):
            assert all(has(sampled.within(-1.0, FROM), key))
            assert not any(has(sampled.within(FROM + 0.1), key))
        elif key.startswith("gpu_"):
            assert all(has(sampled.whole, key)), key
    assert [line.partition(" ")[2][:1] for line in sampled.warnings] == ["1", "2"]
    for line in sampled.warnings:
        assert line.endswith("is lost or must be reset; it is tried again every 30 s")
    # They are left alone: the calls are those of before and one that failed.
    calls = gpus.calls("nvmlDeviceGet")
    for i in (1, 2):
        assert calls[f"nvmlDeviceGetMemoryInfo {i}"] < 0.6 * calls["nvmlDeviceGetMemoryInfo 0"]
    assert sampled.stats["sources"]["gpu"]["errors"] == 2


@pytest.mark.long
def test_a_lost_device_comes_back(gpus: FakeGpus, backend: str) -> None:
    """It is tried again every 30 s."""
    gpus.write("devices 2\n1 fail * GPU_IS_LOST from 1.2 until 20")
    sampled = sample(gpus, 72, backend=backend, **HALF_SECONDS)
    there = has(sampled.whole, f"gpu_1_{UTILIZATION}")
    assert there[0]
    assert not any(there[4:55])
    assert all(there[66:])
    assert all(has(sampled.whole, f"gpu_0_{UTILIZATION}"))
    # The counter went on while nobody looked: the mean of the window of its return is that of all.
    watts = [window.mean("gpu_1_power_usage_watts") for window in sampled.whole]
    assert [watt for watt in watts if watt is not None] == pytest.approx(
        [205.0] * sum(watt is not None for watt in watts), rel=0.02
    )
    lost, back = sampled.warnings
    assert lost.startswith("GPU 1 (Fake GPU 1): ")
    assert back == "GPU 1 (Fake GPU 1): it is back"


def test_codes_at_random_never_stop_anything(gpus: FakeGpus, backend: str) -> None:
    gpus.write(
        """
        devices 8
        seed 3
        * fail nvmlDeviceGetMemoryInfo UNKNOWN chance 0.2
        * fail nvmlDeviceGetUtilizationRates TIMEOUT chance 0.3
        * fail nvmlDeviceGetTotalEnergyConsumption 999 chance 0.2
        * fail nvmlDeviceGetEnforcedPowerLimit 4711 chance 0.5
        """
    )
    sampled = sample(gpus, 7, backend=backend, **CPU_AND_GPU)
    assert_host_is_unharmed(sampled)
    for window in sampled.whole:
        for key, value in window.means.items():
            index = int(key.split("_")[1])
            if key.endswith(UTILIZATION):
                assert value == 30 + index
            if key.endswith(WATTS):
                assert value == pytest.approx(200 + 5 * index, rel=0.05)
    assert len(sampled.warnings) <= 4  # one of each function
    assert sampled.stats["sources"]["gpu"]["errors"] > 30


# ---- calls that last ----------------------------------------------------------------------------


def test_a_call_that_sleeps_delays_nobody(gpus: FakeGpus, backend: str) -> None:
    """Half a minute in the driver: windows go out, stop and the end of the process do not wait."""
    gpus.write(f"devices 2\n1 sleep nvmlDeviceGetMemoryInfo 30 from {FROM} times 1")
    begin = time.monotonic()
    sampled = sample(gpus, 17, backend=backend, **CPU_AND_GPU)
    seconds = time.monotonic() - begin
    assert_host_is_unharmed(sampled)
    assert all(has(sampled.within(-1.0, FROM), f"gpu_0_{UTILIZATION}"))
    assert not any(has(sampled.within(FROM + 0.2), f"gpu_0_{UTILIZATION}"))
    assert sampled.stop_seconds < 3.0
    assert seconds < 20.0
    (line,) = sampled.warnings
    assert line == (
        "GPU 1: nvmlDeviceGetMemoryInfo has not returned for 2 s; until it does, there are no "
        "values of GPUs"
    )


def test_fork_in_a_call_that_sleeps(gpus: FakeGpus, backend: str) -> None:
    """The child touches no driver, and does not wait for one."""
    gpus.write("devices 2\n1 sleep nvmlDeviceGetMemoryInfo 30 from 0.3 times 1")
    fork = """
    import os
    time.sleep(0.4)
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        sampler.start()
        assert sampler.stop() and sampler.next_window(0.1) is None
        del sampler
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert time.monotonic() - begun < 5.0
    """
    sampled = sample(gpus, 1, backend=backend, during=fork, **CPU_AND_GPU)
    assert sampled.stop_seconds < 3.0
    assert gpus.forked_calls() == {}
    assert gpus.calls("nvmlDeviceGetMemoryInfo 1") != {}


SHORT_PATIENCE = {
    "native": "from sysmetrics_native.backends import native_gpus\n"
    "native_gpus.FIND_PATIENCE_SECONDS = 0.3",
    "psutil": "from sysmetrics_native.backends import python_gpus\n"
    "python_gpus.OPEN_PATIENCE_SECONDS = 0.3",
}


def assert_nothing_is_read(sampled: Sampled, patience: str) -> None:
    assert not [key for key in sampled.units if key.startswith("gpu")]
    assert sampled.gpus == []
    assert_host_is_unharmed(sampled)
    assert len(sampled.warnings) == 1
    assert sampled.warnings[0].startswith("No GPU is read")
    assert f"did not answer within {patience} s" in sampled.warnings[0]


@pytest.mark.parametrize("function", ["nvmlInit*", "nvmlDevice*"])
def test_a_driver_that_does_not_start_in_time(function: str, gpus: FakeGpus, backend: str) -> None:
    """The run goes on without GPUs and says so, and so does the end of the program."""
    gpus.write(f"devices 2\n* sleep {function} 30 times 1")
    before = SHORT_PATIENCE[backend]
    sampled = sample(gpus, 1, before=before, backend=backend, **CPU_AND_GPU)
    assert 0.3 <= sampled.create_seconds < 10.0
    assert_nothing_is_read(sampled, "0.3")


@pytest.mark.long
def test_a_driver_has_ten_seconds_to_start(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 2\n* sleep nvmlInit* 30 times 1")
    begin = time.monotonic()
    sampled = sample(gpus, 1, backend=backend, **CPU_AND_GPU)
    assert 9.0 < sampled.create_seconds < 15.0
    assert time.monotonic() - begin < 25.0
    assert_nothing_is_read(sampled, "10")


# ---- libraries ----------------------------------------------------------------------------------

SEVERAL_TIMES = """
import logging, sys

lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append((record.levelname, record.getMessage()))
logging.getLogger("sysmetrics_native").addHandler(handler)
logging.getLogger("sysmetrics_native").setLevel(logging.INFO)

from sysmetrics_native import Sampler

samplers = [Sampler(backend=sys.argv[1], sources="cpu,gpu") for _ in range(int(sys.argv[2]))]
print(repr((lines, [[info.key for info in sampler.schema] for sampler in samplers])))
"""


def test_a_library_that_does_not_initialise(gpus: FakeGpus, backend: str) -> None:
    """A line that says which and why, for people without GPUs no warning; it is tried anew."""
    gpus.write(
        """
        devices 2
        * fail nvmlInit* DRIVER_NOT_LOADED times 1
        * fail nvmlInit* LIB_RM_VERSION_MISMATCH times 1
        * fail nvmlInit* UNKNOWN times 1
        * fail nvmlDeviceGetCount_v2 UNKNOWN times 1
        """
    )
    lines, schemas = gpus.answer(SEVERAL_TIMES, backend, "5")
    for keys, (level, line), code in zip(schemas[:4], lines, (9, 18, 999, 999), strict=False):
        assert keys == ["cpu_utilization_percentage"]
        assert level == "INFO"
        assert line.startswith("No GPU is read. Looked for: ")
        assert "libnvidia-ml.so.1: nvml" in line
        assert f"(code {code})" in line
    assert len(lines) == 5
    assert "2 NVIDIA GPUs found by " in lines[4][1]
    assert f"gpu_1_{UTILIZATION}" in schemas[4]


def test_a_library_without_functions(tmp_path, backend: str) -> None:
    lines, (keys,) = FakeGpus(tmp_path, EMPTY_NVML).answer(SEVERAL_TIMES, backend, "1")
    assert keys == ["cpu_utilization_percentage"]
    ((level, line),) = lines
    assert level == "INFO"
    assert "libnvidia-ml.so.1: " in line


def test_a_gpu_that_nobody_may_use_is_none(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 2\n* fail nvmlDeviceGetHandleByIndex_v2 NO_PERMISSION")
    lines, (keys,) = gpus.answer(SEVERAL_TIMES, backend, "1")
    assert keys == ["cpu_utilization_percentage"]
    assert [level for level, line in lines if "gives no access" in line] == ["WARNING"] * 2
    (line,) = (line for level, line in lines if level == "INFO")
    assert line.startswith("No GPU is read. Looked for: ")
    assert "libnvidia-ml.so.1: 2 devices, but access to none" in line
    calls = gpus.calls()
    inits = sum(count for name, count in calls.items() if name.startswith("nvmlInit"))
    assert calls["nvmlShutdown"] == inits == 1


def test_somebody_else_shuts_the_library_down(gpus: FakeGpus, backend: str) -> None:
    """NVML counts who uses it, and a program that counts wrongly takes it from us, too."""
    gpus.write("devices 2\n0 mig 1\n0:0 memory_used 1e9")
    shut_down = """
    import ctypes
    library = ctypes.CDLL("libnvidia-ml.so.1")
    while library.nvmlShutdown() == 0:
        pass
    for _ in range(15):
        take(sampler.next_window(30.0))
    """
    sampled = sample(gpus, 1, backend=backend, during=shut_down, **CPU_AND_GPU)
    for key in (f"gpu_0_{WATTS}", f"gpu_0_mig_0_{MEMORY}", f"gpu_1_{UTILIZATION}"):
        there = has(sampled.whole, key)
        assert there[0]
        assert not all(there)
        assert there[-1]
    assert_host_is_unharmed(sampled)
    shut = [line for line in sampled.warnings if "was shut down by another part" in line]
    assert 1 <= len(shut) <= 2
    assert len(sampled.warnings) == 2 * len(shut)  # and that it is back
    calls = gpus.calls()
    inits = sum(count for name, count in calls.items() if name.startswith("nvmlInit"))
    assert inits == 2


# ---- twice --------------------------------------------------------------------------------------


def test_two_samplers_at_once(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 2")
    second = """
    with Sampler(**options) as other:
        window = other.next_window(30.0)
        assert window["gpu_1_utilization_percentage"].mean == 31.0
    take(sampler.next_window(30.0))
    """
    sampled = sample(gpus, 1, backend=backend, during=second, **CPU_AND_GPU)
    assert all(has(sampled.whole, f"gpu_1_{UTILIZATION}"))
    calls = gpus.calls()
    assert calls["nvmlShutdown"] == sum(
        count for name, count in calls.items() if name.startswith("nvmlInit")
    )

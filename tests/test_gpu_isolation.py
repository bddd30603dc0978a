"""Drivers that fail, lie, hang and come back: what that costs, and what it does not."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.fake_gpus import EMPTY_NVML, FakeGpus
from tests.sampled import Sampled, SampledWindow, sample

CPU_AND_GPU: dict[str, Any] = {
    "sources": "cpu,memory,gpu",
    "interval": 0.01,
    "samples_per_window": 50,
}
"""Windows of half a second, of which five readings are."""

UTILIZATION = "utilization_percentage"
MEMORY = "memory_usage_megabytes"


def whole(sampled: Sampled) -> list[SampledWindow]:
    return sampled.windows[:-1]


def assert_host_is_unharmed(sampled: Sampled) -> None:
    """Every tick was taken, on a machine that may be busy; none lacks what is not of a GPU."""
    ticks, missed = sampled.stats["ticks"], sampled.stats["missed"]
    assert missed <= ticks // 5
    for window in whole(sampled):
        assert window.mean("system_memory_usage_megabytes") is not None
        assert window.mean("cpu_utilization_percentage") is not None


def has(sampled: Sampled, key: str) -> list[bool]:
    return [window.mean(key) is not None for window in whole(sampled)]


# ---- codes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "comes_back", "says"),
    [
        ("NOT_SUPPORTED", False, None),
        ("NO_PERMISSION", False, "permission"),
        ("TIMEOUT", True, "nvmlDeviceGetUtilizationRates"),
        ("UNKNOWN", True, "nvmlDeviceGetUtilizationRates"),
    ],
)
def test_a_metric_that_fails_costs_itself(
    code: str, comes_back: bool, says: str | None, gpus: FakeGpus, backend: str
) -> None:
    gpus.write(f"devices 3\n1 fail nvmlDeviceGetUtilizationRates {code} from 0.8 until 2.3")
    sampled = sample(gpus, 8, backend=backend, **CPU_AND_GPU)
    assert_host_is_unharmed(sampled)
    broken = has(sampled, f"gpu_1_{UTILIZATION}")
    assert broken[0]
    assert not broken[3]
    assert broken[-1] == comes_back
    others = {key for key in sampled.units if key.startswith("gpu_")} - {f"gpu_1_{UTILIZATION}"}
    for key in others:
        assert all(has(sampled, key)), key
    assert len(sampled.warnings) == (says is not None)
    assert (says or "") in "".join(sampled.warnings)
    assert (sampled.stats["sources"]["gpu"]["errors"] > 0) == comes_back


@pytest.mark.parametrize("code", ["GPU_IS_LOST", "RESET_REQUIRED"])
def test_a_lost_device_costs_itself(code: str, gpus: FakeGpus, backend: str) -> None:
    gpus.write(f"devices 3\n1 fail * {code} from 0.8")
    sampled = sample(gpus, 8, backend=backend, **CPU_AND_GPU)
    assert_host_is_unharmed(sampled)
    for key in sampled.units:
        if key.startswith("gpu_1_"):
            assert has(sampled, key)[0]
            assert not any(has(sampled, key)[3:])
        elif key.startswith("gpu_"):
            assert all(has(sampled, key)), key
    assert len(sampled.warnings) == 1
    assert "30 s" in sampled.warnings[0]
    # It is left alone: the calls are those of before and one that failed.
    calls = gpus.calls("nvmlDeviceGet")
    assert calls["nvmlDeviceGetMemoryInfo 1"] < calls["nvmlDeviceGetMemoryInfo 0"] / 2


@pytest.mark.long
def test_a_lost_device_comes_back(gpus: FakeGpus, backend: str) -> None:
    """It is tried again every 30 s."""
    gpus.write("devices 2\n1 fail * GPU_IS_LOST from 1.2 until 20")
    sampled = sample(gpus, 72, backend=backend, **CPU_AND_GPU)
    there = has(sampled, f"gpu_1_{UTILIZATION}")
    assert there[0]
    assert not any(there[4:55])
    assert all(there[66:])
    assert all(has(sampled, f"gpu_0_{UTILIZATION}"))
    # The counter went on while nobody looked: the mean of the window of its return is that of all.
    watts = [window.mean("gpu_1_power_usage_watts") for window in whole(sampled)]
    assert [watt for watt in watts if watt is not None] == pytest.approx(
        [205.0] * sum(watt is not None for watt in watts), rel=0.02
    )
    assert len(sampled.lines) <= 4


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
    sampled = sample(gpus, 8, backend=backend, **CPU_AND_GPU)
    assert_host_is_unharmed(sampled)
    for window in whole(sampled):
        for key, value in window.means.items():
            index = int(key.split("_")[1])
            if key.endswith(UTILIZATION):
                assert value == 30 + index
            if key.endswith("power_usage_watts"):
                assert value == pytest.approx(200 + 5 * index, rel=0.01)
    assert len(sampled.warnings) <= 3 * 8
    assert sampled.stats["sources"]["gpu"]["errors"] > 50


# ---- lies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "nonsense"),
    [
        (UTILIZATION, "1 utilization 31 @0.8 250 @2.3 31"),
        (MEMORY, "1 memory_used 5e9 @0.8 999e9 @2.3 5e9"),
    ],
)
def test_nonsense_is_absent(key: str, nonsense: str, gpus: FakeGpus, backend: str) -> None:
    gpus.write(f"devices 2\n{nonsense}")
    sampled = sample(gpus, 8, backend=backend, **CPU_AND_GPU)
    there = has(sampled, f"gpu_1_{key}")
    assert there[0]
    assert not there[3]
    assert there[-1]
    values = {window.mean(f"gpu_1_{key}") for window in whole(sampled)}
    assert values <= {None, 31.0, 5000.0}
    assert all(has(sampled, f"gpu_0_{key}"))
    assert len(sampled.warnings) <= 1
    assert sampled.stats["sources"]["gpu"]["errors"] > 5


def test_an_energy_counter_that_leaps_makes_no_spike(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 1\n0 energy 1000 @0.9 17 @1.4 9e9 @1.9 5")
    sampled = sample(gpus, 6, backend=backend, **CPU_AND_GPU)
    for window in whole(sampled):
        assert window.mean("gpu_0_power_usage_watts") in (None, 0.0)


# ---- calls that last ----------------------------------------------------------------------------


def test_a_call_that_sleeps_delays_nobody(gpus: FakeGpus, backend: str) -> None:
    """Half a minute in the driver: windows go out, stop and the end of the process do not wait."""
    gpus.write("devices 2\n1 sleep nvmlDeviceGetMemoryInfo 30 from 1.2 times 1")
    begin = time.monotonic()
    sampled = sample(gpus, 8, backend=backend, **CPU_AND_GPU)
    seconds = time.monotonic() - begin
    assert_host_is_unharmed(sampled)
    there = has(sampled, f"gpu_0_{UTILIZATION}")
    assert there[0]
    assert not any(there[-2:])
    assert sampled.stop_seconds < 3.0
    assert seconds < 20.0
    assert len(sampled.warnings) == 1
    assert "nvmlDeviceGetMemoryInfo has not returned" in sampled.warnings[0]


def test_fork_in_a_call_that_sleeps(gpus: FakeGpus, backend: str) -> None:
    """The child touches no driver, and does not wait for one."""
    gpus.write("devices 2\n1 sleep nvmlDeviceGetMemoryInfo 30 from 0.4 times 1")
    fork = """
    import os
    time.sleep(0.5)
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        assert sampler.stop() and sampler.next_window(0.1) is None
        del sampler
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert time.monotonic() - begun < 5.0
    """
    sampled = sample(gpus, 1, backend=backend, during=fork, **CPU_AND_GPU)
    assert sampled.stop_seconds < 3.0
    assert gpus.forked_calls() == {}


def test_a_driver_that_does_not_start_in_time(gpus: FakeGpus, backend: str) -> None:
    """Ten seconds, and then the run goes on without GPUs and says so."""
    gpus.write("devices 2\n* sleep nvmlInit* 30 times 1")
    begin = time.monotonic()
    sampled = sample(gpus, 1, backend=backend, **CPU_AND_GPU)
    assert 9.0 < sampled.create_seconds < 15.0
    assert time.monotonic() - begin < 25.0
    assert not [key for key in sampled.units if key.startswith("gpu")]
    assert_host_is_unharmed(sampled)
    assert "did not answer" in "".join(message for _, message in sampled.lines)


# ---- libraries ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["DRIVER_NOT_LOADED", "LIB_RM_VERSION_MISMATCH", "UNKNOWN"])
def test_a_library_that_does_not_initialise(code: str, gpus: FakeGpus, backend: str) -> None:
    gpus.write(f"devices 2\n* fail nvmlInit* {code}")
    sampled = sample(gpus, 1, backend=backend, **CPU_AND_GPU)
    assert not [key for key in sampled.units if key.startswith("gpu")]
    assert sampled.warnings == []
    assert "libnvidia-ml.so.1" in "".join(message for _, message in sampled.lines)


def test_a_library_without_functions(tmp_path, backend: str) -> None:
    sampled = sample(FakeGpus(tmp_path, EMPTY_NVML), 1, backend=backend, **CPU_AND_GPU)
    assert not [key for key in sampled.units if key.startswith("gpu")]
    assert sampled.warnings == []


def test_a_device_that_the_driver_keeps_to_itself(gpus: FakeGpus, backend: str) -> None:
    """The others keep their indices."""
    gpus.write("devices 3\n1 fail nvmlDeviceGetHandleByIndex_v2 NO_PERMISSION")
    sampled = sample(gpus, 1, backend=backend, **CPU_AND_GPU)
    assert [gpu[0] for gpu in sampled.gpus] == [0, 2]
    assert whole(sampled)[0].mean(f"gpu_2_{UTILIZATION}") == 32.0
    assert len(sampled.warnings) == 1


@pytest.mark.native
def test_somebody_else_shuts_the_library_down(gpus: FakeGpus) -> None:
    """NVML counts who uses it, and a program that counts wrongly takes it from us, too."""
    gpus.write("devices 2")
    shut_down = """
    import ctypes
    library = ctypes.CDLL("libnvidia-ml.so.1")
    while library.nvmlShutdown() == 0:
        pass
    for _ in range(6):
        take(sampler.next_window(30.0))
    """
    sampled = sample(gpus, 1, backend="native", during=shut_down, **CPU_AND_GPU)
    for i in range(2):
        there = has(sampled, f"gpu_{i}_{UTILIZATION}")
        assert there[0]
        assert there[-1]
    assert_host_is_unharmed(sampled)
    assert 1 <= len(sampled.warnings) <= 4


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
    assert all(has(sampled, f"gpu_1_{UTILIZATION}"))
    calls = gpus.calls()
    assert calls["nvmlShutdown"] == sum(
        count for name, count in calls.items() if name.startswith("nvmlInit")
    )

"""GPUs that work: keys, values, means, and how often a driver is called for them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fake_gpus import NVML, OLD_NVML, FakeGpus
from tests.sampled import Sampled, SampledWindow, sample

PARITY = ("utilization_percentage", "memory_usage_megabytes", "memory_usage_percentage",
          "power_usage_watts", "power_usage_percentage")  # fmt: skip
PROFILING = (
    *("sm_active", "sm_occupancy", "tensor_active", "dram_active"),
    *("fp16_active", "fp32_active", "fp64_active"),
)
FULL: dict[str, Any] = {"interval": 0.02, "samples_per_window": 25}
"""Windows of half a second, of which five readings are."""


def keys_of(sampled: Sampled, index: int) -> set[str]:
    prefix = f"gpu_{index}_"
    return {key.removeprefix(prefix) for key in sampled.units if key.startswith(prefix)}


def whole(sampled: Sampled) -> list[SampledWindow]:
    return sampled.windows[:-1]


# ---- what there is ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 8, 16])
def test_the_keys_are_those_of_mlflow(count: int, gpus: FakeGpus, backend: str) -> None:
    gpus.write(f"devices {count}")
    sampled = sample(gpus, 2, backend=backend, **FULL)
    expected = {f"gpu_{i}_{name}" for i in range(count) for name in PARITY}
    assert {key for key in sampled.units if key.startswith("gpu_")} == expected
    for window in whole(sampled):
        assert set(window.means) == expected
    assert len(sampled.gpus) == count
    assert sampled.warnings == []


def test_every_value_of_a_device_is_the_scenarios(gpus: FakeGpus, backend: str) -> None:
    gpus.write(
        """
        devices 2
        1 utilization 77
        1 memory_used 20e9
        1 memory_total 80e9
        1 power 350
        1 power_limit 700
        """
    )
    sampled = sample(gpus, 3, backend=backend, **FULL)
    for window in sampled.windows:
        got = {key: window.mean(f"gpu_1_{key}") for key in PARITY}
        if window is sampled.windows[-1]:  # too short for the energy counter to tell
            got |= {key: got[key] or 50.0 for key in PARITY}
            got["power_usage_watts"] = 350.0
        assert got == {
            "utilization_percentage": 77.0,
            "memory_usage_megabytes": 20_000.0,
            "memory_usage_percentage": 25.0,
            "power_usage_watts": pytest.approx(350.0, rel=0.002),
            "power_usage_percentage": pytest.approx(50.0, rel=0.002),
        }


@pytest.mark.native
def test_detail(gpus: FakeGpus) -> None:
    gpus.write(
        """
        devices 2
        1 temperature 63
        1 sm_clock 1980
        1 memory_clock 2619
        1 throttle_reasons 0x4
        1 pcie_receive_rate 3e9
        1 pcie_transmit_rate 4e9
        1 nvlink_receive_rate 50e9
        1 nvlink_transmit_rate 60e9
        1 ecc_corrected 2 @1.2 5
        0 throttle_reasons 0x1
        """
    )
    sampled = sample(gpus, 3, backend="native", sources="gpu_detail", interval=0.02,
                     samples_per_window=50)  # fmt: skip
    last = whole(sampled)[-1]
    expected = {
        "temperature_celsius": 63.0,
        "sm_clock_megahertz": 1980.0,
        "memory_clock_megahertz": 2619.0,
        "throttled_percentage": 100.0,
        "pcie_receive_megabytes_per_second": pytest.approx(3000.0, rel=0.01),
        "pcie_transmit_megabytes_per_second": pytest.approx(4000.0, rel=0.01),
        "nvlink_receive_megabytes_per_second": pytest.approx(50000.0, rel=0.01),
        "nvlink_transmit_megabytes_per_second": pytest.approx(60000.0, rel=0.01),
    }
    assert keys_of(sampled, 1) == {*expected, "energy_joules", "ecc_errors"}
    assert {key: last.mean(f"gpu_1_{key}") for key in expected} == expected
    # A GPU that idles is not throttled, though its driver gives that as a reason.
    assert last.mean("gpu_0_throttled_percentage") == 0.0
    # Both count from the start.
    joules = sampled.windows[-1].series["gpu_1_energy_joules"][3]
    assert joules == pytest.approx(205 * (sampled.windows[-1].end - sampled.windows[0].start), 0.05)
    assert sampled.windows[-1].series["gpu_1_ecc_errors"][3] == 3.0
    units = {key.split("_", 2)[2]: sampled.units[key][0] for key in sampled.units}
    assert units["energy_joules"] == "joules"
    assert units["nvlink_receive_megabytes_per_second"] == "megabytes per second"


@pytest.mark.native
def test_traffic_without_counters_comes_from_gpm(gpus: FakeGpus) -> None:
    gpus.write(
        """
        devices 1
        * fail nvmlDeviceGetFieldValues NOT_SUPPORTED
        0 pcie_receive_rate 3e9
        0 nvlink_transmit_rate 60e9
        """
    )
    sampled = sample(gpus, 3, backend="native", sources="gpu_detail", **FULL)
    last = whole(sampled)[-1]
    assert last.mean("gpu_0_pcie_receive_megabytes_per_second") == pytest.approx(3000.0, rel=0.01)
    assert last.mean("gpu_0_nvlink_transmit_megabytes_per_second") == pytest.approx(60000, rel=0.01)


@pytest.mark.native
def test_an_old_driver_has_less_and_nothing_is_invented(tmp_path) -> None:
    gpus = FakeGpus(tmp_path, OLD_NVML)
    gpus.write("devices 2")
    sampled = sample(gpus, 2, backend="native", sources="all", **FULL)
    kinds = {key: kind for key, (_, _, kind) in sampled.units.items()}
    assert kinds["gpu_1_power_usage_watts"] == "gauge"  # it has no counter of energy
    assert keys_of(sampled, 1) >= set(PARITY)
    assert not any("active" in key or "energy" in key or "mig" in key for key in kinds)
    assert whole(sampled)[-1].mean("gpu_1_power_usage_watts") == pytest.approx(205.0)
    assert sampled.warnings == []


# ---- means --------------------------------------------------------------------------------------


def test_the_mean_power_of_a_window_is_exact(gpus: FakeGpus, backend: str) -> None:
    """The power doubles in the middle of one; all together they hold every joule."""
    gpus.write("devices 1\n0 power 100 @1.31 900 @1.42 300")
    sampled = sample(gpus, 5, backend=backend, interval=0.5, samples_per_window=1)
    windows = whole(sampled)
    start = gpus.loaded_ns() * 1e-9 + sampled.clock
    joules = 0.0
    for window in windows:
        watts = window.mean("gpu_0_power_usage_watts")
        assert watts is not None
        joules += watts * (window.end - window.start)
    changes = (start + 1.31, start + 1.42)
    expected = (
        100.0 * (changes[0] - windows[0].start)
        + 900.0 * (changes[1] - changes[0])
        + 300.0 * (windows[-1].end - changes[1])
    )
    # The readings are made a little before the ends of windows.
    assert joules == pytest.approx(expected, abs=300.0 * 0.1)


@pytest.mark.native
def test_gpm_spans_the_whole_window(gpus: FakeGpus) -> None:
    """A slice of the window would read 0 or 100 alone."""
    steps = " ".join(f"@{0.05 * i:.2f} {100 * (i % 4 == 0)}" for i in range(1, 200))
    gpus.write(f"devices 1\n0 sm_active 0 {steps}")
    sampled = sample(gpus, 5, backend="native", sources="gpu_profiling", interval=0.1,
                     samples_per_window=10)  # fmt: skip
    for window in whole(sampled):
        series = window.series["gpu_0_sm_active_percentage"]
        assert series[0] == pytest.approx(25.0, abs=6.0)
        assert series[1] == series[2] == series[0]  # one value, of the whole of it
    assert keys_of(sampled, 0) == {f"{name}_percentage" for name in PROFILING}


def test_utilization_is_the_mean_of_its_readings(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 1\n0 utilization 0 @2 100")
    sampled = sample(gpus, 6, backend=backend, interval=0.01, samples_per_window=100)
    means = [window.mean("gpu_0_utilization_percentage") for window in whole(sampled)]
    between = [mean for mean in means if mean not in (0.0, 100.0)]
    assert means[0] == 0.0
    assert means[-1] == 100.0
    assert len(between) <= 1
    assert means == sorted(means, key=float)  # type: ignore[arg-type]  # it sorts numbers only


# ---- MIG ----------------------------------------------------------------------------------------

MIG = """
devices 2
0 mig 1
0:0 memory_used 4e9
0:0 memory_total 20e9
0:0 uuid MIG-aaaa
0:2 memory_used 5e9
0:2 memory_total 10e9
0:2 uuid MIG-cccc
"""


@pytest.mark.native
def test_memory_of_mig_devices_and_nothing_invented(gpus: FakeGpus) -> None:
    gpus.write(MIG)
    sampled = sample(gpus, 2, backend="native", **FULL)
    means = whole(sampled)[-1].means
    assert means["gpu_0_mig_0_memory_usage_megabytes"] == 4000.0
    assert means["gpu_0_mig_0_memory_usage_percentage"] == 20.0
    assert means["gpu_0_mig_2_memory_usage_percentage"] == 50.0
    assert keys_of(sampled, 0) == {
        *PARITY[1:],
        *(f"mig_{j}_{key}" for j in (0, 2) for key in PARITY[1:3]),
    }
    assert keys_of(sampled, 1) == set(PARITY)
    assert sampled.warnings == []


# ---- which --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "variables", "indices"),
    [
        ("all", {}, [0, 1, 2, 3]),
        ("none", {}, []),
        ("2,0", {}, [0, 2]),
        ([3], {}, [3]),
        ("GPU-c0de0001", {}, [1]),
        ("visible", {"CUDA_VISIBLE_DEVICES": "3,1"}, [1, 3]),
        ("visible", {"CUDA_VISIBLE_DEVICES": ""}, []),
        ("visible", {"CUDA_VISIBLE_DEVICES": "1,9,2"}, [1]),
        ("all", {"CUDA_VISIBLE_DEVICES": "1", "NVIDIA_VISIBLE_DEVICES": "void"}, [0, 1, 2, 3]),
    ],
)
def test_what_is_chosen_is_read_and_the_rest_left_alone(
    choice: object, variables: dict[str, str], indices: list[int], gpus: FakeGpus, backend: str
) -> None:
    gpus.write("devices 4")
    sampled = sample(gpus, 2, backend=backend, variables=variables, gpus=choice, **FULL)
    expected = {f"gpu_{i}_{name}" for i in indices for name in PARITY}
    assert {key for key in sampled.units if key.startswith("gpu_")} == expected
    assert [gpu[0] for gpu in sampled.gpus] == indices
    for i in range(4):
        calls = gpus.calls("nvmlDeviceGetUtilizationRates").get(
            f"nvmlDeviceGetUtilizationRates {i}", 0
        )
        assert calls > 2 if i in indices else calls <= 1  # one, to learn whether it has any


@pytest.mark.native
def test_one_mig_device_brings_its_gpu_but_not_its_neighbour(gpus: FakeGpus) -> None:
    gpus.write(MIG)
    sampled = sample(gpus, 2, backend="native", gpus="MIG-cccc", **FULL)
    assert keys_of(sampled, 0) == {*PARITY[1:], *(f"mig_2_{key}" for key in PARITY[1:3])}
    assert keys_of(sampled, 1) == set()


def test_a_gpu_that_is_not_there_is_refused(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 2")
    program = f"""
        from sysmetrics_native import Sampler
        try:
            Sampler(backend={backend!r}, gpus=[5])
        except ValueError as error:
            print(repr(str(error)))
    """
    message = gpus.answer(program)
    assert message.startswith("gpus must be all, visible, none, or of the GPUs that there are (0 ")
    assert message.endswith("got 5")


# ---- calls --------------------------------------------------------------------------------------


def test_how_often_a_driver_is_asked(gpus: FakeGpus, backend: str) -> None:
    """At a kilohertz: ten times a second at most, never for processes."""
    gpus.write("devices 8")
    sources = "all" if backend == "native" else "default,gpu_detail"
    sampled = sample(gpus, 4, backend=backend, sources=sources, interval=0.001,
                     samples_per_window=1000)  # fmt: skip
    seconds = sampled.windows[-1].end - sampled.windows[0].start
    calls = gpus.calls()
    for i in range(8):
        # Besides: to learn what there is, and the first and the last reading.
        fast, slow = 10 * seconds + 4, seconds + 4
        assert 20 <= calls[f"nvmlDeviceGetUtilizationRates {i}"] <= fast
        assert calls[f"nvmlDeviceGetTotalEnergyConsumption {i}"] <= fast
        assert calls[f"nvmlDeviceGetTemperature {i}"] <= slow
        assert calls[f"nvmlDeviceGetEnforcedPowerLimit {i}"] <= slow
        assert calls[f"nvmlDeviceGetTotalEccErrors {i}"] <= 2 * slow
    assert not [name for name in calls if "Process" in name or "FanSpeed" in name]


@pytest.mark.native
def test_nobody_asks_for_what_nobody_wants(gpus: FakeGpus) -> None:
    gpus.write("devices 2")
    sample(gpus, 1, backend="native", sources="cpu,memory", **FULL)
    sample(gpus, 1, backend="native", gpus="none", **FULL)
    assert gpus.calls() == {}
    sample(gpus, 1, backend="native", sources="gpu", **FULL)
    unwanted = ("Temperature", "Clock", "Gpm", "Ecc", "FieldValues")
    assert not [name for name in gpus.calls() if any(part in name for part in unwanted)]
    # Once, to learn whether there is power to read; then there is the counter of energy.
    assert gpus.calls("nvmlDeviceGetPowerUsage 0") == {"nvmlDeviceGetPowerUsage 0": 1}


def test_the_stand_in_is_the_one_that_is_found() -> None:
    """What all of the above stands on."""
    assert NVML.file == "libnvidia-ml.so.1"


# ---- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "raise RuntimeError", "os._exit(0)"])
def test_a_program_that_just_ends(end: str, gpus: FakeGpus, backend: str) -> None:
    """No call is made while driver libraries take themselves apart."""
    gpus.write("devices 4")
    program = f"""
        import os, sys
        from sysmetrics_native import Sampler
        sampler = Sampler(backend={backend!r}, interval=0.001, samples_per_window=100)
        sampler.start()
        assert sampler.next_window(10.0)
        {end}
    """
    outcome = gpus.run(program)
    assert outcome.returncode == {"pass": 0, "os._exit(0)": 0, "sys.exit(3)": 3}.get(end, 1)
    assert "Fatal" not in outcome.stderr
    if backend == "native" and "_exit" not in end:
        assert gpus.calls("nvmlShutdown") == {"nvmlShutdown": 1}

"""GPUs that work: keys, values, means, and how often a driver is called for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.fake_gpus import NVML, OLD_NVML, FakeGpus
from tests.sampled import Sampled, SampledWindow, mostly, sample, sample_once

PARITY = ("utilization_percentage", "memory_usage_megabytes", "memory_usage_percentage",
          "power_usage_watts", "power_usage_percentage")  # fmt: skip
DETAIL = ("temperature_celsius", "energy_joules", "sm_clock_megahertz", "memory_clock_megahertz",
          "throttled_percentage", "ecc_errors")  # fmt: skip
TRAFFIC = tuple(
    f"{link}_{way}_megabytes_per_second"
    for link in ("pcie", "nvlink")
    for way in ("receive", "transmit")
)
"""The C core alone reads it, and what follows."""
PROFILING = (
    *("sm_active", "sm_occupancy", "tensor_active", "dram_active"),
    *("fp16_active", "fp32_active", "fp64_active"),
)
FULL: dict[str, Any] = {"interval": 0.02, "samples_per_window": 10}
"""Windows of 0.2 s, of which two readings are, unless the machine is busy."""


def everything(backend: str) -> str:
    """All sources of GPUs that a backend has."""
    return "gpu,gpu_detail,gpu_profiling" if backend == "native" else "gpu,gpu_detail"


def gpu_keys(sampled: Sampled) -> set[str]:
    return {key for key in sampled.units if key.startswith("gpu_")}


def seconds(window: SampledWindow) -> float:
    return window.end - window.start


# ---- what there is ------------------------------------------------------------------------------


def test_no_device_is_a_line_and_no_key(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 0")
    sampled = sample(gpus, 1, backend=backend, **FULL)
    assert gpu_keys(sampled) == set()
    assert sampled.gpus == []
    ((level, line),) = sampled.lines
    assert level == "INFO"
    assert line.startswith("No GPU is read. Looked for: ")
    assert "libnvidia-ml.so.1: 0 devices" in line


SIXTEEN = """
devices 16
1 utilization 77
1 memory_used 20e9
1 memory_total 80e9
1 power 350
1 power_limit 700
2 energy none
"""
OF_SIXTEEN = {f"gpu_{i}_{name}" for i in range(16) for name in PARITY}


@pytest.fixture
def sixteen(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Sampled:
    """The most that a machine has, as a rule; one of them has no counter of energy."""
    during = f"wait_for(has(*{OF_SIXTEEN}))"
    return sample_once(tmp_path_factory, SIXTEEN, 2, during=during, backend=backend, **FULL)


def mean_over(windows: Sequence[SampledWindow], key: str) -> float:
    """Of all windows that have a value; a moment more or less at their ends matters little then."""
    means = [(seconds(window), window.mean(key)) for window in windows]
    there = [(length, mean) for length, mean in means if mean is not None]
    return sum(length * mean for length, mean in there) / sum(length for length, _ in there)


def test_the_keys_are_those_of_mlflow(sixteen: Sampled) -> None:
    assert gpu_keys(sixteen) == OF_SIXTEEN
    assert set(sixteen.whole[-1].means) == OF_SIXTEEN
    assert all(mostly(sixteen.whole, key) for key in OF_SIXTEEN)
    assert [gpu[0] for gpu in sixteen.gpus] == list(range(16))
    assert sixteen.warnings == []


def test_every_value_of_a_device_is_the_scenarios(sixteen: Sampled) -> None:
    exact = {
        "utilization_percentage": 77.0,
        "memory_usage_megabytes": 20_000.0,
        "memory_usage_percentage": 25.0,
    }
    for window in sixteen.windows:
        for key, value in exact.items():
            assert window.mean(f"gpu_1_{key}") in (None, value)
    assert mean_over(sixteen.whole, "gpu_1_power_usage_watts") == pytest.approx(350, rel=0.1)
    assert mean_over(sixteen.whole, "gpu_1_power_usage_percentage") == pytest.approx(50, rel=0.1)


def test_no_device_has_the_values_of_another(sixteen: Sampled) -> None:
    window = sixteen.whole[-1]
    for i in {*range(16)} - {1}:
        got = {key: window.mean(f"gpu_{i}_{key}") for key in PARITY[:3]}
        assert got == {
            "utilization_percentage": 30.0 + i,
            "memory_usage_megabytes": 10_000.0 + 1000.0 * i,
            "memory_usage_percentage": pytest.approx(100 * (10 + i) / (80 + 0.5 * i)),
        }
        # A counter and a clock are not read at the same moment on a busy machine. But both values
        # come from the same span, so what they say of the limit is exact.
        watts, share = (window.mean(f"gpu_{i}_power_usage_{of}") for of in ("watts", "percentage"))
        assert watts == pytest.approx(200 + 5 * i, rel=0.25)
        assert watts is not None
        assert share == pytest.approx(100.0 * watts / (600 + 10 * i), rel=1e-6)


def test_power_without_a_counter_is_the_mean_of_its_readings(sixteen: Sampled) -> None:
    assert sixteen.units["gpu_1_power_usage_watts"] == ("watts", "gpu", "ratio")
    assert sixteen.units["gpu_2_power_usage_watts"] == ("watts", "gpu", "gauge")
    for window in sixteen.windows:
        assert window.mean("gpu_2_power_usage_watts") in (None, pytest.approx(210.0))
        share = pytest.approx(100 * 210 / 620)
        assert window.mean("gpu_2_power_usage_percentage") in (None, share)


SLOWED = ("0x4", "0x8", "0x20", "0x40", "0x80", "0x44")
AS_FAST_AS_IT_SHOULD = ("0x0", "0x1", "0x2", "0x10", "0x100")
"""It idles, or somebody has set its clocks: reasons that slow no work."""


def detail_of_all(ecc_corrected: int, ecc_uncorrected: int) -> str:
    """Device 1 has everything, and the others are or are not slowed."""
    reasons = [f"{i + 2} throttle_reasons {bits}" for i, bits in enumerate(SLOWED)]
    reasons += [f"{i + 8} throttle_reasons {bits}" for i, bits in enumerate(AS_FAST_AS_IT_SHOULD)]
    return "\n".join(
        [
            "live",
            "devices 13",
            "1 temperature 63",
            "1 sm_clock 1980",
            "1 memory_clock 2619",
            "1 pcie_receive_rate 3e9",
            "1 pcie_transmit_rate 4e9",
            "1 nvlink_receive_rate 50e9",
            "1 nvlink_transmit_rate 60e9",
            f"1 ecc_corrected {ecc_corrected}",
            f"1 ecc_uncorrected {ecc_uncorrected}",
            *reasons,
            "4 fail nvmlDeviceGetCurrentClocksEventReasons FUNCTION_NOT_FOUND",  # until 535
            "12 fail nvmlDeviceGetCurrentClocksEventReasons FUNCTION_NOT_FOUND",
        ]
    )


def test_detail(gpus: FakeGpus, backend: str) -> None:
    gpus.write(detail_of_all(100, 1))
    expected = {
        "temperature_celsius": 63.0,
        "sm_clock_megahertz": 1980.0,
        "memory_clock_megahertz": 2619.0,
        "throttled_percentage": 0.0,
    }
    rates: dict[str, float] = {}
    if backend == "native":
        rates = dict(zip(TRAFFIC, (3000.0, 4000.0, 50_000.0, 60_000.0), strict=True))
    during = f"""
    wait_for(has("gpu_1_ecc_errors"))
    write({detail_of_all(103, 2)!r})
    wait_for(lambda series: series["gpu_1_ecc_errors"][3] == 4.0)
    gather(*{[f"gpu_1_{key}" for key in (*expected, *rates)]})
    gather(*{[f"gpu_{i}_throttled_percentage" for i in range(1, 13)]})
    """
    sampled = sample(gpus, 4, during=during, backend=backend, sources="gpu_detail", **FULL)
    assert sampled.keys_of(1) == {*expected, *rates, "energy_joules", "ecc_errors"}
    shares = {i: 100.0 if 2 <= i < 2 + len(SLOWED) else 0.0 for i in range(1, 13)}
    for window in sampled.windows:
        for key, value in expected.items():
            assert window.mean(f"gpu_1_{key}") in (None, value), key
        for i, share in shares.items():
            assert window.mean(f"gpu_{i}_throttled_percentage") in (None, share), i
    for key, rate in rates.items():
        assert mean_over(sampled.windows, f"gpu_1_{key}") == pytest.approx(rate, rel=0.1), key
    # Both count from the start.
    assert sampled.windows[-1].series["gpu_1_ecc_errors"][3] in (None, 4.0)
    last = [window for window in sampled.whole if window.mean("gpu_1_energy_joules") is not None][
        -1
    ]
    most = 205 * (last.end - sampled.windows[0].start)
    joules = last.series["gpu_1_energy_joules"][3]
    assert joules is not None
    assert 0.5 * most <= joules <= 1.05 * most
    units = {key.removeprefix("gpu_1_"): of for key, of in sampled.units.items() if "_1_" in key}
    assert {key: units[key] for key in DETAIL} == {
        "temperature_celsius": ("celsius", "gpu_detail", "gauge"),
        "energy_joules": ("joules", "gpu_detail", "total"),
        "sm_clock_megahertz": ("megahertz", "gpu_detail", "gauge"),
        "memory_clock_megahertz": ("megahertz", "gpu_detail", "gauge"),
        "throttled_percentage": ("percentage", "gpu_detail", "gauge"),
        "ecc_errors": ("errors", "gpu_detail", "total"),
    }
    if backend == "native":
        assert {units[key][0] for key in TRAFFIC} == {"megabytes per second"}


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
    rates = {
        "gpu_0_pcie_receive_megabytes_per_second": 3000.0,
        "gpu_0_nvlink_transmit_megabytes_per_second": 60_000.0,
    }
    during = f"wait_for(has(*{list(rates)}))"
    sampled = sample(gpus, 2, during=during, backend="native", sources="gpu_detail", **FULL)
    for key, rate in rates.items():
        assert sampled.whole[-1].mean(key) == pytest.approx(rate, rel=0.01), key


def test_an_old_driver_has_less_and_nothing_is_invented(tmp_path, backend: str) -> None:
    gpus = FakeGpus(tmp_path, OLD_NVML)
    gpus.write("devices 2")
    during = 'wait_for(has("gpu_1_power_usage_watts"))'
    sampled = sample(gpus, 1, during, backend=backend, sources=everything(backend), **FULL)
    kinds = {key: kind for key, (_, _, kind) in sampled.units.items()}
    assert kinds["gpu_1_power_usage_watts"] == "gauge"  # it has no counter of energy
    assert sampled.keys_of(1) >= set(PARITY)
    assert not any("active" in key or "energy" in key or "mig" in key for key in kinds)
    assert sampled.whole[-1].mean("gpu_1_power_usage_watts") == pytest.approx(205.0)
    assert sampled.warnings == []


LACKING = {
    "utilization": {"utilization_percentage"},
    "memory_used": {"memory_usage_megabytes", "memory_usage_percentage"},
    "power_limit": {"power_usage_percentage"},
    "temperature": {"temperature_celsius"},
    "sm_clock": {"sm_clock_megahertz"},
    "memory_clock": {"memory_clock_megahertz"},
    "throttle_reasons": {"throttled_percentage"},
    "ecc_uncorrected": {"ecc_errors"},
    "energy": {"energy_joules"},
}


def test_what_a_device_lacks_is_left_out_quietly(gpus: FakeGpus, backend: str) -> None:
    """Each of these devices lacks something else."""
    lines = [f"{index} {value} none" for index, value in enumerate(LACKING)]
    gpus.write("\n".join([f"devices {len(LACKING)}", *lines]))
    sampled = sample(gpus, 1, backend=backend, sources="gpu,gpu_detail", **FULL)
    for index, lacking in enumerate(LACKING.values()):
        assert {*PARITY, *DETAIL} - sampled.keys_of(index) == lacking
    assert sampled.warnings == []
    errors = {name: of["errors"] for name, of in sampled.stats["sources"].items()}
    assert errors == {"gpu": 0, "gpu_detail": 0}


# ---- means --------------------------------------------------------------------------------------

CHANGES = (1.61, 1.72)
SWITCHES = " ".join(f"@{0.05 * i:.2f} {500 if i % 2 else 100}" for i in range(1, 200))
POWER = f"""
devices 3
0 power 100 @{CHANGES[0]} 900 @{CHANGES[1]} 300
2 power 100 {SWITCHES}
2 power_limit 600
"""


@pytest.fixture
def power(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Sampled:
    """One window in which power changes: whatever moment each reading was made at."""
    options = {"backend": backend, "sources": "gpu", "interval": 0.02}
    return sample_once(
        tmp_path_factory, POWER, 0, during="time.sleep(3.5)", samples_per_window=10**6, **options
    )


def test_the_mean_power_of_a_window_is_exact(power: Sampled) -> None:
    (window,) = power.windows
    changes = [power.zero + change for change in CHANGES]
    assert window.start < changes[0]
    joules = (
        100.0 * (changes[0] - window.start)
        + 900.0 * (changes[1] - changes[0])
        + 300.0 * (window.end - changes[1])
    )
    expected = pytest.approx(joules / seconds(window), rel=0.02)
    assert window.mean("gpu_0_power_usage_watts") == expected


def test_power_that_changes_between_readings_is_in_the_mean(power: Sampled) -> None:
    """Half of the time 500 W, half of it 100 W: a counter knows, readings would not."""
    (window,) = power.windows
    assert window.mean("gpu_2_power_usage_watts") == pytest.approx(300, rel=0.05)
    assert window.mean("gpu_2_power_usage_percentage") == pytest.approx(50, rel=0.05)


CHANGING = """
devices 6
1 utilization 0 @1.7 100
3 power 200
3 power_limit 400 @1.5 200
4 energy 1000 @1.4 17 @1.7 9e9 @2.0 5
5 energy 5000 @1.4 5100 @1.8 10 @2.8 20
"""


@pytest.fixture
def changing(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Sampled:
    """Devices whose values do not stay as they are, each in another way."""
    during = """
    wait_for(lambda series: series["gpu_5_energy_joules"][3] == 110.0)
    wait_for(lambda series: (series["gpu_3_power_usage_percentage"][0] or 0.0) > 80.0)
    """
    options = {"backend": backend, "sources": "gpu,gpu_detail", **FULL}
    return sample_once(tmp_path_factory, CHANGING, 5, during=during, **options)


def means_of(sampled: Sampled, key: str) -> list[float]:
    """Of the windows that have one, of which there are enough."""
    assert mostly(sampled.whole, key)
    return [mean for window in sampled.whole if (mean := window.mean(key)) is not None]


def test_the_share_of_a_limit_that_changes(changing: Sampled) -> None:
    """The limit is read once a second; each stretch counts by the one that was in force."""
    means = means_of(changing, "gpu_3_power_usage_percentage")
    ends = [pytest.approx(50, rel=0.2), pytest.approx(100, rel=0.2)]
    assert means[0] == ends[0]
    assert means[-1] == ends[1]
    assert len([mean for mean in means if mean not in ends]) <= 1


def test_utilization_is_the_mean_of_its_readings(changing: Sampled) -> None:
    means = means_of(changing, "gpu_1_utilization_percentage")
    between = [mean for mean in means if mean not in (0.0, 100.0)]
    assert means[0] == 0.0
    assert means[-1] == 100.0
    assert len(between) <= 1
    assert means == sorted(means)


def test_an_energy_counter_that_leaps_makes_no_spike(changing: Sampled) -> None:
    """More than any GPU can use in the time is a reset, and so is less than before."""
    assert set(means_of(changing, "gpu_4_power_usage_watts")) == {0.0}
    assert set(means_of(changing, "gpu_4_power_usage_percentage")) == {0.0}
    assert set(means_of(changing, "gpu_4_energy_joules")) == {0.0}
    assert changing.whole[-1].series["gpu_5_energy_joules"][3] in (None, pytest.approx(110.0))
    assert min(means_of(changing, "gpu_5_power_usage_watts")) >= 0.0
    assert changing.warnings == []


@pytest.mark.native
def test_gpm_spans_the_whole_window(gpus: FakeGpus) -> None:
    """A slice of the window would read 0 or 100 alone."""
    steps = " ".join(f"@{0.025 * i:.3f} {100 * (i % 4 == 0)}" for i in range(1, 200))
    gpus.write(f"devices 1\n0 sm_active 0 {steps}")
    sampled = sample(gpus, 3, backend="native", sources="gpu_profiling", interval=0.1,
                     samples_per_window=5)  # fmt: skip
    assert mostly(sampled.whole, "gpu_0_sm_active_percentage")
    for window in sampled.whole:
        series = window.series["gpu_0_sm_active_percentage"]
        assert series[0] in (None, pytest.approx(25.0, abs=12.0))
        assert series[1] == series[2] == series[0]  # one value, of the whole of it
    assert sampled.keys_of(0) == {f"{name}_percentage" for name in PROFILING}


def test_a_run_that_is_shorter_than_the_period_has_a_value(gpus: FakeGpus, backend: str) -> None:
    """The first and the last reading do not wait for a tick, and are enough for a mean power."""
    sampled = sample(gpus, 0, during="time.sleep(0.6)", backend=backend, interval=10.0,
                     samples_per_window=1, sources="gpu,gpu_detail")  # fmt: skip
    (window,) = sampled.windows
    assert window.means.keys() == gpu_keys(sampled)
    assert window.mean("gpu_0_power_usage_watts") == pytest.approx(200, rel=0.1)


def test_a_recording_has_them(gpus: FakeGpus, tmp_path, backend: str) -> None:
    program = """
        import sys
        from sysmetrics_native import Sampler
        from sysmetrics_native.recording import Recording

        def means(window):
            return {key: window[key].mean for key in window}

        windows = []
        with Sampler(0.02, 10, backend=sys.argv[1], sources="gpu", recorder=sys.argv[2]) as sampler:
            while not windows or None in windows[-1].values():
                windows.append(means(sampler.next_window(30)))
        with Recording(sampler.recording_path) as recording:
            print(repr((windows, [means(window) for window in recording.windows()])))
    """
    live, replayed = gpus.answer(program, backend, str(tmp_path / "gpus.smnrec"))
    assert len(replayed) >= len(live)
    for one, other in zip(live, replayed, strict=False):
        assert other == pytest.approx(one)
    assert live[-1]["gpu_0_utilization_percentage"] == 30.0


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


def test_memory_of_mig_devices_and_nothing_invented(gpus: FakeGpus, backend: str) -> None:
    gpus.write(MIG)
    during = 'wait_for(has(*(f"gpu_0_mig_{i}_memory_usage_percentage" for i in (0, 2))))'
    sampled = sample(gpus, 1, during, backend=backend, **FULL)
    means = sampled.whole[-1].means
    assert means["gpu_0_mig_0_memory_usage_megabytes"] == 4000.0
    assert means["gpu_0_mig_0_memory_usage_percentage"] == 20.0
    assert means["gpu_0_mig_2_memory_usage_percentage"] == 50.0
    assert sampled.keys_of(0) == {
        *PARITY[1:],
        *(f"mig_{j}_{key}" for j in (0, 2) for key in PARITY[1:3]),
    }
    assert sampled.keys_of(1) == set(PARITY)
    assert sampled.warnings == []


# ---- which --------------------------------------------------------------------------------------


def choose(
    gpus: FakeGpus, backend: str, choices: list[tuple[object, dict[str, str]]]
) -> list[tuple[list[int], set[str]]]:
    """Indices and keys of what each value of the option leaves, in each environment."""
    program = """
        import os, sys
        from sysmetrics_native import Sampler
        told = []
        for choice, variables in eval(sys.argv[2]):
            os.environ.update(variables)
            sampler = Sampler(backend=sys.argv[1], sources="cpu,gpu", gpus=choice)
            keys = {info.key for info in sampler.schema if info.key.startswith("gpu_")}
            told.append(([gpu.index for gpu in sampler.gpus], keys))
            for name in variables:
                del os.environ[name]
        print(repr(told))
    """
    chosen: list[tuple[list[int], set[str]]] = gpus.answer(program, backend, repr(choices))
    return chosen


CHOICES: list[tuple[object, dict[str, str], list[int]]] = [
    ("all", {}, [0, 1, 2, 3]),
    ("none", {}, []),
    ("2,0", {}, [0, 2]),
    ([3], {}, [3]),
    ("GPU-c0de0001", {}, [1]),
    ("visible", {}, [0, 1, 2, 3]),
    ("visible", {"CUDA_VISIBLE_DEVICES": "3,1"}, [1, 3]),
    ("visible", {"CUDA_VISIBLE_DEVICES": ""}, []),
    ("visible", {"CUDA_VISIBLE_DEVICES": "1,9,2"}, [1]),
    ("visible", {"CUDA_VISIBLE_DEVICES": "GPU-c0de0002"}, [2]),
    ("all", {"CUDA_VISIBLE_DEVICES": "1", "NVIDIA_VISIBLE_DEVICES": "void"}, [0, 1, 2, 3]),
]


def test_what_is_chosen_keeps_its_index(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 4")
    found = choose(gpus, backend, [(choice, variables) for choice, variables, _ in CHOICES])
    for (choice, variables, expected), (indices, keys) in zip(CHOICES, found, strict=True):
        assert indices == expected, (choice, variables)
        assert keys == {f"gpu_{i}_{name}" for i in expected for name in PARITY}


def test_what_is_not_chosen_is_left_alone(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 4")
    during = 'wait_for(has("gpu_0_utilization_percentage"), of=3)'
    sampled = sample(gpus, 0, during, backend=backend, gpus="2,0", **FULL)
    assert [gpu[0] for gpu in sampled.gpus] == [0, 2]
    assert gpu_keys(sampled) == {f"gpu_{i}_{name}" for i in (0, 2) for name in PARITY}
    calls = gpus.calls("nvmlDeviceGetUtilizationRates")
    for i in range(4):
        count = calls.get(f"nvmlDeviceGetUtilizationRates {i}", 0)
        assert count > 2 if i in (0, 2) else count <= 1  # one, to learn whether it has any


def test_one_mig_device_brings_its_gpu_but_not_its_neighbour(gpus: FakeGpus, backend: str) -> None:
    gpus.write(MIG)
    ((indices, keys),) = choose(gpus, backend, [("MIG-cccc", {})])
    assert indices == [0]
    names = {*PARITY[1:], *(f"mig_2_{key}" for key in PARITY[1:3])}
    assert keys == {f"gpu_0_{name}" for name in names}


REFUSED = """
import os, sys
from sysmetrics_native import Sampler
told = []
for options in ({"gpus": [5]}, {"sources": "gpu", "gpus": "none"}, {}):
    if not options:
        os.environ["SYSMETRICS_NATIVE_GPUS"] = "5"
    try:
        Sampler(backend=sys.argv[1], **options)
    except ValueError as error:
        told.append(str(error))
print(repr(told))
"""


def test_what_is_not_there_is_refused(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 2")
    by_option, no_source, by_variable = gpus.answer(REFUSED, backend)
    allowed = " must be all, visible, none, or of the GPUs that there are (0 "
    assert by_option.startswith(f"gpus{allowed}")
    assert by_variable.startswith(f"SYSMETRICS_NATIVE_GPUS{allowed}")
    assert by_option.endswith("got 5")
    assert by_variable.endswith("got 5")
    assert no_source.startswith("sources")
    assert no_source.endswith("'gpu'")
    calls = gpus.calls()
    inits = sum(count for name, count in calls.items() if name.startswith("nvmlInit"))
    assert calls["nvmlShutdown"] == inits == 2


def test_a_list_of_gpus_where_there_are_none_is_a_warning(gpus: FakeGpus, backend: str) -> None:
    """The same program may run on a laptop."""
    gpus.write("devices 0")
    variables = {"SYSMETRICS_NATIVE_GPUS": "0"}
    sampled = sample(gpus, 1, backend=backend, variables=variables, **FULL)
    assert sampled.warnings == ["SYSMETRICS_NATIVE_GPUS is '0', but there are no GPUs here."]
    assert gpu_keys(sampled) == set()


# ---- calls --------------------------------------------------------------------------------------


def test_how_often_a_driver_is_asked(gpus: FakeGpus, backend: str) -> None:
    """At a kilohertz: ten times a second at most, never for processes; each reading counts once."""
    gpus.write("devices 2")
    enough = """
    while sampler.stats()["sources"]["gpu"]["calls"] < 10: take()
    gather("gpu_0_temperature_celsius", "gpu_1_temperature_celsius")
    """
    sampled = sample(gpus, 250, enough, backend=backend, sources=everything(backend),
                     interval=0.001, samples_per_window=4)  # fmt: skip
    length = sampled.windows[-1].end - sampled.windows[0].start
    calls = gpus.calls()
    for i in range(2):
        # Besides: to learn what there is, and the first and the last reading.
        fast, slow = 10 * length + 4, length + 4
        assert 8 <= calls[f"nvmlDeviceGetUtilizationRates {i}"] <= fast
        assert calls[f"nvmlDeviceGetMemoryInfo {i}"] <= fast + 1  # and who it is
        assert 8 <= calls[f"nvmlDeviceGetTotalEnergyConsumption {i}"] <= fast
        assert calls[f"nvmlDeviceGetCurrentClocksEventReasons {i}"] <= fast
        assert 2 <= calls[f"nvmlDeviceGetTemperature {i}"] <= slow
        assert calls[f"nvmlDeviceGetEnforcedPowerLimit {i}"] <= slow
        assert calls[f"nvmlDeviceGetClockInfo {i}"] <= 2 * slow
        assert calls[f"nvmlDeviceGetTotalEccErrors {i}"] <= 2 * slow
        for key, function in (
            ("utilization_percentage", "nvmlDeviceGetUtilizationRates"),
            ("temperature_celsius", "nvmlDeviceGetTemperature"),
        ):
            with_value = [w for w in sampled.windows if w.mean(f"gpu_{i}_{key}") is not None]
            assert 1 <= len(with_value) <= calls[f"{function} {i}"] - 1
    assert not [name for name in calls if "Process" in name or "FanSpeed" in name]
    assert sampled.stats["sources"]["gpu"]["interval_seconds"] == pytest.approx(0.1)
    assert 8 <= sampled.stats["sources"]["gpu"]["calls"] <= fast  # rounds, not calls


def test_nobody_asks_for_what_nobody_wants(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 2")
    sample(gpus, 1, backend=backend, sources="cpu,memory", **FULL)
    sampled = sample(gpus, 1, backend=backend, gpus="none", **FULL)
    assert gpus.records() == {}, "the library is not even loaded"
    assert sampled.lines == []
    sample(gpus, 1, backend=backend, sources="gpu", **FULL)
    unwanted = ("Temperature", "Clock", "Gpm", "Ecc", "FieldValues")
    assert not [name for name in gpus.calls() if any(part in name for part in unwanted)]
    # Once at most, to learn whether there is power to read; then there is the counter of energy.
    assert gpus.calls().get("nvmlDeviceGetPowerUsage 0", 0) <= 1


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

"""AMD's GPUs, from the stand-ins for their libraries to values: what differs from NVIDIA's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fake_gpus import (
    AMD_SMI,
    EMPTY_AMD_SMI,
    EMPTY_NVML,
    EMPTY_ROCM_SMI,
    NVML,
    ROCM_SMI,
    FakeGpus,
    Library,
)
from tests.sampled import Sampled, mostly, never, sample

pytestmark = pytest.mark.native

PARITY = (
    "utilization_percentage",
    "memory_usage_megabytes",
    "memory_usage_percentage",
    "power_usage_watts",
    "power_usage_percentage",
)
FULL: dict[str, Any] = {"backend": "native", "interval": 0.02, "samples_per_window": 10}
"""Windows of 0.2 s, of which two readings are, unless the machine is busy."""


def fake(folder: Path, *libraries: Library) -> FakeGpus:
    folder.mkdir()
    return FakeGpus(folder, *libraries)


def until(*keys: str) -> str:
    """Windows up to one that has all these keys."""
    return f"wait_for(has(*{keys}))"


def of_gpu(index: int, names: Sequence[str] = PARITY) -> tuple[str, ...]:
    return tuple(f"gpu_{index}_{name}" for name in names)


def last(sampled: Sampled) -> dict[str, float]:
    """The last window that was not cut short."""
    return sampled.whole[-1].means


@pytest.mark.parametrize("count", [0, 1, 16])
def test_the_keys_are_those_of_nvidia(count: int, amd_gpus: FakeGpus) -> None:
    amd_gpus.write(f"devices {count}")
    expected = {key for i in range(count) for key in of_gpu(i)}
    sampled = sample(amd_gpus, 2, until(*expected), **FULL)
    assert {key for key in sampled.units if key.startswith("gpu_")} == expected
    assert set(last(sampled)) == expected
    assert all(mostly(sampled.whole, key) for key in expected)
    assert sampled.warnings == []


@pytest.mark.parametrize("release", ["6", "6.2", "6.4", "7"])
def test_values_are_the_scenarios(release: str, amd_gpus: FakeGpus) -> None:
    """The share of power is that of the device's own limit: MLflow takes 500 W for all."""
    amd_gpus.write(f"""
        devices 2
        * rocm {release}
        1 utilization 77
        1 memory_used 20e9
        1 memory_total 80e9
        1 power 350
        1 power_limit 700
        1 name AMD Instinct MI300X
        1 unique_id 1a2b3c4d5e6f7081
    """)
    sampled = sample(amd_gpus, 0, until(*of_gpu(1)), **FULL)
    means = last(sampled)
    assert {key: means[f"gpu_1_{key}"] for key in PARITY} == {
        "utilization_percentage": 77.0,
        "memory_usage_megabytes": 20_000.0,
        "memory_usage_percentage": 25.0,
        "power_usage_watts": pytest.approx(350.0, rel=0.2),
        "power_usage_percentage": pytest.approx(50.0, rel=0.2),
    }
    assert sampled.gpus[1] == (1, "GPU-1a2b3c4d5e6f7081", "AMD Instinct MI300X")


def test_detail(amd_gpus: FakeGpus) -> None:
    amd_gpus.write("devices 1\n* temperature 63\n* sm_clock 1980\n* memory_clock 1300\n"
                   "* ecc_corrected 2")  # fmt: skip
    names = ("temperature_celsius", "sm_clock_megahertz", "memory_clock_megahertz")
    sampled = sample(amd_gpus, 0, until(*of_gpu(0, names)), sources="gpu_detail", **FULL)
    means = last(sampled)
    assert means["gpu_0_temperature_celsius"] == 63
    assert means["gpu_0_sm_clock_megahertz"] == 1980
    assert means["gpu_0_memory_clock_megahertz"] == 1300
    assert "gpu_0_ecc_errors" in sampled.units
    assert not any("pcie" in key or "nvlink" in key or "throttled" in key for key in means)


def test_partitions_of_a_card_tell_its_power_once(amd_gpus: FakeGpus) -> None:
    amd_gpus.write("devices 2\n0 pci_id 0000:0c:00.0\n1 pci_id 0000:0c:00.1")
    there = ("gpu_0_power_usage_watts", "gpu_1_utilization_percentage")
    sampled = sample(amd_gpus, 0, until(*there), **FULL)
    keys = {key.removeprefix("gpu_1_") for key in sampled.units if key.startswith("gpu_1_")}
    means = last(sampled)
    assert means["gpu_0_power_usage_watts"] == pytest.approx(300, rel=0.2)
    assert "gpu_1_power_usage_watts" not in means
    assert "power_usage_watts" not in keys
    assert means["gpu_1_utilization_percentage"] == 41
    assert sampled.warnings == []


def test_a_library_that_is_not_known_leads_to_the_next(tmp_path: Path) -> None:
    gpus = fake(tmp_path / "both", AMD_SMI, ROCM_SMI)
    gpus.write("devices 1\n* rocm 8")
    sampled = sample(gpus, 0, until(*of_gpu(0)), **FULL)
    assert set(last(sampled)) == set(of_gpu(0))
    assert gpus.calls("amdsmi_") == {"amdsmi_get_lib_version": 1}
    assert gpus.calls("rsmi_dev_busy_percent_get")


def test_without_libraries_the_files_of_the_kernel_are_read(tmp_path: Path) -> None:
    device = tmp_path / "sys" / "devices" / "0000:c1:00.0"
    files = {
        "vendor": "0x1002",
        "gpu_busy_percent": "37",
        "mem_info_vram_used": "16000000000",
        "mem_info_vram_total": "64000000000",
        "unique_id": "1a2b3c4d5e6f7081",
        "product_name": "AMD Instinct MI210",
        "hwmon/hwmon3/power1_average": "150000000",
        "hwmon/hwmon3/power1_cap": "300000000",
    }
    for name, text in files.items():
        (device / name).parent.mkdir(parents=True, exist_ok=True)
        (device / name).write_text(f"{text}\n")
    card = tmp_path / "sys" / "class" / "drm" / "card1"
    card.mkdir(parents=True)
    (card / "device").symlink_to("../../../devices/0000:c1:00.0")
    gpus = fake(tmp_path / "none", EMPTY_NVML, EMPTY_AMD_SMI, EMPTY_ROCM_SMI)
    sampled = sample(gpus, 0, until(*of_gpu(0)), sysfs_path=str(tmp_path / "sys"), **FULL)
    assert last(sampled) == {
        "gpu_0_utilization_percentage": 37,
        "gpu_0_memory_usage_megabytes": 16_000,
        "gpu_0_memory_usage_percentage": 25,
        "gpu_0_power_usage_watts": 150,
        "gpu_0_power_usage_percentage": 50,
    }
    assert sampled.gpus == [(0, "GPU-1a2b3c4d5e6f7081", "AMD Instinct MI210")]


def test_nvidia_comes_first(tmp_path: Path) -> None:
    gpus = fake(tmp_path / "both", NVML, AMD_SMI)
    gpus.write("devices 1\nfor nvidia\n0 utilization 11\nfor amd\n0 utilization 22")
    key = "gpu_0_utilization_percentage"
    assert last(sample(gpus, 0, until(key), **FULL))[key] == 11
    assert gpus.calls("amdsmi_") == {}
    gpus.write("devices 1\nfor nvidia\n* fail nvmlInit_v2 DRIVER_NOT_LOADED\n"
               "for amd\n0 utilization 22")  # fmt: skip
    assert last(sample(gpus, 0, until(key), **FULL))[key] == 22


def test_a_lost_device_costs_itself(amd_gpus: FakeGpus) -> None:
    amd_gpus.write("live\ndevices 3")
    lost = f"""
    wait_for(has(*{of_gpu(1)}))
    write("live\\ndevices 3\\n1 fail amdsmi_get_* NOT_FOUND")
    wait_for(has("gpu_0_utilization_percentage"), lacks(*{of_gpu(1)}))
    mark()
    take(4)
    """
    sampled = sample(amd_gpus, 0, lost, **FULL)
    assert all(never(sampled.between(0), key) for key in of_gpu(1))
    assert all(mostly(sampled.whole, key) for key in (*of_gpu(0), *of_gpu(2)))
    assert len(sampled.warnings) == 1
    assert "lost" in sampled.warnings[0]


def test_what_is_not_found_of_a_device_costs_only_that(amd_gpus: FakeGpus) -> None:
    amd_gpus.write("devices 1\n0 fail amdsmi_get_power_info NOT_FOUND\n* energy none")
    sampled = sample(amd_gpus, 0, until(*of_gpu(0, PARITY[:3])), **FULL)
    assert set(last(sampled)) == set(of_gpu(0, PARITY[:3]))
    assert sampled.warnings == []


def test_calls_are_as_often_as_they_are_worth(amd_gpus: FakeGpus) -> None:
    amd_gpus.write("devices 1")
    enough = "while sampler.stats()['sources']['gpu']['calls'] < 10: take()"
    sampled = sample(amd_gpus, 2, enough, **FULL)
    seconds = sampled.windows[-1].end - sampled.windows[0].start
    calls = amd_gpus.calls("amdsmi_get_")
    # Besides: to learn what there is, and the first and the last reading.
    assert 8 <= calls["amdsmi_get_gpu_activity 0"] <= 10 * seconds + 4
    assert 1 <= calls["amdsmi_get_power_cap_info 0"] <= seconds + 4
    assert "amdsmi_get_temp_metric 0" not in calls  # nobody has asked for the detail

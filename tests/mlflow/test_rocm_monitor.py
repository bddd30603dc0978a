"""MLflow's own monitor of AMD GPUs on the stand-in: what others are compared with.

It reads them with pyrsmi.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_gpus import FakeGpus
from tests.sampled import sample

pytest.importorskip(
    "mlflow.system_metrics.metrics.rocm_monitor", reason="this MLflow knows no AMD GPUs"
)

COLLECT = """
from pyrsmi import rocml

rocml._driver_initialized = lambda: True  # it looks into /sys

from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

monitor = ROCMMonitor()
for _ in range(3):
    monitor.collect_metrics()
print(repr(monitor.aggregate_metrics()))
"""

LIMIT_WATTS = 500
"""What it takes for the limit of any device."""


def scenario(count: int) -> str:
    """Devices that differ in everything."""
    lines = [f"devices {count}"]
    for i in range(count):
        lines += [
            f"{i} utilization {5 * i + 3}",
            f"{i} memory_used {(i + 1) * 1.5e9}",
            f"{i} memory_total {(i + 20) * 2e9}",
            f"{i} power {100 + i}",
        ]
    return "\n".join(lines)


def expected(count: int) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for i in range(count):
        used, total = (i + 1) * 1.5e9, (i + 20) * 2e9
        metrics |= {
            f"gpu_{i}_utilization_percentage": 5 * i + 3,
            f"gpu_{i}_memory_usage_gigabytes": used / 1e9,
            f"gpu_{i}_memory_usage_percentage": used / total * 100,
            f"gpu_{i}_power_usage_watts": 100 + i,
            f"gpu_{i}_power_usage_percentage": (100 + i) / LIMIT_WATTS * 100,
        }
    return metrics


@pytest.mark.parametrize("count", [0, 1, 8, 16])
def test_it_reads_what_the_scenario_says(count: int, amd_gpus: FakeGpus, rocm_path: Path) -> None:
    amd_gpus.write(scenario(count))
    metrics = amd_gpus.answer(COLLECT, ROCM_PATH=str(rocm_path))
    assert metrics == pytest.approx(expected(count), abs=0.06)  # it rounds twice, to 0.1
    assert len(metrics) == 5 * count
    calls = amd_gpus.calls("amdsmi_get_gpu_activity")
    assert calls == {f"amdsmi_get_gpu_activity {i}": 3 for i in range(count)}


def test_it_gives_up_where_there_is_no_driver(amd_gpus: FakeGpus, rocm_path: Path) -> None:
    amd_gpus.write("devices 1\n* fail amdsmi_init DRIVER_NOT_LOADED")
    outcome = amd_gpus.run(COLLECT, ROCM_PATH=str(rocm_path))
    assert outcome.returncode != 0
    assert "Failed to initialize RSMI" in outcome.stderr


def test_what_fails_is_minus_one_to_it(amd_gpus: FakeGpus, rocm_path: Path) -> None:
    """Which is why parity is not a goal there: a value that is missing is absent with us."""
    amd_gpus.write(f"{scenario(1)}\n0 utilization none\n0 power none")
    metrics = amd_gpus.answer(COLLECT, ROCM_PATH=str(rocm_path))
    assert metrics["gpu_0_utilization_percentage"] == -1
    assert metrics["gpu_0_power_usage_watts"] == -1
    assert metrics["gpu_0_memory_usage_gigabytes"] == 1.5


@pytest.mark.native
@pytest.mark.parametrize("count", [1, 8])
def test_our_values_are_its_values(count: int, amd_gpus: FakeGpus, rocm_path: Path) -> None:
    """In megabytes, as for NVIDIA; and the share of power is that of the device's real limit."""
    limits = "\n".join(f"{i} power_limit {400 + 50 * i}" for i in range(count))
    amd_gpus.write(f"{scenario(count)}\n{limits}")
    theirs = amd_gpus.answer(COLLECT, ROCM_PATH=str(rocm_path))
    keys = [f"gpu_{i}_power_usage_watts" for i in range(count)]
    until = f"wait_for(has(*{keys}))"
    sampled = sample(amd_gpus, 0, until, backend="native", interval=0.02, samples_per_window=25)
    window = sampled.whole[-1]
    for i in range(count):
        prefix = f"gpu_{i}_"
        ours = {
            key.removeprefix(prefix): mean
            for key, mean in window.means.items()
            if key.startswith(prefix)
        }
        their_share = theirs[f"{prefix}power_usage_percentage"]
        assert ours == {
            "utilization_percentage": theirs[f"{prefix}utilization_percentage"],
            "memory_usage_megabytes": theirs[f"{prefix}memory_usage_gigabytes"] * 1000,
            "memory_usage_percentage": pytest.approx(
                theirs[f"{prefix}memory_usage_percentage"], abs=0.06
            ),
            "power_usage_watts": pytest.approx(theirs[f"{prefix}power_usage_watts"], rel=0.2),
            "power_usage_percentage": pytest.approx(
                their_share * LIMIT_WATTS / (400 + 50 * i), rel=0.2
            ),
        }

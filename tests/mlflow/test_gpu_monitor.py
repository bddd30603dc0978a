"""MLflow's own GPU monitor on the stand-in for NVIDIA's library, and ours beside it."""

from __future__ import annotations

import mlflow
import pytest
from packaging.version import Version

from tests.fake_gpus import FakeGpus

pytestmark = pytest.mark.skipif(
    Version(mlflow.__version__) < Version("2.16"),
    reason="this MLflow does not log the power of GPUs yet, so there is less to compare",
)

COLLECT = """
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

monitor = GPUMonitor()
for _ in range(3):
    monitor.collect_metrics()
print(repr(monitor.aggregate_metrics()))
"""


def scenario(count: int) -> str:
    """Devices that differ in everything."""
    lines = [f"devices {count}"]
    for i in range(count):
        lines += [
            f"{i} utilization {5 * i + 3}",
            f"{i} memory_used {(i + 1) * 1.5e9}",
            f"{i} memory_total {(i + 20) * 2e9}",
            f"{i} power {100.5 + i}",
            f"{i} power_limit {400 + 10 * i}",
        ]
    return "\n".join(lines)


def expected(count: int) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for i in range(count):
        used, total = (i + 1) * 1.5e9, (i + 20) * 2e9
        metrics |= {
            f"gpu_{i}_utilization_percentage": 5 * i + 3,
            f"gpu_{i}_memory_usage_megabytes": used / 1e6,
            f"gpu_{i}_memory_usage_percentage": used / total * 100,
            f"gpu_{i}_power_usage_watts": 100.5 + i,
            f"gpu_{i}_power_usage_percentage": (100.5 + i) / (400 + 10 * i) * 100,
        }
    return metrics


@pytest.mark.parametrize("count", [0, 1, 8, 16])
def test_it_reads_what_the_scenario_says(count: int, gpus: FakeGpus) -> None:
    gpus.write(scenario(count))
    metrics = gpus.answer(COLLECT)
    assert metrics == pytest.approx(expected(count), abs=0.06)  # it rounds twice, to 0.1
    assert len(metrics) == 5 * count
    names = {
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetEnforcedPowerLimit",
    }
    assert gpus.calls("nvmlDeviceGet") == {
        **{f"{name} {i}": 3 for name in names for i in range(count)},
        **{f"nvmlDeviceGetHandleByIndex_v2 {i}": 1 for i in range(count)},
        "nvmlDeviceGetCount_v2": 1,
    }


def test_it_gives_up_where_there_is_no_gpu(gpus: FakeGpus) -> None:
    gpus.write("devices 0\n* fail nvmlInit* GPU_NOT_FOUND")
    outcome = gpus.run(COLLECT)
    assert outcome.returncode != 0
    assert "Failed to initialize NVML" in outcome.stderr


def test_one_reading_that_fails_costs_it_that_reading(gpus: FakeGpus) -> None:
    gpus.write(scenario(2) + "\n0 fail nvmlDeviceGetUtilizationRates NOT_SUPPORTED")
    metrics = gpus.answer(COLLECT)
    assert metrics.keys() == expected(2).keys() - {"gpu_0_utilization_percentage"}


OURS = """
import sys
from sysmetrics_native import Sampler

with Sampler(0.05, 8, backend=sys.argv[1], sources="cpu,gpu") as sampler:
    means = [None]
    while None in means:  # on a busy machine a window may have no reading
        window = sampler.next_window(30)
        gpus = {key: window[key].mean for key in window if key.startswith("gpu")}
        means = gpus.values()
print(repr({key: round(mean, 1) for key, mean in gpus.items()}))
"""


def test_its_keys_and_values_are_ours(gpus: FakeGpus, backend: str) -> None:
    """It reads the power, we read energy where there is a counter of it."""
    gpus.write(scenario(16) + "".join(f"\n{i} energy none" for i in range(0, 16, 2)))
    theirs = gpus.answer(COLLECT)
    ours = gpus.answer(OURS, backend)
    assert ours.keys() == theirs.keys()
    assert ours == pytest.approx(theirs, rel=0.1, abs=0.11)

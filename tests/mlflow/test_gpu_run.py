"""Unmodified MLflow code on a machine with GPUs, under MLflow's own monitor and under ours."""

from __future__ import annotations

import json

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from packaging.version import Version

from tests.fake_gpus import FakeGpus
from tests.mlflow.logged import Logged

RUN = """
import sys, time
import mlflow

mlflow.enable_system_metrics_logging()
mlflow.set_system_metrics_sampling_interval(0.1)
mlflow.set_system_metrics_samples_before_logging(10)
with mlflow.start_run() as run:
    time.sleep(float(sys.argv[1]))
print(repr(run.info.run_id))
"""

GPUS = """
devices 8
* utilization 40
5 utilization 95
5 memory_used 79e9
5 power 650
"""


def run(gpus: FakeGpus, database: str, seconds: float, **variables: str) -> Logged:
    run_id = gpus.answer(RUN, str(seconds), MLFLOW_TRACKING_URI=database, **variables)
    return Logged(run_id, database)


@pytest.mark.skipif(
    Version(mlflow.__version__) < Version("3"), reason="its keys are those of MLflow 3"
)
def test_the_same_keys_and_values(gpus: FakeGpus, database: str, backend: str) -> None:
    gpus.write(GPUS)
    stock = run(gpus, database, 4.0, SYSMETRICS_NATIVE_ENABLED="false")
    ours = run(gpus, database, 3.5, SYSMETRICS_NATIVE_BACKEND=backend)
    assert ours.metrics() == stock.metrics()
    assert len([key for key in ours.metrics() if "/gpu_" in key]) == 8 * 5
    for key in ours.metrics():
        name = key.removeprefix("system/")
        if "gpu_" in name:
            whole = ours.values(name)[:2]
            assert len(whole) == 2
            rel = 0.1 if "power" in name else 0.005  # what a counter says depends on the moment
            assert whole == pytest.approx([stock.values(name)[0]] * 2, abs=0.11, rel=rel), name
    assert set(ours.values("gpu_5_utilization_percentage")) == {95.0}


def test_the_run_says_which_gpus_they_are(gpus: FakeGpus, database: str, backend: str) -> None:
    gpus.write("devices 2\n1 name NVIDIA H100 80GB HBM3\n1 memory_total 85e9")
    logged = run(gpus, database, 1.5, SYSMETRICS_NATIVE_BACKEND=backend)
    tags = MlflowClient(database).get_run(logged.run_id).data.tags
    assert {key for key in tags if "gpu" in key} == {"system/gpu_0", "system/gpu_1"}
    assert json.loads(tags["system/gpu_1"]) == {
        "name": "NVIDIA H100 80GB HBM3",
        "memory_megabytes": 85000.0,
        "uuid": "GPU-c0de0001-fa4e-4000-8000-000000000001",
        "pci_id": "00000000:11:00.0",
    }


def test_a_run_does_not_wait_for_a_driver_that_hangs(
    gpus: FakeGpus, database: str, backend: str
) -> None:
    """Its other metrics are complete, the end of the run and of the program are in time."""
    gpus.write("devices 2\n0 sleep nvmlDeviceGetMemoryInfo 1000 from 4 times 1")
    logged = run(gpus, database, 5.0, SYSMETRICS_NATIVE_BACKEND=backend)
    assert logged.windows() >= 4
    assert len(logged.values("cpu_utilization_percentage")) >= 4
    assert MlflowClient(database).get_run(logged.run_id).info.status == "FINISHED"


@pytest.mark.native
def test_profiling_in_a_run(gpus: FakeGpus, database: str) -> None:
    gpus.write("devices 1\n0 sm_active 80\n0 tensor_active 62")
    logged = run(
        gpus, database, 2.5,
        SYSMETRICS_NATIVE_BACKEND="native",
        SYSMETRICS_NATIVE_SOURCES="default,gpu_detail,gpu_profiling",
    )  # fmt: skip
    assert set(logged.values("gpu_0_sm_active_percentage")) == {80.0}
    assert set(logged.values("gpu_0_tensor_active_percentage")) == {62.0}
    assert "system/gpu_0_temperature_celsius" in logged.metrics()
    assert "system/gpu_0_nvlink_receive_megabytes_per_second" in logged.metrics()

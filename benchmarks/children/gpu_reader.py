"""gpu_reader READER RATE SECONDS: a thread that reads all GPUs, so many times a second.

READER is `native` (our thread `smn-gpu`), `pynvml` (the four calls that MLflow makes for a device,
through NVIDIA's bindings) or `mlflow` (MLflow's own GPUMonitor). Prints, of one round of all
devices, the CPU time that reading takes and the CPU time of the thread, its waking up included.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.children import own_process
from sysmetrics_native import Sampler

WARM_UP_SECONDS = 0.5


def pynvml_round() -> Callable[[], object]:
    """The calls, and nothing done with what they give."""
    import pynvml  # only one of the readers has it loaded

    bindings: Any = pynvml
    bindings.nvmlInit()
    count = bindings.nvmlDeviceGetCount()
    handles = [bindings.nvmlDeviceGetHandleByIndex(i) for i in range(count)]

    def read() -> None:
        for handle in handles:
            bindings.nvmlDeviceGetMemoryInfo(handle)
            bindings.nvmlDeviceGetUtilizationRates(handle)
            bindings.nvmlDeviceGetPowerUsage(handle)
            bindings.nvmlDeviceGetEnforcedPowerLimit(handle)

    return read


def mlflow_round() -> Callable[[], object]:
    """MLflow's own monitor of GPUs."""
    from mlflow.system_metrics.metrics.gpu_monitor import (  # the same
        GPUMonitor,
    )

    stock: Any = GPUMonitor
    monitor = stock()

    def read() -> None:
        monitor.collect_metrics()
        monitor.clear_metrics()

    return read


Found = tuple[float, float, int]
"""Seconds of reading, CPU seconds, rounds."""


def in_python(read: Callable[[], object], rate: float, seconds: float) -> Found:
    """What a Python thread takes."""
    found: list[Found] = []

    def loop() -> None:
        start = time.monotonic()
        reading, cpu, rounds = 0.0, 0.0, -round(WARM_UP_SECONDS * rate)
        number = 0
        while rounds < seconds * rate:
            number += 1
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
            if rounds == 0:
                reading, cpu = 0.0, time.thread_time()
            before = time.thread_time()
            read()
            reading += time.thread_time() - before
            rounds += 1
        found.append((reading, time.thread_time() - cpu, rounds))

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    return found[0]


def native(rate: float, seconds: float) -> Found:
    """What our thread takes."""

    def so_far() -> Found:
        gpu = sampler.stats()["sources"]["gpu"]
        cpu = own_process.cpu_ns(own_process.threads_named("smn-gpu")) * 1e-9
        return gpu["mean_cost_seconds"] * gpu["calls"], cpu, gpu["calls"]

    options = {"interval": 1.0 / rate, "samples_per_window": round(rate), "backend": "native"}
    with Sampler(sources="gpu", **options) as sampler:  # type: ignore[arg-type]  # of several types
        time.sleep(WARM_UP_SECONDS)
        before = so_far()
        time.sleep(seconds)
        after = so_far()
    return after[0] - before[0], after[1] - before[1], after[2] - before[2]


def main(reader: str, rate: float, seconds: float) -> None:
    """Prints what a round took."""
    if reader == "native":
        reading, cpu, rounds = native(rate, seconds)
    else:
        reading, cpu, rounds = in_python(
            pynvml_round() if reader == "pynvml" else mlflow_round(), rate, seconds
        )
    figures = {"reading_us": reading / rounds * 1e6, "cpu_us": cpu / rounds * 1e6, "rounds": rounds}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))

"""sampler BACKEND SOURCES PROCFS [RECORDER]: our Sampler, drained by the main thread.

For each line RATE SECONDS that it reads it runs a new sampler and prints the CPU time of its
sampling thread, the ticks in it, and the mean cost of each source. RECORDER is a folder for
its recordings.
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks.children import own_process
from sysmetrics_native import Sampler

WARM_UP_SECONDS = 0.1


def drain(sampler: Sampler, seconds: float) -> None:
    """Takes windows as they come, as the MLflow monitor does."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        sampler.next_window(timeout=left)


def sampling_threads(before: set[int], backend: str) -> set[int]:
    """The threads that the sampler started; of the native backend the one with the known name."""
    threads = own_process.thread_ids() - before
    if backend == "native":
        threads &= own_process.threads_named(own_process.NATIVE_THREAD)
    if not threads:
        sys.exit(f"no sampling thread found (backend {backend})")
    return threads


def run(
    backend: str, sources: str, procfs: str, recorder: str, rate: float, seconds: float
) -> dict[str, float]:
    """Runs a sampler; what it took."""
    before = own_process.thread_ids()
    with Sampler(
        interval=1.0 / rate,
        samples_per_window=round(rate),
        backend=backend,
        sources=sources.split(","),
        procfs_path=procfs,
        recorder=recorder,
    ) as sampler:
        drain(sampler, WARM_UP_SECONDS)
        threads = sampling_threads(before, backend)
        cpu, ticks = own_process.cpu_ns(threads), sampler.stats()["ticks"]
        drain(sampler, seconds)
        cpu, ticks = own_process.cpu_ns(threads) - cpu, sampler.stats()["ticks"] - ticks
        stats = sampler.stats()
    figures: dict[str, float] = {
        "cpu_us_per_tick": cpu / ticks / 1e3,
        "core_percent": cpu / seconds / 1e7,
        "ticks": ticks,
        "missed": stats["missed"],
    }
    for name, source in stats["sources"].items():
        figures[f"{name}_cost_us"] = source["mean_cost_seconds"] * 1e6
    return figures


def main(backend: str, sources: str, procfs: str, recorder: str = "off") -> None:
    """Answers until its input ends."""
    for line in sys.stdin:
        rate, seconds = map(float, line.split())
        print(json.dumps(run(backend, sources, procfs, recorder, rate, seconds)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:5])

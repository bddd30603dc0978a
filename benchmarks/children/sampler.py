"""sampler BACKEND SOURCES [OPTION=VALUE...]: our Sampler, drained by the main thread.

For each line RATE SECONDS [SAMPLES] that it reads it runs a new sampler, with windows of a second
or of so many samples, and prints the CPU time of its sampling thread, the ticks in it, and the mean
cost of a reading of each source. An OPTION is one of `Sampler`.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

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


def readings(sampler: Sampler) -> dict[str, tuple[float, int]]:
    """Of each source what its readings have cost so far, in seconds, and how many there were."""
    return {
        name: (source["mean_cost_seconds"] * source["calls"], source["calls"])
        for name, source in sampler.stats()["sources"].items()
    }


def run(options: dict[str, Any], rate: float, seconds: float, samples: int) -> dict[str, float]:
    """Runs a sampler; what it took."""
    before = own_process.thread_ids()
    with Sampler(interval=1.0 / rate, samples_per_window=samples, **options) as sampler:
        drain(sampler, WARM_UP_SECONDS)
        threads = sampling_threads(before, options["backend"])
        cpu, ticks, costs = own_process.cpu_ns(threads), sampler.stats()["ticks"], readings(sampler)
        drain(sampler, seconds)
        cpu, ticks = own_process.cpu_ns(threads) - cpu, sampler.stats()["ticks"] - ticks
        stats = sampler.stats()
        costs_after = readings(sampler)
    figures: dict[str, float] = {
        "cpu_us_per_tick": cpu / ticks / 1e3,
        "core_percent": cpu / seconds / 1e7,
        "ticks": ticks,
        "missed": stats["missed"],
    }
    for name, (cost, calls) in costs_after.items():
        cost_before, calls_before = costs[name]
        if calls > calls_before:
            figures[f"{name}_cost_us"] = (cost - cost_before) / (calls - calls_before) * 1e6
    return figures


def main(backend: str, sources: str, *arguments: str) -> None:
    """Answers until its input ends."""
    options: dict[str, Any] = {"backend": backend, "sources": sources}
    for argument in arguments:
        name, _, value = argument.partition("=")
        options[name] = value
    if "pid" in options:
        options["pid"] = int(options["pid"])
    for line in sys.stdin:
        rate, seconds, *rest = map(float, line.split())
        samples = round(rest[0] if rest else rate)
        print(json.dumps(run(options, rate, seconds, samples)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

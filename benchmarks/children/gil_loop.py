"""gil_loop SECONDS: a pure-Python loop in the main thread of a run.

Half the time with the monitor off, then all the time with it on, then the other half with it off:
one process, so on and off differ in nothing else, and one that gets slower meanwhile slows both.
Prints p99.9 of the time of an iteration and the iterations a second, for both, and how often the
thread went to sleep.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from array import array

import mlflow

from benchmarks.children.monitor import monitor_of

ITERATION_SECONDS = 1e-4
WARM_UP_SECONDS = 1.5
CALIBRATIONS = 200


def iteration(count: int) -> int:
    """Work that never gives the GIL away by itself."""
    total = 0
    for number in range(count):
        total += number
    return total


def calibrate() -> int:
    """How large a count makes an iteration of about 0.1 ms."""
    count = 1000
    best = min(_timed(count) for _ in range(CALIBRATIONS))
    return max(1, round(count * ITERATION_SECONDS / best))


def _timed(count: int) -> float:
    before = time.perf_counter()
    iteration(count)
    return time.perf_counter() - before


def loop(seconds: float, count: int) -> array[int]:
    """Iterates for that long; the time of every iteration in nanoseconds."""
    clock = time.perf_counter_ns
    durations = array("q")
    before = clock()
    end = before + round(seconds * 1e9)
    while before < end:
        iteration(count)
        now = clock()
        durations.append(now - before)
        before = now
    return durations


def waits() -> int:
    """How often this thread has gone to sleep; a loop that only computes sleeps for the GIL."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def in_run(sampled: bool, seconds: float, count: int) -> tuple[array[int], dict[str, float]]:
    """The loop as the training code of a run; its waits, and whose monitor watched it."""
    with mlflow.start_run(log_system_metrics=sampled) as run:
        before = waits()
        durations = loop(seconds, count)
        waits_per_second = (waits() - before) / seconds
        return durations, {"waits_per_second": waits_per_second, **monitor_of(run.info.run_id)}


def summary(durations: array[int]) -> tuple[float, float]:
    """p99.9 of an iteration in microseconds, and iterations a second."""
    ordered = sorted(durations)
    return ordered[int(len(ordered) * 0.999)] / 1e3, len(ordered) / sum(ordered) * 1e9


def main(seconds: float) -> None:
    """Warms up what is imported at the first window, then measures."""
    count = calibrate()
    in_run(True, WARM_UP_SECONDS, count)
    off, off_figures = in_run(False, seconds / 2, count)
    on, figures = in_run(True, seconds, count)
    figures["off_waits_per_second"] = off_figures["waits_per_second"]
    off += in_run(False, seconds / 2, count)[0]
    figures["off_p999_us"], figures["off_per_second"] = summary(off)
    figures["on_p999_us"], figures["on_per_second"] = summary(on)
    figures["p999_ratio"] = figures["on_p999_us"] / figures["off_p999_us"]
    figures["throughput_ratio"] = figures["on_per_second"] / figures["off_per_second"]
    print(json.dumps(figures))


if __name__ == "__main__":
    main(float(sys.argv[1]))

"""gil_loop SECONDS: a pure-Python loop in the main thread, in a run with the monitor off, then on.

Both halves are one process, so they differ in nothing else. Prints p99.9 of the time of an
iteration and the iterations a second, for both.
"""

from __future__ import annotations

import json
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


def loop(seconds: float, count: int) -> dict[str, float]:
    """Iterates for that long; p99.9 of an iteration in seconds, and iterations a second."""
    clock = time.perf_counter_ns
    durations = array("q")
    start = before = clock()
    end = start + round(seconds * 1e9)
    while before < end:
        iteration(count)
        now = clock()
        durations.append(now - before)
        before = now
    ordered = sorted(durations)
    p999 = ordered[int(len(ordered) * 0.999)]
    return {"p999_us": p999 / 1e3, "per_second": len(ordered) / (before - start) * 1e9}


def in_run(sampled: bool, seconds: float, count: int) -> dict[str, float]:
    """The loop as the training code of a run."""
    with mlflow.start_run(log_system_metrics=sampled) as run:
        return {**monitor_of(run.info.run_id), **loop(seconds, count)}


def main(seconds: float) -> None:
    """Warms up what is imported at the first window, then measures off and on."""
    count = calibrate()
    in_run(True, WARM_UP_SECONDS, count)
    off = in_run(False, seconds, count)
    on = in_run(True, seconds, count)
    figures = {
        **on,
        "off_p999_us": off["p999_us"],
        "off_per_second": off["per_second"],
        "p999_ratio": on["p999_us"] / off["p999_us"],
        "throughput_ratio": on["per_second"] / off["per_second"],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(float(sys.argv[1]))

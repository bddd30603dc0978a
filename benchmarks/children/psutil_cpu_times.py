"""psutil_cpu_times PROCFS RATE SECONDS: one CPU sample with psutil, timed at every wake-up."""

from __future__ import annotations

import json
import sys
import time

import psutil

WARM_UP_CALLS = 10


def main(procfs: str, rate: float, seconds: float) -> None:
    """Prints the mean cost of a call in microseconds."""
    psutil.PROCFS_PATH = procfs
    interval = 1.0 / rate
    for _ in range(WARM_UP_CALLS):
        psutil.cpu_times()
    spent, calls, start = 0, 0, time.monotonic()
    while (elapsed := time.monotonic() - start) < seconds:
        time.sleep(interval - elapsed % interval)
        before = time.thread_time_ns()
        psutil.cpu_times()
        spent += time.thread_time_ns() - before
        calls += 1
    print(json.dumps({"cost_us": spent / calls / 1e3, "calls": calls}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))

"""psutil_loop RATE SECONDS: psutil called directly, as stock MLflow calls it, in a Python thread.

Prints the CPU time of the thread and the ticks that it managed.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import psutil

WARM_UP_TICKS = 10


def sample() -> None:
    """The calls of MLflow's CPU, disk and network monitors."""
    psutil.cpu_percent()
    psutil.virtual_memory()
    psutil.disk_usage("/")
    psutil.net_io_counters()


def loop(rate: float, seconds: float, figures: dict[str, float]) -> None:
    """Samples at absolute deadlines; those that have passed are skipped."""
    interval = 1.0 / rate
    for _ in range(WARM_UP_TICKS):
        sample()
    cpu, start, ticks = time.thread_time(), time.monotonic(), 0
    now = start
    while now < start + seconds:
        time.sleep(interval - (now - start) % interval)
        sample()
        ticks += 1
        now = time.monotonic()
    cpu = time.thread_time() - cpu
    figures["cpu_us_per_tick"] = cpu / ticks * 1e6
    figures["core_percent"] = cpu / (now - start) * 100
    figures["ticks"] = ticks


def main(rate: float, seconds: float) -> None:
    """Runs the loop in a thread of its own and prints what it took."""
    figures: dict[str, float] = {}
    thread = threading.Thread(target=loop, args=(rate, seconds, figures))
    thread.start()
    thread.join()
    print(json.dumps(figures))


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]))

"""resident WHAT SECONDS INTERVAL SAMPLES: the resident memory that running a sampler adds.

WHAT is native or psutil (our Sampler with that backend), direct (psutil called in a thread) or
stock (MLflow's monitor beside a run). Reads the resident memory after the imports and a collection,
then again after the sampler has run for some seconds and while it runs.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from benchmarks.children import own_process

Wait = Callable[[float], None]
Running = AbstractContextManager[Wait]
WARM_UPS = 3


def our_sampler(backend: str, interval: float, samples: int) -> Callable[[], Running]:
    """Our Sampler, its windows drained by the main thread."""
    from sysmetrics_native import Sampler

    @contextmanager
    def running() -> Iterator[Wait]:
        with Sampler(interval=interval, samples_per_window=samples, backend=backend) as sampler:

            def drain(seconds: float) -> None:
                end = time.monotonic() + seconds
                while (left := end - time.monotonic()) > 0:
                    sampler.next_window(timeout=left)

            yield drain

    return running


def psutil_loop(interval: float) -> Callable[[], Running]:
    """psutil called directly, in a thread."""
    from benchmarks.children.psutil_loop import sample

    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(interval):
            sample()

    @contextmanager
    def running() -> Iterator[Wait]:
        thread = threading.Thread(target=loop)
        thread.start()
        yield time.sleep
        stop.set()
        thread.join()

    return running


def stock_monitor(interval: float, samples: int) -> Callable[[], Running]:
    """MLflow's monitor, started beside a run that has used the store before."""
    import mlflow
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    run = mlflow.start_run(log_system_metrics=False)
    mlflow.log_metric("warm_up", 1.0)

    @contextmanager
    def running() -> Iterator[Wait]:
        monitor = SystemMetricsMonitor(run.info.run_id, interval, samples)
        monitor.start()
        yield time.sleep
        monitor.finish()

    return running


def prepare(what: str, interval: float, samples: int) -> Callable[[], Running]:
    """Imports what the measured thing needs, so that only running it is measured."""
    if what == "stock":
        return stock_monitor(interval, samples)
    if what == "direct":
        return psutil_loop(interval)
    return our_sampler(what, interval, samples)


def main(what: str, seconds: float, interval: float, samples: int) -> None:
    """Prints the resident memory before, after, and the difference, in MiB."""
    running = prepare(what, interval, samples)
    for _ in range(WARM_UPS):
        gc.collect()
        own_process.resident_bytes()
    before = own_process.resident_bytes()
    with running() as wait:
        wait(seconds)
        after = own_process.resident_bytes()
    mib = 1 << 20
    figures = {
        "before_mib": before / mib,
        "after_mib": after / mib,
        "added_mib": (after - before) / mib,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))

"""resident_psutil SECONDS INTERVAL: memory that a Python thread that calls psutil adds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.children.psutil_loop import sample
from benchmarks.children.resident import report


@contextmanager
def sampling(interval: float) -> Iterator[Callable[[float], None]]:
    """A thread that samples until the end."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(interval):
            sample()

    thread = threading.Thread(target=loop)
    thread.start()
    yield time.sleep
    stop.set()
    thread.join()


if __name__ == "__main__":
    report(sampling(float(sys.argv[2])), float(sys.argv[1]))

"""resident_sampler SECONDS INTERVAL SAMPLES BACKEND: memory that our Sampler adds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.children.resident import report
from sysmetrics_native import Sampler


@contextmanager
def sampling(interval: float, samples: int, backend: str) -> Iterator[Callable[[float], None]]:
    """A sampler whose windows the main thread drains."""
    with Sampler(interval=interval, samples_per_window=samples, backend=backend) as sampler:

        def drain(seconds: float) -> None:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                sampler.next_window(timeout=left)

        yield drain


if __name__ == "__main__":
    report(sampling(float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]), float(sys.argv[1]))

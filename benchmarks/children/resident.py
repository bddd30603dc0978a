"""What the resident_* programs share: the resident memory that running something adds.

Each of them has imported what it needs before it comes here, so only running is measured.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from contextlib import AbstractContextManager

from benchmarks.children import own_process

WARM_UPS = 3

Running = AbstractContextManager[Callable[[float], None]]
"""Starts on entry, stops on exit; in between gives a function that waits some seconds."""


def report(running: Running, seconds: float) -> None:
    """Prints the resident memory before and during the run, and the difference, in MiB."""
    for _ in range(WARM_UPS):
        gc.collect()
        own_process.resident_mib()
    before = own_process.resident_mib()
    with running as wait:
        wait(seconds)
        after = own_process.resident_mib()
    print(json.dumps({"before_mib": before, "after_mib": after, "added_mib": after - before}))

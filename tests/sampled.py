"""A program that samples GPUs that are not there, and what it has to tell in the end.

Libraries are found when a process starts, so every test of GPUs starts one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.fake_gpus import FakeGpus

_PROGRAM = """
import json, logging, sys, time

lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append((record.levelname, record.getMessage()))
logging.getLogger("sysmetrics_native").addHandler(handler)
logging.getLogger("sysmetrics_native").setLevel(logging.INFO)

from sysmetrics_native import Sampler

options = eval(sys.argv[1])
count = options.pop("windows")
begin = time.monotonic()
sampler = Sampler(**options)
created = time.monotonic()
windows = []

def take(window):
    series = {key: tuple(values) for key, values in window.items()}
    windows.append((window.start, window.end, window.samples, series))

clock = time.time() - time.monotonic()
with sampler:
    for _ in range(count):
        window = sampler.next_window(30.0)
        take(window)
    DURING
    stopping = time.monotonic()
stopped = time.monotonic()
for window in sampler.windows(0.0):
    take(window)
print(repr({
    "windows": windows, "lines": lines, "stats": sampler.stats(), "clock": clock,
    "gpus": [(gpu.index, gpu.uuid, gpu.name) for gpu in sampler.gpus],
    "units": {info.key: (info.unit, info.source, info.kind) for info in sampler.schema},
    "create_seconds": created - begin, "stop_seconds": stopped - stopping,
}), flush=True)
"""


class SampledWindow(NamedTuple):
    """One window of the program."""

    start: float
    end: float
    samples: int
    series: dict[str, tuple[float | None, ...]]
    """Statistics in the order of `sysmetrics_native.Series`."""

    def mean(self, key: str) -> float | None:
        return self.series[key][0]

    @property
    def means(self) -> dict[str, float]:
        """What there is of GPUs, by key."""
        return {
            key: values[0]
            for key, values in self.series.items()
            if key.startswith("gpu_") and values[0] is not None
        }


class Sampled(NamedTuple):
    """What the program told."""

    windows: list[SampledWindow]
    """The last one is the one that was cut short by the end."""
    lines: list[tuple[str, str]]
    """Level and message of each line in the log."""
    stats: dict[str, Any]
    clock: float
    """Unix time minus CLOCK_MONOTONIC."""
    gpus: list[tuple[int, str, str]]
    """Index, UUID and name of those that are read."""
    units: dict[str, tuple[str, str, str]]
    create_seconds: float
    stop_seconds: float

    @property
    def warnings(self) -> list[str]:
        return [message for level, message in self.lines if level != "INFO"]


def sample(
    fake: FakeGpus, windows: int, during: str = "pass", variables: dict[str, str] | None = None,
    **options: object,
) -> Sampled:  # fmt: skip
    """Sample so many windows, and one that is cut short.

    Args:
        fake: the GPUs that the program finds.
        windows: how many it takes before it stops.
        during: a statement that runs before it stops.
        variables: of its environment.
        **options: of its `Sampler`.
    """
    program = _PROGRAM.replace("DURING", during)
    told = fake.answer(program, repr({"windows": windows, **options}), **(variables or {}))
    told["windows"] = [SampledWindow(*window) for window in told["windows"]]
    return Sampled(**told)

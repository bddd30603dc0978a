"""A program that samples GPUs that are not there, and what it has to tell in the end.

Libraries are found when a process starts, so every test of GPUs starts one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest

from tests.fake_gpus import FakeGpus

_PROGRAM = """
import json, logging, sys, time

lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append((record.levelname, record.getMessage()))
logging.getLogger("sysmetrics_native").addHandler(handler)
logging.getLogger("sysmetrics_native").setLevel(logging.INFO)

from sysmetrics_native import Sampler

BEFORE
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
    zero: float
    """Unix time of second 0 of the scenario; NaN where no stand-in was loaded."""
    gpus: list[tuple[int, str, str]]
    """Index, UUID and name of those that are read."""
    units: dict[str, tuple[str, str, str]]
    create_seconds: float
    stop_seconds: float

    @property
    def warnings(self) -> list[str]:
        return [message for level, message in self.lines if level != "INFO"]

    @property
    def whole(self) -> list[SampledWindow]:
        """All windows but the one that was cut short."""
        return self.windows[:-1]

    def within(self, begin: float, end: float = math.inf) -> list[SampledWindow]:
        """The whole windows between two seconds of the scenario; there must be some.

        What a window has was read from 0.1 s before it begins on.
        """
        found = [
            window
            for window in self.whole
            if begin <= window.start - self.zero and window.end - self.zero <= end
        ]
        assert found, f"no window is between {begin:g} s and {end:g} s"
        return found

    def keys_of(self, index: int) -> set[str]:
        """The keys of one GPU, without what they begin with."""
        prefix = f"gpu_{index}_"
        return {key.removeprefix(prefix) for key in self.units if key.startswith(prefix)}


def sample(
    fake: FakeGpus, windows: int, during: str = "pass", before: str = "",
    variables: dict[str, str] | None = None, **options: object,
) -> Sampled:  # fmt: skip
    """Sample so many windows, and one that is cut short.

    Args:
        fake: the GPUs that the program finds.
        windows: how many it takes before it stops.
        during: statements that run before it stops.
        before: statements that run before it makes its sampler.
        variables: of its environment.
        **options: of its `Sampler`.
    """
    program = _PROGRAM.replace("DURING", during).replace("BEFORE", before)
    told = fake.answer(program, repr({"windows": windows, **options}), **(variables or {}))
    clock = told.pop("clock")
    loaded_ns = fake.records().get("loaded")
    told["zero"] = math.nan if loaded_ns is None else loaded_ns * 1e-9 + clock
    told["windows"] = [SampledWindow(*window) for window in told["windows"]]
    return Sampled(**told)


_ONCE: dict[tuple[str, int, str], Sampled] = {}


def sample_once(
    folders: pytest.TempPathFactory, scenario: str, windows: int, **options: object
) -> Sampled:
    """What `sample` told of a scenario the first time: for several tests of one program."""
    key = (scenario, windows, repr(options))
    if key not in _ONCE:
        fake = FakeGpus(folders.mktemp("gpus"))
        fake.write(scenario)
        _ONCE[key] = sample(fake, windows, **options)  # type: ignore[arg-type]
    return _ONCE[key]

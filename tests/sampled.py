"""A program that samples GPUs that are not there, and what it has to tell in the end.

Libraries are found when a process starts, so every test of GPUs starts one.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from tests.fake_gpus import FakeGpus

_PROGRAM = """
import logging, os, sys, time

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
windows, marks, written = [], [], 0.0

def take(count=1):
    for _ in range(count):
        keep(sampler.next_window(100.0))

def keep(window):
    series = {key: tuple(values) for key, values in window.items()}
    windows.append((window.start, window.end, window.samples, series))

def write(scenario):
    "Replace the scenario, which is live."
    global written
    path = os.environ["SMN_FAKE_GPUS"]
    with open(path) as file:
        count = next(line for line in file if line.startswith("count "))
    with open(path + ".new", "w") as file:
        file.write(count + scenario)
    os.replace(path + ".new", path)
    written = time.time()

def mark():
    marks.append(len(windows))

def wait_for(*conditions, of=1):
    "Take windows until so many that began since the last write() fulfil all the conditions."
    deadline = time.monotonic() + 120.0
    while of:
        take()
        start, _, _, series = windows[-1]
        of -= start >= written and all(condition(series) for condition in conditions)
        assert time.monotonic() < deadline, windows[-3:]

def gather(*keys):
    "Take windows until each of the keys has had a value in one of all windows."
    deadline = time.monotonic() + 120.0
    while missing := {key for key in keys if all(w[3][key][0] is None for w in windows)}:
        assert time.monotonic() < deadline, missing
        take()

def has(*keys):
    return lambda series: all(series[key][0] is not None for key in keys)

def lacks(*keys):
    return lambda series: all(series[key][0] is None for key in keys)

def said(words):
    return lambda _: any(words in line for _, line in lines)

clock = time.time() - time.monotonic()
with sampler:
    take(count)
    DURING
    stopping = time.monotonic()
stopped = time.monotonic()
for window in sampler.windows(0.0):
    keep(window)
print(repr({
    "windows": windows, "marks": marks, "lines": lines, "stats": sampler.stats(), "clock": clock,
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
    marks: list[int]
    """How many there were at each `mark()`."""
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

    def between(self, mark: int) -> list[SampledWindow]:
        """The windows from a `mark()` to the next, or to the end of the whole ones."""
        begin, end = [*self.marks, len(self.whole)][mark : mark + 2]
        assert begin < end
        return self.windows[begin:end]

    def keys_of(self, index: int) -> set[str]:
        """The keys of one GPU, without what they begin with."""
        prefix = f"gpu_{index}_"
        return {key.removeprefix(prefix) for key in self.units if key.startswith(prefix)}


def mostly(windows: Sequence[SampledWindow], key: str) -> bool:
    """Whether at least half of the windows have a value.

    On a quiet machine all of them do. But GPUs are read ten times a second, the mean of a counter
    takes two readings, and a busy machine may not let our threads run for longer than a window is.
    """
    there = [window.mean(key) is not None for window in windows]
    return sum(there) * 2 >= len(there) > 0


def never(windows: Sequence[SampledWindow], key: str) -> bool:
    """Whether none of the windows, of which there are some, has a value."""
    return len(windows) > 0 and all(window.mean(key) is None for window in windows)


def sample(
    fake: FakeGpus, windows: int, during: str = "pass", before: str = "",
    variables: dict[str, str] | None = None, **options: object,
) -> Sampled:  # fmt: skip
    """Sample so many windows, and one that is cut short.

    Args:
        fake: the GPUs that the program finds.
        windows: how many it takes before it stops.
        during: statements that run before it stops. They may call `take()` for further windows,
            `write()` to replace the scenario, if it is `live`, `wait_for()` a window with
            `has()` or `lacks()` of keys or a line that was `said()`, `gather()` keys, and `mark()`.
        before: statements that run before it makes its sampler.
        variables: of its environment.
        **options: of its `Sampler`.
    """
    inside = textwrap.indent(textwrap.dedent(during).strip(), "    ")
    program = _PROGRAM.replace("    DURING", inside).replace("BEFORE", before)
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

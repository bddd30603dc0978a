"""Resident memory that a running sampler adds to its process.

A fresh process imports what it needs and collects its garbage; then its resident memory is read
before the sampler starts and after it has run for ten seconds, while it runs: threads, rings and
the Python that drains the windows are all in it. Once at 1 kHz with 1 s windows, once with default
settings. Memory doesn't care about timing, so the processes of a round run side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from benchmarks.bench import Bench
from benchmarks.report import COLUMNS, Result, Row, at_most
from benchmarks.rounds import (
    NATIVE,
    PSUTIL,
    PSUTIL_BACKEND,
    STOCK,
    Figures,
    Samples,
    alternate,
    named,
)
from benchmarks.variants import VARIANTS

FIGURE = "added_mib"
TARGET = at_most(4, " MiB")
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    STOCK: ("resident_stock",),
    PSUTIL: ("resident_psutil",),
    NATIVE: ("resident_sampler", "native"),
    PSUTIL_BACKEND: ("resident_sampler", "psutil"),
}
SETTINGS: Mapping[str, tuple[float, int]] = {"1 kHz": (0.001, 1000), "default settings": (10.0, 1)}


def resident(bench: Bench, name: str, interval: float, samples: int) -> Figures:
    """One process."""
    seconds = bench.seconds(10.0, 3.0)
    settings = {}
    if name == STOCK:
        settings = {**VARIANTS[STOCK], "MLFLOW_TRACKING_URI": bench.sqlite_uri()}
    program, *backend = PROGRAMS[name]
    arguments = (seconds, interval, samples, *backend)
    return bench.child(program, *arguments, seconds=seconds, settings=settings)


def measure(bench: Bench) -> dict[str, Samples]:
    """All processes of a round at the same time, each waited for in turn."""
    samples = {setting: Samples() for setting in SETTINGS}
    for number in range(1, bench.rounds + 1):
        bench.announce(f"round {number} of {bench.rounds}: all side by side")
        with ThreadPoolExecutor(len(PROGRAMS) * len(SETTINGS)) as pool:
            started = {
                setting: {name: pool.submit(resident, bench, name, *values) for name in PROGRAMS}
                for setting, values in SETTINGS.items()
            }
            for setting, futures in started.items():
                _collect(samples[setting], futures)
    return samples


def _collect(into: Samples, futures: Mapping[str, Future[Figures]]) -> None:
    turns = named({name: partial(future.result) for name, future in futures.items()})
    found = alternate(1, turns, lambda _: None)
    into.failures.update(found.failures)
    for name, figures in found.turns.items():
        into.turns.setdefault(name, []).extend(figures)


def run(bench: Bench) -> Result:
    """Measures both settings."""
    samples = measure(bench)
    rows = []
    for setting, found in samples.items():
        figures = found.medians(FIGURE, COLUMNS)
        name = f"memory added, {setting}"
        rows.append(Row(name, "MiB", figures, None, TARGET, figures.get(NATIVE)))
    return Result(rows, samples)

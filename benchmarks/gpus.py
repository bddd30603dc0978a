"""What reading eight GPUs costs, at 10 Hz, on a stand-in for the driver that answers at once.

In all: the CPU that a monitor adds to a run that logs a window a second to a server, as in
`mlflow_overhead`, MLflow's own with pynvml against ours.

The reading alone: the time that our thread `smn-gpu` takes for all devices, from its first call to
the last value handed over, against that of a Python thread that makes MLflow's four calls a device
through pynvml. In the table are one with MLflow's own GPUMonitor, and bare_gpu_loop.c, which only
makes our calls: ten times a second everything is cold, so that is the floor. To wake a thread costs
more than our reading: a note gives the CPU time of all of it. A real driver takes its own time on
top, the same for all.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.bench import WINDOW_SECONDS, Bench
from benchmarks.mlflow_overhead import SMALLEST_PERCENT, added
from benchmarks.programs import compile_program, run_program
from benchmarks.report import Result, Row, at_least, number
from benchmarks.rounds import (
    BARE,
    NATIVE,
    OFF,
    PSUTIL_BACKEND,
    STOCK,
    Figures,
    Samples,
    back_and_forth,
    named,
)
from benchmarks.variants import VARIANTS, check_monitor, sampling
from tests.fake_gpus import NVML, build

DEVICES = 8
RATE = 10.0
PYNVML = "pynvml calls"
FIGURE = "reading_us"
TURN_SECONDS = 2.0
ALL_TARGET = at_least(8)
READING_TARGET = at_least(10)


def stand_in(folder: Path) -> dict[str, str]:
    """The environment of a process that has the devices."""
    scenario = folder / "gpus"
    scenario.write_text(f"devices {DEVICES}\n", encoding="utf-8")
    return {"LD_LIBRARY_PATH": str(build(NVML)), "SMN_FAKE_GPUS": str(scenario)}


def monitored_run(bench: Bench, variant: str, seconds: float) -> Figures:
    """A run under one monitor or none."""
    settings = {
        **VARIANTS[variant],
        **sampling(RATE, round(RATE * WINDOW_SECONDS)),
        **stand_in(bench.folder),
        "MLFLOW_TRACKING_URI": bench.server.uri,
    }
    figures = bench.child(
        "mlflow_run",
        *(seconds, WINDOW_SECONDS, bench.server.access_log),
        seconds=seconds,
        settings=settings,
    )
    check_monitor(variant, figures)
    figures["core_percent"] = figures["cpu_seconds"] / seconds * 100
    return figures


def reading(bench: Bench, reader: str, seconds: float) -> Figures:
    """One run of a thread that only reads."""
    settings = stand_in(bench.folder)
    return bench.child("gpu_reader", reader, RATE, seconds, seconds=seconds, settings=settings)


def bare_loop(bench: Bench, seconds: float) -> Figures:
    """One run of the floor."""
    program = compile_program("bare_gpu_loop", bench.folder)
    nanoseconds, rounds = run_program(
        program, RATE, seconds, seconds=seconds, settings=stand_in(bench.folder)
    )
    return {FIGURE: nanoseconds / rounds / 1e3, "rounds": rounds}


def in_all(bench: Bench) -> tuple[Row, Samples, str]:
    """What the monitors add to a run."""
    seconds = bench.seconds(10.0, 5.0)
    turns = {name: partial(monitored_run, bench, name, seconds) for name in VARIANTS}
    samples = bench.alternate(named(turns))
    monitors = (STOCK, NATIVE, PSUTIL_BACKEND)
    found = {name: samples.paired(name, OFF, added) for name in monitors}
    figures = {name: value for name, value in found.items() if value is not None}
    ratio = None
    if STOCK in figures and NATIVE in figures:
        ratio = figures[STOCK] / max(figures[NATIVE], SMALLEST_PERCENT)
    name = f"CPU added, {DEVICES} GPUs, {RATE:g} Hz, server"
    row = Row(name, "% of a core", figures, ratio, ALL_TARGET, ratio)
    return row, samples, "in all: ratio is stock ÷ ours, everything from start_run to end_run"


def alone(bench: Bench) -> tuple[Row, Samples, str]:
    """What the threads that read take."""
    seconds = bench.seconds(TURN_SECONDS, TURN_SECONDS)
    readers = {PYNVML: "pynvml", NATIVE: "native", STOCK: "mlflow"}
    turns = {name: partial(reading, bench, reader, seconds) for name, reader in readers.items()}
    turns[BARE] = partial(bare_loop, bench, seconds)
    samples = bench.alternate(back_and_forth(*named(turns)))
    ratio = samples.ratio(PYNVML, NATIVE, FIGURE)
    figures = samples.medians(FIGURE, (STOCK, BARE, NATIVE))
    name = f"reading {DEVICES} GPUs, {RATE:g} Hz"
    row = Row(name, "µs/round", figures, ratio, READING_TARGET, ratio)
    calls = number(samples.median(PYNVML, FIGURE))
    cpu = {name: number(samples.median(name, "cpu_us")) for name in (PYNVML, NATIVE)}
    note = (
        f"reading: ratio is pynvml's calls ({calls} µs a round) ÷ ours; CPU with the waking up: "
        f"{cpu[PYNVML]} and {cpu[NATIVE]} µs"
    )
    return row, samples, note


def run(bench: Bench) -> Result:
    """Measures both."""
    row_all, samples_all, note_all = in_all(bench)
    row_alone, samples_alone, note_alone = alone(bench)
    return Result(
        [row_all, row_alone],
        {"in all": samples_all, "reading alone": samples_alone},
        [note_all, note_alone],
    )

"""One CPU sample from a /proc/stat of 512 CPUs and 20,000 interrupt columns.

The file is generated, in memory where there is a /dev/shm, and given as `procfs_path`. Ours is the
mean cost of the source `cpu` as `stats()` tells it; the floor is bare_read.c, which is timed at the
same wake-ups: once over the whole file, once over the first 512 bytes, all that our source reads.
On a live kernel the two cost nearly the same, because it makes the whole text before it gives the
first byte; a generated file has no such cost, so neither has the sample here.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.programs import compile_program, run_program
from benchmarks.report import COLUMNS, Result, Row, at_most
from benchmarks.rounds import BARE, NATIVE, PSUTIL, Figures, Turn, back_and_forth

CPUS = 512
INTERRUPTS = 20_000
RATE = 1000.0
TURN_SECONDS = 0.5
FIRST_LINE_BYTES = 512
START = "bare read of 512 bytes"
FIGURE = "cost_us"
TARGET = at_most(1.1)
SHARED_MEMORY = Path("/dev/shm")


def proc_stat() -> str:
    """The text of such a file: long-running CPUs, one interrupt in ten in use."""
    ticks = [48_110_251, 11_973, 9_821_004, 903_115_870, 40_112, 0, 310_998, 0, 0, 0]
    lines = ["cpu  " + " ".join(str(value * CPUS) for value in ticks)]
    lines += [f"cpu{index} " + " ".join(map(str, ticks)) for index in range(CPUS)]
    interrupts = ["0" if index % 10 else str(71_003 * index) for index in range(INTERRUPTS)]
    lines += [f"intr {88_011_223_344} " + " ".join(interrupts), "ctxt 99887766554"]
    lines += ["btime 1700000000", "processes 8812345", "procs_running 37", "procs_blocked 0"]
    return "\n".join([*lines, "softirq 11 1 1 1 1 1 1 1 1 1 1"]) + "\n"


def bare_read(bench: Bench, file: Path, length: int) -> Figures:
    """One run of the floor; length 0 is the whole file."""
    program = compile_program("bare_read", bench.folder)
    read = f"start,{length},0,{file}" if length else f"whole,0,0,{file}"
    cost_ns, reads = run_program(program, RATE, TURN_SECONDS, read, seconds=TURN_SECONDS)
    return {FIGURE: cost_ns / reads / 1e3}


def sampler(bench: Bench, procfs: Path) -> Figures:
    """One run of our sampler with the source `cpu` alone."""
    child = bench.serving("sampler", "native", "cpu", f"procfs_path={procfs}")
    figures = child.ask(RATE, TURN_SECONDS, seconds=TURN_SECONDS)
    return {**figures, FIGURE: figures["cpu_cost_us"]}


def measure(bench: Bench, procfs: Path) -> Result:
    """Both floors, psutil and ours, in turns."""
    file = procfs / "stat"
    file.write_text(proc_stat(), encoding="ascii")
    pairs = back_and_forth(
        (BARE, partial(bare_read, bench, file, 0)),
        (NATIVE, partial(sampler, bench, procfs)),
        (START, partial(bare_read, bench, file, FIRST_LINE_BYTES)),
    )
    arguments = ("psutil_cpu_times", procfs, RATE, TURN_SECONDS)
    psutil: Turn = (PSUTIL, partial(bench.child, *arguments, seconds=TURN_SECONDS))
    samples = bench.alternate([*pairs, *pairs, psutil])
    whole = samples.ratio(NATIVE, BARE, FIGURE)
    start = samples.ratio(NATIVE, START, FIGURE)
    figures = samples.medians(FIGURE, COLUMNS)
    of_start = {NATIVE: figures[NATIVE]} if NATIVE in figures else {}
    bare_start = samples.median(START, FIGURE)
    if bare_start is not None:
        of_start[BARE] = bare_start
    rows = [
        Row("CPU sample, 512 CPUs", "µs, bare: all", figures, whole, TARGET, whole),
        Row("CPU sample, 512 CPUs", "µs, bare: 512 B", of_start, start),
    ]
    note = "the ratio is to a read of the whole file, then to one of the 512 bytes that ours reads"
    return Result(rows, {"samples": samples}, [note])


def run(bench: Bench) -> Result:
    """Makes the tree and measures on it."""
    parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() else bench.folder
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        return measure(bench, Path(folder))

"""CPU of the native thread for one wake-up, with and without the flight recorder.

Two samplers with the four host sources, drained by their main threads, take turns; one of them also
writes every row to a file in the scratch folder, which grows as it does for users. All of it is the
scheduler's count of the thread's CPU time, divided by its wake-ups. The table has the figure with
the recorder, as that of our native backend; a note says what it is without.
"""

from __future__ import annotations

from functools import partial

from benchmarks.bench import Bench
from benchmarks.native_thread import FIGURE, RATES, SOURCES, TURN_SECONDS
from benchmarks.report import Result, Row, at_most, number
from benchmarks.rounds import NATIVE, Figures, Samples, Turn, back_and_forth

RECORDING = "with recorder"
TARGET = at_most(1.10)
PAIRS = 4
"""Of each in a round, back and forth: the difference is smaller than what the machine does."""


def sampler(bench: Bench, recorder: object, rate: float) -> Figures:
    """One run of our sampler."""
    child = bench.serving("sampler", "native", SOURCES, f"recorder={recorder}")
    return child.ask(rate, TURN_SECONDS, seconds=TURN_SECONDS)


def turns(bench: Bench, rate: float) -> list[Turn]:
    """A round."""
    pair = back_and_forth(
        (NATIVE, partial(sampler, bench, "off", rate)),
        (RECORDING, partial(sampler, bench, bench.folder, rate)),
    )
    return pair if bench.quick else pair * (PAIRS // 2)


def run(bench: Bench) -> Result:
    """Measures both rates."""
    samples = {rate: bench.alternate(turns(bench, rate)) for rate in RATES}
    rows = [row(rate, found) for rate, found in samples.items()]
    notes = [note(rate, found) for rate, found in samples.items()]
    return Result(rows, {f"{rate:g} Hz": found for rate, found in samples.items()}, notes)


def row(rate: float, samples: Samples) -> Row:
    """The line of one rate."""
    ratio = samples.ratio(RECORDING, NATIVE, FIGURE)
    recording = samples.median(RECORDING, FIGURE)
    figures = {} if recording is None else {NATIVE: recording}
    return Row(f"with the recorder, {rate:g} Hz", "µs/wake-up", figures, ratio, TARGET, ratio)


def note(rate: float, samples: Samples) -> str:
    """What the table has no column for."""
    without = number(samples.median(NATIVE, FIGURE))
    return f"recorder at {rate:g} Hz: {without} µs a wake-up without it"

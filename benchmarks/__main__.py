"""The command line: `python -m benchmarks --help` says what it takes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks import (
    arrival,
    big_proc_stat,
    gil,
    gpus,
    memory,
    mlflow_overhead,
    native_thread,
    recorder,
    report,
    requests_per_window,
    server_load,
    sources,
    top,
)
from benchmarks.bench import Bench
from benchmarks.report import Result
from benchmarks.rounds import ParticipantFailedError

MEASURES: dict[str, Callable[[Bench], Result]] = {
    "native_thread": native_thread.run,
    "recorder": recorder.run,
    "mlflow_overhead": mlflow_overhead.run,
    "requests_per_window": requests_per_window.run,
    "arrival": arrival.run,
    "gil": gil.run,
    "big_proc_stat": big_proc_stat.run,
    "memory": memory.run,
    "gpus": gpus.run,
    "sources": sources.run,
    "top": top.run,
    "server_load": server_load.run,
}
ONLY_BY_NAME = ("server_load",)
"""Not in a run of everything: it takes half an hour, because load can't be had faster."""
USUAL_ROUNDS = 3
QUICK_ROUNDS = 1
BUSY_LOAD = 0.5


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures this package side by side with MLflow, psutil and bare system calls.",
    )
    names = ", ".join(MEASURES)
    parser.add_argument(
        "--rounds", type=positive, help=f"alternating rounds (default {USUAL_ROUNDS}, quick 1)"
    )
    parser.add_argument("--quick", action="store_true", help="one short round, about 2.5 minutes")
    parser.add_argument(
        "--only", nargs="+", choices=MEASURES, metavar="NAME", help=f"some of: {names}"
    )
    parser.add_argument(
        "--source",
        nargs="+",
        default=[],
        choices=sources.measured(),
        metavar="NAME",
        help="what `sources` measures, and how it grows (default: all)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        default=Path("build/benchmarks.json"),
        help="where the table and every raw turn are written (default %(default)s)",
    )
    parser.add_argument(
        "--costs", type=Path, metavar="FILE", help="where what `sources` finds is written, too"
    )
    parser.add_argument(
        "--loads", type=Path, metavar="FILE", help="where what `server_load` finds is written, too"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    return parser.parse_args(arguments)


def warn_if_busy() -> None:
    """Figures of a busy machine mislead, and nobody can see that in them."""
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    if load > BUSY_LOAD * cpus:
        print(f"warning: the machine is busy (load {load:.1f} on {cpus} CPUs)", file=sys.stderr)


def measure(bench: Bench, names: Sequence[str], prefix: list[str]) -> dict[str, Result]:
    """Runs the measures; one that can't run at all is a line that misses its target."""
    results: dict[str, Result] = {}
    for name in names:
        prefix[0] = name
        try:
            results[name] = MEASURES[name](bench)
        except ParticipantFailedError as error:
            row = report.Row(name, "", {}, None, report.Target(0, True, ""), None)
            results[name] = Result([row], {}, [str(error)])
    return results


def main(arguments: Sequence[str]) -> int:
    """Measures, prints, writes; 1 only if --check was given and a target is missed."""
    options = parse_arguments(arguments)
    warn_if_busy()
    context = report.machine()
    started = time.monotonic()
    measuring = [""]

    def announce(text: str) -> None:
        elapsed = time.monotonic() - started
        print(f"[{elapsed:4.0f} s] {measuring[0]}, {text}", file=sys.stderr, flush=True)

    usual = [name for name in MEASURES if name not in ONLY_BY_NAME]
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else USUAL_ROUNDS)
    with closing(Bench(rounds, options.quick, announce, options.source)) as bench:
        results = measure(bench, options.only or usual, measuring)
    context["load_average_after"] = list(os.getloadavg())
    report.print_table(results, rounds)
    report.write_json(options.json, results, context, arguments)
    print(f"every raw turn: {options.json}")
    costs = results.get("sources")
    if options.costs is not None and isinstance(costs, sources.Costs):
        sources.write_costs(options.costs, costs)
    loads = results.get("server_load")
    if options.loads is not None and isinstance(loads, server_load.Loads):
        server_load.write_loads(options.loads, loads)
    missed = [row for result in results.values() for row in result.missed]
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

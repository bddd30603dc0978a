"""What a tracking server with one worker spends on the nodes of a job, and how many it carries.

Simulated nodes with MLflow's usual 10 s windows all log to one run, in real time: MLflow's own
monitors, and deliveries of this package, each window at once or six in a request. Measured is the
CPU of the server with all its processes (and of PostgreSQL with its own) for each window that
arrived. One worker is one process of Python, which runs on one core at a time, so it carries as
many nodes as have windows for one core: that number is computed, and tried in real time just below
and, on SQLite and where each window goes at once, just above.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.node_loads import (
    AT_ONCE,
    MLFLOW,
    POSTGRESQL,
    SHARED,
    SQLITE,
    VARIANTS,
    WINDOW_SECONDS,
    Load,
    Store,
    Variant,
    steady,
    together,
)
from benchmarks.report import Result, Row, Target, at_least, number
from benchmarks.rounds import NATIVE, STOCK, Figures, ParticipantFailedError, Samples, alternate

COMPARED_NODES = 100
"""So many nodes have what is compared side by side."""
FEW_NODES = 25
"""A second point for MLflow's own monitor: what a window of it costs grows with the nodes."""
STARTING_NODES = 200
START_SECONDS = 60.0
LOAD_SECONDS = 20.0
TRIED_SECONDS = 30.0
BELOW, ABOVE = 0.9, 1.2
"""Of the computed number of nodes."""
ENOUGH = 0.98
"""Of the windows that are due must arrive: at the edges of the time measured one may be missed."""
TARGETS = {AT_ONCE: at_least(2), SHARED: at_least(10)}


@dataclass
class Trial:
    """A load in real time."""

    store: str
    load: Load
    figures: Figures

    @property
    def windows_per_second(self) -> float:
        """That reached the server."""
        return self.figures["windows"] / self.figures["seconds"]

    def cores(self, program: str) -> float:
        """CPU seconds a second of ``server``, ``database`` or ``client``; 0 without it."""
        return self.figures.get(f"{program}_cpu", 0.0) / self.figures["seconds"]

    def cpu_per_window(self, program: str) -> float:
        """CPU seconds for each window that arrived; infinite if none did."""
        if not self.figures["windows"]:
            return math.inf
        return self.figures.get(f"{program}_cpu", 0.0) / self.figures["windows"]

    @property
    def is_carried(self) -> bool:
        """Whether the windows arrived, and in time."""
        figures = self.figures
        in_time = figures["latest_seconds"] <= self.load.variant.longest_late_seconds
        return in_time and figures["windows"] >= ENOUGH * figures["windows_due"]


@dataclass
class Start:
    """Nodes that started in the same second."""

    variant: Variant
    arrivals: list[int]
    """Requests in each second from then on."""
    slowest_answer_seconds: float


@dataclass
class Loads(Result):
    """All that was found."""

    trials: list[Trial] = field(default_factory=list)
    carried: dict[tuple[str, Variant], int] = field(default_factory=dict)
    """Of a store and a variant how many nodes need one core of the server."""
    starts: list[Start] = field(default_factory=list)

    def of(self, store: str, variant: Variant) -> list[Trial]:
        """The loads of a variant on a store, those of few nodes first."""
        found = [t for t in self.trials if t.store == store and t.load.variant == variant]
        return sorted(found, key=lambda trial: trial.load.nodes)


# ---- measuring ----------------------------------------------------------------------------------


def measure(bench: Bench, store: Store, loads: Sequence[Load], result: Loads) -> None:
    """Puts the loads on the server one after the other."""
    turns = [
        (f"{load.variant.name}, {load.nodes} nodes, {store.name}", partial(store.run, load))
        for load in loads
    ]
    samples = alternate(1, turns, bench.announce)
    for load, (name, _) in zip(loads, turns, strict=True):
        for figures in samples.turns.get(name, []):
            result.trials.append(Trial(store.name, load, figures))
    kept = result.samples.setdefault(store.name, Samples())
    kept.turns.update(samples.turns)
    kept.failures.update(samples.failures)


def side_by_side(bench: Bench) -> list[Load]:
    """The loads that what a window costs is found from."""
    seconds = bench.seconds(LOAD_SECONDS, WINDOW_SECONDS)
    few = [steady(MLFLOW, FEW_NODES, seconds)]
    return few + [steady(variant, COMPARED_NODES, seconds) for variant in VARIANTS]


def nodes_for_one_core(trials: Sequence[Trial]) -> int:
    """As many nodes as have windows for one core of the server's time.

    With MLflow's monitor a window costs more the more nodes there are, because it asks for the run
    with all its metrics: a + b · nodes. A delivery of ours asks for nothing that grows.
    """
    first, last = trials[0], trials[-1]
    cost = last.cpu_per_window("server")
    growth = 0.0
    if last.load.nodes > first.load.nodes:
        more = cost - first.cpu_per_window("server")
        growth = max(0.0, more / (last.load.nodes - first.load.nodes))
    fixed = cost - growth * last.load.nodes
    if growth == 0.0:
        return int(WINDOW_SECONDS / cost)
    # The positive root of growth · n² + fixed · n = window.
    root = math.sqrt(fixed * fixed + 4 * growth * WINDOW_SECONDS)
    return int((root - fixed) / (2 * growth))


def try_capacity(bench: Bench, store: Store, result: Loads) -> None:
    """Loads near what was computed."""
    tried = [(BELOW, variant) for variant in VARIANTS]
    if store.name == SQLITE:  # of shared requests there would be some thousand nodes
        tried += [(ABOVE, variant) for variant in (MLFLOW, AT_ONCE)]
    loads = [
        steady(
            variant,
            max(1, round(part * result.carried[store.name, variant])),
            TRIED_SECONDS,
            large_pool=True,
        )
        for part, variant in tried
        if (store.name, variant) in result.carried
    ]
    measure(bench, store, loads, result)


def try_start(bench: Bench, store: Store, result: Loads) -> None:
    """Many nodes in the same second."""
    loads = [together(variant, STARTING_NODES, START_SECONDS) for variant in VARIANTS]
    for load in loads:
        bench.announce(f"{load.variant.name}, {load.nodes} nodes start together")
        try:
            figures = store.run(load)
        except ParticipantFailedError as error:
            result.notes.append(f"{load.variant.name}, coordinated start: {error}")
            continue
        slowest = figures["slowest_answer_seconds"]
        result.starts.append(Start(load.variant, store.arrivals(load), slowest))


def measure_store(bench: Bench, name: str, result: Loads) -> None:
    """All loads of one store."""
    try:
        started = Store.start(name, bench)
    except ParticipantFailedError as error:
        result.notes.append(f"{name} left out: {error}")
        return
    with closing(started) as store:
        measure(bench, store, side_by_side(bench), result)
        for variant in VARIANTS:
            if trials := result.of(name, variant):
                result.carried[name, variant] = nodes_for_one_core(trials)
        if bench.quick:
            return
        try_capacity(bench, store, result)
        if name == SQLITE:
            try_start(bench, store, result)


# ---- what is shown ------------------------------------------------------------------------------


def compared(result: Loads, store: str, variant: Variant) -> Trial | None:
    """The trial that is shown side by side."""
    found = [t for t in result.of(store, variant) if t.load.nodes == COMPARED_NODES]
    return found[0] if found else None


def cpu_per_node_hour(trial: Trial, program: str) -> float:
    """CPU seconds for all windows of a node in an hour."""
    return trial.cpu_per_window(program) * 3600.0 / WINDOW_SECONDS


def side_by_side_row(
    name: str, unit: str, stock: float, ours: float, target: Target | None, *, more: bool
) -> Row:
    """Two figures; `more` if the larger one is better."""
    ratio = ours / stock if more else stock / ours
    judged = None if target is None else ratio
    return Row(name, unit, {STOCK: stock, NATIVE: ours}, ratio, target, judged)


def cost_rows(result: Loads, store: str) -> list[Row]:
    """CPU for a node-hour: of the server, and of the database if that is another program."""
    stock = compared(result, store, MLFLOW)
    rows = []
    for variant in (AT_ONCE, SHARED):
        ours = compared(result, store, variant)
        for program in ("server", "database") if store == POSTGRESQL else ("server",):
            if stock is None or ours is None:
                continue
            name = f"{program} CPU/node-hour, {variant.name}, {store}"
            before, after = (cpu_per_node_hour(trial, program) for trial in (stock, ours))
            rows.append(side_by_side_row(name, "s", before, after, None, more=False))
    return rows


def capacity_rows(result: Loads, store: str) -> list[Row]:
    """Nodes that one worker carries."""
    stock = result.carried.get((store, MLFLOW), 0)
    return [
        side_by_side_row(
            f"nodes of one worker, {variant.name}, {store}",
            "count",
            stock,
            result.carried[store, variant],
            TARGETS[variant],
            more=True,
        )
        for variant in (AT_ONCE, SHARED)
        if stock and (store, variant) in result.carried
    ]


def trial_note(trial: Trial) -> str:
    """How a load went, in one line."""
    figures = trial.figures
    cores = [
        f"{program} {number(trial.cores(program))}"
        for program in ("server", "database", "client")
        if f"{program}_cpu" in figures
    ]
    share = figures["windows"] / figures["windows_due"] * 100
    return (
        f"{trial.store}, {trial.load.variant.name}, {trial.load.nodes} nodes: "
        f"{share:.0f} % of the windows arrived, the last {figures['latest_seconds']:.1f} s late "
        f"({'carried' if trial.is_carried else 'not carried'}); cores: {', '.join(cores)}; slowest "
        f"answer {figures['slowest_answer_seconds']:.1f} s"
    )


def start_note(start: Start) -> str:
    """How a coordinated start went."""
    return (
        f"{STARTING_NODES} nodes start together, {start.variant.name}: at most "
        f"{max(start.arrivals)} requests a second, slowest answer "
        f"{start.slowest_answer_seconds:.1f} s"
    )


def run(bench: Bench) -> Loads:
    """SQLite, then PostgreSQL; one that is not here is a note."""
    result = Loads([], {})
    for name in (SQLITE, POSTGRESQL):
        measure_store(bench, name, result)
    for name in (SQLITE, POSTGRESQL):
        result.rows += [*cost_rows(result, name), *capacity_rows(result, name)]
    result.notes += [trial_note(trial) for trial in result.trials]
    result.notes += [start_note(start) for start in result.starts]
    return result


# ---- for docs/ ----------------------------------------------------------------------------------


def _trial_as_json(result: Loads, trial: Trial) -> dict[str, Any]:
    programs = ("server", "database", "client")
    return {
        "store": trial.store,
        "variant": trial.load.variant.name,
        "nodes": trial.load.nodes,
        "cores": {name: round(trial.cores(name), 4) for name in programs},
        "cpu_seconds_per_node_hour": {
            name: round(cpu_per_node_hour(trial, name), 2) if trial.figures["windows"] else None
            for name in programs
        },
        "windows_arrived": trial.figures["windows"] / trial.figures["windows_due"],
        "latest_seconds": round(trial.figures["latest_seconds"], 1),
        "slowest_answer_seconds": round(trial.figures["slowest_answer_seconds"], 2),
        "carried": trial.is_carried,
        "large_pool": trial.load.large_pool,
    }


def write_loads(path: Path, result: Loads) -> None:
    """What docs/server-load.md and its picture are made from."""
    kernel = ".".join(platform.release().split(".")[:2])
    document = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} CPUs, {platform.system()} {kernel}, {platform.machine()}",
        "trials": [_trial_as_json(result, trial) for trial in result.trials],
        "carried": [
            {"store": store, "variant": variant.name, "nodes": nodes}
            for (store, variant), nodes in result.carried.items()
        ],
        "starts": [
            {
                "variant": start.variant.name,
                "nodes": STARTING_NODES,
                "requests_each_second": start.arrivals,
                "slowest_answer_seconds": round(start.slowest_answer_seconds, 2),
            }
            for start in result.starts
        ],
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

"""What many simulated nodes do to one tracking server: their variants, the servers, one load."""

from __future__ import annotations

import json
import math
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from benchmarks import process_tree
from benchmarks.bench import Bench
from benchmarks.children.simulation_plan import Plan
from benchmarks.postgres import Postgres
from benchmarks.programs import run_child
from benchmarks.rounds import STOCK, Figures, ParticipantFailedError
from benchmarks.server import TrackingServer
from benchmarks.variants import VARIANTS as VARIANT_SETTINGS

WINDOW_SECONDS = 10.0
"""MLflow's usual one: a sample every ten seconds, each logged."""
SQLITE = "SQLite"
POSTGRESQL = "PostgreSQL"
API = "/api/2.0/mlflow"
IDLE_SECONDS = 120.0
IDLE_CORES = 0.1


class Variant(NamedTuple):
    """Whose monitors the nodes have, and how often those of ours make requests."""

    name: str
    stock: bool
    delivery_interval: float
    """Seconds; shorter than a window is for each window at once."""
    longest_late_seconds: float
    """A window is in time if the server has it by then."""


MLFLOW = Variant(STOCK, True, 0.0, 10.0)
AT_ONCE = Variant("ours, at once", False, 5.0, 10.0)
SHARED = Variant("ours, ≤ 60 s late", False, 50.0, 60.0)
"""Five windows share a request. The oldest of them has then waited for up to the interval, and the
server may take its time."""
VARIANTS = (MLFLOW, AT_ONCE, SHARED)


class Load(NamedTuple):
    """Nodes and how they start."""

    variant: Variant
    nodes: int
    spread_seconds: float
    warm_up_seconds: float
    seconds: float


def steady(variant: Variant, nodes: int, seconds: float) -> Load:
    """Nodes that started in the course of a window, once each has logged metrics.

    The first window goes within one interval after its end.
    """
    warm_up = 2 * WINDOW_SECONDS + variant.delivery_interval
    seconds = max(seconds, variant.delivery_interval)
    return Load(variant, nodes, WINDOW_SECONDS, warm_up, seconds)


def together(variant: Variant, nodes: int, seconds: float) -> Load:
    """Nodes that start in the same second, from then on."""
    return Load(variant, nodes, 0.0, 0.0, seconds)


@dataclass
class Store:
    """A tracking server with one worker and its database. `close` it."""

    name: str
    folder: Path
    server: TrackingServer
    database: Postgres | None
    _arrivals: dict[Load, list[int]] = field(default_factory=dict)

    @classmethod
    def start(cls, name: str, bench: Bench) -> Store:
        """Starts both; MLflow makes its tables at the first start."""
        folder = bench.folder / name
        folder.mkdir()
        bench.announce(f"starting mlflow server on {name}")
        if name == SQLITE:
            return cls(name, folder, TrackingServer(folder / "server", bench.sqlite_uri()), None)
        database = Postgres()
        try:
            return cls(name, folder, TrackingServer(folder / "server", database.uri), database)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Ends the servers."""
        self.server.close()
        if self.database is not None:
            self.database.close()

    def run(self, load: Load) -> Figures:
        """Puts the load on a new run."""
        self._wait_until_idle()
        requests_file = self.folder / "requests.json"
        variant = load.variant
        programs = {"server": self.server.pid}
        if self.database is not None:
            programs["database"] = self.database.pid
        plan = Plan(
            stock=variant.stock,
            uri=self.server.uri,
            run_id=self._new_run(),
            nodes=load.nodes,
            window_seconds=WINDOW_SECONDS,
            delivery_interval=variant.delivery_interval,
            spread_seconds=load.spread_seconds,
            warm_up_seconds=load.warm_up_seconds,
            seconds=load.seconds,
            longest_late_seconds=variant.longest_late_seconds,
            programs=programs,
            requests_file=str(requests_file),
        )
        seconds = load.warm_up_seconds + load.seconds
        text = json.dumps(asdict(plan))
        figures = run_child(
            "simulated_nodes",
            text,
            folder=self.folder,
            seconds=seconds,
            settings=VARIANT_SETTINGS[STOCK],  # else MLflow's own class is replaced
        )
        self._arrivals[load] = _each_second(requests_file, load.seconds)
        return figures

    def arrivals(self, load: Load) -> list[int]:
        """Requests of a load in each second of its measured time."""
        return self._arrivals[load]

    def _wait_until_idle(self) -> None:
        """A load that was too much left requests behind, which must not count as the next one's."""
        deadline = time.monotonic() + IDLE_SECONDS
        while time.monotonic() < deadline:
            before = process_tree.cpu_seconds(self.server.pid)
            time.sleep(1.0)
            if process_tree.cpu_seconds(self.server.pid) - before < IDLE_CORES:
                return
        raise ParticipantFailedError("the server did not come to rest after the load before")

    def _new_run(self) -> str:
        request = urllib.request.Request(
            f"{self.server.uri}{API}/runs/create",
            data=json.dumps({"experiment_id": "0"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=IDLE_SECONDS) as response:
                return str(json.load(response)["run"]["info"]["run_id"])
        except OSError as error:
            raise ParticipantFailedError(f"the server made no run: {error}") from error


def _each_second(requests_file: Path, seconds: float) -> list[int]:
    counts = [0] * math.ceil(seconds)
    for began, _ in json.loads(requests_file.read_text(encoding="utf-8")):
        if 0 <= began < len(counts):
            counts[int(began)] += 1
    return counts

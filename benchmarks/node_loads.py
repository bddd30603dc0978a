"""What many simulated nodes do to one tracking server: their variants, the servers, one load."""

from __future__ import annotations

import json
import math
import urllib.request
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

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
ANSWER_SECONDS = 60.0
LARGE_POOL = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "100"}


class Variant(NamedTuple):
    """Whose monitors the nodes have, and how often those of ours make requests."""

    name: str
    stock: bool
    delivery_interval: float
    """Seconds; shorter than a window is for each window at once."""
    longest_late_seconds: float
    """A window is in time if the server has it by then."""


MLFLOW = Variant(STOCK, True, 0.0, 10.0)
AT_ONCE = Variant("ours, at once", False, 5.0, 12.0)
"""A request for each window; those of all nodes are spread over the ten seconds of a window."""
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
    large_pool: bool = False
    """Whether the server has connections to its database for all that it answers at once."""


def steady(variant: Variant, nodes: int, seconds: float, *, large_pool: bool = False) -> Load:
    """Nodes that started in the course of a window, once each has logged metrics.

    The first window goes within one interval after its end.
    """
    warm_up = 2 * WINDOW_SECONDS + variant.delivery_interval
    seconds = max(seconds, variant.delivery_interval)
    return Load(variant, nodes, WINDOW_SECONDS, warm_up, seconds, large_pool)


def together(variant: Variant, nodes: int, seconds: float) -> Load:
    """Nodes that start in the same second, from then on."""
    return Load(variant, nodes, 0.0, 0.0, seconds)


@dataclass
class Store:
    """A database, and for each load a tracking server with one worker on it. `close` it."""

    name: str
    folder: Path
    uri: str
    database: Postgres | None
    _arrivals: dict[Load, list[int]] = field(default_factory=dict)
    _servers: int = 0

    @classmethod
    def start(cls, name: str, bench: Bench) -> Store:
        """Starts the database, where that is a program."""
        folder = bench.folder / name
        folder.mkdir()
        if name == SQLITE:
            return cls(name, folder, bench.sqlite_uri(), None)
        database = Postgres()
        return cls(name, folder, database.uri, database)

    def close(self) -> None:
        """Ends the database."""
        if self.database is not None:
            self.database.close()

    def run(self, load: Load) -> Figures:
        """Puts the load on a new run, on a server that knows of no other load.

        One that was given too much is busy with that for minutes.
        """
        self._servers += 1
        settings = LARGE_POOL if load.large_pool else {}
        server = TrackingServer(self.folder / f"server-{self._servers}", self.uri, **settings)
        with closing(server):
            return self._run_on(server, load)

    def _run_on(self, server: TrackingServer, load: Load) -> Figures:
        requests_file = self.folder / "requests.json"
        variant = load.variant
        programs = {"server": server.pid}
        if self.database is not None:
            programs["database"] = self.database.pid
        plan = Plan(
            stock=variant.stock,
            uri=server.uri,
            run_id=_new_run(server),
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


def _new_run(server: TrackingServer) -> str:
    request = urllib.request.Request(
        f"{server.uri}{API}/runs/create",
        data=json.dumps({"experiment_id": "0"}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as response:
            return str(json.load(response)["run"]["info"]["run_id"])
    except OSError as error:
        raise ParticipantFailedError(f"the server made no run: {error}") from error


def _each_second(requests_file: Path, seconds: float) -> list[int]:
    counts = [0] * math.ceil(seconds)
    for began, _ in json.loads(requests_file.read_text(encoding="utf-8")):
        if 0 <= began < len(counts):
            counts[int(began)] += 1
    return counts

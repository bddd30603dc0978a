"""What every measure gets: the settings of the run, a scratch folder, a server when it asks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from benchmarks.programs import ServingChild, run_child
from benchmarks.rounds import OFF, Figures, Samples, Turn, alternate
from benchmarks.server import TrackingServer
from benchmarks.variants import VARIANTS, sampling

WINDOW_SECONDS = 1.0
RATE = 100.0
"""The usual case of the measures with MLflow: 100 Hz, one window a second."""


@dataclass
class Bench:
    """One run of the benchmarks. `close` it: it has a server and a folder."""

    rounds: int
    quick: bool
    announce: Callable[[str], None]
    only_sources: Sequence[str] = ()
    """What the measure `sources` is asked for; nothing: all of them."""
    _scratch: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)
    _server: TrackingServer | None = None
    _server_runs: Samples | None = None
    _empty_store: Path | None = None
    _names: count[int] = field(default_factory=count)
    _serving: dict[tuple[object, ...], ServingChild] = field(default_factory=dict)

    def close(self) -> None:
        """Ends the server and the children, and removes the folder."""
        for child in self._serving.values():
            child.close()
        if self._server is not None:
            self._server.close()
        self._scratch.cleanup()

    @property
    def folder(self) -> Path:
        """Scratch space that goes with the run."""
        return Path(self._scratch.name)

    @property
    def server(self) -> TrackingServer:
        """The tracking server, started by whoever asks first."""
        if self._server is None:
            self.announce("starting mlflow server")
            self._server = TrackingServer(self.folder / "server", self.sqlite_uri())
        return self._server

    def seconds(self, usual: float, quick: float) -> float:
        """How long to measure: less with --quick."""
        return quick if self.quick else usual

    def alternate(self, turns: Sequence[Turn]) -> Samples:
        """Alternating rounds, as many as asked for."""
        return alternate(self.rounds, turns, self.announce)

    def sqlite_uri(self) -> str:
        """A new SQLite store: a copy of an empty one, because MLflow takes seconds to make one."""
        if self._empty_store is None:
            self._empty_store = self._make_store()
        copy = self.folder / f"store_{next(self._names)}.db"
        shutil.copyfile(self._empty_store, copy)
        return f"sqlite:///{copy}"

    def _make_store(self) -> Path:
        self.announce("making an empty store")
        store = self.folder / "store.db"
        settings = {**VARIANTS[OFF], "MLFLOW_TRACKING_URI": f"sqlite:///{store}"}
        self.child("mlflow_run", 0, WINDOW_SECONDS, seconds=0, settings=settings)
        return store

    def on_sqlite(self, variant: str, rate: float, samples: int) -> dict[str, str]:
        """Settings of a variant that logs to an embedded SQLite store of its own."""
        store = {"MLFLOW_TRACKING_URI": self.sqlite_uri()}
        return {**VARIANTS[variant], **sampling(rate, samples), **store}

    def on_server(self, variant: str) -> dict[str, str]:
        """Settings of a variant that logs to the server, 100 Hz and one window a second."""
        store = {"MLFLOW_TRACKING_URI": self.server.uri}
        return {**VARIANTS[variant], **sampling(RATE, round(RATE * WINDOW_SECONDS)), **store}

    def child(
        self,
        module: str,
        *arguments: object,
        seconds: float,
        settings: Mapping[str, str] | None = None,
    ) -> Figures:
        """Runs one of the children in the scratch folder."""
        return run_child(module, *arguments, folder=self.folder, seconds=seconds, settings=settings)

    def serving(self, module: str, *arguments: object) -> ServingChild:
        """A child that serves turns, started at the first and kept for the later ones."""
        key = (module, *arguments)
        if key not in self._serving:
            self._serving[key] = ServingChild(module, *arguments, folder=self.folder)
        return self._serving[key]

    def server_runs(self, measure: Callable[[], Samples]) -> Samples:
        """The runs against the server, made once and shared by the measures that look at them."""
        if self._server_runs is None:
            self._server_runs = measure()
        return self._server_runs

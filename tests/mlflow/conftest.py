"""What the tests with MLflow share: real stores and servers, programs, and the log."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mlflow.programs import Program
from tests.mlflow.proxy import Proxy
from tests.mlflow.server import Server
from tests.support import default_as_in_mlflow, sampling_threads, wait_until

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # Programs print what is compared: no logs of migrations, no hints.
    "PYTHONWARNINGS": "ignore",
}
os.environ.update(_QUIET)  # before MLflow is imported, which looks at some only then

_OUR_THREADS = {"SystemMetricsMonitor", "SystemMetricsDelivery", "SystemMetricsTermination"}


def pytest_pycollect_makemodule() -> None:
    """Nothing in this folder is for a Python without MLflow."""
    pytest.importorskip("mlflow", reason="MLflow is not installed")


# ---- stores and servers -------------------------------------------------------------------------


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with MLflow's tables: to make them takes seconds, to copy them nothing."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> str:
    """The URI of a SQLite database of this test's own."""
    path = tmp_path / "mlflow.db"
    shutil.copyfile(empty_database, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session", autouse=True)
def starting_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server | None]:
    """A tracking server, one for all tests; it takes seconds to start, so nobody waits here."""
    if not any("server" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    empty_database = request.getfixturevalue("empty_database")
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(empty_database, folder / "mlflow.db")
    server = Server(folder, folder / "mlflow.db")
    yield server
    server.close()


@pytest.fixture(scope="session")
def server(starting_server: Server | None) -> Server:
    """The tracking server, which answers."""
    assert starting_server is not None
    starting_server.wait_until_it_answers()
    return starting_server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A proxy before the server."""
    proxy = Proxy(server.uri)
    yield proxy
    proxy.close()


# ---- runs in this process -----------------------------------------------------------------------


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own for what MLflow drops, and no run or thread that outlives the test."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    before = _threads_of_ours()
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()
    wait_until(lambda: _threads_of_ours() <= before, "the end of every thread that monitors")


def _threads_of_ours() -> int:
    names = [thread.name for thread in threading.enumerate()]
    return sum(name in _OUR_THREADS for name in names) + sampling_threads()


@pytest.fixture
def uses_database(database: str) -> str:
    """MLflow in this process tracks in a database of this test's own."""
    import mlflow

    mlflow.set_tracking_uri(database)
    return database


@pytest.fixture(scope="session", autouse=True)
def programs_read_what_mlflow_reads() -> None:
    """The same for programs that several tests look at, which start before any of these."""
    sources = default_as_in_mlflow("native")
    if sources != "default":
        os.environ["SYSMETRICS_NATIVE_SOURCES"] = sources


@pytest.fixture(autouse=True)
def reads_what_mlflow_reads(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is logged of a container that these tests may run in."""
    backend = "native"
    if "backend" in request.fixturenames:
        backend = request.getfixturevalue("backend")
    sources = default_as_in_mlflow(backend)
    if sources != "default":
        monkeypatch.setenv("SYSMETRICS_NATIVE_SOURCES", sources)


@pytest.fixture
def uses_backend(backend: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs with each backend, in this process and in its programs."""
    monkeypatch.setenv("SYSMETRICS_NATIVE_BACKEND", backend)
    return backend


class _List(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What this package, and MLflow of it, has logged as a warning or worse."""
    loggers = [logging.getLogger(name) for name in ("sysmetrics_native", "mlflow.tracking.fluent")]
    handler = _List()
    handler.setLevel(logging.WARNING)
    for logger in loggers:
        logger.addHandler(handler)
    yield handler.messages
    for logger in loggers:
        logger.removeHandler(handler)


# ---- programs -----------------------------------------------------------------------------------


class Programs:
    """Starts programs that track in a database of their own."""

    def __init__(self, folder: Path, database: str) -> None:
        self._folder = folder
        self._database = database
        self._programs: list[Program] = []
        self._numbers = itertools.count()  # several threads may start programs

    def __call__(self, source: str, *switches: str, **variables: str) -> Program:
        folder = self._folder / f"program-{next(self._numbers)}"
        settings = {"MLFLOW_TRACKING_URI": self._database, **variables}
        program = Program(source, folder, settings, switches)
        self._programs.append(program)
        return program

    def kill(self) -> None:
        """End what is left of them."""
        for program in self._programs:
            program.kill()


@pytest.fixture
def start_program(tmp_path: Path, database: str) -> Iterator[Programs]:
    """Starts programs of one test."""
    programs = Programs(tmp_path, database)
    yield programs
    programs.kill()

"""A real PostgreSQL server with the settings that it ships with, for as long as it is needed."""

from __future__ import annotations

import importlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.rounds import ParticipantFailedError
from benchmarks.server import HOST, free_port

DEBIAN_PROGRAMS = "/usr/lib/postgresql"
USER = "mlflow"
DATABASE = "postgres"
UNPRIVILEGED = ("postgres", "nobody")
"""Who runs the server where this is root, which PostgreSQL refuses: the first that there is."""
START_SECONDS = 60.0
STOP_SECONDS = 10.0


def _program(name: str) -> str:
    """Debian has initdb and postgres in a folder for each version, and in no search path."""
    folders = sorted(Path(DEBIAN_PROGRAMS).glob("*/bin"), key=lambda folder: folder.parent.name)
    path = os.pathsep.join([*map(str, reversed(folders)), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        raise ParticipantFailedError(f"no PostgreSQL server here: {name} not found")
    return found


def _other_user() -> pwd.struct_passwd | None:
    """Who is to run it, if not we ourselves."""
    if os.geteuid() != 0:
        return None
    users = {user.pw_name: user for user in pwd.getpwall()}
    for name in UNPRIVILEGED:
        if name in users:
            return users[name]
    raise ParticipantFailedError("PostgreSQL refuses root, and there is no other user")


class Postgres:
    """Started by the constructor, ended by `close`. Listens on loopback and a socket of its own."""

    def __init__(self) -> None:
        try:
            self._driver: Any = importlib.import_module("psycopg2")
        except ImportError as error:
            raise ParticipantFailedError(f"no driver of PostgreSQL: {error}") from error
        self._user = _other_user()
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._password = secrets.token_hex(16)
        self._port = free_port()
        try:
            self._make_cluster()
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process that is the parent of all others."""
        assert self._process is not None
        return self._process.pid

    @property
    def uri(self) -> str:
        """What SQLAlchemy connects to."""
        place = f"{HOST}:{self._port}/{DATABASE}"
        return f"postgresql+psycopg2://{USER}:{self._password}@{place}"

    def close(self) -> None:
        """Ends the server and removes its data."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # postgres(1): the fast shutdown
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)  # the immediate one
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _popen(self, *command: str) -> subprocess.Popen[bytes]:
        user: dict[str, Any] = {}
        if self._user is not None:
            user = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [_program(command[0]), *command[1:]],
                cwd=self._folder,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **user,
            )

    def _make_cluster(self) -> None:
        password = self._folder / "password"
        password.write_text(self._password, encoding="ascii")
        password.chmod(0o600)
        if self._user is not None:
            for path in (self._folder, password):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        making = self._popen(
            *("initdb", "--pgdata", "data", "--username", USER, "--pwfile", str(password)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale"),
        )
        if making.wait() != 0:
            raise ParticipantFailedError(f"initdb failed: {self._last_words()}")

    def _start(self) -> None:
        self._process = self._popen(
            *("postgres", "-D", "data", "-p", str(self._port)),
            *("-c", f"listen_addresses={HOST}", "-k", str(self._folder)),
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ParticipantFailedError(f"postgres did not start: {self._last_words()}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            self._driver.connect(
                host=HOST, port=self._port, user=USER, password=self._password, dbname=DATABASE
            ).close()
        except self._driver.OperationalError:
            return False
        return True

    def _last_words(self) -> str:
        lines = (self._folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"

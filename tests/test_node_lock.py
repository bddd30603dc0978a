"""One holder at a time, and none that is dead: the lock of a node."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sysmetrics_native import node_lock
from sysmetrics_native.node_lock import NodeLock
from tests.support import open_files, wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs record locks")

URI = "http://server"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Locks of this test's own."""
    monkeypatch.setattr(node_lock, "_SHARED_MEMORY", str(tmp_path))
    return tmp_path


HOLDER = """
import os, subprocess, sys, time
from sysmetrics_native import node_lock
node_lock._SHARED_MEMORY = sys.argv[1]
lock = node_lock.NodeLock("http://server", "run", None)
assert lock.take()
{then}
print("held", flush=True)
time.sleep(600)
"""
FORKS = """
pid = os.fork()
if pid == 0:
    time.sleep(600)
print(pid, flush=True)
"""
FORKS_UNKNOWN_TO_PYTHON = """
import ctypes
pid = ctypes.CDLL(None).fork()
if pid == 0:
    ctypes.CDLL(None).sleep(600)
print(pid, flush=True)
"""
STARTS_A_PROGRAM = """
child = subprocess.Popen(["sleep", "600"], close_fds=False)
print(child.pid, flush=True)
"""
NOTHING = "print(0, flush=True)"


@pytest.mark.parametrize(
    "then",
    [NOTHING, FORKS, FORKS_UNKNOWN_TO_PYTHON, STARTS_A_PROGRAM],
    ids=["alone", "fork", "fork in C", "exec"],
)
def test_the_lock_goes_with_its_holder(own_folder: Path, then: str) -> None:
    """Even if children of it live on, which have its descriptors."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(then=then), str(own_folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    lock = NodeLock(URI, "run", None)
    child = 0
    try:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        assert holder.stdout.readline() == "held\n"
        assert not lock.take()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        wait_until(lock.take, "the lock")
        if child:
            os.kill(child, 0)  # it is still there
    finally:
        lock.release()
        holder.kill()
        if child:
            os.kill(child, signal.SIGKILL)
        holder.communicate()


def test_a_forked_child_frees_nothing_and_holds_nothing() -> None:
    lock, other = NodeLock(URI, "run", None), NodeLock(URI, "other", None)
    assert lock.take()
    pid = os.fork()
    if pid == 0:
        try:
            is_free = lock.take() or NodeLock(URI, "run", None).take()
            lock.release()
            took_another = other.take()
            other.release()
            os._exit(int(is_free) + 2 * int(not took_another))
        except BaseException:  # noqa: BLE001  # nothing of pytest may run in this process
            os._exit(100)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    # The child has closed the file, and this process still has the lock.
    pid = os.fork()
    if pid == 0:
        os._exit(int(NodeLock(URI, "run", None).take()))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    lock.release()


def test_within_a_process() -> None:
    first, second = NodeLock(URI, "run", None), NodeLock(f"{URI}/", "run", None)
    assert first.take()
    assert first.take()
    assert not second.take()
    second.release()
    assert not second.take()
    first.release()
    assert second.take()
    second.release()


@pytest.mark.parametrize("of", [("http://b", "run", None), (URI, "b", None), (URI, "run", "1")])
def test_what_is_locked_is_a_run_on_a_server_on_a_node(of: tuple[str, str, str | None]) -> None:
    first, second = NodeLock(URI, "run", None), NodeLock(*of)
    assert first.take()
    assert second.take()
    first.release()
    second.release()


def test_one_empty_private_file_for_all_runs(own_folder: Path) -> None:
    before = open_files()
    locks = [NodeLock(URI, str(number), None) for number in range(100)]
    for lock in locks:
        assert lock.take()
    assert open_files() == before + 1
    (path,) = own_folder.iterdir()
    status = path.stat()
    assert (status.st_size, stat.S_IMODE(status.st_mode)) == (0, 0o600)
    for lock in locks:
        lock.release()
    assert open_files() == before


def test_a_place_that_is_not_ours_is_passed_by(
    own_folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(elsewhere))
    (own_folder / f"sysmetrics-native-{os.getuid()}.lock").symlink_to("/dev/null")
    lock = NodeLock(URI, "run", None)
    assert lock.take()
    assert [path.name for path in elsewhere.iterdir()] == [f"sysmetrics-native-{os.getuid()}.lock"]
    lock.release()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_where_no_file_can_be_made_each_process_has_it(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(path: str, **_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("sysmetrics_native.private_files.open_file", refuse)
    lock = NodeLock(URI, "run", None)
    assert lock.take()
    lock.release()


def test_where_there_are_no_locks_each_process_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = open_files()
    monkeypatch.setattr("fcntl.lockf", refuse)
    lock = NodeLock(URI, "run", None)
    assert lock.take()
    lock.release()
    assert open_files() == before


def test_without_any_place_each_process_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_lock, "_SHARED_MEMORY", "/does/not/exist")
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/does/not/exist")
    first, second = NodeLock(URI, "run", None), NodeLock(URI, "run", None)
    assert first.take()
    assert not second.take(), "but once"
    first.release()
    assert second.take()
    second.release()

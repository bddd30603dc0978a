"""Files that nobody else can read, and that lead nowhere else."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sysmetrics_native import private_files
from sysmetrics_native.private_files import UnsafeFileError, Writer
from tests.support import run_python

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs owners and modes of files")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---- folders ------------------------------------------------------------------------------------


def test_a_new_folder_is_ours_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_files.make_folder(str(tmp_path / "a" / "b"))
    finally:
        os.umask(before)
    assert mode(tmp_path / "a" / "b") == 0o700


def test_a_folder_that_is_there_is_taken_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    private_files.make_folder(str(tmp_path))
    assert mode(tmp_path) == 0o755


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o1777, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, bits: int) -> None:
    tmp_path.chmod(bits)
    with pytest.raises(UnsafeFileError, match="others can write"):
        private_files.make_folder(str(tmp_path))


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(UnsafeFileError, match="a link or a file"):
        private_files.make_folder(str(tmp_path / "link"))


def test_the_default_is_in_the_users_own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/home/ann/.state")
    assert private_files.state_folder(None) == "/home/ann/.state/sysmetrics-native"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/ann")
    default = private_files.state_folder(None)
    assert default.startswith("/home/ann/")
    assert private_files.state_folder("/elsewhere") == "/elsewhere"


def test_a_user_without_a_home_gets_no_folder_in_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafeFileError, match="set the option spool_dir"):
        private_files.make_folder("~/.local/state/sysmetrics-native")
    assert list(tmp_path.iterdir()) == []


# ---- files --------------------------------------------------------------------------------------


def test_a_new_file_is_ours_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        os.close(private_files.create_file(str(tmp_path / "file")))
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") == 0o600


def test_what_is_there_is_never_created_anew(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name in ("target", "link", "dangling"):
        with pytest.raises(FileExistsError):
            private_files.create_file(str(tmp_path / name))
    assert (tmp_path / "target").read_text() == "precious"
    assert not (tmp_path / "nothing").exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        private_files.open_file(str(tmp_path / "link"))
    (tmp_path / "hard").hardlink_to(tmp_path / "target")
    with pytest.raises(UnsafeFileError, match="a second name"):
        private_files.open_file(str(tmp_path / "hard"))


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsafeFileError, match="not a regular file"):
        private_files.open_file(str(tmp_path / "pipe"))
    with pytest.raises(OSError, match=r"regular file|directory"):
        private_files.open_file(str(tmp_path))


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root gives files away")
def test_somebody_elses_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 12345, 12345)
    with pytest.raises(UnsafeFileError, match="belongs to user 12345"):
        private_files.open_file(str(tmp_path / "file"))
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(UnsafeFileError, match="belongs to user 12345"):
        private_files.make_folder(str(tmp_path))


def test_reading_and_writing_at_an_offset(tmp_path: Path) -> None:
    file = private_files.create_file(str(tmp_path / "file"))
    private_files.write_at(file, 3, b"behind")
    private_files.write_at(file, 0, b"abc")
    assert private_files.read_at(file, 1, 100) == b"bcbehind"
    assert private_files.read_at(file, 1, 2) == b"bc"
    assert private_files.read_at(file, 100, 2) == b""
    os.close(file)


def test_a_full_disk_is_an_error_and_no_part_is_taken_for_the_whole() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        private_files.write_at(full, 0, b"abc")
    os.close(full)


def test_a_new_name_is_nobody_elses_and_leads_nowhere() -> None:
    names = {private_files.new_name("../../etc/x y", ".suffix") for _ in range(100)}
    assert len(names) == 100
    for name in names:
        assert "/" not in name
        assert name.endswith(".suffix")
        assert "______etc_x_y" in name
    assert len(private_files.new_name("x" * 10_000, ".suffix")) < 120


# ---- locks --------------------------------------------------------------------------------------

LOCKS = """
import sys
import textwrap
from sysmetrics_native import private_files
print(private_files.lock(private_files.open_file(sys.argv[1], writable=True)))
"""


def is_free(path: Path) -> bool:
    """Whether another process can lock the file."""
    return run_python(LOCKS, str(path)).stdout == "True\n"


def test_a_lock_keeps_other_processes_out_until_it_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    file = private_files.create_file(str(path))
    assert is_free(path)
    assert private_files.lock(file)
    assert not is_free(path)
    private_files.unlock(file)
    assert is_free(path)
    os.close(file)


def test_a_child_that_outlives_its_parent_does_not_hold_the_lock(tmp_path: Path) -> None:
    program = f"""
        import os, sys, time
        from sysmetrics_native import private_files
        private_files.lock(private_files.create_file({str(tmp_path / "file")!r}))
        if os.fork() == 0:
            time.sleep(30)
        print(os.getpid(), flush=True)
        os.kill(os.getpid(), 9)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline().strip() == str(child.pid).encode()
    child.wait()
    try:
        assert is_free(tmp_path / "file")
    finally:
        os.killpg(child.pid, 9)
        child.stdout.close()


# ---- who writes a file --------------------------------------------------------------------------


def test_this_process_is_alive() -> None:
    assert Writer.this_process().is_alive() is True


def test_a_process_that_ended_is_not_even_if_its_number_is_used_again() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    theirs = Writer.this_process()._replace(
        pid=child.pid, started=private_files._started(child.pid) or 0.0
    )
    assert theirs.is_alive() is True
    assert theirs._replace(started=theirs.started - 60.0).is_alive() is False
    child.kill()
    assert child.poll() is None or child.returncode
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie is not alive either
    assert theirs.is_alive() is False
    child.communicate()
    assert theirs.is_alive() is False


def test_a_process_of_another_machine_or_another_boot() -> None:
    here = Writer.this_process()
    assert here._replace(host="elsewhere").is_alive() is None
    if here.boot_id:
        assert here._replace(boot_id="before").is_alive() is False

"""The flight recorder: what a sampler leaves behind, where, and what no accident may do to it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import stat
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sysmetrics_native
from sysmetrics_native import Sampler, Window, private_files, recorder
from sysmetrics_native.backends.fold import RowTime
from sysmetrics_native.private_files import Writer
from sysmetrics_native.recording import Recording, RecordingError
from tests.procfs_tree import ProcfsTree, wait_for_reading
from tests.recordings import (
    RUN,
    assert_same_windows,
    describe,
    make_rows,
    overwrite,
    write_recording,
)
from tests.support import PATIENCE_SECONDS, run_python, wait_until

on_posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where recordings go by default; never the developer's own."""
    folder = tmp_path / "state"
    monkeypatch.setenv("SYSMETRICS_NATIVE_SPOOL_DIR", str(folder))
    monkeypatch.setattr(recorder, "_named", set())
    return folder


def path_of(sampler: Sampler) -> Path:
    assert sampler.recording_path is not None
    return Path(sampler.recording_path)


def run_a_while(sampler: Sampler, rows: int = 20) -> list[Window]:
    """Every window of a sampler that has recorded so many rows at least."""
    windows = []
    with sampler:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while sampler.stats()["recorder"]["rows"] < rows:
            assert time.monotonic() < deadline
            window = sampler.next_window(timeout=0.1)
            windows += [] if window is None else [window]
    return windows + list(sampler.windows(timeout=0))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# ---- what it records ----------------------------------------------------------------------------


def test_windows_can_be_made_again_from_the_recording(make_sampler, tmp_path):
    sampler = make_sampler(interval=0.004, samples_per_window=20, recorder=tmp_path)
    live = run_a_while(sampler, 150)
    with Recording(path_of(sampler)) as recording:
        replayed = list(recording.windows())
        assert recording.damaged_rows == 0
        assert [series.info for series in recording.series] == list(sampler.schema)
        assert (recording.interval, recording.samples_per_window) == (0.004, 20)
        assert recording.run is None
        assert recording.state == "ended"
        assert recording.writer.pid == os.getpid()
        assert abs(recording.started - time.time()) < 600
    assert_same_windows(live, replayed)
    assert live[-1].samples < 20 or live[-1].missed > 0 or len(live) > 1
    stats = sampler.stats()
    assert stats["recorder"] == {
        "path": sampler.recording_path,
        "rows": stats["ticks"] + 1,  # the first reading is in it, too
        "errors": 0,
    }


def test_windows_of_a_ring_that_has_begun_again(make_sampler, tmp_path):
    sampler = make_sampler(
        interval=0.001, samples_per_window=20, recorder=tmp_path, recorder_megabytes=0.1
    )
    live = run_a_while(sampler, 600)
    path = path_of(sampler)
    assert path.stat().st_size <= 100_000
    with Recording(path) as recording:
        replayed = list(recording.windows())
        assert recording.damaged_rows == 0
    assert 2 <= len(replayed) < len(live)
    assert_same_windows(live[-len(replayed) + 1 :], replayed[1:])
    assert replayed[0].end == live[-len(replayed)].end


@on_posix
def test_windows_with_missed_ticks(make_sampler, tmp_path):
    """The whole process stands still for some of them."""
    sampler = make_sampler(interval=0.002, samples_per_window=25, recorder=tmp_path)
    pause = f"kill -STOP {os.getpid()}; sleep 0.02; kill -CONT {os.getpid()}"
    live = []
    with sampler:
        for _ in range(4):
            subprocess.run(["sh", "-c", pause], check=True)
            window = sampler.next_window(timeout=PATIENCE_SECONDS)
            assert window is not None
            live.append(window)
    live += sampler.windows(timeout=0)
    assert sum(window.missed for window in live) > 0
    with Recording(path_of(sampler)) as recording:
        assert_same_windows(live, list(recording.windows()))


@pytest.mark.native
def test_a_ratio_by_its_quantum(tree: ProcfsTree, tmp_path):
    """Spans of CPU time that are too short alone, in a window that is cut short."""
    tree.write_stat([0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    sampler = tree.sampler(
        interval=0.002, samples_per_window=1_000_000, sources="cpu", recorder=tmp_path
    )
    with sampler:
        for step in range(1, 30):
            tree.write_stat([step * step % 7 + 4 * step, 0, 0, 3 * step, 0, 0, 0, 0, 0, 0])
            wait_for_reading(sampler, "cpu")
    (live,) = sampler.windows(timeout=0)
    with Recording(path_of(sampler)) as recording:
        (replayed,) = recording.windows()
    assert live["cpu_utilization_percentage"].p95 is not None
    assert_same_windows([live], [replayed])


def test_a_source_that_is_read_less_often_is_absent_between(make_sampler, tmp_path):
    sampler = make_sampler(interval=0.01, samples_per_window=1000, recorder=tmp_path)
    run_a_while(sampler, 30)
    with Recording(path_of(sampler)) as recording:
        rows = recording.rows
        (column,) = (s.numerator for s in recording.series if s.key == "disk_usage_percentage")
    present = ~np.isnan(rows["columns"][:, column])
    assert present[0]
    assert present[-1]
    assert present.sum() < len(rows) / 2


def test_without_the_option_nothing_is_written(make_sampler, state_folder):
    sampler = make_sampler(interval=0.005)
    with sampler:
        sampler.next_window(timeout=PATIENCE_SECONDS)
    assert sampler.recording_path is None
    assert sampler.stats()["recorder"] is None
    sampler.mark_delivered()
    assert not state_folder.exists()


# ---- options ------------------------------------------------------------------------------------


def test_the_option_follows_the_usual_order(monkeypatch, tmp_path, state_folder):
    def place(**options: Any) -> str | None:
        sampler = Sampler(**options)
        with sampler:
            path = sampler.recording_path
        return path and str(Path(path).relative_to(tmp_path).parent)

    monkeypatch.setenv("SYSMETRICS_NATIVE_RECORDER", "on")
    assert place() == "state/recordings"
    sysmetrics_native.configure(recorder=tmp_path / "configured.smnrec")
    assert place() == "."
    (tmp_path / "argument").mkdir()
    assert place(recorder=tmp_path / "argument") == "argument"
    assert place(recorder=False) is None


@pytest.mark.parametrize(
    ("options", "named"),
    [({"recorder": 7.5}, "recorder"), ({"recorder_megabytes": 0}, "recorder_megabytes")],
)
def test_values_that_are_not_allowed(options, named):
    with pytest.raises(ValueError, match=named):
        Sampler(**options)


def test_the_size_is_kept(make_sampler, tmp_path):
    for megabytes in (0.1, 0.5, 64):
        sampler = make_sampler(interval=10, recorder=tmp_path, recorder_megabytes=megabytes)
        with sampler:
            pass
        with Recording(path_of(sampler)) as recording:
            record_bytes = 8 * (5 + recording.columns)
            full = recording._data_offset + recording._capacity * record_bytes
        assert 0.8 * megabytes * 1e6 < full <= megabytes * 1e6
        assert path_of(sampler).stat().st_size < 70_000  # it grows as rows come


# ---- where it goes ------------------------------------------------------------------------------


@on_posix
def test_by_default_it_is_in_a_folder_of_the_user_alone(make_sampler, state_folder):
    before = os.umask(0)
    try:
        sampler = make_sampler(recorder=True)
        with sampler:
            pass
    finally:
        os.umask(before)
    path = path_of(sampler)
    assert path.parent == state_folder / "recordings"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    name, whose, chance = path.stem.split("-")
    assert time.strptime(name, "%Y%m%dT%H%M%SZ")
    assert whose == "sampler"
    assert len(chance) == 8
    assert path.suffix == ".smnrec"


def test_the_run_is_in_the_name_and_in_the_file(make_sampler, state_folder):
    run = RUN._replace(run_id="../../a b/c")
    sampler = make_sampler(recorder=True, recorded_run=run)
    with sampler:
        pass
    path = path_of(sampler)
    assert path.parent == state_folder / "recordings"
    assert "-______a_b_c-" in path.name
    with Recording(path) as recording:
        assert recording.run == run


def test_a_file_in_a_folder_that_is_not_there_yet(make_sampler, tmp_path):
    path = tmp_path / "new" / "folder" / "a.smnrec"
    run_a_while(make_sampler(interval=0.005, recorder=path), 3)
    with Recording(path) as recording:
        assert recording.damaged_rows == 0


def impossible_places(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Where nobody can create a file, not even root, and what is said of it."""
    file = tmp_path / "file"
    file.write_text("not a folder")
    yield "File exists", file / "a.smnrec"
    yield "is no recording, and is not overwritten", file
    yield "File name too long", tmp_path / ("x" * 300)
    yield "not a regular file", Path("/dev/full")
    yield "No such file or directory", Path("/proc/a.smnrec")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    yield "not a regular file", pipe
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    yield "symbolic links", link
    twin = tmp_path / "twin"
    (tmp_path / "other").write_text("of two names")
    os.link(tmp_path / "other", twin)
    yield "second name", twin


@on_posix
def test_where_it_cannot_record_it_says_so_once_and_samples(make_sampler, tmp_path, caplog):
    for reason, place in list(impossible_places(tmp_path)):
        caplog.clear()
        sampler = make_sampler(interval=0.005, recorder=place)
        with sampler:
            assert sampler.next_window(timeout=PATIENCE_SECONDS) is not None
            assert sampler.next_window(timeout=PATIENCE_SECONDS) is not None
        sampler.mark_delivered()
        assert sampler.recording_path is None
        assert sampler.stats()["recorder"] is None
        (warning,) = warnings_of(caplog)
        assert warning.startswith("Sampling goes on without a recording: ")
        assert reason in warning
    assert (tmp_path / "file").read_text() == "not a folder"
    assert not (tmp_path / "elsewhere").exists()


@on_posix
@pytest.mark.parametrize("place", ["a.smnrec", ""])
def test_a_folder_that_cannot_be_written_to(make_sampler, tmp_path, caplog, place):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root may do anything, but not here
        folder = Path("/sys/kernel")
    sampler = make_sampler(interval=0.005, recorder=folder / place)
    with sampler:
        assert sampler.next_window(timeout=PATIENCE_SECONDS) is not None
    (warning,) = warnings_of(caplog)
    assert "Sampling goes on without a recording" in warning
    assert str(folder) in warning


@on_posix
def test_a_state_folder_that_others_can_write_to(make_sampler, state_folder, caplog):
    folder = state_folder / "recordings"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with make_sampler(recorder=True) as sampler:
        assert sampler.recording_path is None
    (warning,) = warnings_of(caplog)
    assert "chmod go-w" in warning


# ---- a file that is there -----------------------------------------------------------------------


def test_a_recording_that_was_delivered_makes_room(make_sampler, tmp_path, caplog):
    path = tmp_path / "a.smnrec"
    for _ in range(3):
        sampler = make_sampler(interval=0.005, recorder=path)
        run_a_while(sampler, 3)
        sampler.mark_delivered()
        assert path_of(sampler) == path
        with Recording(path) as recording:
            assert recording.state == "delivered"
    assert list(tmp_path.glob("*.smnrec")) == [path]
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("what", ["ended", "killed", "damaged", "newer"])
def test_a_recording_that_is_still_needed_is_kept(make_sampler, tmp_path, caplog, what):
    path = tmp_path / "a.smnrec"
    write_recording(path, make_rows(5), state=0 if what == "killed" else 1)
    if what in ("damaged", "newer"):
        overwrite(path, 64 if what == "damaged" else 8, struct.pack("=I", 2))
    before = path.read_bytes()
    sampler = make_sampler(interval=0.005, recorder=path)
    run_a_while(sampler, 3)
    other = path_of(sampler)
    assert other != path
    assert other.parent == path.parent
    assert other.name.startswith("a-")
    assert other.suffix == ".smnrec"
    assert path.read_bytes() == before
    (warning,) = warnings_of(caplog)
    assert str(path) in warning
    assert str(other) in warning


def test_an_empty_file_is_nobodys(make_sampler, tmp_path):
    """Its writer was killed before it wrote anything."""
    path = tmp_path / "a.smnrec"
    path.touch()
    sampler = make_sampler(interval=0.005, recorder=path)
    run_a_while(sampler, 3)
    assert path_of(sampler) == path


def test_two_samplers_of_one_process_do_not_share_a_file(make_sampler, tmp_path, caplog):
    path = tmp_path / "a.smnrec"
    with make_sampler(interval=0.005, recorder=path) as first:
        with make_sampler(interval=0.005, recorder=path) as second:
            assert second.next_window(timeout=PATIENCE_SECONDS) is not None
        assert second.recording_path is None
        assert path_of(first) == path
        # Nor do those that only read it take its lock away.
        with Recording(path) as recording:
            assert recording.is_being_written()
        assert not can_lock(path)
    (warning,) = warnings_of(caplog)
    assert "this process records to" in warning


def can_lock(path: Path) -> bool:
    """Whether another process can."""
    program = """
        import sys
        from sysmetrics_native import private_files
        file = private_files.open_file(sys.argv[1], writable=True)
        print(private_files.lock(file))
    """
    done = run_python(program, str(path))
    assert done.stderr == ""
    return done.stdout.strip() == "True"


SAMPLES = """
    import sys
    from sysmetrics_native import Sampler
    sampler = Sampler(float(sys.argv[1]), 10, backend=sys.argv[2], recorder=sys.argv[3],
                      recorder_megabytes=float(sys.argv[4]))
    sampler.start()
    print(sampler.recording_path, flush=True)
    sys.stdin.read()
    sampler.stop()
"""


@contextlib.contextmanager
def sampling_process(
    backend: str, place: Path, interval: float = 0.001, megabytes: float = 64
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process that records, and its recording; ends when its input does."""
    command = [sys.executable, "-c", textwrap.dedent(SAMPLES), str(interval), backend, str(place)]
    with subprocess.Popen(
        [*command, str(megabytes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


@on_posix
def test_two_processes_do_not_share_a_file(backend, make_sampler, tmp_path, caplog):
    path = tmp_path / "a.smnrec"
    with sampling_process(backend, path) as (process, theirs):
        assert theirs == path
        with make_sampler(interval=0.005, recorder=path) as sampler:
            assert sampler.next_window(timeout=PATIENCE_SECONDS) is not None
        assert sampler.recording_path is None
        (warning,) = warnings_of(caplog)
        assert "another process records to" in warning
        with Recording(path) as recording:
            assert recording.is_being_written()
            process.communicate()
            assert process.returncode == 0
            assert not recording.is_being_written()
            assert recording.state == "ended"
            assert recording.damaged_rows == 0


def test_a_living_writer_without_a_lock_keeps_its_file(make_sampler, tmp_path, caplog):
    """On a file system that has no locks, say."""
    path = tmp_path / "a.smnrec"
    with sampling_process("psutil", tmp_path) as (_, theirs):
        with Recording(theirs) as recording:
            writer = recording.writer
        write_recording(path, [], description=describe(writer=writer), state=0)
        with make_sampler(interval=0.005, recorder=path) as sampler:
            assert sampler.recording_path is None
    (warning,) = warnings_of(caplog)
    assert f"process {writer.pid} records to" in warning


def test_many_processes_that_begin_at_once_have_a_file_each(tmp_path):
    """One of them the one that they all want."""
    path = tmp_path / "a.smnrec"
    path.touch()
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-c", textwrap.dedent(SAMPLES), "0.01", "psutil", str(path), "1"]
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(6)
        ]
        said = []
        for process in processes:
            assert process.stdout is not None
            said.append(process.stdout.readline().strip())
        errors = [process.communicate()[1] for process in processes]
    assert sorted(said) == sorted([*["None"] * 5, str(path)])
    assert sum("Sampling goes on without a recording" in error for error in errors) == 5
    with Recording(path) as recording:
        assert recording.state == "ended"
        assert recording.damaged_rows == 0


# ---- its end ------------------------------------------------------------------------------------


def test_states_from_start_to_delivery(make_sampler, tmp_path):
    sampler = make_sampler(interval=0.005, recorder=tmp_path)
    sampler.start()
    path = path_of(sampler)
    with Recording(path) as recording:
        assert recording.state == "writing"
        assert recording.is_being_written()
        sampler.mark_delivered()  # too early: rows are still to come
        assert recording.state == "writing"
        assert sampler.next_window(timeout=PATIENCE_SECONDS) is not None  # and it goes on
        assert sampler.stop()
        assert recording.state == "ended"
        assert not recording.is_being_written()
        sampler.mark_delivered()
        sampler.mark_delivered()
        assert sampler.stop()
        assert recording.state == "delivered"


def test_starting_twice_begins_one_recording(make_sampler, tmp_path):
    sampler = make_sampler(interval=0.005, recorder=tmp_path)
    sampler.start()
    sampler.start()
    sampler.stop()
    assert len(list(tmp_path.glob("*.smnrec"))) == 1


def test_a_sampler_that_never_starts_records_nothing(make_sampler, tmp_path):
    sampler = make_sampler(interval=0.005, recorder=tmp_path)
    sampler.stop()
    sampler.mark_delivered()
    assert list(tmp_path.glob("*.smnrec")) == []


def test_samplers_give_their_files_back(backend, tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("counts what /proc/self/fd lists")
    program = """
        import gc, os, sys
        from sysmetrics_native import Sampler
        from sysmetrics_native.recording import Recording
        def use():
            with Sampler(0.001, backend=sys.argv[1], recorder=sys.argv[2]) as sampler:
                sampler.next_window(timeout=30)
                list(Recording(sampler.recording_path).windows())
            sampler.mark_delivered()
        use()
        gc.collect()
        before = os.listdir("/proc/self/fd")
        for _ in range(5):
            use()
        gc.collect()
        print(len(os.listdir("/proc/self/fd")) - len(before))
    """
    done = run_python(program, backend, str(tmp_path))
    assert done.stderr == ""
    assert done.stdout == "0\n"


@on_posix
def test_a_child_neither_ends_nor_delivers_nor_unlocks_what_its_parent_records(backend, tmp_path):
    program = """
        import gc, os, sys, time
        from sysmetrics_native import Sampler, private_files
        from sysmetrics_native.recording import Recording

        place = os.path.join(sys.argv[2], "a.smnrec")
        sampler = Sampler(0.002, 10, backend=sys.argv[1], recorder=place)
        sampler.start()
        idle = Sampler(0.002, 10, backend=sys.argv[1], recorder=sys.argv[2])
        child = os.fork()
        if child == 0:
            sampler.stop()
            sampler.mark_delivered()
            idle.start()
            assert idle.recording_path is None
            file = private_files.open_file(place, writable=True)
            assert not private_files.lock(file)
            os.close(file)
            with Recording(place) as recording:
                assert recording.state == "writing", recording.state
                assert recording.is_being_written()
            with Sampler(0.002, 10, backend=sys.argv[1], recorder=place) as mine:
                assert mine.recording_path is None  # it is the parent's
            with Sampler(0.002, 10, backend=sys.argv[1], recorder=sys.argv[2]) as mine:
                assert mine.next_window(timeout=30) is not None
            assert Recording(mine.recording_path).writer.pid == os.getpid()
            del sampler, idle
            gc.collect()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        rows = sampler.stats()["recorder"]["rows"]
        while sampler.stats()["recorder"]["rows"] < rows + 20:
            time.sleep(0.01)
        child = os.fork()
        if child == 0:
            file = private_files.open_file(place, writable=True)
            os._exit(private_files.lock(file))  # still locked by the parent
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        live = list(sampler.windows(timeout=0))
        sampler.stop()
        live += sampler.windows(timeout=0)
        with Recording(place) as recording:
            assert recording.state == "ended"
            assert [w.end for w in recording.windows()] == [w.end for w in live]
    """
    done = run_python(program, backend, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Sampling goes on without a recording") == 1


# ---- kills --------------------------------------------------------------------------------------


NURSERY = """
    import os, signal, sys
    from sysmetrics_native import Sampler
    from sysmetrics_native.recording import Recording
    import psutil, importlib.metadata, sysmetrics_native.recorder

    with Sampler(0.001, backend=sys.argv[1], recorder=sys.argv[2]):
        pass  # all that will be imported is
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            sampler = Sampler(float(line), 10, backend=sys.argv[1], recorder=sys.argv[2],
                              recorder_megabytes=0.1)
            sampler.start()
            print(os.getpid(), sampler.recording_path, flush=True)
            while True:
                signal.pause()
        os.waitpid(child, 0)
        print("gone", flush=True)
"""


class Nursery:
    """Raises processes that record, one at a time, to be killed."""

    def __init__(self, backend: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(NURSERY), backend, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, interval: float) -> tuple[int, Path]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{interval}\n")
        self._process.stdin.flush()
        pid, path = self._line().split()
        return int(pid), Path(path)

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        assert self._line() == "gone"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def nursery(backend, tmp_path) -> Iterator[Nursery]:
    nursery = Nursery(backend, tmp_path)
    yield nursery
    nursery.close()


@on_posix
def test_a_recording_is_intact_wherever_its_writer_was_killed(nursery):
    """At any moment: before the first row, at the seam of the ring, within a row."""
    for attempt in range(31):
        pid, path = nursery.begin(0.001)
        if attempt < 30:
            time.sleep(attempt * 0.012)
        else:
            wait_until(lambda: rows_in(path) > 100, "a hundred rows")  # noqa: B023
        nursery.kill(pid)
        with Recording(path) as recording:
            assert recording.state == "writing"
            assert not recording.is_being_written()
            assert recording.writer.is_alive() is False
            rows = list(recording._rows_in_order())
            assert recording.damaged_rows <= 1  # the one that was on its way
            assert sum(window.samples for window in recording.windows()) == max(0, len(rows) - 1)
        sequences = [row.sequence for row in rows]
        first = sequences[0] if sequences else 0
        assert sequences == list(range(first, first + len(rows)))
        ticks = [row.time.tick for row in rows]
        assert ticks == sorted(set(ticks))


def rows_in(path: Path) -> int:
    with Recording(path) as recording:
        return len(list(recording._rows_in_order()))


@on_posix
def test_the_last_rows_before_a_kill_are_there(nursery):
    """Each is in the file as soon as it is sampled: nothing waits to be written."""
    pid, path = nursery.begin(0.1)
    newest = []
    for count in range(2, 6):
        wait_until(lambda: rows_in(path) >= count, f"{count} rows")  # noqa: B023
        with Recording(path) as recording:
            *_, last = recording._rows_in_order()
        newest.append(last.time)
        assert last.sequence + 1 >= count
    nursery.kill(pid)
    with Recording(path) as recording:
        times = [row.time for row in recording._rows_in_order()]
    assert set(newest) <= set(times)
    assert times[-1].wall_ns >= newest[-1].wall_ns


# ---- readers beside a writer --------------------------------------------------------------------


@pytest.mark.once
@on_posix
def test_readers_beside_a_writer_see_whole_rows_in_order(backend, tmp_path):
    """At 1 kHz, of a ring that begins again four times a second."""
    newest = []
    with sampling_process(backend, tmp_path, megabytes=0.1) as (_, path):
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            with Recording(path) as recording:
                assert recording.is_being_written()
                rows = recording.rows.copy()
                rows = rows[Recording.is_intact(rows)]
                replayed = list(recording._rows_in_order())
                assert recording.damaged_rows <= 1
                windows = list(recording.windows())
            for sequences in (rows["sequence"].tolist(), [row.sequence for row in replayed]):
                assert sequences == sorted(set(sequences))
            assert (np.diff(rows["monotonic_ns"].astype(np.int64)) > 0).all()
            ends = [window.end for window in windows]
            assert ends == sorted(ends)
            if len(rows):
                newest.append(int(rows[-1]["sequence"]))
    assert newest == sorted(newest)
    assert newest[-1] > newest[0]


WRITES = """
    import sys
    from sysmetrics_native.backends.fold import RowTime
    from sysmetrics_native.recording_file import RowWriter
    file = open(sys.argv[1], "r+b")
    writer = RowWriter(file.fileno(), 65536, int(sys.argv[2]), 4)
    print("begun", flush=True)
    number = 0
    while True:
        writer.append(RowTime(number, 3 * number, 5 * number), [number * 0.5] * 4)
        number += 1
"""


@pytest.mark.once
@on_posix
@pytest.mark.parametrize("capacity", [5, 64, 8192])
def test_no_row_that_is_read_beside_a_writer_is_of_two(tmp_path, capacity):
    """A writer that never rests, and rows that are recognised by any part of them."""
    path = tmp_path / "a.smnrec"
    write_recording(path, [], capacity=capacity, state=0)
    command = [sys.executable, "-c", textwrap.dedent(WRITES), str(path), str(capacity)]
    seen = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process, Recording(path) as recording:
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            copy = recording.rows.copy()
            copy = copy[Recording.is_intact(copy)]
            numbers = copy["sequence"]
            assert (copy["tick"] == numbers).all()
            assert (copy["monotonic_ns"] == 3 * numbers).all()
            assert (copy["wall_ns"].astype("u8") == 5 * numbers).all()
            assert (copy["columns"] == numbers[:, None] * 0.5).all()
            for row in recording._rows_in_order():
                assert row.time == RowTime(row.sequence, 3 * row.sequence, 5 * row.sequence)
                assert row.columns == (row.sequence * 0.5,) * 4
                seen += 1
        process.kill()
    assert seen > 0


# ---- full disks ---------------------------------------------------------------------------------


FILLS = """
    import json, logging, resource, sys, time
    logging.basicConfig(format="%(message)s")
    from sysmetrics_native import Sampler
    backend, place, limit = sys.argv[1:]
    sampler = Sampler(0.001, 50, backend=backend, recorder=place, recorder_megabytes=1)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    ends = []
    with sampler:
        deadline = time.monotonic() + 60
        while sampler.stats()["recorder"]["errors"] < 100 and time.monotonic() < deadline:
            ends.append(sampler.next_window(timeout=30).end)
    ends += [window.end for window in sampler.windows(timeout=0)]
    print(json.dumps([sampler.stats(), ends]))
"""


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[str]:
    """A file system of 128 KiB where one may be mounted; else the limit with the same effect."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield "" if mounted else str(128 << 10)
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@on_posix
@pytest.mark.parametrize("disk", ["small", "limited"])
def test_a_full_disk_costs_rows_and_one_warning(backend, tmp_path, disk):
    import json

    folder = tmp_path / "disk"
    with small_disk(folder) if disk == "small" else contextlib.nullcontext("131072") as limit:
        if disk == "limited":
            folder.mkdir()
        done = run_python(FILLS, backend, str(folder), limit)
        assert done.returncode == 0, done.stderr
        (stats, ends) = json.loads(done.stdout)
        assert stats["recorder"]["errors"] >= 100
        assert stats["recorder"]["rows"] + stats["recorder"]["errors"] == stats["ticks"] + 1
        assert len(ends) == len(set(ends)) > 5  # sampling went on
        (warning,) = done.stderr.splitlines()
        assert stats["recorder"]["path"] in warning
        reason = "No space left on device" if limit == "" else "File too large"
        assert reason in warning or "No space left on device" in warning
        with Recording(stats["recorder"]["path"]) as recording:
            rows = list(recording._rows_in_order())
            assert recording.state == "ended"
    assert [row.sequence for row in rows] == list(range(stats["recorder"]["rows"]))


# ---- what others left behind --------------------------------------------------------------------


def leave(state_folder: Path, name: str, **options: Any) -> Path:
    folder = state_folder / "recordings"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{name}.smnrec"
    writer = Writer.this_process()._replace(pid=2**22 + 1, started=1.0)
    write_recording(path, make_rows(3), **{"description": describe(writer=writer), **options})
    path.chmod(0o600)
    return path


def test_what_was_left_undelivered_is_named_once(make_sampler, state_folder, caplog):
    writer = Writer.this_process()
    killed = leave(state_folder, "20260101T000000Z-killed", state=0)
    ended = leave(state_folder, "20260102T000000Z-ended", state=1)
    leave(state_folder, "20260103T000000Z-delivered", state=2)
    leave(state_folder, "20260104T000000Z-alive", state=0, description=describe(writer=writer))
    leave(state_folder, "20260105T000000Z-elsewhere", state=0, description=describe())
    leave(state_folder, "20260106T000000Z-sampler", description=describe(run=None))
    broken = leave(state_folder, "20260107T000000Z-broken")
    broken.write_bytes(b"broken")
    (state_folder / "recordings" / "notes.txt").write_text("not ours")
    for _ in range(2):
        with make_sampler(recorder=True):
            pass
    (warning,) = warnings_of(caplog)
    assert f"{killed}, {ended}." in warning
    assert warning.count(".smnrec") == 2
    assert "sysmetrics-native recover" in warning
    assert broken.read_bytes() == b"broken"


def test_many_that_were_left_are_one_line(make_sampler, state_folder, caplog):
    for number in range(14):
        leave(state_folder, f"2026010{number // 10}T0000{number:02}Z-killed", state=0)
    with make_sampler(recorder=True):
        pass
    (warning,) = warnings_of(caplog)
    assert warning.count(".smnrec") == 10
    assert "and 4 more" in warning


def test_old_ones_that_nobody_needs_go(make_sampler, state_folder):
    delivered = [leave(state_folder, f"2026{n:04}T-delivered", state=2) for n in range(15)]
    alone = [
        leave(
            state_folder,
            f"2025{n:04}T-sampler",
            description=describe(run=None, writer=Writer.this_process()),
        )
        for n in range(15)
    ]
    needed = [leave(state_folder, f"2024{n:04}T-killed", state=0) for n in range(30)]
    with make_sampler(recorder=True) as sampler:
        pass
    left = sorted((state_folder / "recordings").iterdir())
    assert left == sorted([*needed, *alone[10:], *delivered, path_of(sampler)])


def test_in_a_folder_of_the_users_own_nothing_is_removed(make_sampler, tmp_path):
    kept = []
    for number in range(25):
        path = tmp_path / f"{number:02}.smnrec"
        write_recording(path, [], state=2)
        kept.append(path)
    with make_sampler(recorder=tmp_path):
        pass
    assert all(path.exists() for path in kept)


# ---- rules for files ----------------------------------------------------------------------------


@on_posix
def test_a_link_in_the_place_of_a_file_is_not_followed(make_sampler, tmp_path, caplog):
    target = tmp_path / "target.smnrec"
    write_recording(target, make_rows(3), state=2)
    before = target.read_bytes()
    link = tmp_path / "a.smnrec"
    link.symlink_to(target)
    with make_sampler(recorder=link) as sampler:
        assert sampler.recording_path is None
    assert target.read_bytes() == before
    assert link.is_symlink()
    with pytest.raises(OSError, match="symbolic links"):
        Recording(link)
    assert len(warnings_of(caplog)) == 1


def test_errors_of_ours_are_known_kinds():
    assert issubclass(RecordingError, ValueError)
    assert issubclass(private_files.UnsafeFileError, OSError)

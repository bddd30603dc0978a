"""Disk paths on a real file system whose server stops to answer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sysmetrics_native import Sampler, Series, Window, catalog
from tests.hanging_mount import (
    AVAILABLE_MEGABYTES,
    USED_MEGABYTES,
    HangingMount,
)
from tests.support import DEFAULT_KEYS, PATIENCE_SECONDS, run_python, threads_named, wait_until

EXPECTED = [75.0, USED_MEGABYTES, AVAILABLE_MEGABYTES]


def keys(path: Path) -> list[str]:
    return [key + catalog.disk_key_suffix(str(path)) for key in DEFAULT_KEYS["disk_space"]]


def next_window(sampler: Sampler) -> Window:
    window = sampler.next_window(timeout=PATIENCE_SECONDS)
    assert window is not None
    return window


def check_others(window: Window) -> None:
    """All that is not about the server is there."""
    assert window["system_memory_usage_megabytes"].last is not None
    for key in DEFAULT_KEYS["disk_space"]:
        assert window[key].last is not None


def wait_for_values(sampler: Sampler, path: Path) -> None:
    def is_there() -> bool:
        window = next_window(sampler)
        check_others(window)
        return [window[key].last for key in keys(path)] == EXPECTED

    wait_until(is_there, "values of the server")


def wait_for_no_values(sampler: Sampler, path: Path) -> None:
    def is_absent() -> bool:
        window = next_window(sampler)
        check_others(window)
        return all(window[key] == Series() for key in keys(path))

    wait_until(is_absent, "no values of the server")


def disk_threads() -> int:
    return threads_named("smn-disk")


def test_a_short_run_has_the_space_of_a_server_that_answers(
    make_sampler, hanging_mount: HangingMount
):
    sampler = make_sampler(sources="memory,disk_space", disk_paths=["/", str(hanging_mount.path)])
    with sampler:
        pass
    (window,) = sampler.windows(timeout=0)
    check_others(window)
    assert [window[key].mean for key in keys(hanging_mount.path)] == pytest.approx(EXPECTED)
    assert sampler.stats()["sources"]["disk_space"]["errors"] == 0


@pytest.mark.parametrize("from_the_start", [True, False])
def test_a_server_that_hangs_is_absent_and_holds_up_nothing(
    make_sampler, hanging_mount: HangingMount, from_the_start
):
    path = hanging_mount.path
    if from_the_start:
        hanging_mount.hang()
    sampler = make_sampler(
        interval=0.005,
        samples_per_window=4,
        sources="memory,disk_space",
        disk_paths=["/", str(path)],
    )
    sampler.start()
    if not from_the_start:
        wait_for_values(sampler, path)
        hanging_mount.hang()
    wait_for_no_values(sampler, path)
    for _ in range(50):
        window = next_window(sampler)
        check_others(window)
        assert all(window[key] == Series() for key in keys(path))
    assert sampler.stats()["sources"]["disk_space"]["errors"] >= 50
    hanging_mount.answer()
    wait_for_values(sampler, path)
    hanging_mount.hang()
    wait_for_no_values(sampler, path)
    assert sampler.stop() is True
    assert disk_threads() >= 1, "it still waits, and nobody for it"
    hanging_mount.answer()


@pytest.mark.native
def test_a_link_to_the_server_is_as_good_as_the_server(hanging_mount: HangingMount, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(hanging_mount.path)
    hanging_mount.hang()
    options = {"sources": "memory,disk_space", "disk_paths": ["/", str(link)]}
    with Sampler(0.005, 4, backend="native", **options) as sampler:  # type: ignore[arg-type]
        wait_for_no_values(sampler, link)
        hanging_mount.answer()
        wait_for_values(sampler, link)


@pytest.mark.native
def test_what_is_mounted_while_sampling_goes_on(hanging_mount: HangingMount, tmp_path):
    """A path that was local when sampling began, and then is the server's."""
    path = tmp_path / "local"
    path.mkdir()
    options = {"sources": "memory,disk_space", "disk_paths": ["/", str(path)]}
    with Sampler(0.005, 4, backend="native", **options) as sampler:  # type: ignore[arg-type]
        assert next_window(sampler)[keys(path)[1]].last not in (None, USED_MEGABYTES)
        subprocess.run(["mount", "--bind", hanging_mount.path, path], check=True)
        try:
            wait_for_values(sampler, path)
            assert disk_threads() > 0
            hanging_mount.hang()
            wait_for_no_values(sampler, path)
            for _ in range(20):
                check_others(next_window(sampler))
        finally:
            hanging_mount.answer()
            subprocess.run(["umount", "-l", path], check=True)


PROGRAM = """
    import sys
    from sysmetrics_native import Sampler

    paths = ["/", sys.argv[2]]
    sampler = Sampler(0.005, backend=sys.argv[1], sources="memory,disk_space", disk_paths=paths)
    sampler.start()
    window = sampler.next_window()
    print(window["system_memory_usage_megabytes"].last is not None, len(window))
    if sys.argv[3] == "stops":
        print(sampler.stop())
"""


@pytest.mark.parametrize("end", ["stops", "does not stop"])
def test_a_program_ends_while_the_server_hangs(backend, hanging_mount: HangingMount, end):
    hanging_mount.hang()
    done = run_python(PROGRAM, backend, str(hanging_mount.path), end)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.split()[:2] == ["True", "8"]
    assert done.stdout.split()[2:] == (["True"] if end == "stops" else [])


@pytest.mark.native
def test_children_that_are_forked_meanwhile_end(hanging_mount: HangingMount):
    options = {"sources": "memory,disk_space", "disk_paths": ["/", str(hanging_mount.path)]}
    hanging_mount.hang()
    with Sampler(0.005, backend="native", **options) as sampler:  # type: ignore[arg-type]
        wait_for_no_values(sampler, hanging_mount.path)
        pid = os.fork()
        if pid == 0:
            has_ended = sampler.stop()
            os._exit(0 if has_ended and sampler.next_window(timeout=0.1) is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        hanging_mount.answer()
        wait_for_values(sampler, hanging_mount.path)

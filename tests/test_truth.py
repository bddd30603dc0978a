"""Values compared with psutil's and the kernel's own, over the same window, under real load."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from sysmetrics_native import Sampler, Window
from tests.support import PATIENCE_SECONDS, busy_processes, retry, wait_until

CPU = "cpu_utilization_percentage"
RECEIVED = "network_receive_megabytes"
SENT = "network_transmit_megabytes"

pytestmark = [
    pytest.mark.usefixtures("alone"),
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="compares with files of the Linux kernel"
    ),
]


def only_window(sampler: Sampler) -> Window:
    (window,) = sampler.windows(timeout=0)
    return window


# ---- CPU ----------------------------------------------------------------------------------------


class CpuReading(NamedTuple):
    wall: float
    busy: float
    total: float


def read_cpu() -> CpuReading:
    """What psutil's own `cpu_percent` is made from."""
    wall = time.time()
    times = psutil.cpu_times()
    total = sum(times) - times.guest - times.guest_nice
    return CpuReading(wall, total - times.idle - times.iowait, total)


def percentage(before: CpuReading, after: CpuReading) -> float:
    return 100.0 * (after.busy - before.busy) / (after.total - before.total)


@pytest.mark.parametrize("busy", [0, 1, os.cpu_count() or 1])
def test_cpu_of_one_window(make_sampler, busy):
    """The window is from start to stop, so psutil can be asked at both its ends."""

    def check() -> None:
        with make_sampler(interval=0.02, samples_per_window=1_000_000) as sampler:
            before = read_cpu()
            time.sleep(1.2)
            after = read_cpu()
        mean = only_window(sampler)[CPU].mean
        assert mean is not None
        assert abs(mean - percentage(before, after)) < 1.5
        least = 100.0 * min(1.0, busy / (os.cpu_count() or 1))
        assert mean >= 0.8 * least  # a machine with nothing to do reads 0.0

    with busy_processes(busy):
        retry(4, check)


def test_cpu_of_each_window_in_a_row(make_sampler):
    """Load that comes and goes: every window must have its own value, not its neighbour's."""

    def check() -> None:
        readings = [read_cpu()]
        windows: list[Window] = []
        load = contextlib.ExitStack()
        with load, make_sampler(interval=0.05, samples_per_window=10) as sampler:
            while len(windows) < 6:
                time.sleep(0.003)
                readings.append(read_cpu())
                window = sampler.next_window(timeout=0)
                if window is not None:
                    windows.append(window)
                    if len(windows) % 2:
                        load.enter_context(busy_processes(1))
                    else:
                        load.close()
        for window in windows:
            before = min(readings, key=lambda reading: abs(reading.wall - window.start))
            after = min(readings, key=lambda reading: abs(reading.wall - window.end))
            mean = window[CPU].mean
            assert mean is not None
            # psutil was asked at most some ms from the window's ends: that, and the kernel's steps
            # of 10 ms, is more in half a second than in a window of usual length.
            assert abs(mean - percentage(before, after)) < 3.0

    retry(6, check)


def test_the_first_value_is_right(make_sampler):
    """MLflow's own monitor compares two readings that are microseconds apart there."""

    def check() -> None:
        sampler = make_sampler(interval=0.5)
        before = read_cpu()
        with sampler:
            window = sampler.next_window(timeout=PATIENCE_SECONDS)
            after = read_cpu()
        assert window is not None
        assert window[CPU].mean is not None
        assert abs(window[CPU].mean - percentage(before, after)) < 3.0

    with busy_processes(1):
        retry(5, check)


def test_cpu_stays_within_its_bounds_at_a_thousand_hertz(make_sampler):
    with busy_processes(1), make_sampler(interval=0.001, samples_per_window=300) as sampler:
        windows = [sampler.next_window(timeout=PATIENCE_SECONDS) for _ in range(3)]
    for window in windows:
        assert window is not None
        series = window[CPU]
        present = [value for value in series if value is not None]
        assert len(present) == 7
        assert all(0.0 <= value <= 100.0 for value in present)


# ---- memory and disk ----------------------------------------------------------------------------


def test_memory(make_sampler):
    def check() -> None:
        sampler = make_sampler()
        first = psutil.virtual_memory()
        with sampler:
            pass
        second = psutil.virtual_memory()
        window = only_window(sampler)
        used = (first.total - (first.available + second.available) / 2) / 1e6
        share = used * 1e6 / first.total * 100.0
        assert window["system_memory_usage_megabytes"].mean == pytest.approx(used, rel=0.005)
        assert window["system_memory_usage_percentage"].mean == pytest.approx(share, rel=0.005)

    retry(5, check)


def test_memory_that_is_taken_shows(make_sampler):
    taken = []  # kept until the end: what is given back may count as used for a while

    def used_megabytes() -> float:
        sampler = make_sampler(sources="memory")
        with sampler:
            pass
        used = only_window(sampler)["system_memory_usage_megabytes"].last
        assert used is not None
        return used

    def check() -> None:
        before = used_megabytes()
        taken.append(b"x" * 200_000_000)
        assert used_megabytes() - before == pytest.approx(200, rel=0.25)

    retry(5, check)


def test_disk_space(make_sampler, short_path):
    suffix = "_" + str(short_path).strip("/").replace("/", "_")

    def check() -> None:
        sampler = make_sampler(sources="disk_space", disk_paths=["/", str(short_path)])
        spaces = {"": psutil.disk_usage("/"), suffix: psutil.disk_usage(str(short_path))}
        with sampler:
            pass
        window = only_window(sampler)
        for behind, space in spaces.items():
            share = space.used / (space.used + space.free) * 100.0
            assert window[f"disk_usage_percentage{behind}"].mean == pytest.approx(share, abs=0.1)
            used = window[f"disk_usage_megabytes{behind}"].mean
            assert used == pytest.approx(space.used / 1e6, rel=0.001)
            available = window[f"disk_available_megabytes{behind}"].mean
            assert available == pytest.approx(space.free / 1e6, rel=0.001)

    retry(5, check)


def test_a_file_that_is_written_shows(make_sampler, tmp_path):
    path = str(tmp_path)

    def used_megabytes() -> float:
        sampler = make_sampler(sources="disk_space", disk_paths=path)
        with sampler:
            pass
        used = only_window(sampler)["disk_usage_megabytes"].last
        assert used is not None
        return used

    def check() -> None:
        before = used_megabytes()
        with (tmp_path / "file").open("wb") as file:
            file.write(os.urandom(1 << 20) * 64)
            file.flush()
            os.fsync(file.fileno())
        grown = used_megabytes() - before
        (tmp_path / "file").unlink()
        assert grown == pytest.approx((64 << 20) / 1e6, rel=0.25)

    retry(5, check)


# ---- network ------------------------------------------------------------------------------------


def kernel_totals() -> tuple[float, float]:
    """Megabytes that all interfaces have received and sent."""
    received = sent = 0
    for line in Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()[2:]:
        fields = line.rsplit(":", 1)[1].split()
        received += int(fields[0])
        sent += int(fields[8])
    return received / 1e6, sent / 1e6


def move_over_loopback(megabytes: int) -> None:
    chunk = bytes(1_000_000)
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        connection, _ = server.accept()
        with client, connection:

            def send() -> None:
                for _ in range(megabytes):
                    client.sendall(chunk)
                client.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            arrived = 0
            while data := connection.recv(1 << 20):
                arrived += len(data)
            sender.join()
    assert arrived == megabytes * 1_000_000


def test_network_counts_the_bytes_that_moved(make_sampler):
    moved = 50
    sampler = make_sampler(interval=0.02, samples_per_window=1_000_000)
    outer_before = kernel_totals()
    sampler.start()
    inner_before = kernel_totals()
    move_over_loopback(moved)
    inner_after = kernel_totals()
    sampler.stop()
    outer_after = kernel_totals()
    window = only_window(sampler)
    for direction, key in enumerate((RECEIVED, SENT)):
        total = window[key].last
        assert total is not None
        # Counters only grow, so what the kernel says shortly within and shortly around the window
        # are bounds: no tolerance is needed.
        slack = 1e-6
        assert inner_after[direction] - inner_before[direction] <= total + slack
        assert total <= outer_after[direction] - outer_before[direction] + slack
        assert total >= moved


def test_network_adds_little_to_what_moved(make_sampler):
    """Headers are some 0.1 % of it on the loopback interface; others may be talking, too."""

    def check() -> None:
        with make_sampler(interval=3600) as sampler:
            move_over_loopback(50)
        window = only_window(sampler)
        for key in (RECEIVED, SENT):
            assert window[key].last == pytest.approx(51, abs=1.5)

    retry(8, check)


def test_network_totals_never_fall(make_sampler):
    sampler = make_sampler(interval=0.005, samples_per_window=4)
    with sampler:
        for _ in range(5):
            move_over_loopback(2)
            ticks = sampler.stats()["ticks"]
            wait_until(lambda: sampler.stats()["ticks"] > ticks + 8, "two windows")  # noqa: B023
    windows = list(sampler.windows(timeout=0))
    for key in (RECEIVED, SENT):
        previous = 0.0
        for window in windows:
            series = window[key]
            assert series.last is not None
            assert series.min is not None
            assert previous <= series.min <= series.last == series.max
            previous = series.last
        assert previous >= 10


def test_totals_start_from_zero_with_each_sampler(make_sampler):
    def check() -> None:
        move_over_loopback(1)
        sampler = make_sampler()
        with sampler:
            pass
        total = only_window(sampler)[RECEIVED].last
        assert total is not None
        assert 0 <= total < 1

    retry(5, check)

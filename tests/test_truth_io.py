"""Disk and network traffic compared with the kernel's own files, over the same window."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from sysmetrics_native import Sampler, Series, Window
from tests.bursts import loopback_bursts
from tests.support import PATIENCE_SECONDS, retry, wait_until
from tests.test_truth import move_over_loopback

pytestmark = [
    pytest.mark.native,
    pytest.mark.usefixtures("alone"),
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="compares with files of the Linux kernel"
    ),
]

DISK_KEYS = [
    "disk_read_megabytes_per_second",
    "disk_write_megabytes_per_second",
    "disk_read_operations_per_second",
    "disk_write_operations_per_second",
    "disk_busy_percentage",
]
NETWORK_KEYS = [
    "network_receive_megabytes_per_second",
    "network_transmit_megabytes_per_second",
    "network_errors_per_second",
    "network_drops_per_second",
]
ON_TOP = ("loop", "ram", "zram", "dm-", "md", "drbd", "bcache", "zd")
"""What the kernel makes of other devices or of memory."""


def cards() -> list[str]:
    """Network interfaces that are hardware."""
    return [path.parent.name for path in Path("/sys/class/net").glob("*/device")]


def is_disk(name: str) -> bool:
    return (
        Path("/sys/block", name.replace("/", "!")).exists()
        and not name.startswith(ON_TOP)
        and not (name.startswith("nvme") and "c" in name)
    )


class Disks(NamedTuple):
    """What all disks have done since they are there: megabytes and operations."""

    read: float
    written: float
    reads: float
    writes: float


def read_disks() -> Disks:
    sums = [0.0, 0.0, 0.0, 0.0]
    for line in Path("/proc/diskstats").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if is_disk(fields[2]):
            sums[0] += int(fields[5]) * 512 / 1e6
            sums[1] += int(fields[9]) * 512 / 1e6
            sums[2] += int(fields[3])
            sums[3] += int(fields[7])
    return Disks(*sums)


def read_cards() -> tuple[float, float]:
    """Megabytes that all cards have received and sent."""
    received = sent = 0.0
    for name in cards():
        statistics = Path("/sys/class/net", name, "statistics")
        received += int((statistics / "rx_bytes").read_text()) / 1e6
        sent += int((statistics / "tx_bytes").read_text()) / 1e6
    return received, sent


def only_window(sampler: Sampler) -> Window:
    (window,) = sampler.windows(timeout=0)
    return window


def mean(window: Window, key: str) -> float:
    value = window[key].mean
    assert value is not None
    return value


def write_to_disk(folder: Path, megabytes: int) -> None:
    path = folder / "file"
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1_000_000))
            file.flush()
            os.fsync(file.fileno())
    path.unlink()


@pytest.fixture
def has_disks() -> None:
    if not Path("/proc/diskstats").exists() or read_disks().reads == 0:
        pytest.skip("no disk shows here")


@pytest.mark.usefixtures("has_disks")
def test_disk_traffic_is_what_the_kernel_counts(tmp_path):
    sampler = Sampler(0.05, 1_000_000, backend="native", sources="disk_io")
    outer_before = read_disks()
    sampler.start()
    inner_before = read_disks()
    write_to_disk(tmp_path, 20)
    inner_after = read_disks()
    sampler.stop()
    outer_after = read_disks()
    window = only_window(sampler)
    assert list(window) == DISK_KEYS
    length = window.end - window.start
    for index, key in enumerate(DISK_KEYS[:4]):
        moved = mean(window, key) * length
        # Counters only grow, so what the kernel says within and around the window are bounds; what
        # is left is the rounding of the window's ends, whose clock has microseconds as a float.
        slack = 1e-5 * (1.0 + moved)
        assert inner_after[index] - inner_before[index] <= moved + slack
        assert moved <= outer_after[index] - outer_before[index] + slack
    assert 0.0 <= mean(window, DISK_KEYS[4]) <= 100.0
    assert sampler.stats()["sources"]["disk_io"]["errors"] == 0


@pytest.mark.usefixtures("has_disks")
def test_what_is_written_and_synced_shows(tmp_path):
    device = tmp_path.stat().st_dev
    if not Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").exists():
        pytest.skip("the temporary folder is on no disk")

    def check() -> None:
        with Sampler(0.05, 1_000_000, backend="native", sources="disk_io") as sampler:
            write_to_disk(tmp_path, 20)
        window = only_window(sampler)
        length = window.end - window.start
        # Journals write more, and so may others; what the most is, the test above knows.
        assert mean(window, DISK_KEYS[1]) * length >= 20.0
        assert mean(window, DISK_KEYS[3]) * length >= 20
        busy = window[DISK_KEYS[4]]
        assert busy.max is not None
        assert 0.0 < busy.max <= 100.0

    retry(5, check)


@pytest.mark.skipif(not cards(), reason="this machine has no network card")
def test_network_traffic_is_what_the_kernel_counts():
    sampler = Sampler(0.05, 1_000_000, backend="native", sources="network_rate")
    outer_before = read_cards()
    sampler.start()
    inner_before = read_cards()
    time.sleep(0.5)
    inner_after = read_cards()
    sampler.stop()
    outer_after = read_cards()
    window = only_window(sampler)
    assert list(window) == NETWORK_KEYS
    length = window.end - window.start
    for direction in range(2):
        moved = mean(window, NETWORK_KEYS[direction]) * length
        slack = 1e-5 * (1.0 + moved)
        assert inner_after[direction] - inner_before[direction] <= moved + slack
        assert moved <= outer_after[direction] - outer_before[direction] + slack
    assert sampler.stats()["sources"]["network_rate"]["errors"] == 0


@pytest.mark.skipif(not cards(), reason="this machine has no network card")
def test_loopback_traffic_does_not_show():
    moved = 100

    def check() -> None:
        with Sampler(0.05, 1_000_000, backend="native", sources="network,network_rate") as sampler:
            move_over_loopback(moved)
        window = only_window(sampler)
        total = window["network_receive_megabytes"].last
        assert total is not None
        assert total >= moved
        for key in NETWORK_KEYS[:2]:
            assert mean(window, key) * (window.end - window.start) < moved / 2

    retry(5, check)


def test_a_burst_shows_in_the_maximum_and_not_in_the_mean():
    """30 ms of each second: 3 % of the time, which p95 does not see, p99 and the maximum do.

    Where a busy machine leaves out the samples of the 30 ms, only the next one sees them.
    """
    options = {"sources": "network_rate", "network_interfaces": "lo"}

    def shows(series: Series) -> bool:
        assert None not in series
        assert series.mean is not None
        assert series.max is not None
        assert series.p95 is not None
        assert series.p99 is not None
        is_in_maximum = series.max >= 10 * series.mean > 0.0
        return is_in_maximum and series.p95 < series.mean < series.p99

    with (
        loopback_bursts(),
        Sampler(0.001, 1000, backend="native", **options) as sampler,  # type: ignore[arg-type]
    ):

        def all_show() -> bool:
            window = sampler.next_window(timeout=PATIENCE_SECONDS)
            assert window is not None
            return all(shows(window[key]) for key in NETWORK_KEYS[:2])

        for _ in range(2):
            wait_until(all_show, "a window with such a burst")


@pytest.mark.skipif(
    Path("/sys/class/infiniband").exists(), reason="this machine may have such ports"
)
def test_where_there_is_no_rdma_port_nothing_is_said_of_it():
    sampler = Sampler(backend="native", sources="cpu,rdma")
    assert list(sampler.stats()["sources"]) == ["cpu"]
    assert not any(series.key.startswith("rdma_") for series in sampler.schema)

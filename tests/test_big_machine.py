"""All sources at once: on a big machine, whose counters advance by known amounts; on a bare one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sysmetrics_native import Sampler, Window
from tests.big_machine import (
    ADAPTERS,
    BUSIEST_CPU,
    BUSIEST_DISK,
    CARDS,
    CONTAINERS,
    CPUS,
    DISKS,
    MAJOR_FAULTS,
    MUCH,
    PACKAGE_JOULES,
    STALLS,
    SWITCHES,
    BigMachine,
    adapter_counts,
    card_counts,
    cpu_ticks,
    disk_counts,
)
from tests.procfs_tree import ProcfsTree, errors, only_window
from tests.support import DEFAULT_KEYS, wait_until

pytestmark = pytest.mark.native

SOURCES = [
    *("cpu", "memory", "disk_space", "network", "cpu_detail", "memory_detail"),
    *("disk_io", "network_rate", "rdma", "pressure", "energy"),
]


# ---- what a step of the big machine is ----------------------------------------------------------


def added(of_one: Callable[[int], Mapping[str, int]], count: int, *keys: str) -> int:
    """What a step adds to these counters of all of them."""
    return sum(of_one(index).get(key, 0) for index in range(count) for key in keys)


def cpu_share(*clocks: str) -> float:
    return 100.0 * added(cpu_ticks, CPUS, *clocks) / (100 * CPUS)


BUSY = ("user", "nice", "system", "irq", "softirq", "steal")

SHARES = {
    "cpu_utilization_percentage": cpu_share(*BUSY),
    "cpu_user_percentage": cpu_share("user", "nice"),
    "cpu_system_percentage": cpu_share("system"),
    "cpu_iowait_percentage": cpu_share("iowait"),
    "cpu_steal_percentage": cpu_share("steal"),
    "cpu_core_max_percentage": float(sum(cpu_ticks(BUSIEST_CPU)[clock] for clock in BUSY)),
}

AMOUNTS = {
    "context_switches_per_second": SWITCHES,
    "major_page_faults_per_second": MAJOR_FAULTS,
    "disk_read_megabytes_per_second": added(disk_counts, DISKS, "read_sectors") * 512e-6,
    "disk_write_megabytes_per_second": added(disk_counts, DISKS, "written_sectors") * 512e-6,
    "disk_read_operations_per_second": added(disk_counts, DISKS, "reads"),
    "disk_write_operations_per_second": added(disk_counts, DISKS, "writes"),
    "network_receive_megabytes_per_second": added(card_counts, CARDS, "received") * 1e-6,
    "network_transmit_megabytes_per_second": added(card_counts, CARDS, "sent") * 1e-6,
    "network_errors_per_second": added(card_counts, CARDS, "errors"),
    "network_drops_per_second": added(card_counts, CARDS, "drops"),
    "rdma_receive_megabytes_per_second": added(adapter_counts, ADAPTERS, "port_rcv_data") * 4e-6,
    "rdma_transmit_megabytes_per_second": added(adapter_counts, ADAPTERS, "port_xmit_data") * 4e-6,
    "rdma_errors_per_second": added(
        adapter_counts, ADAPTERS, "port_rcv_errors", "port_xmit_discards"
    ),
    "pressure_cpu_some_percentage": STALLS["cpu"][0] * 1e-4,
    "pressure_memory_some_percentage": STALLS["memory"][0] * 1e-4,
    "pressure_memory_full_percentage": STALLS["memory"][1] * 1e-4,
    "pressure_io_some_percentage": STALLS["io"][0] * 1e-4,
    "pressure_io_full_percentage": STALLS["io"][1] * 1e-4,
    "cpu_package_0_power_watts": PACKAGE_JOULES[0],
    "cpu_package_1_power_watts": PACKAGE_JOULES[1],
}
"""Of each rate: what a step adds, in its unit without the second."""

NOT_CARDS = 10 + CONTAINERS

TOTALS = {
    "network_receive_megabytes": (added(card_counts, CARDS, "received") + NOT_CARDS * MUCH) * 1e-6,
    "network_transmit_megabytes": (added(card_counts, CARDS, "sent") + NOT_CARDS * MUCH) * 1e-6,
    "cpu_package_0_energy_joules": PACKAGE_JOULES[0],
    "cpu_package_1_energy_joules": PACKAGE_JOULES[1],
}

GAUGES = {
    "system_memory_usage_megabytes": (2_113_929_216 - 1_585_446_912) * 1024e-6,
    "system_memory_usage_percentage": 25.0,
    "load_average_1m": 200.25,
    "swap_usage_megabytes": (8_388_604 - 8_123_904) * 1024e-6,
    "memory_dirty_megabytes": 108 * 1024e-6,
}

SELDOM = {"cpu_frequency_megahertz": 2000.0 + (CPUS - 1) / 2, "cpu_temperature_celsius": 83.0}
"""These are read once a second, so not in every window."""

LIVE = {*DEFAULT_KEYS["disk_space"], "disk_busy_percentage"}
"""Of the file system that the test runs on, and what is measured against a clock."""


@pytest.fixture
def machine(tmp_path: Path) -> BigMachine:
    return BigMachine(tmp_path)


def sampler_on(machine: BigMachine, interval: float, **options: Any) -> Sampler:
    return machine.procfs.sampler(
        interval=interval, sources=SOURCES, sysfs_path=machine.sysfs, **options
    )


def of_step(machine: BigMachine, **options: Any) -> tuple[Window, Sampler]:
    """A window of two readings, with one step between them."""
    sampler = sampler_on(machine, 3600, **options)
    sampler.start()
    machine.advance()
    time.sleep(0.5)  # no window of a moment has a power
    sampler.stop()
    return only_window(sampler), sampler


def check_rates(window: Window, amounts: Mapping[str, float]) -> None:
    """All are amounts over one and the same time, which is that of the window."""
    length = window.end - window.start
    times = {}
    for key, amount in amounts.items():
        rate = window[key].mean
        assert rate is not None, key
        assert rate > 0.0, key
        times[key] = amount / rate
    assert times == pytest.approx(dict.fromkeys(times, length), rel=1e-5)
    first = next(iter(times.values()))
    assert times == pytest.approx(dict.fromkeys(times, first), rel=1e-9)


def test_every_source_of_a_big_machine_is_exact(machine: BigMachine):
    window, sampler = of_step(machine)
    assert set(window) == {*SHARES, *AMOUNTS, *TOTALS, *GAUGES, *SELDOM, *LIVE}
    assert list(sampler.stats()["sources"]) == SOURCES
    assert errors(sampler) == {}
    check_rates(window, AMOUNTS)
    means = {key: window[key].mean for key in (*SHARES, *GAUGES)}
    assert means == pytest.approx({**SHARES, **GAUGES}, rel=1e-12)
    totals = {key: window[key].last for key in TOTALS}
    assert totals == pytest.approx(TOTALS, rel=1e-12)
    busy = window["disk_busy_percentage"].mean
    expected = disk_counts(BUSIEST_DISK)["busy_ms"] / (window.end - window.start) / 10.0
    assert busy == pytest.approx(expected, rel=0.25), "measured at its own moment of the reading"


def test_what_is_read_once_a_second_comes(machine: BigMachine):
    with sampler_on(machine, 0.05, samples_per_window=1) as sampler:
        for key, expected in SELDOM.items():

            def is_there(key: str = key) -> float | None:
                window = sampler.next_window()
                assert window is not None
                return window[key].mean

            assert wait_until(is_there, key) == pytest.approx(expected, rel=1e-12)
        assert errors(sampler) == {}


@pytest.mark.parametrize("cards", [[3], [0, 11]])
def test_chosen_cards_of_a_big_machine(machine: BigMachine, cards: list[int]):
    window, _ = of_step(machine, network_interfaces=[f"ens{card}" for card in cards])
    received = sum(card_counts(card)["received"] for card in cards)
    sent = sum(card_counts(card)["sent"] for card in cards)
    chosen = {
        "network_receive_megabytes_per_second": received * 1e-6,
        "network_transmit_megabytes_per_second": sent * 1e-6,
    }
    check_rates(window, {**AMOUNTS, **chosen, **chosen_losses(cards)})
    assert window["network_receive_megabytes"].last == pytest.approx(
        TOTALS["network_receive_megabytes"], rel=1e-12
    ), "the totals have all interfaces, whatever is chosen"


def chosen_losses(cards: list[int]) -> dict[str, float]:
    return {
        f"network_{what}_per_second": sum(card_counts(card)[what] for card in cards)
        for what in ("errors", "drops")
    }


# ---- a bare machine -----------------------------------------------------------------------------


def test_a_bare_machine_has_no_key_of_what_it_lacks(tree: ProcfsTree, tmp_path):
    """A kernel with the files that every kernel has, and a /sys with nothing in it."""
    empty = tmp_path / "sys"
    empty.mkdir()
    sampler = tree.sampler(interval=3600, sources="all", gpus="none", sysfs_path=empty)
    sampler.start()
    tree.write_stat([50, 0, 0, 50])
    tree.write_net_dev({"lo": (1_000_000, 2_000_000)})
    sampler.stop()
    window = only_window(sampler)
    assert list(window) == [key for keys in DEFAULT_KEYS.values() for key in keys]
    assert list(sampler.stats()["sources"]) == list(DEFAULT_KEYS)
    assert errors(sampler) == {}
    assert window["cpu_utilization_percentage"].mean == 50.0
    assert window["network_receive_megabytes"].last == 1.0


def test_a_machine_with_a_card_and_no_sysfs_has_its_rates(tree: ProcfsTree, tmp_path):
    """One thing more is there, and nothing else with it."""
    empty = tmp_path / "sys"
    empty.mkdir()
    tree.write_net_dev({"lo": (0, 0), "eth0": (0, 0)})
    sampler = tree.sampler(interval=3600, sources="all", gpus="none", sysfs_path=empty)
    with sampler:
        tree.write_net_dev({"lo": (MUCH, MUCH), "eth0": (1_000_000, 3_000_000)})
    window = only_window(sampler)
    assert list(sampler.stats()["sources"]) == [*DEFAULT_KEYS, "network_rate"]
    received = window["network_receive_megabytes_per_second"].mean
    sent = window["network_transmit_megabytes_per_second"].mean
    assert received is not None
    moved = received * (window.end - window.start)
    assert moved == pytest.approx(1.0, rel=0.05), "without what went over loopback"
    assert sent == pytest.approx(3.0 * received, rel=1e-9)
    assert errors(sampler) == {}

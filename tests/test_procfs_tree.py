"""What the C core makes of kernel files: exact values, and none where there is none."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from sysmetrics_native import Sampler, Series
from tests.procfs_tree import (
    NET_DEV_HEADINGS,
    ProcfsTree,
    errors,
    one_window,
    only_window,
    wait_for_reading,
    windows_of,
)
from tests.support import DEFAULT_KEYS, PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.native

CPU = "cpu_utilization_percentage"
MEMORY = "system_memory_usage_megabytes"
SHARE = "system_memory_usage_percentage"
RECEIVED = "network_receive_megabytes"
SENT = "network_transmit_megabytes"

FILE_OF = {"cpu": "stat", "memory": "meminfo", "network": "net/dev"}


# ---- CPU ----------------------------------------------------------------------------------------

FIELDS = [
    *("user", "nice", "system", "idle", "iowait"),
    *("irq", "softirq", "steal", "guest", "guest_nice"),
]
USER, IDLE, IOWAIT = (FIELDS.index(name) for name in ("user", "idle", "iowait"))


def fields(**values: int) -> list[int]:
    return [values.get(name, 0) for name in FIELDS]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (fields(), fields(user=25, idle=75), 25.0),
        (fields(user=1000, idle=5000), fields(user=1030, idle=5070), 30.0),
        (fields(), fields(nice=20, idle=80), 20.0),
        (fields(), fields(system=20, idle=80), 20.0),
        (fields(), fields(irq=20, idle=80), 20.0),
        (fields(), fields(softirq=20, idle=80), 20.0),
        (fields(), fields(steal=20, idle=80), 20.0),
        (fields(), fields(iowait=20, idle=80), 0.0),
        (fields(), fields(user=10, iowait=30, idle=60), 10.0),
        # A guest's time is in user and nice already.
        (fields(), fields(user=40, guest=40, idle=60), 40.0),
        (fields(), fields(nice=40, guest_nice=40, idle=60), 40.0),
        (fields(user=7, guest=7), fields(user=17, guest=17, idle=30), 25.0),
        (fields(), fields(user=100), 100.0),
        (fields(), fields(idle=100), 0.0),
        # idle and iowait step back now and then: that is no time at all, and nothing negative.
        (fields(idle=1000), fields(idle=990, user=50), 100.0),
        (fields(iowait=1000), fields(iowait=900, user=30, idle=70), 30.0),
        # A thousand CPUs that have been up for years.
        (fields(user=10**13, idle=10**14), fields(user=10**13 + 25, idle=10**14 + 75), 25.0),
        # Kernels of old have fewer fields.
        ([0, 0, 0, 0], [15, 5, 0, 80], 20.0),
        ([0, 0, 0, 0, 0, 0, 0], [10, 0, 10, 60, 20, 0, 0], 20.0),
        ([0] * 8, [10, 0, 0, 60, 20, 0, 0, 10], 20.0),
        # Kernels to come may have more.
        ([0] * 12, [*fields(user=20, idle=80), 1000, 1000], 20.0),
    ],
)
def test_cpu_utilization_is_exact(tree, before, after, expected):
    tree.write_stat(before)
    window, sampler = one_window(tree, lambda: tree.write_stat(after))
    assert window[CPU].mean == pytest.approx(expected, abs=1e-9)
    assert window[CPU].min == window[CPU].max == window[CPU].last == window[CPU].mean
    assert not errors(sampler)


def test_a_cpu_reset_is_no_time_at_all(tree):
    tree.write_stat(fields(user=5000, system=100, idle=9000))
    window, _ = one_window(tree, lambda: tree.write_stat(fields(user=10, idle=20)))
    assert window[CPU] == Series()


def test_cpu_follows_what_is_written_between_ticks(tree):
    """Each change is one window's value, exactly; windows without any have none: not 0, not 100."""
    chance = random.Random(2)
    expected = []
    now = fields(user=123_456, idle=654_321)
    tree.write_stat(now)
    sampler = tree.sampler(interval=0.005, sources="cpu")
    taken = []
    with sampler:
        for _ in range(25):
            gained = [chance.randrange(50) for _ in range(8)] + [0, 0]
            gained[USER] += 10
            now = [value + more for value, more in zip(now, gained, strict=True)]
            total = sum(gained)
            expected.append(100.0 * (total - gained[IDLE] - gained[IOWAIT]) / total)
            tree.write_stat(now)
            wait_for_reading(sampler, "cpu")
            taken += list(sampler.windows(timeout=0))
    taken += windows_of(sampler)
    assert len(taken) > 25
    means = [window[CPU].mean for window in taken]
    assert [mean for mean in means if mean is not None] == pytest.approx(expected, abs=1e-9)
    for window in taken:
        if window[CPU].mean is None:
            assert window[CPU] == Series()


def test_cpu_spans_are_long_enough_to_mean_something(tree):
    """At 1 kHz a tick sees a CPU 0 % or 100 % busy: extremes come from stretches of 100 ms."""
    now = fields()
    tree.write_stat(now)
    sampler = tree.sampler(interval=0.002, samples_per_window=1_000_000, sources="cpu")
    with sampler:
        for step in range(40):  # one tick of the kernel's clock at a time: busy, then idle
            now[USER if step % 2 else IDLE] += 1
            tree.write_stat(now)
            wait_for_reading(sampler, "cpu")
    series = only_window(sampler)[CPU]
    assert series.mean == pytest.approx(50.0)
    assert series.min == pytest.approx(50.0)
    assert series.max == pytest.approx(50.0)


def test_a_stat_of_4096_cpus_and_20000_interrupts(tree):
    def rest(seed: int) -> str:
        lines = [f"cpu{i} {seed} 0 {i} 1234567 0 0 0 0 0 0\n" for i in range(4096)]
        lines.append("intr 99999" + " 12345" * 20_000 + "\n")
        lines.append("ctxt 1\nbtime 1\nprocesses 1\n")
        return "".join(lines)

    tree.write_stat(fields(), rest(1))
    window, sampler = one_window(
        tree, lambda: tree.write_stat(fields(user=4096 * 70, idle=4096 * 30), rest(2))
    )
    assert window[CPU].mean == pytest.approx(70.0)
    assert not errors(sampler)


# ---- memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kib", "used"),
    [
        ({"MemTotal": 1000, "MemFree": 1, "MemAvailable": 250, "Buffers": 2, "Cached": 3}, 750),
        # Without MemAvailable: what is free, buffers, cache and what the kernel can shrink.
        (
            {"MemTotal": 1000, "MemFree": 100, "Buffers": 20, "Cached": 30, "SReclaimable": 50},
            800,
        ),
        ({"MemTotal": 1000, "MemFree": 100, "Buffers": 20, "Cached": 30}, 850),
        # Swapped pages that are cached are not page cache.
        (
            {"MemTotal": 1000, "MemFree": 100, "Buffers": 20, "SwapCached": 500, "Cached": 30},
            850,
        ),
        # MemAvailable beyond MemTotal is nonsense that some containers write.
        (
            {"MemTotal": 1000, "MemFree": 100, "MemAvailable": 5000, "Buffers": 0, "Cached": 0},
            900,
        ),
        ({"MemTotal": 2**40, "MemFree": 0, "MemAvailable": 2**39}, 2**39),
        ({"MemTotal": 1000, "MemFree": 0, "MemAvailable": 0}, 1000),
    ],
)
def test_memory_formula(tree, kib, used):
    window, sampler = one_window(tree, lambda: tree.write_meminfo(**kib))
    assert window[MEMORY].last == pytest.approx(used * 1024 / 1e6, rel=1e-12)
    assert window[SHARE].last == pytest.approx(used / kib["MemTotal"] * 100, rel=1e-12)
    assert not errors(sampler)


@pytest.mark.parametrize(
    "kib",
    [
        {"MemFree": 100, "MemAvailable": 250},
        {"MemTotal": 0, "MemAvailable": 0},
        {"MemTotal": 1000, "MemFree": 100},
        {"MemTotal": 1000, "MemFree": 900, "Buffers": 500, "Cached": 500},
        {"SwapTotal": 1000},
    ],
)
def test_memory_that_makes_no_sense_is_absent(tree, kib):
    window, sampler = one_window(tree, lambda: tree.write_meminfo(**kib), sources="memory")
    # The first reading, before the change, belongs to no window.
    assert window[MEMORY] == window[SHARE] == Series()
    assert errors(sampler) == {"memory": 1}


# ---- network ------------------------------------------------------------------------------------


def network_window(
    tree: ProcfsTree,
    before: dict[str, tuple[int, int]],
    after: dict[str, tuple[int, int]],
) -> tuple[float | None, float | None]:
    tree.write_net_dev(before)
    window, sampler = one_window(tree, lambda: tree.write_net_dev(after), sources="network")
    assert not errors(sampler)
    return window[RECEIVED].last, window[SENT].last


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            {"lo": (10, 10), "eth0": (500, 100)},
            {"lo": (30, 30), "eth0": (2_000_500, 1_000_100)},
            (2.00002, 1.00002),
        ),
        ({"eth0": (10**18, 7)}, {"eth0": (10**18 + 10**6, 7)}, (1.0, 0.0)),
        # Names hold colons, digits and dots: a name ends at the last colon.
        (
            {"eth0:1": (0, 0), "eth0": (0, 0), "br-a.1:x:": (0, 0)},
            {"eth0:1": (10**6, 0), "eth0": (2 * 10**6, 0), "br-a.1:x:": (4 * 10**6, 0)},
            (7.0, 0.0),
        ),
        # An interface that comes brings its count along, which is not traffic of ours.
        ({"lo": (0, 0)}, {"lo": (10**6, 0), "tun0": (10**12, 10**12)}, (1.0, 0.0)),
        # One that goes takes nothing away.
        ({"lo": (0, 0), "tun0": (10**12, 10**12)}, {"lo": (10**6, 0)}, (1.0, 0.0)),
        # One that is reset, bytes and packets, adds nothing; the others go on.
        (
            {"lo": (10**6, 10**6), "eth0": (10**9, 10**9)},
            {"lo": (3 * 10**6, 2 * 10**6), "eth0": (100, 100)},
            (2.0, 1.0),
        ),
        # The order is the kernel's affair.
        (
            {"a": (0, 0), "b": (10**9, 0), "c": (10**12, 0)},
            {"c": (10**12 + 10**6, 0), "a": (10**6, 0), "b": (10**9 + 10**6, 0)},
            (3.0, 0.0),
        ),
    ],
)
def test_network_totals_are_sums_of_increases(tree, before, after, expected):
    assert network_window(tree, before, after) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("before", "after", "gained"),
    [
        ((2**32 - 1_000_000, 10), (1_000_000, 20), 2.0),  # 32 bits that wrapped
        ((1_000_000, 10), (900_000, 20), 0.0),  # more than half a turn: a reset after all
        ((2**32 - 1_000_000, 10), (1_000_000, 5), 0.0),  # packets fell, too: a reset
        ((2**32 + 5, 10), (5, 20), 0.0),  # never was of 32 bits
        ((5_000_000, 10), (6_000_000, 5), 0.0),  # packets fell: another device, more bytes
    ],
)
def test_a_byte_counter_that_falls(tree, before, after, gained):
    def write(counted: tuple[int, int]) -> None:
        octets, packets = counted
        line = f"eth0: {octets:>12} {packets:>12}" + " 0" * 6 + " 0" * 8 + "\n"
        tree.write("net/dev", NET_DEV_HEADINGS + line)

    write(before)
    window, _ = one_window(tree, lambda: write(after), sources="network")
    assert window[RECEIVED].last == pytest.approx(gained)
    assert window[SENT].last == 0.0


def test_two_thousand_interfaces(tree):
    before = {f"veth{i:x}:{i % 7}": (i * 10**9, i) for i in range(2000)}
    after = {name: (had + 1000, sent + 2000) for name, (had, sent) in before.items()}
    received, sent = network_window(tree, before, after)
    assert received == pytest.approx(2.0)
    assert sent == pytest.approx(4.0)


def test_the_network_of_a_foreign_procfs_is_that_of_its_init(tree):
    """Where the host's /proc is mounted, net/dev would still be the container's own."""
    (tree.root / "self").unlink()
    (tree.root / "1" / "net").mkdir(parents=True)
    tree.write_net_dev({"container": (0, 0)})
    tree.write_net_dev({"host": (0, 0)}, "1/net/dev")

    def change() -> None:
        tree.write_net_dev({"container": (10**6, 0)})
        tree.write_net_dev({"host": (5 * 10**6, 0)}, "1/net/dev")

    window, _ = one_window(tree, change, sources="network")
    assert window[RECEIVED].last == pytest.approx(5.0)


# ---- files that are not as they should be -------------------------------------------------------


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def of(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


BROKEN = {
    "missing": lambda path: path.unlink(),
    "empty": of(b""),
    "newlines": of(b"\n" * 4096),
    "zeros": of(bytes(4096)),
    "bytes": of(random.Random(1).randbytes(1 << 20)),
    "text": of("Lorem ipsum: dolor | sit | amet äöü\n".encode() * 1000),
    "minus": of(b"cpu  -1 -1 -1 -1\nMemTotal: -5 kB\nMemAvailable: -5 kB\neth0: -1 -1\n"),
    "words for numbers": of(b"cpu  a b c d\nMemTotal: x kB\nMemAvailable: y kB\neth0: a b c\n"),
    "numbers beyond 64 bits": of(
        b"cpu  %(n)d %(n)d %(n)d %(n)d\nMemTotal: %(n)d kB\nlo: %(n)d %(n)d\n" % {b"n": 2**64}
    ),
    "numbers without end": of(b"cpu  " + b"9" * 100_000),
    "fractions": of(b"cpu  1.5 2.5 3.5 4.5\nMemTotal: 1.5 kB\nlo: 1.5 2.5\n"),
    "too few": of(b"cpu  1 2 3\nMemTotal:\nMemAvailable:\nlo: 1 2 3\n"),
    "one key cut short": of(b"cp"),
    "another key first": of(b"cpu0 1 2 3 4 5 6 7 8 9 10\nSwapTotal: 5 kB\n"),
    "too big to be true": of(b"x" * ((16 << 20) + 1)),
    "a directory": directory,
    "a FIFO": fifo,
    "a dangling link": dangling_link,
}


def broken_window(
    tree: ProcfsTree, source: str, damage: Callable[[Path], object]
) -> tuple[Series, ...]:
    """The broken source's series, after the others were looked at."""
    damage(tree.root / FILE_OF[source])

    def change() -> None:
        if source != "cpu":
            tree.write_stat([25, 0, 0, 75])
        if source != "memory":
            tree.write_meminfo(MemTotal=1000, MemAvailable=400)
        if source != "network":
            tree.write_net_dev({"lo": (10**6, 2 * 10**6)})

    window, sampler = one_window(tree, change)
    whole = {CPU: 25.0, MEMORY: 0.6144, SHARE: 60.0, RECEIVED: 1.0, SENT: 2.0}
    for key, value in whole.items():
        if key not in DEFAULT_KEYS[source]:
            assert window[key].last == pytest.approx(value), key
    assert window["disk_usage_percentage"].mean is not None
    assert errors(sampler) == {source: 2}, "the first reading and the last"
    return tuple(window[key] for key in DEFAULT_KEYS[source])


@pytest.mark.parametrize("source", FILE_OF)
@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_file_is_absent_and_hides_nothing_else(tree, source, damage):
    series = broken_window(tree, source, BROKEN[damage])
    assert all(one == Series() for one in series), "never a zero, never a spike"


@pytest.mark.parametrize("source", FILE_OF)
def test_a_file_cut_anywhere_is_whole_or_absent(tree, source):
    """No number that was cut in its middle is ever taken for a smaller one."""
    tree.write_stat(fields(user=1234, nice=567, system=89, idle=123456, iowait=7), "intr 1 2 3\n")
    tree.write_meminfo(MemTotal=123456, MemFree=2345, MemAvailable=34567, Buffers=4, Cached=56)
    tree.write_net_dev({"lo": (123456, 123456), "eth0": (98765, 54321)})
    path = tree.root / FILE_OF[source]
    whole = path.read_bytes()
    sampler = tree.sampler(interval=3600, sources=source)
    sampler.start()
    sampler.stop()
    truth = only_window(sampler)
    assert not errors(sampler)
    chance = random.Random(3)
    for length in sorted(chance.sample(range(len(whole)), 60)):
        tree.write(FILE_OF[source], whole[:length])
        sampler = tree.sampler(sources=source)
        sampler.start()
        sampler.stop()
        window = only_window(sampler)
        for key in DEFAULT_KEYS[source]:
            assert window[key] in (Series(), truth[key]), (length, key)


@pytest.mark.parametrize("source", FILE_OF)
def test_a_file_that_comes_late_is_found(tree, source):
    path = tree.root / FILE_OF[source]
    content = path.read_bytes()
    path.unlink()
    sampler = tree.sampler(interval=0.005, sources=source)
    with sampler:
        wait_until(lambda: errors(sampler).get(source, 0) >= 3, "it to be missed")
        assert all(series == Series() for w in sampler.windows(0) for series in w.values())
        # Put there whole, by a rename, as it may be read at any moment.
        (tree.root / "whole").write_bytes(content)
        (tree.root / "whole").rename(path)
        wait_for_reading(sampler, source)
        failed = errors(sampler)[source]
        if source == "cpu":
            tree.write_stat([50, 0, 0, 50])
        wait_for_reading(sampler, source)
        wait_for_reading(sampler, source)
        assert errors(sampler)[source] <= failed + 1
    values = [w[DEFAULT_KEYS[source][0]].last for w in windows_of(sampler)]
    expected = {"cpu": 50.0, "memory": 0.768, "network": 0.0}[source]
    assert [value for value in values if value is not None][-1] == pytest.approx(expected)


def test_a_file_that_comes_and_goes(tree):
    """While it is away there are no values; what was counted meanwhile is not lost, no spike."""
    tree.write_stat([0, 0, 0, 0])
    sampler = tree.sampler(interval=0.005, samples_per_window=4)
    with sampler:
        for step in range(1, 6):
            tree.write("stat", "")
            tree.write("meminfo", "")
            tree.write("net/dev", "")
            before = errors(sampler)
            wait_for_reading(sampler, "network")
            assert all(errors(sampler)[name] > before.get(name, 0) for name in FILE_OF)
            tree.write_stat([step * 20, 0, 0, step * 80])
            tree.write_meminfo(MemTotal=1000, MemAvailable=250)
            tree.write_net_dev({"lo": (step * 10**6, step * 10**6)})
            wait_for_reading(sampler, "network")
    windows = windows_of(sampler)
    whole = {CPU: 20.0, MEMORY: 0.768, SHARE: 75.0}
    for window, (key, value) in itertools.product(windows, whole.items()):
        for statistic in window[key]:
            assert statistic is None or statistic == pytest.approx(value), key
    totals = [window[RECEIVED].last for window in windows]
    seen = [total for total in totals if total is not None]
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(5.0), "counted from where it was before it went"
    assert set(seen) <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}


def test_an_interface_that_comes_back(tree):
    sampler = tree.sampler(interval=0.005, sources="network")
    steps = [
        {"lo": (0, 0), "usb0": (50, 50)},
        {"lo": (10**6, 0), "usb0": (10**6 + 50, 50)},
        {"lo": (2 * 10**6, 0)},  # unplugged
        {"lo": (3 * 10**6, 0), "usb0": (10**9, 10**9)},  # back, with a count of its own
        {"lo": (3 * 10**6, 0), "usb0": (10**9 + 10**6, 10**9)},
    ]
    tree.write_net_dev(steps[0])
    with sampler:
        wait_for_reading(sampler, "network")
        for step in steps[1:]:
            tree.write("net/dev", "")  # so that no reader sees half of a step
            wait_for_reading(sampler, "network")
            tree.write_net_dev(step)
            wait_for_reading(sampler, "network")
    totals = [window[RECEIVED].last for window in windows_of(sampler)]
    seen = [total for total, _ in itertools.groupby(t for t in totals if t is not None)]
    assert seen == pytest.approx([0.0, 2.0, 3.0, 4.0, 5.0])


# ---- roots --------------------------------------------------------------------------------------


def test_the_usual_root_may_be_named():
    with Sampler(interval=0.01, backend="native", procfs_path="/proc", sysfs_path="/sys") as own:
        window = own.next_window(timeout=PATIENCE_SECONDS)
    assert window is not None
    assert window[MEMORY].mean


def test_samplers_with_two_roots_live_side_by_side(tmp_path):
    trees = []
    for name, total in (("one", 1000), ("other", 3000)):
        (tmp_path / name).mkdir()
        tree = ProcfsTree(tmp_path / name)
        tree.write_meminfo(MemTotal=total, MemAvailable=500)
        trees.append(tree)
    first, second = (tree.sampler() for tree in trees)
    with first, second:
        pass
    assert only_window(first)[SHARE].last == pytest.approx(50.0)
    assert only_window(second)[SHARE].last == pytest.approx(100 * 2500 / 3000)


def test_a_root_with_an_odd_name(tmp_path):
    root = tmp_path / "ähm, a 'root'\tof mine"
    root.mkdir()
    window, _ = one_window(ProcfsTree(root), lambda: None)
    assert window[SHARE].last == pytest.approx(75.0)


def test_an_empty_root_has_no_values_and_breaks_nothing(tmp_path):
    sampler = Sampler(backend="native", procfs_path=tmp_path)
    with sampler:
        pass
    window = only_window(sampler)
    for source in FILE_OF:
        assert all(window[key] == Series() for key in DEFAULT_KEYS[source])
    assert window["disk_usage_percentage"].mean is not None

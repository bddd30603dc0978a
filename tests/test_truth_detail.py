"""The sources beyond the default ones, compared with other readings of the same kernel files."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from sysmetrics_native import Sampler, Window
from tests.support import PATIENCE_SECONDS, busy_processes, retry

pytestmark = [
    pytest.mark.native,
    pytest.mark.usefixtures("alone"),
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="compares with files of the Linux kernel"
    ),
]


def read(path: str) -> str:
    return Path(path).read_text(encoding="ascii")


class Ends(NamedTuple):
    """What the kernel said at both ends of a window, just inside of it."""

    window: Window
    before: float
    after: float
    seconds: float

    @property
    def rate(self) -> float:
        return (self.after - self.before) / self.seconds


def around(sampler: Sampler, ask: Callable[[], float], seconds: float = 1.2) -> Ends:
    """One window from start to stop, with a question at both its ends."""
    with sampler:
        start = time.monotonic()
        before = ask()
        time.sleep(seconds)
        after = ask()
        length = time.monotonic() - start
    (window,) = sampler.windows(timeout=0)
    return Ends(window, before, after, length)


def whole_window(source: str, interval: float = 0.1) -> Sampler:
    """A sampler whose only window ends when it is stopped."""
    return Sampler(
        backend="native", sources=source, interval=interval, samples_per_window=1_000_000
    )


def mean_of(window: Window, key: str) -> float:
    mean = window[key].mean
    assert mean is not None
    return mean


# ---- pressure -----------------------------------------------------------------------------------


def stalled_microseconds(resource: str, kind: str) -> float:
    for line in read(f"/proc/pressure/{resource}").splitlines():
        if line.startswith(kind):
            return float(line.rsplit("total=", 1)[1])
    raise AssertionError(f"/proc/pressure/{resource} has no line {kind}")


def has_pressure() -> bool:
    try:
        read("/proc/pressure/cpu")
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_pressure(), reason="this kernel does not account pressure")
def test_pressure():
    """More processes than CPUs: some always wait."""

    def check() -> None:
        sampler = whole_window("pressure")
        ends = around(sampler, lambda: stalled_microseconds("cpu", "some"))
        mean = mean_of(ends.window, "pressure_cpu_some_percentage")
        assert abs(mean - ends.rate / 1e6 * 100.0) < 3.0
        assert mean > 50.0
        for key, series in ends.window.items():
            assert series.mean is not None, key
            assert 0.0 <= series.mean <= 101.0, key

    with busy_processes(2 * (os.cpu_count() or 1)):
        retry(4, check)


# ---- memory_detail ------------------------------------------------------------------------------


def major_faults() -> float:
    for line in read("/proc/vmstat").splitlines():
        if line.startswith("pgmajfault "):
            return float(line.split()[1])
    raise AssertionError("/proc/vmstat has no pgmajfault")


def dirty_megabytes() -> float:
    for line in read("/proc/meminfo").splitlines():
        if line.startswith("Dirty:"):
            return float(line.split()[1]) * 1024 / 1e6
    raise AssertionError("/proc/meminfo has no Dirty")


def test_memory_detail():
    def check() -> None:
        dirty_before = dirty_megabytes()
        ends = around(whole_window("memory_detail"), major_faults)
        dirty_after = dirty_megabytes()
        faults = mean_of(ends.window, "major_page_faults_per_second")
        assert faults == pytest.approx(ends.rate, rel=0.1, abs=2.0)
        swap = mean_of(ends.window, "swap_usage_megabytes")
        # psutil, too, takes SwapTotal and SwapFree from there.
        assert swap == pytest.approx(psutil.swap_memory().used / 1e6, rel=0.02, abs=0.1)
        dirty = ends.window["memory_dirty_megabytes"].last
        low, high = sorted((dirty_before, dirty_after))
        assert dirty is not None
        assert low - 2.0 <= dirty <= high + 2.0

    retry(5, check)


# ---- cpu_detail ---------------------------------------------------------------------------------


class CpuTimes(NamedTuple):
    """Seconds of all CPUs, as psutil has them; `total` without what is counted twice."""

    user: float
    system: float
    iowait: float
    steal: float
    total: float


def cpu_times() -> CpuTimes:
    times = psutil.cpu_times()
    total = sum(times) - times.guest - times.guest_nice
    return CpuTimes(times.user + times.nice, times.system, times.iowait, times.steal, total)


def test_cpu_detail_shares():
    def check() -> None:
        with whole_window("cpu,cpu_detail") as sampler:
            before = cpu_times()
            time.sleep(1.2)
            after = cpu_times()
        (window,) = sampler.windows(timeout=0)
        passed = after.total - before.total
        for name in ("user", "system", "iowait", "steal"):
            gained = getattr(after, name) - getattr(before, name)
            mean = mean_of(window, f"cpu_{name}_percentage")
            assert abs(mean - 100.0 * gained / passed) < 2.0, name
        assert mean_of(window, "cpu_user_percentage") > 60.0 / (os.cpu_count() or 1)
        assert mean_of(window, "cpu_user_percentage") <= 100.0
        # One process that never sleeps keeps one core busy, wherever it is moved to.
        assert mean_of(window, "cpu_core_max_percentage") > 80.0

    with busy_processes(1):
        retry(5, check)


def test_the_busiest_core_at_a_thousand_hertz():
    """Every window of a quarter second has it, and never more than there is."""
    sampler = Sampler(
        backend="native", sources="cpu_detail", interval=0.001, samples_per_window=250
    )
    with busy_processes(1), sampler:
        windows = [sampler.next_window(timeout=PATIENCE_SECONDS) for _ in range(4)]
    for window in windows:
        assert window is not None
        series = window["cpu_core_max_percentage"]
        assert series.min is not None
        assert series.max is not None
        assert 0.0 <= series.min <= series.max <= 100.0


def context_switches() -> float:
    return float(psutil.cpu_stats().ctx_switches)


def test_cpu_detail_context_switches():
    def check() -> None:
        ends = around(whole_window("cpu_detail"), context_switches)
        mean = mean_of(ends.window, "context_switches_per_second")
        assert mean == pytest.approx(ends.rate, rel=0.1)
        assert mean > 0.0

    retry(5, check)


def has_frequency() -> bool:
    in_sysfs = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    return any(in_sysfs) or "cpu MHz" in read("/proc/cpuinfo")


def test_cpu_detail_load_and_frequency():
    def check() -> None:
        before = os.getloadavg()[0]
        with whole_window("cpu_detail") as sampler:
            time.sleep(1.2)  # frequencies are read once a second
        after = os.getloadavg()[0]
        (window,) = sampler.windows(timeout=0)
        low, high = sorted((before, after))
        load = window["load_average_1m"].last
        assert load is not None
        assert low - 0.011 <= load <= high + 0.011  # the file has two digits
        if has_frequency():
            # Cores change theirs many times a second.
            mean = mean_of(window, "cpu_frequency_megahertz")
            assert mean == pytest.approx(psutil.cpu_freq().current, rel=0.3)
        else:
            assert "cpu_frequency_megahertz" not in window

    retry(8, check)


# ---- energy -------------------------------------------------------------------------------------


def first_package() -> Path | None:
    """The folder of package 0, if we may read how much it used."""
    for zone in Path("/sys/class/powercap").glob("intel-rapl:*"):
        with contextlib.suppress(OSError):
            if read(f"{zone}/name").strip() == "package-0":
                read(f"{zone}/energy_uj")
                return zone
    return None


def cpu_sensors() -> list[Path]:
    drivers = ("coretemp", "k10temp", "zenpower")
    return [
        sensor
        for folder in Path("/sys/class/hwmon").glob("hwmon*")
        if read(f"{folder}/name").strip() in drivers
        for sensor in folder.glob("temp*_input")
    ]


@pytest.mark.skipif(first_package() is None, reason="no CPU package here tells what it uses")
def test_energy():
    zone = first_package()
    assert zone is not None
    energy = str(zone / "energy_uj")

    def check() -> None:
        ends = around(whole_window("energy"), lambda: float(read(energy)) * 1e-6)
        watts = mean_of(ends.window, "cpu_package_0_power_watts")
        joules = ends.window["cpu_package_0_energy_joules"].last
        assert joules is not None
        assert watts == pytest.approx(ends.rate, rel=0.1)
        assert joules == pytest.approx(ends.after - ends.before, rel=0.1)

    retry(5, check)


@pytest.mark.skipif(not cpu_sensors(), reason="no CPU here tells how warm it is")
def test_temperature():
    def check() -> None:
        with whole_window("energy") as sampler:
            time.sleep(1.2)  # sensors are read once a second
            hottest = max(float(read(str(sensor))) for sensor in cpu_sensors()) / 1000.0
        (window,) = sampler.windows(timeout=0)
        assert mean_of(window, "cpu_temperature_celsius") == pytest.approx(hottest, abs=8.0)

    retry(5, check)


@pytest.mark.skipif(
    first_package() is not None or bool(cpu_sensors()), reason="this machine tells of its energy"
)
def test_a_machine_that_tells_nothing_of_energy_has_no_such_series():
    with Sampler(backend="native", sources="cpu,energy", interval=3600) as sampler:
        pass
    (window,) = sampler.windows(timeout=0)
    assert list(window) == ["cpu_utilization_percentage"]
    assert list(sampler.stats()["sources"]) == ["cpu"]

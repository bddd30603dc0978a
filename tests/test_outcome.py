"""What is said of a command that has ended."""

from __future__ import annotations

import signal

import pytest

from sysmetrics_native import Series, Window
from sysmetrics_native.command import Ended
from sysmetrics_native.outcome import GpuUse, Outcome, Tally, command_tags, largest

ENDED = Ended(0, None, 10.0, 5.0, None)
OUTCOME = Outcome("make", ENDED, 0, None, None, {})


def killed_by(name: str, oom_kills: int = 0) -> Outcome:
    ended = ENDED._replace(exit_code=None, signal_number=int(getattr(signal, name)))
    return OUTCOME._replace(ended=ended, oom_kills=oom_kills)


def window(seconds: float, **series: Series) -> Window:
    return Window(series, start=100.0, end=100.0 + seconds, samples=3)


def test_peaks_means_and_sums_of_windows() -> None:
    tally = Tally()
    assert (tally.peak_memory_megabytes, tally.energy_joules, tally.gpus()) == (None, None, {})
    tally.add(
        window(
            1.0,
            process_memory_rss_megabytes=Series(mean=10.0, max=30.0),
            cpu_package_0_energy_joules=Series(last=5.0),
            gpu_1_energy_joules=Series(last=2.0),
            gpu_1_utilization_percentage=Series(mean=100.0),
            gpu_1_memory_usage_megabytes=Series(max=700.0),
        )
    )
    tally.add(
        window(
            3.0,
            process_memory_rss_megabytes=Series(mean=20.0, max=20.0),
            cpu_package_0_energy_joules=Series(last=25.0),
            cpu_package_1_energy_joules=Series(),
            gpu_1_energy_joules=Series(last=3.0),
            gpu_1_utilization_percentage=Series(mean=20.0),
            gpu_1_memory_usage_megabytes=Series(max=600.0),
            gpu_0_memory_usage_megabytes=Series(max=1.0),
            gpu_0_mig_1_memory_usage_megabytes=Series(max=9.0),
        )
    )
    assert tally.peak_memory_megabytes == 30.0
    assert tally.energy_joules == 28.0  # running totals, each at its last
    assert tally.gpus() == {0: GpuUse(None, 1.0), 1: GpuUse(40.0, 700.0)}


def test_a_window_without_length_has_no_weight() -> None:
    tally = Tally()
    tally.add(window(0.0, gpu_0_utilization_percentage=Series(mean=50.0)))
    assert tally.gpus() == {0: GpuUse(None, None)}


@pytest.mark.parametrize(
    ("outcome", "ending", "status", "code"),
    [
        (OUTCOME, "exit 0", "FINISHED", "0"),
        (OUTCOME._replace(ended=ENDED._replace(exit_code=3)), "exit 3", "FAILED", "3"),
        (killed_by("SIGTERM"), "killed by SIGTERM", "KILLED", "143"),
        (killed_by("SIGSEGV"), "killed by SIGSEGV", "FAILED", "139"),
        (killed_by("SIGKILL"), "killed by SIGKILL", "KILLED", "137"),
        (killed_by("SIGKILL", 2), "out of memory: the kernel killed it", "KILLED", "137"),
        (
            OUTCOME._replace(ended=ENDED._replace(exit_code=137), oom_kills=2),
            "exit 137; out of memory: the kernel killed 2 in its control group",
            "FAILED",
            "137",
        ),
    ],
)
def test_how_it_ended(outcome: Outcome, ending: str, status: str, code: str) -> None:
    assert (outcome.ending, outcome.run_status) == (ending, status)
    assert outcome.tags("system/n/") == {
        "system/n/command": "make",
        "system/n/exit": ending,
        "system/n/exit_code": code,
    }


def test_a_signal_without_a_name() -> None:
    outcome = OUTCOME._replace(ended=ENDED._replace(exit_code=None, signal_number=41))
    assert (outcome.ending, outcome.run_status) == ("killed by signal 41", "KILLED")


def test_what_is_not_known_is_absent() -> None:
    assert OUTCOME.metrics("system/") == {
        "system/run_wall_seconds": 10.0,
        "system/run_cpu_seconds": 5.0,
    }
    whole = OUTCOME._replace(peak_memory_megabytes=1.23456, energy_joules=7.0)
    assert whole.metrics("")["run_peak_memory_megabytes"] == 1.235
    assert whole.metrics("")["run_energy_joules"] == 7.0
    unknown = OUTCOME._replace(ended=ENDED._replace(cpu_seconds=None))
    assert list(unknown.metrics("")) == ["run_wall_seconds"]


def test_what_people_are_told() -> None:
    ended = Ended(0, None, 3725.4, 7450.8, None)
    uses = {0: GpuUse(37.2, 12_345.6), 1: GpuUse(None, 3.0)}
    rows = Outcome("make", ended, 0, 1234.5, 98765.4, uses).rows()
    assert rows == [
        ("ended", "exit 0"),
        ("wall time", "1 h 02 min 05 s"),
        ("CPU time", "2 h 04 min 11 s (2.00 cores)"),
        ("peak memory", "1.23 GB"),
        ("GPU 0", "37 % busy, at most 12.35 GB"),
        ("GPU 1", "at most 3.0 MB"),
        ("energy", "98,765 J"),
    ]


def test_a_long_command_line_is_one_that_mlflow_takes() -> None:
    (line,) = command_tags("x" * 10_000, "").values()
    assert len(line) == 4001
    assert command_tags("", "system/") == {}


def test_the_largest_that_is_known() -> None:
    assert largest(None, 1.0, 3.0, None) == 3.0
    assert largest(None) is None

"""What is said of a run: only what its metrics show, and always with the numbers."""

from __future__ import annotations

import pytest

pytest.importorskip("numpy", reason="NumPy is not installed")

import numpy as np

from sysmetrics_native import verdict
from sysmetrics_native.verdict import FAILED, HINT, LIMITED, NOTE, Finding, Verdict, judge
from tests.timelines import START, make_timeline, make_track


def found(kind: str, tracks: object, **options: object) -> Finding:
    """The finding of that kind, which must be there."""
    judged = judge(make_timeline(tracks, **options))  # type: ignore[arg-type]
    (finding,) = [finding for finding in judged.findings if finding.kind == kind]
    return finding


def kinds(tracks: object, **options: object) -> list[str]:
    judged = judge(make_timeline(tracks, **options))  # type: ignore[arg-type]
    return [finding.kind for finding in judged.findings]


def part(high: float, low: float, share: float, count: int = 100) -> list[float]:
    """High for the first part of the time, low for the rest."""
    first = round(count * share)
    return [high] * first + [low] * (count - first)


# ---- the whole of it ----------------------------------------------------------------------------


def test_a_run_that_nothing_limited():
    judged = judge(
        make_timeline({"cpu_utilization_percentage": 40, "system_memory_usage_percentage": 50})
    )
    assert judged.headline == verdict.NOTHING
    assert judged.findings == ()


def test_a_run_without_metrics():
    assert judge(make_timeline([])) == Verdict(verdict.NO_METRICS, (), ())


def test_what_is_missing_is_said():
    judged = judge(make_timeline({"cpu_utilization_percentage": 40}))
    said = " | ".join(judged.not_judged)
    for what in ("no GPU metrics", "container", "pressure", "cpu_detail", "disk_io", "memory"):
        assert what in said
    assert "no CPU metrics" not in said


def test_what_is_there_is_not_called_missing():
    judged = judge(
        make_timeline(
            {
                "cpu_utilization_percentage": 40,
                "cpu_core_max_percentage": 50,
                "system_memory_usage_percentage": 50,
                "container_memory_usage_percentage": 50,
                "disk_busy_percentage": 1,
                "pressure_cpu_some_percentage": 1,
                "network_receive_megabytes": 1,
                "gpu_0_utilization_percentage": 60,
            }
        )
    )
    assert judged.not_judged == ()


def test_a_run_of_three_values_gets_no_shares_of_time():
    judged = judge(make_timeline({"cpu_utilization_percentage": [100, 100, 100]}))
    assert judged.findings == ()
    assert any("too short" in text for text in judged.not_judged)


def test_the_most_severe_comes_first_and_is_the_headline():
    judged = judge(
        make_timeline(
            {
                "cpu_utilization_percentage": part(99, 10, 0.6),
                "container_cpu_throttled_percentage": part(50, 10, 0.9),
                "container_oom_kills": part(0, 1, 0.9),
                "disk_usage_percentage": 99,
                "gpu_0_utilization_percentage": 60,
                "gpu_0_memory_usage_percentage": 99,
            }
        )
    )
    assert [one.severity for one in judged.findings] == [FAILED, LIMITED, LIMITED, HINT, NOTE]
    assert [one.kind for one in judged.findings[:3]] == ["oom", "quota", "cpu"]
    assert judged.headline == judged.findings[0].sentence


def test_hints_alone_are_no_limit():
    judged = judge(make_timeline({"disk_usage_percentage": 99}))
    assert judged.headline == verdict.NOTHING
    assert [one.severity for one in judged.findings] == [HINT]


def test_nodes_are_judged_apart_and_told_together():
    tracks = [
        make_track("cpu_utilization_percentage", value, node=node)
        for node, value in (("a", 20), ("b", part(99, 0, 0.6)), ("c", 99))
    ]
    judged = judge(make_timeline(tracks))
    (finding,) = judged.findings
    assert finding.node == "c"
    assert finding.sentence.startswith("c: ")
    assert finding.evidence[-1] == "the same on b"
    assert judged.headline == finding.sentence


def test_gaps_count_neither_way():
    values = np.full(100, np.nan)
    values[:40] = 99
    finding = found("cpu", {"cpu_utilization_percentage": values})
    assert finding.share == 1.0


def test_ticks_are_judged_as_means_over_seconds():
    """A CPU that is half busy is either busy or idle in each tick of 10 ms."""
    flicker = [100.0, 100.0, 0.0] * 1000  # two thirds
    assert kinds({"cpu_utilization_percentage": flicker}, interval=0.01) == []
    steady = [100.0] * 3000
    assert kinds({"cpu_utilization_percentage": steady}, interval=0.01) == ["cpu"]


def test_a_very_long_run_is_judged_in_fewer_stretches():
    count = 5 * verdict.MOST_STRETCHES
    finding = found("cpu", {"cpu_utilization_percentage": part(99, 1, 0.7, count)})
    assert finding.share == pytest.approx(0.7, abs=0.001)


# ---- CPUs ---------------------------------------------------------------------------------------


def test_busy_cpus():
    finding = found("cpu", {"cpu_utilization_percentage": part(97, 20, 0.8)})
    assert finding.severity == LIMITED
    assert finding.share == pytest.approx(0.8)
    assert "80 % of the time" in finding.sentence
    assert finding.evidence[0] == "utilization of all cores: mean 82 %, highest 97 %"
    assert "longest stretch: 1 min 20 s, from 0 s after the start" in finding.evidence[1]
    assert finding.when == (START, START + 80)


def test_cpus_that_are_busy_for_a_third_of_the_time_are_no_limit():
    assert kinds({"cpu_utilization_percentage": part(97, 20, 0.33)}) == []


def test_one_busy_core():
    tracks = {
        "cpu_utilization_percentage": 12,
        "cpu_core_max_percentage": part(100, 30, 0.7),
        "process_cpu_percentage": 103,
    }
    finding = found("core", tracks)
    assert "single thread" in finding.sentence
    assert "the run's processes: mean 103 % of one core" in finding.evidence


def test_processes_that_use_one_core():
    finding = found("core", {"cpu_utilization_percentage": 12, "process_cpu_percentage": 101})
    assert finding.severity == HINT
    assert "about one core for 100 % of the time" in finding.sentence
    for other in (60, 240):
        assert kinds({"process_cpu_percentage": other}) == []
    idle = {"process_cpu_percentage": 101, "cpu_core_max_percentage": 30}
    assert kinds({**idle, "cpu_utilization_percentage": 12}) == []


def test_a_busy_core_among_busy_cores_is_not_a_single_thread():
    tracks = {"cpu_utilization_percentage": 70, "cpu_core_max_percentage": 100}
    assert kinds(tracks) == []


def test_a_quota_that_throttles():
    tracks = {
        "container_cpu_throttled_percentage": part(60, 0, 0.5),
        "container_cpu_utilization_percentage": 95,
    }
    finding = found("quota", tracks)
    assert finding.severity == LIMITED
    assert "30 % of periods" in finding.sentence
    assert "use of the CPU quota: mean 95 %, highest 95 %" in finding.evidence


def test_a_quota_that_is_used_up_without_throttling():
    finding = found("quota", {"container_cpu_utilization_percentage": 95})
    assert "used up" in finding.sentence


def test_stolen_time():
    assert "25 %" in found("steal", {"cpu_steal_percentage": 25}).sentence
    assert kinds({"cpu_steal_percentage": 2}) == []


# ---- memory -------------------------------------------------------------------------------------


def test_a_process_was_killed():
    finding = found("oom", {"container_oom_kills": part(0, 2, 0.5)})
    assert finding.severity == FAILED
    assert finding.evidence[0] == "OOM kills in the container: 2"


def test_no_kill_is_no_finding():
    assert kinds({"container_oom_kills": 0}) == []


@pytest.mark.parametrize(
    ("values", "severity"),
    [(part(92, 50, 0.1), HINT), (part(99, 50, 0.1), LIMITED), (part(92, 50, 0.9), LIMITED)],
)
def test_memory_near_the_limit(values, severity):
    finding = found("memory_container", {"container_memory_usage_percentage": values})
    assert finding.severity == severity
    assert "of its limit" in finding.sentence


def test_a_peak_within_a_stretch_counts_for_memory():
    track = make_track("system_memory_usage_percentage", 80, spread=15)
    finding = found("memory", [track])
    assert "95 %" in finding.sentence


def test_memory_with_room():
    assert kinds({"system_memory_usage_percentage": 89}) == []


def test_tasks_that_wait_for_memory():
    finding = found("memory_stalls", {"pressure_memory_some_percentage": part(30, 0, 0.2)})
    assert "20 % of the time" in finding.sentence


def test_swapping():
    finding = found("swap", {"swap_usage_megabytes": np.linspace(50, 850, 100)})
    assert finding.sentence == "The machine swapped: 800 MB more than at the start."
    assert kinds({"swap_usage_megabytes": 5000}) == []  # it was so before


def test_major_faults():
    finding = found("major_faults", {"major_page_faults_per_second": part(400, 0, 0.3)})
    assert finding.severity == HINT
    assert "mean 120/s, highest 400/s" in finding.evidence[0]


# ---- input and disks ----------------------------------------------------------------------------


def test_gpus_that_wait_for_the_cpus():
    tracks = {
        "gpu_0_utilization_percentage": part(5, 95, 0.6),
        "gpu_1_utilization_percentage": part(8, 95, 0.6),
        "cpu_utilization_percentage": part(98, 30, 0.6),
        "pressure_io_some_percentage": part(40, 0, 0.3),
    }
    finding = found("input", tracks)
    assert finding.sentence == (
        "The GPUs waited for input: idle while the CPUs were busy, for 60 % of the time."
    )
    assert "idle while tasks waited for a disk: 30 % of the time" in finding.evidence
    assert finding.when == (START, START + 60)


def test_gpus_that_are_idle_while_nothing_else_works_do_not_wait_for_input():
    tracks = {
        "gpu_0_utilization_percentage": part(5, 95, 0.8),
        "cpu_utilization_percentage": part(10, 98, 0.8),
    }
    assert kinds(tracks) == ["gpu_idle"]


def test_disks():
    assert "disks" in found("disk", {"pressure_io_full_percentage": part(50, 0, 0.4)}).sentence
    busy = {"disk_busy_percentage": 99, "cpu_iowait_percentage": 30}
    assert found("disk", busy).share == 1.0


def test_a_busy_disk_that_nobody_waits_for_is_no_limit():
    assert kinds({"disk_busy_percentage": 100, "cpu_iowait_percentage": 1}) == []
    assert kinds({"disk_busy_percentage": 100}) == []


def test_a_full_disk_has_its_name():
    finding = found("disk_space_data", {"disk_usage_percentage_data": 97})
    assert finding.sentence == "The disk data was nearly full: 97 %."


# ---- GPUs ---------------------------------------------------------------------------------------


def test_busy_gpus_are_what_one_wants():
    tracks = {f"gpu_{number}_utilization_percentage": 98 for number in range(6)}
    finding = found("gpu", tracks)
    assert finding.sentence.startswith("GPUs 0, 1, 2, 3, 4 and 5 were the limit")
    assert finding.evidence[4] == "and 2 more"


def test_an_idle_gpu_and_an_unused_one():
    tracks = {"gpu_0_utilization_percentage": 20, "gpu_1_utilization_percentage": 0}
    judged = judge(make_timeline(tracks))
    idle, unused = judged.findings
    assert idle.sentence == "GPU 0 was mostly idle: 20 % in the mean."
    assert unused.sentence == "GPU 1 was not used."
    assert judged.headline == verdict.NOTHING


def test_gpu_memory():
    finding = found("gpu_memory", {"gpu_10_memory_usage_percentage": part(50, 97, 0.9)})
    assert finding.severity == NOTE
    assert finding.evidence == ("GPU 10: highest 97 %, 1 min 31 s after the start",)


def test_the_memory_of_an_instance_is_not_that_of_its_gpu():
    assert kinds({"gpu_0_mig_1_memory_usage_percentage": 99}) == []


@pytest.mark.parametrize(("celsius", "severity"), [(91, LIMITED), (60, HINT)])
def test_slowed_clocks(celsius, severity):
    tracks = {
        "gpu_0_throttled_percentage": 40,
        "gpu_0_temperature_celsius": celsius,
    }
    finding = found("gpu_clocks", tracks)
    assert finding.severity == severity
    assert finding.sentence.startswith("Heat" if severity == LIMITED else "Power, heat")
    assert f"highest temperature: {celsius} °C" in finding.evidence


# ---- network ------------------------------------------------------------------------------------


def test_traffic_at_a_ceiling_while_the_rest_has_room():
    tracks = {
        "network_receive_megabytes_per_second": part(117, 20, 0.8),
        "cpu_utilization_percentage": 20,
    }
    finding = found("network_receive", tracks)
    assert finding.severity == HINT
    assert "may have been" in finding.sentence
    assert "not known" in finding.evidence[-1]


def test_the_same_from_totals():
    tracks = {
        "network_transmit_megabytes": np.cumsum([118.0] * 100),
        "cpu_utilization_percentage": 20,
    }
    assert kinds(tracks) == ["network_transmit"]


@pytest.mark.parametrize(
    "tracks",
    [
        {"network_receive_megabytes_per_second": 117},  # nothing says that there was room
        {"network_receive_megabytes_per_second": 117, "cpu_utilization_percentage": 95},
        {"network_receive_megabytes_per_second": 117, "gpu_0_utilization_percentage": 95},
        {"network_receive_megabytes_per_second": 20, "cpu_utilization_percentage": 20},
        {
            "network_receive_megabytes_per_second": np.linspace(50, 400, 100),
            "cpu_utilization_percentage": 20,
        },
    ],
)
def test_no_claim_without_evidence(tracks):
    assert not any(kind.startswith("network") for kind in kinds(tracks))


def test_lost_packets():
    finding = found("packets_drops", {"network_drops_per_second": part(50, 0, 0.5)})
    assert finding.sentence == "Packets were dropped: 25.0 a second in the mean."


# ---- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.84, "0.8 s"),
        (9.96, "10 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7525, "2 h 5 min"),
        (90_061, "1 d 1 h"),
    ],
)
def test_lengths_of_time(seconds, text):
    assert verdict.duration(seconds) == text

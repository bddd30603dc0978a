"""GPUs of the psutil backend: the real binding on the stand-in for NVIDIA's driver library."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fake_gpus import EMPTY_NVML, OLD_NVML, FakeGpus

PREPARE = """
import logging, os, sys, threading, time

lines = []

class Lines(logging.Handler):
    def emit(self, record):
        lines.append(f"{record.levelname} {record.getMessage()}")

logging.getLogger("sysmetrics_native").addHandler(Lines())
logging.getLogger("sysmetrics_native").setLevel(logging.INFO)

from sysmetrics_native import Sampler, configure
from sysmetrics_native.backends import gpu_device, gpu_reader, python_gpus

configure(backend="psutil")

def means(window):
    return {key: window[key].mean for key in window}

def windows_until(sampler, condition):
    "All windows up to the one for which the condition is true."
    deadline = time.monotonic() + 30
    windows = []
    while not windows or not condition(windows[-1]):
        windows.append(sampler.next_window(30))
        assert windows[-1] is not None and time.monotonic() < deadline
    return windows

def has(key, value=None):
    "Whether a window has the key, with that mean if one is given."
    return lambda window: window[key].mean is not None and value in (None, window[key].mean)
"""

ONE_WINDOW = """
with Sampler(0.02, 10, sources=sys.argv[1]) as sampler:
    pass_over = sampler.next_window(30)
    window = windows_until(sampler, lambda window: window["gpu_0_utilization_percentage"].mean)[-1]
print(repr((means(window), lines)))
"""


def program(text: str) -> str:
    """A program after the preparation."""
    return f"{PREPARE}\n{text}"


def basic_keys(index: int) -> set[str]:
    names = (
        *("utilization_percentage", "memory_usage_megabytes", "memory_usage_percentage"),
        *("power_usage_watts", "power_usage_percentage"),
    )
    return {f"gpu_{index}_{name}" for name in names}


def detail_keys(index: int) -> set[str]:
    names = (
        *("temperature_celsius", "energy_joules", "sm_clock_megahertz"),
        *("memory_clock_megahertz", "throttled_percentage", "ecc_errors"),
    )
    return {f"gpu_{index}_{name}" for name in names}


def all_keys(index: int) -> set[str]:
    return basic_keys(index) | detail_keys(index)


# ---- what is read -------------------------------------------------------------------------------

# With the values of MLflow's own monitor, from MLflow where it is installed.
SAME_AS_MLFLOW = """
try:
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
except ImportError:
    theirs = None
else:
    monitor = GPUMonitor()
    monitor.collect_metrics()
    theirs = monitor.aggregate_metrics()
with Sampler(0.05, 10, sources="cpu,gpu") as sampler:
    window = sampler.next_window(30)
ours = {key: round(value, 1) for key, value in means(window).items() if key.startswith("gpu")}
print(repr((ours, theirs)))
"""


@pytest.mark.parametrize("count", [0, 1, 8, 16])
@pytest.mark.parametrize("has_counter", [True, False])
def test_keys_and_values_are_those_of_mlflow(gpus: FakeGpus, count: int, has_counter: bool) -> None:
    gpus.write(f"devices {count}\n" + ("" if has_counter else "* energy none"))
    ours, theirs = gpus.answer(program(SAME_AS_MLFLOW))
    assert ours.keys() == set().union(*map(basic_keys, range(count)))
    for index in range(count):
        assert ours[f"gpu_{index}_utilization_percentage"] == 30 + index
        assert ours[f"gpu_{index}_memory_usage_megabytes"] == 10_000 + 1000 * index
        watts, limit = 200 + 5 * index, 600 + 10 * index
        assert ours[f"gpu_{index}_power_usage_watts"] == pytest.approx(watts, rel=0.1)
        share = ours[f"gpu_{index}_power_usage_percentage"]
        assert share == pytest.approx(100 * watts / limit, rel=0.1)
    if theirs is not None:
        assert ours == pytest.approx(theirs, rel=0.1)


DETAIL = """
with Sampler(0.1, 11, sources="gpu_detail") as sampler:
    window = sampler.next_window(30)
print(repr((means(window), {key: window[key].last for key in window}, [
    (info.key, info.unit, info.source, info.kind) for info in sampler.schema
])))
"""


def test_gpu_detail(gpus: FakeGpus) -> None:
    gpus.write("""
        devices 1
        0 ecc_corrected 100 @0.5 103
        0 ecc_uncorrected 1 @0.5 2
        0 throttle_reasons 0x44
    """)
    mean, last, schema = gpus.answer(program(DETAIL))
    assert mean.keys() == detail_keys(0)
    assert mean["gpu_0_temperature_celsius"] == 50
    assert mean["gpu_0_sm_clock_megahertz"] == 1500
    assert mean["gpu_0_memory_clock_megahertz"] == 2600
    assert mean["gpu_0_throttled_percentage"] == 100
    assert last["gpu_0_ecc_errors"] == 4
    assert last["gpu_0_energy_joules"] == pytest.approx(200, rel=0.2)  # of about a second
    assert schema == [
        ("gpu_0_temperature_celsius", "celsius", "gpu_detail", "gauge"),
        ("gpu_0_energy_joules", "joules", "gpu_detail", "total"),
        ("gpu_0_sm_clock_megahertz", "megahertz", "gpu_detail", "gauge"),
        ("gpu_0_memory_clock_megahertz", "megahertz", "gpu_detail", "gauge"),
        ("gpu_0_throttled_percentage", "percentage", "gpu_detail", "gauge"),
        ("gpu_0_ecc_errors", "errors", "gpu_detail", "total"),
    ]


@pytest.mark.parametrize("reasons", ["0x0", "0x1", "0x2", "0x10", "0x100"])
def test_reasons_that_slow_no_work_are_no_throttling(gpus: FakeGpus, reasons: str) -> None:
    gpus.write(f"devices 1\n0 throttle_reasons {reasons}")
    mean, _, _ = gpus.answer(program(DETAIL))
    assert mean["gpu_0_throttled_percentage"] == 0


POWER = """
with Sampler(0.02, 100, sources="gpu,gpu_detail") as sampler:
    window = sampler.next_window(30)
print(repr({key: tuple(window[key]) for key in window}))
"""


def test_mean_power_comes_from_the_counter_of_energy(gpus: FakeGpus) -> None:
    """It knows of what no reading sees: half of the time 500 W, between any two readings."""
    switches = " ".join(f"@{0.05 * step:.2f} {500 if step % 2 else 100}" for step in range(1, 100))
    gpus.write(f"devices 1\n0 power 100 {switches}\n0 power_limit 600")
    window = gpus.answer(program(POWER))
    assert window["gpu_0_power_usage_watts"][0] == pytest.approx(300, rel=0.1)
    assert window["gpu_0_power_usage_percentage"][0] == pytest.approx(50, rel=0.1)
    assert gpus.calls("nvmlDeviceGetPowerUsage") == {}


def test_the_share_of_a_limit_that_changes(gpus: FakeGpus) -> None:
    """Energy over what the limit would have allowed, and not a mean of shares."""
    gpus.write("devices 1\n0 power 200\n0 power_limit 400 @1 200")
    window = gpus.answer(program(POWER))
    share, least, most, *_ = window["gpu_0_power_usage_percentage"]
    assert least == pytest.approx(50, rel=0.1)
    assert most == pytest.approx(100, rel=0.1)
    assert least < share < most


def test_a_counter_that_starts_again_is_no_spike(gpus: FakeGpus) -> None:
    gpus.write("devices 1\n0 energy 5000 @0.5 5100 @0.9 10 @1.3 20")
    window = gpus.answer(program(POWER))
    assert window["gpu_0_power_usage_watts"][1] == 0
    assert window["gpu_0_energy_joules"][3] == 10  # read once a second, it fell before


LACKING = {
    "utilization": {"utilization_percentage"},
    "memory_used": {"memory_usage_megabytes", "memory_usage_percentage"},
    "power_limit": {"power_usage_percentage"},
    "temperature": {"temperature_celsius"},
    "sm_clock": {"sm_clock_megahertz"},
    "memory_clock": {"memory_clock_megahertz"},
    "throttle_reasons": {"throttled_percentage"},
    "ecc_uncorrected": {"ecc_errors"},
    "energy": {"energy_joules"},
}


def test_what_a_device_lacks_is_left_out_quietly(gpus: FakeGpus) -> None:
    """Each of these devices lacks something else."""
    lines = [f"{index} {value} none" for index, value in enumerate(LACKING)]
    gpus.write("\n".join([f"devices {len(LACKING)}", *lines]))
    schema, log = gpus.answer(
        program("""
sampler = Sampler(0.1, 10, sources="gpu,gpu_detail")
print(repr(([info.key for info in sampler.schema], lines)))
""")
    )
    for index, lacking in enumerate(LACKING.values()):
        here = {key for key in schema if key.startswith(f"gpu_{index}_")}
        assert all_keys(index) - here == {f"gpu_{index}_{name}" for name in lacking}
    assert len(set(schema)) == len(schema)
    assert log == []


HAS_NOTHING_BUT_A_LIMIT = "\n".join(
    f"0 {value} none"
    for value in (
        *("utilization", "memory_used", "memory_total", "energy", "power", "temperature"),
        *("sm_clock", "memory_clock", "throttle_reasons", "ecc_corrected"),
    )
)


@pytest.mark.parametrize(
    "lines", [HAS_NOTHING_BUT_A_LIMIT, "0 fail nvmlDeviceGetHandleByIndex_v2 NOT_SUPPORTED"]
)
def test_a_device_that_has_nothing_is_not_read(gpus: FakeGpus, lines: str) -> None:
    gpus.write(f"devices 1\n{lines}")
    sources, threads = gpus.answer(
        program("""
sampler = Sampler(0.1, 10, sources="cpu,gpu,gpu_detail")
print(repr((list(sampler.stats()["sources"]), threading.active_count())))
""")
    )
    assert (sources, threads) == (["cpu"], 1)


def test_an_old_driver_lacks_some(gpus: FakeGpus, tmp_path: Any) -> None:
    old = FakeGpus(tmp_path / "gpus", OLD_NVML)
    old.write("devices 1")
    window, log = old.answer(program(ONE_WINDOW), "gpu,gpu_detail")
    assert basic_keys(0) <= window.keys() <= all_keys(0)
    assert window["gpu_0_power_usage_watts"] == pytest.approx(200, rel=0.1)
    assert log == []


def test_mig_devices_have_memory_of_their_own_and_no_utilization(gpus: FakeGpus) -> None:
    gpus.write("devices 2\n0 mig 1\n0:0 memory_used 1e9\n0:3 memory_used 2e9")
    window = gpus.answer(
        program("""
with Sampler(0.02, 10, sources="gpu") as sampler:
    window = sampler.next_window(30)
print(repr(means(window)))
""")
    )
    assert "gpu_0_utilization_percentage" not in window
    assert {key for key in window if "mig" in key} == {
        f"gpu_0_mig_{part}_memory_usage_{unit}"
        for part in (0, 3)
        for unit in ("megabytes", "percentage")
    }
    assert window["gpu_0_mig_0_memory_usage_megabytes"] == 1000
    assert window["gpu_0_mig_3_memory_usage_megabytes"] == 2000
    assert basic_keys(1) <= window.keys()


# ---- when ---------------------------------------------------------------------------------------


def test_no_call_is_made_too_often_and_each_reading_is_taken_once(gpus: FakeGpus) -> None:
    seconds, with_value, slow = gpus.answer(
        program("""
before = time.monotonic()
with Sampler(0.005, 1, sources="gpu,gpu_detail") as sampler:
    time.sleep(2.2)
seconds = time.monotonic() - before
windows = list(sampler.windows(0))
print(repr((
    seconds,
    sum(window["gpu_0_utilization_percentage"].mean is not None for window in windows),
    sum(window["gpu_0_temperature_celsius"].mean is not None for window in windows),
)))
""")
    )
    calls = gpus.calls()
    assert calls["nvmlDeviceGetUtilizationRates 0"] <= 10 * seconds + 4
    assert calls["nvmlDeviceGetTemperature 0"] <= seconds + 4
    assert 1 <= with_value <= calls["nvmlDeviceGetUtilizationRates 0"] - 2
    assert 1 <= slow <= calls["nvmlDeviceGetTemperature 0"] - 2
    assert not [name for name in calls if "Process" in name]


def test_a_run_that_is_shorter_than_the_period_has_a_value(gpus: FakeGpus) -> None:
    window = gpus.answer(
        program("""
with Sampler(10, 1, sources="gpu,gpu_detail") as sampler:
    time.sleep(0.3)
print(repr(means(sampler.next_window(0))))
""")
    )
    assert None not in window.values()
    assert window["gpu_0_power_usage_watts"] == pytest.approx(200, rel=0.1)


def test_a_recording_has_them(gpus: FakeGpus, tmp_path: Any) -> None:
    live, replayed = gpus.answer(
        program("""
from sysmetrics_native.recording import Recording
with Sampler(0.02, 10, sources="gpu", recorder=sys.argv[1]) as sampler:
    window = sampler.next_window(30)
with Recording(sampler.recording_path) as recording:
    print(repr((means(window), means(next(recording.windows())))))
"""),
        str(tmp_path / "gpus.smnrec"),
    )
    assert replayed == pytest.approx(live)
    assert None not in live.values()


# ---- which --------------------------------------------------------------------------------------

CHOSEN = """
from sysmetrics_native import settings
try:
    sampler = Sampler(0.1, 10, sources="cpu,gpu")
except ValueError as error:
    print(repr(str(error)))
else:
    print(repr(([gpu.index for gpu in sampler.gpus], [info.key for info in sampler.schema])))
"""


def test_keys_keep_the_index_of_the_driver(gpus: FakeGpus) -> None:
    gpus.write("devices 4")
    indices, keys = gpus.answer(program(CHOSEN), SYSMETRICS_NATIVE_GPUS="3,1")
    assert indices == [1, 3]
    assert {key for key in keys if key.startswith("gpu")} == basic_keys(1) | basic_keys(3)
    assert gpus.calls("nvmlDeviceGetUtilizationRates") == {
        "nvmlDeviceGetUtilizationRates 1": 1,
        "nvmlDeviceGetUtilizationRates 3": 1,
    }, "who is not read is not asked"


def test_visible_follows_the_environment(gpus: FakeGpus) -> None:
    gpus.write("devices 4\n2 uuid GPU-feed0000-1111-2222-3333-444444444444")
    indices, _ = gpus.answer(
        program(CHOSEN), SYSMETRICS_NATIVE_GPUS="visible", CUDA_VISIBLE_DEVICES="GPU-feed"
    )
    assert indices == [2]


def test_one_mig_device_of_a_gpu(gpus: FakeGpus) -> None:
    gpus.write("""
        devices 1
        0 mig 1
        0:0 uuid MIG-aaaa0000-1111-2222-3333-444444444444
        0:1 uuid MIG-bbbb0000-1111-2222-3333-444444444444
    """)
    _, keys = gpus.answer(program(CHOSEN), SYSMETRICS_NATIVE_GPUS="MIG-bbbb")
    assert {key for key in keys if "mig" in key} == {
        "gpu_0_mig_1_memory_usage_megabytes",
        "gpu_0_mig_1_memory_usage_percentage",
    }


def test_a_gpu_that_is_not_there_is_refused(gpus: FakeGpus) -> None:
    message = gpus.answer(program(CHOSEN), SYSMETRICS_NATIVE_GPUS="1")
    assert message.startswith("SYSMETRICS_NATIVE_GPUS must be all, visible, none, or of the GPUs")
    assert message.endswith("got 1")
    calls = gpus.calls()
    assert calls["nvmlShutdown"] == calls["nvmlInitWithFlags"] == 1


def test_none_does_not_even_load_the_library(gpus: FakeGpus) -> None:
    indices, keys = gpus.answer(program(CHOSEN), SYSMETRICS_NATIVE_GPUS="none")
    assert (indices, keys) == ([], ["cpu_utilization_percentage"])
    assert gpus.records() == {}


# ---- where there are none -----------------------------------------------------------------------

NOTHING_THERE = """
sampler = Sampler(0.1, 10, sources="cpu,gpu")
print(repr((list(sampler.stats()["sources"]), lines, threading.active_count())))
"""


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("devices 0", "pynvml (NVML): no device; pyrsmi"),
        ("devices 1\n* fail nvmlInit* DRIVER_NOT_LOADED", "pynvml (NVML): Driver Not Loaded; "),
        ("devices 1\n* fail nvmlInit* LIB_RM_VERSION_MISMATCH", "version mismatch; pyrsmi"),
        ("devices 1\n* fail nvmlDeviceGetCount_v2 UNKNOWN", "pynvml (NVML): Unknown Error; "),
    ],
)
def test_a_library_without_a_device_is_one_line(gpus: FakeGpus, scenario: str, said: str) -> None:
    gpus.write(scenario)
    sources, log, threads = gpus.answer(program(NOTHING_THERE))
    assert sources == ["cpu"]
    (line,) = log
    assert line.startswith("INFO No GPUs are monitored. ")
    assert said in line
    assert threads == 1


def test_a_library_that_is_none_is_one_line(tmp_path: Any) -> None:
    folder = tmp_path / "gpus"
    folder.mkdir()
    empty = FakeGpus(folder, EMPTY_NVML)
    sources, log, _ = empty.answer(program(NOTHING_THERE))
    assert sources == ["cpu"]
    (line,) = log
    assert "pynvml (NVML): Function Not Found" in line


def test_without_the_bindings_it_says_what_to_install(gpus: FakeGpus) -> None:
    missing = 'import sys\nsys.modules["pynvml"] = sys.modules["pyrsmi"] = None\n'
    sources, log, _ = gpus.answer(missing + program(NOTHING_THERE))
    assert sources == ["cpu"]
    (line,) = log
    assert line == (
        "INFO No GPUs are monitored. pynvml: not installed (pip install nvidia-ml-py); "
        "pyrsmi: not installed (pip install pyrsmi)."
    )


def test_gpus_alone_where_there_are_none_are_refused(gpus: FakeGpus) -> None:
    gpus.write("devices 0")
    message = gpus.answer(
        program("""
try:
    Sampler(sources="gpu")
except ValueError as error:
    print(repr(str(error)))
""")
    )
    assert message == "sources must leave a source that this machine has, got 'gpu'"


def test_a_list_of_gpus_where_there_are_none_is_a_warning(gpus: FakeGpus) -> None:
    gpus.write("devices 0")
    sources, log, _ = gpus.answer(program(NOTHING_THERE), SYSMETRICS_NATIVE_GPUS="0")
    assert sources == ["cpu"]
    assert log[1:] == ["WARNING SYSMETRICS_NATIVE_GPUS is '0', but there are no GPUs here."]


# ---- what goes wrong ----------------------------------------------------------------------------

KEPT_TICKING = """
with Sampler(0.02, 15, sources="cpu,memory,gpu,gpu_detail") as sampler:
    windows = [sampler.next_window(30) for _ in range(6)]
stats = sampler.stats()
assert all(window["system_memory_usage_megabytes"].mean for window in windows)
print(repr((
    [info.key for info in sampler.schema],
    {key: [window[key].mean for window in windows] for key in windows[0]},
    {name: of["errors"] for name, of in stats["sources"].items()},
    lines,
)))
"""

CALLS = {
    "nvmlDeviceGetUtilizationRates": {"utilization_percentage"},
    "nvmlDeviceGetMemoryInfo": {"memory_usage_megabytes", "memory_usage_percentage"},
    "nvmlDeviceGetTotalEnergyConsumption": {"energy_joules"},
    "nvmlDeviceGetEnforcedPowerLimit": {"power_usage_percentage"},
    "nvmlDeviceGetTemperature": {"temperature_celsius"},
    "nvmlDeviceGetClockInfo": {"sm_clock_megahertz", "memory_clock_megahertz"},
    "nvmlDeviceGetCurrentClocksThrottleReasons": {"throttled_percentage"},
    "nvmlDeviceGetTotalEccErrors": {"ecc_errors"},
}
WELL = len(CALLS)
"""The device on which everything works; of each other one the call of its index fails."""


def failures(code: str, when: str = "") -> str:
    lines = [f"{index} fail {function} {code} {when}" for index, function in enumerate(CALLS)]
    return "\n".join([f"devices {WELL + 1}", *lines])


def assert_others_work(values: dict[str, list[float | None]]) -> None:
    """Every device has every value in every window but for what its failing call reads."""
    for index, names in enumerate([*CALLS.values(), set[str]()]):
        for key in basic_keys(index):
            name = key.removeprefix(f"gpu_{index}_")
            if name not in names and "power" not in name:
                assert None not in values[key], key


@pytest.mark.parametrize("code", ["NOT_SUPPORTED", "NO_PERMISSION"])
def test_a_call_that_never_works_is_not_made_again(gpus: FakeGpus, code: str) -> None:
    gpus.write(failures(code))
    schema, values, errors, log = gpus.answer(program(KEPT_TICKING))
    assert all_keys(WELL) <= set(schema)
    for index, (function, names) in enumerate(CALLS.items()):
        lacking = all_keys(index) - set(schema)
        assert lacking == {f"gpu_{index}_{name}" for name in names}, function
        # A name is two calls at most, and the memory is also asked for who it is.
        assert gpus.calls(function)[f"{function} {index}"] <= 2
    assert_others_work(values)
    assert errors == {"cpu": 0, "memory": 0, "gpu": 0, "gpu_detail": 0}
    said = [line.partition(" is not allowed")[0] for line in log]
    if code == "NOT_SUPPORTED":
        assert said == []
    else:
        twice = ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetClockInfo")
        assert sorted(said) == sorted(
            f"WARNING GPU {index}: {function}"
            for index, function in enumerate(CALLS)
            for _ in range(1 + (function in twice))
        )


@pytest.mark.parametrize("code", ["NOT_SUPPORTED", "NO_PERMISSION"])
def test_a_call_that_works_no_longer_is_not_made_again(gpus: FakeGpus, code: str) -> None:
    function = "nvmlDeviceGetUtilizationRates"
    gpus.write(f"devices 2\n0 fail {function} {code} from 1")
    schema, values, errors, log = gpus.answer(program(KEPT_TICKING))
    assert basic_keys(0) <= set(schema)
    assert values["gpu_0_utilization_percentage"][-1] is None
    assert None not in values["gpu_1_utilization_percentage"]
    assert errors["gpu"] == 1
    assert len(log) == (code == "NO_PERMISSION")


@pytest.mark.parametrize("code", ["UNKNOWN", "TIMEOUT", "NO_DATA", "INVALID_ARGUMENT"])
def test_a_call_that_fails_now_and_then_is_absent_then(gpus: FakeGpus, code: str) -> None:
    gpus.write(failures(code, "from 1"))
    schema, values, errors, log = gpus.answer(program(KEPT_TICKING))
    for index, names in enumerate(CALLS.values()):
        assert all_keys(index) <= set(schema)
        if index < 2:
            for name in names:
                assert values[f"gpu_{index}_{name}"][-1] is None
    assert values["gpu_2_power_usage_watts"][-1] is None, "of the same call"
    assert values["gpu_3_power_usage_percentage"][-1], "of a limit the last one is in force"
    assert_others_work(values)
    assert errors["gpu"] > 0
    assert errors["gpu_detail"] > 0
    assert log == []


NONSENSE = {
    "utilization 250": {"utilization_percentage"},
    "utilization -1": {"utilization_percentage"},
    "memory_used 900e9": {"memory_usage_megabytes", "memory_usage_percentage"},
    "memory_total 0": {"memory_usage_megabytes", "memory_usage_percentage"},
    "power_limit 0": {"power_usage_percentage"},
    "temperature -1": {"temperature_celsius"},
    "sm_clock -1": {"sm_clock_megahertz"},
    "power -1": {"power_usage_watts", "power_usage_percentage"},
}


def test_nonsense_is_absent_and_counted(gpus: FakeGpus) -> None:
    lines = [f"{index} {value}" for index, value in enumerate(NONSENSE)]
    gpus.write("\n".join([f"devices {len(lines)}", *lines, f"{len(lines) - 1} energy none"]))
    schema, values, errors, log = gpus.answer(program(KEPT_TICKING))
    for index, names in enumerate(NONSENSE.values()):
        for key in basic_keys(index):
            name = key.removeprefix(f"gpu_{index}_")
            assert (set(values[key]) == {None}) == (name in names), key
        assert {f"gpu_{index}_{name}" for name in names} <= set(schema)
    assert (
        set(values["gpu_5_temperature_celsius"])
        == set(values["gpu_6_sm_clock_megahertz"])
        == {None}
    )
    assert errors["gpu"] > 0
    assert errors["gpu_detail"] > 0
    assert log == []


LOST = """
gpu_device.RETRY_SECONDS = 0.3
with Sampler(0.02, 5, sources="cpu,gpu,gpu_detail") as sampler:
    there = has("gpu_0_utilization_percentage")
    windows = windows_until(sampler, there)
    windows += windows_until(sampler, lambda window: not there(window))
    windows += windows_until(sampler, there)
print(repr(([window["gpu_1_utilization_percentage"].mean for window in windows], lines)))
"""


@pytest.mark.parametrize("code", ["GPU_IS_LOST", "RESET_REQUIRED"])
def test_a_lost_device_is_absent_until_it_is_back(gpus: FakeGpus, code: str) -> None:
    gpus.write(f"devices 2\n0 fail * {code} from 1.2 until 2.2")
    other, log = gpus.answer(program(LOST))
    assert set(other) == {31}
    lost, back = log
    assert lost.startswith("WARNING GPU 0 cannot be read: ")
    assert lost.endswith("It is tried again every 0.3 s; all else goes on.")
    assert back == "INFO GPU 0 is read again."


def test_a_device_that_is_lost_at_the_start_comes_back(gpus: FakeGpus) -> None:
    gpus.write("devices 2\n0 fail * GPU_IS_LOST until 1.5")
    values, log = gpus.answer(
        program("""
gpu_device.RETRY_SECONDS = 0.3
with Sampler(0.02, 5, sources="cpu,gpu,gpu_detail") as sampler:
    window = windows_until(sampler, has("gpu_0_power_usage_percentage"))[-1]
print(repr((means(window), lines)))
""")
    )
    assert values["gpu_0_utilization_percentage"] == 30
    assert values["gpu_0_power_usage_watts"] == 200
    assert values["gpu_1_utilization_percentage"] == 31
    assert len(log) == 2


def test_a_device_of_others_is_left_out(gpus: FakeGpus) -> None:
    gpus.write("devices 2\n0 fail nvmlDeviceGetHandleByIndex_v2 NO_PERMISSION")
    schema, _, _, log = gpus.answer(program(KEPT_TICKING))
    assert not [key for key in schema if key.startswith("gpu_0")]
    assert basic_keys(1) <= set(schema)
    assert log == ["WARNING GPU 0 is left out: Insufficient Permissions"]


def test_a_library_that_others_have_shut_down_is_initialised_again(gpus: FakeGpus) -> None:
    gpus.write("devices 1\n0 mig 1\n0:0 memory_used 1e9")
    log = gpus.answer(
        program("""
import pynvml
with Sampler(0.02, 5, sources="cpu,gpu") as sampler:
    windows_until(sampler, has("gpu_0_mig_0_memory_usage_megabytes"))
    for _ in range(3):
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:
            pass
    windows_until(sampler, lambda window: not has("gpu_0_memory_usage_megabytes")(window))
    windows_until(sampler, has("gpu_0_memory_usage_megabytes"))
    windows_until(sampler, has("gpu_0_mig_0_memory_usage_megabytes"))
print(repr(lines))
""")
    )
    assert log == []


# ---- calls that do not return -------------------------------------------------------------------
# They sleep for longer than a program of these tests may take.


def test_a_call_that_hangs_delays_nothing_else(gpus: FakeGpus) -> None:
    gpus.write("devices 2\n1 sleep nvmlDeviceGetMemoryInfo 1000 from 1.2")
    values, has_ended = gpus.answer(
        program("""
sampler = Sampler(0.02, 5, sources="memory,gpu")
sampler.start()
there = has("gpu_0_memory_usage_megabytes")
windows_until(sampler, there)
windows = windows_until(sampler, lambda window: not there(window))
windows += [sampler.next_window(30) for _ in range(5)]
has_ended = sampler.stop()
windows += sampler.windows()
print(repr(([window["system_memory_usage_megabytes"].mean for window in windows], has_ended)))
""")
    )
    assert None not in values
    assert has_ended


def test_what_was_read_before_a_call_that_hangs_is_there(gpus: FakeGpus) -> None:
    gpus.write("devices 2\n1 sleep nvmlDeviceGetMemoryInfo 1000 from 1.2 times 1")
    calls = gpus.answer(
        program("""
with Sampler(0.02, 5, sources="memory,gpu") as sampler:
    taken = []
    while len(taken) < 3 or taken[-1] != (None, None):
        window = sampler.next_window(30)
        taken.append(tuple(window[f"gpu_{i}_utilization_percentage"].mean for i in (0, 1)))
print(repr(taken))
""")
    )
    assert calls[-1] == (None, None)
    assert (30, 31) in calls
    assert all(pair in ((30, 31), (None, None)) for pair in calls)


def test_a_first_reading_that_hangs_delays_the_start_by_a_moment(gpus: FakeGpus) -> None:
    gpus.write("devices 1\n0 sleep nvmlDeviceGetUtilizationRates 1000 from 1.5")
    value = gpus.answer(
        program("""
sampler = Sampler(0.02, 5, sources="memory,gpu")
time.sleep(2)
with sampler:
    window = sampler.next_window(30)
print(repr(window["system_memory_usage_megabytes"].mean))
""")
    )
    assert value > 0


@pytest.mark.parametrize("at", ["search", "start"])
def test_where_there_is_no_further_thread_the_host_is_sampled(gpus: FakeGpus, at: str) -> None:
    value, log = gpus.answer(
        program("""
from sysmetrics_native import threads

def refuse(thread):
    if thread.name == "smn-gpu":
        raise RuntimeError("can't start new thread")
    return start(thread)

start = threads.Thread.start
if sys.argv[1] == "search":
    threads.Thread.start = refuse
sampler = Sampler(0.02, 5, sources="memory,gpu")
threads.Thread.start = refuse
with sampler:
    window = sampler.next_window(30)
print(repr((window["system_memory_usage_megabytes"].mean, lines)))
"""),
        at,
    )
    assert value > 0
    assert "can't start new thread" in log[0]


def test_what_others_have_opened_is_not_shut_down(gpus: FakeGpus) -> None:
    gpus.write("devices 1\n* fail nvmlInitWithFlags UNKNOWN from 0 times 1")
    assert (
        gpus.answer(
            program("""
import pynvml
from sysmetrics_native import describe
sampler = Sampler(0.02, 5, sources="memory,gpu")
assert sampler.gpus == ()
pynvml.nvmlInit()
describe()
print(repr(pynvml.nvmlDeviceGetCount()))
""")
        )
        == 1
    )
    calls = gpus.calls()
    assert (calls["nvmlInitWithFlags"], calls["nvmlShutdown"]) == (3, 1)


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetName", "nvmlDevice*"])
def test_a_library_that_does_not_answer_is_given_up(gpus: FakeGpus, function: str) -> None:
    gpus.write(f"devices 1\n* sleep {function} 1000")
    sources, log, _ = gpus.answer(
        program(f"python_gpus.OPEN_PATIENCE_SECONDS = 0.3\n{NOTHING_THERE}")
    )
    assert sources == ["cpu"]
    assert log == ["WARNING GPUs are not monitored. NVIDIA: no answer within 0.3 s."]


def test_a_child_of_a_fork_calls_nothing(gpus: FakeGpus) -> None:
    """Also where the parent's call hangs at that moment."""
    gpus.write("devices 1\n0 sleep nvmlDeviceGetMemoryInfo 1000 from 1.2")
    status = gpus.answer(
        program("""
sampler = Sampler(0.02, 5, sources="memory,gpu")
sampler.start()
there = has("gpu_0_memory_usage_megabytes")
windows_until(sampler, there)
windows_until(sampler, lambda window: not there(window))
child = os.fork()
if child == 0:
    sampler.start()
    os._exit(0 if sampler.stop() and sampler.next_window(5) is None else 1)
status = os.waitpid(child, 0)[1]
sampler.stop()
print(repr(status))
""")
    )
    assert status == 0
    assert gpus.forked_calls() == {}


def test_the_thread_ends_with_sampling(gpus: FakeGpus) -> None:
    names = gpus.answer(
        program("""
def ours():
    return sorted(t.name for t in threading.enumerate() if t.name.startswith("smn-"))
names = [ours()]
with Sampler(0.02, 5, sources="memory,gpu") as sampler:
    names.append(ours())
deadline = time.monotonic() + 30
while ours() and time.monotonic() < deadline:
    time.sleep(0.01)
names.append(ours())
print(repr(names))
""")
    )
    assert names == [[], ["smn-gpu", "smn-host"], []]
    calls = gpus.calls()
    assert calls["nvmlShutdown"] == calls["nvmlInitWithFlags"]

"""Drivers that fail, lie, hang and come back: what that costs, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fake_gpus import EMPTY_NVML, FakeGpus
from tests.sampled import Sampled, mostly, never, sample, sample_once

CPU_AND_GPU: dict[str, Any] = {
    "sources": "cpu,memory,gpu",
    "interval": 0.02,
    "samples_per_window": 10,
}
"""Windows of 0.2 s, of which two readings are, unless the machine is busy."""
HALF_SECONDS = {**CPU_AND_GPU, "samples_per_window": 25}

UTILIZATION = "utilization_percentage"
MEMORY = "memory_usage_megabytes"
WATTS = "power_usage_watts"
SHARE = "power_usage_percentage"


def assert_host_is_unharmed(sampled: Sampled) -> None:
    """No driver holds up the ticks, though a busy machine may; none lacks what is not of a GPU."""
    ticks, missed = sampled.stats["ticks"], sampled.stats["missed"]
    assert missed <= 4 * ticks + 50
    for window in sampled.whole:
        assert window.mean("system_memory_usage_megabytes") is not None
        assert window.mean("cpu_utilization_percentage") is not None


# ---- codes --------------------------------------------------------------------------------------

SOUND = "live\ndevices 9"
FAULTS = """
live
devices 9
1 fail nvmlDeviceGetUtilizationRates TIMEOUT
2 fail nvmlDeviceGetUtilizationRates UNKNOWN
3 fail nvmlDeviceGetMemoryInfo NO_DATA
4 fail nvmlDeviceGetTotalEnergyConsumption INVALID_ARGUMENT
5 fail nvmlDeviceGetEnforcedPowerLimit UNKNOWN
6 utilization 250
7 memory_used 999e9
8 power_limit 1e6
"""
BASIC = (UTILIZATION, MEMORY, "memory_usage_percentage", WATTS, SHARE)
EVERY = {f"gpu_{i}_{name}" for i in range(9) for name in BASIC}
ABSENT = {
    *(f"gpu_{i}_{UTILIZATION}" for i in (1, 2, 6)),
    *(f"gpu_{i}_memory_usage_{unit}" for i in (3, 7) for unit in ("megabytes", "percentage")),
    *(f"gpu_4_{key}" for key in (WATTS, SHARE)),
}
"""In the meantime. Of a limit that cannot be read the last one is in force."""
FAULTS_COME_AND_GO = f"""
wait_for(has(*{EVERY}))
write({FAULTS!r})
wait_for(has("gpu_0_{UTILIZATION}"), lacks(*{ABSENT}), said("GetEnforcedPowerLimit"))
mark()
take(4)
mark()
write({SOUND!r})
wait_for(has(*{EVERY}))
"""


@pytest.fixture
def faults(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Sampled:
    """Every device but the first has one that goes by: a call that fails, or a lie."""
    return sample_once(
        tmp_path_factory, SOUND, 0, during=FAULTS_COME_AND_GO, backend=backend, **CPU_AND_GPU
    )


def test_a_reading_that_fails_or_lies_costs_itself(faults: Sampled) -> None:
    """Before and after the faults there was everything, or the program had not come to its end."""
    assert_host_is_unharmed(faults)
    assert {key for key in faults.units if key.startswith("gpu_")} == EVERY
    for key in ABSENT:
        assert never(faults.between(0), key), key
    for key in EVERY - ABSENT:
        assert mostly(faults.between(0), key), key
        assert mostly(faults.whole, key), key


def test_what_is_there_is_true(faults: Sampled) -> None:
    """The energy counter goes on while it cannot be read: means hold what it has counted."""
    for window in faults.whole:
        for i in range(9):
            assert window.mean(f"gpu_{i}_{UTILIZATION}") in (None, 30.0 + i)
            assert window.mean(f"gpu_{i}_{MEMORY}") in (None, 10_000.0 + 1000.0 * i)
            watts, share = window.mean(f"gpu_{i}_{WATTS}"), window.mean(f"gpu_{i}_{SHARE}")
            if watts is not None:
                assert watts == pytest.approx(200 + 5 * i, rel=0.05)
                assert share == pytest.approx(100 * (200 + 5 * i) / (600 + 10 * i), rel=0.05)


def test_a_call_that_fails_is_said_once_and_counted(faults: Sampled) -> None:
    said = sorted(faults.warnings)
    word = "; where that happens its values are left out without a word"
    functions = ("UtilizationRates", "MemoryInfo", "TotalEnergyConsumption", "EnforcedPowerLimit")
    for function in functions:
        (line,) = (line for line in said if f": nvmlDeviceGet{function}: " in line)
        assert line.endswith(word)
    lies = [line for line in said if "a value that cannot be true" in line]
    assert {line.partition(":")[0] for line in lies} <= {
        f"GPU {i} (Fake GPU {i})" for i in (6, 7, 8)
    }
    assert 2 <= len(lies) == len(said) - len(functions)  # the limit is read once a second
    assert faults.stats["sources"]["gpu"]["errors"] >= 7  # the lie about a limit may not be read


NONSENSE = {
    "utilization 250": {UTILIZATION},
    "utilization -1": {UTILIZATION},
    "memory_used 900e9": {MEMORY, "memory_usage_percentage"},
    "memory_total 0": {MEMORY, "memory_usage_percentage"},
    "power_limit 0": {SHARE},
    "temperature 1000": {"temperature_celsius"},
    "sm_clock -1": {"sm_clock_megahertz"},
    "memory_clock 1e9": {"memory_clock_megahertz"},
    "power 1e6": {WATTS, SHARE},
}
"""The last one's device has no counter of energy."""


def test_nonsense_is_absent_and_counted(gpus: FakeGpus, backend: str) -> None:
    lines = [f"{index} {value}" for index, value in enumerate(NONSENSE)]
    gpus.write("\n".join([f"devices {len(lines)}", *lines, f"{len(lines) - 1} energy none"]))
    options = {**CPU_AND_GPU, "sources": "cpu,memory,gpu,gpu_detail"}
    gather = "gather(*(f'gpu_{i}_{name}' for i, names in enumerate(%r) for name in names))"
    expected = [NAMES - names - {"energy_joules"} for names in NONSENSE.values()]
    sampled = sample(gpus, 1, during=gather % expected, backend=backend, **options)
    assert_host_is_unharmed(sampled)
    for index, lost in enumerate(NONSENSE.values()):
        prefix = f"gpu_{index}_"
        there = {
            key.removeprefix(prefix)
            for window in sampled.windows
            for key in window.means
            if key.startswith(prefix)
        }
        lacking = lost | ({"energy_joules"} if index == len(NONSENSE) - 1 else set())
        assert NAMES - there == lacking, list(NONSENSE)[index]
    errors = {name: of["errors"] for name, of in sampled.stats["sources"].items()}
    assert errors["cpu"] == errors["memory"] == 0
    assert errors["gpu"] >= 5
    assert errors["gpu_detail"] >= 3
    # One line a device, but for a limit of 0: that is none.
    assert [line.split(" ")[1] for line in sampled.warnings] == [*"01235678"]


CALLS = {
    "nvmlDeviceGetUtilizationRates": {UTILIZATION},
    "nvmlDeviceGetMemoryInfo": {MEMORY, "memory_usage_percentage"},
    "nvmlDeviceGetTotalEnergyConsumption": {"energy_joules"},
    "nvmlDeviceGetEnforcedPowerLimit": {SHARE},
    "nvmlDeviceGetTemperature": {"temperature_celsius"},
    "nvmlDeviceGetClockInfo": {"sm_clock_megahertz", "memory_clock_megahertz"},
    "nvmlDeviceGetCurrentClocksEventReasons": {"throttled_percentage"},
    "nvmlDeviceGetTotalEccErrors": {"ecc_errors"},
}
NAMES = {
    *(UTILIZATION, MEMORY, "memory_usage_percentage", WATTS, SHARE, "temperature_celsius"),
    *("energy_joules", "sm_clock_megahertz", "memory_clock_megahertz", "throttled_percentage"),
    "ecc_errors",
}
"""Of a device that has everything that both backends read."""
KEPT_TO_ITSELF, NO_LONGER_SUPPORTED, NO_LONGER_ALLOWED, WELL = 16, 17, 18, 19


def refusals() -> str:
    """Of each function a device on which it is not supported, and one where it is not allowed."""
    functions = [function.replace("EventReasons", "*") for function in CALLS]
    return "\n".join(
        [
            "live",
            "devices 20",
            *(f"{i} fail {function} NOT_SUPPORTED" for i, function in enumerate(functions)),
            *(f"{8 + i} fail {function} NO_PERMISSION" for i, function in enumerate(functions)),
            f"{KEPT_TO_ITSELF} fail nvmlDeviceGetHandleByIndex_v2 NO_PERMISSION",
        ]
    )


NO_LONGER = f"""
{NO_LONGER_SUPPORTED} fail nvmlDeviceGetUtilizationRates NOT_SUPPORTED
{NO_LONGER_ALLOWED} fail nvmlDeviceGetMemoryInfo NO_PERMISSION
"""
DROPPED = (f"gpu_{NO_LONGER_SUPPORTED}_{UTILIZATION}", f"gpu_{NO_LONGER_ALLOWED}_{MEMORY}")
THEN_DROPPED = """
wait_for(has({well!r}, *{dropped}))
write({scenario!r})
wait_for(has({well!r}), lacks(*{dropped}))
mark()
take(3)
"""


def test_what_is_refused_is_left_out_and_not_asked_for_again(gpus: FakeGpus, backend: str) -> None:
    gpus.write(refusals())
    options = {**CPU_AND_GPU, "sources": "cpu,memory,gpu,gpu_detail"}
    well = f"gpu_{WELL}_{UTILIZATION}"
    drop = THEN_DROPPED.format(well=well, dropped=DROPPED, scenario=refusals() + NO_LONGER)
    sampled = sample(gpus, 0, during=drop, backend=backend, **options)
    assert_host_is_unharmed(sampled)

    for i in range(16):
        function, names = list(CALLS.items())[i % 8]
        assert NAMES - sampled.keys_of(i) == names, function
        # A name is two calls at most, and the memory is also asked for who it is.
        assert gpus.calls(function)[f"{function} {i}"] <= 2
    assert sampled.keys_of(WELL) >= NAMES

    # One that the driver keeps to itself; the others keep their indices.
    assert [gpu[0] for gpu in sampled.gpus] == [i for i in range(20) if i != KEPT_TO_ITSELF]
    assert {window.mean(well) for window in sampled.whole} <= {None, 30.0 + WELL}
    assert mostly(sampled.whole, well)

    # What worked at first is absent from then on.
    assert sampled.keys_of(NO_LONGER_SUPPORTED) >= NAMES
    assert sampled.keys_of(NO_LONGER_ALLOWED) >= NAMES
    assert all(never(sampled.between(0), key) for key in DROPPED)

    # Nothing failed, so nothing counts as an error; the user may do something about permissions.
    errors = {name: of["errors"] for name, of in sampled.stats["sources"].items()}
    assert errors == {"cpu": 0, "memory": 0, "gpu": 0, "gpu_detail": 0}
    said = [line for line in sampled.warnings if "no permission" in line]
    functions = {*CALLS, "nvmlDeviceGetClockInfo of the memory"}
    assert sorted(line.split(": ")[1] for line in said) == sorted(functions)
    (left_out,) = set(sampled.warnings) - set(said)
    assert left_out.startswith(f"GPU {KEPT_TO_ITSELF}: the driver gives no access to it")


LOST = """
live
devices 4
1 fail * GPU_IS_LOST
2 fail * RESET_REQUIRED
"""
OF_LOST = {f"gpu_{i}_{name}" for i in (1, 2) for name in BASIC}
OF_OTHERS = {f"gpu_{i}_{name}" for i in (0, 3) for name in BASIC}
TWO_ARE_LOST = f"""
wait_for(has(*{OF_LOST}))
write({LOST!r})
wait_for(has("gpu_0_{UTILIZATION}"), lacks(*{OF_LOST}))
mark()
take(5)
"""


def test_a_lost_device_costs_itself(gpus: FakeGpus, backend: str) -> None:
    gpus.write("live\ndevices 4")
    sampled = sample(gpus, 0, during=TWO_ARE_LOST, backend=backend, **CPU_AND_GPU)
    assert_host_is_unharmed(sampled)
    assert {key for key in sampled.units if key.startswith("gpu_")} == OF_LOST | OF_OTHERS
    for key in OF_LOST:
        assert never(sampled.between(0), key), key
    for key in OF_OTHERS:
        assert mostly(sampled.whole, key), key
    assert [line.partition(" ")[2][:1] for line in sampled.warnings] == ["1", "2"]
    for line in sampled.warnings:
        assert line.endswith("is lost or must be reset; it is tried again every 30 s")
    # They are left alone: the calls are those of before and one that failed. There were readings
    # of the others in three windows at least since then.
    calls = gpus.calls("nvmlDeviceGetMemoryInfo")
    for i in (1, 2):
        assert calls[f"nvmlDeviceGetMemoryInfo {i}"] <= calls["nvmlDeviceGetMemoryInfo 0"] - 3
    assert sampled.stats["sources"]["gpu"]["errors"] == 2


COMES_BACK = f"""
wait_for(has("gpu_1_{WATTS}"))
write("live\\ndevices 2\\n1 fail * GPU_IS_LOST")
wait_for(has("gpu_0_{UTILIZATION}"), lacks("gpu_1_{UTILIZATION}"))
mark()
write("live\\ndevices 2")
wait_for(has("gpu_1_{UTILIZATION}"))
mark()
wait_for(has("gpu_1_{WATTS}"), of=3)
"""


@pytest.mark.long
def test_a_lost_device_comes_back(gpus: FakeGpus, backend: str) -> None:
    """It is tried again every 30 s."""
    gpus.write("live\ndevices 2")
    sampled = sample(gpus, 0, during=COMES_BACK, backend=backend, **HALF_SECONDS)
    *absent, back = sampled.between(0)
    assert 28.0 < back.end - absent[0].start < 40.0
    for name in BASIC:
        assert never(absent, f"gpu_1_{name}"), name
        assert mostly(sampled.between(1), f"gpu_1_{name}"), name
        assert mostly(sampled.whole, f"gpu_0_{name}"), name
    # The counter went on while nobody looked: the mean of the window of its return is that of all.
    assert back.mean(f"gpu_1_{WATTS}") == pytest.approx(205.0, rel=0.02)
    for window in sampled.whole:
        assert window.mean(f"gpu_1_{WATTS}") in (None, pytest.approx(205.0, rel=0.25))
    lost, came = sampled.warnings
    assert lost.startswith("GPU 1 (Fake GPU 1): ")
    assert came == "GPU 1 (Fake GPU 1): it is back"


def test_codes_at_random_never_stop_anything(gpus: FakeGpus, backend: str) -> None:
    gpus.write(
        """
        devices 8
        seed 3
        * fail nvmlDeviceGetMemoryInfo UNKNOWN chance 0.2
        * fail nvmlDeviceGetUtilizationRates TIMEOUT chance 0.3
        * fail nvmlDeviceGetTotalEnergyConsumption 999 chance 0.2
        * fail nvmlDeviceGetEnforcedPowerLimit 4711 chance 0.5
        """
    )
    enough = "while sampler.stats()['sources']['gpu']['errors'] <= 30: take()"
    sampled = sample(gpus, 5, during=enough, backend=backend, **CPU_AND_GPU)
    assert_host_is_unharmed(sampled)
    for window in sampled.whole:
        for key, value in window.means.items():
            index = int(key.split("_")[1])
            if key.endswith(UTILIZATION):
                assert value == 30 + index
            if key.endswith(WATTS):
                assert value == pytest.approx(200 + 5 * index, rel=0.25)
    assert len(sampled.warnings) <= 4  # one of each function


# ---- calls that last ----------------------------------------------------------------------------


SLEEPS = f"""
wait_for(has("gpu_0_{UTILIZATION}"))
write("live\\ndevices 2\\n1 sleep nvmlDeviceGetMemoryInfo 1000 times 1")
wait_for(said("has not returned"))
wait_for(lacks("gpu_0_{UTILIZATION}"))
mark()
take(5)
"""


def test_a_call_that_sleeps_delays_nobody(gpus: FakeGpus, backend: str) -> None:
    """A quarter of an hour: windows go out, stop and the end of the process do not wait."""
    gpus.write("live\ndevices 2")
    sampled = sample(gpus, 0, during=SLEEPS, backend=backend, **CPU_AND_GPU)
    assert_host_is_unharmed(sampled)
    assert never(sampled.between(0), f"gpu_0_{UTILIZATION}")
    assert sampled.stop_seconds < 15.0
    (line,) = sampled.warnings
    assert line == (
        "GPU 1: nvmlDeviceGetMemoryInfo has not returned for 2 s; until it does, there are no "
        "values of GPUs"
    )


def test_fork_in_a_call_that_sleeps(gpus: FakeGpus, backend: str) -> None:
    """The child touches no driver, and does not wait for one."""
    gpus.write("live\ndevices 2")
    fork = f"""
    wait_for(has("gpu_0_{UTILIZATION}"))
    write("live\\ndevices 2\\n1 sleep nvmlDeviceGetMemoryInfo 1000 times 1")
    wait_for(said("has not returned"))
    child = os.fork()
    if child == 0:
        sampler.start()
        assert sampler.stop() and sampler.next_window(0.1) is None
        del sampler
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    """
    sampled = sample(gpus, 0, during=fork, backend=backend, **CPU_AND_GPU)
    assert sampled.stop_seconds < 15.0
    assert gpus.forked_calls() == {}


SHORT_PATIENCE = {
    "native": "from sysmetrics_native.backends import native_gpus\n"
    "native_gpus.FIND_PATIENCE_SECONDS = 0.3",
    "psutil": "from sysmetrics_native.backends import python_gpus\n"
    "python_gpus.OPEN_PATIENCE_SECONDS = 0.3",
}


def assert_nothing_is_read(sampled: Sampled, patience: str) -> None:
    assert not [key for key in sampled.units if key.startswith("gpu")]
    assert sampled.gpus == []
    assert_host_is_unharmed(sampled)
    assert len(sampled.warnings) == 1
    assert sampled.warnings[0].startswith("No GPU is read")
    assert f"did not answer within {patience} s" in sampled.warnings[0]


@pytest.mark.parametrize("function", ["nvmlInit*", "nvmlDevice*"])
def test_a_driver_that_does_not_start_in_time(function: str, gpus: FakeGpus, backend: str) -> None:
    """The run goes on without GPUs and says so, and so does the end of the program."""
    gpus.write(f"devices 2\n* sleep {function} 1000 times 1")
    before = SHORT_PATIENCE[backend]
    sampled = sample(gpus, 1, before=before, backend=backend, **CPU_AND_GPU)
    assert sampled.create_seconds >= 0.3
    assert_nothing_is_read(sampled, "0.3")


@pytest.mark.long
def test_a_driver_has_ten_seconds_to_start(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 2\n* sleep nvmlInit* 1000 times 1")
    sampled = sample(gpus, 1, backend=backend, **CPU_AND_GPU)
    assert 9.0 < sampled.create_seconds < 30.0
    assert_nothing_is_read(sampled, "10")


# ---- libraries ----------------------------------------------------------------------------------

SEVERAL_TIMES = """
import logging, sys

lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append((record.levelname, record.getMessage()))
logging.getLogger("sysmetrics_native").addHandler(handler)
logging.getLogger("sysmetrics_native").setLevel(logging.INFO)

from sysmetrics_native import Sampler

samplers = [Sampler(backend=sys.argv[1], sources="cpu,gpu") for _ in range(int(sys.argv[2]))]
print(repr((lines, [[info.key for info in sampler.schema] for sampler in samplers])))
"""


def test_a_library_that_does_not_initialise(gpus: FakeGpus, backend: str) -> None:
    """A line that says which and why, for people without GPUs no warning; it is tried anew."""
    gpus.write(
        """
        devices 2
        * fail nvmlInit* DRIVER_NOT_LOADED times 1
        * fail nvmlInit* LIB_RM_VERSION_MISMATCH times 1
        * fail nvmlInit* UNKNOWN times 1
        * fail nvmlDeviceGetCount_v2 UNKNOWN times 1
        """
    )
    lines, schemas = gpus.answer(SEVERAL_TIMES, backend, "5")
    for keys, (level, line), code in zip(schemas[:4], lines, (9, 18, 999, 999), strict=False):
        assert keys == ["cpu_utilization_percentage"]
        assert level == "INFO"
        assert line.startswith("No GPU is read. Looked for: ")
        assert "libnvidia-ml.so.1: nvml" in line
        assert f"(code {code})" in line
    assert len(lines) == 5
    assert "2 NVIDIA GPUs found by " in lines[4][1]
    assert f"gpu_1_{UTILIZATION}" in schemas[4]


def test_a_library_without_functions(tmp_path, backend: str) -> None:
    lines, (keys,) = FakeGpus(tmp_path, EMPTY_NVML).answer(SEVERAL_TIMES, backend, "1")
    assert keys == ["cpu_utilization_percentage"]
    ((level, line),) = lines
    assert level == "INFO"
    assert "libnvidia-ml.so.1: " in line


def test_a_gpu_that_nobody_may_use_is_none(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 2\n* fail nvmlDeviceGetHandleByIndex_v2 NO_PERMISSION")
    lines, (keys,) = gpus.answer(SEVERAL_TIMES, backend, "1")
    assert keys == ["cpu_utilization_percentage"]
    assert [level for level, line in lines if "gives no access" in line] == ["WARNING"] * 2
    (line,) = (line for level, line in lines if level == "INFO")
    assert line.startswith("No GPU is read. Looked for: ")
    assert "libnvidia-ml.so.1: 2 devices, but access to none" in line
    calls = gpus.calls()
    inits = sum(count for name, count in calls.items() if name.startswith("nvmlInit"))
    assert calls["nvmlShutdown"] == inits == 1


def test_somebody_else_shuts_the_library_down(gpus: FakeGpus, backend: str) -> None:
    """NVML counts who uses it, and a program that counts wrongly takes it from us, too."""
    gpus.write("devices 2\n0 mig 1\n0:0 memory_used 1e9")
    keys = (f"gpu_0_{WATTS}", f"gpu_0_mig_0_{MEMORY}", f"gpu_1_{UTILIZATION}")
    shut_down = f"""
    wait_for(has(*{keys}))
    import ctypes
    library = ctypes.CDLL("libnvidia-ml.so.1")
    while library.nvmlShutdown() == 0:
        pass
    wait_for(lacks(*{keys}), said("was shut down by another part"))
    wait_for(has(*{keys}))
    """
    sampled = sample(gpus, 0, during=shut_down, backend=backend, **CPU_AND_GPU)
    assert_host_is_unharmed(sampled)
    shut = [line for line in sampled.warnings if "was shut down by another part" in line]
    assert 1 <= len(shut) <= 2
    assert len(sampled.warnings) == 2 * len(shut)  # and that it is back
    calls = gpus.calls()
    inits = sum(count for name, count in calls.items() if name.startswith("nvmlInit"))
    assert inits == 2


# ---- twice --------------------------------------------------------------------------------------


def test_two_samplers_at_once(gpus: FakeGpus, backend: str) -> None:
    gpus.write("devices 2")
    second = """
    with Sampler(**options) as other:
        key = "gpu_1_utilization_percentage"
        while (mean := other.next_window(30.0)[key].mean) is None:
            pass
        assert mean == 31.0
    wait_for(has("gpu_1_utilization_percentage"))
    """
    sampled = sample(gpus, 0, during=second, backend=backend, **CPU_AND_GPU)
    assert mostly(sampled.whole, f"gpu_1_{UTILIZATION}")
    calls = gpus.calls()
    assert calls["nvmlShutdown"] == sum(
        count for name, count in calls.items() if name.startswith("nvmlInit")
    )

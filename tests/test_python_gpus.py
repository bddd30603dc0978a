"""GPUs of the psutil backend, on the stand-in for NVIDIA's library: what the C core has not.

What both backends promise is in test_gpu_sampling.py and test_gpu_isolation.py.
"""

from __future__ import annotations

import pytest

from tests.fake_gpus import FakeGpus

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
    deadline = time.monotonic() + 120
    windows = []
    while not windows or not condition(windows[-1]):
        windows.append(sampler.next_window(30))
        assert windows[-1] is not None and time.monotonic() < deadline
    return windows

def write(scenario):
    "Replace the scenario, which is live."
    path = os.environ["SMN_FAKE_GPUS"]
    with open(path) as file:
        count = next(line for line in file if line.startswith("count "))
    with open(path + ".other", "w") as file:
        file.write(count + "live\\n" + scenario)
    os.replace(path + ".other", path)

def has(key, value=None):
    "Whether a window has the key, with that mean if one is given."
    return lambda window: window[key].mean is not None and value in (None, window[key].mean)
"""


def program(text: str) -> str:
    """A program after the preparation."""
    return f"{PREPARE}\n{text}"


# ---- which are read -----------------------------------------------------------------------

NOTHING_THERE = """
sampler = Sampler(0.1, 10, sources="cpu,gpu")
print(repr((list(sampler.stats()["sources"]), lines, threading.active_count())))
"""


HAS_NOTHING_BUT_A_LIMIT = "\n".join(
    f"0 {value} none"
    for value in (
        *("utilization", "memory_used", "memory_total", "energy", "power", "temperature"),
        *("sm_clock", "memory_clock", "throttle_reasons", "ecc_corrected"),
    )
)


@pytest.mark.parametrize(
    "lines",
    [
        HAS_NOTHING_BUT_A_LIMIT,
        "0 fail nvmlDeviceGetHandleByIndex_v2 NOT_SUPPORTED",
        "* fail nvmlInit* DRIVER_NOT_LOADED",
    ],
)
def test_where_nothing_can_be_read_no_thread_stays(gpus: FakeGpus, lines: str) -> None:
    gpus.write(f"devices 1\n{lines}")
    sources, _, threads = gpus.answer(program(NOTHING_THERE))
    assert (sources, threads) == (["cpu"], 1)


def test_a_device_without_any_basic_value_may_have_detail(gpus: FakeGpus) -> None:
    basic = ("utilization", "memory_used", "memory_total", "energy", "power")
    gpus.write("\n".join(["devices 1", *(f"0 {value} none" for value in basic)]))
    value = gpus.answer(
        program("""
with Sampler(0.02, 10, sources="gpu,gpu_detail") as sampler:
    sampler.next_window(30)
*_, last = sampler.windows(0)
print(repr((last["gpu_0_temperature_celsius"].mean, list(sampler.stats()["sources"]))))
""")
    )
    assert value == (50, ["gpu_detail"])


def test_without_the_bindings_it_says_what_to_install(gpus: FakeGpus) -> None:
    missing = 'import sys\nsys.modules["pynvml"] = sys.modules["pyrsmi"] = None\n'
    sources, log, _ = gpus.answer(missing + program(NOTHING_THERE))
    assert sources == ["cpu"]
    (line,) = log
    assert line == (
        "INFO No GPU is read. Looked for: pynvml: not installed (pip install nvidia-ml-py); "
        "pyrsmi: not installed (pip install pyrsmi)."
    )


# ---- what goes wrong ----------------------------------------------------------------------------

LOST = """
gpu_device.RETRY_SECONDS = 0.3
with Sampler(0.02, 5, sources="cpu,gpu,gpu_detail") as sampler:
    there, other = has("gpu_0_utilization_percentage"), has("gpu_1_utilization_percentage")
    windows = windows_until(sampler, there)
    write("devices 2\\n0 fail * GPU_IS_LOST")
    windows += windows_until(sampler, lambda window: other(window) and not there(window))
    write("devices 2")
    windows += windows_until(sampler, there)
print(repr(([window["gpu_1_utilization_percentage"].mean for window in windows], lines)))
"""


def test_a_lost_device_is_absent_until_it_is_back(gpus: FakeGpus) -> None:
    gpus.write("live\ndevices 2")
    other, log = gpus.answer(program(LOST))
    assert {31} <= set(other) <= {31, None}  # a busy machine may leave one out
    _, lost, back = log
    assert lost == (
        "WARNING GPU 0 (Fake GPU 0): nvmlDeviceGetUtilizationRates: the device is lost or must be "
        "reset; it is tried again every 0.3 s"
    )
    assert back == "WARNING GPU 0 (Fake GPU 0): it is back"


def test_a_device_that_is_lost_at_the_start_comes_back(gpus: FakeGpus) -> None:
    gpus.write("devices 2\n0 fail * GPU_IS_LOST until 0.8")
    values, log = gpus.answer(
        program("""
gpu_device.RETRY_SECONDS = 0.3
with Sampler(0.02, 10, sources="cpu,gpu,gpu_detail") as sampler:
    first, second = has("gpu_0_power_usage_percentage"), has("gpu_1_utilization_percentage")
    window = windows_until(sampler, lambda window: first(window) and second(window))[-1]
print(repr((means(window), lines)))
""")
    )
    assert values["gpu_0_utilization_percentage"] == 30
    assert values["gpu_0_power_usage_watts"] == 200
    assert values["gpu_1_utilization_percentage"] == 31
    assert [line.rpartition(": ")[2] for line in log[1:]] == [
        "the device is lost or must be reset; it is tried again every 0.3 s",
        "it is back",
    ]


def test_another_device_does_not_continue_the_series_of_one_that_was_lost(gpus: FakeGpus) -> None:
    gpus.write("devices 2\nlive\n0 uuid GPU-aaaa")
    taken = gpus.answer(
        program("""
gpu_device.RETRY_SECONDS = 0.1
there, other = has("gpu_0_utilization_percentage"), has("gpu_1_utilization_percentage")
with Sampler(0.02, 10, sources="cpu,gpu") as sampler:
    windows_until(sampler, there)
    write("devices 2\\n0 uuid GPU-aaaa\\n0 fail nvmlDeviceGetUtilizationRates GPU_IS_LOST")
    windows_until(sampler, lambda window: other(window) and not there(window))
    write("devices 2\\n0 uuid GPU-bbbb")
    windows = [sampler.next_window(30) for _ in range(4)]
    write("devices 2\\n0 uuid GPU-aaaa")
    windows_until(sampler, there)
print(repr([(there(w), w["gpu_1_utilization_percentage"].mean) for w in windows]))
""")
    )
    assert {(False, 31)} <= set(taken) <= {(False, 31), (False, None)}


def test_an_older_binding_knows_the_older_name(gpus: FakeGpus) -> None:
    gpus.write("devices 1\n0 throttle_reasons 0x4")
    value = gpus.answer(
        program("""
import pynvml
del pynvml.nvmlDeviceGetCurrentClocksEventReasons
with Sampler(0.02, 10, sources="gpu_detail") as sampler:
    window = windows_until(sampler, has("gpu_0_throttled_percentage"))[-1]
print(repr(window["gpu_0_throttled_percentage"].mean))
""")
    )
    assert value == 100
    assert gpus.calls("nvmlDeviceGetCurrentClocksEventReasons") == {}


# ---- calls that do not return -------------------------------------------------------------------
# They sleep for longer than a program of these tests may take.


def test_what_was_read_before_a_call_that_hangs_is_there(gpus: FakeGpus) -> None:
    gpus.write("live\ndevices 2")
    calls = gpus.answer(
        program("""
with Sampler(0.02, 5, sources="memory,gpu") as sampler:
    taken = []
    def take():
        window = sampler.next_window(30)
        taken.append(tuple(window[f"gpu_{i}_utilization_percentage"].mean for i in (0, 1)))
    while (30, 31) not in taken:
        take()
    write("devices 2\\n1 sleep nvmlDeviceGetMemoryInfo 1000 times 1")
    while not any("has not returned" in line for line in lines):
        take()
    for _ in range(5):
        take()
print(repr(taken))
""")
    )
    assert calls[-1] == (None, None)
    assert (30, 31) in calls
    assert all(one in (30, None) and other in (31, None) for one, other in calls)


def test_a_first_reading_that_hangs_delays_the_start_by_a_moment(gpus: FakeGpus) -> None:
    gpus.write("devices 1\n0 sleep nvmlDeviceGetUtilizationRates 1000 from 0.7")
    value = gpus.answer(
        program("""
sampler = Sampler(0.02, 5, sources="memory,gpu")
time.sleep(0.8)
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
    (line,) = (line for line in log if line.startswith("WARNING"))
    assert line.startswith("WARNING No GPU is read")
    assert "can't start new thread" in line


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

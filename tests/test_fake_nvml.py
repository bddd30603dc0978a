"""The stand-in for NVIDIA's driver library, called by NVIDIA's own bindings for Python."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import textwrap

import pytest

from tests.fake_gpus import EMPTY_NVML, NVML, OLD_NVML, FakeGpus, build
from tests.support import wait_until

PREPARE = """
import os, signal, sys, threading, time
import pynvml as nvml
from pynvml import *

def code(function, *arguments):
    "What the call fails with; 0 if it does not."
    try:
        function(*arguments)
    except NVMLError as error:
        return error.value
    return 0

def handle(index=0):
    return nvmlDeviceGetHandleByIndex(index)

nvmlInit()
"""


def with_nvml(program: str, preparation: str = "") -> str:
    return PREPARE + preparation + textwrap.dedent(program)


READ_EVERYTHING = with_nvml("""
def read(h):
    memory, utilization = nvmlDeviceGetMemoryInfo(h), nvmlDeviceGetUtilizationRates(h)
    return {
        "name": nvmlDeviceGetName(h),
        "uuid": nvmlDeviceGetUUID(h),
        "pci_id": nvmlDeviceGetPciInfo(h).busId,
        "memory_total": memory.total,
        "memory_used": memory.used,
        "memory_free": memory.free,
        "utilization": utilization.gpu,
        "memory_utilization": utilization.memory,
        "power": nvmlDeviceGetPowerUsage(h),
        "power_limit": nvmlDeviceGetEnforcedPowerLimit(h),
        "temperature": nvmlDeviceGetTemperature(h, NVML_TEMPERATURE_GPU),
        "sm_clock": nvmlDeviceGetClockInfo(h, NVML_CLOCK_SM),
        "memory_clock": nvmlDeviceGetClockInfo(h, NVML_CLOCK_MEM),
        "throttle_reasons": nvmlDeviceGetCurrentClocksThrottleReasons(h),
        "corrected": nvmlDeviceGetTotalEccErrors(
            h, NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_VOLATILE_ECC),
        "uncorrected": nvmlDeviceGetTotalEccErrors(
            h, NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC),
        "mig": nvmlDeviceGetMigMode(h),
        "gpm": nvmlGpmQueryDeviceSupport(h).isSupportedDevice,
    }
def text(value):
    return value.decode() if isinstance(value, bytes) else value
print([{key: text(value) for key, value in read(handle(i)).items()}
       for i in range(nvmlDeviceGetCount())])
""")

NOT_SUPPORTED = 3
UNKNOWN = 999
GPU_IS_LOST = 15


# ---- readings -----------------------------------------------------------------------------------


def test_no_two_readings_of_no_two_devices_are_alike(gpus: FakeGpus) -> None:
    gpus.write("devices 16")
    devices = gpus.answer(READ_EVERYTHING)
    assert len(devices) == 16
    same_for_all = ("throttle_reasons", "uncorrected", "mig", "gpm")
    for reading in devices[0].keys() - set(same_for_all):
        assert len({device[reading] for device in devices}) == 16, reading
    for device in devices:
        percentages = [device["utilization"], device["memory_utilization"], device["temperature"]]
        assert len(set(percentages)) == 3
        assert 0 < device["memory_used"] < device["memory_total"]
        assert device["memory_free"] == device["memory_total"] - device["memory_used"]
        assert 0 < device["power"] < device["power_limit"]


def test_readings_are_what_the_scenario_says(gpus: FakeGpus) -> None:
    gpus.write("""
        devices 2
        # The next line but one overrides this one for one device.
        * utilization 11
        1 utilization 91
        1 memory_utilization 92
        1 memory_used 5e9
        1 memory_total 7000000000
        1 power 123.456
        1 power_limit 300
        1 temperature 77
        1 sm_clock 1980
        1 memory_clock 2619
        1 throttle_reasons 0x44
        1 ecc_corrected 12
        1 ecc_uncorrected 34
        1 gpm 0
        1 name NVIDIA H100  80GB HBM3
        1 uuid GPU-01234567-89ab-cdef-0123-456789abcdef
        1 pci_id 0001:C3:0a.0
    """)
    first, second = gpus.answer(READ_EVERYTHING)
    assert first["utilization"] == 11
    assert second == {
        "name": "NVIDIA H100  80GB HBM3",
        "uuid": "GPU-01234567-89ab-cdef-0123-456789abcdef",
        "pci_id": "00000001:C3:0A.0",
        "memory_total": 7_000_000_000,
        "memory_used": 5_000_000_000,
        "memory_free": 2_000_000_000,
        "utilization": 91,
        "memory_utilization": 92,
        "power": 123_456,
        "power_limit": 300_000,
        "temperature": 77,
        "sm_clock": 1980,
        "memory_clock": 2619,
        "throttle_reasons": 0x44,
        "corrected": 12,
        "uncorrected": 34,
        "mig": [0, 0],
        "gpm": 0,
    }


def test_none_is_not_supported(gpus: FakeGpus) -> None:
    gpus.write("devices 2\n0 power none\n0 utilization none\n0 memory_used none\n0 mig none")
    program = """
    print([code(f, handle(0)) for f in (nvmlDeviceGetPowerUsage, nvmlDeviceGetUtilizationRates,
        nvmlDeviceGetMemoryInfo, nvmlDeviceGetTotalEnergyConsumption, nvmlDeviceGetMigMode)]
        + [code(nvmlDeviceGetPowerUsage, handle(1))])
    """
    assert gpus.answer(with_nvml(program)) == [NOT_SUPPORTED] * 5 + [0]


def test_nonsense_arrives_as_it_is(gpus: FakeGpus) -> None:
    gpus.write("""
        devices 1
        * utilization 250
        * memory_used 81e9
        * memory_total 80e9
        * power 4e6
        * temperature -1
        * ecc_corrected 1e30
    """)
    (device,) = gpus.answer(READ_EVERYTHING)
    assert device["utilization"] == 250
    assert (device["memory_used"], device["memory_free"]) == (81_000_000_000, 0)
    assert device["power"] == 4_000_000_000
    assert device["temperature"] == 2**32 - 1
    assert device["corrected"] == 2**64 - 1


# ---- time ---------------------------------------------------------------------------------------


def test_values_change_when_the_scenario_says(gpus: FakeGpus) -> None:
    gpus.write("devices 2\n0 utilization 10 @0.05 20 @1000 30\n1 utilization 10 @1000 20")
    program = """
    time.sleep(0.1)
    print([nvmlDeviceGetUtilizationRates(handle(i)).gpu for i in (0, 1)])
    """
    assert gpus.answer(with_nvml(program)) == [20, 10]


@pytest.mark.parametrize(
    ("scenario", "read", "rates", "start"),
    [
        pytest.param(
            "power 100 @0.1 0 @0.2 300\n0 energy_start 5",
            "nvmlDeviceGetTotalEnergyConsumption(h) / 1000",
            (100, 0, 300),
            5,
            id="energy",
        ),
        pytest.param(
            "pcie_receive_rate 1e9 @0.1 0 @0.2 3e9", "field(198)", (1e9, 0, 3e9), 0, id="pcie"
        ),
        pytest.param(
            "nvlink_transmit_rate 1e9 @0.1 0 @0.2 4e9",
            "field((138, 2**32 - 1)) * 1024",
            (1e9, 0, 4e9),
            0,
            id="nvlink",
        ),
        pytest.param(
            "nvlinks 2\n0 nvlink_receive_rate 1e9 @0.1 0 @0.2 4e9",
            "field((139, 1)) * 1024 * 2",
            (1e9, 0, 4e9),
            0,
            id="nvlink-of-one-link",
        ),
    ],
)
def test_counters_are_the_integrals_of_rates(
    scenario: str, read: str, rates: tuple[float, float, float], start: float, gpus: FakeGpus
) -> None:
    gpus.write(f"devices 1\n0 {scenario}")
    program = f"""
    h = handle()
    def field(which):
        (value,) = nvmlDeviceGetFieldValues(h, [which])
        assert value.nvmlReturn == 0 and value.valueType == NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
        return value.value.ullVal
    readings = []
    for _ in range(6):
        before = time.monotonic_ns()
        readings.append((before, {read}, time.monotonic_ns()))
        time.sleep(0.07)
    print(readings)
    """
    readings = gpus.answer(with_nvml(program))

    def integral(nanosecond: int) -> float:
        seconds = (nanosecond - gpus.loaded_ns()) * 1e-9
        parts = (min(seconds, 0.1), min(max(seconds - 0.1, 0), 0.1), max(seconds - 0.2, 0))
        return start + sum(rate * part for rate, part in zip(rates, parts, strict=True))

    # A step of the counter: a millijoule, a KiB of each of two links.
    tolerance = 0.002 if start else 2048
    for before, value, after in readings:
        assert integral(before) - tolerance <= value <= integral(after) + tolerance
    assert readings[-1][0] - gpus.loaded_ns() > 0.35e9


def test_the_energy_counter_may_be_updated_seldom_or_be_anything(gpus: FakeGpus) -> None:
    gpus.write("""
        devices 3
        0 energy_start 7
        0 energy_update 1000
        1 energy 900 @0.05 3
        2 energy none
    """)
    program = """
    time.sleep(0.1)
    print([nvmlDeviceGetTotalEnergyConsumption(handle(0)),
           nvmlDeviceGetTotalEnergyConsumption(handle(1)),
           code(nvmlDeviceGetTotalEnergyConsumption, handle(2))])
    """
    assert gpus.answer(with_nvml(program)) == [7000, 3000, NOT_SUPPORTED]


def test_a_counter_may_wrap(gpus: FakeGpus) -> None:
    gpus.write("devices 1\n0 pcie_transmit_rate 1e12\n0 pcie_wrap 4294967296")
    program = """
    time.sleep(0.05)
    print([value.value.ullVal for value in nvmlDeviceGetFieldValues(handle(), [197])])
    """
    (value,) = gpus.answer(with_nvml(program))
    assert 0 <= value < 2**32


def test_each_field_has_a_result_of_its_own(gpus: FakeGpus) -> None:
    gpus.write("devices 1\n0 pcie_receive_rate none")
    program = """
    fields = [197, 198, (138, 2**32 - 1), (138, 4), 9999]
    print([value.nvmlReturn for value in nvmlDeviceGetFieldValues(handle(), fields)])
    """
    assert gpus.answer(with_nvml(program)) == [0, NOT_SUPPORTED, 0, 2, NOT_SUPPORTED]


# ---- failures and delays ------------------------------------------------------------------------


def test_calls_fail_where_and_when_the_scenario_says(gpus: FakeGpus) -> None:
    gpus.write("""
        devices 3
        0 fail nvmlDeviceGetPowerUsage GPU_IS_LOST
        1 fail nvmlDeviceGetPower* 999 times 2
        2 fail nvmlDeviceGetPowerUsage TIMEOUT until 0.05
        2 fail nvmlDeviceGetPowerUsage NO_PERMISSION from 1000
    """)
    program = """
    time.sleep(0.1)
    print([[code(nvmlDeviceGetPowerUsage, handle(i)) for _ in range(4)] for i in range(3)]
          + [code(nvmlDeviceGetTemperature, handle(0), 0)])
    """
    assert gpus.answer(with_nvml(program)) == [
        [GPU_IS_LOST] * 4,
        [UNKNOWN, UNKNOWN, 0, 0],
        [0] * 4,
        0,
    ]


def test_failures_by_chance_are_the_same_each_time(gpus: FakeGpus) -> None:
    program = with_nvml("""
    h = handle()
    print([code(nvmlDeviceGetPowerUsage, h) for _ in range(1000)])
    """)
    rule = "0 fail nvmlDeviceGetPowerUsage UNKNOWN chance 0.25"
    gpus.write(f"devices 1\n{rule}")
    outcomes = gpus.answer(program)
    assert 200 < outcomes.count(UNKNOWN) < 300
    assert outcomes.count(0) + outcomes.count(UNKNOWN) == 1000
    assert gpus.answer(program) == outcomes
    gpus.write(f"devices 1\nseed 2\n{rule}")
    assert gpus.answer(program) != outcomes


def test_initialisation_can_fail(gpus: FakeGpus) -> None:
    gpus.write("devices 1\n* fail nvmlInit* DRIVER_NOT_LOADED times 1")
    outcome = gpus.run(PREPARE)
    assert outcome.returncode == 1
    assert "NVMLError_DriverNotLoaded" in outcome.stderr


def test_a_call_sleeps_and_no_signal_wakes_it(gpus: FakeGpus) -> None:
    gpus.write("devices 2\n1 sleep nvmlDeviceGetMemoryInfo 0.3 times 1")
    program = """
    handlers = []
    signal.signal(signal.SIGALRM, lambda *_: handlers.append(time.monotonic()))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    before = time.monotonic()
    used = nvmlDeviceGetMemoryInfo(handle(1)).used
    print([time.monotonic() - before, len(handlers), used])
    """
    seconds, handlers, used = gpus.answer(with_nvml(program))
    assert seconds >= 0.3
    assert (handlers, used) == (1, 11_000_000_000)


def test_a_sleeping_call_holds_up_no_other(gpus: FakeGpus) -> None:
    gpus.write("devices 2\n0 sleep nvmlDeviceGetPowerUsage 100")
    program = """
    h = [handle(0), handle(1)]
    threading.Thread(target=nvmlDeviceGetPowerUsage, args=(h[0],), daemon=True).start()
    print(nvmlDeviceGetPowerUsage(h[1]), flush=True)
    os._exit(0)
    """
    assert gpus.answer(with_nvml(program)) == 205_000


# ---- MIG ----------------------------------------------------------------------------------------

MIG = """
    devices 2
    1 mig 1
    1:0 memory_used 1e9
    1:2 uuid MIG-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee
    1:2 memory_used 2e9
    1:2 memory_total 20e9
    1:2 fail nvmlDeviceGetName NO_PERMISSION
"""


def test_mig(gpus: FakeGpus) -> None:
    gpus.write(MIG)
    program = """
    parent = handle(1)
    def instance(index):
        return nvmlDeviceGetMigDeviceHandleByIndex(parent, index)
    memory = nvmlDeviceGetMemoryInfo(instance(2))
    print({
        "mode": nvmlDeviceGetMigMode(parent),
        "most": [nvmlDeviceGetMaxMigDeviceCount(handle(i)) for i in (0, 1)],
        "instances": [code(instance, i) for i in range(8)],
        "without": code(nvmlDeviceGetMigDeviceHandleByIndex, handle(0), 0),
        "memory": [memory.used, memory.total],
        "uuid": nvmlDeviceGetUUID(instance(2)),
        "default uuid": nvmlDeviceGetUUID(instance(0)),
        "utilization": [code(nvmlDeviceGetUtilizationRates, h) for h in (parent, instance(0))],
        "power": [code(nvmlDeviceGetPowerUsage, h) for h in (parent, instance(0))],
        "name": [code(nvmlDeviceGetName, instance(i)) for i in (0, 2)],
        "parent": nvmlDeviceGetIndex(nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance(2))),
    })
    """
    assert gpus.answer(with_nvml(program)) == {
        "mode": [1, 1],
        "most": [0, 7],
        "instances": [0, 6, 0, 6, 6, 6, 6, 2],
        "without": 6,
        "memory": [2_000_000_000, 20_000_000_000],
        "uuid": "MIG-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "default uuid": "MIG-c0de0001-fa4e-5000-8000-000000000000",
        "utilization": [NOT_SUPPORTED, NOT_SUPPORTED],
        "power": [0, NOT_SUPPORTED],
        "name": [0, 4],
        "parent": 1,
    }
    assert gpus.calls("nvmlDeviceGetMemoryInfo") == {"nvmlDeviceGetMemoryInfo 1:2": 1}


# ---- GPM ----------------------------------------------------------------------------------------

GPM = """
def metrics(first, second, *ids):
    get = c_nvmlGpmMetricsGet_t()
    get.version, get.numMetrics, get.sample1, get.sample2 = 1, len(ids), first, second
    for i, metric in enumerate(ids):
        get.metrics[i].metricId = metric
    nvmlGpmMetricsGet(get)
    return [(m.nvmlReturn, m.value) for m in get.metrics[:len(ids)]]
def sample(h, into=None):
    return nvmlGpmSampleGet(h, into or nvmlGpmSampleAlloc())
"""


def test_gpm_is_the_mean_between_two_samples(gpus: FakeGpus) -> None:
    gpus.write("""
        devices 1
        0 sm_active 10 @0.3 90
        0 sm_occupancy 12.5
        0 fp16_active none
        0 pcie_transmit_rate 1048576
    """)
    program = """
    times, samples = [], []
    for pause in (0.4, 0):
        times.append(time.monotonic_ns())
        samples.append(sample(handle()))
        times.append(time.monotonic_ns())
        time.sleep(pause)
    print([*times, *metrics(*samples, 2, 3, 13, 20, 470)])
    """
    answer = gpus.answer(with_nvml(program, GPM))
    *times, (code, active) = answer[:5]
    loaded = gpus.loaded_ns()

    def mean(first: int, last: int) -> float:
        before = max(min(last - loaded, 300_000_000) - (first - loaded), 0)
        return 90 - 80 * before / (last - first)

    # The share of 10 % is the larger the earlier the samples were taken.
    assert code == 0
    assert mean(times[0], times[2]) - 1e-6 <= active <= mean(times[1], times[3]) + 1e-6
    assert answer[5:] == [
        (0, pytest.approx(12.5)),
        (NOT_SUPPORTED, 0),
        (0, pytest.approx(1)),
        (NOT_SUPPORTED, 0),
    ]


def test_gpm_needs_two_samples_of_one_device_and_time_between_them(gpus: FakeGpus) -> None:
    gpus.write("devices 3\n2 gpm 0")
    program = """
    s = sample(handle(0))
    time.sleep(0.11)
    print([
        code(metrics, s, s, 2),
        code(metrics, s, sample(handle(1)), 2),
        code(metrics, s, nvmlGpmSampleAlloc(), 2),
        code(sample, handle(2)),
        code(metrics, s, sample(handle(0)), 2),
        code(nvmlGpmSampleFree, s),
    ])
    """
    assert gpus.answer(with_nvml(program, GPM)) == [21, 2, 2, NOT_SUPPORTED, 0, 0]


# ---- rules of the library -----------------------------------------------------------------------


def test_initialisations_are_counted(gpus: FakeGpus) -> None:
    program = """
    h = handle()
    nvmlInit()
    codes = [code(nvmlShutdown), code(nvmlDeviceGetPowerUsage, h), code(nvmlShutdown)]
    print(codes + [code(nvmlDeviceGetPowerUsage, h), code(nvmlShutdown), code(nvmlInit),
                   code(nvmlDeviceGetPowerUsage, h)])
    """
    assert gpus.answer(with_nvml(program)) == [0, 0, 0, 1, 1, 0, 0]


def test_wrong_arguments_are_refused(gpus: FakeGpus) -> None:
    program = """
    library, h = nvml.nvmlLib, handle()
    value = ctypes.c_uint()
    text = ctypes.create_string_buffer(96)
    print([
        library.nvmlDeviceGetPowerUsage(h, None),
        library.nvmlDeviceGetPowerUsage(None, ctypes.byref(value)),
        library.nvmlDeviceGetPowerUsage(ctypes.c_void_p(4711), ctypes.byref(value)),
        library.nvmlDeviceGetHandleByIndex_v2(1, ctypes.byref(ctypes.c_void_p())),
        library.nvmlDeviceGetCount_v2(None),
        library.nvmlDeviceGetTemperature(h, 1, ctypes.byref(value)),
        library.nvmlDeviceGetFieldValues(h, 0, ctypes.byref(value)),
        library.nvmlDeviceGetName(h, text, 5),
        library.nvmlDeviceGetName(h, text, 11),
        library.nvmlGpmSampleFree(None),
    ])
    """
    invalid, too_small = 2, 7
    answer = gpus.answer("import ctypes\n" + with_nvml(program))
    assert answer == [invalid] * 7 + [too_small, 0, invalid]


def test_an_error_has_a_text(gpus: FakeGpus) -> None:
    program = "import pynvml as nvml\nnvml.nvmlInit()\nprint(nvml.nvmlErrorString(15))"
    assert "GPU_IS_LOST" in gpus.run(program).stdout


def test_an_old_driver_lacks_newer_functions(tmp_path) -> None:
    gpus = FakeGpus(tmp_path, OLD_NVML)
    program = """
    h = handle()
    print([code(f, h) for f in (nvmlDeviceGetTotalEnergyConsumption, nvmlDeviceGetMigMode,
        nvmlDeviceGetCurrentClocksThrottleReasons, nvmlGpmQueryDeviceSupport)]
        + [code(nvmlDeviceGetFieldValues, h, [197]), code(nvmlDeviceGetPowerUsage, h)])
    """
    assert gpus.answer(with_nvml(program)) == [13] * 5 + [0]


def test_an_empty_library_has_no_function() -> None:
    library = ctypes.CDLL(str(build(EMPTY_NVML) / EMPTY_NVML.file))
    assert not hasattr(library, "nvmlInit_v2")
    assert not hasattr(library, "nvmlShutdown")


# ---- counting -----------------------------------------------------------------------------------


def test_calls_are_counted_by_function_and_device(gpus: FakeGpus) -> None:
    gpus.write("devices 2\n0 fail nvmlDeviceGetPowerUsage UNKNOWN")
    program = """
    for _ in range(3):
        code(nvmlDeviceGetPowerUsage, handle(0))
    nvmlDeviceGetPowerUsage(handle(1))
    nvmlDeviceGetComputeRunningProcesses(handle(1))
    """
    assert gpus.run(with_nvml(program)).returncode == 0
    assert gpus.calls() == {
        "nvmlInitWithFlags": 1,
        "nvmlDeviceGetHandleByIndex_v2 0": 3,
        "nvmlDeviceGetHandleByIndex_v2 1": 2,
        "nvmlDeviceGetPowerUsage 0": 3,
        "nvmlDeviceGetPowerUsage 1": 1,
        "nvmlDeviceGetComputeRunningProcesses_v3 1": 1,
    }
    assert gpus.forked_calls() == {}


def test_calls_of_threads_and_processes_add_up(gpus: FakeGpus) -> None:
    program = with_nvml("""
    h = handle()
    def call():
        for _ in range(1000):
            nvmlDeviceGetPowerUsage(h)
    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    """)
    processes = [gpus.start(program) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert gpus.calls("nvmlDeviceGetPowerUsage") == {"nvmlDeviceGetPowerUsage 0": 8000}


def test_counts_are_seen_while_a_call_sleeps_and_survive_a_kill(gpus: FakeGpus) -> None:
    gpus.write("devices 1\n0 sleep nvmlDeviceGetPowerUsage 1000")
    process = gpus.start(with_nvml("nvmlDeviceGetPowerUsage(handle())"))
    try:
        name = "nvmlDeviceGetPowerUsage 0"
        wait_until(lambda: gpus.calls(name), "the call")
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    assert gpus.calls(name) == {name: 1}


def test_calls_of_forked_children_are_told_apart(gpus: FakeGpus) -> None:
    program = """
    h = handle()
    def in_child(function):
        child = os.fork()
        if child == 0:
            function()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    in_child(lambda: nvmlDeviceGetPowerUsage(h))
    nvmlDeviceGetPowerUsage(h)
    nvmlShutdown()
    in_child(lambda: (nvmlInit(), nvmlDeviceGetTemperature(h, 0)))  # it has its own library
    """
    outcome = gpus.run(with_nvml(program))
    assert outcome.returncode == 0, outcome.stderr
    assert gpus.forked_calls() == {"forked nvmlDeviceGetPowerUsage 0": 1}
    assert gpus.calls("nvmlDeviceGetPowerUsage") == {"nvmlDeviceGetPowerUsage 0": 1}
    assert gpus.calls("nvmlDeviceGetTemperature") == {"nvmlDeviceGetTemperature 0": 1}


# ---- a scenario that changes --------------------------------------------------------------------


def test_a_live_scenario_changes_under_a_running_program(gpus: FakeGpus) -> None:
    gpus.write("devices 1\nlive\n0 power 100\n0 energy_start 0\n0 fail nvmlDeviceGetTemp* 15")
    program = """
    h = handle()
    def read():
        before = time.monotonic_ns()
        power = nvmlDeviceGetPowerUsage(h)
        energy = nvmlDeviceGetTotalEnergyConsumption(h)
        after = time.monotonic_ns()
        print([power, energy, before, after, code(nvmlDeviceGetTemperature, h, 0),
               nvmlDeviceGetCount()], flush=True)
    for line in sys.stdin:
        read()
    """
    process = gpus.start(with_nvml(program))
    assert process.stdin is not None
    assert process.stdout is not None

    def ask() -> list[int]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return [int(number) for number in process.stdout.readline().strip("[]\n").split(",")]

    try:
        power, first_energy, first_before, first_after, code, count = ask()
        assert (power, code, count) == (100_000, GPU_IS_LOST, 1)
        gpus.write("devices 2\nlive\n0 power 500\n0 energy_start 0")
        power, second_energy, second_before, second_after, code, count = ask()
        assert (power, code, count) == (500_000, 0, 2)
        # The counter went on at 100 W until the change was seen: at the beginning of this reading.
        least = 100 * (second_before - first_after) * 1e-6 - 2
        most = 100 * (second_before - first_before) * 1e-6
        most += 500 * (second_after - second_before) * 1e-6 + 2
        assert least <= second_energy - first_energy <= most
    finally:
        process.kill()
        process.communicate()


def test_without_live_it_does_not(gpus: FakeGpus) -> None:
    gpus.write("devices 1\n0 utilization 12")
    program = """
    h = handle()
    os.remove(os.environ["SMN_FAKE_GPUS"])
    print(nvmlDeviceGetUtilizationRates(h).gpu)
    """
    assert gpus.answer(with_nvml(program)) == 12


# ---- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "complaint"),
    [
        ("", "'devices' is missing"),
        ("0 power 1", "'devices' must come first"),
        ("devices 1\ndevices 2", "'devices' must be said once"),
        ("devices 65", "'65' is no number of devices"),
        ("devices 1\n1 power 1", "'1' is no device"),
        ("devices 1\n0:8 memory_used 1", "'8' is no instance"),
        ("devices 1\n0:* memory_used 1", "a value needs the number of the instance"),
        ("devices 1\n0 powre 1", "there is no value 'powre'"),
        ("devices 1\n0 power", "of what value"),
        ("devices 1\n0 power much", "'much' is no number"),
        ("devices 1\n0 power 1 2 3", "should be '@SECONDS'"),
        ("devices 1\n0 power 1 @2", "must be followed by"),
        ("devices 1\n0 power 1 @2 3 @2 4", "is not later"),
        ("devices 1\n0 fail nvmlDeviceGetPower 3", "there is no function 'nvmlDeviceGetPower'"),
        ("devices 1\n0 fail nvmlDeviceGetPowerUsage 0", "'0' is no code"),
        ("devices 1\n0 fail nvmlDeviceGetPowerUsage LOST", "'LOST' is no number"),
        ("devices 1\n0 fail nvmlDeviceGetPowerUsage", "needs a function"),
        ("devices 1\n0 sleep nvmlDeviceGetPowerUsage 1 after 2", "is no condition"),
        ("devices 1\n0 sleep nvmlDeviceGetPowerUsage 1 times 1.5", "is no condition"),
        ("devices 1\n0 fail nvmlDeviceGetPowerUsage 3 chance 2", "is no condition"),
        ("devices 1\nfor intel", "there is no library 'intel'"),
        ("devices 1\nlife", "'life' alone says nothing"),
    ],
)
def test_a_mistake_ends_the_process(scenario: str, complaint: str, gpus: FakeGpus) -> None:
    gpus.write(scenario)
    outcome = gpus.run(PREPARE)
    assert outcome.returncode == -signal.SIGABRT
    assert complaint in outcome.stderr
    assert str(gpus.scenario_path) in outcome.stderr


def test_a_mistake_in_a_live_scenario_ends_the_process(gpus: FakeGpus) -> None:
    gpus.write("devices 1\nlive")
    process = gpus.start(with_nvml("print(flush=True)\ninput()\nhandle()"))
    assert process.stdout is not None
    process.stdout.readline()
    gpus.write("devices one")
    _, errors = process.communicate("\n", timeout=60)
    assert process.returncode == -signal.SIGABRT
    assert "'one' is no number" in errors


def test_what_is_for_another_library_is_passed_over(gpus: FakeGpus) -> None:
    gpus.write("""
        for amd
        devices 5
        * vcn_activity 3
        for nvidia
        devices 2
        for all
        0 utilization 8
    """)
    program = "print([nvmlDeviceGetCount(), nvmlDeviceGetUtilizationRates(handle()).gpu])"
    assert gpus.answer(with_nvml(program)) == [2, 8]


def test_no_scenario_at_all_ends_the_process(gpus: FakeGpus) -> None:
    environment = {**gpus.environment}
    del environment["SMN_FAKE_GPUS"]
    library = str(build(NVML) / NVML.file)
    outcome = subprocess.run(
        [sys.executable, "-c", f"import ctypes; ctypes.CDLL({library!r})"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == -signal.SIGABRT
    assert "SMN_FAKE_GPUS" in outcome.stderr

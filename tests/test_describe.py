"""What `describe` says of an installation and a machine."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from sysmetrics_native import describe
from sysmetrics_native.backends import python_gpus
from sysmetrics_native.gpus import Gpu, Inventory
from tests.fake_gpus import FakeGpus

PROGRAM = """
import sysmetrics_native
sysmetrics_native.configure(backend="psutil")
print(repr(sysmetrics_native.describe()))
"""
IMPATIENT = """
from sysmetrics_native.backends import python_gpus
python_gpus.OPEN_PATIENCE_SECONDS = 0.3
"""


def test_describe_says_what_was_looked_for_and_found(gpus: FakeGpus) -> None:
    gpus.write("""
        devices 2
        1 name NVIDIA H100 80GB HBM3
        1 uuid GPU-01234567-89ab-cdef-0123-456789abcdef
        1 mig 1
        1:2 uuid MIG-01234567-89ab-cdef-0123-456789abcdef
        0 driver_version 575.1
        0 nvml_version 12.575.1
    """)
    found = gpus.answer(
        PROGRAM,
        SYSMETRICS_NATIVE_GPUS="1",
    )
    assert found["backend"] == {"name": "psutil", "reason": "backend is psutil"}
    assert found["sources"]["known"][-2:] == ["gpu", "gpu_detail"]
    assert found["sources"]["default"][-1] == "gpu"
    assert found["version"] == importlib.metadata.version("sysmetrics-native")
    assert found["gpu"]["vendor"] == "NVIDIA"
    assert found["gpu"]["problem"] is None
    assert found["gpu"]["libraries"] == [
        {
            "library": "pynvml, libnvidia-ml.so.1",
            "outcome": "2 devices",
            "library_version": "12.575.1",
            "driver_version": "575.1",
        }
    ]
    first, second = found["gpu"]["devices"]
    assert (first["index"], first["is_read"]) == (0, False)
    assert second == {
        "index": 1,
        "name": "NVIDIA H100 80GB HBM3",
        "memory_megabytes": 80500.0,
        "uuid": "GPU-01234567-89ab-cdef-0123-456789abcdef",
        "pci_id": second["pci_id"],
        "instances": [{"index": 2, "uuid": "MIG-01234567-89ab-cdef-0123-456789abcdef"}],
        "is_read": True,
    }
    calls = gpus.calls()
    assert calls["nvmlShutdown"] == calls["nvmlInitWithFlags"] == 1


def test_describe_says_what_the_option_names_in_vain(gpus: FakeGpus) -> None:
    gpus.write("devices 1")
    found = gpus.answer(
        PROGRAM,
        SYSMETRICS_NATIVE_GPUS="7",
    )
    assert "got 7" in found["gpu"]["problem"]
    assert [device["is_read"] for device in found["gpu"]["devices"]] == [False]


def test_describe_waits_for_no_library_for_long(gpus: FakeGpus) -> None:
    gpus.write("devices 1\n* sleep nvmlInitWithFlags 1000")
    found = gpus.answer(
        IMPATIENT + PROGRAM,
    )
    assert found["gpu"]["libraries"][0]["outcome"] == "it did not answer within 0.3 s"
    assert found["gpu"]["devices"] == []
    assert found["gpu"]["vendor"] is None


@pytest.mark.native
def test_describe_asks_the_native_backend_where_that_is_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sysmetrics_native.backends import native, native_gpus

    inventory = Inventory("AMD", (), (Gpu(0, "", "", "", None),))
    monkeypatch.setattr(native_gpus, "gpu_inventory", lambda _: inventory)
    found = describe()
    assert found["backend"] == {"name": "native", "reason": "the C core is there"}
    assert found["sources"]["known"] == list(native.known_sources())
    assert found["gpu"]["vendor"] == "AMD"
    assert found["gpu"]["devices"][0]["memory_megabytes"] is None


def test_it_says_why_there_is_no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sysmetrics_native._native", None)
    monkeypatch.setattr(python_gpus, "gpu_inventory", Inventory)
    found = describe()
    assert found["backend"]["name"] == "psutil"
    assert found["backend"]["reason"].startswith("the C core is not there: ")
    assert found["gpu"] == {"vendor": None, "libraries": [], "devices": [], "problem": None}

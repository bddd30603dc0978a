"""AMD's GPUs of the psutil backend: what it makes of the answers of pyrsmi."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from sysmetrics_native import Sampler, Window
from sysmetrics_native.gpus import Gpu
from tests.support import wait_until


class Rocml(ModuleType):
    """Stands in for `pyrsmi.rocml` of release 1.1: -1 and empty texts where something is wrong."""

    LIBROCM_NAME = "libamd_smi.so"

    def __init__(self, **answers: list[Any]) -> None:
        super().__init__("pyrsmi.rocml")
        usual: dict[str, list[Any]] = {
            "utilization": [40, 41],
            "memory_used": [16e9, 8e9],
            "memory_total": [64e9, 64e9],
            "average_power": [300.0, 310.0],
            "uuid": ["GPU-aa", "GPU-bb"],
            "name": ["AMD Instinct MI300X", ""],
            "pci_id": [0xC100, 0x1_C208],
        }
        self.answers = usual | answers
        self.calls: Counter[str] = Counter()

    def smi_initialize(self) -> None:
        self.calls["initialize"] += 1

    def smi_shutdown(self) -> None:
        self.calls["shutdown"] += 1

    def smi_get_device_count(self) -> int:
        return len(self.answers["uuid"])

    def __getattr__(self, name: str) -> Any:
        quantity = name.removeprefix("smi_get_device_")
        if quantity not in self.__dict__.get("answers", {}):
            raise AttributeError(name)

        def answer(index: int) -> Any:
            self.calls[f"{quantity} {index}"] += 1
            value = self.answers[quantity][index]
            if isinstance(value, Exception):
                raise value
            return value

        return answer


@pytest.fixture
def use_rocml(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rocml], Rocml]:
    def use(module: Rocml) -> Rocml:
        monkeypatch.setitem(sys.modules, "pynvml", None)
        monkeypatch.setitem(sys.modules, "pyrsmi.rocml", module)
        return module

    return use


def window_of(**options: Any) -> tuple[Sampler, Window]:
    with Sampler(0.02, 10, backend="psutil", sources="gpu,gpu_detail", **options) as sampler:
        window = sampler.next_window(30)
    assert window is not None
    return sampler, window


def test_amd(use_rocml: Callable[[Rocml], Rocml]) -> None:
    module = use_rocml(Rocml())
    sampler, window = window_of()
    assert {key: window[key].mean for key in window} == {
        "gpu_0_utilization_percentage": 40,
        "gpu_0_memory_usage_megabytes": 16000,
        "gpu_0_memory_usage_percentage": 25,
        "gpu_0_power_usage_watts": 300,
        "gpu_1_utilization_percentage": 41,
        "gpu_1_memory_usage_megabytes": 8000,
        "gpu_1_memory_usage_percentage": 12.5,
        "gpu_1_power_usage_watts": 310,
    }, "no share of a limit that nobody knows"
    assert sampler.gpus == (
        Gpu(0, "GPU-aa", "0000:c1:00.0", "AMD Instinct MI300X", 64e9),
        Gpu(1, "GPU-bb", "0001:c2:01.0", "", 64e9),
    )
    wait_until(lambda: module.calls["shutdown"] == 1, "the end of the thread")


def test_the_pci_address_of_older_releases(use_rocml: Callable[[Rocml], Rocml]) -> None:
    module = use_rocml(Rocml(pci_id=[0xC100, 0x1_0000_C209]))
    module.LIBROCM_NAME = "librocm_smi64.so"
    sampler, _ = window_of()
    assert [gpu.pci_id for gpu in sampler.gpus] == ["0000:c1:00.0", "0001:c2:01.1"]


@pytest.mark.parametrize("wrong", [-1, -1.0, RuntimeError("no"), None, 65535])
def test_what_amd_does_not_tell_is_left_out_and_not_asked_for_again(
    use_rocml: Callable[[Rocml], Rocml], wrong: Any
) -> None:
    """The second of two partitions of a card has no sensor of its own; and so on."""
    module = use_rocml(Rocml(average_power=[300.0, -1], utilization=[wrong, 41]))
    _, window = window_of()
    assert "gpu_1_power_usage_watts" not in window
    assert "gpu_0_utilization_percentage" not in window
    assert window["gpu_1_utilization_percentage"].mean == 41
    assert module.calls["average_power 1"] == module.calls["utilization 0"] == 1


def test_a_binding_that_fills_the_log_is_asked_less_often(
    use_rocml: Callable[[Rocml], Rocml],
) -> None:
    """Every call of pyrsmi that fails is a line in the log, which is not ours to silence."""
    module = use_rocml(Rocml())
    with Sampler(0.02, 10, backend="psutil", sources="gpu") as sampler:
        assert sampler.next_window(30) is not None
        module.answers["utilization"] = [-1, 41]
        before = module.calls["utilization 0"]
        wait_until(lambda: module.calls["utilization 1"] - before >= 8, "more readings")
    assert module.calls["utilization 0"] - before <= 4
    *_, last = sampler.windows()
    assert last["gpu_1_utilization_percentage"].mean == 41


def test_a_library_of_amd_that_is_missing_is_one_line(
    use_rocml: Callable[[Rocml], Rocml], caplog: pytest.LogCaptureFixture
) -> None:
    module = use_rocml(Rocml())
    module.smi_initialize = raises(RuntimeError("driver not initialized."))  # type: ignore[method-assign]
    caplog.set_level(logging.INFO, "sysmetrics_native")
    sampler = Sampler(backend="psutil")
    assert sampler.gpus == ()
    (record,) = caplog.records
    assert record.getMessage() == (
        "No GPU is read. Looked for: pynvml: not installed (pip install nvidia-ml-py); "
        "pyrsmi, libamd_smi.so: driver not initialized."
    )


def raises(error: Exception) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function

"""docs/metrics.md: what the sources say of themselves, all of it, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import pytest

from sysmetrics_native import Sampler
from sysmetrics_native.backends import gpu_device
from sysmetrics_native.catalog import DocumentedSeries, documented_series
from sysmetrics_native.window import SeriesInfo
from tests.fake_gpus import FakeGpus
from tests.machine_tree import MachineTree

pytestmark = pytest.mark.native

KEY = re.compile(r"[a-z0-9_]+|\{(i|j|_path)\}")
LONGEST_TEXT = 160
ELSEWHERE = {"gpu", "gpu_detail", "gpu_profiling"}
"""Sources that a tree cannot give."""

PROGRAM = """
from sysmetrics_native import Sampler
schema = Sampler(backend="native", sources="gpu,gpu_detail,gpu_profiling").schema
print(repr([tuple(info) for info in schema]))
"""


def described_by(infos: Iterable[SeriesInfo]) -> list[DocumentedSeries]:
    """The one entry for each of them."""
    found = []
    for info in infos:
        entries = [series for series in documented_series() if series.describes(info)]
        assert len(entries) == 1, info
        found += entries
    return found


def unused(used: Iterable[DocumentedSeries], *, of_gpus: bool) -> set[DocumentedSeries]:
    """Entries that no series has shown to be needed."""
    every = {one for one in documented_series() if (one.info.source in ELSEWHERE) == of_gpus}
    return every - set(used)


def test_the_page_is_what_the_sources_say():
    from scripts import write_catalogue

    written = write_catalogue.PAGE.read_text(encoding="utf-8")
    assert written == write_catalogue.page(), "run `make catalogue`"
    for series in documented_series():
        assert f"| `{series.info.key}` | " in written


def test_every_series_has_its_texts():
    for series in documented_series():
        assert "".join(match[0] for match in KEY.finditer(series.info.key)) == series.info.key
        assert series.info.unit
        for text in (series.meaning, series.reads, series.formula):
            assert 0 < len(text) <= LONGEST_TEXT, series.info.key
            assert text == text.strip(" .")
            assert not set("|\n") & set(text)


def test_every_series_of_a_big_machine_is_on_the_page(short_path):
    tree = MachineTree(short_path)
    tree.add_cpus(224)
    tree.add_memory()
    tree.add_interfaces(50)
    tree.add_disks(24)
    tree.add_rdma(8)
    tree.add_pressure()
    tree.add_energy(2, 112)
    tree.add_container()
    big = Sampler(
        backend="native",
        sources="all",
        gpus="none",
        disk_paths=["/", str(short_path)],
        procfs_path=tree.procfs,
        sysfs_path=tree.sysfs,
    )
    here = Sampler(backend="native", sources="all", gpus="none")
    used = described_by([*big.schema, *here.schema])
    assert not unused(used, of_gpus=False)


GPUS = (
    """
    devices 2
    1 mig 1
    1:0 memory_used 5e9
    1:3 memory_used 5e9
    """,
    """
    devices 1
    0 energy none
    * fail nvmlDeviceGetFieldValues FUNCTION_NOT_FOUND
    """,
)


def test_every_series_of_gpus_is_on_the_page(gpus: FakeGpus) -> None:
    used = []
    for scenario in GPUS:
        gpus.write(scenario)
        used += described_by(SeriesInfo(*info) for info in gpus.answer(PROGRAM))
    assert not unused(used, of_gpus=True)


def test_the_other_backend_has_the_same_units_and_kinds(tmp_path):
    paths = ["/", str(tmp_path)]
    host = Sampler(backend="psutil", sources="all", gpus="none", disk_paths=paths).schema
    assert len(described_by(host)) == len(host) > 0
    gpu_series = gpu_device.known_series()
    assert len(described_by(gpu_series)) == len(gpu_series) > 0


def test_keys_that_only_look_alike_are_no_match():
    def described(key: str, source: str, unit: str, kind: str) -> bool:
        info = SeriesInfo(key, unit, source, kind)
        return any(series.describes(info) for series in documented_series())

    assert described("gpu_12_memory_usage_megabytes", "gpu", "megabytes", "gauge")
    assert described("gpu_0_mig_3_memory_usage_megabytes", "gpu", "megabytes", "gauge")
    assert described("disk_usage_percentage", "disk_space", "percentage", "gauge")
    assert described("disk_usage_percentage_data-1", "disk_space", "percentage", "gauge")
    assert not described("gpu_x_memory_usage_megabytes", "gpu", "megabytes", "gauge")
    assert not described("gpu_0_memory_usage_megabytes_", "gpu", "megabytes", "gauge")
    assert not described("gpu_0_memory_usage_megabytes", "gpu", "bytes", "gauge")
    assert not described("gpu_0_memory_usage_megabytes", "gpu", "megabytes", "total")
    assert not described("gpu_0_memory_usage_megabytes", "memory", "megabytes", "gauge")
    assert not described("disk_usage_percentage/data", "disk_space", "percentage", "gauge")


def test_the_cost_of_every_source_is_known():
    from scripts import write_catalogue

    costs = json.loads(write_catalogue.COSTS.read_text(encoding="utf-8"))
    sources = {series.info.source for series in documented_series()} - ELSEWHERE
    assert set(costs["sources"]) == sources, "run the benchmark `sources`"
    for cost in costs["sources"].values():
        assert 0 < cost["microseconds"] < 1e5

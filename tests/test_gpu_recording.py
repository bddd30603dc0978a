"""What the flight recorder has of GPUs, whose readings come less often than rows."""

from __future__ import annotations

import pytest

from tests.fake_gpus import FakeGpus

PROGRAM = """
import sys
from sysmetrics_native import Sampler
from sysmetrics_native.recording import Recording

sampler = Sampler(
    backend=sys.argv[1], interval=0.01, samples_per_window=30, sources=sys.argv[2],
    recorder=sys.argv[3],
)
with sampler:
    live = [sampler.next_window(30.0) for _ in range(3)]
live += sampler.windows(0.0)
with Recording(sampler.recording_path) as recording:
    recorded = list(recording.windows())
different = [
    (key, getattr(one[key], statistic), getattr(other[key], statistic))
    for one, other in zip(live, recorded)
    for key in one
    for statistic in ("mean", "min", "max", "last")
    if getattr(one[key], statistic) != getattr(other[key], statistic)
]
print(repr((len(live), len(recorded), [key for key in recorded[0] if "gpu" in key], different)))
"""


def test_a_recording_gives_the_same_windows(gpus: FakeGpus, backend: str, tmp_path) -> None:
    gpus.write("devices 3\n1 utilization 10 @0.4 90\n2 power 100 @0.5 400")
    sources = "default,gpu_detail" + (",gpu_profiling" if backend == "native" else "")
    recording = tmp_path / "gpus.smnrec"
    live, recorded, keys, different = gpus.answer(PROGRAM, backend, sources, str(recording))
    assert live == recorded >= 4
    assert len(keys) >= 3 * 10
    # Sums are made in the same order, of the same doubles; what is multiplied last may differ.
    for key, one, other in different:
        assert one == pytest.approx(other), key

"""What all tests share: a clean configuration, and both backends where both exist."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pytest

from sysmetrics_native import Sampler, nodes, settings
from sysmetrics_native.backends import is_native_built
from tests.fake_gpus import AMD_SMI, FakeGpus, build
from tests.hanging_mount import HangingMount
from tests.procfs_tree import ProcfsTree
from tests.support import default_as_in_mlflow

# A pure wheel has no native backend: there this variable says so, and that the rest must pass.
_ONLY_BACKEND = os.environ.get("SYSMETRICS_NATIVE_TEST_BACKEND")
BACKENDS = [_ONLY_BACKEND] if _ONLY_BACKEND else ["native", "psutil"]

# On a busy machine an example takes as long as it takes; and CI must not find by chance.
hypothesis.settings.register_profile("tests", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("tests")


# Shells ignore them for what they start in the background, and then so would programs of the tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for _name in ("SIGHUP", "SIGQUIT"):
    if hasattr(signal, _name):
        signal.signal(getattr(signal, _name), signal.SIG_DFL)

_LOCK = Path(__file__).parent.parent / "build" / "alone.lock"

_HERE = Path(__file__).parent
_ONCE_BY_FIXTURE = {"gpus", "amd_gpus", "rocm_path"}
"""Programs on stand-ins for GPU drivers."""
_ONCE_BY_FILE = (
    *("test_truth", "test_big_machine", "test_hanging_disk", "test_governor", "test_contributing"),
    *("test_gpu_sampling", "test_gpu_isolation", "test_gpu_amd", "test_gpu_recording"),
    *("test_export", "test_report", "test_timeline", "test_verdict", "test_top"),
    *("test_run_command", "test_doctor", "test_cli"),
)
"""The kernel, drivers of GPUs, and what is done with what was logged or recorded."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is tested once, and skips tests of the C core where that is said to be missing."""
    for item in items:
        by_fixture = _ONCE_BY_FIXTURE & set(getattr(item, "fixturenames", ()))
        by_file = item.path.parent == _HERE and item.path.name.startswith(_ONCE_BY_FILE)
        if by_fixture or by_file:
            item.add_marker(pytest.mark.once)
    if "native" in BACKENDS:
        return
    skip = pytest.mark.skip(reason="needs the C core, which this installation is built without")
    for item in items:
        if item.get_closest_marker("native") is not None:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def clean_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No option, variable or file of one test reaches the next, or comes from outside."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in list(os.environ):
        if name.startswith(("SYSMETRICS_NATIVE_", "MLFLOW_SYSTEM_METRICS_")) or name in (
            "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING",
            "MLFLOW_TRACKING_URI",
            "MLFLOW_RUN_ID",
            *nodes.VARIABLES,
        ):
            monkeypatch.delenv(name)
    # How fast a machine is does not decide what a test sees; those of the governor say theirs.
    monkeypatch.setenv("SYSMETRICS_NATIVE_OVERHEAD_BUDGET", "1")
    before = dict(os.environ)
    settings.reset()
    yield
    settings.reset()
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a backend that this installation must have."""
    name = str(request.param)
    if name == "native":
        assert is_native_built(), "the C core is missing from this installation"
    return name


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path fits into a key, as that of `tmp_path` need not."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def alone() -> Iterator[None]:
    """No other run of these tests takes memory or writes to disks meanwhile."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    _LOCK.parent.mkdir(exist_ok=True)
    with _LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class MakeSampler(Protocol):
    """Makes a `Sampler` of the backend under test."""

    def __call__(self, **options: Any) -> Sampler: ...


@pytest.fixture
def make_sampler(backend: str) -> Iterator[MakeSampler]:
    """Makes samplers, and stops those that a failed test leaves running.

    By default they read what MLflow does, whether or not these tests run in a container.
    """
    samplers = []

    def make(**options: Any) -> Sampler:
        sources = options.get("sources", "default")
        default = default_as_in_mlflow(backend)
        if (
            default != "default"
            and isinstance(sources, str)
            and sources.startswith(("default", "-"))
        ):
            options["sources"] = f"{sources},-container"
        sampler = Sampler(backend=backend, **options)
        samplers.append(sampler)
        return sampler

    yield make
    for sampler in samplers:
        sampler.stop()


@pytest.fixture
def tree(tmp_path: Path) -> ProcfsTree:
    """A folder that stands in for /proc, for tests of the native backend."""
    root = tmp_path / "proc"
    root.mkdir()
    return ProcfsTree(root)


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    """GPUs of NVIDIA's make for programs that a test starts; one device until it writes others."""
    folder = tmp_path / "gpus"
    folder.mkdir()
    return FakeGpus(folder)


@pytest.fixture
def amd_gpus(tmp_path: Path) -> FakeGpus:
    """The same of AMD's make, by way of libamd_smi."""
    folder = tmp_path / "amd_gpus"
    folder.mkdir()
    return FakeGpus(folder, AMD_SMI)


@pytest.fixture
def rocm_path(tmp_path: Path) -> Path:
    """A folder as ROCm is installed in one: pyrsmi does not ask the loader."""
    folder = tmp_path / "rocm"
    folder.mkdir()
    (folder / "lib").symlink_to(build(AMD_SMI))
    return folder


@pytest.fixture
def hanging_mount(tmp_path: Path) -> Iterator[HangingMount]:
    """Such a mount; skips the test where one cannot be had."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs mounts of Linux")
    try:
        mount = HangingMount(tmp_path / "server")
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        yield mount
    finally:
        mount.close()

"""What MLflow loads: makes MLflow's own switches use this package.

MLflow loads the entry points of the group ``mlflow.run_context_provider`` while it is imported, and
`mlflow.start_run` imports the class of its monitor when it needs one. So it is enough to put our
class where it will look, once that module is imported; importing it here would cost every
`import mlflow` the time that psutil and pynvml take.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import logging
import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from sysmetrics_native import monitored_run, settings
from sysmetrics_native.monitor import SystemMetricsMonitor

if TYPE_CHECKING:  # its import takes longer than all the rest of this package
    from importlib.abc import Loader

OLDEST_MLFLOW = (2, 9)

_MODULE = "mlflow.system_metrics.system_metrics_monitor"
_CLASS = "SystemMetricsMonitor"

_logger = logging.getLogger("sysmetrics_native")

_stock_class: type[Any] | None = None
"""MLflow's own class, once its module was seen."""


class _InstalledMonitor(SystemMetricsMonitor):
    """Our monitor in MLflow's place: the option `enabled` is read when one is built."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if settings.option("enabled") or _stock_class is None:
            return super().__new__(cls)
        run_id = kwargs["run_id"] if "run_id" in kwargs else args[0] if args else ""
        if monitored_run.is_monitored_outside(run_id):
            return super().__new__(cls)  # MLflow's own would not know, and log a second series
        return _stock_class(*args, **kwargs)


_InstalledMonitor.__name__ = _InstalledMonitor.__qualname__ = _CLASS


# ---- putting the class in place -----------------------------------------------------------------


def _replace_in(module: ModuleType) -> None:
    global _stock_class  # noqa: PLW0603  # MLflow's module is one for the whole process, too
    current = getattr(module, _CLASS)
    if current is not _InstalledMonitor:
        _stock_class = current
        setattr(module, _CLASS, _InstalledMonitor)


class _Loader:
    """Runs a module as its own loader would, then replaces the class in it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module is as if we had never been in between.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _replace_in(module)


class _Finder:
    """Waits for the one module to be imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = cast("Loader", _Loader(spec.loader))
        return spec


_finder = _Finder()


# ---- public -------------------------------------------------------------------------------------


def install() -> None:
    """Make MLflow's switches use this package. It is done by itself when MLflow is imported.

    Raises:
        ModuleNotFoundError: MLflow is not installed.
        RuntimeError: this MLflow is too old.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise ModuleNotFoundError(
            "install() needs MLflow, which is not installed: pip install 'mlflow>=2.9'",
            name="mlflow",
        )
    from mlflow.version import VERSION

    version = tuple(int(part) for part in re.findall(r"\d+", VERSION)[:2])
    if version < OLDEST_MLFLOW:
        raise RuntimeError(
            f"sysmetrics-native needs MLflow 2.9 or newer, found {VERSION}: "
            "pip install --upgrade mlflow"
        )
    module = sys.modules.get(_MODULE)
    if module is not None:
        _replace_in(module)
    elif _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def uninstall() -> None:
    """Give MLflow its own monitor back, for runs that start from now on."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    module = sys.modules.get(_MODULE)
    if module is not None and _stock_class is not None:
        setattr(module, _CLASS, _stock_class)


def is_installed() -> bool:
    """Whether a run that starts now is monitored by this package."""
    module = sys.modules.get(_MODULE)
    in_place = _finder in sys.meta_path
    if module is not None:
        in_place = getattr(module, _CLASS, None) is _InstalledMonitor
    return in_place and bool(settings.option("enabled"))


class Activation:
    """The entry point: MLflow makes one while it is imported. Adds no tags to runs.

    Nothing it does may break that import, so what goes wrong is logged and MLflow keeps its own
    monitor.
    """

    def __init__(self) -> None:
        try:
            # In the command of `sysmetrics-native run` MLflow's own must know of it, too.
            if settings.option("enabled") or monitored_run.is_announced():
                install()
        except Exception as error:  # noqa: BLE001  # whatever it is, MLflow must be imported
            _logger.warning("MLflow keeps its own system metrics: %s", error)

    def in_context(self) -> bool:
        """Never: there is nothing to say about a run here."""
        return False

    def tags(self) -> dict[str, str]:
        """None."""
        return {}

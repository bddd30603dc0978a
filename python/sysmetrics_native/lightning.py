"""System metrics for a run that PyTorch Lightning's `MLFlowLogger` has started.

The logger makes its run with `MlflowClient`, so none of MLflow's switches sees it. This callback
does:

```python
from sysmetrics_native.lightning import SystemMetricsCallback

Trainer(logger=MLFlowLogger(…), callbacks=[SystemMetricsCallback()])
```

Importing this module imports Lightning: `lightning`, or `pytorch_lightning` if that is what the
program has loaded, or the only one there is.
"""

from __future__ import annotations

import importlib
import logging
import sys
from contextlib import AbstractContextManager
from typing import Any

from sysmetrics_native.monitor import monitor_run

_logger = logging.getLogger("sysmetrics_native")

_LIGHTNING = ("lightning.pytorch", "pytorch_lightning")
"""The same library by two names; to load the other one, too, would take seconds."""


def _callback_class() -> Any:
    for name in sorted(_LIGHTNING, key=lambda name: name not in sys.modules):
        try:
            return importlib.import_module(name).Callback
        except ModuleNotFoundError as error:  # noqa: PERF203  # at most once each
            if error.name not in (name, name.partition(".")[0]):
                raise
    raise ModuleNotFoundError(
        "sysmetrics_native.lightning needs PyTorch Lightning, which is not installed: "
        "pip install lightning",
        name="lightning",
    )


_Callback: Any = _callback_class()


class SystemMetricsCallback(_Callback):  # type: ignore[misc]  # what it is is known at run time
    """Monitors the run of the trainer's `MLFlowLogger`, on every node, until the trainer is done.

    Every process must have it, as they have where all run the same script: rank 0 tells the others
    which run it is. Of all processes on one node one samples. A trainer without that logger is
    warned and trains without system metrics; of several such loggers the first is taken.

    A run that the logger has ended, as it does at the end of `fit`, is not monitored again by a
    later `test` or `predict`.

    Args:
        sampling_interval, samples_before_logging, node_id: as of `SystemMetricsMonitor`.
    """

    def __init__(
        self,
        sampling_interval: float = 10,
        samples_before_logging: int = 1,
        *,
        node_id: str | None = None,
    ) -> None:
        super().__init__()
        self._sampling_interval = sampling_interval
        self._samples_before_logging = samples_before_logging
        self._node_id = node_id
        # Nothing else while the trainer may be pickled, to be sent to the processes that train.
        self._monitoring: AbstractContextManager[None] | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002  # Lightning's
        self._finish()
        run = _run_for_all(trainer)
        if run is None:
            return
        run_id, tracking_uri = run
        self._monitoring = monitor_run(
            run_id,
            self._sampling_interval,
            self._samples_before_logging,
            node_id=self._node_id,
            tracking_uri=tracking_uri,
        )
        self._monitoring.__enter__()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002  # the same
        self._finish()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        self._finish()

    def _finish(self) -> None:
        monitoring, self._monitoring = self._monitoring, None
        if monitoring is not None:
            monitoring.__exit__(None, None, None)


def _run_for_all(trainer: Any) -> tuple[str, str] | None:
    """The id of the run, and its server, as rank 0 knows them; the same in every process."""
    run = None
    if trainer.is_global_zero:  # the loggers of the others have no run
        try:
            run = _run_of(trainer.loggers)
        except Exception as error:  # noqa: BLE001  # first law; and the others wait to be told
            _logger.warning("Training goes on without system metrics: %s", error)
        else:
            if run is None:
                _logger.warning(
                    "Training goes on without system metrics: the trainer has no MLFlowLogger."
                )
    told: tuple[str, str] | None = trainer.strategy.broadcast(run)
    return told


def _run_of(loggers: list[Any]) -> tuple[str, str] | None:
    from mlflow.tracking import MlflowClient

    for logger in loggers:
        client = getattr(logger, "experiment", None)  # makes the run where it is not made yet
        if isinstance(client, MlflowClient) and logger.run_id is not None:
            return str(logger.run_id), str(client.tracking_uri)
    return None

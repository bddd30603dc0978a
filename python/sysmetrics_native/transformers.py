"""System metrics for a run that Hugging Face's `MLflowCallback` has started.

That callback calls `mlflow.start_run` on rank 0, so on one node MLflow's own switch is enough. This
one monitors every node:

```python
from sysmetrics_native.transformers import SystemMetricsCallback

Trainer(…, args=TrainingArguments(…, report_to="mlflow"), callbacks=[SystemMetricsCallback()])
```

Importing this module imports `transformers`.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Any

from sysmetrics_native.monitor import monitor_run

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    if error.name != "transformers":
        raise
    raise ModuleNotFoundError(
        "sysmetrics_native.transformers needs Hugging Face's transformers, which is not "
        "installed: pip install transformers",
        name="transformers",
    ) from None

_logger = logging.getLogger("sysmetrics_native")


class SystemMetricsCallback(TrainerCallback):  # type: ignore[misc]  # it has no types
    """Monitors MLflow's active run of rank 0, on every node, while a `Trainer` trains.

    Every process must have it, as they have where all run the same script: rank 0 tells the others
    which run it is. Of all processes on one node one samples. The run must be there when training
    begins: `Trainer` asks the callbacks of ``report_to`` first, so those of ``callbacks`` come
    later. Where there is none, that is a warning and training goes on without system metrics.

    A `Trainer` tells nobody of an exception: then monitoring ends with the run or the process.

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
        self._sampling_interval = sampling_interval
        self._samples_before_logging = samples_before_logging
        self._node_id = node_id
        self._monitoring: AbstractContextManager[None] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._finish()  # that of an attempt that has raised
        run = _run_for_all(is_rank_0=state.is_world_process_zero)
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

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._finish()

    def _finish(self) -> None:
        monitoring, self._monitoring = self._monitoring, None
        if monitoring is not None:
            monitoring.__exit__(None, None, None)


def _run_for_all(*, is_rank_0: bool) -> tuple[str, str] | None:
    """The id of the run, and its server, as rank 0 knows them; the same in every process."""
    import torch.distributed

    run = None
    if is_rank_0:  # the others have no run
        try:
            run = _active_run()
        except Exception as error:  # noqa: BLE001  # first law; and the others wait to be told
            _logger.warning("Training goes on without system metrics: %s", error)
        else:
            if run is None:
                _logger.warning(
                    "Training goes on without system metrics: MLflow has no active run."
                )
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return run
    told = [run]
    torch.distributed.broadcast_object_list(told, src=0)
    return told[0]


def _active_run() -> tuple[str, str] | None:
    import mlflow

    run = mlflow.active_run()
    return None if run is None else (str(run.info.run_id), str(mlflow.get_tracking_uri()))

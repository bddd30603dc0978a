"""`SystemMetricsMonitor`: what MLflow starts for a run, and what users start by hand."""

from __future__ import annotations

import atexit
import logging
import os
import re
import threading
import time

from sysmetrics_native import catalog, settings
from sysmetrics_native.delivery import Delivery
from sysmetrics_native.recording_file import RecordedRun
from sysmetrics_native.sampler import Sampler

_logger = logging.getLogger("sysmetrics_native")

THREAD_NAME = "SystemMetricsMonitor"


class SystemMetricsMonitor:
    """Samples this machine and logs the windows to an MLflow run: a drop-in for MLflow's class.

    ```python
    monitor = SystemMetricsMonitor(run_id, sampling_interval=0.01, samples_before_logging=100)
    monitor.start()
    train()
    monitor.finish()
    ```

    Sampling, the making of metrics and the talk with the tracking server happen on three threads
    that do not wait for one another. It ends by `finish()`, when the run has ended elsewhere, or at
    the exit of the interpreter.

    Args:
        run_id: the run to log to.
        sampling_interval: seconds between two samples, 0.001 to 3600;
            ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` beats it.
        samples_before_logging: samples that make one logged window, 1 to 1,000,000;
            ``MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING`` beats it.
        resume_logging: go on behind the largest step that a system metric of the run has.
        node_id: part of the keys that tells this node from others (``system/<node_id>/…``);
            ``MLFLOW_SYSTEM_METRICS_NODE_ID`` beats it.
        tracking_uri: the tracking server; what `mlflow.set_tracking_uri` says unless given.

    Raises:
        ValueError: an argument, or an environment variable, is not allowed. `mlflow.start_run`
            logs the message and goes on without system metrics.
        ModuleNotFoundError: MLflow is not installed.
    """

    def __init__(
        self,
        run_id: str,
        sampling_interval: float = 10,
        samples_before_logging: int = 1,
        resume_logging: bool = False,
        node_id: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        self.sampling_interval = settings.mlflow_interval(sampling_interval)
        self.samples_before_logging = settings.mlflow_samples(samples_before_logging)
        self.node_id = settings.mlflow_node_id(node_id)
        self._statistics: tuple[str, ...] = settings.option("statistics")
        self._shutdown_timeout: float = settings.option("shutdown_timeout")
        self._delivery = Delivery(
            run_id,
            tracking_uri,
            window_seconds=self.sampling_interval * self.samples_before_logging,
            resume=resume_logging,
            on_run_over=lambda: self._sampler.stop(),  # noqa: PLW0108  # it is made below
        )
        recorded_run = self._describe_run(run_id, tracking_uri, resume_logging)
        self._sampler = Sampler(
            self.sampling_interval, self.samples_before_logging, recorded_run=recorded_run
        )
        self._run_id = run_id
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._finishing = threading.Lock()
        self._is_finished = False

    def _describe_run(
        self, run_id: str, tracking_uri: str | None, resume_logging: bool
    ) -> RecordedRun:
        """What a recording must know to complete the run."""
        import mlflow

        return RecordedRun(
            run_id=run_id,
            tracking_uri=_without_credentials(tracking_uri or mlflow.get_tracking_uri()),
            key_prefix=catalog.metric_prefix(self.node_id),
            statistics=self._statistics,
            first_step=None if resume_logging else 0,
        )

    def start(self) -> None:
        """Begin to monitor. A failure is logged, never raised."""
        if self._thread is not None or self._is_finished:
            return
        try:
            self._sampler.start()
            self._delivery.start()
            thread = threading.Thread(target=self._drain, name=THREAD_NAME, daemon=True)
            thread.start()
        except Exception as error:  # noqa: BLE001  # first law: a run never fails for its monitor
            _logger.warning("Failed to start monitoring system metrics: %s", error)
            self._sampler.stop()
            self._delivery.put_last()  # its thread, if it runs, has nothing to wait for
            return
        self._thread = thread
        atexit.register(self.finish)
        _logger.info("Started monitoring system metrics.")

    def finish(self) -> None:
        """Stop sampling and log what is left, the window that is open included.

        Takes at most the option ``shutdown_timeout`` (10 s unless set), whatever the server does.
        Harmless when called twice, without `start()`, or in a forked process.
        """
        if self._thread is None or os.getpid() != self._pid:
            return
        with self._finishing:
            if self._is_finished:
                return
            self._is_finished = True
        deadline = time.monotonic() + self._shutdown_timeout
        try:
            self._stop_all(deadline)
        except Exception as error:  # noqa: BLE001  # the first law again
            _logger.warning("Failed to stop monitoring system metrics cleanly: %s", error)
        atexit.unregister(self.finish)

    def _stop_all(self, deadline: float) -> None:
        assert self._thread is not None  # finish() has looked
        self._sampler.stop(_seconds_until(deadline))
        self._delivery.close(deadline)
        self._thread.join(_seconds_until(deadline))
        logged, left = self._delivery.wait(deadline)
        stats = self._sampler.stats()
        _logger.info(
            "System metrics of run %s: %d windows logged, %d ticks, %d missed.",
            self._run_id,
            logged,
            stats["ticks"],
            stats["missed"],
        )
        if left == 0:
            self._sampler.mark_delivered()
        else:
            _logger.warning(
                "System metrics of run %s: %d windows were not logged, because the tracking "
                "server did not take them within %g s.",
                self._run_id,
                left,
                self._shutdown_timeout,
            )

    def _drain(self) -> None:
        """Turn windows into metrics until the sampler stops."""
        prefix = catalog.metric_prefix(self.node_id)
        schema = self._sampler.schema
        percentiles = any(name.startswith("p") for name in self._statistics)
        try:
            for window in self._sampler.windows(percentiles=percentiles):
                metrics = catalog.metrics_of(window, schema, self._statistics)
                values = [(prefix + key, value) for key, value in metrics]
                self._delivery.put(round(window.end * 1000), values)
        except Exception:  # a bug of ours must end monitoring with a trace, and nothing else
            _logger.exception("Stopped monitoring system metrics")
            self._sampler.stop()
        self._delivery.put_last()


def _without_credentials(uri: str) -> str:
    """The address of a tracking server as a file may hold it: no user, password or token."""
    return re.sub(r"(?<=://)[^/?]*@|\?.*", "", uri)


def _seconds_until(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())

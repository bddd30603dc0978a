"""`SystemMetricsMonitor`: what MLflow starts for a run, and what users start by hand."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

from sysmetrics_native import catalog, monitored_run, settings, termination
from sysmetrics_native.delivery import (
    Counts,
    Delivery,
    recover_command,
    resolve_uri,
    uri_for_files,
)
from sysmetrics_native.gpus import identity_tags
from sysmetrics_native.recording_file import RecordedRun
from sysmetrics_native.sampler import Sampler
from sysmetrics_native.threads import Thread
from sysmetrics_native.window import Window

_logger = logging.getLogger("sysmetrics_native")

THREAD_NAME = "SystemMetricsMonitor"

LOOKS_PER_WINDOW = 4
LOOK_SECONDS = (0.05, 1.0)
"""Whether the monitor of another process is still there is seen so often in a window, within these
bounds."""

_LOCAL_PATIENCE_SECONDS = 0.5  # less than the grace of `termination`, which bounds it all


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
    the exit of the interpreter. Of a run that `sysmetrics-native run` monitors from outside it does
    nothing in that command's processes.

    Of all monitors of a run on one node one samples. The others wait, and when that one finishes or
    its process dies while the run goes on, another goes on behind its last step.

    Args:
        run_id: the run to log to.
        sampling_interval: seconds between two samples, 0.001 to 3600;
            ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` beats it.
        samples_before_logging: samples that make one logged window, 1 to 1,000,000;
            ``MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING`` beats it.
        resume_logging: go on behind the largest step that a system metric of the run has.
        node_id: part of the keys that tells this node from others (``system/<node_id>/…``);
            ``MLFLOW_SYSTEM_METRICS_NODE_ID`` beats it. Unless given, and in a job of several nodes,
            it comes from the launcher.
        tracking_uri: the tracking server; what `mlflow.set_tracking_uri` says unless given.
        pid: another process to monitor from outside, with its descendants: the sources ``process``
            and ``container`` are about it. What the run's status says does not matter then, because
            that process may set it as it likes: monitoring ends by `finish()` alone.
        on_window: called with each window, on the thread that makes metrics of it.

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
        *,
        pid: int = 0,
        on_window: Callable[[Window], object] | None = None,
    ) -> None:
        self.sampling_interval = settings.mlflow_interval(sampling_interval)
        self.samples_before_logging = settings.mlflow_samples(samples_before_logging)
        self.node_id = settings.mlflow_node_id(node_id)
        self._statistics: tuple[str, ...] = settings.option("statistics")
        self._shutdown_timeout: float = settings.option("shutdown_timeout")
        self._key_prefix = catalog.metric_prefix(self.node_id)
        self._run_id = run_id
        self._pid = os.getpid()
        self._target = pid
        self._on_window = on_window
        self._thread: threading.Thread | None = None
        # A signal handler of the program may call finish() while that runs on the same thread.
        self._finishing = threading.RLock()
        self._finish_by: float | None = None
        self._is_finished = False
        self._leaving = threading.Event()
        self._beginning = threading.RLock()  # held while it becomes this monitor's turn, or never
        self._has_turn = False
        self._is_inert = pid == 0 and monitored_run.is_monitored_outside(run_id)
        if not self._is_inert:
            self._prepare(resume_logging, tracking_uri)

    def _prepare(self, resume_logging: bool, tracking_uri: str | None) -> None:
        """Open the sources, and what the windows go through."""
        # Not above: every `import mlflow` would pay for these, whether a run is monitored or not.
        from sysmetrics_native import host_facts, node_lock, nodes

        run_id = self._run_id
        tracking_uri = resolve_uri(tracking_uri)
        tags = host_facts.host_tag(
            self._key_prefix, settings.option("procfs_path"), settings.option("sysfs_path")
        )
        self._recorded_run = RecordedRun(
            run_id=run_id,
            tracking_uri=uri_for_files(tracking_uri),
            key_prefix=self._key_prefix,
            statistics=self._statistics,
            first_step=None if resume_logging else 0,
            tags=tags,
        )
        self._turn = node_lock.NodeLock(self._recorded_run.tracking_uri, run_id, self.node_id)
        self._sampler = Sampler(
            self.sampling_interval,
            self.samples_before_logging,
            pid=self._target,
            recorded_run=self._recorded_run,
        )
        self._delivery = Delivery(
            run_id,
            tracking_uri,
            spool_dir=settings.option("spool_dir"),
            window_seconds=self.sampling_interval * self.samples_before_logging,
            delivery_interval=settings.option("delivery_interval"),
            resume=resume_logging,
            on_run_over=self._on_run_over,
            tags={**tags, **identity_tags(self._sampler.gpus, self._key_prefix)},
            heeds_status=self._target == 0,
            clock_tag=self._key_prefix + host_facts.CLOCK_TAG,
            key_prefix=self._key_prefix,
            nodes=nodes.most_nodes(os.environ),
        )

    @property
    def recording_path(self) -> str | None:
        """The file that rows are recorded to; `None` when they are not."""
        return None if self._is_inert else self._sampler.recording_path

    def start(self) -> None:
        """Begin to monitor. A failure is logged, never raised."""
        if self._thread is not None or self._is_finished:
            return
        if self._is_inert:
            _logger.info("Run %s is monitored by sysmetrics-native run.", self._run_id)
            return
        if os.getpid() != self._pid:
            _logger.warning("A monitor made before a fork cannot start behind it: make a new one.")
            return
        try:
            termination.watch(self._finish_at_signal, self._shutdown_timeout)
            is_first = self._has_turn = self._turn.take()
            if is_first:
                self._begin()
            else:
                self._prepare_to_wait()
            thread = Thread(THREAD_NAME, self._drain if is_first else self._wait)
            thread.start()
        except Exception as error:  # noqa: BLE001  # first law: a run never fails for its monitor
            self._give_up(error)
            return
        self._thread = thread
        atexit.register(self.finish)
        if is_first:
            _logger.info("Started monitoring system metrics.")
        else:
            _logger.info("Run %s is monitored by another one on this node.", self._run_id)

    def _begin(self) -> None:
        self._sampler.start()
        self._delivery.start()

    def _give_up(self, error: Exception) -> None:
        _logger.warning("Failed to start monitoring system metrics: %s", error)
        self._sampler.stop()
        self._delivery.put_last()  # its thread, if it runs, has nothing to wait for
        termination.unwatch(self._finish_at_signal)
        self._turn.release()

    # ---- while another process of this node has the turn ----------------------------------------

    def _prepare_to_wait(self) -> None:
        """Load what a later `_begin` needs, which must not be imported on a thread."""
        self._delivery.prepare()
        importlib.import_module("sysmetrics_native.recorder")
        if self._target != 0:  # of that process somebody wants to see windows all the same
            self._sampler.record_for(None)  # which `recover` must not log beside the other's
            self._sampler.start()

    def _wait(self) -> None:
        """Wait for the turn, and then do as if it had been ours from the beginning."""
        if self._target != 0:
            self._drain()
            return
        window_seconds = self.sampling_interval * self.samples_before_logging
        shortest, longest = LOOK_SECONDS
        pause = min(max(window_seconds / LOOKS_PER_WINDOW, shortest), longest)
        while not self._leaving.wait(pause):
            if self._takes_over():
                self._drain()
                return

    def _takes_over(self) -> bool:
        """Begin if the other one is gone, and this monitor is not about to go itself.

        Returns:
            Whether it has begun. If that failed there is a warning, and it is not tried again.
        """
        with self._beginning:
            if self._leaving.is_set() or not self._turn.take():
                return False
            self._has_turn = True
            self._delivery.succeed_another()
            if self._target == 0:
                self._sampler.record_for(self._recorded_run._replace(first_step=None))
            try:
                self._begin()
            except Exception as error:  # noqa: BLE001  # the first law again
                self._give_up(error)
                self._has_turn = False
                self._leaving.set()
                return False
        _logger.info("Went on to monitor run %s for another process of this node.", self._run_id)
        return True

    # ---- the end --------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until monitoring has ended, by `finish()` or because the run has.

        Args:
            timeout: the most seconds to wait; as long as it takes unless given.

        Returns:
            Whether it has ended; true of one that has not begun, too.
        """
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def finish(self) -> None:
        """Stop sampling and log what is left, the window that is open included.

        Takes at most the option ``shutdown_timeout`` (10 s unless set), whatever the server does.
        Harmless when called twice, without `start()`, or in a forked process. If another thread is
        at it already, this waits for that; if Ctrl-C cut it short, the next call goes on with it.
        """
        if self._thread is None or os.getpid() != self._pid:
            return
        if not self._finishing.acquire(timeout=self._shutdown_timeout):
            return
        try:
            if not self._is_finished:
                self._finish()
                self._is_finished = True
        finally:
            self._finishing.release()

    def _finish_at_signal(self) -> None:
        self._delivery.hurry()
        self.finish()

    def _finish(self) -> None:
        if self._finish_by is None:
            self._finish_by = time.monotonic() + self._shutdown_timeout
        try:
            self._stop_all(self._finish_by)
            if self._has_turn:
                self._report()
        except Exception as error:  # noqa: BLE001  # the first law again
            _logger.warning("Failed to stop monitoring system metrics cleanly: %s", error)
        self._turn.release()
        atexit.unregister(self.finish)
        termination.unwatch(self._finish_at_signal)

    def _stop_all(self, deadline: float) -> None:
        assert self._thread is not None  # finish() has looked
        # The option bounds the wait for the server; what this machine does itself takes moments.
        local_deadline = max(deadline, time.monotonic() + _LOCAL_PATIENCE_SECONDS)
        self._leaving.set()
        if self._beginning.acquire(timeout=_seconds_until(local_deadline)):
            self._beginning.release()  # from here on it is nobody's turn that it was not before
        self._delivery.close(deadline)
        self._sampler.stop(_seconds_until(local_deadline))
        if self._has_turn:
            self._delivery.wait(deadline)
        self._thread.join(_seconds_until(local_deadline))

    def _report(self) -> None:
        counts = self._delivery.counts()
        stats = self._sampler.stats()
        _logger.info(
            "System metrics of run %s: %d windows logged, %d ticks, %d missed.",
            self._run_id,
            counts.logged,
            stats["ticks"],
            stats["missed"],
        )
        if counts.kept >= counts.left or self._delivery.was_refused:
            self._sampler.mark_delivered()  # nobody needs the recording to find a window
        if counts.left == 0 or self._delivery.was_refused:
            return
        _logger.warning(
            "System metrics of run %s: %d windows were not logged, because the tracking server "
            "did not take them within %g s. %s",
            self._run_id,
            counts.left,
            self._shutdown_timeout,
            self._fate(counts),
        )

    def _fate(self, counts: Counts) -> str:
        """What becomes of windows that were not logged."""
        recording = self._sampler.recording_path
        if counts.kept < counts.left and recording is not None:
            return f"They are in the recording; send them with: {recover_command(recording)}"
        if counts.kept == 0:
            return "They are lost: they could not be written down."
        which = "They" if counts.kept >= counts.left else f"{counts.kept} of them"
        return f"{which} are kept in a file; send them with: {recover_command(counts.path)}"

    def _on_run_over(self) -> None:
        """No further samples; and no flush, once all was sent, whether finish() comes or not."""
        if self._target != 0:  # it is still there to be recorded, and looked at
            return
        self._sampler.stop()
        if self._delivery.is_done() and self._finish_by is None:
            self._turn.release()
            termination.unwatch(self._finish_at_signal)

    def _drain(self) -> None:
        """Turn windows into metrics until the sampler stops."""
        schema = self._sampler.schema
        percentiles = any(name.startswith("p") for name in self._statistics)
        try:
            for window in self._sampler.windows(percentiles=percentiles):
                if self._on_window is not None:
                    self._on_window(window)
                if self._delivery.was_refused or not (self._has_turn or self._takes_over()):
                    continue
                metrics = catalog.metrics_of(window, schema, self._statistics)
                values = {self._key_prefix + key: value for key, value in metrics}
                self._delivery.put(catalog.timestamp_ms(window), values)
        except Exception:  # a bug of ours must end monitoring with a trace, and nothing else
            _logger.exception("Stopped monitoring system metrics")
            self._sampler.stop()
        self._delivery.put_last()


@contextlib.contextmanager
def monitor_run(
    run_id: str,
    sampling_interval: float = 10,
    samples_before_logging: int = 1,
    *,
    node_id: str | None = None,
    tracking_uri: str | None = None,
) -> Iterator[None]:
    """Monitor a run that another process has started, for as long as the block takes.

    For the processes of a job that do not call `mlflow.start_run` themselves: each may do this,
    one on each node samples. Steps go on behind those that the run has, so a process that was
    started anew goes on as well. As in `mlflow.start_run` a setting that is not allowed is a
    warning, and the block runs without system metrics.

    ```python
    with sysmetrics_native.monitor_run(run_id):
        train()
    ```

    Args:
        run_id: the run to log to.
        sampling_interval, samples_before_logging, node_id, tracking_uri: as of
            `SystemMetricsMonitor`.
    """
    monitor = None
    try:
        monitor = SystemMetricsMonitor(
            run_id,
            sampling_interval,
            samples_before_logging,
            resume_logging=True,
            node_id=node_id,
            tracking_uri=tracking_uri,
        )
        monitor.start()
    except Exception as error:  # noqa: BLE001  # first law: a run never fails for its monitor
        _logger.warning("Run %s goes on without system metrics: %s", run_id, error)
    try:
        yield
    finally:
        if monitor is not None:
            monitor.finish()


def _seconds_until(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())

"""`Sampler`: windows of host metrics, with or without MLflow."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sysmetrics_native import settings
from sysmetrics_native.backends import SamplingOptions, choose_backend
from sysmetrics_native.gpus import Gpu
from sysmetrics_native.window import SeriesInfo, Window

if TYPE_CHECKING:
    from sysmetrics_native.recorder import Recorder
    from sysmetrics_native.recording_file import RecordedRun

_STOP_TIMEOUT_SECONDS = 5.0


class Sampler:
    """Samples this machine on a thread of its own and hands out aggregated windows.

    ```python
    with Sampler(interval=0.001, samples_per_window=1000) as sampler:
        for window in sampler.windows(timeout=2.0):
            print(window["cpu_utilization_percentage"].mean)
    ```

    Args:
        interval: seconds between two ticks, 0.001 to 3600.
        samples_per_window: ticks that make one window, 1 to 1,000,000.
        backend: ``native``, ``psutil`` or ``auto``.
        sources: names of sources, as a list or as text with commas: ``default``, ``all``, a name,
            or ``-name`` to drop one. Given here they are all there is; from elsewhere, MLflow's
            ``MLFLOW_SYSTEM_METRICS_INCLUDE_PROCESS`` adds ``process``.
        disk_paths: mount points for the disk space metrics; the first has the plain keys. One that
            does not answer, as a network mount whose server is gone, is absent while it hangs.
        network_interfaces: what the rates of the source ``network_rate`` are made of: ``physical``
            (nothing twice, nothing that stays inside), ``all``, or names.
        gpus: which GPUs: ``all``, ``visible`` (what ``CUDA_VISIBLE_DEVICES``,
            ``ROCR_VISIBLE_DEVICES`` and ``HIP_VISIBLE_DEVICES`` leave), ``none``, or indices and
            UUIDs, as a list or as text with commas. The keys keep the driver's index.
        procfs_path, sysfs_path: roots of the kernel's file systems.
        overhead_budget: the share of one core that the sources may take, above 0 and up to 1; where
            they would take more the most expensive ones are read less often.
        pid: the process that the sources ``process`` and ``container`` are about, as `procfs_path`
            numbers it; 0, and unless given, this one. ``process`` counts its descendants, too,
            unless ``MLFLOW_SYSTEM_METRICS_INCLUDE_CHILD_PROCESSES`` is false.
        recorder: whether to write every row to a file that outlives this process, which
            `sysmetrics_native.recording` reads: `False`, `True` for the user's own folder of
            recordings, or the path of a file or folder. Where that cannot be done there is a
            warning, and sampling goes on without it.
        recorder_megabytes: largest size of that file, 0.1 to 65536; then the oldest rows go.
        recorded_run: for `SystemMetricsMonitor`: what the recording belongs to.

    What is left out comes from `configure()`, then from ``SYSMETRICS_NATIVE_<OPTION>``, then from
    the default.

    Raises:
        ValueError: an argument, or an environment variable, is not allowed. The message names it,
            its value and what is.

    A process that is forked from this one has no sampling thread: there the sampler has no windows,
    and `stop()` returns at once.
    """

    def __init__(
        self,
        interval: float = 10.0,
        samples_per_window: int = 1,
        *,
        backend: str | None = None,
        sources: str | Iterable[str] | None = None,
        disk_paths: str | Iterable[str] | None = None,
        network_interfaces: str | Iterable[str] | None = None,
        gpus: str | int | Iterable[str | int] | None = None,
        procfs_path: str | os.PathLike[str] | None = None,
        sysfs_path: str | os.PathLike[str] | None = None,
        overhead_budget: float | None = None,
        pid: int = 0,
        recorder: bool | str | os.PathLike[str] | None = None,
        recorder_megabytes: float | None = None,
        recorded_run: RecordedRun | None = None,
    ) -> None:
        arguments = {
            "backend": backend,
            "sources": sources,
            "disk_paths": disk_paths,
            "network_interfaces": network_interfaces,
            "gpus": gpus,
            "procfs_path": procfs_path,
            "sysfs_path": sysfs_path,
            "overhead_budget": overhead_budget,
        }
        values = {name: settings.option(name, value) for name, value in arguments.items()}
        if sources is None:
            values["sources"] = settings.chosen_sources()
        spelling = {name: settings.spelling(name, value) for name, value in arguments.items()}
        backend_class = choose_backend(values.pop("backend"), spelling["backend"])
        options = SamplingOptions(
            interval=settings.parse_interval("interval", interval),
            samples_per_window=settings.parse_samples("samples_per_window", samples_per_window),
            pid=settings.parse_pid("pid", pid),
            process_children=settings.mlflow_process_children(),
            spelling=spelling,
            **values,
        )
        self._backend = backend_class(options)
        self._options = options
        self._record_to: bool | str = settings.option("recorder", recorder)
        self._record_megabytes: float = settings.option("recorder_megabytes", recorder_megabytes)
        self._recorded_run = recorded_run
        self._recorder: Recorder | None = None
        self._pid = os.getpid()
        self._started = False
        self._stopped = False
        # A thread written in Python keeps its backend alive: only this ends it then.
        weakref.finalize(self, self._backend.stop, 0.0).atexit = False

    @property
    def schema(self) -> tuple[SeriesInfo, ...]:
        """What each window holds: key, unit, source and kind of every series."""
        return self._backend.schema

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that are read, by their indices."""
        return self._backend.gpus

    def start(self) -> None:
        """Take the first reading, which counters start from, and begin to sample.

        Harmless while running.

        Raises:
            OSError: the system gives no further thread.
            RuntimeError: the sampler was stopped; windows of another stretch of time need a new
                one.
        """
        if self._stopped:
            raise RuntimeError("the sampler was stopped and cannot start again: make a new one")
        if self._record_to is not False and not self._started and os.getpid() == self._pid:
            self._begin_recording()
        self._backend.start()
        self._started = True

    def _begin_recording(self) -> None:
        if self._recorder is not None:  # of a start that failed
            return
        from sysmetrics_native import recorder

        plan = recorder.Plan(
            where=self._record_to,
            megabytes=self._record_megabytes,
            interval=self._options.interval,
            samples_per_window=self._options.samples_per_window,
            run=self._recorded_run,
        )
        self._recorder = recorder.begin(plan, self._backend)

    def record_for(self, run: RecordedRun | None) -> None:
        """Say what the recording belongs to, if it is not what was said first; before `start`."""
        self._recorded_run = run

    @property
    def recording_path(self) -> str | None:
        """The file that rows are recorded to; `None` when they are not."""
        return None if self._recorder is None else self._recorder.path

    def mark_delivered(self) -> None:
        """Say in the recording that every window is where it should be: nothing is to recover.

        For when the sampler has stopped. No effect while it runs, without a recording, or in a
        forked process.
        """
        if self._recorder is not None and self._stopped and self.stop(0.0):
            self._recorder.mark_delivered()

    def stop(self, timeout: float = _STOP_TIMEOUT_SECONDS) -> bool:
        """Take a last reading, close the window that is open, and end the thread.

        Windows that nobody has taken can still be taken. Harmless when not running.

        Args:
            timeout: seconds to wait for a reading that hangs in the kernel.

        Returns:
            Whether the thread has ended.
        """
        self._stopped = self._started
        has_ended = self._backend.stop(timeout)
        if self._recorder is not None:
            self._recorder.look_at(self._backend.recorded())
            if has_ended:
                self._recorder.mark_ended()
        return has_ended

    def next_window(
        self, timeout: float | None = None, *, percentiles: bool = True
    ) -> Window | None:
        """The oldest window that nobody has taken; waits for it without the GIL.

        Args:
            timeout: seconds to wait; `None` for as long as the sampler runs.
            percentiles: whether to compute them, which sorts the window's rows.

        Returns:
            The window, or `None` after the timeout or when the sampler has stopped and all windows
            were taken.

        Raises:
            RuntimeError: the sampler was never started.
        """
        if not self._started:
            raise RuntimeError("the sampler is not running: use it in `with`, or call start()")
        window = self._backend.next_window(timeout, percentiles=percentiles)
        if self._recorder is not None:
            self._recorder.look_at(self._backend.recorded())
        return window

    def windows(
        self, timeout: float | None = None, *, percentiles: bool = True
    ) -> Iterator[Window]:
        """Windows as they close, until the sampler stops or none came for `timeout` seconds."""
        while (window := self.next_window(timeout, percentiles=percentiles)) is not None:
            yield window

    def stats(self) -> dict[str, Any]:
        """How sampling itself is doing, since the start.

        Returns:
            ``{"ticks", "missed", "merged_windows", "overhead": {"budget", "share"}, "sources":
            {name: {"calls", "errors", "interval_seconds", "usual_interval_seconds",
            "mean_cost_seconds", "max_cost_seconds"}}, "recorder": {"path", "rows", "errors"}}``:
            ticks taken and skipped, windows merged because nobody took them; the share of one core
            that the sources may take and that they took in the last second or more (`None`: not
            known yet); for each source how often it was read, how often that failed, how far apart
            its readings are, how far apart they would be if the budget did not matter, and what one
            costs in seconds of CPU time of the thread that makes it (the GPUs have their own); of
            the recording the rows that it took and those that could not be written, or `None`
            instead of all three where there is none.
        """
        recording = None
        if self._recorder is not None:
            recorded = self._backend.recorded()
            recording = {
                "path": self._recorder.path,
                "rows": recorded.rows,
                "errors": recorded.errors,
            }
        return {**self._backend.stats(), "recorder": recording}

    def __enter__(self) -> Sampler:  # noqa: PYI034  # typing.Self came with Python 3.11
        self.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

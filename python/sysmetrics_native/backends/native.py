"""The C core behind the `Backend` protocol."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from sysmetrics_native._native import ffi, lib
from sysmetrics_native.backends import (
    SamplingOptions,
    describe_slowed,
    next_wait,
    overhead_stats,
    source_stats,
)
from sysmetrics_native.backends.native_gpus import SOURCES as GPU_SOURCES
from sysmetrics_native.backends.native_gpus import NativeGpus
from sysmetrics_native.catalog import DocumentedSeries
from sysmetrics_native.gpus import NONE, Gpu, describe_inventory, select
from sysmetrics_native.recording_file import Recorded, RecordedSeries, RowLayout
from sysmetrics_native.settings import resolve_sources
from sysmetrics_native.window import Series, SeriesInfo, Window

_logger = logging.getLogger("sysmetrics_native")

_KINDS = {
    lib.SMN_GAUGE: "gauge",
    lib.SMN_TOTAL: "total",
    lib.SMN_RATE: "rate",
    lib.SMN_RATIO: "ratio",
}

_NS_PER_SECOND = 1_000_000_000
_LONGEST_WAIT_SECONDS = 1e9


def known_sources() -> dict[str, bool]:
    """Every source of the C core, and whether it is part of `default`."""
    return {
        _text(lib.smn_source_name(i)): bool(lib.smn_source_is_default(i))
        for i in range(lib.smn_source_count())
    }


def shortest_intervals() -> dict[str, float]:
    """How many seconds lie between two readings of each source at least; 0: as often as ticks."""
    return {
        _text(lib.smn_source_name(i)): lib.smn_source_min_interval_ns(i) / _NS_PER_SECOND
        for i in range(lib.smn_source_count())
    }


def documented_series() -> tuple[DocumentedSeries, ...]:
    """See `catalog.documented_series`."""
    return tuple(
        series for index in range(lib.smn_source_count()) for series in _documented_of(index)
    )


def _documented_of(index: int) -> Iterator[DocumentedSeries]:
    source = _text(lib.smn_source_name(index))
    known = ffi.new("smn_known_series *")
    for place in itertools.count():
        if lib.smn_source_series(index, place, known) != 0:
            return
        info = SeriesInfo(_text(known.key), _text(known.unit), source, _KINDS[known.kind])
        yield DocumentedSeries(info, *map(_text, (known.meaning, known.reads, known.formula)))


def _text(string: Any) -> str:
    return str(ffi.string(string).decode())


def _present(value: float) -> float | None:
    return None if value != value else value  # noqa: PLR0124  # NaN is what differs from itself


class NativeBackend:
    """A sampler of the C core. See `Backend`."""

    name = "native"
    schema: tuple[SeriesInfo, ...]
    gpus: tuple[Gpu, ...] = ()

    def __init__(self, options: SamplingOptions) -> None:
        sources = resolve_sources(options.sources, known_sources(), options.spelling["sources"])
        self._gpus = self._find_gpus(options, sources)
        strings = {
            "procfs_path": os.fsencode(options.procfs_path),
            "sysfs_path": os.fsencode(options.sysfs_path),
            "sources": ",".join(sources).encode(),
            "disk_paths": os.fsencode("\n".join(options.disk_paths)),
            "network_interfaces": os.fsencode("\n".join(options.network_interfaces)),
        }
        kept = {name: ffi.new("char[]", value) for name, value in strings.items()}
        native_options = ffi.new(
            "smn_options *",
            {
                "interval_ns": round(options.interval * _NS_PER_SECOND),
                "samples_per_window": options.samples_per_window,
                "pid": options.pid,
                "process_alone": not options.process_children,
                "overhead_budget": options.overhead_budget,
                "gpus": ffi.NULL if self._gpus is None else self._gpus.handle,
                **kept,
            },
        )
        out = ffi.new("smn_sampler **")
        error = ffi.new("char[]", lib.SMN_ERROR_TEXT_BYTES)
        code = lib.smn_sampler_create(native_options, out, error)
        if code == -errno.ENODATA:
            raise ValueError(
                f"{options.spelling['sources']} must leave a source that this machine has, got "
                f"{','.join(options.sources)!r}"
            )
        if code != 0:
            raise ValueError(_text(error))
        # Freed with the last reference, so not under a thread that is still inside a call.
        self._handle = ffi.gc(out[0], lib.smn_sampler_destroy)
        # A signal handler of the program may stop a sampler that the same thread is stopping.
        self._lifecycle = threading.RLock()
        self._budget = options.overhead_budget
        self._budget_name = options.spelling["overhead_budget"]
        self._has_said_slowed = False
        self._pid = os.getpid()
        self.layout = RowLayout(
            lib.smn_sampler_columns(self._handle), tuple(self._describe_series())
        )
        self.schema = tuple(series.info for series in self.layout.series)
        self._keys = [info.key for info in self.schema]

    def _find_gpus(self, options: SamplingOptions, sources: tuple[str, ...]) -> NativeGpus | None:
        """Those to be read; `None` where there are none, so that no thread waits for nothing."""
        wanted = [name for name in GPU_SOURCES if name in sources]
        if not wanted or options.gpus == NONE:
            return None
        try:
            found = NativeGpus(options.sysfs_path, wanted)
        except OSError as error:  # no further thread
            _logger.warning("No GPU is read: %s", error)
            return None
        try:
            _logger.info("%s", describe_inventory(found.inventory))
            selection = select(options.gpus, found.inventory, os.environ, options.spelling["gpus"])
            if selection.remark:
                _logger.warning("%s.", selection.remark)
            found.keep(selection)
            found.log_messages()
        except BaseException:
            found.close()
            raise
        self.gpus = selection.gpus
        if not self.gpus:
            found.close()
            return None
        return found

    def _describe_series(self) -> list[RecordedSeries]:
        info = ffi.new("smn_series_info *")
        series = []
        for index in range(lib.smn_sampler_series_count(self._handle)):
            lib.smn_sampler_series(self._handle, index, info)
            series.append(
                RecordedSeries(
                    _text(info.key),
                    _text(info.unit),
                    _text(info.source),
                    _KINDS[info.kind],
                    info.numerator,
                    info.denominator if info.denominator >= 0 else None,
                    info.scale,
                    info.quantum,
                )
            )
        return series

    def record(self, file: int, data_offset: int, capacity: int) -> None:
        with self._lifecycle:
            code = lib.smn_sampler_record(self._handle, file, data_offset, capacity)
        if code != 0:
            raise OSError(-code, f"cannot record: {os.strerror(-code)}")

    def recorded(self) -> Recorded:
        counters = self._counters()
        return Recorded(counters.recorded_rows, counters.record_errors, -counters.last_record_error)

    def _counters(self) -> Any:
        counters = ffi.new("smn_counters *")
        lib.smn_sampler_counters(self._handle, counters)
        return counters

    def start(self) -> None:
        if os.getpid() != self._pid:
            return
        with self._lifecycle:
            code = lib.smn_sampler_start(self._handle)
        if code not in (0, -errno.EALREADY):
            raise OSError(-code, f"cannot start the sampling thread: {os.strerror(-code)}")

    def stop(self, timeout: float) -> bool:
        if os.getpid() != self._pid:
            return True
        with self._lifecycle:
            has_ended = bool(lib.smn_sampler_stop(self._handle, _nanoseconds(timeout)) == 0)
        self._log_messages()
        return has_ended

    def _log_messages(self) -> None:
        if self._gpus is not None:
            self._gpus.log_messages()
        if not self._has_said_slowed and self._counters().slowed_sources > 0:
            line = describe_slowed(self._source_stats(), self._budget, self._budget_name)
            self._has_said_slowed = bool(line)
            if line:
                _logger.warning("%s", line)

    def next_window(self, timeout: float | None, *, percentiles: bool) -> Window | None:
        window = ffi.new("smn_window *")
        statistics = ffi.new("smn_statistics[]", len(self._keys))
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            wait = next_wait(deadline)
            code = lib.smn_sampler_next_window(
                self._handle, _nanoseconds(wait), percentiles, window, statistics
            )
            if code == 0:
                self._log_messages()
                return self._to_window(window, statistics)
            if code in (-errno.ESHUTDOWN, -errno.ECHILD):
                return None
            if code == -errno.ENOMEM:
                raise MemoryError("no memory for a window")
            # A signal came, whose handler Python runs between the calls, or the time is over.
            if deadline is not None and not time.monotonic() < deadline:  # NaN is over at once
                return None

    def _to_window(self, window: Any, statistics: Any) -> Window:
        series = {}
        for key, one in zip(self._keys, statistics, strict=True):
            values = (one.mean, one.min, one.max, one.last, one.p50, one.p95, one.p99)
            series[key] = Series(*map(_present, values))
        return Window(
            series,
            start=window.start_seconds,
            end=window.end_seconds,
            samples=window.samples,
            missed=window.missed,
            merged=window.merged,
        )

    def stats(self) -> dict[str, Any]:
        counters = self._counters()
        return {
            "ticks": counters.ticks,
            "missed": counters.missed,
            "merged_windows": counters.merged_windows,
            "overhead": overhead_stats(self._budget, _present(counters.overhead_share)),
            "sources": self._source_stats(),
        }

    def _source_stats(self) -> dict[str, Mapping[str, int | float]]:
        source = ffi.new("smn_source_stats *")
        sources = {}
        for index in range(lib.smn_sampler_sources(self._handle)):
            lib.smn_sampler_source_stats(self._handle, index, source)
            sources[_text(source.name)] = source_stats(
                source.calls,
                source.errors,
                source.interval_ns / _NS_PER_SECOND,
                source.usual_interval_ns / _NS_PER_SECOND,
                source.total_cost_ns / _NS_PER_SECOND,
                source.max_cost_ns / _NS_PER_SECOND,
            )
        return sources


def _nanoseconds(seconds: float | None) -> int:
    if seconds is None:
        return -1
    return round(max(0.0, min(seconds, _LONGEST_WAIT_SECONDS)) * _NS_PER_SECOND)

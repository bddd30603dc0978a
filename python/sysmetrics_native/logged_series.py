"""What a tracking server has of a run's system metrics, as series over time.

Works for runs that were logged with MLflow's own monitor, too: nothing but names is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sysmetrics_native.catalog import METRIC_PREFIX, STATISTICS
from sysmetrics_native.redaction import error_text
from sysmetrics_native.timeline import (
    Timeline,
    Track,
    cleaned,
    duration,
    gpu_facts,
    local_time,
    with_gaps,
)
from sysmetrics_native.tracking import is_permanent

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_MS_PER_SECOND = 1000
_CLOSE_TO_MEAN = ("mean", "p50", "last", "p95", "p99", "max", "min")

# ---- what a key says ----------------------------------------------------------------------------

# How a key ends, the unit that this means, and the kind where there is one only. The first counts.
_ENDINGS = (
    ("_megabytes_per_second", "megabytes per second", "rate"),
    ("_operations_per_second", "operations per second", "rate"),
    ("_switches_per_second", "switches per second", "rate"),
    ("_faults_per_second", "faults per second", "rate"),
    ("_drops_per_second", "packets per second", "rate"),
    ("_errors_per_second", "errors per second", "rate"),
    ("_per_second", "per second", "rate"),
    ("network_receive_megabytes", "megabytes", "total"),
    ("network_transmit_megabytes", "megabytes", "total"),
    ("_megabytes", "megabytes", "gauge"),
    ("_percentage", "percentage", ""),
    ("_watts", "watts", ""),
    ("_joules", "joules", "total"),
    ("_celsius", "celsius", "gauge"),
    ("_megahertz", "megahertz", "gauge"),
    ("_errors", "errors", "total"),
    ("_kills", "kills", "total"),
    ("_threads", "threads", "gauge"),
    ("_files", "files", "gauge"),
    ("load_average_1m", "tasks", "gauge"),
)
_UNITS = tuple(ending for ending, _, _ in _ENDINGS)
# Disk keys of further paths have the path behind the unit.
_OF_A_PATH = re.compile(r"(disk_(?:usage|available)_(?:percentage|megabytes))_.+")


def unit_and_kind(key: str) -> tuple[str, str]:
    """What the name of a series says of it; empty texts where it says nothing."""
    of_a_path = _OF_A_PATH.fullmatch(key)
    if of_a_path is not None:
        key = of_a_path.group(1)
    for ending, unit, kind in _ENDINGS:
        if key.endswith(ending):
            return unit, kind
    return "", ""


class SeriesName(NamedTuple):
    """What a metric is of, its statistic left aside."""

    node: str | None
    key: str


def sort_out(metrics: Iterable[str]) -> dict[SeriesName, dict[str, str]]:
    """The system metrics of a run, by series and statistic.

    ``<key>_max`` is the maximum of a series if that series is there, or its key ends with a unit;
    else, as for the disk path ``/data/max``, it is a key of its own.
    """
    found = {}
    for metric in sorted(metrics):
        if metric.startswith(METRIC_PREFIX):
            node, _, key = metric[len(METRIC_PREFIX) :].rpartition("/")
            found[SeriesName(node or None, key)] = metric
    sorted_out: dict[SeriesName, dict[str, str]] = {}
    for series, metric in found.items():
        base, _, statistic = series.key.rpartition("_")
        whole = series._replace(key=base)
        if statistic in STATISTICS[1:] and (whole in found or base.endswith(_UNITS)):
            sorted_out.setdefault(whole, {})[statistic] = metric
        else:
            sorted_out.setdefault(series, {})["mean"] = metric
    return sorted_out


# ---- a run --------------------------------------------------------------------------------------


def timeline_of_run(
    run_id: str, tracking_uri: str | None = None, *, percentiles: bool = False
) -> Timeline:
    """All system metrics of a run; see `sysmetrics_native.timeline.open_timeline`."""
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{run_id} is no file, and to ask a tracking server for the run needs MLflow, which is "
            "not installed: pip install 'mlflow>=2.9'",
            name=error.name,
        ) from None
    try:
        client = MlflowClient(tracking_uri)
        run = client.get_run(run_id)
        experiment = client.get_experiment(run.info.experiment_id).name
        tracks = [
            track
            for series, metrics in sort_out(run.data.metrics).items()
            for track in _tracks(client, run_id, series, metrics, percentiles=percentiles)
        ]
    except MlflowException as error:
        if is_permanent(error):
            raise ValueError(f"there is no run {run_id} to be had: {error_text(error)}") from None
        raise ConnectionError(
            f"the tracking server could not be asked for run {run_id}: {error_text(error)}"
        ) from None
    tracks.sort(key=lambda track: (track.node or "", track.key))
    started = run.info.start_time / _MS_PER_SECOND
    ended = (run.info.end_time or run.info.start_time) / _MS_PER_SECOND
    start = min([started, *(float(track.times[0]) for track in tracks)])
    end = max([ended, *(float(track.times[-1]) for track in tracks)])
    steps = [float(np.median(np.diff(track.times))) for track in tracks if len(track.times) > 1]
    facts = {
        "run": run_id,
        "experiment": experiment,
        "status": run.info.status,
        "started": local_time(started),
        "lasted": duration(end - started),
        **gpu_facts(run.data.tags),
    }
    return Timeline(
        title=run.info.run_name or run_id,
        origin="run",
        start=start,
        end=end,
        interval=float(np.median(steps)) if steps else 0.0,
        facts=cleaned(facts),
        tracks=tuple(tracks),
    )


def _tracks(
    client: MlflowClient,
    run_id: str,
    series: SeriesName,
    metrics: Mapping[str, str],
    *,
    percentiles: bool,
) -> Iterator[Track]:
    """A series, with its extremes; and its further statistics, where they are asked for."""
    # Where the mean was not logged the series is known by what comes closest.
    main = min(metrics, key=_CLOSE_TO_MEAN.index)
    times, values = _history(client, run_id, metrics[main])
    columns = [values]
    for extreme in ("min", "max"):
        columns.append(np.full(len(times), np.nan))
        if extreme in metrics and extreme != main:
            own_times, own_values = _history(client, run_id, metrics[extreme])
            _, at, from_ = np.intersect1d(times, own_times, assume_unique=True, return_indices=True)
            columns[-1][at] = own_values[from_]
    unit, kind = unit_and_kind(series.key)
    if len(values) > 0:
        times, (values, low, high) = with_gaps(times, columns)
        yield Track(
            *(series.key, series.node, unit, kind, times, values),
            low=low if "min" in metrics and main != "min" else None,
            high=high if "max" in metrics and main != "max" else None,
        )
    for statistic in metrics:
        if percentiles and statistic not in (main, "min", "max"):
            times, values = _history(client, run_id, metrics[statistic])
            times, (values,) = with_gaps(times, (values,))
            key = f"{series.key}_{statistic}"
            yield Track(key, series.node, unit, kind, times, values, None, None)


def _history(client: MlflowClient, run_id: str, metric: str) -> tuple[Floats, Floats]:
    """Unix seconds and values of a metric; of one time the value with the largest step."""
    entries: list[Any] = list(client.get_metric_history(run_id, metric))
    entries.sort(key=lambda entry: (entry.timestamp, entry.step))
    stamps = np.array([entry.timestamp for entry in entries], np.int64)
    values = np.array([entry.value for entry in entries], np.float64)
    is_last = np.diff(stamps, append=np.iinfo(np.int64).max) != 0
    return stamps[is_last] / _MS_PER_SECOND, values[is_last]

"""What series there are, and what becomes of them in MLflow: names, statistics, rounding."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sysmetrics_native.window import SeriesInfo, Window

STATISTICS = ("mean", "min", "max", "p50", "p95", "p99", "last")

METRIC_PREFIX = "system/"

_NOT_IN_NODE_ID = re.compile(r"[^\w\-. ]")
_NOT_IN_DISK_SUFFIX = re.compile(rb"[^A-Za-z0-9_.-]")
# MLflow takes keys of 250 characters: with both of these at their longest, and the longest name and
# statistic between and behind them, a key has 245.
_MAX_NODE_ID_LENGTH = 128
MAX_DISK_SUFFIX_LENGTH = 80


_PLACES = {r"\{i\}": r"\d+", r"\{j\}": r"\d+", r"\{_path\}": r"(_[A-Za-z0-9_.-]+)?"}
"""What can stand in a key where its pattern has these, both as regular expressions."""


class DocumentedSeries(NamedTuple):
    """A series that a source of the C core knows, whether or not this machine has it."""

    info: SeriesInfo
    """Its key may be a pattern: ``{i}`` and ``{j}`` stand for numbers of devices, ``{_path}`` for
    what tells further paths."""
    meaning: str
    """What its value tells."""
    reads: str
    """The kernel's file, or the call of a driver, that it is made from."""
    formula: str
    """How it is made of that; Δ is the increase of a counter, Δt the time that passed."""

    def describes(self, info: SeriesInfo) -> bool:
        """Whether the series of a sampler is this one."""
        pattern = re.escape(self.info.key)
        for place, allowed in _PLACES.items():
            pattern = pattern.replace(place, allowed)
        return self.info._replace(key=info.key) == info and bool(re.fullmatch(pattern, info.key))


def documented_series() -> tuple[DocumentedSeries, ...]:
    """Every series that the C core knows, source by source.

    Some keys come twice, made in one way or in another as the device allows.

    Raises:
        ImportError: this installation has no C core.
    """
    from sysmetrics_native.backends import native

    return native.documented_series()


def clean_node_id(node_id: str) -> str:
    """The node id with what MLflow refuses in a metric's key taken out.

    MLflow allows letters, digits, ``_ - .`` and spaces, and takes a key for a path that must be in
    its normal form: no empty part, no ``.`` and no ``..``. (It allows colons too, but not in its
    older releases and not on Windows.)
    """
    parts = node_id[:_MAX_NODE_ID_LENGTH].split("/")
    cleaned = (_NOT_IN_NODE_ID.sub("_", part.strip()) for part in parts)
    return "/".join(part for part in cleaned if part.strip("._- "))


def disk_key_suffix(path: str) -> str:
    """What tells the disk metrics of a further path: ``/data/scratch`` gives ``_data_scratch``."""
    cleaned = _NOT_IN_DISK_SUFFIX.sub(b"_", os.fsencode(path).strip(b"/"))
    return f"_{cleaned.decode() or 'root'}"


def metric_prefix(node_id: str | None) -> str:
    """``system/``, or ``system/<node>/``."""
    return METRIC_PREFIX if node_id is None else f"{METRIC_PREFIX}{node_id}/"


def timestamp_ms(window: Window) -> int:
    """When MLflow is told that the window's metrics are from: its end, in Unix milliseconds."""
    return round(window.end * 1000)


def metrics_of(
    window: Window, schema: Iterable[SeriesInfo], statistics: Iterable[str]
) -> Iterator[tuple[str, float]]:
    """The metrics that MLflow is to log for a window, without their prefix.

    The mean has the plain key, any other statistic ``<key>_<statistic>``. A running total stands
    for itself: under the plain key its value at the end of the window, unrounded; everything else
    is rounded to one decimal, as MLflow does. What is absent is left out.
    """
    statistics = tuple(statistics)
    for info in schema:
        series = window[info.key]
        is_total = info.kind == "total"
        for statistic in statistics:
            plain = statistic == "mean"
            value: float | None = getattr(series, "last" if is_total and plain else statistic)
            if value is not None:
                key = info.key if plain else f"{info.key}_{statistic}"
                yield key, value if is_total else round(value, 1)

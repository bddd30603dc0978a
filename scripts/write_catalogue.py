"""Writes docs/metrics.md: what `python -m scripts.write_catalogue`, or `make catalogue`, is for.

The tables are those of the sources themselves, as the installed package has them; what readings
cost is in docs/costs.json, which `make bench ARGS='--only sources --costs docs/costs.json'` writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sysmetrics_native import Sampler
from sysmetrics_native.backends import gpu_device, native
from sysmetrics_native.catalog import DocumentedSeries, documented_series
from sysmetrics_native.window import SeriesInfo

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "metrics.md"
COSTS = DOCS / "costs.json"

INTRODUCTION = """\
# Metrics

<!-- Written by `make catalogue` from the sources' own tables: change those, not this. -->

Every series that there is, by its source. In MLflow a key has `system/` in front of it, with a node
id `system/<node_id>/`. The plain key is that of the mean over a window; of a running total (“since
the start”) it is the value at the window's end. Any other of the `statistics` has its name behind
the key: `cpu_utilization_percentage_max`. Means are rounded to one decimal, totals are not.

What could not be read is absent, never 0, and a machine that lacks a thing has none of its keys. A
megabyte is 10⁶ bytes.

In formulas Δ is the increase of a counter and Δt the time that passed. For the mean both are those
of the whole window, exact however many ticks were missed. A counter that fell was reset, and adds
nothing.

`{i}` and `{j}` are the driver's or the kernel's numbers of devices. `{_path}` is nothing for the
first of the `disk_paths`, and `_data_scratch` for `/data/scratch` among the others.

Sources that are marked *default* are read by themselves; others are named in the option `sources`.
The last column says what the psutil backend has, too. [gpus.md](gpus.md) has more about GPUs.
"""

COST_INTRODUCTION = """\
## Cost

Measured on {date} by `make bench ARGS='--only sources'`, on a machine of {machine}. A cost is the
CPU time of one reading in a sampler that has this source alone and wakes 10 to 100 times a second,
as the source is read in real use, so that caches are as cold as they are there. “Bare reads” are
the same system calls in a C loop that parses nothing, taken in turns with it. Most of a cost is
what the kernel needs to make its file; another kernel's, or a larger machine's, may be several
times as much. `stats()` tells what it is on yours.

How costs grow, on generated trees, whose files cost the kernel nothing to make; processes are real
ones:
"""

FINE_ENOUGH = 10.0
"""From here on microseconds need no fraction."""

HEADINGS = ("key", "unit", "meaning", "read from", "formula", "psutil")


def psutil_series() -> list[SeriesInfo]:
    """What the other backend knows: of this machine, and of one GPU."""
    host = Sampler(backend="psutil", sources="all", gpus="none").schema
    return [*host, *sorted(gpu_device.known_series())]


def escape(text: str) -> str:
    """Plain text as Markdown in a table."""
    return re.sub(r"([*|<`\\])", r"\\\1", text)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table."""
    for row in (headings, ["---"] * len(headings), *rows):
        yield "| " + " | ".join(row) + " |"


def row(series: DocumentedSeries, others: Sequence[SeriesInfo]) -> list[str]:
    """The line of one series."""
    texts = map(escape, (series.info.unit, series.meaning, series.reads, series.formula))
    has_other = any(series.describes(info) for info in others)
    return [f"`{series.info.key}`", *texts, "yes" if has_other else ""]


def pace(interval: float) -> str:
    """How often a source is read."""
    if interval == 0.0:
        return "read at every tick"
    return f"read every {interval:g} s at most, and at the end of each window"


def remark(source: str, is_default: bool, interval: float, costs: dict[str, Any]) -> str:
    """What the heading is followed by."""
    text = pace(interval)
    is_of_gpus = source.startswith("gpu")
    if is_of_gpus:
        text = "read by a thread of its own, every 0.1 s at most"
    text = f"*Default*; {text}." if is_default else f"{text[0].upper()}{text[1:]}."
    if is_of_gpus:
        text += " Functions are NVML's; AMD's libraries have others for what they can tell of it."
    cost = costs["sources"].get(source)
    if cost is not None:
        ratio = f"{cost['ratio']:.2f} times the bare reads" if cost["ratio"] else "no bare reads"
        where = " on a generated tree" if cost["generated"] else ""
        text += f" A reading cost {number(cost['microseconds'])} µs of CPU{where}, {ratio}."
    return text


def number(value: float) -> str:
    """With as many digits as mean something."""
    return f"{value:.0f}" if value >= FINE_ENOUGH else f"{value:.1f}"


def growth(costs: dict[str, Any]) -> Iterator[str]:
    """The table of how costs grow."""
    sources = list(native.known_sources())
    lines = sorted(costs["growth"], key=lambda line: sources.index(line["source"]))
    rows = [[f"`{line['source']}`", line["what"], number(line["microseconds"])] for line in lines]
    return table(("source", "with", "µs"), rows)


def page() -> str:
    """The whole page."""
    costs = json.loads(COSTS.read_text(encoding="utf-8"))
    others = psutil_series()
    series = documented_series()
    intervals = native.shortest_intervals()
    lines = [INTRODUCTION]
    for source, is_default in native.known_sources().items():
        own = [row(one, others) for one in series if one.info.source == source]
        lines += [f"## {source}", "", remark(source, is_default, intervals[source], costs), ""]
        lines += [*table(HEADINGS, own), ""]
    lines += [COST_INTRODUCTION.format_map(costs), *growth(costs)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

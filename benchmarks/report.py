"""What the measures hand back, and how it is shown: one table for people, JSON for programs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.rounds import BARE, NATIVE, PSUTIL, PSUTIL_BACKEND, STOCK, Samples

COLUMNS = (STOCK, PSUTIL, BARE, NATIVE, PSUTIL_BACKEND)
PACKAGES = ("sysmetrics-native", "mlflow", "psutil", "cffi")
NARROWEST_TABLE = 150


@dataclass(frozen=True)
class Target:
    """A limit that our native backend has to keep."""

    limit: float
    at_most: bool
    text: str

    def is_met_by(self, value: float | None) -> bool:
        """Whether the value keeps the limit; one that could not be measured does not."""
        if value is None:
            return False
        return value <= self.limit if self.at_most else value >= self.limit


def at_most(limit: float, unit: str = "") -> Target:
    """A target that larger values miss."""
    return Target(limit, True, f"≤ {limit:g}{unit}")


def at_least(limit: float, unit: str = "") -> Target:
    """A target that smaller values miss."""
    return Target(limit, False, f"≥ {limit:g}{unit}")


@dataclass(frozen=True)
class Row:
    """One line of the table. `judged` is what the target speaks of."""

    measure: str
    unit: str
    figures: Mapping[str, float]
    ratio: float | None = None
    target: Target | None = None
    judged: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        return None if self.target is None else self.target.is_met_by(self.judged)


@dataclass
class Result:
    """What one measure found: lines for the table, remarks below it, and every raw turn."""

    rows: list[Row]
    samples: dict[str, Samples]
    notes: list[str] = field(default_factory=list)

    @property
    def missed(self) -> list[str]:
        """The names of the lines that missed their target."""
        return [row.measure for row in self.rows if row.met is False]


def number(value: float | None) -> str:
    """A figure with as many digits as mean something."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 2 else 3
    return f"{value:.{digits}f}"


def _verdict(row: Row) -> str:
    if row.met is None:
        return ""
    return "[green]yes[/]" if row.met else "[red]no[/]"


def print_table(results: Mapping[str, Result], rounds: int) -> None:
    """The one table of a run, then the remarks that its figures need."""
    table = Table(title=f"Medians of alternating rounds ({rounds})", header_style="bold")
    table.add_column("measure")
    for column in (*COLUMNS, "ratio", "target", "met?"):
        table.add_column(column, justify="right")
    for result in results.values():
        for row in result.rows:
            figures = [number(row.figures.get(column)) for column in COLUMNS]
            target = row.target.text if row.target else ""
            label = f"{row.measure} [dim]({row.unit})[/]"
            table.add_row(label, *figures, number(row.ratio), target, _verdict(row))
        table.add_section()
    console = Console()
    if console.width < NARROWEST_TABLE and not console.is_terminal:
        console = Console(width=NARROWEST_TABLE)
    console.print(table)
    for name, result in results.items():
        for note in [*result.notes, *_failures(result)]:
            console.print(f"[bold]{name}[/]: ", end="", highlight=False)
            console.print(note, markup=False, highlight=False)


def _failures(result: Result) -> list[str]:
    found: dict[str, str] = {}
    for samples in result.samples.values():
        found.update(samples.failures)
    return [f"{participant} left out: {why}" for participant, why in found.items()]


def _versions() -> dict[str, str | None]:
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """What a reader of the figures has to know about where they come from."""
    return {
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "unix_time": time.time(),
        "versions": _versions(),
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    return {
        "measure": row.measure,
        "unit": row.unit,
        "medians": dict(row.figures),
        "ratio": row.ratio,
        "judged": row.judged,
        "target": row.target.text if row.target else None,
        "met": row.met,
    }


def _result_as_json(result: Result) -> dict[str, Any]:
    return {
        "rows": [_row_as_json(row) for row in result.rows],
        "notes": result.notes,
        "turns": {name: samples.turns for name, samples in result.samples.items()},
        "failures": {name: samples.failures for name, samples in result.samples.items()},
    }


def write_json(
    path: Path, results: Mapping[str, Result], context: Mapping[str, Any], command: Sequence[str]
) -> None:
    """The table's lines and every raw turn behind them."""
    measures = {name: _result_as_json(result) for name, result in results.items()}
    document = {"command": list(command), "machine": dict(context), "measures": measures}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

"""`sysmetrics-native doctor`: what is here and what is not, and whether sampling works."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sysmetrics_native.checkup import check

Facts = Mapping[str, Any]
Rows = Iterable[tuple[str, str]]

_FIRST_COLUMN = 21
_SHORT = 1000.0
"""From here on a number is shown without decimals."""


@click.command(
    "doctor",
    epilog="""\b
    Examples:
      sysmetrics-native doctor
      sysmetrics-native doctor --json | jq .sampling.sources
      SYSMETRICS_NATIVE_SOURCES=all sysmetrics-native doctor
      sysmetrics-native doctor --json > /dev/null && python train.py

    Exit status: 0 if sampling works, 1 if it does not, 2 for wrong usage.""",
)
@click.option("--json", "as_json", is_flag=True, help="Print all that was found as JSON.")
def command(as_json: bool) -> int:
    """Say what is here and what is not, and whether sampling works.

    Samples everything for a second with the settings in force, looks at the kernel, permissions,
    GPU libraries, control groups, clocks, MLflow, and at what waits to be sent. Asks no server, and
    changes nothing. Takes about 3 seconds; a driver or a file system that hangs is not waited for.
    """
    found = check()
    if as_json:
        click.echo(json.dumps(_finite(found), indent=2))
    else:
        _print(found)
    return 0 if found["works"] else 1


def _finite(value: Any) -> Any:
    """JSON has no other numbers."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- the page -----------------------------------------------------------------------------------


def _print(found: Facts) -> None:
    console = Console(markup=False, highlight=False)
    with console.capture() as page:
        _print_parts(console, found)
    # In one piece: a reader that goes away early must not be what decides the status.
    lines = page.get().splitlines()
    click.echo("\n".join(lines if sys.stdout.isatty() else map(str.rstrip, lines)))


def _print_parts(console: Console, found: Facts) -> None:
    _print_verdict(console, found)
    sections: dict[str, tuple[str, Any]] = {
        "Machine": ("machine", _of_machine),
        "Permissions": ("permissions", _of_permissions),
        "GPUs": ("gpu", _of_gpus),
        "Control groups": ("control_groups", _of_groups),
        "Clock": ("clock", _of_clock),
        "MLflow": ("mlflow", _of_mlflow),
        "Waiting files": ("files", _of_files),
        "Extras": ("extras", _of_extras),
    }
    _print_sources(console, found["sampling"])
    for title, (name, rows_of) in sections.items():
        part = found[name]
        _head(console, title)
        rows = list(rows_of(part | {"backend": found["backend"]})) if _is_whole(part) else []
        if part["problem"]:
            rows.append(("problem", part["problem"]))
        console.print(_grid(rows))
    _print_settings(console, found["settings"])


def _is_whole(part: Facts) -> bool:
    """Whether it could be looked at: else there is only a problem, and what was noted of it."""
    return part["problem"] is None or "devices" in part


def _print_verdict(console: Console, found: Facts) -> None:
    console.print(f"sysmetrics-native {found['version']}")
    sampling = found["sampling"]
    yes, no = ("✓", "✗") if _shows_marks() else ("yes:", "NO:")
    if found["works"]:
        values = sum(
            series["value"] is not None
            for source in sampling["sources"].values()
            for series in source["series"]
        )
        text = f"{sampling['ticks']} ticks in {sampling['seconds']:.1f} s, {values} values"
        console.print(Text(f"{yes} Sampling works: {text}", "bold green"))
    for problem in found["problems"]:
        console.print(Text(f"{no} Sampling does not work: {problem}", "bold red"))
    for warning in found["warnings"]:
        console.print(Text(f"! {warning}", "yellow"))


def _shows_marks() -> bool:
    try:
        "✓✗".encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def _head(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, "bold"))


def _grid(rows: Rows) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=_FIRST_COLUMN, no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows:
        grid.add_row(f"  {name}", text)
    return grid


# ---- sources ------------------------------------------------------------------------------------


def _print_sources(console: Console, sampling: Facts) -> None:
    _head(console, "Sources")
    if "sources" not in sampling:
        console.print(_grid([("problem", sampling["problem"])]))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("  source", no_wrap=True)
    table.add_column("read", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    table.add_column("every", justify="right", no_wrap=True)
    table.add_column("for example, or why not", overflow="fold")
    for name, source in sampling["sources"].items():
        is_read = source["is_here"] and source["is_chosen"]
        cost, interval = source["mean_cost_seconds"], source["interval_seconds"]
        table.add_row(
            f"  {name}",
            _state(source),
            "" if cost is None else f"{cost * 1e6:.0f} µs",
            "" if interval is None else f"{interval:g} s",
            _example(source),
            style="" if is_read else "dim",
        )
    console.print(table)
    governor = sampling["governor"]
    shares = governor["shares_of_a_core"]
    names = {"chosen": "those that are read", "all": "all of them"}
    rows = [
        (
            names[whose],
            f"{share['at_1_hz']:.3%} of a core at 1 Hz, {share['at_100_hz']:.2%} at 100 Hz",
        )
        for whose, share in shares.items()
    ]
    console.print()
    console.print(_grid([*rows, ("budget", governor["verdict"])]))


def _state(source: Facts) -> str:
    if not source["is_here"]:
        return "not here"
    if source["is_chosen"]:
        return "by default" if source["is_default"] else "chosen"
    return "left out" if source["is_default"] else "on request"


def _example(source: Facts) -> str:
    if not source["is_here"]:
        return str(source["reason"])
    for series in source["series"]:
        if series["value"] is not None:
            return f"{series['key']} {_number(series['value'])}"
    return "no value"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < _SHORT else f"{value:.0f}"


# ---- other parts --------------------------------------------------------------------------------


def _of_machine(part: Facts) -> Iterator[tuple[str, str]]:
    backend = part["backend"]
    if "name" in backend:
        yield "backend", f"{backend['name']}: {backend['reason']}"
    yield "system", f"{part['system']} {part['kernel']}, {part['machine']}"
    yield "size", f"{part['cpus']} CPUs, {part['memory_megabytes']:.0f} MB of memory"
    yield "Python", f"{part['python']}, {part['python_path']}"
    yield "container", "; ".join(part["container"]) or "no sign of one"
    yield "virtual machine", "; ".join(part["virtual_machine"]) or "no sign of one"
    if part["batch_system"]:
        yield "batch system", "; ".join(part["batch_system"])


def _of_permissions(part: Facts) -> Iterator[tuple[str, str]]:
    if part["user"] is not None:
        yield "user", f"{part['user']}{' (root)' if part['is_root'] else ''}"
    for name in ("procfs", "sysfs"):
        root = part[name]
        if root["is_readable"] is not None:
            yield root["path"], "readable" if root["is_readable"] else "NOT readable"
    if part["procfs"]["hidepid"]:
        yield "hidepid", f"{part['procfs']['hidepid']}: other users' processes are not seen"
    children = {True: "there", False: "not there: the source process walks all of /proc"}
    if part["children_files"] is not None:
        yield "children files", children[part["children_files"]]
    if part["pressure_files"] is not None:
        yield "pressure files", "there" if part["pressure_files"] else "not there"
    rapl = {"forbidden": "there, but not for this user to read", "absent": "not there"}
    if part["rapl"] is not None:
        yield "RAPL energy", rapl.get(part["rapl"], "readable")


def _of_gpus(part: Facts) -> Iterator[tuple[str, str]]:
    for library in part["libraries"]:
        versions = [library["library_version"]]
        if library["driver_version"]:
            versions.append(f"driver {library['driver_version']}")
        text = ", ".join(filter(None, [library["outcome"], *versions]))
        yield "looked for", f"{library['library']}: {text}"
    for gpu in part["devices"]:
        size = gpu["memory_megabytes"]
        known = [
            gpu["name"],
            "" if size is None else f"{size:.0f} MB",
            f"{len(gpu['instances'])} MIG devices" if gpu["instances"] else "",
            "is read" if gpu["is_read"] else "is not read",
        ]
        yield f"GPU {gpu['index']}", ", ".join(filter(None, known))


def _of_groups(part: Facts) -> Iterator[tuple[str, str]]:
    wanted = {"cpu", "cpuacct", "cpuset", "memory"}
    by_path: dict[str, list[str]] = {}
    for group in part["groups"]:
        names = [name for name in group["controllers"] if name in wanted]
        if group["version"] != 1:
            names = ["version 2"]
        if names:
            by_path.setdefault(group["path"], []).extend(names)
    for path, names in by_path.items():
        yield "group", f"{path} ({', '.join(names)})"
    units = {"cpu_cores": "cores", "cpuset_cpus": "CPUs", "memory_megabytes": "MB"}
    limits = [(unit, part["limits"][name]) for name, unit in units.items()]
    for unit, limit in limits:
        if limit is not None:
            yield "limit", f"{_number(limit['value'])} {unit}, of {limit['group']}"
    if not any(limit for _, limit in limits):
        yield "limit", "none that can be seen from here"


def _of_clock(part: Facts) -> Iterator[tuple[str, str]]:
    if part["clock_source"]:
        others = [one for one in part["available_clock_sources"] if one != part["clock_source"]]
        yield "source", part["clock_source"] + (f" (also: {', '.join(others)})" if others else "")
    late = part["wakeup_lateness"]
    half, most, all_of_them = (
        f"{late[name] * 1e6:.0f} µs" for name in ("p50_seconds", "p99_seconds", "max_seconds")
    )
    yield "wake-ups at 1 kHz", f"half within {half}, 99 % within {most}, all within {all_of_them}"


def _of_mlflow(part: Facts) -> Iterator[tuple[str, str]]:
    if part["version"] is None:
        yield "version", part["reason"]
        return
    old = "" if part["is_new_enough"] else ", which is too old: pip install --upgrade mlflow"
    yield "version", f"{part['version']}{old}"
    active = {
        True: "MLflow's switches use this package",
        False: f"MLflow keeps its own system metrics: {part['reason']}",
        None: f"not known: {part['reason']}",
    }
    yield "plugin", active[part["is_active"]]
    if part["tracking_uri"]:
        yield "tracking URI", part["tracking_uri"]


def _of_files(part: Facts) -> Iterator[tuple[str, str]]:
    yield "folder", part["folder"]
    free = f"yes, {part['free_megabytes']:.0f} MB are free"
    yield "writable", str(part["why_not_writable"] or free)
    for kind in ("spools", "recordings"):
        counts = [
            f"{one['count']} {state.replace('_', ' ')} ({one['megabytes']:.1f} MB)"
            for state, one in part[kind].items()
            if one["count"]
        ]
        hint = ": sysmetrics-native recover" if part[kind]["waiting"]["count"] else ""
        yield kind, (", ".join(counts) or "none") + hint


def _of_extras(part: Facts) -> Iterator[tuple[str, str]]:
    for name, extra in part["extras"].items():
        if extra["missing"]:
            hint = f"pip install 'sysmetrics-native[{name}]'"
            yield name, f"not installed: {', '.join(extra['missing'])} ({hint})"
        else:
            versions = [f"{package} {version}" for package, version in extra["packages"].items()]
            yield name, ", ".join(versions)


def _print_settings(console: Console, part: Facts) -> None:
    _head(console, "Settings")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for one in part["options"]:
        value, origin = one["value"], one["origin"]
        shown = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        if value is None:
            shown = "not allowed" if one["problem"] else "none"
        table.add_row(
            f"  {one['name']}",
            shown.lower() if isinstance(value, bool) else shown,
            "from the environment" if origin == one["name"] else origin,
            style="dim" if origin == "default" else "",
        )
    if part["key_prefix"] is not None:
        table.add_row("  keys", f"{part['key_prefix']}…", "as of a run in this process")
    console.print(table)

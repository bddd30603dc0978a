"""Which charts a page has: what belongs together, in which order and unit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sysmetrics_native import totals
from sysmetrics_native.units import PER_SECOND, SYMBOLS

if TYPE_CHECKING:
    from sysmetrics_native.timeline import Timeline, Track

    Tracks = Mapping[str, Track]


class Line(NamedTuple):
    """One line of a chart."""

    label: str
    track: Track
    is_limit: bool = False
    """Not measured: what the others cannot exceed."""


class Panel(NamedTuple):
    """One chart."""

    title: str
    unit: str
    """As it is written behind numbers."""
    lines: tuple[Line, ...]
    top: float | None = None
    """Where its axis ends; `None`: where its values do."""


class Row(NamedTuple):
    """Charts that stand beside one another: of one node, or of one GPU."""

    title: str
    """Empty where there is only one."""
    panels: tuple[Panel, ...]


class Section(NamedTuple):
    """What belongs to one subject."""

    name: str
    title: str
    rows: tuple[Row, ...]


class _Plan(NamedTuple):
    """What a panel shows, if it is there."""

    title: str
    unit: str
    top: float | None
    lines: tuple[tuple[str, str], ...]
    """A label and a pattern of keys; ``{}`` in a label is what the pattern's group found."""


_PERCENT = 100.0

_MACHINE: tuple[tuple[str, str, tuple[_Plan, ...]], ...] = (
    (
        "cpu",
        "CPU",
        (
            _Plan(
                *("Machine", "%", _PERCENT),
                (
                    ("all cores", "cpu_utilization_percentage"),
                    ("busiest core", "cpu_core_max_percentage"),
                ),
            ),
            _Plan(
                *("Kinds of time", "%", _PERCENT),
                (
                    ("user", "cpu_user_percentage"),
                    ("system", "cpu_system_percentage"),
                    ("waiting for a disk", "cpu_iowait_percentage"),
                    ("stolen", "cpu_steal_percentage"),
                ),
            ),
            _Plan(
                *("Container", "%", _PERCENT),
                (
                    ("use of the quota", "container_cpu_utilization_percentage"),
                    ("throttled periods", "container_cpu_throttled_percentage"),
                ),
            ),
            _Plan(
                *("Processes of the run (100 % is one core)", "%", None),
                (("processes", "process_cpu_percentage"),),
            ),
        ),
    ),
    (
        "memory",
        "Memory",
        (
            _Plan(
                *("Share in use", "%", _PERCENT),
                (
                    ("machine", "system_memory_usage_percentage"),
                    ("processes", "process_memory_percentage"),
                    ("container, of its limit", "container_memory_usage_percentage"),
                ),
            ),
            _Plan(
                *("In use", "MB", None),
                (
                    ("machine", "system_memory_usage_megabytes"),
                    ("processes", "process_memory_rss_megabytes"),
                    ("container", "container_memory_usage_megabytes"),
                    ("swap", "swap_usage_megabytes"),
                ),
            ),
            _Plan(
                *("Major page faults", "/s", None), (("faults", "major_page_faults_per_second"),)
            ),
        ),
    ),
    (
        "disk",
        "Disk",
        (
            _Plan(
                *("Traffic", "MB/s", None),
                (
                    ("read", "disk_read_megabytes_per_second"),
                    ("written", "disk_write_megabytes_per_second"),
                ),
            ),
            _Plan(*("Busiest device", "%", _PERCENT), (("time in use", "disk_busy_percentage"),)),
            _Plan(
                *("Operations", "/s", None),
                (
                    ("reads", "disk_read_operations_per_second"),
                    ("writes", "disk_write_operations_per_second"),
                ),
            ),
            _Plan(
                *("Space in use", "%", _PERCENT), (("file system{}", r"disk_usage_percentage(.*)"),)
            ),
        ),
    ),
    (
        "network",
        "Network",
        (
            _Plan(
                *("Traffic", "MB/s", None),
                (
                    ("received", "network_receive_megabytes_per_second"),
                    ("sent", "network_transmit_megabytes_per_second"),
                ),
            ),
            _Plan(
                *("RDMA", "MB/s", None),
                (
                    ("received", "rdma_receive_megabytes_per_second"),
                    ("sent", "rdma_transmit_megabytes_per_second"),
                ),
            ),
            _Plan(
                *("Errors and drops", "/s", None),
                (
                    ("errors", "network_errors_per_second"),
                    ("drops", "network_drops_per_second"),
                    ("RDMA errors", "rdma_errors_per_second"),
                ),
            ),
        ),
    ),
    (
        "pressure",
        "Pressure: time in which tasks waited",
        (
            _Plan(
                *("Some task waited for", "%", None),
                (
                    ("a CPU", "pressure_cpu_some_percentage"),
                    ("memory", "pressure_memory_some_percentage"),
                    ("a disk", "pressure_io_some_percentage"),
                ),
            ),
            _Plan(
                *("All tasks waited for", "%", None),
                (
                    ("memory", "pressure_memory_full_percentage"),
                    ("a disk", "pressure_io_full_percentage"),
                ),
            ),
        ),
    ),
)

_GPU: tuple[_Plan, ...] = (
    _Plan(
        *("Work and memory", "%", _PERCENT),
        (
            ("utilization", "utilization_percentage"),
            ("memory", "memory_usage_percentage"),
            ("slowed clocks", "throttled_percentage"),
            ("memory of instance {}", r"mig_(\d+)_memory_usage_percentage"),
        ),
    ),
    _Plan(*("Power", "W", None), (("power", "power_usage_watts"),)),
    _Plan(*("Temperature", "°C", None), (("temperature", "temperature_celsius"),)),
    _Plan(
        *("Units at work", "%", _PERCENT),
        (
            ("SMs", "sm_active_percentage"),
            ("SM occupancy", "sm_occupancy_percentage"),
            ("tensor cores", "tensor_active_percentage"),
            ("memory", "dram_active_percentage"),
            ("{}", r"(fp\d+)_active_percentage"),
        ),
    ),
    _Plan(
        *("Clocks", "MHz", None),
        (("SMs", "sm_clock_megahertz"), ("memory", "memory_clock_megahertz")),
    ),
    _Plan(
        *("Traffic", "MB/s", None),
        (
            ("PCIe received", "pcie_receive_megabytes_per_second"),
            ("PCIe sent", "pcie_transmit_megabytes_per_second"),
            ("NVLink received", "nvlink_receive_megabytes_per_second"),
            ("NVLink sent", "nvlink_transmit_megabytes_per_second"),
        ),
    ),
)

_ENERGY: tuple[_Plan, ...] = (
    _Plan(*("CPU packages", "W", None), (("package {}", r"cpu_package_(\d+)_power_watts"),)),
    _Plan(*("CPU temperature", "°C", None), (("hottest", "cpu_temperature_celsius"),)),
)

_OF_GPU = re.compile(r"gpu_(\d+)_(.+)")
_DIRECTIONS = ("receive", "transmit")
_GIGABYTES_FROM = 10_000.0
"""Megabytes; below, they are the more readable unit."""
_HEADROOM = 1.05


def sections(timeline: Timeline) -> tuple[Section, ...]:
    """Everything that there is to be seen, by subject; the last is what no subject claims."""
    nodes = _by_node(timeline)
    claimed: set[str] = set()
    found = [
        Section(name, title, tuple(_rows_of_nodes(nodes, plans, claimed)))
        for name, title, plans in _MACHINE
    ]
    found.append(Section("gpu", "GPUs", tuple(_rows_of_gpus(nodes, claimed))))
    energy = Section("energy", "Power and heat", tuple(_rows_of_nodes(nodes, _ENERGY, claimed)))
    found.append(energy)
    found = [_with_common_axes(section) for section in found]
    found.append(Section("others", "Everything else", tuple(_others(nodes, claimed))))
    return tuple(section for section in found if section.rows)


def unit_text(unit: str) -> str:
    """A unit of the catalogue as it is written behind numbers."""
    if unit in SYMBOLS:
        return SYMBOLS[unit]
    if unit.endswith(PER_SECOND):
        return f"{unit.removesuffix(PER_SECOND)}/s"
    return "/s" if unit == PER_SECOND.strip() else unit


def highest(track: Track) -> float:
    """The highest value, also within a stretch; NaN without any."""
    import numpy as np

    values = track.values if track.high is None else np.fmax(track.values, track.high)
    known = values[~np.isnan(values)]
    return float(known.max()) if len(known) else float("nan")


def _has_values(track: Track) -> bool:
    import numpy as np

    return not np.isnan(track.values).all()


# ---- nodes and their tracks ---------------------------------------------------------------------


def _by_node(timeline: Timeline) -> dict[str | None, dict[str, Track]]:
    nodes: dict[str | None, dict[str, Track]] = {}
    for track in timeline.tracks:
        if _has_values(track):
            nodes.setdefault(track.node, {})[track.key] = track
    for tracks in nodes.values():
        tracks.update(_rates(tracks))
    return nodes


def _rates(tracks: Tracks) -> Iterator[tuple[str, Track]]:
    """Traffic a second, from the totals where nothing better is there."""
    for direction in _DIRECTIONS:
        total = f"network_{direction}_megabytes"
        key = f"{total}_per_second"
        if key not in tracks and total in tracks:
            track = totals.rate(tracks[total], "megabytes per second")
            if _has_values(track):
                yield key, track._replace(key=key)


def _name(node: str | None, nodes: Mapping[str | None, object]) -> str:
    """Of a node, where that tells something."""
    return "" if len(nodes) == 1 and node is None else node or "no node"


# ---- rows ---------------------------------------------------------------------------------------


def _rows_of_nodes(
    nodes: Mapping[str | None, Tracks], plans: Sequence[_Plan], claimed: set[str]
) -> Iterator[Row]:
    for node, tracks in nodes.items():
        panels = tuple(_panels(tracks, plans, claimed))
        if panels:
            yield Row(_name(node, nodes), panels)


def _rows_of_gpus(nodes: Mapping[str | None, Tracks], claimed: set[str]) -> Iterator[Row]:
    for node, tracks in nodes.items():
        gpus: dict[int, dict[str, Track]] = {}
        for key, track in tracks.items():
            match = _OF_GPU.fullmatch(key)
            if match is not None:
                gpus.setdefault(int(match[1]), {})[match[2]] = track
        for number, its in sorted(gpus.items()):
            keys: set[str] = set()
            panels = tuple(_panels(its, _GPU, keys))
            claimed.update(f"gpu_{number}_{key}" for key in keys)
            if panels:
                name = _name(node, nodes)
                yield Row(f"{name}, GPU {number}" if name else f"GPU {number}", panels)


def _panels(tracks: Tracks, plans: Sequence[_Plan], claimed: set[str]) -> Iterator[Panel]:
    for plan in plans:
        lines = [
            Line(label, tracks[key])
            for pattern in plan.lines
            for key, label in _matching(tracks, *pattern)
        ]
        if not lines:
            continue
        claimed.update(key for pattern in plan.lines for key, _ in _matching(tracks, *pattern))
        lines.extend(_limits(tracks, lines))
        yield _in_gigabytes(Panel(plan.title, plan.unit, tuple(lines), plan.top))


def _matching(tracks: Iterable[str], label: str, pattern: str) -> list[tuple[str, str]]:
    found = []
    for key in tracks:
        match = re.fullmatch(pattern, key)
        if match is not None:
            which = "".join(match.groups()).replace("_", " ")
            found.append((key, label.format(which)))
    return sorted(found)


def _limits(tracks: Tracks, lines: Sequence[Line]) -> Iterator[Line]:
    """The container's memory limit: what is used, over the share that this is.

    Where the share is largest the rounding of a run's metrics matters least.
    """
    import numpy as np

    used = next(
        (ln.track for ln in lines if ln.track.key == "container_memory_usage_megabytes"), None
    )
    share = tracks.get("container_memory_usage_percentage")
    if used is None or share is None:
        return
    times, at, of = np.intersect1d(used.times, share.times, return_indices=True)
    percent = share.values[of]
    known = (percent >= 1) & ~np.isnan(used.values[at])
    if not known.any():
        return
    best = int(np.argmax(np.where(known, percent, -1)))
    limit = used.values[at][best] / percent[best] * _PERCENT
    ends = used.times[[0, -1]] if len(times) > 1 else used.times[:1]
    line = used._replace(times=ends, values=np.full(len(ends), limit), low=None, high=None)
    yield Line("limit of the container", line, is_limit=True)


def _in_gigabytes(panel: Panel) -> Panel:
    if panel.unit != "MB" or max(highest(line.track) for line in panel.lines) < _GIGABYTES_FROM:
        return panel
    lines = tuple(line._replace(track=_scaled(line.track, 1e-3)) for line in panel.lines)
    return panel._replace(unit="GB", lines=lines)


def _scaled(track: Track, factor: float) -> Track:
    return track._replace(
        values=track.values * factor,
        low=None if track.low is None else track.low * factor,
        high=None if track.high is None else track.high * factor,
    )


def _with_common_axes(section: Section) -> Section:
    """Small multiples are compared, so the same chart ends at the same value in every row.

    Not where one row is in MB and another in GB.
    """
    if len(section.rows) == 1:
        return section
    tops: dict[tuple[str, str], float] = {}
    for row in section.rows:
        for panel in row.panels:
            top = max(highest(line.track) for line in panel.lines) * _HEADROOM
            which = (panel.title, panel.unit)
            tops[which] = max(tops.get(which, 0.0), top)
    rows = tuple(
        row._replace(
            panels=tuple(
                panel
                if panel.top is not None
                # Nothing but zeros has no scale of its own.
                else panel._replace(top=tops[panel.title, panel.unit] or None)
                for panel in row.panels
            )
        )
        for row in section.rows
    )
    return section._replace(rows=rows)


def _others(nodes: Mapping[str | None, Tracks], claimed: set[str]) -> Iterator[Row]:
    """One row a key, and in it one chart a node."""
    keys = sorted({key for tracks in nodes.values() for key in tracks} - claimed)
    for key in keys:
        panels = tuple(
            Panel(_name(node, nodes), unit_text(tracks[key].unit), (Line(key, tracks[key]),))
            for node, tracks in nodes.items()
            if key in tracks
        )
        yield Row(key, panels)

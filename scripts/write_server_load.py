"""Writes the picture and the tables of docs/server-load.md from docs/server-load.json.

`make bench ARGS='--only server_load --loads docs/server-load.json'` writes that. Needs matplotlib,
which is in the same environment: `.venv/bin/python -m scripts.write_server_load`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "server-load.md"
BEGIN, END = "<!-- figures: written by scripts/write_server_load.py -->", "<!-- end of figures -->"
FOUND = DOCS / "server-load.json"
PICTURE = DOCS / "pictures" / "server-load.svg"
COLORS = ("#b3452f", "#2f6fb3", "#2f8f5b")
LINES = {"SQLite": ("-", "o"), "PostgreSQL": ("--", "s")}
WIDTH, HEIGHT = 11.0, 4.6
GRAY = "#666666"
MOST = 0.8
NODE_TICKS = (25, 50, 100, 200, 400, 800, 1600, 3200)
CORE_TICKS = (0.05, 0.1, 0.2, 0.5, 1.0)


def variants(found: dict[str, Any]) -> list[str]:
    """Their names, in the order of the measurement."""
    return list(dict.fromkeys(trial["variant"] for trial in found["trials"]))


def draw_loads(axes: Any, found: dict[str, Any]) -> None:
    """Cores of the server that nodes take."""
    for color, variant in zip(COLORS, variants(found), strict=False):
        for store, (line, marker) in LINES.items():
            points = sorted(
                (trial["nodes"], trial["cores"]["server"])
                for trial in found["trials"]
                if (trial["store"], trial["variant"]) == (store, variant)
                and trial["windows_arrived"] > MOST  # a server that stalls takes no CPU
            )
            carried = [
                one["nodes"]
                for one in found["carried"]
                if (one["store"], one["variant"]) == (store, variant)
            ]
            # Hollow: computed, not measured.
            axes.plot(carried, [1.0] * len(carried), marker=marker, color=color, fillstyle="none")
            if points:
                label = f"{variant}, {store}"
                axes.plot(*zip(*points, strict=True), line, marker=marker, color=color, label=label)
    axes.axhline(1.0, color=GRAY, linewidth=0.8)
    axes.annotate(
        "one worker: one core (hollow: computed)", (0.02, 1.05), xycoords=("axes fraction", "data")
    )
    axes.set(xscale="log", yscale="log", xlabel="nodes that log to one run, a window each 10 s")
    axes.set_ylabel("CPU of mlflow server, cores")
    axes.set_xticks(NODE_TICKS, map(str, NODE_TICKS))
    axes.set_yticks(CORE_TICKS, map(str, CORE_TICKS))
    axes.minorticks_off()
    axes.grid(visible=True, which="both", linewidth=0.3)
    axes.legend(fontsize="small", frameon=False, loc="lower right")


def draw_start(axes: Any, start: dict[str, Any], color: str, most: int) -> None:
    """Requests in each second from the start on."""
    counts = start["requests_each_second"]
    axes.bar(range(len(counts)), counts, width=1.0, align="edge", color=color)
    axes.set_ylim(0, most)
    axes.set_title(
        f"{start['variant']}: at most {max(counts)} requests/s, slowest answer "
        f"{start['slowest_answer_seconds']:.1f} s",
        fontsize="small",
        loc="left",
    )


def draw(found: dict[str, Any]) -> None:
    """The picture."""
    mpl.rcParams.update(
        {"svg.hashsalt": "server-load", "font.size": 9, "axes.spines.top": False}
        | {"axes.spines.right": False}
    )
    starts = found["starts"]
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    left, right = figure.subfigures(1, 2)
    draw_loads(left.subplots(), found)
    if starts:
        most = 1.05 * max(max(start["requests_each_second"]) for start in starts)
        all_axes = right.subplots(len(starts), 1, sharex=True, squeeze=False)[:, 0]
        for axes, start, color in zip(all_axes, starts, COLORS, strict=False):
            draw_start(axes, start, color, most)
        nodes = starts[0]["nodes"]
        all_axes[-1].set_xlabel(f"seconds since {nodes} nodes started in the same second")
        right.supylabel("requests each second", fontsize="medium")
    figure.savefig(PICTURE, metadata={"Date": None}, facecolor="white")


def cost_table(found: dict[str, Any]) -> Iterator[str]:
    """CPU for a node-hour, and what one worker carries."""
    yield "| | nodes | CPU s/node-hour: server | PostgreSQL | nodes of one worker |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    compared = 100
    carried = {(one["store"], one["variant"]): one["nodes"] for one in found["carried"]}
    for trial in found["trials"]:
        if trial["nodes"] == compared:
            cost = trial["cpu_seconds_per_node_hour"]
            key = trial["store"], trial["variant"]
            database = f"{cost['database']:.3g}" if cost["database"] else ""
            yield (
                f"| {key[1]}, {key[0]} | {compared} | {cost['server']:.3g} | {database} | "
                f"{carried[key]} |"
            )


def trial_table(found: dict[str, Any]) -> Iterator[str]:
    """Every load in real time."""
    yield (
        "| | nodes | windows that arrived | longest wait, s | slowest answer, s | "
        "cores: server, PostgreSQL, clients | carried |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | --- | --- |"
    for trial in found["trials"]:
        cores = trial["cores"]
        parts = [cores["server"], cores["database"], cores["client"]]
        database = f"{parts[1]:.2f}" if parts[1] else "none"
        pool = ", large pool" if trial["large_pool"] else ""
        yield (
            f"| {trial['variant']}, {trial['store']}{pool} | {trial['nodes']} | "
            f"{100 * trial['windows_arrived']:.0f} % | {trial['latest_seconds']:.1f} | "
            f"{trial['slowest_answer_seconds']:.2f} | {parts[0]:.2f}, {database}, {parts[2]:.2f} | "
            f"{'yes' if trial['carried'] else 'no'} |"
        )


def start_table(found: dict[str, Any]) -> Iterator[str]:
    """Coordinated starts."""
    yield "| | requests in the busiest second | slowest answer, s |"
    yield "| --- | ---: | ---: |"
    for start in found["starts"]:
        slowest = start["slowest_answer_seconds"]
        yield f"| {start['variant']} | {max(start['requests_each_second'])} | {slowest:.1f} |"


def write_tables(found: dict[str, Any]) -> None:
    """Between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    lines = [f"Measured on {found['date']}: {found['machine']}.", "", *cost_table(found), ""]
    lines += ["Every load, in real time:", "", *trial_table(found)]
    if found["starts"]:
        nodes = found["starts"][0]["nodes"]
        lines += ["", f"{nodes} nodes that start in the same second:", "", *start_table(found)]
    text = "\n".join(lines)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Both."""
    found = json.loads(FOUND.read_text(encoding="utf-8"))
    draw(found)
    write_tables(found)


if __name__ == "__main__":
    main()

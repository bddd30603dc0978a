"""The page as text: HTML, with everything that it needs inside."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from html import escape
from typing import TYPE_CHECKING, Any

from sysmetrics_native import totals, verdict
from sysmetrics_native.report import charts
from sysmetrics_native.report.charts import Line, Panel, Row, Section
from sysmetrics_native.verdict import FAILED, HINT, LIMITED, NOTE, Finding, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sysmetrics_native.timeline import Timeline, Track

    Floats = NDArray[np.float64]

MOST_POINTS = 1500
"""Of one line: more than a screen has columns for a chart."""
_FEWEST_POINTS = 60
_DATA_BYTES = 2_000_000
"""About what all lines together may have; beside it the chart library takes 5 MB."""
_BYTES_OF_POINT = 4 * 4 * 4 / 3
"""Four numbers of four bytes, in Base64."""

_FEW_ROWS = 2
"""More of a section are small multiples: they must fit side by side, and on few screens."""
_FIRST_PANELS = 3

_WATT_SECONDS = 3600.0
_LONGEST_POWER_STEP = 3.0
"""In usual intervals: power that nobody read for longer is not added up."""

_SEVERITIES = {FAILED: "failed", LIMITED: "limited", HINT: "hint", NOTE: "note"}
_WORDS = {FAILED: "killed", LIMITED: "limit", HINT: "worth a look", NOTE: "good to know"}

_PACKAGE_ENERGY = re.compile(r"cpu_package_\d+_energy_joules")
_GPU_NUMBER = re.compile(r"gpu_(\d+)_")


def make_page(timeline: Timeline) -> str:
    """The page of a run or recording: one HTML file that is complete in itself.

    Raises:
        ModuleNotFoundError: plotly or NumPy is not installed (the extra ``report``).
    """
    from plotly.offline import get_plotlyjs

    found = verdict.judge(timeline)
    sections = charts.sections(timeline)
    data = _Data(timeline, sum(1 for _ in _lines(sections)))
    body = "\n".join(
        (
            _header(timeline),
            _verdict(found, timeline),
            _facts(timeline, sections),
            _toolbar() if sections else "",
            *(_section(section, data) for section in sections),
            _numbers(sections),
            _footer(timeline, data),
        )
    )
    scripts = (_harmless(get_plotlyjs()), _file("page.js"))
    return _document(timeline.title, body, data.as_json(), scripts)


def _lines(sections: Iterable[Section]) -> Iterator[Line]:
    for section in sections:
        for row in section.rows:
            for panel in row.panels:
                yield from panel.lines


# ---- the document -------------------------------------------------------------------------------


def _document(title: str, body: str, data: str, scripts: tuple[str, ...]) -> str:
    """All of it. Scripts are allowed by what they are (their hash), not by where they stand.

    Images within the page are those that plotly tries the browser with.
    """
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    code = "\n".join(f"<script>{script}</script>" for script in scripts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>System metrics: {escape(title)}</title>
<style>{_file("page.css")}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="data">{data}</script>
{code}
</body>
</html>
"""


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _file(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text("utf-8")


def _harmless(script: str) -> str:
    """A script that ends where its element ends, and that the parser reads as it is.

    A carriage return would be read as a line feed, and the hash would be another one.
    """
    script = script.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)


# ---- what is said -------------------------------------------------------------------------------


def _header(timeline: Timeline) -> str:
    what = "Run" if timeline.origin == "run" else "Recording"
    clock = _Clock(timeline)
    if timeline.end > timeline.start:
        seconds = timeline.end - timeline.start
        when = f"{clock.text(timeline.start)}, {verdict.duration(seconds)}"
    else:
        when = ""
    return f"""<header>
<p class="kind">{what}</p>
<h1>{escape(timeline.title)}</h1>
<p class="when">{escape(when)}</p>
</header>"""


def _verdict(found: Verdict, timeline: Timeline) -> str:
    parts = ['<section id="verdict">', "<h2>What limited it</h2>"]
    # The first finding says it itself, with its evidence.
    if not found.findings or found.findings[0].severity < LIMITED:
        parts.append(f'<p class="headline">{escape(found.headline)}</p>')
    if found.findings:
        parts.append('<ol class="findings">')
        parts.extend(_finding(finding, timeline) for finding in found.findings)
        parts.append("</ol>")
    if found.not_judged:
        items = "".join(f"<li>{escape(text)}</li>" for text in found.not_judged)
        parts.append(f'<div class="missing"><h3>Not judged</h3><ul>{items}</ul></div>')
    parts.append("</section>")
    return "\n".join(parts)


def _finding(finding: Finding, timeline: Timeline) -> str:
    evidence = "".join(f"<li>{_kept_together(text)}</li>" for text in finding.evidence if text)
    name = _SEVERITIES[finding.severity]
    show = ""
    if finding.when is not None:
        begin, end = (1000 * (at - timeline.start) for at in finding.when)
        show = (
            f'<button type="button" class="show" data-from="{begin:.0f}" data-to="{end:.0f}">'
            "Show the longest stretch</button>"
        )
    return (
        f'<li class="{name}"><span class="severity">{_WORDS[finding.severity]}</span>'
        f"<p>{_kept_together(finding.sentence)}</p><ul>{evidence}</ul>{show}</li>"
    )


def _kept_together(text: str) -> str:
    """Escaped; a number and its unit stay on one line."""
    return re.sub(r"(?<=\d) (?=(?:%|°C|MB|h|min|s|d)\b|%)", "&nbsp;", escape(text))


def _facts(timeline: Timeline, sections: Iterable[Section]) -> str:
    facts = dict(timeline.facts)
    nodes = sorted({track.node for track in timeline.tracks if track.node is not None})
    if len(nodes) > 1:
        facts["nodes"] = ", ".join(nodes)
    if timeline.interval > 0 and not facts.keys() & {"sampling", "interval"}:
        facts["interval"] = f"one value every {verdict.duration(timeline.interval)}"
    gpus = {row.title for section in sections if section.name == "gpu" for row in section.rows}
    if gpus and not any(name.startswith("GPU") for name in facts):
        facts["GPUs"] = str(len(gpus))
    energy = energy_text(timeline)
    if energy:
        facts["energy"] = energy
    gaps = _gaps_text(timeline)
    if gaps:
        facts["gaps"] = gaps
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{_kept_together(text)}</dd></div>"
        for name, text in facts.items()
    )
    return f'<section id="facts"><h2>The run</h2><dl>{rows}</dl></section>'


def energy_text(timeline: Timeline) -> str:
    """What CPU packages and GPUs took; empty where nothing is known of it.

    From the devices' energy counters, or, for a GPU that has none, from its power.
    """
    packages = [
        joules
        for track in timeline.tracks
        if _PACKAGE_ENERGY.fullmatch(track.key) and (joules := totals.increase(track)) is not None
    ]
    gpus = list(_gpu_joules(timeline))
    parts = [
        f"{what} {_energy(sum(joules))}"
        for what, joules in (("CPU packages", packages), ("GPUs", gpus))
        if joules
    ]
    if len(parts) < 2:  # noqa: PLR2004  # one of the two is the sum
        return "".join(parts)
    return f"{_energy(sum(packages) + sum(gpus))}: {', '.join(parts)}"


def _gpu_joules(timeline: Timeline) -> Iterator[float]:
    tracks = {(track.node, track.key): track for track in timeline.tracks}
    gpus = {
        (track.node, match[1])
        for track in timeline.tracks
        if (match := _GPU_NUMBER.match(track.key)) is not None
    }
    for node, number in gpus:
        counter = tracks.get((node, f"gpu_{number}_energy_joules"))
        power = tracks.get((node, f"gpu_{number}_power_usage_watts"))
        joules = None if counter is None else totals.increase(counter)
        if joules is None and power is not None:
            joules = totals.integral(power, _LONGEST_POWER_STEP * timeline.interval)
        if joules is not None:
            yield joules


def _energy(joules: float) -> str:
    return f"{_figure(joules / _WATT_SECONDS)} Wh ({_figure(joules / 1000)} kJ)"


def _gaps_text(timeline: Timeline) -> str:
    """Of the track with the fewest: a gap of all, and not of one source."""
    import numpy as np

    lengths: list[Floats] = []
    for track in timeline.tracks:
        known = ~np.isnan(track.values)
        at = np.flatnonzero(~known[1:-1] & known[:-2]) + 1
        behind = np.searchsorted(np.flatnonzero(known), at)
        ends = np.flatnonzero(known)
        at, behind = at[behind < len(ends)], behind[behind < len(ends)]
        lengths.append(track.times[ends[behind]] - track.times[at - 1])
    if not lengths:
        return ""
    fewest = min(lengths, key=len)
    if len(fewest) == 0:
        return ""
    longest = verdict.duration(float(fewest.max()))
    return f"{len(fewest)}, {verdict.duration(float(fewest.sum()))} in all, the longest {longest}"


def _footer(timeline: Timeline, data: _Data) -> str:
    zone = _Clock(timeline).zone_text
    return (
        f"<footer><p>Times are those of {escape(zone)}. A line has at most {data.most} points; "
        "where it would have more, they are means, and the band around it keeps the smallest and "
        "the largest value. Where nothing was measured, lines are interrupted.</p></footer>"
    )


class _Clock:
    """Wall clock time as the machine that makes the page has it when the run starts."""

    def __init__(self, timeline: Timeline) -> None:
        local = datetime.fromtimestamp(timeline.start).astimezone()
        self.offset = local.utcoffset() or timedelta()
        self._zone = timezone(self.offset)
        self.zone_text = self._zone.tzname(None)

    def text(self, seconds: float) -> str:
        """A time for people."""
        return datetime.fromtimestamp(seconds, self._zone).strftime("%Y-%m-%d %H:%M:%S")


# ---- charts -------------------------------------------------------------------------------------


def _toolbar() -> str:
    """For those who cannot drag: fingers, keyboards."""
    buttons = "".join(
        f'<button type="button" data-do="{what}" aria-label="{name}" title="{name}">{sign}</button>'
        for what, name, sign in (
            ("earlier", "Earlier", "&larr;"),
            ("later", "Later", "&rarr;"),
            ("closer", "Zoom in", "+"),
            ("wider", "Zoom out", "&minus;"),
            ("whole", "All of it", "All"),
        )
    )
    return (
        '<nav id="toolbar" aria-label="Stretch of time that the charts show">'
        f'<output id="stretch"></output><span>{buttons}</span></nav>'
        "<noscript><p>The charts need JavaScript, and nothing else.</p></noscript>"
    )


def _section(section: Section, data: _Data) -> str:
    # Of several GPUs or nodes one sees the first charts of each at a glance, and may open the rest.
    most = _FIRST_PANELS if len(section.rows) > _FEW_ROWS else None
    rows = "\n".join(_row(row, data, most) for row in section.rows)
    if section.name == "others":
        return (
            f'<details class="charts" id="others"><summary>{escape(section.title)}</summary>\n'
            f"{rows}\n</details>"
        )
    return (
        f'<section class="charts" id="{section.name}"><h2>{escape(section.title)}</h2>\n'
        f"{rows}\n</section>"
    )


def _row(row: Row, data: _Data, most: int | None) -> str:
    title = f"<h3>{escape(row.title)}</h3>" if row.title else ""
    panels = [_panel(panel, data) for panel in row.panels]
    first = "\n".join(panels[:most])
    rest = "\n".join([] if most is None else panels[most:])
    if rest:
        summary = escape(f"More of {row.title}" if row.title else "More")
        rest = f'<details><summary>{summary}</summary><div class="panels">{rest}</div></details>'
    return f'<div class="row">{title}<div class="panels">{first}</div>{rest}</div>'


def _panel(panel: Panel, data: _Data) -> str:
    number = data.add(panel)
    title = f"<span>{escape(panel.title)}</span> " if panel.title else ""
    said = "; ".join(_in_words(line, panel.unit) for line in panel.lines)
    label = escape(f"{panel.title}: {said}" if panel.title else said, quote=True)
    return (
        f'<figure><figcaption>{title}<span class="unit">{escape(panel.unit)}</span></figcaption>'
        f'<div class="chart" data-chart="{number}" role="img" aria-label="{label}"></div></figure>'
    )


def _in_words(line: Line, unit: str) -> str:
    _, mean, largest = _figures(line.track)
    return f"{line.label}: mean {mean} {unit}, highest {largest} {unit}"


class _Data:
    """The numbers of the charts, as the page's script takes them."""

    def __init__(self, timeline: Timeline, lines: int) -> None:
        budget = _DATA_BYTES / _BYTES_OF_POINT / max(1, lines)
        self.most = int(min(MOST_POINTS, max(_FEWEST_POINTS, budget)))
        self._timeline = timeline
        self._times: dict[str, int] = {}
        self._charts: list[Mapping[str, Any]] = []

    def add(self, panel: Panel) -> int:
        """Take a chart in; its number."""
        lines = [self._line(line) for line in panel.lines]
        self._charts.append({"unit": panel.unit, "top": panel.top, "lines": lines})
        return len(self._charts) - 1

    def _line(self, line: Line) -> Mapping[str, Any]:
        from sysmetrics_native.timeline import downsample

        span = (self._timeline.start, self._timeline.end)
        track = downsample(line.track, self.most, span)
        has_band = track.low is not None and track.high is not None
        times = _packed(track.times - self._timeline.start)
        return {
            "label": line.label,
            "limit": line.is_limit,
            "x": self._times.setdefault(times, len(self._times)),
            "y": _packed(track.values),
            "low": _packed(track.low) if has_band else None,
            "high": _packed(track.high) if has_band else None,
        }

    def as_json(self) -> str:
        """All of it, so that nothing in it can end the element that it stands in."""
        offset = _Clock(self._timeline).offset.total_seconds()
        start, end = self._timeline.start, self._timeline.end
        content = {
            "start": round(1000 * (start + offset)),
            "length": max(1, round(1000 * (end - start))),
            "times": list(self._times),
            "charts": self._charts,
        }
        return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _packed(values: Floats | None) -> str:
    """Floats of four bytes, the lowest first, in Base64: a quarter of their text."""
    assert values is not None
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


# ---- numbers ------------------------------------------------------------------------------------


def _numbers(sections: Iterable[Section]) -> str:
    """What the charts show, as a table: for those who read, search, copy, or have no JavaScript."""
    rows: list[str] = []
    for section in sections:
        for row in section.rows:
            for panel in row.panels:
                where = ", ".join(part for part in (section.title, row.title, panel.title) if part)
                rows.extend(
                    f"<tr><th scope=row>{escape(where)}: {escape(line.label)}</th>"
                    + "".join(f"<td>{figure}</td>" for figure in _figures(line.track))
                    + f"<td class=unit>{escape(panel.unit)}</td></tr>"
                    for line in panel.lines
                    if not line.is_limit
                )
    if not rows:
        return ""
    return (
        '<details id="numbers"><summary>Numbers</summary><div class="table"><table>'
        "<thead><tr><th scope=col>What</th><th scope=col>lowest</th><th scope=col>mean</th>"
        "<th scope=col>highest</th><th scope=col>unit</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _figures(track: Track) -> tuple[str, str, str]:
    """Lowest, mean and highest value."""
    import numpy as np

    low = track.values if track.low is None else np.fmin(track.values, track.low)
    lowest, mean = float(np.nanmin(low)), float(np.nanmean(track.values))
    return _figure(lowest), _figure(mean), _figure(charts.highest(track))


def _figure(value: float) -> str:
    """Three digits that count, and no powers of ten."""
    size = abs(value)
    decimals = 0 if size >= 100 or value == int(value) else 1 if size >= 10 else 2  # noqa: PLR2004
    return f"{value:,.{decimals}f}"

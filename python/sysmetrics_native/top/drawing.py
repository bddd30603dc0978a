"""From histories to lines of text. Nothing here knows of a terminal.

A column of a chart has the height of the largest value in its time, so that a burst of one tick is
seen however long the time is; what is above the mean of the column is drawn fainter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size

from sysmetrics_native.top.charts import Chart
from sysmetrics_native.top.history import Columns, History, Summary, column_of
from sysmetrics_native.top.processes import ProcessRow
from sysmetrics_native.top.stretches import Floats

_NARROWEST_CHART = 38
_MOST_CHARTS_BESIDE = 4
_GAP = 2
_DOTS_ACROSS = 2
_DOTS_UP = 4
_TITLED = 2
"""Lines that a chart needs so that it may have a line above it,"""
_WITH_NUMBERS = 3
"""and one below it."""
_LINES_WITH_PROCESSES = 16
_MOST_VALUE_CELLS = 12
_HIGH, _HIGHEST = 0.7, 0.85
_ALMOST_ALL = 110.0
"""The share of a core may be above 100 by what it takes to read two clocks."""
_BYTES_PER_MEGABYTE = 1e6

_EN_DASH = "\u2013"
_LEFT_DOTS = (0x40, 0x04, 0x02, 0x01)
_RIGHT_DOTS = (0x80, 0x20, 0x10, 0x08)
BRAILLE = tuple(
    chr(0x2800 + sum(_LEFT_DOTS[:left]) + sum(_RIGHT_DOTS[:right])).replace("\u2800", " ")
    for left in range(_DOTS_UP + 1)
    for right in range(_DOTS_UP + 1)
)
"""By the dots in the left half of a cell, then by those in the right one, both from below."""
ASCII = tuple(
    " .:|#"[max(left, right)] for left in range(_DOTS_UP + 1) for right in range(_DOTS_UP + 1)
)
"""The same for terminals that have no more than ASCII."""


class Span(NamedTuple):
    """Some text of one style."""

    text: str
    style: str = ""
    """One of `terminal.STYLES`."""


Line = tuple[Span, ...]


class Glyphs(NamedTuple):
    """What there is to draw with."""

    cells: Sequence[str]
    peak: str
    """Stands on the top of the highest column."""
    dash: str

    @classmethod
    def of(cls, encoding: str | None) -> Glyphs:
        """The best that an encoding has."""
        try:
            f"{BRAILLE[-1]}▲{_EN_DASH}°".encode(encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return cls(ASCII, "^", "-")
        return cls(BRAILLE, "▲", _EN_DASH)


class Look(NamedTuple):
    """What is to be seen, as far as it is not in the history."""

    title: str
    status: str
    is_over: bool
    """Whether nothing will come any more."""
    charts: Sequence[Chart]
    group: str
    """Name of the group of charts."""
    end: float | None
    """The right edge, on the clock of the history; `None` if there is nothing yet."""
    seconds: float
    """From the left edge to the right one."""
    is_paused: bool = False
    skipped: int = 0
    """Rows of charts that are above those to be seen."""
    processes: Sequence[ProcessRow] | None = None
    """`None` where there is nothing to tell of processes."""
    processes_of: str = ""
    shows_help: bool = False
    has_keys: bool = True


# ---- the whole ----------------------------------------------------------------------------------


def draw(history: History, look: Look, width: int, height: int, glyphs: Glyphs) -> list[Line]:
    """Exactly so many lines, none wider than that."""
    with np.errstate(all="ignore"):  # a warning of NumPy's would stand in the middle of the view
        return _draw(history, look, width, height, glyphs)


def _draw(history: History, look: Look, width: int, height: int, glyphs: Glyphs) -> list[Line]:
    lines = [_title(look, width)]
    if look.shows_help:
        lines += [(Span(text[:width]),) for text in HELP]
    else:
        room = chart_lines(height, look)
        below = _processes(look, width, height)
        lines += _charts(history, look, width, room, glyphs)
        lines += [()] * (1 + room - len(lines))
        lines += below
    lines = lines[: height - 1]
    lines += [()] * (height - 1 - len(lines))
    return [*lines, _footer(history, look, width, glyphs)][:height]


def chart_lines(height: int, look: Look) -> int:
    """How many lines of a terminal the charts have."""
    return max(0, height - 2 - _process_lines(height, look))


def _process_lines(height: int, look: Look) -> int:
    if not look.processes or height < _LINES_WITH_PROCESSES:
        return 0
    return 1 + min(len(look.processes), max(3, height // 5))


def _title(look: Look, width: int) -> Line:
    status = f" {look.status}"
    if look.is_paused:
        status = " paused" + (f",{status}" if look.is_over else "")
    style = "alarm" if look.is_over else "warning" if look.is_paused else "good"
    room = max(width - cell_len(status), min(width, width // 2))
    title = set_cell_size(shown(look.title), room)
    return (Span(title, "title"), Span(_cut(status, width - room), style))


def _footer(history: History, look: Look, width: int, glyphs: Glyphs) -> Line:
    keys = ("any key: back",) if look.shows_help else KEYS if look.has_keys else ()
    stretch = duration(look.seconds)
    if look.end is not None:
        begin = time_of_day(history.clock.at(look.end - look.seconds))
        end = time_of_day(history.clock.at(look.end))
        stretch = f"{begin}{glyphs.dash}{end} ({stretch})"
    left = _cut(f"{stretch}  {look.group}", width)
    room = width - len(left) - _GAP
    fitting = [
        key
        for key, end in zip(keys, accumulate(len(key) + _GAP for key in keys), strict=True)
        if end - _GAP <= room
    ]
    right = (" " * _GAP).join(fitting)
    space = " " * (width - len(left) - len(right)) if right else ""
    return (Span(left, "strong"), Span(space + right, "dim"))


KEYS = ("q quit", "? help", "p pause", "+/- zoom", "s source")
"""The most wanted first: where there is no room the last are left out."""

HELP = (
    "",
    "  p, space       pause: the view stands still, the data go on; again to go on",
    "  + and -        more or less time, from 10 s to all there is",
    "  left, right    earlier and later (pauses)",
    "  end            back to now",
    "  s, S           the charts of the next source, or of the one before",
    "  up, down       more charts, where not all fit",
    "  q, Ctrl-C      quit",
    "",
    "  A column is as high as the largest value in its time; what is fainter is",
    "  above the mean of it. The highest value of all is marked, and below each",
    "  chart is when it was. No column is a gap: there were no values.",
)


# ---- charts -------------------------------------------------------------------------------------


class Grid(NamedTuple):
    """How charts share the room."""

    beside: int
    """Charts side by side."""
    rows: int
    """Rows of charts that can be seen."""
    lines: int
    """Of each."""


def grid(count: int, width: int, lines: int) -> Grid:
    """The best way to show so many charts."""
    beside = max(1, min(width // _NARROWEST_CHART, _MOST_CHARTS_BESIDE, count))
    rows = max(1, math.ceil(count / beside))
    while beside > 1 and math.ceil(count / (beside - 1)) == rows:
        beside -= 1
    each = lines // rows
    return Grid(beside, rows, each) if each >= 1 else Grid(beside, max(0, lines), 1)


def _charts(history: History, look: Look, width: int, lines: int, glyphs: Glyphs) -> list[Line]:
    if look.end is None:
        return [(), (Span(_cut("  nothing has come yet", width), "dim"),)][: max(0, lines)]
    beside, rows, each = grid(len(look.charts), width, lines)
    first = look.skipped * beside
    chosen = look.charts[first : first + beside * rows]
    cells = (width - _GAP * (beside - 1)) // beside
    more = lines - rows * each
    found: list[Line] = []
    for row, begin in enumerate(range(0, len(chosen), beside)):
        high = each + (row < more)
        drawn = [
            _chart(history, one, look, cells, high, glyphs)
            for one in chosen[begin : begin + beside]
        ]
        found += [_beside(line, cells) for line in zip(*drawn, strict=True)]
    return found


def _beside(lines: Sequence[Line], cells: int) -> Line:
    spans: list[Span] = []
    for number, line in enumerate(lines):
        spans += line
        if number < len(lines) - 1:
            used = sum(cell_len(span.text) for span in line)
            spans.append(Span(" " * (cells - used + _GAP)))
    return tuple(spans)


def _chart(
    history: History, chart: Chart, look: Look, width: int, lines: int, glyphs: Glyphs
) -> list[Line]:
    """One chart with what is written around it."""
    assert look.end is not None
    series = history[chart.key]
    summary = series.summary(look.end - look.seconds, look.end)
    title = _chart_title(history, chart, look, summary, width, glyphs)
    label_cells = 0
    if lines < _TITLED:
        label_cells = min(max(width // 2, 8), 24)
    dots = max(1, width - label_cells) * _DOTS_ACROSS
    step = look.seconds / dots
    # On a grid, so that columns do not change once they are over.
    begin = (math.ceil(look.end / step) - dots) * step
    columns = series.columns(begin, step, dots)
    top = scale(chart, summary)
    peak = None if summary is None else int(column_of(np.array([summary.peak]), begin, step)[0])
    if lines < _TITLED:
        (plot,) = _plot(columns, 1, top, peak, glyphs, is_share=chart.unit == "%")
        return [(*_fitted(title[:2], label_cells - 1), Span(" "), *plot)]
    has_numbers = lines >= _WITH_NUMBERS
    rows = lines - 2 if has_numbers else 1
    plots = _plot(columns, rows, top, peak, glyphs, is_share=chart.unit == "%")
    below = [_numbers(history, summary, top, width, glyphs)] if has_numbers else []
    return [_fitted(title, width), *plots, *below]


def _chart_title(
    history: History,
    chart: Chart,
    look: Look,
    summary: Summary | None,
    width: int,
    glyphs: Glyphs,
) -> Line:
    assert look.end is not None
    value = glyphs.dash
    if summary is not None and summary.current is not None:
        value = _with_unit(summary.current, chart.unit)
    spans = [Span(f"{chart.label} ", "label"), Span(value, "strong")]
    room = width - sum(cell_len(span.text) for span in spans)
    for part in chart.parts:
        of_part = history[part.key].current(look.end)
        if of_part is None:
            continue
        text = f"  {part.label} " if part.label else "  "
        text += _with_unit(of_part, part.unit)
        room -= cell_len(text)
        if room < 0:
            break
        spans.append(Span(text, "dim"))
    return tuple(spans)


def _numbers(
    history: History, summary: Summary | None, top: float, width: int, glyphs: Glyphs
) -> Line:
    if summary is None:
        return (Span(_cut("no values", width), "dim"),)
    when = history.clock.at(summary.peak)
    low, mean = f"min {number(summary.low)}", f"mean {number(summary.mean)}"
    most = f"max {number(summary.high)}"
    limit = f"  0{glyphs.dash}{number(top)}"
    # The longest that there is room for.
    for gap, at, rest in (
        ("  ", f" at {time_of_day(when, fine=True)}", limit),
        ("  ", f" at {time_of_day(when, fine=True)}", ""),
        (" ", f" {time_of_day(when, fine=True)}", ""),
        (" ", f" {time_of_day(when)}", ""),
    ):
        before = f"{low}{gap}{mean}{gap}"
        left = width - len(before) - len(most) - len(at) - len(rest)
        if left >= 0:
            break
    rest = " " * left + rest if rest else ""
    return _fitted((Span(before, "dim"), Span(most, "peak"), Span(f"{at}{rest}", "dim")), width)


def scale(chart: Chart, summary: Summary | None) -> float:
    """The value at the top of a chart: the largest there can be, or a round number."""
    if chart.top is not None:
        return chart.top
    high = 0.0 if summary is None else summary.high
    if chart.unit == "%" and high <= _ALMOST_ALL:
        return 100.0
    return round_up(high)


def round_up(value: float) -> float:
    """To 1, 2 or 5 times a power of ten."""
    if not 1e-300 < value < 1e300:  # noqa: PLR2004  # what can be divided and multiplied
        return max(value, 1.0)
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        step * power for step in (1.0, 2.0, 5.0, 10.0) if value <= step * power * (1 + 1e-12)
    )


def _plot(
    columns: Columns, rows: int, top: float, peak: int | None, glyphs: Glyphs, *, is_share: bool
) -> list[Line]:
    """The chart itself, from the top."""
    heights = dots_of(columns.highs, rows, top)
    means = dots_of(columns.means, rows, top)
    mean_of_cell = np.maximum(means[0::2], means[1::2])
    mark = None
    if peak is not None and 0 <= peak < len(heights) and heights[peak] > 0:
        mark = (rows - 1 - (int(heights[peak]) - 1) // _DOTS_UP, peak // _DOTS_ACROSS)
    lines = []
    for row in range(rows):
        below = (rows - 1 - row) * _DOTS_UP
        dots = np.minimum(np.maximum(heights - below, 0), _DOTS_UP)
        cells = dots[0::2] * (_DOTS_UP + 1) + dots[1::2]
        text = "".join([glyphs.cells[cell] for cell in cells.tolist()])
        at = mark[1] if mark is not None and mark[0] == row else None
        style = _style((rows - row - 0.5) / rows * top, is_share=is_share)
        lines.append(_styled(text, mean_of_cell <= below, style, at, glyphs.peak))
    return lines


def dots_of(values: Floats, rows: int, top: float) -> NDArray[np.int64]:
    """How many dots high each column is: none where there is no value, and one for 0."""
    levels = rows * _DOTS_UP
    heights = np.ceil(np.minimum(np.maximum(values / top, 0.0), 1.0) * levels - 1e-9)
    return np.where(np.isnan(heights), 0.0, np.maximum(heights, 1.0)).astype(np.int64)


def _style(value: float, *, is_share: bool) -> str:
    if not is_share:
        return "flow"
    share = value / 100.0
    return "highest" if share >= _HIGHEST else "high" if share >= _HIGH else "low"


def _styled(
    text: str,
    is_faint: NDArray[np.bool_],
    style: str,
    mark: int | None,
    peak: str,
) -> Line:
    """A row of cells, those above their means fainter, with the mark of the peak."""
    turns = [0, *(np.flatnonzero(np.diff(is_faint)) + 1).tolist(), len(text)]
    spans = []
    for begin, end in pairwise(turns):
        part = text[begin:end]
        of_part = style if part.isspace() or not is_faint[begin] else f"{style} faint"
        if mark is not None and begin <= mark < end:
            spans.append(Span(part[: mark - begin], of_part))
            spans.append(Span(peak, "peak"))
            part = part[mark - begin + 1 :]
        spans.append(Span(part, of_part))
    return tuple(span for span in spans if span.text)


# ---- processes ----------------------------------------------------------------------------------


def _processes(look: Look, width: int, height: int) -> list[Line]:
    count = _process_lines(height, look)
    if count == 0 or look.processes is None:
        return []
    heading = f"{'PID':>8} {'CPU %':>6} {'MB':>8}  {look.processes_of}"
    lines: list[Line] = [(Span(set_cell_size(heading, width), "heading"),)]
    for row in look.processes[: count - 1]:
        cpu = "" if row.cpu is None else f"{row.cpu:.1f}"
        memory = number(row.memory_bytes / _BYTES_PER_MEGABYTE)
        text = f"{row.pid:>8} {cpu:>6} {memory:>8}  {'  ' * row.depth}{shown(row.command)}"
        lines.append((Span(_cut(text, width)),))
    return lines


# ---- text ---------------------------------------------------------------------------------------


def number(value: float) -> str:
    """With as many digits as mean something."""
    if not math.isfinite(value) or abs(value) >= 1e9:  # noqa: PLR2004  # too wide otherwise
        return f"{value:.3g}"
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2  # noqa: PLR2004  # 3 digits
    text = f"{value:.{digits}f}"
    return "0" if float(text) == 0.0 else text


def _with_unit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}" if unit else number(value)


def duration(seconds: float) -> str:
    """In words as short as can be."""
    if seconds < 120.0:  # noqa: PLR2004  # two minutes
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:  # noqa: PLR2004  # two hours
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    return f"{minutes / 60:.1f} h"


def time_of_day(unix: float, *, fine: bool = False) -> str:
    """By the clock of this machine; a question mark for what is no time."""
    try:
        moment = datetime.fromtimestamp(unix)  # noqa: DTZ006  # the time zone of who looks
    except (ValueError, OverflowError, OSError):
        return "?"
    return moment.strftime("%H:%M:%S") + (f".{moment.microsecond // 10_000:02d}" if fine else "")


def shown(text: str) -> str:
    """Text of others, without what would do something to a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width)).rstrip()


def _fitted(line: Line, width: int) -> Line:
    """As much of it as there is room for, padded to all of it."""
    spans: list[Span] = []
    for span in line:
        text = _cut(span.text, width)
        if text:
            spans.append(Span(text, span.style))
            width -= cell_len(text)
    return (*spans, Span(" " * width)) if width > 0 else tuple(spans)


def plain(line: Line) -> str:
    """Without styles."""
    return "".join(span.text for span in line).rstrip()

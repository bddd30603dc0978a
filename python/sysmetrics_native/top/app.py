"""The live view at work: keys, timing, what is shown next."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console

from sysmetrics_native.top import drawing
from sysmetrics_native.top.charts import Chart, charts_of
from sysmetrics_native.top.feeds import Feed
from sysmetrics_native.top.history import History
from sysmetrics_native.top.processes import Processes
from sysmetrics_native.top.terminal import Terminal

SPANS = (10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)
"""Seconds that can be seen at once; then twice as much each time, up to all there is."""

_SHORTEST_FRAME_SECONDS = 0.25
_LONGEST_FRAME_SECONDS = 1.0
_FIRST_FRAME_SECONDS = 0.01
_FRAMES_IN_A_SPAN = 240
_SCROLL = 0.25
"""Of what is seen, with one key."""
_ONCE_SECONDS = 2.0
_ONCE_TICKS = 3


class View:
    """What of a feed is seen; changed by keys."""

    def __init__(self, feed: Feed, seconds: float) -> None:
        self._feed = feed
        charts = charts_of(feed.series)
        self.history = History(feed.series, charts.combinations, feed.interval)
        self._groups = charts.groups
        self._names = list(charts.groups)
        self._group = 0
        self._skipped = 0
        self.seconds = seconds
        self._end: float | None = None
        self._shows_help = False
        self.is_done = False
        self._actions: dict[str, Callable[[], None]] = {
            **dict.fromkeys(("?", "h"), self._show_help),
            **dict.fromkeys(("p", " "), self._pause),
            **dict.fromkeys(("+", "="), partial(self._zoom, -1)),
            **dict.fromkeys(("-", "_"), partial(self._zoom, 1)),
            "left": partial(self._scroll, -_SCROLL),
            "right": partial(self._scroll, _SCROLL),
            "end": self._go_on,
            "s": partial(self._choose, 1),
            "S": partial(self._choose, -1),
            "down": partial(self._skip, 1),
            "up": partial(self._skip, -1),
        }

    # ---- what is seen ---------------------------------------------------------------------------

    @property
    def charts(self) -> Sequence[Chart]:
        """Those of the group that is chosen."""
        return self._groups[self._names[self._group]] if self._names else ()

    @property
    def is_paused(self) -> bool:
        """Whether the view stands still."""
        return self._end is not None

    def look(self, processes: Processes | None, *, has_keys: bool = True) -> drawing.Look:
        """For `drawing.draw`."""
        feed = self._feed
        whose = "processes"
        if feed.root is not None:
            whose = f"process {feed.root} and its descendants"
        return drawing.Look(
            title=f"sysmetrics-native top: {feed.title}",
            status=feed.status,
            is_over=feed.is_over,
            charts=self.charts,
            group=self._names[self._group] if self._names else "",
            end=self.history.end if self._end is None else self._end,
            seconds=self.seconds,
            is_paused=self.is_paused,
            skipped=self._skipped,
            processes=None if processes is None else processes.rows,
            processes_of=whose,
            shows_help=self._shows_help,
            has_keys=has_keys,
        )

    @property
    def frame_seconds(self) -> float:
        """How long a frame may stand: no longer than what a column of a chart stands for."""
        wanted = self.seconds / _FRAMES_IN_A_SPAN
        return min(max(wanted, _SHORTEST_FRAME_SECONDS), _LONGEST_FRAME_SECONDS)

    # ---- keys -----------------------------------------------------------------------------------

    def press(self, key: str) -> None:
        """Do what a key asks for."""
        if key in ("q", "Q", "\x03"):
            self.is_done = True
        elif self._shows_help:
            self._shows_help = False
        elif key in self._actions:
            self._actions[key]()

    def _show_help(self) -> None:
        self._shows_help = True

    def _pause(self) -> None:
        self._end = self.history.end if self._end is None else None

    def _go_on(self) -> None:
        self._end = None

    def _choose(self, step: int) -> None:
        if self._names:
            self._group = (self._group + step) % len(self._names)
            self._skipped = 0

    def _skip(self, rows: int) -> None:
        self._skipped = max(0, self._skipped + rows)

    def fit(self, look: drawing.Look, width: int, height: int) -> drawing.Look:
        """Scroll back what is scrolled too far for a terminal of this size."""
        if self._skipped > 0:
            grid = drawing.grid(len(self.charts), width, drawing.chart_lines(height, look))
            rows = -(-len(self.charts) // grid.beside)
            self._skipped = min(self._skipped, max(0, rows - grid.rows))
        return look._replace(skipped=self._skipped)

    def _zoom(self, step: int) -> None:
        if step < 0:
            shorter = [one for one in self._spans() if one < self.seconds]
            self.seconds = shorter[-1] if shorter else self.seconds
        else:
            longer = [one for one in self._spans() if one > self.seconds]
            self.seconds = longer[0] if longer else self.seconds

    def _spans(self) -> list[float]:
        spans = list(SPANS)
        begin, end = self.history.begin, self.history.end
        whole = 0.0 if begin is None or end is None else end - begin
        while spans[-1] < whole:
            spans.append(2.0 * spans[-1])
        at_most = next((one for one in spans if one >= whole), spans[-1])
        return [one for one in spans if one <= max(at_most, SPANS[3])]

    def _scroll(self, share: float) -> None:
        begin, end = self.history.begin, self.history.end
        if begin is None or end is None:
            return
        wanted = (end if self._end is None else self._end) + share * self.seconds
        self._end = min(max(wanted, min(begin + self.seconds, end)), end)


def run(feed: Feed, seconds: float, console: Console) -> None:
    """Show it on the terminal until somebody has seen enough."""
    # What is logged without a handler would be written into the middle of the view.
    logging.getLogger("sysmetrics_native").addHandler(logging.NullHandler())
    view = View(feed, seconds)
    glyphs = drawing.Glyphs.of(console.encoding)
    processes: dict[int | None, Processes] = {}
    with Terminal(console) as terminal:
        # A frame first: to read a long recording takes a moment.
        is_due, next_poll = True, time.monotonic() + _FIRST_FRAME_SECONDS
        while not (view.is_done or terminal.is_interrupted):
            now = time.monotonic()
            if now >= next_poll:
                next_poll = now + view.frame_seconds
                is_due |= feed.poll(view.history)
                table = _processes_of(feed, processes)
                is_due |= table is not None and table.look(now)
            if is_due or terminal.has_resized:
                width, height = terminal.size
                look = view.look(_processes_of(feed, processes), has_keys=terminal.has_keys)
                look = view.fit(look, width, height)
                terminal.show(drawing.draw(view.history, look, width, height, glyphs))
            is_due = False
            for key in terminal.wait(next_poll - time.monotonic()):
                view.press(key)
                is_due = True


def _processes_of(feed: Feed, known: dict[int | None, Processes]) -> Processes | None:
    """Those of the job, while it can be seen; of the machine where no job is meant."""
    if feed.root is None and not feed.is_of_machine:
        return None
    if feed.root not in known:
        known[feed.root] = Processes(feed.root)
    return known[feed.root]


def once(feed: Feed, seconds: float, width: int, height: int, encoding: str | None) -> list[str]:
    """One frame as plain text, after as short a time as it takes to have something to show."""
    view = View(feed, seconds)
    feed.poll(view.history)
    processes = _processes_of(feed, {})
    if processes is not None:
        processes.look(time.monotonic())
    if not feed.is_over and (view.history.end is None or feed.is_of_machine):
        time.sleep(max(_ONCE_SECONDS, _ONCE_TICKS * feed.interval))
        feed.poll(view.history)
    elif processes is not None:
        time.sleep(_ONCE_SECONDS / 4)
        feed.poll(view.history)
    if processes is not None:
        processes.look_soon(time.monotonic())
        processes.look(time.monotonic())
    look = view.look(processes, has_keys=False)
    lines = drawing.draw(view.history, look, width, height, drawing.Glyphs.of(encoding))
    return [drawing.plain(line) for line in lines]

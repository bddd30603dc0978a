"""What the live view draws, as text; nothing here has a terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from sysmetrics_native.recording_file import RecordedSeries
from sysmetrics_native.top import drawing
from sysmetrics_native.top.app import View
from sysmetrics_native.top.charts import OVERVIEW, Chart, charts_of
from sysmetrics_native.top.drawing import ASCII, BRAILLE, Glyphs, draw, plain
from sysmetrics_native.top.history import History, Readings, Summary
from sysmetrics_native.top.processes import ProcessRow
from sysmetrics_native.top.terminal import STYLES, KeyParser

GLYPHS = Glyphs.of("utf-8")
NOON = time.mktime((2026, 3, 4, 12, 0, 0, 0, 0, -1))


def gauge(
    key: str, unit: str = "percentage", source: str = "cpu", kind: str = "gauge"
) -> RecordedSeries:
    return RecordedSeries(key, unit, source, kind, 0, None, 1.0, 0.0)


CPU = gauge("cpu_utilization_percentage")
MACHINE = (
    CPU,
    gauge("system_memory_usage_megabytes", "megabytes", "memory"),
    gauge("system_memory_usage_percentage", source="memory"),
    gauge("disk_read_megabytes_per_second", "megabytes per second", "disk_io"),
    gauge("disk_write_megabytes_per_second", "megabytes per second", "disk_io"),
    gauge("network_receive_megabytes", "megabytes", "network", "total"),
    gauge("network_transmit_megabytes", "megabytes", "network", "total"),
    gauge("pressure_cpu_some_percentage", source="pressure"),
    gauge("pressure_io_some_percentage", source="pressure"),
    gauge("gpu_0_utilization_percentage", source="gpu"),
    gauge("gpu_0_memory_usage_percentage", source="gpu"),
    gauge("gpu_10_utilization_percentage", source="gpu"),
    gauge("process_cpu_percentage", source="process"),
)


class Idle:
    """A feed from which nothing comes by itself."""

    def __init__(self, series: Sequence[RecordedSeries] = MACHINE) -> None:
        self.series = series
        self.title = "m"
        self.status = "live"
        self.is_over = False
        self.root: int | None = None
        self.is_of_machine = True
        self.interval = 1.0

    def poll(self, history: History) -> bool:
        del history
        return False

    def close(self) -> None:
        pass


def fill(
    history: History, values: Sequence[float | None], key: str = CPU.key, begin: float = 0.0
) -> None:
    """A value a second, from noon on."""
    history.add_readings(
        [
            Readings(
                begin + i,
                begin + i + 1,
                NOON + begin + i + 1,
                {} if value is None else {key: value},
            )
            for i, value in enumerate(values)
        ]
    )


def make(values: Sequence[float | None], series: Sequence[RecordedSeries] = (CPU,)) -> View:
    view = View(Idle(series), 60.0)
    fill(view.history, values)
    return view


def frame(
    view: View, width: int = 80, height: int = 24, glyphs: Glyphs = GLYPHS, **changes: Any
) -> list[str]:
    look = view.look(None)._replace(**changes)
    return [plain(line) for line in draw(view.history, look, width, height, glyphs)]


# ---- which charts -------------------------------------------------------------------------------


def test_the_overview_has_what_one_wants_to_see_first():
    charts = charts_of(MACHINE)
    assert [(chart.label, chart.unit) for chart in charts.groups[OVERVIEW]] == [
        ("CPU", "%"),
        ("memory", "%"),
        ("GPU 0", "%"),
        ("GPU 10", "%"),
        ("disk", "MB/s"),
        ("network", "MB/s"),
        ("pressure", "%"),
        ("job CPU", "%"),
    ]
    memory = charts.groups[OVERVIEW][1]
    assert [(part.label, part.unit) for part in memory.parts] == [("", "MB")]
    assert [chart.label for chart in charts.groups["disk_io"]] == ["disk read", "disk write"]
    assert charts.groups[OVERVIEW][-1].top is None, "a job may have more than one core"
    assert {one.key: one.of for one in charts.combinations} == {
        "disk": ("disk_read_megabytes_per_second", "disk_write_megabytes_per_second"),
        "network": ("network_receive_megabytes", "network_transmit_megabytes"),
        "pressure": ("pressure_cpu_some_percentage", "pressure_io_some_percentage"),
    }


def test_where_nothing_is_known_every_source_still_has_its_charts():
    charts = charts_of([gauge("entropy_available_bits", "bits", "entropy")])
    assert list(charts.groups) == ["entropy"]
    assert charts.groups["entropy"][0].label == "entropy available bits"
    assert charts.groups["entropy"][0].unit == "bits"


# ---- charts -------------------------------------------------------------------------------------


def test_dots():
    values = np.array([math.nan, 0.0, 0.1, 50.0, 100.0, 1000.0])
    assert drawing.dots_of(values, 2, 100.0).tolist() == [0, 1, 1, 4, 8, 8]


def test_braille_is_filled_from_below():
    assert BRAILLE[0] == " "
    assert BRAILLE[-1] == "\u28ff"
    assert BRAILLE[1 * 5 + 0] == "\u2840"
    assert BRAILLE[0 * 5 + 1] == "\u2880"
    assert len(set(BRAILLE)) == 25
    assert set(ASCII) == set(" .:|#")


def test_a_burst_is_marked_and_its_time_is_written():
    values = [5.0] * 60
    values[30] = 95.0
    text = frame(make(values), width=60, height=12)
    assert text[1].startswith("CPU 5.00 %")
    assert text[2].count("▲") == 1
    assert text[2].index("▲") == pytest.approx(30, abs=1)
    assert "min 5.00  mean 6.50  max 95.0 at 12:00:31.00" in text[10]
    assert "11:59:60" not in text[-1]
    assert "12:00:00\u201312:01:00 (60 s)" in text[-1]


def test_a_gap_is_empty_and_zero_is_not():
    values = [0.0] * 20 + [None] * 20 + [0.0] * 20
    bottom = frame(make(values), width=60, height=12)[9].ljust(60)
    assert not bottom[:19].replace("▲", "").count(" ")
    assert bottom[22:38].strip() == ""
    assert not bottom[42:59].count(" ")


def test_scales():
    def scale(high: float, unit: str, top: float | None = None) -> float:
        summary = Summary(None, 0.0, 0.0, high, 0.0)
        return drawing.scale(Chart("k", "l", unit, (), top), summary)

    assert scale(236.0, "%", 100.0) == 100.0
    assert scale(101.0, "%") == 100.0
    assert scale(350.0, "%") == 500.0
    assert scale(0.0, "MB/s") == 1.0
    assert scale(3.0, "MB/s") == 5.0
    assert scale(0.002, "MB/s") == pytest.approx(0.002)
    assert scale(1e308, "MB/s") >= 1e308


def test_what_is_above_the_mean_is_fainter():
    view = make([0.0, 100.0] * 300, (CPU,))
    view.seconds = 600.0
    lines = draw(view.history, view.look(None), 40, 12, GLYPHS)
    styles = [
        {span.style for span in line if span.style.endswith(("t", "w", "h"))}
        for line in lines[2:10]
    ]
    assert any("highest faint" in one for one in styles)
    assert styles[-1] - {"peak", ""} == {"low"}
    assert {span.style for line in lines for span in line} <= {"", *STYLES}


@pytest.mark.parametrize(
    ("width", "height"), [(80, 24), (200, 50), (20, 5), (1, 1), (38, 3), (79, 16)]
)
@pytest.mark.parametrize(
    "processes", [None, (), (ProcessRow(1, 2.0, 10**9, "a\x1b[31m\u65e5" * 30, 3),) * 40]
)
def test_a_frame_fits(width, height, processes):
    view = make([5.0, None, 7.0], MACHINE)
    for shows_help in (False, True):
        for charts in (view.charts, [*view.charts] * 5):
            text = frame(
                view, width, height, processes=processes, shows_help=shows_help, charts=charts
            )
            assert len(text) == height
            assert max(cell_len(line) for line in text) <= width
            assert not any(char in line for line in text for char in "\x1b\r\n")


@given(st.integers(1, 60), st.integers(1, 300), st.integers(0, 100))
def test_a_grid_has_room_for_what_it_shows(count, width, lines):
    grid = drawing.grid(count, width, lines)
    assert grid.rows * grid.lines <= lines
    assert grid.beside == 1 or width // grid.beside >= 38
    assert grid.beside * grid.rows >= count or grid.lines == 1


def test_a_small_terminal_has_one_line_for_each_chart():
    text = frame(make([50.0] * 60, MACHINE), width=40, height=5)
    assert text[1].startswith("CPU 50.0 %")
    assert "\u28ff" in text[1] or "\u28e4" in text[1]
    assert text[2].startswith("memory")


def test_ascii_where_there_is_no_more():
    text = frame(make([50.0] * 60), glyphs=Glyphs.of("latin-1"))
    assert all(line.isascii() for line in text)
    assert any("####" in line and "^" not in line for line in text)
    assert Glyphs.of("no such encoding").peak == "^"
    assert Glyphs.of(None).peak == "^"


def test_before_the_first_row_there_is_a_word():
    text = frame(View(Idle(), 60.0))
    assert "nothing has come yet" in text[2]


def test_processes_are_a_tree_under_their_heading():
    rows = (
        ProcessRow(10, None, 5_000_000, "python train.py", 0),
        ProcessRow(11, 99.5, 1, "worker", 1),
    )
    text = frame(make([1.0]), processes=rows, processes_of="process 10 and its descendants")
    at = next(i for i, line in enumerate(text) if "CPU %" in line)
    assert text[at].endswith("process 10 and its descendants")
    assert text[at + 1].split() == ["10", "5.00", "python", "train.py"]
    assert "    worker" in text[at + 2]
    assert text[at + 2].split()[1] == "99.5"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.001, "0"), (-0.001, "0"), (5.678, "5.68"), (9.999, "10.0"), (56.78, "56.8"),
     (99.97, "100"), (12345.6, "12346"), (1e12, "1e+12"), (math.inf, "inf")],
)  # fmt: skip
def test_numbers(value, text):
    assert drawing.number(value) == text


def test_times():
    assert drawing.time_of_day(NOON + 1.239, fine=True) == "12:00:01.23"
    assert drawing.time_of_day(1e300) == "?"
    assert drawing.duration(60.0) == "60 s"
    assert drawing.duration(600.0) == "10 min"
    assert drawing.duration(10800.0) == "3.0 h"


# ---- keys ---------------------------------------------------------------------------------------


def test_keys_are_told_apart_however_they_come():
    data = b"q+\x1b[D\x1bOC\x1b[F\x1b[200~s\x1b[1;5D"
    whole = KeyParser().feed(data)
    assert whole == ["q", "+", "left", "right", "end", "s"]
    parser = KeyParser()
    assert [key for byte in data for key in parser.feed(bytes([byte]))] == whole


@given(st.binary(max_size=60))
def test_no_bytes_break_the_parser(data):
    parser = KeyParser()
    keys = parser.feed(data) + parser.flush()
    assert all(isinstance(key, str) and key for key in keys)
    assert parser.feed(b"q") == ["q"]


def test_escape_alone_is_a_key():
    parser = KeyParser()
    assert parser.feed(b"\x1b") == []
    assert parser.flush() == ["escape"]
    assert parser.flush() == []


def test_a_paused_view_stands_while_data_go_on():
    view = make([1.0] * 100)
    view.press("p")
    before = frame(view)
    fill(view.history, [99.0] * 50, begin=100.0)
    assert frame(view) == before
    assert "paused" in before[0]
    view.press("p")
    assert "max 99.0" in "\n".join(frame(view))
    assert "paused" not in frame(view)[0]


def test_zoom_ends_at_ten_seconds_and_at_all_there_is():
    view = make([1.0] * 5000)
    for _ in range(20):
        view.press("+")
    assert view.seconds == 10.0
    for _ in range(20):
        view.press("-")
    assert view.seconds == 7200.0
    assert "2.0 h" in frame(view)[-1]


def test_scrolling_ends_at_the_first_and_the_last():
    view = make([float(i) for i in range(300)])
    view.press("left")
    assert view.is_paused
    assert view.look(None).end == 285.0
    for _ in range(100):
        view.press("left")
    assert view.look(None).end == 61.0
    for _ in range(100):
        view.press("right")
    assert view.look(None).end == 300.0
    view.press("end")
    assert not view.is_paused


def test_sources_go_round():
    view = View(Idle(), 60.0)
    seen = [view.look(None).group]
    for _ in range(7):
        view.press("s")
        seen.append(view.look(None).group)
    assert seen == ["overview", "cpu", "memory", "disk_io", "network", "pressure", "gpu", "process"]
    view.press("s")
    assert view.look(None).group == "overview"
    view.press("S")
    assert view.look(None).group == "process"


def test_help_goes_with_any_key():
    view = make([1.0])
    view.press("?")
    assert any("pause" in line for line in frame(view)[1:-1])
    view.press("x")
    assert not view.look(None).shows_help
    view.press("q")
    assert view.is_done


def test_charts_that_do_not_fit_are_reached():
    view = make([1.0], MACHINE)
    for _ in range(50):
        view.press("down")
    look = view.fit(view.look(None), 40, 5)
    assert look.skipped == len(view.charts) - 3
    text = [plain(line) for line in draw(view.history, look, 40, 5, GLYPHS)]
    assert text[3].startswith("job CPU")
    for _ in range(50):
        view.press("up")
    assert view.fit(view.look(None), 40, 5).skipped == 0


def test_nothing_happens_to_a_view_without_data():
    view = View(Idle(()), 60.0)
    for key in ("left", "right", "p", "+", "-", "s", "S", "up", "down", "end", "escape", "?"):
        view.press(key)
        assert len(frame(view)) == 24
    assert History(()).end is None

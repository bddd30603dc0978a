"""A report's page in a real browser: charts, one axis of time, no complaint, no request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("plotly", reason="plotly, of the extra `report`, is not installed")

import numpy as np

from sysmetrics_native.report.page import make_page
from sysmetrics_native.timeline import Timeline
from tests.browser.chromium import DESKTOP, PHONE, Browser
from tests.timelines import make_timeline, make_track

CPU_LINE = (  # not the outline of its band
    "[...document.querySelectorAll('#cpu .chart path.js-line')]"
    ".find(path => path.style.strokeWidth !== '0px')"
)
DRAWN = "return document.documentElement.dataset.drawn"


def example(count: int = 600, **changes: Any) -> Timeline:
    """Two nodes with two GPUs each, a gap in the middle, a hint of every subject."""
    wave = 50 + 49 * np.sin(np.arange(count) / 20)
    broken = wave.copy()
    broken[count // 2 : count // 2 + count // 10] = np.nan
    tracks = [
        make_track(key, values, node=node, spread=spread)
        for node in ("worker-0", "worker-1")
        for key, values, spread in (
            ("cpu_utilization_percentage", broken, 1.0),
            ("cpu_core_max_percentage", wave, None),
            ("system_memory_usage_percentage", wave, None),
            ("disk_read_megabytes_per_second", wave * 9, None),
            ("network_receive_megabytes", np.cumsum(wave), None),
            ("pressure_io_some_percentage", wave / 2, None),
            ("load_average_1m", wave / 10, None),
            *((f"gpu_{gpu}_utilization_percentage", wave, 1.0) for gpu in (0, 1)),
            *((f"gpu_{gpu}_power_usage_watts", wave * 5, None) for gpu in (0, 1)),
            ("cpu_package_0_power_watts", wave, None),
        )
    ]
    return make_timeline(tracks, title="<img src=x onerror=console.error(1)>", **changes)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where an example lies."""
    return written(example(), tmp_path_factory.mktemp("page"))


def written(timeline: Timeline, folder: Path) -> str:
    path = folder / "report.html"
    path.write_text(make_page(timeline), encoding="utf-8")
    return path.as_uri()


def opened(browser: Browser, uri: str, size: tuple[int, int], *, is_dark: bool = False) -> None:
    """On a screen of that size, with all its charts drawn."""
    browser.set_screen(size, is_dark=is_dark)
    browser.open(uri)
    browser.wait_for(DRAWN, "all charts")


def look_at(browser: Browser, selector: str) -> None:
    """Scroll there, and let the page notice it."""
    browser.run(f"document.querySelector('{selector}').scrollIntoView({{behavior: 'instant'}})")
    browser.wait_for_frames()


def ranges(browser: Browser) -> list[list[float]]:
    """What stretch of time the charts on the screen show, in Unix milliseconds."""
    found: list[list[float]] = browser.run(
        """
        return [...document.querySelectorAll('.chart')].filter(chart => {
          const box = chart.getBoundingClientRect();
          return chart._fullLayout && box.height > 0 && box.bottom > 0 && box.top < innerHeight;
        }).map(chart => chart._fullLayout.xaxis.range.map(chart._fullLayout.xaxis.r2l));
        """
    )
    return found


@pytest.mark.parametrize(("size", "is_dark"), [(DESKTOP, False), (DESKTOP, True), (PHONE, True)])
def test_it_opens_with_all_its_charts_and_nothing_to_complain_of(browser, page, size, is_dark):
    opened(browser, page, size, is_dark=is_dark)
    closed = "[...document.querySelectorAll('.chart')].filter(c => !c.closest('details'))"
    charts, with_lines = browser.run(
        f"const charts = {closed};"
        "return [charts.length,"
        " charts.filter(c => c.querySelector('svg .scatterlayer .trace path.js-line')).length]"
    )
    assert charts == with_lines > 15
    assert browser.overflow() <= 0
    assert browser.complaints() == []
    assert browser.requests() == [page]
    title = browser.run("return document.querySelector('h1').textContent")
    assert title == "<img src=x onerror=console.error(1)>"


def test_no_chart_is_wider_than_its_place(browser, page):
    opened(browser, page, PHONE)
    widest = browser.run(
        "return Math.max(...[...document.querySelectorAll('.chart svg')]"
        ".map(svg => svg.getBoundingClientRect().right))"
    )
    assert 300 < widest <= PHONE[0]


def test_bands_are_filled_and_gaps_are_left_open(browser, page):
    opened(browser, page, DESKTOP)
    pieces, band = browser.run(
        f"return [{CPU_LINE}.closest('.trace').querySelectorAll('path.js-line').length,"
        " document.querySelector('#cpu .chart path.js-fill').getAttribute('d')]"
    )
    assert pieces == 2
    assert band.count("M") == 2
    assert band.count("Z") == 2


def test_zooming_one_chart_zooms_all(browser, page):
    opened(browser, page, DESKTOP)
    look_at(browser, "#memory")
    (whole,) = {tuple(one) for one in ranges(browser)}
    start, end = whole[0] + 60_000, whole[0] + 120_000
    browser.run(
        "const chart = document.querySelector('#memory .chart');"
        "const [start, end] = [...arguments].map(at => new Date(at).toISOString().slice(0, -1));"
        "Plotly.relayout(chart, {'xaxis.range[0]': start, 'xaxis.range[1]': end})",
        *(start, end),
    )
    assert len(ranges(browser)) >= 3
    assert {tuple(one) for one in ranges(browser)} == {(start, end)}
    # Those that were not on the screen follow when they are.
    look_at(browser, "#energy")
    zoomed = (
        "return Math.round(document.querySelector('#energy .chart')._fullLayout.xaxis.r2l("
        "document.querySelector('#energy .chart')._fullLayout.xaxis.range[0]))"
    )
    browser.wait_for(f"return (() => {{ {zoomed} }})() === {start}", "the last charts")
    assert browser.complaints() == []


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/St_Johns"])
def test_where_the_reader_lives_changes_nothing(browser, page, zone):
    browser.set_time_zone(zone)
    try:
        opened(browser, page, DESKTOP)
        first, last = browser.run(
            "const line = document.querySelector('#memory .chart').calcdata[0];"
            "return [line[0].x, line[line.length - 1].x]"
        )
        (shown,) = {tuple(one) for one in ranges(browser)} or {()}
        look_at(browser, "#memory")
        browser.run("document.querySelector('[data-do=closer]').click()")
        (closer,) = {tuple(one) for one in ranges(browser)}
        start = browser_time(browser, 0)
    finally:
        browser.set_time_zone("")
    assert (first, last) == (start + 1000, start + 600_000)
    assert closer == (start + 150_000, start + 450_000)
    assert shown in ((), (start, start + 600_000))


def browser_time(browser: Browser, seconds: float) -> float:
    """A moment after the start, in the milliseconds of the page's charts."""
    start = browser.run("return JSON.parse(document.getElementById('data').textContent).start")
    return float(start) + 1000 * seconds


def test_dragging_over_a_chart_zooms_and_a_double_click_goes_back(browser, page):
    from selenium.webdriver import ActionChains

    opened(browser, page, DESKTOP)
    look_at(browser, "#memory")
    (whole,) = {tuple(one) for one in ranges(browser)}
    stretch = "document.getElementById('stretch').textContent"
    told = browser.run(f"return {stretch}")
    chart = browser.driver.find_element("css selector", "#memory .chart .nsewdrag")
    drag = ActionChains(browser.driver).move_to_element(chart).click_and_hold()
    drag.move_by_offset(150, 0).release().perform()
    browser.wait_for(f"return {stretch} !== '{told}'", "the zoom")
    (shown,) = {tuple(one) for one in ranges(browser)}
    assert whole[0] < shown[0] < shown[1] < whole[1]
    ActionChains(browser.driver).double_click(chart).perform()
    browser.wait_for(f"return {stretch} === '{told}'", "all of it")
    assert {tuple(one) for one in ranges(browser)} == {whole}


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_buttons_zoom_move_and_go_back(browser, page, size):
    opened(browser, page, size)
    look_at(browser, "#cpu")
    (whole,) = {tuple(one) for one in ranges(browser)}
    for press, length, moved in (
        ("closer", 0.5, 0.25),
        ("later", 0.5, 0.5),
        ("earlier", 0.5, 0.25),
        ("wider", 1.0, 0.0),
    ):
        browser.run(f"document.querySelector('[data-do={press}]').click()")
        (shown,) = {tuple(one) for one in ranges(browser)}
        total = whole[1] - whole[0]
        assert (shown[1] - shown[0]) / total == pytest.approx(length, abs=1e-3), press
        assert (shown[0] - whole[0]) / total == pytest.approx(moved, abs=1e-3), press
    browser.run("document.querySelector('[data-do=closer]').click()")
    browser.run("document.querySelector('[data-do=whole]').click()")
    assert {tuple(one) for one in ranges(browser)} == {whole}
    assert browser.complaints() == []


def test_evidence_can_be_shown(browser, tmp_path):
    values = [20.0] * 100 + [99.0] * 300
    uri = written(make_timeline({"cpu_utilization_percentage": values}), tmp_path)
    opened(browser, uri, DESKTOP)
    browser.run("document.querySelector('button.show').click()")
    look_at(browser, "#cpu")
    start = browser_time(browser, 0)
    (shown,) = ranges(browser)
    assert [(at - start) / 1000 for at in shown] == pytest.approx([69.0, 399.0], abs=2.0)


def test_what_is_folded_is_drawn_when_it_is_opened(browser, page):
    opened(browser, page, DESKTOP)
    inside = "return document.querySelectorAll('#others .chart svg').length"
    assert browser.run(inside) == 0
    browser.run("document.querySelector('#others').open = true")
    browser.wait_for(inside, "the charts of everything else")
    assert browser.complaints() == []


def test_colors_follow_the_system(browser, page):
    opened(browser, page, DESKTOP)
    background = "return getComputedStyle(document.body).backgroundColor"
    stroke = f"return {CPU_LINE}.style.stroke"
    before = browser.run(background), browser.run(stroke)
    browser.set_screen(DESKTOP, is_dark=True)
    browser.wait_for(f"return (() => {{ {stroke} }})() !== '{before[1]}'", "other lines")
    assert browser.run(background) != before[0]


def test_it_works_where_mlflow_shows_it(browser, page, tmp_path):
    """Its UI puts HTML artifacts into a frame that may run scripts and nothing else."""
    outside = tmp_path / "outside.html"
    frame = f'<iframe sandbox="allow-scripts" width="900" height="700" src="{page}"></iframe>'
    outside.write_text(f"<!DOCTYPE html><title>outside</title>{frame}", encoding="utf-8")
    browser.set_screen(DESKTOP)
    browser.open(outside.as_uri())
    browser.driver.switch_to.frame(0)
    try:
        browser.wait_for(DRAWN, "all charts")
        assert browser.run(f"return {CPU_LINE} !== undefined")
        assert browser.overflow() <= 0
    finally:
        browser.driver.switch_to.default_content()
    assert browser.complaints() == []


def test_on_paper_all_charts_are_there_in_dark_ink(browser, page):
    opened(browser, page, DESKTOP, is_dark=True)
    ink = "return getComputedStyle(document.body).color"
    on_screen = browser.run(ink)
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run(ink) == "rgb(27, 31, 35)" != on_screen
    charts, widest = browser.run(
        "const boxes = [...document.querySelectorAll('.chart')].filter(c => !c.closest('details'))"
        ".map(c => c.querySelector('svg').getBoundingClientRect().width);"
        "return [boxes.length, Math.max(...boxes)]"
    )
    assert charts > 15
    assert widest <= 330
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(ink) == on_screen


def test_a_million_rows_open(browser, tmp_path):
    chance = np.random.default_rng(3)
    tracks = [
        make_track(key, chance.uniform(0, 100, 1_000_000), interval=0.001)
        for key in ("cpu_utilization_percentage", "gpu_0_utilization_percentage")
    ]
    uri = written(make_timeline(tracks, interval=0.001), tmp_path)
    opened(browser, uri, DESKTOP)
    assert browser.run("return document.querySelectorAll('.chart path.js-line').length") >= 2
    assert browser.complaints() == []


def test_a_page_without_metrics_opens(browser, tmp_path):
    opened(browser, written(make_timeline([]), tmp_path), PHONE)
    assert "no system metrics" in browser.run("return document.body.innerText")
    assert browser.complaints() == []


def test_the_policy_keeps_scripts_out_that_are_not_the_pages_own(browser, page):
    opened(browser, page, DESKTOP)
    browser.run(
        "const script = document.createElement('script'); script.textContent = 'window.bad = 1';"
        "document.body.append(script);"
        "const image = document.createElement('img'); image.src = 'http://127.0.0.1:9/x.png';"
        "document.body.append(image);"
    )
    assert browser.run("return window.bad === undefined")
    browser.wait_for("return document.querySelector('img').complete", "the refusal")
    refused = [text for text in browser.complaints() if "Content Security Policy" in text]
    assert len(refused) == 2

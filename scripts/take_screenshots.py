"""`make screenshots`: the pictures of docs/pictures, from real runs on this machine.

A job that works and writes by turns is run under `sysmetrics-native run`, on a tracking server of
its own; what `top`, `report`, `doctor` and MLflow's own page show of it is photographed in a
headless Chromium. Needs scripts/install-chromium and the fonts of Debian's fonts-dejavu-core.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from mlflow.tracking import MlflowClient
from rich.console import Console
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.browser.chromium import DESKTOP, PHONE, Browser
from tests.installed_command import COMMAND
from tests.mlflow.server import Server

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
JOB_SECONDS = 40
COLUMNS, LINES = 100, 34

JOB = f"""
import os, time
end = time.monotonic() + {JOB_SECONDS}
while time.monotonic() < end:
    stretch = time.monotonic() + 2.0
    while time.monotonic() < stretch:  # works …
        sum(range(100_000))
    with open("checkpoint", "wb") as file:  # … and writes
        file.write(os.urandom(60_000_000))
        file.flush()
        os.fsync(file.fileno())
    time.sleep(1.0)
"""


def on_terminal(*arguments: str | Path) -> str:
    """What the command writes to a terminal, colors included."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    command = subprocess.Popen(
        [COMMAND, *arguments], stdout=its, env={**os.environ, "TERM": "xterm-256color"}
    )
    os.close(its)
    written = bytearray()
    with contextlib.suppress(OSError):  # Linux's end of a terminal that nobody has open
        while data := os.read(ours, 65536):
            written.extend(data)
    os.close(ours)
    if command.wait() != 0:
        raise SystemExit(f"{arguments[0]} failed")
    text = written.decode().replace("\r\n", "\n")
    # Where this machine has its Python is nobody's business.
    return text.replace(str(COMMAND), COMMAND.name).replace(sys.executable, "python")


def photograph(
    browser: Browser,
    uri: str,
    name: str,
    size: tuple[int, int] = DESKTOP,
    *,
    charts: int = 0,
    is_whole: bool = True,
) -> None:
    """The page, or what of it is in sight, as a PNG in the folder of pictures."""
    browser.set_screen(size)
    browser.open(uri)
    if charts:
        lines = "document.querySelectorAll('path.js-line').length"
        browser.wait_for(f"return {lines} >= {charts}", f"{charts} charts of {name}")
    time.sleep(2.0)  # and what moves has come to rest
    # MLflow's page forgets its charts when it is made larger for a picture of all of it.
    picture = browser.screenshot() if is_whole else browser.driver.get_screenshot_as_png()
    (PICTURES / name).write_bytes(picture)


def photograph_text(browser: Browser, text: str, name: str, folder: Path) -> None:
    """Text with the colors of a terminal."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text.rstrip()))
    look = "background:#111;color:#ddd;font-size:13px;line-height:1.15;margin:0;padding:12px"
    pre = f'<pre style="font-family:DejaVu Sans Mono,monospace;{look}"><code>{{code}}</code></pre>'
    page = folder / f"{name}.html"
    html = console.export_html(inline_styles=True, code_format=pre)
    # As wide as any other character, which a terminal sees to, and a browser's fonts do not.
    cell = '<span style="display:inline-block;width:1ch;overflow:hidden">'
    html = re.sub("([\u2800-\u28ff▲])", cell + r"\1</span>", html)
    page.write_text(f'<meta charset="utf-8"><body style="margin:0">{html}', encoding="utf-8")
    photograph(browser, page.as_uri(), name, (840, 200))


def take(browser: Browser, server: Server, folder: Path) -> None:
    """Run the job, and photograph what is shown of it."""
    recording = folder / "job.smnrec"
    job = subprocess.Popen(
        [
            *(COMMAND, "run", "-q", "--tracking-uri", server.uri, "--run-name", "training"),
            *("--interval", "0.02", "--samples", "50", "--recorder", recording, "--"),
            *(sys.executable, "-c", JOB),
        ],
        cwd=folder,
    )
    time.sleep(0.8 * JOB_SECONDS)
    photograph_text(browser, on_terminal("top", "--once", recording), "top.png", folder)
    if job.wait() != 0:
        raise SystemExit("the job failed")
    sources = on_terminal("doctor").split("Machine", 1)[0]  # the rest is about this very machine
    photograph_text(browser, sources, "doctor.png", folder)

    page = folder / "report.html"
    (run,) = MlflowClient(server.uri).search_runs(["0"])
    subprocess.run([COMMAND, "report", recording, "-o", page], check=True)
    photograph(browser, page.as_uri(), "report.png", (1100, 900), charts=9)
    photograph(browser, page.as_uri(), "report-phone.png", PHONE, charts=9)
    uri = f"{server.uri}/#/experiments/0/runs/{run.info.run_id}/system-metrics"
    photograph(browser, uri, "mlflow.png", (1280, 1100), charts=6, is_whole=False)


def main() -> None:
    """Take all of them."""
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in paths:
        raise SystemExit("needs Chromium and its driver: scripts/install-chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder, folder / "mlflow.db")
        browser = Browser(str(paths[0]), str(paths[1]))
        try:
            server.wait_until_it_answers()
            take(browser, server, folder)
        finally:
            browser.close()
            server.close()


if __name__ == "__main__":
    main()

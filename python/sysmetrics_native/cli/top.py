"""`sysmetrics-native top`: a live view of this machine, or of a job through its recording."""

from __future__ import annotations

import shutil
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import click
from rich.console import Console

from sysmetrics_native import settings

if TYPE_CHECKING:
    from sysmetrics_native.top.feeds import Feed


@click.command(
    "top",
    epilog="""\b
    Keys: p pause, + and - zoom, left and right scroll, s source, up and down
    more charts, ? help, q quit.

    \b
    Examples:
      sysmetrics-native top
      sysmetrics-native top --pid 4711
      sysmetrics-native top --run-id 4f1d0c3a5b6e4c0f9b1a7d2e8c6f5a90
      sysmetrics-native top --once job.smnrec | less

    Exit status: 0 when somebody has seen enough, 1 if nothing can be shown, 2 for wrong usage.""",
)
@click.argument("path", required=False, type=click.Path())
@click.option("--run-id", metavar="ID", help="A run whose job records on this machine.")
@click.option("--pid", type=click.IntRange(min=1), help="A process of this machine, and its tree.")
@click.option(
    "--interval",
    type=click.FloatRange(0.05, 60.0),
    help="Seconds between two samples of this machine; 0.1 unless given.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(10.0, 86400.0),
    help="How much time is seen at first; 60 unless given, 10 of this machine with --once.",
)
@click.option("--once", is_flag=True, help="Print one frame as plain text and end.")
def command(
    path: str | None,
    run_id: str | None,
    pid: int | None,
    interval: float | None,
    seconds: float | None,
    once: bool,
) -> None:
    """Watch this machine, or a job, live.

    Without an argument this machine is sampled. With PATH (a recording, or a folder in which one is
    being written) or --run-id a job is watched through its flight recorder, at the rate at which it
    samples, and without touching it: start it with SYSMETRICS_NATIVE_RECORDER=on. Of a recording
    that has ended, or whose process was killed, the end is shown.

    Where the output is no terminal, one frame is printed, as with --once. NO_COLOR is respected.
    """
    if sum(one is not None for one in (path, run_id, pid)) > 1:
        raise click.UsageError("give one of PATH, --run-id and --pid")
    if interval is not None and (path or run_id):
        raise click.UsageError("--interval is of this machine; a recording has its own")
    try:
        from sysmetrics_native.top import app, terminal
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise click.ClickException(
            "top needs NumPy: pip install 'sysmetrics-native[top]'"
        ) from None
    console = Console(highlight=False, markup=False)
    is_live = not once and sys.stdout.isatty()
    if is_live and (reason := terminal.why_not(console)):
        raise click.ClickException(f"{reason}: use --once")
    with closing(_feed(path, run_id, pid, interval)) as feed:
        if is_live:
            app.run(feed, seconds or 60.0, console)
            return
        seconds = seconds or (10.0 if feed.is_of_machine or pid else 60.0)
        size = shutil.get_terminal_size()
        with terminal.quiet_writes():
            for line in app.once(feed, seconds, size.columns, size.lines, sys.stdout.encoding):
                click.echo(line)


def _feed(path: str | None, run_id: str | None, pid: int | None, interval: float | None) -> Feed:
    import psutil

    from sysmetrics_native.recording import RecordingError
    from sysmetrics_native.top import feeds

    try:
        if run_id is not None:
            path = feeds.find_run(run_id, settings.option("spool_dir"))
        if path is not None:
            return feeds.RecordingFeed(feeds.find_recording(path))
        if pid is not None and not psutil.pid_exists(pid):
            raise click.UsageError(f"there is no process {pid}")
        return feeds.SamplerFeed(interval or 0.1, pid or 0)
    except RecordingError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None

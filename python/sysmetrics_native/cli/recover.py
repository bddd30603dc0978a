"""`sysmetrics-native recover`: sends what runs could not log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from sysmetrics_native import recovery, settings
from sysmetrics_native.leftovers import Leftover, Unreadable, find_leftovers
from sysmetrics_native.redaction import error_text

Show = Callable[[Leftover], recovery.Report]
"""Opens the progress bar of a file."""

_WIDE_ENOUGH = 1000


class _Row(NamedTuple):
    """What became of one file."""

    path: str
    run_id: str
    plan: recovery.Plan | None
    ending: str
    result: str
    is_failure: bool


@click.command(
    "recover",
    epilog="""\b
    Examples:
      sysmetrics-native recover --dry-run
      sysmetrics-native recover --run-id 4f1d0c3a5b6e4c0f9b1a7d2e8c6f5a90
      sysmetrics-native recover /scratch/job.smnrec --tracking-uri http://other:5000

    Exit status: 0 if nothing is left to be sent, 1 if something is, 2 for wrong usage.""",
)
@click.argument("path", required=False, type=click.Path())
@click.option("--run-id", "run_ids", multiple=True, metavar="ID", help="Only this run; repeatable.")
@click.option(
    "--tracking-uri",
    metavar="URI",
    help="The tracking server, if it is no longer the one that the run was logged to.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--discard", is_flag=True, help="Forget what is left of a run instead of sending it.")
def command(
    path: str | None,
    run_ids: tuple[str, ...],
    tracking_uri: str | None,
    dry_run: bool,
    discard: bool,
) -> None:
    """Send what runs could not log.

    Looks for windows that waited for a tracking server when their process ended, and for recordings
    of processes that were killed. Asks the server what it has, sends what is missing, in order and
    once. It can be repeated without harm.

    PATH is a spool, a recording, or a folder with some. Without it, all that is in the folder of
    the option spool_dir (SYSMETRICS_NATIVE_SPOOL_DIR). Passwords and tokens are in no file: set
    them as for MLflow itself (MLFLOW_TRACKING_USERNAME and so on).
    """
    if discard and (dry_run or not (path or run_ids)):
        raise click.UsageError("--discard needs a PATH or a --run-id, and goes with no --dry-run")
    deal_with = _plan if dry_run else _discard if discard else _send
    try:
        leftovers = find_leftovers(path, settings.option("spool_dir"))
        with _progress() as show:
            rows = list(_each(leftovers, run_ids, lambda one: deal_with(one, tracking_uri, show)))
    except (FileNotFoundError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    if not rows:
        click.echo("There is nothing to recover.")
        return
    _print(rows)
    if any(row.is_failure for row in rows):
        sys.exit(1)


# ---- one file -----------------------------------------------------------------------------------


def _each(
    leftovers: Iterable[Leftover | Unreadable],
    run_ids: tuple[str, ...],
    deal_with: Callable[[Leftover], _Row],
) -> Iterator[_Row]:
    for leftover in leftovers:
        if isinstance(leftover, Unreadable):
            yield _Row(leftover.path, "?", None, "", f"refused: {leftover.reason}", is_failure=True)
            continue
        try:
            if run_ids and leftover.run_id not in run_ids:
                continue
            if leftover.is_in_use:
                yield _row(leftover, None, "left alone: somebody is at work on it")
            else:
                yield deal_with(leftover)
        except Exception as error:  # noqa: BLE001  # the other files must have their turn
            yield _row(leftover, None, f"not sent: {error_text(error)}", is_failure=True)
        finally:
            leftover.close()


def _send(leftover: Leftover, tracking_uri: str | None, show: Show) -> _Row:
    plan = recovery.recover(leftover, tracking_uri, show(leftover))
    return _row(leftover, plan, "sent" if plan.windows else "was there already")


def _plan(leftover: Leftover, tracking_uri: str | None, _: Show) -> _Row:
    plan = recovery.make_plan(leftover, recovery.connect_for(leftover, tracking_uri))
    return _row(leftover, plan, "to be sent" if plan.windows else "is there already")


def _discard(leftover: Leftover, _: str | None, __: Show) -> _Row:
    leftover.mark_done()
    return _row(leftover, None, "discarded")


def _row(
    leftover: Leftover, plan: recovery.Plan | None, result: str, *, is_failure: bool = False
) -> _Row:
    notes = [result, leftover.damage]
    if plan is not None and plan.gap_seconds:
        notes.append(f"{plan.gap_seconds:.1f} s before it are in no file")
    text = "; ".join(note for note in notes if note)
    return _Row(leftover.path, leftover.run_id, plan, leftover.ending, text, is_failure)


# ---- what is shown ------------------------------------------------------------------------------


@contextmanager
def _progress() -> Iterator[Show]:
    """A bar for each file while it is sent: on the error output, and only on a terminal."""
    console = Console(stderr=True, markup=False)
    progress = Progress(console=console, transient=True, disable=not sys.stderr.isatty())

    def show(leftover: Leftover) -> recovery.Report:
        task = progress.add_task(leftover.run_id, total=None)
        return lambda sent, total: progress.update(task, completed=sent, total=total)

    with progress:
        yield show


def _print(rows: list[_Row]) -> None:
    if sys.stdout.isatty():
        Console(markup=False, highlight=False).print(_table_for_people(rows))
    else:
        Console(width=_WIDE_ENOUGH, markup=False, highlight=False).print(_columns(rows))


def _table_for_people(rows: list[_Row]) -> Table:
    """What fits on a terminal of 80 columns: the details of a run stand below one another."""
    table = Table(show_lines=True)
    table.add_column("run", no_wrap=True)
    table.add_column("windows", justify="right", no_wrap=True)
    table.add_column("what became of it", overflow="fold")
    for row in rows:
        count, first, last = _span(row.plan)
        details = (f"{first} to {last}" if first else "", row.ending, row.result, row.path)
        table.add_row(row.run_id, count, "\n".join(filter(None, details)))
    return table


def _columns(rows: list[_Row]) -> Table:
    """One line a file, without lines and folds: for programs, and for logs."""
    headings = ("run", "windows", "from", "to", "how it ended", "result", "file")
    table = Table(*headings, box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.run_id, *_span(row.plan), row.ending, row.result, row.path)
    return table


def _span(plan: recovery.Plan | None) -> tuple[str, str, str]:
    """How many windows, from when, to when."""
    if plan is None:
        return "?", "", ""
    if plan.windows == 0:
        return "0", "", ""
    return str(plan.windows), _time(plan.first_ms), _time(plan.last_ms)


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000).astimezone().isoformat(" ", "seconds")

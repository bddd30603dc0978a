"""`sysmetrics-native export`: a run or a recording as a file for other programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import click

if TYPE_CHECKING:
    from sysmetrics_native.perfetto import Companion

_FORMATS = ("parquet", "csv", "json", "perfetto")
_MODULES = {"numpy": "NumPy", "pyarrow": "PyArrow"}


@click.command(
    "export",
    epilog="""\b
    Formats:
      csv       a header with the keys, which end in their units; then a row
                for each moment. Times are ISO 8601, UTC.
      json      one document: "series" (name, unit, kind, source), "columns",
                and "rows", one in a line. Times are Unix seconds.
      parquet   a column for each series, with its unit in the field's
                metadata. Times are nanoseconds, UTC.
      perfetto  counters for ui.perfetto.dev and chrome://tracing, on the clock
                of PyTorch's profiler; --with-trace puts both into one file.

    \b
    A value stands at the end of the stretch of time that it describes; where
    there is none the field is empty (null). Of a recording there is a row for
    each tick; of a run one for each node and timestamp, and what was logged
    beside the mean has columns such as cpu_utilization_percentage_max.

    \b
    Examples:
      sysmetrics-native export 4f1d0c3a5b6e4c0f9b1a7d2e8c6f5a90 -o run.parquet
      sysmetrics-native export job.smnrec --format csv | head
      sysmetrics-native export job.smnrec --format perfetto -o metrics.json
      sysmetrics-native export job.smnrec --format perfetto \\
          --with-trace torch.pt.trace.json.gz -o both.json

    \b
    Needs NumPy, and parquet needs PyArrow, too:
      pip install 'sysmetrics-native[export]'

    Exit status: 0 if it was written, 1 if it could not be, 2 for wrong usage.""",
)
@click.argument("what", metavar="RUN_ID|PATH", type=click.Path())
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    help="Needed unless FILE ends in .parquet, .csv or .json.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default="-",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Where to; the standard output unless given.",
)
@click.option(
    "--tracking-uri",
    metavar="URI",
    help="The tracking server of the run, if it is not MLflow's usual one.",
)
@click.option(
    "--with-trace",
    metavar="TRACE",
    type=click.Path(exists=True, dir_okay=False),
    help="With perfetto: a trace of PyTorch's profiler whose events are to be in the file, too.",
)
def command(
    what: str, form: str | None, output: str, tracking_uri: str | None, with_trace: str | None
) -> None:
    """Write a run or a recording as a file for other programs.

    PATH is a recording of the flight recorder, which may be one that is being written, or a folder
    with exactly one. Anything else is the id of a run, whose metrics are asked from the tracking
    server; runs that were logged with MLflow's own monitor will do.
    """
    form = form or _form_of(output)
    if with_trace is not None and form != "perfetto":
        raise click.UsageError("--with-trace goes with --format perfetto only")
    if form == "parquet" and output == "-" and sys.stdout.isatty():
        raise click.UsageError("parquet is nothing to read on a terminal: name a file with -o")
    try:
        values, unit = _export(what, form, output, tracking_uri, with_trace)
    except ModuleNotFoundError as error:
        raise click.ClickException(_what_to_install(error)) from None
    except (FileNotFoundError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise  # click ends quietly: whoever reads has had enough
        name = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{name}{error.strerror or error}") from None
    if output != "-":
        click.echo(f"{output}: {values} {unit}", err=True)


def _form_of(output: str) -> str:
    form = os.path.splitext(output)[1].removeprefix(".").lower()
    if form not in ("parquet", "csv", "json"):
        raise click.UsageError(f"say which one: --format {'|'.join(_FORMATS)}")
    return form


def _what_to_install(error: ModuleNotFoundError) -> str:
    module = (error.name or "").partition(".")[0]
    if module not in _MODULES:
        return str(error)
    return (
        f"this needs {_MODULES[module]}, which is not installed: "
        "pip install 'sysmetrics-native[export]'"
    )


def _export(
    what: str, form: str, output: str, tracking_uri: str | None, with_trace: str | None
) -> tuple[int, str]:
    """Write the file; how many of what are in it."""
    if form == "parquet":
        import pyarrow.parquet  # noqa: F401  # before a file is begun
    from sysmetrics_native import export_formats, export_table, perfetto, timeline
    from sysmetrics_native.recording import Recording

    companion: Companion | None = None if with_trace is None else perfetto.Companion(with_trace)
    path = timeline.find_recording(what)
    if path is None:
        run = timeline.open_timeline(what, tracking_uri, percentiles=True)
        if not run.tracks:
            raise click.ClickException(f"the run {what} has no system metrics")
        with _open(output) as file:
            if form == "perfetto":
                return perfetto.write_trace(run, file, companion), "values"
            return export_formats.WRITERS[form](export_table.table_of_run(run), file), "rows"
    with Recording(path) as recording:
        if next(recording.row_chunks(), None) is None:
            raise click.ClickException(f"{path} has no rows")
        with _open(output) as file:
            if form == "perfetto":
                return perfetto.write_trace(recording, file, companion), "values"
            table = export_table.table_of_recording(recording)
            return export_formats.WRITERS[form](table, file), "rows"


@contextmanager
def _open(output: str) -> Iterator[BinaryIO]:
    """The file to write to; it takes its place when it is whole, and not at all if it fails."""
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if os.path.exists(output) and not os.path.isfile(output):  # a pipe, /dev/null
        with _begin(output) as file:
            yield file
        return
    unfinished = f"{output}.unfinished"
    with _begin(unfinished) as file:
        try:
            yield file
        except BaseException:
            file.close()
            os.unlink(unfinished)
            raise
    os.replace(unfinished, output)


def _begin(path: str) -> BinaryIO:
    try:
        return open(path, "wb")
    except OSError as error:
        raise click.FileError(path, error.strerror) from None

"""`sysmetrics-native report`: a run or a recording as one page."""

from __future__ import annotations

import importlib.util
import os
import re
import tempfile

import click

from sysmetrics_native.redaction import error_text

_NEEDED = ("plotly", "numpy")
_EXTRA = "pip install 'sysmetrics-native[report]'"
_NOT_IN_FILE_NAME = re.compile(r"[^\w.-]+")
_ARTIFACT_FOLDER, _ARTIFACT_NAME = "system_metrics", "report.html"


@click.command(
    "report",
    epilog="""\b
    Examples:
      sysmetrics-native report 4f1d0c3a5b6e4c0f9b1a7d2e8c6f5a90
      sysmetrics-native report job.smnrec -o job.html
      sysmetrics-native report 4f1d0c3a5b6e4c0f9b1a7d2e8c6f5a90 --log-artifact \\
          --tracking-uri http://other:5000

    Exit status: 0 if the page was written, 1 if it could not be, 2 for wrong usage.""",
)
@click.argument("what", metavar="RUN_ID|PATH", type=click.Path())
@click.option(
    "-o",
    "--output",
    metavar="FILE.html",
    type=click.Path(dir_okay=False),
    help="Where it goes; - is the standard output. In the current folder unless given, named "
    "report-<run or file>.html.",
)
@click.option(
    "--log-artifact",
    is_flag=True,
    help=f"Put it on the run, too, as {_ARTIFACT_FOLDER}/{_ARTIFACT_NAME}: MLflow shows it there.",
)
@click.option(
    "--tracking-uri", metavar="URI", help="The tracking server, if it is not MLflow's own choice."
)
def command(what: str, output: str | None, log_artifact: bool, tracking_uri: str | None) -> None:
    """Make a page of a run or a recording.

    One HTML file that opens anywhere, offline too, and asks nobody for anything: what the run was,
    what limited it, with the evidence, and charts that can be zoomed together.

    RUN_ID is a run on the tracking server; PATH is a recording (also one that is being written), or
    a folder with exactly one. The path of the page is printed.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        verb = "is" if len(missing) == 1 else "are"
        raise click.ClickException(f"report needs {names}, which {verb} not installed: {_EXTRA}")
    from sysmetrics_native.report.page import make_page
    from sysmetrics_native.timeline import open_timeline

    try:
        run = _run_of(what, tracking_uri) if log_artifact else None
        timeline = open_timeline(what, tracking_uri)
    except (FileNotFoundError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    except (ModuleNotFoundError, OSError) as error:
        raise click.ClickException(error_text(error)) from None
    page = make_page(timeline)
    name = what if timeline.origin == "run" else timeline.title
    path = output or f"report-{_file_name(name)}.html"
    _write(path, page)
    if run is not None:
        _log(page, *run)


def _file_name(name: str) -> str:
    name = _NOT_IN_FILE_NAME.sub("-", name.removesuffix(".smnrec")).strip("-.")
    return name or "run"


def _write(path: str, page: str) -> None:
    # A page is there whole or not at all; but what is no file (/dev/stdout) must stay what it is.
    is_replaced = path != "-" and (os.path.isfile(path) or not os.path.exists(path))
    try:
        with click.open_file(path, "w", encoding="utf-8", atomic=is_replaced) as file:
            file.write(page)
    except OSError as error:
        raise click.ClickException(f"the page could not be written: {error_text(error)}") from None
    if path != "-":
        click.echo(path)


# ---- the run that it goes on --------------------------------------------------------------------


def _run_of(what: str, tracking_uri: str | None) -> tuple[str, str | None]:
    """The run's id, and where it is.

    Raises:
        FileNotFoundError, ValueError: as `open_timeline`; or the recording belongs to no run.
    """
    from sysmetrics_native.recording import Recording
    from sysmetrics_native.timeline import find_recording

    path = find_recording(what)
    if path is None:
        return what, tracking_uri
    with Recording(path) as recording:
        if recording.run is None:
            raise ValueError(f"{path} belongs to no run: leave out --log-artifact")
        return recording.run.run_id, tracking_uri or recording.run.tracking_uri


def _log(page: str, run_id: str, tracking_uri: str | None) -> None:
    try:
        from mlflow.tracking import MlflowClient

        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, _ARTIFACT_NAME)
            with open(path, "w", encoding="utf-8") as file:
                file.write(page)
            MlflowClient(tracking_uri).log_artifact(run_id, path, _ARTIFACT_FOLDER)
    except ModuleNotFoundError:
        raise click.ClickException(
            "--log-artifact needs MLflow: pip install 'mlflow>=2.9'"
        ) from None
    except Exception as error:  # noqa: BLE001  # whatever MLflow and its stores raise
        raise click.ClickException(f"the page is not on the run: {error_text(error)}") from None

"""`sysmetrics-native run`: monitors any command from outside."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import TypeVar

import click
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.table import Table

from sysmetrics_native import catalog, monitored_run, settings
from sysmetrics_native.backends import choose_backend
from sysmetrics_native.command import Command, Ended, NotStartedError, make_command
from sysmetrics_native.delivery import resolve_uri
from sysmetrics_native.describe import known_sources
from sysmetrics_native.opening import Opening, Wanted, run_to_join
from sysmetrics_native.outcome import command_tags
from sysmetrics_native.outside import (
    SOURCES_OF_COMMAND,
    Result,
    Sampling,
    choose_sources,
    run_outside,
)
from sysmetrics_native.redaction import command_line, error_text
from sysmetrics_native.tracking import load_modules

_INTERVAL_SECONDS = 1.0
_WINDOW_SECONDS = 10.0

_logger = logging.getLogger("sysmetrics_native")

T = TypeVar("T")


def _checked(
    parse: Callable[[str, object], T],
) -> Callable[[click.Context, click.Parameter, str | None], T | None]:
    """A callback that checks an option's value as `settings` does."""

    def check(_: click.Context, parameter: click.Parameter, value: str | None) -> T | None:
        try:
            return None if value is None else parse(parameter.opts[0], value)
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    return check


def _complete_sources(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Names of sources, behind the last comma."""
    before, comma, begun = incomplete.rpartition(",")
    drop = "-" if begun.startswith("-") else ""
    names = ("default", "all", *known_sources(choose_backend("auto").name))
    return [
        f"{before}{comma}{drop}{name}" for name in names if name.startswith(begun.removeprefix("-"))
    ]


def _complete_command(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Commands as the shell finds them; then, and with a folder, files."""
    files = CompletionItem(incomplete, type="file")
    if context.params.get("command") or os.sep in incomplete:
        return [files]
    names: set[str] = set()
    for folder in os.get_exec_path():
        with contextlib.suppress(OSError):
            names.update(name for name in os.listdir(folder) if name.startswith(incomplete))
    return [*map(CompletionItem, sorted(names)), files]


@click.command(
    "run",
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
    Examples:
      sysmetrics-native run -- python train.py --epochs 3
      sysmetrics-native run --experiment nightly --run-name big -- ./job.sh
      sysmetrics-native run --no-log --interval 0.1 -- make -j8

    Exit status: that of the command; if a signal killed it, the same signal kills this process.
    126 if the command cannot be executed, 127 if there is none, 2 for wrong usage.""",
)
@click.option(
    "--experiment",
    metavar="NAME",
    help="Experiment of the new run, made if there is none. A command that calls "
    "mlflow.set_experiment() must name the same one.",
)
@click.option("--run-name", metavar="NAME", help="Name of the new run.")
@click.option("--tracking-uri", metavar="URI", help="The tracking server; else as for MLflow.")
@click.option(
    "--interval",
    metavar="SECONDS",
    callback=_checked(settings.parse_interval),
    help="Seconds between two samples, 0.001 to 3600; 1, or what MLflow's variable says.",
)
@click.option(
    "--samples",
    metavar="N",
    callback=_checked(settings.parse_samples),
    help="Samples of one logged window; as many as 10 seconds have, or what MLflow's variable "
    "says.",
)
@click.option(
    "--sources",
    metavar="LIST",
    shell_complete=_complete_sources,
    help="What is sampled, with commas; unless given, what the option sources says, and process, "
    "container, energy and gpu_detail.",
)
@click.option(
    "--recorder",
    metavar="on|off|PATH",
    type=click.Path(),
    help="Whether every sample is recorded to a file, or which; on unless the option recorder is "
    "set.",
)
@click.option("--no-log", is_flag=True, help="Sample, record and sum up, without MLflow.")
@click.option(
    "--no-join",
    is_flag=True,
    help="Do not tell the command of the run: what it logs itself goes to runs of its own.",
)
@click.option("--no-command", is_flag=True, help="Do not log the command line.")
@click.option("-q", "--quiet", is_flag=True, help="No table at the end.")
@click.argument(
    "command",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="-- COMMAND...",
    shell_complete=_complete_command,
)
def command(
    command: tuple[str, ...],
    experiment: str | None,
    run_name: str | None,
    tracking_uri: str | None,
    interval: float | None,
    samples: int | None,
    sources: str | None,
    recorder: str | None,
    *,
    no_log: bool,
    no_join: bool,
    no_command: bool,
    quiet: bool,
) -> None:
    """Run a command and monitor it, without a change to it.

    The command and all its descendants are sampled from this process, so whatever kills the
    command does not end the monitoring. A run is opened, or the one of MLFLOW_RUN_ID joined; the
    command's own mlflow.start_run() logs into the same run, and its own system metrics of that run
    give way to these. Terminal, signals and exit status are passed through.

    The run gets the command line (what looks like a secret replaced by ***), how it ended, its
    time, memory and energy. A tracking server that does not answer keeps the command waiting for 10
    seconds at most, and its end for shutdown_timeout.
    """
    if no_log and (experiment or run_name or tracking_uri):
        raise click.UsageError("--no-log goes with no --experiment, --run-name and --tracking-uri")
    if run_to_join() and not no_log and (experiment or run_name):
        raise click.UsageError(
            "MLFLOW_RUN_ID is set, so that run is joined: unset it, or leave out --experiment and "
            "--run-name, which are for a new one"
        )
    # Signals first: threads that are made later inherit what is blocked.
    child = make_command()
    environment = dict(os.environ)
    _keep_quiet()
    sampling = _configure(interval, samples, sources, recorder)
    line = "" if no_command else command_line(command)
    opening = None
    if not no_log:
        opening = _opening(experiment, run_name, tracking_uri, command[0], line)
    try:
        result = run_outside(
            child,
            command,
            environment,
            command_line=line,
            opening=opening,
            sampling=sampling,
            joins=not no_join,
        )
    except NotStartedError as error:
        click.echo(f"sysmetrics-native: {error}", err=True)
        child.leave(Ended(error.status, None, 0.0, None, None))
    _leave(child, result, quiet=quiet)


def _leave(child: Command, result: Result | None, *, quiet: bool) -> None:
    if result is None:
        child.leave(Ended(None, child.fatal_signal(), 0.0, None, None))
    if not quiet:
        # The terminal may be gone, or a pipe closed: the status is what matters.
        with contextlib.suppress(OSError, ValueError):
            _print(result)
    child.leave(result.ended)


# ---- what comes before --------------------------------------------------------------------------


def _keep_quiet() -> None:
    """Leave the standard output to the command, and say on the error output only what matters."""
    sys.stdout = sys.stderr
    warnings.simplefilter("ignore")
    # One attempt and no more: it is tried again here, on a thread.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("sysmetrics-native: %(message)s"))
    _logger.addHandler(handler)
    _logger.propagate = False


def _configure(
    interval: float | None, samples: int | None, sources: str | None, recorder: str | None
) -> Sampling:
    """Set options as the command line says, where it does; then as the environment does."""
    # MLflow's variables beat arguments, and these are to beat both.
    if interval is not None:
        settings.set_system_metrics_sampling_interval(interval)
    if samples is not None:
        settings.set_system_metrics_samples_before_logging(samples)
    try:
        settings.configure(sources=sources, recorder=recorder)
        if sources is not None:
            choose_sources()
    except ValueError as error:
        raise click.UsageError(f"--{error}") from None
    if not settings.is_set("recorder"):
        settings.configure(recorder=True)
    with contextlib.suppress(ValueError):  # a variable is to blame: whoever samples says so
        interval = settings.mlflow_interval(_INTERVAL_SECONDS)
        if sources is None:
            settings.configure(sources=choose_sources(*SOURCES_OF_COMMAND))
    return Sampling(_INTERVAL_SECONDS, _samples_of_window(interval or _INTERVAL_SECONDS))


def _samples_of_window(interval: float) -> int:
    return max(1, min(settings.MAX_SAMPLES_PER_WINDOW, round(_WINDOW_SECONDS / interval)))


def _opening(
    experiment: str | None, run_name: str | None, tracking_uri: str | None, name: str, line: str
) -> Opening | None:
    """What opens the run; `None`, after a word about it, where there is to be none."""
    run_id = run_to_join()
    if run_id and monitored_run.is_monitored_outside(run_id):
        _logger.warning("Run %s is monitored already, so nothing is logged to it.", run_id)
        return None
    try:
        # Not on a thread: what is imported there at the end of the interpreter may hang it.
        uri = resolve_uri(tracking_uri)
        load_modules()
        prefix = catalog.metric_prefix(settings.mlflow_node_id(None))
    except Exception as error:  # noqa: BLE001  # MLflow's: the command runs all the same
        _logger.warning("The command runs without a run: %s", error_text(error))
        return None
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    tags = {"mlflow.source.name": name} if line else {}
    tags |= command_tags(line, prefix)
    return Opening(Wanted(run_id, uri, experiment, run_name, tags))


# ---- what comes after ---------------------------------------------------------------------------


def _print(result: Result) -> None:
    rows = result.outcome.rows()
    if result.run is not None:
        rows.append(("run", result.run.describe()))
    if result.recording_path is not None:
        rows.append(("recording", result.recording_path))
    if not sys.stderr.isatty():
        for heading, text in rows:
            click.echo(f"sysmetrics-native: {heading:<12} {text}", err=True)
        return
    table = Table(show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(stderr=True, markup=False, highlight=False).print(table)

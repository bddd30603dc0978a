"""The command itself: what every verb has in common. A verb is loaded when it is asked for."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from sysmetrics_native import settings
from sysmetrics_native.redaction import error_text

_VERBS = {
    "run": "Run a command and monitor it, without a change to it",
    "report": "Make a page of a run or a recording: what limited it, and charts",
    "export": "Write a run or a recording as Parquet, CSV, JSON or a Perfetto trace",
    "top": "Watch this machine, or a job, live",
    "recover": "Send what runs could not log, from spools and recordings",
    "doctor": "Say what is here and what is not, and whether sampling works",
    "completion": "Print what makes a shell complete this command",
}

_FAILED = 1
_INTERRUPTED = 130
"""What shells say of a program that Ctrl-C has ended."""


class _Verbs(click.Group):
    """The verbs by name, so that none costs the time to load another.

    Whatever ends a verb ends it in the same way: an error is one line on the error output, Ctrl-C
    and a reader that goes away are none.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _VERBS:
            return None
        module = importlib.import_module(f"sysmetrics_native.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The verbs, without loading them, and the options."""
        verbs = [
            CompletionItem(name, help=text)
            for name, text in _VERBS.items()
            if name.startswith(incomplete)
        ]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _VERBS and not name.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, _VERBS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_VERBS)}."
            raise click.UsageError(f"No such command {name!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a verb to the end of the process.

        Its status is what the verb returns, where that is a number, or says with `sys.exit`.
        """
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        _let_everything_be_shown()
        status: int | str | None
        try:
            returned = super().main(args, prog_name, complete_var, False, **extra)
            status = returned if isinstance(returned, int) else 0
        except SystemExit as end:
            status = end.code
        except click.Abort as end:
            is_interrupt = isinstance(end.__context__, KeyboardInterrupt)
            status = _INTERRUPTED if is_interrupt else _fail("Aborted.", _FAILED)
        except click.ClickException as error:
            status = _fail(_explained(error), error.exit_code)
        except Exception as error:
            if os.environ.get(settings.DEBUG, "0") not in ("", "0"):
                raise
            status = _fail(
                f"unexpected {type(error).__name__}: {error_text(error)} "
                f"(with {settings.DEBUG}=1 it is shown where it came from)",
                _FAILED,
            )
        _flush()
        sys.exit(status)


def _let_everything_be_shown() -> None:
    """What a terminal's encoding lacks is shown as a question mark rather than not at all."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _explained(error: click.ClickException) -> str:
    """In one line, with what to do."""
    text = " ".join(error.format_message().split())
    if not isinstance(error, click.UsageError):
        return text
    command = "sysmetrics-native" if error.ctx is None else error.ctx.command_path
    return f"{text} (for help: {command} --help)"


def _fail(text: str, status: int) -> int:
    click.echo(f"Error: {text}", err=True)
    return status


def _flush() -> None:
    """See that all is written, or that nothing complains later of a reader that has gone away."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@click.group(
    cls=_Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
    Examples:
      sysmetrics-native doctor
      sysmetrics-native recover --dry-run
      sysmetrics-native COMMAND --help

    Exit status: 2 for wrong usage, 130 after Ctrl-C; each command has its own besides. Errors are
    one line on the error output. NO_COLOR=1 leaves colors out, SYSMETRICS_NATIVE_DEBUG=1 shows
    where an unexpected error came from.""",
)
@click.version_option(
    importlib.metadata.version("sysmetrics-native"), package_name="sysmetrics-native"
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """System metrics for MLflow, sampled by a native thread."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())

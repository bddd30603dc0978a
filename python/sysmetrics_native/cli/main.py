"""The command itself; a verb is loaded when it is asked for."""

from __future__ import annotations

import importlib
import importlib.metadata

import click

_VERBS = {
    "run": "Run a command and monitor it, without a change to it",
    "export": "Write a run or a recording as Parquet, CSV, JSON or a Perfetto trace",
    "top": "Watch this machine, or a job, live",
    "recover": "Send what runs could not log, from spools and recordings",
    "report": "Make a page of a run or a recording: what limited it, and charts",
}


class _Verbs(click.Group):
    """The verbs by name, so that none costs the time to load another."""

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


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    importlib.metadata.version("sysmetrics-native"), package_name="sysmetrics-native"
)
def main() -> None:
    """System metrics for MLflow, sampled by a native thread."""

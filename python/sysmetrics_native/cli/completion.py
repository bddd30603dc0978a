"""`sysmetrics-native completion`: what makes a shell complete the command."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "sysmetrics-native"
VARIABLE = "_SYSMETRICS_NATIVE_COMPLETE"
"""How the shell asks for completions: click derives it from the name of the program."""


@click.command(
    "completion",
    epilog="""\b
    Examples:
      eval "$(sysmetrics-native completion bash)"      # in ~/.bashrc
      eval "$(sysmetrics-native completion zsh)"       # in ~/.zshrc, behind compinit
      sysmetrics-native completion fish > ~/.config/fish/completions/sysmetrics-native.fish

    Exit status: 0; 2 for wrong usage.""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands, options and files.

    SHELL is bash (4.4 or newer), zsh or fish.
    """
    completion = get_completion_class(shell)
    assert completion is not None  # click has these three built in
    click.echo(completion(ctx.find_root().command, {}, PROGRAM, VARIABLE).source())

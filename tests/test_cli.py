"""What every verb of the command has in common: how it ends, how it fails, what it shows where."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from sysmetrics_native.cli import main as command
from sysmetrics_native.cli.main import _VERBS
from tests.support import PATIENCE_SECONDS

COMMAND = Path(sys.executable).with_name("sysmetrics-native")

needs_terminal = pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")

COLOR = re.compile(r"\x1b\[[0-9;]*3[0-7]m|\x1b\[[0-9;]*9[0-7]m")


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command, with pipes."""
    return subprocess.run(
        [str(COMMAND), *arguments],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
        env={**os.environ, **variables},
        check=False,
    )


def run_on_terminal(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run the installed command on a terminal of 80 columns; its status and what is seen."""
    import fcntl
    import struct
    import termios

    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [str(COMMAND), *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**environment, "TERM": "xterm-256color", **variables},
    )
    os.close(slave)
    seen = b""
    try:
        while chunk := os.read(master, 65536):
            seen += chunk
    except OSError:  # nobody has the other end any longer
        pass
    finally:
        os.close(master)
    return process.wait(PATIENCE_SECONDS), seen.decode()


# ---- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_the_verbs_with_examples(arguments):
    result = run(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    for verb, text in _VERBS.items():
        assert re.search(rf"^  {verb} +{text[:20]}", result.stdout, re.MULTILINE)
    assert "Examples:\n" in result.stdout
    assert "Exit status:" in result.stdout


@pytest.mark.parametrize("verb", _VERBS)
def test_every_verb_has_examples_and_says_its_statuses(verb):
    result = CliRunner().invoke(command, [verb, "--help"], prog_name="sysmetrics-native")
    assert result.exit_code == 0
    assert f"Usage: sysmetrics-native {verb}" in result.output
    assert "Examples:\n" in result.output
    assert "Exit status:" in result.output
    assert f"sysmetrics-native {verb}" in result.output.partition("Examples:")[2]


@pytest.mark.parametrize("verb", _VERBS)
def test_every_verb_has_its_section_in_the_documentation(verb):
    page = Path(__file__).parent.parent / "docs" / "cli.md"
    section = page.read_text(encoding="utf-8").partition(f"\n## `{verb}`\n")[2]
    assert f"sysmetrics-native {verb}" in section.partition("\n## ")[0]


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("docter",), "did you mean doctor?"),
        (("nonsense",), "there are run, report"),
        (("--nonsense",), "--nonsense"),
        (("doctor", "--nonsense"), "(for help: sysmetrics-native doctor --help)"),
        (("doctor", "one", "two"), "(for help: sysmetrics-native doctor --help)"),
        (("recover", "--discard"), "--discard needs a PATH or a --run-id"),
        (("completion", "tcsh"), "fish"),
    ],
)
def test_wrong_usage_is_one_line_on_the_error_output(arguments, said):
    result = run(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.fullmatch(r"Error: .+ \(for help: sysmetrics-native.* --help\)\n", result.stderr)
    assert said in result.stderr


def invoke(monkeypatch: pytest.MonkeyPatch, failure: BaseException) -> Result:
    """Run a verb that ends with this."""

    @click.command("verb")
    def verb() -> None:
        raise failure

    monkeypatch.setattr(type(command), "get_command", lambda *_: verb)
    return CliRunner().invoke(command, ["doctor"], prog_name="sysmetrics-native")


def test_an_error_that_nobody_expected_is_one_line_without_secrets(monkeypatch):
    result = invoke(monkeypatch, KeyError("no such key\nat https://ann:pw@host/x"))
    assert result.exit_code == 1
    assert result.output == (
        "Error: unexpected KeyError: 'no such key\\nat https://host/x' "
        "(with SYSMETRICS_NATIVE_DEBUG=1 it is shown where it came from)\n"
    )


def test_its_traceback_is_there_for_who_asks(monkeypatch):
    monkeypatch.setenv("SYSMETRICS_NATIVE_DEBUG", "1")
    failure = KeyError("no such key")
    assert invoke(monkeypatch, failure).exception is failure
    monkeypatch.setenv("SYSMETRICS_NATIVE_DEBUG", "0")
    assert isinstance(invoke(monkeypatch, failure).exception, SystemExit)


@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [
        (click.ClickException("the server\nis away: start it"), 1, "Error: the server is away"),
        (click.FileError("x.smnrec", "gone"), 1, "x.smnrec"),
        (click.Abort(), 1, "Error: Aborted."),
        (SystemExit(3), 3, ""),
        (click.exceptions.Exit(5), 5, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_a_verb_ends_with_is_its_status(monkeypatch, failure, status, said):
    result = invoke(monkeypatch, failure)
    assert result.exit_code == status
    assert said in result.output
    assert len(result.output.splitlines()) <= 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_ctrl_c_is_no_error():
    process = subprocess.Popen(
        [str(COMMAND), "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    tasks = Path(f"/proc/{process.pid}/task")
    deadline = time.monotonic() + PATIENCE_SECONDS
    # Its own threads begin when everything is loaded.
    while len(list(tasks.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert (output, errors.strip()) == ("", "")


def test_a_reader_that_goes_away_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            [str(COMMAND), "--help"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    finally:
        os.close(writing)
    assert result.stderr == ""
    assert result.returncode in (0, 1)


# ---- terminals ----------------------------------------------------------------------------------


@needs_terminal
def test_a_terminal_has_colors_and_80_columns(tmp_path):
    status, seen = run_on_terminal("doctor", SYSMETRICS_NATIVE_SPOOL_DIR=str(tmp_path))
    assert status == 0, seen
    assert COLOR.search(seen)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", seen)
    assert "Sampling works" in plain
    assert max(map(len, plain.splitlines())) <= 80


@needs_terminal
def test_no_color_means_none(tmp_path):
    _, seen = run_on_terminal("doctor", NO_COLOR="1", SYSMETRICS_NATIVE_SPOOL_DIR=str(tmp_path))
    assert "Sampling works" in seen
    assert not COLOR.search(seen)


@needs_terminal
@pytest.mark.parametrize("arguments", [("doctor",), ("recover", "--dry-run"), ("--help",)])
def test_a_dumb_terminal_gets_text_only(arguments, tmp_path):
    status, seen = run_on_terminal(
        *arguments, TERM="dumb", SYSMETRICS_NATIVE_SPOOL_DIR=str(tmp_path)
    )
    assert status == 0
    assert len(seen) > 20
    assert "\x1b" not in seen


def test_elsewhere_there_is_text_only():
    result = run("doctor", FORCE_COLOR="", TERM="xterm-256color")
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    assert "Sampling works" in result.stdout


def test_an_encoding_that_lacks_characters_is_no_error():
    result = run("doctor", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, "")
    assert "yes: Sampling works" in result.stdout


# ---- completion ---------------------------------------------------------------------------------


def complete(shell: str, *words: str) -> str:
    """What a shell is told that the last of these words may become."""
    result = run(
        _SYSMETRICS_NATIVE_COMPLETE=f"{shell}_complete",
        COMP_WORDS=" ".join(("sysmetrics-native", *words)) if shell != "fish" else words[-1],
        COMP_CWORD=words[-1] if shell == "fish" else str(len(words)),
    )
    assert result.stderr == ""
    return result.stdout


def test_verbs_are_completed_without_loading_them():
    assert complete("bash", "") == "".join(f"plain,{verb}\n" for verb in _VERBS)
    assert complete("bash", "doc") == "plain,doctor\n"
    assert complete("zsh", "doc") == f"plain\ndoctor\n{_VERBS['doctor']}\n"
    assert complete("fish", "doc").startswith("plain,doctor\t")


def test_options_and_files_are_completed():
    assert complete("bash", "doctor", "--j") == "plain,--json\n"
    assert complete("bash", "recover", "").startswith("file,")
    assert complete("bash", "completion", "z") == "plain,zsh\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_asks_this_command(shell):
    result = run("completion", shell)
    assert result.returncode == 0
    assert f"_SYSMETRICS_NATIVE_COMPLETE={shell}_complete" in result.stdout
    assert "sysmetrics-native" in result.stdout


def test_bash_itself_completes():
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash, which is not installed here")
    program = f"""
        export PATH="{COMMAND.parent}:$PATH"
        eval "$(sysmetrics-native completion bash)"
        complete -p sysmetrics-native
        COMP_WORDS=(sysmetrics-native rec) COMP_CWORD=1
        _sysmetrics_native_completion sysmetrics-native
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        [bash, "--norc", "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.stderr == ""
    registered, completed = done.stdout.splitlines()
    assert registered.endswith("-F _sysmetrics_native_completion sysmetrics-native")
    assert completed == "recover"

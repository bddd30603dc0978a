"""A terminal that is redrawn in place, read key by key, and always given back as it was."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.style import Style

from sysmetrics_native.top.drawing import Line

STYLES: Mapping[str, Style] = {
    "title": Style(bold=True, reverse=True),
    "good": Style(color="green", bold=True, reverse=True),
    "warning": Style(color="yellow", bold=True, reverse=True),
    "alarm": Style(color="red", bold=True, reverse=True),
    "label": Style(color="cyan", bold=True),
    "heading": Style(color="cyan", bold=True),
    "strong": Style(bold=True),
    "dim": Style(dim=True),
    "peak": Style(color="magenta", bold=True),
    "low": Style(color="green"),
    "high": Style(color="yellow"),
    "highest": Style(color="red"),
    "flow": Style(color="blue"),
    "low faint": Style(color="green", dim=True),
    "high faint": Style(color="yellow", dim=True),
    "highest faint": Style(color="red", dim=True),
    "flow faint": Style(color="blue", dim=True),
}
"""By the names that drawings use; colours are those that the terminal's owner has chosen."""

_SEQUENCES: Mapping[bytes, str] = {
    b"[A": "up",
    b"[B": "down",
    b"[C": "right",
    b"[D": "left",
    b"[F": "end",
    b"[4~": "end",
    b"[8~": "end",
    b"OA": "up",
    b"OB": "down",
    b"OC": "right",
    b"OD": "left",
    b"OF": "end",
}
_ESCAPE = 0x1B
_LONGEST_SEQUENCE = 16
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_BYTES_AT_ONCE = 1024


def why_not(console: Console) -> str | None:
    """Why the terminal cannot be redrawn in place; `None` if it can."""
    if os.name != "posix":
        return "the live view needs a terminal of POSIX"
    if console.is_dumb_terminal:
        return f"this terminal (TERM={os.environ.get('TERM', '')}) cannot be redrawn in place"
    return None


class KeyParser:
    """Bytes from a terminal to the names of keys; a sequence may come in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The keys that are whole by now: printable characters, or names such as ``left``."""
        data = self._rest + data
        keys: list[str] = []
        at = 0
        while at < len(data):
            if data[at] != _ESCAPE:
                keys.append(chr(data[at]))
                at += 1
                continue
            length = _sequence_length(data[at + 1 :])
            if length is None:
                break
            name = _SEQUENCES.get(data[at + 1 : at + 1 + length])
            if name is not None:
                keys.append(name)
            at += 1 + length
        self._rest = data[at:]
        return keys

    def flush(self) -> list[str]:
        """What is left when nothing more came: the key Escape, or a broken sequence."""
        rest, self._rest = self._rest, b""
        return ["escape"] if rest else []


def _sequence_length(data: bytes) -> int | None:
    """Of what follows an escape character; `None` if it is not all there."""
    if not data:
        return None
    if data[0] == ord("O"):
        return 2 if len(data) > 1 else None
    if data[0] != ord("["):
        return 0
    for at in range(1, min(len(data), _LONGEST_SEQUENCE)):
        if 0x40 <= data[at] <= 0x7E:  # noqa: PLR2004  # the bytes that end one
            return at + 1
    return None if len(data) < _LONGEST_SEQUENCE else _LONGEST_SEQUENCE


class _Shown(NamedTuple):
    """A line as it stands on the terminal."""

    text: str
    cells: int


_NOTHING = _Shown("", 0)


class Terminal:
    """The terminal of this process, from `with` to its end.

    Only the main thread may use it, because of its signals: after a SIGTERM or SIGHUP the terminal
    is given back and the process ends by the signal as it would have; it can be stopped and
    continued; `has_resized` tells when it must be drawn anew.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._out = sys.stdout.fileno()
        self._in: int | None = sys.stdin.fileno() if _is_terminal(sys.stdin) else None
        self._shown: list[_Shown] = []
        self._keys = KeyParser()
        self._saved_mode: list[Any] | None = None
        self._saved_handlers: dict[int, Any] = {}
        self._wake: tuple[int, int] | None = None
        self._styles = _codes(console)
        self.has_resized = False
        self.is_interrupted = False

    @property
    def has_keys(self) -> bool:
        """Whether there is something to press keys on."""
        return self._in is not None

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            columns, lines = os.get_terminal_size(self._out)
        except OSError:
            columns, lines = 0, 0
        usual = shutil.get_terminal_size()
        return columns or usual.columns, lines or usual.lines

    def __enter__(self) -> Terminal:  # noqa: PYI034  # typing.Self came with Python 3.11
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
        self._catch_signals()
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        for number, handler in self._saved_handlers.items():
            signal.signal(number, handler)
        if self._wake is not None:
            for end in self._wake:
                os.close(end)

    # ---- signals --------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        handlers: dict[str, Callable[[int, FrameType | None], None]] = {
            "SIGINT": self._interrupt,
            "SIGTERM": self._end,
            "SIGHUP": self._end,
            "SIGQUIT": self._end,
            "SIGTSTP": self._stop,
            "SIGCONT": self._continue,
            "SIGWINCH": self._resize,
        }
        for name, handler in handlers.items():
            number = getattr(signal, name, None)
            if number is not None:
                self._saved_handlers[number] = signal.signal(number, handler)

    def _wake_up(self) -> None:
        if self._wake is not None:
            with contextlib.suppress(OSError):  # it is full: then it wakes us anyway
                os.write(self._wake[1], b".")

    def _interrupt(self, *_: object) -> None:
        self.is_interrupted = True
        self._wake_up()

    def _resize(self, *_: object) -> None:
        self.has_resized = True
        self._wake_up()

    def _end(self, number: int, _: FrameType | None) -> None:
        """End as if there were no handler, but with the terminal given back."""
        self._give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _stop(self, number: int, _: FrameType | None) -> None:
        self._give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # Continued, or not stopped at all, as where no shell is there to continue it.
        signal.signal(number, self._stop)
        self._continue()

    def _continue(self, *_: object) -> None:
        self._take()
        self._resize()

    # ---- mode -----------------------------------------------------------------------------------

    def _take(self) -> None:
        import termios

        if self._in is not None:
            with contextlib.suppress(termios.error):
                mode = termios.tcgetattr(self._in)
                if self._saved_mode is None:
                    self._saved_mode = mode
                own = [*mode[:3], mode[3] & ~(termios.ICANON | termios.ECHO), *mode[4:]]
                termios.tcsetattr(self._in, termios.TCSANOW, own)
        self._shown = []
        self._try_to_write(_ENTER)

    def _give_back(self) -> None:
        import termios

        with contextlib.suppress(OSError):
            self._write(_LEAVE)
        if self._in is not None and self._saved_mode is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._in, termios.TCSANOW, self._saved_mode)

    def _write(self, text: str) -> None:
        data = text.encode(self._console.encoding, "replace")
        while data:
            data = data[os.write(self._out, data) :]

    # ---- in and out -----------------------------------------------------------------------------

    def show(self, lines: Sequence[Line]) -> None:
        """Write the lines that are not there already."""
        if self.has_resized:
            self.has_resized = False
            self._shown = []
            self._try_to_write("\x1b[2J")
        parts = []
        shown = [self._encoded(line) for line in lines]
        before = self._shown + [_NOTHING] * (len(shown) - len(self._shown))
        for row, (now, old) in enumerate(zip(shown, before, strict=False), 1):
            if now != old:
                # Erased only where something is left: in the last column it would take a letter.
                erase = "\x1b[K" if now.cells < old.cells else ""
                parts.append(f"\x1b[{row};1H{now.text}{erase}")
        self._shown = shown
        if parts:
            self._try_to_write("".join(parts))

    def _try_to_write(self, text: str) -> None:
        try:
            self._write(text)
        except OSError:  # the terminal is gone
            self.is_interrupted = True

    def _encoded(self, line: Line) -> _Shown:
        text = "".join(
            f"{self._styles[style]}{text}\x1b[0m" if self._styles.get(style) else text
            for text, style in line
        )
        return _Shown(text, sum(cell_len(text) for text, _ in line))

    def wait(self, seconds: float) -> list[str]:
        """The keys that were pressed; returns with the first of them, or on a signal."""
        assert self._wake is not None
        readers = [self._wake[0], *([] if self._in is None else [self._in])]
        ready, _, _ = select.select(readers, [], [], max(0.0, seconds))
        if self._wake[0] in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake[0], _BYTES_AT_ONCE)
        if self._in is None or self._in not in ready:
            return self._keys.flush()
        try:
            data = os.read(self._in, _BYTES_AT_ONCE)
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            self.is_interrupted = True
        return self._keys.feed(data)


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def _codes(console: Console) -> dict[str, str]:
    """What begins each style on this terminal; colours go with NO_COLOR."""
    codes = {}
    for name, style in STYLES.items():
        own = style.without_color if console.no_color else style
        system = console._color_system
        text = own.render("x", color_system=system) if system is not None else "x"
        codes[name] = text.partition("x")[0]
    return codes


@contextlib.contextmanager
def quiet_writes() -> Iterator[None]:
    """Whoever reads our output may go away first, as `head` does."""
    try:
        yield
    except BrokenPipeError:
        # Python would complain again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

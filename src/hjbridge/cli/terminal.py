"""What the commands share: tables, JSON, errors in one line, Ctrl-C, and terminals that lack some signs."""

from __future__ import annotations

import codecs
import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TextIO

import typer

#: wrong usage, exit code 2; the class belongs to click, a copy of which typer may bring along
Usage: Any = typer.BadParameter.__mro__[1]

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

SIGNS = {"±": "+-", "×": "x", "−": "-", "–": "-", "…": "...", "“": '"', "”": '"', "’": "'", "ı": "i"}
POWER = re.compile("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")
LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def table(heads: tuple[str, ...], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under heads; long cells are wrapped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    printed = Table(*heads, box=None, pad_edge=False)
    for row in rows:
        printed.add_row(*(Text(cell) for cell in row))
    console = Console()
    Console(width=console.width if console.is_terminal else 160).print(printed)


def say(text: str, colour: str | None = None, *, err: bool = False) -> None:
    """Print a line, in a colour where a terminal shows it.

    Not by `typer.echo`, which takes a stream of ASCII for a mistake and writes UTF-8 past it.
    """
    stream = sys.stderr if err else sys.stdout
    print(typer.style(text, fg=colour) if colour and stream.isatty() else text, file=stream, flush=True)


def print_json(found: Any) -> None:
    """Print JSON in ASCII, which every terminal and every file can hold."""
    say(json.dumps(found, indent=2, allow_nan=False))


@contextmanager
def interruptible(left: Callable[[], str]) -> Iterator[None]:
    """Let Ctrl-C end a command with exit code 130, after `left` has told what is left and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted: {left()}", "yellow", err=True)
        raise typer.Exit(130) from None


@contextmanager
def well_used() -> Iterator[None]:
    """Tell what a function refuses, a ValueError, as wrong usage: exit code 2."""
    try:
        yield
    except ValueError as error:
        raise Usage(str(error)) from error


def spell_out(stream: TextIO) -> None:
    """Let a stream that cannot hold every sign print those it has, and the others in plain letters: +-, x, 10^-5."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        "±×⁻⁰".encode(encoding)
    except UnicodeEncodeError:
        codecs.register_error(f"hjbridge.{encoding}", lambda error: spelled(error, encoding))
        # every such encoding holds ASCII; what else it has is handed to it sign by sign
        stream.reconfigure(encoding="ascii", errors=f"hjbridge.{encoding}")  # type: ignore[attr-defined]


def spelled(error: UnicodeError, encoding: str) -> tuple[str | bytes, int]:
    """What stands for the sign that `error` is about, and where to go on."""
    assert isinstance(error, UnicodeEncodeError)
    if power := POWER.match(error.object, error.start):
        return f"^{power[0].translate(LOWERED)}", power.end()
    sign, following = error.object[error.start], error.start + 1
    try:
        return sign.encode(encoding), following
    except UnicodeEncodeError:
        plain = unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
        return SIGNS.get(sign) or plain or "?", following

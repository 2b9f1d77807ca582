"""Commands on data sets and checkpoints as files: list, fetch, verify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hjbridge.cli import names
from hjbridge.cli.terminal import Json, interruptible, print_json, say, table

if TYPE_CHECKING:
    from hjbridge.training.inventory import State


def list(json: Json = False) -> None:
    """Show every data set, embedded and full, and whether it is here; what is here is verified byte by byte."""
    from hjbridge.training.inventory import overview

    found = overview()
    if json:
        print_json([asdict(state) for state in found])
    else:
        states(found)


def fetch(
    name: Annotated[
        str,
        typer.Argument(
            help="mnist, fashion-mnist, cifar10; or checkpoints, the committed ones, for use without a clone.",
            autocompletion=names.completing(lambda: names.FETCHED),
        ),
    ],
    source: Annotated[
        Path | None, typer.Option("--from", help="A folder or archive with the files, instead of the network.")
    ] = None,
) -> None:
    """Bring a full data set, or the checkpoints, into the user's cache and verify every byte."""
    name = names.meant("name", name, names.FETCHED)
    with interruptible(lambda: f"no file of {name} is left half written; the same command begins again"):
        if name == "checkpoints":
            from hjbridge.score import release

            found = release.fetch(source)
            say(f"verified: {', '.join(found)}")
        else:
            from hjbridge import data

            say(f"verified: {data.fetch(name, source)}")


def verify() -> None:
    """Verify every data set and checkpoint that is here; fail if one is harmed."""
    from hjbridge.training.inventory import verify

    found = verify()
    states(found)
    if any(entry.harmed for entry in found):
        raise typer.Exit(1)


def states(found: Sequence[State]) -> None:
    """Print the states of data sets and checkpoints, then what is wrong with each that is harmed."""
    rows = [(s.name, s.kind, s.holds, "HARMED, see below" if s.harmed else _told(s)) for s in found]
    table(("name", "kind", "holds", "state"), rows)
    for entry in found:
        if entry.harmed:
            say(f"error: {entry.name} ({entry.kind}): {entry.told}", "red", err=True)


def _told(state: State) -> str:
    return f"{state.state}; {state.told}" if state.told else state.state

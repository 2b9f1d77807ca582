"""The command `reading`: copies of the chapters for JupyterLab, nbviewer and VS Code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hjbridge.cli.terminal import say


def reading(
    folder: Annotated[Path, typer.Argument(help="Folder for the copies; made if need be.")],
    force: Annotated[bool, typer.Option("--force", help="Replace copies that were edited, too.")] = False,
    site: Annotated[str, typer.Option(help="Address of the rendered book, to link numbers and verdicts to.")] = "",
) -> None:
    """Write the chapters with their numbers, verdicts and citations in place of the book's roles."""
    from hjbridge.ledger import files
    from hjbridge.ledger.reading import Book, write

    written, kept = write(folder, Book(files.root(), site.rstrip("/")), force=force)
    for path in kept:
        say(f"{path} was edited and is left alone; --force replaces it", "yellow")
    say(f"readers' copies in {folder}: {', '.join(path.name for path in written) or 'none written'}")

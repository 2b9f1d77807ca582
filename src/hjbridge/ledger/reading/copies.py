"""Whole notebooks: a copy for readers, and a folder of them that keeps what a reader has edited."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hjbridge.ledger import files
from hjbridge.ledger.files import LedgerError
from hjbridge.ledger.notebook import has_picture, lines, read_notebook, text, write_notebook
from hjbridge.ledger.reading.bibliography import Source
from hjbridge.ledger.reading.book import Book
from hjbridge.ledger.reading.numbering import Numbers, count
from hjbridge.ledger.reading.prose import Prose

#: cells whose code a reader opens on demand
HIDDEN = {"record", "hide-input"}
#: dark drawings, which only the site shows
DARK = "application/vnd.hjbridge.dark+png"
#: what names a copy, and tells whether it was edited, in the metadata of the notebook
MARK = "hjbridge"


def copy_of(page: str, book: Book, numbers: Numbers) -> dict[str, Any]:
    """The copy of one chapter.

    Args: name of the notebook without suffix; the book; its numbers, from `numbered`.
    Raises: LedgerError that names notebook and cell for whatever a reader's program could not show.
    """
    original = read_notebook(book.root / "notebooks" / f"{page}.ipynb")
    prose, cells = Prose(page, book, numbers), [markdown("readers-copy", note(page, book))]
    for k, cell in enumerate(original["cells"], 1):
        try:
            cells += code(cell, prose) if cell["cell_type"] == "code" else worded(cell, prose)
        except LedgerError as error:
            raise LedgerError(f"notebooks/{page}.ipynb, cell {k}: {error}") from error
    if prose.cited:
        cells.append(markdown("references", references(prose.cited.values())))
    copy = original | {"cells": cells}
    return copy | {"metadata": original["metadata"] | {MARK: {"copy_of": page, "cells": digest(copy)}}}


def numbered(book: Book) -> Numbers:
    """What has a number on the site, in the order of its table of contents."""
    pages: dict[str, dict[str, Any] | str] = {}
    for path in [*book.pages(), *files.notebooks(book.root / "notebooks").values()]:
        if path.stem not in pages:
            pages[path.stem] = path.read_text(encoding="utf-8") if path.suffix == ".md" else read_notebook(path)
    return count(pages)


def note(page: str, book: Book) -> str:
    """The line on top."""
    source = f"{book.repository}/blob/main/notebooks/{page}.ipynb"
    return (
        f"*A copy for reading and running, with the recorded numbers, verdicts and citations written out. "
        f"It is made from [notebooks/{page}.ipynb]({source}); changes belong there.*"
    )


def markdown(id: str, source: str) -> dict[str, Any]:
    """A new cell of text."""
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": lines(source)}


def worded(cell: dict[str, Any], prose: Prose) -> list[dict[str, Any]]:
    """A cell of text without roles; none if nothing is left of it."""
    source = prose.rewrite(text(cell["source"]))
    return [cell | {"source": lines(source)}] if source.strip() else []


def code(cell: dict[str, Any], prose: Prose) -> list[dict[str, Any]]:
    """A code cell as it is, folded where it only keeps the record, and the caption of its figure in a cell below."""
    own = dict(cell.get("metadata", {}))
    figure = own.get("mystnb", {}).get("figure", {})
    if HIDDEN & set(own.get("tags", [])):
        own["jupyter"] = {"source_hidden": True}
    alt = own.get("mystnb", {}).get("image", {}).get("alt", "")
    copied = [cell | {"metadata": own, "outputs": [shown(output, alt) for output in cell.get("outputs", [])]}]
    if "caption" in figure and has_picture(cell):
        title = f"**{prose.named(figure['name'])}.** " if "name" in figure else ""
        copied.append(markdown(f"{cell['id']}-caption", title + prose.rewrite(figure["caption"])))
    return copied


def shown(output: dict[str, Any], alt: str) -> dict[str, Any]:
    """An output without its dark drawing, a picture with its alternative text where Jupyter looks for it."""
    if "data" not in output:
        return output
    data = {mime: value for mime, value in output["data"].items() if mime != DARK}
    described = {"image/png": {"alt": alt}} if alt and "image/png" in data else {}
    return output | {"data": data, "metadata": output.get("metadata", {}) | described}


def references(cited: Iterable[Source]) -> str:
    """The list at the end."""
    return "\n".join(["## References", "", *sorted({f"- {source.text}" for source in cited})])


def digest(book: dict[str, Any]) -> str:
    """Digest of what stands in the cells, whatever their outputs."""
    sources = [(cell["cell_type"], text(cell["source"])) for cell in book["cells"]]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]


def write(folder: Path, book: Book, *, force: bool = False) -> tuple[list[Path], list[Path]]:
    """Write the copies of all chapters into a folder.

    Args: the folder, made if need be; the book; force, whether copies that were edited are replaced, too.
    Returns: the files written, and those left alone because they were edited.
    Raises: LedgerError if the folder holds a notebook of the same name that is no copy, before anything is written.
    """
    numbers, kept, made = numbered(book), [], {}
    for path in files.notebooks(book.root / "notebooks").values():
        target = folder / path.name
        if target.exists() and edited(target) and not force:
            kept.append(target)
        else:
            made[target] = copy_of(path.stem, book, numbers)
    for target, copy in made.items():
        write_notebook(target, copy)
    return list(made), kept


def edited(path: Path) -> bool:
    """Whether a copy was edited. Raises: LedgerError if it is none."""
    book = read_notebook(path)
    mark = book.get("metadata", {}).get(MARK)
    if not isinstance(mark, dict) or not re.fullmatch(r"[0-9a-f]{16}", str(mark.get("cells"))):
        raise LedgerError(f"{path} is no readers' copy and would be overwritten: name another folder")
    return bool(mark["cells"] != digest(book))

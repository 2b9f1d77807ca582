"""The buttons of a chapter lead to its readers' copy: the download, and JupyterLab on Binder behind the rocket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from footer import commit
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from hjbridge.ledger import LedgerError
from hjbridge.ledger.notebook import write_notebook
from hjbridge.ledger.reading import Book, copy_of, numbered

CHAPTERS = "notebooks/"
#: the folder that `postBuild` fills on Binder
ON_BINDER = "reading/"


def launch_copies(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Turn the addresses behind the rocket to the copies."""
    if page.startswith(CHAPTERS):
        for group in context.get("header_buttons", []):
            for button in group.get("buttons", []) if group.get("label") == "launch-buttons" else ():
                button["url"] = button["url"].replace("/./", "/").replace(f"/{CHAPTERS}", f"/{ON_BINDER}")


def download_copies(app: Sphinx, error: Exception | None) -> None:
    """Put the copies, made from the record of this build, where the pages offer the sources of the chapters.

    Raises: ExtensionError, which fails the build, for a chapter that cannot be copied.
    """
    if error is not None or app.builder.format != "html":
        return
    book = Book(Path(app.srcdir), site=app.config.html_baseurl.rstrip("/"), commit=commit(Path(app.srcdir)))
    try:
        numbers = numbered(book)
        for page in sorted(app.env.found_docs):
            if page.startswith(CHAPTERS):
                copy = copy_of(page.removeprefix(CHAPTERS), book, numbers)
                write_notebook(Path(app.outdir) / "_sources" / f"{page}.ipynb", copy)
    except LedgerError as failed:
        raise ExtensionError(f"readers' copies: {failed}") from failed


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect after the theme has made its buttons, at 501."""
    app.connect("html-page-context", launch_copies, priority=600)
    app.connect("build-finished", download_copies)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""Chapters carry the numbers that the text uses in the side bar, in links between pages and in titles of windows."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

#: a chapter's file: notebooks/01_bellman_to_hjb
CHAPTER = re.compile(r"notebooks/(\d\d)_\w+")


def number(docname: str) -> str | None:
    """The number of a chapter; None for other pages."""
    found = CHAPTER.fullmatch(docname)
    return found[1] if found else None


def put_in_front(title: nodes.Element, prefix: str) -> None:
    """Write the number before a title, once."""
    if not title.astext().startswith(f"{prefix} "):
        title.insert(0, nodes.Text(f"{prefix} "))


def number_titles(app: Sphinx, env: BuildEnvironment) -> None:
    """The headings of the pages stay as they are written; what refers to them gets the number."""
    for docname in env.found_docs:
        if prefix := number(docname):
            put_in_front(env.titles[docname], prefix)
            put_in_front(env.longtitles[docname], prefix)
            for entry in env.tocs[docname].findall(nodes.reference):
                if entry.get("refuri") == docname and not entry.get("anchorname"):
                    put_in_front(entry, prefix)
                    break


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect after all pages are read."""
    app.connect("env-updated", number_titles)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

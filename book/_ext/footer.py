"""The foot of every page: version, commit, and how to cite the page."""

from __future__ import annotations

import html
import os
import re
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

YEAR = "2026"


@cache
def commit(source: Path) -> str:
    """Short name of the commit that is shown: HJBRIDGE_COMMIT, else git's; `+` marks changed files; may be empty."""
    if value := os.environ.get("HJBRIDGE_COMMIT"):
        return value
    try:
        described = subprocess.run(
            ["git", "-C", str(source), "describe", "--always", "--dirty=+", "--exclude=*"],
            capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return described.stdout.strip()


def version() -> str:
    """Version of the installed package."""
    try:
        return metadata.version("hjbridge")
    except metadata.PackageNotFoundError:
        return "unknown"


def bibtex(page: str, title: str, url: str, state: str) -> str:
    """BibTeX entry of one page."""
    name = page.rpartition("/")[2].replace("_", "-")
    return (
        f"@misc{{hjbridge-{name},\n  author = {{{{hjbridge contributors}}}},\n  title = {{{{{title}}}}},\n"
        f"  howpublished = {{In: hjbridge, {url}}},\n  year = {{{YEAR}}},\n  note = {{{state}}}\n}}"
    )


def add_footer(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Fill the theme's extra footer for one page."""
    url = (context.get("theme_repository_url") or "").rstrip("/")
    name = commit(Path(app.srcdir))
    state = f"version {version()}" + (f", commit {name}" if name else "")
    hash = name.rstrip("+")
    shown = f'<a href="{html.escape(url)}/commit/{hash}">{html.escape(hash)}</a>' if hash else "not recorded"
    if name.endswith("+"):
        shown += " with changes"
    text = f'<div class="book-footer"><p>hjbridge {html.escape(version())} · commit {shown} · MIT licence</p>'
    if doctree is not None:
        title = html.unescape(re.sub(r"<[^>]*>", "", context.get("title", page)))
        entry = html.escape(bibtex(page, title, url, state))
        text += f'<details><summary>Cite this page</summary><pre tabindex="0">{entry}</pre></details>'
    context["theme_extra_footer"] = text + "</div>"


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect before the theme renders the page."""
    app.connect("html-page-context", add_footer, priority=400)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

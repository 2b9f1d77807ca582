"""The directive `chapter-list`: all chapters of the plan, linked where they exist and marked where they do not."""

from __future__ import annotations

import html
import posixpath
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

PLAN = Path("book") / "chapters.yml"


def entry(chapter: dict[str, str], uri: str | None) -> str:
    """HTML of one chapter; uri None: it is not there yet."""
    title = html.escape(chapter["title"])
    state = "there" if uri else "not yet"
    badge = f'<span class="book-badge {"reproduced" if uri else ""}">{state}</span>'
    linked = f'<a href="{uri}">{title}</a>' if uri else title
    return (
        f'<li class="{"present" if uri else "absent"}"><span class="number">{chapter["number"]}</span>'
        f'<span class="title">{linked}</span>{badge}<span class="about">{html.escape(chapter["about"])}</span></li>'
    )


def page_of(env: BuildEnvironment, number: str) -> str | None:
    """Name of the document of a chapter, if this build has it."""
    found = [name for name in env.found_docs if posixpath.basename(name).startswith(f"{number}_")]
    return sorted(found)[0] if found else None


class ChapterList(Directive):
    """List of all chapters by part."""

    def run(self) -> list[nodes.Node]:
        """Read the plan and list its chapters."""
        env: BuildEnvironment = self.state.document.settings.env
        path = Path(env.srcdir) / PLAN
        env.note_dependency(str(path))
        lines = []
        for part in yaml.safe_load(path.read_text(encoding="utf-8")):
            lines.append(f'<p class="rubric part">{html.escape(part["part"])}</p><ol class="book-chapters">')
            for chapter in part["chapters"]:
                document = page_of(env, chapter["number"])
                uri = env.app.builder.get_relative_uri(env.docname, document) if document else None
                lines.append(entry(chapter, uri))
            lines.append("</ol>")
        return [nodes.raw("", "\n".join(lines), format="html")]


def outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Pages that list the chapters are read again when a chapter appears or goes."""
    return ["book/intro"] if (added or removed) and "book/intro" in env.found_docs else []


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("chapter-list", ChapterList)
    app.connect("env-get-outdated", outdated)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

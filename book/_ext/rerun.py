"""The role `rerun`: what a chapter's record was made with, and how long that took."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst.states import Inliner
from footer import commit
from results_role import failure, folder
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from hjbridge.ledger.results import chapter_file


def role(
    name: str,
    rawtext: str,
    text: str,
    lineno: int,
    inliner: Inliner,
    options: dict[str, Any] | None = None,
    content: list[str] | None = None,
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """`02` becomes a sentence: wall time and processor of the recorded run, versions, environment and commit.

    The environment is the start of the sha256 of constraints.txt.
    """
    env: BuildEnvironment = inliner.document.settings.env
    path, source = chapter_file(folder(env), text), Path(env.srcdir)
    env.note_dependency(str(path))
    try:
        run = json.loads(path.read_text(encoding="utf-8"))["run"]
        versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
        made = f"Recorded in {run['seconds']:.0f} s on one core of a processor {run['cpu']}, with {versions}. "
        environment = hashlib.sha256((source / "constraints.txt").read_bytes()).hexdigest()[:12]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return failure(inliner, rawtext, f"rerun {text!r}: {type(error).__name__}: {error}", lineno)
    shown = commit(source)
    parts: list[nodes.Node] = [
        nodes.Text(made), nodes.Text("Environment "), nodes.literal("", environment), nodes.Text(" (constraints.txt)"),
    ]  # fmt: skip
    if shown:
        parts += [nodes.Text(", commit "), nodes.literal("", shown)]
    return [*parts, nodes.Text(".")], []


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the role."""
    app.add_role("rerun", role)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

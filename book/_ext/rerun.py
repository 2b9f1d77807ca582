"""The role `rerun`: what a chapter's record was made with, and how long that took."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from docutils import nodes
from footer import commit
from results_role import failure, folder
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

from hjbridge.ledger.results import chapter_file


class Rerun(SphinxRole):
    """`02` becomes a sentence: wall time and processor of the recorded run, versions, environment and commit.

    The environment is the start of the sha256 of constraints.txt.
    """

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Read the record of this build."""
        path, source = chapter_file(folder(self.env), self.text), Path(self.env.srcdir)
        self.env.note_dependency(str(path))
        try:
            run = json.loads(path.read_text(encoding="utf-8"))["run"]
            versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
            made = f"Recorded in {run['seconds']:.0f} s on one core of a processor {run['cpu']}, with {versions}. "
            environment = hashlib.sha256((source / "constraints.txt").read_bytes()).hexdigest()[:12]
        except (OSError, ValueError, KeyError, TypeError) as error:
            told = f"rerun {self.text!r}: {type(error).__name__}: {error}"
            return failure(self.inliner, self.rawtext, told, self.lineno)
        shown = commit(source)
        parts: list[nodes.Node] = [nodes.Text(f"{made}Environment "), nodes.literal("", environment)]
        parts += [nodes.Text(" (constraints.txt)")]
        if shown:
            parts += [nodes.Text(", commit "), nodes.literal("", shown)]
        return [*parts, nodes.Text(".")], []


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the role."""
    app.add_role("rerun", Rerun())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

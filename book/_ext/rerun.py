"""The roles `rerun` and `runtime`: what a chapter's record was made with, and how long that took."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from docutils import nodes
from footer import commit
from results_role import failure, folder
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxRole

from hjbridge.ledger.results import chapter_file


def recorded_run(env: BuildEnvironment, chapter: str) -> dict[str, Any]:
    """What the record of this build says of the run of a chapter. Raises: OSError or ValueError for a missing one."""
    path = chapter_file(folder(env), chapter)
    env.note_dependency(str(path))
    run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["run"]
    return run


def duration(seconds: float) -> str:
    """Wall time as one says it: `13 s`, `1 min 22 s`."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Runtime(SphinxRole):
    """`01` becomes the wall time of the recorded run of chapter 01."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Read the record of this build."""
        try:
            return [nodes.Text(duration(recorded_run(self.env, self.text)["seconds"]))], []
        except (OSError, ValueError, KeyError, TypeError) as error:
            told = f"runtime {self.text!r}: {type(error).__name__}: {error}"
            return failure(self.inliner, self.rawtext, told, self.lineno)


class Rerun(SphinxRole):
    """`02` becomes a sentence: wall time and processor of the recorded run, versions, environment and commit.

    The environment is the start of the sha256 of constraints.txt.
    """

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Read the record of this build."""
        source = Path(self.env.srcdir)
        try:
            run = recorded_run(self.env, self.text)
            versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
            made = f"Recorded in {duration(run['seconds'])} on one core of a processor {run['cpu']}, with {versions}. "
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
    """Add the roles."""
    app.add_role("rerun", Rerun())
    app.add_role("runtime", Runtime())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

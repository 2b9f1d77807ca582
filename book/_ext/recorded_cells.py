"""Cells tagged `record` fold into one line that names the numbers they put on record; their pictures stay in sight."""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

#: what `record` prints of a number: `ch05.prior_kl = 1.2 ± 0.3`
PRINTED = re.compile(r"^(ch\d\d\.[a-z][a-z0-9_]*) = ", re.MULTILINE)
OPEN = '<details class="book-recorded"><summary>{}</summary>'


def is_picture(output: nodes.Node) -> bool:
    """Whether an output is a figure, an image, or an animation, which is HTML."""
    raw = [*output.findall(nodes.raw)]
    drawn = any(output.findall(lambda node: isinstance(node, nodes.image | nodes.figure)))
    return drawn or any("<figure" in node.astext() or "<img" in node.astext() for node in raw)


def summary(ids: list[str]) -> str:
    """The line that is left of a folded cell."""
    if not ids:
        return "Recorded"
    count = f"{len(ids)} numbers" if len(ids) > 1 else "1 number"
    return f"<span>Recorded, {count}: </span>" + ", ".join(f"<code>{html.escape(id)}</code>" for id in ids)


class FoldRecordedCells(SphinxPostTransform):
    """Runs after the site's own choice of outputs, when pictures and words are known."""

    default_priority = 6
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Put code and words of each such cell between the tags of a fold."""
        for cell in list(self.document.findall(nodes.container)):
            if cell.get("nb_element") == "cell_code" and "tag_record" in cell["classes"]:
                self.fold(cell)

    def fold(self, cell: nodes.container) -> None:
        """Rewrite one cell."""
        parts = {part.get("nb_element"): part for part in cell.children if isinstance(part, nodes.container)}
        code, shown = parts.get("cell_code_source"), parts.get("cell_code_output")
        outputs = list(shown.children) if shown is not None else []
        words = [output for output in outputs if not is_picture(output)]
        pictures = [output for output in outputs if is_picture(output)]
        ids = [id for output in words for id in PRINTED.findall(output.astext())]
        folded: list[nodes.Node] = [nodes.raw("", OPEN.format(summary(ids)), format="html")]
        folded += [code] if code is not None else []
        folded += [nodes.container("", *words, classes=["cell_output"])] if words else []
        folded += [nodes.raw("", "</details>", format="html")]
        folded += [nodes.container("", *pictures, classes=["cell_output"])] if pictures else []
        cell.children.clear()
        cell += folded


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the transform."""
    app.add_post_transform(FoldRecordedCells)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

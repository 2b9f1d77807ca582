"""No comma begins a line: punctuation stays with the formula, the number or the badge before it."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

AFTER = re.compile(r"[.,;:!?)\]’”%]+")
BEFORE = re.compile(r"[(\[‘“]+$")
#: classes of what a browser may break a line after: recorded numbers and verdicts
KINDS = {"result", "book-badge"}


def is_block(node: nodes.Node) -> bool:
    """Whether a line may break between a node and the punctuation at it."""
    if isinstance(node, nodes.math):
        return True
    return isinstance(node, nodes.Element) and bool(KINDS & set(node.get("classes", [])))


class KeepTogether(SphinxPostTransform):
    """Runs when references are resolved."""

    default_priority = 800
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Wrap each such node together with its punctuation."""
        for node in [node for node in self.document.findall(is_block) if not is_block(node.parent)]:
            self.wrap(node)

    def wrap(self, node: nodes.Element) -> None:
        """Move punctuation from the neighbours of a node into a box around it."""
        parent = node.parent
        # by identity: two texts of a paragraph may be equal
        place = next(k for k, child in enumerate(parent.children) if child is node)
        before = parent[place - 1] if place else None
        after = parent[place + 1] if place + 1 < len(parent) else None
        opening = BEFORE.search(before) if isinstance(before, nodes.Text) else None
        closing = AFTER.match(after) if isinstance(after, nodes.Text) else None
        if not opening and not closing:
            return
        box = nodes.inline(classes=["book-together"])
        parent[place] = box
        if opening:
            box += nodes.Text(opening[0])
            parent[place - 1] = nodes.Text(before[: opening.start()])
        box += node
        if closing:
            box += nodes.Text(closing[0])
            parent[place + 1] = nodes.Text(after[closing.end() :])


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the transform."""
    app.add_post_transform(KeepTogether)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

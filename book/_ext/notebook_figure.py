"""The directive `notebook-figure`: a figure of a chapter, taken from its committed outputs, on another page."""

from __future__ import annotations

import hashlib
import html
import json
import posixpath
from pathlib import Path
from typing import Any

from dark_figures import DARK, LIGHT, drawings
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def find(notebook: Path, name: str) -> tuple[bytes, bytes, str]:
    """The light and the dark PNG (empty: none) of the cell whose figure has this name, and its alternative text.

    Raises: ValueError if no cell has it, or the cell has no picture among its outputs.
    """
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        shown = cell.get("metadata", {}).get("mystnb", {})
        if shown.get("figure", {}).get("name") == name:
            for output in cell.get("outputs", []):
                light, dark = drawings(output)
                if light:
                    return light, dark, shown["image"]["alt"]
    raise ValueError(f"figure must be the name of one in {notebook.name}, got {name!r}")


class NotebookFigure(Directive):
    """`{notebook-figure} notebooks/05_noise_and_its_reverse fig-05-forward`, the caption as content."""

    required_arguments = 2
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Write the pictures beside the site's images and refer to them."""
        env: BuildEnvironment = self.state.document.settings.env
        document, name = self.arguments
        notebook = Path(env.srcdir) / f"{document}.ipynb"
        env.note_dependency(str(notebook))
        try:
            light, dark, alternative = find(notebook, name)
        except (OSError, ValueError) as error:
            return [self.state.document.reporter.error(f"notebook-figure: {error}", line=self.lineno)]
        pictures = [(light, LIGHT), (dark, DARK)] if dark else [(light, [])]
        images = "".join(self.image(env, picture, alternative, classes) for picture, classes in pictures)
        caption = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, caption)
        link = addnodes.pending_xref(
            "", refdomain="std", reftype="ref", reftarget=name, refexplicit=True, refwarn=True, refdoc=env.docname
        )
        link += nodes.inline("", "From the chapter.")
        if isinstance(last := caption[-1], nodes.paragraph):
            last += [nodes.Text(" "), link]
        return [
            nodes.raw("", f"<figure>{images}<figcaption>", format="html"),
            *caption.children,
            nodes.raw("", "</figcaption></figure>", format="html"),
        ]

    def image(self, env: BuildEnvironment, picture: bytes, alternative: str, classes: list[str]) -> str:
        """Write one picture and return its element."""
        name = f"{self.arguments[1]}-{hashlib.sha256(picture).hexdigest()[:12]}.png"
        target = Path(env.app.outdir) / "_images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture)
        source = posixpath.relpath(f"_images/{name}", posixpath.dirname(env.docname) or ".")
        words = f' class="{" ".join(classes)}"' if classes else ""
        return f'<img src="{source}" alt="{html.escape(alternative)}"{words}>'


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("notebook-figure", NotebookFigure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

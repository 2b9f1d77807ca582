"""The dark drawing of each figure that a notebook holds, beside the light one; the page's theme shows one of them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from hjbridge.plotting.dark import MIME, repainted

#: `dark-light` is the theme's word for a picture that it must not dim
LIGHT, DARK = ["drawn-light", "dark-light"], ["drawn-dark", "dark-light"]
INLINE = re.compile(r"data:image/(gif|png);base64,([\w+/=]+)")


def drawings(output: dict[str, Any]) -> tuple[bytes, bytes]:
    """The light and the dark PNG of an output of a notebook; empty for one that is not there."""
    light, dark = (base64.b64decode("".join(output.get("data", {}).get(mime, ""))) for mime in ("image/png", MIME))
    return light, dark


def counterparts(notebook: Path) -> dict[str, bytes]:
    """The dark PNG of each figure of a notebook, by the digest of the light one, its name on the site."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    pairs = [drawings(output) for cell in cells for output in cell.get("outputs", [])]
    return {hashlib.sha256(light).hexdigest(): dark for light, dark in pairs if light and dark}


def repaint_png(picture: bytes) -> bytes:
    """A PNG drawn on white, for dark pages."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    colours, which = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    done = io.BytesIO()
    Image.fromarray(repainted(colours)[which].reshape(pixels.shape)).save(done, format="PNG", optimize=True)
    return done.getvalue()


def repaint_gif(picture: bytes) -> bytes:
    """A GIF drawn on white, for dark pages: only the tables of colours are rewritten.

    Blocks by the GIF89a specification: header and screen (13 bytes), global table, then extensions (0x21), images
    (0x2C, a local table each) and the end (0x3B).
    """
    data = bytearray(picture)

    def table(at: int, flags: int) -> int:
        if not flags & 0x80:
            return at
        end = at + 3 * 2 ** ((flags & 7) + 1)
        data[at:end] = repainted(np.frombuffer(bytes(data[at:end]), np.uint8).reshape(-1, 3)).tobytes()
        return end

    at = table(13, data[10])
    while data[at] != 0x3B:
        at = at + 2 if data[at] == 0x21 else table(at + 10, data[at + 9]) + 1
        while data[at]:
            at += data[at] + 1
        at += 1
    return bytes(data)


def repaint(html: str) -> str:
    """An animation of `hjbridge.plotting` with a second picture for dark pages."""

    def other(found: re.Match[str]) -> str:
        paint = repaint_gif if found[1] == "gif" else repaint_png
        return f"data:image/{found[1]};base64,{base64.b64encode(paint(base64.b64decode(found[2]))).decode()}"

    def both(found: re.Match[str]) -> str:
        light = found[0].replace("<img ", f'<img class="{LIGHT[1]}" ')
        dark = INLINE.sub(other, light)
        return "".join(one.replace(">", f' class="{name}">', 1) for one, name in ((light, LIGHT[0]), (dark, DARK[0])))

    return re.sub(r"<picture>.*?</picture>", both, html, flags=re.DOTALL)


class AddDarkFigures(SphinxTransform):
    """Runs while a notebook is read, before Sphinx collects the pictures of the page."""

    default_priority = 800

    def apply(self, **_: Any) -> None:
        """Put a second image behind each that has a dark drawing, and repaint animations."""
        source = Path(self.env.doc2path(self.env.docname))
        if source.suffix != ".ipynb":
            return
        known = counterparts(source)
        for image in list(self.document.findall(nodes.image)):
            light = Path(image["uri"])
            if (dark := known.get(light.stem)) is None:
                continue
            other = image.copy()
            other["uri"] = str(light.with_name(f"{light.stem}-dark.png"))
            (Path(self.env.srcdir) / other["uri"].lstrip("/")).write_bytes(dark)
            image["classes"] += LIGHT
            other["classes"] = [*other["classes"], *DARK]
            image.parent.insert(image.parent.index(image) + 1, other)
        for raw in list(self.document.findall(nodes.raw)):
            if 'class="animation"' in raw.astext():
                raw.replace_self(nodes.raw("", repaint(raw.astext()), **raw.attributes))


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the transform."""
    app.add_transform(AddDarkFigures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

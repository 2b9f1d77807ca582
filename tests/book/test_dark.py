"""Each figure of a page has a light and a dark drawing, of which one is seen."""

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hjbridge.plotting import dark

ROOT = Path(__file__).resolve().parents[2]
EXTENSIONS = ROOT / "book" / "_ext"
PAPER, BLUE = (255, 255, 255), (0, 114, 178)


def call(code: str) -> str:
    """What a program prints that has imported the extension, in a process of its own."""
    start = f"import sys; sys.path.insert(0, {str(EXTENSIONS)!r})\nfrom dark_figures import *\n"
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=True).stdout


def picture(kind: str) -> bytes:
    frames = [Image.new("RGB", (6, 6), colour) for colour in (PAPER, BLUE, (0, 0, 0))]
    file = io.BytesIO()
    rest = {"save_all": True, "append_images": frames[1:], "duration": 100, "loop": 0} if kind == "gif" else {}
    frames[kind == "png"].save(file, format=kind, **rest)
    return file.getvalue()


def test_dark_colours_are_those_of_the_dark_theme():
    theme = re.search(r'html\[data-theme="dark"\] \{(.*?)\}', (ROOT / "book/_static/book.css").read_text(), re.DOTALL)
    assert f"--pst-color-background: {dark.PAGE};" in theme[1] and f"--pst-color-text-base: {dark.INK};" in theme[1]


def test_animations_get_a_dark_picture_with_the_same_words():
    gif, png = (base64.b64encode(picture(kind)).decode() for kind in ("gif", "png"))
    html = (
        f'<figure class="animation"><picture><source media="print" srcset="data:image/png;base64,{png}">'
        f'<img src="data:image/gif;base64,{gif}" alt="dots"></picture><figcaption>Out.</figcaption></figure>'
    )
    done = json.loads(call(f"print(json.dumps(repaint({html!r})))"))
    light, dim = re.findall(r'<picture class="(?:drawn-light|drawn-dark)">.*?</picture>', done)
    assert done.count("<figcaption>") == 1 and light.count('alt="dots"') == dim.count('alt="dots"') == 1
    assert gif in light and png in light and gif not in dim and png not in dim
    found = {kind: base64.b64decode(data) for kind, data in re.findall(r'image/(\w+);base64,([^"]+)"', dim)}
    moving = Image.open(io.BytesIO(found["gif"]))
    seen = []
    for k in range(moving.n_frames):
        moving.seek(k)
        seen.append(moving.convert("RGB").getpixel((3, 3)))
    wanted = [tuple(map(int, row)) for row in dark.repainted(np.array([PAPER, BLUE, (0, 0, 0)]))]
    assert seen == wanted
    assert Image.open(io.BytesIO(found["png"])).getpixel((3, 3)) == wanted[1]


def test_counterparts_are_found_by_the_light_picture(tmp_path):
    shown = [{"data": {"image/png": "iVBO", dark.MIME: "ABCD"}}, {"data": {"image/png": "AAAA"}}, {"text": ["1"]}]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [{"outputs": shown}, {"source": []}]}))
    code = f"found = counterparts(Path({str(path)!r})); print(len(found), *found.values(), *found)"
    count, value, name = call(code).split()
    assert (count, value) == ("1", repr(base64.b64decode("ABCD")).split()[0]) and len(name) == 64


@pytest.mark.parametrize("chapter", sorted(path.stem for path in (ROOT / "notebooks").glob("0*.ipynb")))
def test_figures_of_chapters_have_both_drawings_and_one_caption(site, chapter):
    from bs4 import BeautifulSoup

    page = BeautifulSoup((site / "notebooks" / f"{chapter}.html").read_text(encoding="utf-8"), "html.parser")
    figures = page.select("article figure")
    assert figures
    for figure in figures:
        light, dim = figure.select(".drawn-light"), figure.select(".drawn-dark")
        assert len(light) == len(dim) == 1 and len(figure.select("figcaption")) == 1
        words = [one.get("alt") or one.img["alt"] for one in (*light, *dim)]
        assert words[0] == words[1] and len(words[0]) > 20
        if dim[0].name == "img":
            sizes = []
            for one in (light[0], dim[0]):
                with Image.open((site / "notebooks" / one["src"]).resolve()) as drawn:
                    sizes.append(drawn.size)
            assert sizes[0] == sizes[1]

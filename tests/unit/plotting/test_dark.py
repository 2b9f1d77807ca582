import base64
import io
import json
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from hjbridge.ledger.notebook import PICTURES
from hjbridge.plotting import dark, style


@pytest.fixture(autouse=True)
def drawing():
    with matplotlib.rc_context():
        style.use_style()
        yield
    plt.close("all")


def everything():
    figure, axes = plt.subplots(2, 3, figsize=(7, 5))
    for colour in (style.BLUE, style.INK, style.PALE, "0.9", "red"):
        axes[0, 0].plot([0, 1], np.random.default_rng(0).random(2), "o-", color=colour, label=colour)
    axes[0, 0].legend(frameon=True)
    axes[0, 1].errorbar([0, 1], [1, 2], yerr=0.2, marker="s", markerfacecolor="none")
    axes[0, 1].annotate("here", (0, 1), (0.5, 1.5), arrowprops={}, bbox={"facecolor": "white"})
    level = axes[0, 2].contourf(np.arange(12.0).reshape(3, 4), cmap="Blues")
    axes[0, 2].clabel(axes[0, 2].contour(np.arange(12.0).reshape(3, 4), colors=style.INK))
    figure.colorbar(level, ax=axes[0, 2])
    axes[1, 0].imshow(np.eye(4))
    axes[1, 0].imshow(np.full((4, 4, 3), 0.5), extent=(5, 9, 0, 4))
    axes[1, 1].scatter([0, 1, 2], [0, 1, 2], c=[0, 1, 2], cmap="hsv")
    axes[1, 2].fill_between([0, 1], [1, 2], color=style.PALE, alpha=0.5, linewidth=0)
    figure.suptitle("all")
    return figure


def light_png(figure):
    picture = io.BytesIO()
    figure.savefig(picture, format="png", bbox_inches="tight")
    return picture.getvalue()


def test_drawing_dark_leaves_the_light_drawing_as_it_was():
    figure = everything()
    light_png(figure)
    figure.set_layout_engine("none")
    before = light_png(figure)
    picture = dark.dark_png(figure)
    assert light_png(figure) == before
    assert dark.dark_png(figure) == picture != before
    one, other = (Image.open(io.BytesIO(found)) for found in (before, picture))
    assert one.size == other.size
    assert len(picture) < 0.7 * len(before)


def test_figure_is_put_back_when_the_drawing_fails():
    figure = everything()
    before = [(artist, dict(vars(artist))) for artist in figure.findobj()]
    with pytest.raises(ValueError, match="inside"), dark.dark(figure):
        raise ValueError("inside")
    for artist, state in before:
        assert vars(artist).keys() == state.keys(), artist
    assert figure.axes[0].lines[1].get_color() == style.INK
    assert figure.axes[2].collections[0].get_cmap().name == "Blues"


@pytest.mark.parametrize("name", ["BLUE", "ORANGE", "GREEN", "PURPLE", "SKY", "RED", "INK", "PALE"])
def test_every_colour_of_a_line_stands_out_from_the_page(name):
    colour = getattr(style, name)
    assert dark.contrast(dark.dark_colour(colour, dark.LINE), dark.PAGE) >= dark.LINE
    assert dark.contrast(dark.dark_colour(colour), dark.PAGE) >= dark.TEXT


def test_lines_and_words_of_a_dark_figure_stand_out():
    figure = everything()
    light_png(figure)
    with dark.dark(figure):
        for ax in figure.axes[:5]:
            words = [ax.title, ax.xaxis.label, *ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels()]
            assert min(dark.contrast(word.get_color(), dark.PAGE) for word in words) >= dark.TEXT
            drawn = [*ax.lines, *ax.xaxis.get_ticklines()]
            colours = [line.get_color() for line in drawn]
            # a line that nobody can see on white is drawn with the page too
            assert all(dark.contrast(c, dark.PAGE) >= dark.LINE or dark.contrast(c, dark.PAGE) == 1 for c in colours)
            assert {spine.get_edgecolor()[:3] for spine in ax.spines.values()} == {dark.to_rgba(dark.INK)[:3]}
        assert figure.patch.get_facecolor()[3] == 0 == figure.axes[0].patch.get_facecolor()[3]


def test_hues_of_the_palette_stay_apart_and_white_becomes_the_page():
    colours = [
        dark.dark_colour(c)[:3] for c in (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.RED)
    ]
    pairs = [np.abs(np.subtract(a, b)).max() for i, a in enumerate(colours) for b in colours[:i]]
    assert min(pairs) > 0.15
    assert dark.dark_colour((1, 1, 1, 0.25)) == (*dark.to_rgba(dark.PAGE)[:3], 0.25)
    assert dark.dark_colour(style.INK) == pytest.approx(dark.to_rgba(dark.INK), abs=1e-3)
    assert dark.contrast("white", "black") == pytest.approx(21)


@pytest.mark.parametrize("name", ["Blues", "gray_r", "Oranges"])
def test_maps_from_white_run_from_the_page_to_light(name):
    shades = dark.dark_map(matplotlib.colormaps[name])(np.linspace(0, 1, 64))
    brightness = dark.luminance(shades[:, :3])
    assert shades[0] == pytest.approx(dark.to_rgba(dark.PAGE), abs=0.01)
    assert (np.diff(brightness) > -1e-4).all() and brightness[-1] > 0.4


def test_other_maps_stay_on_areas_and_are_lightened_on_points():
    hsv, viridis = (matplotlib.colormaps[name] for name in ("hsv", "viridis"))
    assert dark.dark_map(viridis) is viridis
    points = dark.dark_map(hsv, points=True)(np.linspace(0, 1, 50))
    assert min(dark.contrast(colour, dark.PAGE) for colour in points) >= dark.TEXT - 0.01


def test_repainting_mirrors_greys_and_keeps_hues_and_blends():
    white, black, half, blue = [255] * 3, [0] * 3, [128] * 3, [0, 114, 178]
    pale = np.rint(0.5 * np.array(white) + 0.5 * np.array(blue)).astype(int)
    out = dark.repainted(np.array([white, black, half, blue, pale])).astype(float)
    page, ink = (np.rint(255 * np.array(dark.to_rgba(c)[:3])) for c in (dark.PAGE, dark.INK))
    np.testing.assert_allclose(out[:2], [page, ink])
    np.testing.assert_allclose(out[2], (page + ink) / 2, atol=1.5)
    np.testing.assert_allclose(out[4], (page + out[3]) / 2, atol=1.5)
    assert out[3].argmax() == 2


def test_animation_is_one_light_picture_of_few_colours():
    figure, ax = plt.subplots(figsize=(2, 2))
    (line,) = ax.plot([0, 1], [0, 1])
    html = style.animation(
        lambda k: line.set_ydata([0, 1 / (k + 1)]), 4, figure, alt="a line", caption="falls", still=0
    ).data
    assert html.count("<img") == 1 and "dark" not in html
    gif = Image.open(io.BytesIO(base64.b64decode(html.split("data:image/gif;base64,")[1].split('"')[0])))
    assert gif.n_frames == 4 and gif.size == (144, 144) and len(gif.convert("RGB").getcolors()) <= 64


SHOWN = """
import base64, json
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.pylabtools import select_figure_formats
import matplotlib.pyplot as plt
from hjbridge.plotting import use_style

shell = InteractiveShell.instance()
use_style()
# as matplotlib's integration does on the first figure, after the style was set
select_figure_formats(shell, {"png"}, bbox_inches="tight")
if not DARK:
    del shell.display_formatter.formatters["application/vnd.hjbridge.dark+png"]
figure, axes = plt.subplots(1, 2)
axes[0].plot([1, 2], [3, 4], label="a")
axes[0].legend()
for shown in (figure, "words"):
    found = shell.display_formatter.format(shown)[0].items()
    print(json.dumps({mime: base64.b64encode(v).decode() if isinstance(v, bytes) else v for mime, v in found}))
"""


def test_notebook_shows_both_and_the_light_one_is_the_same_without_the_dark_one():
    shown = []
    for both in (True, False):
        code = f"DARK = {both}\n{SHOWN}"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        figure, words = map(json.loads, run.stdout.splitlines())
        assert list(words) == ["text/plain"]
        shown.append(figure)
    assert shown[0].keys() - shown[1].keys() == {dark.MIME}
    assert shown[0]["image/png"] == shown[1]["image/png"]
    assert base64.b64decode(shown[0][dark.MIME]).startswith(b"\x89PNG")


def test_nothing_happens_outside_ipython_and_the_ledger_knows_the_form():
    dark.show_dark()
    assert dark.MIME in PICTURES

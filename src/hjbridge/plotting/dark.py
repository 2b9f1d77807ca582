"""The dark drawing of a figure: the same artists in colours for a dark page, put back when it is done."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import Collection, PathCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from PIL import Image

#: how a notebook holds the dark drawing beside `image/png`; only the site of the book reads it
MIME = "application/vnd.hjbridge.dark+png"
#: page and text of the site's dark theme
PAGE, INK = "#15191d", "#d7dde2"
#: least contrast with the page, of text and of lines (WCAG 2.1, 1.4.3 and 1.4.11)
TEXT, LINE = 4.5, 3.0
#: how dark the ink of the light drawings is, from 0 (white) to 1
FULL = 1 - 0x22 / 0xFF
Change = tuple[Callable[[Any], Any], Any]


def luminance(parts: np.ndarray) -> np.ndarray:
    """Luminance 0.2126 R + 0.7152 G + 0.0722 B of the linear parts of colours (..., 3) in [0, 1] (WCAG 2.1)."""
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ (0.2126, 0.7152, 0.0722))


def contrast(one: Any, other: Any) -> float:
    """Contrast (L + 0.05) / (l + 0.05) of two colours of luminances L >= l, from 1 to 21; opacity does not count."""
    low, high = sorted(float(luminance(np.array(to_rgba(colour)[:3]))) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def _mixed(one: Any, other: Any, weight: float) -> np.ndarray:
    return (1 - weight) * np.array(to_rgba(one)[:3]) + weight * np.array(to_rgba(other)[:3])


def dark_colour(colour: Any, least: float = TEXT) -> tuple[float, ...]:
    """The counterpart of a colour on a dark page.

    White becomes the page, other greys are mirrored between the page and its ink, hues stay; what then has too little
    contrast with the page is mixed with white until it has enough. Opacity stays.

    Args: colour, in any form that matplotlib knows; least contrast of greys (that of hues is `TEXT`).
    Returns: red, green, blue and opacity in [0, 1].
    """
    *parts, opacity = to_rgba(colour)
    grey = max(parts) - min(parts) < 0.06
    if grey and contrast(parts, "white") < 1.15:
        return (*to_rgba(PAGE)[:3], opacity)
    found = _mixed(PAGE, INK, min(1.0, (1 - float(np.mean(parts))) / FULL)) if grey else np.array(parts)
    lighter = np.linspace(found, 1.0, 101)
    enough = (luminance(lighter) + 0.05) / (luminance(np.array(to_rgba(PAGE)[:3])) + 0.05) >= (least if grey else TEXT)
    return (*lighter[enough.argmax()].tolist(), opacity)


def repainted(pixels: np.ndarray) -> np.ndarray:
    """The counterparts on a dark page of colours that ink of some hue leaves on white paper.

    A colour (1 - a) white + a ink, with the ink as strong as can be, becomes (1 - a) page + a (dark ink).

    Args: pixels (n, 3), 0 to 255. Returns: the same.
    """
    parts = np.asarray(pixels, dtype=float) / 255
    amount = 1 - parts.min(axis=1, keepdims=True)
    inks = 1 - (1 - parts) / np.maximum(amount, 1e-9)
    dark = np.array([dark_colour(ink)[:3] if share else (0.0,) * 3 for ink, (share,) in zip(inks, amount, strict=True)])
    return np.rint(255 * ((1 - amount) * to_rgba(PAGE)[:3] + amount * dark.reshape(-1, 3))).astype(np.uint8)


def dark_map(colours: Colormap, points: bool = False) -> Colormap:
    """The counterpart of a colour map: one that starts at white starts at the page and grows lighter.

    Args: colours; points, whether single points or lines carry the colours, which then must stand out from the page.
    """
    table = np.array([to_rgba(colour) for colour in np.asarray(colours(np.linspace(0, 1, 256)))])
    if contrast(table[0], "white") < 1.15 and contrast(table[-1], "white") > LINE:
        ink = 1 - table[:, :3].mean(axis=1)
        tone = dark_colour(table[153])
        nodes = np.stack([to_rgba(PAGE)[:3], tone[:3], _mixed(tone, "white", 0.7)])
        at = np.clip((ink - ink[0]) / (ink[-1] - ink[0]), 0, 1)
        mixed = np.stack([np.interp(at, (0, 0.6, 1), part) for part in nodes.T], axis=1)
        return LinearSegmentedColormap.from_list(f"{colours.name}_dark", mixed)
    if isinstance(colours, ListedColormap) and colours.N <= 32:
        return ListedColormap([dark_colour(colour) for colour in colours(range(colours.N))])
    return ListedColormap([dark_colour(colour) for colour in table]) if points else colours


def _artists(figure: Figure) -> list[Any]:
    found: list[Any] = figure.findobj(Artist)
    words = [artist for artist in found if isinstance(artist, Text)]
    # boxes and arrows of texts are nobody's children
    return found + [part for word in words for part in (word.get_bbox_patch(), getattr(word, "arrow_patch", 0)) if part]


def _changes(artist: Any, papers: list[Any]) -> Iterator[Change]:
    """The setters of an artist that give it its dark colours."""
    names: tuple[str, ...] = ()
    least = LINE
    if isinstance(artist, Text):
        names, least = ("color",), TEXT
    elif isinstance(artist, Line2D):
        names = ("color", "markeredgecolor", "markerfacecolor")
    elif isinstance(artist, Collection) and artist.get_array() is not None:
        yield artist.set_cmap, dark_map(artist.get_cmap(), isinstance(artist, PathCollection))
    elif isinstance(artist, (Collection, Patch)):
        names, least = ("edgecolor", "facecolor"), LINE if isinstance(artist, Collection) else 1.0
    elif isinstance(artist, AxesImage) and np.ndim(np.asarray(artist.get_array())) == 2:
        yield artist.set_cmap, dark_map(artist.get_cmap())
    for name in names:
        colour, change = getattr(artist, f"get_{name}")(), getattr(artist, f"set_{name}")
        if artist in papers:
            yield change, "none"
        elif isinstance(artist, Collection):
            if len(colour) and np.any(colour[:, 3] > 0):
                yield change, [dark_colour(one, least) for one in colour]
        elif to_rgba(colour)[3] > 0:
            yield change, dark_colour(colour, least)


@contextmanager
def dark(figure: Figure) -> Iterator[None]:
    """Give the artists of a figure that has been drawn their dark colours, in the layout that they have.

    Figure and axes lose their paper: give `savefig` a `facecolor`. Pictures in colour stay as they are.
    """
    artists = _artists(figure)
    papers = [figure.patch, *(ax.patch for ax in figure.axes)]
    # all are looked up before the first is changed: labels of level lines follow their lines
    changes = [change for artist in artists for change in _changes(artist, papers)]
    maps = [(artist.set_cmap, artist.get_cmap()) for artist in artists if hasattr(artist, "set_cmap")]
    state = [(artist, dict(vars(artist))) for artist in artists]
    try:
        figure.set_layout_engine("none")
        for change, value in changes:
            change(value)
        yield
    finally:
        for change, value in maps:
            change(value)
        for artist, attributes in state:
            vars(artist).clear()
            vars(artist).update(attributes)


def dark_png(figure: Figure) -> bytes:
    """The dark drawing of a figure that has been drawn, on the dark page, as a PNG of the size of the light one."""
    drawn, picture = io.BytesIO(), io.BytesIO()
    with dark(figure):
        figure.savefig(drawn, format="png", dpi=figure.dpi, bbox_inches="tight", facecolor=PAGE, edgecolor="none")
    # 256 colours take a third of the space
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(picture, format="PNG", optimize=True)
    return picture.getvalue()


def show_dark() -> None:
    """Let this notebook show the dark drawing of each figure beside the light one; outside IPython do nothing."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    from IPython.core.formatters import BaseFormatter

    class DarkFormatter(BaseFormatter):
        """Takes figures by itself: matplotlib's integration with IPython deletes what is registered for them."""

        def __call__(self, shown: Any) -> str | None:
            drawn = isinstance(shown, Figure) and (shown.axes or shown.lines)
            return base64.b64encode(dark_png(shown)).decode() if drawn else None

    formatter = DarkFormatter(parent=shell.display_formatter, format_type=MIME, print_method="_repr_dark_png_")
    # the last of the formatters: the light drawing comes first and settles the layout
    shell.display_formatter.formatters[MIME] = formatter

"""The book's figures: one style, a colour-blind-safe palette, and the few plots that chapters share."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from hjbridge.plotting.dark import show_dark

#: Okabe and Ito's palette without yellow: the order survives colour blindness and grey print
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
INK, PALE = "#222222", "#BBBBBB"
#: the marks of stochastic and deterministic samplers in every chapter
MARKERS = ("o", "s", "^", "D", "v", "P")


def use_style() -> None:
    """Set matplotlib's defaults for the book: fonts legible at 360 px, quiet axes, 100 dots per inch.

    A notebook then shows a dark drawing beside each figure, see `dark`.
    """
    show_dark()
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6), "figure.dpi": 100, "savefig.dpi": 100, "figure.constrained_layout.use": True,
            "figure.facecolor": "white", "savefig.facecolor": "white",
            "font.size": 13, "axes.titlesize": 13, "axes.labelsize": 13, "legend.fontsize": 12,
            "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "axes.labelcolor": INK,
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, PURPLE, SKY, RED]),
            "lines.linewidth": 2.0, "legend.frameon": False, "image.cmap": "gray_r",
        }
    )  # fmt: skip


def density_and_paths(x: np.ndarray, times: np.ndarray, density: np.ndarray, paths: np.ndarray) -> Figure:
    """Densities of a one-dimensional process over time as shading, with some of its paths on top.

    Args: x (m,) positions; times (k,); density (k, m); paths (any, n) on a uniform grid.
    Returns: the figure, time to the right.
    """
    figure, (left, middle, right) = plt.subplots(
        1, 3, sharey=True, figsize=(7.2, 3.6), gridspec_kw={"width_ratios": [1, 5, 1]}
    )
    # every column is scaled by its own maximum, so that narrow and wide densities are both seen
    shade = (density / density.max(axis=1, keepdims=True)).T
    middle.imshow(
        shade, extent=(times[0], times[-1], x[0], x[-1]), origin="lower", aspect="auto", cmap="Blues", vmax=1.6
    )
    middle.plot(np.linspace(times[0], times[-1], len(paths)), paths, color=INK, linewidth=0.6, alpha=0.7)
    middle.set(xlabel="time $t$ (0 data, 1 noise)", ylim=(x[0], x[-1]))
    left.fill_betweenx(x, density[0], color=BLUE, alpha=0.8, linewidth=0)
    left.invert_xaxis()
    left.set(ylabel="$x$", title="data", xticks=[])
    right.fill_betweenx(x, density[-1], color=BLUE, alpha=0.8, linewidth=0)
    right.set(title="noise", xticks=[])
    return figure


def lines(
    curves: Mapping[str, tuple], ax: Axes | None = None, *, reference: tuple[str, float] | None = None, log: str = ""
) -> Axes:
    """Curves of means with standard errors over seeds, and one horizontal reference line.

    Args: curves, label to (x (k,), values (seeds, k)); ax where to draw, None for a new figure; reference (label,
        value); log "x", "y" or "xy". Returns: ax.
    """
    ax = plt.subplots()[1] if ax is None else ax
    for marker, (label, (x, values)) in zip(MARKERS, curves.items(), strict=False):
        values = np.asarray(values, dtype=float)
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        ax.errorbar(x, values.mean(axis=0), yerr=error, marker=marker, capsize=3, label=label)
    if reference is not None:
        ax.axhline(reference[1], color=INK, linestyle=":", label=reference[0])
    if "x" in log:
        ax.set_xscale("log")
        ticks = sorted({float(value) for x, _ in curves.values() for value in x})
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
    if "y" in log:
        ax.set_yscale("log")
    if len(curves) + (reference is not None) > 1:
        ax.legend()
    return ax


def image_grid(images, columns: int = 10, titles: Sequence[str] | None = None, scale: float = 0.62) -> Figure:
    """Images (n, 1, h, w) or (n, 3, h, w) in [0, 1] on a tight grid, row by row; titles stand left of the rows."""
    pixels = np.moveaxis(np.asarray(images, dtype=float), 1, -1)
    rows = -(-len(pixels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(scale * columns + (1.0 if titles else 0.0), scale * rows))
    axes = np.atleast_2d(axes).reshape(rows, columns)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image in zip(axes.flat, pixels, strict=False):
        ax.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, vmin=0, vmax=1, interpolation="nearest")
    for ax, title in zip(axes[:, 0], titles or (), strict=False):
        ax.text(-0.15, 0.5, title, transform=ax.transAxes, ha="right", va="center", fontsize=11)
    return figure


def _encode(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _picture(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=72)
    return picture.getvalue()


def animation(
    draw: Callable[[int], None],
    frames: int,
    figure: Figure,
    *,
    alt: str,
    caption: str,
    still: int,
    seconds: float = 4.0,
):
    """An animation as a GIF that is a still picture in print and for readers who ask for reduced motion.

    Args: draw(k) draws frame k on `figure`; still is the frame that stands in print; alt describes the content;
        seconds is its length, up to a whole number of frames a second.
    Returns: an IPython HTML object; the book's site repaints it for dark pages.
    Raises: ValueError if the GIF reaches 1 MB.
    """
    from IPython.display import HTML

    shown = []
    for k in range(frames):
        draw(k)
        # few colours and no dither: two thirds of the size
        shown.append(Image.open(io.BytesIO(_picture(figure))).convert("RGB").quantize(64, dither=Image.Dither.NONE))
    moving = io.BytesIO()
    duration = round(1000 / max(1, round(frames / seconds)))
    shown[0].save(moving, format="GIF", save_all=True, append_images=shown[1:], duration=duration, loop=0)
    if (size := len(moving.getvalue())) >= 1_000_000:
        raise ValueError(f"the animation must stay below 1 MB, got {size / 1e6:.2f} MB: fewer frames or colours")
    draw(still)
    picture = _picture(figure)
    plt.close(figure)
    return HTML(
        '<figure class="animation"><picture>'
        f'<source media="print, (prefers-reduced-motion: reduce)" srcset="{_encode(picture, "png")}">'
        f'<img src="{_encode(moving.getvalue(), "gif")}" alt="{escape(alt)}"></picture>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def image_animation(
    frames: Sequence, *, columns: int, alt: str, caption: str, still: int, seconds: float = 5.0, scale: float = 1.0
):
    """An animation of image grids; each frame holds images (n, c, h, w) in [0, 1]. See `animation`."""
    figure = image_grid(frames[0], columns, scale=scale)
    shown = [ax.images[0] for ax in figure.axes]

    def draw(k: int) -> None:
        for artist, image in zip(shown, np.moveaxis(np.asarray(frames[k], dtype=float), 1, -1), strict=True):
            artist.set_data(image.squeeze(-1) if image.shape[-1] == 1 else image)

    return animation(draw, len(frames), figure, alt=alt, caption=caption, still=still, seconds=seconds)


def particle_animation(states, angle, *, alt: str, caption: str, still: int | None = None, seconds: float = 5.0):
    """An animation of particles in the plane; states (frames, n, 2), angle (n,) sets the colour. See `animation`."""
    states = np.asarray(states, dtype=float)
    figure, ax = plt.subplots(figsize=(4.2, 4.2))
    dots = ax.scatter(states[0, :, 0], states[0, :, 1], c=np.asarray(angle), cmap="hsv", s=9)
    ax.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4))
    ax.axis("off")
    still = len(states) - 1 if still is None else still
    return animation(
        lambda k: dots.set_offsets(states[k]),
        len(states),
        figure,
        alt=alt,
        caption=caption,
        still=still,
        seconds=seconds,
    )

"""Figures of quantities against the length of a step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from hjbridge.plotting import INK, MARKERS


def against_step(
    curves: Mapping[str, tuple], ax: Axes, *, ylabel: str, reference: tuple[str, float] | None = None, log: str = "xy"
) -> Axes:
    """Curves against the step, on logarithmic axes; values with one row per seed get standard errors.

    Args: curves, label to (steps (k,), values (k,) or (seeds, k)); ax where to draw; reference (label, value), a
        horizontal line; log "x" or "xy". Returns: ax.
    """
    for marker, (label, (steps, values)) in zip(MARKERS, curves.items(), strict=False):
        rows = np.atleast_2d(np.asarray(values, dtype=float))
        error = rows.std(axis=0, ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else None
        ax.errorbar(np.asarray(steps), rows.mean(axis=0), yerr=error, marker=marker, markersize=5, label=label)
    if reference is not None:
        ax.axhline(reference[1], color=INK, linestyle=":", label=reference[0])
    ax.set(xlabel="step $\\Delta$", ylabel=ylabel, xscale="log", yscale="log" if "y" in log else "linear")
    ax.legend(fontsize=11)
    return ax

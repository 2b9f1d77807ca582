"""Figures of quantities against the length of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hjbridge.hjb import ControlProblem
from hjbridge.hjb.discrete.spectral import held_circle
from hjbridge.plotting.style import INK, MARKERS


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


def by_power(curves: Mapping[str, Mapping[int, Any]], ax: Axes | None = None, **options: Any) -> Axes:
    """Curves of label to {k: value at the step 2^-k}, a number or one for each seed. See `against_step`."""
    ax = plt.subplots()[1] if ax is None else ax
    drawn = {}
    for label, points in curves.items():
        values = np.array([np.asarray(value, dtype=float) for value in points.values()])
        drawn[label.replace("_", " ")] = ([2.0**-k for k in points], values.T)
    return against_step(drawn, ax, **options)


def two_by_power(left: Mapping[str, Any], right: Mapping[str, Any]) -> Figure:
    """Two panels by `by_power`; each argument holds `curves` and the options of `against_step`."""
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.5))
    for ax, panel in zip(axes, (left, right), strict=True):
        by_power(ax=ax, **panel)
    return figure


def held_values(problem: ControlProblem, powers: tuple[int, ...], curves: Mapping[str, tuple]) -> Figure:
    """Values on the circle for a control held for 2^-k, with their limit (left), and errors against the step (right).

    Args: problem, on a circle, with an exact solution; powers k; curves as for `against_step`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.6))
    assert problem.exact is not None
    for k in powers:
        held = held_circle(problem, 2.0**-k)
        left.plot(held.x, held.value, label=f"$\\Delta$ = 1/{2**k}")
    limit: Tensor = problem.exact.value(held.x[:, None])
    left.plot(held.x, limit, ":", color=INK, label="HJB")
    left.set(xlabel="$x$", ylabel="value", ylim=(0.2, 3.6))
    left.legend(ncols=2, fontsize=10)
    against_step(curves, right, ylabel="error")
    return figure

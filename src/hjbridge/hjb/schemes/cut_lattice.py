"""A lattice whose lines the boundary of a domain cuts: differences with unequal steps, and continuation outside."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse

from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.schemes.lattice import Lattice

Array = np.ndarray
BISECTIONS = 50


class Arm(NamedTuple):
    """From each inner point in one direction: the step h to the next inner point or to the boundary before it.

    Attributes: h (n,); neighbour (n,), the number of the inner point, or -1 at the boundary; cost (n,), the exit cost
    at the boundary, 0 elsewhere; beyond (n,), the lattice index of the next point, inside or not.
    """

    h: Array
    neighbour: Array
    cost: Array
    beyond: Array


def arms(problem: ControlProblem, lattice: Lattice, own: Array, axis: int, side: int) -> Arm:
    """The arms along `axis` towards `side` (-1 or 1) of the inner points, whose lattice indices are `own` (n,)."""
    assert problem.inside is not None and problem.exit_cost is not None
    points = lattice.points()
    number = np.full(len(points), -1)
    number[own] = np.arange(len(own))
    spacing = float(lattice.axes[axis][1] - lattice.axes[axis][0])
    beyond = own + side * int(np.prod(lattice.shape[axis + 1 :]))
    neighbour = number[beyond]
    out = np.flatnonzero(neighbour < 0)
    start, way = points[torch.from_numpy(own[out])], torch.zeros(lattice.points().shape[1], dtype=torch.float64)
    way[axis] = side * spacing
    low, high = torch.zeros(len(out), 1, dtype=torch.float64), torch.ones(len(out), 1, dtype=torch.float64)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        within = problem.inside(start + middle * way).unsqueeze(1)
        low, high = torch.where(within, middle, low), torch.where(within, high, middle)
    h, cost = np.full(len(own), spacing), np.zeros(len(own))
    h[out] = spacing * high[:, 0].clamp(min=1e-6).numpy()
    cost[out] = problem.exit_cost(start + high * way, torch.zeros((), dtype=torch.float64)).numpy()
    return Arm(h, neighbour, cost, beyond)


def generator(f: Array, a: Array, pairs: list[tuple[Arm, Arm]]) -> tuple[sparse.csc_matrix, list[tuple[Array, Array]]]:
    """L = f.grad + sum_i a_ii d^2/dx_i^2/2 on the inner points, and what of it reaches over the boundary.

    Args: f, a (n, d); pairs, for each axis the lower and the upper arm.
    Returns: the matrix of the weights between inner points, and for each arm, axis by axis and lower first, the inner
        points (rows) whose neighbour is the boundary, with its weights.
    """
    rows, columns, entries, exits, every = [], [], [], [], np.arange(len(f))
    for i, (lower, upper) in enumerate(pairs):
        # psi'' ~ 2 (psi_+/h_+ + psi_-/h_-)/(h_+ + h_-) - 2 psi/(h_+ h_-)
        # psi' ~ (h_- psi_+/h_+ - h_+ psi_-/h_-)/(h_+ + h_-) + (h_+ - h_-) psi/(h_+ h_-)
        rows.append(every)
        columns.append(every)
        entries.append((f[:, i] * (upper.h - lower.h) - a[:, i]) / (lower.h * upper.h))
        for side, arm, other in ((-1, lower, upper), (1, upper, lower)):
            weight = (a[:, i] + side * f[:, i] * other.h) / (arm.h * (lower.h + upper.h))
            within = arm.neighbour >= 0
            rows.append(every[within])
            columns.append(arm.neighbour[within])
            entries.append(weight[within])
            exits.append((every[~within], weight[~within]))
    place = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csc_matrix((np.concatenate(entries), place), shape=(len(f), len(f))), exits


def continued(lattice: Lattice, own: Array, inner: Array, pairs: list[tuple[Arm, Arm]]) -> Array:
    """Values on the whole lattice, from those on the inner points and on the boundary.

    The first points outside lie on the parabola through the boundary and two points inside, those behind them on
    straight lines, and what is then left copies its neighbours: a spline needs values there, but the domain does not.
    """
    total, count = np.zeros(int(np.prod(lattice.shape))), np.zeros(int(np.prod(lattice.shape)))
    for i, (lower, upper) in enumerate(pairs):
        spacing = float(lattice.axes[i][1] - lattice.axes[i][0])
        for arm, back in ((lower, upper), (upper, lower)):
            out = np.flatnonzero(arm.neighbour < 0)
            theta, value, first = arm.h[out] / spacing, arm.cost[out], back.neighbour[out]
            second = np.where(first >= 0, back.neighbour[first], -1)
            deep = second >= 0
            # Lagrange's formula with nodes theta, -1, -2 at 1
            parabola = 6 * value / ((2 + theta) * (1 + theta)) - 3 * (1 - theta) / (1 + theta) * inner[first]
            parabola = parabola + 2 * (1 - theta) / (2 + theta) * inner[second]
            np.add.at(total, arm.beyond[out], np.where(deep, parabola, value))
            np.add.at(count, arm.beyond[out], 1)
    table = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    table[own] = inner
    table = table.reshape(lattice.shape)
    for ring in range(sum(lattice.shape)):
        if np.isfinite(table).all():
            break
        table = _ring(table, straight=ring < 3)
    return table


def _ring(table: Array, straight: bool) -> Array:
    """Fill the missing points next to known ones with the mean of what each axis and side proposes."""
    guesses = []
    for i in range(table.ndim):
        for side in (1, -1):
            one, two = (_shifted(table, side * k, i) for k in (1, 2))
            guesses.append(2 * one - two if straight else one)
    known = np.isfinite(guesses)
    mean = np.where(known, guesses, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    return np.where(np.isnan(table) & known.any(0), mean, table)


def _shifted(table: Array, by: int, axis: int) -> Array:
    """The table moved along an axis, NaN where nothing comes from."""
    moved = np.roll(table, by, axis)
    gone = [slice(None)] * table.ndim
    gone[axis] = slice(0, by) if by > 0 else slice(by, None)
    moved[tuple(gone)] = np.nan
    return moved

"""Weights of local interpolation on a lattice, for a great many points at once."""

from __future__ import annotations

from functools import reduce

import numpy as np

from hjbridge.hjb.schemes.lattice import Lattice


def weights(lattice: Lattice, y: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights whose weighted sum interpolates at y (M, d): both (M, (degree + 1)^d).

    Lagrange's formula along each axis through the degree + 1 nearest points: 1 (multilinear, weights in [0, 1]) or 3.
    """
    columns, weight = np.zeros((len(y), 1), dtype=np.int32), np.ones((len(y), 1))
    for i, n in enumerate(lattice.shape):
        cell, place = _cell(lattice, i, y[:, i])
        first = cell - (degree - 1) // 2
        if not lattice.periods[i]:
            first = np.clip(first, 0, n - 1 - degree)
        own = [first + j for j in range(degree + 1)]
        nodes = [_nodes(lattice, i, index) for index in own]
        basis = []
        for j in range(degree + 1):
            # prod_k (y - x_k)/(x_j - x_k) over k != j
            ratios = [(place - nodes[k]) / (nodes[j] - nodes[k]) for k in range(degree + 1) if k != j]
            basis.append(reduce(np.multiply, ratios))
        place_of = np.stack([index % n if lattice.periods[i] else index for index in own], 1)
        columns = (columns[:, :, None] * np.int32(n) + place_of[:, None, :]).reshape(len(y), -1)
        weight = (weight[:, :, None] * np.stack(basis, 1)[:, None, :]).reshape(len(y), -1)
    return columns, weight


def cells(lattice: Lattice, y: np.ndarray) -> np.ndarray:
    """Index (M,) of the lowest corner of the cell in which each of the points y (M, d) lies."""
    index = np.zeros(len(y), dtype=np.int32)
    for i, n in enumerate(lattice.shape):
        index = index * np.int32(n) + _cell(lattice, i, y[:, i])[0]
    return index


def extremes(lattice: Lattice, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest of the corners of each cell, each (N,) at its lowest corner, for values v (N,)."""
    low = high = v.reshape(lattice.shape)
    for i in range(len(lattice.shape)):
        low, high = np.minimum(low, np.roll(low, -1, i)), np.maximum(high, np.roll(high, -1, i))
    return low.ravel(), high.ravel()


def _cell(lattice: Lattice, i: int, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the axis point below y (M,), and y brought into the period."""
    axis, period = lattice.axes[i], lattice.periods[i]
    last = len(axis) - 1 if period else len(axis) - 2
    if period:
        y = axis[0] + np.mod(y - axis[0], period)
    step = axis[1] - axis[0]
    even = bool(np.allclose(np.diff(axis), step, rtol=1e-9, atol=0))
    below = (y - axis[0]) / step if even else np.searchsorted(axis, y, side="right") - 1
    return np.clip(below.astype(np.int32), 0, last), y


def _nodes(lattice: Lattice, i: int, index: np.ndarray) -> np.ndarray:
    """Coordinates of axis points, those of a periodic axis counted on beyond its ends."""
    axis, n, period = lattice.axes[i], len(lattice.axes[i]), lattice.periods[i]
    return axis[index % n] + np.floor_divide(index, n) * period if period else axis[index]

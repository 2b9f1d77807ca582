"""Splines on a lattice, of degree 1 or 3, which torch differentiates in the point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor


@dataclass(frozen=True)
class Spline:
    """s(x) = sum_j c_j prod_i N_{j_i}(x_i), B-splines N of one degree; C^2 if the degree is 3, continuous if it is 1.

    Attributes: knots, one vector for each axis, with (degree + 1)-fold ends or periodic; coefficients, an array with
    one axis each. Source: de Boor 1978, chapters IX and XIII.
    """

    knots: tuple[Tensor, ...]
    coefficients: Tensor
    degree: int

    def __call__(self, x: Tensor) -> Tensor:
        """s at points x (n, d) between the end knots, of shape (n,)."""
        flat, index, weight = self.coefficients.to(x).flatten(), x.new_zeros(len(x), 1, dtype=torch.long), None
        for i, knots in enumerate(self.knots):
            first, basis = b_splines(knots.to(x), x[:, i], self.degree)
            own = first.unsqueeze(1) + torch.arange(self.degree + 1, device=x.device)
            index = (index.unsqueeze(2) * self.coefficients.shape[i] + own.unsqueeze(1)).flatten(1)
            weight = basis if weight is None else (weight.unsqueeze(2) * basis.unsqueeze(1)).flatten(1)
        assert weight is not None
        return (flat[index] * weight).sum(1)

    def fix(self, t: Tensor) -> Spline:
        """The spline in the other axes, at the 0-d value t of the first axis; it carries the graph of t."""
        first, basis = b_splines(self.knots[0].to(t), t.unsqueeze(0), self.degree)
        layers = self.coefficients[int(first) : int(first) + self.degree + 1].to(t)
        return Spline(self.knots[1:], torch.tensordot(basis[0], layers, 1), self.degree)


def fit(axes: Sequence[np.ndarray], periods: Sequence[float], table: np.ndarray, degree: int) -> Spline:
    """The spline through the table at the points of the axes, with not-a-knot ends.

    Args: periods, for each axis 0 or the period, in which case the axis stops short of its end by one spacing.
    """
    knots, c = [], table
    for i, (axis, period) in enumerate(zip(axes, periods, strict=True)):
        if len(axis) < degree + 1:
            raise ValueError(f"points must be at least {degree + 1} on every axis, got {len(axis)}")
        lines = np.moveaxis(c, i, 0)
        if period:
            # coefficients are linear in the values: the splines through unit vectors give the matrix
            unit = np.eye(len(axis))
            piece = make_interp_spline(
                np.append(axis, axis[0] + period), np.append(unit, unit[:1], 0), k=degree, bc_type="periodic"
            )
            found = np.tensordot(piece.c, lines, 1)
        else:
            piece = make_interp_spline(axis, lines, k=degree)
            found = piece.c
        knots.append(torch.from_numpy(np.array(piece.t)))
        c = np.moveaxis(found, 0, i)
    return Spline(tuple(knots), torch.from_numpy(np.ascontiguousarray(c)), degree)


def b_splines(knots: Tensor, x: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """The B-splines that do not vanish at x (n,): index of the first of them (n,) and their values (n, degree + 1)."""
    with torch.no_grad():
        last = torch.searchsorted(knots, x.detach().contiguous(), right=True) - 1
        last = last.clamp(degree, len(knots) - degree - 2)
    basis = [torch.ones_like(x)]
    for k in range(1, degree + 1):
        previous, basis = basis, [torch.zeros_like(x) for _ in range(k + 1)]
        for j in range(k):
            left, right = knots[last + 1 - k + j], knots[last + 1 + j]
            # N_{j,k} = (x - t_j)/(t_{j+k} - t_j) N_{j,k-1} + (t_{j+k+1} - x)/(t_{j+k+1} - t_{j+1}) N_{j+1,k-1}
            share = previous[j] / (right - left)
            basis[j] = basis[j] + (right - x) * share
            basis[j + 1] = basis[j + 1] + (x - left) * share
    return last - degree, torch.stack(basis, 1)

"""Linearly solvable first-exit problems: one sparse linear system on a lattice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from hjbridge.hjb.methods.temperature import check_points, temperature
from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.schemes.cut_lattice import arms, continued, generator
from hjbridge.hjb.schemes.lattice import Lattice
from hjbridge.hjb.schemes.spline import fit
from hjbridge.hjb.solution import Solution

Array = np.ndarray


@dataclass(frozen=True)
class FirstExit:
    """V = -lam ln psi in one or two dimensions, on a lattice over `problem.box`, with

        f.grad psi + tr(sigma sigma' Hess psi)/2 - (l/lam) psi = 0 inside,    psi = e^(-exit_cost/lam) outside

    Central differences, with unequal steps where the boundary cuts a line of the lattice (Shortley and Weller 1938):
    second order in the spacing. A cubic spline carries V between the points; outside the domain V is the exit cost.

    Attributes: points, along each axis; None takes 401 in one dimension and 101 in two.
    """

    points: int | None = None

    def __post_init__(self) -> None:
        if self.points is not None and self.points < 8:
            raise ValueError(f"points must be at least 8, got {self.points}")

    def solve(self, problem: ControlProblem, seed: int = 0) -> Solution:
        """Solve the problem; nothing is random.

        Raises: ValueError if the problem is not linearly solvable (names the largest deviation), has a horizon, more
            than two states, noise that is correlated between them, a domain that is not inside its box, or a drift
            that needs more points (says how many) or has no noise along it.
        """
        if problem.horizon is not None or problem.inside is None:
            raise ValueError("problem must have a domain (inside) and no horizon for FirstExit: use HopfCole or Grid")
        if problem.dim > 2 or problem.box is None or problem.periodic:
            raise ValueError(f"problem must have 1 or 2 states in a box that is not periodic, got {problem.dim} states")
        x = check_points(problem)[0]
        x = x[problem.inside(x)]
        if len(x) == 0:
            raise ValueError("box must hold the domain of the problem, got one that holds no point of it")
        temp = temperature(problem, x, 0.0)
        n = (401 if problem.dim == 1 else 101) if self.points is None else self.points
        low, high = (end.double().tolist() for end in problem.box)
        lattice = _lattice(low, high, (n,) * problem.dim)
        value = _solve(problem, temp, lattice)
        settings = {"low": low, "high": high}
        found = self.restore(problem, settings, {"table": torch.from_numpy(value)})
        history = [{"temperature": temp, "spacing": [float(axis[1] - axis[0]) for axis in lattice.axes]}]
        return Solution(
            problem, "FirstExit", found.value_function, settings=settings, tensors=found.tensors, history=history
        )

    @classmethod
    def restore(cls, problem: ControlProblem, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Solution:
        """Rebuild a solution from what `Solution.save` wrote."""
        inside, exit_cost = problem.inside, problem.exit_cost
        assert inside is not None and exit_cost is not None
        table = tensors["table"]
        lattice = _lattice(settings["low"], settings["high"], tuple(table.shape))
        spline = fit(lattice.axes, lattice.periods, table.numpy(), 3)
        middle = [float(axis.mean()) for axis in lattice.axes]

        def value(x: Tensor, t: Tensor) -> Tensor:
            within = inside(x)
            safe = torch.where(within.unsqueeze(1), x, x.new_tensor(middle))
            return torch.where(within, spline(safe), exit_cost(x, t))

        return Solution(problem, "FirstExit", value, settings=settings, tensors=tensors)


def _lattice(low: Sequence[float], high: Sequence[float], shape: tuple[int, ...]) -> Lattice:
    axes = tuple(np.linspace(a, b, n) for a, b, n in zip(low, high, shape, strict=True))
    return Lattice(axes, (0.0,) * len(axes))


def _solve(problem: ControlProblem, temp: float, lattice: Lattice) -> Array:
    """V on the lattice, continued a little beyond the domain."""
    assert problem.inside is not None
    points = lattice.points()
    inside = problem.inside(points).numpy()
    table = inside.reshape(lattice.shape)
    if not inside.any() or any(table.take([0, -1], axis=i).any() for i in range(table.ndim)):
        raise ValueError("box must hold the domain of the problem, got one that cuts it")
    own = np.flatnonzero(inside)
    f, a, cost = _coefficients(problem, points[torch.from_numpy(own)])
    pairs = [(arms(problem, lattice, own, i, -1), arms(problem, lattice, own, i, 1)) for i in range(problem.dim)]
    _check_drift(lattice, f, a)
    matrix, exits = generator(f, a, pairs)
    flat = [arm for pair in pairs for arm in pair]
    # costs are counted from the least exit cost, so that psi stays within reach of floating point
    least = min(arm.cost[rows].min() for arm, (rows, _) in zip(flat, exits, strict=True))
    source = np.zeros(len(own))
    for arm, (rows, weight) in zip(flat, exits, strict=True):
        source[rows] -= weight * np.exp(-(arm.cost[rows] - least) / temp)
    # f.grad psi + tr(sigma sigma' Hess psi)/2 - (l/lam) psi = 0
    psi = spsolve(matrix - sparse.diags(cost / temp, format="csc"), source)
    if not (np.isfinite(psi).all() and (psi > 0).all()):
        raise FloatingPointError(
            "psi is not positive: costs too large for the temperature, or a running cost too negative"
        )
    # V = -lam ln psi
    return continued(lattice, own, least - temp * np.log(psi), pairs)


def _coefficients(problem: ControlProblem, x: Tensor) -> tuple[Array, Array, Array]:
    """f (n, d), the diagonal of sigma sigma' (n, d), and l (n,)."""
    t = torch.zeros((), dtype=torch.float64)
    sigma = problem.noise(x, t)
    a = sigma**2 if sigma.ndim == 2 else (sigma @ sigma.mT).diagonal(dim1=1, dim2=2)
    if sigma.ndim == 3:
        mixed = (sigma @ sigma.mT - torch.diag_embed(a)).abs().max().item()
        if mixed > 0:
            raise ValueError(f"sigma sigma' must be diagonal for FirstExit, got entries off it of {mixed:.3g}")
    cost = torch.zeros(len(x)).to(x) if problem.running_cost is None else problem.running_cost(x, t)
    return problem.drift(x, t).numpy(), a.numpy(), cost.numpy()


def _check_drift(lattice: Lattice, f: Array, a: Array) -> None:
    """Refuse spacings h with |f| h > a: the differences would not be monotone."""
    for i, axis in enumerate(lattice.axes):
        # a state without drift and noise does not change: no differences are taken along it
        moves = f[:, i] != 0
        if (a[moves, i] == 0).any():
            raise ValueError(f"dispersion must not vanish along state {i} where there is drift along it, got 0: no "
                             "number of points is enough for FirstExit there; use PolicyIteration or Grid")  # fmt: skip
        need = (np.abs(f[moves, i]) / a[moves, i]).max(initial=0) * (axis[-1] - axis[0])
        if not need <= len(axis) - 1:
            raise ValueError(f"points must be at least {int(np.ceil(need)) + 1} for this drift, got {len(axis)}")

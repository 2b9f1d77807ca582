"""Grids: finite differences or semi-Lagrangian steps for any problem of one to three dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hjbridge.hjb.methods.policy_iteration import PolicyIteration
from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.schemes import implicit, semi_lagrangian
from hjbridge.hjb.schemes.howard import discretise
from hjbridge.hjb.schemes.lattice import Axis, Domain, Lattice, check_memory, factor_bytes, lattice_for
from hjbridge.hjb.schemes.stencil import Scheme
from hjbridge.hjb.schemes.tabulated import table_of, tabulated
from hjbridge.hjb.solution import Solution

GridScheme = Literal["upwind", "hybrid", "central", "semi-lagrangian", "cubic"]
# in dx, at best; with dt ~ dx for the last two
ORDER = {"upwind": 1, "hybrid": 2, "central": 2, "semi-lagrangian": 1, "cubic": 3}
POINTS = {
    "upwind": {1: 801, 2: 61, 3: 15}, "hybrid": {1: 801, 2: 61, 3: 15}, "central": {1: 801, 2: 41, 3: 21},
    "semi-lagrangian": {1: 401, 2: 120, 3: 31}, "cubic": {1: 201, 2: 121, 3: 31},
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Solve the HJB equation on a lattice of 1 to 3 dimensions, backwards in time from the terminal cost.

        scheme           order in dx, dt   monotone   for
        upwind           1, 1              yes        everything whose noises are not correlated
        hybrid           1 to 2, 1         yes        the same; order 2 in dx where noise dominates
        central          2, 2              no         values that are smooth or have no kink but at the end
        semi-lagrangian  1, 1 (dt ~ dx)    yes        bounded or finitely many controls; no linear solves
        cubic            1 to 3 (dt ~ dx)  no         the same where the value is smooth nearly everywhere

    The order of cubic is 1 with noise, 2 with controls alone, which are held for a step, and 3 without either.
    The first three take an implicit step and Howard's iteration in it (`implicit.march`), cover obstacles and controls
    in the dispersion, and find continuous controls by the problem's own minimiser. The semi-Lagrangian schemes
    (`semi_lagrangian.march`) try every member of a finite set, or `controls` levels between the bounds. Without horizon
    the first three are `PolicyIteration`, the others value iteration (`semi_lagrangian.iterate`).

    Boundaries: where the problem has ended, V is the exit cost. At other ends of the domain upwind and hybrid drop the
    drift and noise that would lead out of it and the semi-Lagrangian schemes set paths back on it (the state is kept
    inside); central continues V as a quadratic and the control linearly. Periodic axes have no ends.

    `Grid()` takes what `problem.grid` says, if that says anything.

    Args:
        points: along each axis, one number or one for each; None takes what `POINTS` says.
        steps: of time; None takes a quarter of the largest number of points, at least 30 (80 for central). They are
            equal for the semi-Lagrangian schemes; otherwise T - t is T (k/steps)^2, which keeps order 2 where the
            terminal cost has a kink. Without horizon: semi-Lagrangian steps in a unit of time, one number or one for
            each member of the control set; None lets the median step cross two cells.
        domain: lowest and highest state (d,); None takes `lattice.default_domain`, mostly the box.
            An axis has equal ratios if high >= 8 low > 0.
        scheme: None takes central in 1-D, for linear-quadratic problems and where controls have no bounds,
            semi-lagrangian otherwise; without horizon cubic where there is an exit, no noise and bounded or finitely
            many controls, else what `PolicyIteration` takes.
        controls: levels between the bounds, for each control, of the semi-Lagrangian schemes.
        axes: all coordinates on each axis, in place of points and domain.
    The value is a cubic spline in state and time through the table (between its points a spline may leave the bounds
    that a monotone scheme keeps at them), the control the problem's minimiser at its derivatives; where a
    semi-Lagrangian value has a ridge, at the one-sided difference towards the lower side. States outside the domain are
    refused. `meta` says scheme, order in dx, shape and steps; `history` has Howard's iterations at each step.
    Source: Kushner and Dupuis 2001, chapters 5 and 12; Falcone and Ferretti 2014, chapter 5.
    """

    points: int | tuple[int, ...] | None = None
    steps: int | float | tuple[int | float, ...] | None = None
    domain: Domain | None = None
    scheme: GridScheme | None = None
    controls: int = 21
    axes: tuple[Axis, ...] | None = None

    def solve(self, problem: ControlProblem, seed: int = 0) -> Solution:
        """Solve the problem; the seed is not used.

        Raises: ValueError for more than three dimensions (says what to use), fewer than 4 points or 3 steps, a grid
            beyond memory (says how much it needs), an unknown scheme or one that does not cover the problem;
            FloatingPointError if a cost is not finite on the grid, or Howard's iteration does not end.
        """
        if self.scheme is not None and self.scheme not in ORDER:
            raise ValueError(f"scheme must be one of {', '.join(ORDER)}, got {self.scheme!r}")
        if problem.grid and self == Grid():
            return replace(self, **problem.grid).solve(problem, seed)
        if problem.horizon is None:
            return self._stationary(problem, seed)
        free = problem.controls > 0 and problem.control_set is None and problem.bounds is None
        smooth = problem.dim == 1 or problem.linear_quadratic is not None or free
        scheme = self.scheme or ("central" if smooth else "semi-lagrangian")
        lattice = self._lattice(problem, scheme)
        count = max(80 if scheme == "central" else 30, max(lattice.shape) // 4) if self.steps is None else self.steps
        if not isinstance(count, int) or count < 3:
            raise ValueError(f"steps must be a whole number and at least 3, got {count}")
        implicitly = scheme in ("upwind", "hybrid", "central")
        members = None if implicitly else self._members(problem, scheme)
        _check_memory(problem, lattice, count, members, scheme)
        difference: Scheme = scheme if scheme in ("hybrid", "central") else "upwind"
        grid = discretise(problem, lattice, difference)
        if members is None:
            times = problem.horizon * (1 - (np.arange(count, -1, -1) / count) ** 2)
            values, history = implicit.march(grid, times)
        else:
            times = np.linspace(0, problem.horizon, count + 1)
            degree = 3 if scheme == "cubic" else 1
            values, history = semi_lagrangian.march(grid, count, members, degree)
        settings = {"periods": list(lattice.periods), "ridges": members is not None}
        found = tabulated(problem, settings, table_of(lattice, values, times))
        meta = {"scheme": scheme, "order": _order(problem, scheme), "shape": list(lattice.shape), "steps": count}
        return replace(found, meta=meta, history=history)

    @classmethod
    def restore(cls, problem: ControlProblem, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Solution:
        """Rebuild a solution from what `Solution.save` wrote."""
        return tabulated(problem, settings, tensors)

    def _stationary(self, problem: ControlProblem, seed: int) -> Solution:
        finite = problem.control_set is not None or problem.bounds is not None
        still = isinstance(problem.dispersion, float | int) and problem.dispersion == 0
        scheme: GridScheme | None = self.scheme
        if scheme is None and problem.inside is not None and finite and still:
            scheme = "cubic"
        if scheme is None or scheme == "upwind" or scheme == "hybrid" or scheme == "central":
            return PolicyIteration(self.points, self.domain, scheme, self.axes).solve(problem, seed)
        rates = self.steps if isinstance(self.steps, tuple) else () if self.steps is None else (self.steps,)
        if not all(0 < rate < math.inf for rate in rates):
            raise ValueError(f"steps must be positive and finite, got {self.steps}")
        if problem.discount == 0 and problem.inside is None:
            raise ValueError("discount must be positive unless the problem ends by exit, got 0: its cost is infinite")
        lattice, members = self._lattice(problem, scheme), self._members(problem, scheme)
        if isinstance(self.steps, tuple) and len(rates) != len(members):
            raise ValueError(f"steps must be one number or {len(members)}, one for each control, got {self.steps}")
        _check_memory(problem, lattice, 1, members, scheme)
        grid = discretise(problem, lattice, "upwind")
        lengths = [1 / rate for rate in rates] or [semi_lagrangian.two_cells(grid, members)]
        dt = lengths if isinstance(self.steps, tuple) else lengths[0]
        values, history = semi_lagrangian.iterate(grid, dt, members, 3 if scheme == "cubic" else 1)
        settings = {"periods": list(lattice.periods), "ridges": True}
        found = tabulated(problem, settings, table_of(lattice, values))
        meta = {"scheme": scheme, "order": _order(problem, scheme), "shape": list(lattice.shape), "dt": dt}
        return replace(found, meta=meta, history=history[-1:])

    def _lattice(self, problem: ControlProblem, scheme: GridScheme) -> Lattice:
        points = POINTS[scheme].get(problem.dim, 5) if self.points is None else self.points
        return lattice_for(problem, points, self.domain, self.axes)

    def _members(self, problem: ControlProblem, scheme: GridScheme) -> Tensor:
        """The controls that a semi-Lagrangian scheme tries, (K, m)."""
        if problem.controls == 0:
            return torch.zeros(1, 0, dtype=torch.float64)
        if problem.control_set is not None:
            return problem.control_set.double()
        if problem.bounds is None:
            raise ValueError(f"scheme must be upwind, hybrid or central where controls have no bounds, got {scheme!r}")
        if self.controls < 2:
            raise ValueError(f"controls must be at least 2, got {self.controls}")
        low, high = (end.tolist() for end in problem.bounds)
        levels = [np.linspace(a, b, self.controls).tolist() for a, b in zip(low, high, strict=True)]
        return torch.tensor(list(product(*levels)), dtype=torch.float64)


def _order(problem: ControlProblem, scheme: str) -> int:
    """The order in dx where the value is smooth; that of cubic falls to what its steps in time allow."""
    if scheme != "cubic":
        return ORDER[scheme]
    sigma = problem.dispersion
    noisy = callable(sigma) or bool(torch.as_tensor(sigma).any())
    return 1 if noisy else 2 if problem.controls else ORDER[scheme]


def _check_memory(problem: ControlProblem, lattice: Lattice, count: int, members: Tensor | None, scheme: str) -> None:
    """Refuse a grid whose table, spline and step would not fit."""
    size, need = float(np.prod(lattice.shape)), factor_bytes(lattice)
    if members is not None:
        corners = 4**problem.dim + 2**problem.dim if scheme == "cubic" else 2**problem.dim
        need = 16 * size * len(members) * corners * (1 + 2 * problem.dim)
    check_memory(16 * size * (count + 1) + need, lattice)

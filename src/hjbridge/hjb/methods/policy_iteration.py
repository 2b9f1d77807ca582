"""Howard's policy iteration for problems without horizon: discounted, ended by leaving a domain, or finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from hjbridge.hjb.discrete.mdp import MDP, Tabular, policy_iteration
from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.schemes.howard import Step, discretise, howard
from hjbridge.hjb.schemes.lattice import Axis, Domain, check_memory, factor_bytes, lattice_for
from hjbridge.hjb.schemes.stencil import Scheme
from hjbridge.hjb.schemes.tabulated import table_of, tabulated
from hjbridge.hjb.solution import Solution

POINTS = {1: 801, 2: 101, 3: 21}
#: of upwind's value; on 108 linear-quadratic problems right roots were at most .65 away from it, wrong ones 1 or more
ASTRAY = 0.8


@dataclass(frozen=True)
class PolicyIteration:
    """Solve min_u { l + c + (f + B u).grad V + tr(sigma sigma' Hess V)/2 } = rho V on a lattice of 1 to 3 dimensions.

    Each iteration evaluates the present policy exactly, by one banded (1-D) or sparse linear solve, and improves it.

        upwind    monotone, order 1; paths are kept inside the domain: what would lead out of it is dropped
        hybrid    the same with central differences where noise allows it: monotone, order 2 there, 1 elsewhere
        central   order 2 where V is smooth, not monotone; open ends continue V as a quadratic

    hybrid and central start from the upwind solution, which is the stage before them. central can fail, or end at
    another root of the equation, where a weak control has to hold an unstable state: if nobody asked for central and it
    does not end, or ends `ASTRAY` of the size of upwind's value away from that, hybrid is taken from the upwind policy,
    and `meta["scheme"]` says so.

    A finite problem, an `MDP`, is its own lattice: min_a { c + gamma P V } = V is solved by
    `discrete.policy_iteration`, to rounding.

    Args: points along each axis (None: 801 in 1-D, 101 in 2-D, 21 in 3-D). domain: lowest and highest state (None:
        `default_domain`). scheme: None takes central for a linear-quadratic problem, hybrid otherwise. axes: all
        coordinates on each axis, in place of points and domain. tolerance: largest residual at the end, relative to
        the largest term. limit: most iterations.
    The solution's `history` has the largest residual at each iteration, of the stages taken. Its value is a cubic
    spline through the lattice, the exit cost where the problem has ended; its control the problem's minimiser there.
    Source: Howard 1960; Kushner and Dupuis 2001, chapters 5 and 6.
    """

    points: int | tuple[int, ...] | None = None
    domain: Domain | None = None
    scheme: Scheme | None = None
    axes: tuple[Axis, ...] | None = None
    tolerance: float = 1e-12
    limit: int = 200

    @overload
    def solve(self, problem: ControlProblem, seed: int = ...) -> Solution: ...
    @overload
    def solve(self, problem: MDP, seed: int = ...) -> Tabular: ...
    def solve(self, problem: ControlProblem | MDP, seed: int = 0) -> Solution | Tabular:
        """Solve the problem; the seed is not used.

        Raises: ValueError for a problem with a horizon, or without horizon, discount and exit; for what `lattice_for`
            refuses; for a lattice given with a finite problem; FloatingPointError (RuntimeError for a finite problem)
            if the iteration does not end.
        """
        if isinstance(problem, MDP):
            return self.solve_finite(problem)
        if problem.horizon is not None:
            raise ValueError(f"problem must have no horizon for PolicyIteration, got {problem.horizon:g}: use Grid")
        if problem.discount == 0 and problem.inside is None:
            raise ValueError("discount must be positive unless the problem ends by exit, got 0: its cost is infinite")
        points = POINTS.get(problem.dim, 5) if self.points is None else self.points
        lattice = lattice_for(problem, points, self.domain, self.axes)
        check_memory(factor_bytes(lattice), lattice)
        zero = torch.zeros((), dtype=torch.float64)
        grid = discretise(problem, lattice, "upwind")
        scheme = self.scheme or ("central" if problem.linear_quadratic is not None else "hybrid")
        curved = torch.eye(problem.dim, dtype=grid.x.dtype).expand(len(grid.x), -1, -1)
        start = problem.best_control(
            grid.x, zero, torch.zeros_like(grid.x), curved if problem.sense == "min" else -curved
        )
        # upwind takes no mixed derivatives: with correlated noises central starts from no control
        history: list[dict[str, Any]] = []

        def run(stage: Scheme, policy: Tensor) -> Step:
            step = howard(
                replace(grid, scheme=stage), zero, policy, shift=problem.discount, tolerance=self.tolerance,
                limit=self.limit,
            )  # fmt: skip
            history.extend({"scheme": stage, "residual": residual} for residual in step.residuals)
            return step

        if scheme == "central" and grid.stencils.cross.size:
            step = run(scheme, start)
        else:
            first = step = run("upwind", start)
            if scheme == "central" and self.scheme is None:
                count = len(history)
                try:
                    step = run("central", first.control)
                    astray = bool(np.abs(step.value - first.value).max() > ASTRAY * np.abs(first.value).max())
                except FloatingPointError:
                    astray = True
                if astray:
                    del history[count:]
                    scheme, step = "hybrid", run("hybrid", first.control)
            elif scheme != "upwind":
                step = run(scheme, first.control)
        found = tabulated(problem, {"periods": list(lattice.periods)}, table_of(lattice, step.value))
        meta = {"scheme": scheme, "order": 1 if scheme == "upwind" else 2, "shape": list(lattice.shape)}
        return replace(found, meta=meta, history=history)

    def solve_finite(self, problem: MDP) -> Tabular:
        """Solve a finite problem to rounding. Raises: ValueError for a lattice, which it does not need."""
        for name in ("points", "domain", "scheme", "axes"):
            if (given := getattr(self, name)) is not None:
                raise ValueError(f"{name} must be None for a finite problem, which needs no lattice, got {given}")
        return policy_iteration(problem, rounds=self.limit)

    @classmethod
    def restore(cls, problem: ControlProblem, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Solution:
        """Rebuild a solution from what `Solution.save` wrote."""
        return tabulated(problem, settings, tensors)

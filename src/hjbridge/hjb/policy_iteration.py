"""Howard's policy iteration for problems without horizon: discounted, or ended by leaving a domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.schemes.howard import discretise, howard
from hjbridge.hjb.schemes.lattice import Axis, Domain, check_memory, factor_bytes, lattice_for
from hjbridge.hjb.schemes.stencil import Scheme
from hjbridge.hjb.schemes.tabulated import table_of, tabulated
from hjbridge.hjb.solution import Solution

POINTS = {1: 801, 2: 101, 3: 21}


@dataclass(frozen=True)
class PolicyIteration:
    """Solve min_u { l + c + (f + B u).grad V + tr(sigma sigma' Hess V)/2 } = rho V on a lattice of 1 to 3 dimensions.

    Each iteration evaluates the present policy exactly, by one banded (1-D) or sparse linear solve, and improves it.

        upwind    monotone, order 1; paths are kept inside the domain: what would lead out of it is dropped
        hybrid    the same with central differences where noise allows it: monotone, order 2 there, 1 elsewhere
        central   order 2 where V is smooth, not monotone; open ends continue V as a quadratic

    hybrid and central start from the upwind solution, which is the stage before them.

    Args: points along each axis (None: 801 in 1-D, 101 in 2-D, 21 in 3-D). domain: lowest and highest state (None:
        `default_domain`). scheme: None takes central for a linear-quadratic problem, hybrid otherwise. axes: all
        coordinates on each axis, in place of points and domain. tolerance: largest residual at the end, relative to
        the largest term. limit: most iterations.
    The solution's `history` has the largest residual at each iteration, of both stages. Its value is a cubic spline
    through the lattice, the exit cost where the problem has ended; its control the problem's minimiser there.
    Source: Howard 1960; Kushner and Dupuis 2001, chapters 5 and 6.
    """

    points: int | tuple[int, ...] | None = None
    domain: Domain | None = None
    scheme: Scheme | None = None
    axes: tuple[Axis, ...] | None = None
    tolerance: float = 1e-12
    limit: int = 200

    def solve(self, problem: ControlProblem, seed: int = 0) -> Solution:
        """Solve the problem; the seed is not used.

        Raises: TypeError for a finite problem (`discrete.policy_iteration` solves it); ValueError for a problem with a
            horizon, or without horizon, discount and exit; for what `lattice_for` refuses; FloatingPointError if the
            iteration does not end.
        """
        if not isinstance(problem, ControlProblem):
            raise TypeError(f"problem must be a ControlProblem, got {type(problem).__name__}: a finite problem is "
                            "solved by hjbridge.hjb.discrete.policy_iteration, which returns a Tabular")  # fmt: skip
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
        stages: list[Scheme] = [scheme] if scheme == "central" and grid.stencils.cross.size else ["upwind", scheme]
        history = []
        for stage in dict.fromkeys(stages):
            step = howard(
                replace(grid, scheme=stage), zero, start, shift=problem.discount, tolerance=self.tolerance,
                limit=self.limit,
            )  # fmt: skip
            start = step.control
            history += [{"scheme": stage, "residual": residual} for residual in step.residuals]
        found = tabulated(problem, {"periods": list(lattice.periods)}, table_of(lattice, step.value))
        meta = {"scheme": scheme, "order": 1 if scheme == "upwind" else 2, "shape": list(lattice.shape)}
        return replace(found, meta=meta, history=history)

    @classmethod
    def restore(cls, problem: ControlProblem, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Solution:
        """Rebuild a solution from what `Solution.save` wrote."""
        return tabulated(problem, settings, tensors)

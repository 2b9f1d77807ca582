"""Certify a solution: measure what it costs, what its value fails to explain, and how far both are from the exact."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from tqdm.auto import tqdm

from hjbridge.hjb.certificate import measurements
from hjbridge.hjb.certificate.certificate import Certificate
from hjbridge.hjb.certificate.closed_loop import extended, nearest
from hjbridge.hjb.certificate.judge import LARGEST_STEP_ERROR, judge
from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.simulate import Feedback
from hjbridge.hjb.solution import Solution

STEPS = (100, 200, 400, 800, 1600)


def certify(
    problem: ControlProblem,
    solution: Solution,
    *,
    x0: Tensor | None = None,
    paths: int = 2048,
    steps: int | None = None,
    horizon: float | None = None,
    points: int = 512,
    cost_tolerance: float = 0.0,
    residual_tolerance: float = 0.05,
    seed: int = 0,
    progress: bool = False,
) -> Certificate:
    """Closed-loop cost, path defect, HJB residual and errors of a solution, and whether they allow to call it optimal.

    The cost is that of `simulate` under `solution.control`, stopping where `solution.stop` says so, with and without
    halving the step on the same noise; its standard error is that after regression on the martingale
    sum e^(-rho t) grad V . sigma dW. Statistics against `problem.exact` use the same noise. An infinite horizon is cut
    at T, and e^(-rho T) V(X_T) with the claimed (otherwise the exact) value stands for the rest, so that the cost of a
    wrong value V + a differs from it by (1 - e^(-rho T)) a only; without a value the rest is left out.

    "Optimal" means that nothing measured contradicts it: the cost at step zero agrees with the claimed value within 3
    standard errors plus the step correction; the 90 % quantile of the relative residual and the misfit at the horizon
    lie within `residual_tolerance`; the cost agrees with the cost of the exact control where there is one, and value
    and Hopf-Cole value agree where the problem is linearly solvable. A control without a value needs one of the latter.

    Args:
        x0: starts, (paths, d), or (1, d) to start all paths at one point, in the solution's domain; None draws them
            from `problem.initial` and moves those outside the domain to its border, see `Certificate.outside`.
        paths, steps: of the closed loop, steps even; None doubles them from 100 until the error of the step is below
            5 % of the cost, or to 1600. horizon: where to cut an infinite horizon; None is 2/rho (7/rho without a
            value). points: path points for residual and errors, fewer above 16 dimensions.
        cost_tolerance: excess of cost, relative to the value, that is accepted beyond the statistical error.
        residual_tolerance: see above. seed: starts the generator, on the device of x0. progress: show a bar.
    Returns: `Certificate`.
    Raises: ValueError for bad arguments, such as an x0 outside the solution's domain; FloatingPointError if the cost or
        the residual is not finite.
    """
    for name, number, lowest in (("paths", paths, 16), ("points", points, 1)):
        if number < lowest:
            raise ValueError(f"{name} must be at least {lowest}, got {number}")
    if steps is not None and (steps < 2 or steps % 2):
        raise ValueError(f"steps must be positive and even, so that the step can be doubled, got {steps}")
    for name, accepted in (("cost_tolerance", cost_tolerance), ("residual_tolerance", residual_tolerance)):
        if not 0 <= accepted < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {accepted}")
    if (solution.problem.dim, solution.problem.controls) != (problem.dim, problem.controls):
        got = f"one of {solution.problem.dim} states and {solution.problem.controls} controls"
        raise ValueError(f"solution must be of {problem.dim} states and {problem.controls} controls, got {got}")
    generator = torch.Generator(device="cpu" if x0 is None else x0.device).manual_seed(seed)
    starts, moved = _starts(problem, solution, x0, paths, generator)
    solution, given = extended(solution), solution
    exact = None
    if problem.exact is not None and problem.exact.value_function is not None:
        exact = solution if problem.exact is given else extended(problem.exact)
    guide = solution if solution.value_function is not None else exact
    end = _end(problem, horizon, known=guide is not None)
    with tqdm(total=5, desc="certify", disable=not progress) as bar:
        for count in (steps,) if steps else STEPS:
            grid = torch.linspace(0.0, end, count + 1, dtype=starts.dtype, device=starts.device)
            stop = _stop(problem, solution)
            pair = measurements.run_pair(problem, solution.control, stop, guide, starts, grid, generator)
            if measurements.step_error(problem, pair) <= LARGEST_STEP_ERROR:
                break
        bar.update()
        found = measurements.costs(problem, pair) | measurements.outside(solution, pair.fine, moved)
        if solution.value_function is not None:
            found |= measurements.claims(problem, solution, pair)
        found |= measurements.baseline(problem, guide, pair)
        bar.update()
        found |= measurements.on_points(problem, solution, exact, pair.fine.path, points, generator)
        bar.update()
        if exact is not None:
            found |= measurements.against_exact(problem, solution, exact, _stop(problem, exact), pair)
        bar.update()
        found |= measurements.importance(problem, solution, pair, generator)
        bar.update()
    checks, optimal, reason = judge(found, cost_tolerance, residual_tolerance)
    return Certificate(
        problem=problem.name, method=solution.method, sense=problem.sense, paths=len(starts), steps=count, horizon=end,
        checks=checks, optimal=optimal, reason=reason, **found,
    )  # fmt: skip


def _starts(
    problem: ControlProblem, solution: Solution, x0: Tensor | None, paths: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Starts (paths, d) in the solution's domain, and which of them had to be moved there, (paths,) of bool."""
    if x0 is None:
        if problem.initial is None:
            raise ValueError(f"x0 must be given: the problem {problem.name!r} has no initial sampler, got None")
        drawn = problem.initial(paths, generator)
        starts = nearest(solution, drawn)
        return starts, (starts != drawn).any(1)
    if x0.ndim != 2 or len(x0) not in (1, paths):
        raise ValueError(f"x0 must have shape (1, {problem.dim}) or ({paths}, {problem.dim}), got {tuple(x0.shape)}")
    if solution.domain is not None and x0.shape[1] == problem.dim:
        outside = ((x0 != nearest(solution, x0)) & x0.isfinite()).any(1)
        if bool(outside.any()):
            low, high = (end.tolist() for end in solution.domain)
            raise ValueError(f"x0 must lie in the solution's domain, {low} to {high}, got {x0[outside][0].tolist()}")
    return x0.detach().expand(paths, -1), torch.zeros(paths, dtype=torch.bool, device=x0.device)


def _end(problem: ControlProblem, horizon: float | None, known: bool) -> float:
    """The horizon, or where to cut an infinite one."""
    if problem.horizon is not None:
        if horizon is not None:
            raise ValueError(f"horizon must be None: the problem ends at {problem.horizon:g}, got {horizon}")
        return problem.horizon
    if horizon is None:
        if problem.discount == 0:
            raise ValueError("horizon must be given: the problem has neither a horizon nor a discount, got None")
        return (2.0 if known else 7.0) / problem.discount
    if not 0 < horizon < math.inf:
        raise ValueError(f"horizon must be positive and finite, got {horizon}")
    return horizon


def _stop(problem: ControlProblem, solution: Solution) -> Feedback | None:
    """Where the solution stops; a control without a value never does."""
    return None if problem.obstacle is None or solution.value_function is None else solution.stop

"""A control in closed loop: paths, its tail, and the martingale that explains its noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from hjbridge.hjb import derivatives
from hjbridge.hjb.defect import shock
from hjbridge.hjb.methods.importance import girsanov
from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.simulate import ControlledPath, Feedback, simulate
from hjbridge.hjb.solution import Solution


class Run(NamedTuple):
    """A closed loop: its path, and which of its paths had neither left nor stopped at the end, (n,) of bool."""

    path: ControlledPath
    open: Tensor


def closed_loop(
    problem: ControlProblem, control: Feedback, x0: Tensor, grid: Tensor, generator: torch.Generator | None = None, *,
    stop: Feedback | None = None, noises: Tensor | None = None,
) -> Run:  # fmt: skip
    """Paths under a control, without graph. Args: as `simulate`.

    Raises: as `simulate`; FloatingPointError if a cost is not finite.
    """
    with torch.no_grad():
        path = simulate(problem, control, x0, grid, generator, stop=stop, noises=noises)
        still = path.end >= grid[-1]
        if problem.inside is not None:
            still = still & problem.inside(path.x)
    if not bool(path.cost.isfinite().all()):
        bad = int((~path.cost.isfinite()).sum())
        raise FloatingPointError(f"the closed-loop cost is not finite on {bad} of {len(path.cost)} paths")
    return Run(path, still)


def tail(problem: ControlProblem, run: Run, value: Feedback | None) -> Tensor:
    """e^(-rho T) W(X_T) for an infinite horizon cut at T, on paths still open, (n,); otherwise, or without W, zero."""
    extra, T = torch.zeros_like(run.path.running), run.path.grid[-1]
    if problem.horizon is None and value is not None and bool(run.open.any()):
        extra[run.open] = torch.exp(-problem.discount * T) * value(run.path.x[run.open], T).detach()
    return extra


def extended(solution: Solution) -> Solution:
    """The solution with value, gradient and control of the nearest state of its domain at states outside of it.

    This makes its control a feedback at every state, whose cost can be measured. A solution without limits is returned
    as it is.
    """
    if solution.domain is None:
        return solution
    inner = solution
    return replace(
        solution,
        value_function=None if solution.value_function is None else lambda x, t: inner.value(nearest(inner, x), t),
        gradient_function=None
        if solution.value_function is None and solution.gradient_function is None
        else lambda x, t: inner.gradient(nearest(inner, x), t),
        control_function=lambda x, t: inner.control(nearest(inner, x), t),
    )


def nearest(solution: Solution, x: Tensor) -> Tensor:
    """The nearest states (n, d) of the solution's domain."""
    return x if solution.domain is None else x.clamp(*(end.to(x) for end in solution.domain))


def halved(noises: Tensor) -> Tensor:
    """Brownian increments (N, n, k) of a grid as those of every second time of it, (N/2, n, k)."""
    return noises.unflatten(0, (-1, 2)).sum(1)


def martingale(problem: ControlProblem, solution: Solution, path: ControlledPath) -> Tensor:
    """sum of e^(-rho t) grad W . sigma dW over the steps before a path ends, (n,): mean zero for every W."""
    return _along(problem, path, lambda x, t, u, sigma, dw, dt: (solution.gradient(x, t) * shock(sigma, dw)).sum(1))


def control_gap(problem: ControlProblem, exact: Solution, path: ControlledPath) -> Tensor:
    """int e^(-rho t) [H(X, u, p) - H(X, u*, p)] dt at p = grad V, (n,), for the controls u of a path.

    Its mean is J(u) - V. It is not negative (not positive where rewards are maximised); for a quadratic cost without
    bounds it is 1/2 int e^(-rho t) (u - u*)'R(u - u*) dt. Source: Fleming and Soner 2006, section III.8 (verification).
    """

    def rate(x: Tensor, t: Tensor, u: Tensor, sigma: Tensor, dw: Tensor, dt: Tensor) -> Tensor:
        p = exact.gradient(x, t)
        M = derivatives.hessian(exact.value, x, t) if problem.controlled_noise else None
        best = problem.best_control(x, t, p, M)
        return (problem.hamiltonian(x, t, u, p, M) - problem.hamiltonian(x, t, best, p, M)) * dt

    return _along(problem, path, rate)


def girsanov_noise(problem: ControlProblem, temp: float, path: ControlledPath) -> Tensor:
    """lam int theta.dW with sigma theta = B u, (n,), of a linearly solvable problem of temperature lam."""
    return _along(problem, path, lambda x, t, u, sigma, dw, dt: temp * (girsanov(problem, x, t, u, sigma) * dw).sum(1))


def _along(problem: ControlProblem, path: ControlledPath, rate: Callable[..., Tensor]) -> Tensor:
    """Discounted sum of rate(x, t, u, sigma, dW, dt) over the steps that a path lives."""
    assert path.states is not None and path.noises is not None
    total, start = torch.zeros_like(path.running), path.states[0]
    for i, (t, dt) in enumerate(zip(path.grid[:-1], path.grid.diff(), strict=True)):
        alive = path.end > t
        x = torch.where(alive.unsqueeze(-1), path.states[i], start)
        term = rate(x, t, path.controls[i], path.sigmas[i], path.noises[i], dt)
        total = total + torch.where(alive, torch.exp(-problem.discount * t) * term, 0.0).detach()
    return total

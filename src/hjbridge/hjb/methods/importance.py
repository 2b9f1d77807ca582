"""Hopf and Cole's expectation by importance sampling: the value of a problem from paths under any control."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hjbridge.hjb.methods.temperature import temperature
from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.simulate import ControlledPath
from hjbridge.hjb.solution import Solution


class HopfColeEstimate(NamedTuple):
    """Value, its standard error, and the effective sample size (sum w)^2 / (n sum w^2) in (0, 1], each (s,)."""

    value: Tensor
    stderr: Tensor
    ess: Tensor


def hopf_cole_estimate(
    problem: ControlProblem, path: ControlledPath, solution: Solution | None = None
) -> HopfColeEstimate:
    """V = -lam ln E[w] from paths under any control v, of a linearly solvable problem with temperature lam.

        ln w = -(int l dt + Phi)/lam - int theta.dW - 1/2 int |theta|^2 dt,    sigma theta = B v

    w has no variance, up to the step, if v is optimal. The mean of w is unbiased for the Euler chain; its logarithm
    makes V consistent, of bias lam (1/ess - 1)/(2n), and the chain itself is off by the order of the step.

    Args:
        path: from `simulate`, to the horizon, or until every path has left the domain; at least two for each start.
        solution: a candidate whose value, V^, makes a control variate: with psi = e^(-V^/lam), Z = sigma' grad V^ and L
            the weight so far, -int L psi (Z/lam + theta).dW has mean zero, and cancels the noise of w if V^ = V.
    Returns: one number for each different start, in the order in which they first appear in `path.states[0]`.
    Raises: ValueError if the problem is not linearly solvable or the paths end too early or start alone;
        FloatingPointError if the costs of the paths are not finite or the control variate makes the mean of w negative.
    Source: Thijssen and Kappen 2015, theorem 1 and corollary 1.
    """
    assert path.states is not None and path.noises is not None
    start = path.states[0]
    temp = temperature(problem, start[:64], path.grid[0])
    _check_complete(problem, path)
    log_weight, variate = start.new_zeros(len(start)), start.new_zeros(len(start))
    # e^(V^/lam) at the start, one factor for all its paths, keeps psi in range and drops out of the regression
    scale = None if solution is None else solution.value(start, path.grid[0]) / temp
    for i, (t, dt) in enumerate(zip(path.grid[:-1], path.grid.diff(), strict=True)):
        alive, x = path.end > t, path.states[i]
        here = torch.where(alive.unsqueeze(1), x, start)
        theta = girsanov(problem, here, t, path.controls[i], path.sigmas[i])
        dw = path.noises[i]
        if solution is not None and scale is not None:
            Z = _transposed(path.sigmas[i], solution.gradient(here, t))
            psi = torch.exp(log_weight + scale - solution.value(here, t) / temp)
            variate = variate - torch.where(alive, psi * ((Z / temp + theta) * dw).sum(1), 0.0)
        log_weight = log_weight + torch.where(alive, log_step(problem, temp, here, t, dt, theta, dw), 0.0)
    log_weight = log_weight - path.terminal / temp
    return _by_start(start, log_weight, variate if solution is not None else None, temp)


def girsanov(problem: ControlProblem, x: Tensor, t: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """theta (n, k), the drift that the control v (n, m) gives the Brownian motion: the least with sigma theta = B v.

    Args: sigma, the dispersion at x, (n, d) or (n, d, k).
    """
    push = (problem.input_matrix(x, t) @ v.unsqueeze(-1)).squeeze(-1)
    # sigma theta = B v
    if sigma.ndim == 2:
        return push / torch.where(sigma == 0, 1.0, sigma)
    inverse = torch.linalg.pinv(problem.dispersion.to(x) if isinstance(problem.dispersion, Tensor) else sigma)
    return (inverse @ push.unsqueeze(-1)).squeeze(-1)


def log_step(
    problem: ControlProblem, temp: float, x: Tensor, t: Tensor, dt: Tensor, theta: Tensor, dw: Tensor
) -> Tensor:
    """What one Euler step adds to ln w, of shape (n,)."""
    cost = x.new_zeros(len(x)) if problem.running_cost is None else problem.running_cost(x, t)
    # -(l/lam) dt - theta.dW - |theta|^2 dt/2
    return -(cost / temp) * dt - (theta * dw).sum(1) - theta.square().sum(1) * dt / 2


def _transposed(sigma: Tensor, p: Tensor) -> Tensor:
    """sigma' p, of shape (n, k)."""
    return sigma * p if sigma.ndim == 2 else (sigma.mT @ p.unsqueeze(-1)).squeeze(-1)


def _check_complete(problem: ControlProblem, path: ControlledPath) -> None:
    last = path.grid[-1].item()
    if problem.horizon is not None and not math.isclose(last, problem.horizon, rel_tol=1e-6):
        raise ValueError(f"path must end at the horizon {problem.horizon:g}, got {last:g}")
    if problem.horizon is None:
        left = len(path.x) if problem.inside is None else int(problem.inside(path.x).sum())
        if left:
            raise ValueError(
                f"path must end outside the domain, got {left} paths that have not left: lengthen the grid"
            )


def _by_start(start: Tensor, log_weight: Tensor, variate: Tensor | None, temp: float) -> HopfColeEstimate:
    found = []
    first: dict[tuple[float, ...], list[int]] = {}
    for row, place in enumerate(start.tolist()):
        first.setdefault(tuple(place), []).append(row)
    for rows in first.values():
        if len(rows) < 2:
            raise ValueError("path must hold at least two paths for each start, got one")
        index = torch.tensor(rows, device=start.device)
        found.append(log_mean(log_weight[index], temp, None if variate is None else variate[index]))
    return HopfColeEstimate(*(torch.stack(parts) for parts in zip(*found, strict=True)))


def log_mean(log_weight: Tensor, temp: float, variate: Tensor | None = None) -> HopfColeEstimate:
    """-lam ln of the mean of the weights along the last axis, with standard error and effective sample size.

    Args: log_weight (..., n). variate: of mean zero, (..., n), up to a factor for each row.
    Raises: FloatingPointError if a weight is NaN or infinite, all are zero, or the variate makes the mean negative.
    """
    n = log_weight.shape[-1]
    top = log_weight.detach().amax(-1, keepdim=True)
    if not bool(top.isfinite().all()):
        got = top[~top.isfinite()][0].item()
        raise FloatingPointError(f"the largest ln w must be finite, got {got}: costs of paths are NaN or infinite")
    w = torch.exp(log_weight - top)
    ess = w.sum(-1) ** 2 / (n * (w**2).sum(-1))
    if variate is not None:
        centred = variate - variate.mean(-1, keepdim=True)
        # b = cov(w, m)/var(m)
        b = (w * centred).sum(-1, keepdim=True) / (centred**2).sum(-1, keepdim=True).clamp(min=1e-300)
        w = w - b * variate
    mean = w.mean(-1)
    if not bool((mean > 0).all()):
        raise FloatingPointError("the mean weight is not positive: too few paths, or leave out the solution")
    # V = -lam ln mean(w); its standard error by the delta method
    value = -temp * (top.squeeze(-1) + mean.log())
    return HopfColeEstimate(value, temp * w.std(-1) / (mean * math.sqrt(n)), ess)

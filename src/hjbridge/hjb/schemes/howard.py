"""Howard's policy iteration for min_u { L^u v + c^u } - shift v + right = 0 on a lattice, with exits and obstacles."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.schemes.lattice import Lattice
from hjbridge.hjb.schemes.stencil import NEVER_ENDS, Scheme, Stencils, stencils

MORE = 20


@dataclass(frozen=True)
class Discretised:
    """A problem on a lattice.

    Attributes: x, all points (N, d); outside (N,), where the exit cost is the value.
    """

    problem: ControlProblem
    scheme: Scheme
    x: Tensor
    outside: np.ndarray
    stencils: Stencils
    lattice: Lattice


@dataclass(frozen=True)
class Step:
    """What Howard's iteration returns: value (N,), control (N, m), and the largest residual at each iteration."""

    value: np.ndarray
    control: Tensor
    residuals: tuple[float, ...]


def discretise(problem: ControlProblem, lattice: Lattice, scheme: Scheme) -> Discretised:
    """The problem on the lattice, with difference matrices.

    Raises: ValueError, naming the first function of the problem that is not finite on the lattice at time 0. A cost of
        the control may be infinite for some controls, not for all.
    """
    x = lattice.points()
    zero = torch.zeros((), dtype=x.dtype)
    for name, values in (
        ("drift", problem.drift(x, zero)),
        ("control_matrix", problem.input_matrix(x, zero)),
        ("dispersion", problem.noise(x, zero, _admissible(problem, x))),
        ("running_cost", None if problem.running_cost is None else problem.running_cost(x, zero)),
        ("exit_cost", None if problem.exit_cost is None else problem.exit_cost(x, zero)),
        ("obstacle", None if problem.obstacle is None else problem.obstacle(x, zero)),
        ("terminal_cost", None if problem.terminal_cost is None else problem.terminal_cost(x)),
    ):
        if values is not None and not bool(values.isfinite().all()):
            bad = x[~values.reshape(len(x), -1).isfinite().all(1)][0].tolist()
            raise ValueError(f"{name} must be finite on the whole grid, got NaN or infinity at x = {bad}")
    _check_price(problem, x, zero)
    outside = torch.zeros(len(x), dtype=torch.bool) if problem.inside is None else ~problem.inside(x)
    a = covariance(problem.noise(x, zero, x.new_ones(len(x), problem.controls)))
    mixed = bool((a - torch.diag_embed(a.diagonal(dim1=1, dim2=2))).any())
    return Discretised(problem, scheme, x, outside.numpy(), stencils(lattice, cross=mixed), lattice)


def _admissible(problem: ControlProblem, x: Tensor) -> Tensor:
    """A control (N, m) that the problem allows, as far as its set or bounds tell."""
    if problem.control_set is not None:
        return problem.control_set[0].to(x).expand(len(x), -1)
    u = x.new_ones(len(x), problem.controls)
    return u if problem.bounds is None else u.clamp(*(end.to(u) for end in problem.bounds))


def _check_price(problem: ControlProblem, x: Tensor, t: Tensor) -> None:
    """Refuse a control_cost, given as a function, that is NaN, or finite for no control that is tried."""
    if problem.control_cost is None or isinstance(problem.control_cost, Tensor) or problem.controls == 0:
        return
    if problem.control_set is not None:
        tried = [member.to(x).expand(len(x), -1) for member in problem.control_set]
    else:
        M = torch.eye(problem.dim, dtype=x.dtype).expand(len(x), -1, -1) * (1 if problem.sense == "min" else -1)
        tried = [problem.best_control(x, t, torch.full_like(x, slope), M) for slope in (0.0, 1.0, -1.0)]
    prices = torch.stack([problem.control_cost(x, u, t) for u in tried])
    real = torch.stack([u.isfinite().all(1) for u in tried])
    bad = (real & prices.isnan()).any(0) | (real.any(0) & ~(real & prices.isfinite()).any(0))
    if bool(bad.any()):
        first = x[bad][0].tolist()
        raise ValueError(f"control_cost must be finite on the whole grid, got NaN or infinity at x = {first}")


def howard(
    grid: Discretised,
    t: Tensor,
    start: np.ndarray | Tensor,
    *,
    shift: float,
    right: np.ndarray | float = 0.0,
    tolerance: float = 1e-9,
    limit: int = 100,
) -> Step:
    """Solve min_u { L^u v + c^u } - shift v + right = 0 (max where rewards are maximised).

    Each iteration solves the linear equation of the present policy and takes the best policy for its solution; with an
    obstacle, stopping is one more action; where the problem has ended, v is the exit cost. With upwind and hybrid the
    matrices are M-matrices, the iterates improve monotonically, and it is Newton's method: quadratic near the end.
    Source: Howard 1960; Bokanowski, Maroso and Zidani 2009.

    It ends when the largest residual is `tolerance` of the largest term; from a policy, also when no residual exceeds a
    millionth of its own terms, for which up to `MORE` iterations are spent: values may differ by many powers of ten.

    Args: t (0-d), at which coefficients are taken; start, a first value (N,), as in a time step, or a first policy
        (N, m), as for an infinite horizon.
    Raises: FloatingPointError if `limit` iterations do not suffice, or a policy has no finite value.
    """
    problem, s = grid.problem, grid.stencils
    flip = 1.0 if problem.sense == "min" else -1.0
    psi = None if problem.obstacle is None else problem.obstacle(grid.x, t).numpy()
    ended = np.zeros(s.size) if problem.exit_cost is None else problem.exit_cost(grid.x, t).numpy()
    right = np.broadcast_to(right, (s.size,))
    residuals: list[float] = []
    policy, v = (start, None) if isinstance(start, Tensor) else (None, start)
    more = MORE
    for _ in range(limit):
        if v is not None:
            policy = improve(grid, t, v, policy)
        assert policy is not None
        entries, cost = _evaluate(grid, t, policy)
        slope = shift - entries[s.diagonal]
        fixed, value = grid.outside.copy(), ended
        if v is not None:
            residual = s.apply(entries, v) + cost + right - shift * v
            if psi is not None:
                # min(residual, psi - v), both in units of the residual
                stop = flip * slope * (psi - v) < flip * residual
                residual = np.where(stop, slope * (psi - v), residual)
                fixed, value = fixed | stop, np.where(grid.outside, ended, psi)
            residual[grid.outside] = 0
            residuals.append(float(np.abs(residual).max()))
            size = np.abs(right).max() + np.abs(shift * v).max() + np.abs(cost).max()
            if residuals[-1] <= tolerance * size + 1e-13 * np.abs(slope * v).max():
                # the largest term says nothing about states whose value is a tiny part of the largest
                terms = np.abs(right) + np.abs(shift * v) + np.abs(cost)
                rough = np.abs(residual) > 1e-6 * terms + 1e-13 * np.abs(slope * v)
                if isinstance(start, np.ndarray) or not rough.any() or more == 0:
                    return Step(v, policy, tuple(residuals))
                more -= 1
        # (shift - L) v = c + right, and v = exit or stopping cost where the problem ends
        matrix, side = -entries, np.where(fixed, value, cost + right)
        matrix[s.diagonal] += shift
        matrix[fixed[s.rows]] = 0
        matrix[s.diagonal[fixed]] = 1
        # the matrix of a time step is close to its diagonal, that of an infinite horizon is not
        v = s.solve(matrix, side, v if isinstance(start, np.ndarray) else None)
        if not np.isfinite(v).all():
            raise FloatingPointError(NEVER_ENDS)
    raise FloatingPointError(f"policy iteration did not end in {limit} iterations: the residual is {residuals[-1]:.3g}")


def improve(grid: Discretised, t: Tensor, v: np.ndarray, policy: Tensor | None) -> Tensor:
    """The best control (N, m) for the value v (N,), by the discretised Hamiltonian.

    central takes the problem's minimiser at its own differences. Otherwise candidates are the members of the control
    set, or the minimiser at central and at all choices of one-sided differences, controls that make the drift along an
    axis zero, where those choices change, and the policy before. The best by the scheme's own Hamiltonian is taken,
    so that no iteration is worse than the one before.
    """
    problem, s, x = grid.problem, grid.stencils, grid.x
    if problem.controls == 0:
        return x.new_zeros(len(x), 0)
    d = x.shape[1]
    hess = np.zeros((s.size, d, d))
    for i in range(d):
        hess[:, i, i] = s.apply(s.closed[i], v)
        for j in range(i if s.cross.size else 0):
            hess[:, i, j] = hess[:, j, i] = s.apply(s.cross[i, j], v)
    M = torch.from_numpy(hess)
    central = np.stack([s.apply(s.central[i], v) for i in range(d)], 1)
    if grid.scheme == "central" and problem.control_set is None:
        return _extend(grid, problem.best_control(x, t, torch.from_numpy(central), M))
    forward = np.stack([s.apply(s.forward[i], v) for i in range(d)], 1)
    backward = np.stack([s.apply(s.backward[i], v) for i in range(d)], 1)
    if problem.control_set is not None:
        candidates = [member.to(x).expand(s.size, -1) for member in problem.control_set]
    else:
        slopes = [torch.from_numpy(np.stack(p, 1)) for p in product(*zip(forward.T, backward.T, strict=True))]
        candidates = [problem.best_control(x, t, p, M) for p in (*slopes, torch.from_numpy(central))]
        candidates += _balanced(problem, x, t, candidates[-1])
    if policy is not None:
        candidates.append(policy)
    inner = [s.apply(s.second[i], v) for i in range(d)]
    table = []
    for u in candidates:
        b, a = problem.velocity(x, t, u).numpy(), covariance(problem.noise(x, t, u)).numpy()
        price = np.zeros(s.size)
        for i in range(d):
            upwind = np.maximum(b[:, i], 0) * forward[:, i] + np.minimum(b[:, i], 0) * backward[:, i]
            middle = s.centred(b[:, i], a[:, i, i], i, grid.scheme)
            price += np.where(middle, b[:, i] * central[:, i], upwind)
            price += a[:, i, i] * (hess[:, i, i] if grid.scheme == "central" else inner[i]) / 2
            for j in range(i):
                price += a[:, i, j] * hess[:, i, j]
        price = price + _cost(problem, x, t, u)
        table.append(np.where(np.isfinite(price), price if problem.sense == "min" else -price, np.inf))
    best = torch.from_numpy(np.argmin(np.stack(table), 0))
    return torch.stack(candidates)[best, torch.arange(s.size)]


def _balanced(problem: ControlProblem, x: Tensor, t: Tensor, u: Tensor) -> list[Tensor]:
    """For each axis the control nearest to u under which the drift along it is zero, as far as the bounds allow."""
    if not isinstance(problem.control_cost, Tensor) or problem.minimiser is not None:
        return []
    drift, push, found = problem.velocity(x, t, u), problem.input_matrix(x, t), []
    for i in range(x.shape[1]):
        size = (push[:, i] ** 2).sum(1, keepdim=True)
        if bool((size > 0).any()):
            # u - B_i (f + B u)_i/|B_i|^2
            v = u - push[:, i] * torch.where(size > 0, drift[:, i : i + 1] / size, 0.0)
            found.append(v if problem.bounds is None else v.clamp(*(end.to(v) for end in problem.bounds)))
    return found


def _extend(grid: Discretised, u: Tensor) -> Tensor:
    """The policy u (N, m) with the controls on open ends replaced by a linear continuation of the two next to them.

    One-sided second derivatives on the ends would feed errors of the value back into the policy.
    """
    table = u.reshape(*grid.lattice.shape, -1).clone()
    for i, (axis, period) in enumerate(zip(grid.lattice.axes, grid.lattice.periods, strict=True)):
        for end, near, far in () if period else ((0, 1, 2), (-1, -2, -3)):
            ratio = (axis[end] - axis[near]) / (axis[near] - axis[far])
            two = table.select(i, near), table.select(i, far)
            table.select(i, end).copy_(two[0] + ratio * (two[0] - two[1]))
    u = table.reshape(u.shape)
    bounds = grid.problem.bounds
    return u if bounds is None else u.clamp(*(side.to(u) for side in bounds))


def _evaluate(grid: Discretised, t: Tensor, u: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Entries of the generator under the policy u, and its cost (N,)."""
    problem, x = grid.problem, grid.x
    drift, a = problem.velocity(x, t, u), covariance(problem.noise(x, t, u))
    return grid.stencils.generator(drift.numpy(), a.numpy(), grid.scheme), _cost(problem, x, t, u)


def _cost(problem: ControlProblem, x: Tensor, t: Tensor, u: Tensor) -> np.ndarray:
    """l + c (N,), also for a control that is not finite: as a candidate it is passed over."""
    running = x.new_zeros(len(x)) if problem.running_cost is None else problem.running_cost(x, t)
    return (running + problem.control_price(x, t, u)).numpy()


def covariance(sigma: Tensor) -> Tensor:
    """sigma sigma' (n, d, d) for sigma (n, d) or (n, d, k)."""
    return torch.diag_embed(sigma**2) if sigma.ndim == 2 else sigma @ sigma.mT

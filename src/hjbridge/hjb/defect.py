"""Path defect: what a candidate value fails to explain of the cost along paths of any sampling control."""

from __future__ import annotations

import torch
from torch import Tensor

from hjbridge.hjb import derivatives
from hjbridge.hjb.derivatives import Value
from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.simulate import ControlledPath
from hjbridge.hjb.solution import Solution


def path_defect(
    problem: ControlProblem, candidate: Solution | Value, path: ControlledPath, *, graph: bool = False
) -> Tensor:
    """Defect D of a candidate value W along paths of dX = (f + B v) dt + sigma dW, from s to T, of shape (n,).

        D = e^(-rho T) Phi(X_T) - e^(-rho s) W(X_s, s) + int e^(-rho t) [H(X, t, p) - (f + B v).p] dt
            - int e^(-rho t) p.sigma dW,    p = grad W(X, t),    H = min_u { l + c + (f + B u).p }

    By Ito's formula for e^(-rho t) V and the HJB equation, D of the value is 0 almost surely, whatever v is. D sees
    W at the start and grad W on the paths, no more: where controls act through the noise (B = sigma theta), D = 0 fixes
    W(X_s, s) and sigma' grad W, but W + c(t) with c(s) = 0 has the same D. `defect_increments` and `hjb_residual` see
    such a c.

    The bracket is l + c + B(u - v).p at the minimising u; with a quadratic cost and no bounds, l - u'Ru/2 + u'Rv and
    u = -R^-1 B'p. The integrals are left-point sums: D of the value itself has mean O(dt) and standard deviation
    O(sqrt(dt)). E D^2 is the loss of deep BSDE methods, Var D the log-variance loss.

    Args:
        candidate: a `Solution` with a value, or a callable W(x, t) -> (n,) that torch can differentiate. A solution is
            evaluated one time after the other, a callable on all steps in one batch, with t of shape (N n,).
        path: from `simulate`, under any control v, with a grid that ends at the horizon.
        graph: keep the graph, to train on D; states and controls that carry one keep it too (simulate under
            `torch.no_grad()` to hold them fixed). Otherwise the result is detached.
    Returns: the defect.
    Raises: ValueError for a problem with infinite horizon, first exit, stopping or a dispersion that depends on the
        control, and for a path of other dimensions or that ends early; FloatingPointError if D is not finite.
    Source: the equation is that of E, Han and Jentzen 2017, eq. 7, under another sampling control and with a discount.
    """
    _check(problem, path)
    value, slope = _views(candidate)
    assert path.states is not None and problem.terminal_cost is not None
    x, s, T = path.states[0], path.grid[0], path.grid[-1]
    first, last = _points(x, graph), _points(path.states[-1], graph)
    # e^(-rho T) Phi(X_T) - e^(-rho s) W(X_s, s)
    ends = _worth(problem, T) * problem.terminal_cost(last) - _worth(problem, s) * value(first, s)
    total = ends + _flow(problem, slope, path, graph, isinstance(candidate, Solution)).sum(0)
    return _finite(total if graph else total.detach())


def defect_increments(
    problem: ControlProblem, candidate: Solution | Value, path: ControlledPath, *, graph: bool = False
) -> Tensor:
    """The defect as a sum over N steps and the misfit at the horizon, of shape (N + 1, n): its sum over rows is D.

        row i < N:  e^(-rho t) W at step i + 1 less that at step i, plus the part of both integrals over that step
        row N:      e^(-rho T) (Phi(X_T) - W(X_T, T))

    Squared increments over dt make the martingale loss (FBSNN: Raissi 2018); their limit is the squared HJB residual.

    Args, Raises: as `path_defect`.
    """
    _check(problem, path)
    value, slope = _views(candidate)
    assert path.states is not None and problem.terminal_cost is not None
    x, grid, alone = _points(path.states, graph), path.grid, isinstance(candidate, Solution)
    if alone:
        values = torch.stack([value(y, t) if graph else value(y, t).detach() for y, t in zip(x, grid, strict=True)])
    else:
        values = value(x.flatten(0, 1), grid.repeat_interleave(x.shape[1])).reshape(x.shape[:2])
    worth = _worth(problem, grid).unsqueeze(1)
    steps = (worth * values).diff(dim=0) + _flow(problem, slope, path, graph, alone)
    misfit = worth[-1] * (problem.terminal_cost(x[-1]) - values[-1])
    rows = torch.cat([steps, misfit.unsqueeze(0)])
    return _finite(rows if graph else rows.detach())


def uncovered(problem: ControlProblem) -> str | None:
    """Why `path_defect` does not cover the problem, None if it does."""
    if problem.horizon is None:
        return "an infinite horizon"
    if problem.inside is not None:
        return "first exit from a domain"
    if problem.obstacle is not None:
        return "an obstacle (optimal stopping)"
    return "a dispersion that depends on the control" if problem.controlled_noise else None


def shock(sigma: Tensor, dw: Tensor) -> Tensor:
    """sigma dW of shape (n, d), for sigma (n, d) or (n, d, k)."""
    return sigma * dw if sigma.ndim == 2 else (sigma @ dw.unsqueeze(-1)).squeeze(-1)


def _flow(problem: ControlProblem, slope: Value, path: ControlledPath, graph: bool, alone: bool) -> Tensor:
    """e^(-rho t) ([H - (f + B v).p] dt - p.sigma dW) for every step, of shape (N, n)."""
    assert path.states is not None and path.noises is not None
    parts = (path.states[:-1], path.controls, path.sigmas, path.noises)
    t, dt = path.grid[:-1], path.grid.diff()
    if alone:
        return torch.stack(
            [_rate(problem, slope, graph, t[i], dt[i], *(part[i] for part in parts)) for i in range(len(t))]
        )
    n = path.states.shape[1]
    t, dt = t.repeat_interleave(n), dt.repeat_interleave(n)
    return _rate(problem, slope, graph, t, dt, *(part.flatten(0, 1) for part in parts)).reshape(-1, n)


def _rate(
    problem: ControlProblem, slope: Value, graph: bool,
    t: Tensor, dt: Tensor, x: Tensor, v: Tensor, sigma: Tensor, dw: Tensor,
) -> Tensor:  # fmt: skip
    x = _points(x, graph)
    # the control of a gradient that is not finite would be refused under another name
    p = _finite(slope(x, t))
    u = problem.best_control(x, t, p)
    # H - (f + B v).p = l + c(u) + (B (u - v)).p, without f, which cancels
    rate = problem.cost(x, t, u)
    if problem.controls:
        rate = rate + ((problem.input_matrix(x, t) @ (u - v).unsqueeze(-1)).squeeze(-1) * p).sum(1)
    row = _worth(problem, t) * (rate * dt - (p * shock(sigma, dw)).sum(1))
    return row if graph else row.detach()


def _views(candidate: Solution | Value) -> tuple[Value, Value]:
    """Value and gradient of the candidate."""
    if isinstance(candidate, Solution):
        return candidate.value, candidate.gradient

    def value(x: Tensor, t: Tensor) -> Tensor:
        return derivatives.checked(candidate(x, t), x)

    return value, lambda x, t: derivatives.gradient(candidate, x, t)


def _points(x: Tensor, graph: bool) -> Tensor:
    """The points, which require a gradient only where a graph is kept."""
    if not graph:
        return x.detach()
    return x if x.requires_grad else x.detach().requires_grad_()


def _worth(problem: ControlProblem, t: Tensor) -> Tensor:
    return torch.exp(-problem.discount * t)


def _finite(values: Tensor) -> Tensor:
    if not bool(values.isfinite().all()):
        raise FloatingPointError("the defect is not finite: the value or its gradient is singular on the paths")
    return values


def _check(problem: ControlProblem, path: ControlledPath) -> None:
    why = uncovered(problem)
    if why is not None:
        raise ValueError(
            f"problem must have a finite horizon, no exit, no stopping and a dispersion free of the control, got {why}"
        )
    shape = None if path.states is None else tuple(path.states.shape[2:])
    if shape != (problem.dim,) or path.controls.shape[2:] != (problem.controls,):
        got = f"{shape} and {tuple(path.controls.shape[2:])}"
        raise ValueError(f"path must have states ({problem.dim},) and controls ({problem.controls},), got {got}")
    assert problem.horizon is not None
    end = path.grid[-1].item()
    if abs(end - problem.horizon) > 1e-6 * problem.horizon:
        raise ValueError(f"path must end at the horizon {problem.horizon:g}, got a grid that ends at {end:g}")

"""Residual of the HJB equation for any candidate value(x, t)."""

from __future__ import annotations

from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor

from hjbridge.hjb.derivatives import Value, checked, first, hessian, second_order
from hjbridge.hjb.problem import ControlProblem, Time


class Terms(NamedTuple):
    """Terms of the equation, each (n,); without an obstacle they sum to the residual.

    time V_t, discount -rho V, drift f.grad V, control (B u*).grad V + c(u*), cost l, diffusion tr(sigma sigma' Hess)/2.
    """

    time: Tensor
    discount: Tensor
    drift: Tensor
    control: Tensor
    cost: Tensor
    diffusion: Tensor

    def scale(self) -> Tensor:
        """Largest absolute term at each point, (n,): what a residual is compared with."""
        return torch.stack(tuple(self)).abs().amax(0)


@overload
def hjb_residual(
    problem: ControlProblem, value: Value, x: Tensor, t: Time, terms: Literal[False] = ..., *,
    probes: int | None = ..., generator: torch.Generator | None = ..., graph: bool = ...,
) -> Tensor: ...  # fmt: skip
@overload
def hjb_residual(
    problem: ControlProblem, value: Value, x: Tensor, t: Time, terms: Literal[True], *,
    probes: int | None = ..., generator: torch.Generator | None = ..., graph: bool = ...,
) -> tuple[Tensor, Terms]: ...  # fmt: skip
def hjb_residual(
    problem: ControlProblem,
    value: Value,
    x: Tensor,
    t: Time,
    terms: bool = False,
    *,
    probes: int | None = None,
    generator: torch.Generator | None = None,
    graph: bool = False,
) -> Tensor | tuple[Tensor, Terms]:
    """Signed residual V_t - rho V + min_u { l + c + (f + B u).grad V + tr(sigma sigma' Hess V)/2 }, of shape (n,).

    Where stopping is allowed it is min(residual, psi - V), and max(residual, psi - V) where rewards are maximised.

    Args:
        value: any callable V(x, t) -> (n,) that torch can differentiate twice in x and once in t.
        x: points (n, d). t: times, a number or (n,); ignored by problems without horizon.
        terms: also return the terms. probes: None computes the trace, in any dimension, by a backward pass for each
            Brownian motion; a number estimates it by so many Rademacher vectors from `generator`, drawn afresh for each
            point: unbiased, with a variance.
        graph: keep the graph, to train on the residual; otherwise the result is detached.
    Returns: the residual, or a pair of residual and `Terms`.
    Raises: ValueError for points or times that the problem does not accept, probes < 1, probes with a dispersion that
        depends on the control, a value of another shape; FloatingPointError if the residual is not finite.
    """
    t = problem.time(x, t)
    if probes is not None and (probes < 1 or problem.controlled_noise):
        raise ValueError(f"probes must be at least 1 and the dispersion free of the control, got {probes}")
    y = x.detach().requires_grad_()
    s = t.detach().clone().expand(len(x)).contiguous().requires_grad_()
    with torch.enable_grad():
        v = checked(value(y, s), x)
        slope = first(v, y)
        _regular(slope, x)
        rate = first(v, s, graph=graph) if problem.horizon is not None else torch.zeros_like(v)
        M = hessian(value, x, t.expand(len(x))) if problem.controlled_noise else None
        if M is not None:
            _regular(M, x)
        u = problem.best_control(y, s, slope, M)
        sigma = problem.noise(y, s, u)
        drawn = None
        if probes is not None:
            shape = (probes, len(x), sigma.shape[-1])
            drawn = 2.0 * torch.randint(2, shape, generator=generator, device=x.device).to(x) - 1
        parts = Terms(
            time=rate,
            discount=-problem.discount * v,
            drift=(problem.drift(y, s) * slope).sum(1),
            control=_control_term(problem, y, s, u, slope),
            cost=torch.zeros_like(v) if problem.running_cost is None else problem.running_cost(y, s),
            diffusion=second_order(slope, y, sigma, drawn, graph=graph),
        )
        residual = torch.stack(tuple(parts)).sum(0)
        if problem.obstacle is not None:
            residual = problem.better(residual, problem.obstacle(y, s) - v)
    _regular(residual, x)
    if not graph:
        residual, parts = residual.detach(), Terms(*(part.detach() for part in parts))
    return (residual, parts) if terms else residual


def _regular(values: Tensor, x: Tensor) -> None:
    """Refuse a residual (n,), or derivatives (n, ...) that enter it, that are not finite; names the first x."""
    if not bool(values.isfinite().all()):
        worst = x[~values.reshape(len(x), -1).isfinite().all(1)][0].tolist()
        raise FloatingPointError(f"the residual is not finite at x = {worst}: the value is singular there")


class SignTest(NamedTuple):
    """What the equation says of an exact solution: its largest residual, and the least after the flip of one sign.

    Both are relative to the largest term at each point; the second is the largest over the points, for the term whose
    sign matters least.
    """

    residual: float
    flipped: float


def sign_test(
    problem: ControlProblem, low: float, high: float, points: int, generator: torch.Generator | None = None
) -> SignTest:
    """Put the exact solution into its equation, as it is and with the sign of one term after the other flipped.

    Args: low, high: every coordinate of the points is uniform between them; times are uniform on the first nine tenths
        of the horizon, since a payoff with a kink has no derivative at the end. points: their number.
    Raises: ValueError for a problem without exact solution.
    """
    if problem.exact is None:
        raise ValueError(f"problem must have an exact solution, got {problem.name!r} without")
    x = low + (high - low) * torch.rand(points, problem.dim, generator=generator, dtype=torch.float64)
    t = 0.9 * (problem.horizon or 0.0) * torch.rand(points, generator=generator, dtype=torch.float64)
    residual, terms = hjb_residual(problem, problem.exact.value, x, t, terms=True)
    flips = [((residual - 2 * term) / terms.scale()).abs().max().item() for term in terms if bool(term.any())]
    return SignTest((residual / terms.scale()).abs().max().item(), min(flips))


def _control_term(problem: ControlProblem, x: Tensor, t: Tensor, u: Tensor, p: Tensor) -> Tensor:
    if problem.controls == 0:
        return torch.zeros_like(p[:, 0])
    # (B u).p + c(x, u, t)
    push = (problem.input_matrix(x, t) @ u.unsqueeze(-1)).squeeze(-1)
    return (push * p).sum(1) + problem.control_price(x, t, u)

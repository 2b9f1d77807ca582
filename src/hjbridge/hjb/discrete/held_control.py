"""The Bellman equation of a control that is held for a step dt, for the scalar linear-quadratic problem, and its limit.

The step's cost is (Q x^2 + 2 N x u + R u^2)/2 + k, the state after it A x + B u + sqrt(w) Z. Two schemes lead there,
"euler" (left endpoint) and "exact" (the equation solved and the cost integrated over the step: zero-order hold). Two
forms of the same equation can be solved: Bellman's own, and the one with V subtracted and dt divided out, which is what
becomes the HJB equation. In exact arithmetic they agree; in floating point they do not.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hjbridge.hjb.problem import CONSTRAINTS, ControlProblem, check_finite

Scheme = Literal["euler", "exact"]


class Step(NamedTuple):
    """One step, every field (k,), one entry for each dt, in the type of dt.

    dt; rates whose limits are alpha, beta, sigma^2, q, 0, r, 0 and rho: growth (A - 1)/dt, push B/dt, spread w/dt,
    state Q/dt, cross N/dt, control R/dt, constant k/dt and decay (1 - gamma)/dt.
    """

    dt: Tensor
    growth: Tensor
    push: Tensor
    spread: Tensor
    state: Tensor
    cross: Tensor
    control: Tensor
    constant: Tensor
    decay: Tensor

    @property
    def discount(self) -> Tensor:
        """gamma = 1 - dt decay."""
        return 1 - self.dt * self.decay


class Quadratic(NamedTuple):
    """V = P x^2/2 + c and u = -K x, each (k,), one entry for each dt."""

    P: Tensor
    K: Tensor
    c: Tensor


def held(problem: ControlProblem, dt: Tensor, scheme: Scheme = "exact") -> Step:
    """Coefficients of the Markov decision process that holds its control for dt (k,); gamma = e^(-rho dt).

    "euler": A = 1 + alpha dt, B = beta dt, w = sigma^2 dt, Q = q dt, R = r dt, N = k = 0. "exact": the Ornstein-
    Uhlenbeck law of the step and the integrals of e^(-rho s) times the expected cost, by 20 Gauss-Legendre nodes.

    Args: problem, scalar with `linear_quadratic`, a discount rate and no horizon, e.g. `stationary_lqr`; dt in (0, 1].
    Raises: ValueError for another problem, scheme, or dt.
    """
    matrices = problem.linear_quadratic
    if matrices is None or problem.dim != 1 or problem.controls != 1 or problem.horizon is not None:
        raise ValueError(f"problem must be scalar, linear-quadratic and without horizon, got {problem.name}")
    for name in CONSTRAINTS:
        if getattr(problem, name) is not None:
            raise ValueError(f"{name} must be None for the held problem: with it the value is not quadratic")
    if problem.discount == 0:
        raise ValueError("problem must have a positive discount rate, got 0")
    if dt.ndim != 1 or not dt.is_floating_point() or not bool(((dt > 0) & (dt <= 1)).all()):
        raise ValueError(f"dt must be a floating vector with entries in (0, 1], got {dt.tolist()}")
    alpha, beta, q, r = (matrices.A.item(), matrices.B.item(), matrices.Q.item(), matrices.R.item())
    noise, rho = (matrices.S**2).sum().item(), problem.discount
    one, decay = torch.ones_like(dt), -torch.expm1(-rho * dt) / dt
    if scheme == "euler":
        return Step(dt, alpha * one, beta * one, noise * one, q * one, 0 * one, r * one, 0 * one, decay)
    if scheme != "exact":
        raise ValueError(f"scheme must be euler or exact, got {scheme!r}")
    nodes, shares = (torch.from_numpy(a).to(dt) for a in np.polynomial.legendre.leggauss(20))
    s = dt.unsqueeze(1) * (nodes + 1) / 2
    # mean over the step of e^(-rho s) g(s) = sum shares/2 e^(-rho s) g(s)
    p = torch.exp(-rho * s) * shares / 2
    # X_s = e^(alpha s) x + phi(s) beta u + noise of variance sigma^2 phi_2(s), phi(s) = int_0^s e^(alpha r) dr
    kept, pushed, spread = torch.exp(alpha * s), beta * _growth(alpha, s), noise * _growth(2 * alpha, s)
    return Step(
        dt, alpha * _growth(alpha, dt) / dt, beta * _growth(alpha, dt) / dt, noise * _growth(2 * alpha, dt) / dt,
        state=q * (p * kept**2).sum(1), cross=q * (p * kept * pushed).sum(1),
        control=r * p.sum(1) + q * (p * pushed**2).sum(1), constant=q / 2 * (p * spread).sum(1), decay=decay,
    )  # fmt: skip


def solve_bellman(step: Step, rounds: int = 60) -> Quadratic:
    """V = min_u { cost + gamma E V(X') } as it stands, by Howard's iteration, in the type of dt.

        P <- (Q - 2 N K + R K^2)/(1 - gamma (A - B K)^2),    K <- (N + gamma A B P)/(R + gamma B^2 P)

    from the control that goes to 0 in one step, which has a finite cost.

    Raises: ValueError if beta = 0; FloatingPointError if 1 - gamma is lost in the type of dt.
    """
    dt, gamma = step.dt, step.discount
    A, B = 1 + dt * step.growth, dt * step.push
    Q, N, R = dt * step.state, dt * step.cross, dt * step.control
    K = _to_zero(step)
    for _ in range(rounds):
        shrink = 1 - gamma * (A - B * K) ** 2
        P = (Q - 2 * N * K + R * K**2) / shrink
        K = (N + gamma * A * B * P) / (R + gamma * B**2 * P)
    # (1 - gamma) c = k + gamma P w/2
    c = (dt * step.constant + gamma * P * dt * step.spread / 2) / (1 - gamma)
    lost = ~(P.isfinite() & c.isfinite())
    if bool(lost.any()):
        least = dt[lost].max().item()
        raise FloatingPointError(f"dt must be so long that the discount differs from 1 in {dt.dtype}, got {least:.3g}")
    return Quadratic(P, K, c)


def solve_rates(step: Step, rounds: int = 60) -> Quadratic:
    """The same equation with V subtracted on both sides and dt divided out, by the same iteration, in the type of dt.

        0 = min_u { cost/dt - decay V + gamma (E V(X') - V)/dt }

    so that 1 - gamma (A - B K)^2 = dt (decay - gamma G (2 + dt G)) with G = (A - 1 - B K)/dt is never formed.

    Raises: ValueError if beta = 0.
    """
    dt, gamma = step.dt, step.discount
    K = _to_zero(step)
    for _ in range(rounds):
        G = step.growth - step.push * K
        shrink = step.decay - gamma * G * (2 + dt * G)
        P = (step.state - 2 * step.cross * K + step.control * K**2) / shrink
        A, B = 1 + dt * step.growth, step.push
        K = (step.cross + gamma * A * B * P) / (step.control + gamma * dt * B**2 * P)
    # decay c = k/dt + gamma P (w/dt)/2
    return Quadratic(P, K, (step.constant + gamma * P * step.spread / 2) / step.decay)


def advantage(step: Step, x: float, u: float, P: float, c: float) -> Tensor:
    """(Q_dt(x, u) - V(x))/dt, (k,), with Q_dt = cost + gamma E V(X') and V = P x^2/2 + c; its limit is q(x, u).

        q(x, u) = (q x^2 + r u^2)/2 + (alpha x + beta u) V' + sigma^2 V''/2 - rho V.

    Raises: ValueError if x, u, P or c is not finite.
    Source: Jia and Zhou 2023. The subtraction is done by hand; see `advantage_by_difference`.
    """
    check_finite(x=x, u=u, P=P, c=c)
    dt, G = step.dt, step.growth * x + step.push * u
    # E V(X') - V = dt P (G (2 x + dt G) + w/dt)/2
    rise = P * (G * (2 * x + dt * G) + step.spread) / 2
    return _cost_rate(step, x, u) + step.discount * rise - step.decay * (P * x**2 / 2 + c)


def advantage_by_difference(step: Step, x: float, u: float, P: float, c: float) -> Tensor:
    """`advantage` in the way of whoever holds Q and V as two numbers: form both, subtract, divide by dt."""
    check_finite(x=x, u=u, P=P, c=c)
    dt = step.dt
    there = x + dt * (step.growth * x + step.push * u)
    # Q = cost + gamma (P (A x + B u)^2/2 + P w/2 + c)
    Q = dt * _cost_rate(step, x, u) + step.discount * (P * there**2 / 2 + P * dt * step.spread / 2 + c)
    return (Q - (P * x**2 / 2 + c)) / dt


def rounding_errors(problem: ControlProblem, octaves: int = 20) -> dict[str, dict[int, float]]:
    """Error of P_dt from the limit P, for both forms of the equation in both precisions, with exact steps.

    Args: problem, as for `held`, with its exact solution. octaves: the steps are 2^-1 to 2^-(octaves + 1).
    Returns: bellman_32, bellman_64, rates_32, rates_64 -> {k: rms over 16 steps from 2^-k down to 2^-(k + 1)}.
    """
    assert problem.exact is not None
    P = problem.exact.gradient(torch.ones(1, 1, dtype=torch.float64)).item()
    k = torch.arange(1, octaves + 1, dtype=torch.float64)
    steps = 2.0 ** -(k[:, None] + torch.arange(16) / 16).flatten()
    found = {}
    for form, solve in (("bellman", solve_bellman), ("rates", solve_rates)):
        for bits, dtype in ((32, torch.float32), (64, torch.float64)):
            miss = solve(held(problem, steps.to(dtype))).P.double() - P
            rms = miss.reshape(octaves, 16).square().mean(1).sqrt()
            found[f"{form}_{bits}"] = dict(enumerate(rms.tolist(), start=1))
    return found


def _cost_rate(step: Step, x: float, u: float) -> Tensor:
    return (step.state * x**2 + 2 * step.cross * x * u + step.control * u**2) / 2 + step.constant


def _to_zero(step: Step) -> Tensor:
    """K = A/B."""
    if bool((step.push == 0).any()):
        raise ValueError("beta must not be 0: the control does not act")
    return (1 + step.dt * step.growth) / (step.dt * step.push)


def _growth(rate: float, s: Tensor) -> Tensor:
    """int_0^s e^(rate r) dr."""
    return torch.expm1(rate * s) / rate if rate != 0 else s

"""Linear dynamics with quadratic costs: problems whose value is a quadratic form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hjbridge.hjb.methods.riccati import Riccati
from hjbridge.hjb.problem import ControlProblem, LinearQuadratic, check_definite, check_symmetric
from hjbridge.hjb.solution import Solution, solve

Number = float | int
Matrix = Number | Tensor | Sequence[Sequence[Number]]


def lqg(A: Matrix, B: Matrix, Q: Matrix, R: Matrix, G: Matrix, sigma: Matrix, T: Number) -> ControlProblem:
    """Linear-quadratic control with noise over a finite horizon, dX = (A X + B u) dt + sigma dW.

        J = E[ int_0^T (X'QX + u'Ru)/2 dt + X_T'G X_T/2 ],    V = x'P(t)x/2 + c(t),    u = -R^-1 B'P(t) x

    State x (n,), controls u (m,), both without units. Paths start from N(0, 1) in each coordinate; the box is [-3, 3].

    Args:
        A: (n, n), or a number for n = 1. B: (n, m), or a number for n = m = 1. Q, G: symmetric (n, n), R: symmetric
            positive definite (m, m), or numbers that multiply the identity; Q and G may be indefinite.
        sigma: the dispersion, (n, k), or a number that multiplies the identity. T: the horizon.
    Returns: the problem, with `exact` by `Riccati`.
    Raises: ValueError for a matrix of another shape, not finite, not symmetric or (R) not positive definite, sigma < 0,
        T <= 0, or a value that escapes to minus infinity before t = 0 (names the time).
    Source: Fleming and Soner 2006, section III.8 (theirs is without halves).
    """
    arguments = {"A": A, "B": B, "Q": Q, "R": R, "G": G, "sigma": sigma, "T": T}
    drift = _matrix("A", A)
    push = _matrix("B", B).to(drift)
    n, m = push.shape
    if drift.shape != (n, n):
        raise ValueError(f"A must have shape {(n, n)}, for B of shape {(n, m)}, got {tuple(drift.shape)}")
    state = check_symmetric("Q", _matrix("Q", Q, n).to(drift), n)
    price = check_definite("R", _matrix("R", R, m).to(drift), m)
    final = check_symmetric("G", _matrix("G", G, n).to(drift), n)
    if not 0 < T < math.inf:
        raise ValueError(f"T must be positive and finite, got {T}")
    noise, spread = _noise(sigma, n)
    problem = ControlProblem(
        name="lqg", dim=n, controls=m,
        drift=lambda x, t: x @ drift.to(x).T, control_matrix=push, dispersion=noise, control_cost=price,
        running_cost=lambda x, t: ((x @ state.to(x)) * x).sum(1) / 2,
        terminal_cost=lambda x: ((x @ final.to(x)) * x).sum(1) / 2,
        horizon=float(T), initial=lambda count, generator: _normal(count, n, generator),
        box=(torch.full((n,), -3.0, dtype=torch.float64), torch.full((n,), 3.0, dtype=torch.float64)),
        linear_quadratic=LinearQuadratic(drift, push, state, price, final, spread.to(drift)),
        states=_names("x", n), actions=_names("u", m), arguments=arguments,
    )  # fmt: skip
    found = solve(problem, Riccati())
    exact = Solution(
        problem, value_function=found.value_function, gradient_function=found.gradient_function,
        meta={**found.meta, "seed": None},
    )  # fmt: skip
    return replace(problem, exact=exact)


def random_lqg(states: int, controls: int, seed: int) -> ControlProblem:
    """A random `lqg` with Q, R, G the identity, sigma = 1/2 and T = 1, about as hard in any dimension.

    Entries of A are N(0, 0.49/n) and of B N(0, 1.96/n), so that |A x| and |B u| are of the size of 0.7 |x| and 1.4 |u|.

    Args: states n, controls m >= 1; seed of the draw. Raises: ValueError for fewer than one state or control.
    """
    if states < 1 or controls < 1:
        raise ValueError(f"states and controls must be at least 1, got {states} and {controls}")
    generator = torch.Generator().manual_seed(seed)
    A = 0.7 * _normal(states, states, generator) / math.sqrt(states)
    B = 1.4 * _normal(states, controls, generator) / math.sqrt(states)
    return lqg(A, B, Q=1, R=1, G=1, sigma=0.5, T=1)


def stationary_lqr(alpha: Number, beta: Number, q: Number, r: Number, sigma: Number, rho: Number) -> ControlProblem:
    """A scalar linear-quadratic problem over an infinite horizon, dX = (alpha X + beta u) dt + sigma dW.

        J = E int_0^oo e^(-rho t) (q X^2 + r u^2)/2 dt,    V = P x^2/2 + c,    u = -(beta/r) P x,
        beta^2 P^2/r + (rho - 2 alpha) P - q = 0,    c = sigma^2 P/(2 rho)

    State x, control u, without units; V is the least cost among controls under which e^(-rho t) E X^2 goes to zero.
    Paths start from N(0, 1); the box is [-3, 3].

    Args: alpha, beta: drift and gain of the control, 1/time. r > 0: cost of the control. q: cost of the state, above
        -r (alpha - rho/2)^2/beta^2 (any where beta is 0): it may be 0 or a small reward. sigma >= 0: dispersion. rho:
        discount rate, positive, or 0 without noise.
    Returns: the problem, with `exact` in closed form.
    Raises: ValueError for numbers out of range, and where no control stabilises the state (names why).
    Source: Fleming and Soner 2006, section IV.5; Anderson and Moore 1990, chapter 3.
    """
    arguments = {"alpha": alpha, "beta": beta, "q": q, "r": r, "sigma": sigma, "rho": rho}
    for name, number in arguments.items():
        if not math.isfinite(number):
            raise ValueError(f"{name} must be finite, got {number}")
    if r <= 0:
        raise ValueError(f"r must be positive, got {r}: a control that costs nothing has no best size")
    if sigma < 0 or rho < 0:
        raise ValueError(f"sigma and rho must not be negative, got {sigma} and {rho}")
    if rho == 0 and sigma > 0:
        raise ValueError(f"rho must be positive where there is noise, got 0 with sigma {sigma}: the cost is infinite")
    a = alpha - rho / 2
    if beta == 0 and a >= 0:
        raise ValueError(
            f"alpha must be below rho/2 = {rho / 2:g} where beta is 0, got {alpha}: the mode x grows as "
            f"e^({alpha:g} t), no control reaches it, and the discount does not outweigh it"
        )
    square = a**2 + q * beta**2 / r
    if square <= 0:
        raise ValueError(f"q must be above -r (alpha - rho/2)^2/beta^2 = {-r * a**2 / beta**2:.6g}, got {q}")
    # the root with alpha - beta^2 P/r < rho/2, in the form without cancellation
    P = q / (math.sqrt(square) - a) if a < 0 else r * (a + math.sqrt(square)) / beta**2
    c = sigma**2 * P / (2 * rho) if rho else 0.0
    one = torch.ones(1, 1, dtype=torch.float64)
    problem = ControlProblem(
        name="stationary_lqr", dim=1, controls=1,
        drift=lambda x, t: alpha * x, control_matrix=beta * one, dispersion=float(sigma), control_cost=r * one,
        running_cost=lambda x, t: q * x[:, 0] ** 2 / 2, discount=float(rho),
        initial=lambda count, generator: _normal(count, 1, generator), box=(-3 * one[0], 3 * one[0]),
        linear_quadratic=LinearQuadratic(alpha * one, beta * one, q * one, r * one, None, sigma * one),
        states=("x",), actions=("u",), arguments=arguments,
    )  # fmt: skip
    exact = Solution(
        problem, value_function=lambda x, t: P * x[:, 0] ** 2 / 2 + c, gradient_function=lambda x, t: P * x
    )
    return replace(problem, exact=exact)


def _matrix(name: str, value: Matrix, size: int = 1) -> Tensor:
    """The value as a finite float64 matrix; a number becomes that multiple of the identity."""
    matrix = torch.as_tensor(value, dtype=torch.float64)
    if matrix.ndim == 0:
        matrix = matrix * torch.eye(size, dtype=torch.float64, device=matrix.device)
    if matrix.ndim != 2:
        raise ValueError(f"{name} must be a matrix or a number, got shape {tuple(matrix.shape)}")
    if not bool(matrix.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return matrix


def _noise(sigma: Matrix, n: int) -> tuple[float | Tensor, Tensor]:
    """The dispersion as a problem takes it, and as a matrix."""
    spread = _matrix("sigma", sigma, n)
    if len(spread) != n:
        raise ValueError(f"sigma must be a number or have shape ({n}, k), got {tuple(spread.shape)}")
    number = torch.as_tensor(sigma, dtype=torch.float64)
    if number.ndim:
        return spread, spread
    if number.item() < 0:
        raise ValueError(f"sigma must not be negative, got {number.item():g}")
    return number.item(), spread


def _normal(count: int, n: int, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else None
    return torch.randn(count, n, generator=generator, dtype=torch.float64, device=device)


def _names(letter: str, count: int) -> tuple[str, ...]:
    return (letter,) if count == 1 else tuple(f"{letter}{i + 1}" for i in range(count))

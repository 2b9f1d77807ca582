"""Transitions to learn from, with what they should teach: a stationary process, and linear-quadratic regulators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hjbridge.hjb.discrete import temporal_difference
from hjbridge.hjb.discrete.held_control import held, solve_rates
from hjbridge.hjb.problem import ControlProblem


class Batch(NamedTuple):
    """Independent transitions x, u -> after: x (n, d), u (n, m), after (n, d), costs of the step (n,), and gain (m, d).

    gain is K of the best control u = -K x, exact for the same step.
    """

    x: Tensor
    u: Tensor
    after: Tensor
    costs: Tensor
    gain: Tensor


def ou_law(dt: float, nodes: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """X and X' of the stationary process dX = -X dt + dW, dt apart, as nodes and probabilities of a quadrature.

    X is normal with variance 1/2 and X' = e^-dt X + sqrt((1 - e^-2dt)/2) Z. Gauss-Hermite, exact for polynomials of
    degree 2 nodes - 1 in each of X and Z.

    Returns: x, x' and probabilities, each (nodes^2,), float64. Raises: ValueError unless dt > 0.
    """
    keep, noise = _ou_step(dt)
    z, p = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(nodes))
    x = (z / math.sqrt(2)).repeat_interleave(nodes)
    p = p / p.sum()
    return x, keep * x + noise * z.repeat(nodes), torch.outer(p, p).flatten()


def ou_paths(n: int, steps: int, dt: float, generator: torch.Generator | None = None) -> Tensor:
    """n paths (steps + 1, n) of the same process from its stationary law, by its exact transitions, float64."""
    keep, noise = _ou_step(dt)
    x = torch.randn(steps + 1, n, generator=generator, dtype=torch.float64)
    x[0] /= math.sqrt(2)
    for k in range(steps):
        # X' = e^-dt X + sqrt((1 - e^-2dt)/2) Z
        x[k + 1] = keep * x[k] + noise * x[k + 1]
    return x


def held_batch(
    problem: ControlProblem, dt: float, n: int, generator: torch.Generator | None = None, *, x: float = 2, u: float = 5
) -> Batch:
    """Transitions of a scalar regulator that holds its control for dt, by the exact step with its expected cost.

    Args: problem, as for `held`; states uniform on [-x, x], controls uniform on [-u, u]. Returns: `Batch`, float64.
    """
    step = held(problem, torch.tensor([dt], dtype=torch.float64))
    state, control = (w * (2 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 1) for w in (x, u))
    shock = (step.dt * step.spread).sqrt() * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    after = state + step.dt * (step.growth * state + step.push * control) + shock
    price = step.state * state**2 + 2 * step.cross * state * control + step.control * control**2
    # cost = (Q x^2 + 2 N x u + R u^2)/2 + k
    costs = step.dt * (price / 2 + step.constant)
    return Batch(state, control, after, costs[:, 0], solve_rates(step).K[:, None])


def random_regulator(dim: int, n: int, discount: float, generator: torch.Generator | None = None) -> Batch:
    """Transitions without noise of x' = A x + B u with cost (|x|^2 + u^2)/2, one control, A a random near-rotation.

    A = 0.9 I + 0.1 (M - M')/sqrt(dim), with M and B/0.3 standard normal; x and u are standard normal. The gain solves
    the discrete Riccati equation (scipy). Returns: `Batch`, float64.
    """
    from scipy.linalg import solve_discrete_are

    M, B, x, u = (
        torch.randn(*size, generator=generator, dtype=torch.float64)
        for size in ((dim, dim), (dim, 1), (n, dim), (n, 1))
    )
    A, B = 0.9 * torch.eye(dim, dtype=torch.float64) + 0.1 * (M - M.T) / math.sqrt(dim), 0.3 * B
    scale = math.sqrt(discount)
    S = torch.from_numpy(solve_discrete_are(scale * A.numpy(), scale * B.numpy(), np.eye(dim), np.eye(1)))
    # K = gamma (1 + gamma B'SB)^-1 B'SA
    gain = discount * (B.T @ S @ A) / (1 + discount * B.T @ S @ B)
    return Batch(x, u, x @ A.T + u @ B.T, ((x**2).sum(1) + u[:, 0] ** 2) / 2, gain)


def ou_fits(n: int, steps: int, dt: float, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Weights (b, a) of V = a x^2 + b that three methods find on `ou_paths`, for the cost x^2, discounted at rate 1/2.

    Returns: martingale, mean_square and td (TD(0)) -> (2,); the truth is b = 0.8, a = 0.4.
    """
    path, discount = ou_paths(n, steps, dt, generator), math.exp(-dt / 2)
    phi, cost = torch.stack([torch.ones_like(path), path**2], -1), dt * path[:-1] ** 2
    now, after = phi[:-1].flatten(0, 1), phi[1:].flatten(0, 1)
    return {
        "martingale": temporal_difference.martingale_fit(phi[:-1], cost, discount, path.new_zeros(n)),
        "mean_square": temporal_difference.mean_square_td(now, after, cost.flatten(), discount),
        "td": temporal_difference.td0(now, after, cost.flatten(), discount),
    }


def gain_error(
    batch: Batch, discount: float, iterations: int = 12, learn: Callable[..., Tensor] = temporal_difference.lspi
) -> float:
    """Relative error, in the Frobenius norm, of the gain that is learnt from a batch.

    Args: discount: of the step. iterations: from the control zero. learn: `temporal_difference.lspi`, or
        `temporal_difference.fitted_q_iteration`, which needs hundreds of iterations.
    """
    dim, controls = batch.x.shape[1], batch.u.shape[1]
    features = temporal_difference.quadratic_features(batch.x, batch.u)
    greedy = temporal_difference.quadratic_greedy(batch.after, controls)
    w = learn(features, greedy, batch.costs, discount, iterations)[-1]
    return ((temporal_difference.quadratic_gain(w, dim, controls) - batch.gain).norm() / batch.gain.norm()).item()


def _ou_step(dt: float) -> tuple[float, float]:
    if not 0 < dt < math.inf:
        raise ValueError(f"dt must be positive and finite, got {dt}")
    return math.exp(-dt), math.sqrt(-math.expm1(-2 * dt) / 2)

"""What a greedy policy does when its action values carry errors."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from hjbridge.hjb.discrete.spectral import circle_points, excess_cost
from hjbridge.hjb.problem import ControlProblem, check_finite


def noisy_greedy(q: Tensor, noise: float, nodes: int = 361) -> Tensor:
    """Probability (n, A) that each action has the least of q_a + noise Z_a, Z independent standard normal.

        p_a = int phi(z) prod_{b != a} Phi((q_b - q_a)/noise - z) dz,

    by the trapezoid rule in the attained minimum, which lies within nine standard deviations of the least q.

    Args: q (n, A), float64; noise > 0, e.g. eps/dt where a network for Q_dt errs by eps and the gaps are dt q.
    Raises: ValueError if q is not (n, A) or not finite, or noise is not positive.
    """
    if q.ndim != 2:
        raise ValueError(f"q must have shape (n, A), got {tuple(q.shape)}")
    if not 0 < noise < math.inf:
        raise ValueError(f"noise must be positive and finite, got {noise}")
    check_finite(q=q)
    z = torch.from_numpy(np.linspace(-9, 9, nodes)).to(q)
    gap = (q - q.min(1, keepdim=True).values) / noise
    # the minimum is at level v: action a there, all others above
    v = z - gap.unsqueeze(2)
    density = torch.exp(-(v**2) / 2) / math.sqrt(2 * math.pi)
    above = torch.special.log_ndtr(-v)
    share = density * torch.exp(above.sum(1, keepdim=True) - above)
    return torch.trapezoid(share, z, dim=2)


def regret(problem: ControlProblem, actions: Tensor, noise: float, points: int = 65) -> float:
    """Mean over even points of the circle of J - V for the policy that is greedy in q(x, u) + noise Z.

        q(x, u) = R (u - u*)^2/2,    the advantage per unit of time, least at the exact control u*.

    A head for Q_dt that errs by eps acts like noise eps/dt; one for q itself like noise eps, whatever the step.

    Args: problem as for `excess_cost`; actions (A,); noise > 0, infinite for the uniform policy.
    Raises: ValueError as `excess_cost`, if noise is not positive, or an action is not finite.
    """
    check_finite(actions=actions)
    if problem.exact is None or not isinstance(problem.control_cost, Tensor):
        raise ValueError("problem must have an exact solution and a quadratic control cost")
    best = problem.exact.control(circle_points(points)[:, None])
    q = problem.control_cost.item() * (actions - best) ** 2 / 2
    policy = torch.full_like(q, 1 / len(actions)) if math.isinf(noise) else noisy_greedy(q, noise)
    return excess_cost(problem, actions, policy).mean().item()

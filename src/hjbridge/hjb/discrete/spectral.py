"""The Bellman equation of a held control on a circle, by Howard's iteration in Fourier space, and policies on it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hjbridge.hjb.discrete.mdp import best_response
from hjbridge.hjb.problem import CONSTRAINTS, ControlProblem, check_finite


class Errors(NamedTuple):
    """Largest distances from an exact solution: of the value, the control, and the advantage per unit of time."""

    value: float
    control: float
    advantage: float


class Soft(NamedTuple):
    """A soft value on N even points of the circle, (N,), and the policy that attains it, (N, A)."""

    value: Tensor
    policy: Tensor

    def divergence(self) -> float:
        """Mean over the points of KL(pi || uniform), in nats."""
        # KL = sum_a pi_a log(A pi_a)
        return torch.xlogy(self.policy, self.policy.shape[1] * self.policy).sum(1).mean().item()


class Circle(NamedTuple):
    """Values on N even points of the circle: x, value and control, each (N,), and the rounds that Howard took."""

    x: Tensor
    value: Tensor
    control: Tensor
    rounds: int


def circle_points(n: int) -> Tensor:
    """n even points of the circle, from 0."""
    return 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n


def held_circle(problem: ControlProblem, dt: float, points: int = 65, rounds: int = 30) -> Circle:
    """Solve V(x) = min_u { (l + R u^2/2) dt + e^(-rho dt) E V(x + (b + B u) dt + sigma sqrt(dt) Z) } on a circle.

    V is a trigonometric polynomial through N points. The expectation over Z multiplies mode k by e^(-k^2 sigma^2 dt/2),
    so that nothing but the Bellman equation itself is discretised; rounding apart, V_dt is exact once N resolves it.

    Args: problem, one periodic axis of length 2 pi, quadratic control cost, constant B and sigma, a discount rate, no
        horizon and no bounds on the control; dt > 0; points N, odd.
    Raises: ValueError for another problem, dt or N; RuntimeError if u is no minimum or the rounds do not suffice.
    """
    _check(problem, dt, points)
    x = circle_points(points)
    R, gamma = _scalar(problem.control_cost), torch.exp(torch.tensor(-problem.discount * dt, dtype=torch.float64))
    B, eye = _scalar(problem.control_matrix), torch.eye(points, dtype=torch.float64)
    cost, drift = problem.cost(x[:, None], torch.tensor(0.0), 0 * x[:, None]), _drift(problem, x)
    u, value, scale = torch.zeros_like(x), torch.zeros_like(x), 1.0
    for count in range(1, rounds + 1):
        old = value
        there = x + (drift + B * u) * dt
        # (I - gamma E_u) V = (l + R u^2/2) dt
        value = torch.linalg.solve(eye - gamma * _moved(problem, points, there, dt), (cost + R * u**2 / 2) * dt)
        scale = value.abs().max().item()
        if (value - old).abs().max().item() <= 1e-12 * max(scale, 1.0) / dt**0.5:
            return Circle(x, value, u, count)
        u = _improve(problem, value, drift, u, dt)
    raise RuntimeError(f"Howard's iteration needs more than {rounds} rounds")


def held_action_values(problem: ControlProblem, value: Tensor, dt: float, actions: Tensor) -> Tensor:
    """Q_dt (N, A) of each of `actions` (A,) on the N points of a `value` (N,), the same step as `held_circle`.

    Raises: ValueError as `held_circle`, or if a value or an action is not finite.
    """
    _check(problem, dt, len(value))
    check_finite(value=value, actions=actions)
    x = circle_points(len(value))
    gamma = torch.exp(torch.tensor(-problem.discount * dt, dtype=torch.float64))
    R, B, columns = _scalar(problem.control_cost), _scalar(problem.control_matrix), []
    cost, drift = problem.cost(x[:, None], torch.tensor(0.0), 0 * x[:, None]), _drift(problem, x)
    for u in actions:
        onward = _moved(problem, len(value), x + (drift + B * u) * dt, dt) @ value
        # Q = (l + R u^2/2) dt + gamma E V(X')
        columns.append((cost + R * u**2 / 2) * dt + gamma * onward)
    return torch.stack(columns, 1)


def soft_circle(
    problem: ControlProblem, actions: Tensor, dt: float, temperature: float, points: int = 65, rounds: int = 50
) -> Soft:
    """Solve the soft Bellman equation of held controls on a circle by soft policy iteration.

        V(x) = -alpha log sum_a e^(-Q(x, a)/alpha),    Q(x, a) = (l + R a^2/2) dt + e^(-rho dt) E V(X_dt)

    For alpha = a dt and dt -> 0, V tends to the solution of the exploratory equation
    rho V = l + b V' + sigma^2 V''/2 - a log sum_a e^(-(R a^2/2 + B a V')/a); for a fixed alpha, to minus infinity.

    Args: problem as for `held_circle`; actions (A,); dt; temperature alpha > 0; points N, odd.
    Raises: ValueError as `held_circle`, for another temperature or an action that is not finite; RuntimeError if the
        rounds do not suffice.
    Source: Haarnoja et al. 2018, section 4.1; Wang, Zariphopoulou and Zhou 2020 for the limit.
    """
    _check(problem, dt, points)
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    check_finite(actions=actions)
    x, eye = circle_points(points), torch.eye(points, dtype=torch.float64)
    drift, B = _drift(problem, x), _scalar(problem.control_matrix)
    gamma = torch.exp(torch.tensor(-problem.discount * dt, dtype=torch.float64))
    moves = torch.stack([_moved(problem, points, x + (drift + B * u) * dt, dt) for u in actions])
    paid = held_action_values(problem, torch.zeros_like(x), dt, actions)
    policy = torch.full_like(paid, 1 / len(actions))
    for _ in range(rounds):
        # V = c_pi + alpha sum_a pi log pi + gamma P_pi V
        cost = (policy * paid).sum(1) + temperature * torch.xlogy(policy, policy).sum(1)
        value = torch.linalg.solve(eye - gamma * torch.einsum("na,ank->nk", policy, moves), cost)
        better = best_response(paid + gamma * (moves @ value).T, temperature)
        moved, policy = (better - policy).abs().max().item(), better
        if moved <= 1e-10:
            return Soft(value, policy)
    raise RuntimeError(f"soft policy iteration needs more than {rounds} rounds")


def held_errors(problem: ControlProblem, dt: float, actions: Tensor, points: int = 65) -> Errors:
    """How far the held problem is from the continuous one: V_dt from V, u_dt from u*, (Q_dt - V_dt)/dt from q.

    Args: as for `held_circle`, with an exact solution; actions (A,), where q(x, u) = R (u - u*)^2/2 is compared.
    """
    if problem.exact is None:
        raise ValueError("problem must have an exact solution, got none")
    held = held_circle(problem, dt, points)
    x = held.x[:, None]
    best = problem.exact.control(x)
    rate = (held_action_values(problem, held.value, dt, actions) - held.value[:, None]) / dt
    gaps = (
        held.value - problem.exact.value(x),
        held.control - best[:, 0],
        rate - _scalar(problem.control_cost) * (actions - best) ** 2 / 2,
    )
    return Errors(*(gap.abs().max().item() for gap in gaps))


def excess_cost(problem: ControlProblem, actions: Tensor, policy: Tensor) -> Tensor:
    """J - V on N even points of the circle, in continuous time, of a policy (N, A) that mixes `actions` (A,).

        rho G - (b + B E u) G' - sigma^2 G''/2 = E R (u - u*)^2/2,    u* the exact control,

    which is the identity J - V = E int e^(-rho t) R (u - u*)^2/2 dt as an equation, solved by Fourier collocation.

    Args: problem as for `held_circle`, with an exact solution; policy, probabilities in each point.
    Raises: ValueError for another problem or number of points, or if an action or a probability is not finite.
    """
    n = len(policy)
    _check(problem, 1.0, n)
    check_finite(actions=actions, policy=policy)
    if problem.exact is None:
        raise ValueError("problem must have an exact solution, got none")
    x = circle_points(n)
    best = problem.exact.control(x[:, None])
    # q(x, u) = R (u - u*)^2/2
    rate = (policy * (actions - best) ** 2).sum(1) * _scalar(problem.control_cost) / 2
    speed = _drift(problem, x) + _scalar(problem.control_matrix) * (policy @ actions)
    slope, bend = _differentiate(n, 1), _differentiate(n, 2)
    generator = speed[:, None] * slope + float(problem.dispersion) ** 2 / 2 * bend  # type: ignore[arg-type]
    return torch.linalg.solve(problem.discount * torch.eye(n, dtype=torch.float64) - generator, rate)


def _check(problem: ControlProblem, dt: float, points: int) -> None:
    if problem.dim != 1 or problem.periodic != (0,) or problem.horizon is not None or not problem.discount:
        raise ValueError(f"problem must be discounted, on a circle and without horizon, got {problem.name}")
    for name in CONSTRAINTS:
        if getattr(problem, name) is not None:
            raise ValueError(f"{name} must be None on the circle: only free controls of quadratic cost are covered")
    length = math.nan if problem.box is None else (problem.box[1] - problem.box[0]).item()
    if not abs(length / (2 * math.pi) - 1) < 1e-6:
        raise ValueError(f"box must be 2 pi = {2 * math.pi:.6g} long on the circle, got {length:.6g}")
    if not 0 < dt < math.inf:
        raise ValueError(f"dt must be positive and finite, got {dt}")
    if points < 3 or points % 2 == 0:
        raise ValueError(f"points must be odd and at least 3, got {points}")


def _improve(problem: ControlProblem, value: Tensor, drift: Tensor, u: Tensor, dt: float) -> Tensor:
    """The minimiser of R u^2/2 + gamma (E V(x + (b + B u) dt))/dt by Newton's method from u."""
    x = circle_points(len(value))
    R, B, n = _scalar(problem.control_cost), _scalar(problem.control_matrix), len(value)
    gamma = torch.exp(torch.tensor(-problem.discount * dt, dtype=torch.float64))
    for _ in range(100):
        there = x + (drift + B * u) * dt
        slope, bend = (_moved(problem, n, there, dt, order) @ value for order in (1, 2))
        # R u + gamma B W'(x + (b + B u) dt) = 0; far from the minimum the curvature may be negative
        fault, curvature = R * u + gamma * B * slope, R + gamma * B**2 * dt * bend
        if fault.abs().max().item() <= 1e-11 * (1 + u.abs().max().item()):
            break
        u = u - fault / curvature.clamp(min=R / 4)
    if not bool((curvature > 0).all()):
        raise RuntimeError(f"the control must be a minimum, got the curvature {curvature.min().item():.3g}: shorten dt")
    return u


def _moved(problem: ControlProblem, n: int, there: Tensor, dt: float, order: int = 0) -> Tensor:
    """Matrix (len(there), n): values on n points -> E of their `order`-th derivative at there + sigma sqrt(dt) Z."""
    k = torch.arange(-(n // 2), n // 2 + 1, dtype=torch.float64)
    x = circle_points(n)
    sigma = float(problem.dispersion)  # type: ignore[arg-type]
    # E e^(i k (y + sigma sqrt(dt) Z)) = e^(i k y - k^2 sigma^2 dt/2)
    factor = (1j * k) ** order * torch.exp(-(k**2) * sigma**2 * dt / 2) / n
    return ((torch.exp(1j * there[:, None] * k) * factor) @ torch.exp(-1j * k[:, None] * x)).real


def _differentiate(n: int, order: int) -> Tensor:
    """Matrix (n, n) of the `order`-th derivative of a trigonometric polynomial on n even points."""
    k = torch.arange(-(n // 2), n // 2 + 1, dtype=torch.float64)
    x = circle_points(n)
    return ((torch.exp(1j * x[:, None] * k) * (1j * k) ** order / n) @ torch.exp(-1j * k[:, None] * x)).real


def _drift(problem: ControlProblem, x: Tensor) -> Tensor:
    return problem.drift(x[:, None], torch.tensor(0.0))[:, 0]


def _scalar(matrix: object) -> float:
    if not isinstance(matrix, Tensor):
        raise ValueError("problem must have a constant control matrix and a quadratic control cost")
    return float(matrix.item())

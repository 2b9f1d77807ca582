"""Finite decision problems: the Bellman equation with a hard, a soft and a linear minimum. Costs are minimised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from hjbridge.hjb.problem import check_finite


@dataclass(frozen=True)
class Tabular:
    """What solves a finite problem.

    Attributes: value V (S,); policy (S, A), the probability of each action, or (S, S), the chosen transition matrix of
    a linearly solvable problem; action_values Q (S, A), None for the latter; history: largest change of V (value
    iteration) or largest Bellman residual (policy iteration) of each round; meta, where it comes from, by `hjb.solve`.
    """

    value: Tensor
    policy: Tensor
    action_values: Tensor | None = None
    history: tuple[float, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def contraction(self, sweeps: int = 100) -> float:
        """Largest ratio of a change in `history` to the one before it, among the first sweeps."""
        changes = self.history[:sweeps]
        return max(after / before for before, after in pairwise(changes))


@dataclass(frozen=True)
class MDP:
    """Minimise E sum_k gamma^k c(s_k, a_k) over a finite Markov chain with actions.

    Attributes: transition P (S, A, S), P[s, a, s'] the probability of s' after a in s; cost c (S, A); discount gamma in
    [0, 1); exact, the solution if it is known.
    Raises: ValueError if a row does not sum to one or has a negative entry, or the discount is outside [0, 1).
    """

    transition: Tensor
    cost: Tensor
    discount: float
    exact: Tabular | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.cost.shape)
        if self.cost.ndim != 2 or tuple(self.transition.shape) != (*shape, shape[0]):
            got = tuple(self.transition.shape)
            raise ValueError(f"transition must have shape (S, A, S) for a cost (S, A), got {got} for {shape}")
        check_stochastic("transition", self.transition)
        if not bool(self.cost.isfinite().all()):
            raise ValueError("cost must be finite, got NaN or infinity")
        if not 0 <= self.discount < 1:
            raise ValueError(f"discount must lie in [0, 1), got {self.discount}")


@dataclass(frozen=True)
class LinearlySolvable:
    """First exit: choose the transition law itself, at the price of its divergence from a passive one.

        V(s) = q(s) + min_u { KL(u || P(s, .)) + sum_s' u(s') V(s') },      V = q where P(s, s) = 1 (absorbing).

    Attributes: passive P (S, S); cost q (S,), per step inside and once at the exit; exact, the solution if known.
    Raises: ValueError as for `MDP`, or if some state reaches no absorbing one. Source: Todorov 2006.
    """

    passive: Tensor
    cost: Tensor
    exact: Tabular | None = None

    def __post_init__(self) -> None:
        n = len(self.cost)
        if self.cost.ndim != 1 or tuple(self.passive.shape) != (n, n):
            shapes = f"{tuple(self.passive.shape)} for {tuple(self.cost.shape)}"
            raise ValueError(f"P must have shape (S, S) for a cost q of shape (S,), got {shapes}")
        check_stochastic("P", self.passive)
        if not bool(self.cost.isfinite().all()):
            raise ValueError("q must be finite, got NaN or infinity")
        reached = self.absorbing
        for _ in range(n):
            reached = reached | ((self.passive > 0) & reached).any(1)
        if not bool(reached.all()):
            raise ValueError(
                f"P must lead every state to an absorbing one, got none from {int((~reached).nonzero()[0])}"
            )

    @property
    def absorbing(self) -> Tensor:
        """Where the problem ends, (S,) of bool."""
        return self.passive.diagonal() == 1


def check_stochastic(name: str, P: Tensor) -> None:
    """Check that the last axis holds probabilities; names the row and what is wrong with it."""
    if not bool(P.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if bool((P < 0).any()):
        place = tuple((P < 0).nonzero()[0].tolist())
        raise ValueError(f"{name} must not be negative, got {P[place].item():g} at {place}")
    sums = P.sum(-1)
    off = (sums - 1).abs() > 1e3 * torch.finfo(P.dtype).eps
    if bool(off.any()):
        row = tuple(off.nonzero()[0].tolist())
        raise ValueError(f"{name} must have rows that sum to 1, got {sums[row].item():g} in row {row}")


def check_temperature(temperature: float) -> None:
    """Check that an entropy temperature is finite and not negative."""
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be finite and not negative, got {temperature}")


def check_action_values(Q: Tensor) -> None:
    """Check that no entry is NaN or -inf, and that every row (last axis) has a finite one; inf forbids an action."""
    bad = Q.isnan() | (Q == -math.inf)
    if bool(bad.any()):
        place = tuple(bad.nonzero()[0].tolist())
        raise ValueError(f"Q must be finite, or inf for a forbidden action, got {Q[place].item()} at {place}")
    none = (Q == math.inf).all(-1)
    if bool(none.any()):
        row = tuple(none.nonzero()[0].tolist())
        raise ValueError(f"Q must allow an action in every row, got inf alone in row {row}")


def soft_minimum(Q: Tensor, temperature: float = 0.0) -> Tensor:
    """min_pi { E_pi Q - alpha H(pi) } = -alpha log sum_a exp(-Q_a/alpha) over the last axis; min Q at temperature 0.

    Raises: ValueError for another temperature, and as `check_action_values` for Q.
    """
    check_temperature(temperature)
    check_action_values(Q)
    if temperature == 0:
        return Q.min(-1).values
    return -temperature * torch.logsumexp(-Q / temperature, -1)


def best_response(Q: Tensor, temperature: float = 0.0) -> Tensor:
    """The policy that attains `soft_minimum`: proportional to exp(-Q/alpha), at temperature 0 the first minimum.

    Raises: ValueError as `soft_minimum`.
    """
    check_temperature(temperature)
    check_action_values(Q)
    if temperature == 0:
        return torch.nn.functional.one_hot(Q.argmin(-1), Q.shape[-1]).to(Q)
    return torch.softmax(-Q / temperature, -1)


def backup(mdp: MDP, value: Tensor) -> Tensor:
    """Q(s, a) = c(s, a) + gamma sum_s' P(s, a, s') V(s'), of shape (S, A), from a finite V (S,)."""
    check_finite(value=value)
    # Q = c + gamma P V
    return mdp.cost + mdp.discount * (mdp.transition @ value)


def evaluate(mdp: MDP, policy: Tensor, temperature: float = 0.0) -> Tensor:
    """Value (S,) of a policy (S, A) by one linear solve; with a temperature its entropy counts as -alpha H(pi).

    V = (I - gamma P_pi)^-1 (c_pi + alpha sum_a pi log pi).
    """
    check_temperature(temperature)
    if policy.shape != mdp.cost.shape:
        raise ValueError(f"policy must have shape {tuple(mdp.cost.shape)}, got {tuple(policy.shape)}")
    check_stochastic("policy", policy)
    cost = (policy * mdp.cost).sum(1) + temperature * torch.xlogy(policy, policy).sum(1)
    matrix = torch.einsum("sa,sat->st", policy, mdp.transition)
    # (I - gamma P_pi) V = c_pi
    return torch.linalg.solve(torch.eye(len(cost)).to(matrix) - mdp.discount * matrix, cost)


def value_iteration(mdp: MDP, temperature: float = 0.0, *, tolerance: float = 1e-10, sweeps: int = 100_000) -> Tabular:
    """V <- softmin_a (c + gamma P V) from V = 0, a contraction by gamma in the largest norm (Bellman 1957).

    It stops when the change guarantees |V - V*| <= tolerance, which is a change of tolerance (1 - gamma)/gamma.

    Args: temperature, 0 for the hard minimum of Q-learning, above it the soft one.
    Raises: RuntimeError if the sweeps do not suffice.
    """
    value, history = torch.zeros_like(mdp.cost[:, 0]), []
    for _ in range(sweeps):
        Q = backup(mdp, value)
        # V <- softmin_a Q
        new = soft_minimum(Q, temperature)
        history.append((new - value).abs().max().item())
        value = new
        if history[-1] * mdp.discount <= tolerance * (1 - mdp.discount):
            Q = backup(mdp, value)
            return Tabular(value, best_response(Q, temperature), Q, tuple(history))
    raise RuntimeError(f"value iteration needs more than {sweeps} sweeps to reach {tolerance:g}, got {history[-1]:.3g}")


def policy_iteration(mdp: MDP, temperature: float = 0.0, *, rounds: int = 1000) -> Tabular:
    """Evaluate a policy by a linear solve, improve it, repeat: Newton's method for the Bellman equation (Howard 1960).

    With a temperature this is the soft policy iteration behind SAC (Haarnoja et al. 2018). It ends when the value
    solves the Bellman equation up to rounding.

    Raises: RuntimeError if the rounds do not suffice.
    """
    policy, history = best_response(mdp.cost, temperature), []
    # |V| <= (max |c| + alpha log A)/(1 - gamma)
    bound = mdp.cost.abs().max().item() + temperature * math.log(mdp.cost.shape[1])
    noise = 64 * torch.finfo(mdp.cost.dtype).eps * bound / (1 - mdp.discount)
    for _ in range(rounds):
        value = evaluate(mdp, policy, temperature)
        Q = backup(mdp, value)
        history.append((soft_minimum(Q, temperature) - value).abs().max().item())
        if history[-1] <= noise:
            return Tabular(value, policy, Q, tuple(history))
        policy = best_response(Q, temperature)
    raise RuntimeError(f"policy iteration needs more than {rounds} rounds, got a residual of {history[-1]:.3g}")


def solve_linear(problem: LinearlySolvable) -> Tabular:
    """Solve a linearly solvable problem by one linear system: with z = e^-V inside, the minimum disappears.

        z = e^-q P z inside,    z = e^-q at the exit,    u*(s'|s) = P(s, s') z(s') / (P z)(s).

    Raises: ValueError if e^-q P is no contraction inside (a reward of lingering without end).
    Source: Todorov 2006, 2009.
    """
    P, q, end = problem.passive, problem.cost, problem.absorbing
    M = torch.exp(-q[~end]).unsqueeze(1) * P[~end]
    inner, outer = M[:, ~end], M[:, end]
    radius = torch.linalg.eigvals(inner).abs().max().item() if len(inner) else 0.0
    if not radius < 1:
        raise ValueError(f"q must make e^-q P a contraction inside, got the spectral radius {radius:.6g}")
    z = torch.exp(-q)
    # (I - e^-q P_in) z_in = e^-q P_out z_out
    z[~end] = torch.linalg.solve(torch.eye(len(inner)).to(inner) - inner, outer @ z[end])
    if not bool((z > 0).all() and z.isfinite().all()):
        raise FloatingPointError("the desirability e^-V under- or overflows: scale the cost q")
    policy = P * z
    return Tabular(-z.log(), policy / policy.sum(1, keepdim=True))


def kl_residual(problem: LinearlySolvable, value: Tensor) -> Tensor:
    """V - q - min_u { KL(u || P) + u V }, (S,), with the minimiser put in explicitly; V - q where the problem ends.

    Raises: ValueError if the value V (S,) is not finite.
    """
    check_finite(value=value)
    tilt = torch.softmax(torch.where(problem.passive > 0, problem.passive.log() - value, -torch.inf), 1)
    divergence = (torch.xlogy(tilt, tilt) - torch.xlogy(tilt, problem.passive)).sum(1)
    # KL(u || P) + u V
    onward = divergence + tilt @ value
    return value - problem.cost - torch.where(problem.absorbing, torch.zeros_like(value), onward)

"""Finite problems with their solutions by linear algebra."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hjbridge.hjb.discrete.mdp import MDP, LinearlySolvable, policy_iteration, solve_linear


def linearly_solvable_mdp(P: Tensor, q: Tensor) -> LinearlySolvable:
    """First-exit problem in which the transition law is chosen at the price KL(u || P), with its solution as `exact`.

        V = q + min_u { KL(u || P) + u V },    solved by z = e^-q P z with z = e^-V.

    State: an index s in 0 ... S-1, in the order of the rows of P; it and q have no units. Control: the law u(s, .) of
    the next state, a probability for each index. States s with P(s, s) = 1 are absorbing: there the problem ends and
    costs q once.

    Args: P, passive transition matrix (S, S); q, cost of each state (S,).
    Returns: `LinearlySolvable`. Raises: ValueError if a row of P does not sum to one (names row and sum), an entry is
        negative, some state reaches no absorbing one, or lingering pays without end. Source: Todorov 2006.
    """
    problem = LinearlySolvable(P, q)
    return replace(problem, exact=solve_linear(problem))


def random_mdp(states: int, actions: int, discount: float, seed: int) -> MDP:
    """A random finite problem: rows of P uniform on the simplex, costs uniform on [0, 1]; `exact` by Howard's method.

    State: an index s in 0 ... S-1. Control: an index a in 0 ... A-1, in the order of the second axis of P and c.
    Neither they nor the costs have units.

    Args: states S, actions A >= 1; discount in [0, 1); seed of the draw.
    Returns: `MDP` in float64. Raises: ValueError for fewer than one state or action or another discount.
    """
    if states < 1 or actions < 1:
        raise ValueError(f"states and actions must be at least 1, got {states} and {actions}")
    generator = torch.Generator().manual_seed(seed)
    # exponentials over their sum are uniform on the simplex
    rows = -torch.log1p(-torch.rand(states, actions, states, generator=generator, dtype=torch.float64))
    cost = torch.rand(states, actions, generator=generator, dtype=torch.float64)
    mdp = MDP(rows / rows.sum(-1, keepdim=True), cost, discount)
    return replace(mdp, exact=policy_iteration(mdp))

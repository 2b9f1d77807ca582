"""Finite decision problems, and control that is held for a step: what Bellman's equation is before time flows.

`mdp` solves finite problems; `held_control` and `spectral` let the step of a continuous one shrink; `greedy_regret`
asks what errors of action values cost; `temporal_difference` learns values from `transitions`. These files stand below
`hjbridge.hjb.solution` and import none of the methods.
"""

from hjbridge.hjb.discrete.mdp import (
    MDP,
    LinearlySolvable,
    Tabular,
    backup,
    best_response,
    evaluate,
    kl_residual,
    policy_iteration,
    soft_minimum,
    solve_linear,
    value_iteration,
)

__all__ = [
    "MDP",
    "LinearlySolvable",
    "Tabular",
    "backup",
    "best_response",
    "evaluate",
    "kl_residual",
    "policy_iteration",
    "soft_minimum",
    "solve_linear",
    "value_iteration",
]

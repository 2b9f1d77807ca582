"""Implicit time stepping of the HJB equation on a lattice: backward Euler or BDF2, Howard's iteration in each step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hjbridge.hjb.schemes.howard import Discretised, howard


def terminal(grid: Discretised, t: Tensor) -> np.ndarray:
    """Phi at the points (N,), the better of it and the obstacle where stopping is allowed, the exit cost outside."""
    problem = grid.problem
    assert problem.terminal_cost is not None
    v = problem.terminal_cost(grid.x)
    if problem.obstacle is not None:
        v = problem.better(v, problem.obstacle(grid.x, t))
    if problem.exit_cost is not None:
        v = torch.where(torch.from_numpy(grid.outside), problem.exit_cost(grid.x, t), v)
    return v.numpy()


def march(grid: Discretised, times: np.ndarray) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Values (K + 1, N) at ascending times, from the terminal cost backwards, and the notes of each step.

    upwind and hybrid: backward Euler, order 1, monotone. central: BDF2 of variable step, order 2, after one such step:

        (1 + 2w)/(1 + w) V_k - (1 + w) V_{k+1} + w^2/(1 + w) V_{k+2} = dt (min_u { L^u V + c^u } - rho V)_k

    with w = dt_k / dt_{k+1}. Both are implicit in value and control, stable for steps of any length, and damp what a
    kink in the terminal cost excites. Source: Hairer and Wanner 1996, III.5; Bokanowski, Picarelli and Reisinger 2021.
    """
    values = np.empty((len(times), grid.stencils.size))
    clock = torch.from_numpy(times)
    values[-1] = terminal(grid, clock[-1])
    notes = []
    for k in range(len(times) - 2, -1, -1):
        dt, guess = times[k + 1] - times[k], values[k + 1]
        if grid.scheme != "central" or k == len(times) - 2:
            lead, history = 1.0, values[k + 1]
        else:
            w = dt / (times[k + 2] - times[k + 1])
            lead = (1 + 2 * w) / (1 + w)
            history = (1 + w) * values[k + 1] - w**2 / (1 + w) * values[k + 2]
            guess = values[k + 1] + w * (values[k + 1] - values[k + 2])
        shift = grid.problem.discount + lead / dt
        step = howard(grid, clock[k], guess, shift=shift, right=history / dt)
        values[k] = step.value
        notes.append({"t": float(times[k]), "iterations": len(step.residuals) - 1, "residual": step.residuals[-1]})
    return values, notes

"""Integrals over a time grid: what is known at its points, weighed as the flow of a process needs it."""

from __future__ import annotations

import torch
from torch import Tensor

from hjbridge.sde.process import Process


def flow_weights(process: Process, times: Tensor) -> tuple[Tensor, float]:
    """Weights w_i (n + 1,) and number c of int div v dt = c d - sum_i w_i div score_i, on ascending times (n + 1,).

    The velocity is v = f x - g^2 score / 2. With s = sigma/alpha, g^2 dt = alpha^2 d(s^2), so that no rate is needed,
    which may jump (DDPM), and with u = s^(1/7), which is evenly spaced on a Karras grid,

        int div v dt = d log(alpha_1 / alpha_0) - int 7 alpha^2 s^(13/7) div score du

    Raises: ValueError if s does not grow from each time to the next.
    """
    alpha, s = process.alpha(times), process.ratio(times)
    if bool((s.diff() <= 0).any()):
        raise ValueError(f"sigma/alpha of {type(process).__name__} must grow from each time of the grid to the next")
    first, weights = int(s[0] == 0), torch.zeros_like(s)
    # int 7 alpha^2 s^(13/7) div score du
    weights[first:] = 7 * alpha[first:] ** 2 * s[first:] ** (13 / 7) * quadrature(s[first:] ** (1 / 7))
    if first:
        # where it begins without noise, a trapezoid in s^2: int alpha^2 div score d(s^2) / 2
        weights[:2] += alpha[:2] ** 2 * s[1] ** 2 / 4
    return weights, (process.log_alpha(times[-1]) - process.log_alpha(times[0])).item()


def quadrature(grid: Tensor, points: int = 6) -> Tensor:
    """Weights w_i with sum_i w_i f(t_i) = int f dt over ascending points t_i (n + 1,).

    Over each step the polynomial through the nearest `points` of them is integrated, which is their order.
    """
    n, points = len(grid) - 1, min(points, len(grid))
    steps, powers = torch.arange(n, device=grid.device), torch.arange(points, device=grid.device)
    nearest = (steps - points // 2 + 1).clamp(0, n + 1 - points).unsqueeze(1) + powers
    h = grid.diff().unsqueeze(1)
    # u = (t - t_k)/h, and sum_i c_i u_i^p = int_0^1 u^p du = 1/(p + 1) for p = 0 .. points - 1
    u = (grid[nearest] - grid[:-1].unsqueeze(1)) / h
    moments = (1 / (powers + 1).to(grid)).expand(n, points)
    c = torch.linalg.solve(u.unsqueeze(1) ** powers.unsqueeze(1), moments)
    return torch.zeros_like(grid).index_add(0, nearest.flatten(), (h * c).flatten())

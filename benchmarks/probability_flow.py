"""Probability flow of a mixture from noise to data: RK4 on the Karras grid against torchdiffeq's adaptive dopri5."""

from __future__ import annotations

import torch
import torchdiffeq
from paired import Outcome, Row, cpu_seconds, ratios

from hjbridge.score import time_grid
from hjbridge.sde import EDM, GaussianMixture, integrate, reverse

POINTS, STEPS, START, END = 5000, 34, 40.0, 0.002
PROCESS = EDM()
COVARIANCES = [[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]], [[0.2, -0.1], [-0.1, 0.3]]]
MIXTURE = GaussianMixture([0.2, 0.5, 0.3], [[1.5, 0.0], [-1.0, 1.0], [0.0, -1.2]], COVARIANCES)


def run(quick: bool) -> Outcome:
    flow = reverse(PROCESS, MIXTURE.denoiser(PROCESS).score, eta=0.0)
    # the last point of a Karras grid is t = 0; leave it out and end at the smallest noise
    grid = time_grid(PROCESS, STEPS + 1, ratio_max=START, ratio_min=END)[:-1]

    def dopri5(x, tolerance):
        # step_t: dopri5 ends a step at the end of the range and never evaluates beyond it
        options = {"rtol": tolerance, "atol": tolerance, "options": {"step_t": grid[-1:]}}
        return torchdiffeq.odeint(lambda t, x: flow.drift(x, t), x, grid[[0, -1]], **options)[-1]

    seconds: tuple[list[float], list[float]] = ([], [])
    errors: tuple[list[float], list[float]] = ([], [])
    for seed in range(2 if quick else 7):
        noise = torch.Generator().manual_seed(seed)
        x = PROCESS.prior_sample((POINTS, 2), noise, t=float(grid[0]), dtype=torch.float64)
        exact, found = dopri5(x, 1e-10), {}
        solvers = [lambda x=x: integrate(flow, x, grid, "rk4").x, lambda x=x: dopri5(x, 1e-5)]
        for i in (0, 1) if seed % 2 == 0 else (1, 0):
            solvers[i]()
            seconds[i].append(cpu_seconds(lambda i=i, solvers=solvers, found=found: found.update({i: solvers[i]()})))
            errors[i].append((found[i] - exact).abs().max().item())
    return Outcome(
        f"three correlated modes in two dimensions, {POINTS} points from noise {START:g} to {END:g}, float64, other "
        f"points in each repetition; RK4 with {STEPS} steps on the Karras grid, dopri5 with rtol = atol = 1e-5, the "
        "same drift for both; largest error over points and coordinates against dopri5 with 1e-10",
        (
            Row("probability flow: largest error ours / dopri5", ratios(*errors), "<=", 1, "worst"),
            Row("probability flow: CPU ours / dopri5", ratios(*seconds), "<=", 0.6),
        ),
    )

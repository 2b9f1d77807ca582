"""Euler-Maruyama on the Ornstein-Uhlenbeck process: `hjbridge.sde.integrate` against `torchsde.sdeint`."""

from __future__ import annotations

import math

import torch
import torchsde
from paired import Outcome, Row, interleaved, ratios

from hjbridge.sde import SDE, integrate

PATHS, WIDTH, STEPS = 10_000, 2, 1024  # 1/1024 is exact in binary: both take the same number of steps
SIGMA = 0.5


class OrnsteinUhlenbeck:
    """dX = -X dt + sigma dW for torchsde, in its cheapest form: diagonal noise from a constant tensor."""

    sde_type, noise_type = "ito", "diagonal"

    def __init__(self) -> None:
        self.dispersion, self.evaluations = torch.full((PATHS, WIDTH), SIGMA), 0

    def f(self, t, x):
        self.evaluations += 1
        return -x

    def g(self, t, x):
        return self.dispersion


def run(quick: bool) -> Outcome:
    start, grid, equation = torch.zeros(PATHS, WIDTH), torch.linspace(0, 1, STEPS + 1), OrnsteinUhlenbeck()
    ends, step = grid[[0, -1]], 1 / STEPS

    def ours():
        return integrate(SDE(lambda x, t: -x, lambda x, t: SIGMA), start, grid).x

    def default():
        return torchsde.sdeint(equation, start, ends, method="euler", dt=step)[-1]

    def tuned():
        motion = torchsde.BrownianInterval(0.0, 1.0, size=start.shape, dtype=start.dtype, dt=step, cache_size=None)
        return torchsde.sdeint(equation, start, ends, bm=motion, method="euler", dt=step)[-1]

    for solve in (ours, default, tuned):
        check(solve())
    if equation.evaluations != 2 * (STEPS + 1):  # one call of sdeint is the check of its arguments
        raise RuntimeError(f"torchsde must take {STEPS} steps, took {equation.evaluations / 2 - 1}")
    mine, plain, best = interleaved([ours, default, tuned], 2 if quick else 7)
    return Outcome(
        f"OU process, {PATHS} paths x {WIDTH}, {STEPS} Euler steps, float32; equal law and number of increments, each "
        "library draws its own (equal increments give equal paths: tests/bench/test_integrators.py)",
        (
            Row("Euler loop: torchsde default / ours", ratios(plain, mine), ">=", 5),
            Row("Euler loop: torchsde tuned / ours", ratios(best, mine), ">=", 3),
        ),
    )


def check(x: torch.Tensor) -> None:
    """The variance at t = 1 must be the scheme's own, within five standard errors."""
    # Var_N = sigma^2 h sum_k (1 - h)^(2k)
    decay = (1 - 1 / STEPS) ** 2
    exact = SIGMA**2 / STEPS * (1 - decay**STEPS) / (1 - decay)
    if not abs(x.var().item() / exact - 1) < 5 * math.sqrt(2 / x.numel()):
        raise RuntimeError(f"the variance at t = 1 must be {exact:.4f}, got {x.var().item():.4f}")

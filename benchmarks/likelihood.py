"""Log densities of a mixture along the probability flow: `log_likelihood` against torchdiffeq's adaptive dopri5."""

from __future__ import annotations

import torch
import torchdiffeq
from paired import Outcome, Row, cpu_seconds, ratios

from hjbridge.score import time_grid
from hjbridge.score.divergence import divergence
from hjbridge.score.likelihood import log_likelihood
from hjbridge.sde import EDM, GaussianMixture, reverse

START, END, TOLERANCE = 40.0, 0.02, 1e-5
STEPS_TEN, STEPS_TWO = 48, 32
PROCESS = EDM()


def plane() -> GaussianMixture:
    """Three correlated modes in two dimensions."""
    covariances = [[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]], [[0.2, -0.1], [-0.1, 0.3]]]
    return GaussianMixture([0.2, 0.5, 0.3], [[1.5, 0.0], [-1.0, 1.0], [0.0, -1.2]], covariances)


def space() -> GaussianMixture:
    """Three correlated modes in ten dimensions."""
    generator = torch.Generator().manual_seed(5)
    root = torch.randn(3, 10, 10, generator=generator, dtype=torch.float64)
    means = torch.randn(3, 10, generator=generator, dtype=torch.float64)
    return GaussianMixture([0.2, 0.5, 0.3], means, 0.03 * root @ root.mT + 0.05 * torch.eye(10))


def compare(mixture: GaussianMixture, points: int, steps: int, repetitions: int) -> tuple[list[float], ...]:
    """CPU seconds and largest errors: (ours, theirs, error of ours, error of theirs), a list over repetitions each."""
    score = mixture.denoiser(PROCESS).score
    flow = reverse(PROCESS, score, eta=0.0)
    # the last point of a Karras grid is t = 0; leave it out and end at the smallest noise
    grid = time_grid(PROCESS, steps + 1, ratio_max=START, ratio_min=END)[:-1]
    prior, end = (mixture.marginal(PROCESS, grid[i]) for i in (0, -1))

    def field(t, state):
        return divergence(lambda y: flow.drift(y, t), state[0])

    def dopri5(x):
        # step_t: dopri5 ends a step at the end of the range and never evaluates beyond it
        options = {"rtol": TOLERANCE, "atol": TOLERANCE, "options": {"step_t": grid[:1]}}
        path, integral = torchdiffeq.odeint(field, (x, x.new_zeros(len(x))), grid[[-1, 0]], **options)
        return prior.log_prob(path[-1]) + integral[-1]

    found: tuple[list[float], ...] = ([], [], [], [])
    for seed in range(repetitions):
        x, values = end.sample(points, torch.Generator().manual_seed(seed)), {}
        solvers = [lambda x=x: log_likelihood(PROCESS, score, x, grid, prior.log_prob), lambda x=x: dopri5(x)]
        for i in (0, 1) if seed % 2 == 0 else (1, 0):
            solvers[i]()
            found[i].append(cpu_seconds(lambda i=i, to=solvers, v=values: v.update({i: to[i]()})))
            found[2 + i].append((values[i] - end.log_prob(x)).abs().max().item())
    return found


def run(quick: bool) -> Outcome:
    repetitions = 2 if quick else 7
    mine, theirs, error, error_theirs = compare(space(), 1000, STEPS_TEN, repetitions)
    flat = compare(plane(), 5000, STEPS_TWO, repetitions)
    cpu, off = (sorted(ratios(flat[i], flat[i + 1])) for i in (0, 2))
    return Outcome(
        f"three correlated modes in ten dimensions, 1000 of their samples from noise {END:g} to {START:g}, float64, "
        f"others in each repetition; ours RK4 with {STEPS_TEN} steps on the Karras grid, dopri5 with rtol = atol = "
        f"{TOLERANCE:g} on path and integral together, the same score and exact divergence for both; largest error of "
        "the log density over the samples, which is known",
        (
            Row("likelihood: largest error ours / dopri5", ratios(error, error_theirs), "<=", 1, "worst"),
            Row("likelihood: CPU ours / dopri5", ratios(mine, theirs), "<=", 0.6),
        ),
        (
            f"largest errors {max(error):.2g} and {max(error_theirs):.2g} nats",
            f"in two dimensions, 5000 samples, {STEPS_TWO} steps: CPU {cpu[len(cpu) // 2]:.3g}, error at most "
            f"{off[-1]:.3g} of dopri5's; ours saves divergences, of which each costs d passes backwards",
        ),
    )

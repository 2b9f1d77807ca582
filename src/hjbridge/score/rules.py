"""Sampling rules: how one step of a time grid is made from evaluations of the denoiser.

A rule is a generator function `rule(denoise, process, x, grid, generator)`. It starts at x = x(grid[0]), walks down the
grid, and yields the state after each step; what it must remember (a multistep rule's last denoised image) is a local
variable. `denoise(x, t)` is E[x_0 | x_t] with label and guidance already applied. A rule of one's own is a few lines:

    >>> from itertools import pairwise
    >>> from hjbridge.score.rules import levels
    >>> def project(denoise, process, x, grid, generator=None):
    ...     '''Jump to the denoised image, add fresh noise (consistency sampling, Song et al. 2023, algorithm 1).'''
    ...     for here, there in pairwise(levels(process, grid)):
    ...         noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    ...         x = there.alpha * denoise(x, here.t) + there.sigma * noise
    ...         yield x

and `sample(denoiser, x1, grid, project)` runs it. In the equations s -> t are the noise-to-signal ratios sigma/alpha at
the two ends of a step, y = x/alpha, d = denoise(x, .), z standard normal and h = log(s/t); the code multiplies them out
in x, so that nothing grows where alpha is small, and at sigma = 0 every rule but `euler` ends at d.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from hjbridge.sde.process import Process

Denoise = Callable[[Tensor, Tensor], Tensor]
Rule = Callable[[Denoise, Process, Tensor, Tensor, torch.Generator | None], Iterator[Tensor]]


class Level(NamedTuple):
    """One point of a grid: time (0-d tensor), alpha, sigma and the ratio sigma/alpha (numbers)."""

    t: Tensor
    alpha: float
    sigma: float
    ratio: float


def levels(process: Process, grid: Tensor) -> list[Level]:
    """The points of a grid (n + 1,), computed at once: a step then costs a few multiplications."""
    columns = (process.alpha(grid), process.sigma(grid), process.ratio(grid))
    return [Level(*point) for point in zip(grid.unbind(), *(c.tolist() for c in columns), strict=True)]


def standard_normal(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape, type and device of x; drawn on the device of the generator."""
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)


def log_step(here: Level, there: Level) -> float:
    """h = log(s/t) of a step, infinite if it ends without noise."""
    return math.log(here.ratio / there.ratio) if there.ratio > 0 else math.inf


def ddim(
    denoise: Denoise, process: Process, x: Tensor, grid: Tensor, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """y <- d + (t/s) (y - d), the exact step where d is constant; order 1, deterministic.

    In s it is Euler on the probability flow of EDM and of rectified flow (Song et al. 2021, DDIM, eq. 12 with eta = 0).
    """
    for here, there in pairwise(levels(process, grid)):
        d = denoise(x, here.t)
        # y <- (t/s) y + (1 - t/s) d
        x = (there.sigma / here.sigma) * x + there.alpha * (1 - there.ratio / here.ratio) * d
        yield x


def ancestral(
    denoise: Denoise, process: Process, x: Tensor, grid: Tensor, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """y <- k y + (1 - k) d + t sqrt(1 - k) z with k = t^2/s^2: the exact posterior q(x_t | x_s, x_0 = d); stochastic.

    DDPM's sampler with the variance beta-tilde (Ho et al. 2020, eq. 6 and 7).
    """
    for here, there in pairwise(levels(process, grid)):
        d = denoise(x, here.t)
        # k = t^2 / s^2
        k = (there.ratio / here.ratio) ** 2
        x = (there.alpha / here.alpha * k) * x + there.alpha * (1 - k) * d
        if there.sigma > 0:
            x = x + there.sigma * math.sqrt(1 - k) * standard_normal(x, generator)
        yield x


def reverse_diffusion(
    denoise: Denoise, process: Process, x: Tensor, grid: Tensor, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """y <- y + (s^2 - t^2) grad log p_s(y) + sqrt(s^2 - t^2) z = k y + (1 - k) d + sqrt(s^2 - t^2) z, k = t^2/s^2.

    Euler-Maruyama on Anderson's reverse equation with s^2 for the time: a step takes out the variance that noising has
    put in between t and s. Stochastic; weak order 1; `ancestral` has the same mean and less noise. The last step of the
    grid has none, so that samples do not end with grain that nobody would take out again. For VE it is the predictor of
    that name in Song et al. 2021 and their program, with `noise_removal`; for VP theirs differs in the second order.
    """
    points = list(pairwise(levels(process, grid)))
    for i, (here, there) in enumerate(points):
        d = denoise(x, here.t)
        # k = t^2 / s^2
        k = (there.ratio / here.ratio) ** 2
        x = (there.alpha / here.alpha * k) * x + there.alpha * (1 - k) * d
        if i < len(points) - 1:
            x = x + there.alpha * math.sqrt(here.ratio**2 - there.ratio**2) * standard_normal(x, generator)
        yield x


def euler(
    denoise: Denoise, process: Process, x: Tensor, grid: Tensor, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """x <- x + (t' - t) velocity(x, t): Euler on the probability flow in the process's own time; order 1.

    Deterministic. The only rule that depends on the process and not just on its levels; for rectified flow it is `ddim`
    (Song et al. 2021, eq. 13).
    """
    drift, dispersion = process.drift_coef(grid[:-1]).tolist(), process.diffusion(grid[:-1]).tolist()
    for (here, there), f, g in zip(pairwise(levels(process, grid)), drift, dispersion, strict=True):
        d = denoise(x, here.t)
        dt = (there.t - here.t).item()
        # velocity = f x - g^2/2 score, score = (alpha d - x) / sigma^2
        pull = g**2 / (2 * here.sigma**2)
        x = (1 + dt * (f + pull)) * x - (dt * pull * here.alpha) * d
        yield x


def heun(
    denoise: Denoise, process: Process, x: Tensor, grid: Tensor, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """Trapezoid rule on dy/ds = (y - d)/s, two evaluations a step but for one on a last step to sigma = 0; order 2.

    Karras et al. 2022, algorithm 1. Diverges with few steps from a large ratio.
    """
    for here, there in pairwise(levels(process, grid)):
        y = x / here.alpha
        slope = (y - denoise(x, here.t)) / here.ratio
        step = there.ratio - here.ratio
        ahead = y + step * slope
        if there.ratio > 0:
            # y <- y + (t - s) (slope_s + slope_t) / 2
            slope_ahead = (ahead - denoise(there.alpha * ahead, there.t)) / there.ratio
            ahead = y + step / 2 * (slope + slope_ahead)
        x = there.alpha * ahead
        yield x


def dpmpp2m(
    denoise: Denoise, process: Process, x: Tensor, grid: Tensor, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """DPM-Solver++(2M): `ddim` with d' = d + (d - d_old) h / (2 h_old) in place of d; order 2, deterministic.

    The first step and one to sigma = 0 take d itself (Lu et al. 2022, DPM-Solver++, algorithm 2).
    """
    old, h_old = None, math.inf
    for here, there in pairwise(levels(process, grid)):
        d, h = denoise(x, here.t), log_step(here, there)
        # d' = (1 + 1/(2r)) d - d_old/(2r), r = h_old/h
        guess = d if old is None or h == math.inf else d + h / (2 * h_old) * (d - old)
        # y <- (t/s) y - expm1(-h) d'
        x = (there.sigma / here.sigma) * x - there.alpha * math.expm1(-h) * guess
        old, h_old = d, h
        yield x


def sde_dpmpp2m(
    denoise: Denoise,
    process: Process,
    x: Tensor,
    grid: Tensor,
    generator: torch.Generator | None = None,
    extrapolation: float = 1.0,
) -> Iterator[Tensor]:
    """SDE-DPM-Solver++(2M): `ancestral` with the d' of `dpmpp2m` in place of d; stochastic.

    `extrapolation` in [0, 1] is the share of the way from d to d' that is gone: 0 is `ancestral`, order 2 wants 1. With
    a network that errs, less of it draws samples towards what is typical. `functools.partial` makes a rule of it.

    Lu et al. 2022, DPM-Solver++, eq. 18. Raises: ValueError for an extrapolation outside [0, 1].
    """
    if not 0 <= extrapolation <= 1:
        raise ValueError(f"extrapolation must lie in [0, 1], got {extrapolation}")
    old, h_old = None, math.inf
    for here, there in pairwise(levels(process, grid)):
        d, h = denoise(x, here.t), log_step(here, there)
        guess = d if old is None or h == math.inf else d + extrapolation * h / (2 * h_old) * (d - old)
        # y <- exp(-2h) y - expm1(-2h) d' + t sqrt(-expm1(-2h)) z
        x = (there.alpha / here.alpha * math.exp(-2 * h)) * x - there.alpha * math.expm1(-2 * h) * guess
        if there.sigma > 0:
            x = x + there.sigma * math.sqrt(-math.expm1(-2 * h)) * standard_normal(x, generator)
        old, h_old = d, h
        yield x


RULES: dict[str, Rule] = {
    rule.__name__: rule for rule in (ancestral, reverse_diffusion, ddim, euler, heun, dpmpp2m, sde_dpmpp2m)
}


def denoised(rule: str | Rule) -> Rule:
    """The same rule, whose last state is D(x, t) where the grid ends with noise: for one evaluation, x without it.

    VE keeps sigma_min at t = 0, and so do samples that end there (Song et al. 2021, appendix G; how much that matters
    to a distance is told by Jolicoeur-Martineau et al. 2021). With Gaussian data of variance v the samples then have
    the variance v^2 / (v + sigma^2 / alpha^2) in place of alpha^2 v + sigma^2.

    Raises: ValueError for an unknown name.
    """
    known = RULES.get(rule) if isinstance(rule, str) else rule
    if not callable(known):
        raise ValueError(f"rule must be one of {', '.join(RULES)} or a function, got {rule!r}")

    def walk(
        denoise: Denoise, process: Process, x: Tensor, grid: Tensor, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        for i, state in enumerate(known(denoise, process, x, grid, generator), start=2):
            ends_in_noise = i == len(grid) and process.sigma(grid[-1]) > 0
            yield denoise(state, grid[-1]) if ends_in_noise else state

    return walk

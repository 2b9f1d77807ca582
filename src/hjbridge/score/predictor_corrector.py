"""Predictor-corrector sampling: after each step of a rule, Langevin dynamics at the level that it has reached."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hjbridge.score.rules import RULES, Denoise, Rule, levels, standard_normal
from hjbridge.sde.process import Process

#: rules whose steps need no memory of earlier ones
PREDICTORS = ("ancestral", "reverse_diffusion", "ddim", "euler", "heun")


def predictor_corrector(predictor: str = "ancestral", corrector_steps: int = 1, signal_to_noise: float = 0.16) -> Rule:
    """Rule that takes a step of a predictor and then `corrector_steps` of Langevin dynamics at the new time:

        x <- x + h score(x, t) + sqrt(2 h) z,      h = 2 (r |z| / |score|)^2

    with r the signal-to-noise ratio and the norms averaged over the samples, so that one sample's step depends a little
    on its neighbours (Song et al. 2021, algorithms 1, 4 and 5, and their program, from which the average is taken). No
    step corrects where the grid ends: what comes out is the predictor's last state.

    Paper and program differ: the program corrects before it predicts, algorithm 1 after, as here; for VP the paper has
    a factor alpha in h, which the program takes to be 1 - beta of a step; here it is 1, its limit for short steps.
    A step costs 1 + corrector_steps evaluations, the last one 1 (with "heun" one more each).

    Args: predictor, one of PREDICTORS; corrector_steps, 0 for the predictor alone; signal_to_noise r > 0.
    Raises: ValueError for another predictor, corrector_steps < 0 or r <= 0; when run, FloatingPointError where the
        score vanishes for all samples.
    """
    if predictor not in PREDICTORS:
        raise ValueError(f"predictor must be one of {', '.join(PREDICTORS)}, got {predictor!r}")
    if corrector_steps < 0 or corrector_steps != int(corrector_steps):
        raise ValueError(f"corrector_steps must be a whole number, at least 0, got {corrector_steps}")
    if not 0 < signal_to_noise < math.inf:
        raise ValueError(f"signal_to_noise must be positive and finite, got {signal_to_noise}")
    step = RULES[predictor]

    def walk(
        denoise: Denoise, process: Process, x: Tensor, grid: Tensor, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        for i, there in enumerate(levels(process, grid)[1:]):
            # the predictor sees one more point, by which it knows whether this step is its last
            x = next(iter(step(denoise, process, x, grid[i : i + 3], generator)))
            if i < len(grid) - 2:
                for _ in range(corrector_steps):
                    # score = (alpha d - x) / sigma^2
                    score = (there.alpha * denoise(x, there.t) - x) / there.sigma**2
                    x = langevin(x, score, signal_to_noise, generator)
            yield x

    return walk


def langevin(x: Tensor, score: Tensor, signal_to_noise: float, generator: torch.Generator | None = None) -> Tensor:
    """One step x + h score + sqrt(2 h) z with h = 2 (r |z| / |score|)^2, the norms averaged over the batch.

    Its stationary law is that of the score up to the size of the step: N(0, v) becomes N(0, v (1 + h^2 / v^2)).

    Args: x and score (n, ...); signal_to_noise r; generator of z. Returns: the shape of x.
    Raises: FloatingPointError if the score is zero for all samples, for then there is no step size.
    """
    z = standard_normal(x, generator)
    length = score.flatten(1).norm(dim=1).mean()
    if not bool(length > 0):
        raise FloatingPointError(f"score must not vanish for all samples, got a mean length of {length.item():g}")
    # h = 2 (r |z| / |score|)^2
    h = 2 * (signal_to_noise * z.flatten(1).norm(dim=1).mean() / length) ** 2
    return x + h * score + (2 * h).sqrt() * z

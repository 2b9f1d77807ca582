"""Inpainting by replacement: after every step the known coordinates are what noising the known sample would give."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from hjbridge.score.guidance.observation import check_mask
from hjbridge.score.rules import RULES, Denoise, Level, Rule, levels, standard_normal
from hjbridge.sde.process import Process, check_floating

# their second step differs from their first
WITH_MEMORY = ("dpmpp2m", "sde_dpmpp2m")


def replacement(known: Tensor, mask: Tensor, rule: str | Rule = "ancestral", resample: int = 1) -> Rule:
    """Rule for `sample` that fills in the unknown coordinates of a sample around known ones.

        x_known <- alpha_t known + sigma_t z            at the start and after every step, with fresh noise z

    and, `resample` - 1 times for every step s -> t but one that ends without noise, the step is undone and repeated:

        x_s <- alpha_s (x_t / alpha_t + sqrt(r_s^2 - r_t^2) z),     r = sigma/alpha

    The unknown coordinates see known ones that were noised without them: the samples are not those of p(x_0 | known),
    however fine the grid; repetitions bring them nearer (Song et al. 2021, Score-SDE, inpainting; Lugmayr et al. 2022,
    RePaint). It costs `resample` times the evaluations of `rule`.

    Args:
        known: data of the shape of one sample, or one for each, (n, ...); only its known coordinates are read.
        mask: booleans of the shape of one sample, True where it is known.
        rule: what makes a step: the name of a rule without memory (`dpmpp2m` and `sde_dpmpp2m` have one), or a function
            that follows the contract of rules; it is started anew for each step.
        resample: how often each step is made, at least 1.
    Returns: a rule. Raises: ValueError for an unknown rule or one with memory, a mask that is not boolean or of
        another shape, known coordinates that are not finite, resample < 1; when run, for samples of another shape.
    """
    names = [name for name in RULES if name not in WITH_MEMORY]
    step = RULES.get(rule) if isinstance(rule, str) else rule
    if not callable(step) or step in [RULES[name] for name in WITH_MEMORY]:
        raise ValueError(f"rule must be one of {', '.join(names)} or a function without memory, got {rule!r}")
    if resample < 1 or resample != int(resample):
        raise ValueError(f"resample must be a positive integer, got {resample}")
    check_mask(mask, known.shape[-mask.ndim :] if mask.ndim else known.shape)
    if known.ndim - mask.ndim not in (0, 1):
        raise ValueError(f"known must have shape {tuple(mask.shape)} or (n, ...) of it, got {tuple(known.shape)}")
    check_floating(known, "known")
    if not bool(known[..., mask].isfinite().all()):
        raise ValueError("known must be finite where the mask is True, got NaN or infinity")
    # an unknown coordinate may be anything, NaN too
    known = known.where(mask, torch.zeros_like(known))

    def replaced(x: Tensor, at: Level, generator: torch.Generator | None) -> Tensor:
        # alpha_t known + sigma_t z
        noised = at.alpha * known.to(x) + at.sigma * standard_normal(x, generator)
        return torch.where(mask.to(x.device), noised, x)

    def fill(
        denoise: Denoise, process: Process, x: Tensor, grid: Tensor, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        if x.shape[1:] != mask.shape:
            raise ValueError(f"mask must have the shape of one sample, {tuple(x.shape[1:])}, got {tuple(mask.shape)}")
        if known.ndim == x.ndim and len(known) != len(x):
            raise ValueError(f"known must be one sample or one for each of {len(x)}, got {len(known)}")
        points = levels(process, grid)
        x = replaced(x, points[0], generator)
        for i, (here, there) in enumerate(pairwise(points)):
            for again in reversed(range(resample if there.sigma > 0 else 1)):
                x = next(iter(step(denoise, process, x, grid[i : i + 2], generator)))
                x = replaced(x, there, generator)
                if again:
                    # x_s = alpha_s (x_t / alpha_t + sqrt(r_s^2 - r_t^2) z)
                    spread = here.alpha * (here.ratio**2 - there.ratio**2) ** 0.5
                    x = here.alpha / there.alpha * x + spread * standard_normal(x, generator)
            yield x

    return fill

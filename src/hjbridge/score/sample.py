"""Sampling: noise, a denoiser, a grid and a rule make samples."""

from __future__ import annotations

import math
from itertools import repeat
from typing import Any, Literal, overload

import torch
from torch import Tensor
from tqdm.auto import tqdm

from hjbridge.score.predictor_corrector import predictor_corrector
from hjbridge.score.rules import RULES, Denoise, Rule
from hjbridge.sde.integrate import Path
from hjbridge.sde.process import Process, as_time

#: rules that may be asked for by name, the last with its published settings
NAMED: dict[str, Rule] = RULES | {"predictor_corrector": predictor_corrector()}
#: rules whose first step is defined where nothing of the signal is left: they go to the denoised image
FROM_NO_SIGNAL = ("ddim", "dpmpp2m")


@overload
def sample(
    denoiser: Any, x1: Tensor, grid: Tensor, rule: str | Rule = ..., *, label: Tensor | None = ...,
    guidance: float = ..., generator: torch.Generator | None = ..., batch: int | None = ...,
    record: Literal[False] = ..., progress: bool = ...,
) -> Tensor: ...  # fmt: skip
@overload
def sample(
    denoiser: Any, x1: Tensor, grid: Tensor, rule: str | Rule = ..., *, label: Tensor | None = ...,
    guidance: float = ..., generator: torch.Generator | None = ..., batch: int | None = ...,
    record: Literal[True], progress: bool = ...,
) -> Path: ...  # fmt: skip
def sample(
    denoiser: Any,
    x1: Tensor,
    grid: Tensor,
    rule: str | Rule = "dpmpp2m",
    *,
    label: Tensor | None = None,
    guidance: float = 0.0,
    generator: torch.Generator | None = None,
    batch: int | None = None,
    record: bool = False,
    progress: bool = False,
) -> Tensor | Path:
    """Walk x1 from the noise at grid[0] to the end of the grid, with D_w = (1 + w) D(x, t, label) - w D(x, t).

    Args:
        denoiser: E[x_0 | x_t] with `.process`, called as denoiser(x, t, label) in whatever mode it is.
        x1: noise (n, ...), drawn at the start of the grid: `denoiser.process.prior_sample(shape, t=grid[0])`.
        grid: times (steps + 1,), strictly descending; see `time_grid`. Sigma/alpha must be finite at the first, unless
            the denoiser is told the noise by its angle and the rule needs no ratio there (FROM_NO_SIGNAL).
        rule: a name in `hjbridge.score.rules`, "predictor_corrector", or a function that follows the contract of rules.
        label: integers (n,), or None for no label. guidance: w; 0 is the plain conditional denoiser, larger trades
            diversity for agreement with the label at the price of a second evaluation (Ho and Salimans 2022).
        generator: source of the noise of stochastic rules; None: torch's default one.
        batch: most samples per call of the denoiser, to bound memory; the noise is drawn for all at once, so that it
            changes the result by rounding only. None: all of them.
        record: return a `Path` with `.states` (steps + 1, n, ...) and `.grid` in place of its final state.
        progress: show a bar; worth it beyond some fifty evaluations of an image network.
    Returns: the samples, of the shape, type and device of x1. They carry a graph only if x1 requires one.
    Raises: ValueError for an unknown rule (lists the known), a grid that is not strictly descending or starts where
        sigma/alpha is infinite, guidance without label, x1 that is not finite or shapes that do not match;
        FloatingPointError if the result is not finite.
    """
    step_rule = NAMED.get(rule) if isinstance(rule, str) else rule
    if not callable(step_rule):
        raise ValueError(f"rule must be one of {', '.join(NAMED)} or a function, got {rule!r}")
    check_start(x1, label, guidance, batch)
    rule_name = getattr(step_rule, "__name__", "")
    angle = getattr(denoiser, "level", None) == "angle"
    grid = check_grid(denoiser.process, grid, no_signal=angle and rule_name in FROM_NO_SIGNAL)
    denoise = guided(denoiser, label, guidance, batch or len(x1))
    x, states = x1, [x1]
    with torch.set_grad_enabled(x1.requires_grad and torch.is_grad_enabled()):
        walk = step_rule(denoise, denoiser.process, x1, grid, generator)
        for x in tqdm(walk, total=len(grid) - 1, disable=not progress):
            if record:
                states.append(x)
    if not bool(x.isfinite().all()):
        raise FloatingPointError(f"the samples of rule {rule!r} are not finite after {len(grid) - 1} steps: take more")
    return Path(x, grid, torch.stack(states)) if record else x


def guided(denoiser: Any, label: Tensor | None, guidance: float, batch: int) -> Denoise:
    """What a rule calls: D(x, t, label), or (1 + w) D(x, t, label) - w D(x, t), on at most `batch` samples at once."""

    def evaluate(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        d = denoiser(x, t, label)
        if d.shape != x.shape:
            raise ValueError(f"denoiser must return the shape of x, {tuple(x.shape)}, got {tuple(d.shape)}")
        # D_w = (1 + w) D(x, t, label) - w D(x, t)
        return d if guidance == 0 else (1 + guidance) * d - guidance * denoiser(x, t, None)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        if len(x) <= batch:
            return evaluate(x, t, label)
        labels = [None] * len(x) if label is None else label.split(batch)
        return torch.cat([evaluate(*part) for part in zip(x.split(batch), repeat(t), labels, strict=False)])

    return denoise


def check_grid(process: Process, grid: Tensor, no_signal: bool = False) -> Tensor:
    """The grid in float64 on the CPU, where its coefficients are computed, after checking it.

    Args: no_signal, whether it may start where alpha = 0.
    """
    grid = as_time(torch.as_tensor(grid, dtype=torch.float64).detach().cpu(), "grid")
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(f"grid must be a vector of at least two times, got shape {tuple(grid.shape)}")
    rises = grid.diff() >= 0
    if bool(rises.any()):
        i = int(rises.nonzero()[0])
        raise ValueError(
            f"grid must be strictly descending (t = 1 is noise), got {grid[i]:g} then {grid[i + 1]:g} at position {i}"
        )
    if not no_signal and not bool(process.ratio(grid[0]).isfinite()):
        raise ValueError(
            f"grid must start where sigma/alpha is finite, got t = {grid[0]:g} for {type(process).__name__}: "
            f"use time_grid or start below it (or a denoiser of level 'angle' and {' or '.join(FROM_NO_SIGNAL)})"
        )
    return grid


def check_start(x1: Tensor, label: Tensor | None, guidance: float, batch: int | None) -> None:
    """Refuse noise, labels or a guidance that no rule can start from."""
    if x1.ndim < 2 or not x1.is_floating_point():
        raise ValueError(f"x1 must be floating, of shape (n, ...), got {x1.dtype} {tuple(x1.shape)}")
    if not bool(x1.isfinite().all()):
        raise ValueError("x1 must be finite, got NaN or infinity")
    if label is not None and (label.shape != x1.shape[:1] or label.is_floating_point()):
        raise ValueError(f"label must be integers of shape ({len(x1)},), got {label.dtype} {tuple(label.shape)}")
    if not math.isfinite(guidance):
        raise ValueError(f"guidance must be finite, got {guidance}")
    if guidance != 0 and label is None:
        raise ValueError(f"guidance must be 0 without a label, got {guidance}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1 or None, got {batch}")

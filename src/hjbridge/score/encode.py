"""Latents: the probability flow walked from data to noise and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hjbridge.score.grid import time_grid
from hjbridge.score.sample import check_grid
from hjbridge.sde.equation import reverse
from hjbridge.sde.integrate import integrate
from hjbridge.sde.process import Process, check_floating

Score = Callable[[Tensor, Tensor], Tensor]
#: sigma/alpha at which a grid of the flow ends
SMALLEST = 1e-3


def encode(
    denoiser: Any,
    x: Tensor,
    grid: Tensor | None = None,
    method: str = "rk4",
    *,
    label: Tensor | None = None,
    batch: int | None = None,
) -> Tensor:
    """The latent of x: the probability flow dx/dt = f x - g^2 score / 2 from data to noise.

    Args:
        denoiser: E[x_0 | x_t] with `.process` and `.score`. x: data (n, ...), at the last time of the grid.
        grid: times from noise to data, strictly descending, as `time_grid` gives them, but without a t = 0 where
            sigma = 0, unless the score is finite there; it is walked backwards. None: `flow_grid(denoiser.process)`.
        method: of `integrate`: "euler" (order 1), "heun", "taylor15" (2) or "rk4" (4).
        label: integers (n,), or None. batch: most samples at once, to bound memory; None: all of them.
    Returns: the latent (n, ...) at the first time of the grid, of the type and device of x: about alpha x_0 + sigma z
        with z standard normal. It carries a graph only if x requires one.
    Raises: ValueError for x that is not floating, not finite or not of the denoiser's shape, a grid that is not
        descending, starts where sigma/alpha is infinite or ends where the score is singular;
        FloatingPointError, with its t, for a score or a state that is not finite on the way.
    Source: Song et al. 2021, appendix D.
    """
    return _walk(denoiser, x, grid, method, label, batch, up=True)


def decode(
    denoiser: Any,
    z: Tensor,
    grid: Tensor | None = None,
    method: str = "rk4",
    *,
    label: Tensor | None = None,
    batch: int | None = None,
) -> Tensor:
    """Data from a latent: the flow of `encode` the other way, from the first time of the grid to the last.

    On the same grid decode(encode(x)) differs from x by the error of the method, of its order in the step.

    Args: z (n, ...), the latent at the first time of the grid; the others, the result and errors as in `encode`.
    """
    return _walk(denoiser, z, grid, method, label, batch, up=False, name="z")


def _walk(
    denoiser: Any, x: Tensor, grid: Tensor | None, method: str, label: Tensor | None, batch: int | None,
    up: bool, name: str = "x",
) -> Tensor:  # fmt: skip
    check_samples(denoiser, x, label, batch, name)
    process, ends = denoiser.process, []
    times = flow_grid(process, steps=getattr(denoiser, "steps", None)) if grid is None else check_grid(process, grid)
    with torch.set_grad_enabled(x.requires_grad and torch.is_grad_enabled()):
        for part, told in parts(x, label, batch):
            flow = reverse(process, finite_score(process, denoiser.score, told), eta=0.0)
            ends.append(integrate(flow, part, times.flip(0) if up else times, method).x)
        return torch.cat(ends)


def flow_grid(process: Process, n: int = 60, *, steps: int | None = None) -> Tensor:
    """Times (n + 1,) on which the probability flow can be walked both ways: Karras points that end above sigma = 0.

    sigma/alpha runs from 160, or the largest that the process reaches, to .001, or what it keeps at t = 0.

    Args: steps, the N of a network that knows the noise of N steps only: the grid then ends at t = 1/N.
    """
    if steps is None and process.ratio(0.0) >= SMALLEST:
        return time_grid(process, n, ratio_min=SMALLEST)
    lowest = SMALLEST if steps is None else max(SMALLEST, process.ratio(1 / steps).item())
    # the last of n + 2 points is t = 0
    return time_grid(process, n + 1, ratio_min=lowest)[:-1]


def parts(x: Tensor, label: Tensor | None, batch: int | None) -> list[tuple[Tensor, Tensor | None]]:
    """Samples with their labels, at most `batch` at once."""
    size = batch or len(x)
    labels = [None] * len(x) if label is None else label.split(size)
    return list(zip(x.split(size), labels, strict=False))


def finite_score(process: Process, score: Callable[..., Tensor], label: Tensor | None) -> Score:
    """The same score of (x, t) for these labels, with its failures named by the time at which they occur."""

    def singular(t: Tensor) -> str:
        """What to say of a failure where there is no noise; nothing elsewhere."""
        if bool((process.sigma(t) > 0).all()):
            return ""
        return f"grid must leave out t = {t.min():g}, where sigma = 0 and the score is singular: take grid[:-1]"

    def checked(x: Tensor, t: Tensor) -> Tensor:
        if not bool(x.isfinite().all()):
            raise FloatingPointError(
                f"the flow must stay finite, got NaN or infinity at t = {t.min():g}: take more steps"
            )
        try:
            value = score(x, t) if label is None else score(x, t, label)
        except ValueError as error:
            if advice := singular(t):
                raise ValueError(f"{advice} ({error})") from error
            raise
        if value.shape != x.shape:
            raise ValueError(f"score must return the shape of x, {tuple(x.shape)}, got {tuple(value.shape)}")
        if not bool(value.isfinite().all()):
            if advice := singular(t):
                raise ValueError(advice)
            raise FloatingPointError(f"score must be finite, got NaN or infinity at t = {t.min():g}")
        return value

    return checked


def check_samples(denoiser: Any, x: Tensor, label: Tensor | None, batch: int | None, name: str = "x") -> None:
    """Refuse samples, labels or a batch size that the flow of a denoiser cannot be asked for."""
    check_floating(x, name)
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"{name} must have shape (n, ...) with n > 0, got {tuple(x.shape)}")
    shape = getattr(denoiser, "shape", None)
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(f"{name} must have shape (n, {', '.join(map(str, shape))}), got {tuple(x.shape)}")
    if not bool(x.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if label is not None and (label.shape != x.shape[:1] or label.is_floating_point()):
        raise ValueError(f"label must be integers of shape ({len(x)},), got {label.dtype} {tuple(label.shape)}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1 or None, got {batch}")


def owner(process: Process, score: Any) -> Any:
    """The denoiser that a score is or belongs to, None for any other function.

    Raises: ValueError if it has another alpha or sigma than the process, TypeError if the score cannot be called.
    """
    denoiser: Any = score if hasattr(score, "score") else getattr(score, "__self__", None)
    if not hasattr(denoiser, "score"):
        if not callable(score):
            raise TypeError(f"score must be a denoiser or a function of (x, t), got {type(score).__name__}")
        return None
    t, known = torch.linspace(0, 1, 33, dtype=torch.float64), denoiser.process
    if not (torch.equal(process.alpha(t), known.alpha(t)) and torch.equal(process.sigma(t), known.sigma(t))):
        raise ValueError(f"process must be that of the denoiser, {known}, got {process}")
    return denoiser

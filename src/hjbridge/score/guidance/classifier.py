"""Classifier guidance: the gradient of a log likelihood of noised samples, added to the score."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.func import vjp

from hjbridge.sde.posterior import PosteriorMean
from hjbridge.sde.process import Time, as_time, broadcast, check_floating


class ClassifierGuided(PosteriorMean):
    """Denoiser whose samples are drawn towards a high likelihood of y.

        score' = score + scale grad_x log p(y | x_t),      D' = D + scale sigma^2 / alpha grad_x log p(y | x_t)

    With scale 1 and the exact likelihood of *noised* samples it is E[x_0 | x_t, y]; any other scale gives the score of
    p_t(x) p(y | x_t)^scale at each t, which is not what noising one distribution gives (Dhariwal and Nichol 2021).

    Args:
        denoiser: E[x_0 | x_t] with `.process`, called as denoiser(x, t, label).
        log_likelihood: log p(y | x_t), called as log_likelihood(x, t) with x (n, ...) and t 0-d or (n,); returns (n,),
            each value from its own sample alone.
        scale: strength; 0 is the denoiser itself.
    Raises: ValueError if the scale is not finite.
    """

    def __init__(self, denoiser: Any, log_likelihood: Callable[[Tensor, Tensor], Tensor], scale: float = 1.0) -> None:
        if not math.isfinite(scale):
            raise ValueError(f"scale must be finite, got {scale}")
        self.denoiser, self.log_likelihood, self.scale = denoiser, log_likelihood, scale
        self.process = denoiser.process

    def __call__(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Guided posterior mean of x_0.

        Args: x (n, ...); t a number or (n,), with alpha(t) > 0; label as the denoiser takes it.
        Returns: the shape of x.
        Raises: ValueError where alpha(t) = 0 or the likelihood is not (n,); FloatingPointError if it or its gradient
            is not finite.
        """
        check_floating(x)
        t = as_time(t)
        weight = signal_weight(self.process, t)
        mean = self.denoiser(x, t, label)
        value, pull = vjp(lambda x: self.log_likelihood(x, t), x)  # type: ignore[misc]
        if value.shape != x.shape[:1]:
            raise ValueError(f"log_likelihood must return shape ({len(x)},), got {tuple(value.shape)}")
        gradient = pull(value.new_ones(value.shape))[0]
        if not bool(value.isfinite().all() and gradient.isfinite().all()):
            raise FloatingPointError(f"log_likelihood or its gradient is not finite at t = {t.flatten()[0].item():g}")
        # D' = D + scale sigma^2 / alpha grad log p(y | x_t)
        return mean + self.scale * broadcast(weight, x) * gradient


def signal_weight(process: Any, t: Tensor) -> Tensor:
    """sigma^2 / alpha, which turns a score into a step of the denoised point, after checking that it is finite."""
    weight = process.sigma(t) ** 2 / process.alpha(t)
    if not bool(weight.isfinite().all()):
        raise ValueError(f"t must have a positive alpha(t), got t = {t.max().item():g} for {type(process).__name__}")
    return weight

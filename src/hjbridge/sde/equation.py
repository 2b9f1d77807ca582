"""Stochastic differential equations, and the two that belong to every forward process: noising and its reverse."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hjbridge.sde.process import Process, broadcast

Drift = Callable[[Tensor, Tensor], Tensor]
Diffusion = Callable[[Tensor, Tensor], Tensor | float]
Kind = Literal["none", "scalar", "diagonal", "matrix"]


def no_noise(x: Tensor, t: Tensor) -> float:
    """Dispersion of an ordinary differential equation."""
    return 0.0


@dataclass(frozen=True)
class SDE:
    """Equation dX = f(X, t) dt + g(X, t) dW in the sense of Ito.

    Attributes:
        drift: f(x, t) with x (n, ...) and t 0-d; returns the shape of x.
        diffusion: g(x, t), the coefficient of dW (never its square); `kind` tells which of these it returns:
            scalar: a number, a 0-d tensor or (n,), the same for all coordinates of a sample;
            diagonal: the shape of x, one Brownian motion per coordinate;
            matrix: (d, m), (1, d, m) or (n, d, m) for x (n, d), with m Brownian motions;
            left out: an ordinary differential equation.
        ascending: True for an equation integrated on ascending times, False for descending ones (then dt < 0 and
            dW ~ N(0, |dt|)), None for either.
        span: the times between which the equation is defined; `integrate` refuses others.
    """

    drift: Drift
    diffusion: Diffusion = no_noise
    ascending: bool | None = None
    span: tuple[float, float] = (-math.inf, math.inf)

    def kind(self, x: Tensor, t: Tensor) -> Kind:
        """Kind of the dispersion: "none", "scalar", "diagonal" or "matrix".

        Raises: ValueError if the dispersion has none of the accepted shapes.
        """
        if self.diffusion is no_noise:
            return "none"
        given = shape = _shape(self.diffusion(x, t))
        n, d = len(x), x.shape[-1]
        if x.ndim == 2 and n == d > 1 and len(shape) < 3:
            # n = d hides whether an axis counts samples or coordinates; one sample alone shows it
            n, shape = 1, _shape(self.diffusion(x[:1], t))
        if shape in ((), (n,)):
            return "scalar"
        if shape == (n, *x.shape[1:]):
            return "diagonal"
        if x.ndim == 2 and shape[:-1] in ((d,), (1, d), (n, d)):
            return "matrix"
        raise ValueError(
            f"diffusion must return a number, one value per sample ({len(x)},), the shape {tuple(x.shape)} of x, or a "
            f"matrix (d, m) or (n, d, m) where x is (n, d); got shape {given}"
        )


def _shape(value: Tensor | float) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def forward(process: Process) -> SDE:
    """Noising equation of a process, dX = f(t) X dt + g(t) dW, from t = 0 to 1 (Song et al. 2021, eq. 5).

    Raises, when evaluated: ValueError where the coefficients are singular (alpha = 0).
    """

    def drift(x: Tensor, t: Tensor) -> Tensor:
        return broadcast(_finite(process.drift_coef(t), t), x) * x

    def diffusion(x: Tensor, t: Tensor) -> Tensor:
        return _finite(process.diffusion(t), t)

    return SDE(drift, diffusion, ascending=True, span=(0.0, 1.0))


def reverse(process: Process, score: Callable[[Tensor, Tensor], Tensor], eta: float = 1.0) -> SDE:
    """Equation that undoes a process: same marginals for every eta, in the process's own t, from noise to data.

        dX = [f(t) X - (1 + eta^2)/2 g(t)^2 score(X, t)] dt + eta g(t) dW,     dt < 0, dW ~ N(0, |dt|)

    eta = 1 is Anderson's reverse equation, eta = 0 the probability flow (Song et al. 2021, eq. 6 and 13; Anderson
    1982): an ordinary differential equation, which `integrate` walks either way, on ascending times from data to noise.
    It is not the eta of DDIM.

    Args: process; score(x, t) with x (n, ...), t 0-d, e.g. the `score` of a denoiser; eta >= 0.
    Raises: ValueError if eta is negative; when evaluated, where the coefficients are singular (alpha = 0).
    """
    if not 0 <= eta < math.inf:
        raise ValueError(f"eta must be finite and non-negative, got {eta}")

    def drift(x: Tensor, t: Tensor) -> Tensor:
        f, g = _finite(process.drift_coef(t), t), process.diffusion(t)
        # f x - (1 + eta^2)/2 g^2 score
        return broadcast(f, x) * x - broadcast((1 + eta**2) / 2 * g**2, x) * score(x, t)

    def diffusion(x: Tensor, t: Tensor) -> Tensor:
        return eta * _finite(process.diffusion(t), t)

    if eta == 0:
        return SDE(drift, span=(0.0, 1.0))
    return SDE(drift, diffusion, ascending=False, span=(0.0, 1.0))


def _finite(coefficient: Tensor, t: Tensor) -> Tensor:
    if not bool(torch.isfinite(coefficient).all()):
        raise ValueError(f"t must have finite coefficients (sigma/alpha finite), got t = {t.max().item():g}")
    return coefficient

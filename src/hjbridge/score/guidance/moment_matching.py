"""Posterior sampling for a linear observation by moment matching: x_0 given x_t is taken for a Gaussian."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import vjp

from hjbridge.score.guidance.classifier import signal_weight
from hjbridge.score.guidance.moments import believe
from hjbridge.score.guidance.observation import Observation
from hjbridge.sde.posterior import PosteriorMean
from hjbridge.sde.process import Time, as_time, broadcast

COVARIANCES = ("jacobian", "isotropic")


class MomentMatched(PosteriorMean):
    """E[x_0 | x_t, y] for y = A x_0 + s z, with p(x_0 | x_t) replaced by a Gaussian of the same mean and covariance.

        p(x_0 | x_t) ~ N(D, C),     C = sigma^2/alpha dD/dx     (Tweedie's formula of second order)
        D' = D + C A' (A C A' + s^2 I)^{-1} (y - A D)

    so that the score gains (dD/dx)' A' (A C A' + s^2 I)^{-1} (y - A D), the gradient of log N(y; A D, A C A' + s^2 I)
    with C held fixed. Exact for Gaussian data, and for any data as sigma -> 0; in between the error is that of the
    Gaussian. A call costs one evaluation and d backward passes. With covariance "isotropic" the inverse has

        C = v sigma^2 / (v alpha^2 + sigma^2) I

    in it, exact for data N(., v I), and a call costs one backward pass.

    Args:
        denoiser: E[x_0 | x_t] with `.process`, called as denoiser(x, t, label), each sample on its own.
        observation: the observation, on flattened samples.
        covariance: "jacobian" or "isotropic". variance: v, the variance of the data in each coordinate; isotropic only.
    Raises: ValueError for an unknown covariance, or a variance that is not positive.
    Source: Song et al. 2023 (Pi-GDM, isotropic C); Boys et al. 2023 and Rozet et al. 2024 (C from the Jacobian).
    """

    def __init__(
        self, denoiser: Any, observation: Observation, covariance: str = "jacobian", variance: float = 1.0
    ) -> None:
        if covariance not in COVARIANCES:
            raise ValueError(f"covariance must be one of {', '.join(COVARIANCES)}, got {covariance!r}")
        if not 0 < variance < float("inf"):
            raise ValueError(f"variance must be positive and finite, got {variance}")
        self.denoiser, self.observation = denoiser, observation
        self.covariance, self.variance = covariance, variance
        self.process = denoiser.process

    def __call__(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Matched posterior mean of x_0 given x_t and y.

        Args: x (n, ...) of d coordinates; t a number or (n,), with alpha(t) > 0; label as the denoiser takes it.
        Returns: the shape of x. Raises: ValueError if x has other than d coordinates or alpha(t) = 0;
            FloatingPointError if the Jacobian is not finite.
        """
        observation, t = self.observation, as_time(t)
        observation.flat(x)
        if self.covariance == "jacobian":
            return believe(self.denoiser, observation, x, t, label).given_mean.reshape(x.shape).to(x.dtype)
        weight, alpha, sigma2 = signal_weight(self.process, t), self.process.alpha(t), self.process.sigma2(t)
        mean, pull = vjp(lambda x: self.denoiser(x, t, label), x)  # type: ignore[misc]
        residual = observation.residual(mean)
        matrix = observation.matrix.to(residual).expand(len(x), -1, -1)
        # C = v sigma^2 / (v alpha^2 + sigma^2) I,   S = A C A' + s^2 I
        spread = broadcast(self.variance * sigma2 / (self.variance * alpha**2 + sigma2), matrix) * matrix @ matrix.mT
        spread = spread + observation.noise**2 * torch.eye(matrix.shape[1]).to(matrix)
        pulled = matrix.mT @ torch.linalg.solve(spread, residual.unsqueeze(-1))
        # D' = D + sigma^2/alpha (dD/dx)' A' S^{-1} (y - A D)
        return mean + broadcast(weight, x) * pull(pulled.reshape(x.shape).to(x))[0]

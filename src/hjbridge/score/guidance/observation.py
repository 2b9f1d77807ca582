"""A linear observation y = A x_0 + noise, and what it makes of a Gaussian mixture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hjbridge.sde.mixture import GaussianMixture
from hjbridge.sde.process import check_floating


@dataclass(frozen=True, eq=False)
class Observation:
    """Observation y = A x_0 + s z of a sample x_0, flattened to R^d, with z ~ N(0, I).

    Attributes: matrix A (m, d); value y (m,); noise s > 0, in the units of y.
    Raises: ValueError if the matrix or the value has another shape, is not floating or not finite, or the noise is not
        positive and finite; TypeError for what is no tensor.
    """

    matrix: Tensor
    value: Tensor
    noise: float

    def __post_init__(self) -> None:
        for name, given in (("matrix", self.matrix), ("value", self.value)):
            if not isinstance(given, Tensor):
                raise TypeError(f"{name} must be a tensor, got {type(given).__name__}")
        if self.matrix.ndim != 2 or 0 in self.matrix.shape:
            raise ValueError(f"matrix must have shape (m, d), got {tuple(self.matrix.shape)}")
        if self.value.shape != self.matrix.shape[:1]:
            raise ValueError(
                f"value must have shape ({len(self.matrix)},) for a matrix of shape {tuple(self.matrix.shape)}, "
                f"got {tuple(self.value.shape)}"
            )
        for name, given in (("matrix", self.matrix), ("value", self.value)):
            check_floating(given, name)
            if not bool(given.isfinite().all()):
                raise ValueError(f"{name} must be finite, got NaN or infinity")
        if not 0 < self.noise < math.inf:
            raise ValueError(f"noise must be positive and finite, got {self.noise}")

    @classmethod
    def pixels(cls, mask: Tensor, x: Tensor, noise: float) -> Observation:
        """Observation of some coordinates of one sample: A picks those where the mask is True.

        Args: mask, booleans; x, one sample of the same shape, of which only those coordinates are read; noise s.
        Raises: ValueError if the mask is not boolean, has another shape or picks nothing, or x is not finite there.
        """
        check_mask(mask, x.shape)
        check_floating(x)
        return cls(torch.eye(mask.numel(), dtype=x.dtype, device=x.device)[mask.flatten()], x[mask], noise)

    def flat(self, x: Tensor, name: str = "x") -> Tensor:
        """x (n, ...) as (n, d), in the wider of the types of x and the matrix.

        Raises: ValueError if a sample has other than d coordinates, or x is not floating.
        """
        check_floating(x, name)
        if x.ndim < 2 or x.shape[1:].numel() != self.matrix.shape[1]:
            raise ValueError(
                f"matrix must have one column for each coordinate of {name}, got {self.matrix.shape[1]} columns "
                f"for samples of shape {tuple(x.shape[1:])}"
            )
        return x.flatten(1).to(torch.promote_types(x.dtype, self.matrix.dtype))

    def residual(self, x0: Tensor) -> Tensor:
        """y - A x_0; x0 (n, ...), returns (n, m)."""
        flat = self.flat(x0, "x0")
        return self.value.to(flat) - flat @ self.matrix.to(flat).mT

    def log_prob(self, x0: Tensor) -> Tensor:
        """Log likelihood log N(y; A x_0, s^2 I); x0 (n, ...), returns (n,) in the type of x0."""
        residual = self.residual(x0)
        # -|y - A x_0|^2 / (2 s^2) - m/2 log(2 pi s^2)
        constant = len(self.value) / 2 * math.log(2 * math.pi * self.noise**2)
        return (-residual.square().sum(1) / (2 * self.noise**2) - constant).to(x0.dtype)


def posterior(mixture: GaussianMixture, observation: Observation) -> GaussianMixture:
    """Distribution of x_0 given the observation, exact: again a mixture, of as many components.

        S_k = A C_k A' + s^2 I,   K_k = C_k A' S_k^{-1},   w_k' ~ w_k N(y; A m_k, S_k),   m_k' = m_k + K_k (y - A m_k),
        C_k' = (I - K_k A) C_k (I - K_k A)' + s^2 K_k K_k'

    Args: mixture in R^d; observation with matrix (m, d). Returns: `GaussianMixture`, whose `denoiser(process)` is
        E[x_0 | x_t, y]. Raises: ValueError if the matrix has another number of columns, or the noise is so small that
        a covariance is not positive definite within rounding.
    """
    matrix, residual, spread = _predicted(mixture, observation)
    means, covariances = mixture.means.to(matrix), mixture.covariances.to(matrix)
    # K = C A' S^{-1}
    gain = torch.linalg.solve(spread, matrix @ covariances).mT
    keep = torch.eye(matrix.shape[1]).to(matrix) - gain @ matrix
    # m' = m + K (y - A m)
    means = means + (gain @ residual.unsqueeze(-1)).squeeze(-1)
    # C' = (I - K A) C (I - K A)' + s^2 K K'
    covariances = keep @ covariances @ keep.mT + observation.noise**2 * gain @ gain.mT
    weights = (mixture.weights.to(matrix).log() + gaussian_log_prob(residual, spread)).softmax(0)
    return GaussianMixture(weights, means, covariances)


def log_evidence(mixture: GaussianMixture, observation: Observation) -> Tensor:
    """Log probability of the observed value, log sum_k w_k N(y; A m_k, A C_k A' + s^2 I); 0-d.

    Raises: ValueError if the matrix has another number of columns than the mixture dimensions.
    """
    matrix, residual, spread = _predicted(mixture, observation)
    # log p(y) = log sum_k w_k N(y; A m_k, S_k)
    return (mixture.weights.to(matrix).log() + gaussian_log_prob(residual, spread)).logsumexp(0)


def _predicted(mixture: GaussianMixture, observation: Observation) -> tuple[Tensor, Tensor, Tensor]:
    """A, the residuals y - A m_k (k, m) and the covariances S_k = A C_k A' + s^2 I (k, m, m) of y."""
    means = mixture.means
    if means.ndim != 2:
        raise ValueError("mixture must be one mixture, got one for each of several times")
    residual = observation.residual(means)
    matrix = observation.matrix.to(residual)
    # S = A C A' + s^2 I
    spread = matrix @ mixture.covariances.to(matrix) @ matrix.mT
    return matrix, residual, spread + observation.noise**2 * torch.eye(len(matrix)).to(matrix)


def gaussian_log_prob(residual: Tensor, covariance: Tensor) -> Tensor:
    """log N(r; 0, S) = -1/2 r' S^{-1} r - 1/2 log det S - m/2 log 2 pi; r (n, m), S (n, m, m), returns (n,)."""
    factor = cholesky(covariance)
    white = torch.linalg.solve_triangular(factor, residual.unsqueeze(-1), upper=False).squeeze(-1)
    size = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -white.square().sum(-1) / 2 - size - residual.shape[-1] / 2 * math.log(2 * math.pi)


def cholesky(covariance: Tensor) -> Tensor:
    """L with L L' = S; S (n, m, m). Raises: FloatingPointError if one is not positive definite within rounding."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if bool((failed != 0).any()):
        size = covariance[failed != 0][0].abs().max().item()
        raise FloatingPointError(f"a covariance with entries up to {size:g} is not positive definite within rounding")
    return factor


def check_mask(mask: Tensor, shape: torch.Size) -> None:
    """Refuse a mask that is not boolean, not of the shape of one sample, or True nowhere."""
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, got {mask.dtype}")
    if mask.shape != shape:
        raise ValueError(f"mask must have the shape of one sample, {tuple(shape)}, got {tuple(mask.shape)}")
    if not bool(mask.any()):
        raise ValueError("mask must be True somewhere, got no known coordinate")

"""Mean and covariance of features, and the Frechet distance between two such pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def checked(name: str, x: Tensor, rows: int = 2) -> Tensor:
    """`x` as float64 (n, d) after a check of its shape, its size and its values."""
    if x.ndim != 2 or len(x) < rows or x.shape[1] < 1:
        raise ValueError(f"{name} must have shape (n, d) with n >= {rows}, got {tuple(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return x.detach().to(torch.float64)


@dataclass(frozen=True)
class Moments:
    """First two moments of n feature vectors.

    Args:
        mean: float64 (d,).
        covariance: float64 (d, d), with denominator n - 1.
        n: number of vectors behind them.
    """

    mean: Tensor
    covariance: Tensor
    n: int

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Moments of features (n, d), n >= 2."""
        x = checked("features", features)
        mean = x.mean(0)
        covariance = (x - mean).T @ (x - mean) / (len(x) - 1)
        return cls(mean, covariance, len(x))


def frechet_distance(a: Tensor | Moments, b: Tensor | Moments) -> float:
    """Squared Frechet (Wasserstein-2) distance between the Gaussians with the moments of a and b.

    FD = |m_a - m_b|^2 + tr A + tr B - 2 tr (A^(1/2) B A^(1/2))^(1/2)

    It depends on the feature extractor and, through sampling noise, on n: compare at equal n only, beside `floor`.
    It is *not* FID, which uses the Inception network.

    Args:
        a, b: features (n, d), n >= 2, or Moments.

    Returns:
        FD >= 0, computed in 64-bit.

    Raises:
        ValueError: shapes that do not match, NaN or infinity.

    Source: Dowson and Landau 1982, "The Frechet distance between multivariate normal distributions".
    """
    p, q = (m if isinstance(m, Moments) else Moments.of(m) for m in (a, b))
    if p.mean.shape != q.mean.shape:
        raise ValueError(f"a and b must have the same number of features, got {len(p.mean)} and {len(q.mean)}")
    values, vectors = torch.linalg.eigh(p.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    # tr (A^(1/2) B A^(1/2))^(1/2): the sum of the roots of the eigenvalues of a symmetric matrix
    overlap = torch.linalg.eigvalsh(root @ q.covariance @ root).clamp(min=0).sqrt().sum()
    distance = (p.mean - q.mean).square().sum() + p.covariance.trace() + q.covariance.trace() - 2 * overlap
    return max(0.0, float(distance))


def floor(
    test: Tensor, reference: Tensor | Moments, n: int, draws: int = 20, generator: torch.Generator | None = None
) -> Tensor:
    """Frechet distances of `draws` random sets of n real test images to the training images: the scale of FD at this n.

    It holds the sampling noise at n, and also that the classifier has seen the training images and not the test images.
    So it is no lower bound: samples of a good model can lie nearer to the training images than real test images do.

    Args:
        test: features (m, d) of real test images.
        reference: features or moments of the training images.
        n: size of each draw, without replacement, 2 <= n <= m. With n = m every draw is the whole test set.
        draws: number of draws; draws share images when n > m / draws, so their spread is a lower bound.
        generator: source of randomness.

    Returns:
        float64 (draws,).

    Raises:
        ValueError: n or draws out of range, shapes that do not match, NaN or infinity.
    """
    test = checked("test", test)
    if not 2 <= n <= len(test):
        raise ValueError(f"n must lie in 2..{len(test)} (the number of real test images), got {n}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    against = reference if isinstance(reference, Moments) else Moments.of(reference)
    device = None if generator is None else generator.device
    chosen = (torch.randperm(len(test), generator=generator, device=device)[:n] for _ in range(draws))
    return torch.tensor(
        [frechet_distance(test[index.to(test.device)], against) for index in chosen], dtype=torch.float64
    )

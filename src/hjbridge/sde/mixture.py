"""Gaussian mixtures: the data for which the noised density, its score and the denoiser are known exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hjbridge.sde.posterior import PosteriorMean
from hjbridge.sde.process import Process, Time, as_time, broadcast, check_floating
from hjbridge.sde.spectrum import spectrum


class GaussianMixture:
    """Mixture p(x) = sum_k w_k N(x; m_k, C_k) on R^d, with C_k = Q_k diag(v_k) Q_k'.

    Noise only moves the eigenvalues: alpha x + sigma z has means alpha m_k and covariances Q_k diag(alpha^2 v_k +
    sigma^2) Q_k', so no matrix is factorised but the given ones. A `marginal` at times of shape (n,) is one mixture per
    sample: its i-th density is evaluated at x_i, its means are (n, k, d) and its covariances (n, k, d, d).

    Args: weights (k,), non-negative, with sum one; means (k, d); covariances (k, d, d), symmetric positive definite.
    Attributes: weights, means, covariances; mean (d,) and covariance (d, d) of the mixture as a whole.
    Raises: ValueError if shapes do not match or a value is not accepted.

    Values are computed in the wider of the types of mixture and x, on the device of x, and have the type of x.
    """

    def __init__(
        self,
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence[Any],
        covariances: Tensor | Sequence[Any],
    ) -> None:
        given = [_floating(values) for values in (weights, means, covariances)]
        dtype = max((values.dtype for values in given), key=lambda dtype: torch.finfo(dtype).bits)
        weights, means, covariances = (values.to(device=given[1].device, dtype=dtype) for values in given)
        if means.ndim != 2 or 0 in means.shape:
            raise ValueError(f"means must have shape (k, d), got {tuple(means.shape)}")
        k, d = means.shape
        for name, values, shape in (("weights", weights, (k,)), ("covariances", covariances, (k, d, d))):
            if tuple(values.shape) != shape:
                raise ValueError(
                    f"{name} must have shape {shape} for means of shape {(k, d)}, got {tuple(values.shape)}"
                )
        if not bool(means.isfinite().all()):
            raise ValueError("means must be finite, got NaN or infinity")
        if not bool((weights >= 0).all()):
            raise ValueError(f"weights must be non-negative, got {weights.tolist()}")
        if not abs(weights.sum().item() - 1) <= 1e-6:
            raise ValueError(f"weights must sum to one, got a sum of {weights.sum().item():.8g}")
        variances, axes = spectrum(covariances)
        self._set(weights / weights.sum(), means.unsqueeze(-1), variances.unsqueeze(-1), axes, batch=None)

    def _set(self, weights: Tensor, means: Tensor, variances: Tensor, axes: Tensor | None, batch: int | None) -> None:
        # weights (k,); means and eigenvalues (k, d, n), n = 1 without a batch; axes (k, d, d), None for the identity
        self.weights, self._means, self._variances, self._axes, self._batch = weights, means, variances, axes, batch

    def __repr__(self) -> str:
        k, d, _ = self._means.shape
        batch = "" if self._batch is None else f", one for each of {self._batch} times"
        return f"GaussianMixture({k} components in {d} dimensions{batch})"

    @property
    def means(self) -> Tensor:
        return self._means.squeeze(-1) if self._batch is None else self._means.movedim(-1, 0)

    @property
    def covariances(self) -> Tensor:
        if self._axes is None:
            full = torch.diag_embed(self._variances.movedim(-1, 0))
        else:
            # C = Q diag(v) Q'
            full = (self._axes * self._variances.movedim(-1, 0).unsqueeze(-2)) @ self._axes.mT
        return full.squeeze(0) if self._batch is None else full

    @property
    def mean(self) -> Tensor:
        # sum_k w_k m_k
        return (self.weights[:, None] * self.means).sum(-2)

    @property
    def covariance(self) -> Tensor:
        offset = self.means - self.mean.unsqueeze(-2)
        # sum_k w_k (C_k + (m_k - m)(m_k - m)')
        spread = self.covariances + offset.unsqueeze(-1) * offset.unsqueeze(-2)
        return (self.weights[:, None, None] * spread).sum(-3)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n independent samples, (n, d); a marginal at times (n,) gives one sample for each time."""
        if n < 1 or self._batch not in (None, n):
            raise ValueError(f"n must be {'positive' if self._batch is None else self._batch}, got {n}")
        component = torch.multinomial(self.weights.detach(), n, replacement=True, generator=generator)
        column = 0 if self._batch is None else torch.arange(n, device=component.device)
        centre, variance = self._means[component, :, column], self._variances[component, :, column]
        noise = torch.randn(centre.shape, generator=generator, device=centre.device, dtype=centre.dtype)
        # x = m + Q sqrt(v) z
        noise = variance.sqrt() * noise
        for k, axes in enumerate(() if self._axes is None else self._axes):
            noise = torch.where((component == k).unsqueeze(-1), noise @ axes.mT, noise)
        return centre + noise

    def log_prob(self, x: Tensor) -> Tensor:
        """Logarithm of the density; x (n, d), returns (n,)."""
        return self._joint(x)[0].logsumexp(dim=0).to(x.dtype)

    def responsibilities(self, x: Tensor) -> Tensor:
        """Posterior probability of each component; x (n, d), returns (n, k)."""
        return self._joint(x)[0].softmax(dim=0).T.to(x.dtype)

    def score(self, x: Tensor) -> Tensor:
        """Gradient of the log density, sum_k r_k(x) C_k^{-1} (m_k - x); x (n, d), returns (n, d)."""
        joint, inside = self._joint(x)
        pull = inside / self._variances.to(inside) * joint.softmax(dim=0).unsqueeze(1)
        return -self._outside(pull).T.to(x.dtype)

    def marginal(self, process: Process, t: Time) -> GaussianMixture:
        """Mixture of x_t = alpha x_0 + sigma z; differentiable in t.

        Args: t a number or 0-d tensor, or (n,): then one mixture per sample. Raises: ValueError if t is not in [0, 1].
        """
        if self._batch is not None:
            raise ValueError(f"a mixture of {self._batch} times cannot be noised again")
        t = as_time(t)
        if t.ndim > 1:
            raise ValueError(f"t must be a number, a 0-d tensor or one value per sample, got shape {tuple(t.shape)}")
        device = self._means.device if t.device.type == "cpu" else t.device
        alpha, sigma2 = (c.to(device, self._means.dtype) for c in (process.alpha(t), process.sigma2(t)))
        noised = GaussianMixture.__new__(GaussianMixture)
        axes = None if self._axes is None else self._axes.to(device)
        # C -> alpha^2 C + sigma^2 I
        variances = alpha**2 * self._variances.to(device) + sigma2
        batch = len(t) if t.ndim else None
        noised._set(self.weights.to(device), alpha * self._means.to(device), variances, axes, batch)
        return noised

    def denoiser(self, process: Process) -> MixtureDenoiser:
        """Exact E[x_0 | x_t] of this mixture under a forward process."""
        return MixtureDenoiser(self, process)

    def _joint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log w_k N(x; m_k, C_k) as (k, n), and Q_k'(x - m_k) as (k, d, n)."""
        d = self._means.shape[1]
        if x.ndim != 2 or x.shape[1] != d or self._batch not in (None, len(x)):
            rows = "n" if self._batch is None else self._batch
            raise ValueError(f"x must have shape ({rows}, {d}), got {tuple(x.shape)}")
        check_floating(x)
        if not math.isfinite(x.detach().sum().item()) and not bool(x.isfinite().all()):
            raise ValueError("x must be finite, got NaN or infinity")
        dtype = torch.promote_types(x.dtype, self._means.dtype)
        means, variances, weights = (v.to(x.device, dtype) for v in (self._means, self._variances, self.weights))
        inside = x.T.to(dtype).contiguous() - means
        if self._axes is not None:
            inside = self._axes.to(inside).mT @ inside
        # log w - 1/2 (x - m)' C^{-1} (x - m) - 1/2 log det C - d/2 log 2 pi
        distance = (inside**2 / variances).sum(dim=1)
        constant = weights.log().unsqueeze(-1) - variances.log().sum(dim=1) / 2 - d / 2 * math.log(2 * math.pi)
        return constant - distance / 2, inside

    def _outside(self, inside: Tensor) -> Tensor:
        """sum_k Q_k y_k of coordinates y (k, d, n), as (d, n)."""
        if self._axes is None:
            return inside.sum(dim=0)
        return self._axes.to(inside).movedim(0, 1).flatten(1) @ inside.flatten(0, 1)


class MixtureDenoiser(PosteriorMean):
    """Exact denoiser of a mixture.

        D(x, t) = sum_k r_k (m_k + alpha C_k (alpha^2 C_k + sigma^2 I)^{-1} (x - alpha m_k))

    Score and noise come from the marginal density itself, so they are exact down to t = 0 where sigma may vanish.
    """

    def __init__(self, mixture: GaussianMixture, process: Process) -> None:
        self.mixture, self.process = mixture, process

    def __call__(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Posterior mean of x_0; x (n, d), t a number or (n,), label None; returns (n, d)."""
        marginal = self._marginal(t, label)
        joint, inside = marginal._joint(x)
        weight = joint.softmax(dim=0)
        alpha, prior, noised = (
            v.to(inside) for v in (self.process.alpha(t), self.mixture._variances, marginal._variances)
        )
        # D = sum_k r_k m_k + sum_k r_k Q_k alpha v_k / (alpha^2 v_k + sigma^2) Q_k'(x - alpha m_k)
        centre = self.mixture.means.to(inside).T @ weight
        return (centre + marginal._outside(alpha * prior / noised * inside * weight.unsqueeze(1))).T.to(x.dtype)

    def score(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Score of the marginal density, also where sigma(t) = 0."""
        return self._marginal(t, label).score(x)

    def eps(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Expected noise E[z | x_t] = -sigma score."""
        return -broadcast(self.process.sigma(t), x) * self.score(x, t, label)

    def _marginal(self, t: Time, label: Tensor | None) -> GaussianMixture:
        if label is not None:
            raise ValueError(f"label must be None: a mixture has no labels, got {tuple(label.shape)} of them")
        return self.mixture.marginal(self.process, t)


def _floating(values: Tensor | Sequence[Any]) -> Tensor:
    """A floating tensor; lists and integers become float64."""
    tensor = torch.as_tensor(values)
    if isinstance(values, Tensor) and tensor.is_floating_point():
        return tensor
    return torch.as_tensor(values, dtype=torch.float64)

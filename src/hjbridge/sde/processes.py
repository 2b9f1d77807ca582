"""The forward processes of the literature, about six lines each. The equation stands above the line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hjbridge.sde.process import Process, Time


def _time_from_integral(integral: Tensor, beta_min: float, beta_max: float) -> Tensor:
    """Solve beta_min t + (beta_max - beta_min) t^2 / 2 = integral for t, without cancellation."""
    slope = beta_max - beta_min
    # t = 2 B / (b0 + sqrt(b0^2 + 2 (b1 - b0) B))
    return (2 * integral / (beta_min + (beta_min**2 + 2 * slope * integral).sqrt())).clamp(0, 1)


def _check_betas(beta_min: float, beta_max: float) -> None:
    if not 0 < beta_min <= beta_max < math.inf:
        raise ValueError(
            f"beta_min and beta_max must satisfy 0 < beta_min <= beta_max < inf, got {beta_min}, {beta_max}"
        )


@dataclass(frozen=True)
class VP(Process):
    """Variance preserving: alpha = exp(-B/2), sigma^2 = 1 - exp(-B), B = b0 t + (b1 - b0) t^2 / 2; g^2 = beta.

    The continuous limit of DDPM (Song et al. 2021, eq. 11 and 33).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        _check_betas(self.beta_min, self.beta_max)

    def log_alpha(self, t: Tensor) -> Tensor:
        return -(self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2) / 2

    def sigma2(self, t: Tensor) -> Tensor:
        return -torch.expm1(2 * self.log_alpha(t))

    def time_of(self, ratio: Time) -> Tensor:
        """Closed form: B = log(1 + ratio^2)."""
        ratio = self.check_ratio(ratio)
        return _time_from_integral(torch.log1p(ratio**2), self.beta_min, self.beta_max)


@dataclass(frozen=True)
class SubVP(Process):
    """Sub-VP: alpha = exp(-B/2), sigma = 1 - exp(-B); g^2 = beta (1 - exp(-2B)) (Song et al. 2021, eq. 12 and 29)."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        _check_betas(self.beta_min, self.beta_max)

    def log_alpha(self, t: Tensor) -> Tensor:
        return -(self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2) / 2

    def sigma2(self, t: Tensor) -> Tensor:
        return torch.expm1(2 * self.log_alpha(t)) ** 2

    def time_of(self, ratio: Time) -> Tensor:
        """Closed form: ratio = 2 sinh(B/2)."""
        ratio = self.check_ratio(ratio)
        return _time_from_integral(2 * torch.asinh(ratio / 2), self.beta_min, self.beta_max)


@dataclass(frozen=True)
class VE(Process):
    """Variance exploding: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t (Song et al. 2021, eq. 9 and 30)."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                f"sigma_min must satisfy 0 < sigma_min < sigma_max = {self.sigma_max}, got {self.sigma_min}"
            )

    def log_alpha(self, t: Tensor) -> Tensor:
        return 0 * t

    def sigma2(self, t: Tensor) -> Tensor:
        return self.sigma_min**2 * (2 * math.log(self.sigma_max / self.sigma_min) * t).exp()

    def time_of(self, ratio: Time) -> Tensor:
        """Closed form: t = log(ratio / sigma_min) / log(sigma_max / sigma_min)."""
        ratio = self.check_ratio(ratio)
        return ((ratio / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)).clamp(0, 1)


@dataclass(frozen=True)
class EDM(Process):
    """Noise that grows linearly: alpha = 1, sigma = sigma_max t (Karras et al. 2022, table 1, last column)."""

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_max < math.inf:
            raise ValueError(f"sigma_max must be positive and finite, got {self.sigma_max}")

    def log_alpha(self, t: Tensor) -> Tensor:
        return 0 * t

    def sigma2(self, t: Tensor) -> Tensor:
        return (self.sigma_max * t) ** 2

    def time_of(self, ratio: Time) -> Tensor:
        """Closed form: t = ratio / sigma_max."""
        return (self.check_ratio(ratio) / self.sigma_max).clamp(0, 1)


@dataclass(frozen=True)
class Cosine(Process):
    """Cosine schedule: alpha = cos(a(t)) / cos(a(0)), a = (t + s) / (1 + s) pi/2, sigma^2 = 1 - alpha^2.

    Nichol and Dhariwal 2021, eq. 17, without their cut-off of beta; alpha(1) = 0, so start where the ratio is finite.
    """

    s: float = 0.008

    def __post_init__(self) -> None:
        if not 0 < self.s < 1:
            raise ValueError(f"s must lie in (0, 1), got {self.s}")

    def log_alpha(self, t: Tensor) -> Tensor:
        start = math.pi / 2 * self.s / (1 + self.s)
        # cos(a(t)) written as sin(pi/2 - a(t)): exactly zero at t = 1, accurate beside it
        return torch.sin(math.pi / 2 * (1 - t) / (1 + self.s)).log() - math.log(math.cos(start))

    def sigma2(self, t: Tensor) -> Tensor:
        start = math.pi / 2 * self.s / (1 + self.s)
        angle = math.pi / 2 * t / (1 + self.s)
        # cos^2 a0 - cos^2 a = sin(a - a0) sin(a + a0)
        return torch.sin(angle) * torch.sin(angle + 2 * start) / math.cos(start) ** 2

    def time_of(self, ratio: Time) -> Tensor:
        """Closed form: alpha = (1 + ratio^2)^(-1/2) and an arcsine."""
        ratio = self.check_ratio(ratio)
        start = math.pi / 2 * self.s / (1 + self.s)
        cosine = math.cos(start) * torch.rsqrt(1 + ratio**2)
        return (1 - (1 + self.s) * 2 / math.pi * torch.asin(cosine)).clamp(0, 1)


@dataclass(frozen=True)
class RectifiedFlow(Process):
    """Straight lines: alpha = 1 - t, sigma = t; f = -1/(1-t), g^2 = 2t/(1-t) (Liu et al. 2023; Lipman et al. 2023).

    Both coefficients are singular at t = 1: start where sigma/alpha is finite, e.g. t = 40/41.
    """

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.log1p(-t)

    def sigma2(self, t: Tensor) -> Tensor:
        return t**2

    def time_of(self, ratio: Time) -> Tensor:
        """Closed form: t = ratio / (1 + ratio)."""
        ratio = self.check_ratio(ratio)
        return torch.where(ratio.isinf(), torch.ones_like(ratio), ratio / (1 + ratio))


class DDPM(Process):
    """The N-step chain of DDPM as a process: alpha_bar(k/N) = prod_{j<=k} (1 - beta_j), log-linear between the points.

    sigma^2 = 1 - alpha_bar, alpha^2 = alpha_bar (Ho et al. 2020, eq. 4). The rate is constant on each step,
    beta(t) = -N log(1 - beta_k), and on a grid of all points the ancestral rule is DDPM's own.

    Args: betas, the N variances of the chain, each in (0, 1); `DDPM.linear()` is the schedule of the paper.
    """

    def __init__(self, betas: Tensor | Sequence[float]) -> None:
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if betas.ndim != 1 or len(betas) == 0:
            raise ValueError(f"betas must be a vector of at least one value, got shape {tuple(betas.shape)}")
        if not bool(((betas > 0) & (betas < 1)).all()):
            bad = betas[~((betas > 0) & (betas < 1))][0].item()
            raise ValueError(f"betas must lie in (0, 1), got {bad:g}")
        self.betas = betas
        # log alpha(t_k) = 1/2 sum_{j<=k} log(1 - beta_j)
        self.log_alphas = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0) / 2])

    @classmethod
    def linear(cls, n: int = 1000, first: float = 1e-4, last: float = 0.02) -> DDPM:
        """The linear schedule of Ho et al. 2020, section 4."""
        return cls(torch.linspace(first, last, n, dtype=torch.float64))

    def __repr__(self) -> str:
        return f"DDPM({len(self.betas)} betas from {self.betas[0]:g} to {self.betas[-1]:g})"

    def log_alpha(self, t: Tensor) -> Tensor:
        n = len(self.betas)
        table = self.log_alphas.to(device=t.device, dtype=t.dtype)
        k = (t.detach() * n).floor().long().clamp(0, n - 1)
        return table[k] + (table[k + 1] - table[k]) * (t * n - k)

    def sigma2(self, t: Tensor) -> Tensor:
        return 0 - torch.expm1(2 * self.log_alpha(t))  # the minus sign alone would make -0 at t = 0

    def time_of(self, ratio: Time) -> Tensor:
        """Closed form: log alpha = -log(1 + ratio^2) / 2 is inverted step by step."""
        ratio = self.check_ratio(ratio)
        n = len(self.betas)
        table = self.log_alphas.to(device=ratio.device, dtype=ratio.dtype)
        level = -torch.log1p(ratio**2) / 2
        k = (torch.searchsorted(-table, -level.detach().contiguous()) - 1).clamp(0, n - 1)
        return ((k + (level - table[k]) / (table[k + 1] - table[k])) / n).clamp(0, 1)

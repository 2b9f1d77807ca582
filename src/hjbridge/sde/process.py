"""A forward process is two scalar functions of time; everything else about it is derived here."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import vjp

Time = float | int | Tensor


def as_time(t: Time, name: str = "t") -> Tensor:
    """Return t as a floating tensor (a Python number becomes a 0-d float64 tensor) after checking that 0 <= t <= 1.

    Raises: ValueError if any entry lies outside [0, 1] or is NaN, TypeError if a tensor is not floating.
    """
    if not isinstance(t, Tensor):
        t = torch.tensor(float(t), dtype=torch.float64)
    if not t.is_floating_point():
        raise TypeError(f"{name} must be a floating tensor, got dtype {t.dtype}")
    inside = (t >= 0) & (t <= 1)
    if not bool(inside.all()):
        bad = t[~inside].flatten()[0].item()
        raise ValueError(f"{name} must lie in [0, 1], got {bad:g}")
    return t


def broadcast(coefficient: Tensor, x: Tensor) -> Tensor:
    """Shape a coefficient of t, () or (batch,), so that it multiplies x of shape (batch, ...), in the type of x.

    Raises: ValueError if a (batch,) coefficient does not match the first axis of x.
    """
    coefficient = coefficient.to(device=x.device, dtype=x.dtype)
    if coefficient.ndim == 0:
        return coefficient
    if coefficient.ndim != 1 or x.ndim == 0 or coefficient.shape[0] != x.shape[0]:
        raise ValueError(
            f"t must be a number, a 0-d tensor or one value per sample ({tuple(x.shape)[:1]}), "
            f"got shape {tuple(coefficient.shape)}"
        )
    return coefficient.reshape(-1, *[1] * (x.ndim - 1))


def check_floating(x: Tensor, name: str = "x") -> None:
    """Refuse integers, in whose type an answer would be cut to whole numbers.

    Raises: ValueError if x is not floating.
    """
    if not x.is_floating_point():
        raise ValueError(f"{name} must be floating, got {x.dtype}: pass {name}.double()")


class Process(ABC):
    """Gaussian noising x_t = alpha(t) x_0 + sigma(t) z on t in [0, 1]; t = 0 is data, t = 1 is noise.

    A subclass writes `log_alpha(t)` and `sigma2(t)` with torch operations. The linear equation dX = f X dt + g dW with

        f = d log alpha / dt,      g^2 = d sigma^2 / dt - 2 f sigma^2

    has exactly these marginals (Karras et al. 2022, eq. 4 and appendix B). Every function takes a number, a 0-d tensor
    or one time per sample, returns a tensor of that shape, and is differentiable for 0 < t < 1. At t = 0 sigma, the
    root of sigma^2 = 0, has no derivative in torch, nor has an alpha that is 0 at t = 1.
    """

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """Logarithm of the signal scale alpha(t)."""

    @abstractmethod
    def sigma2(self, t: Tensor) -> Tensor:
        """Variance sigma^2(t) of the noise."""

    def alpha(self, t: Time) -> Tensor:
        """Signal scale alpha(t), of the shape of t."""
        return self.log_alpha(as_time(t)).exp()

    def sigma(self, t: Time) -> Tensor:
        """Noise scale sigma(t), of the shape of t."""
        return self.sigma2(as_time(t)).sqrt()

    def ratio(self, t: Time) -> Tensor:
        """Noise-to-signal ratio sigma(t) / alpha(t), of the shape of t."""
        t = as_time(t)
        return self.sigma2(t).sqrt() * (-self.log_alpha(t)).exp()

    def drift_coef(self, t: Time) -> Tensor:
        """Drift coefficient f(t) = d log alpha / dt of dX = f X dt + g dW."""
        value, pull = vjp(self.log_alpha, as_time(t))  # type: ignore[misc]
        return pull(torch.ones_like(value))[0]

    def diffusion(self, t: Time) -> Tensor:
        """Dispersion g(t), the coefficient of dW: g^2 = d sigma^2 / dt - 2 f sigma^2.

        Raises: ValueError if g^2 is negative: no noising has a sigma/alpha that decreases.
        """
        (variance, _), pull = vjp(lambda s: (self.sigma2(s), self.log_alpha(s)), as_time(t))  # type: ignore[misc]
        # g^2 = d sigma^2/dt - 2 (d log alpha/dt) sigma^2, both derivatives in one pass
        square = pull((torch.ones_like(variance), -2 * variance))[0]
        if bool((square < -1e-6 * (1 + variance)).any()):
            raise ValueError(f"sigma/alpha of {type(self).__name__} must not decrease, got g^2 = {square.min():g}")
        return square.clamp(min=0).sqrt()

    def time_of(self, ratio: Time) -> Tensor:
        """Time at which sigma/alpha equals `ratio`; differentiable in it.

        Bisection on log(sigma/alpha), then one Newton step, which polishes the value and carries the derivative.
        Processes with a closed form override it. Raises: ValueError if the ratio is not reached for t in [0, 1].
        """
        ratio = self.check_ratio(ratio)
        target = ratio.detach().double()
        low, high = torch.zeros_like(target), torch.ones_like(target)
        for _ in range(60):
            middle = (low + high) / 2
            above = self.ratio(middle) > target
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        t = (low + high) / 2
        value, pull = vjp(self.ratio, t)  # type: ignore[misc]
        slope = pull(torch.ones_like(value))[0]
        # t* = t - (r(t) - r) / r'(t), but t itself where the ratio has grown beyond all numbers
        usable = value.isfinite() & slope.isfinite() & (slope > 0)
        step = torch.where(usable, value - ratio, 0.0) / torch.where(usable, slope, 1.0)
        return (t - step).clamp(0, 1).to(ratio.dtype)

    def check_ratio(self, ratio: Time) -> Tensor:
        """Return ratio as a floating tensor after checking that the process reaches it."""
        if not isinstance(ratio, Tensor):
            ratio = torch.tensor(float(ratio), dtype=torch.float64)
        lowest, highest = (self.ratio(end).item() for end in (0.0, 1.0))
        slack = 8 * torch.finfo(ratio.dtype).eps
        inside = (ratio >= lowest * (1 - slack)) & (ratio <= highest * (1 + slack))
        if not bool(inside.all()):
            bad = ratio[~inside].flatten()[0].item()
            raise ValueError(f"ratio must lie in [{lowest:g}, {highest:g}] for {type(self).__name__}, got {bad:g}")
        return ratio

    def perturb(self, x0: Tensor, t: Time, noise: Tensor) -> Tensor:
        """Noised samples alpha(t) x0 + sigma(t) noise.

        Args: x0 and noise of shape (batch, ...); t a number or (batch,). Returns: the shape of x0.
        Raises: ValueError if the shapes differ, or x0 or noise is not floating or not finite.
        """
        check_floating(x0, "x0")
        check_floating(noise, "noise")
        if noise.shape != x0.shape:
            raise ValueError(f"noise must have the shape of x0, {tuple(x0.shape)}, got {tuple(noise.shape)}")
        if not bool(x0.isfinite().all()):
            raise ValueError("x0 must be finite, got NaN or infinity")
        if not bool(noise.isfinite().all()):
            raise ValueError("noise must be finite, got NaN or infinity")
        return broadcast(self.alpha(t), x0) * x0 + broadcast(self.sigma(t), x0) * noise

    def prior_sample(
        self,
        shape: Sequence[int],
        generator: torch.Generator | None = None,
        t: float = 1.0,
        mean: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw x_t from the Gaussian from which sampling starts: N(alpha(t) mean, sigma(t)^2 I).

        Args: shape (batch, ...); t where sampling starts (draw the prior there, not at 1); mean the data mean,
        None for zero. Returns: shape `shape`, on the device of the generator.
        """
        if not math.isfinite(float(self.sigma(t))):
            raise ValueError(f"t must have a finite noise scale, got {t}")
        device = generator.device if generator is not None else None
        noise = torch.randn(tuple(shape), generator=generator, device=device, dtype=dtype)
        centre = torch.zeros_like(noise) if mean is None else mean.to(noise).expand_as(noise)
        return self.perturb(centre, t, noise)

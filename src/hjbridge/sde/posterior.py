"""What a sampler sees: the posterior mean of the data given a noised sample, and its four views."""

from __future__ import annotations

from torch import Tensor

from hjbridge.sde.process import Process, Time, as_time, broadcast


class PosteriorMean:
    """D(x, t) = E[x_0 | x_t = x] under a forward process; noise, score and velocity are linear views of it.

    A subclass sets `process` and writes `__call__(x, t, label=None)`. x has shape (batch, ...), t is a number or
    (batch,), label is None or integers (batch,); every view has the shape of x (Karras et al. 2022, appendix B).
    """

    process: Process

    def __call__(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        raise TypeError(f"{type(self).__name__} must define __call__(x, t, label)")

    def noise_scale(self, t: Tensor) -> Tensor:
        """sigma(t) after checking that it is positive: without noise there is nothing to divide by."""
        sigma = self.process.sigma(t)
        if not bool((sigma > 0).all()):
            raise ValueError(f"t must have a positive noise scale sigma(t), got t = {t.min().item():g}")
        return sigma

    def eps(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Expected noise E[z | x_t] = (x - alpha D) / sigma."""
        t = as_time(t)
        mean = broadcast(self.process.alpha(t), x) * self(x, t, label)
        return (x - mean) / broadcast(self.noise_scale(t), x)

    def score(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Score grad log p_t(x) = (alpha D - x) / sigma^2 (Tweedie's formula)."""
        t = as_time(t)
        mean = broadcast(self.process.alpha(t), x) * self(x, t, label)
        return (mean - x) / broadcast(self.noise_scale(t) ** 2, x)

    def velocity(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Velocity of the probability flow, dx/dt = f x - g^2 score / 2 = alpha' D + sigma' E[z | x_t]."""
        t = as_time(t)
        f = self.process.drift_coef(t)
        if not bool(f.isfinite().all()):
            raise ValueError(f"t must have a finite drift coefficient, got t = {t.max().item():g}")
        drift = broadcast(f, x) * x
        return drift - broadcast(self.process.diffusion(t) ** 2 / 2, x) * self.score(x, t, label)

"""Noise prediction at every time, as the published Score-SDE networks do it."""

from __future__ import annotations

from torch import Tensor, nn

from hjbridge.score.denoiser import check_finite, in_type_of, network_labels
from hjbridge.sde.posterior import PosteriorMean
from hjbridge.sde.process import Process, Time, as_time, broadcast, check_floating

NOISE_LEVELS = ("time", "log_sigma")


class ContinuousNoisePredictor(nn.Module, PosteriorMean):
    """E[x_0 | x_t] from a network that predicts noise at every time: D = (x - sigma eps) / alpha.

    Args: network(x, level, label); process with alpha > 0; level, what the network is told: "time", 999 t, as DDPM++
    is for VP and sub-VP, or "log_sigma", log sigma, as NCSN++ is for VE (Song et al. 2021; their programs call -eps
    for VE what is eps here). pixel_mean, pixel_std: affine map from data to pixels in [0, 1]; classes: number of
    labels the network knows. The network computes in the type of its weights, the rest in that of x.
    Raises: ValueError for another level.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        level: str = "time",
        *,
        pixel_mean: float = 0.5,
        pixel_std: float = 0.5,
        classes: int = 0,
    ) -> None:
        super().__init__()
        if level not in NOISE_LEVELS:
            raise ValueError(f"level must be one of {', '.join(NOISE_LEVELS)}, got {level!r}")
        self.network, self.process, self.level, self.classes = network, process, level, classes
        self.pixel_mean, self.pixel_std = pixel_mean, pixel_std

    def eps(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Expected noise E[z | x_t], the network's own output; x (batch, *shape), t number or (batch,)."""
        check_floating(x)
        check_finite(x)
        t = as_time(t)
        level = 999 * t if self.level == "time" else self.process.sigma(t).log()
        if not bool(level.isfinite().all()):
            raise ValueError(f"t must have a positive noise scale sigma(t), got t = {t.min().item():g}")
        y = in_type_of(self.network, x)
        return self.network(y, level.to(y).expand(len(y)), network_labels(label, y, self.classes)).to(x.dtype)

    def score(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Score grad log p_t(x) = -eps / sigma."""
        return -self.eps(x, t, label) / broadcast(self.noise_scale(as_time(t)), x)

    def forward(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Posterior mean of x_0; x (batch, *shape), t number or (batch,) with alpha > 0; returns the shape of x."""
        alpha, sigma = self.process.alpha(as_time(t)), self.process.sigma(as_time(t))
        if not bool((alpha > 0).all()):
            raise ValueError(f"t must have alpha(t) > 0, got t = {as_time(t).max().item():g}")
        # D = (x - sigma eps) / alpha
        return (x - broadcast(sigma, x) * self.eps(x, t, label)) / broadcast(alpha, x)

    __call__ = nn.Module.__call__

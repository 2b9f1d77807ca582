"""A network made into a denoiser: the one contract between networks and samplers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hjbridge.score.pixels import quantise
from hjbridge.sde.posterior import PosteriorMean
from hjbridge.sde.process import Process, Time, as_time, broadcast, check_floating
from hjbridge.sde.processes import DDPM

LEVELS = ("log_ratio", "angle")


class Denoiser(nn.Module, PosteriorMean):
    """E[x_0 | x_t] from a network, scaled so that the network sees and predicts unit variance at every noise level.

        D(x, t) = c_skip x + c_out F(c_in x, log(s) / 4),      s = sigma / alpha,  v = sigma^2 + sigma_data^2 alpha^2,
        c_skip = sigma_data^2 alpha / v,   c_out = sigma_data sigma / sqrt(v),   c_in = 1 / sqrt(v)

    (Karras et al. 2022, table 1, generalised to alpha != 1.) Where alpha^2 + sigma^2 = 1 and sigma_data = 1 it is
    D = alpha x - sigma v with v = -F: the network predicts the velocity v = alpha eps - sigma x_0 (Salimans and Ho
    2022). Knows the scale of its pixels, so that samples can be shown: pixel = pixel_mean + pixel_std x. It computes
    in the type of the network's weights and answers in that of x.

    Args:
        network: module called as network(x, level, label) with level (batch,); returns the shape of x.
        process: forward process whose t the denoiser understands.
        sigma_data: standard deviation of the data per coordinate.
        shape: shape of one sample, e.g. (1, 28, 28); None if it does not matter.
        pixel_mean, pixel_std: affine map from data to pixels in [0, 1].
        classes: number of labels the network knows; label `classes` (and label=None) means "no label".
        level: what the network is told of the noise: "log_ratio", log(s) / 4, or "angle", (2 / pi) arctan s in [0, 1],
            which is finite without noise (D = x / alpha) and without signal (sigma/alpha = inf), too.
        grey_levels: number of grey values if the network was trained on dequantised pixels (see
            `hjbridge.score.pixels`), to which `to_pixels` rounds; 0 if it was trained on the pixels themselves.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        sigma_data: float = 1.0,
        *,
        shape: tuple[int, ...] | None = None,
        pixel_mean: float = 0.0,
        pixel_std: float = 1.0,
        classes: int = 0,
        level: str = "log_ratio",
        grey_levels: int = 0,
    ) -> None:
        super().__init__()
        if not sigma_data > 0:
            raise ValueError(f"sigma_data must be positive, got {sigma_data}")
        if level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
        if grey_levels < 0 or grey_levels == 1:
            raise ValueError(f"grey_levels must be 0 or at least 2, got {grey_levels}")
        self.network = network
        self.process = process
        self.sigma_data = sigma_data
        self.shape = shape
        self.pixel_mean, self.pixel_std = pixel_mean, pixel_std
        self.classes = classes
        self.level, self.grey_levels = level, grey_levels

    def forward(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Posterior mean of x_0.

        Args: x (batch, *shape); t number or (batch,), with 0 < sigma/alpha < inf for log_ratio; label (batch,) or None.
        Returns: the shape of x. Raises: ValueError if the shapes do not match or x is not floating or not finite.
        """
        if self.shape is not None and tuple(x.shape[1:]) != tuple(self.shape):
            raise ValueError(f"x must have shape (batch, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        check_floating(x)
        given, x = x.dtype, in_type_of(self.network, x)
        check_finite(x)
        t = as_time(t)
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        if self.level == "angle":
            level = torch.atan2(sigma, alpha) * 2 / math.pi
        else:
            level = (sigma.log() - self.process.log_alpha(t)) / 4
        if not bool(level.isfinite().all()):
            raise ValueError(f"t must have a finite, positive sigma/alpha, got t = {t.flatten().tolist()[:3]}")
        # v = sigma^2 + sigma_data^2 alpha^2
        variance = sigma**2 + (self.sigma_data * alpha) ** 2
        skip = self.sigma_data**2 * alpha / variance
        out = self.sigma_data * sigma * variance.rsqrt()
        scaled = broadcast(variance.rsqrt(), x) * x
        level = level.to(x).expand(len(x))
        mean = broadcast(skip, x) * x + broadcast(out, x) * self.network(
            scaled, level, network_labels(label, x, self.classes)
        )
        return mean.to(given)

    # nn.Module's call runs hooks and forward; PosteriorMean's views use it through self(...)
    __call__ = nn.Module.__call__

    def to_pixels(self, x: Tensor) -> Tensor:
        """Pixels in [0, 1] from data: pixel_mean + pixel_std x, clipped, or rounded down to a grey level."""
        pixels = self.pixel_mean + self.pixel_std * x
        return quantise(pixels, self.grey_levels) if self.grey_levels else pixels.clamp(0, 1)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Data from pixels: (pixels - pixel_mean) / pixel_std; a grey level stands for the middle of its bin."""
        if self.grey_levels:
            # (k + 1/2) / levels
            pixels = (pixels * (self.grey_levels - 1) + 0.5) / self.grey_levels
        return (pixels - self.pixel_mean) / self.pixel_std


class NoisePredictor(nn.Module, PosteriorMean):
    """E[x_0 | x_t] from a network that predicts noise at the steps of a DDPM chain: D = (x - sigma eps) / alpha.

    Args: network(x, k, label) with k = N t - 1 counted from 0, as the published DDPM weights expect; process a DDPM
    chain of N steps (Ho et al. 2020, eq. 15), or another with `steps` N; classes, the number of labels the network
    knows. It computes in the type of the network's weights and answers in that of x.
    Raises: ValueError if `steps` is not the length of the chain, or is missing for another process.
    """

    def __init__(self, network: nn.Module, process: Process, steps: int | None = None, *, classes: int = 0) -> None:
        super().__init__()
        length = len(process.betas) if isinstance(process, DDPM) else steps
        if length is None or length < 1 or steps not in (None, length):
            raise ValueError(f"steps must be {length or 'a positive number'} for {process}, got {steps}")
        steps = length
        self.network = network
        self.process = process
        self.steps = steps
        self.classes = classes

    def forward(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Posterior mean of x_0; x (batch, *shape), t number or (batch,) in [1/N, 1]; returns the shape of x."""
        check_floating(x)
        given, x = x.dtype, in_type_of(self.network, x)
        check_finite(x)
        t = as_time(t)
        if bool((t * self.steps < 1 - 1e-6).any()):
            raise ValueError(f"t must be at least 1/{self.steps}, got {t.min().item():g}")
        step = (t * self.steps - 1).to(x).expand(len(x))
        noise = self.network(x, step, network_labels(label, x, self.classes))
        # D = (x - sigma eps) / alpha
        mean = (x - broadcast(self.process.sigma(t), x) * noise) / broadcast(self.process.alpha(t), x)
        return mean.to(given)

    __call__ = nn.Module.__call__


def network_labels(label: Tensor | None, x: Tensor, classes: int) -> Tensor | None:
    """Labels as a network wants them: None for an unconditional one, `classes` where there is no label."""
    if classes == 0:
        if label is not None:
            raise ValueError(f"label must be None for a network without classes, got {tuple(label.shape)} labels")
        return None
    if label is None:
        return torch.full((len(x),), classes, device=x.device)
    if label.shape != (len(x),) or label.is_floating_point():
        raise ValueError(f"label must be integers of shape ({len(x)},), got {label.dtype} {tuple(label.shape)}")
    if bool(((label < 0) | (label > classes)).any()):
        raise ValueError(f"label must lie in [0, {classes}], got {label.min()} to {label.max()}")
    return label.to(x.device)


def in_type_of(network: nn.Module, x: Tensor) -> Tensor:
    """x in the type of the network's weights; as it is where there are none."""
    weight = next(network.parameters(), None)
    return x if weight is None else x.to(weight.dtype)


def check_finite(x: Tensor) -> None:
    """Refuse NaN and infinity, which a network would spread over its whole output."""
    if not bool(x.isfinite().all()):
        raise ValueError("x must be finite, got NaN or infinity")

"""Denoising loss: regression onto the data whose minimiser is the posterior mean."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hjbridge.sde.process import Process, as_time, broadcast

WEIGHTINGS = ("edm", "eps", "velocity", "ml")


def loss_weight(process: Process, t: Tensor, weighting: str = "edm", sigma_data: float = 1.0) -> Tensor:
    """Weight w(t) of |D - x_0|^2, of the shape of t; s = sigma / alpha.

        edm       (s^2 + sigma_data^2) / (s sigma_data)^2   unit variance of the network's target
        eps       1 / s^2                                   |eps_theta - eps|^2, DDPM's L_simple
        velocity  (alpha' - sigma' / s)^2                   |velocity_theta - velocity|^2, flow matching
        ml        g^2 alpha^2 / (2 sigma^4)                 density of the variational bound in t

    Sources: Karras et al. 2022, table 1; Ho et al. 2020, eq. 14; Lipman et al. 2023; Song et al. 2021b, theorem 1.
    Raises: ValueError for an unknown weighting, or a t where s is 0 or infinite.
    """
    alpha, sigma = process.alpha(t), process.sigma(t)
    s = sigma / alpha
    weighed = (s > 0) & s.isfinite()
    if not bool(weighed.all()):
        raise ValueError(f"t must have a finite, positive sigma/alpha, got t = {t[~weighed].flatten()[0].item():g}")
    if weighting == "edm":
        return (s**2 + sigma_data**2) / (s * sigma_data) ** 2
    if weighting == "eps":
        return 1 / s**2
    if weighting == "velocity":
        # velocity = f x - g^2 score / 2, and the score depends on D through alpha / sigma^2
        return (process.diffusion(t) ** 2 * alpha / (2 * sigma**2)) ** 2
    if weighting == "ml":
        return process.diffusion(t) ** 2 * alpha**2 / (2 * sigma**4)
    raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}, got {weighting!r}")


def noise_levels(
    process: Process,
    n: int,
    *,
    mean: float = -0.4,
    std: float = 1.4,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Times (n,) in float64 whose log(sigma/alpha) is N(mean, std^2), one from each of n equal slices of probability.

    Stratifying lowers the variance of the loss and leaves its mean alone. Levels beyond what the process reaches
    are moved to its ends. Source: Karras et al. 2022, section 5, with a wider and higher bell for small images.
    """
    device = generator.device if generator is not None else None
    slices = torch.arange(n, dtype=torch.float64, device=device)
    uniform = (slices + torch.rand(n, generator=generator, dtype=torch.float64, device=device)) / n
    # log s = mean + std Phi^-1(u)
    log_ratio = mean + std * math.sqrt(2) * torch.erfinv(2 * uniform - 1)
    lowest, highest = max(process.ratio(0.0).item(), 1e-6), process.ratio(1.0).item()
    return process.time_of(log_ratio.exp().clamp(lowest, highest))


def uniform_times(
    process: Process, n: int, *, ratio_min: float = 1e-3, generator: torch.Generator | None = None
) -> Tensor:
    """Times (n,) in float64, uniform from the one where sigma/alpha = ratio_min to 1, one from each of n equal slices.

    With the weighting "eps" this is the loss of Song et al. 2021, eq. 7, with lambda = sigma^2; for VP the default is
    their smallest time, 1e-5. A process that still has a larger ratio at t = 0 (VE) begins there.
    Raises: ValueError if ratio_min is not positive or not reached, or sigma/alpha is infinite at t = 1.
    """
    if not ratio_min > 0:
        raise ValueError(f"ratio_min must be positive, got {ratio_min}")
    if not bool(process.ratio(1.0).isfinite()):
        raise ValueError(f"process must have a finite sigma/alpha at t = 1, got {type(process).__name__}")
    first = process.time_of(max(ratio_min, process.ratio(0.0).item())).item()
    device = generator.device if generator is not None else None
    slices = torch.arange(n, dtype=torch.float64, device=device)
    # t = t_0 + (1 - t_0) (i + u) / n
    uniform = (slices + torch.rand(n, generator=generator, dtype=torch.float64, device=device)) / n
    return first + (1 - first) * uniform


def denoising_loss(
    denoiser,
    x0: Tensor,
    label: Tensor | None = None,
    *,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    weighting: str = "edm",
    label_drop: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Weighted denoising loss, mean over samples and coordinates of w(t) |D(x_t, t) - x_0|^2.

    Args:
        denoiser: called as denoiser(x, t, label), with `.process` (and `.sigma_data` for the edm weighting).
        x0: data (batch, ...). label: integers (batch,) or None.
        t: times (batch,); None draws them with `noise_levels`. noise: the shape of x0; None draws it.
        weighting: a name of `loss_weight`. label_drop: probability of hiding a label (for guidance).
    Returns: 0-d tensor. Raises: ValueError if shapes do not match, the weighting is unknown, x0 or noise is not finite,
        or sigma/alpha is 0 or infinite at t.
    """
    if not 0 <= label_drop < 1:
        raise ValueError(f"label_drop must lie in [0, 1), got {label_drop}")
    process = denoiser.process
    device = generator.device if generator is not None else x0.device
    if t is None:
        t = noise_levels(process, len(x0), generator=generator)
    t = as_time(t).to(x0.device)
    if t.ndim > 0 and t.shape != (len(x0),):
        raise ValueError(f"t must have shape ({len(x0)},), got {tuple(t.shape)}")
    if noise is None:
        noise = torch.randn(x0.shape, generator=generator, device=device, dtype=x0.dtype).to(x0.device)
    if label is not None and label_drop > 0:
        hidden = torch.rand(len(x0), generator=generator, device=device).to(x0.device) < label_drop
        label = torch.where(hidden, denoiser.classes, label)
    weight = loss_weight(process, t, weighting, getattr(denoiser, "sigma_data", 1.0))
    error = denoiser(process.perturb(x0, t, noise), t, label) - x0
    return (broadcast(weight, x0) * error**2).mean()

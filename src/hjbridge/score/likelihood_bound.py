"""What the reverse SDE guarantees for the density of its samples: a bound, where the flow has a value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hjbridge.score.divergence import divergence as value_and_divergence
from hjbridge.score.divergence import signs
from hjbridge.score.encode import check_samples, finite_score
from hjbridge.sde.process import Process, broadcast


def likelihood_bound(
    process: Process,
    score: Any,
    x: Tensor,
    points: int = 64,
    *,
    start: float | None = None,
    prior: Callable[[Tensor], Tensor] | None = None,
    divergence: str = "hutchinson",
    probes: int = 1,
    label: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Lower bound of log p(x) for the samples of the reverse SDE with this score, an unbiased estimate of it.

        log p(x) >= E log prior(x_1) - int E[(g^2 |s|^2 + 2 g^2 div s) / 2 - d f] dt,    x_t noised from x

    With the score of the data it is an equality for every x, as is the value of the flow; with an inexact one the two
    equations draw from different laws. With l = log(sigma/alpha) and dl/dt = g^2 / (2 sigma^2) the integral is
    int E[sigma^2 |s|^2 + 2 sigma^2 div s] dl - d log(alpha_1/alpha_0), of which one point is drawn in each of `points`
    equal slices of l, for each sample anew.

    Args:
        process; score(x, t), or a denoiser, whose `.score` is taken; x (n, ...), at time `start`.
        points: evaluations of the score for each sample. start: None for the t where sigma/alpha = .001, or 0 where the
            process keeps more than that. prior: x (n, ...) -> log density (n,) at t = 1; None: N(0, sigma^2 I).
        divergence, probes: as in `log_likelihood`, with fresh probes at every point. label: (n,) or None.
    Returns: (n,) in nats, in float64.
    Raises: ValueError for points < 1, probes < 1, a sigma/alpha that is infinite at t = 1, x as in `log_likelihood`.
    Source: Song et al. 2021 (maximum likelihood training), theorem 3; Huang et al. 2021.
    """
    if points < 1:
        raise ValueError(f"points must be at least 1, got {points}")
    denoiser = score if hasattr(score, "score") else None
    check_samples(denoiser, x, label, None)
    if not bool(process.ratio(1.0).isfinite()):
        raise ValueError(f"process must have a finite sigma/alpha at t = 1, got {type(process).__name__}")
    if start is None:
        start = process.time_of(max(1e-3, process.ratio(0.0).item())).item()
    first = process.ratio(start).log().item()
    if not math.isfinite(first):
        raise ValueError(f"start must have a positive noise scale sigma(t), got t = {start:g}")
    field = finite_score(process, denoiser.score if denoiser is not None else score, label)
    alpha_0, sigma_0 = process.alpha(start), process.sigma(start)
    width = (process.ratio(1.0).log().item() - first) / points
    d, total = x[0].numel(), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    device = x.device if generator is None else generator.device

    def noised(t: Tensor) -> Tensor:
        """x_t given x at `start`: (alpha/alpha_0) x + sqrt(sigma^2 - (alpha/alpha_0)^2 sigma_0^2) z."""
        scale = process.alpha(t) / alpha_0
        spread = (process.sigma2(t) - (scale * sigma_0) ** 2).clamp(min=0).sqrt()
        z = torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
        return broadcast(scale, x) * x + broadcast(spread, x) * z

    def at(t: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda y: field(y, t)

    for k in range(points):
        uniform = torch.rand(len(x), generator=generator, device=device, dtype=torch.float64).to(x.device)
        t = process.time_of((first + width * (k + uniform)).exp())
        probe = signs(x, probes, generator) if divergence == "hutchinson" else None
        s, trace = value_and_divergence(at(t), noised(t), divergence, probe)
        # sigma^2 |s|^2 + 2 sigma^2 div s
        total -= width * process.sigma2(t) * (s.double().square().flatten(1).sum(1) + 2 * trace)
    # d log(alpha_1 / alpha_0)
    total += d * (process.alpha(1.0) / alpha_0).log()
    end = noised(torch.ones(len(x), dtype=torch.float64, device=x.device))
    if prior is not None:
        return total + prior(end).double()
    variance = process.sigma2(torch.ones((), dtype=torch.float64))
    return total - d / 2 * (2 * math.pi * variance).log() - end.double().square().flatten(1).sum(1) / (2 * variance)

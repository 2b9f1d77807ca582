"""Score matching: three losses that differ from the Fisher divergence by constants, and from each other by noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hjbridge.sde.process import Process, Time, as_time, broadcast

KINDS = ("denoising", "sliced", "implicit")


def score_matching(
    score: Callable[[Tensor, Time], Tensor],
    process: Process,
    x0: Tensor,
    t: Time,
    *,
    kind: str = "denoising",
    projections: int = 1,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Loss of a score at one noise level, up to a constant the Fisher divergence J = E |s - grad log p_t|^2 / 2.

        implicit   E[|s|^2 / 2 + div s]                         = J - E |grad log p_t|^2 / 2
        sliced     E[|s|^2 / 2 + v' (ds/dx) v], v random signs  = the same
        denoising  E |s + z / sigma|^2 / 2                      = the same + d / (2 sigma^2)

    at x_t = alpha x_0 + sigma z. All have the minimiser grad log p_t. The first takes d derivatives, the second one for
    each projection, the third none; in return its variance grows like 1/sigma^4 as the noise vanishes.

    Args: score(x, t), (n, ...) -> (n, ...), one sample not touching another; process; data x0 (n, ...); t a number,
        a 0-d tensor or (n,); kind; projections v for each sample (sliced); noise z, None draws it.
    Returns: the mean over samples, 0-d, with a graph to whatever the score depends on.
    Raises: ValueError for an unknown kind, projections < 1, shapes that do not match, and for t with sigma = 0 where
        the loss divides by it.
    Source: Hyvarinen 2005 (implicit), Vincent 2011 (denoising), Song et al. 2019 (sliced, with the exact |s|^2).
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if projections < 1:
        raise ValueError(f"projections must be at least 1, got {projections}")
    t = as_time(t)
    device = x0.device if generator is None else generator.device
    if noise is None:
        noise = torch.randn(x0.shape, generator=generator, device=device, dtype=x0.dtype).to(x0.device)
    x = process.perturb(x0, t, noise)
    sigma = process.sigma(t)
    if kind == "denoising":
        if not bool((sigma > 0).all()):
            raise ValueError(f"t must have a positive noise scale sigma(t), got t = {t.min().item():g}")
        # |s + z / sigma|^2 / 2
        error = _checked(score(x, t), x) + noise / broadcast(sigma, x)
        return error.square().flatten(1).sum(1).mean() / 2
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        s = _checked(score(x, t), x)
        if not s.requires_grad:
            raise ValueError("score must be differentiable in x, got values without a graph (under no_grad?)")
        if kind == "implicit":
            # div s = sum_i ds_i/dx_i
            parts = [
                torch.autograd.grad(component.sum(), x, create_graph=True)[0].flatten(1)[:, i]
                for i, component in enumerate(s.flatten(1).unbind(1))
            ]
            trace = torch.stack(parts).sum(0)
        else:
            trace = torch.zeros(len(x), dtype=x.dtype, device=x.device)
            for _ in range(projections):
                v = (torch.randint(0, 2, x.shape, generator=generator, device=device) * 2 - 1).to(x)
                # v' (ds/dx) v
                (row,) = torch.autograd.grad(s, x, v, create_graph=True)
                trace = trace + (row * v).flatten(1).sum(1) / projections
        return (s.square().flatten(1).sum(1) / 2 + trace).mean()


def _checked(s: Tensor, x: Tensor) -> Tensor:
    if s.shape != x.shape:
        raise ValueError(f"score must return the shape of x, {tuple(x.shape)}, got {tuple(s.shape)}")
    return s

"""Divergence of a vector field that is known as a function: the trace of its Jacobian, exact or by random probes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

KINDS = ("exact", "hutchinson")


def divergence(
    function: Callable[[Tensor], Tensor], x: Tensor, kind: str = "exact", probes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Values v(x) of a field and its divergence sum_i dv_i/dx_i, sample by sample.

        exact        sum_i e_i' J e_i over all d unit vectors: d passes backwards
        hutchinson   mean_m eps_m' J eps_m over the probes: unbiased if E eps eps' = I, m passes backwards

    With signs (Rademacher probes) the variance is sum_(i<j) (J_ij + J_ji)^2 / m, which is zero for a diagonal J.

    Args: function, x (n, ...) -> (n, ...), made of torch operations, one sample not touching another; kind;
        probes (m, n, ...) for hutchinson, see `signs`.
    Returns: v, of the shape of x, and the divergence (n,) in float64. Neither carries a graph.
    Raises: ValueError for an unknown kind, probes that are missing, superfluous or of another shape, a function that
        returns another shape or has no derivative in x.
    Source: Hutchinson 1990; Grathwohl et al. 2019 (FFJORD).
    """
    if kind not in KINDS:
        raise ValueError(f"divergence must be one of {', '.join(KINDS)}, got {kind!r}")
    told = None if probes is None else tuple(probes.shape)
    if (kind == "exact") != (probes is None) or (told is not None and (told[:1] == (0,) or told[1:] != x.shape)):
        accepted = "None" if kind == "exact" else f"of shape (m, {', '.join(map(str, x.shape))})"
        raise ValueError(f"probes must be {accepted} for divergence {kind}, got {told}")
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = function(x)
        if v.shape != x.shape:
            raise ValueError(f"function must return the shape of x, {tuple(x.shape)}, got {tuple(v.shape)}")
        if not v.requires_grad:
            raise ValueError("function must be differentiable in x, got values without a graph (under no_grad?)")
        components = v.flatten(1).unbind(1)
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    if probes is None:
        for i, component in enumerate(components):
            # sum_i dv_i/dx_i
            (row,) = torch.autograd.grad(component, x, torch.ones_like(component), retain_graph=True)
            total += row.flatten(1)[:, i]
    else:
        for probe in probes:
            # eps' J eps / m
            (row,) = torch.autograd.grad(v, x, probe, retain_graph=True)
            total += (row * probe).flatten(1).sum(1, dtype=torch.float64) / len(probes)
    return v.detach(), total


def signs(x: Tensor, probes: int, generator: torch.Generator | None = None) -> Tensor:
    """Rademacher probes, -1 or 1 with equal probability, independent: (probes, *x.shape) in the type of x.

    Args: generator, None for torch's default one; they are drawn on its device and moved to that of x.
    Raises: ValueError if probes is below 1.
    """
    if probes < 1:
        raise ValueError(f"probes must be at least 1, got {probes}")
    device = x.device if generator is None else generator.device
    return torch.randint(0, 2, (probes, *x.shape), generator=generator, device=device).to(x) * 2 - 1

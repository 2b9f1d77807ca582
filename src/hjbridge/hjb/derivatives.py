"""Derivatives of a batched value(x, t): time, gradient, Hessian and the second-order term of the HJB equation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Value = Callable[[Tensor, Tensor], Tensor]


def gradient(value: Value, x: Tensor, t: Tensor) -> Tensor:
    """grad V at x (n, d), of that shape. It carries a graph only if x requires one."""
    y = x if x.requires_grad else x.detach().requires_grad_()
    with torch.enable_grad():
        total = checked(value(y, t), x).sum()
        if not total.requires_grad:
            return torch.zeros_like(x)
        found = torch.autograd.grad(total, y, create_graph=x.requires_grad, allow_unused=True)[0]
        return torch.zeros_like(x) if found is None else found


def hessian(value: Value, x: Tensor, t: Tensor) -> Tensor:
    """Hess V at x (n, d), of shape (n, d, d), by one backward pass for each coordinate."""
    y = x.detach().requires_grad_()
    with torch.enable_grad():
        slope = first(checked(value(y, t), x), y)
        rows = [first(slope[:, i], y, graph=False) for i in range(x.shape[1])]
    return torch.stack(rows, 1).detach()


def first(output: Tensor, source: Tensor, *, graph: bool = True) -> Tensor:
    """Derivative of output (n,) by source, row by row; zero where output does not depend on it.

    Args: graph, of the derivative, to differentiate it once more; that of output is kept in any case.
    """
    if not output.requires_grad:
        return torch.zeros_like(source)
    found = torch.autograd.grad(output.sum(), source, create_graph=graph, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(source) if found is None else found


def second_order(
    slope: Tensor, x: Tensor, sigma: Tensor, probes: Tensor | None = None, *, graph: bool = True
) -> Tensor:
    """tr(sigma sigma' Hess V)/2 of shape (n,), from the gradient `slope` (n, d), which still hangs on x by its graph.

    Exact: sum_j (sigma_j' Hess V sigma_j)/2 over the columns of sigma, a backward pass each. With probes z (r, n, k) of
    mean zero and unit covariance: the mean of (sigma z)' Hess V (sigma z)/2 over them (Hutchinson 1990).

    Args: sigma (n, d), one Brownian motion per coordinate, or (n, d, k). graph: of the Hessian, to differentiate the
        term once more; without it the passes keep nothing in memory.
    """
    total = x.new_zeros(len(x))
    if probes is not None:
        for z in probes:
            direction = sigma * z if sigma.ndim == 2 else (sigma @ z.unsqueeze(-1)).squeeze(-1)
            # held fixed: sigma may depend on x, too
            curved = first((slope * direction.detach()).sum(1), x, graph=graph)
            total = total + (curved * direction).sum(1) / (2 * len(probes))
        return total
    for j in range(sigma.shape[-1]):
        if sigma.ndim == 2:
            if bool((sigma[:, j] == 0).all()):
                continue
            total = total + sigma[:, j] ** 2 * first(slope[:, j], x, graph=graph)[:, j] / 2
        else:
            column = sigma[:, :, j]
            # held fixed: sigma may depend on x, too
            total = total + (first((slope * column.detach()).sum(1), x, graph=graph) * column).sum(1) / 2
    return total


def checked(values: Tensor, x: Tensor) -> Tensor:
    """The values after checking that there is one for each row of x."""
    if values.shape != x.shape[:1]:
        raise ValueError(f"value must return shape ({len(x)},), got {tuple(values.shape)}")
    return values

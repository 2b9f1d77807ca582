"""Integration of a stochastic differential equation on a given grid of times."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hjbridge.sde.equation import SDE, Drift
from hjbridge.sde.steps import euler, heun, rk4, taylor15

METHODS = {"euler": euler, "heun": heun, "rk4": rk4, "taylor15": taylor15}


@dataclass(frozen=True)
class Path:
    """Result of `integrate`.

    Attributes: x, the final state; grid (N + 1,), the times; states (N + 1, *x.shape) and noises (N, *noise shape),
    the Brownian increments, both None unless recorded (noises also for an ordinary differential equation).
    """

    x: Tensor
    grid: Tensor
    states: Tensor | None = None
    noises: Tensor | None = None


def integrate(
    sde: SDE,
    x: Tensor,
    grid: Tensor | Sequence[float],
    method: str = "euler",
    generator: torch.Generator | None = None,
    record: bool = False,
) -> Path:
    """Integrate dX = f dt + g dW along a grid of times, X(grid[0]) = x.

    Args:
        sde: the equation. x: starting points (n, ...). grid: strictly monotone times (N + 1,), in the direction of
        the equation and within its span; descending ones have dt < 0 and dW ~ N(0, |dt|).
        method: "euler" (strong order 1/2; 1 with additive noise), "heun" (2 on ODEs), "rk4" (4, ODEs only) or
        "taylor15" (3/2, additive noise only).
        generator: source of the noise, on the device of x; None for torch's default. record: keep states and noises.
    Returns: `Path`, with the type and device of x. Gradients flow to whatever requires one.
    Raises: ValueError for an unknown method, a grid that is not strictly monotone, runs the wrong way or leaves the
        equation's span, x that is not finite, shapes that do not match, a method that does not fit the noise;
        FloatingPointError if the result is not finite.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if not x.is_floating_point() or x.ndim == 0:
        raise ValueError(f"x must be floating and of shape (n, ...), got {x.dtype} of shape {tuple(x.shape)}")
    if not bool(x.isfinite().all()):
        raise ValueError("x must be finite, got NaN or infinity")
    step, grid = METHODS[method], check_grid(grid, sde.ascending).to(x.device)
    for t in (grid[0].item(), grid[-1].item()):
        if not sde.span[0] <= t <= sde.span[1]:
            raise ValueError(f"grid must lie in [{sde.span[0]:g}, {sde.span[1]:g}], got {t:g}")
    sde, shape = _noise_shape(sde, x, grid[0])
    if method == "taylor15" and shape is not None:
        _check_additive(sde, x, grid)

    def normal(deviation: Tensor) -> Tensor:
        return torch.randn(shape or (), generator=generator, device=x.device, dtype=x.dtype) * deviation

    points, roots = grid.unbind(), grid.diff().abs().sqrt().unbind()
    states: list[Tensor] = [x]
    noises: list[Tensor] = []
    dw: Tensor | None = None
    dz: Tensor | None = None
    first = dataclasses.replace(sde, drift=_checked(sde.drift))
    for i, root in enumerate(roots):
        if shape is not None:
            dw = normal(root)
            if method == "taylor15":
                # dz = (dW + sqrt(|dt| / 3) xi) / 2 has variance |dt| / 3 and covariance |dt| / 2 with dW
                dz = (dw + normal(root / math.sqrt(3))) / 2
        x = step(sde if i else first, x, points[i], points[i + 1], dw, dz)
        if record:
            states.append(x)
            if dw is not None:
                noises.append(dw)
    if not bool(x.isfinite().all()):
        raise FloatingPointError(
            "integration produced NaN or infinity: a coefficient is singular on the grid, or a step is too long"
        )
    return Path(
        x=x,
        grid=grid,
        states=torch.stack(states) if record else None,
        noises=torch.stack(noises) if noises else None,
    )


def check_grid(grid: Tensor | Sequence[float], ascending: bool | None = None) -> Tensor:
    """Return grid as a floating vector after checking that it is finite and strictly monotone in the given direction.

    Args: ascending True, False, or None for either. Raises: ValueError, naming the first pair that is out of order.
    """
    grid = torch.as_tensor(grid)
    grid = grid if grid.is_floating_point() else grid.double()
    if grid.ndim != 1 or len(grid) < 2 or not bool(grid.isfinite().all()):
        raise ValueError(f"grid must be a vector of at least two finite times, got {grid.tolist()}")
    if ascending is None:
        ascending = bool(grid[-1] > grid[0])
    wrong = grid.diff() <= 0 if ascending else grid.diff() >= 0
    if bool(wrong.any()):
        i = int(wrong.nonzero()[0])
        raise ValueError(
            f"grid must be strictly {'ascending' if ascending else 'descending'}, "
            f"got grid[{i + 1}] = {grid[i + 1].item():g} after grid[{i}] = {grid[i].item():g}"
        )
    return grid


def _noise_shape(sde: SDE, x: Tensor, t: Tensor) -> tuple[SDE, tuple[int, ...] | None]:
    """The equation with a matrix dispersion as (1 or n, d, m), and the shape of its increments (None: no noise)."""
    kind, g = sde.kind(x, t), sde.diffusion
    if kind == "none":
        return sde, None
    if kind != "matrix":
        return sde, tuple(x.shape)
    matrix = g(x, t)
    assert isinstance(matrix, Tensor)
    if matrix.ndim == 2:
        sde = dataclasses.replace(sde, diffusion=lambda x, t: g(x, t).unsqueeze(0))  # type: ignore[union-attr]
    return sde, (len(x), matrix.shape[-1])


def _checked(drift: Drift) -> Drift:
    """The same drift, which raises ValueError if it does not return the shape and the type of x."""

    def checked(x: Tensor, t: Tensor) -> Tensor:
        value = drift(x, t)
        if value.shape != x.shape or value.dtype != x.dtype:
            raise ValueError(
                f"drift must return shape {tuple(x.shape)} and {x.dtype} like x, "
                f"got {tuple(value.shape)}, {value.dtype}"
            )
        return value

    return checked


def _check_additive(sde: SDE, x: Tensor, grid: Tensor) -> None:
    for t in grid[[0, len(grid) // 2, -1]]:
        here, there = (torch.as_tensor(sde.diffusion(y, t)) for y in (x, x + 1))
        if not torch.equal(here, there):
            raise ValueError("diffusion must not depend on x for method taylor15, which needs additive noise")

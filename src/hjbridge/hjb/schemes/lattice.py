"""A lattice of states: axes that are even, logarithmic or periodic, and what lies outside it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hjbridge.hjb.problem import ControlProblem

Axis = Sequence[float] | Tensor
Domain = tuple[Axis, Axis]
RATIO, WIDER = 8.0, 1000.0


@dataclass(frozen=True)
class Lattice:
    """All points whose coordinate i lies on axis i.

    Attributes: axes, ascending float64 vectors, one for each state; periods, 0 for an open axis, otherwise the length
    after which it repeats (its last point is one spacing short of that).
    """

    axes: tuple[np.ndarray, ...]
    periods: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of points along each axis."""
        return tuple(len(axis) for axis in self.axes)

    def points(self) -> Tensor:
        """All points, (N, d), the last axis fastest; float64."""
        return torch.from_numpy(np.stack(np.meshgrid(*self.axes, indexing="ij"), -1).reshape(-1, len(self.axes)))

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest state, each (d,); a periodic axis ends where it repeats."""
        low = np.array([axis[0] for axis in self.axes])
        high = np.array([a[0] + p if p else a[-1] for a, p in zip(self.axes, self.periods, strict=True)])
        return low, high

    def place(self, x: Tensor) -> Tensor:
        """x (n, d) with its periodic coordinates brought back to the lattice; differentiable.

        Raises: ValueError, naming the first state outside and the domain.
        """
        low, high = (torch.from_numpy(end).to(x) for end in self.ends())
        columns = []
        for i, period in enumerate(self.periods):
            turns = torch.floor((x[:, i].detach() - low[i]) / period) if period else 0.0
            columns.append((x[:, i] - turns * period).clamp(low[i], high[i]) if period else x[:, i])
        placed = torch.stack(columns, 1)
        slack = 4 * torch.finfo(x.dtype).eps * (high - low)
        outside = ((placed < low - slack) | (placed > high + slack)).any(1)
        if bool(outside.any()):
            domain = " x ".join(f"[{a:g}, {b:g}]" for a, b in zip(low.tolist(), high.tolist(), strict=True))
            raise ValueError(f"x must lie in the grid's domain {domain}, got {x[outside][0].tolist()}")
        return placed

    def clamp(self, x: Tensor) -> Tensor:
        """x (n, d) moved to the nearest state of the domain; periodic coordinates stay."""
        low, high = (torch.from_numpy(end).to(x) for end in self.ends())
        free = torch.tensor([bool(period) for period in self.periods], device=x.device)
        return torch.where(free, x, x.clamp(low, high))


def lattice_for(
    problem: ControlProblem,
    points: int | Sequence[int],
    domain: Domain | None = None,
    axes: Sequence[Axis] | None = None,
) -> Lattice:
    """The lattice of a problem.

    Args:
        points: along each axis, or one number for all. domain: lowest and highest state; None takes
            `default_domain`. An axis has equal ratios if high >= 8 low > 0, otherwise equal spacings.
        axes: all coordinates on each axis, ascending, in place of points and domain; a periodic one repeats after the
            length of `problem.box`.
    Raises: ValueError for more than three dimensions, fewer than 4 points, a domain that is missing, not finite or
        empty, axes that do not ascend.
    """
    d = problem.dim
    if d > 3:
        raise ValueError(f"problem must have at most 3 dimensions for a grid, got {d}: use Riccati or HopfCole where "
                         "they cover it, otherwise a neural method")  # fmt: skip
    if axes is not None:
        return _explicit(problem, axes)
    counts = (points,) * d if isinstance(points, int) else tuple(points)
    if len(counts) != d or min(counts) < 4:
        raise ValueError(f"points must be at least 4 on each of the {d} axes, got {points}")
    ends = default_domain(problem) if domain is None else domain
    low, high = (torch.as_tensor(end, dtype=torch.float64).reshape(-1).numpy() for end in ends)
    if low.shape != (d,) or high.shape != (d,) or not np.isfinite([low, high]).all() or not (low < high).all():
        raise ValueError(f"domain must be two finite vectors ({d},), low < high, got {low.tolist()}, {high.tolist()}")
    lines, periods = [], []
    for i, n in enumerate(counts):
        wraps = i in problem.periodic
        if wraps:
            line = np.linspace(low[i], high[i], n + 1)[:-1]
        else:
            line = (np.geomspace if high[i] >= RATIO * low[i] > 0 else np.linspace)(low[i], high[i], n)
            line[0], line[-1] = low[i], high[i]
        lines.append(line)
        periods.append(float(high[i] - low[i]) if wraps else 0.0)
    return Lattice(tuple(lines), tuple(periods))


def default_domain(problem: ControlProblem) -> tuple[Tensor, Tensor]:
    """The problem's box; twice as wide if it is linear-quadratic, since quadratics need few points and paths have room;
    without horizon, logarithmic axes are a thousand times longer at both ends, whose influence never dies out.

    Raises: ValueError if the problem has no box.
    """
    if problem.box is None:
        raise ValueError("domain must be given: this problem has no box, got None")
    low, high = (end.double() for end in problem.box)
    if problem.linear_quadratic is not None:
        return low - (high - low) / 2, high + (high - low) / 2
    if problem.horizon is None:
        ratio = torch.where((low > 0) & (high >= RATIO * low), WIDER, 1.0)
        return low / ratio, high * ratio
    return low, high


def _explicit(problem: ControlProblem, axes: Sequence[Axis]) -> Lattice:
    lines = tuple(torch.as_tensor(axis, dtype=torch.float64).reshape(-1).numpy() for axis in axes)
    if len(lines) != problem.dim:
        raise ValueError(f"axes must be {problem.dim} vectors, got {len(lines)}")
    for line in lines:
        if len(line) < 4 or not np.isfinite(line).all() or not (np.diff(line) > 0).all():
            raise ValueError(f"axes must ascend, be finite and have at least 4 points, got {line.tolist()[:4]} ...")
    periods = [0.0] * problem.dim
    for i in problem.periodic:
        assert problem.box is not None
        periods[i] = (problem.box[1][i] - problem.box[0][i]).item()
        if lines[i][-1] - lines[i][0] >= periods[i]:
            raise ValueError(f"axes must stop before the period {periods[i]:g} is over, got {lines[i][-1]:g}")
    return Lattice(lines, tuple(periods))


def check_memory(need: float, lattice: Lattice) -> None:
    """Refuse what would not fit. Args: need, in bytes. Raises: ValueError, saying how many GB it would take."""
    try:
        have = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        have = math.inf
    if need > have / 2:
        size = " x ".join(map(str, lattice.shape))
        raise ValueError(f"points must fit into memory: {size} would need {need / 1e9:.3g} GB, half of the memory is "
                         f"{have / 2e9:.3g} GB")  # fmt: skip


def factor_bytes(lattice: Lattice) -> float:
    """About what the factors of a sparse matrix on the lattice need: 31 N log2 N entries in 2-D, 8 N^(4/3) in 3-D."""
    n, d = float(np.prod(lattice.shape)), len(lattice.axes)
    return 16 * (5 * n if d == 1 else 31 * n * math.log2(n) if d == 2 else 8 * n ** (4 / 3))

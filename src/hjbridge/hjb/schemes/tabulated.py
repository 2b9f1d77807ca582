"""The solution that a table of values on a lattice gives: splines in state and time, and the control from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hjbridge.hjb import derivatives
from hjbridge.hjb.problem import ControlProblem, StateFunction
from hjbridge.hjb.schemes.lattice import Lattice
from hjbridge.hjb.schemes.spline import fit
from hjbridge.hjb.solution import Solution

DEGREE = 3


def table_of(lattice: Lattice, values: np.ndarray, times: np.ndarray | None = None) -> dict[str, Tensor]:
    """The tensors that `tabulated` takes: axes, times, and values (N,) or (K + 1, N) in their shape."""
    if not np.isfinite(values).all():
        raise FloatingPointError("the value is not finite on the whole grid")
    shape = lattice.shape if times is None else (len(times), *lattice.shape)
    tensors = {f"axis{i}": torch.from_numpy(axis) for i, axis in enumerate(lattice.axes)}
    tensors["values"] = torch.from_numpy(values.reshape(shape))
    return tensors if times is None else {**tensors, "times": torch.from_numpy(times)}


def tabulated(problem: ControlProblem, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Solution:
    """Value by tensor-product cubic splines through the table, control by the problem's minimiser at its derivatives.

    Where the problem has ended by exit, the value is the exit cost. A state outside the domain is refused.

    Args: settings, with `periods`, one for each axis, and `ridges`: take the derivative of one side on ridges of V.
        tensors: what `table_of` returns.
    """
    axes = tuple(tensors[f"axis{i}"].double().numpy() for i in range(problem.dim))
    lattice = Lattice(axes, tuple(settings["periods"]))
    clock = () if "times" not in tensors else (tensors["times"].double().numpy(),)
    periods = (*(0.0 for _ in clock), *lattice.periods)
    spline = fit((*clock, *axes), periods, tensors["values"].double().numpy(), DEGREE)

    def interpolate(x: Tensor, t: Tensor) -> Tensor:
        y = lattice.place(x)
        if not clock:
            return spline(y)
        t = t.clamp(max=float(clock[0][-1]))
        return spline.fix(t)(y) if t.ndim == 0 else spline(torch.cat([t.unsqueeze(1), y], 1))

    def ended(x: Tensor) -> Tensor:
        assert problem.inside is not None
        return ~problem.inside(x).unsqueeze(1)

    def value(x: Tensor, t: Tensor) -> Tensor:
        if problem.exit_cost is None or not bool(ended(x).any()):
            return interpolate(x, t)
        out = ended(x)
        inner = interpolate(torch.where(out, lattice.clamp(x.detach()), x), t)
        return torch.where(out.squeeze(1), problem.exit_cost(x, t), inner)

    def control(x: Tensor, t: Tensor) -> Tensor:
        if problem.inside is not None:
            x = torch.where(ended(x), lattice.clamp(x), x)
        M = derivatives.hessian(interpolate, x, t) if problem.controlled_noise else None
        slope = derivatives.gradient(interpolate, x, t)
        if settings.get("ridges"):
            slope = _lower_side(problem, lattice, interpolate, x, t, slope)
        return problem.best_control(x, t, slope, M)

    repeats = torch.tensor([period > 0 for period in lattice.periods])
    low, high = (torch.from_numpy(end) for end in lattice.ends())
    return Solution(
        problem, value_function=value, control_function=control, settings=dict(settings), tensors=dict(tensors),
        domain=(low.masked_fill(repeats, -math.inf), high.masked_fill(repeats, math.inf)),
    )  # fmt: skip


def _lower_side(
    problem: ControlProblem, lattice: Lattice, value: StateFunction, x: Tensor, t: Tensor, slope: Tensor
) -> Tensor:
    """The slope, replaced on ridges: where V is lower one cell ahead and one cell behind, the difference to the lower.

    On a kink where two ways are equally good the spline's derivative is the mean of both sides and takes neither.
    """
    flip, columns = (1.0 if problem.sense == "min" else -1.0), []
    with torch.no_grad():
        here = flip * value(x, t)
        for i, axis in enumerate(lattice.axes):
            nodes = torch.from_numpy(axis).to(x)
            place = lattice.place(x)[:, i].contiguous()
            cell = torch.searchsorted(nodes, place, right=True).clamp(1, len(nodes) - 1)
            step = torch.zeros_like(x)
            step[:, i] = nodes[cell] - nodes[cell - 1]
            ahead, behind = (flip * value(lattice.clamp(x + side * step), t) - here for side in (1, -1))
            one = flip * torch.where(ahead <= behind, ahead, -behind) / step[:, i]
            columns.append(torch.where((ahead < 0) & (behind < 0), one, slope[:, i]))
    return torch.stack(columns, 1) if not slope.requires_grad else slope + (torch.stack(columns, 1) - slope).detach()

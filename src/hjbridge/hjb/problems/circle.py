"""A nonlinear problem on a circle whose value is known because the cost was chosen for it."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.solution import Solution


def circle(sigma: float = 0.6, rho: float = 0.5) -> ControlProblem:
    """Steering on a circle, dX = (sin(2X)/2 + u) dt + sigma dW, discounted, with a manufactured running cost.

        V(x) = 1.5 + sin x + 0.4 cos 2x + 0.2 sin 3x,    u* = -V',    cost l(x) + u^2/2,
        l = rho V - sin(2x) V'/2 + V'^2/2 - sigma^2 V''/2.

    State: angle (rad) in [-pi, pi), any real number is read modulo 2 pi. Control: drift (rad per unit of time).

    Args: sigma >= 0, dispersion; rho > 0, discount rate.
    Raises: ValueError if sigma is negative or rho is not positive. Source: own; the method of manufactured solutions.
    """
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma must be finite and not negative, got {sigma}")
    if not 0 < rho < math.inf:
        raise ValueError(f"rho must be finite and positive, got {rho}")

    def drift(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(2 * x) / 2

    def value(x: Tensor, t: Tensor) -> Tensor:
        y = x[:, 0]
        return 1.5 + torch.sin(y) + 0.4 * torch.cos(2 * y) + 0.2 * torch.sin(3 * y)

    def cost(x: Tensor, t: Tensor) -> Tensor:
        y = x[:, 0]
        slope = torch.cos(y) - 0.8 * torch.sin(2 * y) + 0.6 * torch.cos(3 * y)
        bend = -torch.sin(y) - 1.6 * torch.cos(2 * y) - 1.8 * torch.sin(3 * y)
        # l = rho V - b V' + V'^2/2 - sigma^2 V''/2
        return rho * value(x, t) - torch.sin(2 * y) / 2 * slope + slope**2 / 2 - sigma**2 / 2 * bend

    def initial(n: int, generator: torch.Generator | None) -> Tensor:
        return math.pi * (2 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 1)

    one = torch.ones(1, 1, dtype=torch.float64)
    problem = ControlProblem(
        name="circle", dim=1, controls=1, drift=drift, control_matrix=one, dispersion=sigma, control_cost=one,
        running_cost=cost, discount=rho, initial=initial, box=(-math.pi * one[0], math.pi * one[0]), periodic=(0,),
        states=("angle (rad)",), actions=("drift (rad per time)",), arguments={"sigma": sigma, "rho": rho},
    )  # fmt: skip
    return replace(problem, exact=Solution(problem, value_function=value))

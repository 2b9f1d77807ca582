"""A particle in a double well, to be brought into the right one; its value by Hopf and Cole's linear equation."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import torch
from torch import Tensor

from hjbridge.hjb.methods.desirability import solve_panels
from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.solution import Solution, provenance

# of the polynomials in x, and where noise^2 is below depth/5 and the boundary layers are thinner
DEGREE, FINE = 220, 300
# the exponent by which the stationary density e^(-2 U/noise^2), U = depth (x^4/4 - x^2/2), falls from 0 to the box's
# end; so that the default box is [-2.5, 2.5]
BARRIER = (2.5**4 / 4 - 2.5**2 / 2) * 2 / 0.49


def double_well(
    depth: float = 1.0,
    noise: float = 0.7,
    horizon: float = 1.0,
    price: float = 1.0,
    wave: float = 0.3,
    pull: float = 2.0,
    target: float = 1.0,
) -> ControlProblem:
    """Push a particle from well to well: dX = [depth (X - X^3) + u] dt + noise dW.

        cost  int_0^T (wave cos 2X + price u^2/2) dt + pull z^2/(1 + z^2/5),    z = X_T - target

    Wells at -1 and 1, the barrier between them depth/4 high. Control and noise enter alike, so that the problem is
    linearly solvable with temperature price noise^2. `exact` is the collocation of `HopfCole` on `box`, which holds
    the uncontrolled particle but for about e^-27; outside it, it refuses. With the defaults the box is [-2.5, 2.5] and
    the equation holds to 1e-10 of its largest term, as at a noise of .3; at .2, to 1e-9.

    Args: depth and noise, positive; horizon T; price of control; wave, height of the running cost; pull, strength, and
        target, place of the terminal cost.
    Returns: the problem, with starts uniform in [-1.5, 1.5]; state x, control u, all without units.
    Raises: ValueError if an argument is not finite or has the wrong sign, target lies outside the box, or noise is so
        small for its task that `exact` is not resolved.
    """
    given = {"depth": depth, "noise": noise, "horizon": horizon, "price": price}
    for name, number in given.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {number}")
    for name, number in (("wave", wave), ("pull", pull), ("target", target)):
        if not math.isfinite(number):
            raise ValueError(f"{name} must be finite, got {number}")
    if pull < 0:
        raise ValueError(f"pull must not be negative, got {pull}")
    # where x^4/4 - x^2/2 = BARRIER noise^2/(2 depth)
    end = round(math.sqrt(1 + math.sqrt(1 + 2 * BARRIER * noise**2 / depth)), 12)
    if not abs(target) <= end:
        raise ValueError(f"target must lie in [{-end:.4g}, {end:.4g}], got {target}")
    problem = ControlProblem(
        name="double_well",
        dim=1,
        controls=1,
        drift=lambda x, t: depth * (x - x**3),
        control_matrix=torch.ones(1, 1, dtype=torch.float64),
        dispersion=float(noise),
        control_cost=torch.full((1, 1), float(price), dtype=torch.float64),
        running_cost=lambda x, t: wave * torch.cos(2 * x[:, 0]),
        terminal_cost=lambda x: _miss(x, pull, target),
        horizon=float(horizon),
        initial=_spread,
        box=(torch.tensor([-end], dtype=torch.float64), torch.tensor([end], dtype=torch.float64)),
        arguments={**given, "wave": wave, "pull": pull, "target": target},
    )
    start = time.process_time()
    degree = FINE if noise**2 < depth / 5 else DEGREE
    value = solve_panels(problem, price * noise**2, degree, None)
    meta = provenance("HopfCole", None, time.process_time() - start)
    return replace(problem, exact=Solution(problem, value_function=value, meta=meta, domain=problem.box))


def _miss(x: Tensor, pull: float, target: float) -> Tensor:
    z = x[:, 0] - target
    # pull z^2/(1 + z^2/5)
    return pull * z**2 / (1 + 0.2 * z**2)


def _spread(n: int, generator: torch.Generator | None) -> Tensor:
    return 3 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 1.5

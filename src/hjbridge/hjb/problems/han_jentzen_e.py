"""The 100-dimensional benchmark of Han, Jentzen and E: quadratic control cost, logarithmic terminal cost."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.solution import Solution

HORIZON, REACH = 1.0, 6.0
GRIDS = {1: (401, 300), 2: (55, 220), 3: (27, 100)}


def han_jentzen_e(d: int = 100, lam: float = 1.0) -> ControlProblem:
    """Steer Brownian motion to a low logarithm: dX = 2 sqrt(lam) u dt + sqrt(2) dW, cost int |u|^2 dt + g(X_T), T = 1.

        V_t + Lap V - lam |grad V|^2 = 0,      V(x, 1) = g(x) = ln((1 + |x|^2) / 2)

    `exact` is Hopf and Cole's expectation by a quadrature of relative error below 1e-12, in x and t, also at t = 1.

    For d <= 3 `Grid()` takes central differences on [-6, 6]^d, on axes that are closer at the origin. For lam from 1 to
    50, with the gradient's rms error relative to its rms size over |x_i| <= 3 at t = 0, its errors are at most

        d    points    steps    V(0, 0)    gradient    CPU
        1     401       300      1e-4       4e-4        1 s
        2     55^2      220      3e-4       8e-4        4 s
        3     27^3      100      2e-3       4e-3        7 s

    Nearer to the end the gradient is less good for large lam, at t = 0.9 and lam = 50 by 0.2 %, 0.4 % and 3 %.

    Args: d, the number of states (and of controls). lam, how cheap control is; the temperature is 1/lam.
    Returns: the problem, with starts at the origin; state x (d), control u (d), all without units.
    Raises: ValueError if d is not a positive integer or lam not positive and finite.
    Source: Han, Jentzen and E 2018, equation 11.
    """
    if not isinstance(d, int) or d < 1:
        raise ValueError(f"d must be a positive integer, got {d}")
    if not 0 < lam < math.inf:
        raise ValueError(f"lam must be positive and finite, got {lam}")
    identity = torch.eye(d, dtype=torch.float64)
    problem = ControlProblem(
        name="han_jentzen_e",
        dim=d,
        controls=d,
        drift=lambda x, t: torch.zeros_like(x),
        control_matrix=2 * math.sqrt(lam) * identity,
        dispersion=math.sqrt(2),
        control_cost=2 * identity,
        # g = ln((1 + |x|^2) / 2)
        terminal_cost=lambda x: torch.log((1 + x.square().sum(1)) / 2),
        horizon=HORIZON,
        initial=lambda n, generator: torch.zeros(n, d, dtype=torch.float64),
        box=(torch.full((d,), -REACH, dtype=torch.float64), torch.full((d,), REACH, dtype=torch.float64)),
        grid=_grid(d),
        arguments={"d": d, "lam": lam},
    )
    exact = Solution(problem, value_function=lambda x, t: _value(x, t, d, float(lam)))
    return replace(problem, exact=exact)


def _grid(d: int) -> dict[str, Any]:
    """What `Grid()` takes: axes from -6 to 6, closer at the origin, where g bends, and many steps for large lam."""
    if d not in GRIDS:
        return {}
    points, steps = GRIDS[d]
    # x = 6 sinh(5 s/2)/sinh(5/2)
    axis = REACH * torch.sinh(2.5 * torch.linspace(-1, 1, points, dtype=torch.float64)) / math.sinh(2.5)
    return {"axes": (axis,) * d, "steps": steps, "scheme": "central"}


def _value(x: Tensor, t: Tensor, d: int, lam: float) -> Tensor:
    """V = -ln(phi) / lam with phi the integral below, by the trapezoidal rule in y = ln a.

        phi = 2^lam / Gamma(lam) int_0^inf a^(lam-1) e^-a q^(-d/2) exp(-a |x|^2 / q) da,    q = 1 + 4 a (T - t)

    It follows from (1 + s)^-lam = int a^(lam-1) e^(-a (1 + s)) da / Gamma(lam) and the Gaussian expectation of
    e^(-a |X_T|^2). The rule converges exponentially: the integrand is analytic where |Im y| < pi/2, and no narrower
    than 1/sqrt(lam).
    """
    s, tau = x.double().square().sum(1), (HORIZON - t.double()).expand(len(x))
    y, weight = _nodes(s.detach(), tau.detach(), d, lam)
    a = y.exp()
    # q = 1 + 4 a (T - t)
    q = 1 + 4 * a * tau.unsqueeze(1)
    log_integrand = lam * y - a - d / 2 * q.log() - a * s.unsqueeze(1) / q
    # ln phi = lam ln 2 - ln Gamma(lam) + ln sum of weight * integrand
    log_phi = lam * math.log(2) - math.lgamma(lam) + torch.logsumexp(log_integrand + weight, 1)
    return (-log_phi / lam).to(x.dtype)


def _nodes(s: Tensor, tau: Tensor, d: int, lam: float) -> tuple[Tensor, Tensor]:
    """Nodes y (K,) on the lattice of multiples of the step h, and the logarithms of their weights.

    The integrand rises below y = ln(lam / (1 + s + 2 d tau)) and falls above y = ln(lam); both bounds on its decay are
    used to cut at e^-45. Below the first node it is e^(lam y) to rounding: that tail is a geometric series.
    """
    h = min(0.2, 0.5 / math.sqrt(lam))
    rise = math.log(lam) - torch.log1p(s + 2 * d * tau.clamp(min=0)).max().item()
    low = rise - min(38.0, 45 / lam + 1)
    high = math.log(lam) + math.log1p(45 / lam + math.sqrt(90 / lam))
    first, last = math.floor(low / h), math.ceil(high / h)
    y = torch.arange(first, last + 1, dtype=torch.float64, device=s.device) * h
    weight = torch.full_like(y, math.log(h))
    # sum over k <= first of e^(lam k h) = e^(lam first h) / (1 - e^(-lam h))
    weight[0] -= math.log(-math.expm1(-lam * h))
    return y, weight

"""Merton's portfolio: how much of one's wealth to hold in a risky asset, and how much to consume."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.solution import Solution

BOX = 0.2, 5.0


def merton(
    r: float, mu: float, sigma: float, gamma: float, rho: float | None = None, T: float | None = None
) -> ControlProblem:
    """Maximise expected utility of consumption for ever (with rho) or of wealth at T (with T).

        dX = [r X + pi (mu - r) X - c] dt + pi sigma X dW,    U(y) = y^(1-gamma)/(1-gamma),  log y at gamma = 1
        with rho   E int_0^inf e^(-rho t) U(c) dt       V = k^-gamma U(w),  k = (rho - (1-gamma) g)/gamma,  c* = k w
        with T     E U(X_T)                             V = e^((1-gamma) g (T-t)) U(w)
        pi* = (mu - r)/(gamma sigma^2),    g = r + (mu - r)^2/(2 gamma sigma^2)

    and V = log(rho w)/rho + (g - rho)/rho^2, V = log w + g (T-t) at gamma = 1. Wealth stays positive under controls
    in proportion to it; an Euler path that loses all of it ends there with the utility of nothing (0 for gamma < 1,
    otherwise -inf). The minimiser seeks the fraction in [-F, F], F = 4 max(1, |pi*|), and consumption in (0, 20 k w]:
    the optimum is inside, and the maximum exists for a candidate V that is not concave, too.

    `Grid()` takes logarithmic axes so long that their ends do not matter. For r = .03, mu = .08, sigma = .2 and wealth
    in [.2, 5] its value is right to 1e-5 of itself, its fraction to 2e-5 and its consumption to 1e-5 money a year, for
    ever at a gamma from .5 to 10 (rho = .05; .1 at gamma = .5) and with T = 1.5 at a gamma from .5 to 5. With T = 10
    the value is right to 2e-4. Errors grow as k goes to 0 (V(1) by 9 % at gamma = .5, rho = .05) and where mu = r,
    which leaves no noise (by .8 % at gamma = 5, rho = .1).

    Args: r, mu, sigma: interest, mean return and volatility of the asset, per year. gamma: relative risk aversion.
        rho: rate of impatience, or T: years until the end; exactly one of them.
    State: wealth w > 0 (money). Controls: (fraction in the asset, consumption in money a year) with rho, (fraction,)
        with T.
    Raises: ValueError for sigma, gamma or T not positive, both or neither of rho and T, and k <= 0, where the problem
        is ill-posed: by waiting one can have any utility.
    Source: Merton 1969, "Lifetime portfolio selection under uncertainty: the continuous-time case".
    """
    for name, given in (("r", r), ("mu", mu)):
        if not math.isfinite(given):
            raise ValueError(f"{name} must be finite, got {given}")
    for name, given in (("sigma", sigma), ("gamma", gamma)):
        if not 0 < given < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {given}")
    if (rho is None) == (T is None):
        raise ValueError(f"exactly one of rho and T must be given, got rho = {rho} and T = {T}")
    if T is not None and not 0 < T < math.inf:
        raise ValueError(f"T must be positive and finite, got {T}")
    market = _Market(r, mu, sigma, gamma)
    if rho is None:
        assert T is not None
        problem, exact = _terminal(market, T)
    else:
        problem, exact = _lifetime(market, rho)
    arguments = {"r": r, "mu": mu, "sigma": sigma, "gamma": gamma, "rho": rho, "T": T}
    problem = replace(problem, arguments=arguments, grid=_grid(market, rho, T))
    return replace(problem, exact=replace(exact, problem=problem))


@dataclass(frozen=True)
class _Market:
    r: float
    mu: float
    sigma: float
    gamma: float

    @property
    def fraction(self) -> float:
        """pi* = (mu - r)/(gamma sigma^2)."""
        return (self.mu - self.r) / (self.gamma * self.sigma**2)

    @property
    def limit(self) -> float:
        return 4 * max(1.0, abs(self.fraction))

    @property
    def growth(self) -> float:
        """g = r + (mu - r)^2/(2 gamma sigma^2), the certain rate that is worth as much as the market."""
        return self.r + (self.mu - self.r) ** 2 / (2 * self.gamma * self.sigma**2)

    def rate(self, rho: float) -> float:
        """k = (rho - (1 - gamma) g)/gamma, the best rate of consumption."""
        return (rho - (1 - self.gamma) * self.growth) / self.gamma

    def utility(self, y: Tensor) -> Tensor:
        """U(y), with U(0) its limit and -inf below."""
        safe = torch.where(y > 0, y, 1.0)
        u = safe.log() if self.gamma == 1 else safe ** (1 - self.gamma) / (1 - self.gamma)
        nothing = torch.where((y == 0) & (self.gamma < 1), 0.0, -math.inf).to(y)
        return torch.where(y > 0, u, nothing)

    def best_fraction(self, w: Tensor, slope: Tensor, curvature: Tensor) -> Tensor:
        """Maximiser over |pi| <= limit of (mu - r) w V_w pi + sigma^2 w^2 V_ww pi^2/2."""
        gain, bend = (self.mu - self.r) * w * slope, self.sigma**2 * w**2 * curvature
        # pi = -(mu - r) V_w/(sigma^2 w V_ww)
        inner = (-gain / torch.where(bend < 0, bend, -1.0)).clamp(-self.limit, self.limit)
        return torch.where(bend < 0, inner, self.limit * torch.where(gain >= 0, 1.0, -1.0))

    def inputs(self, controls: int, x: Tensor) -> Tensor:
        """The input matrix at x: (mu - r) w for the fraction, -1 for consumption; (n, 1, controls)."""
        columns = [(self.mu - self.r) * x, torch.full_like(x, -1.0)]
        return torch.cat(columns[:controls], 1).unsqueeze(1)

    def problem(self, controls: int, **others: Any) -> ControlProblem:
        return ControlProblem(
            name="merton", dim=1, controls=controls, sense="max",
            drift=lambda x, t: self.r * x,
            control_matrix=lambda x, t: self.inputs(controls, x),
            dispersion=lambda x, t, u: self.sigma * u[:, :1] * x,
            controlled_noise=True,
            inside=lambda x: x[:, 0] > 0,
            initial=_starts,
            box=(torch.tensor([BOX[0]], dtype=torch.float64), torch.tensor([BOX[1]], dtype=torch.float64)),
            states=("wealth (money)",), **others,
        )  # fmt: skip


def _grid(market: _Market, rho: float | None, T: float | None) -> dict[str, Any]:
    """What `Grid()` takes: the box, longer by ratios `down` and `up`."""
    spread = abs(market.fraction) * market.sigma
    trend = market.r + market.fraction * (market.mu - market.r) - spread**2 / 2
    if rho is None:
        assert T is not None
        # about four standard deviations of log X_T
        down = up = math.exp(min(2 + 4 * spread * math.sqrt(T) + abs(trend) * T, 30.0))
        return {"points": 3201, "steps": 200, "domain": ([BOX[0] / down], [BOX[1] * up])}
    # the influence of the upper end dies out like (w/top)^(m - (1 - gamma)), where m > 0 solves
    # spread^2 m^2/2 + (trend - k) m - rho = 0; that of the lower end is gone after five or six powers of ten
    drift = trend - market.rate(rho)
    root = math.sqrt(drift**2 + 2 * spread**2 * rho)
    m = 2 * rho / (drift + root) if drift > 0 else (root - drift) / spread**2 if spread > 0 else math.inf
    fading = m - (1 - market.gamma)
    up = 10 ** min(max(6 / fading, 2.0), 12.0) if fading > 0 else 1e12
    down = 1e6 if market.gamma < 1 else 1e5
    return {"points": 8001, "domain": ([BOX[0] / down], [BOX[1] * up])}


def _starts(n: int, generator: torch.Generator | None) -> Tensor:
    device = None if generator is None else generator.device
    return torch.exp(0.3 * torch.randn(n, 1, generator=generator, device=device, dtype=torch.float64))


def _positive(x: Tensor) -> Tensor:
    if not bool((x > 0).all()):
        raise ValueError(f"wealth must be positive, got {x[x <= 0][0].item():g}")
    return x[:, 0]


def _terminal(market: _Market, T: float) -> tuple[ControlProblem, Solution]:
    limit = torch.full((1,), market.limit, dtype=torch.float64)
    problem = market.problem(
        1, horizon=float(T), bounds=(-limit, limit), actions=("fraction",),
        terminal_cost=lambda x: market.utility(x[:, 0]), exit_cost=lambda x, t: market.utility(x[:, 0].clamp_min(0.0)),
        minimiser=lambda x, t, p, M: market.best_fraction(x, p, M[:, :, 0]),
    )  # fmt: skip
    power, growth = 1 - market.gamma, market.growth

    def value(x: Tensor, t: Tensor) -> Tensor:
        w = _positive(x)
        if power == 0:
            # V = log w + g (T - t)
            return w.log() + growth * (T - t)
        # V = w^(1-gamma)/(1-gamma) e^((1-gamma) g (T - t))
        return w**power / power * torch.exp(power * growth * (T - t))

    def gradient(x: Tensor, t: Tensor) -> Tensor:
        # V_w = w^-gamma e^((1-gamma) g (T - t))
        return (_positive(x) ** -market.gamma * torch.exp(power * growth * (T - t))).unsqueeze(1)

    def control(x: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x, market.fraction)

    return problem, Solution(problem, "exact", value, gradient, control)


def _lifetime(market: _Market, rho: float) -> tuple[ControlProblem, Solution]:
    if not 0 <= rho < math.inf:
        raise ValueError(f"rho must be finite and not negative, got {rho}")
    power, growth = 1 - market.gamma, market.growth
    rate = market.rate(rho)
    if not rate > 0:
        raise ValueError(
            f"merton is ill-posed: its consumption rate k = {rate:.6g} must be positive; "
            f"rho must exceed {max(power * growth, 0.0):.6g}, got {rho:g}"
        )

    def minimiser(x: Tensor, t: Tensor, p: Tensor, M: Tensor) -> Tensor:
        # c = V_w^(-1/gamma), at most 20 k w
        least = (20 * rate * x.clamp_min(1e-300)) ** -market.gamma
        return torch.cat([market.best_fraction(x, p, M[:, :, 0]), torch.maximum(p, least) ** (-1 / market.gamma)], 1)

    problem = market.problem(
        2, control_cost=lambda x, u, t: market.utility(u[:, 1]), discount=float(rho), minimiser=minimiser,
        exit_cost=lambda x, t: market.utility(x[:, 0].clamp_min(0.0)), actions=("fraction", "consumption (money/year)"),
    )  # fmt: skip

    def value(x: Tensor, t: Tensor) -> Tensor:
        w = _positive(x)
        if power == 0:
            # V = log(rho w)/rho + (g - rho)/rho^2
            return (rho * w).log() / rho + (growth - rho) / rho**2
        # V = k^-gamma w^(1-gamma)/(1-gamma)
        return rate**-market.gamma * w**power / power

    def gradient(x: Tensor, t: Tensor) -> Tensor:
        # V_w = (k w)^-gamma
        return ((rate * _positive(x)) ** -market.gamma).unsqueeze(1)

    def control(x: Tensor, t: Tensor) -> Tensor:
        # c = k w, nothing where no wealth is left
        return torch.cat([torch.full_like(x, market.fraction), rate * x.clamp_min(0.0)], 1)

    return problem, Solution(problem, "exact", value, gradient, control)

"""Prices of options: a linear equation, one with an obstacle, and one in which nature chooses the volatility."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from hjbridge.hjb.problem import ControlProblem
from hjbridge.hjb.solution import Solution

Payoff = Callable[[Tensor], Tensor]


def european_option(
    strike: float, rate: float, volatility: float, maturity: float, kind: Literal["call", "put"]
) -> ControlProblem:
    """Price of a European call or put by Black and Scholes: nothing to decide, a linear equation.

        dX = r X dt + sigma X dW,    V_t + r x V_x + sigma^2 x^2 V_xx/2 - r V = 0
        call  x N(d1) - K e^(-r s) N(d2)      put  K e^(-r s) N(-d2) - x N(-d1)
        d1 = (log(x/K) + (r + sigma^2/2) s)/(sigma sqrt s),    d2 = d1 - sigma sqrt s,    s = maturity - t

    Args: strike: K (money). rate: r >= 0 a year. volatility: sigma, a year^(-1/2). maturity: years. kind: call or put.
    State: spot x > 0 (money). Time: years from 0 to maturity. Value: price (money), as sense is max.
    Raises: ValueError for strike, volatility or maturity not positive, a negative rate, another kind; the exact
        solution for a spot that is not positive.
    Source: Black and Scholes 1973, equation (13).
    """
    if kind not in ("call", "put"):
        raise ValueError(f"kind must be call or put, got {kind!r}")
    _check(strike=strike, volatility=volatility, maturity=maturity)
    sign = 1.0 if kind == "call" else -1.0
    problem = _market(
        "european_option", rate, volatility, maturity, (strike, strike),
        terminal_cost=lambda x: (sign * (x[:, 0] - strike)).clamp_min(0.0),
        dispersion=lambda x, t: volatility * x,
        arguments={"strike": strike, "rate": rate, "volatility": volatility, "maturity": maturity, "kind": kind},
    )  # fmt: skip

    def standard(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        # a time too short to matter stands for none: N(d1) and N(d2) are then the indicator of exercise
        short = maturity * torch.finfo(x.dtype).eps ** 2
        sd = volatility * (maturity - t).clamp_min(short).sqrt()
        d1 = ((_spot(x) / strike).log() + rate * (maturity - t)) / sd + sd / 2
        return d1, d1 - sd

    def value(x: Tensor, t: Tensor) -> Tensor:
        d1, d2 = standard(x, t)
        # V = +-[x N(+-d1) - K e^(-r s) N(+-d2)]
        bond = strike * torch.exp(-rate * (maturity - t))
        return sign * x[:, 0] * torch.special.ndtr(sign * d1) - sign * bond * torch.special.ndtr(sign * d2)

    def gradient(x: Tensor, t: Tensor) -> Tensor:
        # V_x = +-N(+-d1)
        return sign * torch.special.ndtr(sign * standard(x, t)[0]).unsqueeze(1)

    return replace(problem, exact=Solution(problem, "exact", value, gradient))


def american_put(strike: float, rate: float, volatility: float, maturity: float) -> ControlProblem:
    """Price of an American put: the right to sell at the strike at any time until maturity.

        max{ V_t + r x V_x + sigma^2 x^2 V_xx/2 - r V,  (K - x)^+ - V } = 0

    Args, state and time as in `european_option`. There is no closed form; `binomial_put` is a reference.
    Raises: ValueError for strike, volatility or maturity not positive, or a negative rate.
    Source: McKean 1965; Jaillet, Lamberton and Lapeyre 1990 for the variational inequality.
    """
    _check(strike=strike, volatility=volatility, maturity=maturity)
    return _market(
        "american_put", rate, volatility, maturity, (strike, strike),
        terminal_cost=lambda x: (strike - x[:, 0]).clamp_min(0.0),
        obstacle=lambda x, t: (strike - x[:, 0]).clamp_min(0.0),
        dispersion=lambda x, t: volatility * x,
        arguments={"strike": strike, "rate": rate, "volatility": volatility, "maturity": maturity},
    )  # fmt: skip


def uncertain_volatility(
    low: float, high: float, rate: float, maturity: float, payoff: Payoff, side: Literal["ask", "bid"]
) -> ControlProblem:
    """Highest (ask) or lowest (bid) price over every volatility between low and high.

        V_t + r x V_x - r V + max_{sigma in {low, high}} sigma^2 x^2 V_xx/2 = 0,    V(x, T) = payoff(x);  min for bid

    The extreme volatilities suffice, since the Hamiltonian is linear in sigma^2.

    Args: low, high: volatilities, a year^(-1/2). rate: r >= 0 a year. maturity: years. payoff: spot (n,) -> (n,), e.g.
        `butterfly`. side: ask (what hedges a sold option) or bid.
    State: spot (money). Control: (volatility,). Time: years from 0 to maturity.
    Raises: ValueError for low or maturity not positive, low > high, a negative rate, another side.
    Source: Avellaneda, Levy and Paras 1995; Lyons 1995.
    """
    if side not in ("ask", "bid"):
        raise ValueError(f"side must be ask or bid, got {side!r}")
    _check(low=low, high=high, maturity=maturity)
    if low > high:
        raise ValueError(f"low must not exceed high = {high:g}, got {low:g}")
    return _market(
        "uncertain_volatility", rate, high, maturity, _bends(payoff),
        controls=1, control_matrix=torch.zeros(1, 1, dtype=torch.float64),
        control_set=torch.tensor([[low], [high]], dtype=torch.float64),
        dispersion=lambda x, t, u: u * x, controlled_noise=True,
        terminal_cost=lambda x: payoff(x[:, 0]),
        sense="max" if side == "ask" else "min", actions=("volatility (1/sqrt(year))",),
        arguments={"low": low, "high": high, "rate": rate, "maturity": maturity, "payoff": payoff, "side": side},
    )  # fmt: skip


def butterfly(low: float, middle: float, high: float) -> Payoff:
    """Payoff of a tent over the spot: nothing outside [low, high], middle - low at the middle, straight between.

    Raises: ValueError unless 0 < low < middle < high.
    """
    if not 0 < low < middle < high < math.inf:
        raise ValueError(f"strikes must be positive and ascending, got {low}, {middle}, {high}")

    def payoff(spot: Tensor) -> Tensor:
        rise, fall = (spot - low) / (middle - low), (high - spot) / (high - middle)
        return (middle - low) * torch.minimum(rise, fall).clamp_min(0.0)

    return payoff


def _check(**given: float) -> None:
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")


def _market(
    name: str, rate: float, volatility: float, maturity: float, region: tuple[float, float], **others: Any
) -> ControlProblem:
    """A problem on one spot that drifts at the rate and is discounted by it; without control unless others say so."""
    if not 0 <= rate < math.inf:
        raise ValueError(f"rate must be finite and not negative, got {rate}")
    # six standard deviations and the drift to either side of where the payoff bends
    reach = math.exp(6 * volatility * math.sqrt(maturity) + rate * maturity)
    low, high = region

    def initial(n: int, generator: torch.Generator | None) -> Tensor:
        device = None if generator is None else generator.device
        part = torch.rand(n, 1, generator=generator, device=device, dtype=torch.float64)
        # uniform in log x, a fifth of the spot beyond where the payoff bends
        return 0.8 * low * (1.25 * high / (0.8 * low)) ** part

    settings: dict[str, Any] = {
        "controls": 0, "control_matrix": torch.zeros(1, 0, dtype=torch.float64), "sense": "max", **others
    }  # fmt: skip
    return ControlProblem(
        name=name, dim=1, drift=lambda x, t: rate * x, horizon=float(maturity), discount=float(rate), initial=initial,
        box=(torch.tensor([low / reach], dtype=torch.float64), torch.tensor([high * reach], dtype=torch.float64)),
        states=("spot (money)",), **settings,
    )  # fmt: skip


def _bends(payoff: Payoff) -> tuple[float, float]:
    """The lowest and the highest spot near which the payoff bends or jumps, to two per cent, between 1e-4 and 1e8."""
    spots = torch.logspace(-4, 8, 1401, dtype=torch.float64)
    values = payoff(spots)
    if values.shape != spots.shape or not bool(values.isfinite().all()):
        raise ValueError(f"payoff must map spots ({len(spots)},) to finite payments, got shape {tuple(values.shape)}")
    slope = values.diff() / spots.diff()
    bent = spots[1:-1][slope.diff().abs() > 1e-4 * slope.abs().max()]
    if len(bent) == 0:
        raise ValueError("payoff must not be linear in the spot: then no volatility matters")
    return bent[0].item(), bent[-1].item()


def _spot(x: Tensor) -> Tensor:
    if not bool((x > 0).all()):
        raise ValueError(f"spot must be positive, got {x[x <= 0][0].item():g}")
    return x[:, 0]

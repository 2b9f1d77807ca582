"""The binomial tree: an independent price of puts, which knows nothing of a differential equation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def binomial_put(
    spots: ArrayLike,
    strike: float,
    rate: float,
    volatility: float,
    maturity: float,
    steps: int,
    american: bool = True,
) -> NDArray[np.float64]:
    """Price of a put by one tree of Cox, Ross and Rubinstein for each spot, all of them at once.

        V_i = e^(-r h) (p V_up + (1 - p) V_down),  at least K - x if american;   h = maturity/steps
        up by u = e^(sigma sqrt h), down by 1/u,   p = (e^(r h) - 1/u)/(u - 1/u)

    The error falls like 1/steps and oscillates. Work is proportional to spots steps^2/2.

    Args: spots (n,), strike (money). rate: r a year. volatility: a year^(-1/2). maturity: years.
    Returns: prices (n,). Raises: ValueError for a spot, strike, volatility or maturity that is not positive, steps < 1,
        and steps so few that p is no probability.
    Source: Cox, Ross and Rubinstein 1979.
    """
    x = np.atleast_1d(np.asarray(spots, dtype=np.float64))
    for name, value in (("spots", x.min()), ("strike", strike), ("volatility", volatility), ("maturity", maturity)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    h = maturity / steps
    up = math.exp(volatility * math.sqrt(h))
    p = (math.exp(rate * h) - 1 / up) / (up - 1 / up)
    if not 0 < p < 1:
        least = (rate / volatility) ** 2 * maturity
        raise ValueError(f"steps must be more than (rate/volatility)^2 maturity = {least:.3g}, got {steps}")
    # K - x u^(2j - i) at step i after j moves up: every second entry of one table
    table = strike - np.exp(volatility * math.sqrt(h) * np.arange(-steps, steps + 1))[:, None] * x
    values = np.maximum(table[::2], 0.0)
    for i in range(steps - 1, -1, -1):
        values = math.exp(-rate * h) * (p * values[1:] + (1 - p) * values[:-1])
        if american:
            np.maximum(values, table[steps - i : steps + i + 1 : 2], out=values)
    return values[0]

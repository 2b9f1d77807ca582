"""American put by the integral equation of its exercise boundary: a truth that knows neither grid nor tree."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

NODES, REACH, STEP, SWEEPS = 32, 3.0, 0.1, 1000


def american_put_by_integral(spots, strike: float, rate: float, volatility: float, maturity: float) -> np.ndarray:
    """Prices (n,) today, to about 1e-7 of the strike.

        V = European put + r K int_0^T e^(-r a) N(-d2(a, x/b(T - a))) da
        b(s) = K e^(-r s) [N(d2(s, b/K)) + r int_0^s e^(r (s - a)) N(d2(a, b/b(s - a))) da] / N(d1(s, b/K))

    b(s), the boundary with s to go, is the fixed point of the second line, at Chebyshev points in sqrt(s), where
    log(b/K)^2 is interpolated; integrals by the double exponential rule. Source: Kim 1990; Andersen, Lake and
    Offengenden 2016, equation (3.5) and section 5.
    """
    z = -np.cos(np.pi * np.arange(NODES) / (NODES - 1))
    weight = (-1.0) ** np.arange(NODES)
    weight[[0, -1]] /= 2
    go = maturity * ((1 + z) / 2) ** 2
    # a = s y with y = 1/(1 + e^(-pi sinh k)): clusters at both ends
    k = np.arange(-REACH, REACH + STEP / 2, STEP)
    y = 1 / (1 + np.exp(-math.pi * np.sinh(k)))
    dy = STEP * math.pi * np.cosh(k) * y / (1 + np.exp(math.pi * np.sinh(k)))

    def d1(s, quotient):
        return (np.log(quotient) + (rate + volatility**2 / 2) * s) / (volatility * np.sqrt(s))

    def d2(s, quotient):
        return d1(s, quotient) - volatility * np.sqrt(s)

    def between(s, b):
        """The boundary b at the times to go s by barycentric interpolation."""
        gap = (2 * np.sqrt(s / maturity) - 1)[..., None] - z
        share = weight / np.where(np.abs(gap) < 1e-15, 1e-15, gap)
        square = (share @ np.log(b / strike) ** 2) / share.sum(-1)
        return strike * np.exp(-np.sqrt(np.maximum(square, 0)))

    s = go[1:]
    age = s[:, None] * y
    b = strike * (1 - 0.1 * np.sqrt(go / maturity))
    for _ in range(SWEEPS):
        ahead = between(s[:, None] - age, b)
        early = rate * (np.exp(rate * (s[:, None] - age)) * ndtr(d2(age, b[1:, None] / ahead))) @ dy * s
        new = strike * np.exp(-rate * s) * (ndtr(d2(s, b[1:] / strike)) + early) / ndtr(d1(s, b[1:] / strike))
        change = np.abs(new - b[1:]).max()
        b = np.append(strike, new)
        if change < 1e-12 * strike:
            break
    else:
        raise RuntimeError(
            f"the exercise boundary must converge in {SWEEPS} sweeps, the last changed it by {change:.1e}"
        )
    x, age = np.asarray(spots, dtype=float), maturity * y
    bond = strike * math.exp(-rate * maturity)
    european = bond * ndtr(-d2(maturity, x / strike)) - x * ndtr(-d1(maturity, x / strike))
    discounted = rate * strike * np.exp(-rate * age) * dy * maturity
    early = ndtr(-d2(age, x[:, None] / between(maturity - age, b))) @ discounted
    return np.where(x <= b[-1], strike - x, european + early)

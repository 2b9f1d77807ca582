"""One step of a stochastic differential equation from time t to time s, by four schemes.

Every scheme is a function step(sde, x, t, s, dw, dz) -> x at time s, for s > t or s < t:
x (n, ...); t and s 0-d; dw the increment of the Brownian motion, of variance |s - t|; dz = I_(1,0) / |s - t|, the mean
of the Brownian motion over the step less its start. dw and dz are None for an ordinary differential equation, dz also
for the schemes that do not use it. dw and dz have the shape of x, or (n, m) for a matrix dispersion, which is given as
(1, d, m) or (n, d, m) here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hjbridge.sde.equation import SDE
from hjbridge.sde.process import broadcast


def times(g: Tensor | float, dw: Tensor) -> Tensor:
    """Product g dW of a scalar, diagonal or matrix dispersion with an increment."""
    if not isinstance(g, Tensor) or g.ndim == 0:
        return g * dw
    if g.ndim == 1:
        return broadcast(g, dw) * dw
    g = g.to(dw.dtype)
    if g.ndim == 3 and dw.ndim == 2:
        return dw @ g[0].mT if len(g) == 1 else (g @ dw.unsqueeze(-1)).squeeze(-1)
    return g * dw


def euler(sde: SDE, x: Tensor, t: Tensor, s: Tensor, dw: Tensor | None, dz: Tensor | None = None) -> Tensor:
    """Euler-Maruyama: strong order 1/2, and 1 with additive noise (Kloeden and Platen 1992, section 10.2)."""
    # x + f dt + g dW
    ahead = x + sde.drift(x, t) * (s - t)
    return ahead if dw is None else ahead + times(sde.diffusion(x, t), dw)


def heun(sde: SDE, x: Tensor, t: Tensor, s: Tensor, dw: Tensor | None, dz: Tensor | None = None) -> Tensor:
    """Heun's trapezoid: order 2 without noise; strong order 1 with additive noise, 1/2 otherwise.

    The dispersion is taken at the start of the step alone, so the limit is Ito's. It needs the drift at both ends.
    """
    slope = sde.drift(x, t)
    noise = 0.0 if dw is None else times(sde.diffusion(x, t), dw)
    # x + (f(x, t) + f(x + f dt + g dW, s))/2 dt + g dW
    return x + (slope + sde.drift(x + slope * (s - t) + noise, s)) / 2 * (s - t) + noise


def rk4(sde: SDE, x: Tensor, t: Tensor, s: Tensor, dw: Tensor | None, dz: Tensor | None = None) -> Tensor:
    """Classical Runge-Kutta: order 4, ordinary differential equations only.

    Raises: ValueError if the dispersion is not zero.
    """
    if dw is not None and bool(torch.as_tensor(sde.diffusion(x, t) != 0).any()):
        raise ValueError(f"diffusion must be zero for method rk4, got a dispersion at t = {t.item():g}")
    h, middle = s - t, (t + s) / 2
    k1 = sde.drift(x, t)
    k2 = sde.drift(x + k1 * (h / 2), middle)
    k3 = sde.drift(x + k2 * (h / 2), middle)
    k4 = sde.drift(x + k3 * h, s)
    # x + (k1 + 2 k2 + 2 k3 + k4)/6 dt
    return x + (k1 + 2 * (k2 + k3) + k4) * (h / 6)


def taylor15(sde: SDE, x: Tensor, t: Tensor, s: Tensor, dw: Tensor | None, dz: Tensor | None = None) -> Tensor:
    """Stochastic Runge-Kutta of strong order 3/2 for additive noise, without derivatives; order 2 on ODEs.

    Scheme SRA1 (Roessler 2010, table 6.3). It agrees with the Ito-Taylor scheme of Kloeden and Platen 1992,
    section 10.4, to that order. Only for a dispersion that does not depend on x.
    """
    h = s - t
    slope = sde.drift(x, t)
    if dw is None or dz is None:
        # x + (f(x, t) + 2 f(x + 3/4 f dt, t + 3/4 dt))/3 dt
        return x + (slope + 2 * sde.drift(x + slope * (h * 3 / 4), t + h * 3 / 4)) * (h / 3)
    start, end = sde.diffusion(x, t), sde.diffusion(x, s)
    # y = x + 3/4 f dt + 3/2 g(s) dz
    inner = x + slope * (h * 3 / 4) + times(end, dz) * 1.5
    # x + (f(x, t) + 2 f(y, t + 3/4 dt))/3 dt + g(s) dW + (g(t) - g(s)) dz
    noise = times(end, dw - dz) + times(start, dz)
    return x + (slope + 2 * sde.drift(inner, t + h * 3 / 4)) * (h / 3) + noise

"""Measured order of every scheme: slope of log2 error against log2 step, on one Brownian path refined in halves."""

import math

import pytest
import torch

from hjbridge.sde import SDE, integrate
from hjbridge.sde.integrate import METHODS

PATHS, FINEST = 2000, 10
LEVELS = {"geometric": (5, 6, 7, 8), "additive": (4, 5, 6, 7), "ordinary": (3, 4, 5, 6)}


def brownian():
    """{level: (dw, dz)} of one set of Brownian paths on [0, 1] in 2^level steps; dz is the mean of W less its start."""
    generator, n = torch.Generator().manual_seed(0), 2**FINEST
    dw, xi = (torch.randn(n, PATHS, 1, generator=generator, dtype=torch.float64) / math.sqrt(n) for _ in range(2))
    dz, out = (dw + xi / math.sqrt(3)) / 2, {}
    for level in range(FINEST, 3, -1):
        out[level] = (dw, dz)
        # two steps into one: increments add; the mean is that of the first half and of the second, lifted by dW
        dz = (dz[0::2] + dw[0::2] + dz[1::2]) / 2
        dw = dw[0::2] + dw[1::2]
    return out


def run(method, sde, x, level, noise, descending=False):
    grid = torch.linspace(0, 1, 2**level + 1, dtype=torch.float64)
    grid = grid.flip(0) if descending else grid
    for i in range(2**level):
        dw, dz = (None, None) if noise is None else (noise[level][0][i], noise[level][1][i])
        x = METHODS[method](sde, x, grid[i], grid[i + 1], dw, dz)
    return x


def wave(x, t):
    return torch.sin(3 * x) - x + t


def growing(x, t):
    return 0.5 + t


GEOMETRIC = SDE(lambda x, t: 0.5 * x, lambda x, t: 0.8 * x)
ADDITIVE = SDE(wave, growing)
ORDINARY = SDE(wave)

#: method, equation, order, allowed deviation
ORDERS = [
    ("euler", "geometric", 0.5, 0.06),
    ("heun", "geometric", 0.5, 0.06),
    ("euler", "additive", 1.0, 0.1),
    ("heun", "additive", 1.0, 0.12),
    ("taylor15", "additive", 1.5, 0.12),
    ("euler", "additive, descending", 1.0, 0.1),
    ("taylor15", "additive, descending", 1.5, 0.12),
    ("euler", "ordinary", 1.0, 0.1),
    ("heun", "ordinary", 2.0, 0.1),
    ("taylor15", "ordinary", 2.0, 0.15),
    ("rk4", "ordinary", 4.0, 0.15),
    ("rk4", "ordinary, descending", 4.0, 0.2),
]


@pytest.fixture(scope="module")
def noise():
    return brownian()


@pytest.mark.parametrize(("method", "equation", "order", "band"), ORDERS)
def test_order(method, equation, order, band, noise):
    down, levels = equation.endswith("descending"), LEVELS[equation.split(",")[0]]
    if equation == "geometric":
        x, sde = torch.ones(PATHS, 1, dtype=torch.float64), GEOMETRIC
        exact = torch.exp((0.5 - 0.8**2 / 2) + 0.8 * noise[FINEST][0].sum(0))
    elif equation.startswith("additive"):
        x, sde = torch.full((PATHS, 1), 0.3, dtype=torch.float64), ADDITIVE
        exact = run("taylor15", sde, x, FINEST, noise, down)
    else:
        x, sde, noise = torch.linspace(-2, 2, 50, dtype=torch.float64)[:, None], ORDINARY, None
        exact = run("rk4", sde, x, FINEST, None, down)
    errors = torch.stack([(run(method, sde, x, k, noise, down) - exact).square().mean().sqrt() for k in levels])
    measured = (errors.log2()[:-1] - errors.log2()[1:]).mean().item()
    assert measured == pytest.approx(order, abs=band), f"errors {errors.tolist()}"


@pytest.mark.parametrize(("method", "order"), [("euler", 1.0), ("heun", 1.0), ("taylor15", 2.0)])
def test_integrate_has_the_order_of_its_scheme(method, order):
    # dX = (b/sqrt(1+t) - X/(2(1+t))) dt + a b/sqrt(1+t) dW has X = (X_0 + b (t + a W))/sqrt(1+t);
    # what limits SRA1 to 3/2 is the curvature of the drift in x, and a linear drift has none
    a, b, levels = 0.6, 1.5, LEVELS["additive"]
    sde = SDE(lambda x, t: b / (1 + t).sqrt() - x / (2 * (1 + t)), lambda x, t: a * b / (1 + t).sqrt())
    x, errors = torch.full((4000, 1), 0.7, dtype=torch.float64), []
    for level in levels:
        grid = torch.linspace(0, 1, 2**level + 1, dtype=torch.float64)
        path = integrate(sde, x, grid, method, torch.Generator().manual_seed(level), record=True)
        exact = (x + b * (1 + a * path.noises.sum(0))) / math.sqrt(2)
        errors.append((path.x - exact).square().mean().sqrt().item())
    measured = math.log2(errors[0] / errors[-1]) / (levels[-1] - levels[0])
    assert measured == pytest.approx(order, abs=0.12), errors

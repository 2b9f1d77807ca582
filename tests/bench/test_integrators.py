"""Schemes of `integrate` against torchsde on the same Brownian path and against torchdiffeq on the same grid."""

import math

import pytest
import torch

from hjbridge.sde import SDE, integrate
from hjbridge.sde.integrate import METHODS

pytestmark = pytest.mark.bench

STEPS, N, D, M = 64, 16, 2, 3
GRID = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
MATRIX = torch.tensor([[0.5, -0.2, 0.1], [0.3, 0.4, -0.6]], dtype=torch.float64)


def drift(x, t):
    return torch.sin(3 * x.flip(-1) + t) - x


class Recorded:
    """A Brownian motion for torchsde that gives back recorded increments dW and, on request, their time integrals."""

    def __init__(self, dw, dz=None, area="none"):
        self.dw, self.dz = dw, dz
        self.shape, self.dtype, self.device, self.levy_area_approximation = dw.shape[1:], dw.dtype, dw.device, area

    def __call__(self, ta, tb, return_U=False, return_A=False):
        i = round(float(ta) * STEPS)
        return (self.dw[i], self.dz[i] / STEPS) if return_U else self.dw[i]


class Equation(torch.nn.Module):
    """dX = drift dt + g dW as torchsde wants it."""

    sde_type = "ito"

    def __init__(self, noise_type, g):
        super().__init__()
        self.noise_type, self.dispersion = noise_type, g

    def f(self, t, x):
        return drift(x, t)

    def g(self, t, x):
        return self.dispersion(x, t)


def theirs(noise_type, g, x, motion, method):
    import torchsde

    return torchsde.sdeint(Equation(noise_type, g), x, GRID, bm=motion, method=method, dt=1 / STEPS)


@pytest.fixture
def start(generator):
    return torch.randn(N, D, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("kind", ["diagonal", "scalar", "matrix"])
def test_euler_is_torchsdes_at_equal_increments(start, generator, kind):
    ours, noise_type, g = {
        "diagonal": (lambda x, t: 0.3 * x + t, "diagonal", lambda x, t: 0.3 * x + t),
        "scalar": (lambda x, t: 0.5 + t, "diagonal", lambda x, t: (0.5 + t) * torch.ones_like(x)),
        "matrix": (lambda x, t: MATRIX * (1 + t), "general", lambda x, t: (MATRIX * (1 + t)).expand(len(x), D, M)),
    }[kind]
    path = integrate(SDE(drift, ours), start, GRID, "euler", generator, record=True)
    assert path.noises.shape == (STEPS, N, M if kind == "matrix" else D)
    assert path.noises.var().item() * STEPS == pytest.approx(1, rel=5 * math.sqrt(2 / path.noises.numel()))
    states = theirs(noise_type, g, start, Recorded(path.noises), "euler")
    torch.testing.assert_close(path.states, states, rtol=1e-12, atol=1e-12)


def test_taylor15_is_torchsdes_srk_for_additive_noise(start, generator, monkeypatch):
    """Both are SRA1; torchsde's U is the integral of W - W(start), our dz its mean over the step."""
    dz, step = [], METHODS["taylor15"]

    def recording(sde, x, t, s, dw, z):
        dz.append(z)
        return step(sde, x, t, s, dw, z)

    monkeypatch.setitem(METHODS, "taylor15", recording)
    path = integrate(SDE(drift, lambda x, t: MATRIX * (1 + t)), start, GRID, "taylor15", generator, record=True)
    motion = Recorded(path.noises, torch.stack(dz), area="space-time")
    states = theirs("additive", lambda x, t: (MATRIX * (1 + t)).expand(len(x), D, M), start, motion, "srk")
    torch.testing.assert_close(path.states, states, rtol=1e-12, atol=1e-12)
    # and dz has the law that torchsde draws: variance |dt|/3, covariance |dt|/2 with dW
    dw, dz = path.noises.flatten(), torch.stack(dz).flatten()
    error = 5 / math.sqrt(len(dw))
    assert (dz * dz).mean().item() * STEPS == pytest.approx(1 / 3, abs=error)
    assert (dw * dz).mean().item() * STEPS == pytest.approx(1 / 2, abs=error)


@pytest.mark.parametrize(("method", "peer"), [("euler", "euler"), ("heun", "heun2")])
def test_schemes_without_noise_are_those_of_torchdiffeq(start, method, peer):
    import torchdiffeq

    states = torchdiffeq.odeint(lambda t, x: drift(x, t), start, GRID, method=peer)
    path = integrate(SDE(drift), start, GRID, method, record=True)
    torch.testing.assert_close(path.states, states, rtol=1e-12, atol=1e-12)


def test_rk4_is_torchdiffeqs_on_a_linear_equation(start):
    """torchdiffeq's rk4 is the 3/8 rule; for x' = A x every method of order 4 in 4 stages is the same."""
    import torchdiffeq

    a = torch.tensor([[-0.3, 2.0], [-2.0, -0.1]], dtype=torch.float64)
    states = torchdiffeq.odeint(lambda t, x: x @ a.T, start, GRID, method="rk4")
    path = integrate(SDE(lambda x, t: x @ a.T), start, GRID, "rk4", record=True)
    torch.testing.assert_close(path.states, states, rtol=1e-12, atol=1e-12)


def test_rk4_converges_to_dopri5(start):
    import torchdiffeq

    exact = torchdiffeq.odeint(lambda t, x: drift(x, t), start, GRID[[0, -1]], rtol=1e-11, atol=1e-11)[-1]
    x = integrate(SDE(drift), start, GRID, "rk4").x
    torch.testing.assert_close(x, exact, rtol=0, atol=1e-6)

"""The loop around the schemes: noise, direction, record, gradients, types."""

import math

import pytest
import torch

from hjbridge.sde import EDM, SDE, VP, GaussianMixture, forward, integrate, reverse
from hjbridge.sde.integrate import METHODS

GRID = torch.tensor([0.0, 0.1, 0.35, 0.5, 1.0], dtype=torch.float64)
X = torch.tensor([[0.5, -1.0], [2.0, 0.3], [0.1, 0.2]], dtype=torch.float64)


def ornstein(x, t):
    return -x * (1 + t)


KINDS = {
    "scalar": lambda x, t: 0.3 + t,
    "scalar of each sample": lambda x, t: x[:, 0] * 0 + t,
    "diagonal": lambda x, t: torch.full_like(x, 0.2) * (1 + t),
    "matrix": lambda x, t: torch.tensor([[1.0, 0.2, 0.0], [0.0, 0.5, 1.0]], dtype=x.dtype) * (1 + t),
    "matrix of each sample": lambda x, t: torch.ones(len(x), 2, 4, dtype=x.dtype) * (1 + t),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["euler", "heun", "taylor15"])
@pytest.mark.parametrize("grid", [GRID, GRID.flip(0)], ids=["ascending", "descending"])
def test_recorded_noise_replays_the_path(kind, method, grid):
    sde = SDE(ornstein, KINDS[kind])
    path = integrate(sde, X, grid, method, torch.Generator().manual_seed(0), record=True)
    m = {"matrix": 3, "matrix of each sample": 4}.get(kind, 2)
    assert path.states.shape == (5, 3, 2) and path.noises.shape == (4, 3, m) and torch.equal(path.grid, grid)
    assert torch.equal(path.states[0], X) and torch.equal(path.states[-1], path.x)
    # the generator's normals, scaled by sqrt |dt|, are the increments: dW first, then what dz needs
    generator, lift = torch.Generator().manual_seed(0), {"matrix": lambda x, t: KINDS[kind](x, t)[None]}
    step = SDE(ornstein, lift.get(kind, KINDS[kind]))
    for i in range(4):
        root = (grid[i + 1] - grid[i]).abs().sqrt()
        dw, dz = root * torch.randn(3, m, generator=generator, dtype=torch.float64), None
        if method == "taylor15":
            dz = dw / 2 + root / math.sqrt(12) * torch.randn(3, m, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(path.noises[i], dw, rtol=1e-14, atol=1e-14)
        replayed = METHODS[method](step, path.states[i], grid[i], grid[i + 1], dw, dz)
        torch.testing.assert_close(path.states[i + 1], replayed, rtol=1e-13, atol=1e-13)
    short = integrate(sde, X, grid, method, torch.Generator().manual_seed(0))
    assert torch.equal(short.x, path.x) and short.states is None and short.noises is None


def test_noise_has_its_moments():
    # from 0 to 1 in one step, drift 0 and dispersion t: SRA1 gives X = dW - dz, Euler from 1 to 0 gives -> dW
    sde, x = SDE(lambda x, t: 0 * x, lambda x, t: t), torch.zeros(200_000, 1, dtype=torch.float64)
    path = integrate(sde, x, [0.0, 1.0], "taylor15", torch.Generator().manual_seed(0), record=True)
    dw = path.noises[0, :, 0]
    dz = dw - path.x[:, 0]
    moments = torch.stack([dw, dz]).cov()
    torch.testing.assert_close(
        moments, torch.tensor([[1, 1 / 2], [1 / 2, 1 / 3]], dtype=torch.float64), rtol=0, atol=0.01
    )
    sde = SDE(lambda x, t: 0 * x, lambda x, t: 3.0)
    down = integrate(sde, x, [1.0, 0.8, 0.5], generator=torch.Generator().manual_seed(1))
    assert down.x.var().item() == pytest.approx(9 * 0.5, rel=0.015)


def test_ordinary_equation_draws_nothing():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    for method, error in (("euler", 0.2), ("heun", 1e-2), ("rk4", 1e-4), ("taylor15", 1e-2)):
        path = integrate(SDE(ornstein), X, torch.linspace(0, 1, 21), method, generator, record=True)
        torch.testing.assert_close(path.x, X * math.exp(-1.5), rtol=error, atol=0)
        assert path.noises is None and path.states.shape == (21, 3, 2)
    assert torch.equal(generator.get_state(), before)
    # a dispersion that is zero is an ordinary equation too
    silent = SDE(ornstein, lambda x, t: torch.zeros(()))
    assert torch.equal(integrate(silent, X, GRID, "rk4").x, integrate(SDE(ornstein), X, GRID, "rk4").x)


def test_forward_equation_reaches_the_marginal():
    mixture = GaussianMixture([0.5, 0.5], [[-1.0], [1.5]], [[[0.1]], [[0.3]]])
    generator = torch.Generator().manual_seed(0)
    grid = torch.linspace(0, 0.5, 101, dtype=torch.float64)
    path = integrate(forward(VP()), mixture.sample(40_000, generator), grid, "heun", generator)
    marginal = mixture.marginal(VP(), 0.5)
    assert path.x.mean().item() == pytest.approx(marginal.mean.item(), abs=0.02)
    assert path.x.var().item() == pytest.approx(marginal.covariance.item(), rel=0.03)


@pytest.mark.parametrize("method", METHODS)
def test_graph_only_where_an_input_requires_one(method):
    sde = SDE(lambda x, t: -x * x, lambda x, t: 0.0 if method == "rk4" else 0.5)

    def final(x, grid):
        return integrate(sde, x, grid, method, torch.Generator().manual_seed(0)).x

    assert not final(X, GRID).requires_grad
    assert torch.autograd.gradcheck(final, (X.clone().requires_grad_(), GRID.clone().requires_grad_()))
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    path = integrate(SDE(lambda x, t: weight * x), X, GRID, method, record=True)
    assert path.x.requires_grad and path.states.requires_grad


def test_type_and_shape_follow_x():
    images = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    path = integrate(forward(EDM()), images, GRID, generator=torch.Generator().manual_seed(0))
    assert path.x.dtype == torch.float32 and path.x.shape == images.shape
    path = integrate(
        reverse(EDM(), lambda x, t: -x), images, GRID.flip(0)[1:], generator=torch.Generator().manual_seed(0)
    )
    assert path.x.dtype == torch.float32
    line = integrate(SDE(lambda x, t: -x, lambda x, t: x), torch.ones(5), [0, 1, 3])
    assert line.x.shape == (5,) and line.grid.tolist() == [0, 1, 3]
    matrix = SDE(ornstein, lambda x, t: torch.eye(2, dtype=torch.float64))
    assert integrate(matrix, X.float(), GRID).x.dtype == torch.float32


def test_input_is_left_as_it_was_and_calls_are_counted():
    x, calls = X.clone(), []

    def drift(y, t):
        calls.append(t.item())
        return y  # the state itself, which no scheme may change

    path = integrate(SDE(drift, lambda y, t: 1.0), x, GRID, record=True)
    assert torch.equal(x, X) and calls == GRID[:-1].tolist()
    torch.testing.assert_close(path.states[1], X * 1.1 + path.noises[0])
    calls.clear()
    integrate(SDE(drift), x, GRID, "rk4")
    assert calls[:4] == pytest.approx([0, 0.05, 0.05, 0.1]) and len(calls) == 16

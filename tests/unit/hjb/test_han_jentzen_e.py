"""The 100-dimensional benchmark: its quadrature against another one, over the non-central chi-square distribution."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, special

from hjbridge.hjb import Grid, hjb_residual, load, simulate, solve
from hjbridge.hjb.problems import han_jentzen_e

CASES = [(1, 1.0), (3, 0.05), (10, 1.0), (10, 50.0), (100, 1.0), (100, 10.0), (100, 50.0)]
each_case = pytest.mark.parametrize(("d", "lam"), CASES)


def points(d, n=4):
    generator = torch.Generator().manual_seed(d)
    x = 1.5 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, 0.02 + 0.95 * torch.rand(n, generator=generator, dtype=torch.float64)


def moment(d, centre, tau, lam):
    """E[(2/(1 + |X|^2))^lam] by adaptive quadrature in r = |X|/sqrt(2 tau), whose square is non-central chi-square."""
    mu = math.sqrt(centre / (2 * tau))

    def integrand(r):
        density = r * (r / mu) ** (d / 2 - 1) * np.exp(-((r - mu) ** 2) / 2) * special.ive(d / 2 - 1, mu * r)
        return (2 / (1 + 2 * tau * r**2)) ** lam * density

    middle = math.sqrt(d + mu**2)
    ends = np.unique(np.clip(middle + np.array([-math.inf, -14, -9, -6, -4, -2, 0, 2, 4, 12]), 1e-12, None))
    return sum(integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in itertools.pairwise(ends))


@pytest.mark.parametrize(
    ("d", "lam", "expected"),
    [
        (100, 1.0, 4.590161724604863),
        (100, 10.0, 4.4929294913),
        (100, 50.0, 3.7241759228),
        (10, 1.0, 2.1570224648),
        (250, 1.0, 5.5154591700),
        (1000, 1.0, 6.9062551579),
    ],
)
def test_value_at_the_origin(d, lam, expected):
    problem = han_jentzen_e(d, lam)
    assert problem.exact.value(problem.initial(1, None), 0).item() == pytest.approx(expected, abs=1e-10)


@each_case
def test_value_and_gradient_against_another_quadrature(d, lam):
    problem = han_jentzen_e(d, lam)
    x, t = points(d)
    value, gradient = problem.exact.value(x, t), problem.exact.gradient(x, t)
    for i in range(len(x)):
        centre, tau = x[i].square().sum().item(), 1 - t[i].item()
        mean, wider = moment(d, centre, tau, lam), moment(d + 2, centre, tau, lam)
        assert value[i].item() == pytest.approx(-math.log(mean) / lam, abs=1e-9)
        # the density of chi'^2(d, nc) has the derivative (density of d + 2 - density of d)/2 in nc
        slope = -(wider - mean) / (2 * tau * lam * mean)
        torch.testing.assert_close(gradient[i], slope * x[i], rtol=1e-9, atol=1e-10)


@each_case
def test_equation_holds(d, lam):
    problem = han_jentzen_e(d, lam)
    x, t = points(d, 8)
    residual, terms = hjb_residual(problem, problem.exact.value, x, t, terms=True)
    assert (residual.abs() / terms.scale()).max() < 1e-12
    assert (terms.time.abs() > 1e-3 * terms.scale()).any()


@pytest.mark.parametrize(("d", "lam"), CASES[::2])
def test_end(d, lam):
    problem = han_jentzen_e(d, lam)
    x = torch.cat((points(d)[0], torch.zeros(1, d, dtype=torch.float64)))
    size = x.square().sum(1, keepdim=True)
    torch.testing.assert_close(problem.exact.value(x, 1.0), torch.log((1 + size[:, 0]) / 2), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(problem.exact.gradient(x, 1), 2 * x / (1 + size), rtol=1e-12, atol=1e-12)
    assert hjb_residual(problem, problem.exact.value, x, 1.0).abs().max() < 1e-10 * d


def test_control_is_the_optimal_one():
    problem = han_jentzen_e(3, 4.0)
    x, t = points(3)
    torch.testing.assert_close(problem.exact.control(x, t), -2 * problem.exact.gradient(x, t))
    start, grid = problem.initial(2000, None), torch.linspace(0, 1, 101, dtype=torch.float64)
    path = simulate(problem, problem.exact.control, start, grid, torch.Generator().manual_seed(0))
    assert path.cost.mean().item() == pytest.approx(problem.exact.value(start[:1], 0.0).item(), abs=0.05)


# value at the origin, and rms error of the gradient relative to its rms size
@pytest.mark.parametrize(
    ("d", "lam", "value", "slope"),
    [(1, 1.0, 1e-5, 1e-4), (1, 10.0, 1e-4, 4e-4), (1, 50.0, 1e-4, 6e-4), (2, 10.0, 4e-4, 2e-4),
     (2, 50.0, 3e-4, 1e-3), (3, 10.0, 2e-3, 2e-3)],
)  # fmt: skip
def test_the_grid_of_its_own_is_accurate(d, lam, value, slope):
    problem = han_jentzen_e(d, lam)
    found, x = solve(problem, Grid()), points(d, 200)[0].clamp(-3, 3)
    assert found.meta["scheme"] == "central" and found.domain[1].tolist() == [6.0] * d
    start = problem.initial(1, None)
    assert found.value(start).item() == pytest.approx(problem.exact.value(start).item(), abs=value)
    error = found.gradient(x) - problem.exact.gradient(x)
    assert (error.norm() / problem.exact.gradient(x).norm()).item() < slope
    later = found.gradient(x, 0.9) - problem.exact.gradient(x, 0.9)
    assert (later.norm() / problem.exact.gradient(x, 0.9).norm()).item() < {1: 3e-3, 2: 6e-3, 3: 3e-2}[d]


def test_without_a_grid_of_its_own_in_more_dimensions():
    assert not han_jentzen_e(4, 1.0).grid


def test_far_away_and_many_dimensions_stay_finite():
    problem = han_jentzen_e(300, 0.01)
    x = torch.stack((torch.zeros(300), torch.full((300,), 1e4))).double()
    value = problem.exact.value(x, 0.0)
    assert value[1].item() == pytest.approx(math.log(300e8 / 2), rel=1e-9)
    assert problem.exact.gradient(x, 0.0).isfinite().all()


def test_single_precision_and_the_rest_of_a_batch_change_nothing():
    problem = han_jentzen_e(10, 1.0)
    x, t = points(10)
    alone = torch.cat([problem.exact.value(x[i : i + 1], t[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(problem.exact.value(x, t), alone, rtol=1e-14, atol=0)
    single = problem.exact.value(x.float(), t.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), alone, rtol=1e-6, atol=0)


def test_saved_and_loaded(tmp_path):
    problem = han_jentzen_e(d=4, lam=2.0)
    again = load(problem.exact.save(tmp_path / "exact"))
    x, t = points(4)
    assert torch.equal(again.value(x, t), problem.exact.value(x, t))


@pytest.mark.parametrize("d", [0, -1, 2.0])
def test_refuses_dimensions(d):
    with pytest.raises(ValueError, match="d must be a positive integer, got"):
        han_jentzen_e(d, 1.0)


@pytest.mark.parametrize("lam", [0.0, -1.0, math.nan, math.inf])
def test_refuses_lam(lam):
    with pytest.raises(ValueError, match="lam must be positive and finite, got"):
        han_jentzen_e(2, lam)


def test_refuses_nan_and_times_after_the_end():
    exact = han_jentzen_e(2, 1.0).exact
    with pytest.raises(ValueError, match="x must be finite, got NaN"):
        exact.value(torch.full((1, 2), math.nan).double(), 0.0)
    with pytest.raises(ValueError, match=r"t must lie in \[0, 1\], got 1.3"):
        exact.value(torch.zeros(1, 2).double(), 1.3)

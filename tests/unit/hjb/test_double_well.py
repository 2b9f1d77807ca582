"""The double well against the spectrum of a reversible lattice, and the variance of its path integral."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import eigh_tridiagonal

from hjbridge.hjb import hjb_residual, hopf_cole_estimate, load, simulate
from hjbridge.hjb.problems import double_well

OTHER = {"depth": 1.5, "noise": 0.9, "horizon": 0.6, "price": 0.7, "wave": 0.5, "pull": 1.2, "target": 0.6}
PLACES = (0.0, -0.96, 0.64)


@pytest.fixture(scope="module")
def problem():
    return double_well()


def lattice_value(s, steps, depth=1.0, noise=0.7, horizon=1.0, price=1.0, wave=0.3, pull=2.0, target=1.0):
    """V at PLACES and the time to go s: jumps between neighbours at rates that keep e^(-2 U/noise^2), second order."""
    x = np.linspace(-3.2, 3.2, steps + 1)
    U, D, lam = depth * (x**4 / 4 - x**2 / 2), noise**2 / 2, price * noise**2
    h = x[1] - x[0]
    up = np.append(D / h**2 * np.exp(-np.diff(U) / (2 * D)), 0)
    down = np.append(0, D / h**2 * np.exp(np.diff(U) / (2 * D)))
    values, vectors = eigh_tridiagonal(-up - down - wave * np.cos(2 * x) / lam, np.full(steps, D / h**2))
    z = x - target
    scale = np.exp(-U / (2 * D))
    psi = vectors @ (np.exp(s * values) * (vectors.T @ (scale * np.exp(-pull * z**2 / (1 + z**2 / 5) / lam)))) / scale
    return -lam * np.log(psi[[round((place + 3.2) / h) for place in PLACES]])


def extrapolated(s, **given):
    a, b, c = (lattice_value(s, steps, **given) for steps in (160, 320, 640))
    d, e = b + (b - a) / 3, c + (c - b) / 3
    return e + (e - d) / 15


def test_value_against_a_reversible_lattice(problem):
    x = torch.tensor(PLACES, dtype=torch.float64).unsqueeze(1)
    assert problem.exact.value(x, 0.0)[0].item() == pytest.approx(0.760909193236, abs=1e-11)
    for t in (0.0, 0.7):
        np.testing.assert_allclose(problem.exact.value(x, t), extrapolated(1 - t), rtol=0, atol=2e-8)
    other = double_well(**OTHER)
    np.testing.assert_allclose(other.exact.value(x, 0.1), extrapolated(0.5, **OTHER), rtol=0, atol=2e-8)


def test_equation_holds_in_the_box(problem):
    generator = torch.Generator().manual_seed(0)
    x = 5 * torch.rand(2000, 1, generator=generator, dtype=torch.float64) - 2.5
    t = torch.rand(2000, generator=generator, dtype=torch.float64) ** 2
    # of second derivatives of a polynomial; processors round differently, 7e-11 to 1.4e-10 were seen
    for times in (t, 0.0, 1.0):
        residual, terms = hjb_residual(problem, problem.exact.value, x, times, terms=True)
        assert (residual.abs() / terms.scale()).max() < 4e-10
    torch.testing.assert_close(problem.exact.value(x, 1.0), problem.terminal_cost(x), rtol=0, atol=1e-12)


def test_equation_holds_at_a_small_noise():
    small = double_well(noise=0.3)
    generator, end = torch.Generator().manual_seed(0), small.box[1].item()
    x = (2 * torch.rand(300, 1, generator=generator, dtype=torch.float64) - 1) * end
    for times in (torch.rand(300, generator=generator, dtype=torch.float64), 0.0, 1.0):
        residual, terms = hjb_residual(small, small.exact.value, x, times, terms=True)
        assert (residual.abs() / terms.scale()).max() < 2e-10


def test_derivatives_are_those_of_the_value(problem):
    x, h = torch.linspace(-2.4, 2.4, 9, dtype=torch.float64).unsqueeze(1), 1e-4
    # 0.390625 and 0.765625 are ends of panels of time
    t = torch.tensor([0.0, 0.1, 0.2, 0.390625, 0.5, 0.6, 0.765625, 0.95, 0.99], dtype=torch.float64) * (1 - 2 * h) + h
    central = (problem.exact.value(x + h, t) - problem.exact.value(x - h, t)) / (2 * h)
    torch.testing.assert_close(problem.exact.gradient(x, t)[:, 0], central, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(problem.exact.control(x, t), -problem.exact.gradient(x, t))
    rate = (problem.exact.value(x, t + h / 10) - problem.exact.value(x, t - h / 10)) / (h / 5)
    _, terms = hjb_residual(problem, problem.exact.value, x, t, terms=True)
    torch.testing.assert_close(terms.time, rate, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("share", "steps", "expected", "tolerance"), [(0.0, 40, 0.34, 0.05), (0.5, 40, 0.72, 0.04)])
def test_effective_sample_size(problem, share, steps, expected, tolerance):
    estimate = sampled(problem, share, steps)
    assert estimate.ess.item() == pytest.approx(expected, abs=tolerance)
    assert estimate.value.item() == pytest.approx(0.7609, abs=4 * estimate.stderr.item() + 0.015)


def test_variance_under_the_optimal_control_is_of_first_order(problem):
    # ess = 1/(1 + var w), and N var(ln w) -> 1.26
    assert 25 * (1 / sampled(problem, 1.0, 25).ess.item() - 1) == pytest.approx(1.3, abs=0.15)
    fine = sampled(problem, 1.0, 150)
    assert fine.ess.item() > 0.99
    assert 150 * (1 / fine.ess.item() - 1) == pytest.approx(1.26, abs=0.15)
    assert fine.value.item() == pytest.approx(0.7609, abs=0.01)


def sampled(problem, share, steps):
    start, grid = torch.zeros(1000, 1, dtype=torch.float64), torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    control = (lambda x, t: share * problem.exact.control(x, t)) if share else lambda x, t: torch.zeros_like(x)
    return hopf_cole_estimate(problem, simulate(problem, control, start, grid, torch.Generator().manual_seed(1)))


def test_saved_and_loaded(tmp_path):
    problem = double_well(noise=0.8, target=-0.5)
    x = problem.initial(5, torch.Generator())
    assert torch.equal(load(problem.exact.save(tmp_path / "exact")).value(x, 0.2), problem.exact.value(x, 0.2))


def test_refuses_states_outside_the_box(problem):
    with pytest.raises(ValueError, match=r"x must lie in \[-2.5, 2.5\], got 2.6"):
        problem.exact.value(torch.tensor([[0.0], [2.6]], dtype=torch.float64), 0.0)
    with pytest.raises(ValueError, match="x must be finite"):
        problem.exact.value(torch.tensor([[math.nan]], dtype=torch.float64), 0.0)


@pytest.mark.parametrize("name", ["depth", "noise", "horizon", "price"])
@pytest.mark.parametrize("number", [0.0, -1.0, math.nan, math.inf])
def test_refuses_numbers_that_must_be_positive(name, number):
    with pytest.raises(ValueError, match=f"{name} must be positive and finite, got"):
        double_well(**{name: number})


@pytest.mark.parametrize("name", ["wave", "pull", "target"])
def test_refuses_numbers_that_are_not_finite(name):
    with pytest.raises(ValueError, match=f"{name} must be finite, got nan"):
        double_well(**{name: math.nan})


def test_refuses_a_push_away_a_target_outside_and_a_noise_too_small():
    with pytest.raises(ValueError, match="pull must not be negative, got -1"):
        double_well(pull=-1.0)
    with pytest.raises(ValueError, match=r"target must lie in \[-2.5, 2.5\], got 3"):
        double_well(target=3.0)
    with pytest.raises(ValueError, match="nodes must resolve the solution"):
        double_well(noise=0.02)

"""What controllers cost when they are driven, against closed forms."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import integrate

from hjbridge.hjb import Grid, certify, compare, excess_percent, gain_loss, model_losses, problems, realised_cost, solve

F64 = torch.float64
LQR = problems.lqg([[0.3]], [[1.0]], Q=1.0, R=0.5, G=2.0, sigma=0.4, T=1.0)
X0 = torch.tensor([[1.0]], dtype=F64)


def shifted(by):
    return replace(LQR.exact, control_function=lambda x, t: LQR.exact.control(x, t) + by)


def test_the_exact_control_realises_the_value():
    found = torch.tensor(realised_cost(LQR.exact, X0, range(4), paths=400, steps=20))
    assert (found.mean() - LQR.exact.value(X0)).abs() < 0.003
    # a control that is off by a costs R a^2 T/2 more
    wrong = torch.tensor(realised_cost(shifted(0.8), X0, range(4), paths=400, steps=20))
    assert (wrong - found).mean() == pytest.approx(0.5 * 0.8**2 / 2, rel=0.05)


def test_a_put_is_stopped_where_its_grid_says():
    put = solve(problems.american_put(40.0, 0.06, 0.2, 1.0), Grid(points=201, steps=40))
    at = torch.tensor([[40.0]], dtype=F64)
    found = torch.tensor(realised_cost(put, at, range(4), paths=1000, steps=20))
    error = found.std() / 2
    # never stopping pays the European price, 2.066
    assert (found.mean() - 2.3195).abs() < 4 * error and error < 0.04


def test_excess_of_a_shifted_control():
    found = excess_percent(LQR, shifted(0.8), X0, (0, 1), paths=32, steps=10)
    assert found == pytest.approx([100 * 0.16 / LQR.exact.value(X0).item()] * 2, rel=0.05)
    with pytest.raises(ValueError, match="problem must have an exact solution, got 'pendulum' without"):
        excess_percent(problems.pendulum(), LQR.exact, X0, (0,), paths=16, steps=4)


def test_compare_collects_what_certify_measures():
    found = compare(LQR, {"best": LQR.exact, "off": shifted(0.8)}, (3, 5), paths=16, steps=10)
    one = certify(LQR, shifted(0.8), paths=16, steps=10, seed=5)
    assert found["excess"]["off"][1] == one.exact_excess.mean and found["gap"]["off"][1] == one.control_gap.mean
    assert found["promised"]["off"][1] == one.excess.mean
    assert found["certified"]["off"] == 0 and found["gap"]["best"] == [0.0, 0.0]
    assert found["value"] == pytest.approx({"best": 0.0, "off": 0.0}, abs=1e-10)


def test_compare_has_no_value_of_a_control_alone():
    alone = replace(shifted(0.8), value_function=None, gradient_function=None)
    higher = replace(LQR.exact, value_function=lambda x, t: 1.5 * LQR.exact.value(x, t), gradient_function=None)
    found = compare(LQR, {"alone": alone, "higher": higher}, (3,), paths=16, steps=10)
    assert found["value"] == pytest.approx({"higher": 50.0}, rel=1e-12)
    assert found["promised"]["alone"] == [] and found["excess"]["alone"][0] > 0.05
    with pytest.raises(ValueError, match="problem must have an exact value, got 'lqg' without"):
        compare(replace(LQR, exact=None), {"alone": alone}, (3,), paths=16, steps=10)


def test_losses_of_wrong_models():
    truth = problems.pendulum(T=0.5)
    models = [problems.pendulum(T=0.5), problems.pendulum(T=0.5, R=50.0)]
    found = model_losses(truth, models, Grid(points=15), (0, 1), paths=20, steps=10)
    assert found.shape == (2, 2) and torch.equal(found[:, 0], torch.zeros(2, dtype=F64))
    assert bool((found[:, 1].abs() > 1e-3).all()) and bool(found.isfinite().all())
    with pytest.raises(ValueError, match="must have a horizon and an initial sampler, got 'stationary_lqr' without"):
        model_losses(problems.stationary_lqr(-0.5, 1, 1, 0.1, 0.3, 0.1), [], Grid(), (0,), paths=2, steps=2)


def test_a_gain_of_another_model_costs_what_the_integral_says():
    truth = problems.stationary_lqr(alpha=-0.2, beta=1.5, q=2.0, r=0.3, sigma=0.4, rho=0.1)
    gain = -problems.stationary_lqr(0.3, 0.9, 2.0, 0.3, 0.4, 0.1).exact.control(X0).item()
    # int e^(-rho t) (q + r K^2) x^2 dt along x = e^((alpha - beta K) t), over P
    rate = 0.1 + 2 * (0.2 + 1.5 * gain)
    spent = integrate.quad(lambda t: (2 + 0.3 * gain**2) * math.exp(-rate * t), 0, math.inf)[0]
    expected = 100 * (spent / truth.exact.gradient(X0).item() - 1)
    assert gain_loss(truth, alpha=0.3, beta=0.9) == pytest.approx(expected, rel=1e-9) and expected > 1
    assert gain_loss(truth) == pytest.approx(0, abs=1e-11)
    # quadratic in a small error, so that both signs cost
    assert gain_loss(truth, beta=1.4) > 0 and gain_loss(truth, beta=1.6) > 0
    growing = problems.stationary_lqr(alpha=2.0, beta=1.0, q=1.0, r=0.1, sigma=0.3, rho=0.1)
    with pytest.raises(ValueError, match=r"believed must give a gain that keeps the cost finite, got {'alpha': -2.0}"):
        gain_loss(growing, alpha=-2.0)
    with pytest.raises(ValueError, match="problem must be a stationary_lqr, got 'lqg'"):
        gain_loss(LQR, alpha=1.0)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="problem must have a horizon, got none"):
        realised_cost(problems.stationary_lqr(-0.5, 1, 1, 0.1, 0.3, 0.1).exact, X0, (0,), paths=2, steps=2)
    with pytest.raises(ValueError, match=r"x0 must have shape \(1, 1\), got \(2, 1\)"):
        realised_cost(LQR.exact, torch.zeros(2, 1, dtype=F64), (0,), paths=2, steps=2)
    with pytest.raises(ValueError, match="steps must be positive and even.*got 3"):
        realised_cost(LQR.exact, X0, (0,), paths=2, steps=3)
    box = solve(LQR, Grid(points=41, steps=20, domain=([-6.0], [6.0])))
    with pytest.raises(ValueError, match=r"x0 must lie in the solution's domain, \[-6.0\] to \[6.0\], got \[60.0\]"):
        realised_cost(box, 60 * X0, (0,), paths=2, steps=2)
    assert math.isfinite(realised_cost(box, 6 * X0, (0,), paths=2, steps=2)[0])
    with pytest.raises(ValueError, match="x must be finite"):
        realised_cost(box, math.inf * X0, (0,), paths=2, steps=2)
    assert math.isfinite(realised_cost(LQR.exact, X0, (0,), paths=4, steps=2)[0])

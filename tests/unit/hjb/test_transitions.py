"""The data that learners get: laws of the steps, expected costs and exact gains."""

import math

import pytest
import torch
from scipy.integrate import quad

from hjbridge.hjb import problems
from hjbridge.hjb.discrete.greedy_regret import regret
from hjbridge.hjb.discrete.spectral import held_errors
from hjbridge.hjb.discrete.transitions import held_batch, ou_law, ou_paths, random_regulator

F64 = torch.float64
POST = problems.stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1)


def test_law_of_the_ornstein_uhlenbeck_step():
    x, y, p = ou_law(0.3)
    keep = math.exp(-0.3)
    moments = {"1": p, "xx": p * x**2, "yy": p * y**2, "xy": p * x * y, "x4": p * x**4, "xxyy": p * x**2 * y**2}
    expected = {"1": 1, "xx": 0.5, "yy": 0.5, "xy": keep / 2, "x4": 0.75, "xxyy": 0.25 * (1 + 2 * keep**2)}
    assert {k: v.sum().item() for k, v in moments.items()} == pytest.approx(expected, rel=1e-13)
    for bad in (0, -1.0, math.inf):
        with pytest.raises(ValueError, match="dt must be positive and finite"):
            ou_law(bad)


def test_paths_are_stationary():
    path = ou_paths(100_000, 3, 0.3, torch.Generator().manual_seed(0))
    assert path.shape == (4, 100_000) and path.dtype == F64
    assert (path.var(dim=1) - 0.5).abs().max() < 0.01
    assert abs((path[0] * path[3]).mean() - math.exp(-0.9) / 2) < 0.01


def test_held_batch_has_the_exact_step():
    batch = held_batch(POST, 0.25, 200_000, torch.Generator().manual_seed(0))
    x, u = batch.x, batch.u
    assert (x.abs().max() <= 2) and (u.abs().max() <= 5) and abs(x.var() - 4 / 3) < 0.02 and abs(u.var() - 25 / 3) < 0.1
    mean = math.exp(-0.125) * x + 2 * (1 - math.exp(-0.125)) * u
    error = batch.after - mean
    assert abs(error.mean()) < 1e-3 and abs(error.var() - 0.09 * (1 - math.exp(-0.25))) < 2e-4
    # the cost of a step by another quadrature, with the known mean and variance of the state
    for i in range(3):
        a, b = x[i].item(), u[i].item()

        def rate(s, a=a, b=b):
            mean, variance = math.exp(-s / 2) * a + 2 * (1 - math.exp(-s / 2)) * b, 0.09 * (1 - math.exp(-s))
            return math.exp(-0.1 * s) * (mean**2 + variance + 0.1 * b**2) / 2

        assert math.isclose(batch.costs[i].item(), quad(rate, 0, 0.25)[0], rel_tol=1e-10)
    assert abs(batch.gain.item() - 1.866832) < 1e-6


def test_the_gain_of_a_random_regulator_is_the_best():
    batch = random_regulator(3, 50, 0.9, torch.Generator().manual_seed(1))
    A, B = (m.T for m in torch.linalg.lstsq(torch.cat([batch.x, batch.u], 1), batch.after).solution.split([3, 1]))
    cost = ((batch.x**2).sum(1) + batch.u[:, 0] ** 2) / 2
    torch.testing.assert_close(batch.costs, cost, rtol=1e-14, atol=0)

    def price(K):  # mean discounted cost from the unit vectors, which has a single stationary point
        x, total = torch.eye(3, dtype=F64), torch.zeros((), dtype=F64)
        for k in range(400):
            u = -x @ K.T
            total = total + 0.9**k * ((x**2).sum() + (u**2).sum()) / 6
            x = x @ A.T + u @ B.T
        return total

    K = batch.gain.clone().requires_grad_()
    assert torch.autograd.grad(price(K), K)[0].abs().max() < 1e-12
    assert price(1.01 * batch.gain) > price(batch.gain) < price(0.99 * batch.gain)


def test_regret_and_errors_on_the_circle():
    circle, actions = problems.circle(), torch.linspace(-2.5, 2.5, 41, dtype=F64)
    assert regret(circle, actions, 0.02) == pytest.approx(0.012666, rel=1e-4)
    assert regret(circle, actions, math.inf) == pytest.approx(2.807775, rel=1e-6)
    errors = held_errors(circle, 2.0**-9, actions)
    assert (errors.value, errors.control, errors.advantage) == pytest.approx(
        (4.2791e-3, 4.2213e-3, 3.1325e-2), rel=1e-4
    )
    for call in (lambda: regret(POST, actions, 0.02, 3), lambda: held_errors(POST, 0.1, actions)):
        with pytest.raises(ValueError, match="problem must"):
            call()

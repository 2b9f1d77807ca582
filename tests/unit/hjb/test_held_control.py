"""The step's coefficients against simulation-free integration, and the orders at which its solution meets the limit."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp

from hjbridge.hjb import problems
from hjbridge.hjb.discrete.held_control import advantage, advantage_by_difference, held, solve_bellman, solve_rates

F64 = torch.float64
ALPHA, BETA, Q, R, SIGMA, RHO = 0.5, 1.0, 1.0, 0.5, 0.7, 0.3
PROBLEM = problems.stationary_lqr(ALPHA, BETA, Q, R, SIGMA, RHO)
POST = problems.stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1)
P, C = 0.90344011421667, 0.73780942661028


def orders(errors):
    return (errors[:-1] / errors[1:]).log2()


def test_exact_step_against_integration():
    dt = 0.4
    step = held(PROBLEM, torch.tensor([dt], dtype=F64))
    gamma = math.exp(-RHO * dt)
    assert math.isclose(step.discount.item(), gamma, rel_tol=1e-14)

    def slope(s, y):  # mean m and variance v of X, discounted cost
        m, v, _ = y
        rate = math.exp(-RHO * s) * (Q * (m**2 + v) + R * u**2) / 2
        return [ALPHA * m + BETA * u, 2 * ALPHA * v + SIGMA**2, rate]

    for x, u in ((1.3, -0.7), (0.0, 2.0), (-1.0, 0.0)):
        m, v, cost = solve_ivp(slope, (0, dt), [x, 0, 0], rtol=1e-12, atol=1e-14, method="DOP853").y[:, -1]
        assert math.isclose(x + dt * (step.growth * x + step.push * u), m, rel_tol=1e-11)
        assert math.isclose(dt * step.spread, v, rel_tol=1e-11)
        ours = dt * ((step.state * x**2 + 2 * step.cross * x * u + step.control * u**2) / 2 + step.constant)
        assert math.isclose(ours, cost, rel_tol=1e-11)


def test_a_state_without_drift_has_a_step_too():
    step = held(problems.stationary_lqr(0.0, 2.0, 1.0, 0.5, 0.7, 0.3), torch.tensor([0.5], dtype=F64))
    assert (step.growth.item(), step.push.item(), step.spread.item()) == pytest.approx((0, 2, 0.49), rel=1e-14)
    by_quadrature = quad(lambda s: math.exp(-0.3 * s) * 2 * s, 0, 0.5)[0] / 0.5
    assert math.isclose(step.cross.item(), by_quadrature, rel_tol=1e-12)


@pytest.mark.parametrize("scheme", ["euler", "exact"])
def test_both_forms_solve_the_bellman_equation(scheme):
    step = held(PROBLEM, torch.tensor([0.5, 0.1], dtype=F64), scheme)
    for solve in (solve_bellman, solve_rates):
        found = solve(step)
        for x in (0.0, 1.5):
            u = torch.linspace(-6, 6, 240_001, dtype=F64)[:, None]
            there = x + step.dt * (step.growth * x + step.push * u)
            price = step.dt * ((step.state * x**2 + 2 * step.cross * x * u + step.control * u**2) / 2 + step.constant)
            ahead = found.P * (there**2 + step.dt * step.spread) / 2 + found.c
            least, place = (price + step.discount * ahead).min(0)
            torch.testing.assert_close(least, found.P * x**2 / 2 + found.c, rtol=1e-9, atol=0)
            torch.testing.assert_close(u[place, 0], -found.K * x, rtol=0, atol=3e-5)


def test_the_limit_is_the_continuous_value():
    x = torch.tensor([[1.0]], dtype=F64)
    assert abs(PROBLEM.exact.gradient(x).item() - P) < 1e-12
    assert abs(PROBLEM.exact.value(x).item() - P / 2 - C) < 1e-12


@pytest.mark.parametrize(("scheme", "order"), [("euler", 1.0), ("exact", 2.0)])
def test_orders(scheme, order):
    found = solve_rates(held(PROBLEM, 2.0 ** -torch.arange(2, 13, dtype=F64), scheme))
    errors = (found.P - P).abs()
    assert abs(orders(errors)[-1] - order) < 1e-3
    assert abs(orders((found.c - C).abs())[-1] - 1) < 2e-3
    assert abs(errors[4] / {"euler": 1.23e-2, "exact": 1.95e-5}[scheme] - 1) < 5e-3
    torch.testing.assert_close(found.K[-1], found.P[-1] * BETA / R, rtol=2e-3, atol=0)


def test_euler_numbers_of_the_published_benchmark():
    dt = torch.tensor([0.1, 0.05, 0.025, 0.0125], dtype=F64)
    gap = solve_bellman(held(POST, dt, "euler")).P - 0.2659750769140807
    np.testing.assert_allclose(gap, [0.0481, 0.0230, 0.01125, 0.00556], atol=6e-5)
    np.testing.assert_allclose(orders(gap)[1:], [1.03, 1.02], atol=0.006)


def test_action_values_collapse_at_the_rate_of_the_little_q():
    value = 0.2659750769140807, 0.1196887846113363
    dt = torch.tensor([0.1, 0.05, 0.025, 0.0125, 0.00625], dtype=F64)
    for rate in (advantage, advantage_by_difference):
        np.testing.assert_allclose(
            rate(held(POST, dt), 1.0, 0.0, *value), [0.3365, 0.3449, 0.3493, 0.3515, 0.3526], atol=6e-5
        )
    # q(1, 0) = r K^2/2, since the best control is -K
    small = advantage(held(POST, torch.tensor([1e-7], dtype=F64)), 1.0, 0.0, *value)
    assert abs(small.item() - 0.1 * 2.6597507691**2 / 2) < 1e-6
    best = advantage(held(POST, torch.tensor([1e-7], dtype=F64)), 1.0, -2.6597507691, *value)
    assert abs(best.item()) < 1e-6


def test_single_precision_loses_the_difference_and_not_the_rate():
    dt = 2.0 ** -torch.arange(4, 19, dtype=torch.float32)
    by_value, by_rate = (solve(held(PROBLEM, dt)) for solve in (solve_bellman, solve_rates))
    assert by_rate.P.dtype == torch.float32 and abs(by_rate.P[-1].double() - P) < 1e-6
    assert (by_value.P[-6:].double() - P).abs().max() > 1e-4
    step = held(POST, dt)
    limit, value = 0.1 * 2.6597507691**2 / 2, (0.2659750769140807, 0.1196887846113363)
    assert abs(advantage(step, 1.0, 0.0, *value)[-1].double() - limit) < 2e-6
    assert (advantage_by_difference(step, 1.0, 0.0, *value)[-3:].double() - limit).abs().max() > 1e-3
    with pytest.raises(FloatingPointError, match="discount differs from 1 in torch.float32, got 5.96e-08"):
        solve_bellman(held(PROBLEM, torch.tensor([2.0**-24])))


def test_bad_arguments():
    dt, matrix = torch.tensor([0.1], dtype=F64), [[1.0]]
    with pytest.raises(ValueError, match="scalar, linear-quadratic and without horizon, got lqg"):
        held(problems.lqg(matrix, matrix, matrix, matrix, matrix, 0.5, 1.0), dt)
    one = torch.ones(1, dtype=F64)
    with pytest.raises(
        ValueError, match="bounds must be None for the held problem: with it the value is not quadratic"
    ):
        held(replace(PROBLEM, bounds=(-one, one)), dt)
    for bad in (torch.tensor([0.0]), torch.tensor([1.5]), torch.tensor(0.1), torch.tensor([1])):
        with pytest.raises(ValueError, match="dt must be a floating vector with entries in"):
            held(PROBLEM, bad)
    with pytest.raises(ValueError, match="scheme must be euler or exact, got 'heun'"):
        held(PROBLEM, dt, "heun")
    for solve in (solve_bellman, solve_rates):
        with pytest.raises(ValueError, match="beta must not be 0"):
            solve(held(PROBLEM, dt)._replace(push=0 * dt))

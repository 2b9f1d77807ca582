"""The soft Bellman equation on the circle: its fixed point, its limits in the step and in the temperature."""

import math
from itertools import pairwise

import pytest
import torch

from hjbridge.hjb import problems
from hjbridge.hjb.discrete.spectral import _differentiate, circle_points, held_action_values, soft_circle

F64 = torch.float64
CIRCLE = problems.circle()
ACTIONS = torch.linspace(-2.5, 2.5, 11, dtype=F64)


@pytest.mark.parametrize(("dt", "temperature"), [(0.5, 0.4), (2.0**-6, 0.4), (2.0**-6, 0.4 * 2.0**-6)])
def test_the_value_is_the_soft_minimum_of_its_action_values(dt, temperature):
    found = soft_circle(CIRCLE, ACTIONS, dt, temperature)
    q = held_action_values(CIRCLE, found.value, dt, ACTIONS)
    expected = -temperature * torch.logsumexp(-q / temperature, 1)
    torch.testing.assert_close(found.value, expected, rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(found.policy, torch.softmax(-q / temperature, 1), rtol=1e-8, atol=1e-12)


def test_the_divergence_is_that_from_the_uniform_policy():
    found = soft_circle(CIRCLE, ACTIONS, 0.25, 0.1)
    uniform = torch.full_like(found.policy, 1 / 11)
    expected = torch.nn.functional.kl_div(uniform.log(), found.policy, reduction="none").sum(1).mean()
    assert found.divergence() == pytest.approx(expected.item(), rel=1e-12) and found.divergence() > 0.1


def exploratory_residual(value, temperature):
    """What a value leaves of rho V = l + b V' + sigma^2 V''/2 - a log sum_a e^(-(R a^2/2 + B a V')/a)."""
    n, x = len(value), circle_points(len(value))
    slope, bend = _differentiate(n, 1) @ value, _differentiate(n, 2) @ value
    running, drift = CIRCLE.running_cost(x[:, None], 0.0), CIRCLE.drift(x[:, None], 0.0)[:, 0]
    R, B = CIRCLE.control_cost.item(), CIRCLE.control_matrix.item()
    held = R * ACTIONS**2 / 2 + B * ACTIONS * slope[:, None]
    soft = -temperature * torch.logsumexp(-held / temperature, 1)
    return running + drift * slope + CIRCLE.dispersion**2 / 2 * bend + soft - CIRCLE.discount * value


def test_with_a_temperature_in_proportion_to_the_step_it_tends_to_the_exploratory_equation_at_first_order():
    steps = [2.0**-k for k in (8, 9, 10)]
    left = [exploratory_residual(soft_circle(CIRCLE, ACTIONS, h, 0.4 * h).value, 0.4).abs().max() for h in steps]
    assert left[-1] < 0.01
    assert [math.log2(a / b) for a, b in pairwise(left)] == pytest.approx([1, 1], abs=0.02)


def test_with_a_fixed_temperature_the_value_falls_like_the_inverse_step_and_the_policy_becomes_uniform():
    coarse, fine = (soft_circle(CIRCLE, ACTIONS, h, 0.4) for h in (2.0**-10, 2.0**-12))
    # a bonus of alpha log A each step, for 1/rho of time
    bonus = -0.4 * math.log(11) / CIRCLE.discount * 2.0**12
    assert fine.value.mean().item() == pytest.approx(bonus, rel=1e-3)
    assert coarse.divergence() / fine.divergence() == pytest.approx(16, rel=0.02) and fine.divergence() < 1e-5


def test_at_small_temperature_it_is_the_hard_minimum():
    dt = 0.25
    value = soft_circle(CIRCLE, ACTIONS, dt, 1e-6).value
    hard = held_action_values(CIRCLE, value, dt, ACTIONS).min(1).values
    assert (value - hard).abs().max() < 1e-6 * math.log(11)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="temperature must be positive and finite, got 0"):
        soft_circle(CIRCLE, ACTIONS, 0.1, 0.0)
    with pytest.raises(ValueError, match="problem must be discounted, on a circle"):
        soft_circle(problems.stationary_lqr(-0.5, 1, 1, 0.1, 0.3, 0.1), ACTIONS, 0.1, 0.4)
    with pytest.raises(ValueError, match="dt must be positive and finite, got -0.1"):
        soft_circle(CIRCLE, ACTIONS, -0.1, 0.4)
    with pytest.raises(ValueError, match="points must be odd and at least 3, got 64"):
        soft_circle(CIRCLE, ACTIONS, 0.1, 0.4, points=64)
    with pytest.raises(RuntimeError, match="soft policy iteration needs more than 1 rounds"):
        soft_circle(CIRCLE, ACTIONS, 0.1, 0.4, rounds=1)

"""The circle: its manufactured value, the held problem in Fourier space, policies on it, noisy choices."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hjbridge.hjb import Solution, hjb_residual, problems, simulate
from hjbridge.hjb.discrete import spectral
from hjbridge.hjb.discrete.greedy_regret import noisy_greedy, regret
from hjbridge.hjb.discrete.spectral import excess_cost, held_action_values, held_circle, held_errors, soft_circle

F64 = torch.float64
CIRCLE = problems.circle()
ACTIONS = torch.linspace(-2.5, 2.5, 41, dtype=F64)


def test_the_manufactured_value_solves_the_equation():
    x = torch.linspace(-4, 4, 97, dtype=F64)[:, None]
    for problem in (CIRCLE, problems.circle(0.3, 2.0), problems.circle(0.0)):
        residual, terms = hjb_residual(problem, problem.exact.value, x, 0.0, terms=True)
        assert (residual.abs() / terms.scale()).max() < 1e-13
    assert hjb_residual(CIRCLE, problems.circle().exact.value, x + 2 * math.pi, 0.0).abs().max() < 1e-12
    y = x.clone().requires_grad_()
    slope = torch.autograd.grad(CIRCLE.exact.value(y).sum(), y)[0]
    torch.testing.assert_close(CIRCLE.exact.control(x), -slope, rtol=1e-14, atol=1e-15)
    start = CIRCLE.initial(500, torch.Generator().manual_seed(0))
    assert torch.equal(torch.stack(CIRCLE.box), torch.tensor([[-math.pi], [math.pi]], dtype=F64))
    assert start.shape == (500, 1) and -math.pi <= start.min() < -3 and 3 < start.max() < math.pi
    for bad in ({"sigma": -1.0}, {"sigma": math.nan}, {"rho": 0.0}, {"rho": math.inf}):
        with pytest.raises(ValueError, match=next(iter(bad)) + " must be finite"):
            problems.circle(**bad)


def test_orders_on_the_circle():
    errors = []
    for dt in (2.0**-7, 2.0**-8, 2.0**-9):
        found = held_circle(CIRCLE, dt)
        u = CIRCLE.exact.control(found.x[:, None])[:, 0]
        rate = (held_action_values(CIRCLE, found.value, dt, ACTIONS) - found.value[:, None]) / dt
        gaps = (
            found.value - CIRCLE.exact.value(found.x[:, None]),
            found.control - u,
            rate - (ACTIONS - u[:, None]) ** 2 / 2,
        )
        errors.append([gap.abs().max().item() for gap in gaps])
    errors = torch.tensor(errors, dtype=F64)
    np.testing.assert_allclose((errors[1] / errors[2]).log2(), [1.000, 0.998, 0.997], atol=1.5e-3)
    assert abs(errors[2, 0] - 4.28e-3) < 1e-5 and found.rounds <= 8
    # gap between the best and the worst of |u| <= 2
    Q = held_action_values(CIRCLE, found.value, dt, torch.linspace(-2, 2, 41, dtype=F64))
    assert abs((Q.amax(1) - Q.amin(1)).max() - 0.01403) < 1e-5


def test_the_held_value_satisfies_its_bellman_equation_off_the_grid():
    dt, points = 0.25, 65
    found = held_circle(CIRCLE, dt, points)
    assert abs(found.rounds - 7) <= 2
    Q = held_action_values(CIRCLE, found.value, dt, torch.linspace(-4, 4, 1601, dtype=F64))
    torch.testing.assert_close(Q.amin(1), found.value, rtol=0, atol=2e-5)
    assert (Q.amin(1) >= found.value - 1e-11).all()
    # E V(X') by Gauss-Hermite instead of Fourier factors, at one point and control
    z, p = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(60))
    i, u = 5, -0.4
    there = found.x[i] + (torch.sin(2 * found.x[i]) / 2 + u) * dt + 0.6 * math.sqrt(dt) * z
    k = torch.arange(-32, 33, dtype=F64)
    modes = torch.exp(-1j * k[:, None] * found.x) @ found.value.to(torch.complex128) / points
    ahead = ((torch.exp(1j * there[:, None] * k) @ modes).real * p).sum() / p.sum()
    price = (CIRCLE.running_cost(found.x[i : i + 1, None], torch.tensor(0.0)) + u**2 / 2) * dt
    ours = held_action_values(CIRCLE, found.value, dt, torch.tensor([u], dtype=F64))[i, 0]
    torch.testing.assert_close(ours, price[0] + math.exp(-0.5 * dt) * ahead, rtol=1e-11, atol=0)


def test_units_of_the_control_do_not_matter():
    # w = u/2 with B = 2 and R = 4 is the same problem
    two, four = (torch.full((1, 1), k, dtype=F64) for k in (2.0, 4.0))
    scaled = replace(CIRCLE, control_matrix=two, control_cost=four, exact=None)
    scaled = replace(scaled, exact=Solution(scaled, value_function=CIRCLE.exact.value_function))
    ours, theirs = held_circle(CIRCLE, 0.1), held_circle(scaled, 0.1)
    torch.testing.assert_close(theirs.value, ours.value, rtol=1e-12, atol=0)
    torch.testing.assert_close(2 * theirs.control, ours.control, rtol=0, atol=1e-10)
    assert held_errors(scaled, 0.1, ACTIONS / 2).advantage == pytest.approx(held_errors(CIRCLE, 0.1, ACTIONS).advantage)
    assert regret(scaled, ACTIONS / 2, 0.1) == pytest.approx(regret(CIRCLE, ACTIONS, 0.1), rel=1e-10)


def test_resolution_does_not_matter():
    coarse, fine = held_circle(CIRCLE, 0.1, 65), held_circle(CIRCLE, 0.1, 195)
    torch.testing.assert_close(fine.value[::3], coarse.value, rtol=0, atol=1e-9)


def test_excess_cost_of_a_mixed_policy_by_simulation():
    uniform = torch.full((65, 41), 1 / 41, dtype=F64)
    excess = excess_cost(CIRCLE, ACTIONS, uniform)
    assert abs(excess.mean() - 2.8078) < 1e-4
    # in the limit the state moves by the mean action, which is 0; the price is that of the square
    generator, x0 = torch.Generator().manual_seed(0), torch.zeros(2000, 1, dtype=F64)
    path = simulate(CIRCLE, lambda x, t: 0 * x, x0, torch.linspace(0, 14, 701, dtype=F64), generator)
    price = (ACTIONS**2).mean() / 2 * (1 - math.exp(-7)) / 0.5
    cost = path.cost + price - CIRCLE.exact.value(x0)
    assert abs(cost.mean() - excess[0]) < 3.5 * cost.std() / math.sqrt(2000) + 0.02
    best = (ACTIONS - CIRCLE.exact.control(held_circle(CIRCLE, 0.1).x[:, None])).abs().argmin(1)
    assert excess_cost(CIRCLE, ACTIONS, torch.nn.functional.one_hot(best, 41).double()).max() < 2e-3


def test_noisy_greedy_against_draws():
    q = torch.tensor([[0.0, 0.1, 0.5, 3.0], [1.0, 1.0, 1.0, 1.0]], dtype=F64)
    p = noisy_greedy(q, 0.3)
    torch.testing.assert_close(p.sum(1), torch.ones(2, dtype=F64), rtol=1e-13, atol=0)
    torch.testing.assert_close(p[1], torch.full((4,), 0.25, dtype=F64), rtol=1e-13, atol=0)
    noise = torch.randn(400_000, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    drawn = torch.bincount((q[0] + 0.3 * noise).argmin(1), minlength=4) / 400_000
    torch.testing.assert_close(p[0], drawn.double(), rtol=0, atol=0.004)
    # two actions: P(q_1 + s Z_1 < q_0 + s Z_0) = Phi((q_0 - q_1)/(s sqrt 2))
    two = noisy_greedy(torch.tensor([[0.0, 0.7]], dtype=F64), 0.4)
    assert math.isclose(two[0, 0].item(), 0.5 * math.erfc(-0.7 / 0.4 / 2), rel_tol=1e-12)
    assert noisy_greedy(q, 1e-6)[0].tolist() == pytest.approx([1, 0, 0, 0])


def test_regret_of_an_action_value_head():
    u = CIRCLE.exact.control(2 * math.pi * torch.arange(65, dtype=F64)[:, None] / 65)
    q, regret = (ACTIONS - u) ** 2 / 2, []
    for power in (0, 2, 4, 6, 8, 10, 12):
        regret.append(excess_cost(CIRCLE, ACTIONS, noisy_greedy(q, 0.02 * 2.0**power)).mean().item())
    np.testing.assert_allclose(regret, [0.01267, 0.04396, 0.15493, 0.54355, 1.46107, 2.30393, 2.66805], rtol=1e-3)


def test_what_would_be_answered_for_another_problem_is_refused():
    one = torch.ones(1, dtype=F64)
    bounded, longer = replace(CIRCLE, bounds=(-one, one)), replace(CIRCLE, box=(-4 * one, 4 * one))
    policy = torch.full((65, 41), 1 / 41, dtype=F64)
    for ask in (
        lambda problem: held_circle(problem, 0.1),
        lambda problem: held_action_values(problem, torch.zeros(65, dtype=F64), 0.1, ACTIONS),
        lambda problem: soft_circle(problem, ACTIONS, 0.1, 0.4),
        lambda problem: excess_cost(problem, ACTIONS, policy),
    ):
        with pytest.raises(ValueError, match="bounds must be None on the circle: only free controls"):
            ask(bounded)
        with pytest.raises(ValueError, match="box must be 2 pi = 6.28319 long on the circle, got 8"):
            ask(longer)
        with pytest.raises(ValueError, match="box must be 2 pi = 6.28319 long on the circle, got nan"):
            ask(replace(CIRCLE, box=None))


def test_a_control_that_is_no_minimum_is_refused(monkeypatch):
    """Long steps lead there or not as the last digit falls, so the curvature is made negative by hand."""
    monkeypatch.setattr(spectral, "_moved", lambda problem, n, *rest: -torch.eye(n, dtype=F64))
    with pytest.raises(RuntimeError, match="control must be a minimum, got the curvature -.*: shorten dt"):
        spectral._improve(CIRCLE, torch.full((5,), 100.0, dtype=F64), torch.zeros(5, dtype=F64), torch.zeros(5), 1.0)


def test_bad_arguments():
    with pytest.raises(
        ValueError, match="problem must be discounted, on a circle and without horizon, got stationary_lqr"
    ):
        held_circle(problems.stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1), 0.1)
    with pytest.raises(ValueError, match="dt must be positive and finite, got 0"):
        held_circle(CIRCLE, 0)
    with pytest.raises(ValueError, match="points must be odd and at least 3, got 64"):
        held_circle(CIRCLE, 0.1, 64)
    even = torch.full((64, 41), 1 / 41, dtype=F64)
    with pytest.raises(ValueError, match="points must be odd and at least 3, got 64"):
        excess_cost(CIRCLE, ACTIONS, even)
    with pytest.raises(RuntimeError, match="more than 1 rounds"):
        held_circle(CIRCLE, 0.1, rounds=1)
    with pytest.raises(ValueError, match="noise must be positive and finite, got 0"):
        noisy_greedy(torch.zeros(1, 2, dtype=F64), 0)
    with pytest.raises(ValueError, match=r"q must have shape \(n, A\), got \(2,\)"):
        noisy_greedy(torch.zeros(2, dtype=F64), 1.0)

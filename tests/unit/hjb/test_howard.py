"""What a discretisation refuses, what it passes over, and when Howard's iteration ends."""

import math
from dataclasses import replace

import pytest
import torch

from hjbridge.hjb import Grid, PolicyIteration, problems, solve
from hjbridge.hjb.schemes.howard import discretise, improve
from hjbridge.hjb.schemes.lattice import lattice_for

D = torch.float64
LINE = problems.stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1)
FREE = replace(LINE, linear_quadratic=None, exact=None)
HALF = torch.tensor([0.5], dtype=D)


def holed(values, bad):
    """The values (n, ...), `bad` where x > 2."""
    return lambda x, *others: torch.where((x[:, 0] > 2).reshape(-1, *[1] * (values.ndim - 1)), bad, values)


def price(bad):
    return lambda x, u, t: torch.where(x[:, 0] > 2, bad, 0.05 * u[:, 0] ** 2)


def own(x, t, p, M):
    return -10 * p


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("drift", lambda bad: {"drift": holed(torch.ones(1, 1, dtype=D), bad)}),
        ("dispersion", lambda bad: {"dispersion": holed(torch.ones(1, 1, dtype=D), bad)}),
        ("dispersion", lambda bad: {"dispersion": holed(torch.ones(1, 1, 2, dtype=D), bad)}),
        ("dispersion", lambda bad: {"dispersion": holed(torch.ones(1, 1, dtype=D), bad), "controlled_noise": True}),
        ("control_matrix", lambda bad: {"control_matrix": holed(torch.ones(1, 1, 1, dtype=D), bad)}),
        ("control_cost", lambda bad: {"control_cost": price(bad), "minimiser": own}),
        ("control_cost", lambda bad: {"control_cost": price(bad), "control_set": torch.tensor([[0.0], [1.0]])}),
    ],
)
def test_the_function_that_is_not_finite_is_named(name, change, bad):
    problem = replace(FREE, **change(bad))
    text = rf"{name} must be finite on the whole grid, got NaN or infinity at x = \[2.(4|39999)"
    for scheme in ("upwind", "hybrid", "central"):
        with pytest.raises(ValueError, match=text):
            solve(problem, Grid(points=11, scheme=scheme))


def test_a_control_that_costs_infinity_is_only_passed_over():
    def cost(x, u, t):
        return torch.where(u[:, 0].abs() > 1, math.inf, 0.05 * u[:, 0] ** 2)

    members = torch.linspace(-1.5, 1.5, 7, dtype=D).unsqueeze(1)
    some = replace(FREE, control_cost=cost, control_set=members)
    few = replace(some, control_set=members[1:-1])
    x = torch.linspace(-3, 3, 7, dtype=D).unsqueeze(1)
    one, other = (solve(problem, PolicyIteration(41)).value(x) for problem in (some, few))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=0)


def test_a_minimiser_may_fail_at_some_slopes():
    """The root of p is NaN below 0: candidates that are passed over."""

    def spend(x, t, p, M):
        return p.sqrt()

    wasting = replace(FREE, control_cost=lambda x, u, t: 0.05 * u[:, 0] ** 2, minimiser=spend)
    grid = discretise(wasting, lattice_for(wasting, 9), "upwind")
    v = grid.x[:, 0].numpy() ** 2
    assert improve(grid, torch.zeros((), dtype=D), v, torch.zeros(9, 1, dtype=D)).isfinite().all()


def test_noise_that_bounds_keep_real_is_accepted():
    noisy = replace(
        FREE, dispersion=lambda x, t, u: (0.75 - u).sqrt(), controlled_noise=True, bounds=(-HALF, HALF),
        control_cost=lambda x, u, t: u[:, 0] ** 2, minimiser=lambda x, t, p, M: (-p / 2).clamp(-0.5, 0.5),
    )  # fmt: skip
    assert discretise(noisy, lattice_for(noisy, 9, ([-1.0], [1.0])), "upwind").x.shape == (9, 1)


def test_values_that_differ_by_many_powers_of_ten_are_right_everywhere():
    """At gamma = 5, V falls like w^-4, by 10^26 on this grid: the largest residual says nothing about w = 5."""
    problem = problems.merton(0.03, 0.08, 0.2, 5.0, rho=0.05)
    found = solve(problem, PolicyIteration(4001, domain=([2e-6], [500.0])))
    w = torch.tensor([[0.2], [1.0], [5.0]], dtype=D)
    torch.testing.assert_close(found.value(w), problem.exact.value(w), rtol=3e-5, atol=0)
    torch.testing.assert_close(found.control(w), problem.exact.control(w), rtol=1e-4, atol=0)

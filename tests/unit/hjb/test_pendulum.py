"""The pendulum: its equations, and what the grid's control really costs."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from hjbridge.hjb import Grid, problems, simulate, solve

D = torch.float64


def unit(*numbers):
    return torch.tensor(numbers, dtype=D)


def test_energy_and_costs_are_those_of_a_pendulum():
    # without friction, noise and torque w^2/2 + gravity cos(theta) is conserved: theta = 0 is upright
    free = problems.pendulum(friction=0.0, sigma=0.0, gravity=4.0)
    zero = torch.zeros(1, dtype=D)

    def field(t, state):
        return free.velocity(unit(state.tolist()), torch.tensor(0.0), zero.unsqueeze(0))[0].numpy()

    path = solve_ivp(field, (0, 5), [0.3, 0.0], rtol=1e-10, atol=1e-10)
    energy = path.y[1] ** 2 / 2 + 4 * np.cos(path.y[0])
    np.testing.assert_allclose(energy, energy[0], rtol=1e-8)
    assert path.y[0].max() > math.pi
    problem, x, u = problems.pendulum(), unit([math.pi / 2, -2.0]), unit(1.5)
    t = torch.tensor(0.0, dtype=D)
    torch.testing.assert_close(problem.velocity(x, t, u.unsqueeze(0))[0], unit(-2.0, 5 + 0.2 + 1.5))
    assert problem.cost(x, t, u.unsqueeze(0)).item() == pytest.approx(2 + 0.4 + 0.1 * 1.5**2)
    assert problem.terminal_cost(x).item() == pytest.approx(5 + 0.2)
    assert problem.noise(x, t).flatten().tolist() == [0, 0.3] and problem.horizon == 3
    steep = problems.pendulum(2, 0.5, 3, 0.1, 0.4, 1, 0.2, 3, 0.3, 2)
    torch.testing.assert_close(steep.velocity(x, t, u.unsqueeze(0))[0], unit(-2.0, 2 + 1 + 1.5))
    assert steep.cost(x, t, u.unsqueeze(0)).item() == pytest.approx(1 + 0.8 + 0.2 * 1.5**2)
    assert steep.terminal_cost(x).item() == pytest.approx(3 + 1.2) and steep.horizon == 2
    assert steep.best_control(x, t, unit([0.0, -9.0])).item() == 3


def test_starts_hang_below():
    start = problems.pendulum().initial(4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(start.mean(0), unit(math.pi, 0.0), rtol=0, atol=0.02)
    torch.testing.assert_close(start.std(0), unit(0.3, 0.3), rtol=0, atol=0.015)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"R": 0.0}, "R must be positive, got 0.0"),
        ({"torque": -1.0}, "torque must be positive, got -1.0"),
        ({"T": 0}, "T must be positive, got 0"),
        ({"sigma": -0.1}, "sigma must not be negative, got -0.1"),
        ({"angle_cost": -1}, "angle_cost must not be negative, got -1"),
        ({"gravity": math.nan}, "gravity must be finite, got nan"),
    ],
)
def test_bad_numbers_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        problems.pendulum(**options)


def test_the_control_costs_what_the_value_says_without_noise():
    problem = problems.pendulum(sigma=0.0)
    found = solve(problem, Grid(100, scheme="cubic", controls=15))
    start = unit([1.0, 1.0], [math.pi, 0.0])
    coarse, fine = (
        simulate(problem, found.control, start, torch.linspace(0, 3, n + 1, dtype=D)).cost for n in (100, 200)
    )
    # the left-point sum is of first order: extrapolate
    cost = 2 * fine - coarse
    torch.testing.assert_close(cost, unit(5.235, 15.67), rtol=0, atol=0.02)
    torch.testing.assert_close(found.value(start), cost, rtol=0, atol=0.02)


def test_the_default_grid_swings_up_against_noise():
    problem = problems.pendulum()
    found = solve(problem, Grid())
    assert found.meta["scheme"] == "semi-lagrangian" and found.meta["shape"] == [120, 120]
    generator = torch.Generator().manual_seed(0)
    start = problem.initial(200, generator)
    noises = (3 / 200) ** 0.5 * torch.randn(200, 200, 1, generator=generator, dtype=D)
    costs = []
    for n in (100, 200):
        slopes = []

        def control(x, t, slopes=slopes):
            slopes.append(found.gradient(x, t))
            return problem.best_control(x, t, slopes[-1])

        grid = torch.linspace(0, 3, n + 1, dtype=D)
        path = simulate(problem, control, start, grid, noises=noises.reshape(n, -1, 200, 1).sum(1))
        # the sum of grad V.(sigma dW) has mean zero and takes nearly all of the noise
        costs.append(path.cost - 0.3 * (torch.stack(slopes)[:, :, 1] * path.noises[:, :, 0]).sum(0))
    excess = 2 * costs[1] - costs[0] - found.value(start)
    # the mean excess is -.10 +- .01 of 13.99: numerical diffusion makes the value too large by .7 per cent
    assert -0.15 < excess.mean() < -0.05 and excess.std() / 200**0.5 < 0.02
    assert found.value(start).mean() < 14.1

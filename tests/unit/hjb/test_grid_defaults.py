"""What `Grid` takes where nothing is said, what it refuses, and steps and linear solves of its own."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from hjbridge.hjb import ControlProblem, Grid, problems, solve
from hjbridge.hjb.schemes import stencil

D = torch.float64


def unit(*numbers):
    return torch.tensor(numbers, dtype=D)


def ball(d, reach=3.0):
    """dX = u dt + dW/2, cost |u|^2/2 and cos(x_1) at the end: not linear-quadratic, controls without bounds."""
    eye = torch.eye(d, dtype=D)
    return ControlProblem(
        name="ball", dim=d, controls=d, drift=lambda x, t: torch.zeros_like(x), control_matrix=eye, dispersion=0.5,
        control_cost=eye, terminal_cost=lambda x: torch.cos(x[:, 0]), horizon=0.3,
        box=(torch.full((d,), -reach, dtype=D), torch.full((d,), reach, dtype=D)),
    )  # fmt: skip


def hopf_cole(x):
    """-lam ln E e^(-cos(x + s Z)/lam) with lam = 1/4 and s^2 = .3/4, by Gauss-Hermite."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    phi = np.exp(-np.cos(x + math.sqrt(0.3 / 4) * nodes) / 0.25) @ weights / math.sqrt(2 * math.pi)
    return -0.25 * math.log(phi)


@pytest.mark.parametrize("d", [2, 3])
def test_controls_without_bounds_are_solved_by_central_differences(d):
    found = solve(ball(d), Grid(steps=24))
    assert found.meta["scheme"] == "central" and found.meta["shape"] == [{2: 41, 3: 21}[d]] * d
    x = torch.zeros(3, d, dtype=D)
    x[:, 0] = unit(-0.7, 0.0, 1.5)
    assert found.value(x).tolist() == pytest.approx([hopf_cole(y) for y in (-0.7, 0.0, 1.5)], abs={2: 4e-3, 3: 2e-2}[d])
    bounded = dataclasses.replace(ball(2), bounds=(unit(-1, -1), unit(1, 1)))
    assert solve(bounded, Grid(points=8, steps=4, controls=3)).meta["scheme"] == "semi-lagrangian"


def test_the_scheme_that_is_refused_is_named():
    with pytest.raises(ValueError, match="hybrid or central where controls have no bounds, got 'semi-lagrangian'"):
        solve(ball(2), Grid(scheme="semi-lagrangian"))


@pytest.mark.parametrize("steps", [None, 20])
def test_no_points_are_not_the_default(steps):
    for problem in (ball(2), problems.stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1)):
        for scheme in (None, "upwind"):
            with pytest.raises(ValueError, match="points must be at least 4 on each of the . axes, got 0"):
                solve(problem, Grid(points=0, steps=steps, scheme=scheme))
    bounded = dataclasses.replace(problems.stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1), bounds=(unit(-1), unit(1)))
    with pytest.raises(ValueError, match="points must be at least 4 on each of the 1 axes, got 0"):
        solve(bounded, Grid(points=0, scheme="cubic"))


@pytest.mark.parametrize("place", ["cost", "noise"])
def test_coefficients_of_the_members_in_the_middle_are_looked_at(place):
    # only the member .5 earns t dt, or has noise t, over [0, 1]: V(0, 0) = -1/2, or -E X_1^2 = -int t^2 dt
    problem = ControlProblem(
        name="middle", dim=1, controls=1, drift=lambda x, t: torch.zeros_like(x),
        control_matrix=torch.zeros(1, 1, dtype=D), control_set=unit([0.0], [0.5], [1.0]), horizon=1.0,
        control_cost=lambda x, u, t: torch.where(u[:, 0] == 0.5, -t + 0 * x[:, 0], 0.0), dispersion=0.0,
        terminal_cost=lambda x: 0 * x[:, 0], box=(unit(-4), unit(4)),
    )  # fmt: skip
    if place == "noise":
        problem = dataclasses.replace(
            problem, control_cost=None, minimiser=None, controlled_noise=True,
            dispersion=lambda x, t, u: torch.where(u == 0.5, t + 0 * x, 0.0), terminal_cost=lambda x: -(x[:, 0] ** 2),
        )  # fmt: skip
    found = solve(problem, Grid(points=161, steps=40, scheme="cubic")).value(unit([0.0])).item()
    assert found == pytest.approx({"cost": -1 / 2, "noise": -1 / 3}[place], abs={"cost": 1e-9, "noise": 0.02}[place])


def test_steps_of_different_length_for_each_control():
    # towards the exits at -1 and 1 at speeds 1 and 3: V = min((1 + x)/1, (1 - x)/3)
    problem = ControlProblem(
        name="two ways", dim=1, controls=1, drift=lambda x, t: torch.zeros_like(x),
        control_matrix=torch.ones(1, 1, dtype=D), control_set=unit([-1.0], [3.0]), dispersion=0.0,
        running_cost=lambda x, t: torch.ones_like(x[:, 0]), inside=lambda x: x[:, 0].abs() < 1,
        exit_cost=lambda x, t: 0 * x[:, 0], box=(unit(-1), unit(1)),
    )  # fmt: skip
    found = solve(problem, Grid(points=41, scheme="semi-lagrangian", steps=(20, 60)))
    assert found.meta["dt"] == [1 / 20, 1 / 60]
    # both steps cross one cell: no interpolation, except where the best ways part
    x = found.tensors["axis0"]
    torch.testing.assert_close(found.tensors["values"], torch.minimum(1 + x, (1 - x) / 3), rtol=0, atol=1e-9)
    for steps, message in (
        ((20, 60, 60), r"steps must be one number or 2, one for each control, got \(20, 60, 60\)"),
        ((20, 0), r"steps must be positive and finite, got \(20, 0\)"),
    ):
        with pytest.raises(ValueError, match=message):
            solve(problem, Grid(points=41, scheme="cubic", steps=steps))
    with pytest.raises(ValueError, match=r"steps must be a whole number and at least 3, got \(20, 60\)"):
        solve(ball(2), Grid(steps=(20, 60)))


@pytest.mark.parametrize("rounds", [1, 100])
def test_iterated_linear_solves_in_three_dimensions_give_what_elimination_gives(rounds, monkeypatch):
    problem = ball(3)
    monkeypatch.setattr(stencil, "ROUNDS", 1)
    direct = solve(problem, Grid(points=8, steps=8)).tensors["values"]
    monkeypatch.setattr(stencil, "ROUNDS", rounds)
    calls = []
    monkeypatch.setattr(stencil, "splu", lambda *a, lu=stencil.splu, **k: calls.append(1) or lu(*a, **k))
    again = solve(problem, Grid(points=8, steps=8)).tensors["values"]
    assert bool(calls) == (rounds == 1)
    torch.testing.assert_close(again, direct, rtol=1e-11, atol=1e-11)

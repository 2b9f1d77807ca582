"""The order of every scheme, measured, and the traps of grids: numerical diffusion, and values below the optimum."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from hjbridge.hjb import ControlProblem, Grid, problems, solve

D = torch.float64


def unit(*numbers):
    return torch.tensor(numbers, dtype=D)


def mean_cosine(sigma, rho=0.3):
    """No control, dX = -X dt + sigma dW: V = e^(-rho s) e^(-v/2) cos(e^-s x) + (1 - e^(-rho s))/rho, s = 1 - t."""
    problem = ControlProblem(
        name="mean_cosine", dim=1, controls=0, drift=lambda x, t: -x, control_matrix=torch.zeros(1, 0, dtype=D),
        dispersion=sigma, running_cost=lambda x, t: torch.ones_like(x[:, 0]), discount=rho, horizon=1.0,
        terminal_cost=lambda x: torch.cos(x[:, 0]), box=(unit(-5), unit(5)),
    )  # fmt: skip

    def answer(x):
        v = sigma**2 * (1 - math.exp(-2)) / 2
        return math.exp(-rho - v / 2) * torch.cos(math.exp(-1) * x[:, 0]) + (1 - math.exp(-rho)) / rho

    return problem, answer


def lqr(sigma=0.5, bound=None):
    problem = problems.lqg(0.3, 1.0, 1.0, 1.0, 1.0, sigma, 1.0)
    if bound is None:
        return problem, lambda x: problem.exact.value(x)
    return dataclasses.replace(problem, bounds=(unit(-bound), unit(bound))), lambda x: problem.exact.value(x)


# scheme, problem, points and steps of the coarsest grid, growth of both from one grid to the next, order in dx
TABLE = [
    ("upwind", mean_cosine(0.8), (41, 8), (2, 2), 1),
    ("upwind", lqr(), (41, 8), (2, 2), 1),
    ("hybrid", mean_cosine(0.8), (41, 10), (2, 4), 2),
    ("central", mean_cosine(0.8), (41, 10), (2, 2), 2),
    ("central", lqr(), (41, 10), (2, 2), 2),
    ("semi-lagrangian", mean_cosine(0.8), (41, 10), (2, 2), 1),
    ("semi-lagrangian", mean_cosine(0.0), (41, 10), (2, 2), 1),
    ("semi-lagrangian", lqr(bound=9), (41, 10), (2, 2), 1),
    ("cubic", mean_cosine(0.0), (41, 5), (2, 2), 3),
    ("cubic", lqr(sigma=0.0, bound=4), (41, 5), (2, 2), 2),
    ("cubic", mean_cosine(0.8), (41, 5), (2, 2), 1),
]


@pytest.mark.parametrize(("scheme", "case", "first", "growth", "order"), TABLE)
def test_every_scheme_has_its_order(scheme, case, first, growth, order):
    (problem, answer), x = case, torch.linspace(-1.2, 1.2, 25, dtype=D).unsqueeze(1)
    errors = []
    for level in range(3):
        points, steps = (first[0] - 1) * growth[0] ** level + 1, first[1] * growth[1] ** level
        found = solve(problem, Grid(points, steps, scheme=scheme, controls=801 if scheme == "cubic" else 201))
        errors.append((found.value(x) - answer(x)).abs().max().item())
    rates = np.log2(np.array(errors[:-1]) / errors[1:]) / math.log2(growth[0])
    assert abs(rates[-1] - order) < 0.25, (errors, rates)
    assert errors[-1] < 0.05
    assert found.meta["order"] == order


def test_a_dispersion_that_is_zero_or_a_function_decides_the_order_of_cubic():
    still, _ = mean_cosine(0.0)
    for noise, order in ((unit([0.0]), 3), (unit([0.8]), 1), (lambda x, t: 0.8 + 0 * x, 1)):
        assert solve(dataclasses.replace(still, dispersion=noise), Grid(21, 4, scheme="cubic")).meta["order"] == order


def test_numerical_diffusion_grows_as_the_time_step_shrinks_and_cubics_may_fall_below():
    # 5.240 is what the best control costs from (1, 1): measured by closed loop in test_pendulum
    still, start = problems.pendulum(sigma=0.0), unit([1.0, 1.0])
    found = {steps: solve(still, Grid(60, steps)).value(start).item() for steps in (30, 150)}
    assert 0.1 < found[30] - 5.240 < 0.25 and found[150] - 5.240 > 1.5
    assert solve(still, Grid(60, 30, scheme="cubic")).value(start).item() < 5.240 - 0.1


def test_the_monotone_value_of_a_convex_problem_is_never_below_the_optimum():
    problem, answer = lqr(sigma=0.0, bound=9)
    found = solve(problem, Grid(41, 20, scheme="semi-lagrangian", domain=([-3.0], [3.0])))
    nodes = found.tensors["axis0"].unsqueeze(1)
    gap = found.tensors["values"][0] - answer(nodes)
    assert gap.min() >= 0 and 0.05 < gap.max() < 0.2


@pytest.mark.parametrize("scheme", ["upwind", "hybrid", "semi-lagrangian", "cubic", "central"])
def test_only_the_scheme_that_is_not_monotone_leaves_the_range_of_the_cost(scheme):
    # a probability: transport of a steep step under little noise must stay in [0, 1]
    problem, _ = mean_cosine(0.05, rho=0.0)
    step = dataclasses.replace(
        problem, drift=lambda x, t: 1 - x, running_cost=None,
        terminal_cost=lambda x: torch.sigmoid(60 * (x[:, 0] - 0.3)),
    )  # fmt: skip
    table = solve(step, Grid(101, 40, scheme=scheme)).tensors["values"]
    if scheme == "central":
        assert table.max() > 1.1
    else:
        assert table.min() >= -1e-12 and table.max() <= 1 + 1e-12


@pytest.mark.parametrize("scheme", ["semi-lagrangian", "cubic"])
def test_a_cost_that_is_never_negative_has_no_negative_value(scheme):
    assert solve(problems.pendulum(sigma=0.0), Grid(32, 20, scheme=scheme)).tensors["values"].min() >= 0


def test_monotone_steps_keep_the_order_of_terminal_costs():
    problem = problems.pendulum()
    higher = dataclasses.replace(
        problem, terminal_cost=lambda x: problem.terminal_cost(x) + torch.exp(-20 * (x[:, 0] ** 2 + x[:, 1] ** 2))
    )  # fmt: skip
    for scheme in ("semi-lagrangian", "upwind"):
        low, high = (solve(p, Grid(24, 8, scheme=scheme)).tensors["values"] for p in (problem, higher))
        assert (high - low).min() >= -1e-9 and (high - low)[0].max() > 1e-3


@pytest.mark.parametrize("scheme", ["semi-lagrangian", "cubic"])
def test_a_step_that_leaves_costs_its_part_before_the_exit(scheme):
    # dx = dt until x = 1 from x = .9, with steps of .2: V = 7 + (1 - e^(-.1 rho))/rho, discounted exit cost
    rho = 0.5
    problem, _ = mean_cosine(0.0, rho)
    walk = dataclasses.replace(
        problem, drift=lambda x, t: torch.ones_like(x), inside=lambda x: x[:, 0] < 1, box=(unit(-1), unit(1)),
        exit_cost=lambda x, t: 7 + 0 * x[:, 0], terminal_cost=lambda x: 7 + 0 * x[:, 0],
    )  # fmt: skip
    table = solve(walk, Grid(41, 5, scheme=scheme)).tensors["values"]
    assert table[0, 38].item() == pytest.approx(7 * math.exp(-0.1 * rho) + (1 - math.exp(-0.1 * rho)) / rho, abs=1e-9)

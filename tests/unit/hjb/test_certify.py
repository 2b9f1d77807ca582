import math
from dataclasses import replace

import pytest
import torch

from hjbridge.hjb import ControlProblem, Solution, certify, simulate
from hjbridge.hjb.certificate.closed_loop import martingale
from hjbridge.hjb.problems import lqg, merton, stationary_lqr

F64 = torch.float64
PLANE = lqg([[0.0, 1.0], [1.0, -0.2]], [[0.0], [1.0]], 1.0, 1.0, 1.0, 0.5, 1.0)
LINE = lqg(0.0, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0)
# here P = 1 at all times: V = x^2/2 + s^2 (T - t)/2, u = -x
LINE = replace(LINE, exact=Solution(LINE, value_function=lambda x, t: x[:, 0] ** 2 / 2 + 0.125 * (1 - t)))
ONE = torch.ones(1, 1, dtype=F64)
QUICK = {"paths": 512, "steps": 24, "points": 64}


def changed(problem, control=None, value=None):
    """The exact solution with another control or value, under the name `learnt`."""
    exact = problem.exact
    return Solution(
        problem, "learnt",
        value_function=value or exact.value,
        gradient_function=None if value else exact.gradient,
        control_function=control or exact.control,
    )  # fmt: skip


def failed(certificate):
    return [check.name for check in certificate.checks if not check.passed]


def closed_form(problem, k, x, N):
    """Cost of u = -k x on a scalar LQG problem with N Euler steps, from the second moment of the chain."""
    lq, dt = problem.linear_quadratic, problem.horizon / N
    a, b, q, r, g, s = (m.item() for m in (lq.A, lq.B, lq.Q, lq.R, lq.G, lq.S))
    second, cost = x**2, 0.0
    for _ in range(N):
        cost += (q + r * k**2) / 2 * second * dt
        second = (1 + (a - b * k) * dt) ** 2 * second + s**2 * dt
    return cost + g / 2 * second


def test_the_exact_solution_is_optimal():
    found = certify(PLANE, PLANE.exact)
    assert found.optimal and failed(found) == []
    assert [check.name for check in found.checks] == [
        "step", "cost against value", "residual", "terminal", "cost against exact",
    ]  # fmt: skip
    assert (found.problem, found.method, found.paths, found.steps, found.horizon) == ("lqg", "exact", 2048, 100, 1.0)
    assert found.residual_quantiles[2] < 1e-12 and found.terminal_misfit < 1e-12
    assert found.value_error == found.gradient_error == found.control_error == 0
    assert found.control_gap.mean == 0 and found.cost_ratio.mean == 1 and found.exact_excess.mean == 0
    assert abs(found.excess.mean) < 4 * found.excess.stderr < 0.01
    # the martingale and the value at the starts leave little of the noise
    assert found.stderr < found.plain_stderr / 20
    assert 1.3 < found.defect_sd_coarse / found.defect_sd < 1.6
    assert abs(found.extrapolated.mean - found.cost + found.step_change * -1) < 1e-3


@pytest.mark.parametrize("kind", ["shifted", "weaker"])
def test_a_worse_control_costs_its_distance_from_the_optimal_one(kind):
    best = PLANE.exact.control

    def control(x, t):
        return best(x, t) + 0.5 if kind == "shifted" else 0.7 * best(x, t)

    found = certify(PLANE, changed(PLANE, control), paths=1024, steps=100)
    # 1/2 E int (u - u*)'R(u - u*) dt on paths of another seed
    generator = torch.Generator().manual_seed(7)
    grid = torch.linspace(0, 1, 201, dtype=F64)
    path = simulate(PLANE, control, PLANE.initial(2000, generator), grid, generator)
    pairs = zip(path.states[:-1], path.grid[:-1], path.controls, strict=True)
    samples = sum((u - best(x, t)).square().sum(1) / 2 / 200 for x, t, u in pairs)
    error = 3 * math.hypot(samples.std().item() / math.sqrt(2000), 0.08 * samples.mean().item() / 3)
    assert found.control_gap.mean == pytest.approx(samples.mean().item(), abs=error)
    if kind == "shifted":
        assert found.control_gap.mean == pytest.approx(0.125, abs=1e-12)
    # J(u) - V, against the claimed value and paired with the exact control
    for excess in (found.excess, found.exact_excess):
        allowed = 3 * math.hypot(excess.stderr, found.control_gap.stderr) + 1e-4
        assert 0.08 < excess.mean == pytest.approx(found.control_gap.mean, abs=allowed)
    assert found.exact_excess.stderr < 0.01
    assert found.cost_ratio.mean == pytest.approx(1 + found.control_gap.mean / found.exact_value, abs=0.004)
    assert not found.optimal and failed(found) == ["cost against value", "cost against exact"]
    assert found.control_error > 0.25 and found.value_error == 0
    assert "cost less claimed value" in found.reason and "beyond the allowed" in found.reason
    assert found.baseline.mean > 1.5 * found.cost


@pytest.mark.parametrize(
    ("value", "names"),
    [
        # a constant does not show in the equation, nor in the gradient
        (lambda x, t: PLANE.exact.value(x, t) + 0.1, ["cost against value"]),
        (lambda x, t: PLANE.exact.value(x, t) - 0.1, ["cost against value"]),
        (lambda x, t: 1.1 * PLANE.exact.value(x, t), ["cost against value", "residual"]),
        # half of the constant that the noise makes
        (lambda x, t: PLANE.exact.value(x, t) - PLANE.exact.value(0 * x, t) / 2, ["cost against value", "residual"]),
    ],
    ids=["higher", "lower", "scaled", "half trace"],
)
def test_the_right_control_with_a_wrong_value_is_refused(value, names):
    found = certify(PLANE, changed(PLANE, value=value), **QUICK)
    assert not found.optimal and failed(found) == names
    x0 = PLANE.initial(512, torch.Generator().manual_seed(0))
    difference = (value(x0, 0.0) - PLANE.exact.value(x0, 0.0)).mean().item()
    assert found.value - found.exact_value == pytest.approx(difference)
    # the cost is what it is
    assert found.excess.mean == pytest.approx(-difference, abs=4 * found.excess.stderr + 5e-3)
    assert found.control_gap.mean == 0 and found.value_error > 0.01


def test_the_true_cost_of_a_bad_control_does_not_pass_for_the_value():
    """Claimed value and cost agree, and the residual says that a better control exists."""
    idle = lqg(0.0, 0.0, 1.0, 1.0, 1.0, 0.5, 1.0).exact.value
    found = certify(LINE, changed(LINE, lambda x, t: 0 * x, idle), **QUICK)
    passed = [check.name for check in found.checks if check.passed]
    assert "cost against value" in passed and "terminal" in passed and "residual" in failed(found)
    assert not found.optimal and "90 % quantile of the relative residual" in found.reason
    assert found.baseline.mean == pytest.approx(found.cost, abs=4 * found.baseline.stderr)


def test_cost_and_its_change_are_those_of_the_euler_chain():
    x = 1.3
    found = certify(LINE, changed(LINE, lambda x, t: 0.8 * LINE.exact.control(x, t)), x0=x * ONE, paths=2000, steps=40)
    fine, coarse, idle, best = (closed_form(LINE, k, x, N) for k, N in ((0.8, 40), (0.8, 20), (0.0, 40), (1.0, 40)))
    assert found.cost == pytest.approx(fine, abs=4 * found.stderr) and found.stderr < 0.002
    assert found.step_change == pytest.approx(fine - coarse, abs=6e-4) and abs(fine - coarse) > 5e-3
    assert found.extrapolated.mean == pytest.approx(2 * fine - coarse, abs=4 * found.extrapolated.stderr)
    assert found.step_error == pytest.approx(abs(fine - coarse) / fine, rel=0.15)
    assert found.baseline.mean == pytest.approx(idle, abs=4 * found.baseline.stderr)
    assert found.exact_cost.mean == pytest.approx(best, abs=4 * found.exact_cost.stderr)
    assert found.cost_ratio.mean == pytest.approx(fine / best, abs=4 * found.cost_ratio.stderr)
    assert found.cost_ratio.stderr < 1e-3


def test_the_standard_error_is_honest():
    """Over seeds, the excess of the exact control at one start spreads as it says."""
    runs = [certify(LINE, LINE.exact, x0=ONE, paths=256, steps=20, points=16, seed=seed) for seed in range(10)]
    z = torch.tensor([run.excess.mean / run.excess.stderr for run in runs])
    assert 0.5 < z.std() < 1.6
    means = torch.tensor([run.cost for run in runs])
    assert 0.5 < means.std() / runs[0].stderr < 1.6
    assert runs[0].stderr < runs[0].plain_stderr / 5


def test_an_infinite_horizon_is_closed_by_the_value():
    problem = stationary_lqr(-0.5, 1.0, 1.0, 0.5, 0.3, 0.4)
    found = certify(problem, problem.exact, paths=512)
    assert found.optimal and found.horizon == 5.0 and found.terminal_misfit is None and found.defect_mean is None
    assert found.steps in (100, 200, 400) and found.step_error <= 0.05
    V, T = problem.exact.value, found.horizon
    # at T the state has the stationary second moment s^2/(2 (k - alpha)), up to e^-14 and the step
    k = -problem.exact.control(ONE).item()
    second = 0.3**2 / (2 * (k + 0.5))
    tail = math.exp(-0.4 * T) * (V(ONE).item() - V(0 * ONE).item()) * second + math.exp(-0.4 * T) * V(0 * ONE).item()
    assert found.tail == pytest.approx(tail, rel=0.1)
    wrong = certify(problem, changed(problem, value=lambda x, t: V(x, t) + 0.1), paths=512, steps=200)
    assert failed(wrong) == ["cost against value", "residual"]
    # the tail takes its part of a wrong constant
    assert wrong.excess.mean == pytest.approx(-0.1 * (1 - math.exp(-2)), abs=4 * wrong.excess.stderr + 2e-3)
    assert wrong.exact_excess.mean == 0
    shifted = certify(problem, changed(problem, lambda x, t: problem.exact.control(x, t) + 0.5), paths=64, steps=200)
    # 1/2 R .5^2 int_0^T e^(-rho t) dt
    assert shifted.control_gap.mean == pytest.approx(0.0625 * (1 - math.exp(-2)) / 0.4, rel=2e-3)
    assert shifted.exact_excess.mean == pytest.approx(shifted.control_gap.mean, rel=0.02)
    assert not shifted.optimal


def exit_problem():
    """Time that a Brownian motion of dispersion 1/2 spends in (-1, 1): V = 4 (1 - x^2)."""
    problem = ControlProblem(
        "exit", 1, 0, lambda x, t: 0 * x, torch.zeros(1, 0, dtype=F64), 0.5, running_cost=lambda x, t: 1 + 0 * x[:, 0],
        inside=lambda x: x[:, 0].abs() < 1, exit_cost=lambda x, t: 0 * x[:, 0],
    )  # fmt: skip
    return problem, lambda x, t: 4 * (1 - x[:, 0] ** 2)


def test_first_exit_is_extrapolated_with_the_root_of_the_step():
    problem, value = exit_problem()
    x0 = torch.zeros(1, 1, dtype=F64)
    options = {"x0": x0, "paths": 2000, "steps": 400, "horizon": 12.0}
    found = certify(problem, Solution(problem, value_function=value), **options)
    # the chain sees the exit late, by about 2 * .5826 * sigma sqrt(h)/sigma^2 (Broadie, Glasserman and Kou 1997)
    late = 2 * 0.5826 * math.sqrt(12.0 / 400) / 0.5
    assert found.cost - 4 == pytest.approx(late, rel=0.25)
    assert abs(found.excess.mean) < 3 * found.excess.stderr + 0.1 and found.value == 4
    assert found.baseline is None and found.defect_mean is None and found.residual_quantiles[2] < 1e-12
    with pytest.raises(ValueError, match="horizon must be given: the problem has neither"):
        certify(problem, Solution(problem, value_function=value), x0=x0)


def test_stopping_is_that_of_the_solution():
    """dX = dW, 1 a unit of time until one stops at the cost x^2 - 2 t: waiting costs as much as it brings less 1."""
    problem = ControlProblem(
        "stop", 1, 0, lambda x, t: 0 * x, torch.zeros(1, 0, dtype=F64), 1.0, running_cost=lambda x, t: 1 + 0 * x[:, 0],
        terminal_cost=lambda x: x[:, 0] ** 2, horizon=1.0, obstacle=lambda x, t: x[:, 0] ** 2,
    )  # fmt: skip
    x0 = torch.full((1, 1), 0.5, dtype=F64)
    first = Solution(problem, value_function=lambda x, t: x[:, 0] ** 2)
    now = certify(problem, first, x0=x0, **QUICK)
    assert now.optimal and now.cost == pytest.approx(0.25, abs=1e-12) and now.defect_mean is None
    # a path that has stopped takes no part in the noise
    path = simulate(problem, first.control, x0, [0.0, 0.5, 1.0], torch.Generator().manual_seed(0), stop=first.stop)
    assert martingale(problem, first, path).item() == 0
    never = certify(problem, Solution(problem, control_function=lambda x, t: x[:, :0]), x0=x0, **QUICK)
    assert never.cost == pytest.approx(2.25, abs=4 * never.stderr) and not never.optimal


def test_rewards_are_maximised():
    problem = merton(0.03, 0.08, 0.2, 2.0, T=1.0)
    found = certify(problem, problem.exact, **QUICK)
    assert (
        found.optimal and found.sense == "max" and "closed-loop reward" in found.report() and ": reward -" in str(found)
    )
    half = certify(problem, changed(problem, lambda x, t: 0.5 * problem.exact.control(x, t)), **QUICK)
    assert not half.optimal and "cost against exact" in failed(half)
    # J(u) - V is negative: the loss of growth gamma sigma^2 (pi - pi*)^2/2 times V_w w
    loss = 2 * 0.04 * 0.3125**2 / 2
    assert half.control_gap.mean == pytest.approx(-loss * abs(half.exact_value), rel=0.03)
    for excess in (half.excess, half.exact_excess):
        assert excess.mean == pytest.approx(half.control_gap.mean, abs=4 * excess.stderr)

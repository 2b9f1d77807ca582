"""Importance sampling of Hopf and Cole's expectation: problems whose weights are known path by path."""

import dataclasses
import math

import pytest
import torch

from hjbridge.hjb import ControlProblem, PathIntegral, Solution, hopf_cole_estimate, load, simulate, solve
from hjbridge.hjb.problems import double_well, han_jentzen_e, lqg

LAM, HORIZON, COST = 0.6, 0.8, 0.3
# three noises and three controls push two states
ROOT = torch.tensor([[0.7, 0.1, 0.3], [-0.2, 0.5, 0.1]], dtype=torch.float64)
R = torch.tensor([[2.0, 0.3, 0.1], [0.3, 1.0, 0.0], [0.1, 0.0, 1.5]], dtype=torch.float64)
B = ROOT @ torch.linalg.cholesky(R).T / math.sqrt(LAM)
SLOPE = torch.tensor([0.6, -0.4], dtype=torch.float64)
PULL = torch.tensor([0.4, 0.2], dtype=torch.float64)
BEST = -torch.linalg.inv(R) @ B.T @ SLOPE
STARTS = torch.tensor([[1.0, -0.5], [0.2, 0.3]], dtype=torch.float64)
GRID = torch.linspace(0, HORIZON, 9, dtype=torch.float64)


def tilted():
    """Constant drift and running cost, linear terminal cost: V is linear, the best control constant."""
    return ControlProblem(
        name="tilted",
        dim=2,
        controls=3,
        drift=lambda x, t: PULL.expand(len(x), -1),
        control_matrix=B,
        dispersion=ROOT,
        control_cost=R,
        running_cost=lambda x, t: torch.full_like(x[:, 0], COST),
        terminal_cost=lambda x: x @ SLOPE,
        horizon=HORIZON,
    )


def value(x, t):
    # V = slope.(x + f (T - t)) + l (T - t) - slope'B R^-1 B'slope (T - t)/2
    power = SLOPE @ ROOT @ ROOT.T @ SLOPE / LAM
    return x @ SLOPE + (PULL @ SLOPE + COST - power / 2) * (HORIZON - t)


def run(share, n=4, starts=STARTS, seed=0):
    start = starts.repeat_interleave(n, 0)
    control = (share * BEST).expand(len(start), -1)
    return simulate(tilted(), lambda x, t: control, start, GRID, torch.Generator().manual_seed(seed))


def test_weights_have_no_variance_under_the_best_control():
    found = hopf_cole_estimate(tilted(), run(1.0))
    torch.testing.assert_close(found.value, value(STARTS, 0.0), rtol=1e-12, atol=1e-12)
    assert found.stderr.max() < 1e-12
    torch.testing.assert_close(found.ess, torch.ones(2, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("share", [0.0, 0.6, 1.3])
def test_any_other_control_gives_the_same_value(share):
    n = 4000
    found = hopf_cole_estimate(tilted(), run(share, n))
    # ln w is normal with the variance |theta - theta*|^2 T = (1 - share)^2 u*'B (sigma sigma')^-1 B u* T
    push = B @ BEST
    variance = (1 - share) ** 2 * HORIZON * (push @ torch.linalg.inv(ROOT @ ROOT.T) @ push).item()
    expected = torch.full((2,), math.exp(-variance), dtype=torch.float64)
    torch.testing.assert_close(found.ess, expected, rtol=0.1, atol=0)
    stderr = torch.full((2,), LAM * math.sqrt(math.expm1(variance) / n), dtype=torch.float64)
    torch.testing.assert_close(found.stderr, stderr, rtol=0.1, atol=0)
    assert ((found.value - value(STARTS, 0.0)).abs() < 4 * found.stderr).all()


ASKEW = torch.tensor([0.5, -0.8, 1.4], dtype=torch.float64)


@pytest.mark.parametrize(("share", "rest"), [(0.0, 0.3), (ASKEW, 0.3)], ids=["none", "askew"])
def test_control_variate_takes_the_noise_of_a_poor_control_away(share, rest):
    path, solution = run(share, 2000), Solution(tilted(), value_function=value)
    plain, better = hopf_cole_estimate(tilted(), path), hopf_cole_estimate(tilted(), path, solution)
    assert (better.stderr < rest * plain.stderr).all()
    assert ((better.value - value(STARTS, 0.0)).abs() < 4 * better.stderr).all()
    assert torch.equal(better.ess, plain.ess)


@pytest.mark.parametrize("height", [600.0, -600.0])
def test_a_constant_in_the_cost_does_not_disturb_the_control_variate(height):
    """V/lam = 1000: e^(-V/lam) is out of range, its ratio to the start is not."""
    path, solution = run(0.0, 500), Solution(tilted(), value_function=value)
    low = hopf_cole_estimate(tilted(), path, solution)
    high = dataclasses.replace(tilted(), terminal_cost=lambda x: x @ SLOPE + height)
    lifted = dataclasses.replace(path, terminal=path.terminal + height)
    found = hopf_cole_estimate(high, lifted, Solution(high, value_function=lambda x, t: value(x, t) + height))
    torch.testing.assert_close(found.value - height, low.value, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.stderr, low.stderr, rtol=1e-9, atol=0)
    # the best factor of the control variate: the errors of the weights and of the sum of psi (Z/lam + theta) dW are
    # regressed on one another, so that a wrong constant in the value changes nothing
    off = hopf_cole_estimate(tilted(), path, Solution(tilted(), value_function=lambda x, t: value(x, t) + height))
    torch.testing.assert_close(off.value, low.value, rtol=0, atol=1e-10)


def test_control_variate_of_the_double_well():
    problem = double_well()
    start, grid = torch.zeros(500, 1).double(), torch.linspace(0, 1, 51).double()
    path = simulate(problem, lambda x, t: torch.zeros_like(x), start, grid, torch.Generator().manual_seed(0))
    assert hopf_cole_estimate(problem, path, problem.exact).stderr < 0.2 * hopf_cole_estimate(problem, path).stderr


def test_starts_keep_their_order():
    path = run(1.0, starts=torch.cat((STARTS, STARTS[:1])))
    torch.testing.assert_close(hopf_cole_estimate(tilted(), path).value, value(STARTS, 0.0))


def test_paths_that_leave_stop_weighing():
    # sigma^2 psi''/2 = l psi/lam on (-1, 1), psi = 1 outside: V = -lam ln(cosh(k x)/cosh k)
    one = torch.ones(1, 1).double()
    problem = ControlProblem(
        name="interval", dim=1, controls=1, drift=lambda x, t: torch.zeros_like(x), control_matrix=one, dispersion=1.0,
        control_cost=0.5 * one, running_cost=lambda x, t: torch.full_like(x[:, 0], 0.4),
        inside=lambda x: x[:, 0].abs() < 1, exit_cost=lambda x, t: torch.zeros_like(x[:, 0]),
    )  # fmt: skip
    k, start = math.sqrt(2 * 0.4 / 0.5), torch.full((1000, 1), 0.3).double()

    def best(x, t):
        return k * torch.tanh(k * x)

    path = simulate(problem, best, start, torch.linspace(0, 8, 801).double(), torch.Generator().manual_seed(0))
    found = hopf_cole_estimate(problem, path)
    # leaving is seen at the ends of steps only: late by about .58 sqrt(dt)
    expected = -0.5 * math.log(math.cosh(0.3 * k) / math.cosh(1.058 * k))
    assert found.value.item() == pytest.approx(expected, abs=0.004)
    assert found.ess.item() > 0.98
    with pytest.raises(ValueError, match="got .* paths that have not left: lengthen the grid"):
        hopf_cole_estimate(problem, simulate(problem, best, start, torch.linspace(0, 0.5, 51).double()))


def test_refuses_paths_that_end_early_or_start_alone():
    with pytest.raises(ValueError, match="path must end at the horizon 0.8, got 0.4"):
        hopf_cole_estimate(tilted(), dataclasses.replace(run(1.0), grid=GRID / 2))
    with pytest.raises(ValueError, match="at least two paths for each start, got one"):
        hopf_cole_estimate(tilted(), run(1.0, n=1))
    assert hopf_cole_estimate(tilted(), run(1.0, n=2)).value.shape == (2,)
    with pytest.raises(ValueError, match="deviate"):
        hopf_cole_estimate(dataclasses.replace(tilted(), dispersion=ROOT[:, :2]), run(1.0))


def test_path_integral_from_any_time():
    x, t = STARTS, torch.tensor([0.1, 0.7], dtype=torch.float64)
    guided = PathIntegral(16, 5, guide=lambda x, t: BEST.expand(len(x), -1))
    torch.testing.assert_close(guided.estimate(tilted(), x, t).value, value(x, t), rtol=1e-12, atol=1e-12)
    solution = solve(tilted(), guided)
    torch.testing.assert_close(solution.gradient(x, t), SLOPE.expand(2, -1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(solution.control(x, t), BEST.expand(2, -1), rtol=1e-12, atol=1e-12)
    plain = PathIntegral(2000, 5).estimate(tilted(), x, t)
    assert ((plain.value - value(x, t)).abs() < 4 * plain.stderr).all() and (plain.ess < 0.95).any()
    torch.testing.assert_close(guided.estimate(tilted(), x, HORIZON).value, x @ SLOPE, rtol=1e-9, atol=1e-9)


def test_path_integral_keeps_time():
    # a running cost of t more adds its left-point sum to V
    later = dataclasses.replace(tilted(), running_cost=lambda x, t: COST + t.expand(len(x)))
    t = torch.tensor([0.1, 0.7], dtype=torch.float64)
    guided, dt = PathIntegral(8, 5, guide=lambda x, t: BEST.expand(len(x), -1)), (HORIZON - t) / 5
    extra = sum((t + i * dt) * dt for i in range(5))
    torch.testing.assert_close(
        guided.estimate(later, STARTS, t).value, value(STARTS, t) + extra, rtol=1e-12, atol=1e-12
    )


def test_path_integral_of_the_benchmark():
    problem, x = han_jentzen_e(10, 1.0), torch.randn(3, 10, generator=torch.Generator().manual_seed(0)).double()
    solution = solve(problem, PathIntegral(4000, 2), seed=4)
    found = PathIntegral(4000, 2).estimate(problem, x, 0.3, seed=4)
    assert torch.equal(solution.value(x, 0.3), found.value)
    assert ((found.value - problem.exact.value(x, 0.3)).abs() < 4 * found.stderr).all()
    exact = problem.exact.gradient(x, 0.3)
    assert (solution.gradient(x, 0.3) - exact).norm() < 0.15 * exact.norm()
    # the same noise for every point: what one returns does not depend on the others
    torch.testing.assert_close(solution.value(x[1:2], 0.3), found.value[1:2], rtol=1e-13, atol=0)


def test_path_integral_is_differentiated_as_it_is():
    problem = double_well()
    solution = solve(problem, PathIntegral(50, 10, guide=lambda x, t: 1 - x))
    x, h = torch.tensor([[-0.5], [0.4]], dtype=torch.float64), 1e-5
    central = (solution.value(x + h, 0.2) - solution.value(x - h, 0.2)) / (2 * h)
    torch.testing.assert_close(solution.gradient(x, 0.2)[:, 0], central, rtol=1e-7, atol=1e-8)
    t = torch.tensor([0.2, 0.5], dtype=torch.float64, requires_grad=True)
    rate = torch.autograd.grad(solution.value(x, t).sum(), t)[0]
    t = t.detach()
    torch.testing.assert_close(
        rate, (solution.value(x, t + h) - solution.value(x, t - h)) / (2 * h), rtol=1e-6, atol=1e-7
    )


def test_path_integral_comes_back_unless_guided(tmp_path):
    problem, x = han_jentzen_e(2, 1.0), torch.zeros(1, 2).double()
    solution = solve(problem, PathIntegral(20, 3), seed=9)
    assert torch.equal(load(solution.save(tmp_path / "free")).value(x, 0.1), solution.value(x, 0.1))
    guided = solve(problem, PathIntegral(20, 3, guide=lambda x, t: -x))
    with pytest.raises(ValueError, match="guide must be None to load a solution"):
        load(guided.save(tmp_path / "guided"))


def test_path_integral_refuses():
    with pytest.raises(ValueError, match="paths must be at least 2, got 1"):
        PathIntegral(paths=1)
    with pytest.raises(ValueError, match="steps must be positive, got 0"):
        PathIntegral(steps=0)
    two = torch.eye(2).double()
    with pytest.raises(ValueError, match="deviate"):
        solve(lqg(two, two[:, :1], two, two[:1, :1], two, 0.5, 1.0), PathIntegral())
    with pytest.raises(ValueError, match="use FirstExit"):
        solve(dataclasses.replace(tilted(), horizon=None), PathIntegral())

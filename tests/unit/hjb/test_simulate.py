import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from hjbridge.hjb import ControlProblem, simulate
from hjbridge.hjb.problems import lqg

F64 = torch.float64
PLANE = lqg([[0, 1], [1, -0.2]], [[0], [1.0]], 1.0, 0.5, 1.0, [[0.5, 0.1, 0], [0.2, 0.7, 0.3]], 1.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def times(count, end=1.0):
    return torch.linspace(0, end, count + 1, dtype=F64)


def column(*values):
    return torch.tensor(values, dtype=F64).unsqueeze(1)


def still(**change):
    """dX = 1 dt without noise or control, at running cost 1 + x and final cost 10 + x."""
    problem = ControlProblem(
        name="still", dim=1, controls=0, drift=lambda x, t: torch.ones_like(x), control_matrix=torch.zeros(1, 0),
        dispersion=0.0, running_cost=lambda x, t: 1 + x[:, 0], terminal_cost=lambda x: 10 + x[:, 0], horizon=1.0,
    )  # fmt: skip
    return replace(problem, **change)


def idle(x, t):
    return x[:, :0]


def excess(problem, control, count, noises):
    """Cost less V(x0) less sum grad V . sigma dW, and 1/2 sum (u - u*)'R(u - u*) dt, (n,) each, in `count` steps."""
    exact, n = problem.exact, noises.shape[1]
    x0, noises = torch.tensor([[1.0, -0.5]], dtype=F64).expand(n, 2), noises.unflatten(0, (count, -1)).sum(1)
    path = simulate(problem, control, x0, times(count), noises=noises)
    mean, gap = path.cost - exact.value(x0), torch.zeros(n, dtype=F64)
    for i, t in enumerate(path.grid[:-1]):
        shock = (path.sigmas[i] @ noises[i].unsqueeze(-1)).squeeze(-1)
        mean = mean - (exact.gradient(path.states[i], t) * shock).sum(1)
        gap = gap + 0.5 * (path.controls[i] - exact.control(path.states[i], t))[:, 0] ** 2 / 2 / count
    return mean, gap


CONTROLS = {
    "best": PLANE.exact.control,
    "shifted": lambda x, t: PLANE.exact.control(x, t) + 0.5,
    "weak": lambda x, t: 0.7 * PLANE.exact.control(x, t),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_the_mean_cost_is_off_by_first_order_in_the_step(name):
    bias = []
    for count in (16, 32, 64):
        # a cost that is quadratic in 3 N increments of variance 1/N has its mean over these 6 N points
        axes = 3**0.5 * torch.eye(3 * count, dtype=F64).reshape(3 * count, count, 3).transpose(0, 1)
        mean, gap = excess(PLANE, CONTROLS[name], count, torch.cat([axes, -axes], 1))
        bias.append((mean - gap).mean().item())
    assert abs(bias[0]) > 5e-3
    # without the part of first order, one of second order is left: the limit is V + 1/2 E int |u - u*|_R^2 dt
    coarse, fine = (2 * b - a for a, b in pairwise(bias))
    assert abs(math.log2(coarse / fine) - 2) < 0.1 and abs(fine) < 5e-4


@pytest.mark.parametrize("name", CONTROLS)
def test_what_a_control_costs_above_the_optimum_is_half_its_squared_distance(name):
    n = 3000
    noises = torch.randn(128, n, 3, generator=seeded(), dtype=F64) / 128**0.5
    (coarse, gap1), (fine, gap2) = (excess(PLANE, CONTROLS[name], count, noises) for count in (64, 128))
    # the bias of first order cancels
    cost, gap = 2 * fine - coarse, 2 * gap2 - gap1
    stderr = (cost - gap).std().item() / n**0.5
    assert stderr < 2e-3 and abs((cost - gap).mean().item()) < 3 * stderr
    if name == "shifted":
        # 1/2 E int |u - u*|_R^2 dt
        assert gap.mean().item() == pytest.approx(0.5 * 0.5**2 / 2, rel=1e-9)
        assert cost.mean().item() > 10 * stderr
    else:
        assert (cost.mean() > 8 * stderr) == (name == "weak")


def test_paths_converge_strongly_with_order_one_for_additive_noise():
    fine = torch.randn(256, 500, 3, generator=seeded(), dtype=F64) / 16
    x0 = PLANE.initial(500, seeded(1))
    ends = []
    for count in (16, 32, 64, 256):
        noises = fine.unflatten(0, (count, -1)).sum(1)
        ends.append(simulate(PLANE, lambda x, t: -x[:, 1:], x0, times(count), noises=noises).x)
    errors = [(end - ends[-1]).square().mean().sqrt().item() for end in ends[:-1]]
    # errors against 256 steps: 15/256, 7/256, 3/256 for order one
    assert errors[0] / errors[1] == pytest.approx(15 / 7, rel=0.08)
    assert errors[1] / errors[2] == pytest.approx(7 / 3, rel=0.08)


def test_paths_converge_strongly_with_order_one_half_for_multiplicative_noise():
    problem = still(drift=lambda x, t: 0.1 * x, dispersion=lambda x, t: 0.8 * x)
    fine = torch.randn(256, 4000, 1, generator=seeded(), dtype=F64) / 16
    exact = torch.exp(0.1 - 0.32 + 0.8 * fine.sum(0))
    errors = []
    for count in (16, 64, 256):
        noises = fine.unflatten(0, (count, -1)).sum(1)
        x = simulate(problem, idle, torch.ones(4000, 1, dtype=F64), times(count), noises=noises).x
        errors.append((x - exact).square().mean().sqrt().item())
    for coarse, small in pairwise(errors):
        assert abs(math.log2(coarse / small) / 2 - 0.5) < 0.1


def test_the_noise_has_the_variance_of_the_step_and_the_generator_decides():
    grid = [0.0, 0.1, 1.0]
    x0 = torch.zeros(20000, 2, dtype=F64)
    path = simulate(PLANE, lambda x, t: 0 * x[:, :1], x0, grid, seeded())
    assert path.noises.shape == (2, 20000, 3)
    for dw, dt in zip(path.noises, (0.1, 0.9), strict=True):
        assert (dw.T.cov() - dt * torch.eye(3)).abs().max() < 0.04 * dt and dw.mean(0).abs().max() < 0.03 * dt**0.5
    # the first step from the origin is sigma dW
    torch.testing.assert_close(path.states[1], path.noises[0] @ PLANE.linear_quadratic.S.T, rtol=1e-13, atol=1e-13)
    same = simulate(PLANE, lambda x, t: 0 * x[:, :1], x0, grid, seeded())
    again = simulate(PLANE, lambda x, t: 0 * x[:, :1], x0, grid, noises=path.noises)
    assert torch.equal(same.states, path.states) and torch.equal(again.cost, path.cost)


def test_costs_are_left_point_sums_with_discount():
    grid, rho = [0.0, 0.25, 1.0], 0.4
    path = simulate(still(discount=rho), idle, column(0.5), grid)
    assert path.running.item() == pytest.approx(1.5 * 0.25 + math.exp(-0.1) * 1.75 * 0.75, rel=1e-14)
    assert path.terminal.item() == pytest.approx(math.exp(-0.4) * 11.5, rel=1e-14)
    assert path.cost.item() == pytest.approx(path.running.item() + path.terminal.item(), rel=1e-14)
    assert path.end.item() == 1.0 and path.grid.tolist() == grid


def test_the_control_moves_the_state_and_is_paid_for():
    problem = still(
        controls=1, control_matrix=lambda x, t: x.unsqueeze(2), control_cost=torch.full((1, 1), 3.0).double()
    )
    path = simulate(problem, lambda x, t: x + t, column(2.0), [0.0, 0.5, 1.0])
    # x = 2, then 2 + .5 (1 + 2 * 2) = 4.5, then 4.5 + .5 (1 + 4.5 * 5)
    assert path.states[:, 0, 0].tolist() == [2.0, 4.5, 16.25]
    assert path.controls[:, 0, 0].tolist() == [2.0, 5.0]
    assert path.running.item() == pytest.approx(0.5 * (3 + 1.5 * 4) + 0.5 * (5.5 + 1.5 * 25), rel=1e-14)


def test_a_path_that_leaves_ends_there_and_pays():
    problem = still(inside=lambda x: x[:, 0] < 0.55, exit_cost=lambda x, t: 100 + x[:, 0] + 10 * t, discount=0.3)
    path = simulate(problem, idle, column(0.0, -2.0), times(10))
    assert path.end.tolist() == pytest.approx([0.6, 1.0])
    assert path.x[:, 0].tolist() == pytest.approx([0.6, -1.0])
    assert path.states[:, 0, 0].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5] + [0.6] * 5)
    paid = sum(math.exp(-0.03 * i) * (1 + 0.1 * i) * 0.1 for i in range(6))
    assert path.running[0].item() == pytest.approx(paid, rel=1e-12)
    assert path.terminal.tolist() == pytest.approx([math.exp(-0.18) * 106.6, math.exp(-0.3) * 9.0], rel=1e-12)


def test_a_path_that_is_stopped_ends_there_and_pays():
    problem = still(obstacle=lambda x, t: 50 + x[:, 0] + t, discount=0.3)
    path = simulate(problem, idle, column(0.0, -2.0), times(10), stop=lambda x, t: x[:, 0] > 0.35)
    assert path.end.tolist() == pytest.approx([0.4, 1.0])
    paid = sum(math.exp(-0.03 * i) * (1 + 0.1 * i) * 0.1 for i in range(4))
    assert path.running[0].item() == pytest.approx(paid, rel=1e-12)
    assert path.terminal.tolist() == pytest.approx([math.exp(-0.12) * 50.8, math.exp(-0.3) * 9.0], rel=1e-12)
    assert path.x[0].item() == pytest.approx(0.4)


def test_an_infinite_horizon_ends_with_the_grid():
    problem = still(horizon=None, terminal_cost=None)
    path = simulate(problem, idle, column(0.0), [0, 1, 3])
    assert path.running.item() == 1 + 2 * 2 and path.terminal.item() == 0.0


def test_type_follows_the_start_and_gradients_flow():
    assert simulate(PLANE, PLANE.exact.control, torch.zeros(3, 2), [0.0, 1.0], seeded()).cost.dtype == torch.float32
    x0 = column(0.3).requires_grad_()
    path = simulate(still(), idle, x0, times(10))
    (slope,) = torch.autograd.grad(path.cost.sum(), x0)
    assert slope.item() == pytest.approx(2.0, rel=1e-12)
    assert not simulate(still(), idle, column(0.3), times(10)).cost.requires_grad


def test_a_grid_that_was_rounded_still_ends_at_the_horizon():
    problem = still(horizon=1.99)
    assert simulate(problem, idle, column(0.0), torch.tensor([0.0, 1.99])).x.item() == pytest.approx(1.99)
    # numbers of a list keep their digits
    assert simulate(problem, idle, column(0.0), [0.0, 1.99]).grid[-1].item() == 1.99


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"grid": [0.0, 0.5, 0.5, 1.0]}, r"grid must be strictly ascending, got grid\[2\] = 0.5 after grid\[1\] = 0.5"),
        ({"grid": [0.0, 1.5]}, r"t must lie in \[0, 1\], got 1.5"),
        ({"grid": [-0.5, 1.0]}, r"t must lie in \[0, 1\], got -0.5"),
        ({"grid": [0.0, 0.5]}, "grid must end at the horizon 1, got 0.5"),
        ({"x0": torch.zeros(4, 1)}, r"x must be floating, of shape \(n, 2\)"),
        ({"x0": torch.full((4, 2), math.nan)}, "x must be finite, got NaN or infinity"),
        ({"control": lambda x, t: x}, r"control must return shape \(4, 1\), got \(4, 2\)"),
        ({"noises": torch.zeros(2, 4, 3)}, r"noises must have shape \(1, 4, k\), got \(2, 4, 3\)"),
        ({"noises": torch.zeros(1, 1, 3)}, r"noises must have shape \(1, 4, k\), got \(1, 1, 3\)"),
        ({"noises": torch.zeros(1, 4, 1)}, "noises must have 3 Brownian motions, got 1"),
        ({"stop": lambda x, t: x[:, 0] > 0}, "stop must be None: this problem does not allow to stop"),
    ],
)
def test_bad_input_is_refused(options, text):
    given = {"control": lambda x, t: x[:, :1], "x0": torch.zeros(4, 2, dtype=F64), "grid": [0.0, 1.0], **options}
    with pytest.raises(ValueError, match=text):
        simulate(PLANE, **given)


def test_a_start_outside_the_domain_is_refused():
    problem = still(inside=lambda x: x[:, 0] < 1, exit_cost=lambda x, t: x[:, 0])
    with pytest.raises(ValueError, match=r"x0 must lie inside the domain, got \[1.5\]"):
        simulate(problem, idle, column(0.0, 1.5), [0.0, 1.0])


def test_a_path_that_is_not_finite_is_an_error():
    problem = still(drift=lambda x, t: 1 / x)
    with pytest.raises(FloatingPointError, match="a path is not finite: the control is singular there, or a step is"):
        simulate(problem, idle, column(0.0), [0.0, 1.0])
    costly = still(running_cost=lambda x, t: x[:, 0] * math.nan)
    with pytest.raises(FloatingPointError, match="a cost is not a number on 1 of 1 paths"):
        simulate(costly, idle, column(1.0), [0.0, 1.0])

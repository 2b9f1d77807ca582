import math
from dataclasses import replace

import pytest
import torch

from hjbridge.hjb import ControlProblem, Solution, defect_increments, hjb_residual, path_defect, simulate
from hjbridge.hjb.problems import lqg

F64 = torch.float64
LQG = lqg([[0.0, 1.0], [-1.0, -0.5]], [[0.0], [1.0]], 1.0, 1.0, 1.0, 0.5, 1.0)
HALF = torch.full((1,), 0.4, dtype=F64)


def slope_of(value):
    def slope(x, t):
        y = x.detach().requires_grad_()
        return torch.autograd.grad(value(y, t).sum(), y, create_graph=True)[0]

    return slope


def made_up(kind):
    """A problem in two dimensions whose running cost is what a chosen value needs; all coefficients depend on x."""

    def value(x, t):
        return torch.exp(-t / 2) * torch.sin(x[:, 0]) * torch.cos(x[:, 1]) + (x**2).sum(1) / 3 + t * x[:, 1] / 4

    def matrix(x, t):
        zero = torch.zeros_like(x[:, 0])
        return torch.stack([zero, 1 + 0.3 * torch.sin(x[:, 0])], 1).unsqueeze(-1)

    def noise(x, t):
        rows = [0.4 + 0.1 * torch.cos(x[:, 1]), 0.2 * x[:, 0].tanh(), torch.zeros_like(x[:, 0]), 0.3 + 0 * x[:, 0]]
        return torch.stack(rows, 1).reshape(-1, 2, 2)

    def drift(x, t):
        return torch.stack([x[:, 1], -torch.sin(x[:, 0])], 1)

    def best(push):
        if kind == "set":
            return torch.stack([push * u + 0.3 * abs(u) for u in (-1.0, 0.0, 1.0)]).amax(0)
        u = (-push / 0.5).clamp(-0.4, 0.4) if kind == "bounds" else -push / 0.5
        return push * u + 0.5 * u**2 / 2

    def running(x, t):
        with torch.enable_grad():
            y, s = x.detach().requires_grad_(), t.detach().expand(len(x)).clone().requires_grad_()
            v = value(y, s)
            p, rate = torch.autograd.grad(v.sum(), (y, s), create_graph=True)
            H = torch.stack([torch.autograd.grad(p[:, i].sum(), y, retain_graph=True)[0] for i in (0, 1)], 1)
            sigma = noise(y, s)
            trace = ((sigma @ sigma.mT) * H).sum((1, 2)) / 2
            push = (matrix(y, s)[:, :, 0] * p).sum(1)
            return -(rate - 0.3 * v + (drift(y, s) * p).sum(1) + trace + best(push)).detach()

    chosen = {"control_cost": torch.tensor([[0.5]], dtype=F64)}
    if kind == "bounds":
        chosen["bounds"] = (-HALF, HALF)
    if kind == "set":
        members = torch.tensor([[-1.0], [0.0], [1.0]], dtype=F64)
        chosen = {"control_cost": lambda x, u, t: 0.3 * u[:, 0].abs(), "control_set": members, "sense": "max"}
    problem = ControlProblem(
        "made_up", 2, 1, drift, matrix, noise, running_cost=running, horizon=1.0, discount=0.3,
        terminal_cost=lambda x: value(x, x.new_tensor(1.0)), **chosen,
    )  # fmt: skip
    return problem, value


def paths_of(problem, n, N, seed=0, levels=1, start=0.0):
    """Paths from one point under a random feedback, at N steps and, on the same noise, at half as many, and so on."""
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.randn(1, problem.dim, generator=generator, dtype=F64).expand(n, -1)
    K, k = (torch.randn(problem.controls, size, generator=generator, dtype=F64) for size in (problem.dim, 3))

    def control(x, t):
        return 0.3 * torch.sin(x @ K.T) + 0.3 * k[:, 0] * torch.cos(5 * t + k[:, 1])

    grid = torch.linspace(start, problem.horizon, N + 1, dtype=F64)
    found = [simulate(problem, control, x0, grid, generator)]
    for _ in range(1, levels):
        noises = found[-1].noises.unflatten(0, (-1, 2)).sum(1)
        found.append(simulate(problem, control, x0, found[-1].grid[::2], noises=noises))
    return found


def test_the_defect_of_the_value_vanishes_with_the_root_of_the_step():
    defects = [path_defect(LQG, LQG.exact, path) for path in paths_of(LQG, 1000, 160, levels=3)]
    spread, mean = (torch.stack([f(D) for D in defects]) for f in (torch.std, torch.mean))
    assert 0.45 < (spread[2] / spread[0]).log2() / 2 < 0.62
    # the mean is of first order, up to four standard errors
    assert (2 * mean[0] - mean[1]).abs() < 4 * (2 * defects[0] - defects[1]).std() / math.sqrt(1000)
    assert spread[0] < 0.05


@pytest.mark.parametrize("kind", ["free", "bounds", "set"])
def test_the_defect_of_a_chosen_value_is_zero_with_discount_bounds_and_sets(kind):
    problem, value = made_up(kind)
    fine, coarse = (path_defect(problem, value, path) for path in paths_of(problem, 1000, 64, levels=2))
    assert fine.std() < 0.02 and 0.4 < (coarse.std() / fine.std()).log2() < 0.9
    mean = 2 * fine - coarse
    assert mean.mean().abs() < 4 * mean.std() / math.sqrt(1000)


def test_a_defect_that_starts_later_is_discounted_to_zero_all_the_same():
    problem, value = made_up("bounds")
    fine, coarse = (path_defect(problem, value, path) for path in paths_of(problem, 1000, 32, levels=2, start=0.5))
    mean = 2 * fine - coarse
    assert mean.mean().abs() < 4 * mean.std() / math.sqrt(1000) and fine.std() < 0.02


def test_bounds_cost_what_they_take_away():
    problem, value = made_up("bounds")
    (path,) = paths_of(problem, 100, 32)
    loss = 0.0
    for i, t in enumerate(path.grid[:-1]):
        x = path.states[i]
        u = -2 * (1 + 0.3 * torch.sin(x[:, 0])) * slope_of(value)(x, t)[:, 1].detach()
        # H(u) - min H = R (u - u_free)^2/2 at the clipped u
        loss = loss + torch.exp(-0.3 * t) * 0.5 * (u - u.clamp(-0.4, 0.4)) ** 2 / 2 / 32
    bounded, free = (path_defect(p, value, path) for p in (problem, replace(problem, bounds=None)))
    assert loss.mean() > 0.005
    torch.testing.assert_close(bounded - free, loss, rtol=1e-10, atol=1e-12)


def test_it_tells_the_value_from_its_neighbours():
    path, V = paths_of(LQG, 200, 20)[0], LQG.exact.value
    D = path_defect(LQG, V, path)
    x0, start = path.states[0], LQG.time(path.states[0], 0.0)
    # V + a pays a once, at the start
    shifted = path_defect(LQG, lambda x, t: V(x, t) + 0.3, path)
    torch.testing.assert_close(shifted, D - 0.3, rtol=0, atol=1e-12)
    # half of the constant that the noise makes, c(t) = V(0, t)
    constant = V(torch.zeros_like(x0), start)
    halved = path_defect(LQG, Solution(LQG, value_function=lambda x, t: V(x, t) - V(torch.zeros_like(x), t) / 2), path)
    torch.testing.assert_close(halved, D + constant / 2, rtol=0, atol=1e-12)
    assert constant.min() > 0.2

    # a function of time that is zero at the start is not in D; the increments and the residual have it
    late = lambda x, t: V(x, t) + 5 * t  # noqa: E731
    torch.testing.assert_close(path_defect(LQG, late, path), D, rtol=0, atol=1e-12)
    change = defect_increments(LQG, late, path) - defect_increments(LQG, V, path)
    torch.testing.assert_close(change[:-1], torch.full((20, 200), 5 / 20, dtype=F64), rtol=0, atol=1e-12)
    torch.testing.assert_close(change[-1], torch.full((200,), -5.0, dtype=F64), rtol=0, atol=1e-12)
    found = hjb_residual(LQG, late, x0, 0.3) - hjb_residual(LQG, V, x0, 0.3)
    torch.testing.assert_close(found, torch.full((200,), 5.0, dtype=F64), rtol=0, atol=1e-9)

    # the spread of the value's defect goes with the root of the step, that of another value stays
    (path,) = paths_of(LQG, 200, 160)
    scaled = Solution(LQG, value_function=lambda x, t: 1.1 * V(x, t))
    D, other = path_defect(LQG, LQG.exact, path), path_defect(LQG, scaled, path)
    assert D.std() < 0.05 and other.std() > 2 * D.std() and other.mean() < -0.1


def test_a_step_of_the_defect_is_the_residual_times_dt():
    """Two opposite increments are an exact quadrature up to dt: their mean is the residual, of a wrong value, too."""
    problem, value = made_up("bounds")
    dt = 1e-5
    grid = torch.tensor([0.0, dt, 1.0], dtype=F64)
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=F64)
    noises = torch.stack([signs * math.sqrt(dt), 0 * signs])
    x = torch.tensor([[0.4, -0.7]], dtype=F64)
    path = simulate(problem, lambda x, t: 0.2 + 0 * x[:, :1], x.expand(4, -1), grid, noises=noises)

    def wrong(x, t):
        return value(x, t) + 0.3 * x[:, 0] ** 2 * x[:, 1] - torch.exp(-t)

    for candidate, size in ((value, 0.0), (wrong, 0.05)):
        found = defect_increments(problem, candidate, path)[0].mean() / dt
        residual = hjb_residual(problem, candidate, x, 0.0)[0]
        assert residual.abs() >= size
        assert (found - residual).abs() < 1e-3


@pytest.mark.parametrize("candidate", [LQG.exact, LQG.exact.value], ids=["solution", "callable"])
def test_increments_sum_to_the_defect_and_end_with_the_misfit(candidate):
    (path,) = paths_of(LQG, 50, 20)
    rows = defect_increments(LQG, candidate, path)
    assert rows.shape == (21, 50)
    torch.testing.assert_close(rows.sum(0), path_defect(LQG, candidate, path), rtol=0, atol=1e-12)
    assert rows[-1].abs().max() < 1e-12 and rows[:-1].abs().max() > 1e-4
    tilted = defect_increments(LQG, lambda x, t: LQG.exact.value(x, t) + x[:, 0], path)
    torch.testing.assert_close(tilted[-1], -path.x[:, 0], rtol=0, atol=1e-12)


def test_a_solution_and_its_value_have_the_same_defect_with_a_discount():
    problem, value = made_up("free")
    (path,) = paths_of(problem, 40, 8)
    solution = Solution(problem, value_function=value)
    for function in (path_defect, defect_increments):
        found, other = function(problem, solution, path), function(problem, value, path)
        torch.testing.assert_close(found, other, rtol=0, atol=1e-12)
        assert not found.requires_grad
    rows = defect_increments(problem, lambda x, t: value(x, t) + 1, path)
    torch.testing.assert_close(rows[-1], torch.full((40,), -math.exp(-0.3), dtype=F64), rtol=0, atol=1e-12)
    # W + 1 pays 1 at the start
    torch.testing.assert_close(rows.sum(0), path_defect(problem, value, path) - 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("function", [path_defect, defect_increments])
@pytest.mark.parametrize("kind", ["callable", "solution"])
def test_it_can_be_differentiated_in_the_parameters_of_a_value(function, kind):
    problem, value = made_up("bounds")
    (path,) = paths_of(problem, 60, 10)
    scale = torch.tensor(1.2, dtype=F64, requires_grad=True)

    def loss(a, graph):
        def candidate(x, t):
            return a * value(x, t) + a**2 * x[:, 0] ** 3 / 9

        given = candidate if kind == "callable" else Solution(problem, value_function=candidate)
        return function(problem, given, path, graph=graph).square().mean()

    (found,) = torch.autograd.grad(loss(scale, True), scale)
    step = 1e-5
    central = (loss(scale.detach() + step, False) - loss(scale.detach() - step, False)) / (2 * step)
    assert (found - central).abs() < 1e-7 * central.abs()
    assert not loss(scale, False).requires_grad


def test_a_graph_through_the_path_is_kept_only_on_request():
    gain = torch.tensor(-0.5, dtype=F64, requires_grad=True)
    x0 = torch.randn(30, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    noises = 0.1 * torch.randn(10, 30, 2, generator=torch.Generator().manual_seed(2), dtype=F64)

    def defect(a, graph):
        path = simulate(LQG, lambda x, t: a * x[:, :1], x0, torch.linspace(0, 1, 11, dtype=F64), noises=noises)
        return path_defect(LQG, LQG.exact, path, graph=graph).sum()

    assert not defect(gain, False).requires_grad
    (found,) = torch.autograd.grad(defect(gain, True), gain)
    step = 1e-5
    central = (defect(gain.detach() + step, False) - defect(gain.detach() - step, False)) / (2 * step)
    assert (found - central).abs() < 1e-6 * (1 + central.abs())


def test_nothing_is_a_candidate_too():
    (path,) = paths_of(LQG, 200, 20)
    D = path_defect(LQG, lambda x, t: x.new_zeros(len(x)), path)
    # grad = 0, so that the best control is none: D is the cost without the control's share
    running = (LQG.running_cost(path.states[:-1].flatten(0, 1), path.grid[0]).reshape(20, 200) * 0.05).sum(0)
    torch.testing.assert_close(D, running + LQG.terminal_cost(path.x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"horizon": None}, "got an infinite horizon"),
        ({"inside": lambda x: x[:, 0] < 9, "exit_cost": lambda x, t: x[:, 0]}, "got first exit from a domain"),
        ({"obstacle": lambda x, t: x[:, 0]}, "got an obstacle"),
        ({"controlled_noise": True}, "got a dispersion that depends on the control"),
    ],
)
def test_other_classes_are_refused_by_name(change, words):
    (path,) = paths_of(LQG, 4, 4)
    for function in (path_defect, defect_increments):
        with pytest.raises(ValueError, match=words):
            function(replace(LQG, **change), LQG.exact, path)


def test_paths_that_do_not_fit_are_refused():
    problem, value = made_up("free")
    (path,) = paths_of(LQG, 4, 4)
    with pytest.raises(ValueError, match="path must end at the horizon 2, got a grid that ends at 1"):
        path_defect(replace(LQG, horizon=2.0), LQG.exact, path)
    with pytest.raises(ValueError, match=r"path must have states \(1,\) and controls \(1,\), got \(2,\) and \(1,\)"):
        path_defect(lqg(0.0, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0), lambda x, t: x[:, 0], path)
    with pytest.raises(ValueError, match="value must return shape"):
        path_defect(problem, lambda x, t: x, path)
    for function in (path_defect, defect_increments):
        with pytest.raises(FloatingPointError, match="the defect is not finite"):
            function(problem, lambda x, t: value(x, t) / (0 * x[:, 0]), path)

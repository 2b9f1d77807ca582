"""`Grid()` on every problem of one to three dimensions, saving, boundaries and refusals."""

import dataclasses
import math

import pytest
import torch

from hjbridge.hjb import ControlProblem, Grid, hjb_residual, load, problems, solve

D = torch.float64


def unit(*numbers):
    return torch.tensor(numbers, dtype=D)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def points(problem, count=300, reach=1.5):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, problem.dim, generator=generator, dtype=D).clamp(-reach, reach)
    return x, problem.horizon * torch.rand(count, generator=generator, dtype=D)


A = [[0.0, 1.0], [1.0, -0.2]]


@pytest.mark.parametrize(
    ("arguments", "tolerance"),
    [
        ((0.3, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0), 1e-5),
        ((A, [[0.0], [1.0]], 1.0, 1.0, 1.0, 0.5, 1.0), 3e-4),
        ((A, [[0.0], [1.0]], 1.0, 1.0, 1.0, [[0.5, 0.3], [0.0, 0.4]], 1.0), 3e-4),
    ],
)
def test_linear_quadratic_problems_in_one_and_two_dimensions(arguments, tolerance):
    problem = problems.lqg(*arguments)
    found = solve(problem, Grid())
    x, t = points(problem)
    for name in ("value", "gradient", "control"):
        assert relative(getattr(found, name)(x, t), getattr(problem.exact, name)(x, t)) < tolerance
    assert found.meta["scheme"] == "central" and found.meta["seconds"] < 10
    residual, terms = hjb_residual(problem, found.value, x, 0.1 + 0.8 * t, True)
    assert (residual.abs() / terms.scale()).median() < 1e-3


def test_linear_quadratic_in_three_dimensions():
    problem = problems.lqg([[0.0, 1, 0], [0, 0, 1], [0, 0, 0]], [[0.0], [0], [1]], 1.0, 1.0, 1.0, 0.3, 0.5)
    found = solve(problem, Grid(points=7, steps=30))
    x, t = points(problem, 100, 1.0)
    assert relative(found.value(x, t), problem.exact.value(x, t)) < 1e-3
    assert relative(found.control(x, t), problem.exact.control(x, t)) < 2e-3


def test_double_well():
    problem = problems.double_well()
    found = solve(problem, Grid())
    assert found.value(unit([0.0])).item() == pytest.approx(0.76091, abs=6e-5)
    x = torch.linspace(-1.5, 1.5, 31, dtype=D).unsqueeze(1)
    for t in (0.0, 0.5, 0.9):
        assert relative(found.value(x, t), problem.exact.value(x, t)) < 1e-4
        assert relative(found.gradient(x, t), problem.exact.gradient(x, t)) < 1e-3
        assert relative(found.control(x, t), problem.exact.control(x, t)) < 1e-3


def test_stationary_lqr_and_merton():
    problem = problems.stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1)
    x = unit([-2.0], [0.0], [1.0])
    torch.testing.assert_close(solve(problem, Grid()).value(x), problem.exact.value(x), rtol=0, atol=1e-8)
    for options in ({"rho": 0.05}, {"T": 1.0}):
        problem = problems.merton(0.03, 0.08, 0.2, 2.0, **options)
        found = solve(problem, Grid())
        w = unit([0.5], [1.0], [2.0])
        torch.testing.assert_close(found.value(w), problem.exact.value(w), rtol=3e-4, atol=0)
        torch.testing.assert_close(found.control(w), problem.exact.control(w), rtol=1e-3, atol=0)


def test_european_option_value_and_delta():
    for kind in ("put", "call"):
        problem = problems.european_option(40.0, 0.06, 0.2, 1.0, kind)
        found = solve(problem, Grid())
        x = unit([32.0], [36.0], [40.0], [44.0], [50.0])
        torch.testing.assert_close(found.value(x), problem.exact.value(x), rtol=0, atol=1.5e-4)
        torch.testing.assert_close(found.gradient(x), problem.exact.gradient(x), rtol=0, atol=2e-5)
        torch.testing.assert_close(found.value(x, 0.5), problem.exact.value(x, 0.5), rtol=0, atol=3e-4)
        at_the_money = {"put": 2.06640, "call": 2.06640 + 40 * (1 - math.exp(-0.06))}[kind]
        assert found.value(unit([40.0])).item() == pytest.approx(at_the_money, abs=2e-4)


def test_american_put_and_where_it_is_sold():
    problem = problems.american_put(40.0, 0.06, 0.2, 1.0)
    found = solve(problem, Grid())
    spots = torch.linspace(30, 50, 9, dtype=D)
    reference = torch.as_tensor(problems.binomial_put(spots.numpy(), 40.0, 0.06, 0.2, 1.0, 1000))
    assert found.value(unit([40.0])).item() == pytest.approx(2.3195, abs=2e-4)
    torch.testing.assert_close(found.value(spots.unsqueeze(1)), reference, rtol=0, atol=2e-3)
    assert found.stop(unit([30.0], [32.8], [33.2], [40.0])).tolist() == [True, True, False, False]
    # never below what selling pays, on the lattice
    values = found.tensors["values"]
    assert (values - (40 - found.tensors["axis0"]).clamp_min(0)).min() >= -1e-9
    # the same as a cost to be minimised
    mirror = dataclasses.replace(
        problem, sense="min", terminal_cost=lambda x: -problem.terminal_cost(x),
        obstacle=lambda x, t: -problem.obstacle(x, t),
    )  # fmt: skip
    few = {"points": 101, "steps": 30}
    x = spots.unsqueeze(1)
    torch.testing.assert_close(solve(mirror, Grid(**few)).value(x), -solve(problem, Grid(**few)).value(x))


@pytest.mark.parametrize("scheme", ["semi-lagrangian", "cubic"])
def test_semi_lagrangian_steps_stop_too(scheme):
    problem = problems.american_put(40.0, 0.06, 0.2, 1.0)
    found = solve(problem, Grid(301, 100, scheme=scheme))
    assert found.value(unit([40.0])).item() == pytest.approx(2.3195, abs=0.02)


def test_uncertain_volatility_brackets_every_volatility():
    butterfly = problems.butterfly(90, 100, 110)
    spot = unit([100.0])
    ask, bid = (
        solve(problems.uncertain_volatility(0.15, 0.25, 0.1, 0.25, butterfly, side), Grid(301, 60))
        for side in ("ask", "bid")
    )
    assert ask.value(spot).item() == pytest.approx(4.882, abs=6e-3)
    assert bid.value(spot).item() == pytest.approx(2.298, abs=3e-3)
    assert ask.control(unit([100.0], [85.0])).flatten().tolist() == [0.15, 0.25]
    assert bid.control(unit([100.0], [85.0])).flatten().tolist() == [0.25, 0.15]
    one = problems.uncertain_volatility(0.2, 0.2 + 1e-9, 0.1, 0.25, butterfly, "ask")
    assert solve(one, Grid(301, 60)).value(spot).item() == pytest.approx(3.5254, abs=3e-3)


def test_a_grid_with_arguments_of_its_own_ignores_those_of_the_problem():
    problem = dataclasses.replace(free(), grid={"points": 7, "steps": 5})
    assert solve(problem, Grid()).meta["shape"] == [7, 7] and solve(problem, Grid()).meta["steps"] == 5
    assert solve(problem, Grid(points=9)).meta["shape"] == [9, 9]


def run(scheme, problem, **options):
    return solve(problem, Grid(scheme=scheme, **options))


def free(**others):
    settings = {
        "name": "free", "dim": 2, "controls": 0, "drift": lambda x, t: 0 * x, "horizon": 0.25,
        "control_matrix": torch.zeros(2, 0, dtype=D), "dispersion": unit([0.4, 0.0], [0.3, 0.2]),
        "terminal_cost": lambda x: x[:, 0] * x[:, 1], "box": (unit(-3, -3), unit(3, 3)), **others,
    }  # fmt: skip
    return ControlProblem(**settings)


@pytest.mark.parametrize("scheme", ["semi-lagrangian", "cubic", "central"])
def test_correlated_noises(scheme):
    # E (x + M)(y + N) = x y + .4 * .3 s
    found = run(scheme, free(), points=21, steps=6)
    x = unit([0.0, 0.0], [0.5, -0.4])
    torch.testing.assert_close(found.value(x), unit(0.03, -0.2 + 0.03), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scheme", ["upwind", "hybrid", "central", "semi-lagrangian", "cubic"])
def test_discount_and_coefficients_that_change_with_time(scheme):
    # no state: V = int e^(-rho s) (1 + s) ds + e^(-rho T)
    rho, T = 0.8, 0.5
    problem = free(
        dispersion=0.0, drift=lambda x, t: x.new_tensor([1.0, -1.0]) * torch.sin(9 * t) + 0 * x,
        discount=rho, horizon=T, running_cost=lambda x, t: 1 + t + 0 * x[:, 0],
        terminal_cost=lambda x: torch.ones_like(x[:, 0]),
    )  # fmt: skip
    exact = (1 - math.exp(-rho * T)) / rho + (1 - math.exp(-rho * T) * (1 + rho * T)) / rho**2 + math.exp(-rho * T)
    tolerance = {"upwind": 0.02, "hybrid": 0.02, "central": 2e-4}.get(scheme, 1e-7)
    found = run(scheme, problem, points=6, steps=80).value(unit([0.3, 0.2])).item()
    assert found == pytest.approx(exact, abs=tolerance)


@pytest.mark.parametrize("scheme", ["upwind", "semi-lagrangian", "cubic"])
def test_paths_are_kept_inside_at_open_ends(scheme):
    # dx = 2 dt, terminal cost x: from x the end is min(x + 2 s, 3), never further
    problem = free(
        dispersion=0.0,
        drift=lambda x, t: 0 * x + x.new_tensor([2.0, 0.0]),
        terminal_cost=lambda x: x[:, 0],
        horizon=2.0,
    )
    found = run(scheme, problem, points=(61, 5), steps=60)
    torch.testing.assert_close(found.value(unit([-2.5, 0.0], [2.0, 0.0])), unit(1.5, 3.0), rtol=0, atol=0.1)
    assert found.tensors["values"].max() <= 3 + 1e-12


def test_central_differences_continue_quadratically_at_open_ends():
    problem = free(dispersion=0.5, terminal_cost=lambda x: x[:, 0] ** 2, horizon=1.0)
    found = run("central", problem, points=9, steps=10)
    torch.testing.assert_close(found.value(unit([3.0, 3.0], [0.0, 0.0])), unit(9.25, 0.25), rtol=0, atol=1e-9)


@pytest.mark.parametrize("scheme", ["hybrid", "central", "semi-lagrangian", "cubic"])
def test_exit_ends_the_problem_at_its_cost(scheme):
    # dx = dt until x = 1: V = min(1 - x, T) + (7 where it leaves)
    problem = ControlProblem(
        name="walk", dim=1, controls=0, drift=lambda x, t: torch.ones_like(x),
        control_matrix=torch.zeros(1, 0, dtype=D),
        dispersion=0.0, running_cost=lambda x, t: torch.ones_like(x[:, 0]), inside=lambda x: x[:, 0] < 1,
        exit_cost=lambda x, t: 7 + 0 * x[:, 0], terminal_cost=lambda x: 7 + 0 * x[:, 0], horizon=1.0,
        box=(unit(-1), unit(1)),
    )  # fmt: skip
    found = run(scheme, problem, points=41, steps=33)
    x = unit([0.9], [0.512], [-0.5], [2.0])
    torch.testing.assert_close(found.value(x), unit(7.1, 7.488, 8.0, 7.0), rtol=0, atol=0.03)
    fast = run(scheme, dataclasses.replace(problem, terminal_cost=None, horizon=None), points=41)
    torch.testing.assert_close(fast.value(x), unit(7.1, 7.488, 8.5, 7.0), rtol=0, atol=0.03)


def test_solutions_are_saved_and_restored(tmp_path):
    problem = problems.pendulum(T=0.5)
    found = solve(problem, Grid(16, 5))
    again = load(found.save(tmp_path / "pendulum.safetensors"))
    x = problem.initial(20, torch.Generator().manual_seed(0))
    x = torch.cat([x, x + unit([2 * math.pi, 0.0])])
    for t in (0.0, 0.2, 0.5):
        for name in ("value", "gradient", "control"):
            torch.testing.assert_close(getattr(again, name)(x, t), getattr(found, name)(x, t))
        torch.testing.assert_close(found.value(x[:20], t), found.value(x[20:], t), rtol=1e-10, atol=1e-10)
    assert again.method == "Grid" and again.meta == found.meta
    torch.testing.assert_close(found.value(x, torch.full((40,), 0.2, dtype=D)), found.value(x, 0.2))
    assert found.value(x.float(), 0.2).dtype == torch.float32
    y = x.clone().requires_grad_()
    found.control(y, 0.2).sum().backward()
    assert y.grad.isfinite().all() and not found.value(x, 0.2).requires_grad


def test_bounded_controls_of_all_kinds_agree():
    # |u| <= 1 binds over most of the box
    problem = dataclasses.replace(problems.lqg(0.3, 1.0, 1.0, 0.2, 1.0, 0.5, 1.0), bounds=(unit(-1), unit(1)))
    x = torch.linspace(-2, 2, 17, dtype=D).unsqueeze(1)
    central, cubic, hybrid, upwind = (
        run(scheme, problem, points=61, steps=40).value(x) for scheme in ("central", "cubic", "hybrid", "upwind")
    )
    torch.testing.assert_close(cubic, central, rtol=4e-3, atol=6e-3)
    torch.testing.assert_close(hybrid, central, rtol=5e-3, atol=5e-3)
    torch.testing.assert_close(upwind, central, rtol=0, atol=0.15)
    enumerated = dataclasses.replace(problem, control_set=torch.linspace(-1, 1, 21, dtype=D).unsqueeze(1))
    found = run("hybrid", enumerated, points=61, steps=40)
    torch.testing.assert_close(found.value(x), hybrid, rtol=2e-3, atol=1e-3)


def test_states_outside_and_grids_too_large_are_refused():
    problem = problems.pendulum(T=0.5)
    found = solve(problem, Grid(12, 4))
    for ask in (found.value, found.gradient, found.control):
        with pytest.raises(ValueError, match=r"x must lie in the grid's domain \[-3.14159, 3.14159\] x \[-8, 8\], got"):
            ask(unit([0.0, 8.5]))
    with pytest.raises(ValueError, match=r"points must fit into memory: 20000 x 20000 would need \d+"):
        solve(problem, Grid(20000))
    four = problems.lqg(torch.zeros(4, 4), torch.eye(4), 1.0, 1.0, 1.0, 0.5, 1.0)
    with pytest.raises(ValueError, match="at most 3 dimensions for a grid, got 4: use Riccati or HopfCole"):
        solve(four, Grid())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 2}, "points must be at least 4 on each of the 2 axes, got 2"),
        ({"steps": 2}, "steps must be a whole number and at least 3, got 2"),
        ({"steps": 4.5}, "steps must be a whole number and at least 3, got 4.5"),
        ({"scheme": "weno"}, "scheme must be one of upwind, hybrid, central, semi-lagrangian, cubic, got 'weno'"),
        ({"controls": 1}, "controls must be at least 2, got 1"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        solve(problems.pendulum(), Grid(**options))


def test_schemes_that_do_not_cover_a_problem_say_so():
    with pytest.raises(ValueError, match="hybrid or central where controls have no bounds, got 'cubic'"):
        solve(problems.lqg(0.3, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0), Grid(scheme="cubic"))
    with pytest.raises(ValueError, match="scheme must be central or semi-lagrangian where noises are correlated"):
        run("upwind", free(), points=9)
    four = free(dispersion=torch.ones(2, 4, dtype=D))
    with pytest.raises(ValueError, match="at most 3 noises for a semi-Lagrangian scheme, got 4"):
        run("cubic", four, points=9)
    still = problems.stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.0, 0.0)
    still = dataclasses.replace(still, bounds=(unit(-1), unit(1)))
    with pytest.raises(ValueError, match="discount must be positive unless the problem ends by exit, got 0"):
        solve(still, Grid(scheme="cubic"))
    for name in ("running_cost", "terminal_cost"):
        with pytest.raises(ValueError, match=f"{name} must be finite on the whole grid, got NaN or infinity at x = "):
            run("central", free(**{name: lambda x, t=0: torch.log(x[:, 0])}), points=9)

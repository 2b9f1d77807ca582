"""Howard's iteration: against Riccati, Hopf and Cole, Merton and linear problems with polynomial solutions."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from hjbridge.hjb import ControlProblem, Grid, PolicyIteration, problems, solve
from hjbridge.hjb.discrete import MDP
from hjbridge.hjb.schemes.howard import discretise, howard, improve
from hjbridge.hjb.schemes.lattice import lattice_for
from hjbridge.hjb.schemes.stencil import stencils

D = torch.float64
LQR = {"alpha": -0.5, "beta": 1.0, "q": 1.0, "r": 0.1, "sigma": 0.3, "rho": 0.1}
INNER = torch.linspace(-3, 3, 41, dtype=D).unsqueeze(1)


def unit(*numbers):
    return torch.tensor(numbers, dtype=D)


def gate(sigma=0.6, q=0.7, R=0.5, sense="min"):
    """Until |x| = 1: cost q + R u^2/2. With temperature lam = sigma^2 R, V = -lam log(cosh(k x)/cosh(k))."""
    lam = sigma**2 * R
    k = math.sqrt(2 * q / (lam * sigma**2))
    problem = ControlProblem(
        name="gate", dim=1, controls=1, drift=lambda x, t: 0 * x, control_matrix=unit([1.0]), dispersion=sigma,
        control_cost=R * unit([1.0]), running_cost=lambda x, t: q + 0 * x[:, 0],
        inside=lambda x: x[:, 0].abs() < 1 - 1e-12, exit_cost=lambda x, t: 0 * x[:, 0], box=(unit(-1), unit(1)),
    )  # fmt: skip
    return problem, lambda x: -lam * torch.log(torch.cosh(k * x[:, 0]) / math.cosh(k))


def box(d, sigma):
    """No control: V = prod (1 - x_i^2) solves sum sigma_i^2 V_ii/2 + l = 0 until a coordinate reaches 1."""

    def answer(x):
        return (1 - x**2).prod(1)

    def running(x, t):
        factors = 1 - x**2
        return sum(sigma[i] ** 2 * factors[:, [j for j in range(d) if j != i]].prod(1) for i in range(d))

    problem = ControlProblem(
        name="box", dim=d, controls=0, drift=lambda x, t: 0 * x, control_matrix=torch.zeros(d, 0, dtype=D),
        dispersion=torch.diag(unit(*sigma)), running_cost=running, inside=lambda x: (x.abs() < 1 - 1e-12).all(1),
        exit_cost=lambda x, t: 0 * x[:, 0], box=(-torch.ones(d, dtype=D), torch.ones(d, dtype=D)),
    )  # fmt: skip
    return problem, answer


def test_stationary_lqr_agrees_with_riccati_in_few_iterations():
    problem = problems.stationary_lqr(**LQR)
    found = solve(problem, PolicyIteration())
    torch.testing.assert_close(
        found.value(INNER), 0.2659750769 * INNER[:, 0] ** 2 / 2 + 0.1196887846, rtol=0, atol=2e-9
    )
    torch.testing.assert_close(found.control(INNER), -2.6597507691 * INNER, rtol=0, atol=2e-9)
    torch.testing.assert_close(found.gradient(INNER), problem.exact.gradient(INNER), rtol=0, atol=2e-9)
    stages = [note["scheme"] for note in found.history]
    assert stages.count("upwind") <= 12 and stages.count("central") <= 4
    assert found.meta["scheme"] == "central" and found.meta["order"] == 2
    # Newton's method: each residual is at most a constant times the square of the one before
    residuals = [note["residual"] for note in found.history if note["scheme"] == "upwind"]
    late = [(a, b) for a, b in pairwise(residuals) if 1e-6 < a < 1]
    assert len(late) >= 2 and all(b < a**2 for a, b in late)


def test_unstable_dynamics_do_not_mislead_it():
    problem = problems.stationary_lqr(1.5, 1.0, 1.0, 0.1, 0.3, 0.1)
    found = solve(problem, PolicyIteration(points=101))
    torch.testing.assert_close(found.value(INNER), problem.exact.value(INNER), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("method", [Grid(), PolicyIteration()])
def test_a_weak_control_of_an_unstable_state_falls_back_to_hybrid(alpha, method):
    """Central does not end, or ends at a value of a wrong size, as the last digit falls; V is 49.5 and 198."""
    problem = problems.stationary_lqr(alpha, 0.1, 1.0, 0.1, 0.3, 0.1)
    found = solve(problem, method)
    assert (found.meta["scheme"], found.meta["order"]) == ("hybrid", 2)
    assert {note["scheme"] for note in found.history} == {"upwind", "hybrid"}
    for name in ("value", "gradient", "control"):
        ours, exact = getattr(found, name)(INNER), getattr(problem.exact, name)(INNER)
        torch.testing.assert_close(ours, exact, rtol=0, atol=1e-10)
    try:
        wrong = solve(problem, PolicyIteration(scheme="central")).value(INNER)
        assert ((wrong / problem.exact.value(INNER)).abs() > 1e3).all()
    except FloatingPointError as error:
        assert "policy iteration did not end in 200 iterations" in str(error)


def test_another_root_of_the_equation_is_not_taken():
    problem = problems.stationary_lqr(0.5, 0.1, 1.0, 0.1, 0.3, 1.0)
    root = solve(problem, PolicyIteration(scheme="central"))
    assert root.meta["scheme"] == "central"
    assert ((root.value(INNER) / problem.exact.value(INNER) - 1).abs() > 0.5).all()
    assert solve(problem, PolicyIteration()).meta["scheme"] == "hybrid"


def test_upwind_is_of_first_order_and_from_above():
    problem = problems.stationary_lqr(**LQR)
    errors = []
    for points in (101, 201, 401):
        gap = solve(problem, PolicyIteration(points, scheme="upwind")).value(INNER) - problem.exact.value(INNER)
        assert gap.min() > 0
        errors.append(gap.max().item())
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (rates > 0.9).all() and (rates < 1.1).all()


def test_first_exit_agrees_with_hopf_and_cole_at_second_order():
    problem, answer = gate()
    x = torch.linspace(-0.97, 0.97, 31, dtype=D).unsqueeze(1)
    errors = []
    for points in (41, 81, 161):
        found = solve(problem, PolicyIteration(points))
        assert found.meta["scheme"] == "hybrid" and len(found.history) <= 16
        errors.append((found.value(x) - answer(x)).abs().max().item())
    assert errors[-1] < 1e-4 and np.log2(errors[0] / errors[2]) == pytest.approx(4, abs=0.3)
    y = x.clone().requires_grad_()
    slope = torch.autograd.grad(answer(y).sum(), y)[0]
    torch.testing.assert_close(found.control(x), -slope / 0.5, rtol=0, atol=2e-3)


def test_after_exit_the_value_is_the_exit_cost():
    problem, _ = gate()
    problem = dataclasses.replace(problem, exit_cost=lambda x, t: 2 + x[:, 0])
    found = solve(problem, PolicyIteration(41))
    x = unit([1.3], [-1.0], [0.0])
    assert found.value(x)[:2].tolist() == [3.3, 1.0] and found.control(x).isfinite().all()
    assert 1 < found.value(x)[2] < 3


@pytest.mark.parametrize("d", [2, 3])
def test_quadratic_solutions_with_exits_are_exact(d):
    problem, answer = box(d, (1.0, 0.5, 0.7)[:d])
    found = solve(problem, PolicyIteration((11, 8, 6)[:d]))
    x = found.tensors["axis0"].new_tensor(np.random.default_rng(0).uniform(-1, 1, (40, d)))
    torch.testing.assert_close(found.value(x), answer(x), rtol=0, atol=1e-10)


def test_lifelong_merton_over_the_whole_box():
    problem = problems.merton(0.03, 0.08, 0.2, 2.0, rho=0.05)
    found = solve(problem, PolicyIteration())
    w = unit([0.5], [1.0], [2.0], [4.0])
    torch.testing.assert_close(found.value(w), problem.exact.value(w), rtol=4e-4, atol=0)
    torch.testing.assert_close(found.gradient(w), problem.exact.gradient(w), rtol=6e-4, atol=0)
    torch.testing.assert_close(found.control(w), problem.exact.control(w), rtol=1e-3, atol=0)
    assert len(found.history) < 25


def test_maximised_rewards_mirror_minimised_costs():
    cost = problems.stationary_lqr(**LQR)
    reward = dataclasses.replace(
        cost, sense="max", control_cost=lambda x, u, t: -0.05 * u[:, 0] ** 2, exact=None, linear_quadratic=None,
        running_cost=lambda x, t: -(x[:, 0] ** 2) / 2, minimiser=lambda x, t, p, M: p / 0.1,
    )  # fmt: skip
    options = PolicyIteration(101, domain=([-6.0], [6.0]), scheme="upwind")
    torch.testing.assert_close(solve(reward, options).value(INNER), -solve(cost, options).value(INNER))


def test_stopping_for_ever_solves_the_perpetual_put():
    # V = (K - b) (x/b)^-g above b = K g/(1 + g), g = 2 r/sigma^2 (McKean 1965)
    g = 2 * 0.06 / 0.2**2
    b = 40 * g / (1 + g)
    problem = dataclasses.replace(problems.american_put(40.0, 0.06, 0.2, 1.0), horizon=None, terminal_cost=None)
    found = solve(problem, PolicyIteration(domain=([8.0], [4000.0])))
    x = unit([20.0], [29.0], [32.0], [40.0], [60.0])
    truth = torch.where(x[:, 0] < b, 40 - x[:, 0], (40 - b) * (x[:, 0] / b) ** -g)
    torch.testing.assert_close(found.value(x), truth, rtol=0, atol=1e-3)
    assert found.stop(x).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("scheme", ["upwind", "hybrid", "central"])
def test_monotone_generators_are_m_matrices(scheme):
    lattice = lattice_for(problems.pendulum(), (7, 9))
    s, rng = stencils(lattice), np.random.default_rng(1)
    drift, noise = rng.normal(size=(63, 2)) * 3, rng.uniform(0, 0.5, (63, 2))
    entries = s.generator(drift, np.einsum("ni,ij->nij", noise, np.eye(2)), scheme)
    dense = np.zeros((63, 63))
    dense[s.rows, s.cols] = entries
    np.testing.assert_allclose(dense.sum(1), 0, atol=1e-10)
    off = dense[~np.eye(63, dtype=bool)]
    inverse = np.linalg.inv(0.1 * np.eye(63) - dense)
    if scheme == "central":
        assert off.min() < -0.1 and inverse.min() < -1e-3
    else:
        assert off.min() >= 0 and inverse.min() >= 0


def test_hybrid_differs_from_upwind_where_noise_dominates():
    s = stencils(lattice_for(problems.stationary_lqr(**LQR), 5, domain=([0.0], [4.0])))
    small, large = np.full((5, 1, 1), 0.9), np.full((5, 1, 1), 1.1)
    drift = np.ones((5, 1))
    np.testing.assert_array_equal(s.generator(drift, small, "hybrid"), s.generator(drift, small, "upwind"))
    row = s.rows == 2
    mixed, central = s.generator(drift, large, "hybrid")[row], s.generator(drift, large, "central")[row]
    np.testing.assert_array_equal(mixed, central)


@pytest.mark.parametrize("bound", [0.7, 50.0])
def test_improvement_minimises_the_upwind_hamiltonian(bound):
    lqg = problems.lqg(0.8, 1.5, 1.0, 0.4, 1.0, 0.3, 1.0)
    problem = dataclasses.replace(lqg, bounds=(unit(-bound), unit(bound)))
    grid = discretise(problem, lattice_for(problem, 41), "upwind")
    t, v = torch.zeros((), dtype=D), np.random.default_rng(0).normal(size=41)
    s, x = grid.stencils, grid.x[:, 0].numpy()
    ahead, behind = s.apply(s.forward[0], v), s.apply(s.backward[0], v)

    def price(u):
        b = 0.8 * x + 1.5 * u
        return np.maximum(b, 0) * ahead + np.minimum(b, 0) * behind + 0.2 * u**2

    best = np.min([price(u) for u in np.linspace(-bound, bound, 20001)], 0)
    found = price(improve(grid, t, v, None)[:, 0].numpy())
    assert (found <= best + 1e-9).all() and (found >= best - 5e-3).all()


def test_correlated_noises_go_to_central_differences():
    # V = p x.x/2 + c with a drift -x and no control: p = 1/(rho + 2), c = tr(sigma sigma') p/(2 rho)
    sigma = unit([0.4, 0.0], [0.3, 0.2])
    problem = ControlProblem(
        name="two", dim=2, controls=0, drift=lambda x, t: -x, control_matrix=torch.zeros(2, 0, dtype=D),
        dispersion=sigma, running_cost=lambda x, t: (x.sum(1)) ** 2 / 2, discount=0.5, box=(unit(-2, -2), unit(2, 2)),
    )  # fmt: skip
    found = solve(problem, PolicyIteration(12, scheme="central"))
    x = unit([0.3, -1.1], [1.9, 1.2])
    spread = (sigma.sum(0) ** 2).sum()
    torch.testing.assert_close(found.value(x), x.sum(1) ** 2 / 2 / 2.5 + spread / 2.5 / 2 / 0.5, rtol=1e-9, atol=0)


def test_what_it_does_not_cover_is_refused():
    with pytest.raises(ValueError, match="problem must have no horizon for PolicyIteration, got 3: use Grid"):
        solve(problems.pendulum(), PolicyIteration())
    free = problems.stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.0, 0.0)
    with pytest.raises(ValueError, match="discount must be positive unless the problem ends by exit, got 0"):
        solve(free, PolicyIteration())
    noisy = dataclasses.replace(
        problems.pendulum(), horizon=None, discount=0.1, dispersion=unit([0.3, 0.0], [0.2, 0.2])
    )
    with pytest.raises(ValueError, match="scheme must be central or semi-lagrangian where noises are correlated"):
        solve(noisy, PolicyIteration(9))
    with pytest.raises(ValueError, match="points must be at least 4 on each of the 1 axes, got 0"):
        solve(problems.stationary_lqr(**LQR), PolicyIteration(0))
    with pytest.raises(FloatingPointError, match="did not end in 2 iterations: the residual is"):
        solve(problems.stationary_lqr(**LQR), PolicyIteration(51, limit=2))


def test_a_finite_problem_is_solved_in_the_same_way():
    """Two states by hand: staying costs 1 or 3; moving costs 4 and leads to the other. At gamma = .5, V = (2, 5)."""
    stay, move = torch.eye(2, dtype=D), torch.eye(2, dtype=D).flip(0)
    mdp = MDP(torch.stack([stay, move], 1), unit([1.0, 4.0], [3.0, 4.0]), 0.5)
    found = solve(mdp, PolicyIteration(), seed=4)
    torch.testing.assert_close(found.value, unit(2.0, 5.0), rtol=0, atol=1e-14)
    torch.testing.assert_close(found.policy, unit([1.0, 0.0], [0.0, 1.0]), rtol=0, atol=0)
    assert (found.meta["method"], found.meta["seed"]) == ("PolicyIteration", 4) and found.meta["seconds"] >= 0
    drawn = problems.random_mdp(30, 4, 0.95, 0)
    torch.testing.assert_close(solve(drawn, PolicyIteration()).value, drawn.exact.value, rtol=1e-13, atol=0)


def test_what_a_finite_problem_does_not_take_is_refused():
    mdp = problems.random_mdp(3, 2, 0.9, 0)
    with pytest.raises(ValueError, match="points must be None for a finite problem, which needs no lattice, got 9"):
        solve(mdp, PolicyIteration(9))
    with pytest.raises(ValueError, match="scheme must be None for a finite problem"):
        solve(mdp, PolicyIteration(scheme="upwind"))
    with pytest.raises(TypeError, match="method must be PolicyIteration for an MDP, got Grid"):
        solve(mdp, Grid())
    with pytest.raises(RuntimeError, match="policy iteration needs more than 1 rounds, got a residual of"):
        solve(problems.random_mdp(30, 4, 0.95, 0), PolicyIteration(limit=1))
    chain = problems.linearly_solvable_mdp(unit([0.5, 0.5], [0.0, 1.0]), unit(1.0, 0.0))
    with pytest.raises(TypeError, match="a ControlProblem or an MDP, got LinearlySolvable: .*discrete.solve_linear"):
        solve(chain, PolicyIteration())


def test_a_policy_that_never_ends_is_named():
    problem, _ = gate()
    still = dataclasses.replace(problem, dispersion=0.0)
    grid = discretise(still, lattice_for(still, 21), "upwind")
    with pytest.raises(FloatingPointError, match="no finite value on this grid, its process never ends"):
        howard(grid, torch.zeros((), dtype=D), torch.zeros(21, 1, dtype=D), shift=0.0)

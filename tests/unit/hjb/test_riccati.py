import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import solve_continuous_are

from hjbridge.hjb import ControlProblem, LinearQuadratic, Riccati, hjb_residual, load, solve
from hjbridge.hjb.problems import lqg, stationary_lqr

F64 = torch.float64
PLANE = dict(A=[[0, 1], [1, -0.2]], B=[[0], [1.0]], Q=[[1, 0.3], [0.3, 2]], R=0.5, G=[[2, 0.5], [0.5, 1]],
             sigma=[[0.5, 0.1, 0], [0.2, 0.7, 0.3]], T=1.5)  # fmt: skip


def random(d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    A = 0.7 * torch.randn(d, d, generator=generator, dtype=F64) / d**0.5
    return A, 1.4 * torch.randn(d, max(1, d // 2), generator=generator, dtype=F64) / d**0.5


def without_end(problem, discount):
    """The problem over an infinite horizon."""
    lq = replace(problem.linear_quadratic, G=None)
    return replace(problem, horizon=None, terminal_cost=None, discount=discount, linear_quadratic=lq)


def matrix(solution, t=0.0):
    """P(t), read off the gradient at the unit vectors, and c(t)."""
    d = solution.problem.dim
    return solution.gradient(torch.eye(d, dtype=F64), t), solution.value(torch.zeros(1, d, dtype=F64), t).item()


def points(problem, n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x, T = problem.initial(n, generator), problem.horizon or 1.0
    t = T * torch.rand(n, generator=generator, dtype=F64)
    t[:2] = torch.tensor([0, T], dtype=F64)
    return x, t


def relative_residual(problem, solution, n=200):
    residual, terms = hjb_residual(problem, solution.value, *points(problem, n), True)
    return (residual.abs() / terms.scale()).max().item()


def integrated(problem, t):
    """P(t) and c(t) by an explicit Runge-Kutta method on the Riccati equation itself."""
    lq, n, rho = problem.linear_quadratic, problem.dim, problem.discount
    A, B, Q, R, G, S = (m.numpy() for m in (lq.A, lq.B, lq.Q, lq.R, lq.G, lq.S))
    M = B @ np.linalg.inv(R) @ B.T

    def backward(_, y):
        P = y[:-1].reshape(n, n)
        dP = Q + A.T @ P + P @ A - P @ M @ P - rho * P
        return np.append(dP.ravel(), np.trace(S.T @ P @ S) / 2 - rho * y[-1])

    start = np.append(G.ravel(), 0.0)
    y = solve_ivp(backward, (0, problem.horizon - t), start, "DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    return torch.tensor(y[:-1].reshape(n, n)), y[-1]


@pytest.mark.parametrize("discount", [0.0, 0.7])
@pytest.mark.parametrize("t", [0.0, 0.4])
def test_a_finite_horizon_agrees_with_an_explicit_integration(t, discount):
    problem = replace(lqg(**PLANE), discount=discount)
    P, c = matrix(Riccati().solve(problem), t)
    expected, constant = integrated(problem, t)
    assert (P - expected).abs().max() < 1e-10 and abs(c - constant) < 1e-10
    assert (P - P.T).abs().max() < 1e-14


def test_the_scalar_problem_is_a_hyperbolic_tangent():
    solution = solve(lqg(0.0, 1.0, 1.0, 1.0, 0.0, 0.8, 2.0), Riccati())
    for t in (0.0, 0.3, 1.9, 2.0):
        P, c = matrix(solution, t)
        assert P.item() == pytest.approx(math.tanh(2 - t), abs=1e-14)
        assert c == pytest.approx(0.32 * math.log(math.cosh(2 - t)), abs=1e-14)


@pytest.mark.parametrize("d", [1, 2, 20, 100])
def test_the_residual_vanishes_from_one_to_a_hundred_dimensions(d):
    problem = lqg(*random(d), 1.0, 1.0, 1.0, 0.5, 1.0)
    assert relative_residual(problem, problem.exact, 3 if d == 100 else 100) < 1e-12


HARD = {
    "cheap control": dict(A=0.5, B=1, Q=1, R=1e-4, G=1e3, sigma=0.3, T=2.0),
    "large units": dict(A=0.5, B=1, Q=1e6, R=1e6, G=1e8, sigma=0.3, T=2.0),
    "steep end": dict(A=0.5, B=1, Q=0, R=1, G=1e6, sigma=0.3, T=2.0),
    "no control": dict(A=0.5, B=0, Q=1, R=1, G=1, sigma=0.3, T=2.0),
    "near escape": dict(A=0, B=1, Q=0, R=1, G=-0.5, sigma=0.3, T=1.99),
    "two scales": dict(A=[[5, 1], [1, -20]], B=[[1, 0], [0, 1.0]], Q=1, R=1, G=0.1, sigma=1.0, T=1.0),
}


@pytest.mark.parametrize("case", HARD)
def test_the_residual_vanishes_in_hard_cases(case):
    problem = lqg(**HARD[case])
    assert relative_residual(problem, problem.exact) < 1e-11


def test_the_constant_is_resolved_where_only_the_discount_is_fast():
    problem = replace(lqg(2.5, 1e-3, 1e-3, 1.0, 1e-3, 1.0, 6.0), discount=5.0)
    assert relative_residual(problem, Riccati().solve(problem)) < 1e-11


def test_a_steep_end_is_the_closed_form():
    # A = Q = 0: P = 1/(T - t + 1/G)
    solution = solve(lqg(0.0, 1.0, 0.0, 1.0, 1e6, 0.0, 1.0), Riccati())
    for t in (0.0, 0.5, 1 - 1e-3, 1 - 1e-6, 1.0):
        assert matrix(solution, t)[0].item() == pytest.approx(1 / (1 - t + 1e-6), rel=1e-9)


def test_the_time_derivative_is_that_of_the_value_returned():
    problem = replace(lqg(**PLANE), discount=0.3)
    solution, h = Riccati().solve(problem), 2e-3
    x = torch.tensor([[1.0, -2.0]], dtype=F64)
    for t in (0.1, 0.7, 1.4):
        s = torch.tensor([t], dtype=F64, requires_grad=True)
        (rate,) = torch.autograd.grad(solution.value(x, s).sum(), s)
        v = [solution.value(x, t + k * h).item() for k in (-2, -1, 1, 2)]
        assert rate.item() == pytest.approx((v[0] - 8 * v[1] + 8 * v[2] - v[3]) / (12 * h), abs=1e-8)


def test_gradient_is_the_derivative_of_the_value_and_the_control_follows_from_it():
    problem = lqg(**PLANE)
    solution = solve(problem, Riccati())
    x, t = points(problem, 40)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(solution.value(x, t).sum(), x)
    torch.testing.assert_close(solution.gradient(x.detach(), t), slope, rtol=1e-12, atol=1e-12)
    # u = -R^-1 B'P x with B = (0, 1)'
    torch.testing.assert_close(solution.control(x.detach(), t)[:, 0], -slope[:, 1] / 0.5, rtol=1e-12, atol=1e-12)
    assert not solution.value(x.detach(), t).requires_grad and solution.value(x, t).requires_grad


def test_many_times_in_one_call_are_those_one_by_one():
    solution = solve(lqg(**PLANE), Riccati())
    assert solution.meta["panels"] > 2
    x, t = points(solution.problem, 30)
    together = solution.value(x, t)
    single = torch.stack([solution.value(x[i : i + 1], t[i].item())[0] for i in range(30)])
    torch.testing.assert_close(together, single, rtol=1e-13, atol=1e-13)
    assert solution.value(x.float(), t.float()).dtype == torch.float32
    torch.testing.assert_close(solution.value(x.float(), t.float()).double(), together, rtol=1e-5, atol=1e-5)


def test_the_infinite_horizon_gives_the_known_numbers():
    problem = stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1)
    P, c = matrix(solve(problem, Riccati()))
    assert P.item() == pytest.approx(0.2659750769, abs=1e-10) and c == pytest.approx(0.1196887846, abs=1e-10)
    control = solve(problem, Riccati()).control(torch.ones(1, 1, dtype=F64)).item()
    assert control == pytest.approx(-2.6597507691, abs=1e-10)


@pytest.mark.parametrize("discount", [0.0, 0.8])
def test_the_stabilising_solution_is_that_of_scipy(discount):
    finite = lqg(**{**PLANE, "Q": 1.0, "sigma": 0.5 if discount else 0.0})
    problem = without_end(finite, discount)
    solution, lq = Riccati().solve(problem), problem.linear_quadratic
    A, B, Q, R = (m.numpy() for m in (lq.A, lq.B, lq.Q, lq.R))
    expected = torch.tensor(solve_continuous_are(A - discount / 2 * np.eye(2), B, Q, R))
    P, c = matrix(solution)
    assert (P - expected).abs().max() < 1e-12
    assert c == pytest.approx((0.25 * expected.trace() / (2 * discount)).item() if discount else 0.0, rel=1e-12)
    assert relative_residual(problem, solution) < 1e-12
    # and a long finite horizon forgets its end
    long = replace(lqg(**{**PLANE, "Q": 1.0, "sigma": 0.5, "T": 40.0}), discount=discount)
    assert (matrix(Riccati().solve(long))[0] - P).abs().max() < 1e-12


def test_forty_dimensions_over_an_infinite_horizon():
    problem = without_end(lqg(*random(40), 1.0, 1.0, 1.0, 0.5, 0.01), 0.1)
    assert relative_residual(problem, Riccati().solve(problem), 4) < 1e-12


@pytest.mark.parametrize(("Q", "G", "time"), [(0.0, -0.5, 1.0), (-1.0, 0.0, 3 - math.pi / 2), (-4.0, 1.0, 1.6826)])
def test_a_finite_escape_time_is_named(Q, G, time):
    with pytest.raises(ValueError, match="must keep the value finite on \\[0, 3\\], got an escape at t = ") as error:
        lqg(0.0, 1.0, Q, 1.0, G, 0.3, 3.0)
    # P = sqrt(-Q) tan(atan(G/sqrt(-Q)) - sqrt(-Q) (T - t))
    root = math.sqrt(-Q)
    if Q:
        time = 3 - (math.atan(G / root) + math.pi / 2) / root
    assert float(str(error.value).split("t = ")[1]) == pytest.approx(time, abs=1e-5)
    assert lqg(0.0, 1.0, Q, 1.0, G, 0.3, 0.999 * (3 - time)).exact is not None


def test_a_mode_that_cannot_be_stabilised_is_named():
    problem = without_end(lqg([[0.4, 0], [1, -1]], [[0], [1.0]], 1.0, 1.0, 0.0, 0.0, 1.0), 0.8)
    with pytest.raises(ValueError, match=r"mode \[1.0, 0.0\] with eigenvalue 0.4, not below 0.4, which no control"):
        Riccati().solve(problem)
    assert Riccati().solve(replace(problem, discount=0.81)).value(torch.ones(1, 2, dtype=F64)).item() > 0


def test_what_has_no_stabilising_solution_is_refused():
    idle = without_end(lqg(0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0), 0.0)
    with pytest.raises(ValueError, match="eigenvalue .* on the imaginary axis"):
        Riccati().solve(idle)
    oscillating = without_end(lqg(0.0, 1.0, -1.0, 1.0, 0.0, 0.0, 1.0), 0.0)
    with pytest.raises(ValueError, match="on the imaginary axis: the cost is unbounded"):
        Riccati().solve(oscillating)
    with pytest.raises(ValueError, match="discount must be positive where there is noise, got 0"):
        Riccati().solve(without_end(lqg(-1.0, 1.0, 1.0, 1.0, 0.0, 0.1, 1.0), 0.0))


@pytest.mark.parametrize("change", [dict(bounds=(-torch.ones(1), torch.ones(1))), dict(control_set=torch.ones(2, 1)),
                                    dict(obstacle=lambda x, t: x[:, 0])])  # fmt: skip
def test_a_value_that_is_not_quadratic_is_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} must be None for Riccati"):
        Riccati().solve(replace(lqg(**PLANE), **change))


def test_bad_matrices_are_refused():
    problem = lqg(**PLANE)
    with pytest.raises(ValueError, match="linear_quadratic must be given for Riccati, got None in the problem 'lqg'"):
        Riccati().solve(replace(problem, linear_quadratic=None))
    with pytest.raises(ValueError, match="G must be given with a horizon"):
        Riccati().solve(replace(problem, linear_quadratic=replace(problem.linear_quadratic, G=None)))
    two = torch.eye(2, dtype=F64)
    for name, bad, text in (
        ("A", torch.eye(3), r"A must have shape \(2, 2\), got \(3, 3\)"),
        ("B", two * math.nan, r"B must have shape \(2, 1\)"),
        ("S", two * math.nan, "S must be finite"),
        ("Q", torch.tensor([[1, 0.1], [0, 1]]), "Q must be symmetric, got entries that differ by 0.1"),
        ("G", torch.tensor([[1, 0.1], [0, 1]]), "G must be symmetric"),
        ("R", torch.zeros(1, 1), "R must be positive definite, got the eigenvalue 0"),
    ):
        with pytest.raises(ValueError, match=text):
            Riccati().solve(replace(problem, linear_quadratic=replace(problem.linear_quadratic, **{name: bad})))
    one = torch.ones(1, 1, dtype=F64)
    rewards = ControlProblem(
        "own", 1, 1, lambda x, t: x, one, 0.0, minimiser=None, control_set=one, sense="max",
        linear_quadratic=LinearQuadratic(one, one, one, one, None, one),
    )  # fmt: skip
    with pytest.raises(ValueError, match="must be"):
        Riccati().solve(rewards)


def test_solutions_are_restored(tmp_path):
    for problem in (lqg(**PLANE), stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1)):
        solution = solve(problem, Riccati())
        again = load(solution.save(tmp_path / "solution.safetensors"))
        x, t = points(problem, 20)
        assert torch.equal(again.value(x, t), solution.value(x, t))
        assert torch.equal(again.control(x, t), solution.control(x, t)) and again.meta == solution.meta
        assert again.method == "Riccati" and again.problem.name == problem.name

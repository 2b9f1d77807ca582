import math
from dataclasses import replace

import pytest
import torch

from hjbridge.hjb import ControlProblem
from hjbridge.hjb.problem import check_definite, check_symmetric, half_trace

F64 = torch.float64


def tensor(*values):
    return torch.tensor(values, dtype=F64)


def uniform(*shape, seed=0):
    return 4 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64) - 2


def push(x, t):
    """B(x, t), (n, 2, 2)."""
    a, b = x.T
    return torch.stack([torch.stack([1 + a**2, t * b], 1), torch.stack([a * b, 2 - b], 1)], 1)


def spread(x, t):
    return torch.stack([0.3 + x[:, 0] ** 2, 0.5 * x[:, 1]], 1)


PROBLEM = ControlProblem(
    name="own", dim=2, controls=2,
    drift=lambda x, t: torch.stack([x[:, 1] * t, torch.sin(x[:, 0])], 1), control_matrix=push, dispersion=spread,
    control_cost=torch.tensor([[2, 0.6], [0.6, 1]], dtype=F64),
    running_cost=lambda x, t: x[:, 0] ** 2 + t * x[:, 1], terminal_cost=lambda x: x[:, 0], horizon=2.0,
)  # fmt: skip
X, P, M = uniform(6, 2), uniform(6, 2, seed=1), uniform(6, 2, 2, seed=2)
M = M + M.mT
TIME = torch.tensor(0.7, dtype=F64)


def lattice(low=-12.0, high=12.0, count=481):
    """Controls (count^2, 2) on a square lattice, and its spacing."""
    axis = torch.linspace(low, high, count, dtype=F64)
    return torch.cartesian_prod(axis, axis), (high - low) / (count - 1)


def brute(problem, controls, second=None):
    """The best member of `controls` at each of the points, by evaluating the Hamiltonian at all."""
    rows = []
    for i in range(len(X)):
        x, p, m = (a[i : i + 1].expand(len(controls), *a.shape[1:]) for a in (X, P, M))
        H = problem.hamiltonian(x, TIME, controls, p, m if second else None)
        rows.append(controls[H.argmin() if problem.sense == "min" else H.argmax()])
    return torch.stack(rows)


def test_the_hamiltonian_is_the_sum_of_its_terms():
    u = uniform(6, 2, seed=3)
    expected = []
    for x, v, p, m in zip(X.tolist(), u.tolist(), P.tolist(), M.tolist(), strict=True):
        a, b = x
        speed = [b * 0.7 + (1 + a * a) * v[0] + 0.7 * b * v[1], math.sin(a) + a * b * v[0] + (2 - b) * v[1]]
        cost = a * a + 0.7 * b + (2 * v[0] ** 2 + 1.2 * v[0] * v[1] + v[1] ** 2) / 2
        first = cost + p[0] * speed[0] + p[1] * speed[1]
        expected.append([first, first + ((0.3 + a * a) ** 2 * m[0][0] + 0.25 * b * b * m[1][1]) / 2])
    found = torch.stack([PROBLEM.hamiltonian(X, TIME, u, P), PROBLEM.hamiltonian(X, TIME, u, P, M)], 1)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=F64), rtol=1e-13, atol=1e-13)


def test_the_closed_form_minimises_the_hamiltonian():
    best = PROBLEM.best_control(X, TIME, P)
    controls, step = lattice()
    near = brute(PROBLEM, controls)
    # the spacing of the lattice bounds the distance, up to the condition number 5.8 of R
    assert (best - near).abs().max() < 2 * step
    H = PROBLEM.hamiltonian(X, TIME, best, P)
    assert (H <= PROBLEM.hamiltonian(X, TIME, near, P) + 1e-13).all()
    # and it is stationary: a step h costs h'Rh/2, without a term of first order
    for h in (tensor(0.1, 0.0), tensor(-0.1, 0.0), tensor(0.0, 0.1), tensor(0.0, -0.1)):
        rise = PROBLEM.hamiltonian(X, TIME, best + h, P) - H
        torch.testing.assert_close(rise, (h @ PROBLEM.control_cost @ h / 2).expand(6), rtol=1e-9, atol=1e-12)


def test_bounds_clip_the_control():
    bounds = (tensor(-0.5, 0.0), tensor(1.0, 2.0))
    problem = replace(PROBLEM, control_cost=tensor(2.0, 0.5).diag(), bounds=bounds)
    controls = torch.cartesian_prod(torch.linspace(-0.5, 1, 301, dtype=F64), torch.linspace(0, 2, 401, dtype=F64))
    best = problem.best_control(X, TIME, P)
    assert (best - brute(problem, controls)).abs().max() < 0.005
    assert len(best.unique()) > 5 and ((best == bounds[0]) | (best == bounds[1])).any()


@pytest.mark.parametrize("sense", ["min", "max"])
def test_a_finite_set_is_enumerated(sense):
    members = uniform(7, 2, seed=5)
    price = (lambda x, u, t: u.abs().sum(1) * x[:, 0] - t * u[:, 0] ** 3) if sense == "max" else None
    problem = replace(PROBLEM, control_set=members, sense=sense, control_cost=price)
    best = problem.best_control(X, TIME, P)
    assert torch.equal(best, brute(problem, members)) and len(best[:, 0].unique()) > 2
    assert problem.better(tensor(1.0, 5.0), tensor(2.0, 4.0)).tolist() == ([1, 4] if sense == "min" else [2, 5])


def test_the_first_of_equals_is_taken():
    problem = replace(PROBLEM, control_set=tensor([1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]), control_cost=None)
    assert problem.best_control(X, TIME, torch.zeros_like(P)).tolist() == [[1.0, 0.0]] * 6


def test_noise_that_depends_on_the_control_counts_in_the_minimum():
    members = tensor([0.2, 0.0], [1.5, 0.0], [0.7, 1.0])
    problem = replace(
        PROBLEM, control_set=members, controlled_noise=True, dispersion=lambda x, t, u: u * (1 + t) + 0 * x
    )
    best = problem.best_control(X, TIME, P, M)
    assert torch.equal(best, brute(problem, members, second=True))
    assert not torch.equal(best, problem.best_control(X, TIME, P, 0 * M))
    with pytest.raises(ValueError, match="M must be given: the dispersion of this problem depends on the control"):
        problem.best_control(X, TIME, P)


def test_an_own_minimiser_is_asked():
    problem = replace(PROBLEM, minimiser=lambda x, t, p, M: torch.stack([p[:, 0] + t, M[:, 0, 1] + x[:, 1]], 1))
    expected = torch.stack([P[:, 0] + 0.7, M[:, 0, 1] + X[:, 1]], 1)
    torch.testing.assert_close(problem.best_control(X, TIME, P, M), expected)
    assert torch.equal(problem.best_control(X, TIME, P)[:, 1], X[:, 1])


def test_nothing_to_decide():
    problem = replace(PROBLEM, controls=0, control_matrix=torch.zeros(2, 0), control_cost=None)
    u = problem.best_control(X, TIME, P)
    assert u.shape == (6, 0)
    torch.testing.assert_close(problem.velocity(X, TIME, u), PROBLEM.drift(X, TIME))
    torch.testing.assert_close(problem.cost(X, TIME, u), PROBLEM.running_cost(X, TIME))


@pytest.mark.parametrize("kind", ["number", "matrix"])
def test_dispersions_become_batches(kind):
    matrix = tensor([0.3, 0.1, 0.0], [0.2, 0.4, 0.5])
    problem = replace(PROBLEM, dispersion=0.3 if kind == "number" else matrix)
    square = 0.09 * torch.eye(2, dtype=F64) if kind == "number" else matrix @ matrix.T
    expected = torch.einsum("ij,nij->n", square, M) / 2
    torch.testing.assert_close(half_trace(problem.noise(X, TIME), M), expected, rtol=1e-13, atol=1e-13)


def test_matrices_follow_the_type_of_the_state():
    problem = replace(PROBLEM, control_matrix=torch.eye(2, dtype=F64), dispersion=torch.eye(2, dtype=F64))
    x = X.float()
    assert problem.best_control(x, problem.time(x, 0.7), P.float()).dtype == torch.float32
    assert problem.hamiltonian(x, problem.time(x, 0.7), P.float(), P.float(), M.float()).dtype == torch.float32


def test_times_keep_their_digits_and_rounding_is_forgiven():
    assert PROBLEM.time(X, 0.1).item() == 0.1 and PROBLEM.time(X, 0.1).dtype == F64
    assert PROBLEM.time(X, 1).item() == 1.0
    end = replace(PROBLEM, horizon=1.99)
    # 1.99 as float32 lies above 1.99
    assert end.time(X, torch.tensor(1.99).double()).item() == 1.99
    assert end.time(X.float(), 1.99).dtype == torch.float32


def test_without_horizon_any_real_time_is_accepted():
    endless = replace(PROBLEM, horizon=None, terminal_cost=None)
    for t in (1e9, -1.0, 0.0):
        assert endless.time(X, t).item() == t
    assert endless.time(X, -torch.ones(6)).tolist() == [-1.0] * 6
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"t must be finite, got {bad}"):
            endless.time(X, bad)


@pytest.mark.parametrize(
    ("x", "t", "text"),
    [
        (X, 2.1, r"t must lie in \[0, 2\], got 2.1"),
        (X, -0.1, r"t must lie in \[0, 2\], got -0.1"),
        (X, math.nan, r"t must lie in \[0, 2\], got nan"),
        (X, torch.tensor([0, 1, 2, 3, 0, 0.0]), r"t must lie in \[0, 2\], got 3"),
        (X, torch.zeros(5), r"t must be a number or of shape \(6,\), got shape \(5,\)"),
        (X, torch.zeros(6, 1), r"t must be a number or of shape \(6,\), got shape \(6, 1\)"),
        (X[:, :1], 0, r"x must be floating, of shape \(n, 2\), got torch.float64 \(6, 1\)"),
        (X[0], 0, r"x must be floating, of shape \(n, 2\), got torch.float64 \(2,\)"),
        (X.long(), 0, r"x must be floating, of shape \(n, 2\), got torch.int64 \(6, 2\)"),
        (X / 0, 0, "x must be finite, got NaN or infinity"),
        (X * math.nan, 0, "x must be finite, got NaN or infinity"),
    ],
)
def test_bad_states_and_times_are_refused(x, t, text):
    with pytest.raises(ValueError, match=text):
        PROBLEM.time(x, t)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"dim": 0}, "dim must be positive and controls not negative, got 0 and 2"),
        ({"controls": -1}, "dim must be positive and controls not negative, got 2 and -1"),
        ({"sense": "best"}, "sense must be min or max, got 'best'"),
        ({"horizon": 0.0}, "horizon must be positive and finite, or None, got 0.0"),
        ({"horizon": math.inf}, "horizon must be positive and finite, or None, got inf"),
        ({"horizon": math.nan}, "horizon must be positive and finite, or None, got nan"),
        ({"discount": -0.1}, "discount must be finite and not negative, got -0.1"),
        ({"discount": math.inf}, "discount must be finite and not negative, got inf"),
        ({"terminal_cost": None}, "terminal_cost must be given with a horizon, got None"),
        ({"inside": lambda x: x[:, 0] > 0}, "exit_cost must be given with inside, got None"),
        ({"control_matrix": torch.eye(3)}, r"control_matrix must have shape \(2, 2\), got \(3, 3\)"),
        ({"dispersion": torch.eye(3)}, r"dispersion must have shape \(2, k\), got \(3, 3\)"),
        ({"dispersion": torch.ones(2)}, r"dispersion must have shape \(2, k\), got \(2,\)"),
        ({"control_cost": torch.eye(3)}, r"control_cost must have shape \(2, 2\), got \(3, 3\)"),
        ({"control_cost": torch.eye(2) * math.nan}, "control_cost must be finite, got NaN or infinity"),
        ({"control_cost": tensor([1, 0.5], [0, 1])}, "control_cost must be symmetric, got entries that differ by 0.5"),
        ({"control_cost": tensor([1, 2], [2, 1])}, "control_cost must be positive definite, got the eigenvalue -1"),
        ({"control_cost": torch.zeros(2, 2)}, "control_cost must be positive definite, got the eigenvalue 0"),
        ({"sense": "max"}, "control_cost must be a function of .* where sense is max, got a matrix"),
        ({"bounds": (tensor(0, 0), tensor(1, 1))}, "control_cost must be diagonal where bounds are given"),
        ({"control_cost": None}, "control_cost must be a matrix unless control_set or minimiser is given"),
        ({"control_set": torch.ones(3)}, r"control_set must have shape \(K, 2\), got \(3,\)"),
        ({"control_set": torch.ones(3, 1)}, r"control_set must have shape \(K, 2\), got \(3, 1\)"),
        ({"control_set": torch.ones(0, 2)}, r"control_set must have shape \(K, 2\), got \(0, 2\)"),
        ({"control_set": tensor([0, 1], [math.nan, 1])}, "control_set must be finite, got nan"),
        ({"control_matrix": tensor([0, math.inf], [1, 1])}, "control_matrix must be finite, got inf"),
        ({"dispersion": math.nan}, "dispersion must be finite and not negative, got nan"),
        ({"dispersion": math.inf}, "dispersion must be finite and not negative, got inf"),
        ({"dispersion": -1}, "dispersion must be finite and not negative, got -1"),
        ({"dispersion": tensor([0.1], [math.nan])}, "dispersion must be finite, got nan"),
        ({"box": (tensor(0, 0), tensor(1, math.nan))}, r"box must be two finite vectors \(2,\), .* and \[1.0, nan\]"),
        ({"box": (tensor(-math.inf, 0), tensor(1, 1))}, r"box must be two finite vectors \(2,\), .* got \[-inf, 0.0\]"),
        ({"box": (tensor(0, 2), tensor(1, 1))}, r"low < high, got \[0.0, 2.0\] and \[1.0, 1.0\]"),
        ({"box": (tensor(0, 1), tensor(1, 1))}, r"low < high, got \[0.0, 1.0\] and \[1.0, 1.0\]"),
        ({"box": (tensor(0), tensor(1))}, r"box must be two finite vectors \(2,\), low < high, got \[0.0\] and"),
    ],
)
def test_a_problem_that_makes_no_sense_is_refused(change, text):
    with pytest.raises(ValueError, match=text):
        replace(PROBLEM, **change)


@pytest.mark.parametrize(
    "bounds", [(tensor(0.0), tensor(1.0)), (tensor(0, 1), tensor(1, 1)), (tensor(0, 2), tensor(1, 1))]
)
def test_bounds_that_leave_nothing_are_refused(bounds):
    with pytest.raises(ValueError, match=r"bounds must be two vectors \(2,\), low < high, got"):
        replace(PROBLEM, control_cost=torch.eye(2), bounds=bounds)


def test_matrices_are_checked():
    good = tensor([2, 1], [1, 2])
    assert check_definite("R", good, 2) is good and check_symmetric("R", -good, 2).sum() == -6
    with pytest.raises(ValueError, match="R must be positive definite, got the eigenvalue -3"):
        check_definite("R", -good, 2)

import math

import pytest
import torch

from hjbridge.hjb import hjb_residual, problems
from hjbridge.hjb.problems import lqg, random_lqg, stationary_lqr

F64 = torch.float64
PLANE = dict(A=[[0.1, 1], [1, -0.2]], B=[[0.3], [1.0]], Q=[[1, 0.3], [0.3, 2]], R=0.4, G=[[2, 0.5], [0.5, 1]],
             sigma=[[0.5, 0.1, 0], [0.2, 0.7, 0.3]], T=1.3)  # fmt: skip
LINE = dict(alpha=-0.5, beta=1.0, q=1.0, r=0.1, sigma=0.3, rho=0.1)


def close(actual, expected):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=F64), rtol=1e-14, atol=1e-14)


def test_lqg_states_what_its_formula_says():
    problem = lqg(**PLANE)
    x, u, t = torch.tensor([[1.0, -2]], dtype=F64), torch.tensor([[3.0]], dtype=F64), torch.tensor(0.5, dtype=F64)
    close(problem.velocity(x, t, u), [[0.1 - 2 + 0.9, 1 + 0.4 + 3]])
    # (1 + 2 * .3 * (-2) + 2 * 4)/2 + .4 * 9/2
    close(problem.cost(x, t, u), [3.9 + 1.8])
    close(problem.running_cost(x, t), [3.9])
    # (2 - 2 + 4)/2
    close(problem.terminal_cost(x), [2.0])
    close(problem.noise(x, t)[0], PLANE["sigma"])
    assert (problem.dim, problem.controls, problem.horizon, problem.discount) == (2, 1, 1.3, 0.0)
    assert (problem.states, problem.actions) == (("x1", "x2"), ("u",))


def test_the_matrices_are_those_of_the_functions():
    for problem in (lqg(**PLANE), stationary_lqr(**LINE)):
        x = problem.initial(5, torch.Generator().manual_seed(0))
        u, t, lq = x[:, :1].flip(0), torch.tensor(0.2, dtype=F64), problem.linear_quadratic
        close(problem.velocity(x, t, u), x @ lq.A.T + u @ lq.B.T)
        close(problem.cost(x, t, u), ((x @ lq.Q) * x).sum(1) / 2 + ((u @ lq.R) * u).sum(1) / 2)
        sigma = problem.noise(x, t)[0]
        close(lq.S, sigma if sigma.ndim == 2 else sigma.diag())


def test_numbers_lists_and_tensors_state_the_same_problem():
    x = torch.tensor([[0.7]], dtype=F64)
    values = [
        lqg(A=a, B=b, Q=q, R=r, G=g, sigma=s, T=1.0).exact.value(x, 0.2).item()
        for a, b, q, r, g, s in (
            (0.1, 1.1, 0.3, 0.4, 2, 0.6),
            ([[0.1]], [[1.1]], [[0.3]], [[0.4]], [[2]], [[0.6]]),
            tuple(torch.tensor([[v]], dtype=F64) for v in (0.1, 1.1, 0.3, 0.4, 2, 0.6)),
        )
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-14)
    # a number multiplies the identity
    plane = lqg(**{**PLANE, "Q": 0.1, "sigma": 0.2})
    close(plane.linear_quadratic.Q, 0.1 * torch.eye(2, dtype=F64))
    close(plane.linear_quadratic.S, 0.2 * torch.eye(2, dtype=F64))


@pytest.mark.parametrize("make", [lqg, stationary_lqr])
def test_arguments_restate_the_problem(make):
    arguments = PLANE if make is lqg else LINE
    problem = make(**arguments)
    assert problem.arguments == arguments and problem.name == make.__name__
    again = getattr(problems, problem.name)(**problem.arguments)
    x = problem.initial(5, torch.Generator().manual_seed(0))
    assert torch.equal(again.exact.value(x), problem.exact.value(x))


def test_exact_solves_its_equation_and_its_end():
    problem = lqg(**PLANE)
    x = problem.initial(100, torch.Generator().manual_seed(1))
    t = 1.3 * torch.rand(100, generator=torch.Generator().manual_seed(2), dtype=F64)
    residual, terms = hjb_residual(problem, problem.exact.value, x, t, True)
    assert (residual.abs() / terms.scale()).max() < 1e-12
    close(problem.exact.value(x, 1.3), problem.terminal_cost(x))
    assert problem.exact.method == "exact" and problem.exact.problem.name == "lqg"


def test_starts_and_box():
    problem = lqg(**PLANE)
    x = problem.initial(20000, torch.Generator().manual_seed(0))
    assert x.dtype == F64 and torch.equal(x, problem.initial(20000, torch.Generator().manual_seed(0)))
    assert x.mean(0).abs().max() < 0.03 and (x.T.cov() - torch.eye(2)).abs().max() < 0.04
    close(torch.stack(problem.box), [[-3, -3], [3, 3]])


def test_random_lqg_has_entries_of_the_stated_size():
    problem = random_lqg(100, 50, seed=3)
    A, B = problem.arguments["A"], problem.arguments["B"]
    assert A.shape == (100, 100) and B.shape == (100, 50)
    # 10,000 and 5,000 squares: relative standard errors .014 and .02
    assert 100 * A.square().mean().item() == pytest.approx(0.49, rel=0.06)
    assert 100 * B.square().mean().item() == pytest.approx(1.96, rel=0.08)
    assert {k: problem.arguments[k] for k in "QRGT"} == {"Q": 1, "R": 1, "G": 1, "T": 1}
    assert problem.arguments["sigma"] == 0.5
    assert torch.equal(random_lqg(100, 50, seed=3).arguments["A"], A)
    assert not torch.equal(random_lqg(100, 50, seed=4).arguments["A"], A)
    with pytest.raises(ValueError, match="states and controls must be at least 1, got 3 and 0"):
        random_lqg(3, 0, seed=0)


def test_stationary_lqr_gives_the_known_numbers():
    exact = stationary_lqr(**LINE).exact
    zero, one = torch.zeros(1, 1, dtype=F64), torch.ones(1, 1, dtype=F64)
    assert exact.gradient(one).item() == pytest.approx(0.2659750769, abs=1e-10)
    assert exact.control(one).item() == pytest.approx(-2.6597507691, abs=1e-10)
    assert exact.value(zero).item() == pytest.approx(0.1196887846, abs=1e-10)
    assert (exact.value(one) - exact.value(zero)).item() == pytest.approx(0.2659750769 / 2, abs=1e-10)


@pytest.mark.parametrize(
    "change",
    [{}, {"alpha": 0.7, "q": 0.0}, {"alpha": 0.7}, {"beta": 0.0}, {"beta": -2.0}, {"q": -0.02},
     {"q": 0.0}, {"q": -0.03024}, {"q": -5.0, "beta": 0.0}, {"alpha": 1e3},
     {"alpha": -1e3}, {"sigma": 0.0, "rho": 0.0}],
)  # fmt: skip
def test_stationary_lqr_solves_its_equation_and_is_stable(change):
    problem = stationary_lqr(**{**LINE, **change})
    x = torch.linspace(-2, 2, 9, dtype=F64).unsqueeze(1)
    residual, terms = hjb_residual(problem, problem.exact.value, x, 0.0, True)
    assert (residual.abs() / terms.scale().clamp(min=1e-300)).max() < 1e-12
    lq, one = problem.linear_quadratic, torch.ones(1, 1, dtype=F64)
    # closed loop: e^(-rho t) E X^2 decays
    assert (lq.A + lq.B * problem.exact.control(one)).item() < problem.discount / 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"A": 1.0}, r"A must have shape \(2, 2\), for B of shape \(2, 1\), got \(1, 1\)"),
        ({"B": [0.0, 1.0]}, r"B must be a matrix or a number, got shape \(2,\)"),
        ({"Q": [[1.0]]}, r"Q must have shape \(2, 2\), got \(1, 1\)"),
        ({"Q": [[1, 0.1], [0, 1]]}, "Q must be symmetric, got entries that differ by 0.1"),
        ({"G": [[1, 0.1], [0, 1]]}, "G must be symmetric, got entries that differ by 0.1"),
        ({"B": [[0, 1], [1.0, 0]], "R": [[1, 0.1], [0, 1]]}, "R must be symmetric, got entries that differ by 0.1"),
        ({"R": 0.0}, "R must be positive definite, got the eigenvalue 0"),
        ({"R": -0.5}, "R must be positive definite, got the eigenvalue -0.5"),
        ({"Q": math.nan}, "Q must be finite, got NaN or infinity"),
        ({"A": [[math.inf, 0], [0, 1]]}, "A must be finite, got NaN or infinity"),
        ({"sigma": math.nan}, "sigma must be finite, got NaN or infinity"),
        ({"sigma": -0.1}, "sigma must not be negative, got -0.1"),
        ({"sigma": [[1.0]]}, r"sigma must be a number or have shape \(2, k\), got \(1, 1\)"),
        ({"T": 0.0}, "T must be positive and finite, got 0.0"),
        ({"T": math.inf}, "T must be positive and finite, got inf"),
        ({"T": math.nan}, "T must be positive and finite, got nan"),
        ({"G": -9.0}, r"Q and G must keep the value finite on \[0, 1.3\], got an escape at t = 1"),
    ],
)
def test_lqg_refuses(change, text):
    with pytest.raises(ValueError, match=text):
        lqg(**{**PLANE, **change})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"r": 0.0}, "r must be positive, got 0.0: a control that costs nothing"),
        ({"r": -1.0}, "r must be positive, got -1.0"),
        ({"q": math.nan}, "q must be finite, got nan"),
        ({"sigma": -0.1}, "sigma and rho must not be negative, got -0.1 and 0.1"),
        ({"rho": -0.1}, "sigma and rho must not be negative, got 0.3 and -0.1"),
        ({"rho": 0.0}, "rho must be positive where there is noise, got 0 with sigma 0.3"),
        ({"beta": 0.0, "alpha": 0.05}, "alpha must be below rho/2 = 0.05 where beta is 0, got 0.05: the mode x grows"),
        ({"q": -0.03025001}, "q must be above .* = -0.03025, got -0.03025001"),
        ({"q": -0.0303}, "q must be above .* = -0.03025, got -0.0303"),
    ],
)
def test_stationary_lqr_refuses(change, text):
    with pytest.raises(ValueError, match=text):
        stationary_lqr(**{**LINE, **change})

"""Merton's portfolio: closed forms against the equation, quadrature over lognormal wealth, and brute force."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad
from scipy.special import roots_hermite

from hjbridge.hjb import Grid, hjb_residual, load, simulate, solve
from hjbridge.hjb.problems import merton

MARKET = {"r": 0.03, "mu": 0.08, "sigma": 0.2}
CASES = [
    {"gamma": 2.0, "rho": 0.05}, {"gamma": 1.0, "rho": 0.05}, {"gamma": 0.5, "rho": 0.1},
    {"gamma": 2.0, "T": 1.5}, {"gamma": 1.0, "T": 1.5}, {"gamma": 0.5, "T": 1.5},
]  # fmt: skip


def column(*values):
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


def utility(y, gamma):
    return math.log(y) if gamma == 1 else y ** (1 - gamma) / (1 - gamma)


def expected(y, pi, k, t, gamma):
    """E U(y X_t) from X_0 = 1 under constant fraction and consumption rate: X_t is lognormal; Gauss-Hermite."""
    r, mu, sigma = MARKET.values()
    nodes, weights = roots_hermite(40)
    mean = (r + pi * (mu - r) - k - (pi * sigma) ** 2 / 2) * t
    samples = [y * math.exp(mean + pi * sigma * math.sqrt(2 * t) * z) for z in nodes]
    return sum(w * utility(x, gamma) for w, x in zip(weights, samples, strict=True)) / math.sqrt(math.pi)


def payoff(pi, k, gamma, rho=None, T=None):
    """Utility of constant fraction and consumption rate from wealth 1, without the equation."""
    if T is not None:
        return expected(1.0, pi, 0.0, T, gamma)
    return quad(lambda t: math.exp(-rho * t) * expected(k, pi, k, t, gamma), 0, 600, limit=200, epsrel=1e-11)[0]


def test_the_known_numbers():
    problem = merton(**MARKET, gamma=2.0, rho=0.05)
    w = column(1.0, 3.0)
    assert problem.exact.value(w)[0].item() == pytest.approx(-437.4386, abs=5e-5)
    assert problem.exact.control(w)[1].tolist() == pytest.approx([0.625, 3 * 0.0478125], rel=1e-13)
    assert problem.sense == "max"
    assert problem.discount == 0.05


@pytest.mark.parametrize("case", CASES)
def test_the_equation_holds(case):
    problem = merton(**MARKET, **case)
    w, t = torch.linspace(0.05, 20, 60, dtype=torch.float64).unsqueeze(1), torch.linspace(0, 1.5, 60).double()
    residual, terms = hjb_residual(problem, problem.exact.value, w, t, True)
    assert (residual.abs() / terms.scale()).max().item() < 1e-13


@pytest.mark.parametrize("case", CASES)
def test_value_is_the_utility_of_the_control_and_no_other_does_better(case):
    problem = merton(**MARKET, **case)
    pi, *rest = problem.exact.control(column(1.0))[0].tolist()
    k = rest[0] if rest else 0.0
    best = payoff(pi, k, **case)
    assert problem.exact.value(column(1.0))[0].item() == pytest.approx(best, rel=1e-8)
    others = [payoff(pi + 0.2, k, **case), payoff(pi - 0.2, k, **case)]
    if rest:
        others += [payoff(pi, k * 1.1, **case), payoff(pi, k * 0.9, **case)]
    assert max(others) < best - 1e-5 * abs(best)


@pytest.mark.parametrize("case", CASES)
def test_gradient_and_control_are_those_of_the_value(case):
    problem = merton(**MARKET, **case)
    w, t, h = column(0.3, 1.0, 4.0), 0.7, 1e-5
    slope = (problem.exact.value(w + h, t) - problem.exact.value(w - h, t)) / (2 * h)
    assert problem.exact.gradient(w, t)[:, 0] == pytest.approx(slope.numpy(), rel=1e-7)
    bend = (problem.exact.gradient(w + h, t) - problem.exact.gradient(w - h, t)) / (2 * h)
    u = problem.best_control(w, torch.tensor(t), problem.exact.gradient(w, t), bend.unsqueeze(2))
    assert problem.exact.control(w, t).numpy() == pytest.approx(u.numpy(), rel=1e-7)


@pytest.mark.parametrize(
    ("slope", "bend"), [(2.0, -5.0), (0.3, -0.05), (-1.0, -4.0), (1.0, 2.0), (-1.0, 2.0), (1e-9, -1.0)]
)
def test_minimiser_is_the_best_of_the_admissible_controls(slope, bend):
    problem = merton(**MARKET, gamma=2.0, rho=0.05)
    w, t, rate = column(1.7), torch.tensor(0.0), 0.0478125
    u = problem.best_control(w, t, column(slope), column(bend).unsqueeze(2))
    pi = torch.linspace(-4, 4, 401, dtype=torch.float64)
    c = torch.linspace(1e-3, 20 * rate * 1.7, 400, dtype=torch.float64)
    table = torch.cartesian_prod(pi, c)
    many = torch.full((len(table), 1), 1.7, dtype=torch.float64)
    p, M = torch.full_like(many, slope), torch.full_like(many, bend).unsqueeze(2)
    brute = problem.hamiltonian(many, t, table, p, M).max().item()
    ours = problem.hamiltonian(w, t, u, column(slope), column(bend).unsqueeze(2)).item()
    assert brute - 1e-12 <= ours <= brute + 2e-3 * abs(brute)
    assert abs(u[0, 0].item()) <= 4 + 1e-12
    assert 0 < u[0, 1].item() <= 20 * rate * 1.7 * (1 + 1e-12)


@pytest.mark.parametrize(
    "case",
    [{"gamma": gamma, "rho": 0.1 if gamma < 1 else 0.05} for gamma in (0.5, 1.0, 2.0, 5.0, 10.0)]
    + [{"gamma": gamma, "T": 1.5} for gamma in (0.5, 1.0, 2.0, 5.0)],
)  # fmt: skip
def test_the_default_grid_is_right_over_the_whole_box(case):
    problem = merton(**MARKET, **case)
    found, w = solve(problem, Grid()), column(0.2, 0.5, 1.0, 2.0, 5.0)
    torch.testing.assert_close(found.value(w), problem.exact.value(w), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.gradient(w), problem.exact.gradient(w), rtol=1e-5, atol=0)
    gaps = (found.control(w) - problem.exact.control(w)).abs().amax(0).tolist()
    assert gaps[0] < 2e-5 and (len(gaps) == 1 or gaps[1] < 1e-5)


def test_the_default_grid_where_it_is_less_accurate():
    w = column(1.0)
    for error, below, problem in (
        (1.5e-4, 1e-4, merton(**MARKET, gamma=5.0, T=10.0)),
        (0.1, 0.05, merton(**MARKET, gamma=0.5, rho=0.05)),
        (0.01, 5e-3, merton(0.03, 0.03, 0.2, 5.0, rho=0.1)),
    ):
        gap = abs(solve(problem, Grid()).value(w) / problem.exact.value(w) - 1).item()
        assert below < gap < error


def test_paths_reach_the_value():
    problem = merton(**MARKET, gamma=2.0, T=1.0)
    generator = torch.Generator().manual_seed(0)
    path = simulate(problem, problem.exact.control, torch.ones(20000, 1).double(), torch.linspace(0, 1, 21), generator)
    error = path.cost.std().item() / math.sqrt(20000)
    exact = problem.exact.value(column(1.0))[0].item()
    assert error < 1e-3
    assert abs(path.cost.mean().item() - exact) < 3 * error


@pytest.mark.parametrize(
    ("case", "end"), [(CASES[2], 0.0), (CASES[5], 0.0), (CASES[0], -math.inf), (CASES[4], -math.inf)]
)
def test_who_loses_everything_ends_with_the_utility_of_nothing(case, end):
    problem = merton(**MARKET, **case)
    noises = torch.full((2, 1, 1), -10.0, dtype=torch.float64)
    path = simulate(problem, problem.exact.control, column(1.0), [0.0, 0.5, 1.5], noises=noises)
    assert path.x.item() < 0
    assert path.end.item() == 0.5
    assert path.terminal.item() == end
    assert not path.cost.isnan().any()
    # what is asked of a grid inside is finite
    assert problem.exit_cost(column(0.2), torch.tensor(0.0)).item() == pytest.approx(utility(0.2, case["gamma"]))


def test_utility_of_consumption_is_its_limit_at_nothing_and_refuses_debt():
    t = torch.tensor(0.0)
    for gamma, expect in ((0.5, 0.0), (1.0, -math.inf), (2.0, -math.inf)):
        problem = merton(**MARKET, gamma=gamma, rho=0.1)
        u = torch.tensor([[0.5, 0.0], [0.5, -1.0], [0.5, 4.0]], dtype=torch.float64)
        found = problem.cost(column(1.0, 1.0, 1.0), t, u).tolist()
        assert found == pytest.approx([expect, -math.inf, utility(4.0, gamma)])


@pytest.mark.parametrize("case", CASES)
def test_save_and_load(case, tmp_path):
    problem = merton(**MARKET, **case)
    back = load(problem.exact.save(tmp_path / "merton.safetensors"))
    assert back.value(column(2.0), 0.3) == problem.exact.value(column(2.0), 0.3)
    assert back.problem.arguments == {**MARKET, "rho": None, "T": None, **case}


def test_paths_start_at_positive_wealth_inside_the_box():
    problem = merton(**MARKET, gamma=2.0, T=1.0)
    starts = problem.initial(500, torch.Generator().manual_seed(1))
    assert starts.shape == (500, 1)
    assert ((starts > problem.box[0]) & (starts < problem.box[1])).all()


def test_the_closed_form_is_continuous_in_risk_aversion():
    # u = (w^(1-gamma) - 1)/(1-gamma) tends to log w: the fraction and the rate are continuous
    near = [merton(**MARKET, gamma=g, rho=0.05).exact.control(column(1.0))[0] for g in (1 - 1e-6, 1.0, 1 + 1e-6)]
    for a, b in pairwise(near):
        assert a.numpy() == pytest.approx(b.numpy(), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0, "rho": 0.05}, "sigma must be positive and finite, got 0.0"),
        ({"gamma": -1.0, "rho": 0.05}, "gamma must be positive and finite, got -1.0"),
        ({"mu": math.nan, "rho": 0.05}, "mu must be finite, got nan"),
        ({}, "exactly one of rho and T must be given, got rho = None and T = None"),
        ({"rho": 0.05, "T": 1.0}, "exactly one of rho and T must be given, got rho = 0.05 and T = 1.0"),
        ({"T": -1.0}, "T must be positive and finite, got -1.0"),
        ({"rho": -0.1}, "rho must be finite and not negative, got -0.1"),
        (
            {"gamma": 0.5, "rho": 0.04},
            "ill-posed: its consumption rate k = -0.0125 must be positive; rho must exceed 0.04625",
        ),
    ],
)
def test_errors_name_the_argument(change, message):
    with pytest.raises(ValueError, match=message):
        merton(**{**MARKET, "gamma": 2.0, **change})


@pytest.mark.parametrize("case", [CASES[0], CASES[3]])
def test_no_value_without_wealth(case):
    exact = merton(**MARKET, **case).exact
    for function in (exact.value, exact.gradient):
        with pytest.raises(ValueError, match="wealth must be positive, got -1"):
            function(column(1.0, -1.0))

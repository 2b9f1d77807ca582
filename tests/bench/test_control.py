"""The truths that grids are held against, and that the peers solve the same problems."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from hjbridge.hjb import Grid, problems, solve

pytestmark = pytest.mark.bench


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module


def test_open_loop_costs_are_those_of_a_fine_grid_and_of_its_control(script):
    truth = script("pendulum_truth")
    starts = np.array([[1.0, 1.0], [-2.9, 0.7], [2.3, 0.3]])
    costs = truth.optimal_costs(starts)
    solution = solve(problems.pendulum(sigma=0.0), Grid(points=(160, 161), steps=40, scheme="cubic", controls=13))
    assert solution.value(torch.from_numpy(starts)).numpy() == pytest.approx(costs, rel=2e-3)

    def control(x, t):
        return solution.control(torch.from_numpy(x.copy()), t).numpy()[:, 0]

    excess = truth.closed_loop_costs(control, starts) - costs
    assert (excess > -1e-5).all() and (excess < 0.005).all()


def test_open_loop_costs_of_mirrored_states_are_equal(script):
    truth = script("pendulum_truth")
    costs = truth.optimal_costs(np.array([[1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]]))
    assert costs[0] == pytest.approx(costs[1], rel=1e-6) and costs[2] == pytest.approx(0, abs=1e-9)


def test_put_by_integral_is_the_limit_of_trees(script):
    """Two trees extrapolate the error of the first order; what oscillates stays."""
    spots = np.array([34.0, 36.0, 40.0, 44.0, 50.0])
    market = (40.0, 0.06, 0.2, 1.0)
    price = script("put_integral").american_put_by_integral(spots, *market)
    few, many = (problems.binomial_put(spots, *market, steps) for steps in (1500, 3000))
    assert price == pytest.approx(2 * many - few, abs=3e-4)
    assert price == pytest.approx(many, abs=3e-4)
    assert price[2] == pytest.approx(2.3195743, abs=1e-6)


def test_put_by_integral_without_interest_is_european(script):
    spots = np.array([34.0, 40.0, 46.0])
    price = script("put_integral").american_put_by_integral(spots, 40.0, 1e-9, 0.2, 1.0)
    exact = problems.european_option(40.0, 0.0, 0.2, 1.0, "put").exact
    assert price == pytest.approx(exact.value(torch.from_numpy(spots).unsqueeze(1)).numpy(), abs=1e-6)


def test_put_by_integral_is_the_payoff_where_exercise_is_best(script):
    price = script("put_integral").american_put_by_integral(np.array([25.0, 30.0]), 40.0, 0.06, 0.2, 1.0)
    assert price.tolist() == [15.0, 10.0]


def test_the_peer_has_the_hamiltonian_of_our_pendulum(script, generator):
    ours, theirs = problems.pendulum(sigma=0.0), script("pendulum_grid").Pendulum()
    x, p = (scale * torch.randn(20, 2, dtype=torch.float64, generator=generator) for scale in (2.0, 1.0))
    time = torch.zeros((), dtype=torch.float64)
    expected = ours.hamiltonian(x, time, ours.best_control(x, time, p), p)
    found = [float(theirs.hamiltonian(a, 0.0, None, b)) for a, b in zip(x.numpy(), p.numpy(), strict=True)]
    assert found == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-5)


def test_the_truths_pendulum_is_ours(script, generator):
    ours, truth = problems.pendulum(sigma=0.0), script("pendulum_truth")
    x, u = (2 * torch.randn(20, n, dtype=torch.float64, generator=generator) for n in (2, 1))
    time = torch.zeros((), dtype=torch.float64)
    slope = truth.slope(np.vstack([x.T.numpy(), np.zeros(20)]), u[:, 0].numpy())
    assert slope[:2].T == pytest.approx(ours.velocity(x, time, u).numpy())
    assert slope[2] == pytest.approx(ours.cost(x, time, u).numpy())
    assert truth.total(np.vstack([x.T.numpy(), np.zeros(20)])) == pytest.approx(ours.terminal_cost(x).numpy())
    assert (ours.horizon, ours.bounds[1].item()) == (truth.T, truth.TORQUE)


def test_the_peer_solves_our_riccati_equation(script):
    bench = script("riccati")
    A, B = bench.system(0)
    peer = bench.Peer(A, B)
    problem = problems.lqg(A, B, 1.0, 1.0, 1.0, bench.SIGMA, bench.T)
    assert problem.exact is not None
    (_, end) = peer.truth(np.array([0.0, bench.T]))
    x = torch.randn(4, bench.DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value = (x @ torch.from_numpy(end[:-1]).reshape(bench.DIM, bench.DIM) * x).sum(1) / 2 + end[-1]
    torch.testing.assert_close(problem.exact.value(x, 0.0), value, rtol=1e-11, atol=0)

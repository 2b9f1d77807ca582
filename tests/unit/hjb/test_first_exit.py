"""First-exit problems on a lattice, against exponentials in an interval and Bessel functions in a disc."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import special

from hjbridge.hjb import ControlProblem, FirstExit, load, simulate, solve

DRIFT, COST, NOISE, PRICE, LEFT, RIGHT = 0.3, 0.8, 0.6, 0.5, 0.2, 0.7
LAM = PRICE * NOISE**2


def interval(pad):
    """(-1, 1) inside a box that is wider by `pad` on the left, and a little more on the right."""
    one = torch.ones(1, 1, dtype=torch.float64)
    return ControlProblem(
        name="interval",
        dim=1,
        controls=1,
        drift=lambda x, t: torch.full_like(x, DRIFT),
        control_matrix=one,
        dispersion=NOISE,
        control_cost=PRICE * one,
        running_cost=lambda x, t: torch.full_like(x[:, 0], COST),
        inside=lambda x: x[:, 0].abs() < 1,
        exit_cost=lambda x, t: torch.where(x[:, 0] < 0, LEFT, RIGHT).to(x),
        box=(torch.tensor([-1 - pad], dtype=torch.float64), torch.tensor([1 + 1.3 * pad], dtype=torch.float64)),
    )


def interval_value(x):
    # noise^2 psi''/2 + drift psi' = cost psi/lam
    roots = np.roots([NOISE**2 / 2, DRIFT, -COST / LAM])
    ends = np.exp(np.outer([-1, 1], roots))
    c = np.linalg.solve(ends, np.exp([-LEFT / LAM, -RIGHT / LAM]))
    psi = np.exp(np.outer(x, roots))
    return -LAM * np.log(psi @ c), -LAM * (psi @ (c * roots)) / (psi @ c)


def disc(**changed):
    """The unit disc, off the middle of its box."""
    problem = ControlProblem(
        name="disc",
        dim=2,
        controls=2,
        drift=lambda x, t: torch.zeros_like(x),
        control_matrix=torch.eye(2, dtype=torch.float64),
        dispersion=NOISE,
        control_cost=PRICE * torch.eye(2, dtype=torch.float64),
        running_cost=lambda x, t: torch.full_like(x[:, 0], COST),
        inside=lambda x: x.square().sum(1) < 1,
        exit_cost=lambda x, t: torch.full_like(x[:, 0], LEFT),
        box=(torch.tensor([-1.1, -1.2], dtype=torch.float64), torch.tensor([1.15, 1.1], dtype=torch.float64)),
    )
    return dataclasses.replace(problem, **changed)


def disc_value(x):
    r, k = x.norm(dim=1).numpy(), math.sqrt(2 * COST / LAM) / NOISE
    slope = -LAM * k * special.i1(k * r) / special.i0(k * r)
    return LEFT - LAM * np.log(special.i0(k * r) / special.i0(k)), (slope / r)[:, None] * x.numpy()


@pytest.mark.parametrize("pad", [0.0, 0.123])
def test_second_order_in_an_interval(pad):
    x = torch.linspace(-0.99, 0.99, 67, dtype=torch.float64).unsqueeze(1)
    value, slope = interval_value(x[:, 0].numpy())
    errors = []
    for n in (51, 101, 201):
        solution = solve(interval(pad), FirstExit(n))
        errors.append(np.abs(solution.value(x).numpy() - value).max())
    assert errors[2] < 1.5e-4
    assert math.log2(errors[0] / errors[2]) / 2 == pytest.approx(2, abs=0.1)
    middle = x[:, 0].abs() < 0.9
    gap = np.abs(solution.gradient(x)[:, 0].numpy() - slope)[middle.numpy()]
    assert gap.max() < 5e-4
    torch.testing.assert_close(solution.control(x), -solution.gradient(x) / PRICE)
    assert solution.history[0]["temperature"] == pytest.approx(LAM)


def test_second_order_in_a_disc():
    x = 2 * torch.rand(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    x = x[x.norm(dim=1) < 0.999]
    value, slope = disc_value(x)
    errors = []
    for n in (26, 51, 101):
        solution = solve(disc(), FirstExit(n))
        errors.append(np.abs(solution.value(x).numpy() - value).max())
    assert errors[2] < 4e-4
    assert math.log2(errors[0] / errors[2]) / 2 == pytest.approx(2, abs=0.15)
    inner = x.norm(dim=1).numpy() < 0.9
    assert np.abs(solution.gradient(x).numpy() - slope)[inner].max() < 4e-3


def test_drift_along_each_axis():
    # psi = e^(c.x) solves it with l/lam = f.c + |c|^2 noise^2/2: V = -lam c.x, an exit cost that is known everywhere
    c, f = torch.tensor([0.7, -0.4], dtype=torch.float64), torch.tensor([0.5, 0.9], dtype=torch.float64)
    rate = LAM * (f @ c + NOISE**2 / 2 * c @ c).item()
    problem = disc(
        drift=lambda x, t: f.expand(len(x), -1),
        dispersion=NOISE * torch.eye(2, dtype=torch.float64),
        running_cost=lambda x, t: torch.full_like(x[:, 0], rate),
        exit_cost=lambda x, t: -LAM * x @ c,
    )
    solution = solve(problem, FirstExit(41))
    x = 0.6 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(solution.value(x), -LAM * x @ c, rtol=0, atol=3e-5)


def test_outside_the_domain_the_exit_is_paid_and_paths_can_run():
    problem = interval(0.1)
    solution = solve(problem, FirstExit())
    x = torch.tensor([[-1.0], [1.05], [7.0]], dtype=torch.float64)
    torch.testing.assert_close(solution.value(x), torch.tensor([LEFT, RIGHT, RIGHT], dtype=torch.float64))
    start = torch.full((300, 1), -0.2, dtype=torch.float64)
    grid = torch.linspace(0, 8, 201, dtype=torch.float64)
    path = simulate(problem, solution.control, start, grid, torch.Generator().manual_seed(0))
    assert path.cost.mean().item() == pytest.approx(solution.value(start[:1]).item(), abs=0.15)


def test_comes_back(tmp_path):
    solution = solve(disc(), FirstExit(20))
    x = 0.3 * torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(load(solution.save(tmp_path / "disc"), disc()).value(x), solution.value(x))


def test_refuses_problems():
    with pytest.raises(ValueError, match="must have a domain .inside. and no horizon"):
        solve(disc(inside=None), FirstExit())
    with pytest.raises(ValueError, match="1 or 2 states in a box"):
        solve(disc(box=None), FirstExit())
    small = torch.full((2,), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match="box must hold the domain"):
        solve(disc(box=(-small, small)), FirstExit())
    with pytest.raises(ValueError, match="deviate"):
        solve(disc(dispersion=torch.tensor([[0.6, 0.0], [0.0, 0.5]], dtype=torch.float64)), FirstExit())
    with pytest.raises(ValueError, match=r"points must be at least 126 for this drift, got 20"):
        solve(disc(drift=lambda x, t: torch.full_like(x, 20.0)), FirstExit(20))
    mixed = torch.tensor([[0.6, 0.1], [0.1, 0.6]], dtype=torch.float64)
    with pytest.raises(ValueError, match="must be diagonal for FirstExit, got entries off it of 0.12"):
        solve(disc(dispersion=mixed, control_matrix=mixed), FirstExit())
    with pytest.raises(ValueError, match="points must be at least 8, got 5"):
        FirstExit(5)


@pytest.mark.parametrize("points", [20, 21])
def test_refuses_drift_without_noise_and_takes_a_state_that_stands_still(points):
    # noise and control along the first state only; 21 points have a line on which the drift x_0 of the second is zero
    way = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    still = disc(
        controls=1, control_matrix=way, dispersion=NOISE * way, control_cost=PRICE * way[:1], running_cost=None,
        box=(torch.full((2,), -1.2, dtype=torch.float64), torch.full((2,), 1.2, dtype=torch.float64)),
    )  # fmt: skip
    sheared = dataclasses.replace(still, drift=lambda x, t: torch.stack([0 * x[:, 0], x[:, 0]], 1))
    with pytest.raises(ValueError, match="dispersion must not vanish along state 1 where there is drift along it"):
        solve(sheared, FirstExit(points))
    found = solve(dataclasses.replace(still, running_cost=disc().running_cost), FirstExit(points))
    # one line of the disc: psi'' noise^2/2 = cost psi/lam between its ends
    x = torch.tensor([[0.0, 0.3], [0.3, 0.3]], dtype=torch.float64)
    k, half = math.sqrt(2 * COST / LAM) / NOISE, math.sqrt(1 - 0.3**2)
    exact = LEFT - LAM * np.log(np.cosh(k * x[:, 0].numpy()) / np.cosh(k * half))
    assert found.value(x).numpy() == pytest.approx(exact, abs=0.02)


def test_refuses_costs_that_have_no_value():
    # a running gain above the rate of leaving: waiting pays without end
    with pytest.raises(FloatingPointError, match="psi is not positive"):
        solve(disc(running_cost=lambda x, t: torch.full_like(x[:, 0], -3.0)), FirstExit(30))

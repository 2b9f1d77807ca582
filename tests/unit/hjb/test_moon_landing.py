"""The landing: closed form against the equation, the dynamics, a linear programme and simulated paths."""

import math

import numpy as np
import pytest
import sympy
import torch
from scipy.optimize import linprog

from hjbridge.hjb import Grid, hjb_residual, load, simulate, solve
from hjbridge.hjb.problems import moon_landing, soft_landing

G, U = 1.62, 4.0
PROBLEM = moon_landing(G, U)


def states(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def above_the_curve(n, seed=0):
    """Points with room above the switching curve, falling or rising."""
    v, room = torch.rand(2, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    v = 60 * v - 40
    return torch.stack([v.clamp_max(0.0) ** 2 / (2 * (U - G)) + 1 + 1000 * room, v], 1)


def test_the_known_numbers():
    landing = soft_landing(G, U, 1000.0, -20.0)
    assert landing.fuel == pytest.approx(78.215389, abs=5e-7)
    assert landing.ignition_height == pytest.approx(455.0, abs=1e-10)
    assert landing.ignition_speed == pytest.approx(46.5382, abs=5e-5)
    assert landing.time == pytest.approx(35.93543, abs=5e-6)
    assert PROBLEM.exact.value(states([1000.0, -20.0])).item() == pytest.approx(landing.fuel, rel=1e-14)


def test_the_equation_holds_symbolically():
    h, v, g, u = sympy.symbols("h v g U", positive=True)
    V = sympy.sqrt(u * (v**2 + 2 * g * h) / (u - g))
    assert sympy.simplify(v * V.diff(h) - g * V.diff(v)) == 0
    # falling at speed v > 0, thrust begins to pay on the curve: 1 - V_v = 0 there
    edge = (1 - V.diff(v)).subs(h, v**2 / (2 * (u - g)))
    assert sympy.simplify(edge.subs({g: 1.62, u: 4, v: 7})) == pytest.approx(0, abs=1e-14)


def test_the_equation_holds():
    x = above_the_curve(400)
    residual = hjb_residual(PROBLEM, PROBLEM.exact.value, x, 0.0)
    # the two parts of the drift cancel: v V_h is what the residual is compared with
    scale = (PROBLEM.drift(x, torch.tensor(0.0)) * PROBLEM.exact.gradient(x)).abs().amax(1)
    assert (residual.abs() / scale).max().item() < 1e-12


def test_thrust_pays_on_the_curve_and_not_above():
    x = above_the_curve(400)
    assert (1 + PROBLEM.exact.gradient(x)[:, 1]).min().item() > 0
    assert (PROBLEM.exact.control(x) == 0).all()
    speed = torch.linspace(1, 60, 30, dtype=torch.float64)
    curve = torch.stack([speed**2 / (2 * (U - G)), -speed], 1)
    assert (1 + PROBLEM.exact.gradient(curve)[:, 1]).abs().max().item() < 1e-12
    assert (PROBLEM.exact.control(curve) == U).all()


def test_gradient_is_that_of_the_value():
    x, h = above_the_curve(50), 1e-5
    for i in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[i] = h
        slope = (PROBLEM.exact.value(x + step) - PROBLEM.exact.value(x - step)) / (2 * h)
        assert PROBLEM.exact.gradient(x)[:, i].numpy() == pytest.approx(slope.numpy(), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("start", [(1000.0, -20.0), (0.0, 12.0), (300.0, 0.0), (400.0, -43.0)])
def test_the_trajectory_obeys_the_dynamics_and_lands_softly(start):
    landing = soft_landing(G, U, *start)
    t = torch.linspace(0, landing.time, 20001, dtype=torch.float64)
    h, v, u = landing.at(t)
    assert (h[0].item(), v[0].item()) == pytest.approx(start)
    assert (h[-1].item(), v[-1].item()) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert h.min().item() > -1e-9
    dt, steady = t[1] - t[0], u[1:] == u[:-1]
    assert ((h.diff() / dt - (v[1:] + v[:-1]) / 2).abs()[steady]).max().item() < 1e-6
    assert ((v.diff() / dt - (u[1:] - G)).abs()[steady]).max().item() < 1e-6
    assert (~steady).sum() <= 1
    assert torch.trapezoid(u, t).item() == pytest.approx(landing.fuel, rel=2e-4)
    assert PROBLEM.exact.value(states(start)).item() == pytest.approx(landing.fuel, rel=1e-13)
    switch = landing.at(torch.tensor([landing.ignition_time], dtype=torch.float64))
    assert [float(value) for value in switch] == pytest.approx([landing.ignition_height, -landing.ignition_speed, U])
    with pytest.raises(ValueError, match="t must lie in"):
        landing.at(t + 1)


def test_no_programme_of_thrust_does_better():
    # thrust constant on each of n steps: h and v are linear in it; the least fuel over thrusts is a linear programme
    n, end = 200, 36.0
    dt = end / n
    left = end - dt * (np.arange(n) + 0.5)
    found = linprog(
        np.full(n, dt), A_eq=np.stack([np.full(n, dt), dt * left]),
        b_eq=[20.0 + G * end, -(1000.0 - 20.0 * end - G * end**2 / 2)], bounds=(0, U),
    )  # fmt: skip
    assert found.status == 0
    exact = PROBLEM.exact.value(states([1000.0, -20.0])).item()
    assert exact <= found.fun <= 1.003 * exact


def test_simulated_paths_cost_the_value_and_other_switching_more():
    # each start under the best control, then igniting 30 m above and 30 m below the curve
    shift = states([0.0, 0.0], [-30.0, 0.0], [30.0, 0.0]).repeat(2, 1)
    x0 = states([1000.0, -20.0], [600.0, 0.0]).repeat_interleave(3, 0)
    path = simulate(PROBLEM, lambda x, t: PROBLEM.exact.control(x + shift), x0, torch.linspace(0, 45, 901))
    excess = (path.cost / PROBLEM.exact.value(x0) - 1).reshape(2, 3)
    assert (path.end.reshape(2, 3)[:, ::2] < 36).all()
    assert excess[:, 0].abs().max().item() < 4e-3
    assert excess[:, 1:].min().item() > 8e-3


def test_numbers_keep_the_precision_of_the_states():
    # 3.7 has no exact float32
    exact, landing = moon_landing(G, 3.7).exact, soft_landing(G, 3.7, 100.0, -5.0)
    burning = torch.tensor([landing.time - 0.1], dtype=torch.float64)
    h, v, u = landing.at(burning)
    assert u.item() == 3.7
    assert exact.control(torch.stack([0.999 * h, v], 1)).item() == 3.7
    assert exact.control(torch.stack([0.999 * h, v], 1).float()).dtype == torch.float32
    assert exact.value(torch.stack([h + 1, v], 1).float()).dtype == torch.float32


def test_a_hard_landing_costs_what_braking_would_have_cost():
    # from below the curve, under full thrust: fuel of the flight and charge make U |v|/(U - g) together
    x0 = states([100.0, -60.0])
    path = simulate(PROBLEM, PROBLEM.exact.control, x0, torch.linspace(0, 3, 301))
    assert path.cost.item() == pytest.approx(U * 60 / (U - G), rel=1e-3)
    assert path.terminal.item() == pytest.approx(U / (U - G) * math.sqrt(60**2 - 2 * (U - G) * 100), rel=3e-3)
    rising = states([0.0, 3.0])
    assert PROBLEM.exit_cost(rising, torch.tensor(0.0)).item() == 0


def test_below_the_curve_the_crash_is_named():
    x = states([1000.0, -20.0], [100.0, -60.0])
    assert PROBLEM.exact.value(x)[1].item() == math.inf
    assert PROBLEM.exact.control(x).flatten().tolist() == [0.0, U]
    speed = math.sqrt(60**2 - 2 * (U - G) * 100)
    with pytest.raises(ValueError, match=f"height 100 m at velocity -60 m/s ends in a crash at {speed:.4g} m/s"):
        soft_landing(G, U, 100.0, -60.0)
    with pytest.raises(ValueError, match="ends in a crash at"):
        PROBLEM.exact.gradient(x)


def test_on_the_ground():
    x = states([0.0, 0.0], [0.0, 5.0], [0.0, -5.0])
    assert PROBLEM.exact.value(x).tolist() == pytest.approx([0.0, 5 * math.sqrt(U / (U - G)), math.inf])
    with pytest.raises(ValueError, match="V has no gradient"):
        PROBLEM.exact.gradient(x[:1])
    assert soft_landing(G, U, 0.0, 0.0).fuel == 0


def test_starts_can_land_and_the_box_holds_their_paths():
    x = PROBLEM.initial(400, torch.Generator().manual_seed(0))
    low, high = PROBLEM.box
    assert ((x >= low) & (x <= high)).all()
    assert PROBLEM.exact.value(x).isfinite().all()
    inside = above_the_curve(400)
    inside = inside[((inside >= low) & (inside <= high)).all(1)]
    assert len(inside) > 100
    fastest = [soft_landing(G, U, *row).ignition_speed for row in inside.tolist()]
    assert max(fastest) <= -low[1].item()


def test_the_default_grid_follows_the_curve():
    start = states([1000.0, -20.0], [1000.0, -50.0], [500.0, -15.0])
    found, fitted = solve(PROBLEM, Grid()), PROBLEM.grid["axes"]
    assert found.meta["scheme"] == "cubic" and found.meta["shape"] == [241, 241]
    assert found.control(states([1000.0, -20.0], [30.0, -20.0])).flatten().tolist() == [0.0, 4.0]
    half = Grid(axes=[axis[::2] for axis in fitted], steps=PROBLEM.grid["steps"] / 2)
    others = (solve(PROBLEM, half), solve(PROBLEM, Grid(points=81)))
    excess, twice, even = (s.value(start) / PROBLEM.exact.value(start) - 1 for s in (found, *others))
    assert excess.min() > 0 and excess.max() < 1.6e-3
    assert (twice / excess).tolist() == pytest.approx([2.0] * 3, abs=0.05)
    assert (even > 10 * excess).all()


def test_the_default_grid_falls_in_shorter_steps_where_gravity_is_strong():
    problem = moon_landing(9.81, 12.0)
    found, start = solve(problem, Grid()), states([1000.0, -20.0], [700.0, -5.0], [500.0, -15.0])
    free, thrust = found.meta["dt"]
    assert thrust / free == pytest.approx(5) and 9.81 * free < 84.7 / 240 < 9.81 * thrust
    excess = found.value(start) / problem.exact.value(start) - 1
    assert excess.min() > 0 and excess.max() < 6e-4
    torch.testing.assert_close(found.gradient(start), problem.exact.gradient(start), rtol=2e-5, atol=1e-6)
    grid = torch.linspace(0, 36, 361, dtype=torch.float64)
    closed, best = (simulate(problem, s.control, start, grid) for s in (found, problem.exact))
    assert (closed.end < 36).all() and closed.states[..., 1].max() <= 0
    assert (closed.cost / best.cost).tolist() == pytest.approx([1.0] * 3, abs=2e-3)


def test_save_and_load(tmp_path):
    back = load(PROBLEM.exact.save(tmp_path / "landing.safetensors"))
    assert back.value(states([1000.0, -20.0])) == PROBLEM.exact.value(states([1000.0, -20.0]))


@pytest.mark.parametrize(
    ("gravity", "thrust", "message"),
    [
        (0.0, 4.0, "gravity must be positive and finite, got 0.0"),
        (1.62, 1.62, "thrust must be greater than gravity = 1.62, got 1.62"),
        (1.62, math.nan, "thrust must be greater than gravity = 1.62, got nan"),
    ],
)
def test_errors_name_the_argument(gravity, thrust, message):
    with pytest.raises(ValueError, match=message):
        moon_landing(gravity, thrust)
    with pytest.raises(ValueError, match=message):
        soft_landing(gravity, thrust, 100.0, 0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_start_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match=f"height must be finite, got {bad}"):
        soft_landing(G, U, bad, -10.0)
    with pytest.raises(ValueError, match=f"velocity must be finite, got {bad}"):
        soft_landing(G, U, 1000.0, bad)


def test_a_start_under_the_ground_is_refused():
    under = states([10.0, 0.0], [-1.0, 0.0])
    for function in (PROBLEM.exact.value, PROBLEM.exact.gradient):
        with pytest.raises(ValueError, match="height must not be negative, got -1 m"):
            function(under)
    with pytest.raises(ValueError, match="height must not be negative, got -1 m"):
        soft_landing(G, U, -1.0, 0.0)
    with pytest.raises(ValueError, match="x0 must lie inside the domain"):
        simulate(PROBLEM, PROBLEM.exact.control, under, [0.0, 1.0])

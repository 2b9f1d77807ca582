"""Lattices, splines on them, local interpolation and difference matrices."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from hjbridge import hjb
from hjbridge.hjb import problems
from hjbridge.hjb.schemes.interpolate import cells, extremes, weights
from hjbridge.hjb.schemes.lattice import Lattice, check_memory, default_domain, lattice_for
from hjbridge.hjb.schemes.spline import fit
from hjbridge.hjb.schemes.stencil import stencils

D = torch.float64
PENDULUM = problems.pendulum()
MIXED = Lattice((np.geomspace(1, 9, 13), np.linspace(-1, 1, 12)[:-1]), (0.0, 2.0))


def cubic(x):
    return (1 + x[:, 0] - 0.3 * x[:, 0] ** 2 + 0.1 * x[:, 0] ** 3) * (2 - x[:, 1] + x[:, 1] ** 3)


def test_axes_are_even_logarithmic_or_periodic():
    put = problems.american_put(40.0, 0.06, 0.2, 1.0)
    (axis,) = lattice_for(put, 21).axes
    assert (axis[0], axis[-1]) == (put.box[0].item(), put.box[1].item())
    np.testing.assert_allclose(axis[1:] / axis[:-1], (axis[-1] / axis[0]) ** (1 / 20), rtol=1e-12)
    found = lattice_for(PENDULUM, (10, 9))
    np.testing.assert_allclose(np.diff(found.axes[0]), 2 * math.pi / 10)
    np.testing.assert_allclose(found.axes[1], np.linspace(-8, 8, 9))
    assert found.shape == (10, 9) and found.periods == (pytest.approx(2 * math.pi), 0.0)
    points = found.points()
    assert points.shape == (90, 2) and points[10].tolist() == [found.axes[0][1], found.axes[1][1]]
    uneven = lattice_for(PENDULUM, 4, axes=([-3.0, -1.0, 0.0, 2.0], torch.tensor([0.0, 1.0, 3.0, 4.0])))
    assert uneven.axes[0].tolist() == [-3, -1, 0, 2] and uneven.axes[1].tolist() == [0, 1, 3, 4]
    assert uneven.periods[0] == pytest.approx(2 * math.pi)


def test_default_domain_is_the_box_with_room_where_the_ends_are_felt():
    assert default_domain(PENDULUM)[1].tolist() == [math.pi, 8]
    wide = default_domain(problems.lqg(0.0, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0))
    assert (wide[0].item(), wide[1].item()) == (-6, 6)
    low, high = default_domain(problems.merton(0.03, 0.08, 0.2, 2.0, rho=0.05))
    assert (low.item(), high.item()) == (pytest.approx(0.2e-3), pytest.approx(5e3))
    with pytest.raises(ValueError, match="domain must be given: this problem has no box"):
        default_domain(dataclasses.replace(PENDULUM, box=None))


@pytest.mark.parametrize(
    ("points", "domain", "axes", "message"),
    [
        (3, None, None, "points must be at least 4 on each of the 2 axes, got 3"),
        ((9, 9, 9), None, None, "points must be at least 4 on each of the 2 axes, got"),
        (9, ([0.0, 1.0], [1.0, 1.0]), None, "low < high"),
        (9, ([0.0, math.nan], [1.0, 1.0]), None, "two finite vectors"),
        (9, ([0.0], [1.0]), None, r"two finite vectors \(2,\)"),
        (9, None, ([0.0, 1, 2, 3],), "axes must be 2 vectors, got 1"),
        (9, None, ([0.0, 1, 2, 3], [0.0, 2, 1, 3]), "axes must ascend"),
        (9, None, ([0.0, 1, 2, 7], [0.0, 1, 2, 3]), "axes must stop before the period 6.28319 is over, got 7"),
    ],
)
def test_bad_lattices_are_refused(points, domain, axes, message):
    with pytest.raises(ValueError, match=message):
        lattice_for(PENDULUM, points, domain, axes)


def test_four_dimensions_are_referred_elsewhere_and_memory_is_counted():
    four = problems.lqg(torch.zeros(4, 4), torch.eye(4), 1.0, 1.0, 1.0, 0.5, 1.0)
    with pytest.raises(ValueError, match="at most 3 dimensions for a grid, got 4: use Riccati or HopfCole"):
        lattice_for(four, 9)
    with pytest.raises(ValueError, match="11 x 10 would need 1e.06 GB"):
        check_memory(1e15, Lattice((np.arange(11.0), np.arange(10.0)), (0.0, 0.0)))
    check_memory(1e6, MIXED)


def test_states_outside_are_named_and_periods_wrapped():
    lattice = lattice_for(PENDULUM, 8)
    x = torch.tensor([[math.pi + 0.1, 1.0], [-9.0, -8.0]], dtype=D, requires_grad=True)
    placed = lattice.place(x)
    torch.testing.assert_close(placed[:, 0], torch.tensor([0.1 - math.pi, 2 * math.pi - 9], dtype=D))
    placed.sum().backward()
    assert x.grad.tolist() == [[1, 1], [1, 1]]
    with pytest.raises(
        ValueError, match=r"x must lie in the grid's domain \[-3.14159, 3.14159\] x \[-8, 8\], got \[0.0, 8.1"
    ):
        lattice.place(torch.tensor([[0.0, 3.0], [0.0, 8.1]], dtype=D))
    with pytest.raises(ValueError, match="domain"):
        lattice.place(torch.tensor([[0.0, -8.01]], dtype=D))
    assert lattice.clamp(torch.tensor([[9.0, 8.1]], dtype=D)).tolist() == [[9.0, 8.0]]


def test_cubic_spline_reproduces_cubics_with_honest_derivatives():
    axes = (np.geomspace(1, 9, 13), np.linspace(-1, 1, 9))
    grid = torch.from_numpy(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2))
    spline = fit(axes, (0.0, 0.0), cubic(grid).reshape(13, 9).numpy(), 3)
    torch.manual_seed(0)
    x = (torch.rand(50, 2, dtype=D) * torch.tensor([8.0, 2.0]) + torch.tensor([1.0, -1.0])).requires_grad_()
    for f in (lambda v: v, lambda v: torch.autograd.grad(v.sum(), x, create_graph=True)[0][:, 0]):
        torch.testing.assert_close(f(spline(x)), f(cubic(x)), rtol=1e-9, atol=1e-9)
    second = [
        torch.autograd.grad(torch.autograd.grad(f(x).sum(), x, create_graph=True)[0][:, 1].sum(), x)[0]
        for f in (spline, cubic)
    ]
    torch.testing.assert_close(*second, rtol=1e-8, atol=1e-8)
    # at the corners too, and with the first coordinate fixed
    torch.testing.assert_close(spline(grid), cubic(grid), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(spline.fix(x[3, 0])(x[:, 1:]), cubic(torch.stack([x[3, 0].expand(50), x[:, 1]], 1)))
    assert spline(x.detach().float()).dtype == torch.float32


@pytest.mark.parametrize(("degree", "order"), [(1, 2), (3, 4)])
def test_periodic_spline_has_its_order_across_the_seam(degree, order):
    x = torch.linspace(-math.pi, math.pi, 401, dtype=D).unsqueeze(1)
    errors = []
    for n in (20, 40):
        axis = np.linspace(-math.pi, math.pi, n + 1)[:-1]
        spline = fit((axis,), (2 * math.pi,), np.sin(axis + 0.3), degree)
        errors.append((spline(x) - torch.sin(x[:, 0] + 0.3)).abs().max().item())
        assert spline(x[:1]).item() == pytest.approx(spline(x[-1:]).item(), abs=1e-12)
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)
    with pytest.raises(ValueError, match="points must be at least 4 on every axis, got 3"):
        fit((np.arange(3.0),), (0.0,), np.arange(3.0), 3)


@pytest.mark.parametrize("degree", [1, 3])
def test_local_interpolation_reproduces_polynomials_and_stays_in_its_cell(degree):
    rng = np.random.default_rng(0)
    y = np.stack([rng.uniform(1, 9, 200), rng.uniform(-3, 3, 200)], 1)
    columns, weight = weights(MIXED, y, degree)
    assert columns.shape == weight.shape == (200, (degree + 1) ** 2)
    np.testing.assert_allclose(weight.sum(1), 1, rtol=1e-12)
    points = MIXED.points().numpy()
    f = {1: lambda x: 2 + 3 * x, 3: lambda x: 2 + 3 * x - x**2 + 0.1 * x**3}[degree]
    np.testing.assert_allclose((f(points[:, 0])[columns] * weight).sum(1), f(y[:, 0]), rtol=1e-9)
    if degree == 1:
        assert weight.min() >= -1e-14
    lowest = points[cells(MIXED, y)]
    turned = np.mod(y[:, 1] + 1, 2) - 1
    for i, place in enumerate((y[:, 0], turned)):
        gap = np.append(MIXED.axes[i], [9.0, 1.0][i])
        ahead = gap[np.searchsorted(MIXED.axes[i], lowest[:, i]) + 1]
        assert (lowest[:, i] <= place + 1e-12).all() and (place <= ahead + 1e-12).all()


def test_extremes_are_those_of_the_four_corners():
    v = np.random.default_rng(0).normal(size=MIXED.shape)
    low, high = (e.reshape(MIXED.shape) for e in extremes(MIXED, v.ravel()))
    assert (low[3, 4], high[3, 4]) == (v[3:5, 4:6].min(), v[3:5, 4:6].max())
    # the last cell of a periodic axis ends at its first point
    assert low[3, -1] == v[3:5][:, [-1, 0]].min()


def test_differences_of_quadratics_are_exact_and_have_their_directions():
    lattice = Lattice((np.geomspace(1, 9, 8), np.linspace(-1, 1, 6)), (0.0, 0.0))
    s, points = stencils(lattice, cross=True), lattice.points().numpy()
    x, y = points.T
    v = 1 + 2 * x - 3 * y + x**2 + 0.5 * y**2 + 0.7 * x * y
    np.testing.assert_allclose(s.apply(s.central[0], v), 2 + 2 * x + 0.7 * y, atol=1e-11)
    np.testing.assert_allclose(s.apply(s.central[1], v), -3 + y + 0.7 * x, atol=1e-11)
    np.testing.assert_allclose(s.apply(s.closed[0], v), 2, atol=1e-10)
    np.testing.assert_allclose(s.apply(s.closed[1], v), 1, atol=1e-10)
    np.testing.assert_allclose(s.apply(s.cross[1, 0], v), 0.7, atol=1e-10)
    ends = np.isin(x, lattice.axes[0][[0, -1]])
    np.testing.assert_allclose(s.apply(s.second[0], v), np.where(ends, 0, 2), atol=1e-10)
    for one, side in ((s.forward, -1), (s.backward, 0)):
        edge = y == lattice.axes[1][side]
        np.testing.assert_allclose(s.apply(one[1], y), np.where(edge, 0, 1), atol=1e-12)
    step = np.where(points[:, 1] > 0.1, 1.0, 0.0).reshape(8, 6)[0]
    assert s.apply(s.forward[1], np.tile(step, 8)).reshape(8, 6)[0].nonzero()[0].tolist() == [2]
    assert s.apply(s.backward[1], np.tile(step, 8)).reshape(8, 6)[0].nonzero()[0].tolist() == [3]


def test_a_solution_knows_where_it_ends():
    low, high = hjb.solve(hjb.problems.pendulum(), hjb.Grid(points=9, steps=3)).domain
    assert low.tolist() == [-math.inf, -8.0] and high.tolist() == [math.inf, 8.0]

import math
from dataclasses import replace

import pytest
import torch

from hjbridge.hjb import ControlProblem, Terms, hjb_residual
from hjbridge.hjb.problems import lqg, stationary_lqr

F64 = torch.float64
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(30, 2, generator=GENERATOR, dtype=F64)
T = torch.rand(30, generator=GENERATOR, dtype=F64)
R = torch.tensor([[2, 0.6], [0.6, 1]], dtype=F64)
S = torch.tensor([[0.5, 0.1, 0], [0.2, 0.7, 0.3]], dtype=F64)
PROBLEM = ControlProblem(
    name="own", dim=2, controls=2,
    drift=lambda x, t: torch.stack([x[:, 1] * t, torch.sin(x[:, 0])], 1),
    control_matrix=lambda x, t: torch.stack(
        [torch.stack([1 + x[:, 0] ** 2, t * x[:, 1]], 1), torch.stack([x[:, 0], 2 - x[:, 1]], 1)], 1
    ),
    dispersion=S, control_cost=R, running_cost=lambda x, t: x[:, 0] ** 2 + t, terminal_cost=lambda x: x[:, 0],
    horizon=1.0, discount=0.4,
)  # fmt: skip


def candidate(x, t):
    """Any smooth W: it solves nothing."""
    return torch.sin(x[:, 0]) * x[:, 1] ** 2 * torch.exp(-t) + t**2 * x[:, 1]


def by_hand(problem, sense=None):
    """The terms of the equation for the candidate, with its derivatives written out."""
    a, b, s = X[:, 0], X[:, 1], T
    e = torch.exp(-s)
    p = torch.stack([torch.cos(a) * b**2 * e, 2 * torch.sin(a) * b * e + s**2], 1)
    h = [-torch.sin(a) * b**2 * e, 2 * torch.cos(a) * b * e, 2 * torch.sin(a) * e]
    C = S @ S.T
    push = torch.stack([(1 + a**2) * p[:, 0] + a * p[:, 1], s * b * p[:, 0] + (2 - b) * p[:, 1]], 1)
    return Terms(
        time=-torch.sin(a) * b**2 * e + 2 * s * b,
        discount=-0.4 * candidate(X, T),
        drift=b * s * p[:, 0] + torch.sin(a) * p[:, 1],
        # the minimum of u'Ru/2 + u.B'p is -p'B R^-1 B'p/2
        control=-((push @ torch.linalg.inv(R)) * push).sum(1) / 2,
        cost=a**2 + s,
        diffusion=(C[0, 0] * h[0] + 2 * C[0, 1] * h[1] + C[1, 1] * h[2]) / 2,
    )


def test_every_term_is_that_of_the_equation():
    residual, terms = hjb_residual(PROBLEM, candidate, X, T, True)
    expected = by_hand(PROBLEM)
    for name in Terms._fields:
        torch.testing.assert_close(getattr(terms, name), getattr(expected, name), rtol=1e-12, atol=1e-12, msg=name)
    torch.testing.assert_close(residual, sum(expected), rtol=1e-12, atol=1e-12)
    assert torch.equal(hjb_residual(PROBLEM, candidate, X, T), residual)
    torch.testing.assert_close(terms.scale(), torch.stack(tuple(expected)).abs().max(0)[0], rtol=1e-12, atol=1e-12)
    assert not residual.requires_grad and not any(term.requires_grad for term in terms)


LINE = lqg(0.3, 1.2, 0.8, 0.5, 0.6, 0.7, 1.0)
STILL = stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1)


def line(change):
    """How a problem that differs in one thing sees the value of LINE: its residual, at x = 1 and t = .4."""
    x = torch.ones(1, 1, dtype=F64)
    return hjb_residual(replace(LINE, **change), LINE.exact.value, x, 0.4).item()


def test_a_problem_that_differs_in_one_term_has_a_residual_of_that_size():
    one = torch.ones(1, 1, dtype=F64)
    p = LINE.exact.gradient(one, 0.4).item()
    u = LINE.exact.control(one, 0.4).item()
    assert abs(line({})) < 1e-14
    # the signs are those of the Hamiltonian: minus 2 f p for a drift reversed, and so on
    assert line({"drift": lambda x, t: -0.3 * x}) == pytest.approx(-0.6 * p, rel=1e-12)
    assert line({"running_cost": lambda x, t: -0.4 * x[:, 0] ** 2}) == pytest.approx(-0.8, rel=1e-12)
    assert line({"dispersion": 0.0}) == pytest.approx(-0.245 * p, rel=1e-12)
    assert line({"discount": 0.3}) == pytest.approx(-0.3 * LINE.exact.value(one, 0.4).item(), rel=1e-12)
    # the gain of the control enters as -(b p)^2/(2 r) = -r u^2/2; its sign does not matter
    assert line({"control_matrix": 0 * one}) == pytest.approx(0.25 * u**2, rel=1e-12)
    assert abs(line({"control_matrix": -1.2 * one})) < 1e-14
    # r without its half: the minimum is half as deep
    assert line({"control_cost": 1.0 * one}) == pytest.approx(0.125 * u**2, rel=1e-12)


def test_a_value_that_differs_in_one_term_has_a_residual_of_that_size():
    x, h = torch.ones(1, 1, dtype=F64), 1e-3
    exact = LINE.exact.value
    rate = (exact(x, 0.4 + h) - exact(x, 0.4 - h)).item() / (2 * h)
    frozen = hjb_residual(LINE, lambda x, t: exact(x, 0.4), x, 0.4).item()
    assert frozen == pytest.approx(-rate, abs=1e-5)
    # without the trace constant: -c' is missing
    zero = torch.zeros(1, 1, dtype=F64)
    bare = hjb_residual(LINE, lambda x, t: exact(x, t) - exact(0 * x, t), x, 0.4).item()
    assert bare == pytest.approx(0.245 * LINE.exact.gradient(x, 0.4).item(), rel=1e-10)
    bare = hjb_residual(STILL, lambda x, t: STILL.exact.value(x, t) - STILL.exact.value(zero), x, 0.0).item()
    assert bare == pytest.approx(0.1 * 0.1196887846, rel=1e-9)


def test_a_problem_without_horizon_ignores_time():
    x = torch.linspace(-2, 2, 5, dtype=F64).unsqueeze(1)
    _, terms = hjb_residual(STILL, lambda x, t: STILL.exact.value(x) * (1 + t), x, torch.zeros(5), True)
    assert not terms.time.any()


@pytest.mark.parametrize("sense", ["min", "max"])
def test_an_obstacle_bounds_the_residual(sense):
    if sense == "max":
        cost = {"control_cost": lambda x, u, t: -(u @ R * u).sum(1) / 2, "control_set": torch.eye(2, dtype=F64)}
    else:
        cost = {}
    free = replace(PROBLEM, sense=sense, **cost)
    problem = replace(free, obstacle=lambda x, t: 0.4 * x[:, 1] + t)
    gap, plain = 0.4 * X[:, 1] + T - candidate(X, T), hjb_residual(free, candidate, X, T)
    expected = torch.minimum(plain, gap) if sense == "min" else torch.maximum(plain, gap)
    residual, terms = hjb_residual(problem, candidate, X, T, True)
    torch.testing.assert_close(residual, expected, rtol=1e-13, atol=1e-13)
    assert 0 < (residual == plain).sum() < 30
    torch.testing.assert_close(torch.stack(tuple(terms)).sum(0), plain, rtol=1e-13, atol=1e-13)


def test_noise_that_depends_on_the_control():
    """Reward u x W_x + u^2 x^2 W_xx/2 + u^2/2, of which the minimum over u is a closed form."""
    problem = ControlProblem(
        name="own", dim=1, controls=1, drift=lambda x, t: 0 * x, control_matrix=lambda x, t: x.unsqueeze(2),
        dispersion=lambda x, t, u: u * x, controlled_noise=True, control_cost=lambda x, u, t: u[:, 0] ** 2 / 2,
        minimiser=lambda x, t, p, M: -x * p / (1 + x**2 * M[:, 0]), terminal_cost=lambda x: x[:, 0], horizon=1.0,
    )  # fmt: skip
    x = torch.linspace(0.5, 2, 7, dtype=F64).unsqueeze(1)
    t = torch.linspace(0, 1, 7, dtype=F64)
    y = x[:, 0]
    residual, terms = hjb_residual(problem, lambda x, t: (1 + t) * x[:, 0] ** 3, x, t, True)
    p, m = 3 * (1 + t) * y**2, 6 * (1 + t) * y
    torch.testing.assert_close(residual, y**3 - (y * p) ** 2 / (2 * (1 + y**2 * m)), rtol=1e-12, atol=1e-12)
    u = -y * p / (1 + y**2 * m)
    torch.testing.assert_close(terms.diffusion, (u * y) ** 2 * m / 2, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(terms.control, u * y * p + u**2 / 2, rtol=1e-12, atol=1e-12)


def test_probes_are_unbiased_and_fresh_at_each_point():
    problem = replace(PROBLEM, dispersion=torch.tensor([[0.5, 0.1], [0.2, 0.7]], dtype=F64))
    n = 4000
    x, t = X[:1].expand(n, 2).contiguous(), T[0].item()
    exact = hjb_residual(problem, candidate, x[:1], t)
    found = hjb_residual(problem, candidate, x, t, probes=3, generator=torch.Generator().manual_seed(1))
    error = found - exact
    assert error.std() > 1e-3 and abs(error.mean()) < 3 * error.std() / math.sqrt(n)
    # two Brownian motions: each probe errs by the same amount, up or down, so three have four outcomes
    assert len((error / error.abs().min()).round(decimals=6).unique()) == 4
    # one Brownian motion: a sign squared is one, and there is no error
    single = replace(PROBLEM, dispersion=S[:, :1])
    generator = torch.Generator().manual_seed(1)
    estimate = hjb_residual(single, candidate, X, T, probes=1, generator=generator)
    torch.testing.assert_close(estimate, hjb_residual(single, candidate, X, T), rtol=1e-12, atol=1e-12)


def test_a_graph_is_kept_on_request():
    weight = torch.tensor(1.5, dtype=F64, requires_grad=True)
    residual = hjb_residual(PROBLEM, lambda x, t: weight * candidate(x, t), X, T, graph=True)
    (slope,) = torch.autograd.grad(residual.sum(), weight)
    h = 1e-5
    up, down = (hjb_residual(PROBLEM, lambda x, t, w=w: w * candidate(x, t), X, T) for w in (1.5 + h, 1.5 - h))
    assert slope.item() == pytest.approx(((up - down).sum() / (2 * h)).item(), rel=1e-7)
    assert not hjb_residual(PROBLEM, lambda x, t: weight * candidate(x, t), X, T).requires_grad


def test_no_graph_is_built_that_is_not_asked_for(monkeypatch):
    """One pass for the gradient, one for the time, and one for each of three Brownian motions."""
    built, grad = [], torch.autograd.grad

    def spy(*arguments, create_graph=False, **options):
        built.append(create_graph)
        return grad(*arguments, create_graph=create_graph, **options)

    monkeypatch.setattr(torch.autograd, "grad", spy)
    bare = hjb_residual(PROBLEM, candidate, X, T)
    assert built == [True, False, False, False, False]
    assert torch.equal(bare, hjb_residual(PROBLEM, candidate, X, T, graph=True).detach())
    assert built[5:] == [True] * 5


@pytest.mark.parametrize("d", [3, 40])
def test_the_trace_is_exact_in_every_dimension(d):
    """Against sum_j g''(y_j) |sigma'a_j|^2/2 for sum_j g(a_j.x), g = tanh^2."""
    A = torch.randn(d, d, generator=torch.Generator().manual_seed(d), dtype=F64) / math.sqrt(d)
    problem = lqg(
        -torch.eye(d, dtype=F64), torch.eye(d, dtype=F64), 1.0, 1.0, 1.0, torch.eye(d, dtype=F64) + 0.3 * A, 1.0
    )
    sigma = problem.dispersion
    x, t = torch.randn(5, d, generator=torch.Generator().manual_seed(1), dtype=F64), torch.full((5,), 0.3, dtype=F64)

    def value(x, t):
        return torch.tanh(x @ A).square().sum(1) * torch.exp(-t)

    square = torch.tanh(x @ A).square()
    curved = 2 * (1 - square) ** 2 - 4 * square * (1 - square)
    trace = (curved * (sigma.T @ A).square().sum(0)).sum(1) * torch.exp(-t) / 2
    _, terms = hjb_residual(problem, value, x, t, terms=True)
    torch.testing.assert_close(terms.diffusion, trace, rtol=1e-12, atol=1e-12)


def test_a_constant_value_leaves_the_costs():
    residual = hjb_residual(PROBLEM, lambda x, t: torch.full((len(x),), 2.0, dtype=F64), X, T)
    torch.testing.assert_close(residual, X[:, 0] ** 2 + T - 0.8, rtol=1e-14, atol=1e-14)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="probes must be at least 1 and the dispersion free of the control, got 0"):
        hjb_residual(PROBLEM, candidate, X, T, probes=0)
    noisy = replace(PROBLEM, controlled_noise=True, dispersion=lambda x, t, u: u)
    with pytest.raises(ValueError, match="probes must be at least 1 and the dispersion free of the control, got 2"):
        hjb_residual(noisy, candidate, X, T, probes=2)
    with pytest.raises(ValueError, match=r"value must return shape \(30,\), got \(30, 2\)"):
        hjb_residual(PROBLEM, lambda x, t: x, X, T)
    with pytest.raises(ValueError, match=r"t must lie in \[0, 1\], got 1.5"):
        hjb_residual(PROBLEM, candidate, X, 1.5)
    with pytest.raises(ValueError, match=r"x must be floating, of shape \(n, 2\)"):
        hjb_residual(PROBLEM, candidate, X[:, :1], T)
    with pytest.raises(FloatingPointError, match=r"not finite at x = \[0.0, 1.0\]: the value is singular there"):
        hjb_residual(PROBLEM, lambda x, t: x.square().sum(1) / x[:, 0], torch.tensor([[1.0, 1], [0, 1]]).double(), 0.0)

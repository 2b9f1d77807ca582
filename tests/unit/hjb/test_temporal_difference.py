"""TD methods in expectation, by quadrature over the exact law of a step, and on samples; fitted Q and LSPI on LQR."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_are

from hjbridge.hjb.discrete.temporal_difference import (
    enumerated,
    fitted_q_iteration,
    lspi,
    martingale_fit,
    martingale_loss,
    mean_square_td,
    quadratic_features,
    quadratic_gain,
    quadratic_greedy,
    td0,
)

F64 = torch.float64
RHO = 0.5


def phi(x):
    return torch.stack([torch.ones_like(x), x**2], -1)


def transitions(dt):
    """Nodes and probabilities of (X, X') for the stationary OU process dX = -X dt + dW; its variance is 1/2."""
    z, p = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(8))
    p, keep = p / p.sum(), math.exp(-dt)
    x = (z / math.sqrt(2))[:, None].expand(8, 8)
    y = keep * x + math.sqrt((1 - keep**2) / 2) * z[None]
    return x.flatten(), y.flatten(), (p[:, None] * p).flatten()


def paths(n, steps, dt, seed):
    generator, keep = torch.Generator().manual_seed(seed), math.exp(-dt)
    x = [torch.randn(n, generator=generator, dtype=F64) / math.sqrt(2)]
    for _ in range(steps):
        x.append(keep * x[-1] + math.sqrt((1 - keep**2) / 2) * torch.randn(n, generator=generator, dtype=F64))
    return torch.stack(x)


@pytest.mark.parametrize(
    ("power", "mean_square", "td"),
    [(4, 0.039528, 0.43206), (6, 0.0097944, 0.40786), (8, 0.0024432, 0.40196), (12, 1.52595e-4, 0.40012)],
)
def test_limits_of_td_on_the_ornstein_uhlenbeck_process(power, mean_square, td):
    dt = 2.0**-power
    x, y, p = transitions(dt)
    step = phi(x), phi(y), x**2 * dt, math.exp(-RHO * dt), p
    found, square = td0(*step), mean_square_td(*step)
    assert abs(found[1] / td - 1) < 2e-5 and abs(square[1] / mean_square - 1) < 2e-5
    # the sum of x^2 dt along the exact chain: a (1 - gamma e^-2dt) = dt, and stationarity gives the constant
    g, k2 = math.exp(-RHO * dt), math.exp(-2 * dt)
    a = dt / (1 - g * k2)
    torch.testing.assert_close(found, torch.tensor([g * a * (1 - k2) / 2 / (1 - g), a], dtype=F64), rtol=1e-9, atol=0)
    # the least squares line through x^2 dt against x^2 - gamma x'^2, whose moments are those of a Gaussian
    slope = dt * (1 - g * k2) / (1 + g**2 - 2 * g * k2)
    torch.testing.assert_close(square[1].item(), slope, rtol=1e-9, atol=0)


def test_mean_square_td_minimises_what_it_says():
    x, y, p = transitions(0.1)
    step = phi(x), phi(y), x**2 * 0.1, math.exp(-RHO * 0.1)
    w = mean_square_td(*step, p).requires_grad_()
    loss = (p * (step[2] + step[3] * step[1] @ w - step[0] @ w) ** 2).sum()
    assert torch.autograd.grad(loss, w)[0].abs().max() < 1e-13
    assert (step[0].T @ (p * (step[2] + step[3] * step[1] @ w - step[0] @ w))).abs().max() > 1e-3
    v = td0(*step, p)
    assert (step[0].T @ (p * (step[2] + step[3] * step[1] @ v - step[0] @ v))).abs().max() < 1e-14


def test_samples_agree_with_their_expectation():
    dt, found = 0.25, {td0: [], mean_square_td: []}
    for seed in range(3):
        x = paths(100_000, 1, dt, seed)
        for method, values in found.items():
            values.append(method(phi(x[0]), phi(x[1]), x[0] ** 2 * dt, math.exp(-RHO * dt)))
    x, y, p = transitions(dt)
    for method, values in found.items():
        truth = method(phi(x), phi(y), x**2 * dt, math.exp(-RHO * dt), p)
        torch.testing.assert_close(torch.stack(values).mean(0), truth, rtol=0, atol=0.03)
    assert (values[0] - truth).abs().max() > 1e-6


def test_martingale_fit_finds_the_value():
    dt, n, steps, found = 2.0**-4, 3000, 320, []
    gamma, zero = math.exp(-RHO * dt), torch.zeros(n, dtype=F64)
    for seed in range(3):
        x = paths(n, steps, dt, seed)[:-1]
        found.append(martingale_fit(phi(x), x**2 * dt, gamma, zero))
    found = torch.stack(found)
    # the chain's own value, as for TD(0); mean-square TD has the slope 0.0395
    a = dt / (1 - gamma * math.exp(-2 * dt))
    truth = torch.tensor([gamma * a * (1 - math.exp(-2 * dt)) / 2 / (1 - gamma), a], dtype=F64)
    assert (found.mean(0) - truth).abs().max() < 0.015
    assert (found - truth).abs().max() < 0.03


def test_martingale_fit_is_the_minimum_of_the_loss():
    x, gamma = paths(50, 12, 0.3, 0)[:-1], 0.8
    costs, terminal = x**2 * 0.3, torch.linspace(0, 1, 50, dtype=F64)
    w = martingale_fit(phi(x), costs, gamma, terminal).requires_grad_()
    loss = martingale_loss(phi(x) @ w, costs, gamma, terminal)
    assert torch.autograd.grad(loss, w)[0].abs().max() < 1e-14
    # M_N - M_j, written out
    values, total = (phi(x) @ w).detach(), 0.0
    for j in range(12):
        ahead = sum(gamma**i * costs[i] for i in range(j, 12)) + gamma**12 * terminal - gamma**j * values[j]
        total += (ahead**2).sum() / 600
    torch.testing.assert_close(loss.detach(), total, rtol=1e-12, atol=0)


def regulator(dim, sigma, n, seed=0, gamma=0.95):
    generator = torch.Generator().manual_seed(seed)
    skew = torch.randn(dim, dim, generator=generator, dtype=F64) / math.sqrt(dim)
    A = 0.9 * torch.eye(dim, dtype=F64) + 0.1 * (skew - skew.T)
    B = 0.3 * torch.randn(dim, 1, generator=generator, dtype=F64)
    x, u, z = (torch.randn(n, k, generator=generator, dtype=F64) for k in (dim, 1, dim))
    costs = ((x**2).sum(1) + 0.5 * (u**2).sum(1)) / 2
    R = 0.5 * torch.eye(1, dtype=F64)
    S = solve_discrete_are(*(math.sqrt(gamma) * M.numpy() for M in (A, B)), np.eye(dim), R.numpy())
    S = torch.from_numpy(S)
    return x, u, x @ A.T + u @ B.T + sigma * z, costs, torch.linalg.solve(R + gamma * B.T @ S @ B, gamma * B.T @ S @ A)


@pytest.mark.parametrize("dim", [1, 3, 8])
def test_fitted_q_and_lspi_find_the_riccati_gain(dim):
    x, u, y, costs, gain = regulator(dim, 0.0, 400)
    model = quadratic_features(x, u), quadratic_greedy(y, 1), costs, 0.95
    policies = lspi(*model, 12)
    torch.testing.assert_close(quadratic_gain(policies[-1], dim, 1), gain, rtol=0, atol=1e-9)
    # quadratic convergence of Howard's iteration, linear of the fitted one
    assert (quadratic_gain(policies[6], dim, 1) - gain).abs().max() < 1e-7
    sweeps = fitted_q_iteration(*model, 400)
    errors = [(quadratic_gain(w, dim, 1) - gain).abs().max().item() for w in sweeps[[1, 3, 400]]]
    assert errors[2] < 1e-7 < 1e-4 < errors[1] < errors[0]


def test_lspi_on_noisy_transitions():
    gains = []
    for seed in range(3):
        x, u, y, costs, gain = regulator(1, 0.3, 20_000, seed=0)
        noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
        y = regulator(1, 0.0, 20_000)[2] + 0.3 * noise
        w = lspi(quadratic_features(x, u), quadratic_greedy(y, 1), costs, 0.95, 10)[-1]
        gains.append(quadratic_gain(w, 1, 1).item())
    assert abs(sum(gains) / 3 / gain.item() - 1) < 0.03


def test_fitted_q_diverges_where_lspi_does_not():
    # two states, value w and 2 w, both lead to the second (Tsitsiklis and Van Roy 1996)
    features, after = torch.tensor([[1.0], [2.0]], dtype=F64), torch.tensor([[2.0], [2.0]], dtype=F64)
    nothing, one = torch.zeros(2, dtype=F64), torch.ones(1, dtype=F64)
    w = fitted_q_iteration(features, lambda w: after, nothing, 0.95, 40, one)
    torch.testing.assert_close(w[-1] / w[-2], torch.tensor([1.2 * 0.95], dtype=F64), rtol=1e-12, atol=0)
    assert w.shape == (41, 1) and lspi(features, lambda w: after, nothing, 0.95, 1, one)[-1] == 0
    with pytest.raises(FloatingPointError, match="diverged at iteration"):
        fitted_q_iteration(features, lambda w: after, nothing, 0.95, 200, 1e300 * one)


def test_enumerated_takes_the_least():
    table = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 5.0]]], dtype=F64)
    greedy = enumerated(table)
    assert greedy(torch.tensor([2.0, 1.0], dtype=F64)).tolist() == [[0, 1], [0, 5]]
    assert greedy(torch.tensor([1.0, 1.0], dtype=F64)).tolist() == [[1, 0], [3, 0]]


def test_quadratic_gain_by_hand():
    # Q = 5 + x^2 + 2 * 3 x u/2 ... : z'Mz with M = [[1, 3], [3, 2]], least at u = -1.5 x
    x, u = torch.tensor([[2.0]], dtype=F64), torch.tensor([[7.0]], dtype=F64)
    assert quadratic_features(x, u).tolist() == [[1, 4, 14, 49]]
    w = torch.tensor([5.0, 1.0, 6.0, 2.0], dtype=F64)
    assert quadratic_gain(w, 1, 1).tolist() == [[1.5]]
    assert quadratic_greedy(x, 1)(w).tolist() == [[1, 4, -6, 9]]
    with pytest.raises(ValueError, match="minimum in u, got the curvature -2"):
        quadratic_gain(torch.tensor([5.0, 1.0, 6.0, -2.0], dtype=F64), 1, 1)


def test_bad_arguments():
    features, costs = torch.ones(3, 1, dtype=F64), torch.ones(3, dtype=F64)
    with pytest.raises(ValueError, match=r"shapes \(n, k\), \(n, k\) and \(n,\), got \(3, 1\), \(2, 1\) and \(3,\)"):
        td0(features, features[:2], costs, 0.9)
    with pytest.raises(ValueError, match=r"discount must lie in \[0, 1\], got 1.5"):
        mean_square_td(features, features, costs, 1.5)
    with pytest.raises(ValueError, match="weights must be 3 probabilities"):
        td0(features, features, costs, 0.9, 2 * costs)
    with pytest.raises(ValueError, match="rank 1 for 2 features"):
        lspi(torch.ones(3, 2, dtype=F64), lambda w: torch.ones(3, 2, dtype=F64), costs, 0.9, 1)
    with pytest.raises(ValueError, match=r"costs and terminal must have shapes \(N, n\) and \(n,\)"):
        martingale_loss(torch.ones(2, 3), torch.ones(2, 3), 0.9, torch.ones(2))
    with pytest.raises(ValueError, match=r"values must have shape \(2, 3\), got \(3, 2\)"):
        martingale_loss(torch.ones(3, 2), torch.ones(2, 3), 0.9, torch.ones(3))
    with pytest.raises(ValueError, match="features must have shape"):
        martingale_fit(torch.ones(3, 2, 1), torch.ones(2, 3), 0.9, torch.ones(3))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_nan_is_returned(value):
    def spoilt(*shape):
        return torch.where(torch.arange(math.prod(shape)).reshape(shape) == 1, value, torch.ones(shape, dtype=F64))

    good, costs = torch.rand(3, 2, dtype=F64), torch.ones(3, dtype=F64)
    paid, end, seen = torch.ones(2, 3, dtype=F64), torch.ones(3, dtype=F64), torch.rand(2, 3, 2, dtype=F64)
    for method in (td0, mean_square_td):
        for name, given in (
            ("features", (spoilt(3, 2), good, costs)),
            ("next_features", (good, spoilt(3, 2), costs)),
            ("costs", (good, good, spoilt(3))),
        ):
            with pytest.raises(ValueError, match=f"^{name} must be finite, got {value} at"):
                method(*given, 0.9)
    for method in (fitted_q_iteration, lspi):
        for name, given in (
            ("features must be finite", (spoilt(3, 2), lambda w: good, costs, 0.9, 2)),
            ("features of greedy must be finite", (good, lambda w: spoilt(3, 2), costs, 0.9, 2)),
            ("costs must be finite", (good, lambda w: good, spoilt(3), 0.9, 2)),
            ("start must be finite", (good, lambda w: good, costs, 0.9, 2, spoilt(2))),
        ):
            with pytest.raises(ValueError, match=f"^{name}, got {value} at"):
                method(*given)
    for name, method, given in (
        ("costs", martingale_loss, (paid, spoilt(2, 3), 0.9, end)),
        ("terminal", martingale_loss, (paid, paid, 0.9, spoilt(3))),
        ("values", martingale_loss, (spoilt(2, 3), paid, 0.9, end)),
        ("costs", martingale_fit, (seen, spoilt(2, 3), 0.9, end)),
        ("terminal", martingale_fit, (seen, paid, 0.9, spoilt(3))),
        ("features", martingale_fit, (spoilt(2, 3, 2), paid, 0.9, end)),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be finite, got {value} at"):
            method(*given)
    with pytest.raises(ValueError, match=rf"w must be finite, got {value} at \(1,\)"):
        quadratic_gain(spoilt(4), 1, 1)
    # weights that are not finite are no probabilities
    with pytest.raises(ValueError, match="weights must be 3 probabilities"):
        td0(good, good, costs, 0.9, spoilt(3))

"""Small measurements of chapters 01 and 02, against other routes to the same numbers."""

import math
from dataclasses import replace

import pytest
import torch

from hjbridge.hjb import discrete, problems, sign_test
from hjbridge.hjb.discrete import temporal_difference
from hjbridge.hjb.discrete.held_control import held, rounding_errors, solve_rates
from hjbridge.hjb.discrete.transitions import gain_error, held_batch, ou_fits, random_regulator

F64 = torch.float64
LQR = problems.stationary_lqr(0.5, 1.0, 1.0, 0.5, 0.7, 0.3)


def test_an_exact_value_passes_and_a_wrong_one_does_not():
    good = sign_test(LQR, -2, 2, 50, torch.Generator().manual_seed(0))
    assert good.residual < 1e-13 and 0.01 < good.flipped < 2.1
    half = replace(LQR.exact, value_function=lambda x, t: 0.9 * LQR.exact.value(x, t), gradient_function=None)
    assert sign_test(replace(LQR, exact=half), -2, 2, 50, torch.Generator().manual_seed(0)).residual > 0.01
    with pytest.raises(ValueError, match="problem must have an exact solution, got 'pendulum' without"):
        sign_test(problems.pendulum(), -1, 1, 4)


def test_contraction_is_the_largest_ratio_of_the_first_sweeps():
    found = discrete.Tabular(torch.zeros(1), torch.ones(1, 1), history=(1.0, 0.5, 0.4, 0.4))
    assert found.contraction(3) == pytest.approx(0.8) and found.contraction() == 1.0
    assert discrete.value_iteration(problems.random_mdp(6, 3, 0.8, 0)).contraction(30) <= 0.8 + 1e-6


def test_rounding_errors_are_those_of_the_step_where_it_is_large():
    found = rounding_errors(LQR, octaves=6)
    P = LQR.exact.gradient(torch.ones(1, 1, dtype=F64)).item()
    steps = torch.tensor([2.0 ** -(5 + i / 16) for i in range(16)], dtype=F64)
    rms = (solve_rates(held(LQR, steps)).P - P).square().mean().sqrt().item()
    assert found["rates_64"][5] == pytest.approx(rms, rel=1e-12) and list(found["rates_64"]) == [1, 2, 3, 4, 5, 6]
    assert found["bellman_64"][5] == pytest.approx(rms, rel=1e-6) and found["bellman_32"][5] == pytest.approx(
        rms, rel=0.1
    )
    assert found["bellman_32"][6] != found["rates_32"][6]


def test_fits_of_the_ornstein_uhlenbeck_value():
    found = ou_fits(2000, 512, 2.0**-5, torch.Generator().manual_seed(0))
    assert found["td"].tolist() == pytest.approx([0.8, 0.416], abs=0.01)
    # by quadrature with the same step the slope of mean-square TD is 0.0196
    assert found["mean_square"][1].item() == pytest.approx(0.0196, abs=0.001)
    assert found["martingale"].tolist() == pytest.approx([0.8, 0.42], abs=0.08)


def test_gain_error_sees_a_wrong_gain():
    batch = random_regulator(3, 100, 0.9, torch.Generator().manual_seed(0))
    assert gain_error(batch, 0.9) < 1e-10
    # linear convergence where Howard's is quadratic
    sweeps = [gain_error(batch, 0.9, k, temporal_difference.fitted_q_iteration) for k in (10, 300)]
    assert sweeps[1] < 1e-10 < 1e-4 < sweeps[0]
    assert gain_error(batch._replace(gain=1.1 * batch.gain), 0.9) == pytest.approx(1 / 11, rel=1e-6)
    post = problems.stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1)
    noisy = held_batch(post, 0.25, 1000, torch.Generator().manual_seed(0))
    assert 0 < gain_error(noisy, math.exp(-0.025)) < 0.1

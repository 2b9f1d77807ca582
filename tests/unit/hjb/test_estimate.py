import math

import pytest
import torch

from hjbridge.hjb.certificate.estimate import estimate, extrapolate, relative_error

F64 = torch.float64


def test_a_control_variate_takes_its_share_of_the_noise_away():
    generator = torch.Generator().manual_seed(0)
    m, e = torch.randn(2, 4000, generator=generator, dtype=F64)
    samples = 2 + 3 * m + 0.1 * e
    plain, clean = estimate(samples), estimate(samples, m)
    assert plain.mean == pytest.approx(samples.mean().item()) and plain.stderr == pytest.approx(
        3.0 / math.sqrt(4000), rel=0.05
    )
    assert clean.stderr == pytest.approx(0.1 / math.sqrt(4000), rel=0.05)
    assert abs(clean.mean - 2) < 4 * clean.stderr
    # the same variate twice, one without variance, one that is not finite
    other = estimate(samples, m, m, 0 * m + 1, m / 0)
    assert other.mean == pytest.approx(clean.mean, abs=1e-12) and other.stderr == pytest.approx(clean.stderr)


def test_the_coefficient_is_that_of_least_squares():
    samples, m = torch.tensor([1.0, 2.0, 4.0], dtype=F64), torch.tensor([0.0, 1.0, 5.0], dtype=F64)
    # b = cov/var = 8/14, mean - b mean(m) = 7/3 - 8/14 * 2
    assert estimate(samples, m).mean == pytest.approx(7 / 3 - 8 / 7, abs=1e-14)


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0])
def test_extrapolation_removes_an_error_of_its_order(order):
    h = torch.tensor([0.1, 0.3], dtype=F64)
    results = [5 + 7 * step**order for step in (h, 2 * h)]
    torch.testing.assert_close(extrapolate(results, order), 0 * h + 5, rtol=0, atol=1e-13)


def test_relative_error():
    truth = torch.tensor([3.0, 4.0])
    assert relative_error(truth + torch.tensor([0.0, 0.5]), truth) == pytest.approx(0.1)
    assert relative_error(truth, 0 * truth) is None

"""Wilson and bootstrap intervals against scipy and known coverage."""

import math

import pytest
import scipy.stats
import torch

from hjbridge import metrics


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (478, 500), (1, 3)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_is_scipys(k, n, level):
    found = metrics.wilson(k, n, level)
    known = scipy.stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert found.low == pytest.approx(known.low, abs=1e-12) and found.high == pytest.approx(known.high, abs=1e-12)
    assert found.value == k / n and found.level == level
    assert found.stderr == pytest.approx(math.sqrt(k / n * (1 - k / n) / n), abs=1e-15)


def test_wilson_refuses_what_is_no_proportion():
    for k, n, message in ((1, 0, "n must be at least 1, got 0"), (4, 3, r"lie in 0..3, got 4"), (-1, 3, "got -1")):
        with pytest.raises(ValueError, match=message):
            metrics.wilson(k, n)
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\), got 95"):
        metrics.wilson(1, 2, 95)


def test_bootstrap_of_a_mean():
    x = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = metrics.bootstrap(x, resamples=4000, generator=torch.Generator().manual_seed(2))
    error = float(x.std()) / math.sqrt(400)
    assert found.value == pytest.approx(float(x.mean()), abs=1e-12)
    assert found.stderr == pytest.approx(error, rel=0.05)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)
    again = metrics.bootstrap(x, resamples=4000, generator=torch.Generator().manual_seed(2))
    assert again == found


def test_bootstrap_draws_rows_together():
    x = torch.arange(20, dtype=torch.float64)
    pairs = torch.stack([x, 3 * x], 1)
    found = metrics.bootstrap(pairs, lambda r: (r[:, 1] - 3 * r[:, 0]).abs().max(), resamples=50)
    assert found.value == found.low == found.high == found.stderr == 0


def test_bootstrap_covers_as_often_as_it_says():
    generator, hits = torch.Generator().manual_seed(0), 0
    for _ in range(200):
        x = torch.rand(60, generator=generator)
        found = metrics.bootstrap(x, resamples=200, level=0.8, generator=generator)
        hits += found.low <= 0.5 <= found.high
    assert 0.72 <= hits / 200 <= 0.87  # 0.8, less about .01 for n = 60, three standard errors each way


def test_bootstrap_is_checked():
    x = torch.ones(5)
    for values, options, message in (
        (torch.ones(1), {}, "at least 2 rows"),
        (torch.tensor(1.0), {}, "at least 2 rows"),
        (x / 0, {}, "values must be finite"),
        (x, {"resamples": 1}, "resamples must be at least 2, got 1"),
        (x, {"level": 1.0}, r"level must lie in \(0, 1\), got 1.0"),
        (x, {"statistic": lambda r: r.mean() / 0}, "statistic must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.bootstrap(values, **options)

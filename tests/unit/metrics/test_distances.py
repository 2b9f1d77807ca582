"""Distances between samples against closed forms, brute force and scipy."""

import math

import pytest
import scipy.linalg
import scipy.stats
import torch

from hjbridge import metrics


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=gen(seed))


def with_moments(mean: torch.Tensor, covariance: torch.Tensor, n: int = 50) -> torch.Tensor:
    """A sample whose mean and covariance (denominator n - 1) are exactly the given ones."""
    x = normal(n, len(mean), 7)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return mean + white @ torch.linalg.cholesky(covariance).T


def test_moments_have_the_unbiased_denominator():
    found = metrics.Moments.of(torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 3.0]]))
    torch.testing.assert_close(found.mean, torch.tensor([1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(found.covariance, torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64))
    assert found.n == 3


def test_frechet_distance_of_diagonal_gaussians():
    # |m|^2 + sum (s_a - s_b)^2
    a = with_moments(torch.tensor([1.0, 2.0, 0.0]).double(), torch.diag(torch.tensor([1.0, 4.0, 9.0]).double()))
    b = with_moments(torch.tensor([0.0, 0.0, 2.0]).double(), torch.diag(torch.tensor([4.0, 1.0, 0.25]).double()))
    assert metrics.frechet_distance(a, b) == pytest.approx(9 + 1 + 1 + 2.5**2, abs=1e-10)
    assert metrics.frechet_distance(metrics.Moments.of(a), b) == metrics.frechet_distance(a, b)


def test_frechet_distance_of_correlated_gaussians_against_scipy():
    a, b = (torch.eye(4).double() + normal(4, 4, k) @ normal(4, 4, k).T for k in (1, 2))
    middle = scipy.linalg.sqrtm((a @ b).numpy()).real
    expected = 3.0 + a.trace() + b.trace() - 2 * middle.trace()
    zero, shift = torch.zeros(4).double(), torch.tensor([1.0, 1.0, 0.0, -1.0]).double()
    one, two = with_moments(zero, a), with_moments(shift, b)
    assert metrics.frechet_distance(one, two) == pytest.approx(float(expected), abs=1e-9)
    assert metrics.frechet_distance(two, one) == pytest.approx(float(expected), abs=1e-9)


def test_frechet_distance_of_fewer_rows_than_columns_is_that_of_the_means():
    x = normal(5, 20, 3)
    assert metrics.frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert metrics.frechet_distance(x, x + 2) == pytest.approx(80, abs=1e-6)


def test_floor_falls_with_n_and_is_the_whole_set_at_the_end():
    test, train = normal(400, 6, 1), normal(4000, 6, 2)
    small, large = (metrics.floor(test, train, n, 30, gen()) for n in (50, 200))
    assert small.shape == (30,) and small.mean() > 2 * large.mean() and small.std() > 0
    whole = metrics.floor(test, metrics.Moments.of(train), 400, 2, gen())
    torch.testing.assert_close(whole, torch.full((2,), metrics.frechet_distance(test, train), dtype=torch.float64))
    assert torch.equal(metrics.floor(test, train, 50, 3, gen(5)), metrics.floor(test, train, 50, 3, gen(5)))
    with pytest.raises(ValueError, match=r"n must lie in 2..400 .* got 401"):
        metrics.floor(test, train, 401)
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        metrics.floor(test, train, 50, 0)


def brute_kid(a: torch.Tensor, b: torch.Tensor) -> float:
    def k(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    n, m = len(a), len(b)
    within_a = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_b = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_a + within_b - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


def test_kid_and_its_jackknife_against_brute_force():
    a, b = normal(7, 3, 1), 1.5 * normal(5, 3, 2) + 0.5
    found = metrics.kid(a, b)
    assert found.value == pytest.approx(brute_kid(a, b), rel=1e-12)
    variance = 0.0
    for sample, other, turned in ((a, b, False), (b, a, True)):
        left = [torch.cat([sample[:i], sample[i + 1 :]]) for i in range(len(sample))]
        values = torch.tensor([brute_kid(other, x) if turned else brute_kid(x, other) for x in left]).double()
        variance += float((len(sample) - 1) / len(sample) * (values - values.mean()).square().sum())
    assert found.stderr == pytest.approx(math.sqrt(variance), rel=1e-6)
    assert found.high - found.value == pytest.approx(1.959963984540054 * found.stderr, rel=1e-12)
    assert found.value - found.low == pytest.approx(found.high - found.value, rel=1e-12)


def test_kid_of_gaussians_on_the_line_against_its_closed_form():
    # E (xy + 1)^3 = E x^3 E y^3 + 3 E x^2 E y^2 + 3 E x E y + 1 with E x^2 = m^2 + s^2, E x^3 = m^3 + 3 m s^2
    def mean_kernel(p, q, variance=0.25):
        cubes = (p**3 + 3 * p * variance) * (q**3 + 3 * q * variance)
        return cubes + 3 * (p**2 + variance) * (q**2 + variance) + 3 * p * q + 1

    expected = mean_kernel(0, 0) + mean_kernel(0.5, 0.5) - 2 * mean_kernel(0, 0.5)
    samples = [(normal(150, 1, 2 * k) / 2, normal(150, 1, 2 * k + 1) / 2 + 0.5) for k in range(300)]
    repeats = [metrics.kid(a, b) for a, b in samples]
    values = torch.tensor([r.value for r in repeats]).double()
    assert values.mean() == pytest.approx(expected, abs=3.5 * float(values.std()) / math.sqrt(300))
    covered = sum(r.low <= expected <= r.high for r in repeats) / 300
    assert 0.90 <= covered <= 0.99
    assert torch.tensor([r.stderr for r in repeats]).mean() == pytest.approx(float(values.std()), rel=0.15)


def test_kid_is_unbiased_for_equal_distributions():
    values = torch.tensor([metrics.kid(normal(40, 4, 2 * k), normal(60, 4, 2 * k + 1)).value for k in range(400)])
    assert abs(values.mean()) < 3 * values.std() / 20


def test_wasserstein_on_the_line():
    x = normal(300, 1, 1)[:, 0]
    for p in (1, 2, 3.5):
        assert metrics.wasserstein(x, x + 2.5, p) == pytest.approx(2.5, abs=1e-12)
    y = torch.cat([normal(170, 1, 2)[:, 0] * 2, torch.tensor([9.0])])
    assert metrics.wasserstein(x, y) == pytest.approx(scipy.stats.wasserstein_distance(x, y), rel=1e-12)
    # {0, 1} against {0, 0, 3}: quantiles differ by 0 on [0, 1/2], 1 on [1/2, 2/3], 2 on [2/3, 1]
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0, 0.0])
    assert metrics.wasserstein(a, b) == pytest.approx(1 / 6 + 2 / 3, abs=1e-12)
    assert metrics.wasserstein(a, b, 2) == pytest.approx(math.sqrt(1 / 6 + 4 / 3), abs=1e-12)
    columns = metrics.wasserstein(torch.stack([a, a], 1), torch.stack([b, b + 1], 1))
    assert columns.shape == (2,) and columns[0] == pytest.approx(5 / 6, abs=1e-12)
    with torch.device("meta"):  # what is made on the way lies where the samples lie
        assert metrics.wasserstein(a, b) == pytest.approx(5 / 6, abs=1e-12)
    with pytest.raises(ValueError, match="p must be at least 1 and finite, got inf"):
        metrics.wasserstein(torch.zeros(2), torch.ones(2), math.inf)
    with pytest.raises(ValueError, match="p must be at least 1 and finite, got 0.5"):
        metrics.wasserstein(a, b, 0.5)


def test_sliced_wasserstein_of_a_shift():
    # W_p of each projection is |theta.v|; on the circle E (theta.v)^2 = |v|^2 / 2 and E |theta.v| = 2 |v| / pi
    x, v = normal(200, 2, 1), torch.tensor([3.0, 4.0]).double()
    two = metrics.sliced_wasserstein(x, x + v, p=2, projections=20_000, generator=gen())
    one = metrics.sliced_wasserstein(x, x + v, p=1, projections=20_000, generator=gen())
    assert two == pytest.approx(5 / math.sqrt(2), rel=0.01) and one == pytest.approx(10 / math.pi, rel=0.01)
    assert metrics.sliced_wasserstein(x, x, generator=gen()) == 0
    assert metrics.sliced_wasserstein(x, x + 1, generator=gen(3)) == metrics.sliced_wasserstein(
        x, x + 1, generator=gen(3)
    )
    with pytest.raises(ValueError, match="projections must be at least 1, got 0"):
        metrics.sliced_wasserstein(x, x, projections=0)


def test_energy_distance():
    x, y = normal(90, 1, 1), normal(60, 1, 2) + 1
    assert metrics.energy_distance(x, y) == pytest.approx(scipy.stats.energy_distance(x[:, 0], y[:, 0]) ** 2, rel=1e-9)
    assert metrics.energy_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-12)
    # points 0 and v against point 0 alone: 2 |v|/2 - |v|/2
    a, b = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.zeros(1, 2)
    assert metrics.energy_distance(a, b) == pytest.approx(2.5, abs=1e-12)


def test_energy_distance_of_more_rows_than_a_chunk():
    x, y = normal(1500, 2, 1), normal(1100, 2, 2)
    whole = 2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean()
    assert metrics.energy_distance(x, y) == pytest.approx(float(whole), rel=1e-9)


def test_nearest_distance_and_ratio():
    train = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    x = torch.tensor([[0.0, 1.0], [9.0, 0.0], [10.0, 3.0]])
    torch.testing.assert_close(metrics.nearest_distance(x, train), torch.tensor([1.0, 1.0, 3.0]))
    assert metrics.nearest_ratio(x, train, torch.tensor([[0.0, 2.0], [14.0, 0.0]])) == pytest.approx(5 / 3 / 3)
    images = x.reshape(3, 1, 1, 2)
    torch.testing.assert_close(
        metrics.nearest_distance(images, train.reshape(2, 1, 1, 2)), torch.tensor([1.0, 1.0, 3.0])
    )
    with pytest.raises(ValueError, match="got copies only"):
        metrics.nearest_ratio(x, train, train)


def test_coverage_counts_test_images_that_a_sample_comes_near():
    train, test = torch.tensor([[0.0], [1.0], [3.0], [10.0]]), torch.tensor([[0.5], [9.0]])
    # second nearest training images: .5 from the first test image, 6 from the second
    assert metrics.coverage(torch.tensor([[0.1], [2.0]]), train, test, 2) == 0.5
    assert metrics.coverage(torch.tensor([[0.1], [3.1]]), train, test, 2) == 1.0
    assert metrics.coverage(torch.tensor([[1.0]]), train, test, 2) == 0.0
    with pytest.raises(ValueError, match=r"neighbours must lie in \[1, 4\], got 5"):
        metrics.coverage(train, train, test, 5)
    for wrong in (torch.zeros(4, 2), train * math.nan):
        with pytest.raises(ValueError, match="train must be finite, of images like test, got shape"):
            metrics.coverage(train, wrong, test, 2)


def test_nearest_distance_keeps_small_distances_of_large_vectors():
    # |x|^2 - 2 x.t + |t|^2 alone would lose these to rounding in 32-bit
    train = 30 + torch.rand(300, 784, generator=gen())
    x = train[:40] + 1e-3
    torch.testing.assert_close(metrics.nearest_distance(x, train), torch.full((40,), 1e-3 * 28), rtol=1e-2, atol=0)


DISTANCES = {
    "frechet_distance": metrics.frechet_distance,
    "kid": metrics.kid,
    "energy_distance": metrics.energy_distance,
    "sliced_wasserstein": metrics.sliced_wasserstein,
    "wasserstein": metrics.wasserstein,
    "nearest_distance": metrics.nearest_distance,
}


@pytest.mark.parametrize("name", DISTANCES)
def test_nan_and_shapes_are_named(name):
    good = normal(6, 3, 1)
    bad = good.clone()
    bad[2, 1] = math.nan
    for pair in ((good, bad), (bad, good), (good, bad.nan_to_num(math.inf))):
        with pytest.raises(ValueError, match="must be finite, got NaN or infinity"):
            DISTANCES[name](*pair)
    with pytest.raises(ValueError, match=r"(shape|number of features|width|\(n, \.\.\.\)).*got"):
        DISTANCES[name](good, normal(6, 4, 1))
    with pytest.raises(ValueError, match="must .* got"):
        DISTANCES[name](good[:0], good)

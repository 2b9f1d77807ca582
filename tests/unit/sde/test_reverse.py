"""The reverse equation with an exact score gives the data back, for every eta."""

import math

import pytest
import torch

from hjbridge.sde import EDM, VP, Cosine, GaussianMixture, RectifiedFlow, SubVP, integrate, reverse

LINE = GaussianMixture([0.3, 0.7], [[-1.5], [1.0]], [[[0.09]], [[0.25]]])
PLANE = GaussianMixture(
    [0.6, 0.4], [[-1.0, 0.5], [1.0, -0.5]], [[[0.2, 0.1], [0.1, 0.15]], [[0.1, -0.05], [-0.05, 0.3]]]
)


def cumulative(mixture, x):
    """Distribution function of a one-dimensional mixture at x (n,)."""
    deviation = mixture.covariances[:, 0, 0].sqrt()
    z = (x[:, None] - mixture.means[:, 0]) / deviation
    return (mixture.weights * (1 + torch.erf(z / math.sqrt(2))) / 2).sum(1)


def kolmogorov(mixture, x):
    """Largest distance between the distribution functions of samples (n,) and of the mixture."""
    x = x.sort().values
    n = len(x)
    exact, steps = cumulative(mixture, x), torch.arange(n + 1, dtype=torch.float64) / n
    return torch.maximum((exact - steps[:-1]).abs().max(), (steps[1:] - exact).abs().max()).item()


@pytest.mark.parametrize("process", [VP(), RectifiedFlow()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_reverse_reproduces_the_marginal(process, eta):
    n, generator = 8000, torch.Generator().manual_seed(0)
    grid = process.time_of(torch.logspace(1.5, -2.5, 81, dtype=torch.float64))
    x = LINE.marginal(process, grid[0]).sample(n, generator)
    end = LINE.marginal(process, grid[-1])
    path = integrate(reverse(process, LINE.denoiser(process).score, eta), x, grid, "heun", generator)
    # 1.63/sqrt(n) is the 99 % quantile of the distance for exact samples
    assert kolmogorov(end, path.x[:, 0]) < 1.63 / math.sqrt(n)
    # what a wrong score coefficient would do
    wrong = reverse(process, lambda y, t: 0.85 * LINE.denoiser(process).score(y, t), eta)
    assert kolmogorov(end, integrate(wrong, x, grid, "heun", generator).x[:, 0]) > 2 * 1.63 / math.sqrt(n)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_energy_distance_to_the_data(eta):
    n, process, generator = 2000, VP(), torch.Generator().manual_seed(2)
    grid = process.time_of(torch.logspace(2, -2, 201, dtype=torch.float64))
    x = process.prior_sample((n, 2), generator, t=float(grid[0]), mean=PLANE.mean, dtype=torch.float64)
    x = integrate(reverse(process, PLANE.denoiser(process).score, eta), x, grid, "euler", generator).x
    data, fresh = PLANE.sample(n, generator), PLANE.sample(n, generator)

    def energy(a, b):
        return (2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean()).item()

    floor = max(energy(data, fresh), 1 / n)
    assert energy(x, data) < 4 * floor < 0.01 < energy(0.9 * x, data) * 4


@pytest.mark.parametrize(
    "process", [VP(), SubVP(), EDM(5.0), Cosine(), RectifiedFlow()], ids=lambda p: type(p).__name__
)
def test_probability_flow_of_a_gaussian_is_an_affine_map(process):
    gaussian = GaussianMixture([1.0], [[0.5, -1.0]], [[[0.6, 0.3], [0.3, 0.4]]])
    grid = process.time_of(torch.logspace(0.5, -1.5, 81, dtype=torch.float64))
    start, end = (gaussian.marginal(process, grid[i]) for i in (0, -1))
    x = start.sample(50, torch.Generator().manual_seed(0))
    path = integrate(reverse(process, gaussian.denoiser(process).score, 0.0), x, grid, "rk4")
    # along each axis of the covariance the deviation scales with sqrt(alpha^2 v + sigma^2)
    (v0, q), (v1, _) = (torch.linalg.eigh(m.covariances[0]) for m in (start, end))
    exact = end.means + (x - start.means) @ q @ torch.diag((v1 / v0).sqrt()) @ q.mT
    torch.testing.assert_close(path.x, exact, rtol=0, atol=1e-5)

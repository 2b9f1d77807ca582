"""Gaussian mixtures against torch.distributions, autograd and Monte Carlo."""

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from hjbridge.sde import EDM, VE, VP, Cosine, GaussianMixture, RectifiedFlow, SubVP

WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
MEANS = torch.tensor([[-2.0, 0.5], [1.0, 1.5], [0.5, -2.0]], dtype=torch.float64)
ROOTS = torch.tensor([[[0.7, 0.2], [0, 0.4]], [[0.5, 0], [-0.3, 0.6]], [[0.3, 0.1], [0.2, 0.8]]], dtype=torch.float64)
COVARIANCES = ROOTS @ ROOTS.mT
DIAGONAL = torch.diag_embed(torch.tensor([[0.5, 0.2], [0.3, 0.9], [0.1, 0.4]], dtype=torch.float64))
PROCESSES = [VP(), SubVP(), VE(0.01, 3.0), EDM(4.0), Cosine(), RectifiedFlow()]
each_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
each_covariance = pytest.mark.parametrize("covariances", [COVARIANCES, DIAGONAL], ids=["full", "diagonal"])


def points(n=200, scale=2.5):
    return scale * torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def reference(weights, means, covariances):
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances))


@each_covariance
def test_density_score_and_responsibilities(covariances):
    mixture, x = GaussianMixture(WEIGHTS, MEANS, covariances), points().requires_grad_()
    density = mixture.log_prob(x)
    torch.testing.assert_close(density, reference(WEIGHTS, MEANS, covariances).log_prob(x), rtol=1e-12, atol=1e-12)
    gradient = torch.autograd.grad(density.sum(), x)[0]
    torch.testing.assert_close(mixture.score(x), gradient, rtol=1e-10, atol=1e-10)
    parts = torch.stack([MultivariateNormal(m, c).log_prob(x) for m, c in zip(MEANS, covariances, strict=True)], dim=1)
    expected = (parts + WEIGHTS.log() - density[:, None]).exp()
    torch.testing.assert_close(mixture.responsibilities(x), expected, rtol=1e-10, atol=1e-12)


@each_covariance
def test_what_was_given_comes_back(covariances):
    mixture = GaussianMixture(WEIGHTS, MEANS, covariances)
    torch.testing.assert_close(mixture.weights, WEIGHTS)
    torch.testing.assert_close(mixture.means, MEANS, rtol=0, atol=0)
    torch.testing.assert_close(mixture.covariances, covariances, rtol=1e-14, atol=1e-14)
    assert repr(mixture) == "GaussianMixture(3 components in 2 dimensions)"


@each_covariance
def test_sample_has_the_moments(covariances):
    mixture = GaussianMixture(WEIGHTS, MEANS, covariances)
    x = mixture.sample(200_000, torch.Generator().manual_seed(0))
    assert x.shape == (200_000, 2) and x.dtype == torch.float64
    # four standard errors; the moments of the exact mixture differ by 1.6 and more between coordinates
    torch.testing.assert_close(x.mean(0), mixture.mean, rtol=0, atol=0.015)
    torch.testing.assert_close(x.T.cov(), mixture.covariance, rtol=0, atol=0.03)
    mean = (WEIGHTS[:, None] * MEANS).sum(0)
    torch.testing.assert_close(mixture.mean, mean, rtol=1e-14, atol=1e-14)
    second = (WEIGHTS[:, None, None] * (covariances + MEANS[:, :, None] * MEANS[:, None, :])).sum(0)
    torch.testing.assert_close(mixture.covariance, second - torch.outer(mean, mean), rtol=1e-13, atol=1e-13)
    # far apart, every component can be looked at by itself
    apart = GaussianMixture(WEIGHTS, 100 * MEANS, covariances).sample(200_000, torch.Generator().manual_seed(1))
    nearest = torch.cdist(apart, 100 * MEANS).argmin(1)
    torch.testing.assert_close(nearest.bincount() / 200_000, WEIGHTS.float(), rtol=0, atol=0.005)
    for k in range(3):
        torch.testing.assert_close(apart[nearest == k].T.cov(), covariances[k], rtol=0, atol=0.025)
    assert torch.equal(x[:5], mixture.sample(200_000, torch.Generator().manual_seed(0))[:5])


@each_process
@each_covariance
def test_marginal_is_the_noised_mixture(process, covariances):
    mixture, x = GaussianMixture(WEIGHTS, MEANS, covariances), points()
    eye = torch.eye(2, dtype=torch.float64)
    for t in (0.0, 0.3, 0.9):
        alpha, sigma = process.alpha(t), process.sigma(t)
        exact = reference(WEIGHTS, alpha * MEANS, alpha**2 * covariances + sigma**2 * eye)
        marginal = mixture.marginal(process, t)
        torch.testing.assert_close(marginal.log_prob(x), exact.log_prob(x), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(marginal.covariances, exact.component_distribution.covariance_matrix)


def test_marginal_against_monte_carlo():
    mixture, process, generator = GaussianMixture(WEIGHTS, MEANS, COVARIANCES), VP(), torch.Generator().manual_seed(3)
    x0 = mixture.sample(100_000, generator)
    x = process.perturb(x0, 0.3, torch.randn(x0.shape, generator=generator, dtype=torch.float64))
    marginal = mixture.marginal(process, 0.3)
    torch.testing.assert_close(x.mean(0), marginal.mean, rtol=0, atol=0.015)
    torch.testing.assert_close(x.T.cov(), marginal.covariance, rtol=0, atol=0.025)
    # E log p and E |score|^2 tell the shape; E score = 0
    drawn = marginal.sample(100_000, generator)
    for statistic in (marginal.log_prob, lambda y: marginal.score(y).square().sum(1)):
        a, b = statistic(x), statistic(drawn)
        assert (a.mean() - b.mean()).abs() < 4 * ((a.var() + b.var()) / 100_000).sqrt()


@each_process
def test_one_time_per_sample(process):
    mixture, x = GaussianMixture(WEIGHTS, MEANS, COVARIANCES), points(5)
    t = torch.tensor([0.05, 0.2, 0.5, 0.7, 0.95], dtype=torch.float64)
    batch = mixture.marginal(process, t)
    assert batch.means.shape == (5, 3, 2) and batch.covariances.shape == (5, 3, 2, 2)
    assert batch.mean.shape == (5, 2) and batch.covariance.shape == (5, 2, 2)
    assert "one for each of 5 times" in repr(batch)
    for i in range(5):
        single, row = mixture.marginal(process, t[i]), x[i : i + 1]
        for name in ("log_prob", "score", "responsibilities"):
            one, all_ = getattr(single, name)(row)[0], getattr(batch, name)(x)[i]
            torch.testing.assert_close(all_, one, rtol=1e-12, atol=1e-12)
        for name in ("means", "covariances", "mean", "covariance"):
            torch.testing.assert_close(getattr(batch, name)[i], getattr(single, name), rtol=1e-12, atol=1e-12)
        denoiser = mixture.denoiser(process)
        torch.testing.assert_close(denoiser(x, t)[i], denoiser(row, t[i])[0], rtol=1e-12, atol=1e-12)


@each_covariance
def test_samples_of_a_batched_marginal_follow_their_times(covariances):
    mixture, process = GaussianMixture(WEIGHTS, MEANS, covariances), VP()
    t = torch.tensor([0.1, 0.6], dtype=torch.float64).repeat(50_000)
    x = mixture.marginal(process, t).sample(100_000, torch.Generator().manual_seed(0))
    for i in range(2):
        exact = mixture.marginal(process, t[i])
        torch.testing.assert_close(x[i::2].mean(0), exact.mean, rtol=0, atol=0.025)
        torch.testing.assert_close(x[i::2].T.cov(), exact.covariance, rtol=0, atol=0.04)


@each_process
def test_marginal_is_differentiable_in_time(process):
    mixture, x = GaussianMixture(WEIGHTS, MEANS, COVARIANCES), points(4)
    many = torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=torch.float64, requires_grad=True)
    one = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    for t in (many, one):
        assert torch.autograd.gradcheck(lambda s: mixture.marginal(process, s).log_prob(x), t)
        assert torch.autograd.gradcheck(lambda s: mixture.denoiser(process)(x, s), t)
        assert torch.autograd.gradcheck(lambda s: mixture.denoiser(process).score(x, s), t)
    start = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(mixture.marginal(EDM(), start).log_prob(x).sum(), start)[0]
    assert slope.item() == 0  # sigma^2 = (80 t)^2 is flat there


def test_type_and_graph_follow_the_input():
    mixture, x = GaussianMixture(WEIGHTS, MEANS, COVARIANCES), points()
    denoiser = mixture.denoiser(VP())
    for function in (mixture.log_prob, mixture.score, mixture.responsibilities, lambda y: denoiser(y, 0.3)):
        single, double = function(x.float()), function(x)
        assert single.dtype == torch.float32 and double.dtype == torch.float64
        assert not double.requires_grad and function(x.clone().requires_grad_()).requires_grad
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-5)
    narrow = GaussianMixture(WEIGHTS.float(), MEANS.float(), COVARIANCES.float())
    assert narrow.score(x).dtype == torch.float64 and narrow.sample(2).dtype == torch.float32
    assert GaussianMixture([0.5, 0.5], [[0], [1]], [[[1]], [[2]]]).sample(2).dtype == torch.float64
    learned = MEANS.clone().requires_grad_()
    assert GaussianMixture(WEIGHTS, learned, COVARIANCES).log_prob(x).requires_grad


def test_far_points_and_empty_components_stay_finite():
    mixture = GaussianMixture([0.0, 1.0], [[0.0], [1.0]], [[[1.0]], [[4.0]]])
    x = torch.tensor([[1e6], [-3.0]], dtype=torch.float64)
    torch.testing.assert_close(mixture.score(x), (1 - x) / 4)
    torch.testing.assert_close(mixture.responsibilities(x), torch.tensor([[0.0, 1.0]] * 2).double())


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_positive_definite_means_the_same_at_every_scale(scale):
    """An eigenvalue counts as positive if it exceeds the rounding error of the largest one, whatever the units."""
    good, bad = (torch.diag(torch.tensor([1.0, small], dtype=torch.float64)) for small in (1e-12, 1e-16))
    assert torch.equal(GaussianMixture([1.0], [[0.0, 0.0]], scale * good[None]).covariances, scale * good[None])
    with pytest.raises(ValueError, match=r"covariances\[0\] must be positive definite"):
        GaussianMixture([1.0], [[0.0, 0.0]], scale * bad[None])

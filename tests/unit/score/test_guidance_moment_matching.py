import math
import re

import pytest
import torch
from torch.distributions import MultivariateNormal

from hjbridge.metrics.distances import energy_distance
from hjbridge.score import Denoiser, ResidualMLP, sample, time_grid
from hjbridge.score.guidance import MomentMatched, Observation, moments, posterior
from hjbridge.sde.mixture import GaussianMixture
from hjbridge.sde.posterior import PosteriorMean
from hjbridge.sde.processes import EDM, VE, VP, RectifiedFlow, SubVP

GAUSSIAN = GaussianMixture([1.0], [[0.5, -1.0, 0.3]], [[[1.0, 0.6, 0.2], [0.6, 0.8, -0.1], [0.2, -0.1, 0.5]]])
MATRIX = torch.tensor([[1.0, -0.5, 0.3], [0.2, 1.0, 0.0]], dtype=torch.float64)
OBSERVATION = Observation(MATRIX, torch.tensor([1.0, -0.3], dtype=torch.float64), 0.3)
PLANE = Observation(torch.tensor([[1.0, 0.5]], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64), 0.2)


@pytest.mark.parametrize("process", [VP(), SubVP(), VE(), EDM(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_it_is_exact_for_gaussian_data(process, generator):
    x = torch.randn(9, 3, dtype=torch.float64, generator=generator)
    matched, exact = MomentMatched(GAUSSIAN.denoiser(process), OBSERVATION), posterior(GAUSSIAN, OBSERVATION)
    for t in (0.05, torch.tensor(0.5, dtype=x.dtype), torch.linspace(0.1, 0.9, 9, dtype=torch.float64)):
        torch.testing.assert_close(matched(x, t), exact.denoiser(process)(x, t), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(matched.score(x, t), exact.denoiser(process).score(x, t), rtol=1e-9, atol=1e-9)
    assert isinstance(matched, PosteriorMean) and matched.process is process


@pytest.mark.parametrize("process", [SubVP(), EDM(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_the_isotropic_kind_is_exact_for_data_of_that_variance(process, generator):
    data = GaussianMixture([1.0], [[0.5, -1.0, 0.3]], 0.7 * torch.eye(3, dtype=torch.float64)[None])
    matched = MomentMatched(data.denoiser(process), OBSERVATION, "isotropic", variance=0.7)
    exact = posterior(data, OBSERVATION).denoiser(process)
    x = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    for t in (0.05, torch.tensor([0.3, 0.6], dtype=torch.float64)):
        torch.testing.assert_close(matched(x, t), exact(x, t), rtol=1e-10, atol=1e-10)
    # as many samples as observed values, which no rule may take for each other
    other = MomentMatched(data.denoiser(process), OBSERVATION, "isotropic", variance=0.5)
    assert (other(x, 0.3) - exact(x, 0.3)).abs().max() > 1e-4


def test_the_score_gains_the_gradient_of_the_matched_likelihood_with_its_covariance_held(mixture, generator):
    process, t = SubVP(), torch.tensor(0.3, dtype=torch.float64)
    denoiser = mixture.denoiser(process)
    x = torch.randn(6, 2, dtype=torch.float64, generator=generator)
    _, covariance = moments(denoiser, x, t)
    spread = PLANE.matrix @ covariance @ PLANE.matrix.T + 0.04
    y = x.clone().requires_grad_()
    likelihood = MultivariateNormal(denoiser(y, t) @ PLANE.matrix.T, spread).log_prob(PLANE.value)
    gradient = torch.autograd.grad(likelihood.sum(), y)[0]
    gained = MomentMatched(denoiser, PLANE).score(x, t) - denoiser.score(x, t)
    torch.testing.assert_close(gained, gradient, rtol=1e-10, atol=1e-10)


def distances(data, observation, process, rule, grid, n=1000, seeds=5):
    """Energy distances to the exact posterior, and between two exact samples, each averaged over the seeds."""
    exact, found, floors = posterior(data, observation), [], []
    matched = MomentMatched(data.denoiser(process), observation)
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        x1 = process.prior_sample((n, len(data.mean)), generator, t=float(grid[0]), dtype=torch.float64)
        first, second = (exact.sample(n, generator) for _ in range(2))
        found.append(energy_distance(sample(matched, x1, grid, rule, generator=generator), first))
        floors.append(energy_distance(first, second))
    return sum(found) / seeds, sum(floors) / seeds


@pytest.mark.parametrize(("rule", "steps"), [("sde_dpmpp2m", 60), ("dpmpp2m", 60), ("ancestral", 200)])
def test_samples_of_a_gaussian_are_at_the_sampling_floor(rule, steps):
    found, floor = distances(GAUSSIAN, OBSERVATION, VP(), rule, time_grid(VP(), steps))
    assert found <= 2 * floor, found / floor


def test_on_a_mixture_it_is_wrong_and_by_how_much(mixture):
    """Some 60 to 100 floors at n = 1000: the Gaussian does not see that the components are apart."""
    found, floor = distances(mixture, PLANE, VP(), "sde_dpmpp2m", time_grid(VP(), 60))
    assert 20 * floor < found < 300 * floor, found / floor


def test_it_works_on_images_networks_and_labels(generator):
    network = ResidualMLP((1, 2, 2), 16, 1, classes=3)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    denoiser = Denoiser(network, VP(), shape=(1, 2, 2), classes=3).requires_grad_(False)
    mask = torch.tensor([[[True, True], [False, True]]])
    known = torch.randn(1, 2, 2, generator=generator)
    observation = Observation.pixels(mask, known, 0.1)
    x, label = torch.randn(5, 1, 2, 2, generator=generator), torch.tensor([0, 1, 2, 0, 1])
    for covariance in ("jacobian", "isotropic"):
        matched = MomentMatched(denoiser, observation, covariance)
        mean = matched(x, 0.3, label)
        assert mean.shape == x.shape and mean.dtype == torch.float32 and not mean.requires_grad
        assert (mean - matched(x, 0.3)).abs().max() > 1e-4
        one = torch.cat([matched(x[i : i + 1], 0.3, label[i : i + 1]) for i in range(5)])
        torch.testing.assert_close(mean, one, rtol=1e-4, atol=1e-5)
        grid = time_grid(VP(), 10, ratio_max=20.0)
        drawn = sample(matched, x, grid, "ancestral", label=label, guidance=0.5, generator=generator)
        assert (drawn - known)[:, mask].square().mean().sqrt() < 0.3
        wide = Observation(observation.matrix.double(), observation.value.double(), 0.1)
        assert MomentMatched(denoiser, wide, covariance)(x, 0.3).dtype == torch.float32


@pytest.mark.parametrize("covariance", ["jacobian", "isotropic"])
def test_it_works_without_gradients_and_carries_a_graph_only_if_asked(mixture, covariance):
    matched, x = MomentMatched(mixture.denoiser(VP()), PLANE, covariance), torch.tensor([[0.4, -0.2]]).double()
    with torch.no_grad():
        plain = matched(x, 0.3)
    assert not matched(x, 0.3).requires_grad and torch.equal(plain, matched(x, 0.3))
    y = x.clone().requires_grad_()
    slope = torch.autograd.grad(matched(y, 0.3)[0, 1], y)[0]
    step = torch.tensor([[1e-5, 0.0]], dtype=torch.float64)
    difference = (matched(x + step, 0.3) - matched(x - step, 0.3))[0, 1].item() / 2e-5
    assert slope[0, 0].item() == pytest.approx(difference, rel=1e-6)


def test_bad_input(mixture):
    denoiser, x = mixture.denoiser(RectifiedFlow()), torch.zeros(3, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="covariance must be one of jacobian, isotropic, got 'diagonal'"):
        MomentMatched(denoiser, PLANE, "diagonal")
    for variance in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="variance must be positive and finite, got"):
            MomentMatched(denoiser, PLANE, "isotropic", variance)
    message = re.escape("matrix must have one column for each coordinate of x, got 3 columns for samples of shape (2,)")
    for covariance in ("jacobian", "isotropic"):
        with pytest.raises(ValueError, match=message):
            MomentMatched(denoiser, OBSERVATION, covariance)(x, 0.5)
        with pytest.raises(ValueError, match="t must have a positive alpha.t., got t = 1 for RectifiedFlow"):
            MomentMatched(denoiser, PLANE, covariance)(x, 1.0)
        with pytest.raises(ValueError, match="label must be None: a mixture has no labels"):
            MomentMatched(denoiser, PLANE, covariance)(x, 0.5, torch.zeros(3, dtype=torch.int64))

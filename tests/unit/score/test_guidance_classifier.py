import math

import pytest
import torch

from hjbridge.metrics.distances import energy_distance
from hjbridge.score import Denoiser, ResidualMLP, sample, time_grid
from hjbridge.score.guidance import ClassifierGuided
from hjbridge.sde.mixture import GaussianMixture
from hjbridge.sde.posterior import PosteriorMean
from hjbridge.sde.processes import EDM, VE, VP, RectifiedFlow, SubVP


def component(mixture, k):
    return GaussianMixture([1.0], mixture.means[k : k + 1], mixture.covariances[k : k + 1])


def exact(mixture, process, k):
    """log p(component k | x_t) = log w_k + log p_k(x_t) - log p(x_t), the log of the responsibility."""
    one = component(mixture, k)

    def log_likelihood(x, t):
        given = one.marginal(process, t).log_prob(x)
        return mixture.weights[k].log() + given - mixture.marginal(process, t).log_prob(x)

    return log_likelihood


@pytest.fixture
def x(generator):
    return 2 * torch.randn(40, 2, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("process", [VP(), SubVP(), VE(), EDM(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_with_the_exact_likelihood_it_is_the_posterior_mean_of_the_component(mixture, process, x):
    for k in range(3):
        guided = ClassifierGuided(mixture.denoiser(process), exact(mixture, process, k))
        wanted = component(mixture, k).denoiser(process)
        for t in (0.05, 0.4, torch.linspace(0.1, 0.8, len(x), dtype=torch.float64)):
            start = process.alpha(t).reshape(-1, 1) * x
            torch.testing.assert_close(guided(start, t), wanted(start, t), rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(guided.score(start, t), wanted.score(start, t), rtol=1e-9, atol=1e-9)


def test_the_exact_likelihood_is_the_responsibility(mixture, x):
    found = exact(mixture, VP(), 1)(x, torch.tensor(0.3))
    torch.testing.assert_close(found.exp(), mixture.marginal(VP(), 0.3).responsibilities(x)[:, 1])


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5, -1.0])
def test_the_score_gains_scale_times_the_gradient(mixture, x, scale):
    process, t = SubVP(), torch.tensor(0.3, dtype=torch.float64)
    denoiser, likelihood = mixture.denoiser(process), exact(mixture, process, 2)
    guided = ClassifierGuided(denoiser, likelihood, scale)
    y = x.clone().requires_grad_()
    gradient = torch.autograd.grad(likelihood(y, t).sum(), y)[0]
    assert isinstance(guided, PosteriorMean) and guided.process is process
    torch.testing.assert_close(guided.score(x, t), denoiser.score(x, t) + scale * gradient, rtol=1e-10, atol=1e-10)


def test_samples_are_those_of_the_component(mixture):
    process, n = VP(), 1000
    grid, ratios, floors = time_grid(process, 40), [], []
    guided, wanted = ClassifierGuided(mixture.denoiser(process), exact(mixture, process, 0)), component(mixture, 0)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        x1 = process.prior_sample((n, 2), generator, t=float(grid[0]), dtype=torch.float64)
        first, second = (wanted.sample(n, generator) for _ in range(2))
        ratios.append(energy_distance(sample(guided, x1, grid, "heun"), first))
        floors.append(energy_distance(first, second))
    assert sum(ratios) <= 2 * sum(floors)


def test_it_works_without_gradients_and_carries_a_graph_only_if_asked(mixture, x):
    guided = ClassifierGuided(mixture.denoiser(VP()), exact(mixture, VP(), 0))
    with torch.no_grad():
        plain = guided(x, 0.3)
    assert not guided(x, 0.3).requires_grad and torch.equal(plain, guided(x, 0.3))
    y = x.clone().requires_grad_()
    slope = torch.autograd.grad(guided(y, 0.3)[:, 0].sum(), y)[0]
    step = torch.tensor([1e-5, 0.0], dtype=torch.float64)
    difference = (guided(x + step, 0.3) - guided(x - step, 0.3))[:, 0] / 2e-5
    torch.testing.assert_close(slope[:, 0], difference, rtol=1e-6, atol=1e-8)


def test_a_label_is_handed_on():
    seen = []

    class Labelled:
        process = VP()

        def __call__(self, x, t, label=None):
            seen.append(label)
            return x

    label = torch.tensor([0, 1])
    ClassifierGuided(Labelled(), lambda x, t: x.sum(1))(torch.zeros(2, 3), 0.5, label)
    assert seen[0] is label


def unlabelled():
    return Denoiser(ResidualMLP((2,), 8, 1), VP())


def test_an_unlabelled_network_asked_for_guidance_is_refused():
    """By its name for labels, with and without a classifier beside it."""
    x, grid, label = torch.zeros(4, 2), time_grid(VP(), 3), torch.tensor([0, 1, 0, 1])
    for denoiser in (unlabelled(), ClassifierGuided(unlabelled(), lambda x, t: x.sum(1))):
        for guidance in (0.0, 2.0):
            with pytest.raises(ValueError, match="label must be None for a network without classes"):
                sample(denoiser, x, grid, label=label, guidance=guidance)
        with pytest.raises(ValueError, match="guidance must be 0 without a label, got 2.0"):
            sample(denoiser, x, grid, guidance=2.0)


def test_bad_input(mixture, x):
    denoiser = mixture.denoiser(RectifiedFlow())
    for scale in (math.nan, math.inf):
        with pytest.raises(ValueError, match="scale must be finite, got"):
            ClassifierGuided(denoiser, lambda x, t: x.sum(1), scale)
    with pytest.raises(ValueError, match=r"log_likelihood must return shape \(40,\), got \(40, 2\)"):
        ClassifierGuided(denoiser, lambda x, t: x)(x, 0.5)
    with pytest.raises(ValueError, match="t must have a positive alpha.t., got t = 1 for RectifiedFlow"):
        ClassifierGuided(denoiser, lambda x, t: x.sum(1))(x, 1.0)
    with pytest.raises(ValueError, match="x must be floating"):
        ClassifierGuided(denoiser, lambda x, t: x.sum(1))(x.long(), 0.5)
    for wrong in (lambda x, t: x.sum(1) * math.nan, lambda x, t: (0 * x.sum(1)).sqrt()):
        with pytest.raises(FloatingPointError, match="log_likelihood or its gradient is not finite at t = 0.5"):
            ClassifierGuided(denoiser, wrong)(x, 0.5)

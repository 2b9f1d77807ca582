"""Denoiser, noise, score and velocity of a mixture: four views of one function; and the HJB equation they solve."""

import pytest
import torch

from hjbridge.sde import EDM, VE, VP, Cosine, GaussianMixture, PosteriorMean, RectifiedFlow, SubVP
from hjbridge.sde.process import broadcast

from .test_mixture import COVARIANCES, DIAGONAL, MEANS, WEIGHTS, points

PROCESSES = [VP(), SubVP(), VE(0.01, 3.0), EDM(4.0), Cosine(), RectifiedFlow()]
each_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
TIMES = [0.3, torch.linspace(0.05, 0.9, 200, dtype=torch.float64)]


def mixture_score(mixture, process, x, t):
    """Score by autograd of the log density, independent of the closed form."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(mixture.marginal(process, t).log_prob(x).sum(), x)[0]


@each_process
@pytest.mark.parametrize("t", TIMES, ids=["one time", "a time each"])
@pytest.mark.parametrize("views", ["exact", "inherited"])
def test_views_against_autograd(process, t, views):
    mixture, x = GaussianMixture(WEIGHTS, MEANS, COVARIANCES), points()
    denoiser = mixture.denoiser(process)
    owner = type(denoiser) if views == "exact" else PosteriorMean
    score = mixture_score(mixture, process, x, t)
    alpha, sigma = broadcast(process.alpha(t), x), broadcast(process.sigma(t), x)
    # Tweedie: alpha D = x + sigma^2 score
    torch.testing.assert_close(denoiser(x, t), (x + sigma**2 * score) / alpha, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(owner.score(denoiser, x, t), score, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(owner.eps(denoiser, x, t), -sigma * score, rtol=1e-10, atol=1e-10)
    f, g = broadcast(process.drift_coef(t), x), broadcast(process.diffusion(t), x)
    velocity = owner.velocity(denoiser, x, t)
    torch.testing.assert_close(velocity, f * x - g**2 * score / 2, rtol=1e-10, atol=1e-10)
    # alpha' D + sigma' eps
    s = torch.as_tensor(t, dtype=torch.float64).clone().requires_grad_()
    rates = [torch.autograd.grad(c(s).sum(), s)[0] for c in (process.alpha, process.sigma)]
    moved = broadcast(rates[0], x) * denoiser(x, t) + broadcast(rates[1], x) * denoiser.eps(x, t)
    torch.testing.assert_close(velocity, moved, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("covariances", [COVARIANCES, DIAGONAL], ids=["full", "diagonal"])
def test_denoiser_is_the_posterior_mean(covariances):
    mixture, process, t = GaussianMixture(WEIGHTS, MEANS, covariances), VP(), 0.25
    generator = torch.Generator().manual_seed(0)
    x = torch.tensor([[0.4, 0.3]], dtype=torch.float64)
    # E[x0 | x] by weighting samples of the data with the likelihood of x
    x0 = mixture.sample(400_000, generator)
    weight = torch.softmax(-((x - process.alpha(t) * x0) ** 2).sum(1) / (2 * process.sigma2(torch.tensor(t))), dim=0)
    expected = (weight[:, None] * x0).sum(0)
    error = ((weight[:, None] * (x0 - expected)) ** 2).sum(0).sqrt()
    assert bool(((mixture.denoiser(process)(x, t)[0] - expected).abs() < 4 * error).all()) and error.max() < 0.005


def test_ends_of_time_are_exact():
    mixture, x = GaussianMixture(WEIGHTS, MEANS, COVARIANCES), points()
    for process in (EDM(), RectifiedFlow(), VP()):
        denoiser = mixture.denoiser(process)
        # without noise the posterior mean is x itself
        torch.testing.assert_close(denoiser(x, 0.0), x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(denoiser.score(x, 0.0), mixture.score(x), rtol=1e-12, atol=1e-12)
        assert bool((denoiser.eps(x, 0.0) == 0).all())
    # without signal it is the mean of the data
    torch.testing.assert_close(mixture.denoiser(RectifiedFlow())(x, 1.0), mixture.mean.expand_as(x))
    torch.testing.assert_close(mixture.denoiser(RectifiedFlow()).score(x, 1.0), -x)


def hjb_terms(process, covariances):
    """v_t + f.grad v - g^2/2 (Lap v - |grad v|^2) and d a, for v = -log p_t and f = a x, at random points."""
    mixture, n = GaussianMixture(WEIGHTS, MEANS, covariances), 2000
    x = points(n, 1.5).requires_grad_()
    t = torch.rand(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64).clamp(0.01, 0.99)
    t.requires_grad_()
    value = -mixture.marginal(process, t).log_prob(x)
    slope, rate = torch.autograd.grad(value.sum(), (x, t), create_graph=True)
    laplacian = sum(torch.autograd.grad(slope[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2))
    a, g = process.drift_coef(t), process.diffusion(t)
    transport = rate + a * (x * slope).sum(1)
    return (transport - g**2 / 2 * (laplacian - slope.square().sum(1))).detach(), (2 * a).detach()


@pytest.mark.parametrize("process", [VP(), SubVP(), VE(0.01, 3.0)], ids=lambda p: type(p).__name__)
def test_minus_log_density_solves_hjb(process):
    residual, divergence = hjb_terms(process, COVARIANCES)
    assert (residual - divergence).abs().max() < 1e-10


def test_hjb_needs_the_divergence_term():
    residual, _ = hjb_terms(VP(), COVARIANCES)
    # the mean of d beta / 2 over uniform t is (0.1 + 20) / 2
    assert residual.abs().mean().item() == pytest.approx(10.05, abs=0.4)

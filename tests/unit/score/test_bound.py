import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from hjbridge.score import bound_by_definition, bound_gap, noise_weights, prior_kl, variational_bound
from hjbridge.sde import DDPM, VE, VP, GaussianMixture

X = torch.linspace(-9, 9, 1201, dtype=torch.float64)
VARIANCE, MEAN = 0.3, 0.5


def gaussian_bound(chain, x0_variance, mean):
    """The bound for one Gaussian: every divergence between Gaussians by its textbook formula."""
    t = torch.arange(len(chain.betas) + 1, dtype=torch.float64) / len(chain.betas)
    a2, s2 = chain.alpha(t) ** 2, chain.sigma(t) ** 2
    moment = x0_variance + mean**2
    prior = 0.5 * (a2[-1] * moment + s2[-1] - 1 - s2[-1].log())
    total = prior
    # Var(x0 | x_k), the error of the exact denoiser
    error = x0_variance * s2 / (a2 * x0_variance + s2)
    for k in range(2, len(t)):
        beta = chain.betas[k - 1]
        tilde = s2[k - 1] / s2[k] * beta
        # the two means differ by alpha_(k-1) beta_k / sigma_k^2 (x0 - D)
        total = total + (a2[k - 1].sqrt() * beta / s2[k]) ** 2 * error[k] / (2 * tilde)
    width = s2[1] / a2[1]
    return total + 0.5 * (math.log(2 * math.pi) + width.log() + error[1] / width)


def test_the_bound_of_a_gaussian_is_the_sum_of_its_divergences():
    chain = DDPM.linear(20, 0.02, 0.5)
    mixture = GaussianMixture([1.0], [[MEAN]], [[[VARIANCE]]])
    bound = variational_bound(chain, mixture, X)
    assert bound.steps.shape == (19,)
    assert bound.total() == pytest.approx(gaussian_bound(chain, VARIANCE, MEAN).item(), rel=1e-9)


def test_every_term_for_a_mixture_is_the_divergence_that_defines_it():
    chain = DDPM.linear(12, 0.02, 0.6)
    mixture = GaussianMixture([0.3, 0.7], [[-2.0], [1.5]], [[[0.25]], [[0.16]]])
    found, direct = (f(chain, mixture, X[::2]) for f in (variational_bound, bound_by_definition))
    assert direct.steps.shape == (11,) and bool((direct.steps > 1e-4).all())
    for term, expected in zip(found, direct, strict=True):
        torch.testing.assert_close(term, expected, rtol=1e-10, atol=1e-12)


def test_the_bound_is_above_the_entropy_and_closes_with_steps_even_in_log_snr():
    mixture = GaussianMixture([0.3, 0.7], [[-2.0], [1.5]], [[[0.25]], [[0.16]]])
    gaps = []
    for n in (40, 80):
        bar = torch.sigmoid(torch.linspace(math.log(1e4), math.log(4e-5), n, dtype=torch.float64))
        gaps.append(bound_gap(bar, mixture, X))
    assert 0 < gaps[1] < gaps[0]
    assert math.log2(gaps[0] / gaps[1]) == pytest.approx(1, abs=0.15)


def test_the_gap_of_a_gaussian_is_the_bound_of_its_chain_less_its_entropy():
    chain, mixture = DDPM.linear(20, 0.02, 0.5), GaussianMixture([1.0], [[MEAN]], [[[VARIANCE]]])
    bar = chain.alpha(torch.arange(1, 21, dtype=torch.float64) / 20) ** 2
    expected = gaussian_bound(chain, VARIANCE, MEAN).item() - math.log(2 * math.pi * math.e * VARIANCE) / 2
    assert bound_gap(bar, mixture, X) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("process", [DDPM.linear(), VP(), VE(sigma_max=2.0)])
def test_what_the_end_loses_is_the_mean_divergence_from_the_prior(process):
    x0 = torch.tensor([-0.7, 0.1, 1.2], dtype=torch.float64)
    ends = Normal(process.alpha(1.0) * x0, process.sigma(1.0))
    expected = kl_divergence(ends, Normal(torch.zeros_like(x0), 1.0)).mean()
    torch.testing.assert_close(prior_kl(process, x0.square().mean().item()), expected, rtol=1e-9, atol=1e-15)


def test_the_weights_on_the_noise_are_those_of_the_published_loss():
    chain = DDPM.linear(50, 0.01, 0.2)
    beta, bar = chain.betas, (1 - chain.betas).cumprod(0)
    tilde = (1 - bar[:-1]) / (1 - bar[1:]) * beta[1:]
    # Ho et al. 2020, eq. 12
    published = beta[1:] ** 2 / (2 * tilde * (1 - beta[1:]) * (1 - bar[1:]))
    torch.testing.assert_close(noise_weights(chain), published)


def test_a_plane_is_refused():
    plane = GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]])
    with pytest.raises(ValueError, match="mixture must be one-dimensional, got 2"):
        variational_bound(DDPM.linear(), plane, X)
    with pytest.raises(ValueError, match="mixture must be one-dimensional, got 2"):
        bound_by_definition(DDPM.linear(), plane, X)

"""Rules of Score-SDE: reverse diffusion, ancestral steps of VE, and a last denoising."""

from itertools import pairwise

import pytest
import torch

from hjbridge.score import sample, time_grid
from hjbridge.score.rules import denoised, sde_dpmpp2m
from hjbridge.sde.mixture import GaussianMixture
from hjbridge.sde.processes import VE, VP, RectifiedFlow, SubVP


@pytest.mark.parametrize("process", [VP(), SubVP(), VE(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_reverse_diffusion_takes_out_the_variance_between_two_levels(mixture, process):
    """In y = x / alpha: y + (s^2 - t^2) score_y + sqrt(s^2 - t^2) z, and the last step is the mean."""
    grid = time_grid(process, 6, ratio_max=30.0)
    x = process.prior_sample((8, 2), torch.Generator().manual_seed(0), t=float(grid[0]), dtype=torch.float64)
    source = torch.Generator().manual_seed(1)
    path = sample(mixture.denoiser(process), x, grid, "reverse_diffusion", generator=source, record=True)
    generator = torch.Generator().manual_seed(1)
    for i, (now, then) in enumerate(pairwise(grid)):
        y, between = x / process.alpha(now), process.ratio(now) ** 2 - process.ratio(then) ** 2
        score = process.alpha(now) * mixture.marginal(process, now).score(x)
        z = torch.randn(x.shape, generator=generator, dtype=torch.float64) if i < 5 else torch.zeros_like(x)
        x = process.alpha(then) * (y + between * score + between.sqrt() * z)
        torch.testing.assert_close(path.states[i + 1], x, rtol=1e-9, atol=1e-9)


def test_reverse_diffusion_tends_to_the_law_of_the_data():
    """Data N(m, v): mean and variance of the samples, at order 1 in the step."""
    mean, v, process, errors = 0.8, 0.4, VP(), []
    law = GaussianMixture([1.0], [[mean]], [[[v]]])
    for steps in (20, 80):
        grid = time_grid(process, steps)
        x1 = law.marginal(process, grid[0]).sample(100_000, torch.Generator().manual_seed(0))
        x = sample(law.denoiser(process), x1, grid, "reverse_diffusion", generator=torch.Generator().manual_seed(1))
        assert abs(x.mean().item() - mean) < 0.01
        errors.append(abs(x.var().item() - v))
    assert errors[1] < 0.4 * errors[0] and errors[1] < 0.06


def test_ancestral_on_ve_is_the_sampler_of_score_matching_with_langevin():
    """Song et al. 2021, appendix F: x + (s^2 - t^2) score + sqrt(t^2 (s^2 - t^2) / s^2) z for sigma from s to t."""
    process = VE()
    law = GaussianMixture([0.4, 0.6], [[-1.0], [1.0]], [[[0.2]], [[0.3]]])
    grid = time_grid(process, 7)
    x = process.prior_sample((50, 1), torch.Generator().manual_seed(0), dtype=torch.float64)
    found = sample(law.denoiser(process), x, grid, "ancestral", generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    for now, then in pairwise(grid):
        s2, t2 = process.sigma2(now), process.sigma2(then)
        z = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x = x + (s2 - t2) * law.marginal(process, now).score(x) + (t2 * (s2 - t2) / s2).sqrt() * z
    torch.testing.assert_close(found, x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rule", ["ancestral", "ddim", sde_dpmpp2m])
def test_a_last_denoising_takes_out_what_noise_is_left(rule):
    v, process = 0.04, VE(sigma_min=0.2)
    law = GaussianMixture([1.0], [[0.0]], [[[v]]])
    grid = time_grid(process, 150)
    x1 = law.marginal(process, grid[0]).sample(40_000, torch.Generator().manual_seed(0))
    rough, clean = (
        sample(law.denoiser(process), x1, grid, r, generator=torch.Generator().manual_seed(1), record=True)
        for r in (rule, denoised(rule))
    )
    assert torch.equal(rough.states[:-1], clean.states[:-1]) and len(clean.states) == 151
    torch.testing.assert_close(clean.x, law.denoiser(process)(rough.x, grid[-1]))
    assert rough.x.var().item() == pytest.approx(v + 0.2**2, rel=0.05)
    assert clean.x.var().item() == pytest.approx(v**2 / (v + 0.2**2), rel=0.05)
    # where nothing is left there is nothing to take out
    grid = time_grid(VP(), 5)
    start = torch.randn(4, 1, dtype=torch.float64)
    pair = [
        sample(law.denoiser(VP()), start, grid, r, generator=torch.Generator().manual_seed(1))
        for r in (rule, denoised(rule))
    ]
    assert torch.equal(*pair)
    with pytest.raises(ValueError, match="rule must be one of ancestral, .* or a function, got 'none'"):
        denoised("none")

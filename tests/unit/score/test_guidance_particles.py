import math
import re

import pytest
import torch

from hjbridge.metrics.distances import energy_distance
from hjbridge.score import time_grid
from hjbridge.score.guidance import Observation, Particles, log_evidence, particle_posterior, posterior
from hjbridge.score.guidance.particles import effective_size, systematic
from hjbridge.sde.mixture import GaussianMixture
from hjbridge.sde.processes import EDM, VE, VP, RectifiedFlow

GAUSSIAN = GaussianMixture([1.0], [[0.5, -1.0, 0.3]], [[[1.0, 0.6, 0.2], [0.6, 0.8, -0.1], [0.2, -0.1, 0.5]]])
MATRIX = torch.tensor([[1.0, -0.5, 0.3], [0.2, 1.0, 0.0]], dtype=torch.float64)
OBSERVATION = Observation(MATRIX, torch.tensor([1.0, -0.3], dtype=torch.float64), 0.3)
PLANE = Observation(torch.tensor([[1.0, 0.5]], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64), 0.2)


def run(data, observation, n, grid, seed=0, process=None, **options):
    generator = torch.Generator().manual_seed(seed)
    return particle_posterior(data.denoiser(process or VP()), observation, n, grid, generator=generator, **options)


@pytest.mark.parametrize("process", [VP(), EDM(), RectifiedFlow()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("steps", [2, 5])
def test_for_gaussian_data_no_step_changes_a_weight_whatever_the_grid(process, steps):
    n, grid = 4000, time_grid(process, steps, ratio_max=50.0)
    particles = run(GAUSSIAN, OBSERVATION, n, grid, process=process)
    assert particles.ess.shape == (steps + 1,) and particles.ess[0] > 0.9 * n
    torch.testing.assert_close(particles.ess, particles.ess[:1].expand(steps + 1), rtol=1e-8, atol=0)
    # the weights that are left are those of the start, N(0, sigma^2 I) in place of alpha^2 C + sigma^2 I
    assert particles.log_evidence.item() == pytest.approx(log_evidence(GAUSSIAN, OBSERVATION).item(), abs=0.02)
    exact, x = posterior(GAUSSIAN, OBSERVATION), particles.x
    spread = exact.covariance.diagonal().sqrt()
    assert ((x.mean(0) - exact.mean) / spread).abs().max() < 0.1
    torch.testing.assert_close(x.T.cov(), exact.covariance, rtol=0, atol=0.07)


def test_a_process_that_keeps_noise_keeps_it_in_the_particles():
    process = VE(sigma_min=0.5)
    grid = time_grid(process, 5, ratio_max=50.0)
    particles = run(GAUSSIAN, OBSERVATION, 4000, grid, process=process)
    torch.testing.assert_close(particles.ess, particles.ess[:1].expand(len(grid)), rtol=1e-8, atol=0)
    exact = posterior(GAUSSIAN, OBSERVATION).marginal(process, 0.0)
    torch.testing.assert_close(particles.x.T.cov(), exact.covariance, rtol=0, atol=0.08)
    assert particles.log_evidence.item() == pytest.approx(log_evidence(GAUSSIAN, OBSERVATION).item(), abs=0.03)


def test_on_a_mixture_particles_reach_the_sampling_floor_and_more_of_them_come_nearer(mixture):
    """Energy distance to the exact posterior, five seeds; the floor is that between two exact samples of the size."""
    grid, exact, errors = time_grid(VP(), 60, "logsnr"), posterior(mixture, PLANE), []
    for n in (64, 256, 1024):
        found = []
        for seed in range(5):
            generator = torch.Generator().manual_seed(seed)
            particles = particle_posterior(mixture.denoiser(VP()), PLANE, n, grid, generator=generator)
            found.append(energy_distance(particles.resample(generator), exact.sample(n, generator)))
        errors.append(sum(found) / 5)
    generator = torch.Generator().manual_seed(0)
    floor = sum(energy_distance(exact.sample(n, generator), exact.sample(n, generator)) for _ in range(20)) / 20
    assert errors[2] < errors[1] / 2 < errors[0] / 4, errors
    assert errors[2] <= 2 * floor, (errors, floor)


def test_the_evidence_is_that_of_the_mixture_within_its_spread(mixture):
    grid, exact = time_grid(VP(), 60, "logsnr"), log_evidence(mixture, PLANE).item()
    found = torch.stack([run(mixture, PLANE, 300, grid, seed).log_evidence for seed in range(8)])
    error = found.std().item() / math.sqrt(len(found))
    assert error < 0.03 and found.exp().mean().log().item() == pytest.approx(exact, abs=4 * error + 0.01)


def test_what_the_sampler_is_wrong_by_falls_with_the_square_of_the_step(mixture):
    """log p(y) of the sampler on a grid less that of the mixture: .10 and .03 at 15 and 30 steps."""
    exact, errors = log_evidence(mixture, PLANE).item(), []
    for steps in (15, 30):
        grid = time_grid(VP(), steps, "logsnr")
        found = torch.stack([run(mixture, PLANE, 4000, grid, seed).log_evidence for seed in range(3)])
        errors.append(found.mean().item() - exact)
    assert errors[0] > 0.05 and 2.5 < errors[0] / errors[1] < 6, errors


def test_particles_are_drawn_anew_where_moments_mislead():
    """An observation that only the smaller of two far components explains: most particles have to be given up."""
    covariance = 0.05 * torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    data = GaussianMixture([0.3, 0.7], [[-2.0, 0.4], [2.0, -0.4]], covariance)
    observation = Observation(torch.tensor([[0.0, 1.0]], dtype=torch.float64), torch.ones(1).double(), 0.1)
    found = [run(data, observation, 2000, time_grid(VP(), 40, "logsnr"), seed) for seed in range(3)]
    assert all(particles.ess.min() < 1000 < particles.ess[-1] for particles in found)
    evidence = sum(particles.log_evidence.item() for particles in found) / 3
    assert evidence == pytest.approx(log_evidence(data, observation).item(), abs=0.1)
    exact = posterior(data, observation)
    for particles in found:
        assert (particles.resample()[:, 0] < 0).double().mean() > 0.99
        weights = particles.log_weights.exp()[:, None]
        mean = (weights * particles.x).sum(0)
        torch.testing.assert_close(mean, exact.mean, rtol=0, atol=0.04)
        spread = (weights * (particles.x - mean) ** 2).sum(0)
        torch.testing.assert_close(spread, exact.covariance.diagonal(), rtol=0.25, atol=0)


def test_what_is_returned(mixture, generator):
    grid = time_grid(VP(), 8)
    particles = particle_posterior(mixture.denoiser(VP()), PLANE, 50, grid, generator=generator)
    assert isinstance(particles, Particles) and particles.x.shape == (50, 2) and particles.x.dtype == torch.float64
    assert particles.log_weights.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert particles.log_evidence.ndim == 0 and not particles.x.requires_grad
    assert particles.ess[-1].item() == pytest.approx(1 / particles.log_weights.exp().square().sum().item())
    again = [run(mixture, PLANE, 50, grid, 3, batch=batch).x for batch in (None, 50, 7)]
    assert torch.equal(again[0], again[1])
    torch.testing.assert_close(again[0], again[2], rtol=1e-10, atol=1e-10)
    assert not torch.equal(again[0], run(mixture, PLANE, 50, grid, 4).x)


def test_images_and_labels(generator):
    seen = []

    class Zero:
        process = VP()

        def __call__(self, x, t, label=None):
            seen.append((tuple(x.shape), label))
            return x / (1 + VP().ratio(t) ** 2) / VP().alpha(t)

    observation = Observation(torch.eye(4, dtype=torch.float64)[:2], torch.ones(2, dtype=torch.float64), 0.1)
    grid = time_grid(VP(), 6)
    options = {"shape": (1, 2, 2), "label": 3, "batch": 5, "generator": generator}
    particles = particle_posterior(Zero(), observation, 8, grid, **options)
    assert particles.x.shape == (8, 1, 2, 2)
    assert [s for s, _ in seen[:2]] == [(5, 1, 2, 2), (3, 1, 2, 2)]
    assert all(torch.equal(label, torch.full((s[0],), 3)) for s, label in seen)
    assert (particles.x.flatten(1)[:, :2] - 1).abs().max() < 0.5


def test_systematic_resampling_draws_each_about_n_times_its_weight(generator):
    weights = torch.rand(200, dtype=torch.float64, generator=generator)
    weights = weights / weights.sum()
    total = torch.zeros(200, dtype=torch.float64)
    for _ in range(400):
        count = torch.bincount(systematic(weights.log() + 5.0, generator), minlength=200)
        assert count.sum() == 200 and ((count - 200 * weights).abs() < 1).all()
        total += count
    # a count is 0 or 1 beyond its floor: its mean over 400 draws has a deviation of at most .025
    assert (total / 400 - 200 * weights).abs().max() < 0.12
    one = torch.tensor([-math.inf, 0.0, -math.inf])
    assert systematic(one, generator).tolist() == [1, 1, 1]


def test_effective_size_counts_equal_weights():
    t = torch.tensor(0.5)
    assert effective_size(torch.full((7,), -900.0, dtype=torch.float64), t) == pytest.approx(7)
    weights = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert effective_size(weights.log() + 3, t) == pytest.approx(1 / (0.25 + 2 / 16))
    for wrong in (-math.inf, math.nan):
        with pytest.raises(FloatingPointError, match=r"not finite, or all zero, at t = 0.5"):
            effective_size(torch.full((3,), wrong), t)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n must be a positive integer, got 0"),
        ({"n": 2.5}, "n must be a positive integer, got 2.5"),
        ({"batch": 0}, "batch must be at least 1 or None, got 0"),
        ({"shape": (1, 3)}, "shape must have the 2 coordinates of the observation, got (1, 3)"),
        ({"grid": [0.1, 0.5]}, "grid must be strictly descending (t = 1 is noise), got 0.1 then 0.5 at position 0"),
        ({"grid": [1.5, 0.5]}, "grid must lie in [0, 1], got 1.5"),
        ({"observation": OBSERVATION}, "x must have shape (n, 2), got (4, 3)"),
        ({"label": 1}, "label must be None: a mixture has no labels"),
    ],
)
def test_bad_input(mixture, change, message):
    options = {"observation": PLANE, "n": 4, "grid": time_grid(VP(), 3)} | change
    with pytest.raises(ValueError, match=re.escape(message)):
        particle_posterior(mixture.denoiser(VP()), **options)


def test_weights_that_are_lost_are_an_error():
    class Wild:
        process = VP()

        def __call__(self, x, t, label=None):
            return 0 * x if t > 0.5 else 1e200 * x

    with pytest.raises(FloatingPointError):
        particle_posterior(Wild(), PLANE, 8, time_grid(VP(), 10))

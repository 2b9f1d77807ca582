"""Bits per dimension, against quadrature and closed forms."""

import math

import pytest
import torch

from hjbridge.score import Denoiser
from hjbridge.score.bits import bits_per_dim
from hjbridge.score.encode import flow_grid
from hjbridge.score.likelihood import log_likelihood
from hjbridge.score.pixels import dequantise
from hjbridge.sde import VP


def wide_denoiser(plain, std, levels=0, mean=0.25, shape=(1, 2, 2)):
    """A network that knows data N(0, 1) per pixel, exactly: D = alpha x with unit sigma_data and F = 0."""
    network = plain(lambda x, level, label: 0 * x)
    return Denoiser(network, VP(), 1.0, shape=shape, pixel_mean=mean, pixel_std=std, grey_levels=levels)


def test_bits_per_dimension_of_a_gaussian_against_quadrature(plain):
    # pixels have N(mean, std^2) for density: E_u -log2 p((k + u)/L) is an integral of a parabola
    process, levels, mean, std = VP(), 17, 0.25, 0.3
    pixels = (torch.arange(16).double() / 16).view(4, 1, 2, 2).repeat(500, 1, 1, 1)
    generator = torch.Generator().manual_seed(0)
    options = {"unit": "bits_per_dim", "levels": levels, "generator": generator}
    bits = log_likelihood(process, wide_denoiser(plain, std), pixels, flow_grid(process, 20), **options).view(500, 4)
    k = torch.arange(16).double().view(4, 4)
    u = (torch.arange(2000).double() + 0.5)[:, None, None] / 2000
    log2_p = torch.distributions.Normal(mean, std).log_prob((k + u) / levels) / math.log(2)
    exact = (-log2_p.mean(0) + math.log2(levels)).mean(1)
    assert ((bits.mean(0) - exact) / (bits.std(0) / 500**0.5)).abs().max() < 4.5
    # and draw by draw: the same u, the density of what they make of the pixels
    u_pixels = dequantise(pixels, levels, torch.Generator().manual_seed(0))
    log2_q = torch.distributions.Normal(mean, std).log_prob(u_pixels).flatten(1).sum(1) / math.log(2)
    torch.testing.assert_close(bits.flatten(), math.log2(levels) - log2_q / 4, rtol=0, atol=1e-3)


def test_bits_of_a_uniform_density_are_the_levels():
    # log p = 0 on [0, 1]^d in pixels is d log std in x = (pixel - mean) / std
    bits = bits_per_dim(torch.tensor([3 * math.log(0.5), 0.0], dtype=torch.float64), 3, 256, 0.5)
    torch.testing.assert_close(bits, torch.tensor([8.0, 7.0], dtype=torch.float64))


def test_levels_come_from_the_denoiser_if_it_knows_them(plain):
    process, pixels, told = VP(), torch.full((2, 1, 2, 2), 0.5, dtype=torch.float64), []
    for trained, levels in ((17, None), (17, 17), (0, 17), (0, None)):
        denoiser, generator = wide_denoiser(plain, 0.3, trained), torch.Generator().manual_seed(0)
        options = {"unit": "bits_per_dim", "levels": levels, "generator": generator, "return_error": True}
        even = pixels if levels or trained else (pixels * 255).floor() / 255
        told.append(log_likelihood(process, denoiser, even, flow_grid(process, 8), **options))
    for bits, error in told[1:3]:
        assert torch.equal(bits, told[0][0]) and torch.equal(error, told[0][1])
    assert (told[3][0] - told[0][0]).mean().item() == pytest.approx(math.log2(256 / 17), abs=0.1)
    nats = log_likelihood(process, wide_denoiser(plain, 0.3), pixels, flow_grid(process, 8), return_error=True)
    # the error is in bits per dimension, too
    assert told[0][1].max() < nats[1].max() + 1 and bits_per_dim(nats[0], 4, 17, 0.3).isfinite().all()


def test_levels_other_than_those_of_the_training_are_refused(plain):
    with pytest.raises(ValueError, match="levels must be 17, on which the denoiser was trained, or None, got 256"):
        log_likelihood(VP(), wide_denoiser(plain, 1.0, 17), torch.zeros(1, 1, 2, 2), unit="bits_per_dim", levels=256)

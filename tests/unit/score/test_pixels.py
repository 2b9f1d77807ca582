import math

import pytest
import torch

from hjbridge.data import load
from hjbridge.score import Denoiser, ResidualMLP
from hjbridge.score.pixels import dequantise, grey_index, quantise
from hjbridge.sde import VP


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_each_grey_value_has_a_bin_of_its_own_and_comes_back(levels, generator):
    k = torch.arange(levels).repeat(500)
    pixels = k / (levels - 1)
    spread = dequantise(pixels, levels, generator)
    assert torch.equal(grey_index(pixels, levels).long(), k) and torch.equal((spread * levels).floor().long(), k)
    assert torch.equal(quantise(spread, levels), pixels)
    # uniform in the bin: mean 1/2 and variance 1/12, to four standard errors
    inside = spread * levels - k
    assert inside.mean().item() == pytest.approx(0.5, abs=4 / math.sqrt(12 * len(k)))
    assert inside.var().item() == pytest.approx(1 / 12, abs=4 * math.sqrt(1 / 180 / len(k)))


def test_noise_is_fresh_for_each_pixel_and_comes_from_the_generator():
    pixels = torch.zeros(3, 1, 2, 2)
    first, again, other = (dequantise(pixels, 17, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len(first.unique()) == 12 and first.dtype == torch.float32
    assert dequantise(torch.ones(100_000), 256).max() < 1


def test_values_outside_go_to_the_nearest_end():
    x = torch.tensor([-3.0, -0.01, 0.0, 0.999, 1.0, 7.0])
    torch.testing.assert_close(quantise(x, 17), torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]))


def test_the_digits_have_seventeen_grey_values():
    pixels = load("digits", "test").pixels()
    assert grey_index(pixels, 17).unique().tolist() == list(range(17))
    with pytest.raises(ValueError, match="pixels must be multiples of 1/15"):
        grey_index(pixels, 16)


@pytest.mark.parametrize(
    ("pixels", "levels", "message"),
    [
        (torch.tensor([0.0, 1.2]), 17, r"pixels must lie in \[0, 1\], got 1.2"),
        (torch.tensor([0.0, -0.5]), 17, r"pixels must lie in \[0, 1\], got -0.5"),
        (torch.tensor([math.nan]), 17, r"pixels must lie in \[0, 1\], got nan"),
        (torch.tensor([0, 1]), 17, "pixels must be floating"),
        (torch.tensor([0.5, 0.3]), 3, "pixels must be multiples of 1/2, got 0.3"),
        (torch.tensor([0.15 / 16]), 17, "pixels must be multiples of 1/16, got 0.009375"),
        (torch.tensor([0.5]), 1, "levels must be at least 2, got 1"),
    ],
)
def test_errors_name_what_is_wrong(pixels, levels, message):
    with pytest.raises(ValueError, match=message):
        dequantise(pixels, levels)


def test_a_denoiser_of_dequantised_pixels_answers_in_grey_values():
    denoiser = Denoiser(ResidualMLP((4,), 8, 1), VP(), pixel_mean=0.3, pixel_std=0.4, grey_levels=5)
    pixels = torch.tensor([[0.0, 0.25, 0.75, 1.0]])
    x = denoiser.from_pixels(pixels)
    # the middles (k + 1/2) / 5 of the bins
    torch.testing.assert_close(0.3 + 0.4 * x, torch.tensor([[0.1, 0.3, 0.7, 0.9]]))
    for shift in (-0.09, 0.0, 0.09):
        torch.testing.assert_close(denoiser.to_pixels(x + shift / 0.4), pixels)
    assert torch.equal(denoiser.to_pixels(x - 0.11 / 0.4)[0, 1:3], torch.tensor([0.0, 0.5]))

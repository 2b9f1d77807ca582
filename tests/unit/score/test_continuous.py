import math

import pytest
import torch

from hjbridge.score.continuous import ContinuousNoisePredictor
from hjbridge.sde import VE, VP, Cosine, SubVP


def points(seed):
    return torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("process", "level"), [(VP(), "time"), (SubVP(), "time"), (VE(), "log_sigma")])
def test_the_denoiser_is_what_is_left_when_the_noise_is_taken_out(plain, process, level):
    x0, noise, t = points(0), points(1), torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    network = plain(lambda x, level, label: noise)
    denoiser, x = ContinuousNoisePredictor(network, process, level), process.perturb(x0, t, noise)
    torch.testing.assert_close(denoiser(x, t), x0, rtol=1e-8, atol=1e-8)
    ((_, told, label),) = network.calls
    expected = 999 * t if level == "time" else process.sigma(t).log()
    torch.testing.assert_close(told, expected)
    assert label is None
    assert torch.equal(denoiser.eps(x, t), noise)
    torch.testing.assert_close(denoiser.score(x, t), -noise / process.sigma(t)[:, None])


def test_labels_types_and_refusals(plain):
    network = plain(lambda x, level, label: x)
    denoiser = ContinuousNoisePredictor(network, VP(), classes=3)
    assert denoiser(points(0).float(), 0.3).dtype == torch.float32
    assert torch.equal(network.calls[-1][2], torch.full((8,), 3))
    with pytest.raises(ValueError, match="level must be one of time, log_sigma, got 'snr'"):
        ContinuousNoisePredictor(network, VP(), "snr")
    with pytest.raises(ValueError, match="x must be finite"):
        denoiser(points(0) * math.inf, 0.3)
    with pytest.raises(ValueError, match="t must have a positive noise scale"):
        ContinuousNoisePredictor(network, VP(), "log_sigma").eps(points(0), 0.0)
    with pytest.raises(ValueError, match=r"t must have alpha\(t\) > 0, got t = 1"):
        ContinuousNoisePredictor(network, Cosine())(points(0), 1.0)

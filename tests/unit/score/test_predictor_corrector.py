import math

import pytest
import torch

from hjbridge.metrics import energy_distance
from hjbridge.score import predictor_corrector, sample, time_grid
from hjbridge.score.predictor_corrector import PREDICTORS, langevin
from hjbridge.sde import VE, VP, GaussianMixture, SubVP


def source(seed=0):
    return torch.Generator().manual_seed(seed)


class Counted:
    """A denoiser that counts its evaluations and keeps their times."""

    def __init__(self, denoiser):
        self.denoiser, self.process, self.times = denoiser, denoiser.process, []

    def __call__(self, x, t, label=None):
        self.times.append(float(t))
        return self.denoiser(x, t, label)


def test_the_step_is_twice_the_square_of_ratio_times_noise_over_score():
    x = torch.tensor([[1.0, 2.0], [0.0, -1.0]], dtype=torch.float64)
    score = torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64)  # lengths 5 and 1: mean 3
    z = torch.randn(2, 2, dtype=torch.float64, generator=source(4))
    length = (math.hypot(*z[0].tolist()) + math.hypot(*z[1].tolist())) / 2
    h = 2 * (0.3 * length / 3) ** 2
    expected = x + h * score + math.sqrt(2 * h) * z
    torch.testing.assert_close(langevin(x, score, 0.3, source(4)), expected, rtol=1e-12, atol=1e-12)


def test_the_step_leaves_a_gaussian_alone_but_for_its_square():
    """N(0, v) becomes N(0, v (1 + h^2/v^2)); with |z| and |score| near their means, h = 2 r^2 v in any dimension."""
    v, ratio, d = 0.5, 0.4, 50
    x = v**0.5 * torch.randn(20_000, d, dtype=torch.float64, generator=source(1))
    after = langevin(x, -x / v, ratio, source(2))
    h = 2 * ratio**2 * v
    assert after.var().item() == pytest.approx(v * (1 + h**2 / v**2), rel=5e-3)
    assert abs(after.var().item() - v * (1 + h / v)) > 0.02


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_without_corrector_it_is_the_predictor_bit_for_bit(mixture, predictor):
    for process in (VP(), VE()):
        grid = time_grid(process, 8)
        x = process.prior_sample((16, 2), source(), t=float(grid[0]), dtype=torch.float64)
        pair = [
            sample(mixture.denoiser(process), x, grid, rule, generator=source(1), record=True).states
            for rule in (predictor, predictor_corrector(predictor, 0))
        ]
        assert torch.equal(*pair)


@pytest.mark.parametrize("steps", [1, 2])
def test_it_corrects_at_the_new_level_and_not_at_the_last(mixture, steps):
    denoiser = Counted(mixture.denoiser(VP()))
    grid = time_grid(VP(), 5)
    x = torch.randn(16, 2, dtype=torch.float64, generator=source())
    path = sample(denoiser, x, grid, predictor_corrector("ddim", steps, 0.2), generator=source(1), record=True)
    expected = [grid[0].item()]
    for t in grid[1:-1].tolist():
        expected += [t] * (steps + 1)
    assert denoiser.times == expected
    # by hand
    generator, y = source(1), x
    for i in range(5):
        y = sample(mixture.denoiser(VP()), y, grid[i : i + 2], "ddim")
        for _ in range(steps if i < 4 else 0):
            y = langevin(y, mixture.marginal(VP(), grid[i + 1]).score(y), 0.2, generator)
        torch.testing.assert_close(path.states[i + 1], y, rtol=1e-9, atol=1e-9)


def test_its_name_has_the_published_settings(mixture):
    grid, x = time_grid(SubVP(), 6), torch.randn(16, 2, dtype=torch.float64, generator=source())
    named, built = (
        sample(mixture.denoiser(SubVP()), x, grid, rule, generator=source(1))
        for rule in ("predictor_corrector", predictor_corrector("ancestral", 1, 0.16))
    )
    assert torch.equal(named, built)


def test_corrections_lead_any_start_to_the_law_of_the_level(mixture):
    """Langevin dynamics forgets where it began: from a wrong law to the distance of two exact draws."""
    law, generator = mixture.marginal(VP(), 0.3), source(1)
    x = torch.randn(1500, 2, dtype=torch.float64, generator=generator) * 0.3 + 2
    distances = []
    for step in range(241):
        if step in (0, 240):
            distances.append(energy_distance(x, law.sample(1500, source(2))))
        x = langevin(x, law.score(x), 0.16, generator)
    floor = energy_distance(law.sample(1500, source(3)), law.sample(1500, source(4)))
    assert distances[0] > 100 * floor and distances[1] < 4 * floor + 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"predictor": "dpmpp2m"},
            "predictor must be one of ancestral, reverse_diffusion, ddim, euler, heun, got 'dpmpp2m'",
        ),
        ({"corrector_steps": -1}, "corrector_steps must be a whole number, at least 0, got -1"),
        ({"corrector_steps": 0.5}, "corrector_steps must be a whole number, at least 0, got 0.5"),
        ({"signal_to_noise": 0.0}, "signal_to_noise must be positive and finite, got 0.0"),
        ({"signal_to_noise": -0.1}, "signal_to_noise must be positive and finite, got -0.1"),
        ({"signal_to_noise": math.nan}, "signal_to_noise must be positive and finite, got nan"),
    ],
)
def test_errors_name_what_is_wrong(settings, message):
    with pytest.raises(ValueError, match=message):
        predictor_corrector(**settings)


def test_a_score_that_vanishes_has_no_step():
    law = GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    grid = time_grid(VP(), 4)
    with pytest.raises(FloatingPointError, match="score must not vanish for all samples"):
        sample(law.denoiser(VP()), torch.zeros(3, 1, dtype=torch.float64), grid, predictor_corrector("ddim"))


def test_a_small_score_has_a_large_step():
    x, score = torch.zeros(3, 2, dtype=torch.float64), torch.full((3, 2), 1e-3, dtype=torch.float64)
    z = torch.randn(3, 2, dtype=torch.float64, generator=source(7))
    h = 2 * (0.1 * z.norm(dim=1).mean() / (1e-3 * math.sqrt(2))) ** 2
    torch.testing.assert_close(langevin(x, score, 0.1, source(7)), h * score + (2 * h).sqrt() * z)

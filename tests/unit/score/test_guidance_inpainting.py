import math
import re

import pytest
import torch

from hjbridge.metrics.distances import energy_distance
from hjbridge.score import sample, time_grid
from hjbridge.score.guidance import Observation, posterior, replacement
from hjbridge.score.rules import ddim
from hjbridge.sde.processes import VE, VP

PROCESS = VP()
MASK = torch.tensor([True, False])
KNOWN = torch.tensor([0.3, math.nan], dtype=torch.float64)


def start(n, grid, generator, process=PROCESS):
    return process.prior_sample((n, 2), generator, t=float(grid[0]), dtype=torch.float64)


@pytest.mark.parametrize("rule", ["ancestral", "ddim", "euler", "heun"])
def test_known_coordinates_end_as_they_were_given(mixture, generator, rule):
    grid = time_grid(PROCESS, 12)
    x1 = start(20, grid, generator)
    x = sample(mixture.denoiser(PROCESS), x1, grid, replacement(KNOWN, MASK, rule), generator=generator)
    assert torch.equal(x[:, 0], KNOWN[0].expand(20)) and x[:, 1].std() > 0.1
    each = torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None].expand(20, 2)
    x = sample(mixture.denoiser(PROCESS), x1, grid, replacement(each, MASK, rule), generator=generator)
    assert torch.equal(x[:, 0], each[:, 0])


def test_with_nothing_to_replace_in_sight_it_is_the_rule_itself(mixture):
    """The unknown coordinate of independent ones does not see the known one."""

    class Separate:
        process = PROCESS

        def __call__(self, x, t, label=None):
            return 0.5 * x

    grid = time_grid(PROCESS, 8)
    x1 = start(6, grid, torch.Generator().manual_seed(1))
    filled = sample(Separate(), x1, grid, replacement(KNOWN, MASK, "ddim"))
    torch.testing.assert_close(filled[:, 1], sample(Separate(), x1, grid, "ddim")[:, 1])


class Watch:
    """A rule that forgets: it keeps what it is given and steps to zero."""

    def __init__(self):
        self.given, self.grids = [], []

    def __call__(self, denoise, process, x, grid, generator=None):
        self.given.append(x)
        self.grids.append(grid)
        yield torch.zeros_like(x)


@pytest.mark.parametrize("process", [VP(), VE(sigma_min=0.1)], ids=lambda p: type(p).__name__)
def test_what_a_step_is_given(mixture, process):
    """Known: N(alpha known, sigma^2); unknown, after a step to zero is undone: N(0, alpha_s^2 (r_s^2 - r_t^2))."""
    grid = process.time_of(torch.tensor([3.0, 2.0, 0.5], dtype=torch.float64))
    watch, n = Watch(), 50_000
    generator = torch.Generator().manual_seed(0)
    path = sample(
        mixture.denoiser(process), start(n, grid, generator, process), grid,
        replacement(KNOWN, MASK, watch, 3), generator=generator, record=True,
    )  # fmt: skip
    assert [float(g[0]) for g in watch.grids] == [float(grid[0])] * 3 + [float(grid[1])] * 3
    assert all(torch.equal(g, grid[i : i + 2]) for g, i in zip(watch.grids, (0, 0, 0, 1, 1, 1), strict=True))
    r = process.ratio(grid).tolist()
    for call, x in enumerate(watch.given):
        i = call // 3
        alpha, sigma = process.alpha(grid[i]).item(), process.sigma(grid[i]).item()
        assert x[:, 0].mean().item() == pytest.approx(alpha * 0.3, abs=5 * sigma / math.sqrt(n))
        assert x[:, 0].std().item() == pytest.approx(sigma, rel=0.02)
        # the very first unknown coordinates are the noise that was given, the first of the second step are zero
        unknown = {0: sigma, 3: 0.0}.get(call, alpha * math.sqrt(r[i] ** 2 - r[i + 1] ** 2))
        assert x[:, 1].std().item() == pytest.approx(unknown, rel=0.02)
    for i, x in enumerate(path.states[1:], 1):
        alpha, sigma = process.alpha(grid[i]).item(), process.sigma(grid[i]).item()
        assert x[:, 0].mean().item() == pytest.approx(alpha * 0.3, abs=5 * sigma / math.sqrt(n))
        assert x[:, 0].std().item() == pytest.approx(sigma, rel=0.02)
        assert torch.equal(x[:, 1], torch.zeros(n, dtype=torch.float64))
    # fresh noise each time
    assert torch.corrcoef(torch.stack([watch.given[0][:, 0], watch.given[3][:, 0]]))[0, 1].abs() < 0.03


def test_a_step_without_noise_is_made_once(mixture, generator):
    watch, grid = Watch(), time_grid(PROCESS, 5)
    sample(mixture.denoiser(PROCESS), start(2, grid, generator), grid, replacement(KNOWN, MASK, watch, 4))
    assert len(watch.given) == 4 * 4 + 1


def test_its_bias_is_large_and_repetitions_reduce_it(mixture):
    """Energy distance to the exact posterior in units of that between two exact samples: some 2000, and 500 with 4."""
    n, grid = 1000, time_grid(PROCESS, 40)
    exact = posterior(mixture, Observation.pixels(MASK, KNOWN.nan_to_num(), 1e-2))
    errors = {1: [], 4: []}
    floors = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        first, second = (exact.sample(n, generator) for _ in range(2))
        floors.append(energy_distance(first, second))
        for resample, found in errors.items():
            rule = replacement(KNOWN, MASK, resample=resample)
            x = sample(mixture.denoiser(PROCESS), start(n, grid, generator), grid, rule, generator=generator)
            found.append(energy_distance(x, first))
    once, often = (sum(found) / sum(floors) for found in errors.values())
    assert once > 300 and 30 < often < once / 2, (once, often)


def test_images_keep_their_shape(generator):
    class Zero:
        process = PROCESS

        def __call__(self, x, t, label=None):
            return 0 * x

    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, :2] = True
    grid = time_grid(PROCESS, 3)
    x = sample(Zero(), torch.randn(3, 1, 4, 4, generator=generator), grid, replacement(torch.ones(1, 4, 4), mask))
    assert x.shape == (3, 1, 4, 4) and torch.equal(x[:, mask], torch.ones(3, 8)) and not x[:, ~mask].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": MASK.double()}, "mask must be boolean, got torch.float64"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, "mask must have the shape of one sample, (2,), got (3,)"),
        ({"mask": ~MASK & MASK}, "mask must be True somewhere"),
        ({"known": torch.zeros(2, 2, 2)}, "known must have shape (2,) or (n, ...) of it, got (2, 2, 2)"),
        ({"known": torch.zeros(2, dtype=torch.int64)}, "known must be floating"),
        ({"known": KNOWN * math.inf}, "known must be finite where the mask is True, got NaN or infinity"),
        ({"known": KNOWN.flip(0)}, "known must be finite where the mask is True, got NaN or infinity"),
        ({"rule": "dpmpp2m"}, "a function without memory, got 'dpmpp2m'"),
        ({"rule": "sde_dpmpp2m"}, "a function without memory, got 'sde_dpmpp2m'"),
        ({"rule": "repaint"}, "or a function without memory, got 'repaint'"),
        ({"rule": None}, "or a function without memory, got None"),
        ({"resample": 0}, "resample must be a positive integer, got 0"),
        ({"resample": 1.5}, "resample must be a positive integer, got 1.5"),
    ],
)
def test_bad_input(change, message):
    options = {"known": KNOWN, "mask": MASK, "rule": ddim, "resample": 1} | change
    with pytest.raises(ValueError, match=re.escape(message)):
        replacement(**options)


def test_samples_of_another_shape_are_refused(mixture, generator):
    grid = time_grid(PROCESS, 3)
    x1 = start(4, grid, generator)
    with pytest.raises(ValueError, match=r"mask must have the shape of one sample, \(2,\), got \(3,\)"):
        wide = torch.zeros(3, dtype=torch.float64)
        sample(mixture.denoiser(PROCESS), x1, grid, replacement(wide, torch.ones(3, dtype=torch.bool)))
    with pytest.raises(ValueError, match="known must be one sample or one for each of 4, got 3"):
        sample(mixture.denoiser(PROCESS), x1, grid, replacement(KNOWN.expand(3, 2), MASK))

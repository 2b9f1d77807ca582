import math

import pytest
import torch

from hjbridge.score import time_grid
from hjbridge.score.grid import KINDS
from hjbridge.sde.processes import DDPM, EDM, VE, VP, Cosine, RectifiedFlow, SubVP

PROCESSES = [VP(), SubVP(), VE(), EDM(), Cosine(), RectifiedFlow(), DDPM.linear()]


def names(value):
    return value if isinstance(value, str) else type(value).__name__


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("process", PROCESSES, ids=names)
def test_every_grid_descends_strictly_to_zero_and_starts_at_a_finite_ratio(process, kind):
    for n in (1, 2, 7, 1000):
        grid = time_grid(process, n, kind)
        assert grid.shape == (n + 1,) and grid.dtype == torch.float64
        assert (grid.diff() < 0).all() and grid[-1] == 0 and grid[0] <= 1
        assert process.ratio(grid[0]).isfinite()


@pytest.mark.parametrize("process", [VP(), EDM(), Cosine(), RectifiedFlow(), DDPM.linear()], ids=names)
def test_karras_levels_are_those_of_the_paper(process):
    n, rho = 5, 7.0
    grid = time_grid(process, n)
    # the range is cut where the process ends
    top = min(160.0, process.ratio(1.0).item())
    for i in range(n):
        level = (top ** (1 / rho) + i / (n - 1) * (0.02 ** (1 / rho) - top ** (1 / rho))) ** rho
        assert process.ratio(grid[i]).item() == pytest.approx(level, rel=1e-12)


def test_karras_takes_its_range_and_exponent():
    ratio = RectifiedFlow().ratio(time_grid(RectifiedFlow(), 3, ratio_max=40.0, ratio_min=0.1, rho=2.0))
    expected = [40.0, ((math.sqrt(40) + math.sqrt(0.1)) / 2) ** 2, 0.1, 0.0]
    torch.testing.assert_close(ratio, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_logsnr_levels_are_geometric():
    ratio = VP().ratio(time_grid(VP(), 4, "logsnr", ratio_max=8.0, ratio_min=0.008))
    torch.testing.assert_close(
        ratio[:4], torch.tensor([8.0, 0.8, 0.08, 0.008], dtype=torch.float64), rtol=1e-10, atol=0
    )


def test_uniform_takes_equal_steps_of_time_from_the_largest_ratio():
    grid = time_grid(RectifiedFlow(), 4, "uniform", ratio_max=40.0)
    expected = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0], dtype=torch.float64) * 40 / 41
    torch.testing.assert_close(grid, expected, rtol=1e-15, atol=0)


def test_ddpm_on_a_chain_takes_whole_steps_of_it():
    chain = DDPM.linear()
    assert time_grid(chain, 1000, "ddpm").mul(1000).tolist() == list(range(1000, -1, -1))
    assert time_grid(chain, 4, "ddpm").tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert time_grid(DDPM([0.1, 0.2, 0.3, 0.4]), 3, "ddpm").tolist() == [1.0, 0.75, 0.25, 0.0]
    with pytest.raises(ValueError, match="n must be at most the 4 steps of the chain, got 5"):
        time_grid(DDPM([0.1, 0.2, 0.3, 0.4]), 5, "ddpm")


def test_ddpm_on_another_process_has_the_levels_of_the_chain():
    chain = DDPM.linear()
    expected = chain.ratio(time_grid(chain, 10, "ddpm"))
    torch.testing.assert_close(Cosine().ratio(time_grid(Cosine(), 10, "ddpm")), expected, rtol=1e-9, atol=1e-12)
    # VP reaches less noise than the chain: it starts at its own end, and the chain's steps are equal from there
    vp = VP()
    grid = time_grid(vp, 10, "ddpm")
    assert grid[0] == pytest.approx(1.0, abs=1e-12)
    steps = chain.time_of(vp.ratio(grid))
    torch.testing.assert_close(steps.diff(), -steps[0].expand(10) / 10, rtol=1e-9, atol=0)
    # VE ends with noise: the chain's steps are equal down to it
    steps = chain.time_of(VE().ratio(time_grid(VE(), 10, "ddpm")))
    torch.testing.assert_close(steps.diff(), ((steps[-1] - steps[0]) / 10).expand(10), rtol=1e-9, atol=0)


def test_a_process_that_ends_with_noise_ends_there():
    ve = VE(sigma_min=0.05, sigma_max=50.0)
    ratio = ve.ratio(time_grid(ve, 3, "logsnr", ratio_max=50.0))
    torch.testing.assert_close(ratio, torch.tensor([50.0, 5.0, 0.5, 0.05], dtype=torch.float64), rtol=1e-12, atol=0)
    # with less noise at the end than ratio_min, the last step goes from there to t = 0
    ratio = ve.ratio(time_grid(ve, 3, "logsnr", ratio_max=50.0, ratio_min=0.5))
    torch.testing.assert_close(ratio, torch.tensor([50.0, 5.0, 0.5, 0.05], dtype=torch.float64), rtol=1e-12, atol=0)


def test_the_range_is_cut_to_what_the_process_reaches():
    assert time_grid(VP(), 3, ratio_max=math.inf)[0] == pytest.approx(1.0, abs=1e-14)
    assert EDM(10.0).ratio(time_grid(EDM(10.0), 3))[0] == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "cosine"}, "kind must be one of karras, uniform, ddpm, logsnr, got 'cosine'"),
        ({"n": 0}, "n must be a positive integer, got 0"),
        ({"n": 2.5}, "n must be a positive integer, got 2.5"),
        ({"ratio_min": 190.0}, "ratio_min must satisfy 0 < ratio_min < ratio_max = 160.0, got 190.0"),
        ({"ratio_min": 0.0}, "ratio_min must satisfy 0 < ratio_min"),
        ({"ratio_max": math.nan}, "ratio_min must satisfy"),
        ({"rho": 0.0}, "rho must be positive, got 0.0"),
        ({"ratio_max": math.inf}, "ratio_max must be finite for RectifiedFlow, got inf"),
        ({"process": VE(sigma_min=1.0), "ratio_max": 0.5}, "ratio_max must exceed 1 for VE, got 0.5"),
    ],
)
def test_bad_arguments_are_named(options, message):
    arguments = {"process": RectifiedFlow(), "n": 5} | options
    with pytest.raises(ValueError, match=message):
        time_grid(arguments.pop("process"), arguments.pop("n"), **arguments)

"""The training loop with Score-SDE's processes, times and pixels, and the published configurations."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny import MLP, Nothing, Seen, run

from hjbridge.data.images import Images
from hjbridge.ledger.freshness import stale_checkpoint
from hjbridge.score import load
from hjbridge.score.checkpoint import PROCESSES, read
from hjbridge.sde import VE
from hjbridge.training.loop import batch_loss
from hjbridge.training.recipes import RECIPES


@pytest.mark.parametrize("process", ["vp", "subvp", "ve"])
def test_times_may_be_uniform_and_pixels_spread_over_their_bins(monkeypatch, process):
    """Song et al. 2021: t uniform, |eps - eps_theta|^2; each pixel k / levels is moved by u / levels anew."""
    seen, denoiser = Seen(monkeypatch), Nothing()
    denoiser.process, denoiser.pixel_std = PROCESSES[process](), 0.25
    images = torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 1, 2, 2)
    recipe = dataclasses.replace(RECIPES[f"digits-{process}"], batch=4000, grey_levels=10)
    for step in (0, 1):
        batch_loss(recipe, denoiser, images, torch.arange(5), step)
    for x0, label, options in seen.calls:
        spread = (x0 - label[:, None, None, None]) * 10 * 0.25
        assert spread.min() > -1e-5 and spread.max() < 1 + 1e-5 and len(x0[:, 0, 0, 0].unique()) > 3900
        assert spread.mean().item() == pytest.approx(0.5, abs=4 / math.sqrt(12 * 16_000))
        t = options["t"]
        assert options["weighting"] == "eps" and t.diff().min() > 0 and t.mean() == pytest.approx(0.5, abs=5e-3)
        assert denoiser.process.ratio(t.min()) >= 0.99e-3
    assert not torch.equal(seen.calls[0][0], seen.calls[1][0])


def test_a_recipe_s_process_and_grey_levels_reach_the_denoiser(tmp_path, data):
    recipe = dataclasses.replace(MLP, process="ve", grey_levels=256, times="uniform", prediction="velocity")
    denoiser = load(run(recipe, data, tmp_path / "own.safetensors"))
    assert denoiser.process == VE() and denoiser.grey_levels == 256 and denoiser.level == "angle"
    # the law of (k + u) / 256: mean and variance of k, and of u
    k = data.images.astype(float)
    assert denoiser.pixel_mean == pytest.approx((k.mean() + 0.5) / 256, rel=1e-6)
    assert denoiser.pixel_std == pytest.approx(math.sqrt(k.var(ddof=1) + 1 / 12) / 256, rel=1e-6)


@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
def test_the_paper_configurations_of_score_sde_take_three_steps(tmp_path, name):
    """The settings of Song et al. 2021, with a sixteenth of the channels and two blocks, on random images."""
    paper, deep = RECIPES[f"paper-{name}"], RECIPES[f"paper-{name}-deep"]
    assert (paper.batch, paper.rate, paper.warmup, paper.steps, deep.steps) == (128, 2e-4, 5000, 1_300_001, 950_001)
    assert paper.flip and not paper.conditional and not paper.decay and paper.ema == (0.999 if name == "ve" else 0.9999)
    assert (paper.weighting, paper.times, paper.process) == ("eps", "uniform", name)
    assert (paper.settings["blocks"], deep.settings["blocks"]) == (4, 8) and paper.settings["dropout"] == 0.1
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)
    data = Images(images, np.zeros(8, dtype=np.int64), "cifar10")
    small = paper.settings | {"channels": 8, "multipliers": (1, 2), "blocks": 2, "attention": (8,)}
    out = run(dataclasses.replace(paper, steps=3, batch=4, settings=small), data, tmp_path / "paper.safetensors")
    header, denoiser = read(out)[1], load(out)
    # the network starts at zero: the loss is that of the noise itself
    assert header["loss"] == pytest.approx(1, abs=0.1) and denoiser.process == PROCESSES[name]()
    scale = (0.0, 1.0) if name == "ve" else (0.5, 0.5)
    assert (header["spec"]["pixel_mean"], header["spec"]["pixel_std"]) == scale
    assert denoiser.level == ("log_sigma" if name == "ve" else "time")
    assert "hjbridge.score.ncsnpp" in header["modules"] and stale_checkpoint(out) == []

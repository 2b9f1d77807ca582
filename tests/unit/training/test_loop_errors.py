"""What stops a training run: a loss or gradient that is not finite, and recipes that cannot be."""

import dataclasses
import math

import numpy as np
import pytest
from tiny import MLP, run

import hjbridge.training.loop
from hjbridge.score.checkpoint import read
from hjbridge.training.recipes import DIGITS

# ---- the schedule, the average and the step


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_old_checkpoint(tmp_path, data, monkeypatch):
    out = run(MLP, data, tmp_path / "own.safetensors")
    before, loss = out.read_bytes(), hjbridge.training.loop.batch_loss

    def burst(recipe, denoiser, images, labels, step):
        return loss(recipe, denoiser, images, labels, step) * (math.nan if step == 5 else 1)

    monkeypatch.setattr(hjbridge.training.loop, "batch_loss", burst)
    with pytest.raises(FloatingPointError, match="loss is nan at step 5: lower recipe.rate = 0.002"):
        run(MLP, data, out, save_every=2)
    assert out.read_bytes() == before and read(tmp_path / "own.safetensors.state")[1]["step"] == 4


def test_a_rate_that_is_too_high_is_told(tmp_path, data):
    with pytest.raises(FloatingPointError, match=r"at step \d+: lower recipe.rate = 1e\+30"):
        run(dataclasses.replace(MLP, rate=1e30), data, tmp_path / "own.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path, data, monkeypatch):
    def edge(recipe, denoiser, *rest):
        return sum(p.sum() for p in denoiser.parameters()).mul(0).sqrt()

    monkeypatch.setattr(hjbridge.training.loop, "batch_loss", edge)
    with pytest.raises(FloatingPointError, match="gradient is not finite at step 0: lower recipe.rate = 0.002"):
        run(MLP, data, tmp_path / "own.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch": -1}, "batch must be at least 1, got -1"),
        ({"rate": 0.0}, "rate must be positive, got 0.0"),
        ({"rate": math.nan}, "rate must be positive, got nan"),
        ({"clip": 0.0}, "clip must be positive, got 0.0"),
        ({"levels": (0.2, 0.0)}, "levels[1] must be positive, got 0.0"),
        ({"warmup": -1}, "warmup must not be negative, got -1"),
        ({"ema": 1.0}, "ema must lie in [0, 1), got 1.0"),
        ({"ema": -0.1}, "ema must lie in [0, 1), got -0.1"),
        ({"times": "even"}, "times must be levels or uniform, got 'even'"),
        (
            {"prediction": "noise", "process": "ve"},
            "process, weighting, times and grey_levels must be left alone with noise, got ('ve', 'edm', 'levels', 0)",
        ),
        ({"storage": "float8"}, "storage must be float16 or float32, got 'float8'"),
    ],
)
def test_a_bad_recipe_is_named(change, message):
    with pytest.raises(ValueError) as caught:
        dataclasses.replace(DIGITS, **change)
    assert message in str(caught.value)


def test_an_unknown_network_or_prediction_is_named(tmp_path, data):
    for change in ({"network": "vit"}, {"prediction": "x0"}):
        with pytest.raises(ValueError, match=f"must be .* got '{next(iter(change.values()))}'"):
            run(dataclasses.replace(MLP, **change), data, tmp_path / "own.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_steps_that_are_no_steps_are_refused(tmp_path, data):
    for name in ("save_every", "stop_after"):
        with pytest.raises(ValueError, match=r"save_every and stop_after must be at least 1, got .*\b0\b"):
            run(MLP, data, tmp_path / "own.safetensors", **{name: 0})
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_already_further_stays_where_it_is(tmp_path, data):
    out = tmp_path / "own.safetensors"
    state = run(MLP, data, out, stop_after=4)
    before = state.read_bytes()
    assert run(MLP, data, out, stop_after=3) == state and state.read_bytes() == before


def test_images_of_one_grey_level_are_refused(tmp_path, data):
    blank = dataclasses.replace(data, images=np.full_like(data.images, 7))
    with pytest.raises(ValueError, match="data must hold more than one grey level, got 0.02"):
        run(MLP, blank, tmp_path / "own.safetensors")

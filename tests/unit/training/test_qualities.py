import pytest

from hjbridge.metrics import coverage
from hjbridge.score import load
from hjbridge.training.evaluate import draw, proportional_labels, quality_of, reference
from hjbridge.training.qualities import qualities


def test_each_entry_is_the_quality_with_its_own_denoiser_and_seed():
    models = [load("digits"), load("digits-1")]
    found = qualities(models, "digits", "ddim", 2, n=20, seeds=(4, 5), guidance=0.5)
    alone = quality_of(models[1], "digits", "ddim", 2, n=20, seed=5, guidance=0.5)
    assert (found.fd[1], found.kid[1], found.accuracy[1], found.nearest[1]) == (
        alone.fd, alone.kid, alone.accuracy, alone.nearest,
    )  # fmt: skip
    assert found.fd[0] == quality_of(models[0], "digits", "ddim", 2, n=20, seed=4, guidance=0.5).fd
    real = reference("digits")
    pixels = draw(models[0], proportional_labels(real.train_labels, 20), "ddim", 2, seed=4, guidance=0.5)
    assert found.coverage[0] == coverage(pixels, real.train, real.test)
    assert found.how == {"n": 20, "seeds": (4, 5), "protocol": found.protocol}
    assert "20 samples of digits by ddim with 2 steps, guidance 0.5; 2 training and 2 sampling" in found.protocol


def test_one_denoiser_drawn_twice_has_one_training_seed():
    found = qualities([load("digits")] * 2, "digits", "ddim", 1, n=10, seeds=(0, 1))
    assert "1 training and 2 sampling seeds" in found.protocol


def test_a_seed_for_each_denoiser():
    with pytest.raises(ValueError, match="seeds must be one for each denoiser, got 1 for 2"):
        qualities([None, None], "digits", n=10, seeds=(0,))

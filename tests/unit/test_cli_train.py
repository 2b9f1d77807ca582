"""`hjbridge train` on pictures of one's own: from a folder or an npz file to a denoiser that samples."""

import numpy as np
import pytest
import torch
from PIL import Image

from hjbridge.cli import main
from hjbridge.score import load, sample, time_grid


def call(*words):
    """Exit code of a command."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return int(end.value.code or 0)


@pytest.fixture
def flowers(tmp_path):
    """Twelve coloured pictures of different sizes, of two kinds."""
    values = np.random.RandomState(0)
    for kind in ("rose", "tulip"):
        (tmp_path / "flowers" / kind).mkdir(parents=True)
        for k in range(6):
            picture = Image.fromarray(values.randint(0, 256, (10 + k, 14, 3)).astype(np.uint8))
            picture.save(tmp_path / "flowers" / kind / f"{k}.png")
    return tmp_path / "flowers"


def drawn(denoiser, label=None):
    """Three samples in 3 steps, as pixels."""
    generator, grid = torch.Generator().manual_seed(0), time_grid(denoiser.process, 3)
    start = denoiser.process.prior_sample((3, *denoiser.shape), generator, t=float(grid[0]))
    return denoiser.to_pixels(sample(denoiser, start, grid, label=label))


def test_a_folder_of_pictures_becomes_a_denoiser(flowers, tmp_path, capsys):
    out = tmp_path / "own.safetensors"
    assert call("train", "mnist", "--images", flowers, "--size", 8, "--steps", 3, "--out", out) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["own.safetensors"]
    denoiser = load(out)
    assert denoiser.shape == (3, 8, 8) and denoiser.classes == 2
    recipe = denoiser.header["recipe"]
    assert (recipe["data"], recipe["steps"], recipe["full"]) == ("flowers", 3, False) and denoiser.header[
        "images"
    ] == 12
    pixels = np.stack([np.asarray(Image.open(path)).mean() for path in flowers.rglob("*.png")])
    assert denoiser.header["spec"]["pixel_mean"] == pytest.approx(pixels.mean() / 255, abs=0.02)
    images = drawn(denoiser, torch.tensor([0, 1, 1]))
    assert images.shape == (3, 3, 8, 8) and bool(images.isfinite().all())


def test_an_npz_file_serves_as_well(tmp_path):
    np.savez(tmp_path / "own.npz", images=np.random.RandomState(0).randint(0, 256, (9, 8, 8)).astype(np.uint8))
    out = tmp_path / "own.safetensors"
    assert call("train", "digits", "--images", tmp_path / "own.npz", "--steps", 2, "--seed", 4, "--out", out) == 0
    denoiser = load(out)
    assert denoiser.shape == (1, 8, 8) and denoiser.header["recipe"]["seed"] == 4
    assert drawn(denoiser).shape == (3, 1, 8, 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--images", "{flowers}", "--size", "8"), "out must name a file with --images"),
        (("--images", "{flowers}", "--out", "{out}"), "size must be given, because the pictures in"),
        (("--images", "{flowers}", "--size", "0", "--out", "{out}"), "size must be at least 1, got 0"),
        (("--images", "{flowers}", "--size", "10", "--out", "{out}"), "size must be a multiple of 4"),
        (("--images", "{flowers}", "--size", "8", "--steps", "0", "--out", "{out}"), "steps must be at least 1, got 0"),
        (("--images", "{flowers}", "--size", "8", "--out", "{out}.pt"), "out must end in .safetensors, got"),
        (("--images", "{flowers}/none", "--out", "{out}"), "path must be an existing folder or npz file, got"),
        (("--images", "{flowers}/rose/0.png", "--out", "{out}"), "must be a whole npz file with an array 'images'"),
        (("--size", "8", "--out", "{out}"), "size goes with --images, got 8 without"),
    ],
)
def test_what_cannot_be_used_is_told_and_nothing_is_written(flowers, tmp_path, capsys, words, message):
    out = tmp_path / "own.safetensors"
    assert call("train", "mnist", *(word.format(flowers=flowers, out=out) for word in words)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["flowers"]


def test_a_harmed_state_of_an_interrupted_run_is_named(flowers, tmp_path, capsys):
    out = tmp_path / "own.safetensors"
    words = ("train", "mnist", "--images", flowers, "--size", 8, "--steps", 2, "--out", out)
    state = tmp_path / "own.safetensors.state"
    state.write_bytes(b"\x80\x04 no state")
    assert call(*words) == 1
    assert "own.safetensors.state is not a whole safetensors file" in capsys.readouterr().err
    assert not out.exists() and state.exists()
    assert call(*words, "--no-resume") == 0
    assert out.exists() and not state.exists()

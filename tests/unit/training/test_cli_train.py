"""`hjbridge train` on pictures of one's own: from a folder or an npz file to a denoiser that samples."""

import dataclasses
import functools
import hashlib
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import MLP, run

from hjbridge import data, training
from hjbridge.cli import main
from hjbridge.cli.weights import left_of_training
from hjbridge.ledger import seals
from hjbridge.metrics.classifiers import CLASSIFIERS
from hjbridge.score import load, release, sample, time_grid
from hjbridge.score.checkpoint import read
from hjbridge.training import RECIPES


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
    ("code", "words", "message"),
    [
        (2, "--images {flowers} --size 8", "out must name a file with --images"),
        (1, "--images {flowers} --out {out}", "size must be given, because the pictures in"),
        (2, "--images {flowers} --size 0 --out {out}", "size must be at least 1, got 0"),
        (1, "--images {flowers} --size 10 --out {out}", "size must be a multiple of 4"),
        (2, "--images {flowers} --size 8 --steps 0 --out {out}", "steps must be at least 1, got 0"),
        (2, "--images {flowers} --size 8 --seed -1 --out {out}", "seed must lie in 0 to 2**32 - 1, got -1"),
        (2, "--images {flowers} --size 8 --out {out}.pt", "out must end in .safetensors, got"),
        (
            2,
            "--images {flowers}/none --out {out}",
            "Invalid value for '--images': ",
        ),
        (1, "--images {flowers}/rose/0.png --out {out}", "must be a whole npz file with an array 'images'"),
        (2, "--size 8 --out {out}", "size goes with --images, got 8 without"),
        (2, "--device gpu --out {out}", "device must be cpu, cuda or cuda:N, got 'gpu'"),
    ],
)
def test_what_cannot_be_used_is_told_and_nothing_is_written(flowers, tmp_path, capsys, code, words, message):
    places = {"flowers": flowers, "out": tmp_path / "own.safetensors"}
    message = message.format(**places)
    assert call("train", "mnist", *(word.format(**places) for word in words.split())) == code
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


def test_a_classifier_is_trained_by_its_name_and_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(CLASSIFIERS, "digits", dataclasses.replace(CLASSIFIERS["digits"], epochs=1))
    out = tmp_path / "own.safetensors"
    assert call("train", "Classifier-Digits-1", "--out", out, "--verify") == 0
    printed = capsys.readouterr().out
    assert f"wrote {out}" in printed and "differs from classifier-digits-1.safetensors by at most" in printed
    assert read(out)[1]["seed"] == 1
    assert call("train", "classifier-digits-1", "--out", out, "--steps", 3) == 2
    assert "classifier-digits-1 is trained by its recipe, without --images, --steps" in capsys.readouterr().err
    assert call("train", "list") == 0
    assert "classifier-fashion-mnist-2" in capsys.readouterr().out


def test_a_gpu_that_is_not_there_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert call("train", "digits", "--device", "cuda:1", "--out", tmp_path / "own.safetensors") == 1
    assert "error: device must be cpu, for PyTorch finds no GPU here, got 'cuda:1'" in capsys.readouterr().err


def test_a_committed_checkpoint_is_entered_in_both_lists(tmp_path, monkeypatch):
    """One step instead of 2,000, in a repository of its own."""
    (tmp_path / "src" / "hjbridge" / "score").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "claims.yml").write_text("claims: []")
    listing = tmp_path / "src" / "hjbridge" / "score" / release.REGISTRY.name
    shutil.copy(release.REGISTRY, listing)
    monkeypatch.setenv("HJBRIDGE_ROOT", str(tmp_path))
    monkeypatch.setitem(RECIPES, "digits", dataclasses.replace(RECIPES["digits"], steps=1))
    assert call("train", "digits") == 0
    before, after = release.REGISTRY.read_text().splitlines(), listing.read_text().splitlines()
    digest = hashlib.sha256((tmp_path / "data" / "checkpoints" / "digits.safetensors").read_bytes()).hexdigest()
    assert [new for new, old in zip(after, before, strict=True) if new != old] == [f"{digest}  digits.safetensors"]
    assert seals.sealed(tmp_path)["data/checkpoints/digits.safetensors"] == digest


def test_without_a_repository_a_checkpoint_needs_a_file(monkeypatch, capsys):
    monkeypatch.setattr("hjbridge.store.repository", lambda: None)
    assert call("train", "digits") == 2
    assert "out must name a file where there is no repository" in capsys.readouterr().err


def test_ctrl_c_says_what_is_left_and_how_to_go_on(tmp_path):
    """A real signal to a real process; the same command, shortened, would go on from the state."""
    out = tmp_path / "own.safetensors"
    command = "from hjbridge.cli import main; main()"
    words = ["train", "digits", "--steps", "100000", "--out", str(out)]
    # a shell starts what runs in the background deaf to this signal, and children inherit it
    hears = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": hears}
    with subprocess.Popen([sys.executable, "-c", command, *words], **options) as process:
        try:
            end = time.monotonic() + 120
            while not Path(f"{out}.state").exists():
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            told = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130 and "Traceback" not in told
    left = re.search(
        r"interrupted: (\S+) holds the run after ([\d,]+) steps; the same command goes on from there", told
    )
    assert left and left[1] == f"{out}.state" and int(left[2].replace(",", "")) % 100 == 0 and not out.exists()


def test_ctrl_c_before_the_first_state_says_so(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    assert call("train", "digits", "--out", tmp_path / "own.safetensors") == 130
    assert "interrupted: no state was saved yet; the same command begins again" in capsys.readouterr().err
    run(MLP, from_digits(), tmp_path / "own.safetensors", stop_after=3)
    assert left_of_training(tmp_path / "own.safetensors", resume=False).endswith(
        "after 3 steps; the same command without --no-resume goes on from there"
    )


def from_digits():
    """Twenty digits."""
    digits = data.load("digits")
    return dataclasses.replace(digits, images=digits.images[:20], labels=digits.labels[:20])

"""The training loop: its arithmetic against a plain one, what a step sees, what is written, what is refused."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from tiny import MLP, NOISE, UNET, Nothing, Seen, identical, run, weights

import hjbridge.training.loop
from hjbridge.data.images import Images
from hjbridge.ledger.freshness import modules_hash, stale_checkpoint
from hjbridge.score import NoisePredictor, load
from hjbridge.score.checkpoint import build, read
from hjbridge.sde import VP
from hjbridge.training.loop import Recipe, batch_loss, learning_rate, modules, train
from hjbridge.training.recipes import DIGITS, RECIPES

# ---- the schedule, the average and the step


def test_rate_rises_linearly_then_falls_as_a_cosine():
    recipe = Recipe("own", steps=100, warmup=20, rate=0.5)
    assert learning_rate(recipe, 0) == pytest.approx(0.5 / 20)
    assert learning_rate(recipe, 9) == pytest.approx(0.5 / 2)
    assert learning_rate(recipe, 19) == learning_rate(recipe, 20) == 0.5
    assert learning_rate(recipe, 40) == pytest.approx(0.5 * (2 + math.sqrt(2)) / 4)
    assert learning_rate(recipe, 60) == pytest.approx(0.25)
    assert learning_rate(recipe, 99) == pytest.approx(0.5 * math.sin(math.pi / 160) ** 2)
    constant = dataclasses.replace(recipe, decay=False)
    assert [learning_rate(constant, step) for step in (0, 20, 60, 99)] == [0.5 / 20, 0.5, 0.5, 0.5]
    assert learning_rate(dataclasses.replace(recipe, warmup=0), 0) == 0.5
    assert learning_rate(dataclasses.replace(recipe, warmup=100), 99) == 0.5


def plain_loop(recipe, data):
    """AdamW, clipping and averaging written out in float32; the losses and the averaged weights."""
    pixels = data.pixels()
    mean, std = (0.5, 0.5) if recipe.prediction == "noise" else (pixels.mean(), pixels.std())
    spec = {
        "network": recipe.network, "settings": recipe.settings, "prediction": recipe.prediction,
        "shape": pixels.shape[1:], "classes": 3 if recipe.conditional else 0, "pixel_mean": mean, "pixel_std": std,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        denoiser = build(spec).train()
    images, labels = (pixels - mean) / std, torch.from_numpy(data.labels)
    values = list(denoiser.parameters())
    average = [p.detach().clone() for p in values]
    first, second = ([torch.zeros_like(p) for p in values] for _ in range(2))
    beta1, beta2 = recipe.betas
    losses = []
    for k in range(recipe.steps):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed * 1_000_003 + k)
            loss = batch_loss(recipe, denoiser, images, labels, k)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, values)
        norm = math.sqrt(sum(g.double().square().sum().item() for g in gradients))
        rate = learning_rate(recipe, k)
        decay = min(recipe.ema, (1 + k) / (10 + k))
        for p, a, m, v, g in zip(values, average, first, second, gradients, strict=True):
            g = g * min(1.0, recipe.clip / norm)
            m.copy_(beta1 * m + (1 - beta1) * g)
            v.copy_(beta2 * v + (1 - beta2) * g**2)
            step = m / (1 - beta1 ** (k + 1)) / ((v / (1 - beta2 ** (k + 1))).sqrt() + 1e-8)
            p.data = p.data - rate * recipe.weight_decay * p.data - rate * step
            a.copy_(decay * a + (1 - decay) * p.data)
    return losses, {name: a for (name, _), a in zip(denoiser.named_parameters(), average, strict=True)}


@pytest.mark.parametrize(
    "recipe",
    [
        dataclasses.replace(MLP, weight_decay=0.1, clip=0.2, seed=3),
        dataclasses.replace(UNET, clip=1e9, decay=False),
        NOISE,
    ],
    ids=["clipped", "plain", "noise"],
)
def test_the_loop_is_adamw_with_an_average_written_out(tmp_path, data, recipe):
    losses, average = plain_loop(recipe, data)
    state = run(recipe, data, tmp_path / "own.safetensors", stop_after=recipe.steps)
    torch.testing.assert_close(
        weights(state)["losses"], torch.tensor(losses, dtype=torch.float64), rtol=1e-4, atol=1e-5
    )
    out = run(recipe, data, tmp_path / "own.safetensors")
    kept, header = read(out)
    assert header["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert kept.keys() == average.keys()
    for name, expected in average.items():
        torch.testing.assert_close(kept[name], expected, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_the_average_is_its_recursion(tmp_path, data, monkeypatch):
    """a <- d a + (1 - d) w with d = min(ema, (1 + k) / (10 + k)), from the weights after each step."""
    seen = []

    def save(path, description, weights, average, *rest):
        seen.append(([w.detach().clone() for w in weights], [a.clone() for a in average]))

    monkeypatch.setattr(hjbridge.training.loop, "save", save)
    run(dataclasses.replace(MLP, steps=30, ema=0.6), data, tmp_path / "own.safetensors", save_every=1)
    assert len(seen) == 30
    decays = [min(0.6, (1 + k) / (10 + k)) for k in range(30)]
    assert decays[0] == 0.1 and decays[20] == 0.6
    for k in range(1, 30):
        for before, weight, after in zip(seen[k - 1][1], seen[k][0], seen[k][1], strict=True):
            torch.testing.assert_close(after, decays[k] * before + (1 - decays[k]) * weight, rtol=1e-5, atol=1e-7)
    kept = weights(tmp_path / "own.safetensors")
    names = [name for name, _ in load(tmp_path / "own.safetensors").named_parameters()]
    assert identical(kept, dict(zip(names, seen[-1][1], strict=True)))


# ---- what a step sees


def test_images_come_with_their_labels_and_depend_on_seed_and_step_alone(monkeypatch):
    seen, images = Seen(monkeypatch), torch.arange(50.0).reshape(50, 1, 1, 1).expand(50, 1, 2, 2)
    recipe = dataclasses.replace(DIGITS, batch=4000, label_drop=0.25, levels=(-0.7, 0.6))
    for seed, step in ((0, 0), (0, 0), (0, 1), (1, 0)):
        batch_loss(dataclasses.replace(recipe, seed=seed), Nothing(), images, torch.arange(50) + 100, step)
    for x0, label, options in seen.calls:
        assert x0.shape == (4000, 1, 2, 2) and torch.equal(label, x0[:, 0, 0, 0].long() + 100)
        assert options["label_drop"] == 0.25 and options["weighting"] == "edm"
        level = VP().ratio(options["t"]).log()
        assert level.mean() == pytest.approx(-0.7, abs=1e-3) and level.std() == pytest.approx(0.6, rel=2e-3)
    drawn = [x0[:, 0, 0, 0] for x0, _, _ in seen.calls]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3]) and not torch.equal(drawn[2], drawn[3])
    counts = drawn[0].long().bincount(minlength=50)
    assert counts.min() > 80 - 4.5 * 9 and counts.max() < 80 + 4.5 * 9
    batch_loss(dataclasses.replace(recipe, conditional=False), Nothing(), images, torch.arange(50), 0)
    assert seen.calls[-1][1] is None


def test_flip_mirrors_half_of_the_images_left_to_right(monkeypatch):
    seen, images = Seen(monkeypatch), torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(5, 1, 2, 2)
    recipe = dataclasses.replace(DIGITS, batch=4000)
    batch_loss(recipe, Nothing(), images, torch.zeros(5, dtype=torch.int64), 0)
    assert torch.equal(seen.calls[0][0], images[:1].expand(4000, 1, 2, 2))
    batch_loss(dataclasses.replace(recipe, flip=True), Nothing(), images, torch.zeros(5, dtype=torch.int64), 0)
    rows = seen.calls[1][0].flatten(1)
    mirrored = (rows == torch.tensor([2.0, 1.0, 4.0, 3.0])).all(1)
    assert (mirrored | (rows == torch.tensor([1.0, 2.0, 3.0, 4.0])).all(1)).all()
    assert mirrored.double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))


def test_noise_prediction_takes_the_steps_of_the_chain_and_the_weight_of_l_simple(monkeypatch):
    seen, images = Seen(monkeypatch), torch.zeros(5, 1, 2, 2)
    recipe = dataclasses.replace(NOISE, batch=20_000)
    batch_loss(recipe, Nothing(), images, torch.zeros(5, dtype=torch.int64), 0)
    _, label, options = seen.calls[0]
    k = options["t"] * 1000
    assert label is None and options["weighting"] == "eps" and k.dtype == torch.float64
    torch.testing.assert_close(k, k.round(), rtol=0, atol=1e-9)
    assert k.min() == 1 and k.max() == 1000
    assert k.mean().item() == pytest.approx(500.5, abs=4 * 1000 / math.sqrt(12 * 20_000))
    recipe = dataclasses.replace(recipe, conditional=True, label_drop=0.25)
    batch_loss(recipe, Nothing(), images, torch.ones(5, dtype=torch.int64), 0)
    assert seen.calls[-1][2]["label_drop"] == 0.25 and seen.calls[-1][1].min() == 1


def test_the_first_loss_of_noise_prediction_is_the_noise(tmp_path, data):
    """The network starts at zero, so that L_simple is |eps|^2: its mean over a batch of known draws."""
    recipe = dataclasses.replace(NOISE, steps=1, batch=50)
    out = run(recipe, data, tmp_path / "own.safetensors")
    generator = torch.Generator().manual_seed(0)
    torch.randint(20, (50,), generator=generator), torch.rand(50, generator=generator)
    torch.randint(1, 1001, (50,), generator=generator)
    noise = torch.randn(50, 1, 4, 4, generator=generator)
    assert read(out)[1]["loss"] == pytest.approx(noise.square().mean().item(), rel=1e-3)


# ---- the checkpoint


def test_the_header_tells_how_the_weights_were_made(tmp_path, data):
    recipe = dataclasses.replace(UNET, seed=7)
    out = run(recipe, data, tmp_path / "own.safetensors")
    header = read(out)[1]
    assert header["recipe"] == json.loads(json.dumps(dataclasses.asdict(recipe))) and header["recipe"]["seed"] == 7
    assert header["images"] == 20 and header["torch"] == torch.__version__.split("+")[0]
    assert header["seconds"] >= 0 and math.isfinite(header["loss"])
    assert header["hash"] == modules_hash(modules(recipe)) and header["modules"] == list(modules(recipe))
    assert stale_checkpoint(out) == []
    pixels = data.images / 255
    assert header["spec"]["pixel_mean"] == pytest.approx(pixels.mean(), rel=1e-6)
    assert header["spec"]["pixel_std"] == pytest.approx(pixels.std(ddof=1), rel=1e-6)
    assert header["spec"]["classes"] == 3 and header["spec"]["shape"] == [1, 4, 4]
    denoiser = load(out)
    assert denoiser.header == header and denoiser.classes == 3 and denoiser.shape == (1, 4, 4)
    assert not (tmp_path / "own.safetensors.state").exists()


def test_noise_prediction_keeps_ddpm_s_scale_and_storage_may_be_half(tmp_path, data):
    out = run(dataclasses.replace(NOISE, storage="float16"), data, tmp_path / "own.safetensors")
    tensors, header = read(out)
    assert {v.dtype for v in tensors.values()} == {torch.float16}
    assert (header["spec"]["pixel_mean"], header["spec"]["pixel_std"], header["spec"]["classes"]) == (0.5, 0.5, 0)
    assert isinstance(load(out), NoisePredictor)


def test_the_data_set_of_the_recipe_is_loaded_when_none_is_given(tmp_path, data, monkeypatch):
    import hjbridge.data

    asked = []
    monkeypatch.setattr(hjbridge.data, "load", lambda *names, **options: asked.append((names, options)) or data)
    recipe = dataclasses.replace(MLP, data="mnist", full=True)
    train(recipe, out=tmp_path / "one.safetensors", progress=False)
    assert asked == [(("mnist", "train"), {"full": True})]
    run(recipe, data, tmp_path / "other.safetensors")
    assert identical(weights(tmp_path / "one.safetensors"), weights(tmp_path / "other.safetensors"))


def test_progress_is_shown_unless_told_otherwise(tmp_path, data, capsys):
    run(MLP, data, tmp_path / "own.safetensors")
    assert capsys.readouterr().err == ""
    train(MLP, data, out=tmp_path / "own.safetensors")
    assert "12/12" in capsys.readouterr().err


def test_the_paper_configuration_takes_three_steps(tmp_path):
    """The network and settings of Ho et al. 2020 on random images of CIFAR-10's shape."""
    paper = RECIPES["paper"]
    assert (paper.batch, paper.rate, paper.warmup, paper.ema, paper.steps) == (128, 2e-4, 5000, 0.9999, 800_000)
    assert paper.flip and not paper.conditional and not paper.decay and paper.settings == {"dropout": 0.1}
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    data = Images(images, np.zeros(8, dtype=np.int64), "cifar10")
    out = run(dataclasses.replace(paper, steps=3, batch=2), data, tmp_path / "paper.safetensors")
    tensors, header = read(out)
    assert sum(v.numel() for v in tensors.values()) == 35_746_307
    assert header["loss"] == pytest.approx(1, abs=0.05)
    assert 0 < tensors["network.head.weight"].abs().max() < 1e-5

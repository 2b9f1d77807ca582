"""The committed classifiers: what they score, what they reject, and how they are made."""

import dataclasses
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from hjbridge import data, metrics
from hjbridge.metrics.classifiers import CLASSIFIERS, Classifier, shifted, train_classifier
from hjbridge.metrics.features import SEEDS, classifier_path, make_classifier
from hjbridge.score.checkpoint import read

LEAST = {"digits": 0.985, "mnist": 0.99, "fashion-mnist": 0.905}
ALL = [(name, seed) for name in CLASSIFIERS for seed in SEEDS]


@pytest.mark.parametrize(("name", "seed"), ALL)
def test_classifiers_recognise_real_test_images(name, seed):
    model, test = metrics.classifier(name, seed), data.load(name, "test")
    assert model.header["accuracy"] >= LEAST[name]
    found = metrics.label_accuracy(model, test.pixels(), torch.from_numpy(test.labels), level=0.999)
    assert found.low <= model.header["accuracy"] <= found.high
    if name == "digits":  # here the embedded test set is the whole one
        assert found.value == model.header["accuracy"]


@pytest.mark.parametrize(("name", "seed"), ALL)
def test_reference_moments_are_those_of_the_training_images(name, seed):
    model, train = metrics.classifier(name, seed), data.load(name)
    found = metrics.features(model, train.pixels())
    assert model.reference.covariance.dtype == torch.float64 and found.shape == (len(train), 64)
    if name == "digits":
        again = metrics.Moments.of(found)
        torch.testing.assert_close(again.mean, model.reference.mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(again.covariance, model.reference.covariance, rtol=1e-4, atol=1e-4)
        assert model.reference.n == 1297
    else:
        assert model.reference.n == 60_000
        grey = train.pixels().mean(0).expand(500, -1, -1, -1) + 0.05 * torch.rand(500, 1, 28, 28)
        assert metrics.frechet_distance(found, model.reference) < 0.02 * metrics.frechet_distance(
            metrics.features(model, grey), model.reference
        )


@pytest.mark.parametrize(("name", "seed"), ALL)
def test_checkpoints_are_small_and_tell_their_origin(name, seed):
    path = classifier_path(name, seed)
    assert path.stat().st_size < 400_000
    _, header = read(path)
    assert header["recipe"] == dataclasses.asdict(CLASSIFIERS[name]) | {"strides": list(CLASSIFIERS[name].strides)}
    assert header["seed"] == seed and header["data"] == name and 0 < header["seconds"] < 300
    assert set(header) >= {"accuracy", "modules", "hash", "sha256", "images"}


def test_frechet_distance_orders_corruptions():
    model, test = metrics.classifier("digits", 0), data.load("digits", "test")
    pixels, noise = test.pixels(), torch.randn(500, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def distance(images):
        return metrics.frechet_distance(metrics.features(model, images), model.reference)

    real, slight, strong = distance(pixels), distance(pixels + 0.1 * noise), distance(pixels + 0.4 * noise)
    assert real < slight < strong and distance(pixels[torch.from_numpy(test.labels) != 3]) > 1.5 * real


@pytest.fixture
def copied(tmp_path, monkeypatch):
    (tmp_path / "data" / "checkpoints").mkdir(parents=True)
    shutil.copy(classifier_path("digits", 0), tmp_path / "data" / "checkpoints")
    monkeypatch.setenv("HJBRIDGE_ROOT", str(tmp_path))
    return tmp_path / "data" / "checkpoints" / "classifier-digits-0.safetensors"


def test_a_harmed_checkpoint_is_named_with_the_remedy(copied):
    whole = copied.read_bytes()
    for harmed in (whole[:-1], b"", whole[:7]):
        copied.write_bytes(harmed)
        with pytest.raises(ValueError, match=r"classifier-digits-0.safetensors is not a whole .* `git checkout"):
            metrics.classifier("digits", 0)
    copied.write_bytes(whole[:40_000] + bytes([whole[40_000] ^ 1]) + whole[40_001:])
    with pytest.raises(ValueError, match=r"classifier-digits-0.*is harmed, .* `git checkout"):
        metrics.classifier("digits", 0)
    copied.unlink()
    with pytest.raises(FileNotFoundError, match=r"classifier-digits-0.safetensors is missing: restore it with `git"):
        metrics.classifier("digits", 0)


def test_a_pickle_is_never_read(copied):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was executed",))

    copied.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="pickles are never read"):
        metrics.classifier("digits", 0)


def test_foreign_tensors_are_refused(copied):
    tensors = load_file(copied)
    save_file(tensors, copied)
    with pytest.raises(ValueError, match="is not a whole safetensors file of hjbridge"):
        metrics.classifier("digits", 0)


def test_unknown_names_and_shapes_are_refused():
    with pytest.raises(ValueError, match="name must be one of digits, mnist, fashion-mnist, got 'cifar10'"):
        metrics.classifier("cifar10", 0)
    with pytest.raises(ValueError, match="seed must be one of 0, 1, 2, got 3"):
        metrics.classifier("digits", 3)
    model = metrics.classifier("digits", 0)
    with pytest.raises(ValueError, match=r"pixels must have shape \(n, 1, 8, 8\), n > 0, got \(2, 1, 28, 28\)"):
        metrics.features(model, torch.zeros(2, 1, 28, 28))
    with pytest.raises(ValueError, match="pixels must be finite"):
        metrics.features(model, torch.full((2, 1, 8, 8), torch.nan))
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\), got \(3,\)"):
        metrics.label_accuracy(model, torch.zeros(2, 1, 8, 8), torch.zeros(3, dtype=torch.int64))


def test_the_image_network_has_the_size_that_the_book_tells():
    count = {name: sum(p.numel() for p in Classifier(CLASSIFIERS[name]).parameters()) for name in CLASSIFIERS}
    assert count == {"digits": 40_394, "mnist": 89_546, "fashion-mnist": 89_546}


def test_shifts_move_whole_images_by_every_amount():
    x = torch.zeros(400, 1, 5, 5)
    x[:, 0, 2, 2] = 1
    moved = shifted(x, 1, torch.Generator().manual_seed(0))
    places = {tuple(place.tolist()) for place in moved.nonzero()[:, 2:]}
    assert places == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3)} and moved.sum() == 400
    corner = torch.ones(50, 1, 2, 2)
    assert {float(s) for s in shifted(corner, 1, torch.Generator()).sum((1, 2, 3))} <= {1.0, 2.0, 4.0}


def test_training_is_reproducible_and_learns():
    train, test = data.load("digits"), data.load("digits", "test")
    recipe = dataclasses.replace(CLASSIFIERS["digits"], epochs=3)
    state = torch.random.get_rng_state()
    runs = [train_classifier(recipe, train.pixels(), torch.from_numpy(train.labels), seed)[0] for seed in (5, 5, 6)]
    assert torch.equal(state, torch.random.get_rng_state())
    one, two, other = (run.head.weight for run in runs)
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert metrics.label_accuracy(runs[0], test.pixels(), torch.from_numpy(test.labels)).value > 0.8


def test_a_made_classifier_loads_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HJBRIDGE_ROOT", str(tmp_path))
    monkeypatch.setitem(CLASSIFIERS, "digits", dataclasses.replace(CLASSIFIERS["digits"], epochs=1))
    path = make_classifier("digits", 1)
    assert path == tmp_path / "data" / "checkpoints" / "classifier-digits-1.safetensors"
    model = metrics.classifier("digits", 1)
    assert 0.1 < model.header["accuracy"] < 0.985 and model.header["recipe"]["epochs"] == 1
    assert model.header["images"] == model.reference.n == 1297


def test_a_diverging_training_stops_with_a_clear_error():
    train = data.load("digits")
    recipe = dataclasses.replace(CLASSIFIERS["digits"], epochs=2, rate=1e30)
    with pytest.raises(FloatingPointError, match="loss must be finite, got nan"):
        train_classifier(recipe, train.pixels(), torch.from_numpy(train.labels), 0)

"""The committed classifiers: made by `hjbridge train classifier-mnist-0`, loaded by `classifier("mnist", 0)`."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from hjbridge.data.sets import load
from hjbridge.ledger.freshness import modules_hash
from hjbridge.metrics.classifiers import CLASSIFIERS, FEATURES, Classifier, train_classifier
from hjbridge.metrics.moments import Moments
from hjbridge.score.checkpoint import read, write
from hjbridge.score.release import find, remedy

SEEDS = (0, 1, 2)
MODULES = ("hjbridge.metrics.classifiers", "hjbridge.metrics.moments")
CHUNK = 2000


def features(model: Classifier, pixels: Tensor) -> Tensor:
    """Features (n, 64) of images, in chunks and without a graph.

    Args:
        model: from `classifier`.
        pixels: (n, 1, side, side) in [0, 1].

    Raises:
        ValueError: another shape, NaN or infinity.
    """
    side = model.recipe.side
    if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (1, side, side) or not len(pixels):
        raise ValueError(f"pixels must have shape (n, 1, {side}, {side}), n > 0, got {tuple(pixels.shape)}")
    if not bool(torch.isfinite(pixels).all()):
        raise ValueError("pixels must be finite, got NaN or infinity")
    weight = model.head.weight
    with torch.no_grad():
        return torch.cat([model.features(part.to(weight)) for part in pixels.split(CHUNK)])


def classifier_path(name: str, seed: int) -> Path:
    """The checkpoint's path, see `release.find`; ValueError for an unknown data set or seed."""
    if name not in CLASSIFIERS:
        raise ValueError(f"name must be one of {', '.join(CLASSIFIERS)}, got {name!r}")
    if seed not in SEEDS:
        raise ValueError(f"seed must be one of {', '.join(map(str, SEEDS))}, got {seed}")
    return find(f"classifier-{name}-{seed}")


def classifier(name: str, seed: int = 0) -> Classifier:
    """A committed classifier, every byte verified; it is shared between callers and must not be changed.

    Args:
        name: digits, mnist or fashion-mnist.
        seed: 0, 1 or 2, the seed of its training.

    Returns:
        Classifier in evaluation mode, with the moments of the training images' features in `.reference`.

    Raises:
        ValueError: unknown name or seed; a file that is not the safetensors file it should be, a pickle for instance.
        FileNotFoundError: the file is missing.
        OSError: there is no repository, and it cannot be fetched.
    """
    return _read(classifier_path(name, seed), name, seed)


@lru_cache(maxsize=9)
def _read(path: Path, name: str, seed: int) -> Classifier:
    tensors, header = read(path, remedy(path))
    try:
        mean, covariance = tensors.pop("reference.mean"), tensors.pop("reference.covariance")
        model = Classifier(CLASSIFIERS[name])
        model.load_state_dict({key: value.float() for key, value in tensors.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"checkpoint {path} does not hold the classifier it should: {error}; {remedy(path)}"
        ) from error
    model.reference, model.header = Moments(mean, covariance, header["images"]), header
    return model.eval().requires_grad_(False)


def make_classifier(name: str, seed: int, out: Path | None = None) -> Path:
    """Train a classifier on the full training set and write its checkpoint, weights rounded to 16 bits.

    Args:
        name, seed: as in `classifier`.
        out: the file to write; None: the committed one.

    Returns:
        The path. The header's `hjbridge` entry tells recipe, seed, CPU seconds, test accuracy, modules and their hash.
    """
    path, source = out or classifier_path(name, seed), modules_hash(MODULES)
    train, test = load(name, "train", full=True), load(name, "test", full=True)
    pixels, labels = train.pixels(), torch.from_numpy(train.labels)
    model, seconds = train_classifier(CLASSIFIERS[name], pixels, labels, seed)
    weights = {key: value.half() for key, value in model.state_dict().items()}
    model.load_state_dict({key: value.float() for key, value in weights.items()})  # moments of what is stored
    reference = Moments.of(features(model, pixels))
    right = model.head(features(model, test.pixels())).argmax(1) == torch.from_numpy(test.labels)
    tensors = weights | {"reference.mean": reference.mean, "reference.covariance": reference.covariance}
    header = {
        "recipe": asdict(CLASSIFIERS[name]), "data": name, "seed": seed, "images": len(train), "features": FEATURES,
        "seconds": round(seconds, 1), "accuracy": right.double().mean().item(), "modules": list(MODULES),
        "hash": source, "torch": torch.__version__.split("+")[0],
    }  # fmt: skip
    write(tensors, header, path)
    _read.cache_clear()
    return path

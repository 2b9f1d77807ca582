"""Labelled images, and how one's own come in: from an npz file or from a folder of pictures."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Args:
        images: uint8 (n, c, h, w), 0..255.
        labels: int64 (n,).
        name: the data set.
        split: train or test.
    """

    images: np.ndarray
    labels: np.ndarray
    name: str
    split: str = "train"

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8 or not self.images.size:
            raise ValueError(
                f"images must be uint8 (n, c, h, w), not empty, got {self.images.dtype} {self.images.shape}"
            )
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != np.int64:
            raise ValueError(f"labels must be int64 ({len(self.images)},), got {self.labels.dtype} {self.labels.shape}")
        if self.labels.min() < 0:
            raise ValueError(f"labels must not be negative, got {self.labels.min()}")

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self) -> torch.Tensor:
        """The images as float32 (n, c, h, w) in [0, 1]: u / 255."""
        import torch

        return torch.from_numpy(self.images).to(torch.float32) / 255


def from_npz(path: str | Path) -> Images:
    """Images of one's own from an npz file.

    Args:
        path: holds `images`, uint8 in 0..255 or floating point in [0, 1], of shape (n, h, w), (n, c, h, w) or
            (n, h, w, c) with c = 1 or 3; and, if one likes, `labels`, integers (n,) from 0 on.

    Returns:
        Images named after the file; without labels every label is 0.

    Raises:
        ValueError: not an npz file, no `images`, or values, shapes or labels outside of what is accepted.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path must be an existing npz file, got {path}")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no zip archive")
        with np.load(path, allow_pickle=False) as arrays:
            if "images" not in arrays.files:
                raise ValueError("it has no array named 'images'")
            images = arrays["images"]
            labels = arrays["labels"] if "labels" in arrays.files else np.zeros(len(images), np.int64)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} must be a whole npz file with an array 'images', never a pickle: {error}") from error
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images in {path} must be (n, h, w), (n, c, h, w) or (n, h, w, c), c = 1 or 3, got {images.shape}"
        )
    if np.issubdtype(images.dtype, np.floating):
        if not (np.isfinite(images).all() and images.min(initial=0) >= 0 and images.max(initial=0) <= 1):
            raise ValueError(f"floating-point images in {path} must lie in [0, 1], got other values")
        images = np.round(255 * images).astype(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels in {path} must be integers, got {labels.dtype}")
    return Images(np.ascontiguousarray(images), labels.astype(np.int64), path.stem)


def from_folder(path: str | Path, size: int | None = None) -> Images:
    """Images of one's own from a folder; sub-folders, in alphabetical order, are the labels 0, 1, ...

    Args:
        path: pictures directly inside it (all labelled 0), or one sub-folder per label, not both. Names that begin
            with a dot are passed over. Grey pictures of 16 bits are brought to 8: u / 257.
        size: each picture is cut to its central square and scaled to size x size; None: taken as it is.

    Returns:
        Images named after the folder: one channel if every picture is grey, three otherwise.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: size < 1, no picture found, pictures beside sub-folders, an unreadable picture, or (size None)
            pictures of different sizes.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"path must be an existing folder, got {path}")
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    folders = [p for p in _visible(path) if p.is_dir()]
    loose = [p for p in _visible(path) if p.suffix.lower() in ENDINGS and not p.is_dir()]
    if folders and loose:
        raise ValueError(
            f"path must hold pictures or sub-folders, not both, got the picture {loose[0].name} beside the sub-folder "
            f"{folders[0].name} in {path}"
        )
    groups = enumerate(folders or [path])
    files = [(p, k) for k, group in groups for p in _visible(group) if p.suffix.lower() in ENDINGS]
    if not files:
        raise ValueError(f"path must hold pictures ({', '.join(ENDINGS)}), got none in {path}")
    pictures = []
    for file, _ in files:
        try:
            with Image.open(file) as opened:
                if opened.mode in ("I", "F") or opened.mode.startswith("I;16"):
                    picture = Image.fromarray(_eight_bits(np.asarray(opened), opened.format))
                else:
                    picture = opened.convert("L" if opened.mode in ("1", "L", "LA") else "RGB")
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{file} must be a readable picture: {error}") from error
        pictures.append(picture if size is None else ImageOps.fit(picture, (size, size)))
    if len({picture.size for picture in pictures}) > 1:
        raise ValueError(f"size must be given, because the pictures in {path} have different sizes")
    mode = "L" if all(picture.mode == "L" for picture in pictures) else "RGB"
    images = np.stack([np.asarray(picture.convert(mode)) for picture in pictures])
    images = images[:, None] if mode == "L" else images.transpose(0, 3, 1, 2)
    return Images(np.ascontiguousarray(images), np.array([k for _, k in files], np.int64), path.name)


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, in alphabetical order, without names that begin with a dot."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def _eight_bits(values: np.ndarray, kind: str | None) -> np.ndarray:
    """Grey values of 16 bits as uint8, u / 257 rounded; ValueError for 32 bits, and for floating point."""
    # Pillow holds 16 bits of some kinds of files in 32
    if values.dtype.itemsize != 2 and (kind not in ("PNG", "PPM") or values.dtype.kind == "f"):
        raise ValueError(f"its grey values must have 8 or 16 bits, got {values.dtype}")
    return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)


def from_files(path: str | Path, size: int | None = None) -> Images:
    """Images of one's own from a folder (`from_folder`) or an npz file (`from_npz`, where size must be None).

    Raises: FileNotFoundError if there is neither; else what those two raise.
    """
    if Path(path).is_dir():
        return from_folder(path, size)
    if not Path(path).exists():
        raise FileNotFoundError(f"path must be an existing folder or npz file, got {path}")
    if size is not None:
        raise ValueError(f"size must be None for an npz file, got {size}")
    return from_npz(path)

"""Bits per dimension: densities of the model's coordinates as code lengths of grey values."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hjbridge.score.pixels import dequantise

UNITS = ("nats", "bits_per_dim")


def grey_levels(denoiser: Any, levels: int | None) -> int:
    """Number of grey values: `levels`, or what the denoiser was trained on, or 256.

    Raises: ValueError if the denoiser was trained on dequantised pixels of another number of them.
    """
    trained = getattr(denoiser, "grey_levels", 0)
    if levels is not None and trained not in (0, levels):
        raise ValueError(f"levels must be {trained}, on which the denoiser was trained, or None, got {levels}")
    return (trained or 256) if levels is None else levels


def from_grey(pixels: Tensor, levels: int, mean: float, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Data ((k + u) / levels - mean) / std from pixels k / (levels - 1), with u uniform on [0, 1): see `dequantise`."""
    return (dequantise(pixels, levels, generator) - mean) / std


def bits_per_dim(nats: Tensor, d: int, levels: int, std: float) -> Tensor:
    """Bits per dimension from the log density in d coordinates of x = (pixel - mean) / std.

        b = -(log p(x) - d log std) / (d log 2) + log2 levels

    The first part is -log2 of the density of the pixels in [0, 1]^d, of which a grey value has a cube of side
    1/levels. Args: nats (n,). Returns: (n,).
    """
    # -(log p(x) - d log std) / (d log 2) + log2 levels
    return -(nats - d * math.log(std)) / (d * math.log(2)) + math.log2(levels)

"""Grey levels and densities: pixels are whole numbers of levels, a density lives between them."""

from __future__ import annotations

import torch
from torch import Tensor


def grey_index(pixels: Tensor, levels: int) -> Tensor:
    """The whole numbers k of pixels k / (levels - 1), as floats of the shape of pixels.

    A tenth of a step is forgiven: bytes round seventeen levels by up to .03 of one.
    Raises: ValueError if levels is below 2, or pixels are not floating, leave [0, 1] or lie between the levels.
    """
    if levels < 2:
        raise ValueError(f"levels must be at least 2, got {levels}")
    if not pixels.is_floating_point():
        raise ValueError(f"pixels must be floating, in [0, 1], got {pixels.dtype}")
    inside = (pixels >= 0) & (pixels <= 1)
    if not bool(inside.all()):
        raise ValueError(f"pixels must lie in [0, 1], got {pixels[~inside].flatten()[0].item():g}")
    k = (pixels * (levels - 1)).round()
    between = (pixels * (levels - 1) - k).abs() > 0.1
    if bool(between.any()):
        raise ValueError(f"pixels must be multiples of 1/{levels - 1}, got {pixels[between].flatten()[0].item():g}")
    return k


def dequantise(pixels: Tensor, levels: int, generator: torch.Generator | None = None) -> Tensor:
    """Uniform dequantisation (k + u) / levels of pixels k / (levels - 1), u uniform on [0, 1) and fresh for each pixel.

    A density p on [0, 1]^d gives the grey values k the probability P(k) = int p((k + u) / levels) du / levels^d, and
    by Jensen -log P(k) <= -E log p((k + u) / levels) + d log levels (Theis et al. 2016).

    Args: pixels in [0, 1], any shape. levels: how many grey values there are. generator: on the device of pixels.
    Returns: the shape of pixels, in [0, 1). Raises: ValueError as `grey_index`.
    """
    k = grey_index(pixels, levels)
    noise = torch.rand(k.shape, generator=generator, dtype=k.dtype, device=k.device)
    # (k + u) / levels; rounding may reach 1
    return ((k + noise) / levels).clamp(max=1 - torch.finfo(k.dtype).eps)


def quantise(x: Tensor, levels: int) -> Tensor:
    """The pixel k / (levels - 1) whose bin [k, k + 1) / levels holds x; values outside [0, 1] go to the nearest end."""
    return (x * levels).floor().clamp(0, levels - 1) / (levels - 1)

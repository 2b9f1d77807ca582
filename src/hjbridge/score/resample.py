"""Images at half and at double size: a smoothing filter that keeps high frequencies from folding, or plain means."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: a row of the filter, times 8 (Karras et al. 2020, StyleGAN2; Song et al. 2021, appendix H)
TAPS = (1.0, 3.0, 3.0, 1.0)


def kernel(x: Tensor) -> Tensor:
    """Weights k_i k_j with k = (1, 3, 3, 1) / 8, once for each channel of x (batch, c, h, w): (c, 1, 4, 4)."""
    row = torch.tensor(TAPS, dtype=x.dtype, device=x.device) / sum(TAPS)
    return torch.outer(row, row).expand(x.shape[1], 1, len(TAPS), len(TAPS))


def smooth(x: Tensor, padding: int, stride: int = 1) -> Tensor:
    """y_mn = sum_ij k_i k_j x_(stride m + i - padding, stride n + j - padding), with zeros outside the image."""
    return F.conv2d(x, kernel(x), padding=padding, stride=stride, groups=x.shape[1])


def halve(x: Tensor, fir: bool = True) -> Tensor:
    """Image at half height and width.

    Args: x (batch, channels, h, w); fir smooths with the filter around each 2x2 square before every second pixel is
        taken, else each square is replaced by its mean.
    Returns: (batch, channels, h/2, w/2). Raises: ValueError if h or w is odd.
    """
    if x.shape[-1] % 2 or x.shape[-2] % 2:
        raise ValueError(f"x must have even height and width, got {tuple(x.shape)}")
    return smooth(x, padding=1, stride=2) if fir else F.avg_pool2d(x, 2)


def double(x: Tensor, fir: bool = True) -> Tensor:
    """Image at double height and width.

    Args: x (batch, channels, h, w); fir spreads each pixel by four times the filter, so that a constant stays one
        away from the border, else each pixel is repeated in a 2x2 square.
    Returns: (batch, channels, 2 h, 2 w).
    """
    if not fir:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    # y_m = sum_n 2 k_(m + 1 - 2 n) x_n in each direction
    return F.conv_transpose2d(x, 4 * kernel(x), stride=2, padding=1, groups=x.shape[1])
